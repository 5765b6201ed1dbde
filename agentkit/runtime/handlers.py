"""Performs the effects of a run for real, and those of its sub-agents.

A run's handlers stand around each other: what listens, what resumes, what records,
the user's middleware, and innermost the one that asks models and runs tools.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import anyio
from anyio import CapacityLimiter
from anyio.lowlevel import checkpoint_if_cancelled, current_token

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
    ToolInvocation,
    ToolOutcome,
    Value,
    decided,
)
from agentkit.core.loop import limit_reached
from agentkit.core.spec import Finish
from agentkit.errors import ConfigurationError, RunCancelled, safe_repr, safe_str
from agentkit.events import (
    Emit,
    Paused,
    StepFinished,
    StepStarted,
    ToolCallFinished,
    ToolCallStarted,
    Warned,
    ignore,
)
from agentkit.messages import NO_USAGE, ModelResponse, ToolCall, Usage, UserMessage
from agentkit.models.base import identity_of
from agentkit.models.prices import usage_with_cost
from agentkit.runtime.assemble import (
    ComputeFunction,
    Program,
    assemble,
    offered_tool,
)
from agentkit.runtime.config import Configured
from agentkit.runtime.driver import Driver
from agentkit.runtime.scope import Scope
from agentkit.runtime.tool_call import ReadCall, outcome_of, run_call, unknown_tool, unread
from agentkit.tools.context import RunContext, context_at, explain
from agentkit.tools.invoke import called
from agentkit.tools.tool import AnyTool, Arguments, Tool
from agentkit.tools.toolset import as_entered, check_names, tools_of
from agentkit.trace.naming import packed, unpacked
from agentkit.trace.recorder import DurableHandler, RecordingHandler

THREADS = 128
"""Worker threads that sync tools of an agent may use at the same time, unless `parallel` is more.

Bounded calls are fewer; a limiter as small as `parallel` would count abandoned threads too.
"""


def performing(
    scope: Scope, program: Program[Any], innermost: LiveHandler | None = None
) -> Handler:
    """Make what performs an agent's effects for real, with its middleware around it."""
    live = innermost or LiveHandler(program, scope)
    handler: Handler = live
    for wrap in reversed(program.middleware):
        handler = wrap(handler)
        if not hasattr(handler, "perform"):
            returned = f"{safe_repr(wrap)} returned {safe_repr(handler)}"
            raise ConfigurationError(f"The middleware {returned}; expected a handler.")
    return handler if handler is live else _Prepared(live, handler)


def recorded(scope: Scope, handler: Handler) -> Handler:
    """Put the recorder around a handler, if the run is recorded."""
    return handler if scope.recorder is None else RecordingHandler(handler, scope.recorder)


def observed(scope: Scope, handler: Handler) -> Handler:
    """Put the listener around a handler, if there is one, and the wait for the disk."""
    if scope.listener is not ignore:
        handler = ObservedHandler(handler, scope.listener)
    recorder = scope.recorder
    return DurableHandler(handler, recorder) if recorder and recorder.durable else handler


def live(scope: Scope, program: Program[Any]) -> Handler:
    """Make the handlers of an agent whose effects are all performed for real."""
    return observed(scope, recorded(scope, performing(scope, program)))


class ObservedHandler:
    """Emits an event at each effect's beginning and end."""

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
            case Compute():
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


class _Prepared:
    """Prepares effects for the middleware: reads a call's arguments, names a model's server."""

    def __init__(self, live: LiveHandler, inner: Handler) -> None:
        self._live = live
        self._inner = inner

    async def perform(self, effect: Effect) -> Outcome:
        """Perform through the middleware."""
        if isinstance(effect, ToolInvocation):
            effect = await self._live.read(effect)
        elif isinstance(effect, ModelCall):
            effect = replace(effect, server=identity_of(self._live.model))
        return await self._inner.perform(effect)


