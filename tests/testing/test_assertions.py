"""`assert_trace`: what it takes, and what it says."""

from __future__ import annotations

from typing import Any

import pytest

from agentkit import Agent, Limits, RunContext, tool
from agentkit.errors import ConfigurationError
from agentkit.testing import ScriptedModel, assert_trace
from agentkit.trace import Trace

pytestmark = pytest.mark.anyio
CALLS = [("look", {"city": "Paris"}), ("look", {"city": "Oslo"}), ("ask", {})]


@tool(effect="read")
def look(city: str) -> str:
    """Look at the weather of a city."""
    if city == "Oslo":
        raise ValueError("no such city")
    return f"rain in {city}"


async def ran() -> Trace:
    inner = Agent(ScriptedModel(["42"]), name="inner")

    @tool
    async def ask(context: RunContext[None]) -> str:
        return (await context.run(inner, "how many?")).output

    agent = Agent(ScriptedModel([CALLS, "Done."]), tools=[look, ask], limits=Limits(parallel=1))
    trace = (await agent.run("go")).trace
    assert trace is not None
    return trace


async def test_patterns_names_and_fields() -> None:
    """In order, with others between them; relative to the outermost agent, or from the root."""
    trace = await ran()
    assert_trace(trace, [])
    assert_trace(
        trace,
        [
            ("/agent", {"kind": "agent", "status": "ok", "result": "Done."}),
            "m0",
            ("m0/t0", "look"),
            ("m0/t*", {"name": "look", "arguments": {"city": "Oslo"}, "error": "ValueError"}),
            ("**/inner", {"kind": "agent", "result": "42"}),
            ("/agent/*", {"kind": "model", "result": "Done."}),
        ],
    )
    everything = ["m0", "m0/t0", "m0/t1", "m0/t2", "m0/t2/inner", "m0/t2/inner/m0", "m1"]
    assert_trace(trace, everything, only=True)


@pytest.mark.parametrize(
    ("expected", "texts"),
    [
        (["m2"], ["Item 0 of the expected effects was not there: m2", "/agent/m0/t1  tool look"]),
        (["m1", "m0"], ["Item 1", "/agent/m0: it comes before /agent/m1, which item 0 expects"]),
        ([("m0/t0", "ask")], ["m0/t0 (name='ask')", "/agent/m0/t0: name is 'look', not 'ask'"]),
        (
            [("m0/t0", {"arguments": {"city": "Rome"}})],
            ["arguments is {'city': 'Paris'}, not {'city': 'Rome'}"],
        ),
        (["m0", ("m0", "scripted")], ["Item 1", "  0  /agent/m0  model"]),
    ],
)
async def test_what_is_missing_is_said_with_what_there_was(
    expected: list[Any], texts: list[str]
) -> None:
    """The nearest effects, and the whole run."""
    trace = await ran()
    with pytest.raises(AssertionError) as failed:
        assert_trace(trace, expected)
    for text in texts:
        assert text in str(failed.value)


async def test_only_finds_one_too_many() -> None:
    """Functions of the application's and the outermost agent do not count."""
    trace = await ran()
    with pytest.raises(AssertionError, match=r"^/agent/m0/t0 was not expected\."):
        assert_trace(trace, ["m0", "m1"], only=True)


@pytest.mark.parametrize("wrong", [3, "", ("m0", 3), ("m0", {"tool": "look"}), ("m0", "a", "b")])
async def test_what_cannot_be_expected(wrong: Any) -> None:
    """Before anything is compared."""
    with pytest.raises(ConfigurationError, match="is not what can be expected"):
        assert_trace(await ran(), [wrong])
    with pytest.raises(ConfigurationError, match="trace=False"):
        assert_trace(None, [])
