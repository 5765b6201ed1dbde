"""Every odd stream met in the wild, over a socket, by whole events and by single bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from agentkit import Agent, JsonSchema
from agentkit.errors import (
    InvalidResponse,
    ModelHTTPError,
    ModelRefusal,
    ModelUnreachable,
    OutputTruncated,
)
from agentkit.events import Event, ReasoningDelta, Restarted, TextDelta, ToolCallDelta, Warned
from agentkit.messages import ModelResponse
from agentkit.models import ChatModel
from agentkit.testing import ChatServer, raw, reply, sse
from tests.models.support import AT, REQUEST
from tests.models.support import send as send_any

pytestmark = pytest.mark.anyio


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": "c1", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def call(arguments: Any = None, *, name: str | None = None, **fields: Any) -> dict[str, Any]:
    function = {"name": name} if name is not None else {}
    if arguments is not None:
        function["arguments"] = arguments
    return delta(tool_calls=[{**fields, "function": function}])


async def send(answer: Any, retries: int = 0) -> tuple[ModelResponse, list[Event]]:
    events: list[Event] = []
    with ChatServer([answer]) as server:
        async with ChatModel("any", base_url=server.base_url, retries=retries) as model:
            response = await model.request(REQUEST, at=AT, emit=events.append, stream=True)
    return response, events


async def calls_of(*events: Any) -> list[tuple[str, Any]]:
    """Return the calls of a stream: the same for whole events and for single bytes."""
    response, _ = await send(sse(events))
    again, _ = await send(sse(events, chunk_size=1))
    assert again == response
    ids = [one.id for one in response.message.tool_calls]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    return [(one.name, json.loads(one.arguments or "{}")) for one in response.message.tool_calls]


STOP = delta("tool_calls")
TWO = [("a", {"x": 1}), ("b", {"y": 2})]


async def test_calls_with_indexes() -> None:
    """In the standard form, each call has an index, and its id and name come once."""
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


async def test_calls_without_indexes() -> None:
    """Without indexes, ids distinguish the calls."""
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


async def test_calls_without_indexes_and_ids() -> None:
    """Without indexes and ids, a new name begins a new call."""
    assert (
        await calls_of(
            call('{"x":', name="a"), call("1}"), call('{"y":2}', name="b"), STOP, "[DONE]"
        )
        == TWO
    )


async def test_every_index_is_zero() -> None:
    """If every index is 0, ids distinguish calls, and fragments without id continue one."""
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
    """Complete calls in chunks of their own, all with index 0 and no id, are separate calls."""
    assert await calls_of(
        call('{"x":1}', name="a", index=0),
        call('{"x":2}', name="a", index=0),
        call('{"y":2}', name="b", index=0),
        STOP,
        "[DONE]",
    ) == [("a", {"x": 1}), ("a", {"x": 2}), ("b", {"y": 2})]


async def test_gaps_in_the_indexes() -> None:
    """Indexes 3 and 7 work like 0 and 1."""
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
    """Two entries in one chunk are two calls, even of the same function without arguments."""
    entry = {"function": {"name": "now", "arguments": ""}}
    assert await calls_of(delta(tool_calls=[entry, entry]), STOP, "[DONE]") == [
        ("now", {}),
        ("now", {}),
    ]


@pytest.mark.parametrize("id_", [None, "", "same"])
async def test_ids_null_empty_or_the_same(id_: str | None) -> None:
    """Calls with null, empty or equal ids stay separate and get unique ids."""
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
    """If two calls without indexes share an id, the second name begins the second call."""
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
    """Correct indexes separate calls even if only the first has an id."""
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


async def test_an_index_for_each_fragment() -> None:
    """An index that grows with each fragment does not split the call."""
    assert await calls_of(
        call('{"x"', name="a", index=0, id="i0"),
        call(":", index=1),
        call("1}", index=2),
        STOP,
        "[DONE]",
    ) == [("a", {"x": 1})]


async def test_name_repeated_on_every_delta() -> None:
    """A repeated name is neither a new call nor a longer name."""
    assert await calls_of(
        call("", name="add", index=0, id="i0"),
        call('{"x":', name="add", index=0, id="i0"),
        call("1}", name="add", index=0, id="i0"),
        call("", name="add", index=0, id="i0"),
        STOP,
        "[DONE]",
    ) == [("add", {"x": 1})]


async def test_name_split_over_deltas() -> None:
    """A name in pieces is joined."""
    assert await calls_of(
        call("", name="get_", index=0, id="i0"),
        call("", name="weather", index=0),
        call('{"x":1}', index=0),
        STOP,
        "[DONE]",
    ) == [("get_weather", {"x": 1})]


async def test_role_and_empty_content_on_every_chunk() -> None:
    """A role and empty content in every chunk change nothing."""
    more = {"role": "assistant", "content": ""}
    response, _ = await send(
        sse([delta(**more), delta(**more | {"content": "Hi"}), delta("stop", **more), "[DONE]"])
    )
    assert response.message.content == "Hi"


@pytest.mark.parametrize("finish", ["stop", "", None])
async def test_calls_in_spite_of_the_finish_reason(finish: str | None) -> None:
    """After a proper [DONE], calls count, whatever the finish reason."""
    answer = sse([call('{"x":1}', name="a", index=0, id="i0"), delta(finish), "[DONE]"])
    response, _ = await send(answer)
    assert response.finish == "tool_calls"
    assert len(response.message.tool_calls) == 1


async def test_chunks_without_content() -> None:
    """Chunks without choices or delta are skipped, and the last usage counts."""
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    response, _ = await send(
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
    """Comments, CRLF, keep-alives, multi-line data, a BOM and a missing last line are fine."""
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
    response, events = await send(sse([stream]))
    again, _ = await send(sse([stream], chunk_size=1))
    assert response.message.content == text
    assert again == response
    assert events[1] == TextDelta(at=AT, text=text)


async def test_a_bom_before_the_first_event() -> None:
    """A byte order mark does not swallow the first event."""
    first = b"\xef\xbb\xbfdata: " + json.dumps(delta(content="Hi")).encode() + b"\n\n"
    response, _ = await send(sse([first, delta("stop"), "[DONE]"]))
    assert response.message.content == "Hi"


async def test_a_surrogate_pair_split_over_chunks() -> None:
    """Two escaped halves of a character in two chunks become the character."""
    halves = [
        b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\\ude42"}}]}\n\n',
    ]
    response, _ = await send(sse([*halves, delta("stop"), "[DONE]"]))
    assert response.message.content == "🙂"


@pytest.mark.parametrize(
    ("arguments", "raw"), [({"x": 1}, '{"x": 1}'), (None, ""), ("", ""), ("null", "null")]
)
async def test_arguments_of_every_type(arguments: Any, raw: str) -> None:
    """Arguments as an object become JSON text, and missing ones stay empty."""
    response, _ = await send(
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
    """A stream without finish_reason and [DONE] is retried, then an error."""
    broken = sse([call('{"x":1}', name="a", index=0, id="i")], close_early=close_early)
    with ChatServer([broken, broken]) as server:
        async with ChatModel("any", base_url=server.base_url, retries=1) as model:
            with pytest.raises((InvalidResponse, ModelUnreachable)):
                await model.request(REQUEST, stream=True)
        assert len(server.requests) == 2


async def test_a_broken_stream_restarts() -> None:
    """After visible deltas, a Restarted event says that the answer begins again."""
    events: list[Event] = []
    with ChatServer([sse([delta(content="Hel")]), reply("Hello")]) as server:
        async with ChatModel("any", base_url=server.base_url, retries=1) as model:
            response = await model.request(REQUEST, at=AT, emit=events.append, stream=True)
    assert response.message.content == "Hello"
    shown = [one for one in events if isinstance(one, (TextDelta, Restarted))]
    assert shown[0] == TextDelta(at=AT, text="Hel")
    assert isinstance(shown[1], Restarted)
    assert shown[2] == TextDelta(at=AT, text="Hello")


async def test_a_stream_that_breaks_after_its_finish_reason() -> None:
    """After its finish_reason, an answer is complete even if the stream breaks."""
    answer = sse([delta(content="Hi"), delta("stop")], close_early=True)
    response, _ = await send(answer)
    assert response.message.content == "Hi"


async def test_length_with_calls() -> None:
    """The finish stays length in spite of calls, so that the loop runs none."""
    answer = sse([call('{"x":1}', name="a", index=0, id="i"), delta("length"), "[DONE]"])
    response, _ = await send(answer)
    assert response.finish == "length"


async def test_content_filter() -> None:
    """A partial answer that was filtered finishes with content_filter."""
    response, _ = await send(sse([delta(content="How"), delta("content_filter"), "[DONE]"]))
    assert response.finish == "content_filter"


async def test_an_unknown_finish_reason_with_calls() -> None:
    """Calls of an answer with an unknown finish reason are not returned."""
    answer = sse([call('{"x":1}', name="a", index=0, id="i"), delta("abort"), "[DONE]"])
    with pytest.raises(InvalidResponse, match="abort"):
        await send(answer)


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
async def test_an_error_in_a_stream(event: Any) -> None:
    """An error in a stream has the server's message and is retried."""
    with ChatServer([sse([delta(content="x"), event]), reply("Hello")]) as server:
        async with ChatModel("any", base_url=server.base_url, retries=1) as model:
            response = await model.request(REQUEST, stream=True)
    assert response.message.content == "Hello"
    with pytest.raises(ModelHTTPError, match="overloaded"):
        await send(sse([delta(content="x"), event]))


