"""One loop, three ways to drive it: run, stream, iter."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest
from pydantic import BaseModel

from agentkit import (
    Agent,
    ChatModel,
    Limits,
    RunContext,
    Toolset,
    Trace,
    result_of,
    tool,
)
from agentkit.core.effects import Effect, Handler, ModelCall, Outcome, ToolBatch, ToolInvocation
from agentkit.errors import (
    ConfigurationError,
    LimitExceeded,
    ModelUnreachable,
    RecordedError,
    RunCancelled,
)
from agentkit.events import Event, OutputDelta, TextDelta, ToolProgress
from agentkit.messages import AssistantMessage, ModelResponse, UserMessage
from agentkit.middleware import around
from agentkit.models import FallbackModel
from agentkit.output.partial import PartialOutput
from agentkit.testing import ChatServer, ScriptedModel, reply, sse
from tests.support import child_environment, events_of, tool_texts

pytestmark = pytest.mark.anyio


@tool(sequential=True)  # the order of events is part of what is compared
def double(number: int) -> int:
    """Double a number."""
    return 2 * number


def agent() -> Agent[str]:
    """An agent that calls a tool twice and then answers."""
    script = [[("double", {"number": 1}), ("double", {"number": 2})], "2 and 4"]
    return Agent(ScriptedModel(script), tools=[double])


async def test_all_ways_see_the_same() -> None:
    """Events (but for deltas), results and traces are equal however a run is driven."""
    ran: list[Event] = []
    first = await agent().run("go", on_event=ran.append)
    async with agent().stream("go") as run:
        streamed = [event async for event in run]
    stepped: list[Event] = []
    async with agent().iter("go", on_event=stepped.append) as steps:
        async for _ in steps:
            pass
    assert [event for event in streamed if "Delta" not in type(event).__name__] == ran
    assert stepped == ran
    assert replace(run.result, run="") == replace(steps.result, run="") == replace(first, run="")
    traces = [result.trace for result in (first, run.result, steps.result)]
    kinds = [
        [(e["event"], e.get("at")) for e in trace.events if e["event"] != "model.chunks"]
        for trace in traces
        if trace
    ]
    assert kinds[0] == kinds[1] == kinds[2]


async def test_stream_gives_text_as_it_comes() -> None:
    """`run.text()` is the model's text, piece by piece."""
    async with Agent(ScriptedModel(["one two three"])).stream("go") as run:
        pieces = [piece async for piece in run.text()]
    assert "".join(pieces) == "one two three"
    assert run.result.output == "one two three"


async def test_events_that_nobody_read_are_kept() -> None:
    """The run does not wait for its reader."""
    async with Agent(ScriptedModel(["hi"])).stream("go") as run:
        await anyio.sleep(0.02)
        assert any(isinstance(event, TextDelta) for event in [e async for e in run])


async def test_cancel_keeps_what_finished() -> None:
    """After `run.cancel()` the result has status cancelled and a valid history."""

    @tool
    async def wait() -> None:
        await anyio.sleep_forever()

    model = ScriptedModel([[("double", {"number": 4}), ("wait", {})]])
    async with Agent(model, tools=[double, wait]).stream("go") as run:
        async for event in run:
            if type(event).__name__ == "ToolCallFinished":
                run.cancel("user pressed stop")
    assert run.result.status == "cancelled"
    told = tool_texts(run.result)
    assert told == ["8", "Cancelled before it finished."]
    assert run.result.trace is not None
    assert run.result.trace.status == "cancelled"


async def test_a_function_that_fails_as_it_is_cancelled_is_cancelled() -> None:
    """Its failure is no other end of the run, now or in a replay."""

    async def instruct() -> str:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("The cleanup failed.")

    agent = Agent(ScriptedModel(["hi"]), instructions=instruct)
    async with agent.stream("go") as run:
        await anyio.wait_all_tasks_blocked()
        run.cancel("user pressed stop")
    assert run.result.status == "cancelled"
    with pytest.raises(RunCancelled, match="user pressed stop"):
        await agent.replay(run.result.trace or "")


async def test_leaving_the_stream_cancels_the_run() -> None:
    """A reader that goes away ends the run, and its own error comes through unwrapped."""
    stopped = anyio.Event()

    @tool
    async def wait() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()

    streaming = Agent(ScriptedModel([[("wait", {})]]), tools=[wait])
    with pytest.raises(KeyError, match="gone"):
        async with streaming.stream("go") as run:
            async for event in run:
                if type(event).__name__ == "ToolCallStarted":
                    await anyio.sleep(0.01)
                    raise KeyError("gone")
    assert stopped.is_set()


