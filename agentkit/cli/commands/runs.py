"""The commands that look through many traces: `runs` and `grep`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from agentkit.cli.console import ERR, OUT, AsJson, print_json, print_table
from agentkit.cli.find import traces_folder, traces_in
from agentkit.cli.view.describe import careful, summary
from agentkit.cli.view.tree import MARKS, as_text, forked_from, money, shown
from agentkit.errors import ConfigurationError, TraceError
from agentkit.messages import JsonObject, is_object
from agentkit.trace.reader import Trace, unpacked

__all__ = ["grep", "runs"]

_WIDE = 110
"""Columns that a row of the table needs. Below, a run takes a few lines."""
_LINE = 400
"""Characters of a matching line that are printed."""


# runs


def runs(folder: Path | None = None, /, *, as_json: AsJson = False) -> None:
    """List the recorded runs of a folder, the newest first.

    Args:
        folder: By default where traces go: AGENTKIT_TRACE_DIR, or the state folder's.
        as_json: Print a JSON array.
    """
    places = [] if folder is None else [folder]
    listed = sorted(map(_listed, traces_in(places)), key=_when, reverse=True)
    if not listed:
        where = str(folder or traces_folder())
        ERR.print(Text(shown(f"There are no runs in {where!r}."), "yellow"))
    if as_json:
        print_json(listed)
    elif OUT.width >= _WIDE and listed:
        print_table(_table(listed))
    else:
        for one in listed:
            OUT.print(_block(one))


def _listed(path: Path) -> JsonObject:
    """What is known of a run; of a file that cannot be read, why."""
    try:
        trace = Trace.load(path)
        with careful(trace):
            return summary(trace)
    except TraceError as error:
        return {"file": str(path), "status": "unreadable", "error": error.message}


def _when(run: JsonObject) -> str:
    return str(run.get("wall") or "")


def _table(listed: list[JsonObject]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("when", "run", "agent", "status", "steps", "tokens", "cost", "seconds", "prompt"):
        right = title in ("steps", "tokens", "cost", "seconds")
        table.add_column(title, no_wrap=True, justify="right" if right else "left")
    for run in listed:
        table.add_row(*_cells(run))
    return table


def _block(run: JsonObject) -> Text:
    when, name, agent, status, steps, tokens, cost, seconds, prompt = _cells(run)
    facts = (
        [f"{steps} step{'s' * (run['steps'] != 1)}", f"{tokens} tokens", f"{cost}", f"{seconds} s"]
        if "steps" in run
        else []
    )
    lines = [
        Text("  ").join(one for one in (when, name, agent, status) if one.plain),
        Text(", ".join(one for one in facts if one), "dim"),
        prompt,
    ]
    return Text("\n  ").join(one for one in lines if one.plain)


def _cells(run: JsonObject) -> list[Text]:
    name = Path(run["file"]).stem
    mark, style = MARKS.get(run["status"], (run["status"], "yellow"))
    word = mark if run["status"] in mark or mark == run["status"] else f"{mark} {run['status']}"
    if run["status"] == "unreadable":
        unknown = [Text("")] * 5
        file = Text(shown(Path(run["file"]).name), "cyan")
        return [Text(""), file, Text(""), Text(word, "red"), *unknown[:4], _cut(run["error"])]
    usage = run["usage"]
    said = [forked_from(run["fork"])] if run["fork"] else []
    said += [] if run["prompt"] is None else [as_text(run["prompt"])]
    return [
        Text(_local(run["wall"])),
        Text(shown(name[-8:] if re.fullmatch("[0-9a-f]{32}", name) else name, 24), "cyan"),
        Text(shown(as_text(run["agent"] or ""), 20)),
        Text(word, style),
        Text(str(run["steps"])),
        Text(f"{usage.get('input_tokens', 0)} → {usage.get('output_tokens', 0)}"),
        Text("" if run["cost"] is None else money(run["cost"])),
        Text(f"{run['seconds']:.2f}"),
        _cut("; ".join(said)),
    ]


def _cut(text: str) -> Text:
    return Text(shown(text, 60 if OUT.width < _WIDE else 100))


def _local(wall: Any) -> str:
    try:
        return datetime.fromisoformat(wall).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, TypeError, OverflowError, OSError):
        return shown(str(wall), 16)


# grep


def grep(
    pattern: str,
    /,
    *places: Path,
    ignore_case: Annotated[bool, Parameter(name=("--ignore-case", "-i"), negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Find text in recorded runs: messages, arguments, results, errors.

    Prints the file, the address and the line; ends with status 1 if nothing is found.

    Args:
        pattern: A regular expression.
        places: Trace files, and folders of them; by default where traces go.
        ignore_case: Upper and lower case are the same.
        as_json: Print a JSON array.
    """
    try:
        wanted = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        raise ConfigurationError(f"{pattern!r} is no regular expression: {error}.") from error
    hits: list[JsonObject] = []
    count = 0
    for hit in _hits(wanted, places):
        count += 1
        if as_json:
            hits.append(hit)
        else:
            _print_hit(wanted, hit)
    if as_json:
        print_json(hits)
    if not count:
        sys.exit(1)


