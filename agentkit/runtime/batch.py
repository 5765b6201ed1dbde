"""Runs one batch of tool calls: concurrently, bounded, answered in call order.

Two things happen here and nowhere else. A `Batch` decides when each of its calls
runs; `run_call` decides what one call's exception, timeout or result
becomes. Neither lets a tool's failure out: every call gets its one answer.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, TypeAlias

import anyio

from agentkit.core.effects import (
    Failure,
    Interrupt,
    ToolBatch,
    ToolInvocation,
    ToolOutcome,
    ToolStatus,
)
from agentkit.errors import ToolError, safe_str
from agentkit.events import Emit, Warned
from agentkit.messages import ToolMessage, Usage
from agentkit.redaction import Redactor
from agentkit.runtime.slots import Gate, Inside, Open, merged, shared_gate
from agentkit.tools.context import RunContext, explain
from agentkit.tools.invoke import is_async
from agentkit.tools.signature import INJECTED
from agentkit.tools.tool import Arguments, Tool

__all__ = ["Batch", "bare", "outcome_of", "run_call"]

Perform: TypeAlias = Callable[[ToolInvocation], Awaitable[ToolOutcome | Interrupt]]
_diagnostics = logging.getLogger("agentkit")


class Batch:
    """One batch being run.

    Attributes:
        finished: The outcomes so far by index, in the order of finishing.
    """

    def __init__(
        self,
        batch: ToolBatch,
        perform: Perform,
        *,
        sequential: Collection[str] = (),
        gates: Sequence[Gate] = (),
        among: Open | None = None,
    ) -> None:
        """Prepare a batch.

        Args:
            batch: The calls.
            perform: Performs one call and returns its outcome, whatever happens.
            sequential: Names of tools that run alone: what stands before one in the batch
                has ended when it starts, and what stands after it starts when it has ended.
            gates: What each call has to have a place of while it runs.
            among: Where the insides of the calls are kept while they are open.
        """
        self.calls = batch.calls
        self.finished: dict[int, ToolOutcome] = {}
        self._interrupts: dict[int, Interrupt] = {}
        self._insides: dict[int, Inside] = {}
        self._perform = perform
        self._sequential = sequential
        self._gates = gates
        self._among: Open = {} if among is None else among

    async def run(self) -> None:
        """Run the calls concurrently. What a handler raises comes out as it is."""
        for stage in self._stages():
            if self._interrupts:
                return
            if len(stage) == 1:
                await self._one(*stage[0], await self._admitted(*stage[0]))
                continue
            failed: BaseException | None = None
            try:
                await self._together(stage)
            except BaseExceptionGroup as group:
                failed = bare(group)
            if failed is not None:
                raise failed

    def outcomes(self) -> tuple[ToolOutcome, ...]:
        """Every call's outcome in call order; what has not ended is answered as cancelled."""
        return tuple(
            self.finished.get(index) or self._unfinished(index, invocation)
            for index, invocation in enumerate(self.calls)
        )

    @property
    def interrupt(self) -> Interrupt | None:
        """The end of the whole run, if calls were answered by it."""
        if not self._interrupts:
            return None
        return merged([self._interrupts[index] for index in sorted(self._interrupts)])

    async def _together(self, stage: list[tuple[int, ToolInvocation]]) -> None:
        async with anyio.create_task_group() as group:
            for index, invocation in stage:
                # Admitted here, one after the other: calls begin in call order, whatever the
                # event loop's order of tasks is, so a replay can let them begin so again.
                inside = await self._admitted(index, invocation)
                group.start_soon(self._one, index, invocation, inside, name=invocation.at)

    async def _admitted(self, index: int, invocation: ToolInvocation) -> Inside:
        inside = self._insides[index] = Inside(invocation.at, self._among, self._gates)
        try:
            await inside.take()
        except BaseException:
            inside.give()
            raise
        return inside

    async def _one(self, index: int, invocation: ToolInvocation, inside: Inside) -> None:
        self._among[invocation.at] = inside
        try:
            outcome = await self._perform(invocation)
        finally:
            del self._among[invocation.at]
            inside.give()
        if isinstance(outcome, Interrupt):
            self._interrupts[index] = outcome
        else:
            self.finished[index] = outcome

    def _unfinished(self, index: int, invocation: ToolInvocation) -> ToolOutcome:
        """The answer to a call that has not ended, with what its agents have used."""
        interrupt, inside = self._interrupts.get(index), self._insides.get(index)
        paused = any(one.status == "paused" for one in self._interrupts.values())
        text = "Not finished: the run is paused." if paused else "Cancelled before it finished."
        used = inside.used if inside is not None else Usage()
        if interrupt is not None:
            used = interrupt.usage
        return replace(outcome_of(invocation, "cancelled", text), usage=used)

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


