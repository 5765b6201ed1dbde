"""The loop as a workflow: effects out as activities, outcomes in from the history.

This is to Temporal what `runtime/driver.py` is to one process. The loop is
`agentkit.core.loop.conversation` itself; nothing here decides what an agent does. It runs in
the sandbox of the SDK, on the workflow's own event loop, which knows neither time nor I/O.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception
from temporalio.workflow import ActivityCancellationType, ChildWorkflowCancellationType

from agentkit.core.effects import (
    Address,
    Compute,
    Failure,
    Interrupt,
    LoopEffect,
    ModelCall,
    Outcome,
    Pause,
    PendingCall,
    SkippedCall,
    ToolBatch,
    ToolInvocation,
)
from agentkit.core.loop import conversation, limit_reached
from agentkit.core.spec import Finish
from agentkit.durable.temporal.data import (
    compute_to_json,
    decision_from_json,
    failure_to_json,
    finish_to_json,
    invocation_to_json,
    outcome_from_json,
    pending_from_json,
    pending_to_json,
    plain,
    skipped_to_json,
)
from agentkit.durable.temporal.versions import FORMAT, Changes, described, hosted
from agentkit.messages import (
    NO_USAGE,
    ForcedTool,
    JsonObject,
    Message,
    ModelResponse,
    SystemMessage,
    Usage,
    message_from_json,
)
from agentkit.runtime.assemble import Program
from agentkit.runtime.batch import Batch
from agentkit.runtime.driver import interrupted
from agentkit.runtime.slots import Frames
from agentkit.settings import Limits

HOSTED = "agentkit_hosted"
"""The name under which a workflow gets what its worker hosts."""
_CRASHES = ["TemporalTimeout:Heartbeat", "TemporalTimeout:StartToClose"]
_SHORT = timedelta(minutes=1)


class Hosted:
    """What a worker hosts, as its workflows see it.

    Attributes:
        programs: The agents, by name.
        heartbeat: Seconds without a sign of life after which an activity counts as lost.
        patience: Seconds for which a failing model is asked again.
        timeout: Seconds that an attempt may take at most.
        attempts: How often what does no harm is begun, where its worker is lost each time.
        events: Events in a history above which it is continued in a new one; None leaves that
            to the server.
    """

    def __init__(
        self,
        programs: Mapping[str, Program[Any]],
        *,
        heartbeat: float,
        patience: float,
        timeout: float,
        attempts: int,
        events: int | None,
    ) -> None:
        self.programs = programs
        self.heartbeat = timedelta(seconds=heartbeat)
        self.patience = timedelta(seconds=patience)
        self.timeout = timedelta(seconds=timeout)
        self.attempts = attempts
        self.events = events


@workflow.defn(name="agentkit.run")
class AgentWorkflow:
    """One run of an agent, or of a sub-agent."""

    def __init__(self) -> None:
        self._decisions: dict[str, JsonObject] = {}
        self._waiting: dict[str, PendingCall] = {}
        self._below: dict[str, list[JsonObject]] = {}
        self._cancelled: str | None = None
        self._stopped: BaseException | None = None
        self._log: list[list[Any]] = []
        self._results: dict[str, Any] = {}
        self._past: dict[str, Any] = {}
        self._behind = False
        self._messages: tuple[Message, ...] = ()
        self._running: dict[str, str] = {}
        self._path: list[str] = []
        self._base: str | None = None
        self._sent: tuple[Message, ...] = ()
        self._last: Address | None = None
        self._last_effect: Address | None = None
        self._elapsed = 0.0
        self._new: list[Message] = []
        self._status = "running"
        self._ended: Finish[Any] | None = None

    @workflow.run
    async def run(self, start: JsonObject) -> JsonObject:
        """Run the agent to its end.

        Args:
            start: As `client.start` makes it, or this workflow for its sub-agents and for what
                goes on with it.
        """
        if start["format"] != FORMAT:
            text = f"This run is of the format {start['format']}, and this worker knows {FORMAT}."
            raise ApplicationError(
                f"{text} Run it on with workers of agentkit {start['agentkit']}.",
                type="ConfigurationError",
                non_retryable=True,
            )
        given = cast("Mapping[str, Any]", workflow.extern_functions())  # pyright: ignore[reportUnknownMemberType]  # the SDK's
        self._hosted: Hosted = given[HOSTED]()
        self._start = start
        self._cancelled = start.get("cancelled")
        self._decisions = {**start.get("decisions", {}), **self._decisions}
        self._elapsed = start.get("elapsed", 0.0)
        self._used = Usage.from_json(start["used"])
        program = hosted(self._hosted.programs, start["agent"])
        if "begun" not in start:
            asked = {**self._common(), "messages": start["messages"]}
            begun = await self._activity("begin", "begin", asked, attempts=3)
            start["begun"] = begun
        self._changes = Changes(start["begun"]["program"], described(program))
        self._limits = Limits(**start["begun"]["limits"])
        self._bounds = Limits(**(start["limits"] or start["begun"]["limits"]))
        parallel = self._limits.parallel
        self._slots = asyncio.Semaphore(parallel) if parallel is not None else None
        await self._recall(start.get("chunks", []))
        messages = tuple(map(message_from_json, start["messages"]))
        effect = self._enter(program, Address(start["at"]), messages, NO_USAGE)
        while effect is not None:
            self._behind = self._behind and _key(effect) in self._past
            await self._continue_as_new()
            effect = self._send(await self._outcome(effect))
        finish = await asyncio.shield(self._finish())
        if self._stopped is not None:
            raise self._stopped
        return finish

    # From outside

    @workflow.signal
    async def decide(self, at: str, decision: JsonObject) -> None:
        """Take a decision about a call; the first one counts."""
        self._decisions.setdefault(at, decision)
        await self._pass_on()

    @workflow.update
    async def decide_now(self, at: str, decision: JsonObject) -> None:
        """Take a decision about a call that waits."""
        await self.decide(at, decision)

    @decide_now.validator
    def _check_decision(self, at: str, decision: JsonObject) -> None:
        decision_from_json(decision)
        waiting = [one["at"] for one in self._pending()]
        if at not in waiting:
            known = ", ".join(waiting) or "none"
            raise ValueError(f"No call waits at {at!r}; those that wait: {known}.")

    @workflow.signal
    def cancel(self, reason: str) -> None:
        """End the run; what has finished is kept."""
        self._cancelled = self._cancelled or reason

    @workflow.signal
    async def waits_below(self, at: str, pending: list[JsonObject]) -> None:
        """Learn what a sub-agent waits for."""
        self._below[at] = pending
        await self._tell_parent()
        await self._pass_on()

    @workflow.query
    def status(self) -> JsonObject:
        """Return how far the run is."""
        pending = self._pending()
        waits = self._status == "running" and pending and not self._running
        return {
            "status": "paused" if waits else self._status,
            "running": [*self._running],
            "pending": pending,
            "usage": self._used.to_json(),
        }

    @workflow.query
    def messages(self) -> list[JsonObject]:
        """Return the conversation so far."""
        return [one.to_json() for one in self._messages]

    def _pending(self) -> list[JsonObject]:
        below = [one for some in self._below.values() for one in some]
        own = map(pending_to_json, self._waiting.values())
        return [one for one in (*own, *below) if one["at"] not in self._decisions]

    async def _pass_on(self) -> None:
        """Give a sub-agent the decisions that are meant for it."""
        for child in self._below:
            for at in [one for one in self._decisions if one.startswith(f"{child}/")]:
                decision = self._decisions.pop(at)
                self._below[child] = [one for one in self._below[child] if one["at"] != at]
                await self._other(f"{self._start['root']}{child}").signal(
                    "decide", args=[at, decision]
                )

    async def _tell_parent(self) -> None:
        parent = workflow.info().parent
        if parent is not None:
            await self._other(parent.workflow_id).signal(
                "waits_below", args=[self._start["at"], self._pending()]
            )

    def _other(self, workflow_id: str) -> Any:
        return workflow.get_external_workflow_handle(workflow_id)

    # The loop

    def _enter(
        self, program: Program[Any], at: Address, messages: Sequence[Message], usage: Usage
    ) -> LoopEffect | None:
        """Let an agent go on with the conversation; return its first effect."""
        self._agent = replace(program, spec=replace(program.spec, at=at, limits=self._limits))
        self._messages = tuple(messages)
        self._loop = conversation(self._agent.spec, messages, usage)
        return self._send(None)

    def _send(self, outcome: Outcome | None) -> LoopEffect | None:
        """Send the loop an outcome; return the next effect, or None at the end."""
        try:
            effect = self._loop.send(outcome)
            while isinstance(effect, SkippedCall):
                self._note("skip", skipped_to_json(effect))
                effect = self._loop.send(None)
            return effect
        except StopIteration as stop:
            finish: Finish[Any] = stop.value
        self._new += finish.new
        if finish.handoff is None:
            self._ended = replace(finish, new=tuple(self._new))
            return None
        name, at = finish.handoff
        self._path.append(name)
        program = self._agent.handoffs[name]()
        shown = [one.to_json() for one in finish.messages]
        self._note("agent", at, program.config.name, shown, len(shown))
        return self._enter(program, at, finish.messages, finish.usage)

    def _note(self, kind: str, *data: Any) -> list[Any]:
        """Keep what happened, for the trace; not a second time in a continued workflow."""
        entry = [kind, workflow.time_ns() // 1000, *data]
        if not self._behind:
            self._log.append(entry)
        return entry

    # Effects

    async def _outcome(self, effect: LoopEffect) -> Outcome:
        """Have one effect performed, unless the run has to end before."""
        self._check(effect)
        self._last_effect = effect.at
        work = Batch(effect, _unused, Frames()) if isinstance(effect, ToolBatch) else None
        calls = 0 if work is None else len(work.calls)
        if calls and (reached := limit_reached(self._bounds, self._used, calls)) is not None:
            return Interrupt(status="limit", error=reached)
        if not self._behind and self._cancelled is not None:
            return self._interrupt(work)
        task = asyncio.create_task(self._perform(effect, work))
        began, left = workflow.time(), None
        if self._limits.seconds is not None and not isinstance(effect, Pause):
            left = max(self._limits.seconds - self._elapsed, 0.0)
        try:
            await workflow.wait_condition(
                lambda: task.done() or self._cancelled is not None, timeout=left
            )
        except asyncio.CancelledError as error:
            self._stopped, self._cancelled = error, self._cancelled or "its workflow was cancelled"
        except TimeoutError:
            pass
        if not task.done():
            task.cancel()
            await workflow.wait([task])
        if not isinstance(effect, Pause):
            self._elapsed += workflow.time() - began
        if not _was_cancelled(task):
            return task.result()
        if work is not None and len(work.finished) == len(work.calls):
            return work.outcomes()  # it came too late for this batch
        return self._interrupt(work)

    def _interrupt(self, work: Batch | None) -> Interrupt:
        """Return what ended the run: `cancel`, or its deadline."""
        outcomes = () if work is None else work.outcomes()
        return interrupted(self._cancelled, self._limits, outcomes)

    def _check(self, effect: LoopEffect) -> None:
        """Refuse to go through what another version of the agent has decided differently."""
        if not (self._behind or workflow.unsafe.is_replaying()):
            return
        refused = self._changes.refused(effect.at)
        for at, name in _calls_of(effect):
            refused = refused or self._changes.refused_call(at, name)
        if refused is not None:
            raise refused  # of this task: the run waits for workers that can go on with it

    async def _perform(self, effect: LoopEffect, work: Batch | None) -> Outcome:
        match effect:
            case ModelCall():
                return await self._model(effect)
            case Compute() | ToolInvocation():
                return await self._work(effect)
            case Pause():
                return await self._pause(effect)
            case ToolBatch():
                assert work is not None
                return await self._batch(work)

    async def _model(self, call: ModelCall) -> Outcome:
        request = call.request
        known = len(self._sent)
        if request.messages[:known] != self._sent:
            self._base, known, self._last = None, 0, None
        new = [one.to_json() for one in request.messages[known:]]
        same_agent = self._last is not None and self._last.parent == call.at.parent
        spec, choice = self._agent.spec, request.tool_choice
        asked = {
            **self._common(),
            "at": call.at,
            "base": self._base,
            "new": new,
            "known": known,
            "since": self._last if same_agent else None,
            "tool_choice": {"name": choice.name} if isinstance(choice, ForcedTool) else choice,
        }
        if spec.step_settings:
            asked["settings"] = plain(request.settings)
        tools = [one.to_json() for one in request.tools] if spec.toolsets else None
        self._messages = tuple(o for o in request.messages if not isinstance(o, SystemMessage))

        async def perform(entry: list[Any], more: JsonObject) -> JsonObject:
            return await self._activity(
                "model", call.at, asked, tools, summary=call.model, patience=self._hosted.patience
            )

        result = await self._recorded(call, perform)
        self._base, self._sent, self._last = result["base"], request.messages, call.at
        outcome = outcome_from_json(call, result["outcome"])
        if isinstance(outcome, ModelResponse):
            self._messages = (*self._messages, outcome.message)
        return outcome

    async def _batch(self, work: Batch) -> Outcome:
        for stage in work.stages():
            if work.interrupt is None:
                await asyncio.gather(*(self._one(work, *one) for one in stage))
        outcomes = work.outcomes()
        self._messages = (*self._messages, *(one.message for one in outcomes))
        self._used += Usage(tool_calls=len(work.calls))
        if work.interrupt is not None:
            return replace(work.interrupt, outcomes=outcomes, usage=NO_USAGE)
        return outcomes

    async def _one(self, work: Batch, index: int, invocation: ToolInvocation) -> None:
        work.ended(index, cast("Any", await self._work(invocation)))

    async def _work(self, effect: ToolInvocation | Compute) -> Outcome:
        """Have a tool or a function run, with the agents that it runs and the people it needs."""
        tool = isinstance(effect, ToolInvocation)
        asked = invocation_to_json(effect) if tool else compute_to_json(effect)
        name = effect.call.name if tool else effect.name
        known = self._agent.tools.get(name) if tool else None
        retried = (effect.on_crash or {"read": "retry"}.get(effect.effect)) == "retry"
        attempts = max(self._hosted.attempts, 1 + (known.retries if known else 0))

        async def perform(entry: list[Any], more: JsonObject) -> JsonObject:
            details = {**self._common(), "base": self._base, "effect": asked, **more}
            details |= {"parts": entry[3], "children": entry[4]}
            async with self._slots if tool and self._slots is not None else _NoSlots():
                return await self._activity(
                    "tool" if tool else "compute",
                    effect.at,
                    details,
                    summary=name,
                    attempts=attempts,
                    crashes=retried,
                    seconds=known.timeout if known else None,
                )

        result = await self._recorded(effect, perform, retried)
        return outcome_from_json(effect, result["outcome"])

    async def _recorded(
        self,
        effect: ModelCall | ToolInvocation | Compute,
        perform: Callable[[list[Any], JsonObject], Any],
        retried: bool = True,
    ) -> JsonObject:
        """Have an effect performed until it has an outcome, and keep that.

        A tool that runs agents begins anew when these have ended, as after a pause, and is
        given what they did. One that was lost with its worker does what its `on_crash` says.
        """
        at = effect.at
        if at in self._past:
            return self._count(self._past.pop(at))
        entry = self._note("start", at, [], {})
        more: JsonObject = {}
        self._running[at] = ""
        try:
            while True:
                try:
                    result = await perform(entry, more)
                except ActivityError as error:
                    if is_cancelled_exception(error):
                        raise
                    if isinstance(error.cause, ApplicationError) and error.cause.details:
                        result = error.cause.details[0]  # how its last attempt failed
                    elif isinstance(effect, ModelCall):
                        result = _lost(effect, error)
                    else:
                        again = more.get("lost") == "ask" and retried
                        more = {"lost": "fail" if again else "ask"}
                        continue
                entry[3] += result["parts"]
                if "cancelled" in result:
                    raise asyncio.CancelledError
                if children := result.get("children"):
                    await asyncio.gather(*(self._child(entry, one) for one in children))
                    continue
                waits = result["outcome"].get("pending")
                if not waits:
                    break
                decisions = await self._decided([pending_from_json(one) for one in waits])
                more = {"lost": "ask", "decision": decisions[0]}
        finally:
            del self._running[at]
            self._note("end", at)
        del result["parts"]
        self._results[at] = result
        return self._count(result)

    def _count(self, result: JsonObject) -> JsonObject:
        outcome = result["outcome"]
        self._used += Usage.from_json(outcome["usage"])
        self._used += Usage(tool_bytes=outcome.get("bytes", 0))
        return result

    async def _child(self, entry: list[Any], asked: JsonObject) -> None:
        """Run a sub-agent as a workflow of its own."""
        root, at = self._start["root"], asked["at"]
        same = {name: self._start[name] for name in ("format", "agentkit", "run", "root")}
        start = {
            **same,
            "agent": asked["agent"],
            "at": at,
            "messages": asked["messages"],
            "earlier": 0,
            "nested": True,
            "deps_ref": self._start["deps_ref"],
            "limits": self._start["limits"] or self._start["begun"]["limits"],
            "used": self._used.to_json(),
        }
        result = await workflow.execute_child_workflow(
            "agentkit.run",
            start,
            id=f"{root}{at}",
            cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
            static_summary=asked["agent"],
        )
        self._below.pop(at, None)
        entry[4][at] = result["piece"]

    async def _pause(self, pause: Pause) -> Outcome:
        if (key := _key(pause)) in self._past:
            return tuple(map(decision_from_json, self._past.pop(key)))
        self._note("pending", [pending_to_json(one) for one in pause.pending])
        made = await self._decided(pause.pending)
        shown = map(pending_to_json, pause.pending)
        self._note("decisions", [[one, two] for one, two in zip(shown, made, strict=True)])
        self._results[key] = made
        return tuple(map(decision_from_json, made))

    async def _decided(self, pending: Sequence[PendingCall]) -> list[JsonObject]:
        """Wait until every call is decided about: for days, and without a worker."""
        self._waiting |= {one.at: one for one in pending}
        await self._tell_parent()
        await workflow.wait_condition(lambda: all(one.at in self._decisions for one in pending))
        for one in pending:
            del self._waiting[one.at]
        await self._tell_parent()
        return [self._decisions.pop(one.at) for one in pending]

    # Activities

    def _common(self) -> JsonObject:
        """Return what every activity has to know of the run."""
        return {
            "run": self._start["run"],
            "agent": self._start["agent"],
            "path": self._path,
            "of": self._agent.spec.at if self._path else self._start["at"],
            "limits": self._start["limits"] or self._start.get("begun", {}).get("limits"),
            "deps_ref": self._start["deps_ref"],
            "used": self._used.to_json(),
            "id": self._start["root"],
        }

    async def _activity(
        self,
        name: str,
        at: str,
        *args: Any,
        summary: str | None = None,
        patience: timedelta | None = None,
        attempts: int = 0,
        crashes: bool = True,
        seconds: float | None = None,
    ) -> Any:
        """Run an activity whose id is the address of its effect.

        Args:
            name: Its type, after `agentkit.`.
            at: The address.
            *args: JSON.
            summary: What people see of it.
            patience: How long it may be tried again, waits included.
            attempts: How often it may be tried; 0 for as often as it takes.
            crashes: Whether it may begin again when its worker is lost.
            seconds: How long its own function may take, if that is bounded.
        """
        limit = self._hosted.timeout
        if seconds is not None:
            limit = max(limit, timedelta(seconds=seconds) + _SHORT)
        return await workflow.execute_activity(
            f"agentkit.{name}",
            args=args,
            activity_id=at,
            start_to_close_timeout=limit,
            schedule_to_close_timeout=patience,
            heartbeat_timeout=self._hosted.heartbeat,
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            retry_policy=RetryPolicy(
                maximum_attempts=attempts,
                maximum_interval=_SHORT,
                non_retryable_error_types=None if crashes else _CRASHES,
            ),
            summary=summary,
        )

    async def _recall(self, chunks: Sequence[str]) -> None:
        """Take over what the workflows before this one have done."""
        recalled = await asyncio.gather(
            *(self._activity("recall", f"recall {index}", one) for index, one in enumerate(chunks))
        )
        for one in recalled:
            self._past |= one["results"]
            self._log += one["log"]
        self._behind = bool(chunks)

    async def _continue_as_new(self) -> None:
        """Go on in a new workflow before the history is too large for the server."""
        info, most = workflow.info(), self._hosted.events
        grown = most is not None and info.get_current_history_length() > most
        if self._behind or not (grown or info.is_continue_as_new_suggested()):
            return
        await workflow.wait_condition(workflow.all_handlers_finished)
        done = {"results": self._results, "log": self._log[self._start.get("logged", 0) :]}
        name = await self._activity("keep", "keep", done)
        workflow.continue_as_new(
            {
                **self._start,
                "chunks": [*self._start.get("chunks", []), name],
                "logged": len(self._log),
                "decisions": self._decisions,
                "cancelled": self._cancelled,
                "elapsed": self._elapsed,
            }
        )

    async def _finish(self) -> JsonObject:
        """Put the trace together, and return how the run ended."""
        finish = self._ended
        assert finish is not None
        self._status, self._messages = finish.status, finish.messages
        ended = finish_to_json(replace(finish, at=self._last_effect))
        asked = {
            **self._common(),
            "nested": "nested" in self._start,
            "messages": self._start["messages"],
            "earlier": self._start["earlier"],
            "log": self._log,
            "ended": ended,
            "agents": [entry[2] for entry in self._log if entry[0] == "agent"],
        }
        made = await self._activity("finish", "finish", asked)
        if asked["nested"]:
            return made
        return {
            **made,
            **ended,
            "run": self._start["run"],
            "messages": [one.to_json() for one in finish.messages],
            "prompt": self._start["messages"][self._start["earlier"] :],
            "new": [one.to_json() for one in finish.new],
        }


class _NoSlots:
    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


def _was_cancelled(task: asyncio.Task[Any]) -> bool:
    error = None if task.cancelled() else task.exception()
    return task.cancelled() or (error is not None and is_cancelled_exception(error))


def _key(effect: LoopEffect) -> str:
    """Return under what the outcome of an effect is kept; of a batch, that of its first call."""
    match effect:
        case Pause(at=at):
            return f"{at} decisions"
        case ToolBatch(calls=(first, *_)):
            return first.at
        case _:
            return effect.at


async def _unused(invocation: ToolInvocation) -> Any:
    raise AssertionError("the workflow has the calls of a batch performed")


def _calls_of(effect: LoopEffect) -> list[tuple[Address, str]]:
    """Return the calls that an effect is about."""
    match effect:
        case ToolBatch(calls=calls):
            return [(one.at, one.call.name) for one in calls]
        case Pause(pending=pending):
            return [(one.at, one.call.name) for one in pending]
        case Compute(at=at, name=name) if ":" in name:
            return [(at, name.partition(":")[2])]
        case _:
            return []


def _lost(effect: ModelCall, error: ActivityError) -> JsonObject:
    """Return the outcome of an effect whose workers were lost again and again."""
    text = f"{effect.at} did not finish: {error.cause or error}"
    failure = Failure(type="WorkerLost", message=text)
    return {
        "parts": [],
        "base": None,
        "outcome": {"failure": failure_to_json(failure), "usage": {}},
    }
