"""The MCP server by HTTP: where it listens, and whom it refuses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp.server import Server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from agentkit._listen import is_loopback, listen
from agentkit.errors import ConfigurationError

_LOCAL = [f"{name}{port}" for name in ("127.0.0.1", "localhost", "[::1]") for port in ("", ":*")]


def application_of(server: Server[Any], host: str, origins: Sequence[str] = ()) -> Starlette:
    """Return the endpoint of a server that clients reach at a host; see `agentkit.mcp.app`."""
    security = None
    if is_loopback(host):
        # The name in the request is checked as well: a page may give its own this address.
        pages = [f"http://{one}" for one in _LOCAL]
        security = TransportSecuritySettings(
            allowed_hosts=_LOCAL, allowed_origins=[*pages, *origins]
        )
    application = server.streamable_http_app(host=host, transport_security=security)
    application.add_middleware(_Guard, origins=None if security else frozenset(origins))
    run = application.router.lifespan_context

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncGenerator[None, None]:
        async with run(application):
            application.state.running = True
            try:
                yield
            finally:
                application.state.running = False

    application.router.lifespan_context = lifespan
    return application


class _Guard:
    """Refuses requests before they reach the SDK, which checks origins only along with hosts."""

    def __init__(self, app: ASGIApp, *, origins: frozenset[str] | None) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse web pages that may not call, and any request while nothing runs."""
        if scope["type"] == "http":
            if not getattr(scope["app"].state, "running", False):
                raise ConfigurationError(
                    "The MCP server was mounted, but not started. Give the outer application its "
                    "lifespan: lifespan=lambda _: tools.router.lifespan_context(tools)."
                )
            origin: bytes | None = dict(scope["headers"]).get(b"origin")
            allowed = self._origins
            if allowed is not None and origin and origin.decode("latin-1") not in allowed:
                refusal = PlainTextResponse("Invalid Origin header", status_code=403)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def serve_http(server: Server[Any], http: str | socket.socket) -> None:
    """Serve at an address, or on a socket that listens, until the task is cancelled."""
    import uvicorn  # needed for HTTP alone

    with listen_at(http) if isinstance(http, str) else http as listener:
        if anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
            raise ConfigurationError("serve(http=…) needs asyncio: uvicorn has no other loop.")
        application = application_of(server, listener.getsockname()[0])
        await uvicorn.Server(uvicorn.Config(application, log_level="warning")).serve([listener])


def listen_at(address: str) -> socket.socket:
    """Return a socket that listens at `HOST:PORT`.

    Raises:
        ConfigurationError: It is no address, or cannot be listened at.
    """
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) < 65536):
        raise ConfigurationError(f"http={address!r}: expected HOST:PORT, such as 127.0.0.1:8000.")
    return listen(host.strip("[]") or "127.0.0.1", int(port))
