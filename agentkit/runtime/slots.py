"""Concurrency slots of running calls, and the sub-agents that a call waits for.

How many tool calls run at the same time is bounded three times: over a run
(`Limits.parallel`), over an agent (`concurrency=`), over a tool (`concurrency=`).
A call holds a slot of each while its own code runs.

- While a sub-agent works for it, a call lends its slots of the run and of the agent:
  the sub-agent's calls need them. So no bound is too small for agents inside agents.
- Its slot among the calls of its tool it keeps, so that `as_tool(concurrency=2)` means
  two of that agent at a time. A call of the same tool further inside needs no other one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Self, TypeVar
from weakref import WeakKeyDictionary

import anyio
from anyio import CancelScope, CapacityLimiter
from anyio.lowlevel import RunVar, checkpoint

from agentkit.core.effects import Address, Interrupt
from agentkit.errors import ConfigurationError
from agentkit.messages import NO_USAGE
from agentkit.settings import Limits

T = TypeVar("T")


class Slots:
    """The slots of calls that may run at the same time."""

    def __init__(self, number: int) -> None:
        self.holders: set[CallFrame] = set()
        self._limiter = CapacityLimiter(number)

    async def acquire(self, frame: CallFrame) -> None:
        """Wait for a slot."""
        await self._limiter.acquire_on_behalf_of(frame)
        self.holders.add(frame)

    def release(self, frame: CallFrame) -> None:
        """Give the slot back."""
        self.holders.discard(frame)
        self._limiter.release_on_behalf_of(frame)


_shared: RunVar[WeakKeyDictionary[object, Slots]] = RunVar("slots")


def shared_slots(owner: object, number: int | None) -> Slots | None:
    """Return the slots of a tool's or an agent's calls in all runs of this event loop."""
    if number is None:
        return None
    try:
        known = _shared.get()
    except LookupError:
        known = WeakKeyDictionary[object, Slots]()
        _shared.set(known)
    if owner not in known:
        known[owner] = Slots(number)
    return known[owner]


def slots_of(limits: Limits) -> Slots | None:
    """Make the slots of the calls of one run, or of one run of a sub-agent."""
    return None if limits.parallel is None else Slots(limits.parallel)


class Frames:
    """The frames of a run's effects that are running, those of sub-agents included."""

    def __init__(self) -> None:
        self._open: dict[Address, CallFrame] = {}

    def of(self, at: Address) -> CallFrame:
        """Return the frame of the effect at an address, which is running."""
        return self._open[at]

    def above(self, at: Address) -> Generator[CallFrame, None, None]:
        """Yield the frames of the calls in which the effect at an address runs."""
        while at := at.parent:
            if (frame := self._open.get(at)) is not None:
                yield frame

    @contextmanager
    def opened(self, at: Address) -> Generator[CallFrame, None, None]:
        """Yield the frame of an effect: of the running one, or of one that runs here."""
        if (known := self._open.get(at)) is not None:
            yield known
            return
        with CallFrame(at, self) as frame:
            yield frame

    def add(self, frame: CallFrame) -> None:
        """Keep the frame of an effect that begins."""
        self._open[frame.at] = frame

    def remove(self, frame: CallFrame) -> None:
        """Forget the frame of an effect that has ended."""
        del self._open[frame.at]


class CallFrame:
    """What a running effect holds: its slots, and the sub-agents that it waits for.

    It is a context manager, in which the effect runs.

    A sub-agent that pauses ends the effect that it works for. It does so as a cancellation
    does, because code that catches exceptions must not take it for one: the function is
    cancelled as soon as no other sub-agent works in it.

    Attributes:
        at: The effect's address.
        used: What sub-agents have used in it.
    """

    __slots__ = (
        "_frames",
        "_held",
        "_lent",
        "_scope",
        "_slots",
        "_stops",
        "_waiting",
        "at",
        "used",
    )

    def __init__(self, at: Address, frames: Frames, slots: Sequence[Slots] = ()) -> None:
        """Prepare the frame of an effect.

        Args:
            at: Its address.
            frames: Those of the run.
            slots: Of each, its own code has to hold one while it runs.
        """
        self.at = at
        self.used = NO_USAGE
        self._frames = frames
        self._slots = slots
        self._held: list[Slots] = []
        self._waiting = False
        self._lent = 0
        self._stops: list[Interrupt] = []
        self._scope: CancelScope | None = None

    def __enter__(self) -> Self:
        """Let sub-agents of the effect find the frame."""
        self._frames.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        """End that."""
        self._frames.remove(self)

    async def acquire(self) -> None:
        """Wait for the slots, unless that is done already, or they are lent."""
        if self._waiting or not self._slots:
            return
        self._waiting = True
        try:
            while not self._lent and len(self._held) < len(self._slots):
                slots = self._slots[len(self._held)]
                await slots.acquire(self)
                self._held.append(slots)
        finally:
            self._waiting = False
        if self._lent:
            self.release()

    def release(self) -> None:
        """Give the slots back."""
        while self._held:
            self._held.pop().release(self)

    @contextmanager
    def lending(self) -> Generator[None, None, None]:
        """Let others have the slots while something else works for this effect."""
        self._lent += 1
        self.release()
        try:
            yield
        finally:
            self._lent -= 1
            self._settle()

    @asynccontextmanager
    async def holding(self, slots: Slots) -> AsyncGenerator[None, None]:
        """Hold a slot among the calls of a tool, unless a call around this one does."""
        if any(frame in slots.holders for frame in self._frames.above(self.at)):
            yield
            return
        with self.lending():
            await slots.acquire(self)
        try:
            await self.acquire()
            yield
        finally:
            slots.release(self)

    async def run(self, work: Callable[[], Awaitable[T]]) -> T | Interrupt:
        """Do the work; return its value, or how the run ends if a sub-agent stops it."""
        self._stops = []
        with CancelScope() as self._scope:
            value = await work()
            if not self._stops:
                return value
        # Whatever the function made of its cancellation: its sub-agents wait for a decision.
        return replace(merged(self._stops), usage=self.used)

    async def stop(self, interrupt: Interrupt) -> None:
        """End the effect, once no sub-agent works in it any more. Does not return.

        Raises:
            ConfigurationError: The effect does not run here, so it cannot be ended.
        """
        if self._scope is None:
            raise ConfigurationError(
                f"An agent that was run with the context of {self.at} has to wait, and that "
                "call is over, or is another tool's. Use the context of the call that runs it."
            )
        self._stops.append(interrupt)
        try:
            await checkpoint()  # sub-agents that were started beside this one begin
            self._settle()
            await anyio.sleep_forever()
        finally:
            if not self._scope.cancel_called:
                self._stops.remove(interrupt)  # the code that ran the agent goes on without it

    def _settle(self) -> None:
        if self._stops and not self._lent and self._scope is not None:
            self._scope.cancel()


def merged(interrupts: Sequence[Interrupt]) -> Interrupt:
    """Merge several ends of one run: the first that is no pause, or a pause for all calls."""
    for one in interrupts:
        if one.status != "paused":
            return one
    pending = [call for one in interrupts for call in one.pending]
    return replace(interrupts[0], pending=tuple(sorted(pending, key=lambda one: one.at.order)))
