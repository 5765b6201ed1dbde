"""MCP servers that tests start: a scripted one, and real ones from the package indexes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentkit.mcp import McpToolset, stdio
from tests.support import CACHE, from_npm, installed

SCRIPTED = str(Path(__file__).parent / "scripted_server.py")
PYTHON_SERVERS = {
    "mcp": "2.3.0",
    "mcp-server-fetch": "2026.10.24",
    "mcp-server-git": "2026.10.19",
    "mcp-server-time": "2026.10.19",
}
SQLITE_SERVER = {
    "mcp": "1.30.0",
    "mcp-server-sqlite": "2025.4.25",
}  # it needs the SDK's first version
NODE_SERVERS = {
    "@modelcontextprotocol/server-everything": "2026.8.31",
    "@modelcontextprotocol/server-filesystem": "2026.8.31",
    "@modelcontextprotocol/server-memory": "2026.8.31",
}

CONFORMANCE = {"@modelcontextprotocol/conformance": "0.1.16"}


@pytest.fixture
def scripted(tmp_path: Path) -> Callable[..., McpToolset]:
    """Make toolsets of the scripted server, which keeps its notes in `tmp_path`."""

    def make(**options: Any) -> McpToolset:
        return stdio(sys.executable, SCRIPTED, str(tmp_path), **{"name": "scripted", **options})

    return make


def lines(path: Path) -> list[str]:
    """Return the lines of a file that a server writes; none if there is no file."""
    return path.read_text().splitlines() if path.exists() else []


def python_programs(folder: Path, packages: dict[str, str]) -> Path:
    """Return the folder of the programs in a virtual environment with these packages."""
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    wanted = [f"{name}=={version}" for name, version in packages.items()]
    pip = [str(programs / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    make = [sys.executable, "-m", "venv", "venv"]
    installed(folder, "-".join(packages.values()), make, [*pip, *wanted])
    return programs


@pytest.fixture(scope="session")
def python_servers() -> Path:
    """Return the folder of the programs of MCP servers from the Python package index."""
    return python_programs(CACHE / "mcp-python", PYTHON_SERVERS)


@pytest.fixture(scope="session")
def sqlite_server() -> Path:
    """Return the program of mcp-server-sqlite."""
    return python_programs(CACHE / "mcp-sqlite", SQLITE_SERVER) / "mcp-server-sqlite"


@pytest.fixture(scope="session")
def node_servers() -> Callable[[str], list[str]]:
    """Return what makes the command of an MCP server from npm."""
    node, packages = from_npm("mcp-node", NODE_SERVERS)
    return lambda name: [node, str(packages / "@modelcontextprotocol" / name / "dist" / "index.js")]


@pytest.fixture(scope="session")
def conformance() -> list[str]:
    """Return the command of the runner of the protocol's own scenarios."""
    node, packages = from_npm("mcp-conformance", CONFORMANCE)
    return [node, str(packages / "@modelcontextprotocol" / "conformance" / "dist" / "index.js")]


@contextmanager
def served_by_http(*offered: Any, port: int = 0) -> Generator[str]:
    """Serve by HTTP, in a thread, at this port or a free one; yield the endpoint."""
    uvicorn = pytest.importorskip("uvicorn")
    from agentkit.mcp import app

    if not port:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    options = {"log_level": "error", "timeout_graceful_shutdown": 1}
    # Made in the thread: what an application holds belongs to the event loop that makes it.
    config = uvicorn.Config(lambda: app(*offered), factory=True, port=port, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while thread.is_alive() and not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.fixture
def git_repository(tmp_path: Path) -> Path:
    """Return a git repository with one commit."""
    if (git := shutil.which("git")) is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "a.txt").write_text("one\n")
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "First"]):
        subprocess.run([git, *arguments], cwd=folder, check=True, capture_output=True)
    return folder
