"""What type checkers make of agents: checked by pyright, mypy and pyrefly, never run."""

from __future__ import annotations

from typing import assert_type

from pydantic import BaseModel

from agentkit import Agent, RunContext, RunResult, tool
from agentkit.runtime.run import Run, Steps


class Trip(BaseModel):
    """An output type."""

    city: str


@tool
def look(context: RunContext[int], place: str) -> float:
    """Look somewhere."""
    return context.deps * 1.0


plain = Agent("openai:gpt-4o", tools=[look], instructions="Be brief.")
typed = Agent("openai:gpt-4o", output=Trip, name="trips")
numbers = Agent("openai:gpt-4o", output=list[int])


def book(city: str, days: int) -> Trip:
    """A function that gets the output."""
    return Trip(city=city)


async def book_later(city: str) -> Trip:
    """The same, async."""
    return Trip(city=city)


assert_type(plain, Agent[str])
assert_type(Agent("openai:gpt-4o", output=book), Agent[Trip])
assert_type(Agent("openai:gpt-4o", output=book_later), Agent[Trip])
assert_type(plain.with_(output=book), Agent[Trip])
assert_type(typed.as_tool(timeout=10.0, approval=True).name, str)
assert_type(typed, Agent[Trip])
assert_type(numbers, Agent[list[int]])
assert_type(typed.with_(model="local", name="other"), Agent[Trip])
assert_type(plain.with_(output=Trip), Agent[Trip])
assert_type(typed.run_sync("go"), RunResult[Trip])
assert_type(typed.run_sync("go").output, Trip)
assert_type(look(RunContext(deps=1), "here"), float)


async def ways() -> None:
    """Every way to drive an agent keeps its output type."""
    assert_type((await plain.run("go")).output, str)
    async with typed.stream("go", deps=3) as run:
        assert_type(run, Run[Trip])
    assert_type(run.result.output, Trip)
    async with numbers.iter("go") as steps:
        assert_type(steps, Steps[list[int]])
    assert_type((await typed.resume("run.jsonl")).output, Trip)


@typed.output_validator
def check(output: Trip) -> None:
    """A validator keeps its own type."""


assert_type(check(Trip(city="Paris")), None)
