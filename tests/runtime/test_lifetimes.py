"""Toolsets with a lifetime: entered before the first step, left at the end, on every path."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from agentkit import Agent, Handoff, Limits, RunContext, Toolset, result_of, tool
from agentkit.errors import InvalidTool, LimitExceeded, RecordedError
from agentkit.messages import ModelRequest
from agentkit.testing import FunctionModel, ScriptedModel
from tests.support import tool_texts, until

pytestmark = pytest.mark.anyio


class Connection(Toolset):
    """Opens a task group, as clients of servers do: it has to be left in its task, nested."""

    def __init__(self, name: str = "look", **fails: Exception) -> None:
        self.log: list[str] = []
        self.name = name
        self.fails = fails
        self._open: dict[int, AbstractAsyncContextManager[None]] = {}  # one in each task

    @asynccontextmanager
    async def _connected(self) -> Any:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            yield
            group.cancel_scope.cancel()

    async def __aenter__(self) -> Connection:
        self.log.append("enter")
        if "enter" in self.fails:
            raise self.fails["enter"]
        task = anyio.get_current_task().id
        await anyio.lowlevel.checkpoint()
        self._open[task] = connected = self._connected()
        await connected.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> bool | None:
        connected = self._open.pop(anyio.get_current_task().id)
        self.log.append(f"leave {error[0].__name__ if error[0] else None}")
        suppressed = await connected.__aexit__(*error)
        if "leave" in self.fails:
            raise self.fails["leave"]
        return suppressed

    def tools(self, context: RunContext[Any]) -> Any:
        @tool(name=self.name, effect="read")
        async def look() -> str:
            """Look."""
            assert self._open
            self.log.append("look")
            return "seen"

        @tool(name="write" if self.name == "look" else f"write_{self.name}", approval=True)
        def write() -> str:
            """Write."""
            assert self._open
            self.log.append("write")
            return "written"

        return [look, write]


def agent(tools: Any, *script: Any, **options: Any) -> Agent[None, str]:
    return Agent(ScriptedModel(list(script)), tools=[tools], **options)


async def streamed(agent: Agent[Any, Any], **options: Any) -> Any:
    async with agent.stream("go", **options) as run:
        async for _ in run:
            pass
    return run.result


async def stepped(agent: Agent[Any, Any], **options: Any) -> Any:
    async with agent.iter("go", **options) as steps:
        with anyio.fail_after(60):  # a scope in the block is nested in what the toolset opened
            async for _ in steps:
                pass
    return steps.result


async def run(agent: Agent[Any, Any], **options: Any) -> Any:
    return await agent.run("go", **options)


FORMS = pytest.mark.parametrize("drive", [run, streamed, stepped])
Drive = Callable[..., Coroutine[Any, Any, Any]]


@FORMS
async def test_a_toolset_is_entered_before_the_first_step_and_left_at_the_end(
    drive: Drive,
) -> None:
    """Once for all steps, and nothing has to be done for it."""
    toolset = Connection()
    result = await drive(agent(toolset, [("look", {})], [("look", {})], "done"))
    assert result.output == "done"
    assert toolset.log == ["enter", "look", "look", "leave None"]


@FORMS
async def test_a_toolset_is_entered_before_the_instructions_are_computed(drive: Drive) -> None:
    """They may come from the server."""
    toolset = Connection()

    def instructions() -> str:
        toolset.log.append("instructions")
        return "Look."

    await drive(agent(toolset, "done", instructions=instructions))
    assert toolset.log == ["enter", "instructions", "leave None"]


async def test_wrappers_enter_what_they_wrap_once() -> None:
    """Prefixed, filtered, renamed, approved; two wrappers of one toolset share it."""
    toolset = Connection()
    wrapped = toolset.filter(lambda _, tool: tool.name == "look").prefix("a_").rename({})
    other = toolset.prefix("b_").approve(False)
    model = ScriptedModel([[("a_look", {}), ("b_look", {})], "done"])
    result = await Agent(model, tools=[wrapped, other]).run("go")
    assert tool_texts(result) == ["seen", "seen"]
    assert toolset.log == ["enter", "look", "look", "leave None"]


@FORMS
async def test_a_run_that_fails_leaves_its_toolsets(drive: Drive) -> None:
    """They see the error; it comes out as it is, though a task group wraps it."""
    toolset = Connection()

    def broken(output: str) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        await drive(agent(toolset, "done", output_validators=[broken]))
    assert toolset.log == ["enter", "leave KeyError"]


@FORMS
async def test_a_limit_leaves_the_toolsets(drive: Drive) -> None:
    """A limit is an error as any other."""
    toolset = Connection()
    with pytest.raises(LimitExceeded):
        await drive(agent(toolset, [("look", {})], "done", limits=Limits(steps=1)))
    assert toolset.log == ["enter", "look", "leave LimitExceeded"]


waiting: list[str] = []
"""What has begun to wait for ever."""


async def never(_: ModelRequest) -> Any:
    waiting.append("model")
    await anyio.sleep_forever()


@FORMS
async def test_a_deadline_leaves_the_toolsets(drive: Drive) -> None:
    """The time that entering takes counts."""
    toolset = Connection()
    waiting = Agent(FunctionModel(never), tools=[toolset], limits=Limits(seconds=0.05))
    with pytest.raises(LimitExceeded):
        await drive(waiting)
    assert toolset.log == ["enter", "leave LimitExceeded"]


class Slow(Toolset):
    """Never gets connected."""

    async def __aenter__(self) -> None:
        waiting.append("toolset")
        await anyio.sleep_forever()

    async def __aexit__(self, *error: object) -> None:
        raise AssertionError("it was never entered")


@FORMS
async def test_a_deadline_ends_the_entering(drive: Drive) -> None:
    """Those before it are left."""
    toolset = Connection()
    slow = Agent(ScriptedModel(["x"]), tools=[toolset, Slow()], limits=Limits(seconds=0.05))
    with pytest.raises(LimitExceeded):
        await drive(slow)
    assert toolset.log == ["enter", "leave LimitExceeded"]


async def test_cancelling_a_stream_ends_the_entering() -> None:
    """The first toolset is left, and the result is there."""
    waiting.clear()
    toolset = Connection()
    async with agent(toolset).with_(tools=[toolset, Slow()]).stream("go") as run:
        await until(lambda: waiting)
        run.cancel()
    assert run.result.status == "cancelled"
    assert toolset.log == ["enter", "leave RunCancelled"]


@FORMS
@pytest.mark.parametrize("slow", [True, False])
async def test_a_cancellation_from_around_leaves_the_toolsets(drive: Drive, slow: bool) -> None:
    """While it is entered, too."""
    waiting.clear()
    toolset = Connection()
    tools = [toolset, Slow()] if slow else [toolset]
    async with anyio.create_task_group() as group:
        group.start_soon(drive, Agent(FunctionModel(never), tools=tools))
        await until(lambda: waiting)
        group.cancel_scope.cancel()
    assert [line.split()[0] for line in toolset.log] == ["enter", "leave"]


@pytest.mark.parametrize("form", ["stream", "iter"])
async def test_a_block_that_is_left_early_leaves_the_toolsets(form: str) -> None:
    """By an error of its own, which comes out as it is."""
    waiting.clear()
    toolset = Connection()
    with pytest.raises(ValueError, match="ours"):
        async with getattr(Agent(FunctionModel(never), tools=[toolset]), form)("go"):
            if form == "stream":  # which goes on by itself
                await until(lambda: waiting)
            raise ValueError("ours")
    assert [line.split()[0] for line in toolset.log] == ["enter", "leave"]


async def test_a_pause_leaves_the_toolsets_and_a_resumed_run_enters_them(tmp_path: Path) -> None:
    """A pause is no error. What is answered needs no connection, the approved call does."""
    toolset, path = Connection(), tmp_path / "run.jsonl"
    paused = await agent(toolset, [("look", {})], [("write", {})]).run("go", trace=path)
    assert paused.status == "paused"
    assert toolset.log == ["enter", "look", "leave None"]
    toolset.log.clear()
    resuming = agent(toolset, "done")
    assert (await resuming.resume(path)).status == "paused"
    assert toolset.log == []
    result = await resuming.resume(path, decisions={"/agent/m1/t0": True})
    assert result.output == "done"
    assert toolset.log == ["enter", "write", "leave None"]


async def test_an_answered_replay_opens_no_connection() -> None:
    """Nothing of it is performed; a live tool of the toolset is."""
    toolset = Connection()
    recorded = await agent(toolset, [("look", {})], "done").run("go")
    assert recorded.trace is not None
    toolset.log.clear()
    assert (await agent(toolset).replay(recorded.trace)).output == "done"
    assert (await agent(toolset).resume(recorded.trace)).output == "done"
    forked = await agent(toolset, "other").fork(recorded.trace, at="/agent/m0/t0", result="else")
    assert forked.output == "other"
    assert toolset.log == []
    live = await agent(toolset).replay(recorded.trace, plan="tools_live", live=["look"])
    assert live.output == "done"
    assert toolset.log == ["enter", "look", "leave None"]


async def test_a_toolset_that_cannot_be_entered_ends_the_run() -> None:
    """Those before it are left, those behind it never entered, and the trace replays."""
    first, last = Connection("one"), Connection("two")
    failing = Connection("three", enter=OSError("no route"))
    model = ScriptedModel(["done"])
    failed = Agent(model, tools=[first, failing, last])
    with pytest.raises(OSError, match="no route") as caught:
        await failed.run("go")
    assert (first.log, failing.log, last.log) == (["enter", "leave OSError"], ["enter"], [])
    result = result_of(caught.value)
    assert result is not None
    assert result.trace is not None
    assert (result.status, model.requests) == ("error", ())
    with pytest.raises(RecordedError, match="OSError: no route"):
        await failed.replay(result.trace)
    failing.fails.clear()
    assert (await failed.resume(result.trace)).output == "done"


@FORMS
async def test_an_error_of_leaving_comes_out_with_the_result(drive: Drive) -> None:
    """As of any `async with`; the other toolsets are left all the same."""
    left: list[object] = []

    class First(Toolset):
        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *error: object) -> None:
            left.append(error[0])

        def tools(self, context: RunContext[Any]) -> Any:
            return []

    last = Connection(leave=OSError("broken pipe"))
    with pytest.raises(OSError, match="broken pipe") as caught:
        await drive(Agent(ScriptedModel(["done"]), tools=[First(), last]))
    assert left == [OSError]
    result = result_of(caught.value)
    assert result is not None
    assert result.output == "done"


async def test_runs_at_the_same_time_enter_it_each() -> None:
    """What `__aenter__` returns is the toolset of the run."""
    made: list[Connection] = []

    class Server(Toolset):
        async def __aenter__(self) -> Toolset:
            made.append(Connection())
            self.open = getattr(self, "open", ())
            return await made[-1].__aenter__()

        async def __aexit__(self, *error: Any) -> bool | None:
            return await made.pop().__aexit__(*error)

        def tools(self, context: RunContext[Any]) -> Any:
            raise AssertionError("it was not entered")

    server = Server()
    one = agent(server.prefix("x_"), [("x_look", {})], "done")
    result = await one.run("go")
    assert tool_texts(result) == ["seen"]

    toolset, results = Connection(), list[str]()

    async def go() -> None:
        results.append((await agent(toolset, [("look", {})], "done").run("go")).output)

    async with anyio.create_task_group() as group:
        group.start_soon(go)
        group.start_soon(go)
    assert results == ["done", "done"]
    assert sorted(toolset.log) == ["enter"] * 2 + ["leave None"] * 2 + ["look"] * 2


async def test_sub_agents_and_handoffs_enter_their_own() -> None:
    """A sub-agent's is left when its run ends, that of the agent that takes over with the run."""
    inner, outer, taken = Connection(), Connection(), Connection()
    sub = agent(inner, [("look", {})], "inner", name="sub")
    other = agent(taken, [("look", {})], "other", name="other")
    model = ScriptedModel([[("sub", {"prompt": "go"})], [("transfer_to_other", {})]])
    result = await Agent(model, tools=[sub.as_tool(), outer, Handoff(other)]).run("go")
    assert result.output == "other"
    assert inner.log == ["enter", "look", "leave None"]
    assert outer.log == ["enter", "leave None"]
    assert taken.log == ["enter", "look", "leave None"]


