"""Two runs compared: the first cause is named, what follows is told apart, times do not count."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit import Agent, ChatSettings, Decision, Handoff, Limits, RunContext, ToolError, Trace
from agentkit import tool as as_tool
from agentkit.errors import AgentKitError, TraceCorrupt, TraceError, TraceUnsupported
from agentkit.messages import AssistantMessage, ModelRequest, ModelResponse, ToolCall, Usage
from agentkit.replay import Difference, TraceDiff, diff
from agentkit.testing import FunctionModel, ScriptedModel

ASK = [("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"})]
WEATHER = {"Paris": "rain in Paris", "Rome": "sun in Rome"}


def traced(
    *answers: Any,
    weather: dict[str, str] = WEATHER,
    prompt: str = "Umbrella?",
    run: dict[str, Any] | None = None,
    **options: Any,
) -> Trace:
    """The trace of a run of an agent with one tool."""

    def get_weather(city: str) -> str:
        """Current weather."""
        if city not in weather:
            raise ToolError(f"No {city}.")
        return weather[city]

    model = ScriptedModel(list(answers or (ASK, "Take one.")))
    agent = Agent(model, **({"tools": [get_weather], "instructions": "Be brief."} | options))
    try:
        result: Any = agent.run_sync(prompt, **(run or {}))
    except AgentKitError as error:
        result = error
    assert result.trace is not None
    return result.trace


def causes(found: TraceDiff) -> list[tuple[str, str, str]]:
    """Address, kind and pointer of what no earlier difference explains."""
    return [(one.at, one.kind, one.pointer) for one in found.causes]


def following(found: TraceDiff) -> list[tuple[str, str]]:
    """Address and kind of the consequences."""
    return [(one.at, one.kind) for one in found.differences if one.follows]


def cut(trace: Trace, path: Path, event: str, at: str) -> Trace:
    """The trace as a crash leaves it right after an event."""
    lines = []
    for line in trace.save(path.with_suffix(".whole")).read_bytes().splitlines(keepends=True):
        lines.append(line)
        data = json.loads(line)
        if (data["event"], data.get("at")) == (event, at):
            break
    path.write_bytes(b"".join(lines))
    return Trace.load(path)


def test_repeated_run_is_the_same() -> None:
    """Two runs of one agent differ in times and ids alone."""
    found = diff(traced(), traced())
    assert found.same
    assert found.first is None
    assert found.a.run != found.b.run
    assert "The runs are the same." in found.text()


def test_paths_are_taken(tmp_path: Path) -> None:
    """A path stands for its trace."""
    path = traced().save(tmp_path / "run.jsonl")
    assert diff(path, str(path)).same


def test_files_that_are_no_traces(tmp_path: Path) -> None:
    """What cannot be read is said, for either side."""
    good = traced()
    with pytest.raises(TraceError, match="missing"):
        diff(good, tmp_path / "missing.jsonl")
    (tmp_path / "text").write_text("hello\n")
    with pytest.raises(TraceUnsupported):
        diff(tmp_path / "text", good)


def test_ids_of_servers_do_not_count() -> None:
    """Live servers give each call and each response an id of their own."""

    def answer(request: ModelRequest) -> ModelResponse:
        ident = f"{random.random()}"
        called = isinstance(request.messages[-1], AssistantMessage) or len(request.messages) > 2
        message = (
            AssistantMessage(content="Done.")
            if called
            else AssistantMessage(
                tool_calls=(ToolCall(id=ident, name="get_weather", arguments='{"city":"Rome"}'),)
            )
        )
        finish = "stop" if called else "tool_calls"
        return ModelResponse(message=message, finish=finish, usage=Usage(requests=1), id=ident)

    def get_weather(city: str) -> str:
        return "sun"

    agent = Agent(FunctionModel(answer), tools=[get_weather], instructions="Be brief.")
    one, other = agent.run_sync("go").trace, agent.run_sync("go").trace
    assert one is not None
    assert other is not None
    assert diff(one, other).same


def test_changed_tool_result_is_the_first_cause() -> None:
    """The result is the cause; the next request and whatever comes of it follow."""
    other = traced(ASK, "Take none.", weather=WEATHER | {"Rome": "snow in Rome"})
    found = diff(traced(), other)
    assert found.first == Difference(
        at="/agent/m0/t1",
        kind="result",
        pointer="/message/content",
        a="sun in Rome",
        b="snow in Rome",
        position=1,
    )
    assert len(found.causes) == 1
    assert following(found) == [
        ("/agent/m1", "messages"),
        ("/agent/m1", "response"),
        ("/agent", "output"),
    ]


def test_independent_causes_are_told_apart() -> None:
    """Two tools that answer otherwise are two causes: neither explains the other."""
    other = traced(weather={"Paris": "fog", "Rome": "snow"})
    assert causes(diff(traced(), other)) == [
        ("/agent/m0/t0", "result", "/message/content"),
        ("/agent/m0/t1", "result", "/message/content"),
    ]


def test_other_answer_to_the_same_question_is_a_cause() -> None:
    """A model that calls with other arguments is named, down to the argument."""
    other = traced([ASK[0], ("get_weather", {"city": "Oslo"})], "Take one.")
    found = diff(traced(), other)
    pointer = "/message/tool_calls/1/function/arguments/city"
    assert causes(found) == [("/agent/m0", "response", pointer)]
    assert following(found) == [
        ("/agent/m0/t1", "call"),
        ("/agent/m0/t1", "result"),
        ("/agent/m1", "messages"),
    ]
    assert found.first is not None
    assert (found.first.a, found.first.b) == ("Rome", "Oslo")


def test_arguments_are_compared_as_json() -> None:
    """White space and the order of keys are not another call; broken JSON is compared as text."""
    spaced = [("get_weather", '{ "city": "Paris" }'), ASK[1]]
    assert diff(traced(), traced(spaced, "Take one.")).same
    broken = [("get_weather", '{"city": NaN'), ASK[1]]
    assert diff(traced(broken, "x"), traced(broken, "x")).same
    assert causes(diff(traced(), traced(broken, "Take one."))) == [
        ("/agent/m0", "response", "/message/tool_calls/0/function/arguments")
    ]


def test_numbers_that_are_none_equal_themselves() -> None:
    """NaN in arguments does not make a run differ from itself."""
    odd = [("get_weather", '{"city": NaN}'), ASK[1]]
    assert diff(traced(odd, "x"), traced(odd, "x")).same


def test_changed_instructions() -> None:
    """Changed once, they are in every request; they are said once."""
    found = diff(traced(), traced(instructions="Be polite."))
    assert causes(found) == [("/agent/m0", "messages", "/messages/0/content")]
    assert following(found) == [("/agent/m1", "messages")]
    assert found.a.program != found.b.program
    assert "The agents are not the same" in found.text()


def test_changed_prompt() -> None:
    """The prompt belongs to the agent's input, and the requests follow."""
    found = diff(traced(), traced(prompt="Sunglasses?"))
    assert causes(found) == [("/agent", "input", "/input/messages/0/content")]


