"""Nothing that a client writes becomes a path or an address: no file is opened and nothing is connected to for it.

CPython tells an audit hook of every file that is opened and every connection that is made; here it looks for what the
requests below have in them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.app.support import post, problem
from tests.conftest import AppClient

WATCHED = (
    "open",
    "os.",
    "socket.",
    "subprocess.",
    "urllib.",
    "shutil.",
    "glob.",
    "pathlib.",
    "exec",
    "import",
    "sqlite3.",
)
events: list[str] = []
watching = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if watching and event.startswith(WATCHED):
        events.append(f"{event} {arguments!r}")


sys.addaudithook(_hook)  # which stays for as long as the process does, and is off but for the tests below


@contextmanager
def watched() -> Iterator[list[str]]:
    """What the process did in the meantime that reached out of it."""
    global watching  # noqa: PLW0603
    events.clear()
    watching = True
    try:
        yield events
    finally:
        watching = False


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that is there to be read, and that nobody reads."""
    path = tmp_path / "canary"
    path.write_text("[1.0, 2.0]")
    return path


def tries(name: str) -> Iterator[tuple[str, Any]]:
    """Requests that name a file or an address, wherever a request has room for text."""
    for tensor in (
        name, {"data": name}, {"file": name}, {"url": name}, {"path": name, "dtype": "float64", "shape": [2]},
        {"b64": name, "dtype": "float64", "shape": [2]}, {"data": {"$ref": name}}, {"$ref": name},
        {"data": [1, 2], "dtype": name}, {"uri": name, "external": True}, [name], {"data": [name, "NaN"]},
    ):  # fmt: skip
        yield "/grad/value", {"expression": "x", "inputs": {"x": tensor}}
        yield "/grad/value", {"graph": {"nodes": [{"id": "y", "op": "sin", "inputs": [tensor]}]}}
    for node in (
        {"op": name}, {"op": "sin", "inputs": [name]}, {"op": "sin", "attrs": {"file": name}},
        {"id": name, "op": "sin"},
        {"op": "load", "inputs": [name]}, {"op": "fromfile", "attrs": {"file": name}}, {"op": "sin", "attrs": name},
    ):  # fmt: skip
        yield "/grad/value", {"graph": {"nodes": [{"id": "y", **node}]}}
    for text in (name, f'load("{name}")', f"open({name})", f"import {name}", f'sin("{name}")', f"__import__('{name}')"):
        yield "/grad/value", {"expression": text}
    yield "/grad/value", {"graph": {"$ref": name}}
    yield "/grad/value", {"graph": name}
    yield "/grad/value", {"graph_id": name[-64:]}
    yield "/grad/value", {"expression": "x", "inputs": {name: 1}}
    yield "/graphs", {"expression": "x", "name": name[-64:]}
    yield "/graphs", {"expression": "x", "name": "../../canary"}
    yield "/graphs", {"expression": "x", "name": "..%2fcanary"}


@pytest.mark.parametrize(
    "form", ["{path}", "file://{path}", "../../../../../../../../..{path}", "http://127.0.0.1:9{path}"]
)
def test_no_text_of_a_body_is_a_file_or_an_address(app_client: AppClient, secret: Path, form: str) -> None:
    name = form.format(path=secret)
    client = app_client()
    post(client, "/grad/value", {"expression": "x"})  # what is opened once, is by now
    with watched() as done:
        for path, body in tries(name):
            assert problem(post(client, path, body))["status"] in (404, 422), body
    assert not [each for each in done if "canary" in each or "socket.connect" in each]


@pytest.mark.parametrize("tail", ["", "/graph.svg", "/graph.dot", "/graph.mmd"])
@pytest.mark.parametrize(
    "id", ["..%2f..%2fcanary", "%2e%2e", "%2fetc%2fpasswd", "canary%00", "..\\canary", "C:canary", "~root"]
)
def test_no_id_is_a_path(app_client: AppClient, secret: Path, id: str, tail: str) -> None:
    client = app_client(store="sqlite", store_path=secret.parent / "graphs.sqlite3")
    client.get("/graphs/none")
    with watched() as done:
        for method in ("GET", "DELETE"):
            response = client.request(method, f"/graphs/{id}{tail}")
            assert response.status_code in (404, 405)
    assert not [each for each in done if "canary" in each or "passwd" in each or "socket.connect" in each]
    assert secret.exists()


def test_no_header_is_either(app_client: AppClient, secret: Path) -> None:
    client = app_client()
    client.get("/healthz")
    with watched() as done:
        for name in ("Content-Type", "Accept", "Content-Encoding", "Authorization", "If-None-Match", "X-Forwarded-For",
                     "X-Request-ID", "traceparent", "Host", "Origin", "Referer", "X-Original-URL"):  # fmt: skip
            client.post("/grad/value", content=b'{"expression": "1"}', headers={name: f"file://{secret}"})
    assert not [each for each in done if "canary" in each or "socket.connect" in each]


def test_the_hook_sees_what_it_is_to_see(secret: Path) -> None:
    with watched() as done:
        secret.read_text()
    assert [each for each in done if each.startswith("open") and "canary" in each]
    with watched() as done, pytest.raises(httpx.ConnectError):
        httpx.get("http://127.0.0.1:9/")
    assert [each for each in done if each.startswith("socket.connect")]
