"""Transports: connections, clients, proxies, and what is closed when."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import os
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx2
import pytest

from agentkit import Agent
from agentkit.errors import (
    ConfigurationError,
    ModelHTTPError,
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


@pytest.mark.parametrize("client", [None, "aiohttp", "own"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_compressed_answer(anyio_backend_name: str, client: Any, stream: bool) -> None:
    """It is read as the same answer, and the connection is used again."""
    if client == "aiohttp":
        pytest.importorskip(client)
        if anyio_backend_name == "trio":
            return
    message = {"role": "assistant", "content": "hello " * 100}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
    answer = raw(200, gzip.compress(body), headers={"Content-Encoding": "gzip"})
    with ChatServer([answer, answer]) as server:
        async with httpx2.AsyncClient() as own:
            chosen = own if client == "own" else client
            async with ChatModel("any", base_url=server.base_url, http_client=chosen) as model:
                for _ in range(2):
                    response = await model.request(REQUEST, stream=stream)
                    assert response.message.content == "hello " * 100
    assert {one.connection for one in server.requests} == {0}
    if client is None:
        accepted = server.requests[0].headers["accept-encoding"]
        assert {"gzip", "deflate"} <= {one.strip() for one in accepted.split(",")}


async def test_idle_connections_are_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has been idle for too long is not used again, and neither is it kept open."""
    monkeypatch.setattr("agentkit.models.chat.transport_httpcore.IDLE_SECONDS", 0.05)
    with ChatServer([reply("a"), reply("b")]) as server:
        async with ChatModel("any", base_url=server.base_url, retries=0) as model:
            await model.request(REQUEST)
            await anyio.sleep(0.1)
            await model.request(REQUEST)
    assert [one.connection for one in server.requests] == [0, 1]


async def test_many_requests_at_once() -> None:
    """A hundred requests are answered, and all their connections are closed in the end."""
    with ChatServer(lambda request: reply("Hi")) as server:
        async with ChatModel("any", base_url=server.base_url) as model:
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(model.request, REQUEST)
            assert server.connections > 1
        with anyio.fail_after(60):
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


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def assert_descriptors(most: int) -> None:
    """Wait for the server, which closes its ends in a thread of this process."""
    for _ in range(200):
        if descriptors() <= most:
            return
        time.sleep(0.02)
    assert descriptors() <= most


@pytest.mark.parametrize("client", [None, "aiohttp"])
async def test_fresh_models_share_connections(anyio_backend_name: str, client: Any) -> None:
    """A model for each request, never closed, does not open a connection each time."""
    if client is not None:
        pytest.importorskip(client)
        if anyio_backend_name == "trio":
            return
    with ChatServer(lambda request: reply("Hi")) as server:
        for count in range(60):
            if count == 5:
                before = descriptors()
            # A cycle, so that only the garbage collector could close anything.
            model = ChatModel("any", base_url=server.base_url, http_client=client)
            vars(model)["itself"] = model
            await model.request(REQUEST)
        assert descriptors() <= before
    assert {one.connection for one in server.requests} == {0}


async def test_closing_a_model_leaves_the_others_connections() -> None:
    """Connections that models share are closed with the last of them."""
    with ChatServer(lambda request: reply("Hi")) as server:
        async with ChatModel("any", base_url=server.base_url) as kept:
            async with ChatModel("any", base_url=server.base_url) as model:
                await kept.request(REQUEST)
                await model.request(REQUEST)
            await kept.request(REQUEST)
        assert {one.connection for one in server.requests} == {0}
        with anyio.fail_after(60):
            while server.connections:
                await anyio.sleep(0.01)


async def test_models_share_no_cookies() -> None:
    """A cookie that a server sets for one model is not sent for another."""
    refused = raw(400, headers={"set-cookie": "session=secret"})
    with ChatServer([refused, reply("Hi")]) as server:
        with pytest.raises(ModelHTTPError):
            await ChatModel("any", base_url=server.base_url).request(REQUEST)
        await ChatModel("any", base_url=server.base_url).request(REQUEST)
    assert "cookie" not in server.requests[1].headers


