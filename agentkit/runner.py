"""Drives the loop: effects out to a handler, outcomes in.

This is the one place that awaits on behalf of the loop. A cancelled run gets
its `Interrupt` here, synchronously, so that its history is valid and its trace
closed before the cancellation goes on.
"""

from __future__ import annotations

import inspect
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, cast

import anyio
from anyio import CapacityLimiter
from anyio.lowlevel import checkpoint_if_cancelled

from agentkit.effects import (
    Address,
    Compute,
    Decision,
    Effect,
    Failure,
    Handler,
    Interrupt,
    ModelCall,
    Outcome,
    Pause,
    PendingCall,
    Suspended,
    ToolBatch,
    ToolInvocation,
    ToolOutcome,
    Value,
)
from agentkit.errors import AgentKitError, ConfigurationError, LimitExceeded, RunCancelled
from agentkit.events import (
    Emit,
    Event,
    Finished,
    StepFinished,
    StepStarted,
    ToolCallFinished,
    ToolCallStarted,
    Warned,
    ignore,
)
from agentkit.execution import Batch, run_call
from agentkit.loop import conversation, limit_reached
from agentkit.messages import Message, ModelResponse, ToolMessage, Usage, UserMessage
from agentkit.models.model import Model
from agentkit.prices import priced
from agentkit.redaction import Redactor
from agentkit.settings import Limits
from agentkit.spec import AgentSpec, Finish
from agentkit.tools import RunContext, Tool
from agentkit.trace.recorded import RecordedHandler
from agentkit.trace.recording import Recorder, RecordingHandler

__all__ = [
    "Approver",
    "ComputeFunction",
    "Driver",
    "LiveHandler",
    "Middleware",
    "ObservedHandler",
    "Program",
    "Scope",
    "new_run_id",
]

OutputT = TypeVar("OutputT")
THREADS = 128
"""Worker threads that sync tools of one run may use at the same time, where no limit says."""
ComputeFunction: TypeAlias = Callable[[RunContext[Any], Any], Any]
Middleware: TypeAlias = Callable[[Handler], Handler]
Approver: TypeAlias = Callable[[PendingCall], Any]
"""Decides about a call: a `Decision`, or True or False; sync or async. None: not now."""


class SubAgent(Protocol):
    """What a run needs of an agent that one of its tools runs."""

    def program(self) -> Program[Any]:
        """The agent, ready to run."""
        ...

    def conclude(self, finish: Finish[Any], run: str) -> Any:
        """The result of its run, or the error that ended it, raised."""
        ...


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
        notes: What is said once at the beginning of a run.
    """

    name: str
    spec: AgentSpec[OutputT]
    model: Model
    tools: dict[str, Tool[..., Any]] = field(default_factory=dict[str, Tool[..., Any]])
    compute: Mapping[str, ComputeFunction] = field(default_factory=dict[str, ComputeFunction])
    handoffs: Mapping[str, Callable[[], Program[Any]]] = field(default_factory=dict[str, Any])
    middleware: tuple[Middleware, ...] = ()
    notes: tuple[Warned, ...] = ()


def new_run_id() -> str:
    """A UUID of version 7 (RFC 9562) as 32 hex digits: ids sort by time."""
    milliseconds = time.time_ns() // 1_000_000
    number = milliseconds << 80 | int.from_bytes(os.urandom(10))
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return f"{number:032x}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """What the agents of one run share, sub-agents included.

    Attributes:
        run: The run's id.
        deps: Given to tools.
        limits: The outermost agent's, which bound all of them together.
        listener: Is told what happens.
        recorder: Writes the trace, if there is one.
        redact: Takes secrets out of what models are told of exceptions.
        stream: Models are to send their answers piece by piece.
        approver: Decides about calls that need it; without one the run pauses.
        recorded: What an interrupted run had done already, when it is resumed.
        used: What all model calls together have used so far: one value, replaced as it grows.
    """

    run: str
    deps: object
    limits: Limits
    listener: Emit = ignore
    recorder: Recorder | None = None
    redact: Redactor = field(default_factory=Redactor)
    stream: bool = False
    approver: Approver | None = None
    recorded: RecordedHandler | None = None
    used: list[Usage] = field(default_factory=lambda: [Usage()])

    def emit(self, event: Event) -> None:
        """Tell the trace and the listener of something inside an effect."""
        if self.recorder is not None:
            self.recorder.event(event)
        self.listener(event)

    def driver(
        self, program: Program[OutputT], messages: Sequence[Message], *, earlier: int = 0
    ) -> Driver[OutputT]:
        """A driver for an agent of this run."""
        return Driver(
            program,
            messages,
            self.handler,
            earlier=earlier,
            resumed=self.recorded is not None and not program.spec.at.parent,
            recorder=self.recorder,
            listener=self.listener,
            seconds=program.spec.limits.seconds,
        )

    def handler(self, program: Program[Any]) -> Handler:
        """What performs an agent's effects, with its middleware around it."""
        handler: Handler = LiveHandler(program, self)
        for wrap in reversed(program.middleware):
            handler = wrap(handler)
        if self.recorder is not None:
            handler = RecordingHandler(handler, self.recorder)
        return handler if self.recorded is None else ResumingHandler(self.recorded, handler, self)


