"""Answers as servers and proxies put them on the wire: each HTTP library reads the same."""

from __future__ import annotations

import gc
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import h11
import httpcore2
import httpx2
import pytest
from anyio.streams.tls import TLSListener

from agentkit.errors import ModelUnreachable
from agentkit.messages import UserMessage
from agentkit.models import ChatModel
from agentkit.models.chat import transport_httpcore
from agentkit.models.chat.connection import Chunks, Connection
from agentkit.models.chat.stream_asyncio import AsyncioStream
from agentkit.settings import Timeouts
from agentkit.testing import ChatServer, reply
from tests.models.support import REQUEST

pytestmark = pytest.mark.anyio

MESSAGE = {"role": "assistant", "content": "Hello"}
BODY = json.dumps({"choices": [{"message": MESSAGE, "finish_reason": "stop"}]}).encode()
DELTA = {"choices": [{"delta": {"content": "Hello"}, "finish_reason": None}]}
EVENT = b"data: %b\n\n" % json.dumps(DELTA).encode()
DONE = b"data: [DONE]\n\n"
OK = b"HTTP/1.1 200 OK\r\n"


def measured(body: bytes) -> bytes:
    """Return a response with a content length."""
    return OK + b"content-length: %d\r\n\r\n" % len(body) + body


def chunked(*pieces: bytes) -> bytes:
    """Return a response in chunks, without its last one."""
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return OK + b"transfer-encoding: chunked\r\n\r\n" + chunks


class Server:
    """Writes an answer, in pieces as long as `size`, to each request."""

    def __init__(self, answer: bytes, size: int, hang_up: bool) -> None:
        self.answer = answer
        self.size = size
        self.hang_up = hang_up
        self.connections = 0
        self.url = ""

    async def serve(self, stream: anyio.abc.ByteStream) -> None:
        self.connections += 1
        async with stream:
            with anyio.move_on_after(10):
                while await self.read(stream):
                    for start in range(0, len(self.answer), self.size):
                        await stream.send(self.answer[start : start + self.size])
                    if self.hang_up:
                        return

    async def read(self, stream: anyio.abc.ByteStream) -> bool:
        """Read one request; False at the end of the connection."""
        got = b""
        try:
            while b"\r\n\r\n" not in got or not got.endswith(b"}"):
                got += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return False
        return True


@asynccontextmanager
async def serving(
    answer: bytes, size: int = 1 << 20, hang_up: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Server, None]:
    """Run a server on a port of its own."""
    server = Server(answer, size, hang_up)
    tcp = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = tcp.extra(anyio.abc.SocketAttribute.local_port)
    listener: Any = tcp if tls is None else TLSListener(tcp, tls, standard_compatible=False)
    server.url = f"http{'s' if tls else ''}://localhost:{port}/v1"
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, server.serve)
        yield server
        group.cancel_scope.cancel()


@pytest.fixture(params=["ours", "httpx2", "aiohttp"])
async def client(request: Any, anyio_backend_name: str) -> AsyncGenerator[Any, None]:
    """What sends the requests: our own connections, httpx2, aiohttp."""
    if request.param == "httpx2":
        async with httpx2.AsyncClient() as own:
            yield own
    elif request.param == "ours":
        yield None
    else:
        pytest.importorskip("aiohttp")
        if anyio_backend_name == "trio":
            pytest.skip("aiohttp knows asyncio only")
        yield "aiohttp"


async def texts(server: Server, client: Any, stream: bool, count: int = 2) -> list[Any]:
    """Ask that often, without retries; returns the texts."""
    async with ChatModel("any", base_url=server.url, http_client=client, retries=0) as model:
        answers = [await model.request(REQUEST, stream=stream) for _ in range(count)]
    return [one.message.content for one in answers]


ENDED_BY_CLOSING = OK.replace(b"1.1", b"1.0") + b"\r\n" + BODY
KEPT: Sequence[tuple[str, bytes]] = (
    ("a length", measured(BODY)),
    ("chunks", chunked(BODY[:7], BODY[7:]) + b"0\r\n\r\n"),
    (
        "extensions and trailers",
        chunked(BODY).replace(b"\r\n{", b";a=b\r\n{") + b"0\r\nx: y\r\n\r\n",
    ),
    ("an interim answer", b"HTTP/1.1 100 Continue\r\n\r\n" + measured(BODY)),
    ("names in capitals", measured(BODY).replace(b"content-length", b"CONTENT-LENGTH")),
)


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("answer", [pytest.param(one, id=name) for name, one in KEPT])
async def test_answers_that_keep_the_connection(client: Any, answer: bytes, size: int) -> None:
    """However they are framed and cut, they are read, and the connection is used again."""
    async with serving(answer, size) as server:
        assert await texts(server, client, stream=False) == ["Hello", "Hello"]
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer", [measured(BODY).replace(OK, OK + b"connection: close\r\n"), ENDED_BY_CLOSING]
)
async def test_answers_that_end_the_connection(client: Any, answer: bytes) -> None:
    """The next request opens another."""
    async with serving(answer, hang_up=True) as server:
        assert await texts(server, client, stream=False) == ["Hello", "Hello"]
    assert server.connections == 2


