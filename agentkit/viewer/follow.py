"""Follows traces as they grow: what a live page has not seen yet is sent to it.

A file is read by one reader for all pages that show it, in a thread, and only when it has
changed; of one that has grown, what is new. Each line that came of it has the version in
which it came, so a page gets what is newer than what it has, at the pace at which it reads;
nothing is kept for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

import anyio
import anyio.to_thread
from pydantic_core import from_json

from agentkit.agent import Agent
from agentkit.errors import AgentKitError, safe_str
from agentkit.messages import JsonObject
from agentkit.trace.check import DAMAGE
from agentkit.trace.html import LARGE
from agentkit.trace.reader import Trace
from agentkit.trace.summary import state_of, summary
from agentkit.viewer.records import line_of, records
from agentkit.viewer.sources import sources

_POLL = 0.25
"""Seconds between two looks at a file."""
_ALIVE = 2.0
"""Seconds between two looks whether a run still goes on."""
_FIRST = 1 << 16
"""More bytes than the first line of a trace has."""


class Feed:
    """Lines by key, each with the version in which it came."""

    def __init__(self) -> None:
        self.version = 0
        self._lines: dict[Any, tuple[int, str]] = {}

    def put(self, key: Any, line: str) -> None:
        """Keep a line in the place of the one with the same key."""
        if self._lines.get(key, (0, ""))[1] != line:
            self.version += 1
            self._lines[key] = self.version, line

    def clear(self) -> None:
        """Forget all lines."""
        self._lines.clear()

    def since(self, version: int) -> list[str]:
        """Return the lines that came after a version."""
        if version >= self.version:
            return []
        return [line for came, line in [*self._lines.values()] if came > version]


class Followed:
    """What is read again when it has changed, at most so often as reading it allows.

    Attributes:
        feed: What was read.
        problem: Why it cannot be read at this moment; empty if it can.
        generation: Counts the runs that were in its place: a file may be replaced.
        over: Nothing will come any more.
    """

    def __init__(self) -> None:
        self.feed = Feed()
        self.problem, self.generation, self.over = "", 0, False
        self._lock = anyio.Lock()
        self._next = 0.0

    async def fresh(self) -> None:
        """Read what is new, if it is time for that."""
        async with self._lock:
            if (began := monotonic()) < self._next:
                return
            await anyio.to_thread.run_sync(self.look)
            self._next = monotonic() + max(_POLL, 3 * (monotonic() - began))

    def look(self) -> None:
        """Read what is new."""
        raise NotImplementedError


class GrowingLines:
    """The lines of a file, of which only what was added is read.

    Attributes:
        read: How many bytes were read so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read = 0
        self._lines: list[bytes] = []
        self._end = 0  # of the last whole line

    def now(self) -> list[bytes]:
        """Return the lines that the file has now.

        A last line that is torn is read again, because a resumed run cuts it off. A file that
        does not begin and go on as before is read as a whole.

        Raises:
            OSError: It cannot be read.
        """
        with self.path.open("rb") as file:
            whole = self._lines[:-1] if self._end_is_torn() else self._lines
            if whole and not self._goes_on(file, whole[0], whole[-1]):
                whole, self._end = [], 0
            file.seek(self._end)
            new = file.readlines()
        self.read += sum(map(len, new))
        self._lines = [*whole, *new]
        self._end += sum(len(line) for line in new if line.endswith(b"\n"))
        return self._lines

    def _end_is_torn(self) -> bool:
        return bool(self._lines) and not self._lines[-1].endswith(b"\n")

    def _goes_on(self, file: BinaryIO, first: bytes, last: bytes) -> bool:
        """Return whether the first line and the last whole one stand where they stood."""
        begins = file.read(len(first))
        file.seek(self._end - len(last))
        goes_on = file.read(len(last))
        self.read += len(begins) + len(goes_on)
        return (begins, goes_on) == (first, last)


