"""For any signature: what its schema allows is accepted and bound right, the rest is refused."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import inspect
import json
import uuid
from typing import Annotated, Any, Literal

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter
from typing_extensions import TypedDict  # pydantic's own, in the comparison, needs it before 3.12

from agentkit.errors import InvalidArguments
from agentkit.tools import RunContext, Tool
from agentkit.tools.signature import INJECTED


class Color(enum.Enum):
    """Two of them."""

    RED = "red"
    BLUE = "blue"


class Model(BaseModel):
    """A pydantic model."""

    name: str
    size: int = Field(1, ge=0)
    inner: list[Model] = []


@dataclasses.dataclass
class Point:
    """A dataclass."""

    x: int
    y: float | None = None


class Film(TypedDict, total=False):
    """A typed dict."""

    title: str
    year: int


TYPES: list[Any] = [
    int,
    float,
    str,
    bool,
    None,
    Any,
    int | None,
    int | str | list[bool],
    Literal["a", "b", 3],
    Color,
    Model,
    Point,
    Film,
    list[int],
    dict[str, float],
    tuple[int, str],
    set[str],
    bytes,
    dt.date,
    dt.datetime,
    decimal.Decimal,
    uuid.UUID,
    Annotated[int, Field(ge=3, lt=9)],
    Annotated[str, Field(min_length=1, max_length=3)],
    Annotated[Model | None, Field(description="Maybe.")],
]
MISSING, KINDS = inspect.Parameter.empty, inspect.Parameter
NAMES = ["a", "b", "c", "self", "cls", "_x", "json", "schema", "model_config", "args", "größe"]


@st.composite
def signatures(draw: st.DrawFn) -> inspect.Signature:
    """Any legal signature over these types, with one context or none."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=5))
    kinds = sorted(draw(st.sampled_from(_kinds())) for _ in names)
    seen: set[Any] = set()
    parameters: list[inspect.Parameter] = []
    defaulted = False
    for name, kind in zip(names, kinds, strict=True):
        star = kind in (KINDS.VAR_POSITIONAL, KINDS.VAR_KEYWORD)
        if star and kind in seen:
            continue
        seen.add(kind)
        keyword = kind is KINDS.KEYWORD_ONLY
        optional = not star and (draw(st.booleans()) or (defaulted and not keyword))
        defaulted = defaulted or (optional and not keyword)
        parameters.append(
            inspect.Parameter(
                name,
                kind,
                annotation=draw(st.sampled_from(TYPES)),
                default=draw(st.sampled_from([None, 3, "x", object()])) if optional else MISSING,
            )
        )
    if parameters and draw(st.booleans()):
        index = draw(st.integers(0, len(parameters) - 1))
        if parameters[index].kind not in (KINDS.VAR_POSITIONAL, KINDS.VAR_KEYWORD):
            parameters[index] = parameters[index].replace(annotation=RunContext[int])
    return inspect.Signature(parameters)


def _kinds() -> list[Any]:
    return [
        KINDS.POSITIONAL_ONLY,
        KINDS.POSITIONAL_OR_KEYWORD,
        KINDS.VAR_POSITIONAL,
        KINDS.KEYWORD_ONLY,
        KINDS.VAR_KEYWORD,
    ]


def made(signature: inspect.Signature) -> Tool[..., Any]:
    """A tool whose function says which parameter got what."""

    def function(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    function.__signature__ = signature  # type: ignore[attr-defined]
    return Tool(function, strict=False)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)
FORMATS = {
    "date": st.dates().map(str),
    "date-time": st.datetimes().map(dt.datetime.isoformat),
    "uuid": st.uuids().map(str),
    "binary": st.text(max_size=5),
}


