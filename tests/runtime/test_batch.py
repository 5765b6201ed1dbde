"""One batch of tool calls: concurrency, order, timeouts, and what the model is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentkit import Agent, Limits, RunContext, ToolError, Trace, tool
from agentkit.events import Event, ToolProgress, Warned
from agentkit.redaction import remember_key
from agentkit.testing import FunctionModel, ScriptedModel
from tests.support import events_of, tool_texts

pytestmark = pytest.mark.anyio


async def answers(tools: list[Callable[..., Any]], calls: list[Any], **options: Any) -> list[str]:
    """What the model is told when it makes these calls in one response."""
    agent = Agent(ScriptedModel([calls, "done"]), tools=tools)
    result = await agent.run("go", **options)
    return tool_texts(result)


async def test_calls_run_concurrently_and_answer_in_call_order() -> None:
    """Each call waits for the next one to have begun, so they must overlap."""
    begun = [anyio.Event() for _ in range(3)]

    @tool
    async def meet(index: int) -> int:
        begun[index].set()
        await begun[(index + 1) % 3].wait()
        return index

    calls = [("meet", {"index": index}) for index in (2, 0, 1)]
    with anyio.fail_after(60):
        assert await answers([meet], calls) == ["2", "0", "1"]


async def test_sync_tools_run_in_threads_with_the_context() -> None:
    """A blocking function neither blocks the loop nor loses its context variables."""
    who: ContextVar[str] = ContextVar("who")
    who.set("Ada")
    barrier = threading.Barrier(2, timeout=60)

    @tool
    def meet() -> str:
        barrier.wait()
        return who.get()

    assert await answers([meet], [("meet", {}), ("meet", {})]) == ["Ada", "Ada"]


async def test_sequential_tools_are_barriers() -> None:
    """A sequential call starts when those before it have ended, and runs alone."""
    log: list[str] = []

    @tool
    async def slow(name: str) -> None:
        log.append(f"{name} begins")
        await anyio.sleep(0.01)
        log.append(f"{name} ends")

    @tool(sequential=True)
    async def alone() -> None:
        log.append("alone")
        await anyio.sleep(0.01)
        log.append("alone ends")

    await answers([slow, alone], [("slow", {"name": "a"}), ("alone", {}), ("slow", {"name": "b"})])
    assert log == ["a begins", "a ends", "alone", "alone ends", "b begins", "b ends"]


async def test_parallel_limit() -> None:
    """No more calls than `Limits.parallel` run at the same time."""
    running, most = 0, 0

    @tool
    async def work(index: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(0.01)
        running -= 1

    calls = [("work", {"index": index}) for index in range(6)]
    await answers([work], calls, limits=Limits(parallel=2))
    assert most == 2


async def test_a_failing_call_leaves_its_siblings_alone() -> None:
    """The model reads the exception's type and message, and the other result."""

    @tool
    async def fail() -> None:
        raise KeyError("nowhere")

    @tool
    async def fine() -> str:
        await anyio.sleep(0.01)
        return "fine"

    assert await answers([fail, fine], [("fail", {}), ("fine", {})]) == [
        "KeyError: 'nowhere'",
        "fine",
    ]


async def test_secrets_in_exceptions_are_not_told() -> None:
    """A key that agentkit has read is replaced in an exception before the model reads it."""
    key = "sk-zyxwvutsrqponmlkjihgfedcba654321"
    remember_key(key)

    @tool
    def fail() -> None:
        raise RuntimeError(f"401 for {key}")

    (told,) = await answers([fail], [("fail", {})])
    assert told.startswith("RuntimeError: 401 for ⟦api_key:")


async def test_timeout_of_an_async_tool() -> None:
    """The call is cancelled at its timeout and the model is told."""

    @tool(timeout=0.02)
    async def wait() -> None:
        await anyio.sleep_forever()

    assert await answers([wait], [("wait", {})]) == ["wait did not finish within 0.02 s."]


