"""Writes a trace: one structlog logger, one line and one write per event.

The logger is private and fully specified: it reads nothing that
`structlog.configure` sets, so an application's own logging neither changes a
trace nor is changed by it. The last processor gives the line's bytes; the sink
writes them in one call, with no await in between, so lines never interleave.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from pydantic_core import to_json

from agentkit.errors import ConfigurationError, TraceError

__all__ = ["FileSink", "MemorySink", "Sink", "TraceWriter"]

_diagnostics = logging.getLogger("agentkit")


class Sink(Protocol):
    """Takes finished lines."""

    def emit(self, line: bytes) -> None:
        """Take one line, newline included."""
        ...

    def close(self) -> None:
        """No more lines will come."""
        ...


class MemorySink:
    """Keeps the lines."""

    def __init__(self, lines: list[bytes] | None = None) -> None:
        self.lines: list[bytes] = [] if lines is None else lines

    def emit(self, line: bytes) -> None:
        """Keep one line."""
        self.lines.append(line)

    def close(self) -> None:
        """Nothing to release."""


class FileSink:
    """Appends lines to a file that only its owner may read, and that only this process writes.

    Args:
        path: A new file; or, with `resume`, the file of a run that was interrupted.
        resume: Go on with a file. A torn last line is cut off first.

    Raises:
        ConfigurationError: The file exists already: a trace is one run.
        TraceError: The file cannot be written, or another process is writing it.
    """

    _closed = False

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.path = path
        new = os.O_CREAT | os.O_EXCL
        flags = os.O_RDWR | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | (0 if resume else new)
        try:
            if not resume:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, flags, 0o600)
        except FileExistsError as error:
            raise ConfigurationError(
                f"The trace {str(path)!r} exists already, and a trace holds one run. Give "
                "another name, or a folder: then each run gets a file of its own."
            ) from error
        except OSError as error:
            raise TraceError(
                f"The trace {str(path)!r} cannot be written: {error.strerror}.", path=str(path)
            ) from error
        if not _locked(self._descriptor):
            os.close(self._descriptor)
            raise TraceError(
                f"The trace {str(path)!r} is being written by another process: its run is going "
                "on. Wait for it, or end that process.",
                path=str(path),
            )
        if resume:
            data = path.read_bytes()
            os.ftruncate(self._descriptor, data.rfind(b"\n") + 1)

    def emit(self, line: bytes) -> None:
        """Append one line in one write."""
        written = os.write(self._descriptor, line)
        if written != len(line):
            raise OSError(f"only {written} of {len(line)} bytes were written")

    def close(self) -> None:
        """Close the file, and let others write it."""
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)


def _locked(descriptor: int) -> bool:
    """Lock the file for this process, until it is closed; False if another one has it."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True


class TraceWriter:
    """Numbers, times and writes the events of one run.

    A sink that fails is said once and then left alone: a recorder never kills a run.
    """

    def __init__(self, sink: Sink, *, lines: int = 0, t: int = 0) -> None:
        """Write to `sink`, which has `lines` lines of this run already, the last at `t` µs."""
        self.sink = sink
        self.failed = False
        self.closed = False
        self.lines = lines
        self._start = time.monotonic_ns() - t * 1000
        self._sequence = itertools.count(lines)
        self._log = _logger_type()(sink, [self._stamp, _line], {}).log
        # Tools in worker threads write too, also such as were abandoned by their run.
        self._lock = threading.Lock()

    def write(self, event: str, **fields: Any) -> None:
        """Write one event. `fields` are JSON values, redacted by the caller, in their order."""
        with self._lock:
            if self.failed or self.closed:
                return
            try:
                self._log(event, **fields)
                self.lines += 1
            except Exception as error:  # whatever it is: a recorder never kills a run
                self.failed = True
                _diagnostics.warning("The trace ends here, the run goes on: %s", error)

    def close(self) -> None:
        """Release the sink. What comes later is dropped."""
        with self._lock:
            if not self.closed:
                self.closed = True
                self.sink.close()

    def _stamp(
        self, logger: Any, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        elapsed = (time.monotonic_ns() - self._start) // 1000
        name = event.pop("event")
        return {"event": name, "seq": next(self._sequence), "t": elapsed, **event}


def _line(logger: Any, method: str, event: MutableMapping[str, Any]) -> bytes:
    return to_json(event) + b"\n"


@cache
def _logger_type() -> Callable[..., Any]:
    """The smallest structlog logger: every event through the processors to the sink."""
    # Here: structlog takes 60 ms to import and loads rich where that is installed.
    import structlog

    class Logger(structlog.BoundLoggerBase):
        def log(self, event: str, **fields: Any) -> None:
            self._proxy_to_logger("emit", event, **fields)

    return Logger
