"""Our MCP server by HTTP: how it is mounted, whom it refuses, and where it cannot listen."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from agentkit import mcp as our_mcp
from agentkit.errors import ConfigurationError
from tests.mcp import served
from tests.support import needs

starlette = pytest.importorskip("starlette.applications")
routing = pytest.importorskip("starlette.routing")
pytestmark = [pytest.mark.anyio, needs("mcp")]
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    },
}


@asynccontextmanager
async def client_of(application: Any, url: str) -> AsyncGenerator[httpx2.AsyncClient]:
    """Start an application as a server does, and yield a client of it."""
    transport = httpx2.ASGITransport(app=application)
    accept = {"Accept": "application/json, text/event-stream"}
    async with (
        application.router.lifespan_context(application),
        httpx2.AsyncClient(transport=transport, base_url=url, headers=accept) as client,
    ):
        yield client


async def test_it_is_mounted_into_another_application() -> None:
    """It answers below the path it is mounted at, where the outer lifespan starts it."""
    tools = our_mcp.app(served.add)
    outer = starlette.Starlette(
        routes=[routing.Mount("/tools", tools)],
        lifespan=lambda _: tools.router.lifespan_context(tools),
    )
    async with client_of(outer, "http://127.0.0.1:8000") as client:
        answer = await client.post("/tools/mcp", json=HELLO)
    assert answer.status_code == 200
    assert '"serverInfo":{"name":"agentkit"' in answer.text.replace(" ", "")


async def test_a_mounted_server_that_was_not_started_names_what_is_missing() -> None:
    """The error has the line that starts it."""
    outer = starlette.Starlette(routes=[routing.Mount("/tools", our_mcp.app(served.add))])
    async with client_of(outer, "http://127.0.0.1:8000") as client:
        with pytest.raises(ConfigurationError, match=r"tools\.router\.lifespan_context\(tools\)"):
            await client.post("/tools/mcp", json=HELLO)


@pytest.mark.parametrize(
    ("host", "origins", "url", "origin", "status"),
    [
        ("127.0.0.1", [], "http://localhost", None, 200),
        ("127.0.0.1", [], "http://[::1]:8000", "http://localhost:3000", 200),
        ("127.0.0.1", [], "http://127.0.0.1:8000", "https://evil.example", 403),
        ("127.0.0.1", [], "http://127.0.0.1:8000", "null", 403),
        ("127.0.0.1", [], "http://127.0.0.1:8000", "http://localhost.evil.example:80", 403),
        # What DNS rebinding looks like: a page whose own name has this machine's address.
        ("127.0.0.1", [], "http://evil.example:8000", "http://evil.example:8000", 421),
        ("127.0.0.2", [], "http://evil.example:8000", None, 421),
        (
            "127.0.0.1",
            ["https://chat.example"],
            "http://localhost:8000",
            "https://chat.example",
            200,
        ),
        ("0.0.0.0", [], "http://evil.example:8000", "http://evil.example:8000", 403),
        ("0.0.0.0", [], "http://tools.example", None, 200),
        ("0.0.0.0", ["https://chat.example"], "http://tools.example", "https://chat.example", 200),
        ("0.0.0.0", ["https://chat.example"], "http://tools.example", "https://evil.example", 403),
    ],
)
async def test_web_pages_are_refused(
    host: str, origins: Sequence[str], url: str, origin: str | None, status: int
) -> None:
    """A page may call only if it is of this machine or named; programs send no origin."""
    headers = {} if origin is None else {"Origin": origin}
    async with client_of(our_mcp.app(served.add, host=host, origins=origins), url) as client:
        answer = await client.post("/mcp", json=HELLO, headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_used_port_is_an_error_and_no_exit(anyio_backend: str) -> None:
    """`serve` raises; a server inside a program must not end the program."""
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"Cannot listen at 127.0.0.1:{port}: Addr"):
            await our_mcp.serve(served.add, http=f"127.0.0.1:{port}")
