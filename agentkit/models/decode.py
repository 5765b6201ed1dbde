"""A chat-completions body as a `ModelResponse`, whatever a server makes of the format.

Pure, and generous: unknown fields are kept, absent and null ones are met in the
wild, and calls without an id are given one. What is not an answer at all is an
error of the tree. A folded stream passes through here too, so that both forms
of an answer give the same response.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast, overload

from pydantic_core import from_json

from agentkit.errors import InvalidResponse
from agentkit.messages import (
    AssistantMessage,
    FinishReason,
    JsonObject,
    ModelResponse,
    Part,
    ToolCall,
    Usage,
    part_from_json,
)
from agentkit.models.encode import short_id
from agentkit.models.http_errors import error_inside

__all__ = ["decode_response", "parse_json", "response_from_body"]

MAX_DEPTH = 200
_FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "complete": "stop",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "refusal": "content_filter",
}
_BODY_KEYS = {"id", "object", "created", "model", "choices", "usage", "error", "obfuscation"}
_CHOICE_KEYS = {"index", "message", "delta", "finish_reason", "logprobs", "text"}
_MESSAGE_KEYS = {
    "role",
    "content",
    "refusal",
    "name",
    "tool_calls",
    "function_call",
    "reasoning",
    "reasoning_content",
}
_USAGE_KEYS = {
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "prompt_tokens_details",
    "completion_tokens_details",
    "cost",
}


def decode_response(
    data: bytes, *, model: str | None = None, seed: str = "", taken: Iterable[str] = ()
) -> ModelResponse:
    """Decode the body of a response that did not come as a stream.

    Args:
        data: The body.
        model: The model's name, for errors.
        seed: What ids for calls without one are made from, such as the call's address.
        taken: Ids of the conversation so far, which no call may have again.

    Raises:
        ModelError: The body is not an answer, or says that there is none.
    """
    try:
        return response_from_body(parse_json(data), model=model, seed=seed, taken=taken)
    except ValueError as error:
        raise InvalidResponse(
            f"{model or 'The model'} sent a body that is not JSON ({error}): "
            f"{data[:200].decode('utf-8', 'replace')!r}. Check the base URL.",
            model=model,
        ) from None


def parse_json(data: bytes) -> Any:
    """Parse JSON as servers send it: with a BOM, broken UTF-8 or half a surrogate pair too.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return from_json(data)
    except ValueError:
        try:
            value = json.loads(data.decode("utf-8", "replace").removeprefix("\ufeff"))
        except RecursionError:
            raise ValueError("nested too deeply") from None
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    """Refuse what from_json would refuse, so that no reader of it recurses too far."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        objects = [cast(JsonObject, one) for one in level if isinstance(one, dict)]
        lists = [cast(list[Any], one) for one in level if isinstance(one, list)]
        level = [inner for one in objects for inner in one.values()]
        level += [inner for one in lists for inner in one]
        if not level:
            return
    raise ValueError("nested too deeply")


def response_from_body(
    body: Any, *, model: str | None = None, seed: str = "", taken: Iterable[str] = ()
) -> ModelResponse:
    """Read a parsed body; see `decode_response`."""
    if (failed := error_inside(body, model=model)) is not None:
        raise failed
    data = _object(body)
    choices = [_object(choice) for choice in _list(data.get("choices")) if choice]
    if not choices:
        raise InvalidResponse(
            f"{model or 'The model'} sent a response without choices: {_excerpt(body)}.",
            model=model,
        )
    ids = _Ids(f"{seed}/{data.get('id')}", taken)
    messages = [_message(_object(one.get("message") or one.get("delta")), ids) for one in choices]
    first = choices[0]
    finish, raw = _finish(first.get("finish_reason"), messages[0], model)
    extra = _unknown(data, _BODY_KEYS) | _unknown(first, _CHOICE_KEYS)
    if raw is not None:
        extra["finish_reason"] = raw
    counted = _object(data.get("usage") or _object(data.get("x_groq")).get("usage"))
    if more := _unknown(counted, _USAGE_KEYS):
        extra["usage"] = more
    return ModelResponse(
        message=messages[0],
        finish=finish,
        usage=_usage(counted),
        model=_text(data.get("model")),
        id=_text(data.get("id")),
        choices=tuple(messages[1:]),
        logprobs=first.get("logprobs"),
        extra=extra,
    )


def _finish(
    raw: Any, message: AssistantMessage, model: str | None
) -> tuple[FinishReason, str | None]:
    """Why the answer ended, and the server's word for it where ours differs."""
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
            f"{model or 'The model'} ended its answer with finish_reason {word!r}, which does "
            "not say that it is complete; nothing of it was executed.",
            model=model,
        )
    finish = normal if known in ("stop", "tool_calls") else known
    return finish, None if word == finish else word


