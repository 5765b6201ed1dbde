"""Writing a trace: how much of it, when it is on the disk, and what happens if it cannot be."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentkit import (
    Agent,
    ChatModel,
    result_of,
    tool,
)
from agentkit.errors import ConfigurationError, TraceError
from agentkit.events import Event
from agentkit.testing import ChatServer, FunctionModel, ScriptedModel, reply
from agentkit.trace import file as sinks
from tests.support import LOADED, child_environment, trace_lines

pytestmark = pytest.mark.anyio
done: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    done.clear()


@tool
def write(text: str) -> str:
    """Write a text."""
    done.append(text)
    return f"wrote {text}"


def agent(**options: Any) -> Agent[str]:
    """One call of a tool that writes, then an answer."""
    model = ScriptedModel([[("write", {"text": "the secret plan"})], "all is said"])
    return Agent(model, tools=[write], instructions="be discreet", **options)


# What is in the file, and when


async def test_what_is_in_flight_stands_in_the_file(tmp_path: Path) -> None:
    """When a call is sent or a tool runs, its beginning is written, and all that ended before."""
    path = tmp_path / "run.jsonl"
    seen: list[list[str]] = []

    def look(*_: Any) -> Any:
        seen.append([line["event"] for line in trace_lines(path) if line["event"] != "blob"])
        return reply("Done.") if len(seen) == 3 else reply(calls=[("peek", {})])

    @tool
    def peek() -> str:
        """Look at the file."""
        look()
        return "seen"

    with ChatServer(look) as server:
        model = ChatModel("any", base_url=server.base_url, api_key="k")
        async with model:
            await Agent(model, tools=[peek]).run("go", trace=path)
    begun = ["trace.open", "agent.start", "model.start"]
    called = [*begun, "http.start", "http.end", "model.end", "tool.start"]
    assert seen == [begun, called, [*called, "tool.end", "model.start"]]


# How much


async def test_metadata_has_names_and_numbers_and_nothing_that_was_said(tmp_path: Path) -> None:
    """Every call is there, with its hashes, and no text of it."""
    path = tmp_path / "run.jsonl"
    await agent().run("what is the plan", trace=path, capture="metadata")
    text = path.read_text()
    for said in ("what is the plan", "the secret plan", "all is said", "be discreet"):
        assert said not in text
    events = trace_lines(path)
    assert [event["event"] for event in events] == [
        "trace.open",
        "agent.start",
        "model.start",
        "model.end",
        "tool.start",
        "tool.end",
        "model.start",
        "model.end",
        "agent.end",
        "trace.close",
    ]
    assert [event["seq"] for event in events] == list(range(10))
    assert events[-1]["lines"] == 10
    called = events[4]
    del called["t"], called["fp"]
    assert called == {
        "event": "tool.start",
        "seq": 4,
        "at": "/agent/m0/t0",
        "tool": "write",
        "call": "call_agent_m0_t0",
        "effect": "write",
    }


async def test_metadata_of_an_error_is_its_type() -> None:
    """What an error says may be anything."""

    def instructions() -> str:
        raise LookupError("the secret plan")

    with pytest.raises(LookupError) as caught:
        await Agent(ScriptedModel([]), instructions=instructions).run("go", capture="metadata")
    result = result_of(caught.value)
    assert result is not None
    assert result.trace is not None
    assert result.trace.events[-2]["error"] == {"type": "LookupError"}


async def test_none_has_how_it_ended() -> None:
    """Beginning and end, with the usage."""
    result = await agent(capture="none").run("go")
    assert result.trace is not None
    assert [event["event"] for event in result.trace.events] == [
        "trace.open",
        "agent.start",
        "agent.end",
        "trace.close",
    ]
    assert result.trace.events[2]["usage"]["requests"] == 2


@pytest.mark.parametrize("capture", ["metadata", "none"])
async def test_less_than_all_is_not_replayed(capture: Any, tmp_path: Path) -> None:
    """A trace without contents says so, instead of a divergence nobody understands."""
    path = tmp_path / "run.jsonl"
    await agent().run("go", trace=path, capture=capture)
    with pytest.raises(TraceError, match=f"capture='{capture}'"):
        await agent().replay(path)
    with pytest.raises(TraceError, match=f"capture='{capture}'"):
        await agent().resume(path)


@pytest.mark.parametrize("name", ["capture", "durability"])
def test_other_words_are_refused(name: str) -> None:
    """The words there are, are said."""
    with pytest.raises(ConfigurationError, match=f"{name}='some': expected 'full'|'none'"):
        Agent("openai:any", **{name: "some"})


# When it cannot be written


def below_a_file(folder: Path) -> Path:
    """A path that nobody can make: a file stands where its folder should be."""
    (folder / "file").write_text("")
    return folder / "file" / "run.jsonl"


def in_proc(folder: Path) -> Path:
    """A path in a file system where nobody can write."""
    return Path("/proc/agentkit/run.jsonl")


UNWRITABLE = [
    below_a_file,
    pytest.param(in_proc, marks=pytest.mark.skipif(sys.platform != "linux", reason="has no /proc")),
]


@pytest.mark.parametrize("where", UNWRITABLE)
async def test_an_unwritable_file_is_said_once_and_the_run_goes_on(
    where: Callable[[Path], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The trace is kept in memory then."""
    result = await agent().run("go", trace=where(tmp_path))
    assert result.trace is not None
    assert result.trace.path is None
    assert result.trace.status == "ok"
    assert len(caplog.records) == 1
    assert "kept in memory" in caplog.text


