"""Temporal keeps the contract of a host, over a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client

from agentkit import Agent, Decision, RunResult
from agentkit.durable.temporal import Blobs, start, worker
from agentkit.durable.temporal.data import to_data
from agentkit.testing.host_conformance import CASES, Case, check

pytestmark = pytest.mark.anyio


class Temporal:
    """Runs an agent as a workflow: a worker here performs it, decisions are sent to it."""

    def __init__(self, client: Client, folder: Path) -> None:
        self._client = client
        self._blobs = Blobs(folder)

    async def __call__(
        self,
        agent: Agent[Any, Any],
        prompt: str,
        *,
        deps: Any,
        decisions: Mapping[str, Decision],
        stop: Any,
    ) -> RunResult[Any]:
        at: Any = {"blobs": self._blobs, "task_queue": uuid4().hex}
        hosted = worker(self._client, agents=[agent], deps=lambda ref: ref, heartbeat=3, **at)
        async with hosted:
            run = await start(self._client, agent, prompt, deps_ref=deps, **at)
            for address, decision in decisions.items():
                # Kept until the call waits: a test that asks first would be slow.
                await self._client.get_workflow_handle(run.id).signal(
                    "decide", args=[address, to_data(decision)]
                )
            if stop is not None:
                await run.cancel(await stop())
            return await asyncio.wait_for(run.result(), 60)


FOURTHS = [
    pytest.param(case, marks=[pytest.mark.storm_only] if number % 4 else [])
    for number, case in enumerate(CASES)
]
"""All cases; each fourth is in `make test`, which runs all of them in a process."""


@pytest.mark.parametrize("case", FOURTHS, ids=str)
async def test_a_run_on_temporal_is_as_each_case_says(
    case: Case, client: Client, tmp_path: Path
) -> None:
    """What is the same in a process, or resumed after each effect, is the same there."""
    await check(case, Temporal(client, tmp_path))