async def test_result_of_a_failed_stream_raises() -> None:
    """The stream ends, and `result` raises what `run` would have raised."""
    async with Agent(ScriptedModel([ModelUnreachable("no route")])).stream("go") as run:
        assert [event async for event in run][-1].at == "/agent"
    with pytest.raises(ModelUnreachable, match="no route"):
        _ = run.result


async def test_result_before_the_end() -> None:
    """Asking too early is said as such."""
    async with Agent(ScriptedModel(["hi"])).stream("go") as run:
        with pytest.raises(ConfigurationError, match="going on"):
            _ = run.result


async def test_iter_can_change_what_is_asked() -> None:
    """Replacing the effect changes the request."""
    model = ScriptedModel(["hi"])
    async with Agent(model).iter("go") as steps:
        async for step in steps:
            if isinstance(step.effect, ModelCall):
                request = replace(
                    step.effect.request, messages=(UserMessage(content="something else"),)
                )
                step.effect = replace(step.effect, request=request)
    assert model.requests[0].messages == (UserMessage(content="something else"),)
    assert steps.result.output == "hi"


async def test_iter_can_answer_instead() -> None:
    """Setting the outcome answers without performing."""
    model = ScriptedModel([])
    async with Agent(model).iter("go") as steps:
        async for step in steps:
            step.outcome = ModelResponse(message=AssistantMessage(content="from me"))
    assert steps.result.output == "from me"
    assert not model.requests


async def test_iter_can_look_at_and_change_results() -> None:
    """After `perform` the outcome can be replaced before the loop is told."""
    seen: list[Any] = []
    async with agent().iter("go") as steps:
        async for step in steps:
            outcome = await step.perform()
            if isinstance(step.effect, ToolBatch):
                assert isinstance(outcome, tuple)
                seen.append([one.message.text for one in outcome])
                changed = replace(outcome[0].message, content="200")
                step.outcome = (replace(outcome[0], message=changed), *outcome[1:])
    assert seen == [["2", "4"]]
    assert steps.result.messages[2].text == "200"  # type: ignore[union-attr]


async def test_iter_that_is_left_closes_its_trace() -> None:
    """Leaving between two steps leaves a readable trace."""
    async with agent().iter("go", trace=True) as steps:
        async for _ in steps:
            with pytest.raises(ConfigurationError, match="more steps"):
                _ = steps.result
            break
    assert steps.result.status == "cancelled"
    assert steps.result.trace is not None
    assert steps.result.trace.status == "cancelled"


async def test_edited_outcomes_replay() -> None:
    """What the loop was told stands in the trace, whoever said it."""
    async with agent().iter("go") as steps:
        async for step in steps:
            outcome = await step.perform()
            if isinstance(step.effect, ToolBatch):
                assert isinstance(outcome, tuple)
                changed = replace(outcome[0].message, content="200")
                step.outcome = (replace(outcome[0], message=changed), *outcome[1:])
    assert steps.result.trace is not None
    again = await agent().with_(model=ScriptedModel([])).replay(steps.result.trace)
    assert again == steps.result


async def test_iter_ends_once() -> None:
    """Asking again after the end ends again."""
    async with Agent(ScriptedModel(["hi"])).iter("go") as steps:
        assert len([step async for step in steps]) == 1
        assert [step async for step in steps] == []


async def test_deadline_in_a_stream() -> None:
    """A limit ends a stream as it ends a run."""

    @tool
    async def wait() -> None:
        await anyio.sleep_forever()

    waiting = Agent(ScriptedModel([[("wait", {})]]), tools=[wait], limits=Limits(seconds=0.02))
    async with waiting.stream("go") as run:
        async for _ in run:
            pass
    with pytest.raises(LimitExceeded, match="seconds"):
        _ = run.result


class Book(BaseModel):
    """A typed output that takes a while to write."""

    title: str
    pages: list[int] = []
    author: str = "?"


async def test_typed_output_can_be_read_while_it_is_written() -> None:
    """Fields appear validated as they come; the whole is the result."""
    text = '{"title": "A long enough title", "pages": [10, 20, 30, 40, 50], "author": "Ada Byron"}'
    async with ChatServer([reply(text)]) as server:
        model = ChatModel("m", base_url=server.base_url, api_key="k")
        async with Agent(model, output=Book).stream("go") as run:
            seen = [event.value async for event in run if isinstance(event, OutputDelta)]
    assert run.result.output == Book.model_validate_json(text)
    assert all(set(value) <= {"title", "pages", "author"} for value in seen)
    assert seen == sorted(seen, key=len)
    assert any("pages" in value and value["pages"][-1] < 50 for value in seen)


