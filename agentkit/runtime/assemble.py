"""Makes an agent ready to run: its parts resolved, merged and put where the loop finds them.

Everything here is free of I/O. What is the user's own code, and not pure, is
put into the table of functions that `Compute` effects name.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeAlias, TypeVar, cast

from agentkit.core.effects import Address
from agentkit.core.spec import AgentSpec, OfferedTool, OutputSpec
from agentkit.errors import ConfigurationError, InvalidSetting, InvalidTool, safe_repr
from agentkit.events import Warned
from agentkit.history import check_history
from agentkit.messages import ForcedTool, Message, messages_from_json
from agentkit.models.base import Model
from agentkit.models.prices import check_price
from agentkit.redaction import PLACEHOLDER, Redactor
from agentkit.runtime.config import AgentConfig, Compaction, Handoff, Middleware
from agentkit.settings import ChatSettings, Limits
from agentkit.tools.context import RunContext
from agentkit.tools.invoke import called
from agentkit.tools.tool import AnyTool, Tool
from agentkit.tools.toolset import Toolset, with_lifetime
from agentkit.trace.naming import canonical, digest

OutputT = TypeVar("OutputT")
ComputeFunction: TypeAlias = Callable[[RunContext[Any], Any], Any]
"""A function of the user's that is not pure: of the context and the effect's input."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Program(Generic[OutputT]):
    """An agent made ready for one run: what the loop decides by, and what performs its effects.

    Attributes:
        config: The agent's options.
        spec: What the loop decides by.
        model: Answers its model calls.
        tools: Those that are no toolset's, by name.
        compute: The user's functions that are not pure, by the names of their effects.
        handoffs: The agents that may take over, by name.
        middleware: Handlers around the one that performs, outermost first.
        lifetimes: The toolsets that a run enters and leaves.
        entered: What they go on as in this run, by the id of each.
        notes: Warnings for the beginning of a run.
        hashed: The rules of redaction under which it was hashed last, and the hash.
    """

    config: AgentConfig
    spec: AgentSpec[OutputT]
    model: Model
    tools: Mapping[str, AnyTool] = field(default_factory=dict[str, AnyTool])
    compute: Mapping[str, ComputeFunction] = field(default_factory=dict[str, ComputeFunction])
    handoffs: Mapping[str, Callable[[], Program[Any]]] = field(default_factory=dict[str, Any])
    middleware: Sequence[Middleware] = ()
    lifetimes: Sequence[Toolset] = ()
    entered: Mapping[int, Toolset] = field(default_factory=dict[int, Toolset])
    notes: tuple[Warned, ...] = ()
    hashed: dict[str, str] = field(
        default_factory=dict[str, str], init=False, repr=False, compare=False
    )


def assemble(
    config: AgentConfig, settings: ChatSettings | None = None, limits: Limits | None = None
) -> Program[Any]:
    """Make an agent ready for one run.

    Args:
        config: The agent's options.
        settings: Sampling parameters over the agent's.
        limits: Instead of the agent's.

    Raises:
        ConfigurationError: Its parts do not fit together.
    """
    if (bounds := limits or config.limits).cost is not None:
        check_price(config.resolved)
    if settings is not None or limits is not None or config.handoffs:
        return _assembled(config, settings, bounds)
    # Most runs change neither: their program is made once, and lies with the options.
    made = vars(config)
    if "program" not in made:
        made["program"] = _assembled(config, None, bounds)
    return made["program"]


def _assembled(config: AgentConfig, settings: ChatSettings | None, bounds: Limits) -> Program[Any]:
    model, output = config.resolved, config.output_spec
    if bounds.repeats is None:
        bounds = replace(bounds, repeats=model.profile.repeats)
    merged = _merged(config.settings, settings)
    fixed, handoffs = config.fixed_tools, config.handoffs
    offered = [*map(offered_tool, fixed), *map(_handed, handoffs)]
    _check_offered(handoffs, offered, output)
    at = Address.root(config.name)
    instructions = config.instructions
    return Program(
        config=config,
        model=model,
        tools={tool.name: tool for tool in fixed},
        compute=_functions(config, output, merged),
        handoffs={one.target.name: _later(one, settings) for one in handoffs},
        middleware=config.middleware,
        lifetimes=[one for it in config.toolsets if (one := with_lifetime(it)) is not None],
        notes=tuple(
            Warned(at=at, code="tool_schema", text=f"{tool.name}: {text}")
            for tool in fixed
            for text in tool.schema_warnings
        ),
        spec=AgentSpec(
            at=at,
            model=model.name,
            output=output,
            tools=tuple(offered),
            toolsets=len(config.toolsets),
            instructions=instructions if isinstance(instructions, str) else None,
            dynamic=callable(instructions),
            settings=merged.to_params(),
            step_settings=config.step_settings is not None,
            tool_choice=merged.forced_choice(),
            keep_tool_choice=bool(merged.keep_tool_choice),
            limits=bounds,
            reasks=config.output_retries,
            validators=len(config.output_validators),
            compact_above=config.compact_above,
        ),
    )


def _merged(settings: ChatSettings, over: ChatSettings | None) -> ChatSettings:
    merged = settings.merge(over) if over is not None else settings
    if (merged.n or 1) > 1:
        raise InvalidSetting(
            f"n={merged.n}: a run goes on with one answer. Use model.request(…) for several.",
            field="n",
            value=repr(merged.n),
            allowed="1",
        )
    return merged


def _later(handoff: Handoff, settings: ChatSettings | None) -> Callable[[], Program[Any]]:
    """Return what assembles the agent that takes over, with the settings of the run."""
    if settings is not None:  # a choice among the tools was meant for those of the first agent
        settings = replace(settings, tool_choice=None, keep_tool_choice=None)
    return lambda: assemble(handoff.target, settings)


