"""LangGraph: LangChain's agent, which is a graph, without a checkpointer; LangSmith off."""

from __future__ import annotations

import os
from typing import Any

os.environ["LANGSMITH_TRACING"] = "false"

from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.messages import AIMessageChunk
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from tests.benchmarks.contenders.framework import Framework, Tools
from tests.benchmarks.scenarios import INSTRUCTIONS, PROMPT
from tests.benchmarks.worker import serve

LIMITS: Any = {"recursion_limit": 500}
INPUT: Any = {"messages": [{"role": "user", "content": PROMPT}]}


class LangGraph(Framework):
    """A graph for each scenario."""

    def make(self, base_url: str, tools: Tools, output: Any) -> Any:
        model = ChatOpenAI(
            model="gpt-4o",
            base_url=base_url,
            api_key="none",
            use_responses_api=False,
            stream_usage=True,
        )
        return create_agent(
            model,
            [tool(one) for one in tools],
            system_prompt=INSTRUCTIONS,
            response_format=ProviderStrategy(output) if output else None,
        )

    async def run(self, scenario: str, tools: Tools = (), output: Any = None) -> Any:
        state = await self.agent(scenario, tools, output).ainvoke(INPUT, LIMITS)
        return state["structured_response"] if output else state["messages"][-1].content

    async def stream(self, scenario: str, tools: Tools = (), output: Any = None) -> tuple[int, Any]:
        if output is not None:
            raise NotImplementedError  # it shows the text of a typed output, no partial value
        pieces, texts = 0, list[str]()
        agent = self.agent(scenario, tools, output)
        async for chunk, _ in agent.astream(INPUT, LIMITS, stream_mode="messages"):
            if isinstance(chunk, AIMessageChunk):
                pieces += bool(chunk.content or chunk.tool_call_chunks)
                texts.append(str(chunk.content))
        return pieces, "".join(texts)


if __name__ == "__main__":
    serve(LangGraph)
