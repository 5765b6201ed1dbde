"""`FallbackModel`: the next model is asked when one has no answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentkit.core.effects import Address
from agentkit.errors import ConfigurationError, ModelHTTPError, ModelRefusal, UnknownModel
from agentkit.events import Event, HttpStarted, Restarted, TextDelta, Warned
from agentkit.messages import ModelRequest, UserMessage
from agentkit.models import PROFILES, ChatModel, FallbackModel
from agentkit.testing import ChatServer, ScriptedModel, raw, reply, sse

pytestmark = pytest.mark.anyio

ASK = ModelRequest(messages=(UserMessage(content="Hi"),))
AT = Address("/agent/m0")


async def test_the_first_model_that_answers() -> None:
    """The next is asked after an error, and the change is a warning."""
    events: list[Event] = []
    with ChatServer([raw(500), raw(500), reply("Hello")]) as server:
        a = ChatModel("a", base_url=server.base_url, retries=1)
        b = ChatModel("b", base_url=server.base_url)
        async with a, b:
            model = FallbackModel(a, b)
            response = await model.request(ASK, at=AT, emit=events.append)
    assert response.message.content == "Hello"
    assert [one.json["model"] for one in server.requests] == ["a", "a", "b"]
    (told,) = (one for one in events if isinstance(one, Warned))
    assert told.code == "fallback"
    assert told.data["next"] == "compatible:b"
    attempts = [one for one in events if isinstance(one, HttpStarted)]
    assert [one.at for one in attempts] == [AT.attempt(0), AT.attempt(1), AT.attempt(2)]


async def test_no_model_answers() -> None:
    """The last error is raised, and its notes hold what the others said."""
    with ChatServer([raw(500, {"error": "first"}), raw(404, {"error": "last"})]) as server:
        a = ChatModel("a", base_url=server.base_url, retries=0)
        async with a:
            with pytest.raises(ModelHTTPError, match="last") as caught:
                await FallbackModel(a, a).request(ASK)
    assert "first" in caught.value.__notes__[0]


async def test_a_refusal_is_an_answer() -> None:
    """It is not taken to the next model."""
    model = FallbackModel(ScriptedModel([ModelRefusal("No.")]), ScriptedModel(["Yes"]))
    with pytest.raises(ModelRefusal):
        await model.request(ASK)


async def test_shown_text_is_taken_back() -> None:
    """When the first model breaks off in sight, the caller is told to forget its text."""
    events: list[Event] = []
    with ChatServer([sse([{"choices": [{"delta": {"content": "Hel"}}]}]), reply("Yo")]) as server:
        a = ChatModel("a", base_url=server.base_url, retries=0)
        async with a:
            await FallbackModel(a, a).request(ASK, at=AT, emit=events.append, stream=True)
    shown = [one for one in events if isinstance(one, (TextDelta, Restarted))]
    assert shown[0] == TextDelta(at=AT, text="Hel")
    assert isinstance(shown[1], Restarted)
    assert shown[2] == TextDelta(at=AT, text="Yo")


def test_the_profile_is_what_all_can_do() -> None:
    """Outputs are asked for in a way that every model knows."""
    a = ScriptedModel([], name="a", profile=PROFILES["openai"])
    b = ScriptedModel([], name="b", profile=replace(PROFILES["anthropic"], repeats=1))
    model = FallbackModel(a, b)
    assert model.name == "fallback(a, b)"
    assert model.profile.output_modes == ("tool", "prompt")
    assert model.profile.repeats == 1


def test_models_may_be_named() -> None:
    """By the strings that an agent takes; one that names nothing is said at once."""
    assert FallbackModel("openai:gpt-4o", "ollama:qwen3").name == (
        "fallback(openai:gpt-4o, ollama:qwen3)"
    )
    with pytest.raises(UnknownModel, match="opnai"):
        FallbackModel("opnai:gpt-4o")


def test_no_models() -> None:
    """There has to be one."""
    with pytest.raises(ConfigurationError):
        FallbackModel()


async def test_checking_and_closing() -> None:
    """Both reach every model: a fallback that cannot work is found before it is needed."""
    with ChatServer([reply("Hi")]) as server:
        good = ChatModel("a", base_url=server.base_url)
        bad = ChatModel("b", profile="azure", api_key="x")
        model = FallbackModel(good, bad)
        with pytest.raises(ConfigurationError):
            model.check()
        await model.request(ASK)
        await model.aclose()
