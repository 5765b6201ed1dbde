"""Tool calls through one JSON schema: the request, and how its answer is read."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.core.effects import Address
from agentkit.errors import InvalidResponse, InvalidSetting
from agentkit.events import Event, TextDelta, ToolCallDelta
from agentkit.messages import (
    AssistantMessage,
    ForcedTool,
    ImagePart,
    JsonObject,
    Message,
    ModelRequest,
    ModelResponse,
    OutputFormat,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolMessage,
    UserMessage,
)
from agentkit.models.chat.model import ChatModel
from agentkit.models.constrained.rewrite import constrain, release
from agentkit.models.profiles import Profile
from agentkit.testing import ChatServer, reply

AT = Address("/agent/m0")
WEATHER = ToolDefinition(
    name="get_weather",
    description="Current weather in a city.",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
        },
        "required": ["city"],
        "additionalProperties": False,
    },
)
TIME = ToolDefinition(
    name="get_time",
    description="Local time.",
    parameters={"type": "object", "properties": {}, "additionalProperties": False},
)
WARMER = OutputFormat(
    kind="json_schema",
    name="Warmer",
    schema={
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "London"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
QUESTION = UserMessage(content="Which is warmer?")
PARIS = ToolCall(id="c1", name="get_weather", arguments='{"city": "Paris"}')
LONDON = ToolCall(id="c2", name="get_weather", arguments='{"city":"London"}')
CALLED = AssistantMessage(tool_calls=(PARIS, LONDON))
RESULTS = (
    ToolMessage(call_id="c1", name="get_weather", content="21 °C"),
    ToolMessage(call_id="c2", name="get_weather", content="14 °C"),
)


def request_for(
    *messages: Message,
    tools: tuple[ToolDefinition, ...] = (WEATHER, TIME),
    choice: ToolChoice | None = None,
    output: OutputFormat | None = None,
    **settings: Any,
) -> ModelRequest:
    return ModelRequest(
        messages=messages or (QUESTION,),
        tools=tools,
        tool_choice=choice,
        output=output,
        settings=settings,
    )


def answer_with(text: str, **fields: Any) -> ModelResponse:
    return ModelResponse(message=AssistantMessage(content=text), **fields)


def schema_of(request: ModelRequest) -> JsonObject:
    output = constrain(request).output
    assert output is not None
    assert output.schema is not None
    return output.schema


# The request


def test_calls_or_an_answer_are_one_schema() -> None:
    """The schema allows an array of calls of any of the tools, or a text answer."""
    time_call = {
        "type": "object",
        "properties": {
            "tool": {"type": "string", "const": "get_time"},
            "arguments": TIME.parameters,
        },
        "required": ["tool", "arguments"],
        "additionalProperties": False,
    }
    weather_call = {
        "type": "object",
        "properties": {
            "tool": {"type": "string", "const": "get_weather"},
            "arguments": WEATHER.parameters,
        },
        "required": ["tool", "arguments"],
        "additionalProperties": False,
    }
    assert schema_of(request_for()) == {
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "calls": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 8,
                        "items": {"anyOf": [weather_call, time_call]},
                    }
                },
                "required": ["calls"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {"answer": {"type": "string"}},
                "required": ["answer"],
                "additionalProperties": False,
            },
        ]
    }


def test_tools_are_explained_in_the_system_message() -> None:
    """The tools are explained after the system message's own text, and not sent as tools."""
    rewritten = constrain(request_for(SystemMessage(content="Be brief."), QUESTION))
    assert rewritten.messages == (
        SystemMessage(
            content="Be brief.\n\n"
            "Tools:\n"
            '- get_weather(city: string, unit?: "c" | "f"): Current weather in a city.\n'
            "- get_time(): Local time.\n\n"
            'First call the tools you need: {"calls": [{"tool": ..., "arguments": ...}, '
            '{"tool": ..., "arguments": ...}]}\n'
            'Then, with their results, answer: {"answer": ...}'
        ),
        QUESTION,
    )
    assert (rewritten.tools, rewritten.tool_choice) == ((), None)


def test_without_a_system_message_one_is_added() -> None:
    """A system message that explains the tools is added in front."""
    first, second = constrain(request_for()).messages
    assert isinstance(first, SystemMessage)
    assert str(first.content).startswith("Tools:\n- get_weather(")
    assert second == QUESTION


