"""`agentkit diff`, as a user runs it: real processes, real exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentkit import Agent
from agentkit.testing import ScriptedModel
from tests.cli.support import agentkit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs of one agent, and one with another answer."""
    for name, answer in (("a", "four"), ("b", "four"), ("c", "\x1b[31mfive\n")):
        agent = Agent(ScriptedModel([answer]), instructions="Add.")
        agent.run_sync("2 + 2", trace=tmp_path / f"{name}.jsonl")
    return tmp_path


def test_same_runs(folder: Path) -> None:
    """Status 0, and it is said."""
    done = agentkit("diff", "a.jsonl", "b.jsonl", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "The runs are the same." in done.stdout


def test_different_runs(folder: Path) -> None:
    """Status 1, and the first cause in full; nothing that a terminal obeys."""
    done = agentkit("diff", "a.jsonl", "c.jsonl", cwd=folder)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    begin = lines.index("First cause, at /agent/m0 (scripted): response")
    assert lines[begin + 1 : begin + 4] == [
        "  /message/content",
        "    a: 'four'",
        r"    b: '\x1b[31mfive\n'",
    ]
    assert "\x1b" not in done.stdout


def test_json(folder: Path) -> None:
    """The same as data, with the same status."""
    done = agentkit("diff", "a.jsonl", "c.jsonl", "--json", cwd=folder)
    assert (done.returncode, done.stderr) == (1, "")
    found = json.loads(done.stdout)
    assert [(one["at"], one["kind"]) for one in found["differences"]] == [
        ("/agent/m0", "response"),
        ("/agent", "output"),
    ]
    same = agentkit("diff", "a.jsonl", "b.jsonl", "--json", cwd=folder)
    assert (same.returncode, json.loads(same.stdout)["differences"]) == (0, [])


def test_unusable_files(folder: Path) -> None:
    """Status 2 and one line, as for every command."""
    (folder / "text").write_text("hello\n")
    for other in ("missing.jsonl", "text"):
        done = agentkit("diff", "a.jsonl", other, cwd=folder)
        assert (done.returncode, done.stdout) == (2, "")
        assert other in done.stderr
        assert "Traceback" not in done.stderr
