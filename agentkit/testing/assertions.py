"""What a test expects of a run, said in addresses: `assert_trace`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from agentkit.errors import ConfigurationError
from agentkit.trace.effects import RecordedEffect
from agentkit.trace.reader import Trace

Expected: TypeAlias = str | tuple[str, str] | tuple[str, str | Mapping[str, Any]]
"""An address pattern, alone, with a name, or with several fields of the effect."""
FIELDS = ("kind", "name", "arguments", "result", "status", "skipped", "error")


def assert_trace(trace: Trace | None, expected: Sequence[Expected], *, only: bool = False) -> None:
    """Assert that a run had these effects, in this order.

    Other effects may stand between them. Calls that ran at the same time stand in call order.

        assert_trace(result.trace, [
            "m0",
            ("m0/t*", "get_weather"),
            ("m0/t1", {"arguments": {"city": "Oslo"}, "result": "rain in Oslo"}),
            ("**/search", {"kind": "agent", "status": "ok"}),
        ])

    Args:
        trace: The run's trace.
        expected: Patterns of addresses. `*` stands for anything within a part of an
            address, a part `**` for any number of parts. One that does not begin with `/`
            lies below the outermost agent. With it may stand the name of the tool, the model
            or the agent, or a mapping of fields: `kind` (`"model"`, `"tool"`, `"agent"` or
            `"compute"`), `name`, `arguments` (as JSON, or their text), `result` (the text that
            the model reads, or an agent's output), `status`, `skipped`, `error` (its type).
        only: Whether there may be no other model calls, tool calls or agents.

    Raises:
        AssertionError: An effect is missing, out of order, different, or one too many. The
            message lists what the run did.
        ConfigurationError: The run has no trace, or what is expected is not in this form.
    """
    if trace is None:
        raise ConfigurationError("The run has no trace: it was run with trace=False.")
    wanted = [_Wanted(one) for one in expected]
    found = sorted(trace.effects.values(), key=_order)
    if only:
        found = [one for one in found if one.kind != "compute" and one.at.count("/") > 1]
    root = found[0].at.split("/")[1] if found else "agent"
    place, matched = 0, dict[int, int]()
    for number, want in enumerate(wanted):
        at = next((i for i in range(place, len(found)) if want.fits(found[i], root)), None)
        if at is None:
            raise AssertionError(_missing(number, want, found, matched, root))
        matched[at] = number
        place = at + 1
    if only and len(matched) < len(found):
        extra = next(one for index, one in enumerate(found) if index not in matched)
        raise AssertionError(f"{extra.at} was not expected.\n{_listing(found, matched)}")


class _Wanted:
    """One item of what is expected."""

    def __init__(self, item: Any) -> None:
        match item:
            case (str(pattern), str(name)):
                fields: Mapping[str, Any] = {"name": name}
            case (str(pattern), Mapping()):
                fields = cast("Mapping[str, Any]", item[1])
            case _:
                pattern, fields = item, {}
        if not (isinstance(pattern, str) and pattern and fields.keys() <= {*FIELDS}):
            raise ConfigurationError(
                f"assert_trace: {item!r} is not what can be expected. Give an address pattern "
                f'such as "m0/t*", and with it a name or a dict of {", ".join(FIELDS)}.'
            )
        self.pattern: str = pattern
        self.fields: Mapping[str, Any] = fields

    def at(self, effect: RecordedEffect, root: str) -> bool:
        """Tell whether the effect's address fits."""
        whole = self.pattern if self.pattern.startswith("/") else f"/{root}/{self.pattern}"
        parts = (
            "(/[^/]+)*" if part == "**" else "/" + re.escape(part).replace(r"\*", "[^/]*")
            for part in whole[1:].split("/")
        )
        return re.fullmatch("".join(parts), effect.at) is not None

    def problem(self, effect: RecordedEffect) -> str | None:
        """Return what of the effect is not as expected."""
        for name, value in self.fields.items():
            actual = _field(effect, name)
            if actual == value or (name == "arguments" and effect.arguments == value):
                continue
            return f"{name} is {actual!r}, not {value!r}"
        return None

    def fits(self, effect: RecordedEffect, root: str) -> bool:
        """Tell whether this is the effect."""
        return self.at(effect, root) and self.problem(effect) is None

    def __str__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.fields.items())
        return f"{self.pattern} ({fields})" if fields else self.pattern


def _order(effect: RecordedEffect) -> tuple[tuple[str, int], ...]:
    return effect.at.order


def _field(effect: RecordedEffect, name: str) -> Any:
    match name:
        case "arguments":
            try:
                return json.loads(effect.arguments or "null")
            except ValueError:
                return effect.arguments
        case "result":
            return _result(effect)
        case "error":
            return effect.error and effect.error.type
        case _:
            return getattr(effect, name)


def _result(effect: RecordedEffect) -> Any:
    outcome = effect.outcome
    if effect.kind in ("agent", "compute"):
        return effect.output
    message = getattr(outcome, "message", None)
    return getattr(message, "text", None)


def _missing(
    number: int,
    want: _Wanted,
    found: Sequence[RecordedEffect],
    matched: Mapping[int, int],
    root: str,
) -> str:
    """Describe an effect that was not there, with the nearest that was."""
    after = max(matched, default=-1)
    lines = [f"Item {number} of the expected effects was not there: {want}"]
    for index, one in enumerate(found):
        if not want.at(one, root):
            continue
        problem = want.problem(one)
        if problem is None:
            problem = f"it comes before {found[after].at}, which item {matched[after]} expects"
        lines.append(f"  {one.at}: {problem}" + (" (earlier)" if index < after else ""))
    return "\n".join([*lines, _listing(found, matched)])


def _listing(found: Sequence[RecordedEffect], matched: Mapping[int, int]) -> str:
    lines = ["The run:"]
    for index, one in enumerate(found):
        mark = f"{matched[index]:>3}" if index in matched else "  ·"
        shown = f"{one.name} {one.arguments}".strip() if one.kind == "tool" else one.name
        lines.append(f"{mark}  {one.at}  {one.kind} {shown:.80}  {one.status}")
    return "\n".join(lines)