def test_a_system_message_of_parts_keeps_its_parts() -> None:
    """The explanation becomes one more part of a system message of parts."""
    own = TextPart(text="Be brief.")
    content = constrain(request_for(SystemMessage(content=(own,)), QUESTION)).messages[0].content
    assert isinstance(content, tuple)
    assert content[0] == own
    assert len(content) == 2


def test_a_typed_answer_has_the_outputs_schema() -> None:
    """A typed answer has the output's schema, and its form is in the explanation."""
    request = request_for(output=WARMER)
    assert schema_of(request)["anyOf"][1]["properties"] == {"answer": WARMER.schema}
    guide = str(constrain(request).messages[0].content)
    assert guide.endswith('answer: {"answer": {city: "Paris" | "London"}}')


def test_json_object_allows_any_object() -> None:
    """`json_object` allows any object as the answer."""
    schema = schema_of(request_for(output=OutputFormat(kind="json_object")))
    assert schema["anyOf"][1]["properties"] == {"answer": {"type": "object"}}


def test_required_allows_no_answer() -> None:
    """With `required`, neither the schema nor the explanation offers an answer."""
    request = request_for(choice="required")
    assert list(schema_of(request)["properties"]) == ["calls"]
    assert "answer" not in str(constrain(request).messages[0].content)


def test_a_forced_tool_is_the_only_one() -> None:
    """A forced tool is the only one in the schema and in the explanation."""
    request = request_for(choice=ForcedTool(name="get_time"))
    items = schema_of(request)["properties"]["calls"]["items"]
    assert items["properties"]["tool"] == {"type": "string", "const": "get_time"}
    assert "get_weather" not in str(constrain(request).messages[0].content)


def test_forcing_an_unknown_tool_is_refused() -> None:
    """Forcing an unknown tool is refused with the names of the known ones."""
    with pytest.raises(InvalidSetting, match="names 'nope', but the request only has get_weather,"):
        constrain(request_for(choice=ForcedTool(name="nope")))


def test_one_call_at_a_time() -> None:
    """`parallel_tool_calls=False` allows one call."""
    calls = schema_of(request_for(parallel_tool_calls=False))["anyOf"][0]["properties"]["calls"]
    assert calls["maxItems"] == 1


@pytest.mark.parametrize("output", [None, WARMER])
def test_none_requests_only_the_output(output: OutputFormat | None) -> None:
    """With `none` only the output is requested; plain text has no schema."""
    rewritten = constrain(request_for(choice="none", output=output))
    assert rewritten == ModelRequest(messages=(QUESTION,), output=output)


def test_a_request_without_tools_is_unchanged() -> None:
    """A request without tools keeps its messages, output format and settings."""
    request = request_for(SystemMessage(content="Hi"), QUESTION, tools=(), output=WARMER, top_p=0.5)
    assert constrain(request) == request


# References in the schemas of tools


def check(schema: JsonObject, *, fits: list[Any], fails: list[Any]) -> None:
    """Validate with an independent JSON Schema validator."""
    validator = jsonschema_rs.validator_for(schema)
    for one in fits:
        validator.validate(one)
    assert not any(validator.is_valid(one) for one in fails)


def calls_of(tool: str, *arguments: Any) -> JsonObject:
    return {"calls": [{"tool": tool, "arguments": one} for one in arguments]}


def place_tool(name: str, inner: JsonObject, key: str = "$defs") -> ToolDefinition:
    return ToolDefinition(
        name=name,
        description="",
        parameters={
            "type": "object",
            "properties": {"place": {"$ref": f"#/{key}/Place"}},
            "required": ["place"],
            key: {"Place": inner},
        },
    )


def test_definitions_of_one_name_stay_apart() -> None:
    """Two tools and the output may each define their own `Place`."""
    output = OutputFormat(
        kind="json_schema",
        schema={"$ref": "#/$defs/Place", "$defs": {"Place": {"type": "boolean"}}},
    )
    tools = (
        place_tool("by_name", {"type": "string"}),
        place_tool("by_number", {"type": "integer"}, key="definitions"),
    )
    check(
        schema_of(request_for(tools=tools, output=output)),
        fits=[
            calls_of("by_name", {"place": "Oslo"}),
            calls_of("by_number", {"place": 1}),
            {"answer": True},
        ],
        fails=[
            calls_of("by_name", {"place": 1}),
            calls_of("by_number", {"place": "Oslo"}),
            {"answer": "Oslo"},
        ],
    )


