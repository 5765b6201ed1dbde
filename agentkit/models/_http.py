"""HTTP for models: one POST and its answer. The only file that imports the HTTP client."""

from __future__ import annotations

import ssl
import sys
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import cache
from typing import Any, TypeAlias

import httpx2

from agentkit.errors import ConfigurationError, ModelUnreachable
from agentkit.models.per_loop import PerLoop
from agentkit.settings import Timeouts

__all__ = ["HttpWire", "Reply"]

SHARD_CONNECTIONS = 16
"""Connections in one pool. A pool looks at all of them for each request and each release,
so its cost grows with the square; small pools side by side keep a request's cost flat."""
IDLE_SECONDS = 30.0
"""How long an idle connection is kept: tools run between two requests of a conversation."""
_Errors: TypeAlias = tuple[type[Exception], ...]


class Reply:
    """The answer to a POST, its body not read yet.

    Attributes:
        status: The HTTP status.
        headers: Names in lower case.
    """

    def __init__(self, response: httpx2.Response, wire: HttpWire) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in response.headers.items()
        }
        self._response = response
        self._wire = wire

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body piece by piece as it arrives, decompressed.

        Raises:
            ModelUnreachable: The connection broke.
        """
        with self._wire.errors():
            async with aclosing(self._response.aiter_bytes()) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def read(self) -> bytes:
        """The whole body.

        Raises:
            ModelUnreachable: The connection broke.
        """
        with self._wire.errors():
            return await self._response.aread()


class HttpWire:
    """Posts request bodies through httpx2, or through the caller's own client.

    Args:
        timeouts: In seconds; a caller's own client keeps its own.
        client: An `httpx2.AsyncClient` or `httpx.AsyncClient`. It is never closed here.
    """

    def __init__(self, timeouts: Timeouts, client: Any = None) -> None:
        self._timeouts = timeouts
        self._own = client
        self._pools = PerLoop(self._make, httpx2.AsyncClient.aclose)
        library = httpx2 if client is None else _library_of(client)
        self._misused: _Errors = (library.InvalidURL, library.UnsupportedProtocol)
        self._broken: _Errors = (library.HTTPError, library.StreamError)

    @asynccontextmanager
    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str]
    ) -> AsyncGenerator[Reply, None]:
        """Send the request and wait for the head of its answer.

        Raises:
            ModelUnreachable: There is no answer.
            ConfigurationError: The URL is not one.
        """
        client: httpx2.AsyncClient = self._own or await self._pools.get()
        with self.errors():
            request = client.build_request("POST", url, content=body, headers=dict(headers))
            response = await client.send(request, stream=True)
        try:
            yield Reply(response, self)
        finally:
            with self.errors():
                await response.aclose()

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._pools.aclose()

    @contextmanager
    def errors(self) -> Generator[None]:
        """Map the client library's exceptions onto the error tree."""
        try:
            yield
        except self._misused as error:
            raise ConfigurationError(f"The base URL cannot be used: {error}") from error
        except self._broken as error:
            words = f"{type(error).__name__}: {error}".rstrip(": ")
            raise ModelUnreachable(words) from error

    def _make(self) -> httpx2.AsyncClient:
        limits = self._timeouts
        timeout = httpx2.Timeout(
            connect=limits.connect, read=limits.read, write=limits.write, pool=limits.pool
        )
        if urllib.request.getproxies():
            # The client reads them only when it makes its transports itself.
            return httpx2.AsyncClient(timeout=timeout, limits=_limits(None))
        return httpx2.AsyncClient(timeout=timeout, transport=_Shards())


def _library_of(client: Any) -> Any:
    """The module whose exceptions a client raises: httpx2, or httpx for its clients."""
    for cls in type(client).__mro__:
        root = cls.__module__.partition(".")[0]
        if root in ("httpx", "httpx2") and cls.__name__ == "AsyncClient":
            return sys.modules[root]
    raise ConfigurationError(
        f"http_client is a {type(client).__name__}; expected an httpx2.AsyncClient or an "
        "httpx.AsyncClient."
    )


def _limits(connections: int | None) -> httpx2.Limits:
    return httpx2.Limits(
        max_connections=connections,
        max_keepalive_connections=connections,
        keepalive_expiry=IDLE_SECONDS,
    )


@cache
def _tls() -> ssl.SSLContext:
    """Made once: that takes longer than a request does."""
    return httpx2.create_ssl_context()


class _Shards(httpx2.AsyncBaseTransport):
    """Spreads requests over as many small pools as they need."""

    def __init__(self) -> None:
        self._pools: list[httpx2.AsyncHTTPTransport] = []
        self._active: list[int] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send through the first pool with a free connection."""
        index = next((i for i, n in enumerate(self._active) if n < SHARD_CONNECTIONS), None)
        if index is None:
            index = len(self._pools)
            limits = _limits(SHARD_CONNECTIONS)
            self._pools.append(httpx2.AsyncHTTPTransport(verify=_tls(), limits=limits))
            self._active.append(0)
        self._active[index] += 1
        try:
            response = await self._pools[index].handle_async_request(request)
        except BaseException:
            self._active[index] -= 1
            raise
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Counted(response.stream, self._active, index)
        return response

    async def aclose(self) -> None:
        """Close all pools."""
        for pool in self._pools:
            await pool.aclose()


class _Counted(httpx2.AsyncByteStream):
    """A body that says when its connection is free again."""

    def __init__(self, stream: httpx2.AsyncByteStream, active: list[int], index: int) -> None:
        self._stream = stream
        self._active = active
        self._index: int | None = index

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            if self._index is not None:
                self._active[self._index] -= 1
                self._index = None
