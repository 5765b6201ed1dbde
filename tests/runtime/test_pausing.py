"""Sub-agents that wait for a person: the whole run pauses, and goes on where they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkit import Agent, Decision, Limits, RunContext, Tool, Trace, result_of, tool
from agentkit.errors import ConfigurationError, NoOutput, ReplayDivergence
from agentkit.events import ToolCallFinished
from agentkit.messages import AssistantMessage
from agentkit.testing import FunctionModel, ScriptedModel
from tests.effects import delete, done, write
from tests.support import events_of, run_loaded, sized, tool_texts

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_done")]
DELETE = "/boss/m0/t0/inner/m0/t0"
"""Where the first sub-agent of these tests wants to delete something."""


def inner(*script: Any, name: str = "inner") -> Agent[str]:
    """An agent that may delete and write."""
    return Agent(ScriptedModel(list(script)), name=name, tools=[delete, write])


def boss(script: list[Any], *tools: Any, **options: Any) -> Agent[str]:
    """The agent that others work for."""
    return Agent(ScriptedModel(script), name="boss", tools=tools, **options)


def asks(*paths: str) -> list[Any]:
    """The response that wants these files deleted."""
    return [("delete", {"path": path}) for path in paths]


ASK_INNER: list[Any] = [("inner", {"prompt": "clean up"})]


async def test_a_sub_agent_pauses_the_run(tmp_path: Path) -> None:
    """The call is named by its own address; decided, it goes on, and nothing is done twice."""
    path = tmp_path / "run.jsonl"
    first = inner([("write", {"path": "log"})], asks("a"))
    paused = await boss([ASK_INNER], first.as_tool()).run("go", trace=path)
    assert paused.status == "paused"
    with pytest.raises(NoOutput):
        _ = paused.output
    assert [(one.at, one.kind) for one in paused.pending] == [
        ("/boss/m0/t0/inner/m1/t0", "approval")
    ]
    assert tool_texts(paused) == ["Not finished: the run is paused."]
    assert await boss([], inner().as_tool()).replay(path) == paused
    assert Trace.load(path).pending == paused.pending
    decisions = {paused.pending[0].at: Decision.approve(by="Ada")}
    result = await boss(["done"], inner("gone").as_tool()).resume(path, decisions=decisions)
    assert (result.status, result.output) == ("ok", "done")
    assert tool_texts(result) == ["gone"]
    assert done == ["write log", "delete a"]
    assert result.usage.requests == 5
    assert await boss([], inner().as_tool()).replay(path) == result


async def test_usage_of_a_paused_run_holds_that_of_its_sub_agents() -> None:
    """Also of the one that waits."""
    paused = await boss([ASK_INNER], inner(asks("a")).as_tool()).run("go")
    assert (paused.usage.requests, paused.usage.tool_calls) == (2, 1)


async def test_calls_beside_it_keep_their_results(tmp_path: Path) -> None:
    """They end as they do; two that wait are both named, and may be decided one by one."""
    path = tmp_path / "run.jsonl"
    calls = [("one", {"prompt": "x"}), ("write", {"path": "log"}), ("two", {"prompt": "y"})]

    def team(script: list[Any], one: list[Any], two: list[Any]) -> Agent[str]:
        agents = [inner(*one, name="one"), inner(*two, name="two")]
        return boss(script, *(agent.as_tool() for agent in agents), write)

    paused = await team([calls], [asks("a")], [asks("b")]).run("go", trace=path)
    first, second = (one.at for one in paused.pending)
    assert (first, second) == ("/boss/m0/t0/one/m0/t0", "/boss/m0/t2/two/m0/t0")
    assert tool_texts(paused)[1] == "wrote log"
    assert await team([], [], []).replay(path) == paused
    again = await team([], ["no a"], []).resume(path, decisions={first: False})
    assert [one.at for one in again.pending] == [second]
    assert tool_texts(again)[0] == "no a"
    result = await team(["done"], [], ["b is gone"]).resume(path, decisions={second: True})
    assert tool_texts(result) == ["no a", "wrote log", "b is gone"]
    assert done == ["write log", "delete b"]
    assert await team([], [], []).replay(path) == result


async def swallowing(context: RunContext[None], agent: Agent[str]) -> str:
    """A tool's code that takes every exception for a failure."""
    try:
        return (await context.run(agent, "x")).output
    except Exception:
        return "It failed."


async def swallowing_all(context: RunContext[None], agent: Agent[str]) -> str:
    """A tool's code that takes even a cancellation for one."""
    try:
        return (await context.run(agent, "x")).output
    except BaseException:
        return "It failed."


