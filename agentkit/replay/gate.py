"""Lets the effects of a replay begin and end in the order of the recording.

The order is that of the trace's lines. An effect that comes early waits until
those before it have passed. What the recording expects and the replay never does
would make the others wait for ever: so when everything stands still, the first
of those that wait is let through, and the place is remembered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

__all__ = ["Gate"]


@dataclass(frozen=True, slots=True)
class _Waiting:
    at: str
    pass_: anyio.Event


class Gate:
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

    async def turn(self, number: int | None, at: str) -> None:
        """Wait until everything that stands before this line has passed.

        Nothing is awaited after that, so what the caller does next happens before the next
        one's turn. A line that the order does not have passes at once.
        """
        if number is None or number not in self._known:
            return
        self._known.discard(number)
        if self._order[0] != number:
            waiting = self._waiting[number] = _Waiting(at, anyio.Event())
            self._changed.set()
            try:
                await waiting.pass_.wait()
            except BaseException:
                self._order.remove(number)  # cancelled: it will not come
                self._next()
                raise
            finally:
                del self._waiting[number]
        self._order.popleft()
        self._next()

    @contextmanager
    def real(self, at: str) -> Generator[None, None, None]:
        """Something is done for real meanwhile, or takes its time: the others wait for it."""
        self._real.append(at)
        try:
            yield
        finally:
            self._real.remove(at)
            self._changed.set()

    async def watch(self) -> None:
        """Let somebody through whenever everything stands still. Runs beside the replay."""
        while True:
            while not self._waiting or self._busy():
                self._changed = anyio.Event()
                await self._changed.wait()
            before = len(self._order)
            await anyio.wait_all_tasks_blocked()
            if self._waiting and len(self._order) == before and not self._busy():
                self._skip()

    def _busy(self) -> bool:
        """Whether something real is going on that does not itself wait here."""
        return any(
            not any(one.at.startswith(f"{at}/") for one in self._waiting.values())
            for at in self._real
        )

    def _skip(self) -> None:
        """Those before the first that waits are not coming, or not in time."""
        first = min(self._waiting, key=self._order.index)
        if self.out_of_order is None:
            self.out_of_order = self._waiting[first].at
        while self._order[0] != first:
            self._known.discard(self._order.popleft())
        self._next()

    def _next(self) -> None:
        if self._order and self._order[0] in self._waiting:
            self._waiting[self._order[0]].pass_.set()
