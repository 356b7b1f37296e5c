"""HTTP itself: methods, media types, sizes, headers, and what a repeated request gets."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from tests.app.mutations import REQUESTS
from tests.app.support import ask, post, problem, refused
from tests.conftest import AppClient

BODY: dict[str, Any] = {"expression": "x**2", "inputs": {"x": 3}}
STAGES = {"parse", "compile", "run", "encode"}
JSON = orjson.dumps(BODY)


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/grad/none",
        "/grad/",
        "/graphs/",
        "/ops/",
        "/graphs/a/b",
        "/ops/tanh/more",
        "/%00",
        "/%ff",
        "/..%2f..%2fetc",
    ],
)
def test_nothing_is_elsewhere(client: httpx.Client, path: str) -> None:
    found = problem(client.get(path))
    assert (found["code"], found["status"]) == ("not_found", 404)


def test_an_op_that_does_not_exist_is_not_found(client: httpx.Client) -> None:
    found = problem(client.get("/ops/frobnicate"))
    assert found["code"] == "not_found"
    assert "frobnicate" in found["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/grad/value", {"POST"}),
        ("PUT", "/grad/nth", {"POST"}),
        ("DELETE", "/grad", {"GET", "POST"}),
        ("OPTIONS", "/grad", {"GET", "POST"}),
        ("POST", "/ops", {"GET"}),
        ("POST", "/healthz", {"GET"}),
        ("PATCH", "/graphs", {"GET", "POST"}),
        ("PUT", "/graphs/0", {"GET", "DELETE"}),
    ],
)
def test_a_method_that_is_not_for_the_path_is_told_which_are(
    client: httpx.Client, method: str, path: str, allowed: set[str]
) -> None:
    response = client.request(method, path)
    found = problem(response)
    assert (found["code"], found["status"]) == ("method_not_allowed", 405)
    assert set(response.headers["allow"].split(", ")) - {"HEAD"} == allowed


@pytest.mark.parametrize(
    "path", ["/healthz", "/limits", "/ops/sin", "/graphs", "/grad?expr=x&x=1", "/ops/nope", "/grad/value"]
)
def test_head_is_answered_as_get_without_the_body(client: httpx.Client, path: str) -> None:
    got, headed = client.get(path), client.head(path)
    assert (headed.status_code, headed.content) == (got.status_code, b"")
    for name in ("content-type", "allow"):
        assert headed.headers.get(name) == got.headers.get(name)


@pytest.mark.parametrize(
    "accept",
    ["*/*", "application/json", "APPLICATION/JSON", "application/*;q=0.1", "text/html, application/json;q=0.5"],
)
def test_json_is_answered_to_who_takes_it(client: httpx.Client, accept: str) -> None:
    ask(client, "/grad", BODY, headers={"Accept": accept})


@pytest.mark.parametrize("accept", ["text/html", "application/xml, text/*", "application/json;q=0", "image/png;q=1.0"])
def test_who_takes_no_json_is_told_so(client: httpx.Client, accept: str) -> None:
    found = refused(client, "/grad", BODY, "not_acceptable", headers={"Accept": accept})
    assert found["status"] == 406
    assert problem(client.get("/grad?expr=x&x=1", headers={"Accept": accept}))["code"] == "not_acceptable"


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=UTF-8", "application/vnd.api+json"]
)
def test_json_is_read_under_its_names(client: httpx.Client, content_type: str) -> None:
    ask(client, "/grad", BODY, headers={"Content-Type": content_type})


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "json"]
)
def test_other_media_types_are_not_read(client: httpx.Client, content_type: str) -> None:
    response = post(client, "/grad", BODY, headers={"Content-Type": content_type})
    found = problem(response)
    assert (found["code"], found["status"]) == ("unsupported_media_type", 415)
    assert "application/json" in response.headers["accept-post"].split(", ")


def test_an_encoding_that_is_not_read_is_refused_rather_than_misread(client: httpx.Client) -> None:
    found = refused(client, "/grad", gzip.compress(JSON), "unsupported_media_type", headers={"Content-Encoding": "br"})
    assert found["status"] == 415


def test_a_body_without_a_content_type_is_read_as_json(client: httpx.Client) -> None:
    request = client.build_request("POST", "/grad", content=JSON)
    assert "content-type" not in request.headers
    assert client.send(request).json()["gradients"]["x"]["data"] == 6.0


def chunks(body: bytes, size: int = 7) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def test_a_body_may_come_in_chunks(client: httpx.Client) -> None:
    response = client.post("/grad", content=chunks(JSON))
    assert response.request.headers["transfer-encoding"] == "chunked"
    assert response.json()["gradients"]["x"]["data"] == 6.0


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_may_have_as_many_bytes_as_the_limit_says(app_client: AppClient, chunked: bool) -> None:
    exact, small = app_client(body_bytes=len(JSON)), app_client(body_bytes=len(JSON) - 1)
    assert exact.post("/grad", content=chunks(JSON) if chunked else JSON).status_code == 200
    found = problem(small.post("/grad", content=chunks(JSON) if chunked else JSON))
    assert (found["code"], found["status"]) == ("limit_exceeded", 413)
    assert found["limit"]["name"] == "body_bytes"
    assert found["limit"]["max"] == len(JSON) - 1


def test_a_body_that_says_it_is_too_large_is_not_waited_for(app_client: AppClient) -> None:
    def endless() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    response = app_client(body_bytes=10).post("/grad", content=endless(), headers={"Content-Length": "11"})
    assert problem(response)["limit"] == {"name": "body_bytes", "max": 10, "actual": 11}


def test_a_body_without_end_is_given_up_at_the_limit(app_client: AppClient) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1000
            yield b" " * 1000

    found = problem(app_client(body_bytes=10_000).post("/grad", content=endless()))
    assert found["status"] == 413
    assert sent <= 12_000


def test_a_url_may_have_as_many_bytes_as_the_limit_says(app_client: AppClient) -> None:
    path = "/grad?expr=x&x=1"
    assert app_client(url_bytes=len(path) - 1).get(path).status_code == 200
    found = problem(app_client(url_bytes=len(path) - 2).get(path))
    assert (found["code"], found["status"], found["limit"]["name"]) == ("limit_exceeded", 414, "url_bytes")


@pytest.mark.parametrize(("method", "path"), [("POST", "/grad"), ("GET", "/ops"), ("GET", "/nowhere")])
def test_no_path_takes_a_longer_url(app_client: AppClient, method: str, path: str) -> None:
    found = problem(app_client(url_bytes=100).request(method, f"{path}?q={'q' * 100}", content=JSON))
    assert (found["status"], found["limit"]["name"]) == (414, "url_bytes")


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_equal_requests_have_equal_bodies(client: httpx.Client, path: str, body: Any) -> None:
    """Times are in a header; what is random is seeded."""
    first, second = post(client, path, body), post(client, path, body)
    assert {first.status_code, second.status_code} <= ({200, 201} if path == "/graphs" else {200})
    assert first.content == second.content


HIT = 'desc="hit"'
"""What Server-Timing says of a plan that was there already."""


def test_a_question_of_a_known_signature_hits_the_plan_cache(app_client: AppClient) -> None:
    """Equal graphs hit it, in text and as nodes, whatever the numbers; and the answer has the same bytes."""
    client = app_client()
    for graph in ({"expression": "y = sin(x) * x"}, {"graph": {"nodes": [{"id": "y", "op": "sin", "inputs": ["x"]}]}}):
        bodies = [graph | {"inputs": {"x": x}} for x in (0.5, 2.0, 0.5, [1.0, 2.0])]
        answers = [post(client, "/grad/value", body) for body in bodies]
        assert [HIT in each.headers["server-timing"] for each in answers] == [False, True, True, False]
        assert answers[0].content == answers[2].content
    assert HIT not in post(client, "/grad", bodies[0]).headers["server-timing"]


def test_no_plan_is_kept_where_there_is_no_room(app_client: AppClient) -> None:
    client = app_client(plan_cache_bytes=0)
    headers = [post(client, "/grad/value", {"expression": "1 + 1"}).headers["server-timing"] for _ in range(2)]
    assert not any(HIT in each for each in headers)


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_server_timing_has_the_stages(client: httpx.Client, path: str, body: Any) -> None:
    header = post(client, path, body).headers["server-timing"]
    parts = dict(each.split(";") for each in header.split(", "))
    assert parts.pop("plan", HIT) == HIT
    stages = {name: float(rest.removeprefix("dur=")) for name, rest in parts.items()}
    expected = {"/graphs": {"parse"}, "/graphs/inspect": {"parse", "compile"}}.get(path, STAGES)
    assert expected <= stages.keys() <= STAGES | {"queue"}
    assert all(spent >= 0 for spent in stages.values())
    assert "server-timing" in client.get("/grad?expr=x&x=1").headers


def test_the_service_says_that_it_lives(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


def test_the_server_does_not_say_what_it_is_made_of(client: httpx.Client) -> None:
    assert "server" not in client.get("/healthz").headers
