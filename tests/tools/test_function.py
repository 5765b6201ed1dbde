# ruff: noqa: D417  docstrings that describe only some parameters are what is tested
"""Names, scopes and wrappers: where a function's types come from, and when they are looked at.

With `from __future__ import annotations`, so that every annotation here is text.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Concatenate,
    NotRequired,
    ParamSpec,
    Required,
    TypedDict,
    TypeVar,
)

import pytest
from pydantic import Field

from agentkit.errors import InvalidArguments, InvalidTool
from agentkit.tools import RunContext, Tool, tool

if TYPE_CHECKING:
    from fractions import Fraction

pytestmark = pytest.mark.anyio

P = ParamSpec("P")
R = TypeVar("R")
INT, STR = {"type": "integer"}, {"type": "string"}


def shown(function: Any) -> dict[str, Any]:
    return Tool(function, strict=False, name="x").parameters["properties"]


# Where names are found


@tool
def uses_later(later: Later, many: list[Later]) -> Any:
    """Decorated before its types exist."""
    return later, many


@dataclasses.dataclass
class Later:
    """Defined below."""

    x: int


async def test_a_type_may_be_defined_below_its_function() -> None:
    """Types are needed at first use, not at decoration."""
    value = await uses_later.call('{"later": {"x": 1}, "many": [{"x": 2}]}')
    assert value == (Later(1), [Later(2)])


async def test_local_types_are_found() -> None:
    """Tools above and below a local class can use it in annotations."""

    def above(local: Local) -> Any:
        return local

    early = Tool(above)

    @dataclasses.dataclass
    class Local:
        x: int

    @tool
    def below(local: Local) -> Any:
        return local

    assert await below.call('{"local": {"x": 1}}') == Local(1)
    assert await early.call('{"local": {"x": 1}}') == Local(1)


def test_frames_are_not_kept() -> None:
    """Once the types are known, nothing of the defining scope stays alive."""

    class Big:
        """Something that should go."""

    def scope() -> tuple[Tool[..., Any], weakref.ref[Big]]:
        big = Big()

        def function(x: int) -> int:
            return x

        return Tool(function), weakref.ref(big)

    built, big = scope()
    gc.collect()
    assert big() is None
    assert built.parameters["properties"] == {"x": INT}


def test_names_of_a_class_body() -> None:
    """A method's annotation may use names of its class body."""

    class Service:
        Number = int

        @tool(strict=False)
        def method(self, x: Number) -> Any:
            return x

    assert Service().method.parameters["properties"] == {"x": INT}


