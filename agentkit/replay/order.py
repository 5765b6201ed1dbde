"""Lets the effects of a replay begin and end in the order of the recording.

The order is that of the trace's lines. An effect that comes early waits until
those before it have passed. That must never be a deadlock, whatever has changed:

- Where everything stands still, what the recording expects is not coming. The first
  of those that wait is let through.
- Where a tool runs for real and everything stands still, it may wait for the network,
  or for something that another tool would do. Whatever such code could wait for is
  let through: beginnings, and all that happens inside of what runs for real. What is
  held are only the ends of the outermost effects, for which nobody waits but the loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

import anyio


@dataclass(frozen=True, slots=True)
class _Waiting:
    at: str
    ends: bool
    let: anyio.Event


class Order:
    """Orders effects by the numbers of their lines.

    Attributes:
        out_of_order: The address of the first effect that did not come in its turn.
    """

    def __init__(self, order: Iterable[int]) -> None:
        self.out_of_order: str | None = None
        self._order = deque(order)
        self._known = set(self._order)
        self._waiting: dict[int, _Waiting] = {}
        self._real: list[str] = []
        self._changed = anyio.Event()

    async def turn(self, number: int, at: str, *, ends: bool) -> None:
        """Wait until everything that stands before this line has passed.

        Nothing is awaited after that, so what the caller does next happens before the next
        one's turn. A line that the order does not have passes at once.
        """
        if number not in self._known:
            return
        self._known.discard(number)
        if self._order[0] == number:
            self._order.popleft()
            self._next()
        else:
            waiting = self._waiting[number] = _Waiting(at, ends, anyio.Event())
            self._changed.set()
            try:
                await waiting.let.wait()
            finally:  # cancelled, too: it will not come
                del self._waiting[number]
                self._order.remove(number)
                self._next()

    @contextmanager
    def real(self, at: str) -> Generator[None, None, None]:
        """Have the others wait while something is performed."""
        self._real.append(at)
        try:
            yield
        finally:
            self._real.remove(at)
            self._changed.set()

    async def watch(self) -> None:
        """Let one through whenever everything stands still. Runs beside the replay."""
        while True:
            while not self._stuck():
                self._changed = anyio.Event()
                await self._changed.wait()
            before = len(self._order)
            await anyio.wait_all_tasks_blocked()
            if len(self._order) == before and (stuck := self._stuck()):
                self._skip_to(min(stuck, key=self._order.index))

    def _stuck(self) -> list[int]:
        """Return those that wait and would be let through if everything stood still."""
        if not self._busy():
            return [*self._waiting]
        return [
            number
            for number, one in self._waiting.items()
            if not one.ends or any(one.at.startswith(f"{at}/") for at in self._real)
        ]

    def _busy(self) -> bool:
        """Return whether something is performed that does not itself wait here."""
        return any(
            not any(one.at.startswith(f"{at}/") for one in self._waiting.values())
            for at in self._real
        )

    def _skip_to(self, number: int) -> None:
        if self.out_of_order is None:
            self.out_of_order = self._waiting[number].at
        if not self._busy():
            while self._order[0] != number:  # these are not coming, or not in time
                self._known.discard(self._order.popleft())
        self._waiting[number].let.set()

    def _next(self) -> None:
        if self._order and self._order[0] in self._waiting:
            self._waiting[self._order[0]].let.set()
