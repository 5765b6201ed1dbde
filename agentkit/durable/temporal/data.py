"""Effects and outcomes as JSON, and large messages as the names of what they hold."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from agentkit.core.effects import (
    Address,
    Compute,
    Decision,
    Effect,
    Failure,
    Interrupt,
    ModelCall,
    Outcome,
    PendingCall,
    SkippedCall,
    ToolInvocation,
    ToolOutcome,
    Value,
)
from agentkit.core.spec import Finish, Written
from agentkit.durable.temporal.blobs import Blobs
from agentkit.messages import (
    AssistantMessage,
    JsonObject,
    Message,
    ModelResponse,
    TextPart,
    ToolCall,
    Usage,
    message_from_json,
)
from agentkit.redaction import Redactor
from agentkit.trace.effects import failure_from_json
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


# Effects


def call_to_json(call: ToolCall) -> JsonObject:
    """Return a call, with all that the server sent of it."""
    return asdict(call)


def invocation_to_json(one: ToolInvocation) -> JsonObject:
    """Return a tool call that is to run."""
    return {**asdict(one), "call": call_to_json(one.call)}


def invocation_from_json(data: Mapping[str, Any]) -> ToolInvocation:
    """Reverse `invocation_to_json`."""
    fields: JsonObject = {**data, "at": Address(data["at"]), "call": ToolCall(**data["call"])}
    fields["repairs"] = tuple(data["repairs"])
    return ToolInvocation(**fields)


def compute_to_json(one: Compute) -> JsonObject:
    """Return a function that is to be called; messages as their JSON."""
    return {**{name: getattr(one, name) for name in _COMPUTE}, "input": plain(one.input)}


def compute_from_json(data: Mapping[str, Any]) -> Compute:
    """Reverse `compute_to_json`; the messages of a compaction are for the caller."""
    fields: JsonObject = {**data, "at": Address(data["at"]), "input": unpacked(data["input"])}
    return Compute(**fields)


_COMPUTE = ("at", "name", "effect", "on_crash")


def pending_to_json(pending: PendingCall) -> JsonObject:
    """Return a call that waits for a decision."""
    return {"at": pending.at, "call": call_to_json(pending.call), "kind": pending.kind}


def pending_from_json(data: Mapping[str, Any]) -> PendingCall:
    """Reverse `pending_to_json`."""
    return PendingCall(at=Address(data["at"]), call=ToolCall(**data["call"]), kind=data["kind"])


def skipped_to_json(one: SkippedCall) -> JsonObject:
    """Return the note that no tool runs a call."""
    message = None if one.message is None else one.message.to_json()
    return {"at": one.at, "call": call_to_json(one.call), "reason": one.reason, "message": message}


def decision_to_json(decision: Decision) -> JsonObject:
    """Return a decision."""
    return asdict(decision)


def decision_from_json(data: Mapping[str, Any]) -> Decision:
    """Return a decision, checked."""
    return Decision(data["kind"], data.get("text", ""), data.get("by"))


# Outcomes


def failure_to_json(failure: Failure) -> JsonObject:
    """Return a failure without its traceback, which only the trace holds."""
    parts = [failure_to_json(part) for part in failure.parts]
    return {
        "type": failure.type,
        "message": plain(failure.message),
        "data": plain(failure.data),
        **({"parts": parts} if parts else {}),
    }


def outcome_to_json(outcome: Outcome) -> JsonObject:
    """Return what an activity answers an effect with."""
    match outcome:
        case ModelResponse(message=message, finish=finish, usage=usage):
            return {
                "message": message.to_json(),
                "finish": finish,
                "usage": usage.to_json(),
            }
        case ToolOutcome(error=error, usage=usage):
            return {
                "status": outcome.status,
                "message": outcome.message.to_json(),
                "error": None if error is None else failure_to_json(error),
                "fatal": outcome.fatal,
                "usage": usage.to_json(),
                "bytes": outcome.size,
            }
        case Value(value=value, usage=usage):
            return {"value": plain(value), "usage": usage.to_json()}
        case Failure(usage=usage):
            return {"failure": failure_to_json(outcome), "usage": usage.to_json()}
        case Interrupt(usage=usage):
            return {
                "interrupt": outcome.status,
                "error": failure_to_json(outcome.error),
                "pending": [pending_to_json(one) for one in outcome.pending],
                "usage": usage.to_json(),
            }
        case _:
            raise AssertionError(f"no activity answers with {outcome!r}")


def outcome_from_json(effect: Effect, data: Mapping[str, Any]) -> Any:
    """Reverse `outcome_to_json`, for the effect that it answers."""
    usage = Usage.from_json(data["usage"])
    if "failure" in data:
        return replace(failure_from_json(data["failure"]), usage=usage)
    if "interrupt" in data:
        return Interrupt(
            status=data["interrupt"],
            error=failure_from_json(data["error"]),
            pending=tuple(map(pending_from_json, data["pending"])),
            usage=usage,
        )
    match effect:
        case ModelCall():
            message: Any = message_from_json(data["message"])
            return ModelResponse(message=message, finish=data["finish"], usage=usage)
        case ToolInvocation(at=at):
            message = message_from_json(data["message"])
            return StoredOutcome(
                at=at,
                status=data["status"],
                message=message,
                error=data["error"] and failure_from_json(data["error"]),
                fatal=data["fatal"],
                usage=usage,
                bytes=data["bytes"],
            )
        case _:
            return Value(value=unpacked(data["value"]), usage=usage, recorded=True)


def finish_to_json(finish: Finish[Any]) -> JsonObject:
    """Return how a run has ended, without its messages."""
    written = finish.written
    return {
        "status": finish.status,
        "output": plain(finish.output),
        "written": None if written is None else {"at": written.at, "text": plain(written.text)},
        "error": None if finish.error is None else failure_to_json(finish.error),
        "usage": finish.usage.to_json(),
        "last": finish.at,
    }


def finish_from_json(data: Mapping[str, Any]) -> Finish[Any]:
    """Reverse `finish_to_json`."""
    written = data["written"]
    if written is not None:
        written = Written(at=Address(written["at"]), text=unpacked(written["text"]))
    return Finish(
        status=data["status"],
        messages=(),
        new=(),
        usage=Usage.from_json(data["usage"]),
        output=unpacked(data["output"]),
        written=written,
        error=data["error"] and failure_from_json(data["error"]),
        at=data["last"] and Address(data["last"]),
    )


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


async def whole_all(
    messages: Sequence[Mapping[str, Any]], run: str, blobs: Blobs
) -> tuple[Message, ...]:
    """Reverse `slim_all`."""
    return tuple(
        await asyncio.gather(*(whole(message_from_json(one), run, blobs) for one in messages))
    )


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
