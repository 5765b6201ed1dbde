"""A chat-completions body as a `ModelResponse`, whatever a server makes of the format.

Pure, and generous: unknown fields are kept, absent and null ones are normal, and
calls without an id get one. A body that is not an answer at all raises a
`ModelError`. A folded stream passes through here too, so that both forms of an
answer give the same response.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, cast

from agentkit.errors import InvalidResponse
from agentkit.messages import (
    AssistantMessage,
    FinishReason,
    JsonObject,
    ModelResponse,
    Part,
    TextPart,
    ToolCall,
    Usage,
    is_array,
    is_object,
    part_from_json,
)
from agentkit.models.call_ids import CallIds
from agentkit.models.chat.errors import error_inside
from agentkit.models.chat.parameters import Note
from agentkit.models.chat.thinking import split_thinking
from agentkit.models.lenient import as_list, as_object, clean, json_text, parse_json

_WORDS: Mapping[FinishReason, str] = {
    "stop": "stop eos eos_token end_turn stop_sequence complete",
    "tool_calls": "tool_calls tool_call tool_use function_call",
    "length": "length max_tokens model_length",
    "content_filter": "content_filter safety recitation refusal",
}
_FINISH: Mapping[str, FinishReason] = {
    word: finish for finish, words in _WORDS.items() for word in words.split()
}
_BODY_KEYS = {"id", "object", "created", "model", "choices", "usage", "error", "obfuscation"}
_CHOICE_KEYS = {"index", "message", "delta", "finish_reason", "logprobs", "text"}
REASONING_FIELDS = ("reasoning_content", "reasoning")
_MESSAGE_KEYS = frozenset(
    ("role", "content", "refusal", "name", "tool_calls", "function_call", *REASONING_FIELDS)
)
_CALL_KEYS = frozenset(("id", "type", "function", "index"))
_USAGE_KEYS = frozenset(
    "prompt_tokens completion_tokens total_tokens prompt_tokens_details completion_tokens_details "
    "cost".split()
)


def decode_response(
    body: bytes | JsonObject,
    *,
    model: str | None = None,
    seed: str = "",
    taken: Iterable[str] = (),
    joined: bool = False,
    note: Callable[[Note], None] = lambda _: None,
) -> ModelResponse:
    """Decode a body, as it came or as a stream was folded.

    Args:
        body: The body.
        model: The model's name, for errors.
        seed: What missing ids of tool calls are derived from, such as the call's address.
        taken: Ids of the conversation so far, which no call gets again.
        joined: Whether several choices are one answer: proxies that translate from
            other forms put the text in one and the calls in the next.
        note: Called with every change that was made to the answer.

    Raises:
        ModelError: The body is not an answer, or reports an error.
    """
    if isinstance(body, bytes):
        body = _parsed(body, model)
    if (error := error_inside(body, model=model)) is not None:
        raise error
    data = as_object(body)
    choices = [as_object(choice) for choice in as_list(data.get("choices")) if choice]
    if not choices:
        raise InvalidResponse(
            f"{model or 'The model'} sent a response without choices: {repr(body)[:200]}.",
            model=model,
        )
    ids = CallIds(f"{seed}/{data.get('id')}", taken)
    messages = [
        _message(as_object(choice.get("message") or choice.get("delta")), ids, note)
        for choice in choices
    ]
    first = choices[0]
    if joined and len(choices) > 1:
        messages = [_joined(messages)]
        reasons = [_finish(one.get("finish_reason"), messages[0], model) for one in choices]
        finish, raw = max(reasons, key=lambda reason: reason[0] in ("length", "content_filter"))
    else:
        finish, raw = _finish(first.get("finish_reason"), messages[0], model)
    extra = _unknown(data, _BODY_KEYS) | _unknown(first, _CHOICE_KEYS)
    if raw is not None:
        extra["finish_reason"] = raw
    usage = as_object(data.get("usage") or as_object(data.get("x_groq")).get("usage"))
    if unknown := _unknown(usage, _USAGE_KEYS):
        extra["usage"] = unknown
    return ModelResponse(
        message=messages[0],
        finish=finish,
        usage=_usage(usage),
        model=_text(data.get("model")),
        id=_text(data.get("id")),
        choices=tuple(messages[1:]),
        logprobs=first.get("logprobs"),
        extra=extra,
    )


def _parsed(data: bytes, model: str | None) -> Any:
    try:
        return parse_json(data)
    except ValueError as error:
        raise InvalidResponse(
            f"{model or 'The model'} sent a body that is not JSON ({error}): "
            f"{data[:200].decode('utf-8', 'replace')!r}. Check the base URL.",
            model=model,
        ) from None


def _joined(messages: Sequence[AssistantMessage]) -> AssistantMessage:
    """Return several messages as one."""
    contents = [one.content for one in messages if one.content]
    texts = [one for one in contents if isinstance(one, str)]
    content: str | tuple[Part, ...] | None = "\n".join(texts) if texts else None
    if len(texts) < len(contents):
        parts = [(TextPart(text=one),) if isinstance(one, str) else one for one in contents]
        content = tuple(part for one in parts for part in one)
    return AssistantMessage(
        content=content,
        tool_calls=tuple(call for one in messages for call in one.tool_calls),
        refusal=next((one.refusal for one in messages if one.refusal), None),
        reasoning="\n".join(one.reasoning for one in messages if one.reasoning) or None,
        reasoning_field=next((one.reasoning_field for one in messages if one.reasoning), None),
        extra={key: value for one in reversed(messages) for key, value in one.extra.items()},
    )


def _finish(
    raw: Any, message: AssistantMessage, model: str | None
) -> tuple[FinishReason, str | None]:
    """Return why the answer ended, and the server's word for it where ours differs."""
    normal: FinishReason = "tool_calls" if message.tool_calls else "stop"
    if raw is None or raw == "":
        return normal, None
    word = str(raw)
    known = _FINISH.get(word.lower())
    if known is None and not message.tool_calls:
        known = None if word.lower() in ("error", "abort", "cancelled") else "stop"
    if known is None:
        # Calls of an answer that ended in an unknown way are not safe to run.
        raise InvalidResponse(
            f"{model or 'The model'} ended its answer with the unknown finish_reason {word!r}, so "
            "the answer may be incomplete; nothing of it was executed.",
            model=model,
        )
    finish = normal if known in ("stop", "tool_calls") else known
    return finish, None if word == finish else word


