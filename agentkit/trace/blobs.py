"""Values to canonical JSON and to their names.

A blob is named by the blake2b-128 of its canonical JSON, after redaction. The
names of a message are kept in the message, because hashing the whole history at
each step would be quadratic.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic_core import to_jsonable_python

from agentkit.effects import Address, ModelCall
from agentkit.messages import (
    AssistantMessage,
    JsonObject,
    Message,
    ModelRequest,
    SystemMessage,
    ToolDefinition,
    ToolMessage,
    UserMessage,
    is_array,
    is_object,
)
from agentkit.redaction import Redactor

__all__ = ["NamedRequest", "Namer", "canonical", "digest", "packed"]

_WIDEST = 2**63
"""Integers beyond this are text in a trace: many readers of JSON cannot hold them."""


def packed(value: Any, redact: Redactor) -> Any:
    """The value as JSON can hold it, redacted.

    What JSON has no form for becomes `{"$nonjson": kind, "value": …}` and is never
    silently changed.
    """
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {_key(redact(str(key))): packed(item, redact) for key, item in items}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [packed(item, redact) for item in cast("Iterable[Any]", value)]
    match value:
        case None | bool():
            return value
        case str():
            return _text(redact(value))
        case int():
            narrow = -_WIDEST <= value < _WIDEST
            return int(value) if narrow else {"$nonjson": "int", "value": str(value)}
        case float():
            return value if math.isfinite(value) else {"$nonjson": "float", "value": repr(value)}
        case bytes() | bytearray():
            return {"$nonjson": "bytes", "value": base64.b64encode(value).decode()}
        case AssistantMessage() | SystemMessage() | ToolMessage() | UserMessage():
            return packed(value.to_json(), redact)
        case _:
            return packed(_plain(value), redact)


def _key(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _text(text: str) -> Any:
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates
        return {"$nonjson": "surrogates", "value": ascii(text)[1:-1]}
    return text


def _plain(value: Any) -> Any:
    try:
        return to_jsonable_python(value, fallback=_unknown, bytes_mode="base64")
    except (ValueError, TypeError, RecursionError):
        return _unknown(value)


def _unknown(value: Any) -> JsonObject:
    return {"$nonjson": type(value).__qualname__, "value": repr(value)}


def canonical(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no white space, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def digest(data: bytes) -> str:
    """The name of a blob."""
    return "b2:" + hashlib.blake2b(data, digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedRequest:
    """The names of what a request holds.

    Attributes:
        messages: Of all its messages, in order.
        new: The messages that the agent's last request did not have.
        tools: Of its tool list.
        params: What it asks for besides, as JSON.
        fingerprint: The hash of the normalised request: equal ones ask the same.
    """

    messages: list[str]
    new: tuple[Message, ...]
    tools: str
    params: JsonObject
    fingerprint: str


@dataclass(frozen=True, slots=True)
class _Chain:
    """The last request of an agent: its messages, their names, and the hash of these so far."""

    messages: tuple[Message, ...]
    names: list[str]
    running: hashlib.blake2b


class Namer:
    """Names messages, tool lists and requests, each object once.

    A message has two names: the blob's, of all that it holds, and the request's,
    of what decides whether a replay asks the same (without the ids that servers
    give to calls: calls are answered in order, so their place says it all).
    """

    def __init__(self, redact: Redactor) -> None:
        self.redact = redact
        # A memo outlives the run: the names under another redaction key are other names.
        self._blobs, self._identities = ("blob", redact.key_id), ("identity", redact.key_id)
        self._chains: dict[Address, _Chain] = {}
        self._asked: tuple[Any, ...] = ()
        self._named: tuple[str, JsonObject, bytes] = ("", {}, b"")

    def message(self, message: Message) -> tuple[str, JsonObject]:
        """The message's blob: its name and its data."""
        return self._blob(message)

    def tools(self, tools: tuple[ToolDefinition, ...]) -> tuple[str, list[JsonObject]]:
        """The blob of a tool list."""
        blobs = [self._blob(tool) for tool in tools]
        return digest(",".join(name for name, _ in blobs).encode()), [data for _, data in blobs]

    def request(self, call: ModelCall) -> NamedRequest:
        """Name a request. What it shares with the last one of the same agent is not looked at."""
        request, agent = call.request, call.at.parent
        chain = self._chains.get(agent)
        if chain is None or request.messages[: len(chain.messages)] != chain.messages:
            chain = _Chain((), [], hashlib.blake2b(digest_size=16))
        new = request.messages[len(chain.messages) :]
        names, running = chain.names, chain.running.copy()
        for message in new:
            names.append(self._blob(message)[0])
            running.update(self._identity(message).encode())
        self._chains[agent] = _Chain(request.messages, names, running)
        running = running.copy()
        tools, params, rest = self._rest(call)
        running.update(rest)
        return NamedRequest(
            messages=names,
            new=new,
            tools=tools,
            params=params,
            fingerprint=f"b2:{running.hexdigest()}",
        )

    def _rest(self, call: ModelCall) -> tuple[str, JsonObject, bytes]:
        """What a request holds besides its messages: it changes seldom, so the last is kept."""
        request = call.request
        asked = (request.tools, request.settings, request.output, request.tool_choice, call.model)
        if self._asked != asked:
            tools = self.tools(request.tools)[0]
            params = request_params(request, self.redact)
            rest = canonical({"model": call.model, "tools": tools, **params})
            self._asked, self._named = asked, (tools, params, rest)
        return self._named

    def _blob(self, value: Message | ToolDefinition) -> tuple[str, JsonObject]:
        memo = value._memo  # pyright: ignore[reportPrivateUsage]  # the memo is for codecs and us
        if self._blobs not in memo:
            data = packed(value.to_json(), self.redact)
            memo[self._blobs] = (digest(canonical(data)), data)
        return memo[self._blobs]

    def _identity(self, message: Message) -> str:
        memo = message._memo  # pyright: ignore[reportPrivateUsage]
        if self._identities not in memo:
            name, data = self._blob(message)
            if isinstance(message, (AssistantMessage, ToolMessage)):
                name = digest(canonical(without_ids(data)))
            memo[self._identities] = name
        return memo[self._identities]


