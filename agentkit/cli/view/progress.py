"""What moves while a run goes on: a live tree on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from rich.live import Live

from agentkit.cli.console import OUT, print_note
from agentkit.cli.view.tree import RunTree
from agentkit.events import Event, StepFinished, StepStarted, ToolCallFinished, ToolCallStarted


@contextmanager
def following(tree: RunTree) -> Generator[None]:
    """Show a tree as it grows, from the first moment on; elsewhere the finished one."""
    if OUT.is_terminal:
        with Live(tree, console=OUT, refresh_per_second=12) as live:
            _LIVE.append(live)
            try:
                yield
            finally:
                _LIVE.remove(live)
        return
    try:
        yield
    finally:
        OUT.print(tree)


_LIVE: list[Live] = []


@contextmanager
def standing_still() -> Generator[None]:
    """Leave the terminal to a question while a tree is shown."""
    for live in _LIVE:
        live.stop()
    try:
        yield
    finally:
        for live in _LIVE:
            live.start()


class Progress:
    """What a run is at: in the last line of its tree, or in lines on stderr.

    As an event listener (`on_event=progress.event`) it also feeds the tree.
    """

    def __init__(self, tree: RunTree) -> None:
        self._tree = tree

    def doing(self, what: str) -> None:
        """Begin something that comes before the first step, such as loading a model."""
        self._tree.doing(what)
        if not OUT.is_terminal:
            print_note(f"{what} …")

    def event(self, event: Event) -> None:
        """Take one event of the run."""
        self._tree.event(event)
        if OUT.is_terminal:
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
