"""HTTP for models through httpx2: a caller's own client, and what needs more than connections."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from copy import copy
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
    translated,
)
from agentkit.settings import Timeouts

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
        self._misuse = (library.InvalidURL, library.UnsupportedProtocol)
        self._failures = (library.HTTPError, library.StreamError)

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Reply:
        """Send a request and wait for the head of its answer; see `Transport`."""
        if self._own is not None and self._own.is_closed:
            raise ConfigurationError(
                "The client passed as http_client= is closed. Keep it open for as long as the "
                "model is used."
            )
        client: Any = await self._clients.get(self) or self._own
        try:
            request = client.build_request(
                method, url, content=body, headers=dict(headers), **self._options
            )
            return _Reply(await client.send(request, stream=True), self._failures)
        except (*self._misuse, *self._failures) as error:
            raise translated(error, self._misuse) from error

    async def aclose(self) -> None:
        """Close the connections of the running loop unless another model uses them.

        Those of a caller's own client are closed with the client or at the end of the loop.
        """
        if self._own is None:
            await self._clients.aclose(self)


class _Reply:
    """A response of the library; see `Reply`."""

    def __init__(self, response: httpx2.Response, failures: tuple[type[Exception], ...]) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in response.headers.items()
        }
        self._response = response
        self._failures = failures

    async def read(self) -> bytes:
        """Return the whole body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives."""
        try:
            async with aclosing(self._response.aiter_bytes()) as chunks:
                async for chunk in chunks:
                    yield chunk
        except self._failures as error:
            raise translated(error) from error

    async def aclose(self) -> None:
        """Free the connection."""
        try:
            await self._response.aclose()
        except self._failures as error:
            raise translated(error) from error


def _make_client() -> httpx2.AsyncClient:
    # No cookies: models of different owners share the client. Servers on this machine are not
    # behind a proxy: it would look for them on its own.
    return httpx2.AsyncClient(
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        limits=httpx2.Limits(
            max_connections=None,
            max_keepalive_connections=None,
            keepalive_expiry=IDLE_SECONDS,
        ),
        mounts={f"all://{host}": None for host in _LOOPBACK},
    )


_CLIENTS = PerLoop[Any](_make_client, httpx2.AsyncClient.aclose)
"""Clients for what `transport_httpcore` leaves to them: proxies, user names in URLs."""


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
