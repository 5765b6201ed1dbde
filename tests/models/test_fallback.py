"""`FallbackModel`: the next model answers when one fails."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from agentkit import Agent
from agentkit.cli.view.tree import tree_of
from agentkit.errors import ConfigurationError, ModelHTTPError, ModelRefusal, UnknownModel
from agentkit.events import Event, HttpStarted, Restarted, TextDelta, Warned
from agentkit.models import PROFILES, ChatModel, FallbackModel
from agentkit.testing import ChatServer, ScriptedModel, raw, reply, sse
from agentkit.trace import Trace
from tests.models.support import AT, REQUEST

pytestmark = pytest.mark.anyio


async def test_the_first_model_that_answers() -> None:
    """After an error the next model is tried, with a warning and unique attempts."""
    events: list[Event] = []
    with ChatServer([raw(500), raw(500), reply("Hello")]) as server:
        a = ChatModel("a", base_url=server.base_url, retries=1)
        b = ChatModel("b", base_url=server.base_url)
        async with a, b:
            model = FallbackModel(a, b)
            response = await model.request(REQUEST, at=AT, emit=events.append)
    assert response.message.content == "Hello"
    assert [one.json["model"] for one in server.requests] == ["a", "a", "b"]
    (warning,) = (one for one in events if isinstance(one, Warned))
    assert warning.code == "fallback"
    assert warning.data["next"] == "compatible:b"
    attempts = [one for one in events if isinstance(one, HttpStarted)]
    assert [one.at for one in attempts] == [AT.attempt(0), AT.attempt(1), AT.attempt(2)]


async def test_which_model_answered(tmp_path: Path) -> None:
    """The response, the result and the trace say which model answered."""
    busy = raw(500, {"error": "busy"})
    with ChatServer([busy, reply("Hello"), reply("Again")]) as server:
        a = ChatModel("a", base_url=server.base_url, retries=0)
        b = ChatModel("b", base_url=server.base_url)
        async with a, b:
            agent = Agent(FallbackModel(a, b))
            result = await agent.run("Hi", trace=tmp_path / "run.jsonl")
            assert result.warnings[-1].data["next"] == "compatible:b"
            (effect,) = (one for one in result.trace.effects.values() if one.kind == "model")
            assert effect.outcome.extra["answered_by"] == "compatible:b"
            response = await FallbackModel(a, b).request(REQUEST)
    assert response.extra["answered_by"] == "compatible:a"
    shown = io.StringIO()
    trace = Trace.load(tmp_path / "run.jsonl")
    Console(file=shown, width=120).print(tree_of(trace, title="run"))
    assert "step compatible:b of fallback(compatible:a, compatible:b)" in shown.getvalue()


async def test_the_innermost_model_that_answered() -> None:
    """A model without a name of the server's has its own, and of nested ones the innermost."""
    inner = FallbackModel(ScriptedModel(["Yes"], name="inner"))
    response = await FallbackModel(inner).request(REQUEST)
    assert response.extra["answered_by"] == "inner"
    assert response.model == "inner"


async def test_no_model_answers() -> None:
    """If all models fail, the last error is raised with the others in its notes."""
    with ChatServer([raw(500, {"error": "first"}), raw(404, {"error": "last"})]) as server:
        a = ChatModel("a", base_url=server.base_url, retries=0)
        async with a:
            with pytest.raises(ModelHTTPError, match="last") as caught:
                await FallbackModel(a, a).request(REQUEST)
    assert "first" in caught.value.__notes__[0]


async def test_a_refusal_is_an_answer() -> None:
    """After a refusal the next model is not tried."""
    model = FallbackModel(ScriptedModel([ModelRefusal("No.")]), ScriptedModel(["Yes"]))
    with pytest.raises(ModelRefusal):
        await model.request(REQUEST)


async def test_shown_text_is_taken_back() -> None:
    """If a model fails after visible deltas, Restarted takes them back."""
    events: list[Event] = []
    with ChatServer([sse([{"choices": [{"delta": {"content": "Hel"}}]}]), reply("Yo")]) as server:
        a = ChatModel("a", base_url=server.base_url, retries=0)
        async with a:
            await FallbackModel(a, a).request(REQUEST, at=AT, emit=events.append, stream=True)
    shown = [one for one in events if isinstance(one, (TextDelta, Restarted))]
    assert shown[0] == TextDelta(at=AT, text="Hel")
    assert isinstance(shown[1], Restarted)
    assert shown[2] == TextDelta(at=AT, text="Yo")


def test_the_profile_is_what_all_support() -> None:
    """The profile has only the output modes that all models support."""
    a = ScriptedModel([], name="a", profile=PROFILES["openai"])
    b = ScriptedModel([], name="b", profile=replace(PROFILES["anthropic"], repeats=1))
    model = FallbackModel(a, b)
    assert model.name == "fallback(a, b)"
    assert model.profile.output_modes == ("tool", "prompt")
    assert model.profile.repeats == 1


def test_models_may_be_named() -> None:
    """Models may be strings, and an unknown one is refused at once."""
    assert FallbackModel("openai:gpt-4o", "ollama:qwen3").name == (
        "fallback(openai:gpt-4o, ollama:qwen3)"
    )
    with pytest.raises(UnknownModel, match="opnai"):
        FallbackModel("opnai:gpt-4o")


def test_no_models() -> None:
    """A fallback without models is refused."""
    with pytest.raises(ConfigurationError):
        FallbackModel()


async def test_checking_and_closing() -> None:
    """`check` and `aclose` reach every model."""
    with ChatServer([reply("Hi")]) as server:
        good = ChatModel("a", base_url=server.base_url)
        bad = ChatModel("b", profile="azure", api_key="x")
        model = FallbackModel(good, bad)
        with pytest.raises(ConfigurationError):
            model.check()
        await model.request(REQUEST)
        await model.aclose()