async def test_timeout_of_a_sync_tool_abandons_its_thread() -> None:
    """Model and developer are told; what the thread reports or returns later is discarded."""
    released, ended = threading.Event(), threading.Event()
    seen: list[Event] = []

    @tool(timeout=0.3)
    def block(context: RunContext[None]) -> str:
        released.wait(60)
        context.progress("late")
        ended.set()
        return "late"

    async def wait_for_it() -> str:
        released.set()
        await anyio.to_thread.run_sync(ended.wait, 60)
        return "done"

    agent = Agent(
        ScriptedModel([[("block", {})], [("wait_for_it", {})], "done"]),
        tools=[block, wait_for_it],
    )
    result = await agent.run("go", on_event=seen.append)
    told = tool_texts(result)
    assert told == [
        "block did not finish within 0.3 s. It may still be at work, but its result will not be "
        "seen.",
        "done",
    ]
    warned = [(e.at, e.code) for e in seen if isinstance(e, Warned)]
    assert warned == [("/agent/m0/t0", "thread_abandoned"), ("/agent/m0/t0", "tool_timeout")]
    assert not any(isinstance(event, ToolProgress) for event in seen)
    assert result.trace is not None
    codes = [event["code"] for event in events_of(result.trace, "warning")]
    assert codes == ["thread_abandoned", "tool_timeout"]


async def test_unknown_tool_names_those_that_exist() -> None:
    """The closest name comes first."""

    @tool
    def get_weather() -> str:
        return "sun"

    @tool
    def roll_dice() -> int:
        return 6

    (told,) = await answers([roll_dice, get_weather], [("get_wether", {})])
    assert told == "There is no tool 'get_wether'. The tools are: get_weather, roll_dice."


async def test_wrong_arguments_are_explained() -> None:
    """The function does not run, and the model reads where and what was expected."""

    @tool
    def double(number: int) -> int:
        raise AssertionError("not reached")

    (told,) = await answers([double], [("double", {"number": "many"})])
    assert "number" in told
    assert "many" not in told


async def test_outside_cancellation_keeps_finished_results(tmp_path: Path) -> None:
    """The run's trace is closed with a valid history before the cancellation goes on."""
    begun = anyio.Event()
    passed_on: list[bool] = []

    @tool
    async def quick() -> str:
        return "quick"

    @tool
    async def wait() -> None:
        begun.set()
        await anyio.sleep_forever()

    agent = Agent(ScriptedModel([[("quick", {}), ("wait", {})]]), tools=[quick, wait])

    async def run() -> None:
        try:
            await agent.run("go", trace=tmp_path / "run.jsonl")
        except anyio.get_cancelled_exc_class():
            passed_on.append(True)
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await begun.wait()
        group.cancel_scope.cancel()
    assert passed_on
    trace = Trace.load(tmp_path / "run.jsonl")
    assert trace.status == "cancelled"
    ends = {e["at"]: e["status"] for e in events_of(trace, "tool.end")}
    assert ends == {"/agent/m0/t0": "ok", "/agent/m0/t1": "cancelled"}
    (end,) = events_of(trace, "agent.end")
    assert end["error"]["type"] == "RunCancelled"


async def test_retries_are_for_accidents() -> None:
    """A failing tool is tried again as often as it says, and sees which attempt it is."""
    attempts: list[int] = []

    @tool(retries=2)
    def flaky(context: RunContext[None]) -> str:
        attempts.append(context.attempt)
        if context.attempt < 2:
            raise ConnectionError("reset")
        return "fine"

    assert await answers([flaky], [("flaky", {})]) == ["fine"]
    assert attempts == [0, 1, 2]


async def test_tool_errors_are_not_retried() -> None:
    """A ToolError is meant for the model, the first time."""
    attempts: list[int] = []

    @tool(retries=2)
    def refuse(context: RunContext[None]) -> str:
        attempts.append(context.attempt)
        raise ToolError("Ask somebody else.")

    assert await answers([refuse], [("refuse", {})]) == ["Ask somebody else."]
    assert attempts == [0]


