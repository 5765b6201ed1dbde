"""Storms: random programs under random schedules, and each replays as it was.

A program is drawn from its seed: agents that call tools in parallel, the same call
more than once, tools that fail, race, take their time or ask other agents, calls
that need approval, runs that are streamed, limited or cancelled. What the tools do
in time is not drawn: it is different in every run, and the trace has to hold it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from agentkit import Agent, Decision, Limits, RunContext, Tool, ToolError
from agentkit.errors import AgentKitError, ToolsFailed
from agentkit.events import Event, OutputDelta
from agentkit.messages import ModelRequest
from agentkit.testing import FunctionModel
from tests.support import sized

PROGRAMS = sized(30, 500)
"""On each backend."""


class Program:
    """One random program. `live` counts what is done for real."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.live = 0
        self.counter = 0
        self.dice = random.Random()  # the schedule: another one in every run
        self.scripts = {
            name: [self._step(depth) for _ in range(self.draw.randint(0, 2))]
            for depth, name in enumerate(("agent", "inner", "innermost"))
        }
        self.limits = self.draw.choice(
            [Limits(), Limits(), Limits(parallel=1), Limits(parallel=2), Limits(tool_calls=4)]
        )
        self.streamed = self.draw.random() < 0.5
        self.cancel_after = self.draw.choice([None, None, None, self.draw.randint(1, 25)])
        self.decision = self.draw.choice(
            [Decision.approve(), Decision.deny("no"), Decision.edit({"key": 9}), None]
        )
        self.agent = self._agent("agent", 0)

    def _step(self, depth: int) -> list[tuple[str, dict[str, Any]]]:
        names = ["jitter", "jitter", "race", "fail", "blocking", "gated", "alone", "unknown"]
        names += ["ask", "hurry"] * (depth < 2)
        chosen = [self.draw.choice(names) for _ in range(self.draw.randint(1, 4))]
        return [(name, {"key": self.draw.randint(0, 1)}) for name in chosen]

    def _agent(self, name: str, depth: int) -> Agent[str]:
        script = self.scripts[name]

        def answer(request: ModelRequest) -> Any:
            self.live += 1
            said = sum(message.to_json()["role"] == "assistant" for message in request.messages)
            return script[said] if said < len(script) else f"{name} is done after {said}"

        tools = [
            Tool(self.jitter, effect="read"),
            Tool(self.race, retries=1),
            Tool(self.fail, retries=1 if depth == 0 else 0),
            Tool(self.blocking),
            Tool(self.gated, approval=depth < 2),
            Tool(self.fail, name="alone", sequential=True),
        ]
        if depth < 2:
            tools += self._asking(("inner", "innermost")[depth], depth + 1)
        limits = self.limits if depth == 0 else None
        return Agent(FunctionModel(answer), name=name, tools=tools, limits=limits)

    def _asking(self, name: str, depth: int) -> list[Tool[..., Any]]:
        """Tools that ask other agents."""

        async def ask(context: RunContext, key: int) -> str:
            self.live += 1
            await self.pause()
            return (await context.run(self._agent(name, depth), f"go {key}")).output

        async def hurry(context: RunContext, key: int) -> str:
            self.live += 1
            with anyio.move_on_after(self.dice.choice([0, 0.001, 1])):
                async with anyio.create_task_group() as group:
                    for one in ("a", "b"):
                        group.start_soon(context_run, context, self._agent(name, depth), one)
            return "hurried"

        return [Tool(ask), Tool(hurry)]

    async def pause(self) -> None:
        for _ in range(self.dice.randint(0, 6)):
            await anyio.lowlevel.checkpoint()
        if self.dice.random() < 0.1:
            await anyio.sleep(0.001)

    async def jitter(self, context: RunContext, key: int) -> str:
        self.live += 1
        for turn in range(self.dice.randint(0, 2)):
            context.progress(turn)
            await self.pause()
        return f"{context.random()} {key}"

    async def race(self, key: int) -> int:
        self.live += 1
        await self.pause()
        self.counter += 1
        return self.counter

    async def fail(self, key: int) -> str:
        self.live += 1
        await self.pause()
        raise self.dice.choice([ToolError("try otherwise"), ValueError("broken")])

    def blocking(self, context: RunContext, key: int) -> str:
        # Not counted: the thread of a cancelled run may begin when its replay goes on already.
        context.progress("in a thread")
        return str(key)

    async def gated(self, key: int) -> int:
        self.live += 1
        await self.pause()
        return key

    async def run(self) -> tuple[Any, Exception | None, list[Event]]:
        """Run it for real: what it came to, how it failed, and what was seen."""
        events: list[Event] = []
        options: dict[str, Any] = {"approver": lambda pending: self.decision}
        if not self.streamed and self.cancel_after is None:
            try:
                result = await self.agent.run("go", on_event=events.append, **options)
            except (AgentKitError, ToolsFailed) as error:
                return error.result, error, events
            return result, None, events
        async with self.agent.stream("go", **options) as run:
            async for event in run:
                events.append(event)
                if len(events) == self.cancel_after:
                    run.cancel()
        try:
            return run.result, None, events
        except (AgentKitError, ToolsFailed) as error:
            return error.result, error, events


async def context_run(context: RunContext, inner: Agent[str], name: str) -> None:
    """Ask an agent under a name that does not depend on who is faster."""
    await context.run(inner, name, name=name)


def comparable(events: Sequence[Event]) -> list[Event]:
    """Events without what only a stream has: partial outputs are made of the others."""
    return [event for event in events if not isinstance(event, OutputDelta)]


@pytest.mark.storm
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_storm(backend: str) -> None:
    """Same result, same messages, same events in the same order, and nothing done for real."""

    async def main() -> None:
        for seed in range(PROGRAMS):
            program = Program(seed)
            result, error, events = await program.run()
            done, program.live = program.live, 0
            assert done > 0 or program.cancel_after
            assert result.trace is not None
            seen: list[Event] = []
            raised: Exception | None = None
            try:
                again = await program.agent.replay(result.trace, on_event=seen.append)
            except (AgentKitError, ToolsFailed) as caught:
                again, raised = caught.result, caught
            where = f"program {seed} on {backend}: {raised or error}"
            assert again == result, where
            assert type(raised) is type(error) or result.status == "cancelled", where
            assert program.live == 0, where
            assert comparable(seen) == comparable(events), where

    anyio.run(main, backend=backend)
