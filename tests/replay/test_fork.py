"""Forks: recorded where nothing changes, live where something does."""

from __future__ import annotations

from typing import Any

import pytest

from agentkit import Agent, ChatSettings, Decision, RunContext, Toolset, Trace, tool
from agentkit.core.effects import Address
from agentkit.errors import ConfigurationError, ReplayDivergence
from agentkit.messages import AssistantMessage, ModelRequest, ToolCall
from agentkit.replay import Replayed
from agentkit.testing import FunctionModel, ScriptedModel

pytestmark = pytest.mark.anyio

ran: list[str] = []
asked: list[ModelRequest] = []


@tool(effect="read")
async def look(city: str) -> str:
    """Look at a city."""
    ran.append(f"look {city}")
    return f"{city} is sunny"


@tool
async def book(city: str) -> str:
    """Book a trip."""
    ran.append(f"book {city}")
    return f"{city} is booked"


def answer(request: ModelRequest) -> Any:
    """Look at two cities, book one, and say what was heard."""
    asked.append(request)
    heard = [message.text for message in request.messages if message.to_json()["role"] == "tool"]
    if not heard:
        return [("look", {"city": "Paris"}), ("look", {"city": "Rome"})]
    if len(heard) == 2:
        return [("book", {"city": "Rome" if "Rome is sunny" in heard else "Paris"})]
    return f"Heard: {', '.join(heard)}. {request.settings.get('temperature', '')}"


def agent(**options: Any) -> Agent[str]:
    """The agent of all these tests."""
    return Agent(FunctionModel(answer), tools=[look, book], **options)


async def recorded(**options: Any) -> Trace:
    """The trace of a run."""
    result = await agent(**options).run("go", settings=ChatSettings(seed=1))
    assert result.trace is not None
    assert result.output == "Heard: Paris is sunny, Rome is sunny, Rome is booked. "
    ran.clear()
    asked.clear()
    return result.trace


async def test_a_tool_result_is_patched() -> None:
    """Its siblings stay recorded, what follows from it is live."""
    trace = await recorded()
    result = await agent().fork(trace, at="/agent/m0/t1", result="Rome is flooded", live=["book"])
    assert result.output == "Heard: Paris is sunny, Rome is flooded, Paris is booked. "
    assert ran == ["book Paris"]
    assert len(asked) == 2
    assert asked[0].settings["seed"] == 1
    assert result.trace is not None
    assert result.trace.header["fork"] == {
        "run": trace.run,
        "at": "/agent/m0/t1",
        "patch": {"result": "Rome is flooded"},
    }
    assert await agent().replay(result.trace) == result


async def test_without_a_patch_the_effect_is_done_again() -> None:
    """A call at `at` runs again; the same answer makes the rest hold."""
    trace = await recorded()
    result = await agent().fork(trace, at="/agent/m0/t0")
    assert ran == ["look Paris"]
    assert asked == []
    assert result.output == "Heard: Paris is sunny, Rome is sunny, Rome is booked. "


async def test_a_model_answer_is_patched() -> None:
    """The calls of the patched answer are made; equal calls at their addresses hold."""
    trace = await recorded()
    call = ToolCall(id="x", name="look", arguments='{"city": "Oslo"}')
    message = AssistantMessage(tool_calls=(call,))
    result = await agent().fork(trace, at="/agent/m1", result=message)
    assert ran == ["look Oslo"]
    assert result.output == "Heard: Paris is sunny, Rome is sunny, Oslo is sunny. "
    final = await agent().fork(trace, at="/agent/m1", result="Enough.")
    assert final.output == "Enough."


async def test_the_model_and_its_settings_change_from_there() -> None:
    """Before `at` all stays recorded; from there on the model is asked with the new settings."""
    trace = await recorded()
    result = await agent().fork(trace, at="/agent/m2", settings=ChatSettings(temperature=0.5))
    assert result.output.endswith("booked. 0.5")
    assert len(asked) == 1
    assert ran == []
    other = await agent().fork(trace, at="/agent/m2", model=ScriptedModel(["Bye."]))
    assert other.output == "Bye."


