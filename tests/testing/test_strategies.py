"""What the strategies draw is valid, and passes through agentkit unchanged."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentkit import Tool
from agentkit.history import check_history
from agentkit.messages import (
    Message,
    ModelRequest,
    ModelResponse,
    ToolDefinition,
    dump_messages,
    load_messages,
)
from agentkit.testing.strategies import (
    arguments,
    histories,
    messages,
    requests,
    responses,
    tools,
)


@given(st.lists(messages(), max_size=4))
def test_messages_survive_storage(drawn: list[Message]) -> None:
    """Of all roles."""
    assert load_messages(dump_messages(drawn)) == tuple(drawn)


@given(histories())
def test_histories_are_valid(history: list[Message]) -> None:
    """Servers would take them."""
    check_history(history)


@given(tools().flatmap(lambda tool: st.tuples(st.just(tool), arguments(tool))))
def test_tools_take_what_is_drawn_for_them(drawn: tuple[ToolDefinition, Any]) -> None:
    """As raw schemas."""
    definition, values = drawn
    tool = Tool.from_schema(definition.name, "", definition.parameters, None)
    assert tool.parse(json.dumps(values)).sent == values


@given(requests())
def test_requests_call_what_they_offer(request: ModelRequest) -> None:
    """The history is valid, and knows no other tools."""
    check_history(request.messages)
    names = {tool.name for tool in request.tools}
    called = {call.name for one in request.messages for call in getattr(one, "tool_calls", ())}
    assert not names or called <= names


@given(responses())
def test_responses_say_how_they_end(response: ModelResponse) -> None:
    """By calls or by text."""
    assert response.finish == ("tool_calls" if response.message.tool_calls else "stop")
