"""Tools: Python functions that a model may call.

A `Tool` describes its function to the model, turns the text that a model sends
into bound arguments, runs the function, and renders its value. When a call runs,
and beside which others, is up to `runtime/batch.py`.
"""

from __future__ import annotations

import functools
import inspect
import json
import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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

from pydantic_core import to_jsonable_python
from typing_extensions import Unpack

from agentkit._options import options as named_options
from agentkit.core.effects import OnCrash
from agentkit.errors import InvalidArguments, InvalidTool, ToolError, safe_repr
from agentkit.messages import Content, JsonObject, ToolDefinition
from agentkit.schema.repair import load
from agentkit.schema.strict import NotStrict, strict_form
from agentkit.tools.context import RunContext
from agentkit.tools.function import FunctionSchema
from agentkit.tools.invoke import is_async, run, run_blocking
from agentkit.tools.options import Approval, BehaviourOptions, ToolOptions, check_tool
from agentkit.tools.raw import RawSchema
from agentkit.tools.render import json_of, render
from agentkit.tools.signature import (
    INJECTED,
    Signature,
    defining_scope,
    describe,
    is_method,
    name_of,
)
from agentkit.tools.validation import fit

P = ParamSpec("P")
R = TypeVar("R")
SelfT = TypeVar("SelfT")
MethodP = ParamSpec("MethodP")
MethodR = TypeVar("MethodR")


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Arguments as the function will be called with them.

    Attributes:
        args: By position. INJECTED stands where the run's context belongs.
        kwargs: By keyword, likewise.
        values: By the names that the model knows, with the defaults of what it did not send.
        sent: What the model sent, as JSON.
        repairs: The repairs that the model's text needed.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any]
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sent: JsonObject = field(default_factory=dict[str, Any])
    repairs: tuple[str, ...] = ()

    def to_json(self) -> JsonObject:
        """Return the values as JSON: converted, and complete with the defaults."""
        return {key: json_of(value) for key, value in self.values.items()}


