"""A conversation of several runs, kept by the caller.

A session holds the history between runs of an agent, and nothing else: no
thread, no connection, no store. `to_json` gives what a store needs.
"""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Generic, TypeVar

from agentkit._options import options as named_options
from agentkit._options import wrong_options
from agentkit.agent import Agent, DepsT, OutputT, takes
from agentkit.errors import ConfigurationError
from agentkit.events import Emit
from agentkit.history import check_history, repair_history
from agentkit.messages import JsonObject, Usage, messages_from_json
from agentkit.models import Model
from agentkit.redaction import Redactor
from agentkit.replay.resume import Decisions
from agentkit.runtime.request import History, Prompt
from agentkit.runtime.result import RunResult, result_of
from agentkit.runtime.run import Run, Steps, block
from agentkit.runtime.scope import Approver
from agentkit.settings import ChatSettings, Limits
from agentkit.tools.invoke import run_blocking
from agentkit.trace.open import TraceTo
from agentkit.trace.reader import Trace
from agentkit.trace.recorder import Durability
from agentkit.trace.schema import Capture

__all__ = ["Session"]


_OPTIONS = (
    *("deps", "settings", "limits", "trace", "capture", "durability", "redact"),
    *("on_event", "approver", "model"),
)
_NOT_RECORDED = ("deps", "on_event", "approver", "durability", "redact", "model")
RunningT = TypeVar("RunningT", bound=Run[Any] | Steps[Any])


