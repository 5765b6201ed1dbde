"""Opens the trace of a run where `trace=` puts it."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from agentkit.errors import ConfigurationError, TraceError
from agentkit.redaction import Redactor
from agentkit.trace.file import FileSink, MemorySink, NoSink, Sink, cannot_write
from agentkit.trace.logs import followers
from agentkit.trace.reader import Trace
from agentkit.trace.recorder import Durability, Recorder
from agentkit.trace.schema import Capture

TraceTo: TypeAlias = bool | str | os.PathLike[str]
Recorded: TypeAlias = Trace | Path | list[bytes] | Callable[[], list[bytes]] | None
_diagnostics = logging.getLogger("agentkit")


def open_recorder(
    to: TraceTo,
    *,
    run: str,
    program: Callable[[], str],
    redact: Redactor,
    stream: bool = False,
    capture: Capture = "full",
    durability: Durability = "none",
    fork: Mapping[str, Any] | None = None,
    replayed: bool = False,
) -> tuple[Recorder | None, Recorded]:
    """Open the trace of a new run; see `Recorder`. One that is `replayed` asks no model.

    Where the file cannot be written, that is logged once and the trace is kept in memory,
    except with durability "effects".

    Returns:
        The recorder, if anything is recorded or listens, and where the trace is.

    Raises:
        ConfigurationError: The file exists already, or durability "effects" has no file.
        TraceError: The file cannot be written, with durability "effects".
    """
    in_file = isinstance(to, (str, os.PathLike))
    if durability == "effects" and not in_file:
        raise ConfigurationError(
            f"durability='effects' needs trace= to be a file or a folder, not {to!r}."
        )
    following = followers(run, replayed=replayed)
    record = functools.partial(
        Recorder,
        run=run,
        program=program,
        redact=redact,
        stream=stream,
        capture=capture,
        durability=durability,
        followers=following,
        fork=fork,
    )
    recorder = _in_file(to, run, record, durability) if in_file else None
    if recorder is None and (to is not False or following):
        recorder = record(NoSink() if to is False else MemorySink())
    return recorder, recorder and recorder.trace


def _in_file(
    to: str | os.PathLike[str], run: str, record: Callable[[Sink], Recorder], durability: Durability
) -> Recorder | None:
    """Return a recorder that writes a new file; None, and a warning, if it cannot."""
    try:
        path = _file(to, run)
        sink = FileSink(path)
    except TraceError as error:
        if durability == "effects":
            raise
        _diagnostics.warning("%s The trace is kept in memory.", error)
        return None
    recorder = record(sink)
    if recorder.failure is None:
        return recorder
    sink.close()
    with contextlib.suppress(OSError):
        path.unlink()
    if durability == "effects":
        raise recorder.failure
    return None


def _file(to: str | os.PathLike[str], run: str) -> Path:
    """Return the path of a new trace. It is absolute: a run may change its folder.

    Raises:
        TraceError: The path cannot be looked up.
    """
    try:
        path = Path(to).expanduser().absolute()
        folder = path.is_dir() or str(to).endswith(("/", os.sep)) or not path.suffix
    except (OSError, RuntimeError) as error:  # no home, no current folder, no permission
        raise cannot_write(to, error) from error
    return path / f"{run}.jsonl" if folder else path


def reopened(trace: Trace | str | os.PathLike[str]) -> FileSink | MemorySink:
    """Return where an interrupted run is recorded on: its file, locked, or a copy of its lines.

    Raises:
        TraceError: There is no such file, it cannot be written, or its run still goes on.
    """
    if isinstance(trace, Trace) and trace.kept is not None:
        return MemorySink([*trace.kept])
    path = trace.path if isinstance(trace, Trace) else Path(trace)
    try:
        path = path and path.expanduser().absolute()
        if path is not None and path.is_file():
            return FileSink(path, resume=True)
    except (OSError, RuntimeError) as error:
        raise cannot_write(path, error) from error
    raise TraceError(f"There is no trace {str(path)!r}.", path=str(path))
