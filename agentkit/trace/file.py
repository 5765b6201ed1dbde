"""Where the lines of a trace go, and what writes them: one structlog logger, one line an event.

Lines go through structlog because that is a named part of agentkit: `capture` is a
processor, as redaction of an application's log would be. The logger is private and fully
specified: it reads nothing that `structlog.configure` sets, so an application's own logging
neither changes a trace nor is changed by it. The last processor gives the line's bytes; the
sink writes them in one call, with no await in between, so lines never interleave.

A file is locked while it is written, so that no second process continues the same run. Where
the file system has no locks, its size shows before each line whether another one has, and a
process that was frozen meanwhile ends its run instead of doing things twice.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

from pydantic_core import to_json

from agentkit.errors import ConfigurationError, TraceError, TraceLocked
from agentkit.messages import JsonObject
from agentkit.trace.schema import Capture, kept

_CLOSE_ON_EXEC = getattr(os, "O_CLOEXEC", 0)


class Sink(Protocol):
    """What takes finished lines."""

    def emit(self, line: bytes, held: bool) -> None:
        """Take one line, newline included; one that is `held` may wait for the next."""
        ...

    def sync(self) -> None:
        """Make what was taken survive a power failure."""
        ...

    def close(self) -> None:
        """Release the sink: no more lines will come."""
        ...


class NoSink:
    """A sink that keeps nothing, for runs that are only logged."""

    def emit(self, line: bytes, held: bool) -> None:
        """Drop the line."""

    def sync(self) -> None:
        """No-op."""

    def close(self) -> None:
        """No-op."""


class MemorySink(NoSink):
    """A list of lines."""

    def __init__(self, lines: list[bytes] | None = None) -> None:
        self.lines: list[bytes] = [] if lines is None else lines

    def emit(self, line: bytes, held: bool) -> None:
        """Append the line."""
        self.lines.append(line)


class FileSink:
    """A file that only its owner may read, and that only this process writes.

    Args:
        path: A new file; or, with `resume`, the file of a run that was interrupted.
        resume: Continue a file. It is locked, and stays as it is until `go_on`.

    Raises:
        ConfigurationError: The file exists already: a trace holds one run.
        TraceLocked: Another process is writing it.
        TraceError: The file cannot be written.
    """

    _closed = False
    _held = b""
    _new: Sequence[Path] = ()  # folders that were made for the file
    _synced = False  # whether its name, and theirs, are on the disk

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.path = path
        new = os.O_CREAT | os.O_EXCL
        flags = os.O_RDWR | os.O_APPEND | _CLOSE_ON_EXEC | (0 if resume else new)
        try:
            try:
                self._descriptor = os.open(path, flags, 0o600)
            except FileNotFoundError:
                if resume:
                    raise
                self._new = tuple(takewhile(lambda folder: not folder.exists(), path.parents))
                path.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(path, flags, 0o600)
        except (OSError, ValueError) as error:  # no path has a NUL or a lone surrogate in it
            # The parent may be the file that exists: then this one can never be written.
            if not (isinstance(error, FileExistsError) and path.parent.is_dir()):
                raise cannot_write(path, error) from error
            raise ConfigurationError(
                f"The trace {str(path)!r} exists already, and a trace holds one run. Give "
                "another name, or a folder, in which each run gets a file of its own."
            ) from error
        locked = _locked(self._descriptor)
        if locked is False:
            os.close(self._descriptor)
            raise TraceLocked(
                f"The trace {str(path)!r} is being written by another process, whose run is "
                "still going on. Wait for it, or end that process.",
                path=str(path),
            )
        self._unlocked = locked is None
        self._size = os.fstat(self._descriptor).st_size  # as this process leaves the file

    def go_on(self, torn: int) -> None:
        """Cut off the bytes of a torn last line, and end the one before if it has no end."""
        if self._unlocked:
            self._check()
        self._size -= torn
        if torn:
            os.ftruncate(self._descriptor, self._size)
        os.lseek(self._descriptor, self._size - 1, os.SEEK_SET)
        if os.read(self._descriptor, 1) != b"\n":
            self._write(b"\n")

    def emit(self, line: bytes, held: bool) -> None:
        """Append one line, with those that were held before it, in one write."""
        if held:
            self._held += line
            return
        if self._held:
            line, self._held = self._held + line, b""
        if self._unlocked:
            self._check()
        self._write(line)

    def _check(self) -> None:
        """Refuse to write where another process has written since."""
        if os.fstat(self._descriptor).st_size != self._size:
            raise TraceLocked(
                f"The trace {str(self.path)!r} was written by another process, which goes on with "
                "this run. It ends here, and nothing more is written.",
                path=str(self.path),
            )

    def _write(self, data: bytes) -> None:
        written = os.write(self._descriptor, data)
        self._size += written
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes were written")

    def sync(self) -> None:
        """Write the lines, and the first time the name of the file, to the disk."""
        os.fsync(self._descriptor)
        if self._synced or sys.platform == "win32":
            return
        for named in (self.path, *self._new):
            folder = os.open(named.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        self._synced = True

    def close(self) -> None:
        """Close the file and unlock it."""
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)


def cannot_write(path: object, error: Exception) -> TraceError:
    """Return the error about a file that cannot be made or opened."""
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return TraceError(f"The trace {str(path)!r} cannot be written: {why}.", path=str(path))


_WAITS = (0.001, 0.01, 0.03)
"""Seconds until a lock that another process has is tried again."""


def _locked(descriptor: int) -> bool | None:
    """Lock the file until it is closed; False if another process has it, None without locks."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    for wait in _WAITS:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(wait)  # who looks whether a run goes on has the lock for a moment
        except OSError:
            return None  # a file system without locks
        else:
            return True
    return False


