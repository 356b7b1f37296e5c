"""`python -m benchmarks.crowd PORT CONNECTIONS SIZE`: a client of many connections that does as little as it can.

It reads a request of SIZE bytes from its input, then numbers, one a line. For each it has the request answered so many
times, with one request at a time on every connection, and writes the number back. One thread and a selector: a request
takes a call of send, one of recv, and a search for the end of the answer's head.
"""

from __future__ import annotations

import selectors
import socket
import sys

MOST = 1 << 16


def main(port: int, connections: int, size: int) -> None:
    request = sys.stdin.buffer.read(size)
    with selectors.DefaultSelector() as selector:
        for _ in range(connections):
            opened = socket.create_connection(("127.0.0.1", port), 60)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(opened, selectors.EVENT_READ, bytearray())
        for line in sys.stdin.buffer:
            rush(selector, request, int(line))
            sys.stdout.write(line.decode())
            sys.stdout.flush()


def rush(selector: selectors.BaseSelector, request: bytes, count: int) -> None:
    """Have the request answered `count` times over the selector's connections."""
    idle = [key.fileobj for key in selector.get_map().values()][:count]
    for connection in idle:
        connection.sendall(request)
    unsent, pending = count - len(idle), count
    while pending:
        for key, _ in selector.select():
            if not is_whole(key.data, key.fileobj.recv(MOST)):
                continue
            key.data.clear()
            pending -= 1
            if unsent:
                unsent -= 1
                key.fileobj.sendall(request)


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
