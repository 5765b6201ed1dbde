"""Resume: what is recorded is not done again, what was in flight is asked about."""

from __future__ import annotations

import inspect
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentkit import (
    Agent,
    AssistantMessage,
    ChatSettings,
    Decision,
    Handoff,
    Limits,
    ModelRequest,
    ModelResponse,
    RunContext,
    ToolCall,
    Toolset,
    Trace,
    result_of,
    tool,
)
from agentkit.errors import (
    AgentKitError,
    ConfigurationError,
    ModelUnreachable,
    ReplayDivergence,
    ToolError,
    TraceError,
)
from agentkit.events import TextDelta, ToolCallFinished, ToolCallStarted
from agentkit.testing import FunctionModel, ScriptedModel
from agentkit.trace.file import FileSink
from tests.effects import delete, done, read, write
from tests.support import child_environment, run_loaded, tool_texts, trace_lines

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_done")]


TOOLS = [delete, write, read]


def agent(*script: Any, **options: Any) -> Agent[str]:
    """An agent with three tools."""
    return Agent(ScriptedModel(list(script)), tools=TOOLS, **options)


def cut_after(path: Path, event: bytes, count: int = 1) -> None:
    """Cut a trace off behind the n-th line of an event, as a kill would."""
    kept: list[bytes] = []
    for line in path.read_bytes().splitlines(keepends=True):
        kept.append(line)
        count -= event in line
        if not count:
            break
    path.write_bytes(b"".join(kept) + b'{"event":"torn')


async def test_paused_run_goes_on_with_a_decision(tmp_path: Path) -> None:
    """The decision is given by address, the trace goes on in the same file, and it replays."""
    path = tmp_path / "run.jsonl"
    first = await agent([("write", {"path": "a"})], [("delete", {"path": "a"})]).run(
        "go", trace=path
    )
    assert first.status == "paused"
    decisions = {first.pending[0].at: Decision.approve(by="Ada")}
    result = await agent("all done").resume(path, decisions=decisions)
    assert (result.status, result.output, result.run) == ("ok", "all done", first.run)
    assert done == ["write a", "delete a"]
    assert tool_texts(result) == ["wrote a", "deleted a"]
    assert Trace.load(path).status == "ok"
    assert await agent().replay(path) == result


async def test_paused_run_in_memory() -> None:
    """A trace that was kept in memory resumes as well, by call id."""
    first = await agent([("delete", {"path": "a"})]).run("go")
    assert first.trace is not None
    decisions = {first.pending[0].call.id: Decision.deny("No.")}
    result = await agent("fine").resume(first.trace, decisions=decisions)
    assert tool_texts(result) == ["Denied: No."]
    assert done == []


async def test_a_resumed_run_can_be_streamed(tmp_path: Path) -> None:
    """Recorded steps are events, and pieces of text come of what is new alone."""
    path = tmp_path / "run.jsonl"
    script = [[("write", {"path": "a"})], [("delete", {"path": "a"})]]
    paused = await agent(*script).run("go", trace=path)
    decisions = {paused.pending[0].at: True}
    async with agent("all done").resume_stream(path, decisions=decisions) as run:
        events = [event async for event in run]
    assert run.result.output == "all done"
    assert done == ["write a", "delete a"]
    pieces = [event.text for event in events if isinstance(event, TextDelta)]
    assert "".join(pieces) == "all done"
    started = [event.at for event in events if isinstance(event, ToolCallStarted)]
    assert started == ["/agent/m0/t0", "/agent/m1/t0"]
    assert run.result.replayed is not None
    assert run.result.replayed.ran == ("/agent/m1/t0", "/agent/m2")
    assert run.result.replayed.answered[:3] == ("/agent/m0", "/agent/m0/t0", "/agent/m1")
    assert await agent().replay(path) == run.result


async def test_a_stream_of_a_resumed_run_that_is_left_can_be_resumed(tmp_path: Path) -> None:
    """What was decided and done by then is kept; nothing is done twice."""
    path = tmp_path / "run.jsonl"
    await agent([("delete", {"path": "a"})]).run("go", trace=path)

    async def silent(request: ModelRequest) -> ModelResponse:
        await anyio.sleep_forever()
        raise AssertionError

    slow = agent().with_(model=FunctionModel(silent, name=agent().model.name))
    async with slow.resume_stream(path, decisions={"/agent/m0/t0": True}) as run:
        async for event in run:
            if isinstance(event, ToolCallFinished):
                break
    assert run.result.status == "cancelled"
    result = await agent("two").resume(path)
    assert result.output == "two"
    assert done == ["delete a"]


