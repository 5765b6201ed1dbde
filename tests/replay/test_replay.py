"""Replay: the same result without asking anyone, or the first difference named."""

from __future__ import annotations

import contextlib
import inspect
import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from agentkit import Agent, Limits, RunContext, Tool, Trace, tool
from agentkit.errors import (
    AgentKitError,
    ConfigurationError,
    LimitExceeded,
    ModelUnreachable,
    RecordedError,
    ReplayDivergence,
    ToolsFailed,
)
from agentkit.events import Event, Paused
from agentkit.testing import FunctionModel, ScriptedModel

pytestmark = pytest.mark.anyio


class Sum(BaseModel):
    """A typed output."""

    total: int


executed: list[int] = []


@tool
async def double(number: int) -> int:
    """Double a number."""
    executed.append(number)
    await anyio.sleep(0.001 * (5 - number))
    return 2 * number


SCRIPT: list[Any] = [
    [("double", {"number": 1}), ("double", {"number": 2}), ("double", {"number": 1})],
    [("double", {"number": 3})],
    '{"total": 9}',
]


def recorded_agent(**changes: Any) -> Agent[Sum]:
    """The agent whose run is recorded."""
    options: dict[str, Any] = {"instructions": "Add.", "tools": [double], "output": Sum}
    return Agent(ScriptedModel(list(SCRIPT)), **(options | changes))


def silent_agent(**changes: Any) -> Agent[Sum]:
    """The same agent with a model that must not be asked."""
    options: dict[str, Any] = {"instructions": "Add.", "tools": [double], "output": Sum}
    return Agent(ScriptedModel([]), **(options | changes))


async def record(path: Path, **changes: Any) -> Any:
    """Record a run and forget what was executed."""
    result = await recorded_agent(**changes).run("Add them", trace=path)
    executed.clear()
    return result


async def diverges(path: Path, agent: Agent[Any]) -> ReplayDivergence:
    """The divergence of a replay."""
    with pytest.raises(ReplayDivergence) as caught:
        await agent.replay(path)
    assert executed == []
    return caught.value


async def test_exact_replay_gives_the_same_result(tmp_path: Path) -> None:
    """Output, messages and usage are equal; no model is asked, no tool is run."""
    recorded = await record(tmp_path / "run.jsonl")
    again = await silent_agent().replay(tmp_path / "run.jsonl")
    assert again == recorded
    assert again.messages == recorded.messages
    assert executed == []


async def test_replay_from_memory() -> None:
    """A trace that was kept in memory replays as well."""
    result = await recorded_agent().run("Add them")
    assert result.trace is not None
    assert (await silent_agent().replay(result.trace)).output == Sum(total=9)


async def test_replay_reads_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent of a provider replays where its key is missing."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    await record(tmp_path / "run.jsonl")
    agent = Agent("openai:gpt-4o", instructions="Add.", tools=[double], output=Sum)
    divergence = await diverges(tmp_path / "run.jsonl", agent)
    assert divergence.pointer == "/model"


async def test_history_and_new_messages_are_told_apart(tmp_path: Path) -> None:
    """The replayed result knows what was history."""
    history = (await Agent(ScriptedModel(["b"])).run("a")).messages
    first = await Agent(ScriptedModel(["d"])).run(
        "c", history=history, trace=tmp_path / "run.jsonl"
    )
    again = await Agent(ScriptedModel([])).replay(tmp_path / "run.jsonl")
    assert again.new_messages == first.new_messages


async def test_changed_instructions_are_located(tmp_path: Path) -> None:
    """The address, the pointer and both texts are named."""
    await record(tmp_path / "run.jsonl")
    found = await diverges(tmp_path / "run.jsonl", silent_agent(instructions="Multiply."))
    assert (found.kind, found.at) == ("request_changed", "/agent/m0")
    assert found.pointer == "/messages/0/content"
    assert (found.expected, found.actual) == ("Add.", "Multiply.")


