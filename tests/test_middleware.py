"""Middleware: what each one does, in which order, and what a replay sees of it."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Sequence
from typing import Any

import anyio
import httpx2
import pytest

from agentkit import Agent, Limits, ToolMessage, tool
from agentkit.core.effects import Effect, Failure, Handler, ModelCall, Outcome, Value
from agentkit.errors import (
    AgentKitError,
    ConfigurationError,
    InvalidSetting,
    LimitExceeded,
    ModelUnreachable,
    ToolError,
    ToolsFailed,
)
from agentkit.history import check_history
from agentkit.messages import (
    AssistantMessage,
    ImagePart,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCall,
    Usage,
    UserMessage,
)
from agentkit.middleware import around, budget, cache, guard, log, redact
from agentkit.models import ChatModel, ConcurrencyLimit, FallbackModel, Model, Profile
from agentkit.testing import ChatServer, FunctionModel, ScriptedModel, reply
from tests.support import tool_texts

pytestmark = pytest.mark.anyio
looked: list[str] = []


@tool(effect="read")
def look(place: str) -> str:
    """Look somewhere."""
    looked.append(place)
    if place == "nowhere":
        raise ToolError("There is nothing.")
    return f"seen {place}"


@tool
def write(place: str) -> str:
    """Write somewhere."""
    looked.append(place)
    return f"wrote {place}"


@pytest.fixture(autouse=True)
def _nothing_looked_at() -> None:
    looked.clear()


def agent(*script: Any, middleware: Any, **options: Any) -> Agent[str]:
    """An agent with this script."""
    return Agent(ScriptedModel(script), tools=[look, write], middleware=middleware, **options)


def used(text: str, tokens: int, cost: float | None = None) -> ModelResponse:
    """An answer that used something."""
    usage = Usage(requests=1, output_tokens=tokens, cost=cost)
    return ModelResponse(message=AssistantMessage(content=text), usage=usage)


async def replays(recorded: Any) -> None:
    """A replay without middleware and without answers gives the same."""
    assert recorded.trace is not None
    assert await agent(middleware=[]).replay(recorded.trace) == recorded


# Order and errors


async def test_the_first_is_the_outermost() -> None:
    """It sees each effect first and its outcome last."""
    seen: list[str] = []

    def noting(name: str) -> Any:
        @around
        async def note(effect: Effect, inner: Handler) -> Outcome:
            seen.append(f"{name} {effect.at}")
            outcome = await inner.perform(effect)
            seen.append(f"{name} done")
            return outcome

        return note

    await agent("Hi", middleware=[noting("a"), noting("b")]).run("go")
    assert seen == ["a /agent/m0", "b /agent/m0", "b done", "a done"]


async def test_what_one_answers_those_after_it_never_see() -> None:
    """A budget inside a cache is not asked about what the cache knows; outside it is."""
    for inside in (True, False):
        spent = budget(total_tokens=5)
        both = [cache(), spent] if inside else [spent, cache()]
        await agent(used("Hi", 10), middleware=both).run("go")
        again = agent(middleware=both)
        if inside:
            assert (await again.run("go")).output == "Hi"
        else:
            with pytest.raises(LimitExceeded):
                await again.run("go")


async def test_exception_out_of_a_handler_ends_the_run() -> None:
    """It is raised as it is, after the trace was closed."""

    @around
    async def broken(effect: Effect, inner: Handler) -> Outcome:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        await agent("Hi", middleware=[broken]).run("go")


async def test_failure_of_a_handler_ends_the_run() -> None:
    """It is the run's error, with what the run had reached."""

    @around
    async def refusing(effect: Effect, inner: Handler) -> Outcome:
        assert isinstance(effect, ModelCall)
        return Failure.of(ModelUnreachable("closed today"))

    with pytest.raises(ModelUnreachable, match="closed today") as caught:
        await agent("Hi", middleware=[refusing]).run("go")
    assert caught.value.result is not None


