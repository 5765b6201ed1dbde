"""What is blocked while a test is answered from recordings, and what is not."""

from __future__ import annotations

import socket
from pathlib import Path

import anyio
import pytest

from agentkit.testing.network import NetworkBlocked, network_blocked

pytestmark = pytest.mark.anyio


async def test_new_connections_are_refused() -> None:
    """On both backends, by number and by name, and the address is named."""
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


async def test_what_stays_in_the_machine_goes_on(tmp_path: Path) -> None:
    """Unix sockets, threads, new event loops, and listening."""
    with network_blocked("not now") as refused:
        listener = await anyio.create_unix_listener(tmp_path / "s")
        async with listener, await anyio.connect_unix(tmp_path / "s"):
            pass
        await anyio.to_thread.run_sync(anyio.run, anyio.sleep, 0)
        async with await anyio.create_tcp_listener(local_host="127.0.0.1"):
            pass
    assert refused == []


async def test_pairs_are_made_over_loopback_where_they_have_to_be(
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


async def test_everything_is_open_again_afterwards() -> None:
    """Nothing of the block stays in `socket`."""
    before = {name: getattr(socket, name) for name in ("getaddrinfo", "socketpair")}
    with network_blocked("not now"):
        assert socket.getaddrinfo is not before["getaddrinfo"]
    assert {name: getattr(socket, name) for name in before} == before
    assert "connect" not in vars(socket.socket)
