"""Tools: Python functions that a model may call.

A `Tool` knows what the model is told of its function, turns the text that a
model sends into bound arguments, runs the function, and renders its value.
When it runs, and side by side with which others, is `execution.py`'s business.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    TypeAlias,
    TypeVar,
    cast,
    overload,
)
from weakref import WeakKeyDictionary

from typing_extensions import Unpack

from agentkit.errors import InvalidTool, ToolError
from agentkit.messages import Content, JsonObject, ToolDefinition
from agentkit.schema.repair import load
from agentkit.schema.strict import NotStrict, strict_form
from agentkit.tools.context import RunContext
from agentkit.tools.function import FunctionSchema
from agentkit.tools.invoke import awaited, run
from agentkit.tools.options import KEPT_AS, Approval, BehaviourOptions, ToolOptions, check_tool
from agentkit.tools.raw import RawSchema
from agentkit.tools.render import render
from agentkit.tools.signature import (
    INJECTED,
    Signature,
    defining_scope,
    describe,
    is_method,
    name_of,
)
from agentkit.tools.validation import fit

__all__ = [
    "AnyTool",
    "Arguments",
    "BehaviourOptions",
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
SelfT = TypeVar("SelfT")
MethodP = ParamSpec("MethodP")
MethodR = TypeVar("MethodR")

_MAX_OUTPUT = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Arguments as the function will be called with them.

    Attributes:
        args: By position. INJECTED stands where the run's context belongs.
        kwargs: By keyword, likewise.
        repairs: What was mended in the text that the model sent.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any]
    repairs: tuple[str, ...] = ()


class Tool(Generic[P, R]):
    """A function that a model may call. Calling the tool calls the function.

    The signature is checked when the tool is made. Types are turned into a
    schema at first use, so that they may name what is defined further below.

    Args:
        function: Any callable whose parameters are annotated.
        name: What the model calls it: letters, digits, `_` and `-`, at most 64.
            The function's name if None.
        description: What the model is told; the docstring if None.
        strict: Whether the schema is sent in the strict form that servers enforce.
            None does so if the schema has one; True insists; False never does.
        timeout: Seconds that a call may take.
        concurrency: How many calls of this tool may run at the same time.
        sequential: Whether nothing else may run while this tool does.
        effect: "read" if running it twice does no harm, else "write".
        max_output: Bytes of a result that the model is shown; the rest is cut.
        on_error: "tell" tells the model of an error, "raise" ends the run with it.
        retries: How often a failed call is tried again before its error counts.
        approval: Whether a person has to agree to a call before it runs: True, False, or
            a function of the `RunContext` and the arguments (a dict) that says so.

    Raises:
        InvalidTool: The function cannot be a tool, or an option is out of its range.
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
    approval: Approval
    deferred: bool

    _schema: FunctionSchema | RawSchema
    _method: bool
    _description: str | None
    _asked: bool | None

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
        approval: Approval = False,
    ) -> None:
        function = _inner(function)
        method = is_method(function)
        signature = Signature(function, injected=RunContext, method=method, scope=defining_scope())
        self._set(
            function=function,
            _schema=FunctionSchema(signature),
            _method=method,
            name=name or name_of(function),
            _description=description,
            _asked=strict,
            timeout=timeout,
            concurrency=concurrency,
            sequential=sequential,
            effect=effect,
            max_output=max_output,
            on_error=on_error,
            retries=retries,
            approval=approval,
            deferred=False,
        )

    @classmethod
    def from_schema(
        cls,
        name: str,
        description: str,
        parameters: JsonObject,
        fn: Callable[..., Any] | None,
        **options: Unpack[BehaviourOptions],
    ) -> Tool[..., Any]:
        """A tool from a raw JSON Schema, which is checked here and now.

        Args:
            name: What the model calls it.
            description: What the model is told.
            parameters: JSON Schema of an object; draft 2020-12, 2019-09, 7, 6 or 4.
            fn: Takes the properties by keyword, and a `RunContext` where it is annotated so.
                None: the calls are answered from outside, see `Agent.resume`.
            **options: As of `Tool`.

        Raises:
            InvalidTool: The schema is not valid, or `fn` does not take its properties.
        """
        function = _elsewhere if fn is None else fn
        signature = Signature(function, injected=RunContext, typed=False)
        schema = RawSchema(name, parameters, signature)
        made = Tool(_nothing, name=name, description=description, **options)
        return made._copy(function=function, _schema=schema, deferred=fn is None)

    def _set(self, **attributes: Any) -> None:
        check_tool(attributes)
        if (function := attributes.get("function")) is not None:
            for name in functools.WRAPPER_ASSIGNMENTS:
                if hasattr(function, name):
                    self.__dict__[name] = getattr(function, name)
            self.__dict__["__wrapped__"] = function
        self.__dict__.update(attributes)

    def _copy(self, **changed: Any) -> Tool[Any, Any]:
        copy: Tool[Any, Any] = object.__new__(type(self))
        kept = self.__dict__.keys() - {"definition", "description", "_form"}
        copy.__dict__.update({name: self.__dict__[name] for name in kept})
        copy._set(**changed)
        return copy

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(f"A tool is immutable; .with_({name}=…) makes a variant.")

    def __repr__(self) -> str:
        return f"<Tool {self.name}: {describe(self.function)}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, nothing else."""
        return self.function(*args, **kwargs)

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Tool[P, R]: ...

    @overload
    def __get__(
        self: Callable[Concatenate[SelfT, MethodP], MethodR],
        instance: SelfT,
        owner: type | None = None,
    ) -> Tool[MethodP, MethodR]: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Tool[P, R]: ...

    def __get__(self, instance: object | None, owner: type | None = None) -> Tool[Any, Any]:
        """A method's tool, bound to `instance` as the method would be."""
        of_class = isinstance(self.function, classmethod)
        if not self._method or (instance is None and not of_class):
            return self
        bound = cast("Any", self.function).__get__(instance, owner)
        return self._copy(function=bound, _method=False)

    def with_(self, **options: Unpack[ToolOptions]) -> Tool[P, R]:
        """The same tool with other options.

        Raises:
            InvalidTool: An option is out of its range.
        """
        changed = {KEPT_AS.get(option, option): value for option, value in options.items()}
        if options.get("name", "") is None:
            changed["name"] = name_of(self.function)
        return self._copy(**changed)

    # What the model is told

    @functools.cached_property
    def description(self) -> str:
        """What the model is told of the tool."""
        if self._description is not None:
            return inspect.cleandoc(self._description)
        return self._schema.description

    @property
    def parameters(self) -> JsonObject:
        """The JSON Schema that the model sees; the strict form of a strict tool.

        Raises:
            InvalidTool: A type has no JSON form, or does not exist; or the tool
                is a method's, and was not taken from an instance.
        """
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
        """About how many tokens the definition costs in each request."""
        return self.definition.tokens

    @property
    def _bound(self) -> FunctionSchema | RawSchema:
        """The schema of a function that can be called as it is."""
        if self._method:
            raise InvalidTool(
                f"{describe(self.function)} is a method and has nothing to be called on. Take the "
                f"tool from an instance, as in `instance.{name_of(self.function)}`.",
                tool=self.name,
            )
        return self._schema

    @functools.cached_property
    def _form(self) -> tuple[JsonObject, bool, tuple[str, ...]]:
        """The schema that is sent, whether it is strict, and warnings."""
        schema, warnings = self._bound.checker.schema, self._bound.warnings
        if self._asked is False:
            return schema, False, warnings
        try:
            return strict_form(schema), True, warnings
        except NotStrict as error:
            reason = f"Tool {self.name!r} cannot be strict: {error}."
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
        values, converted = fit(self._bound.checker, data, text)
        args, kwargs = self._bound.bind(values)
        return Arguments(args=args, kwargs=kwargs, repairs=(*repairs, *converted))

    async def invoke(self, arguments: Arguments, context: RunContext[Any]) -> Any:
        """Run the function and return its value; see `calling.run`."""
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

    def made(function: Callable[..., Any]) -> Tool[..., Any]:
        return Tool(function, **options)

    return made if function is None else made(function)


