"""The effects of a recorded run as objects: what began, what it came to, and what was in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from agentkit import Agent, ChatSettings, Decision, Handoff, Limits, RunContext, Usage, tool
from agentkit.core.effects import Failure, ToolOutcome, Value
from agentkit.errors import LimitExceeded, ModelUnreachable, ReplayDivergence, TraceCorrupt
from agentkit.events import ReasoningDelta, TextDelta, ToolCallDelta
from agentkit.messages import ModelResponse, ToolCall, UserMessage
from agentkit.models import ChatModel
from agentkit.testing import ChatServer, ScriptedModel, raw, reply
from agentkit.trace import RecordedEffect, Trace

pytestmark = pytest.mark.anyio


@tool(effect="read")
async def look(place: str) -> str:
    """Look at a place; what is near is seen later."""
    await anyio.sleep(0.02 if place == "near" else 0)
    return f"It is {place}."


@tool
def write(path: str) -> str:
    """Write a file."""
    return f"wrote {path}"


@tool(approval=True)
def delete(path: str) -> str:
    """Delete a file."""
    return f"deleted {path}"


class City(BaseModel):
    city: str


def agent(*script: Any, **options: Any) -> Agent[str]:
    """An agent with three tools."""
    return Agent(ScriptedModel(list(script)), tools=[look, write, delete], **options)


def traced(result: Any) -> Trace:
    """The trace of a result."""
    assert result.trace is not None
    return result.trace


def edited(trace: Trace, name: str, change: Callable[[dict[str, Any]], Any]) -> Trace:
    """The trace with a change to its first event of this name."""
    events = [json.loads(line) for line in trace.raw()]
    change(next(event for event in events if event["event"] == name))
    return Trace([json.dumps(event).encode() + b"\n" for event in events])


def cut_after(path: Path, event: bytes) -> Trace:
    """The trace of a file, as if its process had died behind the first line of this event."""
    lines = path.read_bytes().splitlines(keepends=True)
    number = next(index for index, line in enumerate(lines) if event in line)
    path.write_bytes(b"".join(lines[: number + 1]))
    return Trace.load(path)


# what there is


async def test_parallel_tools() -> None:
    """Effects stand in order of beginning; their times and numbers say which ended first."""
    calls = [("look", {"place": "near"}), ("look", {"place": "far"})]
    effects = traced(await agent(calls, "Seen.").run("go")).effects
    calls_in_any_order = {"/agent/m0/t0", "/agent/m0/t1"}  # trio starts tasks in any
    assert {*effects} == {"/agent", "/agent/m0", *calls_in_any_order, "/agent/m1"}
    begins = [one.began for one in effects.values() if one.began is not None]
    assert begins == sorted(begins)
    assert [one.kind for one in effects.values()] == ["agent", "model", "tool", "tool", "model"]
    near, far = effects["/agent/m0/t0"], effects["/agent/m0/t1"]
    assert near.began is not None
    assert near.ended is not None
    assert far.ended is not None
    assert near.began < far.ended < near.ended
    assert near.seconds == (near.ended.t - near.began.t) / 1e6 >= 0.02
    assert {*effects["/agent/m0"].children} == {near, far}
    assert [one.at for one in effects["/agent"].children] == ["/agent/m0", "/agent/m1"]


async def test_a_model_call() -> None:
    """Its request by hash, its answer, and what it has used."""
    result = await agent("Hello.", instructions="Be kind.").run("Hi")
    trace = traced(result)
    call = trace.effects["/agent/m0"]
    assert (call.kind, call.name, call.status) == ("model", "scripted", "ok")
    assert [one.text for one in trace.messages(call.messages)] == ["Be kind.", "Hi"]
    assert isinstance(call.outcome, ModelResponse)
    assert call.outcome.message == result.messages[-1]
    assert call.usage == call.outcome.usage
    assert call.usage.requests == 1
    assert call.message is not None
    assert trace.messages([call.message]) == (call.outcome.message,)
    assert call.tools is not None
    assert len(trace.blob(call.tools)) == 3
    assert call.start is not None
    assert call.fp == call.start["fp"]
    assert (call.call, call.effect, call.arguments) == (None, None, "")


async def test_a_tool_call() -> None:
    """The call as the model made it, what the tool does to the world, and what it answered."""
    trace = traced(await agent([("write", {"path": "a"})], "Done.").run("go"))
    call = trace.effects["/agent/m0/t0"]
    assert (call.name, call.effect, call.status) == ("write", "write", "ok")
    made = ToolCall(id="call_agent_m0_t0", name="write", arguments='{"path":"a"}')
    assert call.call == made
    assert call.arguments == '{"path":"a"}'
    assert isinstance(call.outcome, ToolOutcome)
    assert call.outcome.message.text == "wrote a"
    assert (call.pending, call.decision, call.error, call.in_doubt) == (None, None, None, False)


async def test_an_agent() -> None:
    """Its output, its status and what it has used."""
    whole = traced(await agent("Hello.").run("Hi")).effects["/agent"]
    assert (whole.kind, whole.name, whole.status) == ("agent", "agent", "ok")
    assert whole.output == "Hello."
    assert whole.usage.requests == 1
    assert whole.outcome is None


async def test_a_function_of_the_application() -> None:
    """Instructions that are computed: the name of the function, and its value."""
    trace = traced(await agent("Hello.", instructions=lambda: "Be kind.").run("Hi"))
    computed = trace.effects["/agent/instructions"]
    assert (computed.kind, computed.name, computed.output) == (
        "compute",
        "instructions",
        "Be kind.",
    )
    assert computed.outcome == Value(value="Be kind.")


async def test_a_tool_that_fails() -> None:
    """The error is typed, and so is what the model was told."""

    @tool
    def fail() -> str:
        raise KeyError("x")

    failing = Agent(ScriptedModel([[("fail", {})], "Well."]), tools=[fail])
    call = traced(await failing.run("go")).effects["/agent/m0/t0"]
    assert call.status == "error"
    assert call.error is not None
    assert (call.error.type, call.error.message) == ("KeyError", "'x'")
    assert "KeyError" in (call.error.traceback or "")
    assert isinstance(call.outcome, ToolOutcome)
    assert call.outcome.error == call.error


async def test_a_model_that_fails(tmp_path: Path) -> None:
    """Its outcome is the failure."""
    broken = ModelUnreachable("nobody there", model="scripted")
    with pytest.raises(ModelUnreachable):
        await agent(broken).run("go", trace=tmp_path / "run.jsonl")
    call = Trace.load(tmp_path / "run.jsonl").effects["/agent/m0"]
    assert call.status == "error"
    assert isinstance(call.outcome, Failure)
    assert call.outcome.type == "ModelUnreachable"


# agents in agents


async def test_sub_agents() -> None:
    """A tool's agents are below its call, and what they have used counts as the call's."""
    inner = Agent(ScriptedModel([[("look", {"place": "far"})], "Far."]), name="inner", tools=[look])
    boss = Agent(ScriptedModel([[("inner", {"prompt": "x"})], "ok"]), tools=[inner.as_tool()])
    effects = traced(await boss.run("go")).effects
    assert [*effects] == [
        "/agent",
        "/agent/m0",
        "/agent/m0/t0",
        "/agent/m0/t0/inner",
        "/agent/m0/t0/inner/m0",
        "/agent/m0/t0/inner/m0/t0",
        "/agent/m0/t0/inner/m1",
        "/agent/m1",
    ]
    call = effects["/agent/m0/t0"]
    (below,) = call.children
    assert (below.kind, below.name, below.output) == ("agent", "inner", "Far.")
    assert [one.at for one in below.children] == [f"{below.at}/m0", f"{below.at}/m1"]
    assert call.usage == below.usage
    assert call.usage.requests == 2


async def test_a_handoff() -> None:
    """The agent that takes over stands below the call that handed over to it."""
    other = Agent(ScriptedModel(["Mine now."]), name="other")
    front = Agent(
        ScriptedModel([[("transfer_to_other", {})]]), name="front", tools=[Handoff(other)]
    )
    effects = traced(await front.run("go")).effects
    taken = effects["/front/m0/t0/other"]
    assert (taken.kind, taken.name, taken.status) == ("agent", "other", "ok")
    assert [one.at for one in taken.children] == ["/front/m0/t0/other/m0"]


# calls that no tool runs


def skipped(trace: Trace) -> dict[str, tuple[str | None, str | None]]:
    """Why no tool ran each call, and what the model is told."""
    calls = {at: one for at, one in trace.effects.items() if one.status == "skipped"}
    texts = {
        at: trace.messages([one.message])[0].text if one.message is not None else None
        for at, one in calls.items()
    }
    return {at: (one.skipped, texts[at]) for at, one in calls.items()}


async def test_an_output_that_comes_as_a_call() -> None:
    """It is the output; a call beside it is refused, and so is an output that does not fit."""
    call: Any = ("final_output", {"city": "Paris"})
    bad: Any = ("final_output", {"city": 7})
    model = ScriptedModel([[bad], [call, ("look", {"place": "far"})]])
    trace = traced(await Agent(model, output=City, tools=[look], output_mode="tool").run("go"))
    found = skipped(trace)
    assert {at: reason for at, (reason, _) in found.items()} == {
        "/agent/m0/t0": "refused",
        "/agent/m1/t0": "output",
        "/agent/m1/t1": "refused",
    }
    assert found["/agent/m1/t0"][1] == "Accepted."
    text = "Not executed: the final output came in the same response."
    assert found["/agent/m1/t1"][1] == text
    output = trace.effects["/agent/m1/t0"]
    assert (output.name, output.arguments) == ("final_output", '{"city":"Paris"}')
    assert (output.begun, output.outcome, output.error) == (False, None, None)


async def test_calls_that_are_decided_about() -> None:
    """A denied call, and one whose result came from the decision."""
    calls: Any = [("delete", {"path": "a"}), ("delete", {"path": "b"}), ("look", {"place": "far"})]
    decisions = [Decision.deny("no"), Decision.answer("gone")]
    trace = traced(await agent(calls, "ok").run("go", approver=lambda _: decisions.pop(0)))
    assert skipped(trace) == {
        "/agent/m0/t0": ("denied", "Denied: no"),
        "/agent/m0/t1": ("answered", "gone"),
    }


async def test_a_call_that_hands_over() -> None:
    """It is a handoff, and the agent that takes over is its child."""
    other = Agent(ScriptedModel(["Mine now."]), name="other")
    front = Agent(
        ScriptedModel([[("transfer_to_other", {})]]), name="front", tools=[Handoff(other)]
    )
    trace = traced(await front.run("go"))
    assert skipped(trace) == {"/front/m0/t0": ("handoff", "Handed over to other.")}
    assert [one.at for one in trace.effects["/front/m0/t0"].children] == ["/front/m0/t0/other"]


async def test_calls_that_only_repeat() -> None:
    """Their response stays out of the history, so the model is told nothing about them."""
    calls: Any = [("look", {"place": "far"})]
    trace = traced(await agent(calls, calls, "Far.").run("go", limits=Limits(repeats=0)))
    assert skipped(trace) == {"/agent/m1/t0": ("repeated", None)}


async def test_calls_beyond_the_limit() -> None:
    """None of them is executed, and the run ends."""
    calls: Any = [("look", {"place": "far"}), ("look", {"place": "near"})]
    with pytest.raises(LimitExceeded) as caught:
        await agent(calls).run("go", limits=Limits(tool_calls=1))
    text = "Not executed: the run has reached its limit."
    assert skipped(traced(caught.value.result)) == {
        "/agent/m0/t0": ("limit", text),
        "/agent/m0/t1": ("limit", text),
    }


async def test_a_skipped_call_is_noted_once(tmp_path: Path) -> None:
    """A run that goes on after it does not note it again, and its replay comes to the same."""
    path = tmp_path / "run.jsonl"
    calls: Any = [("delete", {"path": "a"})]
    await agent(calls, [("delete", {"path": "b"})]).run(
        "go", trace=path, approver=lambda call: None if "b" in call.call.arguments else False
    )
    result = await agent("Done.").resume(path, decisions={"/agent/m1/t0": False})
    events = [event for event in Trace.load(path).events if event["event"] == "tool.skip"]
    assert [event["at"] for event in events] == ["/agent/m0/t0", "/agent/m1/t0"]
    assert await agent().replay(path) == result


async def test_a_call_that_was_skipped_and_runs_now() -> None:
    """It is a divergence, which says why no tool ran it then."""
    other = Agent(ScriptedModel(["Mine now."]), name="other")
    front = Agent(
        ScriptedModel([[("transfer_to_other", {})]]), name="front", tools=[Handoff(other)]
    )

    @tool
    def transfer_to_other() -> str:
        """Do it here."""
        return "done"

    changed = Agent(ScriptedModel([]), name="front", tools=[transfer_to_other])
    trace = traced(await front.run("go"))
    with pytest.raises(ReplayDivergence, match=r"no tool ran this call then \(handoff\)") as caught:
        await changed.replay(trace, strictness="structural")
    assert caught.value.at == "/front/m0/t0"


# requests that continue others


def sizes(steps: int) -> tuple[Trace, int]:
    """A trace of so many steps, and its bytes without blobs."""
    script = [[("look", {"place": f"p{number}"})] for number in range(steps)]
    trace = traced(agent(*script, "Done.").run_sync("go", limits=Limits(steps=None)))
    return trace, sum(len(line) for line in trace.raw())


def test_bytes_grow_with_the_steps() -> None:
    """Twice the steps are about twice the bytes, however long the history."""
    (_, one), (trace, two) = sizes(50), sizes(100)
    assert 1.9 < two / one < 2.1
    lengths = [len(one.messages) for one in trace.effects.values() if one.kind == "model"]
    assert lengths == [1 + 2 * step for step in range(101)]


@pytest.mark.parametrize("since", ["/agent/m7", "/agent/m1", "/agent/m2", "/agent", 7])
async def test_a_request_that_continues_none(since: Any) -> None:
    """A later request, itself, another effect or nothing at all: the event is named."""
    calls: Any = [("look", {"place": "far"})]
    trace = traced(await agent(calls, [("write", {"path": "a"})], "Done.").run("go"))
    lines = [json.loads(line) for line in trace.raw()]
    second = next(line for line in lines if line.get("at") == "/agent/m1")
    second["since"] = since
    broken = Trace([json.dumps(line).encode() + b"\n" for line in lines])
    with pytest.raises(TraceCorrupt, match=rf"\(model\.start\) .*{since}"):
        _ = broken.effects["/agent/m2"].messages
    with pytest.raises(TraceCorrupt, match=rf"\(model\.start\) .*{since}"):
        await agent().replay(broken)


# what happened in them


async def test_retries() -> None:
    """Each attempt with its status, when it was, and how long the next one waited."""
    replies = [raw(429, b"", {"retry-after": "0"}), reply("Hello.")]
    with ChatServer(replies) as server:
        async with ChatModel("any", base_url=server.base_url, api_key="k", retries=1) as model:
            call = traced(await Agent(model).run("Hi")).effects["/agent/m0"]
        host = server.base_url.split("/")[2]
    first, second = call.attempts
    assert [(one.number, one.status, one.host) for one in call.attempts] == [
        (0, 429, host),
        (1, 200, host),
    ]
    assert (first.at, second.at) == ("/agent/m0/h0", "/agent/m0/h1")
    assert first.retry_after == 0
    assert first.delay is not None
    assert second.delay is None
    assert call.began is not None
    assert call.ended is not None
    assert first.ended is not None
    assert call.began < first.began < first.ended < second.began < call.ended


async def test_streamed_deltas() -> None:
    """They are the events that a listener got, each with its time."""
    calls = [("look", {"place": "far"})]
    with ChatServer([reply("Let me see.", calls=calls), reply("Far.")]) as server:
        async with (
            ChatModel("any", base_url=server.base_url, api_key="k") as model,
            Agent(model, tools=[look]).stream("go") as run,
        ):
            seen = [event async for event in run]
    effects = traced(run.result).effects
    deltas = [*effects["/agent/m0"].deltas, *effects["/agent/m1"].deltas]
    pieces = (TextDelta, ReasoningDelta, ToolCallDelta)
    assert [one.delta for one in deltas] == [one for one in seen if isinstance(one, pieces)]
    call = effects["/agent/m0"]
    assert call.began is not None
    assert call.ended is not None
    times = [one.t for one in call.deltas]
    assert call.began.t <= times[0]
    assert times == sorted(times)
    assert times[-1] <= call.ended.t


async def test_times_warnings_and_progress() -> None:
    """What code drew through its context, what was changed on the way, and what was reported."""

    @tool(effect="read")
    def roll(ctx: RunContext[None], sides: int) -> str:
        """Roll a die."""
        ctx.progress("rolling")
        return f"{ctx.random()} {ctx.random()} of {sides}"

    rolling = Agent(ScriptedModel([[("roll", '{"sides": 6,}')], "Done."]), tools=[roll])
    call = traced(await rolling.run("go")).effects["/agent/m0/t0"]
    assert [(one.kind, one.use) for one in call.dets] == [("random", 0), ("random", 1)]
    assert isinstance(call.outcome, ToolOutcome)
    assert call.outcome.message.text == "{} {} of 6".format(*(one.value for one in call.dets))
    assert [one.code for one in call.warnings] == ["repaired_arguments"]
    assert call.warnings[0].at == call.at
    assert call.progress == ("rolling",)


# decisions, and what was interrupted


async def test_a_call_that_waits(tmp_path: Path) -> None:
    """It is pending; after a resume its decision is there, and it began and ended once."""
    path = tmp_path / "run.jsonl"
    calls = [("delete", {"path": "a"}), ("delete", {"path": "b"})]
    paused = await agent(calls).run("go", trace=path)
    effects = Trace.load(path).effects
    waiting = effects["/agent/m0/t0"]
    assert (waiting.status, waiting.begun, waiting.name) == ("pending", False, "delete")
    assert (waiting.start, waiting.end, waiting.decision) == (None, None, None)
    assert waiting.pending == paused.pending[0]
    assert waiting.call == paused.pending[0].call
    assert effects.pending() == Trace.load(path).pending == paused.pending
    decisions = {
        paused.pending[0].at: Decision.approve(by="Ada"),
        paused.pending[1].at: Decision.deny("no", by="Ada"),
    }
    await agent("Done.").resume(path, decisions=decisions)
    effects = Trace.load(path).effects
    approved, denied = effects["/agent/m0/t0"], effects["/agent/m0/t1"]
    assert (approved.status, approved.decision) == ("ok", Decision.approve(by="Ada"))
    assert approved.pending == paused.pending[0]
    assert (denied.status, denied.decision) == ("skipped", Decision.deny("no", by="Ada"))
    assert not denied.begun
    assert effects.pending() == ()
    assert effects["/agent"].status == "ok"


async def test_a_crash_in_a_call(tmp_path: Path) -> None:
    """It is in flight; when it is run again after a decision, the second time counts."""
    path = tmp_path / "run.jsonl"
    await agent([("write", {"path": "a"})], "Done.").run("go", trace=path)
    trace = cut_after(path, b'"event":"tool.start"')
    call = trace.effects["/agent/m0/t0"]
    assert (call.status, call.finished, call.outcome) == ("in_flight", False, None)
    assert [(one.at, one.kind) for one in trace.pending] == [("/agent/m0/t0", "in_flight")]
    assert trace.pending[0].call == call.call
    paused = await agent().resume(path)
    assert paused.status == "paused"
    call = Trace.load(path).effects["/agent/m0/t0"]
    assert (call.status, call.in_doubt, call.pending) == ("in_flight", True, None)
    await agent("Done.").resume(path, decisions={"/agent/m0/t0": True})
    again = Trace.load(path).effects["/agent/m0/t0"]
    assert (again.status, again.in_doubt) == ("ok", False)
    assert call.began is not None
    assert again.began is not None
    assert again.began > call.began


async def test_a_crash_in_a_model_call(tmp_path: Path) -> None:
    """It is in flight; it is made again, and stands where it first began."""
    path = tmp_path / "run.jsonl"
    await agent([("write", {"path": "a"})], "Done.").run("go", trace=path)
    lines = path.read_bytes().splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if b'"model.start"' in line]
    path.write_bytes(b"".join(lines[: starts[1] + 1]))
    assert Trace.load(path).effects["/agent/m1"].status == "in_flight"
    await agent("Done.").resume(path)
    effects = Trace.load(path).effects
    assert effects["/agent/m1"].status == "ok"
    assert [*effects] == ["/agent", "/agent/m0", "/agent/m0/t0", "/agent/m1"]


# less than all


async def test_metadata(tmp_path: Path) -> None:
    """Names, statuses, times and usage are there; contents are not."""
    path = tmp_path / "run.jsonl"
    await agent([("write", {"path": "a"})], "Done.").run("go", trace=path, capture="metadata")
    effects = Trace.load(path).effects
    call = effects["/agent/m0/t0"]
    assert (call.name, call.status, call.arguments, call.outcome) == ("write", "ok", "", None)
    assert effects["/agent/m0"].usage.requests == 1
    assert effects["/agent"].output is None


async def test_what_is_damaged_is_named() -> None:
    """The event, the field, and what it should be."""
    trace = traced(await agent([("write", {"path": "a"})], "Done.").run("go"))
    broken = edited(trace, "tool.start", lambda event: event.pop("tool"))
    with pytest.raises(TraceCorrupt, match=r"\(tool\.start\) has no 'tool'\.$"):
        _ = broken.effects["/agent/m0/t0"].name
    broken = edited(trace, "tool.end", lambda event: event.update(status="odd"))
    with pytest.raises(TraceCorrupt, match=r"has 'odd' as 'status'; expected one of ok, error"):
        _ = broken.effects["/agent/m0/t0"].outcome
    answer = trace.effects["/agent/m0"].message
    broken = edited(trace, "tool.end", lambda event: event.update(message=answer))
    with pytest.raises(TraceCorrupt, match="names a AssistantMessage as its 'message'"):
        _ = broken.effects["/agent/m0/t0"].outcome


async def test_effects_are_a_frozen_mapping() -> None:
    """Built once, addressed by text, and not to be changed."""
    trace = traced(await agent("Hello.", settings=ChatSettings(seed=1)).run("Hi"))
    effects = trace.effects
    assert trace.effects is effects
    assert len(effects) == 2
    assert "/agent/m0" in effects
    assert effects.get("/agent/m7") is None
    with pytest.raises(KeyError):
        effects["/agent/m7"]
    one: RecordedEffect = effects["/agent/m0"]
    with pytest.raises(AttributeError):
        one.kind = "tool"  # type: ignore[misc]
    assert repr(one) == "RecordedEffect(at='/agent/m0', kind='model')"
    assert repr(effects) == "<2 effects>"
    assert isinstance(trace.messages(one.messages)[-1], UserMessage)
    assert one.usage != Usage()
