"""`ChatModel` over a socket: what is sent, what is tried again, what is closed."""

from __future__ import annotations

import gc
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import anyio
import httpx2
import pytest

from agentkit.core.effects import Address, Failure
from agentkit.errors import (
    AuthenticationFailed,
    ConfigurationError,
    InvalidResponse,
    InvalidSetting,
    MissingKey,
    ModelUnreachable,
    QuotaExceeded,
    RateLimited,
    UnknownModel,
)
from agentkit.events import Event, HttpFinished, HttpStarted, TextDelta, Warned
from agentkit.messages import ModelRequest, ModelResponse, OutputFormat, UserMessage
from agentkit.models import PROFILES, ChatModel, resolve_model
from agentkit.settings import Timeouts
from agentkit.testing import HOLD, ChatServer, drop, raw, reply, sse

pytestmark = pytest.mark.anyio

ASK = ModelRequest(messages=(UserMessage(content="Hi"),))
AT = Address("/agent/m0")
SECRET = "sk-very-secret-key-123456"


async def ask(
    replies: Sequence[Any], request: ModelRequest = ASK, stream: bool = False, **options: Any
) -> tuple[ModelResponse, list[Event], ChatServer]:
    events: list[Event] = []
    with ChatServer(replies) as server:
        async with ChatModel("any", base_url=server.base_url, **options) as model:
            response = await model.request(request, at=AT, emit=events.append, stream=stream)
    return response, events, server


async def test_an_answer() -> None:
    """One request, one answer, and the attempt in the events."""
    response, events, server = await ask([reply("Hello")])
    assert response.message.content == "Hello"
    started, finished = events
    assert isinstance(started, HttpStarted)
    assert (started.at, started.attempt) == ("/agent/m0/h0", 0)
    assert finished == HttpFinished(at=AT.attempt(0), status=200)
    assert server.requests[0].path == "/v1/chat/completions"
    assert server.requests[0].json["model"] == "any"


async def test_headers() -> None:
    """Key, organisation, project and the caller's own; a request's own win."""
    request = ModelRequest(
        messages=ASK.messages,
        settings={"extra_headers": {"X-Title": "mine"}, "extra_query": {"v": 2}},
    )
    _, _, server = await ask(
        [reply("Hi")],
        request,
        api_key=SECRET,
        organization="org",
        project="proj",
        headers={"HTTP-Referer": "https://me", "X-Title": "yours"},
    )
    got = server.requests[0]
    assert got.headers["authorization"] == f"Bearer {SECRET}"
    assert got.headers["openai-organization"] == "org"
    assert got.headers["openai-project"] == "proj"
    assert got.headers["http-referer"] == "https://me"
    assert got.headers["x-title"] == "mine"
    assert got.query == "v=2"


async def test_listing_models() -> None:
    """The server's own names, or an error that says what came instead."""
    body = {"data": [{"id": "b"}, {"id": "a"}]}
    with ChatServer([raw(200, body), raw(200, {"data": []}), raw(401)]) as server:
        async with ChatModel("", base_url=server.base_url) as model:
            assert await model.models() == ["b", "a"]
            with pytest.raises(InvalidResponse, match="lists no models"):
                await model.models()
            with pytest.raises(AuthenticationFailed):
                await model.models()
    assert (server.requests[0].method, server.requests[0].path) == ("GET", "/v1/models")


async def test_azure() -> None:
    """The deployment is in the path, the API version in the query, the key in its own header."""
    with ChatServer([reply("Hi"), reply("Hi")]) as server:
        host = server.base_url.removesuffix("/v1")
        async with ChatModel("dep", base_url=host, profile="azure", api_key=SECRET) as model:
            await model.request(ASK)
        newer = f"{host}/openai/v1"
        async with ChatModel("dep", base_url=newer, profile="azure", api_key=SECRET) as model:
            await model.request(ASK)
    old, new = server.requests
    assert old.path == "/openai/deployments/dep/chat/completions"
    assert old.query == "api-version=2024-10-21"
    assert old.headers["api-key"] == SECRET
    assert (new.path, new.query) == ("/openai/v1/chat/completions", "")


