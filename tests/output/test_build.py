"""Typed outputs: every kind of type, every mode, validators and output functions."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, TypedDict

import pytest
from pydantic import BaseModel, ConfigDict, Field

from agentkit import Agent, ChatSettings, JsonSchema, RunContext, ToolError
from agentkit.errors import ConfigurationError, InvalidSetting, InvalidTool, OutputInvalid
from agentkit.models import Profile
from agentkit.testing import FunctionModel, ScriptedModel

pytestmark = pytest.mark.anyio


class Cat(BaseModel):
    """A model."""

    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    """Another one."""

    kind: Literal["dog"]
    name: str


@dataclass
class Point:
    """A dataclass."""

    x: int
    y: int


class Row(TypedDict):
    """A TypedDict."""

    cells: list[str]


CASES: list[tuple[Any, str, Any]] = [
    (int, '{"value": 3}', 3),
    (list[int], '{"value": [1, 2]}', [1, 2]),
    (bool, '{"value": true}', True),
    (Literal["a", "b"], '{"value": "b"}', "b"),
    (Cat, '{"kind": "cat", "lives": 7}', Cat(kind="cat", lives=7)),
    (Cat | Dog, '{"value": {"kind": "dog", "name": "Rex"}}', Dog(kind="dog", name="Rex")),
    (Point, '{"x": 1, "y": 2}', Point(1, 2)),
    (Row, '{"cells": ["a"]}', {"cells": ["a"]}),
    (dict[str, int], '{"a": 1}', {"a": 1}),
    (int | None, '{"value": null}', None),
]


@pytest.mark.parametrize(("type_", "text", "value"), CASES, ids=[str(case[0]) for case in CASES])
@pytest.mark.parametrize("mode", ["native", "tool", "json", "prompt"])
async def test_types_in_every_mode(type_: Any, text: str, value: Any, mode: Any) -> None:
    """The output is an instance of its type in every mode."""
    answer: Any = [("final_output", text)] if mode == "tool" else text
    agent = Agent(ScriptedModel([answer]), output=type_, output_mode=mode)
    assert (await agent.run("go")).output == value


async def test_raw_json_schema() -> None:
    """A raw JSON Schema is enforced."""
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}
    agent = Agent(ScriptedModel(['{"n": 0}', '{"n": 2}']), output=JsonSchema(schema))
    result = await agent.run("go")
    assert result.output == {"n": 2}
    assert "/n" in result.messages[2].text
    with pytest.raises(InvalidTool):
        JsonSchema({"type": "nonsense"})


SCHEMA = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "unit": {"type": "string"},
        "kind": {"enum": ["a", "b"]},
        "more": {"$ref": "#"},
        "of": {"anyOf": [{"type": "object", "properties": {"x": {"type": "string"}}}]},
    },
    "required": ["n"],
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('```json\n{"n": 1}\n```', {"n": 1}),
        ("Here: {'n': 1,}", {"n": 1}),
        ('{"n": "1"}', {"n": 1}),
        ('{"n": 1, "unit": null, "kind": null, "of": null}', {"n": 1}),
        ('{"n": 1, "of": {"x": null}}', {"n": 1, "of": {}}),
        ('{"n": 1, "more": {"n": 2, "more": null}}', {"n": 1, "more": {"n": 2}}),
    ],
)
async def test_a_raw_schema_reads_as_typed_outputs_do(text: str, value: Any) -> None:
    """Its text is repaired; null stands for an optional property, as in the strict form."""
    agent = Agent(ScriptedModel([text]), output=JsonSchema(SCHEMA))
    assert (await agent.run("go")).output == value


UNREADABLE = {
    "two values for one key": '{"n": 1, "n": 2}',
    "deep": '{"n": 1, "x": ' + "[" * 5000 + "]" * 5000 + "}",
    "less deep": '{"n": 1, "x": ' + "[" * 500 + "]" * 500 + "}",
    "half of a surrogate pair": r'{"n": 1, "unit": "\ud800"}',
    "a huge number": '{"n": 1e999}',
    "a huge integer": '{"n": 1' + "0" * 5000 + "}",
    "blank": " \n ",
    "null": "null",
    "None": "None",
    "empty text": '""',
}


class AllDefaults(BaseModel):
    """Nothing is required."""

    n: int = 0


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("output", [JsonSchema(SCHEMA), AllDefaults, Point], ids=["raw", "m", "d"])
@pytest.mark.parametrize("mode", ["native", "tool"])
async def test_no_output_is_made_of_text_that_holds_none(name: str, output: Any, mode: Any) -> None:
    """The model is asked again, in every mode and for every kind of type."""
    good = '{"x": 1, "y": 2}' if output is Point else '{"n": 1}'
    texts = [UNREADABLE[name], good]
    answers: list[Any] = [[("final_output", text)] for text in texts] if mode == "tool" else texts
    agent = Agent(ScriptedModel(answers), output=output, output_mode=mode)
    result = await agent.run("go")
    assert result.output in ({"n": 1}, AllDefaults(n=1), Point(1, 2))
    assert result.usage.requests == 2


@dataclass
class Place:
    """A dataclass with a default."""

    city: str = "Paris"


class Stop(TypedDict, total=False):
    """A TypedDict without a required key."""

    city: str
    then: Place


@pytest.mark.parametrize(
    ("output", "bad", "good", "value"),
    [
        (Place, '{"town": "Rome"}', '{"city": "Rome"}', Place("Rome")),
        (Stop, '{"town": "Rome"}', '{"city": "Rome"}', {"city": "Rome"}),
        (
            Stop,
            '{"then": {"town": "Rome"}}',
            '{"then": {"city": "Rome"}}',
            {"then": Place("Rome")},
        ),
        (
            list[Place],
            '{"value": [{"town": "Rome"}]}',
            '{"value": [{"city": "Rome"}]}',
            [Place("Rome")],
        ),
        (int, '{"value": 1, "valu": 2}', '{"value": 1}', 1),
    ],
)
async def test_a_misspelt_key_is_refused(output: Any, bad: str, good: str, value: Any) -> None:
    """It is not dropped in favour of a default, and the model reads which keys there are."""
    result = await Agent(ScriptedModel([bad, good]), output=output).run("go")
    assert result.output == value
    assert "no such property" in result.messages[2].text


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_validator_makes_the_model_try_again(is_async: bool) -> None:
    """The model reads a validator's ToolError, with or without context."""
    seen: list[Any] = []

    async def even_later(context: RunContext[str], output: int) -> None:
        seen.append((context.deps, output))
        if output % 2:
            raise ToolError("Only even numbers.")

    def even(output: int) -> None:
        seen.append(("deps", output))
        if output % 2:
            raise ToolError("Only even numbers.")

    agent = Agent(
        ScriptedModel(['{"value": 1}', '{"value": 2}']),
        output=int,
        deps_type=str,
        output_validators=[even_later if is_async else even],
    )
    result = await agent.run("go", deps="deps")
    assert result.output == 2
    assert result.messages[2].text == "Only even numbers."
    assert seen == [("deps", 1), ("deps", 2)]


