"""Performs the effects of a run for real, and those of its sub-agents.

A run's handlers stand around each other: what listens, what resumes, what records,
the user's middleware, and innermost the one that asks models and runs tools.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, TypeVar

from anyio import CapacityLimiter
from anyio.lowlevel import current_token

from agentkit.core.effects import (
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
    decided,
)
from agentkit.core.loop import limit_reached
from agentkit.core.spec import Finish
from agentkit.errors import AgentKitError, ConfigurationError, RunCancelled
from agentkit.events import Emit, Event, ignore
from agentkit.messages import Message, ModelResponse, Usage, UserMessage
from agentkit.models.prices import usage_with_cost
from agentkit.redaction import Redactor
from agentkit.runtime.batch import outcome_of, run_call
from agentkit.runtime.driver import Driver, ObservedHandler, Program
from agentkit.runtime.slots import Gate, Inside, Open, opened
from agentkit.settings import Limits
from agentkit.tools.context import RunContext, explain
from agentkit.tools.invoke import awaited
from agentkit.trace.recorder import Recorder, RecordingHandler

__all__ = [
    "Approver",
    "LiveHandler",
    "Recorded",
    "Scope",
    "guarded",
    "new_run_id",
    "recording",
]

OutputT = TypeVar("OutputT")
_diagnostics = logging.getLogger("agentkit")
THREADS = 128
"""Worker threads that sync tools of an agent may use at the same time, unless `parallel` is more.

Bounded calls are fewer; a limiter as small as `parallel` would count abandoned threads too.
"""
Approver: TypeAlias = Callable[[PendingCall], Any]
"""Decides about a call: a `Decision`, or True or False; sync or async. None: not now."""


Around: TypeAlias = Callable[["Scope", Handler, "LiveHandler"], Handler]
"""Puts an agent's handlers together: the run, what performs (its middleware around it) and the
innermost handler of that, given to whoever has to perform without middleware."""


class Recorded(Protocol):
    """What is known already of a run that is resumed or replayed."""

    def det(self, at: Address, kind: str, use: int) -> Any:
        """Return the value that was recorded there, or None."""
        ...


class SubAgent(Protocol):
    """What a run needs of an agent that one of its tools runs."""

    def program(self) -> Program[Any]:
        """The agent, ready to run."""
        ...

    def conclude(self, finish: Finish[Any], run: str) -> Any:
        """The result of its run, or the error that ended it, raised."""
        ...


def recording(scope: Scope, performing: Handler, live: LiveHandler) -> Handler:
    """What is performed is recorded, if the run is, and its listener is told."""
    return scope.observed(scope.recording(performing))


def guarded(listener: Emit) -> Emit:
    """Wrap a listener: its first exception is logged, then it is no longer called."""
    if listener is ignore:
        return ignore
    broken = False

    def emit(event: Event) -> None:
        nonlocal broken
        if broken:
            return
        try:
            listener(event)
        except Exception:
            broken = True
            _diagnostics.exception("on_event failed; it gets no more events of this run")

    return emit


def new_run_id() -> str:
    """A UUID of version 7 (RFC 9562) as 32 hex digits: ids sort by time."""
    milliseconds = time.time_ns() // 1_000_000
    number = milliseconds << 80 | int.from_bytes(os.urandom(10))
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return f"{number:032x}"


@dataclass(slots=True)
class Meter:
    """What all agents of a run together have used, and what is under way.

    Attributes:
        used: What was used.
        under_way: Model calls that have not been answered yet.
        tool_calls: Tool calls that were made.
        open: The insides of the effects that are under way.
        gate: Bounds the tool calls that run at the same time.
    """

    used: Usage = field(default_factory=Usage)
    under_way: int = 0
    tool_calls: int = 0
    open: Open = field(default_factory=dict[Address, Inside])
    gate: Gate | None = None


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
        asked: What the run was given instead of the agent's, for the trace.
        recorded: What is known already of a run that is resumed or replayed.
        around: Puts the handlers of each of its agents together.
        resumed: The recorder's trace holds the beginning of the run already.
        meter: What all its agents together have used so far.
        bounded: Its tool calls wait for places; not so where a recording gives their order.
    """

    run: str
    deps: object
    limits: Limits
    listener: Emit = ignore
    recorder: Recorder | None = None
    redact: Redactor = field(default_factory=Redactor)
    stream: bool = False
    approver: Approver | None = None
    recorded: Recorded | None = None
    around: Around = recording
    resumed: bool = False
    asked: Mapping[str, Any] = field(default_factory=dict[str, Any])
    meter: Meter = field(default_factory=Meter)
    bounded: bool = True

    def recording(self, handler: Handler) -> Handler:
        """The handler with the recorder around it, if the run is recorded."""
        return handler if self.recorder is None else RecordingHandler(handler, self.recorder)

    def observed(self, handler: Handler) -> Handler:
        """The handler with the listener around it, if somebody listens."""
        return handler if self.listener is ignore else ObservedHandler(handler, self.listener)

    def emit(self, event: Event) -> None:
        """Tell the trace and the listener of something inside an effect."""
        if self.recorder is not None:
            self.recorder.event(event)
        self.listener(event)

    def driver(
        self,
        program: Program[OutputT],
        messages: Sequence[Message],
        *,
        earlier: int = 0,
        nested: bool = False,
    ) -> Driver[OutputT]:
        """A driver for an agent of this run; a nested one runs inside a tool call."""
        return Driver(
            program,
            messages,
            functools.partial(self.handler, nested=nested),
            earlier=earlier,
            resumed=self.resumed and not nested,
            asked=None if nested else self.asked,
            recorder=self.recorder,
            listener=self.listener,
            seconds=program.spec.limits.seconds,
            bounds=self._bounds(program.spec.limits, nested=nested) if self.bounded else None,
            among=self.meter.open,
        )

    def _bounds(self, limits: Limits, *, nested: bool) -> list[Gate]:
        """What the calls of an agent need a place of: the run's, and the agent's own part."""
        if not nested:
            parallel = self.limits.parallel
            self.meter.gate = None if parallel is None else Gate(parallel)
        own = Gate(limits.parallel) if nested and limits.parallel is not None else None
        return [gate for gate in (self.meter.gate, own) if gate is not None]

    def handler(self, program: Program[Any], *, nested: bool = False) -> Handler:
        """What performs an agent's effects, with its middleware around it."""
        live = LiveHandler(program, self, nested=nested)
        handler: Handler = live
        for wrap in reversed(program.middleware):
            handler = wrap(handler)
        return self.around(self, handler, live)


