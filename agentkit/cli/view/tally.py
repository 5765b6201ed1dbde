"""What a replay performed, and what it answered from the recording, in words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from agentkit.agent import Agent
from agentkit.replay import Replayed
from agentkit.trace.reader import Trace


def tallied(replayed: Replayed, how: str, answered_by: str = "") -> str:
    """Return everything in a line.

    Args:
        replayed: What became of the effects.
        how: How the run was replayed.
        answered_by: Whose model calls were answered, where those of the agent were made.
    """
    answered = _both(replayed.answered, answered_by)
    return (
        f"Replayed {how}: {answered or 'nothing'} answered from the recording, "
        f"{_both(replayed.ran) or 'none'} made."
    )


def tools_at(trace: Trace, addresses: Iterable[str]) -> set[str]:
    """Return the tools that were called at these addresses."""
    return {trace.effects[at].name for at in addresses if at in trace.effects}


def effects_of(trace: Trace, agent: Agent[Any]) -> dict[str, str]:
    """Return what tools do to the world, by name: as the agent has them, or as the run had."""
    calls = (one for one in trace.effects.values() if one.kind == "tool" and one.begun)
    now = {name: tool.effect for name, tool in agent.program().tools.items()}
    return {call.name: call.effect or "write" for call in calls} | now


def counted(number: int, what: str) -> str:
    """Return the number of things, with the plural where it is due."""
    return f"{number} {what}{'s' * (number != 1)}"


def _both(addresses: Iterable[str], whose: str = "") -> str:
    last = [at.rpartition("/")[2] for at in addresses]
    models, tools = (sum(bool(re.fullmatch(rf"{one}\d+", part)) for part in last) for one in "mt")
    counts = [(models, f"{whose}model call"), (tools, "tool call")]
    return " and ".join(counted(number, what) for number, what in counts if number)
