"""What `ChatModel` needs of an HTTP library: one request, and its answer in pieces.

`transport_httpx` and `transport_aiohttp` implement it; nothing else in agentkit
imports an HTTP client. Connections belong to the event loop that opened them,
so each transport keeps them in a `PerLoop`.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import anyio
from anyio.lowlevel import current_token

from agentkit.errors import ConfigurationError, ModelUnreachable

Errors: TypeAlias = tuple[type[Exception], ...]
ResourceT = TypeVar("ResourceT")

IDLE_SECONDS = 30.0
"""How long an idle connection is kept: tools run between two requests of a conversation."""


class HttpClient(Protocol):
    """What is used of a caller's own client: `httpx2.AsyncClient` or `httpx.AsyncClient`."""

    def build_request(
        self, method: str, url: str, *, content: bytes, headers: dict[str, str]
    ) -> Any:
        """Build the library's request object."""
        ...

    async def send(self, request: Any, *, stream: bool) -> Any:
        """Send a request and return the library's response object."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """The answer to a request, its body not yet read.

    Attributes:
        status: The HTTP status.
        headers: Header values by lower-case name.
        chunks: The decompressed body as it arrives. Raises `ModelUnreachable` when the
            connection breaks.
    """

    status: int
    headers: Mapping[str, str]
    chunks: AsyncGenerator[bytes, None]


class Transport(Protocol):
    """Sends HTTP requests, from any number of event loops."""

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AbstractAsyncContextManager[Reply]:
        """Send a request and wait for the head of its answer.

        Raises:
            ModelUnreachable: There is no answer.
            ConfigurationError: The URL is not valid.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        ...


@contextmanager
def translated_errors(misuse: Errors, failures: Errors) -> Generator[None]:
    """Raise a library's `misuse` as ConfigurationError and its `failures` as ModelUnreachable."""
    try:
        yield
    except misuse as error:
        raise ConfigurationError(f"The base URL cannot be used: {error}") from error
    except failures as error:
        text = f"{type(error).__name__}: {error}".rstrip(": ")
        raise ModelUnreachable(text) from error


class PerLoop(Generic[ResourceT]):
    """One resource per event loop, closed when its loop ends or its owner goes away.

    A model outlives event loops: `run_sync` starts one for each call, tests one for
    each test. A loop outlives models: a web handler makes an agent for each request,
    and nothing closes its model. In both cases, sockets have to be closed on the loop
    that opened them.

    The resource is held by an async generator that was started on the loop:
    asyncio.run, anyio.run and trio.run finish the generators that are left when
    they shut down. When this object is garbage before that, the loop is scheduled to
    finish the generator; left to the garbage collector, sockets would go first.
    """

    def __init__(
        self, make: Callable[[], ResourceT], close: Callable[[ResourceT], Awaitable[None]]
    ) -> None:
        self._make = make
        self._close = close
        self._held: dict[Any, tuple[ResourceT, weakref.finalize[..., Any]]] = {}

    async def get(self) -> ResourceT:
        """Return the resource of the running loop; make it on first use."""
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
        """Drop the entry of a loop whose resource is closed."""
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
        with suppress(Exception):  # Nobody is left who could handle it.
            await generator.aclose()

    # RuntimeError: the loop is over, and with it the generator.
    if isinstance(loop, asyncio.AbstractEventLoop):
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_start, loop, finish)
    else:
        import trio  # Here: only those who run under it have it.

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
