"""`agentkit replay` with some of it done for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentkit import Limits
from agentkit.cli.load import application
from agentkit.errors import ConfigurationError, LimitExceeded, ReplayDivergence
from tests.cli.support import TRAVEL, agentkit, here, ran


def replay(*arguments: str) -> None:
    """Replay the run in this process."""
    here("replay", "run.jsonl", "--app", "app.py:agent", *arguments)


def test_tools_that_only_read_run(travel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said what was made, and what was answered from the recording."""
    replay("--plan", "tools_live")
    assert sorted(ran(travel)) == ["look Paris", "look Rome"]
    assert (
        "Replayed with strictness structural: 4 model calls and 1 tool call answered from the "
        "recording, 2 tool calls made."
    ) in capsys.readouterr().out


def test_named_tools_run(travel: Path) -> None:
    """And no others; the policy follows from it."""
    replay("--live", "book")
    assert ran(travel) == ["book Rome"]
    with pytest.raises(ConfigurationError, match="live= names 'boook'"):
        replay("--live", "boook")


def test_the_model_is_asked(travel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tools answer what was recorded of the same call."""
    replay("--plan", "model_live")
    assert ran(travel) == []
    assert (
        "3 tool calls answered from the recording, 4 model calls made." in capsys.readouterr().out
    )


def test_differences_are_printed_at_the_end(travel: Path) -> None:
    """All of them, in full, and the status is 1."""
    (travel / "app.py").write_text(TRAVEL.replace("is sunny", "is rainy"))
    arguments = ("replay", "run.jsonl", "--app", "app.py:agent", "--plan", "tools_live")
    done = agentkit(*arguments, cwd=travel)
    assert (done.returncode, done.stderr) == (1, "")
    told = done.stdout[done.stdout.index("\n1. ") :]
    assert told.startswith(
        "\n1. result_changed at /agent/m0/t0, /content:\n"
        "  recorded: 'Paris is sunny'\n"
        "  now:      'Paris is rainy'\n"
    )
    assert "\n2. result_changed at /agent/m0/t1, /content:\n" in told
    assert told.endswith("\nThe replay differs in 2 places.\n")


def test_strictness_and_what_a_difference_does(
    travel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another prompt is a difference or not; the replay ends or goes on."""
    (travel / "app.py").write_text(TRAVEL.replace("Kindly", "Rudely"))
    with pytest.raises(ReplayDivergence, match="request_changed at /agent/m0"):
        replay()
    with pytest.raises(SystemExit):
        replay("--on-divergence", "warn")
    assert "request_changed at /agent/m0, /messages/0/content" in capsys.readouterr().out
    replay("--strictness", "structural")
    assert "Replayed with strictness structural" in capsys.readouterr().out


def test_a_run_that_failed_fails_again(travel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the recorded error: that is an exact replay. Another error is none."""
    with application("app.py:agent") as loaded:
        agent = loaded.agent
    with pytest.raises(LimitExceeded):
        agent.run_sync("go", limits=Limits(steps=1), trace="failed.jsonl")
    command = ["replay", "failed.jsonl", "--app", "app.py:agent"]
    here(*command)
    told = capsys.readouterr().out
    assert "The recorded run ended with LimitExceeded:" in told
    assert "Replayed exactly: 1 model call and 2 tool calls answered" in told
    (travel / "app.py").write_text(
        TRAVEL.replace("said = [", "raise ValueError('broken'); said = [")
    )
    with pytest.raises(Exception, match="broken"):
        here(*command, "--plan", "model_live")


def test_a_writing_tool_that_did_not_run(travel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said of a policy that lets some tools run, with how to let this one."""
    replay("--plan", "tools_live")
    assert "book was not run: it may write (--live book)\n" in capsys.readouterr().out
    replay()
    replay("--live", "look")
    assert "was not run" not in capsys.readouterr().out


def test_tools_that_run_beside_a_live_model(
    travel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What really ran is counted, whatever the policy."""
    replay("--plan", "model_live", "--live", "look")
    assert sorted(ran(travel)) == ["look Paris", "look Rome"]
    assert (
        "1 tool call answered from the recording, 4 model calls and 2 tool calls made."
    ) in capsys.readouterr().out


def test_a_call_that_was_in_flight_counts_once(
    travel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A resumed trace has two beginnings of it."""
    lines = (travel / "run.jsonl").read_bytes().splitlines(keepends=True)
    begun = next(n for n, line in enumerate(lines) if b'"model.end","seq":' in line)
    (travel / "killed.jsonl").write_bytes(b"".join(lines[:begun]))
    resume = ["resume", "killed.jsonl", "--app", "app.py:agent"]
    here(*resume)
    here(*resume, "--deny", "t0=no")
    here("replay", "killed.jsonl", *resume[2:])
    assert (
        "Replayed exactly: 4 model calls and 3 tool calls answered from the recording, none made."
    ) in capsys.readouterr().out


def test_a_model_that_no_name_makes(travel: Path) -> None:
    """The name is in the trace, and names no provider: what helps is said."""
    with pytest.raises(ConfigurationError, match="a model named 'function'"):
        replay("--model", "function")
    with pytest.raises(ConfigurationError, match="Unknown model 'functoin'"):
        replay("--model", "functoin")


INSIDE = '''
from agentkit import Agent, tool
from agentkit.testing import FunctionModel


@tool(approval=True)
def delete() -> str:
    """Delete."""
    return "gone"


def call(name, **arguments):
    def answer(request):
        told = [one.text for one in request.messages if one.to_json()["role"] == "tool"]
        return told[0] if told else [(name, arguments)]

    return FunctionModel(answer)


cleaner = Agent(call("delete"), name="cleaner", tools=[delete])
agent = Agent(call("cleaner", prompt="Clean"), tools=[cleaner.as_tool()])

if __name__ == "__main__":
    agent.run_sync("go", trace="inside.jsonl")
'''


def test_a_sub_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's agent is taken of several; what waits inside a call is marked up to the root.

    An address that could be several is the one below the root.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inside.py").write_text(INSIDE)
    exec(compile(INSIDE, "inside.py", "exec"), {"__name__": "__main__"})
    here("replay", "inside.jsonl", "--app", "inside.py")
    told = capsys.readouterr().out
    assert 't0 cleaner {"prompt":"Clean"} ?' in told
    assert "…" not in told
    here("show", "inside.jsonl", "--at", "m0/t0")
    assert capsys.readouterr().out.startswith("/agent/m0/t0  tool cleaner ?")


def test_a_model_that_is_asked_but_not_inside_a_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sub-agent is answered as a whole: its model is not asked, which is said."""
    monkeypatch.chdir(tmp_path)
    source = INSIDE.replace("approval=True", 'effect="write"')
    (tmp_path / "inside.py").write_text(source)
    exec(compile(source, "inside.py", "exec"), {"__name__": "__main__"})
    arguments = ["--app", "inside.py:agent", "--plan", "model_live"]
    here("replay", "inside.jsonl", *arguments)
    assert (
        "Replayed with the model asked again: 2 sub-agent model calls and 2 tool calls answered "
        "from the recording, 2 model calls made."
    ) in capsys.readouterr().out
