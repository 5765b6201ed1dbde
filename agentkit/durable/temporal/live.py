"""The events of a hosted run as they happen: a side channel through the store, best effort.

Nothing is written unless a client listens, which it says by a file in the store. Events are
lost where a worker dies, and none of them decides anything.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

from agentkit import events
from agentkit.core.effects import Address
from agentkit.durable.temporal.blobs import Blobs
from agentkit.durable.temporal.data import pending_from_json, pending_to_json, plain
from agentkit.events import Emit, Event, ignore
from agentkit.messages import JsonObject, Usage
from agentkit.trace.naming import unpacked

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
            data = json.dumps([to_json(one) for one in some]).encode()
            with suppress(Exception):  # it is only a side channel
                await self._blobs.write(f"live/{self._run}/{name}", data)


def to_json(event: Event) -> JsonObject:
    """Return an event as JSON."""
    data: JsonObject = {one.name: getattr(event, one.name) for one in dataclasses.fields(event)}
    if "pending" in data:
        data["pending"] = [pending_to_json(one) for one in data["pending"]]
    if "usage" in data:
        data["usage"] = data["usage"].to_json()
    return {"event": type(event).__name__, **plain(data)}


def from_json(data: JsonObject) -> Event:
    """Reverse `to_json`."""
    fields: dict[str, Any] = unpacked(data)
    kind = getattr(events, fields.pop("event"))
    fields["at"] = Address(fields["at"])
    if "usage" in fields:
        fields["usage"] = Usage.from_json(fields["usage"])
    if "pending" in fields:
        fields["pending"] = tuple(map(pending_from_json, fields["pending"]))
    return kind(**fields)
