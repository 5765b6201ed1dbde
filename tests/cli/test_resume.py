"""`agentkit resume`: paused and interrupted runs go on, in the same file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentkit import Trace
from agentkit.errors import ConfigurationError, TraceError
from tests.cli.support import agentkit, here, ran


def resume(*arguments: str, trace: str = "paused.jsonl") -> None:
    """Resume a run in this process."""
    here("resume", trace, "--app", "app.py:agent", *arguments)


@pytest.mark.parametrize(
    ("decision", "said", "happened"),
    [
        (["--approve", "m2/t0"], "paid", ["pay"]),
        (["--deny", "/agent/m2/t0=too much"], "Denied: too much", []),
        (["--deny", "t0"], "Denied.", []),
        (["--answer", "m2/t0=paid = by hand"], "paid = by hand", []),
    ],
    ids=lambda value: " ".join(value),
)
def test_decisions(
    travel: Path,
    decision: list[str],
    said: str,
    happened: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the address or its end; only what was approved runs, and the file has it all."""
    resume(*decision)
    assert f"Kindly: Rome is booked, {said}, no degrees.\n" in capsys.readouterr().out
    assert ran(travel) == happened
    assert Trace.load(travel / "paused.jsonl").status == "ok"


def test_other_arguments(travel: Path) -> None:
    """`--edit` runs the call with them."""
    resume("--edit", "m2/t0={}")
    assert ran(travel) == ["pay"]
    answers = [e for e in Trace.load("paused.jsonl").events if e["event"] == "tool.decision"]
    assert [one["decision"] for one in answers] == ["edit"]


def test_without_a_decision_nothing_happens(travel: Path) -> None:
    """What waits is listed with the command that decides, and the status is 2."""
    before = (travel / "paused.jsonl").read_bytes()
    done = agentkit("resume", "paused", "--app", "app.py", cwd=travel)
    assert done.returncode == 2
    assert done.stdout.splitlines()[:3] == [
        "/agent/m2/t0 waits (approval): pay {}",
        "Decide, for example:",
        "  agentkit resume paused.jsonl --app app.py --approve /agent/m2/t0",
    ]
    assert (travel / "paused.jsonl").read_bytes() == before


