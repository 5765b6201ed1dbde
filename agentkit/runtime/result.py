"""The result of a run, and how an exception carries it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from agentkit.core.effects import Address, PendingCall
from agentkit.core.spec import Finish, RunStatus
from agentkit.errors import RESULT, AgentKitError, NoOutput, ReplayDivergence
from agentkit.events import Warned
from agentkit.messages import Message, Usage
from agentkit.redaction import Redactor
from agentkit.trace.html import LARGE, NOT_READ, run_html
from agentkit.trace.index import RecordedEffects
from agentkit.trace.open import Recorded
from agentkit.trace.reader import Trace
from agentkit.trace.words import counted, used

OutputT = TypeVar("OutputT")
_SHOWN, _READ = 200, 300
"""Characters that `repr` shows of an output, and that it looks for secrets in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """The addresses of what a resume, a replay or a fork performed, and of what it did not.

    In causal order.

    Attributes:
        ran: Effects that were performed for real.
        answered: Effects that were answered from the recording, with all that is inside them.
        held_back: Tool calls that did not run because they may write, or because they were not
            recorded. One that the same recorded call could answer is in `answered`, too; any
            other has ended the run.
    """

    ran: tuple[Address, ...] = ()
    answered: tuple[Address, ...] = ()
    held_back: tuple[Address, ...] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class RunResult(Generic[OutputT]):
    """The result of a run.

    Attributes:
        messages: The whole history, ready to be passed to the next run as `history`.
        new_messages: What this run added, beginning with the prompt.
        usage: Tokens over all steps.
        status: ok, paused, error, limit or cancelled.
        pending: The calls that a paused run waits for; see `Agent.resume`.
        run: The run's id.
        warnings: What was adjusted or failed on the way, sub-agents included: dropped settings,
            repaired arguments, tools that crashed, limits that a sub-agent reached.
        divergences: Of a replay that goes on all the same: where it differed.
        replayed: What was performed and what was answered from a recording; None for an
            ordinary run.
    """

    messages: tuple[Message, ...]
    new_messages: tuple[Message, ...]
    usage: Usage
    status: RunStatus
    run: str
    pending: tuple[PendingCall, ...] = ()
    warnings: tuple[Warned, ...] = field(default=(), compare=False)
    divergences: tuple[ReplayDivergence, ...] = field(default=(), compare=False)
    replayed: Replayed | None = field(default=None, compare=False)
    _output: Any = None
    _recorded: Recorded = field(default=None, compare=False)

    @property
    def output(self) -> OutputT:
        """The typed output.

        Raises:
            NoOutput: The run is paused, or has ended without one.
        """
        if self.status == "ok":
            return self._output
        raise NoOutput(self._without_output(), status=self.status)

    def _without_output(self) -> str:
        if self.status != "paused":
            return (
                f"The run ended with the status {self.status!r} and has no output. "
                "result.messages holds what it had reached."
            )
        calls = ", ".join(f"{one.call.name} at {one.at}" for one in self.pending)
        waiting = "waits for a decision" if len(self.pending) == 1 else "wait for decisions"
        return (
            f"The run is paused: {calls} {waiting}. Decide about result.pending and call "
            "agent.resume(result.trace, decisions=…)."
        )

    def __repr__(self) -> str:
        """Show how it ended, cut short. Not the history: asyncio makes this text for each run."""
        ended = f"output={_short(self._output)}, " if self.status == "ok" else ""
        if self.pending:
            calls = ", ".join(f"{one.call.name} at {one.at}" for one in self.pending)
            ended = f"pending=[{_short(calls, str)}], "
        count = len(self.messages)
        return f"RunResult({self.status}, {ended}messages=<{count}>, run={self.run!r})"

    def _repr_html_(self) -> str:
        """Return the totals and the outline of the run, for a notebook.

        They are read from the trace, which holds no secrets; a large one is not read.
        """
        facts = [used(self.usage)]
        facts += [f"{one.call.name} at {one.at} waits ({one.kind})" for one in self.pending]
        facts += [counted(len(self.warnings), "warning")] if self.warnings else []
        facts += [str(self._recorded)] if isinstance(self._recorded, Path) else []
        if self._recorded is None:
            return run_html(self.run, self.status, [*facts, repr(self)], None)
        if "trace" not in self.__dict__ and _is_large(self._recorded):
            return run_html(self.run, self.status, [*facts, NOT_READ], None)
        return run_html(self.run, self.status, facts, self._effects)

    def _effects(self) -> RecordedEffects:
        trace = self.trace
        assert trace is not None
        return trace.effects

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for copies and other processes: with the lines of the trace."""
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
        return read_trace(self._recorded)


def _short(value: Any, form: Callable[[Any], str] = repr) -> str:
    """Return the beginning of a value's text, without what looks like a secret."""
    try:
        text = form(value[:_READ] if isinstance(value, str) else value)
    except Exception:  # a `__repr__` of the application's own
        return f"<{type(value).__name__}>"
    redact = _redactor()
    if len(text) > _READ:
        text = text[: redact.open_end(text[:_READ])]
    text = redact(text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_redactor = cache(Redactor)


def _is_large(recorded: Recorded) -> bool:
    try:
        return isinstance(recorded, Path) and recorded.stat().st_size > LARGE
    except OSError:  # it is gone, and the outline will say so
        return False


def read_trace(recorded: Recorded) -> Trace | None:
    """Read the trace of a run from where it is kept."""
    match recorded:
        case None | Trace():
            return recorded
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
            with suppress(Exception):  # a `__setattr__` of the application's own
                error.add_note(note)
    raise error


def reached(
    finish: Finish[OutputT],
    *,
    run: str,
    prompt: Sequence[Message],
    trace: Recorded,
    warnings: Sequence[Warned],
) -> RunResult[OutputT]:
    """Return the result of a run, however it ended."""
    return RunResult(
        messages=finish.messages,
        new_messages=(*prompt, *finish.new),
        usage=finish.usage,
        status=finish.status,
        pending=finish.pending,
        run=run,
        warnings=tuple(warnings),
        _output=finish.output,
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
