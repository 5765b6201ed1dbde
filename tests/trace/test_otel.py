"""Runs as OpenTelemetry spans: at a real receiver, while they go on and from their traces."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from agentkit import Agent, ChatModel, ChatSettings, Handoff, Limits, Trace, result_of, tool
from agentkit.core.effects import Address
from agentkit.errors import AgentKitError, ConfigurationError
from agentkit.runtime.scope import new_run_id
from agentkit.testing import ChatServer, ScriptedModel, raw, reply
from agentkit.trace import to_otel
from agentkit.trace.otel import otel_spans, send, span_id, trace_id
from tests.support import ROOT, run_python
from tests.trace.receiver import Receiver, attributes, receiver

OK, ERROR = 0, 2
"""A status that is not set, and that of a failure."""


@tool
async def look(place: str) -> str:
    """Look at a place."""
    return f"{place} is fine"


@tool
async def fail() -> str:
    """Fail."""
    raise ValueError("out of order")


@tool
async def wait() -> str:
    """Wait for long."""
    await anyio.sleep(60)
    return "late"


@tool(approval=True)
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


@contextmanager
def live(got: Receiver, *, content: bool = False, **options: Any) -> Generator[TracerProvider]:
    """Send what begins in the block to a receiver, as it ends."""
    provider = TracerProvider(shutdown_on_exit=False, **options)
    exporter = OTLPSpanExporter(endpoint=f"{got.url}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    stop = to_otel(provider, content=content)
    try:
        yield provider
    finally:
        stop()
        provider.shutdown()


def tree(spans: Sequence[Any]) -> list[tuple[str, str | None, str, int]]:
    """Return name, parent's name, recorded status and status of each span, by address."""
    names = {span.span_id: span.name for span in spans}
    spans = sorted(spans, key=lambda span: Address(attributes(span)["agentkit.at"]).order)
    return [
        (
            span.name,
            names.get(span.parent_span_id),
            attributes(span).get("agentkit.status", ""),
            span.status.code,
        )
        for span in spans
    ]


def facts(spans: Sequence[Any]) -> dict[bytes, Any]:
    """Return everything about spans that two exports have in common; the last of each id."""
    return {
        span.span_id: (
            span.trace_id,
            span.parent_span_id,
            span.name,
            span.kind,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            attributes(span),
            span.status.code,
            span.status.message,
            [(event.name, event.time_unix_nano, attributes(event)) for event in span.events],
            [(link.trace_id, link.span_id) for link in span.links],
        )
        for span in sorted(spans, key=lambda span: span.end_time_unix_nano)
    }


def exported(trace: Trace | Path | None, *, content: bool = False) -> list[Any]:
    """Return the spans of a trace as a receiver gets them."""
    assert trace is not None
    recorded = trace if isinstance(trace, Trace) else Trace.load(trace)
    with receiver() as got:
        send(otel_spans(recorded, content=content), got.url)
    return got.spans


def nested() -> Agent[None, str]:
    """Return an agent with a sub-agent, a tool that fails, and a handoff."""
    inner = Agent(ScriptedModel(["from inner"]), name="inner")
    other = Agent(ScriptedModel(["from other"]), name="other")
    script = [[("fail", {}), ("inner", {"prompt": "x"})], [("transfer_to_other", {})]]
    tools = [fail, inner.as_tool(), Handoff(other)]
    return Agent(ScriptedModel(script), name="outer", tools=tools)


# What a run is


