"""What every command that runs an agent shows: the tree as it grows, the result, errors."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python
from rich.live import Live
from rich.text import Text

from agentkit.cli.console import ERR, OUT
from agentkit.cli.view.describe import careful
from agentkit.cli.view.tree import RunTree, pretty, shown, used
from agentkit.core.effects import PendingCall
from agentkit.errors import AgentKitError, safe_str
from agentkit.runtime.result import RunResult, result_of

__all__ = ["not_run", "print_error", "print_result", "print_waiting", "told", "watched"]


def watched(tree: RunTree, work: Callable[[], RunResult[Any]]) -> RunResult[Any]:
    """Run with a live tree on a terminal, and with the finished tree elsewhere."""
    if not OUT.is_terminal:
        try:
            return _known(tree, work)
        finally:
            OUT.print(tree)
    with Live(tree, console=OUT, refresh_per_second=12):
        return _known(tree, work)


def _known(tree: RunTree, work: Callable[[], RunResult[Any]]) -> RunResult[Any]:
    """Run, and complete the tree from the trace in the end."""
    try:
        result = work()
    except Exception as error:
        _complete(tree, result_of(error))
        raise
    _complete(tree, result)
    return result


def _complete(tree: RunTree, reached: RunResult[Any] | None) -> None:
    if reached is not None and reached.trace is not None:
        with careful(reached.trace):
            tree.know(reached.trace)


def print_result(result: RunResult[Any]) -> None:
    """What a run came to, and what it used."""
    if result.status == "ok":
        output = to_jsonable_python(result.output, fallback=repr)
        OUT.print(Text(shown(pretty(output)), style="bold"))
    OUT.print(used(result.usage), style="dim")


def print_error(error: Exception) -> None:
    """One message on stderr, without a traceback."""
    text = error.message if isinstance(error, AgentKitError) else safe_str(error)
    ERR.print(Text.assemble((f"{type(error).__name__}: ", "bold red"), shown(text)))


def told(line: str) -> None:
    """A line for people that is not wrapped: a command, a path."""
    OUT.print(Text(shown(line)), soft_wrap=True)


def print_waiting(
    pending: Sequence[PendingCall], trace: Path | None, app: str = "FILE.py:NAME"
) -> None:
    """The calls that wait for a decision, and the command that makes it."""
    for one in pending:
        line = f"{one.at} waits ({one.kind}): {one.call.name} {one.call.arguments}"
        OUT.print(Text(shown(line), style="yellow"))
    if not pending or trace is None:
        return
    options = " ".join(
        f"--answer {shlex.quote(one.at)}=TEXT"
        if one.kind == "deferred"
        else f"--approve {shlex.quote(one.at)}"
        for one in pending
    )
    told(f"Decide, for example:\n  agentkit resume {shlex.quote(str(trace))} --app {app} {options}")
    told("  or --deny ADDRESS=REASON, --edit ADDRESS=JSON, --answer ADDRESS=TEXT")


def not_run(tools: Iterable[str], allow: str) -> None:
    """Say which tools were left out because they may write, and what would let each run."""
    for name in sorted({*tools}):
        line = f"{name} was not run: it may write ({allow.replace('NAME', name)})"
        OUT.print(Text(shown(line), style="yellow"), soft_wrap=True)
