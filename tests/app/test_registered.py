"""Registered graphs: an id stands for its graph in every call, for ever, and names and lists lead to it."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from app.services.graphs import ASKING_SECONDS, Graphs
from app.stores import Entry, StoreFailed
from engine.limits import Limits
from engine.text import parse, to_dot, to_mermaid, to_svg
from tests.app.mutations import REQUESTS
from tests.app.support import ask, graph, node, post, problem, refused
from tests.conftest import ROOT, AppClient, serving

FORMS = ("expression", "graph", "outputs")
CALLS = [(path, body) for path, body in REQUESTS if path.startswith("/grad")]
CUBE = {"expression": "y = x**3"}


def register(client: httpx.Client, **body: Any) -> str:
    """The id of a graph that is registered."""
    return str(ask(client, "/graphs", body)["id"])


def split(body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The graph of a request, and what else it has."""
    form = {name: each for name, each in body.items() if name in FORMS}
    return form, {name: each for name, each in body.items() if name not in FORMS}


@pytest.fixture
def own(app_client: AppClient) -> httpx.Client:
    """A client of a service with no graphs."""
    return app_client()


# Registering


def test_a_new_graph_is_created_and_a_known_one_is_there(own: httpx.Client) -> None:
    first, second = post(own, "/graphs", CUBE), post(own, "/graphs", CUBE)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.content == second.content
    assert first.headers["location"] == second.headers["location"] == f"/graphs/{first.json()['id']}"
    assert own.get(first.headers["location"]).json()["id"] == first.json()["id"]


@pytest.mark.parametrize("more", [{}, {"inputs": {"x": {"shape": [4]}}}, {"inputs": {"x": [1, 2]}}])
@pytest.mark.parametrize("include", [[], ["nodes"]])
def test_the_answer_is_that_of_an_inspection(own: httpx.Client, more: dict[str, Any], include: list[str]) -> None:
    body = CUBE | more | {"include": include if more else []}
    inspected = ask(own, "/graphs/inspect", body)
    assert ask(own, "/graphs", body) == inspected | {"name": None}
    assert ask(own, "/graphs", body | {"name": "cube"}) == inspected | {"name": "cube"}


def test_equal_graphs_are_one(own: httpx.Client) -> None:
    nodes = [node("a", "sin", "x"), node("b", "cos", "x"), node("y", "add", "a", "b")]
    ids = {register(own, graph=graph(*order, outputs=["y"])) for order in (nodes, nodes[::-1])}
    assert ids == {register(own, expression="a = sin(x); b = cos(x); y = a + b")}
    assert len(own.get("/graphs").json()["graphs"]) == 1


def test_what_could_not_be_computed_is_not_kept(own: httpx.Client) -> None:
    shapes = {"x": {"shape": [2]}, "z": {"shape": [3]}}
    found = refused(own, "/graphs", {"graph": graph(node("y", "add", "x", "z")), "inputs": shapes}, "shape_mismatch")
    assert (found["pointer"], found["node"]) == ("/graph/nodes/0", "y")
    refused(own, "/graphs", {"expression": "sin(x"}, "syntax_error")
    refused(own, "/graphs", {"name": "nothing"}, "invalid_request")
    assert own.get("/graphs").json() == {"graphs": [], "next": None}


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "é", "x" * 65, "0" * 32, "a\n", 3])
def test_what_is_no_name_is_refused(own: httpx.Client, name: Any) -> None:
    assert refused(own, "/graphs", CUBE | {"name": name}, "invalid_request")["pointer"] == "/name"


# By id


@pytest.mark.parametrize(("path", "body"), CALLS)
def test_an_answer_by_id_is_that_of_the_graph_in_full(client: httpx.Client, path: str, body: Any) -> None:
    form, rest = split(body)
    id = register(client, **form)
    full = post(client, path, body)
    for _ in range(2):
        assert post(client, path, rest | {"graph_id": id}).content == full.content


