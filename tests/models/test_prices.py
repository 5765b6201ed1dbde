"""Money: what calls cost, and where a run ends for it."""

from __future__ import annotations

from typing import Any

import pytest

from agentkit import Agent, ChatModel, Limits, Usage, tool
from agentkit.errors import ConfigurationError, LimitExceeded
from agentkit.messages import AssistantMessage, ModelResponse, ToolCall
from agentkit.models.prices import usage_with_cost
from agentkit.testing import ChatServer, FunctionModel, ScriptedModel, reply

pytestmark = pytest.mark.anyio


def answered(model: str | None, **usage: Any) -> ModelResponse:
    """An answer with this usage."""
    return ModelResponse(
        message=AssistantMessage(content="x"), model=model, usage=Usage(requests=1, **usage)
    )


def test_known_models_have_a_price() -> None:
    """A million tokens in and out of gpt-4o cost 2.50 and 10 dollars."""
    read = usage_with_cost("openai:gpt-4o", answered("gpt-4o-2024-11-20", input_tokens=1_000_000))
    written = usage_with_cost("openai:gpt-4o", answered(None, output_tokens=1_000_000))
    assert (read.cost, written.cost) == (2.5, 10.0)


def test_cached_tokens_cost_less() -> None:
    """Tokens from the server's cache are counted at their own price."""
    usage = {"input_tokens": 1_000_000, "cached_tokens": 1_000_000}
    cost = usage_with_cost("openai:gpt-4o", answered(None, **usage)).cost
    assert cost is not None
    assert cost < 2.5


def test_unknown_models_have_none() -> None:
    """No price is not a price of zero."""
    assert usage_with_cost("openai:gpt-99", answered(None, input_tokens=1)).cost is None


def test_the_servers_own_price_wins() -> None:
    """Where the server says what a call cost, nothing is looked up."""
    assert usage_with_cost("openai:gpt-4o", answered(None, input_tokens=5, cost=0.5)).cost == 0.5


async def test_a_limit_needs_a_price() -> None:
    """A limit on money that could not be kept is refused before any I/O."""
    agent = Agent(ChatModel("gpt-99", api_key="k"), limits=Limits(cost=1))
    with pytest.raises(ConfigurationError, match="no price for 'openai:gpt-99'"):
        await agent.run("go")


async def test_the_run_ends_at_its_budget() -> None:
    """The limit names the money spent, and the result has it."""

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


async def test_no_cost_where_no_price_is_known() -> None:
    """`result.cost` is None and not zero."""
    assert (await Agent(ScriptedModel(["hi"])).run("go")).cost is None
