"""The wire format against a real server: llama.cpp with a small embedded model."""

from __future__ import annotations

import json
from collections.abc import Iterator

import anyio
import pytest

from agentkit.events import Event, TextDelta
from agentkit.messages import ModelRequest, OutputFormat, UserMessage
from agentkit.models.local.model import LocalModel

pytestmark = [pytest.mark.anyio, pytest.mark.local]


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    """Share one server among all tests, over event loops of both kinds."""
    shared = LocalModel()
    yield shared
    anyio.run(shared.aclose)


async def test_streaming(model: LocalModel) -> None:
    """The deltas add up to the answer, and usage is counted."""
    events: list[Event] = []
    request = ModelRequest(
        messages=(UserMessage(content="Say hello."),),
        settings={"temperature": 0, "max_completion_tokens": 12},
    )
    response = await model.request(request, emit=events.append, stream=True)
    pieces = [one.text for one in events if isinstance(one, TextDelta)]
    assert len(pieces) > 1
    assert "".join(pieces) == response.message.content
    assert response.usage.output_tokens >= len(pieces)


async def test_a_json_schema(model: LocalModel) -> None:
    """The server enforces a JSON schema, whatever the model prefers."""
    schema = {
        "type": "object",
        "properties": {"code": {"type": "string", "enum": ["zx-81"]}},
        "required": ["code"],
        "additionalProperties": False,
    }
    request = ModelRequest(
        messages=(UserMessage(content="Say hello."),),
        output=OutputFormat(kind="json_schema", schema=schema),
        settings={"temperature": 0},
    )
    response = await model.request(request, stream=True)
    assert json.loads(response.message.text) == {"code": "zx-81"}
