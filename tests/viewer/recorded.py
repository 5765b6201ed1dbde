"""Runs that the viewer is tried with: a rich one, and one of each way in which a run may end.

`python -m tests.viewer.recorded FOLDER` records them into a folder.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import anyio
import structlog

from agentkit import Agent, ChatModel, Decision, Handoff, Limits, Trace, tool
from agentkit.errors import AgentKitError
from agentkit.messages import Usage
from agentkit.models import Price
from agentkit.redaction import Redactor
from agentkit.testing import ChatServer, FunctionModel, ScriptedModel, raw, reply
from agentkit.trace import to_trace

HOSTILE = (
    "<!--<script>alert(1)</script><!-- </template></style></textarea> "
    '<img src=x onerror=alert(1)> <a href="javascript:alert(1)">click</a> javascript:alert(2) '
    "\x1b[31mred\x1b[0m \x1b]8;;http://evil.example\x07link\x1b]8;;\x07 "
    "\u202egnp.exe\u202c \u200bzero\u2066 \x00nul \ufeffbom 😀 العربية"
)
"""What a model, a tool or a server may write."""


@tool(effect="read")
async def search_flights(origin: str, to: str, day: str = "2026-12-04") -> list[dict[str, Any]]:
    """Look for flights.

    Args:
        origin: The airport from which one leaves, as its code.
        to: The airport of arrival.
        day: The day of departure.
    """
    await anyio.sleep(0.18 if to == "LIS" else 0.09)
    structlog.get_logger().info("searched", airline_count=14, origin=origin, to=to)
    return [
        {"flight": "TP 571", "leaves": f"{day}T09:40", "price": 184.0, "seats": 3},
        {"flight": "LH 1172", "leaves": f"{day}T13:05", "price": 212.5, "seats": 9},
    ]


@tool(effect="read")
async def find_hotels(city: str, nights: int, stars: Literal[3, 4, 5] = 4) -> list[dict[str, Any]]:
    """Find hotels with free rooms.

    Args:
        city: The city.
        nights: How many nights.
        stars: The least number of stars.
    """
    await anyio.sleep(0.12)
    if city == "Porto":
        structlog.get_logger().warning("no partner hotel", city=city, stars=stars)
        raise LookupError(f"No partner hotel in {city} with {stars} stars")
    return [{"name": "Casa do Rio", "stars": stars, "total": 96.0 * nights}]


@tool
async def book(flight: str, hotel: str) -> str:
    """Book a trip.

    Args:
        flight: The number of the flight.
        hotel: The name of the hotel.
    """
    await anyio.sleep(0.03)
    return f"booked {flight} and {hotel}, reference QX7-2219"


GUIDE = "Lisbon in December is mild: about 15 °C, with showers. Trams are slow and lovely."


def _guide() -> Agent[Any]:
    steps = [[("look_up", {"topic": "weather"}), ("look_up", {"topic": "trams"})], GUIDE]

    @tool(effect="read")
    async def look_up(topic: str) -> str:
        """Look something up in the guide book."""
        await anyio.sleep(0.05)
        return f"about {topic}: see page {len(topic)}"

    return Agent(
        ScriptedModel(steps), name="guide", tools=[look_up], instructions="You know Lisbon."
    )


def _travel(base_url: str) -> Agent[Any]:
    model = ChatModel(
        "travel-large", base_url=base_url, api_key="secret", price=Price(input=2.5, output=10)
    )
    about = "Ask somebody who knows the city."
    return Agent(
        model,
        name="planner",
        tools=[search_flights, find_hotels, book, _guide().as_tool(description=about)],
        instructions="Plan short trips. Compare at least two flights, and never book without "
        "a hotel. Prices are in euros.",
    )


PROMPT = "Find me a weekend in Lisbon in early December, from Frankfurt, for less than 450 euros."
ANSWER = (
    "Fly with **TP 571** on 4 December at 09:40 (184 €) and stay at *Casa do Rio* for two "
    "nights (192 €). Together that is 376 €, well below 450 €. It will be about 15 °C, "
    "with showers: take a jacket, and a tram."
)


def rich(path: Path) -> Trace:
    """Record a run over HTTP: streamed, retried, with calls side by side and an agent in one."""
    busy = raw(429, {"error": {"message": "slow down"}}, headers={"retry-after": "0"})
    first = [
        ("search_flights", {"origin": "FRA", "to": "LIS"}),
        ("search_flights", {"origin": "FRA", "to": "OPO"}),
        ("find_hotels", {"city": "Lisbon", "nights": 2}),
        ("find_hotels", {"city": "Porto", "nights": 2, "stars": 5}),
    ]
    second = [
        ("guide", {"prompt": "What is Lisbon like in December?"}),
        ("find_hotels", {"city": "Lisbon", "nights": "two"}),
    ]
    third = [("book", {"flight": "TP 571", "hotel": "Casa do Rio"})]
    replies = [
        reply(calls=first, delay=0.12, usage=Usage(input_tokens=412, output_tokens=96)),
        busy,
        reply(
            "Let me ask somebody who knows the city.",
            calls=second,
            delay=0.1,
            pause=0.01,
            usage=Usage(input_tokens=871, output_tokens=58, cached_tokens=384),
        ),
        reply(calls=third, delay=0.08, usage=Usage(input_tokens=1204, output_tokens=31)),
        reply(ANSWER, delay=0.06, pause=0.02, usage=Usage(input_tokens=1260, output_tokens=88)),
    ]
    structlog.configure(processors=[structlog.processors.add_log_level, to_trace, _silent])
    try:
        with ChatServer(replies) as server:
            agent = _travel(server.base_url)

            async def main() -> None:
                async with agent.stream(PROMPT, trace=path) as stream:
                    async for _ in stream:
                        pass

            anyio.run(main)
    finally:
        structlog.reset_defaults()
    return Trace.load(path)


def _silent(*_: Any) -> Any:
    raise structlog.DropEvent


@tool(effect="read")
async def double(number: int) -> int:
    """Double a number."""
    if number == 13:
        raise ValueError("an unlucky number")
    await anyio.sleep(0.002)
    return 2 * number


@tool(approval=True)
def delete(path: str) -> str:
    """Delete a file."""
    return f"{path} is gone"


SCRIPT = [[("double", {"number": 2}), ("double", {"number": 13})], "Four, and no luck."]


def plain(path: Path) -> Trace:
    """Record a small run, with a call that fails."""
    Agent(ScriptedModel(SCRIPT), tools=[double], instructions="Count.").run_sync(
        "Double 2 and 13", trace=path
    )
    return Trace.load(path)


def other(path: Path) -> Trace:
    """Record the same run with another answer."""
    script = [[("double", {"number": 2}), ("double", {"number": 14})], "Four, and twenty-eight."]
    Agent(ScriptedModel(script), tools=[double], instructions="Count.").run_sync(
        "Double 2 and 13", trace=path
    )
    return Trace.load(path)


def bare(path: Path) -> Trace:
    """Record the small run without its contents."""
    Agent(ScriptedModel(SCRIPT), tools=[double]).run_sync(
        "Double 2 and 13", trace=path, capture="metadata"
    )
    return Trace.load(path)


def unfinished(path: Path) -> Trace:
    """Record a run whose process was killed while a tool ran: the last line is torn."""
    whole = plain(path.with_suffix(".whole"))
    lines = [*whole.raw()]
    ends = [index for index, line in enumerate(lines) if b'"tool.end"' in line]
    path.write_bytes(b"".join(lines[: ends[0]]) + lines[ends[0]][:20])
    path.with_suffix(".whole").unlink()
    return Trace.load(path)


def crashed(path: Path) -> Trace:
    """Record a run that its own code ends with an exception."""

    @tool(on_error="raise")
    def explode(fuse: int) -> str:
        """Explode."""
        raise ZeroDivisionError("a fuse of length nought")

    agent = Agent(ScriptedModel([[("explode", {"fuse": 0})], "never"]), tools=[explode])
    try:
        agent.run_sync("Light it", trace=path)
    except Exception:
        return Trace.load(path)
    raise AssertionError("it did not crash")


def cancelled(path: Path) -> Trace:
    """Record a run that is cancelled while a tool runs."""

    @tool(effect="read")
    async def wait() -> str:
        """Wait for ever."""
        waits.set()
        await anyio.sleep_forever()
        return ""

    waits = anyio.Event()
    agent = Agent(ScriptedModel([[("wait", {})], "never"]), tools=[wait])

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(agent.run, "Wait", trace=path))
            await waits.wait()
            await anyio.sleep(0.2)
            group.cancel_scope.cancel()

    anyio.run(main)
    return Trace.load(path)


def _cleaner() -> Agent[Any]:
    script = [[("delete", {"path": "/tmp/a b"}), ("double", {"number": 3})], "Done."]
    return Agent(ScriptedModel(script), tools=[delete, double], name="cleaner")


def paused(path: Path) -> Trace:
    """Record a run that waits for a decision."""
    _cleaner().run_sync("Clean up", trace=path)
    return Trace.load(path)


def resumed(path: Path) -> Trace:
    """Record a run that was paused, and went on with a denial."""
    agent = _cleaner()
    agent.run_sync("Clean up", trace=path)
    agent.resume_sync(path, decisions={"/cleaner/m0/t0": Decision.deny("that is my file")})
    return Trace.load(path)


def forked(path: Path) -> Trace:
    """Record a fork: the result of a call is another."""
    original = path.with_suffix(".original")
    agent = Agent(
        FunctionModel(lambda request: SCRIPT[0] if len(request.messages) < 3 else "Other."),
        tools=[double],
        instructions="Count.",
    )
    agent.run_sync("Double 2 and 13", trace=original)
    agent.fork_sync(original, at="/agent/m0/t1", result="26", record=path)
    original.unlink()
    return Trace.load(path)


def handed_over(path: Path) -> Trace:
    """Record a run in which one agent hands the conversation to another."""
    french = Agent(ScriptedModel(["Bonjour, je vous aide."]), name="french")
    script = [[("transfer_to_french", {})]]
    front = Agent(ScriptedModel(script), name="front", tools=[Handoff(french)])
    front.run_sync("Bonjour", trace=path)
    return Trace.load(path)


def nested(path: Path) -> Trace:
    """Record agents in agents in agents."""
    inner = Agent(
        ScriptedModel([[("double", {"number": 5})], "ten"] * 2), name="inner", tools=[double]
    )
    middle = Agent(
        ScriptedModel([[("inner", {"prompt": "5?"}), ("inner", {"prompt": "5 again?"})], "10, 10"]),
        name="middle",
        tools=[inner.as_tool(description="Count.")],
    )
    outer = Agent(
        ScriptedModel([[("middle", {"prompt": "double five"})], "It is ten."]),
        name="outer",
        tools=[middle.as_tool(description="Delegate.")],
    )
    outer.run_sync("Double five", trace=path)
    return Trace.load(path)


def hostile(path: Path) -> Trace:
    """Record a run in which every text tries to break out of the page."""

    @tool(effect="read")
    def fetch(url: str) -> str:
        """Fetch."""
        if "fail" in url:
            raise RuntimeError(HOSTILE)
        return json.dumps({"html": HOSTILE, HOSTILE: [HOSTILE, 12345678901234567890]})

    calls = [("fetch", {"url": HOSTILE}), ("fetch", {"url": f"fail {HOSTILE}"})]
    agent = Agent(
        ScriptedModel([calls, HOSTILE], name=HOSTILE), tools=[fetch], instructions=HOSTILE
    )
    agent.run_sync(HOSTILE, trace=path)
    return Trace.load(path)


def _served(path: Path, *, streamed: bool) -> Trace:
    """Record the client's run of an agent that is served over a socket, hostile tool and all."""
    from agentkit.serve import app
    from tests.support import running

    @tool(effect="read")
    def look(city: str) -> str:
        """Look."""
        if city == "Nowhere":
            raise LookupError("constructor")
        return HOSTILE

    script = [[("look", {"city": "Paris"}), ("look", {"city": "Nowhere"})], "An umbrella."]
    with running(app([Agent(ScriptedModel(script), name="weather", tools=[look])])) as url:
        agent = Agent(ChatModel("weather", base_url=f"{url}/v1", api_key="none"))

        async def main() -> None:
            if not streamed:
                await agent.run("Umbrella?", trace=path)
                return
            async with agent.stream("Umbrella?", trace=path) as stream:
                async for _ in stream:
                    pass

        anyio.run(main)
    return Trace.load(path)