@pytest.mark.parametrize("body", [swallowing, swallowing_all])
async def test_a_pause_is_no_exception(body: Callable[..., Any]) -> None:
    """Whatever the tool's own code catches, the run pauses."""
    agent = inner(asks("a"))

    @tool
    async def work(context: RunContext[None]) -> str:
        return await body(context, agent)

    paused = await boss([[("work", {})]], work).run("go")
    assert [one.at for one in paused.pending] == [DELETE]


async def test_agents_side_by_side_in_one_tool() -> None:
    """The tool is left when none of them works any more: both are asked about at once."""
    agents = [inner(asks("a"), name="left"), inner([("write", {"path": "w"})], asks("b"))]

    @tool
    async def work(context: RunContext[None]) -> str:
        async with anyio.create_task_group() as group:
            for agent in agents:
                group.start_soon(context.run, agent, "x")
        return "done"

    paused = await boss([[("work", {})]], work).run("go")
    assert sorted(one.at for one in paused.pending) == [
        "/boss/m0/t0/inner/m1/t0",
        "/boss/m0/t0/left/m0/t0",
    ]
    assert done == ["write w"]


async def test_code_that_fails_when_it_is_cancelled_for_a_pause() -> None:
    """The run pauses all the same: what is raised beside the cancellation does not count."""
    agent = inner(asks("a"))

    async def failing() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("on the way out")

    @tool
    async def work(context: RunContext[None]) -> str:
        async with anyio.create_task_group() as group:
            group.start_soon(failing)
            group.start_soon(context.run, agent, "x")
        return "done"

    paused = await boss([[("work", {})]], work).run("go")
    assert [one.at for one in paused.pending] == [DELETE]


async def test_a_tool_begins_anew_and_its_agents_do_not() -> None:
    """The tool's own code runs again from its start, what its agents had done is known."""
    started: list[str] = []

    def team(script: list[Any], helper: list[Any], deleter: list[Any]) -> Agent[str]:
        @tool
        async def work(context: RunContext[None]) -> str:
            started.append(context.key)
            first = await context.run(inner(*helper, name="helper"), "x")
            second = await context.run(inner(*deleter), "y")
            return f"{first.output}, {second.output}"

        return boss(script, work)

    paused = await team([[("work", {})]], [[("write", {"path": "w"})], "help"], [asks("a")]).run(
        "go"
    )
    assert paused.trace is not None
    decisions = {DELETE: True}
    result = await team(["done"], [], ["gone"]).resume(paused.trace, decisions=decisions)
    assert tool_texts(result) == ["help, gone"]
    assert done == ["write w", "delete a"]
    assert len(started) == 2
    assert started[0] == started[1]


async def test_deeper_inside(tmp_path: Path) -> None:
    """An agent of an agent of an agent pauses the run as well."""
    path = tmp_path / "run.jsonl"

    def team(outer: list[Any], middle: list[Any], lowest: list[Any]) -> Agent[str]:
        below = inner(*lowest).as_tool()
        return boss(outer, Agent(ScriptedModel(middle), name="middle", tools=[below]).as_tool())

    paused = await team([[("middle", {"prompt": "x"})]], [ASK_INNER], [asks("a")]).run(
        "go", trace=path
    )
    (pending,) = paused.pending
    assert pending.at == "/boss/m0/t0/middle/m0/t0/inner/m0/t0"
    result = await team(["done"], ["ok"], ["gone"]).resume(path, decisions={pending.at: True})
    assert (result.output, done) == ("done", ["delete a"])


async def test_deferred_calls_inside() -> None:
    """An answer from outside reaches the sub-agent that waits for it."""
    ask = Tool.from_schema("ask_human", "Ask.", {"type": "object", "properties": {}}, None)

    def team(script: list[Any], below: list[Any]) -> Agent[str]:
        agent = Agent(ScriptedModel(below), name="inner", tools=[ask])
        return boss(script, agent.as_tool())

    paused = await team([ASK_INNER], [[("ask_human", {})]]).run("go")
    assert paused.trace is not None
    assert [one.kind for one in paused.pending] == ["deferred"]
    result = await team(["done"], ["They say yes."]).resume(
        paused.trace, decisions={DELETE: Decision.answer("yes")}
    )
    assert tool_texts(result) == ["They say yes."]
    assert result.trace is not None
    (answered,) = events_of(result.trace, "tool.decision")
    assert (answered["at"], answered["decision"]) == (DELETE, "answer")


