"""Reading traces: of any size, cut anywhere, damaged, from older versions, with blobs beside."""

from __future__ import annotations

import gc
import json
import os
import random
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentkit import Agent, ChatSettings, Trace, tool
from agentkit.errors import AgentKitError, TraceCorrupt, TraceError, TraceUnsupported
from agentkit.messages import AssistantMessage, ModelResponse, ToolCall
from agentkit.testing import ScriptedModel
from agentkit.trace import RecordedEffect
from agentkit.trace.naming import canonical, digest
from tests.support import run_python, sized

pytestmark = pytest.mark.anyio

BIG = 5_000_000
"""Bytes beyond which a file's lines are not kept in memory."""


@tool(effect="read")
def look(number: int) -> str:
    """Look at a number."""
    return f"It is {number}."


@tool
def write(number: int) -> str:
    """Write a number."""
    return "written"


@tool(approval=True)
def delete(number: int) -> str:
    """Delete a number."""
    return "deleted"


def agent(*script: Any) -> Agent[str]:
    """An agent with three tools."""
    return Agent(
        ScriptedModel(list(script)),
        tools=[look, write, delete],
        instructions="Count.",
        settings=ChatSettings(seed=1),
    )


@pytest.fixture(scope="module")
def recorded() -> bytes:
    """A trace of two steps, whose first has two calls."""
    script = [[("look", {"number": 1}), ("write", {"number": 2})], "Three."]
    trace = agent(*script).run_sync("Go").trace
    assert trace is not None
    assert trace.kept is not None
    return b"".join(trace.kept)


def line(**event: Any) -> bytes:
    """One line of a trace."""
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


OPEN = line(event="trace.open", seq=0, t=0, schema="agentkit.trace/1", run="0" * 32)


# laziness


def test_events_are_a_sequence(recorded: bytes, tmp_path: Path) -> None:
    """Length, indexes from both ends, slices, both directions and equality, without blobs."""
    path = tmp_path / "run.jsonl"
    path.write_bytes(recorded)
    events = Trace.load(path).events
    plain = [one for one in map(json.loads, recorded.splitlines()) if one["event"] != "blob"]
    assert len(events) == len(plain)
    assert [*events] == plain
    assert events == plain
    assert plain == events
    assert events != plain[:-1]
    assert (events[0], events[-1]) == (plain[0], plain[-1])
    assert events[1:3] == plain[1:3]
    assert [*reversed(events)] == plain[::-1]
    assert plain[2] in events
    with pytest.raises(IndexError):
        events[len(plain)]


def test_blobs_are_a_mapping(recorded: bytes) -> None:
    """By hash, each once, with what the lines have."""
    blobs = Trace(recorded.splitlines(keepends=True)).blobs
    lines = [one for one in map(json.loads, recorded.splitlines()) if one["event"] == "blob"]
    assert dict(blobs) == {one["h"]: one["data"] for one in lines}
    assert len(blobs) == len(lines)
    assert "b2:none" not in blobs
    with pytest.raises(KeyError):
        blobs["b2:none"]