async def test_a_validator_that_never_accepts() -> None:
    """The error lists the attempts and their problems."""

    def never(output: int) -> None:
        raise ToolError("No.")

    model = ScriptedModel(['{"value": 1}', '{"value": 2}'])
    with pytest.raises(OutputInvalid, match=r"No\.") as caught:
        await Agent(model, output=int, output_validators=[never]).run("go")
    assert caught.value.attempts is not None
    assert [attempt["text"] for attempt in caught.value.attempts] == [
        '{"value": 1}',
        '{"value": 2}',
    ]


async def test_an_exception_of_a_validator_ends_the_run() -> None:
    """Any other exception is a bug, and not for the model."""

    def broken(output: int) -> None:
        raise ZeroDivisionError("oops")

    with pytest.raises(Exception, match="oops"):
        await Agent(ScriptedModel(['{"value": 1}']), output=int, output_validators=[broken]).run(
            "go"
        )


async def test_validators_are_replayed_not_called() -> None:
    """A validator is not pure, so its verdict is recorded."""
    called: list[int] = []

    def once(output: int) -> None:
        called.append(output)
        if len(called) == 1:
            raise ToolError("Again.")

    def agent(*script: str) -> Agent[int]:
        return Agent(ScriptedModel(list(script)), output=int, output_validators=[once])

    recorded = await agent('{"value": 1}', '{"value": 2}').run("go")
    assert recorded.trace is not None
    assert await agent().replay(recorded.trace) == recorded
    assert called == [1, 2]


