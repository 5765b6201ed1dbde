"""Replays that perform some of it: plans, order, strictness."""

from __future__ import annotations

import sys
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from agentkit import Agent, ChatSettings, Limits, RunContext, Tool, ToolError, Trace, tool
from agentkit.core.effects import Address
from agentkit.errors import ConfigurationError, ReplayDivergence
from agentkit.events import Event, ToolCallFinished, ToolProgress
from agentkit.messages import ModelRequest
from agentkit.replay import Replayed
from agentkit.testing import FunctionModel, ScriptedModel
from agentkit.trace import RecordedEffect

pytestmark = pytest.mark.anyio

ran: list[str] = []


class Sum(BaseModel):
    """A typed output."""

    total: int


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


SCRIPT: list[Any] = [[("look", {"city": "Paris"}), ("book", {"city": "Paris"})], "Have fun."]


def agent(*script: Any, **options: Any) -> Agent[str]:
    """An agent with both tools."""
    return Agent(ScriptedModel(list(script)), tools=[look, book], **options)


def ended_at(effect: RecordedEffect) -> int:
    """Return the number of the line at which an effect ended."""
    assert effect.ended is not None
    return effect.ended.seq


async def recorded(**options: Any) -> Trace:
    """The trace of a run."""
    trace = (await agent(*SCRIPT, **options).run("go")).trace
    assert trace is not None
    ran.clear()
    return trace


async def test_exact_runs_nothing() -> None:
    """Neither model nor tools are asked."""
    trace = await recorded()
    result = await agent().replay(trace)
    assert result.output == "Have fun."
    assert ran == []
    assert result.divergences == ()


async def test_tools_live_runs_what_only_reads() -> None:
    """By default only reading tools run."""
    trace = await recorded()
    result = await agent().replay(trace, plan="tools_live")
    assert ran == ["look Paris"]
    assert result.output == "Have fun."
    assert result.divergences == ()


async def test_live_tools_is_an_allow_list() -> None:
    """Named tools run, whatever they do, and no others."""
    trace = await recorded()
    await agent().replay(trace, plan="tools_live", live=["book"])
    assert ran == ["book Paris"]
    with pytest.raises(ConfigurationError, match=r"live= names 'buy'.*'look', 'book'"):
        await agent().replay(trace, plan="tools_live", live=["buy"])


async def test_another_result_of_a_live_tool_is_found() -> None:
    """What a live tool says differently is the first cause; what follows from it is counted."""
    trace = await recorded()

    @tool(name="look", effect="read")
    async def look_again(city: str) -> str:
        """Look at a city."""
        return f"{city} is rainy"

    changed = Agent(ScriptedModel([]), tools=[look_again, book])
    result = await changed.replay(trace, plan="tools_live")
    assert result.output == "Have fun."
    (found,) = result.divergences
    assert (found.kind, found.at) == ("result_changed", "/agent/m0/t0")
    assert (found.pointer, found.position) == ("/content", 9)
    assert (found.expected, found.actual) == ("Paris is sunny", "Paris is rainy")
    assert found.source is not None
    assert found.source.startswith(__file__)


async def test_divergences_stand_in_causal_order() -> None:
    """Whatever ended first, in the recording and now."""
    paris_may_go = anyio.Event()

    @tool(name="look", effect="read")
    async def look_slowly(city: str) -> str:
        """Look at a city."""
        if city == "Paris":
            await paris_may_go.wait()
        paris_may_go.set()
        return f"{city} is sunny"

    calls = [("look", {"city": "Paris"}), ("look", {"city": "Rome"})]
    trace = (await Agent(ScriptedModel([calls, "Go."]), tools=[look_slowly]).run("go")).trace
    assert trace is not None
    ended = [
        call.at for call in sorted(trace.effects.values(), key=ended_at) if call.kind == "tool"
    ]
    assert ended == ["/agent/m0/t1", "/agent/m0/t0"]

    @tool(name="look", effect="read")
    async def look_again(city: str) -> str:
        """Look at a city."""
        return f"{city} is rainy"

    changed = Agent(ScriptedModel([]), tools=[look_again])
    result = await changed.replay(trace, plan="tools_live")
    assert [found.at for found in result.divergences] == ["/agent/m0/t0", "/agent/m0/t1"]


