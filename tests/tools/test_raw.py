"""Tools from raw JSON Schemas."""

from __future__ import annotations

from typing import Any

import pytest

from agentkit.errors import InvalidArguments, InvalidTool
from agentkit.tools import RunContext, Tool

pytestmark = pytest.mark.anyio

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 2},
        "days": {"type": "integer", "minimum": 1},
        "units": {"enum": ["c", "f"]},
        "stops": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "fee": {"type": ["number", "null"]}},
                "required": ["name"],
                "additionalProperties": False,
            },
        },
        "when": {"anyOf": [{"type": "integer"}, {"const": "now"}]},
    },
    "required": ["city"],
    "additionalProperties": False,
}


def echo(**arguments: Any) -> Any:
    return arguments


def made(schema: dict[str, Any] = SCHEMA, fn: Any = echo, **options: Any) -> Tool[..., Any]:
    return Tool.from_schema("plan", "Plan a trip.", schema, fn, **options)


async def test_the_schema_is_what_the_model_sees() -> None:
    """Name, description and schema are as given; strict only where the schema has the form."""
    tool = made(strict=False)
    assert (tool.name, tool.description, tool.parameters) == ("plan", "Plan a trip.", SCHEMA)
    assert made().strict
    assert made().parameters["required"] == ["city", "days", "units", "stops", "when"]


async def test_arguments_that_fit_pass_as_they_came() -> None:
    """Nothing is converted that needs no conversion, and defaults are the function's."""
    assert await made().call('{"city": "Paris", "days": 2}') == {"city": "Paris", "days": 2}
    assert await made().call('{"city": "Rome", "stops": [{"name": "x", "fee": null}]}') == {
        "city": "Rome",
        "stops": [{"name": "x", "fee": None}],
    }


async def test_nulls_of_the_strict_form_are_left_out() -> None:
    """Null for an optional property is "not given", at any depth."""
    sent = '{"city": "Rome", "days": null, "units": null, "stops": null, "when": null}'
    assert await made().call(sent) == {"city": "Rome"}


async def test_text_where_a_number_or_array_is_expected() -> None:
    """It has one meaning."""
    parsed = made().parse('{"city": "Rome", "days": "3", "stops": "[{\\"name\\": \\"x\\"}]"}')
    assert parsed.kwargs == {"city": "Rome", "days": 3, "stops": [{"name": "x"}]}
    assert parsed.repairs == ("a value sent as text: /days", "a value sent as text: /stops")