def _check_offered(
    handoffs: Sequence[Handoff], offered: Sequence[OfferedTool], spec: OutputSpec[Any]
) -> None:
    """Refuse a name that two things have which the model sees, the output tool included."""
    targets = Counter(one.target.name for one in handoffs)
    names = Counter(one.definition.name for one in offered)
    if spec.tool is not None:
        names[spec.tool.name] += 1
    for what, counts in (("agents to hand over to", targets), ("tools", names)):
        if twice := [name for name, number in counts.items() if number > 1]:
            raise InvalidTool(
                f"Two {what} are called {twice[0]!r}. Give one of them another name.",
                tool=twice[0],
            )


def offered_tool(tool: AnyTool) -> OfferedTool:
    """Describe a tool to the loop."""
    approval = "never" if tool.approval is False else "always" if tool.approval is True else "ask"
    return OfferedTool(
        definition=tool.definition,
        effect=tool.effect,
        on_crash=tool.on_crash,
        approval=approval,
        deferred=tool.deferred,
        sequential=tool.sequential,
        source=tool.source,
    )


def _handed(handoff: Handoff) -> OfferedTool:
    """Describe a handoff to the loop: a tool without parameters."""
    target = handoff.target.name
    name = handoff.name or f"transfer_to_{target.replace('.', '_')}"

    def transfer() -> None:
        raise AssertionError("the loop answers this call itself")

    description = handoff.description or f"Hand the conversation over to {target}."
    tool = Tool(transfer, name=name, description=description)
    return OfferedTool(definition=tool.definition, effect="read", handoff=target)


def _functions(
    config: AgentConfig, spec: OutputSpec[Any], merged: ChatSettings
) -> dict[str, ComputeFunction]:
    """Map the names of `Compute` effects to the user's own functions."""
    table: dict[str, ComputeFunction] = {}
    if callable(config.instructions):
        table["instructions"] = _instructions(config.instructions)
    for index, function in enumerate(config.output_validators):
        table[f"validator{index}"] = _validator(function, spec)
    if (finishing := config.output_function) is not None:
        table["output"] = lambda context, text: finishing.call(text, context)
    if config.step_settings is not None:
        table["settings"] = _of_step(config.step_settings, merged)
    if config.compact is not None:
        table["compact"] = _compacting(config.compact)
    return table


def _with_context(function: Callable[..., Any]) -> ComputeFunction:
    """Adapt a function that may or may not take the context."""
    if inspect.signature(function).parameters:
        return lambda context, _: function(context)
    return lambda context, _: function()


def _instructions(function: Callable[..., Any]) -> ComputeFunction:
    """Adapt a function that gives the system text."""
    call = _with_context(function)

    async def instructions(context: RunContext[Any], _: Any) -> str | None:
        text = await called(call, context, None)
        if text is None or isinstance(text, str):
            return text
        returned = safe_repr(text)
        raise ConfigurationError(f"instructions= returned {returned}; expected text, or None.")

    return instructions


def _validator(function: Callable[..., Any], spec: OutputSpec[Any]) -> ComputeFunction:
    """Adapt a validator: it gets the typed output, and the context if it takes two arguments."""
    takes_context = len(inspect.signature(function).parameters) > 1

    async def validate(context: RunContext[Any], text: str) -> bool:
        output, _ = spec.check(text)
        await called(function, *((context, output) if takes_context else (output,)))
        return True

    return validate


def _of_step(function: Callable[..., Any], merged: ChatSettings) -> ComputeFunction:
    """Adapt a function that gives a step's settings, over the agent's and the run's."""
    call = _with_context(function)

    async def settings(context: RunContext[Any], _: Any) -> dict[str, Any]:
        step = await called(call, context, None)
        if step is None:
            step = ChatSettings()
        if not isinstance(step, ChatSettings):
            raise ConfigurationError(
                f"step_settings= returned {safe_repr(step)}; expected ChatSettings(…), or None."
            )
        choice = step.forced_choice()
        forced = {"name": choice.name} if isinstance(choice, ForcedTool) else choice
        return {"settings": merged.merge(step).to_params(), "tool_choice": forced}

    return settings


def _compacting(compact: Compaction) -> ComputeFunction:
    async def shorten(context: RunContext[Any], messages: Sequence[Message]) -> list[Any] | None:
        shorter = await called(compact, messages)
        if shorter is None:
            return None
        if not isinstance(shorter, (list, tuple)):
            raise ConfigurationError(
                f"compact= returned {safe_repr(shorter)}; expected a list of messages, or None."
            )
        shorter = messages_from_json(cast("Sequence[Message]", shorter))
        if shorter == tuple(messages):
            return None
        check_history(shorter)
        return [message.to_json() for message in shorter]

    return shorten


def program_hash(program: Program[Any], redact: Redactor) -> str:
    """Hash what decides an agent's behaviour, without its secrets."""
    known = program.hashed.get(redact.rules)
    if known is None:
        known = _hash(program.spec, redact)
        program.hashed.clear()
        program.hashed[redact.rules] = known
    return known


def _hash(spec: AgentSpec[Any], redact: Redactor) -> str:
    behaviour = canonical(
        {
            "instructions": "(computed)" if spec.dynamic else spec.instructions,
            "tools": [tool.definition.to_json() for tool in spec.tools],
            "output": spec.output.schema,
        }
    )
    # Secrets count by their kind alone, so that the hash is the same under every key.
    text = redact(behaviour.decode(errors="backslashreplace"))
    return digest(PLACEHOLDER.sub(r"⟦\1⟧", text).encode())