async def test_changed_tool_is_a_changed_schema(tmp_path: Path) -> None:
    """A tool with another description is another tool to the model."""

    @tool(name="double")
    async def changed(number: int) -> int:
        """Twice the number."""
        return 2 * number

    await record(tmp_path / "run.jsonl")
    found = await diverges(tmp_path / "run.jsonl", silent_agent(tools=[changed]))
    assert found.kind == "tool_schema_changed"
    assert found.pointer == "/tools/0/function/description"


@pytest.mark.parametrize("gone", ["first", "middle", "last"])
async def test_removed_tool_is_the_cause(gone: str, tmp_path: Path) -> None:
    """The tool that is missing now is named, and not the one that stands in its place."""

    def tools() -> list[Tool[..., Any]]:
        def look(number: int) -> int:
            return number

        return [Tool(look, name=name) for name in ("first", "middle", "last")]

    await Agent(ScriptedModel(["done"]), tools=tools()).run("go", trace=tmp_path / "run.jsonl")
    left = [one for one in tools() if one.name != gone]
    found = await diverges(tmp_path / "run.jsonl", Agent(ScriptedModel([]), tools=left))
    index = ["first", "middle", "last"].index(gone)
    assert (found.kind, found.pointer) == ("tool_schema_changed", f"/tools/{index}")
    assert found.cause == f"the tool {gone}"
    function = left[0].function.__code__
    assert found.source != f"{function.co_filename}:{function.co_firstlineno}"


async def test_shorter_replay_names_what_is_missing(tmp_path: Path) -> None:
    """An agent that stops early leaves recorded calls over."""
    await record(tmp_path / "run.jsonl")
    with pytest.raises(ReplayDivergence) as caught:
        await silent_agent(limits=Limits(steps=1)).replay(tmp_path / "run.jsonl")
    assert (caught.value.kind, caught.value.at) == ("missing_call", "/agent/m1")


async def test_longer_replay_is_an_unexpected_call(tmp_path: Path) -> None:
    """An agent that goes on past the recording is told where."""
    await Agent(ScriptedModel(["x"]), output=str).run("Add", trace=tmp_path / "run.jsonl")

    class Other(BaseModel):
        word: str

    agent = Agent(ScriptedModel([]), output=Other, output_mode="tool")
    assert (await diverges(tmp_path / "run.jsonl", agent)).kind == "tool_schema_changed"


async def test_recorded_error_is_raised_again(tmp_path: Path) -> None:
    """A run that failed fails in replay with the same error and the same history."""
    agent = Agent(ScriptedModel([ModelUnreachable("no route to host")]))
    with pytest.raises(ModelUnreachable) as recorded:
        await agent.run("go", trace=tmp_path / "run.jsonl")
    with pytest.raises(ModelUnreachable, match="no route to host") as again:
        await Agent(ScriptedModel([])).replay(tmp_path / "run.jsonl")
    assert again.value.result is not None
    assert recorded.value.result is not None
    assert again.value.result.messages == recorded.value.result.messages


async def test_foreign_errors_become_recorded_errors(tmp_path: Path) -> None:
    """An exception type that agentkit does not know is not imported from a trace."""

    def broken() -> str:
        raise LookupError("no such user")

    with pytest.raises(LookupError, match="no such user"):
        await Agent(ScriptedModel(["x"]), instructions=broken).run(
            "go", trace=tmp_path / "run.jsonl"
        )
    with pytest.raises(RecordedError, match="no such user") as caught:
        await Agent(ScriptedModel([]), instructions=broken).replay(tmp_path / "run.jsonl")
    assert caught.value.type == "LookupError"


