"""Probing servers that can and cannot do things."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentkit.errors import AuthenticationFailed, ModelUnreachable
from agentkit.models.probe import Check, probe
from agentkit.testing import ChatServer, ServerRequest, raw, reply

pytestmark = pytest.mark.anyio


def able(request: ServerRequest) -> Any:
    """Answers for a server that can do everything."""
    body = request.json
    if request.method == "GET":
        return raw(200, {"data": [{"id": "m1"}]})
    if tools := body.get("tools"):
        cities = ["Paris", "Rome"] if "Rome" in body["messages"][0]["content"] else ["Paris"]
        choice = body.get("tool_choice")
        name = choice["function"]["name"] if isinstance(choice, dict) else None
        name = name or tools[0]["function"]["name"]
        return reply(calls=[(name, {"city": city}) for city in cities])
    if form := body.get("response_format"):
        value = {"code": "zx-81"} if form["type"] == "json_schema" else {"legs": 4}
        return reply(json.dumps(value))
    if body.get("logprobs"):
        choice = {"message": {"content": "Hi"}, "logprobs": {"content": [{"token": "Hi"}]}}
        return raw(200, {"choices": [choice]})
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return reply("one two three", finish="length" if limit else "stop")


def unable(request: ServerRequest) -> Any:
    """Answers for a server with chat, schemas and max_tokens, and nothing else."""
    body = request.json
    form = body.get("response_format")
    if body.get("tools") or body.get("logprobs") or (form and form["type"] == "json_object"):
        return raw(400, {"error": "not supported"})
    if form:
        return reply('{"code": "zx-81"}')
    return reply("one two", finish="length" if "max_tokens" in body else "stop", usage=None)


async def test_a_server_that_can_do_everything() -> None:
    """All checks pass, the model is the first that is listed, and the profile is native."""
    told: list[Check] = []
    with ChatServer(able) as server:
        found = await probe(server.base_url, told=told.append)
    assert [check.name for check in found.checks if not check.ok] == []
    assert found.model == "m1"
    assert tuple(told) == found.checks
    assert found.profile.tool_calling == "native"
    assert found.profile.output_modes == ("native", "tool", "json", "prompt")
    assert found.profile.renames == {}
    assert found.profile.forced_tool == "named"


async def test_a_server_that_can_do_little() -> None:
    """What it refuses is in the profile, with its words in the table."""
    with ChatServer(unable) as server:
        found = await probe(server.base_url, model="m")
    failed = {check.name: check.detail for check in found.checks if not check.ok}
    assert failed.keys() == {
        "max_completion_tokens",
        "tools",
        "required tool_choice",
        "named tool_choice",
        "parallel calls",
        "json_object",
        "json_schema with tools",
        "usage in streams",
        "logprobs",
    }
    assert "not supported" in failed["tools"]
    assert found.profile.tool_calling == "constrained"
    assert found.profile.output_modes == ("native", "prompt")
    assert found.profile.renames == {"max_completion_tokens": "max_tokens"}
    assert found.profile.drops == {"logprobs", "top_logprobs"}
    assert not found.profile.stream_usage


async def test_nobody_and_a_wrong_key() -> None:
    """Without any answer there is no diagnosis."""
    with pytest.raises(ModelUnreachable):
        await probe("http://127.0.0.1:9/v1", model="m")
    with ChatServer([raw(401)]) as server, pytest.raises(AuthenticationFailed):
        await probe(server.base_url, model="m")
