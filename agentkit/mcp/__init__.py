"""MCP, the Model Context Protocol, in both directions: the tools of servers, and a server of tools.

`stdio` and `http` are toolsets of what a server offers; `serve` offers tools or an agent to
other programs. They need the extra `mcp` as soon as they connect: a replay needs neither the
server nor the extra.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from agentkit.errors import ConfigurationError
from agentkit.mcp.toolset import MISSING, McpToolset, http, stdio

if TYPE_CHECKING:
    from agentkit.mcp.server import app, serve, serve_sync

__all__ = ["McpToolset", "app", "http", "serve", "serve_sync", "stdio"]


def __getattr__(name: str) -> Any:
    """Load the server when it is needed: it takes the SDK with it."""
    if name not in ("app", "serve", "serve_sync"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if importlib.util.find_spec("mcp") is None:
        raise ConfigurationError(MISSING)
    from agentkit.mcp import server

    return getattr(server, name)
