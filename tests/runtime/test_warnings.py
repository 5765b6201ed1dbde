"""What an application's author notices: stderr, the log, and `RunResult.warnings`."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentkit import Agent, ChatModel, ChatSettings, Limits, RunContext, RunResult, result_of, tool
from agentkit.errors import LimitExceeded, ToolsFailed
from agentkit.testing import ChatServer, ScriptedModel, reply
from tests.support import events_of, run_loaded

SCRIPT = """
from agentkit import Agent, tool
from agentkit.testing import ScriptedModel

@tool
def look() -> str:
    "Look."
    raise RuntimeError("db is down")

def listen(event):
    raise ValueError("a bug of the listener")

agent = Agent(ScriptedModel([[("look", {})], "Sorry."]), tools=[look])
print(agent.run_sync("go"{options}).status)
"""
SECRET = "sk-abcdefghijklmnopqrstuvwxyz123456"


def ran(folder: Path, *, options: str = "", before: str = "") -> subprocess.CompletedProcess[str]:
    """Run the script in a process of its own."""
    (folder / "script.py").write_text(before + SCRIPT.replace("{options}", options))
    return run_loaded("script.py", cwd=folder)


def listed(result: RunResult[Any]) -> list[tuple[str, str]]:
    return [(one.at, one.code) for one in result.warnings]


def test_a_tool_that_crashes_is_on_stderr_of_a_plain_script(tmp_path: Path) -> None:
    """Once, with its traceback; the run goes on."""
    done = ran(tmp_path)
    assert (done.returncode, done.stdout) == (0, "ok\n")
    assert done.stderr.startswith("/agent/m0/t0: look raised RuntimeError: db is down\n")
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert done.stderr.count("script.py") == 1
    assert done.stderr.endswith("RuntimeError: db is down\n")


def test_a_listener_that_crashes_is_on_stderr_too(tmp_path: Path) -> None:
    """Once, though there were more events."""
    done = ran(tmp_path, options=", on_event=listen")
    assert (done.returncode, done.stdout) == (0, "ok\n")
    assert done.stderr.count("ValueError: a bug of the listener") == 1
    assert done.stderr.count("Traceback (most recent call last)") == 2  # the tool's, too


def test_an_application_that_logs_decides_where_it_goes(tmp_path: Path) -> None:
    """Nothing is printed beside its own handlers."""
    logs = "import logging; logging.basicConfig(filename='app.log')\n"
    done = ran(tmp_path, before=logs)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
    text = (tmp_path / "app.log").read_text()
    assert text.startswith("WARNING:agentkit:/agent/m0/t0: look raised RuntimeError: db is down\n")
    assert text.count("Traceback (most recent call last)") == 1


@pytest.mark.anyio
async def test_the_record_has_the_exception_and_no_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Handlers get the exception; what is printed of it has placeholders."""

    @tool
    def fail() -> None:
        raise KeyError(SECRET)

    await Agent(ScriptedModel([[("fail", {})], "x"]), tools=[fail]).run("go")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError
    assert (record.filename, record.levelname) == ("tool_call.py", "WARNING")
    assert "Traceback (most recent call last)" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.anyio
