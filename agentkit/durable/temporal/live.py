"""The events of a hosted run as they happen: a side channel through the store, best effort.

Nothing is written unless a client listens, which it says by a file in the store. Events are
lost where a worker dies, and none of them decides anything.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from agentkit.durable.temporal.blobs import Blobs
from agentkit.durable.temporal.data import to_data
from agentkit.events import Emit, Event, ignore

EVERY = 0.25
"""Seconds between two looks, and between two writes."""


class Publisher:
    """Writes the events of one activity, while a client listens to its run.

    Attributes:
        listened: Whether one did when the activity began.
        emit: Takes the events.
    """

    def __init__(self, blobs: Blobs, run: str, listened: bool) -> None:
        self.listened = listened
        self._events: list[Event] = []
        self.emit: Emit = self._events.append if listened else ignore
        self._blobs = blobs
        self._run = run

    @classmethod
    @asynccontextmanager
    async def of(cls, blobs: Blobs, run: str) -> AsyncGenerator[Publisher, None]:
        """Publish what happens in the block."""
        listened = False
        with suppress(Exception):
            listened = "listening" in await blobs.names(f"live/{run}")
        publisher = cls(blobs, run, listened)
        if not listened:
            yield publisher
            return
        task = asyncio.create_task(publisher.publish())
        try:
            yield publisher
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await publisher.flush()

    async def publish(self) -> None:
        """Write every now and then what has come."""
        while True:
            await asyncio.sleep(EVERY)
            await self.flush()

    async def flush(self) -> None:
        """Write what has come."""
        some, self._events[:] = [*self._events], []
        if some:
            name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
            data = json.dumps(to_data(tuple(some))).encode()
            with suppress(Exception):  # it is only a side channel
                await self._blobs.write(f"live/{self._run}/{name}", data)