@pytest.mark.anyio
async def test_agents_inside_agents_and_a_handoff(tmp_path: Path) -> None:
    """Agents, tools and models stand in each other as they did, live as from the trace."""
    file = tmp_path / "t.jsonl"
    with receiver() as got, live(got):
        result = await nested().run("go", trace=file)
    assert tree(got.spans) == [
        ("invoke_agent outer", None, "ok", OK),
        ("chat scripted", "invoke_agent outer", "ok", OK),
        ("execute_tool fail", "invoke_agent outer", "error", ERROR),
        ("execute_tool inner", "invoke_agent outer", "ok", OK),
        ("invoke_agent inner", "execute_tool inner", "ok", OK),
        ("chat scripted", "invoke_agent inner", "ok", OK),
        ("chat scripted", "invoke_agent outer", "ok", OK),
        ("execute_tool transfer_to_other", "invoke_agent outer", "skipped", OK),
        ("invoke_agent other", "invoke_agent outer", "ok", OK),
        ("chat scripted", "invoke_agent other", "ok", OK),
    ]
    (trace,) = {span.trace_id.hex() for span in got.spans}
    assert trace[:16] == result.run[:16]
    assert trace == f"{trace_id(result.run):032x}"
    assert {attributes(span)["agentkit.run"] for span in got.spans} == {result.run}
    assert attributes(got.named["execute_tool fail"])["error.type"] == "ValueError"
    assert facts(got.spans) == facts(exported(file)) == facts(exported(file))


@pytest.mark.anyio
async def test_parallel_calls_overlap() -> None:
    """Calls of one answer are siblings that lie beside each other in time."""

    @tool
    async def slow(number: int) -> int:
        """Wait until both are there."""
        nonlocal there
        there += 1
        while there < 2:
            await anyio.lowlevel.checkpoint()
        return number

    there = 0
    script = [[("slow", {"number": 1}), ("slow", {"number": 2})], "Done."]
    with receiver() as got, live(got):
        result = await Agent(ScriptedModel(script), tools=[slow]).run("go")
    first, second = (span for span in got.spans if span.name == "execute_tool slow")
    assert first.parent_span_id == second.parent_span_id == got.named["invoke_agent agent"].span_id
    assert second.start_time_unix_nano < first.end_time_unix_nano
    assert first.start_time_unix_nano < second.end_time_unix_nano
    assert facts(got.spans) == facts(exported(result.trace))


@pytest.mark.anyio
async def test_http_attempts_and_usage() -> None:
    """A model call has its attempts, its server, its parameters and its tokens."""
    with receiver() as got, live(got), ChatServer([raw(503), reply("Hello")]) as server:
        model = ChatModel("gpt-4o", base_url=server.base_url, api_key="none", profile="openai")
        agent = Agent(model, settings=ChatSettings(temperature=0.5, seed=7, stop="END"))
        result = await agent.run("Hi")
    agent_span, chat, first, second = got.spans
    assert [one.name for one in got.spans] == ["invoke_agent agent", "chat gpt-4o", "POST", "POST"]
    assert (agent_span.kind, chat.kind, first.kind) == (1, 3, 3)  # internal, client, client
    found = attributes(chat)
    port = found["server.port"]
    assert server.base_url.startswith(f"http://127.0.0.1:{port}")
    assert found == {
        "agentkit.run": result.run,
        "agentkit.at": "/agent/m0",
        "agentkit.status": "ok",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ["END"],
        "gen_ai.response.id": found["gen_ai.response.id"],
        "gen_ai.response.model": found["gen_ai.response.model"],
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "server.address": "127.0.0.1",
        "server.port": port,
    }
    assert attributes(first)["http.response.status_code"] == 503
    assert attributes(first)["error.type"] == "503"
    assert attributes(first)["agentkit.retry_delay"] > 0
    assert first.status.code == ERROR
    assert attributes(second)["http.request.resend_count"] == 1
    assert second.status.code == OK
    assert {span.parent_span_id for span in (first, second)} == {chat.span_id}
    assert facts(got.spans) == facts(exported(result.trace))


@pytest.mark.anyio
async def test_a_streamed_answer_has_the_time_to_its_first_piece() -> None:
    """In seconds, as the conventions have it."""
    with receiver() as got, live(got), ChatServer([reply("Hello")]) as server:
        model = ChatModel("any", base_url=server.base_url, api_key="none")
        async with Agent(model).stream("Hi") as run:
            async for _ in run:
                pass
    found = attributes(got.named["chat any"])
    assert found["gen_ai.request.stream"] is True
    assert 0 < found["gen_ai.response.time_to_first_chunk"] < 10
    assert facts(got.spans) == facts(exported(run.result.trace))


