"""The context of a tool call: what a running tool can read of its run, and ask it to do."""

from __future__ import annotations

import contextlib
import contextvars
import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, cast
from uuid import UUID, uuid4

import anyio
import anyio.from_thread
from anyio.lowlevel import EventLoopToken
from typing_extensions import TypeVar

from agentkit.core.effects import Address, Decision, PendingCall
from agentkit.errors import safe_str
from agentkit.events import Emit, ToolProgress, ignore
from agentkit.messages import NO_USAGE, JsonObject, Message, ToolCall, Usage

DepsT = TypeVar("DepsT", default=None)
ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)

_progress: contextvars.ContextVar[Emit | None] = contextvars.ContextVar("_progress", default=None)


class Runnable(Protocol[ResultT_co]):
    """An agent, as a tool sees it."""

    @property
    def name(self) -> str:
        """The name in the addresses below it."""
        ...

    async def run(self, prompt: str, *, deps: Any = None) -> ResultT_co:
        """Run the agent and return its result."""
        ...


class Services(Protocol):
    """What a run does for its tools: sub-agents, recorded values, and worker threads."""

    @property
    def threads(self) -> anyio.CapacityLimiter:
        """Limits the worker threads of sync tools."""
        ...

    async def run_agent(self, agent: Any, prompt: str, at: Address) -> Any:
        """Run an agent at an address below a tool call."""
        ...

    async def decide(self, pending: PendingCall) -> Decision | None:
        """Have the run's approver decide; None if it does not, or there is none."""
        ...

    def det(self, at: Address, kind: str, use: int, make: Callable[[], Any]) -> Any:
        """Make and record a value that is not deterministic, or return the recorded one."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class RunContext(Generic[DepsT]):
    """The run as a tool sees it. Injected by annotation, hidden from the model.

    `RunContext()` is enough in a unit test of a tool.

    Attributes:
        deps: The run's `deps=`.
        address: The place of this call in its run.
        run_id: The run, 32 hexadecimal digits.
        attempt: Earlier attempts of this call.
        messages: The conversation up to the call.
        usage: Tokens used so far.
        emit: Takes progress events.
        services: Sub-agents, recorded values and worker threads; None outside a run.
        home: The run's thread and event loop; None outside a run.
    """

    deps: DepsT = cast("DepsT", None)
    address: Address = Address("/direct/m0/t0")
    run_id: str = ""
    attempt: int = 0
    messages: tuple[Message, ...] = ()
    usage: Usage = NO_USAGE
    emit: Emit = ignore
    services: Services | None = field(default=None, repr=False)
    home: tuple[int, EventLoopToken] | None = field(default=None, repr=False)
    _uses: dict[str, int] = field(default_factory=dict[str, int], repr=False)

    @property
    def key(self) -> str:
        """The idempotency key of this call: the same for every attempt and every resume."""
        return f"{self.run_id}{self.address}"

    def progress(self, value: Any) -> None:
        """Report `value` to the run's listeners. May be called from any thread."""
        event, emit = ToolProgress(at=self.address, value=value), _progress.get()
        if emit is not None:
            emit(event)
        elif self.home is None or self.home[0] == threading.get_ident():
            self.emit(event)
        else:
            # A thread that the tool started itself: events are emitted on the run's own thread,
            # and dropped once the run has ended.
            with contextlib.suppress(anyio.RunFinishedError):
                anyio.from_thread.run_sync(self.emit, event, token=self.home[1])

    def now(self) -> datetime:
        """Return the time in UTC. It is recorded: a replay of this tool gets the same."""
        return datetime.fromisoformat(self._det("now", lambda: datetime.now(UTC).isoformat()))

    def uuid(self) -> UUID:
        """Return a random UUID. It is recorded: a replay of this tool gets the same."""
        return UUID(self._det("uuid", lambda: str(uuid4())))

    def random(self) -> float:
        """Return a random number, 0 <= x < 1. It is recorded: a replay gets the same."""
        return self._det("random", random.random)

    async def run(
        self, agent: Runnable[ResultT], prompt: str, *, name: str | None = None
    ) -> ResultT:
        """Run another agent inside this tool and return its result.

        It gets an address below this call and the same `deps`, its usage counts towards
        this run, and it ends with this run.

        Args:
            agent: The other agent.
            prompt: Its prompt.
            name: Its name in the address; the agent's by default. Uses of one name are
                numbered in the order of these calls. Where that order may vary, as in a task
                group, pass different names, so that a replay can tell the agents apart.

        Raises:
            AgentKitError: The other agent failed. Unless caught, this tool fails with it.
        """
        if self.services is None:
            return await agent.run(prompt, deps=self.deps)
        name = name or agent.name
        at = self.address.child(name, self._use(name))
        return await self.services.run_agent(agent, prompt, at)

    async def ask(
        self, question: str, *, name: str = "ask", schema: JsonObject | None = None
    ) -> Decision | None:
        """Ask the run's approver something while this tool runs, and wait for the answer.

        The question and the answer are recorded as progress. A run never pauses for it: what
        the tool has done so far would be lost.

        Args:
            question: What a person reads.
            name: Who asks, as the approver sees it in `PendingCall.call.name`.
            schema: JSON Schema of the object that is expected, in `PendingCall.args`.

        Returns:
            The decision: approved, denied, or with `edit` or `answer` what to go on with. None
            if there is no approver, or it does not decide.
        """
        asked = {"question": question} | ({"schema": schema} if schema is not None else {})
        call = ToolCall(id="", name=name, arguments=json.dumps(asked, ensure_ascii=False))
        pending = PendingCall(at=self.address, call=call, kind="question")
        decision = await self.services.decide(pending) if self.services is not None else None
        answer = None if decision is None else {"kind": decision.kind, "text": decision.text}
        self.progress({"question": question, "decision": answer})
        return decision

    def _det(self, kind: str, make: Callable[[], Any]) -> Any:
        if self.services is None:
            return make()
        return self.services.det(self.address, kind, self._use(f"det {kind}"), make)

    def _use(self, name: str) -> int:
        use = self._uses.get(name, 0)
        self._uses[name] = use + 1
        return use


def context_at(context: RunContext[DepsT], **fields: Any) -> RunContext[DepsT]:
    """Return the context of another effect of the same run.

    Each call gets one: a copy of the fields takes a sixth of the time that `replace` takes.
    """
    other = cast("RunContext[DepsT]", object.__new__(RunContext))
    vars(other).update(vars(context), **fields, _uses=dict[str, int]())
    return other


def progress_to(emit: Emit) -> None:
    """Send the progress of the code that runs in this context (a worker thread's) to `emit`."""
    _progress.set(emit)


def explain(error: BaseException, context: RunContext[Any]) -> None:
    """Add a note to an exception that missing `deps` may have caused."""
    none = isinstance(error, (AttributeError, TypeError)) and "'NoneType'" in safe_str(error)
    if none and context.deps is None and context.services is not None:
        error.add_note("The run has no deps=, so context.deps is None.")
