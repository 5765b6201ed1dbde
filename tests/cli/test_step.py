"""`agentkit step`: looking, changing, going on, with commands piped in and on a terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agentkit import Agent, Trace
from agentkit.errors import ConfigurationError, TraceError
from agentkit.testing import ScriptedModel
from tests.cli.support import agentkit, here, on_terminal, ran

Walk = Callable[..., tuple[list[str], str]]


@pytest.fixture
def walk(travel: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Walk:
    """Pipes commands in; gives the lines of stdout, and stderr without its prompts."""

    def walked(*typed: str, trace: str = "run.jsonl", agent: bool = True) -> tuple[list[str], str]:
        stdin = io.TextIOWrapper(io.BytesIO("\n".join(typed).encode()))
        monkeypatch.setattr(sys, "stdin", stdin)
        options = ["--app", "app.py:agent"] if agent else []
        capsys.readouterr()
        failed = False
        try:
            here("step", trace, *options)
        except SystemExit as end:
            failed = end.code == 1
        told, errors = capsys.readouterr()
        said = errors.replace("step> ", "").strip()
        assert failed == bool(said)
        return [line.rstrip() for line in told.splitlines()[1:]], said

    return walked


def test_walking(walk: Walk) -> None:
    """One effect a line, in the order in which they began; the ends are said."""
    told, _ = walk("next", "n", "p", "previous", "p", "g m3", "n", "goto 4", "q", "n")
    assert told == [
        '>   1 /agent/m0  function ✓ → look {"city":"Paris"} → look {"city":"Rome"}',
        '>   2 /agent/m0/t0  look {"city":"Paris"} ✓ Paris is sunny',
        '>   3 /agent/m0/t1  look {"city":"Rome"} ✓ Rome is sunny',
        '>   2 /agent/m0/t0  look {"city":"Paris"} ✓ Paris is sunny',
        '>   1 /agent/m0  function ✓ → look {"city":"Paris"} → look {"city":"Rome"}',
        "This is the first effect.",
        ">   8 /agent/m3  function ✓ Kindly: Rome is booked, Denied: no, no degrees.",
        "This is the last effect.",
        '>   4 /agent/m1  function ✓ → book {"city":"Rome"}',
    ]


def test_list_marks_where_one_is_and_what_is_changed(walk: Walk) -> None:
    """`>` and `*`."""
    told, _ = walk("g m0/t1", "edit Rome is flooded", "n", "list")
    assert [line[:12] for line in told[-8:]] == [
        "    1 /agent",
        "    2 /agent",
        " *  3 /agent",
        ">   4 /agent",
        "    5 /agent",
        "    6 /agent",
        "    7 /agent",
        "    8 /agent",
    ]
    assert told[-2].endswith("/agent/m2/t0  pay {} ⊘ denied deny: no")


def test_show_and_messages(walk: Walk) -> None:
    """Everything about an effect, and the conversation with what has come of it so far."""
    told, _ = walk("g m0/t0", "show", "messages", agent=False)
    assert "result, tool: Paris is sunny" in told
    assert told[-5:] == [
        "message 1, user: go",
        "message 2, assistant",
        '  → look {"city":"Paris"}',
        '  → look {"city":"Rome"}',
        "message 3, tool: Paris is sunny",
    ]


def test_going_on_with_a_change(walk: Walk, travel: Path) -> None:
    """The fork is shown and kept, and the walk goes on in it."""
    told, _ = walk("g m0/t1", "edit Rome is flooded", "changes", "go on live", "list", "changes")
    assert "result of /agent/m0/t1: Rome is flooded" in told
    assert "Kindly: Paris is booked, Denied: no, no degrees." in told
    assert "    b: 'Rome is flooded'" in told
    begin = told.index("You are in the new run now.")
    assert told[begin + 1] == '>   3 /agent/m0/t1  look {"city":"Rome"} ✓ Rome is flooded'
    assert '    5 /agent/m1/t0  book {"city":"Paris"} ✓ Paris is booked' in told[begin:]
    assert told[-1] == "Nothing is changed."
    assert ran(travel) == ["book Paris"]
    (made,) = (travel / "state" / "traces").iterdir()
    assert f"The trace is in {made}" in told
    assert Trace.load(made).header["fork"]["patch"] == {"result": "Rome is flooded"}


def test_going_on_without_a_change_does_the_effect_again(walk: Walk, travel: Path) -> None:
    """As when the tool's code was mended."""
    told, _ = walk("g m0/t1", "go")
    assert ran(travel) == ["look Rome"]
    assert "The runs are the same." in told


