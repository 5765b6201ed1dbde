"""What a replay performed, and what it answered from the recording, in words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from agentkit.agent import Agent
from agentkit.core.effects import Address
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
    there = {*addresses}
    calls = (event for event in trace.events if event["event"] == "tool.start")
    return {call["tool"] for call in calls if call["at"] in there}


def effects_of(trace: Trace, agent: Agent[Any]) -> dict[str, str]:
    """What tools do to the world, by name: as the agent says now, or as the run said then."""
    calls = (event for event in trace.events if event["event"] == "tool.start")
    now = {name: tool.effect for name, tool in agent.program().tools.items()}
    return {call["tool"]: call["effect"] for call in calls} | now


def made_up(trace: Trace) -> set[str]:
    """The addresses of calls to tools that the model was not offered, so that nothing could run."""
    offered: dict[str, set[str]] = {}
    found: set[str] = set()
    for event in trace.events:
        at = Address(event.get("at", ""))
        if event["event"] == "model.start":
            tools = trace.blobs.get(event["tools"], ())
            offered[at] = {one["function"]["name"] for one in tools}
        elif event["event"] == "tool.start" and event["tool"] not in offered.get(at.parent, ()):
            found.add(at)
    return found


def counted(number: int, what: str) -> str:
    """The number of things, with the plural where it is due."""
    return f"{number} {what}{'s' * (number != 1)}"


def _both(addresses: Iterable[str], whose: str = "") -> str:
    last = [at.rpartition("/")[2] for at in addresses]
    models, tools = (sum(bool(re.fullmatch(rf"{one}\d+", part)) for part in last) for one in "mt")
    said = [(models, f"{whose}model call"), (tools, "tool call")]
    return " and ".join(counted(number, what) for number, what in said if number)