class Tool(Generic[P, R]):
    """A function that a model may call. Calling the tool calls the function.

    The signature is checked when the tool is made. Types are turned into a
    schema at first use, so that they may name what is defined further below.

    Args:
        function: Any callable whose parameters are annotated.
        name: The name that the model uses: letters, digits, `_` and `-`, at most 64.
            The function's name if None.
        description: The description that the model reads; the docstring if None.
        strict: Whether the schema is sent in the strict form that servers enforce.
            None does so if the schema has one; True insists; False never does.
        timeout: Seconds that a call may take.
        concurrency: Calls of this tool that may run at the same time.
        sequential: Whether nothing else may run while this tool does.
        effect: "read" if running it twice does no harm, else "write".
        max_output: Bytes of a result that the model reads; the rest is cut.
        on_error: "tell" sends an error to the model, "raise" ends the run with it.
        on_crash: What becomes of a call that was in flight when its process died: "retry"
            runs it again, "ask" has a person decide, with "fail" the model reads that it was
            interrupted. By default, reading tools retry and others ask.
        retries: How often a failed call is repeated before its error counts.
        approval: Whether a person has to approve a call before it runs: True, False, or
            a function of the `RunContext` and the arguments (a dict of JSON, as the tool
            will get them) that decides; anything but False requires it.
        source: Who wrote name, description and schema if the program's author did not, such
            as an MCP server: text from outside, and recorded as such.

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
    on_crash: OnCrash | None
    retries: int
    approval: Approval
    source: str | None
    deferred: bool

    _schema: FunctionSchema | RawSchema
    _options: ToolOptions  # as passed: `name`, `description` and `strict` say what follows
    _method: bool  # whether the function waits for an instance

    @named_options
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
        max_output: int | None = 65_536,
        on_error: Literal["tell", "raise"] = "tell",
        on_crash: OnCrash | None = None,
        retries: int = 0,
        approval: Approval = False,
        source: str | None = None,
    ) -> None:
        function = _undecorated(function)
        method = is_method(function)
        signature = Signature(function, injected=RunContext, method=method, scope=defining_scope())
        options = ToolOptions(
            name=name,
            description=description,
            strict=strict,
            timeout=timeout,
            concurrency=concurrency,
            sequential=sequential,
            effect=effect,
            max_output=max_output,
            on_error=on_error,
            on_crash=on_crash,
            retries=retries,
            approval=approval,
            source=source,
        )
        self._set(function, FunctionSchema(signature), options, method=method)
        check_tool(self.name, options)

    @classmethod
    def from_schema(
        cls,
        name: str,
        description: str,
        parameters: JsonObject,
        fn: Callable[..., Any] | None,
        **options: Unpack[BehaviourOptions],
    ) -> Tool[..., Any]:
        """Make a tool from a raw JSON Schema, which is checked at once.

        Args:
            name: The name that the model uses.
            description: The description that the model reads.
            parameters: JSON Schema of an object; draft 2020-12, 2019-09, 7, 6 or 4.
            fn: Takes the properties by keyword, and a `RunContext` where it is annotated so.
                None defers the tool: its calls are answered from outside, see `Agent.resume`.
            **options: As of `Tool`.

        Raises:
            InvalidTool: The schema is not valid, or `fn` does not take its properties.
        """
        function = _deferred if fn is None else fn
        signature = Signature(function, injected=RunContext, typed=False)
        schema = RawSchema(name, parameters, signature)
        tool = Tool(_deferred, name=name, description=description, **options)
        tool._set(function, schema, tool._options, deferred=fn is None)
        return tool

    def _set(
        self,
        function: Callable[..., Any],
        schema: FunctionSchema | RawSchema,
        options: ToolOptions,
        *,
        method: bool = False,
        deferred: bool = False,
    ) -> None:
        """Set all attributes: those of the function that functools.wraps sets, and the options."""
        name = options.get("name")
        wrapped = [one for one in functools.WRAPPER_ASSIGNMENTS if hasattr(function, one)]
        self.__dict__.update({one: getattr(function, one) for one in wrapped})
        own = {key: value for key, value in options.items() if key not in ("description", "strict")}
        self.__dict__.update(own, name=name_of(function) if name is None else name)
        self.__dict__.update(function=function, __wrapped__=function, deferred=deferred)
        self.__dict__.update(_schema=schema, _options=options, _method=method)

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(f"A tool is immutable; .with_({name}=…) makes a variant.")

    def __repr__(self) -> str:
        return f"<Tool {self.name}: {describe(self.function)}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle a tool of a module by its name, as functions are, and others by their parts."""
        name = getattr(self, "__qualname__", "")
        module = sys.modules.get(getattr(self, "__module__", ""))
        try:
            of_module = operator.attrgetter(name)(module)
        except AttributeError:
            of_module = None
        if of_module is self:
            return name
        function: Any = None if self.deferred else self.function
        if isinstance(of_module, Tool) and cast("AnyTool", of_module).function is function:
            function = cast("AnyTool", of_module)  # this is a variant of it
        raw = self._schema.checker.schema if isinstance(self._schema, RawSchema) else None
        return _remade, (function, self._options, raw)

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
        """Bind a method's tool to `instance`, as the method would be."""
        of_class = isinstance(self.function, classmethod)
        if not self._method or (instance is None and not of_class):
            return self
        bound: Tool[Any, Any] = object.__new__(type(self))
        function = cast("Any", self.function).__get__(instance, owner)
        bound._set(function, self._schema, self._options)
        return bound

    def with_(self, **options: Unpack[ToolOptions]) -> Tool[P, R]:
        """Return the same tool with other options.

        Raises:
            InvalidTool: An option is out of its range.
        """
        variant: Tool[P, R] = object.__new__(type(self))
        changed: ToolOptions = {**self._options, **options}
        variant._set(
            self.function, self._schema, changed, method=self._method, deferred=self.deferred
        )
        check_tool(variant.name, changed)
        return variant

    # What the model sees

    @functools.cached_property
    def description(self) -> str:
        """The description that the model reads."""
        description = self._options.get("description")
        return self._schema.description if description is None else inspect.cleandoc(description)

    @functools.cached_property
    def definition(self) -> ToolDefinition:
        """Name, description and schema as one value: the same object each time.

        Raises:
            InvalidTool: A type has no JSON form, or does not exist; or the tool
                is a method's, and was not taken from an instance.
        """
        return self._described[0]

    @property
    def parameters(self) -> JsonObject:
        """The JSON Schema that the model sees; the strict form of a strict tool."""
        return self.definition.parameters

    @property
    def strict(self) -> bool:
        """Whether servers enforce the schema."""
        return self.definition.strict

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the tool is not strict, what the model does not see, and what is not described."""
        warnings = [*self.schema_warnings, *self._schema.misdocumented]
        if not self.description.strip():
            warnings.append(
                "There is no docstring, so the model reads only the name and the parameters. "
                "Write one, or pass description=…."
            )
        return tuple(warnings)

    @property
    def schema_warnings(self) -> tuple[str, ...]:
        """Those of `warnings` that each run has too: about the schema, not the docstring."""
        return self._described[1]

    @functools.cached_property
    def _described(self) -> tuple[ToolDefinition, tuple[str, ...]]:
        """The definition, and warnings about it."""
        schema, warnings = self._bound.checker.schema, self._bound.warnings
        requested = self._options.get("strict")
        strict = requested is not False
        if strict:
            try:
                schema = strict_form(schema)
            except NotStrict as error:
                reason = f"Tool {self.name!r} cannot be strict: {error}."
                if requested:
                    raise InvalidTool(reason, tool=self.name) from error
                strict, warnings = False, (*warnings, reason)
        definition = ToolDefinition(
            name=self.name, description=self.description, parameters=schema, strict=strict
        )
        return definition, warnings

    @functools.cached_property
    def takes_context(self) -> bool:
        """Whether the function gets the run's context."""
        return bool(self._schema.signature.injected)

    @functools.cached_property
    def is_async(self) -> bool:
        """Whether calling the function returns at once, with something to await or iterate."""
        return is_async(self.function)

    @property
    def deps_type(self) -> Any:
        """The X of its `RunContext[X]`, where a run has to have such deps; else None."""
        return self._schema.signature.deps_type

    @property
    def returned(self) -> Any:
        """The annotation of the function's value; Any if it has none that exists at run time."""
        return self._schema.signature.returned

    @property
    def _bound(self) -> FunctionSchema | RawSchema:
        """The schema of a function that can be called as it is."""
        if self._method:
            raise InvalidTool(
                f"{describe(self.function)} is a method. Take the tool from an instance, as in "
                f"`instance.{name_of(self.function)}`.",
                tool=self.name,
            )
        return self._schema

    # Calls

    def parse(self, arguments: str) -> Arguments:
        """Parse, repair, validate and bind the text that a model sent.

        Raises:
            InvalidArguments: The arguments do not match the schema. The text is for the model.
        """
        schema = self._bound
        try:
            data, repairs = load(arguments)
            values, converted = fit(schema.checker, data)
        except InvalidArguments as error:
            raise InvalidArguments(f"The tool was not run. {error.message}") from error
        values = schema.complete(values)
        args, kwargs = schema.signature.bind(values, schema.keys)
        repairs = (*repairs, *converted)
        return Arguments(args=args, kwargs=kwargs, values=values, sent=data, repairs=repairs)

    def named(self, arguments: Arguments) -> JsonObject:
        """Return arguments as JSON, by the model's names and by those of the parameters."""
        values = arguments.to_json()
        keys = self._schema.keys.items()
        return {**values, **{name: values[key] for name, key in keys if key in values}}

    async def invoke(self, arguments: Arguments, context: RunContext[Any]) -> Any:
        """Run the function and return its value; see `invoke.run`."""
        args, kwargs = arguments.args, arguments.kwargs
        if self.takes_context:
            args = [context if value is INJECTED else value for value in args]
            kwargs = {k: context if v is INJECTED else v for k, v in kwargs.items()}
        call = functools.partial(self.function, *args, **kwargs)
        return await run(call, context, threaded=not self.is_async, name=self.name)

    def render(self, value: Any) -> Content:
        """Render a value of the function as what the model reads.

        Raises:
            ToolError: A part of it has no JSON form; the text names the part.
        """
        return render(value, self.max_output)

    async def call(
        self, arguments: str | Mapping[str, Any], context: RunContext[Any] | None = None
    ) -> Any:
        """Parse, validate, bind and run, as in a run.

        Args:
            arguments: The JSON text as a model would send it, or a mapping of what is in it.
            context: The context of the run; a bare one if None.

        Returns:
            The function's value.

        Raises:
            InvalidArguments: The arguments do not match the schema. The function was not called.
            TypeError: The arguments are neither text nor a mapping, or have no JSON form.
        """
        text = arguments if isinstance(arguments, str) else _text_of(arguments)
        return await self.invoke(self.parse(text), context or RunContext())

    def call_sync(
        self, arguments: str | Mapping[str, Any], context: RunContext[Any] | None = None
    ) -> Any:
        """Call `call` from code that is not async, an async function's tool too."""
        return run_blocking(functools.partial(self.call, arguments, context))


