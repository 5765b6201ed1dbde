"""Workers that are killed at random points: nothing is done twice, nothing is lost."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agentkit import Agent, Trace, tool
from agentkit.errors import TraceLocked
from agentkit.testing import ScriptedModel
from tests.durable.kill import Killer

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and locks")


@needs_signals
def test_no_kill_repeats_or_loses_an_effect(tmp_path: Path) -> None:
    """A hundred of them, on asyncio and trio by turns; `make kill N=1000` does more."""
    killer = Killer(tmp_path, seed=7)
    killer.run(100)
    assert killer.problems == [], killer.summary()
    assert killer.points.keys() >= {
        "between an effect and its record",
        "during resume",
        "inside a batch",
        "inside a sub-agent",
        "waiting for a decision",
        "while a model answers",
    }


@needs_signals
def test_the_kills_find_what_is_done_twice(tmp_path: Path) -> None:
    """Where a person approves every call in flight without looking, effects are repeated."""
    killer = Killer(tmp_path, seed=7, careless=True)
    killer.run(15)
    assert any("happened 2 times" in problem for problem in killer.problems), killer.summary()


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
