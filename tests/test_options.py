"""Wrong keywords, wherever options are passed: the error names the option that was meant."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from agentkit import Agent, ChatModel, ChatSettings, Handoff, Limits, Session, Tool, tool
from agentkit.testing import ScriptedModel

pytestmark = pytest.mark.anyio


def agent() -> Agent:
    """Return an agent with one answer."""
    return Agent(ScriptedModel(["ok"]))


def look(city: str) -> str:
    """Look."""
    return city


USES: dict[str, Callable[..., Any]] = {
    "Agent": lambda **options: Agent("local", **options),
    "with_": lambda **options: agent().with_(**options),
    "run": lambda **options: agent().run_sync("go", **options),
    "stream": lambda **options: agent().stream("go", **options),
    "iter": lambda **options: agent().iter("go", **options),
    "resume": lambda **options: agent().resume_sync("run.jsonl", **options),
    "replay": lambda **options: agent().replay_sync("run.jsonl", **options),
    "fork": lambda **options: agent().fork_sync("run.jsonl", **options),
    "as_tool": lambda **options: agent().as_tool(**options),
    "Limits": lambda **options: Limits(**options),
    "ChatSettings": lambda **options: ChatSettings(**options),
    "ChatModel": lambda **options: ChatModel("m", **options),
    "Session": lambda **options: Session(agent(), **options),
    "Session.run": lambda **options: Session(agent()).run_sync("go", **options),
    "tool": lambda **options: tool(**options)(look),
    "Tool.with_": lambda **options: Tool(look).with_(**options),
    "Tool.from_schema": lambda **options: Tool.from_schema("a", "b", {}, None, **options),
    "Handoff": lambda **options: Handoff(agent(), **options),
}
WORDS = [
    ("Agent", "system_prompt", "use instructions=…"),
    ("Agent", "output_type", "use output=…"),
    ("Agent", "response_format", "use output=…"),
    ("Agent", "retries", "use output_retries=…"),
    ("Agent", "llm", "use model=…"),
    ("Agent", "temperature", "use settings=ChatSettings(temperature=…)"),
    ("Agent", "max_tokens", "use settings=ChatSettings(max_completion_tokens=…)"),
    ("Agent", "max_turns", "use limits=Limits(steps=…)"),
    ("Agent", "timeout", "use limits=Limits(seconds=…)"),
    ("Agent", "api_key", "use model=ChatModel(…, api_key=…)"),
    ("Agent", "on_event", "it is an option of agent.run(…, on_event=…)"),
    ("Agent", "handoffs", "put Handoff(agent) into tools=[…]"),
    ("Agent", "memory", "keep the conversation in a Session(agent)"),
    ("with_", "system_prompt", "use instructions=…"),
    ("run", "message_history", "use history=…"),
    ("run", "context", "use deps=…"),
    ("run", "usage_limits", "use limits=…"),
    ("run", "max_iterations", "use limits=Limits(steps=…)"),
    ("run", "tools", "it is an option of Agent(…, tools=…)"),
    ("run", "stream", "call agent.stream(…) instead"),
    ("stream", "message_history", "use history=…"),
    ("iter", "model_settings", "use settings=…"),
    ("resume", "deferred_tool_results", "use decisions=…"),
    ("Limits", "max_steps", "use steps=…"),
    ("Limits", "recursion_limit", "use steps=…"),
    ("Limits", "request_tokens_limit", "use input_tokens=…"),
    ("Limits", "temperature", "it is an option of ChatSettings(temperature=…)"),
    ("ChatSettings", "stop_sequences", "use stop=…"),
    ("ChatModel", "api_base", "use base_url=…"),
    ("ChatModel", "max_retries", "use retries=…"),
    ("Session", "message_history", "use history=…"),
    ("Session.run", "message_history", "it is an option of agent.run(…, history=…)"),
    ("tool", "retry", "use retries=…"),
    ("tool", "requires_approval", "use approval=…"),
    ("tool", "name_override", "use name=…"),
    ("tool", "takes_ctx", "annotate a parameter with RunContext instead"),
    ("Tool.with_", "needs_approval", "use approval=…"),
    ("Tool.from_schema", "max_retries", "use retries=…"),
    # the closest
    ("Agent", "instuctions", "use instructions=…"),
    ("Agent", "system_promt", "use instructions=…"),
    ("run", "histroy", "use history=…"),
    ("Limits", "step", "use steps=…"),
    ("ChatSettings", "temprature", "use temperature=…"),
    ("tool", "timeot", "use timeout=…"),
    ("fork", "instruction", "use instructions=…"),
    ("as_tool", "descripton", "use description=…"),
]


@pytest.mark.parametrize(("use", "word", "advice"), WORDS)
def test_a_wrong_keyword_is_refused_with_the_right_one(use: str, word: str, advice: str) -> None:
    """The word of another framework, an option of something else, or a slip."""
    with pytest.raises(TypeError) as caught:
        USES[use](**{word: 1})
    assert f"has no option {word!r}; {advice}." in str(caught.value)


@pytest.mark.parametrize("use", USES)
def test_a_keyword_that_is_like_no_other_is_refused_with_the_list(use: str) -> None:
    """Every option is in it."""
    with pytest.raises(TypeError, match=r"has no option 'xyzzy'\. Its options: \w+, ") as caught:
        USES[use](xyzzy=1)
    assert " 'self'" not in str(caught.value)


def test_every_wrong_keyword_is_named() -> None:
    """So that one attempt is enough."""
    with pytest.raises(TypeError, match=r"output=….* has no option 'retries'; use output_retries="):
        USES["Agent"](output_type=int, retries=3)


def test_a_missing_model_under_another_name_is_found() -> None:
    """Although Python misses `model` as well."""
    wrong: Any = Agent
    with pytest.raises(TypeError, match="has no option 'llm'; use model=…"):
        wrong(llm="openai:gpt-4o")


def test_values_by_position_are_refused_with_the_names() -> None:
    """The second value of an agent could be anything."""
    wrong: Any = Agent
    with pytest.raises(TypeError, match=r"Agent takes model by position, not 2 values\. Pass"):
        wrong("local", "Be brief.")


async def test_a_stream_of_a_session_takes_no_history() -> None:
    """It was dropped silently."""
    options: dict[str, Any] = {"history": []}
    with pytest.raises(TypeError, match="has no option 'history'"):
        async with Session(agent()).stream("go", **options):
            pass


def test_a_type_error_of_the_applications_own_code_stays_as_it_is() -> None:
    """Only a call that the signature refuses is explained."""

    def instructions() -> str:
        raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine"):
        agent().with_(instructions=instructions).run_sync("go")


def test_signatures_stay_as_they_are() -> None:
    """`help` shows every option, and `run` is still seen to be async."""
    assert "output_retries" in inspect.signature(Agent).parameters
    assert "steps" in inspect.signature(Limits).parameters
    assert inspect.iscoroutinefunction(Agent.run)
    assert [*inspect.signature(Agent.stream).parameters] == [
        *inspect.signature(Agent.run).parameters
    ]