async def test_the_base_of_all_errors_is_raised_again() -> None:
    """An error that is an `AgentKitError` and nothing more is rebuilt as one."""
    with pytest.raises(AgentKitError) as recorded:
        await Agent(ScriptedModel([])).run("go")  # says so of a script that is over
    assert recorded.value.trace is not None
    with pytest.raises(AgentKitError) as again:
        await Agent(ScriptedModel([])).replay(recorded.value.trace)
    assert type(again.value) is type(recorded.value) is AgentKitError
    assert str(again.value) == str(recorded.value)


async def test_failed_tools_of_an_agent_inside_a_failed_tool() -> None:
    """A group of errors inside another one ends the replay as it ended the run."""

    @tool(on_error="raise")
    def fail() -> None:
        raise ValueError("no")

    inner = Agent(ScriptedModel([[("fail", {})]]), name="inner", tools=[fail])

    @tool(on_error="raise")
    async def ask(context: RunContext) -> str:
        return (await context.run(inner, "go")).output

    with pytest.raises(ToolsFailed) as recorded:
        await Agent(ScriptedModel([[("ask", {})]]), tools=[ask]).run("go")
    assert recorded.value.trace is not None
    with pytest.raises(ToolsFailed, match="1 tool failed") as again:
        await Agent(ScriptedModel([]), tools=[ask]).replay(recorded.value.trace)
    (group,) = again.value.exceptions
    assert isinstance(group, ToolsFailed)
    assert [str(one) for one in group.exceptions] == ["ValueError: no"]


async def test_computed_instructions_are_recorded(tmp_path: Path) -> None:
    """What is not pure is recorded: the function is not called again."""
    names = iter(["Ada", "Grace"])

    def greet(context: RunContext[None]) -> str:
        return f"You are {next(names)}."

    recorded = await Agent(ScriptedModel(["hi"]), instructions=greet).run(
        "go", trace=tmp_path / "run.jsonl"
    )
    again = await Agent(ScriptedModel([]), instructions=greet).replay(tmp_path / "run.jsonl")
    assert again == recorded
    assert next(names) == "Grace"


async def test_deadline_is_replayed_as_it_was(tmp_path: Path) -> None:
    """A run that its deadline ended ends so in replay, without waiting."""

    @tool
    async def wait(number: int) -> int:
        if number:
            await anyio.sleep_forever()
        return number

    def slow(*script: Any) -> Agent[str]:
        return Agent(ScriptedModel(list(script)), tools=[wait])

    path = tmp_path / "run.jsonl"
    with pytest.raises(LimitExceeded) as recorded:
        await slow([("wait", {"number": 0}), ("wait", {"number": 1})]).run(
            "go", trace=path, limits=Limits(seconds=0.05)
        )
    with anyio.fail_after(60), pytest.raises(LimitExceeded) as again:
        await slow().replay(path)
    assert again.value.result is not None
    assert recorded.value.result is not None
    assert again.value.result.messages == recorded.value.result.messages


async def test_crashed_recording_says_where_it_ended(tmp_path: Path) -> None:
    """A trace that a kill cut off replays up to there."""
    path = tmp_path / "run.jsonl"
    await record(path)
    kept: list[bytes] = []
    for line in path.read_bytes().splitlines(keepends=True):
        kept.append(line)
        if b'"tool.start"' in line:
            break
    path.write_bytes(b"".join(kept))
    with pytest.raises(ReplayDivergence) as caught:
        await silent_agent().replay(path)
    assert caught.value.kind == "recording_ended"


async def test_redacted_secrets_do_not_diverge(tmp_path: Path) -> None:
    """Another process has another redaction key; the replay is exact all the same."""
    secret = "sk-abcdefghijklmnopqrstuvwxyz123456"
    await Agent(ScriptedModel(["ok"]), instructions=f"Use {secret}").run(
        "go", trace=tmp_path / "run.jsonl"
    )
    agent = Agent(ScriptedModel([]), instructions=f"Use {secret}")
    assert (await agent.replay(tmp_path / "run.jsonl")).output == "ok"


