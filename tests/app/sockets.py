"""Requests over raw sockets, byte by byte as the test says, and what comes back."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import orjson

LATE = 5.0
"""Seconds within which what is due has come, on a busy machine."""
BODY = orjson.dumps({"expression": "x**2", "inputs": {"x": 3}})


def posted(body: bytes = BODY, *, path: bytes = b"/grad", length: int | None = None, more: bytes = b"") -> bytes:
    """A whole request, or one that declares another length than its body has."""
    length = len(body) if length is None else length
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s" % (path, length, more, body)


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LATE) as it:
        yield it


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def parsed(raw: bytes) -> httpx.Response:
    """A response as it came over the wire, which has a length."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert int(headers["content-length"]) == len(body)
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)


def one(connection: socket.socket) -> httpx.Response:
    """The next response on a connection that stays open."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += connection.recv(1 << 16)
    head, _, body = raw.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(1 << 16)
    return parsed(head + b"\r\n\r\n" + body)
