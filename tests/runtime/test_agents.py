"""More agents than one: tools that run agents, and what goes through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from agentkit import (
    Agent,
    ChatSettings,
    Decision,
    Handoff,
    Limits,
    RunContext,
    Tool,
    ToolError,
    Toolset,
    Trace,
    Usage,
    tool,
)
from agentkit.core.effects import Effect, Handler, Outcome
from agentkit.errors import (
    AgentKitError,
    InvalidTool,
    LimitExceeded,
    ModelUnreachable,
    ToolsFailed,
)
from agentkit.events import Warned
from agentkit.messages import (
    AssistantMessage,
    ForcedTool,
    ModelResponse,
    ToolCall,
    UserMessage,
)
from agentkit.testing import FunctionModel, ScriptedModel
from tests.support import events_of, tool_texts

pytestmark = pytest.mark.anyio


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
    assert tool_texts(result) == ["HI", "HO"]


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
    assert await silent.replay(tmp_path / "run.jsonl") == result


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
    assert "Limits.steps" in tool_texts(caught.value.result)[0]


async def test_failing_sub_agent_is_a_tool_error() -> None:
    """The outer agent goes on and reads what happened."""
    inner = Agent(ScriptedModel([ModelUnreachable("no route")]), name="inner")
    result = await boss(("inner", {"prompt": "x"}), tools=[inner.as_tool()]).run("go")
    assert tool_texts(result) == ["ModelUnreachable: no route"]


@pytest.mark.parametrize("end", ["deadline", "cancel"])
async def test_usage_of_sub_agents_that_were_cut_short_counts(end: str, tmp_path: Path) -> None:
    """What they had used stands in the result of the run that ended with them, and replays."""
    begun = anyio.Event()

    @tool
    async def wait() -> None:
        begun.set()
        await anyio.sleep_forever()

    def team(*script: Any) -> Agent[str]:
        call = AssistantMessage(tool_calls=(ToolCall(id="w", name="wait", arguments="{}"),))
        asked = ModelResponse(message=call, usage=Usage(requests=1, output_tokens=5))
        inner = Agent(ScriptedModel([asked] if script else []), name="inner", tools=[wait])
        return Agent(ScriptedModel(list(script)), name="boss", tools=[inner.as_tool()])

    path = tmp_path / "run.jsonl"
    limits = Limits(seconds=0.5 if end == "deadline" else None)
    async with team([("inner", {"prompt": "x"})]).stream("go", trace=path, limits=limits) as run:
        if end == "cancel":
            await begun.wait()
            run.cancel("enough")
        async for _ in run:
            pass
    if end == "cancel":
        result = run.result
    else:
        with pytest.raises(LimitExceeded, match="seconds") as caught:
            _ = run.result
        result = caught.value.result
    assert result is not None
    used = result.usage
    assert (used.requests, used.output_tokens, used.tool_calls) == (2, 5, 2)
    with pytest.raises(AgentKitError) as again:
        await team().replay(path)
    assert again.value.result == result


async def test_usage_behind_a_refused_output_counts() -> None:
    """A validator asks an agent and then has the output asked for again."""
    critic = Agent(ScriptedModel([counted("bad", 50), counted("good", 50)]), name="critic")

    async def check(context: RunContext[None], output: str) -> None:
        if (await context.run(critic, output)).output == "bad":
            raise ToolError("Try again.")

    agent = Agent(ScriptedModel(["one", "two"]), output_validators=[check])
    result = await agent.run("go")
    assert (result.usage.requests, result.usage.output_tokens) == (4, 100)
    assert result.trace is not None
    assert await agent.with_(model=ScriptedModel([])).replay(result.trace) == result


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
    ends = {e["at"]: e["status"] for e in events_of(trace, "agent.end")}
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
    dets = events_of(result.trace, "det")
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


@tool
def refund(order: int) -> str:
    """Refund an order."""
    return f"refunded {order}"


async def test_handoff_moves_the_conversation(tmp_path: Path) -> None:
    """The other agent goes on with the same history, its own instructions and its own tools."""
    billing = Agent(
        ScriptedModel([[("refund", {"order": 7})], "Refunded."]),
        name="billing",
        tools=[refund],
        instructions="You do billing.",
    )
    front = Agent(
        ScriptedModel([[("transfer_to_billing", {})]]),
        name="front",
        tools=[Handoff(billing)],
        instructions="You are the front desk.",
    )
    result = await front.run("refund order 7", trace=tmp_path / "run.jsonl")
    assert result.output == "Refunded."
    assert result.usage.requests == 3
    assert tool_texts(result) == ["Handed over to billing.", "refunded 7"]
    assert [m.to_json()["role"] for m in result.new_messages] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
        "assistant",
    ]
    events = Trace.load(tmp_path / "run.jsonl").events
    starts = [event["at"] for event in events if event["event"] == "model.start"]
    assert starts == [
        "/front/m0",
        "/front/m0/t0/billing/m0",
        "/front/m0/t0/billing/m1",
    ]
    silent = billing.with_(model=ScriptedModel([]))
    again = front.with_(model=ScriptedModel([]), tools=[Handoff(silent)])
    assert await again.replay(tmp_path / "run.jsonl") == result


async def test_settings_of_a_run_reach_the_agent_that_takes_over() -> None:
    """They win over its own; a choice among the first agent's tools stays with that agent."""
    script: Any = ScriptedModel([[("refund", {"order": 7})], "Refunded."])
    billing = Agent(
        script, name="billing", tools=[refund], settings=ChatSettings(temperature=1, top_p=0.5)
    )
    front = Agent(
        ScriptedModel([[("transfer_to_billing", {})]]), name="front", tools=[Handoff(billing)]
    )
    chosen = ChatSettings(temperature=0, tool_choice="transfer_to_billing")
    result = await front.run("refund order 7", settings=chosen)
    assert result.output == "Refunded."
    assert [dict(request.settings) for request in script.requests] == 2 * [
        {"temperature": 0, "top_p": 0.5}
    ]
    assert [request.tool_choice for request in script.requests] == [None, None]
    again = front.with_(model=ScriptedModel([]))
    assert await again.replay(result.trace or "") == result


