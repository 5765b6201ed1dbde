"""What strangers stumbled over on the command line: each its own case."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

import pytest

from agentkit import Agent, Trace, tool
from agentkit.cli import console
from agentkit.cli.view.run import print_waiting
from agentkit.cli.view.tree import tree_of
from agentkit.core.effects import PendingCall
from agentkit.messages import ToolCall
from agentkit.testing import ScriptedModel
from tests.cli.support import COMMAND, agentkit, environment, here
from tests.support import LOADED, run_loaded

APP = '''
import os

from agentkit import Agent, tool
from agentkit.testing import FunctionModel


@tool
def book(city: str) -> str:
    """Book a trip."""
    with open("booked.txt", "a") as file:
        print(city, file=file)
    if os.environ.get("CRASH"):
        os._exit(9)
    return f"{city} is booked"


@tool(effect="read")
def fail(city: str) -> str:
    """Fail."""
    raise ValueError(f"unlucky {city}")


calls = [("fail", {"city": "Oslo"}), ("book", {"city": "Rome"})]
model = FunctionModel(lambda request: calls if len(request.messages) == 1 else "Booked.")
clerk = Agent(model, tools=[book, fail], name="clerk")
ask = [("ask", {"prompt": "Rome"})]
asking = FunctionModel(lambda request: ask if len(request.messages) == 1 else "Done.")
agent = Agent(asking, tools=[clerk.as_tool(name="ask", description="Ask.")])

if __name__ == "__main__":
    agent.run_sync("go", trace=os.environ["TRACE"])
'''


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of an agent in an agent, and one that a crash ended in a tool."""
    folder = tmp_path_factory.mktemp("nested")
    (folder / "app.py").write_text(APP)
    for trace, crash in (("run.jsonl", ""), ("killed.jsonl", "1")):
        done = run_loaded("app.py", cwd=folder, TRACE=trace, CRASH=crash)
        assert done.returncode == (9 if crash else 0), done.stderr
    return folder


