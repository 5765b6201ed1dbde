"""Limits on the requests at the same time and in a span of time."""

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
)
from agentkit.models import ChatModel, ConcurrencyLimit, RateLimit
from agentkit.testing import FunctionModel
from tests.models.support import REQUEST

pytestmark = pytest.mark.anyio


async def test_concurrency() -> None:
    """At most `limit` requests run at the same time, and each wait is a warning."""
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

    async def send() -> None:
        await model.request(REQUEST, emit=events.append)

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(send)
    assert most == 2
    assert [one.code for one in events if isinstance(one, Warned)] == ["concurrency_limit"] * 4


async def test_a_limited_model_is_the_same_model() -> None:
    """Name, profile, check and aclose are those of the wrapped model."""
    inner = ChatModel("gpt-4o", api_key="x")
    for model in (ConcurrencyLimit(inner, 1), RateLimit(inner, requests=1)):
        assert model.name == "openai:gpt-4o"
        assert model.profile == inner.profile
        model.check()
        await model.aclose()


async def test_requests_per_span() -> None:
    """The third request in a span of two waits, and the warning has the seconds."""
    events: list[Event] = []
    model = RateLimit(FunctionModel(lambda _: "Hi"), requests=2, seconds=0.2)
    started = anyio.current_time()
    for _ in range(3):
        await model.request(REQUEST, emit=events.append)
    assert anyio.current_time() - started >= 0.08
    (warning,) = (one for one in events if isinstance(one, Warned))
    assert warning.code == "rate_limit"
    assert 0.05 <= warning.data["seconds"] <= 0.1


async def test_tokens_per_span() -> None:
    """Tokens beyond the span's limit make the next request wait."""
    used = ModelResponse(
        message=AssistantMessage(content="Hi"), usage=Usage(requests=1, output_tokens=150)
    )
    model = RateLimit(FunctionModel(lambda _: used), tokens=100, seconds=0.2)
    await model.request(REQUEST)
    started = anyio.current_time()
    await model.request(REQUEST)
    assert 0.08 <= anyio.current_time() - started < 60


@pytest.mark.parametrize(
    "options", [{}, {"requests": 0}, {"tokens": -1}, {"requests": 1, "seconds": 0}]
)
def test_invalid_rate_limits(options: dict[str, int]) -> None:
    """Rate limits that are missing or too small are refused."""
    with pytest.raises(InvalidSetting):
        RateLimit(FunctionModel(lambda _: "Hi"), **options)


def test_an_invalid_concurrency_limit() -> None:
    """A concurrency limit below 1 is refused."""
    with pytest.raises(InvalidSetting):
        ConcurrencyLimit(FunctionModel(lambda _: "Hi"), 0)
