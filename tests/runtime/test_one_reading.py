"""A call's arguments are read once: what decides about a call sees what runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, Field, Json

from agentkit import Agent, Decision, RunContext, RunResult, Tool, Toolset, Trace, tool
from agentkit.core.effects import Effect, Handler, Outcome, PendingCall, ToolInvocation
from agentkit.errors import ConfigurationError, InvalidArguments
from agentkit.events import Paused, ToolCallStarted, Warned
from agentkit.middleware import around, guard
from agentkit.testing import ScriptedModel
from tests.support import tool_texts

pytestmark = pytest.mark.anyio
ran: list[Any] = []
judged: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_yet() -> None:
    ran.clear()
    judged.clear()


def large(context: RunContext[None], args: dict[str, Any]) -> bool:
    """Ask about large amounts."""
    judged.append(args)
    return args.get("amount", 0) > 100


@tool(approval=large)
def pay(amount: int = 1000, to: str | None = None) -> str:
    """Pay."""
    ran.append({"amount": amount, "to": to})
    return f"paid {amount}"


def agent(text: str, *tools: Any, **options: Any) -> Agent[str]:
    """An agent that calls the first tool with this text, and then says done."""
    tools = tools or (pay,)
    name = tools[0].name if isinstance(tools[0], Tool) else "pay"
    return Agent(ScriptedModel([[(name, text)], "done"]), tools=tools, **options)


FULL = {"amount": 5000, "to": None}
WRITTEN = {
    "single quotes": "{'amount': 5000}",
    "trailing comma": '{"amount": 5000,}',
    "fence": '```json\n{"amount": 5000}\n```',
    "bare keys": "{amount: 5000}",
    "prose": 'Sure: {"amount": 5000}',
    "encoded twice": json.dumps('{"amount": 5000}'),
    "text": '{"amount": "5000"}',
    "float": '{"amount": 5000.0}',
    "null": '{"amount": 5000, "to": null}',
    "valid": '{"amount": 5000}',
    "equal keys": '{"amount": 5000, "amount": 5000}',
}


@pytest.mark.parametrize("name", WRITTEN)
async def test_approval_and_approver_see_what_runs(name: str) -> None:
    """However the model has written it; so do listeners, history and trace."""
    asked: list[PendingCall] = []
    events: list[Any] = []

    def approve(pending: PendingCall) -> bool:
        asked.append(pending)
        return True

    made = agent(WRITTEN[name])
    result = await made.run("go", approver=approve, on_event=events.append)
    assert judged == [FULL]
    assert [one.args for one in asked] == [FULL]
    assert [json.loads(one.call.arguments) for one in asked] == [FULL]
    assert ran == [FULL]
    started = [one for one in events if isinstance(one, ToolCallStarted)]
    assert [json.loads(one.arguments) for one in started] == [FULL]
    assert [one.pending for one in events if isinstance(one, Paused)] == [tuple(asked)]
    (call,) = result.messages[1].tool_calls  # type: ignore[union-attr]
    assert int(json.loads(call.arguments)["amount"]) == 5000
    assert result.trace is not None
    recorded = result.trace.effects["/agent/m0/t0"]
    assert (json.loads(recorded.arguments), recorded.pending) == (FULL, asked[0])
    assert await made.replay(result.trace) == result


@pytest.mark.parametrize("name", WRITTEN)
async def test_a_pause_shows_what_runs_when_it_is_resumed(name: str) -> None:
    """In another process, too, where the arguments are read again."""
    paused = await agent(WRITTEN[name]).run("go")
    assert (paused.status, [one.args for one in paused.pending]) == ("paused", [FULL])
    assert paused.trace is not None
    assert paused.trace.pending == paused.pending
    assert await agent("").replay(paused.trace) == paused
    now = Agent(ScriptedModel(["done"]), tools=[pay])
    result = await now.resume(paused.trace, decisions={paused.pending[0].at: True})
    assert (ran, result.output) == ([FULL], "done")
    assert await agent("").replay(result.trace) == result  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["{}", "", "null", '{"amount": null}', '{"to": "me"}'])
async def test_defaults_are_judged(text: str) -> None:
    """What the model leaves out is what the function takes instead."""
    result = await agent(text).run("go")
    assert (result.status, judged[0]["amount"], ran) == ("paused", 1000, [])


async def test_small_amounts_just_run() -> None:
    """Nobody is asked about them."""
    result = await agent("{'amount': '50'}").run("go")
    assert (tool_texts(result), ran) == (["paid 50"], [{"amount": 50, "to": None}])


UNFIT = [
    '{"amount": "much"}',
    '{"amount": 50, "amount": 5000}',
    '{"amont": 50}',
    '{"amount": 50',
    "[50]",
    "not JSON",
    '{"amount": 50, "to": "\\ud800"}',
    '{"amount": 1e999}',
    '{"amount": 50, "to": ' + "[" * 5000 + "]" * 5000 + "}",
]


@pytest.mark.parametrize("text", UNFIT)
@pytest.mark.parametrize("approval", [True, large], ids=["always", "function"])
async def test_nobody_is_asked_about_arguments_that_do_not_fit(text: str, approval: Any) -> None:
    """The model reads why, and the run goes on."""
    result = await agent(text, pay.with_(approval=approval)).run("go")
    assert (result.status, judged, ran) == ("ok", [], [])
    assert "The tool was not run" in tool_texts(result)[0]
    assert (
        await agent("").with_(tools=[pay.with_(approval=approval)]).replay(result.trace) == result
    )  # type: ignore[arg-type]


async def test_nobody_is_asked_about_a_deferred_call_that_does_not_fit() -> None:
    """It is answered from outside only if it says something that fits."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    ask = Tool.from_schema("ask", "Ask.", schema, None)
    made = Agent(ScriptedModel([[("ask", "{}"), ("ask", "{'n': '3'}")]]), tools=[ask])
    result = await made.run("go")
    assert [one.args for one in result.pending] == [{"n": 3}]


