"""The fake server: answers from prepared bytes, in a process of its own.

    python -m tests.benchmarks.server

It prints its port and ends with its standard input. It reads of a request only its
path, its length and how many answers the conversation holds already, so that it costs a
fraction of any client. Another path than that of chat completions is not found. `GET /cpu`
returns the seconds of CPU it has used, `GET /bodies` the bodies it has got since the
last time.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from tests.benchmarks.scenarios import scenarios


def response(body: bytes, kind: str = "application/json") -> bytes:
    """Return a response of a known length."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def streamed(events: list[bytes]) -> bytes:
    """Return a chunked response with one chunk an event."""
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    chunks = (b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    return head + b"".join(chunks) + b"0\r\n\r\n"


ANSWERS = {
    name: [response(one) if isinstance(one, bytes) else streamed(one) for one in steps]
    for name, steps in scenarios().items()
}
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
BODIES: list[str] = []


class Connection(asyncio.Protocol):
    """One connection: reads a request, writes the prepared answer."""

    keep = False
    """Whether the bodies of requests are kept, from the first time they are asked for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""
        self.head = b""
        self.needed = 0

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.head:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self.head, self.buffer = self.buffer[:end], self.buffer[end + 4 :]
            at = self.head.lower().find(b"\r\ncontent-length:")
            length = self.head[at + 17 :].split(b"\r\n", 1)[0] if at >= 0 else b"0"
            self.needed = int(length)
        if len(self.buffer) >= self.needed:
            head, body = self.head, self.buffer[: self.needed]
            self.head, self.buffer = b"", self.buffer[self.needed :]
            self.answer(head.split(b" ", 2)[1].decode(), body)

    def answer(self, path: str, body: bytes) -> None:
        """Write what follows in the conversation."""
        name, _, delay = path.split("/", 2)[1].partition("@")
        if name == "cpu":
            self.transport.write(response(b"%f" % time.process_time()))
        elif name == "bodies":
            type(self).keep = True
            self.transport.write(response(json.dumps(BODIES).encode()))
            BODIES.clear()
        elif not path.endswith("/chat/completions"):
            self.transport.write(NOT_FOUND)
        else:
            if self.keep:
                BODIES.append(body.decode())
            answers = ANSWERS[name]
            found = answers[min(body.count(b'"assistant"'), len(answers) - 1)]
            if delay:
                asyncio.get_running_loop().call_later(
                    float(delay) / 1e3, self.transport.write, found
                )
            else:
                self.transport.write(found)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
