"""The replies of a `ChatServer`: frozen values, made by small functions.

`reply` holds what a model would answer and leaves the form to the request: one JSON
object, or a stream. `raw` and `sse` define the exact bytes on the wire, and their
packets. `drop` sends nothing at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias, cast

from agentkit.messages import JsonObject, Usage

Arguments: TypeAlias = Mapping[str, Any] | str
"""A tool call's arguments: an object, or the exact text of the model."""


DEFAULT_USAGE = Usage(input_tokens=10, output_tokens=5)


class Hold(Enum):
    """The type of `HOLD`."""

    HOLD = "hold"


HOLD: Final = Hold.HOLD
"""As a delay, or among the events of `sse`: wait until `ChatServer.release()` is called."""

Packet: TypeAlias = bytes | Hold


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerRequest:
    """One request as it arrived.

    Attributes:
        index: Its place in the order of arrival, from 0.
        connection: Number of the TCP connection it came over, from 0.
        method: `POST`, `GET`, ….
        path: The path without the query, for example `/v1/chat/completions`.
        query: What follows the `?`, as sent; empty when there is none.
        headers: Names in lower case; of a repeated one, the last.
        raw: The body's bytes.
        json: The parsed body; None when it is not JSON.
    """

    index: int
    connection: int
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    raw: bytes
    json: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class WireReply:
    """A reply as exact bytes, made by `raw`, `sse` and `drop`.

    Attributes:
        status: The HTTP status; None closes the connection without an answer.
        headers: Sent as they are, after the framing header.
        packets: The body. Each is written on its own, and is one chunk when chunked.
        chunked: Whether the body is chunked; otherwise it has a content length.
        delay: Seconds before the status line.
        pause: Seconds between packets.
        close_early: Close the connection after the last packet, without the end of the body.
        reset: Close it with a TCP reset.
        length: The content length that is announced; by default the body's.
    """

    status: int | None = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    packets: tuple[Packet, ...] = ()
    chunked: bool = False
    delay: float | Hold = 0.0
    pause: float = 0.0
    close_early: bool = False
    reset: bool = False
    length: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatReply:
    """A reply as a model's answer, made by `reply`. The request decides its form."""

    text: str | None
    calls: tuple[tuple[str, str], ...]
    finish: str | None
    usage: Usage | None
    delay: float | Hold
    pause: float


Reply: TypeAlias = ChatReply | WireReply | Callable[[ServerRequest], ChatReply | WireReply]
"""One item of a script. A callable is called once, in the server's thread: it must not block."""


def reply(
    text: str | None = None,
    *,
    calls: Sequence[tuple[str, Arguments]] = (),
    finish: str | None = None,
    usage: Usage | None = DEFAULT_USAGE,
    delay: float | Hold = 0.0,
    pause: float = 0.0,
) -> ChatReply:
    """Reply with a chat completion, streamed word by word if the request asks for a stream.

    Args:
        text: The text of the answer.
        calls: The tools it calls, as (name, arguments). Call ids are
            `call_<request>_<index>`.
        finish: The finish reason; by default `tool_calls` with calls, else `stop`.
        usage: The tokens it reports, by default 10 in and 5 out; None reports none.
        delay: Seconds before the status line, or `HOLD`.
        pause: Seconds between the packets of a stream.
    """
    return ChatReply(
        text=text,
        calls=tuple((name, _text_of(arguments)) for name, arguments in calls),
        finish=finish or ("tool_calls" if calls else "stop"),
        usage=usage,
        delay=delay,
        pause=pause,
    )


def raw(
    status: int = 200,
    body: bytes | str | Mapping[str, Any] | Sequence[Any] = b"",
    headers: Mapping[str, str] | None = None,
    *,
    delay: float | Hold = 0.0,
) -> WireReply:
    """Reply with any response that has a content length.

    Args:
        status: The HTTP status.
        body: Bytes and text are sent as they are, anything else as JSON.
        headers: More headers; a `content-type` here replaces the default one.
        delay: Seconds before the status line, or `HOLD`.
    """
    if isinstance(body, bytes):
        content, kind = body, "application/octet-stream"
    elif isinstance(body, str):
        content, kind = body.encode(), "text/plain; charset=utf-8"
    else:
        content, kind = _dump(body), "application/json"
    return WireReply(
        status=status,
        headers=_headers(kind, headers),
        packets=(content,) if content else (),
        delay=delay,
    )


