"""A guard for requests to untrusted URLs, which must not reach our own network.

The host is looked up here, and the request goes to exactly the addresses that were checked.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv6Network, ip_address

PUBLIC_PORTS = {80, 443}

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the IP addresses of a host; raises OSError."""

_PUBLIC_IPV6 = IPv6Network("2000::/3")

_resolvers = ThreadPoolExecutor(32, thread_name_prefix="look-ups")
"""Separate from the event loop's own threads, so that a name server that does not respond cannot block
look-ups of the providers."""


async def look_up(host: str, port: int) -> Sequence[str]:
    resolve = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_resolvers, resolve)
    return [str(address[0]) for *_, address in found]


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public internet.

    IPv6 addresses that represent an IPv4 address (mapped, NAT64, 6to4, Teredo) do not, because they could be
    used to circumvent the check.
    """
    ip = ip_address(address)
    if not ip.is_global or ip.is_multicast or ip.is_reserved:
        return False
    return isinstance(ip, IPv4Address) or (ip in _PUBLIC_IPV6 and not (ip.sixtofour or ip.teredo))
