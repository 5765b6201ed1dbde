"""ChatServer: the script decides every byte on the wire."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import anyio
import httpx2
import pytest

from agentkit.errors import AgentKitError, ConfigurationError
from agentkit.messages import Usage
from agentkit.testing import HOLD, ChatServer, ServerRequest, drop, raw, reply, sse
from tests.support import sized

pytestmark = pytest.mark.anyio

QUESTION = {"model": "any", "messages": [{"role": "user", "content": "Hi"}]}


def post(server: ChatServer, **more: Any) -> httpx2.Response:
    return httpx2.post(f"{server.base_url}/chat/completions", json=QUESTION | more, timeout=60)


def events(response: httpx2.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_a_reply_is_a_chat_completion() -> None:
    """A text is sent as one complete chat completion."""
    with ChatServer([reply("Hello there")]) as server:
        response = post(server)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "any",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there"},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


def test_call_ids_name_request_and_index() -> None:
    """The ids of tool calls contain the index of the request and of the call."""
    calls = [("get_weather", {"city": "Zürich"}), ("now", "")]
    with ChatServer([reply("x"), reply(calls=calls)]) as server:
        post(server)
        [choice] = post(server).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {
            "id": "call_1_0",
            "type": "function",
            "function": {"name": "get_weather", "arguments": '{"city":"Zürich"}'},
        },
        {"id": "call_1_1", "type": "function", "function": {"name": "now", "arguments": ""}},
    ]


def test_a_reply_is_streamed_on_request() -> None:
    """The same reply is sent as a stream of chunks if the request asks for one."""
    script = [reply("Hello there.", calls=[("now", '{"zone":1}')], finish="length")]
    with ChatServer(script) as server:
        response = post(server, stream=True)
    assert response.headers["content-type"] == "text/event-stream"
    chunks = events(response)
    assert {(chunk["id"], chunk["object"]) for chunk in chunks} == {
        ("chatcmpl-0", "chat.completion.chunk")
    }
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "Hello"},
        {"content": " there."},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_0_0",
                    "type": "function",
                    "function": {"name": "now", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"zon'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": 'e":1}'}}]},
        {},
    ]
    finishes = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert finishes == [None] * 6 + ["length"]


def test_usage_in_a_stream_is_sent_only_on_request() -> None:
    """With include_usage a last chunk without choices reports the tokens."""
    usage = Usage(input_tokens=7, output_tokens=2, cached_tokens=4, reasoning_tokens=1)
    with ChatServer([reply("Hi", usage=usage)]) as server:
        chunks = events(post(server, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }


def test_requests_are_recorded() -> None:
    """Path, query, lower-case headers, connection, and the body as bytes and parsed."""
    with ChatServer([reply("a"), raw(204)]) as server:
        url = f"{server.base_url}/chat/completions?api-version=2"
        httpx2.post(url, json=QUESTION, headers={"X-Title": "T"})
        httpx2.get(f"{server.base_url}/models")
        first, second = server.requests
    assert (first.index, first.method, first.path) == (0, "POST", "/v1/chat/completions")
    assert first.query == "api-version=2"
    assert first.headers["x-title"] == "T"
    assert first.json == QUESTION
    assert json.loads(first.raw) == QUESTION
    assert (second.method, second.path, second.raw, second.json) == ("GET", "/v1/models", b"", None)
    assert (first.connection, second.connection) == (0, 1)


def test_a_connection_is_kept_alive() -> None:
    """One client sends its requests over one connection, streams included."""
    script = [reply("a"), reply("b"), raw(500, "<html>"), raw(204), reply("c")]
    with ChatServer(script) as server, httpx2.Client(base_url=server.base_url) as client:
        for stream in (False, True, False, False, False):
            client.post("/chat/completions", json=QUESTION | {"stream": stream})
        assert [request.connection for request in server.requests] == [0] * 5
        assert server.connections == 1


def test_a_chunked_request_body_is_read() -> None:
    """A client may send its body in chunks."""
    with ChatServer([reply("a")]) as server:
        httpx2.post(f"{server.base_url}/x", content=iter([b'{"a"', b":1}"]))
        assert server.requests[0].json == {"a": 1}


@pytest.mark.parametrize(
    ("body", "kind", "sent"),
    [
        ({"error": "é"}, "application/json", '{"error":"é"}'.encode()),
        ([{"error": 1}], "application/json", b'[{"error":1}]'),
        ("<html>", "text/plain; charset=utf-8", b"<html>"),
        (b"\xff", "application/octet-stream", b"\xff"),
    ],
)
def test_a_raw_reply_is_sent_unchanged(body: Any, kind: str, sent: bytes) -> None:
    """Status, headers and body are the script's; JSON values are encoded."""
    with ChatServer([raw(429, body, {"Retry-After": "3"})]) as server:
        response = post(server)
    assert (response.status_code, response.content) == (429, sent)
    assert response.headers["content-type"] == kind
    assert response.headers["retry-after"] == "3"


