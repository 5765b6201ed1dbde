"""The options of an agent: checked once, frozen, and read by all that runs it.

`AgentConfig` is what lies below `agentkit.agent`: assembling, replaying and handing over
need an agent's options and nothing else of it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from types import NoneType
from typing import Any, Protocol, TypeAlias, cast, get_args

from pydantic import BaseModel, TypeAdapter

from agentkit import _checks
from agentkit._checks import Check
from agentkit._options import options
from agentkit.core.effects import Handler
from agentkit.core.spec import OutputSpec
from agentkit.errors import ConfigurationError, InvalidTool, safe_repr
from agentkit.messages import Message
from agentkit.models import Model, resolve_model
from agentkit.models.profiles import OutputMode
from agentkit.output.build import Mode, output_spec, spec_of_schema
from agentkit.redaction import Redactor
from agentkit.settings import ChatSettings, Limits
from agentkit.tools.context import RunContext
from agentkit.tools.signature import required
from agentkit.tools.tool import AnyTool, Tool
from agentkit.tools.toolset import Toolset, check_names
from agentkit.trace.naming import packed
from agentkit.trace.open import TraceTo
from agentkit.trace.recorder import Durability
from agentkit.trace.schema import Capture

Middleware: TypeAlias = Callable[[Handler], Handler]
"""Puts a handler around another one."""
Compaction: TypeAlias = Callable[[Sequence[Message]], Any]
"""Gives a shorter history, as messages; sync or async. It never splits a call from its answer."""


class Configured(Protocol):
    """An agent, as far as the code below `agentkit.agent` needs to know it."""

    @property
    def config(self) -> AgentConfig:
        """Its options."""
        ...


@options
@dataclass(frozen=True)
class Handoff:
    """Lets the model hand the conversation over to another agent. Stands among the tools.

    Attributes:
        agent: Who goes on, or a function that returns who: two agents may name each other.
        name: The tool's name; `transfer_to_…` by default.
        description: What the model reads about it.
    """

    agent: Configured | Callable[[], Configured]
    name: str | None = None
    description: str | None = None

    @property
    def target(self) -> AgentConfig:
        """The options of the agent that goes on."""
        agent: Any = self.agent() if inspect.isfunction(self.agent) else self.agent
        config = getattr(agent, "config", None)
        if not isinstance(config, AgentConfig):
            raise InvalidTool(
                f"Handoff({safe_repr(agent)}): expected an agent, or a function that returns one."
            )
        return config


Source: TypeAlias = "AnyTool | Toolset | Handoff | Callable[..., Any]"
ToolSource: TypeAlias = "AnyTool | Toolset | Handoff"
_NOT_NEGATIVE = _checks.integer(0)
_POSITIVE = _checks.integer(1).or_none()
TRACE_TO = Check(
    "a file, a folder, True or False", lambda value: isinstance(value, (bool, str, os.PathLike))
)
CHECKS: Mapping[str, Check] = {
    "model": Check(
        "a model string or a model",
        lambda value: (
            isinstance(value, str) or (hasattr(value, "request") and not isinstance(value, type))
        ),
    ),
    "output": Check(
        "a type, such as a pydantic model, or a function. Write a JSON Schema as JsonSchema({…}), "
        "several types as A | B, and of an object its class",
        lambda value: (
            not isinstance(value, (Mapping, Sequence, Set, BaseModel))
            or isinstance(value, (str, bytes))
        ),
    ),
    "name": Check(
        "letters, digits, '_', '-' and '.', which can stand in an address",
        lambda value: (
            isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]+", value) is not None
        ),
    ),
    "tools": _checks.items("a list of tools, functions, toolsets and handoffs"),
    "instructions": Check(
        "text, or a function that returns it",
        lambda value: value is None or isinstance(value, str) or callable(value),
    ),
    "output_mode": _checks.one_of("auto", *get_args(OutputMode)),
    "output_retries": _NOT_NEGATIVE,
    "output_validators": _checks.items("a list of functions", callable),
    "settings": _checks.instance("ChatSettings(…)", ChatSettings),
    "step_settings": _checks.function("a function that returns ChatSettings").or_none(),
    "limits": _checks.instance("Limits(…)", Limits),
    "trace": TRACE_TO.or_none(),
    "capture": _checks.words(Capture),
    "durability": _checks.words(Durability),
    "redact": _checks.instance("Redactor(…)", Redactor),
    "middleware": _checks.items("a list of functions from handler to handler", callable),
    "concurrency": _POSITIVE,
    "compact": _checks.function("a function of the messages").or_none(),
    "compact_above": _POSITIVE,
}


def check(values: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    """Refuse the first option whose value does not fit.

    Raises:
        ConfigurationError: It names the option, its value and what is expected.
    """
    if (found := _checks.misfit(values, checks)) is not None:
        name, expected = found
        raise ConfigurationError(f"{name}={safe_repr(values[name])}: expected {expected.expected}.")


_DEFAULTS: Mapping[str, Callable[[], Any]] = {
    "settings": ChatSettings,
    "limits": Limits,
    "redact": Redactor,
    "tools": tuple,
    "output_validators": tuple,
    "middleware": tuple,
}
"""What None means for these options."""


@options
@dataclass(frozen=True, kw_only=True, eq=False)
class AgentConfig:
    """The options of an agent, described at `agentkit.Agent`. The same object serves all runs."""

    model: str | Model
    output: Any = str
    deps_type: Any = NoneType
    name: str = "agent"
    tools: Sequence[ToolSource] = ()
    instructions: str | Callable[..., Any] | None = None
    output_mode: Mode = "auto"
    output_retries: int = 1
    output_validators: Sequence[Callable[..., Any]] = ()
    settings: ChatSettings = field(default_factory=ChatSettings)
    step_settings: Callable[..., Any] | None = None
    limits: Limits = field(default_factory=Limits)
    trace: TraceTo | None = None
    capture: Capture = "full"
    durability: Durability = "none"
    redact: Redactor = field(default_factory=Redactor)
    middleware: Sequence[Middleware] = ()
    concurrency: int | None = None
    compact: Compaction | None = None
    compact_above: int | None = None

    def __post_init__(self) -> None:
        """Fill in what None means, check every option, and make tools of functions.

        Raises:
            InvalidTool: A tool cannot be made, or two have one name.
            ConfigurationError: An option does not fit.
        """
        for name, make in _DEFAULTS.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, make())
        check({one.name: getattr(self, one.name) for one in fields(self)}, CHECKS)
        if (self.compact is None) != (self.compact_above is None):
            raise ConfigurationError(
                "compact= and compact_above= go together: how the history is made shorter, and "
                "the input tokens of a step above which it is."
            )
        object.__setattr__(self, "tools", tuple(map(_tool_source, self.tools)))
        object.__setattr__(self, "output_validators", tuple(self.output_validators))
        object.__setattr__(self, "middleware", tuple(self.middleware))
        check_names(self.fixed_tools)
        _ = self.output_function  # made where its annotations can be evaluated

    def with_(self, **changes: Any) -> AgentConfig:
        """Return the options with some of them changed."""
        variant = replace(self, **changes)
        if "resolved" in vars(self) and "model" not in changes:
            vars(variant)["resolved"] = self.resolved  # variants share its connections
        return variant

    def for_model(self, model: str | Model) -> AgentConfig:
        """Return the options with the model of one run, and with all that holds for both."""
        variant = object.__new__(type(self))
        vars(variant).update(vars(self), model=model, _origin=self.origin)
        for name in ("resolved", "program", "output_spec"):
            vars(variant).pop(name, None)
        if variant.resolved.profile == self.resolved.profile:
            vars(variant)["output_spec"] = self.output_spec  # compiling it takes milliseconds
        return variant

    @property
    def origin(self) -> AgentConfig:
        """The agent's own options, where these are those of one run with another model."""
        return vars(self).get("_origin", self)

    def __getstate__(self) -> dict[str, Any]:
        """Return the options for copies and other processes, without what was made of them."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @property
    def fixed_tools(self) -> list[AnyTool]:
        """The tools that are no toolset's."""
        return [one for one in self.tools if isinstance(one, Tool)]

    @property
    def toolsets(self) -> tuple[Toolset, ...]:
        """The sources of tools that are asked at every step."""
        return tuple(one for one in self.tools if isinstance(one, Toolset))

    @property
    def handoffs(self) -> list[Handoff]:
        """The ways to hand the conversation over."""
        return [one for one in self.tools if isinstance(one, Handoff)]

    @functools.cached_property
    def resolved(self) -> Model:
        """The model. Made at first use and kept: its connections are shared by all runs."""
        return resolve_model(self.model)

    @functools.cached_property
    def output_function(self) -> AnyTool | None:
        """The function that gets the output, as a tool; None if `output` is a type."""
        output: object = self.output
        if isinstance(output, Tool):
            return cast("AnyTool", output)
        if inspect.isroutine(output) or isinstance(output, functools.partial):
            return Tool(cast("Callable[..., Any]", output))
        return None

    @functools.cached_property
    def output_spec(self) -> OutputSpec[Any]:
        """How the output is requested and checked. Compiled once, because that is slow."""
        profile = self.resolved.profile
        mode: Mode = self.output_mode
        if mode == "auto" and self.tools and not profile.native_with_tools:
            # This server's response_format keeps the model from calling tools.
            for one in reversed(profile.output_modes):
                mode = one if one not in ("native", "json") else mode
        tool = self.output_function
        if tool is None:
            return output_spec(self.output, profile, mode)
        spec = spec_of_schema(
            tool.name, tool.parameters, lambda text: (tool.parse(text), None), profile, mode
        )
        revive = functools.partial(_revived, tool.returned, self.redact)
        return replace(
            spec, finishing=True, effect=tool.effect, on_crash=tool.on_crash, revive=revive
        )

    def check_deps(self, deps: object) -> None:
        """Refuse a run whose deps are not those that the agent needs.

        Raises:
            ConfigurationError: They are of another type than `deps_type`, or None where a
                function's context is annotated with a type of deps.
        """
        expected = None if self.deps_type is NoneType else self.deps_type
        if expected is not None and not _is_instance(deps, expected):
            raise ConfigurationError(
                f"deps is of type {type(deps).__name__}; expected {_named(expected)}, the "
                f"deps_type of the agent {self.name!r}."
            )
        if deps is None and (needed := next(self.needed_deps(), None)) is not None:
            who, kind = needed
            raise ConfigurationError(
                f"{who} of the agent {self.name!r} needs deps of type {_named(kind)}, and the run "
                "has none: pass deps=…."
            )

    def needed_deps(self, seen: frozenset[int] = frozenset()) -> Iterator[tuple[str, Any]]:
        """Yield what cannot do without deps, and the type that its context is annotated with."""
        if self.deps_type is not NoneType and not _is_instance(None, self.deps_type):
            yield "deps_type", self.deps_type
        for tool in [*self.fixed_tools, self.output_function]:
            if tool is not None and tool.deps_type is not None:
                yield f"The tool {tool.name!r}", tool.deps_type
        functions = (self.instructions, self.step_settings, *self.output_validators)
        for function in functions:
            if callable(function) and (kind := _needed_by(function)) is not None:
                yield f"The function {getattr(function, '__name__', function)!r}", kind
        for one in self.handoffs:
            if id(one.target) not in seen:
                yield from one.target.needed_deps(seen | {id(self)})


