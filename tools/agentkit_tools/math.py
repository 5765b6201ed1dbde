"""Exact arithmetic: `math_tools()`.

An expression is read by a small parser of its own, never by `eval`, and computed in fractions:
0.1 + 0.2 is 0.3. Sizes are checked before a number is computed, so that nothing takes long.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction

from agentkit import Tool, ToolError
from agentkit.tools import FunctionToolset

_CHARACTERS = 1_000  # of an expression
_DEPTH = 40
_BITS = 20_000  # of a numerator or denominator
_EXPONENT = 10**9
_SHOWN = 600  # digits that are written out
_DIGITS = 15  # of a number that is rounded to be shown
_LONG = Context(prec=60, Emax=10**6, Emin=-(10**6))
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z][A-Za-z0-9_]*)|(?P<sign>\*\*|//|[-+*/^(),%‰]))"
)
_SAME = str.maketrans("\u00d7\u00b7\u00f7\u2212\u2013\u00a0", "**/-- ")  # as print has them
_PARTS = {"%": 100, "‰": 1_000, "bp": 10_000}
"""Units of percent, each the part of one that it is."""


def math_tools() -> FunctionToolset:
    """Return the tool `calculate`, which computes with exact fractions and touches nothing.

    Example:
        >>> agent = Agent("openai:gpt-4o", tools=[math_tools()])
    """
    return FunctionToolset([Tool(calculate, effect="read")])


def calculate(expression: str) -> str:
    """Compute an expression exactly, without the rounding errors of floating point.

    It takes + - * / // (whole division) ** and parentheses; abs, ceil, comb, factorial, floor,
    gcd, lcm, max, mean, median, min, mod, round(number, digits), sqrt and sum; %, ‰ and bp
    (basis points): "15% of 80", "80 * (1 + 15%)". Decimals have a point and no separators. The
    answer is exact, or begins with ≈.

    Args:
        expression: For example "(19.99 * 3 + 4.5) * (1 + 19%)".
    """
    if len(expression) > _CHARACTERS:
        raise ToolError(
            f"The expression has {len(expression)} characters, and at most {_CHARACTERS} are "
            "computed. Compute it in parts."
        )
    return str(_Parser(expression).value())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Value:
    """A number, and how it came about."""

    number: Fraction
    exact: bool = True
    percent: bool = False  # a bare percentage, such as 15%

    def __str__(self) -> str:
        """Return the number, exactly where that is short."""
        plain = _plain(self.number) if self.exact else f"≈ {_rounded(self.number)}"
        return f"{_plain(self.number * 100)}% = {plain}" if self.percent and self.exact else plain


def _plain(number: Fraction) -> str:
    """Return a decimal if it ends, else the fraction and its rounded value."""
    if _digits(number.numerator) > _SHOWN:
        whole = f" (a whole number of {_digits(number.numerator)} digits)"
        return f"≈ {_rounded(number)}{whole if number.denominator == 1 else ''}"
    left, places = number.denominator, 0
    for prime in (2, 5):
        count = 0
        while left % prime == 0 and count <= _SHOWN:
            left, count = left // prime, count + 1
        places = max(places, count)
    if left == 1 and places + _digits(number.numerator) <= _SHOWN:
        digits = str(abs(number.numerator) * 10**places // number.denominator).zfill(places + 1)
        sign = "-" if number < 0 else ""
        return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"
    short = _digits(number.numerator) + _digits(number.denominator) <= 40
    exact = f"{number.numerator}/{number.denominator} " if short else ""
    return f"{exact}≈ {_rounded(number)}"


def _digits(number: int) -> int:
    """Return how many digits a number has; Python refuses to write very long ones."""
    if number == 0:
        return 1
    guess = int(number.bit_length() * math.log10(2))
    return guess + (abs(number) >= 10**guess)


def _rounded(number: Fraction) -> str:
    short = Context(prec=_DIGITS).plus(_decimal(number)).normalize()
    return f"{short:f}" if -6 <= short.adjusted() <= _DIGITS else str(short)


def _decimal(number: Fraction) -> Decimal:
    return _LONG.divide(Decimal(number.numerator), Decimal(number.denominator))


class _Parser:
    """Reads an expression from left to right and computes it."""

    def __init__(self, text: str) -> None:
        self._text = text.translate(_SAME)
        self._at = 0  # where the next token begins
        self._depth = 0
        self._token = ""
        self._start = 0  # where this token begins
        self._next()

    def value(self) -> _Value:
        """Return the value of the whole expression.

        Raises:
            ToolError: It is no expression, or its value is too large or does not exist.
        """
        if not self._token:
            raise ToolError("The expression is empty.")
        value = self._sum()
        if self._token == ",":
            raise self._fault(
                "a comma separates arguments of functions; write numbers without "
                "separators of thousands and with a point: 1234.5"
            )
        if self._token:
            raise self._fault("an operator such as * was expected")
        return value

    def _next(self) -> None:
        match = _TOKEN.match(self._text, self._at)
        self._start = len(self._text) - len(self._text[self._at :].lstrip())
        if match is None:
            self._token = ""
            if self._start < len(self._text):
                self._token = self._text[self._start]
                raise self._fault("that has no meaning here; leave out units and currencies")
            return
        self._start = match.start(match.lastgroup or 0)
        self._token, self._at = match.group(match.lastgroup or 0), match.end()

    def _fault(self, reason: str) -> ToolError:
        where = f"at {self._token!r} (character {self._start + 1})" if self._token else "at its end"
        return ToolError(f"The expression cannot be read {where}: {reason}.")

    def _take(self, *signs: str) -> str:
        """Return the token and go on if it is one of these, else nothing."""
        if self._token not in signs:
            return ""
        taken = self._token
        self._next()
        return taken

    def _sum(self) -> _Value:
        value = self._product()
        while sign := self._take("+", "-"):
            value = _add(value, self._product(), -1 if sign == "-" else 1)
        return value

    def _product(self) -> _Value:
        value = self._signed()
        while sign := self._take("*", "/", "//", "of"):
            other = self._signed()
            value = _OPERATORS[sign](value, other)
        return value

    def _signed(self) -> _Value:
        self._depth += 1
        if self._depth > _DEPTH:
            raise ToolError(f"The expression is nested over {_DEPTH} levels deep.")
        if sign := self._take("+", "-"):
            value = self._signed()
            value = _Value(
                number=-value.number if sign == "-" else value.number,
                exact=value.exact,
                percent=value.percent,
            )
        else:
            value = self._power()
        self._depth -= 1
        return value

    def _power(self) -> _Value:
        base = self._unit()
        return _power(base, self._signed()) if self._take("**", "^") else base

    def _unit(self) -> _Value:
        value = self._atom()
        while unit := self._take(*_PARTS):
            if re.match(r"(?!of$)[A-Za-z0-9.(]", self._token):
                raise self._fault(
                    f"after {unit} comes an operator; for a remainder write mod(10, 3), for a "
                    "share 10% of 3"
                )
            number = value.number / _PARTS[unit]
            value = _Value(number=number, exact=value.exact, percent=True)
        return value

    def _atom(self) -> _Value:
        token = self._token
        if self._take("("):
            value = self._sum()
            self._close()
            return value
        if token[:1].isdigit() or token[:1] == ".":
            self._next()
            return _number(token)
        if token in _FUNCTIONS:
            self._next()
            return self._call(token)
        if token[:1].isalpha():
            known = ", ".join(sorted(_FUNCTIONS))
            raise self._fault(f"there are only numbers and the functions {known}")
        raise self._fault("a number was expected")

    def _call(self, name: str) -> _Value:
        if not self._take("("):
            raise self._fault(f"{name} needs its arguments in parentheses")
        values = [self._sum()]
        while self._take(","):
            values.append(self._sum())
        self._close()
        low, high, function = _FUNCTIONS[name]
        if not low <= len(values) <= high:
            count = f"{low}" if low == high else f"{low} or {high}"
            raise ToolError(
                f"{name} takes {count} argument{'s' if high > 1 else ''}, not {len(values)}."
            )
        number = _checked(function([value.number for value in values]))
        exact = all(value.exact for value in values)
        if name == "sqrt" and number * number != values[0].number:
            exact = False
        return _Value(number=number, exact=exact)

    def _close(self) -> None:
        if not self._take(")"):
            raise self._fault("a closing parenthesis was expected")


def _number(text: str) -> _Value:
    if re.search(r"__|_$|_\.|\._|_[eE]", text):
        raise ToolError(f"{text!r} is not a number.")
    mantissa, _, exponent = text.replace("_", "").lower().partition("e")
    if len(exponent) > 5 or abs(int(exponent or 0)) > _BITS // 4:
        raise _too_large()
    before, _, after = mantissa.partition(".")
    if len(before + after) > _SHOWN:  # Python may refuse to read longer ones
        raise ToolError(f"Numbers are written with at most {_SHOWN} digits.")
    whole = int(before + after)
    return _Value(number=_checked(whole * Fraction(10) ** (int(exponent or 0) - len(after))))


def _checked(number: Fraction) -> Fraction:
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > _BITS:
        raise _too_large()
    return number


def _too_large() -> ToolError:
    digits = int(_BITS * math.log10(2))
    return ToolError(
        f"A number in the expression would have over {digits} digits, which is not computed. "
        "Round on the way, or estimate with logarithms."
    )


def _add(left: _Value, right: _Value, sign: int) -> _Value:
    if right.percent and not left.percent and left.number != 1:
        share, operator = f"{_plain(right.number * 100)}%", "+" if sign > 0 else "-"
        base = _plain(left.number)
        raise ToolError(
            f"{base} {operator} {share} has two meanings. Write {base} * (1 {operator} {share}), "
            f"or {base} {operator} {_plain(right.number)}."
        )
    return _Value(
        number=_checked(left.number + sign * right.number),
        exact=left.exact and right.exact,
        percent=left.percent and right.percent,
    )


def _multiply(left: _Value, right: _Value) -> _Value:
    number = _checked(left.number * right.number)
    return _Value(number=number, exact=left.exact and right.exact)


def _divide(left: _Value, right: _Value) -> _Value:
    number = _checked(left.number / _not_zero(right.number))
    return _Value(number=number, exact=left.exact and right.exact)


def _divide_whole(left: _Value, right: _Value) -> _Value:
    number = _checked(Fraction(left.number // _not_zero(right.number)))
    return _Value(number=number, exact=left.exact and right.exact)


_OPERATORS: dict[str, Callable[[_Value, _Value], _Value]] = {
    "*": _multiply,
    "of": _multiply,
    "/": _divide,
    "//": _divide_whole,
}


def _not_zero(number: Fraction) -> Fraction:
    if number == 0:
        raise ToolError("The expression divides by zero.")
    return number


def _power(base: _Value, exponent: _Value) -> _Value:
    """Return a power: exact where that is short, else to 60 digits."""
    if exponent.number.denominator != 1:
        raise ToolError(
            f"The exponent {_plain(exponent.number)} is not a whole number. Write sqrt(x) for a "
            "root; other roots are not computed."
        )
    times, number = exponent.number.numerator, base.number
    exact = base.exact and exponent.exact
    if times < 0:
        number, times = 1 / _not_zero(number), -times
    bits = max(number.numerator.bit_length(), number.denominator.bit_length())
    if abs(number.numerator) <= 1 and number.denominator == 1:
        return _Value(number=number ** (2 - times % 2) if times else Fraction(1), exact=exact)
    if bits * times <= _BITS:
        return _Value(number=number**times, exact=exact)
    if times > _EXPONENT:
        raise _too_large()
    # The exact value would be long; its size may be ordinary, as with daily interest.
    size = math.fabs(times * float(_LONG.log10(abs(_decimal(number)))))
    if size > _BITS * math.log10(2) / 4 or number.denominator == 1:
        raise _too_large()
    return _Value(number=Fraction(_LONG.power(_decimal(number), times)), exact=False)


def _whole(name: str, number: Fraction, low: int, high: int) -> int:
    if number.denominator != 1 or not low <= number <= high:
        raise ToolError(f"{name} takes whole numbers from {low} to {high}, not {_plain(number)}.")
    return int(number)


def _round(values: Sequence[Fraction]) -> Fraction:
    """Round half away from zero, as money is rounded."""
    places = _whole("round", values[1], -1_000, 1_000) if len(values) > 1 else 0
    unit = Fraction(10) ** places
    whole = math.floor(abs(values[0]) * unit + Fraction(1, 2))
    return (whole if values[0] >= 0 else -whole) / unit


def _sqrt(values: Sequence[Fraction]) -> Fraction:
    """Return the root: exactly where it is rational, else to 60 digits."""
    (value,) = values
    if value < 0:
        raise ToolError(f"{_plain(value)} is negative and has no square root.")
    root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    return root if root * root == value else Fraction(_LONG.sqrt(_decimal(value)))


def _total(values: Sequence[Fraction]) -> Fraction:
    total = Fraction(0)
    for value in values:
        total = _checked(total + value)
    return total


def _median(values: Sequence[Fraction]) -> Fraction:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _common(name: str, function: Callable[..., int]) -> Callable[[Sequence[Fraction]], Fraction]:
    def compute(values: Sequence[Fraction]) -> Fraction:
        limit = 10**300
        return Fraction(function(*(_whole(name, value, -limit, limit) for value in values)))

    return compute


def _comb(values: Sequence[Fraction]) -> Fraction:
    total, chosen = (_whole("comb", value, 0, 5_000) for value in values)
    return Fraction(math.comb(total, chosen))


def _factorial(values: Sequence[Fraction]) -> Fraction:
    return Fraction(math.factorial(_whole("factorial", values[0], 0, 1_000)))


_MANY = _CHARACTERS
_FUNCTIONS: dict[str, tuple[int, int, Callable[[Sequence[Fraction]], Fraction]]] = {
    "abs": (1, 1, lambda values: abs(values[0])),
    "ceil": (1, 1, lambda values: Fraction(math.ceil(values[0]))),
    "comb": (2, 2, _comb),
    "factorial": (1, 1, _factorial),
    "floor": (1, 1, lambda values: Fraction(math.floor(values[0]))),
    "gcd": (1, _MANY, _common("gcd", math.gcd)),
    "lcm": (1, _MANY, _common("lcm", math.lcm)),
    "max": (1, _MANY, max),
    "mean": (1, _MANY, lambda values: _total(values) / len(values)),
    "median": (1, _MANY, _median),
    "min": (1, _MANY, min),
    "mod": (2, 2, lambda values: values[0] % _not_zero(values[1])),
    "round": (1, 2, _round),
    "sqrt": (1, 1, _sqrt),
    "sum": (1, _MANY, _total),
}
"""The functions: how many arguments they take, at least and at most, and what they return."""