def values(schema: dict[str, Any], defs: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that the schema allows, written from the schema alone."""
    if "$ref" in schema:
        return st.deferred(lambda: values(defs[schema["$ref"].split("/")[-1]], defs, depth + 1))
    if "anyOf" in schema:
        return st.one_of([values(one, defs, depth) for one in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "array":
            return arrays(schema, defs, depth)
        case "object":
            return objects(schema, defs, depth)
        case None:
            return json_values
        case kind:
            return scalars(kind, schema)


def scalars(kind: str, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    most = schema.get("exclusiveMaximum")
    text = st.text(min_size=schema.get("minLength", 0), max_size=schema.get("maxLength", 8))
    if "pattern" in schema:
        text = st.decimals(-999, 999, places=2).map(str)
    return {
        "null": st.none(),
        "boolean": st.booleans(),
        "integer": st.integers(schema.get("minimum"), most and most - 1),
        "number": st.integers(-999, 999) | st.floats(-1e9, 1e9),
        "string": FORMATS.get(schema.get("format", ""), text),
    }[kind]


def arrays(schema: dict[str, Any], defs: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    if "prefixItems" in schema:
        return st.tuples(*(values(one, defs, depth) for one in schema["prefixItems"])).map(list)
    unique = repr if schema.get("uniqueItems") else None
    items = values(schema["items"], defs, depth)
    return st.lists(items, max_size=0 if depth > 2 else 3, unique_by=unique)


def objects(schema: dict[str, Any], defs: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    shown = {key: values(one, defs, depth) for key, one in schema.get("properties", {}).items()}
    required = {key: shown[key] for key in schema.get("required", ())}
    optional = {key: shown[key] for key in shown if key not in required}
    named = st.fixed_dictionaries(required, optional=optional)
    more = schema.get("additionalProperties", False)
    if not more:
        return named
    keys = st.text(min_size=1, max_size=4).filter(lambda key: key not in shown)
    rest = json_values if more is True else values(more, defs, depth)
    return st.builds(lambda a, b: {**b, **a}, named, st.dictionaries(keys, rest, max_size=2))


UNCHECKED = settings(suppress_health_check=list(HealthCheck))


@UNCHECKED
@given(signatures(), st.data())
def test_law_what_the_schema_allows_is_accepted_and_bound(
    signature: inspect.Signature, data: st.DataObject
) -> None:
    """Each value reaches its own parameter, and every other parameter its own default."""
    tool = made(signature)
    schema = tool.parameters
    jsonschema_rs.meta.validate(schema)
    sent = data.draw(values(schema, schema.get("$defs", {})))
    assert jsonschema_rs.is_valid(schema, sent)
    parsed = tool.parse(json.dumps(sent))
    got = tool.function(*parsed.args, **parsed.kwargs)
    rest = dict(sent)
    for name, parameter in signature.parameters.items():
        if parameter.annotation == RunContext[int]:
            assert got[name] is INJECTED
        elif parameter.kind is KINDS.VAR_KEYWORD:
            continue
        elif name in rest:
            kind = parameter.annotation
            kind = tuple[kind, ...] if parameter.kind is KINDS.VAR_POSITIONAL else kind
            expected = rest.pop(name)
            if expected is None and parameter.default is not MISSING and got[name] is not None:
                assert got[name] is parameter.default  # null stands for "not given"
            else:
                assert got[name] == TypeAdapter(kind).validate_json(json.dumps(expected))
        else:
            expected = () if parameter.kind is KINDS.VAR_POSITIONAL else parameter.default
            assert got[name] is expected or got[name] == expected
    keywords = [p for p in signature.parameters.values() if p.kind is KINDS.VAR_KEYWORD]
    if keywords:
        assert got[keywords[0].name].keys() == rest.keys()
    else:
        assert not rest


@UNCHECKED
@given(signatures(), st.data())
def test_law_what_the_schema_forbids_is_refused(
    signature: inspect.Signature, data: st.DataObject
) -> None:
    """A value of a wrong kind, a missing one, a name that is not there: nothing runs."""
    tool = made(signature)
    schema = tool.parameters
    defs = schema.get("$defs", {})
    sent = data.draw(values(schema, defs))
    wrong = ["missing"] * bool(schema.get("required")) + ["kind"] * bool(schema["properties"])
    wrong += ["unknown"] * (schema.get("additionalProperties") is False)
    assume(wrong)
    match data.draw(st.sampled_from(wrong)):
        case "missing":
            del sent[data.draw(st.sampled_from(schema["required"]))]
        case "unknown":
            sent["nobody knows this"] = data.draw(json_values)
        case _:
            name = data.draw(st.sampled_from(sorted(schema["properties"])))
            value = data.draw(json_values)
            one = {"$defs": defs, **schema["properties"][name]}
            # Text may hold a number or an array, and 0 and 1 are booleans: one meaning each.
            convertible = isinstance(value, str) or (value in (0, 1) and "boolean" in str(one))
            optional = value is None and name not in schema.get("required", ())
            assume(not convertible and not optional and not jsonschema_rs.is_valid(one, value))
            assume(not _holds_text_or_bits(value))
            sent[name] = value
    with pytest.raises(InvalidArguments) as caught:
        tool.parse(json.dumps(sent))
    assert "was not run" in str(caught.value)


def _holds_text_or_bits(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_text_or_bits, value.values()))
    if isinstance(value, list):
        return any(map(_holds_text_or_bits, value))
    return isinstance(value, str) or value in (0, 1, None)


@UNCHECKED
@given(signatures())
def test_law_the_strict_form_binds_nulls_to_defaults(signature: inspect.Signature) -> None:
    """What was optional may be null in a strict schema, and then the function's default holds."""
    plain = made(signature)
    tool = plain.with_(strict=None)
    assume(tool.strict)
    jsonschema_rs.meta.validate(tool.parameters)
    assert tool.parameters["required"] == list(plain.parameters["properties"])
    if plain.parameters.get("required"):
        return
    nulls = dict.fromkeys(tool.parameters["properties"])
    assert jsonschema_rs.is_valid(tool.parameters, nulls)
    parsed = tool.parse(json.dumps(nulls))
    got = tool.function(*parsed.args, **parsed.kwargs)
    for name, parameter in signature.parameters.items():
        if parameter.annotation != RunContext[int]:
            nothing = () if parameter.kind is KINDS.VAR_POSITIONAL else parameter.default
            assert got[name] is None or got[name] == nothing