async def test_middleware_sees_functions_of_the_user() -> None:
    """Computed instructions are effects too."""

    @around
    async def politely(effect: Effect, inner: Handler) -> Outcome:
        outcome = await inner.perform(effect)
        return Value(value=f"{outcome.value} Please.") if isinstance(outcome, Value) else outcome

    polite = agent("Hi", middleware=[politely], instructions=lambda: "Be brief.")
    await polite.run("go")
    assert isinstance(polite.model, ScriptedModel)
    assert polite.model.requests[0].messages[0].text == "Be brief. Please."


# cache


async def test_equal_requests_are_answered_once() -> None:
    """Between runs and agents; what was not asked uses nothing."""
    shared = cache()
    first = await agent(used("Hi", 10), middleware=[shared]).run("go")
    again = await agent(middleware=[shared]).run("go")
    assert (first.output, again.output) == ("Hi", "Hi")
    assert again.usage == Usage(requests=1)
    assert (await agent("Ho", middleware=[shared]).run("other")).output == "Ho"
    await replays(again)


def models_of_one_name(url: str, other: str, clients: Sequence[Any]) -> dict[str, Model]:
    """Models that would give the same answers to everybody if only their names counted."""
    organization = ChatModel("m", base_url=url, organization="a")

    class Mine(FunctionModel):
        identity = None  # type: ignore[assignment]

    return {
        "plain": ChatModel("m", base_url=url),
        "another server": ChatModel("m", base_url=other),
        "another key": ChatModel("m", base_url=url, api_key="sk-secret-1234567890"),
        "another password": ChatModel("m", base_url=url.replace("//", "//me:secret@")),
        "another header": ChatModel("m", base_url=url, headers={"x-tenant": "a"}),
        "another organization": organization,
        "another profile": ChatModel("m", base_url=url, profile=Profile(name="compatible")),
        "a client": ChatModel("m", base_url=url, http_client=clients[0]),
        "another client": ChatModel("m", base_url=url, http_client=clients[1]),
        "limited": ConcurrencyLimit(ChatModel("m", base_url=url, api_key="limited"), 1),
        "fallback": FallbackModel(ChatModel("m", base_url=url)),
        "fallback of another": FallbackModel(organization),
        "own": Mine(lambda _: "Hi", name="compatible:m"),
        "another own": Mine(lambda _: "Hi", name="compatible:m"),
    }


async def test_answers_of_different_servers_are_kept_apart() -> None:
    """Models of one name share no answer across URLs, keys, headers, profiles and clients."""
    store: dict[str, Any] = {}
    shared = cache(store)
    async with httpx2.AsyncClient() as one, httpx2.AsyncClient() as two:
        with ChatServer(lambda _: reply("Hi")) as server, ChatServer(lambda _: reply("Hi")) as far:
            models = models_of_one_name(server.base_url, far.base_url, (one, two))
            for _ in range(2):
                for model in models.values():
                    await Agent(model, middleware=[shared]).run("go")
            assert len(store) == len(models)
            assert len(server.requests) + len(far.requests) == len(models) - 2
            # Equal ones share.
            await Agent(ChatModel("m", base_url=server.base_url), middleware=[shared]).run("go")
            assert len(store) == len(models)
    assert "secret" not in str(store.keys())


