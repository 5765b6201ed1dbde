"""Forks by tool: calls that run again (`live=`), and calls that are answered (`answers=`)."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from agentkit import Agent, Decision, RunContext, Tool, Trace, tool
from agentkit.core.effects import Address
from agentkit.errors import ConfigurationError, ReplayDivergence
from agentkit.messages import ModelRequest
from agentkit.replay import Replayed
from agentkit.testing import FunctionModel, ScriptedModel

pytestmark = pytest.mark.anyio

figures = {"Q1": 10, "Q2": 12}
ran: list[str] = []


@pytest.fixture(autouse=True)
def _as_at_first() -> None:
    figures["Q2"] = 12
    ran.clear()


@tool(effect="read")
async def revenue(quarter: str) -> int:
    """Revenue of a quarter."""
    ran.append(f"revenue {quarter}")
    return figures[quarter]


@tool
async def publish(text: str) -> str:
    """Publish a report."""
    ran.append(f"publish {text}")
    return "published"


def report(request: ModelRequest) -> Any:
    """Ask for two quarters, publish the sum, and say what became of it."""
    heard = [message.text for message in request.messages if message.to_json()["role"] == "tool"]
    if not heard:
        return [("revenue", {"quarter": "Q1"}), ("revenue", {"quarter": "Q2"})]
    if len(heard) == 2:
        return [("publish", {"text": " and ".join(heard)})]
    return f"{' and '.join(heard[:2])}: {heard[2]}"


agent = Agent(FunctionModel(report), tools=[revenue, publish])


async def recorded(of: Agent[Any] = agent, prompt: str = "go") -> Trace:
    """The trace of a run, after which a figure is another."""
    trace = (await of.run(prompt)).trace
    assert trace is not None
    ran.clear()
    figures["Q2"] = 15
    return trace


def at(*addresses: str) -> tuple[Address, ...]:
    """The addresses."""
    return tuple(map(Address, addresses))


async def test_one_tool_runs_again_and_another_is_answered() -> None:
    """What would the run be with the figures of now, without publishing anything?"""
    trace = await recorded()
    result = await agent.fork(trace, live=["revenue"], answers={"publish": "a draft"})
    assert result.output == "10 and 15: a draft"
    assert sorted(ran) == ["revenue Q1", "revenue Q2"]
    assert result.replayed == Replayed(
        ran=at("/agent/m0/t0", "/agent/m0/t1", "/agent/m1", "/agent/m2"),
        answered=at("/agent/m0"),
    )
    assert result.trace is not None
    assert result.trace.header["fork"]["patch"] == {"answers": {"publish": "a draft"}}
    assert await agent.replay(result.trace) == result


async def test_live_alone_runs_all_calls_of_a_tool_again() -> None:
    """Where its results are the same, nothing else is performed; a call that writes is named."""
    trace = await recorded()
    figures["Q2"] = 12
    result = await agent.fork(trace, live=["revenue"])
    assert sorted(ran) == ["revenue Q1", "revenue Q2"]
    assert result.output == "10 and 12: published"
    assert result.replayed == Replayed(
        ran=at("/agent/m0/t0", "/agent/m0/t1"),
        answered=at("/agent/m0", "/agent/m1", "/agent/m1/t0", "/agent/m2"),
    )
    ran.clear()
    await agent.fork(trace, live=["/agent/m0/t1"])
    assert ran == ["revenue Q2"]
    ran.clear()
    await agent.fork(trace, live=["publish"])
    assert ran == ["publish 10 and 12"]
    ran.clear()
    await agent.fork(trace, at="/agent/m1", live=["revenue", "publish"])
    assert ran == ["publish 10 and 12"]  # what stands before `at` stays as recorded


async def test_a_call_that_writes_is_held_back_unless_it_is_named() -> None:
    """Other figures make another report, which is not published by the way."""
    trace = await recorded()
    with pytest.raises(ReplayDivergence, match="publish was not called so") as caught:
        await agent.fork(trace, live=["revenue"])
    assert sorted(ran) == ["revenue Q1", "revenue Q2"]
    assert caught.value.result is not None
    assert caught.value.result.replayed is not None
    assert caught.value.result.replayed.held_back == at("/agent/m1/t0")
    ran.clear()
    result = await agent.fork(trace, live=["revenue", "publish"])
    assert result.output == "10 and 15: published"
    assert sorted(ran) == ["publish 10 and 15", "revenue Q1", "revenue Q2"]


async def test_answers_go_by_name_and_by_address() -> None:
    """An address goes before a name; any JSON is an answer; a call by address runs nevertheless."""
    trace = await recorded()
    answers = {"revenue": "1", "/agent/m0/t1": 2, "publish": {"id": 7}}
    result = await agent.fork(trace, answers=answers)
    assert (result.output, ran) == ('1 and 2: {"id": 7}', [])
    result = await agent.fork(trace, answers={"revenue": "1", "publish": ""}, live=["/agent/m0/t1"])
    assert (result.output, ran) == ("1 and 15: ", ["revenue Q2"])
    result = await agent.fork(trace, answers={"/agent/m2": "Nothing."})
    assert result.output == "Nothing."
    result = await agent.fork(trace, answers={"publish": None})
    assert result.output == "10 and 12: null"


@pytest.mark.parametrize("effect", ["read", "write"])
async def test_calls_of_sub_agents(effect: Literal["read", "write"]) -> None:
    """A sub-agent that reads runs again for what is in it; one that may write has to be named."""
    inner = Agent(FunctionModel(report), tools=[revenue, publish], name="inner")

    @tool(effect=effect)
    async def ask(context: RunContext, prompt: str) -> str:
        """Ask the other agent."""
        ran.append("ask")
        return (await context.run(inner, prompt)).output

    def delegate(request: ModelRequest) -> Any:
        last = request.messages[-1]
        return last.text if last.to_json()["role"] == "tool" else [("ask", {"prompt": "go"})]

    outer = Agent(FunctionModel(delegate), tools=[ask])
    trace = await recorded(outer)
    change: dict[str, Any] = {"live": ["revenue"], "answers": {"publish": "a draft"}}
    result = await outer.fork(trace, **change)
    assert result.replayed is not None
    if effect == "write":
        assert ran == []
        assert result.output == "10 and 12: published"
        assert result.replayed.held_back == at("/agent/m0/t0")
        change["live"] = ["revenue", "ask"]
        result = await outer.fork(trace, **change)
    assert sorted(ran) == ["ask", "revenue Q1", "revenue Q2"]
    assert result.output == "10 and 15: a draft"
    assert result.trace is not None
    assert await outer.replay(result.trace) == result
    ran.clear()
    change = {"live": ["ask"], "answers": {"/agent/m0/t0/inner/m1/t0": "lost"}}
    assert (await outer.fork(trace, **change)).output == "10 and 12: lost"
    assert ran == ["ask"]


async def test_a_held_back_call_keeps_what_happened_in_it() -> None:
    """The trace of the fork has the steps of the sub-agent, so that it can be forked there."""
    inner = Agent(FunctionModel(report), tools=[revenue, publish], name="inner")
    script: list[Any] = [[("inner", {"prompt": "go"})], "done"]
    outer = Agent(ScriptedModel(script), tools=[inner.as_tool(effect="write")])
    trace = await recorded(outer)
    result = await outer.with_(model=ScriptedModel(["done"])).fork(trace, live=["revenue"])
    assert ran == []
    assert result.trace is not None
    assert {*result.trace.effects} == {*trace.effects}


async def test_calls_that_waited_for_a_decision() -> None:
    """They run again with the decision of then; an answer goes before it; a Decision decides."""

    @tool(approval=True)
    async def buy(what: str) -> str:
        """Buy it."""
        ran.append(f"buy {what}")
        return "bought"

    poll = Tool.from_schema("poll", "Ask people.", {"type": "object"}, None)

    def shop(request: ModelRequest) -> Any:
        last = request.messages[-1]
        name = "poll" if last.text == "poll" else "buy"
        argument = {"question": "?"} if name == "poll" else {"what": "milk"}
        return last.text if last.to_json()["role"] == "tool" else [(name, argument)]

    shopper = Agent(FunctionModel(shop), tools=[buy, poll])

    async def run(prompt: str, decision: Decision | None) -> Trace:
        done = await shopper.run(prompt, approver=lambda pending: decision)
        assert done.trace is not None
        ran.clear()
        return done.trace

    approved = await run("go", Decision.approve())
    assert (await shopper.fork(approved, live=["buy"])).output == "bought"
    assert ran == ["buy milk"]
    ran.clear()
    for decision in (Decision.approve(), Decision.deny("no"), None):
        trace = await run("go", decision)
        for name in ("buy", "/agent/m0/t0"):
            assert (await shopper.fork(trace, answers={name: "kept"})).output == "kept"
    assert ran == []
    denied = await run("go", Decision.deny("no"))
    assert (await shopper.fork(denied, live=["buy"])).output == "Denied: no"
    with pytest.raises(ConfigurationError, match=r"it was denied\. answers=.*Decision.approve\(\)"):
        await shopper.fork(denied, live=["/agent/m0/t0"])
    assert ran == []
    for name in ("buy", "/agent/m0/t0"):
        forked = await shopper.fork(denied, answers={name: Decision.approve()})
        assert forked.output == "bought"
    assert ran == ["buy milk", "buy milk"]
    polled = await run("poll", Decision.answer("yes"))
    assert (await shopper.fork(polled, answers={"poll": "no"})).output == "no"
    assert (await shopper.fork(await run("poll", None), answers={"poll": "no"})).output == "no"


async def test_an_answered_call_waits_for_nobody() -> None:
    """The tool needs approval by now, and its call does not run."""
    trace = await recorded()

    @tool(approval=True, name="publish")
    async def publish_if_allowed(text: str) -> str:
        """Publish a report."""
        raise NotImplementedError

    changed = agent.with_(tools=[revenue, publish_if_allowed])
    result = await changed.fork(trace, answers={"publish": "a draft"})
    assert (result.output, result.pending) == ("10 and 12: a draft", ())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"answers": ["publish"]}, r"answers=\['publish'\]: expected \{tool name or address"),
        ({"answers": {3: "x"}}, r"answers=\{3: 'x'\}: expected"),
        ({"answers": {"pubish": "x"}}, r"answers= names 'pubish', .*'publish'"),
        ({"answers": {"/agent/m7": "x"}}, r"nothing at '/agent/m7'; the closest: /agent/m"),
        ({"answers": {"publish": object()}}, r"answers=\{'publish': …\} <object.*text, a message"),
        ({"answers": {"/agent/m0": 3}}, r"message or its JSON, not 3"),
        ({"live": ["revenu"]}, r"live= names 'revenu', .*'revenue'"),
        ({"live": ["/agent/m0/t7"]}, r"nothing at '/agent/m0/t7'; the closest: /agent/m0/t"),
        ({"live": ["/agent/m1"]}, r"'/agent/m1', which is a model call.*at='/agent/m1' does it"),
        ({"live": ["/agent/m0/t0"], "at": "/agent/m1"}, r"stands before at='/agent/m1'"),
        ({"live": ["publish"], "answers": {"publish": "x"}}, r"'publish' is in live= and in answ"),
        (
            {"at": "/agent/m0/t0", "result": "x", "answers": {"/agent/m0/t0": "y"}},
            r"result= and answers= both have an outcome for /agent/m0/t0",
        ),
        ({"answers": {}}, r"changes nothing: give at=, live= or answers="),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
async def test_mistakes(options: dict[str, Any], text: str) -> None:
    """They are named before anything runs."""
    trace = await recorded()
    with pytest.raises(ConfigurationError, match=text):
        await agent.fork(trace, **options)
    assert ran == []
