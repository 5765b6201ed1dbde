"""`agentkit fork`, as a user runs it: real processes, real exit codes."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from agentkit import Trace
from agentkit.errors import ConfigurationError, TraceError
from tests.cli.support import TRAVEL, agentkit, here, ran


def command(*arguments: str, trace: str = "run.jsonl") -> list[str]:
    """The command that forks a run into fork.jsonl."""
    to = [] if "--trace" in arguments else ["--trace", "fork.jsonl"]
    return ["fork", trace, "--app", "app.py:agent", *arguments, *to]


def fork(folder: Path, *arguments: str) -> CompletedProcess[str]:
    """Fork a run, in a process."""
    return agentkit(*command(*arguments), cwd=folder)


def fork_here(*arguments: str, trace: str = "run.jsonl") -> None:
    """Fork a run in this process."""
    here(*command(*arguments, trace=trace))


def test_a_result_is_changed(travel: Path) -> None:
    """Tree, output, the trace, what differs and how to see all of it are printed."""
    done = fork(
        travel, "--at", "m0/t1", "--result", "Rome is flooded", "--live", "book", "--live", "pay"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ran(travel) == ["book Paris"]
    for part in (
        "Rome is flooded",
        "Kindly: Paris is booked, Denied: no, no degrees.",
        "First cause, at /agent/m0/t1 (look): result",
        "    a: 'Rome is sunny'\n    b: 'Rome is flooded'",
        f"The trace is in {travel / 'fork.jsonl'}",
        f"agentkit diff run.jsonl {travel / 'fork.jsonl'}",
    ):
        assert part in done.stdout
    assert Trace.load(travel / "fork.jsonl").header["fork"]["at"] == "/agent/m0/t1"


def test_writing_tools_do_not_run_by_accident(travel: Path) -> None:
    """A write tool that was not called so is refused, and how to allow it is said."""
    done = fork(travel, "--at", "m0/t1", "--result", "Rome is flooded")
    assert done.returncode == 1
    assert ran(travel) == []
    assert "book was not called so" in done.stderr
    assert "`--live book` lets it run" in done.stderr
    assert "Rome is flooded" in done.stdout  # how far it came


def test_an_effect_is_done_again(travel: Path) -> None:
    """With nothing but --at, what only reads runs; equal runs need no further look."""
    done = fork(travel, "--at", "m0/t0")
    assert (done.returncode, done.stderr) == (0, "")
    assert ran(travel) == ["look Paris"]
    assert "The runs are the same." in done.stdout
    assert "agentkit diff" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["--at", "m3", "--result", "Bye."], "Bye."),
        (["--instructions", "Rudely"], "Rudely: Rome is booked, Denied: no, no degrees."),
        (["--at", "m3", "--set", "temperature=0.5"], "Denied: no, 0.5 degrees."),
        (["--at", "m3", "--message", "6=Rome is lost"], "Kindly: Rome is lost, Denied: no"),
        (["--at", "m2/t0", "--deny", "too much"], "Denied: too much"),
        (["--at", "m2/t0", "--result", "paid by hand"], "Rome is booked, paid by hand"),
        (
            ["--at", "m2/t0", "--approve", "--live", "book", "--live", "pay"],
            "Rome is booked, paid, no",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_can_be_changed(
    travel: Path, arguments: list[str], output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answers, instructions, settings, messages, decisions."""
    fork_here(*arguments)
    assert output in capsys.readouterr().out


