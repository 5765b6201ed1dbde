# ruff: noqa: B006, B008, RUF013  odd defaults are what is tested
"""Signatures that break schema generators, each with the schema its author would have written.

Without `from __future__ import annotations`, so that annotations are objects here;
`test_schema.py` has the textual ones.
"""

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import pathlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    LiteralString,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    ParamSpec,
    Required,
    TypedDict,
    TypeVar,
    Union,
    Unpack,
)

import annotated_types
import jsonschema_rs
import pytest
from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, SecretStr, field_validator
from typing_extensions import Doc

from agentkit.errors import InvalidArguments
from agentkit.tools import RunContext, Tool

pytestmark = pytest.mark.anyio

INT, STR, NUM, BOOL = ({"type": name} for name in ("integer", "string", "number", "boolean"))
NULL = {"type": "null"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A callable, its schema, calls with what the callable answers, and calls that are refused."""

    function: Callable[..., Any]
    properties: dict[str, Any]
    required: str
    more: dict[str, Any]
    accepts: dict[str, Any]
    refuses: dict[str, str]


CASES: dict[str, Case] = {}


def case(
    properties: dict[str, Any],
    *,
    required: str = "",
    accepts: dict[str, Any],
    refuses: dict[str, str] | None = None,
    more: dict[str, Any] | None = None,
) -> Callable[[Any], Any]:
    def add(function: Any) -> Any:
        name = getattr(function, "__name__", f"{type(function).__name__}_{len(CASES)}")
        assert name not in CASES
        CASES[name] = Case(
            function=function,
            properties=properties,
            required=required,
            more={"additionalProperties": False} if more is None else more,
            accepts=accepts,
            refuses=refuses or {},
        )
        return function

    return add


# How parameters are passed


@case({}, accepts={"{}": "ran", "": "ran", "null": "ran"}, refuses={'{"x": 1}': "x: no such"})
def nothing() -> str:
    return "ran"


@case(
    {
        "a": INT,
        "b": {**INT, "default": 2},
        "c": {"type": "array", "items": INT},
        "d": INT,
        "e": {**INT, "default": 5},
    },
    required="a d",
    accepts={
        '{"a": 1, "d": 4}': (1, 2, (), 4, 5),
        '{"a": 1, "c": [7, 8], "d": 4}': (1, 2, (7, 8), 4, 5),
        '{"a": 1, "b": 3, "c": [], "d": 4, "e": 6}': (1, 3, (), 4, 6),
        '{"a": 1, "b": null, "c": null, "d": 4, "e": null}': (1, 2, (), 4, 5),
    },
    refuses={'{"a": 1}': "- d: is required", '{"a": null, "d": 4}': "- a: expected an integer"},
)
def every_kind(a: int, b: int = 2, /, *c: int, d: int, e: int = 5) -> Any:
    return a, b, c, d, e


@case(
    {"a": INT, "b": {**INT, "default": 2}, "c": {**INT, "default": 3}},
    required="a",
    accepts={'{"a": 1, "c": 9}': (1, 2, 9), '{"a": 1}': (1, 2, 3)},
)
def positional_only_with_a_gap(a: int, b: int = 2, c: int = 3, /) -> Any:
    return a, b, c


@case(
    {"x": INT, "rest": {"type": "array", "items": STR}},
    required="x",
    accepts={'{"x": 1}': (1, ()), '{"x": 1, "rest": ["a", "b"]}': (1, ("a", "b"))},
    refuses={'{"x": 1, "rest": ["a", 2]}': "- rest[1]: expected a string"},
)
def variadic(x: int, *rest: str) -> Any:
    return x, rest


@case(
    {"x": INT},
    required="x",
    more={"additionalProperties": NUM},
    accepts={'{"x": 1}': (1, {}), '{"x": 1, "y": 2.5, "kwargs": 3}': (1, {"y": 2.5, "kwargs": 3})},
    refuses={'{"x": 1, "y": "q"}': "- y: expected a number"},
)
def keywords(x: int, **kwargs: float) -> Any:
    return x, kwargs


@case(
    {"a": {"type": "array", "items": INT}},
    more={"additionalProperties": True},
    accepts={'{"a": [1], "b": null}': ((1,), {"b": None})},
)
def only_stars(*a: int, **rest: Any) -> Any:
    return a, rest


class Options(TypedDict, total=False):
    a: Required[int]
    """The a."""
    b: str


@case(
    {"a": INT, "b": STR},
    required="a",
    accepts={'{"a": 1}': {"a": 1}, '{"a": 1, "b": "x"}': {"a": 1, "b": "x"}},
    refuses={'{"b": "x"}': "- a: is required", '{"a": 1, "bb": "x"}': "did you mean 'b'?"},
)
def unpacked_keywords(**options: Unpack[Options]) -> Any:
    return options


@case(
    {"a": {"type": "array", "prefixItems": [INT, STR], "minItems": 2, "maxItems": 2}},
    accepts={'{"a": [1, "x"]}': (1, "x")},
    refuses={'{"a": [1]}': "- a[1]: is required"},
)
def unpacked_positions(*a: *tuple[int, str]) -> Any:
    return a


# Names


@case(
    {
        "_x": INT,
        "model_config": STR,
        "schema": INT,
        "json": {**STR, "default": "j"},
        "copy": {**INT, "default": 1},
        "cls": {**INT, "default": 2},
        "args": {**INT, "default": 3},
        "model_fields": {**INT, "default": 4},
    },
    required="_x model_config schema",
    accepts={'{"_x": 1, "model_config": "m", "schema": 3}': (1, "m", 3, "j", 1, 2, 3, 4)},
)
def awkward_names(
    _x: int,
    model_config: str,
    schema: int,
    json: str = "j",
    copy: int = 1,
    cls: int = 2,
    args: int = 3,
    model_fields: int = 4,
) -> Any:
    return _x, model_config, schema, json, copy, cls, args, model_fields


@case({"self": INT}, required="self", accepts={'{"self": 1}': 1})
def self_outside_a_class(self: int) -> int:
    return self


@case({"größe": INT}, required="größe", accepts={'{"größe": 1}': 1})
def unicode_name(größe: int) -> int:
    return größe


# Defaults


@case({"x": STR}, accepts={"{}": None, '{"x": null}': None, '{"x": "a"}': "a"})
def implicit_optional(x: str = None) -> Any:  # type: ignore[assignment]
    return x


@case(
    {
        "x": {"anyOf": [INT, NULL], "default": 5},
        "y": {"anyOf": [INT, NULL], "default": None},
        "z": {"anyOf": [STR, NULL]},
    },
    required="z",
    accepts={
        '{"z": "a"}': (5, None, "a"),
        '{"x": null, "y": null, "z": null}': (None, None, None),
    },
)
def optionals(x: Optional[int] = 5, y: int | None = None, *, z: Union[str, None]) -> Any:  # noqa: UP007, UP045
    return x, y, z


@case(
    {"x": NUM, "y": NUM, "z": {}, "s": {**STR, "default": "é"}},
    accepts={'{"x": 1.5, "y": 2, "z": [1]}': (1.5, 2.0, [1], "é")},
)
def defaults_json_cannot_hold(
    x: float = float("nan"), y: float = float("inf"), z: object = object(), s: str = "é"
) -> Any:
    return x, y, z, s


@case(
    {"x": {"type": "array", "items": STR, "uniqueItems": True, "default": ["a", "b", "c"]}},
    accepts={"{}": {"a", "b", "c"}, '{"x": ["q", "q"]}': {"q"}},
)
def set_default(x: set[str] = {"c", "a", "b"}) -> Any:
    return x


@case(
    {"x": INT},
    required="x",
    accepts={'{"x": -3}': 3},
    refuses={'{"x": 1, "key": "abs"}': "- key: no such property"},
)
def callable_default(x: int, key: Callable[[int], int] = abs) -> Any:
    return key(x)


class Session:
    """A class of the application, without a JSON form."""


@case({"x": {**INT, "default": 1}}, accepts={"{}": (1, None)})
def default_without_json_type(x: int = 1, session: Session | None = None) -> Any:
    return x, session


@case(
    {"x": {"anyOf": [INT, STR], "default": 3}},
    accepts={"{}": 3, '{"x": "a"}': "a"},
)
def union_with_a_callable(x: int | str | Callable[[], int] = 3) -> Any:
    return x


@case(
    {
        "a": {**INT, "minimum": 1, "description": "The a.", "default": 3},
        "b": {"type": "array", "items": INT},
        "c": {**INT, "description": "The c.", "default": 4},
        "d": {**STR, "minLength": 2},
    },
    required="d",
    accepts={'{"d": "xy"}': (3, [9], 4, "xy"), '{"a": 1, "b": [2], "d": "xy"}': (1, [2], 4, "xy")},
    refuses={'{"a": 0, "d": "x"}': "- a: expected greater than or equal to 1"},
)
def fields_as_defaults(
    a: int = Field(3, ge=1, description="The a."),
    b: list[int] = Field(default_factory=lambda: [9]),
    c: Annotated[int, Field(description="The c.")] = 4,
    d: str = Field(min_length=2),
) -> Any:
    return a, b, c, d


@case(
    {"from": STR, "to": {**STR, "default": "x"}, "via": STR},
    required="from via",
    accepts={'{"from": "a", "via": "v"}': ("a", "x", "v")},
    refuses={
        '{"sender": "a", "via": "v"}': "- sender: no such property. Properties: from, to, via"
    },
)
def aliases(
    sender: Annotated[str, Field(alias="from")],
    receiver: str = Field("x", validation_alias=AliasChoices("to", "receiver")),
    *,
    by: Annotated[str, Field(validation_alias="via")],
) -> Any:
    return sender, receiver, by


@case(
    {"x": {**INT, "default": 7}},
    accepts={"{}": 7, '{"x": null}': 7, '{"x": 1}': 1},
)
def default_inside_annotated(x: Annotated[int, Field(default=7)]) -> int:
    return x


# Types


@case(
    {
        "a": {**INT, "minimum": 1, "exclusiveMaximum": 10},
        "b": {**STR, "description": "As text."},
        "c": {**STR, "description": "As Doc.", "default": "q"},
        "d": {**STR, "pattern": "^a+$", "default": "a"},
    },
    required="a b",
    accepts={'{"a": 9, "b": "x"}': (9, "x", "q", "a")},
    refuses={'{"a": 10, "b": "x", "d": "b"}': "- a: expected less than 10"},
)
def annotated(
    a: Annotated[int, annotated_types.Ge(1), annotated_types.Lt(10)],
    b: Annotated[str, "As text."],
    c: Annotated[str, Doc("As Doc.")] = "q",
    d: Annotated[str, Field(pattern="^a+$")] = "a",
) -> Any:
    return a, b, c, d


@case(
    {"x": {"enum": ["c", "f"], "type": "string"}, "y": {"enum": [1, "a", True, None]}},
    required="x y",
    accepts={'{"x": "c", "y": null}': ("c", None), '{"x": "f", "y": true}': ("f", True)},
    refuses={'{"x": "celsius", "y": 2}': "- x: expected 'c' or 'f'"},
)
def literals(x: Literal["c", "f"], y: Literal[1, "a", True, None]) -> Any:
    return x, y


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(enum.Enum):
    A = "a"
    ONE = 1


@case(
    {
        "color": {"enum": ["red", "blue"], "type": "string"},
        "level": {"enum": [1, 2], "type": "integer", "default": 1},
        "mixed": {"enum": ["a", 1], "default": "a"},
    },
    required="color",
    accepts={
        '{"color": "red"}': (Color.RED, Level.LOW, Mixed.A),
        '{"color": "blue", "level": 2, "mixed": 1}': (Color.BLUE, Level.HIGH, Mixed.ONE),
    },
    refuses={'{"color": "reed"}': "- color: expected 'red' or 'blue'; did you mean 'red'?"},
)
def enums(color: Color, level: Level = Level.LOW, mixed: Mixed = Mixed.A) -> Any:
    return color, level, mixed


UserId = NewType("UserId", int)
Score = NewType("Score", Annotated[float, Field(ge=0)])  # type: ignore[valid-newtype]


@case(
    {"user": INT, "score": {**NUM, "minimum": 0}},
    required="user score",
    accepts={'{"user": 1, "score": 0.5}': (1, 0.5)},
    refuses={'{"user": 1, "score": -1}': "- score: expected greater than or equal to 0"},
)
def new_types(user: UserId, score: Score) -> Any:
    return user, score


@case(
    {"x": {"anyOf": [INT, STR]}, "y": {"anyOf": [BOOL, NUM, NULL], "default": None}},
    required="x",
    accepts={
        '{"x": 3}': (3, None),
        '{"x": "3"}': ("3", None),
        '{"x": "a", "y": true}': ("a", True),
        '{"x": "a", "y": 1}': ("a", 1.0),
    },
    refuses={'{"x": [1]}': "- x: expected an integer; or expected a string"},
)
def unions(x: int | str, y: Union[bool, float, None] = None) -> Any:  # noqa: UP007
    return x, y


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    """A dog."""

    kind: Literal["dog"]
    name: str = Field(description="What it listens to.")


CAT = {
    "type": "object",
    "properties": {"kind": {"const": "cat", "type": "string"}, "lives": {**INT, "default": 9}},
    "required": ["kind"],
}
DOG = {
    "type": "object",
    "description": "A dog.",
    "properties": {
        "kind": {"const": "dog", "type": "string"},
        "name": {**STR, "description": "What it listens to."},
    },
    "required": ["kind", "name"],
}


@case(
    {"pet": {"oneOf": [CAT, DOG]}},
    required="pet",
    accepts={
        '{"pet": {"kind": "cat"}}': Cat(kind="cat"),
        '{"pet": {"kind": "dog", "name": "Rex"}}': Dog(kind="dog", name="Rex"),
    },
    refuses={
        '{"pet": {"kind": "cow"}}': "- pet: its field 'kind' must be one of 'cat', 'dog'",
        '{"pet": {"name": "Rex"}}': "- pet: its field 'kind' is required",
        '{"pet": {"kind": "dog"}}': "- pet.name: is required",
    },
)
def discriminated(pet: Annotated[Cat | Dog, Field(discriminator="kind")]) -> Any:
    return pet


@case(
    {"cat": CAT},
    required="cat",
    accepts={'{"cat": {"kind": "cat", "lives": 3}}': Cat(kind="cat", lives=3)},
    refuses={'{"kind": "cat"}': "- cat: is required"},
)
def lone_model(cat: Cat) -> Any:
    """A lone model is not unwrapped."""
    return cat


@case(
    {"a": {"$ref": "#/$defs/Cat"}, "b": {"type": "array", "items": {"$ref": "#/$defs/Cat"}}},
    required="a b",
    more={"additionalProperties": False, "$defs": {"Cat": CAT}},
    accepts={'{"a": {"kind": "cat"}, "b": []}': (Cat(kind="cat"), [])},
)
def model_used_twice(a: Cat, b: list[Cat]) -> Any:
    return a, b


class Node(BaseModel):
    value: int
    children: list["Node"] = []


@case(
    {"root": {"$ref": "#/$defs/Node"}},
    required="root",
    more={
        "additionalProperties": False,
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {
                    "value": INT,
                    "children": {
                        "type": "array",
                        "items": {"$ref": "#/$defs/Node"},
                        "default": [],
                    },
                },
                "required": ["value"],
            }
        },
    },
    accepts={
        '{"root": {"value": 1, "children": [{"value": 2}]}}': Node(
            value=1, children=[Node(value=2)]
        )
    },
    refuses={
        '{"root": {"value": 1, "children": [{"value": "x"}]}}': (
            "- root.children[0].value: expected an integer"
        )
    },
)
def recursive_model(root: Node) -> Any:
    return root


@dataclasses.dataclass
class Point:
    """A place."""

    x: int
    """To the right."""
    y: int = 0
    tags: list[str] = dataclasses.field(default_factory=list)


@case(
    {
        "at": {
            "type": "object",
            "description": "A place.",
            "properties": {
                "x": {**INT, "description": "To the right."},
                "y": {**INT, "default": 0},
                "tags": {"type": "array", "items": STR},
            },
            "required": ["x"],
            "additionalProperties": False,
        }
    },
    required="at",
    accepts={'{"at": {"x": 1, "y": null}}': Point(1, 0, []), '{"at": {"x": 1}}': Point(1)},
    refuses={'{"at": {"x": 1, "tag": []}}': "- at.tag: no such property; did you mean 'tags'?"},
)
def dataclass_parameter(at: Point) -> Any:
    return at


class Movie(TypedDict):
    """A film."""

    title: str
    """As on the poster."""
    year: NotRequired[int]


MOVIE = {
    "type": "object",
    "description": "A film.",
    "properties": {"title": {**STR, "description": "As on the poster."}, "year": INT},
    "required": ["title"],
    "additionalProperties": False,
}


@case(
    {"movies": {"type": "array", "items": MOVIE}},
    required="movies",
    accepts={'{"movies": [{"title": "M", "year": null}]}': [{"title": "M"}]},
    refuses={'{"movies": [{"titel": "M"}]}': "- movies[0].titel: no such property; did you mean"},
)
def typed_dicts(movies: list[Movie]) -> Any:
    return movies


class Chain(TypedDict):
    value: int
    next: NotRequired["Chain"]


@case(
    {"chain": {"$ref": "#/$defs/Chain"}},
    required="chain",
    more={
        "additionalProperties": False,
        "$defs": {
            "Chain": {
                "type": "object",
                "properties": {"value": INT, "next": {"$ref": "#/$defs/Chain"}},
                "required": ["value"],
                "additionalProperties": False,
            }
        },
    },
    accepts={
        '{"chain": {"value": 1, "next": {"value": 2}}}': {"value": 1, "next": {"value": 2}},
    },
)
def recursive_typed_dict(chain: Chain) -> Any:
    return chain


class Pair(NamedTuple):
    a: int
    b: str = "x"


@case(
    {
        "p": {
            "type": "array",
            "prefixItems": [INT, {**STR, "default": "x"}],
            "minItems": 1,
            "maxItems": 2,
        }
    },
    required="p",
    accepts={'{"p": [1]}': Pair(1, "x"), '{"p": [1, "y"]}': Pair(1, "y")},
    refuses={'{"p": ["q", "y"]}': "- p[0]: expected an integer"},
)
def named_tuple(p: Pair) -> Any:
    return p


T = TypeVar("T")
Bounded = TypeVar("Bounded", bound=int)


@dataclasses.dataclass
class Box(Generic[T]):
    item: T


def box(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"item": item},
        "required": ["item"],
        "additionalProperties": False,
    }


@case(
    {"a": box(INT), "b": box({"type": "array", "items": STR})},
    required="a b",
    accepts={'{"a": {"item": 1}, "b": {"item": ["x"]}}': (Box(1), Box(["x"]))},
    refuses={'{"a": {"item": "x"}, "b": {"item": []}}': "- a.item: expected an integer"},
)
def generics(a: Box[int], b: Box[list[str]]) -> Any:
    return a, b


@case({"x": {}, "y": INT}, required="x y", accepts={'{"x": [1], "y": 2}': ([1], 2)})
def type_variables(x: T, y: Bounded) -> tuple[T, Bounded]:
    return x, y


@case(
    {
        "a": {**STR, "format": "date-time"},
        "b": {**STR, "format": "date"},
        "c": {**STR, "format": "time"},
        "d": {**STR, "format": "duration"},
    },
    required="a b c d",
    accepts={
        '{"a": "2026-01-31T09:30:00Z", "b": "2026-01-31", "c": "09:30:00", "d": "PT1H"}': (
            dt.datetime(2026, 1, 31, 9, 30, tzinfo=dt.UTC),
            dt.date(2026, 1, 31),
            dt.time(9, 30),
            dt.timedelta(hours=1),
        )
    },
    refuses={
        '{"a": "x", "b": "2026-01-31", "c": "09:30:00", "d": "PT1H"}': "- a: expected a date and",
        '{"a": "2026", "b": "2026-01-31", "c": "09:30:00", "d": "PT1H"}': "- a: expected a date an",
        '{"a": "2026-01-31T09:30:00Z", "b": 0, "c": "09:30:00", "d": 3600}': (
            "- b: expected a date such as 2026-01-31\n- d: expected a duration such as PT1H30M"
        ),
    },
)
def times(a: dt.datetime, b: dt.date, c: dt.time, d: dt.timedelta) -> Any:
    return a, b, c, d


@case(
    {
        "a": {"anyOf": [NUM, {**STR, "pattern": r"^-?\d+(\.\d+)?$"}]},
        "b": {**STR, "format": "uuid"},
        "c": {**STR, "format": "path"},
        "d": {**STR, "format": "binary", "default": "x"},
    },
    required="a b c",
    accepts={
        '{"a": 0.1, "b": "6ba7b810-9dad-41d1-80b4-00c04fd430c8", "c": "/tmp"}': (
            decimal.Decimal("0.1"),
            uuid.UUID("6ba7b810-9dad-41d1-80b4-00c04fd430c8"),
            pathlib.Path("/tmp"),
            b"x",
        )
    },
    refuses={'{"a": "x", "b": "y", "c": 3}': "- a: expected a number, or a string that is one"},
)
def scalars(a: decimal.Decimal, b: uuid.UUID, c: pathlib.Path, d: bytes = b"x") -> Any:
    return a, b, c, d


@case(
    {
        "a": {"type": "array", "items": INT, "uniqueItems": True},
        "b": {"type": "array", "items": STR, "uniqueItems": True},
        "c": {"type": "array", "items": NUM},
        "d": {"type": "array", "items": INT, "default": []},
    },
    required="a b c",
    accepts={
        '{"a": [1, 1], "b": ["x"], "c": [1.5]}': (
            {1},
            frozenset({"x"}),
            (1.5,),
            collections.deque(),
        )
    },
)
def collections_of(
    a: set[int],
    b: frozenset[str],
    c: tuple[float, ...],
    d: collections.deque[int] = collections.deque(),
) -> Any:
    return a, b, c, d


@case(
    {
        "a": {"type": "array", "items": INT},
        "b": {"type": "array", "items": STR, "default": []},
        "c": {"type": "object", "additionalProperties": INT, "default": {}},
        "d": {**STR, "default": "x"},
    },
    required="a",
    accepts={'{"a": [1, 2], "c": {"k": 1}}': ([1, 2], (), {"k": 1}, "x")},
    refuses={
        '{"a": ["x"]}': "- a[0]: expected an integer",
        '{"a": [], "c": {"k": null}}': "- c.k: expected an integer",
    },
)
def abstract_collections(
    a: Iterable[int],
    b: Sequence[str] = (),
    c: Mapping[str, int] = {},
    d: LiteralString = "x",
) -> Any:
    return a, b, c, d


@case(
    {"a": {"type": "array", "items": {}}, "b": {"type": "object", "additionalProperties": True}},
    required="a b",
    accepts={'{"a": [1, "x", null], "b": {"k": null}}': ([1, "x", None], {"k": None})},
    refuses={'{"a": {}, "b": []}': "- a: expected an array\n- b: expected an object"},
)
def bare_containers(a: list, b: dict) -> Any:  # type: ignore[type-arg]
    return a, b


@case(
    {"a": {}, "b": {"default": None}, "c": NULL},
    required="a c",
    accepts={'{"a": {"k": [1]}, "c": null}': ({"k": [1]}, None, None)},
)
def anything(a: Any, b: object = None, *, c: None) -> Any:
    return a, b, c


@case(
    {"a": {**STR, "format": "date-time"}},
    required="a",
    accepts={'{"a": " 2026-01-31T09:30:00 "}': dt.datetime(2026, 1, 31, 9, 30)},  # noqa: DTZ001
)
def before_validator(a: Annotated[dt.datetime, BeforeValidator(lambda text: text.strip())]) -> Any:
    return a


class Even(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def even(cls, n: int) -> int:
        """Only even numbers."""
        if n % 2:
            raise ValueError("has to be even")
        return n


@case(
    {"e": {"type": "object", "properties": {"n": INT}, "required": ["n"]}},
    required="e",
    accepts={'{"e": {"n": 2}}': Even(n=2)},
    refuses={'{"e": {"n": 3}}': "- e.n: has to be even"},
)
def own_validator(e: Even) -> Any:
    return e


@case(
    {"key": {**STR, "format": "password", "writeOnly": True}},
    required="key",
    accepts={'{"key": "s"}': SecretStr("s")},
)
def secret(key: SecretStr) -> Any:
    return key


@case(
    {"a": BOOL, "b": NUM, "c": INT},
    required="a b c",
    accepts={
        '{"a": "true", "b": "1e3", "c": "7"}': (True, 1000.0, 7),
        '{"a": true, "b": 2, "c": 3.0}': (True, 2.0, 3),
    },
    refuses={
        '{"a": "maybe", "b": "x", "c": "yes"}': (
            "- a: expected true or false\n- b: expected a number\n- c: expected an integer"
        ),
        '{"a": true, "b": true, "c": false}': "- b: expected a number\n- c: expected an integer",
        '{"a": true, "b": 1, "c": 1.5}': "- c: expected an integer",
        '{"a": true, "b": 1, "c": ""}': "- c: expected an integer",
    },
)
def conversions(a: bool, b: float, c: int) -> Any:
    return a, b, c


@case(
    {"a": {"type": "array", "items": INT}, "b": MOVIE},
    required="a b",
    accepts={'{"a": "[1, 2]", "b": "{\\"title\\": \\"M\\"}"}': ([1, 2], {"title": "M"})},
    refuses={'{"a": "1, 2", "b": {"title": "M"}}': "- a: expected an array"},
)
def containers_sent_as_text(a: list[int], b: Movie) -> Any:
    return a, b


@case(
    {"a": {"type": "array", "items": {"type": "array", "items": {"type": "array", "items": INT}}}},
    required="a",
    accepts={'{"a": [[[1]]]}': [[[1]]]},
    refuses={'{"a": [[[1], [2, "x"]]]}': "- a[0][1][1]: expected an integer"},
)
def nested_lists(a: list[list[list[int]]]) -> Any:
    return a


@case(
    {"a": {"type": "object", "additionalProperties": STR}},
    required="a",
    accepts={'{"a": {"1": "x"}}': {1: "x"}},
)
def integer_keys(a: dict[int, str]) -> Any:
    return a


# The context


@case({"x": INT}, required="x", accepts={'{"x": 1}': (True, 1)})
def context_first(context: RunContext[int], x: int) -> Any:
    return isinstance(context, RunContext), x


@case(
    {"x": INT, "y": {**INT, "default": 2}, "rest": {"type": "array", "items": INT}},
    required="x",
    accepts={'{"x": 1}': (1, True, 2, ()), '{"x": 1, "rest": [5]}': (1, True, 2, (5,))},
)
def context_in_the_middle(x: int, context: RunContext, y: int = 2, *rest: int) -> Any:
    return x, isinstance(context, RunContext), y, rest


@case({"x": INT}, required="x", accepts={'{"x": 1}': (1, True)})
def context_optional(x: int, *, context: RunContext[str] | None = None) -> Any:
    return x, context is not None


@case({"x": INT}, required="x", accepts={'{"x": 1}': (True, 1)})
def context_positional_only(context: Optional[RunContext[str]], x: int, /) -> Any:  # noqa: UP045
    return context is not None, x


# Kinds of callables


@case({"x": INT}, required="x", accepts={'{"x": 1}': 2})
async def coroutine(x: int) -> int:
    return x + 1


@case({"n": INT}, required="n", accepts={'{"n": 3}': 2, '{"n": 0}': None})
def generator(n: int) -> Iterator[int]:
    yield from range(n)


@case({"n": INT}, required="n", accepts={'{"n": 3}': 2})
async def async_generator(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


class Service:
    """A service."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, x: int, context: RunContext[int] | None = None) -> Any:
        """Call it."""
        return self.name, x, context is not None

    def method(self, x: int, /, y: int = 2) -> Any:
        return self.name, x, y

    async def slow(self, x: int) -> Any:
        return self.name, x

    @classmethod
    def of_class(cls, x: int) -> Any:
        return cls.__name__, x

    @staticmethod
    def static(x: int) -> Any:
        return x


case({"x": INT}, required="x", accepts={'{"x": 1}': ("s", 1, True)})(Service("s"))
case({"x": INT, "y": {**INT, "default": 2}}, required="x", accepts={'{"x": 1}': ("s", 1, 2)})(
    Service("s").method
)
case({"x": INT}, required="x", accepts={'{"x": 1}': ("s", 1)})(Service("s").slow)
case({"x": INT}, required="x", accepts={'{"x": 1}': ("Service", 1)})(Service.of_class)
case({"x": INT}, required="x", accepts={'{"x": 1}': 1})(Service.static)


def three(a: int, b: int, c: int = 3) -> Any:
    return a, b, c


case({"b": INT, "c": {**INT, "default": 3}}, required="b", accepts={'{"b": 2}': (1, 2, 3)})(
    functools.partial(three, 1)
)
case({"c": {**INT, "default": 3}}, accepts={"{}": (1, 2, 3), '{"c": 9}': (1, 2, 9)})(
    functools.partial(three, b=2, a=1)
)
case({"a": INT}, required="a", accepts={'{"a": 1}': (1, 2, 3)})(functools.partial(three, b=2, c=3))

PS = ParamSpec("PS")
R = TypeVar("R")


def transparent(function: Callable[PS, R]) -> Callable[PS, R]:
    @functools.wraps(function)
    def wrapper(*args: PS.args, **kwargs: PS.kwargs) -> R:
        return function(*args, **kwargs)

    return wrapper


@case(
    {"a": INT, "b": {**INT, "default": 2}},
    required="a",
    accepts={'{"a": 1}': (1, 2), '{"a": 1, "b": 5}': (1, 5)},
)
@transparent
@transparent
def wrapped(a: int, b: int = 2, /) -> Any:
    return a, b


@case({"x": INT}, required="x", accepts={'{"x": 1}': 1})
@functools.cache
def cached(x: int) -> int:
    return x


@case({"x": INT}, required="x", accepts={'{"x": 1}': 1})
@functools.singledispatch
def dispatched(x: int) -> int:
    return x


@case(
    {"x": INT, "y": {**STR, "default": "q"}},
    required="x",
    accepts={'{"x": 1}': "Made(x=1, y='q')"},
)
@dataclasses.dataclass
class Made:
    x: int
    y: str = "q"

    def __eq__(self, other: object) -> bool:
        return other == repr(self)


# The tests


def plain(case: Case) -> Tool[..., Any]:
    return Tool(case.function, strict=False)


@pytest.mark.parametrize("name", CASES)
async def test_the_schema_is_what_its_author_would_write(name: str) -> None:
    """There is a property for each parameter, nothing else, and optional ones are not required."""
    case = CASES[name]
    expected: dict[str, Any] = {"type": "object", "properties": case.properties, **case.more}
    if case.required:
        expected["required"] = case.required.split()
    assert plain(case).parameters == expected


@pytest.mark.parametrize("name", CASES)
async def test_arguments_are_bound_as_python_binds_them(name: str) -> None:
    """The function gets each argument in its place, and its own defaults for the rest."""
    case = CASES[name]
    for arguments, expected in case.accepts.items():
        assert await plain(case).call(arguments) == expected
        assert await Tool(case.function).call(arguments) == expected


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].refuses])
async def test_invalid_arguments_are_refused_with_their_place(name: str) -> None:
    """The function does not run; the model reads the place and what was expected."""
    case = CASES[name]
    for arguments, text in case.refuses.items():
        with pytest.raises(InvalidArguments) as caught:
            plain(case).parse(arguments)
        assert text in str(caught.value)


@pytest.mark.parametrize("name", CASES)
async def test_every_schema_is_valid_json_schema(name: str) -> None:
    """The plain form and the strict form, if any, are valid in draft 2020-12."""
    for tool in (plain(CASES[name]), Tool(CASES[name].function)):
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **tool.parameters}
        jsonschema_rs.meta.validate(schema)


async def test_there_are_at_least_sixty_signatures() -> None:
    """The cases above cover at least sixty signatures."""
    assert len(CASES) >= 60
