"""Continues an interrupted run: what is recorded answers, the rest is performed and recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from agentkit.core.effects import (
    Address,
    Decision,
    Effect,
    Failure,
    Handler,
    Interrupt,
    Outcome,
    Pause,
    PendingCall,
    Suspended,
    ToolInvocation,
    ToolOutcome,
    Value,
    decided,
)
from agentkit.errors import ConfigurationError, RunCancelled
from agentkit.messages import ModelResponse, Usage
from agentkit.redaction import PLACEHOLDER
from agentkit.replay.answers import RecordedHandler, stopped
from agentkit.runtime.assemble import Program
from agentkit.runtime.handlers import observed, performing, recorded
from agentkit.runtime.scope import MakeHandler, Scope
from agentkit.runtime.tool_call import outcome_of

__all__ = ["ResumingHandler", "decide", "resuming", "without_secrets"]


def without_secrets(effect: Effect) -> Interrupt | None:
    """The end of a run that would call a tool with what stands for a secret in its trace."""
    if not isinstance(effect, ToolInvocation) or not PLACEHOLDER.search(effect.call.arguments):
        return None
    text = (
        f"The arguments of {effect.call.name} at {effect.at} held a secret, which a "
        "trace does not have. Start the run anew."
    )
    return Interrupt(status="error", error=Failure.of(ConfigurationError(text)))


async def decide(
    pause: Pause, known: Mapping[Address, Decision | None], asking: Handler
) -> Outcome:
    """The decisions about all calls of a pause: those that are known, and for the rest `asking`."""
    open_ = tuple(one for one in pause.pending if known[one.at] is None)
    if not open_:
        return decided(list(known.values()))
    outcome = await asking.perform(replace(pause, pending=open_))
    if isinstance(outcome, Suspended):
        outcome = outcome.made or (None,) * len(open_)
    elif not isinstance(outcome, tuple):
        return outcome
    made = cast("tuple[Decision | None, ...]", outcome)
    new = {one.at: decision for one, decision in zip(open_, made, strict=True)}
    return decided([*{**known, **new}.values()])


class ResumingHandler:
    """Answers from the recording of an interrupted run, and live from where that ends.

    A call that was in flight is made again if that does no harm. One of a tool that
    writes is asked about: the run pauses, and goes on with a decision.
    """

    def __init__(self, recorded: RecordedHandler, live: Handler, scope: Scope) -> None:
        self._recorded = recorded
        self._live = live
        self._scope = scope

    async def perform(self, effect: Effect) -> Outcome:
        """Perform what has no end yet."""
        if isinstance(effect, Pause):
            return await self._decide(effect)
        if self._recorded.finished(effect):
            outcome = await self._recorded.perform(effect)
            self._count(outcome)
            return outcome
        if (stop := without_secrets(effect)) is not None:
            return stop
        if not self._recorded.begun(effect):
            if self._recorded.skipped(effect):
                return stopped(self._recorded.unexpected(effect))
            return await self._live.perform(effect)
        if not isinstance(effect, ToolInvocation) or effect.effect == "read":
            return await self._live.perform(effect)
        if self._recorded.paused(effect):
            # A sub-agent in it waited. Its tool begins anew, and is given what that had done.
            return await self._live.perform(effect)
        return await self._asked(effect)

    def _count(self, outcome: Outcome) -> None:
        """What was done already counts towards the limits of the whole run."""
        meter = self._scope.meter
        if isinstance(outcome, (ModelResponse, Value)):
            meter.used += outcome.usage
        elif isinstance(outcome, ToolOutcome):
            size = len(outcome.message.text.encode("utf-8", "replace"))
            meter.used += outcome.usage + Usage(tool_bytes=size)

    async def _decide(self, pause: Pause) -> Outcome:
        """Ask about what was not decided yet."""
        known = {one.at: self._recorded.decision(one.at) for one in pause.pending}
        return await decide(pause, known, self._live)

    async def _asked(self, effect: ToolInvocation) -> Outcome:
        """A call with an effect on the world may have had it: somebody has to look."""
        pending = PendingCall(at=effect.at, call=effect.call, kind="in_flight")
        decided = await self._live.perform(Pause(at=effect.at, pending=(pending,)))
        if isinstance(decided, Suspended):
            text = f"{effect.call.name} at {effect.at} was in flight when the run ended."
            error = Failure.of(RunCancelled(text, reason="in flight"))
            return Interrupt(status="paused", error=error, pending=(pending,))
        if isinstance(decided, Failure):
            return Interrupt(status="error", error=decided)
        decision = cast("tuple[Decision, ...]", decided)[0]
        if decision.kind == "approve":
            return await self._live.perform(effect)
        if decision.kind == "edit":
            text = f"{effect.call.name} at {effect.at} had begun with the arguments it has."
            return Interrupt(status="error", error=Failure.of(ConfigurationError(text)))
        status = "ok" if decision.kind == "answer" else "denied"
        outcome = outcome_of(effect, status, decision.said())
        if self._scope.recorder is not None:
            self._scope.recorder.ended(effect, outcome)
        return outcome


def resuming(answers: RecordedHandler) -> MakeHandler:
    """Answer what is recorded already from there; perform and record the rest."""

    def handler(scope: Scope, program: Program[Any]) -> Handler:
        going_on = recorded(scope, performing(scope, program))
        return observed(scope, ResumingHandler(answers, going_on, scope))

    return handler