async def test_unknown_policy(tmp_path: Path) -> None:
    """A policy that does not exist is refused before the trace is read."""
    with pytest.raises(ConfigurationError, match="'fast'"):
        await silent_agent().replay(tmp_path / "none.jsonl", plan="fast")  # type: ignore[arg-type]


async def test_trace_object_and_path_replay_alike(tmp_path: Path) -> None:
    """`replay` takes a loaded trace or a path."""
    await record(tmp_path / "run.jsonl")
    loaded = Trace.load(tmp_path / "run.jsonl")
    assert await silent_agent().replay(loaded) == await silent_agent().replay(loaded.path or "")


async def test_a_line_of_a_thread_parts_no_pause() -> None:
    """What was asked about together is told together, whatever was written in between."""

    @tool(approval=True)
    def buy(what: str) -> str:
        """Buy it."""
        return f"bought {what}"

    calls = [("buy", {"what": "tea"}), ("buy", {"what": "milk"})]
    inner = Agent(ScriptedModel([calls, "bought"]), name="inner", tools=[buy])

    @tool
    async def shop(context: RunContext) -> str:
        """Have another agent shop."""
        return (await context.run(inner, "go")).output

    made = Agent(ScriptedModel([[("shop", {})], "done"]), tools=[shop])
    trace = (await made.run("go", approver=lambda _: True)).trace
    assert trace is not None
    lines = [json.loads(line) for line in trace.raw()]
    second = [n for n, line in enumerate(lines) if line["event"] == "tool.pending"][1]
    logged = {"event": "log", "t": lines[second]["t"], "at": "/agent/m0/t0", "level": "info"}
    lines.insert(second, {**logged, "text": "from a thread", "data": {}})
    raw = [json.dumps({**line, "seq": n}).encode() + b"\n" for n, line in enumerate(lines)]
    told: list[Event] = []
    await made.with_(model=ScriptedModel([])).replay(Trace(raw), on_event=told.append)
    paused = [event for event in told if isinstance(event, Paused)]
    assert [[one.call.arguments for one in event.pending] for event in paused] == [
        ['{"what":"tea"}', '{"what":"milk"}']
    ]


@pytest.mark.parametrize("name", ["resume", "replay", "fork"])
def test_the_forms_for_code_that_is_not_async_take_the_same(name: str) -> None:
    """Names, defaults and annotations of all parameters."""
    ways = getattr(Agent, name), getattr(Agent, f"{name}_sync")
    one, other = (inspect.signature(way).parameters for way in ways)
    assert one == other


def test_replay_and_fork_without_an_event_loop(tmp_path: Path) -> None:
    """They give what the async forms give."""
    path = tmp_path / "run.jsonl"
    recorded = recorded_agent().run_sync("Add them", trace=path)
    assert silent_agent().replay_sync(path) == recorded
    forked = silent_agent().fork_sync(path, at="/agent/m2", result='{"total": 1}')
    assert forked.output == Sum(total=1)


@pytest.mark.parametrize("number", range(12, 20))
async def test_a_run_that_was_cancelled_at_a_limit_replays(number: int, tmp_path: Path) -> None:
    """Cancelled when its last calls had ended, it came to no effect that would tell."""

    @tool
    async def work(number: int) -> str:
        """Work."""
        return f"worked {number}"

    def answer(request: Any) -> Any:
        return [("work", {"number": len(request.messages)}), ("work", {"number": 0})]

    made = Agent(FunctionModel(answer), tools=[work], limits=Limits(steps=3))
    path, seen = tmp_path / "run.jsonl", 0
    with anyio.CancelScope() as scope:

        def listen(event: Any) -> None:
            nonlocal seen
            seen += 1
            if seen == number:
                scope.cancel()

        with contextlib.suppress(AgentKitError):
            await made.run("go", trace=path, on_event=listen)
    trace = Trace.load(path)
    with pytest.raises(AgentKitError) as caught:
        await made.replay(trace)
    assert caught.value.result is not None
    assert caught.value.result.status == trace.status
