"""A tool's value as the model reads it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentkit.errors import ToolError
from agentkit.messages import FilePart, ImagePart, TextPart
from agentkit.tools.render import cut, render


@dataclasses.dataclass
class Point:
    x: int
    at: dt.date


class Model(BaseModel):
    name: str
    price: decimal.Decimal


class Color(enum.Enum):
    RED = "red"


class Text(str):
    __slots__ = ()


VALUES: list[tuple[Any, str]] = [
    ("as it is", "as it is"),
    ("", ""),
    (Text("sub"), "sub"),
    (None, "null"),
    (True, "true"),
    (3, "3"),
    (2.5, "2.5"),
    (float("nan"), '"NaN"'),
    ([1, "é"], '[1,"é"]'),
    ({"a": (1, 2)}, '{"a":[1,2]}'),
    ({1: "x"}, '{"1":"x"}'),
    ({7}, "[7]"),
    (Point(1, dt.date(2026, 1, 31)), '{"x":1,"at":"2026-01-31"}'),
    (Model(name="n", price=decimal.Decimal("1.50")), '{"name":"n","price":"1.50"}'),
    ([Model(name="n", price=decimal.Decimal(1))], '[{"name":"n","price":"1"}]'),
    (dt.timedelta(hours=1), '"PT1H"'),
    (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    (Color.RED, '"red"'),
    (b"\xff\x00", '"_wA="'),
    (10**30, "1000000000000000000000000000000"),
]


@pytest.mark.parametrize(("value", "text"), VALUES, ids=[repr(value)[:40] for value, _ in VALUES])
def test_values_are_rendered_as_json(value: Any, text: str) -> None:
    """Text is unchanged, and everything else is encoded by pydantic."""
    assert render(value, None) == text


IMAGE, FILE = ImagePart(url="https://example.com/a.png"), FilePart(file_id="f1")


def test_content_parts_pass_as_parts() -> None:
    """A part, or a sequence of parts and text, stays parts."""
    assert render(IMAGE, None) == (IMAGE,)
    assert render([IMAGE, "seen", FILE], 100) == (IMAGE, TextPart(text="seen"), FILE)
    assert render((TextPart(text="a"),), None) == (TextPart(text="a"),)
    assert render(["a", "b"], None) == '["a","b"]'


class Socket:
    """Has no JSON form."""


@dataclasses.dataclass
class Holder:
    items: dict[str, Any]


LOOP: list[Any] = [1]
LOOP.append(LOOP)

UNFIT: list[tuple[Any, str]] = [
    (Socket(), "result is of type Socket"),
    ([1, {"a": Socket()}], "result[1]['a'] is of type Socket"),
    (Holder({"k": [Socket()]}), "result.items['k'][0] is of type Socket"),
    (LOOP, "result[1] contains itself"),
    (["\ud800"], "result[0] is text that is not valid Unicode"),
]


@pytest.mark.parametrize(("value", "text"), UNFIT, ids=[text for _, text in UNFIT])
def test_a_value_without_a_json_form_is_refused_with_its_part(value: Any, text: str) -> None:
    """The error names the place in the value, and the reason."""
    with pytest.raises(ToolError) as caught:
        render(value, None)
    assert text in str(caught.value)


def test_long_text_is_cut_with_a_note() -> None:
    """A note says how much is missing."""
    assert render("x" * 10, 10) == "x" * 10
    assert render("x" * 1_010, 10) == ("xxxxxxxxxx\n[cut here: 1,000 of 1,010 bytes are not shown]")
    assert render("éééé", 5) == "éé\n[cut here: 4 of 8 bytes are not shown]"
    assert render([1] * 100, 4) == "[1,1\n[cut here: 197 of 201 bytes are not shown]"


def test_parts_share_the_limit() -> None:
    """The limit counts the text of all parts; other parts are unchanged."""
    assert render(["abcdef", IMAGE, "ghi"], 8) == (
        TextPart(text="abcdef"),
        IMAGE,
        TextPart(text="gh\n[cut here: 1 of 3 bytes are not shown]"),
    )


def test_text_that_is_not_unicode() -> None:
    """A lone surrogate cannot be sent; it becomes a question mark."""
    assert render("a\ud800b", None) == "a?b"


@given(st.text(), st.integers(0, 40))
def test_law_cut_text_is_a_prefix(text: str, size: int) -> None:
    """Cut text is a prefix of whole characters, as long as the limit allows."""
    shown = cut(text, size)
    if len(text.encode()) <= size:
        assert shown == text
    else:
        kept, _, note = shown.rpartition("\n")
        assert text.startswith(kept)
        assert size - 4 < len(kept.encode()) <= size
        assert json.dumps(note).startswith('"[cut here')


def test_sets_are_sorted() -> None:
    """Wherever they stand in a result: their own order differs from process to process."""

    class Team(BaseModel):
        names: set[str]

    names = {"eve", "ada", "bob", "dan", "cyd", "fay"}
    expected = '["ada","bob","cyd","dan","eve","fay"]'
    assert render(names, None) == expected
    assert render({"a": [frozenset(names)]}, None) == f'{{"a":[{expected}]}}'
    assert render([Team(names=names)], None) == f'[{{"names":{expected}}}]'