def test_events_are_sent_unchanged() -> None:
    """Dicts and text become data lines, bytes are unchanged, nothing is added."""
    script = [sse([{"a": 1}, b": comment\r\n\r\n", "[DONE]"])]
    with ChatServer(script) as server:
        assert post(server).content == b'data: {"a":1}\n\n: comment\r\n\r\ndata: [DONE]\n\n'


def test_packets_have_the_chunk_size() -> None:
    """With chunk_size=1 every byte is a packet, also within a character."""
    with (
        ChatServer([sse(["é", "b"], chunk_size=1)]) as server,
        httpx2.stream("POST", f"{server.base_url}/x") as response,
    ):
        packets = list(response.iter_raw())
    assert packets == [bytes([byte]) for byte in "data: é\n\ndata: b\n\n".encode()]


def test_without_a_size_each_event_is_a_packet() -> None:
    """By default each event is a packet."""
    with (
        ChatServer([sse(["a", "b"])]) as server,
        httpx2.stream("POST", f"{server.base_url}/x") as response,
    ):
        assert list(response.iter_raw()) == [b"data: a\n\n", b"data: b\n\n"]


def test_a_stream_breaks_off() -> None:
    """close_early ends the connection in the middle of the body."""
    with (
        ChatServer([sse(["a"], close_early=True)]) as server,
        httpx2.stream("POST", f"{server.base_url}/x") as response,
    ):
        packets = response.iter_raw()
        assert next(packets) == b"data: a\n\n"
        with pytest.raises(httpx2.RemoteProtocolError):
            next(packets)


def test_a_dropped_connection_has_no_response() -> None:
    """drop() closes the connection without a response."""
    with ChatServer([drop()]) as server, pytest.raises(httpx2.RemoteProtocolError):
        post(server)


def test_delay_and_pause_are_respected() -> None:
    """The delay comes before the headers, the pause between packets."""
    with ChatServer([sse(["a", "b"], delay=0.1, pause=0.1)]) as server:
        start = time.monotonic()
        with httpx2.stream("POST", f"{server.base_url}/x") as response:
            headers = time.monotonic() - start
            response.read()
        body = time.monotonic() - start
    assert headers >= 0.1
    assert body >= 0.2


def test_a_stream_holds_until_released() -> None:
    """At HOLD the stream stops until the server releases it."""
    with (
        ChatServer([sse(["a", HOLD, "b"], chunk_size=100)]) as server,
        httpx2.stream("POST", f"{server.base_url}/x") as response,
    ):
        packets = response.iter_raw()
        assert next(packets) == b"data: a\n\n"
        server.release()
        assert next(packets) == b"data: b\n\n"


def test_a_reply_holds_before_its_headers() -> None:
    """delay=HOLD keeps the client waiting for the headers."""
    with ChatServer([reply("a", delay=HOLD)]) as server, pytest.raises(httpx2.ReadTimeout):
        httpx2.post(f"{server.base_url}/x", timeout=0.1)


def test_a_callable_gets_the_request() -> None:
    """An item of the script may be a function of the request."""

    def echo(request: ServerRequest) -> Any:
        return reply(request.json["messages"][0]["content"])

    with ChatServer([echo]) as server:
        assert post(server).json()["choices"][0]["message"]["content"] == "Hi"


def test_one_callable_may_be_the_whole_script() -> None:
    """A server with one callable answers any number of requests."""
    with ChatServer(lambda request: reply(str(request.index))) as server:
        texts = [post(server).json()["choices"][0]["message"]["content"] for _ in range(3)]
    assert texts == ["0", "1", "2"]


def test_a_request_past_the_end_is_an_error() -> None:
    """The response is a 500 that says so, and the end of the `with` raises."""
    server = ChatServer([reply("a")])
    with (
        pytest.raises(
            AgentKitError, match="The script has ended: there is no reply for request 1 "
        ),
        server,
    ):
        post(server)
        response = post(server)
    assert response.status_code == 500
    assert response.json()["error"]["message"] == (
        "AgentKitError: The script has ended: there is no reply for request 1 "
        "(POST /v1/chat/completions)."
    )


def test_a_server_that_is_not_strict_does_not_raise() -> None:
    """With strict=False the end of the `with` does not raise."""
    with ChatServer([], strict=False) as server:
        assert post(server).status_code == 500


