"""Decoding of complete answers, by example and by property."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.errors import AgentKitError, InvalidResponse, ModelHTTPError, ModelRefusal
from agentkit.messages import ModelResponse, TextPart, Usage
from agentkit.models.chat.decode import decode_response
from agentkit.models.chat.stream import EventDecoder, StreamFold


def decode(message: dict[str, Any] | None = None, **fields: Any) -> ModelResponse:
    choice = {"index": 0, "message": message or {"content": "Hi"}, "finish_reason": "stop"}
    return decode_response(json.dumps({"choices": [choice], **fields}).encode())


def test_usage() -> None:
    """Token counts are mapped, and a server's own usage fields are kept."""
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
        "cost": 0.01,
        "is_byok": False,
    }
    response = decode(usage=usage)
    assert response.usage == Usage(
        requests=1,
        input_tokens=10,
        output_tokens=5,
        cached_tokens=4,
        reasoning_tokens=3,
        cost=0.01,
    )
    assert response.extra == {"usage": {"is_byok": False}}


def test_odd_usage() -> None:
    """Null, missing and odd counts are 0; Groq's and DeepSeek's own fields are read."""
    assert decode(usage=None).usage == Usage(requests=1)
    odd = {"prompt_tokens": None, "completion_tokens": "5", "prompt_tokens_details": None}
    assert decode(usage=odd).usage == Usage(requests=1)
    assert decode(x_groq={"usage": {"prompt_tokens": 3}}).usage.input_tokens == 3
    assert decode(usage={"prompt_cache_hit_tokens": 2}).usage.cached_tokens == 2


def test_unknown_fields() -> None:
    """Unknown fields of the response, the choice and the message are kept."""
    body = {
        "id": "c1",
        "model": "m",
        "system_fingerprint": "fp",
        "choices": [{"message": {"content": "Hi", "annotations": [1]}, "native_finish": "STOP"}],
    }
    response = decode_response(json.dumps(body).encode())
    assert response.extra == {"system_fingerprint": "fp", "native_finish": "STOP"}
    assert response.message.extra == {"annotations": [1]}
    assert (response.id, response.model) == ("c1", "m")


def test_all_choices() -> None:
    """With n > 1, every choice is decoded."""
    choices = [{"index": i, "message": {"content": str(i)}} for i in range(3)]
    response = decode_response(json.dumps({"choices": choices}).encode())
    assert response.message.content == "0"
    assert [one.content for one in response.choices] == ["1", "2"]


def test_logprobs() -> None:
    """Logprobs are kept as sent."""
    choice = {"message": {"content": "Hi"}, "logprobs": {"content": [{"token": "Hi"}]}}
    response = decode_response(json.dumps({"choices": [choice]}).encode())
    assert response.logprobs == {"content": [{"token": "Hi"}]}


def test_content_that_is_not_text() -> None:
    """Objects become JSON text, text parts are joined, and thinking parts are reasoning."""
    assert decode({"content": {"a": 1}}).message.content == '{"a": 1}'
    assert decode({"content": [{"type": "text", "text": "H"}, "i"]}).message.content == "Hi"
    thinking = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
        {"type": "text", "text": "Hi"},
    ]
    message = decode({"content": thinking}).message
    assert (message.content, message.reasoning) == ("Hi", "Hm")
    image = {"type": "image_url", "image_url": {"url": "data:x"}}
    content = decode({"content": [{"type": "text", "text": "Hi"}, image]}).message.content
    assert isinstance(content, tuple)
    assert content[0] == TextPart(text="Hi")


def test_a_deprecated_function_call() -> None:
    """A deprecated function_call becomes a tool call with an id."""
    call = decode({"function_call": {"name": "add", "arguments": "{}"}}).message.tool_calls[0]
    assert (call.name, call.arguments) == ("add", "{}")
    assert call.id


def test_ids_are_unique_in_the_conversation() -> None:
    """A call never gets an id of the conversation, and derived ids are deterministic."""
    calls = [{"id": "x", "function": {"name": n, "arguments": "{}"}} for n in ("a", "b")]
    body = json.dumps({"choices": [{"message": {"tool_calls": calls}}]}).encode()
    first = decode_response(body, seed="/agent/m0", taken=["x"])
    again = decode_response(body, seed="/agent/m0", taken=["x"])
    other = decode_response(body, seed="/agent/m1", taken=["x"])
    ids = [call.id for call in first.message.tool_calls]
    assert len({"x", *ids}) == 3
    assert first == again
    assert {call.id for call in other.message.tool_calls}.isdisjoint(ids)


