"""What browsers are told: which scripts may run, who may frame a page, and whose pages may ask the service."""

from __future__ import annotations

import base64
import hashlib
import re

import httpx
import pytest

from app.http.headers import EXPOSED
from app.services.answers import Answers
from app.services.keys import Key
from tests.app.support import ask, post, problem
from tests.conftest import AppClient

HERE, ELSEWHERE = "https://app.example", "https://evil.example"
TOKEN = "gw_carol-0123456789_abcdefghij-ABCDEFGHIJ_ccccc"
CUBE = {"expression": "y = x**3", "inputs": {"x": 2}}


def policy(response: httpx.Response) -> dict[str, list[str]]:
    """The content security policy of a page, by directive."""
    directives = (each.split() for each in response.headers["content-security-policy"].split(";"))
    return {name: sources for name, *sources in directives}


@pytest.mark.parametrize(
    "path", ["/docs", "/docs/static/swagger-ui.css", "/openapi.json", "/healthz", "/ops", "/nothing"]
)
def test_no_answer_is_to_be_taken_for_what_it_is_not(client: httpx.Client, path: str) -> None:
    assert client.get(path).headers.get_list("x-content-type-options") == ["nosniff"]


def test_nor_is_a_problem(app_client: AppClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client = app_client(url_bytes=100)
    responses = [client.post("/grad", content="{"), client.get("/" + "q" * 200)]
    monkeypatch.setattr(Answers, "of", None)
    responses.append(post(client, "/grad", CUBE))
    assert [each.status_code for each in responses] == [400, 414, 500]
    for each in responses:
        assert each.headers.get_list("x-content-type-options") == ["nosniff"]


def test_the_page_runs_its_own_scripts_and_no_others(client: httpx.Client) -> None:
    page = client.get("/docs")
    scripts = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts]
    found = policy(page)
    assert len(scripts) == 1
    assert found["script-src"] == ["'self'", *(f"'sha256-{each}'" for each in hashes)]
    assert found["default-src"] == found["frame-ancestors"] == found["base-uri"] == ["'none'"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"


def test_the_page_has_nothing_that_its_policy_forbids(client: httpx.Client) -> None:
    """Handlers and styles within tags would be dropped by the browser without a word to the reader."""
    page = client.get("/docs").text
    assert not re.findall(r"<style|\sstyle=|\son\w+=|javascript:", page)


@pytest.mark.parametrize("form", ["svg", "dot", "mmd"])
def test_a_drawing_runs_nothing(client: httpx.Client, form: str) -> None:
    id = ask(client, "/graphs", {"expression": "x + 1"})["id"]
    found = policy(client.get(f"/graphs/{id}/graph.{form}"))
    assert found == {"default-src": ["'none'"], "sandbox": []}


def preflight(client: httpx.Client, origin: str, method: str = "POST", headers: str = "content-type") -> httpx.Response:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return client.options("/grad", headers={"Origin": origin} | asked)


def test_other_origins_may_not_ask_by_default(client: httpx.Client) -> None:
    responses = (preflight(client, HERE), post(client, "/grad", CUBE, headers={"Origin": HERE}))
    assert not [name for each in responses for name in each.headers if name.startswith("access-control")]
    assert problem(responses[0])["code"] == "invalid_request"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
@pytest.mark.parametrize("header", ["authorization", "content-type, content-encoding", "if-none-match", "x-request-id"])
def test_origins_that_are_set_may(app_client: AppClient, method: str, header: str) -> None:
    response = preflight(app_client(cors_origins=f"http://localhost:3000, {HERE}"), HERE, method, header)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == HERE
    assert method in response.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize(
    ("origin", "method", "header"),
    [
        (ELSEWHERE, "POST", "content-type"),
        (HERE + ".evil.example", "POST", "content-type"),
        (HERE.replace("https", "http"), "POST", "content-type"),
        ("null", "POST", "content-type"),
        (HERE, "PUT", "content-type"),
        (HERE, "POST", "x-forwarded-for"),
    ],
)
def test_others_may_not(app_client: AppClient, origin: str, method: str, header: str) -> None:
    response = preflight(app_client(cors_origins=HERE), origin, method, header)
    assert problem(response)["code"] == "invalid_request"
    assert response.headers.get("access-control-allow-origin") in (None, HERE)
    assert (response.headers.get("access-control-allow-origin") == HERE) == (origin == HERE)


def test_answers_and_problems_may_be_read_by_the_origins_that_are_set(app_client: AppClient) -> None:
    client = app_client(cors_origins=HERE, keys=Key.of("carol", TOKEN, {}).line)
    given = {"Origin": HERE, "Authorization": f"Bearer {TOKEN}"}
    assert preflight(client, HERE, headers="authorization").status_code == 200  # without a key
    for response, status in (
        (post(client, "/grad", CUBE, headers=given), 200),
        (post(client, "/grad", {}, headers=given), 422),
        (post(client, "/grad", CUBE, headers={"Origin": HERE}), 401),
    ):
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == HERE
        assert set(response.headers["access-control-expose-headers"].split(", ")) == set(EXPOSED)
        assert "Origin" in response.headers["vary"]
    other = post(client, "/grad", CUBE, headers=given | {"Origin": ELSEWHERE})
    assert "access-control-allow-origin" not in other.headers


def test_all_origins_may_be_let_in(app_client: AppClient) -> None:
    client = app_client(cors_origins="*")
    assert preflight(client, ELSEWHERE).headers["access-control-allow-origin"] == "*"
    assert post(client, "/grad", CUBE, headers={"Origin": "null"}).headers["access-control-allow-origin"] == "*"


STRANGE = [
    ("POST", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Origin": "https://evil.example"}),
    ("POST", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Origin": "null"}),
    ("POST", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Origin": "http://localhost:3000"}),
    ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}),
    ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}),
    ("POST", {"Origin": "https://evil.example"}),
    ("POST", {"Origin": "null"}),
]
"""A script's text/plain body, a form, a page of another port, an image, a frame; and browsers that say no more of a
page, since they are old, or the service is neither on this machine nor behind TLS."""
FAMILIAR = [
    ("POST", {}),
    ("POST", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}),
    ("POST", {"Sec-Fetch-Site": "same-origin", "Origin": "https://where.a.proxy.is"}),
    ("POST", {"Origin": "http://service:8000", "Host": "service:8000"}),
    ("GET", {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}),
    ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}),
]
"""A program, our own page (behind a proxy that calls us by another name; in an old browser), an address that was typed,
and a link."""


