"""Tools: Python functions that a model may call.

A `Tool` knows what the model is told of its function, turns the text that a
model sends into bound arguments, runs the function, and renders its value.
Whether and when it runs, side by side with which others, is `execution.py`.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType, MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    TypeAlias,
    TypedDict,
    TypeVar,
    cast,
    overload,
)

from typing_extensions import Unpack

from agentkit.arguments import load
from agentkit.calling import run
from agentkit.context import RunContext
from agentkit.errors import InvalidTool
from agentkit.messages import Content, JsonObject, ToolDefinition
from agentkit.raw_schema import RawSchema
from agentkit.results import render
from agentkit.schema import ArgumentSchema, FunctionSchema
from agentkit.signatures import INJECTED, describe
from agentkit.strict import NotStrict, strict_form
from agentkit.validation import fit

__all__ = [
    "Arguments",
    "FunctionToolset",
    "RunContext",
    "Tool",
    "ToolOptions",
    "Toolset",
    "check_names",
    "tool",
    "tools_of",
]

P = ParamSpec("P")
R = TypeVar("R")
MethodP = ParamSpec("MethodP")
MethodR = TypeVar("MethodR")

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MAX_OUTPUT = 65_536
_LIKE_THE_FUNCTION = ("__name__", "__qualname__", "__module__", "__doc__")
_DEFAULTS: dict[str, Any] = {
    "name": None,
    "description": None,
    "strict": None,
    "timeout": None,
    "concurrency": None,
    "sequential": False,
    "effect": "write",
    "max_output": _MAX_OUTPUT,
    "on_error": "tell",
    "retries": 0,
}


# Tools


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Arguments as the function will be called with them.

    Attributes:
        args: By position. INJECTED stands where the run's context belongs.
        kwargs: By keyword.
        repairs: What was mended in the text that the model sent.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any]
    repairs: tuple[str, ...] = ()


class ToolOptions(TypedDict, total=False):
    """The options of `Tool` and `tool`, described there."""

    name: str | None
    description: str | None
    strict: bool | None
    timeout: float | None
    concurrency: int | None
    sequential: bool
    effect: Literal["read", "write"]
    max_output: int | None
    on_error: Literal["tell", "raise"]
    retries: int


class Tool(Generic[P, R]):
    """A function that a model may call. Calling the tool calls the function.

    Args:
        function: Any callable with annotated parameters.
        name: What the model calls it: letters, digits, `_` and `-`, at most 64.
            The function's name if None.
        description: What the model is told; the docstring's if None.
        strict: Whether the schema is sent in the strict form that servers enforce.
            None uses it if the schema allows; True insists; False never does.
        timeout: Seconds that a call may take.
        concurrency: How many calls of this tool may run at the same time.
        sequential: Whether nothing else may run while this tool does.
        effect: "read" if running it twice does no harm, else "write".
        max_output: Bytes of a result that the model is shown; the rest is cut.
        on_error: "tell" tells the model of an error, "raise" ends the run with it.
        retries: How often a failed call is tried again before its error counts.

    Raises:
        InvalidTool: The function or the name cannot be a tool's.
    """

    function: Callable[P, R]
    name: str
    timeout: float | None
    concurrency: int | None
    sequential: bool
    effect: Literal["read", "write"]
    max_output: int | None
    on_error: Literal["tell", "raise"]
    retries: int

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        strict: bool | None = None,
        timeout: float | None = None,
        concurrency: int | None = None,
        sequential: bool = False,
        effect: Literal["read", "write"] = "write",
        max_output: int | None = _MAX_OUTPUT,
        on_error: Literal["tell", "raise"] = "tell",
        retries: int = 0,
    ) -> None:
        function = _plain(function)
        method = _is_method(function)
        schema = FunctionSchema(
            function, injected=RunContext, method=method, scope=_defining_scope()
        )
        self._set(
            function,
            schema,
            _method=method,
            name=name or _name_of(function),
            description=description,
            strict=strict,
            timeout=timeout,
            concurrency=concurrency,
            sequential=sequential,
            effect=effect,
            max_output=max_output,
            on_error=on_error,
            retries=retries,
        )

    @classmethod
    def from_schema(
        cls,
        name: str,
        description: str,
        parameters: Mapping[str, Any],
        fn: Callable[..., Any],
        **options: Unpack[ToolOptions],
    ) -> Tool[..., Any]:
        """A tool from a raw JSON Schema, checked here.

        Args:
            name: What the model calls it.
            description: What the model is told.
            parameters: JSON Schema of an object; draft 2020-12, 2019-09, 7, 6 or 4.
            fn: Takes the properties by keyword, and a `RunContext` where it is annotated so.
            **options: As of `Tool`.

        Raises:
            InvalidTool: The schema is not valid, or `fn` does not take its properties.
        """
        schema = RawSchema(name, parameters, fn, injected=RunContext)
        tool: Tool[..., Any] = object.__new__(cls)
        given: dict[str, Any] = {**options, "name": name, "description": description}
        tool._set(fn, schema, **(_DEFAULTS | given))
        return tool

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(f"a Tool is immutable; make a variant with .with_({name}=…)")

    _description: str | None
    _asked: bool | None
    _schema: ArgumentSchema
    _method: bool

    def _set(self, function: Callable[..., Any], schema: ArgumentSchema, **options: Any) -> None:
        options["name"] = _checked_name(options["name"], function)
        _check_options(options, function)
        self.__dict__.update(
            {attribute: getattr(function, attribute, None) for attribute in _LIKE_THE_FUNCTION},
            __wrapped__=function,
            function=function,
            _schema=schema,
            _method=options.pop("_method", False),
            _description=options.pop("description"),
            _asked=options.pop("strict"),
            **options,
        )

    def __repr__(self) -> str:
        return f"<Tool {self.name}: {describe(self.function)}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, nothing else."""
        return self.function(*args, **kwargs)

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Tool[P, R]: ...

    @overload
    def __get__(
        self: Tool[Concatenate[Any, MethodP], MethodR], instance: object, owner: type | None = None
    ) -> Tool[MethodP, MethodR]: ...

    def __get__(self, instance: object | None, owner: type | None = None) -> Tool[Any, Any]:
        """A method's tool, bound to `instance` as the method would be."""
        inner: Any = self.function
        if not self._method or (instance is None and not isinstance(inner, classmethod)):
            return self
        bound = inner.__get__(instance, owner)
        return self._copy(function=bound, __wrapped__=bound, _method=False)

    def with_(self, **options: Unpack[ToolOptions]) -> Tool[P, R]:
        """The same tool with other options.

        Raises:
            InvalidTool: The new name cannot be a tool's.
        """
        changed: dict[str, Any] = dict(options)
        if "name" in changed:
            _checked_name(changed["name"], self.function)
        _check_options(changed, self.function)
        private = {"description": "_description", "strict": "_asked"}
        return self._copy(**{private.get(key, key): value for key, value in changed.items()})

    def _copy(self, **changed: Any) -> Tool[Any, Any]:
        copy: Tool[Any, Any] = object.__new__(type(self))
        kept = {k: v for k, v in self.__dict__.items() if k not in ("definition", "description")}
        if "_asked" in changed or "name" in changed:
            kept.pop("_form", None)
        copy.__dict__.update(kept | changed)
        return copy

    # What the model is told

    @functools.cached_property
    def description(self) -> str:
        """What the model is told of the tool."""
        if self._description is not None:
            return inspect.cleandoc(self._description)
        return self._schema.description

    @property
    def parameters(self) -> JsonObject:
        """The JSON Schema that the model sees; the strict form of a strict tool."""
        return self._form[0]

    @property
    def strict(self) -> bool:
        """Whether servers are asked to enforce the schema."""
        return self._form[1]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the tool is not strict, and which parameters the model does not see."""
        return self._form[2]

    @functools.cached_property
    def definition(self) -> ToolDefinition:
        """Name, description and schema as one value: the same object each time."""
        return ToolDefinition(
            name=self.name,
            description=self.description,
            parameters=self.parameters,
            strict=self.strict,
        )

    @property
    def tokens(self) -> int:
        """About how many tokens the definition costs in each request: a quarter of its bytes."""
        text = json.dumps(self.definition.to_json(), ensure_ascii=False, separators=(",", ":"))
        return (len(text.encode()) + 3) // 4

    @functools.cached_property
    def _form(self) -> tuple[JsonObject, bool, tuple[str, ...]]:
        """The schema sent, whether it is strict, and the warnings."""
        if self._method:
            raise InvalidTool(
                f"{describe(self.function)} is a method and has nothing to be called on. Take the "
                f"tool from an instance, as in `instance.{self.__name__}`.",
                tool=self.name,
            )
        schema, warnings = self._schema.parameters, self._schema.warnings
        if self._asked is False:
            return schema, False, warnings
        try:
            return strict_form(schema), True, warnings
        except NotStrict as error:
            reason = f"Tool {self.name!r} cannot be strict: {error}"
            if self._asked:
                raise InvalidTool(reason, tool=self.name) from error
            return schema, False, (*warnings, reason)

    # Running it

    def parse(self, arguments: str) -> Arguments:
        """Arguments from the text that a model sent: repaired, validated and bound.

        Raises:
            InvalidArguments: They do not fit. The text is for the model.
        """
        data, repairs = load(arguments)
        text = json.dumps(data) if repairs else arguments
        values, converted = fit(self._schema.checker, data, text)
        args, kwargs = self._schema.bind(values)
        return Arguments(args=args, kwargs=kwargs, repairs=(*repairs, *converted))

    async def invoke(self, arguments: Arguments, context: RunContext[Any]) -> Any:
        """Run the function: coroutines here, everything else in a worker thread.

        What a generator yields is progress; its return, or else its last yield,
        is the value. A sync function whose call is cancelled goes on in its
        thread, and whatever it still reports or returns is discarded.
        """
        args = [context if value is INJECTED else value for value in arguments.args]
        kwargs = {k: context if v is INJECTED else v for k, v in arguments.kwargs.items()}
        return await run(self.function, args, kwargs, context)

    def render(self, value: Any) -> Content:
        """What the model is told of a value that the function returned.

        Raises:
            ToolError: A part of it has no JSON form; the text says which.
        """
        return render(value, self.max_output)

    async def call(self, arguments: str, context: RunContext[Any] | None = None) -> Any:
        """Parse, validate, bind and run, as in a run.

        Args:
            arguments: The JSON text as a model would send it.
            context: The context of the run; a bare one if None.

        Returns:
            The function's value.

        Raises:
            InvalidArguments: The arguments do not fit. The function was not called.
        """
        return await self.invoke(self.parse(arguments), context or RunContext())


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(**options: Unpack[ToolOptions]) -> Callable[[Callable[P, R]], Tool[P, R]]: ...


def tool(function: Callable[..., Any] | None = None, /, **options: Unpack[ToolOptions]) -> Any:
    """Make a function a tool: `@tool`, or `@tool(name=…, timeout=…)`; see `Tool`.

    Example:
        >>> @tool
        ... def add(a: int, b: int) -> int:
        ...     '''Add two numbers.'''
        ...     return a + b
        >>> add(1, 2)
        3
        >>> add.description
        'Add two numbers.'
    """
    if function is None:
        return lambda function: Tool(function, **options)
    return Tool(function, **options)


# Toolsets

AnyTool: TypeAlias = Tool[..., Any]


class Toolset:
    """Tools that are decided anew at every step. Write `tools`, sync or async, in a subclass."""

    def tools(self, context: RunContext[Any]) -> Sequence[AnyTool] | Awaitable[Sequence[AnyTool]]:
        """The tools of this step."""
        raise NotImplementedError(f"{type(self).__name__} has to define tools(context)")

    def filter(self, keep: Callable[[RunContext[Any], AnyTool], bool]) -> Toolset:
        """Only the tools for which `keep(context, tool)` is true."""
        return _Mapped(self, lambda context, tool: tool if keep(context, tool) else None)

    def prefix(self, prefix: str) -> Toolset:
        """Every name with `prefix` before it."""
        return _Mapped(self, lambda _, tool: tool.with_(name=prefix + tool.name))

    def rename(self, names: Mapping[str, str]) -> Toolset:
        """Other names for some tools, by their old ones."""
        return _Mapped(
            self, lambda _, tool: tool.with_(name=names[tool.name]) if tool.name in names else tool
        )


Changes: TypeAlias = Callable[[RunContext[Any], AnyTool], AnyTool | None]


class _Mapped(Toolset):
    def __init__(self, inner: Toolset, change: Changes) -> None:
        self._inner = inner
        self._change = change

    async def tools(self, context: RunContext[Any]) -> Sequence[AnyTool]:
        found = await tools_of(self._inner, context)
        changed = [self._change(context, tool) for tool in found]
        return [tool for tool in changed if tool is not None]


class FunctionToolset(Toolset):
    """A fixed set of tools; functions are made into tools."""

    def __init__(self, *functions: AnyTool | Callable[..., Any]) -> None:
        self._tools = tuple(f if isinstance(f, Tool) else Tool(f) for f in functions)

    def tools(self, context: RunContext[Any]) -> Sequence[AnyTool]:
        """The tools, always the same."""
        return self._tools


Source: TypeAlias = (
    Toolset | Callable[[RunContext[Any]], Sequence[AnyTool] | Awaitable[Sequence[AnyTool]]]
)


async def tools_of(source: Source, context: RunContext[Any]) -> tuple[AnyTool, ...]:
    """The tools of a toolset, or of a function of the context, at this step."""
    found = source.tools(context) if isinstance(source, Toolset) else source(context)
    return tuple(await found if inspect.isawaitable(found) else found)


def check_names(tools: Sequence[AnyTool]) -> None:
    """Refuse two tools of one name.

    Raises:
        InvalidTool: There are; the text says where both come from.
    """
    seen: dict[str, AnyTool] = {}
    for tool in tools:
        if (other := seen.get(tool.name)) is not None:
            raise InvalidTool(
                f"Two tools are called {tool.name!r}: {describe(other.function)} and "
                f"{describe(tool.function)}. Rename one with name=…, or .prefix() its toolset.",
                tool=tool.name,
            )
        seen[tool.name] = tool


# What a function is


def _name_of(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = cast("Any", function).func
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__name__


def _checked_name(name: str, function: Any) -> str:
    if name == "<lambda>":
        raise InvalidTool(f"{describe(function)} needs a name: tool(name=…).", tool=None)
    if not _NAME.fullmatch(name):
        raise InvalidTool(
            f"{name!r} cannot be the name of a tool ({describe(function)}): it takes 1 to 64 "
            "letters, digits, '_' and '-'. Give another with name=….",
            tool=name,
        )
    return name


def _check_options(options: Mapping[str, Any], function: Any) -> None:
    """Refuse options out of their range, before any run."""
    allowed: dict[str, Callable[[Any], bool]] = {
        "timeout": lambda seconds: seconds is None or seconds > 0,
        "concurrency": lambda calls: calls is None or calls >= 1,
        "max_output": lambda size: size is None or size >= 0,
        "retries": lambda times: times >= 0,
        "effect": lambda effect: effect in ("read", "write"),
        "on_error": lambda way: way in ("tell", "raise"),
    }
    for option, fits in allowed.items():
        if option in options and not fits(options[option]):
            raise InvalidTool(
                f"{option}={options[option]!r} of {describe(function)} is out of its range; see "
                "Tool.",
                tool=options.get("name"),
            )


def _plain(function: Any) -> Any:
    """The callable inside what `@staticmethod` and `@classmethod` make of it, or of a tool."""
    if isinstance(function, staticmethod):
        function = cast("Any", function).__func__
    if isinstance(function, MethodType) and isinstance(function.__func__, Tool):
        # What @classmethod makes of a tool, from Python 3.13 on.
        return MethodType(function.__func__.function, function.__self__)
    return cast("Any", function).function if isinstance(function, Tool) else function


def _is_method(function: Any) -> bool:
    """Whether a function stands in a class body and waits for its first argument."""
    if isinstance(function, classmethod):
        return True
    if not inspect.isfunction(function):
        return False
    parents = function.__qualname__.split(".")[:-1]
    if not parents or parents[-1] == "<locals>":
        return False
    first = next(iter(inspect.signature(function).parameters.values()), None)
    return first is not None and (first.name in ("self", "cls") or first.annotation is first.empty)


def _defining_scope() -> FrameType | None:
    """The frame outside this file that is making the tool."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return frame