def without_ids(message: JsonObject) -> JsonObject:
    """A message's JSON without the ids of its calls."""
    data = {key: value for key, value in message.items() if key != "tool_call_id"}
    if "tool_calls" in data:
        data["tool_calls"] = [
            {key: value for key, value in call.items() if key != "id"}
            for call in data["tool_calls"]
        ]
    return data


def request_params(request: ModelRequest, redact: Redactor) -> JsonObject:
    """What a request asks for besides its messages and tools, as JSON."""
    params: JsonObject = dict(packed(request.settings, redact))
    for name in ("extra_headers", "extra_query"):
        if name in params:
            # A header or a query may hold any kind of credential, so none is written.
            given = cast("Mapping[str, Any]", request.settings[name])
            params[name] = {key: redact.secret(str(one), "hidden") for key, one in given.items()}
    if "extra_body" in params:
        params["extra_body"] = _without_credentials(params["extra_body"], redact)
    if isinstance(request.tool_choice, str):
        params["tool_choice"] = request.tool_choice
    elif request.tool_choice is not None:
        params["tool_choice"] = {"name": request.tool_choice.name}
    if request.output is not None:
        params["output"] = packed(request.output.to_json(), redact)
    return params


_CREDENTIAL = re.compile("key|token|secret|passw|auth|credential", re.IGNORECASE)


def _without_credentials(value: Any, redact: Redactor) -> Any:
    """A JSON value without what stands under the name of a credential."""
    if is_array(value):
        return [_without_credentials(item, redact) for item in value]
    if not is_object(value):
        return value
    return {
        name: redact.secret(json.dumps(item), "hidden")
        if _CREDENTIAL.search(name) and not isinstance(item, (int, float, bool))
        else _without_credentials(item, redact)
        for name, item in value.items()
    }
