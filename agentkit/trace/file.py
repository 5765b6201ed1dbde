"""Where the lines of a trace go: a list, or a file of which only its owner knows.

A file is locked while it is written, so that no second process goes on with the
same run. Large blobs stand in a folder beside it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Protocol

from agentkit.errors import ConfigurationError, TraceError

__all__ = ["FileSink", "MemorySink", "NoSink", "Sink"]

_CLOSE_ON_EXEC = getattr(os, "O_CLOEXEC", 0)
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


class Sink(Protocol):
    """Takes finished lines."""

    def emit(self, line: bytes, held: bool) -> None:
        """Take one line, newline included; one that is `held` may wait for the next."""
        ...

    def keep(self, name: str, data: bytes) -> str | None:
        """Put a large blob beside the lines; None: it has to stand in its line.

        Args:
            name: 32 hexadecimal digits.
            data: Its canonical JSON.

        Returns:
            The name of its file.
        """
        ...

    def sync(self) -> None:
        """Have what was taken survive a power failure."""
        ...

    def close(self) -> None:
        """No more lines will come."""
        ...


class NoSink:
    """Keeps nothing: for who only listens."""

    def emit(self, line: bytes, held: bool) -> None:
        """Forget a line."""

    def keep(self, name: str, data: bytes) -> str | None:
        """Nothing is beside nothing."""

    def sync(self) -> None:
        """Nothing survives."""

    def close(self) -> None:
        """Nothing to release."""


class MemorySink(NoSink):
    """Keeps the lines."""

    def __init__(self, lines: list[bytes] | None = None) -> None:
        self.lines: list[bytes] = [] if lines is None else lines

    def emit(self, line: bytes, held: bool) -> None:
        """Keep one line."""
        self.lines.append(line)


class FileSink:
    """Appends lines to a file that only its owner may read, and that only this process writes.

    Args:
        path: A new file; or, with `resume`, the file of a run that was interrupted.
        resume: Go on with a file. A torn last line is cut off first.
        durable: Blobs survive a power failure when the lines that name them do.

    Raises:
        ConfigurationError: The file exists already: a trace is one run.
        TraceError: The file cannot be written, or another process is writing it.
    """

    _closed = False
    _named = False
    _held = b""

    def __init__(self, path: Path, *, resume: bool = False, durable: bool = False) -> None:
        self.path = path
        self._durable = durable
        new = os.O_CREAT | os.O_EXCL
        flags = os.O_RDWR | os.O_APPEND | _CLOSE_ON_EXEC | (0 if resume else new)
        try:
            if not resume:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            # The parent may be the file that exists: then this one can never be written.
            if not (isinstance(error, FileExistsError) and path.parent.is_dir()):
                raise TraceError(
                    f"The trace {str(path)!r} cannot be written: {error.strerror}.", path=str(path)
                ) from error
            raise ConfigurationError(
                f"The trace {str(path)!r} exists already, and a trace holds one run. Give "
                "another name, or a folder: then each run gets a file of its own."
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

    def emit(self, line: bytes, held: bool) -> None:
        """Append one line, with those that were held before it, in one write."""
        self._held += line
        if not held:
            line, self._held = self._held, b""
            _write(self._descriptor, line)

    def keep(self, name: str, data: bytes) -> str | None:
        """Write a blob to the folder beside the file, whole, before the line that names it."""
        folder = self.path.with_suffix(".blobs")
        folder.mkdir(mode=0o700, exist_ok=True)
        # An interrupted run may have left a part of it.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _CLOSE_ON_EXEC | _NO_LINKS
        descriptor = os.open(folder / f"{name}.json", flags, 0o600)
        try:
            _write(descriptor, data)
            if self._durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return f"{name}.json"

    def sync(self) -> None:
        """Have the file's lines, and the first time its name, written to the disk."""
        os.fsync(self._descriptor)
        if not self._named and sys.platform != "win32":
            self._named = True
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def close(self) -> None:
        """Close the file, and let others write it."""
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)


def _write(descriptor: int, data: bytes) -> None:
    written = os.write(descriptor, data)
    if written != len(data):
        raise OSError(f"only {written} of {len(data)} bytes were written")


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