def _nothing() -> None:
    """Stands in for a function whose schema is made elsewhere."""


def _elsewhere(**arguments: Any) -> Any:
    """Stands in for the function of a deferred tool."""
    raise ToolError("This tool is answered from outside, and nobody has answered.")


def _inner(function: Any) -> Any:
    """The callable inside a tool, and inside what `@staticmethod` and `@classmethod` make of it."""
    if isinstance(function, staticmethod):
        function = cast("Any", function).__func__
    below = cast("Any", function).__func__ if isinstance(function, MethodType) else None
    if isinstance(below, Tool):  # so far only from Python 3.13 on: a tool below @classmethod
        return MethodType(cast("AnyTool", below).function, cast("Any", function).__self__)
    return cast("AnyTool", function).function if isinstance(function, Tool) else function


# Toolsets

AnyTool: TypeAlias = Tool[..., Any]
Tools: TypeAlias = Sequence[AnyTool] | Awaitable[Sequence[AnyTool]]


class Toolset:
    """Tools that are decided anew at every step. Write `tools`, sync or async, in a subclass."""

    def tools(self, context: RunContext[Any]) -> Tools:
        """The tools of this step."""
        raise NotImplementedError(f"{type(self).__name__} has to define tools(context).")

    def filter(self, keep: Callable[[RunContext[Any], AnyTool], bool]) -> Toolset:
        """Only the tools for which `keep(context, tool)` is true."""
        return _Mapped(self, lambda context, tool: tool if keep(context, tool) else None)

    def prefix(self, prefix: str) -> Toolset:
        """Every name with `prefix` before it."""
        return _Remade(self, lambda tool: tool.with_(name=prefix + tool.name))

    def rename(self, names: Mapping[str, str]) -> Toolset:
        """Other names for some tools, by the names they have."""
        return _Remade(self, lambda tool: tool.with_(name=names.get(tool.name, tool.name)))

    def approve(self, approval: Approval = True) -> Toolset:
        """Calls of all these tools need approval; see `Tool`."""
        return _Remade(self, lambda tool: tool.with_(approval=approval))


