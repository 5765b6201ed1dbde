"""What servers at the edge of the reference do, over a socket."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agentkit import Agent, ChatSettings
from agentkit.errors import (
    AgentKitError,
    ContextLengthExceeded,
    InvalidHistory,
    InvalidResponse,
    InvalidSetting,
    ModelError,
    ModelHTTPError,
    ModelRefusal,
    ModelUnreachable,
    RateLimited,
)
from agentkit.events import HttpStarted, TextDelta, Warned
from agentkit.history import repair_history
from agentkit.messages import ForcedTool, ModelRequest, ToolDefinition, messages_from_json
from agentkit.models import PROFILES, ChatModel
from agentkit.models.profiles import COMPATIBLE
from agentkit.testing import HOLD, ChatServer, raw, reply, sse
from tests.models.support import REQUEST, send

pytestmark = pytest.mark.anyio

TOOL = ToolDefinition(name="add", description="", parameters={"type": "object", "properties": {}})
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}


def text(content: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]}


def failed(message: str, status: int = 500, code: Any = None) -> Any:
    return raw(status, {"error": {"message": message, "type": "server_error", "code": code}})


# Streams


@pytest.mark.parametrize("size", [None, 1, 7])
@pytest.mark.parametrize(
    "behind",
    [
        text("more"),
        {"error": {"message": "too late"}},
        '{"choices": [{"ind',
        "<html>bad gateway</html>",
        {"choices": [{"delta": {"tool_calls": [{"function": {"name": "add"}}]}}]},
        USAGE,
    ],
)
async def test_data_behind_done(behind: Any, size: int | None) -> None:
    """What follows [DONE] never counts, in the same packet or in a later one."""
    answer = sse([text("Hello", "stop"), "[DONE]", behind], chunk_size=size)
    response, events, server = await send([answer], stream=True)
    assert response.message.content == "Hello"
    assert response.message.tool_calls == ()
    assert response.usage.input_tokens == 0
    assert "".join(one.text for one in events if isinstance(one, TextDelta)) == "Hello"
    assert len(server.requests) == 1


@pytest.mark.parametrize("size", [None, 1, 7])
@pytest.mark.parametrize("broken", ['{"choices": [{"ind', "<html>", "{'a': 1}", "\x00", "OK"])
@pytest.mark.parametrize("usage", [True, False])
async def test_a_broken_chunk_behind_a_complete_answer(
    broken: str, usage: bool, size: int | None
) -> None:
    """A malformed chunk behind the finish_reason is ignored: the answer is complete."""
    chunks = [text("Hello", "stop"), *([USAGE] if usage else []), broken, "[DONE]"]
    response, _, server = await send([sse(chunks, chunk_size=size)], stream=True)
    assert response.message.content == "Hello"
    assert response.usage.input_tokens == (3 if usage else 0)
    assert len(server.requests) == 1


async def test_a_broken_chunk_before_the_end_of_an_answer() -> None:
    """A malformed chunk before the finish_reason may have been part of the answer: once more."""
    broken = sse([text("Hel"), '{"choices": [{"ind', text("lo", "stop"), USAGE, "[DONE]"])
    response, _, server = await send([broken, reply("Hello")], stream=True)
    assert response.message.content == "Hello"
    assert len(server.requests) == 2
    with pytest.raises(InvalidResponse, match="a chunk that is not JSON"):
        await send([broken], stream=True, retries=0)


# Errors


@pytest.mark.parametrize("status", [500, 503, 200])
@pytest.mark.parametrize(
    "message",
    [
        "image input is not supported - hint: if this is unexpected, you may need to provide the"
        " mmproj",
        "image input is not supported by this server",
        'Failed to parse messages: Unsupported content part type: "image_url"; messages = [...]',
        "The server was not compiled for multimodal or the model projector can't be loaded.",
        "This model does not support audio input.",
        "/models/llama is not a multimodal model",
        "this model is missing data required for image input",
        "Model doesn't support images. Please use a model that does.",
        "Failed to load image: cannot identify image file <_io.BytesIO object>",
        "At most 0 image(s) may be provided in one request.",
        "input modality video is not available for this model",
        "PDF files are not accepted by this model",
    ],
)
async def test_a_multimodal_refusal_is_sent_once(message: str, status: int) -> None:
    """What a server cannot read is not sent again, whatever status the refusal has."""
    with pytest.raises(ModelHTTPError, match=r"image|audio|video|PDF|multimodal"):
        await send([failed(message, status)])  # a second request would have no reply


@pytest.mark.parametrize(
    "message",
    [
        "The model is overloaded; please retry.",
        "Internal server error while processing your image; please try again.",
        "upstream connect error or disconnect/reset before headers",
        "The image service is temporarily unavailable.",
        "Invalid response from upstream",
    ],
)
async def test_other_server_errors_are_tried_again(message: str) -> None:
    """A 500 that may pass is asked again, also where its text speaks of images."""
    response, _, server = await send([failed(message), reply("Hello")])
    assert response.message.content == "Hello"
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (500, "The response was filtered", "content_filter"),
        (500, "Your request was rejected as a result of our safety system.", None),
        (200, "Output data may contain inappropriate content.", "data_inspection_failed"),
        (400, "Content Exists Risk", "invalid_request_error"),
        (400, "The request was rejected because it was considered high risk", None),
        (403, "Your chosen model requires moderation and your input was flagged", 403),
        (400, "Invalid prompt: flagged as potentially violating our usage policy.", None),
    ],
)
async def test_refusals_by_a_filter(status: int, message: str, code: Any) -> None:
    """A filter's refusal is a ModelRefusal, sent once, whatever status it has."""
    with pytest.raises(ModelRefusal, match="answered") as caught:
        await send([failed(message, status, code)])
    assert caught.value.reason == "content_filter"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "total length of all messages is too long"),
        (400, "Range of input length should be [1, 30720]"),
        (400, "length of prompt_tokens (163280) must be less than max_seq_len (32768)."),
        (422, "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000"),
        (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097."),
        (400, "Invalid request: Your request exceeded model token limit: 8192 (requested: 9000)"),
        (400, "prompt token count of 70000 exceeds the limit of 64000"),
        (400, "invalid params, context window exceeds limit (2013)"),
        (400, "Prompt exceeds max length"),
        (400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096."),
        (400, "Input tokens exceed the configured limit of 272000 tokens."),
        (400, "The input token count (1196265) exceeds the maximum number of tokens allowed"),
        (400, "Invalid 'messages[1].content': string too long. Expected a maximum length 1048576"),
        (400, "too many tokens: total number of tokens in the prompt cannot exceed 4081"),
        (413, "Request too large: please reduce your message size and try again."),
        (500, "input length too long"),
        (400, "Total tokens of image and text exceed max message tokens"),
        (400, "This model's maximum prompt length is 131072 but the request contains 537812"),
        (
            400,
            "Prompt contains 45000 tokens, too large for model with 32768 maximum context length",
        ),
        (200, "The conversation is too long"),
    ],
)
async def test_context_length_errors(status: int, message: str) -> None:
    """Each server's words for a conversation that is too long are one error, sent once."""
    with pytest.raises(ContextLengthExceeded, match="answered"):
        await send([failed(message, status)])


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (429, "Rate limit reached on tokens per min (TPM): Limit 10000, Used 9990", RateLimited),
        (400, "max_tokens is too large: 5000. At most 4096 completion tokens", ModelHTTPError),
        (400, "The tool description is too long", ModelHTTPError),
        (400, "Invalid 'tools[0].function.name': string too long", ModelHTTPError),
    ],
)
async def test_other_limits(status: int, message: str, kind: type[ModelError]) -> None:
    """A limit of something else is no context-length error."""
    with pytest.raises(ModelError) as caught:
        await send([failed(message, status)], retries=0)
    assert type(caught.value) is kind


