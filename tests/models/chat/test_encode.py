"""Requests as the bytes that each server gets."""

from __future__ import annotations

import json
import re
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
    OtherPart,
    OutputFormat,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    UserMessage,
    dump_messages,
    load_messages,
    message_from_json,
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


def test_a_body_begins_with_the_previous_one() -> None:
    """The body of the next step starts with this one's bytes, so that prompt caches hit."""
    first = ModelRequest(messages=(USER,), tools=(TOOL, OTHER), settings={"seed": 1})
    second = replace(first, messages=(USER, CALLS, ANSWER))
    before, after = (encode_request(one, "m", OPENAI, stream=True) for one in (first, second))
    assert before.endswith(b"]}")
    assert after.startswith(before[:-2])


def test_a_message_is_encoded_once() -> None:
    """A message's bytes are reused within one variant of the wire format, and only there."""
    parts = [TextPart(text="Hi")]
    one = UserMessage(content=tuple(parts))
    first = sent(one, profile=OPENAI)
    assert sent(one, one, profile=OPENAI)["messages"] == first["messages"] * 2
    # Another variant of the wire is another encoding of the same message.
    assert message(one, OPENAI)["content"] == [{"type": "text", "text": "Hi"}]
    assert message(one, COMPATIBLE)["content"] == "Hi"
    assert message(one, OPENAI)["content"] == [{"type": "text", "text": "Hi"}]


def test_parts_of_every_kind() -> None:
    """Text, images, audio and files have the form of the reference."""
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
    """OpenAI's reasoning models get instructions in the developer role."""
    profile = OPENAI.for_model("o3-mini")
    assert message(SystemMessage(content="Be kind."), profile)["role"] == "developer"
    assert message(SystemMessage(content="Be kind."), OPENAI)["role"] == "system"


def test_assistant_messages() -> None:
    """Calls without text have null content, and refusals go back as refusals."""
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


def test_audio_of_an_earlier_answer() -> None:
    """Audio of an earlier answer is referred to by id; its data is not sent again."""
    spoken = AssistantMessage(extra={"audio": {"id": "audio_1", "data": "AAAA"}})
    assert message(spoken) == {"role": "assistant", "content": None, "audio": {"id": "audio_1"}}


def test_unknown_fields_are_echoed() -> None:
    """Unknown fields go back only to servers that need them."""
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
    plain = AssistantMessage(content="Hi", reasoning="Hm")
    assert "reasoning_content" not in message(plain, PROFILES["deepseek"])


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_goes_back_in_its_field(field: str) -> None:
    """Reasoning goes back in the field it came in, unless the server is known to refuse it."""
    body = {"role": "assistant", "content": "Hi", field: "Hm"}
    thinking = message_from_json(body)
    assert isinstance(thinking, AssistantMessage)
    assert load_messages(dump_messages([thinking])) == (thinking,)
    for name in ("openrouter", "vllm", "together", "ollama", "fireworks"):
        assert message(thinking, PROFILES[name]) == body
    assert message(thinking, COMPATIBLE) == body
    for name in ("openai", "azure", "mistral", "gemini", "deepseek"):
        assert field not in message(thinking, PROFILES[name])


def test_reasoning_in_tags_is_echoed_where_the_profile_says_so() -> None:
    """Reasoning that came in no field is sent on tool turns, as the profile says."""
    call = ToolCall(id="c", name="add", arguments="{}")
    thinking = AssistantMessage(content="Hi", reasoning="Hm", tool_calls=(call,))
    assert message(thinking, COMPATIBLE).keys() == {"role", "content", "tool_calls"}
    tags = replace(COMPATIBLE, reasoning_field="content")
    assert message(thinking, tags)["content"] == "<think>Hm</think>Hi"
    assert message(AssistantMessage(content="Hi", reasoning="Hm"), tags)["content"] == "Hi"


def test_other_reasoning_fields_go_back() -> None:
    """What belongs to reasoning goes back to servers that are not known to refuse it."""
    extra = {"reasoning_details": [{"text": "x"}], "thinking_blocks": [{"thinking": "x"}]}
    thinking = AssistantMessage(content="Hi", extra={**extra, "annotations": []})
    assert message(thinking, COMPATIBLE) == {"role": "assistant", "content": "Hi", **extra}
    assert message(thinking, OPENAI) == {"role": "assistant", "content": "Hi"}


ODD_NAMES = [
    "functions.look",
    "functions:look",
    "a.b",
    "a b",
    "",
    "ä",
    "\ud800",
    "x" * 65,
    "x" * 66,
]


