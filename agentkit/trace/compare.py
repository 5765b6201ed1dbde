"""Where a replay first differs from its recording: as data, as a JSON pointer, in words.

Both sides are compared as JSON, after redaction and without the ids that
servers give to calls. How strictly is the caller's choice:

    exact       the whole request: messages, tools, parameters, model
    structural  the same calls in the same places; texts and arguments may differ
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal, TypeAlias

from agentkit.core.effects import ModelCall, ToolInvocation
from agentkit.errors import ReplayDivergence
from agentkit.messages import JsonObject, is_array, is_object
from agentkit.redaction import PLACEHOLDER
from agentkit.trace.effects import RecordedEffect
from agentkit.trace.naming import Namer, packed, request_params, without_ids
from agentkit.trace.reader import Trace

Strictness: TypeAlias = Literal["exact", "structural"]
ABSENT = "(absent)"
_COUNTED = 1_000
"""Differences beyond this many are not counted."""
_AROUND = 40
"""Characters shown on each side of the first one that differs."""


@dataclass(frozen=True, slots=True)
class Found:
    """One difference between two JSON values.

    Attributes:
        pointer: Where (RFC 6901).
        expected: What the first value has there.
        actual: What the second has.
        position: The index of the first differing character, where both are text.
    """

    pointer: str
    expected: Any
    actual: Any
    position: int | None = None


def differences(expected: Any, actual: Any, pointer: str = "") -> Iterator[Found]:
    """Yield the places where two JSON values differ, in order: leaves, and what one side lacks."""
    if is_object(expected) and is_object(actual):
        for key in [*expected, *(key for key in actual if key not in expected)]:
            at = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
            if key in expected and key in actual:
                yield from differences(expected[key], actual[key], at)
            else:
                yield Found(at, expected.get(key, ABSENT), actual.get(key, ABSENT))
    elif is_array(expected) and is_array(actual):
        # What is the same at both ends is left out, so that an inserted item is just that.
        begin = _same_length(expected, actual)
        end = _same_length(expected[begin:][::-1], actual[begin:][::-1])
        left, right = expected[begin : len(expected) - end], actual[begin : len(actual) - end]
        for index in range(max(len(left), len(right))):
            at = f"{pointer}/{begin + index}"
            if index < len(left) and index < len(right):
                yield from differences(left[index], right[index], at)
            else:
                yield Found(at, _item(left, index), _item(right, index))
    elif isinstance(expected, str) and isinstance(actual, str):
        if expected != actual:
            yield Found(pointer, expected, actual, _first_character(expected, actual))
    elif not _same(expected, actual):
        yield Found(pointer, expected, actual)


def _same_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items are the same, from the first on."""
    pairs = enumerate(zip(one, other, strict=False))
    least = min(len(one), len(other))
    return next((index for index, (a, b) in pairs if not _same(a, b)), least)


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1."""
    if is_object(one) and is_object(other):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if is_array(one) and is_array(other):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _item(items: Sequence[Any], index: int) -> Any:
    return items[index] if index < len(items) else ABSENT


def _first_character(one: str, other: str) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:  # texts may be long: halve instead of walking
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def request_difference(
    trace: Trace,
    recorded: RecordedEffect,
    call: ModelCall,
    namer: Namer,
    strictness: Strictness = "exact",
) -> ReplayDivergence | None:
    """Compare a recorded request with the one the replay makes."""
    start, request = recorded.start or {}, call.request
    expected = [without_ids(trace.blob(name)) for name in recorded.messages]
    actual = [without_ids(namer.message(message)[1]) for message in request.messages]
    if strictness == "structural":
        sides: dict[str, tuple[Any, Any]] = {"/messages": (_skeleton(expected), _skeleton(actual))}
    else:
        params = dict(start["params"])
        if "output" in params:
            params["output"] = trace.blob(params["output"])
        sides = {
            "/messages": (expected, actual),
            "/tools": (trace.blob(start["tools"]), namer.tools(request.tools)[1]),
            "/params": (params, request_params(request, namer.redact)),
            "/model": (start["model"], call.model),
        }
    return _compared("request_changed", call.at, sides, trace, namer)


def tool_difference(
    trace: Trace,
    start: JsonObject,
    invocation: ToolInvocation,
    namer: Namer,
    strictness: Strictness = "exact",
) -> ReplayDivergence | None:
    """Compare a recorded tool call with another one at the same address."""
    call = invocation.call
    sides: dict[str, tuple[Any, Any]] = {"/tool": (start["tool"], call.name)}
    if strictness == "exact":
        sides["/arguments"] = (start["arguments"], packed(call.arguments, namer.redact))
    return _compared("wrong_call", invocation.at, sides, trace, namer)


def value_difference(
    trace: Trace, at: str, expected: Any, actual: Any, namer: Namer, *, kind: str
) -> ReplayDivergence | None:
    """Compare a recorded result with that of now."""
    return _compared(kind, at, {"": (expected, actual)}, trace, namer)


def _compared(
    kind: str, at: str, sides: Mapping[str, tuple[Any, Any]], trace: Trace, namer: Namer
) -> ReplayDivergence | None:
    """Return the divergence of what differs, if anything does, by its JSON pointer."""
    if trace.key_id != namer.redact.key_id:
        sides = {
            pointer: (without_digests(expected), without_digests(actual))
            for pointer, (expected, actual) in sides.items()
        }
    found = chain.from_iterable(
        differences(expected, actual, pointer) for pointer, (expected, actual) in sides.items()
    )
    first = next(found, None)
    if first is None:
        return None
    if kind == "request_changed" and first.pointer.startswith("/tools"):
        kind = "tool_schema_changed"
    more = sum(1 for _ in islice(found, _COUNTED))
    return divergence(kind, at, first, more=more)


def _skeleton(messages: Sequence[JsonObject]) -> list[JsonObject]:
    """Who speaks, and which tools are called: what is left when texts may differ."""
    return [
        {
            "role": message.get("role"),
            "calls": [call["function"]["name"] for call in message.get("tool_calls") or ()],
        }
        for message in messages
    ]


def divergence(
    kind: str,
    at: str,
    found: Found | None = None,
    *,
    text: str = "",
    advice: str = "",
    more: int = 0,
) -> ReplayDivergence:
    """Return a `ReplayDivergence` with its text.

    Args:
        kind: One of the kinds that `ReplayDivergence` lists.
        at: The address.
        found: The first difference, where two values differ.
        text: What happened, where nothing is to be compared.
        advice: What to do.
        more: How many further differences there are that are not shown.
    """
    if kind == "result_changed":
        advice = advice or "To keep the change, fork from here: the model then answers to it."
    advice = advice or "Undo the change to replay this recording, or record a new one to keep it."
    if found is None:
        return ReplayDivergence(
            f"{kind} at {at}: {text}\n{advice}", kind=kind, at=str(at), advice=advice
        )
    place = f"{kind} at {at}, {found.pointer or '/'}"
    if found.position is not None and max(len(found.expected), len(found.actual)) > _AROUND:
        place += f", character {found.position}"
    lines = [
        f"{place}:",
        f"  recorded: {excerpt(found.expected, found.position)}",
        f"  now:      {excerpt(found.actual, found.position)}",
    ]
    if more:
        lines.append(f"  and {more}{'+' * (more >= _COUNTED)} more differences, not shown")
    return ReplayDivergence(
        "\n".join([*lines, advice]),
        kind=kind,
        at=str(at),
        pointer=found.pointer,
        expected=found.expected,
        actual=found.actual,
        position=found.position,
        suppressed=more or None,
        advice=advice,
    )


def with_cause(
    found: ReplayDivergence, *, cause: str | None, source: str | None
) -> ReplayDivergence:
    """Return a divergence that also names its cause.

    Args:
        found: The divergence.
        cause: An address, or a part of the agent.
        source: FILE:LINE of the user's code from which the effect came.
    """
    *lines, advice = found.message.split("\n")
    if cause is not None:
        lines.append(f"  first cause: {cause}")
    if source is not None:
        lines.append(f"  source: {source}")
    text = "\n".join([*lines, advice])
    return ReplayDivergence(text, **(found.data() | {"cause": cause, "source": source}))


def excerpt(value: Any, position: int | None = None, width: int = 300) -> str:
    """Quote a value; of a long text only what surrounds the difference."""
    if value == ABSENT:
        return ABSENT
    if position is not None and len(value) > 2 * _AROUND:
        begin, end = max(0, position - _AROUND), position + _AROUND
        head, tail = "…" * (begin > 0), "…" * (end < len(value))
        return f"{head}{value[begin:end]!r}{tail} ({len(value)} characters)"
    text = repr(value)
    return text if len(text) <= width else f"{text[:width]}… ({len(text)} characters)"


def without_digests(value: Any) -> Any:
    """Return a value with the kinds of its placeholders alone, to compare those of two keys."""
    if isinstance(value, str):
        return re.sub(PLACEHOLDER, r"⟦\1⟧", value)
    if is_object(value):
        return {key: without_digests(item) for key, item in value.items()}
    if is_array(value):
        return [without_digests(item) for item in value]
    return value