AnyTool: TypeAlias = Tool[..., Any]


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

    def decorate(function: Callable[..., Any]) -> Tool[..., Any]:
        return Tool(function, **options)

    return decorate if function is None else decorate(function)


def _remade(function: Any, options: ToolOptions, raw: JsonObject | None) -> Tool[..., Any]:
    """Make a tool of the parts that a pickle holds."""
    if raw is None:
        return Tool(function, **options)
    rest = {key: value for key, value in options.items() if key not in ("name", "description")}
    name, description = options.get("name") or "", options.get("description") or ""
    return Tool.from_schema(name, description, raw, function, **cast("BehaviourOptions", rest))


def _deferred(**arguments: Any) -> Any:
    """Stand in for the function of a deferred tool."""
    raise ToolError("This tool is answered from outside, and there is no answer yet.")


def _text_of(arguments: Any) -> str:
    """Return arguments as the text that a model would send."""
    if not isinstance(arguments, Mapping):
        raise TypeError(
            f"The arguments are {safe_repr(arguments)}: expected a mapping, such as "
            "{'city': 'Paris'}, or its JSON text."
        )
    try:
        to_jsonable_python(arguments)  # refuses what `json_of` would only describe
        return json.dumps(json_of(arguments))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"The arguments have no JSON form: {error}") from error


def _undecorated(function: Any) -> Any:
    """Return the callable below `@tool` and `@staticmethod`."""
    if isinstance(function, staticmethod):
        function = cast("Any", function).__func__
    return cast("AnyTool", function).function if isinstance(function, Tool) else function
