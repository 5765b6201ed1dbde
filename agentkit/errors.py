"""The error tree.

An `AgentKitError` is for people; the text of a `ToolError` is for the model.
Every error has attributes, so that no message needs parsing. An error that ends a
run also carries the result so far: `error.result` (status, valid history, usage) and
`error.trace`. An exception of the application's own code (a validator, computed
instructions, an approver) ends a run too, and is raised unchanged:
`agentkit.result_of(error)` returns the result of any of them.

    AgentKitError
    ├── ConfigurationError          the caller's mistake, raised before any I/O
    │   ├── UnknownModel            a model string that names no provider
    │   ├── MissingKey              no API key for a provider that needs one
    │   ├── InvalidTool             a callable or schema that cannot be a tool
    │   ├── InvalidSetting          a parameter that is out of range or unsupported
    │   └── InvalidHistory          messages that no server accepts
    ├── ToolError                   raised by a tool, for the model to read
    │   └── InvalidArguments        arguments that do not match the tool's schema
    ├── ModelError                  no usable answer from the model
    │   ├── ModelUnreachable        no response at all: DNS, refused, reset, timeout
    │   ├── InvalidResponse         a response that is not chat completions, or breaks off
    │   ├── ModelHTTPError          an error status, or an error in a 200
    │   │   ├── AuthenticationFailed    401, 403
    │   │   ├── ModelNotFound           404
    │   │   ├── RateLimited             429
    │   │   ├── QuotaExceeded           402, or a 429 that waiting does not cure
    │   │   └── ContextLengthExceeded   a conversation too long for the model
    │   ├── ModelRefusal            a refusal by the model or a filter
    │   ├── OutputTruncated         an answer cut off at the token limit
    │   └── OutputInvalid           an output that never matched its type
    ├── LimitExceeded               one of `Limits`, reached
    ├── ToolsFailed                 an ExceptionGroup of failures of tools with on_error="raise"
    ├── RunCancelled                a run cancelled from outside
    ├── NoOutput                    the output of a run that has none, such as a paused one
    ├── LocalModelError             weights or an embedded server that is unavailable
    ├── ServerUnreachable           an MCP server that does not start, does not answer, or ended
    ├── TraceError                  a trace that cannot be read or written
    │   ├── TraceCorrupt            a bad line that is not the torn last one
    │   ├── TraceLocked             a trace that another process is writing
    │   └── TraceUnsupported        not a trace, or of a schema that this version cannot read
    ├── ReplayDivergence            a replay that differs from its recording
    └── RecordedError               a recorded error of unknown type
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

__all__ = [
    "AgentKitError",
    "AuthenticationFailed",
    "ConfigurationError",
    "ContextLengthExceeded",
    "InvalidArguments",
    "InvalidHistory",
    "InvalidResponse",
    "InvalidSetting",
    "InvalidTool",
    "LimitExceeded",
    "LocalModelError",
    "MissingKey",
    "ModelError",
    "ModelHTTPError",
    "ModelNotFound",
    "ModelRefusal",
    "ModelUnreachable",
    "NoOutput",
    "OutputInvalid",
    "OutputTruncated",
    "QuotaExceeded",
    "RateLimited",
    "RecordedError",
    "ReplayDivergence",
    "RunCancelled",
    "ServerUnreachable",
    "ToolError",
    "ToolsFailed",
    "TraceCorrupt",
    "TraceError",
    "TraceLocked",
    "TraceUnsupported",
    "UnknownModel",
    "error_from_data",
    "safe_repr",
    "safe_str",
]

RESULT = "__agentkit_result__"
"""The attribute of an exception, ours or not, that holds the result of the run it ended."""


class AgentKitError(Exception):
    """Base of every error that agentkit raises.

    A subclass declares its fields as annotations. They are passed by keyword, read as
    attributes, and default to None. Fields hold JSON values only: an error is an
    outcome, and outcomes are recorded.
    """

    fields: ClassVar[tuple[str, ...]] = ()
    known: ClassVar[dict[str, type[AgentKitError]]] = {}

    def __init_subclass__(cls) -> None:
        """Collect the declared fields, and register the classes of this file by name."""
        own = tuple(name for name in inspect.get_annotations(cls) if name not in cls.fields)
        cls.fields = (*cls.fields, *own)
        if cls.__module__ == __name__:
            AgentKitError.known[cls.__name__] = cls

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        for name in self.fields:
            setattr(self, name, fields.pop(name, None))
        if fields:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(fields))}")

    @property
    def message(self) -> str:
        """The message."""
        return self.args[0]

    @property
    def result(self) -> Any:
        """The `RunResult` of the run that this error ended, or None; see `agentkit.result_of`."""
        return self.__dict__.get(RESULT)

    @property
    def trace(self) -> Any:
        """The `Trace` of the run that this error ended, or None."""
        return self.result.trace if self.result is not None else None

    def data(self) -> dict[str, Any]:
        """Return the fields that are set, as JSON values."""
        return {name: value for name in self.fields if (value := getattr(self, name)) is not None}


AgentKitError.known[AgentKitError.__name__] = AgentKitError  # not a subclass of its own


class ConfigurationError(AgentKitError):
    """A mistake of the caller, raised before any I/O."""


class UnknownModel(ConfigurationError):
    """A model string that names no provider."""

    model: str


class MissingKey(ConfigurationError):
    """A missing API key; `variable` is the environment variable to set."""

    variable: str


class InvalidTool(ConfigurationError):
    """A callable or a schema that cannot be a tool."""

    tool: str | None


class InvalidSetting(ConfigurationError):
    """A parameter that is out of range, or that the server does not support."""

    field: str
    value: Any
    allowed: str | None


class InvalidHistory(ConfigurationError):
    """Messages that no server accepts, such as a call without an answer."""

    index: int | None


class ToolError(AgentKitError):
    """An error that a tool raises for the model, which reads the text as written."""


class InvalidArguments(ToolError):
    """Arguments of a model that do not match the tool's schema. The function was not called."""