async def test_retries() -> None:
    """Failures that may pass are tried again, each attempt in the events."""
    busy = raw(503, {"error": {"message": "busy"}}, {"x-request-id": "r1", "retry-after": "2"})
    response, events, _ = await ask([drop(), busy, reply("Hello")])
    assert response.message.content == "Hello"
    first, second, third = (one for one in events if isinstance(one, HttpFinished))
    assert first.status is None
    assert first.delay is not None
    assert "ModelUnreachable" in str(first.error)
    assert (second.at, second.status, second.request_id) == (AT.attempt(1), 503, "r1")
    assert second.retry_after == 2
    assert second.delay is not None
    assert second.delay >= 2
    assert (third.status, third.delay, third.error) == (200, None, None)


async def test_retries_are_bounded() -> None:
    """The last error is raised."""
    with pytest.raises(RateLimited):
        await ask([raw(429)] * 3, retries=2)


async def test_no_retry_where_it_is_no_use() -> None:
    """A wrong key and an empty account are told at once; so is what the server says is final."""
    with pytest.raises(AuthenticationFailed):
        await ask([raw(401)])
    with pytest.raises(QuotaExceeded):
        await ask([raw(429, {"error": {"message": "no", "code": "insufficient_quota"}})])
    with pytest.raises(RateLimited):
        await ask([raw(429, b"", {"x-should-retry": "false"})])


async def test_no_retry_past_the_deadline() -> None:
    """A wait that ends after the total timeout is not begun."""
    with pytest.raises(RateLimited):
        await ask([raw(429, b"", {"retry-after": "60"})], timeout=5)


async def test_the_total_timeout() -> None:
    """A call that takes too long ends, attempts and all."""
    with pytest.raises(ModelUnreachable, match=r"0\.2 seconds"):
        await ask([reply("late", delay=HOLD)], timeout=0.2)


async def test_the_read_timeout() -> None:
    """Silence in the middle of a stream is noticed."""
    answer = sse([{"choices": [{"delta": {"content": "x"}}]}, HOLD])
    with pytest.raises(ModelUnreachable, match="ReadTimeout"):
        await ask([answer], stream=True, retries=0, timeout=Timeouts(read=0.2))


async def test_nobody_is_there() -> None:
    """A refused connection is a ModelUnreachable with the host and the reason."""
    async with ChatModel("any", base_url="http://127.0.0.1:9", retries=0) as model:
        with pytest.raises(ModelUnreachable, match=r"127\.0\.0\.1:9: ConnectError"):
            await model.request(ASK)


@pytest.mark.parametrize("url", ["nonsense", "ftp://x/y", "http://[::1"])
async def test_a_base_url_that_is_none(url: str) -> None:
    """It is the caller's mistake, not the network's."""
    with pytest.raises(ConfigurationError):
        async with ChatModel("any", base_url=url, retries=3) as model:
            await model.request(ASK)


async def test_cancelling_a_request() -> None:
    """The attempt is closed in the events, and the connection with it."""
    events: list[Event] = []
    with ChatServer([reply("late", delay=HOLD)]) as server:
        async with ChatModel("any", base_url=server.base_url) as model:
            with anyio.move_on_after(0.2) as scope:
                await model.request(ASK, at=AT, emit=events.append)
        assert scope.cancelled_caught
    assert events[-1] == HttpFinished(at=AT.attempt(0), error="cancelled")


async def test_connections_are_used_again() -> None:
    """Also after a stream, and after an error."""
    script = [reply("a"), reply("b"), raw(400), reply("c")]
    with ChatServer(script) as server:
        async with ChatModel("any", base_url=server.base_url, retries=0) as model:
            await model.request(ASK)
            await model.request(ASK, stream=True)
            with pytest.raises(Exception, match="400"):
                await model.request(ASK)
            await model.request(ASK)
    assert {one.connection for one in server.requests} == {0}


@pytest.mark.parametrize("client", [None, "aiohttp"])
async def test_a_kept_connection_that_is_closed(anyio_backend_name: str, client: Any) -> None:
    """When the server hangs up on a kept connection, the next attempt opens another one."""
    if client is not None:
        pytest.importorskip(client)
        if anyio_backend_name == "trio":
            return
    events: list[Event] = []
    with ChatServer([reply("a"), drop(), reply("b")]) as server:
        url = server.base_url
        async with ChatModel("any", base_url=url, retries=1, http_client=client) as model:
            await model.request(ASK)
            response = await model.request(ASK, emit=events.append)
    assert response.message.content == "b"
    assert [one.connection for one in server.requests] == [0, 0, 1]
    assert [one.status for one in events if isinstance(one, HttpFinished)] == [None, 200]


