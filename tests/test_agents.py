"""More agents than one: tools that run agents, and what goes through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from agentkit import Agent, Limits, RunContext, ToolMessage, Trace, Usage, tool
from agentkit.errors import LimitExceeded, ModelUnreachable
from agentkit.messages import AssistantMessage, ModelResponse
from agentkit.replay import replay
from agentkit.testing import FunctionModel, ScriptedModel

pytestmark = pytest.mark.anyio


def told(messages: Any) -> list[str]:
    """What the tools told the model."""
    return [message.text for message in messages if isinstance(message, ToolMessage)]


def counted(text: str, tokens: int) -> ModelResponse:
    """An answer that cost tokens."""
    usage = Usage(requests=1, output_tokens=tokens)
    return ModelResponse(message=AssistantMessage(content=text), usage=usage)


def boss(*calls: Any, tools: Any, **options: Any) -> Agent[str]:
    """An agent that makes these calls and then says done."""
    return Agent(ScriptedModel([list(calls), "done"]), name="boss", tools=tools, **options)


async def test_agent_as_tool() -> None:
    """The outer model sends a prompt and reads the inner agent's output."""
    inner = Agent(FunctionModel(lambda request: request.messages[-1].text.upper()), name="shout")
    calls = [("shout", {"prompt": "hi"}), ("shout", {"prompt": "ho"})]
    outer = boss(*calls, tools=[inner.as_tool()])
    result = await outer.run("go")
    assert told(result.messages) == ["HI", "HO"]


async def test_nested_addresses_come_from_the_cause(tmp_path: Path) -> None:
    """Each use of a sub-agent has an address below the call that ran it."""
    inner = Agent(FunctionModel(lambda request: "ok"), name="inner")

    @tool
    async def twice(context: RunContext[None]) -> str:
        first = await context.run(inner, "one")
        second = await context.run(inner, "two")
        return first.output + second.output

    await boss(("twice", {}), tools=[twice]).run("go", trace=tmp_path / "run.jsonl")
    events = Trace.load(tmp_path / "run.jsonl").events
    starts = [event["at"] for event in events if event["event"] == "model.start"]
    assert starts == [
        "/boss/m0",
        "/boss/m0/t0/inner/m0",
        "/boss/m0/t0/inner~1/m0",
        "/boss/m1",
    ]


async def test_usage_of_sub_agents_counts(tmp_path: Path) -> None:
    """What sub-agents use is the run's, live and replayed."""
    inner = Agent(ScriptedModel([counted("a", 5), counted("b", 7)]), name="inner")
    calls = [("inner", {"prompt": "1"}), ("inner", {"prompt": "2"})]
    outer = boss(*calls, tools=[inner.as_tool()])
    result = await outer.run("go", trace=tmp_path / "run.jsonl")
    assert result.usage.requests == 4
    assert result.usage.output_tokens == 12
    silent = Agent(ScriptedModel([]), name="boss", tools=[inner.as_tool()])
    assert await replay(tmp_path / "run.jsonl", silent) == result


async def test_limits_are_shared() -> None:
    """A sub-agent cannot use more than is left to the run."""
    endless = FunctionModel(lambda request: [("again", {"number": len(request.messages)})])

    @tool
    def again(number: int) -> int:
        return number

    inner = Agent(endless, name="inner", tools=[again])
    outer = boss(("inner", {"prompt": "go"}), tools=[inner.as_tool()], limits=Limits(steps=5))
    with pytest.raises(LimitExceeded, match=r"Limits\.steps = 5") as caught:
        await outer.run("go")
    assert caught.value.result is not None
    assert caught.value.result.usage.requests == 5
    assert "Limits.steps" in told(caught.value.result.messages)[0]


async def test_failing_sub_agent_is_a_tool_error() -> None:
    """The outer agent goes on and reads what happened."""
    inner = Agent(ScriptedModel([ModelUnreachable("no route")]), name="inner")
    result = await boss(("inner", {"prompt": "x"}), tools=[inner.as_tool()]).run("go")
    assert told(result.messages) == ["ModelUnreachable: no route"]


async def test_cancellation_goes_through() -> None:
    """The deadline of the outer run ends the inner one, and both traces close."""

    @tool
    async def wait() -> None:
        await anyio.sleep_forever()

    inner = Agent(ScriptedModel([[("wait", {})]]), name="inner", tools=[wait])
    outer = boss(("inner", {"prompt": "x"}), tools=[inner.as_tool()])
    with pytest.raises(LimitExceeded, match="seconds") as caught:
        await outer.run("go", limits=Limits(seconds=0.05))
    trace = caught.value.trace
    assert trace is not None
    ends = {e["at"]: e["status"] for e in trace.events if e["event"] == "agent.end"}
    assert ends == {"/boss/m0/t0/inner": "cancelled", "/boss": "limit"}
    assert trace.status == "limit"


async def test_context_values_are_recorded() -> None:
    """The clock, UUIDs and dice of a tool stand in the trace."""
    seen: list[Any] = []

    @tool
    def look(context: RunContext[None]) -> str:
        seen.extend([context.now().isoformat(), str(context.uuid()), context.random()])
        seen.append(context.random())
        return "ok"

    result = await boss(("look", {}), tools=[look]).run("go")
    assert result.trace is not None
    dets = [event for event in result.trace.events if event["event"] == "det"]
    assert [event["value"] for event in dets] == seen
    assert [(e["kind"], e["use"]) for e in dets] == [
        ("now", 0),
        ("uuid", 0),
        ("random", 0),
        ("random", 1),
    ]
    assert {event["at"] for event in dets} == {"/boss/m0/t0"}


async def test_context_runs_agents_outside_a_run_too() -> None:
    """In a unit test of a tool, `context.run` just runs the agent."""
    inner = Agent(ScriptedModel(["hi"]), name="inner")
    assert (await RunContext().run(inner, "x")).output == "hi"
