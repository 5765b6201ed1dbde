"""Requests as bytes: what each server is sent."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from agentkit.errors import InvalidSetting
from agentkit.messages import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ForcedTool,
    ImagePart,
    Message,
    ModelRequest,
    OutputFormat,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    UserMessage,
)
from agentkit.models import PROFILES, Profile
from agentkit.models.chat.encode import encode_request
from agentkit.models.chat.parameters import Note
from agentkit.models.profiles import COMPATIBLE

OPENAI = PROFILES["openai"]
USER = UserMessage(content="Hi")
TOOL = ToolDefinition(
    name="add", description="Add.", parameters={"type": "object", "properties": {}}, strict=True
)
OTHER = ToolDefinition(name="sub", description="Subtract.", parameters={"type": "object"})
CALLS = AssistantMessage(tool_calls=(ToolCall(id="call_1", name="add", arguments="{}"),))
ANSWER = ToolMessage(call_id="call_1", name="add", content="3")


def sent(
    *messages: Message, profile: Profile = OPENAI, stream: bool = False, **fields: Any
) -> dict[str, Any]:
    request = ModelRequest(messages=messages or (USER,), **fields)
    return json.loads(encode_request(request, "m", profile, stream=stream))


def message(one: Message, profile: Profile = OPENAI) -> dict[str, Any]:
    return sent(one, profile=profile)["messages"][0]


def test_the_whole_body() -> None:
    """Keys come in a stable order: model, parameters by name, tools, messages."""
    request = ModelRequest(
        messages=(USER,), tools=(OTHER,), settings={"top_p": 0.5, "temperature": 0}
    )
    assert encode_request(request, "gpt-4o", OPENAI) == (
        b'{"model":"gpt-4o","temperature":0,"top_p":0.5,'
        b'"tools":[{"type":"function","function":{"name":"sub","description":"Subtract.",'
        b'"parameters":{"type":"object"}}}],'
        b'"messages":[{"role":"user","content":"Hi"}]}'
    )


def test_the_next_step_begins_with_this_one() -> None:
    """The body of the next step starts with the bytes of this one: prompt caches hit."""
    first = ModelRequest(messages=(USER,), tools=(TOOL, OTHER), settings={"seed": 1})
    second = replace(first, messages=(USER, CALLS, ANSWER))
    before, after = (encode_request(one, "m", OPENAI, stream=True) for one in (first, second))
    assert before.endswith(b"]}")
    assert after.startswith(before[:-2])


def test_a_message_is_encoded_once() -> None:
    """The same message object gives the same bytes object's content, whatever the request."""
    parts = [TextPart(text="Hi")]
    one = UserMessage(content=tuple(parts))
    first = sent(one, profile=OPENAI)
    assert sent(one, one, profile=OPENAI)["messages"] == first["messages"] * 2
    # Another variant of the wire is another encoding of the same message.
    assert message(one, OPENAI)["content"] == [{"type": "text", "text": "Hi"}]
    assert message(one, COMPATIBLE)["content"] == "Hi"
    assert message(one, OPENAI)["content"] == [{"type": "text", "text": "Hi"}]


def test_parts_of_every_kind() -> None:
    """Text, images, audio and files are written in the reference's form."""
    content = (
        TextPart(text="Look"),
        ImagePart(url="https://x/y.png", detail="low"),
        AudioPart(data="AAAA", format="wav"),
        FilePart(data="data:application/pdf;base64,AA", filename="a.pdf"),
    )
    assert message(UserMessage(content=content, name="Ann")) == {
        "role": "user",
        "content": [
            {"type": "text", "text": "Look"},
            {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {
                "type": "file",
                "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"},
            },
        ],
        "name": "Ann",
    }


def test_instructions_of_a_reasoning_model() -> None:
    """OpenAI's reasoning models call the system message developer."""
    profile = OPENAI.for_model("o3-mini")
    assert message(SystemMessage(content="Be kind."), profile)["role"] == "developer"
    assert message(SystemMessage(content="Be kind."), OPENAI)["role"] == "system"


def test_assistant_messages() -> None:
    """Calls without text have null content; refusals go back as refusals."""
    assert message(CALLS) == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
        ],
    }
    refused = AssistantMessage(refusal="No.")
    assert message(refused) == {"role": "assistant", "content": "", "refusal": "No."}
    assert message(refused, COMPATIBLE) == {"role": "assistant", "content": "No."}
    assert "content" not in message(CALLS, PROFILES["groq"])


def test_audio_of_an_earlier_answer_is_named() -> None:
    """Spoken answers are referred to by id; their data is not sent again."""
    spoken = AssistantMessage(extra={"audio": {"id": "audio_1", "data": "AAAA"}})
    assert message(spoken) == {"role": "assistant", "content": None, "audio": {"id": "audio_1"}}