def test_recursive_definitions_stay_recursive() -> None:
    """A tree works by its definition and by the root of the schema."""
    node = {"type": "object", "properties": {"kids": {"type": "array"}}, "required": ["kids"]}
    node = node | {"additionalProperties": False}
    by_name = {**node, "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/N"}}}}
    by_root = {**node, "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}}
    tools = (
        ToolDefinition(
            name="named", description="", parameters={"$ref": "#/$defs/N", "$defs": {"N": by_name}}
        ),
        ToolDefinition(name="rooted", description="", parameters=by_root),
    )
    tree = {"kids": [{"kids": []}, {"kids": [{"kids": []}]}]}
    check(
        schema_of(request_for(tools=tools, choice="required")),
        fits=[calls_of("named", tree), calls_of("rooted", tree)],
        fails=[calls_of("named", {"kids": [{}]}), calls_of("rooted", {"kids": [{}]})],
    )


def test_a_reference_into_the_schema_itself() -> None:
    """`#/properties/a` refers to the same place as before."""
    parameters = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/properties/a"}},
        "required": ["a", "b"],
    }
    tool = ToolDefinition(name="add", description="", parameters=parameters)
    check(
        schema_of(request_for(tools=(tool,), choice="required")),
        fits=[calls_of("add", {"a": 1, "b": 2})],
        fails=[calls_of("add", {"a": 1, "b": "2"})],
    )


def test_data_that_looks_like_a_reference_is_left_alone() -> None:
    """A parameter called $ref, and a default that contains one, are left alone."""
    parameters = {
        "type": "object",
        "properties": {"$ref": {"type": "string", "default": {"$ref": "#/$defs/X"}}},
    }
    tool = ToolDefinition(name="t", description="", parameters=parameters)
    items = schema_of(request_for(tools=(tool,), choice="required"))["properties"]["calls"]["items"]
    assert items["properties"]["arguments"] == parameters


# How schemas are shown to the model


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ({"type": "integer"}, "integer"),
        ({"type": ["string", "null"]}, "string | null"),
        ({"const": 3}, "3"),
        ({"type": "array", "items": {"type": "number"}}, "number[]"),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, '("a" | "b")[]'),
        ({"type": "array"}, "any[]"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string | null"),
        ({"type": "object"}, "object"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "{[name]: integer}"),
        ({"properties": {"a": {"type": "string"}}, "required": ["a"]}, "{a: string}"),
        ({"$ref": "#/$defs/Place"}, "{name?: string}"),
        ({"$ref": "#/$defs/Self"}, "any"),
        ({"$ref": "elsewhere.json"}, "any"),
        (True, "any"),
        ({}, "any"),
    ],
)
def test_a_parameters_schema_is_one_line(schema: Any, shown: str) -> None:
    """A parameter's schema is shown in one line, in the style of TypeScript."""
    parameters = {
        "type": "object",
        "properties": {"x": schema},
        "required": ["x"],
        "$defs": {
            "Place": {"type": "object", "properties": {"name": {"type": "string"}}},
            "Self": {"$ref": "#/$defs/Self"},
        },
    }
    tool = ToolDefinition(name="t", description="Does it.", parameters=parameters)
    guide = str(constrain(request_for(tools=(tool,))).messages[0].content)
    assert f"- t(x: {shown}): Does it.\n" in guide


# The history


def test_calls_and_results_go_back_as_text() -> None:
    """Calls go back as the model wrote them, and all results as one user message."""
    rewritten = constrain(request_for(QUESTION, CALLED, *RESULTS, choice="none", output=WARMER))
    assert rewritten.messages == (
        QUESTION,
        AssistantMessage(
            content='{"calls": [{"tool": "get_weather", "arguments": {"city": "Paris"}}, '
            '{"tool": "get_weather", "arguments": {"city": "London"}}]}'
        ),
        UserMessage(
            content='get_weather({"city": "Paris"}) returned: 21 °C\n'
            'get_weather({"city": "London"}) returned: 14 °C'
        ),
    )


