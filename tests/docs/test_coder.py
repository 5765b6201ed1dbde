"""The coding helper of examples/, with a person who approves and denies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentkit.testing import ScriptedModel
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