def test_a_fork_that_fails_leaves_everything_as_it_was(walk: Walk, travel: Path) -> None:
    """Writing tools do not run by accident; with `go live` the same changes go on."""
    told, said = walk("g m0/t1", "edit Rome is flooded", "go", "changes", "go live")
    assert "book was not called so" in said
    assert "`go live` lets it run" in said
    assert told.count("result of /agent/m0/t1: Rome is flooded") == 1
    assert told.count("You are in the new run now.") == 1
    assert ran(travel) == ["book Paris"]


@pytest.mark.parametrize(
    ("typed", "output"),
    [
        (["g m3", "edit Bye."], "Bye."),
        (["g m3", "edit result message"], "message"),
        (["edit instructions Rudely"], "Rudely: Rome is booked, Denied: no, no degrees."),
        (["g m3", "edit setting temperature 0.5"], "Kindly: Rome is booked, Denied: no, 0.5 d"),
        (["g m2/t0", "edit setting temperature 0.5"], "Kindly: Rome is booked, Denied: no, 0.5"),
        (["g m3", "edit message 6 A", "edit message 1 B"], "Kindly: A, Denied: no"),
        (["g m2/t0", "edit deny too much"], "Kindly: Rome is booked, Denied: too much"),
        (["g m2/t0", "edit by hand"], "Kindly: Rome is booked, by hand"),
        (["edit prompt stay", "undo", "g m3", "edit Bye."], "Bye."),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_can_be_changed(walk: Walk, typed: list[str], output: str) -> None:
    """Answers, results, instructions, settings, messages, decisions."""
    told, _ = walk(*typed, "go")
    assert any(line.startswith(output) for line in told)


def test_a_decision_about_a_call_that_waits(walk: Walk, travel: Path) -> None:
    """A paused run goes on when the call is approved."""
    told, _ = walk("g m2/t0", "edit approve", "go live", trace="paused.jsonl")
    assert "the decision about /agent/m2/t0 is approve. `go` runs on with that." in told
    assert "Kindly: Rome is booked, paid, no degrees." in told
    assert ran(travel) == ["pay"]


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("nxt", "no command 'nxt'. Did you mean `next`?"),
        ("g", "goto where?"),
        ("g m9", "no address 'm9'"),
        ("g 99", "99 is not an effect; `list` shows those of the run, from 1 to 8"),
        ("g /agent", "/agent is not an effect"),
        ("edit", "Write the new text on the same line, or set EDITOR"),
        ("edit setting temperature", "expected edit setting NAME VALUE"),
        ("edit setting temperature 9", "ChatSettings.temperature is 9"),
        ("edit message 9 x", "no message '9'"),
        ("edit model opnai:x", "opnai"),
        ("go fast", "expected go, or go live"),
        ("undo", ""),
        ("", ""),
    ],
)
def test_wrong_input(walk: Walk, typed: str, says: str) -> None:
    """One message, and the walk goes on where it was."""
    told, said = walk(typed, "list")
    assert says in said
    assert bool(says) == bool(said)
    assert told[-8].startswith(">   1 /agent/m0")


def test_one_place_at_a_time(walk: Walk) -> None:
    """A second effect is refused; what is no effect's holds from the place of the first."""
    told, said = walk("g m0/t0", "edit A", "n", "edit B", "edit prompt C", "changes")
    assert "hold from /agent/m0/t0 on" in said
    assert told[-2:] == [
        "result of /agent/m0/t0: A",
        "prompt, from /agent/m0/t0 on: C",
    ]


def test_without_an_agent(walk: Walk) -> None:
    """Everything works but `go`, which says what is missing."""
    told, said = walk("edit Bye.", "changes", "go", agent=False)
    assert told[-1] == "result of /agent/m0: Bye."
    assert "start with --app FILE.py:NAME" in said


