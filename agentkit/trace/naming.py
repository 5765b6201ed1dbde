"""Canonical JSON and content hashes.

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
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from pydantic_core import to_json, to_jsonable_python

from agentkit.core.effects import Address, ModelCall
from agentkit.errors import TraceCorrupt
from agentkit.messages import (
    AssistantMessage,
    Content,
    JsonObject,
    Message,
    ModelRequest,
    OutputFormat,
    SystemMessage,
    ToolDefinition,
    ToolMessage,
    UserMessage,
    is_array,
    is_object,
)
from agentkit.redaction import Paths, Redactor, below
from agentkit.tools.render import in_order

_WIDEST = 2**63
"""Integers beyond this are text in a trace: many readers of JSON cannot hold them."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A value that was packed before."""

    value: Any


def packed(value: Any, redact: Redactor, *, own: bool = False) -> Any:
    """Return the value as JSON can hold it, redacted.

    What JSON has no form for becomes `{"$nonjson": kind, "value": …}` and is never
    silently changed. Nothing is raised, whatever the value's own methods do.

    Args:
        value: Anything.
        redact: Takes secrets out of texts, and what stands in secret fields.
        own: The fields are agentkit's own, as a message's: only its texts have secret ones.
    """
    if type(value) is str:
        return whole_text(redact(value))
    try:
        return _packed(value, redact, () if own else redact.paths)
    except (Exception, RecursionError):
        return {"$nonjson": type(value).__qualname__, "value": "(it cannot be read)"}


def _packed(value: Any, redact: Redactor, paths: Paths) -> Any:
    kind = cast("type[Any]", type(value))
    if kind is str:
        return whole_text(redact(value))
    if value is None or kind is bool or (kind is int and -_WIDEST <= value < _WIDEST):
        return value
    if kind is dict or isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        if paths:
            fields = {_key(k, redact): _part(str(k), item, redact, paths) for k, item in items}
        else:
            fields = {_key(k, redact): _packed(item, redact, ()) for k, item in items}
        # Somebody's own value may look like one of our marks.
        return {"$nonjson": "object", "value": fields} if "$nonjson" in fields else fields
    if isinstance(value, (list, tuple, set, frozenset)):
        items = cast("Iterable[Any]", value)
        if paths:
            parts = [_part(str(n), item, redact, paths) for n, item in enumerate(items)]
        else:
            parts = [_packed(item, redact, ()) for item in items]
        return sorted(parts, key=canonical) if isinstance(value, (set, frozenset)) else parts
    return _scalar(value, redact, paths)


def _part(name: str, item: Any, redact: Redactor, paths: Paths) -> Any:
    """Pack what stands at one name or index of a value that `paths` lead through."""
    further = below(paths, name)
    if () in further:
        return redact.of_field(_packed(item, redact, ()))
    return _packed(item, redact, further)


def _scalar(value: Any, redact: Redactor, paths: Paths) -> Any:
    match value:
        case Packed(value=done):
            return done
        case str():
            return whole_text(redact(str(value)))
        case int():
            narrow = -_WIDEST <= value < _WIDEST
            return int(value) if narrow else {"$nonjson": "int", "value": str(value)}
        case float():
            finite = math.isfinite(value)
            return float(value) if finite else {"$nonjson": "float", "value": repr(value)}
        case bytes() | bytearray():
            return {"$nonjson": "bytes", "value": base64.b64encode(value).decode()}
        case AssistantMessage() | SystemMessage() | ToolMessage() | UserMessage():
            return _packed(value.to_json(), redact, ())
        case _:
            return _packed(_plain(value), redact, paths)


def is_plain(fields: JsonObject, redact: Redactor) -> bool:
    """Tell whether `packed` certainly leaves fields as they are.

    Most are texts with nothing to hide, which are looked at together.
    """
    texts: list[str] = []
    for value in fields.values():
        kind = cast("type[Any]", type(value))
        if kind is str:
            texts.append(value)
        elif kind is dict:
            for key, item in cast("dict[Any, Any]", value).items():
                kind = cast("type[Any]", type(item))
                if type(key) is not str or key[:1] == "$":
                    return False
                if kind is str:
                    texts += (key, item)
                elif item is None or (kind is int and -_WIDEST <= item < _WIDEST):
                    texts.append(key)
                else:
                    return False
        else:
            return False
    text = "\n".join(texts)
    return text.isascii() and redact.passes(text)


