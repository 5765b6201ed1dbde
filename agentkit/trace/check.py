"""Checks a trace before it is replayed, resumed, forked or compared: it is untrusted input.

The schema says what an event has. Here is what it cannot say: how events fit together, and
what stands in their objects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

from agentkit.core.effects import Address
from agentkit.core.spec import OfferedTool
from agentkit.errors import AgentKitError, TraceError
from agentkit.events import Restarted, ToolCallDelta
from agentkit.messages import JsonObject, Usage, is_array, is_object, messages_from_json
from agentkit.settings import ChatSettings, Limits, limits_of, settings_of
from agentkit.trace.deltas import delta_from_json
from agentkit.trace.naming import unpacked
from agentkit.trace.reader import Trace
from agentkit.trace.schema import Capture, problems

_WIDEST = 2**63
_ADDRESS = re.compile(r"(/[^/]{1,400})+")
"""Parts of addresses are names and numbers."""
_KINDS = ("agent", "model", "tool", "compute")
DAMAGE = (AgentKitError, AttributeError, LookupError, TypeError, ValueError, RecursionError)
"""What comes of reading a value that is something else."""


def check_replayable(trace: Trace) -> None:
    """Refuse a trace that does not hold what a replay or a resumption needs.

    Raises:
        TraceError: It was recorded without contents.
        TraceCorrupt: An event is damaged.
    """
    check_events(trace)
    if trace.capture != "full":
        raise TraceError(
            f"The trace of {trace.run} was recorded with capture={trace.capture!r}, without "
            "the contents that replaying or resuming it needs. Record with capture='full'.",
            path=str(trace.path) if trace.path else None,
        )
    trace.input()
    recorded_options(trace)


def check_events(trace: Trace) -> None:
    """Check every event of a trace, and that they fit together.

    Raises:
        TraceCorrupt: An event lacks a field, has one of another type, or is not in its place.
    """
    if trace.header.get("capture", "full") not in get_args(Capture):
        raise trace.damaged(trace.header, f"has {trace.header['capture']!r:.80} as 'capture'")
    seq, kinds = -1, dict[str, str]()
    for event in trace.events:
        problem = next(_problems(event, trace), None)
        if problem is None and not (0 <= event["t"] < _WIDEST):
            problem = f"has {event['t']!r:.80} as 't'; expected microseconds"
        if problem is None and not (seq < event["seq"] < _WIDEST):
            problem = f"has {event['seq']!r:.80} as 'seq'; the event before it has {seq}"
        kind, _, part = event["event"].partition(".")
        own = kind in _KINDS and part in ("start", "end", "skip")  # others are in one, or about it
        if problem is None and own and kinds.setdefault(event["at"], kind) != kind:
            problem = f"has {event['at']!r:.80} as 'at', where a {kinds[event['at']]} is"
        if problem is not None:
            raise trace.damaged(event, problem)
        if event["event"] == "agent.start":
            _check_input(trace, event)
        seq = event["seq"]
    trace.effects.check()


def recorded_options(trace: Trace) -> tuple[ChatSettings | None, Limits | None]:
    """Return the settings and limits that a run was given instead of its agent's.

    Raises:
        TraceCorrupt: They are damaged.
    """
    options = trace.options()
    try:
        return settings_of(options), limits_of(options)
    except DAMAGE as error:
        raise trace.damaged(trace.agent_start, f"has damaged 'options': {error}") from error


def fits(name: str, value: Any) -> bool:
    """Return whether a recorded value is one that the loop can go on with.

    Args:
        name: That of the function, as in `Compute.name`.
        value: What it returned.
    """
    try:
        match name:
            case "instructions":
                return value is None or isinstance(value, str)
            case "toolsets":
                return all(OfferedTool.from_json(tool).definition.name for tool in value)
            case "settings":
                return is_object(value["settings"]) and _is_choice(value["tool_choice"])
            case "compact":
                return value is None or len(messages_from_json(value)) > 0
            case _:
                return True
    except DAMAGE:
        return False


def _is_choice(value: Any) -> bool:
    return value is None or isinstance(value["name"] if is_object(value) else value, str)


def _check_input(trace: Trace, event: JsonObject) -> None:
    if event.get("input") not in trace.blobs:
        return  # it is refused where it is needed
    data = trace.blob(event["input"])
    names = data.get("messages") if is_object(data) else None
    if not is_array(names) or not all(isinstance(one, str) for one in names):
        raise trace.damaged(event, "has no 'input.messages'")
    earlier = data.get("earlier")
    if type(earlier) is not int or not 0 <= earlier <= len(names):
        raise trace.damaged(event, "has no 'input.earlier'")


def _problems(event: JsonObject, trace: Trace) -> Iterator[str]:
    yield from problems(event, trace.capture)
    if not _ADDRESS.fullmatch(event.get("at", "/")) and "at" in event:
        yield f"has {event['at']!r:.80} as 'at'; expected an address"
    for name, value in event.items():
        check = _NESTED.get(name if name != "d" else event["event"], _is_value)
        if not _passes(check, value):
            yield f"has a damaged {name!r}: {value!r:.80}"


def _passes(check: Callable[[Any], bool], value: Any) -> bool:
    try:
        return check(value)
    except DAMAGE:
        return False


def _is_value(value: Any) -> bool:
    unpacked(value)
    return True


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _WIDEST


def _is_usage(value: Any) -> bool:
    usage = Usage.from_json(value)
    cost = usage.cost
    counts = (getattr(usage, name) for name in Usage.__slots__ if name != "cost")
    return all(map(_is_count, counts)) and (
        cost is None or (type(cost) in (int, float) and 0 <= cost < math.inf)
    )


def _is_error(value: Any) -> bool:
    error = unpacked(value)
    return (
        isinstance(error.get("type", ""), str)
        and isinstance(error.get("message", ""), str)
        and is_object(error.get("data", {}))
        and isinstance(error.get("traceback"), str | None)
        and all(map(_is_error, error.get("parts", ())))
    )


def _is_response(value: Any) -> bool:
    response = unpacked(value)
    choices = messages_from_json(response.get("choices", ()))
    return all(isinstance(response.get(name), str | None) for name in ("id", "model")) and (
        is_object(response.get("extra", {})) and len(choices) >= 0
    )


def _is_chunks(value: Any) -> bool:
    return all(_is_count(microseconds) and _is_delta(item) for microseconds, item in value)


def _is_delta(item: Any) -> bool:
    delta: Any = delta_from_json(Address("/agent/m0"), item)
    if isinstance(delta, ToolCallDelta):
        texts = delta.name, delta.arguments, "" if _is_count(item["index"]) else None
    else:
        texts = (delta.reason if isinstance(delta, Restarted) else delta.text,)
    return all(isinstance(text, str) for text in texts)


_NESTED: Mapping[str, Callable[[Any], bool]] = {
    "model.chunks": _is_chunks,
    "usage": _is_usage,
    "error": lambda value: isinstance(unpacked(value), str) or _is_error(value),
    "response": _is_response,
    "retry_after": lambda value: 0 <= value < math.inf,
    "cost": lambda value: value is None or 0 <= value < math.inf,
    "redaction": lambda value: isinstance(value.get("key_id"), str | None),
    "fork": lambda value: value is None or isinstance(value.get("at"), str | None),
}
"""What the objects of events hold, by the names of their fields."""
