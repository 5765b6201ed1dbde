"""`resume_all`: what becomes of the unfinished runs of a folder when a process starts again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from agentkit import Agent, AgentKitError, ChatSettings, Decision, ModelRequest, Trace
from agentkit.durable import Resumed, resume_all, unfinished
from agentkit.errors import ConfigurationError, ModelUnreachable, TraceError
from agentkit.testing import FunctionModel, ScriptedModel
from tests.effects import delete, done, read, write
from tests.support import tool_texts

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_done")]


def agent(*script: Any, name: str = "agent", **options: Any) -> Agent[Any]:
    """An agent with three tools."""
    return Agent(ScriptedModel(list(script)), name=name, tools=[delete, write, read], **options)


async def ran(path: Path, *script: Any, kill: bytes | None = None, **options: Any) -> Path:
    """Record a run, and cut its trace off behind an event, as a kill would."""
    await agent(*script, **options).run("Go.", trace=path)
    if kill is not None:
        kill_after(path, kill)
    done.clear()
    return path


def kill_after(path: Path, event: bytes) -> None:
    """Cut a trace off in the line behind the first one of an event."""
    lines = path.read_bytes().splitlines(keepends=True)
    end = next(at for at, line in enumerate(lines) if event in line)
    path.write_bytes(b"".join(lines[: end + 1]) + b'{"event":"to')


def contents(folder: Path) -> dict[Path, bytes]:
    """The files of a folder."""
    return {file: file.read_bytes() for file in folder.iterdir()}


def cut(path: Path, lines: int) -> None:
    """Cut the last lines of a trace off."""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-lines]))


def outcomes(resumed: tuple[Resumed, ...]) -> dict[str, str]:
    """What became of each run, by the name of its file."""
    return {one.path.stem: one.outcome for one in resumed}


async def test_each_run_of_a_folder_has_its_outcome(tmp_path: Path) -> None:
    """One that is damaged, locked, changed or of another agent keeps no other from going on."""
    await ran(tmp_path / "a-read.jsonl", [("read", {"path": "a"})], "Old.", kill=b'"tool.start"')
    await ran(tmp_path / "b-wrote.jsonl", [("write", {"path": "b"})], "Old.", kill=b'"tool.end"')
    await ran(tmp_path / "c-write.jsonl", [("write", {"path": "c"})], "Old.", kill=b'"tool.start"')
    await ran(tmp_path / "d-waits.jsonl", [("delete", {"path": "d"})])
    await ran(tmp_path / "e-ended.jsonl", "Old.")
    (tmp_path / "f-torn.jsonl").write_text('{"event":"trace.o')
    await ran(tmp_path / "g-other.jsonl", "Old.", name="other", kill=b'"model.start"')
    await ran(tmp_path / "h-new.jsonl", "Old.", instructions="Old.", kill=b'"model.start"')
    await ran(tmp_path / "i-none.jsonl", "Old.", capture="metadata", kill=b'"model.start"')
    await ran(tmp_path / "j-model.jsonl", "Old.", kill=b'"model.start"')
    (tmp_path / "k-notes.txt").write_text("no trace")
    before = contents(tmp_path)

    def answer(request: ModelRequest) -> str:
        if request.messages[-1].text == "Go.":
            raise ModelUnreachable("the server is down")
        return f"After {len(request.messages)} messages."

    mine = agent().with_(model=FunctionModel(answer, name="scripted"))
    async with agent("x").iter("Go.", trace=tmp_path / "l-locked.jsonl") as steps:
        await anext(steps)
        resumed = await resume_all(tmp_path, [mine, agent(name="second")])
    assert outcomes(resumed) == {
        "a-read": "finished",
        "b-wrote": "finished",
        "c-write": "paused",
        "d-waits": "paused",
        "f-torn": "unreadable",
        "g-other": "unknown_agent",
        "h-new": "changed",
        "i-none": "unreadable",
        "j-model": "failed",
        "l-locked": "locked",
    }
    assert done == ["read a"]
    by = {one.path.stem[0]: one for one in resumed}
    assert by["a"].result is not None
    assert by["a"].result.output == "After 3 messages."
    assert (by["a"].agent, by["a"].run) == ("agent", by["a"].result.run)
    assert [(one.at, one.kind) for one in by["c"].pending] == [("/agent/m0/t0", "in_flight")]
    assert [(one.at, one.kind) for one in by["d"].pending] == [("/agent/m0/t0", "approval")]
    assert str(by["d"]) == (
        "d-waits.jsonl: paused: waits for a decision about delete at /agent/m0/t0"
    )
    assert str(by["g"]) == (
        "g-other.jsonl: unknown_agent: It is a run of the agent 'other'; the agents here are "
        "'agent', 'second'."
    )
    assert "the instructions: /messages/0/content: 'Old.' → (absent)" in str(by["h"].error)
    assert "capture='metadata'" in str(by["i"].error)
    assert isinstance(by["j"].error, ModelUnreachable)
    assert "another process" in str(by["l"].error)
    now = contents(tmp_path)
    assert {file for file in before if now[file] != before[file]} == {
        tmp_path / f"{name}.jsonl" for name in ("a-read", "b-wrote", "c-write", "j-model")
    }


async def test_a_run_that_was_resumed_is_not_resumed_again(tmp_path: Path) -> None:
    """Neither one that has ended nor one that waits is touched by the next start."""
    await ran(tmp_path / "a.jsonl", "Old.", kill=b'"model.start"')
    await ran(tmp_path / "b.jsonl", [("write", {"path": "b"})], "Old.", kill=b'"tool.start"')
    mine = agent("New.")
    assert [*outcomes(await resume_all(tmp_path, [mine])).values()] == ["finished", "paused"]
    before = contents(tmp_path)
    (waiting,) = await resume_all(tmp_path, [mine])
    assert (waiting.outcome, waiting.result, len(waiting.pending)) == ("paused", None, 1)
    assert contents(tmp_path) == before
    assert unfinished(tmp_path) == [tmp_path / "b.jsonl"]


async def test_what_waits_goes_on_with_a_decision(tmp_path: Path) -> None:
    """From an approver for all, or from the options of one run."""
    for name in ("a", "b", "c"):
        await ran(tmp_path / f"{name}.jsonl", [("delete", {"path": name})])

    def options(trace: Trace) -> dict[str, Any]:
        assert trace.path is not None
        decision = Decision.answer("It is gone.")
        return {"decisions": {"/agent/m0/t0": decision}} if trace.path.stem == "b" else {}

    (_, second, _) = await resume_all(tmp_path, [agent("Done.")], options=options)
    assert second.outcome == "finished"
    assert tool_texts(second.result) == ["It is gone."]
    assert done == []
    resumed = await resume_all(tmp_path, [agent("Done.", "Done.")], approver=lambda _: True)
    assert outcomes(resumed) == {"a": "finished", "c": "finished"}
    assert sorted(done) == ["delete a", "delete c"]


async def test_options_that_fail_or_do_not_fit_concern_one_run(tmp_path: Path) -> None:
    """A run that was given a model needs it again, and the trace has only its name."""
    await ran(tmp_path / "a.jsonl", "Old.", kill=b'"model.start"')
    path = tmp_path / "b.jsonl"
    await agent().run("Go.", trace=path, model=ScriptedModel(["Old."], name="tenant"))
    cut(path, 3)
    (_, refused) = await resume_all(tmp_path, [agent("New.")])
    assert refused.outcome == "refused"
    assert "The run was given model='tenant'" in str(refused)

    def model(trace: Trace) -> dict[str, Any]:
        return {"model": ScriptedModel(["New."], name="tenant")}

    def broken(trace: Trace) -> dict[str, Any]:
        raise LookupError("no such tenant")

    (refused,) = await resume_all(tmp_path, [agent()], options=broken)
    assert (refused.outcome, str(refused.error)) == ("refused", "no such tenant")
    (finished,) = await resume_all(tmp_path, [agent()], options=model)
    assert finished.outcome == "finished"


async def test_force_goes_on_with_changed_agents(tmp_path: Path) -> None:
    """All of them; each warns of what has changed."""
    await ran(tmp_path / "a.jsonl", [("write", {"path": "a"})], "Old.", kill=b'"tool.end"')
    changed = agent("New.", instructions="Be brief.")
    assert outcomes(await resume_all(tmp_path, [changed])) == {"a": "changed"}
    (resumed,) = await resume_all(tmp_path, [changed], force=True)
    assert resumed.outcome == "finished"
    assert resumed.result is not None
    assert [one.code for one in resumed.result.warnings] == ["program_changed"]


async def test_a_run_whose_sub_agent_has_changed_stays_unfinished(tmp_path: Path) -> None:
    """That shows only on the way: the run is not ended by it, and goes on with the right one."""

    def front(inner: Any, *script: Any, **options: Any) -> Agent[Any]:
        helper = agent(*inner, name="helper", **options)
        return Agent(ScriptedModel(list(script)), tools=[helper.as_tool()])

    call, path = [("delete", {"path": "a"})], tmp_path / "a.jsonl"
    await front([call], [("helper", {"prompt": "Clean up."})]).run("Go.", trace=path)
    for _ in range(2):
        changed = front([], instructions="Be long.")
        (resumed,) = await resume_all(tmp_path, [changed], approver=lambda _: True)
        assert resumed.outcome == "changed"
    (resumed,) = await resume_all(tmp_path, [front(["Clean."], "Done.")], approver=lambda _: True)
    assert resumed.outcome == "finished", resumed.error
    assert done == ["delete a"]
    assert await front([]).replay(path) == resumed.result


async def test_no_more_than_so_many_go_on_at_the_same_time(tmp_path: Path) -> None:
    """`parallel` bounds them, and all of them go on."""
    for number in range(12):
        await ran(tmp_path / f"{number:02}.jsonl", "Old.", kill=b'"model.start"')
    now = most = 0

    async def answer(request: ModelRequest) -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await anyio.sleep(0.01)
        now -= 1
        return "New."

    mine = agent().with_(model=FunctionModel(answer, name="scripted"))
    resumed = await resume_all(tmp_path, [mine], parallel=3)
    assert {one.outcome for one in resumed} == {"finished"}
    assert [one.path.stem for one in resumed] == [f"{number:02}" for number in range(12)]
    assert most == 3


async def test_cancelled_runs_are_unfinished_where_that_is_said(tmp_path: Path) -> None:
    """A process that is stopped in order cancels its runs; by default that is their end."""
    path = tmp_path / "a.jsonl"

    async def silent(request: ModelRequest) -> str:
        scope.cancel()
        await anyio.sleep_forever()
        raise AssertionError

    with anyio.CancelScope() as scope:
        await agent().with_(model=FunctionModel(silent, name="scripted")).run("Go.", trace=path)
    assert Trace.load(path).status == "cancelled"
    assert await resume_all(tmp_path, [agent("New.")]) == ()
    (resumed,) = await resume_all(tmp_path, [agent("New.")], cancelled=True)
    assert resumed.outcome == "finished"


async def test_what_cannot_be_meant_is_refused_before_anything_runs(tmp_path: Path) -> None:
    """No folder, no agents, two of one name."""
    await ran(tmp_path / "a.jsonl", "Old.", kill=b'"model.start"')
    before = (tmp_path / "a.jsonl").read_bytes()
    twins: Any = [agent("New."), agent("New.")]
    with pytest.raises(ConfigurationError, match="Two of the agents are called 'agent'"):
        await resume_all(tmp_path, twins)
    with pytest.raises(ConfigurationError, match="agents='agent': expected a list of agents"):
        await resume_all(tmp_path, "agent")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="expected a list of agents"):
        await resume_all(tmp_path, agent())  # type: ignore[arg-type]
    for number in (0, True, "3"):
        with pytest.raises(ConfigurationError, match=r"parallel=.*: expected an integer"):
            await resume_all(tmp_path, [agent()], parallel=number)  # type: ignore[arg-type]
    with pytest.raises(TraceError, match=r"There is no folder '.*/none' with traces"):
        await resume_all(tmp_path / "none", [agent()])
    with pytest.raises(TraceError, match="There is no folder"):
        await resume_all(tmp_path / "a.jsonl", [agent()])
    (unknown,) = await resume_all(tmp_path, [])
    assert "the agents here are none" in str(unknown)
    assert (tmp_path / "a.jsonl").read_bytes() == before


async def test_settings_with_credentials_are_given_again(tmp_path: Path) -> None:
    """The trace does not have them."""
    path = tmp_path / "a.jsonl"
    secret = ChatSettings(extra_headers={"Authorization": "Bearer sk-abcdefghijklmnopqrst"})
    await agent("Old.").run("Go.", trace=path, settings=secret)
    cut(path, 3)
    (refused,) = await resume_all(tmp_path, [agent("New.")])
    assert (refused.outcome, type(refused.error)) == ("refused", ConfigurationError)
    (finished,) = await resume_all(
        tmp_path, [agent("New.")], options=lambda _: {"settings": secret}
    )
    assert finished.outcome == "finished", finished.error


async def test_a_bug_of_the_application_ends_one_run(tmp_path: Path) -> None:
    """It is the run's error, with what it had reached."""
    await ran(tmp_path / "a.jsonl", "Old.", kill=b'"model.start"')
    await ran(tmp_path / "b.jsonl", "Old.", kill=b'"model.start"')

    def check(output: str) -> None:
        if output == "First.":
            raise KeyError("a bug")

    mine = agent("First.", "Second.", output_validators=[check])
    failed, finished = await resume_all(tmp_path, [mine], parallel=1)
    assert (failed.outcome, finished.outcome) == ("failed", "finished")
    assert isinstance(failed.error, KeyError)
    assert not isinstance(failed.error, AgentKitError)
    assert failed.result is not None
    assert failed.result.status == "error"
