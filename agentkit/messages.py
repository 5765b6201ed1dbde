"""The values of a conversation: messages, parts, requests, responses, usage.

Their JSON form is the chat-completions form with a few more fields (`reasoning`,
unknown fields of the server): history, trace and wire share one shape, and a plain
chat-completions dict is accepted wherever a message is.

Messages are created once and read many times. Each keeps a private memo in which a
codec stores its encoded bytes and the trace its hash, so that the cost of a step
grows with what is new in it, not with the conversation.
"""

from __future__ import annotations

import json
import mimetypes
import operator
import os
import reprlib
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeGuard, cast

from agentkit.errors import InvalidHistory

__all__ = [
    "AssistantMessage",
    "AudioPart",
    "FilePart",
    "FinishReason",
    "ForcedTool",
    "ImagePart",
    "JsonObject",
    "Message",
    "ModelRequest",
    "ModelResponse",
    "OtherPart",
    "OutputFormat",
    "Part",
    "SystemMessage",
    "TextPart",
    "ToolCall",
    "ToolChoice",
    "ToolDefinition",
    "ToolMessage",
    "Usage",
    "UserMessage",
    "dump_messages",
    "is_array",
    "is_object",
    "load_messages",
    "message_from_json",
    "messages_from_json",
    "part_from_json",
]

JsonObject: TypeAlias = dict[str, Any]
FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "error"]


def is_object(value: Any) -> TypeGuard[JsonObject]:
    """Tell whether a JSON value is an object."""
    return isinstance(value, dict)


def is_array(value: Any) -> TypeGuard[list[Any]]:
    """Tell whether a JSON value is an array."""
    return isinstance(value, list)


# Content parts


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPart:
    """Text among other parts."""

    text: str

    def to_json(self) -> JsonObject:
        """Return the chat-completions form."""
        return {"type": "text", "text": self.text}


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePart:
    """An image: `url` is an http(s) address or a `data:` URL with base64 content.

    Tools return it, and prompts hold it beside text.
    """

    url: str
    detail: Literal["auto", "low", "high"] | None = None

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        media_type: str | None = None,
        *,
        detail: Literal["auto", "low", "high"] | None = None,
    ) -> ImagePart:
        """Make a part of an image file's bytes.

        Args:
            data: The bytes.
            media_type: Such as "image/png". Default: recognised for PNG, JPEG, GIF, WebP.
            detail: The resolution at which a model looks at it.

        Raises:
            ValueError: The bytes are of another kind, and `media_type` is missing.
        """
        media_type = media_type or _image_type(data)
        if media_type is None:
            raise ValueError(
                f"The image begins with {bytes(data[:8])!r}, which is not PNG, JPEG, GIF or WebP. "
                "Pass media_type='image/…'."
            )
        return cls(url=_data_url(data, media_type), detail=detail)

    @classmethod
    def from_path(
        cls,
        path: str | os.PathLike[str],
        *,
        detail: Literal["auto", "low", "high"] | None = None,
    ) -> ImagePart:
        """Make a part of an image file, read now.

        Raises:
            OSError: It cannot be read.
            ValueError: It is not an image, by its content and its name.
        """
        data = Path(path).read_bytes()
        guessed = mimetypes.guess_type(path)[0] or ""
        by_name = guessed if guessed.startswith("image/") else None
        return cls.from_bytes(data, _image_type(data) or by_name, detail=detail)

    def to_json(self) -> JsonObject:
        """Return the chat-completions form."""
        image = {"url": self.url} | ({"detail": self.detail} if self.detail else {})
        return {"type": "image_url", "image_url": image}


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioPart:
    """Audio: `data` is base64, `format` such as "wav" or "mp3"."""

    data: str
    format: str

    def to_json(self) -> JsonObject:
        """Return the chat-completions form."""
        return {"type": "input_audio", "input_audio": {"data": self.data, "format": self.format}}


