"""HTTP for models through httpx2. The only file that imports it."""

from __future__ import annotations

import ssl
import sys
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import cache, partial
from typing import Any

import httpx2

from agentkit.errors import ConfigurationError
from agentkit.models.chat.transport import (
    IDLE_SECONDS,
    HttpClient,
    PerLoop,
    Reply,
    translated_errors,
)
from agentkit.settings import Timeouts

SHARD_CONNECTIONS = 16
"""Connections in one pool. A pool looks at all of them for each request and each release,
so its cost grows with the square; small pools side by side keep a request's cost flat."""
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class HttpxTransport:
    """Sends requests through httpx2, or through the caller's own client.

    Args:
        timeouts: In seconds; a caller's own client keeps its own.
        client: An `httpx2.AsyncClient` or `httpx.AsyncClient`. It is never closed here.
    """

    def __init__(self, timeouts: Timeouts, client: HttpClient | None = None) -> None:
        self._timeouts = timeouts
        self._own = client
        self._clients = PerLoop(self._make_client, httpx2.AsyncClient.aclose)
        library = httpx2 if client is None else _library_of(client)
        misuse = (library.InvalidURL, library.UnsupportedProtocol)
        self._errors = partial(translated_errors, misuse, (library.HTTPError, library.StreamError))

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AsyncGenerator[Reply, None]:
        """Send a request and wait for the head of its answer; see `Transport`."""
        client: HttpClient = self._own or await self._clients.get()
        with self._errors():
            request = client.build_request(method, url, content=body, headers=dict(headers))
            response: httpx2.Response = await client.send(request, stream=True)
        try:
            lower = {name.lower(): value for name, value in response.headers.items()}
            yield Reply(status=response.status_code, headers=lower, chunks=self._chunks(response))
        finally:
            with self._errors():
                await response.aclose()

    async def _chunks(self, response: httpx2.Response) -> AsyncGenerator[bytes, None]:
        with self._errors():
            async with aclosing(response.aiter_bytes()) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._clients.aclose()

    def _make_client(self) -> httpx2.AsyncClient:
        timeouts = self._timeouts
        timeout = httpx2.Timeout(
            connect=timeouts.connect, read=timeouts.read, write=timeouts.write, pool=timeouts.pool
        )
        if urllib.request.getproxies():
            # The client reads them only when it makes its transports itself. Servers on this
            # machine are not behind a proxy: it would look for them on its own.
            direct = {f"all://{host}": _Shards() for host in _LOOPBACK}
            return httpx2.AsyncClient(timeout=timeout, limits=_limits(None), mounts=direct)
        return httpx2.AsyncClient(timeout=timeout, transport=_Shards())


def _library_of(client: object) -> Any:
    """Return the module whose exceptions a client raises: httpx2, or httpx for its clients."""
    for cls in type(client).__mro__:
        root = cls.__module__.partition(".")[0]
        if root in ("httpx", "httpx2") and cls.__name__ == "AsyncClient":
            return sys.modules[root]
    raise ConfigurationError(
        f"http_client must be an httpx2.AsyncClient, an httpx.AsyncClient or 'aiohttp', "
        f"not {type(client).__name__}."
    )


def _limits(connections: int | None) -> httpx2.Limits:
    return httpx2.Limits(
        max_connections=connections,
        max_keepalive_connections=connections,
        keepalive_expiry=IDLE_SECONDS,
    )


@cache
def _tls() -> ssl.SSLContext:
    """Return the shared context; making one takes longer than a request."""
    return httpx2.create_ssl_context()


class _Pool:
    """A small pool, and how many of its connections are in use."""

    def __init__(self, secure: bool) -> None:
        verify = _tls() if secure else False  # Each pool serves one scheme only.
        self.secure = secure
        self.active = 0
        self.transport = httpx2.AsyncHTTPTransport(verify=verify, limits=_limits(SHARD_CONNECTIONS))


class _Shards(httpx2.AsyncBaseTransport):
    """Spreads requests over as many small pools as they need."""

    def __init__(self) -> None:
        self._pools: list[_Pool] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send through the first pool with a free connection."""
        pool = self._free(request.url.scheme == "https")
        pool.active += 1
        try:
            response = await pool.transport.handle_async_request(request)
        except BaseException:
            pool.active -= 1
            raise
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Counted(response.stream, pool)
        return response

    def _free(self, secure: bool) -> _Pool:
        for pool in self._pools:
            if pool.secure == secure and pool.active < SHARD_CONNECTIONS:
                return pool
        self._pools.append(_Pool(secure))
        return self._pools[-1]

    async def aclose(self) -> None:
        """Close all pools."""
        for pool in self._pools:
            await pool.transport.aclose()


class _Counted(httpx2.AsyncByteStream):
    """A body that frees its connection in the pool's count when it is closed."""

    def __init__(self, stream: httpx2.AsyncByteStream, pool: _Pool) -> None:
        self._stream = stream
        self._pool: _Pool | None = pool

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            if self._pool is not None:
                self._pool.active -= 1
                self._pool = None