def big_file(path: Path, content: bytes) -> None:
    """The trace, with as many log lines as make it a big one, before its last line."""
    head, _, last = content.removesuffix(b"\n").rpartition(b"\n")
    log = line(event="log", seq=0, t=0, at="/agent", text="x" * 1000)
    path.write_bytes(head + b"\n" + log * (BIG // len(log)) + last + b"\n")


def test_a_big_file_reads_like_a_small_one(recorded: bytes, tmp_path: Path) -> None:
    """What is read on demand from the file is what is read from memory."""
    small, big = Trace(recorded.splitlines(keepends=True)), tmp_path / "big.jsonl"
    big_file(big, recorded)
    trace = Trace.load(big)
    assert [event for event in trace.events if event["event"] != "log"] == small.events
    assert trace.events[-1] == small.events[-1]
    assert dict(trace.blobs) == dict(small.blobs)
    assert (trace.status, trace.input(), trace.options()) == ("ok", small.input(), small.options())
    assert trace.kept is None
    assert trace.save(tmp_path / "copy.jsonl").read_bytes() == big.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be replaced there")
def test_a_big_file_is_the_one_that_was_loaded(recorded: bytes, tmp_path: Path) -> None:
    """What is appended later is not seen, and neither is a file that takes its place."""
    path = tmp_path / "big.jsonl"
    big_file(path, recorded)
    trace = Trace.load(path)
    before = len(trace.events), trace.events[-1]
    with path.open("ab") as file:
        file.write(line(event="log", seq=0, t=0, at="/agent"))
    (tmp_path / "other").write_bytes(OPEN)
    (tmp_path / "other").replace(path)
    assert (len([*trace.events]), trace.events[-1]) == before


def test_a_big_file_that_is_cut_under_its_reader(recorded: bytes, tmp_path: Path) -> None:
    """It is a located corruption, not another error."""
    path = tmp_path / "big.jsonl"
    big_file(path, recorded)
    trace = Trace.load(path)
    os.truncate(path, 1000)
    with pytest.raises(TraceCorrupt, match=r"Line \d+ of the trace") as caught:
        _ = trace.events[-1]
    assert caught.value.line == trace.lines


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_no_descriptor_is_left_behind(recorded: bytes, tmp_path: Path) -> None:
    """A small file is closed when it is loaded, a big one when its trace is gone."""
    small, big = tmp_path / "small.jsonl", tmp_path / "big.jsonl"
    small.write_bytes(recorded)
    big_file(big, recorded)

    def opened() -> int:
        links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        return sum(link.is_symlink() and link.resolve() in (small, big) for link in links)

    kept = [Trace.load(small) for _ in range(20)]
    assert opened() == 0
    kept.append(Trace.load(big))
    next(iter(kept[-1].events))
    assert opened() == 1
    kept.clear()
    gc.collect()
    assert opened() == 0


MEASURE = """
import sys, tracemalloc
from agentkit import Trace
tracemalloc.start()
trace = Trace.load(sys.argv[1])
assert sum(1 for _ in trace.events) == trace.lines - len(trace.blobs)
assert sum(len(trace.blob(name)["content"]) for name in trace.blobs) > 50_000_000
print(tracemalloc.get_traced_memory()[1])
"""


@pytest.mark.storm_only
def test_memory_does_not_grow_with_the_contents(tmp_path: Path) -> None:
    """A trace of 64 MB is opened, and all of it read, in less than a tenth of its size."""
    path = tmp_path / "run.jsonl"
    with path.open("wb") as file:
        file.write(OPEN)
        for number in range(8000):
            data = {"role": "tool", "content": f"{number} " + "text " * 1600, "tool_call_id": "c"}
            name = digest(canonical(data))
            at = f"/agent/m{number}/t0"
            file.write(line(event="blob", seq=0, t=0, h=name, kind="message", data=data))
            file.write(line(event="tool.end", seq=0, t=0, at=at, status="ok", message=name))
    size = path.stat().st_size
    assert size > 64_000_000
    done = run_python("-c", MEASURE, str(path))
    assert int(done.stdout) < size / 10


def test_a_live_list_is_read_as_it_was(recorded: bytes, tmp_path: Path) -> None:
    """Lines that are added to a trace in memory later are not part of it."""
    lines = recorded.splitlines(keepends=True)
    whole, last = lines[:], lines.pop()
    trace = Trace(lines)
    lines.append(last)
    assert (trace.status, trace.lines) == ("interrupted", len(whole) - 1)
    assert trace.kept == whole[:-1]
    assert trace.save(tmp_path / "saved.jsonl").read_bytes() == b"".join(whole[:-1])


# torn and damaged


async def test_a_trace_cut_anywhere_loads_replays_and_resumes(recorded: bytes) -> None:
    """At every byte: what is whole is there, and what follows is an agentkit error or none."""
    header = recorded.index(b"\n")
    ends = [index + 1 for index, byte in enumerate(recorded) if byte == 10]
    for cut in range(len(recorded) + 1):
        lines = recorded[:cut].splitlines(keepends=True)
        if cut < header:
            with pytest.raises(TraceUnsupported):
                Trace(lines)
            continue
        trace = Trace(lines)
        whole = sum(end <= cut for end in ends)
        unended = cut + 1 in ends  # all of a line but its newline
        assert trace.lines == whole + unended
        assert trace.torn == (cut not in ends)
        assert trace.status == ("ok" if cut >= len(recorded) - 1 else "interrupted")
        if cut in ends or cut % 97 == 0:  # between two ends of lines there is nothing new
            await outcome_of(trace)


async def outcome_of(trace: Trace) -> None:
    """Replay and resume it; anything but an `AgentKitError` fails the test."""
    for work in (agent().replay(trace), agent("Three.", "Three.").resume(trace)):
        with suppress(AgentKitError):
            await work


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_is_located(recorded: bytes, data: st.DataObject) -> None:
    """A line that is no event any more is named; a change that leaves one is as good as another."""
    place = data.draw(st.integers(0, len(recorded) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda one: one != recorded[place]))
    changed = recorded[:place] + bytes([byte]) + recorded[place + 1 :]
    number = recorded[:place].count(b"\n") + 1
    named = number
    try:
        trace = Trace(lines_of(changed))
    except TraceCorrupt as error:
        named = error.line
    except TraceUnsupported:
        named = 1
    else:
        assert len([*trace.events]) + len(trace.blobs) <= trace.lines
    assert named == number


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("agent.start", "input"),
        ("model.start", "seq"),
        ("model.end", "t"),
        ("model.end", "message"),
        ("model.end", "finish"),
        ("model.end", "usage"),
        ("tool.end", "seq"),
        ("tool.end", "message"),
        ("agent.end", "usage"),
        ("trace.close", "seq"),
    ],
)
async def test_a_field_that_is_needed(recorded: bytes, name: str, field: str) -> None:
    """Without it nothing is replayed or gone on with, and the event and the field are named."""
    trace = edited(recorded, name, lambda event: event.pop(field))
    for work in (agent().replay(trace), agent().resume(trace)):
        with pytest.raises(TraceCorrupt, match=rf"\({name}\) has no '{field}'\.$"):
            await work


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("trace.open", "redaction", 7),
        ("model.start", "params", None),
        ("model.start", "tools", []),
        ("model.end", "usage", 7),
        ("tool.end", "seq", "z"),
        ("tool.end", "error", "z"),
    ],
)
async def test_a_field_of_another_kind(recorded: bytes, name: str, field: str, value: Any) -> None:
    """It is named before anything begins, with what it is."""
    trace = edited(recorded, name, lambda event: event.update({field: value}))
    told = re.escape(f"({name}) has {value!r} as {field!r}; expected ")
    for work in (agent().replay(trace), agent().resume(trace)):
        with pytest.raises(TraceCorrupt, match=told):
            await work


