"""`agentkit show`, as a user runs it: real processes, real files."""

from __future__ import annotations

import json
import re
import runpy
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from agentkit import Agent, Decision, Trace
from agentkit.errors import AgentKitError
from agentkit.testing import ScriptedModel
from tests.cli.support import agentkit, delete, double


def test_show_says_what_was_asked_again_and_what_waits(runs: Path) -> None:
    """HTTP attempts that were repeated, and calls without a decision, stand in the tree."""
    done = agentkit("show", "hello.jsonl", cwd=runs)
    assert "429 Too Many Requests: slow down; asked again after 0 s" in done.stdout
    done = agentkit("show", "clean.jsonl", cwd=runs)
    assert "paused" in done.stdout.splitlines()[0]
    assert '/cleaner/m0/t0 waits (approval): delete {"path":"/a"}' in done.stdout


def test_show_of_a_tool_call(runs: Path) -> None:
    """Its arguments, what the model was told, and the error with its traceback."""
    done = agentkit("show", "count.jsonl", "--at", "/agent/m0/t1", cwd=runs)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("/agent/m0/t1  tool double ✗ ")
    for part in (
        '"number": 13',
        r"result, tool: ValueError: an unlucky\x1b[31m number",
        'raise ValueError("an unlucky',
    ):
        assert part in done.stdout
    assert "\x1b" not in done.stdout


def test_show_of_a_model_call(runs: Path) -> None:
    """The messages of the request, the answer, times and the HTTP attempts."""
    done = agentkit("show", "hello.jsonl", "--at", "m0", cwd=runs)
    assert done.returncode == 0, done.stderr
    attempts = re.findall(r"([01]): 127\.0\.0\.1:\d+ (\d+) after", done.stdout)
    assert attempts == [("0", "429"), ("1", "200")]
    assert "message 0, user\n  word word" in done.stdout
    assert "answer, assistant: Hello." in done.stdout
    done = agentkit("show", "count.jsonl", "--at", "/agent/m1", cwd=runs)
    for part in ("message 0, system: Count.", "tools: double", r"Two \u202eand no luck."):
        assert part in done.stdout


def test_show_of_chunks(runs: Path, tmp_path: Path) -> None:
    """Each piece of a streamed answer with the time since the call began."""
    lines = (runs / "hello.jsonl").read_bytes().splitlines(keepends=True)
    pieces = {"event": "model.chunks", "seq": 9, "t": 20_000_000, "at": "/polite/m0"}
    pieces["d"] = [[18_000, "Hel"], [2_000, "lo"]]
    place = next(number for number, line in enumerate(lines) if b'"model.end"' in line)
    lines.insert(place, json.dumps(pieces).encode() + b"\n")
    (tmp_path / "run.jsonl").write_bytes(b"".join(lines))
    done = agentkit("show", "run.jsonl", "--at", "/polite/m0", cwd=tmp_path)
    assert re.search(r'0\.018 s  "Hel"\n +0\.020 s  "lo"', done.stdout), done.stdout


def test_show_of_a_call_that_waits(runs: Path) -> None:
    """A call that never began is shown as it was asked about."""
    done = agentkit("show", "clean.jsonl", "--at", "m0/t0", cwd=runs)
    assert done.stdout.startswith("/cleaner/m0/t0  tool delete ?")
    assert "waited: approval" in done.stdout


def test_show_of_an_address_that_is_not_there(runs: Path) -> None:
    """The addresses that are, closest first."""
    done = agentkit("show", "count.jsonl", "--at", "/agent/m7", cwd=runs)
    assert done.returncode == 2
    assert "no address '/agent/m7'; nearest: /agent/m" in done.stderr