class Order(BaseModel):
    """An order with a field of several names."""

    amount: int = Field(default=1000, validation_alias=AliasChoices("amt", "amount"))
    hidden: int = Field(default=7, exclude=True)


@dataclass
class Note:
    """A dataclass."""

    text: str = "hello"


async def test_fields_are_judged_by_the_names_of_the_schema() -> None:
    """Whichever name the model used, and with all that a serializer would leave out."""

    def needed(context: RunContext[None], args: dict[str, Any]) -> bool:
        judged.append(args)
        return args["order"]["amt"] > 100

    @tool(approval=needed)
    def place(order: Order, note: Note = Note()) -> str:  # noqa: B008
        return str(order.amount)

    for text in ('{"order": {"amount": 5000}}', '{"order": {"amt": "5000"}}'):
        result = await agent(text, place).run("go")
        assert result.status == "paused"
        shown = {"order": {"amt": 5000, "hidden": 7}, "note": {"text": "hello"}}
        assert (judged.pop(), result.pending[0].args) == (shown, shown)


async def test_a_parameter_with_an_alias_is_judged_by_both_names() -> None:
    """An approval function may use the model's or Python's."""
    for name in ("sum", "amount"):

        def needed(context: Any, args: dict[str, Any], name: str = name) -> bool:
            return args.get(name, 0) > 100

        @tool(approval=needed)
        def send(amount: Annotated[int, Field(alias="sum")]) -> str:
            return str(amount)

        result = await agent('{"sum": 5000}', send).run("go")
        assert [one.args for one in result.pending] == [{"sum": 5000}]


def returning(value: Any) -> Callable[..., Any]:
    """An approval function that returns this."""
    return lambda context, args: value


async def later(context: Any, args: Any) -> None:
    """Forget to return something."""


def broken(context: Any, args: Any) -> bool:
    """Fail."""
    raise KeyError("amount")


def exiting(context: Any, args: Any) -> bool:
    """Try to leave."""
    raise SystemExit(0)


UNSURE = [returning(None), returning(0), returning(""), returning("no"), later, broken, exiting]


@pytest.mark.parametrize("approval", UNSURE)
async def test_only_false_lets_a_call_run_unasked(approval: Any) -> None:
    """A function that fails or says something else has not said that the call is harmless."""
    events: list[Any] = []
    result = await agent('{"amount": 1}', pay.with_(approval=approval)).run(
        "go", on_event=events.append
    )
    assert (result.status, ran) == ("paused", [])
    assert [one.args for one in result.pending] == [{"amount": 1, "to": None}]
    assert [one.code for one in events if isinstance(one, Warned)] == ["approval_failed"]


