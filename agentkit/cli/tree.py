"""A run as a tree of steps and calls, live or from a trace.

Everything that a model, a tool or a trace said is hostile here: `shown` makes
control characters visible, and no text is ever read as markup.
"""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from agentkit.events import (
    Event,
    Finished,
    StepFinished,
    StepStarted,
    ToolCallFinished,
    ToolCallStarted,
    Warned,
)
from agentkit.messages import JsonObject, Usage
from agentkit.trace.reader import Trace

__all__ = ["RunTree", "shown", "tree_of"]

_STYLES = {"ok": "green", "error": "red", "timeout": "red", "cancelled": "yellow", "limit": "red"}
_MARKS = {"ok": "✓", "error": "✗", "timeout": "✗", "cancelled": "⊘", "limit": "✗"}


def shown(text: str, width: int | None = None) -> str:
    """The text with control, bidirectional and other invisible characters made visible."""
    safe = "".join(
        char
        if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
    if width is None:
        return safe
    line = " ".join(safe.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


@dataclass(slots=True)
class _Node:
    label: str
    detail: str
    started: float
    ended: float | None = None
    status: str | None = None
    result: str = ""
    usage: Usage = Usage()
    called: bool = False
    notes: list[str] = field(default_factory=list[str])


class RunTree:
    """The steps and calls of a run by address. Times are in seconds.

    As an event listener (`on_event=tree.event`) it follows a run that is going on.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.status: str | None = None
        self.usage = Usage()
        self._nodes: dict[str, _Node] = {}

    def event(self, event: Event) -> None:
        """Take one event of a live run."""
        now = monotonic()
        match event:
            case StepStarted(at=at, model=model):
                self.start(at, "step", model, now)
            case ToolCallStarted(at=at, name=name, arguments=arguments):
                self.start(at, name, arguments, now)
            case StepFinished(at=at, usage=usage, text=text, error=error, finish=finish):
                self.end(at, "error" if error else "ok", error or text, now, usage)
                self.asked(at, finish == "tool_calls")
            case ToolCallFinished(at=at, status=status, text=text):
                self.end(at, status, text, now)
            case Warned(at=at, text=text):
                self.note(at, text)
            case Finished(status=status):
                self.status = status
            case _:
                pass

    def start(self, at: str, label: str, detail: str, time: float) -> None:
        """Something begins."""
        self._nodes[at] = _Node(label=label, detail=detail, started=time)

    def end(
        self, at: str, status: str, result: str, time: float, usage: Usage | None = None
    ) -> None:
        """It has ended."""
        node = self._nodes[at]
        node.status, node.result, node.ended = status, result, time
        node.usage = usage or Usage()
        self.usage += node.usage

    def asked(self, at: str, called: bool) -> None:
        """Whether the model asked for tool calls at this step."""
        self._nodes[at].called = called

    def note(self, at: str, text: str) -> None:
        """Something worth a line was said at this address."""
        if at in self._nodes:
            self._nodes[at].notes.append(text)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The tree as it stands."""
        width = max(20, options.max_width - 34)
        tree = Tree(Text(shown(self.title, options.max_width - 4), style="bold"))
        branches: dict[str, Tree] = {}
        for at, node in self._nodes.items():
            parents = (branches[up] for up in _ancestors(at) if up in branches)
            live = console.is_terminal
            branch = next(parents, tree).add(self._line(at, node, width, live))
            branches[at] = branch
            for note in node.notes:
                branch.add(Text(shown(f"! {note}", width), style="yellow"))
            if node.result and node.status is not None:
                branch.add(Text(shown(node.result, width), style="dim"))
            if node.called and f"{at}/t0" not in self._nodes and self.status is not None:
                branch.add(Text("asked for the same calls again; told to answer", style="dim"))
        yield tree

    def _line(self, at: str, node: _Node, width: int, live: bool) -> Table:
        line = Table.grid(padding=(0, 1))
        name = at.rpartition("/")[2]
        text = Text(f"{name} ", style="cyan") + Text(shown(node.label, 40), style="bold")
        text += Text(" " + shown(node.detail, width), style="default")
        elapsed = (node.ended if node.ended is not None else monotonic()) - node.started
        tail = f"{elapsed:.2f} s"
        if node.usage.total_tokens:
            tail += f", {node.usage.input_tokens} → {node.usage.output_tokens} tokens"
        if node.status is None:
            waiting = Spinner("dots") if live else Text("…")
            line.add_row(text, waiting, Text(tail if node.ended is None else "", "dim"))
        else:
            style = _STYLES.get(node.status, "default")
            mark = Text(_MARKS.get(node.status, node.status), style=style)
            line.add_row(text, mark, Text(tail, "dim"))
        return line


def _ancestors(at: str) -> list[str]:
    """The addresses above, nearest first."""
    parts = at.split("/")
    return ["/".join(parts[:length]) for length in range(len(parts) - 1, 1, -1)]


def tree_of(trace: Trace, *, title: str) -> RunTree:
    """The tree of a recorded run."""
    tree = RunTree(title)
    for event in trace.events:
        at, time = event.get("at", ""), event["t"] / 1e6
        match event["event"]:
            case "model.start":
                tree.start(at, "step", event["model"], time)
            case "tool.start":
                tree.start(at, event["tool"], _text(event["arguments"]), time)
            case "model.end" | "tool.end":
                usage = Usage.from_json(event.get("usage", {}))
                tree.end(at, event["status"], _result(trace, event), time, usage)
                tree.asked(at, event.get("finish") == "tool_calls")
            case "warning":
                tree.note(at, _text(event["text"]))
            case _:
                pass
    tree.status = trace.status
    return tree


def _result(trace: Trace, event: JsonObject) -> str:
    if "message" in event:
        content = trace.blob(event["message"]).get("content")
        return "" if content is None else _text(content)
    return _text(event.get("error", {}).get("message", ""))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