@pytest.mark.anyio
async def test_a_refused_request() -> None:
    """It has failed, by its type; what the server has answered is a content."""
    refusal = raw(400, {"error": {"message": "the prompt Hi is too long"}})
    for content, text in ((False, ""), (True, "the prompt Hi is too long")):
        with receiver() as got, live(got, content=content), ChatServer([refusal]) as server:
            agent = Agent(ChatModel("any", base_url=server.base_url, api_key="none"))
            with pytest.raises(AgentKitError) as raised:
                await agent.run("Hi")
        assert tree(got.spans) == [
            ("invoke_agent agent", None, "error", ERROR),
            ("chat any", "invoke_agent agent", "error", ERROR),
            ("POST", "chat any", "", ERROR),
        ]
        chat = got.named["chat any"]
        assert attributes(chat)["error.type"] == type(raised.value).__name__
        assert text in chat.status.message
        assert bool(chat.status.message) is content
        result = result_of(raised.value)
        assert result is not None
        assert facts(got.spans) == facts(exported(result.trace, content=content))


@pytest.mark.anyio
async def test_a_cancelled_run_has_not_failed_and_a_limited_one_has() -> None:
    """Cancelling is what somebody wanted; a limit is not."""
    with receiver() as got, live(got):
        agent = Agent(ScriptedModel([[("wait", {})]]), tools=[wait])
        async with agent.stream("go") as run:
            async for event in run:
                if type(event).__name__ == "ToolCallStarted":
                    run.cancel("enough")
    assert tree(got.spans) == [
        ("invoke_agent agent", None, "cancelled", OK),
        ("chat scripted", "invoke_agent agent", "ok", OK),
        ("execute_tool wait", "invoke_agent agent", "cancelled", OK),
    ]
    assert facts(got.spans) == facts(exported(run.result.trace))

    script = [[("look", {"place": "a"})], "x"]
    limited = Agent(ScriptedModel(script), tools=[look], limits=Limits(steps=1))
    with receiver() as got, live(got), pytest.raises(AgentKitError, match="step"):
        await limited.run("go")
    assert tree(got.spans)[0] == ("invoke_agent agent", None, "limit", ERROR)


@pytest.mark.anyio
async def test_a_paused_run_that_goes_on(tmp_path: Path) -> None:
    """Its agent is sent when it pauses, and again, with the same id, when it has gone on."""
    file = tmp_path / "t.jsonl"
    agent = Agent(ScriptedModel([[("pay", {"amount": 5})], "Done."]), tools=[pay])
    with receiver() as got, live(got):
        await agent.run("go", trace=file)
    assert tree(got.spans) == [
        ("invoke_agent agent", None, "paused", OK),
        ("chat scripted", "invoke_agent agent", "ok", OK),
        ("agentkit.compute arguments:pay", "invoke_agent agent", "ok", OK),
    ]
    await anyio.sleep(0.05)
    agent = Agent(ScriptedModel(["Done."]), tools=[pay])
    with receiver() as later, live(later):
        await agent.resume(file, decisions={"/agent/m0/t0": True})
    assert tree(later.spans) == [
        ("invoke_agent agent", None, "ok", OK),
        ("execute_tool pay", "invoke_agent agent", "ok", OK),
        ("chat scripted", "invoke_agent agent", "ok", OK),
    ]
    paused, root, decided = got.spans[0], later.spans[0], later.named["execute_tool pay"]
    assert root.span_id == paused.span_id
    assert root.start_time_unix_nano == paused.start_time_unix_nano
    assert decided.start_time_unix_nano > paused.end_time_unix_nano + 40_000_000  # as it was
    assert attributes(decided)["agentkit.decision"] == "approve"
    assert facts([*got.spans, *later.spans]) == facts(exported(file))


