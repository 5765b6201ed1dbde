"""Helpers for the tests of ready-made tools."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentkit import RunContext, Tool, ToolError, Toolset
from agentkit.tools import FunctionToolset


def named(toolset: Toolset) -> dict[str, Tool[..., Any]]:
    """Return the tools of a fixed toolset by their names."""
    assert isinstance(toolset, FunctionToolset)
    return {tool.name: tool for tool in toolset.tools(RunContext())}  # type: ignore[union-attr]


async def call(toolset: Toolset, name: str, **arguments: Any) -> str:
    """Call a tool as a model would, and return the text that the model reads."""
    tool = named(toolset)[name]
    content = tool.render(await tool.call(json.dumps(arguments)))
    assert isinstance(content, str)
    return content


async def refusal(toolset: Toolset, name: str, **arguments: Any) -> str:
    """Return the text with which a tool refuses a call."""
    with pytest.raises(ToolError) as caught:
        await call(toolset, name, **arguments)
    return caught.value.message