def _revived(returned: Any, redact: Redactor, value: Any) -> Any:
    """Return the value of an output function from its JSON, as the function returned it.

    That is one of the annotated type, or of a subclass of it, whose JSON is the recorded one;
    the JSON itself where there is none.
    """
    recorded = packed(value, redact)
    for kind in _kinds(returned):
        with contextlib.suppress(Exception):  # not every annotation is a type of pydantic's
            revived = TypeAdapter[Any](kind).validate_python(value, by_alias=True, by_name=True)
            if packed(revived, redact) == recorded:
                return revived
    return value


def _kinds(returned: Any) -> Iterator[Any]:
    """Yield an annotation, and the subclasses of the classes with fields that it allows."""
    yield returned
    pending: list[type] = [one for one in (returned, *get_args(returned)) if isinstance(one, type)]
    while pending:
        kind = pending.pop()
        if hasattr(kind, "__dataclass_fields__") or issubclass(kind, BaseModel):
            pending += kind.__subclasses__()
            yield kind


def _tool_source(source: Any) -> ToolSource:
    if isinstance(source, (Tool, Toolset, Handoff)):
        return cast("ToolSource", source)
    if inspect.isclass(source) and issubclass(source, (Tool, Toolset, Handoff)):
        name = source.__name__
        text = f"tools holds the class {name}; it takes objects. Make one: {name}(…)."
        raise InvalidTool(text, tool=name)
    if callable(source) and not hasattr(source, "as_tool"):
        return Tool(source)
    text = f"tools holds {safe_repr(source)}, which is neither a tool nor a function."
    if hasattr(source, "as_tool"):
        text += " Put an agent there as agent.as_tool(), or as Handoff(agent)."
    elif isinstance(source, Mapping):
        text += " Make a tool of a JSON Schema with Tool.from_schema(…)."
    elif isinstance(source, (list, tuple)):
        text += " Put its items there instead: tools=[*these, …]."
    raise InvalidTool(text)


def _needed_by(function: Callable[..., Any]) -> Any:
    """Return the type of deps without which a function of the user's cannot work, or None."""
    try:
        hints = typing.get_type_hints(inspect.unwrap(function))
    except Exception:  # an annotation is arbitrary code, and may name what exists elsewhere
        return None
    return next((kind for hint in hints.values() if (kind := required(hint, RunContext))), None)


def _is_instance(value: object, kind: Any) -> bool:
    """Tell whether a value is of a type, as far as Python can; True where it cannot."""
    try:
        return isinstance(value, typing.get_origin(kind) or kind)
    except TypeError:  # a protocol, a TypedDict, a union of such
        return True


def _named(kind: Any) -> str:
    return kind.__qualname__ if isinstance(kind, type) else str(kind)
