"""Limiters: how many requests at once, how many in a span of time."""

from __future__ import annotations

import anyio
import pytest

from agentkit.errors import InvalidSetting
from agentkit.events import Event, Warned
from agentkit.messages import (
    AssistantMessage,
    ModelRequest,
    ModelResponse,
    Usage,
    UserMessage,
)
from agentkit.models import ChatModel, ConcurrencyLimit, RateLimit
from agentkit.testing import FunctionModel

pytestmark = pytest.mark.anyio

ASK = ModelRequest(messages=(UserMessage(content="Hi"),))


async def test_concurrency() -> None:
    """No more than the limit at the same time; who waited is in the events."""
    running, most = 0, 0
    events: list[Event] = []

    async def answer(request: ModelRequest) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(0.01)
        running -= 1
        return "Hi"

    model = ConcurrencyLimit(FunctionModel(answer), 2)

    async def ask() -> None:
        await model.request(ASK, emit=events.append)

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(ask)
    assert most == 2
    assert [one.code for one in events if isinstance(one, Warned)] == ["concurrency_limit"] * 4


async def test_a_limited_model_is_the_same_model() -> None:
    """Name, profile, check and closing are those of the model inside."""
    inner = ChatModel("gpt-4o", api_key="x")
    for model in (ConcurrencyLimit(inner, 1), RateLimit(inner, requests=1)):
        assert model.name == "openai:gpt-4o"
        assert model.profile == inner.profile
        model.check()
        await model.aclose()


async def test_requests_per_span() -> None:
    """The third of two a span waits, and says how long."""
    events: list[Event] = []
    model = RateLimit(FunctionModel(lambda _: "Hi"), requests=2, seconds=0.2)
    started = anyio.current_time()
    for _ in range(3):
        await model.request(ASK, emit=events.append)
    assert anyio.current_time() - started >= 0.08
    (told,) = (one for one in events if isinstance(one, Warned))
    assert told.code == "rate_limit"
    assert 0.05 <= told.data["seconds"] <= 0.1


async def test_tokens_per_span() -> None:
    """What an answer used beyond the span's tokens is waited for by the next question."""
    used = ModelResponse(
        message=AssistantMessage(content="Hi"), usage=Usage(requests=1, output_tokens=150)
    )
    model = RateLimit(FunctionModel(lambda _: used), tokens=100, seconds=0.2)
    await model.request(ASK)
    started = anyio.current_time()
    await model.request(ASK)
    assert 0.08 <= anyio.current_time() - started < 1


@pytest.mark.parametrize(
    "options", [{}, {"requests": 0}, {"tokens": -1}, {"requests": 1, "seconds": 0}]
)
def test_limits_that_cannot_be(options: dict[str, int]) -> None:
    """They are refused at once."""
    with pytest.raises(InvalidSetting):
        RateLimit(FunctionModel(lambda _: "Hi"), **options)


def test_a_concurrency_that_cannot_be() -> None:
    """Nothing at once is nothing ever."""
    with pytest.raises(InvalidSetting):
        ConcurrencyLimit(FunctionModel(lambda _: "Hi"), 0)
