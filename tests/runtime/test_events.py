"""Events of a stream: the listener's faults are its own, and typed outputs come in one form."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel, model_validator
from typing_extensions import TypedDict

from agentkit import Agent, ChatModel, JsonSchema, Session
from agentkit.errors import ConfigurationError
from agentkit.events import Event, Finished, OutputDelta, TextDelta
from agentkit.testing import ChatServer, ScriptedModel, reply

pytestmark = pytest.mark.anyio


async def streamed(agent: Agent[Any], **options: Any) -> list[Event]:
    async with agent.stream("go", **options) as run:
        return [event async for event in run]


async def test_a_listener_that_fails_does_not_end_the_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The reader gets every event to the last one; the failure is logged once."""

    def broken(event: Event) -> None:
        raise ValueError("my UI bug")

    expected = await streamed(Agent(ScriptedModel(["a b c"])))
    events = await streamed(Agent(ScriptedModel(["a b c"])), on_event=broken)
    assert events == expected
    assert isinstance(events[-1], Finished)
    assert len(caplog.records) == 1


class Careful(BaseModel):
    """Its validator expects everything to be there."""

    words: list[str]
    count: int

    @model_validator(mode="before")
    @classmethod
    def _check(cls, data: Any) -> Any:
        if data["count"] != len(data["words"]):  # KeyError where the text is unfinished
            raise ValueError("count")
        return data


class Trip(BaseModel):
    """A type that contains one with a validator."""

    day: date
    plan: Careful
    notes: str = ""


TRIP = '{"day": "2026-01-02", "plan": {"words": ["a", "b"], "count": 2}, "notes": "a long note"}'


async def test_a_validator_that_fails_on_unfinished_text_does_not_end_the_stream() -> None:
    """Neither the run nor its events; the output is there as soon as the validator can read it."""
    async with ChatServer([reply(TRIP)]) as server:
        model = ChatModel("m", base_url=server.base_url)
        events = await streamed(Agent(model, output=Trip))
    assert isinstance(events[-1], Finished)
    assert events[-1].status == "ok"
    values = [event.value for event in events if isinstance(event, OutputDelta)]
    assert values[-1]["plan"] == {"words": ["a", "b"], "count": 2}


async def never(event: Event) -> None:
    """Be awaited."""


class Listener:
    async def __call__(self, event: Event) -> None:
        """Be awaited."""


@pytest.mark.parametrize("listener", [never, Listener()], ids=["function", "object"])
async def test_an_async_listener_is_refused(listener: Any) -> None:
    """Before any I/O, in every way to run an agent."""
    agent = Agent(ScriptedModel(["a"]))
    trace = (await agent.run("go")).trace
    assert trace is not None
    session = Session(agent, on_event=listener)
    ways: list[Callable[[], Any]] = [
        lambda: agent.run("go", on_event=listener),
        lambda: agent.replay(trace, on_event=listener),
        lambda: agent.resume(trace, on_event=listener),
        lambda: agent.fork(trace, prompt="x", on_event=listener),
        lambda: streamed(agent, on_event=listener),
        lambda: session.run("go"),
    ]
    for way in ways:
        with pytest.raises(ConfigurationError, match=r"on_event=.*: expected .* not async"):
            await way()


async def test_a_listener_that_returns_a_coroutine_is_a_broken_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It cannot be seen before; nothing is left that Python would warn of."""

    async def send() -> None: ...

    result = await Agent(ScriptedModel(["a"])).run("go", on_event=lambda _: send())  # pyright: ignore[reportArgumentType]
    assert result.output == "a"
    assert "returned a coroutine, and events are not awaited" in caplog.text


async def test_an_async_restarted_is_refused() -> None:
    """It would never run."""

    async def forget(text: str) -> None: ...

    async with Agent(ScriptedModel(["a"])).stream("go") as run:
        with pytest.raises(ConfigurationError, match="not async"):
            run.text(restarted=forget)


@dataclass
class Row:
    name: str
    parts: list[Part]


class Part(BaseModel):
    number: int


class Shape(TypedDict):
    name: str
    parts: list[Part]


class Model(BaseModel):
    name: str
    parts: list[Part]


VALUE = {"name": "some longer name", "parts": [{"number": number} for number in range(12)]}
SCHEMA = Model.model_json_schema()


@pytest.mark.parametrize("mode", ["native", "tool", "json", "prompt"])
@pytest.mark.parametrize(
    ("output", "value"),
    [
        (Row, VALUE),
        (Shape, VALUE),
        (Model, VALUE),
        (JsonSchema(SCHEMA), VALUE),
        (list[Part], VALUE["parts"]),
        (dict[str, Part], {f"p{n}": {"number": n} for n in range(12)}),
    ],
    ids=["dataclass", "typeddict", "model", "schema", "list", "dict"],
)
async def test_typed_outputs_come_as_json_data_in_every_mode(
    output: Any, value: Any, mode: Any
) -> None:
    """Dictionaries, lists, texts and numbers, each longer than the one before."""
    text = json.dumps({"value": value} if isinstance(value, list) else value)
    answer = reply(calls=[("final_output", text)]) if mode == "tool" else reply(text)
    async with ChatServer([answer]) as server:
        model = ChatModel("m", base_url=server.base_url)
        agent = Agent(model, output=output, output_mode=mode)
        events = await streamed(agent)
    deltas = [event for event in events if isinstance(event, OutputDelta)]
    assert len(deltas) >= (1 if mode == "tool" else 4)
    assert {event.at for event in deltas} == {"/agent/m0"}
    sizes = [len(json.dumps(event.value)) for event in deltas]  # JSON data, nothing else
    assert sizes == sorted(sizes)
    assert {type(event.value) for event in deltas} == {type(value)}
    parts = deltas[-1].value
    if isinstance(value, dict):
        parts, value = parts.get("parts", [*parts.values()]), value.get("parts", [*value.values()])
    assert len(parts) > 5
    assert parts[:-1] == value[: len(parts) - 1]  # without a type the last one may be unfinished
    assert isinstance(events[-1], Finished)


async def test_a_fence_before_the_output_hides_nothing() -> None:
    """As models write one in the prompt mode."""
    text = f"```json\n{TRIP}\n```"
    async with ChatServer([reply(text)]) as server:
        agent = Agent(ChatModel("m", base_url=server.base_url), output=Trip, output_mode="prompt")
        events = await streamed(agent)
    assert any(isinstance(event, OutputDelta) for event in events)
    assert any(isinstance(event, TextDelta) for event in events)
