"""What a run survives: workers and servers that die, models that fail, tools that misbehave."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from temporalio.client import Client

from agentkit import Agent
from agentkit.durable.temporal import HostedRun
from agentkit.errors import RateLimited, RunCancelled
from agentkit.models import ChatModel
from agentkit.testing import ChatServer, raw, reply
from tests.durable.temporal.agents import (
    careful,
    clerk,
    effects,
    killer,
    poisoned,
    slow,
    waiter,
)
from tests.durable.temporal.conftest import Server, worker_process
from tests.durable.temporal.support import begun, hosting, reached, until, waiting
from tests.support import sized

pytestmark = pytest.mark.anyio
BUSY = raw(429, {"error": {"message": "Too many requests."}}, {"retry-after": "0.2"})
AGAIN = "20" if settings.get_current_profile_name() == "storm" else "0.2"
"""Seconds until an overloaded model is asked again; three times, a minute in `make storm`."""
RUNS = sized(5, 30)


async def ready(blobs: Path, number: int = 1) -> None:
    """Wait until this many worker processes are there."""
    await until(lambda: len([*blobs.glob("ready/*")]) >= number)


async def tried(client: Client, run: HostedRun[Any]) -> dict[str, int]:
    """Return how often the server has begun each effect that has ended, by its history."""
    ids: dict[int, str] = {}
    begun: Counter[str] = Counter()
    for event in (await client.get_workflow_handle(run.id).fetch_history()).events:
        if event.HasField("activity_task_scheduled_event_attributes"):
            ids[event.event_id] = event.activity_task_scheduled_event_attributes.activity_id
        if event.HasField("activity_task_started_event_attributes"):
            started = event.activity_task_started_event_attributes
            begun[ids[started.scheduled_event_id]] += started.attempt
    return begun


@pytest.mark.storm
async def test_many_runs_outlive_one_of_two_workers(
    server: Server, client: Client, queue: str, tmp_path: Path
) -> None:
    """Killed with -9 with calls in flight; nothing is lost, and nothing recorded is repeated.

    A write that allows it runs again where the server has counted an attempt as lost, and there
    alone; with the same key.
    """
    log, blobs = tmp_path / "effects", tmp_path / "blobs"
    with (
        worker_process(server, queue, blobs, EFFECTS=str(log)) as first,
        worker_process(server, queue, blobs, EFFECTS=str(log)),
    ):
        await ready(blobs, 2)
        runs = [await begun(client, slow, queue, blobs, id=f"{queue}-{n}") for n in range(RUNS)]

        def in_flight() -> set[str]:
            posts = [one.split() for one in effects(log) if one.endswith(f" {first.pid}")]
            ended = {key for what, key, _ in posts if what == "end"}
            return {key for _, key, _ in posts} - ended

        await until(in_flight)
        os.kill(first.pid, signal.SIGKILL)
        assert in_flight()
        results = await asyncio.gather(*(reached(run.result(), 60) for run in runs))
    assert {result.output for result in results} == {"done"}
    begins = Counter(one.split()[1] for one in effects(log) if one.startswith("begin"))
    assert set(begins) == {f"{run.run}/slow/m1/t0" for run in runs}
    attempts = [(await tried(client, run))["/slow/m1/t0"] for run in runs]
    assert max(attempts) > 1
    repeated = [begins[f"{run.run}/slow/m1/t0"] for run in runs]
    assert [n for n, tries in zip(repeated, attempts, strict=True) if n > tries] == []


async def test_a_write_that_was_in_flight_is_asked_about(
    server: Server, client: Client, queue: str, tmp_path: Path
) -> None:
    """It is not repeated unasked; approved, it runs again under the same key."""
    log, blobs = tmp_path / "effects", tmp_path / "blobs"
    with worker_process(server, queue, blobs, EFFECTS=str(log)) as first:
        await ready(blobs)
        run = await begun(client, careful, queue, blobs)
        await until(lambda: [one for one in effects(log) if one.startswith("begin")])
        os.kill(first.pid, signal.SIGKILL)
    with worker_process(server, queue, blobs, EFFECTS=str(log)):
        (call,) = await waiting(run)
        assert (call.at, call.kind) == ("/careful/m1/t0", "in_flight")
        await run.approve(call, by="Ada")
        result = await reached(run.result())
    assert result.output == "done"
    key = f"{run.run}/careful/m1/t0"
    assert [one.split()[0] for one in effects(log) if f" {key} " in one] == [
        "begin",
        "begin",
        "end",
    ]
    assert (await careful.replay(result.trace)).output == "done"
    assert result.trace.effects["/careful/m1/t0"].status == "ok"


async def test_a_server_that_is_killed_goes_on_from_its_file(
    mortal_server: Server, queue: str, tmp_path: Path
) -> None:
    """Runs stand still meanwhile."""
    client, blobs = await mortal_server.connect(), tmp_path / "blobs"
    with worker_process(mortal_server, queue, blobs):
        await ready(blobs)
        runs = [await begun(client, slow, queue, blobs) for _ in range(3)]
        await asyncio.sleep(0.3)
        mortal_server.kill()
        await asyncio.sleep(0.5)
        mortal_server.start()
        await mortal_server.connect()
        results = await asyncio.gather(*(reached(run.result(), 60) for run in runs))
    assert [result.output for result in results] == ["done"] * 3


async def test_decisions_wait_for_a_worker(
    client: Client, queue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked by one worker, decided while there is none, gone on with by another."""
    monkeypatch.setenv("EFFECTS", str(tmp_path / "effects"))
    async with hosting(client, queue, tmp_path):
        run = await begun(client, clerk, queue, tmp_path)
        first, second = await waiting(run, 2)
        assert [one.args for one in (first, second)] == [{"amount": 5}, {"amount": 6}]
        assert (await run.status()).status == "paused"
    await asyncio.gather(run.edit(first, {"amount": 4}, by="Ada"), run.deny(second.at, "too much"))
    async with hosting(client, queue, tmp_path):
        result = await reached(run.result())
    assert result.output == "Denied: too much and (Run with other arguments: " + (
        '{"amount": 4})\nrefunded 4'
    )
    assert effects(tmp_path / "effects") == ["refund 4"]
    assert (await clerk.replay(result.trace)).output == result.output


