"""The lines of a trace as events and blobs, each parsed and checked when it is read.

All lines are parsed once when a trace is opened. A trace may be larger than memory: of a
large one the positions of its lines are kept, of a small one the lines as they came.

A trace is untrusted input: whatever does not fit the table of events, and a blob that is not
what its hash says, is a `TraceCorrupt` that names it.
"""

from __future__ import annotations

import json
import operator
import os
import threading
import weakref
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast, get_args, overload

from pydantic_core import from_json

from agentkit.errors import TraceCorrupt, TraceUnsupported, safe_str
from agentkit.messages import JsonObject, Message, is_array, is_object, message_from_json
from agentkit.trace.fields import DAMAGE, field_problems, nested_problem
from agentkit.trace.naming import canonical, digest, tools_name, unpacked
from agentkit.trace.schema import ADDRESSED, BLOBS, ENDS, EVENTS, SCHEMA, Capture

_KEPT = 1 << 22
"""Bytes of a file whose lines are kept in memory. Larger ones stay open."""
_HEADER = 1 << 16
"""More bytes than any first line has, so that no other file is read to its end."""
_RECENT, _SMALL = 1024, 4096
"""Blobs of at most so many bytes that are kept once they were read."""


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

    @property
    def size(self) -> int:
        """Bytes of all lines."""
        return self._starts[-1]


Lines: TypeAlias = Sequence[bytes] | FileLines


def lines_of(path: Path) -> Lines:
    """Return the lines of a trace file.

    Raises:
        OSError: It cannot be read.
        TraceUnsupported: It is not a trace, or one of another schema.
    """
    with path.open("rb") as file:
        first = file.readline(_HEADER)
        _check_schema(first, path)  # before the rest is read, which may be of any size
        if os.fstat(file.fileno()).st_size <= _KEPT:
            return [first, *file.readlines()]
    return FileLines(path.open("rb"))


def _check_schema(first: bytes, path: Path | None) -> None:
    where, text = _where(path), path and str(path)
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


def _where(path: Path | None) -> str:
    """Return a path as it follows a noun in a message."""
    return f" {str(path)!r}" if path is not None else ""


