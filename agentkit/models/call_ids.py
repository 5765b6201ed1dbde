"""Ids of tool calls: derived where a server sends none, and unique in a conversation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any

from agentkit.messages import AssistantMessage, Message, ToolCall

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class CallIds:
    """Assigns every call of a response an id that no other call of the conversation has.

    Args:
        seed: What missing ids are derived from: the same seed gives the same ids.
        taken: The ids of the conversation so far; read only for a response with calls.
    """

    def __init__(self, seed: str, taken: Iterable[str]) -> None:
        self._seed = seed
        self._earlier = taken
        self._taken: set[str] | None = None
        self._derived = 0

    def assign(self, sent: Any = None) -> str:
        """Return the id of the next call: the one the server sent, if it can be used."""
        candidate = sent if isinstance(sent, str) else ""
        if self._taken is None:
            self._taken = set(self._earlier)
        while not candidate or candidate in self._taken:
            candidate = short_id(f"{self._seed}/{self._derived}")
            self._derived += 1
        self._taken.add(candidate)
        return candidate


def calls_in(messages: Iterable[Message]) -> Iterator[ToolCall]:
    """Yield the tool calls of messages, in order."""
    for message in messages:
        if isinstance(message, AssistantMessage):
            yield from message.tool_calls


def ids_in(messages: Iterable[Message]) -> Iterator[str]:
    """Return the ids of the tool calls of messages, in order."""
    return (call.id for call in calls_in(messages))


def short_id(seed: str) -> str:
    """Derive nine letters and digits from `seed`: an id that every server accepts."""
    number = int.from_bytes(blake2b(seed.encode("utf-8", "replace"), digest_size=8).digest())
    digits: list[str] = []
    for _ in range(9):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(digits)