async def test_the_prompt_and_the_instructions_change() -> None:
    """Without an address everything that depends on the change is live, from the start."""
    trace = await recorded(instructions="Be kind.")
    result = await agent(instructions="Be kind.").fork(trace, prompt="stay")
    assert asked[0].messages[1].text == "stay"
    assert len(asked) == 3
    assert ran == []  # the same calls at the same addresses, with the same arguments
    assert result.new_messages[0].text == "stay"
    asked.clear()
    await agent(instructions="Be kind.").fork(trace, instructions="Be rude.")
    assert asked[0].messages[0].text == "Be rude."


async def test_a_tool_is_implemented_anew() -> None:
    """All its calls run, and what follows from other results is live."""
    trace = await recorded()

    @tool(name="look", effect="read")
    async def look_again(city: str) -> str:
        """Look at a city."""
        ran.append(f"again {city}")
        return f"{city} is {'flooded' if city == 'Rome' else 'sunny'}"

    result = await agent().fork(trace, tools=[look_again], live=["book"])
    assert sorted(ran) == ["again Paris", "again Rome", "book Paris"]
    assert "Rome is flooded" in result.output


async def test_a_message_of_a_request_is_patched() -> None:
    """What it came from is changed, so the history has it too."""
    trace = await recorded()
    result = await agent().fork(
        trace, at="/agent/m1", messages={3: "Rome is flooded"}, live=["book"]
    )
    assert result.messages[3].text == "Rome is flooded"
    assert result.output == "Heard: Paris is sunny, Rome is flooded, Paris is booked. "
    result = await agent().fork(trace, at="/agent/m2", messages={0: "Go now."})
    assert result.messages[0].text == "Go now."
    assert len(asked) == 3  # the second fork asked once more
    with pytest.raises(ConfigurationError, match="has 4 messages, counted from 0"):
        await agent().fork(trace, at="/agent/m1", messages={4: "x"})


async def test_a_place_inside_a_sub_agent() -> None:
    """The tool runs again to get there; what its agent did before is answered from the trace."""
    inner = agent(name="inner")

    @tool
    async def ask(context: RunContext, prompt: str) -> str:
        """Ask another agent."""
        ran.append("ask")
        return (await context.run(inner, prompt)).output

    script: list[Any] = [[("ask", {"prompt": "go"}), ("look", {"city": "Bern"})], "done"]
    trace = (await Agent(ScriptedModel(script), tools=[ask, look]).run("go")).trace
    assert trace is not None
    ran.clear()
    asked.clear()
    outer = Agent(ScriptedModel(["done differently"]), tools=[ask, look])
    result = await outer.fork(
        trace, at="/agent/m0/t0/inner/m0/t1", result="Rome is flooded", live=["book"]
    )
    assert ran == ["ask", "book Paris"]
    assert len(asked) == 2
    assert "Rome is flooded" in result.messages[2].text
    assert result.output == "done differently"


async def test_calls_that_may_write_are_held_back() -> None:
    """They run if they are named; else the same recorded call answers, or the fork ends."""
    trace = await recorded()
    with pytest.raises(ReplayDivergence, match="book was not called so") as caught:
        await agent().fork(trace, at="/agent/m0/t1", result="Rome is flooded")
    assert ran == []
    result = caught.value.result
    assert result is not None
    assert result.replayed is not None
    assert result.replayed.held_back == ("/agent/m1/t0",)
    named = await agent().fork(
        trace, at="/agent/m0/t1", result="Rome is flooded", live=["/agent/m1/t0"]
    )
    assert ran == ["book Paris"]
    assert named.replayed == Replayed(
        ran=(Address("/agent/m1"), Address("/agent/m1/t0"), Address("/agent/m2")),
        answered=(Address("/agent/m0"), Address("/agent/m0/t0")),
    )
    ran.clear()
    again = await agent().fork(trace, at="/agent/m1")
    assert again.output == "Heard: Paris is sunny, Rome is sunny, Rome is booked. "
    assert ran == []
    assert again.replayed is not None
    assert again.replayed.held_back == ("/agent/m1/t0",)
    assert again.replayed.ran == ("/agent/m1",)


async def test_a_decision_is_patched() -> None:
    """A call that was denied then is approved in the fork."""

    @tool(approval=True)
    async def buy() -> str:
        """Buy it."""
        ran.append("buy")
        return "bought"

    def buying(request: ModelRequest) -> Any:
        said = request.messages[-1].text
        return [("buy", {})] if said == "go" else said

    made = Agent(FunctionModel(buying), tools=[buy])
    result = await made.run("go", approver=lambda pending: Decision.deny("no"))
    assert result.output == "Denied: no"
    assert result.trace is not None
    ran.clear()
    forked = await made.fork(result.trace, at="/agent/m0/t0", result=Decision.approve())
    assert forked.output == "bought"
    assert ran == ["buy"]