def parsed(line: bytes) -> JsonObject:
    """Return the event of a line, with what finding its place needs.

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


class Source:
    """The lines of a trace, what they hold, and the file that they are in.

    Attributes:
        lines: The lines.
        path: The file, or None for a trace in memory.
        count: How many lines are whole.
        torn: The last line has no end, as a crash leaves it.
        events: All events but blobs.
        blobs: Messages and other data by hash.

    Raises:
        TraceCorrupt: A line before the last is not an event.
        TraceUnsupported: The lines are not a trace, or one of another schema.
    """

    def __init__(self, lines: Lines, path: Path | None) -> None:
        _check_schema(lines[0] if lines else b"", path)
        self.lines, self.path = lines, path
        total = len(lines)
        self.torn = not lines[total - 1].endswith(b"\n")
        self.count = 0
        self.events = Events(self)
        self.blobs = Blobs(self)
        for number in range(total):
            try:
                self._take(self.event(number))
            except TraceCorrupt:
                if self.torn and number == total - 1:
                    break
                raise

    def append(self, line: bytes) -> JsonObject:
        """Take the next line of a trace in memory that grows, and return its event."""
        assert isinstance(self.lines, list)
        self.lines.append(line)
        event = self.event(self.count)
        self._take(event)
        return event

    def _take(self, event: JsonObject) -> None:
        if event["event"] == "blob":
            self.blobs.numbers[event["h"]] = self.count
        else:
            self.events.numbers.append(self.count)
        self.count += 1

    @property
    def size(self) -> int:
        """Bytes of all lines."""
        return self.lines.size if isinstance(self.lines, FileLines) else sum(map(len, self.lines))

    @property
    def capture(self) -> Capture:
        """How much of the run was recorded."""
        header = self.events[0]
        capture = header.get("capture", "full")
        if capture not in get_args(Capture):
            raise self.damaged(header, f"has {capture!r:.80} as 'capture'")
        return capture

    def event(self, number: int) -> JsonObject:
        """Return the event of a line, by its number from 0.

        Raises:
            TraceCorrupt: The line is not an event.
        """
        line = self.lines[number]
        try:
            return parsed(line)
        except ValueError as error:
            message = f"Line {number + 1} of the trace{_where(self.path)} is damaged: {error}."
            raise self.corrupt(message, number + 1) from error

    def check(self, event: JsonObject) -> None:
        """Check all that an event holds.

        Raises:
            TraceCorrupt: It lacks a field, or has one of another form.
        """
        for problem in field_problems(event, self.capture):
            raise self.damaged(event, problem)

    def read(self, event: JsonObject, name: str) -> Any:
        """Return one field of an event; None if it does not have it.

        Raises:
            TraceCorrupt: It is not what it has to be.
        """
        if name not in event:
            return None
        field = EVENTS[event["event"]].fields[name]
        if (expected := field.problem(event[name])) is not None:
            raise self.damaged(event, f"has {event[name]!r:.80} as {name!r}; expected {expected}")
        if (problem := nested_problem(event, name)) is not None:
            raise self.damaged(event, problem)
        return unpacked(event[name])

    def blob(self, name: str) -> Any:
        """Return the content of a blob.

        Raises:
            TraceCorrupt: The trace does not hold it, or it is not what its name says.
        """
        if name in self.blobs:
            return self.blobs[name]
        why = "" if self.capture == "full" else f": it was recorded with capture={self.capture!r}"
        raise self.corrupt(
            f"The trace{_where(self.path)} refers to the blob {name!r}, which it does not "
            f"hold{why}."
        )

    def messages(self, names: Sequence[str]) -> tuple[Message, ...]:
        """Return the messages of these names.

        Raises:
            TraceCorrupt: A blob is missing, damaged, or no message.
        """
        return tuple(map(self._message, names))

    def _message(self, name: str) -> Message:
        data = self.blob(name)
        try:
            return message_from_json(unpacked(data))
        except DAMAGE as error:
            raise self.lost(name, f"it is no message: {safe_str(error)}") from error

    def lost(self, name: str, why: str) -> TraceCorrupt:
        """Return the error that names a blob and what is wrong with it."""
        return self.corrupt(f"The blob {name!r} of the trace{_where(self.path)}: {why}.")

    def damaged(self, event: JsonObject, problem: str) -> TraceCorrupt:
        """Return the error that names an event and what is wrong with it."""
        run = self.events[0].get("run")
        return self.corrupt(
            f"Event {event.get('seq')} of the trace of {run} ({event['event']}) {problem}."
        )

    def corrupt(self, message: str, line: int | None = None) -> TraceCorrupt:
        """Return the error that names this file."""
        return TraceCorrupt(message, path=self.path and str(self.path), line=line)


class Events(Sequence[JsonObject]):
    """The events of a trace but its blobs, each read when it is accessed."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.numbers = array("Q")

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
    """The blobs of a trace by hash, each read and checked when it is accessed."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.numbers: dict[str, int] = {}
        self._recent: dict[str, Any] = {}  # small ones: most messages are read again

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
        event, line = self._source.event(number), self._source.lines[number]
        data, kind = event["data"], str(event.get("kind"))
        if not isinstance(data, _SHAPES.get(BLOBS.get(kind, ""), object)):
            raise self._source.lost(name, f"{data!r:.80} is no {kind}")
        # Most lines are as they were written, and end with the text that was hashed.
        _, _, content = line.rstrip(b"\r\n").partition(b',"data":')
        if digest(content[:-1]) != name and not _is_named(data, name):
            raise self._source.lost(name, "its content is another than its name says")
        if len(line) <= _SMALL:
            if len(self._recent) >= _RECENT:
                self._recent.clear()
            self._recent[name] = data
        return data


def _is_named(data: Any, name: str) -> bool:
    try:
        content = canonical(data)
        return digest(content) == name or (
            is_array(data) and tools_name(digest(canonical(one)) for one in data) == name
        )
    except RecursionError:  # it is nested deeper than any blob was written
        return False