def test_the_next_user_message_joins_the_results() -> None:
    """The next user message joins the results, so that the roles alternate."""
    rewritten = constrain(request_for(QUESTION, CALLED, *RESULTS, UserMessage(content="And?")))
    assert len(rewritten.messages) == 4
    assert str(rewritten.messages[3].content).endswith("returned: 14 °C\nAnd?")


def test_images_among_the_results_stay_images() -> None:
    """An image among the results stays a part of the message."""
    image = ImagePart(url="data:image/png;base64,AA==")
    call = AssistantMessage(tool_calls=(PARIS,))
    rewritten = constrain(request_for(QUESTION, call, ToolMessage(call_id="c1", content=(image,))))
    assert rewritten.messages[3].content == (
        TextPart(text='get_weather({"city": "Paris"}) returned: '),
        image,
    )


def test_text_beside_calls_is_kept() -> None:
    """Text beside calls, as from another model, is kept."""
    message = AssistantMessage(content="Let me look.", tool_calls=(PARIS,))
    rewritten = constrain(request_for(QUESTION, message, RESULTS[0]))
    assert rewritten.messages[2].content == (
        'Let me look.\n{"calls": [{"tool": "get_weather", "arguments": {"city": "Paris"}}]}'
    )


@pytest.mark.parametrize(("raw", "shown"), [('{"city"', '"{\\"city\\""'), ("", "{}")])
def test_arguments_that_are_not_json(raw: str, shown: str) -> None:
    """Arguments that are not JSON are shown as text; empty ones are an empty object."""
    message = AssistantMessage(tool_calls=(ToolCall(id="c1", name="get_time", arguments=raw),))
    rewritten = constrain(request_for(QUESTION, message, RESULTS[0]))
    assert rewritten.messages[2].content == (
        f'{{"calls": [{{"tool": "get_time", "arguments": {shown}}}]}}'
    )


def test_results_without_their_calls() -> None:
    """A shortened history still shows what the tools returned."""
    rewritten = constrain(request_for(RESULTS[0]))
    assert rewritten.messages[1:] == (UserMessage(content="get_weather() returned: 21 °C"),)


def test_old_messages_are_rewritten_once() -> None:
    """The next step and the next run get the very same objects."""
    system = SystemMessage(content="Be brief.")
    first = constrain(request_for(system, QUESTION, CALLED, *RESULTS))
    more = AssistantMessage(content="Paris.")
    second = constrain(request_for(system, QUESTION, CALLED, *RESULTS, more, QUESTION))
    for before, after in zip(first.messages, second.messages, strict=False):
        assert before is after
    assert first.output is second.output


def test_changed_results_are_rewritten() -> None:
    """Other results of the same calls, as after a fork, are rewritten again."""
    constrain(request_for(QUESTION, CALLED, *RESULTS))
    other = ToolMessage(call_id="c2", name="get_weather", content="30 °C")
    rewritten = constrain(request_for(QUESTION, CALLED, RESULTS[0], other))
    assert str(rewritten.messages[3].content).endswith("30 °C")


def test_changed_outputs_are_rewritten() -> None:
    """The schema kept for a set of tools depends on the tool choice and the output."""
    assert len(schema_of(request_for())["anyOf"]) == 2
    assert "anyOf" not in schema_of(request_for(choice="required"))
    assert schema_of(request_for(output=WARMER))["anyOf"][1]["properties"] == {
        "answer": WARMER.schema
    }


# The history before a text answer

KNOWN = UserMessage(
    content='`get_weather(city="Paris")` returned: 21 °C\n'
    '`get_weather(city="London")` returned: 14 °C\n\n'
    "Which is warmer?"
)


@pytest.mark.parametrize("fields", [{"choice": "none"}, {"tools": ()}], ids=["none", "no tools"])
def test_for_text_the_results_precede_the_question(fields: Any) -> None:
    """For a text answer no calls are shown, since a small model would copy their form."""
    rewritten = constrain(
        request_for(SystemMessage(content="Hi"), QUESTION, CALLED, *RESULTS, **fields)
    )
    assert rewritten.messages == (SystemMessage(content="Hi"), KNOWN)


