"""Docstrings of every style give the same description and parameters."""

from __future__ import annotations

import datetime
import decimal
from decimal import Decimal
from typing import Any, List, Literal, Optional  # noqa: UP035  as docstrings have it

import pytest

from agentkit.errors import InvalidTool
from agentkit.tools import tool
from agentkit.tools.docstrings import documented_type, parse

GOOGLE = """Search the web.

    Uses the default engine.

    Args:
        query: What to look for,
            in any language.
        limit (int, optional): How many: at most 10.
        *rest: More words.

    Returns:
        The hits, best first.
    """

NUMPY = """Search the web.

    Uses the default engine.

    Parameters
    ----------
    query : str
        What to look for,
        in any language.
    limit : int, optional
        How many: at most 10.
    *rest
        More words.

    Returns
    -------
    list
        The hits, best first.
    """

REST = """Search the web.

    Uses the default engine.

    :param query: What to look for,
        in any language.
    :param int limit: How many: at most 10.
    :param rest: More words.
    :returns: The hits, best first.
    """

EPYDOC = """Search the web.

    Uses the default engine.

    @param query: What to look for, in any language.
    @param limit: How many: at most 10.
    @param rest: More words.
    @return: The hits, best first.
    """


@pytest.mark.parametrize(
    "text", [GOOGLE, NUMPY, REST, EPYDOC], ids=["google", "numpy", "rest", "ep"]
)
def test_the_four_styles_are_detected(text: str) -> None:
    """Summary, body and returns are the description; the rest describes parameters."""
    docstring = parse(text)
    assert docstring.description == (
        "Search the web.\n\nUses the default engine.\n\nReturns: The hits, best first."
    )
    assert docstring.parameters == {
        "query": "What to look for, in any language.",
        "limit": "How many: at most 10.",
        "rest": "More words.",
    }


DESCRIPTIONS = {
    "nothing": (None, ""),
    "blank": ("  \n ", ""),
    "one line": ("Do it.", "Do it."),
    "colons": (
        "Use it: like so.\n\nNote:\n    Careful.",
        "Use it: like so.\n\nNote:\n    Careful.",
    ),
    "roles": ("Make a\n:class:`Box` of it.", "Make a\n:class:`Box` of it."),
    "decorator": ("Use it with\n@tool above.", "Use it with\n@tool above."),
    "empty section": ("Do it.\n\nArgs:\n", "Do it.\n\nArgs:"),
    "example": ("Do it.\n\nExample:\n    >>> do(1)", "Do it.\n\nExample:\n>>> do(1)"),
    "raises": ("Do it.\n\nRaises:\n    ValueError: Never.", "Do it."),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_text_without_parameters_is_description(name: str) -> None:
    """Text that only looks like a field is unchanged."""
    text, description = DESCRIPTIONS[name]
    assert parse(text).description == description
    assert parse(text).parameters == {}


def test_a_missing_blank_line_before_args() -> None:
    """A section is recognised without the blank line, which is often forgotten."""
    docstring = parse("Do it.\n    Args:\n        x: The x.\n    Returns:\n        It.\n    ")
    assert docstring.description == "Do it.\n\nReturns: It."
    assert docstring.parameters == {"x": "The x."}


def test_only_sections() -> None:
    """A docstring may consist of sections only."""
    docstring = parse("\n    Args:\n        x: The x.\n    ")
    assert (docstring.description, docstring.parameters) == ("", {"x": "The x."})


def test_two_parameters_at_once() -> None:
    """NumPy's `a, b : int` describes both."""
    assert parse("Do.\n\nParameters\n----------\na, b : int\n    Both.").parameters == {
        "a": "Both.",
        "b": "Both.",
    }


TYPES: dict[str, Any] = {
    "str": str,
    "String": str,
    "`int`": int,
    ":class:`~decimal.Decimal`": Decimal,
    "integer, optional": int,
    "bool, default=True": bool,
    "float, default: 0.5": float,
    "str (optional)": str,
    "number": float,
    "object": Any,
    "str or None": str | None,
    "int or float": int | float,
    "list of str": list[str],
    "list of ints, optional": list[int],
    "tuple of int": tuple[int, ...],
    "sequence of strings": list[str],
    "dict[str, int]": dict[str, int],
    "Optional[List[int]]": Optional[List[int]],  # noqa: UP006, UP045
    "{'a', 'b'}, optional": Literal["a", "b"],
    "datetime.date": datetime.date,
}


@pytest.mark.parametrize("text", TYPES)
def test_a_type_that_a_docstring_names(text: str) -> None:
    """It is written in words or as an annotation."""
    names = {"datetime": datetime, "decimal": decimal}
    assert documented_type(text, names) == TYPES[text]


NO_TYPES = ["array-like", "callable", "path-like", "positive int", "int > 0", "None", "datetime"]
NO_TYPES += ["1", "'a'", "{str: int}", "Nope", "print('x')", "__import__('os')", "the city's name"]


@pytest.mark.parametrize("text", NO_TYPES)
def test_what_is_no_type(text: str) -> None:
    """Prose, values and calls are not evaluated as types."""
    assert documented_type(text, {"datetime": datetime}) is None


def google(city, days=1):  # type: ignore[no-untyped-def]
    """Plan.

    Args:
        city (str): Where.
        days (int, optional): How long.
    """
    return city, days


def numpy(city, days=1):  # type: ignore[no-untyped-def]
    """Plan.

    Parameters
    ----------
    city : str
        Where.
    days : int, default 1
        How long.
    """
    return city, days


def rest(city, days=1):  # type: ignore[no-untyped-def]
    """Plan.

    :param city: Where.
    :type city: str
    :param int days: How long.
    """
    return city, days


@pytest.mark.parametrize("function", [google, numpy, rest])
@pytest.mark.anyio
async def test_parameters_take_their_types_from_the_docstring(function: Any) -> None:
    """Third-party functions are often written like that."""
    built = tool(strict=False)(function)
    assert built.parameters["properties"] == {
        "city": {"type": "string", "description": "Where."},
        "days": {"type": "integer", "description": "How long.", "default": 1},
    }
    assert await built.call('{"city": "Rome", "days": "3"}') == ("Rome", 3)


def test_annotations_win_over_the_docstring() -> None:
    """Only a parameter without annotation is looked up."""

    def plan(city: int) -> None:
        """Plan.

        Args:
            city (str): Where.
        """

    assert tool(plan).parameters["properties"]["city"]["type"] == "integer"


def test_a_parameter_that_neither_types_is_refused() -> None:
    """The error is the same as without a docstring."""

    def plan(city, around):  # type: ignore[no-untyped-def]
        """Plan.

        Args:
            city (str): Where.
            around (array-like): How far.
        """

    with pytest.raises(InvalidTool, match=r"Parameter 'around' of .*plan .* has no annotation"):
        tool(plan)