async def test_approver_decides_for_sub_agents() -> None:
    """With somebody there the run does not pause."""
    outer = boss([ASK_INNER, "done"], inner(asks("a"), "gone").as_tool())
    assert (await outer.run("go", approver=lambda pending: True)).output == "done"
    assert done == ["delete a"]


async def test_a_tool_may_give_up_waiting() -> None:
    """Its own deadline is its own decision: the run goes on without the sub-agent."""
    agent, begun = inner(asks("a")), anyio.Event()

    @tool(effect="read")
    async def wait() -> None:
        begun.set()
        await anyio.sleep_forever()

    slow = Agent(ScriptedModel([[("wait", {})]]), name="slow", tools=[wait])

    @tool
    async def work(context: RunContext[None]) -> str:
        async with anyio.create_task_group() as group:
            group.start_soon(context.run, slow, "x")
            await begun.wait()
            with anyio.move_on_after(0.05):
                await context.run(agent, "x")
            group.cancel_scope.cancel()
        return "nobody was there"

    result = await boss([[("work", {})], "done"], work).run("go")
    assert (result.output, tool_texts(result)) == ("done", ["nobody was there"])
    assert result.trace is not None
    assert result.trace.pending == ()
    with pytest.raises(ConfigurationError, match="No call waits at"):
        await boss([], work).resume(result.trace, decisions={DELETE: True})


async def test_a_function_of_the_agent_may_wait_too(tmp_path: Path) -> None:
    """A validator asks an agent that pauses; resumed, it is asked again and that goes on."""
    path = tmp_path / "run.jsonl"

    def team(script: list[Any], critic: list[Any]) -> Agent[str]:
        agent = inner(*critic)

        async def check(context: RunContext[None], output: str) -> None:
            assert (await context.run(agent, output)).output == "fine"

        return boss(script, output_validators=[check])

    paused = await team(["text"], [asks("a")]).run("go", trace=path)
    assert paused.usage.requests == 2
    (pending,) = paused.pending
    assert pending.at == "/boss/m0/validator0/inner/m0/t0"
    assert await team([], []).replay(path) == paused
    result = await team([], ["fine"]).resume(path, decisions={pending.at: True})
    assert (result.output, done) == ("text", ["delete a"])
    assert await team([], []).replay(path) == result


async def test_limits_hold_after_a_resume() -> None:
    """What was used before the pause counts as used."""
    paused = await boss([ASK_INNER], inner(asks("a")).as_tool()).run("go")
    assert paused.trace is not None
    resumed = boss(["done"], inner("gone").as_tool())
    with pytest.raises(Exception, match=r"Limits\.steps = 3") as caught:
        await resumed.resume(paused.trace, decisions={DELETE: True}, limits=Limits(steps=3))
    reached = result_of(caught.value)
    assert reached is not None
    assert reached.usage.requests == 3


async def test_a_changed_sub_agent_does_not_go_on() -> None:
    """The difference ends the run; it is not told to a model as the failure of a tool."""
    paused = await boss([ASK_INNER], inner(asks("a")).as_tool()).run("go")
    assert paused.trace is not None
    changed = inner("gone").with_(instructions="Be quick.")
    with pytest.raises(ReplayDivergence, match=r"/boss/m0/t0/inner/m0, /messages/0"):
        await boss(["done"], changed.as_tool()).resume(paused.trace, decisions={DELETE: True})


async def test_an_approver_that_fails_ends_the_run() -> None:
    """Inside a sub-agent, too: the model is not told of it as of a failing tool."""

    def broken(pending: Any) -> bool:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug") as caught:
        await boss([ASK_INNER], inner(asks("a")).as_tool()).run("go", approver=broken)
    reached = result_of(caught.value)
    assert reached is not None
    assert reached.trace is not None
    with pytest.raises(Exception, match="KeyError"):
        await boss([], inner().as_tool()).replay(reached.trace)


async def test_an_agent_of_a_call_that_is_over_cannot_wait() -> None:
    """There is nothing left to be resumed, and nobody waits for ever."""
    kept: list[RunContext[None]] = []

    @tool
    async def keep(context: RunContext[None]) -> str:
        kept.append(context)
        return "kept"

    @tool
    async def use() -> str:
        return (await kept[0].run(inner(asks("a")), "x")).output

    result = await boss([[("keep", {})], [("use", {})], "done"], keep, use).run("go")
    assert tool_texts(result)[1].startswith(
        "ConfigurationError: An agent that was run with the context"
    )


