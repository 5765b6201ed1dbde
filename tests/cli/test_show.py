"""`agentkit show`, `runs` and `grep`, as a user runs them: real processes, real files."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agentkit import Agent, ChatModel, Decision, Trace, tool
from agentkit.errors import AgentKitError
from agentkit.testing import ChatServer, ScriptedModel, raw, reply

SCRIPT = "from agentkit.cli import main; main()"


def agentkit(
    *arguments: str, cwd: Path, columns: int | None = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the console script's entry point; `columns` None is a pipe that says no width."""
    inherited = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    inherited |= {"PYTHONPATH": os.pathsep.join(sys.path), "AGENTKIT_STATE_DIR": str(cwd / "state")}
    if columns is not None:
        inherited["COLUMNS"] = str(columns)
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


@tool
def double(number: int) -> int:
    """Double a number."""
    if number == 13:
        raise ValueError("an unlucky\x1b[31m number")
    return 2 * number


@tool(approval=True)
def delete(path: str) -> str:
    """Delete a file."""
    return "gone"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs: one with a failing call, one retried, one paused, one failed."""
    folder = tmp_path_factory.mktemp("folder")
    script = [[("double", {"number": 1}), ("double", {"number": 13})], "Two \u202eand no luck."]
    counting = Agent(ScriptedModel(script), tools=[double], instructions="Count.")
    counting.run_sync("Double these", trace=folder / "count.jsonl")
    busy = raw(429, {"error": {"message": "slow down"}}, headers={"retry-after": "0"})
    with ChatServer([busy, reply("Hello.")]) as server:
        model = ChatModel("small", base_url=server.base_url)
        Agent(model, name="polite").run_sync("word " * 60, trace=folder / "hello.jsonl")
    cleaner = Agent(ScriptedModel([[("delete", {"path": "/a"})]]), tools=[delete], name="cleaner")
    cleaner.run_sync("Clean up", trace=folder / "clean.jsonl")
    with pytest.raises(AgentKitError):
        Agent(ScriptedModel([])).run_sync("Fail", trace=folder / "fail.jsonl")
    return folder


# show


def test_show_says_what_was_asked_again_and_what_waits(folder: Path) -> None:
    """HTTP attempts that were repeated, and calls without a decision, stand in the tree."""
    done = agentkit("show", "hello.jsonl", cwd=folder)
    assert "429 Too Many Requests: slow down; asked again after 0 s" in done.stdout
    done = agentkit("show", "clean.jsonl", cwd=folder)
    assert "paused" in done.stdout.splitlines()[0]
    assert '/cleaner/m0/t0 waits (approval): delete {"path":"/a"}' in done.stdout


def test_show_of_a_tool_call(folder: Path) -> None:
    """Its arguments, what the model was told, and the error with its traceback."""
    done = agentkit("show", "count.jsonl", "--at", "/agent/m0/t1", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("/agent/m0/t1  tool double ✗ ")
    for part in (
        '"number": 13',
        r"result, tool: ValueError: an unlucky\x1b[31m number",
        'raise ValueError("an unlucky',
    ):
        assert part in done.stdout
    assert "\x1b" not in done.stdout


def test_show_of_a_model_call(folder: Path) -> None:
    """The messages of the request, the answer, times and the HTTP attempts."""
    done = agentkit("show", "hello.jsonl", "--at", "m0", cwd=folder)
    assert done.returncode == 0, done.stderr
    attempts = re.findall(r"([01]): 127\.0\.0\.1:\d+ (\d+) after", done.stdout)
    assert attempts == [("0", "429"), ("1", "200")]
    assert "message 0, user\n  word word" in done.stdout
    assert "answer, assistant: Hello." in done.stdout
    done = agentkit("show", "count.jsonl", "--at", "/agent/m1", cwd=folder)
    for part in ("message 0, system: Count.", "tools: double", r"Two \u202eand no luck."):
        assert part in done.stdout


def test_show_of_chunks(folder: Path, tmp_path: Path) -> None:
    """Each piece of a streamed answer with the time since the call began."""
    lines = (folder / "hello.jsonl").read_bytes().splitlines(keepends=True)
    pieces = {"event": "model.chunks", "seq": 9, "t": 9, "at": "/polite/m0"}
    pieces["d"] = [[18_000, "Hel"], [2_000, "lo"]]
    place = next(number for number, line in enumerate(lines) if b'"model.end"' in line)
    lines.insert(place, json.dumps(pieces).encode() + b"\n")
    (tmp_path / "run.jsonl").write_bytes(b"".join(lines))
    done = agentkit("show", "run.jsonl", "--at", "/polite/m0", cwd=tmp_path)
    assert re.search(r'0\.018 s  "Hel"\n +0\.020 s  "lo"', done.stdout), done.stdout


def test_show_of_a_call_that_waits(folder: Path) -> None:
    """A call that never began is shown as it was asked about."""
    done = agentkit("show", "clean.jsonl", "--at", "m0/t0", cwd=folder)
    assert done.stdout.startswith("/cleaner/m0/t0  tool delete ?")
    assert "gate: asked (approval)" in done.stdout


def test_show_of_an_address_that_is_not_there(folder: Path) -> None:
    """The addresses that are, closest first."""
    done = agentkit("show", "count.jsonl", "--at", "/agent/m7", cwd=folder)
    assert done.returncode == 2
    assert "no address '/agent/m7'; nearest: /agent/m" in done.stderr


def test_show_as_json(folder: Path) -> None:
    """One document of the run, and one of an address, with contents where hashes stood."""
    run = json.loads(agentkit("show", "count.jsonl", "--json", cwd=folder).stdout)
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
    done = agentkit("show", "count.jsonl", "--at", "m1", "--json", cwd=folder)
    call = json.loads(done.stdout)
    roles = [message["role"] for message in call["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "tool"]
    assert [one["function"]["name"] for one in call["tools"]] == ["double"]


def test_show_raw_is_the_file(folder: Path) -> None:
    """Byte by byte for a program; with an address the lines about it."""
    done = agentkit("show", "count.jsonl", "--raw", cwd=folder)
    assert done.stdout == (folder / "count.jsonl").read_text(encoding="utf-8")
    done = agentkit("show", "hello.jsonl", "--raw", "--at", "m0", cwd=folder)
    events = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    http = ["http.start", "http.end"]
    assert events == ["model.start", *http, *http, "model.end"]


@pytest.mark.skipif(sys.platform == "win32", reason="a lock hides the file there")
def test_show_of_a_run_that_is_going_on(folder: Path, tmp_path: Path) -> None:
    """What there is so far; whoever writes it holds a lock."""
    import fcntl

    lines = (folder / "count.jsonl").read_bytes().splitlines(keepends=True)
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


def test_an_odd_event_is_no_traceback(folder: Path, tmp_path: Path) -> None:
    """Whoever wrote the file, the error is the file's."""
    content = (folder / "count.jsonl").read_bytes()
    (tmp_path / "run.jsonl").write_bytes(content.replace(b'"tool":', b'"tuul":'))
    done = agentkit("show", "run.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert "TraceCorrupt: The trace 'run.jsonl' holds an event that cannot be shown" in done.stderr
    assert "Traceback" not in done.stderr


# runs


def test_runs_lists_the_newest_first(folder: Path) -> None:
    """When, run, agent, status, steps, tokens, duration and prompt; the width is enough."""
    done = agentkit("runs", ".", cwd=folder, columns=None)
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == "when run agent status steps tokens cost seconds prompt".split()
    names = [row.split()[2] for row in rows]
    assert names == ["fail", "clean", "hello", "count"]
    assert re.search(r"hello +polite +✓ ok +1 +10 → 5 .* word word word", rows[2])
    assert re.search(r"fail +agent +✗ error +1 ", rows[0])


def test_runs_as_json(folder: Path) -> None:
    """The same as data."""
    listed = json.loads(agentkit("runs", ".", "--json", cwd=folder).stdout)
    assert [one["status"] for one in listed] == ["error", "paused", "ok", "ok"]
    assert listed[2]["usage"] == {"requests": 1, "input_tokens": 10, "output_tokens": 5}
    assert listed[0]["error"]["type"] == "AgentKitError"


def test_runs_lists_what_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    """A damaged file and one that is no trace are rows like the others, not the end."""
    content = (folder / "count.jsonl").read_bytes()
    (tmp_path / "good.jsonl").write_bytes(content)
    (tmp_path / "damaged.jsonl").write_bytes(content.replace(b'{"event":"tool.start"', b"{", 1))
    (tmp_path / "binary.jsonl").write_bytes(bytes(range(256)))
    (tmp_path / "empty.jsonl").touch()
    done = agentkit("runs", ".", cwd=tmp_path, columns=None)
    assert done.returncode == 0, done.stderr
    assert re.search(r"good +agent +✓ ok", done.stdout)
    assert re.search(r"damaged\.jsonl +unreadable .*Line \d+ of the trace", done.stdout)
    assert len(re.findall(r"unreadable .*does not begin with", done.stdout)) == 2


def test_runs_and_show_know_where_traces_go(folder: Path, tmp_path: Path) -> None:
    """Without a folder it is AGENTKIT_TRACE_DIR, or the state folder's; there a run has a name."""
    done = agentkit("runs", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "There are no runs in" in done.stderr
    run = "01" * 12 + "abcd1234"
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / f"{run}.jsonl").write_bytes((folder / "count.jsonl").read_bytes())
    place = {"AGENTKIT_TRACE_DIR": str(tmp_path / "traces")}
    assert " abcd1234 " in agentkit("runs", cwd=tmp_path, **place).stdout
    assert "Double these" in agentkit("show", "abcd1234", cwd=tmp_path, **place).stdout
    done = agentkit("show", "dead", cwd=tmp_path, **place)
    assert done.returncode == 2
    assert "There is no file 'dead', and no run is called so" in done.stderr


# grep


def test_grep_prints_file_address_and_line(folder: Path) -> None:
    """In messages, arguments, results and errors; each text once, where it first stood."""
    done = agentkit("grep", "unlucky|number.:1}|^Two", "count.jsonl", cwd=folder)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    kinds = [line.split()[1:3] for line in lines]
    assert kinds[0] == ["/agent/m0/t0", "arguments:"]
    assert {tuple(kind) for kind in kinds[1:-1]} == {
        ("/agent/m0/t1", "warning:"),
        ("/agent/m0/t1", "result:"),
        ("/agent/m0/t1", "error:"),
    }
    assert r"count.jsonl /agent/m0/t1 result: ValueError: an unlucky\x1b[31m number" in lines
    assert lines[-1] == r"count.jsonl /agent/m1 assistant: Two \u202eand no luck."


def test_grep_looks_through_folders_and_ignores_case(folder: Path) -> None:
    """Prompts belong to the agent's address; files that are no traces are said and skipped."""
    (folder / "other.jsonl").write_text("CLEAN\n")
    try:
        done = agentkit("grep", "-i", "CLEAN UP", ".", "count.jsonl", cwd=folder)
    finally:
        (folder / "other.jsonl").unlink()
    assert (done.returncode, done.stdout) == (0, "clean.jsonl /cleaner user: Clean up\n")
    assert "'other.jsonl'" in done.stderr


def test_grep_as_json_and_without_a_match(folder: Path) -> None:
    """Status 1 where nothing is found."""
    done = agentkit("grep", "Clean", ".", "--json", cwd=folder)
    hit = {"file": "clean.jsonl", "at": "/cleaner", "kind": "user", "line": "Clean up"}
    assert json.loads(done.stdout) == [hit]
    done = agentkit("grep", "nowhere", ".", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


# wrong input, narrow terminals, pipes


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "none.jsonl"], "No such file"),
        (["show", "."], "'.' is a folder. `agentkit runs .` lists the runs in it."),
        (["show", os.devnull], "does not begin with"),
        (["show", "count.jsonl", "--json", "--raw"], "give one of them"),
        (["show"], "requires an argument"),
        (["runs", "none"], "No such file or folder"),
        (["grep", "(", "."], "'(' is no regular expression: missing )"),
        (["grep", "x", "none"], "No such file or folder"),
        (["replay", ".", "--app", "x.py"], "is a folder"),
    ],
)
def test_wrong_input(folder: Path, arguments: list[str], says: str) -> None:
    """Status 2, a message that names the mistake, and nothing on stdout."""
    done = agentkit(*arguments, cwd=folder)
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
def test_forty_columns_are_enough(folder: Path, arguments: list[str]) -> None:
    """No line is longer, and no word is cut where there is room for it."""
    done = agentkit(*arguments, cwd=folder, columns=40)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 40
    expected = {"show": " ✓ ", "runs": "polite", "models": "OPENAI_API_KEY"}
    assert expected[arguments[0]] in done.stdout


