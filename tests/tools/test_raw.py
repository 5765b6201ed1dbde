"""Tools from raw JSON Schemas."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from agentkit.errors import InvalidArguments, InvalidTool
from agentkit.tools import RunContext, Tool
from agentkit.tools.signature import describe

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


def plan_tool(schema: dict[str, Any] = SCHEMA, fn: Any = echo, **options: Any) -> Tool[..., Any]:
    return Tool.from_schema("plan", "Plan a trip.", schema, fn, **options)


async def test_the_schema_is_what_the_model_sees() -> None:
    """Name, description and schema are unchanged; strict only if the schema allows it."""
    tool = plan_tool(strict=False)
    assert (tool.name, tool.description, tool.parameters) == ("plan", "Plan a trip.", SCHEMA)
    assert plan_tool().strict
    assert plan_tool().parameters["required"] == ["city", "days", "units", "stops", "when"]


async def test_valid_arguments_pass_unchanged() -> None:
    """Nothing is converted without need, and defaults are the function's."""
    assert await plan_tool().call('{"city": "Paris", "days": 2}') == {"city": "Paris", "days": 2}
    assert await plan_tool().call('{"city": "Rome", "stops": [{"name": "x", "fee": null}]}') == {
        "city": "Rome",
        "stops": [{"name": "x", "fee": None}],
    }


async def test_nulls_of_the_strict_form_are_left_out() -> None:
    """Null for an optional property leaves it out, at any depth."""
    sent = '{"city": "Rome", "days": null, "units": null, "stops": null, "when": null}'
    assert await plan_tool().call(sent) == {"city": "Rome"}


async def test_text_is_converted_to_a_number_or_array() -> None:
    """Text with only one meaning is converted."""
    parsed = plan_tool().parse('{"city": "Rome", "days": "3", "stops": "[{\\"name\\": \\"x\\"}]"}')
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
async def test_invalid_arguments_are_refused_with_a_pointer(name: str) -> None:
    """The model reads a JSON pointer and what was expected, never what was sent."""
    sent, text = REFUSED[name]
    with pytest.raises(InvalidArguments) as caught:
        plan_tool().parse(sent)
    assert text in str(caught.value)
    assert "kelvin" not in str(caught.value)
    assert "later" not in str(caught.value)


async def test_the_context_is_injected_by_annotation() -> None:
    """The function's annotation decides; the schema does not mention the context."""

    def plan(context: RunContext[str], city: str, days: int = 1) -> Any:
        return context.deps, city, days

    schema = {"type": "object", "properties": {"city": {}, "days": {}}, "required": ["city"]}
    assert await plan_tool(schema, plan).call('{"city": "x"}', RunContext(deps="d")) == (
        "d",
        "x",
        1,
    )


async def test_open_schemas_and_closed_functions() -> None:
    """The model reads what the function does not take, even if the schema allows it."""

    def plan(city: str) -> str:
        return city

    tool = plan_tool({"properties": {"city": {"type": "string"}}, "required": ["city"]}, plan)
    with pytest.raises(InvalidArguments, match=r"- /town: no such property\. Properties: city"):
        tool.parse('{"city": "x", "town": 1}')
    assert await plan_tool({}, echo).call('{"anything": [1]}') == {"anything": [1]}


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
    "bad pattern by name": (
        {"properties": {"a": {"pattern": "(a"}}},
        echo,
        "not valid at /properties/a/pattern: '(a' is not a valid regular expression",
    ),
    "null properties": ({"properties": None}, echo, "not valid at /properties: null is not"),
    "listed properties": ({"properties": []}, echo, "not valid at /properties: [] is not"),
    "null below": (
        {"properties": {"a": {"type": "object", "properties": None}}},
        echo,
        "not valid at /properties/a/properties: null is not",
    ),
    "null required": ({"required": None}, echo, "not valid at /required: null is not"),
    "required as an object": ({"required": {"a": 1}}, echo, "not valid at /required"),
    "null definitions": ({"$defs": None}, echo, "not valid at /$defs: null is not"),
    "null property": ({"properties": {"a": None}}, echo, "not valid at /properties/a: null is"),
    "unquoted name": ({"properties": {1: {}}}, echo, "key must be str"),
    "not a JSON number": ({"default": float("nan")}, echo, "not JSON compliant"),
    "no JSON": ({"default": {1}}, echo, "set is not JSON serializable"),
    "pattern of a name": (
        {"patternProperties": {"[": {}}},
        echo,
        "not valid",
    ),
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
        f"does not require 'extra', which {describe(needs_more)} needs",
    ),
    "function takes less": (
        CITY,
        takes_less,
        f"has 'city', which {describe(takes_less)} does not take",
    ),
    "context": (
        CITY,
        takes_context,
        f"has 'city', which {describe(takes_context)} takes from the run",
    ),
}


@pytest.mark.parametrize("name", INVALID)
async def test_a_schema_is_checked_when_the_tool_is_made(name: str) -> None:
    """Errors are raised before any run, and nothing is fetched."""
    schema, fn, text = INVALID[name]
    with pytest.raises(InvalidTool) as caught:
        plan_tool(schema, fn)
    assert text in str(caught.value)
    assert "plan" in str(caught.value)


