"""HTTP for models through httpx2. The only file that imports it."""

from __future__ import annotations

import ssl
import sys
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from copy import copy
from functools import cache, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from weakref import WeakKeyDictionary, ref

import httpx2
from anyio.lowlevel import current_token

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
        self._own = client
        self._options: dict[str, Any] = {}
        if client is None:
            library, self._clients = httpx2, _CLIENTS
            self._options["timeout"] = httpx2.Timeout(
                connect=timeouts.connect,
                read=timeouts.read,
                write=timeouts.write,
                pool=timeouts.pool,
            )
        else:
            library, self._clients = _library_of(client), _per_loop(client)
        misuse = (library.InvalidURL, library.UnsupportedProtocol)
        self._errors = partial(translated_errors, misuse, (library.HTTPError, library.StreamError))

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AsyncGenerator[Reply, None]:
        """Send a request and wait for the head of its answer; see `Transport`."""
        if self._own is not None and self._own.is_closed:
            raise ConfigurationError(
                "The client passed as http_client= is closed. Keep it open for as long as the "
                "model is used."
            )
        client: Any = await self._clients.get(self) or self._own
        with self._errors():
            request = client.build_request(
                method, url, content=body, headers=dict(headers), **self._options
            )
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
        """Close the connections of the running loop unless another model uses them.

        Those of a caller's own client are closed with the client or at the end of the loop.
        """
        if self._own is None:
            await self._clients.aclose(self)


def _make_client() -> httpx2.AsyncClient:
    # No cookies: models of different owners share the client.
    cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    if urllib.request.getproxies():
        # The client reads them only when it makes its transports itself. Servers on this
        # machine are not behind a proxy: it would look for them on its own.
        direct = {f"all://{host}": _Shards() for host in _LOOPBACK}
        return httpx2.AsyncClient(cookies=cookies, limits=_limits(None), mounts=direct)
    return httpx2.AsyncClient(cookies=cookies, transport=_Shards())


_CLIENTS = PerLoop[Any](_make_client, httpx2.AsyncClient.aclose)
"""The clients of all models that were not given one."""


# A caller's own client

_OWN: WeakKeyDictionary[HttpClient, PerLoop[Any]] = WeakKeyDictionary()


def _per_loop(client: HttpClient) -> PerLoop[Any]:
    """Return what stands in for a client on each loop: None for itself, where it is used first.

    Its connections belong to that loop; on any other, as `run_sync` starts one for each
    call, a copy with connections of its own is used.
    """
    if (known := _OWN.get(client)) is None:
        original, home = ref(client), list[ref[Any]]()

        def make() -> Any:
            loop = current_token().native_token
            if not home:
                home.append(ref(loop))
            return None if home[0]() is loop else _copied(original())

        async def close(copied: Any) -> None:
            await _close_connections(copied or original())

        known = _OWN.setdefault(client, PerLoop(make, close))
    return known


def _copied(client: Any) -> Any:
    """Copy a client, with the same settings, cookies and hooks, but no connections."""
    copied = copy(client)
    copied._transport = _without_connections(client._transport)
    copied._mounts = {at: _without_connections(one) for at, one in client._mounts.items()}
    return copied


def _pool_of(transport: Any) -> Any:
    """Return the pool of a transport of the library; None for one of the caller's own making."""
    pool = getattr(transport, "_pool", None)
    return pool if hasattr(pool, "connections") else None


def _without_connections(transport: Any) -> Any:
    if (pool := _pool_of(transport)) is None:
        return transport
    copied = copy(transport)
    copied._pool = pool = copy(pool)
    pool._connections, pool._requests = [], []
    return copied


async def _close_connections(client: Any) -> None:
    for transport in (client._transport, *client._mounts.values()) if client else ():
        if (pool := _pool_of(transport)) is not None:
            await pool.aclose()


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
