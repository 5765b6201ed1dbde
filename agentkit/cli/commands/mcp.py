"""`agentkit mcp`: an MCP server of the tools in a file, or of an agent as one tool."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from agentkit import mcp as server
from agentkit._listen import is_loopback, url_of
from agentkit.agent import Agent
from agentkit.cli.console import print_diagnostics, print_note
from agentkit.cli.load import agents_in, load_deps, load_module, split_name, value_of
from agentkit.errors import ConfigurationError
from agentkit.tools.tool import Tool
from agentkit.tools.toolset import Toolset


def mcp(
    source: str,
    /,
    *,
    http: str | None = None,
    name: str | None = None,
    trace: Path | None = None,
    deps: str | None = None,
) -> None:
    """Serve the tools in a file, or an agent as one tool, to MCP clients.

    Speaks on stdin and stdout, as clients start it, unless --http says where to listen.

    Args:
        source: FILE.py or MODULE, or FILE.py:NAME for one tool, a list of tools, a toolset,
            an agent, or a function that returns one of these.
        http: HOST:PORT to listen on, such as 127.0.0.1:8000; the endpoint is /mcp.
        name: What the server is called; the name of the file by default.
        trace: A folder: the trace of each call is written there.
        deps: FILE.py:NAME or MODULE:NAME: what the tools depend on.
    """
    place, attribute = split_name(source)
    with _clean_stdout(), asyncio.Runner() as loop:  # the file may print
        module = load_module(place)
        offered = _offered(loop, module, place, attribute)
        value = load_deps(loop, deps) if deps is not None else None
    listener = None
    if http is not None:
        from agentkit.mcp.endpoint import listen_at  # it takes the SDK with it

        listener = listen_at(http)
        print_note(f"Serving on {url_of(listener)}/mcp; Ctrl-C ends it.")
        if not is_loopback(listener.getsockname()[0]):
            print_note("Nobody is asked who they are: whoever reaches this address may call it.")
    print_diagnostics()
    name = name or Path(place).stem
    server.serve_sync(*offered, name=name, http=listener, deps=value, trace=trace)


_TOOLS: tuple[type[Any], ...] = (Tool, Toolset)


def _offered(loop: asyncio.Runner, module: ModuleType, place: str, attribute: str) -> Sequence[Any]:
    """Return what is served: what the name stands for, or the only agent, or the tools."""
    if attribute:
        if not hasattr(module, attribute):
            raise ConfigurationError(f"{place} has no {attribute!r}; it has {_known(module)}.")
        value = value_of(loop, getattr(module, attribute), f"{attribute!r} in {place}", place)
        return cast("Sequence[Any]", value) if isinstance(value, (list, tuple)) else [value]
    agents = [*{id(one): one for one in agents_in(module).values()}.values()]
    tools: list[Any] = [one for one in vars(module).values() if isinstance(one, _TOOLS)]
    if len(agents) > 1 or not (agents or tools):
        raise ConfigurationError(
            f"{place!r} does not say what to serve: write {place}:NAME. It has {_known(module)}."
        )
    return agents or tools


def _known(module: ModuleType) -> str:
    names = sorted(key for key, one in vars(module).items() if isinstance(one, (Agent, *_TOOLS)))
    return ", ".join(names) or "no tools and no agents"


@contextmanager
def _clean_stdout() -> Generator[None, None, None]:
    """Send what is written to stdout to stderr, that of subprocesses and libraries included."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