async def test_a_key_that_changes_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key that counts is the one that a request would be sent with."""
    shared = cache()
    with ChatServer(lambda _: reply("Hi")) as server:
        chatty = Agent(
            ChatModel("m", base_url=server.base_url, profile="openai"), middleware=[shared]
        )
        for key in ("one-tenants-key", "another-tenants-key", "one-tenants-key"):
            monkeypatch.setenv("OPENAI_API_KEY", key)
            await chatty.run("go")
        assert len(server.requests) == 2


async def test_named_reading_tools_are_answered_from_the_cache() -> None:
    """Equal arguments, however they are written; each answer names its own call."""
    calls = [("look", '{"place": "here"}'), ("look", '{ "place":"here" }')]
    one_by_one = agent(
        calls[:1], calls[1:], [("write", {"place": "x"})], [("write", {"place": "x"})], "Done.",
        middleware=[cache(tools=["look", "write"])],
    )  # fmt: skip
    result = await one_by_one.run("go")
    assert looked == ["here", "x", "x"]
    assert tool_texts(result) == ["seen here", "seen here", "wrote x", "wrote x"]
    check_history(result.messages)
    await replays(result)


async def test_tools_are_cached_by_name_only() -> None:
    """What a tool gives may depend on deps, so nothing is cached that nobody named."""
    calls = [("look", {"place": "here"})]
    await agent(calls, calls, "Done.", middleware=[cache()]).run("go")
    assert looked == ["here", "here"]


async def test_failures_are_not_cached() -> None:
    """Neither a model's nor a tool's: the next time everything is asked again."""
    shared = cache(tools=["look"])
    with pytest.raises(ModelUnreachable):
        await agent(ModelUnreachable("no route"), middleware=[shared]).run("go")
    assert (await agent("Hi", middleware=[shared]).run("go")).output == "Hi"
    calls = [("look", {"place": "nowhere"})]
    await agent(calls, calls, "Done.", middleware=[shared]).run("look")
    assert looked == ["nowhere", "nowhere"]


async def test_cut_off_answers_are_not_cached() -> None:
    """They end a run; the next one may be luckier."""
    shared = cache()
    cut = ModelResponse(message=AssistantMessage(content="H"), finish="length")
    with pytest.raises(AgentKitError):
        await agent(cut, middleware=[shared]).run("go")
    assert (await agent("Hi", middleware=[shared]).run("go")).output == "Hi"


async def test_cache_is_bounded() -> None:
    """What was not used for longest is forgotten."""
    shared = cache(size=2)
    model = FunctionModel(lambda request: "Hi")
    chatty = Agent(model, middleware=[shared])
    for prompt in ("a", "b", "a", "c", "a", "b"):
        await chatty.run(prompt)
    assert [request.messages[0].text for request in model.requests] == ["a", "b", "c", "b"]


async def test_cache_in_a_store_of_the_callers() -> None:
    """Its values can be pickled, so any mapping on disk will do."""
    store: dict[str, Any] = {}
    await agent("Hi", middleware=[cache(store)]).run("go")
    thawed = pickle.loads(pickle.dumps(store))
    assert (await agent(middleware=[cache(thawed)]).run("go")).output == "Hi"


# guard


async def test_guard_of_requests() -> None:
    """It may change one or end the run before the model is asked."""

    async def check(request: ModelRequest) -> ModelRequest | None:
        if "bomb" in request.messages[-1].text:
            raise AgentKitError("Not that.")
        if "old" in request.messages[-1].text:
            return ModelRequest(messages=(UserMessage(content="new"),))
        return None

    guarded = agent("Hi", "Ho", middleware=[guard(request=check)])
    with pytest.raises(AgentKitError, match=r"Not that\."):
        await guarded.run("a bomb")
    await guarded.run("an old one")
    await guarded.run("fine")
    assert isinstance(guarded.model, ScriptedModel)
    asked = [request.messages[-1].text for request in guarded.model.requests]
    assert asked == ["new", "fine"]


async def test_guard_of_calls() -> None:
    """A ToolError is told to the model, another call stands in the first one's place."""

    def check(call: ToolCall) -> ToolCall | None:
        if "secret" in call.arguments:
            raise ToolError("You may not look there.")
        if "here" in call.arguments:
            return ToolCall(id="other", name=call.name, arguments='{"place": "there"}')
        return None

    places = [[("look", {"place": place}) for place in ("secret", "here", "home")]]
    result = await agent(*places, "Done.", middleware=[guard(call=check)]).run("go")
    assert tool_texts(result) == ["You may not look there.", "seen there", "seen home"]
    assert sorted(looked) == ["home", "there"]
    check_history(result.messages)
    await replays(result)


