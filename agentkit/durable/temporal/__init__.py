"""Agents on Temporal: runs that outlive their workers, on as many machines as there are.

    client = await Client.connect("localhost:7233")
    await worker(client, agents=[agent], blobs="/srv/agentkit").run()      # some processes

    run = await start(client, "agent", "Plan a day in Paris", blobs="/srv/agentkit")
    result = await run.result()                                                   # any other

The loop runs as workflow code; each model call and each tool call is an activity, whose id is
its address. Needs the extra `temporal`, and asyncio, as Temporal's SDK does.
"""

from __future__ import annotations

from importlib.util import find_spec

if missing := [name for name in ("temporalio", "fsspec") if find_spec(name) is None]:
    raise ImportError(
        f"agentkit.durable.temporal needs {' and '.join(missing)}. "
        'Run: pip install "agentkit-replay[temporal]"'
    )

from agentkit.durable.temporal.blobs import Blobs
from agentkit.durable.temporal.client import HostedRun, get, start
from agentkit.durable.temporal.data import RunStatus
from agentkit.durable.temporal.hosting import replayer, worker

__all__ = ["Blobs", "HostedRun", "RunStatus", "get", "replayer", "start", "worker"]
