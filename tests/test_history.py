"""Histories: what is accepted, what is repaired, and how they are made shorter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit import Agent, Session, tool
from agentkit.errors import ConfigurationError, InvalidHistory, InvalidResponse, UnknownModel
from agentkit.history import (
    check_history,
    drop_tool_output,
    keep_last,
    repair_history,
    summarise,
)
from agentkit.messages import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    ModelRequest,
    ModelResponse,
    OtherPart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
    dump_messages,
    load_messages,
)
from agentkit.testing import FunctionModel, ScriptedModel

anyio_test = pytest.mark.anyio
NO_RESULT = "No result: the earlier run ended before this call did."
NOTE = "(This output was left out to save space. Call the tool again if it is needed.)"


def user(text: str = "Hi") -> UserMessage:
    return UserMessage(content=text)


def calls(*ids: str, text: str | None = None) -> AssistantMessage:
    made = tuple(ToolCall(id=id_, name="look", arguments="{}") for id_ in ids)
    return AssistantMessage(content=text, tool_calls=made)


def answer(id_: str, text: str = "found") -> ToolMessage:
    return ToolMessage(call_id=id_, name="look", content=text)


def says(text: str = "Hello") -> AssistantMessage:
    return AssistantMessage(content=text)


# Checked


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (user(),),
        (SystemMessage(content="Be brief."), user(), says(), user()),
        (user(), calls("a", "b"), answer("a"), answer("b"), says()),
        (user(), calls("a"), answer("a"), calls("a"), answer("a")),
        (user(), AssistantMessage(refusal="No.")),
        (user(), AssistantMessage(extra={"audio": {"id": "x"}})),
    ],
)
def test_valid_histories(messages: Sequence[Message]) -> None:
    """They pass, and repairing changes nothing. Ids may come again in a later batch."""
    check_history(messages)
    assert repair_history(messages) == tuple(messages)


@pytest.mark.parametrize(
    ("messages", "index", "problem"),
    [
        ([user(), answer("a")], 1, "answers 'a' where no call is open"),
        ([user(), calls("a")], 1, "call 'a' of look is not answered"),
        ([user(), calls("a", "b"), answer("a"), user()], 1, "call 'b' of look is not answered"),
        ([calls("a", "a"), answer("a"), answer("a")], 0, "Two calls of one message have one id"),
        ([calls("a"), answer("a"), answer("a")], 2, "answers 'a' where no call is open"),
        ([calls("a"), user(), answer("a")], 0, "not answered right after it"),
        ([calls("a", "b"), answer("b"), answer("a")], 1, "where the answer to 'a' is expected"),
        ([user(), AssistantMessage()], 1, "The assistant message is empty"),
        ([user(), AssistantMessage(content="", reasoning="Hm.")], 1, "is empty"),
    ],
)
def test_invalid_histories(messages: list[Message], index: int, problem: str) -> None:
    """The error names the index and what is wrong there."""
    with pytest.raises(InvalidHistory, match=problem) as caught:
        check_history(messages)
    assert caught.value.index == index
    assert f"index {index}" in caught.value.message


@anyio_test
async def test_history_is_checked_before_anything_is_asked() -> None:
    """A plain dict that answers no call is refused, and the model hears nothing."""
    model = ScriptedModel(["Hello"])
    history: list[Any] = [user(), {"role": "tool", "tool_call_id": "a", "content": "found"}]
    with pytest.raises(InvalidHistory, match="repair=True"):
        await Agent(model).run("Hi", history=history)
    assert model.requests == ()


@anyio_test
async def test_history_is_repaired_on_request() -> None:
    """With repair=True the run goes on from a valid history."""
    model = ScriptedModel(["Hello"])
    result = await Agent(model).run("Hi", history=[user(), calls("a")], repair=True)
    assert result.messages[:3] == (user(), calls("a"), answer("a", NO_RESULT))
    assert model.requests[0].messages == result.messages[:4]


# Repaired


@pytest.mark.parametrize(
    ("messages", "repaired"),
    [
        pytest.param([user(), answer("a")], [user()], id="orphan"),
        pytest.param([calls("a")], [calls("a"), answer("a", NO_RESULT)], id="unanswered"),
        pytest.param(
            [calls("a", "b"), answer("b", "2"), user(), answer("a", "1"), answer("a", "3")],
            [calls("a", "b"), answer("a", "1"), answer("b", "2"), user()],
            id="displaced, and one too many",
        ),
        pytest.param(
            [calls("a"), user(), calls("a"), answer("a", "2")],
            [calls("a"), answer("a", NO_RESULT), user(), calls("a"), answer("a", "2")],
            id="the last open call gets the answer",
        ),
        pytest.param(
            [calls("a", "a", "a-1"), answer("a", "1"), answer("a", "2"), answer("a-1", "3")],
            [
                calls("a", "a-2", "a-1"),
                answer("a", "1"),
                answer("a-2", "2"),
                answer("a-1", "3"),
            ],
            id="equal ids",
        ),
        pytest.param([user(), AssistantMessage(), user("Ho")], [user(), user("Ho")], id="empty"),
    ],
)
def test_repair(messages: list[Message], repaired: list[Message]) -> None:
    """Each answer goes to its call; what has no place is dropped, what is missing is said."""
    assert repair_history(messages) == tuple(repaired)


ids = st.sampled_from(["a", "b", "a-1"])
any_message: st.SearchStrategy[Message] = st.one_of(
    st.builds(user, st.sampled_from(["Hi", "Ho"])),
    st.builds(SystemMessage, content=st.just("Be brief.")),
    st.builds(lambda some: calls(*some), st.lists(ids, max_size=3)),
    st.builds(says),
    st.builds(answer, ids, st.sampled_from(["1", "2", "x" * 100])),
)
any_history = st.lists(any_message, max_size=14)
valid_history = any_history.map(repair_history)


@given(any_history)
def test_repaired_histories_are_valid(messages: list[Message]) -> None:
    """Whatever it was before."""
    check_history(repair_history(messages))


@given(any_history)
def test_repair_leaves_valid_histories_alone(messages: list[Message]) -> None:
    """What the check accepts comes back as it is; so a second repair changes nothing."""
    repaired = repair_history(messages)
    assert repair_history(repaired) == repaired
    try:
        check_history(messages)
    except InvalidHistory:
        assert repaired != tuple(messages)
    else:
        assert repaired == tuple(messages)


# Made shorter

LONG = "x" * 100
TURN = (user("Count."), calls("a", "b"), answer("a", LONG), answer("b", LONG))
MORE = (calls("c"), answer("c", LONG), says("Three."))


def test_drop_tool_output() -> None:
    """All but the newest results become a note; calls and short results stay."""
    assert drop_tool_output(keep=1)((*TURN, *MORE)) == (
        *TURN[:2],
        answer("a", NOTE),
        answer("b", NOTE),
        *MORE,
    )
    assert drop_tool_output(keep=0)((calls("a"), answer("a", "7"))) == (
        calls("a"),
        answer("a", "7"),
    )


def test_keep_last() -> None:
    """A batch stays whole, and the question that is worked on stays before it."""
    rules = SystemMessage(content="Be brief.")
    history = (rules, user("Hi"), says(), *TURN, *MORE)
    assert keep_last(2)(history) == (rules, user("Count."), *MORE)
    assert keep_last(4)(history) == (rules, *TURN, *MORE)
    assert keep_last(6)(history) == (rules, *TURN, *MORE)
    assert keep_last(50)(history) == history


@given(valid_history, st.integers(min_value=1, max_value=15))
def test_strategies_keep_histories_valid(messages: tuple[Message, ...], n: int) -> None:
    """Valid before, valid after, for each n; and a second time changes nothing."""
    for shorten in (keep_last(n), drop_tool_output(n)):
        shorter = shorten(messages)
        check_history(shorter)
        assert shorten(shorter) == shorter
        assert len(shorter) <= len(messages)


@anyio_test
async def test_summarise_keeps_histories_valid() -> None:
    """Wherever a history is cut, calls keep their answers."""
    history = (SystemMessage(content="Be brief."), user("Hi"), says(), *TURN, *MORE)
    for keep in range(1, len(history) + 1):
        shorter = await summarise(ScriptedModel(["They counted."]), keep=keep)(history)
        check_history(shorter)


@anyio_test
async def test_summarise() -> None:
    """The model reads what is dropped, as text, and its summary stands in its place."""
    writer = ScriptedModel(["They said hello."])
    history = (user("Hi"), *MORE[:2], says(), *TURN, *MORE)
    shorter = await summarise(writer, keep=3, instructions="Sum up.")(history)
    summary = "Summary of the conversation so far:\n\nThey said hello."
    assert shorter == (user(summary), TURN[0], *MORE)
    (request,) = writer.requests
    assert request.tools == ()
    assert request.messages[0] == SystemMessage(content="Sum up.")
    assert request.messages[1].text == (
        f"User: Hi\n\nAssistant calls look: {{}}\n\nResult of look: {LONG}\n\nAssistant: Hello"
        f"\n\nAssistant calls look: {{}}\n\nAssistant calls look: {{}}\n\n"
        f"Result of look: {LONG}\n\nResult of look: {LONG}"
    )


@anyio_test
async def test_summarise_when_there_is_nothing_to_drop() -> None:
    """No model is asked."""
    assert await summarise(ScriptedModel([]), keep=9)(TURN) == TURN


@anyio_test
async def test_summary_that_is_none() -> None:
    """An answer that is cut off does not replace a history."""
    cut = ModelResponse(message=says("They"), finish="length")
    with pytest.raises(InvalidResponse, match="finish='length'"):
        await summarise(ScriptedModel([cut]), keep=1)((*TURN, *MORE))


def test_strategies_that_cannot_be() -> None:
    """They are refused at once."""
    with pytest.raises(ConfigurationError, match=r"keep=-1 .* 0 or more"):
        drop_tool_output(-1)
    with pytest.raises(ConfigurationError, match=r"n=0 .* 1 or more"):
        keep_last(0)
    with pytest.raises(UnknownModel):
        summarise("nobody:nothing")


# In a run


@tool(effect="read")
def look(number: int) -> str:
    """Look."""
    return f"{number}: {LONG}"


def looking(request: ModelRequest) -> ModelResponse:
    """A model that looks four times; each message weighs 100 tokens."""
    done = sum(isinstance(one, AssistantMessage) for one in request.messages)
    if NOTE in [one.text for one in request.messages] and done == 4:
        return ModelResponse(message=says("Done."), usage=Usage(requests=1))
    call = ToolCall(id=f"c{done}", name="look", arguments=f'{{"number": {done}}}')
    usage = Usage(requests=1, input_tokens=100 * len(request.messages))
    return ModelResponse(
        message=AssistantMessage(tool_calls=(call,)), finish="tool_calls", usage=usage
    )


@anyio_test
async def test_compaction_in_a_run_live_and_replayed() -> None:
    """Above the threshold the history becomes shorter; a replay calls no strategy."""
    model = FunctionModel(looking)
    shorten = drop_tool_output(keep=1)
    agent = Agent(model, tools=[look], compact=shorten, compact_above=450)
    recorded = await agent.run("Count.")
    notes = [[one.text for one in request.messages].count(NOTE) for request in model.requests]
    assert notes == [0, 0, 0, 2, 3]
    assert [one.text for one in recorded.messages].count(NOTE) == 3
    assert [one.text for one in recorded.new_messages].count(NOTE) == 0
    assert recorded.trace is not None

    def forbidden(messages: Sequence[Message]) -> None:
        raise AssertionError("a replay calls no strategy")

    silent = Agent(
        ScriptedModel([], name="function"), tools=[look], compact=forbidden, compact_above=450
    )
    assert await silent.replay(recorded.trace) == recorded


@anyio_test
async def test_summary_in_a_run_live_and_replayed() -> None:
    """An async strategy shortens what the next step sends, and is recorded like a sync one."""
    big = ModelResponse(
        message=calls("c"), finish="tool_calls", usage=Usage(requests=1, input_tokens=900)
    )
    look_once = Agent(
        ScriptedModel([big, "Done."]),
        tools=[look],
        compact=summarise(ScriptedModel(["They counted."]), keep=1),
        compact_above=500,
    )
    recorded = await look_once.run("Go on.", history=[user("Hi"), says()])
    assert [one.text for one in recorded.messages[:2]] == [
        "Summary of the conversation so far:\n\nThey counted.",
        "Go on.",
    ]
    check_history(recorded.messages)
    assert recorded.trace is not None
    silent = look_once.with_(model=ScriptedModel([]), compact=summarise(ScriptedModel([]), keep=1))
    assert await silent.replay(recorded.trace) == recorded


@anyio_test
async def test_compaction_that_splits_a_call_ends_the_run() -> None:
    """A strategy of one's own is checked; the run keeps the history that it had."""
    model = FunctionModel(looking)
    agent = Agent(model, tools=[look], compact=lambda messages: messages[:-1], compact_above=1)
    with pytest.raises(InvalidHistory, match="'c0' of look is not answered") as caught:
        await agent.run("Count.")
    assert caught.value.result is not None
    check_history(caught.value.result.messages)