@pytest.mark.parametrize("mode", ["native", "tool"])
async def test_output_functions(mode: Any) -> None:
    """The output is passed to a function, whose value is the result; a replay restores it."""

    async def book(context: RunContext[str], city: str, nights: int = 1) -> Point:
        """Book a room."""
        assert context.deps == "deps"
        return Point(len(city), nights)

    text = '{"city": "Paris", "nights": 2}'
    answer: Any = [("final_output", text)] if mode == "tool" else text
    agent = Agent(ScriptedModel([answer]), output=book, output_mode=mode)
    result = await agent.run("go", deps="deps")
    assert result.output == Point(5, 2)
    assert result.trace is not None
    again = await agent.with_(model=ScriptedModel([])).replay(result.trace)
    assert again.output == Point(5, 2)


class Trip(BaseModel):
    """What a function returns."""

    city: str
    nights: int = Field(default=1, alias="n")


class Flight(Trip):
    """A kind of it that the annotation does not name."""

    number: str


@dataclass
class Far(Point):
    """A kind of dataclass."""

    light_years: int


def texts(city: str) -> list[int]:
    """Return something else than the annotation says."""
    return ["1", "2"]  # type: ignore[list-item]


def trip(city: str) -> Trip | None:
    """Return a subclass of it."""
    return Flight(city=city, n=2, number="AZ 1")


def point(city: str) -> Point:
    """Return a subclass of it."""
    return Far(1, 2, 3)


def hidden(city: str) -> Missing:  # type: ignore[name-defined]  # noqa: F821
    """Return a type that only type checkers can resolve."""
    return {"city": city}


def sent(city: str, sender: str) -> date:
    """Be called through a partial."""
    return date(2026, 1, len(city))


def many(city: str) -> Iterator[str]:
    """Yield."""
    yield city


def plain(city: str):  # type: ignore[no-untyped-def]
    """Have no annotation."""
    return (city, 1)


@pytest.mark.parametrize(
    ("function", "value", "replayed"),
    [
        (texts, ["1", "2"], ["1", "2"]),
        (trip, Flight(city="Rome", n=2, number="AZ 1"), ...),
        (point, Far(1, 2, 3), ...),
        (hidden, {"city": "Rome"}, ...),
        (functools.partial(sent, sender="me"), date(2026, 1, 4), ...),
        (many, "Rome", ...),
        (plain, ("Rome", 1), ["Rome", 1]),
    ],
    ids=["other type", "subclass", "dataclass", "checkers only", "partial", "generator", "none"],
)
async def test_the_value_of_an_output_function_is_what_it_returned(
    function: Any, value: Any, replayed: Any
) -> None:
    """A run returns it unchanged, and a replay restores it by its annotation, where that fits."""
    agent = Agent(ScriptedModel(['{"city": "Rome"}']), output=function)
    result = await agent.run("go")
    assert (type(result.output), result.output) == (type(value), value)
    again = await agent.replay(result.trace)  # type: ignore[arg-type]
    expected = value if replayed is ... else replayed
    assert (type(again.output), again.output) == (type(expected), expected)


async def test_an_output_function_may_name_local_classes() -> None:
    """Its annotations are evaluated where the agent is made."""

    class Local(BaseModel):
        city: str

    def book(trip: Local) -> Local:
        return trip

    agent = Agent(ScriptedModel(['{"trip": {"city": "Rome"}}']), output=book)
    result = await agent.run("go")
    assert result.output == Local(city="Rome")
    assert (await agent.replay(result.trace)).output == Local(city="Rome")  # type: ignore[arg-type]


async def test_an_output_type_that_does_not_exist_is_a_configuration_error() -> None:
    """Whatever pydantic or Python raises about it."""

    @dataclass
    class Broken:
        x: Missing  # type: ignore[name-defined]  # noqa: F821

    for output in (Broken, object(), list[Broken], Agent):
        with pytest.raises(ConfigurationError, match="has no JSON Schema"):
            await Agent(ScriptedModel(["{}"]), output=output).run("go")