async def test_a_repetition_is_said() -> None:
    """A batch that comes again with the same results is cut short, and a warning says so."""

    @tool
    def look() -> str:
        return "nothing new"

    model = ScriptedModel([[("look", {})]] * 12 + ["Nothing."])
    warnings: list[Warned] = []
    result = await Agent(model, tools=[look]).run(
        "look", on_event=lambda event: warnings.append(event) if isinstance(event, Warned) else None
    )
    assert result.output == "Nothing."
    assert result.usage.tool_calls == 11
    (warned,) = warnings
    assert (warned.at, warned.code) == ("/agent/m11/t0", "repeated_calls")
    assert "look was called again with the same arguments" in warned.text


async def test_agents_may_hand_over_to_each_other() -> None:
    """A function breaks the circle of definitions."""
    ping = Agent(
        FunctionModel(lambda request: [("transfer_to_pong", {})]),
        name="ping",
        tools=[Handoff(lambda: pong)],
        limits=Limits(steps=4),
    )
    pong: Agent[str] = Agent(
        FunctionModel(lambda request: [("transfer_to_ping", {})]),
        name="pong",
        tools=[Handoff(lambda: ping)],
        limits=Limits(steps=4),
    )
    with pytest.raises(LimitExceeded, match="steps"):
        await ping.run("go")


class Growing(Toolset):
    """Offers one tool more at each step."""

    def __init__(self) -> None:
        self.asked = 0

    async def tools(self, context: RunContext[str]) -> list[Any]:
        """The tools of this step."""
        self.asked += 1

        def say(text: str) -> str:
            return f"{context.deps} says {text}"

        return [Tool(say, name=f"say{index}") for index in range(self.asked)]


