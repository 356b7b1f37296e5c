"""Who a request is counted against: the holder of a key, or an address.

What shares the machine out among clients reads `scope["gradwire.client"]`, which app.http.guard sets.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

from app.settings import Settings

CLIENT = "gradwire.client"
"""Where the scope of a request has its Client."""
REMEMBERED = 4096
"""Addresses whose client is remembered."""
IPV6_BITS = 64
"""What one IPv6 client has to itself, at the least: each address of it counts as the same client."""


class ClientLimits(NamedTuple):
    """What one client may ask for; the fields are the options of a line of the keys file, too."""

    at_once: int
    cost_per_second: float


class Client(NamedTuple):
    """A client: the name of its key, or its address."""

    name: str
    limits: ClientLimits


def default_limits(settings: Settings) -> ClientLimits:
    """The limits of whoever has none of their own."""
    return ClientLimits(settings.client_at_once, settings.client_cost_per_second)


class Addresses:
    """Clients by the address that they come from."""

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self.of = lru_cache(REMEMBERED)(self._client)

    def _client(self, host: str | None) -> Client:
        """The client at this address; None where there is none, as behind a socket of this machine."""
        return Client(_name(host), self._limits)


def _name(host: str | None) -> str:
    """A short name, whatever a proxy wrote into its header."""
    if host is None:
        return "local"
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
