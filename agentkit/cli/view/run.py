"""How a run that a command performs is shown: the tree as it grows, the result, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python
from rich.text import Text

from agentkit.agent import Agent
from agentkit.cli.console import ERR, OUT, command_line, print_line, print_text, shown
from agentkit.cli.view.describe import damage_named
from agentkit.cli.view.progress import Progress
from agentkit.core.effects import PendingCall
from agentkit.errors import AgentKitError, safe_str
from agentkit.messages import JsonObject
from agentkit.runtime.result import RunResult, result_of
from agentkit.trace.reader import Trace
from agentkit.trace.words import pretty, used

_LISTED = 20
_IN_DOUBT = "Interrupted: it is not known whether this was done."


def run_and_show(
    progress: Progress, work: Callable[[], RunResult[Any]]
) -> tuple[RunResult[Any], Exception | None]:
    """Run, let the progress end with the finished tree, and show the output.

    Args:
        progress: It gets the events of the run. With `json`, nothing is printed.
        work: Runs an agent.

    Returns:
        What was reached, and the exception that ended the run, if one did.

    Raises:
        Exception: The run has not begun.
    """
    try:
        result, error = reached(work)
    except KeyboardInterrupt:
        progress.tree.stopped("cancelled")
        progress.end(erase=progress.tree.empty)
        raise
    if progress.show == "tree":
        if result.trace is not None:
            with damage_named(result.trace):
                progress.tree.know(result.trace)
        progress.end()
        if error is None:
            print_result(result)
    elif progress.show == "quiet" and result.status == "ok":
        print_output(result)
    return result, error


def reached(work: Callable[[], RunResult[Any]]) -> tuple[RunResult[Any], Exception | None]:
    """Run; return what was reached, and the exception that ended the run, if one did.

    Raises:
        Exception: The run has not begun.
    """
    try:
        return work(), None
    except Exception as failure:
        if (result := result_of(failure)) is None:
            raise
        return result, failure


def print_result(result: RunResult[Any]) -> None:
    """Print the output of a run, and what it used."""
    if result.status == "ok":
        print_output(result, "bold")
    OUT.print(used(result.usage), style="dim")


def print_output(result: RunResult[Any], style: str = "") -> None:
    """Print the output of a run that has one."""
    print_text(pretty(to_jsonable_python(result.output, fallback=repr)), style)


def print_error(error: Exception) -> None:
    """Print one message on stderr, without a traceback."""
    name = f"{type(error).__name__}: "
    ERR.print(Text.assemble((name, "bold red"), shown(message_of(error))))


def message_of(error: Exception) -> str:
    """Return what an exception says, without the notes that `str` may add."""
    return error.message if isinstance(error, AgentKitError) else safe_str(error)


def print_waiting(
    pending: Sequence[PendingCall],
    trace: Path | None,
    options: Sequence[str] = ("--app", "FILE.py:NAME"),
) -> None:
    """Print the calls that wait for a decision, and the command that decides."""
    for one in pending:
        line = f"{one.at} waits ({one.kind}): {one.call.name} {one.call.arguments}"
        OUT.print(Text(shown(line), style="yellow"))
    if not pending or trace is None:
        return
    decisions = [word for one in pending for word in _decided(one)]
    command = command_line("resume", str(trace), *options, *decisions)
    print_line(f"Decide, for example:\n  {command}")
    print_line("  or --deny ADDRESS=REASON, --edit ADDRESS=JSON, --answer ADDRESS=TEXT")
    if any(one.kind == "in_flight" for one in pending):
        print_line(
            "  A call in flight may have done its work: --answer ADDRESS=TEXT is its result, and "
            "--approve ADDRESS runs it again.",
            "yellow",
        )


def _decided(call: PendingCall) -> tuple[str, str]:
    """Return a decision about a call, as an option to paste: nothing runs twice by it."""
    if call.kind == "in_flight":
        return "--answer", f"{call.at}={_IN_DOUBT}"
    if call.kind == "deferred":
        return "--answer", f"{call.at}=TEXT"
    return "--approve", call.at


def print_held_back(trace: Trace, addresses: Iterable[str], allow: str) -> None:
    """Print which tools were held back because they may write, and what would let each run."""
    for name in sorted(tools_at(trace, addresses)):
        print_line(f"{name} was not run: it may write ({allow.replace('NAME', name)})", "yellow")


def print_ran(trace: Trace, addresses: Sequence[str]) -> None:
    """Print which tools ran, and where: that is what a fork did to the world."""
    calls = [at for at in addresses if at in trace.effects and trace.effects[at].kind == "tool"]
    listed = [f"{trace.effects[at].name} ({at})" for at in calls[:_LISTED]]
    if calls:
        print_line(f"Tools that ran: {', '.join(listed)}{' …' * (len(calls) > _LISTED)}")


def tools_at(trace: Trace, addresses: Iterable[str]) -> set[str]:
    """Return the tools that were called at these addresses."""
    return {trace.effects[at].name for at in addresses if at in trace.effects}


def effects_of(trace: Trace, agent: Agent[Any]) -> dict[str, str]:
    """Return what tools do to the world, by name: as the agent has them, or as the run had."""
    calls = (one for one in trace.effects.values() if one.kind == "tool" and one.begun)
    now = {name: tool.effect for name, tool in agent.program().tools.items()}
    return {call.name: call.effect or "write" for call in calls} | now


def document(result: RunResult[Any], error: Exception | None) -> JsonObject:
    """Describe a run as one JSON document."""
    output = result.output if result.status == "ok" else None
    return {
        "run": result.run,
        "status": result.status,
        "output": to_jsonable_python(output, fallback=repr),
        "error": error and {"type": type(error).__name__, "message": message_of(error)},
        "pending": [
            {
                "at": one.at,
                "kind": one.kind,
                "tool": one.call.name,
                "arguments": one.call.arguments,
            }
            for one in result.pending
        ],
        "warnings": [{"at": one.at, "code": one.code, "text": one.text} for one in result.warnings],
        "usage": result.usage.to_json(),
        "trace": None if result.trace is None else str(result.trace.path),
    } | _replayed(result)


def _replayed(result: RunResult[Any]) -> JsonObject:
    """Describe what a replay or a fork did for real; nothing of an ordinary run."""
    done = result.replayed
    if done is None:
        return {}
    return {
        "ran": done.ran,
        "answered": done.answered,
        "held_back": done.held_back,
        "divergences": [one.message for one in result.divergences],
    }
