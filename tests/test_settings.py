"""`ChatSettings` and `Limits`: checked before any I/O."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest

from agentkit.errors import InvalidSetting
from agentkit.messages import ForcedTool
from agentkit.settings import ChatSettings, Limits


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 2.1),
        ("temperature", -0.1),
        ("temperature", "hot"),
        ("temperature", True),
        ("temperature", float("nan")),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_k", -2),
        ("top_k", 1.5),
        ("min_p", 1.1),
        ("frequency_penalty", 2.5),
        ("presence_penalty", -2.5),
        ("repetition_penalty", 2),
        ("max_completion_tokens", 0),
        ("max_tokens", 0),
        ("n", 129),
        ("n", 0),
        ("stop", ["a"] * 5),
        ("stop", 7),
        ("seed", 1.5),
        ("logprobs", 1),
        ("top_logprobs", 21),
        ("logit_bias", {"1": 101}),
        ("tool_choice", 7),
        ("parallel_tool_calls", "yes"),
        ("modalities", ["video"]),
        ("audio", "wav"),
        ("prediction", "text"),
        ("reasoning_effort", "extreme"),
        ("metadata", "x"),
        ("user", 7),
        ("models", "gpt-4o"),
        ("context_length_exceeded_behavior", "shrug"),
        ("extra_body", {"messages": []}),
        ("extra_body", {"stream": True}),
        ("extra_headers", "x"),
    ],
)
def test_a_value_out_of_range(name: str, value: Any) -> None:
    """The error names the field, the value and the range."""
    with pytest.raises(InvalidSetting) as caught:
        ChatSettings(**{name: value})
    assert caught.value.field == name
    assert caught.value.value == repr(value)
    assert name in str(caught.value)
    assert str(caught.value.allowed) in str(caught.value)


def test_values_at_the_edges() -> None:
    """The ends of the ranges are in them."""
    ChatSettings(temperature=0, top_p=1, top_k=-1, min_p=0, frequency_penalty=-2, n=128)
    ChatSettings(temperature=2, presence_penalty=2, logprobs=True, top_logprobs=20)
    ChatSettings(stop=["a", "b", "c", "d"], logit_bias={"1": -100})


def test_top_logprobs_need_logprobs() -> None:
    """Alone they are refused."""
    with pytest.raises(InvalidSetting, match="logprobs=True"):
        ChatSettings(top_logprobs=5)


def test_the_deprecated_name() -> None:
    """max_tokens is max_completion_tokens; both at once must not differ."""
    assert ChatSettings(max_tokens=9) == ChatSettings(max_completion_tokens=9)
    with pytest.raises(InvalidSetting, match="max_tokens"):
        ChatSettings(max_tokens=9, max_completion_tokens=10)


def test_unknown_parameters() -> None:
    """They go through extra_body only."""
    with pytest.raises(TypeError, match="temprature"):
        ChatSettings(temprature=1)  # pyright: ignore[reportCallIssue] # the mistake under test
    assert ChatSettings(extra_body={"new": 1}).to_params() == {"extra_body": {"new": 1}}


def test_params() -> None:
    """What is set, under its chat-completions name; the tool choice is the request's."""
    settings = ChatSettings(temperature=0, stop=("a",), tool_choice="auto", max_tokens=3)
    assert settings.to_params() == {
        "temperature": 0,
        "stop": ["a"],
        "max_completion_tokens": 3,
    }


def test_merging() -> None:
    """What is set later wins, and zero is set; the extras are merged key by key."""
    agent = ChatSettings(temperature=1, seed=1, extra_body={"a": 1, "b": 1}, max_tokens=5)
    run = ChatSettings(temperature=0, extra_body={"b": 2}, max_tokens=6)
    assert agent.merge(run) == ChatSettings(
        temperature=0, seed=1, extra_body={"a": 1, "b": 2}, max_completion_tokens=6
    )
    assert agent.merge(ChatSettings()) == agent


@dataclass
class Named:
    """Stands for a tool."""

    name: str


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        (None, None),
        ("auto", "auto"),
        ("required", "required"),
        ("add", ForcedTool(name="add")),
        (Named("auto"), ForcedTool(name="auto")),
        (ForcedTool(name="none"), ForcedTool(name="none")),
    ],
)
def test_tool_choice(given: Any, choice: Any) -> None:
    """A word of the reference, a tool, or a tool's name."""
    assert ChatSettings(tool_choice=given).forced_choice() == choice


def test_limits() -> None:
    """A limit is None or a number."""
    with pytest.raises(InvalidSetting, match="steps"):
        Limits(steps=0)
    assert Limits(tool_calls=0).tool_calls == 0


@pytest.mark.parametrize("name", ["extra_body", "provider", "metadata"])
def test_what_is_given_may_change_afterwards(name: str) -> None:
    """Settings are what they were when they were made, whatever becomes of the values given."""
    given: Any = {"order": [{"name": "a"}], "pair": ({"n": 1},)}
    before = copy.deepcopy(given)
    settings = ChatSettings(**{name: given}, stop=(stop := ["END"]))
    assert settings.to_params() == {name: before, "stop": ["END"]}
    same = ChatSettings(**{name: given}, stop=["END"])
    assert (settings, repr(settings)) == (same, repr(same))
    stop.append("STOP")
    given["order"][0]["name"] = "b"
    given["pair"][0]["n"] = 2
    given["more"] = 1
    assert settings.to_params() == {name: before, "stop": ["END"]}
    assert settings != ChatSettings(**{name: given}, stop=stop)
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_a_view_of_a_mapping_is_copied_too() -> None:
    """What stands behind it may change as well."""
    labels = {"team": "a"}
    settings = ChatSettings(metadata=MappingProxyType(labels))
    labels["team"] = "b"
    assert settings == ChatSettings(metadata={"team": "a"})
    assert settings.to_params() == {"metadata": {"team": "a"}}
