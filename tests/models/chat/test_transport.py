"""Transports: connections, clients, proxies, and what is closed when."""

from __future__ import annotations

import gc
import sys
import warnings
from typing import Any

import anyio
import httpx2
import pytest

from agentkit.errors import (
    ConfigurationError,
    ModelUnreachable,
)
from agentkit.events import Event, HttpFinished
from agentkit.models import ChatModel
from agentkit.settings import Timeouts
from agentkit.testing import HOLD, ChatServer, drop, raw, reply, sse
from tests.models.support import AT, REQUEST, send

pytestmark = pytest.mark.anyio


async def test_connections_are_reused() -> None:
    """A connection is reused after an answer, a stream and an error."""
    script = [reply("a"), reply("b"), raw(400), reply("c")]
    with ChatServer(script) as server:
        async with ChatModel("any", base_url=server.base_url, retries=0) as model:
            await model.request(REQUEST)
            await model.request(REQUEST, stream=True)
            with pytest.raises(Exception, match="400"):
                await model.request(REQUEST)
            await model.request(REQUEST)
    assert {one.connection for one in server.requests} == {0}


@pytest.mark.parametrize("client", [None, "aiohttp"])
async def test_a_reused_connection_that_is_closed(anyio_backend_name: str, client: Any) -> None:
    """When the server hangs up on a reused connection, the next attempt opens another."""
    if client is not None:
        pytest.importorskip(client)
        if anyio_backend_name == "trio":
            return
    events: list[Event] = []
    with ChatServer([reply("a"), drop(), reply("b")]) as server:
        url = server.base_url
        async with ChatModel("any", base_url=url, retries=1, http_client=client) as model:
            await model.request(REQUEST)
            response = await model.request(REQUEST, emit=events.append)
    assert response.message.content == "b"
    assert [one.connection for one in server.requests] == [0, 0, 1]
    assert [one.status for one in events if isinstance(one, HttpFinished)] == [None, 200]


async def test_many_requests_at_once() -> None:
    """A hundred requests are answered, and all their connections are closed in the end."""
    with ChatServer(lambda request: reply("Hi")) as server:
        async with ChatModel("any", base_url=server.base_url) as model:
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(model.request, REQUEST)
            assert server.connections > 1
        with anyio.fail_after(5):
            while server.connections:
                await anyio.sleep(0.01)


@pytest.mark.parametrize("client", [None, "aiohttp"])
async def test_a_proxy_from_the_environment(
    anyio_backend_name: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests go through the proxy of the environment."""
    if client is not None:
        pytest.importorskip(client)
        if anyio_backend_name == "trio":
            return
    with ChatServer([reply("Hi")]) as server:
        monkeypatch.setenv("http_proxy", server.base_url.removesuffix("/v1"))
        url = "http://server.invalid/v1"
        async with ChatModel("any", base_url=url, http_client=client) as model:
            await model.request(REQUEST)
    assert server.requests[0].headers["host"] == "server.invalid"


async def test_the_callers_client() -> None:
    """The caller's client is used with its headers and never closed."""
    async with httpx2.AsyncClient(headers={"x-mine": "1"}) as client:
        _, _, server = await send([reply("Hi")], http_client=client)
        assert not client.is_closed
    assert server.requests[0].headers["x-mine"] == "1"


async def test_the_callers_httpx_client() -> None:
    """A client of the older httpx works as well, including its errors."""
    httpx = pytest.importorskip("httpx")
    async with httpx.AsyncClient() as client:
        response, _, _ = await send([drop(), reply("Hi")], http_client=client)
        assert response.message.content == "Hi"


async def test_an_invalid_client() -> None:
    """An object that is not a client is refused with the expected types."""
    with pytest.raises(ConfigurationError, match="AsyncClient"):
        await send([], http_client=object())


@pytest.mark.parametrize("stream", [False, True])
async def test_aiohttp(anyio_backend_name: str, stream: bool) -> None:
    """Under asyncio, aiohttp sends the requests; under trio it is refused."""
    pytest.importorskip("aiohttp")
    events: list[Event] = []
    with ChatServer([drop(), raw(503), reply("Hello"), reply("Hello")]) as server:
        async with ChatModel("any", base_url=server.base_url, http_client="aiohttp") as model:
            if anyio_backend_name == "trio":
                with pytest.raises(ConfigurationError, match="asyncio"):
                    await model.request(REQUEST)
                return
            response = await model.request(REQUEST, at=AT, emit=events.append, stream=stream)
            await model.request(REQUEST, stream=stream)
    assert response.message.content == "Hello"
    assert server.requests[-1].connection == server.requests[-2].connection
    ended = [one for one in events if isinstance(one, HttpFinished)]
    assert [one.status for one in ended] == [None, 503, 200]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_aiohttp_failures() -> None:
    """Broken connections and timeouts of aiohttp are ModelUnreachable."""
    pytest.importorskip("aiohttp")
    chunk = {"choices": [{"delta": {"content": "x"}}]}
    options = {"http_client": "aiohttp", "retries": 0, "stream": True}
    with pytest.raises(ModelUnreachable):
        await send([sse([chunk], close_early=True)], **options)
    with pytest.raises(ModelUnreachable, match="Timeout"):
        await send([sse([chunk, HOLD])], timeout=Timeouts(read=0.2), **options)


def _request_without_closing(backend: str) -> None:
    with ChatServer(lambda request: reply("Hi")) as server:
        model = ChatModel("any", base_url=server.base_url)

        async def main() -> None:
            await model.request(REQUEST)
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
    """A model that is never closed leaves no open socket and no warning behind."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unraisable: list[Any] = []
        hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
        try:
            _request_without_closing(backend)
            gc.collect()
        finally:
            sys.unraisablehook = hook
    assert not unraisable


async def test_connections_end_with_their_model() -> None:
    """A model that is garbage closes its connections while its loop goes on."""
    with ChatServer(lambda request: reply("Hi")) as server:
        await ChatModel("any", base_url=server.base_url).request(REQUEST)
        gc.collect()
        with anyio.fail_after(5):
            while server.connections:
                await anyio.sleep(0.01)
