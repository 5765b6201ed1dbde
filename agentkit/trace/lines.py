"""The lines of a trace, and what is in them, read on demand.

A trace may be larger than memory: what is kept of a large one is where its lines
are. Of a small one the lines are kept as they came.
"""

from __future__ import annotations

import json
import operator
import os
import re
import threading
import weakref
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast, overload

from pydantic_core import from_json

from agentkit.errors import TraceCorrupt
from agentkit.messages import JsonObject, is_array, is_object
from agentkit.trace.naming import canonical, digest
from agentkit.trace.schema import ADDRESSED, BLOBS, ENDS
from agentkit.trace.upgrades import NEWEST, upgraded

__all__ = ["Blobs", "Events", "FileLines", "Lines", "Source", "parsed"]

_RECENT, _SMALL = 1024, 4096
_SIDECAR = re.compile(r"[0-9a-f]{32}\.json")
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class FileLines:
    """The lines that a file has now. What is appended later is not seen.

    The file stays open, so that it may be replaced meanwhile; it is closed with this.
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
    """The event of a line.

    Raises:
        ValueError: It is none, and why.
    """
    event = _json(line)
    if not is_object(event) or not isinstance(name := event.get("event"), str):
        raise ValueError("it is not an event")
    if not isinstance(event.get("t", 0), int):
        raise ValueError("its t is not a number of microseconds")
    if name == "blob" and not (isinstance(event.get("h"), str) and event.keys() & {"data", "file"}):
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
    """Lines of one schema version, and the file that they are in."""

    lines: Lines
    version: int
    path: Path | None

    def event(self, number: int) -> JsonObject:
        """The event of a line, by its number from 0.

        Raises:
            TraceCorrupt: It is none.
        """
        line = self.lines[number]
        try:
            event = parsed(line)
        except ValueError as error:
            message = f"Line {number + 1} of the trace{self.where} is damaged: {error}."
            raise self.corrupt(message, number + 1) from error
        return event if self.version == NEWEST else upgraded(event, self.version)

    def corrupt(self, message: str, line: int | None = None) -> TraceCorrupt:
        """The error of this file."""
        return TraceCorrupt(message, path=self.path and str(self.path), line=line)

    @property
    def where(self) -> str:
        """The file, as it follows a noun in a message."""
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
        if "data" not in event:
            return self._beside(event)
        if not isinstance(
            event["data"], _SHAPES.get(BLOBS.get(str(event.get("kind")), ""), object)
        ):
            raise self._lost(name, f"{event['data']!r:.80} is no {event['kind']}")
        if len(self._source.lines[number]) <= _SMALL:
            if len(self._recent) >= _RECENT:
                self._recent.clear()
            self._recent[name] = event["data"]
        return event["data"]

    def _beside(self, event: JsonObject) -> Any:
        """The data of a blob that is too big for its line, from the folder beside the trace."""
        name, file, path = event["h"], str(event["file"]), self._source.path
        if path is None or not _SIDECAR.fullmatch(file):
            raise self._lost(name, f"it is said to be in {file!r}, where no blob can be")
        place = path.with_suffix(".blobs") / file
        try:
            # The name comes from the trace, so nothing else on this machine is opened by it.
            descriptor = os.open(place, os.O_RDONLY | _NO_LINKS)
            with os.fdopen(descriptor, "rb") as opened:
                content = opened.read()
            data = _json(content)
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else "it is not JSON"
            raise self._lost(name, f"{str(place)!r} cannot be read: {said}") from error
        if name != (_tools_name(data) if event.get("kind") == "tools" else digest(content)):
            raise self._lost(name, f"{str(place)!r} holds something else")
        return data

    def _lost(self, name: str, why: str) -> TraceCorrupt:
        return self._source.corrupt(f"The blob {name!r} of the trace{self._source.where}: {why}.")


def _tools_name(data: Any) -> str | None:
    """A list of tools is named after the names of its tools; see `Namer.tools`."""
    names = (digest(canonical(tool)) for tool in data) if is_array(data) else ()
    return digest(",".join(names).encode())
