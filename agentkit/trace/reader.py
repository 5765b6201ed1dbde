"""Reads a trace, from a file or from the lines that a run kept in memory.

All lines are parsed once when it is opened. A trace may be larger than memory: of a large
one the positions of its lines are kept, of a small one the lines as they came.

The last line may be torn: that is what a crash leaves. A bad line before it is
corruption, and the error says where. Events of an unknown kind are kept.
"""

from __future__ import annotations

import json
import operator
import os
import threading
import weakref
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast, overload

from pydantic_core import from_json

from agentkit.core.effects import PendingCall
from agentkit.errors import InvalidHistory, TraceCorrupt, TraceError, TraceUnsupported
from agentkit.messages import JsonObject, Message, is_object, message_from_json
from agentkit.trace.index import RecordedEffects
from agentkit.trace.naming import unpacked
from agentkit.trace.schema import ADDRESSED, BLOBS, ENDS, SCHEMA, Capture

_KEPT = 1 << 22
"""Bytes of a file whose lines are kept in memory. Larger ones stay open."""
_HEADER = 1 << 16
"""More bytes than any first line has, so that no other file is read to its end."""
_RECENT, _SMALL = 1024, 4096
"""Blobs of at most so many bytes that are kept once they were read."""


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
        _check_schema(lines[0] if lines else b"", path)
        self._source = Source(lines, path)
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
            TraceUnsupported: It is not a trace, or one of another schema.
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
        """Return the content of a blob.

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
        """Return the messages of these names.

        Raises:
            TraceCorrupt: One is not there, or is no message.
        """
        return tuple(map(self._message, names))

    def _message(self, name: str) -> Message:
        try:
            return message_from_json(unpacked(self.blob(name)))
        except (InvalidHistory, AttributeError, LookupError, TypeError, ValueError) as error:
            raise self._source.corrupt(
                f"The blob {name!r} of the trace{self._source.where} is no message: {error}"
            ) from error

    def input(self) -> tuple[tuple[Message, ...], int]:
        """Return the messages that the run began with, and how many of them were history."""
        if not self.agent_start:
            raise TraceError(
                f"The trace{self._source.where} ends before its agent has started.",
                path=self.path and str(self.path),
            )
        data = self.blob(self.agent_start.get("input", ""))
        return self.messages(data["messages"]), data["earlier"]

    def options(self) -> JsonObject:
        """Return the settings and limits that were given for this run alone, the last ones."""
        resumed = (event for event in self.events if event["event"] == "trace.resume")
        options: JsonObject = dict(self.agent_start.get("options", {}))
        for event in resumed:
            options |= event.get("options", {})
        return unpacked(options)

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
        return f"<Trace {self.run[:12]} {self.status}{self._source.where}>"

    @property
    def kept(self) -> list[bytes] | None:
        """The lines of a trace in memory."""
        return None if self.path is not None else [*self.raw()]

    def raw(self) -> Iterator[bytes]:
        """Yield the lines as they were written, without a torn last one."""
        return (self._source.lines[number] for number in range(self.lines))


def _lines_of(path: Path) -> Lines:
    with path.open("rb") as file:
        first = file.readline(_HEADER)
        _check_schema(first, path)  # before the rest is read, which may be of any size
        if os.fstat(file.fileno()).st_size <= _KEPT:
            return [first, *file.readlines()]
    return FileLines(path.open("rb"))


def _check_schema(first: bytes, path: Path | None) -> None:
    """Check that the first line of a file opens a trace of this schema.

    Raises:
        TraceUnsupported: It does not.
    """
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
    if schema != SCHEMA:
        raise TraceUnsupported(
            f"The trace{where} has the schema {schema!r}, and this version of agentkit reads "
            f"{SCHEMA!r} only. Upgrade agentkit, or use the version that wrote the trace.",
            path=text,
            schema=schema,
        )


class FileLines:
    """The lines that a file has now. What is appended later is not seen.

    The file stays open, so that it may be replaced meanwhile; it is closed with this object.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()  # to seek and to read are two steps
        weakref.finalize(self, file.close)
        file.seek(0)
        self._starts, end = array("Q", [0]), 0
        for line in file:
            end += len(line)
            self._starts.append(end)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> bytes:
        start, end = self._starts[number], self._starts[number + 1]
        with self._lock:
            self._file.seek(start)
            return self._file.read(end - start)


