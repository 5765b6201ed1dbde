"""What type checkers must see of tools. Checked by `make types`, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal, assert_type

from agentkit.messages import Content, JsonObject
from agentkit.tools import Arguments, FunctionToolset, RunContext, Tool, Toolset, tool
from agentkit.tools.toolset import check_names, tools_of


@tool
async def get_weather(city: str, unit: Literal["c", "f"] = "c") -> float:
    """A coroutine function."""
    return 20.5


@tool(name="sum", timeout=3, effect="read", concurrency=2)
def add(a: int, b: int = 1) -> int:
    """A function with options."""
    return a + b


@tool
async def count(to: int) -> AsyncIterator[int]:
    """A generator."""
    yield to


@tool
def who(context: RunContext[str], loud: bool = False) -> str:
    """A function with a context."""
    return assert_type(context.deps, str)


class Shop:
    """Methods are tools, too."""

    @tool
    def price(self, item: str) -> int:
        """A method."""
        return len(item)

    @tool(sequential=True)
    async def order(self, item: str, amount: int = 1) -> None:
        """A method with options."""

    @staticmethod
    @tool
    def vat(net: float) -> float:
        """A static method."""
        return net


class Holder:
    """A tool in a field is no method."""

    held: Tool[[str], int]


def plain(x: int) -> str:
    """A function that is not ours."""
    return str(x)


assert_type(add(1, b=2), int)
assert_type(count(3), AsyncIterator[int])
assert_type(who(RunContext(deps="me")), str)
assert_type(Shop().price("tea"), int)
assert_type(Shop.vat(1.0), float)
assert_type(Tool(plain, name="other")(3), str)
assert_type(add.with_(name="plus")(1, 2), int)
assert_type(RunContext(), RunContext[None])
assert_type(RunContext(deps=3), RunContext[int])

assert_type(Holder().held, Tool[[str], int])
add("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  wrong on purpose
tool(timeut=3)  # type: ignore[call-overload]  # pyright: ignore  no such option

raw = Tool.from_schema("raw", "Raw.", {"type": "object"}, plain, effect="read")
assert_type(raw, Tool[..., Any])
assert_type(add.name, str)
assert_type(add.parameters, JsonObject)
assert_type(add.strict, bool)
assert_type(add.warnings, tuple[str, ...])
assert_type(add.definition.tokens, int)
assert_type(add.parse("{}"), Arguments)
assert_type(add.render(3), Content)


class Admin(Toolset):
    """Decided at every step."""

    def tools(self, context: RunContext[Any]) -> list[Tool[..., Any]]:
        """Only for admins."""
        return [add, raw] if context.deps == "admin" else []


class Remote(Toolset):
    """Asked at every step."""

    async def tools(self, context: RunContext[Any]) -> list[Tool[..., Any]]:
        """From somewhere else."""
        return [raw]


async def called() -> None:
    """Calling a tool of a coroutine function gives the coroutine."""
    assert_type(await get_weather("Paris", unit="f"), float)
    await Shop().order("tea", amount=2)
    await get_weather("Paris", unit="k")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def gather(context: RunContext[None]) -> None:
    """Wrappers take and give toolsets."""
    some = Admin().prefix("x_").rename({"x_a": "a"}).filter(lambda context, tool: tool.strict)
    assert_type(some, Toolset)
    assert_type(await tools_of(some, context), tuple[Tool[..., Any], ...])
    assert_type(await tools_of(lambda context: [add], context), tuple[Tool[..., Any], ...])
    await tools_of(FunctionToolset([add, plain, Shop().price]), context)
    check_names([add, get_weather])
    assert_type(await get_weather.call("{}"), Any)
