"""Agents over the chat-completions wire: the official client and agentkit's own talk to them."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from agentkit import Agent, ChatModel, Limits, Trace, tool
from agentkit.errors import ConfigurationError, ModelHTTPError
from agentkit.messages import ModelRequest
from agentkit.serve import Key, app
from agentkit.testing import FunctionModel, ScriptedModel
from tests.support import running, tool_texts

STEPS = ["step", "step_end", "tool", "tool_end", "step", "step_end"]
CALL = [("look", {"city": "Paris"})]
HI: Any = [{"role": "user", "content": "Umbrella?"}]


@tool(effect="read")
async def look(city: str) -> str:
    """Look at the weather of a city."""
    return f"rain in {city}"


@dataclass
class Plan:
    """A plan."""

    city: str
    umbrella: bool


Serve = Callable[..., tuple[Any, str]]  # an `openai.OpenAI`, and the URL


@pytest.fixture
def serve() -> Generator[Serve]:
    import openai

    opened: list[AbstractContextManager[Any]] = []

    def start(*agents: Any, key: str = "any-key-will-do", **options: Any) -> tuple[Any, str]:
        served = running(app(list(agents), **options))
        opened.append(served)
        url = served.__enter__()
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
        opened.append(client)
        return client, url

    yield start
    for one in reversed(opened):
        one.__exit__(None, None, None)


def agent(*script: Any, **options: Any) -> Agent[Any, Any]:
    """An agent that looks before it answers."""
    answers = list(script or (CALL, "Take an umbrella."))
    return Agent(ScriptedModel(answers), name="weather", tools=[look], **options)


def test_the_official_client_gets_an_answer(serve: Serve, tmp_path: Path) -> None:
    """With the usage of the whole run, its steps, and a trace of its own."""
    client, _ = serve(agent(), trace=f"{tmp_path}/")
    answer = client.chat.completions.create(model="weather", messages=HI)
    assert answer.choices[0].message.content == "Take an umbrella."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    own: Any = (answer.model_extra or {})["agentkit"]
    assert own["status"] == "ok"
    assert [step["event"] for step in own["steps"]] == STEPS
    trace = Trace.load(tmp_path / f"{own['run']}.jsonl")
    assert answer.id == f"chatcmpl-{trace.run}"


def test_an_answer_is_streamed_with_what_happens_before_it(serve: Serve) -> None:
    """Chunks that clients know, others that they ignore, and the usage where it is asked for."""
    client, _ = serve(agent())
    stream = client.chat.completions.create(
        model="weather", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    said = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(said) == "Take an umbrella."
    assert len([text for text in said if text]) > 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    extra: list[Any] = [(c.model_extra or {}).get("agentkit") for c in chunks]
    events = [step["event"] for one in extra if one for step in one.get("steps", ())]
    assert events == STEPS
    assert {one["run"] for one in extra if one and "run" in one} == {chunks[0].id[9:]}


def test_messages_are_the_history(serve: Serve) -> None:
    """Calls and answers of earlier turns as well."""
    model = ScriptedModel(["Two."])
    client, _ = serve(Agent(model, name="weather", instructions="Be brief."))
    earlier = [
        {"role": "user", "content": "1 + 1?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "add", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "2"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "In words?"},
    ]
    client.chat.completions.create(model="weather", messages=earlier, temperature=0.5)  # type: ignore[arg-type]
    [request] = model.requests
    assert [one.text for one in request.messages] == [
        "Be brief.",
        "1 + 1?",
        "",
        "2",
        "2",
        "In words?",
    ]
    assert request.settings == {"temperature": 0.5}


def test_a_typed_output_is_json(serve: Serve) -> None:
    """A `response_format` of just that, or of any object, is honoured; another one is refused."""
    import openai

    script = ['{"city": "Paris", "umbrella": true}'] * 4
    client, _ = serve(Agent(ScriptedModel(script), name="weather", output=Plan))
    schema = {
        "properties": {"city": {"type": "string", "title": "City"}},
    }
    plain = client.chat.completions.create(model="weather", messages=HI)
    text = '{"city":"Paris","umbrella":true}'
    assert plain.choices[0].message.content == text
    asked = client.chat.completions.create(
        model="weather", messages=HI, response_format={"type": "json_object"}
    )
    assert asked.choices[0].message.content == text
    stream = client.chat.completions.create(model="weather", messages=HI, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in stream) == text
    with pytest.raises(openai.BadRequestError, match="weather answers with JSON of this schema"):
        client.chat.completions.create(
            model="weather",
            messages=HI,
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        )


@pytest.mark.parametrize(
    ("body", "param", "text"),
    [
        ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "tools", "brings its own"),
        ({"n": 2}, "n", "gives one answer"),
        ({"temperature": 3}, "temperature", "3"),
        ({"frobnicate": 1}, "frobnicate", "does not know it"),
        ({"response_format": {"type": "json_object"}}, "response_format", "answers with text"),
        ({"response_format": {"type": "xml"}}, "response_format", "Unknown response_format"),
        ({"messages": []}, "messages", "is empty"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages", "index 0"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages", "None as its tool_call_id"),
        ({"messages": "Hi"}, "messages", "a list"),
        ({"stream": "yes"}, "stream", "true or false"),
        ({"model": "other"}, "model", "There are: weather"),
    ],
)
def test_what_an_agent_cannot_do_is_refused(
    serve: Serve, body: dict[str, Any], param: str, text: str
) -> None:
    """In the wire's form, with the parameter, before a model is asked."""
    model = ScriptedModel([])
    _, url = serve(Agent(model, name="weather"))
    sent = {"model": "weather", "messages": HI} | body
    answer = httpx.post(f"{url}/v1/chat/completions", json=sent)
    assert answer.status_code == (404 if param == "model" else 400)
    assert answer.json()["error"]["param"] == param
    assert text in answer.json()["error"]["message"]
    assert model.requests == ()