@pytest.mark.parametrize("mode", ["native", "functions"])
def test_names_of_tools_that_servers_refuse(mode: Any) -> None:
    """A name that a model made up is sent in a form that is accepted, and stays distinct."""
    profile = replace(COMPATIBLE, tool_calling=mode, names=frozenset({"tool"}))
    names: list[str] = []
    for odd in (*ODD_NAMES, "a_b", "look"):
        called = message(
            AssistantMessage(tool_calls=(ToolCall(id="c", name=odd, arguments="{}"),)), profile
        )
        function = called.get("function_call") or called["tool_calls"][0]["function"]
        answer = message(ToolMessage(call_id="c", name=odd or "?", content="3"), profile)
        assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", function["name"])
        assert not odd or answer["name"] == function["name"]
        names.append(function["name"])
    assert len(set(names)) == len(names)
    assert names[-2:] == ["a_b", "look"]


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
def test_arguments_in_the_history(arguments: str, back: str) -> None:
    """Servers that parse arguments get only JSON objects."""
    call = AssistantMessage(tool_calls=(ToolCall(id="c", name="add", arguments=arguments),))
    assert message(call, COMPATIBLE)["tool_calls"][0]["function"]["arguments"] == back
    kept = message(call, OPENAI)["tool_calls"][0]["function"]["arguments"]
    assert kept == (arguments or "{}")


def test_short_call_ids() -> None:
    """Mistral gets ids of nine letters and digits, the same in call and result."""
    called, answered = sent(CALLS, ANSWER, profile=PROFILES["mistral"])["messages"]
    short = called["tool_calls"][0]["id"]
    assert len(short) == 9
    assert short.isalnum()
    assert answered["tool_call_id"] == short
    fits = ToolMessage(call_id="abcDEF123", content="")
    assert message(fits, PROFILES["mistral"])["tool_call_id"] == "abcDEF123"


def test_orders_of_messages() -> None:
    """Mistral gets no empty assistant, no user right after a tool, and names only on tools."""
    empty = AssistantMessage(content="")
    named = UserMessage(content="Go on", name="Ann")
    roles = sent(empty, CALLS, ANSWER, named, profile=PROFILES["mistral"])["messages"]
    assert [one["role"] for one in roles] == ["assistant", "tool", "assistant", "user"]
    assert roles[1]["name"] == "add"
    assert "name" not in roles[3]


def test_one_system_message() -> None:
    """Servers that allow one system message get all of them merged into it."""
    a, b = SystemMessage(content="A"), SystemMessage(content=(TextPart(text="B"),))
    assert sent(a, USER, b, profile=PROFILES["vllm"])["messages"] == [
        {"role": "system", "content": "A\n\nB"},
        {"role": "user", "content": "Hi"},
    ]


def test_tool_choice() -> None:
    """Each tool choice is sent in the server's own words."""
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


def test_a_tool_choice_that_is_not_supported() -> None:
    """A tool choice that the server does not support is left out, with a note."""
    notes: list[Note] = []
    request = ModelRequest(messages=(USER,), tools=(TOOL,), tool_choice=ForcedTool(name="add"))
    encode_request(request, "m", PROFILES["ollama"], note=notes.append)
    assert [note.data["field"] for note in notes] == ["tool_choice"]


def test_forcing_an_unknown_tool() -> None:
    """Forcing an unknown tool is refused before anything is sent."""
    with pytest.raises(InvalidSetting, match="'mul'"):
        sent(tools=(TOOL,), tool_choice=ForcedTool(name="mul"))


def test_too_many_tools() -> None:
    """More tools than OpenAI's limit of 128 are refused before anything is sent."""
    tools = tuple(replace(TOOL, name=f"t{i}") for i in range(129))
    with pytest.raises(InvalidSetting, match="129"):
        sent(tools=tools)
    assert len(sent(tools=tools, profile=COMPATIBLE)["tools"]) == 129


def test_strict_tools() -> None:
    """`strict` is sent only to servers that support it."""
    assert sent(tools=(TOOL,))["tools"][0]["function"]["strict"] is True
    assert "strict" not in sent(tools=(TOOL,), profile=PROFILES["groq"])["tools"][0]["function"]


def test_deprecated_functions() -> None:
    """Servers with the old form get functions, function_call and function messages."""
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
    """An output schema is sent as json_schema."""
    output = OutputFormat(kind="json_schema", name="Plan", schema={"type": "object"})
    assert sent(output=output)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "Plan", "schema": {"type": "object"}, "strict": True},
    }


def test_json_object_mode_mentions_json() -> None:
    """In json_object mode a system message mentions JSON, unless another message does."""
    output = OutputFormat(kind="json_object")
    first = sent(output=output)["messages"][0]
    assert first["role"] == "system"
    assert "JSON" in first["content"]
    assert len(sent(UserMessage(content="Answer in json"), output=output)["messages"]) == 1


def test_streaming() -> None:
    """Usage is requested from servers that support the option."""
    assert sent(stream=True)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in sent(stream=True, profile=PROFILES["mistral"])
    assert "stream" not in sent()


