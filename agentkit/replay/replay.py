"""Drives the loop with recorded outcomes, or with some of them.

In `exact` nothing is asked and nothing is executed. Other policies answer some of
the effects for real and the rest from the recording, by address.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar, Unpack

import anyio

from agentkit.core.effects import (
    Address,
    Compute,
    Effect,
    Failure,
    Handler,
    Interrupt,
    ModelCall,
    Outcome,
    Pause,
    Suspended,
    ToolInvocation,
    ToolOutcome,
    Value,
    ancestors,
)
from agentkit.core.spec import Finish
from agentkit.errors import AgentKitError, ConfigurationError, ReplayDivergence
from agentkit.events import Emit, ignore
from agentkit.messages import JsonObject, Message
from agentkit.redaction import Redactor
from agentkit.replay.answers import RecordedHandler, stopped
from agentkit.replay.cause import explained
from agentkit.replay.order import Gate
from agentkit.replay.playback import Player
from agentkit.replay.policy import Policy, PolicyName, PolicyOptions, policy_of
from agentkit.runtime.assemble import Program, assemble, program_hash
from agentkit.runtime.config import Configured
from agentkit.runtime.driver import Driver
from agentkit.runtime.handlers import observed, performing, recorded
from agentkit.runtime.result import RunResult, conclude, keep_result, reached
from agentkit.runtime.scope import Approver, Scope, guarded, new_run_id
from agentkit.runtime.slots import Frames
from agentkit.settings import limits_of, settings_of
from agentkit.trace.compare import divergence, value_difference, without_digests
from agentkit.trace.naming import Namer, canonical, packed, without_ids
from agentkit.trace.open import TraceTo, check_replayable, open_recorder
from agentkit.trace.reader import Trace
from agentkit.trace.recorder import Recorder

__all__ = ["SameCalls", "prepared", "replay"]

OutputT = TypeVar("OutputT")
_PATIENCE = 5.0
"""Seconds after which code that gave something up is expected to have given it up again."""


async def replay(
    trace: Trace | str | os.PathLike[str],
    agent: Configured,
    *,
    policy: PolicyName | Policy = "exact",
    deps: object = None,
    approver: Approver | None = None,
    record: TraceTo = False,
    redact: Redactor | None = None,
    on_event: Emit = ignore,
    **options: Unpack[PolicyOptions],
) -> RunResult[Any]:
    """Run a recorded run again: the agent as it is now, with the outcomes of then.

    Args:
        trace: The recording, or its path.
        agent: The agent that made it.
        policy: `exact`: no model is asked and no tool is run. `tools_live`: the tools that only
            read run for real, or those of `live_tools`. `model_live`: the model is asked, and
            tools answer with what was recorded of the same call; one that was not recorded is
            refused, not run. Or a `Policy`.
        deps: Given to tools that run.
        approver: Decides about calls that were not decided about then.
        record: Where the replay itself is recorded, as `RunOptions.trace`; by default nowhere.
        redact: What the recorded run was given instead of its agent's.
        on_event: Called with each event, as in `Agent.run`.
        **options: Over those of the policy; see `Policy`.

    Returns:
        The result, in `exact` equal to the recorded run's. `divergences` is what was found
        to differ where that does not end the replay.

    Raises:
        ReplayDivergence: The agent asks for something that was not recorded so, or leaves
            out something that was. It names the first difference.
        TraceError: The trace cannot be read.
        AgentKitError: The recorded run ended in this error.
    """
    chosen = policy_of(policy, options)
    recording = trace if isinstance(trace, Trace) else Trace.load(trace)
    check_replayable(recording)
    messages, earlier = recording.input()
    then = recording.asked()
    program = assemble(agent.config, settings_of(then), limits_of(then))
    if chosen.model == "live":
        program.model.check()
    redact, run = redact or agent.config.redact, new_run_id()
    recorder, to = open_recorder(
        record, run=run, program=lambda: program_hash(program, redact), redact=redact
    )
    driver, going = prepared(
        recording,
        program,
        messages,
        earlier,
        chosen,
        redact=redact,
        recorder=recorder,
        deps=deps,
        approver=approver,
        emit=on_event,
    )
    finish = await _driven_to_the_end(driver, going.gate)
    run = recording.run if recorder is None else run
    finish, found = going.checked(finish), tuple(going.found)
    result = reached(finish, run=run, prompt=messages[earlier:], trace=to or recording)
    try:
        return replace(conclude(finish, result), divergences=found)
    except AgentKitError as error:
        if error.result is not None:
            keep_result(error, replace(error.result, divergences=found))
        raise


def prepared(
    recording: Trace,
    program: Program[OutputT],
    messages: Sequence[Message],
    earlier: int,
    policy: Policy,
    *,
    redact: Redactor,
    recorder: Recorder | None = None,
    deps: object = None,
    approver: Approver | None = None,
    emit: Emit = ignore,
) -> tuple[Driver[OutputT], _Replay]:
    """A run that is answered as the policy says, and what there is to say at its end.

    Where the policy orders effects, the replay's gate has to be watched beside the driver.
    """
    if not policy.acts:
        # Nothing takes its own time here: where a deadline ended the run, the recording says so.
        limits = replace(program.spec.limits, seconds=None)
        program = replace(program, spec=replace(program.spec, limits=limits))
    recorded = RecordedHandler(recording, redact)
    recorded.check_agent(program.spec.at)
    _check_live_tools(policy, program, recorded)
    listener = guarded(emit)
    going = _Replay(recorded, policy, listener)
    scope = Scope(
        run=recording.run,
        handler=going.handler,
        limits=program.spec.limits,
        deps=deps,
        listener=listener,
        recorder=recorder,
        trace=recording,
        redact=redact,
        approver=approver,
        recorded=recorded,
        bounded=policy.order == "free" or policy.acts,
    )
    return Driver(scope, program, messages, earlier=earlier), going


async def _driven_to_the_end(driver: Driver[OutputT], gate: Gate) -> Finish[OutputT]:
    failed: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(gate.watch)
        try:
            await driver.execute()
        except Exception as error:
            failed = error  # raised below: a task group would wrap it in an ExceptionGroup
        group.cancel_scope.cancel()
    if failed is not None:
        raise failed
    assert driver.finish is not None
    return driver.finish


def _check_live_tools(policy: Policy, program: Program[Any], recorded: RecordedHandler) -> None:
    """Refuse names of tools that neither the agent has nor the run has called.

    Raises:
        ConfigurationError: There is no such tool, and no toolset that might have it.
    """
    starts = recorded.starts.values()
    called = (str(start["tool"]) for start in starts if start["event"] == "tool.start")
    known = dict.fromkeys((*program.tools, *called))  # those of sub-agents, too
    unknown = sorted({*policy.live_tools} - known.keys())
    if unknown and not program.spec.toolsets:
        raise ConfigurationError(
            f"live_tools names {unknown[0]!r}, which the agent does not have; "
            f"its tools: {', '.join(map(repr, known)) or 'none'}."
        )


class _Replay:
    """One replay: what its handlers share, those of sub-agents included."""

    def __init__(self, recorded: RecordedHandler, policy: Policy, emit: Emit) -> None:
        self.recorded = recorded
        self.policy = policy
        self.found: list[ReplayDivergence] = []
        self.live_from_here = False
        self.namer = Namer(recorded.redact)
        self._driven = _driven(recorded, policy)
        self.gate = Gate(self._order() if policy.order == "recorded" else ())
        told = emit is not ignore
        self.player = Player(recorded.trace, self._owner, emit) if told else None

    @cached_property
    def calls(self) -> SameCalls:
        """The recorded calls by what they ask: only a live model needs them so."""
        return SameCalls(self.recorded)

    def handler(self, scope: Scope, program: Program[Any]) -> Handler:
        """Make the handlers of one agent: in the order of the recording."""
        live = performing(scope, program)
        inner = recorded(scope, _ReplayHandler(self, live, program, scope.frames))
        return _Ordered(observed(scope, inner), self)

    def note(self, found: ReplayDivergence) -> Interrupt | None:
        """Take note of a difference. Gives the end of the run, if it ends here."""
        policy = self.policy.on_divergence
        if policy == "raise":
            return stopped(found)
        first = next((one for one in self.found if found.cause in (one.at, one.cause)), None)
        if first is not None and found.cause is not None:
            # It follows from one that was said already.
            first.suppressed = (first.suppressed or 0) + 1 + (found.suppressed or 0)
        else:
            self.found.append(found)
        self.live_from_here = policy == "go_live"
        return None

    def checked(self, finish: Finish[OutputT]) -> Finish[OutputT]:
        """Look at the end: whether anything is left over, and whether it is the same end."""
        diverged = finish.error is not None and finish.error.type == "ReplayDivergence"
        if diverged or self.live_from_here or self.policy.model == "live":
            return finish
        found = self.recorded.left_over() if self.policy.strictness != "outcome" else None
        found = found or self._reordered() or self._other_end(finish)
        if found is not None and self.note(found) is not None:
            raise found
        return finish

    def _reordered(self) -> ReplayDivergence | None:
        at = self.gate.out_of_order
        if at is None or self.policy.strictness != "exact" or self.policy.acts:
            return None
        return divergence(
            "order_changed",
            at,
            text="it came before something that the recording has before it.",
            advice="Look at limits, concurrency and sequential tools, or replay with order='free'.",
        )

    def _other_end(self, finish: Finish[Any]) -> ReplayDivergence | None:
        """The recorded status and output, compared with these."""
        ended = self.recorded.ended
        if not ended or any(one.kind == "result_changed" for one in self.found):
            return None
        output = packed(finish.output, self.namer.redact)
        now = {"status": finish.status, "output": output}
        then = {"status": ended["status"], "output": ended.get("output")}
        at = Address(ended["at"])
        trace = self.recorded.trace
        return value_difference(trace, at, then, now, self.namer, kind="outcome_changed")

    def _owner(self, at: str) -> str | None:
        """The innermost effect at or above an address that this replay drives."""
        while at and at not in self._driven:
            at = at.rpartition("/")[0]
        return at or None

    def _order(self) -> list[int]:
        """The numbers of the lines at which driven effects begin and end."""
        lines: list[int] = []
        for at in self._driven:
            start, end = self.recorded.start(at), self.recorded.first_end(at)
            lines += [line["seq"] for line in (start, end) if line is not None]
        return sorted(lines)


class SameCalls:
    """Answers tool calls with what was recorded of the same call, wherever it stood.

    Each recorded call answers once, at its own address if it is asked for there; the last
    one of a tool that only reads serves for all further ones. What was not called is not run.
    """

    def __init__(self, recorded: RecordedHandler) -> None:
        self._recorded = recorded
        self._other_key = recorded.other_key
        self._redact = recorded.redact
        self._unused = defaultdict[bytes, deque[str]](deque)
        for at, start in recorded.starts.items():
            end = recorded.end(at)
            if start["event"] == "tool.start" and end is not None and "message" in end:
                self._unused[self._name(start["tool"], start["arguments"])].append(at)

    def answer(self, call: ToolInvocation) -> ToolOutcome | ReplayDivergence:
        """The recorded outcome, or that there is none."""
        arguments = packed(call.call.arguments, self._redact)
        known = self._unused[self._name(call.call.name, arguments)]
        if not known:
            return divergence(
                "unexpected_call",
                call.at,
                text=f"{call.call.name} was not called so when this was recorded, and is not "
                f"run: {arguments}",
                advice="Let the tool run for real, or record a new run.",
            )
        if call.at in known:
            known.remove(call.at)
            known.appendleft(call.at)
        at = known[0] if len(known) == 1 and call.effect == "read" else known.popleft()
        outcome = self._recorded.outcome(replace(call, at=Address(at)))
        assert isinstance(outcome, ToolOutcome)
        message = replace(outcome.message, call_id=call.call.id)
        return replace(outcome, at=call.at, message=message)

    def _name(self, tool: str, arguments: Any) -> bytes:
        # Of secrets under another key only the kinds can be compared.
        given = without_digests(arguments) if self._other_key else arguments
        # Models write the same arguments with other spaces and in another order.
        with suppress(TypeError, ValueError, RecursionError):
            given = {"json": json.loads(given)}
        return canonical([tool, given])


def _is_live(start: JsonObject, policy: Policy) -> bool:
    match start["event"]:
        case "model.start":
            return policy.model == "live"
        case "tool.start":
            return policy.runs(start["tool"], start["effect"])
        case _:
            return policy.compute == "live"


def _driven(recorded: RecordedHandler, policy: Policy) -> set[str]:
    """The recorded effects that are not inside one which answers from the recording."""
    driven: set[str] = set()
    for at in recorded.starts:
        known = [one for up in ancestors(at) if (one := recorded.start(up)) is not None]
        if all(_is_live(one, policy) for one in known if one["event"] != "model.start"):
            driven.add(at)
    return driven


class _Ordered:
    """Lets effects begin in the order of the recording."""

    def __init__(self, inner: Handler, replay: _Replay) -> None:
        self._inner = inner
        self._replay = replay

    async def perform(self, effect: Effect) -> Outcome:
        """Wait for the effect's turn."""
        recorded = self._replay.recorded
        if self._replay.live_from_here:
            return await self._inner.perform(effect)
        if self._replay.policy.model == "recorded" and recorded.never_came_to(effect):
            return recorded.outcome(effect)
        start = recorded.start(effect.at)
        if start is not None and not isinstance(effect, Pause):
            await self._replay.gate.turn(start["seq"], effect.at, ends=False)
            if (player := self._replay.player) is not None:
                player.until((start["t"], start["seq"]))
                player.begin(effect.at)
        return await self._inner.perform(effect)