def test_show_as_json(runs: Path) -> None:
    """One document of the run, and one of an address, with contents where hashes stood."""
    run = json.loads(agentkit("show", "count.jsonl", "--json", cwd=runs).stdout)
    assert (run["status"], run["agent"], run["prompt"]) == ("ok", "agent", "Double these")
    assert (run["steps"], run["tool_calls"], run["output"]) == (2, 2, "Two \u202eand no luck.")
    kinds = [(one["at"], one["kind"], one["status"]) for one in run["effects"]]
    assert kinds == [
        ("/agent/m0", "model", "ok"),
        ("/agent/m0/t0", "tool", "ok"),
        ("/agent/m0/t1", "tool", "error"),
        ("/agent/m1", "model", "ok"),
    ]
    assert run["effects"][1]["message"]["content"] == "2"
    done = agentkit("show", "count.jsonl", "--at", "m1", "--json", cwd=runs)
    call = json.loads(done.stdout)
    roles = [message["role"] for message in call["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "tool"]
    assert [one["function"]["name"] for one in call["tools"]] == ["double"]


def test_show_raw_is_the_file(runs: Path) -> None:
    """Byte by byte for a program; with an address the lines about it."""
    done = agentkit("show", "count.jsonl", "--raw", cwd=runs)
    assert done.stdout == (runs / "count.jsonl").read_text(encoding="utf-8")
    done = agentkit("show", "hello.jsonl", "--raw", "--at", "m0", cwd=runs)
    events = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    http = ["http.start", "http.end"]
    assert events == ["model.start", *http, *http, "model.end"]


@pytest.mark.skipif(sys.platform == "win32", reason="a lock hides the file there")
def test_show_of_a_run_that_is_going_on(runs: Path, tmp_path: Path) -> None:
    """What there is so far; whoever writes it holds a lock."""
    import fcntl

    lines = (runs / "count.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "run.jsonl").write_bytes(b"".join(lines[:-4]) + b'{"event":"to')
    with (tmp_path / "run.jsonl").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = agentkit("show", "run.jsonl", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "running" in done.stdout.splitlines()[0]
        assert "The run is going on" in done.stdout
    done = agentkit("show", "run.jsonl", cwd=tmp_path)
    assert "interrupted" in done.stdout.splitlines()[0]


def test_show_of_a_run_that_was_recorded_without_contents(tmp_path: Path) -> None:
    """What there is: steps, calls, statuses, hashes; and that it is not all."""
    script = [[("double", {"number": 13})], [("delete", {"path": "/a"})]]
    quiet = Agent(ScriptedModel(script), tools=[double, delete], capture="metadata")
    quiet.run_sync("A secret", trace=tmp_path / "run.jsonl")
    done = agentkit("show", "run.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Recorded without contents: capture='metadata'." in done.stdout
    assert "t0 double  ✗" in done.stdout
    done = agentkit("show", "run.jsonl", "--at", "m0/t0", cwd=tmp_path)
    assert "error: ValueError\n" in done.stdout
    done = agentkit("grep", "secret|unlucky", "run.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")


def test_an_odd_event_is_no_traceback(runs: Path, tmp_path: Path) -> None:
    """Whoever wrote the file, the error is the file's."""
    content = (runs / "count.jsonl").read_bytes()
    (tmp_path / "run.jsonl").write_bytes(content.replace(b'"tool":', b'"tuul":'))
    done = agentkit("show", "run.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(
        r"TraceCorrupt: Event \d+ of the trace of \w+ .tool\.start. has no 'tool'", done.stderr
    )
    assert "Traceback" not in done.stderr


UNRUN = '''
from pydantic import BaseModel

from agentkit import Agent, Handoff, Limits, tool
from agentkit.testing import ScriptedModel


class Word(BaseModel):
    text: str


@tool
def look(city: str) -> str:
    """Look at a city."""
    return f"{city} is sunny"


@tool(approval=True)
def pay() -> str:
    """Pay for it."""
    return "paid"


LOOK = ("look", {"city": "Rome"})
BAD, GOOD = [("final_output", {"text": text}) for text in (7, "yes")]
bills = Agent(ScriptedModel(["It is paid."]), name="bills")
typed = Agent(ScriptedModel([[BAD], [GOOD, LOOK]]), tools=[look], output=Word, output_mode="tool")
desk = Agent(ScriptedModel([[LOOK, ("transfer_to_bills", {})]]), tools=[look, Handoff(bills)])
limited = Agent(ScriptedModel([[LOOK], [LOOK]]), tools=[look], limits=Limits(tool_calls=1))
again = Agent(ScriptedModel([[LOOK], [LOOK], "Sunny."]), tools=[look], limits=Limits(repeats=0))
paused = Agent(ScriptedModel([[LOOK, ("pay", {})]]), tools=[look, pay])
'''
RAN = ["│   └── t0 look {} ✓", "│       └── Rome is sunny"]
TREES = {
    "typed": [
        "├── m0 step scripted ✓",
        "│   └── t0 final_output {} ✗",
        "│       └── The JSON does not match the schema: - text: expected a string Give the whole "
        "corrected output.",
        "└── m1 step scripted ✓",
        "    ├── t0 final_output {} ✓",
        "    │   └── the output",
        "    └── t1 look {} ⊘ not run",
    ],
    "desk": [
        "└── m0 step scripted ✓",
        "    ├── t0 look {} ✓",
        "    │   └── Rome is sunny",
        "    └── t1 transfer_to_bills {} ✓",
        "        ├── Handed over to bills.",
        "        └── m0 step scripted ✓",
        "            └── It is paid.",
    ],
    "limited": [
        "├── m0 step scripted ✓",
        *RAN,
        "└── m1 step scripted ✓",
        "    └── t0 look {} ⊘ not run",
    ],
    "again": [
        "├── m0 step scripted ✓",
        *RAN,
        "├── m1 step scripted ✓",
        "│   └── not run: these calls repeat earlier ones",
        "└── m2 step scripted ✓",
        "    └── Sunny.",
    ],
    "paused": [
        "└── m0 step scripted ✓",
        "    ├── t0 look {} ?",
        "    └── t1 pay {} ?",
        "        └── waits for a decision",
    ],
}


@pytest.mark.parametrize("name", TREES)
def test_calls_that_no_tool_ran(tmp_path: Path, name: str) -> None:
    """They are the output, a transfer, refused, or left out: `show`, `replay` and `fork` say which.

    That the model repeats itself is said only where it does.
    """
    (tmp_path / "app.py").write_text(UNRUN)
    agent = runpy.run_path(str(tmp_path / "app.py"))[name]
    with suppress(AgentKitError):  # one is to fail
        agent.run_sync("go", trace=tmp_path / "run.jsonl")
    command = ("run.jsonl", "--app", f"app.py:{name}")
    for arguments in (
        ("show", "run.jsonl"),
        ("replay", *command),
        ("replay", *command, "--plan", "model_live"),
        ("fork", *command, "--at", "m0"),
    ):
        told = agentkit(*arguments, cwd=tmp_path).stdout
        tree = [line for line in told.splitlines() if line[:1] in ("├", "│", "└", " ")]
        plain = [re.sub(r" \d\.\d\d s$", "", re.sub(r"\{.*\}", "{}", line)) for line in tree]
        assert plain[: len(TREES[name])] == TREES[name], arguments


def test_show_says_what_was_decided(runs: Path, tmp_path: Path) -> None:
    """A call that was denied or answered does not wait any more."""
    for decision, mark, said in (
        (Decision.deny("no", by="Ada"), "⊘ denied", "deny by Ada: no"),
        (Decision.answer("gone"), "✓ answered", "answer: gone"),
    ):
        cleaner = Agent(
            ScriptedModel([[("delete", {"path": "/a"})], "Done."]), tools=[delete], name="cleaner"
        )
        path = tmp_path / f"{decision.kind}.jsonl"
        cleaner.run_sync("Clean up", trace=path, approver=lambda _, made=decision: made)
        told = agentkit("show", path.name, cwd=tmp_path).stdout
        assert f't0 delete {{"path":"/a"}} {mark}' in told
        assert f"└── {said}" in told
        assert "waits" not in told


def test_a_run_by_its_name_or_the_end_of_its_id(runs: Path, tmp_path: Path) -> None:
    """What `runs` lists is what `show` takes: here, and where traces go."""
    run = Trace.load(runs / "count.jsonl").run
    for name in ("count", run[-8:]):
        assert "Double these" in agentkit("show", name, cwd=runs).stdout
    place = {"AGENTKIT_TRACE_DIR": str(runs)}
    assert "Double these" in agentkit("show", "count", cwd=tmp_path, **place).stdout
    (tmp_path / "count.jsonl").write_bytes((runs / "hello.jsonl").read_bytes())
    done = agentkit("show", "count", cwd=tmp_path, **place)
    assert done.returncode == 2
    assert "2 runs are called 'count': count.jsonl, " in done.stderr


def test_a_terminal_that_knows_few_characters(runs: Path) -> None:
    """Signs become ASCII, and other text is escaped."""
    done = agentkit("show", "count.jsonl", cwd=runs, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert 't0 double {"number":1} ok' in done.stdout
    assert 't1 double {"number":13} x' in done.stdout
    assert done.stdout.isascii()
