"""Where a replay first differs from its recording, in words and as a JSON pointer.

Both sides are compared as JSON, after redaction and without the ids that
servers give to calls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from agentkit.effects import Address, ModelCall, ToolInvocation
from agentkit.errors import ReplayDivergence
from agentkit.messages import JsonObject, is_array, is_object
from agentkit.redaction import PLACEHOLDER
from agentkit.trace.blobs import Namer, packed, request_params, without_ids
from agentkit.trace.reader import Trace

__all__ = ["first_difference", "request_difference", "tool_difference"]

_ABSENT = "(absent)"


def first_difference(expected: Any, actual: Any, pointer: str = "") -> tuple[str, Any, Any] | None:
    """The first place where two JSON values differ: its pointer (RFC 6901) and both sides."""
    if is_object(expected) and is_object(actual):
        for key in [*expected, *(key for key in actual if key not in expected)]:
            at = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
            if key not in expected or key not in actual:
                return at, expected.get(key, _ABSENT), actual.get(key, _ABSENT)
            if found := first_difference(expected[key], actual[key], at):
                return found
        return None
    if is_array(expected) and is_array(actual):
        for index in range(max(len(expected), len(actual))):
            at = f"{pointer}/{index}"
            if index >= len(expected) or index >= len(actual):
                return at, _item(expected, index), _item(actual, index)
            if found := first_difference(expected[index], actual[index], at):
                return found
        return None
    same = expected == actual and isinstance(expected, bool) == isinstance(actual, bool)
    return None if same else (pointer, expected, actual)


def _item(items: Sequence[Any], index: int) -> Any:
    return items[index] if index < len(items) else _ABSENT


def request_difference(
    trace: Trace, start: JsonObject, call: ModelCall, namer: Namer
) -> ReplayDivergence | None:
    """Compare a recorded request with the one the replay makes."""
    request = call.request
    other_key = trace.header.get("redaction", {}).get("key_id") != namer.redact.key_id
    sides = (
        (
            "messages",
            [without_ids(trace.blob(name)) for name in start["messages"]],
            [without_ids(namer.message(message)[1]) for message in request.messages],
        ),
        ("tools", trace.blob(start["tools"]), namer.tools(request.tools)[1]),
        ("params", _params(trace, start), request_params(request, namer.redact)),
        ("model", start["model"], call.model),
    )
    for name, expected, actual in sides:
        if other_key:
            expected, actual = _without_digests(expected), _without_digests(actual)
        if found := first_difference(expected, actual, f"/{name}"):
            kind = "tool_schema_changed" if name == "tools" else "request_changed"
            return _divergence(kind, call.at, found)
    return None


def _params(trace: Trace, start: JsonObject) -> JsonObject:
    params = dict(start["params"])
    if "output" in params:
        params["output"] = trace.blob(params["output"])
    return params


def tool_difference(
    start: JsonObject, invocation: ToolInvocation, namer: Namer
) -> ReplayDivergence:
    """Compare a recorded tool call with another one at the same address."""
    call = invocation.call
    expected = {"tool": start["tool"], "arguments": start["arguments"]}
    actual = {"tool": call.name, "arguments": packed(call.arguments, namer.redact)}
    found = first_difference(expected, actual) or ("", expected, actual)
    return _divergence("wrong_call", invocation.at, found)


def _divergence(kind: str, at: Address, found: tuple[str, Any, Any]) -> ReplayDivergence:
    pointer, expected, actual = found
    advice = "Undo the change to replay this recording, or record a new one if the change is meant."
    return ReplayDivergence(
        f"{kind} at {at}, {pointer or '/'}:\n"
        f"  recorded: {_short(expected)}\n  now:      {_short(actual)}\n{advice}",
        kind=kind,
        at=str(at),
        pointer=pointer,
        expected=expected,
        actual=actual,
        advice=advice,
    )


def _short(value: Any, width: int = 300) -> str:
    text = repr(value)
    return text if len(text) <= width else f"{text[:width]}… ({len(text)} characters)"


def _without_digests(value: Any) -> Any:
    """Placeholders of different keys cannot be compared; their kinds can."""
    if isinstance(value, str):
        return re.sub(PLACEHOLDER, r"⟦\1⟧", value)
    if is_object(value):
        return {key: _without_digests(item) for key, item in value.items()}
    if is_array(value):
        return [_without_digests(item) for item in value]
    return value
