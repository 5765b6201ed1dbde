"""The engine that answers a run from its recording.

Resume, replay, fork and a test's cassette are this one engine with four plans: it takes the
recorded outcome where that holds, and otherwise does what the plan says. It stands where a
live run has its handlers, once for each agent; what these share is the `Engine`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum, auto
from functools import cached_property
from typing import Any, TypeAlias, TypeVar, cast

import anyio

from agentkit.core.effects import (
    Address,
    Compute,
    Decision,
    Effect,
    Failure,
    Handler,
    Interrupt,
    LoopEffect,
    ModelCall,
    Outcome,
    Pause,
    PendingCall,
    Suspended,
    ToolBatch,
    ToolInvocation,
    ToolOutcome,
    Value,
    decided,
)
from agentkit.core.spec import Finish
from agentkit.errors import ConfigurationError, ReplayDivergence, RunCancelled, ToolError
from agentkit.events import Emit, Warned, ignore
from agentkit.messages import ModelResponse
from agentkit.redaction import PLACEHOLDER
from agentkit.replay.answers import APPROVAL_CHANGED, Recording, SameCalls, stopped
from agentkit.replay.cause import explained
from agentkit.replay.order import Order
from agentkit.replay.playback import Player
from agentkit.runtime.assemble import Program
from agentkit.runtime.driver import Driver
from agentkit.runtime.handlers import LiveHandler, observed, performing
from agentkit.runtime.handlers import recorded as recording
from agentkit.runtime.result import Replayed, RunResult, conclude
from agentkit.runtime.scope import Scope
from agentkit.runtime.tool_call import outcome_of
from agentkit.trace.compare import Strictness, divergence
from agentkit.trace.effects import RecordedEffect, pending_call, warning_from_json
from agentkit.trace.naming import packed, without_ids
from agentkit.trace.output import recorded_output

OutputT = TypeVar("OutputT")
_PATIENCE = 5.0
"""Seconds after which code that gave something up is expected to have given it up again."""


_LONGEST = 60.0
"""Seconds after which it is not waited for any more, however long it took then."""


class Do(Enum):
    """What becomes of an effect."""

    ANSWER = auto()
    """It is answered with what was recorded at its address, if it is the same effect."""
    PERFORM = auto()
    """It is performed for real."""
    SAME_CALL = auto()
    """A tool call is answered with what was recorded of the same call, or refused."""
    HOLD_BACK = auto()
    """A tool call may write, and is answered or refused instead of being performed."""
    GO_ON = auto()
    """A call was in flight at a crash: it is performed again, asked about or given up."""


Choice: TypeAlias = Do | Outcome


class Plan:
    """What one way of running a recorded run again answers, and what it performs.

    Attributes:
        acts: Something may be performed.
        checks: The run has to come out as recorded: live results and the end are compared.
        in_order: An effect that leaves the recorded order is a divergence.
    """

    acts = True
    checks = False
    in_order = False

    def choose(self, effect: Effect) -> Choice:
        """Return what becomes of an effect, or the outcome that the plan has for it."""
        raise NotImplementedError

    def strictness(self, effect: Effect) -> Strictness | None:
        """Return how an answered effect is compared; None for its kind alone."""
        return "exact"

    def decision(self, pending: PendingCall) -> Decision | None:
        """Return the decision that the plan itself has about a call."""
        return None

    def unused(self) -> Sequence[ReplayDivergence]:
        """Return what the plan was given for effects that the run has not asked for."""
        return ()


class Engine:
    """One run that is answered from a recording.

    Args:
        recorded: The recording.
        plan: What is answered and what is performed.
        warn: Note divergences in `divergences` and go on, instead of ending the run.
        driven: The recorded effects that the run is expected to ask for, where it has to
            follow their order or a listener gets what happened inside them.
        ordered: Effects begin and end in the order of the recording; see `Order`.
        listener: Gets the events inside answered effects.
    """

    def __init__(
        self,
        recorded: Recording,
        plan: Plan,
        *,
        warn: bool = False,
        driven: Collection[RecordedEffect] = (),
        ordered: bool = False,
        listener: Emit = ignore,
    ) -> None:
        self.recorded = recorded
        self.plan = plan
        self.divergences: list[ReplayDivergence] = []
        self.ran: set[str] = set()
        self.answered: set[str] = set()
        self.held_back: set[str] = set()
        self.waited: set[str] = set()
        self.ordered = ordered
        self.order = Order(_lines(driven) if ordered else ())
        self._warn = warn
        self._driven = {one.at for one in driven}
        plays = driven and listener is not ignore
        self.player = Player(recorded.trace, self._owner, listener) if plays else None

    @cached_property
    def calls(self) -> SameCalls:
        """The recorded calls by what they ask."""
        return SameCalls(self.recorded)

    def replayed(self) -> Replayed:
        """Return what became of the effects so far."""
        recorded = self.recorded
        inside = {
            at
            for at, one in recorded.effects.items()
            if one.begun and recorded.inside(at, self.answered)
        }
        ran, answered, held = (
            tuple(sorted(map(Address, some), key=lambda at: at.order))
            for some in (self.ran, {*self.answered, *inside}, self.held_back)
        )
        return Replayed(ran=ran, answered=answered, held_back=held)

    def handler(self, scope: Scope, program: Program[Any]) -> Handler:
        """Return the handlers of one agent of the run."""
        innermost = LiveHandler(program, scope)
        live = performing(scope, program, innermost)
        if scope.resumed:  # what is answered stands in the trace that goes on
            live = recording(scope, live)
            return observed(scope, _Answering(self, scope, program, live, innermost))
        answering = _Answering(self, scope, program, live, innermost)
        handler = observed(scope, recording(scope, answering))
        return _InOrder(self, handler) if self._driven else handler

    def concluded(self, driver: Driver[OutputT], finish: Finish[Any]) -> RunResult[OutputT]:
        """Return the result of the run, and what became of its effects.

        Raises:
            AgentKitError: It failed.
        """
        return conclude(finish, replace(driver.reached, status=finish.status))

    def performs(self, effect: LoopEffect, tools: Container[str]) -> bool:
        """Tell whether something is to be performed that may need more than these tools."""
        match effect:
            case ToolBatch(calls=calls):
                return any(self.performs(one, tools) for one in calls)
            case ToolInvocation(call=call):
                if call.name in tools:
                    return False
            case Compute(name=name):
                if name.partition(":")[2] in tools:
                    return False
            case _:
                return False
        choice = self.plan.choose(effect)
        if choice is Do.ANSWER:
            return self.recorded.begun(effect.at) is None
        held = choice in (Do.HOLD_BACK, Do.SAME_CALL)
        return isinstance(choice, Do) and not (held and self.plan.checks)

    def compared(self, result: RunResult[OutputT]) -> RunResult[OutputT]:
        """Return the result with where the run differs, and what became of its effects."""
        divergences = (*self.divergences, *self.plan.unused())
        return replace(result, divergences=divergences, replayed=self.replayed())

    def note(self, found: ReplayDivergence) -> Interrupt | None:
        """Note a divergence; return the end of the run, if it ends the run."""
        if not self._warn:
            return stopped(found)
        first = next((one for one in self.divergences if found.cause in (one.at, one.cause)), None)
        if first is not None and found.cause is not None:
            # It follows from one that is noted already.
            first.suppressed = (first.suppressed or 0) + 1 + (found.suppressed or 0)
        else:
            self.divergences.append(found)
        return None

    def checked(self, finish: Finish[OutputT]) -> Finish[OutputT]:
        """Return the end of the run; a divergence, if it is not the recorded one."""
        # Causal order, the end last: tools that ran side by side ended in any order.
        self.divergences.sort(key=lambda found: Address(found.at).order)
        diverged = finish.error is not None and finish.error.type == "ReplayDivergence"
        if diverged or not self.plan.checks:
            return finish
        found = self.left_over()
        if found is None and finish.status == "limit" and self.recorded.ended_from_outside:
            # It was ended in the moment in which it reached a limit: nothing else tells.
            end = self.recorded.interrupted()
            finish = replace(finish, status=end.status, error=end.error)
        found = found or self._reordered() or self._other_end(finish)
        stop = self.note(found) if found is not None else None
        return finish if stop is None else replace(finish, status="error", error=stop.error)

    def left_over(self) -> ReplayDivergence | None:
        """Return a divergence if a recorded effect or approval was never asked for."""
        return self.recorded.left_over(self.answered | self.ran, self.answered, self.waited)

    def det(self, at: Address, kind: str, use: int) -> Any:
        """Return the recorded value that was not deterministic, or None."""
        return self.recorded.det(at, kind, use)

    def listed(self, agent: Address) -> Mapping[str, Any]:
        """Return the definitions of an agent's toolsets as they were recorded last, by name."""
        return self.recorded.listed(agent)

    def waits(self, call: ToolInvocation) -> PendingCall | None:
        """Return a call as it waited when it was recorded, if it has to wait here, too.

        What waits in a journal is decided there, however the agent has changed since. A
        replay that checks compares instead what the agent asks for.
        """
        if self.plan.checks and not self.recorded.forced(call.at):
            return None
        then = self.recorded.pending(call.at) or self.recorded.was_to_wait(call)
        if then is None or not self.recorded.same_call(then, call):
            return None
        # A secret in it is known here, and its journal has a placeholder.
        same = self.recorded.same_text(then, call.call)
        return replace(then, call=call.call) if same else then

    def _reordered(self) -> ReplayDivergence | None:
        at = self.order.out_of_order
        if at is None or not self.plan.in_order:
            return None
        return divergence(
            "order_changed",
            at,
            text="it came before something that the recording has before it.",
            advice="Look at limits, concurrency and sequential tools, or replay with "
            "strictness='structural'.",
        )

    def _other_end(self, finish: Finish[Any]) -> ReplayDivergence | None:
        """Compare the status and the output with the recorded ones."""
        ended = self.recorded.ended
        if not ended or any(one.kind == "result_changed" for one in self.divergences):
            return None
        output = recorded_output(finish.output, finish.written, self.recorded.redact)
        now = {"status": finish.status, "output": output}
        agent = self.recorded.trace.effects[ended["at"]]
        then = {"status": ended["status"], "output": agent.packed_output}
        return self.recorded.difference(ended["at"], then, now, "outcome_changed")

    def _owner(self, at: str) -> str | None:
        """Return the innermost effect at or above an address that the run asks for."""
        while at and at not in self._driven:
            at = at.rpartition("/")[0]
        return at or None


