"""Who a request is counted against, where it has no key: the address that it comes from.

`scope[CLIENT]` has the Client of every request; app.http.guard puts it there.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from app.services.tasks import Client

CLIENT = "gradwire.client"
REMEMBERED = 4096
"""Addresses whose client is remembered."""
IPV6_BITS = 64
"""What one IPv6 client has to itself, at the least: each address of it counts as the same client."""


@lru_cache(REMEMBERED)
def client_at(host: str | None) -> Client:
    """The client at this address; None where there is none, as behind a socket of this machine."""
    return Client("local" if host is None else _name(host))


def _name(host: str) -> str:
    """A short name, whatever a proxy wrote into its header."""
    try:
        return _network(ip_address(host))
    except ValueError:
        return "unknown"


def _network(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.is_loopback:
        return str(address)
    return str(ip_network((int(address), IPV6_BITS), strict=False))