def _key(name: Any, redact: Redactor) -> str:
    if type(name) is str and len(name) < 15 and name.isidentifier() and name.isascii():
        return name  # most are, and no secret is
    return redact(str(name)).encode("utf-8", "backslashreplace").decode()


def whole_text(text: str) -> Any:
    """Text that is redacted already as JSON can hold it."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates
        return {"$nonjson": "surrogates", "value": ascii(text)[1:-1]}
    return text


def unpacked(value: Any) -> Any:
    """Reverse `packed`, for what can come back: floats, ints, bytes and surrogates."""
    if is_array(value):
        return [unpacked(item) for item in value]
    if not is_object(value):
        return value
    match value:
        case {"$nonjson": "object", "value": fields} if is_object(fields):
            return {key: unpacked(item) for key, item in fields.items()}
        case {"$nonjson": str(kind), "value": str(text)} if kind in _MARKED:
            try:
                return _MARKED[kind](text)
            except ValueError as error:
                raise TraceCorrupt(
                    f"The trace marks {text!r} as {kind}, which it is not."
                ) from error
        case _:
            return {key: unpacked(item) for key, item in value.items()}


_MARKED: Mapping[str, Callable[[str], Any]] = {
    "float": float,
    "int": int,
    "bytes": base64.b64decode,
    "surrogates": lambda text: text.encode("ascii").decode("unicode_escape"),
}


def _plain(value: Any) -> Any:
    try:
        plain = to_jsonable_python(value, fallback=_unknown, bytes_mode="base64")
    except (ValueError, TypeError, RecursionError):
        return _unknown(value)
    with suppress(Exception):  # where a serializer of its own has made another shape of it
        return in_order(value, plain)
    return plain


def _unknown(value: Any) -> JsonObject:
    return {"$nonjson": type(value).__qualname__, "value": repr(value)}


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def canonical(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no white space, UTF-8."""
    return _encode(value).encode("utf-8", "surrogatepass")


def digest(data: bytes) -> str:
    """Return the name of a blob."""
    return "b2:" + hashlib.blake2b(data, digest_size=16).hexdigest()


def tools_name(names: Iterable[str]) -> str:
    """Return the name of a tool list, made of those of its tools."""
    return digest(",".join(names).encode())


Blob: TypeAlias = Message | ToolDefinition | OutputFormat
_Rest: TypeAlias = tuple[Any, str, JsonObject, tuple[str, bytes] | None, bytes]
"""Of a request, the model, the tools, the parameters, the output format, and all as bytes."""


@dataclass(kw_only=True, slots=True)
class NamedRequest:
    """The names of what a request holds.

    Attributes:
        since: The address of the agent's last request, if this one begins with all of it.
        messages: Of its messages after those, in order.
        new: Those of them that were not named before.
        model: The model's own, as it may be written.
        tools: Of its tool list.
        params: What it asks for besides, as JSON; of an output format, the name.
        output: The name and the canonical JSON of its output format, if it has one.
        fingerprint: The hash of the normalised request: equal ones ask the same.
    """

    since: Address | None
    messages: list[str]
    new: tuple[Message, ...]
    model: Any
    tools: str
    params: JsonObject
    output: tuple[str, bytes] | None
    fingerprint: str


@dataclass(slots=True)
class _Chain:
    """The last request of an agent: its messages, their names, and the hash of these so far."""

    at: Address | None
    messages: tuple[Message, ...]
    names: list[str]
    running: hashlib.blake2b


