"""Every row of the table of odd streams, over a socket, in one packet an event and one a byte."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentkit.core.effects import Address
from agentkit.errors import (
    InvalidResponse,
    ModelHTTPError,
    ModelRefusal,
    ModelUnreachable,
    OutputTruncated,
)
from agentkit.events import Event, ReasoningDelta, Restarted, TextDelta, ToolCallDelta
from agentkit.messages import ModelRequest, ModelResponse, UserMessage
from agentkit.models import ChatModel
from agentkit.testing import ChatServer, raw, reply, sse

pytestmark = pytest.mark.anyio

ASK = ModelRequest(messages=(UserMessage(content="Hi"),))
AT = Address("/agent/m0")


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": "c1", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def call(arguments: Any = None, *, name: str | None = None, **fields: Any) -> dict[str, Any]:
    function = {"name": name} if name is not None else {}
    if arguments is not None:
        function["arguments"] = arguments
    return delta(tool_calls=[{**fields, "function": function}])


async def ask(answer: Any, retries: int = 0) -> tuple[ModelResponse, list[Event]]:
    events: list[Event] = []
    with ChatServer([answer]) as server:
        async with ChatModel("any", base_url=server.base_url, retries=retries) as model:
            response = await model.request(ASK, at=AT, emit=events.append, stream=True)
    return response, events


async def calls_of(*events: Any) -> list[tuple[str, Any]]:
    """The calls that a stream makes: the same for whole events and for single bytes."""
    response, _ = await ask(sse(events))
    again, _ = await ask(sse(events, chunk_size=1))
    assert again == response
    ids = [one.id for one in response.message.tool_calls]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    return [(one.name, json.loads(one.arguments or "{}")) for one in response.message.tool_calls]


STOP = delta("tool_calls")
TWO = [("a", {"x": 1}), ("b", {"y": 2})]


async def test_calls_are_told_apart_by_index() -> None:
    """The proper form: an index each, ids and names once."""
    assert (
        await calls_of(
            call("", name="a", index=0, id="i0"),
            call('{"x"', index=0),
            call("", name="b", index=1, id="i1"),
            call(":1}", index=0),
            call('{"y":2}', index=1),
            STOP,
            "[DONE]",
        )
        == TWO
    )


async def test_index_missing() -> None:
    """Without indexes, ids tell the calls apart."""
    assert (
        await calls_of(
            call('{"x":', name="a", id="i0"),
            call("1}", id="i0"),
            call('{"y":2}', name="b", id="i1"),
            STOP,
            "[DONE]",
        )
        == TWO
    )


async def test_index_and_id_missing() -> None:
    """Without indexes and ids, a new name begins a new call."""
    assert (
        await calls_of(
            call('{"x":', name="a"), call("1}"), call('{"y":2}', name="b"), STOP, "[DONE]"
        )
        == TWO
    )


async def test_every_index_is_zero() -> None:
    """With every index 0, ids tell the calls apart, and fragments without one go on."""
    assert (
        await calls_of(
            call('{"x":', name="a", index=0, id="i0"),
            call("1}", index=0),
            call('{"y":', name="b", index=0, id="i1"),
            call("2}", index=0),
            STOP,
            "[DONE]",
        )
        == TWO
    )


async def test_every_index_is_zero_and_no_ids() -> None:
    """Whole calls in chunks of their own, all of index 0 and without ids, are separate calls."""
    assert await calls_of(
        call('{"x":1}', name="a", index=0),
        call('{"x":2}', name="a", index=0),
        call('{"y":2}', name="b", index=0),
        STOP,
        "[DONE]",
    ) == [("a", {"x": 1}), ("a", {"x": 2}), ("b", {"y": 2})]


async def test_gaps_in_the_indexes() -> None:
    """Indexes 3 and 7 are as good as 0 and 1."""
    assert (
        await calls_of(
            call('{"x":1}', name="a", index=3, id="i0"),
            call('{"y":2}', name="b", index=7, id="i1"),
            STOP,
            "[DONE]",
        )
        == TWO
    )


async def test_two_calls_of_one_chunk_without_index_and_id() -> None:
    """Two entries of one chunk are two calls, also of the same function without arguments."""
    entry = {"function": {"name": "now", "arguments": ""}}
    assert await calls_of(delta(tool_calls=[entry, entry]), STOP, "[DONE]") == [
        ("now", {}),
        ("now", {}),
    ]


@pytest.mark.parametrize("id_", [None, "", "same"])
async def test_ids_null_empty_or_the_same(id_: str | None) -> None:
    """Both calls run, and the history carries unique ids."""
    assert (
        await calls_of(
            call('{"x":1}', name="a", index=0, id=id_),
            call('{"y":2}', name="b", index=1, id=id_),
            STOP,
            "[DONE]",
        )
        == TWO
    )


async def test_same_id_and_no_index() -> None:
    """One id on two calls without indexes: the second name begins the second call."""
    assert (
        await calls_of(
            call('{"x":1}', name="a", id="same"),
            call('{"y":', name="b", id="same"),
            call("2}", id="same"),
            STOP,
            "[DONE]",
        )
        == TWO
    )


async def test_id_null_after_the_first_call() -> None:
    """A server that names only the first call's id, and counts indexes right, makes two calls."""
    assert (
        await calls_of(
            call('{"x":1}', name="a", index=0, id="i0"),
            call("", name="b", index=1, id=None),
            call('{"y":2}', index=1, id=None),
            STOP,
            "[DONE]",
        )
        == TWO
    )


