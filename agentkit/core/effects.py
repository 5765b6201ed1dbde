"""Effects, which the loop yields, and outcomes, which it is sent: data only.

The loop yields effects and is sent outcomes. Both are values without closures,
so that the same loop can be driven live, from a recording, from a script or by
a foreign engine. Failures are outcomes too.

Every effect has an `Address`, made from its cause and never from timing:

    /agent                      the run of an agent
    /agent/m2                   its model call at step 2
    /agent/m2/h1                the second HTTP attempt of that call
    /agent/m2/t0                the first tool call of that response
    /agent/m2/t0/research/m0    the first model call of a sub-agent which that tool ran
    /agent/m2/t0/research~1     the same tool's second use of that sub-agent
    /agent/instructions         user code that is not pure, by its name
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, TypeAlias

from agentkit.errors import (
    AgentKitError,
    ConfigurationError,
    InvalidArguments,
    RecordedError,
    ToolsFailed,
    error_from_data,
    safe_repr,
    safe_str,
)
from agentkit.messages import (
    NO_USAGE,
    JsonObject,
    ModelRequest,
    ModelResponse,
    ToolCall,
    ToolMessage,
    Usage,
)
from agentkit.schema.repair import load

__all__ = [
    "Address",
    "Compute",
    "Decision",
    "Effect",
    "Failure",
    "Handler",
    "Interrupt",
    "LoopEffect",
    "ModelCall",
    "OnCrash",
    "Outcome",
    "Pause",
    "PendingCall",
    "PendingKind",
    "SkipReason",
    "SkippedCall",
    "Suspended",
    "ToolBatch",
    "ToolInvocation",
    "ToolOutcome",
    "ToolStatus",
    "Value",
    "ancestors",
    "decided",
]


class Address(str):
    """The place of an effect in its run; see the module's drawing."""

    __slots__ = ()

    @classmethod
    def root(cls, agent: str) -> Self:
        """Return the address of a run's outermost agent."""
        return cls(f"/{agent}")

    def step(self, index: int) -> Address:
        """Return the address of the model call at step `index` of this agent."""
        return Address(f"{self}/m{index}")

    def call(self, index: int) -> Address:
        """Return the address of the tool call at `index` of this model call's response."""
        return Address(f"{self}/t{index}")

    def attempt(self, index: int) -> Address:
        """Return the address of HTTP attempt `index` of this model call."""
        return Address(f"{self}/h{index}")

    @property
    def parent(self) -> Address:
        """The address above."""
        return Address(self.rpartition("/")[0])

    @property
    def order(self) -> tuple[tuple[str, int], ...]:
        """Sorts addresses in the order of steps and calls: `t2` stands before `t10`."""
        parts = (re.fullmatch(r"(.*?)(\d*)", part) for part in self.split("/"))
        return tuple((part[1], int(part[2] or -1)) for part in parts if part is not None)

    def child(self, name: str, use: int = 0) -> Address:
        """Return the address of something below this one; `use` counts its uses from 0."""
        return Address(f"{self}/{name}~{use}" if use else f"{self}/{name}")


def ancestors(at: str) -> list[str]:
    """Return the addresses above one, the outermost first."""
    parts = at.split("/")
    return ["/".join(parts[:length]) for length in range(2, len(parts))]


# Effects


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCall:
    """Ask the model. Answered by a `ModelResponse` or a `Failure`.

    `server` is a hash that tells models of one name apart: by URL, key and headers.
    It is for middleware, and not recorded.
    """

    at: Address
    model: str
    request: ModelRequest
    server: str = ""


