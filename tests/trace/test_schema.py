"""The one table of events: what is written fits it, and what does not fit is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentkit import Agent, ChatSettings, Decision, Handoff, Limits, RunContext, Trace, tool
from agentkit.errors import TraceCorrupt
from agentkit.models import ChatModel
from agentkit.testing import ChatServer, ScriptedModel, raw, reply
from agentkit.trace.schema import ADDRESSED, AT, ENDS, EVENTS, FRAME, Capture, Field, problems
from tests.support import ROOT

pytestmark = pytest.mark.anyio


@tool(effect="read")
def roll(ctx: RunContext[None], sides: int) -> str:
    """Roll a die."""
    ctx.progress("rolling")
    return f"{ctx.random()} of {sides}"


@tool(approval=True)
def delete(path: str) -> str:
    """Delete a file."""
    return f"deleted {path}"


async def recorded(folder: Path, capture: Capture) -> list[dict[str, Any]]:
    """The events of runs in which every kind of event but `log` is written."""
    options: Any = {"capture": capture, "settings": ChatSettings(seed=1)}
    tools = [roll, delete]
    calls: list[Any] = [("roll", '{"sides": 6,}'), ("delete", {"path": "a"})]
    paused = Agent(ScriptedModel([calls]), tools=tools, instructions=lambda: "Roll.")
    await paused.run("go", trace=folder / "paused.jsonl", **options)
    if capture == "full":
        again = Agent(ScriptedModel(["Done."]), tools=tools, instructions=lambda: "Roll.")
        decisions = {"/agent/m0/t1": Decision.deny("no", by="Ada")}
        await again.resume(folder / "paused.jsonl", decisions=decisions)
    replies = [raw(429, b"", {"retry-after": "0"}), reply("Let me see.", calls=[("roll", {})])]
    with ChatServer([*replies, reply("Done.")]) as server:
        async with ChatModel("any", base_url=server.base_url, api_key="k", retries=1) as model:
            streaming = Agent(model, tools=tools)
            async with streaming.stream("go", trace=folder / "streamed.jsonl", **options) as run:
                async for _ in run:
                    pass
    other = Agent(ScriptedModel(["Mine."]), name="other")
    front = Agent(ScriptedModel([[("transfer_to_other", {})]]), tools=[Handoff(other)])
    await front.run("go", trace=folder / "handoff.jsonl", **options)
    paths = [folder / f"{name}.jsonl" for name in ("paused", "streamed", "handoff")]
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


async def test_what_is_written_is_in_the_table(tmp_path: Path) -> None:
    """Every event and every field, in the order of the table, and nothing that it lacks."""
    events = await recorded(tmp_path, "full")
    assert {event["event"] for event in events} == EVENTS.keys() - {"log"}
    for event in events:
        assert [*problems(event)] == []
        schema = EVENTS[event["event"]]
        known = [*FRAME, *(["at"] if schema.addressed else []), *schema.fields]
        assert [name for name in known if name in event] == [*event]


@pytest.mark.parametrize("capture", ["metadata", "none"])
async def test_what_is_kept_is_in_the_table(tmp_path: Path, capture: Capture) -> None:
    """Below full capture there are the fields that this level keeps, and no others."""
    levels = ["none", "metadata", "full"]
    level = levels.index(capture)
    events = await recorded(tmp_path, capture)
    assert {event["event"] for event in events} >= {"agent.start", "trace.close"}
    for event in events:
        assert [*problems(event, capture)] == []
        fields = EVENTS[event["event"]].fields
        own = event.keys() - FRAME.keys() - {"at"}
        assert own <= {name for name, one in fields.items() if levels.index(one.kept) <= level}


def test_the_table_is_sound() -> None:
    """Pairs begin and end, and what must be there is kept where its event is."""
    for name in EVENTS:
        if name.endswith(".start"):
            assert name.replace(".start", ".end") in EVENTS
    assert {"trace.close", "agent.end", "model.end", "tool.end", "compute.end"} == ENDS
    assert {"trace.open", "blob"}.isdisjoint(ADDRESSED)
    assert {"log", "warning", "http.start", "tool.pending"} <= ADDRESSED


OK = {"event": "model.end", "seq": 1, "t": 2, "at": "/agent/m0", "status": "ok"}
WHOLE = {**OK, "message": "b2:0", "finish": "stop", "usage": {}}


@pytest.mark.parametrize(
    ("event", "found"),
    [
        (WHOLE, []),
        (OK, ["has no 'message'", "has no 'finish'", "has no 'usage'"]),
        ({**OK, "status": "cancelled"}, []),
        ({**OK, "status": "error"}, ["has no 'error'"]),
        ({**OK, "status": "error", "error": {}}, []),
        ({**WHOLE, "finish": None}, []),
        ({**WHOLE, "status": "odd"}, ["has 'odd' as 'status'; expected one of ok, error, "]),
        ({**WHOLE, "usage": 7}, ["has 7 as 'usage'; expected an object"]),
        ({**WHOLE, "seq": True}, ["has True as 'seq'; expected an integer"]),
        ({"event": "made.up", "x": 1}, []),
        (
            {"event": "tool.chunks", "seq": 1, "t": 2, "at": "/a/m0/t0", "d": "x"},
            ["has 'x' as 'd'; expected an array"],
        ),
    ],
)
def test_problems(event: dict[str, Any], found: list[str]) -> None:
    """What is needed depends on the status; a kind that is not known has no problems."""
    for problem, expected in zip(problems(event), found, strict=True):
        assert problem.startswith(expected)


def variants(trace: Trace) -> Iterator[tuple[str, str, Trace]]:
    """The trace without each field that it needs, one at a time."""
    lines = [json.loads(line) for line in trace.raw()]
    for number, event in enumerate(lines):
        if event["event"] in ("blob", "trace.open"):
            continue
        for name in event.keys() - {"event", "at", "status"}:
            without = {key: value for key, value in event.items() if key != name}
            if [*problems(without)]:
                changed = [*lines[:number], without, *lines[number + 1 :]]
                yield event["event"], name, Trace([json.dumps(one).encode() for one in changed])


async def test_every_field_that_is_needed_is_named() -> None:
    """Whatever a replay needs, its absence is a `TraceCorrupt` that names event and field."""
    agent = Agent(ScriptedModel([[("roll", {"sides": 6})], "Done."]), tools=[roll])
    trace = (await agent.run("go", limits=Limits(steps=5))).trace
    assert trace is not None
    seen: set[tuple[str, str]] = set()
    for event, name, changed in variants(trace):
        with pytest.raises(TraceCorrupt, match=rf"\({event}\) has no '{name}'"):
            await agent.replay(changed)
        seen.add((event, name))
    assert {("tool.start", "arguments"), ("model.start", "fp"), ("det", "value")} <= seen


# The page


def rows(fields: Mapping[str, Field]) -> Iterator[str]:
    """The rows of the page's table about these fields."""
    yield "| field | type | required | kept | |"
    yield "|---|---|---|---|---|"
    for name, field in fields.items():
        kind = f"{field.type} of {field.of}" if field.of else field.type
        kind += " or null" if field.null else ""
        about = field.about + (
            f" One of {', '.join(map(code, field.choices))}." * bool(field.choices)
        )
        required = "" if field.required == "never" else field.required
        yield f"| `{name}` | {kind} | {required} | {field.kept} | {about} |"


def code(name: str) -> str:
    """A name as the page shows it."""
    return f"`{name}`"


def rendered() -> str:
    """The section of the page that the schema gives."""
    lines = ["### All events", "", *rows({**FRAME, "at": AT}), ""]
    lines += ["`trace.*` and `blob` have no `at`.", ""]
    for name, event in EVENTS.items():
        lines += [f"### {name}", "", event.about, "", *rows(event.fields), ""]
    return "\n".join(lines).rstrip() + "\n"


@pytest.mark.parametrize("value", [{}, {"$nonjson": "int", "value": "1"}, {"$nonjson": []}])
def test_an_object_that_marks_no_text_is_no_text(value: Any) -> None:
    """A damaged name is refused where the trace is read, not where it is used."""
    assert EVENTS["tool.start"].fields["tool"].problem(value) == "a text"
    mark = {"$nonjson": "surrogates", "value": "\\ud800"}
    assert EVENTS["tool.start"].fields["tool"].problem(mark) is None


def test_the_page_is_the_table() -> None:
    """`docs/reference/trace.md` says what the schema says."""
    page = (ROOT / "docs/reference/trace.md").read_text(encoding="utf-8")
    assert page[page.index("### All events") :] == rendered()
