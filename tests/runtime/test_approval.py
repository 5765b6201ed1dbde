"""Calls that somebody has to decide about first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentkit import Agent, Decision, RunContext, Tool, Trace, tool
from agentkit.core.effects import PendingCall
from agentkit.errors import ConfigurationError, NoOutput
from agentkit.testing import ScriptedModel
from tests.support import tool_texts

pytestmark = pytest.mark.anyio
deleted: list[str] = []


@tool(approval=True)
def delete(path: str) -> str:
    """Delete a file."""
    deleted.append(path)
    return f"deleted {path}"


@tool
def read(path: str) -> str:
    """Read a file."""
    return f"content of {path}"


@pytest.fixture(autouse=True)
def _nothing_deleted() -> None:
    deleted.clear()


def agent(*calls: Any, tools: Any = (delete, read)) -> Agent[str]:
    """An agent that makes these calls and then says done."""
    return Agent(ScriptedModel([list(calls), "done"]), tools=tools)


async def test_without_an_approver_the_run_pauses() -> None:
    """Nothing of the batch runs, the history is valid, and the call is named."""
    result = await agent(("read", {"path": "a"}), ("delete", {"path": "a"})).run("go")
    assert result.status == "paused"
    with pytest.raises(NoOutput, match="The run is paused: delete at /agent/m0/t1 waits") as caught:
        _ = result.output
    assert caught.value.status == "paused"
    assert "agent.resume(result.trace, decisions=…)" in caught.value.message
    (pending,) = result.pending
    assert (pending.at, pending.kind, pending.call.name) == ("/agent/m0/t1", "approval", "delete")
    assert len(result.messages) == 1
    assert deleted == []
    assert result.trace is not None
    assert result.trace.status == "paused"


@pytest.mark.parametrize("is_async", [False, True])
async def test_approver_decides_in_process(is_async: bool) -> None:
    """True runs the call; calls that need no approval just run."""
    asked: list[PendingCall] = []

    def approve(pending: PendingCall) -> bool:
        asked.append(pending)
        return True

    async def approve_later(pending: PendingCall) -> Decision:
        return Decision.approve() if approve(pending) else Decision.deny()

    result = await agent(("read", {"path": "a"}), ("delete", {"path": "a"})).run(
        "go", approver=approve_later if is_async else approve
    )
    assert tool_texts(result) == ["content of a", "deleted a"]
    assert [pending.call.name for pending in asked] == ["delete"]


async def test_denied_calls_do_not_run() -> None:
    """The model reads the reason."""
    denying = agent(("delete", {"path": "a"}))
    result = await denying.run("go", approver=lambda pending: Decision.deny("It is needed."))
    assert tool_texts(result) == ["Denied: It is needed."]
    assert deleted == []


async def test_edited_calls_run_with_other_arguments() -> None:
    """The model is told which arguments were used."""
    result = await agent(("delete", {"path": "a"})).run(
        "go", approver=lambda pending: Decision.edit({"path": "b"})
    )
    assert deleted == ["b"]
    assert tool_texts(result) == ['(Run with other arguments: {"path": "b"})\ndeleted b']


async def test_approval_may_depend_on_the_arguments() -> None:
    """A function says of each call whether it needs approval."""

    async def outside(context: RunContext[str], arguments: dict[str, Any]) -> bool:
        return not arguments["path"].startswith(context.deps)

    @tool(approval=outside)
    def write(path: str) -> str:
        return f"wrote {path}"

    calls = [("write", {"path": "/tmp/a"}), ("write", {"path": "/etc/b"})]
    result = await agent(*calls, tools=[write]).run(
        "go", deps="/tmp", approver=lambda pending: False
    )
    assert tool_texts(result) == ["wrote /tmp/a", "Denied."]


async def test_failing_approval_function_asks() -> None:
    """A function that fails has not said that the call is harmless."""

    def broken(context: RunContext[None], arguments: dict[str, Any]) -> bool:
        raise KeyError("oops")

    @tool(approval=broken)
    def write(path: str) -> str:
        return "wrote"

    result = await agent(("write", {"path": "a"}), tools=[write]).run("go")
    assert result.status == "paused"


async def test_deferred_tools_are_answered_from_outside() -> None:
    """A tool without a function pauses the run until somebody answers."""
    schema = {"type": "object", "properties": {"question": {"type": "string"}}}
    ask = Tool.from_schema("ask_human", "Ask a person.", schema, None)
    waiting = agent(("ask_human", {"question": "why?"}), tools=[ask])
    assert (await waiting.run("go")).pending[0].kind == "deferred"
    answering = agent(("ask_human", {"question": "why?"}), tools=[ask])
    result = await answering.run("go", approver=lambda pending: Decision.answer("because"))
    assert tool_texts(result) == ["because"]


async def test_wrong_answer_of_an_approver() -> None:
    """An approver that returns something else is told what is expected."""
    with pytest.raises(ConfigurationError, match="expected a Decision"):
        await agent(("delete", {"path": "a"})).run("go", approver=lambda pending: "yes")


async def test_decisions_are_recorded_and_replayed() -> None:
    """A replay asks nobody: what was decided stands in the trace."""
    recorded = await agent(("delete", {"path": "a"})).run(
        "go", approver=lambda pending: Decision.deny("no", by="Ada")
    )
    assert recorded.trace is not None
    names = ("tool.pending", "tool.decision")
    decided = [e for e in recorded.trace.events if e["event"] in names]
    assert [(e["event"], e["at"]) for e in decided] == [
        ("tool.pending", "/agent/m0/t0"),
        ("tool.decision", "/agent/m0/t0"),
    ]
    assert (decided[1]["decision"], decided[1]["reason"], decided[1]["by"]) == ("deny", "no", "Ada")
    silent = Agent(ScriptedModel([]), tools=[delete, read])
    assert await silent.replay(recorded.trace) == recorded


async def test_paused_run_replays_as_paused() -> None:
    """A replay of a paused run ends where it paused."""
    recorded = await agent(("delete", {"path": "a"})).run("go")
    assert recorded.trace is not None
    silent = Agent(ScriptedModel([]), tools=[delete, read])
    assert await silent.replay(recorded.trace) == recorded


async def test_decisions_may_come_one_at_a_time(tmp_path: Path) -> None:
    """What was decided stays so, and only the rest is asked about."""
    done: list[str] = []

    @tool(approval=True)
    async def act(name: str) -> str:
        """Act."""
        done.append(name)
        return name

    script: list[Any] = [[("act", {"name": "a"}), ("act", {"name": "b"})], "done"]
    made = Agent(ScriptedModel(script), tools=[act])
    path = tmp_path / "run.jsonl"
    paused = await made.run("go", trace=path)
    assert [one.call.arguments for one in paused.pending] == ['{"name":"a"}', '{"name":"b"}']
    first = await made.resume(path, decisions={paused.pending[0].at: False})
    assert [one.at for one in first.pending] == ["/agent/m0/t1"]
    assert [one.at for one in Trace.load(path).pending] == ["/agent/m0/t1"]
    assert await made.replay(path) == first
    second = await made.resume(path, decisions={first.pending[0].at: True})
    assert second.output == "done"
    assert done == ["b"]
    assert second.messages[2].text == "Denied."  # type: ignore[union-attr]


@pytest.mark.parametrize("options", [{"trace": False}, {"capture": "metadata"}, {}])
async def test_a_pause_that_cannot_be_resumed_warns(options: Any) -> None:
    """When it pauses, not when somebody resumes it."""

    @tool(approval=True)
    def drop() -> str:
        """Drop all."""
        return "dropped"

    result = await Agent(ScriptedModel([[("drop", {})]]), tools=[drop]).run("go", **options)
    assert result.status == "paused"
    codes = [warning.code for warning in result.warnings]
    assert codes == (["not_resumable"] if options else [])