async def test_sub_agents_side_by_side_are_cancelled_with_their_toolsets() -> None:
    """Each in the task of its call."""
    inner = [Connection(), Connection()]
    subs = [
        Agent(FunctionModel(never), tools=[one], name=f"sub{number}").as_tool(timeout=0.05)
        for number, one in enumerate(inner)
    ]
    model = ScriptedModel([[("sub0", {"prompt": "go"}), ("sub1", {"prompt": "go"})], "done"])
    result = await Agent(model, tools=subs).run("go")
    assert result.output == "done"
    assert [len(one.log) for one in inner] == [2, 2]


async def test_a_connection_that_breaks_ends_the_run() -> None:
    """The toolset's own background task fails: its error comes out, not a cancellation."""

    class Breaking(Toolset):
        async def __aenter__(self) -> None:
            self.group = anyio.create_task_group()
            await self.group.__aenter__()
            self.group.start_soon(self.read)

        async def read(self) -> None:
            await anyio.sleep(0.02)
            raise OSError("reset")

        async def __aexit__(self, *error: Any) -> bool | None:
            return await self.group.__aexit__(*error)

        def tools(self, context: RunContext[Any]) -> Any:
            return []

    with pytest.raises(ExceptionGroup) as caught:
        await Agent(FunctionModel(never), tools=[Breaking()]).run("go")
    assert isinstance(caught.value.exceptions[0], OSError)


async def test_half_a_lifetime_is_refused() -> None:
    """Before anything is connected."""

    class Half(Toolset):
        async def __aenter__(self) -> None: ...

    with pytest.raises(InvalidTool, match="defines __aenter__ and no __aexit__"):
        await agent(Half(), "x").run("go")


def test_without_async() -> None:
    """`run_sync` enters and leaves in its event loop."""
    toolset = Connection()
    assert agent(toolset, [("look", {})], "done").run_sync("go").output == "done"
    assert toolset.log == ["enter", "look", "leave None"]
