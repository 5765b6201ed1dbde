"""The background worker of examples/, killed and started again."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentkit import Trace
from agentkit.testing import ScriptedModel
from examples import worker

pytestmark = pytest.mark.anyio


def cut(trace: Path) -> None:
    """Cut a trace off behind its tool call, as a kill would."""
    lines = trace.read_bytes().splitlines(keepends=True)
    (end,) = [at for at, line in enumerate(lines) if b'"tool.end"' in line]
    trace.write_bytes(b"".join(lines[: end + 1]) + b'{"half a li')


async def test_a_worker_resumes_unfinished_jobs_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is recorded is not done again, and what is finished is left alone."""
    (tmp_path / "b.txt").write_text("What is 19% of 250?")
    model = ScriptedModel([[("calculate", {"expression": "19% of 250"})], "47.50"])
    await worker.work(worker.make_agent(model), tmp_path)
    assert (tmp_path / "b.out").read_text() == "47.50\n"
    cut(tmp_path / "b.jsonl")
    (tmp_path / "a.txt").write_text("Hello")
    capsys.readouterr()

    model = ScriptedModel(["47.5, again", "Good day."])
    await worker.work(worker.make_agent(model), tmp_path)
    assert capsys.readouterr().out == "b.txt: resumed\nb.txt: ok\na.txt: ok\n"
    assert (tmp_path / "b.out").read_text() == "47.5, again\n"
    assert (tmp_path / "a.out").read_text() == "Good day.\n"
    assert Trace.load(tmp_path / "b.jsonl").status == "ok"

    await worker.work(worker.make_agent(ScriptedModel([])), tmp_path)
    assert capsys.readouterr().out == ""


async def test_a_worker_survives_a_job_that_cannot_be_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the reason and goes on."""
    (tmp_path / "a.txt").write_text("Hello")
    (tmp_path / "a.jsonl").write_text("not a trace\n")
    (tmp_path / "b.txt").write_text("Hello")
    await worker.work(worker.make_agent(ScriptedModel(["Good day."])), tmp_path)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("a.txt: Trace")
    assert second == "b.txt: ok"