def test_another_prompt(travel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that depends on it is done for real, from the start."""
    fork_here("--prompt", "stay")
    assert "    a: 'go'\n    b: 'stay'" in capsys.readouterr().out
    assert ran(travel) == []


def test_a_fork_that_pauses(travel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said what it waits for, and how to decide, with the agent that was given."""
    fork_here("--at", "m2", trace="paused.jsonl")
    told = capsys.readouterr().out
    assert "/agent/m2/t0 waits (approval): pay {}" in told
    assert ".jsonl --app app.py:agent --approve /agent/m2/t0" in told
    assert "null" not in told


def test_forks_are_kept_in_the_state_folder(travel: Path) -> None:
    """Where nobody says where; the place is printed."""
    done = agentkit(
        "fork", "run.jsonl", "--app", "app.py:agent", "--at", "m3", "--result", "x", cwd=travel
    )
    assert done.returncode == 0, done.stderr
    (made,) = (travel / "state" / "traces").iterdir()
    assert f"The trace is in {made}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "changes nothing: give --at ADDRESS"),
        (["--result", "x"], "--result needs --at"),
        (["--message", "1=x"], "--message needs --at"),
        (["--at", "m2/t0", "--approve", "--deny", "x"], "--approve and --deny contradict"),
        (["--at", "m9"], "no address 'm9'"),
        (["--at", "/agent", "--result", "x"], "/agent is not an effect with a result"),
        (["--at", "m1", "--message", "0=x"], "Message 0 comes from the instructions"),
        (["--at", "m1", "--message", "9=x"], "no message '9': the request at /agent/m1 has 5"),
        (["--at", "m1", "--message", "x"], "expected --message N=TEXT"),
        (["--at", "m0/t0", "--message", "1=x"], "Messages belong to a model call"),
        (["--set", "temprature=1"], "no setting 'temprature'; nearest: temperature"),
        (["--set", "temperature=hot"], "ChatSettings.temperature is 'hot'"),
        (["--set", "temperature"], "expected --set NAME=VALUE"),
        (["--model", "opnai:x"], "opnai"),
        (["--prompt", "x", "--trace", "run.jsonl"], "exists already"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input(travel: Path, arguments: list[str], says: str) -> None:
    """One clear message, and nothing is written or run."""
    with pytest.raises((ConfigurationError, TraceError)) as caught:
        fork_here(*arguments)
    assert says in caught.value.message
    assert ran(travel) == []
    assert not (travel / "fork.jsonl").exists()


def test_what_the_application_raises(travel: Path) -> None:
    """Its own code may end a fork: one message, and the trace that there is."""
    broken = TRAVEL + "\ndef check(output):\n    raise KeyError('a bug')\n"
    broken += "\nagent = agent.with_(output_validators=[check])\n"
    (travel / "app.py").write_text(broken)
    done = fork(travel, "--at", "m3", "--result", "x")
    assert done.returncode == 1
    assert "KeyError: 'a bug'" in done.stderr
    assert "Traceback" not in done.stderr
    assert f"The trace is in {travel / 'fork.jsonl'}" in done.stdout


def test_a_call_that_would_not_be_done_again(travel: Path) -> None:
    """A fork of nothing but that is refused before anything is done."""
    with pytest.raises(ConfigurationError, match="book at /agent/m1/t0 would not be run: it may"):
        fork_here("--at", "m1/t0")
    assert not (travel / "fork.jsonl").exists()


def test_what_was_not_run_is_said(travel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A writing tool below the place, that was called as before."""
    fork_here("--at", "m1")
    assert "book was not run: it may write (--live book)\n" in capsys.readouterr().out
    assert ran(travel) == []
    fork_here("--at", "m3", "--trace", "second.jsonl")
    assert "was not run" not in capsys.readouterr().out


@pytest.mark.parametrize("decision", [["--approve"], ["--deny", "no"]])
def test_decisions_where_nothing_was_asked(travel: Path, decision: list[str]) -> None:
    """The places where something was are named."""
    with pytest.raises(ConfigurationError) as caught:
        fork_here("--at", "m1/t0", *decision)
    assert "Nothing was asked at /agent/m1/t0" in caught.value.message
    assert "asked were: /agent/m2/t0." in caught.value.message


def test_runs_and_show_say_what_a_fork_is(travel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of which run, where, and what is different; a decision in words."""
    run = Trace.load(travel / "run.jsonl").run[-8:]
    fork_here("--at", "m2/t0", "--deny", "too much")
    fork_here("--prompt", "stay", "--trace", "second.jsonl")
    capsys.readouterr()
    here("show", "fork.jsonl")
    assert capsys.readouterr().out.splitlines()[1] == (
        f"fork of {run} at /agent/m2/t0: deny too much"
    )
    here("runs", ".")
    assert f"fork of {run}: prompt stay; stay" in capsys.readouterr().out


def test_a_value_that_looks_like_an_option(travel: Path) -> None:
    """How to write it is said."""
    done = fork(travel, "--at", "m0/t0", "--result", "-3 C")
    assert done.returncode == 2
    assert done.stderr.endswith("Write a value that begins with - like this: --result='-3 C'\n")
    done = fork(travel, "--at", "m0/t0", "--result=-3 C")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals")
def test_a_fork_that_is_interrupted(travel: Path) -> None:
    """Its trace is kept, and it is said where."""
    source = (travel / "app.py").read_text()
    stop = 'import os, signal\n    os.kill(os.getpid(), signal.SIGINT)\n    ran(f"look'
    (travel / "app.py").write_text(source.replace('ran(f"look', stop))
    done = fork(travel, "--at", "m0/t0")
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")
    assert "The trace of the fork, as far as it came, is in fork.jsonl" in done.stdout
    assert Trace.load(travel / "fork.jsonl").status == "cancelled"


def test_a_tool_runs_again_and_another_is_answered(
    travel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name, or by the end of an address; which tools ran is listed."""
    fork_here("--live", "look", "--answer", "book=no = train", "--answer", "m2/t0=paid by hand")
    told = capsys.readouterr().out
    assert sorted(ran(travel)) == ["look Paris", "look Rome"]
    assert "Kindly: no = train, paid by hand" in told
    assert "Tools that ran: look (/agent/m0/t0), look (/agent/m0/t1)\n" in told


def test_live_alone_is_a_change(travel: Path) -> None:
    """A call by the end of its address; without it nothing would be different."""
    fork_here("--live", "m1/t0")
    assert ran(travel) == ["book Rome"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--answer", "book"], "--answer 'book': expected --answer TOOL=TEXT"),
        (["--answer", "bok=x"], "answers= names 'bok', which the agent does not have"),
        (["--answer", "m7/t0=x"], "no address 'm7/t0'"),
        (["--live", "m0/t9"], "no address 'm0/t9'"),
        (["--live", "book", "--answer", "book=x"], "'book' is in live= and in answers="),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_calls(travel: Path, arguments: list[str], says: str) -> None:
    """One clear message, and nothing runs."""
    with pytest.raises((ConfigurationError, TraceError)) as caught:
        fork_here(*arguments)
    assert says in caught.value.message
    assert ran(travel) == []
