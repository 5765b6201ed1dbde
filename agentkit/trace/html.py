"""A run as HTML for a notebook: its totals and its outline, self-contained and without script.

All text goes through `shown` and is escaped: a trace is untrusted input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from html import escape

from agentkit.core.effects import ancestors
from agentkit.errors import safe_str
from agentkit.trace.index import RecordedEffects
from agentkit.trace.outline import Node, outline
from agentkit.trace.source import Source
from agentkit.trace.words import FAILED, MARKS, counted, shown, used

LARGE = 1 << 25
"""Bytes of a trace from which on it is not read to be shown."""
NOT_READ = "The trace is large: its steps are not shown."

_FIRST, _LAST = 50, 150
"""Steps and calls that a longer run shows of its beginning and of its end."""
_TEXT = 500
"""Characters of arguments and results that are shown."""
_COLOURS = {"green": "#2da44e", "red": "#e5534b", "yellow": "#c69026"}
"""Readable on white and on black."""


def run_html(
    run: str,
    status: str,
    facts: Sequence[str],
    effects: Callable[[], RecordedEffects] | None,
) -> str:
    """Return the HTML of a run, whatever its trace holds.

    Args:
        run: Its id.
        status: How it ended.
        facts: Totals and places, in words.
        effects: Reads the effects of its trace; None leaves them out.
    """
    try:
        body = "" if effects is None else _outline(effects())
    except Exception as error:  # a trace may hold anything, and be gone
        body = _note(f"The steps cannot be shown: {safe_str(error)}")
    lines = "".join(f'<div style="opacity:.75">{_safe(fact)}</div>' for fact in facts)
    return (
        '<div dir="ltr" style="font:13px/1.5 ui-monospace,monospace;overflow-wrap:anywhere">'
        f"<div><b>run {_safe(run, 60)}</b> {_mark(status)}</div>{lines}{body}</div>"
    )


def trace_html(source: Source, effects: Callable[[], RecordedEffects] | None) -> str:
    """Return the HTML of a recorded run, whatever its trace holds; see `run_html`."""
    header, last = source.events[0], source.events[-1]
    status = str(last["status"]) if last["event"] == "trace.close" else "interrupted"
    seconds = source.event(source.count - 1).get("t", 0) / 1e6
    facts = [f"{counted(source.count, 'line')}, {seconds:.2f} s"]
    with suppress(Exception):  # the outline names what is wrong
        facts += [] if effects is None else [used(effects().usage)]
    facts += [] if source.path is None else [str(source.path)]
    facts += [] if effects is not None else [NOT_READ]
    return run_html(str(header.get("run")), status, facts, effects)


def _note(text: str) -> str:
    return f'<div style="opacity:.75"><i>{_safe(text)}</i></div>'


def _outline(effects: RecordedEffects) -> str:
    """Return the HTML of the steps and calls of a run, of a long one the first and the last."""
    known = [at for at, one in effects.items() if one.kind in ("model", "tool")]
    left_out = max(0, len(known) - _FIRST - _LAST)
    if not left_out:
        return _rows(outline(effects, known))
    return (
        _rows(outline(effects, known[:_FIRST]))
        + _note(f"… {left_out} more steps and calls …")
        + _rows(outline(effects, known[-_LAST:]))
    )


def _rows(nodes: dict[str, Node]) -> str:
    return "".join(_row(at, node, _depth(at, nodes)) for at, node in nodes.items())


def _depth(at: str, nodes: dict[str, Node]) -> int:
    return sum(up in nodes for up in ancestors(at))


def _row(at: str, node: Node, depth: int) -> str:
    figures: list[str] = []
    if node.started is not None and node.ended is not None:
        figures.append(f"{max(0, node.ended - node.started):.2f} s")
    if node.usage.total_tokens:
        figures.append(f"{node.usage.input_tokens} → {node.usage.output_tokens} tokens")
    head = (
        f"<code>{_safe(at.rpartition('/')[2], 40)}</code> <b>{_safe(node.label, 60)}</b> "
        f"<bdi>{_safe(node.detail, 80)}</bdi> {_mark(node.status or 'in_flight')} "
        f'<span style="opacity:.75">{", ".join(figures)} <bdi>{_safe(node.result, 80)}</bdi></span>'
    )
    notes = [f"! {text}" for text in node.notes]
    long = [one for one in (node.detail, node.result) if len(one) > 80 or "\n" in one]
    texts = [_safe(_start(one)) for one in (*notes, *long)]
    place = f'<div style="margin-left:{1.5 * min(depth, 20)}em" title="{_safe(at, 200)}">'
    if not texts:
        return f'{place}<div style="margin-left:1em">{head}</div></div>'
    is_open = " open" if node.status in FAILED else ""
    style = "white-space:pre-wrap;margin:0 0 0 1.5em;opacity:.75"
    below = "".join(f'<pre style="{style}">{text}</pre>' for text in texts)
    return f"{place}<details{is_open}><summary>{head}</summary>{below}</details></div>"


def _mark(status: str) -> str:
    mark, colour = MARKS.get(status, (status, "yellow"))
    return (
        f'<span style="color:{_COLOURS[colour]}" title="{_safe(status, 40)}">{_safe(mark)}</span>'
    )


def _start(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}…"


def _safe(text: str, width: int | None = None) -> str:
    return escape(shown(text, width))
