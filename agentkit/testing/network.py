"""Keeps a test from the network while its runs are answered from a recording.

New connections are refused, and names are not looked up, in every thread: also on
loopback, where a model or a database may listen as well. Unix sockets stay open, and so
do the socket pairs by which event loops wake themselves. Sockets that do not come from
Python's `socket`, such as uvloop's, are not seen.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NoReturn
from unittest import mock

__all__ = ["NetworkBlocked", "network_blocked"]


class NetworkBlocked(RuntimeError):
    """A test that replays a recording asked for the network.

    It is no OSError: those are caught and tried again, and a test would hang in that.
    """


@contextmanager
def network_blocked(why: str) -> Generator[list[NetworkBlocked], None, None]:
    """Refuse connections inside the block.

    Args:
        why: Who blocks the network, and what to do, for the message.

    Yields:
        What was refused so far: an application may catch it.
    """
    refused: list[NetworkBlocked] = []
    allowed = threading.local()
    make_pair, look_up = socket.socketpair, socket.getaddrinfo

    def refuse(address: Any) -> NoReturn:
        host, port = address[0], address[1]
        name = host.decode(errors="replace") if isinstance(host, bytes) else host
        refused.append(NetworkBlocked(f"No connection to {f'{name}:{port}'!r}: {why}"))
        raise refused[-1]

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        def connect(self: socket.socket, *arguments: Any) -> Any:
            local = self.family == getattr(socket, "AF_UNIX", None)
            if not local and not getattr(allowed, "pair", False):
                refuse(arguments[-1])
            return method(self, *arguments)

        return connect

    def pair(*arguments: Any, **options: Any) -> Any:
        # Where there are no Unix sockets a pair is a connection on loopback.
        allowed.pair = True
        try:
            return make_pair(*arguments, **options)
        finally:
            allowed.pair = False

    def resolve(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        flags = options.get("flags", rest[3] if len(rest) > 3 else 0)
        numeric = socket.AI_PASSIVE | socket.AI_NUMERICHOST  # to listen, or nothing to look up
        if host is not None and not flags & numeric:
            refuse((host, port))
        return look_up(host, port, *rest, **options)

    with (
        mock.patch.multiple(
            socket.socket,
            connect=guarded(socket.socket.connect),
            connect_ex=guarded(socket.socket.connect_ex),
            sendto=guarded(socket.socket.sendto),
        ),
        mock.patch.multiple(socket, socketpair=pair, getaddrinfo=resolve),
    ):
        yield refused
