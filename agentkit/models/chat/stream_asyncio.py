"""A network stream straight on asyncio's transports.

The streams of anyio, which serve every other loop, take a cancel scope for each time limit and
several turns of the loop for each write: a third of what a request took.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import select
import socket
import ssl
from typing import Any, Self

import anyio
import httpcore2
from anyio.lowlevel import checkpoint_if_cancelled

_ENOUGH = 256 * 1024
"""Bytes that nobody has read, from which on no more are taken from the socket."""


class AsyncioStream(httpcore2.AsyncNetworkStream, asyncio.Protocol):
    """A connection, read and written by one task at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: Any = None  # an asyncio.Transport, from connection_made on
        self._data = b""
        self._ended = False
        self._error: Exception | None = None
        self._lost = loop.create_future()
        self._reading = self._writing = True
        self._waiter: asyncio.Future[bool] | None = None
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def connect(
        cls, host: str, port: int, tls: ssl.SSLContext | None, seconds: float | None
    ) -> Self:
        """Connect, with TLS if there is a context for it.

        Raises:
            httpcore2.ConnectError, httpcore2.ConnectTimeout: There is no connection.
        """
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {}
        if not _is_address(host):  # a name may have several, and the race takes tasks
            options["happy_eyeballs_delay"] = 0.25
        if tls is not None:  # asyncio has a limit of its own for the handshake, of a minute
            options |= {"ssl": tls, "ssl_handshake_timeout": seconds or math.inf}
        try:
            with anyio.fail_after(seconds):
                _, stream = await loop.create_connection(lambda: cls(loop), host, port, **options)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(*error.args) from error
        except OSError as error:  # of TLS, too
            raise httpcore2.ConnectError(str(error)) from error
        return stream

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._transport.set_write_buffer_limits(0)  # What is written has left.

    def data_received(self, data: bytes) -> None:
        """Keep what has come for the reader."""
        self._data = self._data + data if self._data else data
        if len(self._data) >= _ENOUGH:
            self._transport.pause_reading()
            self._reading = False
        self._wake()

    def eof_received(self) -> None:
        """Tell the reader that nothing more comes; the transport closes itself."""
        self._ended = True
        self._wake()

    def pause_writing(self) -> None:
        """Let writers wait."""
        self._writing = False

    def resume_writing(self) -> None:
        """Let a waiting writer go on."""
        self._writing = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all that waits."""
        self._ended, self._error = True, exc
        self._wake()
        if self._timer is not None:
            self._timer.cancel()
        if not self._lost.done():
            self._lost.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    # What a connection calls

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has come, at least a byte; nothing at the end.

        Raises:
            httpcore2.ReadError, httpcore2.ReadTimeout: The connection breaks; nothing comes.
        """
        while not self._data and not self._ended:
            if not await self._wait(timeout):
                raise httpcore2.ReadTimeout
        if not self._data and self._error is not None:
            raise httpcore2.ReadError(str(self._error)) from self._error
        data, self._data = self._data[:max_bytes], self._data[max_bytes:]
        if not self._reading and len(self._data) < _ENOUGH:
            self._transport.resume_reading()
            self._reading = True
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it, unless the caller is cancelled already.

        Raises:
            httpcore2.WriteError, httpcore2.WriteTimeout: The server does not take it.
        """
        await checkpoint_if_cancelled()
        if not self._ended:
            self._transport.write(buffer)
        while not self._writing and not self._ended:
            if not await self._wait(timeout):
                raise httpcore2.WriteTimeout
        if self._ended:
            raise httpcore2.WriteError(str(self._error or "the server has closed the connection"))

    async def _wait(self, seconds: float | None) -> bool:
        """Wait for the transport to call; False if it does not in time."""
        waiter = self._waiter = self._loop.create_future()
        self._deadline = math.inf if seconds is None else self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._deadline:
            self._set_timer()
        try:
            return await waiter
        finally:
            self._waiter = None

    def _set_timer(self) -> None:
        """Set the one timer, which stays for later reads: one for each costs more than a read."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._deadline < math.inf:
            self._timer = self._loop.call_at(self._deadline, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if self._loop.time() < self._deadline:
            self._set_timer()
        else:
            self._waiter.set_result(False)

    def get_extra_info(self, info: str) -> Any:
        """Return whether there is something to read, for `is_readable`."""
        if info != "is_readable":
            return None
        # Asking the socket too: the loop may not have had a turn since the server closed it.
        return bool(self._data) or self._ended or _is_readable(self._socket)

    async def aclose(self) -> None:
        """Close the socket."""
        self._transport.abort()
        await self._lost


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_readable(one: socket.socket) -> bool:
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([one], [], [], 0)[0])
    poll = select.poll()
    poll.register(one, select.POLLIN)
    return bool(poll.poll(0))