# Hosts that cannot be reached


@pytest.mark.parametrize(
    ("base_url", "place"),
    [
        ("http://127.0.0.1:9/v1", r"127\.0\.0\.1:9"),
        ("http://no-such-host.invalid/v1", r"no-such-host\.invalid"),
        ("http://user:secret@127.0.0.1:9/v1", r"at 127\.0\.0\.1:9"),
    ],
)
@pytest.mark.parametrize("name", ["", "m"])
async def test_listing_the_models_of_an_unreachable_host(
    base_url: str, place: str, name: str
) -> None:
    """Listing models of a host that cannot be reached names it, as a request does."""
    async with ChatModel(name, base_url=base_url, retries=0) as model:
        with pytest.raises(ModelUnreachable, match=place) as caught:
            await model.models()
        assert "secret" not in str(caught.value)
        with pytest.raises(ModelUnreachable, match=place):
            await model.request(REQUEST)


async def test_listing_the_models_of_a_server_without_tls() -> None:
    """A failed TLS handshake names the host, on both sides and at once."""
    with (
        pytest.raises(AgentKitError, match=r"not HTTP/1\.1: it begins a TLS handshake"),
        ChatServer([]) as server,
    ):
        place = server.base_url.removeprefix("http://").removesuffix("/v1")
        async with ChatModel("m", base_url=f"https://{place}/v1", retries=0) as model:
            with pytest.raises(ModelUnreachable, match=place):
                await model.models()
            with pytest.raises(ModelUnreachable, match=place):
                await model.request(REQUEST)