def test_hostile_text_is_made_visible(walk: Walk, travel: Path) -> None:
    """Nothing in a trace reaches the terminal as more than text."""
    evil = "\x1b[31mred\u202e[bold]"
    model = ScriptedModel([evil], name=evil)
    Agent(model, instructions=evil).run_sync(evil, trace=travel / "evil.jsonl")
    told, _ = walk("s", "m", "l", f"edit {evil}", "changes", trace="evil.jsonl", agent=False)
    text = "\n".join(told)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert r"\x1b[31mred\u202e[bold]" in text


def test_unusable_traces(walk: Walk, travel: Path) -> None:
    """What is no trace, and a run in which nothing was done."""
    (travel / "text").write_text("hello")
    lines = (travel / "run.jsonl").read_bytes().splitlines(keepends=True)
    (travel / "short.jsonl").write_bytes(lines[0])
    for name, says in (("text", "no trace"), ("short.jsonl", "nothing was asked or done")):
        with pytest.raises(TraceError, match=says):
            walk("n", trace=name)
    with pytest.raises(ConfigurationError, match=r"no file 'none\.py'"):
        here("step", "run.jsonl", "--app", "none.py:agent")


def test_in_a_process(travel: Path) -> None:
    """Prompts go to stderr; the end of the input is the end; a failed command is status 1."""
    done = agentkit("step", "run.jsonl", cwd=travel, typed="n\n")
    assert (done.returncode, done.stderr) == (0, "step> step> \n")
    assert done.stdout.count("/agent/m0") == 2
    done = agentkit("step", "run.jsonl", cwd=travel, typed="nxt\nn\n")
    assert done.returncode == 1
    assert "/agent/m0/t0" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_on_a_terminal(travel: Path) -> None:
    """The editor opens with what is there now; Ctrl-D ends; mistakes do not count."""
    typed = [b"goto m0/t1\n", b"edit\n", b"oops\n", b"\x04"]
    status, text = on_terminal(
        travel, ["step", "run.jsonl"], typed, b"step> ", EDITOR="sed -i s/sunny/flooded/"
    )
    assert status == 0
    assert "result of /agent/m0/t1: Rome is flooded" in text
    assert "There is no command 'oops'" in text


@pytest.mark.parametrize("typed", ["edit approve", "edit deny no"])
def test_decisions_where_nothing_was_asked(walk: Walk, typed: str) -> None:
    """They are refused, and no result; `edit result` takes any words."""
    told, said = walk("g m1/t0", typed, "changes", "edit result approve", agent=False)
    assert "Nothing was asked at /agent/m1/t0" in said
    assert told[-2] == "Nothing is changed."
    assert told[-1] == "result of /agent/m1/t0: approve. `go` runs on with that."


def test_a_prompt_is_not_changed_by_accident(walk: Walk) -> None:
    """What was understood is said, and how to say the other."""
    told, _ = walk("g m0/t0", "edit prompt was wrong", agent=False)
    assert told[-2:] == [
        "prompt, from the start: was wrong. `go` runs on with that.",
        "If the result of /agent/m0/t0 was meant: `undo`, and `edit result prompt was wrong`.",
    ]


def test_going_on_from_a_writing_tool(walk: Walk, travel: Path) -> None:
    """It does not look as if it had run."""
    told, said = walk("g m1/t0", "go")
    assert "book at /agent/m1/t0 would not be run: it may write" in said
    assert "`go live` lets it run" in said
    told, _ = walk("g m1", "go")
    assert "book was not run: it may write (go live)" in told
    assert ran(travel) == []


def test_going_on_to_a_pause(walk: Walk) -> None:
    """The command that decides names the agent that was given."""
    told, _ = walk("g m2", "go", trace="paused.jsonl")
    assert any(".jsonl --app app.py:agent --approve /agent/m2/t0" in line for line in told)


def test_another_model(walk: Walk) -> None:
    """It is the agent's, so there has to be one."""
    with pytest.raises(ConfigurationError, match="--model is for the agent of --app"):
        here("step", "run.jsonl", "--model", "openai:x")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_interrupting_the_prompt(travel: Path) -> None:
    """Ctrl-C clears the line and keeps what was changed; twice in a row leaves."""
    status, text = on_terminal(
        travel,
        ["step", "run.jsonl"],
        [b"edit A\n", b"gar\x03", b"changes\n", b"\x03", b"\x03"],
        b"step> ",
    )
    assert status == 130
    assert text.count("result of /agent/m0: A") == 2
    assert "gar" not in text.rpartition("changes")[2]
