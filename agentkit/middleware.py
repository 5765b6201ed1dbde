"""Ready-made middleware: handlers around the handler that performs an agent's effects.

    agent = Agent("openai:gpt-4o", middleware=[log(), cache(), budget(cost=5.0)])

Order: the first in the list is the outermost. It sees each effect first and its
outcome last; what it answers itself, those after it never see. Above, a cached
answer is logged and costs nothing; `[budget(…), cache()]` would refuse it once
the budget is spent.

Errors: failures are outcomes. What fails or is blocked here is returned as a
`Failure`, which ends the run, or as a `ToolOutcome`, which the model reads. An
exception out of a handler is a bug in it: it ends the run and is raised as it is; if
several calls of one batch fail so at the same time, as one `ExceptionGroup`. A call in
which a sub-agent waits for a person is answered by an `Interrupt`: pass it on.

Recording stands outside all middleware: a trace holds what the loop was sent, so
a replay gives the same answers and runs no middleware.

Each agent has its own list: a sub-agent is guarded by its own middleware, not by
that of the agent that asks it. One middleware may be given to many agents, and
then they share its cache or its budget. Make it once: messages that
outlive a run remember what was made of them.

Your own is a function with `around`, or any function from `Handler` to `Handler`.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from agentkit.core.effects import (
    Compute,
    Effect,
    Failure,
    Handler,
    Interrupt,
    ModelCall,
    Outcome,
    Pause,
    ToolInvocation,
    ToolOutcome,
)
from agentkit.errors import ConfigurationError, LimitExceeded, ToolError
from agentkit.messages import (
    AssistantMessage,
    Content,
    Message,
    ModelRequest,
    ModelResponse,
    Part,
    TextPart,
    ToolCall,
    ToolMessage,
    Usage,
)
from agentkit.models.prices import check_price
from agentkit.redaction import PLACEHOLDER, Redactor
from agentkit.runtime.config import Middleware
from agentkit.settings import Limits
from agentkit.tools.invoke import called
from agentkit.trace.naming import Namer, canonical, digest

__all__ = ["Budget", "around", "budget", "cache", "guard", "log", "redact"]

Around: TypeAlias = Callable[[Effect, Handler], Awaitable[Outcome]]
Store: TypeAlias = MutableMapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Around:
    function: Around
    inner: Handler

    async def perform(self, effect: Effect) -> Outcome:
        return await self.function(effect, self.inner)


def around(function: Around) -> Middleware:
    """Make middleware of one function.

        @around
        async def no_weekends(effect: Effect, inner: Handler) -> Outcome:
            ...                                    # before: look, change, or answer
            outcome = await inner.perform(effect)
            ...                                    # after
            return outcome

    It is given a `ModelCall`, `ToolInvocation`, `Compute` or `Pause`, several at the same
    time where calls run concurrently, and returns the outcome that belongs to it.
    """
    return functools.partial(_Around, function)


def log(logger: logging.Logger | None = None, level: int = logging.INFO) -> Middleware:
    """Log one line for each effect: address, what it was, how it ended, milliseconds.

    No content is logged: no prompt, no argument, no result.

    Args:
        logger: Where to; `agentkit.middleware` by default.
        level: The level of the lines.
    """
    to = logger or logging.getLogger(__name__)

    async def perform(effect: Effect, inner: Handler) -> Outcome:
        started, status = time.perf_counter(), "unfinished"
        try:
            outcome = await inner.perform(effect)
            status = _status(outcome)
        finally:
            took = (time.perf_counter() - started) * 1000
            to.log(level, "%s %s %s %.1f ms", effect.at, _what(effect), status, took)
        return outcome

    return around(perform)


def _what(effect: Effect) -> str:
    match effect:
        case ModelCall(model=model):
            return f"model {model}"
        case ToolInvocation(call=call):
            return f"tool {call.name}"
        case Compute(name=name):
            return f"compute {name}"
        case Pause():
            return "pause"


def _status(outcome: Outcome) -> str:
    match outcome:
        case Failure(type=kind):
            return kind
        case ToolOutcome(status=status):
            return status
        case ModelResponse(finish=finish):
            return finish
        case Interrupt(status=status):
            return status
        case _:
            return "ok"


def _model_of(handler: Handler, effect: ModelCall) -> Any:
    """Return the model that handlers end at, or the effect where one of them hides it."""
    while (inner := getattr(handler, "inner", None)) is not None:
        handler = inner
    return getattr(handler, "model", _Named(effect.model))


@dataclass(frozen=True, slots=True)
class _Named:
    """A model of which only the name is known."""

    name: str


@dataclass(slots=True)
class Budget:
    """Middleware that many runs pay from; made by `budget`.

    Attributes:
        limits: What may be used.
        used: What was used so far.
    """

    limits: Limits
    used: Usage = field(default_factory=Usage)

    def __call__(self, inner: Handler) -> Handler:
        """Put the budget around a handler."""
        return _Around(self._perform, inner)

    async def _perform(self, effect: Effect, inner: Handler) -> Outcome:
        if not isinstance(effect, ModelCall):
            return await inner.perform(effect)
        if self.limits.cost is not None:
            try:
                check_price(_model_of(inner, effect))
            except ConfigurationError as error:
                return Failure.of(error)
        if reached := self.limits.reached(self.used):
            name, value, maximum = reached
            text = f"The budget of {name} = {maximum:g} is spent (now {value:g})."
            return Failure.of(LimitExceeded(text, limit=name, value=value, maximum=maximum))
        outcome = await inner.perform(effect)
        if isinstance(outcome, ModelResponse):
            self.used += outcome.usage
        return outcome


def budget(*, cost: float | None = None, total_tokens: int | None = None) -> Budget:
    """Refuse model calls once all runs together have used so much.

    A run then ends with `LimitExceeded`, as by its own `Limits`. Calls that are under way
    are finished and paid, so concurrent runs may go over by those. `budget.used` says how
    much was used.

    Args:
        cost: USD. Needs a known price, as `Limits.cost` does.
        total_tokens: Input and output tokens.

    Raises:
        InvalidSetting: A number is too small.
    """
    return Budget(Limits(steps=None, cost=cost, total_tokens=total_tokens))


def cache(
    store: Store | None = None, *, size: int = 1000, tools: Collection[str] = ()
) -> Middleware:
    """Answer a model request, or a call of a named tool, as an equal one was answered.

    Requests are equal when a replay would take them for the same: model, messages, tools
    and settings; and when they would go to the same server, with the same key and headers.
    Of these, keys hold a hash. A caller's own HTTP client may add more, so its answers are
    for that client alone, as are those of a model of your own without a method
    `identity()` that returns a text for what its answers depend on.

    A cached answer comes whole, without deltas, and uses nothing: its usage is one
    request. Only usable answers are kept: no failure, refusal or truncation.

    Args:
        store: Holds the answers by key: `ModelResponse` and `ToolOutcome` objects, which
            can be pickled. By default the last `size` are held in memory.
        size: See `store`.
        tools: Names of tools that only read and whose results depend on their arguments
            alone: a result is given to every run that asks, whatever its `deps`. A tool
            that is not `effect="read"` is never answered from the cache.
    """
    kept = store if store is not None else _Recent(size)
    redact = Redactor()

    def wrap(inner: Handler) -> Handler:
        namer = Namer(redact)  # of one run: it remembers the last request, to name the next

        async def perform(effect: Effect, inner: Handler) -> Outcome:
            key = _key(effect, namer, tools)
            if key is None:
                return await inner.perform(effect)
            if (known := kept.get(key)) is not None:
                return _again(known, effect)
            outcome = await inner.perform(effect)
            if _usable(outcome):
                kept[key] = outcome
            return outcome

        return _Around(perform, inner)

    return wrap


class _Recent(OrderedDict[str, Any]):
    """The last used items, at most `size`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def get(self, key: str, default: Any = None) -> Any:
        if key not in self:
            return default
        self.move_to_end(key)
        return self[key]

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        if len(self) > self._size:
            self.popitem(last=False)


