"""The parameters of a callable as Python binds them, with their types.

The first step from a function to a tool. Any callable is read here: functions,
methods, classes, partials, callable instances, wrapped functions. What its owner
has bound already (`self`, the arguments of a partial) is no longer a parameter.

Types are evaluated at decoration where possible, else at the tool's first use, so
that a function may name a class that is defined below it.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import itertools
import os
import re
import sys
import textwrap
import typing
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FrameType, MethodType, UnionType
from typing import Any, TypeVar, cast

from agentkit.errors import InvalidTool
from agentkit.tools.docstrings import Docstring, documented_type, parse, text_of

EMPTY: Any = inspect.Parameter.empty
_Kind = inspect.Parameter
STARS = frozenset({_Kind.VAR_POSITIONAL, _Kind.VAR_KEYWORD})
"""The kinds of `*args` and `**kwargs`."""


_CONTEXT_NAMES = frozenset(
    "ctx context run_context run_ctx runcontext tool_context tool_ctx wrapper runtime".split()
)
"""What functions of other frameworks call the context of a run."""


class _Injected:
    """The placeholder of the run's context in bound arguments."""

    def __repr__(self) -> str:
        return "<context>"


INJECTED = _Injected()


def describe(function: Any) -> str:
    """Describe a callable for an error: `get_weather (weather.py:12)`."""
    inner = _innermost(function)
    name = getattr(inner, "__qualname__", None) or type(inner).__qualname__
    name = name.replace("<locals>.", "")
    code = getattr(inner, "__code__", None)
    if not isinstance(code, CodeType):  # a class of functions has a descriptor there
        return f"{name} of {getattr(inner, '__module__', None) or 'an unknown module'}"
    return f"{name} ({os.path.basename(code.co_filename)}:{code.co_firstlineno})"


def refused(function: Any, text: str) -> InvalidTool:
    """Return the error for a callable that cannot be a tool."""
    return InvalidTool(text, tool=getattr(function, "__name__", None))