class Session(Generic[DepsT, OutputT]):
    """Runs an agent again and again on one growing history.

    Whatever ends a run, the session keeps what the run had reached: after an error or
    a cancellation `session.run(None)` goes on from there.

    Example:
        >>> from agentkit import Agent, Session
        >>> from agentkit.testing import ScriptedModel
        >>> session = Session(Agent(ScriptedModel(["Hello, Ada.", "Ada."])))
        >>> session.run_sync("I am Ada.").output
        'Hello, Ada.'
        >>> session.run_sync("Who am I?").output
        'Ada.'
        >>> len(session.messages)
        4

    Args:
        agent: The agent. It may be replaced between runs.
        history: Earlier messages.
        repair: Make a history valid that is not, instead of raising `InvalidHistory`.
        deps: Of every run, as `Agent.run` takes them; so are all that follow. Those that a
            single run has win.
        settings: Sampling parameters.
        limits: Where each run ends.
        trace: Where each run is recorded.
        capture: How much of it is recorded.
        durability: When a trace is brought to the disk.
        redact: Takes secrets out of traces.
        on_event: Called with each event.
        approver: Decides about calls that need approval.
        model: Instead of the agent's.

    Attributes:
        messages: The history so far; always valid.
        usage: What all runs have used. A paused run counts when it was resumed.

    Raises:
        InvalidHistory: `history` is not valid, and `repair` is not set.
    """

    @named_options
    def __init__(
        self,
        agent: Agent[DepsT, OutputT],
        *,
        history: History = (),
        repair: bool = False,
        deps: DepsT | None = None,
        settings: ChatSettings | None = None,
        limits: Limits | None = None,
        trace: TraceTo | None = None,
        capture: Capture | None = None,
        durability: Durability | None = None,
        redact: Redactor | None = None,
        on_event: Emit | None = None,
        approver: Approver | None = None,
        model: str | Model | None = None,
    ) -> None:
        self.agent = agent
        messages = () if history is None else messages_from_json(history)
        self.messages = repair_history(messages) if repair else messages
        check_history(self.messages)
        self.usage = Usage()
        self._running = False
        self._options = _given(locals())

    @named_options
    async def run(
        self,
        prompt: Prompt,
        *,
        deps: DepsT | None = None,
        settings: ChatSettings | None = None,
        limits: Limits | None = None,
        trace: TraceTo | None = None,
        capture: Capture | None = None,
        durability: Durability | None = None,
        redact: Redactor | None = None,
        on_event: Emit | None = None,
        approver: Approver | None = None,
        model: str | Model | None = None,
    ) -> RunResult[OutputT]:
        """Run the agent on the history and this prompt; see `Agent.run`.

        Raises:
            ConfigurationError: The session is in a run.
            AgentKitError: As of `Agent.run`.
        """
        options = {**self._options, **_given(locals())}
        with self._turn():
            return await self._driven(self.agent.iter(prompt, **options, history=self.messages))

    @takes(run)
    def run_sync(self, *args: Any, **options: Any) -> RunResult[OutputT]:
        """Run the agent from code that is not async; see `Agent.run_sync`."""
        return run_blocking(functools.partial(self.run, *args, **options))

    @takes(run)
    @block("stream")
    async def stream(self, prompt: Prompt, **options: Any) -> AsyncGenerator[Run[OutputT], None]:
        """Run the agent and read its events; see `Agent.stream`.

        The session has the new messages when the block has been left.
        """
        if wrong := options.keys() - {*_OPTIONS}:
            raise wrong_options("Session.run", sorted(wrong), _OPTIONS)
        options = {**self._options, **options}
        with self._turn():
            async with self._kept(
                self.agent.stream(prompt, **options, history=self.messages)
            ) as run:
                yield run

    @named_options
    async def resume(
        self,
        trace: Trace | str | os.PathLike[str],
        *,
        decisions: Decisions | None = None,
        deps: DepsT | None = None,
        settings: ChatSettings | None = None,
        limits: Limits | None = None,
        on_event: Emit | None = None,
        approver: Approver | None = None,
        durability: Durability | None = None,
        redact: Redactor | None = None,
        model: str | Model | None = None,
        force: bool = False,
    ) -> RunResult[OutputT]:
        """Go on with a paused or interrupted run of this session; see `Agent.resume`.

        Settings and limits are those that the run was given, unless they are given here; what
        else is not given here is the session's. The history is that of the run, which ends
        the session's messages.

        Raises:
            ConfigurationError: The session is in a run.
            AgentKitError: As of `Agent.resume`.
        """
        given = _given({**locals(), "trace": None})
        options = {**self._of_resume(), **given}
        with self._turn():
            stepped = self.agent.resume_iter(trace, decisions=decisions, force=force, **options)
            return await self._driven(stepped)

    @takes(resume)
    def resume_sync(self, *args: Any, **options: Any) -> RunResult[OutputT]:
        """Call `resume` from code that is not async; see `Agent.run_sync`."""
        return run_blocking(functools.partial(self.resume, *args, **options))

    @takes(resume)
    @block("stream")
    async def resume_stream(
        self, trace: Trace | str | os.PathLike[str], **options: Any
    ) -> AsyncGenerator[Run[OutputT], None]:
        """Go on with a run and read its events; see `Agent.resume_stream`."""
        options = {**self._of_resume(), **options}
        with self._turn():
            async with self._kept(self.agent.resume_stream(trace, **options)) as run:
                yield run

    def adopt(self, result: RunResult[Any]) -> None:
        """Continue from a result obtained elsewhere, for example from `Agent.resume`."""
        self.messages = result.messages
        if result.status != "paused":
            self.usage += result.usage

    def to_json(self) -> JsonObject:
        """Return the messages and the usage as JSON values, to be stored."""
        messages = [message.to_json() for message in self.messages]
        return {"messages": messages, "usage": self.usage.to_json()}

    @classmethod
    def from_json(
        cls, agent: Agent[DepsT, OutputT], data: Mapping[str, Any], **options: Any
    ) -> Session[DepsT, OutputT]:
        """Go on from what `to_json` returned; the options are those of `Session`.

        Raises:
            InvalidHistory: The messages are no valid history.
        """
        session = cls(agent, history=data["messages"], **options)
        session.usage = Usage.from_json(data["usage"])
        return session

    @contextmanager
    def _turn(self) -> Generator[None, None, None]:
        """Allow one run at a time: two would each go on without the other's messages."""
        if self._running:
            raise ConfigurationError("The session is in a run; wait for its end first.")
        self._running = True
        try:
            yield
        finally:
            self._running = False

    async def _driven(
        self, stepped: AbstractAsyncContextManager[Steps[OutputT]]
    ) -> RunResult[OutputT]:
        """Drive a run to its end. Steps have a result even where a cancellation ends it."""
        async with self._kept(stepped) as steps:
            async for _ in steps:
                pass
        return steps.result

    @asynccontextmanager
    async def _kept(
        self, running: AbstractAsyncContextManager[RunningT]
    ) -> AsyncGenerator[RunningT, None]:
        """Take over what a run has reached, whatever ends it."""
        begun: RunningT | None = None
        try:
            async with running as begun:
                yield begun
        finally:
            if begun is not None:
                self._keep(begun)

    def _of_resume(self) -> dict[str, Any]:
        """Return the options of the session that a run's trace does not have."""
        return {name: self._options[name] for name in _NOT_RECORDED if name in self._options}

    def _keep(self, ended: Run[Any] | Steps[Any]) -> None:
        try:
            result = ended.result
        except Exception as error:
            reached = result_of(error)
            if reached is None:
                return  # it never got to an end
            if len(reached.messages) < len(self.messages):
                return  # it was to go on, and ended before it had come as far again
            result = reached
        self.adopt(result)


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the options of a run that were given."""
    return {name: arguments[name] for name in _OPTIONS if arguments.get(name) is not None}
