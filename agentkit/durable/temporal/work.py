"""Performs one effect in an activity.

The handlers, the middleware, the redaction and the recorder are those of every other run. What
is different: the engine around owns the retries, sub-agents are asked for instead of run, and
what happened goes to the store.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from agentkit._attempts import attempt_outside
from agentkit.core.effects import (
    Compute,
    Decision,
    Effect,
    Failure,
    Handler,
    Interrupt,
    ModelCall,
    Outcome,
    PendingCall,
    ToolInvocation,
    ToolOutcome,
)
from agentkit.durable.temporal.blobs import Blobs
from agentkit.durable.temporal.data import (
    StoredOutcome,
    begins_anew,
    from_data,
    slim,
    slim_all,
    to_data,
)
from agentkit.durable.temporal.journal import Piece, PieceRecorder
from agentkit.durable.temporal.live import Publisher
from agentkit.errors import AgentKitError, ConfigurationError, RunCancelled, safe_str
from agentkit.messages import JsonObject, Message, ModelResponse, Usage
from agentkit.models.chat.errors import is_transient
from agentkit.redaction import Redactor
from agentkit.replay.answers import Recording
from agentkit.replay.engine import Choice, Do, Engine, Plan
from agentkit.runtime.assemble import Program, program_hash
from agentkit.runtime.driver import checked
from agentkit.runtime.handlers import live
from agentkit.runtime.lifetimes import Lifetimes
from agentkit.runtime.scope import Meter, Scope
from agentkit.runtime.slots import CallFrame
from agentkit.runtime.tool_call import RETRIED
from agentkit.settings import Limits
from agentkit.trace.reader import Trace


class Work:
    """One activity's effect: how it begins, goes on, and asks for the agents that it runs.

    Args:
        programs: The agents that are hosted, by name.
        blobs: The store.
        recorder: Records the effect.
        asked: What the workflow has sent. `children`: the pieces of the agents that have run
            for the effect, by address. `lost`: it was lost with its worker, or waited; `ask` or
            `fail` says how it goes on. `decision`: what was decided about it then.
        effect: The effect.
    """

    def __init__(
        self,
        programs: Mapping[str, Program[Any]],
        blobs: Blobs,
        recorder: PieceRecorder,
        asked: JsonObject,
        effect: ModelCall | ToolInvocation | Compute,
    ) -> None:
        self._programs = programs
        self._blobs = blobs
        self._recorder = recorder
        self._asked = asked
        self._effect = effect
        self._children: Mapping[str, str] = asked["children"]
        self._lost: str | None = asked.get("lost")
        self._engine: Engine | None = None
        self._began = False
        self._asked_for: dict[str, str] = {}

    async def perform(
        self, program: Program[Any], deps: Any, messages: tuple[Message, ...], publisher: Publisher
    ) -> JsonObject:
        """Perform the effect, and return its outcome and the name of what was recorded.

        Raises:
            ApplicationError: It is to be tried again; or nothing is known of its outcome.
        """
        asked, redact = self._asked, program.config.redact
        if isinstance(self._effect, ModelCall):
            self._recorder.knows(self._effect.request.messages[: asked["known"]])
        opened = await self._prepare(redact)
        scope = Scope(
            run=asked["run"],
            handler=self._handler,
            limits=Limits(**asked["limits"]),
            deps=deps,
            listener=publisher.emit,
            recorder=self._recorder,
            redact=redact,
            stream=publisher.listened,
            approver=self._decide,
            meter=Meter(Usage.from_json(asked["used"])),
            recorded=self._engine,
            resumed=self._engine is not None,
            messages=messages,
        )
        try:
            outcome = await self._outcome(scope, program)
            result: JsonObject = {"parts": [*_earlier(), await self._stored(opened)]}
            if outcome is None:
                return {**result, "cancelled": True}
            if self._asked_for and isinstance(outcome, Interrupt):
                return {**result, "children": await self._agents()}
            result["outcome"] = to_data(await self._small(outcome))
        except Exception as error:
            effect = self._effect
            asks = not isinstance(effect, ModelCall) and not begins_anew(effect)
            raise ApplicationError(
                f"{effect.at}: {type(error).__name__}: {safe_str(error)}",
                type="Interrupted",
                non_retryable=asks and self._began,
            ) from error
        self._retry(outcome, scope, result)
        return result

    async def _prepare(self, redact: Redactor) -> Piece:
        """Read what happened of the effect before, in other activities; return what is new."""
        effect, recorder = self._effect, self._recorder
        if not (self._children or self._lost):
            return Piece()
        if self._lost is not None:
            recorder.started(effect)
            if self._lost == "fail" and not isinstance(effect, ModelCall):
                self._effect = replace(effect, on_crash="fail")
        opened, journal = await recorder.piece(self._blobs), Piece()
        journal.take(opened)
        for name in (*self._asked["parts"], *self._children.values()):
            journal.take(await Piece.load(name, self._blobs))
        trace = Trace(await journal.lines(self._blobs, recorder.header))
        recording = Recording(trace, redact)
        self._engine = Engine(recording, _Plan(effect.at, self._lost is not None))
        return opened

    async def _outcome(self, scope: Scope, program: Program[Any]) -> Outcome | None:
        """Perform the effect; return None if it was cancelled."""
        make = live if self._engine is None else self._engine.handler
        attempt_outside.set(activity.info().attempt - 1)  # of this task alone
        try:
            async with _entered(program, self._effect) as entered:
                handler, self._began = make(scope, entered), True
                with CallFrame(self._effect.at, scope.frames):
                    return checked(self._effect, await handler.perform(self._effect))
        except asyncio.CancelledError:
            if activity.is_worker_shutdown():
                raise RuntimeError("its worker was shut down") from None
            return None

    async def _stored(self, piece: Piece) -> str:
        """Store what an effect has recorded; of a request, what is new in it."""
        piece.take(await self._recorder.piece(self._blobs))
        if self._asked.get("since") is not None:
            start = next(one for one in piece.events if one["event"] == "model.start")
            start["since"] = self._asked["since"]
            start["messages"] = start["messages"][self._asked["known"] :]
        return await piece.store(self._blobs)

    async def _small(self, outcome: Outcome) -> Outcome:
        """Return the outcome with what the loop reads of it, a large message stored."""
        match outcome:
            case ToolOutcome():
                message: Any = await slim(outcome.message, self._asked["run"], self._blobs)
                held: JsonObject = {one.name: getattr(outcome, one.name) for one in fields(outcome)}
                held |= {"message": message, "bytes": outcome.size}
                return StoredOutcome(**held)
            case ModelResponse(message=message, finish=finish, usage=usage):
                return ModelResponse(message=message, finish=finish, usage=usage)
            case _:
                return outcome

    def _retry(self, outcome: Outcome, scope: Scope, result: JsonObject) -> None:
        """Have Temporal try again what agentkit would have tried again.

        Raises:
            ApplicationError: It is to be tried again; its details are the outcome as it is, for
                the case that this was the last attempt.
        """
        delay, text = None, f"{self._effect.at} is tried again"
        if isinstance(outcome, Failure) and isinstance(self._effect, ModelCall):
            error = outcome.exception
            if not (isinstance(error, AgentKitError) and is_transient(error)):
                return
            seconds, text = getattr(error, "retry_after", None), outcome.message
            delay = None if seconds is None else timedelta(seconds=seconds)
        elif not any((one.code, one.at) == (RETRIED, self._effect.at) for one in scope.warnings):
            return
        activity.heartbeat({"parts": result["parts"]})
        raise ApplicationError(text, result, type="Retried", next_retry_delay=delay)

    def _decide(self, pending: PendingCall) -> Decision | None:
        """Return what was decided about a call that was lost with its worker."""
        return from_data(self._asked.get("decision"))

    # The agents that the effect runs

    def _handler(self, scope: Scope, program: Program[Any]) -> Handler:
        """Return the handlers of an agent that the effect runs."""
        at = program.spec.at
        if self._engine is not None and any(f"{at}/".startswith(f"{o}/") for o in self._children):
            return self._engine.handler(scope, program)
        return _Elsewhere(self, program)

    def ask_for(self, program: Program[Any]) -> Interrupt:
        """Note that an agent is to run in a workflow of its own; end the effect until it has."""
        at, name = program.spec.at, program.config.name
        known = self._programs.get(name)
        redact = Redactor(key="agentkit")
        if known is None or program_hash(known, redact) != program_hash(program, redact):
            which = "is not among" if known is None else "is another than the one of that name in"
            error = ConfigurationError(
                f"The agent {name!r}, which runs at {at}, {which} worker(agents=[…]). A sub-agent "
                "runs in a workflow of its own, so the worker has to host it: add it there."
            )
            return Interrupt(status="error", error=Failure.of(error))
        self._asked_for[at] = name
        error = RunCancelled(f"{at} runs in a workflow of its own.", reason="paused")
        return Interrupt(status="paused", error=Failure.of(error))

    async def _agents(self) -> list[JsonObject]:
        """Return the agents that are to run."""
        run, begun = self._asked["run"], self._recorder.begun
        return [
            {"at": at, "agent": name, "messages": await slim_all(begun[at], run, self._blobs)}
            for at, name in self._asked_for.items()
        ]


class _Plan(Plan):
    """The effect of an activity is performed, or goes on; what its agents did is answered."""

    def __init__(self, at: str, lost: bool) -> None:
        self._at = at
        self._lost = lost

    def choose(self, effect: Effect) -> Choice:
        if effect.at != self._at:
            return Do.ANSWER
        return Do.GO_ON if self._lost else Do.PERFORM


class _Elsewhere:
    """Asks for a sub-agent instead of performing the first of its effects."""

    def __init__(self, work: Work, program: Program[Any]) -> None:
        self._work = work
        self._program = program

    async def perform(self, effect: Effect) -> Outcome:
        """End the effect that runs the agent."""
        return self._work.ask_for(self._program)


@asynccontextmanager
async def _entered(program: Program[Any], effect: Effect) -> AsyncGenerator[Program[Any], None]:
    """Enter the toolsets that the effect may need, as a run enters them."""
    tool = effect.call.name if isinstance(effect, ToolInvocation) else ""
    if isinstance(effect, ModelCall) or tool in program.tools or not program.lifetimes:
        yield program
        return
    lifetimes = Lifetimes()
    try:
        for toolset in program.lifetimes:
            await lifetimes.enter(toolset, math.inf, lambda _: None)
        yield replace(program, entered=lifetimes.entered)
    finally:
        await lifetimes.leave(None)


def _earlier() -> list[str]:
    """Return the names of what the attempts before this one have recorded."""
    details = activity.info().heartbeat_details
    return list(details[0]["parts"]) if details else []


@asynccontextmanager
async def alive() -> AsyncGenerator[None, None]:
    """Tell the server that the activity is at work; that is also how it learns to stop."""
    info = activity.info()
    timeout = info.heartbeat_timeout
    seconds = timeout.total_seconds() / 3 if timeout is not None else 10.0

    async def beat() -> None:
        while True:
            await asyncio.sleep(seconds)
            activity.heartbeat(*info.heartbeat_details)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