async def test_a_message_that_is_none(recorded: bytes) -> None:
    """A blob holds what it is said to hold."""
    trace = edited(recorded, "blob", lambda event: event.update(data=7), kind="message")
    with pytest.raises(TraceCorrupt, match="7 is no message"):
        await agent().replay(trace)


def no_instructions() -> str:
    """They fail."""
    raise AgentKitError("the script has ended")


@pytest.mark.parametrize(
    ("name", "instructions"), [("model.end", "Count."), ("compute.end", no_instructions)]
)
async def test_an_end_in_an_error_needs_the_error(name: str, instructions: Any) -> None:
    """And not what an answer has."""
    failing = Agent(ScriptedModel([]), instructions=instructions)
    with pytest.raises(AgentKitError, match=r"used up|has ended") as failed:
        await failing.run("Go")
    assert failed.value.trace is not None
    with pytest.raises(AgentKitError, match=r"used up|has ended"):
        await failing.replay(failed.value.trace)
    lines = b"".join(failed.value.trace.raw())
    broken = edited(lines, name, lambda event: event.pop("error"))
    with pytest.raises(TraceCorrupt, match=rf"\({name}\) has no 'error'"):
        await failing.replay(broken)


@pytest.mark.parametrize(
    ("field", "value"),
    [("earlier", None), ("earlier", "1"), ("messages", None), ("messages", 7), ("messages", [[]])],
)
async def test_the_input_that_is_needed(recorded: bytes, field: str, value: Any) -> None:
    """What an agent began with has its shape, or is named."""
    plain = next(
        one for one in map(json.loads, recorded.splitlines()) if one.get("kind") == "input"
    )
    data = plain["data"] | {field: value}
    renamed = recorded.replace(plain["h"].encode(), digest(canonical(data)).encode())
    trace = edited(renamed, "blob", lambda event: event.update(data=data), kind="input")
    for work in (agent().replay(trace), agent().resume(trace)):
        with pytest.raises(TraceCorrupt, match=rf"\(agent.start\) has no 'input\.{field}'"):
            await work


