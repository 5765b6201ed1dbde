"""The whole behaviour of an agent, straight down the page.

`conversation` is a plain generator. It yields effects and is sent outcomes; it
awaits nothing, reads no clock and knows no server, so the same code runs live,
scripted, replayed and hosted. What it keeps true at every yield: the history
is valid, that is, each tool call of each assistant message is answered by
exactly one tool message.

A step is one model call and what follows from it:

    ask the model ─┬─ it failed, refused, was cut off ───────────────→ Finish
                   ├─ it calls tools ── decide, run, append the answers → next step
                   ├─ its output does not fit ── say why ──────────────→ next step
                   └─ its output fits, and the validators agree ───────→ Finish
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any, Generic, TypeAlias, TypeVar, cast

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
    PendingCall,
    PendingKind,
    SkippedCall,
    SkipReason,
    Suspended,
    ToolBatch,
    ToolInvocation,
    ToolOutcome,
    Value,
)
from agentkit.core.spec import (
    Accepted,
    AgentSpec,
    Finish,
    OfferedTool,
    Rejected,
    RunStatus,
    Written,
)
from agentkit.errors import (
    AgentKitError,
    InvalidArguments,
    InvalidResponse,
    LimitExceeded,
    ModelRefusal,
    OutputInvalid,
    OutputTruncated,
)
from agentkit.messages import (
    NO_USAGE,
    Content,
    ForcedTool,
    Message,
    ModelRequest,
    ModelResponse,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolChoice,
    ToolMessage,
    Usage,
    UserMessage,
    is_object,
    messages_from_json,
)
from agentkit.schema.repair import is_plain, load
from agentkit.settings import Limits

OutputT = TypeVar("OutputT")
T = TypeVar("T")
LIMIT = "Not executed: the run has reached its limit."
ENDED = "Not executed: the run has ended."
Waits: TypeAlias = Callable[[ToolInvocation], PendingCall | None]
"""Returns a recorded call as it waited for a decision; None if it did not."""
Steps: TypeAlias = Generator[LoopEffect | SkippedCall, Outcome | None, T]


def conversation(
    spec: AgentSpec[OutputT],
    messages: Sequence[Message],
    usage: Usage | None = None,
    waits: Waits | None = None,
) -> Steps[Finish[OutputT]]:
    """Run an agent to its end.

    Args:
        spec: The agent.
        messages: The conversation so far, ending with the prompt.
        usage: What counts as used already, when the conversation was handed over.
        waits: Of a run that is recorded already, the calls that waited for a decision. They
            do so again, whatever their tools need by now.

    Yields:
        Effects. Each must be answered with its own kind of outcome, or with an
        `Interrupt`, which ends the conversation at once with a valid history. A
        `SkippedCall` is answered with None.

    Returns:
        How it ended. Nothing is raised for what a model or a tool does.
    """
    return (yield from _Conversation(spec, messages, usage or Usage(), waits).run())


class _Stop(Exception):
    """Ends the conversation from wherever it is."""

    def __init__(
        self, reason: Failure | Interrupt | None = None, pending: tuple[PendingCall, ...] = ()
    ) -> None:
        self.reason = reason
        self.pending = pending


class _Conversation(Generic[OutputT]):
    """One conversation: the agent, and what changes from step to step."""

    def __init__(
        self,
        spec: AgentSpec[OutputT],
        messages: Sequence[Message],
        usage: Usage,
        waits: Waits | None,
    ) -> None:
        self.spec = spec
        self.waits = waits
        self.history = list(messages)
        self.new: list[Message] = []
        self.usage = usage
        self.offer_tools(spec.tools)
        self.size = 0
        self.last_calls: tuple[tuple[str, str], ...] = ()
        self.last_results: tuple[Content, ...] = ()
        self.repeated = 0
        self.answered = False
        self.without_tools = False
        self.empty = 0
        self.attempts: list[dict[str, str]] = []

    def run(self) -> Steps[Finish[OutputT]]:
        try:
            head = yield from self.instructions()
            for step in count():
                finish = yield from self.step(head, self.spec.at.step(step))
                if finish is not None:
                    return finish
        except _Stop as stop:
            return self.stopped(stop)
        except (Exception, SystemExit) as error:  # code of the application's, in a type
            return self.stopped(_Stop(Failure.of(error)))
        raise AssertionError("unreachable: steps are counted for ever")

    def step(self, head: tuple[Message, ...], at: Address) -> Steps[Finish[OutputT] | None]:
        if reached := limit_reached(self.spec.limits, self.usage):
            raise _Stop(reached)
        yield from self.compact(at)
        yield from self.offer(at)
        answer = yield from self.ask(head, at)
        if unusable := _unusable(answer, self.spec.model):
            yield from self.skip(answer, at, "refused")
            raise _Stop(unusable)
        try:
            verdict = self.spec.output.read(answer.message)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # of a validator in the output's type
            yield from self.skip(answer, at, "refused")
            raise _Stop(Failure.of(error)) from error
        if isinstance(verdict, Accepted):
            verdict = yield from self.validate(verdict, at)
        if isinstance(verdict, Accepted):
            yield from self.conclude(answer, verdict, at)
            return self.finish(
                "ok", output=verdict.value, written=self.written(answer, verdict, at)
            )
        if answer.message.tool_calls:
            return (yield from self.act(answer, verdict, at))
        self.ask_again(answer, verdict)
        return None

    # Before the model is asked

    def compute(self, at: Address, name: str, value: Any = None) -> Steps[Any]:
        """Have the user's function of this name called, and return its value."""
        outcome = yield Compute(at=at.child(name), name=name, input=value)
        if isinstance(outcome, Value):
            self.usage += outcome.usage
            return outcome.value
        assert isinstance(outcome, (Failure, Interrupt))
        raise _Stop(outcome)

    def instructions(self) -> Steps[tuple[Message, ...]]:
        """Return the messages that stand before the history in every request."""
        text = self.spec.instructions
        if self.spec.dynamic:
            text = yield from self.compute(self.spec.at, "instructions")
        parts = [part for part in (text, self.spec.output.instructions) if part]
        return (SystemMessage(content="\n\n".join(parts)),) if parts else ()

    def compact(self, at: Address) -> Steps[None]:
        """Replace a history that has grown too large by a shorter one."""
        above = self.spec.compact_above
        if above is None or self.size <= above:
            return
        shorter = yield from self.compute(at, "compact", tuple(self.history))
        if shorter is not None:
            self.history = list(messages_from_json(shorter))

    def offer(self, at: Address) -> Steps[None]:
        """Have the toolsets list their tools of this step."""
        if not self.spec.toolsets:
            return
        offered = yield from self.compute(at, "toolsets")
        tools = (*self.spec.tools, *(OfferedTool.from_json(tool) for tool in offered))
        if tools != self.offered:  # equal ones keep what was encoded of them
            self.offer_tools(tools)

    def offer_tools(self, tools: tuple[OfferedTool, ...]) -> None:
        self.offered = tools
        self.tools = {tool.definition.name: tool for tool in tools}

    def ask(self, head: tuple[Message, ...], at: Address) -> Steps[ModelResponse]:
        tools = tuple(tool.definition for tool in self.offered)
        if self.spec.output.tool is not None:
            tools = (*tools, self.spec.output.tool)
        settings, forced = self.spec.settings, None
        if self.spec.step_settings:
            step = yield from self.compute(at, "settings")
            settings, forced = step["settings"], step["tool_choice"]
        request = ModelRequest(
            messages=(*head, *self.history),
            tools=tools,
            tool_choice=self.tool_choice(forced) if tools else None,
            output=self.spec.output.format,
            settings=settings,
        )
        answer = yield ModelCall(at=at, model=self.spec.model, request=request)
        if not isinstance(answer, ModelResponse):
            assert isinstance(answer, (Failure, Interrupt))
            raise _Stop(answer)
        # A model that does not count itself must not escape the limit of steps.
        counted = answer.usage.requests >= 1
        self.usage += answer.usage if counted else replace(answer.usage, requests=1)
        self.size = answer.usage.input_tokens
        return answer

    def tool_choice(self, step: Any = None) -> ToolChoice | None:
        """Return what the model may or must call: this step's choice wins over the run's."""
        if self.spec.output.tool is not None:
            # The answer itself comes as a call, so the model must always call something.
            if self.without_tools or not self.offered:
                return ForcedTool(name=self.spec.output.tool.name)
            return "required"
        if self.without_tools:
            return "none"
        if step is not None:
            return ForcedTool(name=step["name"]) if is_object(step) else step
        forced = self.spec.tool_choice not in (None, "auto", "none")
        if forced and self.answered and not self.spec.keep_tool_choice:
            return "auto"
        return self.spec.tool_choice

    # The model has given its output

    def validate(
        self, verdict: Accepted[OutputT], at: Address
    ) -> Steps[Accepted[OutputT] | Rejected]:
        """Have the validators and the output function called, one after the other."""
        names = [f"validator{index}" for index in range(self.spec.validators)]
        if self.spec.output.finishing:
            names.append("output")
        for name in names:
            effect = Compute(at=at.child(name), name=name, input=verdict.text)
            if name == "output":
                output = self.spec.output
                effect = replace(effect, effect=output.effect, on_crash=output.on_crash)
            outcome = yield effect
            if isinstance(outcome, Failure) and outcome.type == "ToolError":
                self.usage += outcome.usage
                return Rejected(text=verdict.text, problem=outcome.message, call=verdict.call)
            if not isinstance(outcome, Value):
                assert isinstance(outcome, (Failure, Interrupt))
                raise _Stop(outcome)
            self.usage += outcome.usage
            if name == "output":
                revive = self.spec.output.revive
                value = revive(outcome.value) if outcome.recorded else outcome.value
                verdict = replace(verdict, value=value)
        return verdict

    def conclude(self, answer: ModelResponse, verdict: Accepted[Any], at: Address) -> Steps[None]:
        """Append the final answer. Where it came as a call, every call of it is answered."""
        skipped: list[SkippedCall] = []
        for index, call in enumerate(answer.message.tool_calls):
            if call is verdict.call:
                skipped.append(_skipped(at.call(index), call, "output", "Accepted."))
            else:
                text = "Not executed: the final output came in the same response."
                skipped.append(_skipped(at.call(index), call, "refused", text))
        self.append(answer.message)
        yield from self.answer(skipped)

    def written(self, answer: ModelResponse, verdict: Accepted[Any], at: Address) -> Written | None:
        """Return where the model has written the output."""
        if self.spec.output.finishing:
            return None
        if verdict.call is not None:
            at = at.call(answer.message.tool_calls.index(verdict.call))
        return Written(at=at, text=verdict.text, place=verdict.place)

    # No tool runs

    def skip(
        self, answer: ModelResponse, at: Address, reason: SkipReason, text: str | None = None
    ) -> Steps[None]:
        """Run none of the calls of a response. Without a text it stays out of the history."""
        calls = enumerate(answer.message.tool_calls)
        skipped = [_skipped(at.call(index), call, reason, text) for index, call in calls]
        if text is not None:
            self.append(answer.message)
        yield from self.answer(skipped)

    def answer(self, skipped: Sequence[SkippedCall]) -> Steps[None]:
        """Append the answers to calls that no tool runs, and note why."""
        for one in skipped:
            if one.message is not None:
                self.append(one.message)
        yield from skipped

    # The model calls tools

    def act(
        self, answer: ModelResponse, verdict: Rejected, at: Address
    ) -> Steps[Finish[OutputT] | None]:
        """Run the calls of one response and append their answers."""
        calls = answer.message.tool_calls
        if self.is_repetition(calls):
            yield from self.skip(answer, at, "repeated")
            self.ask_without_tools()
            return None
        yield from self.check_calls(answer, verdict, at)
        # Read once, here: what decides, runs, records and remembers a call sees the same text.
        read = [(call, ()) if call is verdict.call else _read(call) for call in calls]
        message = answer.message
        if any(repairs for _, repairs in read):
            message = replace(message, tool_calls=tuple(call for call, _ in read))
        places = [at.call(index) for index in range(len(calls))]
        invocations = [
            self.invocation(place, call, repairs)
            for place, (call, repairs) in zip(places, read, strict=True)
            if call is not verdict.call
        ]
        skipped, running, notes = yield from self.decide(invocations, at)
        if verdict.call is not None:
            place = next(p for p, call in zip(places, calls, strict=True) if call is verdict.call)
            skipped[place] = _skipped(place, verdict.call, "refused", verdict.problem)
        yield from skipped.values()
        outcomes: tuple[ToolOutcome, ...] = ()
        stop: Failure | Interrupt | None = None
        if running:
            answered = yield ToolBatch(at=at, calls=tuple(running))
            if isinstance(answered, Interrupt):
                stop, outcomes = answered, answered.outcomes
            else:
                outcomes = cast("tuple[ToolOutcome, ...]", answered)
                stop = _fatal(outcomes)
        self.usage += _used(outcomes)
        answers = {one.at: one.message for one in (*skipped.values(), *outcomes)}
        limited = isinstance(stop, Interrupt) and stop.status == "limit"
        unanswered = LIMIT if limited else ENDED
        if limited:  # by all agents of the run together: the loop knows of its own calls only
            yield from [
                _skipped(one.at, one.call, "limit", LIMIT)
                for one in running
                if one.at not in answers
            ]
        results: list[ToolMessage] = []
        for place, call in zip(places, calls, strict=True):
            result = answers.get(place) or _tool_message(call, unanswered)
            results.append(_noted(result, notes.get(place)))
        for one in (message, *results):
            self.append(one)
        self.note_results(calls, tuple(one.content for one in results))
        if stop is not None:
            raise _Stop(stop)
        return self.handed_over(calls, at)

    def is_repetition(self, calls: tuple[ToolCall, ...]) -> bool:
        """Tell whether a batch comes again that has had the same results too often."""
        maximum = self.spec.limits.repeats
        if self.without_tools or maximum is None:
            return self.without_tools
        return self.repeated >= maximum and _asked(calls) == self.last_calls

    def note_results(self, calls: tuple[ToolCall, ...], results: tuple[Content, ...]) -> None:
        """Count how often in a row a batch has had the same results."""
        self.answered = True
        asked = _asked(calls)
        same = (asked, results) == (self.last_calls, self.last_results)
        self.repeated = self.repeated + 1 if same else 0
        self.last_calls, self.last_results = asked, results

    def ask_without_tools(self) -> None:
        """Have the model answer from the results it has; the repetition enters no history."""
        if self.without_tools:
            hint = "Asked without tools, the model called tools again."
            maximum = self.spec.limits.repeats or 0
            raise _Stop(limit_exceeded("repeats", self.repeated + 1, maximum, hint=hint))
        self.without_tools = True

    def check_calls(self, answer: ModelResponse, verdict: Rejected, at: Address) -> Steps[None]:
        """Stop before anything runs: at the limit, or when the output was wrong too often."""
        calls = answer.message.tool_calls
        running = len(calls) - (verdict.call is not None)
        if running and (reached := limit_reached(self.spec.limits, self.usage, running)):
            yield from self.skip(answer, at, "limit", LIMIT)
            raise _Stop(reached)
        if verdict.call is not None and (stop := self.count_attempt(verdict)):
            yield from self.skip(answer, at, "limit", ENDED)
            raise _Stop(stop)

    def invocation(self, at: Address, call: ToolCall, repairs: tuple[str, ...]) -> ToolInvocation:
        tool = self.tools.get(call.name)
        if tool is None:
            return ToolInvocation(at=at, call=call, repairs=repairs)
        return ToolInvocation(
            at=at,
            call=call,
            repairs=repairs,
            effect=tool.effect,
            sequential=tool.sequential,
            on_crash=tool.on_crash,
        )

    def decide(
        self, invocations: list[ToolInvocation], at: Address
    ) -> Steps[tuple[dict[Address, SkippedCall], list[ToolInvocation], dict[Address, str]]]:
        """Have everything decided that needs a decision, before any call of the batch runs.

        Returns:
            The calls that are answered without running, those that run, and what the
            model reads besides their results.
        """
        skipped: dict[Address, SkippedCall] = {}
        invocations, decisions = yield from self.decisions(invocations, at, skipped)
        running: list[ToolInvocation] = []
        notes: dict[Address, str] = {}
        handoff: str | None = None
        for one in invocations:
            tool, decision = self.tools.get(one.call.name), decisions.get(one.at)
            if tool is not None and tool.handoff is not None and handoff is None:
                handoff = tool.handoff
                text = f"Handed over to {handoff}."
                skipped[one.at] = _skipped(one.at, one.call, "handoff", text)
            elif tool is not None and tool.handoff is not None:
                text = f"Not executed: the conversation was handed over to {handoff}."
                skipped[one.at] = _skipped(one.at, one.call, "refused", text)
            elif decision is None or decision.kind == "approve":
                running.append(one)
            elif decision.kind == "edit":
                notes[one.at] = f"(Run with other arguments: {decision.text})"
                edited = replace(one.call, arguments=decision.text)
                running.append(replace(one, call=edited, repairs=(), sent=None))
            else:
                reason = "denied" if decision.kind == "deny" else "answered"
                skipped[one.at] = _skipped(one.at, one.call, reason, decision.said())
        return skipped, running, notes

    def decisions(
        self,
        invocations: list[ToolInvocation],
        at: Address,
        skipped: dict[Address, SkippedCall],
    ) -> Steps[tuple[list[ToolInvocation], dict[Address, Decision]]]:
        """Return the calls as they were read, and the decisions about those that need one.

        A call whose arguments do not fit is added to `skipped`: nobody is asked about it.
        """
        checked: list[ToolInvocation] = []
        pending: list[PendingCall] = []
        forced: list[Address] = []
        for one in invocations:
            waiting = self.waits(one) if self.waits is not None else None
            read, kind, problem = yield from self.judge(one)
            shown = waiting.call.arguments if waiting is not None else ""
            if problem is not None and not shown:
                skipped[one.at] = _skipped(one.at, one.call, "refused", problem)
                continue
            if waiting is not None:  # what was shown is decided about, however it is read by now
                if shown or kind is None:
                    call = replace(one.call, arguments=shown or one.call.arguments)
                    read = replace(one, call=call, sent=one.call.arguments)
                if kind is None:
                    forced.append(one.at)
                kind = "deferred" if kind == "deferred" else waiting.kind
            checked.append(read)
            if kind is not None:
                pending.append(PendingCall(at=one.at, call=read.call, kind=kind))
        if not pending:
            return checked, {}
        outcome = yield Pause(at=at, pending=tuple(pending), forced=tuple(forced))
        if isinstance(outcome, Suspended):
            made = outcome.made or (None,) * len(pending)
            waiting = (one for one, done in zip(pending, made, strict=True) if done is None)
            raise _Stop(pending=tuple(waiting))
        if isinstance(outcome, (Failure, Interrupt)):
            raise _Stop(outcome)
        decided = cast("tuple[Decision, ...]", outcome)
        return checked, {one.at: decision for one, decision in zip(pending, decided, strict=True)}

    def judge(
        self, one: ToolInvocation
    ) -> Steps[tuple[ToolInvocation, PendingKind | None, str | None]]:
        """Have the arguments of a call that may have to wait read, and whether it has to.

        Returns:
            The call with the arguments that would run; why it has to wait; why its arguments
            do not fit.
        """
        tool, sent = self.tools.get(one.call.name), one.call.arguments
        if tool is None or not (tool.deferred or tool.approval != "never"):
            return one, None, None
        kind = "deferred" if tool.deferred else "approval"
        what = "approval" if tool.approval == "ask" else "arguments"
        name = f"{what}:{one.call.name}"
        outcome = yield Compute(at=one.at.child(what), name=name, input=sent)
        if isinstance(outcome, Interrupt):
            raise _Stop(outcome)
        assert isinstance(outcome, (Value, Failure))
        self.usage += outcome.usage
        verdict = outcome.value if isinstance(outcome, Value) else None
        if not is_object(verdict):
            # What fails to say whether a call is harmless has not said that it is.
            return replace(one, sent=sent), None if verdict is False else kind, None
        if (problem := verdict.get("problem")) is not None:
            return one, None, problem
        call = replace(one.call, arguments=verdict["arguments"])
        return replace(one, call=call, sent=sent), kind if verdict["needed"] else None, None

    def handed_over(self, calls: tuple[ToolCall, ...], at: Address) -> Finish[OutputT] | None:
        for index, call in enumerate(calls):
            tool = self.tools.get(call.name)
            if tool is not None and tool.handoff is not None:
                place = at.call(index).child(tool.handoff)
                return replace(self.finish("handoff"), handoff=(tool.handoff, place))
        return None

    # The model has to try again

    def ask_again(self, answer: ModelResponse, verdict: Rejected) -> None:
        """Ask for an output that fits, unless the model had its attempts."""
        if not answer.message.text:
            # An empty message is not kept: several servers refuse one in the history.
            self.empty += 1
            if self.empty > 1:
                text = f"{self.spec.model} answered twice with neither text nor tool calls."
                raise _Stop(_failure(InvalidResponse(text, model=self.spec.model)))
            return
        self.append(answer.message)
        if stop := self.count_attempt(verdict):
            raise _Stop(stop)
        self.append(UserMessage(content=verdict.problem))

    def count_attempt(self, verdict: Rejected) -> Failure | None:
        self.attempts.append({"text": verdict.text, "problem": verdict.problem})
        if len(self.attempts) <= self.spec.reasks:
            return None
        return _failure(
            OutputInvalid(
                f"The output of {self.spec.model} did not fit after {len(self.attempts)} "
                f"attempts. The last problem: {verdict.problem}",
                model=self.spec.model,
                attempts=self.attempts,
            )
        )

    # The end

    def append(self, message: Message) -> None:
        self.history.append(message)
        self.new.append(message)

    def finish(self, status: RunStatus, **fields: Any) -> Finish[Any]:
        return Finish(
            status=status,
            messages=tuple(self.history),
            new=tuple(self.new),
            usage=self.usage,
            **fields,
        )

    def stopped(self, stop: _Stop) -> Finish[OutputT]:
        if stop.reason is not None:
            self.usage += stop.reason.usage
        match stop.reason:
            case None:
                return self.finish("paused", pending=stop.pending)
            case Interrupt(status="paused", pending=pending):
                return self.finish("paused", pending=pending)
            case Interrupt(status=status, error=error):
                return self.finish(status, error=error, final=status == "error")
            case Failure(type="LimitExceeded") as error:
                return self.finish("limit", error=error)
            case error:
                return self.finish("error", error=error)