def _message(data: JsonObject, ids: CallIds, note: Callable[[Note], None]) -> AssistantMessage:
    content, thought = _content(data.get("content"))
    field = next((name for name in REASONING_FIELDS if _text(data.get(name))), None)
    if field is not None:
        thought = "\n".join(filter(None, (data[field], thought)))
    extra = _unknown(data, _MESSAGE_KEYS)
    if data.get("reasoning") and not isinstance(data["reasoning"], str):
        extra["reasoning"] = data["reasoning"]
    calls = as_list(data.get("tool_calls")) or (
        [{"function": data["function_call"]}] if data.get("function_call") else []
    )
    real = [call for call in map(as_object, calls) if _is_call(as_object(call.get("function")))]
    if len(real) < len(calls):
        note(
            Note(
                code="dropped_tool_calls",
                text=f"{len(calls) - len(real)} of the answer's {len(calls)} tool calls had "
                "neither a name nor arguments, and were dropped.",
                data={"tool_calls": calls},
            )
        )
    return AssistantMessage(
        content=content,
        tool_calls=tuple(_call(call, ids) for call in real),
        refusal=_text(data.get("refusal")) or None,
        reasoning=clean(thought) or None,
        reasoning_field=field,
        extra=extra,
    )


def _content(content: Any) -> tuple[str | tuple[Part, ...] | None, str]:
    """Return text or parts, and the thinking among the parts."""
    if content is None:
        return None, ""
    if isinstance(content, str):
        return _without_thinking(content)
    if not is_array(content):
        return clean(json_text(content)), ""  # An object where its JSON text belongs.
    thoughts: list[str] = []
    parts: list[Part] = []
    for part in content:
        if isinstance(part, str):
            parts.append(TextPart(text=part))
        elif (thought := thinking_of(part)) is not None:
            thoughts.append(thought)
        elif is_object(part):
            parts.append(part_from_json(part))
    texts = [getattr(part, "text", None) for part in parts]
    if all(isinstance(text, str) for text in texts):
        text, thought = _without_thinking("".join(cast(list[str], texts)))
        return text, "".join((*thoughts, thought))
    return tuple(parts), "".join(thoughts)


def _without_thinking(text: str) -> tuple[str | None, str]:
    thinking, rest = split_thinking(text)
    return (clean(rest) if rest or not thinking else None), thinking


def thinking_of(part: Any) -> str | None:
    """Return the text of a thinking part, which may be in pieces; None for any other part."""
    match part:
        case {"type": "thinking", "thinking": str(text)}:
            return text
        case {"type": "thinking", "thinking": pieces}:
            texts = [as_object(piece).get("text") for piece in as_list(pieces)]
            return "".join(text for text in texts if isinstance(text, str))
        case _:
            return None


def _is_call(function: JsonObject) -> bool:
    return bool(function.get("name") or function.get("arguments"))


def _call(data: JsonObject, ids: CallIds) -> ToolCall:
    function = as_object(data.get("function"))
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = "{}" if arguments is None else json_text(arguments)
    return ToolCall(
        id=ids.assign(data.get("id")),
        name=_text(function.get("name")) or "",
        arguments=clean(arguments),
        extra=_unknown(data, _CALL_KEYS),
    )


def _usage(data: JsonObject) -> Usage:
    prompt = as_object(data.get("prompt_tokens_details"))
    completion = as_object(data.get("completion_tokens_details"))
    cost = data.get("cost")  # OpenRouter's, in USD
    cached = prompt.get("cached_tokens") or data.get("prompt_cache_hit_tokens")
    return Usage(
        requests=1,
        input_tokens=_count(data.get("prompt_tokens")),
        output_tokens=_count(data.get("completion_tokens")),
        cached_tokens=_count(cached),
        reasoning_tokens=_count(completion.get("reasoning_tokens")),
        cost=float(cost) if isinstance(cost, (int, float)) and 0 <= cost < 1e9 else None,
    )


def _count(value: Any) -> int:
    if isinstance(value, (int, float)) and 0 <= value < 1e15:
        return int(value)
    return 0


def _text(value: Any) -> str | None:
    return clean(value) if isinstance(value, str) else None


def _unknown(data: JsonObject, known: Set[str]) -> JsonObject:
    if data.keys() <= known:
        return {}
    return {key: v for key, v in data.items() if key not in known and v is not None and v != []}
