"""The command line in processes that are forked from one that has imported everything.

A test of the command line starts hundreds of processes, and importing takes nearly all of their
time. `Forks` starts one Python, which has loaded what the command line needs and runs no thread.
For each command it forks: the command has its own process, streams, folder and environment.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn


class Forks:
    """The process to fork from, started when it is first needed."""

    def __init__(self) -> None:
        self._ours: socket.socket | None = None

    def run(
        self, arguments: list[str], cwd: Path, env: Mapping[str, str], typed: str | None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; stdin is what is typed, or that of the tests."""
        ours = self._ours or self._start()
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            tempfile.TemporaryFile() as piped,
        ):
            piped.write((typed or "").encode())
            piped.seek(0)
            stdin = os.dup(0) if typed is None else os.dup(piped.fileno())
            request = json.dumps([arguments, str(cwd), dict(env)]).encode()
            streams = [stdin, out.fileno(), err.fileno()]
            socket.send_fds(ours, [len(request).to_bytes(4, "big")], streams)
            os.close(stdin)
            ours.sendall(request)
            pid = int(_read(ours, 8))
            ours.settimeout(300)
            try:
                status = int(_read(ours, 8))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise
            out.seek(0)
            err.seek(0)
            texts = [one.read().decode().replace("\r\n", "\n") for one in (out, err)]
            return subprocess.CompletedProcess(arguments, status, *texts)

    def _start(self) -> socket.socket:
        from tests.support import ROOT, child_environment  # which import pytest

        self._ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(
                # As text: what looks for an application's own file finds none above it.
                [sys.executable, "-c", Path(__file__).read_text(encoding="utf-8"), str(number)],
                cwd=ROOT,
                env=child_environment(),
                pass_fds=[number],
            )
        atexit.register(self._stop)
        return self._ours

    def _stop(self) -> None:
        """Close the connection: the process ends, and is waited for."""
        if self._ours is not None:
            self._ours.close()
            self._process.wait(10)


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def serve(number: int) -> NoReturn:
    """Fork for each request, until the tests have ended."""
    import agentkit.cli.main
    import agentkit.testing  # noqa: F401  # what tests' applications import

    gc.freeze()  # a collection in a fork would copy every page
    sock = socket.socket(fileno=number)
    while True:
        head, streams, _, _ = socket.recv_fds(sock, 4, 3)
        if not head:
            os._exit(0)
        arguments, cwd, env = json.loads(_read(sock, int.from_bytes(head, "big")))
        pid = os.fork()
        if pid == 0:
            sock.close()
            _become(arguments, cwd, env, streams)
        for one in streams:
            os.close(one)
        sock.sendall(b"%8d" % pid)
        _, status = os.waitpid(pid, 0)
        sock.sendall(b"%8d" % os.waitstatus_to_exitcode(status))


def _become(arguments: list[str], cwd: str, env: dict[str, str], streams: list[int]) -> NoReturn:
    """Be what `python -c "from agentkit.cli import main; main()"` is."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    random.seed()
    encoding: dict[str, Any] = {"encoding": "utf-8", "closefd": False}
    sys.stdin = open(0, **encoding)  # noqa: SIM115  # to the end
    sys.stdout = open(1, "w", errors="strict", **encoding)  # noqa: SIM115  # to the end
    sys.stderr = open(2, "w", errors="backslashreplace", **encoding)  # noqa: SIM115  # to the end
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    sys.argv = ["-c", *arguments]
    sys.orig_argv = [sys.executable, "-c", "from agentkit.cli import main; main()", *arguments]
    sys.path[0] = ""
    code: object = 0
    try:
        from agentkit.cli import console
        from agentkit.cli.main import run

        # The consoles have looked at other streams, and at another environment.
        for one, stderr in ((console.OUT, False), (console.ERR, True)):
            vars(one).update(vars(console._console(stderr=stderr)))
        run()
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    _leave(code)


def _leave(code: object) -> NoReturn:
    """End as the interpreter does: exit functions, the last words, the status."""
    import threading

    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)  # noqa: T201  # what `sys.exit("text")` does
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = 120
    os._exit(int(code or 0))


if __name__ == "__main__":
    serve(int(sys.argv[1]))
