"""HTTP for models through aiohttp (an extra), under asyncio."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncGenerator, Mapping

from anyio.lowlevel import current_token

from agentkit.errors import ConfigurationError
from agentkit.models.chat.transport import IDLE_SECONDS, PerLoop, Reply, translated
from agentkit.settings import Timeouts

try:
    import aiohttp
except ImportError as error:
    raise ConfigurationError(
        "http_client='aiohttp' needs aiohttp, which is not installed. "
        'Run: pip install "agentkit-replay[aiohttp]"'
    ) from error


_FAILURES = (aiohttp.ClientError, TimeoutError)


class AiohttpTransport:
    """Sends requests through aiohttp, as `HttpxTransport` does through httpx2. asyncio only."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = aiohttp.ClientTimeout(
            total=None,
            connect=timeouts.pool,
            sock_connect=timeouts.connect,
            sock_read=timeouts.read,
        )

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Reply:
        """Send a request and wait for the head of its answer; see `Transport`."""
        session = await _SESSIONS.get(self)
        try:
            response = await session.request(
                method,
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=self._timeouts,
            )
        except _FAILURES as error:  # InvalidURL is a ClientError, too
            raise translated(error, aiohttp.InvalidURL) from error
        return _Reply(response)

    async def aclose(self) -> None:
        """Close the connections of the running loop unless another model uses them."""
        await _SESSIONS.aclose(self)


def _make_session() -> aiohttp.ClientSession:
    if not isinstance(current_token().native_token, asyncio.AbstractEventLoop):
        raise ConfigurationError(
            "http_client='aiohttp' works only under asyncio. Leave out http_client, or run under "
            "asyncio."
        )
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        # Looked up in a thread for each request; that costs more than the request.
        trust_env=bool(urllib.request.getproxies()),
    )


_SESSIONS = PerLoop(_make_session, aiohttp.ClientSession.close)
"""The sessions of all models."""


class _Reply:
    """A response of aiohttp; see `Reply`."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in response.headers.items()
        }
        self._response = response

    async def read(self) -> bytes:
        """Return the whole body."""
        try:
            return await self._response.content.read()
        except _FAILURES as error:
            raise translated(error) from error

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives."""
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except _FAILURES as error:
            raise translated(error) from error

    async def aclose(self) -> None:
        """Free the connection: only one that was read to the end can be used again."""
        response = self._response
        response.release() if response.content.at_eof() else response.close()
