"""The command line, as a user runs it: real processes, real exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentkit import Agent
from agentkit.cli.view.tree import shown
from agentkit.testing import ScriptedModel

APP = """
from agentkit import Agent, tool
from agentkit.testing import ScriptedModel

@tool
def double(number: int) -> int:
    "Double a number."
    raise SystemExit("a replay runs no tool")

model = ScriptedModel([])
agent = Agent(model, tools=[double], instructions="Add.")
other = Agent(model, name="other")
count = 3
"""


def agentkit(
    *arguments: str, cwd: Path, typed: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the console script's entry point; `typed` is piped in."""
    command = [sys.executable, "-c", "from agentkit.cli import main; main()", *arguments]
    environment = os.environ | {"COLUMNS": "120", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A folder with an application and a trace of its agent."""

    def double(number: int) -> int:
        """Double a number."""
        return 2 * number

    model = ScriptedModel([[("double", {"number": 1}), ("double", {"number": 2})], "six"])
    agent = Agent(model, tools=[double], instructions="Add.")
    agent.run_sync("Add \x1b[31mthem", trace=tmp_path / "run.jsonl")
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def test_show_prints_the_tree(recorded: Path) -> None:
    """Steps, calls, results, output and tokens are there."""
    done = agentkit("show", "run.jsonl", cwd=recorded)
    assert done.returncode == 0, done.stderr
    for part in ("m0", "t1", "double", '{"number":2}', "six", "2 model calls", "ok"):
        assert part in done.stdout


def test_hostile_text_is_made_visible(recorded: Path) -> None:
    """Escape sequences in a trace do not reach the terminal."""
    done = agentkit("show", "run.jsonl", cwd=recorded)
    assert "\x1b" not in done.stdout
    assert r"Add \x1b[31mthem" in done.stdout


def test_shown_makes_bidirectional_overrides_visible() -> None:
    """Text cannot be made to read otherwise than it is."""
    assert shown("a\u202eb") == r"a\u202eb"


def test_replay_says_what_it_did(recorded: Path) -> None:
    """Offline, without a model and without tools, and it says so."""
    done = agentkit("replay", "run.jsonl", "--app", "app.py:agent", cwd=recorded)
    assert done.returncode == 0, done.stderr
    assert "2 model calls and 2 tool calls answered from the recording, none made" in done.stdout


def test_replay_of_an_edited_agent_names_the_first_difference(recorded: Path) -> None:
    """The exit code is 1 and the address and the pointer are printed."""
    (recorded / "app.py").write_text(APP.replace("Add.", "Multiply."))
    done = agentkit("replay", "run.jsonl", "--app", "app.py:agent", cwd=recorded)
    assert done.returncode == 1
    assert "request_changed at /agent/m0, /messages/0/content" in done.stderr
    assert "'Add.'" in done.stderr
    assert "'Multiply.'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["replay", "run.jsonl", "--app", "none.py:agent"], "There is no file 'none.py'"),
        (["replay", "run.jsonl", "--app", "nothing_here:agent"], "'nothing_here'"),
        (["replay", "run.jsonl", "--app", "app.py:agnt"], "it has the agents agent, other"),
        (["trace", "doctor", "--app", "app.py", "go"], "names no agent"),
        (["replay", "run.jsonl", "--app", "app.py:count"], "is a int, not an Agent"),
        (["replay", "none.jsonl", "--app", "app.py:agent"], "No such file"),
        (["show", "app.py"], "does not begin with"),
        (["demo", "--model", "opnai:gpt-4o"], "opnai"),
        (["demo", "--base-url", "http://127.0.0.1:9"], "--model"),
    ],
)
def test_wrong_input_is_one_clear_line(recorded: Path, arguments: list[str], says: str) -> None:
    """No traceback, a failing exit code, and a message that names the mistake."""
    done = agentkit(*arguments, cwd=recorded)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_trace_of_another_schema_is_refused(recorded: Path) -> None:
    """A newer schema is named, and what to do."""
    path = recorded / "run.jsonl"
    path.write_bytes(path.read_bytes().replace(b"agentkit.trace/1", b"agentkit.trace/7", 1))
    done = agentkit("show", "run.jsonl", cwd=recorded)
    assert done.returncode == 2
    assert "agentkit.trace/7" in done.stderr


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            "import os\n\n\ndef read():\n    raise ValueError('no env')\n\n\nread()\n",
            "5: ValueError: no env",
        ),
        ("import json\nagent = json.loads('{')\n", "2: JSONDecodeError: "),
        ("agent = (\n", "1: SyntaxError: '(' was never closed"),
    ],
    ids=["raises", "library", "syntax"],
)
def test_an_application_that_cannot_be_imported(recorded: Path, source: str, says: str) -> None:
    """The innermost line of its own is named."""
    (recorded / "x.py").write_text(source)
    done = agentkit("replay", "run.jsonl", "--app", "x.py", cwd=recorded)
    assert done.returncode == 2
    assert f"x.py fails while it is imported: x.py:{says}" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full and a shell")
@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        ("show run.jsonl > /dev/full", 1, "No space left on device"),
        ("show run.jsonl --raw > /dev/full", 1, "No space left on device"),
        ("show run.jsonl --json > /dev/full", 1, "No space left on device"),
        ("show run.jsonl >&-", 0, ""),
        ("show none.jsonl >&-", 2, "No such file"),
        ("show run.jsonl 2>&- >&-", 0, ""),
        ("show none.jsonl 2>&-", 2, ""),
        ("step run.jsonl <&- > /dev/null", 0, "step> "),
    ],
)
def test_streams_that_are_closed_or_full(
    recorded: Path, command: str, status: int, says: str
) -> None:
    """At most one message, no traceback, and a status that says how it went."""
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "from agentkit.cli import main; main()" {command}'],
        cwd=recorded,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status
    assert says in done.stderr
    assert done.stderr.count("\n") == bool(says)
