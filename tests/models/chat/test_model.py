"""`ChatModel` over a socket: attempts, retries, timeouts and events."""

from __future__ import annotations

import re
from functools import partial

import anyio
import pytest

from agentkit import Agent, tool
from agentkit.errors import (
    AuthenticationFailed,
    InvalidResponse,
    InvalidSetting,
    ModelUnreachable,
    QuotaExceeded,
    RateLimited,
)
from agentkit.events import Event, HttpFinished, HttpStarted, TextDelta, Warned
from agentkit.messages import AssistantMessage, ModelRequest, OutputFormat
from agentkit.models import ChatModel
from agentkit.settings import Timeouts
from agentkit.testing import HOLD, ChatServer, drop, raw, reply, sse
from tests.models.support import AT, REQUEST, send
from tests.support import until

pytestmark = pytest.mark.anyio


async def test_an_answer() -> None:
    """One request has one answer, and its attempt is in the events."""
    response, events, server = await send([reply("Hello")])
    assert response.message.content == "Hello"
    started, finished = events
    assert isinstance(started, HttpStarted)
    assert (started.at, started.attempt) == ("/agent/m0/h0", 0)
    assert finished == HttpFinished(at=AT.attempt(0), status=200)
    assert server.requests[0].path == "/v1/chat/completions"
    assert server.requests[0].json["model"] == "any"


async def test_listing_models() -> None:
    """The server's model names are listed; a failure shows what came instead."""
    body = {"data": [{"id": "b"}, {"id": "a"}]}
    with ChatServer([raw(200, body), raw(200, {"data": []}), raw(401)]) as server:
        async with ChatModel("", base_url=server.base_url) as model:
            assert await model.models() == ["b", "a"]
            with pytest.raises(InvalidResponse, match="lists no models"):
                await model.models()
            with pytest.raises(AuthenticationFailed):
                await model.models()
    assert (server.requests[0].method, server.requests[0].path) == ("GET", "/v1/models")


async def test_retries() -> None:
    """Transient failures are retried, with each attempt in the events."""
    busy = raw(503, {"error": {"message": "busy"}}, {"x-request-id": "r1", "retry-after": "2"})
    response, events, _ = await send([drop(), busy, reply("Hello")])
    assert response.message.content == "Hello"
    first, second, third = (one for one in events if isinstance(one, HttpFinished))
    assert first.status is None
    assert first.delay is not None
    assert "ModelUnreachable" in str(first.error)
    assert (second.at, second.status, second.request_id) == (AT.attempt(1), 503, "r1")
    assert second.retry_after == 2
    assert second.delay is not None
    assert second.delay >= 2
    assert (third.status, third.delay, third.error) == (200, None, None)


async def test_retries_are_bounded() -> None:
    """After the last attempt its error is raised."""
    with pytest.raises(RateLimited):
        await send([raw(429)] * 3, retries=2)


async def test_negative_retries() -> None:
    """A negative number of retries is refused."""
    with pytest.raises(InvalidSetting, match="retries must be >= 0, not -1"):
        ChatModel("any", retries=-1)


async def test_lasting_errors_are_not_retried() -> None:
    """A wrong key, an empty account and x-should-retry: false end the call at once."""
    with pytest.raises(AuthenticationFailed):
        await send([raw(401)])
    with pytest.raises(QuotaExceeded):
        await send([raw(429, {"error": {"message": "no", "code": "insufficient_quota"}})])
    with pytest.raises(RateLimited):
        await send([raw(429, b"", {"x-should-retry": "false"})])


async def test_no_retry_past_the_deadline() -> None:
    """A wait that would end after the total timeout does not begin."""
    with pytest.raises(RateLimited):
        await send([raw(429, b"", {"retry-after": "60"})], timeout=5)


async def test_the_total_timeout() -> None:
    """A call that takes too long ends, however many attempts are left."""
    with pytest.raises(ModelUnreachable, match=r"0\.2 seconds"):
        await send([reply("late", delay=HOLD)], timeout=0.2)


async def test_the_read_timeout() -> None:
    """Silence in the middle of a stream is a failure."""
    answer = sse([{"choices": [{"delta": {"content": "x"}}]}, HOLD])
    with pytest.raises(ModelUnreachable, match="ReadTimeout"):
        await send([answer], stream=True, retries=0, timeout=Timeouts(read=0.2))


