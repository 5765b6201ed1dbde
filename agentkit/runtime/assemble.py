"""Makes an agent ready to run: its parts resolved, merged and put where the loop finds them.

Everything here is free of I/O. What is the user's own code, and not pure, is
put into the table of functions that `Compute` effects name.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, TypeVar, cast, get_type_hints

from pydantic import TypeAdapter

from agentkit.core.effects import Address
from agentkit.core.spec import AgentSpec, OfferedTool, OutputSpec
from agentkit.errors import ConfigurationError, InvalidSetting, InvalidTool
from agentkit.events import Warned
from agentkit.history import check_history
from agentkit.messages import ForcedTool, Message, messages_from_json
from agentkit.models.base import Model
from agentkit.models.prices import check_price
from agentkit.models.profiles import OutputMode
from agentkit.output.build import Mode, output_spec, spec_of_schema
from agentkit.redaction import PLACEHOLDER, Redactor
from agentkit.runtime.driver import ComputeFunction, Middleware, Program
from agentkit.settings import ChatSettings, Limits
from agentkit.tools.context import RunContext
from agentkit.tools.invoke import awaited
from agentkit.tools.tool import Tool
from agentkit.tools.toolset import Toolset, check_names, tools_of
from agentkit.trace.naming import canonical, digest

__all__ = [
    "AnyTool",
    "Compaction",
    "Handoff",
    "Instructions",
    "Source",
    "assemble",
    "output_of",
    "program_hash",
    "sources",
]

OutputT = TypeVar("OutputT")
AnyTool: TypeAlias = Tool[..., Any]
Source: TypeAlias = "AnyTool | Toolset | Handoff | Callable[..., Any]"
Instructions: TypeAlias = str | Callable[[RunContext[Any]], Any] | Callable[[], Any]
Compaction: TypeAlias = Callable[[Sequence[Message]], Any]
"""Gives a shorter history, as messages; sync or async. It never splits a call from its answer."""


class Described(Protocol):
    """An agent, as far as assembling it needs to know."""

    name: str
    tools: tuple[AnyTool | Toolset | Handoff, ...]
    output: Any
    output_mode: Mode
    output_retries: int
    instructions: Instructions | None
    validators: list[Callable[..., Any]]
    settings: ChatSettings
    step_settings: Callable[..., Any] | None
    limits: Limits
    middleware: tuple[Middleware, ...]
    concurrency: int | None
    compact: Compaction | None
    compact_above: int | None


class Successor(Protocol):
    """An agent that may take a conversation over."""

    name: str

    def program(self) -> Program[Any]:
        """The agent, ready to run."""
        ...


@dataclass(frozen=True)
class Handoff:
    """Lets the model hand the conversation over to another agent. Stands among the tools.

    Attributes:
        agent: Who goes on, or a function that returns who: two agents may name each other.
        name: The tool's name; `transfer_to_…` by default.
        description: What the model is told of it.
    """

    agent: Successor | Callable[[], Successor]
    name: str | None = None
    description: str | None = None

    def target(self) -> Successor:
        """The agent that goes on."""
        return self.agent() if inspect.isfunction(self.agent) else cast("Successor", self.agent)


def sources(given: Sequence[Source]) -> tuple[AnyTool | Toolset | Handoff, ...]:
    """What an agent was given as tools: functions made into tools, names checked.

    Raises:
        InvalidTool: Something is not a tool, or two have one name.
    """
    made: list[AnyTool | Toolset | Handoff] = []
    for one in given:
        if isinstance(one, (Tool, Toolset, Handoff)):
            made.append(cast("AnyTool | Toolset | Handoff", one))
        elif callable(one):
            made.append(Tool(one))
        else:
            raise InvalidTool(f"tools holds {one!r}, which is neither a tool nor a function.")
    check_names([one for one in made if isinstance(one, Tool)])
    return tuple(made)


def assemble(
    agent: Described,
    model: Model,
    output: tuple[OutputSpec[OutputT], AnyTool | None],
    settings: ChatSettings | None = None,
    limits: Limits | None = None,
) -> Program[OutputT]:
    """An agent, ready for one run.

    Args:
        agent: The agent.
        model: What its model string means.
        output: Of `output_of`: it is compiled once and serves every run.
        settings: Sampling parameters over the agent's.
        limits: Instead of the agent's.

    Raises:
        ConfigurationError: Its parts do not fit together.
    """
    spec, finishing = output
    bounds = limits or agent.limits
    if bounds.repeats is None:
        bounds = replace(bounds, repeats=model.profile.repeats)
    if bounds.cost is not None:
        check_price(model.name)
    merged = agent.settings.merge(settings) if settings is not None else agent.settings
    if (merged.n or 1) > 1:
        raise InvalidSetting(
            f"n={merged.n}: a run goes on with one answer. Ask model.request(…) for several.",
            field="n",
            value=repr(merged.n),
            allowed="1",
        )
    fixed = [one for one in agent.tools if isinstance(one, Tool)]
    handoffs = {one.target().name: one for one in agent.tools if isinstance(one, Handoff)}
    toolsets = [one for one in agent.tools if isinstance(one, Toolset)]
    offered = [_offered(tool) for tool in fixed]
    offered += [_handed(one) for one in handoffs.values()]
    _check_offered(agent, offered, spec)
    tools = {tool.name: tool for tool in fixed}
    at = Address.root(agent.name)
    dynamic = callable(agent.instructions)
    return Program(
        name=agent.name,
        model=model,
        tools=tools,
        compute=_functions(agent, spec, merged, finishing, tools, toolsets),
        handoffs={name: one.target().program for name, one in handoffs.items()},
        middleware=agent.middleware,
        owner=agent,
        concurrency=agent.concurrency,
        notes=tuple(
            Warned(at=at, code="tool_schema", text=f"{tool.name}: {text}")
            for tool in fixed
            for text in tool.warnings
        ),
        spec=AgentSpec(
            at=at,
            model=model.name,
            output=spec,
            tools=tuple(offered),
            toolsets=len(toolsets),
            instructions=None if dynamic else cast("str | None", agent.instructions),
            dynamic=dynamic,
            settings=merged.to_params(),
            step_settings=agent.step_settings is not None,
            tool_choice=merged.forced_choice(),
            keep_tool_choice=bool(merged.keep_tool_choice),
            limits=bounds,
            reasks=agent.output_retries,
            validators=len(agent.validators),
            compact_above=agent.compact_above if agent.compact is not None else None,
        ),
    )


def _check_offered(agent: Described, offered: Sequence[OfferedTool], spec: OutputSpec[Any]) -> None:
    """What the model sees has one meaning a name, handoffs and the output tool included."""
    targets = Counter(one.target().name for one in agent.tools if isinstance(one, Handoff))
    names = Counter(one.definition.name for one in offered)
    if spec.tool is not None:
        names[spec.tool.name] += 1
    for what, counts in (("agents to hand over to", targets), ("tools", names)):
        if twice := [name for name, number in counts.items() if number > 1]:
            raise InvalidTool(
                f"Two {what} are called {twice[0]!r}. Give one of them another name.",
                tool=twice[0],
            )


def output_of(agent: Described, model: Model) -> tuple[OutputSpec[Any], AnyTool | None]:
    """How the output is asked for, and the function that it is handed to, if there is one."""
    output = agent.output
    mode: Mode = agent.output_mode
    if mode == "auto" and agent.tools and not model.profile.native_with_tools:
        # This server's response_format keeps the model from calling tools.
        without: list[OutputMode] = [
            one for one in model.profile.output_modes if one not in ("native", "json")
        ]
        mode = without[0] if without else mode
    if not inspect.isroutine(output) and not isinstance(output, functools.partial):
        return output_spec(output, model.profile, mode), None
    tool: AnyTool = Tool(cast("Callable[..., Any]", output))
    spec = spec_of_schema(tool.name, tool.parameters, tool.parse, model.profile, mode)
    returned = get_type_hints(inspect.unwrap(tool.function)).get("return", Any)
    revive = TypeAdapter[Any](returned).validate_python
    return replace(spec, finishing=True, revive=revive), tool


def _offered(tool: AnyTool) -> OfferedTool:
    approval = "never" if tool.approval is False else "always" if tool.approval is True else "ask"
    return OfferedTool(
        definition=tool.definition, effect=tool.effect, approval=approval, deferred=tool.deferred
    )


def _handed(handoff: Handoff) -> OfferedTool:
    """What the model sees of a handoff: a tool without parameters."""
    agent = handoff.target()
    name = handoff.name or f"transfer_to_{agent.name.replace('.', '_')}"
    told = handoff.description or f"Hand the conversation over to {agent.name}."

    def transfer() -> None:
        raise AssertionError("the loop answers this call itself")

    tool = Tool(transfer, name=name, description=told)
    return OfferedTool(definition=tool.definition, effect="read", handoff=agent.name)


def _functions(
    agent: Described,
    spec: OutputSpec[Any],
    merged: ChatSettings,
    finishing: AnyTool | None,
    tools: dict[str, AnyTool],
    toolsets: Sequence[Toolset],
) -> dict[str, ComputeFunction]:
    """The user's own functions by the names of their effects."""
    table: dict[str, ComputeFunction] = {
        f"approval:{name}": _approval(tool)
        for name, tool in tools.items()
        if callable(tool.approval)
    }
    if callable(agent.instructions):
        table["instructions"] = with_context(agent.instructions)
    for index, function in enumerate(agent.validators):
        table[f"validator{index}"] = _validator(function, spec)
    if finishing is not None:
        table["output"] = lambda context, text: finishing.call(text, context)
    if agent.step_settings is not None:
        table["settings"] = _of_step(agent.step_settings, merged)
    if toolsets:
        table["toolsets"] = _gathering(toolsets, tools, frozenset(tools), table)
    if agent.compact is not None:
        table["compact"] = _compacting(agent.compact)
    return table


