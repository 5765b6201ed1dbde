"""Connections to public addresses only, checked on the address that is really used.

A name is resolved here, all its addresses are checked, and the connection is opened to one of
those addresses and never to the name: what a resolver answers a second later is not asked for.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import TypeAlias, cast

import anyio
import httpcore2

from agentkit import ToolError
from agentkit.errors import ConfigurationError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

CONNECT_SECONDS = 5.0
"""What one of a name's addresses may take before the next is tried."""

# The registries of special addresses that IANA keeps, and what clouds add to them. Listed here
# because `is_private` and `is_global` of Python differ from one patch release to the next.
_RESERVED_4 = [
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 "
        "192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 "
        "203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 "
        "168.63.129.16/32"  # a cloud's own service, on a public address
    ).split()
]
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
_RESERVED_6 = [
    ipaddress.IPv6Network(text)
    # Protocols (Teredo among them), documentation, 6to4, documentation.
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = {0x0000_5EFE, 0x0200_5EFE}


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the public internet, whatever form it is written in."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _RESERVED_4)
    if (inner := _embedded(address)) is not None:
        return is_public(inner)
    return (
        address in _GLOBAL_6
        and not any(address in network for network in _RESERVED_6)
        and int(address) >> 32 & 0xFFFF_FFFF not in _ISATAP
    )


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to, as a system treats it."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped


def networks(allow_private: Iterable[str]) -> tuple[Network, ...]:
    """Read the networks that may be reached although they are not public.

    Raises:
        ConfigurationError: One of them is no address and no network.
    """
    if isinstance(allow_private, str):
        raise ConfigurationError(f"allow_private={allow_private!r} has to be a list of texts.")
    read: list[Network] = []
    for text in allow_private:
        try:
            read.append(ipaddress.ip_network(text))
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                f"{text!r} in allow_private= is neither an address nor a network: {error}. "
                "Write '127.0.0.1' or '10.0.0.0/8'; names belong in allow=."
            ) from error
    return tuple(read)


class PublicNetwork(httpcore2.AsyncNetworkBackend):
    """Opens connections to public addresses, and to those of `private`."""

    def __init__(self, private: Sequence[Network]) -> None:
        self._private = private
        # anyio runs on trio, too.
        self._backend = cast("httpcore2.AsyncNetworkBackend", httpcore2.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature of the base
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of `host` that answers.

        Raises:
            ToolError: The name has no address, or one that must not be reached.
            httpcore2.ConnectError: None of them answers.
        """
        addresses = await _resolve(host, port)
        if not all(map(self._may_reach, addresses)):
            raise ToolError(
                f"{host!r} leads to an address that is not of the public internet. "
                "This tool does not reach private, local or reserved addresses."
            )
        failure: Exception = httpcore2.ConnectError("no address")
        for address in addresses:
            try:
                stream = await self._backend.connect_tcp(
                    str(address), port, CONNECT_SECONDS, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
                continue
            if _peer(stream) != address:
                await stream.aclose()
                failure = httpcore2.ConnectError("closed at once, or led elsewhere")
                continue
            return stream
        raise failure

    def _may_reach(self, address: Address) -> bool:
        inner = _embedded(address) or address
        return is_public(address) or any(inner in network for network in self._private)


def _peer(stream: httpcore2.AsyncNetworkStream) -> Address | None:
    """Return the address at the other end, or None if it has closed already."""
    try:
        peer = stream.get_extra_info("server_addr")
    except OSError:
        return None
    return ipaddress.ip_address(peer[0]) if peer else None


async def _resolve(host: str, port: int) -> list[Address]:
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))
    except (OSError, UnicodeError, ValueError) as error:
        raise ToolError(f"There is no host {host!r}.") from error