def test_changed_settings_tools_and_model() -> None:
    """What else a request holds: each change is one cause, in all requests together."""

    def get_weather(city: str) -> str:
        """Weather now."""
        return WEATHER[city]

    other = traced(tools=[get_weather], settings=ChatSettings(temperature=0.5))
    assert causes(diff(traced(), other)) == [
        ("/agent/m0", "tools", "/tools/0/function/description"),
        ("/agent/m0", "params", "/params/temperature"),
    ]
    model = ScriptedModel([ASK, "Take one."], name="another")
    other = Agent(model, tools=[get_weather]).run_sync("Umbrella?").trace
    same = Agent(ScriptedModel([ASK, "Take one."]), tools=[get_weather]).run_sync("Umbrella?").trace
    assert other is not None
    assert same is not None
    found = diff(same, other)
    assert causes(found) == [("/agent/m0", "model", "/model")]
    assert found.first is not None
    assert (found.first.a, found.first.b) == ("scripted", "another")


def test_settings_of_one_run() -> None:
    """What a run was given over its agent's settings is part of its input."""
    found = diff(traced(), traced(run={"settings": ChatSettings(seed=7)}))
    assert causes(found)[0] == ("/agent", "input", "/options/settings")


def test_longer_run_has_steps_of_its_own() -> None:
    """Steps and calls that one run alone has are named, without what is inside."""
    longer = traced(ASK, [("get_weather", {"city": "Rome"})], "Take one.")
    found = diff(traced(), longer)
    assert causes(found) == [("/agent/m1", "response", "/message/content")]
    assert following(found) == [("/agent/m1/t0", "only_b"), ("/agent/m2", "only_b")]
    assert found.differences[1].b == {"tool": "get_weather", "arguments": '{"city":"Rome"}'}
    assert found.differences[1].a == "(absent)"


