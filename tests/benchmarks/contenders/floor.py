"""The floor: the requests of the hand-written loop as ready bytes over a bare socket.

Nothing is encoded, decoded, validated or called, so no client on asyncio can cost less;
how many answers it gets in a second is what the fake server can give.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from tests.benchmarks.contenders.hand import HEADERS, Hand, Httpx
from tests.benchmarks.worker import serve


class Socket(asyncio.Protocol):
    """A connection that knows where an answer ends."""

    done: asyncio.Future[bytes]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """Send a request; the future is its answer."""
        self.pieces: list[bytes] = []
        self.missing = -1
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.done

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        if self.missing < 0:
            head, _, rest = data.partition(b"\r\n\r\n")
            _, _, length = head.partition(b"content-length: ")
            if not length:
                self.missing = 1 << 60  # chunked: its end is a chunk of nothing
            else:
                self.missing = int(length) - len(rest)
        else:
            self.missing -= len(data)
        if self.missing <= 0 or (self.missing > 1 << 50 and data.endswith(b"\r\n0\r\n\r\n")):
            self.done.set_result(b"".join(self.pieces))


class Recording(Httpx):
    """httpx2, keeping the bodies that are sent."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[bytes] = []

    async def post(self, url: str, body: bytes) -> tuple[int, bytes]:
        self.bodies.append(body)
        return await super().post(url, body)

    def lines(self, url: str, body: bytes) -> Any:
        self.bodies.append(body)
        return super().lines(url, body)


class Floor:
    """Sends what the hand-written loop has sent."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.known: dict[Any, tuple[list[bytes], Any]] = {}
        self.free: list[Socket] = []

    async def play(self, scenario: str, tools: Any, output: Any, stream: bool) -> tuple[int, Any]:
        """Send the requests of a run, one after the other."""
        key = scenario.partition("@")[0], stream
        if key not in self.known:
            http = Recording()
            hand = Hand(self.url, http)
            if stream:
                result = await hand.stream(key[0], tools, output)
            else:
                result = 0, await hand.run(key[0], tools, output)
            await hand.close()
            self.known[key] = http.bodies, result
        bodies, result = self.known[key]
        place = urlsplit(self.url)
        head = f"POST /{scenario}/v1/chat/completions HTTP/1.1\r\nhost: {place.netloc}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        if self.free:
            socket = self.free.pop()
        else:
            loop = asyncio.get_running_loop()
            _, socket = await loop.create_connection(Socket, place.hostname, place.port)
        for body in bodies:
            await socket.ask(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.free.append(socket)
        return result

    async def close(self) -> None:
        for socket in self.free:
            socket.transport.close()

    async def run(
        self, scenario: str, tools: Sequence[Callable[..., Any]] = (), output: Any = None
    ) -> Any:
        if scenario in ("nap", "block"):
            raise NotImplementedError
        return (await self.play(scenario, tools, output, False))[1]

    async def stream(
        self, scenario: str, tools: Sequence[Callable[..., Any]] = (), output: Any = None
    ) -> tuple[int, Any]:
        return await self.play(scenario, tools, output, True)


if __name__ == "__main__":
    serve(Floor)
