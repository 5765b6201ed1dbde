"""The agents of these tests: workers of several processes and the tests themselves import them.

Their models answer by the request alone, so that it does not matter which process is asked.
Tools that write say so in the file EFFECTS, a line a call.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agentkit import Agent, Handoff, Limits, RunContext, ToolError, tool
from agentkit.messages import AssistantMessage, ModelRequest
from agentkit.testing import FunctionModel

Script = Callable[[int, ModelRequest], Any]


def scripted(script: Script) -> FunctionModel:
    """A model whose answer depends on how many it has given in this conversation."""

    def answer(request: ModelRequest) -> Any:
        given = sum(isinstance(one, AssistantMessage) for one in request.messages)
        return script(given, request)

    return FunctionModel(answer)


def note(line: str) -> None:
    """Write to the log of effects, which is of no process."""
    if path := os.environ.get("EFFECTS"):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)


@tool(effect="read")
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def post(context: RunContext[Any], text: str) -> str:
    """Post a text."""
    note(f"post {context.key} {text}")
    return f"posted {text} at {context.now():%Y}"


def _adding(turns: int) -> Script:
    def script(given: int, request: ModelRequest) -> Any:
        if given < turns:
            return [("add", {"a": given, "b": 1}), ("post", {"text": f"step {given}"})]
        return f"done after {given}"

    return script


adder = Agent(scripted(_adding(3)), name="adder", tools=[add, post], instructions="Add.")


@tool(effect="read")
async def wait(seconds: float) -> str:
    """Wait."""
    note("waiting")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note("cancelled")
        raise
    return "waited"


@tool
async def slow_post(context: RunContext[Any], text: str) -> str:
    """Post a text, slowly."""
    note(f"begin {context.key} {os.getpid()}")
    await asyncio.sleep(0.4)
    note(f"end {context.key} {os.getpid()}")
    return f"posted {text}"


def _slow(given: int, request: ModelRequest) -> Any:
    steps = [[("wait", {"seconds": 0.3})], [("slow_post", {"text": "x"})], "done"]
    return steps[given]


slow = Agent(scripted(_slow), name="slow", tools=[wait, slow_post.with_(on_crash="retry")])
careful = Agent(scripted(_slow), name="careful", tools=[wait, slow_post])
waiter = Agent(
    scripted(lambda given, request: [[("wait", {"seconds": 60})], "done"][given]),
    name="waiter",
    tools=[wait],
)


@tool(approval=True)
def refund(context: RunContext[Any], amount: int) -> str:
    """Refund an amount."""
    note(f"refund {amount}")
    return f"refunded {amount}"


def _refunding(given: int, request: ModelRequest) -> Any:
    if given == 0:
        return [("refund", {"amount": 5}), ("refund", {"amount": 6}), ("add", {"a": 1, "b": 1})]
    return request.messages[-2].text + " and " + request.messages[-3].text


clerk = Agent(scripted(_refunding), name="clerk", tools=[refund, add])


def _research(given: int, request: ModelRequest) -> Any:
    return [("refund", {"amount": 7})] if given == 0 else f"found: {request.messages[-1].text}"


research = Agent(scripted(_research), name="research", tools=[refund], instructions="Look.")
reader = Agent(
    scripted(lambda given, _: [("add", {"a": 1, "b": 2})] if given == 0 else "read 3"),
    name="reader",
    tools=[add],
)


@tool
async def both(context: RunContext[Any], topic: str) -> str:
    """Ask two readers, one after the other."""
    number = context.random()
    first = await context.run(reader, f"{topic} one")
    second = await context.run(reader, f"{topic} two")
    return f"{first.output}, {second.output}, {number == context.random()}"


def _planning(given: int, request: ModelRequest) -> Any:
    steps: list[Any] = [
        [("reader", {"prompt": "a"}), ("both", {"topic": "b"})],
        [("research", {"prompt": "c"})],
    ]
    return steps[given] if given < 2 else request.messages[-1].text


planner = Agent(
    scripted(_planning), name="planner", tools=[reader.as_tool(), both, research.as_tool()]
)


class Report(BaseModel):
    """What an analyst returns."""

    title: str
    pages: int


def _reporting(given: int, request: ModelRequest) -> Any:
    if given == 0:
        return '{"title": "no pages"}'
    return '{"title": "Sales", "pages": 3}'


analyst = Agent(
    scripted(_reporting),
    name="analyst",
    output=Report,
    instructions=lambda: "Report.",
    output_retries=2,
)


def _front(given: int, request: ModelRequest) -> Any:
    return [("transfer_to_adder", {})]


front = Agent(scripted(_front), name="front", tools=[Handoff(adder)])


@tool(effect="read", max_output=None)
def dump(size: int) -> str:
    """Return a text of this size."""
    return "x" * size


def _dumping(given: int, request: ModelRequest) -> Any:
    if given == 0:
        return [("dump", {"size": 5_000_000})]
    return f"read {len(request.messages[-1].text)}"


dumper = Agent(scripted(_dumping), name="dumper", tools=[dump])


@tool(effect="read", retries=2)
def flaky(context: RunContext[Any]) -> str:
    """Fail twice."""
    note(f"flaky {context.attempt}")
    if context.attempt < 2:
        raise OSError("not yet")
    return "at last"


@tool(effect="read")
def broken() -> str:
    """Fail always."""
    note("broken")
    raise ToolError("It never works.")


@tool(effect="read")
def deadly() -> str:
    """End the process."""
    note("deadly")
    time.sleep(0.05)
    os._exit(1)


def _poisoned(given: int, request: ModelRequest) -> Any:
    if given == 0:
        return [("flaky", {}), ("broken", {})]
    return "; ".join(one.text for one in request.messages[-2:])


poisoned = Agent(scripted(_poisoned), name="poisoned", tools=[flaky, broken])
killer = Agent(
    scripted(lambda given, request: [("deadly", {})] if not given else request.messages[-1].text),
    name="killer",
    tools=[deadly],
)


@tool(effect="read")
def lookup(context: RunContext[dict[str, str]], name: str) -> str:
    """Look a name up."""
    return context.deps[name]


customers = Agent(
    scripted(lambda given, r: [("lookup", {"name": "city"})] if not given else r.messages[-1].text),
    name="customers",
    tools=[lookup],
    deps_type=dict,
)

bounded = adder.with_(name="bounded", limits=Limits(tool_calls=3))


def rebuilt(ref: Any) -> dict[str, str]:
    """Make deps of a reference: the name of a customer."""
    known = {"ada": {"city": "London"}}
    return known[ref]


AGENTS: list[Agent[Any, Any]] = [
    adder, slow, careful, waiter, clerk, research, reader, planner, analyst, front, dumper,
    poisoned, killer, customers, bounded,
]  # fmt: skip


def effects(path: Path) -> list[str]:
    """Return the log of effects."""
    return path.read_text().splitlines() if path.exists() else []
