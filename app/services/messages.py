"""What the service and its worker processes say to each other: MessagePack over a pair of sockets.

What is long goes through memory that both have mapped (a file without a name), and only its descriptor over the
sockets: copying a hundred megabytes through them would take longer than parsing them.
"""

from __future__ import annotations

import os
import tempfile
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import msgspec

from app.seen import Ops

SHORT = 1 << 17
"""Bytes up to which a body goes over the sockets."""


class Job(msgspec.Struct, array_like=True, frozen=True):
    """A task for a worker, which has so many seconds from its `start` on; its body follows."""

    model: str
    form: str
    answer: str
    seconds: float
    start: float


class Wanted(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """The worker needs the source of a registered graph."""

    id: str


class Lowered(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """The request asks for less time than it might have: should the worker be ended by its alarm, this was it."""

    seconds: float


class Found(msgspec.Struct, array_like=True, frozen=True):
    """The source of a registered graph, which follows; or the problem of having none."""

    problem: dict[str, Any] | None = None


class Reply(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """The end of a job: its answer, which follows, or a problem, or what nobody foresaw; and what its clock says."""

    problem: dict[str, Any] | None
    stages: dict[str, float]
    notes: dict[str, str]
    begun: dict[str, float]
    ops: Ops
    crash: str | None = None


def send(connection: Connection, message: msgspec.Struct, body: bytes | None = None) -> None:
    """Send a message, and what follows it. Raises OSError where nobody is there any more."""
    connection.send_bytes(msgspec.msgpack.encode((message, None if body is None else len(body))))
    if body is None:
        return
    if len(body) <= SHORT:
        connection.send_bytes(body)
        return
    descriptor = _memory()
    try:
        _write(descriptor, body)
        send_handle(connection, descriptor, os.getpid())
    finally:
        os.close(descriptor)


def receive(connection: Connection, kind: Any) -> tuple[Any, bytes | None]:
    """The next message, of one of the kinds that there may be, and what follows it.

    Raises EOFError or OSError where nobody is there any more.
    """
    message, size = msgspec.msgpack.decode(connection.recv_bytes(), type=tuple[kind, int | None])
    if size is None or size <= SHORT:
        return message, None if size is None else connection.recv_bytes()
    descriptor = recv_handle(connection)
    with open(descriptor, "rb", buffering=0) as file:
        return message, _read(file.fileno(), size)


def _memory() -> int:
    """A file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("gradwire")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write(descriptor: int, body: bytes) -> None:
    rest = memoryview(body)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _read(descriptor: int, size: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    parts = []
    while size:
        parts.append(os.read(descriptor, size))
        size -= len(parts[-1])
    return parts[0] if len(parts) == 1 else b"".join(parts)
