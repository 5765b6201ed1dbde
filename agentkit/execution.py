"""Runs one batch of tool calls: concurrently, bounded, answered in call order.

Two things happen here and nowhere else. A `Batch` decides when each of its calls
runs; `run_call` decides what one call's exception, timeout or result
becomes. Neither lets a tool's failure out: every call gets its one answer.
"""

from __future__ import annotations

import difflib
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    nullcontext,
)
from dataclasses import replace
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import anyio
from anyio import CapacityLimiter
from anyio.lowlevel import RunVar

from agentkit.effects import (
    Failure,
    Interrupt,
    ToolBatch,
    ToolInvocation,
    ToolOutcome,
    ToolStatus,
)
from agentkit.errors import ToolError
from agentkit.events import Emit, Warned
from agentkit.messages import ToolMessage
from agentkit.redaction import Redactor
from agentkit.tools import Arguments, RunContext, Tool

__all__ = ["Batch", "Gate", "outcome_of", "run_call", "shared_limiter"]

Perform: TypeAlias = Callable[[ToolInvocation], Awaitable[ToolOutcome | Interrupt]]


class Batch:
    """One batch being run.

    Attributes:
        finished: The outcomes so far by index, in the order of finishing.
        interrupt: Set when a call was answered by the end of the whole run.
    """

    def __init__(
        self,
        batch: ToolBatch,
        perform: Perform,
        *,
        sequential: Collection[str] = (),
        gates: Sequence[AbstractAsyncContextManager[Any]] = (),
    ) -> None:
        """Prepare a batch.

        Args:
            batch: The calls.
            perform: Performs one call and returns its outcome, whatever happens.
            sequential: Names of tools that run alone: what stands before one in the batch
                has ended when it starts, and what stands after it starts when it has ended.
            gates: Held by each call while it runs, one after the other.
        """
        self.calls = batch.calls
        self.finished: dict[int, ToolOutcome] = {}
        self.interrupt: Interrupt | None = None
        self._perform = perform
        self._sequential = sequential
        self._gates = gates

    async def run(self) -> None:
        """Run the calls concurrently."""
        for stage in self._stages():
            if self.interrupt is not None:
                return
            if len(stage) == 1:
                await self._one(*stage[0], await self._admitted())
                continue
            async with anyio.create_task_group() as group:
                for index, invocation in stage:
                    # Admitted here, one after the other: calls begin in call order, whatever the
                    # event loop's order of tasks is, so a replay can let them begin so again.
                    held = await self._admitted()
                    group.start_soon(self._one, index, invocation, held, name=invocation.at)

    def outcomes(self) -> tuple[ToolOutcome, ...]:
        """Every call's outcome in call order; what has not ended is answered as cancelled."""
        return tuple(
            self.finished.get(index) or _cancelled(invocation)
            for index, invocation in enumerate(self.calls)
        )

    async def _admitted(self) -> AsyncExitStack:
        async with AsyncExitStack() as held:
            for gate in self._gates:
                await held.enter_async_context(gate)
            return held.pop_all()

    async def _one(self, index: int, invocation: ToolInvocation, held: AsyncExitStack) -> None:
        async with held:
            outcome = await self._perform(invocation)
        if isinstance(outcome, Interrupt):
            self.interrupt = outcome
        else:
            self.finished[index] = outcome

    def _stages(self) -> Iterator[list[tuple[int, ToolInvocation]]]:
        stage: list[tuple[int, ToolInvocation]] = []
        for index, invocation in enumerate(self.calls):
            if invocation.call.name not in self._sequential:
                stage.append((index, invocation))
                continue
            if stage:
                yield stage
            yield [(index, invocation)]
            stage = []
        if stage:
            yield stage


