"""The run loop over a real HTTP server, with everything that it promises."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from agentkit import (
    Agent,
    ChatModel,
    Decision,
    Handoff,
    Limits,
    RunContext,
    Session,
    ToolError,
    tool,
)
from agentkit.errors import LimitExceeded, OutputInvalid
from agentkit.events import Event, TextDelta
from agentkit.history import check_history
from agentkit.testing import HOLD, ChatServer, ServerRequest, reply, sse

pytestmark = pytest.mark.anyio
done: list[str] = []


@tool(effect="read")
async def look(city: str) -> str:
    """Look at a city."""
    await anyio.sleep(0.001 * len(city))
    return f"{city} is sunny"


@tool(approval=True)
def pay(amount: int) -> str:
    """Pay."""
    done.append(f"paid {amount}")
    return "paid"


class Plan(BaseModel):
    """A typed output."""

    city: str
    days: int


LOOK = reply(calls=[("look", {"city": "Paris"}), ("look", {"city": "Rome"})])


@asynccontextmanager
async def served(answers: Any) -> AsyncGenerator[tuple[ChatServer, ChatModel], None]:
    """A server that answers so, and a model that asks it."""
    done.clear()
    with ChatServer(answers) as server:
        async with ChatModel("m", base_url=server.base_url, api_key="k", retries=0) as model:
            yield server, model


async def test_four_ways_to_drive_one_loop() -> None:
    """run, stream and iter come to the same messages and ask the same of the server."""
    answers = [LOOK, reply("Both are sunny.")]
    async with served(answers * 3) as (server, model):
        agent = Agent(model, tools=[look], instructions="Be brief.")
        ran = await agent.run("go")
        async with agent.stream("go") as run:
            text = "".join([event.text async for event in run if isinstance(event, TextDelta)])
        async with agent.iter("go") as steps:
            async for _ in steps:
                pass
        asked = [request.json["messages"] for request in server.requests]
    assert ran.output == run.result.output == steps.result.output == text == "Both are sunny."
    assert [m.to_json()["role"] for m in ran.messages] == [
        *("user", "assistant", "tool", "tool", "assistant"),
    ]
    # The ids of calls are the server's: it gives others to each run.
    for one, other in ((0, 2), (0, 4), (1, 3), (1, 5)):
        assert [m["content"] for m in asked[one]] == [m["content"] for m in asked[other]]


def test_run_sync() -> None:
    """In a script, without an event loop around."""
    with ChatServer([LOOK, reply("Both.")]) as server:
        model = ChatModel("m", base_url=server.base_url, api_key="k")
        assert Agent(model, tools=[look]).run_sync("go").output == "Both."


async def test_cancelled_while_the_server_writes() -> None:
    """What has finished is kept, the history is valid, and the connection is given up."""
    half = sse([{"choices": [{"delta": {"content": "Once"}}]}, HOLD])
    async with (
        served([LOOK, half]) as (_, model),
        Agent(model, tools=[look]).stream("go") as run,
    ):
        async for event in run:
            if isinstance(event, TextDelta):
                run.cancel("enough")
    assert run.result.status == "cancelled"
    check_history(run.result.messages)
    assert len(run.result.messages) == 4


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(steps=1), "steps"),
        (Limits(tool_calls=1), "tool_calls"),
        (Limits(total_tokens=1), "total_tokens"),
        (Limits(seconds=0.05), "seconds"),
    ],
)
async def test_limits_are_checked_before_the_server_is_asked(limits: Limits, name: str) -> None:
    """The error names the limit and carries a valid history."""
    slow = reply("late", delay=HOLD) if name == "seconds" else reply("never")
    async with served([LOOK, slow]) as (_, model):
        with pytest.raises(LimitExceeded) as caught:
            await Agent(model, tools=[look], limits=limits).run("go")
    assert caught.value.limit == name
    assert caught.value.result is not None
    check_history(caught.value.result.messages)


async def test_typed_output_is_asked_for_again() -> None:
    """The server is told the exact problem, so often and not more."""
    async with served([reply('{"city": "Rome"}'), reply('{"city": "Rome", "days": 3}')]) as (
        server,
        model,
    ):
        result = await Agent(model, output=Plan).run("go")
        assert result.output == Plan(city="Rome", days=3)
        assert "days" in server.requests[1].json["messages"][-1]["content"]
    async with served([reply("x"), reply("y")]) as (_, model):
        with pytest.raises(OutputInvalid) as caught:
            await Agent(model, output=Plan).run("go")
    assert [one["text"] for one in caught.value.attempts] == ["x", "y"]


async def test_approval_in_another_agent_object(tmp_path: Path) -> None:
    """The run pauses, and another agent of the same kind goes on from the file."""
    path = tmp_path / "run.jsonl"
    async with served([reply(calls=[("pay", {"amount": 5})])]) as (_, model):
        paused = await Agent(model, tools=[pay]).run("go", trace=path)
    assert paused.status == "paused"
    assert done == []
    async with served([reply("Paid.")]) as (_, model):
        agent = Agent(model, tools=[pay])
        decisions = {paused.pending[0].at: Decision.edit({"amount": 4}, by="Ada")}
        result = await agent.resume(path, decisions=decisions)
        assert result.output == "Paid."
        assert done == ["paid 4"]
        assert await agent.replay(path) == result
    assert done == ["paid 4"]


async def test_agents_share_server_and_limits() -> None:
    """A sub-agent's calls count for the run, and a handoff goes on with the conversation."""

    def answer(request: ServerRequest) -> Any:
        first = request.json["messages"][0]["content"]
        said = request.json["messages"][-1]["content"]
        if first == "research":
            return reply(f"found {said}")
        if first == "sum up":
            return reply("All in all: fine.")
        if said == "go":
            return reply(calls=[("ask", {"topic": "a"}), ("ask", {"topic": "b"})])
        return reply(calls=[("transfer_to_writer", {})])

    async with served(answer) as (server, model):
        researcher = Agent(model, name="researcher", instructions="research")
        writer = Agent(model, name="writer", instructions="sum up")

        @tool
        async def ask(context: RunContext, topic: str) -> str:
            """Ask a researcher."""
            return (await context.run(researcher, topic)).output

        boss = Agent(model, name="boss", tools=[ask, Handoff(writer)], instructions="lead")
        result = await boss.run("go")
        assert result.output == "All in all: fine."
        assert [m.text for m in result.messages if m.to_json()["role"] == "tool"][:2] == [
            *("found a", "found b"),
        ]
        assert result.usage.requests == len(server.requests) == 5
        assert result.trace is not None
        assert await boss.replay(result.trace) == result
        with pytest.raises(LimitExceeded):
            await boss.run("go", limits=Limits(steps=2))


