"""What a schema offers is taken, what has no JSON form is refused by name, and true is not 1."""

import dataclasses
import datetime
import enum
import functools
import math
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, TypedDict, TypeVar

import pydantic
import pytest
import typing_extensions

from agentkit import Agent, Tool, tool
from agentkit.errors import InvalidArguments, InvalidTool
from agentkit.testing import ScriptedModel

pytestmark = pytest.mark.anyio


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 0
    HIGH = 1


class Place(enum.Enum):
    HOME = (1, 2)
    WORK = (3, 4)


@dataclasses.dataclass
class Paint:
    color: Literal[Color.RED, "none"]


class Car(pydantic.BaseModel):
    color: Literal[Color.RED]
    parts: list["Car"] = []


class Bike(TypedDict):
    color: Literal[Color.BLUE]


def taking(hint: Any) -> Tool[..., Any]:
    def take(x: Any) -> Any:
        return x

    take.__annotations__["x"] = hint
    return tool(take)


# What is offered is taken

OFFERED: dict[str, tuple[Any, str, Any]] = {
    "a member": (Literal[Color.RED], '"red"', Color.RED),
    "members and others": (list[Literal[Color.RED, 3]], '["red", 3]', [Color.RED, 3]),
    "an optional member": (Literal[Color.RED] | None, "null", None),
    "a member that is a number": (Literal[Level.HIGH], "1", Level.HIGH),
    "a member that is an array": (Literal[Place.HOME], "[1, 2]", Place.HOME),
    "an enum of arrays": (Place, "[3, 4]", Place.WORK),
    "in a dataclass": (Paint, '{"color": "red"}', Paint(Color.RED)),
    "beside a member": (Paint, '{"color": "none"}', Paint("none")),
    "in a model": (
        Car,
        '{"color": "red", "parts": [{"color": "red"}]}',
        Car(color=Color.RED, parts=[Car(color=Color.RED)]),
    ),
    "in a typed dict": (Bike, '{"color": "blue"}', {"color": Color.BLUE}),
    "in a map": (dict[str, Literal[Color.RED]], '{"a": "red"}', {"a": Color.RED}),
}


@pytest.mark.parametrize("name", OFFERED)
async def test_what_a_schema_offers_is_taken(name: str) -> None:
    """Members of enums are known by the JSON that the schema shows."""
    hint, sent, value = OFFERED[name]
    assert await taking(hint).call(f'{{"x": {sent}}}') == value


@pytest.mark.parametrize("hint", [Literal[Color.RED], Paint, Car, Literal[Place.HOME], Place])
async def test_other_values_are_refused_as_the_schema_shows_them(hint: Any) -> None:
    """The text names JSON, not members."""
    sent = '{"color": "blue"}' if hint in (Paint, Car) else '"blue"'
    with pytest.raises(InvalidArguments, match=r"expected ('red'|\[1, 2\])") as caught:
        taking(hint).parse(f'{{"x": {sent}}}')
    assert "Color" not in str(caught.value)


async def test_an_output_takes_members_too() -> None:
    """Outputs are read as arguments are."""
    agent = Agent(ScriptedModel(['{"value": "red"}']), output=Literal[Color.RED])
    assert (await agent.run("Which?")).output is Color.RED


async def test_fields_that_init_does_not_take_are_not_offered() -> None:
    """A dataclass computes them itself, in arguments and outputs."""

    @dataclasses.dataclass
    class Box:
        side: int
        area: int = dataclasses.field(init=False, default=0)

        def __post_init__(self) -> None:
            self.area = self.side**2

    built = taking(Box)
    assert [*built.parameters["properties"]["x"]["properties"]] == ["side"]
    assert (await built.call('{"x": {"side": 3}}')).area == 9
    model = ScriptedModel(['{"side": 2}'])
    assert (await Agent(model, output=Box).run("Which?")).output.area == 4
    assert "area" not in str(model.requests[0].output)


# Classes


class Base: ...


Text = TypeVar("Text", bound="Base")
Missing = TypeVar("Missing", bound="Nowhere")  # type: ignore[name-defined]  # noqa: F821
CLASSES = [type, type[Any], type[Base], type[Base], type[Text], type[Missing], list[type[Base]]]


