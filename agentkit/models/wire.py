"""What a `ChatModel` needs of an HTTP client: one request, and its answer in pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

__all__ = ["IDLE_SECONDS", "HttpClient", "Reply", "Wire"]

IDLE_SECONDS = 30.0
"""How long an idle connection is kept: tools run between two requests of a conversation."""


class HttpClient(Protocol):
    """What is used of a caller's own client: `httpx2.AsyncClient` or `httpx.AsyncClient`."""

    def build_request(
        self, method: str, url: str, *, content: bytes, headers: dict[str, str]
    ) -> Any:
        """Make the library's request object."""
        ...

    async def send(self, request: Any, *, stream: bool) -> Any:
        """Send it; the library's response object."""
        ...


class Reply(Protocol):
    """The answer to a request, its body not read yet."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Header names in lower case."""
        ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body piece by piece as it arrives, decompressed.

        Raises:
            ModelUnreachable: The connection broke.
        """
        ...


class Wire(Protocol):
    """Sends requests."""

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AbstractAsyncContextManager[Reply]:
        """Send the request and wait for the head of its answer.

        Raises:
            ModelUnreachable: There is no answer.
            ConfigurationError: The URL is not one.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        ...
