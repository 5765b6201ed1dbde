# ruff: noqa: D417  the context is nobody's argument, and some docstrings are short
"""Tools: definitions, arguments, options, methods, calls."""

from __future__ import annotations

import contextvars
import datetime as dt
import inspect
import pickle
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from pydantic import Field

from agentkit import Agent
from agentkit.core.effects import Address
from agentkit.errors import InvalidArguments, InvalidTool, ToolError
from agentkit.events import Event, ToolProgress
from agentkit.runtime import handlers
from agentkit.testing import ScriptedModel
from agentkit.tools import RunContext, Tool, tool
from tests.support import double

pytestmark = pytest.mark.anyio


@tool
async def get_weather(context: RunContext[str], city: str, unit: Literal["c", "f"] = "c") -> str:
    """Current weather.

    Args:
        city: City name, for example "Paris".
        unit: Temperature unit.
    """
    return f"{context.deps} {city} {unit}"


def test_the_definition_is_what_its_author_would_write() -> None:
    """Docstring, types and defaults become the strict schema; the context is not in it."""
    assert get_weather.definition.to_json() == {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Current weather.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": 'City name, for example "Paris".'},
                    "unit": {
                        "type": ["string", "null"],
                        "enum": ["c", "f", None],
                        "description": 'Temperature unit. (default: "c")',
                    },
                },
                "required": ["city", "unit"],
                "additionalProperties": False,
            },
            "strict": True,
        },
    }


def test_the_definition_is_one_object() -> None:
    """The definition is the same object each time, so that it is encoded once."""
    assert get_weather.definition is get_weather.definition
    assert get_weather.parameters is get_weather.definition.parameters


async def test_a_call_goes_from_text_to_value() -> None:
    """`call` parses, validates, binds, injects the context and runs."""
    value = await get_weather.call('{"city": "Paris", "unit": null}', RunContext(deps="d"))
    assert value == "d Paris c"


async def test_calling_a_tool_calls_the_function() -> None:
    """The function stays a function, with its signature, name and docstring."""
    assert await get_weather(RunContext(deps="d"), "Rome", unit="f") == "d Rome f"
    assert list(inspect.signature(get_weather).parameters) == ["context", "city", "unit"]
    assert get_weather.__name__ == "get_weather"
    assert (get_weather.__doc__ or "").startswith("Current weather.")
    assert repr(get_weather).startswith("<Tool get_weather: get_weather (test_tool.py:")


async def test_repairs_are_named() -> None:
    """Repairs are noted for a warning; valid arguments have none."""
    assert get_weather.parse('{"city": "Paris"}').repairs == ()
    repaired = get_weather.parse("```json\n{'city': 'Paris',}\n```")
    assert repaired.repairs == ("a code fence around it", "a trailing comma", "single quotes")

    def function(days: int, at: list[int]) -> None:
        """Takes numbers."""

    converted = Tool(function).parse('{"days": "3", "at": "[1]"}')
    assert converted.args == (3, [1])
    assert converted.repairs == (
        "a value sent as text: at",
        "converted to the expected type: days",
    )


def test_invalid_arguments_are_explained_without_echo() -> None:
    """The model reads the path and what was expected, not what it sent."""
    with pytest.raises(InvalidArguments) as caught:
        get_weather.parse('{"citty": "secret-town", "unit": "kelvin-zz"}')
    assert str(caught.value) == (
        "The tool was not run. The JSON does not match the schema:\n"
        "- city: is required\n"
        "- unit: expected 'c' or 'f'\n"
        "- citty: no such property; did you mean 'city'? Properties: city, unit"
    )


@pytest.mark.parametrize("value", [r'"\ud800"', "[" * 400 + "]" * 400], ids=["unicode", "depth"])
def test_text_that_only_a_lenient_parser_reads_is_refused(value: str) -> None:
    """Lone surrogates and absurd nesting are refused."""
    with pytest.raises(InvalidArguments, match=r"nested too deeply|not valid Unicode"):
        Tool(anything).parse(f'{{"x": {value}}}')


