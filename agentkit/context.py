"""What a running tool may know of its run."""

from __future__ import annotations

import contextvars
from dataclasses import dataclass
from typing import Any, Generic, cast

import anyio
from typing_extensions import TypeVar

from agentkit.effects import Address
from agentkit.events import Emit, ToolProgress, ignore
from agentkit.messages import Message, Usage

__all__ = ["RunContext", "progress_to"]

DepsT = TypeVar("DepsT", default=None)

_progress: contextvars.ContextVar[Emit | None] = contextvars.ContextVar("_progress", default=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class RunContext(Generic[DepsT]):
    """What a running tool may know of its run. Injected by annotation, unseen by the model.

    `RunContext()` will do in a unit test of a tool.

    Attributes:
        deps: What the caller passed as `deps=`.
        address: The place of this call in its run.
        run_id: The run, 32 hexadecimal digits.
        attempt: How often this call was tried before.
        messages: The conversation up to the call.
        usage: Tokens used so far.
        emit: Where progress goes.
        threads: Limits the worker threads of sync tools; None is anyio's own limit.
    """

    deps: DepsT = cast("DepsT", None)
    address: Address = Address("/direct/m0/t0")
    run_id: str = ""
    attempt: int = 0
    messages: tuple[Message, ...] = ()
    usage: Usage = Usage()
    emit: Emit = ignore
    threads: anyio.CapacityLimiter | None = None

    @property
    def key(self) -> str:
        """The idempotency key of this call: the same for every attempt and every resume."""
        return f"{self.run_id}{self.address}"

    def progress(self, value: Any) -> None:
        """Show `value` to whoever watches the run. May be called from a tool's worker thread."""
        emit = _progress.get() or self.emit
        emit(ToolProgress(at=self.address, value=value))


def progress_to(emit: Emit) -> None:
    """Send the progress of the code that runs in this context (a worker thread's) to `emit`."""
    _progress.set(emit)
