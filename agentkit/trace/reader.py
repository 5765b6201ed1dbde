"""Reads a trace, from a file or from the lines that a run kept in memory.

The last line may be torn: that is what a crash leaves. A bad line before it is
corruption, and the error says where. Events of an unknown kind are kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agentkit.core.effects import PendingCall
from agentkit.errors import TraceCorrupt, TraceError
from agentkit.messages import JsonObject, Message, is_array, is_object
from agentkit.trace.html import LARGE, trace_html
from agentkit.trace.index import RecordedEffects
from agentkit.trace.schema import Capture
from agentkit.trace.source import Lines, Source, lines_of

_INPUT = ("messages", "earlier")


class Trace:
    """One run, as it was recorded, and as far as it was when this was made.

    Attributes:
        path: The file, or None for a trace in memory.
        events: All events but blobs, in order of `seq`.
        blobs: Messages and other data by hash.
        lines: How many lines were read.
        torn: The last line has no end, as a crash leaves it.

    Example:
        >>> trace = Trace.load("run.jsonl")            # doctest: +SKIP
        >>> [event["at"] for event in trace.events if event["event"] == "tool.start"]
    """

    def __init__(self, lines: Lines, path: Path | None = None) -> None:
        source = self._source = Source(lines, path)
        self.path = path
        self.events, self.blobs = source.events, source.blobs
        self.lines, self.torn = source.count, source.torn
        self._effects: RecordedEffects | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Read a trace file.

        Raises:
            TraceError: The file cannot be read.
            TraceCorrupt: A line before the last is not an event.
            TraceUnsupported: It is not a trace, or one of another schema.
        """
        path = Path(path)
        try:
            return cls(lines_of(path), path)
        except (OSError, ValueError) as error:  # no path has a NUL in it
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise TraceError(
                f"The trace {str(path)!r} cannot be read: {why}.", path=str(path)
            ) from error

    @property
    def effects(self) -> RecordedEffects:
        """The effects of the run and of its agents, by address, in order of beginning.

        They are found in one pass over the events, when they are first asked for.
        """
        if self._effects is None:
            self._effects = RecordedEffects(self._source)
        return self._effects

    @property
    def capture(self) -> Capture:
        """How much of the run was recorded."""
        return self._source.capture

    @property
    def header(self) -> JsonObject:
        """The `trace.open` event."""
        return self.events[0]

    @property
    def agent_start(self) -> JsonObject:
        """The `agent.start` event of the outermost agent; empty if the trace ends before it."""
        starts = (event for event in self.events if event["event"] == "agent.start")
        return next(starts, None) or {}

    @property
    def key_id(self) -> str | None:
        """The name of the key under which placeholders stand for secrets."""
        redaction: JsonObject = self._source.read(self.header, "redaction") or {}
        return redaction.get("key_id")

    @property
    def patch(self) -> JsonObject:
        """What was changed in the run that this one is a fork of; empty if nothing was."""
        fork: JsonObject = self._source.read(self.header, "fork") or {}
        patch = fork.get("patch")
        return patch if is_object(patch) else {}

    @property
    def t(self) -> int:
        """When the last line was written, in microseconds since the trace was opened."""
        return self._source.event(self.lines - 1).get("t", 0)

    @property
    def run(self) -> str:
        """The run's id, 32 hex digits."""
        header = self.header
        if "run" not in header:
            raise self.damaged(header, "has no 'run'")
        return self._source.read(header, "run")

    @property
    def status(self) -> str:
        """How the run ended; `interrupted` when the trace has no end."""
        last = self.events[-1]
        ended = last["event"] == "trace.close"
        return self._source.read(last, "status") if ended else "interrupted"

    def blob(self, name: str) -> Any:
        """Return the content of a blob.

        Raises:
            TraceCorrupt: The trace does not hold it, or it is not what its name says.
        """
        return self._source.blob(name)

    def check(self, event: JsonObject) -> None:
        """Check all that an event holds, and the blob with the input of an agent.

        Raises:
            TraceCorrupt: It lacks a field, or has one of another form.
        """
        self._source.check(event)
        if event["event"] == "agent.start" and event.get("input") in self.blobs:
            self._input(event)  # one that is missing is refused where it is needed

    def damaged(self, event: JsonObject, problem: str) -> TraceCorrupt:
        """Return the error that names an event and what is wrong with it."""
        return self._source.damaged(event, problem)

    def messages(self, names: Sequence[str]) -> tuple[Message, ...]:
        """Return the messages of these names."""
        return self._source.messages(names)

    def input(self) -> tuple[tuple[Message, ...], int]:
        """Return the messages that the run began with, and how many of them were history."""
        start = self.agent_start
        if not start:
            where = f" {str(self.path)!r}" if self.path is not None else ""
            raise TraceError(
                f"The trace{where} ends before its agent has started.",
                path=self.path and str(self.path),
            )
        self._source.check(start)
        names, earlier = self._input(start)
        return self.messages(names), earlier

    def _input(self, start: JsonObject) -> tuple[Sequence[str], int]:
        data = self.blob(start["input"])
        names, earlier = (data.get(one) if is_object(data) else None for one in _INPUT)
        if not is_array(names) or not all(isinstance(one, str) for one in names):
            raise self.damaged(start, "has no 'input.messages'")
        if type(earlier) is not int or not 0 <= earlier <= len(names):
            raise self.damaged(start, "has no 'input.earlier'")
        return names, earlier

    def options(self) -> JsonObject:
        """Return the settings and limits that were given for this run alone, the last ones."""
        start = self.agent_start
        options: JsonObject = (self._source.read(start, "options") or {}) if start else {}
        for event in self.events:
            if event["event"] == "trace.resume":
                options |= self._source.read(event, "options") or {}
        return options

    @property
    def pending(self) -> tuple[PendingCall, ...]:
        """The calls that need a decision before the run can go on.

        Those that `RunResult.pending` names when a run pauses; and of a run that was
        interrupted also the writing tools that were in flight. See `Agent.resume`.
        """
        return self.effects.pending()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the trace to a new file of its own, readable by its owner only.

        Raises:
            TraceError: The file exists or cannot be written.
        """
        target = Path(path)
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(self.raw())
        except OSError as error:
            raise TraceError(
                f"The trace cannot be saved as {str(target)!r}: {error.strerror}.",
                path=str(target),
            ) from error
        return target

    def __repr__(self) -> str:
        """Name the run, its status and its file."""
        where = f" {str(self.path)!r}" if self.path is not None else ""
        try:
            return f"<Trace {self.run[:12]} {self.status}{where}>"
        except Exception:  # damaged lines
            return f"<Trace damaged{where}>"

    def _repr_html_(self) -> str:
        """Return the totals and the outline of the run, for a notebook.

        A large trace is not read for that, unless its effects were found already.
        """
        known = self._effects is not None or self._source.size <= LARGE
        return trace_html(self._source, (lambda: self.effects) if known else None)

    @property
    def kept(self) -> list[bytes] | None:
        """The lines of a trace in memory."""
        return None if self.path is not None else [*self.raw()]

    def raw(self) -> Iterator[bytes]:
        """Yield the lines as they were written, each with its end, without a torn last one."""
        for number in range(self.lines):
            line = self._source.lines[number]
            yield line if line.endswith(b"\n") else line + b"\n"

    @property
    def excess(self) -> int:
        """How many bytes of a torn line follow the last whole one."""
        lines = self._source.lines
        return len(lines[self.lines]) if len(lines) > self.lines else 0
