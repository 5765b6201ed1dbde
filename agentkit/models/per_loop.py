"""One resource per event loop, released when its loop ends or its owner goes away.

A model object outlives event loops: `run_sync` starts one for each call, tests
one for each test. Sockets belong to the loop that opened them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import anyio
from anyio.lowlevel import current_token

__all__ = ["PerLoop"]

ResourceT = TypeVar("ResourceT")


class PerLoop(Generic[ResourceT]):
    """Makes a resource when a loop first asks for it, and closes it with that loop.

    The resource is held by an async generator that was started on the loop.
    asyncio.run, anyio.run and trio.run finish the generators that are left when
    they shut down, and the loops finish those that are garbage, so nothing
    leaks even where nobody calls `aclose`.
    """

    def __init__(
        self, make: Callable[[], ResourceT], close: Callable[[ResourceT], Awaitable[None]]
    ) -> None:
        self._make = make
        self._close = close
        self._held: WeakKeyDictionary[Any, tuple[ResourceT, AsyncGenerator[ResourceT, None]]] = (
            WeakKeyDictionary()
        )

    async def get(self) -> ResourceT:
        """The resource of the running loop."""
        loop = current_token().native_token
        held = self._held.get(loop)
        if held is None:
            # No await between here and the assignment: two tasks make one resource.
            resource = self._make()
            generator = _hold(resource, self._close)
            self._held[loop] = held = (resource, generator)
            await anext(generator)
        return held[0]

    async def aclose(self) -> None:
        """Close the running loop's resource. The next `get` makes a new one."""
        held = self._held.pop(current_token().native_token, None)
        if held is not None:
            await held[1].aclose()


async def _hold(
    resource: ResourceT, close: Callable[[ResourceT], Awaitable[None]]
) -> AsyncGenerator[ResourceT, None]:
    try:
        yield resource
    finally:
        # trio finishes generators in a cancelled scope.
        with anyio.CancelScope(shield=True):
            await close(resource)