def _key(effect: Effect, namer: Namer, tools: Collection[str]) -> str | None:
    match effect:
        case ModelCall():
            return f"model {effect.server} {namer.request(effect).fingerprint}"
        case ToolInvocation(call=call, effect="read") if call.name in tools:
            try:
                arguments = json.loads(call.arguments)
            except ValueError:
                arguments = call.arguments
            return f"tool {digest(canonical([call.name, arguments]))}"
        case _:
            return None


def _usable(outcome: Outcome) -> bool:
    match outcome:
        case ModelResponse(message=message, finish="stop" | "tool_calls"):
            return not message.refusal and bool(message.text or message.tool_calls)
        case ToolOutcome(status="ok"):
            return True
        case _:
            return False


def _again(known: Any, effect: Effect) -> Outcome:
    """Turn a kept outcome into the answer to another effect."""
    if isinstance(effect, ToolInvocation):
        message = replace(known.message, call_id=effect.call.id)
        return replace(known, at=effect.at, message=message, usage=Usage())
    return replace(known, usage=Usage(requests=1))


def guard(
    *,
    request: Callable[[ModelRequest], Any] | None = None,
    call: Callable[[ToolCall], Any] | None = None,
    result: Callable[[ToolMessage], Any] | None = None,
) -> Middleware:
    """Inspect what goes to the model and to the tools; let it pass, change it, or block it.

    The functions may be async. None lets pass what was given, another value of the same
    kind stands in its place. To block, raise: a `ToolError` about a call or a result is
    shown to the model, and the run goes on; every other exception ends the run, as does
    every one about a request. (A guard that breaks lets nothing pass.)

    Args:
        request: Gets each request before the model is asked.
        call: Gets each tool call before the tool runs, with the arguments as JSON that the
            tool will get. One that it changes is refused if that needs approval.
        result: Gets each tool's answer before the model reads it.
    """

    async def perform(effect: Effect, inner: Handler) -> Outcome:
        match effect:
            case ModelCall() if request is not None:
                try:
                    asked = await _judged(request, effect.request)
                except Exception as error:
                    return Failure.of(error)
                return await inner.perform(replace(effect, request=asked))
            case ToolInvocation():
                return await guarded(effect, inner)
            case _:
                return await inner.perform(effect)

    async def guarded(effect: ToolInvocation, inner: Handler) -> Outcome:
        try:
            if call is not None:
                allowed = await _judged(call, effect.call)
                effect = replace(effect, call=replace(allowed, id=effect.call.id))
        except Exception as error:
            return _blocked(effect, error)
        outcome = await inner.perform(effect)
        if result is None or not isinstance(outcome, ToolOutcome):
            return outcome
        try:
            judged = await _judged(result, outcome.message)
        except Exception as error:
            return replace(_blocked(effect, error), usage=outcome.usage)
        return replace(outcome, message=replace(judged, call_id=effect.call.id))

    return around(perform)


