"""Models that follow a script or a function."""

from __future__ import annotations

from typing import Any, cast

import pytest

from agentkit.core.effects import Address
from agentkit.errors import AgentKitError, ConfigurationError, ModelRefusal, RateLimited
from agentkit.events import Event, ReasoningDelta, TextDelta, ToolCallDelta
from agentkit.messages import (
    AssistantMessage,
    ModelRequest,
    ModelResponse,
    ToolCall,
    Usage,
    UserMessage,
)
from agentkit.models.base import Model
from agentkit.models.profiles import Profile
from agentkit.testing import FunctionModel, ScriptedModel, reply

pytestmark = pytest.mark.anyio

QUESTION = ModelRequest(messages=(UserMessage(content="Hi"),))
AT = Address("/agent/m2")


async def test_a_text_is_the_answer() -> None:
    """A string of the script becomes a text message."""
    model: Model = ScriptedModel(["Hello"])
    response = await model.request(QUESTION)
    assert response == ModelResponse(
        message=AssistantMessage(content="Hello"),
        finish="stop",
        usage=Usage(requests=1),
        model="scripted",
    )


async def test_calls_have_ids_of_their_address() -> None:
    """A list becomes tool calls with ids of the address and arguments as JSON text."""
    model = ScriptedModel([[("weather", {"city": "Köln"}), ("now", "{broken")]])
    response = await model.request(QUESTION, at=AT)
    assert response.finish == "tool_calls"
    assert response.message == AssistantMessage(
        tool_calls=(
            ToolCall(id="call_agent_m2_t0", name="weather", arguments='{"city":"Köln"}'),
            ToolCall(id="call_agent_m2_t1", name="now", arguments="{broken"),
        )
    )


async def test_a_complete_response_is_returned_unchanged() -> None:
    """A ModelResponse of the script is returned unchanged."""
    response = ModelResponse(message=AssistantMessage(content="cut"), finish="length", id="x")
    assert await ScriptedModel([response]).request(QUESTION) is response


async def test_an_error_of_the_script_is_raised() -> None:
    """A ModelError is raised in its turn, and the script continues after it."""
    error = RateLimited("slow down", status=429)
    model = ScriptedModel([error, "Hello"])
    with pytest.raises(RateLimited) as caught:
        await model.request(QUESTION)
    assert caught.value is error
    assert (await model.request(QUESTION)).message.text == "Hello"


async def test_a_script_that_has_ended_raises() -> None:
    """One request too many raises an error that names the model and the request."""
    model = ScriptedModel(["one"], name="writer")
    await model.request(QUESTION)
    with pytest.raises(
        AgentKitError, match="script of 'writer' has ended: there is no answer for request 2"
    ):
        await model.request(QUESTION)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("Hello", r"ScriptedModel\('Hello'\): the script is a list"),
        (["one", None], "Item 1 of the script of 'writer' is None: expected a text"),
        ([("look", {"city": "Oslo"})], r"Item 0 .* or a list of calls such as"),
        ([[("look", 3)]], r"Item 0 of the script of 'writer' is \[\('look', 3\)\]"),
        ([reply("Hello")], r"reply\(…\) is for a ChatServer"),
    ],
)
def test_what_is_no_answer_is_refused_before_a_run(script: Any, says: str) -> None:
    """With its place, and what is expected."""
    with pytest.raises(ConfigurationError, match=says):
        ScriptedModel(script, name="writer")


async def test_a_function_that_returns_no_answer_is_named() -> None:
    """The request raises it."""
    model = FunctionModel(lambda request: cast("Any", 3), name="writer")
    with pytest.raises(ConfigurationError, match="What the function of 'writer' returns is 3"):
        await model.request(QUESTION)


async def test_requests_are_kept() -> None:
    """The requests can be inspected afterwards."""
    model = ScriptedModel(["one", "two"])
    other = ModelRequest(messages=(UserMessage(content="Bye"),))
    await model.request(QUESTION)
    await model.request(other)
    assert model.requests == (QUESTION, other)


async def test_a_stream_emits_the_answer_as_deltas() -> None:
    """With stream=True reasoning, text and calls come as deltas that add up to the response."""
    call = ToolCall(id="c", name="now", arguments="{}")
    message = AssistantMessage(content="  Hello you ", reasoning="Hm.", tool_calls=(call,))
    seen: list[Event] = []
    model = ScriptedModel([ModelResponse(message=message)])
    response = await model.request(QUESTION, at=AT, emit=seen.append, stream=True)
    assert response.message is message
    assert seen == [
        ReasoningDelta(at=AT, text="Hm."),
        TextDelta(at=AT, text="  Hello"),
        TextDelta(at=AT, text=" you"),
        TextDelta(at=AT, text=" "),
        ToolCallDelta(at=Address("/agent/m2/t0"), name="now", arguments="{}"),
    ]


async def test_without_a_stream_there_are_no_deltas() -> None:
    """Deltas are emitted only on request."""
    seen: list[Event] = []
    await ScriptedModel(["Hello"]).request(QUESTION, at=AT, emit=seen.append)
    assert seen == []


async def test_a_function_gets_the_request() -> None:
    """A sync function is called with the request."""
    model: Model = FunctionModel(lambda request: f"{len(request.messages)} message")
    response = await model.request(QUESTION)
    assert response.message.text == "1 message"
    assert response.model == "function"


async def test_a_function_may_be_async() -> None:
    """An async function is awaited."""

    async def answer(request: ModelRequest) -> list[tuple[str, str]]:
        return [("now", "{}")]

    response = await FunctionModel(answer).request(QUESTION, at=AT)
    assert [call.name for call in response.message.tool_calls] == ["now"]


async def test_an_exception_of_a_function_is_raised() -> None:
    """A function can fail as a model fails."""

    def refuse(request: ModelRequest) -> str:
        raise ModelRefusal("no")

    with pytest.raises(ModelRefusal, match="no"):
        await FunctionModel(refuse).request(QUESTION)


async def test_closing_is_harmless() -> None:
    """A closed model may be used again."""
    model = ScriptedModel(["Hello"])
    await model.aclose()
    assert (await model.request(QUESTION)).message.text == "Hello"


def test_name_and_profile_can_be_set() -> None:
    """Name and profile can be set, and have defaults."""
    plain = ScriptedModel([])
    assert (plain.name, plain.profile) == ("scripted", Profile(name="scripted"))
    profile = Profile(output_modes=("tool",), repeats=0)
    assert FunctionModel(lambda request: "", name="x", profile=profile).profile is profile