async def test_guard_of_results() -> None:
    """What the model reads may be changed, or kept from it."""

    def check(message: ToolMessage) -> ToolMessage | None:
        if message.text == "seen home":
            raise ToolError("Private.")
        if message.text == "seen here":
            return ToolMessage(call_id="other", content=f"{message.name}: fine")
        return None

    places = [[("look", {"place": place}) for place in ("home", "here", "away")]]
    result = await agent(*places, "Done.", middleware=[guard(result=check)]).run("go")
    assert tool_texts(result) == ["Private.", "look: fine", "seen away"]
    check_history(result.messages)
    await replays(result)


@pytest.mark.parametrize("about", ["call", "result"])
async def test_guard_that_fails_ends_the_run(about: str) -> None:
    """A guard that breaks lets nothing pass; the history is valid."""

    def broken(value: Any) -> None:
        raise KeyError("oops")

    functions: Any = {about: broken}
    guarded = agent([("look", {"place": "here"})], middleware=[guard(**functions)])
    with pytest.raises(ToolsFailed) as caught:
        await guarded.run("go")
    assert [repr(error) for error in caught.value.exceptions] == ["KeyError('oops')"]
    assert caught.value.result is not None
    assert tool_texts(caught.value.result) == ["Blocked; the run ends here."]
    assert looked == ([] if about == "call" else ["here"])


# redact

MAIL = r"[\w.]+@[\w.]+"


async def test_redact_takes_patterns_out_of_what_the_model_reads() -> None:
    """From prompts, results and calls; equal secrets become equal placeholders."""

    @tool
    def who() -> str:
        return "ask ada@example.org"

    script = [[("who", {})], "Done."]
    model = ScriptedModel(script)
    result = await Agent(model, tools=[who], middleware=[redact(MAIL)]).run(
        [TextPart(text="I am ada@example.org"), ImagePart(url="data:,x")]
    )
    first, _, third = model.requests[1].messages
    (place,) = re.findall(r"⟦secret:[0-9a-f]{8}⟧", first.text)
    assert first.text == f"I am {place}"
    assert third.text == f"ask {place}"
    assert tool_texts(result) == [f"ask {place}"]
    assert result.messages[0].text == "I am ada@example.org"


async def test_redact_knows_keys() -> None:
    """Without a pattern, too; calls and reasoning of earlier messages included."""
    key = "sk-" + "a" * 24
    call = ToolCall(id="a", name="look", arguments=f'{{"place": "{key}"}}')
    history = [
        AssistantMessage(tool_calls=(call,), reasoning=f"Use {key}."),
        ToolMessage(call_id="a", content="seen"),
    ]
    keyless = agent("Hi", middleware=[redact()])
    await keyless.run("go", history=history)
    assert isinstance(keyless.model, ScriptedModel)
    assert key not in repr(keyless.model.requests)
    assert "⟦api_key:" in repr(keyless.model.requests)


async def test_redact_does_so_once_for_each_message() -> None:
    """The same message gives the same object at each step, so its bytes are encoded once."""
    calls = [("look", {"place": "a@b"})]
    steady = agent(calls, calls, "Done.", middleware=[redact(MAIL)])
    await steady.run("I am ada@example.org")
    assert isinstance(steady.model, ScriptedModel)
    first, second, third = (request.messages for request in steady.model.requests)
    assert all(a is b for a, b in zip(first, second, strict=False))
    assert all(a is b for a, b in zip(second, third, strict=False))


async def test_redact_leaves_placeholders_alone() -> None:
    """A pattern that fits a part of a placeholder does not break it; empty matches do nothing."""
    numbers = agent("Hi", middleware=[redact(r"[a-z]+@[a-z]+", r"[0-9a-f]+", r"z*")])
    await numbers.run("mail x@y, code 77.")
    assert isinstance(numbers.model, ScriptedModel)
    text = numbers.model.requests[0].messages[0].text
    assert re.sub(r"⟦secret:[0-9a-f]{8}⟧", "P", text).endswith("P.")
    assert "@" not in text
    assert "77" not in re.sub(r"⟦[^⟧]*⟧", "", text)
    assert text.count("⟦") == text.count("⟧")