Tap = Callable[[bytes], None]
"""What gets each line after it was written. It must not raise."""
_diagnostics = logging.getLogger("agentkit")


class TraceWriter:
    """What numbers, times and writes the events of one run.

    A sink that fails is logged once and no longer used: a recorder never kills a run.

    Attributes:
        lines: How many lines the trace has.
        failure: Why the sink is no longer used, if so.
        taken: That is because another process goes on with the run.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        lines: int = 0,
        t: int = 0,
        capture: Capture = "full",
        taps: Sequence[Tap] = (),
        clock: Callable[[], int] | None = None,
    ) -> None:
        """Write to `sink`, which has `lines` lines of this run already, the last at `t` µs.

        `clock` gives monotonic nanoseconds, for a trace that is written later.
        """
        self.sink = sink
        self.failure: Exception | None = None
        self.taken = False
        self.closed = False
        self.lines = lines
        self._taps = taps
        self._process = os.getpid()
        less = () if capture == "full" else (kept(capture),)
        self._processors = [*less, _line]
        self._log = self._logger(sink)
        self._clock = clock or time.monotonic_ns
        self._start = self._clock() - t * 1000  # after structlog was imported
        # Tools in worker threads write too, even those abandoned by their run; and the warning
        # about a failing sink may come back here, as a line of the application's log.
        self._lock = threading.RLock()

    def write(self, event: str, fields: JsonObject, *, held: bool = False) -> None:
        """Write one event. `fields` are JSON values, redacted by the caller, in their order.

        A blob's `data` is its canonical JSON, as bytes. An event that is `held` is written
        with the one that follows at once.
        """
        with self._lock:
            if self.closed or os.getpid() != self._process:
                return  # what a forked process does is not in this run's order
            t = (self._clock() - self._start) // 1000
            whole = {"event": event, "seq": self.lines, "t": t, **fields}
            if "at" in fields:
                whole["at"] = str(fields["at"])  # a plain text is rendered three times as fast
            try:
                line = self._log(whole, held)
            except Exception as error:  # whatever it is: a recorder never kills a run
                self._fail(error)
                return
            if line is None:
                return
            self.lines += 1
        for tap in self._taps:
            tap(line)

    def sync(self) -> None:
        """Make what was written survive a power failure. Blocks for milliseconds."""
        if self.failure is None and not self.closed:
            try:
                self.sink.sync()
            except Exception as error:  # as above
                self._fail(error)

    def close(self) -> None:
        """Release the sink. What comes later is dropped."""
        with self._lock:
            if not self.closed:
                self.closed = True
                self.sink.close()

    def _logger(self, sink: Sink) -> Callable[[JsonObject, bool], bytes | None]:
        return _logger_type()(sink, self._processors, {}).log

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.taken = isinstance(error, TraceLocked)
        self._log = self._logger(NoSink())  # taps still get the lines
        if not self.taken:
            _diagnostics.warning("The trace ends here, the run goes on: %s", error)


def _line(logger: Any, method: str, event: MutableMapping[str, Any]) -> bytes:
    content = event.get("data")
    if isinstance(content, bytes):  # a blob's, which is JSON already
        del event["data"]
        return to_json(event)[:-1] + b',"data":' + content + b"}\n"
    try:
        return to_json(event) + b"\n"
    except ValueError:  # it is nested deeper than that serializer goes
        return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


@cache
def _logger_type() -> Callable[..., Any]:
    """Return the smallest structlog logger: events go through processors to the sink."""
    # Here: structlog takes 60 ms to import and loads rich where that is installed.
    import structlog

    class Logger(structlog.BoundLoggerBase):
        def log(self, event: JsonObject, held: bool) -> bytes | None:
            # As `_proxy_to_logger` does, but for the context: nothing is ever bound here.
            line: Any = event
            sink = self._logger
            try:
                for processor in self._processors:
                    line = processor(sink, "emit", line)
            except structlog.DropEvent:
                return None
            sink.emit(line, held)
            return line

    return Logger
