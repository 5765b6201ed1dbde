"""Probing servers that can and cannot do things."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentkit.cli.commands.probe import Check, probe
from agentkit.errors import AuthenticationFailed, ConfigurationError, ModelUnreachable
from agentkit.models import PROFILES
from agentkit.testing import HOLD, ChatServer, ServerRequest, raw, reply

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
    """All checks pass, the model is the only one that is listed, and the profile is native."""
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


async def test_what_is_not_answered_stays_as_it_was() -> None:
    """Too many requests and answers that never come say nothing about a server."""

    def busy(request: ServerRequest) -> Any:
        if request.json.get("tools"):
            return raw(429, headers={"retry-after": "60"})
        if request.json.get("response_format"):
            return reply("late", delay=HOLD)
        return able(request)

    with ChatServer(busy) as server:
        found = await probe(server.base_url, model="m", profile="vllm", seconds=0.3)
    unknown = {check.name for check in found.checks if check.ok is None}
    assert unknown == {
        "tools",
        "required tool_choice",
        "named tool_choice",
        "parallel calls",
        "json_schema",
        "json_object",
        "json_schema with tools",
    }
    assert found.profile == PROFILES["vllm"]


async def test_answers_are_bounded() -> None:
    """Every question says how long the answer may be, as the server takes it."""
    with ChatServer(unable) as server:
        await probe(server.base_url, model="m")
    _, _, *bounds = [request.json.get("max_tokens") for request in server.requests]
    assert set(bounds) == {512}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (raw(200, {"data": [{"id": "m1"}, {"id": "m2"}]}), "has 2 models.*m1, m2"),
        (raw(404), "does not say which models it has"),
        (raw(200, {"data": []}), "does not say which models it has"),
    ],
)
async def test_the_model_has_to_be_plain(answer: Any, says: str) -> None:
    """Without a name, the only model of the server is taken; otherwise one has to be named."""
    with ChatServer([answer]) as server, pytest.raises(ConfigurationError, match=says):
        await probe(server.base_url)
