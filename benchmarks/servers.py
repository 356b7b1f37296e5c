"""Live servers in processes of their own, and a client that costs next to nothing beside them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_SECONDS = 30


@contextmanager
def serving(*modules: str) -> Iterator[list[int]]:
    """The ports at which `python -m` each of `modules` listens, for as long as the context lasts."""
    ports = [_free_port() for _ in modules]
    processes = [_started(module, port) for module, port in zip(modules, ports, strict=True)]
    try:
        for process, port in zip(processes, ports, strict=True):
            _await_start(process, port)
        yield ports
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            _await_end(process)


def _started(module: str, port: int) -> subprocess.Popen[bytes]:
    ours = {
        "GRADWIRE_HOST": "127.0.0.1",
        "GRADWIRE_PORT": str(port),
        "GRADWIRE_LOG_LEVEL": "warning",
        "GRADWIRE_STORE": "memory",
    }
    return subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, env={**os.environ, **ours})


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _await_start(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{process.args} did not start; it ended with {process.returncode}")


def _await_end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Connection:
    """One kept connection. It reads answers that have a Content-Length, which all of ours do."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    @staticmethod
    def post(path: str, body: bytes) -> bytes:
        """The bytes of a request, made once and sent many times."""
        head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        return head.encode() + b"\r\n\r\n" + body

    def ask(self, request: bytes) -> bytes:
        """The body of the answer. Raises RuntimeError where its status is not 200."""
        self._socket.sendall(request)
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._receive()
        head, body = bytes(received[:end]).lower(), received[end + 4 :]
        size = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        while len(body) < size:
            body += self._receive()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(f"{head[:40].decode()}: {body[:300].decode()}")
        return bytes(body)

    def _receive(self) -> bytes:
        received = self._socket.recv(1 << 20)
        if not received:
            raise RuntimeError("the server closed the connection")
        return received
