"""What a `ChatModel` needs of an HTTP client: one request, and its answer in pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from agentkit.errors import ConfigurationError, ModelUnreachable

__all__ = ["IDLE_SECONDS", "HttpClient", "Reply", "as_ours"]

Errors: TypeAlias = tuple[type[Exception], ...]

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """The answer to a request, its body not read yet.

    Attributes:
        status: The HTTP status.
        headers: Their names in lower case.
        chunks: The body piece by piece as it arrives, decompressed. Raises
            `ModelUnreachable` when the connection breaks.
    """

    status: int
    headers: Mapping[str, str]
    chunks: AsyncGenerator[bytes, None]


@contextmanager
def as_ours(misused: Errors, broken: Errors) -> Generator[None]:
    """Raise a client library's `misused` as ConfigurationError, `broken` as ModelUnreachable."""
    try:
        yield
    except misused as error:
        raise ConfigurationError(f"The base URL cannot be used: {error}") from error
    except broken as error:
        words = f"{type(error).__name__}: {error}".rstrip(": ")
        raise ModelUnreachable(words) from error
