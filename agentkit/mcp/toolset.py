"""The tools of an MCP server as a toolset, and what else it has to read: resources, prompts.

Listing them is the effect by which every toolset is asked, so a replay answers it, and the
server's calls, from its recording. The connection is opened when the first of them is needed:
a replay needs neither the server nor the extra.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast
from weakref import WeakKeyDictionary

from anyio.lowlevel import RunVar
from typing_extensions import Unpack

from agentkit.errors import ConfigurationError, InvalidTool, ServerUnreachable, ToolError
from agentkit.events import Warned
from agentkit.mcp.target import Target, host_of
from agentkit.messages import JsonObject, Message, Part
from agentkit.tools.context import RunContext
from agentkit.tools.options import BehaviourOptions, check_tool
from agentkit.tools.tool import AnyTool, Tool
from agentkit.tools.toolset import Toolset

if TYPE_CHECKING:
    import mcp_types as types

    from agentkit.mcp.connection import Connection

ValueT = TypeVar("ValueT")
MISSING = 'MCP servers need the package mcp. Run: pip install "agentkit-replay[mcp]"'


@dataclass(slots=True)
class _Use:
    """How many have entered a toolset and not left it, and the connection that they share."""

    users: int = 0
    connection: Connection | None = None


_open: RunVar[WeakKeyDictionary[Toolset, _Use]] = RunVar("mcp")
_seen: OrderedDict[str, dict[str, str]] = OrderedDict()
"""Hashes of the tools, by name, of the servers that this process has used last."""
_SERVERS = 256
_RUNS = 64
"""Runs whose listing and warnings a toolset remembers."""


def stdio(
    command: str | os.PathLike[str],
    *arguments: str,
    name: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    prefix: str = "",
    parallel: int | None = None,
    resources: bool = False,
    trust_hints: bool = False,
    connect_timeout: float = 30.0,
    **options: Unpack[BehaviourOptions],
) -> McpToolset:
    """Make a toolset of an MCP server that is a program, spoken to through stdin and stdout.

    It can touch whatever that program can: it runs with your rights, in `cwd`, with the
    variables HOME, LOGNAME, PATH, SHELL, TERM and USER and those of `env`, and no others.

    Args:
        command: The program.
        arguments: Its arguments.
        name: What the server is called in messages and traces; the program's name by default.
        env: Further environment variables.
        cwd: The folder in which it starts; the current one by default.
        prefix: Put before every tool's name.
        parallel: Calls that the server may work on at the same time.
        resources: Whether the model gets the tools `list_resources` and `read_resource`.
        trust_hints: Whether tools that the server calls read-only have `effect="read"`.
        connect_timeout: Seconds until it has to have answered for the first time.
        **options: Of each of its tools; see `Tool`.

    Raises:
        ConfigurationError: An option does not fit, or the extra `mcp` is not installed.
    """
    words = (os.fspath(command), *arguments)
    target = Target(
        name=name or PurePath(words[0]).name,
        command=words,
        env=dict(env or {}),
        cwd=None if cwd is None else os.fspath(cwd),
        connect_timeout=connect_timeout,
        parallel=parallel,
    )
    return McpToolset(target, prefix, resources, trust_hints, options)


def http(
    url: str,
    *,
    name: str | None = None,
    headers: Mapping[str, str] | None = None,
    http_client: Any = None,
    prefix: str = "",
    parallel: int | None = None,
    resources: bool = False,
    trust_hints: bool = False,
    connect_timeout: float = 30.0,
    **options: Unpack[BehaviourOptions],
) -> McpToolset:
    """Make a toolset of an MCP server that is reached by streamable HTTP.

    Args:
        url: Its endpoint, such as `http://localhost:8000/mcp`.
        name: What the server is called in messages and traces; the host by default.
        headers: Sent with every request, such as `Authorization`.
        http_client: An `httpx2.AsyncClient` to send them with, for example with `auth=`. It
            stays open.
        prefix: As of `stdio`, like all that follow.
        parallel: Calls that the server may work on at the same time.
        resources: Whether the model may list and read resources.
        trust_hints: Whether to believe the server which of its tools only read.
        connect_timeout: Seconds until it has to have answered for the first time.
        **options: Of each of its tools; see `Tool`.

    Raises:
        ConfigurationError: An option does not fit, or the extra `mcp` is not installed.
    """
    target = Target(
        name=name or host_of(url),
        url=url,
        headers=dict(headers or {}),
        http_client=http_client,
        connect_timeout=connect_timeout,
        parallel=parallel,
    )
    return McpToolset(target, prefix, resources, trust_hints, options)


class McpToolset(Toolset):
    """The tools of one MCP server. Made by `stdio` and `http`.

    A run opens the connection when it first needs it and closes it at its end. Runs at the same
    time share one, and `async with toolset:` around several runs keeps it open between them.
    """

    def __init__(
        self,
        target: Target,
        prefix: str,
        resources: bool,
        trust_hints: bool,
        options: BehaviourOptions,
    ) -> None:
        """Prepare the toolset; nothing is started. The arguments are those of `stdio`."""
        check_tool(f"{prefix}tool", options)
        self.name = target.name
        self._target = target
        self._prefix = prefix
        self._trust_hints = trust_hints
        self._options = options
        self._own = [self._reader(one) for one in _READERS] if resources else []
        self._made: dict[str, tuple[str, AnyTool]] = {}
        self._listed: list[AnyTool] = []
        self._runs: deque[str] = deque(maxlen=_RUNS)
        self._warned: deque[str] = deque(maxlen=_RUNS)

    def __repr__(self) -> str:
        return f"<McpToolset {self.name}>"

    async def __aenter__(self) -> Self:
        """Take part in the connection of this event loop, which is opened when it is needed."""
        self._uses.setdefault(self, _Use()).users += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection, unless something else still uses it."""
        use = self._uses[self]
        use.users -= 1
        if use.users == 0:
            del self._uses[self]
            if use.connection is not None:
                await use.connection.close()

    async def tools(self, context: RunContext[Any]) -> Sequence[AnyTool]:
        """Return the server's tools: listed once in a run, and again after they have changed.

        Raises:
            ServerUnreachable: The server does not answer, and has not done so in this run.
        """
        connection, known = self._connection(), context.run_id in self._runs
        if known and not connection.stale:
            return self._listed
        try:
            listed = await connection.listed("tools")
        except ServerUnreachable as error:
            if not known:
                raise
            # Calls will say so, or find it again.
            self._warn(context, "mcp_unreachable", error.message)
            return self._listed
        self._listed = [*self._own, *self._tools(listed, context)]
        self._runs.append(context.run_id)
        self._compare(context)
        return self._listed

    # What a program reads

    async def resources(self) -> list[types.Resource]:
        """List the server's resources."""
        return await self._connection().listed("resources")

    async def read(self, uri: str) -> list[Part]:
        """Read a resource: text, images, files."""
        return await self._connection().read(uri)

    async def prompts(self) -> list[types.Prompt]:
        """List the server's prompts."""
        return await self._connection().listed("prompts")

    async def prompt(self, name: str, arguments: Mapping[str, str] | None = None) -> list[Message]:
        """Fill in one of the server's prompts; the messages go into `history=` of a run."""
        return await self._connection().prompt(name, dict(arguments or {}))

    # The connection

    @property
    def _uses(self) -> WeakKeyDictionary[Toolset, _Use]:
        try:
            return _open.get()
        except LookupError:
            _open.set(known := WeakKeyDictionary[Toolset, _Use]())
            return known

    def _connection(self) -> Connection:
        """Return the connection of this event loop.

        Raises:
            ConfigurationError: Nothing has entered the toolset, or the SDK is not installed.
        """
        use = self._uses.get(self)
        if use is None:
            raise ConfigurationError(
                f"{self!r} is not connected. A run connects it; elsewhere write "
                "`async with toolset:` around what uses it."
            )
        if use.connection is None:
            if importlib.util.find_spec("mcp") is None:
                raise ConfigurationError(MISSING)
            from agentkit.mcp.connection import Connection  # the extra is there from here on

            use.connection = Connection(self._target)
        return use.connection

    # Its tools

    def _tools(self, listed: Sequence[types.Tool], context: RunContext[Any]) -> list[AnyTool]:
        """Return the listed tools, the same objects as before where nothing has changed."""
        made: dict[str, tuple[str, AnyTool]] = {}
        taken = {tool.name for tool in self._own}
        for one in listed:
            digest = _digest(one.model_dump(mode="json", by_alias=True, exclude_none=True))
            kept = self._made.get(one.name)
            if kept is None or kept[0] != digest or kept[1].name in taken:
                try:
                    kept = (digest, self._tool(one, taken))
                except InvalidTool as error:
                    text = f"A tool of {self.name} is left out. {error.message}"
                    self._warn(context, "tool_unusable", text)
                    continue
            made[one.name] = kept
            taken.add(kept[1].name)
        self._made = made
        return [tool for _, tool in made.values()]

    def _tool(self, listed: types.Tool, taken: set[str]) -> AnyTool:
        options = cast("BehaviourOptions", {"effect": "write", **self._options})
        hints = listed.annotations
        if self._trust_hints and hints is not None and hints.read_only_hint:
            options["effect"] = "read"
        return Tool.from_schema(
            _tool_name(self._prefix, listed.name, taken),
            listed.description or listed.title or "",
            listed.input_schema,
            self._function(listed.name),
            **{**options, "source": f"mcp:{self.name}"},
        )

    def _function(self, name: str) -> Callable[..., Any]:
        # The name is one that no server gives to a parameter.
        async def call(_context_of_the_run: RunContext[Any], **arguments: Any) -> Any:
            return await self._connection().call(name, arguments, _context_of_the_run)

        call.__name__ = re.sub(r"\W", "_", name)
        return call

    def _reader(self, function: Callable[..., Any]) -> AnyTool:
        name = self._prefix + function.__name__.strip("_")
        options = cast("BehaviourOptions", {**self._options, "effect": "read"})
        return Tool(function.__get__(self), name=name, **options)

    async def _list_resources(self) -> list[JsonObject]:
        """List the resources that can be read with read_resource."""
        listed = await _for_model(self.resources())
        return [one.model_dump(mode="json", exclude_none=True) for one in listed]

    async def _read_resource(self, uri: str) -> list[Part]:
        """Read a resource.

        Args:
            uri: Its URI, as list_resources has it.
        """
        return await _for_model(self.read(uri))

    def _compare(self, context: RunContext[Any]) -> None:
        """Say, once, which tools are described in another way than when they were seen last."""
        key = _digest([self._target.key, self._prefix])
        now = {tool.name: _digest(tool.definition.to_json()) for tool in self._listed}
        then = _seen.pop(key, {})
        _seen[key] = {**then, **now}
        while len(_seen) > _SERVERS:
            _seen.popitem(last=False)
        for name, digest in now.items():
            if then.get(name, digest) != digest:
                text = f"{name} of {self.name} is not described as it was before in this process."
                data = {"tool": name, "source": f"mcp:{self.name}"}
                context.emit(Warned(at=context.address, code="tool_changed", text=text, data=data))

    def _warn(self, context: RunContext[Any], code: str, text: str) -> None:
        """Warn of something once in a run."""
        if (key := _digest([context.run_id, code, text])) not in self._warned:
            self._warned.append(key)
            context.emit(Warned(at=context.address, code=code, text=text))


_READERS = (McpToolset._list_resources, McpToolset._read_resource)  # pyright: ignore[reportPrivateUsage]  # of this module


async def _for_model(answer: Awaitable[ValueT]) -> ValueT:
    try:
        return await answer
    except ServerUnreachable as error:
        raise ToolError(error.message) from error


def _tool_name(prefix: str, name: str, taken: set[str]) -> str:
    """Return the name of a tool in the form that models accept, and that no other one has."""
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", prefix + name)[:64] or "_"
    number, free = 2, name
    while free in taken:
        free = f"{name[: 63 - len(str(number))]}_{number}"
        number += 1
    return free


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