async def test_dynamic_toolsets_are_asked_at_each_step(tmp_path: Path) -> None:
    """What a toolset offers is recorded; a replay does not ask it."""
    model = ScriptedModel([[("say0", {"text": "a"})], [("say1", {"text": "b"})], "done"])
    growing = Growing()
    agent = Agent(model, tools=[growing])
    result = await agent.run("go", deps="Ada", trace=tmp_path / "run.jsonl")
    assert [[t.name for t in request.tools] for request in model.requests] == [
        ["say0"],
        ["say0", "say1"],
        ["say0", "say1", "say2"],
    ]
    assert tool_texts(result) == ["Ada says a", "Ada says b"]
    assert await agent.with_(model=ScriptedModel([])).replay(tmp_path / "run.jsonl") == result
    assert growing.asked == 3


async def test_toolset_with_a_name_that_exists() -> None:
    """Two tools of one name end the run with both origins named."""

    @tool
    def say0() -> str:
        return "mine"

    with pytest.raises(InvalidTool, match="say0"):
        await Agent(ScriptedModel(["x"]), tools=[say0, Growing()]).run("go")


async def test_compaction_shortens_what_is_sent(tmp_path: Path) -> None:
    """Above the given size the strategy replaces the history; new messages are all kept."""

    def sized(text: str) -> ModelResponse:
        usage = Usage(requests=1, input_tokens=100)
        call = ToolCall(id=text, name="look", arguments="{}")
        return ModelResponse(message=AssistantMessage(tool_calls=(call,)), usage=usage)

    @tool
    def look() -> str:
        return "a long text"

    async def shorter(messages: Any) -> Any:
        return [UserMessage(content=f"({len(messages)} messages)")]

    script: list[Any] = [sized("one"), sized("two"), "done"]
    model = ScriptedModel(script)
    agent = Agent(model, tools=[look], compact=shorter, compact_above=50)
    result = await agent.run("go", trace=tmp_path / "run.jsonl")
    sent = [[m.text for m in request.messages] for request in model.requests]
    assert sent == [["go"], ["(3 messages)"], ["(3 messages)"]]
    assert [m.text for m in result.messages] == ["(3 messages)", "done"]
    assert len(result.new_messages) == 6
    silent = agent.with_(model=ScriptedModel([]))
    assert await silent.replay(tmp_path / "run.jsonl") == result


async def test_middleware_stands_around_every_effect() -> None:
    """Handlers wrap in the order given, outermost first, and see single calls."""
    log: list[str] = []

    class Logged:
        def __init__(self, name: str, inner: Handler) -> None:
            self.name, self.inner = name, inner

        async def perform(self, effect: Effect) -> Outcome:
            log.append(f"{self.name} {effect.at}")
            return await self.inner.perform(effect)

    @tool
    def look() -> str:
        return "seen"

    agent = Agent(
        ScriptedModel([[("look", {})], "done"]),
        tools=[look],
        middleware=[lambda inner: Logged("a", inner), lambda inner: Logged("b", inner)],
    )
    await agent.run("go")
    assert log == [
        f"{name} {at}" for at in ("/agent/m0", "/agent/m0/t0", "/agent/m1") for name in ("a", "b")
    ]


async def test_tools_that_raise_surface_together() -> None:
    """`on_error="raise"` ends the run with one group of all that failed; siblings finish."""

    @tool(on_error="raise")
    async def fail(text: str) -> None:
        raise ValueError(text)

    @tool
    async def fine() -> str:
        await anyio.sleep(0.01)
        return "fine"

    calls = [("fail", {"text": "one"}), ("fine", {}), ("fail", {"text": "two"})]
    with pytest.raises(ExceptionGroup) as caught:
        await boss(*calls, tools=[fail, fine]).run("go")
    assert [str(error) for error in caught.value.exceptions] == ["one", "two"]
    assert isinstance(caught.value, ToolsFailed)
    assert caught.value.result is not None
    assert tool_texts(caught.value.result) == ["ValueError: one", "fine", "ValueError: two"]
    assert caught.value.trace is not None
    with pytest.raises(ToolsFailed) as again:
        await Agent(ScriptedModel([]), name="boss", tools=[fail, fine]).replay(caught.value.trace)
    assert [str(error) for error in again.value.exceptions] == [
        "ValueError: one",
        "ValueError: two",
    ]


