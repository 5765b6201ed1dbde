"""One HTTP/1.1 connection: requests as bytes, and answers taken apart as they come.

A model needs so little of the protocol that it is written out here: the head of an answer,
and its body by length, in chunks, or up to the end. What is accepted is what h11 accepts, of
which the tests are sure; h11 itself took half of the instructions of a request.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from typing import NamedTuple, Self, cast

import httpcore2
from anyio.lowlevel import current_token

from agentkit.models.chat.stream_asyncio import AsyncioStream
from agentkit.settings import Timeouts

_READ = 64 * 1024
_MAX_HEAD = 100 * 1024
_HEAD_END = re.compile(rb"\n\r?\n")
_STATUS = re.compile(rb"HTTP/([0-9]\.[0-9]) ([1-9][0-9]{2})(?: [^\0\r\n\f\v]*)?\r?\n")
FIELD_NAME = r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_FIELD = re.compile(rf"({FIELD_NAME}):([^\0\r\n\f\v]*)\r?\n")
_FIELDS = re.compile(rf"(?:{FIELD_NAME}:[^\0\r\n\f\v]*\r?\n)*\r?\n")
_FOLD = re.compile(r"\r?\n[ \t]+")  # A value may go on in the next line.
_LENGTH = re.compile(r"[0-9]{1,20}", re.ASCII)
_EMPTY_LINE = re.compile(rb"\r?\n")
_CHUNK_HEAD = re.compile(rb"([0-9A-Fa-f]{1,20})(?:;[^\r\n]*)?[ \t]*\r\n")
# It may be a stand-in, to type checkers.
_NETWORK = cast("httpcore2.AsyncNetworkBackend", httpcore2.AnyIOBackend())


class Head(NamedTuple):
    """The head of an answer.

    Attributes:
        status: The HTTP status.
        headers: Header values by lower-case name; those of one name in one value, with commas.
        length: Of the body in bytes; None if chunks or the end of the connection tell.
        chunked: Whether the body comes in chunks.
        kept: Whether the connection can have another request.
    """

    status: int
    headers: Mapping[str, str]
    length: int | None
    chunked: bool
    kept: bool


def parse_head(data: bytes) -> Head:
    """Take the head of an answer apart.

    Raises:
        httpcore2.RemoteProtocolError: It is none.
    """
    start = _STATUS.match(data)
    if start is None:
        raise httpcore2.RemoteProtocolError(f"illegal status line: {data[:100]!r}")
    headers = _parse_fields(data[start.end() :])
    status = int(start[2])
    chunked, length = False, None
    if status in (204, 304):
        length = 0
    elif (coding := headers.get("transfer-encoding")) is not None:
        if coding.lower() != "chunked":
            raise httpcore2.RemoteProtocolError(f"unknown Transfer-Encoding: {coding!r}")
        chunked = True
    elif (value := headers.get("content-length")) is not None:
        length = _parse_length(value)
    kept = start[1] >= b"1.1" and (chunked or length is not None)
    if (wish := headers.get("connection")) is not None:
        kept = kept and "close" not in wish.lower().replace(",", " ").split()
    return Head(status, headers, length, chunked, kept)


def _parse_fields(data: bytes) -> dict[str, str]:
    """Return header lines, up to the empty line that ends them, by lower-case name."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if "\n " in text or "\n\t" in text:
        text = _FOLD.sub(" ", text)
    if not _FIELDS.fullmatch(text):
        raise httpcore2.RemoteProtocolError(f"illegal header lines: {data[:200]!r}")
    fields: dict[str, str] = {}
    for name, value in _FIELD.findall(text):
        key, value = name.lower(), value.strip(" \t")
        fields[key] = f"{fields[key]}, {value}" if key in fields else value
    return fields


def _parse_length(value: str) -> int:
    if "," in value and len(repeated := {one.strip() for one in value.split(",")}) == 1:
        (value,) = repeated
    if not _LENGTH.fullmatch(value):
        raise httpcore2.RemoteProtocolError(f"bad Content-Length: {value!r}")
    return int(value)