class FunctionToolset(Toolset):
    """A fixed set of tools; functions are made into tools."""

    def __init__(self, functions: Sequence[AnyTool | Callable[..., Any]]) -> None:
        self._tools = [cast("AnyTool", f) if isinstance(f, Tool) else Tool(f) for f in functions]

    def tools(self, context: RunContext[Any]) -> Tools:
        """The tools, always the same."""
        return self._tools


class _Mapped(Toolset):
    def __init__(
        self, inner: Toolset, change: Callable[[RunContext[Any], AnyTool], AnyTool | None]
    ) -> None:
        self._inner = inner
        self._change = change

    async def tools(self, context: RunContext[Any]) -> Sequence[AnyTool]:
        changed = [self._change(context, tool) for tool in await tools_of(self._inner, context)]
        return [tool for tool in changed if tool is not None]


class _Remade(_Mapped):
    def __init__(self, inner: Toolset, make: Callable[[AnyTool], AnyTool]) -> None:
        super().__init__(inner, self._again)
        self._make = make
        self._made: WeakKeyDictionary[AnyTool, AnyTool] = WeakKeyDictionary()

    def _again(self, context: RunContext[Any], tool: AnyTool) -> AnyTool:
        """The same changed tool at every step, so that its definition is encoded once."""
        if tool not in self._made:
            self._made[tool] = self._make(tool)
        return self._made[tool]


async def tools_of(
    source: Toolset | Callable[[RunContext[Any]], Tools], context: RunContext[Any]
) -> tuple[AnyTool, ...]:
    """The tools of a toolset, or of a function of the context, at this step.

    Raises:
        InvalidTool: Two of them have one name.
    """
    found = source.tools(context) if isinstance(source, Toolset) else source(context)
    tools = tuple(await awaited(found))
    check_names(tools)
    return tools


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