def test_bodies_that_are_no_requests(serve: Serve) -> None:
    """Not JSON, no object, too large, nested too deep; another path, another method."""
    _, url = serve(agent(), max_body=1000)
    where = f"{url}/v1/chat/completions"
    for content, status in ((b"{", 400), (b"[]", 400), (b"[" * 900, 400), (b" " * 2000, 413)):
        answer = httpx.post(where, content=content)
        assert (answer.status_code, "message" in answer.json()["error"]) == (status, True)
    assert httpx.get(where).json()["error"]["message"] == "Method Not Allowed."
    assert httpx.get(f"{url}/v1/other").json()["error"]["message"] == "Not Found."


def test_harmless_values_of_other_parameters_are_taken(serve: Serve) -> None:
    """Clients send them without meaning anything by them."""
    client, _ = serve(agent())
    answer = client.chat.completions.create(
        model="weather", messages=HI, n=1, tool_choice="auto", response_format={"type": "text"}
    )
    assert answer.choices[0].message.content == "Take an umbrella."


def test_keys_let_in_and_bound(serve: Serve) -> None:
    """Unknown ones are refused; limits are the tighter of the key's and the agent's."""
    import openai

    keys = {"key-of-ada-1": Key(name="ada", limits=Limits(steps=1)), "key-of-bob-1": Key()}
    seen: list[str] = []

    def deps(request: Any, key: Key) -> str:
        seen.append(key.name)
        return key.name

    script = [CALL, CALL, "Take an umbrella."]
    client, url = serve(agent(*script), keys=keys, deps=deps, key="key-of-ada-1")
    with pytest.raises(openai.RateLimitError, match="limit of steps"):
        client.chat.completions.create(model="weather", messages=HI)
    bob = client.with_options(api_key="key-of-bob-1")
    assert bob.chat.completions.create(model="weather", messages=HI).choices
    assert seen == ["ada", ""]
    for wrong in ("key-of-eve-1", "key-of-ada-12", "é"):
        headers = {"authorization": f"Bearer {wrong}".encode()}
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 401
    refused = httpx.post(f"{url}/v1/chat/completions", json={})
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert [one.id for one in bob.models.list()] == ["weather"]
    assert bob.models.retrieve("weather").owned_by == "agentkit"
    with pytest.raises(openai.NotFoundError):
        bob.models.retrieve("other")


def test_a_key_bounds_the_runs_at_the_same_time(serve: Serve) -> None:
    """One more is refused until one has ended."""
    import openai

    entered, go_on = threading.Event(), threading.Event()

    @tool
    def wait() -> str:
        """Wait."""
        entered.set()
        assert go_on.wait(60)
        return "waited"

    model = ScriptedModel([[("wait", {})], "Done.", "Again."])
    keys = {"key-of-ada-1": Key(concurrency=1)}
    client, _ = serve(Agent(model, name="a", tools=[wait]), keys=keys, key="key-of-ada-1")
    first = threading.Thread(
        target=lambda: client.chat.completions.create(model="a", messages=HI), daemon=True
    )
    first.start()
    assert entered.wait(60)
    with pytest.raises(openai.RateLimitError, match="1 requests at a time"):
        client.chat.completions.create(model="a", messages=HI)
    go_on.set()
    first.join(60)
    assert client.chat.completions.create(model="a", messages=HI).choices


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_disconnects_cancels_its_run(
    serve: Serve, tmp_path: Path, stream: bool
) -> None:
    """Its trace says so."""
    entered = threading.Event()

    @tool
    async def wait() -> None:
        """Wait."""
        entered.set()
        await anyio.sleep(60)

    model = ScriptedModel([[("wait", {})]])
    _, url = serve(Agent(model, name="a", tools=[wait]), trace=f"{tmp_path}/")
    body = {"model": "a", "messages": HI, "stream": stream}
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        content = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}"
        connection.sendall(head.encode() + b"\r\n\r\n" + content)
        assert entered.wait(60)
    [path] = list(tmp_path.iterdir())
    ends = time.monotonic() + 60
    while b"trace.close" not in path.read_bytes():
        assert time.monotonic() < ends
        time.sleep(0.01)
    [end] = [event for event in Trace.load(path).events if event["event"] == "agent.end"]
    assert end["status"] == "cancelled"


