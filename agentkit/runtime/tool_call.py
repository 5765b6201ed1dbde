"""Runs one tool call to its outcome: parsed, attempted, rendered, and its failures explained.

No failure of a tool leaves this file: whatever happens, the call has its one answer.
"""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Awaitable, Collection
from dataclasses import dataclass, replace
from typing import Any, Self

import anyio

from agentkit._attempts import attempt_outside
from agentkit.core.effects import Failure, Interrupt, ToolInvocation, ToolOutcome, ToolStatus
from agentkit.errors import AgentKitError, ToolError, safe_str
from agentkit.events import Warned
from agentkit.messages import ToolCall, ToolMessage
from agentkit.redaction import Redactor
from agentkit.runtime.slots import CallFrame, shared_slots
from agentkit.tools.context import RunContext, explain
from agentkit.tools.tool import AnyTool, Arguments

_diagnostics = logging.getLogger("agentkit")
RETRIED = "tool_retried"
"""The code of the warning that a call is tried again, here or by an engine around the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadCall:
    """A call's arguments, read and checked once for all that decide about it or run it.

    Attributes:
        name: The tool.
        text: The arguments as JSON text; the model's own text where that has the same value.
        arguments: As the function gets them; None if they do not fit.
        error: Why they do not fit, or what a validator of the application's raised.
    """

    name: str
    text: str
    arguments: Arguments | None = None
    error: BaseException | None = None

    @classmethod
    def of(cls, tool: AnyTool, text: str, *, shown: bool = True) -> Self:
        """Read the text. Raises nothing of what the types of the parameters do.

        Args:
            tool: The tool.
            text: What the model sent.
            shown: Whether anything but the tool gets to see the arguments.
        """
        try:
            arguments = tool.parse(text)
            values = arguments.to_json() if shown else arguments.sent
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return cls(name=tool.name, text=text, error=error)
        same = values == arguments.sent
        text = text if same else json.dumps(values, ensure_ascii=False)
        return cls(name=tool.name, text=text, arguments=arguments)

    @classmethod
    def again(cls, tool: AnyTool, text: str, sent: str) -> Self:
        """Read arguments about which was decided as `text`, maybe in another process."""
        read = cls.of(tool, text)
        if read.text != text or (read.error is not None and sent != text):
            # A default that is made anew stands in the text; what a validator changes does not.
            read = cls.of(tool, sent)
            if read.error is not None or read.text != text:
                problem = "it reads the arguments in another way than those that were decided about"
                error = ToolError(f"The tool was not run: {problem}.")
                return cls(name=tool.name, text=text, error=error)
        return read

    def is_of(self, call: ToolCall) -> bool:
        """Tell whether it is this call that was read."""
        return (self.name, self.text) == (call.name, call.arguments)


async def run_call(
    invocation: ToolInvocation,
    tool: AnyTool,
    read: ReadCall,
    context: RunContext[Any],
    frame: CallFrame,
    redact: Redactor,
) -> ToolOutcome | Interrupt:
    """Run one tool call to its outcome. Raises nothing but cancellation."""
    arguments = read.arguments
    if arguments is None:
        return unread(invocation, tool, read, context, redact)
    if repairs := (*invocation.repairs, *arguments.repairs):
        text = "; ".join(repairs)
        context.emit(Warned(at=invocation.at, code="repaired_arguments", text=text))

    def attempts() -> Awaitable[ToolOutcome]:
        return _attempts(tool, arguments, invocation, context, redact)

    slots = shared_slots(tool, tool.concurrency)
    if slots is None:
        # Without a context a function cannot run agents.
        return await (frame.run(attempts) if tool.takes_context else attempts())
    async with frame.holding(slots):
        return await (frame.run(attempts) if tool.takes_context else attempts())


async def _attempts(
    tool: AnyTool,
    arguments: Arguments,
    invocation: ToolInvocation,
    context: RunContext[Any],
    redact: Redactor,
) -> ToolOutcome:
    """Try as often as `retries` says; report to developers how it failed in the end."""
    outside = attempt_outside.get()
    if outside is not None:
        context = replace(context, attempt=outside)
    while True:
        outcome = await _attempt(tool, arguments, invocation, context, redact)
        failed = outcome.error.exception if outcome.error is not None else None
        # A ToolError is an answer, not an accident: trying again would not change it.
        if isinstance(failed, ToolError) or outcome.status == "ok":
            return outcome
        if context.attempt >= tool.retries:
            if failed is not None:
                _report(invocation, tool, failed, context, redact)
            else:
                text = outcome.message.text
                context.emit(Warned(at=invocation.at, code="tool_timeout", text=text))
            return outcome
        text = f"{tool.name} is tried again: {outcome.message.text}"
        context.emit(Warned(at=invocation.at, code=RETRIED, text=text))
        if outside is not None:
            return outcome
        context = replace(context, attempt=context.attempt + 1)


async def _attempt(
    tool: AnyTool,
    arguments: Arguments,
    invocation: ToolInvocation,
    context: RunContext[Any],
    redact: Redactor,
) -> ToolOutcome:
    try:
        if tool.timeout is None:
            value = await tool.invoke(arguments, context)
            return outcome_of(invocation, "ok", tool.render(value))
        with anyio.move_on_after(tool.timeout):
            value = await tool.invoke(arguments, context)
            return outcome_of(invocation, "ok", tool.render(value))
    except ToolError as error:
        return outcome_of(invocation, "error", error.message, error)
    except (Exception, SystemExit) as error:  # argparse, for one, ends programs
        if tool.takes_context:
            explain(error, context)
        return _failed(invocation, tool, error, redact)
    text = f"{tool.name} did not finish within {tool.timeout:g} s."
    if not tool.is_async:
        text += " It may still be at work, but its result will not be seen."
    return outcome_of(invocation, "timeout", text)


def unread(
    invocation: ToolInvocation,
    tool: AnyTool,
    read: ReadCall,
    context: RunContext[Any],
    redact: Redactor,
) -> ToolOutcome:
    """Build the answer to a call whose arguments do not fit."""
    error = read.error
    assert error is not None
    if isinstance(error, ToolError):
        return outcome_of(invocation, "error", error.message, error)
    _report(invocation, tool, error, context, redact)
    return _failed(invocation, tool, error, redact)


def _failed(
    invocation: ToolInvocation, tool: AnyTool, error: BaseException, redact: Redactor
) -> ToolOutcome:
    text = redact.known(f"{type(error).__name__}: {safe_str(error)}")
    return outcome_of(invocation, "error", text, error, fatal=tool.on_error == "raise")


def _report(
    invocation: ToolInvocation,
    tool: AnyTool,
    error: BaseException,
    context: RunContext[Any],
    redact: Redactor,
) -> None:
    """Report to developers an exception that its tool did not mean for the model."""
    text = redact(f"{invocation.call.name} raised {type(error).__name__}: {safe_str(error)}")
    notes = getattr(error, "__notes__", [])
    text = " ".join([text, *(redact(str(note)) for note in notes)])
    context.emit(Warned(at=invocation.at, code="tool_failed", text=text))
    if tool.on_error == "raise" or not _diagnostics.isEnabledFor(logging.WARNING):
        return  # the caller gets the exception
    file, line, _, _ = _diagnostics.findCaller()
    raised = (type(error), error, error.__traceback__)
    record = _diagnostics.makeRecord(
        *(_diagnostics.name, logging.WARNING, file, line, "%s: %s", (invocation.at, text)),
        # How a sub-agent ended is no bug of the tool that ran it.
        exc_info=None if isinstance(error, AgentKitError) else raised,
    )
    if record.exc_info is not None:
        record.exc_text = redact(
            (Failure.of(error).traceback or "").rstrip()
        )  # instead of one with secrets
    _diagnostics.handle(record)


def outcome_of(
    invocation: ToolInvocation,
    status: ToolStatus,
    content: Any,
    error: BaseException | None = None,
    *,
    fatal: bool = False,
) -> ToolOutcome:
    """Build the outcome of a call, with what the model reads."""
    call = invocation.call
    return ToolOutcome(
        at=invocation.at,
        status=status,
        message=ToolMessage(call_id=call.id, name=call.name, content=content),
        error=Failure.of(error) if error is not None else None,
        fatal=fatal,
    )


def unknown_tool(invocation: ToolInvocation, names: Collection[str]) -> ToolOutcome:
    """Build the answer to a call of a tool that does not exist: those that do, closest first."""
    name = invocation.call.name
    close = difflib.get_close_matches(name, names, n=max(len(names), 1), cutoff=0.0)
    known = ", ".join([*close, *(one for one in names if one not in close)])
    advice = f"The tools are: {known}." if known else "Answer without one: there are no tools."
    return outcome_of(invocation, "error", f"There is no tool {name!r}. {advice}")
