"""Tool calls for servers that enforce JSON schemas and have no template for tools.

A pair of pure functions around a request and its response. `constrain` asks for
the calls through one schema and explains the tools in the system message;
`release` turns the text that comes back into ordinary tool calls.

    tools, tool_choice, output ──constrain──▶ one schema: {"calls": [{"tool", "arguments"}, …]}
                                                      or {"answer": …}
    ToolCall, content, finish ◀───release──── its text

Calls of earlier steps go back as the text that the model wrote, and tool
results as what the user says next. Where the answer is to be plain text, no
call is shown, because a small model copies what it sees: the results come
first, as what is known, and then the question. Each exchange is rewritten once
and kept in the memo of its first message, so that a step costs what is new in it.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from pydantic_core import from_json

from agentkit.effects import Address
from agentkit.errors import InvalidResponse, InvalidSetting
from agentkit.messages import (
    AssistantMessage,
    ForcedTool,
    JsonObject,
    Message,
    ModelRequest,
    ModelResponse,
    OutputFormat,
    Part,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    UserMessage,
    is_object,
)
from agentkit.models.call_ids import short_id
from agentkit.models.call_schema import call_schema
from agentkit.models.shapes import fields_of, shape_of

__all__ = ["constrain", "release"]

MOST_CALLS = 8
"""Calls in one response. A weak model goes on for as long as the schema lets it."""
_KEY = "constrained"
_KNOWN_KEY = "constrained known"


def constrain(request: ModelRequest) -> ModelRequest:
    """Rewrite a request with tools as one whose answer a schema constrains.

    Without tools, or with `tool_choice="none"`, only the history is rewritten,
    and the output format stays as it is.

    Raises:
        InvalidSetting: `tool_choice` names a tool that the request does not have.
    """
    if _no_calls(request):
        told = _as_known if request.output is None else _without_calls
        return replace(request, messages=told(request.messages), tools=(), tool_choice=None)
    form = _form(request)
    return replace(
        request,
        messages=_guided(_without_calls(request.messages), form.guide),
        tools=(),
        tool_choice=None,
        output=form.output,
    )


def release(request: ModelRequest, response: ModelResponse, *, at: Address) -> ModelResponse:
    """Read the answer to a constrained request as if the server knew tools.

    An answer that was cut off or filtered is returned as it is, and so is an empty one.
    Calls written where text was asked for are no answer: the content is empty then.

    Args:
        request: The request before `constrain`.
        response: The answer to the constrained request.
        at: The address of the model call; the ids of its tool calls are made from it.

    Raises:
        InvalidResponse: The answer is not of the schema; the server does not enforce it.
    """
    message, text = response.message, response.message.text
    complete = response.finish == "stop" and not message.refusal and not message.tool_calls
    if not complete or not text.strip():
        return response
    if _no_calls(request):
        if request.output is None and _had_calls(request) and _only_calls(text):
            return replace(response, message=replace(message, content=None))
        return response
    try:
        reply = from_json(text)
        match reply:
            case {"calls": [_, *_] as calls}:
                named = [(_name(call), _arguments(call)) for call in cast("list[Any]", calls)]
                ids = _new_ids(request, at, len(named))
                made = tuple(
                    ToolCall(id=id_, name=name, arguments=arguments)
                    for id_, (name, arguments) in zip(ids, named, strict=True)
                )
                changed = replace(message, content=None, tool_calls=made)
                return replace(response, message=changed, finish="tool_calls")
            case {"answer": answer}:
                plain = isinstance(answer, str) and request.output is None
                content = cast("str", answer) if plain else _json(answer)
                return replace(response, message=replace(message, content=content))
            case _:
                raise ValueError("neither calls nor an answer")
    except ValueError as error:
        raise InvalidResponse(
            f"The answer does not fit the schema it was asked for ({error}): {text[:200]!r}. "
            "Constrained tool calls need a server that enforces response_format json_schema.",
            model=response.model,
        ) from error


def _no_calls(request: ModelRequest) -> bool:
    return not request.tools or request.tool_choice == "none"


def _had_calls(request: ModelRequest) -> bool:
    """Whether the model may have seen how calls are written; otherwise they are its own text."""
    return bool(request.tools) or any(
        isinstance(message, AssistantMessage) and message.tool_calls for message in request.messages
    )


def _only_calls(text: str) -> bool:
    try:
        reply = from_json(text)
    except ValueError:
        return False
    match reply:
        case {"calls": [*calls], **rest} if not rest:
            return all(is_object(call) and "tool" in call for call in calls)
        case _:
            return False


def _name(call: Any) -> str:
    match call:
        case {"tool": str(name)}:
            return name
        case _:
            raise ValueError("a call names no tool")


def _arguments(call: JsonObject) -> str:
    return _json(call.get("arguments", {}))


def _new_ids(request: ModelRequest, at: Address, count: int) -> list[str]:
    """Ids that no other call of the conversation has, and that a replay makes again."""
    taken = {
        call.id
        for message in request.messages
        if isinstance(message, AssistantMessage)
        for call in message.tool_calls
    }
    ids: list[str] = []
    index = 0
    while len(ids) < count:
        candidate = short_id(f"{at}/{index}")
        index += 1
        if candidate not in taken:
            ids.append(candidate)
    return ids


# How the tools are asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    """How one combination of tools, tool choice and output is asked for."""

    guide: SystemMessage
    output: OutputFormat


def _form(request: ModelRequest) -> _Form:
    most = 1 if request.settings.get("parallel_tool_calls") is False else MOST_CALLS
    key = (request.tools, request.tool_choice, request.output, most)
    memo: dict[Any, Any] = request.tools[0]._memo  # pyright: ignore[reportPrivateUsage] # made for codecs
    kept = memo.get(_KEY)
    if kept is None or kept[0] != key:
        tools = _offered(request)
        may_answer = request.tool_choice in (None, "auto")
        answer = _answer_schema(request.output) if may_answer else None
        guide = SystemMessage(content=_guide(tools, answer, most))
        schema = call_schema(tools, answer, most)
        form = _Form(guide=guide, output=OutputFormat(kind="json_schema", schema=schema))
        kept = memo[_KEY] = (key, form)
    return kept[1]


def _offered(request: ModelRequest) -> Sequence[ToolDefinition]:
    choice = request.tool_choice
    if not isinstance(choice, ForcedTool):
        return request.tools
    offered = [tool for tool in request.tools if tool.name == choice.name]
    if not offered:
        names = ", ".join(tool.name for tool in request.tools)
        raise InvalidSetting(
            f"tool_choice names {choice.name!r}, and the request has only {names}.",
            field="tool_choice",
            value=choice.name,
            allowed=names,
        )
    return offered


def _answer_schema(output: OutputFormat | None) -> JsonObject:
    if output is None:
        return {"type": "string"}
    return output.schema or {"type": "object"}


def _guide(tools: Sequence[ToolDefinition], answer: JsonObject | None, most: int) -> str:
    """What the system message says: short, and in the order of the work.

    Otherwise a model of 135 million parameters was seen to answer before it looks.
    """
    listed = "\n".join(
        f"- {tool.name}({fields_of(tool.parameters)}): {tool.description}" for tool in tools
    )
    one = '{"tool": ..., "arguments": ...}'
    calls = '{"calls": [%s]}' % (one if most == 1 else f"{one}, {one}")
    if answer is None:
        return f"Tools:\n{listed}\n\nCall the tools you need: {calls}"
    shape = "..." if answer == {"type": "string"} else shape_of(answer)
    return (
        f"Tools:\n{listed}\n\nFirst call the tools you need: {calls}\n"
        f'Then, with their results, answer: {{"answer": {shape}}}'
    )


def _guided(messages: tuple[Message, ...], guide: SystemMessage) -> tuple[Message, ...]:
    """The messages with the guide in front, in one system message with what stands there."""
    if not messages or not isinstance(messages[0], SystemMessage):
        return (guide, *messages)
    first = messages[0]
    memo: dict[Any, Any] = first._memo  # pyright: ignore[reportPrivateUsage] # made for codecs
    kept = memo.get(_KEY)
    if kept is None or kept[0] is not guide:
        text = cast("str", guide.content)
        own = first.content
        content = (
            f"{own}\n\n{text}" if isinstance(own, str) else (*own, TextPart(text=f"\n\n{text}"))
        )
        kept = memo[_KEY] = (guide, replace(first, content=content))
    return (kept[1], *messages[1:])


# The history


def _without_calls(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The history with calls and their results as text; the same object if it has none."""
    plain: list[Message] = []
    start = 0
    while start < len(messages):
        message = messages[start]
        end = start + 1
        if isinstance(message, ToolMessage) or (
            isinstance(message, AssistantMessage) and message.tool_calls
        ):
            while end < len(messages) and isinstance(messages[end], ToolMessage):
                end += 1
            # What the user says next goes into the same message: many templates want
            # the roles to alternate.
            if end < len(messages) and isinstance(messages[end], UserMessage):
                end += 1
            plain += _exchange(message, messages[start + 1 : end])
        else:
            plain.append(message)
        start = end
    return tuple(plain)