def asked_as(client: httpx.Client, method: str, headers: dict[str, str]) -> httpx.Response:
    """The answer to a gradient by this method."""
    if method == "GET":
        return client.get("/grad", params={"expr": "x**2", "x": "3"}, headers=headers)
    return client.post("/grad", content=b'{"expression": "x**2", "inputs": {"x": 3}}', headers=headers)


@pytest.mark.parametrize(("method", "headers"), STRANGE)
def test_pages_of_other_origins_compute_nothing_where_no_keys_are_set(
    app_client: AppClient, method: str, headers: dict[str, str]
) -> None:
    refused = problem(asked_as(app_client(), method, headers))
    assert (refused["status"], refused["code"]) == (400, "invalid_request")
    assert "GRADWIRE_CORS_ORIGINS" in refused["detail"]


@pytest.mark.parametrize(("method", "headers"), FAMILIAR)
def test_all_others_do(app_client: AppClient, method: str, headers: dict[str, str]) -> None:
    assert asked_as(app_client(), method, headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8000", 200), ("LOCALHOST", 200), ("[::1]:8000", 200), ("evil.example", 400), ("localhost.evil", 400)],
)
def test_a_service_that_has_names_is_called_by_no_other(app_client: AppClient, host: str, status: int) -> None:
    client = app_client(hosts="localhost, [::1]")
    response = asked_as(client, "POST", {"Host": host})
    assert response.status_code == status
    assert client.get("/healthz", headers={"Host": host}).status_code == 200
    assert status == 200 or "GRADWIRE_HOSTS" in problem(response)["detail"]


@pytest.mark.parametrize("origins", ["http://localhost:3000", "*"])
def test_and_so_do_origins_that_are_set(app_client: AppClient, origins: str) -> None:
    method, headers = STRANGE[2]
    assert asked_as(app_client(cors_origins=origins), method, headers).status_code == 200