async def test_usage_of_sub_agents_in_validators_counts(tmp_path: Path) -> None:
    """A validator may ask another agent; what that uses is the run's, live and replayed."""
    critic = Agent(ScriptedModel([counted("fine", 50)]), name="critic")

    async def check(context: RunContext[None], output: str) -> None:
        assert (await context.run(critic, output)).output == "fine"

    agent = Agent(ScriptedModel(["text"]), output_validators=[check])
    result = await agent.run("go", trace=tmp_path / "run.jsonl")
    assert (result.usage.requests, result.usage.output_tokens) == (2, 50)
    assert await agent.with_(model=ScriptedModel([])).replay(tmp_path / "run.jsonl") == result


async def test_settings_of_a_step(tmp_path: Path) -> None:
    """A function sets parameters and the tool choice of each step; a replay does not ask it."""

    @tool
    def look() -> str:
        return "seen"

    asked: list[str] = []

    def settings(context: RunContext[Any]) -> ChatSettings:
        asked.append(str(context.address))
        first = context.usage.requests == 0
        return ChatSettings(temperature=1 if first else 0, tool_choice=look if first else None)

    model = ScriptedModel([[("look", {})], "done"])
    agent = Agent(
        model, tools=[look], settings=ChatSettings(seed=7, temperature=2), step_settings=settings
    )
    result = await agent.run("go", trace=tmp_path / "run.jsonl")
    assert [dict(request.settings) for request in model.requests] == [
        {"temperature": 1, "seed": 7},
        {"temperature": 0, "seed": 7},
    ]
    assert [request.tool_choice for request in model.requests] == [ForcedTool(name="look"), None]
    assert asked == ["/agent/m0/settings", "/agent/m1/settings"]
    assert await agent.with_(model=ScriptedModel([])).replay(tmp_path / "run.jsonl") == result
    assert len(asked) == 2


async def test_steps_are_counted_before_they_are_made() -> None:
    """Many sub-agents at once make no more model calls than there are steps."""
    asked = 0

    async def answer(request: Any) -> str:
        nonlocal asked
        asked += 1
        await anyio.sleep(0.01)
        return "ok"

    inner = Agent(FunctionModel(answer), name="inner")
    calls = [("inner", {"prompt": str(number)}) for number in range(8)]
    with pytest.raises(LimitExceeded, match=r"Limits\.steps = 3 \(now 3\)"):
        await boss(*calls, tools=[inner.as_tool()], limits=Limits(steps=3)).run("go")
    assert asked == 2


async def test_named_uses_of_a_sub_agent() -> None:
    """A given name makes the address, so that the order of the uses does not matter."""
    inner = Agent(FunctionModel(lambda request: "ok"), name="inner")

    @tool
    async def both(context: RunContext[None]) -> str:
        async with anyio.create_task_group() as group:
            for name in ("left", "right"):
                group.start_soon(lambda name=name: context.run(inner, name, name=name))
        return "done"

    result = await boss(("both", {}), tools=[both]).run("go")
    assert result.trace is not None
    starts = {e["at"] for e in events_of(result.trace, "model.start")}
    assert {"/boss/m0/t0/left/m0", "/boss/m0/t0/right/m0"} <= starts


