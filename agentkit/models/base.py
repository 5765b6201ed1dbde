"""`Model`: the one seam between a run and whatever answers its model calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from hashlib import blake2b
from secrets import token_hex
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

from agentkit.core.effects import Address
from agentkit.errors import InvalidSetting
from agentkit.events import Emit, ReasoningDelta, TextDelta, ToolCallDelta, ignore
from agentkit.messages import (
    AssistantMessage,
    Message,
    ModelRequest,
    ModelResponse,
    ToolDefinition,
)
from agentkit.models.profiles import Profile

ValueT = TypeVar("ValueT")
DIRECT = Address("/direct/m0")
"""The address of a model call outside any run."""


GUARDS: list[Callable[[str, str], None]] = []
"""Called with the name and the URL of a model before each request; one may raise."""


class Model(Protocol):
    """Answers requests. Implemented by servers, scripts and wrappers alike."""

    @property
    def name(self) -> str:
        """The name in traces and messages, for example `openai:gpt-4o`."""
        ...

    @property
    def profile(self) -> Profile:
        """What the model supports."""
        ...

    def check(self) -> None:
        """Raise now, without I/O, if every request would fail: no key, no extra.

        Raises:
            AgentKitError: With what is missing and how to get it.
        """
        ...

    async def request(
        self,
        request: ModelRequest,
        *,
        at: Address = DIRECT,
        emit: Emit = ignore,
        stream: bool = False,
    ) -> ModelResponse:
        """Answer one request.

        Streaming is a side channel: with `stream=True`, deltas go to `emit` as they
        arrive, and the complete response is returned all the same.

        Raises:
            ModelError: There is no usable answer.
        """
        ...

    async def aclose(self) -> None:
        """Release connections and processes. The model may be used again afterwards."""
        ...


def pass_guards(model: str, url: str) -> None:
    """Ask those who may forbid real model calls, as tests do."""
    for guard in GUARDS:
        guard(model, url)


def identity_of(model: Model) -> str:
    """Return what tells models of one name apart, as a hash: server, key, headers.

    A model may have a method `identity() -> str` for it. One that has none is told
    apart from every other object, because nothing is known of where it sends requests.
    """
    identity: Callable[[], str] | None = getattr(model, "identity", None)
    return identity() if callable(identity) else token_of(model)


def hash_of(*parts: str) -> str:
    """Return a hash of texts, which may be secrets."""
    return blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


_TOKENS: WeakKeyDictionary[object, str] = WeakKeyDictionary()


def token_of(thing: object) -> str:
    """Return a text that no other object has, in any process."""
    try:
        return _TOKENS.setdefault(thing, token_hex(16))
    except TypeError:  # It cannot be a key.
        return token_hex(16)


def once(
    holder: Message | ToolDefinition, what: str, key: tuple[Any, ...], make: Callable[[], ValueT]
) -> ValueT:
    """Return `make()`, kept in the holder's memo until the key changes."""
    memo: dict[Any, Any] = holder._memo  # pyright: ignore[reportPrivateUsage] # made for codecs
    kept: tuple[tuple[Any, ...], ValueT] | None = memo.get(what)
    if kept is None or kept[0] != key:
        kept = memo[what] = (key, make())
    return kept[1]


def emit_deltas(
    message: AssistantMessage, at: Address, emit: Emit, texts: Iterable[str] | None = None
) -> None:
    """Emit the deltas of a complete answer, its text in one piece or cut into `texts`."""
    if message.reasoning:
        emit(ReasoningDelta(at=at, text=message.reasoning))
    for text in texts if texts is not None else [message.text]:
        if text:
            emit(TextDelta(at=at, text=text))
    for index, call in enumerate(message.tool_calls):
        emit(ToolCallDelta(at=at.call(index), name=call.name, arguments=call.arguments))


def check_argument(name: str, value: float, valid: bool, allowed: str) -> None:
    """Check a number that a model was made with.

    Raises:
        InvalidSetting: It is not `valid`.
    """
    if not valid:
        text = f"{name} must be {allowed}, not {value!r}."
        raise InvalidSetting(text, field=name, value=repr(value), allowed=allowed)


def forced_tool(tools: Iterable[ToolDefinition], name: str) -> ToolDefinition:
    """Return the tool that `tool_choice` names.

    Raises:
        InvalidSetting: The request does not have it.
    """
    by_name = {tool.name: tool for tool in tools}
    if name not in by_name:
        raise InvalidSetting(
            f"tool_choice names {name!r}, but the request only has {', '.join(by_name)}.",
            field="tool_choice",
            value=name,
            allowed=", ".join(by_name),
        )
    return by_name[name]
