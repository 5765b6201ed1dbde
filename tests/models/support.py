"""Helpers that the tests of models share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentkit.core.effects import Address
from agentkit.events import Event
from agentkit.messages import ModelRequest, ModelResponse, UserMessage
from agentkit.models import ChatModel
from agentkit.testing import ChatServer

REQUEST = ModelRequest(messages=(UserMessage(content="Hi"),))
AT = Address("/agent/m0")
SECRET = "sk-very-secret-key-123456"


async def send(
    replies: Sequence[Any], request: ModelRequest = REQUEST, stream: bool = False, **options: Any
) -> tuple[ModelResponse, list[Event], ChatServer]:
    """Send one request to a server with these replies; return all that can be checked."""
    events: list[Event] = []
    with ChatServer(replies) as server:
        async with ChatModel("any", base_url=server.base_url, **options) as model:
            response = await model.request(request, at=AT, emit=events.append, stream=stream)
    return response, events, server
