"""Recorded answers of real servers, if the recording is available.

Each line of the file has an exchange and an independent reading of it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import InvalidResponse, ModelError
from agentkit.messages import ModelResponse
from agentkit.models.chat.decode import decode_response
from agentkit.models.chat.errors import error_from_http
from agentkit.models.chat.stream import EventDecoder, StreamFold

PLACE = Path(os.environ.get("AGENTKIT_RECORDED", "../shared/wire/recorded.jsonl"))
LINES = PLACE.read_text("utf-8").splitlines() if PLACE.exists() else []
EXCHANGES = [json.loads(line) for line in LINES]

pytestmark = pytest.mark.skipif(not EXCHANGES, reason="no recorded exchanges here")


def decode(exchange: dict[str, Any], size: int) -> ModelResponse:
    if exchange["sse"] is None:
        body = json.dumps(exchange["response"]).encode()
        if exchange["status"] != 200:
            raise error_from_http(exchange["status"], {}, body, model="m", now=0)
        return decode_response(body)
    decoder, fold = EventDecoder(), StreamFold()
    raw = exchange["sse"].encode()
    for start in range(0, len(raw), size):
        for data in decoder.feed(raw[start : start + size]):
            fold.feed(data)
    for data in decoder.finish():
        fold.feed(data)
    return fold.finish()


def exchanges(kind: str) -> list[Any]:
    kinds = {"answer": [], "error": [], "broken": []}
    for one in EXCHANGES:
        if one["expected"]["error"]:
            kinds["error"].append(one)
        elif one["sse"] and "[DONE]" not in one["sse"] and '"finish_reason":"' not in one["sse"]:
            kinds["broken"].append(one)
        else:
            kinds["answer"].append(one)
    return [pytest.param(one, id=one["id"]) for one in kinds[kind]]


@pytest.mark.parametrize("exchange", exchanges("answer"))
def test_answers(exchange: dict[str, Any]) -> None:
    """Answers decode as in the independent reading, in packets of any size."""
    expected = exchange["expected"]["choices"][0]
    usage = exchange["expected"]["usage"] or {}
    response = decode(exchange, 1 << 20)
    message = response.message
    assert (message.content, message.refusal, message.reasoning) == (
        expected["content"],
        expected["refusal"],
        expected["reasoning"],
    )
    assert [(one.name, one.arguments) for one in message.tool_calls] == [
        (one["name"], one["arguments"]) for one in expected["tool_calls"]
    ]
    for ours, theirs in zip(message.tool_calls, expected["tool_calls"], strict=True):
        assert ours.id == (theirs["id"] or ours.id) != ""
    assert response.usage.input_tokens == usage.get("prompt_tokens", 0)
    assert response.usage.output_tokens == usage.get("completion_tokens", 0)
    if exchange["sse"]:
        assert decode(exchange, 1) == response
        assert decode(exchange, 7) == response


@pytest.mark.parametrize("exchange", exchanges("error"))
def test_errors(exchange: dict[str, Any]) -> None:
    """An error is raised with the server's message, also from inside a 200."""
    with pytest.raises(ModelError) as caught:
        decode(exchange, 1 << 20)
    assert exchange["expected"]["error"]["message"] in str(caught.value)


@pytest.mark.parametrize("exchange", exchanges("broken"))
def test_broken_streams(exchange: dict[str, Any]) -> None:
    """A stream without an end is not an answer."""
    with pytest.raises(InvalidResponse):
        decode(exchange, 1 << 20)
