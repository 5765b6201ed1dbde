"""Sessions: several runs on one history, whatever ends them."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from agentkit import Agent, Decision, RunContext, Session, UserMessage, tool
from agentkit.errors import (
    ConfigurationError,
    InvalidHistory,
    LimitExceeded,
    ModelUnreachable,
    ReplayDivergence,
)
from agentkit.history import check_history
from agentkit.messages import AssistantMessage, ModelRequest, ModelResponse, Usage
from agentkit.settings import Limits
from agentkit.testing import FunctionModel, ScriptedModel

pytestmark = pytest.mark.anyio


def texts(session: Session[Any]) -> list[str]:
    return [message.text for message in session.messages]


def count(request: ModelRequest) -> ModelResponse:
    """A model that says how many messages it was sent."""
    message = AssistantMessage(content=f"{len(request.messages)} messages")
    return ModelResponse(message=message, usage=Usage(requests=1, input_tokens=10))


async def test_each_run_goes_on_from_the_last() -> None:
    """Messages and usage add up."""
    session = Session(Agent(FunctionModel(count)))
    first = await session.run("one")
    second = await session.run("two")
    assert (first.output, second.output) == ("1 messages", "3 messages")
    assert texts(session) == ["one", "1 messages", "two", "3 messages"]
    assert session.usage == Usage(requests=2, input_tokens=20)
    assert session.messages == second.messages


def test_run_sync() -> None:
    """Without async, too."""
    session = Session(Agent(FunctionModel(count)))
    session.run_sync("one")
    assert session.run_sync("two").output == "3 messages"


async def test_stream_takes_the_messages_over_at_its_end() -> None:
    """Inside the block the history is the old one."""
    session = Session(Agent(FunctionModel(count)))
    async with session.stream("one") as run:
        pieces = [piece async for piece in run.text()]
        assert session.messages == ()
    assert "".join(pieces) == "1 messages"
    assert texts(session) == ["one", "1 messages"]
    assert run.result.output == "1 messages"


async def test_options_of_the_session_and_of_a_run() -> None:
    """Those of the run win."""
    seen: list[Any] = []

    @tool
    def look(context: RunContext[Any]) -> str:
        seen.append(context.deps)
        return "seen"

    model = ScriptedModel([[("look", {})], "a", [("look", {})], "b"])
    session = Session(Agent(model, tools=[look]), deps="session")
    await session.run("one")
    await session.run("two", deps="run")
    assert seen == ["session", "run"]


async def test_after_an_error_the_session_goes_on() -> None:
    """What was asked is kept; None asks again."""
    session = Session(Agent(ScriptedModel([ModelUnreachable("no route"), "Hello"])))
    with pytest.raises(ModelUnreachable):
        await session.run("Hi")
    assert session.messages == (UserMessage(content="Hi"),)
    await session.run(None)
    assert texts(session) == ["Hi", "Hello"]


async def test_after_a_limit_what_was_done_is_kept() -> None:
    """The results of the tools that ran are there for the next run."""

    @tool
    def look() -> str:
        return "seen"

    model = ScriptedModel([[("look", {})], "Done."])
    session = Session(Agent(model, tools=[look]))
    with pytest.raises(LimitExceeded):
        await session.run("Go", limits=Limits(steps=1))
    assert texts(session) == ["Go", "", "seen"]
    assert (await session.run(None)).output == "Done."


@tool
async def hang(context: RunContext[anyio.CancelScope]) -> str:
    """Never come back: have the run cancelled from outside."""
    context.deps.cancel()
    await anyio.sleep_forever()
    raise AssertionError


@pytest.mark.parametrize("way", ["run", "stream", "left early"])
async def test_after_a_cancellation_the_history_is_valid(way: str) -> None:
    """The call that was under way is answered as cancelled."""
    session = Session(Agent(ScriptedModel([[("hang", {})], "Done."]), tools=[hang]))
    with anyio.CancelScope() as scope:
        if way == "run":
            await session.run("Go", deps=scope)
        else:
            async with session.stream("Go", deps=scope) as run:
                async for event in run:
                    if way == "left early" and "ToolCallStarted" in repr(event):
                        break
    assert [message.to_json()["role"] for message in session.messages] == [
        "user",
        "assistant",
        "tool",
    ]
    check_history(session.messages)
    assert (await session.run("And now?", deps=scope)).output == "Done."


async def test_one_run_at_a_time() -> None:
    """A second run would go on without the first one's messages."""
    session = Session(Agent(FunctionModel(count)))
    async with session.stream("one") as run:
        with pytest.raises(ConfigurationError, match="in a run"):
            await session.run("two")
        async for _ in run:
            pass
    await session.run("three")


async def test_history_is_the_sessions_own() -> None:
    """A session begins with a history, and no run brings another."""
    session = Session(Agent(FunctionModel(count)), history=[{"role": "user", "content": "zero"}])
    assert (await session.run("one")).output == "2 messages"
    with pytest.raises(TypeError, match="history"):
        await session.run("two", history=())  # type: ignore[call-arg]