async def test_an_output_function_may_reject() -> None:
    """Its ToolError makes the model try again."""

    def book(city: str) -> str:
        if city != "Oslo":
            raise ToolError("Only Oslo has rooms.")
        return f"booked {city}"

    agent = Agent(ScriptedModel(['{"city": "Paris"}', '{"city": "Oslo"}']), output=book)
    result = await agent.run("go")
    assert result.output == "booked Oslo"


async def test_optional_fields_may_be_null_where_the_schema_is_strict() -> None:
    """The strict form makes every property required and nullable; null leaves it out."""
    agent = Agent(ScriptedModel(['{"kind": "cat", "lives": null}']), output=Cat)
    assert (await agent.run("go")).output == Cat(kind="cat", lives=9)


class Odd(BaseModel):
    """A model whose fields take what no JSON text may hold."""

    model_config = ConfigDict(ser_json_inf_nan="constants")
    number: float = 0.0
    one: Literal[1] = 1
    day: date = date(2026, 1, 1)
    inner: list[Odd] = Field(default_factory=list["Odd"])


ODD = '{"number":1.5,"one":1,"day":"2026-01-31","inner":[]}'
REFUSED: list[tuple[str, str]] = [
    ('"number":1.5', '"number":2.5,"number":1.5'),
    ('"number":1.5', '"number":NaN'),
    ('"number":1.5', '"number":1e999'),
    ('"one":1', '"one":true'),
    ('"2026-01-31"', '"2026"'),
    ("[]", f"[{ODD[:-2]}" * 70 + "]}" * 70 + "]"),
    ("2026-01-31", "2026-01-31\\ud800"),
]


@pytest.mark.parametrize(("part", "instead"), REFUSED)
async def test_what_pydantic_alone_would_read_is_refused(part: str, instead: str) -> None:
    """Such as keys that come twice, in texts that are otherwise just the output."""
    texts = [f'{{"value":{text}}}' for text in (ODD, ODD.replace(part, instead))]
    accepted, refused = ScriptedModel(texts[:1]), ScriptedModel(texts[1:] * 2)
    result = await Agent(accepted, output=Odd).run("go")
    assert result.output == Odd(number=1.5, day=date(2026, 1, 31))
    with pytest.raises(OutputInvalid):
        await Agent(refused, output=Odd).run("go")


async def test_unambiguous_damage_of_an_output_is_repaired() -> None:
    """A code fence around the JSON does not cost another request."""
    agent = Agent(ScriptedModel(['```json\n{"value": 3}\n```']), output=int, output_mode="prompt")
    assert (await agent.run("go")).output == 3


async def test_the_problem_does_not_repeat_the_output() -> None:
    """The problem names place and expectation, never the value."""
    prompts: list[str] = []

    def answer(request: Any) -> str:
        prompts.append(request.messages[-1].text)
        return '{"value": "SECRET"}' if len(prompts) == 1 else '{"value": 1}'

    await Agent(FunctionModel(answer), output=int).run("go")
    assert "SECRET" not in prompts[1]
    assert "value" in prompts[1]


@pytest.mark.parametrize(("native_with_tools", "format_sent"), [(True, True), (False, False)])
async def test_servers_that_cannot_combine_tools_and_formats(
    native_with_tools: bool, format_sent: bool
) -> None:
    """Where a response_format suppresses calls, the output comes as a call itself."""

    def look() -> str:
        return "seen"

    profile = Profile(native_with_tools=native_with_tools)
    answer: Any = '{"value": 1}' if format_sent else [("final_output", {"value": 1})]
    model = ScriptedModel([answer], profile=profile)
    assert (await Agent(model, tools=[look], output=int).run("go")).output == 1
    assert (model.requests[0].output is not None) == format_sent


async def test_a_run_refuses_several_choices() -> None:
    """A run continues with one choice."""
    with pytest.raises(InvalidSetting, match="n=2"):
        await Agent(ScriptedModel([]), settings=ChatSettings(n=2)).run("go")