def limit_reached(limits: Limits, used: Usage, calls: int = 0) -> Failure | None:
    """Return the failure of what a limit forbids: another model call, or so many tool calls.

    The loop decides so for its agent, and the runtime for all agents of a run together.
    """
    reached = limits.reached(used, calls)
    return limit_exceeded(*reached) if reached is not None else None


def limit_exceeded(name: str, value: float, maximum: float, *, hint: str = "") -> Failure:
    """Return the failure that names a limit of `Limits`."""
    text = f"The run reached Limits.{name} = {maximum:g} (now {value:g}). {hint}".rstrip()
    return _failure(LimitExceeded(text, limit=name, value=value, maximum=maximum))


def _failure(error: AgentKitError) -> Failure:
    return Failure(type=type(error).__name__, message=error.message, data=error.data())


def _asked(calls: tuple[ToolCall, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((call.name, call.arguments) for call in calls)


def _read(call: ToolCall) -> tuple[ToolCall, tuple[str, ...]]:
    """Return a call with its arguments as JSON, and the repairs for that.

    Text that stands for no object stays as it is: the tool refuses it and says why.
    """
    if is_plain(call.arguments):
        return call, ()
    with suppress(TypeError, InvalidArguments):
        arguments, repairs = load(call.arguments)
        return replace(call, arguments=json.dumps(arguments, ensure_ascii=False)), repairs
    return call, ()


def _unusable(answer: ModelResponse, model: str) -> Failure | None:
    """Return the failure of a response of which nothing may be executed or returned."""
    message = answer.message
    if answer.finish == "length":
        text = (
            f"The answer of {model} was cut off at its token limit after "
            f"{answer.usage.output_tokens} output tokens; nothing of it was executed. "
            "Raise max_completion_tokens or ask for less."
        )
        return _failure(OutputTruncated(text, model=model, text=message.text))
    if message.refusal or answer.finish == "content_filter":
        why = "refused" if message.refusal else "was stopped by a content filter"
        text = f"{model} {why}: {message.refusal or message.text}"
        return _failure(ModelRefusal(text, model=model, reason=answer.finish))
    if answer.finish == "error":
        return _failure(InvalidResponse(f"{model} ended its answer with an error.", model=model))
    return None


def _used(outcomes: tuple[ToolOutcome, ...]) -> Usage:
    """Count what a batch has used: its calls, their bytes, and what sub-agents used."""
    used = Usage(tool_calls=len(outcomes), tool_bytes=sum(one.size for one in outcomes))
    for outcome in outcomes:
        if outcome.usage is not NO_USAGE:
            used += outcome.usage
    return used


def _fatal(outcomes: tuple[ToolOutcome, ...]) -> Failure | None:
    """Return the failures of tools with `on_error="raise"`, together."""
    failures = tuple(one.error for one in outcomes if one.fatal and one.error is not None)
    if not failures:
        return None
    message = f"{len(failures)} tool{'s' * (len(failures) > 1)} failed"
    return Failure(type="ToolsFailed", message=message, parts=failures)


def _skipped(at: Address, call: ToolCall, reason: SkipReason, text: str | None) -> SkippedCall:
    message = None if text is None else _tool_message(call, text)
    return SkippedCall(at=at, call=call, reason=reason, message=message)


def _tool_message(call: ToolCall, text: str) -> ToolMessage:
    return ToolMessage(call_id=call.id, name=call.name, content=text)


def _noted(message: ToolMessage, note: str | None) -> ToolMessage:
    if note is None:
        return message
    if isinstance(message.content, str):
        return replace(message, content=f"{note}\n{message.content}")
    return replace(message, content=(TextPart(text=note), *message.content))
