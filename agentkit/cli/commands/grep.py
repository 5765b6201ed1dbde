"""`agentkit grep`: text in recorded runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from agentkit.cli import find
from agentkit.cli.console import OUT, AsJson, Count, print_json, print_note, shown
from agentkit.cli.find import newest_first, traces_in
from agentkit.cli.view.describe import damage_named
from agentkit.errors import ConfigurationError, TraceError
from agentkit.messages import JsonObject, is_object
from agentkit.trace.effects import RecordedEffect
from agentkit.trace.naming import unpacked
from agentkit.trace.reader import Trace
from agentkit.trace.summary import state_of
from agentkit.trace.words import as_text

_LINE = 400
"""Characters of a matching line that are printed."""
_REPEATING = ("error", "warning")
"""Texts that name a failure once more: in them, each match counts once at an address."""


def grep(
    pattern: str,
    /,
    *places: Path,
    ignore_case: Annotated[bool, Parameter(name=("--ignore-case", "-i"), negative="")] = False,
    failed: Annotated[bool, Parameter(negative="")] = False,
    last: Count = None,
    head: Count = None,
    as_json: AsJson = False,
) -> None:
    """Find text in recorded runs: messages, arguments, results, errors.

    Prints the file, the address and the line; ends with status 1 if nothing is found.

    Args:
        pattern: A regular expression.
        places: Trace files, and folders of them; by default where traces go.
        ignore_case: Ignore upper and lower case.
        failed: Search only the runs that ended, or broke off, without a result.
        last: Search only the newest runs, so many of them.
        head: End after so many lines.
        as_json: Print a JSON array.
    """
    try:
        regex = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigurationError(f"{pattern!r} is not a regular expression: {error}.") from error
    hits: list[JsonObject] = []
    count = 0
    for hit in islice(_hits(regex, _chosen(places, failed, last)), head):
        count += 1
        if as_json:
            hits.append(hit)
        else:
            _print_hit(regex, hit)
    if as_json:
        print_json(hits)
    if not count:
        sys.exit(1)


def _chosen(places: tuple[Path, ...], failed: bool, last: int | None) -> Iterator[Trace]:
    """Yield the runs to search; of the newest only so many, the newest first."""
    paths = [*traces_in(places)]
    traces = _loaded(paths if last is None else newest_first(paths))
    return islice((one for one in traces if not failed or find.failed(state_of(one))), last)


def _loaded(paths: Iterable[Path]) -> Iterator[Trace]:
    for path in paths:
        try:
            yield Trace.load(path)
        except TraceError as error:
            print_note(error.message)


def _hits(regex: re.Pattern[str], traces: Iterable[Trace]) -> Iterator[JsonObject]:
    for trace in traces:
        try:
            with damage_named(trace):
                for at, kind, line in _lines(regex, trace):
                    yield {"file": str(trace.path), "at": at, "kind": kind, "line": line}
        except TraceError as error:
            print_note(error.message)


def _lines(regex: re.Pattern[str], trace: Trace) -> Iterator[tuple[str, str, str]]:
    """Yield the lines that match. What a failure repeats of its result is left out."""
    seen: set[tuple[str, str]] = set()
    for at, kind, text in _texts(trace):
        for line in text.splitlines():
            match = regex.search(line)
            if match is None:
                continue
            if kind in _REPEATING and (at, match[0]) in seen:
                continue
            seen.add((at, match[0]))
            yield at, kind, line


def _texts(trace: Trace) -> Iterator[tuple[str, str, str]]:
    """Yield every text of a run once, where it first appears."""
    seen: set[str] = set()
    for at, effect in trace.effects.items():
        if effect.arguments:
            yield at, "arguments", effect.arguments
        yield from ((at, "progress", as_text(one)) for one in effect.progress)
        for name in _messages(trace, effect):
            if name in seen or name not in trace.blobs:
                continue
            seen.add(name)
            data = trace.blob(name)
            kind = "result" if data["role"] == "tool" else as_text(data["role"])
            for key in ("content", "reasoning", "refusal"):
                if data.get(key) is not None:
                    yield at, kind, as_text(unpacked(data[key]))
        error = effect.error
        if error is not None and effect.kind != "agent":  # which only repeats it
            yield at, "error", f"{error.type}: {error.message}"
            yield at, "error", error.traceback or ""
        yield from ((at, "warning", one.text or one.code) for one in effect.warnings)


def _messages(trace: Trace, effect: RecordedEffect) -> Iterator[str]:
    """Yield the names of the messages that an effect began with, and came to."""
    if effect.kind == "agent":
        began_with = trace.blobs.get((effect.start or {}).get("input", ""))
        yield from began_with["messages"] if is_object(began_with) else ()
    yield from effect.messages
    if effect.message is not None:
        yield effect.message


def _print_hit(regex: re.Pattern[str], hit: JsonObject) -> None:
    line: str = hit["line"]
    match = regex.search(line)
    start = max(0, match.start() - _LINE // 2) if match is not None and len(line) > _LINE else 0
    text = Text(shown(f"{'…' * (start > 0)}{line[start:]}", _LINE))
    text.highlight_regex(regex, "bold red")
    head = Text.assemble((shown(hit["file"]), "magenta"), " ", (shown(hit["at"]), "cyan"))
    OUT.print(head + Text(f" {shown(hit['kind'], 20)}: ") + text, soft_wrap=True)
