"""What recording costs of a run's CPU: `make bench ARGS='-k recording -s'`.

The same run is made with and without a trace, in turns, against a `ChatServer` in
another process. What counts is the CPU time of this process, the one with the agent,
and the ratio of two runs that came one after the other: so other work on the machine
weighs on both.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentkit import Agent, ChatModel, Limits, tool
from agentkit.testing import ChatServer, reply

STEPS, ROUNDS = 20, 40
TEXT = "All work and no play makes Jack a dull boy. " * 4


@tool
async def look(place: str) -> str:
    """Look at a place."""
    return f"{place} is fine. " + "Nothing to see here. " * 30


def serve() -> None:
    """Answer with a text and one call, `STEPS` times in each run."""

    def answer(request: Any) -> Any:
        step = sum(message["role"] == "assistant" for message in request.json["messages"])
        return reply(TEXT, calls=[("look", {"place": f"room {step}"})] if step < STEPS else ())

    with ChatServer(answer) as server:
        print(server.base_url, flush=True)
        sys.stdin.read()


@contextmanager
def server() -> Generator[str]:
    """The URL of a server in another process."""
    command = [sys.executable, __file__]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


async def spent(agent: Agent[str], trace: Any, *, stream: bool) -> float:
    """Seconds of CPU that one run takes."""
    gc.collect()
    start = time.process_time()
    if stream:
        async with agent.stream("Go.", trace=trace) as run:
            async for _ in run:
                pass
    else:
        await agent.run("Go.", trace=trace)
    return time.process_time() - start


async def compare(url: str, folder: Path, *, stream: bool) -> tuple[float, float, float]:
    """CPU of a run without a trace, and what it is multiplied by in memory and in a file."""
    model = ChatModel("any", base_url=url, api_key="none")
    agent = Agent(model, tools=[look], limits=Limits(steps=STEPS + 1))
    times: dict[str, list[float]] = {"off": [], "memory": [], "file": []}
    for _ in range(ROUNDS):
        for name, trace in (("off", False), ("memory", True), ("file", folder)):
            times[name].append(await spent(agent, trace, stream=stream))
    await model.aclose()
    ratios = [
        statistics.median(on / off for on, off in zip(times[name], times["off"], strict=True))
        for name in ("memory", "file")
    ]
    return statistics.median(times["off"]), ratios[0], ratios[1]


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
def test_recording(benchmark: Any, tmp_path: Path, *, stream: bool) -> None:
    """A run of 21 model calls and 20 tool calls over HTTP, with and without a trace."""

    async def main() -> tuple[float, float, float]:
        return await compare(url, tmp_path, stream=stream)

    with server() as url:
        off, memory, file = benchmark.pedantic(anyio.run, args=(main,), rounds=1)
    print(
        f"\n{'stream' if stream else 'run'}: {off / (STEPS + 1) * 1e3:.2f} ms of CPU a step; "
        f"in memory {memory - 1:+.1%}, in a file {file - 1:+.1%}"
    )


if __name__ == "__main__":
    serve()
