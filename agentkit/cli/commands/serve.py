"""`agentkit serve`: agents behind the chat-completions wire."""

from __future__ import annotations

import os
from pathlib import Path

from agentkit._listen import is_loopback, listen, url_of
from agentkit.cli.console import print_diagnostics, print_line
from agentkit.cli.load import application, without_server
from agentkit.errors import ConfigurationError

KEYS = "AGENTKIT_SERVE_KEYS"


def serve(
    app: str,
    /,
    *,
    model: str | None = None,
    deps: str | None = None,
    trace: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
) -> None:
    """Let any chat-completions client talk to an agent, until Ctrl-C.

    Clients send one of the keys in the environment variable AGENTKIT_SERVE_KEYS, which
    holds them separated by commas. Without it anybody may use the agent: only on loopback.

    Args:
        app: The agent, as FILE.py:NAME or MODULE:NAME.
        model: A model, instead of the agent's own.
        deps: What its tools need, as FILE.py:NAME: the value, or a function that returns it.
        trace: A folder for the traces, one for each request.
        host: The address to listen at.
        port: The port; 0 takes a free one.
    """
    try:
        import uvicorn

        from agentkit.serve import app as asgi
    except ImportError as error:
        raise without_server("agentkit serve", error) from None
    keys = [key.strip() for key in os.environ.get(KEYS, "").split(",") if key.strip()]
    if not keys and not is_loopback(host):
        raise ConfigurationError(
            f"--host {host} lets others in, and there are no keys. Set {KEYS}, or listen on "
            "127.0.0.1."
        )
    with application(app, model=model, deps=deps) as loaded:
        loaded.check_deps()
        loaded.agent.config.resolved.check()
        endpoint = asgi(
            loaded.agent,
            keys=keys or None,
            deps=None if deps is None else lambda request, key: loaded.deps,
            trace=None if trace is None else f"{trace}{os.sep}",
        )
        listener = listen(host, port)
        print_line(f"{loaded.agent.name} answers at {url_of(listener)}/v1 (Ctrl-C ends it)")
        print_diagnostics()
        server = uvicorn.Server(uvicorn.Config(endpoint, log_level="warning"))
        loaded.run(lambda: server.serve([listener]))