async def test_any_field_left_out(recorded: bytes) -> None:
    """Each of each event, one at a time: replayed and gone on with, or an agentkit error."""
    lines = lines_of(recorded)
    for number, one in enumerate(lines):
        for field in json.loads(one):
            event = json.loads(one)
            del event[field]
            with suppress(AgentKitError):
                await outcome_of(Trace([*lines[:number], line(**event), *lines[number + 1 :]]))


def edited(content: bytes, name: str, change: Callable[[Any], Any], **of: Any) -> Trace:
    """The trace with the events of this name, and of these fields, changed."""
    lines = lines_of(content)
    for number, one in enumerate(lines):
        event = json.loads(one)
        if {"event": name, **of}.items() <= event.items():
            change(event)
            lines[number] = line(**event)
    return Trace(lines)


def lines_of(content: bytes) -> list[bytes]:
    """As a file gives them: they end at a newline and nowhere else."""
    lines = [one + b"\n" for one in content.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (b'{"event":"tool.st\n', "Line 2 of the trace"),
        (b"[]\n", "it is not an event"),
        (b'{"event":7}\n', "it is not an event"),
        (line(event="log", t="soon"), "its t is not a number of microseconds"),
        (line(event="blob", t=0, h="b2:0"), "a blob without h or data"),
        (line(event="tool.start", t=0, tool="x"), "a tool.start without an address"),
        (line(event="model.end", t=0, at="/agent/m0"), "a model.end without a status"),
        (b'{"event":"log","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "nested too deep"),
        (b"\xff\xfe\n", "Line 2"),
        (b"\n", "Line 2"),
    ],
)
def test_a_bad_inner_line_is_named(bad: bytes, says: str) -> None:
    """The number of the line and what is wrong with it; also of a last line that is whole."""
    for lines in ([OPEN, bad, OPEN], [OPEN, bad]):
        with pytest.raises(TraceCorrupt, match=says) as caught:
            Trace(lines)
        assert caught.value.line == 2


def test_deep_values_that_were_written_are_read() -> None:
    """A value of 250 levels, which the quick parser refuses."""
    value: Any = 1
    for _ in range(250):
        value = [value]
    trace = Trace([OPEN, line(event="log", seq=1, t=1, at="/agent", value=value)])
    assert trace.events[1]["value"] == value


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_a_file_without_end_is_refused_at_once() -> None:
    """What does not begin like a trace is not read on."""
    with pytest.raises(TraceUnsupported, match="does not begin with"):
        Trace.load("/dev/zero")


# versions


@pytest.mark.parametrize("schema", ["agentkit.trace/0", "agentkit.trace/2", "agentkit.trace/x"])
def test_another_schema_is_refused(schema: str) -> None:
    """What it is, and what can be read."""
    header = line(event="trace.open", seq=0, t=0, schema=schema, run="0" * 32)
    with pytest.raises(TraceUnsupported, match=r"reads \'agentkit\.trace/1\' only") as caught:
        Trace([header])
    assert caught.value.schema == schema


# what a run waits for


async def test_pending_of_a_paused_run() -> None:
    """What the result names, read from the trace."""
    result = await agent([("delete", {"number": 1})]).run("Go")
    assert result.trace is not None
    assert result.trace.pending == result.pending
    assert [one.kind for one in result.pending] == ["approval"]


async def test_pending_of_text_that_is_not_whole() -> None:
    """An id with lone surrogates is as it was sent; arguments with some never wait."""
    call = ToolCall(id="\ud800", name="delete", arguments='{"number":1}')
    message = AssistantMessage(tool_calls=(call,))
    result = await agent(ModelResponse(message=message, finish="tool_calls")).run("Go")
    assert result.trace is not None
    assert [one.call.id for one in result.trace.pending] == ["\ud800"]
    assert result.trace.pending == result.pending
    told = await agent([("delete", '{"number":"\ud800"}')], "done").run("Go")
    assert "not valid Unicode" in told.messages[2].text


async def test_pending_of_an_interrupted_run(recorded: bytes) -> None:
    """The writing tool that was in flight; not the reading one, which is simply run again."""
    lines = recorded.splitlines(keepends=True)
    begun = max(number for number, one in enumerate(lines) if b'"tool.start"' in one)
    (pending,) = Trace(lines[: begun + 1]).pending
    assert (pending.at, pending.kind) == ("/agent/m0/t1", "in_flight")
    assert (pending.call.name, pending.call.arguments) == ("write", '{"number":2}')