@pytest.mark.parametrize("hint", CLASSES)
async def test_a_class_cannot_come_from_a_model(hint: Any) -> None:
    """Without a default the tool is refused by name, with one the parameter is hidden."""

    def build(cls: Any, name: str) -> Any:
        return cls, name

    build.__annotations__["cls"] = hint
    with pytest.raises(InvalidTool, match=r"Parameter 'cls' of .*build .*cannot come from a model"):
        _ = tool(build).parameters
    build.__defaults__ = (Base, "x")
    hidden = tool(build)
    assert [*hidden.parameters["properties"]] == ["name"]
    assert "does not see parameter 'cls'" in hidden.warnings[0]


async def test_a_class_in_a_dataclass_is_no_json_either() -> None:
    """It would be shown as anything, and nothing could be sent."""

    @dataclasses.dataclass
    class Holder:
        cls: type[Base]

    with pytest.raises(InvalidTool, match=r"Parameter 'x' .* cannot come from a model"):
        _ = taking(Holder).parameters


async def test_a_class_in_a_union_is_left_out() -> None:
    """The other members can come from a model."""
    assert taking(type[Base] | int | str).parameters["properties"]["x"] == {
        "anyOf": [{"type": "integer"}, {"type": "string"}]
    }


# Unpack


class Options(TypedDict, total=False):
    deep: bool
    limit: int


class Others(typing_extensions.TypedDict, total=False):
    deep: bool
    limit: int


@pytest.mark.parametrize("unpack", [typing.Unpack, typing_extensions.Unpack])
@pytest.mark.parametrize("options", [Options, Others])
async def test_options_are_seen_however_they_are_unpacked(unpack: Any, options: Any) -> None:
    """Before Python 3.12 typing_extensions has classes of its own."""

    def search(**options: Any) -> Any:
        return options

    search.__annotations__["options"] = unpack[options]
    built = tool(search)
    assert [*built.parameters["properties"]] == ["deep", "limit"]
    assert await built.call('{"limit": 3}') == {"limit": 3}


async def test_arguments_are_seen_however_they_are_unpacked() -> None:
    """So is a tuple behind `*args`."""

    def pair(*args: typing_extensions.Unpack[tuple[int, str]]) -> Any:  # noqa: UP044  is tested
        return args

    assert await tool(pair).call('{"args": [1, "a"]}') == (1, "a")


# Wrappers


def pair(a: int, b: str = "b") -> Any:
    """Make a pair."""
    return a, b


def renaming(function: Callable[..., Any]) -> Any:
    @functools.wraps(function)
    def wrapper(first, *rest, **more):  # type: ignore[no-untyped-def]
        return function(first, *rest, **more)

    return wrapper


def renaming_two(function: Callable[..., Any]) -> Any:
    @functools.wraps(function)
    def wrapper(one, /, two, *args: Any, **kwargs: Any) -> Any:  # type: ignore[no-untyped-def]
        return function(one, two, *args, **kwargs)

    return wrapper


@pytest.mark.parametrize("wrap", [renaming, lambda function: renaming(renaming(function))])
async def test_a_wrapper_may_rename_the_first_parameter(wrap: Any) -> None:
    """The model sees the wrapped function's name; the wrapper gets it by position."""
    built = tool(wrap(pair))
    assert [*built.parameters["properties"]] == ["a", "b"]
    assert await built.call('{"a": 1}') == (1, "b")
    assert await built.call('{"a": 1, "b": "c"}') == (1, "c")


async def test_a_wrapper_may_rename_more() -> None:
    """All that it passes on by position keep their names."""
    built = tool(renaming_two(pair))
    assert [*built.parameters["properties"]] == ["a", "b"]
    assert await built.call('{"a": 1, "b": "c"}') == (1, "c")


async def test_a_wrapper_may_rename_self() -> None:
    """Decorators of methods often do."""

    class Shop:
        @renaming
        def find(self, name: str) -> Any:
            return type(self).__name__, name

    assert await tool(Shop().find).call('{"name": "x"}') == ("Shop", "x")


