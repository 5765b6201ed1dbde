"""What type checkers make of agents: checked by pyright, mypy and pyrefly, never run."""

from __future__ import annotations

from typing import assert_type

from pydantic import BaseModel

from agentkit import Agent, ChatSettings, RunContext, RunResult, Session, tool
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


assert_type(plain, Agent[None, str])
assert_type(Agent("openai:gpt-4o", output=book), Agent[None, Trip])
assert_type(Agent("openai:gpt-4o", output=book_later), Agent[None, Trip])
assert_type(plain.with_(output=book), Agent[None, Trip])
assert_type(typed.as_tool(timeout=10.0, approval=True).name, str)
assert_type(typed, Agent[None, Trip])
assert_type(numbers, Agent[None, list[int]])
assert_type(typed.with_(model="local", name="other"), Agent[None, Trip])
assert_type(plain.with_(output=Trip), Agent[None, Trip])
assert_type(typed.run_sync("go"), RunResult[Trip])
assert_type(typed.run_sync("go").output, Trip)
assert_type(look(RunContext(deps=1), "here"), float)


async def ways() -> None:
    """Every way to drive an agent keeps its output type."""
    assert_type((await plain.run("go")).output, str)
    async with typed.stream("go") as run:
        assert_type(run, Run[Trip])
    assert_type(run.result.output, Trip)
    async with numbers.iter("go") as steps:
        assert_type(steps, Steps[list[int]])
    assert_type((await typed.resume("run.jsonl")).output, Trip)


class Shop:
    """What tools, instructions and validators get as deps."""


def instruct(context: RunContext[Shop]) -> str:
    """Instructions with deps."""
    return str(context.deps)


def check(output: Trip) -> None:
    """A validator of the output."""


def check_in(context: RunContext[Shop], output: Trip) -> None:
    """A validator of the output, with deps."""


shop = Agent(
    "openai:gpt-4o",
    deps_type=Shop,
    output=Trip,
    instructions=instruct,
    step_settings=lambda: ChatSettings(),
    output_validators=[check, check_in],
)
assert_type(shop, Agent[Shop, Trip])
assert_type(shop.with_(name="other"), Agent[Shop, Trip])
assert_type(shop.with_(output=int), Agent[Shop, int])
assert_type(shop.run_sync("go", deps=Shop()), RunResult[Trip])
assert_type(Session(shop, deps=Shop()), Session[Shop, Trip])
assert_type(Session(plain).run_sync("go"), RunResult[str])
Agent("local", deps_type=int, instructions=instruct)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
Agent("local", instructions=instruct)  # type: ignore[call-overload, unused-ignore]  # pyright: ignore[reportCallIssue, reportArgumentType]
shop.run_sync("go", deps=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Agent("local", tool=[look])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
