# ruff: noqa: RUF001  typographic quotes are among what is repaired
"""The JSON text of a model: unchanged if valid, repaired if unambiguous, refused otherwise."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.errors import InvalidArguments
from agentkit.schema.repair import decode, load
from agentkit.tools import tool

WHOLE = {"city": "Paris", "n": 2, "on": True, "x": None}

REPAIRED = {
    "fence": ('```json\n{"a": 1}\n```', {"a": 1}, "a code fence around it"),
    "bare fence": ('```\n{"a": 1}\n```', {"a": 1}, "a code fence around it"),
    "prose": ('Here you are: {"a": 1}', {"a": 1}, "text around it"),
    "prose with apostrophe": ('I\'ll call it: {"a": 1}. Done!', {"a": 1}, "text around it"),
    "trailing comma": (
        '{"a": [1, 2,], "b": {"c": 3,},}',
        {"a": [1, 2], "b": {"c": 3}},
        "a trailing",
    ),
    "trailing comma and space": ('{"a": 1, "b": [2, ], }', {"a": 1, "b": [2]}, "a trailing"),
    "stray brace": ('{"a": {"b": 1}}}', {"a": {"b": 1}}, "a stray closing brace"),
    "stray brace on a line": ('{"a": 1}\n}\n', {"a": 1}, "a stray closing brace"),
    "stray bracket": ('{"a": 1}]', {"a": 1}, "a stray closing brace"),
    "stray brace in a fence": ('```json\n{"a": 1}}\n```', {"a": 1}, "a stray closing brace"),
    "stray brace of a damaged object": ("{'a': 1,}}", {"a": 1}, "a stray closing brace"),
    "comments": (
        '{ // don\'t { mind\n"a": "http://x", /* } */ "b": 1 # too\n}',
        {"a": "http://x", "b": 1},
        "a comment",
    ),
    "comment behind a comma": ('{"a": 1, // one\n}', {"a": 1}, "a comment"),
    "smart quotes around keys": ('{“a”: 1, ‘b’: "“x”"}', {"a": 1, "b": "“x”"}, "typographic"),
    "smart quotes around values": ("{“a”: “it’s”, „b“: [”x”]}", {"a": "it’s", "b": ["x"]}, "typog"),
    "smart quote closed by a straight one": ('{“a": 1}', {"a": 1}, "typographic"),
    "single quotes": (
        "{'a': 'x', 'b': 'say \"hi\"'}",
        {"a": "x", "b": 'say "hi"'},
        "single quotes",
    ),
    "escaped apostrophe": ("{'a': 'it\\'s'}", {"a": "it's"}, "single quotes"),
    "wrong escape": ('{"a": "it\\\'s"}', {"a": "it's"}, "a wrong escape"),
    "python": ("{'a': True, 'b': False, 'c': None}", {"a": True, "b": False, "c": None}, "Python"),
    "python in JSON": ('{"a": True}', {"a": True}, "Python literals"),
    "keys without quotes": ('{a: 1, $b_2: "x"}', {"a": 1, "$b_2": "x"}, "a key without quotes"),
    "line break": ('{"a": "one\ntwo\tthree"}', {"a": "one\ntwo\tthree"}, "line breaks"),
    "encoded twice": (json.dumps(json.dumps({"a": 'x"y'})), {"a": 'x"y'}, "encoded twice"),
    "encoded twice, damaged": (json.dumps("{'a': 1,}"), {"a": 1}, "encoded twice"),
    "byte order mark": ('\ufeff{"a": 1}', {"a": 1}, "text around it"),
    "words in strings": ("{'a': 'True, None,}'}", {"a": "True, None,}"}, "single quotes"),
    "empty": ("", {}, "read as an empty object"),
    "blank": (" \n", {}, "read as an empty object"),
    "null": ("null", {}, "read as an empty object"),
    "None": ("None", {}, "read as an empty object"),
    "empty text": ('""', {}, "read as an empty object"),
    "equal twice": ("{'a': 1, 'a': 1}", {"a": 1}, "single quotes"),
}

REFUSED = {
    "cut off": ('{"city": "Paris", "n": ', "cut off after 22 characters"),
    "cut off in a string": ('{"city": "Par', "cut off"),
    "cut off in an array": ('{"a": [1, 2', "cut off"),
    "cut off after prose": ("Sure: {'a': 'x", "cut off"),
    "two objects": ('{"a": 1}{"a": 2}', "several JSON values"),
    "two objects on lines": ('{"a": 1}\n{"b": 2}', "several JSON values"),
    "object after array": ('[1] {"a": 1}', "several JSON values"),
    "two stray braces": ('{"a": 1}}}', "there are other brackets around it"),
    "a stray brace and prose": ('{"a": 1}} thanks', "there are other brackets around it"),
    "prose in brackets": ('{"a": 1} [end]', "there are other brackets around it"),
    "the beginning of another": ('{"a": 1}{"b":', "there are other brackets around it"),
    "another in single quotes": ("{\"a\": 1}{'b': 2}", "several JSON values"),
    "a wrong brace within": ('{"a": [1]]}', "Invalid JSON"),
    "an apostrophe in curly quotes": ("{‘a’: ‘L’Aquila’}", "Invalid JSON"),
    "an open comment": ('{"a": 1 // }', "cut off"),
    "two values for one key": ('{"a": 1, "a": 2}', "the key 'a' appears twice"),
    "two values for one nested key": (
        '{"x": {"a": 1, "a": true}}',
        "the key 'a' appears twice",
    ),
    "two values, damaged": ("{'a': 1, 'a': 2}", "the key 'a' appears twice"),
    "apostrophe in single quotes": ("{'a': 'it's'}", "Invalid JSON"),
    "quote in double quotes": ('{"a": "say "hi" now"}', "Invalid JSON"),
    "word": ('{"a": yes}', "Invalid JSON"),
    "NaN": ('{"a": NaN}', "NaN is not a JSON value"),
    "too large a number": ('{"a": 1e999}', "a number is too large"),
    "infinity": ('{"a": -Infinity}', "Invalid JSON"),
    "missing comma": ('{"a": 1 "b": 2}', "Invalid JSON"),
    "missing value": ('{"a": , "b": 2}', "Invalid JSON"),
    "only a comma": ('{"a": [,]}', "Invalid JSON"),
    "two commas": ('{"a": [1,,]}', "Invalid JSON"),
    "concatenation": ("{'a': 'x' 'y'}", "Invalid JSON"),
    "set": ("{'a', 'b'}", "Invalid JSON"),
    "None as a key": ("{None: 1}", "Invalid JSON"),
    "array": ("[1, 2]", "Expected one JSON object, not an array"),
    "number": ("3", "not a number"),
    "boolean": ("true", "not a boolean"),
    "prose only": ("I cannot do that.", "Invalid JSON"),
    "encoded three times": (json.dumps(json.dumps(json.dumps({"a": 1}))), "not a string"),
    "too deep": ('{"a":' * 100_000, "nested too deeply"),
    "surrogate": ('{"a": \\ud800}', "Invalid JSON"),
    "template": ("Use {name} for {city}", "Invalid JSON"),
}


@pytest.mark.parametrize("text", ["]", "[", "}]", '"', "\\", "a"])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_brackets_in_strings_hide_no_depth(text: str, separators: tuple[str, str]) -> None:
    """128 levels below the first are read and 129 are not, whatever the strings hold."""
    value: dict[str, object] = {"a": [[text]] * 100}
    for level in range(126):
        value = {text: value, "z": [text, []]} if level % 2 else {"z": [text], text: value}
    assert load(json.dumps(value, separators=separators)) == (value, ())
    with pytest.raises(InvalidArguments, match="nested too deeply"):
        load(json.dumps({"b": value}, separators=separators))


def test_valid_json_passes_untouched() -> None:
    """Valid JSON needs no repair, and keeps its value whatever its white space."""
    assert load(json.dumps(WHOLE)) == (WHOLE, ())
    assert load(f"\n  {json.dumps(WHOLE, indent=2)}\n") == (WHOLE, ())
    assert load('{"a": 1, "a": 1}') == ({"a": 1}, ())


@pytest.mark.parametrize("name", REPAIRED)
def test_unambiguous_damage_is_repaired_and_named(name: str) -> None:
    """The intended value is returned, with a note of the repair."""
    text, value, note = REPAIRED[name]
    loaded, repairs = load(text)
    assert loaded == value
    assert any(note in repair for repair in repairs)


@tool
def echo(**arguments: Any) -> Any:
    """Take any JSON object."""
    return arguments


@pytest.mark.parametrize("name", REFUSED)
def test_ambiguous_or_truncated_text_is_refused(name: str) -> None:
    """The tool does not run, and the model reads why."""
    text, message = REFUSED[name]
    with pytest.raises(InvalidArguments) as caught:
        load(text)
    assert message in str(caught.value)
    with pytest.raises(InvalidArguments, match="The tool was not run"):
        echo.parse(text)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=5)


@given(json_objects)
def test_law_valid_json_is_unchanged(value: dict[str, Any]) -> None:
    """JSON written by Python is read back equal, without a repair."""
    assert load(json.dumps(value)) == (value, ())


@given(json_objects, st.data())
def test_law_a_truncated_object_is_refused(value: dict[str, Any], data: st.DataObject) -> None:
    """No proper prefix of an object is accepted as one."""
    text = json.dumps(value)
    end = data.draw(st.integers(1, len(text) - 1))
    with pytest.raises(InvalidArguments):
        load(text[:end])


plain_text = st.text(
    st.characters(codec="ascii", categories=("L", "N", "Zs")) | st.sampled_from(",:'")
)
plain_objects = st.dictionaries(
    plain_text,
    st.recursive(
        st.none() | st.booleans() | st.integers() | plain_text,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_text, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@given(plain_objects)
def test_law_python_literals_are_read_as_python_reads_them(value: dict[str, Any]) -> None:
    """The `repr` of an object is read as the object."""
    assert load(repr(value))[0] == value


@given(st.text())
def test_law_any_text_is_parsed_or_refused(text: str) -> None:
    """Any text is either an object or refused with InvalidArguments."""
    with contextlib.suppress(InvalidArguments):
        assert isinstance(load(text)[0], dict)


def _python(text: str) -> Any:
    """What Python's own reader makes of a text, strict as we are; or the kind of its refusal."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        read = dict(items)
        if any(repr(read[key]) != repr(value) for key, value in items):
            raise InvalidArguments("a key twice")
        return read

    def number(text: str) -> float:
        if math.isinf(value := float(text)):
            raise ValueError("too large")
        return value

    def constant(name: str) -> Any:
        raise ValueError(name)

    decoder = json.JSONDecoder(object_pairs_hook=pairs, parse_constant=constant, parse_float=number)
    try:
        return repr(decoder.decode(text))
    except (ValueError, InvalidArguments) as error:
        return isinstance(error, InvalidArguments)