async def run_call(
    invocation: ToolInvocation,
    tools: Mapping[str, Tool[..., Any]],
    context: RunContext[Any],
    *,
    emit: Emit,
    redact: Redactor,
) -> ToolOutcome:
    """Run one tool call to its outcome. Raises nothing but cancellation."""
    call = invocation.call
    tool = tools.get(call.name)
    if tool is None:
        return outcome_of(invocation, "error", _unknown(call.name, tools))
    try:
        arguments = tool.parse(call.arguments)
    except ToolError as error:
        return outcome_of(invocation, "error", error.message, error)
    if arguments.repairs:
        text = "; ".join(arguments.repairs)
        emit(Warned(at=invocation.at, code="repaired_arguments", text=text))
    async with shared_limiter(tool, tool.concurrency):
        while True:
            outcome = await _attempt(tool, arguments, invocation, context, redact)
            # A ToolError is an answer, not an accident: trying again would not change it.
            accident = outcome.status == "timeout" or (
                outcome.error is not None and not isinstance(outcome.error.exception, ToolError)
            )
            if not accident or context.attempt >= tool.retries:
                return outcome
            text = f"{call.name} is tried again: {outcome.message.text}"
            emit(Warned(at=invocation.at, code="tool_retried", text=text))
            context = replace(context, attempt=context.attempt + 1)


async def _attempt(
    tool: Tool[..., Any],
    arguments: Arguments,
    invocation: ToolInvocation,
    context: RunContext[Any],
    redact: Redactor,
) -> ToolOutcome:
    try:
        with anyio.move_on_after(tool.timeout):
            value = await tool.invoke(arguments, context)
            return outcome_of(invocation, "ok", tool.render(value))
    except ToolError as error:
        return outcome_of(invocation, "error", error.message, error)
    except (Exception, SystemExit) as error:  # argparse, for one, ends programs
        text = redact(f"{type(error).__name__}: {_said(error)}")
        return outcome_of(invocation, "error", text, error, fatal=tool.on_error == "raise")
    text = f"{invocation.call.name} did not finish within {tool.timeout:g} s."
    return outcome_of(invocation, "timeout", text)


class Gate:
    """Lets so many in at a time. Held not by the task: a tool may run an agent that calls it."""

    def __init__(self, calls: int) -> None:
        self._limiter = CapacityLimiter(calls)
        self._inside: list[object] = []

    async def __aenter__(self) -> None:
        one = object()
        await self._limiter.acquire_on_behalf_of(one)
        self._inside.append(one)

    async def __aexit__(self, *_: object) -> None:
        self._limiter.release_on_behalf_of(self._inside.pop())


_gates: RunVar[WeakKeyDictionary[Any, Gate]] = RunVar("gates")


def shared_limiter(owner: object, calls: int | None) -> AbstractAsyncContextManager[Any]:
    """What bounds the calls of a tool or an agent over all runs of this event loop."""
    if calls is None:
        return nullcontext()
    try:
        gates = _gates.get()
    except LookupError:
        gates = WeakKeyDictionary[Any, Gate]()
        _gates.set(gates)
    if owner not in gates:
        gates[owner] = Gate(calls)
    return gates[owner]


def _cancelled(invocation: ToolInvocation) -> ToolOutcome:
    """The answer to a call that was cancelled before it ended."""
    return outcome_of(invocation, "cancelled", "Cancelled before it finished.")


def outcome_of(
    invocation: ToolInvocation,
    status: ToolStatus,
    content: Any,
    error: BaseException | None = None,
    *,
    fatal: bool = False,
) -> ToolOutcome:
    """The outcome of a call, with what the model is told of it."""
    call = invocation.call
    return ToolOutcome(
        at=invocation.at,
        status=status,
        message=ToolMessage(call_id=call.id, name=call.name, content=content),
        error=Failure.of(error) if error is not None else None,
        fatal=fatal,
    )


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a broken __str__ is no reason to end a run
        return "(it cannot say what happened)"


def _unknown(name: str, tools: Mapping[str, Any]) -> str:
    if not tools:
        return f"There is no tool {name!r}; there are no tools at all. Answer without one."
    close = difflib.get_close_matches(name, tools, n=len(tools), cutoff=0.0)
    rest = [known for known in tools if known not in close]
    return f"There is no tool {name!r}. The tools are: {', '.join([*close, *rest])}."