@pytest.mark.parametrize(
    ("form", "inputs"),
    [
        ({"expression": "a = sin(x); b = cos(a); sum(b * a)"}, {"x": [0.3, 2]}),
        ({"graph": graph(node("a", "sin", "x"), node("b", "sum", "a"), outputs=["a"])}, {"x": [0.3, 2]}),
        ({"expression": "f(u) = u * a\na = exp(x)\nscan(f, x, length=3)"}, {"x": 0.5}),
        ({"graph": graph(node("y", "multiply", "x", [-0.0, 1e-310, 0.1]))}, {"x": 0.5}),
        ({"graph": graph(node("y", "where", "x", {"data": ["NaN"]}, "-Infinity"))}, {"x": True}),
        ({"expression": "a = x; b = a + 1", "outputs": ["a", "b"]}, {"x": 3}),
    ],
)
def test_graphs_of_every_kind_come_back_as_they_were(
    app_client: AppClient, tmp_path: Path, form: dict[str, Any], inputs: dict[str, Any]
) -> None:
    """Also where another process reads them out of the file."""
    own = app_client(store="sqlite", store_path=tmp_path / "graphs.sqlite3")
    other = app_client(store="sqlite", store_path=tmp_path / "graphs.sqlite3")
    id = register(own, **form)
    full = post(own, "/grad/value", form | {"inputs": inputs})
    assert full.status_code == 200
    for each in (own, other):
        assert post(each, "/grad/value", {"graph_id": id, "inputs": inputs}).content == full.content


def test_other_outputs_may_be_asked_for(client: httpx.Client) -> None:
    form = {"expression": "a = sin(x); y = a**2"}
    rest = {"inputs": {"x": 1}, "outputs": ["a", "y"]}
    answer = ask(client, "/grad/value", rest | {"graph_id": register(client, **form)})
    assert answer == ask(client, "/grad/value", rest | form)
    refused(client, "/grad/value", {"graph_id": answer["graph"]["id"]}, "unknown_graph")


def test_a_call_may_bring_inputs_of_other_shapes_than_were_registered(client: httpx.Client) -> None:
    id = register(client, **CUBE, inputs={"x": {"shape": [7], "dtype": "float32"}})
    assert ask(client, "/grad", {"graph_id": id, "inputs": {"x": 2}})["gradients"]["x"]["data"] == 12.0


def test_bytes_in_a_posted_graph_are_kept(client: httpx.Client) -> None:
    weights = np.array([0.5, -1.25])
    constant = {"data": weights.tobytes(), "dtype": "float64", "shape": [2]}
    body = msgspec.msgpack.encode({"graph": graph(node("y", "multiply", "x", constant))})
    answer = post(client, "/graphs", body, headers={"Content-Type": "application/msgpack"})
    found = ask(client, "/grad/value", {"graph_id": answer.json()["id"], "inputs": {"x": 2}})
    assert found["values"]["y"]["data"] == [1.0, -2.5]
    assert (
        ask(client, "/graphs", {"expression": 'y = x * asarray([0.5, -1.25], dtype="float64")'})["id"]
        == found["graph"]["id"]
    )


FAULTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("dtype_mismatch", {"graph": graph(node("y", "multiply", "x", 10**30))}, {"inputs": {"x": 1}}),
    ("shape_mismatch", {"expression": "y = x\nz = y + [1, 2]"}, {"inputs": {"x": [1, 2, 3]}}),
    ("shape_mismatch", {"graph": graph(node("y", "add", "x", [1, 2]))}, {"inputs": {"x": [1, 2, 3]}}),
    ("missing_input", {"graph": graph(node("y", "sin", "x"))}, {}),
    ("unknown_name", CUBE, {"inputs": {"x": 1}, "wrt": ["z"]}),
    ("unknown_name", CUBE, {"inputs": {"x": 1}, "outputs": ["z"]}),
    ("grad_outputs_required", CUBE, {"inputs": {"x": [1, 2]}}),
    ("invalid_request", {"expression": "y = x*e"}, {"inputs": {"x": 1, "e": 2}}),
    ("invalid_request", CUBE, {"inputs": {"x": 1, "y": 2}}),
    ("limit_exceeded", {"expression": "y = sum(ones([99999, 99999]) * x)"}, {"inputs": {"x": 1}}),
]


