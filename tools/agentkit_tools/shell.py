"""A tool that runs programs of a list, without a shell in between."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentkit import Tool, ToolError, Toolset
from agentkit.errors import ConfigurationError
from agentkit.tools import FunctionToolset
from agentkit_tools._process import Place, listed
from agentkit_tools._root import Root

_ARGUMENTS_BYTES = 100_000


def shell_tools(
    *,
    allow: Sequence[str | os.PathLike[str]],
    root: str | os.PathLike[str] | None = None,
    write: bool = False,
    network: bool = False,
    isolated: bool = True,
    read: Sequence[str | os.PathLike[str]] = (),
    environment: Mapping[str, str] | None = None,
    seconds: float = 60.0,
    memory: int = 1024 * 2**20,
    approval: bool | Callable[..., Any] = True,
) -> Toolset:
    """Return a tool `run_program` that runs the programs of a list; an empty list gives none.

    The model chooses an entry and passes arguments, which reach the program as they are: no
    shell expands, redirects or chains anything. An entry is a program, or a program with its
    first arguments, as in "git log". Programs are looked up in `PATH` once, now, so nothing that
    a folder or a variable holds later takes their place. **An entry allows whatever its program
    does with any further argument**: "find" can run programs, "python" can do anything.

    What that may touch is up to the system: programs see the folder `root`, read-only unless
    `write`, the system's own programs, and nothing else of this machine: no other files or
    processes, no environment variables, no network. Where that cannot be enforced (it takes
    Linux 5.12 or newer with namespaces, and is tried when this function is called), it raises.

    With `isolated=False`, only the limits of time, memory, processes and file sizes hold:
    programs can read and write whatever this user can, and reach the network.

    Args:
        allow: The programs.
        root: The folder they run in. None is an empty one for each call.
        write: Whether they may write there.
        network: Whether they reach the network.
        isolated: Whether they have to be shut in.
        read: Further files and folders that they may read, under their own paths.
        environment: Variables that they get; HOME, PATH and LANG are set in any case.
        seconds: How long a call may take.
        memory: Bytes that all processes of a call may hold together.
        approval: Whether calls wait for a person's approval; see `Tool`.

    Raises:
        ConfigurationError: There is no such program or folder, or the system cannot isolate
            programs.

    Example:
        >>> agent = Agent("openai:gpt-4o", tools=[shell_tools(allow=["git log"], root=".")])
    """
    programs = {entry: _command(entry) for entry in listed("allow", allow)}
    if not programs:
        return FunctionToolset([])
    own = (command[0] for command in programs.values())
    place = Place(
        folder=None if root is None else Root(root).path,
        write=write or not isolated,
        read=(
            *(os.path.realpath(one) for one in listed("read", read)),
            *(one for one in own if _foreign(one)),
        ),
        network=network,
        isolated=isolated,
        seconds=seconds,
        memory=memory,
        environment=dict(environment or {}),
    )
    place.check()
    tool = Tool.from_schema(
        "run_program",
        f"Run a program and return what it prints. {_reach(place)} No shell is involved: pipes, "
        "redirections, variables and wildcards are not understood.",
        {
            "type": "object",
            "properties": {
                "program": {"enum": [*programs], "description": "What to run."},
                "arguments": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "Further arguments, one item each.",
                },
            },
            "required": ["program", "arguments"],
            "additionalProperties": False,
        },
        _Programs(programs, place).run,
        effect="write" if network or not isolated or (write and root is not None) else "read",
        approval=approval,
    )
    return FunctionToolset([tool])


def _command(entry: str) -> list[str]:
    """Return an entry as the program's absolute path and its first arguments."""
    try:
        program, *arguments = shlex.split(entry)
    except ValueError:
        raise ConfigurationError(
            f"{entry!r} cannot be allowed: name a program, as in 'git log'."
        ) from None
    if "/" in program and not program.startswith("/"):
        raise ConfigurationError(
            f"{entry!r} cannot be allowed: name a program in PATH, or its absolute path."
        )
    found = shutil.which(program)
    if found is None:
        raise ConfigurationError(f"There is no program {program!r} here. Install it first.")
    return [os.path.abspath(found), *arguments]


def _foreign(program: str) -> bool:
    return not program.startswith(("/usr/", "/bin/", "/sbin/"))


def _reach(place: Place) -> str:
    if not place.isolated:
        return "It runs on the user's machine."
    folder = "an empty folder" if place.folder is None else "the folder /box"
    parts = [folder, "which it may write" if place.write else "which it may only read"]
    return f"It works in {', '.join(parts)}; {'a' if place.network else 'no'} network is there."


@dataclass(frozen=True, slots=True)
class _Programs:
    """The function behind the tool."""

    programs: Mapping[str, list[str]]
    place: Place

    async def run(self, program: str, arguments: list[str]) -> str:
        """Run one of the programs."""
        command = [*self.programs[program], *arguments]
        try:
            size = sum(len(one.encode()) for one in command)
        except UnicodeEncodeError:
            raise ToolError("An argument is not valid Unicode.") from None
        if any("\0" in one for one in command) or size > _ARGUMENTS_BYTES:
            raise ToolError(
                f"Arguments have at most {_ARGUMENTS_BYTES:,} bytes, and none of them is NUL."
            )
        return await self.place.run(command, {})
