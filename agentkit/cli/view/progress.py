"""What moves while a run goes on: a live tree on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Literal, Self, TypeAlias

from cyclopts import Parameter
from rich.live import Live

from agentkit.cli.console import OUT, print_note
from agentkit.cli.view.tree import RunTree
from agentkit.errors import ConfigurationError
from agentkit.events import Event, StepFinished, StepStarted, ToolCallFinished, ToolCallStarted

Quiet: TypeAlias = Annotated[bool, Parameter(negative="")]
Show: TypeAlias = Literal["tree", "quiet", "json"]
"""What a command prints of a run: everything, the output alone, or one JSON document."""


def what_to_show(quiet: bool, json: bool) -> Show:
    """Return what `--quiet` and `--json` ask for."""
    if quiet and json:
        raise ConfigurationError("--quiet and --json exclude each other; give one of them.")
    return "json" if json else "quiet" if quiet else "tree"


def moves() -> bool:
    """Return whether what was written on the terminal can change."""
    return OUT.is_terminal and OUT.is_interactive


class Progress:
    """A run as it goes on, from the first moment: as a context manager, until `end`.

    As an event listener (`on_event=progress.event`) it follows a run that is performed. One
    that is answered from a recording goes to the tree alone (`progress.tree.event`): lines
    would name models that nobody asks. Left without an event, it leaves nothing.

    Args:
        title: The first line of the tree.
        show: What is shown; only with `tree` does anything move.
    """

    def __init__(self, title: str, show: Show = "tree") -> None:
        self.show: Show = show
        self.tree = RunTree(title)
        self._moves = show == "tree" and moves()
        self._live: Live | None = None
        self._over = False

    def __enter__(self) -> Self:
        """Begin to move, if that has not happened."""
        if self._moves and self._live is None and not self._over:
            self._start()
            _MOVING.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        """End, if that has not happened."""
        self.end(erase=self.tree.empty)

    def end(self, *, erase: bool = False) -> None:
        """Leave the finished tree on the terminal, or nothing."""
        if self._over:
            return
        self._over = True
        if self._moves:
            _MOVING.remove(self)
            self.tree.moving = erase
            self._stop(erase=erase)
        elif self.show == "tree" and not erase:
            OUT.print(self.tree)

    def _start(self) -> None:
        self.tree.moving = True
        # Each start is at the cursor: one that was stopped would go up to where it was.
        self._live = Live(self.tree, console=OUT, refresh_per_second=10)
        self._live.start(refresh=True)

    def _stop(self, *, erase: bool = False) -> None:
        if self._live is not None:
            self._live.transient = erase
            self._live.stop()
            self._live = None

    @contextmanager
    def standing_still(self) -> Generator[None]:
        """Leave the terminal to a question."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    def doing(self, what: str) -> None:
        """Begin something that comes before the first step, such as loading a model."""
        self.tree.doing(what)

    def event(self, event: Event) -> None:
        """Take one event of the run."""
        if self.show != "tree":
            return
        self.tree.event(event)
        if self._moves:
            return
        match event:
            case StepStarted(at=at, model=model):
                print_note(f"{at} asks {model} …")
            case ToolCallStarted(at=at, name=name):
                print_note(f"{at} runs {name} …")
            case StepFinished(at=at, error=error):
                print_note(f"{at} {'failed' if error else 'done'}")
            case ToolCallFinished(at=at, status=status):
                print_note(f"{at} {'done' if status == 'ok' else status}")
            case _:
                pass


_MOVING: list[Progress] = []


@contextmanager
def standing_still() -> Generator[None]:
    """Leave the terminal to a question while a tree is shown."""
    if not _MOVING:
        yield
        return
    with _MOVING[-1].standing_still():
        yield
