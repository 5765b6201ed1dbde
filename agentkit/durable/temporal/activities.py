"""Performs the effects of hosted runs: each activity is one effect, as a process would do it.

The handlers, the middleware, the redaction and the recorder are those of every other run. What
is different: the engine around owns the retries, sub-agents are asked for instead of run, and
what happened goes to the store.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from agentkit._attempts import attempt_outside
from agentkit.core.effects import (
    Address,
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
    Threads,
    compute_from_json,
    decision_from_json,
    finish_from_json,
    invocation_from_json,
    outcome_to_json,
    slim,
    slim_all,
    whole_all,
)
from agentkit.durable.temporal.journal import Assembly, Piece, PieceRecorder
from agentkit.durable.temporal.live import Publisher
from agentkit.durable.temporal.versions import described, hosted
from agentkit.errors import AgentKitError, ConfigurationError, RunCancelled, safe_str
from agentkit.messages import (
    ForcedTool,
    JsonObject,
    Message,
    ModelRequest,
    ToolDefinition,
    Usage,
    is_object,
)
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
from agentkit.tools.invoke import called
from agentkit.trace.naming import unpacked

Deps = Callable[[Any], Any]
"""Makes the deps of a run from the reference that it was started with; sync or async."""


class Activities:
    """What a worker performs.

    Args:
        programs: The agents, by name.
        blobs: The store.
        deps: Makes the deps of a run.
    """

    def __init__(
        self, programs: Mapping[str, Program[Any]], blobs: Blobs, deps: Deps | None
    ) -> None:
        self._programs = programs
        self._blobs = blobs
        self._deps = deps
        self._threads = Threads(blobs)

    @property
    def all(self) -> Sequence[Callable[..., Any]]:
        """The activities of the worker."""
        return [
            self.begin,
            self.model,
            self.tool,
            self.compute,
            self.keep,
            self.recall,
            self.finish,
        ]

    @activity.defn(name="agentkit.begin")
    async def begin(self, asked: JsonObject) -> JsonObject:
        """Check that the run can be performed here, before anything of it is."""
        program = self._program(asked)
        try:
            program.model.check()
            deps = await self._rebuilt(asked["deps_ref"])
            program.config.check_deps(deps)
        except ConfigurationError as error:
            raise _refused(error) from error
        return {"program": described(program), "limits": asdict(program.spec.limits)}

    @activity.defn(name="agentkit.model")
    async def model(self, asked: JsonObject, tools: list[JsonObject] | None) -> JsonObject:
        """Ask the model."""
        program, run = self._program(asked), asked["run"]
        messages, base = await self._threads.extend(asked["base"], asked["new"], run)
        spec, choice = program.spec, asked["tool_choice"]
        if tools is None:
            fixed = tuple(one.definition for one in spec.tools)
            offered = fixed if spec.output.tool is None else (*fixed, spec.output.tool)
        else:
            offered = tuple(map(ToolDefinition.from_json, tools))
        request = ModelRequest(
            messages=messages,
            tools=offered,
            tool_choice=ForcedTool(name=choice["name"]) if is_object(choice) else choice,
            output=spec.output.format,
            settings=unpacked(asked["settings"]) if "settings" in asked else spec.settings,
        )
        effect = ModelCall(at=Address(asked["at"]), model=spec.model, request=request)
        return {**await self._perform(asked, program, effect), "base": base}

    @activity.defn(name="agentkit.tool")
    async def tool(self, asked: JsonObject) -> JsonObject:
        """Run a tool."""
        program = self._program(asked)
        effect = invocation_from_json(asked["effect"])
        known = program.tools.get(effect.call.name)
        messages: tuple[Message, ...] = ()
        if known is None or known.takes_context:
            messages = await self._threads.load(asked["base"], asked["run"])
        return await self._perform(asked, program, effect, messages)

    @activity.defn(name="agentkit.compute")
    async def compute(self, asked: JsonObject) -> JsonObject:
        """Call a function of the application's."""
        program = self._program(asked)
        effect = compute_from_json(asked["effect"])
        if effect.name == "compact":
            history = await whole_all(effect.input, asked["run"], self._blobs)
            effect = replace(effect, input=history)
        return await self._perform(asked, program, effect)

    @activity.defn(name="agentkit.keep")
    async def keep(self, done: JsonObject) -> str:
        """Store what a workflow has done, for the one that continues it."""
        return await self._blobs.put(json.dumps(done).encode())

    @activity.defn(name="agentkit.recall")
    async def recall(self, name: str) -> JsonObject:
        """Return what a workflow before this one has done."""
        return json.loads(await self._blobs.get(name))

    @activity.defn(name="agentkit.finish")
    async def finish(self, asked: JsonObject) -> JsonObject:
        """Put the trace together and store it."""
        async with _alive():
            run, root = asked["run"], self._programs[asked["agent"]]
            recorder = self._recorder(asked, root)
            assembly = Assembly(self._blobs, recorder)
            if asked["nested"]:
                await assembly.run(asked["log"])
                return {"piece": await assembly.piece.store(self._blobs)}
            log, ended = asked["log"], asked["ended"]
            at = root.spec.at
            began = log[0][1] if log else 0
            messages = await whole_all(asked["messages"], run, self._blobs)
            assembly.own(
                began, recorder.agent_start(at, root.config.name, messages, asked["earlier"])
            )
            for note in root.notes:
                assembly.own(began, recorder.note(note))
            await assembly.run(await self._whole_log(log, run))
            last = log[-1][1] if log else 0
            finish = finish_from_json(ended)
            for agent in [*reversed(asked["agents"]), at]:
                assembly.own(last, recorder.agent_end(Address(agent), finish))
            lines = assembly.piece.lines(recorder.header, ended["status"])
            place = f"traces/{run}.jsonl"
            await self._blobs.write(place, b"".join(lines))
            return {"trace": place}

    async def _whole_log(self, log: Sequence[Any], run: str) -> list[Any]:
        """Return the log with the messages that it holds as they are."""
        entries: list[Any] = []
        for kind, t, *rest in log:
            if kind == "agent":
                messages = await whole_all(rest[2], run, self._blobs)
                rest = [*rest[:2], [one.to_json() for one in messages], rest[3]]
            entries.append([kind, t, *rest])
        return entries

    def _program(self, asked: JsonObject) -> Program[Any]:
        """Return the agent that has the conversation.

        Raises:
            RuntimeError: This worker does not have it; another one may.
        """
        program = hosted(self._programs, asked["agent"])
        for taker in asked["path"]:
            program = program.handoffs[taker]()
        at = Address(asked["of"])
        return replace(program, spec=replace(program.spec, at=at))

    async def _rebuilt(self, ref: Any) -> Any:
        """Rebuild the deps of a run.

        Raises:
            ConfigurationError: The function that does it fails, or there is none.
        """
        if ref is None:
            return None
        if self._deps is None:
            raise ConfigurationError(
                f"The run has deps_ref={ref!r}, and the worker cannot make deps of it: pass a "
                "function of the reference as worker(deps=…)."
            )
        try:
            return await called(self._deps, ref)
        except Exception as error:
            raise ConfigurationError(
                f"The deps of the run cannot be rebuilt from deps_ref={ref!r}: "
                f"{type(error).__name__}: {safe_str(error)}."
            ) from error

    def _recorder(
        self, asked: JsonObject, program: Program[Any], stream: bool = False
    ) -> PieceRecorder:
        redact = program.config.redact
        return PieceRecorder(
            run=asked["run"],
            program=lambda: program_hash(program, redact),
            redact=redact,
            stream=stream,
        )

    async def _perform(
        self,
        asked: JsonObject,
        program: Program[Any],
        effect: ModelCall | ToolInvocation | Compute,
        messages: tuple[Message, ...] = (),
    ) -> JsonObject:
        """Perform one effect, and return its outcome and what was recorded."""
        info = activity.info()
        try:
            deps = await self._rebuilt(asked["deps_ref"])
        except ConfigurationError as error:
            raise ApplicationError(str(error), type="ConfigurationError") from error
        async with _alive(), Publisher.of(self._blobs, asked["run"]) as publisher:
            recorder = self._recorder(asked, program, publisher.listened)
            if isinstance(effect, ModelCall):
                recorder.knows(effect.request.messages[: asked["known"]])
            work = _Work(self._programs, asked, recorder, effect)
            await work.prepare(self._blobs, program.config.redact)
            scope = Scope(
                run=asked["run"],
                handler=work.handler,
                limits=Limits(**asked["limits"]),
                deps=deps,
                listener=publisher.emit,
                recorder=recorder,
                redact=program.config.redact,
                stream=publisher.listened,
                approver=work.decide,
                meter=Meter(used=Usage.from_json(asked["used"])),
                recorded=work.engine,
                resumed=work.engine is not None,
                messages=messages,
            )
            earlier = list(info.heartbeat_details[0]["parts"]) if info.heartbeat_details else []
            token = attempt_outside.set(info.attempt - 1)
            began = False
            cancelled = False
            outcome: Outcome | None = None
            try:
                async with self._entered(program, effect) as entered:
                    handler, began = work.performing(scope, entered), True
                    with CallFrame(effect.at, scope.frames):
                        outcome = checked(effect, await handler.perform(work.effect))
            except asyncio.CancelledError:
                if activity.is_worker_shutdown():
                    error = RuntimeError("its worker was shut down")
                    raise _broken(effect, error, began) from None
                cancelled = True
            except Exception as error:
                raise _broken(effect, error, began) from error
            finally:
                attempt_outside.reset(token)
            try:
                part = await self._stored(recorder, asked)
                result: JsonObject = {"parts": [*earlier, part]}
                if cancelled:
                    return {**result, "cancelled": True}
                if work.asked_for and isinstance(outcome, Interrupt):
                    return {**result, "children": await work.children(self._blobs)}
                assert outcome is not None
                result["outcome"] = outcome_to_json(await self._slim(outcome, asked["run"]))
            except Exception as error:
                raise _broken(effect, error, began) from error
            self._retry(effect, outcome, scope, result)
            return result

    async def _stored(self, recorder: PieceRecorder, asked: JsonObject) -> str:
        """Store what an effect has recorded; of a request, what is new in it."""
        piece = recorder.piece()
        if asked.get("since") is not None:
            start = next(one for one in piece.events if one["event"] == "model.start")
            start["since"], start["messages"] = asked["since"], start["messages"][asked["known"] :]
        return await piece.store(self._blobs)

    async def _slim(self, outcome: Outcome, run: str) -> Outcome:
        if not isinstance(outcome, ToolOutcome):
            return outcome
        message: Any = await slim(outcome.message, run, self._blobs)
        return StoredOutcome(
            at=outcome.at,
            status=outcome.status,
            message=message,
            error=outcome.error,
            fatal=outcome.fatal,
            usage=outcome.usage,
            bytes=outcome.size,
        )

    def _retry(self, effect: Effect, outcome: Outcome, scope: Scope, result: JsonObject) -> None:
        """Have Temporal try again what agentkit would have tried again.

        Raises:
            ApplicationError: It is to be tried again; its details are the outcome as it is, for
                the case that this was the last attempt.
        """
        delay: float | None = None
        if isinstance(outcome, Failure) and isinstance(effect, ModelCall):
            error = outcome.exception
            if not (isinstance(error, AgentKitError) and is_transient(error)):
                return
            delay, text = getattr(error, "retry_after", None), outcome.message
        elif any(one.code == RETRIED and one.at == effect.at for one in scope.warnings):
            text = f"{effect.at} is tried again"
        else:
            return
        activity.heartbeat({"parts": result["parts"]})
        raise ApplicationError(
            text,
            result,
            type="Retried",
            next_retry_delay=None if delay is None else timedelta(seconds=delay),
        )

    @asynccontextmanager
    async def _entered(
        self, program: Program[Any], effect: Effect
    ) -> AsyncGenerator[Program[Any], None]:
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