async def test_listing_the_models_of_a_silent_server() -> None:
    """The total timeout bounds the list of models, too, and names the host, as for requests."""
    late = [reply("late", delay=HOLD), reply("late", delay=HOLD)]
    with ChatServer(late) as server:
        place = server.base_url.removeprefix("http://").removesuffix("/v1")
        async with ChatModel("m", base_url=server.base_url, timeout=0.2) as model:
            with pytest.raises(ModelUnreachable, match=f"{place} .* within 0.2 seconds"):
                await model.models()
            with pytest.raises(ModelUnreachable, match=f"{place} .* within 0.2 seconds"):
                await model.request(REQUEST)


# Histories in the deprecated form

CALLED = {
    "role": "assistant",
    "content": None,
    "function_call": {"name": "add", "arguments": '{"x": 1}'},
}
RETURNED = {"role": "function", "name": "add", "content": "3"}


async def history_of(*messages: Any, **options: Any) -> list[dict[str, Any]]:
    """Return a history as it is sent."""
    with ChatServer([reply("Hello")]) as server:
        async with ChatModel("m", base_url=server.base_url, **options) as model:
            await Agent(model).run("And now?", history=messages)
    return server.requests[0].json["messages"]


async def test_a_function_call_in_a_history() -> None:
    """The old function_call and its answer are sent as a tool call and its answer."""
    question = {"role": "user", "content": "1 + 2"}
    _, first, second, *_ = await history_of(question, CALLED, RETURNED)
    (call,) = first["tool_calls"]
    assert call["function"] == {"name": "add", "arguments": '{"x": 1}'}
    assert "function_call" not in first
    assert second == {"role": "tool", "content": "3", "tool_call_id": call["id"]}


async def test_several_function_calls_in_a_history() -> None:
    """Each has an id of its own, also beside calls of the new form."""
    new = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "function": {"name": "add", "arguments": "{}"}}],
        "function_call": None,
    }
    sent = await history_of(CALLED, RETURNED, new, RETURNED, CALLED, RETURNED | {"content": None})
    ids = [one["tool_calls"][0]["id"] for one in sent if "tool_calls" in one]
    assert len(set(ids)) == 3
    assert ids[1] == "c1"
    assert [one["tool_call_id"] for one in sent if one["role"] == "tool"] == ids
    assert [one["content"] for one in sent if one["role"] == "tool"] == ["3", "3", ""]


