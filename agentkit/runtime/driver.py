"""Drives the loop: effects out to a handler, outcomes in.

This is the one place that awaits on behalf of the loop. A cancelled run gets
its `Interrupt` here, synchronously, so that its history is valid and its trace
closed before the cancellation goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar, cast

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from agentkit.core.effects import (
    Address,
    Compute,
    Effect,
    Failure,
    Interrupt,
    LoopEffect,
    ModelCall,
    Outcome,
    Pause,
    SkippedCall,
    Suspended,
    ToolBatch,
    ToolInvocation,
    ToolOutcome,
    Value,
)
from agentkit.core.loop import conversation, limit_exceeded, limit_reached
from agentkit.core.spec import Finish
from agentkit.errors import ConfigurationError, RunCancelled, safe_repr
from agentkit.events import Finished, Warned
from agentkit.messages import NO_USAGE, Message, ModelResponse, Usage
from agentkit.runtime.assemble import Program
from agentkit.runtime.batch import Batch
from agentkit.runtime.lifetimes import Lifetimes
from agentkit.runtime.result import RunResult, conclude, keep_result, reached
from agentkit.runtime.scope import Scope
from agentkit.runtime.slots import CallFrame, shared_slots, slots_of
from agentkit.settings import Limits
from agentkit.tools.invoke import meant_by
from agentkit.tools.toolset import Toolset

OutputT = TypeVar("OutputT")


class Driver(Generic[OutputT]):
    """One run of a program: sends outcomes in, has effects performed.

    `execute` drives it to its end. `begin`, `perform`, `send` and `close` are its parts, for
    those who look between the effects.

    Attributes:
        scope: The run that it is, or is a part of.
        finish: How it ended; None before that.
        agents: The addresses of the agents that had the conversation, one after the other.
        unentered: The toolsets with a lifetime that the run may still need.
    """

    def __init__(
        self,
        scope: Scope,
        program: Program[OutputT],
        messages: Sequence[Message],
        *,
        earlier: int = 0,
        nested: bool = False,
    ) -> None:
        """Prepare a run.

        Args:
            scope: The run that it is, or is a part of.
            program: The agent.
            messages: The conversation so far, ending with the prompt.
            earlier: How many of the messages are history from before.
            nested: It runs inside a tool call of another agent.
        """
        self.program = program
        self.scope = scope
        self.finish: Finish[OutputT] | None = None
        self.agents = [program.spec.at]
        self._limits = program.spec.limits
        self._messages = messages
        self._earlier = earlier
        self._nested = nested
        self._last: Address | None = None
        self._deadline = math.inf
        self._begun = False
        self._cancel_scope: anyio.CancelScope | None = None
        self._cancelled: str | None = None
        self._new: list[Message] = []
        self._part = slots_of(self._limits) if nested else None
        self.unentered: Sequence[Toolset] = ()
        self._lifetimes: Lifetimes | None = None
        self._enter(program, messages, NO_USAGE)

    @property
    def result(self) -> RunResult[OutputT]:
        """The result of the run, which has ended.

        Raises:
            AgentKitError: It failed; `error.result` is what it had reached.
            Exception: So did the application's own code, and this is what it raised.
        """
        result = self.reached
        assert self.finish is not None
        return conclude(self.finish, result)

    @property
    def reached(self) -> RunResult[OutputT]:
        """The result of the run, which has ended, however it did."""
        assert self.finish is not None
        trace = None if self._nested else self.scope.trace
        prompt = self._messages[self._earlier :]
        warnings = [
            one
            for one in self.scope.warnings
            if not self._nested or f"{one.at}/".startswith(f"{self.agents[0]}/")
        ]
        result = reached(
            self.finish, run=self.scope.run, prompt=prompt, trace=trace, warnings=warnings
        )
        known = self.scope.recorded
        return result if known is None or self._nested else known.compared(result)

    def cancel(self, reason: str = "cancelled") -> None:
        """End the run from outside. What has finished is kept, the history stays valid."""
        self._cancelled = self._cancelled or reason  # the first is why it ends
        if self._cancel_scope is not None:
            self._cancel_scope.cancel()

    async def execute(self) -> Finish[OutputT]:
        """Run to the end. A cancellation from around goes on after the run was closed."""
        try:
            effect = self.begin()
            while effect is not None:
                outcome = await self.enter(effect) if self.unentered else None
                effect = self.send(outcome or await self.perform(effect))
        except BaseException as error:
            if self.finish is not None and not isinstance(error, anyio.get_cancelled_exc_class()):
                keep_result(error, self.reached)
            self.close()
            if not await self.leave(error):
                raise
        else:
            self.close()
            await self.leave()
        assert self.finish is not None
        return self.finish

    async def enter(self, effect: LoopEffect, *, at_once: bool = False) -> Outcome | None:
        """Enter the toolsets that have a lifetime, before the effect that may need them.

        A live run needs them from the beginning on; one that is answered from a recording when
        something is to be performed, so that an answered one opens no connection.

        Args:
            effect: The next one. If a toolset cannot be entered, that is its outcome.
            at_once: Enter them in any case.
        """
        known = self.scope.recorded
        if known is not None and not at_once and not known.performs(effect, self.program.tools):
            return None
        self._last = effect.at
        toolsets, self.unentered = self.unentered, ()
        outcome: Outcome | None = None
        assert self._lifetimes is not None
        try:
            for toolset in toolsets:
                if not await self._lifetimes.enter(toolset, self._deadline, self._hold):
                    return self._interrupt()
        except BaseException as error:
            meant = meant_by(error)
            if not isinstance(meant, Exception):
                self.send(self._interrupt(None, meant))
                raise
            failure = Failure.of(meant)
            outcome = Interrupt(status="error", error=failure)
            if isinstance(effect, Compute):
                outcome = failure
                self.record(effect, failure, None)
        finally:
            self._cancel_scope = None
        return outcome

    def _hold(self, scope: anyio.CancelScope) -> None:
        self._cancel_scope = scope
        if self._cancelled is not None:
            scope.cancel()

    async def leave(self, error: BaseException | None = None) -> bool:
        """Leave the toolsets of the run, which has ended; return whether one swallowed the error.

        Args:
            error: What goes through the run; else that is how it has failed.
        """
        if self._lifetimes is None:
            return False
        if error is None and self.finish is not None and self.finish.error is not None:
            error = self.finish.error.to_error() if self.finish.status != "paused" else None
        try:
            return await self._lifetimes.leave(error)
        except Exception as failed:
            if failed is not error and self.finish is not None:
                keep_result(failed, self.reached)
            raise

    def _enter(self, program: Program[Any], messages: Sequence[Message], usage: Usage) -> None:
        """Let this program go on with the conversation."""
        of_agent = shared_slots(program.config.origin, program.config.concurrency)
        bounds = (self.scope.slots, self._part, of_agent) if self.scope.bounded else ()
        self._slots = [slots for slots in bounds if slots is not None]
        if program.lifetimes:
            self.unentered = program.lifetimes
            self._lifetimes = self._lifetimes or Lifetimes()
            program = replace(program, entered=self._lifetimes.entered)
        self.program = program
        self._handler = self.scope.handler(self.scope, program)
        known = self.scope.recorded
        waits = known.waits if known is not None else None
        self._loop = conversation(program.spec, messages, usage, waits)

    def begin(self) -> LoopEffect | None:
        """Return the first effect. The clock of `seconds` starts here."""
        self._begun = True
        if not (self.scope.resumed and not self._nested):
            asked = None if self._nested else self.scope.asked
            self._record_start(self._messages, self._earlier, asked)
        for note in self.program.notes:
            self.scope.note(note)
        if self._limits.seconds is not None:
            self._deadline = anyio.current_time() + self._limits.seconds
        return self.send(None)

    def send(self, outcome: Outcome | None) -> LoopEffect | None:
        """Send the loop an outcome; return the next effect, or None at the end."""
        while True:
            try:
                effect = self._loop.send(outcome)
            except StopIteration as stop:
                finish: Finish[Any] = stop.value
            else:
                if not isinstance(effect, SkippedCall):
                    return effect
                if self.scope.recorder is not None:
                    self.scope.recorder.skipped(effect)
                if effect.reason == "repeated":
                    self.scope.emit(repeated(effect))
                outcome = None
                continue
            self._new += finish.new
            if finish.handoff is None:
                self.finish = replace(finish, new=tuple(self._new), at=self._last)
                return None
            name, at = finish.handoff
            program = self.program.handoffs[name]()
            # The limits of the run stay those of the agent that it began with.
            program = replace(program, spec=replace(program.spec, at=at, limits=self._limits))
            self.agents.append(at)
            self._enter(program, finish.messages, finish.usage)
            self._record_start(finish.messages, len(finish.messages))
            outcome = None

    def _record_start(
        self, messages: Sequence[Message], earlier: int, asked: Mapping[str, Any] | None = None
    ) -> None:
        if self.scope.recorder is not None:
            at, name = self.agents[-1], self.program.config.name
            self.scope.recorder.agent_start(at, name, messages, earlier, asked)

    async def perform(self, effect: LoopEffect) -> Outcome:
        """Have one effect performed.

        The end of the run by `cancel` or by its deadline is an `Interrupt`, so the loop
        can close its history. A cancellation from around the run is raised, after the
        loop has been sent its `Interrupt`.
        """
        self._last = effect.at
        if isinstance(effect, ToolBatch) and (stop := self._count(effect)) is not None:
            return stop
        frames = self.scope.frames
        work = (
            Batch(effect, self._perform_call, frames, self._slots)
            if isinstance(effect, ToolBatch)
            else CallFrame(effect.at, frames)
        )
        try:
            with anyio.CancelScope(deadline=self._deadline) as self._cancel_scope:
                if self._cancelled is not None:
                    self._cancel_scope.cancel()
                await checkpoint_if_cancelled()
                if not isinstance(effect, ToolBatch):
                    assert isinstance(work, CallFrame)
                    with work:
                        return checked(effect, await self._handler.perform(effect))
                assert isinstance(work, Batch)
                await work.run()
                outcomes = work.outcomes()
                if work.interrupt is not None:
                    return replace(work.interrupt, outcomes=outcomes, usage=NO_USAGE)
                return outcomes
        except BaseException as error:
            self.send(self._interrupt(work, meant := meant_by(error)))
            if meant is error:
                raise
            raise meant from error
        finally:
            self._cancel_scope = None
        if isinstance(work, Batch) and len(work.finished) == len(work.calls):
            return work.outcomes()  # it came too late for this batch; the next effect ends
        return self._interrupt(work)

    def record(
        self, effect: LoopEffect, outcome: Outcome | None, performed: Outcome | None
    ) -> None:
        """Record what the loop is sent where that is not what performing returned."""
        recorder = self.scope.recorder
        if recorder is None or outcome is performed or outcome is None:
            return
        effects: Sequence[Effect] = effect.calls if isinstance(effect, ToolBatch) else (effect,)
        each = outcome if isinstance(effect, ToolBatch) and isinstance(outcome, tuple) else None
        for index, one in enumerate(effects):
            if performed is None:
                recorder.started(one)
            recorder.ended(one, cast("ToolOutcome", each[index]) if each is not None else outcome)

    def abandon(self) -> None:
        """End a run that nobody drives on; what has been done is kept."""
        if not self._begun:
            self.begin()
        if self.finish is None:
            self._cancelled = self._cancelled or "nobody went on with it"
            self.send(self._interrupt())

    def close(self) -> None:
        """Close the trace and emit the last event. Nothing is awaited."""
        self._loop.close()
        finish = self.finish or Finish(status="cancelled", messages=(), new=(), usage=Usage())
        if self._nested and finish.status == "limit" and finish.error is not None:
            # What runs it may catch the error, and go on without the answer.
            text = f"{self.program.config.name} reached a limit: {finish.error.message}"
            self.scope.emit(Warned(at=self.agents[0], code="limit_reached", text=text))
        if (recorder := self.scope.recorder) is not None:
            for at in reversed(self.agents):
                recorder.agent_end(at, finish)
        self.scope.listener(Finished(at=self.agents[0], status=finish.status))

    def _count(self, batch: ToolBatch) -> Interrupt | None:
        """Count the calls of a batch for the whole run, unless its limit forbids them.

        The loop has decided so for its own agent.
        """
        meter, calls = self.scope.meter, len(batch.calls)
        reached = limit_reached(self.scope.limits, meter.used, calls)
        if reached is None:
            meter.add_calls(calls)
            return None
        return Interrupt(status="limit", error=reached)

    async def _perform_call(self, invocation: ToolInvocation) -> ToolOutcome | Interrupt:
        try:
            outcome = await self._handler.perform(invocation)
        except anyio.get_cancelled_exc_class() as error:
            if (meant := meant_by(error)) is error:
                raise
            raise meant from error  # a task group would take it for its own cancellation
        return checked(invocation, outcome)

    def _interrupt(
        self, work: Batch | CallFrame | None = None, cause: BaseException | None = None
    ) -> Interrupt:
        """Return what ended the run: a bug, `cancel()`, the task around it, or the deadline."""
        outcomes = work.outcomes() if isinstance(work, Batch) else ()
        used = work.used if isinstance(work, CallFrame) else NO_USAGE
        stops = (anyio.get_cancelled_exc_class(), KeyboardInterrupt, GeneratorExit)
        stopped = isinstance(cause, (*stops, BaseExceptionGroup))
        if isinstance(cause, Exception) or (cause is not None and not stopped):
            error = Failure.of(cause)
        elif cause is not None or self._cancelled is not None:
            around = "the task around the run was cancelled"
            if isinstance(cause, KeyboardInterrupt):
                around = "Ctrl-C"
            return interrupted(self._cancelled or around, self._limits, outcomes, used)
        else:
            return interrupted(None, self._limits, outcomes, used)
        return Interrupt(status="error", error=error, outcomes=outcomes, usage=used)


def interrupted(
    reason: str | None,
    limits: Limits,
    outcomes: tuple[ToolOutcome, ...] = (),
    usage: Usage = NO_USAGE,
) -> Interrupt:
    """Return how a run ends from outside: it was cancelled for a reason, or is at its deadline."""
    if reason is not None:
        error = Failure.of(RunCancelled(f"The run was cancelled: {reason}.", reason=reason))
        return Interrupt(status="cancelled", error=error, outcomes=outcomes, usage=usage)
    seconds = limits.seconds or 0
    error = limit_exceeded("seconds", seconds, seconds)
    return Interrupt(status="limit", error=error, outcomes=outcomes, usage=usage)


_OUTCOMES: Mapping[type[LoopEffect], tuple[type[Any], ...]] = {
    ModelCall: (ModelResponse, Failure, Interrupt),
    ToolInvocation: (ToolOutcome, Interrupt),
    ToolBatch: (tuple, Interrupt),
    Compute: (Value, Failure, Interrupt),
    Pause: (tuple, Suspended, Failure, Interrupt),
}


def checked(effect: LoopEffect, outcome: Any) -> Any:
    """Return what middleware, or a caller who steps, has answered an effect with.

    Raises:
        ConfigurationError: It is no outcome of such an effect.
    """
    kinds = _OUTCOMES[type(effect)]
    if isinstance(outcome, kinds):
        return outcome
    raise ConfigurationError(
        f"The {type(effect).__name__} at {effect.at} was answered with {safe_repr(outcome)}; "
        f"expected {' | '.join(kind.__name__ for kind in kinds)}. A handler has to return what "
        "the inner one returns, or an outcome of its own."
    )


def repeated(skipped: SkippedCall) -> Warned:
    """Return the warning about a call that only repeats the one before."""
    text = (
        f"{skipped.call.name} was called again with the same arguments, after the same results "
        "again and again. The call does not run, and the model answers without tools; "
        "Limits(repeats=…) allows more."
    )
    return Warned(at=skipped.at, code="repeated_calls", text=text)
