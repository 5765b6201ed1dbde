"""Where an MCP server is, and how it is started: checked before anything happens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast
from urllib.parse import urlsplit

from agentkit import _checks
from agentkit._checks import Check, is_number
from agentkit.errors import ConfigurationError, safe_repr


def _items(value: Mapping[Any, Any]) -> Iterable[tuple[Any, Any]]:
    return value.items()


_TEXTS = Check(
    "a mapping of text to text",
    lambda value: (
        isinstance(value, Mapping)
        and all(isinstance(one, str) for pair in _items(cast("Any", value)) for one in pair)
    ),
)
_CHECKS = {
    "name": _checks.TEXT,
    "command": _checks.items("a program and its arguments", lambda one: isinstance(one, str)),
    "env": _TEXTS,
    "headers": _TEXTS,
    "connect_timeout": Check("seconds > 0", lambda value: is_number(value) and value > 0),
    "parallel": _checks.integer(1).or_none(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A server: a command to start, or a URL.

    Attributes:
        name: What it is called in messages.
        command: The program and its arguments; empty for a URL.
        env: Variables of the program besides the few that are inherited.
        cwd: The folder in which it starts.
        url: The address of its endpoint.
        headers: Sent with every request.
        http_client: An `httpx2.AsyncClient` to use instead of one of our own.
        connect_timeout: Seconds until it has to have answered for the first time.
        parallel: Calls that it may work on at the same time.
    """

    name: str
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    cwd: str | None = None
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    http_client: Any = None
    connect_timeout: float = 30.0
    parallel: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no server, and options that do not fit."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        if wrong := _checks.misfit(values, _CHECKS):
            name, check = wrong
            raise ConfigurationError(
                f"{name}={safe_repr(values[name])}: expected {check.expected}."
            )
        if self.headers and self.http_client is not None:
            raise ConfigurationError(
                "headers= and http_client= exclude each other: give the client its headers."
            )

    @property
    def key(self) -> list[Any]:
        """What tells servers apart: the same one, started in the same way, has the same tools."""
        return [self.command, dict(self.env), self.cwd, self.url, dict(self.headers)]

    @property
    def secrets(self) -> Mapping[str, str]:
        """What the server was given and nobody needs to read, by name."""
        return {**self.env, **self.headers}


def host_of(url: object) -> str:
    """Return the host of a URL.

    Raises:
        ConfigurationError: It is no address of an MCP server.
    """
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"{safe_repr(url)} is not the URL of an MCP server: write it like "
            "http://localhost:8000/mcp. To start a program, use stdio(command, …)."
        )
    return parts.hostname