@pytest.mark.parametrize("wrap", [functools.lru_cache, functools.cache, functools.singledispatch])
def test_an_unannotated_function_below_a_wrapper(wrap: Any) -> None:
    """It is the function that lacks an annotation, not the wrapper a signature."""

    def plain(a):  # type: ignore[no-untyped-def]
        return a

    with pytest.raises(InvalidTool, match=r"Parameter 'a' of .*plain .* Annotate it") as caught:
        tool(wrap(plain))
    assert "__signature__" not in str(caught.value)


def test_a_builtin_without_annotations_is_to_be_wrapped() -> None:
    """It can neither be annotated nor be read, and its address helps nobody."""
    with pytest.raises(
        InvalidTool, match=r"Parameter 'x' of acos of math .* Wrap it in a function"
    ):
        tool(math.acos)
    with pytest.raises(InvalidTool, match=r"fromisoformat .* Wrap it in a function") as caught:
        tool(datetime.date.fromisoformat)
    assert " at 0x" not in str(caught.value)


def test_a_class_whose_docstring_is_no_text() -> None:
    """Some builtin classes have a descriptor there."""
    with pytest.raises(InvalidTool):
        _ = tool(types.FunctionType).parameters


def test_a_type_that_is_not_defined_is_named_without_our_own_classes() -> None:
    """Pydantic's text names an adapter of ours, and how to rebuild it."""
    with pytest.raises(InvalidTool, match=r"Parameter 'x' of .* not defined") as caught:
        _ = taking(Missing).parameters
    for word in ("_Object", "0x", "rebuild", "TypeAdapter"):
        assert word not in str(caught.value)


# Numbers and truth

CONFUSED: dict[str, tuple[Any, str]] = {
    "true for 1": (Literal[1], "true"),
    "false for 0": (Literal[0, 2], "false"),
    "true for an IntEnum": (Level, "true"),
    "false for an IntEnum": (Level, "false"),
    "true for a member": (Literal[Level.HIGH], "true"),
    "true in a list": (list[Literal[1]], "[1, true]"),
    "true in a map": (dict[str, Level], '{"a": true}'),
    "true or null": (Literal[1] | None, "true"),
    "true or text": (Literal[1, "a"], "true"),
    "1 for true": (Literal[True], "1"),
    "0 for false": (Literal[False], "0"),
    "nan": (float, '"nan"'),
    "NaN": (float, '"NaN"'),
    "infinity": (float, '"Infinity"'),
    "-inf": (float, '" -inf "'),
    "too large": (float, '"1e999"'),
    "nan in a list": (list[float], '[1, "nan"]'),
    "nan or null": (float | None, '"nan"'),
    "nan or an integer": (int | float, '"nan"'),
    "nan in a map": (dict[str, float], '{"a": "inf"}'),
}


@pytest.mark.parametrize("name", CONFUSED)
async def test_values_that_only_python_confuses_are_refused(name: str) -> None:
    """What the schema does not allow is not converted because Python calls it equal."""
    hint, sent = CONFUSED[name]
    with pytest.raises(InvalidArguments, match="expected"):
        taking(hint).parse(f'{{"x": {sent}}}')


KEPT: dict[str, tuple[Any, str, Any]] = {
    "1.0 for 1": (Literal[1], "1.0", 1),
    "true beside 1": (Literal[1] | bool, "false", False),
    "any number beside true": (Literal[True] | int, "0", 0),
    "true for true": (Literal[True], "true", True),
    "nan as text": (float | str, '"nan"', "nan"),
    "a number as text": (float, '"1.5"', 1.5),
    "one of an IntEnum": (Level, "1", Level.HIGH),
}


@pytest.mark.parametrize("name", KEPT)
async def test_values_that_the_schema_allows_are_kept(name: str) -> None:
    """Their type is as the schema says."""
    hint, sent, value = KEPT[name]
    result = await taking(hint).call(f'{{"x": {sent}}}')
    assert (result, type(result)) == (value, type(value))