@pytest.mark.parametrize(
    ("raw", "finish"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        (None, "stop"),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
    ],
)
def test_finish_reasons(raw: str | None, finish: str) -> None:
    """Finish reasons are normalised; the server's own word is kept if it differs."""
    choice = {"message": {"content": "Hi"}, "finish_reason": raw}
    response = decode_response(json.dumps({"choices": [choice]}).encode())
    assert response.finish == finish
    assert response.extra.get("finish_reason", finish if raw else None) == raw


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad gateway</html>",
        b"[]",
        b"7",
        b'{"choices":null}',
        b'{"choices":[]}',
        b'{"a":' * 900 + b'"\\ud800"' + b"}" * 900,
        b"[" * 100_000,
    ],
)
def test_bodies_that_are_not_answers(body: bytes) -> None:
    """A body that is not an answer raises InvalidResponse."""
    with pytest.raises(InvalidResponse):
        decode_response(body)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"error": {"message": "slow", "code": 429}}, 429, "slow"),
        ({"error": {"message": "slow", "code": "oops"}, "choices": None}, 200, "slow"),
        ([{"error": {"message": "slow", "code": 400, "status": "INVALID"}}], 400, "slow"),
        ({"error": "slow"}, 200, "slow"),
        ({"object": "error", "message": "slow", "code": 503}, 503, "slow"),
    ],
)
def test_an_error_in_a_200(body: Any, status: int, text: str) -> None:
    """An error in a 200 is a ModelHTTPError with the status in the body."""
    with pytest.raises(ModelHTTPError, match=text) as caught:
        decode_response(json.dumps(body).encode())
    assert caught.value.status == status


def test_a_filter_in_a_200() -> None:
    """A filtered prompt in a 200, as Azure sends it, is a ModelRefusal."""
    with pytest.raises(ModelRefusal, match="filtered"):
        decode_response(b'{"error":{"message":"filtered","code":"content_filter","status":400}}')


KEYS = st.sampled_from(
    "id model choices index message delta content role tool_calls function name arguments "
    "finish_reason usage prompt_tokens prompt_tokens_details cached_tokens error code refusal "
    "reasoning reasoning_details type text thinking x_groq function_call logprobs audio".split()
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_decoding_raises_only_our_errors(body: bytes) -> None:
    """Random bytes and random JSON decode, or raise an AgentKitError."""
    with suppress(AgentKitError):
        decode_response(body)


@given(st.lists(st.binary(max_size=60) | JSON.map(lambda v: json.dumps(v).encode()), max_size=6))
def test_folding_raises_only_our_errors(events: list[bytes]) -> None:
    """Random streams fold, or raise an AgentKitError."""
    decoder, fold = EventDecoder(), StreamFold()
    with suppress(AgentKitError):
        for event in events:
            for data in decoder.feed(b"data: " + event + b"\n\n"):
                fold.feed(data)
        for data in decoder.finish():
            fold.feed(data)
        fold.finish()


CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "content": st.none() | st.text(max_size=5) | JSON,
        "reasoning": st.none() | st.text(max_size=5) | JSON,
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": st.none() | st.integers(0, 2),
                    "id": st.none() | st.sampled_from(["", "a", "b"]),
                    "function": st.fixed_dictionaries(
                        {},
                        optional={
                            "name": st.none() | st.sampled_from(["", "f", "g"]),
                            "arguments": st.none() | st.sampled_from(["", "{", "}", "{}"]) | JSON,
                        },
                    ),
                },
            )
            | JSON,
            max_size=3,
        ),
    },
)


@given(st.lists(CHOICE, max_size=6))
def test_odd_deltas_fold_to_unique_ids(deltas: list[Any]) -> None:
    """However odd the deltas are, the calls of the folded response have unique ids."""
    fold = StreamFold()
    for one in deltas:
        fold.feed(json.dumps({"choices": [{"delta": one}]}).encode())
    fold.feed(b'{"choices":[{"delta":{},"finish_reason":"stop"}]}')
    ids = [call.id for call in fold.finish().message.tool_calls]
    assert all(ids)
    assert len(set(ids)) == len(ids)


STREAM = (
    "\ufeff: hello\r\n\r\ndata: "
    + json.dumps(
        {
            "choices": [
                {
                    "delta": {
                        "content": "é🙂\u2028",
                        "tool_calls": [{"function": {"name": "f", "arguments": "{"}}],
                    }
                }
            ]
        },
        ensure_ascii=False,
    )
    + '\n\ndata: {"choices":[{"delta":\ndata: {"tool_calls":[{"function":{"arguments":"}"}}]},'
    + '"finish_reason":"tool_calls"}]}\r\rdata: [DONE]'
).encode()


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_any_split_folds_to_the_same_response(cuts: list[int]) -> None:
    """fold(split(s)) == fold(s), wherever the bytes are cut."""
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in pairwise(edges)]
    assert fold(pieces) == fold([STREAM])


def fold(pieces: list[bytes]) -> ModelResponse:
    decoder, folded = EventDecoder(), StreamFold()
    for piece in pieces:
        for data in decoder.feed(piece):
            folded.feed(data)
    for data in decoder.finish():
        folded.feed(data)
    return folded.finish()
