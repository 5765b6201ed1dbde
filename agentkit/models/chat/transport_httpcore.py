"""HTTP for models over connections of their own: for models without a client.

Of what `httpx2.AsyncClient` adds, a model needs what it sends by default, decompression, user
names in URLs and proxies. The first two are here; the others go through that client.
"""

from __future__ import annotations

import re
import ssl
import time
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from functools import cache
from typing import Any, NamedTuple

import anyio
import httpcore2
import httpx2

from agentkit.models.chat.connection import FIELD_NAME, Connection, Head
from agentkit.models.chat.transport import IDLE_SECONDS, PerLoop, Reply, translated
from agentkit.models.chat.transport_httpx import HttpxTransport
from agentkit.settings import Timeouts

_LOOPBACK = (b"localhost", b"127.0.0.1", b"::1")
_FAILURES = (
    httpcore2.ProtocolError,
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpx2.HTTPError,  # of the decompression
)


class HttpcoreTransport:
    """Sends requests over connections that all models of an event loop share.

    Args:
        timeouts: In seconds. None waits for a free connection: there is no bound on them.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._client = HttpxTransport(timeouts)
        # Prepared for the next request, which is much like this one: a model has but one server.
        self._last: tuple[str, _Target | None] = ("", None)
        self._last_head: tuple[Any, bytes] = (None, b"")

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Reply:
        """Send a request and wait for the head of its answer; see `Transport`."""
        target = self._target(url)
        connections = await _CONNECTIONS.get(self)
        if target is None or (connections.proxied and target.origin[1] not in _LOOPBACK):
            return await self._client.send(method, url, headers, body)
        try:
            length = b"content-length: %d\r\n" % len(body) if body else b""
            data = b"".join((self._head(method, target, headers), length, b"\r\n", body))
            connection = await connections.take(target, self._timeouts)
            try:
                head = await connection.request(data, self._timeouts)
            except BaseException:
                await connections.give_back(target, connection)
                raise
        except _FAILURES as error:
            raise translated(error) from error
        return _Reply(head, connection, self._timeouts, target, connections)

    async def aclose(self) -> None:
        """Close the connections of the running loop unless another model uses them."""
        await self._client.aclose()
        await _CONNECTIONS.aclose(self)

    def _target(self, url: str) -> _Target | None:
        """Return where a URL leads; the last one is kept, because a model has but one."""
        last = self._last  # read once: other threads may send requests, too
        if last[0] != url:
            try:
                last = self._last = (url, _target_of(url))
            except httpx2.InvalidURL as error:
                raise translated(error, httpx2.InvalidURL) from error
        return last[1]

    def _head(self, method: str, target: _Target, headers: Mapping[str, str]) -> bytes:
        """Return the head of a request but for the length of its body; the last one is kept."""
        last, key = self._last_head, (method, target, dict(headers))
        if last[0] != key:
            last = self._last_head = key, _head_of(*key)
        return last[1]


class _Target(NamedTuple):
    """Where a request goes: the server, the host as headers name it, path and query."""

    origin: tuple[bytes, bytes, int]
    host: bytes
    path: bytes


def _target_of(url: str) -> _Target | None:
    """Return where a URL leads; None for one that needs more than is done here."""
    parsed = httpx2.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        return None
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    return _Target((parsed.raw_scheme, parsed.raw_host, port), parsed.netloc, parsed.raw_path)


@cache
def _defaults() -> dict[str, bytes]:
    """Return the headers that httpx2 sends with every request."""
    client = httpx2.AsyncClient(transport=httpx2.AsyncBaseTransport())
    return {name: value.encode() for name, value in client.headers.items()}


def _head_of(method: str, target: _Target, headers: Mapping[str, str]) -> bytes:
    own = {name.lower(): value.strip().encode() for name, value in headers.items()}
    fields = {"host": target.host} | _defaults() | own
    for name in ("content-length", "transfer-encoding"):  # Bodies have but one form here.
        fields.pop(name, None)
    lines = [b"%b %b HTTP/1.1" % (method.encode(), target.path)]
    for name, value in fields.items():
        if not re.fullmatch(FIELD_NAME, name):
            raise httpcore2.LocalProtocolError(f"Illegal header name {name!r}")
        lines.append(b"%b: %b" % (name.encode(), value))
    return b"\r\n".join([*lines, b""])


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
        self._open: set[Connection] = set()
        # Each with the time from which it has been idle, the latest last.
        self._idle: dict[Any, list[tuple[float, Connection]]] = {}

    async def take(self, target: _Target, timeouts: Timeouts) -> Connection:
        """Return a connection to a server that nobody else uses; open it if there is none."""
        await self._close_expired()
        idle = self._idle.get(target.origin)
        while idle:
            _, connection = idle.pop()
            if not connection.is_closed_by_server():
                return connection
            await self._close(connection)
        scheme, host, port = target.origin
        tls = _tls() if scheme == b"https" else None
        connection = await Connection.open(host.decode("ascii"), port, tls, timeouts)
        self._open.add(connection)
        return connection

    async def give_back(self, target: _Target, connection: Connection) -> None:
        """Keep a connection for the next request, or close it if it cannot have one."""
        if connection in self._open and connection.is_reusable():
            self._idle.setdefault(target.origin, []).append((time.monotonic(), connection))
        else:
            await self._close(connection)

    async def _close_expired(self) -> None:
        """Close what has been idle for too long, also to servers that are asked no more."""
        since = time.monotonic() - IDLE_SECONDS
        for origin, idle in [*self._idle.items()]:
            while idle and idle[0][0] < since:
                await self._close(idle.pop(0)[1])
            if not idle:
                self._idle.pop(origin, None)

    async def _close(self, connection: Connection) -> None:
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
        head: Head,
        connection: Connection,
        timeouts: Timeouts,
        target: _Target,
        connections: _Connections,
    ) -> None:
        self.status = head.status
        self.headers = head.headers
        self._connection = connection
        self._timeouts = timeouts
        self._target = target
        self._connections = connections

    async def read(self) -> bytes:
        """Return the whole body."""
        pieces: list[bytes] = []
        try:
            while piece := await self._connection.receive(self._timeouts):
                pieces.append(piece)
            body = b"".join(pieces)
            return body if self._is_plain() else self._decompressed(body).content
        except _FAILURES as error:
            raise translated(error) from error

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives."""
        try:
            if self._is_plain():
                while piece := await self._connection.receive(self._timeouts):
                    yield piece
                return
            async with aclosing(self._decompressed(self._pieces()).aiter_bytes()) as body:
                async for piece in body:
                    yield piece
        except _FAILURES as error:
            raise translated(error) from error

    def _is_plain(self) -> bool:
        return self.headers.get("content-encoding", "identity") == "identity"

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        while piece := await self._connection.receive(self._timeouts):
            yield piece

    def _decompressed(self, body: bytes | AsyncIterator[bytes]) -> httpx2.Response:
        return httpx2.Response(self.status, headers=self.headers, content=body)

    async def aclose(self) -> None:
        """Give the connection back, or close it where the body was not read to its end."""
        await self._connections.give_back(self._target, self._connection)
