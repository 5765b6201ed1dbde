"""A request as the bytes of one server's chat-completions body.

Pure. Each message and tool is encoded once per variant of the wire format and its
bytes are kept in its memo, so that a request is a join: a long conversation
costs linear work. Messages come last and keys come in a stable order, so the
body of step n+1 begins with the body of step n, and prompt caches hit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import groupby
from operator import attrgetter
from typing import Any, assert_never

from pydantic_core import PydanticSerializationError, from_json, to_json

from agentkit.errors import InvalidSetting
from agentkit.messages import (
    AssistantMessage,
    ForcedTool,
    JsonObject,
    Message,
    ModelRequest,
    Part,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    UserMessage,
)
from agentkit.models.base import forced_tool, once
from agentkit.models.call_ids import short_id
from agentkit.models.chat.parameters import Note, adapt_settings
from agentkit.models.lenient import clean, json_text
from agentkit.models.profiles import Profile

_SAY_JSON = SystemMessage(content="Answer with one JSON object and nothing else.")
_BRIDGE = AssistantMessage(content="OK.")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_rules_of = attrgetter(
    *"tool_calling system_role names text_parts null_content refusals call_ids raw_arguments "
    "reasoning_field echo echo_calls tool_parts".split()
)
"""Returns the fields of a profile that the encoding of a message depends on."""


def encode_request(
    request: ModelRequest,
    model: str,
    profile: Profile,
    *,
    stream: bool = False,
    strict: bool = False,
    note: Callable[[Note], None] | None = None,
) -> bytes:
    """Encode a request for one server.

    Args:
        request: The request.
        model: The model by the server's name.
        profile: What the server supports.
        stream: Whether to ask for a stream.
        strict: Refuse parameters that the server does not take instead of dropping them.
        note: Called with every change that was made for the server.

    Returns:
        The body. Equal requests have equal bytes.

    Raises:
        InvalidSetting: More tools than the server takes, or a refused parameter.
    """
    fields, notes = adapt_settings(request.settings, profile, strict=strict)
    if request.output is not None:
        fields.setdefault("response_format", request.output.to_json())
    if stream:
        fields["stream"] = True
        if profile.stream_usage:
            fields.setdefault("stream_options", {"include_usage": True})
    tools = _choose_tools(request, profile, fields, notes)
    try:
        messages = _encoded(_arranged(request, profile), profile)
    except _Attached:
        request = replace(request, messages=(*_with_attachments_behind(request.messages),))
        messages = _encoded(_arranged(request, profile), profile)
    head = _dump({"model": model, **fields})[:-1]
    if tools:
        key = b"functions" if profile.tool_calling == "functions" else b"tools"
        head += b',"%b":[%b]' % (key, b",".join([_tool(tool, profile) for tool in tools]))
    if note is not None:
        for one in notes:
            note(one)
    # One join, so that a long conversation is copied once.
    messages[0:1] = [head + b',"messages":[' + b"".join(messages[0:1])]
    messages[-1] += b"]}"
    return b",".join(messages)


# Tools


def _choose_tools(
    request: ModelRequest, profile: Profile, fields: dict[str, Any], notes: list[Note]
) -> Sequence[ToolDefinition]:
    """Write the tool choice into `fields` and return the tools that go with it."""
    tools, choice = request.tools, request.tool_choice
    if not tools:
        fields.pop("parallel_tool_calls", None)
        return ()
    if profile.tool_limit is not None and len(tools) > profile.tool_limit:
        raise InvalidSetting(
            f"The request has {len(tools)} tools, but {profile.name} takes at most "
            f"{profile.tool_limit}. Offer fewer, for example with Toolset.filter().",
            field="tools",
            value=str(len(tools)),
            allowed=f"<= {profile.tool_limit}",
        )
    if choice == "none" and profile.none_omits_tools:
        return ()
    functions = profile.tool_calling == "functions"
    if functions:
        fields.pop("parallel_tool_calls", None)
        if choice == "required" and len(tools) == 1:
            choice = ForcedTool(name=tools[0].name)
        elif choice == "required":
            choice = "auto"
            notes.append(_unforced("'required'", profile))
    if isinstance(choice, ForcedTool):
        return _force(choice.name, tools, profile, fields, notes)
    if choice is not None:
        word = profile.required if choice == "required" else choice
        fields["function_call" if functions else "tool_choice"] = word
    return tools


def _force(
    name: str,
    tools: Sequence[ToolDefinition],
    profile: Profile,
    fields: dict[str, Any],
    notes: list[Note],
) -> Sequence[ToolDefinition]:
    tool = forced_tool(tools, name)
    if profile.tool_calling == "functions":
        fields["function_call"] = {"name": name}
    elif profile.forced_tool == "named":
        fields["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif profile.forced_tool == "alone":
        fields["tool_choice"] = profile.required
        return [tool]
    else:
        notes.append(_unforced(repr(name), profile))
    return tools


def _unforced(choice: str, profile: Profile) -> Note:
    text = f"tool_choice={choice} was left out: {profile.name} cannot force a tool."
    return Note(code="dropped_parameter", text=text, data={"field": "tool_choice"})


def _tool(tool: ToolDefinition, profile: Profile) -> bytes:
    functions = profile.tool_calling == "functions"
    key = ("chat", functions, profile.strict_tools)
    memo: dict[Any, Any] = tool._memo  # pyright: ignore[reportPrivateUsage] # made for codecs
    encoded = memo.get(key)
    if encoded is None:
        data = tool.to_json()
        if not profile.strict_tools:
            data["function"].pop("strict", None)
        encoded = memo[key] = _dump(data["function"] if functions else data)
    return encoded


# Messages


def _arranged(request: ModelRequest, profile: Profile) -> Iterable[Message]:
    """Return the messages in the order and number that the server accepts."""
    messages: Sequence[Message] = request.messages
    json_mode = request.output is not None and request.output.kind == "json_object"
    if json_mode and not any(b"json" in one.lower() for one in _encoded(messages, profile)):
        # Without the word, servers refuse the mode or answer with endless white space.
        messages = (_SAY_JSON, *messages)
    if profile.single_system:
        messages = _one_system(messages)
    if not profile.empty_assistant:
        messages = [one for one in messages if not _is_empty(one)]
    if not profile.user_after_tool:
        messages = _bridged(messages)
    if profile.tool_calling == "functions":
        messages = _one_call_each(messages)
    return messages


def _one_call_each(messages: Sequence[Message]) -> list[Message]:
    """Split messages with several calls: `function_call` holds one, and its answer follows it."""
    split: list[Message] = []
    start = 0
    while start < len(messages):
        message, end = messages[start], start + 1
        if isinstance(message, AssistantMessage) and message.tool_calls:
            while end < len(messages) and isinstance(messages[end], ToolMessage):
                end += 1
            answers = (*messages[start + 1 : end],)
            split += once(message, "functions", answers, partial(_exchanges, message, answers))
        else:
            split.append(message)
        start = end
    return split


def _exchanges(message: AssistantMessage, answers: Sequence[Message]) -> list[Message]:
    by_id = {one.call_id: one for one in answers if isinstance(one, ToolMessage)}
    exchanges: list[Message] = []
    for call in message.tool_calls:
        exchanges.append(replace(message, tool_calls=(call,)))
        if call.id in by_id:
            exchanges.append(replace(by_id[call.id], name=call.name))
        message = AssistantMessage(content=None)
    return exchanges


def _one_system(messages: Sequence[Message]) -> Sequence[Message]:
    systems = [one for one in messages if isinstance(one, SystemMessage)]
    if not systems or (len(systems) == 1 and messages[0] is systems[0]):
        return messages
    texts = [one.content if isinstance(one.content, str) else _flat(one.content) for one in systems]
    merged = replace(systems[0], content="\n\n".join(texts))
    return (merged, *(one for one in messages if not isinstance(one, SystemMessage)))


def _is_empty(message: Message) -> bool:
    return (
        isinstance(message, AssistantMessage)
        and not message.content
        and not message.tool_calls
        and not message.refusal
    )


class _Attached(Exception):
    """A tool message holds what the server takes only from the user.

    Raised by the encoding of such a message, which is not kept, so that requests
    without one are not searched for it.
    """


def _with_attachments_behind(messages: Sequence[Message]) -> list[Message]:
    """Move images and files out of tool messages, into a user message behind each batch."""
    arranged: list[Message] = []
    for is_batch, group in groupby(messages, lambda one: isinstance(one, ToolMessage)):
        batch = (*group,)
        make = partial(_moved, batch)
        arranged += once(batch[0], "moved", batch, make) if is_batch else batch
    return arranged


def _has_attachments(message: ToolMessage) -> bool:
    return not isinstance(message.content, str) and not all(map(_is_text, message.content))


def _is_text(part: Part) -> bool:
    return isinstance(part, TextPart) or part.to_json().get("type") == "text"


def _moved(batch: Sequence[Message]) -> Sequence[Message]:
    """Return the results of one batch, and the message with what is attached to them."""
    results: list[Message] = []
    attached: list[Part] = []
    for message in batch:
        if isinstance(message, ToolMessage) and _has_attachments(message):
            kept: list[Part] = []
            for part in message.content if not isinstance(message.content, str) else ():
                if _is_text(part):
                    kept.append(part)
                else:
                    label = f"attachment {len(attached) // 2 + 1}"
                    line = "\n" if kept else ""
                    kept.append(TextPart(text=f"{line}[{label}: in the next user message]"))
                    attached += (TextPart(text=f"[{label}, from {message.name}]"), part)
            message = replace(message, content=(*kept,))
        results.append(message)
    return (*results, UserMessage(content=(*attached,))) if attached else results


def _bridged(messages: Sequence[Message]) -> list[Message]:
    bridged: list[Message] = []
    for message in messages:
        if bridged and isinstance(message, UserMessage) and isinstance(bridged[-1], ToolMessage):
            bridged.append(_BRIDGE)
        bridged.append(message)
    return bridged


def _encoded(messages: Iterable[Message], profile: Profile) -> list[bytes]:
    variant = _variant(*_rules_of(profile))
    return [
        message._memo.get(variant) or _remember(message, profile, variant)  # pyright: ignore[reportPrivateUsage] # made for codecs
        for message in messages
    ]


@lru_cache(maxsize=64)  # of profiles that differ: there are twenty
def _variant(*rules: Any) -> str:
    # A string: its hash is kept, so that looking up a thousand memos stays cheap.
    return repr([sorted(one) if isinstance(one, frozenset) else one for one in rules])  # pyright: ignore[reportUnknownArgumentType] # of str


def _remember(message: Message, profile: Profile, variant: str) -> bytes:
    memo: dict[Any, Any] = message._memo  # pyright: ignore[reportPrivateUsage] # made for codecs
    encoded = memo[variant] = _dump(_message(message, profile))
    return encoded


def _message(message: Message, profile: Profile) -> JsonObject:
    match message:
        case SystemMessage():
            data: JsonObject = {"role": profile.system_role}
        case UserMessage():
            data = {"role": "user"}
        case AssistantMessage():
            return _assistant(message, profile)
        case ToolMessage():
            return _tool_message(message, profile)
        case _:
            assert_never(message)
    data["content"] = _content(message.content, profile)
    if message.name is not None and data["role"] in (*profile.names, "developer"):
        data["name"] = message.name
    return data


def _tool_message(message: ToolMessage, profile: Profile) -> JsonObject:
    if not profile.tool_parts and _has_attachments(message):
        raise _Attached
    content = _content(message.content, profile)
    if profile.tool_calling == "functions":
        name = _tool_name(message.name or message.call_id)
        return {"role": "function", "name": name, "content": content}
    data: JsonObject = {"role": "tool", "content": content}
    if message.name is not None and "tool" in profile.names:
        data["name"] = _tool_name(message.name)
    return data | {"tool_call_id": _call_id(message.call_id, profile)}


def _assistant(message: AssistantMessage, profile: Profile) -> JsonObject:
    data: JsonObject = {"role": "assistant"}
    content = _content(message.content, profile)
    if message.refusal is not None and not profile.refusals:
        content = content or message.refusal
    if content is not None:
        data["content"] = content
    elif profile.null_content != "omit" or not message.tool_calls:
        empty = profile.null_content == "empty" or not message.tool_calls
        data["content"] = "" if empty and "audio" not in message.extra else None
    if message.name is not None and "assistant" in profile.names:
        data["name"] = message.name
    if message.reasoning:
        data |= _reasoning(message, message.reasoning, profile)
    if message.refusal is not None and profile.refusals:
        data["refusal"] = message.refusal
    data |= {key: value for key, value in message.extra.items() if key in profile.echo}
    match data.get("audio"):
        case {"id": audio_id}:  # An earlier answer's audio is referred to by id.
            data["audio"] = {"id": audio_id}
        case _:
            data.pop("audio", None)
    if message.tool_calls and profile.tool_calling == "functions":
        call = message.tool_calls[0]
        arguments = _arguments(call, profile)
        data["function_call"] = {"name": _tool_name(call.name), "arguments": arguments}
    elif message.tool_calls:
        data["tool_calls"] = [_call(call, profile) for call in message.tool_calls]
    return data


def _reasoning(message: AssistantMessage, text: str, profile: Profile) -> JsonObject:
    field = message.reasoning_field
    if field not in profile.echo:
        field = profile.reasoning_field if message.tool_calls else None
    if field == "content":
        return {"content": f"<think>{text}</think>{message.text}"}
    return {} if field is None else {field: text}


def _call(call: ToolCall, profile: Profile) -> JsonObject:
    extra = {key: value for key, value in call.extra.items() if key in profile.echo_calls}
    function = {"name": _tool_name(call.name), "arguments": _arguments(call, profile)}
    return {"id": _call_id(call.id, profile), "type": "function", "function": function, **extra}


def _tool_name(name: str) -> str:
    """Return a name that servers accept: the model may have made one up.

    What is changed gets a suffix, so that it is neither a tool's name nor another such name.
    """
    if _TOOL_NAME.fullmatch(name):
        return name
    return f"{re.sub('[^a-zA-Z0-9_-]', '_', name)[:57]}_{short_id(name)[:6]}"


def _arguments(call: ToolCall, profile: Profile) -> str:
    """Return the arguments to send back: a JSON object where the server parses them."""
    if profile.raw_arguments and call.arguments:
        return call.arguments
    try:
        value = from_json(call.arguments or "{}", allow_inf_nan=False)
    except ValueError:
        value = call.arguments
    if isinstance(value, dict):
        return call.arguments or "{}"
    return "{}" if value is None else _dump({"INVALID_JSON": call.arguments}).decode()


def _call_id(call_id: str, profile: Profile) -> str:
    if profile.call_ids == "any":
        return call_id
    fits = len(call_id) == 9 and call_id.isascii() and call_id.isalnum()
    return call_id if fits else short_id(call_id)


def _content(content: Any, profile: Profile) -> Any:
    if content is None or isinstance(content, str):
        return content
    if not profile.text_parts and all(isinstance(part, TextPart) for part in content):
        return _flat(content)
    return [part.to_json() for part in content]


def _flat(parts: Iterable[Any]) -> str:
    return "".join(part.text for part in parts if isinstance(part, TextPart))


def _dump(data: Any) -> bytes:
    try:
        return to_json(data, inf_nan_mode="null")
    except PydanticSerializationError:
        # A lone surrogate, as file names may hold: no server takes it.
        return to_json(json.loads(clean(json_text(data))), inf_nan_mode="null")
