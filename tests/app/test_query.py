"""GET /grad: requests that fit an address bar."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.app.support import ask, problem


def get(client: httpx.Client, query: str) -> Any:
    response = client.get(f"/grad?{query}")
    assert response.status_code == 200, response.text
    return response.json()


def refused(client: httpx.Client, query: str, code: str) -> dict[str, Any]:
    response = client.get(f"/grad?{query}")
    found = problem(response)
    assert found["code"] == code, found
    return found


def derivatives(answer: Any) -> list[tuple[Any, ...]]:
    return [(row["order"], row["wrt"], row["value"]["data"]) for row in answer["derivatives"]]


def test_the_answer_is_that_of_nth(client: httpx.Client) -> None:
    posted = {"expression": "sin(x)*y", "inputs": {"x": 1.5, "y": 2}, "order": 2}
    assert get(client, "expr=sin(x)*y&x=1.5&y=2&order=2") == ask(client, "/grad/nth", posted)


def test_order_is_one_when_absent(client: httpx.Client) -> None:
    assert derivatives(get(client, "expr=x^3&x=2")) == [(1, ["x"], 12.0)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("expr=x%2By&x=1&y=2", 3.0),
        ("expr=x%20-%20y&x=1&y=2", -1.0),
        ("expr=x+-+y&x=1&y=2", -1.0),
        ("expr=a%20%3D%20x*2%3B%20a%2B1&x=3", 7.0),
        ("expr=x%0A*%0A2", None),
        ("x=2&expr=x*3", 6.0),
        ("expr=sum(x)&x=[1,2,3]", 6.0),
        ("expr=sum(x)&x=%5B%5B1,%202%5D%5D", 3.0),
        ("expr=x&x=1e3", 1000.0),
        ("expr=x&x=-.5", None),
        ("expr=x&x=NaN", "NaN"),
        ("expr=x&x=-Infinity", "-Infinity"),
        ("expr=sum(x)&x=[%22NaN%22,1]", "NaN"),
        ("expr=x&x={%22data%22:2,%22dtype%22:%22float32%22}", 2.0),
        ("expr=%C3%A9&%C3%A9=1", None),
    ],
)
def test_expressions_and_inputs_are_spelt(client: httpx.Client, query: str, expected: Any) -> None:
    if expected is None:
        assert problem(client.get(f"/grad?{query}"))["status"] == 422
    else:
        assert get(client, query)["values"]["out"]["data"] == expected


@pytest.mark.parametrize(
    "query",
    ["expr=x+y&x=1&y=2", "expr=sin(x)+y&x=1&y=2", "expr=x+(y)&x=1&y=2", "expr=x+[0]&x=[1,2]", "expr=2+.5*x&x=1"],
)
def test_a_plus_that_became_a_space_is_explained(client: httpx.Client, query: str) -> None:
    """Where it leaves something that means another thing (x [0]), that is worse than a riddle."""
    assert "%2B" in refused(client, query, "syntax_error")["detail"]


def test_a_non_scalar_output_is_taken_with_ones(client: httpx.Client) -> None:
    assert derivatives(get(client, "expr=x^2&x=[1,2]&order=2")) == [(1, ["x"], [2.0, 4.0]), (2, ["x", "x"], [2.0, 2.0])]


def test_wrt_chooses_inputs_and_nodes(client: httpx.Client) -> None:
    assert derivatives(get(client, "expr=x*y&x=2&y=3&wrt=y")) == [(1, ["y"], 2.0)]
    assert derivatives(get(client, "expr=x*y&x=2&y=3&wrt=y,%20x")) == [(1, ["y"], 2.0), (1, ["x"], 3.0)]
    assert derivatives(get(client, "expr=h=x^2;h*5&x=2&wrt=h")) == [(1, ["h"], 5.0)]


def test_outputs_choose_values(client: httpx.Client) -> None:
    answer = get(client, "expr=a=x;b=x*x&x=3&outputs=b,a")
    assert {name: each["data"] for name, each in answer["values"].items()} == {"b": 9.0, "a": 3.0}
    assert derivatives(answer) == [(1, ["x"], 7.0)]


def test_an_integer_is_a_float_as_everywhere(client: httpx.Client) -> None:
    assert get(client, "expr=x/2&x=3")["values"]["out"] == {"dtype": "float64", "shape": [], "data": 1.5}


@pytest.mark.parametrize(
    ("query", "code", "contains"),
    [
        ("", "invalid_request", "expr"),
        ("x=1", "invalid_request", "expr"),
        ("expr=", "syntax_error", "expression"),
        ("expr=x", "missing_input", "'x'"),
        ("expr=x&x=1&x=2", "invalid_request", "'x' stands twice"),
        ("expr=x&expr=y&x=1&y=1", "invalid_request", "'expr' stands twice"),
        ("expr=x&x=1&order=1&order=2", "invalid_request", "'order' stands twice"),
        ("expr=x&x=", "invalid_request", "x is ''"),
        ("expr=x&x=one", "invalid_request", "'one'"),
        ("expr=x&x=nan", "invalid_request", "'nan'"),
        ("expr=x&x=[1,", "invalid_request", "'[1,'"),
        ("expr=x&x=null", "invalid_tensor", "null"),
        ("expr=x&x=[[1],[1,2]]", "invalid_tensor", "ragged"),
        ("expr=x&x=1&order=0", "invalid_request", "order"),
        ("expr=x&x=1&order=-1", "invalid_request", "order"),
        ("expr=x&x=1&order=1.5", "invalid_request", "order"),
        ("expr=x&x=1&order=two", "invalid_request", "order"),
        ("expr=x&x=1&order=[1]", "invalid_request", "order"),
        ("expr=x&x=1&order=NaN", "invalid_request", "order"),
        ("expr=x&x=1&order=true", "invalid_request", "order"),
        ("expr=x&x=1&order=1000", "limit_exceeded", "taylor_order"),
        ("expr=x&x=1&order=1000000000000000000000000000000", "limit_exceeded", "taylor_order"),
        ("expr=x&x=1&wrt=", "unknown_name", "''"),
        ("expr=x&x=1&wrt=z", "unknown_name", "'z'"),
        ("expr=x&x=1&outputs=z", "unknown_name", "'z'"),
        ("expr=x&x=" + "[" * 80 + "1" + "]" * 80, "limit_exceeded", "json_nesting"),
        ("expr=x&x=" + "[" * 3000 + "1" + "]" * 3000, "invalid_request", "'[["),
        ("expr=" + "x%2B" * 3000 + "x&x=1", "limit_exceeded", "url_bytes"),
    ],
)
def test_what_cannot_be_asked_is_refused(client: httpx.Client, query: str, code: str, contains: str) -> None:
    assert contains in refused(client, query, code)["detail"]


@pytest.mark.parametrize("value", ["two", "", "1.5", "0"])
def test_a_parameter_that_is_no_input_is_not_pointed_at_as_one(client: httpx.Client, value: str) -> None:
    found = refused(client, f"expr=x&x=1&order={value}", "invalid_request")
    assert found["pointer"] in (None, "/order")
