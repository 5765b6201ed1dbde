"""Between the chat-completions wire and a run: requests in, completions and chunks out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from agentkit.core.effects import PendingCall
from agentkit.errors import (
    AgentKitError,
    AuthenticationFailed,
    ConfigurationError,
    ContextLengthExceeded,
    InvalidHistory,
    InvalidSetting,
    LimitExceeded,
    ModelError,
    ModelRefusal,
    OutputTruncated,
    RateLimited,
)
from agentkit.events import (
    Event,
    Restarted,
    StepFinished,
    StepStarted,
    ToolCallFinished,
    ToolCallStarted,
    ToolProgress,
    Warned,
)
from agentkit.history import check_history
from agentkit.messages import JsonObject, Message, Usage, is_array, is_object, messages_from_json
from agentkit.settings import ChatSettings

_TAKEN = frozenset({"model", "messages", "stream", "stream_options", "response_format"})
_SETTINGS = frozenset(
    {one.name for one in fields(ChatSettings) if not one.name.startswith("extra_")}
    - {"n", "tool_choice", "keep_tool_choice", "parallel_tool_calls", "models", "route", "provider"}
)
_REFUSED = {
    "tools": "this agent brings its own tools",
    "functions": "this agent brings its own tools",
    "tool_choice": "this agent chooses among its own tools",
    "function_call": "this agent chooses among its own tools",
    "n": "this agent gives one answer",
}
"""What would change what an agent is, and why it is refused."""
_HARMLESS: Mapping[str, Any] = {
    "n": 1,
    "tools": [],
    "tool_choice": "auto",
    "functions": [],
    "parallel_tool_calls": True,
}
"""The values with which clients send such a parameter although nothing depends on it."""


class WireError(Exception):
    """An error in the form of the wire."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",  # the wire's name
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        error = {"message": message, "type": type, "param": param, "code": code}
        self.body: JsonObject = {"error": error, **(more or {})}


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatRequest:
    """A request of the wire, checked.

    Attributes:
        model: The name of the agent.
        messages: The conversation.
        stream: Whether the answer comes in chunks.
        include_usage: Whether a last chunk has the usage.
        settings: The sampling parameters.
        format: The `response_format`, if it asks for more than text.
    """

    model: str
    messages: tuple[Message, ...]
    stream: bool
    include_usage: bool
    settings: ChatSettings
    format: JsonObject | None


def parse(body: bytes) -> ChatRequest:
    """Read the body of a request.

    Raises:
        WireError: It is not one that an agent can answer. The message names the parameter.
    """
    try:
        data: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WireError(
            400, f"We could not parse the JSON body of your request: {error}."
        ) from None
    if not is_object(data):
        raise WireError(400, "The body of your request is not a JSON object.")
    for name in ("model", "messages"):
        if name not in data:
            raise WireError(400, f"You must provide {name!r}.", param=name)
    if not isinstance(data["model"], str) or not is_array(data["messages"]):
        raise WireError(400, "Expected 'model' to be text and 'messages' a list.", param="messages")
    stream: Any = data.get("stream") or False
    options: Any = data.get("stream_options") or {}
    if not isinstance(stream, bool) or not is_object(options):
        raise WireError(400, "Expected 'stream' to be true or false.", param="stream")
    return ChatRequest(
        model=data["model"],
        messages=_messages(data["messages"]),
        stream=stream,
        include_usage=stream and options.get("include_usage") is True,
        settings=_settings(data),
        format=_format(data.get("response_format")),
    )


def _messages(data: list[Any]) -> tuple[Message, ...]:
    try:
        messages = messages_from_json(data)
        check_history(messages)
    except InvalidHistory as error:
        raise WireError(400, error.message, param="messages") from None
    if not messages:
        raise WireError(400, "'messages' is empty.", param="messages")
    return messages


def _settings(data: JsonObject) -> ChatSettings:
    settings: JsonObject = {}
    for name, value in data.items():
        if name in _TAKEN or value is None or _HARMLESS.get(name, ...) == value:
            continue
        if name not in _SETTINGS:
            why = _REFUSED.get(name, "this endpoint does not know it")
            raise WireError(400, f"Unsupported parameter: {name!r}; {why}.", param=name)
        settings[name] = value
    try:
        return ChatSettings(**settings)
    except InvalidSetting as error:
        raise WireError(400, error.message, param=error.field) from None


def _format(data: Any) -> JsonObject | None:
    if data is None or data == {"type": "text"}:
        return None
    if is_object(data) and data.get("type") in ("json_object", "json_schema"):
        return data
    raise WireError(400, f"Unknown response_format: {data!r:.200}.", param="response_format")