def test_many_problems_are_counted() -> None:
    """The model reads ten problems and the number of the others."""

    def function(numbers: list[int]) -> None:
        """Takes numbers."""

    with pytest.raises(InvalidArguments) as caught:
        Tool(function).parse('{"numbers": [' + ", ".join(['"x"'] * 25) + "]}")
    lines = str(caught.value).splitlines()
    assert len(lines) == 12
    assert lines[1] == "- numbers[0]: expected an integer"
    assert lines[-1] == "- and 15 more"


@dataclass
class Secret:
    """Words of a field's own validator are the author's."""

    token: Annotated[str, Field(pattern="^tok_")]


def test_no_kind_of_error_repeats_what_was_sent() -> None:
    """Whatever the problem, the text does not contain the value."""

    def function(
        a: int, b: float, c: bool, d: Literal["x"], e: Secret, f: list[int], g: dict[str, int]
    ) -> None:
        """Takes one of each."""

    value = '"sk-very-secret"'
    names = "abcdefg"
    for sent in (
        "{" + ", ".join(f'"{name}": {value}' for name in names) + "}",
        '{"e": {"token": "sk-very-secret"}, "f": ["sk-very-secret"], "g": {"k": "sk-very-secret"}}',
    ):
        with pytest.raises(InvalidArguments) as caught:
            Tool(function).parse(sent)
        assert "very-secret" not in str(caught.value)


# Options


def test_options() -> None:
    """Options have defaults, and override the name and the description."""
    plain = Tool(noop)
    assert (plain.timeout, plain.concurrency, plain.sequential) == (None, None, False)
    assert (plain.effect, plain.max_output, plain.on_error, plain.retries) == (
        "write",
        65_536,
        "tell",
        0,
    )
    other = tool(
        name="other",
        description="""Something
        else.""",
        strict=False,
        timeout=1.5,
        concurrency=2,
        sequential=True,
        effect="read",
        max_output=10,
        on_error="raise",
        retries=3,
    )(noop)
    assert (other.name, other.description, other.strict) == ("other", "Something\nelse.", False)
    assert (other.timeout, other.concurrency, other.sequential) == (1.5, 2, True)
    assert (other.effect, other.max_output, other.on_error, other.retries) == (
        "read",
        10,
        "raise",
        3,
    )


def noop() -> None:
    """Nothing."""