async def test_a_decision_is_patched_while_another_call_waits() -> None:
    """What the patch decides is decided, whether somebody is asked about the rest or not."""
    files = {"a", "b"}

    @tool(approval=True)
    async def delete(name: str) -> str:
        """Delete it."""
        files.discard(name)
        return "gone"

    calls = [("delete", {"name": "a"}), ("delete", {"name": "b"})]
    made = Agent(ScriptedModel([calls, "done"]), tools=[delete])
    paused = await made.run("go")
    assert paused.trace is not None
    patch: dict[str, Any] = {"at": "/agent/m0/t0", "result": Decision.deny("no")}
    waiting = await made.fork(paused.trace, **patch)
    assert [pending.at for pending in waiting.pending] == ["/agent/m0/t1"]
    assert waiting.trace is not None
    answers = [line for line in waiting.trace.events if line["event"] == "tool.decision"]
    assert [(line["at"], line["decision"]) for line in answers] == [("/agent/m0/t0", "deny")]
    done = await made.fork(paused.trace, **patch, approver=lambda _: True, live=["delete"])
    assert done.output == "done"
    assert files == {"a"}


async def test_instructions_are_given_to_an_agent_that_had_none() -> None:
    """They hold from the address on, and the answers before it stay."""
    trace = await recorded()
    result = await agent().fork(trace, at="/agent/m1", instructions="Be brief.")
    assert result.output == "Heard: Paris is sunny, Rome is sunny, Rome is booked. "
    assert [request.messages[0].text for request in asked] == ["Be brief.", "Be brief."]


async def test_mistakes_are_said_before_anything_runs() -> None:
    """Addresses, patches and tools that do not fit."""
    trace = await recorded()
    for options, text in (
        ({}, "changes nothing"),
        ({"result": "x"}, "need at=ADDRESS"),
        ({"at": "/agent/m7"}, r"nothing at '/agent/m7'; the closest: /agent/m"),
        ({"at": "/agent/m0", "result": {"role": "user", "content": "x"}}, "model"),
        ({"at": "/agent/m0/t0", "messages": {0: "x"}}, "address of a model call"),
        ({"tools": [tool(answer_nothing)]}, "a tool 'answer_nothing', which"),
        ({"at": 3}, r"at=3: expected an address"),
        ({"at": "/agent/m0/t0", "result": object()}, "text, a message or JSON"),
        ({"at": "/agent/m1/t0"}, r"book at /agent/m1/t0 would not be run: .*live=\['book'\]"),
        ({"at": "/agent/m0", "live": ["buy"]}, "live= names 'buy'"),
        ({"at": "/agent/m0", "live": "book"}, "live='book': expected a list of tool names"),
        ({"settings": {}}, "settings="),
        ({"messages": {"1": "x"}}, "messages="),
        ({"tools": [answer_nothing]}, "tools="),
    ):
        with pytest.raises(ConfigurationError, match=text):
            await agent().fork(trace, **options)  # type: ignore[arg-type]
    assert ran == []
    assert asked == []


def answer_nothing() -> None:
    """Do nothing."""


async def test_the_inside_of_recorded_tools_is_taken_over() -> None:
    """The trace of a fork has the steps of sub-agents too, so it can be forked again in there."""
    inner = agent(name="inner")
    script: list[Any] = [[("inner", {"prompt": "go"}), ("look", {"city": "Bern"})], "done"]
    outer = Agent(ScriptedModel(script), tools=[inner.as_tool(), look])
    trace = (await outer.run("go")).trace
    assert trace is not None
    ran.clear()
    place = "/agent/m0/t0/inner/m1"
    forked = await outer.with_(model=ScriptedModel(["again"])).fork(trace, at="/agent/m1")
    assert forked.output == "again"
    assert forked.trace is not None
    assert ran == []
    assert sorted(what(forked.trace)) == sorted(what(trace))
    assert await outer.replay(forked.trace) == forked
    twice = await outer.with_(model=ScriptedModel(["twice"])).fork(
        forked.trace, at=place, result="Enough."
    )
    assert twice.messages[2].text == "Enough."  # type: ignore[union-attr]
    assert twice.output == "twice"