async def test_a_cancellation_reaches_a_running_tool(
    client: Client, queue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tool is cancelled, the run has a valid history and a trace."""
    monkeypatch.setenv("EFFECTS", str(tmp_path / "effects"))
    async with hosting(client, queue, tmp_path, heartbeat=1):
        run = await begun(client, waiter, queue, tmp_path)
        await until(lambda: effects(tmp_path / "effects"))
        await run.cancel("the user left")
        with pytest.raises(RunCancelled, match="the user left") as caught:
            await run.result()
        assert (await run.status()).status == "cancelled"
    assert effects(tmp_path / "effects") == ["waiting", "cancelled"]
    assert caught.value.result.status == "cancelled"
    assert caught.value.trace.effects["/waiter/m0/t0"].status == "cancelled"


async def test_a_workflow_that_is_cancelled_by_temporal_ends_as_a_run(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """`temporal workflow cancel` is a cancellation as well."""
    async with hosting(client, queue, tmp_path, heartbeat=1):
        run = await begun(client, waiter, queue, tmp_path)
        await until(lambda: _running(run))
        await client.get_workflow_handle(run.id).cancel()
        with pytest.raises(RunCancelled, match="its workflow was cancelled"):
            await run.result()
    assert (await run.trace()).status == "cancelled"


async def _running(run: Any) -> Any:
    return "/waiter/m0/t0" in (await run.status()).running


async def test_retries_of_a_tool_are_temporals_and_its_errors_are_answers(
    client: Client, queue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`retries=2` are attempts of the activity; a ToolError is not tried again."""
    monkeypatch.setenv("EFFECTS", str(tmp_path / "effects"))
    async with hosting(client, queue, tmp_path):
        run = await begun(client, poisoned, queue, tmp_path)
        result = await reached(run.result())
    assert result.output == "at last; It never works."
    log = Counter(effects(tmp_path / "effects"))
    assert log == {"flaky 0": 1, "flaky 1": 1, "flaky 2": 1, "broken": 1}
    attempts = await tried(client, run)
    assert (attempts["/poisoned/m0/t0"], attempts["/poisoned/m0/t1"]) == (3, 1)


async def test_a_call_that_kills_its_worker_ends_as_a_failure_of_the_tool(
    server: Server, client: Client, queue: str, tmp_path: Path
) -> None:
    """After `attempts=` of them, whoever supervises the workers has peace."""
    log, blobs = tmp_path / "effects", tmp_path / "blobs"
    stop = asyncio.Event()

    async def supervise() -> None:
        while not stop.is_set():
            with worker_process(
                server, queue, blobs, EFFECTS=str(log), HEARTBEAT="1", ATTEMPTS="2"
            ) as process:
                while process.running and not stop.is_set():
                    await asyncio.sleep(0.1)

    supervisor = asyncio.create_task(supervise())
    try:
        await ready(blobs)
        run = await begun(client, killer, queue, blobs)
        result = await reached(run.result(), 60)
    finally:
        stop.set()
        await supervisor
    assert effects(log) == ["deadly"] * 2
    assert result.output == "It was interrupted, and may have had its effect."


@pytest.mark.storm
async def test_a_model_that_is_overloaded_is_asked_again_by_temporal(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """Its Retry-After is the delay of the activity; each attempt is in the trace."""
    busy = raw(429, {"error": {"message": "Too many requests."}}, {"retry-after": AGAIN})
    with ChatServer([busy, busy, busy, reply("Hello.")]) as server:
        model = ChatModel("m", base_url=server.base_url, api_key="k")
        agent = Agent(model, name="patient")
        async with hosting(client, queue, tmp_path, agents=[agent]):
            run = await begun(client, agent, queue, tmp_path)
            result = await reached(run.result(), 40 + 3 * float(AGAIN))
    assert result.output == "Hello."
    attempts = result.trace.effects["/patient/m0"].attempts
    assert [(one.number, one.status) for one in attempts] == [
        (0, 429), (1, 429), (2, 429), (3, 200),
    ]  # fmt: skip


async def test_a_model_that_stays_overloaded_fails_the_run_after_the_patience(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """With the model's own error."""
    with ChatServer(lambda _: BUSY) as server:
        agent = Agent(ChatModel("m", base_url=server.base_url, api_key="k"), name="patient")
        async with hosting(client, queue, tmp_path, agents=[agent], patience=1.2):
            run = await begun(client, agent, queue, tmp_path)
            with pytest.raises(RateLimited):
                await run.result()
