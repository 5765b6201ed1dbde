"""A worker process: ADDRESS QUEUE BLOBS."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta

from temporalio.client import Client

from agentkit.durable.temporal import Blobs, worker
from tests.durable.temporal.agents import AGENTS, rebuilt


async def main(address: str, queue: str, blobs: str) -> None:
    """Work until the process ends."""
    client = await Client.connect(address)
    one = worker(
        client,
        agents=AGENTS,
        task_queue=queue,
        blobs=blobs,
        deps=rebuilt,
        heartbeat=float(os.environ.get("HEARTBEAT", "2")),
        attempts=int(os.environ.get("ATTEMPTS", "5")),
        # How long the server waits for a dead worker before it asks another: 10 s by default.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    )
    Blobs(blobs).write_now(f"ready/{os.getpid()}", b"")
    await one.run()


asyncio.run(main(*sys.argv[1:]))
