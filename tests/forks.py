"""Python programs in processes that are forked from one that has imported what they need.

Tests start hundreds of Pythons, and importing takes nearly all of their time. `Forks` starts one
Python, which has run some imports and runs no thread. For each program it forks: the program has
its own process, streams, folder, environment and path.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn


class Forks:
    """The process to fork from, started when it is first needed.

    Args:
        imports: What it runs before the first program.
    """

    def __init__(self, imports: str) -> None:
        self._imports = imports
        self._ours: socket.socket | None = None

    def run(
        self,
        arguments: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        typed: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end.

        Args:
            arguments: Those of Python: `-c CODE`, `-m MODULE` or FILE, and the program's own.
            cwd: Where.
            env: All environment variables.
            typed: What stdin has; None is the stdin of the tests.
        """
        if not hasattr(os, "fork"):
            captured: Any = {"capture_output": True, "text": True, "encoding": "utf-8"}
            command = [sys.executable, *arguments]
            return subprocess.run(
                command, cwd=cwd, env=env, input=typed, timeout=300, check=False, **captured
            )
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            tempfile.TemporaryFile() as piped,
        ):
            piped.write((typed or "").encode())
            piped.seek(0)
            stdin = 0 if typed is None else piped.fileno()
            program = self.start(arguments, cwd, env, (stdin, out.fileno(), err.fileno()))
            status = program.wait(300)
            out.seek(0)
            err.seek(0)
            texts = [one.read().decode().replace("\r\n", "\n") for one in (out, err)]
            return subprocess.CompletedProcess(arguments, status, *texts)

    def start(
        self,
        arguments: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        streams: tuple[int, int, int],
        *,
        terminal: bool = False,
    ) -> Fork:
        """Start a program; its streams are these descriptors, which stay the caller's.

        Args:
            arguments: Those of Python: `-c CODE`, `-m MODULE` or FILE, and the program's own.
            cwd: Where.
            env: All environment variables.
            streams: Its stdin, stdout and stderr.
            terminal: Whether stdin is the terminal of a session of its own.
        """
        ours = self._ours or self._connect()
        request = json.dumps([list(arguments), str(cwd), dict(env), terminal]).encode()
        ends, reports = os.pipe()
        socket.send_fds(ours, [len(request).to_bytes(4, "big")], [*streams, reports])
        os.close(reports)
        ours.sendall(request)
        return Fork(int(_read(ours, 8)), ends)

    def _connect(self) -> socket.socket:
        from tests.support import ROOT, child_environment  # which import pytest

        self._ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            # As text: what looks for an application's own file finds none above it.
            program = Path(__file__).read_text(encoding="utf-8")
            env = child_environment()
            path = env.pop("PYTHONPATH")  # each program has its own
            self._process = subprocess.Popen(
                [sys.executable, "-c", program, str(number), self._imports, path],
                cwd=ROOT,
                env=env,
                pass_fds=[number],
            )
        atexit.register(self._stop)
        return self._ours

    def _stop(self) -> None:
        """Close the connection: the process ends, and is waited for."""
        if self._ours is not None:
            self._ours.close()
            self._process.wait(10)


class Fork:
    """A program that was started; whoever starts it waits for its end, once."""

    def __init__(self, pid: int, ends: int) -> None:
        self.pid = pid
        self._ends = ends

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not select.select([self._ends], [], [], 0)[0]

    def wait(self, timeout: float) -> int:
        """Return its status, negative where a signal has ended it; kill it when it is late."""
        with open(self._ends, "rb") as ends:
            if not select.select([ends], [], [], timeout)[0]:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(f"The program has not ended within {timeout} s.")
            return int(ends.read(8))


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def serve(number: int, imports: str, path: str) -> NoReturn:
    """Fork for each request, until the tests have ended."""
    installed = sys.path[1:]
    sys.path[:] = ["", *path.split(os.pathsep)]
    exec(imports, {})
    gc.freeze()  # a collection in a fork would copy every page
    sock = socket.socket(fileno=number)
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([sock, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _report(running)
        if sock not in ready:
            continue
        head, descriptors, _, _ = socket.recv_fds(sock, 4, 4)
        if not head:
            os._exit(0)
        *streams, ends = descriptors
        request = json.loads(_read(sock, int.from_bytes(head, "big")))
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for one in (sock.detach(), woken, wakes, ends, *running.values()):
                os.close(one)
            _leave(_become(*request, streams, installed))
        running[pid] = ends
        for one in streams:
            os.close(one)
        sock.sendall(b"%8d" % pid)


def _report(running: dict[int, int]) -> None:
    """Write the status of each program that has ended to whoever waits for it."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with suppress(BrokenPipeError), open(running.pop(pid), "wb") as ends:
            ends.write(b"%8d" % os.waitstatus_to_exitcode(status))


def _become(
    arguments: list[str],
    cwd: str,
    env: dict[str, str],
    terminal: bool,
    streams: list[int],
    installed: list[str],
) -> object:
    """Have the folder, the environment, the path and the streams; run; return the status."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:] = ["", *filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *installed]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if terminal:
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    encoding: dict[str, Any] = {
        "encoding": env.get("PYTHONIOENCODING", "utf-8"),
        "closefd": False,
    }
    sys.stdin = open(0, **encoding)  # noqa: SIM115  # to the end
    sys.stdout = open(1, "w", errors="strict", **encoding)  # noqa: SIM115  # to the end
    sys.stderr = open(2, "w", errors="backslashreplace", **encoding)  # noqa: SIM115  # to the end
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    if console := sys.modules.get("agentkit.cli.console"):
        # The consoles have looked at other streams, and at another environment.
        for one, stderr in ((console.OUT, False), (console.ERR, True)):
            vars(one).update(vars(console._console(stderr=stderr)))
    random.seed()
    return _run(arguments)


def _run(arguments: list[str]) -> object:
    """Run what `python ARGUMENTS` runs; return what it ends with."""
    sys.orig_argv = [sys.executable, *arguments]
    kind, program = arguments[0], arguments[1:2]
    try:
        if kind == "-c":
            sys.argv = ["-c", *arguments[2:]]
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(program[0], "<string>", "exec"), vars(main))
        elif kind == "-m":
            sys.argv = arguments[1:]
            sys.path[0] = os.getcwd()
            runpy.run_module(program[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            sys.path[0] = os.path.dirname(os.path.abspath(kind))
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            vars(main)["__file__"] = kind
            with open(kind, "rb") as file:
                exec(compile(file.read(), kind, "exec"), vars(main))
    except SystemExit as stop:
        return stop.code
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 1
    return 0


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
    serve(int(sys.argv[1]), *sys.argv[2:])