async def test_a_function_call_without_its_answer() -> None:
    """It is found like a tool call without one, and repaired."""
    with pytest.raises(InvalidHistory, match="of add is not answered") as caught:
        await history_of(CALLED)
    assert caught.value.index == 0
    with pytest.raises(InvalidHistory, match="is expected, at index 1"):
        await history_of(CALLED, RETURNED | {"name": "sub"})
    with pytest.raises(InvalidHistory, match="index 1 has None as its name"):
        await history_of(CALLED, {"role": "function", "content": "3"})
    with pytest.raises(InvalidHistory, match="at index 0"):
        await history_of({"role": "assistant", "function_call": "add"})
    repaired = repair_history(messages_from_json([CALLED]))
    assert [type(one).__name__ for one in repaired] == ["AssistantMessage", "ToolMessage"]


async def test_a_function_call_for_a_server_that_has_no_other() -> None:
    """A server that takes only the old form gets it back as it was."""
    old = replace(COMPATIBLE, tool_calling="functions")
    assert (await history_of(CALLED, RETURNED, profile=old))[:2] == [CALLED, RETURNED]


async def test_several_calls_for_a_server_that_takes_one() -> None:
    """Parallel calls are sent one after the other, each with its answer."""
    both = [
        {"id": f"c{name}", "function": {"name": name, "arguments": "{}"}} for name in ("a", "b")
    ]
    answers = [{"role": "tool", "tool_call_id": f"c{name}", "content": name} for name in ("a", "b")]
    called = {"role": "assistant", "content": "Both", "tool_calls": both}
    old = replace(COMPATIBLE, tool_calling="functions")
    sent = (await history_of(called, *answers, profile=old))[:4]
    assert [one.get("function_call", {}).get("name") for one in sent] == ["a", None, "b", None]
    assert [one["content"] for one in sent] == ["Both", "a", None, "b"]
    assert [one.get("name") for one in sent] == [None, "a", None, "b"]


# Parameters


@pytest.mark.parametrize("modalities", [["audio"], ["text", "audio"]])
async def test_audio_output_without_its_parameters(modalities: list[str]) -> None:
    """A spoken answer without voice and format is refused before anything is sent."""
    for settings in ({}, {"audio": None}, {"extra_body": {"modalities": modalities}}):
        with ChatServer([]) as server:
            async with ChatModel("m", base_url=server.base_url) as model:
                with pytest.raises(InvalidSetting, match="'voice': …, 'format': …") as caught:
                    request = replace(REQUEST, settings={"modalities": modalities} | settings)
                    await model.request(request)
                assert caught.value.field == "audio"
        assert not server.requests
    with pytest.raises(InvalidSetting, match="because modalities includes 'audio'"):
        ChatSettings(modalities=modalities)  # type: ignore[arg-type]
    for audio in ({}, {"voice": "alloy"}):
        with pytest.raises(InvalidSetting, match="'voice': …, 'format': …"):
            ChatSettings(audio=audio)


async def test_audio_output() -> None:
    """With them it is sent, from the settings or from extra_body."""
    audio = {"voice": "alloy", "format": "wav"}
    for settings in (
        ChatSettings(modalities=["text", "audio"], audio=audio),
        ChatSettings(modalities=["text", "audio"], extra_body={"audio": audio}),
    ):
        body, _ = await sent("gpt-4o-audio-preview", "openai", settings=settings.to_params())
        assert body["audio"] == audio
        assert body["modalities"] == ["text", "audio"]


async def sent(model: str, profile: str, **fields: Any) -> tuple[dict[str, Any], set[str]]:
    """Return the body that was sent, and the parameters that a warning says were left out."""
    request = ModelRequest(messages=REQUEST.messages, **fields)
    events: list[Any] = []
    with ChatServer([reply("Hello")]) as server:
        client = ChatModel(model, base_url=server.base_url, api_key="k", profile=profile)
        async with client as chat:
            await chat.request(request, emit=events.append)
    assert sum(isinstance(one, HttpStarted) for one in events) == 1
    dropped = {one.data["field"] for one in events if isinstance(one, Warned)}
    return server.requests[0].json, dropped


