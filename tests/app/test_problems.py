"""Every code of the error table has a request that causes it, and every problem has the form of problem details.

`CASES` is the one table: a row is a code, a request, and where the fault is. A test holds it against the codes there
are, so a new code without a row fails.
"""

from __future__ import annotations

import logging
import re
from typing import Any, NamedTuple

import httpx
import pytest

import engine.errors
from app.problems import CODES
from app.services.answers import Answers
from engine.core import ops
from tests.app.support import ECHO, at, graph, node, post, problem, refused, resolves
from tests.conftest import AppClient


class Case(NamedTuple):
    """A request that is refused: what is expected of the problem, and where its pointer leads."""

    code: str
    body: Any
    pointer: str | None
    path: str = "/grad"
    node: str | None = None
    contains: str = ""
    """What the detail has to say."""


X = {"x": 1.0}
SINE = graph(node("y", "sin", "x"))

CASES = [
    Case("invalid_json", b"{", None),
    Case("invalid_request", {"expression": "x", "inputs": X, "speed": 9}, "/speed"),
    Case("invalid_request", {"expression": "x", "inputs": [1]}, "/inputs"),
    Case("invalid_request", {"inputs": X}, "", contains="exactly one of expression, graph, graph_id"),
    Case("invalid_request", {"expression": "x", "graph": SINE, "inputs": X}, "", contains="expression and graph"),
    Case("invalid_request", {"expression": "x", "inputs": X, "include": ["nodes", "edges"]}, "/include/1"),
    Case("invalid_request", {"expression": "x", "inputs": X, "timeout": 0}, "/timeout"),
    Case("invalid_request", {"expression": "x", "inputs": X, "order": 1, "path": ["x"]}, None, "/grad/nth"),
    Case("invalid_tensor", {"expression": "x", "inputs": {"x": [[1], [1, 2]]}}, "/inputs/x", contains="ragged"),
    Case("invalid_tensor", {"expression": "x", "inputs": {"x": {"data": [1], "dtype": "f8"}}}, "/inputs/x/dtype"),
    Case("invalid_tensor", {"expression": "x", "inputs": {"x": {"data": [1, 2], "shape": [3]}}}, "/inputs/x/data"),
    Case("invalid_request", {"expression": "x", "inputs": {"x": 1, "a/b~c": 2}}, "/inputs/a~1b~0c"),
    Case(
        "invalid_tensor",
        {"graph": graph(node("y", "sin", {"data": [], "q": 1}))},
        "/graph/nodes/0/inputs/0/q",
        node="y",
    ),
    Case("invalid_graph", {"graph": {"nodes": []}}, "/graph/nodes"),
    Case("invalid_graph", {"graph": graph(node("1", "sin", "x")), "inputs": X}, "/graph/nodes/0/id"),
    Case("invalid_graph", {"graph": graph(SINE["nodes"][0], node("y", "cos", "x"))}, "/graph/nodes/1/id", node="y"),
    Case("invalid_graph", {"graph": graph(node("y", "add", "x")), "inputs": X}, "/graph/nodes/0/inputs", node="y"),
    Case("invalid_graph", {"graph": graph(node("y", "sin", "x", q=1) | {"at": 2})}, "/graph/nodes/0/at", node="y"),
    Case(
        "graph_cycle", {"graph": graph(node("a", "sin", "b"), node("b", "sin", "a"))}, "/graph/nodes/0/inputs", node="a"
    ),
    Case("unknown_op", {"graph": graph(node("y", "sine", "x"))}, "/graph/nodes/0/op", node="y", contains="sin"),
    Case("unknown_attribute", {"graph": graph(node("y", "sin", "x", axis=0))}, "/graph/nodes/0/attrs/axis", node="y"),
    Case("unknown_name", {"expression": "x", "inputs": X, "wrt": ["x", "z"]}, "/wrt/1"),
    Case("unknown_name", {"expression": "x", "inputs": X, "batch": ["z"]}, "/batch/0"),
    Case("unknown_name", {"expression": "x", "inputs": X, "outputs": ["z"]}, "/outputs"),
    Case("unknown_name", {"graph": {**SINE, "outputs": ["z"]}, "inputs": X}, "/graph/outputs"),
    Case("unknown_name", {"expression": "x", "inputs": X, "accumulate": {"a/b": 1}}, "/accumulate/a~1b"),
    Case("missing_input", {"graph": SINE, "inputs": {"z": 1}}, None, node="y", contains="'x'"),
    Case("syntax_error", {"expression": "sin(x", "inputs": X}, "/expression"),
    Case(
        "shape_mismatch",
        {"graph": graph(node("y", "add", [1, 2], [1, 2, 3]))},
        "/graph/nodes/0",
        node="y",
        contains="[2] and [3]",
    ),
    Case(
        "shape_mismatch",
        {"expression": "x", "inputs": X, "grad_outputs": {"out": [1]}, "accumulate": {"x": [[1]]}},
        "/accumulate/x",
    ),
    Case("dtype_mismatch", {"graph": graph(node("y", "logical_not", 1.5))}, "/graph/nodes/0", node="y"),
    Case(
        "dtype_mismatch",
        {"expression": "x", "inputs": X, "grad_outputs": {"out": {"data": 1, "dtype": "float32"}}},
        "/grad_outputs/out",
    ),
    Case(
        "grad_outputs_required",
        {"graph": graph(node("y", "sin", [1, 2]))},
        None,
        node="y",
        contains="shape [2]: give grad_outputs",
    ),
    Case(
        "not_differentiable",
        {"expression": "x*.5", "inputs": {"x": {"data": 1, "dtype": "int8"}}, "wrt": ["x"]},
        "/wrt/0",
    ),
    Case("not_differentiable", {"expression": "x > 0", "inputs": X}, None),
    Case(
        "not_differentiable",
        {"expression": "x", "inputs": {"x": {"data": 1, "dtype": "int8", "requires_grad": True}}},
        "/inputs/x/requires_grad",
    ),
    Case("not_scalar", {"graph": graph(node("y", "sin", [1, 2]))}, None, "/grad/hessian", node="y"),
    Case("not_scalar", {"expression": "a = x; b = x", "outputs": ["a", "b"], "inputs": X}, "/outputs", "/grad/hessian"),
    Case("singular_matrix", {"graph": graph(node("y", "inv", [[1, 2], [2, 4]]))}, None, "/grad/value", node="y"),
    Case(
        "non_finite", {"graph": graph(node("y", "log", "x")), "inputs": {"x": 0}, "nan_policy": "raise"}, None, node="y"
    ),
    Case("limit_exceeded", {"expression": "ones([100000, 100000])"}, "/expression", "/grad/value"),
    Case("unknown_graph", {"graph_id": "nothing"}, "/graph_id"),
    Case("deadline_exceeded", {"expression": "x", "inputs": X, "timeout": 1e-9}, None),
]

