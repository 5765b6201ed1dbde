"""What the tests of this folder share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from temporalio.client import Client

from agentkit import Agent, AgentKitError, RunResult, result_of
from agentkit.durable.temporal import HostedRun, start, worker
from tests import support
from tests.durable.temporal.agents import AGENTS, rebuilt


@asynccontextmanager
async def hosting(
    client: Client, queue: str, blobs: Path, **options: Any
) -> AsyncGenerator[None, None]:
    """Host the agents of these tests in this process."""
    options = {"agents": AGENTS, "deps": rebuilt, "heartbeat": 5} | options
    async with worker(client, task_queue=queue, blobs=blobs, **options):
        yield


async def begun(
    client: Client, agent: Agent[Any, Any] | str, queue: str, blobs: Path, **options: Any
) -> HostedRun[Any]:
    """Start a run."""
    return await start(client, agent, "Go", task_queue=queue, blobs=blobs, **options)


async def reached(run: Awaitable[RunResult[Any]], seconds: float = 40) -> RunResult[Any]:
    """Wait for the end; return what was reached, however it ended."""
    try:
        return await asyncio.wait_for(run, seconds)
    except AgentKitError as error:
        if (result := result_of(error)) is None:
            raise
        return result


until = partial(support.until, seconds=30)


async def waiting(run: HostedRun[Any], number: int = 1) -> Any:
    """Wait until this many calls of a run wait for decisions; return them."""

    async def pending() -> Any:
        status = await run.status()
        return status.pending if len(status.pending) == number else None

    return await until(pending)