async def test_tool_call_limit_is_shared() -> None:
    """A sub-agent makes no more calls than the run has left."""
    made: list[int] = []

    @tool
    def work(index: int) -> str:
        made.append(index)
        return "ok"

    steps: list[Any] = [[("work", {"index": index})] for index in range(10)]
    inner = Agent(ScriptedModel([*steps, "done"]), name="inner", tools=[work])
    outer = boss(("inner", {"prompt": "x"}), tools=[inner.as_tool()], limits=Limits(tool_calls=4))
    result = await outer.run("go")
    assert len(made) == 3  # and the call of the sub-agent itself
    assert result.messages[2].text == (
        "LimitExceeded: The run reached Limits.tool_calls = 4 (now 5)."
    )


async def test_no_call_of_a_batch_runs_that_is_larger_than_the_limit() -> None:
    """A sub-agent's batch is refused as a whole, as that of the outermost agent is."""
    made: list[int] = []

    @tool
    def work(index: int) -> str:
        made.append(index)
        return "ok"

    batch: list[Any] = [("work", {"index": index}) for index in range(10)]
    inner = Agent(ScriptedModel([batch, "done"]), name="inner", tools=[work])
    limits = Limits(tool_calls=4)
    outer = boss(("inner", {"prompt": "x"}), tools=[inner.as_tool(on_error="raise")], limits=limits)
    with pytest.raises(ExceptionGroup) as inside:
        await outer.run("go")
    error = inside.value.exceptions[0]
    assert isinstance(error, LimitExceeded)
    assert (error.limit, error.value, error.maximum) == ("tool_calls", 11, 4)
    alone = Agent(ScriptedModel([batch, "done"]), tools=[work])
    with pytest.raises(LimitExceeded, match=r"Limits\.tool_calls = 4 \(now 10\)") as outside:
        await alone.run("go", limits=limits)
    assert error.result is not None
    assert outside.value.result is not None
    texts = [m.text for m in error.result.messages[1:]]
    assert texts == [m.text for m in outside.value.result.messages[1:]]
    assert texts[-1] == "Not executed: the run has reached its limit."
    assert made == []


async def test_names_that_mean_two_things_are_refused() -> None:
    """Handoffs and the output tool count among the tools."""
    one, other = Agent(ScriptedModel([])), Agent(ScriptedModel([]))
    with pytest.raises(InvalidTool, match="Two agents to hand over to are called 'agent'"):
        await boss(tools=[Handoff(one, name="a"), Handoff(other, name="b")]).run("go")

    @tool
    def final_output() -> str:
        return "mine"

    clashing = Agent(ScriptedModel([]), tools=[final_output], output=int, output_mode="tool")
    with pytest.raises(InvalidTool, match="Two tools are called 'final_output'"):
        await clashing.run("go")


async def test_bounded_tools_may_be_called_inside_themselves() -> None:
    """A tool that runs an agent which calls the same tool holds its place twice."""

    @tool(concurrency=2)
    async def dig(context: RunContext[None], depth: int) -> str:
        if depth:
            model = ScriptedModel([[("dig", {"depth": depth - 1})], "deeper"])
            return (await context.run(Agent(model, name="digger", tools=[dig]), "go")).output
        return "bottom"

    result = await boss(("dig", {"depth": 1}), tools=[dig]).run("go")
    assert tool_texts(result) == ["deeper"]


class Counter:
    """How many run at the same time, and how many did at most."""

    def __init__(self) -> None:
        self.running = self.most = 0

    async def work(self) -> None:
        """Be one of them for a while."""
        self.running += 1
        self.most = max(self.most, self.running)
        await anyio.sleep(0.01)
        self.running -= 1


