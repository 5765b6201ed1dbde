"""Reads a trace, from a file or from the lines that a run kept in memory.

The last line may be torn: that is what a crash leaves. A bad line before it is
corruption, and the error says where. Events of an unknown kind are kept.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentkit.errors import TraceCorrupt, TraceError, TraceUnsupported
from agentkit.messages import JsonObject, Message, is_array, is_object, message_from_json

__all__ = ["Trace", "unpacked"]

_SCHEMA = "agentkit.trace/"
_NEWEST = 1


class Trace:
    """One run, as it was recorded.

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

    def __init__(self, lines: Iterable[bytes], path: Path | None = None) -> None:
        self.path = path
        self.torn = False
        self.events: list[JsonObject] = []
        self._kept = lines if isinstance(lines, list) else None
        self.blobs: dict[str, Any] = {}
        self.lines = 0
        for event in self._parse(lines):
            self.lines += 1
            if event["event"] == "blob":
                self.blobs[event["h"]] = event["data"]
            else:
                self.events.append(event)
        self._check_schema()

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
            with path.open("rb") as file:
                return cls(file, path)
        except OSError as error:
            raise TraceError(
                f"The trace {str(path)!r} cannot be read: {error.strerror}.", path=str(path)
            ) from error

    @property
    def header(self) -> JsonObject:
        """The `trace.open` event."""
        return self.events[0]

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
            raise TraceCorrupt(
                f"The trace{self._where()} refers to the blob {name!r}, which it does not hold.",
                path=self._path_text(),
            ) from None

    def messages(self, names: Sequence[str]) -> tuple[Message, ...]:
        """The messages of these names."""
        return tuple(message_from_json(unpacked(self.blob(name))) for name in names)

    def input(self) -> tuple[tuple[Message, ...], int]:
        """The messages that the outermost agent began with, and how many of them were history."""
        for event in self.events:
            if event["event"] == "agent.start":
                data = self.blob(event["input"])
                return self.messages(data["messages"]), data["earlier"]
        raise TraceError(
            f"The trace{self._where()} ends before its agent has started.", path=self._path_text()
        )

    def asked(self) -> JsonObject:
        """What the run was given instead of its agent's: settings and limits."""
        for event in self.events:
            if event["event"] == "agent.start":
                return unpacked(event.get("asked", {}))
        return {}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a trace that was kept in memory to a new file, readable by its owner only.

        Raises:
            TraceError: The file exists or cannot be written.
        """
        target = Path(path)
        content = b"".join(self._kept) if self._kept is not None else self._content()
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        except OSError as error:
            raise TraceError(
                f"The trace cannot be saved as {str(target)!r}: {error.strerror}.",
                path=str(target),
            ) from error
        return target

    def __repr__(self) -> str:
        """Short: the run, its state and where it is."""
        return f"<Trace {self.run[:12]} {self.status}{self._where()}>"

    @property
    def kept(self) -> list[bytes] | None:
        """The lines of a trace in memory."""
        return self._kept

    def _content(self) -> bytes:
        assert self.path is not None
        return self.path.read_bytes()

    def _parse(self, lines: Iterable[bytes]) -> Iterator[JsonObject]:
        bad: tuple[int, str] | None = None
        for number, line in enumerate(lines, start=1):
            if bad is not None and bad[0] == 1:
                return  # not a trace at all
            if bad is not None:
                raise TraceCorrupt(
                    f"Line {bad[0]} of the trace{self._where()} is damaged: {bad[1]}.",
                    path=self._path_text(),
                    line=bad[0],
                )
            self.torn = not line.endswith(b"\n")
            try:
                event = json.loads(line)
                if not is_object(event) or not isinstance(event.get("event"), str):
                    raise ValueError("not an event")
                if event["event"] == "blob" and not {"h", "data"} <= event.keys():
                    raise ValueError("a blob without h or data")
            except ValueError as error:
                bad = (number, str(error))
            else:
                yield event

    def _check_schema(self) -> None:
        first: Mapping[str, Any] = self.events[0] if self.events else {}
        schema = first.get("schema")
        if first.get("event") != "trace.open" or not isinstance(schema, str):
            raise TraceUnsupported(
                f"There is no trace{self._where() or ' here'}: it does not begin with "
                "a trace.open event.",
                path=self._path_text(),
            )
        number = schema.removeprefix(_SCHEMA)
        if not (schema.startswith(_SCHEMA) and number.isdecimal() and 1 <= int(number) <= _NEWEST):
            raise TraceUnsupported(
                f"The trace{self._where()} has the schema {schema!r}; this version of agentkit "
                f"reads {_SCHEMA}1 to {_SCHEMA}{_NEWEST}. Upgrade agentkit to read it.",
                path=self._path_text(),
                schema=schema,
            )

    def _path_text(self) -> str | None:
        return str(self.path) if self.path is not None else None

    def _where(self) -> str:
        return f" {str(self.path)!r}" if self.path is not None else ""


def unpacked(value: Any) -> Any:
    """The reverse of packing, for what can come back: floats, ints, bytes and surrogates."""
    if is_array(value):
        return [unpacked(item) for item in value]
    if not is_object(value):
        return value
    match value:
        case {"$nonjson": "float", "value": str(text)}:
            return float(text)
        case {"$nonjson": "int", "value": str(text)}:
            return int(text)
        case {"$nonjson": "bytes", "value": str(text)}:
            return base64.b64decode(text)
        case {"$nonjson": "surrogates", "value": str(text)}:
            return text.encode("ascii").decode("unicode_escape")
        case _:
            return {key: unpacked(item) for key, item in value.items()}
