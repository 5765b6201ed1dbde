"""What a host is, what a case of the suite is, and how the two are compared."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import anyio

from agentkit.agent import Agent
from agentkit.core.effects import Address, Decision, PendingCall
from agentkit.core.spec import RunStatus
from agentkit.errors import AgentKitError, ModelError, RecordedError, safe_str
from agentkit.events import Emit, ignore
from agentkit.history import check_history
from agentkit.messages import ModelRequest, ModelResponse, ToolMessage
from agentkit.models.base import DIRECT
from agentkit.models.profiles import Profile
from agentkit.replay.diff import diff
from agentkit.runtime.result import RunResult, result_of
from agentkit.testing.assertions import Expected, assert_trace
from agentkit.testing.scripted import Answer, FunctionModel

Stop: TypeAlias = Callable[[], Awaitable[str]]
"""Returns when the run is to be cancelled, with the reason."""


class Host(Protocol):
    """Runs one agent to its end. An async function is one."""

    async def __call__(
        self,
        agent: Agent[Any, Any],
        prompt: str,
        *,
        deps: Any,
        decisions: Mapping[str, Decision],
        stop: Stop | None,
    ) -> RunResult[Any]:
        """Run the agent, with its own model, tools and limits.

        Its tools log what they do in the process of the suite, so what performs effects has
        to run there.

        Args:
            agent: Its name is the case's.
            prompt: What the user says.
            deps: Given to tools; a JSON value, so that it can travel.
            decisions: The decision about each call that waits, by its address.
            stop: Await it beside the run, and cancel the run with the reason that it returns.
                None: the run ends by itself.

        Returns:
            What `Agent.run` returns, or what a cancelled run has reached. `trace` is the whole
            run as an `agentkit.trace/1`.

        Raises:
            Exception: The run failed: what `Agent.run` raises, with `result_of(error)`. One of
                the application's own may be a `RecordedError` with its type and message.
        """
        ...


class Script(FunctionModel):
    """A model that answers by the address of the call, whoever asks, when and how often.

    Args:
        answers: An answer, or an error to raise, by address.
    """

    def __init__(self, answers: Mapping[str, Answer | ModelError], *, name: str = "script") -> None:
        super().__init__(lambda _: "", name=name, profile=Profile(name=name))
        self._answers = dict(answers)

    async def request(
        self,
        request: ModelRequest,
        *,
        at: Address = DIRECT,
        emit: Emit = ignore,
        stream: bool = False,
    ) -> ModelResponse:
        """Answer the call at this address."""
        if at not in self._answers:
            raise AgentKitError(f"The script has no answer at {at}, only at {[*self._answers]}.")
        answer = self._answers[at]
        if isinstance(answer, ModelError):
            raise answer
        scripted = FunctionModel(lambda _: answer, name=self.name)
        return await scripted.request(request, at=at, emit=emit, stream=stream)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """An agent, its script, and what its run has to be on every host.

    Attributes:
        name: The agent's, too; in words, what the case shows.
        build: Makes the agent. Its tools append to the list what they do.
        deps: Given to tools, a JSON value.
        decisions: The decision about each call that waits, by address.
        stops: The run is cancelled as soon as a tool has appended something.
        status: How the run ends.
        output: Its output, if it ends well.
        error: The type and a part of the message of the error that ends it.
        told: What the model reads from tools, in order.
        does: What tools append, in any order.
        effects: The model calls, tool calls and agents, in causal order; see `assert_trace`.
    """

    name: str
    build: Callable[[list[str]], Agent[Any, Any]]
    deps: Any = None
    decisions: Mapping[str, Decision] = field(default_factory=dict[str, Decision])
    stops: bool = False
    status: RunStatus = "ok"
    output: Any = None
    error: tuple[str, str] | None = None
    told: Sequence[str] = ()
    does: Sequence[str] = ()
    effects: Sequence[Expected] = ()

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ran:
    """One run of a case."""

    agent: Agent[Any, Any]
    result: RunResult[Any]
    error: tuple[str, str] | None
    does: list[str]


async def check(case: Case, host: Host) -> None:
    """Run a case with a host, and compare the run with the case and with one in process.

    The status, the output, the error, the history, what was used, what tools did, and the
    trace: it has to have the same effects at the same addresses, and to replay.

    Args:
        case: One of `CASES`, or your own.
        host: What runs the agent.

    Raises:
        AssertionError: Something is different, and what.
    """
    expected, actual = await _run(case, in_process), await _run(case, host)
    result = actual.result
    _check_error(actual.error, case.error)
    _same("status", result.status, case.status)
    _same("output", result.output if result.status == "ok" else None, case.output)
    check_history(result.messages)
    texts = [one.text for one in result.messages if isinstance(one, ToolMessage)]
    _same("texts that the model reads from tools", texts, [*case.told])
    _same("what tools have done", sorted(actual.does), sorted(case.does))
    assert_trace(result.trace, case.effects, only=True)
    for name in ("messages", "new_messages", "usage", "pending"):
        _same(f"result.{name}", getattr(result, name), getattr(expected.result, name))
    _same("error", actual.error, expected.error)
    assert expected.result.trace is not None
    assert result.trace is not None
    _same("run of the trace", result.trace.run, result.run)
    compared = diff(expected.result.trace, result.trace)
    assert compared.same, f"In process (a) and with the host (b):\n{compared.text()}"
    await _check_replay(case, actual)


async def in_process(
    agent: Agent[Any, Any],
    prompt: str,
    *,
    deps: Any,
    decisions: Mapping[str, Decision],
    stop: Stop | None,
) -> RunResult[Any]:
    """Run an agent in this process: the host that others are compared with."""

    def approver(pending: PendingCall) -> Decision | None:
        return decisions.get(pending.at)

    if stop is None:
        return await agent.run(prompt, deps=deps, approver=approver)
    async with agent.stream(prompt, deps=deps, approver=approver) as run:
        run.cancel(await stop())
        async for _ in run:
            pass
    return run.result


async def _run(case: Case, host: Host) -> _Ran:
    does: list[str] = []

    async def stop() -> str:
        while not does:  # noqa: ASYNC110 # a tool may append from another thread or event loop
            await anyio.sleep(0.01)
        return "the user pressed stop"

    agent, error = case.build(does), None
    stops = stop if case.stops else None
    try:
        result = await host(agent, "Go.", deps=case.deps, decisions=case.decisions, stop=stops)
    except Exception as raised:
        reached = result_of(raised)
        if reached is None:
            raise
        result, error = reached, _described(raised, reached)
    return _Ran(agent=agent, result=result, error=error, does=does)


def _described(error: Exception, result: RunResult[Any]) -> tuple[str, str] | None:
    if result.status == "cancelled":  # that is no failure: it may be raised or returned
        return None
    if isinstance(error, RecordedError):
        return error.type, error.message.removeprefix(f"{error.type}: ")
    return type(error).__name__, safe_str(error)


def _check_error(actual: tuple[str, str] | None, expected: tuple[str, str] | None) -> None:
    if actual is None or expected is None:
        _same("error", actual, expected)
        return
    _same("type of the error", actual[0], expected[0])
    assert expected[1] in actual[1], f"The error is {actual!r}; expected {expected!r}."


async def _check_replay(case: Case, actual: _Ran) -> None:
    """Check that the trace of a host replays, exactly, with the agent that it ran."""
    error = None
    before, trace = [*actual.does], actual.result.trace
    assert trace is not None
    try:
        replayed = await actual.agent.replay(trace)
    except Exception as raised:
        reached = result_of(raised)
        if reached is None:
            raise
        replayed, error = reached, _described(raised, reached)
    _same("error of the replay", error, actual.error)
    _same("status of the replay", replayed.status, actual.result.status)
    _same("messages of the replay", replayed.messages, actual.result.messages)
    _same("usage of the replay", replayed.usage, actual.result.usage)
    _same("what tools have done in the replay", [*actual.does], before)


def _same(what: str, actual: Any, expected: Any) -> None:
    assert actual == expected, f"The {what} is\n  {actual!r}\nand has to be\n  {expected!r}"
