"""Live servers in processes of their own, and clients that cost next to nothing beside them."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from benchmarks.bare import JSON

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
START_SECONDS = 120
PATIENCE_SECONDS = 300
SERVICE_SETTINGS = {
    "GRADWIRE_HOST": "127.0.0.1",
    "GRADWIRE_LOG_LEVEL": "warning",
    "GRADWIRE_STORE": "memory",
    "GRADWIRE_WORKERS": "1",
}


class Ports(NamedTuple):
    """Where the service listens, and where the bare routes do."""

    service: int
    bare: int


@cache
def running() -> Ports:
    """One pair of servers for all rows; they end with this process."""
    stack = ExitStack()
    atexit.register(stack.close)
    return Ports(*stack.enter_context(serving("app", "benchmarks.bare")))


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
    environment = {**os.environ, **SERVICE_SETTINGS, "GRADWIRE_PORT": str(port)}
    return subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, env=environment)


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
    raise RuntimeError(f"{process.args!r} did not start; it ended with {process.returncode}")


def _await_end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def get(path: str) -> bytes:
    """The bytes of a request without a body."""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()


def post(path: str, body: bytes, media_type: str = JSON) -> bytes:
    """The bytes of a request, made once and sent many times; the answer is to be of the same type."""
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: bench",
        f"Accept: {media_type}",
        f"Content-Type: {media_type}",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection:
    """One kept connection. It reads answers that have a Content-Length, which all of ours do."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def asking(self, request: bytes) -> Callable[[], bytearray]:
        """What asks this request, each time it is called."""
        return lambda: self.ask(request)

    def ask(self, request: bytes) -> bytearray:
        """The body of the answer. Raises RuntimeError where its status is not of the kind 2xx."""
        self._socket.sendall(request)
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += _present(self._socket.recv(1 << 16))
        head, begun = bytes(received[:end]).lower(), received[end + 4 :]
        body = self._whole(begun, int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
        if not head.startswith(b"http/1.1 2"):
            raise RuntimeError(f"{head[:40].decode()}: {body[:300].decode()}")
        return body

    def _whole(self, begun: bytearray, size: int) -> bytearray:
        """A body of which something is there already; what is large goes to its place without a detour."""
        if len(begun) == size:
            return begun
        body, at = bytearray(size), len(begun)
        body[:at] = begun
        view = memoryview(body)
        while at < size:
            at += _present(self._socket.recv_into(view[at:]))
        return body


def _present(received: T) -> T:
    """What was received, if it is anything."""
    if not received:
        raise RuntimeError("the server closed the connection")
    return received


class Crowd:
    """Many connections that ask the same request at once, from a process of their own (benchmarks.crowd)."""

    def __init__(self, port: int, request: bytes, connections: int) -> None:
        command = [sys.executable, "-m", "benchmarks.crowd", str(port), str(connections), str(len(request))]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._write(request)

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        _await_end(self._process)

    def rush(self, count: int) -> None:
        """Have the request answered `count` times. Raises RuntimeError where one was not."""
        self._write(b"%d\n" % count)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"%d\n" % count:
            raise RuntimeError(f"{self._process.args!r} did not get its answers")

    def _write(self, sent: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(sent)
        self._process.stdin.flush()
