"""Recorded effects as spans: what OpenTelemetry and Perfetto get of a run.

Names are those of the semantic conventions for generative AI in the version of
`SCHEMA_URL`, the last one that is published with a schema; what they have no name for is
`agentkit.…`. This is the only file that knows them, and it needs no extra.

    invoke_agent NAME        an agent
    chat MODEL               a model call; its HTTP attempts are the spans POST below it
    execute_tool NAME        a tool call; one that no tool ran has no length
    agentkit.compute NAME    a function of the application

Without contents, spans hold what a trace with `capture="metadata"` holds: names, counts,
times and statuses, and of errors the type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentkit.core.effects import ancestors
from agentkit.messages import (
    AssistantMessage,
    JsonObject,
    Message,
    SystemMessage,
    ToolMessage,
    Usage,
    is_array,
    is_object,
)
from agentkit.trace.effects import HttpAttempt, RecordedEffect
from agentkit.trace.index import RecordedEffects
from agentkit.trace.naming import unpacked

SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.0"
TOKEN_BUCKETS = tuple(4**power for power in range(14))
"""Boundaries of `gen_ai.client.token.usage`, in tokens."""
DURATION_BUCKETS = tuple(0.01 * 2**power for power in range(14))
"""Boundaries of `gen_ai.client.operation.duration`, in seconds."""
MEASURED = (
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "server.address",
    "server.port",
)
"""Attributes of a model call that its metrics have, too."""

_FAILED = ("error", "timeout", "limit", "in_flight")
_PROVIDERS = {
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
"""Providers whose name in the conventions is another than ours."""
_REQUEST = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
}
_INTERRUPTED = "interrupted", "Its run was interrupted."


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """One recorded effect or HTTP attempt.

    Attributes:
        at: Its address.
        parent: The address of the span that it is in; None for the outermost agent.
        name: What it is called.
        client: Whether it waits for another process.
        start: When it began, in microseconds of the trace.
        end: When it was over; None if it goes on.
        attributes: What is known of it: texts, numbers, flags, and lists of texts.
        error: The type and the message of what failed; without contents no message.
        traceback: Its traceback, with contents.
        origin: The run and the address that its run is a fork of.
    """

    at: str
    parent: str | None
    name: str
    client: bool
    start: int
    end: int | None
    attributes: Mapping[str, Any]
    error: tuple[str, str] | None = None
    traceback: str | None = None
    origin: tuple[str, str] | None = None


def spans_of(effects: RecordedEffects, *, content: bool = False) -> Iterator[Span]:
    """Yield the spans of a run, in order of beginning.

    What was in flight when the trace ends has failed then.

    Args:
        effects: The effects of its trace.
        content: Whether they hold messages, instructions, arguments, results and errors.

    Raises:
        TraceCorrupt: An event lacks what it has to have.
    """
    for effect in effects.values():
        yield from effect_spans(effects, effect, content=content)


def effect_spans(
    effects: RecordedEffects, effect: RecordedEffect, *, content: bool, live: bool = False
) -> Iterator[Span]:
    """Yield the span of an effect and those of its HTTP attempts; none if it only waits.

    Args:
        effects: The effects of the run so far.
        effect: One of them.
        content: See `spans_of`.
        live: The run goes on: what has no end is not over.
    """
    begin = effect.start or effect.skip
    if begin is None:
        return
    content = content and effects.source.capture == "full"
    # An agent that was paused ends when it has gone on; a call whose outcome was edited, before.
    over = effect.end if effect.kind == "agent" else effect.first_end
    last: int | None = None if live else effects.source.event(effects.source.count - 1)["t"]
    end: int | None = last if over is None else over["t"]
    if effect.start is None:
        end = begin["t"]
    parent = parent_in(effects, effect.at)
    origin = _origin(effects) if parent is None else None
    attributes = dict(_attributes(effects, effect))
    if origin is not None:
        attributes |= {"agentkit.fork.run": origin[0], "agentkit.fork.at": origin[1]}
    if content:
        attributes |= _contents(effects, effect)
    span = Span(
        at=str(effect.at),
        parent=parent,
        name=_name(effect),
        client=effect.kind == "model",
        start=begin["t"],
        end=end,
        attributes=attributes,
        error=None if end is None else _error(effect),
        traceback=effect.error.traceback if effect.error is not None else None,
        origin=origin,
    )
    yield _fit(span, content)
    for attempt in effect.attempts if effect.kind == "model" else ():
        yield _fit(_attempt(attempt, effect, end), content)


def _fit(span: Span, content: bool) -> Span:
    """Return a span that any receiver can hold, and that has no texts but with contents."""
    kind, message = span.error or (None, "")
    known = {**span.attributes, "error.type": kind}
    return replace(
        span,
        name=_text(span.name),
        end=None if span.end is None else max(span.start, span.end),
        attributes={name: _plain(one) for name, one in known.items() if one is not None},
        error=None if kind is None else (_text(kind), _text(message) if content else ""),
        traceback=_text(span.traceback) if span.traceback is not None and content else None,
    )


def _plain(value: Any) -> Any:
    """Return a value as attributes can be: no number is too large, no text is not Unicode."""
    match value:
        case bool() | float():
            return value
        case int():
            return value if -(2**63) <= value < 2**63 else str(value)
        case _ if is_array(value):
            return [_text(str(one)) for one in value]
        case _:
            return _text(str(value))


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def parent_in(effects: RecordedEffects, at: str) -> str | None:
    """Return the innermost agent, tool or function that an effect is in.

    The functions of a call, which decide whether it runs, are called before it.
    """
    kind = effects[at].kind
    for up in reversed(ancestors(at)):
        one = effects.get(up)
        before = kind == "compute" and up == at.rpartition("/")[0]
        if one is not None and one.begun and one.kind not in ("model", before and "tool"):
            return up
    return None


def _origin(effects: RecordedEffects) -> tuple[str, str] | None:
    source = effects.source
    fork: JsonObject = source.read(source.events[0], "fork") or {}
    run, at = fork.get("run"), fork.get("at")
    return (run, at) if isinstance(run, str) and isinstance(at, str) else None


def _name(effect: RecordedEffect) -> str:
    match effect.kind:
        case "agent":
            return f"invoke_agent {effect.name}"
        case "model":
            return f"chat {_model(effect.name)[1]}"
        case "tool":
            return f"execute_tool {effect.name}"
        case "compute":
            return f"agentkit.compute {effect.name}"


def _model(name: str) -> tuple[str, str]:
    """Return provider and model of a name; `_OTHER` of one that names no provider."""
    provider, colon, model = name.partition(":")
    return (_PROVIDERS.get(provider, provider), model) if colon else ("_OTHER", name)


def _error(effect: RecordedEffect) -> tuple[str, str] | None:
    status, failure = effect.status, effect.error
    if status not in _FAILED:
        return None
    if failure is not None:
        return failure.type, failure.message
    return _INTERRUPTED if status == "in_flight" else (status, "")


def _attributes(effects: RecordedEffects, effect: RecordedEffect) -> Iterator[tuple[str, Any]]:
    yield "agentkit.at", str(effect.at)
    yield "agentkit.status", effect.status
    match effect.kind:
        case "agent":
            asked = next(
                (one for one in effect.children if one.kind == "model" and one.begun), None
            )
            yield "gen_ai.operation.name", "invoke_agent"
            yield "gen_ai.agent.name", effect.name
            if asked is not None:
                yield from _asked(asked)
            yield from _used(effect.usage)
            yield "agentkit.cost", (effect.end or {}).get("cost")
        case "model":
            yield "gen_ai.operation.name", "chat"
            yield from _asked(effect)
            yield from _request(effect)
            yield from _response(effect)
        case "tool":
            decision = effect.decision
            yield "gen_ai.operation.name", "execute_tool"
            yield "gen_ai.tool.name", effect.name
            yield "gen_ai.tool.type", "function"
            yield "gen_ai.tool.call.id", effect.call and effect.call.id
            yield "agentkit.tool.effect", effect.effect
            yield "agentkit.tool.skipped", effect.skipped
            yield "agentkit.decision", decision and decision.kind
            yield "agentkit.decision.by", decision and decision.by
        case "compute":
            yield "agentkit.compute.name", effect.name


def _asked(effect: RecordedEffect) -> Iterator[tuple[str, Any]]:
    provider, model = _model(effect.name)
    yield "gen_ai.provider.name", provider
    yield "gen_ai.request.model", model


def _request(effect: RecordedEffect) -> Iterator[tuple[str, Any]]:
    start = effect.start or {}
    params: JsonObject = unpacked(start.get("params", {}))
    for ours, theirs in _REQUEST.items():
        yield f"gen_ai.request.{theirs}", params.get(ours)
    stop = params.get("stop")
    yield "gen_ai.request.stop_sequences", [stop] if isinstance(stop, str) else stop
    yield "gen_ai.request.choice.count", None if params.get("n") == 1 else params.get("n")
    yield "gen_ai.request.stream", start.get("stream") or None
    yield "gen_ai.output.type", "json" if "output" in params else None


def _response(effect: RecordedEffect) -> Iterator[tuple[str, Any]]:
    end = effect.end or {}
    response: JsonObject = unpacked(end.get("response", {}))
    yield "gen_ai.response.id", response.get("id")
    yield "gen_ai.response.model", response.get("model")
    finish, first = end.get("finish"), end.get("first_chunk")
    yield "gen_ai.response.finish_reasons", None if finish is None else [finish]
    yield "gen_ai.response.time_to_first_chunk", None if first is None else first / 1e6
    yield from _used(effect.usage)
    attempts = effect.attempts
    if attempts:
        yield from _server(attempts[-1].host)


def _used(usage: Usage) -> Iterator[tuple[str, Any]]:
    yield "gen_ai.usage.input_tokens", usage.input_tokens or None
    yield "gen_ai.usage.output_tokens", usage.output_tokens or None
    yield "gen_ai.usage.cache_read.input_tokens", usage.cached_tokens or None
    yield "gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens or None


def _server(host: str) -> Iterator[tuple[str, Any]]:
    address, colon, port = host.rpartition(":")
    if colon and port.isascii() and port.isdecimal():
        yield "server.address", address.strip("[]")
        yield "server.port", int(port)
    else:
        yield "server.address", host or None


def _attempt(attempt: HttpAttempt, effect: RecordedEffect, over: int | None) -> Span:
    """Return the span of an attempt; one without an end ends with its model call."""
    status, error = attempt.status, None
    if status is not None and status >= 400:
        error = str(status), attempt.error or ""
    elif attempt.error is not None and attempt.error != "cancelled":
        kind, _, message = attempt.error.partition(": ")
        error = kind, message
    elif attempt.ended is None and over is not None and effect.status == "in_flight":
        error = _INTERRUPTED
    attributes = {
        "agentkit.at": str(attempt.at),
        "http.request.method": "POST",
        **dict(_server(attempt.host)),
        "http.response.status_code": status,
        "http.request.resend_count": attempt.number or None,
        "agentkit.request_id": attempt.request_id,
        "agentkit.retry_delay": None if attempt.delay is None else attempt.delay / 1e6,
    }
    return Span(
        at=str(attempt.at),
        parent=str(effect.at),
        name="POST",
        client=True,
        start=attempt.began.t,
        end=over if attempt.ended is None else attempt.ended.t,
        attributes=attributes,
        error=error,
    )


# Contents


def _contents(effects: RecordedEffects, effect: RecordedEffect) -> JsonObject:
    """Return the attributes that hold texts, each as the JSON of the conventions' schemas."""
    match effect.kind:
        case "agent":
            found = _conversation(effects, effect)
        case "model":
            found = dict(_exchange(effects, effect))
        case "tool":
            found = {"gen_ai.tool.call.arguments": _json(effect.arguments)}
            for answer in _answer(effects, effect):
                found["gen_ai.tool.call.result"] = _json(answer.text)
        case "compute":
            found = {} if effect.output is None else {"agentkit.compute.output": effect.output}
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in found.items()
    }