def test_a_run_that_pauses_again(travel: Path) -> None:
    """It is said what it waits for now, and the printed command decides."""
    source = (travel / "app.py").read_text()
    again = source.replace("if len(said) == 3:", "if len(said) in (3, 4):")
    (travel / "app.py").write_text(again.replace("{said[3]}", "{said[4]}"))
    done = agentkit(
        "resume", "paused.jsonl", "--app", "app.py:agent", "--approve", "m2/t0", cwd=travel
    )
    assert (done.returncode, done.stderr) == (0, "")
    command = done.stdout.splitlines()[-2].split()
    assert command[:2] == ["agentkit", "resume"]
    assert command[-2:] == ["--approve", "/agent/m3/t0"]
    done = agentkit(*command[1:], cwd=travel)
    assert (done.returncode, done.stderr) == (0, "")
    assert ran(travel) == ["pay", "pay"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--approve", "m9"], "no call waits there. Those that wait: /agent/m2/t0 (pay)"),
        (["--deny", "m1/t0=no"], "--deny m1/t0: no call waits there"),
        (["--answer", "m2/t0"], "expected --answer ADDRESS=TEXT"),
        (["--edit", "m2/t0={"], "the arguments are not JSON"),
        (["--approve", "m2/t0", "--deny", "t0=no"], "two decisions about /agent/m2/t0"),
        (["--approve", "m2/t0", "--model", "function"], "cannot be made from its name alone"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_decisions(travel: Path, arguments: list[str], says: str) -> None:
    """One message before anything happens."""
    before = (travel / "paused.jsonl").read_bytes()
    with pytest.raises(ConfigurationError) as caught:
        resume(*arguments)
    assert says in caught.value.message
    assert (travel / "paused.jsonl").read_bytes() == before


def test_a_run_that_has_ended(travel: Path) -> None:
    """There is nothing to go on with; and nothing in a file that is not there."""
    with pytest.raises(ConfigurationError, match="there is nothing to go on with"):
        resume(trace="run.jsonl")
    with pytest.raises(TraceError, match="No such file"):
        resume(trace="none.jsonl")


def test_an_interrupted_run(travel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It goes on where it was; a writing tool that was in flight is asked about."""
    lines = (travel / "run.jsonl").read_bytes().splitlines(keepends=True)
    begun = [number for number, line in enumerate(lines) if b'"tool":"book"' in line]
    (travel / "killed.jsonl").write_bytes(b"".join(lines[: begun[0] + 1]))
    with pytest.raises(ConfigurationError, match="waits for a decision"):
        resume(trace="killed.jsonl")
    assert "/agent/m1/t0 waits (in_flight): book" in capsys.readouterr().out
    resume("--answer", "m1/t0=Rome is booked", trace="killed.jsonl")
    assert "/agent/m2/t0 waits (approval): pay {}" in capsys.readouterr().out
    assert ran(travel) == []
    (travel / "early.jsonl").write_bytes(b"".join(lines[: begun[0]]))
    resume(trace="early.jsonl")
    assert ran(travel) == ["book Rome"]


def interrupted(folder: Path, name: str) -> Path:
    """A run of the travel agent that was killed after its first tools."""
    lines = (folder / "run.jsonl").read_bytes().splitlines(keepends=True)
    end = [at for at, line in enumerate(lines) if b'"tool.end"' in line][1]
    path = folder / name
    path.write_bytes(b"".join(lines[: end + 1]))
    return path


def test_all_runs_of_a_folder(travel: Path) -> None:
    """Each that is unfinished goes on, or is listed with what it waits for."""
    interrupted(travel, "cut.jsonl")
    (travel / "notes.jsonl").write_text("no trace\n")
    done = agentkit("runs", ".", "--unfinished", "--json", cwd=travel)
    assert [(one["file"], one["status"]) for one in json.loads(done.stdout)] == [
        ("paused.jsonl", "paused"),
        ("cut.jsonl", "interrupted"),
    ]
    done = agentkit("resume", ".", "--app", "app.py", cwd=travel)
    assert done.returncode == 1
    assert "1 of 3 unfinished runs did not go on to an end." in done.stderr
    assert done.stdout.splitlines() == [
        "cut.jsonl: paused: waits for a decision about pay at /agent/m2/t0",
        "notes.jsonl: unreadable: There is no trace 'notes.jsonl': it does not begin with a "
        "trace.open event.",
        "paused.jsonl: paused: waits for a decision about pay at /agent/m2/t0",
    ]
    assert ran(travel) == ["book Rome"]
    (travel / "notes.jsonl").unlink()
    done = agentkit("resume", ".", "--app", "app.py", cwd=travel)
    assert done.returncode == 0
    resume("--approve", "t0")
    resume("--approve", "t0", trace="cut.jsonl")
    done = agentkit("resume", ".", "--app", "app.py", cwd=travel)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "There are no unfinished runs in '.'.\n"
    done = agentkit("runs", ".", "--unfinished", cwd=travel)
    assert done.stderr == "There are no unfinished runs in '.'.\n"


def test_an_agent_that_has_changed(travel: Path) -> None:
    """What changed is named, for one trace and for a folder; --force goes on."""
    app = travel / "app.py"
    app.write_text(app.read_text().replace("Book a trip.", "Book a trip or a room."))
    done = agentkit("resume", "paused", "--app", "app.py", "--approve", "t0", cwd=travel)
    assert done.returncode == 1
    change = "the tool book: /tools/book/function/description: 'Book a trip.' → 'Book a trip or"
    assert change in done.stderr
    assert "--force" in done.stderr
    interrupted(travel, "cut.jsonl")
    done = agentkit("resume", ".", "--app", "app.py", cwd=travel)
    assert done.returncode == 1
    assert "cut.jsonl: changed: program_changed at /agent: the agent is" in done.stdout
    assert change in done.stdout
    done = agentkit("resume", "paused", "--app", "app.py", "--approve", "t0", "--force", cwd=travel)
    assert done.returncode == 0, done.stderr
    assert "Kindly: Rome is booked, paid" in done.stdout


def test_a_folder_takes_no_decisions(travel: Path) -> None:
    """They are about the calls of one run."""
    with pytest.raises(ConfigurationError, match="is a folder, and decisions and --model are for"):
        resume("--approve", "t0", trace=".")
    with pytest.raises(ConfigurationError, match="has no agent at its top level"):
        (travel / "empty.py").write_text("")
        here("resume", ".", "--app", "empty.py")