Lines: TypeAlias = Sequence[bytes] | FileLines


def parsed(line: bytes) -> JsonObject:
    """Return the event of a line.

    Raises:
        ValueError: It is not an event, and why.
    """
    event = _json(line)
    if not is_object(event) or not isinstance(name := event.get("event"), str):
        raise ValueError("it is not an event")
    if not isinstance(event.get("t", 0), int):
        raise ValueError("its t is not a number of microseconds")
    if name == "blob" and not (isinstance(event.get("h"), str) and "data" in event):
        raise ValueError("it is a blob without h or data")
    if name in ADDRESSED and not isinstance(event.get("at"), str):
        raise ValueError(f"it is a {name} without an address")
    if name in ENDS and not isinstance(event.get("status"), str):
        raise ValueError(f"it is a {name} without a status")
    return event


def _json(data: bytes) -> Any:
    try:
        return from_json(data, cache_strings="keys")
    except ValueError as error:
        if "recursion" not in str(error):
            raise
    try:
        return json.loads(data)  # the quick parser stops at 200 levels, and the writer later
    except RecursionError:
        raise ValueError("it is nested too deep") from None


@dataclass(frozen=True, slots=True)
class Source:
    """Lines, and the file that they are in."""

    lines: Lines
    path: Path | None

    def event(self, number: int) -> JsonObject:
        """Return the event of a line, by its number from 0.

        Raises:
            TraceCorrupt: The line is not an event.
        """
        line = self.lines[number]
        try:
            return parsed(line)
        except ValueError as error:
            message = f"Line {number + 1} of the trace{self.where} is damaged: {error}."
            raise self.corrupt(message, number + 1) from error

    def corrupt(self, message: str, line: int | None = None) -> TraceCorrupt:
        """Return the error that names this file."""
        return TraceCorrupt(message, path=self.path and str(self.path), line=line)

    @property
    def where(self) -> str:
        """The path, as it follows a noun in a message."""
        return f" {str(self.path)!r}" if self.path is not None else ""


class Events(Sequence[JsonObject]):
    """The events of a trace but its blobs, each read when it is asked for."""

    def __init__(self, source: Source, numbers: array[int]) -> None:
        self._source = source
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> JsonObject: ...
    @overload
    def __getitem__(self, index: slice) -> list[JsonObject]: ...
    def __getitem__(self, index: int | slice) -> JsonObject | list[JsonObject]:
        if isinstance(index, slice):
            return [self._source.event(number) for number in self.numbers[index]]
        return self._source.event(self.numbers[index])

    def __iter__(self) -> Iterator[JsonObject]:
        return map(self._source.event, self.numbers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        others = cast("Sequence[Any]", other)
        return len(self) == len(others) and all(map(operator.eq, self, others))

    __hash__ = None  # pyright: ignore[reportAssignmentType]  # as of a list

    def __repr__(self) -> str:
        return f"<{len(self)} events>"


_SHAPES: Mapping[str, type] = {"object": dict, "array": list}


class Blobs(Mapping[str, Any]):
    """The blobs of a trace by hash, each read when it is asked for."""

    def __init__(self, source: Source, numbers: dict[str, int]) -> None:
        self._source = source
        self.numbers = numbers
        self._recent: dict[str, Any] = {}  # small ones: most messages are asked for again

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __contains__(self, name: object) -> bool:
        return name in self.numbers

    def __getitem__(self, name: str) -> Any:
        if name in self._recent:
            return self._recent[name]
        number = self.numbers[name]
        event = self._source.event(number)
        if not isinstance(
            event["data"], _SHAPES.get(BLOBS.get(str(event.get("kind")), ""), object)
        ):
            raise self._lost(name, f"{event['data']!r:.80} is no {event['kind']}")
        if len(self._source.lines[number]) <= _SMALL:
            if len(self._recent) >= _RECENT:
                self._recent.clear()
            self._recent[name] = event["data"]
        return event["data"]

    def _lost(self, name: str, why: str) -> TraceCorrupt:
        return self._source.corrupt(f"The blob {name!r} of the trace{self._source.where}: {why}.")