def _ours(text: str) -> Any:
    try:
        return repr(decode(text))
    except (ValueError, InvalidArguments) as error:
        return isinstance(error, InvalidArguments)


_scraps = st.sampled_from(
    r"""
    "a": "a" "\u0022" "\ud800" "\"" 1 1.0 -0 1e400 -1E999 NaN Infinity "Infinity"
    99999999999999999999 01 [ ] { } , , true
    """.split()
)


@given(st.lists(_scraps, max_size=14).map("".join) | json_values.map(json.dumps))
def test_law_the_fast_reader_reads_as_pythons_does(text: str) -> None:
    """Keys that come twice, numbers beyond all floats, escapes: the same values and refusals."""
    assert _ours(text) == _python(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1, "a": 1}', "{'a': 1}"),
        ('{"a": 1, "a": 1.0}', True),
        (r'{"a": 1, "a": 2, "b\u0022\u0022": 1}', True),
        (r'{"\u0022": 1}', """{'"': 1}"""),
        (r'{"a": "\ud83d\ude00"}', "{'a': '😀'}"),
        ("[1.7976931348623159e308]", False),
        ("[1.7976931348623157e308]", "[1.7976931348623157e+308]"),
        ('["Infinity"]', "['Infinity']"),
        ("[Infinity]", False),
        ("9" * 4301, False),
        ("[" * 199 + "]" * 199, "[" * 199 + "]" * 199),
        ("[" * 300 + "]" * 300, "[" * 300 + "]" * 300),
    ],
)
def test_where_the_fast_reader_needs_the_slow_one(text: str, value: Any) -> None:
    """Both read the same; a text is the value's repr, False a refusal, True an ambiguity."""
    assert _ours(text) == _python(text) == value
