"""The trace: what is written, what is never written, and what can be read again."""

from __future__ import annotations

import json
import logging
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from agentkit import Agent, Trace, tool
from agentkit.errors import ConfigurationError, TraceCorrupt, TraceError, TraceUnsupported
from agentkit.redaction import Redactor
from agentkit.testing import ScriptedModel
from agentkit.trace.file import FileSink
from agentkit.trace.naming import canonical, packed, unpacked
from tests.support import double, trace_lines

pytestmark = pytest.mark.anyio


def agent(*script: Any, **options: Any) -> Agent[str]:
    """An agent with one tool."""
    return Agent(ScriptedModel(list(script)), tools=[double], **options)


def two_steps() -> Agent[str]:
    """A run with a batch of two calls."""
    return agent([("double", {"number": 1}), ("double", {"number": 2})], "2 and 4")


async def test_events_of_a_run(tmp_path: Path) -> None:
    """Starts and ends pair up, and the file opens and closes."""
    path = tmp_path / "run.jsonl"
    await two_steps().run("go", trace=path)
    events = [(e["event"], e.get("at")) for e in trace_lines(path) if e["event"] != "blob"]
    assert events[:4] == [
        ("trace.open", None),
        ("agent.start", "/agent"),
        ("model.start", "/agent/m0"),
        ("model.end", "/agent/m0"),
    ]
    assert sorted(events[4:8]) == [
        ("tool.end", "/agent/m0/t0"),
        ("tool.end", "/agent/m0/t1"),
        ("tool.start", "/agent/m0/t0"),
        ("tool.start", "/agent/m0/t1"),
    ]
    assert events[8:] == [
        ("model.start", "/agent/m1"),
        ("model.end", "/agent/m1"),
        ("agent.end", "/agent"),
        ("trace.close", None),
    ]


async def test_fields_come_first_and_are_counted(tmp_path: Path) -> None:
    """Each line begins with event, seq and t; seq has no gap; the close counts the lines."""
    path = tmp_path / "run.jsonl"
    await two_steps().run("go", trace=path)
    events = trace_lines(path)
    assert all(list(event)[:3] == ["event", "seq", "t"] for event in events)
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert events[-1]["lines"] == len(events)
    times = [event["t"] for event in events]
    assert times == sorted(times)


async def test_each_blob_is_written_once(tmp_path: Path) -> None:
    """Messages are blobs, referred to by hash from every later request."""
    path = tmp_path / "run.jsonl"
    await two_steps().run("go", trace=path)
    events = trace_lines(path)
    blobs = [event["h"] for event in events if event["event"] == "blob"]
    assert len(blobs) == len(set(blobs))
    starts = [event for event in events if event["event"] == "model.start"]
    assert [event["since"] for event in starts] == [None, "/agent/m0"]
    first, second = (Trace.load(path).effects[event["at"]].messages for event in starts)
    assert list(second) == [*first, *starts[1]["messages"]]
    assert set(second) <= set(blobs)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
