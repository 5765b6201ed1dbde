"""The embedded server: llama.cpp in a child process, on a loopback port.

`LocalModel` starts it and speaks to it through a `ChatModel`. It is a process of
its own, because llama.cpp would hold the interpreter's lock while it loads a model,
would end the program with it when it fails, and does not shut down while a request
is open. The child ends when its stdin does, so that it cannot outlive this process,
however this process ends.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import weakref
from pathlib import Path
from typing import IO

from agentkit.errors import LocalModelError
from agentkit.messages import JsonObject

PROGRAM = Path(__file__).with_name("child.py")
STOP_SECONDS = 5.0


class Startup:
    """Lets another thread end the child process that this one waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.cancelled = False

    def started(self, process: subprocess.Popen[bytes]) -> None:
        """Register the process that this thread waits for from now on."""
        with self._lock:
            self._process = process
            if self.cancelled:
                process.kill()

    def cancel(self) -> None:
        """End the process, and every one that is registered later."""
        with self._lock:
            self.cancelled = True
            if self._process is not None and self._process.poll() is None:
                self._process.kill()


class EmbeddedServer:
    """A running server for one model file. Blocks while it loads the model.

    Args:
        path: The .gguf file.
        name: What the server calls the model.
        context: Tokens of its context; 0 means the model's own maximum.
        startup: Lets another thread cancel the start.

    Raises:
        LocalModelError: The server did not start; with llama.cpp's own messages.
    """

    def __init__(self, path: Path, name: str, context: int, startup: Startup) -> None:
        self.key = secrets.token_urlsafe(24)
        self._path = path
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 # open for as long as the server runs
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )
        self._stop = weakref.finalize(self, _end, self._process, self._log, os.getpid())
        startup.started(self._process)
        config: JsonObject = {
            "path": str(path),
            "name": name,
            "context": context,
            "key": self.key,
            "packages": str(require_extra()),
            "parent": os.getpid(),
        }
        self.address = self._handshake(config)

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process. Blocks until it has ended."""
        self._stop()

    def failure(self) -> LocalModelError:
        """Return the error for a process that ended, with its last messages."""
        status = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()[-5:]
        return LocalModelError(
            f"The embedded server for {self._path} ended with status {status}."
            + "".join(f"\n    {line}" for line in lines)
        )

    def _handshake(self, config: JsonObject) -> str:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(config).encode() + b"\n")
            stdin.flush()
            address: str = json.loads(stdout.readline())["address"]
        except (OSError, ValueError) as error:  # It ended before it could answer.
            self._process.kill()
            failure = self.failure()
            self.stop()
            raise failure from error
        return address


def require_extra() -> Path:
    """Return the folder in which llama.cpp is installed, without importing it.

    Raises:
        LocalModelError: It is not installed.
    """
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise LocalModelError(
            "The embedded model needs xllamacpp, which is not installed. "
            'Run: pip install "agentkit-replay[local]"'
        )
    return Path(spec.origin).parents[1]


def _end(process: subprocess.Popen[bytes], log: IO[bytes], owner: int) -> None:
    if os.getpid() != owner:
        return  # In a fork: the server is the parent's.
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    log.close()
