"""What a person decided, or still has to decide, holds however the agent has changed since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentkit import Agent, Decision, RunContext, Tool, Trace
from agentkit.errors import ConfigurationError, ReplayDivergence
from agentkit.replay import diff
from agentkit.testing import ScriptedModel
from tests.support import events_of, tool_texts

pytestmark = pytest.mark.anyio
done: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    done.clear()


def delete(path: str) -> str:
    """Delete a file."""
    done.append(f"delete {path}")
    return f"deleted {path}"


def write(path: str) -> str:
    """Write a file."""
    done.append(f"write {path}")
    return f"wrote {path}"


def agent(*script: Any, **options: Any) -> Agent[str]:
    """An agent with two tools; `options` are those of `delete`."""
    tools = [Tool(delete, **options), Tool(write)]
    return Agent(ScriptedModel(list(script)), tools=tools)


def careful(*script: Any) -> Agent[str]:
    """An agent that asks before it deletes."""
    return agent(*script, approval=True)


async def paused(*calls: Any) -> Trace:
    """The trace of a run that waits for decisions about these calls."""
    result = await careful(list(calls or [("delete", {"path": "a"})])).run("go")
    assert result.trace is not None
    return result.trace


LATER: dict[str, dict[str, Any]] = {
    "the approval is gone": {},
    "its function says no": {"approval": lambda context, arguments: False},
    "it reads now": {"effect": "read"},
    "it reads, and asks": {"effect": "read", "approval": True},
}
AT = "/agent/m0/t0"


@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
@pytest.mark.parametrize("key", ["address", "id"])
async def test_a_denial_holds_however_the_tool_has_changed(later: dict[str, Any], key: str) -> None:
    """It is applied by address and by id, and the run says that the agent has changed."""
    trace = await paused()
    (pending,) = trace.pending
    which = pending.at if key == "address" else pending.call.id
    result = await agent("fine", **later).resume(trace, decisions={which: Decision.deny("No.")})
    assert (tool_texts(result), done) == (["Denied: No."], [])
    gone = later.get("approval") is not True
    assert [one.kind for one in result.divergences] == ["approval_changed"] * gone
    assert len(events_of(result.trace, "warning")) == gone


@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
async def test_a_recorded_pause_stays_a_pause(later: dict[str, Any]) -> None:
    """Without a decision nothing of the response runs, the calls that need none included."""
    trace = await paused(("write", {"path": "b"}), ("delete", {"path": "a"}))
    result = await agent("fine", **later).resume(trace)
    assert (result.status, result.pending, done) == ("paused", trace.pending, [])


async def test_of_two_calls_that_wait_none_runs_before_both_are_decided() -> None:
    """Decisions come one at a time, each is kept, and the run goes on with the last."""
    trace = await paused(("delete", {"path": "a"}), ("delete", {"path": "b"}))
    first, second = trace.pending
    again = await agent().resume(trace, decisions={first.at: True})
    assert (again.status, again.pending, done) == ("paused", (second,), [])
    assert again.trace is not None
    result = await agent("fine").resume(again.trace, decisions={second.at: False})
    assert (tool_texts(result), done) == (["deleted a", "Denied."], ["delete a"])


async def test_an_edit_is_applied_and_told_to_the_model() -> None:
    """The call runs with the other arguments, also where it is interrupted after that."""
    trace = await paused()
    edit = Decision.edit({"path": "b"})
    result = await agent("fine").resume(trace, decisions={AT: edit})
    text = '(Run with other arguments: {"path": "b"})\ndeleted b'
    assert (tool_texts(result), done) == ([text], ["delete b"])
    assert result.trace is not None
    lines = list(result.trace.raw())
    cut = next(n for n, line in enumerate(lines) if b'"tool.start"' in line)
    again = await agent("fine").resume(Trace(lines[: cut + 1]), approver=lambda one: True)
    assert (tool_texts(again), done) == ([text], ["delete b", "delete b"])


@pytest.mark.parametrize("decision", [None, Decision.answer("M")])
async def test_a_deferred_call_waits_though_the_tool_has_a_function_now(
    decision: Decision | None,
) -> None:
    """It is answered from outside, as it was to be."""
    parameters = Tool(delete).parameters
    outside = Tool.from_schema("delete", "Delete a file.", parameters, None)
    deferred = Agent(ScriptedModel([[("delete", {"path": "a"})]]), tools=[outside])
    trace = (await deferred.run("go")).trace
    assert trace is not None
    inside = Tool.from_schema("delete", "Delete a file.", parameters, delete)
    now = Agent(ScriptedModel(["fine"]), tools=[inside])
    result = await now.resume(trace, decisions={AT: decision} if decision else {})
    assert done == []
    assert result.status == ("ok" if decision else "paused")
    assert tool_texts(result) == (["M"] if decision else [])


def team(*script: Any, inner: Any = (), name: str = "cleaner", **options: Any) -> Agent[str]:
    """An agent with a sub-agent that deletes."""
    cleaner = Agent(ScriptedModel(list(inner)), name=name, tools=[Tool(delete, **options)])
    return Agent(
        ScriptedModel(list(script)),
        tools=[cleaner.as_tool(name="cleaner", description="Clean up.")],
    )


@pytest.mark.parametrize("decision", [None, False, True])
async def test_a_call_of_a_sub_agent_is_decided_by_the_journal(decision: bool | None) -> None:
    """The sub-agent begins anew, and finds its call waiting as before."""
    calls, inner = [("cleaner", {"prompt": "x"})], [[("delete", {"path": "a"})]]
    trace = (await team(calls, inner=inner, approval=True).run("go")).trace
    assert trace is not None
    (pending,) = trace.pending
    decisions = {} if decision is None else {pending.at: decision}
    result = await team("fine", inner=["clean"]).resume(trace, decisions=decisions)
    assert done == (["delete a"] if decision else [])
    assert result.status == ("paused" if decision is None else "ok")


async def test_a_decision_that_no_call_comes_to_is_named() -> None:
    """A sub-agent of another name has other addresses, so its call waits nowhere."""
    calls, inner = [("cleaner", {"prompt": "x"})], [[("delete", {"path": "a"})]]
    trace = (await team(calls, inner=inner, approval=True).run("go")).trace
    assert trace is not None
    (pending,) = trace.pending
    other = team("fine", inner=["Nothing to do."], name="sweeper")
    result = await other.resume(trace, decisions={pending.at: False})
    assert [(one.kind, one.at) for one in result.divergences] == [("missing_call", pending.at)]
    assert done == []


async def test_decisions_come_before_an_approver() -> None:
    """The approver decides only what is not decided yet, in the journal or by `decisions`."""
    calls = [("delete", {"path": path}) for path in "abc"]
    trace = await paused(*calls)
    asked: list[str] = []

    def approver(pending: Any) -> bool:
        asked.append(pending.at)
        return False

    first, second, third = trace.pending
    again = await agent().resume(trace, decisions={first.at: True})
    assert again.trace is not None
    decisions = {second.at: Decision.answer("kept")}
    result = await agent("fine").resume(again.trace, decisions=decisions, approver=approver)
    assert asked == [third.at]
    assert (tool_texts(result), done) == (["deleted a", "kept", "Denied."], ["delete a"])


async def test_an_id_that_two_calls_have_is_refused() -> None:
    """A decision by such an id could be about either."""
    from agentkit import AssistantMessage, ModelResponse, ToolCall

    calls = [ToolCall(id="x", name="delete", arguments=f'{{"path":"{one}"}}') for one in "ab"]
    response = ModelResponse(message=AssistantMessage(tool_calls=tuple(calls)))
    trace = (await careful(response).run("go")).trace
    assert trace is not None
    with pytest.raises(ConfigurationError, match="2 calls that wait have the id 'x'"):
        await careful().resume(trace, decisions={"x": True})


async def decided(decision: Any, *calls: Any) -> Trace:
    """The trace of a run whose calls were decided about at once."""
    script = list(calls or [("delete", {"path": "a"})]), "fine"
    trace = (await careful(*script).run("go", approver=lambda _: decision)).trace
    assert trace is not None
    done.clear()
    return trace


@pytest.mark.parametrize("decision", [True, False, Decision.edit({"path": "b"})])
async def test_an_exact_replay_notices_that_an_approval_is_gone(decision: Any) -> None:
    """Also where the call was approved and its result is the recorded one."""
    trace = await decided(decision)
    for strictness in ("exact", "structural"):
        with pytest.raises(ReplayDivergence) as caught:
            await agent().replay(trace, strictness=strictness)  # type: ignore[arg-type]
        assert (caught.value.kind, caught.value.at) == ("approval_changed", AT)
    assert (await careful().replay(trace)).output == "fine"


async def test_an_exact_replay_notices_that_an_approval_function_is_gone() -> None:
    """It had said that the call is harmless; now nobody says anything."""
    harmless = {"approval": lambda context, arguments: False}
    trace = (await agent([("delete", {"path": "a"})], "fine", **harmless).run("go")).trace
    assert trace is not None
    with pytest.raises(ReplayDivergence) as caught:
        await agent().replay(trace)
    assert (caught.value.kind, caught.value.at) == ("missing_call", f"{AT}/approval")
    with pytest.raises(ReplayDivergence) as caught:
        await careful().replay(trace)
    assert (caught.value.kind, caught.value.at) == ("unexpected_call", f"{AT}/arguments")


async def test_a_replay_notices_that_a_call_that_waits_would_just_run() -> None:
    """The run of then paused there."""
    with pytest.raises(ReplayDivergence) as caught:
        await agent().replay(await paused())
    assert (caught.value.kind, caught.value.at) == ("approval_changed", AT)


@pytest.mark.parametrize("live", [["delete"], [AT]])
async def test_a_live_tool_does_not_run_what_was_denied(live: list[str]) -> None:
    """The change is named, and the replay goes on with what the model read then."""
    trace = await decided(Decision.deny("No."))
    result = await agent().replay(trace, plan="tools_live", live=live)
    assert (tool_texts(result), done) == (["Denied: No."], [])
    assert [(one.kind, one.at) for one in result.divergences] == [("approval_changed", AT)]


@pytest.mark.parametrize("decision", [Decision.deny("No."), Decision.answer("kept")])
async def test_a_live_model_does_not_run_what_was_denied(decision: Decision) -> None:
    """The same call is decided as it was."""
    trace = await decided(decision)
    now = agent([("delete", {"path": "a"})], "fine")
    result = await now.replay(trace, plan="model_live", live=["delete"])
    assert (tool_texts(result), done) == ([decision.said()], [])
    assert [one.kind for one in result.divergences] == ["approval_changed"]


@pytest.mark.parametrize("options", [{}, {"approval": True}], ids=["gone", "there"])
async def test_a_fork_at_a_denied_call_says_why_it_would_not_run(options: Any) -> None:
    """Whoever wants it to run decides so."""
    trace = await decided(False)
    with pytest.raises(ConfigurationError, match=r"was denied.*result=Decision\.approve\(\)"):
        await agent(**options).fork(trace, at=AT, live=["delete"])
    result = await agent("fine", **options).fork(trace, at=AT, result=Decision.approve())
    assert (tool_texts(result), done) == (["deleted a"], ["delete a"])


async def test_a_fork_names_a_call_that_waits_only_because_it_did() -> None:
    """Forked elsewhere, the denial holds, and the fork's trace replays with its agent."""
    trace = await decided(False)
    result = await agent("other").fork(trace, at="/agent/m1", live=["delete"])
    assert (tool_texts(result), result.output, done) == (["Denied."], "other", [])
    assert [(one.kind, one.at) for one in result.divergences] == [("approval_changed", AT)]
    assert result.trace is not None
    assert await agent().replay(result.trace) == result


