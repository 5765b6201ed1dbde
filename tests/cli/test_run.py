"""`agentkit run` and `agentkit chat`, piped and at a terminal."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from agentkit import Trace
from agentkit.messages import load_messages
from tests.cli.support import TRAVEL, agentkit, on_terminal, ran

terminal = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
SLOW = """
import anyio
from agentkit import Agent, tool
from agentkit.testing import FunctionModel

@tool
async def wait() -> str:
    "Wait."
    print("asked> ", end="", flush=True)
    await anyio.sleep(60)
    return "waited"

def answer(request):
    said = [one.text for one in request.messages if one.to_json()["role"] == "user"]
    if said[-1] == "fail":
        raise ValueError("no\\x1b[31m answer")
    return [("wait", {})] if said[-1] == "wait" else " ".join(said)

agent = Agent(FunctionModel(answer), tools=[wait])
"""


@pytest.fixture
def travel(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(TRAVEL)
    (tmp_path / "slow.py").write_text(SLOW)
    return tmp_path


def test_run_shows_and_records(travel: Path) -> None:
    """In a pipe the run pauses at what needs approval, and the printed command goes on."""
    done = agentkit("run", "app.py", "go", "--trace", "run.jsonl", cwd=travel)
    assert done.returncode == 0, done.stderr
    assert "look" in done.stdout
    assert "/agent/m2/t0 waits (approval): pay {}" in done.stdout
    assert "run.jsonl --app app.py --approve /agent/m2/t0" in done.stdout
    assert Trace.load(travel / "run.jsonl").pending
    done = agentkit("resume", "run.jsonl", "--app", "app.py", "--approve", "t0", cwd=travel)
    assert "Kindly: Rome is booked, paid" in done.stdout


def test_a_prompt_from_stdin(travel: Path) -> None:
    """Where there is none among the words; without one the call was wrong."""
    done = agentkit("run", "slow.py", "--quiet", cwd=travel, typed="a b\n")
    assert (done.stdout, done.stderr) == ("a b\n", "")
    done = agentkit("run", "slow.py", cwd=travel, typed=" \n")
    assert done.returncode == 2
    assert "There is no prompt" in done.stderr


def test_run_as_json(travel: Path) -> None:
    """One document, whatever became of the run, and nothing else on stdout."""
    document = json.loads(agentkit("run", "app.py", "go", "--json", cwd=travel).stdout)
    assert (document["status"], document["output"]) == ("paused", None)
    assert document["pending"] == [
        {"at": "/agent/m2/t0", "kind": "approval", "tool": "pay", "arguments": "{}"}
    ]
    assert Trace.load(document["trace"]).run == document["run"]
    done = agentkit("run", "slow.py", "fail", "--json", cwd=travel)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["status"] == "error"
    assert document["error"] == {"type": "ValueError", "message": "no\x1b[31m answer"}
    assert "ValueError: no\\x1b[31m answer" in done.stderr


def test_what_run_refuses(travel: Path) -> None:
    """Before anything runs."""
    for arguments, text in (
        (["nothing.py", "go"], "nothing.py"),
        (["app.py", "go", "--model", "nobody:x"], "nobody"),
        (["app.py", "go", "--trace", "app.py"], "exists already"),
    ):
        done = agentkit("run", *arguments, cwd=travel)
        assert done.returncode == 2, done.stdout
        assert text in done.stderr
        assert "Traceback" not in done.stderr


@terminal
def test_run_asks_at_a_terminal(travel: Path) -> None:
    """A wrong answer is explained; the call runs when a person says so."""
    typed = [b"perhaps\n", b"edit {\n", b"yes\n"]
    status, text = on_terminal(travel, ["run", "app.py", "go"], typed, b"or later) ")
    assert status == 0, text
    assert "the first letter is enough" in text
    assert "Decision.edit: the arguments are not JSON" in text
    assert "Kindly: Rome is booked, paid" in text
    assert ran(travel)[-1] == "pay"


@terminal
@pytest.mark.parametrize(
    ("typed", "shown"), [(b"no not today\n", "Denied"), (b"\x03", "Interrupted")]
)
def test_run_can_be_denied_or_ended_at_a_question(travel: Path, typed: bytes, shown: str) -> None:
    """Ctrl-C ends the run at once, with a trace that says so."""
    arguments = ["run", "app.py", "go", "--trace", "run.jsonl"]
    status, text = on_terminal(travel, arguments, [typed], b"or later) ")
    assert shown in text
    assert status == (0 if shown == "Denied" else 130)
    assert "pay" not in ran(travel)
    assert Trace.load(travel / "run.jsonl").events[-1]["event"] == "trace.close"


def test_chat_in_a_pipe(travel: Path) -> None:
    """One history; what is undone is forgotten; a failed answer ends no conversation."""
    typed = "a\n\nb\n/undo\nfail\n/undo\nc\n/save kept.json\n/what\n/exit\nd\n"
    done = agentkit("chat", "slow.py", cwd=travel, typed=typed)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines[:3] == ["a", "a b", "The last prompt and its answer are forgotten."]
    assert "a c" in lines
    assert "d" not in lines
    assert "/undo       forget the last prompt and its answer" in lines
    assert "ValueError: no\\x1b[31m answer" in done.stderr
    kept = load_messages((travel / "kept.json").read_text())
    assert [one.text for one in kept] == ["a", "a", "c", "a c"]
    done = agentkit(
        "chat", "slow.py", "--history", "kept.json", cwd=travel, typed="e\n/undo\n/undo\n"
    )
    assert "a c e" in done.stdout
    assert "There is nothing to undo." in done.stdout


def test_chat_as_json(travel: Path) -> None:
    """A document a line; a line that begins with a slash is a prompt too."""
    done = agentkit("chat", "slow.py", "--json", cwd=travel, typed="a\n/undo\nfail\n")
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["output"] for one in documents] == ["a", "a /undo", None]
    assert documents[2]["status"] == "error"


def test_chat_goes_on_after_a_pause(travel: Path) -> None:
    """The conversation is as it was before; the run can be resumed from its trace."""
    done = agentkit("chat", "app.py", "--trace", "traces", cwd=travel, typed="go\ngo\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("waits (approval): pay {}") == 2
    assert len(list((travel / "traces").iterdir())) == 2


@terminal
def test_ctrl_c_ends_an_answer_and_not_the_chat(travel: Path) -> None:
    """At the prompt it ends nothing; Ctrl-D leaves."""
    typed = [b"a\n", b"\x03", b"wait\n", b"\x03", b"b\n", b"\x04"]

    def asked(shown: bytes) -> bool:
        """Tell whether a prompt is unanswered; what the tree shows may stand behind it."""
        return shown.count(b"> ") > shown.count(b"|")

    status, text = on_terminal(travel, ["chat", "slow.py"], typed, asked)
    assert status == 0, text
    assert "(Ctrl-D leaves)" in text
    assert "(stopped)" in text
    assert "a wait b" in text
