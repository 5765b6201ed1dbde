"""The whole behaviour of an agent, straight down the page.

`conversation` is a plain generator. It yields effects and is sent outcomes; it
awaits nothing, reads no clock and knows no server, so the same code runs live,
scripted, replayed and hosted. What it keeps true at every yield: the history
is valid, that is, each tool call of each assistant message is answered by
exactly one tool message.

A step is one model call and what follows from it:

    ask the model ─┬─ it failed, refused, was cut off ──────────────→ Finish
                   ├─ it calls tools ── run them, append the answers ─→ next step
                   ├─ its output does not fit ── say why ─────────────→ next step
                   └─ its output fits ───────────────────────────────→ Finish
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast

from agentkit.effects import (
    Address,
    Compute,
    Effect,
    Failure,
    Interrupt,
    ModelCall,
    Outcome,
    ToolBatch,
    ToolInvocation,
    ToolOutcome,
    Value,
)
from agentkit.errors import (
    AgentKitError,
    InvalidResponse,
    LimitExceeded,
    ModelRefusal,
    OutputInvalid,
    OutputTruncated,
)
from agentkit.messages import (
    ForcedTool,
    Message,
    ModelRequest,
    ModelResponse,
    SystemMessage,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentkit.output import Accepted, OutputSpec, Rejected
from agentkit.settings import Limits

__all__ = ["AgentSpec", "Finish", "RunStatus", "conversation", "limit_reached"]

OutputT = TypeVar("OutputT")
T = TypeVar("T")
RunStatus: TypeAlias = Literal["ok", "error", "limit", "cancelled"]
Steps: TypeAlias = Generator[Effect, Outcome | None, T]


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentSpec(Generic[OutputT]):
    """What the loop decides by.

    Attributes:
        at: The address of this run of the agent.
        model: The model's name.
        output: How the output is asked for and checked.
        tools: What the model may call.
        reads: The names of those that change nothing in the world.
        instructions: The system text; `dynamic` says that it is computed instead.
        dynamic: Ask for the instructions through a `Compute` effect.
        settings: Sampling parameters under their chat-completions names.
        tool_choice: What the model may or must call at first; after a call that this
            forced it is free again, so that the loop can end, unless `keep_tool_choice`.
        limits: Where the run ends; `repeats` is a number here.
        reasks: How often an output that does not fit is asked for again.
    """

    at: Address
    model: str
    output: OutputSpec[OutputT]
    tools: tuple[ToolDefinition, ...] = ()
    reads: frozenset[str] = frozenset()
    instructions: str | None = None
    dynamic: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tool_choice: ToolChoice | None = None
    keep_tool_choice: bool = False
    limits: Limits = Limits()
    reasks: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Finish(Generic[OutputT]):
    """How a conversation ended. `messages` is the whole valid history without instructions."""

    status: RunStatus
    messages: tuple[Message, ...]
    usage: Usage
    output: OutputT | None = None
    error: Failure | None = None


@dataclass(slots=True)
class _State:
    """What changes from step to step."""

    history: list[Message]
    usage: Usage = Usage()
    last_batch: tuple[tuple[str, str], ...] = ()
    repeated: int = 0
    without_tools: bool = False
    empty: int = 0
    attempts: list[dict[str, str]] = field(default_factory=list[dict[str, str]])


def conversation(spec: AgentSpec[OutputT], messages: Sequence[Message]) -> Steps[Finish[OutputT]]:
    """Run an agent to its end.

    Args:
        spec: The agent.
        messages: The conversation so far, ending with the prompt.

    Yields:
        Effects. Each must be answered with its own kind of outcome, or with an
        `Interrupt`, which ends the conversation at once with a valid history.

    Returns:
        How it ended. Nothing is raised for what a model or a tool does.
    """
    state = _State(history=list(messages))
    head = yield from _instructions(spec)
    if isinstance(head, (Failure, Interrupt)):
        return _stopped(state, head)
    step = 0
    while True:
        if reached := spec.limits.reached(state.usage):
            return _stopped(state, limit_reached(*reached))
        at = spec.at.step(step)
        answer = yield from _ask(spec, state, head, at)
        if isinstance(answer, (Failure, Interrupt)):
            return _stopped(state, answer)
        # A model that does not count itself must not escape the limit of steps.
        state.usage += replace(answer.usage, requests=max(answer.usage.requests, 1))
        if unusable := _unusable(answer, spec.model):
            return _stopped(state, unusable)

        verdict = spec.output.read(answer.message)
        if isinstance(verdict, Accepted):
            _conclude(state, answer, verdict)
            return Finish(
                status="ok",
                output=verdict.value,
                messages=tuple(state.history),
                usage=state.usage,
            )
        if answer.message.tool_calls:
            stop = yield from _act(spec, state, answer, verdict, at)
        else:
            stop = _ask_again(spec, state, answer, verdict)
        if stop is not None:
            return _stopped(state, stop)
        step += 1


def _instructions(spec: AgentSpec[Any]) -> Steps[tuple[Message, ...] | Failure | Interrupt]:
    """The messages that stand before the history in every request."""
    text = spec.instructions
    if spec.dynamic:
        computed = yield Compute(at=spec.at.child("instructions"), name="instructions")
        if not isinstance(computed, Value):
            return cast("Failure | Interrupt", computed)
        text = computed.value
    parts = [part for part in (text, spec.output.instructions) if part]
    return (SystemMessage(content="\n\n".join(parts)),) if parts else ()


def _ask(
    spec: AgentSpec[Any], state: _State, head: tuple[Message, ...], at: Address
) -> Steps[ModelResponse | Failure | Interrupt]:
    tools = (*spec.tools, spec.output.tool) if spec.output.tool else spec.tools
    request = ModelRequest(
        messages=(*head, *state.history),
        tools=tools,
        tool_choice=_tool_choice(spec, state) if tools else None,
        output=spec.output.format,
        settings=spec.settings,
    )
    answer = yield ModelCall(at=at, model=spec.model, request=request)
    return cast("ModelResponse | Failure | Interrupt", answer)


def _tool_choice(spec: AgentSpec[Any], state: _State) -> ToolChoice | None:
    if spec.output.tool is not None:
        # The answer itself comes as a call, so the model must always call something.
        if state.without_tools or not spec.tools:
            return ForcedTool(name=spec.output.tool.name)
        return "required"
    if state.without_tools:
        return "none"
    forced = spec.tool_choice not in (None, "auto", "none")
    if forced and state.usage.tool_calls and not spec.keep_tool_choice:
        return "auto"
    return spec.tool_choice


def limit_reached(name: str, value: float, maximum: float, *, hint: str = "") -> Failure:
    """The failure that names a limit of `Limits`."""
    text = f"The run reached Limits.{name} = {maximum:g} (now {value:g}). {hint}".rstrip()
    return _failure(LimitExceeded(text, limit=name, value=value, maximum=maximum))


def _failure(error: AgentKitError) -> Failure:
    return Failure(type=type(error).__name__, message=error.message, data=error.data())


def _unusable(answer: ModelResponse, model: str) -> Failure | None:
    """A response of which nothing may be executed or returned."""
    message = answer.message
    if answer.finish == "length":
        return _failure(
            OutputTruncated(
                f"The answer of {model} was cut off at its token limit after "
                f"{answer.usage.output_tokens} output tokens; nothing of it was executed. "
                "Raise max_completion_tokens or ask for less.",
                model=model,
                text=message.text,
            )
        )
    if message.refusal or answer.finish == "content_filter":
        said = message.refusal or message.text
        why = "refused" if message.refusal else "was stopped by a content filter"
        return _failure(ModelRefusal(f"{model} {why}: {said}", model=model, reason=answer.finish))
    if answer.finish == "error":
        return _failure(InvalidResponse(f"{model} ended its answer with an error.", model=model))
    return None


def _conclude(state: _State, answer: ModelResponse, verdict: Accepted[Any]) -> None:
    """Append the final answer. Where it came as a call, every call of it is answered."""
    state.history.append(answer.message)
    for call in answer.message.tool_calls:
        text = (
            "Accepted."
            if call is verdict.call
            else "Not executed: the final output came in the same response."
        )
        state.history.append(_told(call, text))


def _act(
    spec: AgentSpec[Any],
    state: _State,
    answer: ModelResponse,
    verdict: Rejected,
    at: Address,
) -> Steps[Failure | Interrupt | None]:
    """Run the calls of one response and append their answers, or say why not."""
    calls = answer.message.tool_calls
    if state.without_tools:
        maximum = cast("int", spec.limits.repeats)
        return limit_reached(
            "repeats",
            state.repeated,
            maximum,
            hint="Asked without tools, the model called tools again.",
        )
    batch = tuple((call.name, call.arguments) for call in calls)
    state.repeated = state.repeated + 1 if batch == state.last_batch else 0
    state.last_batch = batch
    if spec.limits.repeats is not None and state.repeated > spec.limits.repeats:
        # The earlier results stand: this response is left out of the history, and the
        # model is asked once more for an answer from what it has.
        state.without_tools = True
        return None

    rejected = [call for call in calls if call is verdict.call]
    wanted = [(index, call) for index, call in enumerate(calls) if call is not verdict.call]
    maximum, total = spec.limits.tool_calls, state.usage.tool_calls + len(wanted)
    state.history.append(answer.message)
    if maximum is not None and total > maximum:
        state.history += [_told(c, "Not executed: the run has reached its limit.") for c in calls]
        return limit_reached("tool_calls", total, maximum)
    if rejected and (stop := _count_attempt(spec, state, verdict)):
        state.history += [_told(call, "Not executed: the run has ended.") for call in calls]
        return stop
    outcomes: tuple[ToolOutcome, ...] = ()
    interrupt: Interrupt | None = None
    if wanted:
        invocations = tuple(
            ToolInvocation(
                at=at.call(index), call=call, effect="read" if call.name in spec.reads else "write"
            )
            for index, call in wanted
        )
        answered = yield ToolBatch(at=at, calls=invocations)
        if isinstance(answered, Interrupt):
            interrupt, outcomes = answered, answered.outcomes
        else:
            outcomes = cast("tuple[ToolOutcome, ...]", answered)
    state.usage += _used(outcomes)
    answers = iter(outcomes)
    for call in calls:
        told = _told(call, verdict.problem) if call is verdict.call else next(answers).message
        state.history.append(told)
    return interrupt or _fatal(outcomes)


def _used(outcomes: tuple[ToolOutcome, ...]) -> Usage:
    """What a batch has used: its calls, what they said, and what their sub-agents used."""
    size = sum(len(outcome.message.text.encode("utf-8", "replace")) for outcome in outcomes)
    used = Usage(tool_calls=len(outcomes), tool_bytes=size)
    for outcome in outcomes:
        used += outcome.usage
    return used


def _fatal(outcomes: tuple[ToolOutcome, ...]) -> Failure | None:
    """The failure of a tool whose author wants it raised; the others ride along as its data."""
    fatal = [outcome.error for outcome in outcomes if outcome.fatal and outcome.error]
    return fatal[0] if fatal else None


def _ask_again(
    spec: AgentSpec[Any], state: _State, answer: ModelResponse, verdict: Rejected
) -> Failure | None:
    """No calls and no output that fits: tell the model, unless it was told often enough."""
    if not answer.message.text:
        # An empty message is not kept: several servers refuse one in the history.
        state.empty += 1
        if state.empty <= 1:
            return None
        return _failure(
            InvalidResponse(
                f"{spec.model} answered twice with neither text nor tool calls.",
                model=spec.model,
            )
        )
    state.history.append(replace(answer.message, tool_calls=()))
    if stop := _count_attempt(spec, state, verdict):
        return stop
    state.history.append(UserMessage(content=verdict.problem))
    return None


def _count_attempt(spec: AgentSpec[Any], state: _State, verdict: Rejected) -> Failure | None:
    state.attempts.append({"text": verdict.text, "problem": verdict.problem})
    if len(state.attempts) <= spec.reasks:
        return None
    return _failure(
        OutputInvalid(
            f"The output of {spec.model} did not fit after {len(state.attempts)} attempts. "
            f"The last problem: {verdict.problem}",
            model=spec.model,
            attempts=state.attempts,
        )
    )


def _told(call: ToolCall, text: str) -> ToolMessage:
    return ToolMessage(call_id=call.id, name=call.name, content=text)


def _stopped(state: _State, reason: Failure | Interrupt) -> Finish[Any]:
    if isinstance(reason, Interrupt):
        status, error = reason.status, reason.error
    else:
        error = reason
        status = "limit" if error.type == "LimitExceeded" else "error"
    return Finish(status=status, error=error, messages=tuple(state.history), usage=state.usage)
