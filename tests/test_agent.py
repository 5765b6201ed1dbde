"""`Agent`: entry points, results and errors."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from pydantic import BaseModel

from agentkit import (
    Agent,
    AssistantMessage,
    ChatSettings,
    Handoff,
    Limits,
    ModelRequest,
    ModelResponse,
    RunContext,
    Session,
    Tool,
    ToolCall,
    ToolError,
    ToolMessage,
    Toolset,
    UserMessage,
    result_of,
    tool,
)
from agentkit.agent import AgentChanges
from agentkit.core.effects import Compute, Effect, Handler, ModelCall, ToolInvocation, Value
from agentkit.errors import (
    ConfigurationError,
    InvalidSetting,
    InvalidTool,
    LimitExceeded,
    ModelUnreachable,
    NoOutput,
    OutputInvalid,
    RecordedError,
)
from agentkit.events import Event, Finished, StepStarted, ToolCallFinished, Warned
from agentkit.history import check_history
from agentkit.messages import ImagePart, TextPart, Usage
from agentkit.middleware import around
from agentkit.runtime.config import AgentConfig
from agentkit.testing import FunctionModel, ScriptedModel
from tests.support import double, events_of, tool_texts

pytestmark = pytest.mark.anyio


class Trip(BaseModel):
    """A typed output."""

    city: str
    days: int


async def test_text_output() -> None:
    """Without an output type the answer's text is the output."""
    result = await Agent(ScriptedModel(["hi"])).run("hello")
    assert (result.output, result.status) == ("hi", "ok")
    assert result.messages == (UserMessage(content="hello"), AssistantMessage(content="hi"))


async def test_typed_output() -> None:
    """With an output type the answer is checked and converted."""
    agent = Agent(ScriptedModel(['{"city": "Paris", "days": 2}']), output=Trip)
    assert (await agent.run("plan")).output == Trip(city="Paris", days=2)


async def test_tools_run_and_their_results_go_back() -> None:
    """The model reads what its calls returned, in call order."""
    model = ScriptedModel([[("double", {"number": 4}), ("double", {"number": 5})], "8 and 10"])
    result = await Agent(model, tools=[double]).run("double 4 and 5")
    answers = tool_texts(result)
    assert answers == ["8", "10"]
    assert result.output == "8 and 10"


async def test_plain_functions_are_tools() -> None:
    """A function needs no decorator to be a tool."""

    def half(number: int) -> float:
        return number / 2

    model = ScriptedModel([[("half", {"number": 3})], "1.5"])
    result = await Agent(model, tools=[half]).run("half of 3")
    assert result.messages[2] == ToolMessage(
        call_id=result.messages[1].tool_calls[0].id,  # type: ignore[union-attr]
        name="half",
        content="1.5",
    )


async def test_deps_and_address_reach_the_tool() -> None:
    """The context carries the caller's dependencies and the call's own address."""
    seen: list[Any] = []

    @tool
    def look(context: RunContext[dict[str, int]]) -> str:
        seen.append((context.deps, str(context.address)))
        return "ok"

    await Agent(ScriptedModel([[("look", {})], "done"]), tools=[look]).run("go", deps={"a": 1})
    assert seen == [({"a": 1}, "/agent/m0/t0")]


async def test_history_goes_on() -> None:
    """The messages of one run are the history of the next; only what is new is new."""
    model = ScriptedModel(["one", "two"])
    agent = Agent(model)
    first = await agent.run("a")
    second = await agent.run("b", history=first.messages)
    assert [m.content for m in second.messages] == ["a", "one", "b", "two"]
    assert [m.content for m in second.new_messages] == ["b", "two"]