async def test_index_counts_fragments() -> None:
    """An index that grows with each fragment does not cut the call into pieces."""
    assert await calls_of(
        call('{"x"', name="a", index=0, id="i0"),
        call(":", index=1),
        call("1}", index=2),
        STOP,
        "[DONE]",
    ) == [("a", {"x": 1})]


async def test_name_repeated_on_every_delta() -> None:
    """A repeated name is not a new call and not a longer name."""
    assert await calls_of(
        call("", name="add", index=0, id="i0"),
        call('{"x":', name="add", index=0, id="i0"),
        call("1}", name="add", index=0, id="i0"),
        call("", name="add", index=0, id="i0"),
        STOP,
        "[DONE]",
    ) == [("add", {"x": 1})]


async def test_name_split_over_deltas() -> None:
    """A name in pieces is one name."""
    assert await calls_of(
        call("", name="get_", index=0, id="i0"),
        call("", name="weather", index=0),
        call('{"x":1}', index=0),
        STOP,
        "[DONE]",
    ) == [("get_weather", {"x": 1})]


async def test_role_and_empty_content_on_every_chunk() -> None:
    """They change nothing."""
    more = {"role": "assistant", "content": ""}
    response, _ = await ask(
        sse([delta(**more), delta(**more | {"content": "Hi"}), delta("stop", **more), "[DONE]"])
    )
    assert response.message.content == "Hi"


@pytest.mark.parametrize("finish", ["stop", "", None])
async def test_finish_reason_hides_the_calls(finish: str | None) -> None:
    """Calls count, whatever the finish reason says, after a proper [DONE]."""
    answer = sse([call('{"x":1}', name="a", index=0, id="i0"), delta(finish), "[DONE]"])
    response, _ = await ask(answer)
    assert response.finish == "tool_calls"
    assert len(response.message.tool_calls) == 1


