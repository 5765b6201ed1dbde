"""The story of docs/tutorial/debugging.md, from the wrong answer to the test."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agentkit.cli.commands.test_from import plugin_arguments
from tests.support import ROOT

PAGE = (ROOT / "docs/tutorial/debugging.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program and its trace, as the page begins with them."""
    shutil.copy(ROOT / "examples/weather.py", tmp_path)
    shutil.copy(ROOT / "examples/traces/boston.jsonl", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def repair(folder: Path) -> None:
    """Put the tool of the page into the program."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    [tool] = [block for block in blocks if block.startswith("@tool")]
    program = folder / "weather.py"
    old = program.read_text(encoding="utf-8")
    begin, end = old.index("@tool"), old.index("agent = Agent(")
    program.write_text(f"{old[:begin]}{tool}\n\n{old[end:]}", encoding="utf-8")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python module or `agentkit` in the folder."""
    main = ["-c", "from agentkit.cli import main; main()"]
    command = [sys.executable, *(main if arguments[0] != "-m" else []), *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False
    )


def blocks_of(command: str) -> list[str]:
    """What the page says that a command prints."""
    after = PAGE.split(f"\n{command}", 1)[1]
    return re.findall(r"```text\n(.*?)```", after, re.DOTALL)[0].strip().splitlines()


def test_the_run_shows_who_is_wrong(folder: Path) -> None:
    """The trace shows what the page shows, but for times, and replays as it is."""
    shown = run(folder, "show", "boston.jsonl").stdout
    for line in blocks_of("agentkit show boston.jsonl"):
        assert re.sub(r"\d+\.\d\d s", "s", line) in re.sub(r"\d+\.\d\d s", "s", shown)
    again = run(folder, "replay", "boston.jsonl", "--app", "weather.py:agent")
    assert again.returncode == 0, again.stderr
    assert '"celsius": 68' in again.stdout


def test_the_repaired_tool_says_something_else(folder: Path) -> None:
    """Run for real against the recorded answers, it is the one thing that differs."""
    repair(folder)
    live = ("--app", "weather.py:agent", "--policy", "tools_live")
    replayed = run(folder, "replay", "boston.jsonl", *live)
    assert replayed.returncode == 1
    for line in blocks_of("agentkit replay boston.jsonl")[:3]:
        assert line in replayed.stdout
    assert "weather.py:21" in replayed.stdout


@pytest.mark.local
def test_the_fork_becomes_a_test(folder: Path) -> None:
    """The model says 20 °C in the fork, and its trace is a test that guards the tool."""
    repair(folder)
    arguments = ("--app", "weather.py:agent", "--at", "m0/t0", "--trace", "fixed.jsonl")
    forked = run(folder, "fork", "boston.jsonl", *arguments)
    assert forked.returncode == 0, forked.stderr
    for line in blocks_of("agentkit fork boston.jsonl"):
        assert line in forked.stdout
    made = run(
        folder,
        *("test-from", "fixed.jsonl", "--app", "weather.py:agent", "--live-tool", "get_weather"),
    )
    assert made.returncode == 0, made.stderr + made.stdout
    test = (folder / "test_what_is_the_weather_in_boston.py").read_text(encoding="utf-8")
    [shown] = [b for b in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "pytest" in b]
    assert shown in test
    shutil.copy(ROOT / "examples/weather.py", folder)  # the mistake is back
    failed = run(folder, "-m", "pytest", "-q", *plugin_arguments())
    assert failed.returncode == 1
    assert "result_changed at /agent/m0/t0" in failed.stdout