def test_an_error_of_the_test_takes_precedence() -> None:
    """An exception that propagates through the `with` gets the server's error as a note."""
    with pytest.raises(KeyError) as caught, ChatServer([]) as server:
        post(server)
        raise KeyError("the test's own")
    assert caught.value.__notes__[0].startswith("ChatServer: The script has ended")


def test_an_error_in_a_callable_is_raised_at_the_end() -> None:
    """The client gets a 500, and the end of the `with` raises the exception itself."""
    with pytest.raises(ZeroDivisionError), ChatServer(lambda request: 1 // 0) as server:  # type: ignore[arg-type, return-value]
        assert post(server).status_code == 500


def test_a_request_that_is_not_http_is_reported() -> None:
    """A malformed request closes the connection and raises at the end."""
    with pytest.raises(AgentKitError, match="A request is not HTTP"), ChatServer([]) as server:
        address = ("127.0.0.1", httpx2.URL(server.base_url).port or 0)
        with socket.create_connection(address) as client:
            client.sendall(b"what\r\n\r\n")
            assert client.recv(10) == b""


def test_the_address_exists_only_while_running() -> None:
    """There is no address outside the `with`."""
    with pytest.raises(AgentKitError, match="in a `with` statement"):
        _ = ChatServer([]).base_url


def test_leaving_does_not_wait_for_a_reply_that_hangs() -> None:
    """Replies that hold or sleep are cut off at the end of the `with`."""
    start = time.monotonic()
    script = [reply("a", delay=HOLD), reply("b", delay=1000), sse(["a", HOLD, "b"])]
    with ChatServer(script) as server, httpx2.Client(timeout=0.1) as client:
        for _ in script:
            with pytest.raises(httpx2.ReadTimeout):
                client.post(server.base_url)
    assert time.monotonic() - start < 60
    assert not any("ChatServer" in thread.name for thread in threading.enumerate())


def test_leaving_is_bounded_when_a_callable_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A callable that blocks the server's thread is an error, not a hang."""
    monkeypatch.setattr("agentkit.testing.server.STOP_SECONDS", 0.1)
    go_on = threading.Event()

    def block(request: ServerRequest) -> Any:
        go_on.wait(60)
        return reply("late")

    with (
        pytest.raises(AgentKitError, match="did not stop"),
        ChatServer([block]) as server,
        pytest.raises(httpx2.ReadTimeout),
    ):
        httpx2.post(server.base_url, timeout=0.1)
    go_on.set()


async def test_it_serves_async_tests_on_both_backends() -> None:
    """`async with` works under asyncio and trio."""
    async with ChatServer([reply("a")]) as server, httpx2.AsyncClient() as client:
        response = await client.post(f"{server.base_url}/chat/completions", json=QUESTION)
    assert response.json()["choices"][0]["message"]["content"] == "a"


async def test_a_client_that_leaves_frees_its_connection() -> None:
    """When a client disconnects, its held reply ends."""
    async with ChatServer([sse(["a", HOLD])]) as server, httpx2.AsyncClient() as client:
        async with client.stream("POST", server.base_url):
            assert server.connections == 1
        with anyio.fail_after(60):
            while server.connections:
                await anyio.sleep(0.01)


@pytest.mark.storm
async def test_hundreds_of_connections_are_served_at_once() -> None:
    """300 clients, each with a connection of its own, are all in the server at the same time."""
    count = sized(100, 300)
    async with (
        ChatServer(lambda request: reply("a", delay=HOLD)) as server,
        httpx2.AsyncClient(limits=httpx2.Limits(), timeout=120) as client,
    ):

        async def ask() -> None:
            response = await client.post(server.base_url, json=QUESTION)
            assert response.status_code == 200

        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(ask)
            with anyio.fail_after(120):
                while len(server.requests) < count:
                    await anyio.sleep(0.01)
            assert server.connections == count
            server.release()
    assert len({request.connection for request in server.requests}) == count


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("Hello", r"ChatServer\('Hello'\): the script is a list of replies"),
        ([reply("Hello"), "Bye"], r"Item 1 .* is 'Bye': .* For a text, write reply\('Bye'\)\."),
        ([None], r"Item 0 of the ChatServer's script is None: expected reply\(…\)"),
    ],
)
def test_what_is_no_reply_is_refused_before_the_server_starts(script: Any, says: str) -> None:
    """With its place, and what is expected."""
    with pytest.raises(ConfigurationError, match=says):
        ChatServer(script)


def test_a_function_that_returns_no_reply_is_named() -> None:
    """The client gets status 500 with the reason."""

    def function(request: ServerRequest) -> Any:
        return "Hello"

    with ChatServer(function, strict=False) as server:
        answer = httpx2.post(f"{server.base_url}/chat/completions", json={})
    assert answer.status_code == 500
    assert "a function of the ChatServer's script returns is 'Hello'" in answer.text