# budget


async def test_budget_is_shared_by_runs() -> None:
    """When it is spent, every run ends before its model is asked."""
    shared = budget(total_tokens=15)
    for _ in range(2):
        await agent(used("Hi", 10), middleware=[shared]).run("go")
    assert shared.used.total_tokens == 20
    with pytest.raises(LimitExceeded, match=r"budget of total_tokens = 15 .* 20") as caught:
        await agent(middleware=[shared]).run("go")
    assert (caught.value.limit, caught.value.maximum) == ("total_tokens", 15)
    assert caught.value.result is not None
    assert caught.value.result.status == "limit"


async def test_budget_counts_sub_agents() -> None:
    """Each agent that has it pays from it."""
    shared = budget(total_tokens=15)
    inner = Agent(ScriptedModel([used("in", 10)]), name="inner", middleware=[shared])
    calls = [[("inner", {"prompt": "go"})]]
    outer = Agent(
        ScriptedModel([*calls, used("out", 10)]), tools=[inner.as_tool()], middleware=[shared]
    )
    await outer.run("go")
    assert shared.used.output_tokens == 20


async def test_budget_of_money() -> None:
    """In USD, where a price is known."""
    shared = budget(cost=0.5)
    await agent(used("Hi", 1, cost=0.6), middleware=[shared]).run("go")
    assert shared.used.cost == 0.6
    with pytest.raises(LimitExceeded, match=r"budget of cost = 0\.5"):
        await agent(middleware=[shared]).run("go")


async def test_budget_of_money_without_a_price() -> None:
    """A model whose calls cost nobody knows what is not asked."""
    unknown = ScriptedModel(["Hi"], name="unknown:model")
    with pytest.raises(ConfigurationError, match="price"):
        await Agent(unknown, middleware=[budget(cost=1)]).run("go")
    assert unknown.requests == ()


def test_settings_that_cannot_be() -> None:
    """They are refused at once."""
    with pytest.raises(InvalidSetting):
        budget(cost=-1)


# log


async def test_log_says_one_line_for_each_effect(caplog: pytest.LogCaptureFixture) -> None:
    """Address, what, how it ended, milliseconds; nothing of the content."""
    caplog.set_level(logging.INFO, "agentkit.middleware")
    calls = [("look", {"place": "home"}), ("look", {"place": "nowhere"})]
    logged = agent(calls, "Done.", middleware=[log()], instructions=lambda: "Be brief.")
    await logged.run("go")
    lines = [re.sub(r"[\d.]+ ms", "T", line) for line in caplog.messages]
    assert sorted(lines) == [
        "/agent/instructions compute instructions ok T",
        "/agent/m0 model scripted tool_calls T",
        "/agent/m0/t0 tool look ok T",
        "/agent/m0/t1 tool look error T",
        "/agent/m1 model scripted stop T",
    ]


async def test_log_of_failures_and_cancellations(caplog: pytest.LogCaptureFixture) -> None:
    """They have their line too; logger and level are the caller's."""
    logger = logging.getLogger("mine")
    caplog.set_level(logging.DEBUG, "mine")
    middleware = [log(logger, logging.DEBUG)]
    with pytest.raises(ModelUnreachable):
        await agent(ModelUnreachable("no route"), middleware=middleware).run("go")

    async def hang(request: ModelRequest) -> str:
        await anyio.sleep_forever()
        return ""

    with pytest.raises(LimitExceeded):
        slow = Agent(FunctionModel(hang), middleware=middleware, limits=Limits(seconds=0.02))
        await slow.run("go")
    lines = [re.sub(r"[\d.]+ ms", "T", record.getMessage()) for record in caplog.records]
    assert lines == [
        "/agent/m0 model scripted ModelUnreachable T",
        "/agent/m0 model function unfinished T",
    ]
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
