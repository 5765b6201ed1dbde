"""The cases: one agent each, with its script and what its run has to be.

Each name says what it shows. The parts that several cases need come first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio

from agentkit.agent import Agent
from agentkit.core.effects import Decision
from agentkit.errors import AuthenticationFailed, ModelError, ToolError
from agentkit.messages import AssistantMessage, Message, ModelResponse, ToolCall, Usage
from agentkit.runtime.config import Handoff
from agentkit.settings import ChatSettings, Limits
from agentkit.testing.host_conformance.contract import Case, Script
from agentkit.testing.scripted import Answer
from agentkit.tools.context import RunContext
from agentkit.tools.tool import Tool
from agentkit.tools.toolset import Toolset

__all__ = ["CASES"]
_TOGETHER = 10.0
"""Seconds after which calls that should run at the same time do not."""

_Call: TypeAlias = tuple[str, Mapping[str, Any]]
_Answers: TypeAlias = dict[str, Answer | ModelError]
_QUESTION = {"type": "object", "properties": {"question": {"type": "string"}}}


@dataclass(frozen=True, kw_only=True)
class City:
    """A typed output."""

    name: str
    people: int


class _Functions:
    """The functions that are tools of the cases. What they do goes to the log."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    async def look(self, city: str) -> str:
        self.log.append(f"look {city}")
        return f"sun in {city}"

    async def write(self, path: str) -> str:
        self.log.append(f"write {path}")
        return f"wrote {path}"

    async def meet(self, name: str) -> str:
        self.log.append(f"meet {name}")
        with anyio.fail_after(_TOGETHER):
            while sum(one.startswith("meet ") for one in self.log) < 2:  # noqa: ASYNC110 # as `stop`
                await anyio.sleep(0.005)
        await anyio.sleep(0.05 if name == "first" else 0)
        return f"met {name}"

    async def refuse(self, reason: str) -> str:
        raise ToolError(f"No: {reason}.")

    async def crash(self, text: str) -> str:
        raise ValueError(text)

    async def second_try(self, context: RunContext[Any]) -> str:
        self.log.append(f"attempt {context.attempt}")
        if context.attempt == 0:
            raise OSError("the line is busy")
        return "through"

    async def place(self, context: RunContext[Any]) -> str:
        whole = context.key == f"{context.run_id}{context.address}"
        key = "its key" if whole else context.key
        return f"{context.address}: {key}, {len(context.messages)} messages"

    async def draw(self, context: RunContext[Any]) -> str:
        drawn = context.now(), context.uuid(), context.random()
        return f"drew {len(drawn)}"

    async def wait(self) -> str:
        self.log.append("wait")
        await anyio.sleep_forever()
        raise AssertionError("unreachable: it sleeps for ever")

    async def who(self, context: RunContext[Any]) -> str:
        return str(context.deps["name"])


def _absolute(context: RunContext[Any], arguments: Mapping[str, Any]) -> bool:
    return arguments["path"].startswith("/")


def _tools(log: list[str]) -> dict[str, Tool[..., Any]]:
    """Return the tools of the cases, by name."""
    does = _Functions(log)
    tools = (
        Tool(does.look, description="Look at the weather.", effect="read"),
        Tool(does.write, description="Write a file."),
        Tool(does.write, name="guarded", description="Write a file.", approval=True),
        Tool(does.write, name="some", description="Write a file.", approval=_absolute),
        Tool(does.meet, description="Meet another call.", effect="read"),
        Tool(does.refuse, description="Refuse.", effect="read"),
        Tool(does.crash, description="Fail.", effect="read"),
        Tool(does.crash, name="fatal", description="Fail.", effect="read", on_error="raise"),
        Tool(does.second_try, description="Fail once.", effect="read", retries=1),
        Tool(does.place, description="Tell the place of the call.", effect="read"),
        Tool(does.draw, description="Draw a time and numbers.", effect="read"),
        Tool(does.wait, description="Wait for ever.", effect="read"),
        Tool(does.who, description="Tell who the user is.", effect="read"),
        Tool.from_schema("human", "Ask a person.", _QUESTION, None),
    )
    return {tool.name: tool for tool in tools}