@pytest.mark.parametrize("kind", ["handoff", "output"])
async def test_a_call_without_a_result_of_its_own_cannot_be_given_one(kind: str) -> None:
    """A handoff and an output call are answered by the loop."""
    from agentkit import Handoff

    if kind == "handoff":
        writer = Agent(ScriptedModel(["fine"]), name="writer")
        made = Agent(ScriptedModel([[("transfer_to_writer", {})]]), tools=[Handoff(writer)])
    else:
        script = [[("final_output", {"value": 3})]]
        made = Agent(ScriptedModel(script), output=int, output_mode="tool")  # type: ignore[assignment]
    trace = (await made.run("go")).trace
    assert trace is not None
    with pytest.raises(ConfigurationError, match=rf"No tool ran the call .* \({kind}\)"):
        await made.fork(trace, at=AT, result="x")


async def test_approvals_in_an_approval_function_replay(tmp_path: Path) -> None:
    """What happens in an approval function stands before its call, not in it."""
    judge = Agent(ScriptedModel(["yes"]), name="judge")

    async def ask(context: RunContext[None], arguments: Any) -> bool:
        return (await context.run(judge, "May it run?")).output == "yes"

    made = agent([("delete", {"path": "a"})], "fine", approval=ask)
    result = await made.run("go", approver=lambda _: True)
    assert result.trace is not None
    events: list[Any] = []
    assert await made.replay(result.trace, on_event=events.append) == result
    forked = await made.with_(model=ScriptedModel(["other"])).fork(result.trace, at="/agent/m1")
    assert forked.trace is not None
    starts = [one["at"] for one in events_of(forked.trace, "compute.start")]
    assert starts == [f"{AT}/approval"]
    assert [one.at for one in diff(result.trace, forked.trace).causes] == ["/agent/m1"]


