"""A web server on loopback whose answers are written by the test, byte by byte."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

Answer = bytes | Callable[[socket.socket], None]


def page(
    body: bytes | str = b"", *headers: str, kind: str = "text/html", status: str = "200 OK"
) -> bytes:
    """Return a whole response."""
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    lines += [f"Content-Type: {kind}"] if kind else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def redirect(to: str, status: str = "302 Found") -> bytes:
    """Return a redirect."""
    return page(b"", f"Location: {to}", status=status)


class Site:
    """Serves `pages` by their path; the `requests` are its request heads."""

    def __init__(self, address: str, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.create_server((address, port), family=family)
        self.port: int = self.socket.getsockname()[1]
        self.origin = f"{'https' if tls else 'http'}://{address}:{self.port}"
        self.pages: dict[str, Answer] = {}
        self.requests: list[str] = []
        self._tls = tls

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(plain)
            connection = plain
            if self._tls:
                connection = stack.enter_context(self._tls.wrap_socket(plain, server_side=True))
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := connection.recv(65536)):
                    return
                head += data
            self.requests.append(head.decode())
            path = head.split()[1].decode().partition("?")[0]
            answer = self.pages.get(path, page(status="404 Not Found"))
            if callable(answer):
                answer(connection)
            else:
                connection.sendall(answer)


@contextlib.contextmanager
def serving(address: str = "127.0.0.1", **options: Any) -> Iterator[Site]:
    """Start a site, and stop it."""
    site = Site(address, **options)
    threading.Thread(target=site.serve, daemon=True).start()
    try:
        yield site
    finally:
        site.socket.close()


@contextlib.contextmanager
def serving_both(first: str, second: str) -> Iterator[tuple[Site, Site]]:
    """Start sites at two addresses with one port, which another program may have at one."""
    for attempt in range(50):
        with contextlib.ExitStack() as stack:
            one = stack.enter_context(serving(first))
            try:
                other = stack.enter_context(serving(second, port=one.port))
            except OSError:
                if attempt == 49:
                    raise
                continue
            yield one, other
            return
