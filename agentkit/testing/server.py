"""A real chat-completions server on loopback that follows a script.

It is not a mock: requests cross a socket, connections are kept alive, streams
arrive in packets and can break off. The server runs its own event loop in its own
thread, so that a test may be sync, on asyncio or on trio.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from types import TracebackType
from typing import Any, Self, cast

from agentkit.errors import AgentKitError, ConfigurationError, safe_repr
from agentkit.testing.replies import (
    ChatReply,
    Hold,
    Reply,
    ServerRequest,
    WireReply,
    raw,
    render,
)

STOP_SECONDS = 5.0
"""Longest wait at the end of the `with` for a callable of the script that blocks."""
RESET_SECONDS = 0.05
"""How long a client has to read what comes before a reset."""
HEAD_LIMIT = 1 << 20
"""Longest request head or chunk size line in bytes; bodies have no limit."""
TLS_HANDSHAKE = b"\x16"
"""First byte that a client sends to a server of https://; it would wait for the answer."""
BACKLOG = 1024
"""Connections that may wait to be accepted: tests open hundreds at once."""


_RUNNING: set[str] = set()


def is_running(url: str) -> bool:
    """Tell whether a URL is that of a ChatServer of this process."""
    return url.startswith(tuple(f"{one}/" for one in _RUNNING))