class Connection:
    """A connection to a server, for one request after another.

    An answer whose body was not read to its end leaves it unusable: see `is_reusable`.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._ahead = b""  # what has come and was not taken
        self._kept = True
        self._left: int | None = 0  # of the body; None: all up to the end of the connection
        self._chunks: Chunks | None = None

    @classmethod
    async def open(
        cls, host: str, port: int, tls: ssl.SSLContext | None, timeouts: Timeouts
    ) -> Self:
        """Connect, with TLS if there is a context for it.

        Raises:
            httpcore2.NetworkError, httpcore2.TimeoutException: There is no connection.
        """
        if tls is not None:
            tls.set_alpn_protocols(["http/1.1"])
        if isinstance(current_token().native_token, asyncio.BaseEventLoop):
            return cls(await AsyncioStream.connect(host, port, tls, timeouts.connect))
        # trio; uvloop too, which tries addresses one after another
        stream = await _NETWORK.connect_tcp(host, port, timeout=timeouts.connect)
        if tls is not None:
            stream = await stream.start_tls(tls, server_hostname=host, timeout=timeouts.connect)
        return cls(stream)

    async def request(self, data: bytes, timeouts: Timeouts) -> Head:
        """Send a request in one write, and wait for the head of its answer.

        Raises:
            httpcore2.RemoteProtocolError, httpcore2.NetworkError, httpcore2.TimeoutException:
                There is none.
        """
        self._kept, usable = False, True
        try:
            await self._stream.write(data, timeout=timeouts.write)
        except httpcore2.WriteError:
            usable = False  # A server may answer before it has read everything.
        while (head := parse_head(await self._take_head(timeouts))).status < 200:
            if head.status == 101:
                raise httpcore2.RemoteProtocolError("The server switches to another protocol.")
        self._left = head.length
        self._chunks = None
        if head.chunked:
            self._chunks, self._ahead = Chunks(self._ahead), b""
        self._kept = usable and head.kept
        return head

    async def receive(self, timeouts: Timeouts) -> bytes:
        """Return what has come of the body, at least a byte; nothing at its end.

        Raises:
            httpcore2.RemoteProtocolError, httpcore2.NetworkError, httpcore2.TimeoutException:
                It breaks off.
        """
        if (chunks := self._chunks) is not None:
            while not (data := chunks.take()) and not chunks.ended:
                chunks.feed(await self._read(timeouts))
            return data
        if self._left == 0:
            return b""
        data, self._ahead = self._ahead or await self._read(timeouts), b""
        if self._left is None:
            return data
        if not data:
            raise httpcore2.RemoteProtocolError(
                "peer closed connection without sending complete message body "
                f"({self._left} bytes are missing)"
            )
        if len(data) > self._left:
            data, self._ahead = data[: self._left], data[self._left :]
        self._left -= len(data)
        return data

    async def _take_head(self, timeouts: Timeouts) -> bytes:
        """Return the next head of an answer, and nothing of the body behind it."""
        while not (end := _HEAD_END.search(self._ahead)):
            if len(self._ahead) > _MAX_HEAD or b"" < self._ahead[:1] < b"!":  # TLS begins so
                raise httpcore2.RemoteProtocolError(f"no HTTP answer: {self._ahead[:100]!r}")
            data = await self._read(timeouts)
            if not data:
                raise httpcore2.RemoteProtocolError(
                    "Server disconnected without sending a response."
                )
            self._ahead += data
        head, self._ahead = self._ahead[: end.end()], self._ahead[end.end() :]
        return head

    async def _read(self, timeouts: Timeouts) -> bytes:
        return await self._stream.read(_READ, timeout=timeouts.read)

    def is_reusable(self) -> bool:
        """Tell whether there can be another request: nothing is left of the last answer."""
        if self._chunks is not None:
            return self._kept and self._chunks.ended and not self._chunks.rest
        return self._kept and self._left == 0 and not self._ahead

    def is_closed_by_server(self) -> bool:
        """Tell whether an idle connection has something to read, which can only be its end."""
        return bool(self._stream.get_extra_info("is_readable"))

    async def aclose(self) -> None:
        """Close the socket."""
        await self._stream.aclose()


class Chunks:
    """The chunks of a body, taken apart: all that have come at once.

    Attributes:
        ended: Whether the last chunk has come, and the lines behind it.
        rest: What has come after that.
    """

    def __init__(self, data: bytes) -> None:
        self.ended = False
        self._data = data
        self._left = 0  # of the chunk that has begun, with the line break behind it
        self._last = False  # whether that of size 0 has come
        self._broken = ""

    @property
    def rest(self) -> bytes:
        """What has come behind the end."""
        return self._data

    def feed(self, data: bytes) -> None:
        """Add what has come.

        Raises:
            httpcore2.RemoteProtocolError: Nothing has: the connection has ended.
        """
        if not data:
            raise httpcore2.RemoteProtocolError(
                "peer closed connection without sending complete message body "
                "(incomplete chunked read)"
            )
        self._data += data

    def take(self) -> bytes:
        """Return what there is of the body; nothing where more has to come, or none will.

        Raises:
            httpcore2.RemoteProtocolError: What follows is no chunk.
        """
        if self._broken:
            raise httpcore2.RemoteProtocolError(self._broken)
        if self._last:
            self._take_trailers()
            return b""
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
                place = head.end()
                if not (size := int(head[1], 16)):
                    self._last = True
                    break
                left = size + 2
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
        return b"".join(pieces) or (self.take() if self._last or self._broken else b"")

    def _take_trailers(self) -> None:
        """Read over the header lines behind the last chunk, and the empty line that ends them."""
        if self.ended:
            return
        if empty := _EMPTY_LINE.match(self._data):
            end = empty.end()
        elif found := _HEAD_END.search(self._data):
            end = found.end()
            _parse_fields(self._data[:end])
        elif len(self._data) > _MAX_HEAD:
            raise httpcore2.RemoteProtocolError(f"endless trailers: {self._data[:100]!r}")
        else:
            return
        self.ended, self._data = True, self._data[end:]