class LiveHandler:
    """Performs effects for real: asks the model, runs the tools, calls the user's functions."""

    def __init__(self, program: Program[Any], scope: Scope) -> None:
        self._program = program
        self._scope = scope
        self._messages: tuple[Message, ...] = ()
        self._nested: dict[Address, Usage] = {}
        self._threads = CapacityLimiter(program.spec.limits.parallel or THREADS)

    async def perform(self, effect: Effect) -> Outcome:
        """Perform one effect; a failure is its outcome."""
        match effect:
            case ModelCall():
                return await self._ask(effect)
            case ToolInvocation():
                return await self._run(effect)
            case Compute():
                return await self._compute(effect)
            case Pause():
                return await self._decide(effect)
            case ToolBatch():
                raise TypeError("a batch is taken apart before it reaches a handler")

    async def run_agent(self, agent: SubAgent, prompt: str, at: Address) -> Any:
        """Run another agent below a tool call; see `RunContext.run`."""
        program = agent.program()
        program = replace(program, spec=replace(program.spec, at=at))
        driver = self._scope.driver(program, (UserMessage(content=prompt),))
        try:
            finish = await driver.execute()
        finally:
            if driver.finish is not None:
                used = self._nested.get(at.parent, Usage())
                self._nested[at.parent] = used + driver.finish.usage
        return agent.conclude(finish, self._scope.run)

    def det(self, at: Address, kind: str, use: int, make: Callable[[], Any]) -> Any:
        """Make a value that is not deterministic, and record it."""
        value = make()
        if self._scope.recorder is not None:
            self._scope.recorder.det(at, kind, use, value)
        return value

    async def _ask(self, call: ModelCall) -> ModelResponse | Failure:
        self._messages = call.request.messages
        # The loop checks its own agent; this holds for all agents of the run together.
        if reached := self._scope.limits.reached(self._scope.used[0]):
            return limit_reached(*reached)
        try:
            response = await self._program.model.request(
                call.request, at=call.at, emit=self._scope.emit, stream=self._scope.stream
            )
        except AgentKitError as error:
            return Failure.of(error)
        response = replace(response, usage=priced(call.model, response))
        self._scope.used[0] += response.usage
        return response

    async def _run(self, invocation: ToolInvocation) -> ToolOutcome:
        scope = self._scope
        context = self._context(invocation.at)
        outcome = await run_call(
            invocation, self._program.tools, context, emit=scope.emit, redact=scope.redact
        )
        nested = self._nested.pop(invocation.at, None)
        return outcome if nested is None else replace(outcome, usage=nested)

    async def _compute(self, effect: Compute) -> Value | Failure:
        function = self._program.compute[effect.name]
        try:
            value = function(self._context(effect.at), effect.input)
            return Value(value=await value if inspect.isawaitable(value) else value)
        except Exception as error:
            return Failure.of(error)

    async def _decide(self, pause: Pause) -> tuple[Decision, ...] | Suspended | Failure:
        approver = self._scope.approver
        if approver is None and self._program.spec.at.parent:
            # A sub-agent runs inside a tool call, which cannot be put aside.
            why = "nobody is there to decide; sub-agents need run(approver=…)"
            return tuple(Decision.deny(why) for _ in pause.pending)
        if approver is None:
            return Suspended()
        decisions: list[Decision] = []
        for pending in pause.pending:
            try:
                made = approver(pending)
                made = await made if inspect.isawaitable(made) else made
            except Exception as error:
                return Failure.of(error)
            if made is None:
                return Suspended()
            if isinstance(made, bool):
                made = Decision.approve() if made else Decision.deny()
            if not isinstance(made, Decision):
                text = f"The approver returned {made!r}; expected a Decision, True or False."
                return Failure.of(ConfigurationError(text))
            decisions.append(made)
        return tuple(decisions)

    def _context(self, at: Address) -> RunContext[Any]:
        return RunContext(
            deps=self._scope.deps,
            address=at,
            run_id=self._scope.run,
            messages=self._messages,
            usage=self._scope.used[0],
            emit=self._scope.emit,
            threads=self._threads,
            services=self,
        )


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
            known = [self._recorded.decision(pending.at) for pending in effect.pending]
            made = tuple(decision for decision in known if decision is not None)
            return made if len(made) == len(effect.pending) else await self._live.perform(effect)
        if self._recorded.finished(effect):
            return await self._recorded.perform(effect)
        if not self._recorded.begun(effect):
            return await self._live.perform(effect)
        if not isinstance(effect, ToolInvocation) or effect.effect == "read":
            return await self._live.perform(effect)
        return await self._asked(effect)

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
        call = effect.call
        outcome = ToolOutcome(
            at=effect.at,
            status="ok" if decision.kind == "answer" else "denied",
            message=ToolMessage(call_id=call.id, name=call.name, content=decision.said()),
        )
        if self._scope.recorder is not None:
            self._scope.recorder.ended(effect, outcome)
        return outcome


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
    """

    def __init__(
        self,
        program: Program[OutputT],
        messages: Sequence[Message],
        handler: Callable[[Program[Any]], Handler],
        *,
        earlier: int = 0,
        resumed: bool = False,
        recorder: Recorder | None = None,
        listener: Emit = ignore,
        seconds: float | None = None,
    ) -> None:
        """Prepare a run.

        Args:
            program: The agent.
            messages: The conversation so far, ending with the prompt.
            handler: Gives what performs the effects of a program. There is more than one
                program where an agent hands over to another.
            earlier: How many of the messages are history from before.
            resumed: The trace holds the beginning of the run already.
            recorder: Records the run, if it is recorded.
            listener: Is told what happens.
            seconds: Wall-clock time after which the run ends.
        """
        self.program = program
        self.finish: Finish[OutputT] | None = None
        self._agents = [program.spec.at]
        self._messages = messages
        self._earlier = earlier
        self._resumed = resumed
        self._recorder = recorder
        self._listener = listener
        self._seconds = seconds
        self._deadline = math.inf
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
        limit = program.spec.limits.parallel
        self._parallel = None if limit is None else CapacityLimiter(limit)
        handler = self._handler_for(program)
        if self._listener is not ignore:
            handler = ObservedHandler(handler, self._listener)
        self.program = program
        self._handler = handler
        self._loop = conversation(program.spec, messages, usage)

    def begin(self) -> Effect | None:
        """The first effect. The clock of `seconds` starts here."""
        if self._recorder is not None:
            at, name = self.program.spec.at, self.program.name
            if not self._resumed:
                self._recorder.agent_start(at, name, self._messages, self._earlier)
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
                self.finish = replace(finish, new=tuple(self._new))
                return None
            name, at = finish.handoff
            program = self.program.handoffs[name]()
            program = replace(program, spec=replace(program.spec, at=at))
            if self._recorder is not None:
                self._recorder.agent_start(at, name, finish.messages, len(finish.messages))
            self._agents.append(at)
            self._enter(program, finish.messages, finish.usage)
            outcome = None

    async def perform(self, effect: Effect) -> Outcome:
        """Have one effect performed.

        The end of the run by `cancel` or by its deadline is an `Interrupt`, so the loop
        can close its history. A cancellation from around the run is raised, after the
        loop has been told.
        """
        batch: Batch | None = None
        try:
            with anyio.CancelScope(deadline=self._deadline) as self._scope:
                if self._cancelled is not None:
                    self._scope.cancel()
                await checkpoint_if_cancelled()
                if not isinstance(effect, ToolBatch):
                    return await self._handler.perform(effect)
                tools = self.program.tools
                alone = [name for name, tool in tools.items() if tool.sequential]
                batch = Batch(effect, self._perform_call, sequential=alone, parallel=self._parallel)
                await batch.run()
                outcomes = batch.outcomes()
                if batch.interrupt is not None:
                    return replace(batch.interrupt, outcomes=outcomes)
                return outcomes
        except BaseException as error:
            self.send(self._interrupt(batch, error))
            raise
        finally:
            self._scope = None
        return self._interrupt(batch)

    def close(self) -> None:
        """Close the trace and tell the listener. Nothing is awaited."""
        finish = self.finish
        self._loop.close()
        status = finish.status if finish is not None else "cancelled"
        if self._recorder is not None:
            usage = finish.usage if finish is not None else Usage()
            output = finish.output if finish is not None else None
            error = finish.error if finish is not None else None
            for at in reversed(self._agents):
                self._recorder.agent_end(at, status, output, usage, error)
        self._listener(Finished(at=self._agents[0], status=status))

    async def _perform_call(self, invocation: ToolInvocation) -> ToolOutcome | Interrupt:
        outcome = await self._handler.perform(invocation)
        assert isinstance(outcome, (ToolOutcome, Interrupt))
        return outcome

    def _interrupt(self, batch: Batch | None, cause: BaseException | None = None) -> Interrupt:
        """Say what ended the run: a bug, `cancel()`, the task around it, or the deadline."""
        outcomes = batch.outcomes() if batch is not None else ()
        status: Literal["cancelled", "limit", "error"] = "cancelled"
        if isinstance(cause, Exception):
            status, error = "error", cause
        elif cause is not None or self._cancelled is not None:
            reason = self._cancelled or "the task around the run was cancelled"
            error = RunCancelled(f"The run was cancelled: {reason}.", reason=reason)
        else:
            status, seconds = "limit", self._seconds or 0
            error = LimitExceeded(
                f"The run reached Limits.seconds = {seconds:g}.",
                limit="seconds",
                value=seconds,
                maximum=seconds,
            )
        return Interrupt(status=status, error=Failure.of(error), outcomes=outcomes)