def test_failures_say_no_more_than_a_client_may_know(serve: Serve, caplog: Any) -> None:
    """The run's id, and not the exception of the application's own code."""
    import openai

    def fail(request: ModelRequest) -> str:
        raise KeyError("password of the database")

    caplog.set_level("CRITICAL")
    client, _ = serve(Agent(FunctionModel(fail), name="a"))
    with pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(model="a", messages=HI)
    assert "password" not in failed.value.response.text
    assert len(failed.value.response.json()["agentkit"]["run"]) == 32
    with pytest.raises(openai.APIError, match="The run failed"):
        list(client.chat.completions.create(model="a", messages=HI, stream=True))


def test_a_run_that_waits_for_a_decision_says_so(serve: Serve, tmp_path: Path) -> None:
    """Its owner resumes it from its trace."""
    import openai

    @tool(approval=True)
    def pay() -> str:
        """Pay."""
        return "paid"

    served = Agent(ScriptedModel([[("pay", {})], "Done."]), name="a", tools=[pay])
    client, _ = serve(served, trace=f"{tmp_path}/")
    with pytest.raises(openai.ConflictError, match="waits for a decision about pay") as failed:
        client.chat.completions.create(model="a", messages=HI)
    own = failed.value.response.json()["agentkit"]
    assert own["pending"] == [{"at": "/a/m0/t0", "kind": "approval", "tool": "pay"}]
    path = tmp_path / f"{own['run']}.jsonl"
    assert served.resume_sync(path, decisions={"/a/m0/t0": True}).output == "Done."


@pytest.mark.anyio
async def test_an_agent_of_agents_over_the_wire() -> None:
    """Agentkit is the client: a remote agent is a model like any other."""
    answers = [CALL, "Take an umbrella."] * 2
    inner = app([agent(*answers), Agent(ScriptedModel(["42"]), name="number")])
    with running(inner) as url:
        remote = ChatModel("weather", base_url=f"{url}/v1", api_key="none")
        number = ChatModel("number", base_url=f"{url}/v1", api_key="none")
        helper = Agent(number, name="helper").as_tool()
        outer = Agent(
            ScriptedModel([[("helper", {"prompt": "how many?"})], "Two."]), tools=[helper]
        )
        assert tool_texts(await outer.run("go")) == ["42"]
        async with Agent(remote).stream("Umbrella?") as run:
            text = "".join([piece async for piece in run.text()])
        assert text == run.result.output == "Take an umbrella."
        assert run.result.usage.requests == 1
        whole = await Agent(remote).run("Umbrella?")
        for trace in (run.result.trace, whole.trace):
            (answer,) = [one for one in trace.effects.values() if one.kind == "model"]
            own = answer.outcome.extra["agentkit"]
            assert (own["status"], len(own["run"])) == ("ok", 32)
            assert [step["event"] for step in own["steps"]] == STEPS
        unknown = ChatModel("nobody", base_url=f"{url}/v1", api_key="none")
        with pytest.raises(ModelHTTPError, match="does not exist"):
            await Agent(unknown).run("Hi")


@pytest.mark.anyio
async def test_the_application_runs_on_either_loop() -> None:
    """Called as a server calls it, without one."""
    sent: list[Any] = []
    body = json.dumps({"model": "weather", "messages": HI, "stream": True}).encode()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "root_path": "",
        "query_string": b"",
        "headers": [],
    }
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        return await anyio.sleep_forever()

    async def send(message: Any) -> None:
        sent.append(message)

    await app(agent())(scope, receive, send)
    assert sent[0]["status"] == 200
    assert sent[-1] == {
        "type": "http.response.body",
        "body": b"data: [DONE]\n\n",
        "more_body": False,
    }


def test_what_cannot_be_served() -> None:
    """Said when the application is made."""
    for agents, text in (
        ([], "no agent to serve"),
        ([agent(), agent()], "two agents are called 'weather'"),
        (["weather"], "is not an agent"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            app(agents)  # type: ignore[arg-type]
    for keys in ("a-key-as-text", ["short"], ["has a space in it"], [3]):
        with pytest.raises(ConfigurationError, match="keys= takes a list of keys"):
            app(agent(), keys=keys)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="concurrency=0"):
        Key(concurrency=0)
