"""What goes on inside one effect: the places that it holds, and the agents that work for it.

How many tool calls run at the same time is bounded three times: over a run
(`Limits.parallel`), over an agent (`concurrency=`), over a tool (`concurrency=`).
A call holds a place of each while its own code runs.

- While an agent works for it, a call lends its places of the run and of the agent:
  that agent's calls need them. So no bound is too small for agents inside agents.
- Its place among the calls of its tool it keeps, so that `as_tool(concurrency=2)` means
  two of that agent at a time. A call of the same tool further inside needs no other one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import anyio
from anyio import CancelScope, CapacityLimiter
from anyio.lowlevel import RunVar, checkpoint

from agentkit.core.effects import Address, Interrupt
from agentkit.errors import ConfigurationError
from agentkit.messages import Usage

__all__ = ["Gate", "Inside", "Open", "merged", "opened", "shared_gate"]

T = TypeVar("T")


class Gate:
    """Lets so many calls in at a time."""

    def __init__(self, calls: int) -> None:
        self.inside: set[Inside] = set()
        self._limiter = CapacityLimiter(calls)

    async def enter(self, one: Inside) -> None:
        """Wait for a place."""
        await self._limiter.acquire_on_behalf_of(one)
        self.inside.add(one)

    def leave(self, one: Inside) -> None:
        """Give it back."""
        self.inside.discard(one)
        self._limiter.release_on_behalf_of(one)


_gates: RunVar[WeakKeyDictionary[object, Gate]] = RunVar("gates")


def shared_gate(owner: object, calls: int | None) -> Gate | None:
    """What bounds the calls of a tool or an agent over all runs of this event loop."""
    if calls is None:
        return None
    try:
        gates = _gates.get()
    except LookupError:
        gates = WeakKeyDictionary[object, Gate]()
        _gates.set(gates)
    if owner not in gates:
        gates[owner] = Gate(calls)
    return gates[owner]


class Inside:
    """The inside of one effect.

    An agent that has to be waited for (it pauses) ends the effect that it works for. It
    does so as a cancellation does, because code that catches exceptions must not take it
    for one: the function is cancelled as soon as no other agent works in it.

    Attributes:
        at: The effect's address.
        used: What agents have used in it.
    """

    def __init__(self, at: Address, among: Open, gates: Sequence[Gate] = ()) -> None:
        """Prepare the inside of an effect.

        Args:
            at: Its address.
            among: All insides of the run that are open.
            gates: What its own code has to have a place of while it runs.
        """
        self.at = at
        self.used = Usage()
        self._among = among
        self._gates = gates
        self._held: list[Gate] = []
        self._waiting = False
        self._away = 0
        self._stops: list[Interrupt] = []
        self._scope: CancelScope | None = None

    async def take(self) -> None:
        """Wait for the places, unless they are waited for already, or lent."""
        if self._waiting or not self._gates:
            return
        self._waiting = True
        try:
            while not self._away and len(self._held) < len(self._gates):
                gate = self._gates[len(self._held)]
                await gate.enter(self)
                self._held.append(gate)
        finally:
            self._waiting = False
        if self._away:
            self.give()

    def give(self) -> None:
        """Give the places back."""
        while self._held:
            self._held.pop().leave(self)

    @contextmanager
    def lent(self) -> Generator[None, None, None]:
        """Something else goes on for this effect: others may have its places."""
        self._away += 1
        self.give()
        try:
            yield
        finally:
            self._away -= 1
            self._settle()

    @asynccontextmanager
    async def through(self, gate: Gate) -> AsyncGenerator[None, None]:
        """Be one of the calls of a tool."""
        if any(above in gate.inside for above in self._above()):
            yield
            return
        with self.lent():
            await gate.enter(self)
        try:
            await self.take()
            yield
        finally:
            gate.leave(self)

    async def hold(self, work: Callable[[], Awaitable[T]]) -> T | Interrupt:
        """Do the work, or say why it could not be done to its end."""
        self._stops = []
        with CancelScope() as self._scope:
            done = await work()
            if not self._stops:
                return done
        # Whatever the function made of its cancellation: its agents have to be waited for.
        return replace(merged(self._stops), usage=self.used)

    async def stop(self, interrupt: Interrupt) -> None:
        """End the effect, once no agent works in it any more. Does not return.

        Raises:
            ConfigurationError: The effect has no end that could be brought about here.
        """
        if self._scope is None:
            raise ConfigurationError(
                f"An agent that was run with the context of {self.at} has to wait, and that "
                "call is over, or is another tool's. Use the context of the call that runs it."
            )
        self._stops.append(interrupt)
        try:
            await checkpoint()  # agents that were started beside this one begin
            self._settle()
            await anyio.sleep_forever()
        finally:
            if not self._scope.cancel_called:
                self._stops.remove(interrupt)  # whoever asked the agent goes on without it

    def _settle(self) -> None:
        if self._stops and not self._away and self._scope is not None:
            self._scope.cancel()

    def _above(self) -> Generator[Inside, None, None]:
        at = self.at.parent
        while at:
            if (above := self._among.get(at)) is not None:
                yield above
            at = at.parent


Open: TypeAlias = dict[Address, Inside]
"""The insides of a run's effects that are under way, sub-agents' included."""


@contextmanager
def opened(among: Open, at: Address) -> Generator[Inside, None, None]:
    """The inside of the effect at an address; a new one for the time being if there is none."""
    if (inside := among.get(at)) is not None:
        yield inside
        return
    inside = among[at] = Inside(at, among)
    try:
        yield inside
    finally:
        del among[at]


def merged(interrupts: Sequence[Interrupt]) -> Interrupt:
    """Several ends of one run as one: the first that is no pause, or all that are waited for."""
    for one in interrupts:
        if one.status != "paused":
            return one
    pending = [call for one in interrupts for call in one.pending]
    return replace(interrupts[0], pending=tuple(sorted(pending, key=lambda one: one.at.order)))
