"""What an option may be: a predicate, and the words for it. The one check of options.

A table of names to checks stands beside each set of options (`AgentConfig`, a run, a
tool, `ChatSettings`); `misfit` finds the first value that is not what its check expects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args


@dataclass(frozen=True, slots=True)
class Check:
    """What a value has to be.

    Attributes:
        expected: In words, as they stand after "expected".
        fits: Whether a value is so.
    """

    expected: str
    fits: Callable[[Any], bool]

    def or_none(self) -> Check:
        """Accept None as well."""
        return Check(f"None or {self.expected}", lambda value: value is None or self.fits(value))


def misfit(values: Mapping[str, Any], checks: Mapping[str, Check]) -> tuple[str, Check] | None:
    """Return the name and the check of the first value that does not fit; None if all do."""
    for name, value in values.items():
        check = checks.get(name)
        if check is not None and not check.fits(value):
            return name, check
    return None


def is_number(value: Any) -> bool:
    """Tell whether a value is an int or a float; bool is neither."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def instance(expected: str, *types: type) -> Check:
    """Expect an instance of one of the types."""
    return Check(expected, lambda value: isinstance(value, types))


def function(expected: str) -> Check:
    """Expect something that can be called."""
    return Check(expected, callable)


def words(literal: Any) -> Check:
    """Expect one of the values of a `Literal`."""
    return one_of(*get_args(literal))


def one_of(*values: str) -> Check:
    """Expect one of these texts."""
    return Check(
        " | ".join(map(repr, values)), lambda value: isinstance(value, str) and value in values
    )


def integer(least: float = -math.inf, most: float = math.inf) -> Check:
    """Expect an integer in a range."""
    span = f" {least}…{most}" if most < math.inf else f" >= {least}" if least > -math.inf else ""
    return Check(
        f"an integer{span}",
        lambda value: is_number(value) and isinstance(value, int) and least <= value <= most,
    )


def number(least: float, most: float = math.inf) -> Check:
    """Expect a number in a range."""
    expected = f"a number >= {least}" if most == math.inf else f"{least}…{most}"
    return Check(expected, lambda value: is_number(value) and least <= value <= most)


def items(expected: str, fits: Callable[[Any], bool] = lambda _: True) -> Check:
    """Expect a sequence, but no text, of items that fit."""

    def check(value: Any) -> bool:
        listed = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
        return listed and all(fits(one) for one in cast("Sequence[Any]", value))

    return Check(expected, check)


FLAG = instance("True or False", bool)
TEXT = instance("text", str)
ANYTHING = Check("anything", lambda _: True)
