"""Drives the loop: effects out to a handler, outcomes in.

This is the one place that awaits on behalf of the loop. A cancelled run gets
its `Interrupt` here, synchronously, so that its history is valid and its trace
closed before the cancellation goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from agentkit.core.effects import (
    Address,
    Effect,
    Failure,
    Handler,
    Interrupt,
    ModelCall,
    Outcome,
    Pause,
    ToolBatch,
    ToolInvocation,
    ToolOutcome,
)
from agentkit.core.loop import conversation
from agentkit.core.spec import AgentSpec, Finish
from agentkit.errors import LimitExceeded, RunCancelled
from agentkit.events import (
    Emit,
    Finished,
    Paused,
    StepFinished,
    StepStarted,
    ToolCallFinished,
    ToolCallStarted,
    Warned,
    ignore,
)
from agentkit.messages import Message, ModelResponse, Usage
from agentkit.models.base import Model
from agentkit.runtime.batch import Batch
from agentkit.runtime.slots import Gate, Inside, Open, shared_gate
from agentkit.tools.context import RunContext
from agentkit.tools.tool import Tool
from agentkit.trace.recorder import Recorder

__all__ = ["ComputeFunction", "Driver", "Middleware", "ObservedHandler", "Program"]

OutputT = TypeVar("OutputT")
ComputeFunction: TypeAlias = Callable[[RunContext[Any], Any], Any]
"""A function of the user's that is not pure: of the context and the effect's input."""
Middleware: TypeAlias = Callable[[Handler], Handler]
"""Puts a handler around another one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Program(Generic[OutputT]):
    """An agent made ready for one run: what the loop decides by, and what performs its effects.

    Attributes:
        name: The agent's.
        spec: What the loop decides by.
        model: Answers its model calls.
        tools: By name; dynamic toolsets add theirs at each step.
        compute: The user's functions that are not pure, by the names of their effects.
        handoffs: The agents that may take over, by name.
        middleware: Handlers around the one that performs, outermost first.
        owner: The agent, whose runs share the bound of `concurrency`.
        concurrency: Tool calls running at the same time over all its runs.
        notes: What is said once at the beginning of a run.
    """

    name: str
    spec: AgentSpec[OutputT]
    model: Model
    tools: dict[str, Tool[..., Any]] = field(default_factory=dict[str, Tool[..., Any]])
    compute: Mapping[str, ComputeFunction] = field(default_factory=dict[str, ComputeFunction])
    handoffs: Mapping[str, Callable[[], Program[Any]]] = field(default_factory=dict[str, Any])
    middleware: tuple[Middleware, ...] = ()
    owner: object = None
    concurrency: int | None = None
    notes: tuple[Warned, ...] = ()


class ObservedHandler:
    """Tells a listener of each effect's beginning and end."""

    def __init__(self, inner: Handler, emit: Emit) -> None:
        self._inner = inner
        self._emit = emit

    async def perform(self, effect: Effect) -> Outcome:
        """Perform through the inner handler."""
        match effect:
            case ModelCall(at=at, model=model):
                self._emit(StepStarted(at=at, model=model))
            case ToolInvocation(at=at, call=call):
                self._emit(ToolCallStarted(at=at, name=call.name, arguments=call.arguments))
            case Pause(at=at, pending=pending):
                self._emit(Paused(at=at, pending=pending))
            case _:
                pass
        outcome = await self._inner.perform(effect)
        match outcome:
            case ModelResponse(finish=finish, usage=usage, message=message):
                text = message.text
                self._emit(StepFinished(at=effect.at, finish=finish, usage=usage, text=text))
            case Failure(message=text) if isinstance(effect, ModelCall):
                self._emit(StepFinished(at=effect.at, finish=None, usage=Usage(), error=text))
            case ToolOutcome(status=status, message=message):
                name = message.name or ""
                self._emit(
                    ToolCallFinished(at=effect.at, name=name, status=status, text=message.text)
                )
            case _:
                pass
        return outcome


