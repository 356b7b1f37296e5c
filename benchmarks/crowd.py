"""`python -m benchmarks.crowd PORT CONNECTIONS SIZE`: a client of many connections that does as little as it can.

It reads a request of SIZE bytes from its input, then numbers, one a line. For each it has the request answered so many
times, with one request at a time on every connection, and writes the number back. One thread and a selector: a request
takes a call of send, one of recv, and a search for the end of the answer's head.
"""

from __future__ import annotations

import selectors
import socket
import sys
from typing import NamedTuple

MOST = 1 << 16


class Asking(NamedTuple):
    """A connection, and what it has received of an answer."""

    connection: socket.socket
    received: bytearray


def main(port: int, connections: int, size: int) -> None:
    request = sys.stdin.buffer.read(size)
    with selectors.DefaultSelector() as selector:
        crowd = [Asking(socket.create_connection(("127.0.0.1", port), 60), bytearray()) for _ in range(connections)]
        for each in crowd:
            each.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(each.connection, selectors.EVENT_READ, each)
        for line in sys.stdin.buffer:
            rush(crowd, selector, request, int(line))
            sys.stdout.write(line.decode())
            sys.stdout.flush()


def rush(crowd: list[Asking], selector: selectors.BaseSelector, request: bytes, count: int) -> None:
    """Have the request answered `count` times."""
    first = crowd[:count]
    for each in first:
        each.connection.sendall(request)
    unsent, pending = count - len(first), count
    while pending:
        for key, _ in selector.select():
            connection, received = key.data
            if not is_whole(received, connection.recv(MOST)):
                continue
            received.clear()
            pending -= 1
            if unsent:
                unsent -= 1
                connection.sendall(request)


def is_whole(received: bytearray, part: bytes) -> bool:
    """Add a part to what was received; whether that is an answer now. Exits where it is none that was hoped for."""
    received += part
    if not part or not received.startswith(b"HTTP/1.1 2"):
        sys.exit(f"expected an answer of the kind 2xx, got {bytes(received[:300])!r}")
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return False
    at = received.find(b"content-length: ", 0, end) + 16
    return len(received) - end - 4 == int(received[at : received.find(b"\r", at)])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
