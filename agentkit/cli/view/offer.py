"""What the model will see of the tools in a file: the work behind `agentkit tools`.

Tools at the module's top level, and whatever its agents offer: their tools and
functions, handoffs, toolsets as far as they can be asked without a run, and the
tool through which a typed output comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentkit.agent import Agent
from agentkit.errors import AgentKitError, ConfigurationError, InvalidTool
from agentkit.messages import ToolDefinition
from agentkit.tools.context import RunContext
from agentkit.tools.tool import AnyTool, Tool, Toolset, tools_of

__all__ = ["Listing", "Offer", "list_tools"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """One tool.

    Attributes:
        name: What the model calls it.
        definition: What the model sees; None where it cannot be made.
        facts: What the model does not see, in words: effect, approval.
        warnings: Why it is not strict, and other things to know.
        problem: Why there is no definition.
        agents: The names, in the file, of the agents that offer it.
    """

    name: str
    definition: ToolDefinition | None
    facts: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    problem: str | None = None
    agents: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """All tools of a file.

    Attributes:
        offers: In the order in which they are sent, agent by agent; then the other tools.
        notes: What could not be listed, and why.
    """

    offers: tuple[Offer, ...]
    notes: tuple[str, ...]


async def list_tools(agents: Mapping[str, Agent[Any]], tools: Sequence[AnyTool]) -> Listing:
    """List what some agents offer, and some tools besides; each once.

    Args:
        agents: By their names in the file.
        tools: Further tools.
    """
    offers: list[Offer] = []
    notes: list[str] = []
    for name, agent in agents.items():
        offers += [replace(one, agents=(name,)) for one in await _of_agent(name, agent, notes)]
    offers += [_of_tool(tool) for tool in tools]
    merged: list[Offer] = []
    for offer in offers:
        for place, other in enumerate(merged):
            if replace(offer, agents=()) == replace(other, agents=()):
                names = dict.fromkeys((*other.agents, *offer.agents))
                merged[place] = replace(other, agents=tuple(names))
                break
        else:
            merged.append(offer)
    return Listing(offers=tuple(merged), notes=tuple(notes))


async def _of_agent(name: str, agent: Agent[Any], notes: list[str]) -> list[Offer]:
    """What one agent offers, in the order of its requests."""
    offers = [_of_tool(one) for one in agent.tools if isinstance(one, Tool)]
    output: ToolDefinition | None = None
    try:
        spec = agent.program().spec
    except ConfigurationError as error:
        if not any(offer.problem for offer in offers):
            notes.append(f"{name} cannot run: {error.message}")
    else:
        output = spec.output.tool
        offers += [
            _of_definition(one.definition, f"hands over to {one.handoff}")
            for one in spec.tools
            if one.handoff is not None
        ]
    for one in agent.tools:
        if isinstance(one, Toolset):
            offers += await _of_toolset(name, one, notes)
    if output is not None:
        offers.append(_of_definition(output, "the typed output"))
    return offers


async def _of_toolset(name: str, toolset: Toolset, notes: list[str]) -> list[Offer]:
    """What a toolset offers at the first step, without dependencies."""
    try:
        return [_of_tool(tool) for tool in await tools_of(toolset, RunContext())]
    except Exception as error:
        # It is the user's code, and may want what only a run has.
        said = error.message if isinstance(error, AgentKitError) else repr(error)
        notes.append(
            f"{name} has a {type(toolset).__name__} that says only in a run what it offers: {said}"
        )
        return []


def _of_tool(tool: AnyTool) -> Offer:
    facts = (f"effect {tool.effect}", f"approval {_approval(tool)}")
    if tool.deferred:
        facts += ("answered from outside",)
    try:
        definition, warnings = tool.definition, tool.warnings
    except InvalidTool as error:
        return Offer(name=tool.name, definition=None, facts=facts, problem=error.message)
    return Offer(name=tool.name, definition=definition, facts=facts, warnings=warnings)


def _approval(tool: AnyTool) -> str:
    if callable(tool.approval):
        return f"decided by {getattr(tool.approval, '__name__', 'a function')}"
    return "always" if tool.approval else "never"


def _of_definition(definition: ToolDefinition, fact: str) -> Offer:
    return Offer(name=definition.name, definition=definition, facts=(fact,))