def _message(data: JsonObject, ids: _Ids) -> AssistantMessage:
    content, thought = _content(data.get("content"))
    reasoning = _text(data.get("reasoning_content")) or _text(data.get("reasoning")) or thought
    extra = _unknown(data, _MESSAGE_KEYS)
    if data.get("reasoning") and not isinstance(data["reasoning"], str):
        extra["reasoning"] = data["reasoning"]
    calls = _list(data.get("tool_calls")) or (
        [{"function": data["function_call"]}] if data.get("function_call") else []
    )
    return AssistantMessage(
        content=content,
        tool_calls=tuple(_call(_object(call), ids) for call in calls if call),
        refusal=_text(data.get("refusal")) or None,
        reasoning=reasoning or None,
        extra=extra,
    )


def _content(content: Any) -> tuple[str | tuple[Part, ...] | None, str | None]:
    """Text or parts, and the thinking among the parts."""
    if content is None or isinstance(content, str):
        return clean(content), None
    if not isinstance(content, list):
        return _as_text(content), None  # An object where its JSON text belongs.
    thoughts: list[str] = []
    parts: list[Part] = []
    for part in cast(list[Any], content):
        match part:
            case str(text):
                parts.append(part_from_json({"type": "text", "text": text}))
            case {"type": "thinking", "thinking": thinking}:
                thoughts.append(_thinking(thinking))
            case dict():
                parts.append(part_from_json(cast(JsonObject, part)))
            case _:
                pass
    texts = [getattr(part, "text", None) for part in parts]
    if all(isinstance(text, str) for text in texts):
        return clean("".join(cast(list[str], texts))), "".join(thoughts)
    return tuple(parts), "".join(thoughts)


def _thinking(thinking: Any) -> str:
    if isinstance(thinking, str):
        return thinking
    return "".join(_text(_object(piece).get("text")) or "" for piece in _list(thinking))


def _call(data: JsonObject, ids: _Ids) -> ToolCall:
    function = _object(data.get("function"))
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = "{}" if arguments is None else _as_text(arguments)
    return ToolCall(
        id=ids.of(data.get("id")),
        name=_text(function.get("name")) or "",
        arguments=clean(arguments),
        extra=_unknown(data, {"id", "type", "function", "index"}),
    )


class _Ids:
    """Gives every call of a response an id that no other call of the conversation has."""

    def __init__(self, seed: str, taken: Iterable[str]) -> None:
        self._seed = seed
        self._given = taken
        self._taken: set[str] | None = None
        self._made = 0

    def of(self, given: Any) -> str:
        candidate = given if isinstance(given, str) else ""
        if self._taken is None:
            self._taken = set(self._given)  # Only an answer with calls walks the history.
        while not candidate or candidate in self._taken:
            candidate = short_id(f"{self._seed}/{self._made}")
            self._made += 1
        self._taken.add(candidate)
        return candidate


def _usage(data: JsonObject) -> Usage:
    prompt = _object(data.get("prompt_tokens_details"))
    completion = _object(data.get("completion_tokens_details"))
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


def _object(value: Any) -> JsonObject:
    return cast(JsonObject, value) if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else []


def _as_text(value: Any) -> str:
    return clean(json.dumps(value, ensure_ascii=False))


def _text(value: Any) -> str | None:
    return clean(value) if isinstance(value, str) else None


def _unknown(data: JsonObject, known: set[str]) -> JsonObject:
    return {key: v for key, v in data.items() if key not in known and v is not None and v != []}


def _excerpt(body: Any) -> str:
    return repr(body)[:200]


@overload
def clean(text: str) -> str: ...
@overload
def clean(text: str | None) -> str | None: ...
def clean(text: str | None) -> str | None:
    """Join surrogate pairs that a stream has split, and replace the halves left over."""
    if text is None or text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
