"""What a running tool may know of its run."""

from __future__ import annotations

import contextlib
import contextvars
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, cast
from uuid import UUID, uuid4

import anyio
import anyio.from_thread
from anyio.lowlevel import EventLoopToken
from typing_extensions import TypeVar

from agentkit.core.effects import Address
from agentkit.errors import safe_str
from agentkit.events import Emit, ToolProgress, ignore
from agentkit.messages import Message, Usage

DepsT = TypeVar("DepsT", default=None)
ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)

_progress: contextvars.ContextVar[Emit | None] = contextvars.ContextVar("_progress", default=None)


class Runnable(Protocol[ResultT_co]):
    """An agent, as far as a tool needs to know."""

    @property
    def name(self) -> str:
        """What its address is made of."""
        ...

    async def run(self, prompt: str, *, deps: object = None) -> ResultT_co:
        """Run it to its result."""
        ...


class Services(Protocol):
    """What a run does for its tools."""

    async def run_agent(self, agent: Any, prompt: str, at: Address) -> Any:
        """Run an agent at an address below a tool call."""
        ...

    def det(self, at: Address, kind: str, use: int, make: Callable[[], Any]) -> Any:
        """A value that is not deterministic: made and recorded, or replayed."""
        ...


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
        services: What the run does for its tools; None outside a run.
        home: The thread and the event loop of the run; None outside a run.
    """

    deps: DepsT = cast("DepsT", None)
    address: Address = Address("/direct/m0/t0")
    run_id: str = ""
    attempt: int = 0
    messages: tuple[Message, ...] = ()
    usage: Usage = Usage()
    emit: Emit = ignore
    threads: anyio.CapacityLimiter | None = None
    services: Services | None = field(default=None, repr=False)
    home: tuple[int, EventLoopToken] | None = field(default=None, repr=False)
    _uses: Counter[str] = field(default_factory=Counter[str], repr=False)

    @property
    def key(self) -> str:
        """The idempotency key of this call: the same for every attempt and every resume."""
        return f"{self.run_id}{self.address}"

    def progress(self, value: Any) -> None:
        """Show `value` to whoever watches the run. May be called from any thread."""
        event, emit = ToolProgress(at=self.address, value=value), _progress.get()
        if emit is not None:
            emit(event)
        elif self.home is None or self.home[0] == threading.get_ident():
            self.emit(event)
        else:
            # A thread that the tool made itself: the run's own thread has to emit. What comes
            # after the run's end is for nobody.
            with contextlib.suppress(anyio.RunFinishedError):
                anyio.from_thread.run_sync(self.emit, event, token=self.home[1])

    def now(self) -> datetime:
        """The time, in UTC. Recorded: a replay of this tool sees the same."""
        return datetime.fromisoformat(self._det("now", lambda: datetime.now(UTC).isoformat()))

    def uuid(self) -> UUID:
        """A random UUID. Recorded: a replay of this tool sees the same."""
        return UUID(self._det("uuid", lambda: str(uuid4())))

    def random(self) -> float:
        """A random number, 0 <= x < 1. Recorded: a replay of this tool sees the same."""
        return self._det("random", random.random)

    async def run(
        self, agent: Runnable[ResultT], prompt: str, *, name: str | None = None
    ) -> ResultT:
        """Run another agent inside this tool and return its result.

        It gets an address below this call and the same `deps`, what it uses counts as used
        by this run, and it ends with this run.

        Args:
            agent: The other agent.
            prompt: What it is asked.
            name: Its name in the address; the agent's by default. Uses of one name are
                numbered in the order of these calls: give names where that order may vary,
                as in a task group, so that a replay finds each by its own.

        Raises:
            AgentKitError: The other agent failed. Not caught here, this tool fails with it.
        """
        if self.services is None:
            return await agent.run(prompt, deps=self.deps)
        named = name or agent.name
        at = self.address.child(named, self._use(named))
        return await self.services.run_agent(agent, prompt, at)

    def _det(self, kind: str, make: Callable[[], Any]) -> Any:
        if self.services is None:
            return make()
        return self.services.det(self.address, kind, self._use(f"det {kind}"), make)

    def _use(self, name: str) -> int:
        self._uses[name] += 1
        return self._uses[name] - 1


def progress_to(emit: Emit) -> None:
    """Send the progress of the code that runs in this context (a worker thread's) to `emit`."""
    _progress.set(emit)


def explain(error: BaseException, context: RunContext[Any]) -> None:
    """Say it in a note where an exception may come from `deps` that were forgotten."""
    nothing = isinstance(error, (AttributeError, TypeError)) and "'NoneType'" in safe_str(error)
    if nothing and context.deps is None and context.services is not None:
        error.add_note("The run was given no deps=, so context.deps is None.")