async def test_pending_of_a_finished_run(recorded: bytes) -> None:
    """Nothing, also where something was decided on the way."""
    decided = await agent([("delete", {"number": 1})], "Done.").run("Go", approver=lambda _: True)
    assert decided.trace is not None
    assert decided.trace.pending == ()
    assert Trace(recorded.splitlines(keepends=True)).pending == ()


# errors


def test_a_folder_is_no_trace(tmp_path: Path) -> None:
    """It is said as the system says it, with the path."""
    with pytest.raises(TraceError, match="cannot be read") as caught:
        Trace.load(tmp_path)
    assert caught.value.path == str(tmp_path)


# untrusted input

HOSTILE: Any = [None, -1, 2**70, 1e300, "", "x", [], [7], {}, {"$nonjson": "int", "value": "x"}]


def read_all(trace: Trace) -> None:
    """Read all that a trace and its effects offer."""
    for name in ("capture", "key_id", "patch", "t", "run", "status", "pending"):
        getattr(trace, name)
    trace.options()
    trace.input()
    dict(trace.blobs)
    properties = [name for name in dir(RecordedEffect) if not name.startswith("_")]
    for effect in trace.effects.values():
        for name in properties:
            getattr(effect, name)
        repr(trace)


def test_any_field_of_another_type_is_a_corruption_or_no_matter(recorded: bytes) -> None:
    """Each field of each event, also in its objects, with each hostile value."""
    lines = lines_of(recorded)
    named: set[str] = set()
    for number, one in enumerate(lines):
        for path in paths_of(json.loads(one)):
            for value in HOSTILE:
                event = json.loads(one)
                put(event, path, value)
                try:
                    read_all(Trace([*lines[:number], line(**event), *lines[number + 1 :]]))
                except (TraceCorrupt, TraceUnsupported, TraceError) as error:
                    named |= {path[0]} if f"'{path[0]}'" in str(error) else set()
    assert {"at", "seq", "t", "usage", "message", "capture", "run", "status"} <= named


def paths_of(value: Any) -> Iterator[tuple[Any, ...]]:
    """The places in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (key,)
        if isinstance(item, (dict, list)):
            yield from ((key, *rest) for rest in paths_of(item))


def put(value: Any, path: tuple[Any, ...], new: Any) -> None:
    """Put another value in a place."""
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


@pytest.mark.storm
def test_damaged_text_is_a_corruption_or_no_matter(recorded: bytes) -> None:
    """Bytes are changed, left out or doubled, at many places."""
    rng = random.Random(7)
    for _ in range(sized(300, 1_500)):
        at, kind = rng.randrange(len(recorded)), rng.choice(["change", "drop", "double"])
        new = {"change": bytes([rng.randrange(256)]), "drop": b"", "double": recorded[at : at + 9]}
        data = recorded[:at] + new[kind] + recorded[at + 1 :]
        with suppress(TraceCorrupt, TraceUnsupported, TraceError):
            read_all(Trace(data.splitlines(keepends=True)))


@pytest.mark.parametrize("kind", ["message", "input", "tools"])
def test_a_blob_is_what_its_hash_says(recorded: bytes, kind: str) -> None:
    """A letter that has changed in a content is noticed when it is read."""
    lines = lines_of(recorded)
    number = next(n for n, one in enumerate(lines) if json.loads(one).get("kind") == kind)
    name = json.loads(lines[number])["h"]
    changed = lines[number].replace(b"user", b"usar").replace(b"earlier", b"Earlier")
    changed = changed.replace(b"function", b"Function")
    assert changed != lines[number]
    trace = Trace([*lines[:number], changed, *lines[number + 1 :]])
    with pytest.raises(TraceCorrupt, match=rf"'{name}' .*its content is another"):
        trace.blob(name)


def test_a_blob_may_be_formatted_anew(recorded: bytes) -> None:
    """White space and the order of keys are not part of what is hashed."""
    lines = [json.dumps(json.loads(one), indent=None).encode() for one in lines_of(recorded)]
    assert dict(Trace(lines).blobs) == dict(Trace(lines_of(recorded)).blobs)