def test_for_text_all_steps_of_a_turn_are_one_message() -> None:
    """For a text answer all steps of a turn are one message, and the roles alternate."""
    time = ToolCall(id="c3", name="get_time", arguments="")
    more = AssistantMessage(content="Let me look.", tool_calls=(time,))
    noon = ToolMessage(call_id="c3", content="12:00")
    first = (QUESTION, AssistantMessage(tool_calls=(PARIS,)), RESULTS[0], more, noon)
    answer = AssistantMessage(content="Paris.")
    rewritten = constrain(
        request_for(*first, UserMessage(content="Now?"), answer, QUESTION, choice="none")
    )
    assert rewritten.messages == (
        UserMessage(
            content='`get_weather(city="Paris")` returned: 21 °C\n'
            "Let me look.\n"
            "`get_time()` returned: 12:00\n\n"
            "Which is warmer?\n"
            "Now?"
        ),
        answer,
        QUESTION,
    )


def test_for_text_arguments_that_are_not_json() -> None:
    """For a text answer, arguments that are not JSON are shown as quoted text."""
    call = AssistantMessage(tool_calls=(ToolCall(id="c1", name="get_time", arguments='{"a'),))
    rewritten = constrain(request_for(QUESTION, call, RESULTS[0], choice="none"))
    assert rewritten.messages[0].text.startswith('`get_weather("{\\"a")` returned: 21 °C')


def test_for_text_images_stay_images() -> None:
    """For a text answer, images of results and of the question stay images."""
    image = ImagePart(url="data:image/png;base64,AA==")
    shown = ToolMessage(call_id="c1", name="get_weather", content=(image,))
    question = UserMessage(content=(image, TextPart(text="Which?")))
    call = AssistantMessage(tool_calls=(PARIS,))
    (message,) = constrain(request_for(question, call, shown, choice="none")).messages
    assert [part for part in message.content or () if part == image] == [image, image]


def test_for_text_a_turn_is_rewritten_once() -> None:
    """For a text answer a turn is rewritten once, and again when a result changes."""
    turn = (QUESTION, CALLED, *RESULTS)
    first = constrain(request_for(*turn, choice="none")).messages[0]
    answered = (*turn, AssistantMessage(content="Paris."), QUESTION)
    assert constrain(request_for(*answered, choice="none")).messages[0] is first
    other = ToolMessage(call_id="c2", name="get_weather", content="30 °C")
    changed = constrain(request_for(QUESTION, CALLED, RESULTS[0], other, choice="none")).messages[0]
    assert "30 °C" in changed.text


# The answer


def test_calls_become_tool_calls() -> None:
    """Calls become tool calls with ids, without content, and with their finish reason."""
    text = '{"calls": [{"tool": "get_weather", "arguments": {"city": "Zürich"}}]}'
    response = release(request_for(), answer_with(text, id="r1"), at=AT)
    (call,) = response.message.tool_calls
    assert (call.name, call.arguments) == ("get_weather", '{"city": "Zürich"}')
    assert response.message.content is None
    assert (response.finish, response.id) == ("tool_calls", "r1")


def test_ids_are_deterministic_and_unique() -> None:
    """Ids derive from the address and the index, and skip those of the conversation."""
    text = json.dumps(calls_of("get_time", {}, {}))
    first, second = release(request_for(), answer_with(text), at=AT).message.tool_calls
    assert release(request_for(), answer_with(text), at=AT).message.tool_calls == (first, second)
    assert first.id != second.id
    history = AssistantMessage(tool_calls=(first,))
    result = ToolMessage(call_id=first.id, content="12:00")
    again = release(request_for(QUESTION, history, result, QUESTION), answer_with(text), at=AT)
    assert len({first.id} | {call.id for call in again.message.tool_calls}) == 3


def test_an_answer_becomes_the_content() -> None:
    """A text answer becomes the content."""
    response = release(request_for(), answer_with('{"answer": "Paris \\"la\\" belle"}'), at=AT)
    assert response.message == AssistantMessage(content='Paris "la" belle')
    assert response.finish == "stop"


def test_a_typed_answer_becomes_its_json() -> None:
    """A typed answer becomes its JSON, as with native output."""
    response = release(
        request_for(output=WARMER), answer_with('{"answer": {"city": "Paris"}}'), at=AT
    )
    assert response.message.content == '{"city": "Paris"}'


