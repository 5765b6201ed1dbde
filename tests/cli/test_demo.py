"""The demo on the embedded model, end to end: real weights, real processes, no script."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentkit import Trace
from tests.support import ROOT

pytestmark = pytest.mark.local
COMMAND = [sys.executable, "-c", "from agentkit.cli import main; main()"]


def environment(folder: Path) -> dict[str, str]:
    """The user's own, but for keys, and with a state folder of the test's."""
    kept = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    state = {"AGENTKIT_STATE_DIR": str(folder), "COLUMNS": "120"}
    return kept | state | {"PYTHONPATH": os.pathsep.join(sys.path)}


def agentkit(*arguments: str, folder: Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_demo_and_the_two_commands_that_it_names(tmp_path: Path) -> None:
    """Two parallel calls, a typed result that is right, and both next commands work."""
    demo = agentkit("demo", folder=tmp_path)
    assert demo.returncode == 0, demo.stderr
    printed = re.search(r"^\{.*?^\}", demo.stdout, re.MULTILINE | re.DOTALL)
    assert printed is not None, demo.stdout
    assert json.loads(printed.group()) == {
        "city": "Tokyo",
        "sky": "cloudy",
        "celsius": 17,
        "time": "22:40",
    }
    commands = [line.split() for line in demo.stdout.splitlines() if line.startswith("  agentkit")]
    assert [command[1] for command in commands] == ["show", "replay"]
    for command in commands:
        done = agentkit(*command[1:], folder=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "answered from the recording, none made" in done.stdout
    (path,) = (tmp_path / "traces").iterdir()
    trace = Trace.load(path)
    calls = [event for event in trace.events if event["event"] == "tool.start"]
    assert sorted(event["tool"] for event in calls) == ["get_time", "get_weather"]


def test_replay_of_an_edited_example_names_the_difference(tmp_path: Path) -> None:
    """The address and the pointer of the first difference, without a model."""
    assert agentkit("demo", folder=tmp_path / "state").returncode == 0
    (path,) = (tmp_path / "state" / "traces").iterdir()
    source = (ROOT / "examples" / "quickstart.py").read_text()
    edited = source.replace("output=Now,", 'output=Now,\n    instructions="Be brief.",')
    (tmp_path / "app.py").write_text(edited)
    done = agentkit("replay", str(path), "--app", "app.py:agent", folder=tmp_path, cwd=tmp_path)
    assert done.returncode == 1
    assert "request_changed at /agent/m0, /messages/0" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_leaves_no_process_and_a_readable_trace(tmp_path: Path) -> None:
    """Interrupted while the model answers: exit 130, nothing runs on, `show` reads the trace."""
    demo = subprocess.Popen(
        [*COMMAND, "demo"],
        cwd=ROOT,
        env=environment(tmp_path),
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
    shown = agentkit("show", str(path), folder=tmp_path)
    assert shown.returncode == 0
    assert "cancelled" in shown.stdout


def test_the_example_is_the_demo() -> None:
    """`examples/quickstart.py` and the file that the demo runs are the same."""
    example = (ROOT / "examples" / "quickstart.py").read_text()
    assert example == (ROOT / "agentkit" / "cli" / "quickstart.py").read_text()