@pytest.mark.parametrize(("code", "form", "rest"), FAULTS)
def test_a_fault_is_told_as_of_the_graph_in_full(
    own: httpx.Client, code: str, form: dict[str, Any], rest: dict[str, Any]
) -> None:
    """But for where it is: of the graph, the request has the id only."""
    full = refused(own, "/grad", form | rest, code)
    found = refused(own, "/grad", rest | {"graph_id": register(own, **form)}, code)
    pointer = full["pointer"]
    is_within = pointer is not None and pointer.split("/")[1] in ("expression", "graph")
    assert found == full | ({"pointer": "/graph_id"} if is_within else {})


def test_a_plan_is_found_again_by_id_whatever_the_outputs(own: httpx.Client) -> None:
    rest = {"graph_id": register(own, expression="a = sin(x); b = cos(x); y = a * b"), "inputs": {"x": 1}}
    chosen = [None, ["a"], ["a", "y"], ["b"], ["y", "b"]]
    for outputs in chosen[:3]:
        for is_known in (False, True):
            timing = post(own, "/grad/value", rest | {"outputs": outputs}).headers["server-timing"]
            assert ("hit" in timing) == is_known
    for outputs in chosen:
        answer = ask(own, "/grad/value", rest | {"outputs": outputs})
        assert list(answer["values"]) == (outputs or ["y"])


@pytest.mark.parametrize("count", [7, 8, 9, 20])
def test_any_number_of_choices_of_outputs_is_served(own: httpx.Client, count: int) -> None:
    names = [f"v{number}" for number in range(count)]
    rest = {"graph_id": register(own, expression="; ".join(f"{name} = x + 1" for name in names)), "inputs": {"x": 1}}
    for name in [*names, *names]:
        assert list(ask(own, "/grad/value", rest | {"outputs": [name]})["values"]) == [name]


@pytest.mark.parametrize("id", ["0" * 32, "nothing", "", "a" * 64])
def test_an_unknown_id_is_told(client: httpx.Client, id: str) -> None:
    found = refused(client, "/grad", {"graph_id": id, "inputs": {"x": 1}}, "unknown_graph")
    assert (found["status"], found["pointer"]) == (404, "/graph_id")


@pytest.mark.parametrize("other", [CUBE, {"graph": graph(node("y", "sin", "x"))}])
def test_an_id_and_a_graph_are_one_too_many(client: httpx.Client, other: dict[str, Any]) -> None:
    body = other | {"graph_id": register(client, **CUBE), "inputs": {"x": 1}}
    assert "got " in refused(client, "/grad", body, "invalid_request")["detail"]


# Looking


@pytest.mark.parametrize(
    "form",
    [
        {"expression": "h = tanh(x @ W); loss = mean((h - y)**2)"},
        {"expression": "q, r = qr(A); q @ r"},
        {"graph": graph(node("a", "sin", "x"), node("y", "sum", "a", axis=0) | {"no_grad": True})},
        {"expression": "f(u) = u + 1\nf(x)"},
    ],
)
def test_a_graph_is_shown_in_forms_that_can_be_posted(client: httpx.Client, form: dict[str, Any]) -> None:
    id = register(client, **form)
    found = client.get(f"/graphs/{id}").json()
    assert {name: found[name] for name in ask(client, "/graphs/inspect", form)} == ask(client, "/graphs/inspect", form)
    assert register(client, expression=found["expression"]) == id
    assert ask(client, "/graphs/inspect", {"graph": found["graph"]})["ops"] == found["ops"]


