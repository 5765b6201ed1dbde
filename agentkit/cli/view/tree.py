"""A run as a tree of steps and calls, live or from a trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from typing import TypeVar

from pydantic_core import to_jsonable_python
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from rich.tree import Tree

from agentkit.core.effects import Address, ancestors
from agentkit.events import (
    Event,
    Finished,
    HttpFinished,
    Paused,
    ReasoningDelta,
    Restarted,
    StepFinished,
    StepStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolProgress,
    Warned,
)
from agentkit.messages import Usage
from agentkit.trace.outline import Node, outline, retried, waiting
from agentkit.trace.reader import Trace
from agentkit.trace.summary import now_in
from agentkit.trace.words import FAILED, MARKS, as_text, money, shown

ItemT = TypeVar("ItemT")
_WRITTEN, _NOTES = 400, 2
"""Characters of what is being written, and notes, that are shown while they come."""


class RunTree:
    """The steps and calls of a run by address. Times are in seconds.

    As an event listener (`on_event=tree.event`) it follows a run that is going on. Another
    thread may draw it meanwhile.

    Args:
        title: Its first line; none if it is empty.
        now: Until when what is open has lasted, in a recorded run; None for the clock.
        nodes: The steps and calls so far, by address.

    Attributes:
        moving: Draw only what fits on the screen, what is going on first, and a last line with
            the totals so far.
    """

    def __init__(
        self, title: str, now: float | None = None, nodes: Mapping[str, Node] | None = None
    ) -> None:
        self.title = title
        self.moving = False
        self._now = now
        self._nodes = {**(nodes or {})}
        self._began = monotonic()
        self._doing = ""
        self._used = Usage()

    @property
    def empty(self) -> bool:
        """Whether there are no steps and no calls."""
        return not self._nodes

    def doing(self, what: str) -> None:
        """Name what comes before the first step."""
        self._began, self._doing = monotonic(), what

    def event(self, event: Event) -> None:
        """Take one event of a live run."""
        self._doing = ""
        now = monotonic()
        match event:
            case StepStarted(at=at, model=model):
                self.start(at, "step", model, now)
            case ToolCallStarted(at=at, name=name, arguments=arguments):
                self.start(at, name, arguments, now)
            case StepFinished(at=at, usage=usage, text=text, error=error):
                self.end(at, "error" if error else "ok", error or text, now, usage)
                self._used += usage
            case ToolCallFinished(at=at, status=status, text=text):
                self.end(at, status, text, now)
            case Paused(pending=pending):
                for one in pending:
                    self._nodes[one.at] = waiting(one.call.name, one.call.arguments)
            case Finished(status=status):
                self.stopped("paused" if status == "paused" else "cancelled")
            case _:
                self._inside(event)

    def _inside(self, event: Event) -> None:
        """Take an event of something that goes on: what it writes, and what goes wrong in it."""
        match event:
            case TextDelta(at=at, text=text) | ReasoningDelta(at=at, text=text):
                self._written(at, text)
            case ToolCallDelta(at=at, arguments=text):
                self._written(at, text)
            case ToolProgress(at=at, value=value):
                self._written(at, as_text(to_jsonable_python(value, fallback=repr)), anew=True)
            case Restarted(at=at, reason=reason):
                self._written(at, "", anew=True)
                self.note(at, f"again: {reason}")
            case HttpFinished(at=at, status=status, error=error, delay=delay) if delay is not None:
                self.note(at.parent, retried(status, error, delay))
            case Warned(at=at, text=text):
                self.note(at, text)
            case _:
                pass

    def _written(self, at: str, text: str, *, anew: bool = False) -> None:
        """Keep the end of what a step or a call has written so far."""
        if (node := self._nodes.get(at)) is not None:
            node.result = f"{'' if anew else node.result}{text}"[-_WRITTEN:]

    def stopped(self, status: str) -> None:
        """Let what is still open end, as its run does."""
        for node in self._nodes.values():
            if node.status is None:
                node.status, node.ended, node.result = status, monotonic(), ""

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

    def keep_calls(self) -> None:
        """Drop the steps that have called nothing."""
        above = {up for at in self._nodes for up in ancestors(at)}
        self._nodes = {
            at: node for at, node in self._nodes.items() if node.label != "step" or at in above
        }

    def narrow(self, *, failed: bool, head: int | None, last: int | None) -> None:
        """Keep only some steps and calls, and what they are in."""
        chosen = [at for at, one in self._nodes.items() if not failed or one.status in FAILED]
        kept = {up for at in cut(chosen, head, last) for up in (*ancestors(at), at)}
        self._nodes = {at: node for at, node in self._nodes.items() if at in kept}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the tree as it stands."""
        nodes, left_out = {**self._nodes}, 0
        if self.moving:
            room = console.height - 3  # the title, the totals, and the cursor
            nodes, left_out = _what_moves(nodes, room)
        tree = Tree(Text(shown(self.title, options.max_width - 4), "bold"))
        tree.hide_root = not self.title
        if left_out:
            tree.add(Text(f"… {left_out} more", "dim"))
        branches: dict[str, Tree] = {}
        for at, node in nodes.items():
            above = [branches[up] for up in reversed(ancestors(at)) if up in branches]
            width = max(20, options.max_width - 4 * len(above) - 4)
            branch = (above or [tree])[0].add(self._line(at, node, width, console.is_terminal))
            branches[at] = branch
            for text, style in _texts(node, self.moving):
                end = text[4 - width :] if node.status is None else text
                line = shown(end, width - 4)
                branch.add(Text(line, style, no_wrap=True, overflow="ellipsis"))
        if nodes or self.title:
            yield tree
        if self.moving:
            words = (_working(True), self._doing, totals(monotonic() - self._began, self._used))
            text = " ".join(filter(None, words))
            yield Text(shown(text, options.max_width), "dim", no_wrap=True, overflow="ellipsis")

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
        used = node.usage
        tokens = f", {used.input_tokens} → {used.output_tokens} tokens"
        cost = f", {money(used.cost)}" if used.cost else ""
        for text in (tokens * bool(used.total_tokens), cost):
            if head.cell_len + len(tail + text) + 2 <= width:
                tail += text
        mark, style = MARKS.get(
            node.status or "", (shown(node.status or _working(live), 20), "default")
        )
        end = Text.assemble((f" {mark}", style), (tail, "dim"))
        room = width - head.cell_len - end.cell_len - 1
        if room > 5:
            detail = Text(" " + shown(node.detail, room))
            detail.truncate(room + 1, overflow="ellipsis")
            head += detail
        line = head + end
        line.no_wrap, line.overflow = True, "ellipsis"
        return line