def _agent(
    name: str,
    log: list[str],
    answers: _Answers,
    tools: Sequence[Any] = (),
    **options: Any,
) -> Agent[Any, Any]:
    """Make an agent; of the tools of the cases, the name is enough."""
    known = _tools(log)
    offered = [known[one] if isinstance(one, str) else one for one in tools]
    return Agent(Script(answers), name=name, tools=offered, **options)


def _used(content: str, tokens: tuple[int, int]) -> ModelResponse:
    usage = Usage(requests=1, input_tokens=tokens[0], output_tokens=tokens[1])
    return ModelResponse(message=AssistantMessage(content=content), usage=usage)


# Models and tools


def _answer(log: list[str]) -> Agent[Any, Any]:
    answers: _Answers = {"/answer/m0": _used("Hello.", (10, 3))}
    return _agent("answer", log, answers, instructions="Be brief.")


def _steps(log: list[str]) -> Agent[Any, Any]:
    return _agent(
        "steps",
        log,
        {
            "/steps/m0": [("look", {"city": "Oslo"})],
            "/steps/m1": [("write", {"path": "a"})],
            "/steps/m2": [("place", {}), ("draw", {})],
            "/steps/m3": _used("Done.", (40, 2)),
        },
        ["look", "write", "place", "draw"],
    )


def _parallel(log: list[str]) -> Agent[Any, Any]:
    calls = [("meet", {"name": "first"}), ("meet", {"name": "second"})]
    return _agent("parallel", log, {"/parallel/m0": calls, "/parallel/m1": "Both."}, ["meet"])


def _errors(log: list[str]) -> Agent[Any, Any]:
    calls: list[_Call] = [
        ("refuse", {"reason": "it rains"}),
        ("crash", {"text": "a bug"}),
        ("look", {"town": "Oslo"}),
        ("lok", {}),
        ("look", {"city": "Rome"}),
    ]
    answers: _Answers = {"/errors/m0": calls, "/errors/m1": "I see."}
    return _agent("errors", log, answers, ["refuse", "crash", "look"])


def _retry(log: list[str]) -> Agent[Any, Any]:
    answers: _Answers = {"/retry/m0": [("second_try", {})], "/retry/m1": "Through."}
    return _agent("retry", log, answers, ["second_try"])


def _fatal(log: list[str]) -> Agent[Any, Any]:
    calls = [("fatal", {"text": "no disk"}), ("look", {"city": "Rome"})]
    return _agent("fatal", log, {"/fatal/m0": calls}, ["fatal", "look"])


def _refused(log: list[str]) -> Agent[Any, Any]:
    message = AssistantMessage(refusal="I will not.")
    return _agent("refused", log, {"/refused/m0": ModelResponse(message=message)})


def _truncated(log: list[str]) -> Agent[Any, Any]:
    message = AssistantMessage(content="It is a long st")
    cut = ModelResponse(message=message, finish="length")
    return _agent("truncated", log, {"/truncated/m0": cut})


def _model_failure(log: list[str]) -> Agent[Any, Any]:
    failure = AuthenticationFailed("the key is wrong", model="script", status=401)
    answers: _Answers = {
        "/model_failure/m0": [("write", {"path": "a"})],
        "/model_failure/m1": failure,
    }
    return _agent("model_failure", log, answers, ["write"])


# Outputs


def _typed(log: list[str]) -> Agent[Any, Any]:
    answers: _Answers = {
        "/typed/m0": '{"name": "Oslo", "people": "many"}',
        "/typed/m1": '{"name": "Oslo", "people": 700000}',
    }
    return _agent("typed", log, answers, output=City)


def _output_tool(log: list[str]) -> Agent[Any, Any]:
    city = {"name": "Rome", "people": 2800000}
    answers: _Answers = {
        "/output_tool/m0": [("look", {"city": "Rome"}), ("final_output", {"name": "Rome"})],
        "/output_tool/m1": [("final_output", city)],
    }
    return _agent("output_tool", log, answers, ["look"], output=City, output_mode="tool")


def _output_function(log: list[str]) -> Agent[Any, Any]:
    def book(name: str, people: int) -> str:
        """Book a table."""
        if people > 9:
            raise ToolError("There are 9 seats.")
        log.append(f"book {name} {people}")
        return f"table for {people}"

    answers: _Answers = {
        "/output_function/m0": [("final_output", {"name": "Ada", "people": 12})],
        "/output_function/m1": [("final_output", {"name": "Ada", "people": 4})],
    }
    return _agent("output_function", log, answers, output=book, output_mode="tool")


