"""What `ChatModel` needs of an HTTP library: one request, and its answer in pieces.

`transport_httpcore`, `transport_httpx` and `transport_aiohttp` implement it; nothing else in
agentkit imports an HTTP client. Connections belong to the event loop that opened them, and
are shared by all models there: see `PerLoop`.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import anyio
from anyio.lowlevel import current_token

from agentkit.errors import ConfigurationError, ModelUnreachable

ResourceT = TypeVar("ResourceT")

IDLE_SECONDS = 30.0
"""How long an idle connection is kept: tools run between two requests of a conversation."""


class HttpClient(Protocol):
    """What is used of a caller's own client: `httpx2.AsyncClient` or `httpx.AsyncClient`."""

    @property
    def is_closed(self) -> bool:
        """Whether the caller has closed it."""
        ...

    def build_request(
        self, method: str, url: str, *, content: bytes, headers: dict[str, str], **more: Any
    ) -> Any:
        """Build the library's request object."""
        ...

    async def send(self, request: Any, *, stream: bool) -> Any:
        """Send a request and return the library's response object."""
        ...


class Reply(Protocol):
    """The answer to a request, its body not yet read. It has to be closed.

    Attributes:
        status: The HTTP status.
        headers: Header values by lower-case name.
    """

    status: int
    headers: Mapping[str, str]

    async def read(self) -> bytes:
        """Return the whole decompressed body.

        Raises:
            ModelUnreachable: The connection breaks.
        """
        ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the decompressed body as it arrives; raises as `read` does."""
        ...

    async def aclose(self) -> None:
        """Free the connection; a body that was not read to its end is given up."""
        ...


class Transport(Protocol):
    """Sends HTTP requests, from any number of event loops."""

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Reply:
        """Send a request and wait for the head of its answer.

        Raises:
            ModelUnreachable: There is no answer.
            ConfigurationError: The URL is not valid.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections of the running event loop unless another transport uses them."""
        ...


def translated(
    error: BaseException, misuse: type[Exception] | tuple[type[Exception], ...] = ()
) -> ConfigurationError | ModelUnreachable:
    """Return what a library's error means: the URL cannot be used, or there is no answer."""
    if isinstance(error, misuse):
        return ConfigurationError(f"The base URL cannot be used: {error}")
    return ModelUnreachable(f"{type(error).__name__}: {error}".rstrip(": "))


@dataclass(frozen=True, slots=True)
class _Held(Generic[ResourceT]):
    resource: ResourceT
    users: weakref.WeakSet[Any]
    holder: AsyncGenerator[None, None]


class PerLoop(Generic[ResourceT]):
    """One resource per event loop, for all its users there; closed with the last one or the loop.

    A model outlives event loops: `run_sync` starts one for each call, tests one for
    each test. A loop outlives models: a web handler makes an agent for each request,
    and nothing closes its model, so models share connections. Sockets have to be
    closed on the loop that opened them: the resource is held by an async generator
    that was started there, and asyncio.run, anyio.run and trio.run finish the
    generators that are left when they shut down.
    """

    def __init__(
        self, make: Callable[[], ResourceT], close: Callable[[ResourceT], Awaitable[None]]
    ) -> None:
        self._make = make
        self._close = close
        self._held: dict[Any, _Held[ResourceT]] = {}

    async def get(self, user: object) -> ResourceT:
        """Return the resource of the running loop; make it on first use."""
        loop = current_token().native_token
        held = self._held.get(loop)
        if held is None:
            for other in list(self._held):  # Closed without finishing its generators.
                if isinstance(other, asyncio.AbstractEventLoop) and other.is_closed():
                    self._held.pop(other, None)
            # No await between here and the assignment, so two tasks make but one resource.
            resource = self._make()
            held = _Held(resource, weakref.WeakSet((user,)), self._hold(resource, loop))
            self._held[loop] = held
            await anext(held.holder)
        held.users.add(user)
        return held.resource

    async def aclose(self, user: object) -> None:
        """Close the running loop's resource unless it has another user."""
        held = self._held.get(current_token().native_token)
        if held is not None:
            held.users.discard(user)
            if not held.users:
                await held.holder.aclose()

    async def _hold(self, resource: ResourceT, loop: Any) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._held.pop(loop, None)
            # trio finishes generators in a cancelled scope.
            with anyio.CancelScope(shield=True):
                await self._close(resource)
