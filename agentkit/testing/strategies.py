"""Hypothesis strategies: messages, histories, requests, responses and tools.

Needs `hypothesis`. What they draw is valid: a history answers every call, and a tool's
schema accepts what `arguments` draws for it. Texts are any Unicode but surrogates.

    from hypothesis import given
    from agentkit.testing.strategies import histories

    @given(histories())
    def test_my_compaction(history): ...
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from agentkit.messages import (
    AssistantMessage,
    FilePart,
    ForcedTool,
    ImagePart,
    JsonObject,
    Message,
    ModelRequest,
    ModelResponse,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolMessage,
    Usage,
    UserMessage,
)

__all__ = [
    "arguments",
    "histories",
    "json_values",
    "messages",
    "names",
    "requests",
    "responses",
    "tools",
]
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": _TEXTS,
    "integer": st.integers(-(2**53), 2**53),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "null": st.none(),
}
_PARTS = st.one_of(
    st.builds(TextPart, text=_TEXTS),
    st.builds(ImagePart, url=st.just("https://example.com/a.png")),
    st.builds(FilePart, file_id=st.just("file-1")),
)


def names() -> st.SearchStrategy[str]:
    """Draw names of tools and properties that every server accepts."""
    return st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_-]{0,20}", fullmatch=True)


def json_values() -> st.SearchStrategy[Any]:
    """Draw any JSON value."""
    return st.recursive(
        st.one_of(*_SCALARS.values()),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
        max_leaves=8,
    )


def tools() -> st.SearchStrategy[ToolDefinition]:
    """Draw tools whose parameters are scalars, lists and enumerations."""
    scalars = st.sampled_from(sorted(_SCALARS)).map(lambda kind: {"type": kind})
    choices = st.lists(_TEXTS, min_size=1, max_size=4, unique=True)
    properties = st.dictionaries(
        names(),
        scalars
        | scalars.map(lambda one: {"type": "array", "items": one})
        | choices.map(lambda some: {"type": "string", "enum": some}),
        max_size=4,
    )
    return st.builds(
        ToolDefinition, name=names(), description=_TEXTS, parameters=properties.map(_object)
    )


def _object(properties: JsonObject) -> JsonObject:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties)[::2],
        "additionalProperties": False,
    }


@st.composite
def arguments(draw: st.DrawFn, tool: ToolDefinition) -> JsonObject:
    """Draw arguments that a tool of `tools` accepts."""
    schema = tool.parameters
    return {
        name: draw(_values(one))
        for name, one in schema["properties"].items()
        if name in schema["required"] or draw(st.booleans())
    }


def _values(schema: JsonObject) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "array":
        return st.lists(_values(schema["items"]), max_size=3)
    return _SCALARS[schema["type"]]


def messages() -> st.SearchStrategy[Message]:
    """Draw one message of any role, with text or parts."""
    users = st.builds(UserMessage, content=_TEXTS | st.lists(_PARTS, min_size=1).map(tuple))
    results = st.builds(ToolMessage, call_id=names(), name=names(), content=_TEXTS)
    return st.one_of(
        st.builds(SystemMessage, content=_TEXTS), users, _answers(st.lists(_calls())), results
    )


def _calls(offered: Sequence[ToolDefinition] = ()) -> st.SearchStrategy[ToolCall]:
    if not offered:
        texts = st.dictionaries(names(), json_values(), max_size=3).map(json.dumps)
        return st.builds(ToolCall, id=names(), name=names(), arguments=texts)
    return st.sampled_from(offered).flatmap(
        lambda tool: st.builds(
            ToolCall, id=names(), name=st.just(tool.name), arguments=arguments(tool).map(json.dumps)
        )
    )


def _answers(calls: st.SearchStrategy[list[ToolCall]]) -> st.SearchStrategy[AssistantMessage]:
    called = calls.map(tuple)
    texts = _TEXTS.filter(bool)
    return st.one_of(
        st.builds(AssistantMessage, content=texts),
        st.builds(AssistantMessage, content=st.none() | texts, tool_calls=called),
    ).filter(lambda one: bool(one.tool_calls or one.content))


@st.composite
def histories(
    draw: st.DrawFn, tools: Sequence[ToolDefinition] = (), *, turns: int = 3
) -> list[Message]:
    """Draw valid histories: each call is answered once, and the user has the last word.

    Args:
        draw: Hypothesis gives it.
        tools: The tools that calls are of; by default any.
        turns: At most so many answers of the model.
    """
    history: list[Message] = [UserMessage(content=draw(_TEXTS.filter(bool)))]
    calls = st.lists(_calls(tools), max_size=3, unique_by=lambda call: call.id)
    for _ in range(draw(st.integers(0, turns))):
        answer = draw(_answers(calls))
        history.append(answer)
        history += [
            ToolMessage(call_id=call.id, name=call.name, content=draw(_TEXTS))
            for call in answer.tool_calls
        ]
        if not answer.tool_calls:
            history.append(UserMessage(content=draw(_TEXTS.filter(bool))))
    return history


@st.composite
def requests(draw: st.DrawFn) -> ModelRequest:
    """Draw requests: a valid history, and the tools that it calls."""
    offered = tuple(draw(st.lists(tools(), max_size=3, unique_by=lambda tool: tool.name)))
    choices: list[ToolChoice | None] = [
        None,
        "auto",
        "none",
        "required",
        *(ForcedTool(name=one.name) for one in offered),
    ]
    return ModelRequest(
        messages=tuple(draw(histories(offered))),
        tools=offered,
        tool_choice=draw(st.sampled_from(choices)) if offered else None,
    )


@st.composite
def responses(draw: st.DrawFn, tools: Sequence[ToolDefinition] = ()) -> ModelResponse:
    """Draw complete answers: text, or calls of these tools, by default of any."""
    calls = st.lists(_calls(tools), max_size=3, unique_by=lambda call: call.id)
    message = draw(_answers(calls))
    tokens = st.integers(0, 10_000)
    return ModelResponse(
        message=message,
        finish="tool_calls" if message.tool_calls else "stop",
        usage=Usage(requests=1, input_tokens=draw(tokens), output_tokens=draw(tokens)),
    )
