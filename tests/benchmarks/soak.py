"""Runs an agent thousands of times in one process and watches its memory.

    make soak        or: python tests/benchmarks/soak.py [RUNS]

Each run makes three tool calls in two steps and keeps its trace in memory until
it ends. The exit status is 1 if the process has grown by more than 8 MiB after
the first fifth of the runs.
"""

from __future__ import annotations

import gc
import json
import resource
import sys

import anyio

from agentkit import (
    Agent,
    AssistantMessage,
    ModelRequest,
    ModelResponse,
    ToolCall,
    tool,
)
from agentkit.models import Profile

CALLS = [("double", {"number": 1}), ("double", {"number": 2}), ("later", {"number": 3})]
ALLOWED = 8 * 1024  # KiB


@tool
def double(number: int) -> int:
    """Double a number."""
    return 2 * number


@tool
async def later(number: int) -> int:
    """Double a number, a little later."""
    await anyio.sleep(0)
    return 2 * number


def resident() -> int:
    """The process's memory in KiB."""
    gc.collect()
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() // 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def soak(agent: Agent[str], runs: int) -> int:
    """Run, and print the memory ten times; returns the growth in KiB."""
    first = 0
    for number in range(1, runs + 1):
        result = await agent.run("go")
        assert result.usage.tool_calls == 3
        if number % max(1, runs // 10) == 0:
            now = resident()
            first = first or (now if number >= runs // 5 else 0)
            print(f"{number:6} runs  {now / 1024:7.1f} MiB", flush=True)
    return resident() - first


class Quick:
    """A model that answers at once and remembers nothing (those for tests keep requests)."""

    name = "quick"
    profile = Profile()

    def check(self) -> None:
        """Always ready."""

    async def request(self, request: ModelRequest, **_: object) -> ModelResponse:
        """Calls first, then the answer."""
        if len(request.messages) > 1:
            return ModelResponse(message=AssistantMessage(content="done"))
        calls = tuple(
            ToolCall(id=f"call{index}", name=name, arguments=json.dumps(arguments))
            for index, (name, arguments) in enumerate(CALLS)
        )
        return ModelResponse(message=AssistantMessage(tool_calls=calls), finish="tool_calls")

    async def aclose(self) -> None:
        """Nothing to close."""


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdecimal()]
    agent = Agent(Quick(), tools=[double, later])
    grown = anyio.run(soak, agent, numbers[0] if numbers else 10_000)
    print(f"grown by {grown / 1024:.1f} MiB since the first fifth")
    sys.exit(grown > ALLOWED)
