"""Ids of tool calls: made where a server gives none, and never one that is taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any

from agentkit.messages import AssistantMessage, Message, ToolCall

__all__ = ["CallIds", "calls_in", "ids_in", "short_id"]

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class CallIds:
    """Gives every call of a response an id that no other call of the conversation has.

    Args:
        seed: What missing ids are made from: the same seed gives the same ids.
        taken: The ids of the conversation so far; read only for a response with calls.
    """

    def __init__(self, seed: str, taken: Iterable[str]) -> None:
        self._seed = seed
        self._given = taken
        self._taken: set[str] | None = None
        self._made = 0

    def of(self, given: Any = None) -> str:
        """The id of the next call, which is the server's where that will do."""
        candidate = given if isinstance(given, str) else ""
        if self._taken is None:
            self._taken = set(self._given)
        while not candidate or candidate in self._taken:
            candidate = short_id(f"{self._seed}/{self._made}")
            self._made += 1
        self._taken.add(candidate)
        return candidate


def calls_in(messages: Iterable[Message]) -> Iterator[ToolCall]:
    """The tool calls of a conversation, or of a part of one."""
    for message in messages:
        if isinstance(message, AssistantMessage):
            yield from message.tool_calls


def ids_in(messages: Iterable[Message]) -> Iterator[str]:
    """The ids of a conversation's tool calls."""
    return (call.id for call in calls_in(messages))


def short_id(seed: str) -> str:
    """Nine letters and digits made from `seed`: an id that every server accepts."""
    number = int.from_bytes(blake2b(seed.encode("utf-8", "replace"), digest_size=8).digest())
    digits: list[str] = []
    for _ in range(9):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(digits)
