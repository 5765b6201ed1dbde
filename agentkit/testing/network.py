"""Block the network for a test whose runs are answered from a recording.

In every thread, new connections are refused and names are not resolved, on loopback
too, where a model or a database may listen. Unix sockets stay open, and so do the
socket pairs that event loops wake themselves with. Sockets that do not come from
Python's `socket`, such as uvloop's, are not blocked.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NoReturn
from unittest import mock


class NetworkBlocked(RuntimeError):
    """The network was used by a test that replays a recording.

    Not an OSError: code that retries those would make the test hang.
    """


@contextmanager
def network_blocked(why: str) -> Generator[list[NetworkBlocked], None, None]:
    """Refuse connections within the block.

    Args:
        why: Why the network is blocked, and what to do, for the message.

    Yields:
        The errors raised so far, as the application may catch them.
    """
    refused: list[NetworkBlocked] = []
    allowed = threading.local()
    make_pair, look_up = socket.socketpair, socket.getaddrinfo

    def refuse(address: Any) -> NoReturn:
        host, port = address[0], address[1]
        name = host.decode(errors="replace") if isinstance(host, bytes) else host
        refused.append(NetworkBlocked(f"No connection to {f'{name}:{port}'!r}: {why}"))
        raise refused[-1]

    def blocked(method: Callable[..., Any]) -> Callable[..., Any]:
        def connect(self: socket.socket, *arguments: Any) -> Any:
            local = self.family == getattr(socket, "AF_UNIX", None)
            if not local and not getattr(allowed, "pair", False):
                refuse(arguments[-1])
            return method(self, *arguments)

        return connect

    def open_pair(*arguments: Any, **options: Any) -> Any:
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
            connect=blocked(socket.socket.connect),
            connect_ex=blocked(socket.socket.connect_ex),
            sendto=blocked(socket.socket.sendto),
        ),
        mock.patch.multiple(socket, socketpair=open_pair, getaddrinfo=resolve),
    ):
        yield refused