def _hits(wanted: re.Pattern[str], places: tuple[Path, ...]) -> Iterator[JsonObject]:
    for path in [*traces_in(places)]:
        try:
            trace = Trace.load(path)
            with careful(trace):
                for at, kind, text in _texts(trace):
                    for line in text.splitlines():
                        if wanted.search(line):
                            yield {"file": str(path), "at": at, "kind": kind, "line": line}
        except TraceError as error:
            ERR.print(Text(shown(error.message), "yellow"))


def _texts(trace: Trace) -> Iterator[tuple[str, str, str]]:
    """Every text of a run, once, where it first appeared."""
    seen: set[str] = set()

    def message(name: str) -> Iterator[tuple[str, str]]:
        if name in trace.blobs and name not in seen:
            seen.add(name)
            data = trace.blob(name)
            kind = "result" if data["role"] == "tool" else as_text(data["role"])
            for key in ("content", "reasoning", "refusal"):
                if data.get(key) is not None:
                    yield kind, as_text(unpacked(data[key]))

    for event in trace.events:
        at = event.get("at", "")
        if event["event"] == "agent.start":
            given = trace.blobs.get(event.get("input", ""))
            names = given["messages"] if is_object(given) else ()
        else:
            names = (
                *event.get("messages", ()),
                *([event["message"]] if "message" in event else ()),
            )
        for name in names:
            yield from ((at, kind, text) for kind, text in message(name))
        yield from ((at, kind, text) for kind, text in _said(event))


def _said(event: JsonObject) -> Iterator[tuple[str, str]]:
    """What stands in the event itself."""
    match event["event"]:
        case "tool.start" | "gate.ask":
            yield "arguments", as_text(unpacked(event.get("arguments", "")))
        case "tool.chunks":
            yield "progress", as_text(event["d"])
        case "warning":
            yield "warning", as_text(event.get("text", event.get("code")))
        case "log":
            yield "log", as_text(event)
        case _:
            pass
    error = event.get("error")
    if is_object(error) and event["event"] != "agent.end":  # which only says it again
        said = f"{error.get('type')}: {as_text(error.get('message', ''))}"
        yield "error", as_text(error.get("traceback") or said)


def _print_hit(wanted: re.Pattern[str], hit: JsonObject) -> None:
    line: str = hit["line"]
    match = wanted.search(line)
    start = max(0, match.start() - _LINE // 2) if match is not None and len(line) > _LINE else 0
    text = Text(shown(f"{'…' * (start > 0)}{line[start:]}", _LINE))
    text.highlight_regex(wanted, "bold red")
    head = Text.assemble((shown(hit["file"]), "magenta"), " ", (shown(hit["at"]), "cyan"))
    OUT.print(head + Text(f" {hit['kind']}: ") + text, soft_wrap=True)
