"""pydantic-ai over chat completions, without instrumentation."""

from __future__ import annotations

from typing import Any

from pydantic_ai import Agent, NativeOutput, UsageLimits
from pydantic_ai.messages import PartDeltaEvent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.benchmarks.contenders.framework import Framework, Tools
from tests.benchmarks.scenarios import INSTRUCTIONS, PROMPT
from tests.benchmarks.worker import serve

LIMITS = UsageLimits(request_limit=200)


class PydanticAI(Framework):
    """An agent for each scenario."""

    def make(self, base_url: str, tools: Tools, output: Any) -> Agent[None, Any]:
        provider = OpenAIProvider(base_url=base_url, api_key="none")
        return Agent(
            OpenAIChatModel("gpt-4o", provider=provider),
            tools=tools,
            output_type=NativeOutput(output) if output else str,
            instructions=INSTRUCTIONS,
        )

    async def run(self, scenario: str, tools: Tools = (), output: Any = None) -> Any:
        agent = self.agent(scenario, tools, output)
        return (await agent.run(PROMPT, usage_limits=LIMITS)).output

    async def stream(self, scenario: str, tools: Tools = (), output: Any = None) -> tuple[int, Any]:
        agent = self.agent(scenario, tools, output)
        pieces, result = 0, None
        if output is not None:
            async with agent.run_stream(PROMPT) as run:
                async for _ in run.stream_output(debounce_by=None):
                    pieces += 1
                return pieces, await run.get_output()
        async with agent.run_stream_events(PROMPT) as events:
            async for event in events:
                pieces += isinstance(event, PartDeltaEvent)
                if event.event_kind == "agent_run_result":
                    result = event.result.output
        return pieces, result


if __name__ == "__main__":
    serve(PydanticAI)