OnCrash: TypeAlias = Literal["retry", "ask", "fail"]
"""What becomes of a call that was in flight when its run was interrupted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolInvocation:
    """Run one tool call. Answered by a `ToolOutcome`, whatever happens.

    `effect` is what the tool's author says it does to the world, `on_crash` what becomes of
    it when it is interrupted; a `sequential` call runs alone. `repairs` are those that the
    model's text needed. Where a decision, or that none is needed, depends on the arguments,
    they stand in the call as they were read for it, and `sent` is the text that they were
    read from.
    """

    at: Address
    call: ToolCall
    effect: Literal["read", "write"] = "write"
    sequential: bool = False
    on_crash: OnCrash | None = None
    repairs: tuple[str, ...] = ()
    sent: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolBatch:
    """Run the calls of one response, concurrently. Answered by their outcomes in call order.

    No handler sees one: the driver has each of the calls performed.
    """

    at: Address
    calls: tuple[ToolInvocation, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Compute:
    """Run a user's function that is not pure. Answered by a `Value` or a `Failure`.

    `effect` and `on_crash` are as of a `ToolInvocation`.
    """

    at: Address
    name: str
    input: Any = None
    effect: Literal["read", "write"] = "read"
    on_crash: OnCrash | None = None


PendingKind: TypeAlias = Literal["approval", "deferred", "in_flight", "question"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingCall:
    """A tool call that waits for a decision before it runs.

    Attributes:
        at: Its address.
        call: What the model asks for. Its arguments are those that would run: repaired,
            converted, and complete with the tool's defaults.
        kind: `approval`: may it run? `deferred`: what is its result? `in_flight`: it had
            begun when the run was interrupted, and may have had its effect; run it again?
            `question`: the running call asks a person something; see `RunContext.ask`.
    """

    at: Address
    call: ToolCall
    kind: PendingKind

    @property
    def args(self) -> JsonObject:
        """The arguments, by the names that the model knows.

        Raises:
            InvalidArguments: They are no JSON object; only of a call that is `in_flight`.
        """
        return load(self.call.arguments)[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause:
    """Have calls decided about. Answered by a `Decision` for each, in order, or `Suspended`.

    `forced` are the calls that wait only because they did so when the run was recorded.
    """

    at: Address
    pending: tuple[PendingCall, ...]
    forced: tuple[Address, ...] = ()


SkipReason: TypeAlias = Literal[
    "output", "handoff", "denied", "answered", "refused", "repeated", "limit"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class SkippedCall:
    """A note that no tool runs a call. It is recorded, and no handler sees it.

    Attributes:
        at: The call's address.
        call: What the model asked for.
        reason: `output`: it is the run's output. `handoff`: it hands the conversation over.
            `denied`, `answered`: that was the decision about it. `refused`: it is not executed,
            as its message says. `repeated`: the response only repeats the one before.
            `limit`: the run ends here, at a limit or after its last attempt at an output.
        message: What the model reads; None if the response does not enter the history.
    """

    at: Address
    call: ToolCall
    reason: SkipReason
    message: ToolMessage | None = None


Effect: TypeAlias = ModelCall | ToolInvocation | Compute | Pause
"""What handlers perform."""
LoopEffect: TypeAlias = Effect | ToolBatch
"""What the loop yields, and a `Step` of `Agent.iter` holds."""


# Outcomes


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """An effect that did not succeed: the error's type, message and fields as data.

    `parts` are the failures that this one is made of, if it is a `ToolsFailed`;
    `usage` is what sub-agents have used for it; `exception` is the live exception,
    which is what this process raises. It is never recorded.
    """

    type: str
    message: str
    data: JsonObject = field(default_factory=dict[str, Any])
    traceback: str | None = None
    parts: tuple[Failure, ...] = ()
    usage: Usage = NO_USAGE
    exception: BaseException | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Describe an exception."""
        known = isinstance(error, AgentKitError)
        return cls(
            type=error.type if isinstance(error, RecordedError) else type(error).__name__,
            message=safe_str(error),
            data=error.data() if known else {},
            traceback=_traced(error),
            parts=tuple(map(cls.of, error.exceptions)) if isinstance(error, ToolsFailed) else (),
            exception=error,
        )

    def to_error(self) -> Exception:
        """Return the live exception if there is one, else an error rebuilt from the data."""
        if isinstance(self.exception, Exception):
            return self.exception
        if self.parts:
            return ToolsFailed(self.message, [part.to_error() for part in self.parts])
        error = error_from_data(self.type, self.message, self.data)
        error.__cause__ = self.exception
        return error


def _traced(error: BaseException) -> str | None:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # a broken __str__
        return None


