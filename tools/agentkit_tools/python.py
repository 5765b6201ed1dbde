"""A tool that runs Python code, shut in by the system."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agentkit import Tool, Toolset
from agentkit.tools import FunctionToolset
from agentkit_tools._process import Place, listed
from agentkit_tools._root import Root

_MAIN = "/tmp/main.py"


def python_tools(
    folder: str | os.PathLike[str] | None = None,
    *,
    network: bool = False,
    isolated: bool = True,
    read: Sequence[str | os.PathLike[str]] = (),
    seconds: float = 30.0,
    memory: int = 512 * 2**20,
    approval: bool | Callable[..., Any] | None = None,
) -> Toolset:
    """Return a tool `run_python` that runs code in a process of its own.

    The code sees this Python with its packages, the system's programs, and a folder to work in.
    It does not see other files, other processes, environment variables, or a network; it has
    no privileges, and what it leaves behind ends with it. The system enforces that with
    namespaces, which takes Linux 5.12 or newer and is tried when this function is called; where
    that fails, it raises.

    With `isolated=False`, only the limits of time, memory, processes and file sizes hold: code
    can read and write whatever this user can, and reach the network.

    Args:
        folder: A folder that the code may read and write; its files stay. None is an empty one
            for each call, of at most 64 MB.
        network: Whether the code reaches the network.
        isolated: Whether code has to be shut in.
        read: Further files and folders that it may read, under their own paths.
        seconds: How long a call may take.
        memory: Bytes that all processes of a call may hold together.
        approval: Whether calls wait for a person's approval; see `Tool`. None has them wait
            where the code is not isolated.

    Raises:
        ConfigurationError: There is no such folder, or the system cannot isolate code.

    Example:
        >>> agent = Agent("openai:gpt-4o", tools=[python_tools()])
    """
    place = Place(
        folder=None if folder is None else Root(folder).path,
        write=True,
        read=(*(os.path.realpath(one) for one in listed("read", read)), *_interpreter()),
        network=network,
        isolated=isolated,
        seconds=seconds,
        memory=memory,
    )
    place.check([sys.executable, "-I", "-c", "pass"])
    harmless = isolated and not network and folder is None
    run = _Python(place)
    tool = Tool(
        run.run_python,
        effect="read" if harmless else "write",
        approval=(not isolated) if approval is None else approval,
    )
    return FunctionToolset([tool])


def _interpreter() -> list[str]:
    prefixes = dict.fromkeys((sys.base_prefix, sys.exec_prefix, sys.prefix))
    return [one for one in prefixes if one != "/usr" and not one.startswith("/usr/")]


@dataclass(frozen=True, slots=True)
class _Python:
    """The function behind the tool."""

    place: Place

    async def run_python(self, code: str) -> str:
        """Run Python code in a new process and return what it prints. Nothing stays in memory.

        Args:
            code: A program. It has to print what you want to read.
        """
        command = [sys.executable, "-I", "-u", "-X", "utf8", _MAIN]
        return await self.place.run(command, {_MAIN: code})
