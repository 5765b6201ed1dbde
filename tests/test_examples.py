"""The programs in examples/, with a script or a real server in the model's place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import uvicorn

from agentkit import Agent, AssistantMessage, ModelRequest, ModelResponse, Session, Trace, Usage
from agentkit.errors import LimitExceeded, ModelUnreachable
from agentkit.replay import replay
from agentkit.testing import HOLD, ChatServer, FunctionModel, ScriptedModel, reply, sse
from examples import approval, chat, research, web

ROOT = Path(__file__).parent.parent


def environment(server: ChatServer) -> dict[str, str]:
    """Another process that asks this server as `openai:…`."""
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    given = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "k", "PYTHONPATH": paths}
    return os.environ | given | {"PYTHONIOENCODING": "utf-8"}


# examples/web.py


@contextmanager
def served(agent: Agent[str]) -> Iterator[str]:
    """The web example on uvicorn, in a thread; gives its address."""
    config = uvicorn.Config(
        web.make_app(agent), port=0, lifespan="off", ws="none", log_level="critical"
    )
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
    assert not thread.is_alive()


def delta(text: str) -> dict[str, Any]:
    """A chunk of a streamed answer."""
    return {"id": "1", "choices": [{"index": 0, "delta": {"content": text}}]}


@pytest.mark.anyio
async def test_web_streams_the_answer_to_its_end(tmp_path: Path) -> None:
    """The pieces come as server-sent events, then the status."""
    with served(Agent(ScriptedModel(["Good day."]), trace=tmp_path)) as url:
        async with httpx2.AsyncClient() as client:
            page = await client.get(url)
            answer = await client.get(url + "/answer", params={"q": "Hi"})
    assert "EventSource" in page.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text == (
        'event: text\ndata: "Good"\n\nevent: text\ndata: " day."\n\nevent: end\ndata: "ok"\n\n'
    )
    (path,) = tmp_path.iterdir()
    assert Trace.load(path).status == "ok"


@pytest.mark.anyio
async def test_web_says_how_a_run_failed() -> None:
    """An error is the last event, and the server goes on."""
    with served(Agent(ScriptedModel([ModelUnreachable("no route"), "Hello."]))) as url:
        async with httpx2.AsyncClient() as client:
            failed = await client.get(url + "/answer")
            again = await client.get(url + "/answer")
    assert failed.text == 'event: end\ndata: "no route"\n\n'
    assert 'data: "Hello."' in again.text


@pytest.mark.anyio
async def test_web_cancels_the_run_when_its_reader_leaves(tmp_path: Path) -> None:
    """The model is still answering: its request is given up, and the trace ends as cancelled."""
    with ChatServer([sse([delta("Once"), delta(" upon"), HOLD, delta(" a time")])]) as server:
        model = web.Agent("openai:m").model
        assert model == "openai:m"
        agent = Agent(chat_model(server), trace=tmp_path)
        with served(agent) as url:
            async with httpx2.AsyncClient() as client:
                async with client.stream("GET", url + "/answer") as answer:
                    lines = answer.aiter_lines()
                    seen = [await anext(lines) for _ in range(5)]
                assert seen[1::3] == ['data: "Once"', 'data: " upon"']
            (path,) = tmp_path.iterdir()
            with anyio.fail_after(5):
                while not path.read_bytes().endswith(b"}\n") or (
                    Trace.load(path).status == "interrupted"
                ):
                    await anyio.sleep(0.01)
        trace = Trace.load(path)
        assert trace.status == "cancelled"
        (end,) = [event for event in trace.events if event["event"] == "agent.end"]
        assert end["error"]["message"] == "The run was cancelled: the reader has left."
