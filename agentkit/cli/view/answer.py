"""An answer in a chat as it comes: its text, and what is done for it meanwhile."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import Self

from agentkit.cli.console import OUT, print_line, shown
from agentkit.cli.view.progress import Progress, Show, moves
from agentkit.cli.view.tree import totals
from agentkit.events import (
    Event,
    Restarted,
    StepFinished,
    StepStarted,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    Warned,
)
from agentkit.messages import Usage
from agentkit.trace.words import MARKS


class Answer:
    """Streams an answer to the terminal, as a context manager around its run.

    While no text comes, a live tree shows what is going on; where text begins, the calls of
    the tree stay above it. Elsewhere than on a terminal, calls are plain lines.
    """

    def __init__(self, show: Show) -> None:
        self._show = show
        self._moves = show == "tree" and moves()
        self._progress: Progress | None = None
        self._written = False
        self._began, self._used = monotonic(), Usage()

    def __enter__(self) -> Self:
        """Begin to move."""
        if self._moves:
            self._move()
        return self

    def __exit__(self, *_: object) -> None:
        """Stand still."""
        self._rest()

    def event(self, event: Event, own: bool) -> None:
        """Take an event of the run.

        Args:
            event: The event.
            own: It is about a model call of the agent that answers, not of a sub-agent.
        """
        if self._show == "json":
            return
        if isinstance(event, StepFinished):
            self._used += event.usage
        if own and isinstance(event, TextDelta):
            if event.text:
                self._rest()
                OUT.out(shown(event.text), end="", highlight=False)
                self._written = True
        elif self._moves:
            # What it has written is there already.
            self._shown(
                replace(event, text="") if own and isinstance(event, StepFinished) else event
            )
        elif self._show == "tree" and (line := _line_of(event)) is not None:
            self._line(line)

    def print_totals(self) -> None:
        """Print what the answer took."""
        if self._moves:
            print_line(totals(monotonic() - self._began, self._used), "dim")

    def _shown(self, event: Event) -> None:
        if self._progress is None and isinstance(event, (StepStarted, ToolCallStarted)):
            self._line("")
            self._move()
        if self._progress is not None:
            self._progress.event(event)
        elif isinstance(event, (Restarted, Warned)) and (line := _line_of(event)) is not None:
            self._line(line)

    def _line(self, line: str) -> None:
        """Print a line below the text so far, if it has one."""
        if self._written or line:
            print_line(f"\n{line}" if self._written and line else line, "dim")
        self._written = False

    def _move(self) -> None:
        self._progress = Progress("").__enter__()

    def _rest(self) -> None:
        """Leave the calls on the terminal, without the steps that only wrote."""
        if self._progress is not None:
            self._progress.tree.keep_calls()
            self._progress.end(erase=self._progress.tree.empty)
            self._progress = None


def _line_of(event: Event) -> str | None:
    """Return what is shown of an event besides the text of the answer."""
    depth = "  " * (event.at.count("/") // 3)
    match event:
        case ToolCallStarted(name=name, arguments=arguments):
            return shown(f"{depth}{name} {arguments}", OUT.width)
        case ToolCallFinished(status=status, text=text):
            return shown(f"{depth}{MARKS[status][0]} {text}", OUT.width)
        case Restarted(reason=reason):
            return shown(f"(again: {reason})", OUT.width)
        case Warned(text=text):
            return shown(f"{depth}! {text}", OUT.width)
        case _:
            return None