def _answer(effects: RecordedEffects, effect: RecordedEffect) -> tuple[Message, ...]:
    return () if effect.message is None else effects.source.messages([effect.message])


def _conversation(effects: RecordedEffects, effect: RecordedEffect) -> JsonObject:
    """Return what an agent began with, and its output."""
    start, source = effect.start or {}, effects.source
    data: Any = source.blob(start["input"]) if "input" in start else {}
    names = data.get("messages") if is_object(data) else None
    messages = source.messages(names) if is_array(names) else ()
    found: JsonObject = {"gen_ai.input.messages": [*map(_message, messages)]}
    if effect.output is not None:
        output = effect.output
        text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
        part = {"type": "text", "content": text}
        found["gen_ai.output.messages"] = [
            {"role": "assistant", "parts": [part], "finish_reason": "stop"}
        ]
    return found


def _exchange(effects: RecordedEffects, effect: RecordedEffect) -> Iterator[tuple[str, Any]]:
    """Yield what a model was sent, and its answer."""
    messages = effects.source.messages(effect.messages)
    system = [one for one in messages if isinstance(one, SystemMessage)]
    others = [one for one in messages if not isinstance(one, SystemMessage)]
    if system:
        yield "gen_ai.system_instructions", [part for one in system for part in _parts(one)]
    yield "gen_ai.input.messages", [*map(_message, others)]
    finish = (effect.end or {}).get("finish")
    for answer in _answer(effects, effect):
        yield "gen_ai.output.messages", [_message(answer) | {"finish_reason": finish}]
    tools: list[Any] = [] if effect.tools is None else effects.source.blob(effect.tools)
    functions = (one.get("function") for one in tools if is_object(one))
    if definitions := [{"type": "function", **one} for one in functions if is_object(one)]:
        yield "gen_ai.tool.definitions", definitions


def _message(message: Message) -> JsonObject:
    if isinstance(message, ToolMessage):
        text = message.content
        response = _json(text) if isinstance(text, str) else [*_parts(message)]
        part = {"type": "tool_call_response", "id": message.call_id, "response": response}
        return {"role": "tool", "parts": [part]}
    return {"role": str(message.to_json()["role"]), "parts": [*_parts(message)]}


def _parts(message: Message) -> Iterator[JsonObject]:
    if isinstance(message, AssistantMessage) and message.reasoning:
        yield {"type": "reasoning", "content": message.reasoning}
    content = message.content
    if isinstance(content, str):
        yield {"type": "text", "content": content}
    elif content is not None:
        for part in content:
            data = part.to_json()
            yield {"type": "text", "content": data["text"]} if data["type"] == "text" else data
    if isinstance(message, AssistantMessage):
        if message.refusal:
            yield {"type": "refusal", "content": message.refusal}
        for call in message.tool_calls:
            arguments = _json(call.arguments)
            yield {"type": "tool_call", "id": call.id, "name": call.name, "arguments": arguments}


def _json(text: str) -> Any:
    """Return the value of a JSON text; of another text, the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