@pytest.mark.parametrize("where", UNWRITABLE)
async def test_an_unwritable_file_is_an_error_where_effects_must_be_durable(
    where: Callable[[Path], Path], tmp_path: Path
) -> None:
    """Nothing is asked and nothing is done."""
    with pytest.raises(TraceError, match="cannot be written"):
        await agent(durability="effects").run("go", trace=where(tmp_path))
    assert done == []


async def test_effects_need_a_file_to_be_durable_in() -> None:
    """A trace in memory survives nothing."""
    with pytest.raises(ConfigurationError, match="needs trace= to be"):
        await agent(durability="effects").run("go")


FULL_DISK = """
import logging, resource, sys
from agentkit import Agent, tool
from agentkit.testing import ScriptedModel

@tool
def write(text: str) -> str:
    print("wrote", flush=True)
    return "x" * 3000

logging.basicConfig(stream=sys.stdout, format="said: %(message)s")
script = [[("write", {"text": "a"})], [("write", {"text": "b"})], "done"]
agent = Agent(ScriptedModel(script), tools=[write], durability=sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    result = agent.run_sync("go", trace=sys.argv[1])
    print(result.output, result.trace.status)
except Exception as error:
    print(type(error).__name__, error.result.status)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
@pytest.mark.parametrize(
    ("durability", "size", "printed"),
    [
        ("none", 3000, ["wrote", "said", "wrote", "done interrupted"]),
        ("none", 10, ["said", "wrote", "wrote", "done ok"]),
        ("effects", 3000, ["wrote", "said", "TraceError error"]),
    ],
)
def test_a_file_that_can_grow_no_more(
    durability: str, size: int, printed: list[str], tmp_path: Path
) -> None:
    """The run goes on and it is said once; with durable effects nothing more is done."""
    command = ["-c", FULL_DISK, str(tmp_path / "run.jsonl"), durability, str(size)]
    output = subprocess.run(
        [LOADED.executable(), *command],
        env=child_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    told = [line.partition(":")[0] for line in output.splitlines()]
    assert told == printed


# Durability


@pytest.mark.parametrize(
    ("durability", "moments"),
    [
        ("none", []),
        ("close", ["close"]),
        # After the answer, before the writing tool and after it, after the answer, at the end.
        ("effects", ["model.end", "tool.start", "tool.end", "model.end", "close"]),
    ],
)
async def test_when_lines_are_brought_to_the_disk(
    durability: Any, moments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never, at the end, or around every effect."""
    path, synced = tmp_path / "run.jsonl", list[str]()

    def sync(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            synced.append(trace_lines(path)[-1]["event"].replace("trace.close", "close"))

    monkeypatch.setattr(sinks.os, "fsync", sync)
    await agent(durability=durability).run("go", trace=path)
    assert synced == moments


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_run_that_lost_its_trace_can_be_told_from_its_error(tmp_path: Path) -> None:
    """With durable effects, what was done before stays done and answered."""
    path = tmp_path / "run.jsonl"

    @tool(name="lose")
    def losing_tool() -> str:
        """Take the file away from under the recorder."""
        lose(path)
        return "lost"

    model = ScriptedModel([[("lose", {})], [("write", {"text": "too late"})], "done"])
    losing = Agent(model, tools=[losing_tool, write], durability="effects")
    with pytest.raises(TraceError, match="cannot be written any more") as caught:
        await losing.run("go", trace=path)
    assert done == []
    assert caught.value.result is not None
    assert caught.value.result.messages[-1].text == "lost"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_with_durable_effects_the_last_answer_has_to_be_written_too(tmp_path: Path) -> None:
    """A resumption would ask the model again, so the run has not ended well."""
    path = tmp_path / "run.jsonl"

    def answer(_: Any) -> str:
        lose(path)
        return "all is said"

    losing = Agent(FunctionModel(answer), durability="effects")
    with pytest.raises(TraceError, match="cannot be written any more"):
        await losing.run("go", trace=path)


def lose(path: Path) -> None:
    """Take a file away from under whoever writes it."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.path.samestat(os.fstat(int(name)), path.stat()):
                os.dup2(os.open("/dev/full", os.O_WRONLY), int(name))


async def test_durable_runs_resume(tmp_path: Path) -> None:
    """A resumption is as durable as the run was."""

    @tool(approval=True)
    def ask() -> str:
        """Needs a person."""
        return "asked"

    path = tmp_path / "run.jsonl"
    asking = Agent(ScriptedModel([[("ask", {})], "done"]), tools=[ask], durability="effects")
    paused = await asking.run("go", trace=path)
    assert paused.status == "paused"
    result = await asking.resume(path, decisions={paused.pending[0].at: True})
    assert result.output == "done"


# where the file is


async def test_a_tool_that_changes_the_folder_leaves_the_trace_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is resolved when the run starts."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    @tool
    def move() -> str:
        """Change the folder."""
        os.chdir(tmp_path / "elsewhere")
        return "moved"

    mover = Agent(ScriptedModel([[("move", {})], "Done."]), tools=[move])
    result = await mover.run("go", trace="runs/one.jsonl", durability="effects")
    assert result.trace is not None
    assert (result.trace.status, result.trace.path) == ("ok", tmp_path / "runs/one.jsonl")
    assert not [*(tmp_path / "elsewhere").iterdir()]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "~nobody-has-this-name/x", "\udc80\ud800"])
async def test_a_path_that_cannot_be_written_is_said_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run goes on in memory; a journal that is needed is refused with one error."""
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING, logger="agentkit"):
        result = await Agent(ScriptedModel(["hi"])).run("go", trace=f"{name}/y.jsonl")
    assert (result.output, len(caplog.records)) == ("hi", 1)
    assert "cannot be written" in caplog.text
    assert result.trace is not None
    assert result.trace.status == "ok"
    with pytest.raises(TraceError, match="cannot be written"):
        await Agent(ScriptedModel(["hi"])).run("go", trace=f"{name}/y.jsonl", durability="effects")


