"""A conversation of several runs, kept by the caller.

A session holds the history between runs of an agent, and nothing else: no
thread, no connection, no store. `to_json` gives what a store needs.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Generic

from agentkit._options import options as named_options
from agentkit._options import wrong_options
from agentkit.agent import Agent, DepsT, OutputT, takes
from agentkit.errors import ConfigurationError
from agentkit.events import Emit
from agentkit.history import check_history, repair_history
from agentkit.messages import JsonObject, Usage, messages_from_json
from agentkit.redaction import Redactor
from agentkit.runtime.request import History, Prompt
from agentkit.runtime.result import RunResult, result_of
from agentkit.runtime.run import Run, Steps
from agentkit.runtime.scope import Approver
from agentkit.settings import ChatSettings, Limits
from agentkit.tools.invoke import run_blocking
from agentkit.trace.open import TraceTo
from agentkit.trace.recorder import Durability
from agentkit.trace.schema import Capture

__all__ = ["Session"]


_OPTIONS = (
    *("deps", "settings", "limits", "trace", "capture", "durability", "redact"),
    *("on_event", "approver"),
)


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
    ) -> RunResult[OutputT]:
        """Run the agent on the history and this prompt; see `Agent.run`.

        Raises:
            ConfigurationError: The session is in a run.
            AgentKitError: As of `Agent.run`.
        """
        with self._turn(_given(locals())) as arguments:
            # Stepped, because steps have a result even where a cancellation ends the run.
            async with self.agent.iter(prompt, **arguments) as steps:
                try:
                    async for _ in steps:
                        pass
                finally:
                    self._keep(steps)
        return steps.result

    @takes(run)
    def run_sync(self, *args: Any, **options: Any) -> RunResult[OutputT]:
        """Run the agent from code that is not async; see `Agent.run_sync`."""
        return run_blocking(functools.partial(self.run, *args, **options))

    @takes(run)
    @asynccontextmanager
    async def stream(self, prompt: Prompt, **options: Any) -> AsyncGenerator[Run[OutputT], None]:
        """Run the agent and read its events; see `Agent.stream`.

        The session has the new messages when the block has been left.
        """
        with self._turn(options) as arguments:
            run: Run[OutputT] | None = None
            try:
                async with self.agent.stream(prompt, **arguments) as run:
                    yield run
            finally:
                if run is not None:
                    self._keep(run)

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
    def _turn(self, options: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Allow one run at a time: two would each go on without the other's messages."""
        if self._running:
            raise ConfigurationError("The session is in a run; wait for its end first.")
        if wrong := options.keys() - {*_OPTIONS}:
            raise wrong_options("Session.run", sorted(wrong), _OPTIONS)
        self._running = True
        try:
            yield {**self._options, **options, "history": self.messages}
        finally:
            self._running = False

    def _keep(self, ended: Run[OutputT] | Steps[OutputT]) -> None:
        try:
            result = ended.result
        except Exception as error:
            reached = result_of(error)
            if reached is None:
                return  # it never got to an end
            result = reached
        self.adopt(result)


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the options of a run that were given."""
    return {name: arguments[name] for name in _OPTIONS if arguments[name] is not None}
