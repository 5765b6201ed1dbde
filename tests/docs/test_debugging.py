"""The steps of docs/tutorial/debugging.md, from the wrong answer to the test."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agentkit.cli.commands.test_from import plugin_arguments
from tests.support import LOADED, ROOT, run_loaded

PAGE = (ROOT / "docs/tutorial/debugging.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the program and its trace, as at the start of the page."""
    shutil.copy(ROOT / "examples/weather.py", tmp_path)
    shutil.copy(ROOT / "examples/traces/boston.jsonl", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def fix_tool(folder: Path) -> None:
    """Replace the program's tool by the fixed one of the page."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    [tool] = [block for block in blocks if block.startswith("@tool")]
    program = folder / "weather.py"
    old = program.read_text(encoding="utf-8")
    begin, end = old.index("@tool"), old.index("agent = Agent(")
    program.write_text(f"{old[:begin]}{tool}\n\n{old[end:]}", encoding="utf-8")


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a Python module or `agentkit` in the folder."""
    main = ["-c", "from agentkit.cli import main; main()"]
    return run_loaded(*(main if arguments[0] != "-m" else []), *arguments, cwd=folder, **variables)


def expected_output(command: str) -> list[str]:
    """Return the lines that a command prints, according to the page."""
    after = PAGE.split(f"\n{command}", 1)[1]
    return re.findall(r"```text\n(.*?)```", after, re.DOTALL)[0].strip().splitlines()


def test_the_trace_shows_the_wrong_result(folder: Path) -> None:
    """`show` prints what the page quotes, apart from times, and the trace replays."""
    shown = run(folder, "show", "boston.jsonl").stdout
    for line in expected_output("agentkit show boston.jsonl"):
        assert re.sub(r"\d+\.\d\d s", "s", line) in re.sub(r"\d+\.\d\d s", "s", shown)
    replayed = run(folder, "replay", "boston.jsonl", "--app", "weather.py:agent")
    assert replayed.returncode == 0, replayed.stderr
    assert '"celsius": 68' in replayed.stdout


def test_the_fixed_tool_is_the_only_difference(folder: Path) -> None:
    """Replayed live against the model's recorded answers, only its result differs."""
    fix_tool(folder)
    live = ("--app", "weather.py:agent", "--plan", "tools_live")
    replayed = run(folder, "replay", "boston.jsonl", *live)
    assert replayed.returncode == 1
    for line in expected_output("agentkit replay boston.jsonl")[:3]:
        assert line in replayed.stdout
    assert "weather.py:21" in replayed.stdout


@pytest.mark.storm_only
@pytest.mark.local
def test_the_fork_becomes_a_test(folder: Path) -> None:
    """The fork answers 20 °C, and the test made of its trace fails when the bug is back."""
    fix_tool(folder)
    arguments = ("--app", "weather.py:agent", "--at", "m0/t0", "--trace", "fixed.jsonl")
    forked = run(folder, "fork", "boston.jsonl", *arguments)
    assert forked.returncode == 0, forked.stderr
    for line in expected_output("agentkit fork boston.jsonl"):
        assert line in forked.stdout
    generated = run(
        folder,
        *("test-from", "fixed.jsonl", "--app", "weather.py:agent", "--live", "get_weather"),
        FORKS_EXECUTABLE=str(LOADED.executable()),
    )
    assert generated.returncode == 0, generated.stderr + generated.stdout
    test = (folder / "test_what_is_the_weather_in_boston.py").read_text(encoding="utf-8")
    [quoted] = [b for b in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "pytest" in b]
    # The page is formatted to this project's line length, the generated test to 88 columns.
    assert "".join(quoted.split()) in "".join(test.split())
    shutil.copy(ROOT / "examples/weather.py", folder)  # the bug is back
    failed = run(folder, "-m", "pytest", "-q", *plugin_arguments())
    assert failed.returncode == 1
    assert "result_changed at /agent/m0/t0" in failed.stdout
