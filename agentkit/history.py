"""Histories: checked, repaired, and made shorter without splitting a call from its answer.

A history is valid when each call of each assistant message is answered by one
tool message, right after it and in the order of the calls. What the loop makes
is always so; what comes from outside is checked before a run, or repaired.

The strategies here are for `Agent(compact=…, compact_above=…)`. A valid history
stays valid under each of them:

    agent = Agent("openai:gpt-4o", compact=drop_tool_output(keep=3), compact_above=50_000)

A history that is still too long after it was made shorter is made shorter again
at every step, and each time the server's prompt cache is lost: set `compact_above`
well above what a strategy leaves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from agentkit.errors import ConfigurationError, InvalidHistory, InvalidResponse
from agentkit.messages import (
    AssistantMessage,
    Message,
    ModelRequest,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
    messages_from_json,
)
from agentkit.models import Model, resolve_model

__all__ = ["check_history", "drop_tool_output", "keep_last", "repair_history", "summarise"]

Strategy: TypeAlias = Callable[[Sequence[Message]], tuple[Message, ...]]

NO_RESULT = "No result: the earlier run ended before this call did."
DROPPED = "(This output was left out to save space. Call the tool again if it is needed.)"
INSTRUCTIONS = """\
Summarise the conversation below for whoever goes on with it and has not read it. Keep what is \
needed to go on: what the user wants, what was decided, found out and done, names, numbers and \
identifiers word for word, and what is still open. Write nothing but the summary."""


def check_history(messages: Sequence[Message]) -> None:
    """Check that a server can accept these messages.

    Raises:
        InvalidHistory: A call has no answer, an answer no call, something stands between
            them, the answers are in another order than their calls, two calls of one
            message have one id, an assistant message is empty, or something is no message
            or holds what a message cannot. It names the index.
    """
    messages = messages_from_json(messages)
    waiting: list[ToolCall] = []  # calls of the last assistant message, next one last
    asked_at = 0
    for index, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            if not waiting or waiting[-1].id != message.call_id:
                expected = f"the answer to {waiting[-1].id!r}" if waiting else "no call is open"
                answer = f"The tool message answers {message.call_id!r}"
                raise _invalid(f"{answer} where {expected} is expected", index)
            waiting.pop()
            continue
        if waiting:
            raise _unanswered(waiting[-1], asked_at)
        if isinstance(message, AssistantMessage):
            if _says_nothing(message):
                raise _invalid("The assistant message is empty", index)
            waiting, asked_at = [*reversed(message.tool_calls)], index
            if len({call.id for call in waiting}) < len(waiting):
                ids = [call.id for call in message.tool_calls]
                raise _invalid(f"Two calls of one message have one id: {ids!r}", index)
    if waiting:
        raise _unanswered(waiting[-1], asked_at)


def repair_history(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Make a history valid; a valid one stays as it is.

    An answer goes to the last call before it of its id that is still open, and to its
    place right after that call. Answers without a call and empty assistant messages are
    dropped, calls without an answer get one that says so, and where calls of one
    message share an id, the later ones get ids of their own.
    """
    messages = messages_from_json(messages)
    answers: dict[tuple[int, int], ToolMessage] = {}
    open_calls: dict[str, list[tuple[int, int]]] = {}
    for index, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            # The first call of the message on top: calls of one id are answered in order.
            for number, call in reversed([*enumerate(message.tool_calls)]):
                open_calls.setdefault(call.id, []).append((index, number))
        elif isinstance(message, ToolMessage) and open_calls.get(message.call_id):
            answers[open_calls[message.call_id].pop()] = message
    repaired: list[Message] = []
    for index, message in enumerate(messages):
        if isinstance(message, AssistantMessage) and not _says_nothing(message):
            message = _with_unique_ids(message)
            repaired.append(message)
            for number, call in enumerate(message.tool_calls):
                repaired.append(_answer(call, answers.get((index, number))))
        elif not isinstance(message, (AssistantMessage, ToolMessage)):
            repaired.append(message)
    return tuple(repaired)


def _says_nothing(message: AssistantMessage) -> bool:
    # Reasoning alone is not sent back, and audio answers stand in `extra`.
    return not (message.content or message.tool_calls or message.refusal or message.extra)


def _invalid(problem: str, index: int) -> InvalidHistory:
    return InvalidHistory(
        f"{problem}, at index {index} of the history. Correct it, or let it be repaired: "
        "run(…, repair=True) or agentkit.history.repair_history.",
        index=index,
    )


def _unanswered(call: ToolCall, index: int) -> InvalidHistory:
    return _invalid(f"The call {call.id!r} of {call.name} is not answered right after it", index)


def _with_unique_ids(message: AssistantMessage) -> AssistantMessage:
    ids = [call.id for call in message.tool_calls]
    used = set(ids)
    if len(used) == len(ids):
        return message
    seen: set[str] = set()
    calls: list[ToolCall] = []
    for call in message.tool_calls:
        new, number = call.id, 1
        while new in seen or (new != call.id and new in used):
            new, number = f"{call.id}-{number}", number + 1
        seen.add(new)
        calls.append(call if new == call.id else replace(call, id=new))
    return replace(message, tool_calls=tuple(calls))