@dataclass(frozen=True, kw_only=True, slots=True)
class FilePart:
    """A file: by `file_id` of an earlier upload, or by `data` (a base64 `data:` URL)."""

    data: str | None = None
    filename: str | None = None
    file_id: str | None = None

    @classmethod
    def from_path(cls, path: str | os.PathLike[str]) -> FilePart:
        """Make a part of a file, read now.

        Raises:
            OSError: It cannot be read.
        """
        media_type = mimetypes.guess_type(path)[0] or "application/octet-stream"
        data = _data_url(Path(path).read_bytes(), media_type)
        return cls(data=data, filename=Path(path).name)

    def to_json(self) -> JsonObject:
        """Return the chat-completions form."""
        named = {"file_data": self.data, "filename": self.filename, "file_id": self.file_id}
        return {"type": "file", "file": {key: v for key, v in named.items() if v is not None}}


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherPart:
    """A part of a type that this version does not know, kept as received."""

    data: JsonObject

    def to_json(self) -> JsonObject:
        """Return the part as received."""
        return self.data


Part: TypeAlias = TextPart | ImagePart | AudioPart | FilePart | OtherPart
Content: TypeAlias = str | tuple[Part, ...]


def _data_url(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{b64encode(data).decode()}"


def _image_type(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    kinds = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
    return next((kind for magic, kind in kinds.items() if data[: len(magic)] == magic), None)


def part_from_json(data: Mapping[str, Any]) -> Part:
    """Decode one content part; an unknown or malformed one is kept as an `OtherPart`."""
    match data:
        case {"type": "text", "text": str(text), **rest} if not rest:
            return TextPart(text=text)
        case {"type": "image_url", "image_url": {"url": str(url), **rest}} if not (
            rest.keys() - {"detail"}
        ):
            return ImagePart(url=url, detail=rest.get("detail"))
        case {"type": "input_audio", "input_audio": {"data": str(audio), "format": str(form)}}:
            return AudioPart(data=audio, format=form)
        case {"type": "file", "file": {**body}} if not (
            body.keys() - {"file_data", "filename", "file_id"}
        ):
            return FilePart(
                data=body.get("file_data"),
                filename=body.get("filename"),
                file_id=body.get("file_id"),
            )
        case _:
            return OtherPart(data=dict(data))


# Messages


@dataclass(frozen=True, kw_only=True, slots=True)
class _Encoded:
    """A value that is encoded once and sent many times."""

    _memo: dict[Any, Any] = field(
        default_factory=dict[Any, Any], init=False, repr=False, compare=False
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Message(_Encoded):
    """The fields that messages of all roles share."""

    _role: ClassVar[str]
    content: Content | None
    name: str | None = None

    @property
    def text(self) -> str:
        """The text parts, joined; empty when there are none."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content or () if isinstance(part, TextPart))

    def to_json(self) -> JsonObject:
        """Return the chat-completions form; `content` is always present, null when absent."""
        content: Any = self.content
        if content is not None and not isinstance(content, str):
            content = [part.to_json() for part in content]
        data: JsonObject = {"role": self._role, "content": content}
        return data if self.name is None else data | {"name": self.name}


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemMessage(_Message):
    """Instructions, sent as system or developer as the server's profile says."""

    _role = "system"
    content: Content


@dataclass(frozen=True, kw_only=True, slots=True)
class UserMessage(_Message):
    """A message of the user."""

    _role = "user"
    content: Content


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """A call that the model requests. `arguments` is its raw text, valid or not."""

    id: str
    name: str
    arguments: str
    extra: JsonObject = field(default_factory=dict[str, Any])

    def to_json(self) -> JsonObject:
        """Return the chat-completions form."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function, **self.extra}


@dataclass(frozen=True, kw_only=True, slots=True)
class AssistantMessage(_Message):
    """A message of the model: text, calls, a refusal, or several of them.

    `reasoning` is the model's reasoning, whatever name the server uses for it, and
    `reasoning_field` that name, so that it can be sent back under it; None if it came
    in no field of its own. `extra` holds the server's unknown fields.
    """

    _role = "assistant"
    content: Content | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_field: str | None = None
    extra: JsonObject = field(default_factory=dict[str, Any])

    def to_json(self) -> JsonObject:
        """Return the chat-completions form."""
        data = _Message.to_json(self)
        if self.reasoning is not None:
            data |= {"reasoning": self.reasoning, "reasoning_field": self.reasoning_field}
        if self.refusal is not None:
            data["refusal"] = self.refusal
        if self.tool_calls:
            data["tool_calls"] = [call.to_json() for call in self.tool_calls]
        return data | self.extra


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolMessage(_Message):
    """The answer to one tool call. `name` is the tool's."""

    _role = "tool"
    call_id: str
    content: Content

    def to_json(self) -> JsonObject:
        """Return the chat-completions form."""
        return _Message.to_json(self) | {"tool_call_id": self.call_id}


Message: TypeAlias = SystemMessage | UserMessage | AssistantMessage | ToolMessage


def message_from_json(
    data: Mapping[str, Any], index: int | None = None, earlier: Sequence[Message] = ()
) -> Message:
    """Decode one message from its chat-completions form.

    The deprecated `function_call`, and a message of role `function`, become a call and
    its answer.

    Args:
        data: The message as a dict.
        index: Its index in the history, for the error and for the id of a `function_call`.
        earlier: The messages before it, among which a function's message finds its call.

    Raises:
        InvalidHistory: The role is unknown, or something in it is of another type than a
            server accepts.
    """
    if not isinstance(data, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  # not everybody checks types
        raise _invalid("The message", index, f"is {_short(data)}; expected a dict.")
    role, name = data.get("role"), data.get("name")
    content = _content_from_json(data.get("content"), index)
    if role == "assistant":
        known = (
            "role content tool_calls function_call refusal reasoning reasoning_field name".split()
        )
        reasoning, field = data.get("reasoning"), data.get("reasoning_field", "reasoning")
        if reasoning is None and isinstance(data.get("reasoning_content"), str):
            known.append(field := "reasoning_content")
            reasoning = data[field]
        calls: Any = data.get("tool_calls") or []
        if not is_array(calls):
            raise _invalid("The message", index, "has tool_calls that are no list.")
        if not calls and (function := data.get("function_call")) is not None:
            calls = [{"id": _function_id(index), "function": function}]
        message: Message = AssistantMessage(
            content=content,
            tool_calls=tuple(_call_from_json(call, index) for call in calls),
            refusal=data.get("refusal"),
            reasoning=reasoning,
            reasoning_field=field if reasoning is not None and isinstance(field, str) else None,
            name=name,
            extra={key: value for key, value in data.items() if key not in known},
        )
    elif role == "tool":
        call_id = _answered_id(data.get("tool_call_id"), index)
        message = ToolMessage(call_id=call_id, content=_given(content, role, index), name=name)
    elif role == "function":
        call_id = _id_of_function(name, earlier, index)
        message = ToolMessage(call_id=call_id, content=content or "", name=name)
    elif role == "user":
        message = UserMessage(content=_given(content, role, index), name=name)
    elif role in ("system", "developer"):
        message = SystemMessage(content=_given(content, role, index), name=name)
    else:
        expected = "expected system, developer, user, assistant, tool or function"
        raise _invalid("The message", index, f"has role {_short(role)}; {expected}.")
    return check_message(message, index)


def check_message(message: Any, index: int | None = None) -> Message:
    """Check that every part of a message is of the type that it is declared with.

    Raises:
        InvalidHistory: One is not; the text names it.
    """
    if not isinstance(message, Message):
        form = "expected a message, or a dict in the chat-completions form."
        raise _invalid("The message", index, f"is {_short(message)}; {form}")
    if _CHECKED in message._memo:  # pyright: ignore[reportPrivateUsage]  # of this module's class
        return message
    content: Any = message.content
    assistant = isinstance(message, AssistantMessage)
    groups: list[tuple[Any, Any]] = [(Message, (message,))]
    if not (isinstance(content, str) or (assistant and content is None)):
        groups.append((Part, content))
    if assistant:
        groups.append((ToolCall, message.tool_calls))
    for kind, values in groups:
        if not isinstance(values, (list, tuple)):
            name = "content" if kind is Part else "tool_calls"
            raise _invalid("The message", index, f"has {_short(values)} as its {name}.")
        for value in cast("Sequence[Any]", values):
            wrong = _wrong(value) if isinstance(value, kind) else f"holds {_short(value)}"
            if wrong is None and isinstance(value, OtherPart) and not assistant:
                wrong = _malformed(value.data)
            if wrong is not None:
                raise _invalid("The message", index, f"{wrong}.")
    message._memo[_CHECKED] = True  # pyright: ignore[reportPrivateUsage]  # as above
    return message


_CHECKED = object()
"""The entry in the memo of a message that was checked."""


def _wrong(value: Any) -> str | None:
    """Return which field of a message, a part or a call is of another type than declared."""
    for one in fields(value):
        item = getattr(value, one.name)
        if one.name in ("_memo", "tool_calls") or isinstance(item, str):
            continue
        if one.name == "content" and (item is None or isinstance(item, (list, tuple))):
            continue
        expected = "text"
        if one.name == "extra" or isinstance(value, OtherPart):
            expected = "a JSON object"
            with suppress(TypeError, ValueError, RecursionError):
                if is_object(item) and json.dumps(item):
                    continue
        elif item is None and one.default is None:
            continue
        return f"has {_short(item)} as {type(value).__name__}.{one.name}; expected {expected}"
    return None


def _malformed(part: JsonObject) -> str | None:
    """Return what is wrong with a part that is of no known form, or holds more than is known."""
    kind = part.get("type")
    if not isinstance(kind, str):
        return f"has a part of type {_short(kind)}; expected text, such as 'text'"
    known = {"text": str, "image_url": dict, "input_audio": dict, "file": dict}.get(kind, object)
    return None if isinstance(part.get(kind), known) else f"has a part {kind!r} without its {kind}"


def _short(value: Any) -> str:
    """Return a value for a message: what holds more may be of any size and depth."""
    plain = value is None or isinstance(value, (str, int, float))
    return reprlib.repr(value) if plain else f"a value of type {type(value).__name__}"


def _given(content: Content | None, role: str, index: int | None) -> Content:
    if content is None:
        raise _invalid(f"The {role} message", index, "has no content.")
    return content


def _content_from_json(content: Any, index: int | None) -> Content | None:
    if content is None or isinstance(content, str):
        return content
    if is_array(content) and all(map(is_object, content)):
        return tuple(map(part_from_json, content))
    problem = f"is {type(content).__name__}; expected text or a list of parts."
    raise _invalid("The content of the message", index, problem)


def _function_id(index: int | None) -> str:
    """Return the id of a `function_call`, which has none."""
    return "function_call" if index is None else f"function_call_{index}"


def _answered_id(call_id: Any, index: int | None) -> str:
    if not isinstance(call_id, str):
        problem = f"has {_short(call_id)} as its tool_call_id; expected the id of a call."
        raise _invalid("The tool message", index, problem)
    return call_id


def _id_of_function(name: Any, earlier: Sequence[Message], index: int | None) -> str:
    """Return the id of the call that a function's message answers: the last open one of its name.

    Without any message before it, it is taken to answer the one at the index before.
    """
    if not isinstance(name, str):
        raise _invalid("The function message", index, f"has {_short(name)} as its name.")
    answered: set[str] = set()
    for message in reversed(earlier):
        if isinstance(message, ToolMessage):
            answered.add(message.call_id)
        elif isinstance(message, AssistantMessage):
            open_calls = [call for call in message.tool_calls if call.id not in answered]
            return next((call.id for call in open_calls if call.name == name), _function_id(index))
        else:
            break
    return _function_id(index and index - 1)


def _call_from_json(data: Any, index: int | None) -> ToolCall:
    match data:
        case {"id": str(id_), "function": {"name": str(name), "arguments": str(arguments)}}:
            known = ("id", "type", "function")
            extra = {key: value for key, value in data.items() if key not in known}
            return ToolCall(id=id_, name=name, arguments=arguments, extra=extra)
        case _:
            form = '{"id": …, "function": {"name": …, "arguments": "…"}}'
            problem = f"is {reprlib.repr(data)}; expected {form}."
            raise _invalid("A tool call of the message", index, problem)


def _invalid(what: str, index: int | None, problem: str) -> InvalidHistory:
    where = "" if index is None else f" at index {index}"
    return InvalidHistory(f"{what}{where} {problem}", index=index)


# Requests and responses


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """The usage of a run, sub-agents included. Tokens are as counted by the servers.

    Attributes:
        requests: Model calls that were answered.
        input_tokens: Tokens read, cached ones included.
        output_tokens: Tokens written, those of reasoning included.
        cached_tokens: Input tokens that came from the server's cache.
        reasoning_tokens: Output tokens that were reasoning.
        tool_calls: Tool calls that were executed.
        tool_bytes: Bytes that the model read from tools, as UTF-8.
        cost: USD; None where no price is known. Needs the extra `prices`, or a server that
            reports it.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    tool_calls: int = 0
    tool_bytes: int = 0
    cost: float | None = None

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        """Add field by field. An unknown cost counts as 0."""
        if other is NO_USAGE:
            return self
        if self is NO_USAGE:
            return other
        cost = self.cost if other.cost is None else (self.cost or 0) + other.cost
        return Usage(  # written out: this runs several times a step
            requests=self.requests + other.requests,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            tool_calls=self.tool_calls + other.tool_calls,
            tool_bytes=self.tool_bytes + other.tool_bytes,
            cost=cost,
        )

    def to_json(self) -> JsonObject:
        """Return the fields that are not zero."""
        return {name: n for name, n in zip(_FIELDS, _values(self), strict=True) if n}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Usage:
        """Reverse `to_json`; unknown keys are ignored."""
        return cls(**{name: data[name] for name in _FIELDS if name in data})


NO_USAGE = Usage()
"""Of what has used nothing, as most effects beside model calls have."""
_FIELDS = tuple(one.name for one in fields(Usage))
_values = operator.attrgetter(*_FIELDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolDefinition(_Encoded):
    """A tool as the model sees it. `parameters` is a JSON Schema of type object."""

    name: str
    description: str
    parameters: JsonObject
    strict: bool = False

    def to_json(self) -> JsonObject:
        """Return the chat-completions form."""
        function: JsonObject = {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }
        if self.strict:
            function["strict"] = True
        return {"type": "function", "function": function}

    @property
    def tokens(self) -> int:
        """The approximate tokens that it costs in each request: a quarter of its bytes."""
        text = json.dumps(self.to_json(), ensure_ascii=False, separators=(",", ":"))
        return (len(text.encode("utf-8", "surrogatepass")) + 3) // 4

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ToolDefinition:
        """Reverse `to_json`."""
        return cls(**data["function"])


@dataclass(frozen=True, kw_only=True, slots=True)
class ForcedTool:
    """A `tool_choice` of one tool (a plain name could be a tool named "auto")."""

    name: str


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | ForcedTool


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputFormat(_Encoded):
    """A `response_format`: a JSON Schema that the server enforces, or any JSON object."""

    kind: Literal["json_schema", "json_object"]
    name: str = "output"
    schema: JsonObject | None = None
    strict: bool = True

    def to_json(self) -> JsonObject:
        """Return the chat-completions form."""
        if self.kind == "json_object":
            return {"type": "json_object"}
        body = {"name": self.name, "schema": self.schema, "strict": self.strict}
        return {"type": "json_schema", "json_schema": body}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRequest:
    """A request to a model, independent of the server.

    `settings` holds the sampling parameters that were set, under their
    chat-completions names; a codec renames or drops what its server lacks.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: ToolChoice | None = None
    output: OutputFormat | None = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelResponse:
    """A complete response of a model.

    Attributes:
        message: The model's message.
        finish: Why the model stopped.
        usage: The tokens it cost.
        model: The model that answered, as named by the server.
        id: The server's id of the response.
        choices: The other choices of a direct request with `n > 1`.
        logprobs: The server's log probabilities, as sent.
        extra: The response's unknown fields.
    """

    message: AssistantMessage
    finish: FinishReason = "stop"
    usage: Usage = Usage(requests=1)
    model: str | None = None
    id: str | None = None
    choices: tuple[AssistantMessage, ...] = ()
    logprobs: Any = None
    extra: JsonObject = field(default_factory=dict[str, Any])


def messages_from_json(items: Sequence[Mapping[str, Any] | Message]) -> tuple[Message, ...]:
    """Decode a history of messages and plain chat-completions dicts, in any mixture.

    Raises:
        InvalidHistory: It is no such list. The error names the index and the reason.
    """
    if isinstance(items, (str, bytes, Mapping)) or not isinstance(items, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]  # not everybody checks types
        raise InvalidHistory(f"The history is {_short(items)}; expected a list of messages.")
    messages: list[Message] = []
    for index, item in enumerate(items):
        plain = isinstance(item, Mapping)
        message = message_from_json(item, index, messages) if plain else check_message(item, index)
        messages.append(message)
    return tuple(messages)


def dump_messages(messages: Sequence[Message]) -> str:
    """Dump a history as JSON text; `load_messages` returns equal messages."""
    # ASCII, so that no encoding of a file or a database can damage a model's text.
    return json.dumps([message.to_json() for message in messages_from_json(messages)])


def load_messages(text: str | bytes) -> tuple[Message, ...]:
    """Load a history from JSON text: a list of messages in the chat-completions form.

    Raises:
        InvalidHistory: The text is not JSON, not a list, or a message in it is invalid.
    """
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidHistory(f"The stored history is not JSON: {error}.") from error
    if not is_array(data):
        raise InvalidHistory("The stored history is not a list of messages.")
    return messages_from_json(data)