@pytest.mark.parametrize("parallel", [1, 2])
async def test_parallel_bounds_the_calls_of_all_agents_together(parallel: int) -> None:
    """A call whose agent works lends its place, so that one place is enough for any depth."""
    counter = Counter()

    @tool
    async def work(index: int) -> str:
        await counter.work()
        return "ok"

    calls: list[Any] = [("work", {"index": index}) for index in range(3)]
    first = Agent(
        FunctionModel(lambda request: calls if len(request.messages) == 1 else "done"),
        name="first",
        tools=[work],
    )
    asks = [("first", {"prompt": "x"}), ("work", {"index": 9})]
    middle = Agent(
        FunctionModel(lambda request: asks if len(request.messages) == 1 else "done"),
        name="middle",
        tools=[first.as_tool(), work],
    )
    outer: list[Any] = [("middle", {"prompt": str(index)}) for index in range(3)]
    limits = Limits(parallel=parallel)
    agent = boss(*outer, ("work", {"index": 8}), tools=[middle.as_tool(), work], limits=limits)
    with anyio.fail_after(60):
        result = await agent.run("go")
    assert result.usage.tool_calls == 4 + 3 * 2 + 3 * 3
    assert counter.most == parallel
    assert result.trace is not None
    silent = Agent(ScriptedModel([]), name="boss", tools=[middle.as_tool(), work], limits=limits)
    assert await silent.replay(result.trace) == result


async def test_concurrency_of_an_agents_tool_bounds_the_agent() -> None:
    """`as_tool(concurrency=1)` lets one of its runs go on at a time, whatever its calls need."""
    counter = Counter()

    @tool
    async def work() -> str:
        return "ok"

    async def answer(request: Any) -> Any:
        await counter.work()
        return [("work", {})] if len(request.messages) == 1 else "done"

    inner = Agent(FunctionModel(answer), name="inner", tools=[work])
    calls: list[Any] = [("inner", {"prompt": str(index)}) for index in range(3)]
    with anyio.fail_after(60):
        await boss(*calls, tools=[inner.as_tool(concurrency=1)], limits=Limits(parallel=1)).run(
            "go"
        )
    assert counter.most == 1


async def test_a_bounded_tool_may_be_called_inside_itself_at_any_depth() -> None:
    """The calls inside share the place of the outermost one, so they cannot wait for it."""

    @tool(concurrency=1)
    async def dig(context: RunContext[None], depth: int) -> str:
        if depth:
            model = ScriptedModel([[("dig", {"depth": depth - 1})], f"{depth}"])
            return (await context.run(Agent(model, name="digger", tools=[dig]), "go")).output
        return "bottom"

    with anyio.fail_after(60):
        result = await boss(("dig", {"depth": 3}), ("dig", {"depth": 2}), tools=[dig]).run("go")
    assert tool_texts(result) == ["3", "2"]


async def test_a_crash_inside_a_sub_agent_is_asked_about_there(tmp_path: Path) -> None:
    """The call of the agent itself does no harm: only what was in flight inside is asked about."""
    path = tmp_path / "run.jsonl"

    @tool
    def write(path: str) -> str:
        return f"wrote {path}"

    def team(outer: list[Any], inner: list[Any]) -> Agent[str]:
        below = Agent(ScriptedModel(inner), name="inner", tools=[write])
        return Agent(ScriptedModel(outer), name="boss", tools=[below.as_tool()])

    ask: list[Any] = [("inner", {"prompt": "x"})]
    await team([ask, "done"], [[("write", {"path": "a"})], "ok"]).run("go", trace=path)
    lines = path.read_bytes().splitlines(keepends=True)
    last = next(n for n, line in enumerate(lines) if b'"tool":"write"' in line)
    path.write_bytes(b"".join(lines[: last + 1]))
    paused = await team([], []).resume(path)
    assert [(one.at, one.kind) for one in paused.pending] == [
        ("/boss/m0/t0/inner/m0/t0", "in_flight")
    ]
    decisions = {paused.pending[0].at: Decision.answer("It is there.")}
    result = await team(["done"], ["ok"]).resume(path, decisions=decisions)
    assert (result.output, tool_texts(result)) == ("done", ["ok"])
    assert await team([], []).replay(path) == result
