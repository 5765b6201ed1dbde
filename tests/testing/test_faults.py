"""Each fault by its name, and what an agent makes of it over a real socket."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from agentkit import Agent, ChatModel, tool
from agentkit.errors import AgentKitError
from agentkit.testing import ChatServer, Fault, fault, reply

CALLS = [("look", {"city": "Paris"}), ("look", {"city": "Oslo"})]
OUTCOMES: dict[str, str] = {
    **dict.fromkeys(get_args(Fault), "ok"),
    "arguments_null": "without arguments",
    "arguments_empty": "without arguments",
    "no_end": "asked again",
    "finish_error": "asked again",
    "error_inside": "asked again",
    "length": "OutputTruncated",
    "refusal": "ModelRefusal",
    "content_filter": "ModelRefusal",
    "empty": "asked again",
    "think_unclosed": "asked again",
    "rate_limited": "asked again",
    "overloaded": "asked again",
    "html": "asked again",
    "dropped": "asked again",
    "reset": "asked again",
    "cut": "asked again",
}
OF_CALLS = [name for name in get_args(Fault) if name in {"two_choices"} | set(get_args(Fault)[:12])]
looked: list[str] = []


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentkit.models.chat.model.uniform", lambda low, high: 0.0)


@tool(effect="read")
def look(city: str = "nowhere") -> str:
    """Look at the weather of a city."""
    looked.append(city)
    return f"rain in {city}"


async def streamed(server: ChatServer) -> Any:
    model = ChatModel("any", base_url=server.base_url, api_key="none")
    async with Agent(model, tools=[look]).stream("Umbrella?") as run:
        async for _ in run:
            pass
    return run.result


@pytest.mark.anyio
@pytest.mark.parametrize("name", get_args(Fault))
async def test_an_agent_survives_every_fault_or_says_what_it_was(name: Any) -> None:
    """As docs/how-to/testing.md lists them."""
    looked.clear()
    answer = reply("Take a hat.", calls=CALLS) if name in OF_CALLS else reply("Take a hat.")
    last = reply("Done.")
    with ChatServer([fault(name, answer), last, last], strict=False) as server:
        if (outcome := OUTCOMES[name])[0].isupper():
            with pytest.raises(AgentKitError) as failed:
                await streamed(server)
            assert (type(failed.value).__name__, looked) == (outcome, [])
            return
        result = await streamed(server)
    again = outcome == "asked again"
    assert len(server.requests) == (2 if again or name in OF_CALLS else 1)
    cities = ["nowhere"] * 2 if outcome == "without arguments" else ["Oslo", "Paris"]
    assert sorted(looked) == (cities if name in OF_CALLS else [])
    assert result.output == ("Done." if again or name in OF_CALLS else "Take a hat.")