def what(trace: Trace) -> list[tuple[str, str]]:
    """What happened where."""
    return [(event["event"], event.get("at", "")) for event in trace.events]


async def test_another_agent_is_refused() -> None:
    """An agent of another name has other addresses: nothing of the recording would hold."""
    trace = await recorded()
    for run in (
        lambda: agent(name="other").fork(trace, at="/agent/m1"),
        lambda: agent(name="other").replay(trace),
        lambda: agent(name="other").resume(trace),
    ):
        with pytest.raises(ReplayDivergence, match="a run of the agent 'agent', and this one is"):
            await run()
    assert ran == []


async def test_functions_of_the_agent_hold_for_the_same_input_only() -> None:
    """A validator, an output function or new instructions see what is new."""

    async def total(amount: int) -> int:
        """Give the total."""
        return amount * 2

    script: list[Any] = [[("look", {"city": "Rome"})], '{"amount": 10}']
    made = Agent(ScriptedModel(script), tools=[look], output=total, output_mode="json")
    result = await made.run("go")
    assert result.output == 20
    assert result.trace is not None
    other = made.with_(model=ScriptedModel(['{"amount": 500}']))
    forked = await other.fork(result.trace, at="/agent/m0/t0", result="500")
    assert forked.output == 1000

    told: list[str] = []

    def answer_told(request: ModelRequest) -> str:
        told.append(request.messages[0].text)
        return "done"

    computed = Agent(FunctionModel(answer_told), instructions=lambda: "old")
    trace = (await computed.run("go")).trace
    assert trace is not None
    await computed.fork(trace, instructions=lambda: "new")
    assert told == ["old", "new"]


async def test_agents_of_one_tool_are_ordered_by_what_they_get() -> None:
    """The second agent is asked anew about the first one's patched answer, whatever its name."""

    def echo(request: ModelRequest) -> str:
        return f"verdict on {request.messages[-1].text}"

    @tool
    async def translate(context: RunContext, text: str) -> str:
        """Translate, and have it judged."""
        said = await context.run(Agent(ScriptedModel(["Bonjour"]), name="translator"), text)
        judged = await context.run(Agent(FunctionModel(echo), name="critic"), said.output)
        return judged.output

    script: list[Any] = [[("translate", {"text": "Hello"})], "done"]
    trace = (await Agent(ScriptedModel(script), tools=[translate]).run("go")).trace
    assert trace is not None
    forked = await Agent(ScriptedModel(["done"]), tools=[translate]).fork(
        trace, at="/agent/m0/t0/translator/m0", result="Salut"
    )
    assert forked.messages[2].text == "verdict on Salut"  # type: ignore[union-attr]


async def test_tools_of_a_toolset_are_there_after_the_fork() -> None:
    """A toolset is asked again, though its answer is recorded."""

    class Late(Toolset):
        async def tools(self, context: RunContext[Any]) -> Any:
            return [look]

    made = Agent(FunctionModel(answer), tools=[Late(), book])
    trace = (await made.run("go")).trace
    assert trace is not None
    ran.clear()
    await made.fork(trace, at="/agent/m0/t0")
    assert ran == ["look Paris"]


async def test_a_fork_draws_what_it_records() -> None:
    """Values that are not deterministic are in the fork's trace, too; a changed call draws anew."""

    @tool(effect="read")
    async def draw(context: RunContext, name: str) -> float:
        """Draw."""
        return context.random()

    made = Agent(ScriptedModel([[("draw", {"name": "a"})], "done"]), tools=[draw])
    trace = (await made.run("go")).trace
    assert trace is not None
    again = await made.with_(model=ScriptedModel(["done"])).fork(trace, at="/agent/m0/t0")
    assert again.trace is not None
    assert drawn(again.trace) == drawn(trace)
    call = AssistantMessage(tool_calls=(ToolCall(id="x", name="draw", arguments='{"name": "b"}'),))
    other = await made.with_(model=ScriptedModel(["done"])).fork(trace, at="/agent/m0", result=call)
    assert other.trace is not None
    assert drawn(other.trace) != drawn(trace)


def drawn(trace: Trace) -> list[Any]:
    """The values that were drawn."""
    return [event["value"] for event in trace.events if event["event"] == "det"]
