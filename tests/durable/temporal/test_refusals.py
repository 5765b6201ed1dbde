"""What cannot work is refused with its reason, before anything of a run is done."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from agentkit.durable.temporal import Blobs, get, start, worker
from agentkit.durable.temporal.versions import FORMAT
from agentkit.errors import ConfigurationError, ServerUnreachable
from agentkit.events import StepFinished, StepStarted, TextDelta, ToolCallFinished, ToolCallStarted
from tests.durable.temporal.agents import adder, customers, slow
from tests.durable.temporal.conftest import Server
from tests.durable.temporal.support import begun, hosting, reached

pytestmark = pytest.mark.anyio


async def runs(client: Client, queue: str) -> int:
    """Return how many workflows the server has on a task queue."""
    return (await client.count_workflows(f"TaskQueue = '{queue}'")).count


async def test_an_agent_that_no_worker_hosts_is_not_started(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """Those that are hosted are named."""
    async with hosting(client, queue, tmp_path, agents=[adder, slow]):
        with pytest.raises(ConfigurationError, match="hosted are: 'adder', 'slow'") as caught:
            await begun(client, "ader", queue, tmp_path)
    assert "'ader'" in str(caught.value)
    assert await runs(client, queue) == 0


async def test_deps_that_cannot_be_rebuilt_end_a_run_before_its_first_call(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """The reference and what went wrong with it are in the error; there is no trace of a run."""
    async with hosting(client, queue, tmp_path):
        run = await begun(client, customers, queue, tmp_path, deps_ref="bob")
        with pytest.raises(ConfigurationError, match="deps_ref='bob': KeyError: 'bob'"):
            await reached(run.result())
        with pytest.raises(ConfigurationError, match="ended before anything was done"):
            await run.trace()
    async with hosting(client, queue, tmp_path, deps=None):
        run = await begun(client, customers, queue, tmp_path, deps_ref="ada")
        with pytest.raises(ConfigurationError, match=r"function of the reference as worker\(deps"):
            await reached(run.result())


async def test_deps_have_to_be_json(client: Client, queue: str, tmp_path: Path) -> None:
    """Nothing else can be sent to a worker."""
    with pytest.raises(ConfigurationError, match="expected JSON from which"):
        await begun(client, customers, queue, tmp_path, deps_ref=object())


@pytest.mark.parametrize("of", ["worker", "client"])
async def test_a_store_that_cannot_be_written_is_said_at_once(
    client: Client, queue: str, tmp_path: Path, of: str
) -> None:
    """By the worker before it takes a task, and by a client before it starts a run."""
    (tmp_path / "file").write_text("no folder")
    store = str(tmp_path / "file" / "blobs")
    with pytest.raises(ConfigurationError, match="cannot be written: NotADirectoryError"):
        if of == "worker":
            worker(client, agents=[adder], task_queue=queue, blobs=store)
        else:
            await start(client, "adder", "Go", task_queue=queue, blobs=store)
    assert await runs(client, queue) == 0


async def test_a_store_of_another_worker_is_not_taken_for_this_one(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """A client with the wrong store finds no agents in it."""
    async with hosting(client, queue, tmp_path / "one"):
        with pytest.raises(ConfigurationError, match=r"other'.*hosted are: none"):
            await begun(client, adder, queue, tmp_path / "other")


async def test_a_run_of_another_format_is_refused(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """What an older or newer agentkit has started says with which workers it can go on."""
    old: dict[str, Any] = {"format": FORMAT - 1, "agentkit": "0.0.1", "run": "0" * 32}
    async with hosting(client, queue, tmp_path):
        handle = await client.start_workflow(
            "agentkit.run", old, id=queue, task_queue=queue, memo={"run": "0" * 32}
        )
        run = await get(client, handle.id, blobs=tmp_path.as_posix())
        with pytest.raises(ConfigurationError, match=rf"of the format {FORMAT - 1}.* 0\.0\.1"):
            await reached(run.result())


async def test_a_server_that_is_not_there_is_named(
    mortal_server: Server, queue: str, tmp_path: Path
) -> None:
    """A start that does not reach it has started nothing."""
    client = await mortal_server.connect()
    async with hosting(client, queue, tmp_path):
        pass
    mortal_server.kill()
    with pytest.raises(ServerUnreachable, match=f"Temporal server at {mortal_server.address}"):
        await asyncio.wait_for(begun(client, adder, queue, tmp_path), 45)


async def test_a_second_run_of_an_id_is_refused_and_get_finds_the_first(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """From any process; an id that no run has is said."""
    async with hosting(client, queue, tmp_path):
        await begun(client, slow, queue, tmp_path, id=queue)
        with pytest.raises(ConfigurationError, match=f"A run with the id '{queue}' goes on"):
            await begun(client, slow, queue, tmp_path, id=queue)
        found = await get(client, queue, blobs=str(tmp_path), agent=slow)
        assert (await reached(found.result())).output == "done"
    with pytest.raises(ConfigurationError, match="'no' has ended, or is not in"):
        await get(client, "no", blobs=str(tmp_path))


async def test_events_come_while_the_run_goes_on(
    client: Client, queue: str, tmp_path: Path
) -> None:
    """In the order in which things happened; afterwards nothing of them is left in the store."""
    async with hosting(client, queue, tmp_path):
        run = await begun(client, slow, queue, tmp_path)
        heard = [event async for event in run.events()]
        result = await reached(run.result())
    assert result.output == "done"
    call = [type(one) for one in heard if one.at == "/slow/m1/t0"]
    assert call[-2:] == [ToolCallStarted, ToolCallFinished]
    last = [type(one) for one in heard if one.at == "/slow/m2"]
    assert last == [StepStarted, TextDelta, StepFinished]
    assert await Blobs(tmp_path).names(f"live/{run.run}") == []