async def test_an_approval_function_cannot_change_what_runs() -> None:
    """It gets a copy."""

    def needed(context: Any, args: dict[str, Any]) -> bool:
        args["items"].append("more")
        args.clear()
        return False

    @tool(approval=needed)
    def buy(items: list[str]) -> str:
        return ", ".join(items)

    assert tool_texts(await agent('{"items": ["a"]}', buy).run("go")) == ["a"]


# Values that cannot be read twice


async def test_a_validator_is_not_run_on_its_own_value() -> None:
    """What was approved runs, in this process and in another one."""

    @tool(approval=True)
    def cents(amount: Annotated[int, AfterValidator(lambda value: value * 100)]) -> str:
        ran.append(amount)
        return "paid"

    approved = await agent('{"amount": 5}', cents).run("go", approver=lambda one: True)
    assert (approved.status, ran) == ("ok", [500])
    paused = await agent('{"amount": 5}', cents).run("go")
    assert [one.args for one in paused.pending] == [{"amount": 500}]
    now = Agent(ScriptedModel(["done"]), tools=[cents])
    await now.resume(paused.trace, decisions={paused.pending[0].at: True})  # type: ignore[arg-type]
    assert ran == [500, 500]


async def test_a_default_that_is_made_anew_stays_what_was_shown() -> None:
    """It is approved by its value."""

    @tool(approval=True)
    def create(key: Annotated[UUID, Field(default_factory=uuid4)], data: Json[Any] = None) -> str:
        ran.append(str(key))
        return "created"

    paused = await agent("{}", create).run("go")
    shown = paused.pending[0].args
    now = Agent(ScriptedModel(["done"]), tools=[create])
    await now.resume(paused.trace, decisions={paused.pending[0].at: True})  # type: ignore[arg-type]
    assert ran == [shown["key"]]


def version(approval: Any = True, *, factor: int = 1, default: int = 50) -> Tool[Any, Any]:
    """A version of a tool: its schema is always the same."""

    def paying(amount: Any) -> str:
        ran.append(amount)
        return "paid"

    multiplied = BeforeValidator(lambda value: int(value) * factor)
    made = Field(default_factory=lambda: default)
    paying.__annotations__["amount"] = Annotated[int, multiplied, made]
    return Tool(paying, name="pay", approval=approval)


async def resumed(text: str, then: Tool[Any, Any], now: Tool[Any, Any]) -> RunResult[str]:
    """Pause a run with one version of a tool, and approve the call with another one."""
    paused = await agent(text, then).run("go")
    assert paused.trace is not None
    decisions = {paused.pending[0].at: True}
    return await Agent(ScriptedModel(["done"]), tools=[now]).resume(
        paused.trace, decisions=decisions
    )


async def test_what_is_read_differently_than_it_was_approved_is_refused() -> None:
    """A new version of a tool does not run with other arguments than were shown."""
    result = await resumed('{"amount": 5}', version(), version(factor=10))
    assert (ran, result.status) == ([], "ok")
    assert "reads the arguments in another way" in tool_texts(result)[0]


@pytest.mark.parametrize("approval", [True, False, returning(False), returning(True)])
async def test_a_new_default_does_not_run_where_another_was_approved(approval: Any) -> None:
    """Also where the tool asks by another rule now, or does not ask any more."""
    result = await resumed("{}", version(), version(approval, default=5000))
    assert (ran, result.output) == ([50], "done")


async def test_a_run_that_is_cut_anywhere_shows_what_runs() -> None:
    """Whatever its journal holds when its process dies, the arguments are those of the tool."""
    text = "{'amount': '5000',}"
    trace = (await agent(text).run("go", approver=lambda one: True)).trace
    assert trace is not None
    lines = list(trace.raw())
    begun = next(n for n, line in enumerate(lines) if b'"agent.start"' in line) + 1
    for cut in range(begun, len(lines)):
        ran.clear()
        asked: list[Any] = []

        def approve(pending: PendingCall, asked: list[Any] = asked) -> bool:
            asked.append(pending.args)
            return True

        ended = any(b'"tool.end"' in line for line in lines[:cut])
        model = ScriptedModel(["done"] if _answered(lines[:cut]) else [[("pay", text)], "done"])
        await Agent(model, tools=[pay]).resume(Trace(lines[:cut]), approver=approve)
        assert asked in ([], [FULL])
        assert ran == ([] if ended else [FULL])


def _answered(lines: list[bytes]) -> bool:
    return any(b'"model.end"' in line for line in lines)


# Decisions


