"""The hand-written loop over aiohttp."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp

from tests.benchmarks.contenders.hand import HEADERS, Hand
from tests.benchmarks.worker import serve


class Aiohttp:
    """aiohttp."""

    errors = (aiohttp.ClientError, TimeoutError)
    session: aiohttp.ClientSession | None = None

    def open(self) -> aiohttp.ClientSession:
        """Return the session, which has to be made within the event loop."""
        if self.session is None:
            self.session = aiohttp.ClientSession(
                headers=HEADERS,
                timeout=aiohttp.ClientTimeout(total=600, sock_connect=10),
                connector=aiohttp.TCPConnector(limit=0),
            )
        return self.session

    async def post(self, url: str, body: bytes) -> tuple[int, bytes]:
        async with self.open().post(url, data=body) as response:
            return response.status, await response.read()

    async def lines(self, url: str, body: bytes) -> AsyncIterator[str]:
        async with self.open().post(url, data=body) as response:
            response.raise_for_status()
            async for line in response.content:
                yield line.decode()

    async def close(self) -> None:
        await self.open().close()


if __name__ == "__main__":
    serve(lambda url: Hand(url, Aiohttp()))
