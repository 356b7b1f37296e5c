"""Whether the service may listen where it is told to: others than this machine's own programs need a key."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from app.settings import Settings


def refusal(settings: Settings) -> str | None:
    """Why the service should not listen at its address, or None where it may."""
    if settings.keyed or settings.open or _is_loopback(settings.host):
        return None
    return (
        f"{settings.host or 'every address'} can be reached from other machines, and no keys are set: anybody there "
        "could have this one compute. Set GRADWIRE_KEYS_FILE (`python -m app keys new NAME` makes a key), listen on "
        "GRADWIRE_HOST=127.0.0.1, or, where something else keeps strangers out, set GRADWIRE_OPEN=true."
    )


def _is_loopback(host: str) -> bool:
    """Whether every address that this name stands for is of this machine alone."""
    try:
        # Passive, because an empty name then means what it means to a server: every address there is.
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return False
    return all(ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