async def test_concurrency_of_a_tool_holds_over_runs() -> None:
    """Calls of one tool are bounded over all runs of the event loop."""
    running, most = 0, 0

    @tool(concurrency=2)
    async def work(index: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(0.01)
        running -= 1

    calls = [("work", {"index": index}) for index in range(3)]
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(answers, [work], calls)
    assert most == 2


async def test_concurrency_of_an_agent_holds_over_its_runs() -> None:
    """All runs of one agent together keep to its bound; another agent has its own."""
    running, most = 0, 0

    @tool
    async def work(index: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(0.01)
        running -= 1

    calls = [("work", {"index": index}) for index in range(3)]
    agent = Agent(
        FunctionModel(lambda request: calls if len(request.messages) == 1 else "done"),
        tools=[work],
        concurrency=2,
    )
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(agent.run, "go")
    assert most == 2


async def test_many_blocking_calls_take_one_wave() -> None:
    """A hundred blocking calls all wait for each other, so all have a thread at once."""
    barrier = threading.Barrier(100, timeout=60)

    @tool
    def block(index: int) -> int:
        barrier.wait()
        return index

    calls = [("block", {"index": index}) for index in range(100)]
    assert await answers([block], calls) == [str(index) for index in range(100)]


async def test_developers_are_told_of_exceptions_too(caplog: pytest.LogCaptureFixture) -> None:
    """One event and one line in the log for each call, after its retries; without secrets."""
    seen: list[Event] = []

    @tool(retries=1)
    def fail() -> None:
        raise KeyError("sk-abcdefghijklmnopqrstuvwxyz123456")

    @tool
    def refuse() -> None:
        raise ToolError("Not today.")

    await answers([fail, refuse], [("fail", {}), ("refuse", {})], on_event=seen.append)
    failed = [e for e in seen if isinstance(e, Warned) and e.code == "tool_failed"]
    assert [event.at for event in failed] == ["/agent/m0/t0"]
    assert failed[0].text.startswith("fail raised KeyError: '⟦api_key:")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("agentkit", "WARNING")
    assert record.getMessage() == f"/agent/m0/t0: {failed[0].text}"


async def test_forgotten_deps_are_named() -> None:
    """A tool that finds no deps is the first thing that goes wrong for many."""
    seen: list[Event] = []

    @tool
    def stock(context: RunContext[Any]) -> str:
        return context.deps.shop

    await answers([stock], [("stock", {})], on_event=seen.append)
    (warned,) = [e for e in seen if isinstance(e, Warned)]
    assert warned.text.endswith("The run has no deps=, so context.deps is None.")


async def test_a_task_that_somebody_else_cancelled(anyio_backend_name: str) -> None:
    """That the tool waited for it is the tool's failure; nobody has cancelled the run."""
    if anyio_backend_name == "trio":
        pytest.skip("trio has no tasks to be awaited")

    @tool
    async def wait() -> None:
        task = asyncio.get_running_loop().create_task(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    @tool
    async def fine() -> str:
        await anyio.sleep(0.01)
        return "fine"

    expected = "RuntimeError: Something that the function awaited was cancelled."
    assert await answers([wait, fine], [("wait", {}), ("fine", {})]) == [expected, "fine"]
    assert await answers([wait], [("wait", {})]) == [expected]
    assert await answers([wait], [("wait", {})]) == [expected]


async def test_a_stream_that_is_cancelled_from_outside_has_a_result() -> None:
    """What had finished stands in it, whoever ended the run."""

    @tool
    async def quick() -> str:
        return "quick"

    @tool
    async def wait() -> None:
        scope.cancel()
        await anyio.sleep_forever()

    agent = Agent(ScriptedModel([[("quick", {})], [("wait", {})]]), tools=[quick, wait])
    with anyio.CancelScope() as scope:
        async with agent.stream("go") as run:
            async for _ in run:
                pass
    told = tool_texts(run.result)
    assert (run.result.status, told) == ("cancelled", ["quick", "Cancelled before it finished."])
