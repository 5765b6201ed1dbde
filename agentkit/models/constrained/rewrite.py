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

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from pydantic_core import from_json

from agentkit.core.effects import Address
from agentkit.errors import InvalidResponse
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
from agentkit.models.chat.call_ids import CallIds, calls_in, ids_in
from agentkit.models.chat.encode import forced_tool
from agentkit.models.chat.lenient import json_or, json_text
from agentkit.models.constrained.call_schema import call_schema
from agentkit.schema.shorthand import fields_of, shape_of

__all__ = ["constrain", "release"]

MOST_CALLS = 8
"""Calls in one response. A weak model goes on for as long as the schema lets it."""
MadeT = TypeVar("MadeT")


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
    guide, output = _form(request)
    return replace(
        request,
        messages=_guided(_without_calls(request.messages), guide),
        tools=(),
        tool_choice=None,
        output=output,
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
        # Only from calls that it was shown does a model know how they are written.
        shown = bool(request.tools) or any(calls_in(request.messages))
        if request.output is None and shown and _only_calls(text):
            return replace(response, message=replace(message, content=None))
        return response
    try:
        match from_json(text):
            case {"calls": [_, *_] as calls}:
                ids = CallIds(at, ids_in(request.messages))
                made = tuple(_released(call, ids) for call in cast("list[Any]", calls))
                changed = replace(message, content=None, tool_calls=made)
                return replace(response, message=changed, finish="tool_calls")
            case {"answer": answer}:
                plain = isinstance(answer, str) and request.output is None
                content = cast("str", answer) if plain else json_text(answer)
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


def _only_calls(text: str) -> bool:
    match json_or(None, text):
        case {"calls": [*calls], **rest} if not rest:
            return all(is_object(call) and "tool" in call for call in calls)
        case _:
            return False


def _released(call: Any, ids: CallIds) -> ToolCall:
    match call:
        case {"tool": str(name)}:
            arguments = json_text(call.get("arguments", {}))
            return ToolCall(id=ids.of(), name=name, arguments=arguments)
        case _:
            raise ValueError("a call names no tool")


def _once(
    holder: Message | ToolDefinition, what: str, key: tuple[Any, ...], make: Callable[[], MadeT]
) -> MadeT:
    """What `make` returns, kept in the holder's memo until it is asked for with another key."""
    memo: dict[Any, Any] = holder._memo  # pyright: ignore[reportPrivateUsage] # made for codecs
    kept: tuple[tuple[Any, ...], MadeT] | None = memo.get(what)
    if kept is None or kept[0] != key:
        kept = memo[what] = (key, make())
    return kept[1]


# How the tools are asked for


def _form(request: ModelRequest) -> tuple[SystemMessage, OutputFormat]:
    """How a combination of tools, tool choice and output is explained, and its schema."""
    choice, output = request.tool_choice, request.output
    most = 1 if request.settings.get("parallel_tool_calls") is False else MOST_CALLS

    def make() -> tuple[SystemMessage, OutputFormat]:
        tools, answer = request.tools, None
        if isinstance(choice, ForcedTool):
            tools = (forced_tool(tools, choice.name),)
        elif choice != "required":
            answer = {"type": "string"} if output is None else output.schema or {"type": "object"}
        guide = SystemMessage(content=_guide(tools, answer, most))
        schema = call_schema(tools, answer, most)
        return guide, OutputFormat(kind="json_schema", schema=schema)

    return _once(request.tools[0], "constrained", (request.tools, choice, output, most), make)


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
    first, text = messages[0], cast("str", guide.content)

    def make() -> SystemMessage:
        own = first.content
        joined = (
            f"{own}\n\n{text}" if isinstance(own, str) else (*own, TextPart(text=f"\n\n{text}"))
        )
        return replace(first, content=joined)

    return (_once(first, "constrained", (guide,), make), *messages[1:])


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

    def make() -> UserMessage:
        turn = (first, *rest)
        calls = {call.id: call for call in calls_in(turn)}
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
        return _said_by_user(known)

    return _once(first, "constrained known", rest, make)


def _label(message: ToolMessage, call: ToolCall | None) -> str:
    """What was called, as code, which a model does not take for the form of an answer."""
    arguments: Any = _value(call) if call else {}
    if is_object(arguments):
        shown = ", ".join(f"{key}={json_text(value)}" for key, value in arguments.items())
    else:
        shown = json_text(arguments)
    return f"`{_name(message, call)}({shown})`"


def _name(message: ToolMessage, call: ToolCall | None) -> str:
    return message.name or (call.name if call else message.call_id)


def _exchange(first: Message, rest: tuple[Message, ...]) -> tuple[Message, ...]:
    """An assistant message with calls and what answers it, as text. Made once."""

    def make() -> tuple[Message, ...]:
        calls = {call.id: call for call in calls_in((first,))}
        told: list[Message] = []
        parts: list[Part] = []
        for message in (first, *rest):
            if isinstance(message, AssistantMessage):
                told.append(_told_calls(message))
                continue
            if parts:
                parts.append(TextPart(text="\n"))
            if isinstance(message, ToolMessage):
                call = calls.get(message.call_id)
                arguments = json_text(_value(call)) if call else ""
                parts.append(TextPart(text=f"{_name(message, call)}({arguments}) returned: "))
            parts += _parts(message)
        return (*told, _said_by_user(parts)) if parts else tuple(told)

    return _once(first, "constrained", rest, make)


def _told_calls(message: AssistantMessage) -> AssistantMessage:
    """The calls as the model would have written them, after whatever else it said."""
    calls = [{"tool": call.name, "arguments": _value(call)} for call in message.tool_calls]
    text = json_text({"calls": calls})
    content = f"{message.text}\n{text}" if message.text else text
    return replace(message, content=content, tool_calls=())


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
    return json_or(call.arguments, call.arguments or "{}")