# Stored

texts = st.text(max_size=5)
parts = st.one_of(
    st.builds(TextPart, text=texts),
    st.builds(ImagePart, url=texts, detail=st.sampled_from([None, "low"])),
    st.builds(AudioPart, data=texts, format=texts),
    st.builds(FilePart, file_id=texts),
    st.builds(OtherPart, data=st.just({"type": "video", "seconds": [1, None, 0.5]})),
)
contents = texts | st.lists(parts, max_size=3).map(tuple)
names = st.none() | texts
tool_calls = st.builds(
    ToolCall, id=texts, name=texts, arguments=texts, extra=st.just({}) | st.just({"index": 0})
)
messages_of_all_kinds = st.one_of(
    st.builds(SystemMessage, content=contents, name=names),
    st.builds(UserMessage, content=contents, name=names),
    st.builds(ToolMessage, call_id=texts, content=contents, name=names),
    st.builds(
        AssistantMessage,
        content=st.none() | contents,
        tool_calls=st.lists(tool_calls, max_size=3).map(tuple),
        refusal=st.none() | texts,
        reasoning=st.none() | texts,
        name=names,
        extra=st.dictionaries(st.just("annotations"), st.lists(st.integers())),
    ),
)


@given(st.lists(messages_of_all_kinds, max_size=5).map(tuple))
def test_stored_histories_come_back_equal(messages: tuple[Message, ...]) -> None:
    """load_messages(dump_messages(x)) == x, as text and as bytes."""
    text = dump_messages(messages)
    assert load_messages(text) == messages
    assert load_messages(text.encode("ascii")) == messages