class ModelError(AgentKitError):
    """A request without a usable answer."""

    model: str | None


class ModelUnreachable(ModelError):
    """No response at all: name resolution, refused, reset, timeout."""


class InvalidResponse(ModelError):
    """A response that is not chat completions, or that breaks off."""


class ModelHTTPError(ModelError):
    """An error status, or an error in a response with status 200."""

    status: int
    code: str | None
    request_id: str | None
    body: str | None
    retry_after: float | None


class AuthenticationFailed(ModelHTTPError):
    """401 or 403: the key is wrong, or may not use this model."""


class ModelNotFound(ModelHTTPError):
    """404: the server has no such model or path."""


class RateLimited(ModelHTTPError):
    """429: too many requests or tokens for now."""


class QuotaExceeded(ModelHTTPError):
    """402, or a 429 that waiting does not cure."""


class ContextLengthExceeded(ModelHTTPError):
    """A conversation that is too long for the model's context."""


class ModelRefusal(ModelError):
    """A refusal by the model or a content filter. The message is its text."""

    reason: str | None


class OutputTruncated(ModelError):
    """An answer that was cut off at the token limit; none of its calls ran."""

    text: str | None


class OutputInvalid(ModelError):
    """An output that never matched its type. `attempts` holds each text and its problem."""

    attempts: list[dict[str, str]] | None


class LimitExceeded(AgentKitError):
    """One of `Limits` that was reached: `limit` is its name, `maximum` its value."""

    limit: str
    value: float
    maximum: float


class ToolsFailed(ExceptionGroup[Exception], AgentKitError):
    """The failures of tools with `on_error="raise"`, in call order."""

    def __new__(cls, message: str, exceptions: Sequence[Exception]) -> Self:
        """Create the group; see ExceptionGroup."""
        return super().__new__(cls, message, exceptions)

    def __init__(self, message: str, exceptions: Sequence[Exception]) -> None:
        super().__init__(message, exceptions)

    def derive(self, excs: Sequence[Exception]) -> ToolsFailed:  # type: ignore[override]  # of Exceptions only
        """Return a group of some of the exceptions, as `except*` needs it."""
        return ToolsFailed(self.message, excs)


class RunCancelled(AgentKitError):
    """A run that was cancelled from outside."""

    reason: str | None


class NoOutput(AgentKitError):
    """`RunResult.output` of a run that is paused, or that ended without an output."""

    status: str


class LocalModelError(AgentKitError):
    """Weights, or an embedded server, that are not available."""


class ServerUnreachable(AgentKitError):
    """An MCP server that does not start, does not answer, or has ended.

    `server` is its name, and `stderr` the last lines of what a process wrote there.
    """

    server: str
    stderr: str | None


class TraceError(AgentKitError):
    """A trace that cannot be read or written."""

    path: str | None
    line: int | None


class TraceCorrupt(TraceError):
    """A bad line in a trace. A torn last line is no error: it is what a crash leaves."""


class TraceLocked(TraceError):
    """A trace that another process is writing: this one writes nothing to it."""


class TraceUnsupported(TraceError):
    """Not a trace, or one of a schema that this version cannot read."""

    schema: str | None


class ReplayDivergence(AgentKitError):
    """A replay that differs from its recording, with the first difference.

    Attributes:
        kind: request_changed, wrong_call, unexpected_call, missing_call, recording_ended,
            tool_schema_changed, order_changed or approval_changed; program_changed of a run
            that is resumed; result_changed of a call that ran live; outcome_changed of the
            run's end.
        at: The address.
        pointer: The JSON pointer to the first difference.
        expected: The recorded value.
        actual: The value in the replay.
        position: The index of the first different character, if both are text.
        cause: The origin of the difference: an address, or a part of the agent.
        suppressed: The number of further differences.
        source: FILE:LINE of the user's code that caused the effect.
        advice: What to do.
    """

    kind: str
    at: str
    pointer: str | None
    expected: Any
    actual: Any
    position: int | None
    cause: str | None
    suppressed: int | None
    source: str | None
    advice: str | None


class RecordedError(AgentKitError):
    """A recorded error of a type that agentkit does not know."""

    type: str


def error_from_data(type_name: str, message: str, data: Mapping[str, Any]) -> AgentKitError:
    """Rebuild a recorded error: one of this tree by its name, or a `RecordedError`.

    Unknown fields (of a newer version) are dropped; nothing is imported by name.
    """
    cls = AgentKitError.known.get(type_name)
    if cls is None or cls is ToolsFailed:  # a group is rebuilt from its parts
        return RecordedError(f"{type_name}: {message}", type=type_name)
    return cls(message, **{name: data[name] for name in cls.fields if name in data})


def safe_repr(value: object) -> str:
    """Return `repr(value)`, or its type if that fails: what is refused may be anything."""
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def safe_str(error: BaseException) -> str:
    """Return `str(error)`, or a placeholder if `__str__` itself fails."""
    try:
        return str(error)
    except Exception:  # a broken __str__ is no reason to end a run
        return f"(str() of this {type(error).__name__} failed)"