def test_an_undefined_name_is_reported_at_first_use() -> None:
    """The error names the parameter, the function, its place, and the remedy."""

    def function(x: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
        """Types are missing."""

    built = Tool(function)
    with pytest.raises(InvalidTool) as caught:
        _ = built.parameters
    assert "Parameter 'x' of test_an_undefined_name" in str(caught.value)
    assert "(test_function.py:" in str(caught.value)
    assert "'Nowhere'" in str(caught.value)
    assert "not only under TYPE_CHECKING" in str(caught.value)


def test_a_type_for_checkers_only_may_have_a_default() -> None:
    """The model does not see the parameter, and a warning says so."""

    def function(x: int, ratio: Fraction | None = None) -> None:
        """One type is imported under TYPE_CHECKING."""

    built = Tool(function, strict=False)
    assert built.parameters["properties"] == {"x": INT}
    (warning,) = built.warnings
    assert "does not see parameter 'ratio'" in warning


async def test_the_context_may_be_imported_for_checkers_only() -> None:
    """The context is recognised by name, even if its type argument cannot be evaluated."""

    def one(x: int, context: RunContext[Fraction]) -> Any:
        return x, type(context).__name__

    def two(context: RunContext[Fraction] | None, x: int) -> Any:
        return x, type(context).__name__

    assert await Tool(one).call('{"x": 1}') == (1, "RunContext")
    assert await Tool(two).call('{"x": 1}') == (1, "RunContext")
    assert shown(two) == {"x": INT}


def test_two_contexts_are_refused_at_decoration() -> None:
    """A function may take only one context."""

    def function(a: RunContext[int], x: int, b: RunContext[str] | None = None) -> None:
        """One too many."""

    with pytest.raises(InvalidTool, match="takes RunContext twice, as a and b"):
        Tool(function)


# Missing annotations


def no_annotation(x: int, y=3) -> None:  # type: ignore[no-untyped-def]
    """A parameter is not annotated."""


def stars(*args, **kwargs) -> None:  # type: ignore[no-untyped-def]
    """Nothing is annotated."""


MISSING: dict[str, tuple[Any, str]] = {
    "parameter": (no_annotation, "Parameter 'y' of no_annotation (test_function.py:"),
    "advice": (no_annotation, "Annotate it, for example `y: str = …`, or `y: Any = …`"),
    "stars": (stars, "Parameter '*args' of stars"),
    "lambda": (lambda x: x, "A lambda cannot have annotations: use a def."),
    "builtin": (len, "Parameter 'obj' of len of builtins"),
    "no signature": (dict, "The signature of dict of builtins cannot be read"),
    "not callable": (3, "cannot be read"),
}


@pytest.mark.parametrize("name", MISSING)
def test_missing_annotations_are_refused_at_decoration(name: str) -> None:
    """The error names the parameter, the function, its place, and the remedy."""
    function, text = MISSING[name]
    with pytest.raises(InvalidTool) as caught:
        Tool(function, name="x")
    assert text in str(caught.value)


# Wrappers


def transparent(function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    return wrapper


def adding(function: Callable[P, R]) -> Callable[Concatenate[int, P], tuple[int, R]]:
    @functools.wraps(function)
    def wrapper(times: int, /, *args: P.args, **kwargs: P.kwargs) -> tuple[int, R]:
        return times, function(*args, **kwargs)

    wrapper.__annotations__ = {**wrapper.__annotations__, "times": int}
    return wrapper


def fixing(function: Callable[..., R]) -> Callable[[int], R]:
    @functools.wraps(function)
    def wrapper(a: int) -> R:
        return function(a, "fixed")

    return wrapper


def pair(a: int, b: str = "b") -> Any:
    """Two things.

    Args:
        a: The first.
    """
    return a, b


async def test_wrappers_that_pass_everything_on() -> None:
    """The tool has the wrapped function's parameters and docstring."""
    built = Tool(transparent(transparent(pair)), strict=False)
    assert built.name == "pair"
    assert built.description == "Two things."
    assert built.parameters["properties"] == {
        "a": {"type": "integer", "description": "The first."},
        "b": {"type": "string", "default": "b"},
    }


async def test_wrappers_that_add_or_fix_parameters() -> None:
    """A wrapper is called with its own parameters, not with those of the wrapped function."""
    assert list(shown(adding(pair))) == ["times", "a", "b"]
    assert await Tool(adding(pair)).call('{"times": 2, "a": 1}') == (2, (1, "b"))
    assert list(shown(fixing(pair))) == ["a"]
    assert await Tool(fixing(pair)).call('{"a": 1}') == (1, "fixed")


def test_a_wrapper_whose_annotations_wraps_replaces() -> None:
    """The error says that functools.wraps replaced them."""

    def adding_badly(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(times: int, *args: Any, **kwargs: Any) -> Any:
            return times, function(*args, **kwargs)

        return wrapper

    with pytest.raises(InvalidTool, match="replaces the wrapper's annotations"):
        Tool(adding_badly(pair))


async def test_the_arguments_of_a_partial_stay_hidden() -> None:
    """The model neither sees nor overrides them."""

    def fetch(path: str, token: str) -> Any:
        return path, token

    built = Tool(functools.partial(fetch, token="secret"), strict=False)
    assert built.name == "fetch"
    assert "secret" not in str(built.definition)
    assert await built.call('{"path": "/"}') == ("/", "secret")
    with pytest.raises(InvalidArguments, match="token: no such property"):
        built.parse('{"path": "/", "token": "mine"}')


# Types as text


class Total(TypedDict, total=False):
    a: Required[int]
    """The a."""
    b: NotRequired[str]
    c: Sequence[Total]


async def test_required_and_not_required_in_textual_typed_dicts() -> None:
    """Required and NotRequired apply although annotations are text."""

    def function(t: Total) -> Any:
        return t

    assert Tool(function, strict=False).parameters["$defs"]["Total"] == {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "description": "The a."},
            "b": STR,
            "c": {"type": "array", "items": {"$ref": "#/$defs/Total"}},
        },
        "required": ["a"],
        "additionalProperties": False,
    }
    assert await Tool(function).call('{"t": {"a": 1, "c": [{"a": 2}]}}') == {
        "a": 1,
        "c": [{"a": 2}],
    }


def test_the_description_of_a_field_wins() -> None:
    """`Field(description=…)` takes precedence over the docstring."""

    def function(
        a: Annotated[int, Field(description="From the field.")], b: int, c: int, d: int
    ) -> None:
        """Summary.

        Args:
            a: From the docstring.
            b: From the docstring.
            d:
            nobody: Is not a parameter.
        """

    properties = shown(function)
    assert properties["a"] == {"type": "integer", "description": "From the field."}
    assert properties["b"] == {"type": "integer", "description": "From the docstring."}
    assert properties["c"] == properties["d"] == INT
    assert "nobody" not in properties


MODERN = '''
from dataclasses import dataclass
from typing import TypedDict
from agentkit.tools import RunContext, tool

type Name = str
type Tree = dict[str, Tree] | int
type Context = RunContext[str]

@dataclass
class Box[T]:
    item: T
    """What is in it."""

class Film(TypedDict):
    title: str
    """As on the poster."""

@tool(strict=False)
def function[T: int](
    name: Name, tree: Tree, box: Box[int], number: T, film: Film, context: Context
):
    return name, tree, box, number, film, context.deps

class Service[T]:
    @tool(strict=False)
    def method(self, x: int) -> int:
        return x
    @classmethod
    @tool(strict=False)
    def of_class(cls, x: int) -> str:
        return f"{cls.__name__} {x}"
'''


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax of PEP 695")
@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
async def test_type_statements_and_type_parameters(
    future: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Aliases (recursive ones too), generic classes and functions, contexts behind an alias."""
    name = f"modern_{len(future)}"
    (tmp_path / f"{name}.py").write_text(future + MODERN)
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__(name)
    properties = module.function.parameters["properties"]
    assert properties["name"] == {"$ref": "#/$defs/Name"} or properties["name"] == STR
    assert properties["box"] == {
        "type": "object",
        "properties": {"item": {"type": "integer", "description": "What is in it."}},
        "required": ["item"],
        "additionalProperties": False,
    }
    assert properties["number"] == INT
    assert properties["film"]["properties"]["title"]["description"] == "As on the poster."
    assert "context" not in properties
    value = await module.function.call(
        '{"name": "n", "tree": {"a": {"b": 1}}, "box": {"item": 2}, "number": 3,'
        ' "film": {"title": "t"}}',
        RunContext(deps="d"),
    )
    assert value == ("n", {"a": {"b": 1}}, module.Box(2), 3, {"title": "t"}, "d")
    assert await module.Service().method.call('{"x": 1}') == 1
    assert await Tool(module.Service.of_class).call('{"x": 1}') == "Service 1"