def _as_known(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The history without calls: in each turn what tools returned, then what the user said."""
    plain: list[Message] = []
    start = 0
    while start < len(messages):
        end = start
        while end < len(messages) and _of_turn(messages[end]):
            end += 1
        turn = messages[start:end]
        if all(isinstance(message, UserMessage) for message in turn):
            end = max(end, start + 1)
            plain += messages[start:end]
        else:
            plain.append(_known(turn[0], turn[1:]))
        start = end
    return tuple(plain)


def _of_turn(message: Message) -> bool:
    """Whether it is a question or a part of the work on it, and not an answer."""
    if isinstance(message, AssistantMessage):
        return bool(message.tool_calls)
    return not isinstance(message, SystemMessage)


def _known(first: Message, rest: tuple[Message, ...]) -> UserMessage:
    """A turn as one message of the user. Made once."""
    memo: dict[Any, Any] = first._memo  # pyright: ignore[reportPrivateUsage] # made for codecs
    kept: tuple[tuple[Message, ...], UserMessage] | None = memo.get(_KNOWN_KEY)
    if kept is None or not _same(kept[0], rest):
        turn = (first, *rest)
        calls = {
            call.id: call
            for message in turn
            if isinstance(message, AssistantMessage)
            for call in message.tool_calls
        }
        known: list[Part] = []
        for message in turn:
            if isinstance(message, ToolMessage):
                label = _label(message, calls.get(message.call_id))
                known += (TextPart(text=f"{label} returned: "), *_parts(message))
                known.append(TextPart(text="\n"))
            elif isinstance(message, AssistantMessage) and message.text:
                known.append(TextPart(text=f"{message.text}\n"))
        for message in turn:
            if isinstance(message, UserMessage):
                known += (TextPart(text="\n"), *_parts(message))
        kept = memo[_KNOWN_KEY] = (rest, _said_by_user(known))
    return kept[1]


def _label(message: ToolMessage, call: ToolCall | None) -> str:
    """What was called, as code, which a model does not take for the form of an answer."""
    name = message.name or (call.name if call else message.call_id)
    arguments: Any = _value(call) if call else {}
    if is_object(arguments):
        shown = ", ".join(f"{key}={_json(value)}" for key, value in arguments.items())
    else:
        shown = _json(arguments)
    return f"`{name}({shown})`"


def _exchange(first: Message, rest: tuple[Message, ...]) -> tuple[Message, ...]:
    """An assistant message with calls and what answers it, as text. Made once."""
    memo: dict[Any, Any] = first._memo  # pyright: ignore[reportPrivateUsage] # made for codecs
    kept: tuple[tuple[Message, ...], tuple[Message, ...]] | None = memo.get(_KEY)
    if kept is None or not _same(kept[0], rest):
        if isinstance(first, AssistantMessage):
            said = (_told_calls(first),)
            results = _told_results(first.tool_calls, rest)
        else:  # Results whose calls are gone, as after a cut.
            said, results = (), _told_results((), (first, *rest))
        kept = memo[_KEY] = (rest, (*said, *results))
    return kept[1]


def _same(some: Sequence[Message], others: Sequence[Message]) -> bool:
    """Whether they are the same objects: comparing their values would read all of them."""
    return len(some) == len(others) and all(map(operator.is_, some, others))


def _told_calls(message: AssistantMessage) -> AssistantMessage:
    """The calls as the model would have written them, after whatever else it said."""
    calls = [{"tool": call.name, "arguments": _value(call)} for call in message.tool_calls]
    text = _json({"calls": calls})
    content = f"{message.text}\n{text}" if message.text else text
    return replace(message, content=content, tool_calls=())


def _told_results(
    calls: Iterable[ToolCall], messages: Sequence[Message]
) -> tuple[UserMessage, ...]:
    made = {call.id: call for call in calls}
    parts: list[Part] = []
    for message in messages:
        if parts:
            parts.append(TextPart(text="\n"))
        if isinstance(message, ToolMessage):
            call = made.get(message.call_id)
            name = message.name or (call.name if call else message.call_id)
            arguments = _json(_value(call)) if call else ""
            parts.append(TextPart(text=f"{name}({arguments}) returned: "))
        parts += _parts(message)
    return (_said_by_user(parts),) if parts else ()


def _said_by_user(parts: Sequence[Part]) -> UserMessage:
    """Text alone is one text; with other parts it is parts."""
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    whole = len(texts) == len(parts)
    return UserMessage(content="".join(texts) if whole else tuple(parts))


def _parts(message: Message) -> tuple[Part, ...]:
    content = message.content or ""
    return (TextPart(text=content),) if isinstance(content, str) else content


def _value(call: ToolCall) -> Any:
    """A call's arguments as JSON; text that is not JSON stays text."""
    try:
        return from_json(call.arguments or "{}")
    except ValueError:
        return call.arguments


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