def test_a_tool_is_immutable() -> None:
    """`with_` makes a variant and leaves the tool alone."""
    built = Tool(noop)
    with pytest.raises(AttributeError, match=r"\.with_\(name=…\)"):
        built.name = "other"
    other = built.with_(name="other", description="Other.", strict=False)
    assert (built.name, built.description, built.strict) == ("noop", "Nothing.", True)
    assert (other.name, other.description, other.strict) == ("other", "Other.", False)
    assert (
        other.with_(name=None, description=None).definition == built.with_(strict=False).definition
    )


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "space": (lambda: Tool(noop, name="do it"), "'do it' is not a valid tool name"),
    "long": (lambda: Tool(noop, name="x" * 65), "1 to 64 letters"),
    "umlaut": (lambda: Tool(noop).with_(name="größe"), "'größe' is not a valid tool name"),
    "lambda": (lambda: Tool(lambda: None), "A lambda needs one, with name=…"),
    "timeout": (lambda: Tool(noop, timeout=0), "timeout=0: expected None or seconds > 0."),
    "concurrency": (lambda: Tool(noop, concurrency=0), "concurrency=0"),
    "retries": (lambda: Tool(noop).with_(retries=-1), "retries=-1"),
    "max_output": (lambda: Tool(noop, max_output=-1), "max_output=-1"),
    "effect": (lambda: Tool(noop, effect="raed"), "effect='raed'"),  # type: ignore[arg-type]
    "timeout text": (lambda: Tool(noop, timeout="1"), "timeout='1': expected None or seconds"),  # type: ignore[arg-type]
    "timeout flag": (lambda: Tool(noop, timeout=True), "timeout=True"),
    "concurrency text": (lambda: Tool(noop, concurrency="2"), "concurrency='2'"),  # type: ignore[arg-type]
    "retries none": (lambda: Tool(noop, retries=None), "retries=None: expected an"),  # type: ignore[arg-type]
    "approval": (lambda: tool(approval="yes")(noop), "approval='yes': expected True"),  # type: ignore[arg-type]
    "sequential": (lambda: Tool(noop, sequential=1), "sequential=1"),  # type: ignore[arg-type]
    "strict": (lambda: Tool(noop, strict="no"), "strict='no'"),  # type: ignore[arg-type]
    "description": (lambda: Tool(noop, description=7), "description=7"),  # type: ignore[arg-type]
    "name": (lambda: Tool(noop, name=7), "7 is not a valid tool name"),  # type: ignore[arg-type]
    "effect list": (lambda: Tool(noop, effect=["read"]), "effect=['read']"),  # type: ignore[arg-type]
    "on_error": (lambda: Tool(noop, on_error="no"), "on_error='no'"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
def test_options_out_of_range_are_refused(name: str) -> None:
    """The error names the option and its value, before any run."""
    make, text = WRONG[name]
    with pytest.raises(InvalidTool) as caught:
        make()
    assert text in str(caught.value)


def test_an_unknown_option_is_refused() -> None:
    """A misspelt option of `with_` is an error, as it is in `Tool`."""
    with pytest.raises(TypeError, match="Tool has no option 'timout'; use timeout=…"):
        Tool(noop).with_(timout=3)  # type: ignore[call-arg]


def anything(x: Any) -> None:
    """Takes anything."""


def test_strict_falls_back_with_a_reason_or_insists() -> None:
    """None tries and warns, True raises, False does not try."""
    reason = "Tool 'anything' cannot be strict: x may be anything."
    assert Tool(anything).strict is False
    assert Tool(anything).warnings == (reason,)
    assert Tool(anything, strict=False).warnings == ()
    with pytest.raises(InvalidTool) as caught:
        _ = Tool(anything, strict=True).definition
    assert str(caught.value) == reason


def test_tokens_are_estimated() -> None:
    """A definition costs about a quarter of its bytes."""
    text = (
        '{"type":"function","function":{"name":"noop","description":"Nothing.","parameters":'
        '{"type":"object","properties":{},"required":[],"additionalProperties":false},'
        '"strict":true}}'
    )
    assert Tool(noop).definition.tokens == (len(text) + 3) // 4


# Methods


class Shop:
    """Tools with an owner."""

    def __init__(self, name: str) -> None:
        self.name = name

    @tool
    def price(self, item: str) -> str:
        """The price."""
        return f"{self.name} {item}"

    @tool(name="buy")
    async def order(self, context: RunContext[int], item: str) -> Any:
        """Order."""
        return self.name, context.deps, item

    @tool
    @classmethod
    def kind(cls, item: str) -> str:
        """A class method's tool."""
        return f"{cls.__name__} {item}"

    @classmethod
    @tool
    def kind_too(cls, item: str) -> str:
        """The other way round."""
        return f"{cls.__name__} {item}"

    @tool
    @staticmethod
    def vat(item: str) -> str:
        """A static method's tool."""
        return item

    @staticmethod
    @tool
    def vat_too(item: str) -> str:
        """The other way round."""
        return item

    borrowed = get_weather


class Kiosk(Shop):
    """Inherits them."""


async def test_a_method_is_bound_to_its_instance() -> None:
    """A tool binds as its method does; `self` is not in the schema."""
    shop = Kiosk("k")
    assert shop.price("tea") == "k tea"
    assert await shop.price.call('{"item": "tea"}') == "k tea"
    assert await shop.order.call('{"item": "tea"}', RunContext(deps=3)) == ("k", 3, "tea")
    assert list(shop.price.parameters["properties"]) == ["item"]
    assert shop.order.name == "buy"


async def test_class_and_static_methods() -> None:
    """Both orders of decorators work, from the class and from an instance."""
    for owner in (Kiosk, Kiosk("k")):
        for name, text in [
            ("kind", "Kiosk x"),
            ("kind_too", "Kiosk x"),
            ("vat", "x"),
            ("vat_too", "x"),
        ]:
            found = getattr(owner, name)
            assert found("x") == text
            assert await Tool(found).call('{"item": "x"}') == text
            assert list(Tool(found).parameters["properties"]) == ["item"]


def test_a_tool_in_a_class_is_no_method() -> None:
    """Only a function that stands in the class body waits for an instance."""
    assert Shop("s").borrowed is get_weather


def test_a_method_without_an_instance_is_refused() -> None:
    """The error says to take the tool from an instance."""
    with pytest.raises(
        InvalidTool, match=r"Take the tool from an instance, as in `instance\.price`"
    ):
        _ = Shop.price.definition
    with pytest.raises(InvalidTool, match=r"price \(test_tool\.py:\d+\) is a method"):
        Shop.price.parse('{"item": "tea"}')


def test_a_tool_of_a_tool() -> None:
    """Making a tool of a tool takes its function."""
    assert Tool(get_weather, name="again").definition == get_weather.with_(name="again").definition


# Running


async def test_a_sync_function_runs_in_a_worker_thread() -> None:
    """A sync function runs outside the event loop, with the caller's context variables."""
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")

    @tool
    def look() -> Any:
        return variable.get(), threading.current_thread() is threading.main_thread()

    assert await look.call("{}") == ("set", False)


async def test_threads_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run has so many for its sync tools, however many are called at once."""
    monkeypatch.setattr(handlers, "THREADS", 2)
    running, most = 0, 0
    lock = threading.Lock()

    @tool
    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    model = ScriptedModel([[("work", {})] * 6, "Done."])
    await Agent(model, tools=[work]).run("Go.")
    assert most == 2


async def test_a_sync_function_may_return_an_awaitable() -> None:
    """The result of a wrapper that is not a coroutine function is awaited."""

    async def inner(x: int) -> int:
        return x + 1

    def outer(x: int) -> Awaitable[int]:
        return inner(x)

    assert await Tool(outer).call('{"x": 1}') == 2


def steps(n: int) -> Iterator[int]:
    yield from range(n)


def steps_with_result(n: int) -> Any:
    yield from range(n)
    return "done"


async def async_steps(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


@pytest.mark.parametrize(
    ("function", "result"), [(steps, 2), (steps_with_result, "done"), (async_steps, 2)]
)
async def test_a_generator_reports_its_yields(function: Any, result: Any) -> None:
    """Yields are progress, on the loop's thread; the return value or last yield is the result."""
    seen: list[tuple[Event, bool]] = []
    here = threading.current_thread()
    context = RunContext(
        address=Address("/a/m0/t0"),
        emit=lambda event: seen.append((event, threading.current_thread() is here)),
    )
    assert await Tool(function).call('{"n": 3}', context) == result
    assert seen == [(ToolProgress(at=Address("/a/m0/t0"), value=i), True) for i in range(3)]


async def test_progress_from_a_worker_thread() -> None:
    """`context.progress` reaches the listener on the event loop's thread."""
    seen: list[tuple[Any, bool]] = []
    here = threading.current_thread()

    @tool
    def work(context: RunContext[None]) -> str:
        context.progress("half")
        return "whole"

    def listen(event: Event) -> None:
        assert isinstance(event, ToolProgress)
        seen.append((event.value, threading.current_thread() is here))

    assert await work.call("{}", RunContext(emit=listen)) == "whole"
    assert seen == [("half", True)]


async def test_events_of_an_abandoned_thread_are_dropped() -> None:
    """What a sync function reports after its cancellation is dropped."""
    begun, go, gone = threading.Event(), threading.Event(), threading.Event()
    seen: list[Event] = []

    @tool
    def stubborn(context: RunContext[None]) -> str:
        context.progress("before")
        begun.set()
        go.wait(60)
        try:
            context.progress("after")
        finally:
            gone.set()
        return "late"

    async with anyio.create_task_group() as group:
        group.start_soon(stubborn.call, "{}", RunContext(emit=seen.append))
        await anyio.to_thread.run_sync(begun.wait, 60)
        group.cancel_scope.cancel()
    go.set()
    await anyio.to_thread.run_sync(gone.wait, 60)
    await anyio.sleep(0.01)
    assert [event.value for event in seen if isinstance(event, ToolProgress)] == ["before"]


async def test_an_abandoned_generator_is_closed() -> None:
    """An abandoned generator ends at its next yield, and its `finally` runs."""
    begun, go, closed = threading.Event(), threading.Event(), threading.Event()

    @tool
    def stubborn() -> Iterator[int]:
        try:
            yield 1
            begun.set()
            go.wait(60)
            yield 2
            raise AssertionError("nobody listens any more")
        finally:
            closed.set()

    async with anyio.create_task_group() as group:
        group.start_soon(stubborn.call, "{}")
        await anyio.to_thread.run_sync(begun.wait, 60)
        group.cancel_scope.cancel()
    go.set()
    assert await anyio.to_thread.run_sync(closed.wait, 60)


async def test_an_async_generator_is_closed_on_cancellation() -> None:
    """Its `finally` runs before the call returns."""
    ended: list[str] = []

    @tool
    async def waiting() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(60)
        finally:
            ended.append("closed")

    with anyio.move_on_after(0.05) as scope:
        await waiting.call("{}")
    assert scope.cancelled_caught
    assert ended == ["closed"]


async def test_errors_are_raised_unchanged() -> None:
    """The caller gets the tool's exception itself."""

    @tool
    def fail(text: str) -> None:
        raise ToolError(text)

    with pytest.raises(ToolError, match=r"^as written$"):
        await fail.call('{"text": "as written"}')


def test_a_bare_context_is_enough_in_a_test() -> None:
    """Every field has a default, and the key consists of run and address."""
    assert RunContext().deps is None
    assert RunContext(run_id="r", address=Address("/a/m0/t1")).key == "r/a/m0/t1"


RAW = {"properties": {"number": {}}, "required": ["number"]}


def plainly(number: int) -> int:
    """Return a number."""
    return number


@pytest.mark.parametrize(
    "made",
    [
        double,
        double.with_(name="twice"),
        Tool(plainly, retries=2),
        Tool.from_schema("raw", "Raw.", RAW, plainly, effect="read"),
        Tool.from_schema("later", "Later.", {"properties": {}}, None),
    ],
    ids=lambda one: one.name,
)
def test_tools_of_a_module_can_be_pickled(made: Tool[..., Any]) -> None:
    """A decorated one by its name, as functions are; the others by what they are made of."""
    loaded = pickle.loads(pickle.dumps(made))
    assert loaded.definition == made.definition
    assert (loaded.retries, loaded.effect, loaded.deferred) == (
        *(made.retries, made.effect),
        made.deferred,
    )
    assert (loaded is made) is (made is double)


async def test_a_call_takes_a_mapping_as_well_as_text() -> None:
    """It is read as the text would be: converted, with defaults, and refused with the reason."""
    day = dt.date(2026, 1, 2)

    @tool
    async def book(city: str, day: dt.date, nights: int = 1) -> tuple[str, dt.date, int]:
        return city, day, nights

    assert await book.call({"city": "Paris", "day": day}) == ("Paris", day, 1)
    assert await book.call({"city": "Paris", "day": "2026-01-02", "nights": 2}) == ("Paris", day, 2)
    with pytest.raises(InvalidArguments, match="town"):
        await book.call({"town": "Paris", "day": day})
    wrong: Any = ["Paris"]
    with pytest.raises(TypeError, match=r"The arguments are \['Paris'\]: expected a mapping"):
        await book.call(wrong)
    with pytest.raises(TypeError, match="The arguments have no JSON form"):
        await book.call({"city": object()})


async def test_a_call_from_code_that_is_not_async() -> None:
    """Of sync and async functions, with a context, and inside a running loop as well."""

    @tool
    async def greet(context: RunContext[str], name: str) -> str:
        return f"{context.deps} {name}"

    assert get_weather.call_sync('{"city": "Paris"}', RunContext(deps="d"))
    assert greet.call_sync({"name": "Ada"}, RunContext(deps="Hello")) == "Hello Ada"


def test_a_call_without_a_loop() -> None:
    """It starts one."""
    assert get_weather.call_sync({"city": "Paris"}, RunContext(deps="d"))