@pytest.mark.anyio
async def test_a_run_whose_process_has_died(tmp_path: Path) -> None:
    """What was in flight ends where the trace ends, and has failed; resumed, it is sent anew."""

    @tool(effect="read")
    async def read() -> str:
        """Read."""
        return "read"

    file = tmp_path / "t.jsonl"
    agent = Agent(ScriptedModel([[("read", {})], "Done."]), tools=[read])
    await agent.run("go", trace=file)
    lines = file.read_bytes().splitlines(keepends=True)
    cut = next(n for n, line in enumerate(lines) if b'"tool.start"' in line) + 1
    file.write_bytes(b"".join(lines[:cut]) + b'{"event":"tool.e')
    dead = exported(file)
    assert tree(dead) == [
        ("invoke_agent agent", None, "in_flight", ERROR),
        ("chat scripted", "invoke_agent agent", "ok", OK),
        ("execute_tool read", "invoke_agent agent", "in_flight", ERROR),
    ]
    with receiver() as got, live(got):
        await Agent(ScriptedModel(["Done."]), tools=[read]).resume(file)
    assert tree(got.spans) == [
        ("invoke_agent agent", None, "ok", OK),
        ("execute_tool read", "invoke_agent agent", "ok", OK),
        ("chat scripted", "invoke_agent agent", "ok", OK),
    ]
    assert facts([*dead, *got.spans]) == facts(exported(file))


@pytest.mark.anyio
async def test_a_fork_is_linked_and_a_replay_is_not_sent() -> None:
    """A fork names where it comes from; a replay asks no model."""
    script = [[("look", {"place": "a"})], "Done."]
    agent = Agent(ScriptedModel(script), tools=[look])
    origin = await agent.run("go")
    assert origin.trace is not None
    with receiver() as got, live(got):
        await agent.replay(origin.trace)
        forking = agent.with_(model=ScriptedModel(["Other."]))
        forked = await forking.fork(origin.trace, at="/agent/m1", instructions="Be brief.")
    root = got.spans[0]
    (link,) = root.links
    assert int.from_bytes(link.trace_id) == trace_id(origin.run)
    assert int.from_bytes(link.span_id) == span_id(origin.run, "/agent/m1")
    assert attributes(root)["agentkit.fork.run"] == origin.run
    assert facts(got.spans) == facts(exported(forked.trace))


def test_the_example_and_a_wide_run_are_the_same_both_ways(tmp_path: Path) -> None:
    """Lines that a live run would have written, one after the other, make the same spans."""
    from opentelemetry import metrics

    from agentkit.trace import otel

    inner = Agent(ScriptedModel([[("look", {"place": "a"})], "x"] * 9), tools=[look], name="inner")
    script = [[("inner", {"prompt": "p"}), ("fail", {}), ("nobody", {})] * 3, "Done."]
    agent = Agent(ScriptedModel(script), tools=[inner.as_tool(), fail])
    agent.run_sync("go", trace=tmp_path / "wide.jsonl")
    for file in [*(ROOT / "examples" / "traces").glob("*.jsonl"), tmp_path / "wide.jsonl"]:
        trace = Trace.load(file)
        for content in (False, True):
            with receiver() as got, live(got, content=content) as provider:
                spans = otel._Spans(provider)
                meters = otel._Meters(metrics.get_meter_provider())
                run = otel._LiveRun(trace.run, None, spans, meters, content)
                for line in trace.raw():
                    run.line(line)
            assert len(got.spans) > 5
            assert facts(got.spans) == facts(exported(trace, content=content))


# The application's own spans