def test_invalid_history_is_refused_or_repaired() -> None:
    """At the beginning, not at the first run."""
    orphan: list[Any] = [{"role": "tool", "tool_call_id": "a", "content": "found"}]
    with pytest.raises(InvalidHistory):
        Session(Agent("local"), history=orphan)
    assert Session(Agent("local"), history=orphan, repair=True).messages == ()


async def test_stored_and_loaded() -> None:
    """A session goes on in another process."""
    agent = Agent(FunctionModel(count))
    session = Session(agent)
    await session.run("one")
    stored = json.dumps(session.to_json())
    loaded = Session.from_json(agent, json.loads(stored), deps=1)
    assert (loaded.messages, loaded.usage) == (session.messages, session.usage)
    assert (await loaded.run("two")).output == "3 messages"


async def test_paused_run_is_resumed_outside_and_taken() -> None:
    """Its usage counts once."""

    @tool(approval=True)
    def delete() -> str:
        return "deleted"

    agent = Agent(ScriptedModel([[("delete", {})], "Done."]), tools=[delete])
    session = Session(agent)
    paused = await session.run("Go")
    assert paused.status == "paused"
    assert paused.trace is not None
    assert texts(session) == ["Go"]
    decisions = {one.at: Decision.approve() for one in paused.pending}
    session.adopt(await agent.resume(paused.trace, decisions=decisions))
    assert texts(session) == ["Go", "", "deleted", "Done."]
    assert session.usage.requests == 2


async def test_after_a_bug_of_the_application_the_session_goes_on() -> None:
    """What the run had reached is kept, whatever its own code raised."""

    def broken(output: str) -> None:
        raise KeyError("a bug")

    session = Session(Agent(ScriptedModel(["Hi"]), output_validators=[broken]))
    with pytest.raises(KeyError):
        await session.run("Hello")
    assert ([m.text for m in session.messages], session.usage.requests) == (["Hello"], 1)


@tool(approval=True)
def delete(path: str) -> str:
    """Delete a file."""
    return f"deleted {path}"


async def test_a_paused_run_goes_on_in_its_session() -> None:
    """The messages, the usage and the options of the session are those of the whole run."""
    events: list[Any] = []
    model = ScriptedModel(["Hello", [("delete", {"path": "a"})], "Done", "Bye"])
    session = Session(Agent(model, tools=[delete]), on_event=events.append)
    await session.run("Hi")
    paused = await session.run("delete a")
    assert (paused.status, session.usage.requests) == ("paused", 1)
    events.clear()
    result = await session.resume(paused.trace, decisions={paused.pending[0].at: True})
    assert result.output == "Done"
    assert events
    assert texts(session) == ["Hi", "Hello", "delete a", "", "deleted a", "Done"]
    assert session.usage.requests == 3
    assert (await session.run("Thanks")).output == "Bye"


async def test_a_paused_run_is_streamed_on_in_its_session() -> None:
    """The session has the messages when the block was left."""
    model = ScriptedModel([[("delete", {"path": "a"})], "Done"])
    session = Session(Agent(model, tools=[delete]))
    paused = await session.run("delete a")
    decisions = {paused.pending[0].at: Decision.deny("No.")}
    async with session.resume_stream(paused.trace, decisions=decisions) as run:
        with pytest.raises(ConfigurationError, match="The session is in a run"):
            await session.run("more")
        assert "".join([piece async for piece in run.text()]) == "Done"
    assert run.result.output == "Done"
    assert texts(session) == ["delete a", "", "Denied: No.", "Done"]


def test_a_session_resumes_without_async() -> None:
    """As it runs."""
    model = ScriptedModel([[("delete", {"path": "a"})], "Done"])
    session = Session(Agent(model, tools=[delete]))
    paused = session.run_sync("delete a")
    assert session.resume_sync(paused.trace, decisions={paused.pending[0].at: True}).output == (
        "Done"
    )


async def test_a_resume_that_fails_takes_nothing_from_the_session() -> None:
    """An agent that is another one by now does not come as far as the run had."""
    model = ScriptedModel([[("delete", {"path": "a"})], "Done"])
    session = Session(Agent(model, tools=[delete]))
    paused = await session.run("delete a")
    messages = session.messages
    session.agent = session.agent.with_(instructions="Another one.")
    with pytest.raises(ReplayDivergence):
        await session.resume(paused.trace, decisions={paused.pending[0].at: True})
    assert session.messages == messages
    with pytest.raises(ConfigurationError, match="No call waits"):
        await session.resume(paused.trace, decisions={"/agent/m7/t0": True})
    session.agent = session.agent.with_(instructions=None)
    result = await session.resume(paused.trace, decisions={paused.pending[0].at: True})
    assert result.output == "Done"
