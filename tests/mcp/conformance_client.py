"""Our client as the scenarios of @modelcontextprotocol/conformance start it: with a URL."""

from __future__ import annotations

import json
import sys

import anyio

from agentkit import Agent, RunContext
from agentkit.mcp import http
from agentkit.testing import ScriptedModel

ARGUMENTS = {"add_numbers": {"a": 5, "b": 3}}


async def main() -> None:
    """Call each tool of the server once; whatever it asks is answered with its defaults."""
    toolset = http(sys.argv[-1])
    async with toolset:
        names = [one.name for one in await toolset.tools(RunContext())]
        calls = [(name, ARGUMENTS.get(name, {})) for name in names]
        script = [[call] for call in calls]
        agent = Agent(ScriptedModel([*script, "Done."]), tools=[toolset])
        result = await agent.run("Call them.", approver=lambda call: True)
    sys.stderr.write(json.dumps([message.text for message in result.messages]) + "\n")


anyio.run(main)