class Namer:
    """Names messages, tool lists and requests, each object once.

    A message has two names: the blob's, of all that it holds, and the request's,
    of what decides whether a replay asks the same (without the ids that servers
    give to calls: calls are answered in order, so their place says it all).

    Attributes:
        plain: The content of the message that was named last, if nothing is to be hidden in it.
    """

    def __init__(self, redact: Redactor) -> None:
        self.redact = redact
        # A memo outlives the run: under other rules of redaction the names are others.
        self._memo = f"trace {redact.rules}"
        self._chains: dict[Address, _Chain] = {}
        self._parts: tuple[Any, ...] = ()
        self._named: _Rest = ("", "", {}, None, b"")
        self.plain: Content | None = None

    def message(self, message: Message) -> tuple[str, JsonObject]:
        """Return a message's blob: its name and its data."""
        name, content = self.blob(message)
        return name, json.loads(content)

    def tools(self, tools: tuple[ToolDefinition, ...]) -> tuple[str, list[JsonObject]]:
        """Return the blob of a tool list: its name and its data."""
        name, content = self.tools_blob(tools)
        return name, json.loads(content)

    def blob(self, value: Blob) -> tuple[str, bytes]:
        """Return a blob's name and its canonical JSON."""
        return self.known(value)[:2]

    def tools_blob(self, tools: tuple[ToolDefinition, ...]) -> tuple[str, bytes]:
        """Return the name and the canonical JSON of a tool list."""
        blobs = [self.blob(tool) for tool in tools]
        return tools_name(name for name, _ in blobs), b"[" + b",".join(
            content for _, content in blobs
        ) + b"]"

    def request(self, call: ModelCall) -> NamedRequest:
        """Name a request. What it shares with the last one of the same agent is not looked at."""
        messages, agent = call.request.messages, call.at.parent
        chain = self._chains.get(agent)
        if chain is None or messages[: len(chain.messages)] != chain.messages:
            self._chains[agent] = chain = _Chain(None, (), [], hashlib.blake2b(digest_size=16))
        since, new = chain.at, messages[len(chain.messages) :]
        chain.at, chain.messages = call.at, messages
        for message in new:
            name, _, identity = self.known(message)
            chain.names.append(name)
            chain.running.update(identity.encode())
        running = chain.running.copy()
        model, tools, params, output, rest = self._rest(call)
        running.update(rest)
        if since == call.at:  # it is asked again, and a request does not continue itself
            since = None
        return NamedRequest(
            since=since,
            messages=chain.names[len(chain.names) - len(new) :] if since else [*chain.names],
            new=new,
            model=model,
            tools=tools,
            params=params,
            output=output,
            fingerprint=f"b2:{running.hexdigest()}",
        )

    def _rest(self, call: ModelCall) -> _Rest:
        """Name the rest of a request. It changes seldom, so the last is kept."""
        request = call.request
        parts = (request.tools, request.settings, request.output, request.tool_choice, call.model)
        if self._parts != parts:
            tools = self.tools_blob(request.tools)[0]
            params, output = _asked(request, self.redact), None
            rest = {"model": call.model, "tools": tools, **params}
            content = canonical(rest)
            if request.output is not None:
                output = self.blob(request.output)
                before = canonical({name: one for name, one in rest.items() if name < "output"})
                after = canonical({name: one for name, one in rest.items() if name > "output"})
                content = b'%b,"output":%b,%b' % (before[:-1], output[1], after[1:])
                params["output"] = output[0]
            model = packed(call.model, self.redact)
            self._parts, self._named = parts, (model, tools, params, output, content)
        return self._named

    def known(self, value: Blob) -> tuple[str, bytes, str]:
        """Return a value's name, its canonical JSON, and its name without ids."""
        memo = value._memo  # pyright: ignore[reportPrivateUsage]  # the memo is for codecs and us
        known = memo.get(self._memo)
        if known is None:
            contents = _quick(value, self.redact)
            self.plain = value.content if contents and isinstance(value, AssistantMessage) else None
            content, bare = contents or _contents(value, self.redact)
            name = digest(content)
            known = memo[self._memo] = (name, content, name if bare is content else digest(bare))
        return known


def _contents(value: Blob, redact: Redactor) -> tuple[bytes, bytes]:
    """Return the canonical JSON of a blob, with and without ids."""
    data = packed(value.to_json(), redact, own=True)
    content = canonical(data)
    if isinstance(value, (AssistantMessage, ToolMessage)):
        return content, canonical(without_ids(data))
    return content, content


