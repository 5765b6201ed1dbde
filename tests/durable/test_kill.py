"""Workers that are killed at random points: nothing is done twice, nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentkit import Agent, Trace, tool
from agentkit.errors import TraceLocked
from agentkit.testing import ScriptedModel
from tests.durable import frozen
from tests.durable.kill import Killer
from tests.support import ROOT, child_environment, sized

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and locks")


@needs_signals
@pytest.mark.storm
def test_no_kill_repeats_or_loses_an_effect(tmp_path: Path) -> None:
    """A hundred of them, on asyncio and trio by turns; `make kill N=1000` does more.

    `make test` stops before, once each point was hit.
    """
    killer = Killer(tmp_path, seed=7)
    points = {
        "between an effect and its record",
        "during resume",
        "inside a batch",
        "inside a sub-agent",
        "waiting for a decision",
        "while a model answers",
    }
    for kills in range(sized(25, 100), 101, 25):
        killer.run(kills)
        assert killer.problems == [], killer.summary()
        if killer.points.keys() >= points:
            break
    assert killer.points.keys() >= points


@needs_signals
def test_the_kills_find_what_is_done_twice(tmp_path: Path) -> None:
    """Where a person approves every call in flight without looking, effects are repeated."""
    killer = Killer(tmp_path, seed=7, careless=True)
    for kills in range(15, 91, 15):  # on a busy machine few hit the moment before a record
        killer.run(kills)
        if any("happened 2 times" in problem for problem in killer.problems):
            return
    pytest.fail(killer.summary())


@pytest.mark.anyio
async def test_a_frozen_process_that_goes_on_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without locks another process could resume meanwhile; the run of the first one ends."""
    monkeypatch.setattr("agentkit.trace.file._locked", lambda descriptor: None)
    done: list[str] = []

    @tool(effect="read")
    def note(text: str) -> str:
        """Note something."""
        done.append(text)
        return "noted"

    script = [[("note", {"text": "one"})], [("note", {"text": "two"})], "Done."]
    path = tmp_path / "run.jsonl"
    async with Agent(ScriptedModel(script), tools=[note]).iter("Go.", trace=path) as frozen:
        await anext(frozen)
        await anext(frozen)  # the first answer is recorded
        second = Agent(ScriptedModel(script[1:]), tools=[note])
        result = await second.resume(path)
        written = path.read_bytes()
        with pytest.raises(TraceLocked, match="was written by another process"):
            async for _ in frozen:
                pass
            frozen.result  # noqa: B018 # raises
    assert path.read_bytes() == written
    assert Trace.load(path).status == "ok"
    assert result.output == "Done."
    assert done.count("two") == 1


@contextmanager
def stopped(folder: Path, *options: str) -> Generator[subprocess.Popen[str]]:
    """Stop a process with SIGSTOP while the first tool of its run is at work."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.durable.frozen", str(folder), *options],
        cwd=ROOT,
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not (folder / "notes.txt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        (folder / "go").touch()
        yield process
    finally:
        process.kill()
        process.communicate()


def went_on(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Continue a process that was stopped, and return what it wrote until its end."""
    process.send_signal(signal.SIGCONT)
    return process.communicate(timeout=60)


@needs_signals
@pytest.mark.anyio
async def test_a_stopped_process_keeps_its_trace_from_others(tmp_path: Path) -> None:
    """The second gets a clear error and writes nothing; the first goes on when it is continued."""
    path = tmp_path / "run.jsonl"
    with stopped(tmp_path) as process:
        written = path.read_bytes()
        with pytest.raises(TraceLocked, match="is being written by another process"):
            await frozen.agent(tmp_path, answers=1).resume(path)
        assert path.read_bytes() == written
        assert went_on(process) == ("Done.", "")
    assert Trace.load(path).status == "ok"
    assert (tmp_path / "notes.txt").read_text() == "one\ntwo\n"


@needs_signals
@pytest.mark.anyio
async def test_a_stopped_process_without_a_lock_ends_when_it_is_continued(tmp_path: Path) -> None:
    """The second has resumed its run: the first gets a clear error and writes nothing."""
    path = tmp_path / "run.jsonl"
    with stopped(tmp_path, "unlocked") as process:
        result = await frozen.agent(tmp_path, answers=1).resume(path)
        written, notes = path.read_bytes(), (tmp_path / "notes.txt").read_text()
        output, error = went_on(process)
    assert result.output == "Done."
    assert notes == "one\none\ntwo\n"  # what was in flight only reads, and ran again
    assert (output, process.returncode) == ("", 1)
    assert "TraceLocked" in error
    assert "was written by another process, which goes on with this run" in error
    assert path.read_bytes() == written
    assert (tmp_path / "notes.txt").read_text() == notes
    assert Trace.load(path).status == "ok"