async def test_middleware_and_hooks_see_what_is_sent() -> None:
    """A handler around the real ones, and a listener beside them."""
    seen: list[str] = []

    class Watch:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def perform(self, effect: Any) -> Any:
            seen.append(str(effect.at))
            return await self.inner.perform(effect)

    events: list[Event] = []
    async with served([LOOK, reply("Both.")]) as (_, model):
        watched: Callable[[Any], Any] = Watch
        agent = Agent(model, tools=[look], middleware=[watched])
        await agent.run("go", on_event=events.append)
    assert sorted(seen) == ["/agent/m0", "/agent/m0/t0", "/agent/m0/t1", "/agent/m1"]
    assert {event.at for event in events} >= set(seen)


async def test_a_session_and_errors_of_tools() -> None:
    """Turn after turn on one history; what a tool says is told to the server."""

    @tool
    def guess(number: int) -> str:
        """Guess."""
        raise ToolError("Higher.")

    answers = [reply("Hello."), reply(calls=[("guess", {"number": 3})]), reply("I give up.")]
    async with served(answers) as (server, model):
        session = Session(Agent(model, tools=[guess]))
        await session.run("Hi")
        await session.run("Guess")
        told = server.requests[2].json["messages"]
    assert [m["role"] for m in told] == ["user", "assistant", "user", "assistant", "tool"]
    assert told[-1]["content"] == "Higher."
    assert session.usage.requests == 3
