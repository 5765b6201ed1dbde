"""A run as a tree of steps and calls, live or from a trace."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from rich.tree import Tree

from agentkit.cli.console import shown
from agentkit.cli.view.unrun import unrun
from agentkit.core.effects import ancestors
from agentkit.events import (
    Event,
    Finished,
    HttpFinished,
    Paused,
    StepFinished,
    StepStarted,
    ToolCallFinished,
    ToolCallStarted,
    Warned,
)
from agentkit.messages import JsonObject, Usage, is_object
from agentkit.trace.reader import Trace

MARKS = {
    "ok": ("✓", "green"),
    "error": ("✗", "red"),
    "timeout": ("✗ timeout", "red"),
    "limit": ("✗ limit", "red"),
    "cancelled": ("⊘", "yellow"),
    "paused": ("?", "yellow"),
    "deny": ("⊘ denied", "yellow"),
    "answer": ("✓ answered", "green"),
    "decided": ("⊘ not run", "yellow"),
}
"""How a status is shown, and in which colour."""


@dataclass(slots=True)
class _Node:
    label: str
    detail: str
    started: float
    ended: float | None = None
    status: str | None = None
    result: str = ""
    usage: Usage = Usage()
    repeats: bool = False
    notes: list[str] = field(default_factory=list[str])


class RunTree:
    """The steps and calls of a run by address. Times are in seconds.

    As an event listener (`on_event=tree.event`) it follows a run that is going on.
    """

    def __init__(self, title: str) -> None:
        self.title = title
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
            case StepFinished(at=at, usage=usage, text=text, error=error):
                self.end(at, "error" if error else "ok", error or text, now, usage)
            case ToolCallFinished(at=at, status=status, text=text):
                self.end(at, status, text, now)
            case Paused(pending=pending):
                for one in pending:
                    self.waits(one.at, one.call.name, one.call.arguments, now)
            case HttpFinished(at=at, status=status, error=error, delay=delay):
                self.attempted(at, status, error, delay)
            case Warned(at=at, text=text):
                self.note(at, text)
            case Finished(status=status):
                self._finished(status, now)
            case _:
                pass

    def _decided_before(self, step: str) -> None:
        """A step follows: the calls before it that waited were decided about, and not run."""
        agent = step.rpartition("/")[0]
        for at, node in self._nodes.items():
            if node.status == "paused" and at.rsplit("/", 2)[0] == agent:
                node.status, node.result = "decided", ""

    def _finished(self, status: str, now: float) -> None:
        for node in self._nodes.values():
            if status == "paused" and node.status is None:
                node.status, node.ended = status, now  # what waits is inside

    def start(self, at: str, label: str, detail: str, time: float) -> None:
        """Something begins."""
        if label == "step":
            self._decided_before(at)
        notes = self._nodes[at].notes if at in self._nodes else []
        self._nodes[at] = _Node(label=label, detail=detail, started=time, notes=notes)

    def waits(self, at: str, label: str, detail: str, time: float) -> None:
        """A call waits for somebody to decide about it."""
        self.start(at, label, detail, time)
        self.end(at, "paused", "waits for a decision", time)

    def end(
        self, at: str, status: str, result: str, time: float, usage: Usage | None = None
    ) -> None:
        """It has ended."""
        node = self._nodes.setdefault(at, _Node(label="?", detail="", started=time))
        node.status, node.result, node.ended = status, result, time
        node.usage = usage or Usage()
        self.usage += node.usage

    def attempted(self, at: str, status: Any, error: str | None, delay: float | None) -> None:
        """An HTTP attempt has ended; the next one begins after `delay` seconds, if there is one."""
        if delay is not None:
            said = error or f"HTTP status {status}"
            self.note(at.rpartition("/")[0], f"{said}; asked again after {delay:.2g} s")

    def answered(self, at: str, answer: JsonObject) -> None:
        """Somebody has decided about a call that waited."""
        node, kind = self._nodes.get(at), answer["decision"]
        if node is not None and kind in ("deny", "answer"):
            node.status, node.result = kind, decided(answer)
        elif node is not None:
            node.result = ""
            node.notes.append(decided(answer))

    def note(self, at: str, text: str) -> None:
        """Something worth a line was said at this address."""
        if at in self._nodes:
            self._nodes[at].notes.append(text)

    def know(self, trace: Trace) -> None:
        """Take over what the run's trace has and no event tells: the calls that did not run."""
        steps, nodes = unrun(trace), dict[str, _Node]()
        for at, node in self._nodes.items():
            nodes.setdefault(at, node)
            calls = steps.get(at, {})
            node.repeats = calls is None
            for place, one in (calls or {}).items():  # all of the step's, so in their order
                nodes[place] = self._nodes.get(place) or _Node(
                    label=as_text(one.name),
                    detail=as_text(one.arguments),
                    started=node.started,
                    status=one.status,
                    result=as_text(one.said),
                )
        self._nodes = nodes

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The tree as it stands."""
        tree = Tree(Text(shown(self.title, options.max_width - 4), style="bold"))
        branches: dict[str, Tree] = {}
        for at, node in self._nodes.items():
            above = [branches[up] for up in reversed(ancestors(at)) if up in branches]
            width = max(20, options.max_width - 4 * len(above) - 4)
            branch = (above or [tree])[0].add(self._line(at, node, width, console.is_terminal))
            branches[at] = branch
            for note in node.notes:
                branch.add(Text(shown(f"! {note}", width - 4), style="yellow"))
            if node.result and node.status is not None:
                branch.add(Text(shown(node.result, width - 4), style="dim"))
            if node.repeats:
                branch.add(Text("asked for the same calls again; told to answer", style="dim"))
        yield tree

    def _line(self, at: str, node: _Node, width: int, live: bool) -> Text:
        name = at.rpartition("/")[2]
        head = Text.assemble((f"{name} ", "cyan"), (shown(node.label, 40), "bold"))
        elapsed = (node.ended if node.ended is not None else monotonic()) - node.started
        timed = node.ended is not None or (live and node.status is None)
        tail = f" {elapsed:.2f} s" if timed else ""
        tokens = f", {node.usage.input_tokens} → {node.usage.output_tokens} tokens"
        if node.usage.total_tokens and head.cell_len + len(tail + tokens) + 2 <= width:
            tail += tokens
        mark, style = MARKS.get(node.status or "", (node.status or _working(live), "default"))
        end = Text.assemble((f" {mark}", style), (tail, "dim"))
        room = width - head.cell_len - end.cell_len - 1
        if room > 5:
            detail = Text(" " + shown(node.detail, room))
            detail.truncate(room + 1, overflow="ellipsis")
            head += detail
        return head + end


def _working(live: bool) -> str:
    return "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[int(monotonic() * 12) % 10] if live else "…"


def tree_of(trace: Trace, *, title: str) -> RunTree:
    """The tree of a recorded run."""
    tree = RunTree(title)
    for event in trace.events:
        at, time = event.get("at", ""), event["t"] / 1e6
        match event["event"]:
            case "model.start":
                tree.start(at, "step", as_text(event["model"]), time)
            case "tool.start":
                tree.start(at, as_text(event["tool"]), as_text(event.get("arguments", "")), time)
            case "model.end" | "tool.end":
                usage = Usage.from_json(event.get("usage", {}))
                tree.end(at, event["status"], _result(trace, event), time, usage)
            case "warning":
                tree.note(at, as_text(event.get("text", event.get("code"))))
            case "http.end":
                delay = event.get("delay")
                told = as_text(event["error"]) if "error" in event else None
                tree.attempted(at, event.get("status"), told, delay and delay / 1e6)
            case "gate.ask":
                tree.waits(at, as_text(event["call"]), as_text(event.get("arguments", "")), time)
            case "gate.answer":
                tree.answered(at, event)
            case _:
                pass
    tree.know(trace)
    return tree


def _result(trace: Trace, event: JsonObject) -> str:
    if "message" in event and event["message"] in trace.blobs:
        content = trace.blob(event["message"]).get("content")
        return "" if content is None else as_text(content)
    return as_text(event.get("error", {}).get("message", ""))


def as_text(value: Any) -> str:
    """Text as it is, and anything else as JSON in one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def decided(answer: JsonObject) -> str:
    """What was decided about a call, in words."""
    by = f" by {as_text(answer['by'])}" if answer.get("by") else ""
    reason = f": {as_text(answer['reason'])}" if answer.get("reason") else ""
    return f"{as_text(answer['decision'])}{by}{reason}"


def forked_from(fork: JsonObject) -> str:
    """What a run is a fork of, in words, as its trace's header has it."""
    patch = fork.get("patch") or {"done again": ""}
    changes = ", ".join(
        f"{value['kind']} {as_text(value.get('text', ''))}".strip()
        if is_object(value) and "kind" in value  # a decision
        else f"{name} {as_text(value)}".strip()
        for name, value in patch.items()
    )
    place = f" at {as_text(fork['at'])}" if fork.get("at") else ""
    return f"fork of {as_text(fork.get('run'))[-8:]}{place}: {changes}"


def pretty(output: Any) -> str:
    """Text as it is, and anything else as JSON to read."""
    return output if isinstance(output, str) else json.dumps(output, indent=2, ensure_ascii=False)


def used(usage: Usage) -> str:
    """What a run has used, in words."""
    cost = "" if usage.cost is None else f", {money(usage.cost)}"
    return (
        f"{usage.requests} model call{'s' * (usage.requests != 1)}, {usage.input_tokens} input and "
        f"{usage.output_tokens} output tokens{cost}"
    )


def money(cost: float) -> str:
    """An amount in USD."""
    return f"${cost:.4f}" if cost >= 0.0001 or not cost else "<$0.0001"