PROGRAM = """
import sys, anyio
from agentkit import Agent, tool
from agentkit.testing import FunctionModel, ScriptedModel

@tool(approval=True)
def delete(path: str) -> str:
    "Delete a file."
    print("deleted", path)
    return f"deleted {path}"

first = sys.argv[1] == "run"
script = [[("delete", {"path": "a"})]] if first else ["gone"]
inner = Agent(ScriptedModel(script), name="inner", tools=[delete])
ask = [[("inner", {"prompt": "x"})]]
boss = Agent(ScriptedModel(ask if first else ["done"]), name="boss", tools=[inner.as_tool()])
if first:
    result = boss.run_sync("go", trace=sys.argv[2])
else:
    result = anyio.run(lambda: boss.resume(sys.argv[2], decisions={sys.argv[3]: True}))
print(result.status, *[one.at for one in result.pending] or [result.output])
"""


def test_paused_here_and_resumed_in_another_process(tmp_path: Path) -> None:
    """Everything that is needed stands in the file."""
    program, trace = tmp_path / "program.py", tmp_path / "run.jsonl"
    program.write_text(PROGRAM)

    def call(*arguments: str) -> list[str]:
        done = run_loaded(str(program), *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert call("run", str(trace)) == [f"paused {DELETE}"]
    assert call("resume", str(trace), DELETE) == ["deleted a", "ok done"]


async def test_no_end_is_told_of_a_call_that_waits() -> None:
    """Listeners see a call finish when it does, after the resume."""
    seen: list[Any] = []
    paused = await boss([ASK_INNER], inner(asks("a")).as_tool()).run("go", on_event=seen.append)
    assert paused.status == "paused"
    assert not any(isinstance(event, ToolCallFinished) for event in seen)


CALL = st.recursive(
    st.sampled_from(["free", "gated"]),
    lambda call: st.lists(st.lists(call, min_size=1, max_size=3), min_size=1, max_size=2),
    max_leaves=8,
)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=sized(10, 150))
@given(
    script=st.lists(st.lists(CALL, min_size=1, max_size=3), min_size=1, max_size=2),
    draw=st.randoms(use_true_random=False),
    parallel=st.sampled_from([None, 1]),
)
def test_every_call_is_made_once(
    backend: str, script: list[Any], draw: Any, parallel: int | None
) -> None:
    """However deep calls wait and in whatever order they are decided, nothing is done twice."""
    made: list[str] = []

    @tool
    async def free(context: RunContext[None]) -> str:
        await anyio.lowlevel.checkpoint()
        made.append(context.key)
        return str(context.address)

    gated = Tool(free.function, name="gated", approval=True)

    def agent(name: str, steps: list[Any]) -> Agent[str]:
        """An agent that makes these calls, step by step; a list is a sub-agent's steps."""
        below = {
            f"{name}_{step}_{index}": call
            for step, calls in enumerate(steps)
            for index, call in enumerate(calls)
            if isinstance(call, list)
        }

        def answer(request: Any) -> Any:
            step = sum(isinstance(message, AssistantMessage) for message in request.messages)
            if step == len(steps):
                return " ".join(tool_texts(request))
            return [
                (call, {}) if isinstance(call, str) else (f"{name}_{step}_{index}", {"prompt": "x"})
                for index, call in enumerate(steps[step])
            ]

        tools = [agent(key, steps).as_tool() for key, steps in below.items()]
        limits = Limits(parallel=parallel)
        return Agent(FunctionModel(answer), name=name, tools=[free, gated, *tools], limits=limits)

    async def main() -> None:
        outer = agent("outer", script)
        result = await outer.run("go")
        while result.status == "paused":
            assert result.trace is not None
            assert await outer.replay(result.trace) == result
            waiting = [one.at for one in result.pending]
            assert result.trace.pending == result.pending
            decided = draw.sample(waiting, draw.randint(1, len(waiting)))
            result = await outer.resume(result.trace, decisions=dict.fromkeys(decided, True))
        assert len(made) == len({*made}) == leaves(script)
        assert result.trace is not None
        assert await outer.replay(result.trace) == result
        in_process = await outer.run("go", approver=lambda pending: True)
        assert (in_process.output, in_process.usage) == (result.output, result.usage)

    anyio.run(main, backend=backend)


def leaves(steps: list[Any]) -> int:
    """How many calls that do something there are in all."""
    calls = [call for step in steps for call in step]
    return sum(leaves(call) if isinstance(call, list) else 1 for call in calls)