async def test_strict_live_tools_say_what_follows() -> None:
    """With strictness exact the later request differs too, and counts as following."""
    trace = await recorded()

    @tool(name="look", effect="read")
    async def look_again(city: str) -> str:
        """Look at a city."""
        return f"{city} is rainy"

    changed = Agent(ScriptedModel([]), tools=[look_again, book])
    result = await changed.replay(trace, plan="tools_live", strictness="exact")
    (found,) = result.divergences
    assert found.at == "/agent/m0/t0"
    assert found.suppressed == 1
    with pytest.raises(ReplayDivergence, match="result_changed at /agent/m0/t0"):
        await changed.replay(trace, plan="tools_live", on_divergence="raise")


async def test_model_live_answers_the_same_calls() -> None:
    """Tools answer by name and arguments wherever the model calls them; others are refused."""
    trace = await recorded()
    live = agent([("book", {"city": "Paris"})], [("look", {"city": "Paris"})], "Other words.")
    result = await live.replay(trace, plan="model_live")
    assert result.output == "Other words."
    assert ran == []
    refused = agent([("book", {"city": "Rome"})], "Never said.")
    with pytest.raises(ReplayDivergence, match=r"book was not called so.*Rome") as caught:
        await refused.replay(trace, plan="model_live")
    assert caught.value.kind == "unexpected_call"
    assert ran == []


@pytest.mark.parametrize(
    ("strictness", "change", "kind"),
    [
        ("exact", {"settings": ChatSettings(temperature=0.5)}, "request_changed"),
        ("exact", {"instructions": "Other."}, "request_changed"),
        ("structural", {"settings": ChatSettings(temperature=0.5)}, None),
        ("structural", {"instructions": "Other."}, None),
        ("structural", {"tools": [look]}, None),
        ("structural", {"output": Sum, "output_mode": "prompt"}, "outcome_changed"),
    ],
)
async def test_strictness(strictness: Any, change: dict[str, Any], kind: str | None) -> None:
    """`structural` passes over what is said and how the model is set; not over another end."""
    scripted = ScriptedModel([[("look", {"city": "Paris"})], '{"total": 7}'])
    first = Agent(scripted, tools=[look, book], instructions="Be kind.")
    trace = (await first.run("go")).trace
    assert trace is not None
    changed = first.with_(model=ScriptedModel([]), **change)
    if kind is None:
        assert (await changed.replay(trace, strictness=strictness)).output == '{"total": 7}'
        return
    with pytest.raises(ReplayDivergence) as caught:
        await changed.replay(trace, strictness=strictness)
    assert caught.value.kind == kind


async def test_events_come_in_recorded_order() -> None:
    """Whatever finishes first now, the order of the recording is kept; also inside tools."""

    @tool(effect="read")
    async def slow(context: RunContext, turns: int) -> int:
        """Take some turns."""
        for turn in range(turns):
            context.progress(turn)
            await anyio.sleep(0.001 * turns)
        return turns

    @tool
    async def ask(context: RunContext, word: str) -> str:
        """Ask another agent."""
        inner = Agent(ScriptedModel([[("slow", {"turns": 2})], word]), name="inner", tools=[slow])
        return (await context.run(inner, "go")).output

    script: list[Any] = [
        [("slow", {"turns": 4}), ("ask", {"word": "a"}), ("slow", {"turns": 1})],
        "done",
    ]
    first: list[Event] = []
    outer = Agent(ScriptedModel(script), tools=[slow, ask])
    result = await outer.run("go", on_event=first.append)
    assert result.trace is not None
    again: list[Event] = []
    silent = Agent(ScriptedModel([]), tools=[slow, ask])
    assert await silent.replay(result.trace, on_event=again.append) == result
    assert again == first
    ended = [event.at for event in again if isinstance(event, ToolCallFinished)]
    assert ended[0] == "/agent/m0/t2"
    assert sum(isinstance(event, ToolProgress) for event in again) == 7


