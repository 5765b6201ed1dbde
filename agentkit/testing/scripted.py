"""Models for tests: a script, or a function.

They replace the server, so everything above them runs as in production: the loop,
the tools, the trace. To test the wire itself, use `agentkit.testing.ChatServer`.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from agentkit.core.effects import Address
from agentkit.errors import AgentKitError, ConfigurationError, ModelError, safe_repr
from agentkit.events import Emit, ignore
from agentkit.messages import AssistantMessage, ModelRequest, ModelResponse, ToolCall, Usage
from agentkit.models.base import DIRECT, emit_deltas
from agentkit.models.profiles import Profile
from agentkit.testing.replies import ChatReply

Answer: TypeAlias = str | Sequence[tuple[str, Mapping[str, Any] | str]] | ModelResponse
"""A model's answer: a text, tool calls as (name, arguments), or a complete response.

Arguments are an object, or the exact text of the model."""


class FunctionModel:
    """A model that answers every request with `fn(request)`.

        def weather(request: ModelRequest) -> Answer:
            if isinstance(request.messages[-1], ToolMessage):
                return "It is sunny."
            return [("get_weather", {"city": "Paris"})]

        agent = Agent(FunctionModel(weather), tools=[get_weather])

    Args:
        fn: Sync or async. The request raises what it raises.
        name: The model's name in traces.
        profile: The features that the model supports.
    """

    def __init__(
        self,
        fn: Callable[[ModelRequest], Answer | Awaitable[Answer]],
        *,
        name: str = "function",
        profile: Profile | None = None,
    ) -> None:
        self._fn = fn
        self._requests: list[ModelRequest] = []
        self.name = name
        self.profile = profile or Profile(name=name)

    def identity(self) -> str:
        """Return nothing: models of one name stand for the same server."""
        return ""

    @property
    def requests(self) -> tuple[ModelRequest, ...]:
        """The requests so far, in order of arrival."""
        return tuple(self._requests)

    def check(self) -> None:
        """Do nothing: no key or address can be missing."""

    async def request(
        self,
        request: ModelRequest,
        *,
        at: Address = DIRECT,
        emit: Emit = ignore,
        stream: bool = False,
    ) -> ModelResponse:
        """Answer one request; with `stream`, emit the answer piece by piece first.

        A tool call's id is made of its address, so that equal runs have equal ids.
        """
        self._requests.append(request)
        answer = self._fn(request)
        if inspect.isawaitable(answer):
            answer = await answer
        _check(answer, f"What the function of {self.name!r} returns")
        response = _response(answer, at, self.name)
        if stream:
            words = re.findall(r"\s*\S+|\s+$", response.message.text)
            emit_deltas(response.message, at, emit, words)
        return response

    async def aclose(self) -> None:
        """Do nothing: there is nothing to release."""


class ScriptedModel(FunctionModel):
    """A model that follows a script: one answer for each request, in order of arrival.

        model = ScriptedModel([[("get_weather", {"city": "Paris"})], "It is sunny."])

    Args:
        answers: The script. Errors in it are raised.
        name: The model's name in traces.
        profile: The features that the model supports.

    Raises:
        ConfigurationError: The script has an item that is no answer.
    """

    def __init__(
        self,
        answers: Sequence[Answer | ModelError],
        *,
        name: str = "scripted",
        profile: Profile | None = None,
    ) -> None:
        super().__init__(self._next, name=name, profile=profile)
        if isinstance(answers, str):
            raise ConfigurationError(
                f"ScriptedModel({answers!r}): the script is a list of answers."
            )
        self._answers = tuple(answers)
        for index, answer in enumerate(self._answers):
            if not isinstance(answer, ModelError):
                _check(answer, f"Item {index} of the script of {name!r}")

    @property
    def left(self) -> tuple[Answer | ModelError, ...]:
        """The answers that no request has had."""
        return self._answers[len(self.requests) :]

    def _next(self, request: ModelRequest) -> Answer:
        place = len(self.requests) - 1
        if place >= len(self._answers):
            raise AgentKitError(
                f"The script of {self.name!r} has ended: there is no answer for request "
                f"{place + 1}. The last message is {request.messages[-1:]!r}."
            )
        answer = self._answers[place]
        if isinstance(answer, ModelError):
            raise answer
        return answer


def _check(answer: Any, what: str) -> None:
    """Check that this is an answer.

    Raises:
        ConfigurationError: It is something else, such as a reply of a `ChatServer`.
    """
    if isinstance(answer, (str, ModelResponse)):
        return
    calls = cast("Sequence[Any]", answer) if isinstance(answer, Sequence) else [None]
    for call in calls:
        match call:
            case (str(), Mapping() | str()):
                continue
            case _:
                hint = " reply(…) is for a ChatServer." if isinstance(answer, ChatReply) else ""
                raise ConfigurationError(
                    f"{what} is {safe_repr(cast('object', answer))}: expected a text, a "
                    "ModelResponse, or a list of calls such as "
                    f'[("get_weather", {{"city": "Paris"}})].{hint}'
                )


def _response(answer: Answer, at: Address, model: str) -> ModelResponse:
    match answer:
        case ModelResponse():
            return answer
        case str():
            message = AssistantMessage(content=answer)
        case _:
            calls = (_call(at.call(i), *call) for i, call in enumerate(answer))
            message = AssistantMessage(tool_calls=tuple(calls))
    return ModelResponse(
        message=message,
        finish="tool_calls" if message.tool_calls else "stop",
        usage=Usage(requests=1),
        model=model,
    )


def _call(at: Address, name: str, arguments: Mapping[str, Any] | str) -> ToolCall:
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    return ToolCall(id="call" + at.replace("/", "_"), name=name, arguments=arguments)
