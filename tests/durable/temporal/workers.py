"""A worker process: ADDRESS QUEUE BLOBS."""

from __future__ import annotations

import asyncio
import os
import sys

from temporalio.client import Client

from agentkit.durable.temporal import worker
from tests.durable.temporal.agents import AGENTS, rebuilt


async def main(address: str, queue: str, blobs: str) -> None:
    """Work until the process ends."""
    client = await Client.connect(address)
    await worker(
        client,
        agents=AGENTS,
        task_queue=queue,
        blobs=blobs,
        deps=rebuilt,
        heartbeat=float(os.environ.get("HEARTBEAT", "2")),
        attempts=2,
    ).run()


asyncio.run(main(*sys.argv[1:]))