async def test_live_tools_end_in_recorded_order() -> None:
    """A live tool that is faster now waits for its turn to end."""
    first = "a"
    done = anyio.Event()

    @tool(effect="read")
    async def wait(name: str) -> str:
        """Be done first, or wait for the other one."""
        if name == first:
            done.set()
        else:
            await done.wait()
        return name

    script: list[Any] = [[("wait", {"name": "a"}), ("wait", {"name": "b"})], "done"]
    trace = (await Agent(ScriptedModel(script), tools=[wait]).run("go")).trace
    assert trace is not None
    first = "b"

    done, ended = anyio.Event(), list[str]()

    def listen(event: Event) -> None:
        if isinstance(event, ToolCallFinished):
            ended.append(event.text)

    silent = Agent(ScriptedModel([]), tools=[wait])
    await silent.replay(trace, plan="tools_live", on_event=listen)
    assert ended == ["a", "b"]


async def test_the_order_cannot_deadlock() -> None:
    """Where the recorded order cannot come about, the replay goes on, and says so."""
    release = anyio.Event()

    @tool(effect="read")
    async def first() -> str:
        """End late."""
        await release.wait()
        return "first"

    @tool(effect="read")
    async def second() -> str:
        """End early."""
        release.set()
        return "second"

    script: list[Any] = [[("first", {}), ("second", {})], "done"]
    result = await Agent(ScriptedModel(script), tools=[first, second]).run("go")
    assert result.trace is not None
    alone = Tool(first.function, effect="read", sequential=True)
    one_by_one = Agent(ScriptedModel([]), tools=[alone, second])
    with pytest.raises(ReplayDivergence, match="order_changed at /agent/m0/t0"):
        await one_by_one.replay(result.trace)
    assert (await one_by_one.replay(result.trace, strictness="structural")).output == "done"


async def test_values_of_the_context_are_replayed() -> None:
    """A live tool gets the recorded clock, uuid and random number."""
    drawn: list[Any] = []

    @tool(effect="read")
    async def draw(context: RunContext) -> str:
        """Draw."""
        drawn.append((context.now(), context.uuid(), context.random(), context.random()))
        return "drawn"

    made = Agent(ScriptedModel([[("draw", {})], "done"]), tools=[draw])
    trace = (await made.run("go")).trace
    assert trace is not None
    await made.with_(model=ScriptedModel([])).replay(trace, plan="tools_live")
    assert drawn[0] == drawn[1]
    assert drawn[0][2] != drawn[0][3]


async def test_a_call_that_was_cancelled_stays_pending() -> None:
    """What a tool's own code gave up then is given up by that code again."""

    async def hang(request: Any) -> str:
        await anyio.sleep_forever()
        return "never"

    @tool(effect="read")
    async def impatient(context: RunContext) -> str:
        """Ask, and give up."""
        with anyio.move_on_after(0.02):
            await context.run(Agent(FunctionModel(hang), name="inner"), "go")
        return "gave up"

    made = Agent(ScriptedModel([[("impatient", {})], "done"]), tools=[impatient])
    trace = (await made.run("go")).trace
    assert trace is not None
    silent = made.with_(model=ScriptedModel([]))
    result = await silent.replay(trace, plan="tools_live", strictness="exact")
    assert result.messages[2].text == "gave up"  # type: ignore[union-attr]
    assert result.divergences == ()


