"""What type checkers must see of `agentkit.testing`. Checked by `make types`, never run."""

from __future__ import annotations

from typing import assert_type

from agentkit import Agent, Model, ModelRequest, ModelResponse, RunResult
from agentkit.errors import RateLimited
from agentkit.testing import ChatServer, FunctionModel, ScriptedModel, ServerRequest, raw, reply


def calls(request: ModelRequest) -> list[tuple[str, dict[str, str]]]:
    """A function model may return tool calls."""
    return [("look", {"place": "here"})]


async def response(request: ModelRequest) -> ModelResponse:
    """It may be async, and may return a complete response."""
    raise RateLimited("later")


models: list[Model] = [
    FunctionModel(calls),
    FunctionModel(response),
    FunctionModel(lambda request: "text"),
    ScriptedModel(["text", [("look", {}), ("look", "{}")], RateLimited("later")]),
]
assert_type(Agent(models[0]).run_sync("Hi"), RunResult[str])
assert_type(ScriptedModel([]).requests, tuple[ModelRequest, ...])


async def serve() -> None:
    """A server is the same under `with` and `async with`."""
    with ChatServer([reply("a"), raw(503), lambda request: reply(request.path)]) as server:
        assert_type(server, ChatServer)
        assert_type(server.base_url, str)
        assert_type(server.requests, tuple[ServerRequest, ...])
    async with ChatServer(lambda request: raw(204)) as server:
        assert_type(server, ChatServer)
