"""What a conversation is made of: frozen values that every other file speaks in.

Their JSON form is the chat-completions form, with a few fields more
(`reasoning`, unknown fields of the server): history, trace and wire are one
shape, and a plain chat-completions dict is accepted wherever a message is.

Messages are created once and read many times. Each keeps a private memo in
which a codec stores its encoded bytes and the trace its hash, so that a step
costs what is new in it and not what the conversation has grown to.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeAlias, TypeGuard

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
    """Whether a JSON value is an object."""
    return isinstance(value, dict)


def is_array(value: Any) -> TypeGuard[list[Any]]:
    """Whether a JSON value is an array."""
    return isinstance(value, list)


# Content parts


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPart:
    """Text among other parts."""

    text: str

    def to_json(self) -> JsonObject:
        """The chat-completions form."""
        return {"type": "text", "text": self.text}


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePart:
    """An image: `url` is an http(s) address or a `data:` URL with base64 content."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None

    def to_json(self) -> JsonObject:
        """The chat-completions form."""
        image = {"url": self.url} | ({"detail": self.detail} if self.detail else {})
        return {"type": "image_url", "image_url": image}


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioPart:
    """Audio: `data` is base64, `format` such as "wav" or "mp3"."""

    data: str
    format: str

    def to_json(self) -> JsonObject:
        """The chat-completions form."""
        return {"type": "input_audio", "input_audio": {"data": self.data, "format": self.format}}


@dataclass(frozen=True, kw_only=True, slots=True)
class FilePart:
    """A file: by `file_id` of an earlier upload, or by `data` (a base64 `data:` URL)."""

    data: str | None = None
    filename: str | None = None
    file_id: str | None = None

    def to_json(self) -> JsonObject:
        """The chat-completions form."""
        named = {"file_data": self.data, "filename": self.filename, "file_id": self.file_id}
        return {"type": "file", "file": {key: v for key, v in named.items() if v is not None}}


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherPart:
    """A part of a type this version does not know, kept as it came."""

    data: JsonObject

    def to_json(self) -> JsonObject:
        """The part as it came."""
        return self.data


Part: TypeAlias = TextPart | ImagePart | AudioPart | FilePart | OtherPart
Content: TypeAlias = str | tuple[Part, ...]