async def test_a_call_that_was_to_wait_does_so_though_the_run_did_not_get_there() -> None:
    """Its approval function had been asked when the process died, and is gone now."""
    made = agent([("delete", {"path": "a"})], approval=lambda context, arguments: True)
    trace = (await made.run("go")).trace
    assert trace is not None
    lines = list(trace.raw())
    for event in (b'"compute.end"', b'"compute.start"'):
        cut = next(number for number, line in enumerate(lines) if event in line)
        result = await agent("fine").resume(Trace(lines[: cut + 1]))
        assert (result.status, [one.at for one in result.pending], done) == ("paused", [AT], [])
    harmless = agent([("delete", {"path": "a"})], "x", approval=lambda context, arguments: False)
    trace = (await harmless.run("go")).trace
    assert trace is not None
    done.clear()
    lines = list(trace.raw())
    cut = next(number for number, line in enumerate(lines) if b'"compute.end"' in line)
    result = await agent("fine").resume(Trace(lines[: cut + 1]))
    assert (result.status, done) == ("ok", ["delete a"])


async def test_what_waits_together_is_recorded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies in between would leave calls of which nobody knows that they wait."""
    import os

    written: list[bytes] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(data) or write(fd, data))
    calls = [("delete", {"path": path}) for path in "ab"]
    await careful(calls).run("go", trace=tmp_path / "run.jsonl")
    (waits,) = [data for data in written if b'"tool.pending"' in data]
    assert waits.count(b'"tool.pending"') == 2


async def test_a_denied_call_answers_no_other_one() -> None:
    """Another model makes it at another step: nothing of it was recorded, and it does not run."""
    trace = await decided(False)
    now = agent([("write", {"path": "b"})], [("delete", {"path": "a"})], "fine")
    with pytest.raises(ReplayDivergence, match="delete was not called so"):
        await now.replay(trace, plan="model_live", live=["write"])
    assert done == ["write b"]


@pytest.mark.parametrize("needed", [True, False])
async def test_a_run_resumed_under_approval_true_replays(needed: bool) -> None:
    """Its approval function had asked; the version that goes on always asks."""
    function = {"approval": lambda context, arguments: True}
    first = await agent([("delete", {"path": "a"})], **function).run("go")
    result = await careful("fine").resume(first.trace, decisions={AT: needed})
    assert result.trace is not None
    for version in (careful(), agent(**function)):
        assert (await version.replay(result.trace)).output == "fine"
