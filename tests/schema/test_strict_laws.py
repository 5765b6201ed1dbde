"""Laws of the strict form: it obeys the published rules, and what matches it can be used."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
from hypothesis import given
from hypothesis import strategies as st

from agentkit import Tool
from agentkit.schema.strict import NotStrict, strict_form
from tests.schema.strict_rules import faults

JsonObject = dict[str, Any]


def take(**values: Any) -> None:
    """Take anything."""


# Schemas, with everything beside everything

NAMES = st.sampled_from(["a", "b", "1", "tag"])
REFS = st.sampled_from(["#", "#/$defs/A", "#/$defs/B", "#/definitions/C"])
VALUES = st.sampled_from(["x", "y", 1, 2, 1.0, True, None])
LEAVES = st.one_of(
    st.builds(
        lambda kind, more: {"type": kind, **more},
        st.sampled_from(["string", "integer", "number", "boolean", "null", ["string", "null"]]),
        st.dictionaries(st.sampled_from(["minimum", "exclusiveMaximum"]), st.integers(0, 3)),
    ),
    st.builds(lambda values: {"enum": values}, st.lists(VALUES, min_size=1, max_size=3)),
    st.builds(lambda value: {"const": value}, VALUES),
    st.builds(lambda value: {"const": value, "default": value}, VALUES),
    st.builds(lambda kind, v: {"type": kind, "const": v}, st.sampled_from(["string"]), VALUES),
    st.builds(lambda ref: {"$ref": ref}, REFS),
    st.booleans(),
)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(NAMES, inner, max_size=3)},
        optional={
            "required": st.lists(NAMES, max_size=2, unique=True),
            "additionalProperties": st.sampled_from([False, False, True, {"type": "integer"}]),
        },
    )


def consistent(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects whose required names are declared, and that are closed."""

    def build(properties: JsonObject, required: set[str]) -> JsonObject:
        names = [name for name in properties if name in required]
        closed = {"additionalProperties": False}
        return {"type": "object", "properties": properties, "required": names, **closed}

    return st.builds(build, st.dictionaries(NAMES, inner, max_size=3), st.sets(NAMES))


def combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "string", "integer"]),
            "properties": st.dictionaries(NAMES, inner, max_size=2),
            "required": st.lists(NAMES, max_size=2, unique=True),
            "additionalProperties": st.just(False),
            "anyOf": several,
            "oneOf": several,
            "allOf": several,
            "enum": st.lists(VALUES, min_size=1, max_size=3),
            "minimum": st.integers(0, 3),
            "$ref": REFS,
        },
    )


def unions(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    key = st.sampled_from(["anyOf", "oneOf", "allOf"])
    return st.builds(lambda key, some: {key: some}, key, st.lists(inner, min_size=1, max_size=3))


SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        objects(inner),
        consistent(inner),
        combined(inner),
        unions(inner),
        st.builds(lambda one: {"type": "array", "items": one}, inner),
    ),
    max_leaves=8,
)
ROOTS = st.builds(
    lambda root, a, b, c: {**root, "$defs": {"A": a, "B": b}, "definitions": {"C": c}},
    st.one_of(consistent(SCHEMAS), objects(SCHEMAS), combined(SCHEMAS)),
    SCHEMAS,
    SCHEMAS,
    SCHEMAS,
)


def strict_or_none(schema: JsonObject) -> JsonObject | None:
    try:
        return strict_form(schema)
    except NotStrict as reason:
        assert str(reason)  # noqa: PT017  a refusal is as good, if it says something
        return None


# Instances of a strict form

SCALARS = {
    "string": st.sampled_from(["x", "y", "true", "1"]),
    "integer": st.integers(-1, 4),
    "number": st.sampled_from([0, 1.0, 2.5, 3]),
    "boolean": st.booleans(),
    "null": st.none(),
}


def instance(draw: st.DrawFn, form: JsonObject, root: JsonObject, depth: int = 0) -> Any:
    if "$ref" in form:
        name = form["$ref"].removeprefix("#/$defs/")
        return instance(draw, root if name == "#" else root["$defs"][name], root, depth + 1)
    if "anyOf" in form:
        null = [one for one in form["anyOf"] if one == {"type": "null"}] if depth > 5 else []
        return instance(draw, draw(st.sampled_from(null or form["anyOf"])), root, depth + 1)
    if "const" in form or "enum" in form:
        return draw(st.sampled_from(form.get("enum", [form.get("const")])))
    types = form["type"] if isinstance(form["type"], list) else [form["type"]]
    kind = "null" if "null" in types and depth > 5 else draw(st.sampled_from(types))
    if kind == "array":
        most = 0 if depth > 5 else 2
        some = range(draw(st.integers(0, most)))
        return [instance(draw, form["items"], root, depth + 1) for _ in some]
    if kind == "object":
        assert depth < 30
        keys = form["properties"].items()
        return {name: instance(draw, one, root, depth + 1) for name, one in keys}
    return draw(SCALARS[kind])


@given(ROOTS, st.data())
def test_law_what_matches_the_strict_form_arrives_as_valid(
    schema: JsonObject, data: st.DataObject
) -> None:
    """The arguments that a server enforced are valid under the schema as it was written."""
    schema = {"type": "object", **schema}
    form = strict_or_none(schema)
    if form is None:
        return
    try:
        value = instance(data.draw, form, form)
    except (AssertionError, RecursionError):
        return  # no instance is finite
    if not jsonschema_rs.validator_for(form).is_valid(value):
        return
    tool = Tool.from_schema("t", "", schema, take)
    assert tool.strict
    arrived = tool.parse(json.dumps(value)).values
    assert jsonschema_rs.validator_for(schema).is_valid(arrived)


@given(ROOTS)
def test_law_a_strict_form_obeys_the_published_rules(schema: JsonObject) -> None:
    """A checker that was written from the rules alone finds nothing."""
    form = strict_or_none({"type": "object", **schema})
    if form is not None:
        jsonschema_rs.meta.validate(form)
        assert faults(form) == []
        assert strict_form(form) == form
