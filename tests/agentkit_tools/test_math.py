"""Exact arithmetic, and expressions that would take forever."""

from __future__ import annotations

import sys
import time

import pytest
from agentkit_tools.math import math_tools

from agentkit import Agent
from agentkit.testing import ScriptedModel
from tests.agentkit_tools.support import call, named, refusal
from tests.support import tool_texts

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("0.1 + 0.2", "0.3"),
        ("1/3", "1/3 ≈ 0.333333333333333"),
        ("-2 ** 2", "-4"),
        ("2 ** 3 ** 2", "512"),
        ("2 ** -1", "0.5"),
        ("7 // 2 + mod(-7, 3)", "5"),
        ("(19.99 * 3 + 4.5) \u00d7 (1 + 19%)", "76.7193"),
        ("3·4 \u2212 10÷4", "9.5"),
        ("1_000 * 1.5e3", "1500000"),
        ("round(2.5) + round(-2.675, 2)", "0.32"),
        ("sqrt(16/9)", "4/3 ≈ 1.33333333333333"),
        ("sqrt(2)", "≈ 1.4142135623731"),
        ("mean(1, 2, 4) + median(4, 1, 3, 2)", "29/6 ≈ 4.83333333333333"),
        ("gcd(12, 18) + lcm(4, 6) + comb(5, 2)", "28"),
        ("(1 + 0.0425/365) ** 10950", "≈ 3.57843579553346"),
        ("factorial(25)", "15511210043330985984000000"),
        ("10 ** 700", "≈ 1E+700 (a whole number of 701 digits)"),
        ("(-1) ** 99999999999999", "-1"),
        ("0 ** 0", "1"),
    ],
)
async def test_expressions_are_computed_exactly(expression: str, answer: str) -> None:
    """In fractions; what is rounded begins with a sign that says so."""
    assert await call(math_tools(), "calculate", expression=expression) == answer


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("15% of 80", "12"),
        ("80 * (1 + 15%)", "92"),
        ("5% + 30‰ + 25bp", "8.25% = 0.0825"),
        ("12.5‰ of 8", "0.1"),
        ("-5%", "-5% = -0.05"),
        ("20% of 50%", "0.1"),
    ],
)
async def test_units_of_percent_are_parts_of_one(expression: str, answer: str) -> None:
    """Percent, per mille and basis points; a bare percentage is shown in both forms."""
    assert await call(math_tools(), "calculate", expression=expression) == answer


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        (
            "80 - 15%",
            "80 - 15% has two meanings. Write 80 * (1 - 15%), or 80 - 0.15.",
        ),
        ("10 % 3", "for a remainder write mod(10, 3)"),
        ("1,234.50", "without separators of thousands"),
        ("$5 + 3", "'$' (character 1): that has no meaning here; leave out units"),
        ("2(3)", "at '(' (character 2): an operator such as * was expected"),
        ("1 / (3 - 3)", "The expression divides by zero."),
        ("mod(1, 0)", "The expression divides by zero."),
        ("0 ** -1", "The expression divides by zero."),
        ("sqrt(-1)", "-1 is negative and has no square root."),
        ("sqrt(1, 2)", "sqrt takes 1 argument, not 2."),
        ("2 ** 0.5", "The exponent 0.5 is not a whole number. Write sqrt(x)"),
        ("gcd(1.5, 2)", "gcd takes whole numbers"),
        ("1 +", "at its end: a number was expected"),
        ("(1", "at its end: a closing parenthesis was expected"),
        ("1__0", "'1__0' is not a number."),
        (" ", "The expression is empty."),
        ("\u0661 + \u0661", "at '\u0661' (character 1)"),
        ("1 + \x00", "(character 5)"),
    ],
)
async def test_what_cannot_be_computed_is_explained(expression: str, reason: str) -> None:
    """With the place and what to write instead."""
    assert reason in await refusal(math_tools(), "calculate", expression=expression)


@pytest.mark.parametrize(
    "code",
    [
        "__import__('os').getcwd()",
        "().__class__",
        "abs.__globals__",
        "open('/etc/passwd')",
        "lambda: 1",
        "[1 for _ in (1,)]",
        "1 if 1 else 2",
        "'a' * 3",
    ],
)
async def test_code_is_not_arithmetic(code: str) -> None:
    """There is no eval: names other than the functions mean nothing."""
    assert "cannot be read at" in await refusal(math_tools(), "calculate", expression=code)


HUGE = [
    "9**9**9",
    "9^9^9^9",
    "2 ** 10 ** 9",
    "(2/3) ** 1000000000",
    "(1 + 1/10**50) ** 10 ** 12",
    "1e999999999",
    "1e-99999",
    "factorial(100000)",
    "factorial(factorial(20))",
    "comb(10**6, 500000)",
    "round(1, 10**9)",
    "lcm(" + ",".join(f"10**299+{n}" for n in range(1, 75)) + ")",
    "sum(" + ",".join(f"1/{n}**3000" for n in range(3, 70)) + ")",
    "+".join(f"1/{n}**3000" for n in range(3, 70)),
    "*".join(["(1+1/1000000007)**600"] * 45),
    "2**" * 39 + "2",
    "(" * 500,
    "-" * 900 + "1",
    "abs(" * 200 + "1" + ")" * 200,
    "9" * 900,
    "1" * 1001,
    "1+" * 100_000,
]


@pytest.mark.parametrize("expression", HUGE, ids=lambda text: text[:20])
async def test_huge_work_is_refused_at_once(expression: str) -> None:
    """Before it is computed, with a reason."""
    start = time.thread_time()
    assert len(await refusal(math_tools(), "calculate", expression=expression)) < 300
    assert time.thread_time() - start < 5


async def test_long_results_are_written_under_the_lowest_limit_of_the_interpreter() -> None:
    """Python can be set to refuse the digits of integers of over 640."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        assert len(await call(math_tools(), "calculate", expression="2**1990")) == 600
        answer = await call(math_tools(), "calculate", expression="2**9000 + 1/3")
        assert answer.startswith("≈ ")
    finally:
        sys.set_int_max_str_digits(limit)


async def test_an_agent_calculates() -> None:
    """The tool only reads, and its answer reaches the model."""
    tools = math_tools()
    model = ScriptedModel([[("calculate", {"expression": "19% of 250"})], "47.50"])
    result = await Agent(model, tools=[tools]).run("VAT on 250?")
    assert tool_texts(result) == ["47.5"]
    assert named(tools)["calculate"].effect == "read"
