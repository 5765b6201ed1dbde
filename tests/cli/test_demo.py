"""`agentkit demo`, as a user runs it: also on the embedded model, with real weights."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agentkit import Trace
from agentkit.testing import ChatServer, raw, reply
from tests.cli.support import COMMAND, agentkit, environment, on_terminal, screen
from tests.support import ROOT

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and pseudo-terminals")


def agentkit_at_home(*arguments: str, state: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in the project's folder."""
    return agentkit(*arguments, cwd=ROOT, AGENTKIT_STATE_DIR=str(state))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo on the embedded model, run once, at a terminal: its state, and what it wrote."""
    state = tmp_path_factory.mktemp("state")
    variables = {"AGENTKIT_STATE_DIR": str(state), "TERM": "xterm", "COLUMNS": "120"}
    status, written = on_terminal(ROOT, ["demo"], [], b"", **variables)
    assert status == 0, written
    return state, written


@posix
@pytest.mark.local
def test_the_demo_and_the_two_commands_that_it_names(demo: tuple[Path, str]) -> None:
    """Two parallel calls, a typed result that is right, and both next commands work."""
    state, written = demo
    lines = screen(written)
    printed = re.search(r"^\{.*?^\}", "\n".join(lines), re.MULTILINE | re.DOTALL)
    assert printed is not None, lines
    assert json.loads(printed.group()) == {
        "city": "Tokyo",
        "sky": "cloudy",
        "celsius": 17,
        "time": "22:40",
    }
    commands = [line.split() for line in lines if line.startswith("  agentkit")]
    assert [command[1] for command in commands] == ["show", "replay"]
    for command in commands:
        done = agentkit_at_home(*command[1:], state=state)
        assert done.returncode == 0, done.stderr
    assert "answered from the recording, none made" in done.stdout
    (path,) = (state / "traces").iterdir()
    trace = Trace.load(path)
    calls = [event for event in trace.events if event["event"] == "tool.start"]
    assert sorted(event["tool"] for event in calls) == ["get_time", "get_weather"]


@posix
@pytest.mark.local
def test_replay_of_an_edited_example_names_the_difference(
    demo: tuple[Path, str], tmp_path: Path
) -> None:
    """The address and the pointer of the first difference, without a model."""
    (path,) = (demo[0] / "traces").iterdir()
    source = (ROOT / "examples" / "quickstart.py").read_text()
    edited = source.replace("output=Now,", 'output=Now,\n    instructions="Be brief.",')
    (tmp_path / "app.py").write_text(edited)
    done = agentkit("replay", str(path), "--app", "app.py:agent", cwd=tmp_path)
    assert done.returncode == 1
    assert "request_changed at /agent/m0, /messages/0" in done.stderr


@pytest.mark.storm_only
@pytest.mark.local
@posix
def test_ctrl_c_leaves_no_process_and_a_readable_trace(tmp_path: Path) -> None:
    """Interrupted while the model answers: exit 130, nothing runs on, `show` reads the trace."""
    demo = subprocess.Popen(
        [*COMMAND, "demo"],
        cwd=ROOT,
        env=environment(tmp_path) | {"AGENTKIT_STATE_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    deadline = time.monotonic() + 120
    traces = tmp_path / "traces"
    while not any(b'"http.start"' in path.read_bytes() for path in traces.glob("*.jsonl")):
        assert time.monotonic() < deadline
        assert demo.poll() is None, demo.communicate()
        time.sleep(0.01)
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130, errors
    assert "Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.killpg(demo.pid, 0)
    (path,) = traces.iterdir()
    assert path.read_bytes().endswith(b"\n")
    assert Trace.load(path).status == "cancelled"
    shown = agentkit_at_home("show", str(path), state=tmp_path)
    assert shown.returncode == 0
    assert "cancelled" in shown.stdout


def test_the_example_is_the_demo() -> None:
    """`examples/quickstart.py` and the file that the demo runs are the same."""
    example = (ROOT / "examples" / "quickstart.py").read_text()
    assert example == (ROOT / "agentkit" / "cli" / "quickstart.py").read_text()


def answered(request: Any) -> Any:
    """The demo's model: one call, then the answer."""
    if request.json["messages"][-1]["role"] == "tool":
        return reply('{"city":"Tokyo","sky":"cloudy","celsius":17,"time":"22:40"}')
    return reply(calls=[("get_time", {"city": "Tokyo"})])


def test_demo_names_the_file_in_a_folder_and_commands_that_work(tmp_path: Path) -> None:
    """With another model than the file's, too: the commands are run as they are printed."""
    key = {"OPENAI_API_KEY": "none"}
    with ChatServer(answered) as server:
        key["OPENAI_BASE_URL"] = server.base_url
        done = agentkit("demo", "--trace", "my runs", cwd=tmp_path, **key)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "my runs").iterdir()
    assert f"The trace is in {path}" in done.stdout
    commands = [line for line in done.stdout.splitlines() if line.startswith("  agentkit")]
    assert [command.split()[1] for command in commands] == ["show", "replay"]
    for command in commands:
        again = agentkit(*shlex.split(command)[1:], cwd=tmp_path)
        assert again.returncode == 0, again.stderr
    assert "answered from the recording, none made" in again.stdout


def test_demo_that_failed_suggests_to_look(tmp_path: Path) -> None:
    """Not to replay what has failed."""
    with ChatServer([raw(400, {"error": {"message": "no such thing"}})]) as server:
        arguments = ("demo", "--model", "small", "--base-url", server.base_url)
        done = agentkit(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "no such thing" in done.stderr
    (path,) = (tmp_path / "state" / "traces").iterdir()
    assert f"  agentkit show {path}" in done.stdout
    assert "agentkit replay" not in done.stdout


def test_help_names_the_arguments(tmp_path: Path) -> None:
    """What is given by place is called so, and not also an option."""
    text = agentkit("show", "--help", cwd=tmp_path).stdout
    assert "agentkit show [OPTIONS] TRACE" in text
    assert "--trace" not in text


def test_demo_in_a_pipe_prints_what_it_is_at(tmp_path: Path) -> None:
    """Plain lines on stderr, as things begin and end; of a server, nothing about a small model."""
    with ChatServer(answered) as server:
        arguments = ("demo", "--model", "small", "--base-url", server.base_url)
        done = agentkit(*arguments, cwd=tmp_path, columns=None)
    assert done.stderr.splitlines() == [
        "/agent/m0 asks compatible:small …",
        "/agent/m0 done",
        "/agent/m0/t0 runs get_time …",
        "/agent/m0/t0 done",
        "/agent/m1 asks compatible:small …",
        "/agent/m1 done",
    ]
    assert "embedded model" not in done.stdout


@pytest.mark.local
@posix
def test_something_moves_while_the_embedded_model_loads(demo: tuple[Path, str]) -> None:
    """On a terminal the first lines change at once; in the end stands what the model can do."""
    _, text = demo
    frames = re.findall("([⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]) Loading the embedded model (\\d+\\.\\d) s", text)
    assert len({*frames}) > 1
    assert text.index("Loading the embedded model") < text.index("step")
    for words in ("picks tools and copies values", "does not reason", "agentkit models"):
        assert words in text