@pytest.mark.anyio
async def test_spans_of_the_application_outside_and_in_a_tool() -> None:
    """A run joins the trace that it begins in, and what a tool does is part of its span."""

    @tool
    async def measured() -> str:
        """Do something that is measured."""
        api.get_current_span().set_attribute("rows", 3)
        with tracer.start_as_current_span("in the tool"):
            return "ok"

    @tool
    def threaded() -> str:
        """Do it in a worker thread."""
        with tracer.start_as_current_span("in the thread"):
            return "ok"

    def instructions() -> str:
        """Return instructions, in a function that is measured, too."""
        with tracer.start_as_current_span("in the instructions"):
            return "Be brief."

    script = [[("measured", {}), ("threaded", {})], "Done."]
    tools = [measured, threaded]
    agent = Agent(ScriptedModel(script), tools=tools, instructions=instructions)
    with receiver() as got, live(got) as provider:
        tracer = provider.get_tracer("application")
        with tracer.start_as_current_span("request") as request:
            result = await agent.run("go")
            assert api.get_current_span() is request
    spans = got.named
    assert len({span.trace_id for span in got.spans}) == 1
    assert spans["invoke_agent agent"].parent_span_id == spans["request"].span_id
    called = spans["execute_tool measured"].span_id
    assert spans["in the tool"].parent_span_id == called
    assert int.from_bytes(called) == span_id(result.run, "/agent/m0/t0")
    assert attributes(spans["execute_tool measured"])["rows"] == 3
    parents = {span.span_id: span.name for span in got.spans}
    assert parents[spans["in the thread"].parent_span_id] == "execute_tool threaded"
    assert parents[spans["in the instructions"].parent_span_id] == "agentkit.compute instructions"


@pytest.mark.anyio
async def test_run_sync_and_streams_join_the_applications_trace() -> None:
    """In a thread of its own, and from a generator that is driven piece by piece."""
    agent = Agent(ScriptedModel(["a", "b"]))
    with receiver() as got, live(got) as provider:
        tracer = provider.get_tracer("application")
        with tracer.start_as_current_span("request"):
            agent.run_sync("go")
            async with agent.stream("go") as run:
                async for _ in run:
                    pass
    agents = [span for span in got.spans if span.name == "invoke_agent agent"]
    assert [span.parent_span_id for span in agents] == [got.named["request"].span_id] * 2


@pytest.mark.anyio
async def test_the_sampler_decides_once_for_a_run() -> None:
    """A run that is not sampled has no span, and neither has what its tools make."""

    @tool
    async def measured() -> str:
        """Do something that is measured."""
        with provider.get_tracer("application").start_as_current_span("in the tool"):
            return "ok"

    agent = Agent(ScriptedModel([[("measured", {})], "Done."]), tools=[measured])
    with receiver() as got, live(got, sampler=ParentBased(TraceIdRatioBased(0))) as provider:
        await agent.run("go")
    assert got.spans == []


def test_a_ratio_of_runs_is_sampled() -> None:
    """Ids of traces are random where samplers look, which UUIDs are not."""
    sampler = TraceIdRatioBased(0.25)
    drawn = [sampler.should_sample(None, trace_id(new_run_id()), "") for _ in range(400)]
    assert 50 < sum(one.decision.is_sampled() for one in drawn) < 150


@pytest.mark.anyio
async def test_another_provider_than_the_sdks() -> None:
    """Its ids are its own, and spans stand in each other as ever."""

    class Wrapped(api.TracerProvider):
        def get_tracer(self, *args: Any, **kwargs: Any) -> api.Tracer:
            return Tracer(inner.get_tracer("wrapped"))

    class Tracer(api.Tracer):
        def __init__(self, tracer: api.Tracer) -> None:
            self._own = tracer

        def start_span(self, *args: Any, **kwargs: Any) -> api.Span:
            return self._own.start_span(*args, **kwargs)

        start_as_current_span = None  # type: ignore[assignment]  # never called

    with receiver() as got:
        inner = TracerProvider(shutdown_on_exit=False)
        inner.add_span_processor(
            SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{got.url}/v1/traces"))
        )
        stop = to_otel(Wrapped())
        await nested().run("go")
        stop()
        inner.shutdown()
    assert tree(got.spans)[4] == ("invoke_agent inner", "execute_tool inner", "ok", OK)
    assert len({span.trace_id for span in got.spans}) == 1