def test_interrupted_run_is_compared_as_far_as_it_goes(tmp_path: Path) -> None:
    """What a crash left out is a difference, and nothing before it is."""
    whole = traced()
    begun = cut(whole, tmp_path / "begun.jsonl", "tool.start", "/agent/m0/t1")
    found = diff(whole, begun)
    assert found.b.status == "interrupted"
    assert found.first is not None
    assert (found.first.kind, found.first.pointer) == ("result", "/status")
    assert (found.first.a, found.first.b) == ("ok", "interrupted")
    ended = cut(whole, tmp_path / "ended.jsonl", "model.end", "/agent/m0")
    assert causes(diff(whole, ended)) == [
        ("/agent/m0/t0", "only_a", ""),
        ("/agent/m0/t1", "only_a", ""),
    ]
    assert diff(ended, ended).same


def test_every_cut_is_compared(tmp_path: Path) -> None:
    """Wherever a crash cut the trace off, it compares, and the first difference is a cause."""
    whole = nested("gold", now=True)
    lines = whole.save(tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    for count in range(1, len(lines)):
        part = tmp_path / f"{count}.jsonl"
        part.write_bytes(b"".join(lines[:count]) + lines[count][:-3])
        found = diff(part, whole)
        assert found.same == (count >= len(lines) - 1)
        assert found.first is None or not found.first.follows


def test_damaged_events_are_corruption(tmp_path: Path) -> None:
    """A line that is JSON and yet no event of its kind is said, not a crash."""
    path = tmp_path / "odd.jsonl"
    path.write_bytes(
        line("trace.open", 0, 0, **HEADER) + line("det", 1, 0, at="/agent/m0/t0", value=1)
    )
    with pytest.raises(TraceCorrupt, match="'kind'"):
        diff(path, traced())


def test_decisions() -> None:
    """A person who decides otherwise is a cause; the call that then does not run follows."""

    @as_tool(approval=True)
    def remove(path: str) -> str:
        return f"removed {path}"

    def decided(decision: Decision) -> Trace:
        model = ScriptedModel([[("remove", {"path": "/tmp"})], "Done."])
        result = Agent(model, tools=[remove]).run_sync("go", approver=lambda pending: decision)
        assert result.trace is not None
        return result.trace

    yes, no = decided(Decision.approve(by="ada")), decided(Decision.deny("Never."))
    assert diff(yes, decided(Decision.approve(by="grace"))).same
    found = diff(yes, no)
    assert causes(found) == [("/agent/m0/t0", "decision", "/decision")]
    assert following(found) == [("/agent/m0/t0", "only_a"), ("/agent/m1", "messages")]


def test_calls_that_no_tool_ran_are_compared() -> None:
    """Why a call was skipped counts, and what the model read about it."""

    @as_tool(approval=True)
    def remove(path: str) -> str:
        return f"removed {path}"

    def denied(reason: str) -> Trace:
        model = ScriptedModel([[("remove", {"path": "/tmp"})], "Done."])
        deny = Decision.deny(reason)
        trace = Agent(model, tools=[remove]).run_sync("go", approver=lambda _: deny).trace
        assert trace is not None
        return trace

    found = diff(denied("Never."), denied("Not now."))
    assert causes(found) == [("/agent/m0/t0", "decision", "/reason")]
    assert following(found) == [("/agent/m0/t0", "result"), ("/agent/m1", "messages")]
    found = diff(traced(), traced(limits=Limits(tool_calls=1)))
    assert causes(found)[0] == ("/agent/m0/t0", "only_a", "")
    assert found.first is not None
    assert found.first.b["skipped"] == "limit"


def test_computed_instructions() -> None:
    """A function that gave another value is a cause; the request that holds it follows."""
    found = diff(
        traced(instructions=lambda: "It is Monday."), traced(instructions=lambda: "It is Tuesday.")
    )
    assert causes(found) == [("/agent/instructions", "value", "/value")]
    assert found.first is not None
    assert found.first.position == len("It is ")


def test_dynamic_toolsets_stand_before_the_request() -> None:
    """Settings that a function gave for a step are the cause of the request's."""
    one = traced(step_settings=lambda context: ChatSettings(seed=1))
    other = traced(step_settings=lambda context: ChatSettings(seed=2))
    found = diff(one, other)
    assert found.first is not None
    assert (found.first.at, found.first.kind) == ("/agent/m0/settings", "value")
    assert ("/agent/m0", "params") in following(found)


def nested(answer: str, *, now: bool = False) -> Trace:
    """A run whose tool asks another agent."""
    inner = Agent(ScriptedModel([answer]), name="research")

    async def look(context: RunContext[None]) -> str:
        found = (await context.run(inner, "Look.")).output
        return f"{found} at {context.now()}" if now else found

    model = ScriptedModel([[("look", {})], "Done."])
    result = Agent(model, tools=[look]).run_sync("go")
    assert result.trace is not None
    return result.trace


def test_cause_inside_a_sub_agent() -> None:
    """What happened inside a tool stands before the tool's result."""
    found = diff(nested("gold"), nested("coal"))
    assert causes(found) == [("/agent/m0/t0/research/m0", "response", "/message/content")]
    assert following(found) == [
        ("/agent/m0/t0/research", "output"),
        ("/agent/m0/t0", "result"),
        ("/agent/m1", "messages"),
    ]


def test_a_given_result_is_the_cause_of_what_its_tool_did_not_do() -> None:
    """In a fork whose patch answers a call, no agent works in the call."""
    inner = Agent(ScriptedModel(["gold", "gold"]), name="research")

    async def look(context: RunContext[None]) -> str:
        return (await context.run(inner, "Look.")).output

    agent = Agent(ScriptedModel([[("look", {})], "Done.", "Done."]), tools=[look])
    trace = agent.run_sync("go").trace
    assert trace is not None
    forked = anyio.run(lambda: agent.fork(trace, at="/agent/m0/t0", result="coal")).trace
    assert forked is not None
    found = diff(trace, forked)
    assert causes(found) == [("/agent/m0/t0", "result", "/message/content")]
    assert following(found)[0] == ("/agent/m0/t0/research", "only_a")


def test_times_that_were_not_recorded_are_no_difference() -> None:
    """Of values that only one trace has nothing is known."""

    def look(context: RunContext[None]) -> str:
        return f"{context.now()}"

    def seen(capture: Any) -> Trace:
        model = ScriptedModel([[("look", {})], "Done."])
        trace = Agent(model, tools=[look]).run_sync("go", capture=capture).trace
        assert trace is not None
        return trace

    assert "det" not in {one.kind for one in diff(seen("metadata"), seen("full")).differences}


def test_times_and_random_numbers_count_only_where_results_differ() -> None:
    """Another clock is no other behaviour, until it is in what the model reads."""

    def drawn(shown: bool) -> Trace:
        def draw(context: RunContext[None]) -> str:
            value = context.random()
            return str(value) if shown else "drawn"

        result = Agent(ScriptedModel([[("draw", {})], "Done."]), tools=[draw]).run_sync("go")
        assert result.trace is not None
        return result.trace

    assert diff(drawn(shown=False), drawn(shown=False)).same
    found = diff(drawn(shown=True), drawn(shown=True))
    assert causes(found) == [("/agent/m0/t0", "det", "/random/0")]
    assert following(found)[0] == ("/agent/m0/t0", "result")


def test_handoffs() -> None:
    """An agent that took over is compared under the call that handed over."""

    def handed(answer: str) -> Trace:
        writer = Agent(ScriptedModel([answer]), name="writer")
        model = ScriptedModel([[("transfer_to_writer", {})]])
        result = Agent(model, tools=[Handoff(writer)]).run_sync("go")
        assert result.trace is not None
        return result.trace

    found = diff(handed("A poem."), handed("A novel."))
    assert causes(found) == [("/agent/m0/t0/writer/m0", "response", "/message/content")]
    assert following(found) == [("/agent/m0/t0/writer", "output"), ("/agent", "output")]


def test_errors_are_compared_without_tracebacks() -> None:
    """The same error from another line is the same; another error is not."""

    def failing(text: str) -> Trace:
        def fail() -> str:
            raise ValueError(text)

        result = Agent(ScriptedModel([[("fail", {})], "Done."]), tools=[fail]).run_sync("go")
        assert result.trace is not None
        return result.trace

    def failing_elsewhere() -> Trace:
        return (lambda: failing("broken"))()

    assert diff(failing("broken"), failing_elsewhere()).same
    found = diff(failing("broken"), failing("burnt"))
    assert causes(found) == [("/agent/m0/t0", "result", "/error/message")]
    assert found.causes[0].more == 1


def test_limits_that_end_one_run() -> None:
    """A run that was ended at a limit lacks the steps after it."""
    found = diff(traced(), traced(limits=Limits(steps=1)))
    assert causes(found) == [("/agent/m1", "only_a", "")]
    assert following(found) == [("/agent", "output")]


def test_secrets_under_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has other placeholders for the same secret; they do not differ."""
    secret = "sk-abcdefghijklmnopqrstuvwxyz123456"
    monkeypatch.setenv("AGENTKIT_REDACTION_KEY", "one")
    one = traced(instructions=f"Use {secret}.")
    monkeypatch.setenv("AGENTKIT_REDACTION_KEY", "two")
    assert diff(one, traced(instructions=f"Use {secret}.")).same
    assert not diff(one, traced(instructions=f"Use {secret}!")).same


HEADER = {"schema": "agentkit.trace/1", "run": "a" * 32, "wall": "then", "program": "b2:p"}


def line(event: str, seq: int, t: int, **fields: Any) -> bytes:
    return json.dumps({"event": event, "seq": seq, "t": t, **fields}).encode() + b"\n"


def written(folder: Path, *, slow: int = 0, content: str = "b2:c", capture: str = "full") -> Trace:
    """A trace written by hand: one step with one call, without contents."""
    usage = {"requests": 1, "input_tokens": 100 + slow, "output_tokens": 7, "cost": 0.25}
    start = {"model": "m", "since": None, "messages": ["b2:m"], "tools": "b2:t", "fp": "b2:f"}
    call = {"tool": "look", "call": "c", "arguments": "{}", "effect": "read", "fp": "b2:g"}
    end = {"status": "ok", "message": content, "finish": "stop", "usage": usage}
    path = folder / f"{slow}{content[3:]}{capture}.jsonl"
    path.write_bytes(
        line("trace.open", 0, 0, **HEADER, capture=capture)
        + line("agent.start", 1, 10, at="/agent", agent="agent", input="b2:i")
        + line("model.start", 2, 1_000, at="/agent/m0", params={}, **start)
        + line("model.end", 3, 501_000 + slow, at="/agent/m0", **end)
        + line("tool.start", 4, 600_000, at="/agent/m0/t0", **call)
        + line("tool.end", 5, 700_000, at="/agent/m0/t0", status="ok", message="b2:r")
        + line("agent.end", 6, 2_000_000 + slow, at="/agent", status="ok", usage=usage)
        + line("trace.close", 7, 2_000_000 + slow, status="ok", lines=8)
    )
    return Trace.load(path)


def test_measures(tmp_path: Path) -> None:
    """Tokens, money and times are there for each address and in all, and are no differences."""
    found = diff(written(tmp_path), written(tmp_path, slow=250_000))
    assert found.same
    assert (found.a.totals.steps, found.a.totals.tool_calls) == (1, 1)
    assert (found.a.totals.input_tokens, found.b.totals.input_tokens) == (100, 250_100)
    assert (found.a.totals.output_tokens, found.a.totals.cost) == (7, 0.25)
    assert (found.a.totals.seconds, found.b.totals.seconds) == (2.0, 2.25)
    assert [place.at for place in found.places] == ["/agent", "/agent/m0", "/agent/m0/t0"]
    step = found.places[1]
    assert step.name == "m"
    assert step.a is not None
    assert step.b is not None
    assert (step.a.seconds, step.b.seconds) == (0.5, 0.75)
    assert "/agent/m0  m  +0.250 s" in found.text()


def test_traces_without_contents(tmp_path: Path) -> None:
    """Where contents were not recorded, their hashes are compared."""
    one = written(tmp_path, capture="metadata")
    found = diff(one, written(tmp_path, content="b2:d", capture="metadata"))
    assert causes(found) == [("/agent/m0", "response", "/message")]
    assert found.first is not None
    assert (found.first.a, found.first.b) == ("b2:c", "b2:d")
    assert "recorded: metadata" in found.text()


def test_runs_recorded_without_contents() -> None:
    """Hashes say that something differs, and where; what was not recorded is no difference."""
    snow = WEATHER | {"Rome": "snow in Rome"}
    for capture in ("metadata", "none"):
        one, same = traced(run={"capture": capture}), traced(run={"capture": capture})
        assert diff(one, same).same
        assert diff(one, traced()).same
        assert diff(traced(), one).same
    other = diff(
        traced(run={"capture": "metadata"}), traced(weather=snow, run={"capture": "metadata"})
    )
    assert causes(other) == [("/agent/m0/t1", "result", "/message")]
    moved = [ASK[0], ("get_weather", {"city": "Oslo"})]
    other = diff(
        traced(run={"capture": "metadata"}), traced(moved, "Take one.", run={"capture": "metadata"})
    )
    assert causes(other) == [("/agent/m0", "response", "/message")]
    assert ("/agent/m0/t1", "call") in following(other)


def test_missing_contents_of_a_full_trace_are_corruption(tmp_path: Path) -> None:
    """A full trace that lacks what it refers to is not compared by guessing."""
    with pytest.raises(TraceCorrupt, match="b2:"):
        diff(written(tmp_path), written(tmp_path, content="b2:d"))


def test_text_shows_one_cause_in_full() -> None:
    """The first cause in full, the others in a line each, and what follows by address."""
    long = "x" * 500
    one = traced(weather={"Paris": f"{long}rain{long}", "Rome": "sun"})
    other = traced(weather={"Paris": f"{long}snow{long}", "Rome": "fog"})
    lines = diff(one, other).text().splitlines()
    begin = lines.index("First cause, at /agent/m0/t0 (get_weather): result")
    assert lines[begin + 1] == "  /message/content, character 500"
    assert lines[begin + 2] == f"    a: …'{'x' * 40}rain{'x' * 36}'… (1004 characters)"
    assert lines[begin + 3] == f"    b: …'{'x' * 40}snow{'x' * 36}'… (1004 characters)"
    assert "  /agent/m0/t1  result: /message/content 'sun' → 'fog'" in lines
    assert lines[lines.index("Follows (1):") + 1] == "  /agent/m1  messages"


def test_text_is_harmless() -> None:
    """Nothing that a terminal obeys comes through, and no value can forge a line."""
    evil = "\x1b[2J\u202e\nThe runs are the same."
    found = diff(traced(ASK, "Fine."), traced([("\x1b]0;x", {}), ASK[1]], evil))
    text = found.text()
    assert "The runs are the same." not in text.splitlines()
    assert all(char.isprintable() or char == "\n" for char in text)


def test_json_form() -> None:
    """Everything is in the JSON form."""
    found = diff(traced(), traced(instructions="Be polite."))
    data = json.loads(json.dumps(found.to_json()))
    assert data["same"] is False
    assert data["differences"][0] == {
        "at": "/agent/m0",
        "kind": "messages",
        "pointer": "/messages/0/content",
        "a": "Be brief.",
        "b": "Be polite.",
        "position": 3,
        "more": 0,
        "follows": False,
    }
    assert data["a"]["totals"]["steps"] == 2
    assert [place["at"] for place in data["places"]][:2] == ["/agent", "/agent/m0"]


def test_long_lists_are_cut() -> None:
    """Hundreds of consequences are counted, not dumped."""
    calls = [[("get_weather", {"city": f"{index}"})] for index in range(60)]
    found = diff(traced(*calls, "x"), traced(*calls, "x", weather=WEATHER | {"0": "hot"}))
    assert len(found.causes) == 1
    assert "  and 37 more" in found.text().splitlines()


# Laws


@as_tool(effect="read")
async def act(how: str, delay: int = 0) -> str:
    """Do something, after a while."""
    for _ in range(delay):
        await anyio.lowlevel.checkpoint()
    if how == "tell":
        raise ToolError("Try otherwise.")
    if how == "fail":
        raise ValueError("broken")
    return how


CALL = st.tuples(
    st.sampled_from(["act", "ask", "unknown"]),
    st.fixed_dictionaries({"how": st.sampled_from(["ok", "tell", "fail", ""])}),
)
SCRIPT = st.lists(st.lists(CALL, min_size=1, max_size=3), max_size=3)


async def random_run(script: list[Any], delays: list[int]) -> Trace:
    """Run a script; `delays` decide in what order parallel calls end, and nothing else."""
    waits = iter(delays)

    @as_tool
    async def ask(context: RunContext[None], how: str) -> str:
        """Ask an agent."""
        for _ in range(next(waits, 0)):
            await anyio.lowlevel.checkpoint()
        inner = Agent(ScriptedModel([[("act", {"how": how})], how or "-"]), tools=[act])
        return (await context.run(inner.with_(name="inner"), how or "-")).output

    @as_tool(name="act")
    async def waiting(how: str) -> str:
        """Do something, after a while."""
        return await act(how, next(waits, 0))

    agent = Agent(ScriptedModel([*script, "done"]), tools=[ask, waiting], limits=Limits(repeats=9))
    result = await agent.run("go")
    assert result.trace is not None
    return result.trace


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(script=SCRIPT, delays=st.lists(st.integers(0, 5), max_size=9), other=SCRIPT)
def test_laws(backend: str, script: list[Any], delays: list[int], other: list[Any]) -> None:
    """A run is the same as itself in any schedule, and two compare alike from both sides."""

    async def main() -> None:
        one, again = await random_run(script, delays), await random_run(script, delays[::-1])
        assert diff(one, one).same
        assert diff(one, again).same, diff(one, again).text()
        two = await random_run(other, [])
        there, back = diff(one, two), diff(two, one)
        assert there.same == (script == other)
        swapped = {"only_a": "only_b", "only_b": "only_a"}
        seen = [(one.at, swapped.get(one.kind, one.kind), one.follows) for one in there.differences]
        assert seen == [(one.at, one.kind, one.follows) for one in back.differences]
        assert there.causes or there.same
        assert [place.at for place in there.places] == [place.at for place in back.places]
        assert [place.a for place in there.places] == [place.b for place in back.places]

    anyio.run(main, backend=backend)
