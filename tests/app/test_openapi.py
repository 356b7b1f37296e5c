"""The description of the API: valid, complete and true. Examples run; answers have the form they are said to have."""

from __future__ import annotations

import re
from typing import Any

import httpx
import jsonschema
import openapi_spec_validator
import pytest

from app.http.problems import MEDIA_TYPE
from app.main import create_app
from app.settings import Settings
from tests.app.support import ask, post, problem

DOCUMENT: dict[str, Any] = create_app(Settings()).openapi()
ROUTES = [
    pytest.param(path, method, route, id=f"{method} {path}")
    for path, item in DOCUMENT["paths"].items()
    for method, route in item.items()
]
EXAMPLES = [
    pytest.param(path, example["value"], id=f"{path}-{name}")
    for path, item in DOCUMENT["paths"].items()
    if "post" in item
    for name, example in item["post"]["requestBody"]["content"]["application/json"]["examples"].items()
]
JSON = "application/json"
FORMS = {
    "/graphs/{id}/graph.svg": "image/svg+xml",
    "/graphs/{id}/graph.dot": "text/vnd.graphviz",
    "/graphs/{id}/graph.mmd": "text/plain",
    "/metrics": "text/plain",
}
"""Media types of answers that are not JSON, by path."""


def check(value: Any, schema: dict[str, Any]) -> None:
    """Hold a value against a schema of the document."""
    jsonschema.Draft202012Validator(schema | {"components": DOCUMENT["components"]}).validate(value)


def test_the_document_is_valid_openapi(client: httpx.Client) -> None:
    served = client.get("/openapi.json").json()
    openapi_spec_validator.validate(served)
    assert served == DOCUMENT
    assert served["openapi"].startswith("3.1")
    assert served["info"]["summary"] and served["info"]["description"] and served["info"]["version"]


@pytest.mark.parametrize(("path", "method", "route"), ROUTES)
def test_every_route_says_what_it_is(path: str, method: str, route: dict[str, Any]) -> None:
    assert route["summary"] and route["description"] and route["tags"]
    assert len(route["summary"]) <= 40
    for each in route.get("parameters", []):
        assert each.get("description") or each.get("examples") or each["schema"].get("examples"), each


@pytest.mark.parametrize(("path", "method", "route"), ROUTES)
def test_every_route_declares_its_problems(path: str, method: str, route: dict[str, Any]) -> None:
    for status in ("4XX", "5XX"):
        assert route["responses"][status]["content"] == {
            MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}}
        }
    assert "422" not in route["responses"], "FastAPI's own form of errors is not what is sent"


@pytest.mark.parametrize(("path", "method", "route"), ROUTES)
def test_every_route_declares_its_answer(path: str, method: str, route: dict[str, Any]) -> None:
    answers = {status: each for status, each in route["responses"].items() if status.startswith("2")}
    for status, each in answers.items():
        assert each["description"]
        assert list(each.get("content", {})) == ([] if status == "204" else [FORMS.get(path, JSON)])
    assert answers


def test_operations_have_names_of_their_own() -> None:
    names = [route["operationId"] for item in DOCUMENT["paths"].values() for route in item.values()]
    assert len(set(names)) == len(names)


def test_every_schema_that_is_referred_to_is_there() -> None:
    used = set(re.findall(r"#/components/schemas/([A-Za-z0-9_.-]+)", str(DOCUMENT)))
    assert used <= DOCUMENT["components"]["schemas"].keys()


@pytest.mark.parametrize("name", [name for name in DOCUMENT["components"]["schemas"] if name.endswith("Request")])
def test_every_field_of_a_request_is_described(name: str) -> None:
    for field, schema in DOCUMENT["components"]["schemas"][name]["properties"].items():
        assert schema.get("description"), f"{name}.{field}"


def test_every_post_has_examples() -> None:
    posts = {path for path, item in DOCUMENT["paths"].items() if "post" in item}
    assert {example.values[0] for example in EXAMPLES} == posts
    assert len(posts) >= 10


@pytest.mark.parametrize(("path", "body"), EXAMPLES)
def test_every_example_runs_and_its_answer_is_as_declared(client: httpx.Client, path: str, body: Any) -> None:
    route = DOCUMENT["paths"][path]["post"]
    check(body, route["requestBody"]["content"][JSON]["schema"])
    check(ask(client, path, body), route["responses"]["200"]["content"][JSON]["schema"])


@pytest.mark.parametrize("include", [["nodes"], ["derivative_graph"], ["nodes", "derivative_graph"]])
@pytest.mark.parametrize(("path", "body"), EXAMPLES)
def test_with_more_included_it_is_so_too(client: httpx.Client, path: str, body: Any, include: list[str]) -> None:
    schema = DOCUMENT["paths"][path]["post"]["responses"]["200"]["content"][JSON]["schema"]
    check(ask(client, path, {**body, "include": include}), schema)


@pytest.mark.parametrize(
    "path", ["/ops", "/ops/tanh", "/ops/where", "/limits", "/errors", "/healthz", "/readyz", "/grad?expr=x&x=1"]
)
def test_what_get_answers_is_as_declared(client: httpx.Client, path: str) -> None:
    name = "/ops/{name}" if path.startswith("/ops/") else path.partition("?")[0]
    schema = DOCUMENT["paths"][name]["get"]["responses"]["200"]["content"][JSON]["schema"]
    check(client.get(path).json(), schema)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/grad", b"{"),
        ("/grad", {"expression": "x("}),
        ("/grad", {"expression": "zeros([99999, 99999])"}),
        ("/grad", {"graph": {"nodes": [{"id": "y", "op": "q"}]}}),
        ("/grad", {"graph_id": "q"}),
    ],
)
def test_problems_are_as_declared(client: httpx.Client, path: str, body: Any) -> None:
    check(problem(post(client, path, body)), {"$ref": "#/components/schemas/ProblemOut"})


def test_the_first_example_is_the_cube(client: httpx.Client) -> None:
    """What *Try it out* sends when nobody changes anything."""
    path, body = EXAMPLES[0].values
    assert path == "/grad"
    assert ask(client, "/grad", body)["gradients"]["x"]["data"] == [3.0, 12.0, 27.0]


def test_the_page_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    links = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    assert any(each.endswith(".js") for each in links) and any(each.endswith(".css") for each in links)
    for link in links:
        assert link.startswith("/"), link
        found = client.get(link)
        assert found.status_code == 200 and len(found.content) > 100, link
    assert not re.findall(r"https?://|[\"']//", page.text)
    assert "url: '/openapi.json'" in page.text


def test_try_it_out_is_open_and_no_validator_is_asked(client: httpx.Client) -> None:
    page = client.get("/docs").text
    assert '"tryItOutEnabled": true' in page
    assert '"validatorUrl": null' in page
