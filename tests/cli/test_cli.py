"""The command line, as a user runs it: real processes, real exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agentkit import Agent
from agentkit.cli.console import shown
from agentkit.testing import ScriptedModel
from tests.cli.support import COMMAND, agentkit
from tests.support import LOADED, child_environment, run_loaded

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
        (
            ["replay", "run.jsonl", "--app", "app.py:count"],
            "gives a value of type int; expected an Agent",
        ),
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
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status
    assert says in done.stderr
    assert done.stderr.count("\n") == bool(says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "none.jsonl"], "No such file"),
        (["show", "."], "'.' is a folder. `agentkit runs .` lists the runs in it."),
        (["show", os.devnull], "does not begin with"),
        (["show", "count.jsonl", "--json", "--raw"], "give one of them"),
        (["show"], "requires an argument"),
        (["runs", "none"], "No such file or folder"),
        (["grep", "(", "."], "'(' is not a regular expression: missing )"),
        (["grep", "x", "none"], "No such file or folder"),
        (["replay", ".", "--app", "x.py"], "is a folder"),
    ],
)
def test_wrong_calls(runs: Path, arguments: list[str], says: str) -> None:
    """Status 2, a message that names the mistake, and nothing on stdout."""
    done = agentkit(*arguments, cwd=runs)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "count.jsonl"],
        ["show", "hello.jsonl", "--at", "m0"],
        ["runs", "."],
        ["models"],
        ["models", "openai"],
    ],
)
def test_forty_columns_are_enough(runs: Path, arguments: list[str]) -> None:
    """No line is longer, and no word is cut where there is room for it."""
    done = agentkit(*arguments, cwd=runs, columns=40)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 40
    expected = {"show": " ✓ ", "runs": "polite", "models": "OPENAI_API_KEY"}
    assert expected[arguments[0]] in done.stdout


def test_a_pipe_is_not_wrapped(runs: Path) -> None:
    """Programs get whole lines, without spaces at their ends."""
    done = agentkit("show", "hello.jsonl", cwd=runs, columns=None)
    assert "word " * 59 + "word" in done.stdout
    done = agentkit("models", "openai", cwd=runs, columns=None)
    assert all(line == line.rstrip() for line in done.stdout.splitlines())
    assert "Authorization: Bearer" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell with pipes")
@pytest.mark.parametrize("arguments", ["show long.jsonl --raw", "show long.jsonl", "grep x ."])
def test_a_reader_that_goes_away(runs: Path, tmp_path: Path, arguments: str) -> None:
    """As of `git log | head`: nothing is said, and the status is that of SIGPIPE."""
    head = (runs / "count.jsonl").read_bytes()
    call = {"event": "tool.start", "seq": 9, "t": 9, "tool": "x", "arguments": "x" * 90}
    call |= {"call": "c", "effect": "read", "fp": "b2:0"}
    lines = [json.dumps({**call, "at": f"/agent/m{number}/t0"}) for number in range(3000)]
    (tmp_path / "long.jsonl").write_bytes(head + "\n".join(lines).encode() + b"\n")
    program = f"{LOADED.executable()} -c '{COMMAND[-1]}' {arguments}"
    done = subprocess.run(
        ["bash", "-c", f'{program} | head -1 > /dev/null; echo "${{PIPESTATUS[0]}}"'],
        cwd=tmp_path,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("141\n", "")


# commands to paste


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell and scripts")
@pytest.mark.parametrize(
    ("path", "start", "printed"),
    [
        ("", "'my env/bin/agentkit'", "'my env/bin/agentkit'"),
        ("my env/bin", "agentkit", "agentkit"),
        ("my env/bin", "'my env/bin/agentkit'", "agentkit"),
        ("my env/bin", "../other/agentkit", "../other/agentkit"),
        ("", "{python} -m agentkit", "{python} -m agentkit"),
        ("{bin}", "python -m agentkit", "python -m agentkit"),
        ("", "cd 'my env/bin' && ./agentkit", "./agentkit"),
    ],
)
def test_printed_commands_can_be_pasted(
    recorded: Path, path: str, start: str, printed: str
) -> None:
    """As the program was started, whether the shell finds it or not."""
    python = LOADED.executable()
    names = {"python": python, "bin": python.parent}
    path, start, printed = (one.format_map(names) for one in (path, start, printed))
    script = f"#!{python}\nfrom agentkit.cli import main\nmain()\n"
    for folder in (recorded / "my env" / "bin", recorded.parent / "other"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "agentkit").write_text(script)
        (folder / "agentkit").chmod(0o755)
    lines = (recorded / "run.jsonl").read_bytes().splitlines(keepends=True)
    trace = recorded / "killed run.jsonl"
    trace.write_bytes(b"".join(lines[:-2]))

    def shell(command: str) -> str:
        variables = child_environment(PATH=f"{recorded / path}:/usr/bin:/bin" if path else "/bin")
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=recorded,
            env=variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout + done.stderr

    shown_run = shell(f"{start} show '{trace}'")
    command = next(line for line in shown_run.splitlines() if "Go on: " in line)[len("Go on: ") :]
    assert command == f"{printed} resume '{trace}' --app FILE.py:NAME"
    moved = f"{start.rpartition('&&')[0]}&& " if "&&" in start else ""
    assert "There is no file 'FILE.py'" in shell(moved + command)


def test_version(tmp_path: Path) -> None:
    """The distribution's; also where the command line is started as a module."""
    done = agentkit("--version", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    module = run_loaded("-m", "agentkit", "--version", cwd=tmp_path)
    assert module.stdout == done.stdout
    assert re.fullmatch(r"\d+\.\d+.*|unknown", done.stdout.strip())


def test_without_the_extra(tmp_path: Path) -> None:
    """The exit says what to install, however it is started."""
    hidden = (
        "import importlib.util as u, runpy, sys; find = u.find_spec; "
        "u.find_spec = lambda name, *more: None if name == 'cyclopts' else find(name, *more); "
    )
    for start in (
        "from agentkit.cli import main; main()",
        "runpy.run_module('agentkit', run_name='__main__')",
    ):
        done = subprocess.run(
            [sys.executable, "-c", hidden + start],
            cwd=tmp_path,
            env=child_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert (
            done.stderr == 'The command line needs cyclopts: pip install "agentkit-replay[cli]"\n'
        )
