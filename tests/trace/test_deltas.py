"""The pieces of a streamed answer in the trace: their times, and nothing secret in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit import Agent, ChatModel, Redactor, Trace, tool
from agentkit.core.effects import Address
from agentkit.errors import AgentKitError
from agentkit.events import Event, ReasoningDelta, Restarted, TextDelta, ToolCallDelta
from agentkit.testing import HOLD, ChatServer, ScriptedModel, reply, sse
from agentkit.trace.deltas import Chunks
from tests.support import events_of

pytestmark = pytest.mark.anyio
AT = Address("/agent/m0")


@tool
def look(place: str) -> str:
    """Look at a place."""
    return "fine"


def piece(text: str) -> dict[str, Any]:
    """One event of a stream."""
    return {"choices": [{"index": 0, "delta": {"role": "assistant", "content": text}}]}


STOP: Any = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


async def streamed(server: ChatServer, path: Path | bool = True) -> tuple[Any, list[Event]]:
    """A run that is streamed, and its events."""
    async with (
        ChatModel("any", base_url=server.base_url, api_key="k", retries=1) as model,
        Agent(model, tools=[look]).stream("go", trace=path) as run,
    ):
        seen = [event async for event in run]
    return run, seen


async def test_pieces_are_recorded_before_the_end_of_their_call() -> None:
    """Text as it came, calls with their name and place, and when the first one came."""
    calls = [("look", {"place": "here"}), ("look", {"place": "there"})]
    with ChatServer([reply("Let me see.", calls=calls), reply("All fine.")]) as server:
        run, _ = await streamed(server)
    lines = events_of(run.result.trace, "model.start", "model.chunks", "model.end")
    assert [(line["event"], line["at"]) for line in lines] == [
        ("model.start", "/agent/m0"),
        ("model.chunks", "/agent/m0"),
        ("model.end", "/agent/m0"),
        ("model.start", "/agent/m1"),
        ("model.chunks", "/agent/m1"),
        ("model.end", "/agent/m1"),
    ]
    items = [item for _, item in lines[1]["d"]]
    texts = [item for item in items if isinstance(item, str)]
    assert "".join(texts) == "Let me see."
    for index, place in enumerate(("here", "there")):
        parts = [one for one in items if not isinstance(one, str) and one["index"] == index]
        assert {part["tool"] for part in parts} == {"look"}
        assert "".join(part["arguments"] for part in parts) == f'{{"place":"{place}"}}'
    times = [after for after, _ in lines[1]["d"]]
    assert lines[2]["first_chunk"] == times[0] > 0
    assert sum(times) <= lines[2]["t"] - lines[0]["t"] + 1000


async def test_runs_that_are_not_streamed_have_no_pieces() -> None:
    """What nobody saw in pieces is not recorded in pieces."""
    result = await Agent(ScriptedModel(["a word or two"])).run("go")
    assert events_of(result.trace, "model.chunks") == []
    assert "first_chunk" not in events_of(result.trace, "model.end")[0]


async def test_a_long_answer_is_written_while_it_comes(tmp_path: Path) -> None:
    """About 25 pieces make a line, and the line does not wait for the end."""
    path = tmp_path / "run.jsonl"
    words = [f" word{number}" for number in range(100)]
    events = [*map(piece, words), HOLD, STOP, "[DONE]"]
    seen = 0
    with ChatServer([sse(events)]) as server:
        model = ChatModel("any", base_url=server.base_url, api_key="k")
        async with model, Agent(model).stream("go", trace=path) as run:
            async for event in run:
                seen += isinstance(event, TextDelta)
                if seen == 100:
                    break
            early = events_of(Trace.load(path), "model.chunks")
            server.release()
            async for _ in run:
                pass
    lines = events_of(Trace.load(path), "model.chunks")
    assert 2 <= len(early) < len(lines)
    assert all(len(line["d"]) <= 51 for line in lines)
    assert [item for line in lines for _, item in line["d"]] == words


async def test_a_stream_that_breaks_keeps_its_pieces() -> None:
    """What had come is there, then the restart, then what came again."""
    broken = sse([piece("Hel"), piece("lo")], close_early=True)
    with ChatServer([broken, reply("Good day.")]) as server:
        run, seen = await streamed(server)
    assert any(isinstance(event, Restarted) for event in seen)
    (chunks,) = events_of(run.result.trace, "model.chunks")
    items = [item for _, item in chunks["d"]]
    assert items[:2] == ["Hel", "lo"]
    assert list(items[2]) == ["restarted"]
    assert "".join(items[3:]) == "Good day."


async def test_failed_and_cancelled_calls_keep_their_pieces() -> None:
    """They are written before the end that says so."""
    with ChatServer([sse([piece("Hel")], close_early=True)] * 2) as server:
        run, _ = await streamed(server)
        with pytest.raises(AgentKitError) as caught:
            _ = run.result
    kinds = [line["event"] for line in events_of(caught.value.trace, "model.chunks", "model.end")]
    assert kinds == ["model.chunks", "model.end"]

    with ChatServer([sse([piece("Hel"), HOLD])]) as server:
        model = ChatModel("any", base_url=server.base_url, api_key="k")
        async with model, Agent(model).stream("go") as run:
            async for event in run:
                if isinstance(event, TextDelta):
                    run.cancel("enough")
        lines = events_of(run.result.trace, "model.chunks", "model.end")
    assert [item for _, item in lines[0]["d"]] == ["Hel"]
    assert lines[1]["status"] == "cancelled"


SECRETS = st.sampled_from(
    [
        "sk-abcdefghijklmnopqrstuvwxyz",
        "ghp_abcdefghijklmnopqrstuvwxyz",
        "Bearer abcdefghijklmnop",
        "https://ada:l0velace@example.org",
        "-----BEGIN PRIVATE KEY-----\nabc def\n-----END PRIVATE KEY-----",
    ]
)
TEXTS = st.lists(SECRETS | st.text(max_size=12) | st.sampled_from([" ", "日本語", "\n"]))


@given(TEXTS, st.lists(st.integers(1, 9), min_size=1), st.sampled_from([None, "words"]))
def test_a_secret_in_pieces_is_a_secret(parts: list[str], cuts: list[int], own: Any) -> None:
    """However a text is cut, its pieces join to the redacted text."""
    text = "".join(parts)
    redact = Redactor(key=b"k", patterns={"own": "日本"} if own else {})
    chunks, written, start, count = Chunks(redact), list[Any](), 0, 0
    while start < len(text):
        end = start + cuts[count % len(cuts)]
        written += chunks.take(TextDelta(at=AT, text=text[start:end]))
        start, count = end, count + 1
    written += chunks.rest()
    assert len(written) == count
    assert "".join(item for _, item in written) == redact(text)


async def test_texts_of_different_kinds_are_redacted_apart() -> None:
    """A key in the reasoning is found though other pieces come between its halves."""
    chunks = Chunks(Redactor(key=b"k"))
    call = AT.call(0)
    for half in ("sk-abcdefghijkl", "mnopqrstuvwxyz"):
        chunks.take(ReasoningDelta(at=AT, text=half))
        chunks.take(TextDelta(at=AT, text="so "))
        chunks.take(ToolCallDelta(at=call, name="look", arguments=half))
    hidden = Redactor(key=b"k")("sk-abcdefghijklmnopqrstuvwxyz")
    assert [item for _, item in chunks.rest()] == [
        {"reasoning": hidden},
        "so ",
        {"tool": "look", "arguments": hidden, "index": 0},
        {"reasoning": ""},
        "so ",
        {"tool": "look", "arguments": "", "index": 0},
    ]


async def test_the_first_piece_is_shown_before_anything_is_written(tmp_path: Path) -> None:
    """A listener has it while the trace still waits for more."""
    path = tmp_path / "run.jsonl"
    with ChatServer([sse([piece("Hello"), HOLD, STOP, "[DONE]"])]) as server:
        model = ChatModel("any", base_url=server.base_url, api_key="k")
        async with model, Agent(model).stream("go", trace=path) as run:
            with anyio.fail_after(60):
                async for event in run:
                    if isinstance(event, TextDelta):
                        break
            assert events_of(Trace.load(path), "model.chunks") == []
            server.release()
            async for _ in run:
                pass
    assert len(events_of(Trace.load(path), "model.chunks")) == 1
