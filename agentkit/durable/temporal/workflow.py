"""The loop as a workflow: effects out as activities, outcomes in from the history.

This is to Temporal what `runtime/driver.py` is to one process. The loop is
`agentkit.core.loop.conversation` itself; nothing here decides what an agent does. It runs in
the sandbox of the SDK, on the workflow's own event loop, which knows neither time nor I/O.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception
from temporalio.workflow import ChildWorkflowCancellationType

from agentkit.core.effects import (
    Address,
    Compute,
    Decision,
    Failure,
    Interrupt,
    LoopEffect,
    ModelCall,
    Outcome,
    Pause,
    SkippedCall,
    ToolBatch,
    ToolInvocation,
)
from agentkit.core.loop import conversation, limit_reached
from agentkit.core.spec import Finish
from agentkit.durable.temporal.data import (
    RunStatus,
    StoredOutcome,
    begins_anew,
    from_data,
    plain,
    to_data,
)
from agentkit.durable.temporal.decisions import Decisions
from agentkit.durable.temporal.hosted import HOSTED, Hosted, hosted_program
from agentkit.durable.temporal.versions import FORMAT, check_unchanged, described
from agentkit.messages import (
    NO_USAGE,
    JsonObject,
    Message,
    ModelResponse,
    SystemMessage,
    Usage,
)
from agentkit.runtime.assemble import Program
from agentkit.runtime.batch import Batch
from agentkit.runtime.driver import interrupted
from agentkit.runtime.slots import Frames
from agentkit.settings import Limits

_SHARED = ("format", "agentkit", "run", "root", "deps_ref", "limits")
"""What the workflows of a run have in common."""


@workflow.defn(name="agentkit.run")
class AgentWorkflow:
    """One run of an agent, or of a sub-agent."""

    @workflow.init
    def __init__(self, start: JsonObject) -> None:
        self._start = start
        self._decisions = Decisions(start)
        self._cancelled: str | None = start.get("cancelled")
        self._done: dict[str, Any] = start.get("done", {})
        self._log: list[list[Any]] = start.get("log", [])
        self._behind = bool(self._done)
        self._elapsed: float = start.get("elapsed", 0.0)
        self._used = Usage.from_json(start.get("used", {}))
        self._stopped: BaseException | None = None
        self._messages: tuple[Message, ...] = ()
        self._running: list[str] = []
        self._path: list[str] = []
        self._base: str | None = None
        self._sent: tuple[Message, ...] = ()
        self._last: Address | None = None
        self._last_effect: Address | None = None
        self._new: list[Message] = []
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
        program = hosted_program(self._hosted.programs, start["agent"])
        if "begun" not in start:
            start["begun"] = await self._hosted.activity(
                "begin", "begin", self._common(), attempts=3
            )
            start.setdefault("limits", start["begun"]["limits"])
        self._described = described(program)
        self._limits, self._bounds = (Limits(**one["limits"]) for one in (start["begun"], start))
        parallel = self._limits.parallel
        self._slots = nullcontext() if parallel is None else asyncio.Semaphore(parallel)
        effect = self._enter(program, Address(start["at"]), from_data(start["messages"]), NO_USAGE)
        while effect is not None:
            self._behind = self._behind and _key(effect) in self._done
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
        await self._decisions.take(at, decision)

    @workflow.update
    async def decide_now(self, at: str, decision: JsonObject) -> None:
        """Take a decision about a call that waits."""
        await self._decisions.take(at, decision)

    @decide_now.validator
    def _check_decision(self, at: str, decision: JsonObject) -> None:
        if not isinstance(from_data(decision), Decision):
            raise ValueError(f"{decision!r} is no decision.")
        waiting = [one.at for one in self._decisions.pending]
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
        await self._decisions.learn(at, pending)

    @workflow.query
    def status(self) -> JsonObject:
        """Return how far the run is."""
        pending = self._decisions.pending
        status: Any = "paused" if pending and not self._running else "running"
        if self._ended is not None:
            status = self._ended.status
        return to_data(
            RunStatus(
                status=status,
                running=tuple(map(Address, self._running)),
                pending=pending,
                usage=self._used,
            )
        )

    @workflow.query
    def messages(self) -> list[JsonObject]:
        """Return the conversation so far."""
        return to_data(self._messages)

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
                self._note("skip", to_data(effect))
                effect = self._loop.send(None)
            return effect
        except StopIteration as stop:
            finish: Finish[Any] = stop.value
        self._new += finish.new
        if finish.handoff is None:
            self._ended = replace(finish, new=tuple(self._new), at=self._last_effect)
            self._messages = finish.messages
            return None
        name, at = finish.handoff
        self._path.append(name)
        program = self._agent.handoffs[name]()
        self._note("agent", at, program.config.name, to_data(finish.messages))
        return self._enter(program, at, finish.messages, finish.usage)

    def _note(self, kind: str, *data: Any) -> None:
        """Keep what happened, for the trace; not a second time in a continued workflow."""
        if not self._behind:
            self._log.append([kind, workflow.time_ns() // 1000, *data])

    # Effects

    async def _outcome(self, effect: LoopEffect) -> Outcome:
        """Have one effect performed, unless the run has to end before."""
        if self._behind or workflow.unsafe.is_replaying():
            # What it raises fails this task: the run waits for workers that can go on with it.
            then = self._start["begun"]["program"]
            check_unchanged(then, self._described, effect.at, _calls_of(effect))
        self._last_effect = effect.at
        work = None
        if isinstance(effect, ToolBatch):
            work = Batch(effect, self._work, Frames())
            reached = limit_reached(self._bounds, self._used, len(work.calls))
            if reached is not None:
                return Interrupt(status="limit", error=reached)
        if not self._behind and self._cancelled is not None:
            return self._interrupt(work)
        task = asyncio.create_task(self._perform(effect, work))
        await self._ended_or_stopped(effect, task)
        if not _was_cancelled(task):
            return task.result()
        if work is not None and len(work.finished) == len(work.calls):
            return work.outcomes()  # it came too late for this batch
        return self._interrupt(work)

    async def _ended_or_stopped(self, effect: LoopEffect, task: asyncio.Task[Any]) -> None:
        """Wait for the end of an effect; stop it if the run is cancelled or at its deadline."""
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

    def _interrupt(self, work: Batch | None) -> Interrupt:
        """Return what ended the run: `cancel`, or its deadline."""
        outcomes = () if work is None else work.outcomes()
        return interrupted(self._cancelled, self._limits, outcomes)

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
        request, spec = call.request, self._agent.spec
        known = len(self._sent)
        if request.messages[:known] != self._sent:
            self._base, known, self._last = None, 0, None
        same_agent = self._last is not None and self._last.parent == call.at.parent
        asked = {
            "at": call.at,
            "base": self._base,
            "new": to_data(request.messages[known:]),
            "known": known,
            "since": self._last if same_agent else None,
            "tool_choice": to_data(request.tool_choice),
        }
        if spec.step_settings:
            asked["settings"] = plain(request.settings)
        tools = [one.to_json() for one in request.tools] if spec.toolsets else None
        self._messages = tuple(o for o in request.messages if not isinstance(o, SystemMessage))
        result, outcome = await self._recorded(
            call, "model", asked, tools, summary=call.model, patience=self._hosted.patience
        )
        if isinstance(outcome, ModelResponse):
            self._base, self._sent, self._last = result["base"], request.messages, call.at
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
        work.ended(index, await self._work(invocation))

    async def _work(self, effect: ToolInvocation | Compute) -> Any:
        """Have a tool or a function run, with the agents that it runs and the people it needs."""
        tool = effect.call.name if isinstance(effect, ToolInvocation) else None
        known = None if tool is None else self._agent.tools.get(tool)
        _, outcome = await self._recorded(
            effect,
            "compute" if tool is None else "tool",
            {"base": self._base, "effect": to_data(effect)},
            summary=effect.name if isinstance(effect, Compute) else tool,
            attempts=max(self._hosted.attempts, 1 + (known.retries if known else 0)),
            crashes=begins_anew(effect),
            seconds=known.timeout if known else None,
        )
        return outcome

    async def _recorded(
        self,
        effect: ModelCall | ToolInvocation | Compute,
        name: str,
        asked: JsonObject,
        *args: Any,
        **options: Any,
    ) -> tuple[JsonObject, Any]:
        """Return what an activity has answered, and the outcome of the effect.

        An effect that an earlier workflow of the run has had performed is not performed again.
        """
        at = effect.at
        if at not in self._done:
            parts, children = list[str](), dict[str, str]()
            asked = {**self._common(), **asked, "parts": parts, "children": children}
            self._note("start", at, parts, children)
            self._running.append(at)
            try:
                self._done[at] = await self._performed(effect, name, asked, args, options)
            finally:
                self._running.remove(at)
                self._note("end", at)
        result = self._done[at]
        outcome = from_data(result["outcome"])
        self._used += outcome.usage
        if isinstance(outcome, StoredOutcome):
            self._used += Usage(tool_bytes=outcome.bytes)
        return result, outcome

    async def _performed(
        self,
        effect: ModelCall | ToolInvocation | Compute,
        name: str,
        asked: JsonObject,
        args: Sequence[Any],
        options: Mapping[str, Any],
    ) -> JsonObject:
        """Have an effect performed until it has an outcome.

        A tool that runs agents begins anew when these have ended, as after a pause, and is
        given what they did. One that was lost with its worker does what its `on_crash` says.
        """
        result: JsonObject
        while True:
            try:
                async with self._slots if name == "tool" else nullcontext():
                    result = await self._hosted.activity(name, effect.at, asked, *args, **options)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                if (answer := _last_answer(error)) is not None:
                    result = answer
                elif isinstance(effect, ModelCall):
                    text = f"{effect.at} did not finish: {error.cause or error}"
                    failure = to_data(Failure(type="WorkerLost", message=text))
                    result = {"parts": [], "outcome": failure}
                else:
                    asked = {**asked, "lost": "fail" if options["crashes"] else "ask"}
                    continue
            asked["parts"] += result.pop("parts")
            if "cancelled" in result:
                raise asyncio.CancelledError
            if ran := result.get("children"):
                pieces = await asyncio.gather(*map(self._child, ran))
                asked["children"].update(pieces)
            elif waits := result["outcome"].get("pending"):
                (decision,) = await self._decisions.about(from_data(waits)[:1])
                asked = {**asked, "lost": "ask", "decision": decision}
            else:
                return result

    async def _child(self, asked: JsonObject) -> tuple[str, str]:
        """Run a sub-agent as a workflow of its own; return its address and its piece."""
        at = asked["at"]
        start = {name: self._start[name] for name in _SHARED}
        start |= {**asked, "earlier": 0, "nested": True, "used": self._used.to_json()}
        result = await workflow.execute_child_workflow(
            "agentkit.run",
            start,
            id=f"{start['root']}{at}",
            cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
            static_summary=asked["agent"],
        )
        self._decisions.forget(at)
        return at, result["piece"]

    async def _pause(self, pause: Pause) -> Outcome:
        key = _key(pause)
        if key not in self._done:
            pending = to_data(pause.pending)
            self._note("pending", pending)
            self._done[key] = await self._decisions.about(pause.pending)
            self._note("decisions", pending, self._done[key])
        return from_data(self._done[key])

    def _common(self) -> JsonObject:
        """Return what every activity has to know of the run."""
        return {
            **{name: self._start.get(name) for name in ("run", "agent", "limits", "deps_ref")},
            "path": self._path,
            "of": self._agent.spec.at if self._path else self._start["at"],
            "used": self._used.to_json(),
        }

    async def _continue_as_new(self) -> None:
        """Go on in a new workflow before the history is too large for the server.

        What was done goes along as its input, through the store where it is large.
        """
        info, most = workflow.info(), self._hosted.history_events
        grown = most is not None and info.get_current_history_length() > most
        if self._behind or not (grown or info.is_continue_as_new_suggested()):
            return
        await workflow.wait_condition(workflow.all_handlers_finished)
        workflow.continue_as_new(
            {
                **self._start,
                "done": self._done,
                "log": self._log,
                "decisions": self._decisions.made,
                "cancelled": self._cancelled,
                "elapsed": self._elapsed,
            }
        )

    async def _finish(self) -> JsonObject:
        """Put the trace together, and return how the run ended."""
        finish, start = self._ended, self._start
        assert finish is not None
        ended = to_data(replace(finish, messages=(), new=()))
        started = {name: start.get(name) for name in ("messages", "earlier", "nested")}
        asked = {**self._common(), **started, "log": self._log, "ended": ended}
        made = await self._hosted.activity("finish", "finish", asked)
        if "nested" in start:
            return made
        prompt = start["messages"][start["earlier"] :]
        return {"finish": to_data(finish), "prompt": prompt}


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


def _calls_of(effect: LoopEffect) -> list[tuple[str, str]]:
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


def _last_answer(error: ActivityError) -> JsonObject | None:
    """Return what the last attempt of an effect reached, unless it was lost.

    Where the patience ends before the next attempt, a timeout stands above how that failed.
    """
    cause: BaseException | None = error.cause
    while cause is not None:
        if isinstance(cause, ApplicationError) and cause.details:
            return cause.details[0]
        cause = cause.__cause__
    return None
