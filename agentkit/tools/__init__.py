"""Functions that a model may call: `tool`, `Tool`, `Toolset`, and the context of a call."""

from agentkit.tools.context import RunContext
from agentkit.tools.tool import Arguments, Tool, Toolset, tool

__all__ = ["Arguments", "RunContext", "Tool", "Toolset", "tool"]