async def test_models_that_share_connections_keep_their_timeouts() -> None:
    """Each model's own timeouts apply to its requests."""
    with ChatServer([reply("Hi"), sse([HOLD]), reply("Hi")]) as server:
        url = server.base_url
        patient = ChatModel("any", base_url=url)
        hasty = ChatModel("any", base_url=url, timeout=Timeouts(read=0.2), retries=0)
        await patient.request(REQUEST)
        with pytest.raises(ModelUnreachable, match="Timeout"):
            await hasty.request(REQUEST)
        await patient.request(REQUEST)


LIBRARIES = ["httpx2", "httpx"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_callers_client_in_many_loops(library: str) -> None:
    """A caller's client serves any number of `run_sync`, in any threads, and asyncio.run."""
    client = pytest.importorskip(library).AsyncClient(headers={"x-mine": "1"})
    with ChatServer(lambda request: reply("Hi")) as server:
        before = descriptors()

        def run(_: int) -> str:
            # A new model each time: what is known of a client does not depend on it.
            model = ChatModel("any", base_url=server.base_url, http_client=client, retries=0)
            return Agent(model).run_sync("Hello").output

        async def nested() -> str:
            model = ChatModel("any", base_url=server.base_url, http_client=client, retries=0)
            return (await Agent(model).run("Hello")).output + run(0)

        assert [run(i) for i in range(4)] == ["Hi"] * 4
        with ThreadPoolExecutor(4) as pool:
            assert [*pool.map(run, range(8))] == ["Hi"] * 8
        assert [asyncio.run(nested()) for _ in range(2)] == ["HiHi"] * 2
        assert {one.headers["x-mine"] for one in server.requests} == {"1"}
        assert not client.is_closed
    gc.collect()
    assert_descriptors(before)


@pytest.mark.parametrize("library", LIBRARIES)
async def test_the_callers_client_keeps_its_connections(library: str) -> None:
    """On its own loop a caller's client reuses connections, also for one model after another."""
    async with pytest.importorskip(library).AsyncClient() as client:
        with ChatServer(lambda request: reply("Hi")) as server:
            for _ in range(3):
                async with ChatModel("any", base_url=server.base_url, http_client=client) as model:
                    await model.request(REQUEST)
    assert {one.connection for one in server.requests} == {0}


async def test_a_closed_client() -> None:
    """A caller's client that is closed is refused with the reason."""
    async with httpx2.AsyncClient() as client:
        pass
    with pytest.raises(ConfigurationError, match="passed as http_client= is closed"):
        await send([], http_client=client)


def test_loops_that_are_closed_without_ceremony() -> None:
    """Loops that never finish their generators are not kept with their connections."""
    with ChatServer(lambda request: reply("Hi")) as server:
        model = ChatModel("any", base_url=server.base_url)
        before = descriptors()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # They are unclosed, and asyncio says so.
            for _ in range(20):
                loop = asyncio.new_event_loop()
                loop.run_until_complete(model.request(REQUEST))
                loop.close()
            del loop
            asyncio.run(model.request(REQUEST))
            gc.collect()
        assert_descriptors(before)


def test_a_model_that_is_garbage_when_its_loop_ends() -> None:
    """Dropping a model at the very end of trio.run hands nothing to a loop that is closing."""
    trio = pytest.importorskip("trio")
    with ChatServer(lambda request: reply("Hi")) as server:

        async def main() -> None:
            model = ChatModel("any", base_url=server.base_url)
            await model.request(REQUEST)

            class Dropping(trio.abc.Instrument):
                def after_task_step(self, task: Any) -> None:
                    nonlocal model
                    if task is not current:
                        model = None  # type: ignore[assignment]
                        gc.collect()

            current = trio.lowlevel.current_task()
            trio.lowlevel.add_instrument(Dropping())

        gc.freeze()  # the collections at each step look at what is new alone
        try:
            for _ in range(3):
                trio.run(main)
        finally:
            gc.unfreeze()
