"""Run a program in `_jail.py`, and return what it wrote and how it ended."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from agentkit import ToolError
from agentkit.errors import ConfigurationError
from agentkit_tools._options import check_positive

_JAIL = str(Path(__file__).with_name("_jail.py"))
_OUTPUT = 60_000
_DRAINED = 10_000_000
_GRACE = 5.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def listed(option: str, values: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return paths or names as text.

    Raises:
        ConfigurationError: It is one text and no list, or holds something else.
    """
    if not isinstance(values, (str, bytes, os.PathLike)):
        with contextlib.suppress(TypeError):
            return [os.fspath(value) for value in values]
    raise ConfigurationError(f"{option}={values!r} has to be a list of texts or paths.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where programs run, and what they may reach and use up there.

    Attributes:
        folder: The folder that they work in; None is an empty one for each call.
        write: Whether they may write in it.
        read: Further files and folders that they may read.
        network: Whether they have one.
        isolated: Whether all of this is enforced by the system.
        seconds: How long one may take.
        memory: Bytes that its processes may hold together.
        environment: Variables.
    """

    folder: Path | None = None
    write: bool = False
    read: tuple[str, ...] = ()
    network: bool = False
    isolated: bool = True
    seconds: float = 30.0
    memory: int = 512 * 2**20
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigurationError: One is not allowed; the text names it.
        """
        check_positive(seconds=self.seconds, memory=self.memory)
        for path in self.read:
            if not os.path.exists(path):
                raise ConfigurationError(f"read={path!r}: there is no such file or folder.")
        for name, value in self.environment.items():
            if not (isinstance(name, str) and isinstance(value, str)):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigurationError(f"environment={name!r}: {value!r} has to be text.")

    async def run(self, command: Sequence[str], files: Mapping[str, str]) -> str:
        """Run a program to its end and return what it wrote, and how it ended.

        Args:
            command: The program, by its absolute path, and its arguments.
            files: Texts to put into /tmp before, by their paths.

        Raises:
            ToolError: The program cannot be run here.
        """
        if self.isolated:
            return await self._run(self._job(command, files))
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            for path, text in files.items():
                await anyio.Path(temporary, Path(path).name).write_text(text, encoding="utf-8")
            place = replace(self, folder=self.folder or Path(temporary))
            command = [temporary + part[4:] if part in files else part for part in command]
            text = await place._run(place._job(command, {}, temporary))
        return text.replace(temporary, "/tmp")

    async def _run(self, job: dict[str, Any]) -> str:
        process = await anyio.open_process(
            _launcher(), stderr=subprocess.PIPE, env={}, cwd="/", start_new_session=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        output, report = _Cut(_OUTPUT), _Cut(_OUTPUT)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(report.fill, process.stderr)
                with contextlib.suppress(anyio.BrokenResourceError):
                    await process.stdin.send(json.dumps(job).encode() + b"\n")
                if not await output.fill(process.stdout):
                    await process.stdin.aclose()
                await process.wait()
        finally:
            await _end(process)
        ending = _ending(report.text())
        note = "its output was too much" if output.over else self._note(ending)
        text = self._without_paths(output.text()).rstrip("\n")
        return f"{text}\n[{note}]".lstrip("\n") if note else text or "[no output]"

    def _job(
        self, command: Sequence[str] | None, files: Mapping[str, str], tmp: str = "/tmp"
    ) -> dict[str, Any]:
        home = {"HOME": tmp, "TMPDIR": tmp, "PATH": PATH, "LANG": "C.UTF-8", "TERM": "dumb"}
        return {
            "command": command,
            "files": dict(files),
            "folder": None if self.folder is None else str(self.folder),
            "write": self.write,
            "read": self.read,
            "network": self.network,
            "isolated": self.isolated,
            "seconds": self.seconds,
            "memory": self.memory,
            "disk": 64 * 2**20,
            "processes": 64,
            "environment": {**home, **self.environment},
            "limits": {
                "CPU": int(self.seconds) + 1,
                "AS": 4 * self.memory,  # reserved, which is more than what is held
                "FSIZE": 64 * 2**20,
                "NOFILE": 256,
                "CORE": 0,
                "NPROC": 256,  # threads count, too
            },
        }

    def check(self, command: Sequence[str] | None = None) -> None:
        """Try to run a program here, or nothing at all.

        Raises:
            ConfigurationError: The system does not let us.
        """
        if sys.platform == "win32":
            raise ConfigurationError("This tool needs Linux or macOS; Windows has no such limits.")
        error = _probe(json.dumps(self._job(command, {})))
        if error and self.isolated:
            raise ConfigurationError(
                f"This system cannot isolate a program ({error}). Isolation takes Linux 5.12 or "
                "newer with namespaces, which containers often forbid. Allow them, or pass "
                "isolated=False: then programs can read what this user can read, and reach the "
                "network."
            )
        if error:
            raise ConfigurationError(f"The program cannot be run: {error}.")

    def _note(self, ending: Mapping[str, Any]) -> str:
        match ending.get("stopped"):
            case "time":
                return f"stopped after {self.seconds:g} seconds"
            case "memory":
                return f"stopped: it used more than {self.memory // 2**20} MB"
            case "processes":
                return "stopped: it started too many processes"
            case _ if "status" not in ending:
                raise ToolError("The program could not be run: its sandbox cannot be set up.")
            case _:
                code = os.waitstatus_to_exitcode(ending["status"])
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        return f"exit code {code}" if code else ""

    def _without_paths(self, text: str) -> str:
        """Hide where things are on this machine."""
        if self.folder is not None:
            text = text.replace(str(self.folder), "/box")
        text = text.replace(_JAIL, "/jail")
        for prefix in sorted({sys.prefix, sys.base_prefix}, key=len, reverse=True):
            text = text if prefix in ("/usr", "/usr/local") else text.replace(prefix, "/python")
        return text


class _Cut:
    """The beginning and the end of a stream."""

    def __init__(self, size: int) -> None:
        self.over = False
        self._size = size
        self._head = bytearray()
        self._tail = bytearray()
        self._count = 0

    async def fill(self, stream: AsyncIterable[bytes]) -> bool:
        """Read a stream to its end; return False if there is too much of it."""
        async for data in stream:
            self._count += len(data)
            room = self._size // 2 - len(self._head)
            self._head += data[:room] if room > 0 else b""
            self._tail += data[max(room, 0) :]
            del self._tail[: -self._size // 2]
            if self._count > _DRAINED:
                self.over = True
                return False
        return True

    def text(self) -> str:
        """Return it as text, with a note of what is missing."""
        missing = self._count - len(self._head) - len(self._tail)
        if missing <= 0:
            return bytes(self._head + self._tail).decode("utf-8", "replace")
        head, tail = (part.decode("utf-8", "replace") for part in (self._head, self._tail))
        return f"{head}\n[{missing:,} bytes are not shown here]\n{tail}"


async def _end(process: anyio.abc.Process) -> None:
    """Have the launcher end everything, or else end the launcher."""
    with anyio.CancelScope(shield=True):
        assert process.stdin is not None
        with anyio.move_on_after(_GRACE):
            await process.stdin.aclose()
            await process.wait()
        if process.returncode is None:
            process.kill()
        await process.aclose()


def _ending(report: str) -> Mapping[str, Any]:
    try:
        return json.loads(report)
    except ValueError:
        return {}


def _launcher() -> list[str]:
    return [sys.executable, "-I", "-S", _JAIL]


@functools.lru_cache(maxsize=8)
def _probe(job: str) -> str:
    """Run a job once and return why it cannot be; "" if it can."""
    with subprocess.Popen(
        _launcher(), env={}, stdin=-1, stdout=-1, stderr=-1, text=True, cwd="/"
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(f"{job}\n")  # and left open, see _jail.py
        process.stdin.flush()
        output, report = process.stdout.read().strip(), process.stderr.read().strip()
    ending = _ending(report)
    if ending.get("status") == 0:
        return ""
    return str(ending.get("error") or output or report[-200:])