def test_what_is_echoed() -> None:
    """Unknown fields go back only where the server needs them."""
    signed = {"extra_content": {"google": {"thought_signature": "s"}}}
    thinking = AssistantMessage(
        tool_calls=(ToolCall(id="c", name="add", arguments="{}", extra=signed),),
        reasoning="Hm",
        extra={"reasoning_details": [{"type": "reasoning.text"}], "odd": 1},
    )
    assert message(thinking, OPENAI).keys() == {"role", "content", "tool_calls"}
    assert "reasoning_details" in message(thinking, PROFILES["openrouter"])
    assert message(thinking, PROFILES["deepseek"])["reasoning_content"] == "Hm"
    assert message(thinking, PROFILES["gemini"])["tool_calls"][0]["extra_content"]
    said = AssistantMessage(content="Hi", reasoning="Hm")
    assert "reasoning_content" not in message(said, PROFILES["deepseek"])


@pytest.mark.parametrize(
    ("arguments", "back"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ("", "{}"),
        ("null", "{}"),
        ('{"a": ', '{"INVALID_JSON":"{\\"a\\": "}'),
        ("[1]", '{"INVALID_JSON":"[1]"}'),
    ],
)
def test_arguments_that_go_back(arguments: str, back: str) -> None:
    """Servers that parse arguments are only ever sent a JSON object."""
    call = AssistantMessage(tool_calls=(ToolCall(id="c", name="add", arguments=arguments),))
    assert message(call, COMPATIBLE)["tool_calls"][0]["function"]["arguments"] == back
    kept = message(call, OPENAI)["tool_calls"][0]["function"]["arguments"]
    assert kept == (arguments or "{}")


def test_ids_that_the_server_refuses() -> None:
    """Mistral gets ids of nine letters and digits, the same in call and answer."""
    called, answered = sent(CALLS, ANSWER, profile=PROFILES["mistral"])["messages"]
    short = called["tool_calls"][0]["id"]
    assert len(short) == 9
    assert short.isalnum()
    assert answered["tool_call_id"] == short
    fits = ToolMessage(call_id="abcDEF123", content="")
    assert message(fits, PROFILES["mistral"])["tool_call_id"] == "abcDEF123"


def test_orders_of_messages_that_the_server_refuses() -> None:
    """Mistral: no empty assistant, no user straight after a tool, names on tools only."""
    empty = AssistantMessage(content="")
    named = UserMessage(content="Go on", name="Ann")
    roles = sent(empty, CALLS, ANSWER, named, profile=PROFILES["mistral"])["messages"]
    assert [one["role"] for one in roles] == ["assistant", "tool", "assistant", "user"]
    assert roles[1]["name"] == "add"
    assert "name" not in roles[3]


def test_one_system_message() -> None:
    """Where templates know but one system message, all of them are put into the first."""
    a, b = SystemMessage(content="A"), SystemMessage(content=(TextPart(text="B"),))
    assert sent(a, USER, b, profile=PROFILES["vllm"])["messages"] == [
        {"role": "system", "content": "A\n\nB"},
        {"role": "user", "content": "Hi"},
    ]


def test_tool_choice() -> None:
    """Each choice in the server's own words."""
    both = (TOOL, OTHER)
    forced = ForcedTool(name="sub")
    assert "tool_choice" not in sent(tools=both)
    assert sent(tools=both, tool_choice="required")["tool_choice"] == "required"
    assert sent(tools=both, tool_choice="required", profile=PROFILES["mistral"])["tool_choice"] == (
        "any"
    )
    assert sent(tools=both, tool_choice=forced)["tool_choice"] == {
        "type": "function",
        "function": {"name": "sub"},
    }
    alone = sent(tools=both, tool_choice=forced, profile=PROFILES["lmstudio"])
    assert alone["tool_choice"] == "required"
    assert [one["function"]["name"] for one in alone["tools"]] == ["sub"]
    kept = sent(tools=both, tool_choice="none")
    assert kept["tool_choice"] == "none"
    assert len(kept["tools"]) == 2
    assert "tools" not in sent(tools=both, tool_choice="none", profile=PROFILES["ollama"])


def test_a_choice_that_the_server_cannot_be_given() -> None:
    """It is left out, with a note."""
    notes: list[Note] = []
    request = ModelRequest(messages=(USER,), tools=(TOOL,), tool_choice=ForcedTool(name="add"))
    encode_request(request, "m", PROFILES["ollama"], note=notes.append)
    assert [note.data["field"] for note in notes] == ["tool_choice"]


def test_a_forced_tool_that_is_not_there() -> None:
    """Forcing an unknown tool is said before anything is sent."""
    with pytest.raises(InvalidSetting, match="'mul'"):
        sent(tools=(TOOL,), tool_choice=ForcedTool(name="mul"))