def part_from_json(data: Mapping[str, Any]) -> Part:
    """Decode one content part; an unknown or odd one is kept as an `OtherPart`."""
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
    """A value that is sent again and again."""

    _memo: dict[Any, Any] = field(
        default_factory=dict[Any, Any], init=False, repr=False, compare=False
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Message(_Encoded):
    """What the messages of all roles have in common."""

    _role: ClassVar[str]
    content: Content | None
    name: str | None = None

    @property
    def text(self) -> str:
        """The text parts joined, other parts left out; empty when there are none."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content or () if isinstance(part, TextPart))

    def to_json(self) -> JsonObject:
        """The chat-completions form; `content` is always there, null when absent."""
        content: Any = self.content
        if content is not None and not isinstance(content, str):
            content = [part.to_json() for part in content]
        data: JsonObject = {"role": self._role, "content": content}
        return data if self.name is None else data | {"name": self.name}


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemMessage(_Message):
    """Instructions. Whether a server calls them system or developer is its profile's business."""

    _role = "system"
    content: Content


@dataclass(frozen=True, kw_only=True, slots=True)
class UserMessage(_Message):
    """What the user says."""

    _role = "user"
    content: Content


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """One call the model asks for. `arguments` is the raw text it sent, whatever that is."""

    id: str
    name: str
    arguments: str
    extra: JsonObject = field(default_factory=dict[str, Any])

    def to_json(self) -> JsonObject:
        """The chat-completions form."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function, **self.extra}


@dataclass(frozen=True, kw_only=True, slots=True)
class AssistantMessage(_Message):
    """What the model says: text, calls, a refusal, or several of them.

    `reasoning` is the text of the model's thinking under whatever name the
    server sent it; `extra` holds the server's unknown fields.
    """

    _role = "assistant"
    content: Content | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    refusal: str | None = None
    reasoning: str | None = None
    extra: JsonObject = field(default_factory=dict[str, Any])

    def to_json(self) -> JsonObject:
        """The chat-completions form."""
        data = _Message.to_json(self)
        if self.reasoning is not None:
            data["reasoning"] = self.reasoning
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
        """The chat-completions form."""
        return _Message.to_json(self) | {"tool_call_id": self.call_id}


Message: TypeAlias = SystemMessage | UserMessage | AssistantMessage | ToolMessage


def message_from_json(data: Mapping[str, Any], index: int | None = None) -> Message:
    """Decode one message from its chat-completions form.

    Args:
        data: The message as a dict.
        index: Its place in the history, for the error.

    Raises:
        InvalidHistory: The role is unknown, or the content is neither text nor parts.
    """
    role, name = data.get("role"), data.get("name")
    content = _content_from_json(data.get("content"), index)
    if role == "assistant":
        known = ("role", "content", "tool_calls", "refusal", "reasoning", "name")
        return AssistantMessage(
            content=content,
            tool_calls=tuple(_call_from_json(call, index) for call in data.get("tool_calls") or ()),
            refusal=data.get("refusal"),
            reasoning=data.get("reasoning"),
            name=name,
            extra={key: value for key, value in data.items() if key not in known},
        )
    if role not in ("system", "developer", "user", "tool"):
        expected = "expected system, developer, user, assistant or tool"
        raise _invalid("The message", index, f"has role {role!r}; {expected}.")
    if content is None:
        raise _invalid(f"The {role} message", index, "has no content.")
    if role == "tool":
        call_id = data.get("tool_call_id")
        if not isinstance(call_id, str):
            problem = "has no tool_call_id; it must name the call it answers."
            raise _invalid("The tool message", index, f"{problem} Got {call_id!r}.")
        return ToolMessage(call_id=call_id, content=content, name=name)
    kind = UserMessage if role == "user" else SystemMessage
    return kind(content=content, name=name)


def _content_from_json(content: Any, index: int | None) -> Content | None:
    if content is None or isinstance(content, str):
        return content
    if is_array(content) and all(map(is_object, content)):
        return tuple(map(part_from_json, content))
    problem = f"is {type(content).__name__}; expected text or a list of parts."
    raise _invalid("The content of the message", index, problem)


def _call_from_json(data: Any, index: int | None) -> ToolCall:
    match data:
        case {"id": str(id_), "function": {"name": str(name), "arguments": str(arguments)}}:
            known = ("id", "type", "function")
            extra = {key: value for key, value in data.items() if key not in known}
            return ToolCall(id=id_, name=name, arguments=arguments, extra=extra)
        case _:
            form = '{"id": …, "function": {"name": …, "arguments": "…"}}'
            raise _invalid("A tool call of the message", index, f"is not {form}: {data!r}.")


def _invalid(what: str, index: int | None, problem: str) -> InvalidHistory:
    where = "" if index is None else f" at index {index}"
    return InvalidHistory(f"{what}{where} {problem}", index=index)


# Requests and responses


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a run has used, sub-agents included. Tokens are as the servers counted them.

    Attributes:
        requests: Model calls that were answered.
        input_tokens: Tokens read, cached ones included.
        output_tokens: Tokens written, those of reasoning included.
        cached_tokens: Input tokens that came from the server's cache.
        reasoning_tokens: Output tokens that were reasoning.
        tool_calls: Tool calls that were executed.
        tool_bytes: Bytes of what tools told the model, as UTF-8.
        cost: USD; None where no price is known. Needs the extra `prices`, or a server that says.
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
        """The sum, field by field. A cost that is not known counts as nothing."""
        sums: dict[str, Any] = {
            name: getattr(self, name) + getattr(other, name) for name in _COUNTS
        }
        costs = [cost for cost in (self.cost, other.cost) if cost is not None]
        return Usage(**sums, cost=sum(costs) if costs else None)

    def to_json(self) -> JsonObject:
        """What is not zero."""
        return {name: n for name, n in zip(_FIELDS, _values(self), strict=True) if n}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Usage:
        """The reverse of `to_json`; unknown keys are left out."""
        return cls(**{name: data[name] for name in _FIELDS if name in data})


_FIELDS = tuple(one.name for one in fields(Usage))
_COUNTS = tuple(name for name in _FIELDS if name != "cost")
_values = operator.attrgetter(*_FIELDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolDefinition(_Encoded):
    """What the model sees of a tool. `parameters` is a JSON Schema of type object."""

    name: str
    description: str
    parameters: JsonObject
    strict: bool = False

    def to_json(self) -> JsonObject:
        """The chat-completions form."""
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
        """About how many tokens it costs in each request: a quarter of its bytes."""
        text = json.dumps(self.to_json(), ensure_ascii=False, separators=(",", ":"))
        return (len(text.encode("utf-8", "surrogatepass")) + 3) // 4

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ToolDefinition:
        """The reverse of `to_json`."""
        return cls(**data["function"])


@dataclass(frozen=True, kw_only=True, slots=True)
class ForcedTool:
    """A `tool_choice` that names one tool (a bare name could be a tool called "auto")."""

    name: str


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | ForcedTool


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputFormat:
    """A `response_format`: a JSON Schema the server enforces, or just "some JSON object"."""

    kind: Literal["json_schema", "json_object"]
    name: str = "output"
    schema: JsonObject | None = None
    strict: bool = True

    def to_json(self) -> JsonObject:
        """The chat-completions form."""
        if self.kind == "json_object":
            return {"type": "json_object"}
        body = {"name": self.name, "schema": self.schema, "strict": self.strict}
        return {"type": "json_schema", "json_schema": body}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRequest:
    """One question to a model, independent of who serves it.

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
    """A complete answer.

    Attributes:
        message: What the model said.
        finish: Why it stopped.
        usage: What it cost in tokens.
        model: The model that answered, by the server's own name.
        id: The server's id of the response.
        choices: The other choices when `n > 1` was asked for in a direct request.
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
    """Accept our messages and plain chat-completions dicts, in any mixture."""
    return tuple(
        message_from_json(item, index) if isinstance(item, Mapping) else item
        for index, item in enumerate(items)
    )


def dump_messages(messages: Sequence[Message]) -> str:
    """A history as JSON text, to be stored; `load_messages` gives equal messages back."""
    # ASCII, so that no encoding of a file or a database can break what a model wrote.
    return json.dumps([message.to_json() for message in messages])


def load_messages(text: str | bytes) -> tuple[Message, ...]:
    """Read a history from JSON text: a list of messages in the chat-completions form.

    Raises:
        InvalidHistory: The text is not JSON, not a list, or a message in it is none.
    """
    try:
        data: Any = json.loads(text)
    except ValueError as error:
        raise InvalidHistory(f"The stored history is not JSON: {error}.") from error
    if not (is_array(data) and all(is_object(item) for item in data)):
        raise InvalidHistory("The stored history is JSON, and not a list of messages.")
    return messages_from_json(data)
