"""The background worker of examples/, killed and started again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentkit import Trace
from agentkit.testing import HOLD, ChatServer, ScriptedModel, reply
from examples import worker
from tests.support import ROOT, child_environment

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
    assert capsys.readouterr().out == "b.jsonl: finished\na.txt: ok\n"
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
    assert first.startswith("a.jsonl: unreadable: ")
    assert second == "b.txt: ok"


async def test_an_answer_that_was_not_written_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A worker killed between the run's end and its file leaves nothing to be done again."""
    (tmp_path / "a.txt").write_text("Hello")
    await worker.work(worker.make_agent(ScriptedModel(["Good day."])), tmp_path)
    (tmp_path / "a.out").unlink()
    await worker.work(worker.make_agent(ScriptedModel([])), tmp_path)
    assert (tmp_path / "a.out").read_text() == "Good day.\n"


def start(folder: Path, server: ChatServer) -> subprocess.Popen[str]:
    """Start a worker as a process."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "worker.py"), ".", "--model", "openai:gpt-4o"],
        cwd=folder,
        env=child_environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="k"),
        stdout=subprocess.PIPE,
        text=True,
    )


def outputs(folder: Path) -> dict[str, str]:
    """Return the answers in a folder by the names of their jobs."""
    return {file.stem: file.read_text() for file in folder.glob("*.out")}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the workers are processes either way
async def test_two_workers_share_a_folder_and_one_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anyio_backend: str
) -> None:
    """No job is done twice; what the dead one had begun is resumed by the next."""
    for name in "abcd":
        (tmp_path / f"{name}.txt").write_text(name)

    def model(request: Any) -> Any:
        # The first request of each is held, so that both are at work at the same time.
        return reply("Done.", delay=HOLD if request.index < 2 else 0)

    with ChatServer(model) as server:
        killed, other = start(tmp_path, server), start(tmp_path, server)
        with anyio.fail_after(60):
            while len(server.requests) < 2:
                await anyio.sleep(0.02)
        killed.kill()
        killed.communicate()
        server.release()
        await anyio.to_thread.run_sync(other.communicate)
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        await worker.work(worker.make_agent("openai:gpt-4o"), tmp_path)
        prompts = [request.json["messages"][-1]["content"] for request in server.requests]
    assert prompts[0] != prompts[1]
    # Asked once each, but for the dead one's: it had no answer.
    assert sorted(prompts) in [sorted([*"abcd", again]) for again in prompts[:2]]
    assert outputs(tmp_path) == dict.fromkeys("abcd", "Done.\n")


def test_the_command_line_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model and a folder that do not exist, without a traceback."""
    (tmp_path / "a.txt").write_text("Hello")
    monkeypatch.setattr(sys, "argv", ["worker.py", str(tmp_path), "--model", "no:x"])
    with pytest.raises(SystemExit):
        worker.main()
    assert "UnknownModel" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["worker.py", str(tmp_path / "none")])
    with pytest.raises(SystemExit):
        worker.main()
    assert f"there is no folder {tmp_path / 'none'}" in capsys.readouterr().err


def test_the_command_line_works_on_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the model that is named."""
    (tmp_path / "a.txt").write_text("Hello")
    with ChatServer([reply("Good day.")]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        monkeypatch.setattr(sys, "argv", ["worker.py", str(tmp_path), "--model", "openai:gpt-4o"])
        worker.main()
        (request,) = server.requests
    assert request.json["model"] == "gpt-4o"
    assert capsys.readouterr().out == "a.txt: ok\n"
    assert (tmp_path / "a.out").read_text() == "Good day.\n"