async def _judged(judge: Callable[[Any], Any], value: Any) -> Any:
    verdict = await called(judge, value)
    return value if verdict is None else verdict


def _blocked(effect: ToolInvocation, error: Exception) -> ToolOutcome:
    text = error.message if isinstance(error, ToolError) else "Blocked; the run ends here."
    return ToolOutcome(
        at=effect.at,
        status="denied",
        message=ToolMessage(call_id=effect.call.id, name=effect.call.name, content=text),
        error=Failure.of(error),
        fatal=not isinstance(error, ToolError),
    )


def redact(*patterns: str | re.Pattern[str]) -> Middleware:
    """Take secrets out of what the model reads: the texts of requests, and tool results.

    What matches a pattern, or looks like a key (`agentkit.redaction.PATTERNS`), becomes a
    placeholder such as `⟦secret:32c17521⟧`; equal secrets have equal placeholders. What a
    model then writes into a tool call is the placeholder: nothing is put back.

    Args:
        *patterns: Regular expressions.
    """
    compiled = [re.compile(pattern) for pattern in patterns]
    redactor = Redactor()
    memo = object()  # this middleware's entry in the memo of each message

    def text(given: str) -> str:
        for pattern in compiled:
            given = pattern.sub(lambda match: _placed(match, redactor), given)
        return redactor(given)

    def clean(message: Message) -> Message:
        # Once for each message and not at every step, and always into the same object,
        # of which codecs remember the bytes.
        kept = message._memo  # pyright: ignore[reportPrivateUsage]  # as in trace.blobs
        if memo not in kept:
            kept[memo] = _cleaned(message, text)
        return message if kept[memo] is None else kept[memo]

    def wrap(inner: Handler) -> Handler:
        asked: tuple[Message, ...] = ()  # the last request: the next one mostly begins with it
        cleaned: tuple[Message, ...] = ()

        async def perform(effect: Effect, inner: Handler) -> Outcome:
            nonlocal asked, cleaned
            if isinstance(effect, ModelCall):
                given = effect.request.messages
                known = len(asked) if given[: len(asked)] == asked else 0
                asked, cleaned = given, (*cleaned[:known], *map(clean, given[known:]))
                effect = replace(effect, request=replace(effect.request, messages=cleaned))
            outcome = await inner.perform(effect)
            if isinstance(outcome, ToolOutcome):
                message = clean(outcome.message)
                assert isinstance(message, ToolMessage)
                return replace(outcome, message=message)
            return outcome

        return _Around(perform, inner)

    return wrap


def _placed(match: re.Match[str], redactor: Redactor) -> str:
    """Return the placeholder of what matched, unless that is empty or part of one."""
    text, secret = match.string, match.group()
    start = text.rfind("⟦", max(0, match.start() - 40), match.start() + 1)
    inside = PLACEHOLDER.match(text, start) if start >= 0 else None
    if not secret or (inside is not None and match.end() <= inside.end()):
        return secret
    return redactor.secret(secret, "secret")


def _cleaned(message: Message, text: Callable[[str], str]) -> Message | None:
    """Return the message without what `text` takes out; None if nothing was."""
    cleaned = replace(message, content=_content(message.content, text))
    if isinstance(cleaned, AssistantMessage):
        calls = (replace(call, arguments=text(call.arguments)) for call in cleaned.tool_calls)
        reasoning = None if cleaned.reasoning is None else text(cleaned.reasoning)
        cleaned = replace(cleaned, tool_calls=tuple(calls), reasoning=reasoning)
    return None if cleaned == message else cleaned


def _content(content: Content | None, text: Callable[[str], str]) -> Any:
    if content is None:
        return None
    if isinstance(content, str):
        return text(content)
    parts: list[Part] = [
        TextPart(text=text(part.text)) if isinstance(part, TextPart) else part for part in content
    ]
    return tuple(parts)