@pytest.mark.parametrize("form", ["resume_stream", "resume_iter"])
async def test_a_resumed_run_that_is_left_at_once_still_waits(tmp_path: Path, form: str) -> None:
    """The block that does nothing takes no decision away."""
    path = tmp_path / "run.jsonl"
    await agent([("delete", {"path": "a"})]).run("go", trace=path)
    async with getattr(agent("one"), form)(path, decisions={"/agent/m0/t0": True}):
        pass
    assert done == []
    result = await agent("two").resume(path, decisions={"/agent/m0/t0": True})
    assert (result.output, done) == ("two", ["delete a"])


async def test_a_resumed_run_can_be_stepped(tmp_path: Path) -> None:
    """The recorded steps come first, with their outcomes; the others can be changed."""
    path = tmp_path / "run.jsonl"
    await agent([("write", {"path": "a"})], [("delete", {"path": "a"})]).run("go", trace=path)
    seen: list[str] = []
    decisions = {"/agent/m1/t0": True}
    async with agent("all done").resume_iter(path, decisions=decisions) as steps:
        async for step in steps:
            seen.append(f"{type(step.effect).__name__} {step.effect.at}")
            if step.effect.at == "/agent/m2":
                step.outcome = ModelResponse(message=AssistantMessage(content="not the model's"))
    assert seen == [
        "ModelCall /agent/m0",
        "ToolBatch /agent/m0",
        "ModelCall /agent/m1",
        "Compute /agent/m1/t0/arguments",
        "Pause /agent/m1",
        "ToolBatch /agent/m1",
        "ModelCall /agent/m2",
    ]
    assert steps.result.output == "not the model's"
    assert done == ["write a", "delete a"]
    assert await agent().replay(path) == steps.result


@pytest.mark.parametrize("form", ["resume", "resume_sync", "resume_stream", "resume_iter"])
def test_the_forms_of_resume_take_the_same(form: str) -> None:
    """`help` and type checkers show the parameters of `resume` for each."""
    expected = inspect.signature(Agent.resume).parameters
    assert inspect.signature(getattr(Agent, form)).parameters == expected


@pytest.mark.parametrize("form", ["resume_stream", "resume_iter"])
async def test_a_form_of_resume_refuses_what_resume_refuses(tmp_path: Path, form: str) -> None:
    """Options are checked before the block, the trace where it begins; nothing stays locked."""
    path = tmp_path / "run.jsonl"
    await agent([("delete", {"path": "a"})]).run("go", trace=path)
    before = path.read_bytes()
    resumed = getattr(agent("fine"), form)
    with pytest.raises(ConfigurationError, match="limits=3: expected"):
        resumed(path, limits=3)
    with pytest.raises(ConfigurationError, match="No call waits at '/agent/m9/t0'"):
        async with resumed(path, decisions={"/agent/m9/t0": True}):
            pass
    with pytest.raises(TraceError, match="There is no trace"):
        async with resumed(tmp_path / "other.jsonl"):
            pass
    assert path.read_bytes() == before
    async with resumed(path, decisions={"/agent/m0/t0": False}) as running:
        async for _ in running:
            pass
    assert running.result.output == "fine"


async def test_a_decision_that_is_not_applied_is_in_the_result_of_a_stream(tmp_path: Path) -> None:
    """The three forms have the same result."""
    path = tmp_path / "run.jsonl"
    await agent([("delete", {"path": "a"}), ("delete", {"path": "b"})]).run("go", trace=path)
    decisions = {"/agent/m0/t0": True}
    async with agent().resume_stream(path, decisions=decisions) as run:
        pass
    result = run.result
    assert (result.status, [one.at for one in result.divergences]) == (
        "cancelled",
        ["/agent/m0/t0"],
    )


async def test_still_undecided_pauses_again(tmp_path: Path) -> None:
    """Without a decision the run pauses at the same place."""
    path = tmp_path / "run.jsonl"
    first = await agent([("delete", {"path": "a"})]).run("go", trace=path)
    again = await agent().resume(path)
    assert (again.status, again.pending) == ("paused", first.pending)


async def test_crash_between_effects_repeats_nothing(tmp_path: Path) -> None:
    """After a kill behind a finished tool, only the next model call is made."""
    path = tmp_path / "run.jsonl"
    await agent([("write", {"path": "a"})], "done").run("go", trace=path)
    cut_after(path, b'"tool.end"')
    done.clear()
    result = await agent("done after all").resume(path)
    assert result.output == "done after all"
    assert done == []
    assert await agent().replay(path) == result


