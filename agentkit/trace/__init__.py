"""The trace of a run: written as it happens, read to replay, resume, diff and test."""

from agentkit.trace.reader import Trace
from agentkit.trace.teeing import to_trace, use_structlog

__all__ = ["Trace", "to_trace", "use_structlog"]
