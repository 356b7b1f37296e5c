"""The lines for nginx in docs/nginx.md work: nginx is started with them, in front of the service."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.service import ROOT, free_port

pytestmark = pytest.mark.skipif(
    not (shutil.which("nginx") and shutil.which("openssl")), reason="nginx and openssl are not installed"
)
BODY = {"expression": "x**2", "inputs": {"x": 3}}
FRAME = """
daemon off;
{user}
pid {here}/pid;
error_log {here}/log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
    {lines}
}}
"""


@pytest.fixture(scope="module")
def proxy(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of nginx with the lines of the page; names, and figures that would take long, are exchanged."""
    here, port = tmp_path_factory.mktemp("nginx"), free_port()
    lines = (ROOT / "docs" / "nginx.md").read_text(encoding="utf-8").split("```nginx\n")[1].split("```")[0]
    for old, new in (
        ("server 127.0.0.1:8000;", f"server {server.removeprefix('http://')};"),
        ("listen 443 ssl http2;", f"listen 127.0.0.1:{port} ssl http2;"),
        ("/etc/ssl/gradwire", str(here)),
        ("client_header_timeout 10s", "client_header_timeout 1s"),
        ("client_body_timeout 10s", "client_body_timeout 1s"),
        ("client_max_body_size 256m", "client_max_body_size 1m"),
        ("limit_conn gradwire 32", "limit_conn gradwire 3"),
    ):
        assert old in lines
        lines = lines.replace(old, new)
    user = "user root;" if os.geteuid() == 0 else ""
    (here / "nginx.conf").write_text(FRAME.format(user=user, here=here, lines=lines))
    _certify(here)
    process = subprocess.Popen(["nginx", "-e", here / "log", "-p", here, "-c", here / "nginx.conf"])
    try:
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=False, timeout=30) as client:
            _wait_for(client, here)
            yield client
    finally:
        process.terminate()
        process.wait(30)


def _certify(here: Path) -> None:
    """A certificate that nobody else believes."""
    about = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=gradwire.example"]
    files = ["-keyout", here / "privkey.pem", "-out", here / "fullchain.pem"]
    subprocess.run(["openssl", "req", "-x509", *about, *files], check=True, capture_output=True)


def _wait_for(client: httpx.Client, here: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            assert client.get("/healthz").status_code == 200
            return
        except httpx.ConnectError:
            assert time.monotonic() < deadline, (here / "log").read_text()
            time.sleep(0.05)


def connected(client: httpx.Client) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=20))


def test_requests_and_answers_pass(proxy: httpx.Client) -> None:
    answer = proxy.post("/grad", json=BODY)
    assert answer.json()["gradients"]["x"]["data"] == 6
    assert "server-timing" in answer.headers


def test_problems_of_the_service_pass(proxy: httpx.Client) -> None:
    found = proxy.post("/grad", json={"expression": "x +"})
    assert (found.status_code, found.json()["code"]) == (422, "syntax_error")


@pytest.mark.parametrize(
    ("path", "content", "status", "code"),
    [
        ("/grad", b" " * (1 << 21), 413, "limit_exceeded"),
        ("/grad?" + "x" * 9000, b"", 414, "limit_exceeded"),
        ("/metrics", b"", 403, "invalid_request"),
    ],
)
def test_what_nginx_refuses_is_problem_details_too(
    proxy: httpx.Client, path: str, content: bytes, status: int, code: str
) -> None:
    response = proxy.post(path, content=content)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json().items() >= {"status": status, "code": code, "type": f"/errors#{code}"}.items()


@pytest.mark.parametrize(
    "part", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST /grad HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"]
)
def test_slow_clients_are_sent_away(proxy: httpx.Client, part: bytes) -> None:
    start = time.monotonic()
    with connected(proxy) as connection:
        connection.sendall(part)
        assert connection.recv(1 << 16) == b""
    assert 0.5 < time.monotonic() - start < 10


def test_one_address_has_so_many_requests_at_a_time(proxy: httpx.Client) -> None:
    slow = b"POST /grad HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
    waiting = [connected(proxy) for _ in range(3)]
    try:
        for each in waiting:
            each.sendall(slow)
        time.sleep(0.2)
        response = proxy.post("/grad", json=BODY)
        assert (response.status_code, response.json()["code"]) == (429, "rate_limited")
        assert proxy.get("/healthz").status_code == 200
    finally:
        for each in waiting:
            each.close()