@pytest.mark.parametrize("client", [None, "aiohttp"])
async def test_a_proxy_of_the_environment(
    anyio_backend_name: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests go through the proxy that the environment names."""
    if client is not None:
        pytest.importorskip(client)
        if anyio_backend_name == "trio":
            return
    with ChatServer([reply("Hi")]) as server:
        monkeypatch.setenv("http_proxy", server.base_url.removesuffix("/v1"))
        url = "http://server.invalid/v1"
        async with ChatModel("any", base_url=url, http_client=client) as model:
            await model.request(ASK)
    assert server.requests[0].headers["host"] == "server.invalid"


async def test_a_listener_that_fails() -> None:
    """What the listener raises ends the call, is not tried again, and leaves nothing open."""
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, TextDelta):
            raise ZeroDivisionError

    with ChatServer([reply("Hello there")]) as server:
        async with ChatModel("any", base_url=server.base_url) as model:
            with pytest.raises(ZeroDivisionError):
                await model.request(ASK, at=AT, emit=listen, stream=True)
    assert events[-1] == HttpFinished(at=AT.attempt(0), status=200, error="ZeroDivisionError: ")


async def test_many_requests_at_once() -> None:
    """A hundred requests are answered, over connections that are all closed in the end."""
    with ChatServer(lambda request: reply("Hi")) as server:
        async with ChatModel("any", base_url=server.base_url) as model:
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(model.request, ASK)
            assert server.connections > 1
        with anyio.fail_after(5):
            while server.connections:
                await anyio.sleep(0.01)


async def test_a_client_of_the_caller() -> None:
    """It is used and never closed, and its headers are sent."""
    async with httpx2.AsyncClient(headers={"x-mine": "1"}) as client:
        _, _, server = await ask([reply("Hi")], http_client=client)
        assert not client.is_closed
    assert server.requests[0].headers["x-mine"] == "1"


async def test_an_httpx_client_of_the_caller() -> None:
    """The older library's client works as well, its errors included."""
    httpx = pytest.importorskip("httpx")
    async with httpx.AsyncClient() as client:
        response, _, _ = await ask([drop(), reply("Hi")], http_client=client)
        assert response.message.content == "Hi"


@pytest.mark.parametrize("stream", [False, True])
async def test_aiohttp(anyio_backend_name: str, stream: bool) -> None:
    """With the extra, aiohttp carries the requests; only asyncio can."""
    pytest.importorskip("aiohttp")
    events: list[Event] = []
    with ChatServer([drop(), raw(503), reply("Hello"), reply("Hello")]) as server:
        async with ChatModel("any", base_url=server.base_url, http_client="aiohttp") as model:
            if anyio_backend_name == "trio":
                with pytest.raises(ConfigurationError, match="asyncio"):
                    await model.request(ASK)
                return
            response = await model.request(ASK, at=AT, emit=events.append, stream=stream)
            await model.request(ASK, stream=stream)
    assert response.message.content == "Hello"
    assert server.requests[-1].connection == server.requests[-2].connection
    ended = [one for one in events if isinstance(one, HttpFinished)]
    assert [one.status for one in ended] == [None, 503, 200]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_aiohttp_breaks_off() -> None:
    """Its errors are those of the tree as well."""
    pytest.importorskip("aiohttp")
    chunk = {"choices": [{"delta": {"content": "x"}}]}
    options = {"http_client": "aiohttp", "retries": 0, "stream": True}
    with pytest.raises(ModelUnreachable):
        await ask([sse([chunk], close_early=True)], **options)
    with pytest.raises(ModelUnreachable, match="Timeout"):
        await ask([sse([chunk, HOLD])], timeout=Timeouts(read=0.2), **options)


async def test_something_else_as_a_client() -> None:
    """It is refused with what is expected."""
    with pytest.raises(ConfigurationError, match="AsyncClient"):
        await ask([], http_client=object())


async def test_the_key_is_never_shown() -> None:
    """Not in the repr, the error, its traceback or the events, even if the server repeats it."""
    events: list[Event] = []
    body = {"error": {"message": f"Incorrect API key provided: {SECRET}"}}
    with ChatServer([raw(401, body)]) as server:
        async with ChatModel("any", base_url=server.base_url, api_key=SECRET) as model:
            with pytest.raises(AuthenticationFailed) as caught:
                await model.request(ASK, emit=events.append)
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


def test_a_missing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before any I/O, with the variable's name; a key in the environment is found."""
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    model = resolve_model("groq:llama")
    with pytest.raises(MissingKey, match="GROQ_API_KEY") as caught:
        model.check()
    assert caught.value.variable == "GROQ_API_KEY"
    monkeypatch.setenv("GROQ_API_KEY", "x")
    model.check()


async def test_a_missing_key_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request says it too."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(MissingKey, match="OPENAI_API_KEY"):
        await ChatModel("gpt-4o").request(ASK)


def test_a_key_is_not_sent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown server needs no key, and gets none from the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    model = ChatModel("any", base_url="http://127.0.0.1:9/v1")
    assert model.profile.key_variable is None
    model.check()


def test_a_missing_base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure has none of its own."""
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    with pytest.raises(ConfigurationError, match="AZURE_OPENAI_ENDPOINT"):
        ChatModel("dep", profile="azure", api_key="x").check()


@pytest.mark.parametrize("spec", ["opnai:gpt-4o", "gpt-4o", "openai:", ":", ""])
def test_unknown_models(spec: str) -> None:
    """The error names the providers that there are, closest first."""
    with pytest.raises(UnknownModel, match=r"openai.*groq") as caught:
        resolve_model(spec)
    assert caught.value.model == spec


def test_resolving() -> None:
    """A provider's model, with colons in its name; a model is returned as it is."""
    model = resolve_model("ollama:llama3.1:8b")
    assert model.name == "ollama:llama3.1:8b"
    assert model.profile == PROFILES["ollama"]
    assert resolve_model(model) is model


def test_profiles_by_url() -> None:
    """The base URL says which server it is; a profile of the caller wins."""
    groq = "https://api.groq.com/openai/v1"
    assert ChatModel("x", base_url=groq).profile.name == "groq"
    assert ChatModel("x", base_url="https://me.openai.azure.com").profile.name == "azure"
    assert ChatModel("x", base_url="http://localhost:11434/v1").profile.name == "ollama"
    assert ChatModel("x", base_url="https://evil-openrouter.ai/v1").profile.name == "compatible"
    assert ChatModel("x", base_url=groq, profile=PROFILES["vllm"]).profile.name == "vllm"
    with pytest.raises(UnknownModel, match="grok"):
        ChatModel("x", profile="grok")


async def test_dropped_parameters_are_warned_about() -> None:
    """One event for each parameter that the server does not take."""
    request = ModelRequest(messages=ASK.messages, settings={"top_k": 5})
    _, events, server = await ask([reply("Hi")], request, profile="openai", api_key="x")
    assert [one.code for one in events if isinstance(one, Warned)] == ["dropped_parameter"]
    assert "top_k" not in server.requests[0].json


async def test_strict_settings() -> None:
    """Refused before anything is sent."""
    request = ModelRequest(messages=ASK.messages, settings={"top_k": 5})
    with pytest.raises(InvalidSetting, match="top_k"):
        await ask([], request, profile="openai", api_key="x", strict_settings=True)


async def test_output_that_cannot_be_streamed() -> None:
    """Groq refuses to stream a response_format: the answer is fetched whole and shown."""
    request = ModelRequest(messages=ASK.messages, output=OutputFormat(kind="json_object"))
    _, events, server = await ask(
        [reply('{"a": 1}')], request, stream=True, profile="groq", api_key="x"
    )
    assert "stream" not in server.requests[0].json
    assert TextDelta(at=AT, text='{"a": 1}') in events


def _ask_without_closing(backend: str) -> None:
    with ChatServer(lambda request: reply("Hi")) as server:
        model = ChatModel("any", base_url=server.base_url)

        async def main() -> None:
            await model.request(ASK)
            assert server.connections == 1

        for _ in range(2):  # Each loop has connections of its own, and leaves none.
            anyio.run(main, backend=backend)
            for _ in range(100):
                if not server.connections:
                    break
                anyio.run(anyio.sleep, 0.01)
            assert not server.connections


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_connections_end_with_their_loop(backend: str) -> None:
    """A model that nobody closes leaves no open socket and no warning behind."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unraisable: list[Any] = []
        hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
        try:
            _ask_without_closing(backend)
            gc.collect()
        finally:
            sys.unraisablehook = hook
    assert not unraisable


async def test_connections_end_with_their_model() -> None:
    """In a loop that goes on, a model that is garbage closes its connections."""
    with ChatServer(lambda request: reply("Hi")) as server:
        await ChatModel("any", base_url=server.base_url).request(ASK)
        gc.collect()
        with anyio.fail_after(5):
            while server.connections:
                await anyio.sleep(0.01)
