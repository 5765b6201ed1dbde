"""The embedded model: real weights, a real server, and no process left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentkit.core.effects import Address
from agentkit.errors import ContextLengthExceeded, InvalidSetting, LocalModelError
from agentkit.events import Event, TextDelta, ToolCallDelta
from agentkit.messages import (
    AssistantMessage,
    ModelRequest,
    OutputFormat,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    UserMessage,
)
from agentkit.models.local.model import LocalModel
from agentkit.models.local.weights import fetch
from agentkit.models.profiles import LOCAL
from tests.support import child_environment

pytestmark = [pytest.mark.anyio, pytest.mark.local]
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

WEATHER = ToolDefinition(
    name="get_weather",
    description="Current weather in a city.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"], "default": "c"}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
NOW = OutputFormat(
    kind="json_schema",
    schema={
        "type": "object",
        "properties": {
            "sky": {"enum": ["sunny", "cloudy", "rainy", "snowy"]},
            "celsius": {"type": "integer"},
        },
        "required": ["sky", "celsius"],
        "additionalProperties": False,
    },
)

on_either = pytest.mark.parametrize(
    "anyio_backend", ["asyncio", pytest.param("trio", marks=pytest.mark.storm_only)]
)
"""On trio in `make storm` alone: each starts a server, or has it answer at length."""


def request_for(text: str, **fields: Any) -> ModelRequest:
    return ModelRequest(messages=(UserMessage(content=text),), **fields)


SHORT = request_for("Say hello.", settings={"max_completion_tokens": 5})
ENDLESS = request_for(
    "Count to a million.",
    settings={"max_completion_tokens": 4000, "extra_body": {"ignore_eos": True}},
)


@pytest.fixture(scope="session")
def weights() -> Path:
    """Return the weights, fetched if they are not in the cache."""
    return fetch()


@pytest.fixture(scope="session")
def model(weights: Path) -> Iterator[LocalModel]:
    """Share one server among all tests, over many event loops of both kinds."""
    shared = LocalModel()
    yield shared
    anyio.run(shared.aclose)


def servers(parent: int) -> list[int]:
    """Return the process ids of the embedded servers that a process has started."""
    process_ids: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            ppid = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if b"child.py" in command and ppid == parent:
            process_ids.append(int(folder.name))
    return process_ids


def gone(pid: int, within: float = 30.0) -> bool:
    """Return whether a process ends soon; a zombie has ended."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]:
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


# Answers


@on_either
async def test_two_parallel_calls(model: LocalModel) -> None:
    """A model without a template for tools makes two parallel calls with valid arguments."""
    events: list[Event] = []
    request = request_for("Which is warmer now, Paris or London?", tools=(WEATHER,))
    response = await model.request(
        request, at=Address("/agent/m0"), emit=events.append, stream=True
    )
    calls = response.message.tool_calls
    assert [call.name for call in calls] == ["get_weather", "get_weather"]
    assert [json.loads(call.arguments)["city"] for call in calls] == ["Paris", "London"]
    assert response.finish == "tool_calls"
    deltas = [event for event in events if isinstance(event, (TextDelta, ToolCallDelta))]
    assert [type(delta) for delta in deltas] == [ToolCallDelta, ToolCallDelta]


@on_either
@pytest.mark.parametrize(("sky", "celsius"), [("rainy", 14), ("snowy", -2), ("sunny", 31)])
async def test_a_typed_answer_from_results(model: LocalModel, sky: str, celsius: int) -> None:
    """With results and without tools, the model copies a value and picks a word."""
    call = ToolCall(id="c1", name="get_weather", arguments='{"city": "Oslo"}')
    result = json.dumps({"sky": sky, "celsius": celsius})
    request = ModelRequest(
        messages=(
            UserMessage(content="What is the weather in Oslo?"),
            AssistantMessage(tool_calls=(call,)),
            ToolMessage(call_id="c1", name="get_weather", content=result),
        ),
        tools=(WEATHER,),
        tool_choice="none",
        output=NOW,
    )
    response = await model.request(request)
    assert json.loads(response.message.text) == {"sky": sky, "celsius": celsius}


