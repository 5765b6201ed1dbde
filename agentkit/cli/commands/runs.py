"""`agentkit runs`: a list of recorded runs."""

from __future__ import annotations

import re
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from agentkit.cli import find
from agentkit.cli.console import (
    OUT,
    AsJson,
    Count,
    json_text,
    print_json,
    print_note,
    print_rows,
    shown,
)
from agentkit.cli.find import newest_first, traces_folder, traces_in
from agentkit.cli.view.describe import damage_named
from agentkit.durable.unfinished import ENDED, last_status
from agentkit.errors import TraceError
from agentkit.messages import JsonObject
from agentkit.trace.reader import Trace
from agentkit.trace.summary import summary
from agentkit.trace.words import MARKS, as_text, forked_from, money

_WIDE = 110
"""Columns that a row of the table needs."""
_TEXT = {"no_wrap": True}
_NUMBER = {"no_wrap": True, "justify": "right"}
_TITLES: dict[str, Any] = {
    **dict.fromkeys(("when", "run", "agent", "status"), _TEXT),
    **dict.fromkeys(("steps", "tokens", "cost", "seconds"), _NUMBER),
    "prompt": _TEXT,
}


def runs(
    folder: Path | None = None,
    /,
    *,
    failed: Annotated[bool, Parameter(negative="")] = False,
    unfinished: Annotated[bool, Parameter(negative="")] = False,
    last: Count = None,
    as_json: AsJson = False,
) -> None:
    """List the recorded runs of a folder, the newest first.

    Args:
        folder: By default where traces go: AGENTKIT_TRACE_DIR, or the state folder's.
        failed: List only the runs that ended, or broke off, without a result.
        unfinished: List only the runs that can go on: those that were interrupted, and those that
            wait for a decision.
        last: List only the newest runs, so many of them.
        as_json: Print a JSON array.
    """
    places = [] if folder is None else [folder]
    files = [file for file in traces_in(places) if not unfinished or last_status(file) not in ENDED]
    every = map(_listed, newest_first(files))
    kinds = "failed " * failed + "unfinished " * unfinished
    chosen = (
        one
        for one in every
        if (not failed or find.failed(one[0]["status"]))
        and (not unfinished or one[0]["status"] in ("interrupted", "paused"))
    )
    listed = [*islice(chosen, last)]
    if not listed:
        print_note(f"There are no {kinds}runs in {str(folder or traces_folder())!r}.")
    if as_json:
        print_json([run for run, _ in listed])
    elif listed:
        print_rows(_TITLES, [cells for _, cells in listed], narrow=_WIDE)


def _listed(path: Path) -> tuple[JsonObject, list[Text]]:
    """Return when a run was, its summary and its row; for a file that cannot be read, why."""
    try:
        trace = Trace.load(path)
        with damage_named(trace):
            run = summary(trace)
            json_text(run)
            return run, _cells(run)
    except TraceError as error:
        run = {"file": str(path), "status": "unreadable", "error": error.message}
        return run, _cells(run)


def _cells(run: JsonObject) -> list[Text]:
    status, file = run["status"], Path(run["file"])
    mark, style = MARKS.get(status, (shown(status, 20), "yellow"))
    word = Text(mark if shown(status) in mark else f"{mark} {shown(status, 20)}", style)
    if OUT.options.ascii_only:  # the sign of "ok" is "ok" there
        word = Text(shown(status, 20), style)
    if status == "unreadable":
        empty = Text("")
        name = Text(shown(file.name), "cyan")
        return [empty, name, empty, word, empty, empty, empty, empty, _cut(run["error"])]
    name = file.stem[-8:] if re.fullmatch("[0-9a-f]{32}", file.stem) else file.stem
    usage = run["usage"]
    texts = [forked_from(run["fork"])] if run["fork"] else []
    texts += [] if run["prompt"] is None else [as_text(run["prompt"])]
    return [
        Text(_local(run["wall"])),
        Text(shown(name, 24), "cyan"),
        Text(shown(as_text(run["agent"] or ""), 20)),
        word,
        Text(str(run["steps"])),
        Text(f"{usage.get('input_tokens', 0)} → {usage.get('output_tokens', 0)}"),
        Text("" if run["cost"] is None else money(run["cost"])),
        Text(f"{run['seconds']:.2f}"),
        _cut("; ".join(texts)),
    ]


def _cut(text: str) -> Text:
    return Text(shown(text, min(100, OUT.width * 2)))


def _local(wall: Any) -> str:
    try:
        return datetime.fromisoformat(wall).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, TypeError, OverflowError, OSError):
        return shown(str(wall), 16)