class _Plan(Plan):
    """The effect of an activity is performed, or goes on; what its agents did is answered."""

    def __init__(self, at: Address, lost: bool) -> None:
        self._at = at
        self._lost = lost

    def choose(self, effect: Effect) -> Choice:
        if effect.at != self._at:
            return Do.ANSWER
        return Do.GO_ON if self._lost else Do.PERFORM


class _Work:
    """One activity's effect: how it begins, goes on, and asks for the agents that it runs.

    Attributes:
        effect: The effect.
        engine: Answers what happened of it before.
        asked_for: The agents that are to run, by address.
    """

    def __init__(
        self,
        programs: Mapping[str, Program[Any]],
        asked: JsonObject,
        recorder: PieceRecorder,
        effect: Effect,
    ) -> None:
        self.effect = effect
        self.engine: Engine | None = None
        self._programs = programs
        self._asked = asked
        self._recorder = recorder
        self._children: Mapping[str, str] = asked.get("children", {})
        self._lost: str | None = asked.get("lost")
        self._decision: JsonObject | None = asked.get("decision")
        self.asked_for: dict[str, str] = {}

    def decide(self, pending: PendingCall) -> Decision | None:
        """Return what was decided about a call that was lost with its worker."""
        return None if self._decision is None else decision_from_json(self._decision)

    async def prepare(self, blobs: Blobs, redact: Redactor) -> None:
        """Read what happened of the effect before, in other activities."""
        effect = self.effect
        if not (self._children or self._lost):
            return
        if self._lost is not None:
            self._recorder.started(effect)
            if self._lost == "fail" and isinstance(effect, (ToolInvocation, Compute)):
                self.effect = replace(effect, on_crash="fail")
        journal = Piece()
        own = self._recorder.piece()
        journal.take(own, own.events)
        for name in (*self._asked["parts"], *self._children.values()):
            piece = await Piece.load(name, blobs)
            journal.take(piece, piece.events)
        recording = Recording(journal.trace(self._recorder.header), redact)
        self.engine = Engine(recording, _Plan(effect.at, self._lost is not None))

    def performing(self, scope: Scope, program: Program[Any]) -> Handler:
        """Return the handlers of the effect itself."""
        return (live if self.engine is None else self.engine.handler)(scope, program)

    def handler(self, scope: Scope, program: Program[Any]) -> Handler:
        """Return the handlers of an agent that the effect runs."""
        at = program.spec.at
        if self.engine is not None and any(f"{at}/".startswith(f"{o}/") for o in self._children):
            return self.engine.handler(scope, program)
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
        self.asked_for[at] = name
        error = RunCancelled(f"{at} runs in a workflow of its own.", reason="paused")
        return Interrupt(status="paused", error=Failure.of(error))

    async def children(self, blobs: Blobs) -> list[JsonObject]:
        """Return the agents that are to run."""
        run, begun = self._asked["run"], self._recorder.begun
        return [
            {"at": at, "agent": name, "messages": await slim_all(begun[at], run, blobs)}
            for at, name in self.asked_for.items()
        ]


