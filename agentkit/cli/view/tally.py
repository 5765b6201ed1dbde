"""What a replay did for real, and what it answered from the recording."""

from __future__ import annotations

from typing import Any

from agentkit.agent import Agent
from agentkit.core.effects import Address, ancestors
from agentkit.events import Event, StepStarted, ToolCallStarted
from agentkit.replay import Policy
from agentkit.trace.reader import Trace


class Tally:
    """Counts the calls of a replay by their addresses, those inside sub-agents included.

    Args:
        recorded: The run.
        agent: The agent that runs it again.
        policy: What is done for real.
    """

    def __init__(self, recorded: Trace, agent: Agent[Any], policy: Policy) -> None:
        self._recorded, self._policy = recorded, policy
        self._effects = effects_of(recorded, agent)
        ends = (event for event in recorded.events if event["event"] == "tool.end")
        self._ended = {event["at"]: event["status"] for event in ends}
        self._models: dict[str, None] = {}
        self._tools: dict[str, str] = {}

    def event(self, event: Event) -> None:
        """Take one event of the replay."""
        match event:
            case StepStarted(at=at):
                self._models[at] = None
            case ToolCallStarted(at=at, name=name):
                self._tools[at] = name
            case _:
                pass

    @property
    def held_back(self) -> set[str]:
        """The tools that did not run because they may write."""
        if self._policy.tools != "by_effect" or self._policy.live_tools:
            return set()
        nothing = made_up(self._recorded)
        return {
            name
            for at, name in self._tools.items()
            if self._effects.get(name) != "read" and self._inside(at) and at not in nothing
        }

    def said(self) -> str:
        """Everything, in a line."""
        models = {at for at in self._models if self._policy.model == "live" and self._inside(at)}
        tools = {at for at in self._tools if self._ran(at)}
        # Where the model is asked, only those inside a tool that was answered are not.
        inside = "sub-agent " * (self._policy.model == "live")
        answered = _both(len(self._models) - len(models), len(self._tools) - len(tools), inside)
        return (
            f"Replayed {self._how()}: {answered or 'nothing'} answered from the recording, "
            f"{_both(len(models), len(tools)) or 'none'} made."
        )

    def _how(self) -> str:
        if self._policy.model == "live":
            return "with the model asked again"
        strictness = self._policy.strictness
        return "exactly" if strictness == "exact" else f"with strictness {strictness}"

    def _ran(self, at: str) -> bool:
        name = self._tools[at]
        live = self._policy.runs(name, self._effects.get(name, "write"))
        # One that was cancelled is cancelled again, before it does anything.
        return live and self._ended.get(at) != "cancelled" and self._inside(at)

    def _inside(self, at: str) -> bool:
        """Whether everything above this address ran, so that this is not played back."""
        return all(self._ran(one) for one in ancestors(at) if one in self._tools)


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


def _both(models: int, tools: int, whose: str = "") -> str:
    said = [(models, f"{whose}model call"), (tools, "tool call")]
    return " and ".join(counted(number, what) for number, what in said if number)