def sse(
    events: Iterable[Mapping[str, Any] | str | bytes | Hold],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    chunk_size: int | None = None,
    delay: float | Hold = 0.0,
    pause: float = 0.0,
    close_early: bool = False,
) -> WireReply:
    r"""Reply with server-sent events, byte for byte: nothing is added, not even `[DONE]`.

    Args:
        events: A dict is sent as `data: <json>\n\n`, a str as `data: <str>\n\n`, bytes
            as they are; `HOLD` waits for the server's `release()`.
        status: The HTTP status.
        headers: More headers.
        chunk_size: Bytes in a packet, regardless of events; None sends each event as one.
        delay: Seconds before the status line, or `HOLD`.
        pause: Seconds between packets.
        close_early: Break off after the last event, without the end of the body.
    """
    packets = [event if isinstance(event, Hold) else _event(event) for event in events]
    return WireReply(
        status=status,
        headers=_headers("text/event-stream", headers),
        packets=tuple(packets if chunk_size is None else _split(packets, chunk_size)),
        chunked=True,
        delay=delay,
        pause=pause,
        close_early=close_early,
    )


def drop(*, delay: float | Hold = 0.0) -> WireReply:
    """Reply with nothing: the connection is closed when the request has been read."""
    return WireReply(status=None, delay=delay)


def render(answer: ChatReply | WireReply, request: ServerRequest) -> WireReply:
    """Return the bytes that answer `request`."""
    if isinstance(answer, WireReply):
        return answer
    if object_or_empty(request.json).get("stream"):
        events = [*chunks_of(answer, request), "[DONE]"]
        return sse(events, delay=answer.delay, pause=answer.pause)
    body = _head(request) | _completion(answer, request.index)
    return raw(200, body, delay=answer.delay)


def chunks_of(answer: ChatReply, request: ServerRequest) -> list[JsonObject]:
    """Return the chunks of the stream that answers `request`, without its end."""
    head = _head(request) | {"object": "chat.completion.chunk"}
    chunks: list[JsonObject] = [head | chunk for chunk in _chunks(answer, request.index)]
    options = object_or_empty(object_or_empty(request.json).get("stream_options"))
    if options.get("include_usage") and answer.usage is not None:
        chunks.append(head | {"choices": [], "usage": _usage(answer.usage)})
    return chunks


def _head(request: ServerRequest) -> JsonObject:
    return {
        "id": f"chatcmpl-{request.index}",
        "created": 1_700_000_000,
        "model": object_or_empty(request.json).get("model") or "scripted",
    }


def object_or_empty(value: Any) -> JsonObject:
    """Return a JSON object; an empty one in place of anything else."""
    return cast("JsonObject", value) if isinstance(value, dict) else {}


def _completion(answer: ChatReply, index: int) -> JsonObject:
    message: JsonObject = {"role": "assistant", "content": answer.text}
    if answer.calls:
        message["tool_calls"] = [
            {
                "id": f"call_{index}_{place}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for place, (name, arguments) in enumerate(answer.calls)
        ]
    choice = {"index": 0, "message": message, "finish_reason": answer.finish}
    body: JsonObject = {"object": "chat.completion", "choices": [choice]}
    return body if answer.usage is None else body | {"usage": _usage(answer.usage)}


def _chunks(answer: ChatReply, index: int) -> Iterator[JsonObject]:
    yield _delta({"role": "assistant", "content": "" if answer.text is not None else None})
    for word in re.findall(r"\s*\S+|\s+$", answer.text or ""):
        yield _delta({"content": word})
    for place, (name, arguments) in enumerate(answer.calls):
        function = {"name": name, "arguments": ""}
        call = {"index": place, "id": f"call_{index}_{place}", "type": "function"}
        yield _delta({"tool_calls": [call | {"function": function}]})
        half = (len(arguments) + 1) // 2
        for part in filter(None, (arguments[:half], arguments[half:])):
            yield _delta({"tool_calls": [{"index": place, "function": {"arguments": part}}]})
    yield _delta({}, answer.finish)


def _delta(delta: JsonObject, finish: str | None = None) -> JsonObject:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _usage(usage: Usage) -> JsonObject:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _event(event: Mapping[str, Any] | str | bytes) -> bytes:
    if isinstance(event, bytes):
        return event
    data = event.encode() if isinstance(event, str) else _dump(event)
    return b"data: " + data + b"\n\n"


def _split(packets: Iterable[Packet], size: int) -> Iterator[Packet]:
    """Cut the bytes into packets of `size`, across events but not across a hold."""
    pending = b""
    for packet in (*packets, None):
        if isinstance(packet, bytes):
            pending += packet
            continue
        yield from (pending[start : start + size] for start in range(0, len(pending), size))
        pending = b""
        if packet is not None:
            yield packet


def _headers(kind: str, more: Mapping[str, str] | None) -> dict[str, str]:
    return {"content-type": kind} | {name.lower(): value for name, value in (more or {}).items()}


def _text_of(arguments: Arguments) -> str:
    return arguments if isinstance(arguments, str) else _dump(arguments).decode()


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
