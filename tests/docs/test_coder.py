"""The coding helper of examples/, with a person who approves and denies."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentkit.testing import ChatServer, ScriptedModel, reply
from examples import coder
from tests.support import tool_texts

pytestmark = pytest.mark.anyio


async def test_a_coder_changes_what_is_approved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The change is shown; a denied one is not made, and the model reads why."""
    (tmp_path / "app.py").write_text("def main(): ...\n")
    answers: Iterator[str] = iter(["not in capitals", "y"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    loud = {"path": "app.py", "old": "def main", "new": "def START"}
    quiet = {"path": "app.py", "old": "def main", "new": "def start"}
    model = ScriptedModel([[("edit_file", loud)], [("edit_file", quiet)], "Renamed."])
    result = await coder.make_agent(model, tmp_path).run("Rename main", approver=coder.ask)
    assert result.output == "Renamed."
    assert (tmp_path / "app.py").read_text() == "def start(): ...\n"
    assert "not in capitals" in tool_texts(result)[0]
    assert "--- app.py" in capsys.readouterr().out


async def test_a_change_that_nobody_can_approve_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal the model reads that nobody is there."""

    def closed(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", closed)
    model = ScriptedModel([[("write_file", {"path": "a.py", "text": "x"})], "Not done."])
    result = await coder.make_agent(model, tmp_path).run("Write", approver=coder.ask)
    assert "Nobody is there to approve it." in tool_texts(result)[0]
    assert not (tmp_path / "a.py").exists()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Call the command line with these arguments."""
    monkeypatch.setattr(sys, "argv", ["coder.py", *arguments])
    coder.main()


def test_the_command_line_asks_the_model_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It reads the folder, asks before it writes, prints the answer and leaves a trace."""
    folder = tmp_path / "src"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda prompt: "yes")
    script = [
        reply(calls=[("write_file", {"path": "a.py", "text": "x = 1\n"})]),
        reply("Written."),
    ]
    with ChatServer(script) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        run(monkeypatch, str(folder), "Write a.py", "--model", "openai:gpt-4o")
        assert server.requests[0].json["model"] == "gpt-4o"
    assert (folder / "a.py").read_text() == "x = 1\n"
    assert capsys.readouterr().out.splitlines() == [
        "",
        "write_file",
        "--- a.py",
        "@@ -0,0 +1 @@",
        "+x = 1",
        "Written.",
    ]
    assert (tmp_path / "coder.jsonl").exists()


def test_the_command_line_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model and a folder that do not exist, and a second run beside the first one's trace."""
    monkeypatch.chdir(tmp_path)
    for arguments, text in [
        ([".", "?", "--model", "no:x"], "UnknownModel"),
        (["none", "?", "--model", "openai:gpt-4o"], "none"),
    ]:
        with pytest.raises(SystemExit) as stop:
            run(monkeypatch, *arguments)
        assert stop.value.code == 1
        assert text in capsys.readouterr().err