async def test_properties_may_have_numbers_for_names() -> None:
    """A problem at one of them is repaired or explained as any other."""
    schema = {
        "type": "object",
        "properties": {
            "1": {"type": "string"},
            "01": {"type": "integer"},
            "2": {
                "type": "array",
                "items": {"type": "object", "properties": {"3": {"type": "null"}}},
            },
        },
    }
    tool = plan_tool(schema)
    assert await tool.call('{"1": null, "2": [{"3": null}]}') == {"2": [{"3": None}]}
    assert await tool.call('{"2": "[]"}') == {"2": []}
    assert await tool.call('{"01": "7"}') == {"01": 7}
    with pytest.raises(InvalidArguments, match="- /2/0/3: expected null"):
        tool.parse('{"2": [{"3": 1}]}')
    with pytest.raises(InvalidArguments, match="- /1: expected string"):
        tool.parse('{"1": 1}')


async def test_nulls_are_left_out_as_one_branch_of_a_union_wants_it() -> None:
    """A null that this branch requires stays, whatever other branches say of it."""
    text, null = {"type": "string"}, {"type": "null"}
    first = {"type": "object", "properties": {"tag": {"const": 1}, "a": text}, "required": ["tag"]}
    keys = {"tag": {"const": 2}, "a": null, "c": text}
    second = {"type": "object", "properties": keys, "required": ["tag", "a"]}
    tool = plan_tool({"properties": {"x": {"anyOf": [first, second]}}, "required": ["x"]})
    sent = '{"x": {"tag": 2, "a": null, "c": null}}'
    assert await tool.call(sent) == {"x": {"tag": 2, "a": None}}


PATTERNS = {
    "^a}$": "a}",
    "^{a}$": "{a}",
    "^a{$": "a{",
    "^{{a{2}}}$": "{{aa}}",
    "^[{}]+$": "{}",
    r"^\{\p{L}{2}\}$": "{ab}",
    "^a{,3}$": "a{,3}",
}


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("draft", ["", "http://json-schema.org/draft-07/schema#"])
async def test_a_brace_in_a_pattern_may_stand_for_itself(pattern: str, draft: str) -> None:
    """Python and JavaScript read it so; the model sees it as it was written."""
    schema: dict[str, Any] = {"$schema": draft} if draft else {}
    schema |= {"type": "object", "properties": {"x": {"type": "string", "pattern": pattern}}}
    tool = plan_tool(schema)
    shown = (*tool.parameters["properties"]["x"].items(),)
    assert ("pattern", pattern) in shown
    assert await tool.call(json.dumps({"x": PATTERNS[pattern]})) == {"x": PATTERNS[pattern]}
    with pytest.raises(InvalidArguments):
        tool.parse('{"x": "other"}')


async def test_a_brace_in_the_pattern_of_a_name() -> None:
    """The names of `patternProperties` are patterns too."""
    tool = plan_tool({"patternProperties": {"^{.}$": {"type": "integer"}}})
    assert await tool.call('{"{a}": 1}') == {"{a}": 1}
    with pytest.raises(InvalidArguments, match="expected integer"):
        tool.parse('{"{a}": []}')


async def test_a_reference_to_the_root_keeps_its_meaning() -> None:
    """That a tool takes an object says nothing of what the reference describes."""
    schema = {"properties": {"inner": {"$ref": "#"}, "n": {"type": "integer"}}}
    tool = plan_tool(schema)
    assert await tool.call('{"inner": "any text"}') == {"inner": "any text"}
    with pytest.raises(InvalidArguments, match="/inner/inner/n: expected integer"):
        tool.parse('{"inner": {"inner": {"n": "x"}}}')
    assert tool.parameters["type"] == "object"
    sent = jsonschema_rs.validator_for(tool.parameters)
    for value in ({"inner": "any text"}, {"inner": {"inner": [1]}}, {"inner": {"n": "x"}}):
        assert sent.is_valid(value) is jsonschema_rs.validator_for(schema).is_valid(value)


async def test_the_schema_around_a_reference_stays_alone() -> None:
    """A root that refers to its definition gets no properties of its own, and is strict."""
    tool = plan_tool({"$ref": "#/$defs/A", "$defs": {"A": {**CITY, "additionalProperties": False}}})
    assert tool.strict
    assert tool.parameters["properties"] == CITY["properties"]


DRAFTS = {
    "draft/2020-12": {"prefixItems": [{"type": "integer"}], "items": False},
    "draft/2019-09": {"items": [{"type": "integer"}], "additionalItems": False},
    "draft-07": {"items": [{"type": "integer"}], "additionalItems": False},
    "draft-06": {"items": [{"type": "integer"}], "additionalItems": False},
    "draft-04": {"items": [{"minimum": 0, "exclusiveMinimum": True}], "additionalItems": False},
}


@pytest.mark.parametrize("draft", DRAFTS)
async def test_the_schema_selects_its_draft(draft: str) -> None:
    """`$schema` selects the rules."""
    schema = {
        "$schema": f"http{'s' if '20' in draft else ''}://json-schema.org/{draft}/schema"
        + ("" if "20" in draft else "#"),
        "type": "object",
        "properties": {"x": {"type": "array", **DRAFTS[draft]}},
    }
    tool = plan_tool(schema)
    assert await tool.call('{"x": [1]}') == {"x": [1]}
    with pytest.raises(InvalidArguments):
        tool.parse('{"x": [1, 2]}')
    with pytest.raises(InvalidArguments):
        tool.parse('{"x": [0]}' if draft == "draft-04" else '{"x": ["a"]}')
