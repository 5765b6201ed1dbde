"""Tool calls for servers that enforce JSON schemas and have no template for tools.

A pair of pure functions that `ChatModel` puts around a request and its response.
`constrain` expresses the calls through one schema and explains the tools in the
system message; `release` turns the resulting text into ordinary tool calls.

    tools, tool_choice, output ──constrain──▶ one schema: {"calls": [{"tool", "arguments"}, …]}
                                                      or {"answer": …}
    ToolCall, content, finish ◀───release──── its text

Calls of earlier steps go back as the text that the model wrote, and tool results
as the next user message. Where the answer has to be plain text, no call is shown,
because a small model copies what it sees: the results come first, as known facts,
and then the question. Each exchange is rewritten once and kept in the memo of its
first message, so that a step costs what is new in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

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
from agentkit.models.base import forced_tool, once
from agentkit.models.call_ids import CallIds, calls_in, ids_in
from agentkit.models.constrained.call_schema import call_schema
from agentkit.models.lenient import json_or, json_text
from agentkit.schema.shorthand import fields_of, shape_of

MOST_CALLS = 8
"""Calls in one response. A weak model continues for as long as the schema allows."""


def constrain(request: ModelRequest) -> ModelRequest:
    """Rewrite a request with tools as one with an answer that a schema constrains.

    Without tools, or with `tool_choice="none"`, only the history is rewritten,
    and the output format stays as it is.

    Raises:
        InvalidSetting: The tool of `tool_choice` is not in the request.
    """
    if _no_calls(request):
        render = _as_known if request.output is None else _without_calls
        return replace(request, messages=render(request.messages), tools=(), tool_choice=None)
    guide, output = _form(request)
    return replace(
        request,
        messages=_guided(_without_calls(request.messages), guide),
        tools=(),
        tool_choice=None,
        output=output,
    )


def release(request: ModelRequest, response: ModelResponse, *, at: Address) -> ModelResponse:
    """Read the answer to a constrained request as if the server supported tools.

    An answer that was cut off, filtered or empty is returned unchanged. Calls in place
    of a text answer are dropped, which leaves the content empty.

    Args:
        request: The request before `constrain`.
        response: The answer to the constrained request.
        at: The address of the model call, from which the ids of its tool calls are derived.

    Raises:
        InvalidResponse: The answer does not match the schema; the server does not enforce it.
    """
    message, text = response.message, response.message.text
    complete = response.finish == "stop" and not message.refusal and not message.tool_calls
    if not complete or not text.strip():
        return response
    if _no_calls(request):
        # A model knows the form of calls only if it was shown some.
        shown = bool(request.tools) or any(calls_in(request.messages))
        if request.output is None and shown and _only_calls(text):
            return replace(response, message=replace(message, content=None))
        return response
    try:
        match from_json(text):
            case {"calls": [_, *_] as calls}:
                ids = CallIds(at, ids_in(request.messages))
                tool_calls = tuple(_tool_call(call, ids) for call in cast("list[Any]", calls))
                changed = replace(message, content=None, tool_calls=tool_calls)
                return replace(response, message=changed, finish="tool_calls")
            case {"answer": answer}:
                plain = isinstance(answer, str) and request.output is None
                content = cast("str", answer) if plain else json_text(answer)
                return replace(response, message=replace(message, content=content))
            case _:
                raise ValueError("neither calls nor an answer")
    except ValueError as error:
        raise InvalidResponse(
            f"The answer does not match the requested schema ({error}): {text[:200]!r}. "
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


def _tool_call(call: Any, ids: CallIds) -> ToolCall:
    match call:
        case {"tool": str(name)}:
            arguments = json_text(call.get("arguments", {}))
            return ToolCall(id=ids.assign(), name=name, arguments=arguments)
        case _:
            raise ValueError("a call without a tool name")


# How the tools are explained


def _form(request: ModelRequest) -> tuple[SystemMessage, OutputFormat]:
    """Return the explanation and the schema for the request's tools, tool choice and output."""
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

    return once(request.tools[0], "constrained", (request.tools, choice, output, most), make)