def bare(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a task group raised: the one failure as it is; of several the group."""
    return group.exceptions[0] if len(group.exceptions) == 1 else group


async def run_call(
    invocation: ToolInvocation,
    tools: Mapping[str, Tool[..., Any]],
    context: RunContext[Any],
    inside: Inside,
    *,
    emit: Emit,
    redact: Redactor,
) -> ToolOutcome | Interrupt:
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

    def attempts() -> Awaitable[ToolOutcome]:
        return _attempts(tool, arguments, invocation, context, emit=emit, redact=redact)

    # Without a context a function cannot run agents.
    alone = not _knows_run(arguments)
    gate = shared_gate(tool, tool.concurrency)
    async with nullcontext() if gate is None else inside.through(gate):
        return await (attempts() if alone else inside.hold(attempts))


async def _attempts(
    tool: Tool[..., Any],
    arguments: Arguments,
    invocation: ToolInvocation,
    context: RunContext[Any],
    *,
    emit: Emit,
    redact: Redactor,
) -> ToolOutcome:
    """Try as often as the tool says; developers are told how it failed in the end."""
    while True:
        outcome = await _attempt(tool, arguments, invocation, context, redact)
        failed = outcome.error.exception if outcome.error is not None else None
        # A ToolError is an answer, not an accident: trying again would not change it.
        if isinstance(failed, ToolError) or outcome.status == "ok":
            return outcome
        if context.attempt >= tool.retries:
            if failed is not None:
                _report(invocation, failed, redact, emit)
            return outcome
        text = f"{invocation.call.name} is tried again: {outcome.message.text}"
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
        with nullcontext() if tool.timeout is None else anyio.move_on_after(tool.timeout):
            value = await tool.invoke(arguments, context)
            return outcome_of(invocation, "ok", tool.render(value))
    except ToolError as error:
        return outcome_of(invocation, "error", error.message, error)
    except (Exception, SystemExit) as error:  # argparse, for one, ends programs
        if _knows_run(arguments):
            explain(error, context)
        text = redact(f"{type(error).__name__}: {safe_str(error)}")
        return outcome_of(invocation, "error", text, error, fatal=tool.on_error == "raise")
    text = f"{invocation.call.name} did not finish within {tool.timeout:g} s."
    if not is_async(tool.function):
        text += " It may still be at work, but its result will not be seen."
    return outcome_of(invocation, "timeout", text)


def _knows_run(arguments: Arguments) -> bool:
    return INJECTED in (*arguments.args, *arguments.kwargs.values())


def _report(invocation: ToolInvocation, error: BaseException, redact: Redactor, emit: Emit) -> None:
    """Tell the developer too of an exception that no tool meant for the model.

    The line holds no traceback, which may hold secrets: that is in the trace.
    """
    text = redact(f"{invocation.call.name} raised {type(error).__name__}: {safe_str(error)}")
    notes = getattr(error, "__notes__", [])
    text = " ".join([text, *(redact(str(note)) for note in notes)])
    emit(Warned(at=invocation.at, code="tool_failed", text=text))
    _diagnostics.warning("%s: %s", invocation.at, text)


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


def _unknown(name: str, tools: Mapping[str, Any]) -> str:
    if not tools:
        return f"There is no tool {name!r}; there are no tools at all. Answer without one."
    close = difflib.get_close_matches(name, tools, n=len(tools), cutoff=0.0)
    rest = [known for known in tools if known not in close]
    return f"There is no tool {name!r}. The tools are: {', '.join([*close, *rest])}."
