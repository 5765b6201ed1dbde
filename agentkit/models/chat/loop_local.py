"""One resource per event loop, released when its loop ends or its owner goes away.

A model outlives event loops: `run_sync` starts one for each call, tests one for
each test. A loop outlives models: a web handler makes an agent for each request
and nobody can close the model inside. Sockets belong to the loop that opened
them, so they have to be closed on it, in both cases.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

import anyio
from anyio.lowlevel import current_token

__all__ = ["PerLoop"]

ResourceT = TypeVar("ResourceT")


class PerLoop(Generic[ResourceT]):
    """Makes a resource when a loop first asks for it, and closes it on that loop.

    The resource is held by an async generator that was started on the loop:
    asyncio.run, anyio.run and trio.run finish the generators that are left when
    they shut down. When this object is garbage before that, the loop is told to
    finish the generator; left to the garbage collector, sockets would go first.
    """

    def __init__(
        self, make: Callable[[], ResourceT], close: Callable[[ResourceT], Awaitable[None]]
    ) -> None:
        self._make = make
        self._close = close
        self._held: dict[Any, tuple[ResourceT, weakref.finalize[..., Any]]] = {}

    async def get(self) -> ResourceT:
        """The resource of the running loop."""
        loop = current_token().native_token
        held = self._held.get(loop)
        if held is None:
            # No await between here and the assignment, so two tasks make but one resource.
            resource = self._make()
            generator = _hold(resource, self._close, weakref.ref(self), loop)
            abandoned = weakref.finalize(self, _finish_on, loop, generator)
            abandoned.atexit = False
            self._held[loop] = held = (resource, abandoned)
            await anext(generator)
        return held[0]

    async def aclose(self) -> None:
        """Close the running loop's resource. The next `get` makes a new one."""
        held = self._held.get(current_token().native_token)
        if held is not None and (alive := held[1].peek()) is not None:
            _, _, (_, generator), _ = alive
            await generator.aclose()

    def forget(self, loop: Any) -> None:
        """Let go of a loop whose resource is closed."""
        _, abandoned = self._held.pop(loop)
        abandoned.detach()


async def _hold(
    resource: ResourceT,
    close: Callable[[ResourceT], Awaitable[None]],
    owner: weakref.ref[PerLoop[Any]],
    loop: Any,
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        if (alive := owner()) is not None:
            alive.forget(loop)
        # trio finishes generators in a cancelled scope.
        with anyio.CancelScope(shield=True):
            await close(resource)


def _finish_on(loop: Any, generator: AsyncGenerator[None, None]) -> None:
    """Finish a generator on its loop, from wherever the garbage collector runs."""

    async def finish() -> None:
        with suppress(Exception):  # Nobody is left who could be told.
            await generator.aclose()

    # RuntimeError: the loop is over, and with it the generator.
    if isinstance(loop, asyncio.AbstractEventLoop):
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_start, loop, finish)
    else:
        import trio  # Here: it is there for those who run under it.

        with suppress(RuntimeError):
            loop.run_sync_soon(trio.lowlevel.spawn_system_task, finish)


_finishing: set[asyncio.Task[None]] = set()
"""asyncio itself holds its tasks weakly."""


def _start(
    loop: asyncio.AbstractEventLoop, finish: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    task = loop.create_task(finish())
    _finishing.add(task)
    task.add_done_callback(_finishing.discard)
