"""Brings the events of older schemas up to the newest, one by one, as they are read.

A change of the schema raises `NEWEST` and adds one function here, for the version
that it leaves behind. It gets an event and returns what the next version would have
written instead. Files are never rewritten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from agentkit.messages import JsonObject

__all__ = ["NEWEST", "UPGRADES", "Upgrade", "upgraded"]

Upgrade: TypeAlias = Callable[[JsonObject], JsonObject]

NEWEST = 1
UPGRADES: dict[int, Upgrade] = {}
"""By the version that they upgrade from, to the next. Schema 1 is the first there is."""


def upgraded(event: JsonObject, version: int) -> JsonObject:
    """What an event of this version is in the newest one."""
    for older in range(version, NEWEST):
        event = UPGRADES[older](event)
    return event
