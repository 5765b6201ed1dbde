"""The strict form that servers enforce, or the reason why a schema has none."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.schema.strict import NotStrict, strict_form


def root(properties: dict[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), **more}


def strict(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    closed = {"required": list(properties), "additionalProperties": False}
    return {"type": "object", "properties": properties, **closed, **more}


STR, INT, NULL = {"type": "string"}, {"type": "integer"}, {"type": "null"}

# One property `x`, as it is written and as it is sent: required, then optional.
PROPERTIES: dict[str, tuple[Any, Any, Any]] = {
    "scalar": (STR, STR, {"type": ["string", "null"]}),
    "several types": (
        {"type": ["string", "integer"]},
        {"type": ["string", "integer"]},
        {"type": ["string", "integer", "null"]},
    ),
    "nullable already": (
        {"type": ["string", "null"]},
        {"type": ["string", "null"]},
        {"type": ["string", "null"]},
    ),
    "enum": (
        {"type": "string", "enum": ["a", "b"]},
        {"type": "string", "enum": ["a", "b"]},
        {"type": ["string", "null"], "enum": ["a", "b", None]},
    ),
    "enum without a type": (
        {"enum": ["a", 1, 2.5, True, None]},
        {
            "enum": ["a", 1, 2.5, True, None],
            "type": ["string", "integer", "number", "boolean", "null"],
        },
        {
            "enum": ["a", 1, 2.5, True, None],
            "type": ["string", "integer", "number", "boolean", "null"],
        },
    ),
    "const": (
        {"const": "a", "description": "A."},
        {"const": "a", "description": "A.", "type": "string"},
        {"description": "A.", "anyOf": [{"const": "a", "type": "string"}, NULL]},
    ),
    "anyOf": (
        {"anyOf": [STR, INT]},
        {"anyOf": [STR, INT]},
        {"anyOf": [STR, INT, NULL]},
    ),
    "oneOf": (
        {"oneOf": [STR, INT], "discriminator": {"propertyName": "k"}},
        {"anyOf": [STR, INT]},
        {"anyOf": [STR, INT, NULL]},
    ),
    "allOf of one": (
        {"allOf": [{"type": "string", "description": "Inner."}], "description": "Outer."},
        {"type": "string", "description": "Outer."},
        {"type": ["string", "null"], "description": "Outer."},
    ),
    "supported constraints": (
        {"type": "number", "minimum": 0, "exclusiveMaximum": 9, "multipleOf": 3},
        {"type": "number", "minimum": 0, "exclusiveMaximum": 9, "multipleOf": 3},
        {"type": ["number", "null"], "minimum": 0, "exclusiveMaximum": 9, "multipleOf": 3},
    ),
    "unsupported constraints": (
        {"type": "string", "minLength": 1, "maxLength": 9, "description": "Name."},
        {"type": "string", "description": "Name. (minLength: 1, maxLength: 9)"},
        {"type": ["string", "null"], "description": "Name. (minLength: 1, maxLength: 9)"},
    ),
    "default": (
        {"type": "string", "default": "é"},
        {"type": "string", "description": '(default: "é")'},
        {"type": ["string", "null"], "description": '(default: "é")'},
    ),
    "default null": (
        {"type": ["string", "null"], "default": None},
        {"type": ["string", "null"]},
        {"type": ["string", "null"]},
    ),
    "known format": (
        {"type": "string", "format": "date-time"},
        {"type": "string", "format": "date-time"},
        {"type": ["string", "null"], "format": "date-time"},
    ),
    "unknown format": (
        {"type": "string", "format": "uri"},
        {"type": "string", "description": '(format: "uri")'},
        {"type": ["string", "null"], "description": '(format: "uri")'},
    ),
    "pattern": (
        {"type": "string", "pattern": "^a$"},
        {"type": "string", "pattern": "^a$"},
        {"type": ["string", "null"], "pattern": "^a$"},
    ),
    "look-around pattern": (
        {"type": "string", "pattern": "^(?!a)"},
        {"type": "string", "description": '(pattern: "^(?!a)")'},
        {"type": ["string", "null"], "description": '(pattern: "^(?!a)")'},
    ),
    "array": (
        {"type": "array", "items": STR, "minItems": 1, "uniqueItems": True},
        {"type": "array", "items": STR, "minItems": 1, "description": "(uniqueItems: true)"},
        {
            "type": ["array", "null"],
            "items": STR,
            "minItems": 1,
            "description": "(uniqueItems: true)",
        },
    ),
    "object": (
        root({"a": STR, "b": INT}, "a"),
        strict({"a": STR, "b": {"type": ["integer", "null"]}}),
        {**strict({"a": STR, "b": {"type": ["integer", "null"]}}), "type": ["object", "null"]},
    ),
    "exclusive bounds of draft 4": (
        {"type": "number", "minimum": 1, "exclusiveMinimum": True, "exclusiveMaximum": False},
        {"type": "number", "exclusiveMinimum": 1},
        {"type": ["number", "null"], "exclusiveMinimum": 1},
    ),
    "inclusive bounds of draft 4": (
        {"type": "number", "maximum": 9, "exclusiveMaximum": False, "exclusiveMinimum": True},
        {"type": "number", "maximum": 9},
        {"type": ["number", "null"], "maximum": 9},
    ),
    "anyOf of what a bound narrows": (
        {"type": ["integer", "number"], "minimum": 0, "anyOf": [INT, {"multipleOf": 0.5}]},
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": ["integer", "number"], "minimum": 0, "multipleOf": 0.5},
            ]
        },
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": ["integer", "number"], "minimum": 0, "multipleOf": 0.5},
                NULL,
            ]
        },
    ),
    "values of other types": (
        {"type": ["string", "boolean"], "enum": ["a", 1, None]},
        {"type": "string", "enum": ["a"]},
        {"type": ["string", "null"], "enum": ["a", None]},
    ),
    "a default without a choice": (
        {"const": "a", "default": "a"},
        {"const": "a", "type": "string", "description": '(default: "a")'},
        {"const": "a", "type": "string", "description": '(default: "a")'},
    ),
    "noise": (
        {"type": "string", "title": "X", "$comment": "c", "readOnly": True, "x-order": 3},
        STR,
        {"type": ["string", "null"]},
    ),
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_in_its_strict_form(name: str) -> None:
    """Required properties stay, optional ones may be null, the rest moves to the description."""
    written, required, optional = PROPERTIES[name]
    assert strict_form(root({"x": written}, "x")) == strict({"x": required})
    assert strict_form(root({"x": written})) == strict({"x": optional})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "open object": (root({"x": {"type": "object"}}), "x takes keys of any name"),
    "map": (
        root({"x": {"type": "object", "additionalProperties": INT}}),
        "x takes keys of any name",
    ),
    "open root": (root({"x": STR}, additionalProperties={}), "the root takes keys of any name"),
    "anything": (root({"x": {}}), "x may be anything"),
    "only a description": (root({"x": {"description": "d"}}), "x may be anything"),
    "true": (root({"x": True}), "x may be anything"),
    "any items": (root({"x": {"type": "array"}}), "x has items of any type"),
    "items of anything": (root({"x": {"type": "array", "items": {}}}), "x[] may be anything"),
    "tuple": (
        root({"x": {"type": "array", "prefixItems": [STR, INT]}}),
        "x uses prefixItems",
    ),
    "not": (root({"x": {"type": "string", "not": {"const": "a"}}}), "x uses not"),
    "pattern properties": (
        root({"a": {"type": "array", "items": {"type": "object", "patternProperties": {}}}}),
        "a[] uses patternProperties",
    ),
    "conditions": (root({"x": {"type": "string", "if": STR, "then": STR}}), "x uses if, then"),
    "several allOf": (root({"x": {"allOf": [STR, STR]}}), "x combines schemas with allOf"),
    "conflicting allOf": (
        root({"x": {"allOf": [STR], "type": "integer"}}),
        "x combines schemas with allOf",
    ),
    "unknown type": (root({"x": {"type": "text"}}), "x has no type"),
    "no type": (root({"x": {"minimum": 3}}), "x has no type"),
    "array root": ({"type": "array", "items": STR}, "the root is not an object"),
    "union root": ({"anyOf": [root({}), root({})]}, "the root is not an object"),
    "outside reference": (
        root({"x": {"$ref": "https://example.com/x.json"}}),
        "x refers to 'https://example.com/x.json', which is not a definition",
    ),
    "missing definition": (root({"x": {"$ref": "#/$defs/Y"}}), "x refers to '#/$defs/Y'"),
    "root refers to itself": ({"$ref": "#"}, "the root refers to itself"),
    "root in circles": (
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}},
        "the root refers to itself",
    ),
    "properties beside a reference": (
        root(
            {"x": {"$ref": "#/$defs/A", **root({"b": STR})}}, **{"$defs": {"A": root({"a": STR})}}
        ),
        "x combines $ref with properties, required, type",
    ),
    "properties beside anyOf": (
        root({"x": {**root({"a": STR}), "anyOf": [{"required": ["a"]}, root({})]}}),
        "x combines anyOf with properties, required",
    ),
    "properties beside oneOf": (
        root({"x": {"properties": {"a": STR}, "oneOf": [root({"b": STR})]}}),
        "x combines oneOf with properties",
    ),
    "properties beside an allOf of a reference": (
        root({"x": {"properties": {"b": STR}, "allOf": [{"$ref": "#"}]}}),
        "x combines $ref with properties",
    ),
    "a closed object beside allOf": (
        root({"x": {"additionalProperties": False, "allOf": [root({"a": STR})]}}),
        "x combines schemas with allOf",
    ),
    "a limit beside a reference": (
        root({"x": {"$ref": "#/$defs/A", "minimum": 3}}, **{"$defs": {"A": INT}}),
        "x combines $ref with minimum",
    ),
    "a condition below allOf": (root({"x": {"allOf": [{**STR, "not": STR}]}}), "x uses not"),
    "an undeclared required name": (
        root({"x": root({"a": STR}, "a", "b")}),
        "x requires 'b' without describing it",
    ),
    "an undeclared required name of the root": (
        root({"a": STR}, "b"),
        "the root requires 'b' without describing it",
    ),
    "a root of anyOf": (root({}) | {"anyOf": [root({}), root({})]}, "the root combines anyOf"),
    "a typed root of anyOf": ({"type": "object", "anyOf": [root({})]}, "the root is a union"),
    "a typed root of oneOf": ({"type": "object", "oneOf": [root({})]}, "the root is a union"),
    "a root that refers to a union": (
        {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "anyOf": [root({})]}}},
        "the root is",
    ),
    "oneOf that overlaps": (
        root({"x": {"oneOf": [INT, {"type": "number"}]}}),
        "x uses oneOf for schemas that may match the same value",
    ),
    "no value of the type": (root({"x": {"type": "string", "enum": [1]}}), "x allows no value"),
    "objects as values": (
        root({"x": {**root({"a": INT}), "enum": [{"a": 1}]}}),
        "x allows only certain objects or arrays",
    ),
    "a definition with two meanings": (
        root({"x": {"$ref": "#/$defs/A"}}, **{"$defs": {"A": STR}, "definitions": {"A": INT}}),
        "x refers to 'A', which is defined twice",
    ),
    "a scope of its own": (root({"x": {**STR, "$id": "https://example.com/x"}}), "x uses $id"),
    "many values in all": (
        root({f"p{i}": {"enum": [f"{i}.{n}" for n in range(500)]} for i in range(3)}),
        "it has more than 1,000 allowed values",
    ),
    "one value too many with null": (
        root({"x": {"enum": list(range(1_000))}}),
        "it has more than 1,000 allowed values",
    ),
    "a long enum": (
        root({"x": {"enum": [f"{n:061}" for n in range(251)]}}, "x"),
        "it has an enum of more than 250 values with more than 15,000 characters",
    ),
    "long names": (
        root({f"{n:0401}": STR for n in range(300)}),
        "it has more than 120,000 characters of names and allowed values",
    ),
    "long constants": (
        root({"x": {"anyOf": [{"const": f"{n:0401}"} for n in range(300)]}}),
        "it has more than 120,000 characters of names and allowed values",
    ),
    "many values": (root({"x": {"enum": list(range(1_001))}}), "it has more than 1,000 allowed"),
    "many properties": (
        root({f"p{i}": STR for i in range(5_001)}),
        "it has more than 5,000 properties",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_without_a_strict_form_is_refused_with_the_reason(name: str) -> None:
    """The reason names the place and the keyword."""
    schema, reason = REFUSED[name]
    with pytest.raises(NotStrict) as caught:
        strict_form(schema)
    assert reason in str(caught.value)


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = STR
    for _ in range(levels):
        schema = root({"x": schema}, "x")
    return schema


def test_ten_levels_are_the_limit() -> None:
    """The depth limit counts objects and arrays from the root on."""
    assert strict_form(nested(10))["properties"]["x"]["type"] == "object"
    with pytest.raises(NotStrict, match="more than 10 levels"):
        strict_form(nested(11))


def test_what_a_field_tells_apart_is_strict() -> None:
    """A oneOf whose members differ in a required constant cannot match twice."""

    def member(kind: str) -> dict[str, Any]:
        return root({"kind": {"const": kind, "type": "string"}, "n": INT}, "kind", "n")

    defs = {"A": member("a"), "B": member("b")}
    union = {"oneOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]}
    form = strict_form(root({"x": union}, "x", **{"$defs": defs}))
    assert form["properties"]["x"] == {"anyOf": union["oneOf"]}


NODE = root({"next": {"$ref": "#/$defs/Node"}, "value": INT}, "value")


def test_recursive_definitions_stay_references() -> None:
    """An optional reference becomes an anyOf with null."""
    form = strict_form(
        root({"first": {"$ref": "#/$defs/Node"}}, "first", **{"$defs": {"Node": NODE}})
    )
    assert form == strict(
        {"first": {"$ref": "#/$defs/Node"}},
        **{
            "$defs": {
                "Node": strict({"next": {"anyOf": [{"$ref": "#/$defs/Node"}, NULL]}, "value": INT})
            }
        },
    )


def test_a_recursive_root_is_inlined_once() -> None:
    """The root must not be a reference; its definition stays for the recursion."""
    form = strict_form({"$ref": "#/$defs/Node", "$defs": {"Node": NODE}, "description": "A list."})
    node = {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, NULL]}, "value": INT}
    assert form == strict(node, description="A list.", **{"$defs": {"Node": strict(node)}})


def test_a_reference_to_the_root() -> None:
    """Servers accept the reference `#`."""
    form = strict_form(root({"inner": {"$ref": "#"}}))
    assert form == strict({"inner": {"anyOf": [{"$ref": "#"}, NULL]}})


def test_a_reference_with_siblings_is_wrapped() -> None:
    """A `$ref` must have no siblings, so they move to a schema around it."""
    schema = root({"x": {"$ref": "#/definitions/A", "description": "An A."}}, "x")
    form = strict_form({**schema, "definitions": {"A": STR, "Unused": INT}})
    assert form == strict(
        {"x": {"description": "An A.", "anyOf": [{"$ref": "#/$defs/A"}]}}, **{"$defs": {"A": STR}}
    )


def test_reference_bombs_are_refused_quickly() -> None:
    """Definitions that double at every level are counted, not expanded."""
    defs = {f"D{i}": root({n: {"$ref": f"#/$defs/D{i + 1}"} for n in "ab"}) for i in range(8)}
    wide = {f"p{i}": {"type": "string"} for i in range(30)}
    bomb = root({"x": {"$ref": "#/$defs/D0"}}, **{"$defs": {**defs, "D8": root(wide)}})
    with pytest.raises(NotStrict, match="more than 5,000 properties"):
        strict_form(bomb)
    deep = {f"D{i}": root({n: {"$ref": f"#/$defs/D{i + 1}"} for n in "ab"}) for i in range(60)}
    with pytest.raises(NotStrict, match="more than 10 levels"):
        strict_form(root({"x": {"$ref": "#/$defs/D0"}}, **{"$defs": {**deep, "D60": STR}}))


def test_data_that_looks_like_a_schema_is_unchanged() -> None:
    """Values of enum and default are data, whatever their keys."""
    values = [{"$ref": "#/nowhere"}, {"type": "no type"}]
    schema = root({"x": {"type": "string", "enum": ["$ref"], "examples": values}}, "x")
    assert strict_form(schema)["properties"]["x"]["enum"] == ["$ref"]


def test_the_input_is_not_changed() -> None:
    """The conversion does not mutate its argument."""
    schema = root({"x": {"type": "string", "default": "a", "title": "T"}})
    strict_form(schema)
    assert schema == root({"x": {"type": "string", "default": "a", "title": "T"}})


schemas = st.recursive(
    st.sampled_from([STR, INT, {"type": "boolean"}, {"enum": ["a", 1]}, {"const": 3}, NULL])
    | st.just({"type": "string", "format": "uri", "minLength": 2, "default": "xy"}),
    lambda inner: (
        st.builds(lambda one: {"type": "array", "items": one}, inner)
        | st.builds(lambda some: {"anyOf": some}, st.lists(inner, min_size=1, max_size=3))
        | st.builds(
            lambda some, required: root(some, *(name for name in some if name in required)),
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            st.sets(st.sampled_from("abc")),
        )
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from("xyz"), schemas, max_size=3))
def test_law_a_strict_form_is_a_fixed_point(properties: dict[str, Any]) -> None:
    """A strict form is valid JSON Schema, closed, and its own strict form."""
    try:
        form = strict_form(root(properties))
    except NotStrict as reason:
        assert str(reason)  # noqa: PT017  a refusal is as good, if it says something
        return
    jsonschema_rs.meta.validate(form)
    assert form["required"] == list(form["properties"])
    assert form["additionalProperties"] is False
    assert strict_form(form) == form