def test_parameters_are_renamed_dropped_and_clamped() -> None:
    """Parameters are adapted to the server, and every loss is noted."""
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
    """Sampling parameters are dropped while the model reasons, and only then."""
    profile = OPENAI.for_model("gpt-5")
    assert "temperature" not in sent(profile=profile, settings={"temperature": 1})
    settings = {"temperature": 1, "reasoning_effort": "none"}
    assert sent(profile=profile, settings=settings)["temperature"] == 1
    assert OPENAI.for_model("gpt-5-chat-latest") == OPENAI
    assert OPENAI.for_model("gpt-4o") == OPENAI


def test_extra_body() -> None:
    """The fields of extra_body override all others."""
    settings = {"temperature": 1, "extra_body": {"temperature": 0.5, "new": [1]}}
    body = sent(settings=settings)
    assert body["temperature"] == 0.5
    assert body["new"] == [1]


def test_defaults_of_a_server() -> None:
    """Together's low default for max_tokens is raised, unless the caller sets a value."""
    assert sent(profile=PROFILES["together"])["max_tokens"] == 4096
    body = sent(profile=PROFILES["together"], settings={"max_completion_tokens": 9})
    assert body["max_tokens"] == 9


def test_lone_surrogates() -> None:
    """A lone surrogate, as in some file names, is replaced instead of failing the run."""
    assert message(UserMessage(content="a\ud800b"))["content"] == "a\ufffdb"


# Images and files of tools

IMAGE = ImagePart(url="data:image/png;base64,AAAA")
FILE = FilePart(data="data:text/plain;base64,QQ==", filename="a.txt")
BOTH = AssistantMessage(
    tool_calls=tuple(ToolCall(id=f"call_{i}", name="add", arguments="{}") for i in (1, 2, 3))
)
RESULTS = (
    ToolMessage(call_id="call_1", name="add", content=(TextPart(text="Two:"), IMAGE, FILE)),
    ToolMessage(call_id="call_2", name="add", content="plain"),
    ToolMessage(call_id="call_3", name="add", content=(IMAGE,)),
)


@pytest.mark.parametrize("name", [*PROFILES, "compatible"])
def test_attachments_of_results_go_behind_the_batch(name: str) -> None:
    """Images and files stand in one user message behind all results of a step, labelled."""
    profile = PROFILES.get(name, COMPATIBLE)
    after = AssistantMessage(content="Nice.")
    messages = sent(USER, BOTH, *RESULTS, after, USER, profile=profile)["messages"]
    roles = [one["role"] for one in messages]
    bridge = ["user"] if profile.user_after_tool else ["assistant", "user"]
    assert roles == [
        "user", "assistant", "tool", "tool", "tool", *bridge, "assistant", "user"
    ]  # fmt: skip
    first, second, third = ("".join(texts(one)) for one in messages[2:5])
    assert first == (
        "Two:\n[attachment 1: in the next user message]\n[attachment 2: in the next user message]"
    )
    assert (second, third) == ("plain", "[attachment 3: in the next user message]")
    attached = messages[roles.index("user", 1)]["content"]
    assert attached == [
        {"type": "text", "text": "[attachment 1, from add]"},
        IMAGE.to_json(),
        {"type": "text", "text": "[attachment 2, from add]"},
        FILE.to_json(),
        {"type": "text", "text": "[attachment 3, from add]"},
        IMAGE.to_json(),
    ]


def texts(message: dict[str, Any]) -> list[str]:
    content = message["content"]
    return [content] if isinstance(content, str) else [part["text"] for part in content]


def test_attachments_stay_where_the_profile_says_so() -> None:
    """With tool_parts, results keep their images; parts of text never move."""
    profile = replace(COMPATIBLE, tool_parts=True)
    messages = sent(USER, BOTH, *RESULTS, profile=profile)["messages"]
    assert [one["role"] for one in messages] == ["user", "assistant", "tool", "tool", "tool"]
    assert messages[-1]["content"] == [IMAGE.to_json()]
    marked = OtherPart(data={"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}})
    result = ToolMessage(call_id="call_1", name="add", content=(marked,))
    messages = sent(USER, CALLS, result, profile=COMPATIBLE)["messages"]
    assert messages[2:] == [
        {"role": "tool", "content": [marked.to_json()], "tool_call_id": "call_1"}
    ]


def test_a_longer_request_begins_with_the_shorter_one() -> None:
    """Attachments do not move when the conversation goes on, and are encoded once."""
    short = ModelRequest(messages=(USER, BOTH, *RESULTS))
    longer = ModelRequest(messages=(*short.messages, BOTH, *RESULTS, USER))
    before = encode_request(short, "m", COMPATIBLE).removesuffix(b"]}")
    assert encode_request(longer, "m", COMPATIBLE).startswith(before)
    moved = RESULTS[0]._memo["moved"]
    encode_request(longer, "m", COMPATIBLE)
    assert RESULTS[0]._memo["moved"] is moved