def check_format(format: JsonObject | None, schema: JsonObject | None, agent: str) -> None:
    """Check that an agent's output is what a `response_format` asks for.

    Args:
        format: The `response_format`.
        schema: The schema of the agent's output; None if it is text.
        agent: Its name.

    Raises:
        WireError: It is not, and an agent's output cannot be changed by a request.
    """
    if format is None:
        return
    described: Any = format.get("json_schema")
    wanted = described.get("schema") if is_object(described) else None
    if schema is not None and (format["type"] == "json_object" or wanted == schema):
        return
    own = "text" if schema is None else f"JSON of this schema: {json.dumps(schema)}"
    text = f"{agent} answers with {own}. Leave response_format out"
    text += "." if schema is None else ", or ask for that."
    raise WireError(400, text, param="response_format")


# Answers


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the bodies of one answer have in common."""

    run: str
    model: str
    created: int

    @classmethod
    def of(cls, run: str, model: str) -> Answer:
        """Begin an answer now."""
        return cls(run=run, model=model, created=int(time.time()))

    def completion(
        self, content: str, usage: Usage, steps: list[JsonObject], status: str
    ) -> JsonObject:
        """Return the whole answer."""
        message = {"role": "assistant", "content": content, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": usage_body(usage),
            "agentkit": {"run": self.run, "status": status, "steps": steps},
        }

    def chunk(
        self,
        delta: JsonObject,
        finish: Literal["stop"] | None = None,
        **more: Any,
    ) -> JsonObject:
        """Return a piece of it."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice], **more}

    def usage(self, usage: Usage) -> JsonObject:
        """Return the chunk with the usage."""
        return {
            **self._head("chat.completion.chunk"),
            "choices": [],
            "usage": usage_body(usage),
        }

    def _head(self, kind: str) -> JsonObject:
        return {
            "id": f"chatcmpl-{self.run}",
            "object": kind,
            "created": self.created,
            "model": self.model,
        }


def usage_body(usage: Usage) -> JsonObject:
    """Return a usage in the form of the wire."""
    body: JsonObject = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
    return body if usage.cost is None else body | {"cost": usage.cost}


def step_of(event: Event) -> JsonObject | None:
    """Return what clients may show of an event, in a field that others ignore."""
    match event:
        case StepStarted(at=at, model=model):
            return {"event": "step", "at": at, "model": model}
        case StepFinished(at=at, usage=usage, error=error):
            return {"event": "step_end", "at": at, "usage": usage.to_json(), "failed": bool(error)}
        case ToolCallStarted(at=at, name=name, arguments=arguments):
            return {"event": "tool", "at": at, "name": name, "arguments": arguments}
        case ToolCallFinished(at=at, name=name, status=status, text=text):
            return {"event": "tool_end", "at": at, "name": name, "status": status, "text": text}
        case ToolProgress(at=at, value=value):
            return {"event": "progress", "at": at, "value": _shown(value)}
        case Restarted(at=at):
            return {"event": "restarted", "at": at}
        case Warned(at=at, code=code):
            return {"event": "warning", "at": at, "code": code}
        case _:
            return None


def _shown(value: Any) -> Any:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return repr(value)[:1000]
    return value


def error_of(error: BaseException, run: str) -> WireError:
    """Return how a run failed, without what only its owner may know."""
    more = {"agentkit": {"run": run}}
    match error:
        case LimitExceeded():
            text = f"The run has reached its limit of {error.limit}."
            return WireError(429, text, type="limit", code="limit_exceeded", more=more)
        case ContextLengthExceeded():
            text = "The conversation is too long for the agent's model."
            return WireError(400, text, code="context_length_exceeded", more=more)
        case ModelRefusal() | OutputTruncated():
            return WireError(502, error.message, type="server_error", more=more)
        case RateLimited(retry_after=after):
            text = "The agent's model is busy. Try again later."
            return WireError(
                503, text, type="server_error", code="overloaded", retry_after=after, more=more
            )
        case AuthenticationFailed() | ConfigurationError():
            text = (
                "The agent is not set up for this request; its owner finds the reason in the log."
            )
            return WireError(500, text, type="server_error", code="configuration", more=more)
        case ModelError():
            text = "The agent's model gave no answer."
            return WireError(502, text, type="server_error", code="model_error", more=more)
        case AgentKitError():
            text = f"The run failed with {type(error).__name__}."
        case _:
            text = "The run failed."
    return WireError(500, text, type="server_error", code="run_failed", more=more)


def paused(run: str, pending: tuple[PendingCall, ...]) -> WireError:
    """Return that a run waits for decisions, which this wire cannot carry."""
    calls = [{"at": one.at, "kind": one.kind, "tool": one.call.name} for one in pending]
    names = ", ".join(one.call.name for one in pending)
    return WireError(
        409,
        f"The run waits for a decision about {names}. Its owner can decide and resume it.",
        type="approval_required",
        code="approval_required",
        more={"agentkit": {"run": run, "status": "paused", "pending": calls}},
    )
