"""The trace of a run: written as it happens, read to replay, resume, diff and test."""

from agentkit.trace.effects import (
    Det,
    HttpAttempt,
    LogLine,
    Moment,
    RecordedDelta,
    RecordedEffect,
)
from agentkit.trace.index import RecordedEffects
from agentkit.trace.logs import to_trace, use_structlog
from agentkit.trace.otel import to_otel
from agentkit.trace.reader import Trace

__all__ = [
    "Det",
    "HttpAttempt",
    "LogLine",
    "Moment",
    "RecordedDelta",
    "RecordedEffect",
    "RecordedEffects",
    "Trace",
    "to_otel",
    "to_trace",
    "use_structlog",
]