async def test_a_stream_in_one_piece_and_in_bytes(client: Any) -> None:
    """Many chunks of one read are as many chunks of one read each."""
    for size in (1, 1 << 20):
        async with serving(chunked(EVENT, EVENT, DONE) + b"0\r\n\r\n", size) as server:
            assert await texts(server, client, stream=True) == ["HelloHello"] * 2
        assert server.connections == 1


@pytest.mark.parametrize("end", [b"", b"zz\r\n", b"ffff\r\nabc"])
async def test_a_stream_that_breaks_behind_its_end(client: Any, end: bytes) -> None:
    """What has come before the fault, with it in one read, counts."""
    if client == "aiohttp" and end == b"zz\r\n":
        pytest.skip("aiohttp gives up such a read as a whole")
    async with serving(chunked(EVENT, DONE) + end, hang_up=True) as server:
        assert await texts(server, client, stream=True) == ["Hello"] * 2
    assert server.connections == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 2", id="half a head"),
        pytest.param(b"\x16\x03\x01\x02\r\n\r\n", id="another protocol"),
        pytest.param(measured(BODY)[:-5], id="half a body"),
        pytest.param(chunked(BODY[:9]), id="half the chunks"),
        pytest.param(chunked(BODY[:9]) + b"zz\r\n", id="a chunk without a size"),
    ],
)
async def test_broken_answers(client: Any, answer: bytes, stream: bool) -> None:
    """They are no answers, and the connection is not used again."""
    async with serving(answer, hang_up=True) as server:
        for _ in range(2):
            with pytest.raises(ModelUnreachable):
                await texts(server, client, stream, count=1)
    assert server.connections == 2


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for localhost, with its key in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    file = tmp_path / "cert.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost".split()
    names = ["-addext", "subjectAltName=DNS:localhost"]
    key = ["-keyout", str(file), "-out", str(tmp_path / "only.pem")]
    subprocess.run([*make, *names, *key], check=True, capture_output=True)
    file.write_text(file.read_text() + (tmp_path / "only.pem").read_text())
    return file


async def test_tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate of SSL_CERT_FILE is trusted, any other is not."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    monkeypatch.setattr(transport_httpcore, "_tls", httpx2.create_ssl_context)
    async with serving(chunked(EVENT, DONE) + b"0\r\n\r\n", tls=context) as server:
        with pytest.raises(ModelUnreachable, match="certificate verify failed"):
            await texts(server, None, stream=True, count=1)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert await texts(server, None, stream=True) == ["Hello", "Hello"]
    assert server.connections == 1


async def test_more_than_is_read_at_once_and_a_server_that_reads_late(anyio_backend: Any) -> None:
    """Both sides wait for the other, and nothing is lost."""
    size = 3_000_000
    answer = BODY.replace(b"Hello", b"x" * size)
    received = 0

    async def serve(stream: anyio.abc.ByteStream) -> None:
        nonlocal received
        await anyio.sleep(0.2)  # The request fills the buffers meanwhile.
        async with stream:
            while received < size:
                received += len(await stream.receive())
            await stream.send(measured(answer))

    tcp = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = tcp.extra(anyio.abc.SocketAttribute.local_port)
    async with tcp, anyio.create_task_group() as group:
        group.start_soon(tcp.serve, serve)
        async with ChatModel("any", base_url=f"http://127.0.0.1:{port}/v1") as model:
            request = replace(REQUEST, messages=(UserMessage(content="y" * size),))
            assert len((await model.request(request)).message.text) == size
        group.cancel_scope.cancel()
    assert received > size


