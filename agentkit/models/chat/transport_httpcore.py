"""HTTP for models through httpcore2, the layer below httpx2: what a model without a client uses.

Of what `httpx2.AsyncClient` adds, a model needs what it sends by default, decompression, user
names in URLs and proxies. The first two are here; the others go through that client.
"""

from __future__ import annotations

import ssl
import time
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from functools import cache
from typing import Any, NamedTuple

import anyio
import httpcore2
import httpx2

from agentkit.models.chat.transport import IDLE_SECONDS, PerLoop, Reply, translated
from agentkit.models.chat.transport_httpx import HttpxTransport
from agentkit.settings import Timeouts

_LOOPBACK = (b"localhost", b"127.0.0.1", b"::1")
_FAILURES = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.TimeoutException,
    httpx2.HTTPError,  # of the decompression
)


class HttpcoreTransport:
    """Sends requests over connections that all models of an event loop share.

    Args:
        timeouts: In seconds. None waits for a free connection: there is no bound on them.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        wait = {"connect": timeouts.connect, "read": timeouts.read, "write": timeouts.write}
        self._extensions = {"timeout": wait}
        self._client = HttpxTransport(timeouts)
        self._last: tuple[str, _Target | None] = ("", None)

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Reply:
        """Send a request and wait for the head of its answer; see `Transport`."""
        target = self._target(url)
        connections = await _CONNECTIONS.get(self)
        if target is None or (connections.proxied and target.origin[1] not in _LOOPBACK):
            return await self._client.send(method, url, headers, body)
        connection = await connections.take(target)
        try:
            response = await connection.handle_async_request(
                httpcore2.Request(
                    method,
                    target.url,
                    headers=_encoded(headers, target.host, len(body)),
                    content=body,
                    extensions=self._extensions,
                )
            )
        except BaseException as error:  # which has closed it
            connections.give_back(target, connection)
            if isinstance(error, _FAILURES):
                raise translated(error) from error
            raise
        return _Reply(response, target, connection, connections)

    async def aclose(self) -> None:
        """Close the connections of the running loop unless another model uses them."""
        await self._client.aclose()
        await _CONNECTIONS.aclose(self)

    def _target(self, url: str) -> _Target | None:
        """Return where a URL leads; the last one is kept, because a model has but one."""
        if self._last[0] != url:
            try:
                self._last = (url, _target_of(url))
            except httpx2.InvalidURL as error:
                raise translated(error, httpx2.InvalidURL) from error
        return self._last[1]


class _Target(NamedTuple):
    """Where a request goes: the server, the host as headers name it, and the whole URL."""

    origin: tuple[bytes, bytes, int | None]
    host: bytes
    url: httpcore2.URL


def _target_of(url: str) -> _Target | None:
    """Return where a URL leads; None for one that needs more than is done here."""
    parsed = httpx2.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        return None
    origin = (parsed.raw_scheme, parsed.raw_host, parsed.port)
    whole = httpcore2.URL(scheme=origin[0], host=origin[1], port=origin[2], target=parsed.raw_path)
    return _Target(origin, parsed.netloc, whole)


@cache
def _defaults() -> dict[str, bytes]:
    """Return the headers that httpx2 sends with every request."""
    client = httpx2.AsyncClient(transport=httpx2.AsyncBaseTransport())
    return {name: value.encode() for name, value in client.headers.items()}


def _encoded(headers: Mapping[str, str], host: bytes, length: int) -> list[tuple[bytes, bytes]]:
    own = {name.lower(): value.encode() for name, value in headers.items()}
    if length:
        own["content-length"] = b"%d" % length
    return [(name.encode(), one) for name, one in ({"host": host} | _defaults() | own).items()]


# Connections


@cache
def _tls() -> ssl.SSLContext:
    """Return the shared context; making one takes longer than a request."""
    return httpx2.create_ssl_context()


class _Connections:
    """The connections of one event loop: those in use, and idle ones by server.

    A pool of httpcore2 looks at all of its connections for each request and each release, so
    that its cost grows with the square of what runs at once.
    """

    def __init__(self) -> None:
        self.proxied = bool(urllib.request.getproxies())
        self._open: set[httpcore2.AsyncHTTPConnection] = set()
        # Each with the time from which it has been idle, the latest last.
        self._idle: dict[Any, list[tuple[float, httpcore2.AsyncHTTPConnection]]] = {}

    async def take(self, target: _Target) -> httpcore2.AsyncHTTPConnection:
        """Return a connection to a server that nobody else uses."""
        await self._close_expired()
        idle = self._idle.get(target.origin)
        while idle:
            _, connection = idle.pop()
            if not connection.has_expired():  # nor has the server closed it
                return connection
            await self._close(connection)
        connection = httpcore2.AsyncHTTPConnection(
            origin=target.url.origin,
            ssl_context=_tls() if target.origin[0] == b"https" else None,
            keepalive_expiry=IDLE_SECONDS,
        )
        self._open.add(connection)
        return connection

    def give_back(self, target: _Target, connection: httpcore2.AsyncHTTPConnection) -> None:
        """Keep a connection for the next request, if it can be used again."""
        if connection in self._open and connection.is_available():
            self._idle.setdefault(target.origin, []).append((time.monotonic(), connection))
        else:
            self._open.discard(connection)

    async def _close_expired(self) -> None:
        """Close what has been idle for too long, also to servers that are asked no more."""
        since = time.monotonic() - IDLE_SECONDS
        for origin, idle in [*self._idle.items()]:
            while idle and idle[0][0] < since:
                await self._close(idle.pop(0)[1])
            if not idle:
                self._idle.pop(origin, None)

    async def _close(self, connection: httpcore2.AsyncHTTPConnection) -> None:
        self._open.discard(connection)
        with anyio.CancelScope(shield=True):
            await connection.aclose()

    async def aclose(self) -> None:
        """Close all of them."""
        self._idle.clear()
        while self._open:
            await self._open.pop().aclose()


_CONNECTIONS = PerLoop(_Connections, _Connections.aclose)
"""The connections of all models without a client of their own."""


# Answers


class _Reply:
    """An answer of which the head has come; see `Reply`."""

    def __init__(
        self,
        response: httpcore2.Response,
        target: _Target,
        connection: httpcore2.AsyncHTTPConnection,
        connections: _Connections,
    ) -> None:
        self.status = response.status
        self.headers = _decoded(response.headers)
        self._response: Any = response  # its stream is typed for code that is not async, too
        self._given_back = target, connection
        self._connections = connections

    async def read(self) -> bytes:
        """Return the whole body."""
        try:
            return b"".join([chunk async for chunk in self._body()])
        except _FAILURES as error:
            raise translated(error) from error

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives."""
        try:
            async with aclosing(self._body()) as body:
                async for chunk in body:
                    yield chunk
        except _FAILURES as error:
            raise translated(error) from error

    def _body(self) -> AsyncGenerator[bytes, None]:
        if self.headers.get("content-encoding", "identity") == "identity":
            return self._response.stream.__aiter__()
        response = self._response
        return httpx2.Response(
            self.status, headers=response.headers, stream=_Compressed(response.stream)
        ).aiter_bytes()

    async def aclose(self) -> None:
        """Give the connection back, or close it where the body was not read to its end."""
        try:
            with anyio.CancelScope(shield=True):
                await self._response.aclose()
        finally:
            self._connections.give_back(*self._given_back)


class _Compressed(httpx2.AsyncByteStream):
    """A body that httpx2 decompresses."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> Mapping[str, str]:
    decoded: dict[str, str] = {}
    for name, value in headers:
        key = name.decode("ascii").lower()
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        decoded[key] = f"{decoded[key]}, {text}" if key in decoded else text
    return decoded