def totals(seconds: float, usage: Usage) -> str:
    """Return what something took so far: its time, tokens and money."""
    used = f"{usage.input_tokens} → {usage.output_tokens} tokens" if usage.total_tokens else ""
    cost = "" if usage.cost is None else money(usage.cost)
    return ", ".join(filter(None, (f"{seconds:.1f} s", used, cost)))


def _texts(node: Node, moving: bool) -> Iterator[tuple[str, str]]:
    """Yield the lines below a step or a call, and their styles."""
    for note in node.notes[-_NOTES:] if moving else node.notes:
        yield f"! {note}", "yellow"
    if node.result and (node.status is not None or moving):
        yield node.result, "dim"


def _what_moves(nodes: Mapping[str, Node], room: int) -> tuple[dict[str, Node], int]:
    """Return the steps and calls that fit into so many lines, and how many do not.

    First what goes on, then what ended last, each with what it is in.
    """
    size = {at: 1 + sum(1 for _ in _texts(node, True)) for at, node in nodes.items()}
    if sum(size.values()) <= room:
        return {**nodes}, 0
    left = room - 1  # the line that counts the others
    newest = sorted(nodes, key=lambda at: _last_change(nodes[at]), reverse=True)
    chosen: set[str] = set()
    for at in newest:
        new = [one for one in (*ancestors(at), at) if one in nodes and one not in chosen]
        left -= sum(size[one] for one in new)
        if left < 0:
            break
        chosen.update(new)
    return {at: node for at, node in nodes.items() if at in chosen}, len(nodes) - len(chosen)


def _last_change(node: Node) -> tuple[bool, float]:
    return node.status is None, node.ended or node.started or 0


def _working(live: bool) -> str:
    return "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[int(monotonic() * 12) % 10] if live else "…"


def tree_of(trace: Trace, *, title: str) -> RunTree:
    """Return the tree of a recorded run."""
    return RunTree(title, now_in(trace), outline(trace.effects))


def cut(items: Sequence[ItemT], head: int | None, last: int | None) -> Sequence[ItemT]:
    """Return the first, or the last, of these, or all."""
    return items[:head] if last is None else items[-last:]
