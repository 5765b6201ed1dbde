"""Runs in Chrome's Trace Event Format, for Perfetto and Chrome.

The rules are those of the format's definition: each event has `name`, `ph`, `pid` and `tid`;
`ts` and `dur` are microseconds; slices of one thread nest.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import anyio
import pytest

from agentkit import Agent, Trace, tool
from agentkit.testing import ScriptedModel
from agentkit.trace.perfetto import MARK, perfetto
from tests.support import ROOT


def check_format(data: Any) -> None:
    """Check what viewers rely on."""
    assert json.dumps(data).startswith(MARK)
    assert data["displayTimeUnit"] == "ms"
    named: set[int] = set()
    lanes: dict[int, list[Any]] = {}
    for event in data["traceEvents"]:
        assert isinstance(event["name"], str)
        assert (event["pid"], type(event["tid"])) == (1, int)
        match event["ph"]:
            case "M":
                assert event["name"] in ("process_name", "thread_name", "thread_sort_index")
                named.add(event["tid"])
            case "X":
                assert type(event["ts"]) is type(event["dur"]) is int
                assert event["dur"] >= 0
                assert isinstance(event["cat"], str)
                lanes.setdefault(event["tid"], []).append(event)
            case ph:
                assert (ph, event["s"], type(event["ts"])) == ("i", "t", int)
    assert lanes.keys() <= named
    for slices in lanes.values():
        stack: list[int] = []
        for one, following in pairwise([*slices, None]):
            begin, end = one["ts"], one["ts"] + one["dur"]
            assert following is None or begin <= following["ts"]
            while stack and stack[-1] <= begin:
                stack.pop()
            assert not stack or end <= stack[-1]  # one within the other, or side by side
            stack.append(end)


def lanes_of(data: Any) -> list[tuple[int, str]]:
    """Return lane and name of each slice."""
    return [(one["tid"], one["name"]) for one in data["traceEvents"] if one["ph"] != "M"]


@pytest.mark.anyio
async def test_parallel_calls_stand_in_lanes_of_their_own() -> None:
    """What a call has caused stands in its lane; what follows stands in the first one again."""

    @tool
    async def slow(number: int) -> int:
        """Wait until all are there."""
        nonlocal there
        there += 1
        while there < 3:
            await anyio.sleep(0.001)
        return number

    there = 0
    inner = Agent(ScriptedModel([[("slow", {"number": 3})], "x"]), tools=[slow], name="inner")
    calls = [("slow", {"number": 1}), ("slow", {"number": 2}), ("inner", {"prompt": "p"})]
    script = [calls, "Done."]
    agent = Agent(ScriptedModel(script), tools=[slow, inner.as_tool()])
    trace = (await agent.run("go")).trace
    assert trace is not None
    data = perfetto(trace)
    check_format(data)
    lanes = lanes_of(data)
    tools = [lane for lane in lanes if lane[1] in ("execute_tool slow", "execute_tool inner")]
    (inner_lane,) = {lane for lane, name in lanes if name == "execute_tool inner"}
    assert {lane for lane, _ in tools} == {1, 2, 3}
    below = [lane for lane, name in lanes if name == "invoke_agent inner"]
    assert below == [inner_lane]
    assert [lane for lane, name in lanes if name in ("invoke_agent agent", "chat scripted")][
        :2
    ] == [
        1,
        1,
    ]
    assert lanes[-1] == (1, "chat scripted")
    names = [one["args"]["name"] for one in data["traceEvents"] if one["name"] == "thread_name"]
    assert names == ["run", "parallel 1", "parallel 2"]


def test_the_example() -> None:
    """It has contents only on request; what is cut off anywhere is a valid file, too."""
    file = ROOT / "examples" / "traces" / "boston.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    for length in range(1, len(lines) + 1):
        check_format(perfetto(Trace(lines[:length])))
    trace = Trace.load(file)
    data = perfetto(trace)
    assert data["otherData"] == {
        "run": trace.run,
        "wall": trace.header["wall"],
        "status": "ok",
    }
    (skipped,) = (one for one in data["traceEvents"] if one["ph"] == "i")
    assert skipped["args"]["agentkit.tool.skipped"] == "repeated"
    assert "Boston" not in json.dumps(data)
    assert "Boston" in json.dumps(perfetto(trace, content=True))