def served(path: Path) -> Trace:
    """Record an agent of agents over the wire, not streamed."""
    return _served(path, streamed=False)


def served_streamed(path: Path) -> Trace:
    """Record it streamed."""
    return _served(path, streamed=True)


def secret(path: Path) -> Trace:
    """Record a run with a key in it, which the trace does not hold."""
    key = "sk-" + "a1B2c3D4" * 5

    @tool(effect="read")
    def login(password: str) -> str:
        """Log in."""
        return f"the key is {key}"

    agent = Agent(ScriptedModel([[("login", {"password": key})], f"It is {key}"]), tools=[login])
    agent.run_sync(f"Use {key}", trace=path, redact=Redactor(key="k"))
    return Trace.load(path)


def limited(path: Path) -> Trace:
    """Record a run that ends at a limit."""
    agent = Agent(ScriptedModel([SCRIPT[0]] * 3), tools=[double], limits=Limits(steps=1))
    try:
        agent.run_sync("Double 2 and 13", trace=path)
    except AgentKitError:
        return Trace.load(path)
    raise AssertionError("there was no limit")


def huge(path: Path, size: int = 10_000_000) -> Trace:
    """Record a tool result of 10 MB."""

    @tool(effect="read", max_output=None)
    def dump() -> str:
        """Dump."""
        line = "0123456789 abcdefghij <b>not markup</b>\n"
        return line * (size // len(line)) + "the needle at the end"

    Agent(ScriptedModel([[("dump", {})], "That was long."]), tools=[dump]).run_sync(
        "Dump it", trace=path
    )
    return Trace.load(path)


def long(path: Path, steps: int = 200) -> Trace:
    """Record a run of more than 10,000 events."""

    @tool(effect="read")
    async def quick(number: int) -> int:
        """Count."""
        if number == 2500:
            raise ValueError("right in the middle")
        return number

    answers = [
        *([("quick", {"number": 25 * step + call}) for call in range(25)] for step in range(steps)),
        "That is all.",
    ]
    agent = Agent(ScriptedModel(answers), tools=[quick], limits=Limits(steps=steps + 1))
    agent.run_sync("Count far", trace=path)
    return Trace.load(path)


RUNS: dict[str, Callable[[Path], Trace]] = {
    one.__name__: one
    for one in (
        rich,
        plain,
        other,
        bare,
        unfinished,
        crashed,
        cancelled,
        paused,
        resumed,
        forked,
        handed_over,
        nested,
        hostile,
        served,
        served_streamed,
        secret,
        limited,
        huge,
        long,
    )
}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, record in RUNS.items():
        began = time.monotonic()
        try:
            trace = record(folder / f"{name}.jsonl")
            print(name, trace.status, len(trace.events), f"{time.monotonic() - began:.1f} s")
        except Exception as error:
            print(name, "FAILED", type(error), str(error)[:600])
