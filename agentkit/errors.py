"""The error tree.

Text for people is an `AgentKitError`; text for the model is a `ToolError`.
Every error carries attributes, so that nobody has to parse a message, and an
error that ends a run also carries what the run had reached: `error.result`
(status, valid history, usage) and `error.trace`. What the application's own code
raises (a validator, computed instructions, an approver) ends a run too, and is
raised as it is: `agentkit.result_of(error)` gives its result, as that of every other error.

    AgentKitError
    ├── ConfigurationError          the caller's mistake, said before any I/O
    │   ├── UnknownModel            a model string nobody understands
    │   ├── MissingKey              a provider that needs a key, and there is none
    │   ├── InvalidTool             a callable or schema that cannot be a tool
    │   ├── InvalidSetting          a parameter out of its range, or unsupported
    │   └── InvalidHistory          messages that no server would accept
    ├── ToolError                   raised by a tool: this text is for the model
    │   └── InvalidArguments        the model's arguments do not fit the tool
    ├── ModelError                  the model gave no usable answer
    │   ├── ModelUnreachable        no response at all: DNS, refused, reset, timeout
    │   ├── InvalidResponse         a response that is not chat completions, or broke off
    │   ├── ModelHTTPError          a response with an error status, or an error inside a 200
    │   │   ├── AuthenticationFailed    401, 403
    │   │   ├── ModelNotFound           404
    │   │   ├── RateLimited             429
    │   │   ├── QuotaExceeded           402, or 429 when waiting will not help
    │   │   └── ContextLengthExceeded   the conversation does not fit the model
    │   ├── ModelRefusal            the model, or a filter, declined
    │   ├── OutputTruncated         cut off at the token limit
    │   └── OutputInvalid           the output never matched its type
    ├── LimitExceeded               one of `Limits` was reached
    ├── ToolsFailed                 an ExceptionGroup: tools that say on_error="raise"
    ├── RunCancelled                the run was cancelled from outside
    ├── LocalModelError             weights or embedded server unavailable
    ├── TraceError
    │   ├── TraceCorrupt            a bad line that is not the torn last one
    │   └── TraceUnsupported        not a trace, or of a schema this version cannot read
    ├── ReplayDivergence            a replay that differs from its recording
    └── RecordedError               an error of unknown type, as a trace recorded it
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
    "OutputInvalid",
    "OutputTruncated",
    "QuotaExceeded",
    "RateLimited",
    "RecordedError",
    "ReplayDivergence",
    "RunCancelled",
    "ToolError",
    "ToolsFailed",
    "TraceCorrupt",
    "TraceError",
    "TraceUnsupported",
    "UnknownModel",
    "error_from_data",
    "safe_str",
]

RESULT = "__agentkit_result__"
"""The attribute of an exception, ours or not, that holds what the run it ended had reached."""


class AgentKitError(Exception):
    """Base of every error that agentkit raises.

    A subclass declares its fields as annotations; they are passed by keyword,
    read as attributes, and are None where not given. Fields hold JSON values
    only: an error is an outcome, and outcomes are recorded.
    """

    fields: ClassVar[tuple[str, ...]] = ()
    known: ClassVar[dict[str, type[AgentKitError]]] = {}

    def __init_subclass__(cls) -> None:
        """Collect the declared fields, and remember the classes of this file by name."""
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
        """What happened, in words."""
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
        """The fields that are set, as JSON values."""
        return {name: value for name in self.fields if (value := getattr(self, name)) is not None}


AgentKitError.known[AgentKitError.__name__] = AgentKitError  # a class is no subclass of its own


class ConfigurationError(AgentKitError):
    """The caller asked for something that cannot be; said before any I/O."""


class UnknownModel(ConfigurationError):
    """A model string nobody understands."""

    model: str


class MissingKey(ConfigurationError):
    """A provider needs an API key and none was given."""

    variable: str


class InvalidTool(ConfigurationError):
    """A callable or a schema that cannot be made into a tool."""

    tool: str | None


class InvalidSetting(ConfigurationError):
    """A parameter that is out of range, or that the server does not support."""

    field: str
    value: Any
    allowed: str | None


class InvalidHistory(ConfigurationError):
    """Messages that no server would accept, such as a call without an answer."""

    index: int | None


class ToolError(AgentKitError):
    """Raise this in a tool to tell the model what went wrong: it reads the text as written."""


class InvalidArguments(ToolError):
    """The model's arguments do not fit the tool. The function was not called."""


