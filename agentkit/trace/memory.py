"""A recorder for traces in memory: it notes what happens, and writes when somebody reads.

Most traces in memory are never looked at. Effects, outcomes and events are frozen, so
it is enough to keep them with their time; their lines are made from them when the trace
is read, by the recorder that would have made them at once. What is not frozen, the
values of an application, is packed when it is noted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from agentkit.core.effects import (
    Address,
    Compute,
    Effect,
    Failure,
    Outcome,
    SkippedCall,
    ToolOutcome,
    Value,
)
from agentkit.events import Event, ToolProgress
from agentkit.messages import JsonObject, Message, Usage
from agentkit.redaction import Redactor
from agentkit.trace.file import MemorySink
from agentkit.trace.naming import Packed, packed
from agentkit.trace.reader import Trace
from agentkit.trace.recorder import Opened, Recorder

__all__ = ["NotingRecorder"]


class NotingRecorder(Recorder):
    """Notes now and records later.

    Args:
        run: The run's id.
        redact: Takes secrets out of everything that is written.
        record: Makes the recorder that writes the lines, of the sink and of the opening.
    """

    durable = False

    def __init__(
        self, run: str, redact: Redactor, record: Callable[[MemorySink, Opened], Recorder]
    ) -> None:
        self.run = run
        self.redact = redact
        self._record = record
        self._notes: list[tuple[int, Callable[..., None], tuple[Any, ...]]] = []
        self._now = time.monotonic_ns()
        self._opened = Opened(wall=datetime.now(UTC), clock=lambda: self._now)
        self._sink = MemorySink()
        self._later: Recorder | None = None
        # Threads that a run has abandoned note things, too.
        self._reading = threading.Lock()

    @property
    def failure(self) -> None:
        """Nothing can fail here."""
        return None

    def lines(self) -> list[bytes]:
        """Return the lines of what has happened so far."""
        with self._reading:
            if self._later is None:
                self._later = self._record(self._sink, self._opened)
            notes, self._notes = self._notes, []
            for self._now, write, arguments in notes:
                write(self._later, *arguments)
        return self._sink.lines

    def agent_start(
        self,
        at: Address,
        agent: str,
        messages: Sequence[Message],
        earlier: int,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Note that an agent begins."""
        given = deepcopy(dict(options)) if options else None
        self._note(Recorder.agent_start, at, agent, tuple(messages), earlier, given)

    def agent_end(
        self, at: Address, status: str, output: Any, usage: Usage, error: Failure | None
    ) -> None:
        """Note that an agent has ended."""
        output, error = self._snapshot(output), error and _without_frames(error)
        self._note(Recorder.agent_end, at, status, output, usage, error)

    def det(self, at: Address, kind: str, use: int, value: Any) -> None:
        """Note a value that was not deterministic."""
        self._note(Recorder.det, at, kind, use, value)

    def started(self, effect: Effect) -> None:
        """Note that an effect begins."""
        if isinstance(effect, Compute):
            effect = replace(effect, input=self._snapshot(effect.input))
        self._note(Recorder.started, effect)

    def ended(self, effect: Effect, outcome: Outcome | None) -> None:
        """Note that an effect has ended."""
        match outcome:
            case Value(value=value):
                outcome = replace(outcome, value=self._snapshot(value))
            case Failure():
                outcome = _without_frames(outcome)
            case ToolOutcome(error=Failure() as error):
                outcome = replace(outcome, error=_without_frames(error))
            case _:
                pass
        self._note(Recorder.ended, effect, outcome)

    def skipped(self, skipped: SkippedCall) -> None:
        """Record that no tool runs a call."""
        self._note(Recorder.skipped, skipped)

    def event(self, event: Event) -> None:
        """Note an event inside an effect."""
        if isinstance(event, ToolProgress):
            event = replace(event, value=self._snapshot(event.value))
        self._note(Recorder.event, event)

    def log(self, at: Address, level: str, text: Any, data: Mapping[str, Any]) -> None:
        """Note a line of the application's log."""
        kept = {name: self._snapshot(value) for name, value in data.items()}
        self._note(Recorder.log, at, level, self._snapshot(text), kept)

    def copy(self, trace: Trace, events: Sequence[JsonObject]) -> None:
        """Copy what another trace has inside an effect."""
        self._note(Recorder.copy, trace, events)

    def _note(self, write: Callable[..., None], *arguments: Any) -> None:
        self._notes.append((time.monotonic_ns(), write, arguments))

    def _snapshot(self, value: Any) -> Any:
        """Return a value of the application as it is now."""
        kept = value is None or type(value) in (str, int, float, bool)
        return value if kept else Packed(packed(value, self.redact))


def _without_frames(failure: Failure) -> Failure:
    """Return the failure without its exception, which keeps the whole stack alive."""
    parts = tuple(_without_frames(part) for part in failure.parts)
    return replace(failure, exception=None, parts=parts)
