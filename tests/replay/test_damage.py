"""A trace is untrusted input: what is damaged is named, whatever is done with the trace."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest

from agentkit import Agent, ChatSettings, Limits, RunContext, Trace, tool
from agentkit.errors import AgentKitError, TraceCorrupt
from agentkit.replay import diff
from agentkit.testing import FunctionModel, ScriptedModel
from agentkit.trace.naming import canonical, digest
from tests.support import sized

pytestmark = pytest.mark.anyio
Event = dict[str, Any]
OTHERS: list[Any] = [
    None,
    True,
    -1,
    10**18,
    10**400,
    1.5,
    "",
    "x",
    "/agent/m0/t0",
    [],
    [1],
    {},
    {"x": 1},
    {"$nonjson": "int", "value": "x"},
    {"$nonjson": "surrogates", "value": "\\ud800"},
]
"""Values of every type, one of which does not fit wherever it is put."""


@tool(effect="read")
async def look(context: RunContext[None], city: str) -> str:
    """Ask an agent."""
    context.progress(context.random())
    inner = Agent(ScriptedModel(["gold"]), name="inner")
    return (await context.run(inner, city)).output


@tool(approval=True)
def delete(path: str) -> str:
    """Delete a file."""
    return "gone"


@tool
def fail() -> str:
    """Fail."""
    raise ValueError("broken")


SCRIPT: list[Any] = [[("look", {"city": "x"}), ("delete", {"path": "b"})], [("fail", {})], "done"]


def agent(*script: Any) -> Agent[str]:
    """An agent that uses a bit of everything."""
    return Agent(
        ScriptedModel(list(script)),
        tools=[look, delete, fail],
        instructions=lambda: "Be brief.",
        output_validators=[lambda output: None],
    )


async def recorded() -> list[Event]:
    """The events of a streamed run."""
    options: Any = {"settings": ChatSettings(temperature=0.5), "limits": Limits(steps=9)}
    async with agent(*SCRIPT).stream("go", approver=lambda _: True, **options) as run:
        async for _ in run:
            pass
    assert run.result.trace is not None
    return [json.loads(line) for line in run.result.trace.raw()]


def traced(events: list[Event]) -> Trace:
    """The trace of these events."""
    return Trace([json.dumps(event).encode() + b"\n" for event in events])


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything in a JSON value."""
    items: Any = value.items() if isinstance(value, dict) else ()
    for key, item in enumerate(value[:2]) if isinstance(value, list) else items:
        yield (*above, key)
        yield from places(item, (*above, key))


def changed(events: list[Event], number: int, path: tuple[Any, ...], other: Any) -> list[Event]:
    """The events with another value in one place; blobs keep the right names."""
    event: Any = copy.deepcopy(events[number])
    inner = event
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = other
    events = [*events[:number], event, *events[number + 1 :]]
    if event["event"] != "blob" or path[0] != "data":
        return events
    text = json.dumps(events).replace(event["h"], digest(canonical(event["data"])))
    return json.loads(text)


def uses(trace: Trace, whole: Trace) -> list[Callable[[], Awaitable[Any]]]:
    """What can be done with a trace."""

    async def compared() -> None:
        diff(trace, whole).text()

    return [
        compared,
        lambda: agent().replay(trace, on_event=lambda _: None),
        lambda: agent().replay(trace, plan="tools_live", on_event=lambda _: None),
        lambda: agent("other").fork(trace, at="/agent/m2"),
        lambda: agent("other").fork(trace, at="/agent/m0/t1", result="x"),
        lambda: agent("other").resume(trace, approver=lambda _: True),
    ]


