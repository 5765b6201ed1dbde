"""What every command that runs an agent shows: the tree as it grows, the result, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic_core import to_jsonable_python
from rich.live import Live
from rich.text import Text

from agentkit.cli.console import ERR, OUT
from agentkit.cli.tree import RunTree, pretty, shown, used
from agentkit.errors import AgentKitError, said
from agentkit.run import RunResult

__all__ = ["print_error", "print_result", "told", "watched"]


def watched(tree: RunTree, work: Callable[[], RunResult[Any]]) -> RunResult[Any]:
    """Run with a live tree on a terminal, and with the finished tree elsewhere."""
    if not OUT.is_terminal:
        try:
            return work()
        finally:
            OUT.print(tree)
    with Live(tree, console=OUT, refresh_per_second=12):
        return work()


def print_result(result: RunResult[Any]) -> None:
    """What a run came to, and what it used."""
    if result.status == "ok":
        output = to_jsonable_python(result.output, fallback=repr)
        OUT.print(Text(shown(pretty(output)), style="bold"))
    OUT.print(used(result.usage), style="dim")


def print_error(error: Exception) -> None:
    """One message on stderr, without a traceback."""
    text = error.message if isinstance(error, AgentKitError) else said(error)
    ERR.print(Text.assemble((f"{type(error).__name__}: ", "bold red"), shown(text)))


def told(line: str) -> None:
    """A line for people that is not wrapped: a command, a path."""
    OUT.print(Text(shown(line)), soft_wrap=True)
