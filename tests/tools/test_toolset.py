"""Toolsets: fixed, dynamic, filtered, renamed."""

from __future__ import annotations

from typing import Any

import anyio.lowlevel
import pytest

from agentkit.errors import InvalidTool
from agentkit.tools import FunctionToolset, RunContext, Tool, Toolset, tool
from agentkit.tools.toolset import check_names, tools_of

pytestmark = pytest.mark.anyio


@tool
def read(path: str) -> str:
    """Read a file."""
    return path


@tool(effect="write")
def write(path: str) -> str:
    """Write a file."""
    return path


def noop() -> None:
    """Nothing."""


async def names(toolset: Any, context: RunContext[Any] | None = None) -> list[str]:
    return [tool.name for tool in await tools_of(toolset, context or RunContext())]


async def test_toolsets_are_composed_of_small_wrappers() -> None:
    """Toolsets are filtered, prefixed and renamed in any order; functions become tools."""
    files = FunctionToolset([read, write, noop])
    assert await names(files) == ["read", "write", "noop"]
    assert await names(files.prefix("fs_").rename({"fs_noop": "nothing"})) == [
        "fs_read",
        "fs_write",
        "nothing",
    ]
    safe = files.filter(lambda context, tool: tool.name != "write" or context.deps == "admin")
    assert await names(safe) == ["read", "noop"]
    assert await names(safe.prefix("x"), RunContext(deps="admin")) == ["xread", "xwrite", "xnoop"]


async def test_renamed_tools_stay_the_same_objects() -> None:
    """Renamed tools are the same objects at every step, so that definitions are encoded once."""
    files = FunctionToolset([read, write]).rename({"read": "look"})
    first, second = await tools_of(files, RunContext()), await tools_of(files, RunContext())
    assert first[0] is second[0]
    assert first[0].definition is second[0].definition
    assert first[1].definition == write.definition
    assert await first[0].call('{"path": "p"}') == "p"


async def test_dynamic_toolsets() -> None:
    """A subclass or a function decides at every step, sync or async."""

    class Growing(Toolset):
        def tools(self, context: RunContext[Any]) -> list[Tool[..., Any]]:
            return [read, write][: context.deps]

    class Remote(Toolset):
        async def tools(self, context: RunContext[Any]) -> list[Tool[..., Any]]:
            await anyio.lowlevel.checkpoint()
            return [read]

    async def function(context: RunContext[Any]) -> list[Tool[..., Any]]:
        return [write]

    assert await names(Growing(), RunContext(deps=1)) == ["read"]
    assert await names(Growing().prefix("p_"), RunContext(deps=2)) == ["p_read", "p_write"]
    assert await names(Remote()) == ["read"]
    assert await names(function) == ["write"]
    assert await names(lambda context: (read,)) == ["read"]
    with pytest.raises(NotImplementedError, match="Toolset does not define tools"):
        await names(Toolset())


async def test_duplicate_names_are_refused_with_both_origins() -> None:
    """The error names both origins and the remedy."""
    with pytest.raises(InvalidTool) as caught:
        check_names([read, write.with_(name="read")])
    assert "Two tools are named 'read': read (test_toolset.py:" in str(caught.value)
    assert "and write (test_toolset.py:" in str(caught.value)
    with pytest.raises(InvalidTool, match="Two tools are named 'read'"):
        await names(FunctionToolset([read, write]).rename({"write": "read"}))


def test_a_fixed_toolset_shows_the_names_of_its_tools() -> None:
    """What a user prints says what is in it."""

    def greet(name: str) -> str:
        """Greet somebody."""
        return f"Hello {name}"

    assert repr(FunctionToolset([greet])) == "<FunctionToolset greet>"