async def test_history_of_plain_dicts() -> None:
    """Chat-completions dicts are accepted as history."""
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    model = ScriptedModel(["c"])
    result = await Agent(model).run("more", history=history)
    assert [m.content for m in result.messages] == ["a", "b", "more", "c"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_computed_instructions(is_async: bool) -> None:
    """Instructions may be a function, with or without context, sync or async."""

    def plain() -> str:
        return "From a function."

    async def with_context(context: RunContext[str]) -> str:
        return f"For {context.deps}."

    model = ScriptedModel(["hi"])
    agent = Agent(model, instructions=with_context if is_async else plain)
    await agent.run("hello", deps="Ada")
    expected = "For Ada." if is_async else "From a function."
    assert model.requests[0].messages[0].content == expected


async def test_model_error_carries_what_was_reached() -> None:
    """The error has the valid history, the usage and the trace."""
    model = ScriptedModel([[("double", {"number": 1})], ModelUnreachable("no route")])
    with pytest.raises(ModelUnreachable, match="no route") as caught:
        await Agent(model, tools=[double]).run("go")
    result = caught.value.result
    assert result is not None
    assert [type(m) for m in result.messages] == [UserMessage, AssistantMessage, ToolMessage]
    assert caught.value.trace is not None
    assert caught.value.trace.status == "error"


async def test_limit_names_itself() -> None:
    """LimitExceeded says which limit it was."""
    model = FunctionModel(lambda request: [("double", {"number": len(request.messages)})])
    with pytest.raises(LimitExceeded, match=r"Limits\.steps = 3") as caught:
        await Agent(model, tools=[double], limits=Limits(steps=3)).run("go")
    assert caught.value.limit == "steps"


async def test_seconds_end_a_run_that_waits() -> None:
    """The deadline cancels what is running, and the history is valid."""

    @tool
    async def wait() -> None:
        await anyio.sleep_forever()

    model = ScriptedModel([[("wait", {})]])
    with pytest.raises(LimitExceeded) as caught:
        await Agent(model, tools=[wait]).run("go", limits=Limits(seconds=0.05))
    assert caught.value.limit == "seconds"
    assert caught.value.result is not None
    assert caught.value.result.messages[-1].text == "Cancelled before it finished."  # type: ignore[union-attr]


async def test_output_invalid_after_one_reask() -> None:
    """One re-ask by default, then the error with both attempts."""
    with pytest.raises(OutputInvalid) as caught:
        await Agent(ScriptedModel(["no", "no"]), output=Trip).run("plan")
    assert caught.value.attempts is not None
    assert len(caught.value.attempts) == 2


async def test_events_come_in_order() -> None:
    """A listener sees steps and calls as they happen."""
    events: list[Event] = []
    model = ScriptedModel([[("double", {"number": 1})], "2"])
    await Agent(model, tools=[double]).run("go", on_event=events.append)
    kinds = [type(event).__name__ for event in events]
    assert kinds == [
        "StepStarted",
        "StepFinished",
        "ToolCallStarted",
        "ToolCallFinished",
        "StepStarted",
        "StepFinished",
        "Finished",
    ]
    assert isinstance(events[0], StepStarted)
    assert events[0].at == "/agent/m0"
    assert isinstance(events[3], ToolCallFinished)
    assert events[3].text == "2"
    assert events[-1] == Finished(at=events[-1].at, status="ok")


async def test_run_sync_inside_a_running_loop() -> None:
    """run_sync works where a loop is running already, whatever its kind."""
    assert Agent(ScriptedModel(["hi"])).run_sync("hello").output == "hi"


def test_run_sync_in_a_script() -> None:
    """run_sync works without any loop, repeatedly."""
    agent = Agent(ScriptedModel(["one", "two"]))
    assert [agent.run_sync("a").output, agent.run_sync("b").output] == ["one", "two"]


@pytest.mark.asyncio
async def test_under_pytest_asyncio() -> None:
    """Most users have pytest-asyncio: the library works under its loop too."""
    assert asyncio.get_running_loop() is not None
    assert (await Agent(ScriptedModel(["hi"])).run("hello")).output == "hi"


async def test_agents_do_not_change() -> None:
    """An agent is shared; a variant is made with `with_`."""
    agent = Agent(ScriptedModel(["hi"]))
    with pytest.raises(AttributeError, match=r"agent\.with_\(name=…\)"):
        agent.name = "other"  # type: ignore[misc]
    assert agent.with_(name="other").name == "other"
    assert agent.name == "agent"


class Opaque:
    """A type that pydantic cannot describe."""


@dataclass
class Wrong:
    """A wrong call and what is said about it."""

    make: Any
    error: type[Exception]
    says: str


def untyped(city):  # type: ignore[no-untyped-def]
    return city


WRONG = [
    Wrong(lambda: Agent("opnai:gpt-4o").run_sync("x"), ConfigurationError, "opnai"),
    Wrong(lambda: Agent("gpt-4o").run_sync("x"), ConfigurationError, "gpt-4o"),
    Wrong(lambda: Agent("openai:gpt-4o").run_sync("x"), ConfigurationError, "OPENAI_API_KEY"),
    Wrong(lambda: Agent("local", tools=[untyped]), InvalidTool, "city"),
    Wrong(lambda: Agent("local", tools=[double, double]), InvalidTool, "double"),
    Wrong(lambda: Agent("local", tools=["double"]), InvalidTool, "'double'"),
    Wrong(lambda: Agent("local", name="a/b"), ConfigurationError, "a/b"),
    Wrong(lambda: Agent("local", instructions=3), ConfigurationError, "instructions=3"),  # type: ignore[arg-type]
    Wrong(lambda: Agent("local", limits=3), ConfigurationError, r"expected Limits\("),  # type: ignore[arg-type]
    Wrong(lambda: Agent("local", settings={}), ConfigurationError, "expected ChatSettings"),  # type: ignore[arg-type]
    Wrong(lambda: Agent("local", middleware=[3]), ConfigurationError, "middleware"),  # type: ignore[arg-type]
    Wrong(lambda: Agent("local", tools=double), ConfigurationError, "a list of tools"),  # type: ignore[arg-type]
    Wrong(lambda: Agent("local", output_mode="nativ"), ConfigurationError, "'native'"),  # type: ignore[arg-type]
    Wrong(lambda: Agent("local", output_retries=-1), ConfigurationError, ">= 0"),
    Wrong(lambda: Agent(None), ConfigurationError, "model=None"),  # type: ignore[arg-type]
    Wrong(lambda: Agent(ScriptedModel([])).run_sync(3), ConfigurationError, "The prompt is 3"),  # type: ignore[arg-type]
    Wrong(lambda: Agent(ScriptedModel([])).run_sync(["a"]), ConfigurationError, "content parts"),  # type: ignore[arg-type]
    Wrong(
        lambda: Agent(ScriptedModel([])).run_sync("x", history="abc"),  # type: ignore[arg-type]
        ConfigurationError,
        r"result\.messages",
    ),
    Wrong(
        lambda: Agent("local", tool=[double]), TypeError, "Agent has no option 'tool'; use tools=…"
    ),  # type: ignore[arg-type]
    Wrong(lambda: Limits(steps=0), InvalidSetting, r"Limits\.steps is 0"),
    Wrong(lambda: Agent(ScriptedModel([])).run_sync(""), ConfigurationError, "prompt is empty"),
    Wrong(lambda: Agent(ScriptedModel([])).run_sync(None), ConfigurationError, "prompt or a"),
    Wrong(
        lambda: Agent(ScriptedModel([]), output=Opaque).run_sync("x"), ConfigurationError, "Opaque"
    ),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.says)
def test_wrong_calls_are_said_before_any_io(
    wrong: Wrong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mistake has an error that names it, and no trace is begun."""
    monkeypatch.setenv("AGENTKIT_TRACE_DIR", str(tmp_path / "traces"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(wrong.error, match=wrong.says):
        wrong.make()
    assert not (tmp_path / "traces").exists()


async def test_tool_error_is_told_as_written() -> None:
    """ToolError's text reaches the model unchanged, and the run goes on."""

    @tool
    def fail() -> None:
        raise ToolError("Try Berlin instead.")

    result = await Agent(ScriptedModel([[("fail", {})], "ok"]), tools=[fail]).run("go")
    assert result.messages[2].content == "Try Berlin instead."


async def test_tool_that_cannot_be_strict_is_said_once() -> None:
    """A schema without a strict form is sent as it is, with one warning event a run."""

    @tool
    def store(values: dict[str, int]) -> str:
        """Store values."""
        return "ok"

    events: list[Event] = []
    model = ScriptedModel([[("store", {"values": {"a": 1}})], "done"])
    result = await Agent(model, tools=[store]).run("go", on_event=events.append)
    warned = [event for event in events if isinstance(event, Warned)]
    assert [event.code for event in warned] == ["tool_schema"]
    assert "store" in warned[0].text
    assert not model.requests[0].tools[0].strict
    assert result.trace is not None
    assert [e["code"] for e in events_of(result.trace, "warning")] == ["tool_schema"]


async def test_repaired_arguments_are_one_warning() -> None:
    """Whatever had to be mended in a call is said in one event."""
    events: list[Event] = []
    damaged = "```json\n{'number': '3',}\n```"
    model = ScriptedModel([[("double", damaged)], "6"])
    result = await Agent(model, tools=[double]).run("go", on_event=events.append)
    assert result.messages[2].text == "6"
    assert [event.code for event in events if isinstance(event, Warned)] == ["repaired_arguments"]


@pytest.mark.parametrize(
    ("name", "maximum", "value", "asked"),
    [
        ("steps", 2, 2, 2),
        ("input_tokens", 15, 20, 2),
        ("output_tokens", 1, 5, 1),
        ("total_tokens", 30, 30, 2),
        ("output_bytes", 7, 8, 2),
        ("tool_calls", 1, 2, 2),
    ],
)
async def test_each_limit_ends_a_run_before_the_next_dispatch(
    name: str, maximum: int, value: int, asked: int
) -> None:
    """The error names it, and carries what was reached with a valid history."""

    @tool
    def look(place: int) -> str:
        return "seen"

    def answer(request: ModelRequest) -> ModelResponse:
        number = len(request.messages)
        call = ToolCall(id=f"c{number}", name="look", arguments=f'{{"place": {number}}}')
        usage = Usage(requests=1, input_tokens=10, output_tokens=5)
        return ModelResponse(message=AssistantMessage(tool_calls=(call,)), usage=usage)

    model = FunctionModel(answer)
    agent = Agent(model, tools=[look], limits=Limits(**{name: maximum}))
    with pytest.raises(LimitExceeded, match=rf"Limits\.{name} = {maximum}") as caught:
        await agent.run("go")
    error = caught.value
    assert (error.limit, error.value, error.maximum) == (name, value, maximum)
    assert len(model.requests) == asked
    assert error.result is not None
    assert (error.result.status, error.result.usage.requests) == ("limit", asked)
    check_history(error.result.messages)


async def test_a_prompt_of_parts(tmp_path: Path) -> None:
    """An image goes to the model as it was given, and stands in the history and the trace."""
    path, model = tmp_path / "run.jsonl", ScriptedModel(["A cat."])
    prompt = [TextPart(text="What is this?"), ImagePart(url="https://example.org/cat.png")]
    result = await Agent(model).run(prompt, trace=path)
    assert model.requests[0].messages[-1].content == tuple(prompt)
    assert result.messages[0].content == tuple(prompt)
    assert await Agent(ScriptedModel([])).replay(path) == result


async def test_a_result_can_be_sent_to_another_process() -> None:
    """It is pickled with its trace, which is written then."""
    result = await Agent(ScriptedModel(["hi"])).run("go")
    again = pickle.loads(pickle.dumps(result))
    assert again == result
    assert again.trace is not None
    assert result.trace is not None
    assert [*again.trace.events] == [*result.trace.events]


async def test_a_run_without_an_output_says_so() -> None:
    """`output` raises with the status and what to do; a result is a value all the same."""
    agent = Agent(ScriptedModel([[("double", {"number": 1})]]), tools=[double])
    with pytest.raises(LimitExceeded) as caught:
        await agent.run("go", limits=Limits(tool_calls=0))
    result = caught.value.result
    assert result is not None
    with pytest.raises(NoOutput, match="status 'limit' and has no output") as missing:
        _ = result.output
    assert missing.value.status == "limit"
    assert pickle.loads(pickle.dumps(result)) == copy.deepcopy(result) == result
    assert repr(result) == f"RunResult(limit, messages=<3>, run={result.run!r})"
    done = await Agent(ScriptedModel(["hi"])).run("go")
    assert repr(done) == f"RunResult(ok, output='hi', messages=<2>, run={done.run!r})"
    assert replace(done, run="other").output == "hi"
    assert done != await Agent(ScriptedModel(["ho"])).run("go")


async def test_an_output_call_that_does_not_fit_counts_for_no_limit() -> None:
    """It is no tool call: the run goes on to the limit of steps, which names itself."""
    model = ScriptedModel([[("final_output", {"city": 1})]] * 3)
    agent = Agent(model, output=Trip, output_mode="tool", output_retries=5)
    with pytest.raises(LimitExceeded, match=r"Limits\.steps = 1 \(now 1\)") as caught:
        await agent.run("go", limits=Limits(steps=1, tool_calls=0))
    assert caught.value.result is not None
    assert "Not executed" not in caught.value.result.messages[-1].text


async def test_a_trace_in_memory_is_of_then() -> None:
    """What the application does with its values later is not in the trace."""
    kept: list[int] = [1]

    @tool
    def progress(context: RunContext) -> str:
        """Report."""
        context.progress(kept)
        return "done"

    result = await Agent(ScriptedModel([[("progress", {})], "hi"]), tools=[progress]).run("go")
    kept.append(2)
    assert result.trace is not None
    assert [e["d"] for e in events_of(result.trace, "tool.chunks")] == [[[1]]]


def test_every_option_is_spelled_out() -> None:
    """`help` shows each option with its default; every way to run takes the same ones."""
    options = {one.name: one.default for one in fields(AgentConfig)}
    of_agent = inspect.signature(Agent).parameters
    assert of_agent.keys() == options.keys()
    made = {"settings", "limits", "redact"}  # None here, an object there
    for name in of_agent.keys() - made - {"model"}:
        assert of_agent[name].default == options[name]
    assert {"output", *AgentChanges.__annotations__} == options.keys()
    run = inspect.signature(Agent.run).parameters
    assert [*run] == [
        *("self", "prompt", "deps", "history", "repair", "settings", "limits", "trace"),
        *("capture", "durability", "redact", "on_event", "approver", "model"),
    ]
    for way in (Agent.run_sync, Agent.stream, Agent.iter):
        assert inspect.signature(way).parameters == run
    own = inspect.signature(Session.run).parameters.keys()
    assert run.keys() - own == {"history", "repair"}
    of_tool = inspect.signature(Agent.as_tool).parameters
    assert of_tool.keys() - {"self"} == inspect.signature(Tool).parameters.keys() - {
        *("function", "source")  # an agent is described by its own program
    }


class Shop:
    """Deps."""


@tool
def order(context: RunContext[Shop], item: str) -> str:
    """Order an item."""
    return f"{item} from {type(context.deps).__name__}"


def greet(context: RunContext[Shop]) -> str:
    """Instructions that need deps."""
    return f"Work for {type(context.deps).__name__}."


def no_refunds(context: RunContext[Shop], output: str) -> None:
    """A validator that needs deps."""


NEEDS = [
    ({"tools": [order]}, "tool 'order'"),
    ({"instructions": greet}, "function 'greet'"),
    ({"output_validators": [no_refunds]}, "function 'no_refunds'"),
    ({"tools": [Agent("local", name="clerk", tools=[order]).as_tool()]}, "tool 'clerk'"),
    ({"tools": [Handoff(Agent("local", name="clerk", tools=[order]))]}, "tool 'order'"),
    ({"deps_type": Shop}, "expected Shop"),
]


@pytest.mark.parametrize(("options", "who"), NEEDS, ids=[who for _, who in NEEDS])
async def test_a_run_without_the_deps_that_it_needs_is_refused(
    options: dict[str, Any], who: str, tmp_path: Path
) -> None:
    """It names what needs them and their type, before any I/O."""
    model = ScriptedModel(["done"])
    agent: Agent[Any, str] = Agent(model, **options)
    path = tmp_path / "run.jsonl"
    with pytest.raises(ConfigurationError, match=who) as caught:
        await agent.run("go", trace=path)
    assert "Shop" in caught.value.message
    assert not path.exists()
    assert model.requests == ()
    assert (await agent.run("go", deps=Shop())).output == "done"


async def test_deps_of_another_type_are_refused() -> None:
    """`deps_type` says which are meant."""
    agent = Agent(
        ScriptedModel([[("order", {"item": "tea"})], "done"]), deps_type=Shop, tools=[order]
    )
    with pytest.raises(ConfigurationError, match="deps is of type int; expected Shop"):
        await agent.run("go", deps=3)  # type: ignore[arg-type]
    result = await agent.run("go", deps=Shop())
    assert result.messages[2].text == "tea from Shop"


async def test_deps_that_may_be_missing_are_not_needed() -> None:
    """An optional, unknown or bare context says nothing of the kind."""

    @tool
    def one(context: RunContext[Shop | None]) -> str:
        return str(context.deps)

    @tool
    def two(context: RunContext[Any]) -> str:
        return str(context.deps)

    @tool
    def three(context: RunContext) -> str:
        return str(context.deps)

    calls = [[(name, {}) for name in ("one", "two", "three")], "done"]
    result = await Agent(ScriptedModel(calls), tools=[one, two, three]).run("go")
    assert [message.text for message in result.messages[2:5]] == ["None"] * 3


def test_none_resets_an_option_of_a_variant() -> None:
    """`with_(limits=None)` means the default, as it does for `Agent`."""
    agent = Agent(ScriptedModel([]), settings=ChatSettings(seed=1), limits=Limits(steps=2))
    variant = agent.with_(settings=None, limits=None, redact=None)
    assert variant.config.settings == ChatSettings()
    assert variant.config.limits == Limits()


def test_usage_adds_every_field() -> None:
    """A field that is new is not forgotten; an unknown cost counts as 0."""
    names = [one.name for one in fields(Usage)]
    one, more = Usage(**dict.fromkeys(names, 1)), Usage(**dict.fromkeys(names, 2))
    assert one + more == Usage(**dict.fromkeys(names, 3))
    assert (Usage(cost=2) + Usage()).cost == (Usage() + Usage(cost=2)).cost == 2
    assert (Usage() + Usage()).cost is None


@pytest.mark.parametrize("place", ["instructions", "step_settings", "compact"])
def test_what_a_function_returns_is_checked(place: str) -> None:
    """The error names the option and the value, and has what the run had reached."""
    options: dict[str, Any] = {place: lambda *_: 5}
    if place == "compact":
        options["compact_above"] = 1
    usage = Usage(requests=1, input_tokens=9)
    call = AssistantMessage(
        tool_calls=(ToolCall(id="c", name="double", arguments='{"number": 1}'),)
    )
    model = ScriptedModel([ModelResponse(message=call, usage=usage, finish="tool_calls"), "done"])
    with pytest.raises(ConfigurationError, match=f"{place}= returned 5; expected") as caught:
        Agent(model, tools=[double], **options).run_sync("go")
    assert caught.value.result is not None
    assert caught.value.result.status == "error"


def test_what_is_refused_may_fail_to_describe_itself() -> None:
    """A broken `__repr__` does not hide what is wrong."""

    class Broken:
        def __repr__(self) -> str:
            raise KeyError("a bug of ours")

    agent = Agent(ScriptedModel(["hi"]), instructions=Broken)
    with pytest.raises(ConfigurationError, match=r"instructions= returned <Broken>; expected text"):
        agent.run_sync("go")


def test_an_agent_can_be_pickled_before_and_after_it_has_run() -> None:
    """With tools of a module; what was made for its runs is made again."""
    agent = Agent(ScriptedModel(["one", "two"]), tools=[double], output=str, name="numbers")
    agent.run_sync("go")
    for one in (agent, agent.with_(name="others")):
        copy = pickle.loads(pickle.dumps(one))
        assert repr(copy) == repr(one)
        assert copy.config.tools == (double,)


class Own(BaseException):
    """As test frameworks raise to fail or to skip a test."""


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        (ModelCall, None),
        (ModelCall, Value(value=1)),
        (ToolInvocation, "text"),
        (Compute, True),
    ],
)
def test_what_a_handler_returns_is_checked(kind: type[Effect], answer: Any) -> None:
    """An answer of the wrong kind is named with its place, and the run has a result."""

    @around
    async def wrong(effect: Effect, inner: Handler) -> Any:
        outcome = await inner.perform(effect)
        return answer if isinstance(effect, kind) else outcome

    agent = Agent(
        ScriptedModel([[("double", {"number": 1})], "done"]),
        tools=[double],
        instructions=lambda: "Be brief.",
        middleware=[wrong],
    )
    with pytest.raises(ConfigurationError) as caught:
        agent.run_sync("go")
    assert f"The {kind.__name__} at /agent/" in str(caught.value)
    assert f"was answered with {answer!r}; expected " in str(caught.value)
    result = result_of(caught.value)
    assert result is not None
    assert result.status == "error"
    check_history(result.messages)