REFUSED = {
    "type": ('{"city": 5}', "- /city: expected string"),
    "required": ("{}", "- /city: is required"),
    "nested": ('{"city": "ab", "stops": [{"fee": true}]}', "- /stops/0/name: is required"),
    "nested type": ('{"city": "ab", "stops": [{"name": "x", "fee": true}]}', "- /stops/0/fee: exp"),
    "enum": ('{"city": "ab", "units": "kelvin"}', '- /units: expected one of "c", "f"'),
    "limit": ('{"city": "ab", "days": 0}', "- /days: it is less than the minimum of 1"),
    "length": ('{"city": "a"}', "- /city: it is shorter than 2 characters"),
    "union": (
        '{"city": "ab", "when": "later"}',
        '- /when: expected integer; or expected "now"',
    ),
    "unknown": (
        '{"citi": "ab", "city": "ab"}',
        "- /citi: no such property; did you mean 'city'? Properties: city, days",
    ),
    "unknown inside": (
        '{"city": "ab", "stops": [{"name": "x", "fees": 1}]}',
        "- /stops/0/fees: no such property; did you mean 'fee'? Properties: name, fee",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_does_not_fit_is_refused_with_a_pointer(name: str) -> None:
    """A JSON pointer, what was expected, and never what was sent."""
    sent, text = REFUSED[name]
    with pytest.raises(InvalidArguments) as caught:
        made().parse(sent)
    assert text in str(caught.value)
    assert "kelvin" not in str(caught.value)
    assert "later" not in str(caught.value)


async def test_the_context_is_injected_by_annotation() -> None:
    """The function's own annotation decides, and the schema knows nothing of it."""

    def plan(context: RunContext[str], city: str, days: int = 1) -> Any:
        return context.deps, city, days

    schema = {"type": "object", "properties": {"city": {}, "days": {}}, "required": ["city"]}
    assert await made(schema, plan).call('{"city": "x"}', RunContext(deps="d")) == ("d", "x", 1)


async def test_open_schemas_and_closed_functions() -> None:
    """What the function does not take is said to the model, also where the schema allows it."""

    def plan(city: str) -> str:
        return city

    tool = made({"properties": {"city": {"type": "string"}}, "required": ["city"]}, plan)
    with pytest.raises(InvalidArguments, match=r"- /town: no such property\. Properties: city"):
        tool.parse('{"city": "x", "town": 1}')
    assert await made({}, echo).call('{"anything": [1]}') == {"anything": [1]}


def needs_more(city: str, extra: int) -> Any: ...


def takes_less(days: int) -> Any: ...


def takes_context(city: RunContext[int]) -> Any: ...


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
INVALID: dict[str, tuple[dict[str, Any], Any, str]] = {
    "unknown type": (
        {"type": "object", "properties": {"a": {"type": "text"}}},
        echo,
        "not valid at",
    ),
    "bad keyword": (
        {"type": "object", "properties": {"a": {"minimum": "x"}}},
        echo,
        "not valid at /properties/a/minimum",
    ),
    "bad pattern": ({"properties": {"a": {"pattern": "("}}}, echo, "/properties/a/pattern"),
    "not an object": ({"type": "array"}, echo, "has type 'array', not 'object'"),
    "unknown draft": ({"$schema": "https://example.com/x"}, echo, "https://example.com/x"),
    "reference outside": (
        {"properties": {"a": {"$ref": "https://example.com/x.json"}}},
        echo,
        "https://example.com/x.json",
    ),
    "missing definition": ({"properties": {"a": {"$ref": "#/$defs/B"}}}, echo, "B"),
    "function needs more": (
        CITY,
        needs_more,
        "does not require parameters of needs_more (test_raw.py:130): extra",
    ),
    "function takes less": (CITY, takes_less, "does not take: city"),
    "context": (CITY, takes_context, "takes from the run: city"),
}


@pytest.mark.parametrize("name", INVALID)
async def test_a_schema_is_checked_on_the_way_in(name: str) -> None:
    """Before any run, and without fetching anything."""
    schema, fn, text = INVALID[name]
    with pytest.raises(InvalidTool) as caught:
        made(schema, fn)
    assert text in str(caught.value)
    assert "plan" in str(caught.value)


DRAFTS = {
    "draft/2020-12": {"prefixItems": [{"type": "integer"}], "items": False},
    "draft/2019-09": {"items": [{"type": "integer"}], "additionalItems": False},
    "draft-07": {"items": [{"type": "integer"}], "additionalItems": False},
    "draft-06": {"items": [{"type": "integer"}], "additionalItems": False},
    "draft-04": {"items": [{"minimum": 0, "exclusiveMinimum": True}], "additionalItems": False},
}


@pytest.mark.parametrize("draft", DRAFTS)
async def test_drafts_are_told_apart(draft: str) -> None:
    """`$schema` says which rules hold."""
    schema = {
        "$schema": f"http{'s' if '20' in draft else ''}://json-schema.org/{draft}/schema"
        + ("" if "20" in draft else "#"),
        "type": "object",
        "properties": {"x": {"type": "array", **DRAFTS[draft]}},
    }
    tool = made(schema)
    assert await tool.call('{"x": [1]}') == {"x": [1]}
    with pytest.raises(InvalidArguments):
        tool.parse('{"x": [1, 2]}')
    with pytest.raises(InvalidArguments):
        tool.parse('{"x": [0]}' if draft == "draft-04" else '{"x": ["a"]}')