@pytest.fixture
def nested(two_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own copy of the two runs, as the working folder."""
    shutil.copytree(two_runs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRACE", "killed.jsonl")
    return tmp_path


def later(path: Path, seconds: int) -> None:
    """Let the last line of a trace be so much later."""
    lines = path.read_bytes().splitlines(keepends=True)
    last = json.loads(lines[-1])
    note = {"event": "log", "seq": 99, "t": last["t"] + seconds * 1_000_000, "at": "/agent"}
    path.write_bytes(b"".join(lines) + json.dumps(note).encode() + b"\n")


def test_what_is_open_lasted_until_the_last_line(
    nested: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not since the machine was started: the tool, the sub-agent's call, in the same way."""
    later(Path("killed.jsonl"), 7)
    monkeypatch.setattr(console.OUT, "_force_terminal", True)
    monkeypatch.setattr(console.OUT, "soft_wrap", False)
    here("show", "killed.jsonl")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    times = dict(re.findall(r"── t\d (\w+) .* … (\d+\.\d\d) s", plain))
    assert times.keys() >= {"ask", "book"}
    assert all(7 <= float(one) < 17 for one in times.values()), times


@pytest.mark.skipif(sys.platform == "win32", reason="a lock hides the file there")
def test_what_is_open_in_a_run_that_goes_on_lasts(nested: Path) -> None:
    """To the time that has passed since the last line was written."""
    import fcntl
    import os

    path = Path("killed.jsonl")
    os.utime(path, (time.time() - 30, time.time() - 30))
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = agentkit("show", str(path), cwd=nested)
    times = [float(one) for one in re.findall(r"… (\d+\.\d\d) s", done.stdout)]
    assert len(times) >= 2
    assert all(30 <= one < 60 for one in times)


def test_what_waits_for_a_decision_has_no_time(runs: Path) -> None:
    """It has not begun."""
    done = agentkit("show", "clean.jsonl", cwd=runs)
    assert re.search(r't0 delete {"path":"/a"} \?$', done.stdout, re.MULTILINE), done.stdout


def test_the_example_for_an_interrupted_run_runs_nothing_twice(nested: Path) -> None:
    """Pasted as it is printed, it goes on without the write that may be done."""
    shown = agentkit("show", "killed.jsonl", cwd=nested).stdout
    (line,) = [one for one in shown.splitlines() if " resume " in one]
    words = shlex.split(line.strip())
    assert words[1:3] == ["resume", "killed.jsonl"]
    assert "--approve" not in words
    assert "may have done its work" in shown
    words = [word.replace("FILE.py:NAME", "app.py:agent") for word in words]
    Path("booked.txt").unlink()
    done = agentkit(*words[1:], cwd=nested)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Done." in done.stdout
    assert not Path("booked.txt").exists()


def test_the_example_for_many_calls_approves_none_in_flight(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each by its kind."""
    pending = [
        PendingCall(at=f"/agent/m0/t{n}", call=ToolCall(id="c", name="pay", arguments="{}"), kind=k)  # pyright: ignore[reportArgumentType]
        for n, k in enumerate(("approval", "in_flight", "deferred", "in_flight"))
    ]
    print_waiting(pending, Path("run.jsonl"))
    (line,) = [one for one in capsys.readouterr().out.splitlines() if " resume " in one]
    words = shlex.split(line)
    decisions = words[words.index("FILE.py:NAME") + 1 :]
    assert decisions[::2] == ["--approve", "--answer", "--answer", "--answer"]


@pytest.mark.parametrize(
    ("end", "whole"),
    [
        ("m0", "/agent/m0"),
        ("m0/t0", "/agent/m0/t0"),
        ("t0/m0", "/agent/m0/t0/clerk/m0"),
        ("m0/t0/m0/t1", "/agent/m0/t0/clerk/m0/t1"),
        ("/m0/t0/m0/t1", "/agent/m0/t0/clerk/m0/t1"),
        ("clerk/m0/t1", "/agent/m0/t0/clerk/m0/t1"),
        ("agent/m0/t0/m1", "/agent/m0/t0/clerk/m1"),
    ],
)
def test_an_address_as_the_tree_shows_it(
    nested: Path, end: str, whole: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The names of agents, which are not in the tree, may be left out."""
    here("show", "run.jsonl", "--at", end)
    assert capsys.readouterr().out.startswith(f"{whole} ")


def test_an_address_that_may_be_several_lists_them(tmp_path: Path) -> None:
    """Each candidate."""
    script = [[("ask", {"prompt": "a"}), ("ask", {"prompt": "b"})], "Done."]
    clerk = Agent(ScriptedModel(["A.", "B."]), name="clerk")
    asks = Agent(ScriptedModel(script), tools=[clerk.as_tool(name="ask", description="Ask.")])
    asks.run_sync("go", trace=tmp_path / "run.jsonl")
    (tmp_path / "app.py").write_text("from agentkit import Agent\nagent = Agent('local')\n")
    for command in (["show"], ["fork", "--app", "app.py"]):
        done = agentkit(command[0], "run.jsonl", *command[1:], "--at", "clerk/m0", cwd=tmp_path)
        assert done.returncode == 2
        listed = "/agent/m0/t0/clerk/m0, /agent/m0/t1/clerk/m0. "
        assert listed in " ".join(done.stderr.split())


def test_a_decision_by_an_address_as_the_tree_shows_it(nested: Path) -> None:
    """`resume` finds calls as `show` does."""
    decision = ("--answer", "m0/t0/m0/t1=Rome is booked")
    done = agentkit("resume", "killed", "--app", "app.py:agent", *decision, cwd=nested)
    assert done.returncode == 0, done.stderr


def test_only_what_failed(nested: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what it is in; also as JSON."""
    here("show", "run.jsonl", "--failed")
    shown = capsys.readouterr().out
    assert "t1 fail" not in shown
    assert "t0 fail" in shown
    assert "t0 ask" in shown
    assert "book" not in shown
    here("show", "run.jsonl", "--failed", "--json")
    run = json.loads(capsys.readouterr().out)
    assert [one["tool"] for one in run["effects"]] == ["fail"]


def test_the_first_and_the_last_of_a_run(nested: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So many steps and calls."""
    here("show", "run.jsonl", "--head", "1")
    first = capsys.readouterr().out
    assert re.findall(r"── ([mt]\d)", first) == ["m0"]
    here("show", "run.jsonl", "--last", "1")
    last = capsys.readouterr().out
    assert re.findall(r"── ([mt]\d)", last) == ["m1"]
    here("show", "run.jsonl", "--last", "2", "--json")
    run = json.loads(capsys.readouterr().out)
    assert [one["at"] for one in run["effects"]] == ["/agent/m0/t0/clerk/m1", "/agent/m1"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "count", "--head", "1", "--last", "1"], "give one of them"),
        (["show", "count", "--failed", "--at", "m0"], "leave --at out"),
        (["show", "count", "--last", "2", "--raw"], "leave --raw out"),
        (["show", "count", "--last", "0"], "Must be >= 1"),
        (["runs", ".", "--last", "x"], "unable to convert"),
    ],
)
def test_what_contradicts_itself_is_refused(runs: Path, arguments: list[str], says: str) -> None:
    """With status 2 and the reason."""
    done = agentkit(*arguments, cwd=runs)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in " ".join(done.stderr.split())


