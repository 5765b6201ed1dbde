"""What the agents of one run share: its trace, its listener, its limits, what they have used."""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections.abc import Callable, Container, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

from agentkit._checks import Check
from agentkit.core.effects import Address, Handler, LoopEffect, PendingCall, ToolInvocation
from agentkit.errors import ConfigurationError
from agentkit.events import Emit, Event, Warned, ignore
from agentkit.messages import NO_USAGE, Message, Usage
from agentkit.redaction import Redactor
from agentkit.runtime.assemble import Program
from agentkit.runtime.result import RunResult
from agentkit.runtime.slots import Frames, Slots, slots_of
from agentkit.settings import Limits
from agentkit.tools.invoke import is_async
from agentkit.trace.open import Recorded
from agentkit.trace.recorder import Recorder

OutputT = TypeVar("OutputT")
_diagnostics = logging.getLogger("agentkit")
Approver: TypeAlias = Callable[[PendingCall], Any]
"""Decides about a call: a `Decision`, or True or False; sync or async. None: not now."""
MakeHandler: TypeAlias = Callable[["Scope", Program[Any]], Handler]
"""Puts together what performs the effects of an agent of a run."""


LISTENER = Check(
    "a function of an event, not async: events are not awaited",
    lambda value: value is None or value is ignore or (callable(value) and not is_async(value)),
)


class Answers(Protocol):
    """What is known already of a run that is resumed or replayed."""

    def det(self, at: Address, kind: str, use: int) -> Any:
        """Return the value that was recorded there, or None."""
        ...

    def listed(self, agent: Address) -> Mapping[str, Any]:
        """Return the definitions of an agent's toolsets as they were listed last, by name."""
        ...

    def waits(self, call: ToolInvocation) -> PendingCall | None:
        """Return this call as it waited for a decision when it was recorded, and has to here."""
        ...

    def performs(self, effect: LoopEffect, tools: Container[str]) -> bool:
        """Tell whether something is to be performed that may need more than these tools."""
        ...

    def compared(self, result: RunResult[OutputT]) -> RunResult[OutputT]:
        """Return the result with what is known of it by comparison."""
        ...


class Meter:
    """What all agents of a run together have used, and what is under way.

    Attributes:
        under_way: Model calls that have not been answered yet.
    """

    __slots__ = ("_bytes", "_calls", "_used", "under_way")

    def __init__(self, used: Usage = NO_USAGE) -> None:
        self.under_way = 0
        self._used = used
        self._calls = self._bytes = 0

    @property
    def used(self) -> Usage:
        """What was used so far."""
        if self._calls or self._bytes:
            self._used += Usage(tool_calls=self._calls, tool_bytes=self._bytes)
            self._calls = self._bytes = 0
        return self._used

    def add(self, usage: Usage) -> None:
        """Count what an answer of a model has used."""
        self._used += usage

    def add_calls(self, number: int) -> None:
        """Count tool calls that begin."""
        self._calls += number

    def add_bytes(self, number: int) -> None:
        """Count what models read of a call's result."""
        self._bytes += number


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """What the agents of one run share, sub-agents included.

    Attributes:
        run: The run's id.
        handler: Makes what performs the effects of each of its agents.
        limits: The outermost agent's, which bound all of them together.
        deps: Given to tools.
        listener: Gets the events.
        recorder: Writes the trace, if there is one.
        trace: Where the trace is found afterwards.
        redact: Takes secrets out of what models read of exceptions.
        stream: Models are to send their answers piece by piece.
        approver: Decides about calls that need it; without one the run pauses.
        asked: What the run was given instead of the agent's, for the trace.
        recorded: What is known already of a run that is resumed or replayed.
        resumed: The recorder's trace holds the beginning of the run already.
        messages: The conversation before the effects that are performed, for tools.
        bounded: Its tool calls wait for slots; not so where a recording gives their order.
        meter: What all its agents together have used so far.
        warnings: What was changed or failed on the way, for the result.
        frames: Those of its effects that are running.
        slots: Of its tool calls, as `Limits.parallel` bounds them.
    """

    run: str
    handler: MakeHandler
    limits: Limits
    deps: object = None
    listener: Emit = ignore
    recorder: Recorder | None = None
    trace: Recorded = None
    redact: Redactor = field(default_factory=Redactor)
    stream: bool = False
    approver: Approver | None = None
    asked: Mapping[str, Any] = field(default_factory=dict[str, Any])
    recorded: Answers | None = None
    resumed: bool = False
    messages: tuple[Message, ...] = ()
    bounded: bool = True
    meter: Meter = field(default_factory=Meter)
    warnings: list[Warned] = field(default_factory=list[Warned])
    frames: Frames = field(default_factory=Frames)
    slots: Slots | None = field(init=False)

    def __post_init__(self) -> None:
        """Make the slots of the whole run."""
        object.__setattr__(self, "slots", slots_of(self.limits))
        for follow in _followers:
            follow(self)

    def emit(self, event: Event) -> None:
        """Record an event that happens inside an effect, and give it to the listener."""
        if isinstance(event, Warned):
            self.warnings.append(event)
        if self.recorder is not None:
            self.recorder.event(event)
        self.listener(event)

    def note(self, warned: Warned) -> None:
        """Give a warning about an agent itself to the listener; it is recorded once."""
        self.warnings.append(warned)
        if self.recorder is not None:
            self.recorder.note(warned)
        self.listener(warned)


_followers: list[Callable[[Scope], None]] = []


@contextmanager
def followed_by(follow: Callable[[Scope], None]) -> Generator[None, None, None]:
    """Have `follow` called with every run of this process that begins or goes on."""
    _followers.append(follow)
    try:
        yield
    finally:
        _followers.remove(follow)


def guarded(listener: Emit | None) -> Emit:
    """Wrap a listener: its first exception is logged, then it is no longer called.

    Raises:
        ConfigurationError: It is async: nobody awaits an event.
    """
    if listener is None or listener is ignore:
        return ignore
    if not LISTENER.fits(listener):
        raise ConfigurationError(f"on_event={listener!r}: expected {LISTENER.expected}.")
    broken = False

    def emit(event: Event) -> None:
        nonlocal broken
        if broken:
            return
        try:
            returned: Any = listener(event)
            if returned is not None and inspect.iscoroutine(returned):
                returned.close()  # or Python would warn that nobody awaits it
                raise TypeError("on_event returned a coroutine, and events are not awaited.")
        except KeyboardInterrupt:
            raise
        except BaseException:  # it awaits nothing, so no cancellation is meant for it
            broken = True
            _diagnostics.exception("on_event failed; it gets no more events of this run")

    return emit


def new_run_id() -> str:
    """Make a UUID of version 7 (RFC 9562) as 32 hex digits: ids sort by time."""
    milliseconds = time.time_ns() // 1_000_000
    number = milliseconds << 80 | int.from_bytes(os.urandom(10))
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return f"{number:032x}"
