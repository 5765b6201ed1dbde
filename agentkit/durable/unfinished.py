"""Finds the traces of a folder whose runs have not ended."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from pydantic_core import from_json

from agentkit.errors import TraceError
from agentkit.messages import is_object

_TAIL = 1 << 12
"""Bytes at the end of a file that hold its last line, if that is `trace.close`."""
ENDED = ("ok", "error", "limit", "cancelled")
"""How a run may have ended for good."""


def unfinished(folder: str | os.PathLike[str], *, ended: Collection[str] = ENDED) -> list[Path]:
    """Return the traces of a folder whose runs are paused, were interrupted, or still go on.

    Only the end of each file is read, so that a folder of a million runs is looked through in
    a minute.

    Args:
        folder: Its `*.jsonl` files are the traces.
        ended: The statuses of runs that are left out.

    Returns:
        The files by name: those that agentkit names begin with the time of the run.

    Raises:
        TraceError: There is no such folder.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise TraceError(f"There is no folder {str(place)!r} with traces.", path=str(place))
    files = (file for file in place.glob("*.jsonl") if file.is_file())
    return sorted(file for file in files if last_status(file) not in ended)


def last_status(file: Path) -> str | None:
    """Return the status that a trace was closed with; None if it was not, or cannot be read."""
    try:
        with file.open("rb") as lines:
            lines.seek(max(0, lines.seek(0, os.SEEK_END) - _TAIL))
            *_, last = lines.read().rstrip(b"\n").rpartition(b"\n")
        closed = from_json(last) if b'"trace.close"' in last else None
    except (OSError, ValueError):
        return None
    return closed.get("status") if is_object(closed) else None