def test_runs_that_failed_and_the_newest(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`runs` and `grep` choose runs in the same way."""
    monkeypatch.chdir(runs)

    def files(*arguments: str) -> list[str]:
        here(*arguments, "--json")
        return [one["file"] for one in json.loads(capsys.readouterr().out)]

    assert files("runs", ".", "--failed") == ["fail.jsonl"]
    assert files("runs", ".", "--last", "2") == ["fail.jsonl", "clean.jsonl"]
    assert files("runs", ".", "--failed", "--last", "9") == ["fail.jsonl"]
    assert {*files("grep", "Fail|Clean|Double", ".", "--failed")} == {"fail.jsonl"}
    assert files("grep", "Clean|Double", ".", "--last", "2") == ["clean.jsonl"]
    assert len(files("grep", ".", ".", "--head", "3")) == 3


def test_grep_names_an_exception_once(nested: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The result, a warning, the error and its traceback hold the same text."""
    here("grep", "unlucky Oslo", "run.jsonl")
    assert capsys.readouterr().out.splitlines() == [
        "run.jsonl /agent/m0/t0/clerk/m0/t0 result: ValueError: unlucky Oslo"
    ]
    here("grep", "raise ValueError", "run.jsonl")  # a line of the traceback is found, too
    assert capsys.readouterr().out.count("\n") == 1


def test_outputs_of_megabytes_are_shown_at_once() -> None:
    """What is cut costs what is seen of it; of the rest, a line that fits is not laid out."""
    texts = ["word " * 400_000, "x" * 2_000_000, "\u65e5\u672c " * 500_000]
    began = time.process_time()
    assert [len(console.shown(one, 100)) for one in texts for _ in range(100)] == [100] * 300
    assert time.process_time() - began < 1


def test_long_outputs_of_many_lines_are_shown_in_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line, in time that grows with their number only; it was the square of it."""
    Agent(ScriptedModel(["x y z\n" * 200_000])).run_sync("go", trace=tmp_path / "run.jsonl")
    monkeypatch.setattr(console.OUT, "soft_wrap", False)
    began = time.process_time()
    here("show", str(tmp_path / "run.jsonl"))
    assert time.process_time() - began < 5
    assert capsys.readouterr().out.count("x y z\n") == 200_000


@pytest.mark.parametrize("width", [None, 1, 5, 20])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        " \n " * 99 + "x",
        "a\x1b[31m b",
        "\u202e" * 9,
        "\u00e9\u00a0\u65e5" * 9,
        "\ud800\n\tz",
    ],
)
def test_cutting_first_shows_the_same(text: str, width: int | None) -> None:
    """As escaping all of it and then cutting."""
    whole = console.shown(text)
    line = " ".join(whole.split())
    cut = whole if width is None else line if len(line) <= width else f"{line[: width - 1]}…"
    assert console.shown(text, width) == cut


@pytest.mark.parametrize(
    ("encoding", "arguments"),
    [
        *((one, ("show", "signs.jsonl")) for one in ("cp1252", "ascii", "latin-1", "cp932")),
        ("cp1252", ("runs", ".")),
        ("ascii", ("--help",)),
    ],
)
def test_signs_where_an_encoding_has_none(
    tmp_path: Path, encoding: str, arguments: tuple[str, ...]
) -> None:
    """ASCII for each of ours, also beside a character that is escaped; no question marks."""

    @tool
    def look() -> str:
        """Look."""
        raise ValueError("no")

    text = "\u2713\u2717\u2298\u2192\u2026\u0416 " * 40
    agent = Agent(ScriptedModel([[("look", {})], text]), tools=[look])
    agent.run_sync("go", trace=tmp_path / "signs.jsonl")
    with (tmp_path / "out").open("wb") as file:
        variables = environment(tmp_path, 100) | {"PYTHONIOENCODING": encoding}
        program = [*COMMAND[1:], *arguments]
        done = LOADED.start(program, tmp_path, variables, (0, file.fileno(), 2))
        assert done.wait(60) == 0
    out = (tmp_path / "out").read_text(encoding)
    for sign in ("2713", "2717", "2298", "2192", "2026", "2514", "251c"):
        assert f"\\u{sign}" not in out
    assert "ok ok" not in out


def test_a_run_in_doubt_shows_no_endless_call(nested: Path) -> None:
    """A call in flight that the resumed run asks about waits."""
    path = Path("killed.jsonl")
    agent = {"event": "tool.pending", "seq": 99, "t": 9_000_000, "at": "/agent/m0/t0/clerk/m0/t1"}
    agent |= {"call": "c", "tool": "book", "arguments": "{}", "kind": "in_flight"}
    path.write_bytes(path.read_bytes() + json.dumps(agent).encode() + b"\n")
    tree = tree_of(Trace.load(path), title="")
    with console.OUT.capture() as text:
        console.OUT.print(tree)
    assert re.search(r"t1 book .* \?\n", text.get()), text.get()