async def test_chunks_that_hold_nothing() -> None:
    """No choices, null choices, a choice without delta, and usage chunks are skipped over."""
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    response, _ = await ask(
        sse(
            [
                {"choices": []},
                {"choices": None, "usage": {"prompt_tokens": 7, "completion_tokens": 1}},
                {"choices": [{"index": 0, "content_filter_results": {}}]},
                {**delta(content="Hi"), "usage": {"prompt_tokens": 7, "completion_tokens": 1}},
                {"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]},
                {"choices": [], "usage": usage},
                "[DONE]",
            ]
        )
    )
    assert response.message.content == "Hi"
    assert (response.usage.input_tokens, response.usage.output_tokens) == (7, 2)


async def test_framing_of_every_kind() -> None:
    """Comments, CRLF, keep-alives, multi-line data, a BOM and no last blank line are all one."""
    text = "é🙂 \u2028 end"
    whole = json.dumps(delta(content=text), ensure_ascii=False).encode()
    middle = whole.index(b",") + 1
    stream = (
        b"\xef\xbb\xbf: OPENROUTER PROCESSING\r\n\r\n"
        b"event: message\r\nid: 1\r\nretry: 100\r\n"
        b"data: " + whole[:middle] + b"\r\ndata: " + whole[middle:] + b"\r\n\r\n"
        b":\n\n\n\n"
        b"data:" + json.dumps(delta("stop")).encode() + b"\r\r"
        b"data: [DONE]"
    )
    response, events = await ask(sse([stream]))
    again, _ = await ask(sse([stream], chunk_size=1))
    assert response.message.content == text
    assert again == response
    assert events[1] == TextDelta(at=AT, text=text)


async def test_a_bom_before_the_first_event() -> None:
    """A byte order mark does not swallow the first event."""
    first = b"\xef\xbb\xbfdata: " + json.dumps(delta(content="Hi")).encode() + b"\n\n"
    response, _ = await ask(sse([first, delta("stop"), "[DONE]"]))
    assert response.message.content == "Hi"


async def test_a_surrogate_pair_split_over_chunks() -> None:
    """Halves of a character, escaped in two chunks, become the character."""
    halves = [
        b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\\ude42"}}]}\n\n',
    ]
    response, _ = await ask(sse([*halves, delta("stop"), "[DONE]"]))
    assert response.message.content == "🙂"


@pytest.mark.parametrize(
    ("arguments", "raw"), [({"x": 1}, '{"x": 1}'), (None, ""), ("", ""), ("null", "null")]
)
async def test_arguments_of_every_type(arguments: Any, raw: str) -> None:
    """An object becomes its text; no arguments stay none."""
    response, _ = await ask(
        sse(
            [
                delta(tool_calls=[{"id": "i", "function": {"name": "a", "arguments": arguments}}]),
                STOP,
                "[DONE]",
            ]
        )
    )
    assert response.message.tool_calls[0].arguments == raw


@pytest.mark.parametrize("close_early", [False, True])
async def test_a_stream_that_ends_too_soon(close_early: bool) -> None:
    """Neither finish_reason nor [DONE]: tried again, then an error, never a success."""
    broken = sse([call('{"x":1}', name="a", index=0, id="i")], close_early=close_early)
    with ChatServer([broken, broken]) as server:
        async with ChatModel("any", base_url=server.base_url, retries=1) as model:
            with pytest.raises((InvalidResponse, ModelUnreachable)):
                await model.request(ASK, stream=True)
        assert len(server.requests) == 2


async def test_a_broken_stream_is_restarted_in_sight() -> None:
    """After a visible delta the caller is told that the answer begins anew."""
    events: list[Event] = []
    with ChatServer([sse([delta(content="Hel")]), reply("Hello")]) as server:
        async with ChatModel("any", base_url=server.base_url, retries=1) as model:
            response = await model.request(ASK, at=AT, emit=events.append, stream=True)
    assert response.message.content == "Hello"
    told = [one for one in events if isinstance(one, (TextDelta, Restarted))]
    assert told[0] == TextDelta(at=AT, text="Hel")
    assert isinstance(told[1], Restarted)
    assert told[2] == TextDelta(at=AT, text="Hello")


async def test_a_stream_that_breaks_after_its_finish_reason() -> None:
    """The answer is complete with its finish_reason; what breaks afterwards is lost usage."""
    answer = sse([delta(content="Hi"), delta("stop")], close_early=True)
    response, _ = await ask(answer)
    assert response.message.content == "Hi"


async def test_length_with_calls() -> None:
    """The finish is told as it is, so that the loop runs nothing."""
    answer = sse([call('{"x":1}', name="a", index=0, id="i"), delta("length"), "[DONE]"])
    response, _ = await ask(answer)
    assert response.finish == "length"


async def test_content_filter() -> None:
    """A filtered partial answer is told as filtered."""
    response, _ = await ask(sse([delta(content="How"), delta("content_filter"), "[DONE]"]))
    assert response.finish == "content_filter"


async def test_an_unknown_finish_reason_with_calls() -> None:
    """Calls of an answer that ended in an unknown way are not handed out."""
    answer = sse([call('{"x":1}', name="a", index=0, id="i"), delta("abort"), "[DONE]"])
    with pytest.raises(InvalidResponse, match="abort"):
        await ask(answer)


@pytest.mark.parametrize(
    "event",
    [
        {"error": {"message": "overloaded", "type": "server_error", "code": 503}},
        {"choices": [], "error": {"message": "overloaded", "code": "503"}},
        {"object": "error", "message": "overloaded", "code": 503},
        {"choices": [{"delta": {}, "finish_reason": "error", "error": {"message": "overloaded"}}]},
        {"x_groq": {"error": "overloaded"}, "choices": []},
        b'error: {"message": "overloaded"}\n\n',
        b'event: error\ndata: {"error": "overloaded"}\n\n',
    ],
)
async def test_an_error_inside_a_stream(event: Any) -> None:
    """It is a model error with the server's words, and tried again because it may pass."""
    with ChatServer([sse([delta(content="x"), event]), reply("Hello")]) as server:
        async with ChatModel("any", base_url=server.base_url, retries=1) as model:
            response = await model.request(ASK, stream=True)
    assert response.message.content == "Hello"
    with pytest.raises(ModelHTTPError, match="overloaded"):
        await ask(sse([delta(content="x"), event]))


async def test_a_lasting_error_inside_a_stream() -> None:
    """An error that another attempt cannot cure is raised at once."""
    event = {"error": {"message": "bad schema", "type": "invalid_request_error"}}
    with pytest.raises(ModelHTTPError, match="bad schema"):
        await ask(sse([event]), retries=3)


async def test_a_filter_error_inside_a_stream() -> None:
    """A content filter's error is a refusal."""
    event = {"error": {"message": "blocked", "code": "content_filter"}}
    with pytest.raises(ModelRefusal, match="blocked"):
        await ask(sse([event]))


async def test_finish_reason_error_without_an_error() -> None:
    """finish_reason error alone is not a success either."""
    with pytest.raises(InvalidResponse, match="error"):
        await ask(sse([delta(content="x"), delta("error"), "[DONE]"]))


async def test_refusal_deltas() -> None:
    """They are added up into the refusal."""
    response, _ = await ask(
        sse([delta(refusal="I "), delta(refusal="won't."), delta("stop"), "[DONE]"])
    )
    assert response.message.refusal == "I won't."
    assert response.message.content is None


async def test_an_empty_reply() -> None:
    """It is told as it is: the loop asks again."""
    response, _ = await ask(sse([delta(role="assistant"), delta("stop"), "[DONE]"]))
    assert not response.message.text
    assert not response.message.tool_calls


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
async def test_reasoning(field: str) -> None:
    """Thinking is kept apart from the answer, under whatever name."""
    response, events = await ask(
        sse(
            [
                delta(**{field: "Hm"}),
                delta(**{field: "m."}),
                delta(content="Hi"),
                delta("stop"),
                "[DONE]",
            ]
        )
    )
    assert response.message.reasoning == "Hmm."
    assert response.message.content == "Hi"
    assert ReasoningDelta(at=AT, text="m.") in events


async def test_reasoning_details_and_thought_signatures() -> None:
    """Pieces of one block are put together, and unknown fields of calls are kept."""
    signature = {"google": {"thought_signature": "s1"}}
    response, _ = await ask(
        sse(
            [
                delta(reasoning_details=[{"type": "reasoning.text", "text": "Hm", "index": 0}]),
                delta(
                    reasoning_details=[
                        {"type": "reasoning.text", "text": "m", "index": 0, "signature": "z"}
                    ]
                ),
                call("{}", name="a", id="i", extra_content=signature),
                STOP,
                "[DONE]",
            ]
        )
    )
    assert response.message.extra == {
        "reasoning_details": [
            {"type": "reasoning.text", "text": "Hmm", "index": 0, "signature": "z"}
        ]
    }
    assert response.message.tool_calls[0].extra == {"extra_content": signature}


async def test_endless_white_space() -> None:
    """A server that sends nothing but white space is stopped, with advice."""
    blanks = [delta(content=" \n" * 500)] * 20
    with pytest.raises(OutputTruncated, match="JSON") as caught:
        await ask(sse([delta(content='{"a": 1'), *blanks]), retries=3)
    assert caught.value.text == '{"a": 1'


async def test_a_whole_answer_where_a_stream_was_asked_for() -> None:
    """A server that does not stream is understood, and its answer shown in one piece."""
    body = {"choices": [{"message": {"role": "assistant", "content": "Hi"}}]}
    response, events = await ask(raw(200, json.dumps(body)))
    assert response.message.content == "Hi"
    assert TextDelta(at=AT, text="Hi") in events


async def test_deltas_of_calls_carry_the_address_of_the_call() -> None:
    """Deltas of parallel calls can be told apart."""
    _, events = await ask(
        sse(
            [
                call('{"x":1}', name="a", index=0, id="i0"),
                call('{"y":2}', name="b", index=1, id="i1"),
                STOP,
                "[DONE]",
            ]
        )
    )
    assert [one for one in events if isinstance(one, ToolCallDelta)] == [
        ToolCallDelta(at=AT.call(0), name="a", arguments='{"x":1}'),
        ToolCallDelta(at=AT.call(1), name="b", arguments='{"y":2}'),
    ]


async def test_both_forms_of_an_answer_are_one() -> None:
    """The same answer streamed and in one piece gives the same response."""
    script = [reply("Hello", calls=[("a", {"x": 1})])] * 2
    with ChatServer(script) as server:
        async with ChatModel("any", base_url=server.base_url) as model:
            whole = await model.request(ASK)
            streamed = await model.request(ASK, stream=True)
    assert whole.message.content == streamed.message.content == "Hello"
    assert whole.usage == streamed.usage
    assert [one.arguments for one in whole.message.tool_calls] == ['{"x":1}']
    assert [one.arguments for one in streamed.message.tool_calls] == ['{"x":1}']
