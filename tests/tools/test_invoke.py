"""How a tool's function is run: what it does to the event loop."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest

from agentkit import Agent, RunResult, tool
from agentkit.testing import ScriptedModel

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentkit.tools.invoke.HELD", 0.2)


def block(seconds: float) -> None:
    time.sleep(seconds)


@tool
async def fetch(seconds: float, steps: int = 1) -> str:
    """Block, as a client that is not async does, after another step."""
    for _ in range(steps):
        await anyio.lowlevel.checkpoint()
        block(seconds)
    return "done"


@tool
async def crash() -> str:
    """Block, and fail."""
    block(0.25)
    raise KeyError("x")


@tool
async def count() -> AsyncIterator[int]:
    """Block between two values."""
    yield 1
    block(0.25)
    yield 2


@tool
def plain() -> str:
    """Block in a thread."""
    time.sleep(0.25)
    return "done"


@tool(timeout=0.01)
async def late() -> str:
    """Block longer than it may take, and then wait."""
    block(0.25)
    await anyio.sleep(60)
    return "never"


TOOLS = [fetch, crash, count, plain, late]


async def ran(*calls: tuple[str, dict[str, float]]) -> RunResult[str]:
    return await Agent(ScriptedModel([list(calls), "Done."]), tools=TOOLS).run("go")


@pytest.mark.parametrize("name", ["fetch", "crash", "count", "late"])
async def test_an_async_tool_that_blocks_is_named(name: str) -> None:
    """Once for a call, with what to do; also where it fails, yields, or runs out of time."""
    result = await ran((name, {"seconds": 0.25, "steps": 2} if name == "fetch" else {}))
    [held] = [one for one in result.warnings if one.code == "blocked_loop"]
    assert held.at == "/agent/m0/t0"
    assert held.text.startswith(f"{name} held the event loop for 0.")
    assert "Make it a plain `def`" in held.text


async def test_the_tool_around_it_is_not() -> None:
    """A sub-agent's tool blocks; the one that runs the sub-agent only waits."""
    inner = Agent(ScriptedModel([[("fetch", {"seconds": 0.25})], "x"]), name="inner", tools=[fetch])
    script = [[("inner", {"prompt": "go"})], "Done."]
    result = await Agent(ScriptedModel(script), tools=[inner.as_tool()]).run("go")
    assert [(one.at, one.code) for one in result.warnings] == [
        ("/agent/m0/t0/inner/m0/t0", "blocked_loop")
    ]


async def test_others_are_not() -> None:
    """Of a function in a thread, and of one that waits as it should."""
    result = await ran(("plain", {}), ("fetch", {"seconds": 0, "steps": 5}))
    assert [one.code for one in result.warnings] == []


async def test_a_replay_has_the_warning_and_does_not_differ() -> None:
    """Answered or run again, blocking or not any more."""
    result = await ran(("fetch", {"seconds": 0.25}))
    agent = Agent(ScriptedModel([]), tools=TOOLS)
    assert result.trace is not None
    assert [one.code for one in (await agent.replay(result.trace)).warnings] == ["blocked_loop"]

    @tool(name="fetch")
    async def quick(seconds: float, steps: int = 1) -> str:
        """Block, as a client that is not async does, after another step."""
        return "done"

    again = await agent.with_(tools=[quick, *TOOLS[1:]]).replay(
        result.trace, plan="tools_live", live=["fetch"]
    )
    assert (again.output, again.divergences, again.warnings) == ("Done.", (), ())
