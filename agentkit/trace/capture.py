"""How much of a run its trace holds.

`full` is all of it, and the only one that can be replayed. `metadata` is what
happened without what was said: names, hashes, counts, tokens, times, statuses.
`none` is that there was a run, how it ended and what it used.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from functools import cache
from typing import Any, Literal, TypeAlias

__all__ = ["Capture", "kept"]

Capture: TypeAlias = Literal["full", "metadata", "none"]

_OPEN = (
    "schema run wall agentkit versions capture redaction program fork"  # trace.open, trace.resume
)
_METADATA = {
    "trace.open": _OPEN,
    "trace.resume": _OPEN,
    "trace.close": "status lines",
    "agent.start": "agent input",
    "agent.end": "status usage cost error",
    "model.start": "model messages tools stream fp",
    "model.end": "status message finish usage first_chunk error",
    "http.start": "attempt host",
    "http.end": "status retry_after delay request_id",
    "tool.start": "tool call effect fp",
    "tool.end": "status message fatal usage error",
    "compute.start": "name fp",
    "compute.end": "status usage error",
    "det": "kind use",
    "gate.ask": "kind call id",
    "gate.answer": "decision by",
    "warning": "code",
    "diverge": "kind",
}
_NONE = {
    "trace.open": _OPEN,
    "trace.resume": _OPEN,
    "trace.close": "status lines",
    "agent.start": "agent",
    "agent.end": "status usage cost",
}


@cache
def kept(capture: Literal["metadata", "none"]) -> Callable[..., MutableMapping[str, Any]]:
    """A structlog processor that leaves of each event what this level keeps, maybe nothing."""
    from structlog import DropEvent  # here: as in trace.writer

    fields = {
        event: {"event", "seq", "t", "at", *names.split()}
        for event, names in (_METADATA if capture == "metadata" else _NONE).items()
    }

    def keep(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        names = fields.get(event["event"])
        if names is None:
            raise DropEvent
        less = {name: value for name, value in event.items() if name in names}
        if "error" in less:
            less["error"] = {"type": less["error"]["type"]}
        if isinstance(less.get("fork"), dict):
            less["fork"] = {**less["fork"], "patch": None}
        return less

    return keep