def _quick(value: Blob, redact: Redactor) -> tuple[bytes, bytes] | None:
    """Do the same at a quarter of the cost for what each step adds, if it is plain text.

    The fields are in their order already, so that they need not be sorted.
    """
    if isinstance(value, (ToolDefinition, OutputFormat)):
        return None
    content = value.content or ""
    if not isinstance(content, str):
        return None
    try:
        if isinstance(value, ToolMessage):
            if value.name is None or not _passes(content, (value.name, value.call_id), redact):
                return None
            bare = to_json({"content": content, "name": value.name, "role": "tool"})
            return b'%b,"tool_call_id":%b}' % (bare[:-1], to_json(value.call_id)), bare
        if isinstance(value, AssistantMessage):
            role, calls, simple = "assistant", value.tool_calls, _is_simple(value)
        else:
            role, calls = "user" if isinstance(value, UserMessage) else "system", ()
            simple = value.name is None
        texts = [text for one in calls for text in (one.id, one.name, one.arguments)]
        if not (simple and _passes(content, texts, redact)):
            return None
        head = to_json({"content": value.content, "role": role})
        if not calls:
            return head, head
        functions = [
            b'{"function":%b,' % to_json({"arguments": one.arguments, "name": one.name})
            for one in calls
        ]
        ids = [b'"id":%b,' % to_json(one.id) for one in calls]
        whole = b",".join(
            [b'%b%b"type":"function"}' % each for each in zip(functions, ids, strict=True)]
        )
        bare = b",".join([b'%b"type":"function"}' % one for one in functions])
        head = b'%b,"tool_calls":[' % head[:-1]
        return b"%b%b]}" % (head, whole), b"%b%b]}" % (head, bare)
    except (TypeError, ValueError):  # no texts, or lone surrogates
        return None


def _passes(content: str, names: Iterable[str], redact: Redactor) -> bool:
    """Tell whether nothing is to be hidden in a text, nor in names, which look more like keys."""
    return redact.passes(content) and redact.passes("\n".join(names))


def _is_simple(message: AssistantMessage) -> bool:
    """Whether it has a text and calls, and no more."""
    more = (message.name, message.reasoning, message.refusal)
    return more == (None, None, None) and not (
        message.extra or any(call.extra for call in message.tool_calls)
    )


def without_ids(message: JsonObject) -> JsonObject:
    """Return a message's JSON without the ids of its calls."""
    data = {key: value for key, value in message.items() if key != "tool_call_id"}
    if data.get("tool_calls"):
        data["tool_calls"] = [
            {key: value for key, value in call.items() if key != "id"}
            for call in data["tool_calls"]
        ]
    return data


def request_params(request: ModelRequest, redact: Redactor) -> JsonObject:
    """Return the parameters of a request, without messages and tools, as JSON."""
    params = _asked(request, redact)
    if request.output is not None:
        params["output"] = packed(request.output.to_json(), redact, own=True)
    return params


def _asked(request: ModelRequest, redact: Redactor) -> JsonObject:
    """Return the parameters but for the output format."""
    params = hidden_settings(request.settings, redact)
    if isinstance(request.tool_choice, str):
        params["tool_choice"] = request.tool_choice
    elif request.tool_choice is not None:
        params["tool_choice"] = {"name": request.tool_choice.name}
    return params


def hidden_settings(settings: Mapping[str, Any], redact: Redactor) -> JsonObject:
    """Return sampling parameters without credentials, as JSON."""
    params: JsonObject = dict(packed(settings, redact))
    for name in ("extra_headers", "extra_query"):
        if settings.get(name):
            # A header or a query may hold any kind of credential, so none is written.
            given = cast("Mapping[str, Any]", settings[name])
            params[name] = {key: redact.secret(str(one), "hidden") for key, one in given.items()}
    if "extra_body" in params:
        params["extra_body"] = _without_credentials(params["extra_body"], redact)
    return params


_CREDENTIAL = re.compile("key|token|secret|passw|auth|credential", re.IGNORECASE)


def _without_credentials(value: Any, redact: Redactor) -> Any:
    """Replace what stands under the name of a credential in a JSON value."""
    if is_array(value):
        return [_without_credentials(item, redact) for item in value]
    if not is_object(value):
        return value
    return {
        name: redact.secret(item if isinstance(item, str) else json.dumps(item), "hidden")
        if _CREDENTIAL.search(name) and not isinstance(item, (int, float, bool))
        else _without_credentials(item, redact)
        for name, item in value.items()
    }