def test_a_pipe_is_not_wrapped(folder: Path) -> None:
    """Programs get whole lines, without spaces at their ends."""
    done = agentkit("show", "hello.jsonl", cwd=folder, columns=None)
    assert "word " * 59 + "word" in done.stdout
    done = agentkit("models", "openai", cwd=folder, columns=None)
    assert all(line == line.rstrip() for line in done.stdout.splitlines())
    assert "Authorization: Bearer" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell with pipes")
@pytest.mark.parametrize("arguments", ["show long.jsonl --raw", "show long.jsonl", "grep x ."])
def test_a_reader_that_goes_away(folder: Path, tmp_path: Path, arguments: str) -> None:
    """As of `git log | head`: nothing is said, and the status is that of SIGPIPE."""
    head = (folder / "count.jsonl").read_bytes()
    call = {"event": "tool.start", "seq": 9, "t": 9, "tool": "x", "arguments": "x" * 90}
    lines = [json.dumps({**call, "at": f"/agent/m{number}/t0"}) for number in range(3000)]
    (tmp_path / "long.jsonl").write_bytes(head + "\n".join(lines).encode() + b"\n")
    program = f"{sys.executable} -c '{SCRIPT}' {arguments}"
    done = subprocess.run(
        ["bash", "-c", f'{program} | head -1 > /dev/null; echo "${{PIPESTATUS[0]}}"'],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("141\n", "")


# demo


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
    assert f"The trace is in {Path('my runs', path.name)}" in done.stdout
    commands = [line for line in done.stdout.splitlines() if line.startswith("  agentkit")]
    assert [command.split()[1] for command in commands] == ["show", "replay"]
    for command in commands:
        words = command.replace("'my runs/", "my-runs/").replace(".jsonl'", ".jsonl").split()
        words = [word.replace("my-runs/", "my runs/") for word in words]
        again = agentkit(*words[1:], cwd=tmp_path)
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


# calls that no tool ran

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
        "│       └── The output does not fit: - text: expected a string Give the whole corrected "
        "output.",
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
        "│   └── asked for the same calls again; told to answer",
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
        ("replay", *command, "--policy", "model_live"),
        ("fork", *command, "--at", "m0", "--tools", "recorded"),
    ):
        told = agentkit(*arguments, cwd=tmp_path).stdout
        tree = [line for line in told.splitlines() if line[:1] in ("├", "│", "└", " ")]
        plain = [re.sub(r" \d\.\d\d s$", "", re.sub(r"\{.*\}", "{}", line)) for line in tree]
        assert plain[: len(TREES[name])] == TREES[name], arguments


# decisions


def test_show_says_what_was_decided(folder: Path, tmp_path: Path) -> None:
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


def test_a_run_by_its_name_or_the_end_of_its_id(folder: Path, tmp_path: Path) -> None:
    """What `runs` lists is what `show` takes: here, and where traces go."""
    run = Trace.load(folder / "count.jsonl").run
    for name in ("count", run[-8:]):
        assert "Double these" in agentkit("show", name, cwd=folder).stdout
    place = {"AGENTKIT_TRACE_DIR": str(folder)}
    assert "Double these" in agentkit("show", "count", cwd=tmp_path, **place).stdout
    (tmp_path / "count.jsonl").write_bytes((folder / "hello.jsonl").read_bytes())
    done = agentkit("show", "count", cwd=tmp_path, **place)
    assert done.returncode == 2
    assert "2 runs are called 'count': count.jsonl, " in done.stderr
