"""`agentkit trace doctor`, as a user runs it: what an application does differently each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.support import agentkit

APP = '''
import itertools
import time

from agentkit import Agent, RunContext, ToolError, tool
from agentkit.testing import ScriptedModel

numbers, sent = itertools.count(), itertools.count()
IMPORTED = time.time_ns()


def instructions():
    return f"Call {next(numbers)}."


@tool(effect="read")
def draw(size: int) -> str:
    """Draw a number."""
    return f"drawn {next(numbers)}"


@tool(effect="read")
def clock(context: RunContext[None]) -> str:
    """The time of the run."""
    return str(context.now())


@tool
def send(text: str) -> str:
    """Send something."""
    print("sent")
    return f"sent as {next(sent)}"


@tool(approval=True)
def remove() -> str:
    """Remove something."""


CALLS = [[("draw", {"size": 1}), ("clock", {}), ("send", {"text": "x"})], [("draw", {"size": 2})]]
model = ScriptedModel([*CALLS, "Done."])
good = Agent(ScriptedModel([[("clock", {})], "Done."]), tools=[clock], instructions="Be brief.")
tools = Agent(model, tools=[draw, clock, send], instructions="Be brief.")
prompt = Agent(ScriptedModel(["Done."]), instructions=instructions)
fixed = Agent(ScriptedModel(["Done."]), instructions=f"It is {IMPORTED}.")
failing = Agent(ScriptedModel([CALLS[0]]), tools=[draw], instructions="Be brief.")
paused = Agent(ScriptedModel([[("remove", {})]]), tools=[remove])
silent = Agent(ScriptedModel([]), instructions="Be brief.")
inventing = Agent(ScriptedModel([[("nosuch", {}), ("clock", {})], "Done."]), tools=[clock])
below = Agent(ScriptedModel(["Done."] * 2), name="below", instructions=instructions)
asks = ScriptedModel([[("below", {"prompt": "x"})], "Done."])
above = Agent(asks, tools=[below.as_tool()], instructions=lambda: "Be brief.")
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the application."""
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def line_of(text: str) -> int:
    """The number of a line of the application."""
    return APP.splitlines().index(text) + 1


def test_deterministic_application(folder: Path) -> None:
    """Status 0. What comes from the context is recorded, so the time is no difference."""
    done = agentkit("trace", "doctor", "--app", "app.py:good", "go", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Nothing differed" in done.stdout


def test_tools(folder: Path) -> None:
    """A tool that answers otherwise is shown once, with its line; writing ones run once."""
    done = agentkit("trace", "doctor", "--app", "app.py:tools", "go", cwd=folder)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    place = f"app.py:{line_of('def draw(size: int) -> str:') - 1}"  # its decorator
    assert lines[0] == "sent"
    assert lines[1].startswith("/agent/m0/t0  draw  (")
    assert lines[1].endswith(f"{place})")
    assert lines[2:6] == [
        "  /content, character 6",
        "    first:  'drawn 0'",
        "    second: 'drawn 2'",
        "  also at /agent/m1/t0",
    ]
    assert lines[6] == "send was not run: it may write (--all-tools)"
    assert "clock" not in done.stdout


def test_all_tools(folder: Path) -> None:
    """With --all-tools the writing ones run twice, too."""
    done = agentkit("trace", "doctor", "--app", "app.py:tools", "go", "--all-tools", cwd=folder)
    assert done.stdout.count("sent\n") == 2
    assert "/agent/m0/t2  send" in done.stdout
    assert "was not run" not in done.stdout


def test_computed_instructions(folder: Path) -> None:
    """Instructions that change each time, with the function's line."""
    done = agentkit("trace", "doctor", "--app", "app.py:prompt", "go", cwd=folder)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("/agent/instructions  instructions  (")
    assert lines[0].endswith(f"app.py:{line_of('def instructions():')})")
    assert lines[1:] == [
        "  /value, character 5",
        "    first:  'Call 0.'",
        "    second: 'Call 1.'",
    ]


def test_what_an_import_changes(folder: Path) -> None:
    """A text that is made while the file is imported is the same in both runs, and found."""
    done = agentkit("trace", "doctor", "--app", "app.py:fixed", "go", cwd=folder)
    assert done.returncode == 1
    assert done.stdout.startswith("When the file is imported again:\n  /instructions, character ")


def test_runs_that_do_not_end_well(folder: Path) -> None:
    """A run that fails or waits is checked as far as it went, and that is said."""
    done = agentkit("trace", "doctor", "--app", "app.py:failing", "go", cwd=folder)
    assert done.returncode == 1
    assert "The run failed, and is checked as far as it went" in done.stderr
    assert "/agent/m0/t0  draw" in done.stdout
    done = agentkit("trace", "doctor", "--app", "app.py:paused", "go", cwd=folder)
    assert done.returncode == 0
    assert done.stderr == "The run is paused, and is checked as far as it went.\n"


def test_wrong_calls(folder: Path) -> None:
    """Without the agent there is nothing to run: status 2."""
    done = agentkit("trace", "doctor", "--app", "app.py:nobody", "go", cwd=folder)
    assert done.returncode == 2
    assert "'nobody'" in done.stderr


def test_a_tool_that_the_model_made_up(folder: Path) -> None:
    """There is nothing to run, so it is not said that something was not."""
    done = agentkit("trace", "doctor", "--app", "app.py:inventing", "go", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Nothing differed")


def test_a_model_that_answers_nothing(folder: Path) -> None:
    """No run came to an end, which is no success."""
    done = agentkit("trace", "doctor", "--app", "app.py:silent", "go", cwd=folder)
    assert done.returncode == 1
    assert done.stdout == "No run reached an end: the model answered nothing.\n"


def test_instructions_of_a_sub_agent(folder: Path) -> None:
    """With the line of its own function, not with that of the agent above."""
    done = agentkit("trace", "doctor", "--app", "app.py:above", "go", cwd=folder)
    assert done.returncode == 1
    first = done.stdout.splitlines()[0]
    assert first.startswith("/agent/m0/t0/below/instructions  instructions  (")
    assert first.endswith(f"app.py:{line_of('def instructions():')})")
