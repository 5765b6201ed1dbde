"""Messages have the same name and content in a trace, however they are written."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from agentkit.messages import (
    AssistantMessage,
    ImagePart,
    Message,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentkit.redaction import Redactor
from agentkit.testing.strategies import messages
from agentkit.trace.naming import Namer, canonical, digest, packed, without_ids

SECRET = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD"
PARTS = (TextPart(text="a"), ImagePart(url="data:image/png;base64,aGk="))
OTHERS = st.sampled_from(
    [
        ToolMessage(call_id="c", name="look", content=PARTS),
        ToolMessage(call_id="c", name=None, content="fine"),
        ToolMessage(call_id="c", name="look", content="\ud800"),
        ToolMessage(call_id=SECRET, name="look", content="fine"),
        ToolMessage(call_id="c", name="look", content=f"the key is {SECRET}"),
        UserMessage(content=PARTS),
        UserMessage(content="hello", name="ada"),
        UserMessage(content=f"my key is {SECRET}"),
        SystemMessage(content="é ⟦x⟧"),
        AssistantMessage(content=PARTS),
        AssistantMessage(content=None, refusal="no"),
        AssistantMessage(content="a", reasoning="b", reasoning_field="reasoning"),
        AssistantMessage(content="a", extra={"annotations": [1]}),
        AssistantMessage(tool_calls=(ToolCall(id="1", name="a", arguments="{}", extra={"x": 1}),)),
        AssistantMessage(
            content="é", tool_calls=tuple(ToolCall(id=i, name="a", arguments='"') for i in "12")
        ),
        AssistantMessage(tool_calls=(ToolCall(id="1", name="a", arguments=SECRET),)),
    ]
)


@given(messages() | OTHERS)
def test_a_message_is_named_by_its_canonical_json(message: Message) -> None:
    """The short way for plain texts gives what the way for all messages gives."""
    redact = Redactor(key="k")
    data = packed(message.to_json(), redact, own=True)
    bare = without_ids(data) if isinstance(message, (AssistantMessage, ToolMessage)) else data
    name, content, identity = Namer(redact).known(message)
    assert json.loads(content) == data
    assert content == canonical(data)
    assert (name, identity) == (digest(content), digest(canonical(bare)))
    assert SECRET.encode() not in content