@on_either
@pytest.mark.parametrize(("city", "time"), [("Tokyo", "22:40"), ("Paris", "15:40")])
async def test_a_text_answer_from_results(model: LocalModel, city: str, time: str) -> None:
    """A text answer has the result, and not the JSON form of calls."""
    definition = ToolDefinition(
        name="get_time", description="Local time in a city.", parameters=WEATHER.parameters
    )
    call = ToolCall(id="c1", name="get_time", arguments=json.dumps({"city": city}))
    request = ModelRequest(
        messages=(
            UserMessage(content=f"What time is it in {city}?"),
            AssistantMessage(tool_calls=(call,)),
            ToolMessage(call_id="c1", name="get_time", content=time),
        ),
        tools=(definition,),
        tool_choice="none",
    )
    text = (await model.request(request)).message.text
    assert time in text
    assert '"calls"' not in text


@on_either
async def test_the_same_answer_every_time(model: LocalModel) -> None:
    """The temperature is 0 by default, so answers are reproducible."""
    first, second = [(await model.request(request_for("Name a colour."))).message for _ in range(2)]
    assert first == second


@on_either
@pytest.mark.parametrize("text", ["What is the capital of France?", "Write a haiku about rain."])
async def test_free_text_ends(model: LocalModel, text: str) -> None:
    """The penalty for free text ends answers that would repeat themselves for ever."""
    response = await model.request(request_for(text))
    assert response.finish == "stop"
    assert response.usage.output_tokens < 200


@on_either
async def test_a_context_that_is_too_small(weights: Path) -> None:
    """A conversation that exceeds the context is an error, and is not cut."""
    async with LocalModel(weights, context=256) as small:
        with pytest.raises(ContextLengthExceeded):
            await small.request(request_for("one two three four five six seven eight " * 50))


async def test_the_profile_of_the_embedded_model(weights: Path) -> None:
    """Answers have at most 1,024 tokens by default, and outputs are requested natively."""
    assert LOCAL.defaults["max_completion_tokens"] == 1024
    assert LOCAL.repeats == 0
    assert LOCAL.output_modes[0] == "native"


# One server


@linux
def test_many_runs_and_loops_start_one_server(weights: Path) -> None:
    """Four event loops with three requests each share one server."""
    shared = LocalModel(weights)
    before = servers(os.getpid())
    failed: list[BaseException] = []

    async def three() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(shared.request, SHORT)

    def run(backend: str) -> None:
        try:
            anyio.run(three, backend=backend)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in ["asyncio", "trio"] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    (pid,) = set(servers(os.getpid())) - set(before)
    anyio.run(shared.aclose)
    assert gone(pid)


@on_either
async def test_reuse_after_closing(weights: Path) -> None:
    """`aclose` ends the server, and the next request starts another."""
    again = LocalModel(weights)
    await again.start()
    await again.aclose()
    await again.aclose()
    assert (await again.request(SHORT)).message.text
    await again.aclose()


@linux
@on_either
async def test_a_server_that_dies(weights: Path) -> None:
    """A dead server is an error with its status, and the next request starts another."""
    before = servers(os.getpid())
    async with LocalModel(weights) as frail:
        await frail.start()
        (pid,) = set(servers(os.getpid())) - set(before)
        threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
        with pytest.raises(LocalModelError, match="ended with status -9"):
            await frail.request(ENDLESS)
        assert (await frail.request(SHORT)).message.text


@linux
@on_either
async def test_a_start_that_is_cancelled(weights: Path) -> None:
    """A cancelled start leaves no process, and the next start works."""
    before = servers(os.getpid())
    model = LocalModel(weights)
    with anyio.move_on_after(0.05) as scope:
        await model.start()
    assert scope.cancelled_caught
    for pid in set(servers(os.getpid())) - set(before):
        assert gone(pid)
    assert (await model.request(SHORT)).message.text
    await model.aclose()