def test_reading_a_growing_output_costs_linear_work() -> None:
    """The text that is read in all is a constant factor of the text, however it comes."""
    read = 0

    class Counted(PartialOutput):
        def feed(self, piece: str) -> Any:
            nonlocal read
            before = self._read
            value = super().feed(piece)
            read += self._read if self._read != before else 0
            return value

    text = '{"value": [' + ", ".join(f'"item number {n}"' for n in range(500)) + "]}"
    partial = Counted(list[str], wrapped=True)
    values = [value for char in text if (value := partial.feed(char)) is not None]
    assert read < 15 * len(text)
    assert len(values) > 30
    assert values[-1][:2] == ["item number 0", "item number 1"]


async def test_a_listener_that_fails_does_not_hurt_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged once, the run and its history are as without it."""

    def broken(event: Event) -> None:
        raise ValueError("my UI bug")

    result = await agent().run("go", on_event=broken)
    assert result.output == "2 and 4"
    assert tool_texts(result) == ["2", "4"]
    assert len(caplog.records) == 1


async def test_progress_from_a_thread_of_the_tools_own() -> None:
    """A tool may report from threads that it made itself."""

    @tool
    def busy(context: RunContext[None]) -> str:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(context.progress, range(4)))
        return "done"

    with anyio.fail_after(60):
        async with Agent(ScriptedModel([[("busy", {})], "x"]), tools=[busy]).stream("go") as run:
            seen = [event.value async for event in run if isinstance(event, ToolProgress)]
    assert sorted(seen) == [0, 1, 2, 3]


async def test_two_readers_of_one_stream() -> None:
    """Each event goes to one of them, and both end."""
    seen: list[Event] = []

    async def read(run: Any) -> None:
        seen.extend([event async for event in run])

    with anyio.fail_after(60):
        async with agent().stream("go") as run, anyio.create_task_group() as group:
            group.start_soon(read, run)
            group.start_soon(read, run)
    assert type(seen[-1]).__name__ == "Finished" or len(seen) > 5


@dataclass
class Row:
    """A dataclass with something that is no field."""

    kind: ClassVar[str] = "row"
    cells: list[str] = field(default_factory=list)


async def test_class_variables_are_no_fields_of_a_partial_output() -> None:
    """A type that works without streaming works with it."""
    text = '{"cells": ["a long enough first cell", "and a second one"]}'
    async with Agent(ScriptedModel([text]), output=Row).stream("go") as run:
        async for _ in run:
            pass
    assert run.result.output == Row(cells=["a long enough first cell", "and a second one"])


@around
async def broken(effect: Effect, inner: Handler) -> Outcome:
    """Middleware with a bug."""
    if isinstance(effect, ToolInvocation) and effect.call.name == "break_it":
        raise KeyError("a bug")
    return await inner.perform(effect)


@tool
async def break_it() -> None:
    """Is never run."""


@tool
async def wait() -> None:
    """Waits for ever."""
    await anyio.sleep_forever()


def breaking_in_a_batch(*names: str) -> Agent[str]:
    """An agent whose middleware raises among these calls."""
    calls = [(name, {}) for name in names]
    return Agent(ScriptedModel([calls]), tools=[break_it, wait], middleware=[broken])


@pytest.mark.parametrize("way", ["run", "stream", "iter"])
async def test_middleware_that_raises_in_a_batch(way: str) -> None:
    """Its exception arrives as it is, and not in a group; the history is closed."""
    raising = breaking_in_a_batch("break_it", "wait")
    ended: Any = None
    with pytest.raises(KeyError, match="a bug"):
        if way == "run":
            await raising.run("go")
        elif way == "stream":
            async with raising.stream("go") as ended:
                async for _ in ended:
                    pass
            _ = ended.result
        else:
            async with raising.iter("go") as ended:
                async for _ in ended:
                    pass
    if way == "run":
        return
    with pytest.raises(KeyError) as caught:
        _ = ended.result
    reached = result_of(caught.value)
    assert reached is not None
    told = tool_texts(reached)
    assert told == ["Cancelled before it finished."] * 2


async def test_middleware_that_raises_more_than_once_in_a_batch() -> None:
    """What fails at the same time arrives as one group."""
    with pytest.raises(ExceptionGroup) as caught:
        await breaking_in_a_batch("break_it", "break_it").run("go")
    assert [type(error) for error in caught.value.exceptions] == [KeyError, KeyError]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_ends_programs_leaves_a_stream_as_it_is(error: type[BaseException]) -> None:
    """Ctrl-C inside the block is no ExceptionGroup."""
    with pytest.raises(error) as caught:
        async with agent().stream("go"):
            raise error
    assert type(caught.value) is error


def breaking(where: str) -> Agent[str]:
    """An agent with a bug in the application's own code."""

    def bug(*_: Any) -> Any:
        raise LookupError("a bug")

    class Broken(Toolset):
        def tools(self, context: RunContext[Any]) -> list[Any]:
            return bug()

    options: dict[str, Any] = {
        "instructions": {"instructions": bug},
        "validator": {"output_validators": [bug]},
        "settings": {"step_settings": lambda: bug()},
        "toolset": {"tools": [Broken()]},
        "approver": {"tools": [double.with_(approval=True)]},
    }[where]
    script = [[("double", {"number": 1})], "x"] if where == "approver" else ["x"]
    return Agent(ScriptedModel(script), **options)


