"""The result of a run, and how an exception carries it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from agentkit.core.effects import PendingCall
from agentkit.core.spec import Finish, RunStatus
from agentkit.errors import RESULT, AgentKitError, ReplayDivergence
from agentkit.messages import Message, Usage
from agentkit.trace.open import Recorded
from agentkit.trace.reader import Trace

OutputT = TypeVar("OutputT")


@dataclass(frozen=True, kw_only=True)
class RunResult(Generic[OutputT]):
    """What a run came to.

    Attributes:
        output: The typed output; None unless `status` is "ok".
        messages: The whole history, ready to be given to the next run as `history`.
        new_messages: What this run added, beginning with the prompt.
        usage: Tokens over all steps.
        status: ok, paused, error, limit or cancelled.
        pending: The calls that a paused run waits for; see `Agent.resume`.
        run: The run's id.
        divergences: Of a replay that goes on all the same: where it differed.
    """

    output: OutputT
    messages: tuple[Message, ...]
    new_messages: tuple[Message, ...]
    usage: Usage
    status: RunStatus
    run: str
    pending: tuple[PendingCall, ...] = ()
    divergences: tuple[ReplayDivergence, ...] = field(default=(), compare=False)
    _recorded: Recorded = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """For copies, and for other processes: the trace goes along as its lines."""
        state = {name: value for name, value in self.__dict__.items() if name != "trace"}
        if callable(self._recorded):
            state["_recorded"] = self._recorded()
        return state

    @property
    def cost(self) -> float | None:
        """USD; None where no price is known."""
        return self.usage.cost

    @cached_property
    def trace(self) -> Trace | None:
        """The run's trace, read when it is first asked for; None with `trace=False`."""
        match self._recorded:
            case None | Trace():
                return self._recorded
            case Path() as path:
                return Trace.load(path)
            case list() as lines:
                return Trace(lines)
            case written:
                return Trace(written())


def conclude(finish: Finish[Any], result: RunResult[OutputT]) -> RunResult[OutputT]:
    """Return the result of a run that ended well.

    Raises:
        AgentKitError: The run ended otherwise; `error.result` is what it had reached.
        Exception: So did the application's own code, and this is what it raised.
    """
    if finish.error is None:
        return result
    error = finish.error.to_error()
    keep_result(error, result)
    if not isinstance(error, AgentKitError):
        note = f"It ended the run {result.run} at {finish.at}; see agentkit.result_of."
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    raise error


def reached(
    finish: Finish[OutputT], *, run: str, prompt: Sequence[Message], trace: Recorded
) -> RunResult[OutputT]:
    """Return the result of a run, however it ended."""
    return RunResult(
        output=cast("OutputT", finish.output),
        messages=finish.messages,
        new_messages=(*prompt, *finish.new),
        usage=finish.usage,
        status=finish.status,
        pending=finish.pending,
        run=run,
        _recorded=trace,
    )


def result_of(error: BaseException) -> RunResult[Any] | None:
    """Return what a run had reached when this exception ended it; None if it ended no run.

    Works for every exception, agentkit's own and the application's.

    Example:
        >>> from agentkit import Agent, result_of
        >>> from agentkit.testing import ScriptedModel
        >>> def check(output: str) -> None:
        ...     raise KeyError("a bug of ours")
        >>> agent = Agent(ScriptedModel(["Hello."]), output_validators=[check])
        >>> try:
        ...     agent.run_sync("Hi")
        ... except KeyError as error:
        ...     print(result_of(error).status, result_of(error).usage.requests)
        error 1
    """
    return error.__dict__.get(RESULT)


def keep_result(error: BaseException, result: RunResult[Any]) -> None:
    """Make `result_of` return this result for the exception."""
    # Past a `__setattr__` or `__slots__` of the application's own.
    error.__dict__[RESULT] = result