def with_context(function: Callable[..., Any]) -> ComputeFunction:
    """A function that may or may not want the context, as one that gets it."""
    if inspect.signature(function).parameters:
        return lambda context, _: function(context)
    return lambda context, _: function()


def _validator(function: Callable[..., Any], spec: OutputSpec[Any]) -> ComputeFunction:
    """A validator gets the typed output, and the context if it takes two arguments."""
    wants_context = len(inspect.signature(function).parameters) > 1

    async def validate(context: RunContext[Any], text: str) -> bool:
        output = spec.check(text)
        said = function(context, output) if wants_context else function(output)
        await awaited(said)
        return True

    return validate


def _of_step(function: Callable[..., Any], merged: ChatSettings) -> ComputeFunction:
    """What a step sets over the agent's and the run's settings, as a request holds it."""
    call = with_context(function)

    async def settings(context: RunContext[Any], _: Any) -> dict[str, Any]:
        step = await awaited(call(context, None))
        chosen = merged.merge(step or ChatSettings())
        choice = (step or ChatSettings()).forced_choice()
        forced = {"name": choice.name} if isinstance(choice, ForcedTool) else choice
        return {"settings": chosen.to_params(), "tool_choice": forced}

    return settings


def _approval(tool: AnyTool) -> ComputeFunction:
    """Whether a call needs approval, as the tool's own function says of its arguments."""
    asked = cast("Callable[..., Any]", tool.approval)

    async def needed(context: RunContext[Any], arguments: str) -> bool:
        try:
            data = json.loads(arguments)
        except ValueError:
            data = {}  # a person sees the text itself
        return bool(await awaited(asked(context, data)))

    return needed


