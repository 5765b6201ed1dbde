"""The one seam between the loop and whatever answers it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from agentkit.core.effects import Address
from agentkit.events import Emit, ReasoningDelta, TextDelta, ToolCallDelta, ignore
from agentkit.messages import AssistantMessage, ModelRequest, ModelResponse
from agentkit.models.profiles import Profile

__all__ = ["DIRECT", "Model", "show_whole"]

DIRECT = Address("/direct/m0")
"""The address of a model call that nobody's run asked for."""


class Model(Protocol):
    """Answers requests. Implemented by servers, scripts and wrappers alike."""

    @property
    def name(self) -> str:
        """What traces and messages call it, for example `openai:gpt-4o`."""
        ...

    @property
    def profile(self) -> Profile:
        """What it supports."""
        ...

    def check(self) -> None:
        """Say now, without I/O, what would make every request fail: a missing key, an extra.

        Raises:
            AgentKitError: What is missing and how to get it.
        """
        ...

    async def request(
        self,
        request: ModelRequest,
        *,
        at: Address = DIRECT,
        emit: Emit = ignore,
        stream: bool = False,
    ) -> ModelResponse:
        """Answer one request.

        Streaming is a side channel: with `stream=True` deltas are given to
        `emit` on the way, and the complete response is returned all the same.

        Raises:
            ModelError: There is no usable answer.
        """
        ...

    async def aclose(self) -> None:
        """Release connections and processes. The model may be used again afterwards."""
        ...


def show_whole(
    message: AssistantMessage, at: Address, emit: Emit, texts: Iterable[str] | None = None
) -> None:
    """Emit the deltas of an answer that came in one piece, or whose text is cut into `texts`."""
    if message.reasoning:
        emit(ReasoningDelta(at=at, text=message.reasoning))
    for text in texts if texts is not None else [message.text]:
        if text:
            emit(TextDelta(at=at, text=text))
    for index, call in enumerate(message.tool_calls):
        emit(ToolCallDelta(at=at.call(index), name=call.name, arguments=call.arguments))
