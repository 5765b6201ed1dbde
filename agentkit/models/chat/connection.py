"""One HTTP/1.1 connection: h11 speaks the protocol, httpcore2 opens sockets and times them.

The connections of httpcore2 are these two and an async generator, two context managers and a
lock around each of their events, which took as long as the protocol itself.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Self, cast

import h11
import httpcore2

from agentkit.settings import Timeouts

Headers = list[tuple[bytes, bytes]]

_READ = 64 * 1024
_MAX_HEAD = 100 * 1024
# It may be a stand-in, to type checkers.
_NETWORK = cast("httpcore2.AsyncNetworkBackend", httpcore2.AnyIOBackend())


class Connection:
    """A connection to a server, for one request after another.

    An answer whose body was not read to its end leaves it unusable: see `recycle`.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)

    @classmethod
    async def open(
        cls, host: str, port: int, tls: ssl.SSLContext | None, timeouts: Timeouts
    ) -> Self:
        """Connect, with TLS if there is a context for it.

        Raises:
            httpcore2.NetworkError, httpcore2.TimeoutException: There is no connection.
        """
        stream = await _NETWORK.connect_tcp(host, port, timeout=timeouts.connect)
        if tls is not None:
            tls.set_alpn_protocols(["http/1.1"])
            stream = await stream.start_tls(tls, server_hostname=host, timeout=timeouts.connect)
        return cls(stream)

    async def request(
        self, method: str, target: bytes, headers: Headers, body: bytes, timeouts: Timeouts
    ) -> h11.Response:
        """Send a request in one write, and wait for the head of its answer.

        Raises:
            h11.ProtocolError, httpcore2.NetworkError, httpcore2.TimeoutException: There is none.
        """
        send = self._protocol.send_with_data_passthrough
        events = [h11.Request(method=method, target=target, headers=headers)]
        events += [h11.Data(data=body), h11.EndOfMessage()] if body else [h11.EndOfMessage()]
        data = b"".join([piece for event in events for piece in send(event) or ()])
        with suppress(httpcore2.WriteError):  # A server may answer before it has read everything.
            await self._stream.write(data, timeout=timeouts.write)
        while True:
            event = self._protocol.next_event()
            if isinstance(event, h11.Response):
                return event
            if event is h11.NEED_DATA:
                await self._receive(timeouts)

    async def body(self, timeouts: Timeouts) -> AsyncGenerator[bytes, None]:
        """Yield the body of the answer: what has come with each read, in one piece.

        Raises:
            h11.ProtocolError, httpcore2.NetworkError, httpcore2.TimeoutException: It breaks off.
        """
        pieces: list[bytes] = []
        while True:
            try:
                event = self._protocol.next_event()
            except h11.RemoteProtocolError:
                if pieces:
                    yield b"".join(pieces)
                raise
            if isinstance(event, h11.Data):
                pieces.append(event.data)
                continue
            if pieces:
                yield b"".join(pieces)
                pieces = []
            if event is not h11.NEED_DATA:
                return
            await self._receive(timeouts)

    async def _receive(self, timeouts: Timeouts) -> None:
        data = await self._stream.read(_READ, timeout=timeouts.read)
        if not data and self._protocol.their_state is h11.SEND_RESPONSE:
            # h11 would say that it cannot handle ConnectionClosed in this state.
            raise h11.RemoteProtocolError("Server disconnected without sending a response.")
        self._protocol.receive_data(data)

    def recycle(self) -> bool:
        """Prepare for the next request; False if there cannot be one."""
        if self._protocol.our_state is self._protocol.their_state is h11.DONE:
            self._protocol.start_next_cycle()
            return True
        return False

    def is_closed_by_server(self) -> bool:
        """Tell whether an idle connection has something to read, which can only be its end."""
        return bool(self._stream.get_extra_info("is_readable"))

    async def aclose(self) -> None:
        """Close the socket."""
        await self._stream.aclose()