class Signature:
    """The parameters of one callable.

    Args:
        function: Any callable.
        injected: The class that annotates the parameter that a run fills in.
        method: Whether the first parameter is bound later, on access through an instance.
        scope: The frame that defines the function; annotations may use its local names.
        typed: Whether every parameter needs an annotation.

    Raises:
        InvalidTool: The signature cannot be read, a parameter has no annotation,
            or two parameters are injected.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        injected: type,
        method: bool = False,
        scope: FrameType | None = None,
        typed: bool = True,
    ) -> None:
        self.function = function
        self._injected = injected
        raw = _raw_parameters(function)[1 if method else 0 :]
        if not typed:
            raw = [p.replace(annotation=Any) if p.annotation is EMPTY else p for p in raw]
        self._raw = [p if p.annotation is not EMPTY else self._documented(p, scope) for p in raw]
        self._scope: FrameType | None = scope
        self._hints: dict[str, Any] = {}
        self._evaluate()
        contexts = [name for name, hint in self._hints.items() if _mentions(hint, injected)]
        if len(contexts) > 1:
            twice = f"takes {injected.__name__} twice, as {' and '.join(contexts)}"
            raise refused(function, f"{describe(function)} {twice}. Keep one.")

    @functools.cached_property
    def docstring(self) -> Docstring:
        """The docstring of the function."""
        return parse(text_of(self.function))

    def _documented(
        self, parameter: inspect.Parameter, scope: FrameType | None
    ) -> inspect.Parameter:
        """Give a parameter the type that the docstring names."""
        text = None if parameter.kind in STARS else self.docstring.types.get(parameter.name)
        hint = text and documented_type(text, _namespace(self.function, scope))
        if not hint:
            raise _missing(self.function, parameter, self._injected)
        return parameter.replace(annotation=hint)

    @functools.cached_property
    def parameters(self) -> tuple[inspect.Parameter, ...]:
        """The parameters. An annotation is evaluated, or the TypeError that says why it failed."""
        hints = {**self._evaluate(), **self._hints}
        self._scope = None
        return tuple(p.replace(annotation=hints[p.name]) for p in self._raw)

    @functools.cached_property
    def injected(self) -> frozenset[str]:
        """The names of parameters that the run fills in."""
        return frozenset(p.name for p in self.parameters if _mentions(p.annotation, self._injected))

    @functools.cached_property
    def deps_type(self) -> Any:
        """The type of deps without which the function cannot be called; None if there is none."""
        found = (p.annotation for p in self.parameters if p.name in self.injected)
        return next((required(hint, self._injected) for hint in found), None)

    @functools.cached_property
    def returned(self) -> Any:
        """The type of the value, as annotated; Any where nothing at run time knows it."""
        self._evaluate()
        return self._hints.get("return", Any)

    def _evaluate(self) -> dict[str, TypeError]:
        """Evaluate the remaining annotations; return those of parameters that still fail."""
        names = _namespace(self.function, self._scope)
        failed: dict[str, TypeError] = {}
        with contextlib.suppress(Exception):  # an annotation is arbitrary code
            annotation = _innermost(self.function).__annotations__["return"]
            self._hints["return"] = _evaluated(annotation, names)
        for p in self._raw:
            if p.name in self._hints:
                continue
            try:
                self._hints[p.name] = _evaluated(p.annotation, names)
            except Exception as error:  # an annotation is arbitrary code
                if _names(p.annotation, self._injected):
                    self._hints[p.name] = self._injected
                    continue
                reason = (
                    f"its type {p.annotation!r} cannot be evaluated ({error}); define or import it "
                    "where the function is defined, not only under TYPE_CHECKING"
                )
                failed[p.name] = TypeError(reason)
        if not failed:
            self._scope = None  # a frame keeps everything in it alive
        return failed

    def bind(
        self, values: Mapping[str, Any], keys: Mapping[str, str]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arrange values as Python would bind a call.

        Args:
            values: Values by key, a sequence for `*args`. Missing ones take their
                defaults; those that belong to no parameter go to `**kwargs`.
            keys: The keys of parameters, where they differ from the parameters' names.

        Returns:
            Positional and keyword arguments, with INJECTED where the context belongs.
        """
        if self._by_position is not None and len(values) == len(self._by_position):
            found = [values.get(keys.get(name, name), EMPTY) for name in self._by_position]
            if all(value is not EMPTY for value in found):
                return tuple(found), {}
        rest = dict(values)
        bound: dict[str, Any] = {}
        last = 0  # the parameters before it have to be passed by position
        for index, (name, kind) in enumerate(self._order):
            key = keys.get(name, name)
            if name in self.injected:
                bound[name] = INJECTED
            elif kind is _Kind.VAR_KEYWORD:
                bound[name] = rest
            elif key in rest:
                bound[name] = rest.pop(key)
            else:
                continue
            if kind is _Kind.POSITIONAL_ONLY or kind is _Kind.VAR_POSITIONAL:
                last = index
        for p in self.parameters[:last]:
            bound.setdefault(p.name, p.default)
        return self._arranged(bound)

    def _arranged(self, bound: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        by_position = True
        for name, kind in self._order:
            if kind is _Kind.VAR_KEYWORD:
                kwargs.update(bound[name])
            elif name not in bound:
                by_position = False  # what stands behind a gap goes by name
            elif kind is _Kind.KEYWORD_ONLY or not by_position:
                kwargs[name] = bound[name]
            elif kind is _Kind.VAR_POSITIONAL:
                args += bound[name]
            else:
                args.append(bound[name])
        return tuple(args), kwargs

    @functools.cached_property
    def _by_position(self) -> Sequence[str] | None:
        """The names of the parameters, if all of them may be passed by position."""
        if self.injected or any(p.kind is not _Kind.POSITIONAL_OR_KEYWORD for p in self.parameters):
            return None
        return [p.name for p in self.parameters]

    @functools.cached_property
    def _order(self) -> Sequence[tuple[str, Any]]:
        return [(p.name, p.kind) for p in self.parameters]


def _missing(function: Any, parameter: inspect.Parameter, injected: type) -> InvalidTool:
    stars = {_Kind.VAR_POSITIONAL: "*", _Kind.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    name = f"{stars}{parameter.name}"
    default = "" if parameter.default is EMPTY else " = …"
    how = (
        f"Annotate it, for example `{name}: str{default}`, or `{name}: Any{default}` if it "
        "takes anything."
    )
    if parameter.name.strip("_").lower() in _CONTEXT_NAMES:
        how = (
            f"For the context of the run, annotate it `{name}: {injected.__name__}`; for a value "
            f"that the model gives, with its type, for example `{name}: str`."
        )
    inner = getattr(function, "__wrapped__", None)
    if inner is not None and parameter.name not in {p.name for p in _own_parameters(inner)}:
        how = (
            "functools.wraps replaces the wrapper's annotations by those of the inner function: "
            "set `__signature__` on the wrapper."
        )
    elif inspect.isbuiltin(_innermost(function)):
        how = "Wrap it in a function with annotated parameters."
    elif getattr(function, "__name__", None) == "<lambda>":
        how = "A lambda cannot have annotations: use a def."
    return refused(
        function,
        f"Parameter {name!r} of {describe(function)} has no annotation, so it has no schema. {how}",
    )


# Callables


def name_of(function: Any) -> str:
    """Return the name of a callable: its own, or its class's."""
    while isinstance(function, functools.partial):
        function = cast("Any", function).func
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__name__


def is_method(function: Any) -> bool:
    """Tell whether a function stands in a class body and waits for its first argument."""
    if isinstance(function, classmethod):
        return True
    if not inspect.isfunction(function):
        return False
    parents = function.__qualname__.split(".")[:-1]
    if not parents or parents[-1] == "<locals>":
        return False
    first = next(iter(inspect.signature(function).parameters.values()), None)
    return first is not None and (first.name in ("self", "cls") or first.annotation is EMPTY)


def defining_scope() -> FrameType | None:
    """Return the nearest frame outside agentkit: the code that makes a tool."""
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  no other way
    between = ("agentkit", "functools", "dataclasses")  # an agent makes tools of functions too
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in between:
        frame = frame.f_back
    return frame


def _innermost(function: Any) -> Any:
    """Return the function whose code runs, below partials, bound methods and wrappers."""
    while True:
        if isinstance(function, functools.partial):
            function = cast("Any", function).func
        elif isinstance(function, (MethodType, classmethod)):
            function = cast("Any", function).__func__
        elif hasattr(function, "__wrapped__") and not inspect.isclass(function):
            function = function.__wrapped__
        elif inspect.isroutine(function) or inspect.isclass(function):
            return function
        elif callable(function) and inspect.isfunction(type(function).__call__):
            function = type(function).__call__
        else:
            return function


def parameters_of(function: Any) -> list[inspect.Parameter]:
    """Return the parameters of the function whose code runs; none where they cannot be read."""
    with contextlib.suppress(Exception):
        return [*inspect.signature(_innermost(function)).parameters.values()]
    return []


def _raw_parameters(function: Any) -> list[inspect.Parameter]:
    try:
        parameters = _own_parameters(function)
    except Exception as error:  # what the application's own attributes and repr do
        reason = re.sub(" at 0x[0-9a-fA-F]+", "", str(error))
        raise refused(
            function,
            f"The signature of {describe(function)} cannot be read: {reason}. Wrap it in a "
            "function with annotated parameters.",
        ) from error
    if isinstance(function, functools.partial):
        # The arguments of a partial are its author's, often secrets, and never the model's.
        parameters = [p for p in parameters if p.name not in function.keywords]
    return parameters


def _own_parameters(function: Any) -> list[inspect.Parameter]:
    """Return the parameters, following only wrappers that pass everything on.

    `inspect.signature` always follows `__wrapped__`. But a wrapper that declares its
    own parameters instead of `*args, **kwargs` is called with those.
    """
    if isinstance(function, classmethod):
        return _own_parameters(cast("Any", function).__func__)
    if isinstance(function, MethodType):
        return _own_parameters(function.__func__)[1:]
    inner = getattr(function, "__wrapped__", None)
    if inner is None or not inspect.isfunction(function) or hasattr(function, "__signature__"):
        return [*inspect.signature(function).parameters.values()]
    own = [*inspect.signature(function, follow_wrapped=False).parameters.values()]
    if not {p.kind for p in own} >= STARS:
        return own
    wrapped = _own_parameters(inner)
    names = {p.name for p in wrapped}
    renamed = _renamed(function, own, wrapped)
    # They keep their names, and become positional: by keyword the wrapper does not take them.
    wrapped[:renamed] = [p.replace(kind=_Kind.POSITIONAL_ONLY) for p in wrapped[:renamed]]
    added = [p for p in own[renamed:] if p.kind not in STARS and p.name not in names]
    merged = sorted([*added, *wrapped], key=lambda p: p.kind)
    return [*inspect.Signature(merged).parameters.values()]  # which checks their order


def _renamed(function: Any, own: list[inspect.Parameter], wrapped: list[inspect.Parameter]) -> int:
    """Count the first parameters to which a wrapper only gives other names."""
    leading = [*itertools.takewhile(lambda p: p.kind not in STARS, own)]
    inner = wrapped[: len(leading)]
    positional = [p.kind in (_Kind.POSITIONAL_ONLY, _Kind.POSITIONAL_OR_KEYWORD) for p in inner]
    if sum(positional) < len(leading) or {p.name for p in leading} <= {p.name for p in wrapped}:
        return 0
    plain = all(p.default is EMPTY and p.annotation is EMPTY for p in leading)
    return len(leading) if plain and _passes_on(function, [p.name for p in leading]) else 0


def _passes_on(function: Any, names: list[str]) -> bool:
    """Tell whether a wrapper calls a function with these arguments and the rest."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function.__code__)))
    except (OSError, TypeError, SyntaxError):
        return False
    calls = [node.args for node in ast.walk(tree) if isinstance(node, ast.Call)]
    shown = [[ast.unparse(one) for one in args[: len(names)]] for args in calls]
    starred = [isinstance(args[-1], ast.Starred) if args else False for args in calls]
    return any(first == names and rest for first, rest in zip(shown, starred, strict=True))


# Annotations


def _namespace(function: Any, scope: FrameType | None) -> Mapping[str, Any]:
    """Return where the names in annotations are looked up, nearest first."""
    inner = _innermost(function)
    module = sys.modules.get(getattr(inner, "__module__", None) or "")
    levels: list[Any] = [
        {p.__name__: p for p in getattr(inner, "__type_params__", ())},
        {} if scope is None else scope.f_locals,
        getattr(inner, "__globals__", {}),
        {} if module is None else vars(module),
        getattr(function, "__globals__", {}),
    ]
    return ChainMap(*levels)


def _evaluated(annotation: Any, names: Mapping[str, Any]) -> Any:
    def carrier() -> None: ...

    carrier.__annotations__ = {"it": annotation}
    hints = typing.get_type_hints(carrier, {}, names, include_extras=True)  # type: ignore[arg-type]
    return hints["it"]


def _names(annotation: Any, cls: type) -> bool:
    """Tell the same as `_mentions` of text: its names may not exist at run time."""
    name = rf"(\w+\.)*{cls.__name__}(\[.*\])?"
    pattern = rf"{name}|{name} *\| *None|None *\| *{name}|(\w+\.)*Optional\[{name}\]"
    return re.fullmatch(pattern, str(annotation).strip("'\" ")) is not None


def _mentions(hint: Any, cls: type) -> bool:
    """Tell whether `hint` is `cls`, `cls[…]`, or one of these or None."""
    while value := getattr(hint, "__value__", None):  # an alias of PEP 695
        hint = value
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is cls or origin is cls:
        return True
    if origin is typing.Annotated:
        return _mentions(args[0], cls)
    if origin in (typing.Union, UnionType):
        members = [arg for arg in args if arg is not type(None)]
        return len(members) == 1 and _mentions(members[0], cls)
    return False


def required(hint: Any, cls: type) -> Any:
    """Return the X of `cls[X]` where a value of X has to be given; None where not.

    None is a value of an optional X, and nothing is known of Any, object and type variables.
    """
    while value := getattr(hint, "__value__", None):  # an alias of PEP 695
        hint = value
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return required(args[0], cls)
    if origin in (typing.Union, UnionType):
        return next((kind for arg in args if (kind := required(arg, cls))), None)
    if origin is not cls or args[0] in (None, type(None), Any, object):
        return None
    optional = typing.get_origin(args[0]) in (typing.Union, UnionType)
    unknown = isinstance(args[0], (TypeVar, str, typing.ForwardRef))
    if unknown or (optional and type(None) in typing.get_args(args[0])):
        return None
    return args[0]
