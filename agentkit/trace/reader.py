"""Reads a trace, from a file or from the lines that a run kept in memory.

It is gone through once when it is opened, and then read where it is looked at.

The last line may be torn: that is what a crash leaves. A bad line before it is
corruption, and the error says where. Events of an unknown kind are kept.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from agentkit.core.effects import PendingCall
from agentkit.errors import TraceCorrupt, TraceError, TraceUnsupported
from agentkit.messages import JsonObject, Message, is_object, message_from_json
from agentkit.trace.index import RecordedEffects
from agentkit.trace.lines import Blobs, Events, FileLines, Lines, Source, parsed
from agentkit.trace.naming import unpacked
from agentkit.trace.schema import Capture
from agentkit.trace.upgrades import NEWEST, UPGRADES

_SCHEMA = "agentkit.trace/"
_KEPT = 1 << 22
"""Bytes of a file whose lines are kept in memory. Larger ones stay open."""
_HEADER = 1 << 16
"""More bytes than any first line has, so that no other file is read to its end."""


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
        self.path = path
        self._source = Source(lines, _version(lines[0] if lines else b"", path), path)
        total = len(lines)
        self.torn = not lines[total - 1].endswith(b"\n")
        self.lines = 0
        self._effects: RecordedEffects | None = None
        self.events = Events(self._source, array("Q"))
        self.blobs = Blobs(self._source, {})
        for number in range(total):
            try:
                event = self._source.event(number)
            except TraceCorrupt:
                if self.torn and number == total - 1:
                    break
                raise
            self.lines += 1
            if event["event"] == "blob":
                self.blobs.numbers[event["h"]] = number
            else:
                self.events.numbers.append(number)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Read a trace file.

        Raises:
            TraceError: The file cannot be read.
            TraceCorrupt: A line before the last is not an event.
            TraceUnsupported: It is not a trace, or of a newer schema.
        """
        path = Path(path)
        try:
            return cls(_lines_of(path), path)
        except OSError as error:
            raise TraceError(
                f"The trace {str(path)!r} cannot be read: {error.strerror}.", path=str(path)
            ) from error

    @property
    def effects(self) -> RecordedEffects:
        """The effects of the run and of its agents, by address, in order of beginning.

        They are found in one pass over the events, when they are first asked for.
        """
        if self._effects is None:
            self._effects = RecordedEffects(self)
        return self._effects

    @property
    def capture(self) -> Capture:
        """How much of the run was recorded."""
        return self.header.get("capture", "full")

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
        return self.header.get("redaction", {}).get("key_id")

    @property
    def patch(self) -> JsonObject:
        """What was changed in the run that this one is a fork of; empty if nothing was."""
        fork = self.header.get("fork")
        patch = fork.get("patch") if is_object(fork) else None
        return patch if is_object(patch) else {}

    @property
    def t(self) -> int:
        """When the last line was written, in microseconds since the trace was opened."""
        return self._source.event(self.lines - 1)["t"]

    @property
    def run(self) -> str:
        """The run's id, 32 hex digits."""
        return self.header["run"]

    @property
    def status(self) -> str:
        """How the run ended; `interrupted` when the trace has no end."""
        last = self.events[-1]
        return last["status"] if last["event"] == "trace.close" else "interrupted"

    def blob(self, name: str) -> Any:
        """The data of a blob.

        Raises:
            TraceCorrupt: The trace refers to a blob that it does not hold.
        """
        try:
            return self.blobs[name]
        except KeyError:
            capture = self.header.get("capture", "full")
            why = "." if capture == "full" else f": it was recorded with capture={capture!r}."
            raise self._source.corrupt(
                f"The trace{self._source.where} refers to the blob {name!r}, which it does not "
                f"hold{why}"
            ) from None

    def damaged(self, event: JsonObject, problem: str) -> TraceCorrupt:
        """Return the error that names an event and what is wrong with it."""
        return self._source.corrupt(
            f"Event {event.get('seq')} of the trace of {self.header.get('run')} "
            f"({event['event']}) {problem}."
        )

    def messages(self, names: Sequence[str]) -> tuple[Message, ...]:
        """The messages of these names."""
        return tuple(message_from_json(unpacked(self.blob(name))) for name in names)

    def input(self) -> tuple[tuple[Message, ...], int]:
        """The messages that the outermost agent began with, and how many of them were history."""
        if not self.agent_start:
            raise TraceError(
                f"The trace{self._source.where} ends before its agent has started.",
                path=self.path and str(self.path),
            )
        data = self.blob(self.agent_start.get("input", ""))
        return self.messages(data["messages"]), data["earlier"]

    def asked(self) -> JsonObject:
        """What the run was given instead of its agent's: settings and limits."""
        return unpacked(self.agent_start.get("asked", {}))

    @property
    def pending(self) -> tuple[PendingCall, ...]:
        """The calls about which somebody has to decide before the run can go on.

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
                file.writelines(map(self._whole, range(self.lines)))
        except OSError as error:
            raise TraceError(
                f"The trace cannot be saved as {str(target)!r}: {error.strerror}.",
                path=str(target),
            ) from error
        return target

    def __repr__(self) -> str:
        """Short: the run, its state and where it is."""
        return f"<Trace {self.run[:12]} {self.status}{self._source.where}>"

    @property
    def kept(self) -> list[bytes] | None:
        """The lines of a trace in memory."""
        return None if self.path is not None else [*self.raw()]

    def raw(self) -> Iterator[bytes]:
        """The lines as they were written, but for a torn last one."""
        return (self._source.lines[number] for number in range(self.lines))

    def _whole(self, number: int) -> bytes:
        """A line as it is, or with the blob that lies beside the file."""
        line = self._source.lines[number]
        if self.path is None or b'"file":"' not in line:
            return line
        event = parsed(line)
        if event["event"] != "blob" or "data" in event:
            return line
        del event["file"]
        return to_json(event | {"data": self.blobs[event["h"]]}) + b"\n"


def _lines_of(path: Path) -> Lines:
    with path.open("rb") as file:
        first = file.readline(_HEADER)
        _version(first, path)  # before the rest is read, which may be of any size
        if os.fstat(file.fileno()).st_size <= _KEPT:
            return [first, *file.readlines()]
    return FileLines(path.open("rb"))


def _version(first: bytes, path: Path | None) -> int:
    """The version of the schema, as the first line names it."""
    where = f" {str(path)!r}" if path is not None else ""
    text = path and str(path)
    try:
        header = parsed(first)
    except ValueError:
        header = {"event": ""}
    schema = header.get("schema")
    if header["event"] != "trace.open" or not isinstance(schema, str):
        raise TraceUnsupported(
            f"There is no trace{where or ' here'}: it does not begin with a trace.open event.",
            path=text,
        )
    number = schema.removeprefix(_SCHEMA)
    if schema.startswith(_SCHEMA) and number.isdecimal() and number.isascii():
        version = int(number)
        if version == NEWEST or version in UPGRADES:
            return version
    raise TraceUnsupported(
        f"The trace{where} has the schema {schema!r}; this version of agentkit reads "
        f"{_SCHEMA}{min(UPGRADES, default=NEWEST)} to {_SCHEMA}{NEWEST}. Upgrade agentkit to "
        "read it.",
        path=text,
        schema=schema,
    )
