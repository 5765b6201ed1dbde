"""agentkit.

    python -m tests.benchmarks.contenders.ours URL

The environment chooses a variant: `HTTP_CLIENT=aiohttp`, `TRACE=off`, and `TREE=…` for the
agentkit of another folder. By default each run writes its trace into a file.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

if tree := os.environ.get("TREE"):
    sys.path.insert(0, tree)

from agentkit import Agent, ChatModel, Limits, tool
from agentkit.events import OutputDelta, TextDelta, ToolCallDelta
from tests.benchmarks.contenders.framework import Framework, Tools
from tests.benchmarks.scenarios import INSTRUCTIONS, PROMPT
from tests.benchmarks.worker import serve


class Ours(Framework):
    """An agent for each scenario."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.folder = tempfile.TemporaryDirectory()
        self.trace = False if os.environ.get("TRACE") == "off" else self.folder.name

    def make(self, base_url: str, tools: Tools, output: Any) -> Agent[Any, Any]:
        model = ChatModel(
            "any",
            base_url=base_url,
            api_key="none",
            http_client=os.environ.get("HTTP_CLIENT"),  # pyright: ignore[reportArgumentType]
        )
        return Agent(
            model,
            tools=[tool(one) for one in tools],
            output=output or str,
            instructions=INSTRUCTIONS,
            trace=self.trace,
            limits=Limits(steps=200),
        )

    async def close(self) -> None:
        for agent in self.agents.values():
            await agent.model.aclose()

    async def run(self, scenario: str, tools: Tools = (), output: Any = None) -> Any:
        return (await self.agent(scenario, tools, output).run(PROMPT)).output

    async def stream(self, scenario: str, tools: Tools = (), output: Any = None) -> tuple[int, Any]:
        pieces = 0
        shown = (TextDelta, ToolCallDelta) if output is None else OutputDelta
        async with self.agent(scenario, tools, output).stream(PROMPT) as run:
            async for event in run:
                pieces += isinstance(event, shown)
        return pieces, run.result.output


if __name__ == "__main__":
    serve(Ours)
