"""Agents change while their runs go on: what may go on does, and what may not waits."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from agentkit import Agent
from agentkit.durable.temporal import replayer
from agentkit.errors import ReplayDivergence
from tests.durable.temporal.agents import add, adder, clerk, post, refund
from tests.durable.temporal.support import begun, hosting, reached, waiting

pytestmark = pytest.mark.anyio

COMPATIBLE: dict[str, Agent[Any, Any]] = {
    "other instructions": adder.with_(instructions="Add, and be brief."),
    "one more tool": adder.with_(tools=[add, post, refund]),
    "another description": adder.with_(tools=[add.with_(description="Sum."), post]),
}
INCOMPATIBLE: dict[str, tuple[Agent[Any, Any], str]] = {
    "a tool is gone": (adder.with_(tools=[add]), "the tool 'post' is gone"),
    "a tool needs approval": (
        adder.with_(tools=[add, post.with_(approval=True)]),
        "the tool 'post' had approval='never' and has 'always'",
    ),
    "another output": (adder.with_(output=int), "output was"),
}


async def replayed(client: Client, queue: str, blobs: Path, changed: Agent[Any, Any]) -> None:
    """Run the agent, and replay its history with a changed one."""
    async with hosting(client, queue, blobs):
        run = await begun(client, adder, queue, blobs)
        await reached(run.result())
    history = await client.get_workflow_handle(run.id).fetch_history()
    await replayer([changed], blobs=blobs).replay_workflow(history)


@pytest.mark.parametrize("changed", COMPATIBLE.values(), ids=COMPATIBLE)
async def test_a_replayer_accepts_what_is_only_said_to_the_model(
    client: Client, queue: str, tmp_path: Path, changed: Agent[Any, Any]
) -> None:
    """The histories of runs show before a deployment that they can go on."""
    await replayed(client, queue, tmp_path, changed)


@pytest.mark.parametrize(("changed", "text"), INCOMPATIBLE.values(), ids=INCOMPATIBLE)
async def test_a_replayer_refuses_what_would_have_decided_differently(
    client: Client, queue: str, tmp_path: Path, changed: Agent[Any, Any], text: str
) -> None:
    """With the text of a divergence: where, and what has changed."""
    with pytest.raises(Exception, match="begun by another version of the agent") as caught:
        await replayed(client, queue, tmp_path, changed)
    assert "/adder/m0" in str(caught.value)
    assert text in str(caught.value)


async def test_a_run_goes_on_with_a_compatible_agent(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """Begun by one version, decided about, and ended by the next."""
    async with hosting(client, queue, tmp_path):
        run = await begun(client, clerk, queue, tmp_path)
        calls = await waiting(run, 2)
    changed = clerk.with_(instructions="Be kind.")
    async with hosting(client, queue, tmp_path, agents=[changed]):
        for call in calls:
            await run.approve(call)
        result = await reached(run.result())
    assert result.output == "refunded 6 and refunded 5"


async def test_a_run_waits_for_workers_that_have_its_version(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """An incompatible version says so to those who ask, and nothing is lost."""
    async with hosting(client, queue, tmp_path):
        run = await begun(client, clerk, queue, tmp_path)
        calls = await waiting(run, 2)
    changed = clerk.with_(tools=[add, refund.with_(approval=False)])
    async with hosting(client, queue, tmp_path, agents=[changed]):
        with pytest.raises(
            ReplayDivergence, match="had approval='always' and has 'never'"
        ) as caught:
            await run.status()
        assert "at /clerk/m0/t0" in str(caught.value)
    async with hosting(client, queue, tmp_path):
        await asyncio.gather(*(run.approve(call) for call in calls))
        result = await reached(run.result())
    assert result.output == "refunded 6 and refunded 5"