def test_lone_surrogates_are_stored() -> None:
    """What a model breaks off in the middle of a character can be written to any file."""
    messages = (says("\ud83d"),)
    assert load_messages(dump_messages(messages).encode("ascii")) == messages


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"role": "cook", "content": ""}]'])
def test_stored_histories_that_are_none(text: str) -> None:
    """Text that holds no history is an InvalidHistory too."""
    with pytest.raises(InvalidHistory):
        load_messages(text)


NESTED: Any = []
for _ in range(3000):
    NESTED = [NESTED]

NO_HISTORIES: dict[str, tuple[Any, str]] = {
    "a number": ([5], "is 5"),
    "a text": (["hello"], "is 'hello'"),
    "nothing": ([None], "is None"),
    "a list": ([["x"]], "type list"),
    "a part": ([ImagePart(url="x")], "type ImagePart"),
    "no role": ([{"content": "x"}], "has role None"),
    "an unknown role": ([{"role": "bad", "content": "x"}], "has role 'bad'"),
    "a role of another type": ([{"role": ["user"], "content": "x"}], "has role"),
    "a number for text": ([{"role": "user", "content": 5}], "int"),
    "a number for a part": ([{"role": "user", "content": [5]}], "list of parts"),
    "a number in a part": ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "'text'"),
    "a part without a type": ([{"role": "user", "content": [{"a": 1}]}], "part of type None"),
    "no image": ([{"role": "user", "content": [{"type": "image_url"}]}], "'image_url'"),
    "a detail": (
        [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "", "detail": 5}}],
            }
        ],
        "ImagePart.detail",
    ),
    "a name": ([{"role": "user", "content": "x", "name": 5}], "UserMessage.name"),
    "calls": ([{"role": "assistant", "tool_calls": 5}], "tool_calls"),
    "a call": ([{"role": "assistant", "tool_calls": ["x"]}], "is 'x'"),
    "refusal": ([{"role": "assistant", "refusal": 5}], "refusal"),
    "reasoning": ([{"role": "assistant", "content": "x", "reasoning": {}}], "reasoning"),
    "an id": ([{"role": "tool", "content": "x", "tool_call_id": 5}], "call_id"),
    "deep": ([{"role": "assistant", "content": "x", "more": NESTED}], "extra"),
    "a deep part": ([{"role": "user", "content": [{"type": "x", "x": NESTED}]}], "OtherPart"),
    "an object": ([{"role": "assistant", "content": "x", "more": object()}], "extra"),
    "content of a message": ([UserMessage(content=5)], "content"),  # type: ignore[arg-type]
    "no content of a message": ([UserMessage(content=None)], "content"),  # type: ignore[arg-type]
    "a part of a message": ([UserMessage(content=("x",))], "holds 'x'"),  # type: ignore[arg-type]
    "a text of a part": ([UserMessage(content=(TextPart(text=5),))], "TextPart.text"),  # type: ignore[arg-type]
    "calls of a message": ([AssistantMessage(tool_calls=5)], "tool_calls"),  # type: ignore[arg-type]
    "a call of a message": ([AssistantMessage(tool_calls=(5,))], "holds 5"),  # type: ignore[arg-type]
    "arguments": (
        [AssistantMessage(tool_calls=(ToolCall(id="a", name="a", arguments={}),))],  # type: ignore[arg-type]
        "ToolCall.arguments",
    ),
    "extra": ([AssistantMessage(content="x", extra=5)], "extra"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", NO_HISTORIES)
def test_a_history_of_anything_is_refused_with_index_and_reason(name: str) -> None:
    """By a run, a session, and every function that takes a history."""
    items, reason = NO_HISTORIES[name]
    history = [UserMessage(content="first"), AssistantMessage(content="answer"), *items]
    agent = Agent(ScriptedModel([]))
    for use in (
        lambda: agent.run_sync("go", history=history),
        lambda: Session(agent, history=history),
        lambda: check_history(history),
        lambda: repair_history(history),
        lambda: dump_messages(history),
    ):
        with pytest.raises(InvalidHistory, match=re.escape(reason)) as caught:
            use()
        assert caught.value.index == 2


@pytest.mark.parametrize("value", [5, "text", b"text", {"role": "user"}, None])
def test_what_is_no_list_is_no_history(value: Any) -> None:
    """The error says so."""
    for use in (check_history, repair_history, dump_messages):
        with pytest.raises(InvalidHistory, match="expected a list of messages"):
            use(value)
    for text in ("[" * 9999, "{}", b"\xff", "[5]"):
        with pytest.raises(InvalidHistory):
            load_messages(text)


@pytest.mark.anyio
async def test_no_history() -> None:
    """None is no history, as the reference says, for runs and for sessions."""
    model = ScriptedModel(["a", "b", "c"])
    result = await Agent(model).run("Hi", history=None)
    assert [one.text for one in result.messages] == ["Hi", "a"]
    async with Agent(model).stream("Hi", history=None) as run:
        assert [event async for event in run]
    assert run.result.output == "b"
    session = Session(Agent(model), history=None)
    assert (await session.run("Hi")).output == "c"
    with pytest.raises(ConfigurationError, match="give a prompt or a history"):
        await Agent(model).run(None, history=None)
