"""The service as a process of its own, as somebody who runs it sees it: started, measured, signalled, killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
STARTUP_SECONDS = 60
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])


def until(is_so: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until something is so. Raises RuntimeError, with `what`, where it is not within `seconds`."""
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise RuntimeError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


def _variable(name: str) -> str:
    """The environment variable of a setting; other variables go by their own names, in capitals."""
    return name if name.isupper() else f"GRADWIRE_{name.upper()}"


class Service:
    """`python -m app` under settings by their names: `Service(path, workers=2)`. A context: it stops at the end.

    Its files are below `place`. Started again, it has the same port, settings and files.
    """

    def __init__(self, place: Path, **settings: object) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.log_path = place / "log"
        own = {"host": "127.0.0.1", "port": self.port, "store_path": place / "graphs.sqlite3"}
        self.environment = {_variable(name): str(each) for some in (own, settings) for name, each in some.items()}
        self.popen = self.launch()

    def __enter__(self) -> Service:
        self.await_start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process, and do not wait until it serves."""
        with self.log_path.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "app"],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)} | self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.popen

    def await_start(self) -> None:
        """Wait until the service answers."""
        try:
            until(lambda: self.popen.poll() is not None or self.answers(), STARTUP_SECONDS, "it answers")
        except RuntimeError:
            self.kill()
        if self.popen.poll() is not None:
            raise RuntimeError(f"the service did not start:\n{self.log}")

    def restart(self) -> None:
        """Start it once more, after its end."""
        self.launch()
        self.await_start()

    def answers(self, path: str = "/healthz") -> bool:
        """Whether a GET of the path gives a 200."""
        try:
            return httpx.get(self.address + path, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def children(self) -> list[int]:
        """Processes below the service, at any depth; the oldest first."""
        return sorted(_below(self.pid))

    def servers(self) -> list[int]:
        """Those of several processes that listen."""
        return [each for each in self.children() if b"spawn_main" in _command(each)]

    def rss(self) -> int:
        """Bytes of memory of the service and all below it. What they share counts for each."""
        return sum(_rss(each) for each in (self.pid, *self.children()))

    def cpu(self) -> float:
        """Seconds of processor time that the service and all below it have used."""
        return sum(_cpu(each) for each in (self.pid, *self.children()))

    def await_work(self, seconds: float = 0.2) -> None:
        """Wait until so much processor time more was used: until a request is being computed."""
        begun = self.cpu()
        until(lambda: self.cpu() >= begun + seconds, 30, "the service computes")

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def stop(self, seconds: float = 60) -> int:
        """End it with SIGTERM; the exit code."""
        if self.popen.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """End it with SIGKILL, and all below it."""
        below = self.children()
        self.popen.kill()
        self.popen.wait()
        for each in below:
            kill(each)


def kill(pid: int) -> None:
    """SIGKILL to a process that may have ended already."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _below(pid: int) -> set[int]:
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            direct = {int(each) for each in path.read_text().split()}
        except OSError:  # the thread has ended meanwhile
            continue
        found |= direct.union(*map(_below, direct))
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _rss(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except OSError:
        return 0


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS
