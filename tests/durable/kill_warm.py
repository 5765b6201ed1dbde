"""Loads what a worker needs, in the process that workers are forked from: a first job takes 2 s."""

from __future__ import annotations

import tempfile
from pathlib import Path

import anyio
import anyio._backends._trio
import trio  # noqa: F401 # loaded for the workers

from agentkit.testing import ChatServer
from tests.durable import kill

with ChatServer(kill.Server().answer) as _server, tempfile.TemporaryDirectory() as _folder:
    for _number in range(2):
        Path(_folder, f"{_number}.job").touch()
        anyio.run(kill.go, Path(_folder), _server.base_url, False)
