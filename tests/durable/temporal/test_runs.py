"""Runs on a real server come to the same as runs in a process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from agentkit import Agent, Limits
from agentkit.messages import ToolMessage
from agentkit.replay import diff
from tests.durable.temporal.agents import (
    Report,
    add,
    adder,
    analyst,
    bounded,
    customers,
    dumper,
    front,
    planner,
    scripted,
)
from tests.durable.temporal.support import begun, hosting, reached, waiting
from tests.support import run_loaded, sized

pytestmark = pytest.mark.anyio

TURNS = sized(40, 200)


def stored(blobs: Path) -> int:
    """Return the bytes of all blobs in a store."""
    return sum(path.stat().st_size for path in blobs.rglob("blobs/*/*"))


@pytest.mark.parametrize("agent", [adder, analyst, front, bounded], ids=lambda one: one.name)
async def test_a_hosted_run_is_the_run_of_a_process(
    client: Client, queue: str, tmp_path: Path, agent: Agent[Any, Any]
) -> None:
    """Same result, a trace without a difference, and that trace replays exactly."""
    there = await reached(agent.run("Go"))
    async with hosting(client, queue, tmp_path):
        result = await reached((await begun(client, agent, queue, tmp_path)).result())
    assert result == replace(there, run=result.run)
    assert diff(there.trace, result.trace).differences == ()
    again = await reached(agent.replay(result.trace))
    assert again == replace(result, run=again.run)


async def test_the_output_has_its_type_where_the_agent_is_known(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """By the agent it is an object of the type, by its name JSON."""
    async with hosting(client, queue, tmp_path):
        typed = await reached((await begun(client, analyst, queue, tmp_path)).result())
        plain = await reached((await begun(client, "analyst", queue, tmp_path)).result())
    assert typed.output == Report(title="Sales", pages=3)
    assert plain.output == {"title": "Sales", "pages": 3}


async def test_show_opens_the_trace_in_the_store(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """It lies in the store as a file of its own."""
    async with hosting(client, queue, tmp_path):
        run = await begun(client, adder, queue, tmp_path)
        await reached(run.result())
    shown = run_loaded("-m", "agentkit", "show", str(tmp_path / "traces" / f"{run.run}.jsonl"))
    assert "done after 3" in shown.stdout


async def test_deps_are_rebuilt_on_the_worker_from_a_reference(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """Only the reference travels."""
    async with hosting(client, queue, tmp_path):
        result = await reached(
            (await begun(client, customers, queue, tmp_path, deps_ref="ada")).result()
        )
    assert result.output == "London"


async def test_a_large_result_goes_through_the_store(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """5 MB from a tool to the model: the history holds names, and no payload over 16 kB."""
    async with hosting(client, queue, tmp_path):
        run = await begun(client, dumper, queue, tmp_path)
        result = await reached(run.result())
    assert result.output == "read 5000000"
    (message,) = (one for one in result.messages if isinstance(one, ToolMessage))
    assert len(message.text) == 5_000_000
    assert result.usage.tool_bytes == 5_000_000
    assert (await dumper.replay(result.trace)).output == result.output
    history = await client.get_workflow_handle(run.id).fetch_history()
    assert max(event.ByteSize() for event in history.events) < 20_000
    assert stored(tmp_path) < 6_000_000


@pytest.mark.storm
async def test_a_long_run_costs_the_same_at_each_turn_and_is_continued_unseen(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """Many turns in several workflows with one trace; the bytes of a turn do not grow."""
    end = f"done after {TURNS - 1}"
    marathon = Agent(
        scripted(lambda given, _: [("add", {"a": given, "b": 1})] if given < TURNS - 1 else end),
        name="marathon",
        tools=[add],
        limits=Limits(steps=1000),
    )
    async with hosting(client, queue, tmp_path, agents=[marathon], history_events=5 * TURNS):
        run = await begun(client, marathon, queue, tmp_path)
        result = await reached(run.result(), 100)
    assert (result.output, result.usage.requests) == (end, TURNS)
    assert [effect.at for effect in result.trace.effects.values() if effect.kind == "model"] == [
        f"/marathon/m{step}" for step in range(TURNS)
    ]
    assert (await marathon.replay(result.trace)).output == result.output
    sizes: list[tuple[int, int]] = []
    async for one in client.list_workflows(f"WorkflowId = '{run.id}'"):
        handle = client.get_workflow_handle(one.id, run_id=one.run_id)
        events = (await handle.fetch_history()).events
        sizes.append((len(events), sum(event.ByteSize() for event in events)))
    assert len(sizes) > 1
    per_event = [size / events for events, size in sizes]
    assert max(per_event) < 1.5 * min(per_event)


async def test_sub_agents_are_workflows_of_their_own(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """One of a tool that runs two, and one that waits for a person; as in a process."""
    there = await planner.run("Go", approver=lambda _: True)
    async with hosting(client, queue, tmp_path):
        run = await begun(client, planner, queue, tmp_path)
        (call,) = await waiting(run)
        assert call.at == "/planner/m1/t0/research/m0/t0"
        await run.approve(call)
        result = await reached(run.result())
    assert there.trace is not None
    assert result.output == there.output == "found: refunded 7"
    assert diff(there.trace, result.trace).differences == ()
    assert (await planner.replay(result.trace)).output == result.output
    children = [f"{run.id}{at}" for at in ("/planner/m0/t0/reader", "/planner/m0/t1/reader~1")]
    for child in children:
        assert (await client.get_workflow_handle(child).describe()).close_time is not None