class _ReplayHandler:
    """Answers each effect from the recording or for real, as the policy says."""

    def __init__(
        self, replay: _Replay, performing: Handler, program: Program[Any], frames: Frames
    ) -> None:
        self._replay = replay
        self._performing = performing
        self._program = program
        self._frames = frames

    async def perform(self, effect: Effect) -> Outcome:
        """Answer one effect."""
        if isinstance(effect, Pause):
            return await self._decide(effect)
        replay = self._replay
        if replay.live_from_here or self._runs(effect):
            return await self._really(effect)
        if replay.policy.model == "live" and isinstance(effect, ToolInvocation):
            found = replay.calls.answer(effect)
            if isinstance(found, ToolOutcome):
                return found
            ended = self._note(found, effect)
            return await self._really(effect) if replay.live_from_here else ended or stopped(found)
        if found := replay.recorded.compare(effect, replay.policy.strictness):
            ended = self._note(found, effect)
            new = replay.recorded.start(effect.at) is None
            if replay.live_from_here or (new and isinstance(effect, Compute) and ended is None):
                return await self._really(effect)
            if ended is not None or new:
                return ended or stopped(found)
        return await self._recorded(effect)

    def _runs(self, effect: Effect) -> bool:
        policy = self._replay.policy
        match effect:
            case ToolInvocation(call=call, effect=kind):
                cancelled = self._status(effect) == "cancelled"
                return policy.runs(call.name, kind) and not cancelled
            case ModelCall():
                return policy.model == "live"
            case _:
                # A function that the agent did not have then: only its effect is looked at.
                new = self._replay.recorded.start(effect.at) is None
                loose = policy.strictness in ("structural", "outcome")
                return policy.compute == "live" or (
                    new and loose and not self._replay.recorded.ended_from_outside
                )

    def _status(self, effect: Effect) -> str | None:
        end = self._replay.recorded.end(effect.at)
        return end["status"] if end is not None else None

    async def _recorded(self, effect: Effect) -> Outcome:
        """What was recorded, in its turn and after its time."""
        replay, end = self._replay, self._replay.recorded.end(effect.at)
        if end is not None and end["status"] == "cancelled" and not replay.recorded.cut_short:
            # Something around it cancelled it then, and will now.
            replay.recorded.made(effect)
            await self._ended(effect)
            return await self._given_up(effect, end)
        if replay.policy.timing and end is not None:
            with replay.gate.asleep():
                await self._take_time(effect.at, end)
        await self._ended(effect)
        return replay.recorded.outcome(effect)

    async def _given_up(self, effect: Effect, end: JsonObject) -> Outcome:
        """Stay pending, as then, until the code around gives up again; but not for ever."""
        start = self._replay.recorded.start(effect.at) or end
        with anyio.move_on_after(max(_PATIENCE, 3 * (end["t"] - start["t"]) / 1e6)):
            await anyio.sleep_forever()
        found = divergence(
            "result_changed",
            effect.at,
            text="it was cancelled then by the code around it, which waits for it now.",
            advice="There is no outcome to go on with: let it be done for real, or record anew.",
        )
        return stopped(found)

    async def _take_time(self, at: Address, end: JsonObject) -> None:
        """Wait as long as it took then, and tell on the way what happened in it."""
        replay, start = self._replay, self._replay.recorded.start(at)
        assert start is not None
        begun = anyio.current_time()

        async def until(microseconds: int) -> None:
            then = (microseconds - start["t"]) / 1e6 * replay.policy.timing
            await anyio.sleep(max(0.0, begun + then - anyio.current_time()))

        while replay.player is not None and (played := replay.player.upcoming(at)):
            await until(played.time[0])
            replay.player.until((played.time[0], played.time[1] + 1), at)
        await until(end["t"])

    async def _ended(self, effect: Effect) -> None:
        """Wait for the turn of the effect's end; what happened before it is told."""
        replay, end = self._replay, self._replay.recorded.first_end(effect.at)
        if end is None or replay.live_from_here:
            return
        frame = self._frames.get(effect.at)
        # What is done needs no place among the calls that run, and another one may wait for it.
        with frame.lending() if frame is not None else nullcontext():
            await replay.gate.turn(end["seq"], effect.at, ends=True)
        if replay.player is not None:
            ordered = replay.policy.order == "recorded"
            replay.player.until((end["t"], end["seq"]), None if ordered else effect.at)

    async def _really(self, effect: Effect) -> Outcome:
        """Do it for real, and say where it came out differently than then."""
        replay = self._replay
        replay.recorded.made(effect)
        with replay.gate.real(effect.at):
            outcome = await self._performing.perform(effect)
        await self._ended(effect)
        same_question = replay.policy.model == "recorded" and not replay.live_from_here
        if same_question and (found := self._other_result(effect, outcome)):
            return self._note(found, effect) or outcome
        return outcome

    def _other_result(self, effect: Effect, outcome: Outcome) -> ReplayDivergence | None:
        """How a live result differs from the recorded one."""
        if self._status(effect) is None or self._replay.recorded.compare(effect):
            return None  # it was another question
        if isinstance(outcome, (Interrupt, Suspended)):
            return None  # the run ends here, and says why
        then = self._replay.recorded.outcome(effect)
        redact = self._replay.namer.redact
        expected, actual = (packed(_result(one), redact) for one in (then, outcome))
        trace, namer = self._replay.recorded.trace, self._replay.namer
        return value_difference(trace, effect.at, expected, actual, namer, kind="result_changed")

    async def _decide(self, pause: Pause) -> Outcome:
        """What was decided then about the same calls; about others somebody has to decide."""
        replay, recorded = self._replay, self._replay.recorded
        same = all(recorded.asks_again(pending) for pending in pause.pending)
        known = all(recorded.decision(pending.at) for pending in pause.pending)
        if replay.live_from_here or replay.policy.model == "live":
            return (
                recorded.decisions(pause)
                if same and known
                else await self._performing.perform(pause)
            )
        if same or recorded.never_came_to(pause):
            return recorded.decisions(pause)
        return replay.note(recorded.unexpected(pause)) or await self._performing.perform(pause)

    def _note(self, found: ReplayDivergence, effect: Effect) -> Interrupt | None:
        replay = self._replay
        return replay.note(explained(found, effect, replay.recorded, self._program.tools))


def _result(outcome: Outcome) -> Any:
    """What an outcome says, without what differs each time."""
    match outcome:
        case ToolOutcome(status=status, message=message):
            return {"status": status, **without_ids(message.to_json())}
        case Value(value=value):
            return {"value": value}
        case Failure(type=kind, message=text):
            return {"error": kind, "message": text}
        case _:
            return None
