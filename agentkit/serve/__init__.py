"""Agents behind the chat-completions wire: any client of that wire can talk to them.

    uvicorn.run(agentkit.serve.app([agent]))

Needs the extra `serve`. `agentkit serve FILE.py:agent` does the same from the command line.
"""

from __future__ import annotations

from agentkit.serve.endpoint import Deps, app
from agentkit.serve.keys import Key

__all__ = ["Deps", "Key", "app"]