def _guide(tools: Sequence[ToolDefinition], answer: JsonObject | None, most: int) -> str:
    """Return the explanation of the tools: short, and in the order of the work.

    In another order, a model of 135 million parameters answered before it called a tool.
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
    """Return the messages with the guide in front, merged into a system message there."""
    if not messages or not isinstance(messages[0], SystemMessage):
        return (guide, *messages)
    first, text = messages[0], cast("str", guide.content)

    def make() -> SystemMessage:
        own = first.content
        joined = (
            f"{own}\n\n{text}" if isinstance(own, str) else (*own, TextPart(text=f"\n\n{text}"))
        )
        return replace(first, content=joined)

    return (once(first, "constrained", (guide,), make), *messages[1:])


# The history


def _without_calls(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the history with calls and their results as text; other messages unchanged."""
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
            # The next user message goes into the same message: many templates want the
            # roles to alternate.
            if end < len(messages) and isinstance(messages[end], UserMessage):
                end += 1
            plain += _exchange(message, messages[start + 1 : end])
        else:
            plain.append(message)
        start = end
    return tuple(plain)


def _as_known(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the history without calls: in each turn the results, then the user's text."""
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
    """Return whether a message is a question or part of the work on it, not an answer."""
    if isinstance(message, AssistantMessage):
        return bool(message.tool_calls)
    return not isinstance(message, SystemMessage)


def _known(first: Message, rest: tuple[Message, ...]) -> UserMessage:
    """Return a turn as one user message. Rewritten once."""

    def make() -> UserMessage:
        turn = (first, *rest)
        calls = {call.id: call for call in calls_in(turn)}
        parts: list[Part] = []
        for message in turn:
            if isinstance(message, ToolMessage):
                label = _label(message, calls.get(message.call_id))
                parts += (TextPart(text=f"{label} returned: "), *_parts(message))
                parts.append(TextPart(text="\n"))
            elif isinstance(message, AssistantMessage) and message.text:
                parts.append(TextPart(text=f"{message.text}\n"))
        for message in turn:
            if isinstance(message, UserMessage):
                parts += (TextPart(text="\n"), *_parts(message))
        return _user_message(parts)

    return once(first, "constrained known", rest, make)


def _label(message: ToolMessage, call: ToolCall | None) -> str:
    """Return the call as code, which a model does not mistake for the form of an answer."""
    arguments: Any = _value(call) if call else {}
    if is_object(arguments):
        shown = ", ".join(f"{key}={json_text(value)}" for key, value in arguments.items())
    else:
        shown = json_text(arguments)
    return f"`{_name(message, call)}({shown})`"


def _name(message: ToolMessage, call: ToolCall | None) -> str:
    return message.name or (call.name if call else message.call_id)


def _exchange(first: Message, rest: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return an assistant message with calls and its results as text. Rewritten once."""

    def make() -> tuple[Message, ...]:
        calls = {call.id: call for call in calls_in((first,))}
        messages: list[Message] = []
        parts: list[Part] = []
        for message in (first, *rest):
            if isinstance(message, AssistantMessage):
                messages.append(_calls_as_text(message))
                continue
            if parts:
                parts.append(TextPart(text="\n"))
            if isinstance(message, ToolMessage):
                call = calls.get(message.call_id)
                arguments = json_text(_value(call)) if call else ""
                parts.append(TextPart(text=f"{_name(message, call)}({arguments}) returned: "))
            parts += _parts(message)
        return (*messages, _user_message(parts)) if parts else tuple(messages)

    return once(first, "constrained", rest, make)


def _calls_as_text(message: AssistantMessage) -> AssistantMessage:
    """Return the calls in the form of the schema, after the message's own text."""
    calls = [{"tool": call.name, "arguments": _value(call)} for call in message.tool_calls]
    text = json_text({"calls": calls})
    content = f"{message.text}\n{text}" if message.text else text
    return replace(message, content=content, tool_calls=())


def _user_message(parts: Sequence[Part]) -> UserMessage:
    """Return a user message; parts that are all text become one text."""
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    only_text = len(texts) == len(parts)
    return UserMessage(content="".join(texts) if only_text else tuple(parts))


def _parts(message: Message) -> tuple[Part, ...]:
    content = message.content or ""
    return (TextPart(text=content),) if isinstance(content, str) else content


def _value(call: ToolCall) -> Any:
    """Return a call's arguments as JSON; text that is not JSON stays text."""
    return json_or(call.arguments, call.arguments or "{}")
