"""What all tests share: a server that really runs, and clients of the service with and without one."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from tests.support.service import Service

ROOT = Path(__file__).parents[1]
LOG = pytest.StashKey[Path]()


@contextmanager
def serving(log: Path, **settings: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`python -m app` in a process of its own: its address, and the process, which ends with the block."""
    with Service(log.parent, **settings) as service:
        yield service.address, service.popen


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server with default settings. Its log is shown with every test that fails on it."""
    log = request.config.stash[LOG] = tmp_path_factory.mktemp("server") / "log"
    with serving(log) as (address, _):
        yield address


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.failed and "server" in getattr(item, "fixturenames", ()) and LOG in item.config.stash:
        report.sections.append(("the server's log", item.config.stash[LOG].read_text()[-4000:]))
    return report


@pytest.fixture(scope="session")
def client(server: str) -> Iterator[httpx.Client]:
    """A client of the running server."""
    with httpx.Client(base_url=server, timeout=60) as it:
        yield it


class InProcess(httpx.BaseTransport):
    """The application without a server, for a plain client: httpx.ASGITransport in an event loop of its own."""

    def __init__(self, app: Any) -> None:
        self._asgi = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._runner = asyncio.Runner()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._runner.run(self._answer(request))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        if not isinstance(request.stream, httpx.AsyncByteStream):
            request.stream = _Chunks(request.stream)
        response = await self._asgi.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        raw = b"".join([part async for part in response.stream])
        return httpx.Response(response.status_code, headers=response.headers, content=raw)

    def close(self) -> None:
        self._runner.close()


class _Chunks(httpx.AsyncByteStream):
    """A body in chunks, as an asynchronous one."""

    def __init__(self, chunks: Any) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


AppClient = Callable[..., httpx.Client]


@pytest.fixture
def app_client() -> Iterator[AppClient]:
    """Makes clients of the application in this process: `app_client(body_bytes=100)` is one under that setting."""
    clients: list[httpx.Client] = []

    def make(**settings: Any) -> httpx.Client:
        app = create_app(Settings(**{"store": "memory"} | settings))
        clients.append(httpx.Client(transport=InProcess(app), base_url="http://in-process"))
        return clients[-1]

    yield make
    for each in clients:
        each.close()