@on_either
async def test_proxies_are_bypassed(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to the embedded server bypass the proxies of the environment."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with LocalModel(weights) as model:
        assert (await model.request(SHORT)).message.text


# The end of the program

PROGRAM = """
import os, sys, threading, time
import anyio
from agentkit.messages import ModelRequest, UserMessage
from agentkit.models.local.model import LocalModel

path, backend, mode = sys.argv[1:]
model = LocalModel(path)
started = threading.Event()
endless = {"max_completion_tokens": 4000, "extra_body": {"ignore_eos": True}}
messages = (UserMessage(content="Count to a million."),)

async def start():
    await model.start()
    print("started", flush=True)
    started.set()

async def work():
    await start()
    await model.request(ModelRequest(messages=messages, settings=endless))

async def answer():
    await model.request(ModelRequest(messages=messages, settings={"max_completion_tokens": 3}))

if mode == "request":
    anyio.run(work, backend=backend)
elif mode == "thread":
    threading.Thread(target=anyio.run, args=(work,), daemon=True).start()
    started.wait(60)
    time.sleep(0.5)
elif mode == "exit":
    anyio.run(start, backend=backend)
    anyio.run(answer, backend=backend)
elif mode == "fork":
    anyio.run(start, backend=backend)
    child = os.fork()
    if child == 0:
        sys.exit(0)
    os.waitpid(child, 0)
    anyio.run(answer, backend=backend)
"""


class Program:
    """Another Python with a LocalModel, whose server has started."""

    def __init__(self, weights: Path, backend: str, mode: str, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *options, "-c", PROGRAM, str(weights), backend, mode],
            env=child_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "started\n":
            raise AssertionError(self.process.communicate()[1])
        (self.server,) = servers(self.process.pid)

    def end(self, within: float = 60) -> tuple[int, str]:
        """Wait until it and its server end; return its exit status and its stderr."""
        try:
            _, errors = self.process.communicate(timeout=within)
        finally:
            self.process.kill()  # or its server goes on answering, beside all other tests
        assert gone(self.server)
        return self.process.returncode, errors


@linux
@on_either
def test_ctrl_c_during_a_request(weights: Path, anyio_backend: str) -> None:
    """Ctrl-C ends the program and its server at once, even in the middle of an answer."""
    program = Program(weights, anyio_backend, "request")
    time.sleep(0.5)
    program.process.send_signal(signal.SIGINT)
    status, errors = program.end(within=30)
    assert status in (-signal.SIGINT, 1)
    assert errors.rstrip().endswith("KeyboardInterrupt")


@linux
def test_kill_9_during_a_request(weights: Path) -> None:
    """The server does not outlive a program that was killed."""
    program = Program(weights, "asyncio", "request")
    time.sleep(0.5)
    program.process.kill()
    assert program.end()[0] == -signal.SIGKILL


@linux
@on_either
def test_exit_without_aclose(weights: Path, anyio_backend: str) -> None:
    """A program that exits without aclose leaves no process and no warning."""
    program = Program(weights, anyio_backend, "exit", "-W", "error")
    assert program.end() == (0, "")


@pytest.mark.storm_only
@linux
def test_exit_while_a_thread_waits(weights: Path) -> None:
    """A program can exit while a thread waits for an answer."""
    program = Program(weights, "asyncio", "thread")
    assert program.end()[0] == 0


@pytest.mark.storm_only
@linux
def test_a_fork_that_ends_leaves_the_server_alone(weights: Path) -> None:
    """A forked child that exits leaves the parent's server running."""
    program = Program(weights, "asyncio", "fork")
    assert program.end()[0] == 0


# Mistakes that are found before anything starts


def test_a_missing_file(tmp_path: Path) -> None:
    """The error for a missing file names the path."""
    with pytest.raises(LocalModelError, match=r"nope\.gguf' cannot be read: No such file"):
        LocalModel(tmp_path / "nope.gguf").check()


async def test_a_file_of_another_kind(tmp_path: Path) -> None:
    """A file of another kind is recognised by its first bytes, before a server starts."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(LocalModelError, match=r"is not a GGUF file: it begins with b'PK"):
        await LocalModel(path).start()


async def test_a_file_that_llama_cpp_cannot_load(tmp_path: Path) -> None:
    """If llama.cpp cannot load a file, its message is in the error."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(1000))
    with pytest.raises(
        LocalModelError, match=r"(?s)broken\.gguf ended with status 1.*failed to load model"
    ):
        await LocalModel(path).start()


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a missing extra has the command that installs it."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(LocalModelError, match=r'pip install "agentkit-replay\[local\]"'):
        LocalModel().check()


def test_an_invalid_context() -> None:
    """A context without tokens is refused."""
    with pytest.raises(InvalidSetting, match="context must be >= 1, not 0"):
        LocalModel(context=0)


def test_names() -> None:
    """The embedded model is called `local`; any other has its file's name."""
    assert LocalModel().name == "local"
    assert LocalModel("models/qwen.gguf").name == "local:qwen"
    assert repr(LocalModel("models/qwen.gguf")) == "LocalModel('models/qwen.gguf')"
    assert LocalModel().profile is LOCAL