class ChatServer:
    """A server that follows a script of replies, over HTTP/1.1.

    Requests are answered in order of arrival, each by the next reply. A request past
    the end is answered with status 500, and the end of the `with` then raises, or
    adds a note to an exception that is already propagating. It never waits for a
    reply that hangs.

        with ChatServer([reply("Hello"), raw(503)]) as server:
            model = ChatModel("any", base_url=server.base_url, api_key="none")

    Args:
        replies: The script, or one callable that answers every request.
        strict: Raise at the end of the `with` for requests without a reply.

    Raises:
        ConfigurationError: A list has an item that is no reply.
    """

    def __init__(
        self,
        replies: Iterable[Reply] | Callable[[ServerRequest], ChatReply | WireReply],
        *,
        strict: bool = True,
    ) -> None:
        _check_script(replies)
        self._script: Iterator[Reply] = repeat(replies) if callable(replies) else iter(replies)
        self._strict = strict
        self._requests: list[ServerRequest] = []
        self._problems: list[Exception] = []
        self._connections: set[_Connection] = set()
        self._accepted = 0
        self._port: int | None = None
        self._thread: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT/v1`.

        Raises:
            AgentKitError: The server is not running: it runs within its `with`.
        """
        if self._port is None:
            raise AgentKitError("The ChatServer is not running: use it in a `with` statement.")
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def requests(self) -> tuple[ServerRequest, ...]:
        """The requests so far, in order of arrival."""
        return tuple(self._requests)

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._connections)

    def release(self) -> None:
        """Release every reply that waits at `HOLD`, now or later."""
        self._loop.call_soon_threadsafe(self._released.set)

    def __enter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        # asyncio sets this only for sockets with TCP's protocol number, which this has not:
        # the body of an answer would wait 40 ms for the acknowledgement of its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._released = asyncio.Event()
        self._stopping = asyncio.Event()
        # Daemon, so that a callable that blocks forever does not keep the process alive.
        self._thread = threading.Thread(
            target=self._run, args=(listener,), name=f"ChatServer:{self._port}", daemon=True
        )
        self._thread.start()
        _RUNNING.add(self.base_url)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._thread is not None
        _RUNNING.discard(self.base_url)
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            self._problems.append(
                AgentKitError(
                    f"The ChatServer did not stop within {STOP_SECONDS:g} seconds: a callable "
                    "of its script blocks. Use delay=HOLD to keep a client waiting."
                )
            )
        if not (self._strict and self._problems):
            return
        if error is None:
            raise self._problems[0]
        for problem in self._problems:
            error.add_note(f"ChatServer: {problem}")

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _run(self, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen(listener))

    async def _listen(self, listener: socket.socket) -> None:
        server = await self._loop.create_server(lambda: _Connection(self), sock=listener)
        await self._stopping.wait()
        server.close()
        for connection in tuple(self._connections):
            connection.abort()

    def opened(self, connection: _Connection) -> int:
        """Register a connection and return its number."""
        self._connections.add(connection)
        self._accepted += 1
        return self._accepted - 1

    def closed(self, connection: _Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)

    def answer(
        self, connection: int, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> WireReply:
        """Record a request and find its reply."""
        path, _, query = target.partition("?")
        request = ServerRequest(
            index=len(self._requests),
            connection=connection,
            method=method,
            path=path,
            query=query,
            headers=headers,
            raw=body,
            json=_parsed(body),
        )
        self._requests.append(request)
        try:
            item = next(self._script, None)
            if item is None:
                raise AgentKitError(
                    f"The script has ended: there is no reply for request {request.index} "
                    f"({method} {target})."
                )
            if callable(item):
                item = _checked(item(request), "What a function of the ChatServer's script returns")
            return render(_checked(item, "An item of the ChatServer's script"), request)
        except Exception as error:
            self.problem(error)
            failure = {"message": f"{type(error).__name__}: {error}", "type": "chat_server_script"}
            # OpenAI's server sends this header when another attempt would not help.
            return raw(500, {"error": failure}, {"x-should-retry": "false"})

    def problem(self, error: Exception) -> None:
        """Keep an error to raise at the end of the `with`."""
        self._problems.append(error)

    async def wait(self, delay: float | Hold) -> None:
        """Sleep for `delay` seconds, or until `release`."""
        if isinstance(delay, Hold):
            await self._released.wait()
        elif delay:
            await asyncio.sleep(delay)


class _Connection(asyncio.Protocol):
    """One connection: reads requests, writes replies, ends when the client hangs up."""

    def __init__(self, server: ChatServer) -> None:
        self._server = server
        self._reader = asyncio.StreamReader(limit=HEAD_LIMIT)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._number = self._server.opened(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._reader.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        # Also at the client's EOF: a client that has stopped sending is gone, half-open or not.
        self._reader.feed_eof()
        self._server.closed(self)
        self._task.cancel()

    def abort(self) -> None:
        """Close at once, whatever the state."""
        self._task.cancel()
        self._transport.abort()

    async def _serve(self) -> None:
        try:
            while await self._exchange():
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # The client hung up.
        except ValueError as error:
            self._server.problem(AgentKitError(f"A request is not HTTP/1.1: {error}"))
        finally:
            self._transport.close()

    async def _exchange(self) -> bool:
        """Answer one request, and return whether the connection stays open."""
        first = await self._reader.readexactly(1)
        if first == TLS_HANDSHAKE:
            raise ValueError("it begins a TLS handshake; the server's URLs begin with http://")
        head = (first + await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        start, *lines = head.rstrip().split("\r\n")
        method, target, _ = start.split(" ")
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        body = await self._body(headers)
        wire = self._server.answer(self._number, method, target, headers, body)
        await self._server.wait(wire.delay)
        if wire.status is None:
            return False
        await self._write(wire)
        if wire.reset:
            await asyncio.sleep(RESET_SECONDS)  # a reset overtakes what was sent before it
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
            self._transport.abort()
            return False
        return not wire.close_early and "close" not in (
            headers.get("connection"),
            wire.headers.get("connection"),
        )

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await self._reader.readexactly(int(headers.get("content-length", 0)))
        body = b""
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readuntil(b"\r\n")
        return body

    async def _write(self, wire: WireReply) -> None:
        length = wire.length
        if length is None:
            length = sum(len(packet) for packet in wire.packets if isinstance(packet, bytes))
        framing = "transfer-encoding: chunked" if wire.chunked else f"content-length: {length}"
        lines = [f"HTTP/1.1 {wire.status} Scripted", framing]
        lines += [f"{name}: {value}" for name, value in wire.headers.items()]
        self._transport.write("\r\n".join([*lines, "\r\n"]).encode())
        for index, packet in enumerate(wire.packets):
            if isinstance(packet, Hold):
                await self._server.wait(packet)
                continue
            if index:
                await asyncio.sleep(wire.pause)  # At 0 it still lets other connections proceed.
            framed = b"%x\r\n%b\r\n" % (len(packet), packet) if wire.chunked else packet
            self._transport.write(framed)  # asyncio sets TCP_NODELAY: a packet of its own.
        if wire.chunked and not wire.close_early:
            self._transport.write(b"0\r\n\r\n")


def _check_script(replies: Any) -> None:
    if isinstance(replies, (str, ChatReply, WireReply)):
        raise ConfigurationError(
            f"ChatServer({safe_repr(replies)}): the script is a list of replies, or one function "
            "that answers every request."
        )
    if isinstance(replies, (list, tuple)):
        for index, item in enumerate(cast("Sequence[object]", replies)):
            if not callable(item):
                _checked(item, f"Item {index} of the ChatServer's script")


def _checked(item: Any, what: str) -> ChatReply | WireReply:
    if isinstance(item, (ChatReply, WireReply)):
        return item
    hint = f" For a text, write reply({item!r})." if isinstance(item, str) else ""
    raise ConfigurationError(
        f"{what} is {safe_repr(item)}: expected reply(…), raw(…), sse(…), drop(…), or a function "
        f"of the request that returns one.{hint}"
    )


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
