"""A conversation of several runs, kept by the caller.

A session holds the history between runs of an agent, and nothing else: no
thread, no connection, no store. `to_json` gives what a store needs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Generic, TypeVar, Unpack

from agentkit.agent import Agent, Prompt, RunOptions, run_blocking
from agentkit.errors import ConfigurationError
from agentkit.history import check_history, repair_history
from agentkit.messages import JsonObject, Usage, messages_from_json
from agentkit.runtime.result import RunResult, result_of
from agentkit.runtime.run import Run, Steps

__all__ = ["Session"]

OutputT = TypeVar("OutputT")


class Session(Generic[OutputT]):
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
        **options: `RunOptions` of every run; those of a single run win.

    Attributes:
        messages: The history so far; always valid.
        usage: What all runs have used. A paused run counts when it was resumed.

    Raises:
        InvalidHistory: `history` is not valid, and `repair` is not set.
    """

    def __init__(self, agent: Agent[OutputT], **options: Unpack[RunOptions]) -> None:
        self.agent = agent
        messages = messages_from_json(options.pop("history", ()))
        self.messages = repair_history(messages) if options.pop("repair", False) else messages
        check_history(self.messages)
        self.usage = Usage()
        self._options = options
        self._running = False

    async def run(self, prompt: Prompt, **options: Unpack[RunOptions]) -> RunResult[OutputT]:
        """Run the agent on the history and this prompt; see `Agent.run`.

        Raises:
            ConfigurationError: The session is in a run, or `history` is among the options.
            AgentKitError: As of `Agent.run`.
        """
        with self._turn(options) as given:
            # Stepped, because steps have a result even where a cancellation ends the run.
            async with self.agent.iter(prompt, **given) as steps:
                try:
                    async for _ in steps:
                        pass
                finally:
                    self._keep(steps)
        return steps.result

    def run_sync(self, prompt: Prompt, **options: Unpack[RunOptions]) -> RunResult[OutputT]:
        """`run`, for code that is not async; see `Agent.run_sync`."""

        async def main() -> RunResult[OutputT]:
            return await self.run(prompt, **options)

        return run_blocking(main)

    @asynccontextmanager
    async def stream(
        self, prompt: Prompt, **options: Unpack[RunOptions]
    ) -> AsyncGenerator[Run[OutputT], None]:
        """Run the agent and read its events; see `Agent.stream`.

        The session has the new messages when the block has been left.
        """
        with self._turn(options) as given:
            run: Run[OutputT] | None = None
            try:
                async with self.agent.stream(prompt, **given) as run:
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
        """The messages and the usage as JSON values, to be stored."""
        messages = [message.to_json() for message in self.messages]
        return {"messages": messages, "usage": self.usage.to_json()}

    @classmethod
    def from_json(
        cls, agent: Agent[OutputT], data: Mapping[str, Any], **options: Unpack[RunOptions]
    ) -> Session[OutputT]:
        """A session that goes on from what `to_json` gave.

        Raises:
            InvalidHistory: The messages are no valid history.
        """
        session = cls(agent, **{**options, "history": data["messages"]})
        session.usage = Usage.from_json(data["usage"])
        return session

    @contextmanager
    def _turn(self, options: RunOptions) -> Generator[RunOptions, None, None]:
        """One run at a time: two would each go on without the other's messages."""
        if self._running:
            raise ConfigurationError("The session is in a run; wait for its end first.")
        if "history" in options:
            raise ConfigurationError("A session has its own history; start another session.")
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