@pytest.mark.parametrize("raised", [Own("mine"), KeyError("mine"), SystemExit(3)])
@pytest.mark.parametrize("place", ["model", "middleware", "output_validators", "instructions"])
def test_whatever_ends_a_run_has_its_result(place: str, raised: BaseException) -> None:
    """Exceptions that are none of ours come out as they are, and the trace knows the status."""

    def fail(*_: object) -> Any:
        raise raised

    @around
    async def broken(effect: Effect, inner: Handler) -> Any:
        fail()

    options: dict[str, Any] = {
        "model": {},
        "middleware": {"middleware": [broken]},
        "output_validators": {"output_validators": [fail]},
        "instructions": {"instructions": fail},
    }[place]
    model = FunctionModel(fail) if place == "model" else ScriptedModel(["hi"])
    with pytest.raises((type(raised), RecordedError)) as caught:
        Agent(model, **options).run_sync("go")
    result = result_of(caught.value)
    assert result is not None
    assert result.status == "error"
    assert result.trace is not None
    assert result.trace.status == "error"


def test_handoffs_and_toolsets_are_checked() -> None:
    """What is no agent, and what is no list of tools, is named."""

    class Broken(Toolset):
        def tools(self, context: RunContext[Any]) -> Any:
            return None

    with pytest.raises(InvalidTool, match=r"Handoff\(5\): expected an agent"):
        Agent(ScriptedModel(["x"]), tools=[Handoff(lambda: cast("Any", 5))]).run_sync("go")
    with pytest.raises(InvalidTool, match=r"Broken .* returned None; expected a list of tools"):
        Agent(ScriptedModel(["x"]), tools=[Broken()]).run_sync("go")