def _validator(log: list[str]) -> Agent[Any, Any]:
    def check(output: str) -> None:
        if not output.endswith("."):
            raise ToolError("End with a full stop.")

    answers: _Answers = {"/validator/m0": "No stop", "/validator/m1": "A stop."}
    return _agent("validator", log, answers, output_validators=[check])


def _bug(log: list[str]) -> Agent[Any, Any]:
    def broken(output: str) -> None:
        raise KeyError("a bug of the application")

    return _agent("bug", log, {"/bug/m0": "Hello."}, output_validators=[broken])


# Decisions


def _approvals(log: list[str]) -> Agent[Any, Any]:
    calls = [("guarded", {"path": path}) for path in ("a", "b", "c", "d")]
    calls += [("some", {"path": "e"}), ("some", {"path": "/f"})]
    answers: _Answers = {"/approvals/m0": calls, "/approvals/m1": "Decided."}
    return _agent("approvals", log, answers, ["guarded", "some"])


def _deferred(log: list[str]) -> Agent[Any, Any]:
    calls = [("human", {"question": "Which one?"}), ("look", {"city": "Rome"})]
    answers: _Answers = {"/deferred/m0": calls, "/deferred/m1": "The blue one."}
    return _agent("deferred", log, answers, ["human", "look"])


# Agents


def _asks(name: str, log: list[str], inner: _Answers, calls: int, *tools: str) -> Any:
    """Make an agent that asks another one, so many times in one response."""
    asked = [("helper", {"prompt": f"Part {index}."}) for index in range(calls)]
    answers: _Answers = {f"/{name}/m0": asked, f"/{name}/m1": "Together."}
    helper = _agent("helper", log, inner, tools)
    return _agent(name, log, answers, [helper.as_tool()])


def _sub_agent(log: list[str]) -> Agent[Any, Any]:
    at = "/sub_agent/m0/t0/helper"
    inner: _Answers = {
        f"{at}/m0": [("write", {"path": "a"})],
        f"{at}/m1": _used("Written.", (5, 1)),
    }
    return _asks("sub_agent", log, inner, 1, "write")


def _sub_agents(log: list[str]) -> Agent[Any, Any]:
    inner: _Answers = {}
    for index in range(3):
        at = f"/sub_agents/m0/t{index}/helper"
        inner |= {f"{at}/m0": [("look", {"city": f"{index}"})], f"{at}/m1": f"Part {index} done."}
    return _asks("sub_agents", log, inner, 3, "look")


def _inner_approval(log: list[str]) -> Agent[Any, Any]:
    at = "/inner_approval/m0/t0/helper"
    inner: _Answers = {f"{at}/m0": [("guarded", {"path": "a"})], f"{at}/m1": "Written."}
    return _asks("inner_approval", log, inner, 1, "guarded")


def _handoff(log: list[str]) -> Agent[Any, Any]:
    at = "/handoff/m0/t1/expert"
    inner: _Answers = {f"{at}/m0": [("look", {"city": "Oslo"})], f"{at}/m1": "An expert's answer."}
    expert = _agent("expert", log, inner, ["look"], instructions="You are the expert.")
    answers: _Answers = {"/handoff/m0": [("write", {"path": "a"}), ("transfer_to_expert", {})]}
    return _agent("handoff", log, answers, ["write", Handoff(expert)])


# Limits and cancellation


def _limit_of_steps(log: list[str]) -> Agent[Any, Any]:
    at = "/limit_of_steps"
    answers: _Answers = {f"{at}/m{step}": [("look", {"city": f"{step}"})] for step in range(3)}
    return _agent("limit_of_steps", log, answers, ["look"], limits=Limits(steps=2))


def _limit_of_calls(log: list[str]) -> Agent[Any, Any]:
    at, paths = "/limit_of_calls", ("a", "b", "c")
    answers: _Answers = {
        f"{at}/m0": [("write", {"path": "a"})],
        f"{at}/m1": [("write", {"path": path}) for path in paths],
    }
    return _agent("limit_of_calls", log, answers, ["write"], limits=Limits(tool_calls=3))