@pytest.mark.parametrize("where", ["instructions", "validator", "settings", "toolset", "approver"])
async def test_bugs_of_the_application_are_raised_as_they_are(where: str) -> None:
    """With a note of where, with what the run had reached, and in a replay as recorded."""

    def approver(pending: Any) -> bool:
        raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug") as caught:
        await breaking(where).run("go", approver=approver)
    reached = result_of(caught.value)
    assert reached is not None
    assert (reached.status, reached.new_messages[0].text) == ("error", "go")
    (note,) = caught.value.__notes__
    assert note.startswith(f"It ended the run {reached.run} at /agent/")
    assert reached.trace is not None
    assert reached.trace.status == "error"
    with pytest.raises(RecordedError, match="LookupError: a bug") as again:
        await breaking(where).replay(reached.trace)
    assert again.value.result == reached


async def test_iter_that_never_began() -> None:
    """Leaving before the first step is no error."""
    async with agent().iter("go") as steps:
        pass
    assert (steps.result.status, len(steps.result.messages)) == ("cancelled", 1)


async def test_text_is_that_of_the_agent_itself() -> None:
    """What sub-agents say is not mixed into it."""
    inner = Agent(ScriptedModel(["I am inside."]), name="inner")
    outer = Agent(ScriptedModel([[("inner", {"prompt": "x"})], "Done."]), tools=[inner.as_tool()])
    async with outer.stream("go") as run:
        assert "".join([piece async for piece in run.text()]) == "Done."


async def test_text_that_begins_again() -> None:
    """Whoever shows it is told what to forget; what comes then is the whole answer."""
    half = sse([{"choices": [{"delta": {"content": text}}]} for text in ("Hel", "lo")])
    with ChatServer([half, reply("Good day")]) as server:
        model = ChatModel("m", base_url=server.base_url, retries=0)
        forgotten: list[str] = []
        shown = ""
        async with model, Agent(FallbackModel(model, model)).stream("go") as run:
            async for piece in run.text(restarted=forgotten.append):
                shown += piece
    assert forgotten == ["Hello"]
    assert shown == "HelloGood day"
    assert run.result.output == "Good day"


PROGRAM = """
import sys, anyio
from agentkit import Agent, tool
from agentkit.testing import ScriptedModel

@tool
async def quick() -> str:
    return "quick"

@tool
async def wait() -> None:
    try:
        print("waiting", flush=True)
        await anyio.sleep_forever()
    finally:
        print("cleaned up", flush=True)

agent = Agent(ScriptedModel([[("quick", {})], [("wait", {})]]), tools=[quick, wait])
try:
    anyio.run(lambda: agent.run("go", trace=sys.argv[1]), backend=sys.argv[2])
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_ctrl_c(backend: str, tmp_path: Path) -> None:
    """Tools clean up, finished results are in the trace, which is closed."""
    program, trace = tmp_path / "program.py", tmp_path / "run.jsonl"
    program.write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(program), str(trace), backend],
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (out, err, process.returncode) == ("cleaned up\ninterrupted\n", "", 0)
    recorded = Trace.load(trace)
    assert recorded.status == "cancelled"
    ends = {e["at"]: e["status"] for e in events_of(recorded, "tool.end")}
    assert ends == {"/agent/m0/t0": "ok", "/agent/m1/t0": "cancelled"}


@tool
def address(context: RunContext[None]) -> str:
    """Return the place of the call."""
    return context.address


async def test_a_run_leaves_nothing_to_the_garbage_collector(tmp_path: Path) -> None:
    """What a run held is freed at its end: nothing of it refers to itself in a circle."""
    script = [[("double", {"number": 1}), ("address", {}), ("address", {})], "done"]
    inspector = Agent(ScriptedModel(script * 2), tools=[double, address], trace=tmp_path)
    await inspector.run("first: what is made once is kept")
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await inspector.run("second")
        gc.collect()
        left = {type(one).__qualname__ for one in gc.garbage if "agentkit" in type(one).__module__}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not left
