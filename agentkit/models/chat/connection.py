"""One HTTP/1.1 connection: h11 speaks the protocol, httpcore2 opens sockets and times them.

The connections of httpcore2 are these two and an async generator, two context managers and a
lock around each of their events, which took as long as the protocol itself. For the same reason
the chunks of a body are taken apart here: h11 sees what is before them, and the last one.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from typing import Self, cast

import h11
import httpcore2

from agentkit.settings import Timeouts

Headers = list[tuple[bytes, bytes]]

_READ = 64 * 1024
_MAX_HEAD = 100 * 1024
_HEAD_END = re.compile(rb"\n\r?\n")
_CHUNK_HEAD = re.compile(rb"([0-9A-Fa-f]{1,20})(?:;[^\r\n]*)?[ \t]*\r\n")
# It may be a stand-in, to type checkers.
_NETWORK = cast("httpcore2.AsyncNetworkBackend", httpcore2.AnyIOBackend())


class Connection:
    """A connection to a server, for one request after another.

    An answer whose body was not read to its end leaves it unusable: see `recycle`.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        self._ahead = b""  # what has come and h11 has not seen
        self._chunks: Chunks | None = None

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
                if event.status_code not in (204, 304) and _is_chunked(event.headers):
                    self._chunks = Chunks(self._ahead)
                elif self._ahead:
                    self._protocol.receive_data(self._ahead)
                self._ahead = b""
                return event
            if event is h11.NEED_DATA:
                await self._receive_head(timeouts)

    async def body(self, timeouts: Timeouts) -> AsyncGenerator[bytes, None]:
        """Yield the body of the answer: what has come with each read, in one piece.

        Raises:
            h11.ProtocolError, httpcore2.NetworkError, httpcore2.TimeoutException: It breaks off.
        """
        while (chunks := self._chunks) is not None:
            if data := chunks.take():
                yield data
            elif chunks.last is None:
                chunks.feed(await self._read(timeouts))
            else:
                self._protocol.receive_data(chunks.last)
                self._chunks = None
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
            self._protocol.receive_data(await self._read(timeouts))

    async def _receive_head(self, timeouts: Timeouts) -> None:
        """Give h11 the next head of an answer, and nothing of the body behind it."""
        while not (end := _HEAD_END.search(self._ahead)) and len(self._ahead) <= _MAX_HEAD:
            data = await self._read(timeouts)
            if not data:
                # h11 would say that it cannot handle ConnectionClosed in this state.
                raise h11.RemoteProtocolError("Server disconnected without sending a response.")
            self._ahead += data
        place = end.end() if end else len(self._ahead)
        self._protocol.receive_data(self._ahead[:place])
        self._ahead = self._ahead[place:]

    async def _read(self, timeouts: Timeouts) -> bytes:
        return await self._stream.read(_READ, timeout=timeouts.read)

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


def _is_chunked(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"transfer-encoding" for name, _ in headers)  # h11 takes no other


class Chunks:
    """The chunks of a body, taken apart: all that have come at once.

    Attributes:
        last: The last chunk and what follows it, which belongs to h11; None before it has come.
    """

    def __init__(self, data: bytes) -> None:
        self.last: bytes | None = None
        self._data = data
        self._left = 0  # of the chunk that has begun, with the line break behind it
        self._broken = ""

    def feed(self, data: bytes) -> None:
        """Add what has come.

        Raises:
            h11.RemoteProtocolError: Nothing has: the connection has ended.
        """
        if not data:
            raise h11.RemoteProtocolError(
                "peer closed connection without sending complete message body "
                "(incomplete chunked read)"
            )
        self._data += data

    def take(self) -> bytes:
        """Return what there is of the body; nothing where more has to come, or none will.

        Raises:
            h11.RemoteProtocolError: What follows is no chunk.
        """
        if self._broken:
            raise h11.RemoteProtocolError(self._broken)
        data, place, left = self._data, 0, self._left
        pieces: list[bytes] = []
        while True:
            if not left:
                head = _CHUNK_HEAD.match(data, place)
                if head is None:
                    rest = data[place : place + _MAX_HEAD]
                    if b"\r\n" in rest or len(rest) == _MAX_HEAD:
                        self._broken = f"illegal chunk header: {rest[:100]!r}"
                    break
                if not (size := int(head[1], 16)):
                    self.last, place = data[place:], len(data)
                    break
                place, left = head.end(), size + 2
            end = place + left
            if end > len(data):
                there = max(place, min(end - 2, len(data)))
                pieces.append(data[place:there])
                place, left = there, end - there
                break
            pieces.append(data[place : end - 2])
            if data[end - 2 : end] != b"\r\n":
                self._broken = f"malformed chunk footer: {data[end - 2 : end]!r}"
                break
            place, left = end, 0
        self._data, self._left = data[place:], left
        return b"".join(pieces)
