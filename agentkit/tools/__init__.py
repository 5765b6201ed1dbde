"""Functions that a model may call: `tool`, `Tool`, toolsets, and the `RunContext` of a call."""

from agentkit.tools.context import RunContext
from agentkit.tools.tool import Arguments, Tool, tool
from agentkit.tools.toolset import FunctionToolset, Toolset

__all__ = ["Arguments", "FunctionToolset", "RunContext", "Tool", "Toolset", "tool"]