class LiveHandler:
    """Performs effects for real: asks the model, runs the tools, calls the user's functions."""

    def __init__(self, program: Program[Any], scope: Scope, *, nested: bool = False) -> None:
        self.program = program
        self._nested_agent = nested
        self._scope = scope
        self._messages: tuple[Message, ...] = ()
        self._threads = CapacityLimiter(max(program.spec.limits.parallel or 0, THREADS))

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

    async def gather(self, effect: Effect) -> Failure | Interrupt | None:
        """Have the tools of toolsets there. A recorded answer says what was offered, no more."""
        if not isinstance(effect, Compute) or effect.name != "toolsets":
            return None
        gathered = await self.perform(effect)
        return gathered if isinstance(gathered, (Failure, Interrupt)) else None

    async def run_agent(self, agent: SubAgent, prompt: str, at: Address) -> Any:
        """Run another agent below a tool call; see `RunContext.run`."""
        program = agent.program()
        program = replace(program, spec=replace(program.spec, at=at))
        driver = self._scope.driver(program, (UserMessage(content=prompt),), nested=True)
        with opened(self._scope.meter.open, at.parent) as inside:
            with inside.lent():
                try:
                    finish = await driver.execute()
                finally:
                    if driver.finish is not None:
                        inside.used += driver.finish.usage
            if (stop := _ends_all(finish)) is not None:
                await inside.stop(stop)
            await inside.take()
        return agent.conclude(finish, self._scope.run)

    def det(self, at: Address, kind: str, use: int, make: Callable[[], Any]) -> Any:
        """Make a value that is not deterministic, and record it."""
        recorded = self._scope.recorded
        value = recorded.det(at, kind, use) if recorded is not None else None
        if value is not None and self._scope.resumed:
            return value  # it is in the trace that goes on
        value = make() if value is None else value
        if self._scope.recorder is not None:
            self._scope.recorder.det(at, kind, use, value)
        return value

    async def _ask(self, call: ModelCall) -> ModelResponse | Failure:
        self._messages = call.request.messages
        # The loop checks its own agent; this holds for all agents of the run together.
        meter = self._scope.meter
        if reached := self._scope.limits.reached(meter.used + Usage(requests=meter.under_way)):
            return limit_reached(*reached)
        meter.under_way += 1
        try:
            response = await self.program.model.request(
                call.request, at=call.at, emit=self._scope.emit, stream=self._scope.stream
            )
        except AgentKitError as error:
            return Failure.of(error)
        finally:
            meter.under_way -= 1
        response = replace(response, usage=usage_with_cost(call.model, response))
        meter.used += response.usage
        return response

    async def _run(self, invocation: ToolInvocation) -> ToolOutcome | Interrupt:
        scope, maximum = self._scope, self._scope.limits.tool_calls
        if self._nested_agent and maximum is not None and scope.meter.tool_calls >= maximum:
            text = f"Not executed: the run has reached Limits.tool_calls = {maximum}."
            return outcome_of(invocation, "error", text)
        scope.meter.tool_calls += 1
        context = self._context(invocation.at)
        with opened(scope.meter.open, invocation.at) as inside:
            outcome = await run_call(
                invocation,
                self.program.tools,
                context,
                inside,
                emit=scope.emit,
                redact=scope.redact,
            )
        if isinstance(outcome, Interrupt):
            return outcome
        size = len(outcome.message.text.encode("utf-8", "replace"))
        scope.meter.used += Usage(tool_bytes=size)
        return replace(outcome, usage=inside.used)

    async def _compute(self, effect: Compute) -> Value | Failure | Interrupt:
        function, context = self.program.compute[effect.name], self._context(effect.at)

        async def call() -> Value | Failure:
            try:
                return Value(value=await awaited(function(context, effect.input)))
            except Exception as error:
                explain(error, context)
                return Failure.of(error)

        with opened(self._scope.meter.open, effect.at) as inside:
            outcome = await inside.hold(call)
        return replace(outcome, usage=inside.used)

    async def _decide(self, pause: Pause) -> tuple[Decision, ...] | Suspended | Interrupt:
        approver = self._scope.approver
        decisions: list[Decision | None] = []
        for pending in pause.pending:
            try:
                made = await awaited(approver(pending)) if approver is not None else None
            except Exception as error:
                return _broken(error)
            if isinstance(made, bool):
                made = Decision.approve() if made else Decision.deny()
            if made is not None and not isinstance(made, Decision):
                text = f"The approver returned {made!r}; expected a Decision, True or False."
                return _broken(ConfigurationError(text))
            decisions.append(made)
        return decided(decisions)

    def _context(self, at: Address) -> RunContext[Any]:
        return RunContext(
            deps=self._scope.deps,
            address=at,
            run_id=self._scope.run,
            messages=self._messages,
            usage=self._scope.meter.used,
            emit=self._scope.emit,
            threads=self._threads,
            services=self,
            home=(threading.get_ident(), current_token()),
        )


def _ends_all(finish: Finish[Any]) -> Interrupt | None:
    """How a run ends of which this one is a part, if this one's end is no answer to it."""
    if finish.status == "paused":
        error = Failure.of(RunCancelled("A sub-agent waits for a decision.", reason="paused"))
        return Interrupt(status="paused", error=error, pending=finish.pending)
    if finish.final and finish.error is not None:
        return Interrupt(status="error", error=finish.error)
    return None


def _broken(error: Exception) -> Interrupt:
    """The end of the run: a person was to decide, and is not told what went wrong otherwise."""
    return Interrupt(status="error", error=Failure.of(error))