async def test_time_goes_on_behind_the_last_line(tmp_path: Path) -> None:
    """Also where that is a blob, which a kill has parted from the line that names it."""
    path = tmp_path / "run.jsonl"
    await agent([("write", {"path": "a"})], "done").run("go", trace=path)
    cut_after(path, b'"event":"blob"', 4)
    lines = path.read_bytes().splitlines(keepends=True)
    late = {**json.loads(lines[-2]), "t": 60_000_000}
    path.write_bytes(b"".join([*lines[:-2], json.dumps(late).encode() + b"\n", lines[-1]]))
    await agent([("write", {"path": "a"})], "done").resume(path)
    times = [line["t"] for line in trace_lines(path)]
    assert times == sorted(times)


async def test_reading_tool_in_flight_is_made_again(tmp_path: Path) -> None:
    """Reading twice does no harm."""
    path = tmp_path / "run.jsonl"
    await agent([("read", {"path": "a"})], "done").run("go", trace=path)
    cut_after(path, b'"tool.start"')
    done.clear()
    result = await agent("done").resume(path)
    assert done == ["read a"]
    assert await agent().replay(path) == result


async def test_writing_tool_in_flight_is_asked_about(tmp_path: Path) -> None:
    """It may have had its effect: the run pauses, and goes on as somebody decides."""
    path = tmp_path / "run.jsonl"
    await agent([("write", {"path": "a"})], "done").run("go", trace=path)
    cut_after(path, b'"tool.start"')
    done.clear()
    paused = await agent().resume(path)
    assert paused.status == "paused"
    assert paused.pending[0].kind == "in_flight"
    assert done == []
    answer = {paused.pending[0].at: Decision.answer("It was written.")}
    result = await agent("done").resume(path, decisions=answer)
    assert tool_texts(result) == ["It was written."]
    assert done == []
    assert await agent().replay(path) == result


async def test_writing_tool_in_flight_may_be_made_again(tmp_path: Path) -> None:
    """An approver in the process decides at once."""
    path = tmp_path / "run.jsonl"
    await agent([("write", {"path": "a"})], "done").run("go", trace=path)
    cut_after(path, b'"tool.start"')
    done.clear()
    result = await agent("done").resume(path, approver=lambda pending: True)
    assert done == ["write a"]
    assert await agent().replay(path) == result


async def test_changed_agent_does_not_resume(tmp_path: Path) -> None:
    """What is replayed has to be the same, or the first difference is named."""
    path = tmp_path / "run.jsonl"
    await agent([("delete", {"path": "a"})]).run("go", trace=path)
    with pytest.raises(ReplayDivergence, match="/messages/0"):
        await agent("x", instructions="Other.").resume(path)


async def test_running_run_cannot_be_resumed(tmp_path: Path) -> None:
    """The file is locked while its run goes on."""
    path = tmp_path / "run.jsonl"
    async with agent([("read", {"path": "a"})], "done").iter("go", trace=path) as steps:
        await anext(steps)
        with pytest.raises(TraceError, match="another process"):
            await agent().resume(path)


