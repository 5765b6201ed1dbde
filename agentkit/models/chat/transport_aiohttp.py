"""HTTP for models through aiohttp, which takes a fraction of the CPU under asyncio."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from anyio.lowlevel import current_token

from agentkit.errors import ConfigurationError
from agentkit.models.chat.loop_local import PerLoop
from agentkit.models.chat.wire import IDLE_SECONDS, Reply, as_ours
from agentkit.settings import Timeouts

try:
    import aiohttp
except ImportError as error:
    raise ConfigurationError(
        'http_client="aiohttp" needs the extra: pip install "agentkit-replay[aiohttp]".'
    ) from error

__all__ = ["AiohttpWire"]


_errors = partial(as_ours, (aiohttp.InvalidURL,), (aiohttp.ClientError, TimeoutError))


class AiohttpWire:
    """Sends requests through aiohttp, as `HttpWire` does through httpx2. Only for asyncio."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = aiohttp.ClientTimeout(
            total=None,
            connect=timeouts.pool,
            sock_connect=timeouts.connect,
            sock_read=timeouts.read,
        )
        self._sessions = PerLoop(self._make, aiohttp.ClientSession.close)

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AsyncGenerator[Reply, None]:
        """Send the request and wait for the head of its answer; see `HttpWire`."""
        if not isinstance(current_token().native_token, asyncio.AbstractEventLoop):
            raise ConfigurationError(
                'http_client="aiohttp" works under asyncio only; leave http_client out.'
            )
        session = await self._sessions.get()
        opened: list[bool] = []
        ask = partial(
            session.request,
            method,
            url,
            data=body,
            headers=headers,
            allow_redirects=False,
            trace_request_ctx=opened,
        )
        with _errors():
            try:
                response = await ask()
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if opened:
                    raise
                # A kept connection that the server has closed by now is no failure.
                response = await ask()
        try:
            lower = {name.lower(): value for name, value in response.headers.items()}
            yield Reply(status=response.status, headers=lower, chunks=_chunks(response))
        finally:
            # To the end it has been read, or the connection cannot be used again.
            response.release() if response.content.at_eof() else response.close()

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._sessions.aclose()

    def _make(self) -> aiohttp.ClientSession:
        async def note(session: object, context: Any, params: object) -> None:
            context.trace_request_ctx.append(True)

        tracing = aiohttp.TraceConfig()
        tracing.on_connection_create_start.append(note)
        return aiohttp.ClientSession(
            trace_configs=[tracing],
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeouts,
            # Looked up in a thread for each request; that costs more than the request.
            trust_env=bool(urllib.request.getproxies()),
        )


async def _chunks(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    with _errors():
        async for chunk in response.content.iter_any():
            yield chunk
