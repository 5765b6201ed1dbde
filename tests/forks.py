"""Python programs in processes that are forked from one that has imported what they need.

Tests start hundreds of Pythons, and importing takes nearly all of their time. `Forks` starts one
Python, which has run some imports and runs no thread. For each program it forks: the program has
its own process, streams, folder, environment and path. What starts a Python itself can be given
`Forks.executable`, a program that asks for such a process.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import random
import runpy
import select
import shutil
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

    def executable(self) -> Path:
        """Return a program that stands for `python`; it is `sys.executable` of what it runs.

        It ends as what it runs does, which gets its signals, and is killed with it. What is
        started with `FORKS_EXECUTABLE` in its environment has that as `sys.executable`.
        """
        if not hasattr(os, "fork"):
            return Path(sys.executable)
        if self._ours is None:
            self._connect()
        path = self._folder / "python"
        if not path.exists():
            path.write_text(_EXECUTABLE.format(python=sys.executable), encoding="utf-8")
            path.chmod(0o755)
        return path

    def _connect(self) -> socket.socket:
        from tests.support import ROOT, child_environment  # which import pytest

        self._ours, theirs = socket.socketpair()
        self._folder = Path(tempfile.mkdtemp(prefix="forks"))
        with theirs, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self._folder / "socket"))
            listener.listen()
            numbers = [theirs.fileno(), listener.fileno()]
            # As text: what looks for an application's own file finds none above it.
            program = Path(__file__).read_text(encoding="utf-8")
            env = child_environment()
            path = env.pop("PYTHONPATH")  # each program has its own
            self._process = subprocess.Popen(
                [sys.executable, "-c", program, *map(str, numbers), self._imports, path],
                cwd=ROOT,
                env=env,
                pass_fds=numbers,
            )
        atexit.register(self._stop)
        return self._ours

    def _stop(self) -> None:
        """Close the connection: the process ends, and is waited for."""
        if self._ours is not None:
            self._ours.close()
            self._process.wait(60)
            shutil.rmtree(self._folder)


_EXECUTABLE = """#!{python} -IS
import json, os, signal, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(os.path.join(os.path.dirname(sys.argv[0]), "socket"))
ends, reports = os.pipe()
env = dict(os.environ, FORKS_EXECUTABLE=sys.argv[0])
request = json.dumps([sys.argv[1:], os.getcwd(), env, False]).encode()
socket.send_fds(sock, [len(request).to_bytes(4, "big")], [0, 1, 2, reports])
os.close(reports)
sock.sendall(request)
pid = int(sock.recv(8, socket.MSG_WAITALL))
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: os.kill(pid, number))
status = int(open(ends).read(8))
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


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


def serve(number: int, listening: int, imports: str, path: str) -> NoReturn:
    """Fork for each request, until the tests have ended."""
    installed = sys.path[1:]
    sys.path[:] = ["", *path.split(os.pathsep)]
    exec(imports, {})
    gc.freeze()  # a collection in a fork would copy every page
    sock, listener = socket.socket(fileno=number), socket.socket(fileno=listening)
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    ours = (sock, listener, woken, wakes)
    running: dict[int, _Running] = {}
    while True:
        asking = {one.asking: pid for pid, one in running.items() if one.asking}
        ready, _, _ = select.select([sock, listener, woken, *asking], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _report(running)
        for one in asking.keys() & {*ready}:  # whoever asked was killed
            if running.get(asking[one]):
                os.kill(asking[one], signal.SIGKILL)
                running[asking[one]].asking = None
        if sock in ready and not _fork(sock, None, running, ours, installed):
            os._exit(0)
        if listener in ready:
            one = listener.accept()[0]
            _fork(one, one, running, ours, installed)


class _Running:
    """A program that has not ended.

    Args:
        ends: Where its status is written to.
        asking: A connection that is open for as long as it is to live.
    """

    def __init__(self, ends: int, asking: socket.socket | None) -> None:
        self.ends = ends
        self.asking = asking

    def close(self) -> None:
        """Close both."""
        os.close(self.ends)
        if self.asking:
            self.asking.close()


def _fork(
    sock: socket.socket,
    asking: socket.socket | None,
    running: dict[int, _Running],
    ours: Sequence[socket.socket | int],
    installed: list[str],
) -> bool:
    """Start what is asked for, and answer with its number; False where nobody asks any more."""
    head, descriptors, _, _ = socket.recv_fds(sock, 4, 4)
    if not head:
        return False
    *streams, ends = descriptors
    request = json.loads(_read(sock, int.from_bytes(head, "big")))
    pid = os.fork()
    started = _Running(ends, asking)
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for one in ours:
            os.close(one if isinstance(one, int) else one.detach())
        for other in (started, *running.values()):
            other.close()
        _leave(_become(*request, streams, installed))
    running[pid] = started
    for one in streams:
        os.close(one)
    sock.sendall(b"%8d" % pid)
    return True


def _report(running: dict[int, _Running]) -> None:
    """Write the status of each program that has ended to whoever waits for it."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        ended = running.pop(pid)
        with suppress(BrokenPipeError):
            os.write(ended.ends, b"%8d" % os.waitstatus_to_exitcode(status))
        ended.close()


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
    sys.executable = os.environ.pop("FORKS_EXECUTABLE", sys.executable)
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
    alone = arguments[0] == "-P"  # without the program's folder in the path
    del arguments[:alone]
    kind, program = arguments[0], arguments[1:2]
    try:
        if kind == "-c":
            sys.argv = ["-c", *arguments[2:]]
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(program[0], "<string>", "exec"), vars(main))
        elif kind == "-m":
            sys.argv = arguments[1:]
            sys.path[0:1] = [] if alone else [os.getcwd()]
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
    serve(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
