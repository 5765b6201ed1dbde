"""Checks what stands in the fields of one event: an event is untrusted input.

The schema says which fields there are and of which type; here is what their objects hold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentkit.core.effects import Address
from agentkit.errors import AgentKitError
from agentkit.events import Restarted, ToolCallDelta
from agentkit.messages import JsonObject, Usage, is_object, messages_from_json
from agentkit.trace.deltas import delta_from_json
from agentkit.trace.naming import unpacked
from agentkit.trace.schema import Capture, problems

WIDEST = 2**63
"""Counts and times beyond it are damage."""
DAMAGE = (AgentKitError, AttributeError, LookupError, TypeError, ValueError, RecursionError)
"""What comes of reading a value that is something else."""
_ADDRESS = re.compile(r"(/[^/]{1,400})+")
"""Parts of addresses are names and numbers."""


def field_problems(event: JsonObject, capture: Capture = "full") -> Iterator[str]:
    """Yield what an event lacks or has in another form, each as the end of a sentence."""
    yield from problems(event, capture)
    for name in ("seq", "t"):  # also of an event that this version does not know
        if type(event.get(name)) is not int:
            yield f"has {event.get(name)!r:.80} as {name!r}; expected an integer"
    if "at" in event and not _ADDRESS.fullmatch(str(event["at"])):
        yield f"has {event['at']!r:.80} as 'at'; expected an address"
    if not 0 <= event.get("t", 0) < WIDEST:
        yield f"has {event['t']!r:.80} as 't'; expected microseconds"
    for name in event:
        if (problem := nested_problem(event, name)) is not None:
            yield problem


def nested_problem(event: JsonObject, name: str) -> str | None:
    """Return what is wrong in a field that an event has."""
    value = event[name]
    check = _NESTED.get(name if name != "d" else event["event"], _is_value)
    return None if _passes(check, value) else f"has a damaged {name!r}: {value!r:.80}"


def _passes(check: Callable[[Any], bool], value: Any) -> bool:
    try:
        return check(value)
    except DAMAGE:
        return False


def _is_value(value: Any) -> bool:
    unpacked(value)
    return True


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < WIDEST


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
    "fork": lambda value: (
        value is None
        or (isinstance(value.get("at"), str | None) and isinstance(value.get("patch"), dict | None))
    ),
}
"""What the objects of events hold, by the names of their fields."""