class _Elsewhere:
    """Asks for a sub-agent instead of performing the first of its effects."""

    def __init__(self, work: _Work, program: Program[Any]) -> None:
        self._work = work
        self._program = program

    async def perform(self, effect: Effect) -> Outcome:
        """End the effect that runs the agent."""
        return self._work.ask_for(self._program)


@asynccontextmanager
async def _alive() -> AsyncGenerator[None, None]:
    """Tell the server that the activity is at work; that is also how it learns to stop."""
    timeout = activity.info().heartbeat_timeout
    seconds = timeout.total_seconds() / 3 if timeout is not None else 10.0
    details = activity.info().heartbeat_details

    async def beat() -> None:
        while True:
            await asyncio.sleep(seconds)
            activity.heartbeat(*details)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _refused(error: ConfigurationError) -> ApplicationError:
    return ApplicationError(
        error.message, error.data(), type=type(error).__name__, non_retryable=True
    )


def _broken(effect: Effect, error: Exception, began: bool) -> ApplicationError:
    """Return how an activity fails that could not say how its effect ended."""
    writes = isinstance(effect, (ToolInvocation, Compute)) and effect.effect == "write"
    text = f"{effect.at}: {type(error).__name__}: {safe_str(error)}"
    return ApplicationError(text, type="Interrupted", non_retryable=writes and began)