def _gathering(
    toolsets: Sequence[Toolset],
    tools: dict[str, AnyTool],
    fixed: frozenset[str],
    table: dict[str, ComputeFunction],
) -> ComputeFunction:
    async def gather(context: RunContext[Any], _: Any) -> list[Any]:
        found = [tool for toolset in toolsets for tool in await tools_of(toolset, context)]
        check_names([*(tools[name] for name in fixed), *found])
        for name in [*tools]:
            if name not in fixed:
                del tools[name]
        tools.update({tool.name: tool for tool in found})
        table.update({f"approval:{t.name}": _approval(t) for t in found if callable(t.approval)})
        return [_offered(tool).to_json() for tool in found]

    return gather


def _compacting(compact: Compaction) -> ComputeFunction:
    async def shorten(context: RunContext[Any], messages: Sequence[Message]) -> list[Any] | None:
        shorter = await awaited(compact(messages))
        if shorter is None or (len(shorter) == len(messages) and shorter == messages):
            return None
        shorter = messages_from_json(shorter)
        check_history(shorter)
        return [message.to_json() for message in shorter]

    return shorten


def check_compaction(compact: Compaction | None, above: int | None) -> None:
    """Check that compaction is either wholly described or not at all.

    Raises:
        ConfigurationError: Only one of the two is given.
    """
    if (compact is None) != (above is None):
        raise ConfigurationError(
            "compact= and compact_above= go together: how the history is made shorter, and the "
            "input tokens of a step above which it is."
        )


def program_hash(program: Program[Any], redact: Redactor) -> str:
    """The hash of what decides an agent's behaviour, without its secrets."""
    spec = program.spec
    behaviour = canonical(
        {
            "instructions": "(computed)" if spec.dynamic else spec.instructions,
            "tools": [tool.definition.to_json() for tool in spec.tools],
            "output": spec.output.schema,
        }
    )
    # Secrets count by their kind alone, so that the hash is the same under every key.
    told = redact(behaviour.decode(errors="backslashreplace"))
    return digest(PLACEHOLDER.sub(r"⟦\1⟧", told).encode())