def _limit_of_all(log: list[str]) -> Agent[Any, Any]:
    at = "/limit_of_all/m0/t0/helper"
    inner: _Answers = {
        f"{at}/m0": [("write", {"path": "a"})],
        f"{at}/m1": [("write", {"path": "b"})],
    }
    agent = _asks("limit_of_all", log, inner, 1, "write")
    return agent.with_(limits=Limits(steps=2))


def _cancelled(log: list[str]) -> Agent[Any, Any]:
    return _agent("cancelled", log, {"/cancelled/m0": [("wait", {})]}, ["wait"])


# What is computed


def _instructions(log: list[str]) -> Agent[Any, Any]:
    def instructions(context: RunContext[Any]) -> str:
        return f"You speak with {context.deps['name']}."

    answers: _Answers = {"/instructions/m0": [("who", {})], "/instructions/m1": "Hello, Ada."}
    return _agent("instructions", log, answers, ["who"], instructions=instructions)


class _Later(Toolset):
    """Offers a second tool once the first was called."""

    def __init__(self, tools: Mapping[str, Tool[..., Any]]) -> None:
        self._known = tools

    def tools(self, context: RunContext[Any]) -> list[Tool[..., Any]]:
        called = context.usage.tool_calls > 0
        return [self._known["look"], *([self._known["write"]] if called else [])]


def _toolset(log: list[str]) -> Agent[Any, Any]:
    answers: _Answers = {
        "/toolset/m0": [("look", {"city": "Oslo"})],
        "/toolset/m1": [("write", {"path": "a"})],
        "/toolset/m2": "Done.",
    }
    return _agent("toolset", log, answers, [_Later(_tools(log))])


def _settings(log: list[str]) -> Agent[Any, Any]:
    def of_step(context: RunContext[Any]) -> ChatSettings:
        first = context.usage.requests == 0
        return ChatSettings(temperature=0.5, tool_choice="required" if first else "none")

    answers: _Answers = {"/settings/m0": [("look", {"city": "Oslo"})], "/settings/m1": "Sun."}
    return _agent("settings", log, answers, ["look"], step_settings=of_step)


def _compacted(log: list[str]) -> Agent[Any, Any]:
    def newest(messages: Sequence[Message]) -> list[Message]:
        log.append("compact")
        return [messages[0], *messages[-2:]]

    call = ToolCall(id="call_1", name="look", arguments='{"city":"Oslo"}')
    long = Usage(requests=1, input_tokens=900)
    message = AssistantMessage(tool_calls=(call,))
    answers: _Answers = {
        "/compacted/m0": [("look", {"city": "Rome"})],
        "/compacted/m1": ModelResponse(message=message, finish="tool_calls", usage=long),
        "/compacted/m2": "Short.",
    }
    return _agent("compacted", log, answers, ["look"], compact=newest, compact_above=500)


