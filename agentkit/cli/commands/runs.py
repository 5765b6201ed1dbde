"""`agentkit runs`: a list of recorded runs."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.text import Text

from agentkit.cli.console import OUT, AsJson, print_json, print_note, print_rows, shown
from agentkit.cli.find import traces_folder, traces_in
from agentkit.cli.view.describe import damage_named, summary
from agentkit.cli.view.tree import MARKS, as_text, forked_from, money
from agentkit.errors import TraceError
from agentkit.messages import JsonObject
from agentkit.trace.reader import Trace

_WIDE = 110
"""Columns that a row of the table needs."""
_TEXT = {"no_wrap": True}
_NUMBER = {"no_wrap": True, "justify": "right"}
_TITLES: dict[str, Any] = {
    **dict.fromkeys(("when", "run", "agent", "status"), _TEXT),
    **dict.fromkeys(("steps", "tokens", "cost", "seconds"), _NUMBER),
    "prompt": _TEXT,
}
_NARROW_TITLES: dict[str, Any] = {"run": _TEXT, "used": _TEXT, "prompt": _TEXT}


def runs(folder: Path | None = None, /, *, as_json: AsJson = False) -> None:
    """List the recorded runs of a folder, the newest first.

    Args:
        folder: By default where traces go: AGENTKIT_TRACE_DIR, or the state folder's.
        as_json: Print a JSON array.
    """
    places = [] if folder is None else [folder]
    listed = sorted(map(_listed, traces_in(places)), key=_when, reverse=True)
    if not listed:
        print_note(f"There are no runs in {str(folder or traces_folder())!r}.")
    if as_json:
        print_json(listed)
    elif OUT.width < _WIDE:
        print_rows(_NARROW_TITLES, map(_lines, listed), narrow=_WIDE)
    elif listed:
        print_rows(_TITLES, map(_cells, listed))


def _listed(path: Path) -> JsonObject:
    """Return the summary of a run; for a file that cannot be read, why."""
    try:
        trace = Trace.load(path)
        with damage_named(trace):
            return summary(trace)
    except TraceError as error:
        return {"file": str(path), "status": "unreadable", "error": error.message}


def _when(run: JsonObject) -> str:
    return str(run.get("wall") or "")


def _lines(run: JsonObject) -> list[Text]:
    """Return the cells of a run where there is no room for a row of them."""
    *head, steps, tokens, cost, seconds, prompt = _cells(run)
    facts = f"{steps} step{'s' * (steps.plain != '1')}, {tokens} tokens, {cost}, {seconds} s"
    return [
        Text("  ").join(cell for cell in head if cell.plain),
        Text(facts.replace(", ,", ",") if steps.plain else ""),
        prompt,
    ]


def _cells(run: JsonObject) -> list[Text]:
    name = Path(run["file"]).stem
    mark, style = MARKS.get(run["status"], (run["status"], "yellow"))
    word = mark if run["status"] in mark or mark == run["status"] else f"{mark} {run['status']}"
    if run["status"] == "unreadable":
        file = Text(shown(Path(run["file"]).name), "cyan")
        return [Text(""), file, Text(""), Text(word, "red"), *[Text("")] * 4, _cut(run["error"])]
    usage = run["usage"]
    texts = [forked_from(run["fork"])] if run["fork"] else []
    texts += [] if run["prompt"] is None else [as_text(run["prompt"])]
    return [
        Text(_local(run["wall"])),
        Text(shown(name[-8:] if re.fullmatch("[0-9a-f]{32}", name) else name, 24), "cyan"),
        Text(shown(as_text(run["agent"] or ""), 20)),
        Text(word, style),
        Text(str(run["steps"])),
        Text(f"{usage.get('input_tokens', 0)} → {usage.get('output_tokens', 0)}"),
        Text("" if run["cost"] is None else money(run["cost"])),
        Text(f"{run['seconds']:.2f}"),
        _cut("; ".join(texts)),
    ]


def _cut(text: str) -> Text:
    return Text(shown(text, 60 if OUT.width < _WIDE else 100))


def _local(wall: Any) -> str:
    try:
        return datetime.fromisoformat(wall).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, TypeError, OverflowError, OSError):
        return shown(str(wall), 16)
