"""What newcomers try first: each mistake is answered with what would work."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from pydantic import BaseModel

from agentkit import Agent, ChatModel, Handoff, RunContext, Session, Tool, Toolset, tool
from agentkit.errors import ConfigurationError, InvalidTool, UnknownModel
from agentkit.testing import ScriptedModel

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("openai/gpt-4o", "openai:gpt-4o"),
        ("OpenAI:gpt-4o", "openai:gpt-4o"),
        ("opnai:gpt-4o", "openai:gpt-4o"),
        ("openai-responses:gpt-5", "openai:gpt-5"),
        ("gpt-4o", "openai:gpt-4o"),
        ("o3-mini", "openai:o3-mini"),
        ("claude-3", "anthropic:claude-3"),
        ("google-gla:gemini-2.0-flash", "gemini:gemini-2.0-flash"),
        ("gemini-2.0-flash", "gemini:gemini-2.0-flash"),
        ("mistral-large-latest", "mistral:mistral-large-latest"),
        ("together_ai/qwen-2", "together:qwen-2"),
        ("litellm/anthropic/claude-3", "anthropic:claude-3"),
        ("meta-llama/Llama-3-70b", "openrouter:meta-llama/Llama-3-70b"),
        ("qwen3:4b", "ollama:qwen3:4b"),
        ("llama3.2", "ollama:llama3.2"),
        ("nowhere:gpt-4o", "openai:gpt-4o"),
    ],
)
def test_a_model_string_is_answered_with_the_one_that_works(written: str, meant: str) -> None:
    """However other frameworks write it."""
    with pytest.raises(UnknownModel, match=f"Unknown model '{written}'.* Did you mean '{meant}'"):
        _ = Agent(written).config.resolved
    assert Agent(meant).config.resolved.name == meant


def test_a_provider_alone_is_answered_with_its_form() -> None:
    """It lacks the model."""
    for spec in ("ollama", "ollama:"):
        with pytest.raises(UnknownModel, match=r"Name the model too: 'ollama:…'"):
            _ = Agent(spec).config.resolved


async def test_a_stream_that_was_not_opened_says_how() -> None:
    """Whatever is tried with it; nothing has begun, so nothing is left open."""
    agent = Agent(ScriptedModel(["hi"]))
    session = Session(agent)
    for made in (lambda: agent.stream("go"), lambda: session.stream("go")):
        how = r"async with agent\.stream\(…\) as run:"
        with pytest.raises(TypeError, match=how):
            [one async for one in made()]  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match=how):
            await made()  # type: ignore[misc]
        with pytest.raises(TypeError, match=how):
            [*made()]  # type: ignore[misc]
        with pytest.raises(TypeError, match=how), made():  # type: ignore[attr-defined]
            pass
        with pytest.raises(AttributeError, match=f"no 'text' before it is open.*{how}"):
            made().text()  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"async with agent\.iter\(…\) as steps:"):
        [one async for one in agent.iter("go")]  # type: ignore[attr-defined]
    async with session.stream("go") as run:
        assert [event async for event in run]
    assert run.result.output == "hi"


class Place(BaseModel):
    """A place."""

    name: str = "Paris"


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ({"type": "object"}, r"JsonSchema\(\{…\}\)"),
        ([int, str], r"A \| B"),
        ((int, str), r"A \| B"),
        (Place(), "its class"),
    ],
)
def test_an_output_that_is_no_type_is_answered_with_one(output: Any, says: str) -> None:
    """When the agent is made."""
    with pytest.raises(ConfigurationError, match=f"output=.*expected a type.*{says}"):
        Agent(ScriptedModel([]), output=output)


def test_a_class_of_models_is_no_model() -> None:
    """It has the methods, and nothing to call them on."""
    with pytest.raises(ConfigurationError, match="expected a model string or a model"):
        Agent(ChatModel)  # type: ignore[arg-type]


class Shelf(Toolset):
    """A toolset that forgot to return."""

    def tools(self, context: RunContext[Any]) -> Any:
        """Return nothing."""


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (Shelf, r"the class Shelf; it takes objects. Make one: Shelf\(…\)"),
        (Handoff, r"Make one: Handoff\(…\)"),
        (Tool, r"Make one: Tool\(…\)"),
        (Agent(ScriptedModel([])), r"agent\.as_tool\(\), or as Handoff\(agent\)"),
        (Agent, r"agent\.as_tool\(\)"),
        ({"type": "function"}, r"Tool\.from_schema\(…\)"),
        ([print], r"tools=\[\*these, …\]"),
    ],
)
def test_what_is_no_tool_is_answered_with_one(source: Any, says: str) -> None:
    """When the agent is made."""
    with pytest.raises(InvalidTool, match=says):
        Agent(ScriptedModel([]), tools=[source])


async def test_a_toolset_that_returns_no_list_is_named() -> None:
    """With what its function lacks."""

    class Plain(Shelf):
        def tools(self, context: RunContext[Any]) -> Any:
            return [len]

    class Yielding(Shelf):
        async def tools(self, context: RunContext[Any]) -> Any:
            yield Tool(test_a_class_of_models_is_no_model)

    for toolset, says in (
        (Shelf(), r"Shelf.* returned None; expected a list of tools\. Does .* lack a return\?"),
        (Plain(), r"Plain.* returned .*len.*@tool"),
        (Yielding(), r"Yielding.* returned .*yields them: return them as a list"),
    ):
        with pytest.raises(InvalidTool, match=says):
            await Agent(ScriptedModel(["hi"]), tools=[toolset]).run("go")


@pytest.mark.parametrize("name", ["ctx", "context", "run_context"])
def test_a_context_without_annotation_is_answered_with_its_type(name: str) -> None:
    """At decoration."""
    space: dict[str, Any] = {}
    exec(f"def look({name}, city: str): 'Look.'", space)
    with pytest.raises(InvalidTool, match=f"annotate it `{name}: RunContext`"):
        tool(space["look"])


def test_a_docstring_that_describes_no_parameter_is_a_warning() -> None:
    """Of the tool, which works all the same; with the parameter that was meant."""

    @tool
    def look(city: str, when: str = "now") -> str:  # noqa: D417  the mistake
        """Look.

        Args:
            citty: Where.
            zone: Of the clock.
        """
        return city + when

    first, second = look.warnings
    assert first == ("The docstring describes 'citty', which is no parameter. Did you mean 'city'?")
    assert second == (
        "The docstring describes 'zone', which is no parameter. The parameters are: city, when."
    )


def test_what_a_docstring_may_describe_is_no_warning() -> None:
    """The context, what a partial has bound, and the items of `**options`."""

    def look(ctx: RunContext[Any], city: str, key: str = "") -> str:
        """Look.

        Args:
            ctx: The run.
            city: Where.
            key: A secret.
        """
        return city + key

    def any_options(city: str, **options: str) -> str:  # noqa: D417  the mistake
        """Look.

        Args:
            city: Where.
            zone: Of the clock.
        """
        return city

    for one in (look, functools.partial(look, key="k"), any_options):
        assert not [text for text in Tool(one).warnings if "docstring" in text]


def test_a_tool_without_docstring_is_a_warning() -> None:
    """Unless it has a description."""

    def look(city: str) -> str:
        return city

    (warning,) = Tool(look).warnings
    assert "There is no docstring" in warning
    assert Tool(look, description="Look.").warnings == ()
    assert Agent(ScriptedModel(["hi"]), tools=[look]).run_sync("go").warnings == ()