@pytest.mark.parametrize(
    "response",
    [
        answer_with('{"calls": [{"tool": "get_w', finish="length"),
        answer_with('{"answer": "I can', finish="content_filter"),
        answer_with(""),
        ModelResponse(message=AssistantMessage(content="No.", refusal="No.")),
        ModelResponse(message=CALLED, finish="tool_calls"),
    ],
    ids=["cut off", "filtered", "empty", "refused", "native calls"],
)
def test_an_incomplete_answer_is_left_alone(response: ModelResponse) -> None:
    """An answer that is not complete is returned unchanged, for the loop to handle."""
    assert release(request_for(), response, at=AT) is response


@pytest.mark.parametrize(
    "request_",
    [request_for(choice="none"), request_for(QUESTION, CALLED, *RESULTS, tools=())],
    ids=["none", "no tools any more"],
)
@pytest.mark.parametrize("text", ['{"calls": []}', json.dumps(calls_of("get_time", {}))])
def test_calls_in_place_of_a_text_answer_are_dropped(request_: ModelRequest, text: str) -> None:
    """Calls in place of a text answer leave the content empty, so that the loop asks again."""
    response = release(request_, answer_with(text), at=AT)
    assert response.message == AssistantMessage()
    assert response.finish == "stop"


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (request_for(tools=()), json.dumps(calls_of("get_time", {}))),
        (request_for(choice="none", output=WARMER), '{"calls": []}'),
        (request_for(choice="none"), '{"calls": [1]}'),
        (request_for(choice="none"), '{"calls": [], "answer": 1}'),
        (request_for(choice="none"), 'I wrote {"calls": []}.'),
    ],
    ids=["never had tools", "typed", "not calls", "more than calls", "among text"],
)
def test_an_answer_that_resembles_calls_is_left_alone(request_: ModelRequest, text: str) -> None:
    """An answer is unchanged even if it resembles calls a little."""
    response = answer_with(text)
    assert release(request_, response, at=AT) is response


@pytest.mark.parametrize(
    "text", ["It is Paris.", "[]", '{"calls": []}', '{"calls": [{"arguments": {}}]}', "{}"]
)
def test_an_answer_outside_the_schema_is_an_error(text: str) -> None:
    """An answer outside the schema is an error that states what the server must enforce."""
    with pytest.raises(InvalidResponse, match="need a server that enforces response_format"):
        release(request_for(), answer_with(text), at=AT)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
lists_of_calls = st.lists(
    st.tuples(
        st.sampled_from(["get_weather", "get_time"]), st.dictionaries(st.text(), json_values)
    ),
    min_size=1,
    max_size=8,
)


@given(lists_of_calls)
def test_calls_survive_a_round_trip(
    written_calls: list[tuple[str, JsonObject]],
) -> None:
    """Written calls are read as those calls: release(constrain(calls)) == calls."""
    calls = tuple(
        ToolCall(id=str(i), name=name, arguments=json.dumps(arguments))
        for i, (name, arguments) in enumerate(written_calls)
    )
    written = constrain(request_for(AssistantMessage(tool_calls=calls))).messages[1]
    assert isinstance(written, AssistantMessage)
    read = release(request_for(), answer_with(written.text), at=AT).message.tool_calls
    assert [(call.name, json.loads(call.arguments)) for call in read] == written_calls


# Through a server


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_through_a_chat_model(stream: bool) -> None:
    """A chat model sends a response_format without tools, and returns tool calls."""
    text = '{"calls": [{"tool": "get_time", "arguments": {}}]}'
    events: list[Event] = []
    with ChatServer([reply(text)]) as server:
        profile = Profile(name="small", tool_calling="constrained")
        async with ChatModel("m", base_url=server.base_url, api_key="k", profile=profile) as model:
            response = await model.request(request_for(), at=AT, emit=events.append, stream=stream)
    (sent,) = [one.json for one in server.requests]
    assert "tools" not in sent
    assert sent["response_format"]["type"] == "json_schema"
    assert [(call.name, call.arguments) for call in response.message.tool_calls] == [
        ("get_time", "{}")
    ]
    deltas = [one for one in events if isinstance(one, (TextDelta, ToolCallDelta))]
    assert deltas == (
        [ToolCallDelta(at=AT.call(0), name="get_time", arguments="{}")] if stream else []
    )