@pytest.mark.parametrize("what", ["read", "write"])
async def test_time_limits(what: str) -> None:
    """A server that takes nothing, or answers nothing, is waited for no longer."""
    text = "y" * (1 if what == "read" else 20_000_000)
    request = replace(REQUEST, messages=(UserMessage(content=text),))
    with socket.create_server(("127.0.0.1", 0)) as server:  # It accepts nobody.
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        timeouts = Timeouts(read=0.2, write=0.2)
        async with ChatModel("any", base_url=url, timeout=timeouts, retries=0) as model:
            with pytest.raises(ModelUnreachable, match=f"{what.title()}Timeout"):
                await model.request(request)


async def test_a_closed_connection_is_not_kept_by_its_time_limit() -> None:
    """The timer of its last read, which may be minutes away, ends with it."""
    with ChatServer([reply("a", delay=0.01)]) as server:
        async with ChatModel("any", base_url=server.base_url, timeout=Timeouts(read=600)) as model:
            await model.request(REQUEST)
    await anyio.sleep(0.01)
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is AsyncioStream]


async def test_a_cancelled_caller_sends_nothing() -> None:
    """A request costs money, so that none leaves where nobody waits for its answer."""
    with ChatServer([reply("a"), reply("b")]) as server:
        async with ChatModel("any", base_url=server.base_url) as model:
            await model.request(REQUEST)
            with anyio.CancelScope() as scope:
                scope.cancel()
                await model.request(REQUEST)
            await model.request(REQUEST)
    assert len(server.requests) == 2


