"""A run as a tree of steps and calls, live or from a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import TypeVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from rich.tree import Tree

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
from agentkit.trace.outline import Node, outline, retried, waiting
from agentkit.trace.reader import Trace
from agentkit.trace.summary import now_in
from agentkit.trace.words import FAILED, MARKS, shown

ItemT = TypeVar("ItemT")


class RunTree:
    """The steps and calls of a run by address. Times are in seconds.

    As an event listener (`on_event=tree.event`) it follows a run that is going on.

    Args:
        title: Its first line.
        now: Until when what is open has lasted, in a recorded run; None for the clock.
        nodes: The steps and calls so far, by address.
    """

    def __init__(
        self, title: str, now: float | None = None, nodes: Mapping[str, Node] | None = None
    ) -> None:
        self.title = title
        self._now = now
        self._nodes = {**(nodes or {})}
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
                    self._nodes[one.at] = waiting(one.call.name, one.call.arguments)
            case HttpFinished(at=at, status=status, error=error, delay=delay) if delay is not None:
                self.note(at.parent, retried(status, error, delay))
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
        self._nodes[at] = Node(label=label, detail=detail, started=time, notes=notes)

    def end(
        self, at: str, status: str, result: str, time: float | None, usage: Usage | None = None
    ) -> None:
        """Note how a node ended."""
        node = self._nodes.setdefault(at, Node(label="?", detail="", started=time))
        node.status, node.result, node.ended = status, result, time
        node.usage = usage or Usage()

    def note(self, at: str, text: str) -> None:
        """Add a line to a node."""
        if at in self._nodes:
            self._nodes[at].notes.append(text)

    def know(self, trace: Trace) -> None:
        """Add what the run's trace has and no event tells: the calls that no tool ran."""
        for at, node in outline(trace.effects).items():
            known = self._nodes.get(at)
            if known is not None and (known.started is not None or node.started is not None):
                known.result = known.result or node.result
            elif node.started is None and Address(at).parent in self._nodes:
                self._nodes[at] = node
        self._nodes = dict(sorted(self._nodes.items(), key=lambda node: Address(node[0]).order))

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

    def _line(self, at: str, node: Node, width: int, live: bool) -> Text:
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
    return RunTree(title, now_in(trace), outline(trace.effects))


def cut(items: Sequence[ItemT], head: int | None, last: int | None) -> Sequence[ItemT]:
    """Return the first, or the last, of these, or all."""
    return items[:head] if last is None else items[-last:]