class ModelError(AgentKitError):
    """The model gave no usable answer."""

    model: str | None


class ModelUnreachable(ModelError):
    """No response at all: name resolution, refused, reset, timeout."""


class InvalidResponse(ModelError):
    """A response that is not chat completions, or that broke off."""


class ModelHTTPError(ModelError):
    """The server answered with an error status, or with an error inside a 200."""

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
    """The conversation does not fit the model's context."""


class ModelRefusal(ModelError):
    """The model declined, or a content filter did. The message is its text."""

    reason: str | None


class OutputTruncated(ModelError):
    """The answer was cut off at the token limit; nothing of it was executed."""

    text: str | None


class OutputInvalid(ModelError):
    """The output never matched its type. `attempts` holds each text and what was wrong with it."""

    attempts: list[dict[str, str]] | None


class LimitExceeded(AgentKitError):
    """One of `Limits` was reached. `limit` is its name, `maximum` what was allowed."""

    limit: str
    value: float
    maximum: float


class ToolsFailed(ExceptionGroup[Exception], AgentKitError):
    """Tools failed whose author wants that raised. Holds the exceptions, in call order."""

    def __new__(cls, message: str, exceptions: Sequence[Exception]) -> Self:
        """As of ExceptionGroup."""
        return super().__new__(cls, message, exceptions)

    def __init__(self, message: str, exceptions: Sequence[Exception]) -> None:
        super().__init__(message, exceptions)

    def derive(self, excs: Sequence[Exception]) -> ToolsFailed:  # type: ignore[override]  # of Exceptions only
        """A group of some of these; `except*` asks for it."""
        return ToolsFailed(self.message, excs)


class RunCancelled(AgentKitError):
    """The run was cancelled from outside."""

    reason: str | None


class LocalModelError(AgentKitError):
    """The weights or the embedded server are not available."""


class TraceError(AgentKitError):
    """A trace cannot be read or written."""

    path: str | None
    line: int | None


class TraceCorrupt(TraceError):
    """A bad line inside a trace (the last line may be torn: that is a crash, not an error)."""


class TraceUnsupported(TraceError):
    """Not a trace, or one of a schema that this version cannot read."""

    schema: str | None


class ReplayDivergence(AgentKitError):
    """A replay that differs from its recording, and the first place where it does.

    Attributes:
        kind: request_changed, wrong_call, unexpected_call, missing_call, recording_ended,
            tool_schema_changed or order_changed; result_changed of what ran for real;
            outcome_changed of the run's end.
        at: The address.
        pointer: The JSON pointer to the first difference.
        expected: What was recorded there.
        actual: What the replay has there.
        position: The index of the first character that differs, where both are text.
        cause: What the difference follows from: an address, or a part of the agent.
        suppressed: How many further differences there are.
        source: FILE:LINE of the user's code from which the effect came.
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
    """An error of a type agentkit does not know, as a trace recorded it."""

    type: str


def error_from_data(type_name: str, message: str, data: Mapping[str, Any]) -> AgentKitError:
    """Rebuild a recorded error: one of this tree by its name, or a `RecordedError`.

    Unknown fields (of a newer version) are dropped; nothing is imported by name.
    """
    cls = AgentKitError.known.get(type_name)
    if cls is None or cls is ToolsFailed:  # a group is rebuilt from its parts
        return RecordedError(f"{type_name}: {message}", type=type_name)
    return cls(message, **{name: data[name] for name in cls.fields if name in data})


def safe_str(error: BaseException) -> str:
    """Return `str(error)`, or a placeholder if `__str__` itself fails."""
    try:
        return str(error)
    except Exception:  # a broken __str__ is no reason to end a run
        return f"(str() of this {type(error).__name__} failed)"
