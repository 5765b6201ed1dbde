"""The network block of tests that replay recordings."""

from __future__ import annotations

import socket
from pathlib import Path

import anyio
import pytest

from agentkit.testing.network import NetworkBlocked, network_blocked

pytestmark = pytest.mark.anyio


async def test_new_connections_are_refused() -> None:
    """Connections by number and by name are refused, and the error names the address."""
    with network_blocked("not now") as refused:
        with pytest.raises(NetworkBlocked, match=r"No connection to 'example.com:80': not now"):
            await anyio.connect_tcp("example.com", 80)
        with pytest.raises(Exception):  # noqa: B017, PT011  # a group, of the one below
            await anyio.connect_tcp("127.0.0.1", 9)
        with (
            socket.socket(type=socket.SOCK_DGRAM) as udp,
            pytest.raises(NetworkBlocked, match=r"'127.0.0.1:53'"),
        ):
            udp.sendto(b"x", ("127.0.0.1", 53))
    assert "No connection to '127.0.0.1:9': not now" in [str(one) for one in refused]


async def test_local_communication_continues(tmp_path: Path) -> None:
    """Unix sockets, threads, new event loops and listening still work."""
    with network_blocked("not now") as refused:
        listener = await anyio.create_unix_listener(tmp_path / "s")
        async with listener, await anyio.connect_unix(tmp_path / "s"):
            pass
        await anyio.to_thread.run_sync(anyio.run, anyio.sleep, 0)
        async with await anyio.create_tcp_listener(local_host="127.0.0.1"):
            pass
    assert refused == []


async def test_socket_pairs_use_loopback_where_they_must(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on Windows, whose event loops wake themselves so."""

    def pair() -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            one = socket.socket()
            one.connect(server.getsockname())
            return one, server.accept()[0]

    monkeypatch.setattr(socket, "socketpair", pair)
    with network_blocked("not now"):
        for end in socket.socketpair():
            end.close()


async def test_the_network_is_open_again_afterwards() -> None:
    """The block leaves no patch in `socket`."""
    before = {name: getattr(socket, name) for name in ("getaddrinfo", "socketpair")}
    with network_blocked("not now"):
        assert socket.getaddrinfo is not before["getaddrinfo"]
    assert {name: getattr(socket, name) for name in before} == before
    assert "connect" not in vars(socket.socket)