ToolStatus: TypeAlias = Literal["ok", "error", "timeout", "cancelled", "denied"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolOutcome:
    """How one tool call ended. `message` is what the model reads, in every case.

    `fatal` says that the tool's author wants the run to end here (`on_error="raise"`);
    `usage` is what the sub-agents that the tool ran have used.
    """

    at: Address
    status: ToolStatus
    message: ToolMessage
    error: Failure | None = None
    fatal: bool = False
    usage: Usage = NO_USAGE

    @property
    def size(self) -> int:
        """The bytes that the model reads, as UTF-8."""
        text = self.message.text
        return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """What a `Compute` returned, and what sub-agents have used for it.

    `recorded` says that it comes from a trace: it is the JSON of the value, not the value.
    """

    value: Any
    usage: Usage = NO_USAGE
    recorded: bool = field(default=False, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Interrupt:
    """Any effect may be answered so: the run has to end now, whatever the loop wants.

    For a `ToolBatch`, `outcomes` answers every one of its calls: those that had
    finished as they finished, the others as cancelled; empty if none has begun.
    `pending` says what a paused run waits for, and `usage` what sub-agents have used
    for a single effect.
    """

    status: Literal["cancelled", "limit", "error", "paused"]
    error: Failure
    outcomes: tuple[ToolOutcome, ...] = ()
    pending: tuple[PendingCall, ...] = ()
    usage: Usage = NO_USAGE


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision about a pending call. Made by its class methods.

    Attributes:
        kind: What becomes of the call.
        text: The reason, the other arguments as JSON text, or the answer.
        by: Who decided, for the trace.
    """

    kind: Literal["approve", "deny", "edit", "answer"]
    text: str = ""
    by: str | None = None

    def __post_init__(self) -> None:
        """Check what a person wrote before anything depends on it."""
        if self.kind not in ("approve", "deny", "edit", "answer"):
            raise ConfigurationError(
                f"Decision({safe_repr(self.kind)}): expected Decision.approve(), .deny(reason), "
                ".edit(arguments) or .answer(text)."
            )
        given: dict[str, object] = {"text": self.text, "by": self.by or ""}
        for name, value in given.items():
            if not isinstance(value, str):
                raise ConfigurationError(
                    f"Decision.{self.kind}: {name}={safe_repr(value)}: expected text."
                )
        if self.kind == "edit":
            try:
                _, repairs = load(self.text, blank=False)
            except InvalidArguments as error:
                raise ConfigurationError(
                    f"Decision.edit: the arguments are not JSON of an object. {error.message}"
                ) from error
            if repairs:
                raise ConfigurationError(
                    f"Decision.edit: the arguments are not JSON: {'; '.join(repairs)}."
                )

    @classmethod
    def approve(cls, *, by: str | None = None) -> Self:
        """Run the call as it is."""
        return cls("approve", by=by)

    @classmethod
    def deny(cls, reason: str = "", *, by: str | None = None) -> Self:
        """Do not run it; the model reads the reason."""
        return cls("deny", reason, by)

    @classmethod
    def edit(cls, arguments: Mapping[str, Any] | str, *, by: str | None = None) -> Self:
        """Run it with other arguments, which the model reads too."""
        text = arguments if isinstance(arguments, str) else json.dumps(dict(arguments))
        return cls("edit", text, by)

    @classmethod
    def answer(cls, text: str, *, by: str | None = None) -> Self:
        """Do not run it; this is its result."""
        return cls("answer", text, by)

    def said(self) -> str:
        """Return what the model reads about a call that does not run."""
        if self.kind == "answer":
            return self.text
        return f"Denied: {self.text}" if self.text else "Denied."


@dataclass(frozen=True, slots=True)
class Suspended:
    """The outcome of a pause without all decisions: the run pauses until it is resumed.

    Attributes:
        made: The decision about each call, or None; in the order of the pause. Empty if
            there is none.
    """

    made: tuple[Decision | None, ...] = ()


def decided(decisions: Sequence[Decision | None]) -> tuple[Decision, ...] | Suspended:
    """Return the outcome of a pause: every decision, or `Suspended` if some are missing."""
    made = tuple(decision for decision in decisions if decision is not None)
    if len(made) == len(decisions):
        return made
    return Suspended(tuple(decisions) if made else ())


Outcome: TypeAlias = (
    ModelResponse
    | ToolOutcome
    | tuple[ToolOutcome, ...]
    | tuple[Decision, ...]
    | Value
    | Failure
    | Interrupt
    | Suspended
)


class Handler(Protocol):
    """Performs effects. Handlers wrap each other like middleware."""

    async def perform(self, effect: Effect) -> Outcome:
        """Perform `effect` and return its outcome. Failures are returned, not raised.

        Cancellation is raised, as everywhere.
        """
        ...
