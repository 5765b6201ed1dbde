"""The application's log and a run's trace, both ways, whatever structlog is told meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
import structlog
from structlog.testing import capture_logs

from agentkit import Agent, Redactor, RunContext, tool, use_structlog
from agentkit.testing import ScriptedModel
from agentkit.trace import to_trace
from tests.support import events_of

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _as_installed() -> Iterator[None]:
    """Structlog as it is when nobody has configured it."""
    stop = use_structlog()
    stop()
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@tool
def work(text: str) -> str:
    """Log a line, and work."""
    structlog.get_logger().info("working", text=text, level_of_detail=3)
    return "worked"


@tool
def fail() -> None:
    """Fail."""
    raise ValueError("x" * 5000)


def agent(*calls: Any, **options: Any) -> Agent[str]:
    """Makes these calls, then says done."""
    script: list[Any] = [[*calls], "done"] if calls else ["done"]
    return Agent(ScriptedModel(script), tools=[work, fail], **options)


WORK = ("work", {"text": "hard"})


async def test_runs_show_in_the_applications_log() -> None:
    """Each event is a line with its fields and the run, but no message and no blob."""
    stop = use_structlog()
    try:
        with capture_logs() as captured:
            result = await agent(WORK).run("the prompt")
    finally:
        stop()
    told = [line for line in captured if line["event"] != "working"]
    assert [line["event"] for line in told] == [
        "trace.open",
        "agent.start",
        "model.start",
        "model.end",
        "tool.start",
        "tool.end",
        "model.start",
        "model.end",
        "agent.end",
        "trace.close",
    ]
    assert {line["run"] for line in told} == {result.run}
    assert {line["log_level"] for line in told} == {"debug"}
    assert "the prompt" not in str(told)
    started = told[4]
    assert (started["at"], started["tool"], started["arguments"]) == (
        "/agent/m0/t0",
        "work",
        '{"text":"hard"}',
    )


async def test_failures_are_warnings_and_fields_are_short() -> None:
    """What failed stands out, and no field floods the log."""
    stop = use_structlog()
    try:
        with capture_logs() as captured:
            await agent(("fail", {})).run("go")
    finally:
        stop()
    warned = [line["event"] for line in captured if line["log_level"] == "warning"]
    assert warned[-1] == "tool.end"
    assert {"tool.start", "model.end"}.isdisjoint(warned)
    assert all(len(str(value)) <= 201 for line in captured for value in line.values())


async def test_runs_without_a_trace_show_too() -> None:
    """`trace=False` keeps nothing, and the log gets its lines."""
    stop = use_structlog()
    try:
        with capture_logs() as captured:
            result = await agent().run("go", trace=False)
    finally:
        stop()
    assert result.trace is None
    assert captured[-1]["event"] == "trace.close"


async def test_it_ends_when_told() -> None:
    """The function that it returns ends it."""
    use_structlog()()
    with capture_logs() as captured:
        await agent().run("go")
    assert captured == []


async def test_the_last_logger_counts() -> None:
    """Used twice, it shows each line once, in the log that was named last."""
    with capture_logs() as captured:
        first = use_structlog(structlog.get_logger("first"))
        stop = use_structlog()
        first()
        try:
            await agent().run("go")
        finally:
            stop()
    assert [line["event"] for line in captured].count("trace.open") == 1


async def test_a_logger_of_the_callers() -> None:
    """Any structlog logger can take the lines, the standard library's too."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    stdlib = logging.Logger("mine", logging.DEBUG)
    stdlib.addHandler(Keep())
    logger = structlog.wrap_logger(
        stdlib,
        processors=[structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    stop = use_structlog(logger)
    try:
        instructed = agent(WORK, instructions=lambda: "computed")
        await instructed.run("go", trace=False)
    finally:
        stop()
    assert {"compute.start", "tool.end"} <= {record.msg for record in records}


async def test_the_applications_lines_say_where_they_come_from() -> None:
    """Run and address are bound while tools run, in worker threads too, and not afterwards."""
    seen: list[Any] = []

    def keep(logger: Any, method: str, event: Any) -> Any:
        seen.append(event)
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep])
    structlog.contextvars.bind_contextvars(request="r1")
    stop = use_structlog()
    try:
        result = await agent(WORK).run("go")
    finally:
        stop()
    (line,) = [event for event in seen if event["event"] == "working"]
    assert (line["run"], line["at"], line["request"]) == (result.run, "/agent/m0/t0", "r1")
    assert structlog.contextvars.get_contextvars() == {"request": "r1"}
    seen.clear()
    await agent(WORK).run("go")
    assert "run" not in seen[0]