def test_other_users_of_the_same_tracer_keep_random_ids() -> None:
    """The ids of a run are given to its own spans alone, however often it is set up."""
    provider = TracerProvider(shutdown_on_exit=False)
    for _ in range(2):
        to_otel(provider)()
    scope = "agentkit", None, "https://opentelemetry.io/schemas/1.41.0"
    spans = [provider.get_tracer(*scope).start_span("own") for _ in range(2)]
    assert len({span.get_span_context().span_id for span in spans}) == 2


# Contents


@pytest.mark.anyio
async def test_contents_are_asked_for() -> None:
    """By default no span holds a text of the conversation; with content, all are there."""

    def agent() -> Agent[None, str]:
        calls = [("look", {"place": "the cellar"}), ("fail", {})]
        script = [calls, "All is well."]
        return Agent(ScriptedModel(script), tools=[look, fail], instructions="Be brief.")

    with receiver() as got, live(got):
        await agent().run("Where is it?")
    sent = b"".join(got.bodies["/v1/traces"])
    for text in (b"Where is it?", b"the cellar", b"All is well.", b"Be brief.", b"out of order"):
        assert text not in sent

    with receiver() as got, live(got, content=True):
        result = await agent().run("Where is it?")
    assert facts(got.spans) == facts(exported(result.trace, content=True))
    by_address = {attributes(span)["agentkit.at"]: attributes(span) for span in got.spans}
    called, answered = by_address["/agent/m0/t0"], by_address["/agent/m1"]
    assert json.loads(called["gen_ai.tool.call.arguments"]) == {"place": "the cellar"}
    assert called["gen_ai.tool.call.result"] == "the cellar is fine"
    assert json.loads(answered["gen_ai.system_instructions"]) == [
        {"type": "text", "content": "Be brief."}
    ]
    user, assistant, first, second = json.loads(answered["gen_ai.input.messages"])
    assert user == {"role": "user", "parts": [{"type": "text", "content": "Where is it?"}]}
    part, _ = assistant["parts"]
    assert (part["type"], part["name"]) == ("tool_call", "look")
    assert part["arguments"] == {"place": "the cellar"}
    assert first["parts"] == [
        {"type": "tool_call_response", "id": part["id"], "response": "the cellar is fine"}
    ]
    assert second["role"] == "tool"
    answer = {
        "role": "assistant",
        "parts": [{"type": "text", "content": "All is well."}],
        "finish_reason": "stop",
    }
    assert json.loads(answered["gen_ai.output.messages"]) == [answer]
    assert json.loads(answered["gen_ai.tool.definitions"])[0]["name"] == "look"
    whole = by_address["/agent"]
    assert json.loads(whole["gen_ai.output.messages"]) == [answer]
    assert json.loads(whole["gen_ai.input.messages"]) == [user]
    failed = got.named["execute_tool fail"]
    assert failed.status.message == "out of order"
    (event,) = failed.events
    assert event.name == "exception"
    assert attributes(event)["exception.stacktrace"].endswith("ValueError: out of order\n")


@pytest.mark.anyio
async def test_contents_are_redacted_as_in_the_trace() -> None:
    """Secrets never leave the process, with contents neither."""
    key = "sk-proj-" + "a1B2c3D4" * 6
    script = [[("look", {"place": key})], f"The key is {key}."]
    with receiver() as got, live(got, content=True):
        await Agent(ScriptedModel(script), tools=[look]).run(f"My key is {key}")
    sent = b"".join(got.bodies["/v1/traces"])
    assert key.encode() not in sent
    assert "⟦".encode() in sent


