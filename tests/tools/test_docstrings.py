"""Docstrings of every style give the same description and parameters."""

from __future__ import annotations

import pytest

from agentkit.tools.docstrings import parse

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
