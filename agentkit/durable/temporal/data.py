"""Effects and outcomes as JSON, and large messages as the names of what they hold."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast, get_args

from agentkit.core.effects import (
    Address,
    Compute,
    Decision,
    Failure,
    Interrupt,
    PendingCall,
    SkippedCall,
    ToolInvocation,
    ToolOutcome,
    Value,
)
from agentkit.core.spec import Finish, Written
from agentkit.durable.temporal.blobs import Blobs
from agentkit.events import Event
from agentkit.messages import (
    NO_USAGE,
    AssistantMessage,
    ForcedTool,
    JsonObject,
    Message,
    ModelResponse,
    TextPart,
    ToolCall,
    Usage,
    is_array,
    is_object,
    message_from_json,
)
from agentkit.redaction import Redactor
from agentkit.trace.naming import canonical, packed, unpacked

_SMALL = 2048
"""Characters of a message's content that travel in it; more are stored, and named."""


class _Open(Redactor):
    """Takes nothing out: what runs needs the secrets that its trace must not have."""

    def __call__(self, text: str) -> str:
        return text


_OPEN = _Open(key="agentkit")


def plain(value: Any) -> Any:
    """Return any value as JSON, as a trace holds it, with all that is in it."""
    return packed(value, _OPEN)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredOutcome(ToolOutcome):
    """The outcome of a call whose message may be stored elsewhere; `bytes` is its size."""

    bytes: int

    @property
    def size(self) -> int:
        """The bytes that the model reads."""
        return self.bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """How far a hosted run is.

    Attributes:
        status: `running`; `paused` while calls wait for decisions and nothing else goes on; or
            how it ended.
        running: The addresses of the effects that are being performed.
        pending: The calls that wait for decisions, those of sub-agents included.
        usage: What was used so far.
    """

    status: Literal["running", "paused", "ok", "error", "limit", "cancelled", "failed"]
    running: tuple[Address, ...] = ()
    pending: tuple[PendingCall, ...] = ()
    usage: Usage = NO_USAGE


def begins_anew(effect: ToolInvocation | Compute) -> bool:
    """Return whether what was lost with its worker runs again unasked."""
    return (effect.on_crash or {"read": "retry"}.get(effect.effect)) == "retry"


_KINDS: Mapping[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(ToolCall, ToolInvocation, Compute, PendingCall, SkippedCall, Decision, ForcedTool),
        *(ModelResponse, StoredOutcome, Value, Failure, Interrupt, Finish, Written, Usage),
        *(RunStatus, *get_args(Event)),
    )
}
_ANYTHING = {"value", "output", "input", "data", "extra"}
"""The fields that hold JSON, or values of an application."""
_ADDRESSES = {"at", "running", "forced"}
_LEFT_OUT = {"exception", "traceback"}
"""Of a failure; its traceback stands in the trace alone."""


def to_data(value: Any) -> Any:
    """Return effects, outcomes, events and what they hold as JSON, each with its kind."""
    kind = type(value).__name__
    if isinstance(value, tuple):
        return [to_data(one) for one in cast("tuple[Any, ...]", value)]
    if kind not in _KINDS:
        return plain(value)
    data: JsonObject = {"$": kind}
    for one in fields(value):
        held = getattr(value, one.name)
        if held is not one.default and one.name not in _LEFT_OUT:
            data[one.name] = (plain if one.name in _ANYTHING else to_data)(held)
    return data


def from_data(data: Any, name: str = "") -> Any:
    """Reverse `to_data`; `name` is that of the field in which the data was."""
    if name in _ANYTHING:
        return unpacked(data)
    if is_array(data):
        return tuple(from_data(one, name) for one in data)
    if is_object(data) and "$" in data:
        held = {key: from_data(one, key) for key, one in data.items() if key != "$"}
        return _KINDS[data["$"]](**held)
    if is_object(data) and "role" in data:
        return message_from_json(data)
    return Address(data) if name in _ADDRESSES and data is not None else unpacked(data)


# Messages


def mark(run: str) -> str:
    """Return how the name of a stored content begins in the messages of a run."""
    return f"⟦{run}:"


async def slim(message: Message, run: str, blobs: Blobs) -> Message:
    """Return a message with a name in place of a large content, which is then stored.

    The loop decides by the answers of the model alone; they stay as they are.
    """
    content = message.content
    if isinstance(message, AssistantMessage) or content is None:
        return message
    data = message.to_json()
    text = content if isinstance(content, str) else json.dumps(data["content"])
    if len(text) <= _SMALL and mark(run) not in text:
        return message
    name = await blobs.put(canonical(data))
    return replace(message, content=f"{mark(run)}{name}⟧")


async def whole(message: Message, run: str, blobs: Blobs) -> Message:
    """Reverse `slim`. The loop may have put a note before the content."""
    content = message.content
    if isinstance(message, AssistantMessage) or not isinstance(content, str):
        return message
    found = re.search(re.escape(mark(run)) + "(b2:[0-9a-f]+)⟧", content)
    if found is None:
        return message
    stored = message_from_json(json.loads(await blobs.get(found[1]))).content
    before = content[: found.start()]
    if isinstance(stored, str):
        return replace(message, content=before + stored)
    note = (TextPart(text=before.removesuffix("\n")),) if before else ()
    return replace(message, content=(*note, *(stored or ())))


async def slim_all(messages: Iterable[Message], run: str, blobs: Blobs) -> list[JsonObject]:
    """Return the JSON of messages, large contents stored."""
    return [(await slim(one, run, blobs)).to_json() for one in messages]


async def whole_all(messages: Any, run: str, blobs: Blobs) -> tuple[Message, ...]:
    """Reverse `slim_all`, for messages and for their JSON."""
    return tuple(await asyncio.gather(*(whole(one, run, blobs) for one in from_data(messages))))


class Threads:
    """Conversations in the store, each as a chain: a link holds what came since the last one.

    A step sends the name of the last link and the new messages, so that what it costs does
    not grow with the conversation. A link also names up to 64 before it, so that a worker which
    goes on with the conversation of another reads 64 at a time.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._last: dict[str, tuple[Message, ...]] = {}

    async def extend(
        self, base: str | None, new: Sequence[JsonObject], run: str
    ) -> tuple[tuple[Message, ...], str]:
        """Return the messages of a longer conversation, and the name of its last link."""
        messages = (*await self.load(base, run), *await whole_all(new, run, self._blobs))
        before: list[str] = []
        if base is not None:
            before = [base, *json.loads(await self._blobs.get(base))["before"]][:64]
        name = await self._blobs.put(canonical({"before": before, "messages": [*new]}))
        self._last.pop(base or "", None)
        self._remember(name, messages)
        return messages, name

    async def load(self, base: str | None, run: str) -> tuple[Message, ...]:
        """Return the messages up to a link."""
        if base is None:
            return ()
        if base not in self._last:
            links: list[JsonObject] = []
            names = [base]
            while names:
                read = await asyncio.gather(*map(self._blobs.get, names))
                links += map(json.loads, read)
                names = links[-1]["before"]
            data = [one for link in reversed(links) for one in link["messages"]]
            self._remember(base, await whole_all(data, run, self._blobs))
        return self._last[base]

    def _remember(self, name: str, messages: tuple[Message, ...]) -> None:
        """Keep the messages of the last 32 conversations: each holds its encoded form, too."""
        self._last[name] = messages
        while len(self._last) > 32:
            del self._last[next(iter(self._last))]