ELSEWHERE = {
    "overloaded",
    "rate_limited",
    "unauthorized",
    "not_found",
    "method_not_allowed",
    "not_acceptable",
    "unsupported_media_type",
    "internal",
}
"""Codes that no body causes: tests below, and those of test_http and test_keys."""


def _name(case: Case) -> str:
    return f"{case.code}-{case.pointer}"


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_is_refused_with_its_code_where_the_fault_is(client: httpx.Client, case: Case) -> None:
    response = post(client, case.path, case.body)
    found = problem(response)
    assert found["code"] == case.code, found
    assert found["status"] == CODES[case.code].status
    assert found["instance"] == case.path
    assert case.contains in found["detail"]
    assert found.get("node") == case.node
    if case.pointer is not None:
        assert found["pointer"] == case.pointer
        at(case.pointer, case.body)  # raises where the pointer leads nowhere
    elif found["pointer"] is not None:
        assert resolves(found["pointer"], case.body)


def test_every_code_is_caused_by_some_request() -> None:
    assert {case.code for case in CASES} | ELSEWHERE == set(CODES)


def test_a_kernel_that_finds_no_memory_is_told_apart_from_a_fault(
    app_client: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan within the limits may still find the machine full: that is of the moment, so the client may try again."""

    def full(*args: Any) -> Any:
        raise MemoryError

    monkeypatch.setitem(ops.sin.__dict__, "kernel", full)
    response = post(app_client(), "/grad/value", {"expression": "y = sin(x)", "inputs": {"x": [1.0, 2.0]}})
    found = problem(response)
    assert (found["code"], found["status"], found["node"]) == ("overloaded", 503, "y")
    assert int(response.headers["retry-after"]) > 0


def test_the_table_has_every_code_of_the_engine() -> None:
    found = set()
    kinds = [engine.errors.EngineError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        found.add(kind.code)
    assert found <= set(CODES)


def test_errors_lists_the_table(client: httpx.Client) -> None:
    listed = client.get("/errors").json()["errors"]
    assert {row["code"]: (row["status"], row["title"]) for row in listed} == CODES


def test_what_is_of_the_moment_says_when_to_come_back(client: httpx.Client) -> None:
    response = post(client, "/grad", {"expression": "x", "inputs": X, "timeout": 1e-9})
    assert response.status_code == 504
    assert response.headers["retry-after"].isdecimal()


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("sin(x", 1, 6),
        ("x +", 1, 4),
        ("y = x\nz = y $ 2", 2, 7),
        ("x y", 1, 3),
        ("", 1, 1),
        ("a = x;\n\n  b = )", 3, 7),
    ],
)
def test_an_expression_says_line_and_column(client: httpx.Client, text: str, line: int, column: int) -> None:
    found = refused(client, "/grad", {"expression": text, "inputs": X}, "syntax_error")
    assert (found["line"], found["column"]) == (line, column)
    assert f"line {line}, column {column}" in found["detail"]


def test_a_fault_that_shows_when_shapes_are_known_says_where_in_the_expression_it_is(client: httpx.Client) -> None:
    found = refused(
        client, "/grad", {"expression": "y = x\nz = y + [1, 2]", "inputs": {"x": [1, 2, 3]}}, "shape_mismatch"
    )
    assert found["pointer"] == "/expression"
    assert "line 2, column 7" in found["detail"]


LONG = "q" * 3000
ECHOING = [
    {LONG: 1},
    {"expression": LONG},
    {"expression": f"{LONG}(x)"},
    {"expression": f"x = '{LONG}'"},
    {"expression": "x", "inputs": {"x": LONG}},
    {"expression": "x", "inputs": {"x": {"data": 1, LONG: 1}}},
    {"expression": "x", "inputs": {"x": {"data": 1, "dtype": LONG}}},
    {"expression": "x", "inputs": {"x": {"b64": LONG, "dtype": "bool", "shape": [1]}}},
    {"expression": "x", "inputs": {"x": 1, LONG: "q"}},
    {"expression": "x", "inputs": {"x": 1, LONG: 1}, "batch": [LONG]},
    {"expression": "x", "inputs": {"x": 1, LONG: {"data": 1, "dtype": "int8"}}, "wrt": [LONG]},
    {"expression": "x", "inputs": {"x": 1, LONG: {"data": 1, "dtype": "int8", "requires_grad": True}}},
    {"expression": "x", "inputs": {"x": 1, LONG: 1}, "accumulate": {"z": 1}},
    {"expression": "x", "inputs": X, "accumulate": {LONG: 1}},
    {"expression": "x", "inputs": X, "wrt": [LONG]},
    {"expression": "x", "inputs": X, "outputs": [LONG]},
    {"expression": "x", "inputs": X, "encoding": LONG},
    {"expression": "x", "inputs": X, "timeout": LONG},
    {"graph": {LONG: 1}},
    {"graph": graph({LONG: 1})},
    {"graph": graph(node(LONG, "sin", "x"))},
    {"graph": graph(node("y", LONG, "x"))},
    {"graph": graph(node("y", "sin", LONG))},
    {"graph": graph(node("y", "sin", "x", **{LONG: 1}))},
    {"graph": graph(node("y", "astype", "x", dtype=LONG)), "inputs": X},
    {"graph": graph(node("y", "einsum", "x", equation=LONG)), "inputs": X},
    {"graph": graph(node("y", "reshape", "x", shape=[7] * 3000)), "inputs": X},
    {"graph_id": LONG},
]


@pytest.mark.parametrize("body", ECHOING, ids=range(len(ECHOING)))
def test_the_detail_repeats_little_of_the_request(client: httpx.Client, body: Any) -> None:
    found = problem(post(client, "/grad", body))
    runs = re.findall(r"q+|(?:7, )+", found["detail"])
    assert sum(map(len, runs)) <= ECHO
    assert len(found["detail"]) <= 3 * ECHO


def test_problems_stay_few_where_faults_are_many(client: httpx.Client) -> None:
    """Each fault listed would let a small request ask for a large answer."""
    body = {"expression": "x", "inputs": X, "include": ["edges"] * 5000, **{f"f{i}": 1 for i in range(5000)}}
    response = post(client, "/grad", body)
    assert len(response.content) < 5000
    assert len(problem(response)["errors"]) <= 10


def test_a_crash_is_a_problem_under_an_id_that_the_log_has(
    app_client: AppClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def crash(*args: Any) -> Any:
        raise ZeroDivisionError("a secret of the service")

    monkeypatch.setattr(Answers, "of", crash)
    with caplog.at_level(logging.ERROR):
        response = post(app_client(), "/grad", {"expression": "x", "inputs": X})
    found = problem(response)
    assert found["code"] == "internal"
    assert "secret" not in response.text and "Traceback" not in response.text
    (name,) = re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", found["detail"])
    assert name in caplog.text
    assert "a secret of the service" in caplog.text