class _InOrder:
    """Lets effects begin in the order of the recording, before anybody hears of them."""

    def __init__(self, engine: Engine, inner: Handler) -> None:
        self._engine = engine
        self._inner = inner

    async def perform(self, effect: Effect) -> Outcome:
        """Wait for the effect's turn."""
        engine, recorded = self._engine, self._engine.recorded
        if engine.plan.checks and recorded.never_came_to(effect):
            return recorded.outcome(effect)
        known = recorded.begun(effect.at)
        began = known.began if known is not None else None
        if began is not None and not isinstance(effect, Pause):
            await engine.order.turn(began.seq, effect.at, ends=False)
            if engine.player is not None:
                engine.player.until(began)
                engine.player.begin(effect.at)
        return await self._inner.perform(effect)


class _Answering:
    """Answers the effects of one agent from the recording, or has them performed."""

    def __init__(
        self,
        engine: Engine,
        scope: Scope,
        program: Program[Any],
        live: Handler,
        innermost: LiveHandler,
    ) -> None:
        self._engine = engine
        self._recorded = engine.recorded
        self._plan = engine.plan
        self._scope = scope
        self._tools = program.tools
        self._performing = live
        self._innermost = innermost
        self._offered: set[str] = set()

    async def perform(self, effect: Effect) -> Outcome:
        """Do what the plan says."""
        if isinstance(effect, Pause):
            return await self._decide(effect)
        if isinstance(effect, ToolInvocation) and (outcome := self._differs(effect)) is not None:
            return outcome
        if isinstance(effect, ModelCall):
            self._offered = {tool.name for tool in effect.request.tools}
            # What is performed after an answered call sees the same conversation.
            self._innermost.messages = effect.request.messages
        match self._plan.choose(effect):
            case Do.ANSWER:
                return await self._answer(effect)
            case Do.PERFORM:
                return await self._perform(effect)
            case Do.GO_ON:
                return await self._go_on(effect)
            case Do.SAME_CALL:
                return await self._instead(effect, held=False)
            case Do.HOLD_BACK:
                return await self._instead(effect, held=True)
            case outcome:
                return outcome

    # Answered from the recording

    async def _answer(self, effect: Effect) -> Outcome:
        """Answer with what was recorded at this address, in its turn."""
        recorded = self._recorded
        if found := recorded.compare(effect, self._plan.strictness(effect)):
            stop, new = self._note(found, effect), recorded.begun(effect.at) is None
            if new and stop is None and isinstance(effect, Compute):
                return await self._perform(effect)
            if new or stop is not None:
                return stop or stopped(found)
        if self._plan.checks and recorded.given_up(effect):
            return await self._give_up(effect)
        await self._ended(effect)
        inside = recorded.events_inside(effect.at)
        if self._scope.recorder is not None and not self._scope.resumed:
            self._scope.recorder.copy(recorded.trace, inside)
        warnings = (one for one in inside if one["event"] == "warning")
        self._scope.warnings.extend(map(warning_from_json, warnings))
        self._engine.answered.add(effect.at)
        outcome = recorded.outcome(effect)
        self._count(outcome)
        return outcome

    def _count(self, outcome: Outcome) -> None:
        """Count what was used then towards the limits of the whole run."""
        meter = self._scope.meter
        if isinstance(outcome, (ModelResponse, Value, Failure)):
            meter.add(outcome.usage)
        elif isinstance(outcome, ToolOutcome):
            meter.add(outcome.usage)
            meter.add_bytes(outcome.size)

    async def _give_up(self, effect: Effect) -> Outcome:
        """Stay pending, as then, until the code around gives up again; but not for ever."""
        self._engine.answered.add(effect.at)
        await self._ended(effect)
        took = self._recorded.effects[effect.at].seconds or 0
        with anyio.move_on_after(min(max(_PATIENCE, 3 * took), _LONGEST)):
            await anyio.sleep_forever()
        return stopped(
            divergence(
                "result_changed",
                effect.at,
                text="it was cancelled then by the code around it, which waits for it now.",
                advice="There is no outcome to go on with: name its tool in live=, or record anew.",
            )
        )

    async def _ended(self, effect: Effect) -> None:
        """Wait for the turn of the effect's end, and play what happened before it."""
        engine, known = self._engine, self._recorded.begun(effect.at)
        if known is None or not (engine.ordered or engine.player):
            return
        if (end := known.ended) is None:
            return
        frame = self._scope.frames.of(effect.at)
        # What is done needs no slot among the calls that run, and another one may wait for it.
        with frame.lending():
            await engine.order.turn(end.seq, effect.at, ends=True)
        if engine.player is not None:
            engine.player.until(end, None if engine.ordered else effect.at)

    async def _instead(self, effect: Effect, *, held: bool) -> Outcome:
        """Answer a call that may not run with what was recorded of the same call."""
        assert isinstance(effect, ToolInvocation)
        engine, exists = self._engine, effect.call.name in self._offered
        if held and exists:
            engine.held_back.add(effect.at)
        if self._plan.checks:
            return await self._answer(effect)
        if not exists:
            return await self._perform(effect)  # nothing runs, and the model reads why
        if held and self._recorded.finished(effect) and self._recorded.compare(effect) is None:
            return await self._answer(effect)  # the same call, with all that happened in it
        outcome = engine.calls.answer(effect)
        if isinstance(outcome, ReplayDivergence):
            engine.held_back.add(effect.at)
            return stopped(explained(outcome, effect, self._recorded, self._tools))
        engine.answered.add(effect.at)
        self._count(outcome)
        return outcome

    # Performed

    async def _perform(self, effect: Effect) -> Outcome:
        """Perform an effect, and note where its result is not the recorded one."""
        if (stop := _needs_secret(effect)) is not None:
            return stop
        if not self._plan.checks:
            self._recorded.forget_unless_same(effect)
        self._engine.ran.add(effect.at)
        with self._engine.order.real(effect.at):
            outcome = await self._performing.perform(effect)
        await self._ended(effect)
        if self._plan.checks and (found := self._other_result(effect, outcome)):
            return self._note(found, effect) or outcome
        return outcome

    def _other_result(self, effect: Effect, outcome: Outcome) -> ReplayDivergence | None:
        """Compare a live result with the recorded one, of the same question."""
        recorded = self._recorded
        known = recorded.begun(effect.at)
        if known is None or known.end is None or recorded.compare(effect):
            return None
        if isinstance(outcome, (Interrupt, Suspended)):
            return None  # the run ends here, and says why
        results = (_result(one) for one in (recorded.outcome(effect), outcome))
        then, now = (packed(result, recorded.redact) for result in results)
        return recorded.difference(effect.at, then, now, "result_changed")

    def _note(self, found: ReplayDivergence, effect: Effect) -> Interrupt | None:
        tools = self._tools
        return self._engine.note(explained(found, effect, self._recorded, tools))

    # Decided by a person

    async def _decide(self, pause: Pause) -> Outcome:
        """Answer with the decisions of then about the same calls; a person makes the others."""
        recorded = self._recorded
        self._engine.waited |= {one.at for one in pause.pending}
        if self._plan.checks:
            if recorded.never_came_to(pause) or all(map(recorded.waited, pause.pending)):
                return recorded.decisions(pause)
            stop = self._note(recorded.unexpected(pause), pause)
            return stop or await self._performing.perform(pause)
        for one in pause.pending:
            if one.at in pause.forced:
                self._note_forced(one)
        known = {one.at: self._known(one) for one in pause.pending}
        waiting = tuple(one for one in pause.pending if known[one.at] is None)
        if not waiting:
            return decided([*known.values()])
        outcome = await self._performing.perform(replace(pause, pending=waiting))
        if isinstance(outcome, Suspended):
            outcome = outcome.made or (None,) * len(waiting)
        elif not isinstance(outcome, tuple):
            return outcome
        decisions = cast("tuple[Decision | None, ...]", outcome)
        new = {one.at: decision for one, decision in zip(waiting, decisions, strict=True)}
        return decided([*{**known, **new}.values()])

    def _known(self, pending: PendingCall) -> Decision | None:
        """Return what is decided already about a call."""
        if (decision := self._plan.decision(pending)) is not None:
            return decision
        if self._recorded.waited(pending):
            return self._recorded.effects[pending.at].decision
        call = ToolInvocation(at=pending.at, call=pending.call)
        ran = pending.kind == "approval" and self._plan.choose(call) is Do.ANSWER
        return Decision.approve() if ran else None  # it asks for a call that has run

    def _note_forced(self, pending: PendingCall) -> None:
        """Note that a call waits only because it did so when it was recorded."""
        found = self._recorded.approval_changed(pending.at)
        call = ToolInvocation(at=pending.at, call=pending.call)
        self._engine.divergences.append(explained(found, call, self._recorded, self._tools))
        if not self._recorded.forced(pending.at):
            text = f"{pending.call.name} needs no approval any more, and waited for a decision."
            self._scope.emit(Warned(at=pending.at, code=APPROVAL_CHANGED, text=text))

    def _differs(self, call: ToolInvocation) -> Outcome | None:
        """Note a call that is to run where it waited, or where no tool ran it; never run it."""
        recorded, at = self._recorded, call.at
        if not self._plan.checks:
            return None
        if recorded.pending(at) is not None and at not in self._engine.waited:
            found = recorded.approval_changed(at)
            self._engine.waited.add(at)
        elif recorded.skipped(at) is not None:
            found = recorded.unexpected(call)
        else:
            return None
        return self._note(found, call) or recorded.skip_outcome(call) or stopped(found)

    async def _go_on(self, effect: Effect) -> Outcome:
        """Do what `on_crash` says of a call that may have run when the run was interrupted."""
        assert isinstance(effect, (ToolInvocation, Compute))
        start = self._recorded.effects[effect.at].start or {}
        writes = "write" in (effect.effect, start.get("effect"))
        policy = effect.on_crash or start.get("on_crash") or ("ask" if writes else "retry")
        if policy == "retry":
            return await self._perform(effect)
        if policy == "fail":
            return self._given_up(effect, "It was interrupted, and may have had its effect.")
        pending = pending_call(self._recorded.effects[effect.at], None)
        outcome = await self._performing.perform(Pause(at=effect.at, pending=(pending,)))
        if isinstance(outcome, Suspended):
            why = "was in flight when the run ended"
            text = f"{pending.call.name} at {effect.at} {why}."
            error = Failure.of(RunCancelled(text, reason=why))
            return Interrupt(status="paused", error=error, pending=(pending,))
        if isinstance(outcome, Failure):
            return Interrupt(status="error", error=outcome)
        if not isinstance(outcome, tuple):
            return outcome
        decision = cast("tuple[Decision, ...]", outcome)[0]
        match decision.kind:
            case "approve":
                return await self._perform(effect)
            case "deny":
                return self._given_up(effect, decision.said(), denied=True)
            case "edit":
                text = f"{pending.call.name} at {effect.at} had begun with the arguments it has."
                return Interrupt(status="error", error=Failure.of(ConfigurationError(text)))
            case "answer":
                return self._decided(effect, _answer_of(effect, decision.text))

    def _given_up(
        self, effect: ToolInvocation | Compute, text: str, *, denied: bool = False
    ) -> Outcome:
        """Let the model read why a call is not made again; another output would be one."""
        if isinstance(effect, ToolInvocation):
            status, error = ("denied", None) if denied else ("error", ToolError(text))
            return self._decided(effect, outcome_of(effect, status, text, error))
        error = RunCancelled(f"The output function at {effect.at}: {text}", reason=text)
        return self._decided(effect, Failure.of(error))

    def _decided(self, effect: Effect, outcome: Outcome) -> Outcome:
        """Record the end of a call that is not performed again."""
        if self._scope.recorder is not None:
            self._scope.recorder.ended(effect, outcome)
        return outcome