@pytest.mark.anyio
async def test_less_is_captured_and_less_is_sent() -> None:
    """A run that is not recorded is sent; one without contents has none to send."""
    agent = Agent(
        ScriptedModel([[("look", {"place": "the cellar"})], "All is well."]), tools=[look]
    )
    for options in ({"trace": False}, {"capture": "metadata"}):
        with receiver() as got, live(got, content=True):
            await agent.with_(model=ScriptedModel([[("look", {"place": "the cellar"})], "x"])).run(
                "go", **options
            )
        assert got.spans[0].name == "invoke_agent agent"
        assert len(got.spans) == 4
        held = b"the cellar" in b"".join(got.bodies["/v1/traces"])
        assert held is ("trace" in options)
    with receiver() as got, live(got, content=True):
        await agent.run("go", capture="none")
    assert tree(got.spans) == [("invoke_agent agent", None, "ok", OK)]


@pytest.mark.anyio
async def test_values_that_no_receiver_can_hold() -> None:
    """Numbers beyond 64 bits, halves of characters and control characters arrive as texts."""

    @tool
    async def odd(text: str) -> str:
        """Return half a character."""
        raise ValueError("\ud800 \x00 \u202e" + text)

    script = [[("odd", {"text": "\ud83d"}), ("\ud800", {})], "\udfff"]
    settings = ChatSettings(seed=2**70, stop=["\ud800"])
    agent = Agent(ScriptedModel(script), tools=[odd], settings=settings, instructions="\ud800")
    for content in (False, True):
        with receiver() as got, live(got, content=content):
            result = await agent.with_(model=ScriptedModel(script)).run("\ud800")
        assert len(got.spans) == 5
        assert attributes(got.spans[1])["gen_ai.request.seed"] == str(2**70)
        assert facts(got.spans) == facts(exported(result.trace, content=content))


def test_a_trace_of_anybody(tmp_path: Path) -> None:
    """A run without a proper id, times beyond all clocks and odd hosts are sent all the same."""
    lines = [
        {"event": "trace.open", "schema": "agentkit.trace/1", "run": "\u202erun", "wall": "late"},
        {"event": "agent.start", "at": "/a", "agent": "a\x00", "input": "b2:0"},
        {"event": "model.start", "at": "/a/m0", "model": ":", "since": None, "messages": []},
        {"event": "http.start", "at": "/a/m0/h0", "attempt": 2**62, "host": "::1]:99999999"},
        {"event": "model.end", "at": "/a/m0", "status": "error", "error": {"type": "", "n": 1}},
    ]
    lines[2] |= {"tools": "b2:0", "params": {"n": 10**30, "top_p": True, "stop": 7}, "fp": "x"}
    for number, line in enumerate(lines):
        line |= {"seq": number, "t": 2**62 * number // 4}
    lines[0] |= {"program": "p"}
    file = tmp_path / "odd.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    spans = exported(file)
    assert {span.name for span in spans} == {"invoke_agent a\x00", "chat ", "POST"}
    assert facts(spans) == facts(exported(file))


def test_names_are_those_of_the_conventions() -> None:
    """Every gen_ai attribute is one that the conventions know, none of them deprecated then."""
    known = {value for name, value in vars(gen_ai_attributes).items() if name.isupper()}
    gone = {"gen_ai.system", "gen_ai.prompt", "gen_ai.completion"}
    spans = [
        span
        for file in (ROOT / "examples" / "traces").glob("*.jsonl")
        for span in exported(file, content=True)
    ]
    names = {name for span in spans for name in attributes(span) if name.startswith("gen_ai.")}
    assert len(names) > 15
    assert names <= known - gone


# Metrics, and what is refused


@contextmanager
def measured(got: Receiver) -> Generator[None]:
    """Send the metrics of what begins in the block to a receiver."""
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=f"{got.url}/v1/metrics"), export_interval_millis=600_000
    )
    meters = MeterProvider([reader], shutdown_on_exit=False)
    stop = to_otel(TracerProvider(shutdown_on_exit=False), meters)
    yield
    stop()
    meters.shutdown()