_ADA = {"name": "Ada"}
_TWO = ("m0", "m0/t0", "m1")
CASES: tuple[Case, ...] = (
    Case(name="answer", build=_answer, output="Hello.", effects=["m0"]),
    Case(
        name="steps",
        build=_steps,
        output="Done.",
        told=["sun in Oslo", "wrote a", "/steps/m2/t0: its key, 5 messages", "drew 3"],
        does=["look Oslo", "write a"],
        effects=["m0", "m0/t0", "m1", "m1/t0", "m2", "m2/t0", "m2/t1", "m3"],
    ),
    Case(
        name="parallel",
        build=_parallel,
        output="Both.",
        told=["met first", "met second"],
        does=["meet first", "meet second"],
        effects=["m0", "m0/t0", "m0/t1", "m1"],
    ),
    Case(
        name="errors",
        build=_errors,
        output="I see.",
        told=[
            "No: it rains.",
            "ValueError: a bug",
            "The tool was not run. The JSON does not match the schema:\n- city: is required\n"
            "- town: no such property. Properties: city",
            "There is no tool 'lok'. The tools are: look, refuse, crash.",
            "sun in Rome",
        ],
        does=["look Rome"],
        effects=[
            "m0",
            ("m0/t0", {"status": "error", "error": "ToolError"}),
            ("m0/t1", {"status": "error", "error": "ValueError"}),
            ("m0/t2", {"status": "error", "error": "InvalidArguments"}),
            ("m0/t3", {"status": "error"}),
            ("m0/t4", {"status": "ok"}),
            "m1",
        ],
    ),
    Case(
        name="retry",
        build=_retry,
        output="Through.",
        told=["through"],
        does=["attempt 0", "attempt 1"],
        effects=["m0", ("m0/t0", {"status": "ok"}), "m1"],
    ),
    Case(
        name="fatal",
        build=_fatal,
        status="error",
        error=("ToolsFailed", "1 tool failed"),
        told=["ValueError: no disk", "sun in Rome"],
        does=["look Rome"],
        effects=["m0", ("m0/t0", {"status": "error"}), ("m0/t1", {"status": "ok"})],
    ),
    Case(
        name="refused",
        build=_refused,
        status="error",
        error=("ModelRefusal", "script refused: I will not."),
        effects=["m0"],
    ),
    Case(
        name="truncated",
        build=_truncated,
        status="error",
        error=("OutputTruncated", "was cut off at its token limit"),
        effects=["m0"],
    ),
    Case(
        name="model_failure",
        build=_model_failure,
        status="error",
        error=("AuthenticationFailed", "the key is wrong"),
        told=["wrote a"],
        does=["write a"],
        effects=["m0", "m0/t0", ("m1", {"error": "AuthenticationFailed"})],
    ),
    Case(
        name="typed",
        build=_typed,
        output=City(name="Oslo", people=700000),
        effects=["m0", "m1"],
    ),
    Case(
        name="output_tool",
        build=_output_tool,
        output=City(name="Rome", people=2800000),
        told=[
            "sun in Rome",
            "The JSON does not match the schema:\n- people: is required\n"
            "Give the whole corrected output.",
            "Accepted.",
        ],
        does=["look Rome"],
        effects=[
            "m0",
            ("m0/t0", "look"),
            ("m0/t1", {"skipped": "refused"}),
            "m1",
            ("m1/t0", {"skipped": "output"}),
        ],
    ),
    Case(
        name="output_function",
        build=_output_function,
        output="table for 4",
        told=["There are 9 seats.", "Accepted."],
        does=["book Ada 4"],
        effects=[
            "m0",
            ("m0/t0", {"skipped": "refused"}),
            "m1",
            ("m1/t0", {"skipped": "output"}),
        ],
    ),
    Case(name="validator", build=_validator, output="A stop.", effects=["m0", "m1"]),
    Case(
        name="bug",
        build=_bug,
        status="error",
        error=("KeyError", "a bug of the application"),
        effects=["m0"],
    ),
    Case(
        name="approvals",
        build=_approvals,
        decisions={
            "/approvals/m0/t0": Decision.approve(by="Ada"),
            "/approvals/m0/t1": Decision.deny("Not this one."),
            "/approvals/m0/t2": Decision.edit({"path": "C"}),
            "/approvals/m0/t3": Decision.answer("It is there already."),
            "/approvals/m0/t5": Decision.approve(),
        },
        output="Decided.",
        told=[
            "wrote a",
            "Denied: Not this one.",
            '(Run with other arguments: {"path": "C"})\nwrote C',
            "It is there already.",
            "wrote e",
            "wrote /f",
        ],
        does=["write C", "write /f", "write a", "write e"],
        effects=[
            "m0",
            ("m0/t0", {"status": "ok"}),
            ("m0/t1", {"skipped": "denied"}),
            ("m0/t2", {"status": "ok"}),
            ("m0/t3", {"skipped": "answered"}),
            ("m0/t4", {"status": "ok"}),
            ("m0/t5", {"status": "ok"}),
            "m1",
        ],
    ),
    Case(
        name="deferred",
        build=_deferred,
        decisions={"/deferred/m0/t0": Decision.answer("the blue one")},
        output="The blue one.",
        told=["the blue one", "sun in Rome"],
        does=["look Rome"],
        effects=["m0", ("m0/t0", {"skipped": "answered"}), "m0/t1", "m1"],
    ),
    Case(
        name="sub_agent",
        build=_sub_agent,
        output="Together.",
        told=["Written."],
        does=["write a"],
        effects=[
            "m0",
            "m0/t0",
            ("m0/t0/helper", {"kind": "agent", "status": "ok"}),
            "m0/t0/helper/m0",
            ("m0/t0/helper/m0/t0", "write"),
            "m0/t0/helper/m1",
            "m1",
        ],
    ),
    Case(
        name="sub_agents",
        build=_sub_agents,
        output="Together.",
        told=["Part 0 done.", "Part 1 done.", "Part 2 done."],
        does=["look 0", "look 1", "look 2"],
        effects=[
            "m0",
            *(
                f"m0/t{index}{part}"
                for index in range(3)
                for part in ("", "/helper", "/helper/m0", "/helper/m0/t0", "/helper/m1")
            ),
            "m1",
        ],
    ),
    Case(
        name="inner_approval",
        build=_inner_approval,
        decisions={"/inner_approval/m0/t0/helper/m0/t0": Decision.approve()},
        output="Together.",
        told=["Written."],
        does=["write a"],
        effects=["m0", "m0/t0", "m0/t0/helper", *(f"m0/t0/helper/{at}" for at in _TWO), "m1"],
    ),
    Case(
        name="handoff",
        build=_handoff,
        output="An expert's answer.",
        told=["wrote a", "Handed over to expert.", "sun in Oslo"],
        does=["look Oslo", "write a"],
        effects=[
            "m0",
            ("m0/t0", "write"),
            ("m0/t1", {"skipped": "handoff"}),
            ("m0/t1/expert", {"kind": "agent"}),
            *(f"m0/t1/expert/{at}" for at in _TWO),
        ],
    ),
    Case(
        name="limit_of_steps",
        build=_limit_of_steps,
        status="limit",
        error=("LimitExceeded", "Limits.steps = 2"),
        told=["sun in 0", "sun in 1"],
        does=["look 0", "look 1"],
        effects=["m0", "m0/t0", "m1", "m1/t0"],
    ),
    Case(
        name="limit_of_calls",
        build=_limit_of_calls,
        status="limit",
        error=("LimitExceeded", "Limits.tool_calls = 3"),
        told=["wrote a", *["Not executed: the run has reached its limit."] * 3],
        does=["write a"],
        effects=[
            "m0",
            "m0/t0",
            "m1",
            *((f"m1/t{index}", {"skipped": "limit"}) for index in range(3)),
        ],
    ),
    Case(
        name="limit_of_all",
        build=_limit_of_all,
        status="limit",
        error=("LimitExceeded", "Limits.steps = 2"),
        told=["LimitExceeded: The run reached Limits.steps = 2 (now 2)."],
        does=["write a"],
        effects=[
            "m0",
            ("m0/t0", {"status": "error", "error": "LimitExceeded"}),
            ("m0/t0/helper", {"status": "limit"}),
            "m0/t0/helper/m0",
            "m0/t0/helper/m0/t0",
            ("m0/t0/helper/m1", {"error": "LimitExceeded"}),
        ],
    ),
    Case(
        name="cancelled",
        build=_cancelled,
        stops=True,
        status="cancelled",
        error=None,
        told=["Cancelled before it finished."],
        does=["wait"],
        effects=["m0", ("m0/t0", {"status": "cancelled"})],
    ),
    Case(
        name="instructions",
        build=_instructions,
        deps=_ADA,
        output="Hello, Ada.",
        told=["Ada"],
        effects=["m0", "m0/t0", "m1"],
    ),
    Case(
        name="toolset",
        build=_toolset,
        output="Done.",
        told=["sun in Oslo", "wrote a"],
        does=["look Oslo", "write a"],
        effects=["m0", "m0/t0", "m1", "m1/t0", "m2"],
    ),
    Case(
        name="settings",
        build=_settings,
        output="Sun.",
        told=["sun in Oslo"],
        does=["look Oslo"],
        effects=["m0", "m0/t0", "m1"],
    ),
    Case(
        name="compacted",
        build=_compacted,
        output="Short.",
        told=["sun in Oslo"],
        does=["compact", "look Oslo", "look Rome"],
        effects=["m0", "m0/t0", "m1", "m1/t0", "m2"],
    ),
)
