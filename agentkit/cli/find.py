"""Where traces are: the folders they go to, and the file that a name stands for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from platformdirs import user_state_path
from pydantic_core import from_json

from agentkit.cli.console import command_line
from agentkit.errors import TraceError
from agentkit.messages import JsonObject, is_object
from agentkit.trace.check import check_replayable
from agentkit.trace.reader import Trace

_FIRST = 1 << 16
"""More bytes than the first line of a trace has."""


def state_folder() -> Path:
    """Return the folder of what stays: `AGENTKIT_STATE_DIR`, or the platform's."""
    folder = os.environ.get("AGENTKIT_STATE_DIR")
    return Path(folder) if folder else user_state_path("agentkit", appauthor=False)


def traces_folder() -> Path:
    """Return where traces go by default: `AGENTKIT_TRACE_DIR`, or the state folder's."""
    folder = os.environ.get("AGENTKIT_TRACE_DIR")
    return Path(folder).expanduser() if folder else state_folder() / "traces"


def find(trace: Path) -> Path:
    """Return a trace's file by its path, its name without `.jsonl`, or the end of its run.

    It is looked for in the current folder, in `AGENTKIT_TRACE_DIR` and in the state folder.
    """
    text = str(trace)
    if trace.is_dir():
        raise TraceError(
            f"{text!r} is a folder. `{command_line('runs', text)}` lists the runs in it.", path=text
        )
    if trace.exists() or trace.name != text or trace.suffix == ".jsonl":
        return trace
    folders = dict.fromkeys([Path(), traces_folder(), state_folder() / "traces"])
    files = [file for folder in folders for file in _files_in(folder)]
    runs = [file for file in files if file.stem == text]
    if not runs and re.fullmatch("[0-9a-f]{4,32}", text):
        ids = {file: str(header_of(file).get("run", "")) for file in files}
        runs = [file for file in files if file.stem.endswith(text) or ids[file].endswith(text)]
    if len({file.resolve() for file in runs}) == 1:
        return runs[0]
    where = ", ".join(str(folder.absolute()) for folder in folders)
    if runs:
        problem = f"{len(runs)} runs are called {text!r}: {', '.join(map(str, runs[:5]))}"
        problem += " …" * (len(runs) > 5)
    else:
        problem = f"There is no file {text!r}, and no run with this name or end in {where}"
    raise TraceError(
        f"{problem}. `{command_line('runs', 'FOLDER')}` lists the runs in a folder.", path=text
    )


def replayable(trace: Path) -> Trace:
    """Return the trace that a path or a name stands for, checked from end to end."""
    recorded = Trace.load(find(trace))
    check_replayable(recorded)
    return recorded


def header_of(file: Path) -> JsonObject:
    """Return the first event of a trace, read without the rest; empty if the file is not one."""
    try:
        with file.open("rb") as lines:
            header = from_json(lines.readline(_FIRST))
    except (OSError, ValueError):
        return {}
    return header if is_object(header) else {}


def traces_in(places: Sequence[Path]) -> Iterator[Path]:
    """Yield these files, and those in these folders; by default those where traces go."""
    usual = traces_folder()
    if not places and not usual.exists():
        return
    for place in places or [usual]:
        try:
            if place.is_dir():
                yield from _files_in(place)
            elif place.exists():
                yield place
            else:
                raise FileNotFoundError(2, "No such file or folder")
        except OSError as error:
            raise TraceError(f"{str(place)!r} cannot be read: {error.strerror}.") from error


def newest_first(traces: Iterable[Path]) -> list[Path]:
    """Return the traces by when they began; those that cannot be read come last."""
    return sorted(traces, key=lambda file: str(header_of(file).get("wall") or ""), reverse=True)


def failed(status: str) -> bool:
    """Return whether a run with this status has ended, or broken off, without a result."""
    return status not in ("ok", "paused", "running")


def _files_in(folder: Path) -> list[Path]:
    """Return the traces of a folder by name; a pipe would be waited for."""
    return sorted(file for file in folder.glob("*.jsonl") if file.is_file())