async def test_lines_of_the_application_go_to_the_trace() -> None:
    """With the run's address, redacted, and on their usual way besides."""
    seen: list[Any] = []

    def keep(logger: Any, method: str, event: Any) -> Any:
        seen.append(event)
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.processors.add_log_level, to_trace, keep])
    secret = Redactor(patterns={"word": "hard"}, key="k")
    result = await agent(WORK).run("go", redact=secret)
    (line,) = events_of(result.trace, "log")
    assert (line["at"], line["level"], line["text"]) == ("/agent/m0/t0", "info", "working")
    assert line["data"] == {"text": secret("hard"), "level_of_detail": 3}
    assert [event["text"] for event in seen] == ["hard"]
    assert result.trace is not None
    (logged,) = result.trace.effects["/agent/m0/t0"].logs
    assert (logged.t, logged.level, logged.text) == (line["t"], "info", "working")
    assert logged.data == line["data"]


async def test_a_line_with_an_exception_has_its_traceback() -> None:
    """`log.exception(…)` tells the trace what was raised."""

    @tool
    def stumble() -> str:
        try:
            raise LookupError("nobody there")
        except LookupError:
            structlog.get_logger().exception("stumbled")
        return "on"

    def drop(*_: Any) -> Any:
        raise structlog.DropEvent

    structlog.configure(processors=[to_trace, drop])
    stumbling = Agent(ScriptedModel([[("stumble", {})], "done"]), tools=[stumble])
    (line,) = events_of((await stumbling.run("go")).trace, "log")
    assert line["level"] == "error"
    assert line["data"]["exc_info"].endswith("LookupError: nobody there\n")


async def test_both_ways_at_once_do_not_go_round() -> None:
    """A run's own lines do not come back to it as the application's."""

    def drop(*_: Any) -> Any:
        raise structlog.DropEvent

    structlog.configure(processors=[to_trace, drop])
    stop = use_structlog()
    try:
        result = await agent(WORK).run("go")
    finally:
        stop()
    assert [line["text"] for line in events_of(result.trace, "log")] == ["working"]


async def test_parallel_runs_keep_their_lines_apart() -> None:
    """Each line is in the trace of the run that it was logged in."""

    def drop(*_: Any) -> Any:
        raise structlog.DropEvent

    structlog.configure(processors=[to_trace, drop])
    traces: dict[str, Any] = {}

    async def run(name: str) -> None:
        calls = [("work", {"text": f"{name}{number}"}) for number in range(5)]
        traces[name] = (await agent(*calls).run("go")).trace

    async with anyio.create_task_group() as group:
        for name in "abc":
            group.start_soon(run, name)
    for name, trace in traces.items():
        lines = {(line["at"], line["data"]["text"]) for line in events_of(trace, "log")}
        assert lines == {(f"/agent/m0/t{number}", f"{name}{number}") for number in range(5)}


async def test_what_an_application_tells_structlog_during_a_run_matters_to_no_trace() -> None:
    """The trace is whole after configure, reset_defaults and capture_logs inside a tool."""

    @tool
    def reconfigure(context: RunContext) -> str:
        structlog.configure(processors=[], logger_factory=lambda *_: None)
        structlog.reset_defaults()
        with capture_logs():
            context.progress("half way")
        return "well"

    stop = use_structlog()
    try:
        running = Agent(ScriptedModel([[("reconfigure", {})], "done"]), tools=[reconfigure])
        with capture_logs():
            result = await running.run("go")
    finally:
        stop()
    assert result.trace is not None
    assert [line["event"] for line in result.trace.events][-6:] == [
        "tool.chunks",
        "tool.end",
        "model.start",
        "model.end",
        "agent.end",
        "trace.close",
    ]


async def test_a_broken_log_hurts_no_run(caplog: pytest.LogCaptureFixture) -> None:
    """A logger that raises is left alone after the first time."""

    def fail(*_: Any) -> Any:
        raise OSError("the log is full")

    structlog.configure(processors=[fail])
    stop = use_structlog()
    try:
        assert (await agent().run("go")).output == "done"
    finally:
        stop()
    assert len(caplog.records) == 1


def test_outside_a_run_the_processor_passes_lines_on() -> None:
    """It changes nothing."""
    event = {"event": "hello"}
    assert to_trace(None, "info", event) is event