def _lines(effects: Iterable[RecordedEffect]) -> list[int]:
    """Return the numbers of the lines at which effects begin and end."""
    return sorted(one.seq for it in effects for one in (it.began, it.ended) if one is not None)


def _needs_secret(effect: Effect) -> Interrupt | None:
    """Return the end of a run that would call a tool with a placeholder for a secret."""
    if not isinstance(effect, ToolInvocation) or not PLACEHOLDER.search(effect.call.arguments):
        return None
    text = (
        f"The arguments of {effect.call.name} at {effect.at} held a secret, which a "
        "trace does not have. Start the run anew."
    )
    return Interrupt(status="error", error=Failure.of(ConfigurationError(text)))


def _answer_of(effect: ToolInvocation | Compute, text: str) -> Outcome:
    """Return the outcome of a call that a person has answered: JSON, or text, as its value."""
    if isinstance(effect, ToolInvocation):
        return outcome_of(effect, "ok", text)
    try:
        return Value(value=json.loads(text), recorded=True)
    except ValueError:
        return Value(value=text, recorded=True)


def _result(outcome: Outcome) -> Any:
    """Return what an outcome says, without what differs each time."""
    match outcome:
        case ToolOutcome(status=status, message=message):
            return {"status": status, **without_ids(message.to_json())}
        case Value(value=value):
            return {"value": value}
        case Failure(type=kind, message=text):
            return {"error": kind, "message": text}
        case _:
            return None
