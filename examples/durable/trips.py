"""Trips on Temporal: workers that may die, runs that go on. README.md tells how to follow it.

python trips.py work            # a worker; start as many as you like
python trips.py start 10        # start ten runs, and wait for them
python trips.py measure 10      # what ten runs cost; start workers with --seconds 0 for that
"""

import argparse
import asyncio
import os
import time
from pathlib import Path
from typing import Any

from temporalio.client import Client

from agentkit import Agent, AgentKitError, Model, RunContext, tool
from agentkit.durable.temporal import HostedRun, start, worker
from agentkit.errors import ServerUnreachable
from agentkit.messages import AssistantMessage, ModelRequest
from agentkit.testing import FunctionModel

CITIES = ["Rome", "Paris", "Tokyo", "Oslo", "Lima"]
BOOKINGS = Path("bookings")
seconds = 2.0
"""How long the services behind the tools take."""


@tool(effect="read")
async def find_hotel(city: str) -> dict[str, str | int]:
    """Find a hotel in a city."""
    await asyncio.sleep(seconds)
    return {"hotel": f"Hotel {city}", "price": 90}


@tool(on_crash="retry")
async def book(context: RunContext[None], hotel: str) -> str:
    """Book a hotel."""
    await asyncio.sleep(seconds)
    write_booking(context.key, hotel)
    return f"{hotel} is booked."


def write_booking(key: str, hotel: str) -> None:
    """Be the service: it books once, however often it gets the same key."""
    BOOKINGS.mkdir(exist_ok=True)
    (BOOKINGS / key.replace("/", ".")).write_text(hotel, encoding="utf-8")


def script(request: ModelRequest) -> Any:
    """Answer as a model would, by what the conversation has so far."""
    city = request.messages[-1].text.rpartition(" ")[2].rstrip(".")
    match sum(isinstance(one, AssistantMessage) for one in request.messages):
        case 0:
            return [("find_hotel", {"city": city})]
        case 1:
            return [("book", {"hotel": "Hotel " + request.messages[-3].text.rpartition(" ")[2]})]
        case _:
            return request.messages[-1].text


def make_agent(model: str | Model) -> Agent:
    """Return the agent that every worker hosts."""
    return Agent(model, name="trips", tools=[find_hotel, book])


async def work(client: Client, agent: Agent, blobs: str) -> None:
    """Host the agent until the process ends."""
    one = worker(client, agents=[agent], blobs=blobs, heartbeat=5)
    print(f"Worker {os.getpid()} is ready.", flush=True)
    await one.run()


async def begin(client: Client, blobs: str, number: int) -> list[HostedRun[Any]]:
    """Start runs, each with a prompt of its own."""
    return [
        await start(client, "trips", f"Book a hotel in {CITIES[n % len(CITIES)]}", blobs=blobs)
        for n in range(number)
    ]


async def report(run: HostedRun[Any], began: float) -> None:
    """Print the end of a run when it comes."""
    try:
        text = str((await run.result()).output)
    except AgentKitError as error:
        text = f"{type(error).__name__}: {error.message}"
    print(f"{time.monotonic() - began:5.1f} s  {run.id}: {text}", flush=True)


async def begin_and_wait(client: Client, blobs: str, number: int) -> None:
    """Start runs and print their ends as they come."""
    began = time.monotonic()
    runs = await begin(client, blobs, number)
    print(f"{number} runs have been started.", flush=True)
    await asyncio.gather(*(report(run, began) for run in runs))


async def measure(client: Client, blobs: str, number: int) -> None:
    """Print what runs cost: events and bytes of history, bytes of blobs, activities a second."""
    before, began = stored(blobs), time.monotonic()
    runs = await begin(client, blobs, number)
    await asyncio.gather(*(run.result() for run in runs))
    took, activities, events, size = time.monotonic() - began, 0, 0, 0
    for run in runs:
        history = (await client.get_workflow_handle(run.id).fetch_history()).events
        activities += sum(
            one.HasField("activity_task_completed_event_attributes") for one in history
        )
        events += len(history)
        size += sum(one.ByteSize() for one in history)
    print(f"{number} runs in {took:.1f} s: {number / took:.1f} runs/s, ", end="")
    print(f"{activities / took:.0f} activities/s")
    print(
        f"a run: {activities / number:.0f} activities, {events / number:.0f} events of history, ",
        end="",
    )
    print(f"{size / number / 1000:.1f} kB of history, ", end="")
    print(f"{(stored(blobs) - before) / number / 1000:.1f} kB of blobs and trace")


def stored(blobs: str) -> int:
    """Return the bytes in a store that is a folder."""
    return sum(one.stat().st_size for one in Path(blobs).rglob("*") if one.is_file())


async def run(options: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    global seconds
    seconds = options.seconds
    host, _, port = options.server.rpartition(":")
    try:  # first: the SDK may abort a process that ends right after it has failed to connect
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
    except OSError as error:
        raise ServerUnreachable(
            f"There is no Temporal server at {options.server}; start it, or name it with --server.",
            server="temporal",
        ) from error
    client = await Client.connect(options.server)
    match options.command:
        case "work":
            model = FunctionModel(script) if options.model == "script" else options.model
            await work(client, make_agent(model), options.blobs)
        case "start":
            await begin_and_wait(client, options.blobs, options.number)
        case _:
            await measure(client, options.blobs, options.number)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["work", "start", "measure"])
    parser.add_argument("number", type=int, nargs="?", default=10)
    parser.add_argument("--server", default="127.0.0.1:7233")
    parser.add_argument("--blobs", default="blobs")
    parser.add_argument("--seconds", type=float, default=seconds, help="that a tool takes")
    parser.add_argument("--model", default="script", help="such as local; script by default")
    options = parser.parse_args()
    try:
        asyncio.run(run(options))
    except KeyboardInterrupt:
        parser.exit(130)
    except AgentKitError as error:
        parser.exit(1, f"{type(error).__name__}: {error.message}\n")


if __name__ == "__main__":
    main()
