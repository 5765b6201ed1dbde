"""The trace of a run: written as it happens, read to replay, resume, diff and test."""

from agentkit.trace.logs import to_trace, use_structlog
from agentkit.trace.reader import Trace

__all__ = ["Trace", "to_trace", "use_structlog"]