async def test_a_refused_connection() -> None:
    """A refused connection is a ModelUnreachable with the host and the reason."""
    async with ChatModel("any", base_url="http://127.0.0.1:9", retries=0) as model:
        with pytest.raises(ModelUnreachable, match=r"127\.0\.0\.1:9: ConnectError"):
            await model.request(REQUEST)


async def test_cancelling_a_request() -> None:
    """A cancelled attempt is finished in the events."""
    events: list[Event] = []
    with ChatServer([reply("late", delay=HOLD)]) as server:
        model = ChatModel("any", base_url=server.base_url)
        async with model, anyio.create_task_group() as group:
            group.start_soon(partial(model.request, REQUEST, at=AT, emit=events.append))
            await until(lambda: server.requests)
            group.cancel_scope.cancel()
    assert events[-1] == HttpFinished(at=AT.attempt(0), error="cancelled")


async def test_a_listener_that_fails() -> None:
    """A listener's exception ends the call without a retry and closes the attempt."""
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, TextDelta):
            raise ZeroDivisionError

    with ChatServer([reply("Hello there")]) as server:
        async with ChatModel("any", base_url=server.base_url) as model:
            with pytest.raises(ZeroDivisionError):
                await model.request(REQUEST, at=AT, emit=listen, stream=True)
    assert events[-1] == HttpFinished(at=AT.attempt(0), status=200, error="ZeroDivisionError: ")


async def test_dropped_parameters_are_warned_about() -> None:
    """Each parameter that the server does not support is one warning."""
    request = ModelRequest(messages=REQUEST.messages, settings={"top_k": 5})
    _, events, server = await send([reply("Hi")], request, profile="openai", api_key="x")
    assert [one.code for one in events if isinstance(one, Warned)] == ["dropped_parameter"]
    assert "top_k" not in server.requests[0].json


async def test_a_tool_name_that_the_model_made_up() -> None:
    """It is sent back in a form that servers accept; history and trace have the true one."""

    @tool
    def look() -> str:
        """Look."""
        return "seen"

    calls = [("functions.look", "{}"), ("", "{}"), ("look", "{}")]
    with ChatServer([reply(calls=calls), reply("Done")]) as server:
        agent = Agent(ChatModel("any", base_url=server.base_url), tools=[look])
        result = await agent.run("Look!")
    history = result.messages
    called, *answers = history[1:5]
    assert isinstance(called, AssistantMessage)
    assert [one.name for one in called.tool_calls] == ["functions.look", "", "look"]
    assert answers[0].text == "There is no tool 'functions.look'. The tools are: look."
    assert answers[2].text == "seen"
    assert result.trace is not None
    end = next(one for one in result.trace.events if one["event"] == "model.end")
    recorded = result.trace.blob(end["message"])
    assert recorded["tool_calls"][0]["function"]["name"] == "functions.look"
    sent = server.requests[1].json["messages"][1]["tool_calls"]
    assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", one["function"]["name"]) for one in sent)


async def test_reasoning_goes_back_to_a_server_that_is_not_known() -> None:
    """A model that needs its reasoning back gets it behind any host."""

    @tool
    def look() -> str:
        """Look."""
        return "seen"

    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    body = {"choices": [{"message": {"reasoning_content": "Hm", "tool_calls": [call]}}]}
    with ChatServer([raw(200, body), reply("Done")]) as server:
        await Agent(ChatModel("any", base_url=server.base_url), tools=[look]).run("Look!")
    assert server.requests[1].json["messages"][1]["reasoning_content"] == "Hm"


async def test_strict_settings() -> None:
    """With strict_settings, an unsupported parameter is refused before anything is sent."""
    request = ModelRequest(messages=REQUEST.messages, settings={"top_k": 5})
    with pytest.raises(InvalidSetting, match="top_k"):
        await send([], request, profile="openai", api_key="x", strict_settings=True)


async def test_output_that_cannot_be_streamed() -> None:
    """Groq does not stream a response_format, so the answer is fetched whole and shown."""
    request = ModelRequest(messages=REQUEST.messages, output=OutputFormat(kind="json_object"))
    _, events, server = await send(
        [reply('{"a": 1}')], request, stream=True, profile="groq", api_key="x"
    )
    assert "stream" not in server.requests[0].json
    assert TextDelta(at=AT, text='{"a": 1}') in events