async def test_file_is_private(tmp_path: Path) -> None:
    """Only the owner may read a trace."""
    path = tmp_path / "run.jsonl"
    await agent("hi").run("go", trace=path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_folder_gets_a_file_for_each_run(tmp_path: Path) -> None:
    """A folder holds one file a run, named by its id, so names sort by time."""
    chatty = agent("one", "two", trace=tmp_path / "runs")
    ids = [(await chatty.run("go")).run, (await chatty.run("go")).run]
    assert sorted(path.stem for path in (tmp_path / "runs").iterdir()) == sorted(ids)


async def test_environment_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AGENTKIT_TRACE_DIR is used where nothing else is said, and only there."""
    monkeypatch.setenv("AGENTKIT_TRACE_DIR", str(tmp_path / "env"))
    result = await agent("hi").run("go")
    assert result.trace is not None
    assert result.trace.path == tmp_path / "env" / f"{result.run}.jsonl"
    assert (await agent("hi").run("go", trace=False)).trace is None


async def test_memory_trace_saves_the_same_file(tmp_path: Path) -> None:
    """Without a path the trace is kept in memory and can be saved afterwards."""
    result = await two_steps().run("go")
    assert result.trace is not None
    saved = result.trace.save(tmp_path / "saved.jsonl")
    assert Trace.load(saved).events == result.trace.events
    with pytest.raises(TraceError, match="exists"):
        result.trace.save(saved)


async def test_a_trace_holds_one_run(tmp_path: Path) -> None:
    """A second run does not overwrite the first one's file."""
    path = tmp_path / "run.jsonl"
    await agent("hi").run("go", trace=path)
    with pytest.raises(ConfigurationError, match="exists already"):
        await agent("hi").run("go", trace=path)


async def test_secrets_never_reach_the_trace(tmp_path: Path) -> None:
    """Key-shaped text is replaced in prompts, arguments, results and errors alike."""
    secret = "sk-abcdefghijklmnopqrstuvwxyz123456"

    @tool
    def leak(text: str) -> str:
        return f"Bearer {secret} {text}"

    @tool
    def fail(text: str) -> str:
        raise ValueError(text)

    model = ScriptedModel([[("leak", {"text": secret}), ("fail", {"text": secret})], secret])
    path = tmp_path / "run.jsonl"
    result = await Agent(model, tools=[leak, fail], instructions=secret).run(secret, trace=path)
    assert result.output == secret
    assert secret not in path.read_text()
    assert "⟦api_key:" in path.read_text()


def test_equal_secrets_stay_equal_under_one_key() -> None:
    """The placeholder is a keyed hash: same secret, same key, same placeholder."""
    one, other = Redactor(key=b"1"), Redactor(key=b"2")
    secret = "ghp_abcdefghijklmnopqrstuvwxyz"
    assert one(secret) == one(f"{secret}")
    assert one(secret) != other(secret)
    assert one.key_id != other.key_id


async def test_application_logging_is_left_alone() -> None:
    """Neither structlog.configure nor capture_logs touches a trace, nor a trace them."""

    def swallow(*_: Any) -> Any:
        raise structlog.DropEvent

    structlog.configure(processors=[swallow])
    try:
        with structlog.testing.capture_logs() as captured:
            result = await agent("hi").run("go")
    finally:
        structlog.reset_defaults()
    assert result.trace is not None
    assert result.trace.status == "ok"
    assert captured == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_full_disk_is_said_once_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A recorder that cannot write warns once and never kills the run."""

    def full(self: FileSink, path: Path, **_: Any) -> None:
        self.path = path
        self._descriptor = os.open("/dev/full", os.O_WRONLY)  # pyright: ignore[reportPrivateUsage]

    monkeypatch.setattr(FileSink, "__init__", full)
    with caplog.at_level(logging.WARNING, logger="agentkit"):
        assert (await agent("hi").run("go", trace="x.jsonl")).output == "hi"
    assert len(caplog.records) == 1


async def test_torn_last_line_is_a_crash_not_an_error(tmp_path: Path) -> None:
    """A trace cut at every byte of its last lines loads, and says that it was interrupted."""
    path = tmp_path / "run.jsonl"
    await agent("hi").run("go", trace=path)
    data = path.read_bytes()
    header = data.index(b"\n") + 1
    for cut in range(header, len(data)):
        path.write_bytes(data[:cut])
        trace = Trace.load(path)
        assert trace.torn == (data[cut - 1 : cut] != b"\n")
        assert trace.status == ("ok" if cut == len(data) - 1 else "interrupted")


async def test_bad_inner_line_is_located(tmp_path: Path) -> None:
    """Corruption before the last line names the line."""
    path = tmp_path / "run.jsonl"
    await agent("hi").run("go", trace=path)
    broken = path.read_bytes().splitlines(keepends=True)
    broken[2] = b'{"event": "model.st\n'
    path.write_bytes(b"".join(broken))
    with pytest.raises(TraceCorrupt, match="Line 3") as caught:
        Trace.load(path)
    assert caught.value.line == 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "does not begin with"),
        (b'{"event":"hello"}\n', "does not begin with"),
        (b'{"event":"trace.open","seq":0,"t":0,"schema":"agentkit.trace/9"}\n', "Upgrade"),
        (b'{"event":"trace.open","seq":0,"t":0,"schema":"other/1"}\n', "other/1"),
    ],
)
def test_what_is_not_a_trace_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    """Another file, or a newer schema, is named as such."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(TraceUnsupported, match=says):
        Trace.load(path)


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is a TraceError with its path."""
    with pytest.raises(TraceError, match="No such file"):
        Trace.load(tmp_path / "none.jsonl")


async def test_unknown_events_are_kept(tmp_path: Path) -> None:
    """Events of a later version stay readable."""
    path = tmp_path / "run.jsonl"
    await agent("hi").run("go", trace=path)
    more = b'{"event":"novelty","seq":99,"t":1}\n'
    path.write_bytes(path.read_bytes() + more)
    assert Trace.load(path).events[-1]["event"] == "novelty"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_what_json_cannot_hold_comes_back(value: Any) -> None:
    """Infinities, wide integers and lone surrogates are marked, not changed."""
    line = canonical(packed(value, Redactor(key=b"k")))
    assert unpacked(json.loads(line)) == value