HEADS: Sequence[tuple[str, bytes]] = (
    ("a length", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
    ("line feeds", b"HTTP/1.1 200 OK\ncontent-length:3 \n\nabc"),
    ("no reason", b"HTTP/1.1 200\r\ncontent-length: 3\r\n\r\nabc"),
    ("a short body", b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc"),
    ("one length twice", b"HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\n\r\nabc"),
    ("two lengths", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 2\r\n\r\nabc"),
    ("a bad length", b"HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nabc"),
    ("a long length", b"HTTP/1.1 200 OK\r\ncontent-length: 000000000000000000003\r\n\r\nabc"),
    ("no length", b"HTTP/1.1 200 OK\r\n\r\nabc"),
    ("no fields", b"HTTP/1.0 200 OK\r\n\r\nabc"),
    ("the older version", b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc"),
    ("no content", b"HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\n"),
    ("closing", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nConnection: a, CLOSE\r\n\r\nabc"),
    ("an interim answer", b"HTTP/1.1 103 \r\na: b\r\n\r\nHTTP/1.1 200 \r\n\r\nabc"),
    ("another protocol", b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n"),
    (
        "both framings",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: CHUNKED\r\n\r\n",
    ),
    ("chunks", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("trailers", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: b\r\n\r\n"),
    ("bad trailers", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\na b\r\n\r\n"),
    ("another coding", b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc"),
    ("two codings", b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\nabc"),
    ("a folded value", b"HTTP/1.1 200 OK\r\na: b\r\n \t c\r\ncontent-length: 0\r\n\r\n"),
    ("a fold first", b"HTTP/1.1 200 OK\r\n a: b\r\ncontent-length: 0\r\n\r\n"),
    ("an empty value", b"HTTP/1.1 200 OK\r\na:\r\nb: \t \r\ncontent-length: 0\r\n\r\n"),
    (
        "letters of all kinds",
        b"HTTP/1.1 200 \xc3\xa4\r\na: \xc3\xa4 \x01\r\ncontent-length: 0\r\n\r\n",
    ),
    ("latin letters", b"HTTP/1.1 200 OK\r\na: \xe4\r\ncontent-length: 0\r\n\r\n"),
    ("a space before the colon", b"HTTP/1.1 200 OK\r\na : b\r\ncontent-length: 0\r\n\r\n"),
    ("no name", b"HTTP/1.1 200 OK\r\n: b\r\ncontent-length: 0\r\n\r\n"),
    ("no colon", b"HTTP/1.1 200 OK\r\nab\r\ncontent-length: 0\r\n\r\n"),
    ("a zero byte", b"HTTP/1.1 200 OK\r\na: b\0c\r\ncontent-length: 0\r\n\r\n"),
    ("a carriage return", b"HTTP/1.1 200 OK\r\na: b\rc\r\ncontent-length: 0\r\n\r\n"),
    ("a line separator", b"HTTP/1.1 200 OK\r\na: b\xe2\x80\xa8c\r\ncontent-length: 0\r\n\r\n"),
    ("a short status", b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n"),
    ("a status of zeros", b"HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n"),
    ("small letters", b"http/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ("an empty line first", b"\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ("nothing", b""),
)


class Ready(httpcore2.AsyncNetworkStream):
    """A server's bytes, in pieces."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = [*filter(None, pieces)]

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Take it."""


@pytest.mark.parametrize("data", [pytest.param(one, id=name) for name, one in HEADS])
async def test_answers_are_read_as_h11_reads_them(data: bytes) -> None:
    """Wherever they are cut, the same comes out, and the same is refused."""
    expected = answer_of_h11(data)
    for cut in range(len(data)):
        stream = Ready([data[:cut], data[cut:]])
        assert await answer_of_us(Connection(stream)) == expected


async def answer_of_us(connection: Connection) -> Any:
    """Return status, headers, body, and whether there can be another request; or None."""
    body = b""
    with suppress(httpcore2.RemoteProtocolError):
        head = await connection.request(b"", Timeouts())
        while data := await connection.receive(Timeouts()):
            body += data
        headers = {name: text for name, text in head.headers.items() if name != "content-length"}
        return head.status, headers, body, connection.is_reusable()
    return None


async def test_what_follows_an_answer_ends_the_connection() -> None:
    """It is no answer to the next request."""
    for data in (HEADS[0][1], chunked(b"abc") + b"0\r\n\r\n"):
        connection = Connection(Ready([data + HEADS[0][1]]))
        assert (await connection.request(b"", Timeouts())).status == 200
        while await connection.receive(Timeouts()):
            pass
        assert not connection.is_reusable()


def answer_of_h11(data: bytes) -> Any:
    """Return the same of h11."""
    protocol, body = h11.Connection(h11.CLIENT), b""
    protocol.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    protocol.send(h11.EndOfMessage())
    protocol.receive_data(data)
    response: Any = None
    ended = False
    with suppress(h11.ProtocolError):
        while not isinstance(event := protocol.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif event is h11.NEED_DATA:
                protocol.receive_data(b"")
                ended = True
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                return None
        headers = {name.decode(): text_of(value) for name, value in response.headers}
        headers.pop("content-length", None)  # h11 shows one that was sent twice once.
        done = protocol.our_state is protocol.their_state is h11.DONE
        return response.status_code, headers, body, done and not ended
    return None


def text_of(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


CHUNKS: Sequence[tuple[str, bytes]] = (
    ("valid", b"3\r\nabc\r\nA ;x=1\r\n0\r\n\r\n67890\r\n000\r\n\r\n"),
    ("no line break behind one", b"3\r\nabc\r\n3\r\nabcdef\r\n0\r\n\r\n"),
    ("a sign", b"3\r\nabc\r\n+3\r\nabc\r\n0\r\n\r\n"),
    ("a prefix", b"3\r\nabc\r\n0x3\r\nabc\r\n0\r\n\r\n"),
    ("no size", b"3\r\nabc\r\n\r\n0\r\n\r\n"),
    ("a size without end", b"3\r\nabc\r\n" + b"0" * 40 + b"\r\n\r\n"),
    ("cut off", b"3\r\nabc\r\n5\r\nabc"),
)


@pytest.mark.parametrize("data", [pytest.param(one, id=name) for name, one in CHUNKS])
def test_chunks_are_read_as_h11_reads_them(data: bytes) -> None:
    """Wherever they are cut, the same body comes out, and the same is refused."""
    for first in range(len(data)):
        for second in range(first, len(data)):
            parts = [data[:first], data[first:second], data[second:]]
            chunks, protocol = Chunks(b""), h11.Connection(h11.CLIENT)
            protocol.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
            protocol.send(h11.EndOfMessage())
            protocol.receive_data(OK + b"transfer-encoding: chunked\r\n\r\n")
            assert isinstance(protocol.next_event(), h11.Response)
            assert read_by_us(chunks, parts) == read_by_h11(protocol, parts)


def read_by_us(chunks: Chunks, parts: Sequence[bytes]) -> tuple[bytes, bool]:
    """Return the body, and whether its last chunk has come."""
    body = b""
    with suppress(httpcore2.RemoteProtocolError):
        for part in filter(None, parts):
            chunks.feed(part)
            while data := chunks.take():
                body += data
    return body, chunks.ended


def read_by_h11(protocol: h11.Connection, parts: Sequence[bytes]) -> tuple[bytes, bool]:
    """Return the same of h11."""
    body = b""
    with suppress(h11.RemoteProtocolError):
        for part in filter(None, parts):
            protocol.receive_data(part)
            while isinstance(event := protocol.next_event(), h11.Data):
                body += event.data
            if isinstance(event, h11.EndOfMessage):
                return body, True
    return body, False