class Driver(Generic[OutputT]):
    """One run of a program: sends outcomes in, has effects performed.

    `execute` drives it to its end. Whoever wants to look between the effects
    calls `begin`, `perform` and `send` himself, and `close` at the end.

    Attributes:
        finish: How it ended; None before that.
        agents: The addresses of the agents that had the conversation, one after the other.
    """

    def __init__(
        self,
        program: Program[OutputT],
        messages: Sequence[Message],
        handler: Callable[[Program[Any]], Handler],
        *,
        earlier: int = 0,
        resumed: bool = False,
        asked: Mapping[str, Any] | None = None,
        recorder: Recorder | None = None,
        listener: Emit = ignore,
        seconds: float | None = None,
        bounds: Sequence[Gate] | None = None,
        among: Open | None = None,
    ) -> None:
        """Prepare a run.

        Args:
            program: The agent.
            messages: The conversation so far, ending with the prompt.
            handler: Gives what performs the effects of a program. There is more than one
                program where an agent hands over to another.
            earlier: How many of the messages are history from before.
            resumed: The trace holds the beginning of the run already.
            asked: What the run was given instead of the agent's, for the trace.
            recorder: Records the run, if it is recorded.
            listener: Is told what happens.
            seconds: Wall-clock time after which the run ends.
            bounds: Bound how many of its tool calls run at the same time, as does the agent's
                `concurrency`. None bounds nothing: their order comes from elsewhere.
            among: The insides of the effects of the whole run, while they are open.
        """
        self.program = program
        self.finish: Finish[OutputT] | None = None
        self.agents = [program.spec.at]
        self._limits = program.spec.limits
        self._messages = messages
        self._earlier = earlier
        self._resumed = resumed
        self._asked = asked
        self._recorder = recorder
        self._listener = listener
        self._seconds = seconds
        self._bounds = bounds
        self._among: Open = {} if among is None else among
        self._last: Address | None = None
        self._deadline = math.inf
        self._begun = False
        self._scope: anyio.CancelScope | None = None
        self._cancelled: str | None = None
        self._new: list[Message] = []
        self._handler_for = handler
        self._enter(program, messages, Usage())

    def cancel(self, reason: str = "cancelled") -> None:
        """End the run from outside. What has finished is kept, the history stays valid."""
        self._cancelled = reason
        if self._scope is not None:
            self._scope.cancel()

    async def execute(self) -> Finish[OutputT]:
        """Run to the end. A cancellation from around goes on after the run was closed."""
        try:
            effect = self.begin()
            while effect is not None:
                effect = self.send(await self.perform(effect))
        finally:
            self.close()
        assert self.finish is not None
        return self.finish

    def _enter(self, program: Program[Any], messages: Sequence[Message], usage: Usage) -> None:
        """Let this program go on with the conversation."""
        self._gates = [*(self._bounds or ())]
        own = shared_gate(program.owner, program.concurrency)
        if own is not None and self._bounds is not None:
            self._gates.append(own)
        self.program = program
        self._handler = self._handler_for(program)
        self._loop = conversation(program.spec, messages, usage)

    def begin(self) -> Effect | None:
        """The first effect. The clock of `seconds` starts here."""
        self._begun = True
        if self._recorder is not None:
            at, name = self.program.spec.at, self.program.name
            if not self._resumed:
                self._recorder.agent_start(at, name, self._messages, self._earlier, self._asked)
            for note in self.program.notes:
                self._recorder.event(note)
        for note in self.program.notes:
            self._listener(note)
        if self._seconds is not None:
            self._deadline = anyio.current_time() + self._seconds
        return self.send(None)

    def send(self, outcome: Outcome | None) -> Effect | None:
        """Tell the loop an outcome; returns the next effect, or None at the end."""
        while True:
            try:
                return self._loop.send(outcome)
            except StopIteration as stop:
                finish: Finish[Any] = stop.value
            self._new += finish.new
            if finish.handoff is None:
                self.finish = replace(finish, new=tuple(self._new), at=self._last)
                return None
            name, at = finish.handoff
            program = self.program.handoffs[name]()
            # The limits of the run stay those of the agent that it began with.
            program = replace(program, spec=replace(program.spec, at=at, limits=self._limits))
            if self._recorder is not None:
                self._recorder.agent_start(at, name, finish.messages, len(finish.messages))
            self.agents.append(at)
            self._enter(program, finish.messages, finish.usage)
            outcome = None

    async def perform(self, effect: Effect) -> Outcome:
        """Have one effect performed.

        The end of the run by `cancel` or by its deadline is an `Interrupt`, so the loop
        can close its history. A cancellation from around the run is raised, after the
        loop has been told.
        """
        self._last = effect.at
        work = self._batch(effect) if isinstance(effect, ToolBatch) else self._inside(effect)
        try:
            with anyio.CancelScope(deadline=self._deadline) as self._scope:
                if self._cancelled is not None:
                    self._scope.cancel()
                await checkpoint_if_cancelled()
                if isinstance(work, Inside):
                    return await self._handler.perform(effect)
                await work.run()
                outcomes = work.outcomes()
                if work.interrupt is not None:
                    return replace(work.interrupt, outcomes=outcomes, usage=Usage())
                return outcomes
        except BaseException as error:
            self.send(self._interrupt(work, error))
            raise
        finally:
            self._scope = None
            self._among.pop(effect.at, None)
        if isinstance(work, Batch) and len(work.finished) == len(work.calls):
            return work.outcomes()  # it came too late for this batch; the next effect ends
        return self._interrupt(work)

    def record(self, effect: Effect, outcome: Outcome | None, performed: Outcome | None) -> None:
        """Record what the loop is told where that is not what performing came to."""
        if self._recorder is None or outcome is performed or outcome is None:
            return
        effects: Sequence[Effect] = effect.calls if isinstance(effect, ToolBatch) else (effect,)
        given = outcome if isinstance(effect, ToolBatch) and isinstance(outcome, tuple) else None
        for index, one in enumerate(effects):
            if performed is None:
                self._recorder.started(one)
            told = cast("ToolOutcome", given[index]) if given is not None else outcome
            self._recorder.ended(one, told)

    def abandon(self) -> None:
        """End a run that nobody drives on; what has been done is kept."""
        if not self._begun:
            self.begin()
        if self.finish is None:
            self._cancelled = self._cancelled or "nobody went on with it"
            self.send(self._interrupt())

    def close(self) -> None:
        """Close the trace and tell the listener. Nothing is awaited."""
        finish = self.finish
        self._loop.close()
        status = finish.status if finish is not None else "cancelled"
        if self._recorder is not None:
            usage = finish.usage if finish is not None else Usage()
            output = finish.output if finish is not None else None
            error = finish.error if finish is not None else None
            for at in reversed(self.agents):
                self._recorder.agent_end(at, status, output, usage, error)
        self._listener(Finished(at=self.agents[0], status=status))

    def _batch(self, batch: ToolBatch) -> Batch:
        tools = self.program.tools
        return Batch(
            batch,
            self._perform_call,
            sequential=[name for name, tool in tools.items() if tool.sequential],
            gates=self._gates,
            among=self._among,
        )

    def _inside(self, effect: Effect) -> Inside:
        inside = self._among[effect.at] = Inside(effect.at, self._among)
        return inside

    async def _perform_call(self, invocation: ToolInvocation) -> ToolOutcome | Interrupt:
        outcome = await self._handler.perform(invocation)
        assert isinstance(outcome, (ToolOutcome, Interrupt))
        return outcome

    def _interrupt(
        self, work: Batch | Inside | None = None, cause: BaseException | None = None
    ) -> Interrupt:
        """Say what ended the run: a bug, `cancel()`, the task around it, or the deadline."""
        outcomes = work.outcomes() if isinstance(work, Batch) else ()
        used = work.used if isinstance(work, Inside) else Usage()
        status: Literal["cancelled", "limit", "error"] = "cancelled"
        if isinstance(cause, Exception):
            status, error = "error", cause
        elif cause is not None or self._cancelled is not None:
            around = "the task around the run was cancelled"
            if isinstance(cause, KeyboardInterrupt):
                around = "Ctrl-C"
            reason = self._cancelled or around
            error = RunCancelled(f"The run was cancelled: {reason}.", reason=reason)
        else:
            status, seconds = "limit", self._seconds or 0
            error = LimitExceeded(
                f"The run reached Limits.seconds = {seconds:g}.",
                limit="seconds",
                value=seconds,
                maximum=seconds,
            )
        return Interrupt(status=status, error=Failure.of(error), outcomes=outcomes, usage=used)
