"""What servers do wrong, by name: a reply as `ChatServer` sends it, spoilt in one way.

Every fault was met in the wild. Most are of streams: they spoil the chunks in which a
`reply` would have come. The others spoil the exchange itself.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

from agentkit.errors import AgentKitError, ConfigurationError
from agentkit.messages import JsonObject
from agentkit.testing.replies import (
    ChatReply,
    Packet,
    ServerRequest,
    WireReply,
    chunks_of,
    drop,
    object_or_empty,
    raw,
    render,
    reply,
    sse,
)

Fault: TypeAlias = Literal[
    # Calls
    "index_missing",
    "index_zero",
    "index_gaps",
    "id_null",
    "id_empty",
    "id_missing",
    "id_same",
    "name_repeated",
    "name_split",
    "arguments_object",
    "arguments_null",
    "arguments_empty",
    "calls_empty",
    # Chunks
    "role_repeated",
    "choices_empty",
    "delta_missing",
    "usage_repeated",
    "unknown_fields",
    "two_choices",
    # Bytes
    "comments",
    "crlf",
    "multi_line",
    "bom",
    "byte_by_byte",
    # The end
    "finish_stop",
    "finish_empty",
    "finish_missing",
    "length",
    "no_end",
    "finish_error",
    "error_inside",
    "data_behind_done",
    "malformed_at_end",
    # What the model says
    "refusal",
    "content_filter",
    "empty",
    "reasoning",
    "think_tags",
    "think_unclosed",
    # The exchange
    "rate_limited",
    "overloaded",
    "html",
    "dropped",
    "reset",
    "cut",
]
"""The names of what servers do wrong."""
_Spoil: TypeAlias = Callable[[list[JsonObject]], "list[JsonObject | str | bytes]"]
NAMES: Sequence[Fault] = get_args(Fault)


def fault(
    name: Fault, answer: ChatReply | None = None, *, at: int | None = None
) -> Callable[[ServerRequest], WireReply]:
    """Reply as `answer` would, spoilt in one way.

    Args:
        name: What goes wrong, see `Fault`.
        answer: The reply, with calls if the fault is of calls; a short text by default.
        at: For `cut` and `reset`: after how many bytes of the body the connection breaks;
            half of them by default.

    Raises:
        ConfigurationError: There is no such fault, or it needs calls.
    """
    if name not in NAMES:
        raise ConfigurationError(f"fault({name!r}): expected one of {', '.join(NAMES)}.")
    if at is not None and name not in ("cut", "reset"):
        raise ConfigurationError(f"fault({name!r}, at={at!r}): only cut and reset take at=.")
    told = answer or reply("Take an umbrella.")
    if name in _OF_CALLS and not told.calls:
        raise ConfigurationError(
            f"fault({name!r}) is one of tool calls: give it an answer with calls, such as "
            f'fault({name!r}, reply(calls=[("get_weather", {{"city": "Paris"}})])).'
        )

    def wire(request: ServerRequest) -> WireReply:
        if name in _EXCHANGES:
            return _EXCHANGES[name](render(told, request), at)
        if not object_or_empty(request.json).get("stream"):
            raise AgentKitError(
                f"fault({name!r}) is one of streams, and request {request.index} asks for none. "
                "Use agent.stream(…), or on_event= with it."
            )
        return _streamed(name, told, request)

    return wire


def _streamed(name: Fault, answer: ChatReply, request: ServerRequest) -> WireReply:
    events = _SPOILT[name](chunks_of(answer, request))
    wire = sse(events, delay=answer.delay, pause=answer.pause)
    bytes_of = _BYTES.get(name)
    if bytes_of is None:
        return wire
    packets = [packet for packet in wire.packets if isinstance(packet, bytes)]
    return replace(wire, packets=tuple(bytes_of(packets)))


# Chunks. Each function gets those of a good answer, and may change them.


def _done(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
    return [*chunks, "[DONE]"]


def _deltas(chunks: Sequence[JsonObject]) -> Iterator[JsonObject]:
    for chunk in chunks:
        for choice in chunk["choices"]:
            yield choice["delta"]


def _calls(chunks: Sequence[JsonObject]) -> Iterator[JsonObject]:
    for delta in _deltas(chunks):
        yield from delta.get("tool_calls", ())


def _of_calls(change: Callable[[JsonObject], object]) -> _Spoil:
    def spoil(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
        for call in _calls(chunks):
            change(call)
        return _done(chunks)

    return spoil


def _of_ids(change: Callable[[JsonObject], object]) -> _Spoil:
    return _of_calls(lambda call: change(call) if "id" in call else None)


def _of_deltas(change: Callable[[JsonObject], object]) -> _Spoil:
    def spoil(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
        for delta in _deltas(chunks):
            change(delta)
        return _done(chunks)

    return spoil


def _of_finish(finish: str | None, *, done: bool = True) -> _Spoil:
    def spoil(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
        for chunk in chunks:
            for choice in chunk["choices"]:
                if choice["finish_reason"] is not None:
                    choice["finish_reason"] = finish
        return _done(chunks) if done else [*chunks]

    return spoil


def _whole(value: Callable[[str], Any]) -> _Spoil:
    """Send the arguments of each call in its first chunk, as this value of the text."""

    def spoil(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
        texts: dict[int, str] = {}
        for call in _calls(chunks):
            texts[call["index"]] = texts.get(call["index"], "") + call["function"]["arguments"]
        kept: list[JsonObject] = []
        for chunk in chunks:
            calls = [*_calls([chunk])]
            for call in calls:
                call["function"]["arguments"] = value(texts[call["index"]])
            if not calls or "id" in calls[0]:
                kept.append(chunk)
        return _done(kept)

    return spoil


def _name_repeated(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
    names: dict[int, str] = {}
    for call in _calls(chunks):
        function = call["function"]
        function["name"] = names.setdefault(call["index"], function.get("name", ""))
    return _done(chunks)


def _name_split(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
    split: list[JsonObject] = []
    for chunk in chunks:
        split.append(chunk)
        for call in _calls([chunk]):
            if name := call["function"].get("name"):
                half = len(name) // 2
                rest = copy.deepcopy(chunk)
                call["function"]["name"] = name[:half]
                for part in _calls([rest]):
                    part["function"] = {"name": name[half:], "arguments": ""}
                    part.pop("id", None)
                split.append(rest)
    return _done(split)


def _calls_empty(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
    empty = copy.deepcopy(chunks[0])
    for choice in empty["choices"]:
        choice["delta"] = {"tool_calls": [{"index": 7}]}
    return _done([chunks[0], empty, *chunks[1:]])


def _between(extra: Callable[[JsonObject], JsonObject]) -> _Spoil:
    """Put another chunk behind the first."""

    def spoil(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
        return _done([chunks[0], extra(copy.deepcopy(chunks[0])), *chunks[1:]])

    return spoil


def _without_delta(chunk: JsonObject) -> JsonObject:
    return chunk | {"choices": [{"index": 0, "finish_reason": None}]}


def _usage_repeated(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
    usage = next((chunk["usage"] for chunk in chunks if chunk.get("usage")), None)
    return _done([chunk | {"usage": usage} for chunk in chunks])


def _two_choices(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
    for chunk in chunks:
        for choice in chunk["choices"]:
            if "tool_calls" in choice["delta"]:
                choice["index"] = 1
    return _done(chunks)


def _comments(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
    events: list[JsonObject | str | bytes] = [b": OPENROUTER PROCESSING\n\n"]
    for chunk in chunks:
        events += [chunk, b": keep-alive\n\n", b"event: ping\nid: 1\nretry: 10\n\n"]
    return [*events, "[DONE]"]


def _multi_line(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
    def lines(chunk: JsonObject) -> bytes:
        text = json.dumps(chunk, indent=1, ensure_ascii=False)
        return "".join(f"data: {line}\n" for line in text.splitlines()).encode() + b"\n"

    return [*map(lines, chunks), "[DONE]"]


def _error_inside(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
    error = {"message": "The server had an error", "type": "server_error", "code": 500}
    return [chunks[0], {"error": error}]


def _behind_done(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
    more = copy.deepcopy(chunks[0])
    for delta in _deltas([more]):
        delta["content"] = "This is not part of the answer."
    return [*chunks, "[DONE]", more, "[DONE]"]


def _malformed_at_end(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
    return [*chunks, '{"id": "chatcmpl-', "[DONE]"]


def _said(field: str, text: str, finish: str = "stop") -> _Spoil:
    """Answer with this text in this field of the deltas, in pieces, and with nothing else."""

    def spoil(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
        head, half = chunks[0], len(text) // 2
        deltas: list[tuple[JsonObject, str | None]] = [
            ({"role": "assistant"}, None),
            *(({field: part}, None) for part in (text[:half], text[half:]) if part),
            ({}, finish),
        ]
        return _done(
            [
                head | {"choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
                for delta, end in deltas
            ]
        )

    return spoil


def _before(deltas: Sequence[JsonObject]) -> _Spoil:
    """Put deltas before the answer."""

    def spoil(chunks: list[JsonObject]) -> list[JsonObject | str | bytes]:
        first = [
            chunks[0] | {"choices": [{"index": 0, "delta": dict(delta), "finish_reason": None}]}
            for delta in deltas
        ]
        return _done([*first, *chunks])

    return spoil


_SPOILT: Mapping[str, _Spoil] = {
    "index_missing": _of_calls(lambda call: call.pop("index")),
    "index_zero": _of_calls(lambda call: call.update(index=0)),
    "index_gaps": _of_calls(lambda call: call.update(index=call["index"] * 3 + 2)),
    "id_null": _of_ids(lambda call: call.update(id=None)),
    "id_empty": _of_ids(lambda call: call.update(id="")),
    "id_missing": _of_ids(lambda call: call.pop("id")),
    "id_same": _of_ids(lambda call: call.update(id="call_same")),
    "name_repeated": _name_repeated,
    "name_split": _name_split,
    "arguments_object": _whole(lambda text: json.loads(text or "{}")),
    "arguments_null": _whole(lambda text: None),
    "arguments_empty": _whole(lambda text: ""),
    "calls_empty": _calls_empty,
    "role_repeated": _of_deltas(
        lambda delta: delta.update({"role": "assistant", "content": delta.get("content") or ""})
    ),
    "choices_empty": _between(lambda chunk: chunk | {"choices": []}),
    "delta_missing": _between(_without_delta),
    "usage_repeated": _usage_repeated,
    "unknown_fields": _of_deltas(lambda delta: delta.update(x_unknown={"of": ["a", "server"]})),
    "two_choices": _two_choices,
    "comments": _comments,
    "crlf": _done,
    "multi_line": _multi_line,
    "bom": _done,
    "byte_by_byte": _done,
    "finish_stop": _of_finish("stop"),
    "finish_empty": _of_finish(""),
    "finish_missing": _of_finish(None),
    "length": _of_finish("length"),
    "no_end": _of_finish(None, done=False),
    "finish_error": _of_finish("error"),
    "error_inside": _error_inside,
    "data_behind_done": _behind_done,
    "malformed_at_end": _malformed_at_end,
    "refusal": _said("refusal", "I cannot help with that."),
    "content_filter": _said("content", "Some of the answ", "content_filter"),
    "empty": _said("content", ""),
    "reasoning": _before([{"reasoning_content": "It may "}, {"reasoning_content": "rain."}]),
    "think_tags": _before(
        [{"content": "<thi"}, {"content": "nk>It may rain.</th"}, {"content": "ink>"}]
    ),
    "think_unclosed": _before([{"content": "<think>"}]),
}
_OF_CALLS = frozenset(NAMES[: NAMES.index("role_repeated")]) - {"calls_empty"} | {"two_choices"}


# Bytes


def _cut_into_bytes(packets: Sequence[bytes]) -> Iterator[Packet]:
    for byte in b"".join(packets):
        yield bytes([byte])


_BYTES: Mapping[str, Callable[[Sequence[bytes]], Iterator[Packet]]] = {
    "crlf": lambda packets: iter([one.replace(b"\n", b"\r\n") for one in packets]),
    "bom": lambda packets: iter([b"\xef\xbb\xbf", *packets]),
    "byte_by_byte": _cut_into_bytes,
}


# The exchange


def _broken(wire: WireReply, at: int | None, *, reset: bool) -> WireReply:
    """Break the connection within the body."""
    body = b"".join(packet for packet in wire.packets if isinstance(packet, bytes))
    size = len(body) // 2 if at is None else at
    length = None if wire.chunked else len(body)
    return replace(wire, packets=(body[:size],), close_early=True, reset=reset, length=length)


_LIMITED = {"message": "Rate limit reached for requests", "type": "requests"}
_HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"
_EXCHANGES: Mapping[str, Callable[[WireReply, int | None], WireReply]] = {
    "rate_limited": lambda wire, at: raw(429, {"error": _LIMITED}, {"retry-after": "0"}),
    "overloaded": lambda wire, at: raw(503, {"error": {"message": "Overloaded"}}),
    "html": lambda wire, at: raw(502, _HTML, {"content-type": "text/html"}),
    "dropped": lambda wire, at: drop(),
    "reset": lambda wire, at: _broken(wire, at, reset=True),
    "cut": lambda wire, at: _broken(wire, at, reset=False),
}
