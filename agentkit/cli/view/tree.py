"""A run as a tree of steps and calls, live or from a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from rich.tree import Tree

from agentkit.cli.console import shown
from agentkit.core.effects import Address, ancestors
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
from agentkit.messages import Usage
from agentkit.trace.effects import RecordedEffect
from agentkit.trace.reader import Trace
from agentkit.trace.summary import now_in
from agentkit.trace.words import FAILED, MARKS, as_text, decided

ItemT = TypeVar("ItemT")


@dataclass(slots=True)
class _Node:
    label: str
    detail: str
    started: float | None
    ended: float | None = None
    status: str | None = None
    result: str = ""
    usage: Usage = Usage()
    notes: list[str] = field(default_factory=list[str])


class RunTree:
    """The steps and calls of a run by address. Times are in seconds.

    As an event listener (`on_event=tree.event`) it follows a run that is going on.

    Args:
        title: Its first line.
        now: Until when what is open has lasted, in a recorded run; None for the clock.
    """

    def __init__(self, title: str, now: float | None = None) -> None:
        self.title = title
        self._now = now
        self._nodes: dict[str, _Node] = {}
        self._doing: tuple[str, float] | None = None

    def doing(self, what: str) -> None:
        """Show on a terminal what comes before the first step."""
        self._doing = what, monotonic()

    def event(self, event: Event) -> None:
        """Take one event of a live run."""
        self._doing = None
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
                    self.waits(one.at, one.call.name, one.call.arguments)
            case HttpFinished(at=at, status=status, error=error, delay=delay):
                self.attempted(at, status, error, delay)
            case Warned(at=at, text=text):
                self.note(at, text)
            case Finished(status=status):
                self._finished(status, now)
            case _:
                pass

    def _finished(self, status: str, now: float) -> None:
        for node in self._nodes.values():
            if status == "paused" and node.status is None:
                node.status, node.ended = status, now  # what waits is inside

    def start(self, at: str, label: str, detail: str, time: float | None) -> None:
        """Add what begins; what never began has no time."""
        notes = self._nodes[at].notes if at in self._nodes else []
        self._nodes[at] = _Node(label=label, detail=detail, started=time, notes=notes)

    def waits(self, at: str, label: str, detail: str) -> None:
        """Add a call that waits for a decision."""
        self.start(at, label, detail, None)
        self.end(at, "paused", "waits for a decision", None)

    def end(
        self, at: str, status: str, result: str, time: float | None, usage: Usage | None = None
    ) -> None:
        """Note how a node ended."""
        node = self._nodes.setdefault(at, _Node(label="?", detail="", started=time))
        node.status, node.result, node.ended = status, result, time
        node.usage = usage or Usage()

    def attempted(self, at: str, status: Any, error: str | None, delay: float | None) -> None:
        """Note an HTTP attempt after which the next one begins, after `delay` seconds."""
        if delay is not None:
            problem = error or f"HTTP status {status}"
            self.note(at.rpartition("/")[0], f"{problem}; asked again after {delay:.2g} s")

    def note(self, at: str, text: str) -> None:
        """Add a line to a node."""
        if at in self._nodes:
            self._nodes[at].notes.append(text)

    def know(self, trace: Trace) -> None:
        """Add what the run's trace has and no event tells: the calls that no tool ran."""
        for at, effect in trace.effects.items():
            step = self._nodes.get(Address(at).parent)
            if effect.skipped == "repeated" and step is not None:
                step.result = step.result or "not run: these calls repeat earlier ones"
            elif effect.skipped is not None and step is not None:
                status, result = _why_skipped(trace, effect)
                self.start(at, effect.name, effect.arguments, None)
                self._nodes[at].status, self._nodes[at].result = status, result
            elif effect.kind == "model" and at in self._nodes:
                self._add_unknown(trace, effect)
        self._nodes = dict(sorted(self._nodes.items(), key=lambda node: Address(node[0]).order))

    def _add_unknown(self, trace: Trace, step: RecordedEffect) -> None:
        """Add the calls of an answer that nothing became of before the run paused or broke off."""
        agent = trace.effects.get(step.at.parent)
        answer = trace.blobs.get(step.message or "", {})
        for index, call in enumerate(answer.get("tool_calls") or ()):
            at, function = step.at.call(index), call["function"]
            if at not in self._nodes and at not in trace.effects:
                self.start(
                    at,
                    as_text(function["name"]),
                    as_text(function["arguments"]),
                    None,
                )
                if agent is not None and agent.end is not None:
                    self._nodes[at].status = "paused" if agent.status == "paused" else "skipped"

    def narrow(self, *, failed: bool, head: int | None, last: int | None) -> None:
        """Keep only some steps and calls, and what they are in."""
        chosen = [at for at, one in self._nodes.items() if not failed or one.status in FAILED]
        kept = {up for at in cut(chosen, head, last) for up in (*ancestors(at), at)}
        self._nodes = {at: node for at, node in self._nodes.items() if at in kept}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the tree as it stands."""
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
        yield tree
        doing = self._doing  # another thread may end it
        if doing is not None and console.is_terminal:
            what, since = doing
            yield Text(f"{_working(True)} {what} {monotonic() - since:.1f} s", "dim")

    def _line(self, at: str, node: _Node, width: int, live: bool) -> Text:
        name = at.rpartition("/")[2]
        head = Text.assemble((f"{shown(name, 40)} ", "cyan"), (shown(node.label, 40), "bold"))
        live = live and self._now is None
        until = self._now if node.status is None else node.ended
        if until is None and live and node.status is None:
            until = monotonic()
        tail = ""
        if node.started is not None and until is not None:
            tail = f" {max(0, until - node.started):.2f} s"
        tokens = f", {node.usage.input_tokens} → {node.usage.output_tokens} tokens"
        if node.usage.total_tokens and head.cell_len + len(tail + tokens) + 2 <= width:
            tail += tokens
        mark, style = MARKS.get(
            node.status or "", (shown(node.status or _working(live), 20), "default")
        )
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
    """Return the tree of a recorded run."""
    tree = RunTree(title, now_in(trace))
    for at, effect in trace.effects.items():
        if effect.kind in ("model", "tool") and effect.skipped is None:
            _add(tree, trace, at, effect)
    tree.know(trace)
    return tree


def _add(tree: RunTree, trace: Trace, at: str, effect: RecordedEffect) -> None:
    """Add a model call or a tool call to a tree."""
    if effect.began is None or effect.in_doubt:
        tree.waits(at, effect.name, effect.arguments)
        return
    label = "step" if effect.kind == "model" else effect.name
    detail = _model(effect) if effect.kind == "model" else effect.arguments
    tree.start(at, label, detail, effect.began.t / 1e6)
    for warning in effect.warnings:
        tree.note(at, warning.text or warning.code)
    for one in effect.attempts:
        tree.attempted(one.at, one.status, one.error, one.delay and one.delay / 1e6)
    if effect.decision is not None:
        tree.note(at, decided(effect.decision))
    if effect.end is not None and effect.ended is not None:
        content = trace.blobs.get(effect.message or "", {}).get("content")
        error = effect.error.message if effect.error is not None else ""
        result = error if content is None else as_text(content)
        usage = Usage.from_json(effect.end.get("usage", {}))
        tree.end(at, effect.status, result, effect.ended.t / 1e6, usage)


def _model(effect: RecordedEffect) -> str:
    """Return the name of a model, and before it that of the one that answered in its place."""
    match (effect.end or {}).get("response"):
        case {"extra": {"answered_by": str(name)}}:
            return f"{name} of {effect.name}"
        case _:
            return effect.name


def _why_skipped(trace: Trace, effect: RecordedEffect) -> tuple[str, str]:
    """Return how a call is shown that no tool ran: a status of `MARKS`, and a text."""
    text = as_text(trace.blobs.get(effect.message or "", {}).get("content") or "")
    match effect.skipped:
        case "output":
            return "ok", "the output"
        case "handoff":
            return "ok", text
        case "denied" | "answered" if effect.decision is not None:
            return effect.skipped, decided(effect.decision)
        case _:
            return "skipped" if text.startswith("Not executed") else "error", text


def cut(items: Sequence[ItemT], head: int | None, last: int | None) -> Sequence[ItemT]:
    """Return the first, or the last, of these, or all."""
    return items[:head] if last is None else items[-last:]
