"""Where traces are: the folder they go to, and the one that somebody means."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from agentkit.errors import TraceError
from agentkit.folders import state_folder
from agentkit.trace.reader import Trace

__all__ = ["found", "state_of", "traces_folder", "traces_in"]


def traces_folder() -> Path:
    """Where traces go if nobody says otherwise: `AGENTKIT_TRACE_DIR`, or the state folder's."""
    given = os.environ.get("AGENTKIT_TRACE_DIR")
    return Path(given).expanduser() if given else state_folder() / "traces"


def found(trace: Path) -> Path:
    """The file that somebody names: by its path, or by the end of a run's id.

    Raises:
        TraceError: There is none, or more than one.
    """
    text, folder = str(trace), traces_folder()
    if trace.is_dir():
        raise TraceError(
            f"{text!r} is a folder. `agentkit runs {text}` lists the runs in it.", path=text
        )
    if not trace.exists() and re.fullmatch("[0-9a-f]{4,32}", text):
        runs = [*folder.glob(f"*{text}.jsonl")]
        if len(runs) == 1:
            return runs[0]
        raise TraceError(
            f"There is no file {text!r}, and {len(runs) or 'no'} run{'s' * (len(runs) != 1)} in "
            f"{str(folder)!r} end{'s' * (len(runs) == 1)} so. `agentkit runs` lists them.",
            path=text,
        )
    return trace


def traces_in(places: Sequence[Path]) -> Iterator[Path]:
    """The files that are named, and those in the folders that are; or where traces go.

    Raises:
        TraceError: There is no such file or folder.
    """
    usual = traces_folder()
    if not places and not usual.exists():
        return
    for place in places or [usual]:
        try:
            if place.is_dir():
                yield from sorted(place.glob("*.jsonl"))
            elif place.exists():
                yield place
            else:
                raise FileNotFoundError(2, "No such file or folder")
        except OSError as error:
            raise TraceError(f"{str(place)!r} cannot be read: {error.strerror}.") from error


def state_of(trace: Trace) -> str:
    """How the run ended; `running` if a process is still writing it, where that can be told."""
    if trace.status != "interrupted" or trace.path is None or sys.platform == "win32":
        return trace.status
    import fcntl  # there is none on Windows

    try:
        with trace.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # until it is closed, at once
    except BlockingIOError:
        return "running"
    except OSError:
        pass  # a file system without locks
    return trace.status
