"""Runs on a real server come to the same as runs in a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from agentkit import Agent, AgentKitError, RunResult, result_of
from agentkit.durable.temporal import HostedRun, start, worker
from agentkit.replay import diff
from tests.durable.temporal.agents import (
    AGENTS,
    Report,
    adder,
    analyst,
    bounded,
    customers,
    front,
    rebuilt,
)
from tests.support import run_python

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def hosting(
    client: Client, queue: str, blobs: Path, **options: Any
) -> AsyncGenerator[None, None]:
    """Host the agents of these tests in this process."""
    options = {"agents": AGENTS, "deps": rebuilt, "heartbeat": 5} | options
    async with worker(client, task_queue=queue, blobs=str(blobs), **options):
        yield


async def begun(
    client: Client, agent: Agent[Any, Any] | str, queue: str, blobs: Path, **options: Any
) -> HostedRun[Any]:
    """Start a run."""
    return await start(client, agent, "Go", task_queue=queue, blobs=str(blobs), **options)


async def ended(run: HostedRun[Any]) -> RunResult[Any]:
    """Wait for the end; return what was reached, however it ended."""
    return await _reached(run.result())


async def here(agent: Agent[Any, Any], **options: Any) -> RunResult[Any]:
    """Run the agent in this process; return what was reached, however it ended."""
    return await _reached(agent.run("Go", **options))


async def _reached(run: Awaitable[RunResult[Any]]) -> RunResult[Any]:
    try:
        return await asyncio.wait_for(run, 30)
    except AgentKitError as error:
        if (result := result_of(error)) is None:
            raise
        return result


@pytest.mark.parametrize("agent", [adder, analyst, front, bounded], ids=lambda one: one.name)
async def test_a_hosted_run_is_the_run_of_a_process(
    client: Client, queue: str, tmp_path: Path, agent: Agent[Any, Any]
) -> None:
    """Same result, a trace without a difference, and that trace replays exactly."""
    there = await here(agent)
    async with hosting(client, queue, tmp_path):
        result = await ended(await begun(client, agent, queue, tmp_path))
    assert result == replace(there, run=result.run)
    assert diff(there.trace, result.trace).differences == ()
    again = await _reached(agent.replay(result.trace))
    assert again == replace(result, run=again.run)


async def test_the_output_has_its_type_where_the_agent_is_known(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """By the agent it is an object of the type, by its name JSON."""
    async with hosting(client, queue, tmp_path):
        typed = await ended(await begun(client, analyst, queue, tmp_path))
        plain = await ended(await begun(client, "analyst", queue, tmp_path))
    assert typed.output == Report(title="Sales", pages=3)
    assert plain.output == {"title": "Sales", "pages": 3}


async def test_show_opens_the_trace_in_the_store(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """It lies in the store as a file of its own."""
    async with hosting(client, queue, tmp_path):
        run = await begun(client, adder, queue, tmp_path)
        await ended(run)
    shown = run_python("-m", "agentkit", "show", str(tmp_path / "traces" / f"{run.run}.jsonl"))
    assert "done after 3" in shown.stdout


async def test_deps_are_rebuilt_on_the_worker_from_a_reference(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """Only the reference travels."""
    async with hosting(client, queue, tmp_path):
        result = await ended(await begun(client, customers, queue, tmp_path, deps_ref="ada"))
    assert result.output == "London"