@pytest.mark.parametrize("choice", ["none", "auto", "required"])
async def test_fireworks_tool_choice(choice: Any) -> None:
    """Fireworks takes the reference's words: none, auto, required."""
    body, dropped = await sent("m", "fireworks", tools=(TOOL,), tool_choice=choice)
    assert body["tool_choice"] == choice
    assert not dropped


async def test_fireworks_named_tool() -> None:
    """Fireworks takes a tool's name."""
    body, _ = await sent("m", "fireworks", tools=(TOOL,), tool_choice=ForcedTool(name="add"))
    assert body["tool_choice"] == {"type": "function", "function": {"name": "add"}}


SAMPLING = {
    "temperature": 0.5,
    "top_p": 0.5,
    "presence_penalty": 1,
    "frequency_penalty": 1,
    "logprobs": True,
    "top_logprobs": 2,
    "logit_bias": {"1": 5},
    "stop": ["\n"],
}


@pytest.mark.parametrize("profile", ["openai", "azure"])
@pytest.mark.parametrize(
    "model",
    [
        "o1",
        "o3",
        "o3-mini",
        "o4-mini-2025-04-16",
        "ft:o4-mini:us",
        "gpt-5",
        "gpt-5-mini",
        "gpt-5.2",
    ],
)
@pytest.mark.parametrize("effort", [None, "minimal", "high"])
async def test_parameters_that_reasoning_models_refuse(
    model: str, profile: str, effort: str | None
) -> None:
    """What OpenAI's reasoning models answer with 400 is left out with a warning."""
    settings = SAMPLING | {"max_completion_tokens": 9, "seed": 1}
    settings |= {"reasoning_effort": effort} if effort else {}
    body, dropped = await sent(model, profile, settings=settings)
    assert dropped == SAMPLING.keys()
    assert not body.keys() & SAMPLING.keys()
    assert body["max_completion_tokens"] == 9
    assert body["seed"] == 1


async def test_sampling_parameters_of_a_model_that_does_not_reason() -> None:
    """They are sent to other models, and to gpt-5+ where reasoning is off."""
    for model, more in [
        ("gpt-4o", {}),
        ("gpt-5-chat-latest", {}),
        ("gpt-5.1", {"reasoning_effort": "none"}),
    ]:
        body, dropped = await sent(model, "openai", settings=SAMPLING | more)
        assert body.keys() >= SAMPLING.keys()
        assert not dropped


async def test_parallel_tool_calls_of_the_o_series() -> None:
    """The o-series refuses parallel_tool_calls, gpt-5 takes it."""
    settings = {"parallel_tool_calls": False}
    for model, dropped in [("o3-mini", {"parallel_tool_calls"}), ("gpt-5", set[str]())]:
        body, left_out = await sent(model, "openai", tools=(TOOL,), settings=settings)
        assert left_out == dropped
        assert ("parallel_tool_calls" in body) is not bool(dropped)


async def test_parameters_that_search_models_refuse() -> None:
    """OpenAI's search previews refuse sampling parameters."""
    settings = {"temperature": 0.5, "top_p": 0.5, "presence_penalty": 1, "stop": "x"}
    body, dropped = await sent("gpt-4o-search-preview", "openai", settings=settings)
    assert dropped == {"temperature", "top_p", "presence_penalty"}
    assert body["stop"] == "x"


async def test_parameters_that_deepseek_refuses_while_thinking() -> None:
    """Log probabilities and sampling parameters are not sent to deepseek-reasoner."""
    settings = {"temperature": 0.5, "logprobs": True, "stop": "x"}
    body, dropped = await sent("deepseek-reasoner", "deepseek", settings=settings)
    assert dropped == {"temperature", "logprobs"}
    assert body["stop"] == "x"
    body, dropped = await sent("deepseek-chat", "deepseek", settings=settings)
    assert body.keys() >= settings.keys()
    assert not dropped


def test_every_variant_still_drops_what_its_server_does_not_know() -> None:
    """A variant's own list of dropped parameters holds the server's."""
    for profile in PROFILES.values():
        for _, changes in profile.variants:
            assert changes.get("drops", profile.drops) >= profile.drops
