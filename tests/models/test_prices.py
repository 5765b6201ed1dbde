"""The cost of calls, and runs that end at their cost limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from genai_prices import data_snapshot
from genai_prices.types import ClauseEquals

from agentkit import Agent, ChatModel, Limits, Usage, tool
from agentkit.errors import ConfigurationError, InvalidSetting, LimitExceeded
from agentkit.messages import AssistantMessage, ModelResponse, ToolCall
from agentkit.middleware import budget
from agentkit.models import FallbackModel, Price, RateLimit
from agentkit.models.prices import usage_with_cost
from agentkit.testing import ChatServer, FunctionModel, ScriptedModel, reply

pytestmark = pytest.mark.anyio


def response_with(model: str | None, **usage: Any) -> ModelResponse:
    """Return a response with this usage."""
    return ModelResponse(
        message=AssistantMessage(content="x"), model=model, usage=Usage(requests=1, **usage)
    )


def test_known_models_have_a_price() -> None:
    """A million tokens in and out of gpt-4o cost 2.50 and 10 dollars."""
    read = usage_with_cost(
        "openai:gpt-4o", response_with("gpt-4o-2024-11-20", input_tokens=1_000_000)
    )
    written = usage_with_cost("openai:gpt-4o", response_with(None, output_tokens=1_000_000))
    assert (read.cost, written.cost) == (2.5, 10.0)


def test_cached_tokens_cost_less() -> None:
    """Tokens from the server's cache have their own, lower price."""
    usage = {"input_tokens": 1_000_000, "cached_tokens": 1_000_000}
    cost = usage_with_cost("openai:gpt-4o", response_with(None, **usage)).cost
    assert cost is not None
    assert cost < 2.5


def test_unknown_models_have_no_price() -> None:
    """The cost of an unknown model is None, not zero."""
    assert usage_with_cost("openai:gpt-99", response_with(None, input_tokens=1)).cost is None


def test_a_newer_price_list_is_asked_again() -> None:
    """A model that one list does not have is looked for in the next."""
    used = response_with(None, input_tokens=1_000_000)
    assert usage_with_cost("openai:gpt-98", used).cost is None
    openai = next(one for one in data_snapshot.get_snapshot().providers if one.id == "openai")
    known = next(one for one in openai.models if one.id == "gpt-4o")
    renamed = replace(known, id="gpt-98", match=ClauseEquals("gpt-98"))
    providers = [replace(openai, models=[renamed])]
    data_snapshot.set_custom_snapshot(data_snapshot.DataSnapshot(providers, from_auto_update=True))
    try:
        assert usage_with_cost("openai:gpt-98", used).cost == 2.5
    finally:
        data_snapshot.set_custom_snapshot(None)
    assert usage_with_cost("openai:gpt-98", used).cost is None


def test_the_servers_own_cost_wins() -> None:
    """A cost in the response is not looked up."""
    assert (
        usage_with_cost("openai:gpt-4o", response_with(None, input_tokens=5, cost=0.5)).cost == 0.5
    )


async def test_a_limit_needs_a_price() -> None:
    """A cost limit that cannot be enforced is refused before any I/O."""
    agent = Agent(ChatModel("gpt-99", api_key="k"), limits=Limits(cost=1))
    with pytest.raises(ConfigurationError, match="no price for 'openai:gpt-99'"):
        await agent.run("go")


async def test_a_server_of_ones_own_has_the_price_it_is_given() -> None:
    """In USD per million tokens, alone and below other models, for limits and for budgets."""
    counted = Usage(input_tokens=1000, output_tokens=100, cached_tokens=500)
    price = Price(input=2, output=10, cached=1)
    async with ChatServer([reply("hi", usage=counted)] * 4) as server:
        url = server.base_url
        model = ChatModel("ours", base_url=url, api_key="k", profile="vllm", price=price)
        limits = Limits(cost=1)
        for one in (model, FallbackModel(model), RateLimit(model, requests=60)):
            async with Agent(one, limits=limits).stream("go") as run:
                [event async for event in run]
            assert run.result.cost == pytest.approx(0.0025)
        shared = budget(cost=1)
        await Agent(model, middleware=[shared]).run("go")
    assert shared.used.cost == pytest.approx(0.0025)


@pytest.mark.parametrize("wrong", [-1, float("nan"), "2", None, True])
def test_a_price_is_a_number(wrong: Any) -> None:
    """It is checked at once, and the option is named."""
    with pytest.raises(InvalidSetting, match=r"Price\.input must be a number >= 0, not"):
        Price(input=wrong, output=1)
    with pytest.raises(ConfigurationError, match=r"price=2: expected Price\(input=…, output=…\)"):
        ChatModel("m", price=2)  # type: ignore[arg-type]


def test_a_price_has_no_other_names() -> None:
    """Words of price lists are refused with the name here."""
    wrong: Any = {"prompt": 1, "completion": 2}
    with pytest.raises(TypeError, match=r"'prompt'; use input=….*'completion'; use output=…"):
        Price(**wrong)


async def test_a_server_without_a_price_is_named() -> None:
    """The message says how to give it one."""
    model = ChatModel("ours", base_url="http://localhost:1/v1", api_key="k", profile="vllm")
    with pytest.raises(ConfigurationError, match=r"'vllm:ours'.*price=Price\(input=…, output=…\)"):
        await Agent(model, limits=Limits(cost=1)).run("go")


async def test_a_run_ends_at_its_cost_limit() -> None:
    """The error has the cost so far, and its result has the usage."""

    def spend(request: Any) -> ModelResponse:
        call = ToolCall(id=str(len(request.messages)), name="look", arguments="{}")
        usage = Usage(requests=1, cost=0.4)
        return ModelResponse(message=AssistantMessage(tool_calls=(call,)), usage=usage)

    @tool
    def look() -> str:
        return "seen"

    limits = Limits(cost=1, repeats=100)
    with pytest.raises(LimitExceeded, match=r"Limits\.cost = 1 \(now 1\.2\)") as caught:
        await Agent(FunctionModel(spend), tools=[look], limits=limits).run("go")
    assert caught.value.result is not None
    assert caught.value.result.usage.cost == pytest.approx(1.2)


async def test_cost_of_a_run_over_a_socket() -> None:
    """A real response is priced by the model's name."""
    counted = Usage(input_tokens=1000, output_tokens=100)
    async with ChatServer([reply("hi", usage=counted)]) as server:
        model = ChatModel("gpt-4o", base_url=server.base_url, api_key="k", profile="openai")
        result = await Agent(model).run("go")
    assert result.usage.cost == pytest.approx(0.0035)
    assert result.cost == result.usage.cost


async def test_no_cost_without_a_price() -> None:
    """`result.cost` is None, not zero, if no price is known."""
    assert (await Agent(ScriptedModel(["hi"])).run("go")).cost is None
