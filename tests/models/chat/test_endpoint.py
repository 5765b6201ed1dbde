"""Endpoints: URLs, keys, headers and profiles."""

from __future__ import annotations

import traceback

import pytest

from agentkit.core.effects import Failure
from agentkit.errors import (
    AuthenticationFailed,
    ConfigurationError,
    MissingKey,
    UnknownModel,
)
from agentkit.events import Event
from agentkit.messages import ModelRequest
from agentkit.models import PROFILES, ChatModel, resolve_model
from agentkit.testing import ChatServer, raw, reply
from tests.models.support import REQUEST, SECRET, send

pytestmark = pytest.mark.anyio


async def test_headers() -> None:
    """Key, organisation, project and custom headers are sent; a request's own win."""
    request = ModelRequest(
        messages=REQUEST.messages,
        settings={"extra_headers": {"X-Title": "mine"}, "extra_query": {"v": 2}},
    )
    _, _, server = await send(
        [reply("Hi")],
        request,
        api_key=SECRET,
        organization="org",
        project="proj",
        headers={"HTTP-Referer": "https://me", "X-Title": "yours"},
    )
    sent = server.requests[0]
    assert sent.headers["authorization"] == f"Bearer {SECRET}"
    assert sent.headers["openai-organization"] == "org"
    assert sent.headers["openai-project"] == "proj"
    assert sent.headers["http-referer"] == "https://me"
    assert sent.headers["x-title"] == "mine"
    assert sent.query == "v=2"


async def test_azure() -> None:
    """Azure gets the deployment in the path, the API version in the query, and its key header."""
    with ChatServer([reply("Hi"), reply("Hi")]) as server:
        host = server.base_url.removesuffix("/v1")
        async with ChatModel("dep", base_url=host, profile="azure", api_key=SECRET) as model:
            await model.request(REQUEST)
        newer = f"{host}/openai/v1"
        async with ChatModel("dep", base_url=newer, profile="azure", api_key=SECRET) as model:
            await model.request(REQUEST)
    old, new = server.requests
    assert old.path == "/openai/deployments/dep/chat/completions"
    assert old.query == "api-version=2024-10-21"
    assert old.headers["api-key"] == SECRET
    assert (new.path, new.query) == ("/openai/v1/chat/completions", "")


def test_profiles_by_url() -> None:
    """The base URL selects the profile, unless the caller passes one."""
    groq = "https://api.groq.com/openai/v1"
    assert ChatModel("x", base_url=groq).profile.name == "groq"
    assert ChatModel("x", base_url="https://me.openai.azure.com").profile.name == "azure"
    assert ChatModel("x", base_url="http://localhost:11434/v1").profile.name == "ollama"
    assert ChatModel("x", base_url="https://evil-openrouter.ai/v1").profile.name == "compatible"
    assert ChatModel("x", base_url=groq, profile=PROFILES["vllm"]).profile.name == "vllm"
    with pytest.raises(UnknownModel, match="grok"):
        ChatModel("x", profile="grok")


@pytest.mark.parametrize("url", ["nonsense", "ftp://x/y", "http://[::1"])
async def test_an_invalid_base_url(url: str) -> None:
    """An invalid base URL is a ConfigurationError, not a network failure."""
    with pytest.raises(ConfigurationError):
        async with ChatModel("any", base_url=url, retries=3) as model:
            await model.request(REQUEST)


def test_a_missing_base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure has no default base URL, so the error names its variable."""
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    with pytest.raises(ConfigurationError, match="AZURE_OPENAI_ENDPOINT"):
        ChatModel("dep", profile="azure", api_key="x").check()


def test_a_missing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` names the variable of a missing key, and finds a key in the environment."""
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    model = resolve_model("groq:llama")
    with pytest.raises(MissingKey, match="GROQ_API_KEY") as caught:
        model.check()
    assert caught.value.variable == "GROQ_API_KEY"
    monkeypatch.setenv("GROQ_API_KEY", "x")
    model.check()


async def test_a_request_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request without a key fails before anything is sent."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(MissingKey, match="OPENAI_API_KEY"):
        await ChatModel("gpt-4o").request(REQUEST)


def test_a_key_is_not_sent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown server needs no key, and gets none from the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    model = ChatModel("any", base_url="http://127.0.0.1:9/v1")
    assert model.profile.key_variable is None
    model.check()


async def test_the_key_is_never_shown() -> None:
    """The key is in no repr, error, traceback or event, even if the server repeats it."""
    events: list[Event] = []
    body = {"error": {"message": f"Incorrect API key provided: {SECRET}"}}
    with ChatServer([raw(401, body)]) as server:
        async with ChatModel("any", base_url=server.base_url, api_key=SECRET) as model:
            with pytest.raises(AuthenticationFailed) as caught:
                await model.request(REQUEST, emit=events.append)
    shown = [
        repr(model),
        repr(caught.value),
        repr(caught.value.data()),
        "".join(traceback.format_exception(caught.value)),
        repr(Failure.of(caught.value)),
        repr(events),
    ]
    assert not [text for text in shown if SECRET in text]
    with pytest.raises(ConfigurationError) as broken:
        ChatModel("any", base_url="http://x", api_key=f"{SECRET}é").check()
    assert SECRET not in str(broken.value)
