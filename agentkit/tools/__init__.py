"""Functions that a model may call: `tool`, `Tool`, `Toolset`, and the `RunContext` of a call."""

from agentkit.tools.context import RunContext
from agentkit.tools.tool import Arguments, Tool, tool
from agentkit.tools.toolset import Toolset

__all__ = ["Arguments", "RunContext", "Tool", "Toolset", "tool"]