async def test_a_lasting_error_in_a_stream() -> None:
    """An error in a stream that another attempt cannot cure is raised at once."""
    event = {"error": {"message": "bad schema", "type": "invalid_request_error"}}
    with pytest.raises(ModelHTTPError, match="bad schema"):
        await send(sse([event]), retries=3)


async def test_a_filter_error_in_a_stream() -> None:
    """A content filter's error in a stream is a refusal."""
    event = {"error": {"message": "blocked", "code": "content_filter"}}
    with pytest.raises(ModelRefusal, match="blocked"):
        await send(sse([event]))


async def test_finish_reason_error_without_an_error() -> None:
    """The finish_reason error alone is not a success either."""
    with pytest.raises(InvalidResponse, match="error"):
        await send(sse([delta(content="x"), delta("error"), "[DONE]"]))


async def test_refusal_deltas() -> None:
    """Refusal deltas are joined into the refusal."""
    response, _ = await send(
        sse([delta(refusal="I "), delta(refusal="won't."), delta("stop"), "[DONE]"])
    )
    assert response.message.refusal == "I won't."
    assert response.message.content is None


async def test_an_empty_reply() -> None:
    """An empty reply is returned as it is; the loop decides to ask again."""
    response, _ = await send(sse([delta(role="assistant"), delta("stop"), "[DONE]"]))
    assert not response.message.text
    assert not response.message.tool_calls


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
async def test_reasoning(field: str) -> None:
    """Reasoning is separate from the answer, whatever its field is called."""
    response, events = await send(
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
    assert response.message.reasoning_field == field
    assert ReasoningDelta(at=AT, text="m.") in events


THINKING = [
    ("<think>Hm.</think>Hi", "Hm.", "Hi"),
    (" \n<thinking>Hm.\n</thinking>\n\nHi there ", "Hm.\n", "Hi there "),
    ("[THINK]Hm.[/THINK]Hi", "Hm.", "Hi"),
    ("<think>a < b, </thin</think><think> c</think>\nHi", "a < b, </thin c", "Hi"),
    ("<think>Never closed </th", "Never closed </th", None),
    ("<think></think>Hi", None, "Hi"),
    ("<think>Hm.</think>  ", "Hm.", None),
    ("<thin", None, "<thin"),
    ("  Hi", None, "  Hi"),
    ("<thinker>Hi</thinker>", None, "<thinker>Hi</thinker>"),
    ("Write <think>Hm</think>.", None, "Write <think>Hm</think>."),
]


@pytest.mark.parametrize(("text", "reasoning", "content"), THINKING)
async def test_thinking_at_the_beginning_of_the_text(
    text: str, reasoning: str | None, content: str | None
) -> None:
    """Thinking in tags is reasoning: the same whole, streamed, and cut after any letter."""
    whole, _ = await send(raw(200, {"choices": [{"message": {"content": text}}]}))
    for size in (1, 3, len(text)):
        pieces = [delta(content=text[i : i + size]) for i in range(0, len(text), size)]
        response, events = await send(sse([*pieces, delta("stop"), "[DONE]"]))
        assert response.message == whole.message
        shown = {ReasoningDelta: "", TextDelta: ""}
        for event in events:
            if isinstance(event, (ReasoningDelta, TextDelta)):
                shown[type(event)] += event.text
        assert shown == {ReasoningDelta: reasoning or "", TextDelta: content or ""}
    assert (whole.message.reasoning, whole.message.content) == (reasoning, content)
    assert whole.message.reasoning_field is None


async def test_text_that_is_held_back_is_shown_at_the_end() -> None:
    """Text that might have become a tag is shown although no finish_reason comes."""
    _, events = await send(sse([delta(content="<thi"), "[DONE]"]))
    assert TextDelta(at=AT, text="<thi") in events


async def test_a_draft_in_the_thinking_is_not_the_output() -> None:
    """Typed and text outputs are read behind the thinking only."""
    text = '<think>Perhaps {"n": 1}?</think>\n{"n": 2}'
    with ChatServer([reply(text), reply(text)]) as server:
        model = ChatModel("any", base_url=server.base_url)
        typed = Agent(model, output=JsonSchema({"type": "object", "required": ["n"]}))
        assert (await typed.run("?")).output == {"n": 2}
        assert (await Agent(model).run("?")).output == '{"n": 2}'


def choice(index: int, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": fields, "finish_reason": finish}]}


LOOK = {"index": 0, "id": "i0", "function": {"name": "look", "arguments": "{}"}}


@pytest.mark.parametrize("stream", [False, True])
async def test_choices_that_are_one_answer(stream: bool) -> None:
    """Where one choice was requested, text in the first and calls in the next are one answer."""
    whole = {
        "choices": [
            {"index": 0, "message": {"content": "Looking."}, "finish_reason": "stop"},
            {"index": 1, "message": {"tool_calls": [LOOK]}, "finish_reason": "tool_calls"},
        ]
    }
    parts = [
        choice(0, content="Looking."),
        choice(1, tool_calls=[LOOK]),
        choice(0, "stop"),
        choice(1, "tool_calls"),
        "[DONE]",
    ]
    response, events, _ = await send_any([sse(parts) if stream else raw(200, whole)], stream=stream)
    assert response.message.content == "Looking."
    assert [one.name for one in response.message.tool_calls] == ["look"]
    assert (response.finish, response.choices) == ("tool_calls", ())
    if stream:
        assert TextDelta(at=AT, text="Looking.") in events
        assert ToolCallDelta(at=AT.call(0), name="look", arguments="{}") in events


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_of_several_choices_run_beside_each_other(stream: bool) -> None:
    """Calls of several choices have ids and addresses of their own."""
    choices = [
        {"index": i, "message": {"tool_calls": [LOOK]}, "finish_reason": "stop"} for i in (0, 1)
    ]
    parts = [choice(0, "stop", tool_calls=[LOOK]), choice(1, "stop", tool_calls=[LOOK]), "[DONE]"]
    answer = sse(parts) if stream else raw(200, {"choices": choices})
    response, events, _ = await send_any([answer], stream=stream)
    first, second = response.message.tool_calls
    assert first.id != second.id
    shown = [one.at for one in events if isinstance(one, ToolCallDelta)]
    assert shown == ([AT.call(0), AT.call(1)] if stream else [])


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_an_unfinished_choice_makes_the_answer_unfinished(reason: str) -> None:
    """Of an answer in several choices no call runs if one of them was cut or filtered."""
    parts = [choice(0, "stop", content="Hi"), choice(1, reason, tool_calls=[LOOK]), "[DONE]"]
    response, _ = await send(sse(parts))
    assert response.finish == reason


@pytest.mark.parametrize("settings", [{"n": 2}, {"extra_body": {"n": 2}}])
async def test_choices_that_were_requested(settings: Any) -> None:
    """With `n`, choices are alternatives and stay apart."""
    body = {"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}
    request = replace(REQUEST, settings=settings)
    response, _, _ = await send_any([raw(200, body)], request)
    assert [response.message.content, *(one.content for one in response.choices)] == ["a", "b"]


@pytest.mark.parametrize(
    "empty", [{"index": 0}, {"function": {}}, {"id": "x", "function": {"name": None}}, None, "x"]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_objects_that_are_not_calls(empty: Any, stream: bool) -> None:
    """What has neither name nor arguments is dropped with a warning; real calls run."""
    call_ = {"id": "i1", "index": 1, "function": {"name": "look", "arguments": "{}"}}
    message = {"tool_calls": [empty, call_]}
    choices = [{"index": 0, "delta" if stream else "message": message, "finish_reason": "stop"}]
    answer = sse([{"choices": choices}, "[DONE]"]) if stream else raw(200, {"choices": choices})
    response, events, _ = await send_any([answer], stream=stream)
    assert [one.name for one in response.message.tool_calls] == ["look"]
    if not stream:
        (warning,) = (one for one in events if isinstance(one, Warned))
        assert warning.code == "dropped_tool_calls"


async def test_reasoning_details_and_thought_signatures() -> None:
    """Pieces of one block are merged, and unknown fields of calls are kept."""
    signature = {"google": {"thought_signature": "s1"}}
    response, _ = await send(
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
    """A stream of nothing but white space is closed with advice."""
    blanks = [delta(content=" \n" * 500)] * 20
    with pytest.raises(OutputTruncated, match="JSON") as caught:
        await send(sse([delta(content='{"a": 1'), *blanks]), retries=3)
    assert caught.value.text == '{"a": 1'


async def test_a_complete_answer_instead_of_a_stream() -> None:
    """A server that does not stream is understood, and its answer shown in one piece."""
    body = {"choices": [{"message": {"role": "assistant", "content": "Hi"}}]}
    response, events = await send(raw(200, json.dumps(body)))
    assert response.message.content == "Hi"
    assert TextDelta(at=AT, text="Hi") in events


async def test_call_deltas_have_the_address_of_their_call() -> None:
    """Deltas of parallel calls can be distinguished by address."""
    _, events = await send(
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


async def test_both_forms_of_an_answer_decode_alike() -> None:
    """An answer gives the same response streamed and in one piece."""
    script = [reply("Hello", calls=[("a", {"x": 1})])] * 2
    with ChatServer(script) as server:
        async with ChatModel("any", base_url=server.base_url) as model:
            whole = await model.request(REQUEST)
            streamed = await model.request(REQUEST, stream=True)
    assert whole.message.content == streamed.message.content == "Hello"
    assert whole.usage == streamed.usage
    assert [one.arguments for one in whole.message.tool_calls] == ['{"x":1}']
    assert [one.arguments for one in streamed.message.tool_calls] == ['{"x":1}']


async def test_what_stands_beside_the_choices_is_kept() -> None:
    """The last value, objects field by field, lists as they go on; what comes again once."""
    first = delta(content="Hi") | {
        "provider": "A",
        "x_groq": {"id": "r1"},
        "citations": ["u1"],
        "agentkit": {"run": "r", "steps": [{"text": "a"}]},
        "prompt_filter_results": [{"prompt_index": 0}],
    }
    second = delta(content=" you") | {
        "provider": "B",
        "x_groq": None,
        "citations": ["u1", "u2"],
        "agentkit": {"steps": [{"text": "b"}]},
    }
    last = delta("stop") | {
        "x_groq": {"seed": 1},
        "citations": ["u1", "u2"],
        "agentkit": {"status": "ok"},
    }
    response, _ = await send(sse([first, second, *[last] * 50]))
    assert response.extra == {
        "provider": "B",
        "x_groq": {"id": "r1", "seed": 1},
        "citations": ["u1", "u2"],
        "agentkit": {"run": "r", "steps": [{"text": "a"}, {"text": "b"}], "status": "ok"},
        "prompt_filter_results": [{"prompt_index": 0}],
    }
    assert response.message.text == "Hi you"