def _answer(call: ToolCall, given: ToolMessage | None) -> ToolMessage:
    if given is None:
        return ToolMessage(call_id=call.id, name=call.name, content=NO_RESULT)
    return given if given.call_id == call.id else replace(given, call_id=call.id)


# Strategies that make a history shorter


def drop_tool_output(keep: int = 3) -> Strategy:
    """Replace what older tool calls gave by a short note. The calls themselves stay.

    Args:
        keep: So many of the newest tool results stay as they are.

    Raises:
        ConfigurationError: `keep` is negative.
    """
    _at_least("keep", keep, 0)

    def shorten(messages: Sequence[Message]) -> tuple[Message, ...]:
        results = [i for i, one in enumerate(messages) if isinstance(one, ToolMessage)]
        old = set(results[: len(results) - keep])
        return tuple(_without_output(m) if i in old else m for i, m in enumerate(messages))

    return shorten


def _without_output(message: Message) -> Message:
    assert isinstance(message, ToolMessage)
    short = isinstance(message.content, str) and len(message.content) <= len(DROPPED)
    return message if short else replace(message, content=DROPPED)


def keep_last(n: int) -> Strategy:
    """Keep the last `n` messages, and what they need to be understood.

    That is: the calls that the first of them answer, the user message to which they
    belong if it is older (the question that the agent is working on), and the system
    messages of the history.

    Raises:
        ConfigurationError: `n` is less than 1.
    """
    _at_least("n", n, 1)

    def shorten(messages: Sequence[Message]) -> tuple[Message, ...]:
        parts = _parted(messages, n)
        return (*parts.system, *parts.question, *parts.tail)

    return shorten


def summarise(
    model: str | Model, *, keep: int = 10, instructions: str = INSTRUCTIONS
) -> Callable[[Sequence[Message]], Awaitable[tuple[Message, ...]]]:
    """Have a model summarise what is older than the last messages.

    The summary becomes a user message, which stands before what `keep_last` would keep.
    What the summary costs is not part of the run's usage: the model is asked directly.

    Args:
        model: Who writes the summary: a model or a model string.
        keep: So many of the last messages stay as they are.
        instructions: What the model has to do.

    Raises:
        ConfigurationError: `keep` is less than 1, or the model string is unknown.
    """
    _at_least("keep", keep, 1)
    writer = resolve_model(model)

    async def shorten(messages: Sequence[Message]) -> tuple[Message, ...]:
        parts = _parted(messages, keep)
        if not parts.old:
            return tuple(messages)
        order = (SystemMessage(content=instructions), UserMessage(content=_transcript(parts.old)))
        answer = await writer.request(ModelRequest(messages=order))
        if answer.finish != "stop" or not answer.message.text:
            text = f"{writer.name} gave no summary of the history: finish={answer.finish!r}."
            raise InvalidResponse(text, model=writer.name)
        summary = f"Summary of the conversation so far:\n\n{answer.message.text}"
        return (*parts.system, UserMessage(content=summary), *parts.question, *parts.tail)

    return shorten


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parts:
    """A history, parted before its last messages."""

    system: tuple[Message, ...]  # all system messages before the tail
    old: tuple[Message, ...]  # what else stands before the tail, without the question
    question: tuple[Message, ...]  # the user message of a tail that begins without one
    tail: tuple[Message, ...]  # the last messages; it begins with no answer


def _parted(messages: Sequence[Message], n: int) -> _Parts:
    """Part a history before its last `n` messages, or earlier where that splits a call."""
    start = max(0, len(messages) - n)
    while start and isinstance(messages[start], ToolMessage):
        start -= 1
    asked = start  # where the question is, if it is not in the tail
    if start < len(messages) and not isinstance(messages[start], UserMessage):
        users = (i for i in range(start - 1, -1, -1) if isinstance(messages[i], UserMessage))
        asked = next(users, start)
    before = [*enumerate(messages[:start])]
    return _Parts(
        system=tuple(m for _, m in before if isinstance(m, SystemMessage)),
        old=tuple(m for i, m in before if i != asked and not isinstance(m, SystemMessage)),
        question=tuple(messages[asked:start][:1]),
        tail=tuple(messages[start:]),
    )


def _transcript(messages: Iterable[Message]) -> str:
    """Write a conversation as text: servers refuse calls of tools that are not offered."""
    lines: list[str] = []
    for message in messages:
        match message:
            case AssistantMessage(tool_calls=calls):
                lines += [f"Assistant: {message.text}"] if message.text else []
                lines += [f"Assistant calls {call.name}: {call.arguments}" for call in calls]
            case ToolMessage(name=name):
                lines.append(f"Result of {name or 'the call'}: {message.text}")
            case _:
                lines.append(f"User: {message.text}")
    return "\n\n".join(lines)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigurationError(f"{name}={value!r} is too small; expected {least} or more.")
