"""`block_models`: no test asks a real model by mistake."""

from __future__ import annotations

import pytest

from agentkit import Agent, ChatModel
from agentkit.models import FallbackModel, LocalModel
from agentkit.testing import ChatServer, ModelCallBlocked, ScriptedModel, block_models, reply

pytestmark = pytest.mark.anyio


async def test_real_models_are_not_asked() -> None:
    """Nothing is sent, and no other model is asked in their place."""
    with ChatServer([], strict=False) as server:
        url = server.base_url
    remote = ChatModel("any", base_url=url, api_key="none")
    other = ScriptedModel(["never"])
    with block_models():
        for model in (remote, LocalModel(), FallbackModel(remote, other)):
            with pytest.raises(ModelCallBlocked, match="was not asked: real model calls"):
                await Agent(model).run("Hi")
        with pytest.raises(ModelCallBlocked):
            await remote.models()
    assert other.requests == ()


async def test_a_chat_server_is_no_real_model() -> None:
    """While it runs."""
    with block_models(), ChatServer([reply("Hello.")]) as server:
        model = ChatModel("any", base_url=server.base_url, api_key="none")
        assert (await Agent(model).run("Hi")).output == "Hello."


async def test_it_holds_from_the_call_on() -> None:
    """As in a conftest.py; it may be stopped, also twice."""
    model = ChatModel("any", base_url="http://127.0.0.1:9/v1", api_key="none", retries=0)
    guard = block_models()
    try:
        with pytest.raises(ModelCallBlocked):
            await Agent(model).run("Hi")
    finally:
        guard.stop()
        guard.stop()
    with pytest.raises(Exception, match=r"127\.0\.0\.1:9"):
        await Agent(model).run("Hi")
