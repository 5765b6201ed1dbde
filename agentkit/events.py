"""What a caller sees of a run as it happens: one frozen event per transition.

Events are a side channel. The loop never waits for one, and nothing that the
outcome of a run depends on travels here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from agentkit.core.effects import Address, PendingCall, ToolStatus
from agentkit.messages import FinishReason, JsonObject, Usage

__all__ = [
    "Emit",
    "Event",
    "Finished",
    "HttpFinished",
    "HttpStarted",
    "OutputDelta",
    "Paused",
    "ReasoningDelta",
    "Restarted",
    "StepFinished",
    "StepStarted",
    "TextDelta",
    "ToolCallDelta",
    "ToolCallFinished",
    "ToolCallStarted",
    "ToolProgress",
    "Warned",
    "ignore",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepStarted:
    """The model is asked."""

    at: Address
    model: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFinished:
    """The model has answered, or has failed: then `error` says how."""

    at: Address
    finish: FinishReason | None
    usage: Usage
    text: str = ""
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TextDelta:
    """A piece of the answer's text."""

    at: Address
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReasoningDelta:
    """A piece of the model's visible thinking."""

    at: Address
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call that the model is still writing. Nothing is executed yet."""

    at: Address
    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputDelta:
    """The typed output so far, as JSON data: validated, and without what has not come yet.

    An object is a dictionary of the fields that have begun, whatever the output's type and
    mode. `at` is the address of the model call.
    """

    at: Address
    value: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCallStarted:
    """A tool is about to run."""

    at: Address
    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolProgress:
    """A value that a running tool yielded or reported."""

    at: Address
    value: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCallFinished:
    """A tool call has ended. `text` is what the model reads."""

    at: Address
    name: str
    status: ToolStatus
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpStarted:
    """An HTTP attempt of a model call begins. `attempt` counts from 0."""

    at: Address
    attempt: int
    host: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpFinished:
    """An HTTP attempt has ended: with a status, or without one and an `error`.

    `delay` is the time in seconds until the next attempt, if there is one.
    """

    at: Address
    status: int | None = None
    request_id: str | None = None
    retry_after: float | None = None
    delay: float | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Restarted:
    """The model call starts again after deltas had been shown: forget those at this address."""

    at: Address
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Warned:
    """Something was changed on the way and the run goes on: a dropped parameter, a repair."""

    at: Address
    code: str
    text: str
    data: JsonObject = field(default_factory=dict[str, Any])


@dataclass(frozen=True, kw_only=True, slots=True)
class Paused:
    """Calls wait for decisions. Without an approver the run ends here, to be resumed."""

    at: Address
    pending: tuple[PendingCall, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The run has ended."""

    at: Address
    status: str


Event: TypeAlias = (
    StepStarted
    | StepFinished
    | TextDelta
    | ReasoningDelta
    | ToolCallDelta
    | OutputDelta
    | ToolCallStarted
    | ToolProgress
    | ToolCallFinished
    | HttpStarted
    | HttpFinished
    | Restarted
    | Paused
    | Warned
    | Finished
)
Emit: TypeAlias = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Do nothing: the listener of runs without one."""