def test_too_many_tools() -> None:
    """OpenAI takes 128 tools; one more is said before anything is sent."""
    tools = tuple(replace(TOOL, name=f"t{i}") for i in range(129))
    with pytest.raises(InvalidSetting, match="129"):
        sent(tools=tools)
    assert len(sent(tools=tools, profile=COMPATIBLE)["tools"]) == 129


def test_strict_tools() -> None:
    """`strict` is sent only to servers that know it."""
    assert sent(tools=(TOOL,))["tools"][0]["function"]["strict"] is True
    assert "strict" not in sent(tools=(TOOL,), profile=PROFILES["groq"])["tools"][0]["function"]


def test_deprecated_functions() -> None:
    """Servers of the old form get functions, function_call and function messages."""
    old = replace(COMPATIBLE, tool_calling="functions")
    body = sent(
        USER, CALLS, ANSWER, profile=old, tools=(OTHER,), tool_choice=ForcedTool(name="sub")
    )
    assert body["functions"] == [
        {"name": "sub", "description": "Subtract.", "parameters": {"type": "object"}}
    ]
    assert body["function_call"] == {"name": "sub"}
    assert body["messages"][1]["function_call"] == {"name": "add", "arguments": "{}"}
    assert body["messages"][2] == {"role": "function", "name": "add", "content": "3"}


def test_response_format() -> None:
    """A schema is sent as json_schema."""
    output = OutputFormat(kind="json_schema", name="Plan", schema={"type": "object"})
    assert sent(output=output)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "Plan", "schema": {"type": "object"}, "strict": True},
    }


def test_json_object_mode_says_json() -> None:
    """Without the word JSON in a message, json_object mode gets one; with it, it does not."""
    output = OutputFormat(kind="json_object")
    first = sent(output=output)["messages"][0]
    assert first["role"] == "system"
    assert "JSON" in first["content"]
    assert len(sent(UserMessage(content="Answer in json"), output=output)["messages"]) == 1


def test_streaming() -> None:
    """Usage is asked for where the server knows the option."""
    assert sent(stream=True)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in sent(stream=True, profile=PROFILES["mistral"])
    assert "stream" not in sent()


def test_parameters_are_renamed_dropped_and_clamped() -> None:
    """What a server lacks is changed with a note."""
    notes: list[Note] = []
    settings = {"max_completion_tokens": 9, "seed": 1, "temperature": 2, "logit_bias": {"1": 1}}
    request = ModelRequest(messages=(USER,), settings=settings)
    body = json.loads(encode_request(request, "m", PROFILES["mistral"], note=notes.append))
    assert body["max_tokens"] == 9
    assert body["random_seed"] == 1
    assert body["temperature"] == 1.5
    assert "logit_bias" not in body
    assert {(note.code, note.data["field"]) for note in notes} == {
        ("dropped_parameter", "logit_bias"),
        ("clamped_parameter", "temperature"),
    }


def test_strict_settings() -> None:
    """With strict, a parameter that would be dropped is refused by name."""
    request = ModelRequest(messages=(USER,), settings={"top_k": 3})
    with pytest.raises(InvalidSetting, match="top_k") as caught:
        encode_request(request, "m", OPENAI, strict=True)
    assert caught.value.field == "top_k"


def test_sampling_parameters_of_a_reasoning_model() -> None:
    """They are refused while the model reasons, and known when it does not."""
    profile = OPENAI.for_model("gpt-5")
    assert "temperature" not in sent(profile=profile, settings={"temperature": 1})
    settings = {"temperature": 1, "reasoning_effort": "none"}
    assert sent(profile=profile, settings=settings)["temperature"] == 1
    assert OPENAI.for_model("gpt-5-chat-latest") == OPENAI
    assert OPENAI.for_model("gpt-4o") == OPENAI


def test_extra_body() -> None:
    """Its fields win over all others."""
    settings = {"temperature": 1, "extra_body": {"temperature": 0.5, "new": [1]}}
    body = sent(settings=settings)
    assert body["temperature"] == 0.5
    assert body["new"] == [1]


def test_defaults_of_a_server() -> None:
    """Together stops after 512 tokens unless told otherwise, so it is told."""
    assert sent(profile=PROFILES["together"])["max_tokens"] == 4096
    body = sent(profile=PROFILES["together"], settings={"max_completion_tokens": 9})
    assert body["max_tokens"] == 9


def test_text_that_utf8_cannot_hold() -> None:
    """A lone surrogate, as file names have them, is replaced instead of failing the run."""
    assert message(UserMessage(content="a\ud800b"))["content"] == "a\ufffdb"
