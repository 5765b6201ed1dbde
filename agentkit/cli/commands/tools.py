"""`agentkit tools`: what the model will see of the tools in a file.

Tools and toolsets at the module's top level, and whatever its agents offer: their tools
and functions, handoffs, toolsets, and the tool through which a typed output comes.
Toolsets are listed as far as they answer without a run.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, redirect_stdout
from dataclasses import dataclass, replace
from textwrap import indent
from typing import Any, cast

from rich.highlighter import JSONHighlighter
from rich.padding import Padding
from rich.text import Text

from agentkit.agent import Agent
from agentkit.cli.console import INDENTED, OUT, AsJson, print_json, print_note, shown
from agentkit.cli.load import agent_of, load_module, split_name
from agentkit.errors import AgentKitError, ConfigurationError, InvalidTool
from agentkit.messages import ToolDefinition
from agentkit.tools.context import RunContext
from agentkit.tools.tool import AnyTool, Tool
from agentkit.tools.toolset import Toolset, tools_of, with_lifetime
from agentkit.trace.words import counted


def tools(source: str, /, *, as_json: AsJson = False) -> None:
    """Show what the model will see of the tools in a file.

    Lists the tools and toolsets at the file's top level and those of its agents.

    Args:
        source: FILE.py or MODULE, or FILE.py:NAME for one agent, toolset or tool.
        as_json: Print the `tools` of a request, as JSON.
    """
    place, name = split_name(source)
    # The file may print, and stdout is for the list.
    with redirect_stdout(sys.stderr), asyncio.Runner() as loop:
        module = load_module(place)
        values = vars(module)
        if name and isinstance(values.get(name), (Tool, Toolset)):
            values = {name: values[name]}
        elif name:
            values = {name: agent_of(loop, module, name, place)}
        agents = {
            key: cast("Agent[Any]", one) for key, one in values.items() if isinstance(one, Agent)
        }
        toolsets = {key: one for key, one in values.items() if isinstance(one, Toolset)}
        rest = [cast("AnyTool", one) for one in values.values() if isinstance(one, Tool)]
        if not agents and not toolsets and not rest:
            raise ConfigurationError(
                f"{place} has no tools: a function needs @tool, or a place among an agent's tools."
            )
        notes: list[str] = []
        offers = loop.run(_offers(agents, toolsets, rest, notes))
    for note in notes:
        print_note(note)
    wrong = [one for one in offers if one.problem is not None]
    if not as_json:
        for offer in offers:
            _print_offer(offer)
        _print_totals(offers, list(agents))
    elif not wrong:
        print_json([one.definition.to_json() for one in offers if one.definition])
    if wrong:
        raise InvalidTool(wrong[0].problem or "", tool=wrong[0].name)


def _print_offer(offer: _Offer) -> None:
    definition = offer.definition
    head = Text(shown(offer.name), style="bold cyan")
    facts = [*offer.facts]
    if definition is not None:
        facts[:0] = ["strict" if definition.strict else "not strict"]
        facts.append(f"about {definition.tokens} tokens")
    if offer.places:
        facts.append(f"in {', '.join(offer.places)}")
    OUT.print(head + Text(f"  {shown(', '.join(facts))}", style="not bold dim"))
    if offer.problem is not None:
        OUT.print(Padding(Text(f"✗ {shown(offer.problem)}", style="red"), INDENTED, expand=False))
    if definition is not None:
        if definition.description:
            OUT.print(Padding(Text(shown(definition.description)), INDENTED, expand=False))
        schema = shown(json.dumps(definition.parameters, indent=2, ensure_ascii=False))
        OUT.print(JSONHighlighter()(indent(schema, "  ")), soft_wrap=True)
    for warning in offer.warnings:
        OUT.print(Padding(Text(f"! {shown(warning)}", style="yellow"), INDENTED, expand=False))
    OUT.print()


def _print_totals(offers: list[_Offer], agents: list[str]) -> None:
    def line(offers: list[_Offer]) -> str:
        tokens = sum(one.definition.tokens for one in offers if one.definition)
        return f"{counted(len(offers), 'tool')}, about {tokens} tokens"

    if len(agents) > 1:
        for name in agents:
            total = line([one for one in offers if name in one.places])
            OUT.print(Text(f"{shown(name)}: {total} in each request"))
    end = " in each request" if len(agents) == 1 else ""
    OUT.print(Text(f"{line(offers)}{end}", style="bold"))


# What there is to list


@dataclass(frozen=True, kw_only=True, slots=True)
class _Offer:
    """One tool.

    Attributes:
        name: What the model calls it.
        definition: What the model sees; None where it cannot be made.
        facts: What the model does not see, in words: effect, approval.
        warnings: Why it is not strict, and other things to know.
        problem: Why there is no definition.
        places: The names, in the file, of the agents and toolsets that offer it.
    """

    name: str
    definition: ToolDefinition | None
    facts: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    problem: str | None = None
    places: tuple[str, ...] = ()


async def _offers(
    agents: Mapping[str, Agent[Any]],
    toolsets: Mapping[str, Toolset],
    tools: Sequence[AnyTool],
    notes: list[str],
) -> list[_Offer]:
    """Return what agents offer, in the order in which they send it, and the rest; each once.

    What could not be listed, and why, is added to `notes`.
    """
    offers: list[_Offer] = []
    for name, agent in agents.items():
        offers += [replace(one, places=(name,)) for one in await _of_agent(name, agent, notes)]
    for name, toolset in toolsets.items():
        listed = await _of_toolset(f"the toolset {name}", toolset, notes)
        offers += [replace(one, places=(name,)) for one in listed]
    offers += [_of_tool(tool) for tool in tools]
    merged: list[_Offer] = []
    for offer in offers:
        same = [n for n, one in enumerate(merged) if replace(one, places=offer.places) == offer]
        if not same:
            merged.append(offer)
            continue
        names = dict.fromkeys((*merged[same[0]].places, *offer.places))
        merged[same[0]] = replace(offer, places=tuple(names))
    return merged


async def _of_agent(name: str, agent: Agent[Any], notes: list[str]) -> list[_Offer]:
    """Return what one agent offers, in the order of its requests."""
    offers = [_of_tool(one) for one in agent.config.fixed_tools]
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
    for one in agent.config.tools:
        if isinstance(one, Toolset):
            offers += await _of_toolset(f"{name}'s {type(one).__name__}", one, notes)
    if output is not None:
        offers.append(_of_definition(output, "the typed output"))
    return offers


async def _of_toolset(what: str, toolset: Toolset, notes: list[str]) -> list[_Offer]:
    """Return what a toolset offers at the first step, without dependencies."""
    try:
        async with AsyncExitStack() as stack:
            if (held := with_lifetime(toolset)) is not None:
                await stack.enter_async_context(cast("AbstractAsyncContextManager[Any]", held))
            return [_of_tool(tool) for tool in await tools_of(toolset, RunContext())]
    except Exception as error:
        # It is the user's code, and may want what only a run has.
        reason = error.message if isinstance(error, AgentKitError) else repr(error)
        notes.append(f"The tools of {what} are known only in a run: {reason}")
        return []


def _of_tool(tool: AnyTool) -> _Offer:
    facts = (f"effect {tool.effect}", f"approval {_approval(tool)}")
    if tool.deferred:
        facts += ("answered from outside",)
    if tool.source is not None:
        facts += (f"described by {tool.source}",)
    try:
        definition, warnings = tool.definition, tool.warnings
    except InvalidTool as error:
        return _Offer(name=tool.name, definition=None, facts=facts, problem=error.message)
    return _Offer(name=tool.name, definition=definition, facts=facts, warnings=warnings)


def _approval(tool: AnyTool) -> str:
    if callable(tool.approval):
        return f"decided by {getattr(tool.approval, '__name__', 'a function')}"
    return "always" if tool.approval else "never"


def _of_definition(definition: ToolDefinition, fact: str) -> _Offer:
    return _Offer(name=definition.name, definition=definition, facts=(fact,))
