"""A hundred seeded changes of an agent: the replay names each by its place and its cause."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import anyio
import pytest
from pydantic import Field, create_model

from agentkit import Agent, ChatSettings, Tool, Trace
from agentkit.errors import ReplayDivergence
from agentkit.testing import ScriptedModel
from tests.support import sized

WORDS = "sun rain snow wind fog hail storm cloud ice dew".split()


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the agent is made of; a change replaces one part."""

    instructions: str
    tool_text: tuple[str, str]
    parameter_text: str
    units: tuple[str, ...]
    temperature: float
    model: str
    output_text: str
    answers: dict[str, str]

    def agent(self, *script: Any) -> Agent[Any]:
        """The agent of these parts."""

        async def look(city: str, unit: str) -> str:
            return self.answers["look"]

        async def book(city: str) -> str:
            return self.answers["book"]

        look.__doc__ = f"{self.tool_text[0]}\n\nArgs:\n    city: {self.parameter_text}\n"
        look.__annotations__["unit"] = Literal[self.units]
        book.__doc__ = self.tool_text[1]
        output = create_model("Out", total=(int, Field(description=self.output_text)))
        return Agent(
            ScriptedModel(list(script), name=self.model),
            tools=[Tool(look, effect="read"), Tool(book, effect="read")],
            output=output,
            instructions=self.instructions,
            settings=ChatSettings(temperature=self.temperature),
        )


def parts(draw: random.Random) -> Parts:
    """Random parts."""

    def text(words: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(words)) + "."

    return Parts(
        instructions=text(draw.randint(3, 200)),
        tool_text=(text(5), text(5)),
        parameter_text=text(4),
        units=("c", "f"),
        temperature=0.5,
        model="scripted",
        output_text=text(4),
        answers={"look": text(20), "book": text(20)},
    )


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the replay has to say."""

    parts: Parts
    kind: str
    pointer: str
    cause: str | None
    at: str = "/agent/m0"
    position: int | None = None
    live: bool = False


def edited(draw: random.Random, text: str) -> tuple[str, int]:
    """The text with one character changed, and where."""
    place = draw.randrange(len(text))
    return f"{text[:place]}#{text[place + 1 :]}", place


def instructions(draw: random.Random, old: Parts) -> Expected:
    text, place = edited(draw, old.instructions)
    return Expected(
        parts=changed(old, instructions=text),
        kind="request_changed",
        pointer="/messages/0/content",
        cause="the instructions of /agent",
        position=place,
    )


def tool_text(draw: random.Random, old: Parts) -> Expected:
    index = draw.randrange(2)
    text, place = edited(draw, old.tool_text[index])
    both = (text, old.tool_text[1]) if index == 0 else (old.tool_text[0], text)
    return Expected(
        parts=changed(old, tool_text=both),
        kind="tool_schema_changed",
        pointer=f"/tools/{index}/function/description",
        cause=f"the tool {('look', 'book')[index]}",
        position=place,
    )


def parameter_text(draw: random.Random, old: Parts) -> Expected:
    text, place = edited(draw, old.parameter_text)
    return Expected(
        parts=changed(old, parameter_text=text),
        kind="tool_schema_changed",
        pointer="/tools/0/function/parameters/properties/city/description",
        cause="the tool look",
        position=place,
    )


def units(draw: random.Random, old: Parts) -> Expected:
    return Expected(
        parts=changed(old, units=(*old.units, draw.choice(WORDS))),
        kind="tool_schema_changed",
        pointer="/tools/0/function/parameters/properties/unit/enum/2",
        cause="the tool look",
    )


def temperature(draw: random.Random, old: Parts) -> Expected:
    return Expected(
        parts=changed(old, temperature=round(draw.uniform(0.6, 1.9), 2)),
        kind="request_changed",
        pointer="/params/temperature",
        cause="the setting temperature",
    )


def model(draw: random.Random, old: Parts) -> Expected:
    return Expected(
        parts=changed(old, model="Scripted"),
        kind="request_changed",
        pointer="/model",
        cause="the agent's model",
        position=0,
    )


def output_text(draw: random.Random, old: Parts) -> Expected:
    text, place = edited(draw, old.output_text)
    return Expected(
        parts=changed(old, output_text=text),
        kind="request_changed",
        pointer="/params/output/json_schema/schema/properties/total/description",
        cause="the agent's output type",
        position=place,
    )


def answer(draw: random.Random, old: Parts) -> Expected:
    name, at = draw.choice([("look", "/agent/m0/t0"), ("book", "/agent/m0/t1")])
    text, place = edited(draw, old.answers[name])
    return Expected(
        parts=changed(old, answers=old.answers | {name: text}),
        kind="result_changed",
        pointer="/content",
        cause=None,
        at=at,
        position=place,
        live=True,
    )


def changed(old: Parts, **changes: Any) -> Parts:
    return Parts(**({name: getattr(old, name) for name in Parts.__annotations__} | changes))


CHANGES: list[Callable[[random.Random, Parts], Expected]] = [
    instructions,
    tool_text,
    parameter_text,
    units,
    temperature,
    model,
    output_text,
    answer,
]
CALLS = [("look", {"city": "Paris", "unit": "c"}), ("book", {"city": "Paris"})]


@pytest.mark.storm
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_hundred_changes(backend: str) -> None:
    """Kind, address, pointer, character and first cause are those of the change."""

    async def found(trace: Trace, expected: Expected) -> ReplayDivergence:
        agent = expected.parts.agent()
        if expected.live:
            result = await agent.replay(trace, plan="tools_live", strictness="exact")
            (first,) = result.divergences
            assert first.suppressed, "the next request differs, too"
            return first
        with pytest.raises(ReplayDivergence) as caught:
            await agent.replay(trace)
        return caught.value

    async def main() -> None:
        for seed in range(sized(4 * len(CHANGES), 100)):
            draw = random.Random(seed)
            old = parts(draw)
            trace = (await old.agent(CALLS, '{"total": 1}').run("go")).trace
            assert trace is not None
            assert (await old.agent().replay(trace)).output.total == 1
            expected = CHANGES[seed % len(CHANGES)](draw, old)
            first = await found(trace, expected)
            said = (first.kind, first.at, first.pointer, first.cause, first.position)
            assert said == (
                expected.kind,
                expected.at,
                expected.pointer,
                expected.cause,
                expected.position,
            ), f"seed {seed}: {first}"
            assert str(first.at) in str(first)
            assert first.source is not None

    anyio.run(main, backend=backend)