@pytest.mark.storm
@pytest.mark.parametrize("seed", range(3))
async def test_any_field_may_be_anything(seed: int) -> None:
    """Whatever stands in a field, only errors of agentkit come out, and soon."""
    events = await recorded()
    one_of_each = {
        (event["event"], path): (number, path)
        for number, event in enumerate(events)
        for path in places(event)
        if path != ("event",)
    }
    chosen = random.Random(seed).sample([*one_of_each.values()], sized(15, 40))
    whole = traced(events)
    for number, path in chosen:
        other = random.Random(f"{seed}{path}").choice(OTHERS)
        damaged = changed(events, number, path, other)
        try:
            trace = traced(damaged)
        except AgentKitError:
            continue
        for use in uses(trace, whole):
            with anyio.fail_after(60):
                with contextlib.suppress(AgentKitError):
                    await use()


FIELDS: list[tuple[str, tuple[Any, ...], Any]] = [
    ("trace.open", ("capture",), "some"),
    ("agent.start", ("options", "limits", "steps"), "many"),
    ("agent.end", ("usage", "requests"), "x"),
    ("model.start", ("since",), "/agent/m7"),
    ("model.chunks", ("d",), [1]),
    ("model.chunks", ("d", 0, 0), "soon"),
    ("model.end", ("usage",), {"cost": "much"}),
    ("model.end", ("response",), {"choices": 3}),
    ("tool.start", ("t",), -1),
    ("tool.start", ("t",), 10**400),
    ("tool.start", ("seq",), 0),
    ("tool.start", ("at",), "nowhere"),
    ("tool.start", ("at",), "/agent/m0"),
    ("tool.start", ("arguments",), {"$nonjson": "int", "value": "x"}),
    ("tool.end", ("error",), {"parts": 1}),
    ("compute.end", ("value",), 3),
    ("det", ("value",), {"$nonjson": "float", "value": "x"}),
]


@pytest.mark.parametrize(("event", "path", "other"), FIELDS)
async def test_damage_is_named_by_event_and_field(
    event: str, path: tuple[Any, ...], other: Any
) -> None:
    """By everything that reads a whole trace."""
    events = await recorded()
    number = next(
        number for number, one in enumerate(events) if one["event"] == event and (path[0] in one)
    )
    trace = traced(changed(events, number, path, other))
    for use in uses(trace, traced(events))[1:]:
        with pytest.raises(TraceCorrupt) as caught:
            await use()
        assert event in str(caught.value)
        assert path[0] in str(caught.value)


@pytest.mark.parametrize("field", ["seq", "t"])
async def test_an_event_of_an_unknown_kind_has_its_place(field: str) -> None:
    """A newer version's events are kept, and stand among the others."""
    events = await recorded()
    unknown = next(event for event in events if event["event"] == "model.chunks")
    unknown["event"] = "tool.dream"
    assert (await agent().replay(traced(events))).output == "done"
    del unknown[field]
    with pytest.raises(TraceCorrupt, match=f"tool.dream.*'{field}'"):
        await agent().replay(traced(events))


async def test_a_damaged_time_makes_no_replay_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was cancelled then is waited for as long as it took then, but not for years."""
    patience = 0.01

    @tool(effect="read")
    async def ask(context: RunContext[None]) -> str:
        """Ask, for a while."""
        with anyio.move_on_after(patience):
            await context.run(inner, "go")
        return "gave up"

    async def hang(request: Any) -> str:
        await anyio.sleep_forever()
        return "never"

    inner = Agent(FunctionModel(hang), name="inner")
    asking = Agent(ScriptedModel([[("ask", {})], "done"]), tools=[ask])
    result = await asking.run("go")
    assert result.trace is not None
    events = [json.loads(line) for line in result.trace.raw()]
    end = next(
        n for n, one in enumerate(events) if one["event"] == "model.end" and "inner" in one["at"]
    )
    for event in events[end:]:
        event["t"] += 10**17
    patience = 1000
    monkeypatch.setattr(sys.modules["agentkit.replay.engine"], "_LONGEST", 0.1)
    with pytest.raises(AgentKitError, match="cancelled then"), anyio.fail_after(60):
        await asking.with_(model=ScriptedModel([])).replay(traced(events), plan="tools_live")