def test_what_is_shown_does_not_depend_on_names_or_shapes(own: httpx.Client) -> None:
    """Else it could not be kept for ever."""
    id = register(own, **CUBE)
    before = own.get(f"/graphs/{id}").content
    register(own, **CUBE, name="cube", inputs={"x": {"shape": [3]}})
    assert own.get(f"/graphs/{id}").content == before


def test_a_graph_may_be_kept_for_ever(client: httpx.Client) -> None:
    id = register(client, **CUBE)
    found = client.get(f"/graphs/{id}")
    assert found.headers["etag"] == f'"{id}"'
    assert found.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert "Accept" in found.headers["vary"]


@pytest.mark.parametrize("given", ['"{id}"', 'W/"{id}"', "*", '"other", "{id}"', '"{id}-gzip"'])
def test_who_has_it_is_not_sent_it_again(client: httpx.Client, given: str) -> None:
    id = register(client, **CUBE)
    found = client.get(f"/graphs/{id}", headers={"If-None-Match": given.format(id=id)})
    assert (found.status_code, found.content) == (304, b"")
    assert id in found.headers["etag"] and "immutable" in found.headers["cache-control"]


@pytest.mark.parametrize("given", ['"other"', "", '"{id}x"'])
def test_who_has_another_is_sent_it(client: httpx.Client, given: str) -> None:
    id = register(client, **CUBE)
    assert client.get(f"/graphs/{id}", headers={"If-None-Match": given.format(id=id)}).status_code == 200


def test_forms_and_codings_have_tags_of_their_own(client: httpx.Client) -> None:
    id = register(client, expression="+".join(["sin(x)"] * 3000))
    accepts = [("application/json", ""), ("application/msgpack", ""), ("application/json", "gzip"), ("*/*", "zstd")]
    tags = [
        client.get(f"/graphs/{id}", headers={"Accept": form, "Accept-Encoding": coding}).headers["etag"]
        for form, coding in accepts
    ]
    assert tags == [f'"{id}"', f'"{id}-messagepack"', f'"{id}-gzip"', f'"{id}-zstd"']


def test_unknown_graphs_are_not_found(client: httpx.Client) -> None:
    for method in ("GET", "DELETE"):
        response = client.request(method, "/graphs/nothing", headers={"If-None-Match": "*"})
        assert (problem(response)["code"], response.status_code) == ("unknown_graph", 404)
    long = problem(client.get(f"/graphs/{'q' * 1000}"))
    assert long["code"] == "unknown_graph" and len(long["detail"]) < 200


# Drawings

DRAWINGS = {
    "svg": ("image/svg+xml", to_svg),
    "dot": ("text/vnd.graphviz", to_dot),
    "mmd": ("text/plain", to_mermaid),
}
MODEL = "f(u) = tanh(u) * s\nh = f(x @ W)\nloss = mean((h - y)**2)"


@pytest.mark.parametrize("form", DRAWINGS)
def test_a_graph_is_drawn(client: httpx.Client, form: str) -> None:
    media_type, draw = DRAWINGS[form]
    path = f"/graphs/{register(client, expression=MODEL)}/graph.{form}"
    found = client.get(path)
    assert found.headers["content-type"] == f"{media_type}; charset=utf-8"
    assert found.text == draw(parse(MODEL, Limits()))
    assert found.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert found.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("form", DRAWINGS)