async def test_an_edited_call_is_read_like_any_other() -> None:
    """What does not fit is told to the model, and what is no JSON object is refused at once."""
    edit = Decision.edit({"amount": "60"})
    result = await agent("{'amount': 5000}").run("go", approver=lambda one: edit)
    assert ran == [{"amount": 60, "to": None}]
    wrong = await agent("{}").run("go", approver=lambda one: Decision.edit({"amont": 1}))
    assert "no such property" in tool_texts(wrong)[0]
    assert len(ran) == 1
    for text in ("[]", "null", "", "{'a': 1}", '{"a": 1, "a": 2}', "[" * 9999):
        with pytest.raises(ConfigurationError, match=r"Decision\.edit"):
            Decision.edit(text)
    assert result.status == "ok"


async def test_what_was_shown_can_be_edited() -> None:
    """The arguments that are shown are of the form that a tool takes."""

    @tool(approval=True)
    def place(order: Order, amount: Annotated[int, Field(alias="sum")]) -> str:
        ran.append((order.amount, amount))
        return "placed"

    await agent('{"order": {"amount": 5}, "sum": 1}', place).run(
        "go", approver=lambda one: Decision.edit({**one.args, "sum": 2})
    )
    assert ran == [(5, 2)]


# Middleware


def changing(amount: int, **fields: Any) -> Any:
    """Middleware that changes each call."""

    @around
    async def change(effect: Effect, inner: Handler) -> Outcome:
        if isinstance(effect, ToolInvocation):
            text = json.dumps({"amount": amount})
            effect = replace(effect, call=replace(effect.call, arguments=text, **fields))
        return await inner.perform(effect)

    return change


@pytest.mark.parametrize(
    ("approval", "to", "runs"),
    [(True, 5000, False), (large, 5000, False), (large, 60, True), (False, 5000, True)],
)
async def test_a_call_that_middleware_changes_is_judged_again(
    approval: Any, to: int, runs: bool
) -> None:
    """One that would need a decision of its own is refused, and the change is recorded."""
    made = agent('{"amount": 50}', pay.with_(approval=approval), middleware=[changing(to)])
    result = await made.run("go", approver=lambda one: True)
    assert [one["amount"] for one in ran] == [to] * runs
    if not runs:
        assert "needs a decision of its own" in tool_texts(result)[0]
    assert result.trace is not None
    warnings = [one for one in result.trace.events if one["event"] == "warning"]
    assert [one["code"] for one in warnings] == ["call_changed"]
    assert f'pay {{"amount": {to}}}' in warnings[0]["text"]
    assert await made.replay(result.trace) == result


async def test_a_call_that_middleware_gives_to_another_tool_is_judged_as_that_tools() -> None:
    """A harmless call does not become one that needs approval."""

    @tool
    def look(amount: int) -> str:
        return "looked"

    made = agent('{"amount": 1}', look, pay, middleware=[changing(5000, name="pay")])
    result = await made.run("go")
    assert ran == []
    assert "needs a decision of its own" in tool_texts(result)[0]


@pytest.mark.parametrize("name", WRITTEN)
async def test_a_guard_sees_what_runs(name: str) -> None:
    """It sees repaired and converted arguments with the defaults, of every tool."""
    seen: list[Any] = []

    def check(call: Any) -> None:
        seen.append(json.loads(call.arguments))

    made = agent(WRITTEN[name], pay.with_(approval=False), middleware=[guard(call=check)])
    await made.run("go")
    assert seen == ran == [FULL]


async def test_middleware_may_run_a_call_twice() -> None:
    """It is the same call, also where it was approved."""

    @around
    async def twice(effect: Effect, inner: Handler) -> Outcome:
        if isinstance(effect, ToolInvocation):
            await inner.perform(effect)
        return await inner.perform(effect)

    await agent("{'amount': 5}", pay.with_(approval=True), middleware=[twice]).run(
        "go", approver=lambda one: True
    )
    assert [one["amount"] for one in ran] == [5, 5]


# Toolsets and sub-agents


class Till(Toolset):
    """A toolset with the tool."""

    def tools(self, context: RunContext[Any]) -> Sequence[Tool[..., Any]]:
        """Return it."""
        return [pay]