class LiveHandler:
    """Performs effects for real: asks the model, runs the tools, calls the user's functions.

    Attributes:
        model: Answers model calls.
        messages: Those of the last model call, for `RunContext.messages`.
    """

    def __init__(self, program: Program[Any], scope: Scope) -> None:
        self.model = program.model
        self._program = program
        self._scope = scope
        self.messages = scope.messages
        self._dynamic: Mapping[str, AnyTool] = {}
        self._listed_at: Address | None = None
        self._read: dict[Address, ReadCall] = {}  # the calls of this step

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

    async def run_agent(self, agent: Configured, prompt: str, at: Address) -> Any:
        """Run another agent below a tool call; see `RunContext.run`."""
        scope = self._scope
        agent.config.check_deps(scope.deps)
        program = assemble(agent.config)
        program = replace(program, spec=replace(program.spec, at=at))
        driver = Driver(scope, program, (UserMessage(content=prompt),), nested=True)
        with scope.frames.opened(at.parent) as frame:
            with frame.lending():
                try:
                    finish = await driver.execute()
                finally:
                    if driver.finish is not None:
                        frame.used += driver.finish.usage
            if (stop := _ends_all(finish)) is not None:
                await frame.stop(stop)
            await frame.acquire()
        return driver.result

    def det(self, at: Address, kind: str, use: int, make: Callable[[], Any]) -> Any:
        """Make a value that is not deterministic, and record it."""
        scope = self._scope
        value = scope.recorded.det(at, kind, use) if scope.recorded is not None else None
        if value is not None and scope.resumed:
            return value  # it is in the trace that goes on
        value = make() if value is None else value
        if scope.recorder is not None:
            scope.recorder.det(at, kind, use, value)
        return value

    async def _ask(self, call: ModelCall) -> ModelResponse | Failure:
        self.messages = call.request.messages
        scope, meter = self._scope, self._scope.meter
        # The loop counts for its own agent, the meter for all agents of the run together.
        used = meter.used + Usage(requests=meter.under_way) if meter.under_way else meter.used
        if reached := limit_reached(scope.limits, used):
            return reached
        meter.under_way += 1
        try:
            response = await self.model.request(
                call.request, at=call.at, emit=scope.emit, stream=scope.stream
            )
        except Exception as error:
            return Failure.of(error)
        finally:
            meter.under_way -= 1
        if not isinstance(response, ModelResponse):  # pyright: ignore[reportUnnecessaryIsInstance]  # a model may be anybody's
            text = (
                f"The model {call.model} returned {safe_repr(response)}; expected a ModelResponse."
            )
            return Failure.of(ConfigurationError(text))
        if (usage := usage_with_cost(call.model, response)) is not response.usage:
            response = replace(response, usage=usage)
        meter.add(response.usage)
        return response

    async def _run(self, invocation: ToolInvocation) -> ToolOutcome | Interrupt:
        scope, name = self._scope, invocation.call.name
        tool = await self._tool(name, invocation.at)
        if isinstance(tool, Failure):
            return Interrupt(status="error", error=tool)
        if tool is None:
            return unknown_tool(invocation, [*self._program.tools, *self._dynamic])
        if isinstance(tool, Interrupt):
            return tool
        shown = tool.takes_context or bool(self._program.middleware)
        context = self._context(invocation.at, shown=shown)
        frame = scope.frames.of(invocation.at)
        read = self._read.get(invocation.at)
        if read is None or not read.is_of(invocation.call):
            if self._program.middleware:
                read = await self._changed(invocation, tool, context)
                if isinstance(read, ToolOutcome):
                    return read
            else:
                read = self._first_read(invocation, tool)
        outcome = await run_call(invocation, tool, read, context, frame, scope.redact)
        if isinstance(outcome, Interrupt):
            return outcome
        scope.meter.add_bytes(outcome.size)
        return outcome if frame.used is NO_USAGE else replace(outcome, usage=frame.used)

    async def read(self, invocation: ToolInvocation) -> ToolInvocation:
        """Return a call as middleware and the tool see it; what was read is kept for the tool."""
        call = invocation.call
        known = self._read.get(invocation.at)
        if known is None or not known.is_of(call):
            tool = await self._tool(call.name, invocation.at)
            if not isinstance(tool, Tool):
                return invocation
            known = self._keep(invocation.at, self._first_read(invocation, tool))
        if known.text == call.arguments:
            return invocation
        return replace(invocation, call=replace(call, arguments=known.text))

    def _first_read(self, invocation: ToolInvocation, tool: AnyTool) -> ReadCall:
        text, sent = invocation.call.arguments, invocation.sent
        if sent is not None:
            return ReadCall.again(tool, text, sent)
        return ReadCall.of(tool, text, shown=bool(self._program.middleware))

    async def _changed(
        self, invocation: ToolInvocation, tool: AnyTool, context: RunContext[Any]
    ) -> ReadCall | ToolOutcome:
        """Read a call that middleware has changed; refuse one that would need a decision.

        The decision, or that none was needed, was about another call.
        """
        name, text = invocation.call.name, self._scope.redact(invocation.call.arguments)
        change = f"Middleware changed the call to {name} {text}"
        context.emit(Warned(at=invocation.at, code="call_changed", text=f"{change}."))
        read = ReadCall.of(tool, invocation.call.arguments)
        if read.arguments is None or not await self._waits(tool, read.arguments, context):
            return read
        text = f"{change}, which needs a decision of its own. It was not run."
        return outcome_of(invocation, "denied", text)

    def _keep(self, at: Address, read: ReadCall) -> ReadCall:
        """Keep what was read of a call while its step lasts."""
        if not self._read or next(iter(self._read)).parent != at.parent:
            self._read = {}
        self._read[at] = read
        return read

    async def _judge(self, tool: AnyTool | None, context: RunContext[Any], text: str) -> Any:
        """Read a call's arguments, and tell whether it has to wait for a decision about them."""
        at = context.address.parent
        if tool is None:  # its toolset has changed since
            return {"arguments": text, "needed": True}
        read = self._keep(at, ReadCall.of(tool, text))
        if read.arguments is None:
            call = ToolInvocation(at=at, call=ToolCall(id="", name=tool.name, arguments=text))
            answer = unread(call, tool, read, context, self._scope.redact)
            return {"problem": answer.message.text}
        needed = await self._waits(tool, read.arguments, context)
        return {"arguments": read.text, "needed": needed}

    async def _waits(self, tool: AnyTool, arguments: Arguments, context: RunContext[Any]) -> bool:
        """Tell whether a call has to wait for a decision; one that nobody vouches for has to."""
        if not callable(tool.approval):
            return tool.deferred or tool.approval
        try:
            answer = await called(tool.approval, context, tool.named(arguments))
        except (Exception, SystemExit) as error:
            explain(error, context)
            what = f"raised {type(error).__name__}: {safe_str(error)}"
        else:
            if isinstance(answer, bool):
                return answer or tool.deferred
            what = f"returned a {type(answer).__name__} instead of True or False"
        text = self._scope.redact(f"The approval function of {tool.name} {what}; the call waits.")
        context.emit(Warned(at=context.address, code="approval_failed", text=text))
        return True

    async def _tool(self, name: str, at: Address) -> AnyTool | Failure | Interrupt | None:
        """Look a call's tool up: those of toolsets are the ones that they have at its step.

        A live run has listed them just before. Where a recording answered that, it says
        what was offered and no more: the toolsets list their tools when one is needed.
        """
        if (tool := self._program.tools.get(name)) is not None:
            return tool
        if not self._program.config.toolsets:
            return None
        async with self._listing:
            step = at.parent
            if self._listed_at != step:
                listed = await self._compute(Compute(at=step.child("toolsets"), name="toolsets"))
                if not isinstance(listed, Value):
                    return listed
        return self._dynamic.get(name)

    async def _list_tools(self, context: RunContext[Any], _: Any) -> list[Any]:
        """List the tools of the toolsets, as the loop knows them."""
        config, entered = self._program.config, self._program.entered
        toolsets = [as_entered(one, entered) for one in config.toolsets]
        tools = [tool for one in toolsets for tool in await tools_of(one, context)]
        check_names([*config.fixed_tools, *tools])
        self._compare_listed(tools, context)
        self._dynamic = {tool.name: tool for tool in tools}
        self._listed_at = context.address.parent
        return [offered_tool(tool).to_json() for tool in tools]

    def _compare_listed(self, tools: Sequence[AnyTool], context: RunContext[Any]) -> None:
        """Say, once, where text from outside is another than in the recording."""
        known, self._then = self._then, {}
        for tool in tools:
            then = known.get(tool.name)
            if tool.source is None or then is None:
                continue
            if then == unpacked(packed(tool.definition.to_json(), self._scope.redact)):
                continue
            warned = (one for one in self._scope.warnings if one.code == "tool_changed")
            if not any(one.data.get("tool") == tool.name for one in warned):
                text = f"{tool.name} of {tool.source} is not described as in the recorded run."
                data = {"tool": tool.name, "source": tool.source}
                context.emit(Warned(at=context.address, code="tool_changed", text=text, data=data))

    async def _function(self, effect: Compute) -> ComputeFunction | Failure | Interrupt:
        if effect.name == "toolsets":
            return self._list_tools
        kind, _, name = effect.name.partition(":")
        if kind not in ("approval", "arguments"):
            return self._program.compute[effect.name]
        tool = await self._tool(name, effect.at.parent)
        if isinstance(tool, (Failure, Interrupt)):
            return tool
        return partial(self._judge, tool)

    async def _compute(self, effect: Compute) -> Value | Failure | Interrupt:
        function, context = await self._function(effect), self._context(effect.at)
        if isinstance(function, (Failure, Interrupt)):
            return function

        async def call() -> Value | Failure:
            try:
                return Value(value=await called(function, context, effect.input))
            except (Exception, SystemExit) as error:
                await checkpoint_if_cancelled()  # what fails as it is cancelled is cancelled
                explain(error, context)
                return Failure.of(error)

        with self._scope.frames.opened(effect.at) as frame:
            outcome = await frame.run(call)
        return outcome if frame.used is NO_USAGE else replace(outcome, usage=frame.used)

    async def decide(self, pending: PendingCall) -> Decision | None:
        """Have the approver decide about a call; None if it does not, or there is none."""
        approver = self._scope.approver
        decision = await called(approver, pending) if approver is not None else None
        if isinstance(decision, bool):
            return Decision.approve() if decision else Decision.deny()
        if decision is not None and not isinstance(decision, Decision):
            text = f"The approver returned {safe_repr(decision)}; expected a Decision, True "
            raise ConfigurationError(text + "or False.")
        return decision

    async def _decide(self, pause: Pause) -> tuple[Decision, ...] | Suspended | Interrupt:
        decisions: list[Decision | None] = []
        for pending in pause.pending:
            try:
                decisions.append(await self.decide(pending))
            except Exception as error:
                return _broken(error)
        outcome, recorder = decided(decisions), self._scope.recorder
        if isinstance(outcome, Suspended) and (recorder is None or not recorder.resumable):
            text = "The run pauses and cannot be resumed: its trace does not hold what that needs. "
            text += "Record runs that may pause with trace= not False and capture='full'."
            self._scope.emit(Warned(at=pause.pending[0].at, code="not_resumable", text=text))
        return outcome

    def _context(self, at: Address, *, shown: bool = True) -> RunContext[Any]:
        """Make the context of an effect; what was used is counted where a function sees it."""
        usage = self._scope.meter.used if shown else NO_USAGE
        messages = self.messages
        return context_at(self._shared, address=at, messages=messages, usage=usage, services=self)

    # What few runs need is made when it is needed.

    @cached_property
    def _shared(self) -> RunContext[Any]:
        """What contexts have in common; not this handler, which would be a cycle of references."""
        return RunContext(
            deps=self._scope.deps,
            run_id=self._scope.run,
            emit=self._scope.emit,
            home=(threading.get_ident(), current_token()),
        )

    @cached_property
    def _then(self) -> Mapping[str, Any]:
        """The definitions of toolsets' tools as the recording has them last, by name."""
        recorded = self._scope.recorded
        return recorded.listed(self._program.spec.at) if recorded is not None else {}

    @cached_property
    def threads(self) -> CapacityLimiter:
        """Limits the worker threads of sync tools."""
        return CapacityLimiter(max(self._program.spec.limits.parallel or 0, THREADS))

    @cached_property
    def _listing(self) -> anyio.Lock:
        return anyio.Lock()


def _ends_all(finish: Finish[Any]) -> Interrupt | None:
    """Return how a run ends of which this one is a part, if this one's end is no answer to it."""
    if finish.status == "paused":
        error = Failure.of(RunCancelled("A sub-agent waits for a decision.", reason="paused"))
        return Interrupt(status="paused", error=error, pending=finish.pending)
    if finish.final and finish.error is not None:
        return Interrupt(status="error", error=finish.error)
    return None


def _broken(error: Exception) -> Interrupt:
    """End the run: a person was to decide, and would not learn otherwise what went wrong."""
    return Interrupt(status="error", error=Failure.of(error))