async def test_a_folder_without_permission_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where looking at the path is what is refused."""

    def refused(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refused)
    with caplog.at_level(logging.WARNING, logger="agentkit"):
        result = await Agent(ScriptedModel(["hi"])).run("go", trace=tmp_path / "x.jsonl")
    monkeypatch.undo()
    assert (result.output, len(caplog.records)) == ("hi", 1)
    assert "Permission denied" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be synced there")
async def test_new_folders_are_synced_with_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, its folder, and those above that were made for it, before a tool writes."""
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    @tool
    def write() -> str:
        """Write something."""
        assert {*synced} == {str(path) for path in (file, file.parent, tmp_path / "a", tmp_path)}
        return "written"

    file = tmp_path / "a" / "b" / "run.jsonl"
    monkeypatch.setattr(os, "fsync", fsync)
    writer = Agent(ScriptedModel([[("write", {})], "Done."]), tools=[write])
    result = await writer.run("go", trace=file, durability="effects")
    assert result.output == "Done."


@pytest.mark.parametrize("durability", ["none", "effects"])
async def test_listeners_hear_events_in_the_order_of_the_trace(
    durability: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where calls end while others wait for a slow disk."""
    slow = iter([0.02, 0.0, 0.03, 0.0, 0.01] * 100)
    fsync = os.fsync

    def wait(descriptor: int) -> None:
        time.sleep(next(slow))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", wait)

    @tool
    async def work(number: int) -> str:
        """Work for a while."""
        await anyio.sleep(number % 3 / 100)
        return "done"

    calls: list[Any] = [("work", {"number": number}) for number in range(8)]
    heard: list[tuple[str, str]] = []

    def listen(event: Event) -> None:
        name = {"ToolCallStarted": "tool.start", "ToolCallFinished": "tool.end"}
        if (kind := name.get(type(event).__name__)) is not None:
            heard.append((kind, event.at))

    agent = Agent(ScriptedModel([calls, "Done."]), tools=[work])
    path = tmp_path / "x.jsonl"
    result = await agent.run("go", trace=path, durability=durability, on_event=listen)
    assert result.trace is not None
    assert heard == [
        (one["event"], one["at"])
        for one in result.trace.events
        if one["event"] in ("tool.start", "tool.end")
    ]