class FollowedRun(Followed):
    """One trace file.

    Attributes:
        path: The file.
        status: How its run stands.
        agent: The name of its agent.
        lines: Its lines.
        resumed: This process goes on with it.
    """

    def __init__(self, path: Path, head: JsonObject, agent: Agent[Any] | None) -> None:
        super().__init__()
        self.path = path
        self.status, self.agent, self.resumed = "", "", False
        self._start = [head, *sources(agent)]
        self.lines = GrowingLines(path)
        self._blobs: set[str] = set()
        self._mark: object = None
        self._trace: Trace | None = None
        self._alive = 0.0

    def look(self) -> None:
        """Read the file, if it has changed or its process has ended."""
        try:
            stat = self.path.stat()
            mark = stat.st_ino, stat.st_size, stat.st_mtime_ns, self.resumed
            if mark == self._mark and not self._has_ended():
                return
            self._mark, self.problem = mark, ""
            if stat.st_size:  # else its first line is being written
                self._read(Trace(self.lines.now(), self.path))
        except FileNotFoundError:
            self._mark, self.problem = None, f"The file {str(self.path)!r} was removed."
        except AgentKitError as error:
            self.problem = error.message
        except (OSError, ArithmeticError, *DAMAGE) as error:
            self.problem = f"{str(self.path)!r} cannot be shown: {safe_str(error)}"

    def _has_ended(self) -> bool:
        """Return whether a run that went on does so no longer, though nothing was written."""
        if self.status != "running" or self._trace is None or monotonic() < self._alive:
            return False
        self._alive = monotonic() + _ALIVE
        return not self.resumed and state_of(self._trace) != "running"

    def _read(self, trace: Trace) -> None:
        before = self._trace
        replaced = before is not None and (trace.run != before.run or trace.lines < before.lines)
        known = frozenset[str]() if replaced else self._blobs
        lines = [(_key(one), line_of(self._now(one))) for one in records(trace, known=known)]
        if replaced:
            self.generation += 1
            self.feed.clear()
        self._blobs = set(trace.blobs)
        self._trace = trace
        self.agent = str(trace.agent_start.get("agent", ""))
        for one in self._start:
            self.feed.put(_key(one), line_of(one))
        for key, line in lines:
            self.feed.put(key, line)
        self.over = self.status == "ok"

    def _now(self, record: JsonObject) -> JsonObject:
        if record["type"] == "run":
            self.status = "running" if self.resumed else record["status"]
            return record | {"status": self.status}
        return record


def _key(record: JsonObject) -> tuple[Any, ...]:
    return record["type"], record.get("side"), record.get("at"), record.get("name")


class FollowedFolder(Followed):
    """The runs of a folder, as its list shows them; each file is read when it has changed."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._marks: dict[str, Any] = {}
        self._running: dict[str, float] = {}

    def look(self) -> None:
        """Read the files that have changed; those that came last first."""
        try:
            stats = dict(sorted(self._files(), key=lambda file: -file[1].st_mtime_ns))
            self.problem = ""
        except OSError as error:
            self.problem = f"{str(self.folder)!r} cannot be read: {error.strerror}."
            return
        for name in self._marks.keys() - stats.keys():
            del self._marks[name]
            self.feed.put(name, line_of({"name": name, "gone": True}))
        until = monotonic() + 1  # then those that were read are sent
        for name, stat in stats.items():
            mark = stat.st_ino, stat.st_size, stat.st_mtime_ns
            if mark != self._marks.get(name) or self._running.get(name, until) < monotonic():
                self._marks[name] = mark
                self._put(name, stat.st_size)
                if monotonic() > until:
                    return

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(".jsonl") and entry.is_file():
                    yield entry.name, entry.stat()

    def _put(self, name: str, size: int) -> None:
        row = _row(self.folder / name, size)
        self._running.pop(name, None)
        if row.get("status") == "running":
            self._running[name] = monotonic() + _ALIVE
        try:
            self.feed.put(name, line_of({"name": name, **row}))
        except AgentKitError as error:
            self.feed.put(name, line_of({"name": name, "problem": error.message}))


_COLUMNS = "wall status agent prompt steps usage cost seconds fork".split()


def _row(path: Path, size: int) -> JsonObject:
    """Return what the list shows of a file; of a large one what its first line has."""
    try:
        if size > LARGE:
            with path.open("rb") as file:
                header: JsonObject = from_json(file.readline(_FIRST))
            return {"wall": header.get("wall"), "status": "", "prompt": "(a large trace)"}
        run = summary(Trace.load(path))
        return {name: run[name] for name in _COLUMNS}
    except AgentKitError as error:
        return {"problem": error.message}
    except (OSError, ArithmeticError, *DAMAGE) as error:
        return {"problem": f"It cannot be shown: {safe_str(error)}"}
