"""What the head of a request must be by RFC 9112, and need not be for the parser: a proxy before the service could
otherwise take for one request what are two here, or believe another address."""

from __future__ import annotations

import re

from starlette.types import Scope

from app.problems import Problem

VERSIONS = frozenset({"1.0", "1.1", "2", "3"})
"""As ASGI has them; the last two are of other servers than ours."""
HOST = re.compile(rb"([A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
CLOSE = {"Connection": "close"}


def fault_of(scope: Scope, names: frozenset[str]) -> Problem | None:
    """What is wrong with the head of a request, if anything is. `names` are those of the service, where it has some."""
    hosts, codings = [], []
    for name, value in scope["headers"]:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
    version = scope.get("http_version", "1.1")
    if version not in VERSIONS:
        return _fault(f"the request is of HTTP/{version}; expected HTTP/1.1")
    if codings and (len(codings) > 1 or codings[0].strip().lower() != b"chunked"):
        return _fault("the body has another Transfer-Encoding than chunked, the only one that is read here")
    if len(hosts) != 1 and (hosts or version != "1.0"):
        return _fault(f"the request has {len(hosts)} headers Host; expected one (RFC 9112, section 3.2)")
    return _fault_of_host(hosts[0], names) if hosts else None


def _fault_of_host(host: bytes, names: frozenset[str]) -> Problem | None:
    found = HOST.fullmatch(host)
    if found is None:
        return _fault("the header Host is no name or address with a port")
    if names and found[1].decode().lower() not in names:
        return _fault("the header Host names another service; GRADWIRE_HOSTS has the names of this one")
    return None


def _fault(detail: str) -> Problem:
    return Problem("invalid_request", detail, status=400, headers=CLOSE)