PROGRAM = """
import sys, time
from agentkit import Agent, tool
from agentkit.testing import ScriptedModel

@tool
def slow(number: int) -> int:
    "Take a while."
    with open(sys.argv[2], "a") as log:
        log.write(f"{number}\\n")
    if number == 2 and sys.argv[3] == "hang":
        time.sleep(60)
    return number

script = [[("slow", {"number": n})] for n in (1, 2, 3)] + ["done"]
start = int(sys.argv[4])
agent = Agent(ScriptedModel(script[start:]), tools=[slow])
if sys.argv[3] == "hang":
    agent.run_sync("go", trace=sys.argv[1])
else:
    import anyio
    async def main():
        result = await agent.resume(sys.argv[1], approver=lambda pending: True)
        print(result.output, result.usage.tool_calls)
    anyio.run(main)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_kill_and_resume_in_another_process(tmp_path: Path) -> None:
    """`kill -9` in the middle of a tool; a second process goes on and repeats nothing done."""
    trace, log, program = tmp_path / "run.jsonl", tmp_path / "log", tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [str(program), str(trace), str(log)]
    process = subprocess.Popen([sys.executable, *command, "hang", "0"], env=child_environment())
    deadline = time.monotonic() + 30
    while not (log.exists() and "2" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert Trace.load(trace).status == "interrupted"
    finished = run_loaded(*command, "resume", "2")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == ["done", "3"]
    assert log.read_text().split() == ["1", "2", "2", "3"]


async def test_a_decision_is_for_one_call() -> None:
    """A later call of the same id is asked about again."""

    def calling(path: str) -> ModelResponse:
        call = ToolCall(id="call_0", name="delete", arguments=f'{{"path": "{path}"}}')
        return ModelResponse(message=AssistantMessage(tool_calls=(call,)))

    first = await agent(calling("a")).run("go")
    assert first.trace is not None
    again = await agent(calling("b")).resume(first.trace, decisions={"call_0": True})
    assert done == ["delete a"]
    assert again.status == "paused"
    assert again.pending[0].at == "/agent/m1/t0"


async def test_a_decision_about_another_call_is_refused() -> None:
    """A misspelt address is said, with those that wait."""
    first = await agent([("delete", {"path": "a"})]).run("go")
    assert first.trace is not None
    with pytest.raises(ConfigurationError, match=r"those that wait: /agent/m0/t0 \(delete\)"):
        await agent().resume(first.trace, decisions={"/agnt/m0/t0": Decision.approve()})


async def test_false_is_a_decision() -> None:
    """False denies; it is not "nothing decided"."""
    first = await agent([("delete", {"path": "a"})]).run("go")
    assert first.trace is not None
    result = await agent("ok").resume(first.trace, decisions={first.pending[0].at: False})
    assert tool_texts(result) == ["Denied."]


@pytest.mark.parametrize("kind", ["aprove", True, None])
def test_decisions_are_checked(kind: object) -> None:
    """What is no decision is refused where it is made."""
    with pytest.raises(ConfigurationError, match=r"Decision\.approve"):
        Decision(kind)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="not JSON"):
        Decision.edit("{broken")


async def test_settings_and_limits_of_the_run_are_kept(tmp_path: Path) -> None:
    """What the run was given holds in its resume and its replay."""
    path = tmp_path / "run.jsonl"
    options: Any = {"settings": ChatSettings(temperature=0.1), "limits": Limits(repeats=0)}
    await agent([("delete", {"path": "a"})]).run("go", trace=path, **options)
    at = "/agent/m0/t0"
    same: list[Any] = [[("delete", {"path": "a"})], "done"]
    result = await agent(*same).resume(path, decisions={at: True})
    assert result.output == "done"
    assert done == ["delete a"]
    assert await agent().replay(path) == result


async def test_resume_that_fails_lets_the_file_go(tmp_path: Path) -> None:
    """An error before the run goes on leaves neither lock nor descriptor."""
    path = tmp_path / "run.jsonl"
    await agent([("delete", {"path": "a"})]).run("go", trace=path)
    with pytest.raises(ConfigurationError):
        await agent().resume(path, decisions={"nothing": True})
    assert (await agent().resume(path)).status == "paused"
    with pytest.raises(TraceError, match="There is no trace"):
        await agent().resume(tmp_path / "none" / "run.jsonl")
    assert not (tmp_path / "none").exists()


class Payments(Toolset):
    """Tools that are decided at each step."""

    def tools(self, context: RunContext[None]) -> list[Any]:
        """One tool that needs approval."""
        return [delete]


async def test_resume_with_a_dynamic_toolset(tmp_path: Path) -> None:
    """The tools are there again, although what was offered is recorded."""
    path = tmp_path / "run.jsonl"

    def dynamic(*script: Any) -> Agent[str]:
        return Agent(ScriptedModel(list(script)), tools=[Payments()])

    await dynamic([("delete", {"path": "a"})]).run("go", trace=path)
    result = await dynamic("ok").resume(path, decisions={"/agent/m0/t0": True})
    assert tool_texts(result) == ["deleted a"]
    assert await dynamic().replay(path) == result


async def test_resume_after_a_handoff(tmp_path: Path) -> None:
    """The agent that took over pauses and goes on as the first one would."""
    path = tmp_path / "run.jsonl"

    def front(*second: Any) -> Agent[str]:
        other = Agent(ScriptedModel(list(second)), name="other", tools=[delete])
        first = [[("transfer_to_other", {})]] if len(second) == 1 and path.exists() is False else []
        return Agent(ScriptedModel(first), tools=[Handoff(other)])

    paused = await front([("delete", {"path": "a"})]).run("go", trace=path)
    assert paused.status == "paused"
    result = await front("done").resume(path, decisions={paused.pending[0].at: True})
    assert (result.output, done) == ("done", ["delete a"])


async def test_secrets_in_pending_calls_are_not_run_as_placeholders(tmp_path: Path) -> None:
    """A trace does not hold a secret, so a call with one cannot be made from it."""
    path = tmp_path / "run.jsonl"
    secret = "sk-abcdefghijklmnopqrstuvwxyz123456"
    await agent([("delete", {"path": secret})]).run("go", trace=path)
    with pytest.raises(ConfigurationError, match="held a secret"):
        await agent("x").resume(path, decisions={"/agent/m0/t0": True})
    assert done == []


async def test_model_that_failed_at_the_end_is_asked_again() -> None:
    """A server that was down may be up: resume goes on."""
    with pytest.raises(ModelUnreachable) as failed:
        await agent([("write", {"path": "a"})], ModelUnreachable("down")).run("go")
    assert failed.value.trace is not None
    result = await agent("up again").resume(failed.value.trace)
    assert result.output == "up again"
    assert done == ["write a"]


async def test_recorded_values_are_the_same_after_a_resume(tmp_path: Path) -> None:
    """A call that is made again sees the same UUID, so its idempotency key holds."""
    seen: list[str] = []

    @tool(effect="read")
    def look(context: RunContext[None]) -> str:
        seen.append(str(context.uuid()))
        return "ok"

    def looking(*script: Any) -> Agent[str]:
        return Agent(ScriptedModel(list(script)), tools=[look])

    path = tmp_path / "run.jsonl"
    await looking([("look", {})], "done").run("go", trace=path)
    cut_after(path, b'"det"')
    await looking("done").resume(path)
    assert seen[0] == seen[1]


async def test_a_run_that_waits_for_a_call_in_flight_replays(tmp_path: Path) -> None:
    """After a crash and after a cancellation: it pauses there again."""
    path = tmp_path / "run.jsonl"
    await agent([("write", {"path": "a"}), ("read", {"path": "b"})], "done").run("go", trace=path)
    cut_after(path, b'"tool":"write"')
    paused = await agent().resume(path)
    assert [(one.at, one.kind) for one in paused.pending] == [("/agent/m0/t0", "in_flight")]
    assert tool_texts(paused) == ["Not finished: the run is paused.", "content of b"]
    assert await agent().replay(path) == paused

    begun = anyio.Event()

    @tool
    async def wait() -> None:
        begun.set()
        await anyio.sleep_forever()

    def waiting(*script: Any) -> Agent[str]:
        return Agent(ScriptedModel(list(script)), tools=[wait])

    async with waiting([("wait", {})]).stream("go") as run:
        await begun.wait()
    assert run.result.trace is not None
    paused = await waiting().resume(run.result.trace)
    assert paused.status == "paused"
    assert paused.trace is not None
    assert await waiting().replay(paused.trace) == paused


async def test_two_decisions_about_one_call(tmp_path: Path) -> None:
    """That it may run, and, after a crash, what came of it: a replay has both."""
    path = tmp_path / "run.jsonl"
    await agent([("delete", {"path": "a"})], "done").run(
        "go", trace=path, approver=lambda pending: True
    )
    cut_after(path, b'"tool.start"')
    paused = await agent().resume(path)
    assert [one.kind for one in paused.pending] == ["in_flight"]
    answer = {paused.pending[0].at: Decision.answer("It is gone.")}
    result = await agent("done").resume(path, decisions=answer)
    assert tool_texts(result) == ["It is gone."]
    assert done == ["delete a"]
    assert await agent().replay(path) == result


async def test_a_function_that_failed_at_the_end_is_asked_again() -> None:
    """A bug that ended a run can be mended, and the run goes on."""

    def checked(check: Any, *script: Any) -> Agent[str]:
        return Agent(ScriptedModel(list(script)), tools=TOOLS, output_validators=[check])

    def broken(output: str) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError) as failed:
        await checked(broken, [("write", {"path": "a"})], "all done").run("go")
    reached = result_of(failed.value)
    assert reached is not None
    assert reached.trace is not None
    result = await checked(lambda output: None).resume(reached.trace)
    assert (result.output, done) == ("all done", ["write a"])


def without_approval() -> Agent[str]:
    """The agent after a change: deleting needs no approval any more."""

    @tool(name="delete")
    def just_delete(path: str) -> str:
        """Delete a file."""
        done.append(f"delete {path}")
        return f"deleted {path}"

    return Agent(ScriptedModel(["done"]), tools=[just_delete, write, read])


@pytest.mark.parametrize("decision", [False, None, True, Decision.answer("kept")])
async def test_a_call_that_waits_is_decided_however_the_agent_has_changed(decision: Any) -> None:
    """What waits in the journal does not just run because nobody would be asked now."""
    paused = await agent([("delete", {"path": "a"})]).run("go")
    assert paused.trace is not None
    decisions = {} if decision is None else {paused.pending[0].at: decision}
    result = await without_approval().resume(paused.trace, decisions=decisions)
    assert done == (["delete a"] if decision is True else [])
    if decision is None:
        assert (result.status, result.pending) == ("paused", paused.pending)
        assert result.trace is not None
        assert [one.at for one in result.trace.pending] == [one.at for one in paused.pending]
        return
    answers = {False: "Denied.", True: "deleted a"}
    assert tool_texts(result) == [answers.get(decision, "kept")]
    assert result.trace is not None
    done.clear()
    assert await without_approval().replay(result.trace) == result
    assert done == []


async def test_a_denied_call_stays_denied_in_a_fork() -> None:
    """The agent that asks no more does not run what a person has refused."""
    path = "/agent/m0/t0"
    run = agent([("delete", {"path": "a"})], "fine")
    trace = (await run.run("go", approver=lambda _: False)).trace
    assert trace is not None
    result = await without_approval().fork(trace, at="/agent/m1", live=["delete"])
    assert (tool_texts(result), done) == (["Denied."], [])
    allowed = await without_approval().fork(trace, at=path, result=Decision.approve())
    assert (tool_texts(allowed), done) == (["deleted a"], ["delete a"])


async def test_a_call_that_has_run_is_not_asked_about() -> None:
    """A tool that needs approval only since the run was interrupted has run already."""
    before = without_approval().with_(model=ScriptedModel([[("delete", {"path": "a"})]]))
    with pytest.raises(AgentKitError) as failed:  # the script is over
        await before.run("go")
    assert failed.value.trace is not None
    result = await agent("done").resume(failed.value.trace)
    assert (result.status, done) == ("ok", ["delete a"])


async def test_a_higher_limit_lets_run_what_the_limit_kept_from_running() -> None:
    """The run had ended there: nothing that the model was told since depends on it."""
    calls = [("write", {"path": "a"}), ("delete", {"path": "b"})]
    with pytest.raises(AgentKitError) as failed:
        await agent(calls).run("go", limits=Limits(tool_calls=1))
    trace = failed.value.trace
    assert trace is not None
    with pytest.raises(AgentKitError, match=r"reached Limits\.tool_calls = 1"):
        await agent().resume(trace)
    assert done == []
    paused = await agent().resume(trace, limits=Limits(tool_calls=2))
    assert (paused.status, done) == ("paused", [])  # it still needs approval
    result = await agent("fine").resume(trace, limits=Limits(tool_calls=2), approver=lambda _: True)
    assert (result.output, sorted(done)) == ("fine", ["delete b", "write a"])
    assert result.trace is not None
    assert [one.skipped for one in result.trace.effects.values() if one.kind == "tool"] == [
        None,
        None,
    ]


async def test_more_attempts_let_run_what_came_with_the_last_wrong_output() -> None:
    """The calls of the response that used up the attempts had not run."""
    calls = [("write", {"path": "a"}), ("final_output", {"value": "far"})]
    before = agent(calls).with_(output=int, output_mode="tool", output_retries=0)
    with pytest.raises(AgentKitError) as failed:
        await before.run("go")
    trace = failed.value.trace
    assert (trace is not None, done) == (True, [])
    after = before.with_(model=ScriptedModel([[("final_output", {"value": 3})]]), output_retries=1)
    result = await after.resume(trace)
    assert (result.output, done) == (3, ["write a"])


@pytest.mark.parametrize("decision", [Decision.deny("no"), Decision.answer("kept")])
async def test_a_refused_call_is_never_in_flight(decision: Decision, tmp_path: Path) -> None:
    """A crash while its refusal was recorded does not make a call that may have run."""
    path = tmp_path / "run.jsonl"
    paused = await agent([("delete", {"path": "a"})]).run("go", trace=path)
    at = paused.pending[0].at
    await without_approval().resume(path, decisions={at: decision})
    lines = path.read_bytes().splitlines(keepends=True)
    events = [one["event"] for one in trace_lines(path)]
    assert "tool.start" not in events
    path.write_bytes(b"".join(lines[: events.index("tool.decision") + 1]))
    assert Trace.load(path).pending == ()
    result = await without_approval().resume(path, approver=lambda _: True)
    assert (result.status, done) == ("ok", [])
    assert tool_texts(result) == [decision.said()]


async def test_no_other_file_is_changed(tmp_path: Path) -> None:
    """The last line of what is no trace stays, whether or not it has an end."""
    path = tmp_path / "notes.txt"
    path.write_text("first\nlast, without an end")
    with pytest.raises(TraceError, match="There is no trace"):
        await agent().resume(path)
    assert path.read_text() == "first\nlast, without an end"


async def test_a_whole_last_line_counts_without_its_end(tmp_path: Path) -> None:
    """What `Trace.pending` has is what a resumption is asked to decide about."""
    path = tmp_path / "run.jsonl"
    await agent([("write", {"path": "a"})], "fine").run("go", trace=path)
    done.clear()
    lines = path.read_bytes().splitlines(keepends=True)
    begun = next(n for n, one in enumerate(trace_lines(path)) if one["event"] == "tool.start")
    path.write_bytes(b"".join(lines[: begun + 1])[:-1])
    [waiting] = Trace.load(path).pending
    result = await agent("fine").resume(path, decisions={waiting.at: Decision.answer("kept")})
    assert (tool_texts(result), done) == (["kept"], [])
    assert Trace.load(path).status == "ok"


async def test_what_a_function_used_before_it_failed_counts() -> None:
    """A resumption has what is left of the limits, not more."""

    async def check(ctx: RunContext[Any], output: str) -> None:
        await ctx.run(Agent(ScriptedModel(["no"]), name="judge"), "Is it good?")
        raise ToolError("It is not good.")

    run = agent("bad").with_(output_validators=[check])
    with pytest.raises(AgentKitError) as failed:  # the script is over
        await run.run("go", limits=Limits(steps=3))
    assert failed.value.trace is not None
    with pytest.raises(AgentKitError, match=r"Limits\.steps = 3") as reached:
        await run.with_(model=ScriptedModel(["good"])).resume(failed.value.trace)
    result = result_of(reached.value)
    assert result is not None
    assert result.usage.requests == 3


async def test_limits_of_a_resumption_hold_in_its_replay(tmp_path: Path) -> None:
    """The trace has them, and what comes after it is run with them."""
    path = tmp_path / "run.jsonl"
    with pytest.raises(AgentKitError, match=r"Limits\.steps = 1"):
        await agent([("write", {"path": "a"})]).run("go", trace=path, limits=Limits(steps=1))
    result = await agent("fine").resume(path, limits=Limits(steps=2))
    assert Trace.load(path).options()["limits"]["steps"] == 2
    assert await agent().replay(path) == result
    forked = await agent("other").fork(path, at="/agent/m1")
    assert forked.output == "other"


async def test_settings_of_a_resumption_hold_from_there_on(tmp_path: Path) -> None:
    """Requests of before had others; the replay takes both for what they are."""
    path = tmp_path / "run.jsonl"
    old, new = ChatSettings(temperature=0.1), ChatSettings(temperature=0.9, seed=3)
    await agent([("delete", {"path": "a"})]).run("go", trace=path, settings=old)
    resumed = agent("fine")
    result = await resumed.resume(path, decisions={"/agent/m0/t0": True}, settings=new)
    model: Any = resumed.model
    assert model.requests[0].settings == {"temperature": 0.9, "seed": 3}
    trace = Trace.load(path)
    assert trace.options()["settings"]["seed"] == 3
    assert await agent().replay(path) == result
    with pytest.raises(ReplayDivergence, match="/messages/0"):
        await agent(instructions="Other.").replay(path)
    with pytest.raises(ReplayDivergence, match=r"at /agent/m1, /params/temperature"):
        await agent().replay(_with_temperature(trace, 0.5))


def _with_temperature(trace: Trace, temperature: float) -> Trace:
    """The trace with another temperature in its last request."""
    lines = [json.loads(line) for line in trace.raw()]
    last = next(line for line in reversed(lines) if line["event"] == "model.start")
    last["params"]["temperature"], last["fp"] = temperature, "b2:other"
    return Trace([json.dumps(line).encode() + b"\n" for line in lines])


def finishing(*script: Any, **options: Any) -> Agent[Any]:
    """An agent whose output goes to a function that writes."""

    def send(text: str) -> dict[str, str]:
        """Send the answer."""
        done.append(f"send {text}")
        return {"sent": text}

    output: Any = tool(**options)(send) if options else send
    return Agent(ScriptedModel(list(script)), output=output, output_mode="json")


async def sending(path: Path, **options: Any) -> None:
    """Leave the trace of a run whose process died while its output was sent."""
    await finishing('{"text": "hi"}', **options).run("go", trace=path)
    cut_after(path, b'"compute.start"')
    done.clear()


async def test_an_output_function_in_flight_is_asked_about(tmp_path: Path) -> None:
    """It may have had its effect, as a tool that writes: the run pauses."""
    path = tmp_path / "run.jsonl"
    await sending(path)
    [waiting] = Trace.load(path).pending
    assert (waiting.at, waiting.kind) == ("/agent/m0/output", "in_flight")
    assert waiting.call.arguments == '{"text": "hi"}'
    paused = await finishing().resume(path)
    assert (paused.status, paused.pending, done) == ("paused", (waiting,), [])
    assert await finishing().replay(path) == paused
    decisions = {waiting.at: Decision.answer('{"sent": "by hand"}')}
    result = await finishing().resume(path, decisions=decisions)
    assert (result.output, done) == ({"sent": "by hand"}, [])
    assert await finishing().replay(path) == result


async def test_an_output_function_in_flight_may_be_called_again(tmp_path: Path) -> None:
    """A person approves it, or its author has said that twice does no harm."""
    path = tmp_path / "run.jsonl"
    await sending(path)
    result = await finishing().resume(path, approver=lambda _: True)
    assert (result.output, done) == ({"sent": "hi"}, ["send hi"])
    assert await finishing().replay(path) == result
    for number, options in enumerate(({"effect": "read"}, {"on_crash": "retry"})):
        path = tmp_path / f"{number}.jsonl"
        await sending(path, **options)
        assert Trace.load(path).pending == ()
        result = await finishing(**options).resume(path)
        assert (result.output, done) == ({"sent": "hi"}, ["send hi"])


async def test_an_output_function_in_flight_may_be_denied(tmp_path: Path) -> None:
    """The run ends, and stays so."""
    path = tmp_path / "run.jsonl"
    await sending(path)
    for _ in range(2):
        with pytest.raises(AgentKitError, match="Denied: No"):
            await finishing().resume(path, approver=lambda _: Decision.deny("No."))
    assert done == []


@pytest.mark.parametrize(
    ("options", "ran", "text"),
    [
        ({"on_crash": "retry"}, True, "wrote a"),
        ({"on_crash": "fail"}, False, "It was interrupted, and may have had its effect."),
        ({"effect": "read", "on_crash": "ask"}, False, None),
    ],
)
async def test_on_crash_decides_about_a_call_in_flight(
    options: Any, ran: bool, text: str | None, tmp_path: Path
) -> None:
    """Whatever the tool does to the world; the trace says what waits."""

    def made(*script: Any) -> Agent[str]:
        return Agent(ScriptedModel(list(script)), tools=[write.with_(**options)])

    path = tmp_path / "run.jsonl"
    await made([("write", {"path": "a"})], "fine").run("go", trace=path)
    cut_after(path, b'"tool.start"')
    done.clear()
    waits = [one.kind for one in Trace.load(path).pending]
    assert waits == (["in_flight"] if text is None else [])
    result = await made("fine").resume(path)
    assert done == (["write a"] if ran else [])
    assert result.status == ("paused" if text is None else "ok")
    if text is not None:
        assert tool_texts(result) == [text]
        assert await made().replay(path) == result


@pytest.mark.parametrize(
    "tail",
    [b"123", b'"text"', b"{}", b'{"event": 3}', b'{"event":"blob"}', b"\xff", b'{"event":"to'],
)
async def test_what_is_torn_for_a_reader_is_torn_for_a_resumption(
    tail: bytes, tmp_path: Path
) -> None:
    """One rule: a last line without its end counts if it is an event."""
    path = tmp_path / "run.jsonl"
    await agent([("delete", {"path": "a"})]).run("go", trace=path)
    path.write_bytes(path.read_bytes() + tail)
    trace = Trace.load(path)
    assert trace.torn
    result = await agent("fine").resume(path, decisions={"/agent/m0/t0": True})
    assert result.output == "fine"
    whole = Trace.load(path)
    assert (whole.torn, whole.lines) == (False, len(path.read_bytes().splitlines()))
    copied = trace.save(tmp_path / "copy.jsonl")
    assert await agent().replay(copied) == await agent().replay(trace)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"trace.open",
        b'a note about "trace.open"\nand a last line',
        b'{"event":"trace.open"}\n{"event":"to',
        b'{"event":"trace.open","schema":"agentkit.trace/2"}\n{"event":"to',
        b'{"event":"log"}\n{"event":"trace.open"}\n{"event":"to',
    ],
)
async def test_a_file_that_is_no_trace_stays_as_it_is(content: bytes, tmp_path: Path) -> None:
    """Byte for byte, whatever its lines speak of."""
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(TraceError):
        await agent().resume(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("wrong", ["capture", "agent", "decisions", "damage", "lock"])
async def test_a_refused_resumption_changes_no_byte(wrong: str, tmp_path: Path) -> None:
    """The torn last line included."""
    path = tmp_path / "run.jsonl"
    capture: Any = "metadata" if wrong == "capture" else "full"
    await agent([("delete", {"path": "a"})]).run("go", trace=path, capture=capture)
    torn = path.read_bytes() + b'{"event":"to'
    if wrong == "damage":
        torn = torn.replace(b'"kind":"approval"', b'"kind":"nothing"')
    path.write_bytes(torn)
    other = agent(name="other") if wrong == "agent" else agent()
    decisions = {"/agent/m9/t0": True} if wrong == "decisions" else None
    lock = FileSink(path, resume=True) if wrong == "lock" else None
    with pytest.raises(AgentKitError):
        await other.resume(path, decisions=decisions)
    if lock is not None:
        lock.close()
    assert path.read_bytes() == torn