def test_usage_and_durations() -> None:
    """Token usage and durations arrive as histograms with the boundaries of the conventions."""
    script = [reply("Hello"), raw(400, {"error": {"message": "no"}})]
    with receiver() as got, ChatServer(script) as server, measured(got):
        agent = Agent(ChatModel("any", base_url=server.base_url, api_key="none"))
        result = agent.run_sync("Hi")
        with pytest.raises(AgentKitError) as raised:
            agent.run_sync("Hi")
        assert result.trace is not None
        agent.replay_sync(result.trace)
    points = got.metrics["gen_ai.client.token.usage"].histogram.data_points
    assert {attributes(one)["gen_ai.token.type"]: one.sum for one in points} == {
        "input": 10,
        "output": 5,
    }
    assert list(points[0].explicit_bounds) == [
        *(1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144),
        *(1048576, 4194304, 16777216, 67108864),
    ]
    one, other = got.metrics["gen_ai.client.operation.duration"].histogram.data_points
    assert list(one.explicit_bounds) == [
        *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
    ]
    assert (one.count, other.count) == (1, 1)
    found = attributes(one)
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.request.model"] == "any"
    assert found["server.address"] == "127.0.0.1"
    assert attributes(other)["error.type"] == type(raised.value).__name__


def test_runs_after_the_end() -> None:
    """Runs that begin after it was ended are not sent."""
    with receiver() as got:
        with live(got):
            pass
        Agent(ScriptedModel(["x"])).run_sync("go")
    assert got.spans == []


def test_a_provider_that_makes_no_spans() -> None:
    """Where the application has set none, nothing would be sent, and it is refused."""
    with pytest.raises(ConfigurationError) as raised:
        to_otel()
    assert raised.value.message == (
        "to_otel needs a TracerProvider that makes spans, not ProxyTracerProvider. Pass one of "
        "opentelemetry.sdk.trace, or call opentelemetry.trace.set_tracer_provider before."
    )


def test_a_receiver_that_takes_nothing() -> None:
    """One that refuses, one that is not there, and what is no URL."""
    trace = Agent(ScriptedModel(["x"])).run_sync("go").trace
    assert trace is not None
    spans = otel_spans(trace)
    with receiver(status=401) as got, pytest.raises(AgentKitError) as raised:
        send(spans, got.url)
    assert f"The receiver at '{got.url}/v1/traces' did not take the spans: " in str(raised.value)
    assert "401" in str(raised.value)
    with pytest.raises(
        AgentKitError, match=r"No receiver can be reached at .*: Connection refused"
    ):
        send(spans, got.url)
    for url in ("collector:4318", "http://[", "http://a:99999", "http://"):
        with pytest.raises(ConfigurationError, match="is not a valid URL of a receiver"):
            send(spans, url)


def test_a_broken_exporter_hurts_no_run(caplog: pytest.LogCaptureFixture) -> None:
    """What a span processor raises is logged once, and the run goes on."""

    class Broken(SimpleSpanProcessor):
        def on_start(self, *_: Any, **__: Any) -> None:
            raise OSError("no more memory")

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Broken(OTLPSpanExporter()))
    stop = to_otel(provider)
    try:
        result = Agent(ScriptedModel([[("look", {"place": "a"})], "Done."]), tools=[look]).run_sync(
            "go"
        )
    finally:
        stop()
    assert result.output == "Done."
    assert [one.message for one in caplog.records if one.name == "agentkit"] == [
        "A listener of the trace failed; it gets no more of this run"
    ]


def test_without_the_extra() -> None:
    """The message names the extra."""
    code = "import sys; sys.modules['opentelemetry'] = None\n"
    code += "from agentkit.trace import to_otel\n"
    code += "try: to_otel()\nexcept Exception as error: print(type(error).__name__, error)"
    assert run_python("-c", code).stdout == (
        "ConfigurationError OpenTelemetry needs an extra that is not installed. "
        'Run: pip install "agentkit-replay[otel]"\n'
    )
