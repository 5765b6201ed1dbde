"""HTTP for models through aiohttp (an extra), which takes a fraction of the CPU under asyncio."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial

from anyio.lowlevel import current_token

from agentkit.errors import ConfigurationError
from agentkit.models.chat.transport import IDLE_SECONDS, PerLoop, Reply, translated_errors
from agentkit.settings import Timeouts

try:
    import aiohttp
except ImportError as error:
    raise ConfigurationError(
        "http_client='aiohttp' needs aiohttp, which is not installed. "
        'Run: pip install "agentkit-replay[aiohttp]"'
    ) from error


_errors = partial(translated_errors, (aiohttp.InvalidURL,), (aiohttp.ClientError, TimeoutError))


class AiohttpTransport:
    """Sends requests through aiohttp, as `HttpxTransport` does through httpx2. asyncio only."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = aiohttp.ClientTimeout(
            total=None,
            connect=timeouts.pool,
            sock_connect=timeouts.connect,
            sock_read=timeouts.read,
        )

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AsyncGenerator[Reply, None]:
        """Send a request and wait for the head of its answer; see `Transport`."""
        if not isinstance(current_token().native_token, asyncio.AbstractEventLoop):
            raise ConfigurationError(
                "http_client='aiohttp' works only under asyncio. Leave out http_client, or run "
                "under asyncio."
            )
        session = await _SESSIONS.get(self)
        with _errors():
            response = await session.request(
                method,
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=self._timeouts,
            )
        try:
            lower = {name.lower(): value for name, value in response.headers.items()}
            yield Reply(status=response.status, headers=lower, chunks=_chunks(response))
        finally:
            # Only a connection that was read to the end can be used again.
            response.release() if response.content.at_eof() else response.close()

    async def aclose(self) -> None:
        """Close the connections of the running loop unless another model uses them."""
        await _SESSIONS.aclose(self)


def _make_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        # Looked up in a thread for each request; that costs more than the request.
        trust_env=bool(urllib.request.getproxies()),
    )


_SESSIONS = PerLoop(_make_session, aiohttp.ClientSession.close)
"""The sessions of all models."""


async def _chunks(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    with _errors():
        async for chunk in response.content.iter_any():
            yield chunk