async def test_what_the_caller_gets_is_not_logged_as_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A tool with on_error='raise' ends the run with its exception."""

    @tool(on_error="raise")
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(ToolsFailed) as caught:
        await Agent(ScriptedModel([[("fail", {})], "x"]), tools=[fail]).run("go")
    assert caplog.records == []
    result = result_of(caught.value)
    assert result is not None
    assert listed(result) == [("/agent/m0/t0", "tool_failed")]


@tool
def double(number: int) -> int:
    """Double a number."""
    if number == 13:
        raise ValueError("an unlucky number")
    return 2 * number


@pytest.mark.anyio
async def test_the_result_lists_what_was_adjusted_and_what_failed(tmp_path: Path) -> None:
    """Dropped settings, repaired arguments, crashes; a replay and a resume list the same."""
    with ChatServer(
        [
            reply(calls=[("double", "{'number': 1,}")]),
            reply(calls=[("double", {"number": 13})]),
            reply("No luck."),
        ]
    ) as server:
        model = ChatModel("m", base_url=server.base_url, profile="llamacpp")
        agent = Agent(model, tools=[double], settings=ChatSettings(store=True))
        result = await agent.run("go", trace=tmp_path / "run.jsonl")
    codes = listed(result)
    assert ("/agent/m0/t0", "repaired_arguments") in codes
    assert ("/agent/m1/t0", "tool_failed") in codes
    replayed = await agent.replay(tmp_path / "run.jsonl")
    assert replayed.warnings == result.warnings
    assert result.trace is not None
    in_trace = [w for one in result.trace.effects.values() for w in one.warnings]
    assert sorted(map(repr, in_trace)) == sorted(map(repr, result.warnings))


@pytest.mark.anyio
async def test_a_limit_of_a_sub_agent_is_listed_though_it_was_caught() -> None:
    """A tool that goes on without the answer hides nothing."""
    inner = Agent(
        ScriptedModel([[("double", {"number": 1})]] * 3),
        name="inner",
        tools=[double],
        limits=Limits(steps=1),
    )

    @tool
    async def ask(context: RunContext[None]) -> str:
        try:
            return (await context.run(inner, "x")).output
        except LimitExceeded:
            return "no answer"

    agent = Agent(ScriptedModel([[("ask", {})], "Sorry."]), tools=[ask])
    result = await agent.run("go")
    assert result.status == "ok"
    assert listed(result) == [("/agent/m0/t0/inner", "limit_reached")]
    assert "steps" in result.warnings[0].text
    assert result.trace is not None
    assert (await agent.replay(result.trace)).warnings == result.warnings
    live = await agent.replay(result.trace, plan="tools_live", live=["ask"])
    assert live.warnings == result.warnings


@pytest.mark.anyio
async def test_how_a_sub_agent_ends_is_logged_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is no bug of the tool that ran it. Its result has the warnings of its own part."""
    inner = Agent(ScriptedModel([[("double", {"number": 13})]] * 3, name="i"), name="inner")
    inner = inner.with_(tools=[double], limits=Limits(steps=1))
    agent = Agent(ScriptedModel([[("inner", {"prompt": "x"})], "Sorry."]), tools=[inner.as_tool()])
    result = await agent.run("go")
    codes = ["tool_failed", "limit_reached", "tool_failed"]
    assert [one.code for one in result.warnings] == codes
    crash, ended = caplog.records
    assert crash.exc_info is not None
    assert ended.exc_info is None
    assert ended.getMessage().startswith("/agent/m0/t0: inner raised LimitExceeded")


@pytest.mark.anyio
async def test_a_warning_about_an_agent_is_recorded_once(tmp_path: Path) -> None:
    """Also where its run is resumed; the result lists it each time."""

    @tool(approval=True)
    def pay(printer: Callable[[], None] = print) -> str:
        """Pay."""
        return "paid"

    agent = Agent(ScriptedModel([[("pay", {})], "Done."]), tools=[pay])
    paused = await agent.run("go", trace=tmp_path / "run.jsonl")
    ended = await agent.resume(tmp_path / "run.jsonl", decisions={"/agent/m0/t0": True})
    assert listed(ended) == listed(paused) == [("/agent", "tool_schema")]
    assert ended.trace is not None
    assert len(events_of(ended.trace, "warning")) == 1


@pytest.mark.anyio
async def test_calls_that_the_runs_limit_keeps_back_are_skips() -> None:
    """Of a sub-agent too, whose own limit would let them run."""
    calls = [("double", {"number": 1}), ("double", {"number": 2})]
    inner = Agent(ScriptedModel([calls]), name="inner", tools=[double])
    script = [[*calls, ("inner", {"prompt": "x"})], "Sorry."]
    agent = Agent(ScriptedModel(script), tools=[double, inner.as_tool()])
    result = await agent.run("go", limits=Limits(tool_calls=4))
    assert result.trace is not None
    skipped = {one.at: one.skipped for one in result.trace.effects.values() if one.skipped}
    inside = "/agent/m0/t2/inner/m0"
    assert skipped == {f"{inside}/t0": "limit", f"{inside}/t1": "limit"}
    assert (await agent.replay(result.trace)).output == "Sorry."


@pytest.mark.anyio
async def test_a_resumed_run_lists_what_happened_before(tmp_path: Path) -> None:
    """As its trace has it."""

    @tool(approval=True)
    def pay() -> str:
        """Pay."""
        return "paid"

    script = [[("double", {"number": 13})], [("pay", {})], "Done."]
    agent = Agent(ScriptedModel(script), tools=[double, pay])
    paused = await agent.run("go", trace=tmp_path / "run.jsonl")
    assert paused.status == "paused"
    ended = await agent.resume(tmp_path / "run.jsonl", decisions={"/agent/m1/t0": True})
    assert ended.status == "ok"
    assert listed(ended) == listed(paused) == [("/agent/m0/t0", "tool_failed")]
    assert logging.getLogger("agentkit").handlers == []