async def test_tools_of_toolsets_are_judged_alike() -> None:
    """Also where the toolset asks for approval itself, and where the run is resumed."""
    for source in (Till(), Till().approve(), Till().approve(large)):
        ran.clear()
        paused = await agent("{'amount': '5000'}", source).run("go")
        assert [one.args for one in paused.pending] == [FULL]
        now = Agent(ScriptedModel(["done"]), tools=[source])
        await now.resume(paused.trace, decisions={paused.pending[0].at: True})  # type: ignore[arg-type]
        assert ran == [FULL]


async def test_calls_of_sub_agents_are_judged_alike() -> None:
    """The approver of the run is asked about them."""
    asked: list[Any] = []

    def approve(pending: PendingCall) -> bool:
        asked.append(pending.args)
        return True

    inner = agent("{'amount': '5000'}").with_(name="cashier").as_tool()
    outer = Agent(ScriptedModel([[("cashier", "{'prompt': 'Pay'}")], "done"]), tools=[inner])
    await outer.run("go", approver=approve)
    assert (asked, ran) == ([FULL], [FULL])


# Validators that fail in their own way


def stumble(value: Any) -> Any:
    """Fail as application code does."""
    raise LookupError("no such account")


def fall(value: Any) -> Any:
    """Fail as no validator should."""
    raise SystemExit("bye")


def cancel(value: Any) -> Any:
    """Fail as if it had been cancelled."""
    raise asyncio.CancelledError


def hopeless() -> int:
    """Make no default."""
    raise ZeroDivisionError


FAILING = {
    "before": Annotated[int, BeforeValidator(stumble)],
    "after": Annotated[int, AfterValidator(stumble)],
    "exit": Annotated[int, AfterValidator(fall)],
    "cancelled": Annotated[int, AfterValidator(cancel)],
    "default": Annotated[int, Field(default_factory=hopeless)],
}


@pytest.mark.parametrize("name", FAILING)
@pytest.mark.parametrize("approval", [False, True])
async def test_a_validator_that_raises_anything_fails_its_call_alone(
    name: str, approval: bool
) -> None:
    """Its sibling runs, and the run goes on."""

    def check(n: Any) -> str:
        raise AssertionError("never called")

    check.__annotations__["n"] = FAILING[name]
    checked = Tool(check, approval=approval)
    text = "{}" if name == "default" else '{"n": 1}'
    small = ("pay", {"amount": 1})
    made = Agent(ScriptedModel([[("check", text), small], "done"]), tools=[checked, pay])
    result = await made.run("go")
    assert (result.status, result.output) == ("ok", "done")
    assert tool_texts(result)[1] == "paid 1"
    assert "Error" in tool_texts(result)[0] or "Exit" in tool_texts(result)[0]


async def test_arguments_that_are_no_object_have_no_dict() -> None:
    """Only a call that was in flight can have such."""
    call = (await agent('{"amount": 1000}').run("go")).pending[0]
    with pytest.raises(InvalidArguments):
        _ = replace(call, call=replace(call.call, arguments="[1]")).args


# The law

values = st.none() | st.booleans() | st.integers(-9, 9999) | st.text(max_size=4)
pieces = st.dictionaries(st.sampled_from(["amount", "to", "amont"]), values, max_size=3)
texts = (
    pieces.map(json.dumps)
    | pieces.map(repr)
    | pieces.map(lambda it: f"```json\n{json.dumps(it)}\n```")
    | pieces.map(lambda it: json.dumps(json.dumps(it)))
    | pieces.map(lambda it: json.dumps(it)[:-1] + ",}")
    | st.text(max_size=12)
)


@given(texts)
def test_law_what_decides_sees_what_runs(text: str) -> None:
    """For every text: approval function, approver, guard and tool see equal arguments, or none."""
    seen: dict[str, list[Any]] = {"function": [], "approver": [], "guard": [], "tool": []}

    def needed(context: Any, args: dict[str, Any]) -> bool:
        seen["function"].append(args)
        return True

    def approve(pending: PendingCall) -> bool:
        seen["approver"].append(pending.args)
        return True

    def check(call: Any) -> None:
        seen["guard"].append(json.loads(call.arguments))

    @tool(approval=needed)
    def act(amount: int = 1000, to: str | None = None) -> str:
        seen["tool"].append({"amount": amount, "to": to})
        return "done"

    made = agent(text, act, middleware=[guard(call=check)])
    result: RunResult[str] = made.run_sync("go", approver=approve)
    assert result.status == "ok"
    assert len({json.dumps(one, sort_keys=True) for one in seen.values()}) == 1
