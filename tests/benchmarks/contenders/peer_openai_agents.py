"""openai-agents over chat completions, its tracing off."""

from __future__ import annotations

from typing import Any

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

from tests.benchmarks.contenders.framework import Framework, Tools
from tests.benchmarks.scenarios import INSTRUCTIONS, PROMPT
from tests.benchmarks.worker import serve

DELTAS = ("response.output_text.delta", "response.function_call_arguments.delta")


class OpenAIAgents(Framework):
    """An agent for each scenario."""

    def make(self, base_url: str, tools: Tools, output: Any) -> Agent[None]:
        client = AsyncOpenAI(base_url=base_url, api_key="none")
        return Agent(
            name="agent",
            model=OpenAIChatCompletionsModel("gpt-4o", client),
            tools=[function_tool(one) for one in tools],
            output_type=output,
            instructions=INSTRUCTIONS,
        )

    async def run(self, scenario: str, tools: Tools = (), output: Any = None) -> Any:
        agent = self.agent(scenario, tools, output)
        return (await Runner.run(agent, PROMPT, max_turns=200)).final_output

    async def stream(self, scenario: str, tools: Tools = (), output: Any = None) -> tuple[int, Any]:
        if output is not None:
            raise NotImplementedError  # it shows the text of a typed output, no partial value
        pieces = 0
        run = Runner.run_streamed(self.agent(scenario, tools, output), PROMPT)
        async for event in run.stream_events():
            if event.type == "raw_response_event":
                pieces += event.data.type in DELTAS
        return pieces, run.final_output


if __name__ == "__main__":
    set_tracing_disabled(True)
    serve(OpenAIAgents)
