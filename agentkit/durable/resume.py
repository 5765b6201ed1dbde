"""Resumes the unfinished runs of a folder: what a process does first when it starts again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import anyio

from agentkit.agent import Agent
from agentkit.core.effects import PendingCall
from agentkit.durable.unfinished import ENDED, unfinished
from agentkit.errors import (
    ConfigurationError,
    ReplayDivergence,
    TraceError,
    TraceLocked,
    safe_repr,
    safe_str,
)
from agentkit.runtime.result import RunResult, result_of
from agentkit.runtime.scope import Approver
from agentkit.trace.check import check_replayable
from agentkit.trace.reader import Trace

Outcome: TypeAlias = Literal[
    "finished", "paused", "failed", "locked", "changed", "unknown_agent", "refused", "unreadable"
]
OptionsOf: TypeAlias = Callable[[Trace], Mapping[str, Any]]
"""Returns what `Agent.resume` takes for one trace besides what all have in common."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumed:
    """What became of one unfinished run.

    Attributes:
        path: Its trace.
        outcome: `finished`: it went on to its end; see `result`. `paused`: it waits for
            decisions about `pending`. `failed`: it went on, and `error` ended it. And where it
            did not go on: `locked`: another process is writing its trace. `changed`: its agent
            is not as it was. `unknown_agent`: its agent is none of those given. `refused`: it
            needs something else, such as a model, a key or deps. `unreadable`: its trace is
            damaged, or has no contents.
        agent: The name of its agent, as recorded; None if that cannot be read.
        run: Its id; None if that cannot be read.
        result: How far it came, unless it did not go on.
        pending: The calls that wait for a decision; see `Agent.resume(decisions=…)`.
        error: Why it failed, or did not go on.
    """

    path: Path
    outcome: Outcome
    agent: str | None = None
    run: str | None = None
    result: RunResult[Any] | None = None
    pending: tuple[PendingCall, ...] = ()
    error: Exception | None = None

    def __str__(self) -> str:
        """Return the file and what became of its run, on one line."""
        text = safe_str(self.error).partition("\n")[0] if self.error is not None else ""
        if self.pending:
            calls = ", ".join(f"{one.call.name} at {one.at}" for one in self.pending)
            text = f"waits for a decision about {calls}"
        return f"{self.path.name}: {self.outcome}{': ' * bool(text)}{text}"


async def resume_all(
    folder: str | os.PathLike[str],
    agents: Sequence[Agent[Any, Any]],
    *,
    deps: Any = None,
    approver: Approver | None = None,
    options: OptionsOf | None = None,
    parallel: int = 16,
    cancelled: bool = False,
    force: bool = False,
) -> tuple[Resumed, ...]:
    """Go on with every run of a folder that is unfinished, each as `Agent.resume` does.

    Call it when a process starts, before it takes new work. What happens to one run does not
    keep the others from going on. Several processes may do this in one folder: each run goes
    on in one of them.

    Args:
        folder: Where the runs were recorded: `Agent.run(trace=folder)`.
        agents: Those whose runs may be there. The agent of a run is found by its name.
        deps: Given to tools.
        approver: Decides about calls that wait. Without one, and without decisions among the
            options, a paused run stays as it is.
        options: Returns for one trace what else `Agent.resume` takes, instead of `deps` and
            `approver`: `decisions`, `model`, `settings` and the like.
        parallel: How many runs go on at the same time.
        cancelled: Go on with runs that were cancelled, too, as those of a process that was
            stopped in order: with Ctrl-C, or by a signal that cancels its tasks.
        force: Go on although an agent has changed; see `Agent.resume`.

    Returns:
        What became of each, by the names of the files.

    Raises:
        ConfigurationError: An argument does not fit; raised before anything is read.
        TraceError: There is no such folder.
    """
    known = _by_name(agents)
    if type(parallel) is not int or parallel < 1:
        raise ConfigurationError(
            f"parallel={safe_repr(parallel)}: expected an integer of 1 or more."
        )
    ended = [status for status in ENDED if not (cancelled and status == "cancelled")]
    files = unfinished(folder, ended=ended)
    done: dict[Path, Resumed] = {}
    left = iter(files)

    async def go_on() -> None:
        for path in left:
            given = {"deps": deps, "approver": approver, "force": force}
            done[path] = await _resumed(path, known, given, options)

    async with anyio.create_task_group() as group:
        for _ in range(min(parallel, len(files))):
            group.start_soon(go_on)
    return tuple(done[path] for path in files)


def _by_name(agents: Sequence[Agent[Any, Any]]) -> dict[str, Agent[Any, Any]]:
    known: dict[str, Agent[Any, Any]] = {}
    if not isinstance(agents, Sequence) or not all(isinstance(one, Agent) for one in agents):  # pyright: ignore[reportUnnecessaryIsInstance]  # not everybody checks types
        raise ConfigurationError(f"agents={safe_repr(agents)}: expected a list of agents.")
    for agent in agents:
        if known.setdefault(agent.name, agent) is not agent:
            raise ConfigurationError(
                f"Two of the agents are called {agent.name!r}, and a run is found by the name of "
                "its agent. Give one of them another name, or resume its runs apart."
            )
    return known


async def _resumed(
    path: Path,
    known: Mapping[str, Agent[Any, Any]],
    given: dict[str, Any],
    options: OptionsOf | None,
) -> Resumed:
    """Go on with one run; return what became of it, whatever that is."""
    try:
        trace = Trace.load(path)
        check_replayable(trace)
        name, run, pending = str(trace.agent_start["agent"]), trace.run, trace.pending
    except TraceError as error:
        return Resumed(path=path, outcome="unreadable", error=error)
    about: dict[str, Any] = {"path": path, "agent": name, "run": run}
    agent = known.get(name)
    if agent is None:
        names = ", ".join(map(repr, known)) or "none"
        text = f"It is a run of the agent {name!r}; the agents here are {names}."
        return Resumed(**about, outcome="unknown_agent", error=ConfigurationError(text))
    try:
        given |= {} if options is None else dict(options(trace))
        decides = given["approver"] is not None or given.get("decisions")
        if trace.status == "paused" and not decides:
            return Resumed(**about, outcome="paused", pending=pending)
        result = await agent.resume(path, **given)
    except Exception as error:
        return Resumed(**about, outcome=_outcome(error), result=result_of(error), error=error)
    if result.status == "paused":
        return Resumed(**about, outcome="paused", result=result, pending=result.pending)
    return Resumed(**about, outcome="finished", result=result)


def _outcome(error: Exception) -> Outcome:
    """Return what became of a run that raised this."""
    match error:
        case TraceLocked():
            return "locked"
        case ReplayDivergence():
            return "changed"
        case _ if result_of(error) is not None:
            return "failed"
        case TraceError():
            return "unreadable"
        case _:
            return "refused"