async def test_wrong_arguments_are_refused() -> None:
    """Mistakes are named before anything is read."""
    for options, text in (
        ({"plan": "exactly"}, r"plan='exactly': expected 'exact' \| 'tools_live' \| 'model_live'"),
        ({"strictness": "loose"}, r"strictness='loose': expected 'exact' \| 'structural'"),
        ({"on_divergence": "go_live"}, r"on_divergence='go_live': expected 'raise' \| 'warn'"),
        ({"plan": "tools_live", "live": "look"}, "live='look': expected a list of tool names"),
        ({"live": ["look"]}, "plan='exact' runs no tool"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            await agent().replay("nowhere.jsonl", **options)  # type: ignore[arg-type]


async def test_a_failing_live_tool_is_a_result() -> None:
    """A tool that fails now where it did not then is named with both results."""
    trace = await recorded()

    @tool(name="look", effect="read")
    async def broken(city: str) -> str:
        """Look at a city."""
        raise ToolError("no such city")

    changed = Agent(ScriptedModel([]), tools=[broken, book])
    (found,) = (await changed.replay(trace, plan="tools_live")).divergences
    assert (found.pointer, found.expected, found.actual) == ("/status", "ok", "error")


async def test_an_approval_is_for_the_call_that_was_approved() -> None:
    """Another call at the same place is asked about anew, and not run because of the old word."""

    @tool(approval=True)
    async def delete(path: str) -> str:
        """Delete."""
        ran.append(f"delete {path}")
        return "gone"

    def deleting(path: str) -> Agent[str]:
        return Agent(ScriptedModel([[("delete", {"path": path})], "done"]), tools=[delete])

    trace = (await deleting("tmp").run("go", approver=lambda _: True)).trace
    assert trace is not None
    ran.clear()
    denied: Any = {"approver": lambda _: False, "live": ["delete"]}
    result = await deleting("/").replay(trace, plan="model_live", **denied)
    assert result.messages[2].text == "Denied."  # type: ignore[union-attr]
    assert ran == []


async def test_what_was_cancelled_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A tool that does not give up any more what it gave up then has nothing to go on with."""
    monkeypatch.setattr(sys.modules["agentkit.replay.engine"], "_PATIENCE", 0.1)
    patience = 0.01

    async def hang(request: Any) -> str:
        await anyio.sleep_forever()
        return "never"

    @tool(effect="read")
    async def ask(context: RunContext) -> str:
        """Ask, for a while."""
        with anyio.move_on_after(patience):
            await context.run(Agent(FunctionModel(hang), name="inner"), "go")
        return "gave up"

    made = Agent(ScriptedModel([[("ask", {})], "done"]), tools=[ask])
    trace = (await made.run("go")).trace
    assert trace is not None
    patience = 1000
    with pytest.raises(ReplayDivergence, match="cancelled then by the code around it"):
        await made.with_(model=ScriptedModel([])).replay(trace, plan="tools_live")


@pytest.mark.parametrize("bound", [{"limits": Limits(parallel=1)}, {"concurrency": 1}])
async def test_what_waits_for_its_turn_to_end_holds_no_place(bound: dict[str, Any]) -> None:
    """Calls that were slow then and are fast now cannot keep the one before them from its end."""
    slow = {"quick": 0.05, "inner": 0.0}

    @tool(effect="read")
    async def rest() -> str:
        """Rest."""
        await anyio.sleep(slow["inner"])
        return "seen"

    def rests(request: ModelRequest) -> Any:
        return "hi" if len(request.messages) > 1 else [("rest", {})]

    inner = Agent(FunctionModel(rests), name="inner", tools=[rest])

    @tool(effect="read")
    async def ask(context: RunContext) -> str:
        """Ask another agent."""
        return (await context.run(inner, "go")).output

    @tool(effect="read")
    async def quick(number: int) -> str:
        """Take a moment."""
        await anyio.sleep(slow["quick"])
        return f"{number}"

    def answer(request: ModelRequest) -> Any:
        calls = [("ask", {}), ("quick", {"number": 1}), ("quick", {"number": 2})]
        return "done" if len(request.messages) > 1 else calls

    made = Agent(FunctionModel(answer), tools=[ask, quick], **bound)
    trace = (await made.run("go")).trace
    assert trace is not None
    slow.update(quick=0, inner=0.05)
    with anyio.fail_after(60):
        result = await made.replay(trace, plan="tools_live")
    assert result.output == "done"


async def test_model_live_knows_a_call_by_its_arguments_not_by_their_spelling() -> None:
    """Another model writes the same JSON with other spaces and in another order."""

    def booking(text: str) -> Agent[str]:
        return Agent(ScriptedModel([[("trip", text)], "done"]), tools=[trip])

    @tool
    async def trip(city: str, days: int) -> str:
        """Book a trip."""
        return f"{days} days of {city}"

    trace = (await booking('{"city":"Rome","days":2}').run("go")).trace
    assert trace is not None
    other = booking('{"days": 2, "city": "Rome"}')
    result = await other.replay(trace, plan="model_live")
    assert result.messages[2].text == "2 days of Rome"


async def test_a_refused_call_is_not_run_when_divergences_are_noted() -> None:
    """There is no outcome to go on with: `warn` ends there, too."""
    trace = await recorded()
    other = agent([("book", {"city": "Bern"})], "done")
    with pytest.raises(ReplayDivergence, match="book was not called so") as caught:
        await other.replay(trace, plan="model_live", on_divergence="warn")
    assert ran == []
    assert caught.value.result is not None
    assert caught.value.result.replayed == Replayed(
        ran=(Address("/agent/m0"),), held_back=(Address("/agent/m0/t0"),)
    )


async def test_a_function_that_is_new_runs_where_only_the_outcome_counts() -> None:
    """Computed instructions of the same text change nothing that is looked at."""
    trace = (await Agent(ScriptedModel(["hi"]), instructions="Be kind.").run("go")).trace
    assert trace is not None
    made = Agent(ScriptedModel([]), instructions=lambda _: "Be kind.")
    with pytest.raises(ReplayDivergence, match="This function of the agent is new"):
        await made.replay(trace)
    assert (await made.replay(trace, strictness="structural")).output == "hi"
    warned = await made.replay(trace, on_divergence="warn")
    assert [found.at for found in warned.divergences] == ["/agent/instructions"]


async def test_a_sub_agent_that_differs_inside_a_live_tool_says_so_itself() -> None:
    """The difference is the sub-agent's, not that its tool came to nothing."""

    def made(told: str) -> Agent[str]:
        inner = Agent(FunctionModel(lambda _: "hi"), name="inner", instructions=told)
        sub = inner.as_tool(name="sub")
        return Agent(ScriptedModel([[("sub", {"prompt": "go"})], "done"]), tools=[sub])

    trace = (await made("Be kind.").run("go")).trace
    assert trace is not None
    with pytest.raises(ReplayDivergence) as caught:
        await made("Be curt.").replay(
            trace, plan="tools_live", live=["sub"], strictness="exact", on_divergence="raise"
        )
    assert (caught.value.kind, caught.value.at) == ("request_changed", "/agent/m0/t0/inner/m0")


async def test_an_exception_of_a_model_is_recorded_as_one() -> None:
    """What a tool makes of it can be looked at again, at once."""

    def broken(_: ModelRequest) -> str:
        raise ValueError("bug")

    inner = Agent(FunctionModel(broken), name="inner")

    @tool(effect="read")
    async def ask(context: RunContext) -> str:
        """Ask, and give up."""
        try:
            return (await context.run(inner, "go")).output
        except Exception:
            return "sorry"

    made = Agent(ScriptedModel([[("ask", {})], "done"]), tools=[ask])
    trace = (await made.run("go")).trace
    assert trace is not None
    at = "/agent/m0/t0/inner/m0"
    (end,) = (e for e in trace.events if e["event"] == "model.end" and e["at"] == at)
    assert (end["status"], end["error"]["type"]) == ("error", "ValueError")
    again = made.with_(model=ScriptedModel([]))
    with anyio.fail_after(60):
        result = await again.replay(trace, plan="tools_live")
    assert result.divergences == ()


async def test_the_result_says_what_ran_and_what_did_not() -> None:
    """By address: performed, answered from the recording, and held back because it may write."""
    trace = await recorded()
    model, look_at, book_at, end = map(
        Address, ("/agent/m0", "/agent/m0/t0", "/agent/m0/t1", "/agent/m1")
    )
    live = await agent().replay(trace, plan="tools_live")
    assert live.replayed == Replayed(
        ran=(look_at,), answered=(model, book_at, end), held_back=(book_at,)
    )
    exact = await agent().replay(trace)
    assert exact.replayed == Replayed(answered=(model, look_at, book_at, end))
    named = await agent().replay(trace, plan="tools_live", live=[book_at])
    assert named.replayed == Replayed(ran=(book_at,), answered=(model, look_at, end))
    again = await agent(*SCRIPT).replay(trace, plan="model_live")
    assert again.replayed == Replayed(ran=(model, end), answered=(look_at, book_at))
    assert (await agent(*SCRIPT).run("go")).replayed is None