def test_a_drawing_may_be_kept_for_ever(client: httpx.Client, form: str) -> None:
    id = register(client, expression=MODEL)
    found = client.get(f"/graphs/{id}/graph.{form}")
    assert (found.headers["etag"], "immutable" in found.headers["cache-control"]) == (f'"{id}"', True)
    again = client.get(f"/graphs/{id}/graph.{form}", headers={"If-None-Match": found.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("form", DRAWINGS)
def test_drawings_of_unknown_graphs_are_not_found(client: httpx.Client, form: str) -> None:
    assert problem(client.get(f"/graphs/nothing/graph.{form}"))["code"] == "unknown_graph"


@pytest.mark.parametrize("form", DRAWINGS)
@pytest.mark.parametrize(
    ("accept", "is_taken"),
    [("{type}", True), ("{family}/*;q=0.1", True), ("*/*", True), ("application/json", False), ("{type};q=0", False)],
)
def test_a_drawing_has_one_form(client: httpx.Client, form: str, accept: str, is_taken: bool) -> None:
    media_type, _ = DRAWINGS[form]
    accept = accept.format(type=media_type, family=media_type.partition("/")[0])
    response = client.get(f"/graphs/{register(client, expression=MODEL)}/graph.{form}", headers={"Accept": accept})
    assert response.status_code == (200 if is_taken else 406)
    assert is_taken or problem(response)["code"] == "not_acceptable"


def test_there_are_no_other_drawings(client: httpx.Client) -> None:
    assert problem(client.get(f"/graphs/{register(client, **CUBE)}/graph.png"))["code"] == "not_found"


def test_a_picture_has_a_limit(app_client: AppClient) -> None:
    own = app_client(svg_parts=7)
    assert own.get(f"/graphs/{register(own, expression='sin(sin(x))')}/graph.svg").status_code == 200
    path = f"/graphs/{register(own, expression='sin(sin(sin(x)))')}/graph"
    found = problem(own.get(f"{path}.svg"))
    assert (found["status"], found["limit"]["name"]) == (422, "svg_parts")
    assert own.get(f"{path}.dot").status_code == 200


def test_a_long_drawing_is_compressed_where_it_pays(client: httpx.Client) -> None:
    id = register(client, expression="+".join(["sin(x)"] * 1000))
    found = client.get(f"/graphs/{id}/graph.svg", headers={"Accept-Encoding": "gzip"})
    assert (found.headers["content-encoding"], found.headers["etag"]) == ("gzip", f'"{id}-gzip"')
    assert found.text == client.get(f"/graphs/{id}/graph.svg", headers={"Accept-Encoding": ""}).text


# Forgetting


def test_a_forgotten_graph_is_unknown(own: httpx.Client) -> None:
    id = register(own, **CUBE, name="cube")
    body = {"graph_id": id, "inputs": {"x": 1}}
    ask(own, "/grad", body)
    response = own.delete(f"/graphs/{id}")
    assert (response.status_code, response.content) == (204, b"")
    refused(own, "/grad", body, "unknown_graph")
    assert problem(own.get(f"/graphs/{id}"))["code"] == "unknown_graph"
    assert own.get("/graphs?name=cube").json()["graphs"] == []
    assert post(own, "/graphs", CUBE).status_code == 201
    ask(own, "/grad", body)


def test_what_another_process_forgets_is_forgotten(app_client: AppClient, tmp_path: Path) -> None:
    one, other = (app_client(store="sqlite", store_path=tmp_path / "graphs.sqlite3") for _ in range(2))
    id = register(one, **CUBE)
    body = {"graph_id": id, "inputs": {"x": 1}}
    for each in (one, other, one):
        ask(each, "/grad", body)
    other.delete(f"/graphs/{id}")
    time.sleep(ASKING_SECONDS)
    refused(one, "/grad", body, "unknown_graph")


# Lists


def pages(client: httpx.Client, path: str) -> Iterator[dict[str, Any]]:
    """All pages, from link to link."""
    while path:
        response = client.get(path)
        found = response.json()
        assert (found["next"] is None) == ("link" not in response.headers)
        yield found
        path = response.links["next"]["url"] if "link" in response.headers else ""
        if path:
            assert response.links["next"]["rel"] == "next"
            assert f"cursor={found['next']}" in path


def test_lists_go_on_from_page_to_page(own: httpx.Client) -> None:
    ids = [register(own, expression=f"x + {number}") for number in range(7)]
    found = list(pages(own, "/graphs?limit=3"))
    assert [len(page["graphs"]) for page in found] == [3, 3, 1]
    assert [each["id"] for page in found for each in page["graphs"]] == ids[::-1]
    assert [len(page["graphs"]) for page in pages(own, "/graphs?limit=7")] == [7]


def test_a_line_of_the_list_is_what_registering_answered(own: httpx.Client) -> None:
    answer = ask(own, "/graphs", CUBE | {"name": "cube", "inputs": {"x": {"shape": [3]}}, "include": ["nodes"]})
    del answer["name"], answer["nodes"]
    assert own.get("/graphs").json()["graphs"] == [answer | {"names": ["cube"]}]
    register(own, **CUBE)
    assert own.get("/graphs").json()["graphs"] == [answer | {"names": ["cube"]}]
    renewed = ask(own, "/graphs", CUBE | {"inputs": {"x": {"shape": [9]}}})
    assert own.get("/graphs").json()["graphs"][0]["inputs"] == renewed["inputs"]


def test_a_name_moves_to_the_graph_that_was_registered_under_it_last(own: httpx.Client) -> None:
    first = register(own, **CUBE, name="model")
    second = register(own, expression="y = x**4", name="model")
    assert [each["id"] for each in own.get("/graphs?name=model").json()["graphs"]] == [second]
    assert ask(own, "/grad", {"graph_id": first, "inputs": {"x": 1}})["gradients"]["x"]["data"] == 3.0
    assert own.get("/graphs?name=other").json()["graphs"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "cursor=x", "cursor=-1", f"name={'n' * 65}"])
def test_a_query_of_another_form_is_refused(client: httpx.Client, query: str) -> None:
    found = problem(client.get(f"/graphs?{query}"))
    assert (found["code"], found["status"]) == ("invalid_request", 422)
    assert query.partition("=")[0] in found["detail"]


@pytest.mark.parametrize("cursor", [2**63 - 1, 2**63, 10**30])
def test_a_cursor_past_the_end_is_refused_or_the_beginning(app_client: AppClient, tmp_path: Path, cursor: int) -> None:
    for own in (app_client(), app_client(store="sqlite", store_path=tmp_path / "graphs.sqlite3")):
        register(own, **CUBE)
        response = own.get(f"/graphs?cursor={cursor}")
        assert response.status_code == 422 or len(response.json()["graphs"]) == 1


# Limits


def test_past_the_limit_the_least_recently_used_goes(app_client: AppClient) -> None:
    own = app_client(graphs=3)
    ids = [register(own, expression=f"x + {number}") for number in range(3)]
    for _ in range(2):
        ask(own, "/grad", {"graph_id": ids[0], "inputs": {"x": 1}})
    register(own, expression="x + 3")
    found = [own.get(f"/graphs/{id}").status_code for id in ids]
    assert found == [200, 404, 200]


def test_a_graph_that_is_larger_than_all_may_be_is_refused(app_client: AppClient) -> None:
    own = app_client(graphs_bytes=2000)
    register(own, expression="x + 1")
    found = refused(own, "/graphs", {"expression": "+".join(["x"] * 1000)}, "limit_exceeded")
    assert (found["limit"]["name"], found["limit"]["max"]) == ("graphs_bytes", 2000)
    assert len(own.get("/graphs").json()["graphs"]) == 1


def test_what_does_not_fit_into_memory_is_read_again(app_client: AppClient) -> None:
    own = app_client(graphs_cached_bytes=4000)
    for number in [*range(5), *range(5)]:
        body = {"graph_id": register(own, expression=f"x * {number}"), "inputs": {"x": 2}}
        assert ask(own, "/grad/value", body)["values"]["out"]["data"] == 2 * number


# The store


@pytest.mark.parametrize("method", ["put", "source", "page", "remove"])
def test_a_store_that_fails_is_of_the_moment(own: httpx.Client, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    id = register(own, **CUBE)
    transport: Any = own._transport
    graphs: Graphs = transport._asgi.app.state.graphs

    def fail(*args: Any, **options: Any) -> Any:
        raise StoreFailed("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(graphs.open(), method, fail)
        patched.setattr(graphs.open(), "use", fail)
        response = {
            "put": lambda: post(own, "/graphs", CUBE),
            "source": lambda: post(own, "/grad", {"graph_id": id, "inputs": {"x": 1}}),
            "page": lambda: own.get("/graphs"),
            "remove": lambda: own.delete(f"/graphs/{id}"),
        }[method]()
        found = problem(response)
        assert (found["code"], found["status"]) == ("overloaded", 503)
        assert "disk is full" in found["detail"] and int(response.headers["retry-after"]) > 0
        ask(own, "/grad", CUBE | {"inputs": {"x": 1}})
    ask(own, "/grad", {"graph_id": id, "inputs": {"x": 1}})


def test_what_is_at_hand_is_computed_with_while_the_store_fails(
    own: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"graph_id": register(own, **CUBE), "inputs": {"x": 1}}
    ask(own, "/grad", body)
    transport: Any = own._transport

    def fail(*args: Any) -> Any:
        raise StoreFailed("locked")

    for name in ("version", "has", "source", "use"):
        monkeypatch.setattr(transport._asgi.app.state.graphs.open(), name, fail)
    ask(own, "/grad", body)


def test_a_damaged_line_is_left_out_of_the_list(own: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [register(own, expression=f"y = x**{power}") for power in (2, 3, 4)]
    transport: Any = own._transport
    store = transport._asgi.app.state.graphs.open()

    def torn(*args: Any) -> list[Entry]:
        found: list[Entry] = type(store).page(store, *args)
        return [
            each._replace(description=b'{"id": "' if at == 1 else each.description) for at, each in enumerate(found)
        ]

    monkeypatch.setattr(store, "page", torn)
    assert [each["id"] for each in own.get("/graphs").json()["graphs"]] == [ids[2], ids[0]]


def test_graphs_outlive_a_kill(tmp_path: Path) -> None:
    path = str(tmp_path / "kept" / "graphs.sqlite3")
    with serving(tmp_path / "log", GRADWIRE_STORE_PATH=path) as (address, process):
        with httpx.Client(base_url=address) as client:
            id = register(client, **CUBE, name="cube")
        process.send_signal(signal.SIGKILL)
        process.wait()
    with serving(tmp_path / "log", GRADWIRE_STORE_PATH=path) as (address, _), httpx.Client(base_url=address) as client:
        assert client.get("/graphs?name=cube").json()["graphs"][0]["id"] == id
        ask(client, "/grad", {"graph_id": id, "inputs": {"x": 1}})


def test_a_damaged_file_does_not_keep_the_service_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "graphs.sqlite3"
    path.write_bytes(b"what a full disk has left" * 100)
    with serving(tmp_path / "log", GRADWIRE_STORE_PATH=str(path)) as (address, _):
        with httpx.Client(base_url=address) as client:
            register(client, **CUBE)
        log = (tmp_path / "log").read_text()
    assert f"{path}.damaged-" in log
    assert "Traceback" not in log


def test_a_file_that_cannot_be_used_ends_the_process_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "app"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "GRADWIRE_PORT": "0", "GRADWIRE_STORE_PATH": str(tmp_path / "file" / "graphs")},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode not in (0, None)
    assert "GRADWIRE_STORE_PATH" in done.stderr and "Traceback" not in done.stderr


def test_what_another_version_kept_under_another_id_is_not_served(
    app_client: AppClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "graphs.sqlite3"
    own = app_client(store="sqlite", store_path=path)
    id = register(own, **CUBE)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE graphs SET id = 'ffff' WHERE id = ?", (id,))
    refused(own, "/grad", {"graph_id": "ffff", "inputs": {"x": 1}}, "unknown_graph")
    assert "ffff" in caplog.text
