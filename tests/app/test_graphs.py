"""Graphs as they are posted: names, forms, outputs, what PyTorch would say of each node, and what inspection tells."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.app.support import ask, graph, node, refused


def values(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """The values of a request, by output."""
    return {name: tensor["data"] for name, tensor in ask(client, "/grad/value", body)["values"].items()}


def test_nodes_stand_in_any_order(client: httpx.Client) -> None:
    nodes = [node("s", "sum", "y"), node("y", "multiply", "h", "x"), node("h", "exp", "x")]
    forward = values(client, {"graph": graph(*reversed(nodes)), "inputs": {"x": [0, 1]}})
    backward = values(client, {"graph": graph(*nodes, outputs=["s"]), "inputs": {"x": [0, 1]}})
    assert forward == backward


def test_the_last_node_is_the_output(client: httpx.Client) -> None:
    nodes = [node("a", "add", "x", 1), node("b", "add", "a", 1)]
    assert values(client, {"graph": graph(*nodes), "inputs": {"x": 1}}) == {"b": 3.0}
    assert values(client, {"graph": graph(*reversed(nodes)), "inputs": {"x": 1}}) == {"a": 2.0}


@pytest.mark.parametrize("form", ["graph", "expression"])
@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (None, {"b": 3.0}),
        (["a"], {"a": 2.0}),
        (["b", "a"], {"b": 3.0, "a": 2.0}),
        (["x"], {"x": 1.0}),
        (["a", "a"], {"a": 2.0}),
    ],
)
def test_outputs_override(
    client: httpx.Client, form: str, outputs: list[str] | None, expected: dict[str, float]
) -> None:
    forms = {
        "graph": graph(node("a", "add", "x", 1), node("b", "add", "a", 1), outputs=["b"]),
        "expression": "a = x + 1; b = a + 1",
    }
    answer = values(client, {form: forms[form], "inputs": {"x": 1}, "outputs": outputs})
    assert answer == expected
    assert list(answer) == list(expected)


def test_an_expression_without_a_name_is_called_out(client: httpx.Client) -> None:
    assert values(client, {"expression": "x + 1", "inputs": {"x": 1}}) == {"out": 2.0}
    assert values(client, {"expression": "y = x + 1", "inputs": {"x": 1}}) == {"y": 2.0}


@pytest.mark.parametrize("name", ["a", "_", "A9_-z", "h" * 64])
def test_an_id_may_be(client: httpx.Client, name: str) -> None:
    assert values(client, {"graph": graph(node(name, "sin", "x")), "inputs": {"x": 0}}) == {name: 0.0}


@pytest.mark.parametrize("name", ["", "1a", "a b", "h" * 65, "a.b", "é", "-a", "a\n", None, 3, ["a"], "NaN"])
def test_an_id_may_not_be(client: httpx.Client, name: Any) -> None:
    found = refused(client, "/grad", {"graph": graph(node(name, "sin", "x"))}, "invalid_graph")
    assert found["pointer"] == "/graph/nodes/0/id"


@pytest.mark.parametrize("name", ["__proto__", "constructor", "e", "pi", "out", "self", "None", "tangents"])
def test_words_of_other_languages_are_names_like_any(client: httpx.Client, name: str) -> None:
    body = {"graph": graph(node("y", "multiply", name, name)), "inputs": {name: 3}}
    answer = ask(client, "/grad", body)
    assert answer["gradients"] == {name: {"dtype": "float64", "shape": [], "data": 6.0}}


@pytest.mark.parametrize(
    "name", ["grad_outputs/y", "tangents/x", "accumulate/x", "probe/0", "a.b", "", "é\x00", "h" * 65]
)
def test_an_input_that_no_graph_could_name_is_refused(client: httpx.Client, name: str) -> None:
    """So that no name of the service's own can be taken from outside."""
    body = {"expression": "y = x**2", "inputs": {"x": 1, name: [70, 80]}}
    for path, more in (("/grad", {}), ("/grad/jvp", {"tangents": {"x": 1}}), ("/grad/check", {})):
        assert "is no name" in refused(client, path, body | more, "invalid_request")["detail"]


@pytest.mark.parametrize(
    ("dtype", "number", "expected"),
    [("float32", 3, "float32"), ("float32", 0.5, "float32"), ("int8", 3, "int8"), ("int64", 0.5, "float64")],
)
def test_a_bare_number_is_weak(client: httpx.Client, dtype: str, number: float, expected: str) -> None:
    x = {"data": [1, 2], "dtype": dtype}
    for form in ({"graph": graph(node("y", "multiply", "x", number))}, {"expression": f"y = x * {number}"}):
        assert ask(client, "/grad/value", {**form, "inputs": {"x": x}})["values"]["y"]["dtype"] == expected


@pytest.mark.parametrize("dtype", ["uint8", "uint64", "int64", "float32", "bool"])
def test_a_bare_boolean_is_weak_too(client: httpx.Client, dtype: str) -> None:
    x = {"data": [True] if dtype == "bool" else [2], "dtype": dtype}
    answer = ask(client, "/grad/value", {"graph": graph(node("y", "maximum", "x", True)), "inputs": {"x": x}})
    assert answer["values"]["y"]["dtype"] == dtype


def test_a_constant_of_whole_numbers_is_an_index_where_one_is_taken(client: httpx.Client) -> None:
    body = {"graph": graph(node("y", "take", "x", [2, 0], axis=0)), "inputs": {"x": [5, 6, 7]}}
    assert values(client, body) == {"y": [7.0, 5.0]}
    wrong = {"graph": graph(node("y", "take", "x", [0.5], axis=0)), "inputs": {"x": [5, 6, 7]}}
    refused(client, "/grad/value", wrong, "dtype_mismatch")


QR = graph(node("d", "qr", "A"))
MATRIX = {"A": [[1, 2], [3, 4]]}


def test_several_results_are_all_outputs_by_their_names(client: httpx.Client) -> None:
    assert values(client, {"graph": QR, "inputs": MATRIX}).keys() == {"d.Q", "d.R"}


def test_one_of_several_results_goes_by_name_and_by_number(client: httpx.Client) -> None:
    both = values(client, {"graph": QR, "inputs": MATRIX, "outputs": ["d.R", "d.1", "d.Q", "d.0"]})
    assert both["d.R"] == both["d.1"]
    assert both["d.Q"] == both["d.0"]
    product = graph(*QR["nodes"], node("y", "matmul", "d.Q", "d.1"))
    assert values(client, {"graph": product, "inputs": MATRIX})["y"] == [
        [pytest.approx(1), pytest.approx(2)],
        [pytest.approx(3), pytest.approx(4)],
    ]


def test_several_results_in_an_expression(client: httpx.Client) -> None:
    one = values(client, {"expression": "q, r = qr(A); q @ r", "inputs": MATRIX})["out"]
    assert one == [[pytest.approx(1), pytest.approx(2)], [pytest.approx(3), pytest.approx(4)]]
    assert values(client, {"expression": "qr(A).R", "inputs": MATRIX})["out"][1][0] == 0.0


@pytest.mark.parametrize("wrong", ["d.S", "d.2", "d.", "d.Q.R", "d"])
def test_a_result_that_there_is_not_is_refused(client: httpx.Client, wrong: str) -> None:
    body = {"graph": graph(*QR["nodes"], node("y", "sin", wrong)), "inputs": MATRIX}
    found = refused(client, "/grad", body, "invalid_graph" if wrong == "d." else "unknown_name")
    assert found["pointer"] == "/graph/nodes/1/inputs/0"
    outputs = refused(client, "/grad", {"graph": QR, "inputs": MATRIX, "outputs": [wrong]}, "unknown_name")
    assert outputs["pointer"] in ("/outputs", "/outputs/0")


def test_under_no_grad_a_node_is_a_constant(client: httpx.Client) -> None:
    square = node("a", "multiply", "x", "x") | {"no_grad": True}
    body = {"graph": graph(square, node("y", "multiply", "a", "x")), "inputs": {"x": 3}, "include": ["nodes"]}
    answer = ask(client, "/grad", body)
    assert answer["values"]["y"]["data"] == 27.0
    assert answer["gradients"]["x"]["data"] == 9.0
    inside, outside = answer["graph"]["nodes"][1:]
    assert (inside["requires_grad"], inside["is_leaf"], inside["grad_fn"]) == (False, True, None)
    assert (outside["requires_grad"], outside["is_leaf"], outside["grad_fn"]) == (True, False, "MulBackward0")


@pytest.mark.parametrize("name", ["detach", "stop_gradient"])
def test_detach_does_the_same_in_line(client: httpx.Client, name: str) -> None:
    answer = ask(client, "/grad", {"expression": f"{name}(x) * x", "inputs": {"x": 5}})
    assert (answer["values"]["out"]["data"], answer["gradients"]["x"]["data"]) == (25.0, 5.0)


# What PyTorch would say


def nodes_of(client: httpx.Client, path: str = "/grad", **body: Any) -> dict[str, Any]:
    body = {"include": ["nodes"], **({"grad_outputs": "ones"} if path == "/grad" else {}), **body}
    return {each["id"]: each for each in ask(client, path, body)["graph"]["nodes"]}


def said(found: dict[str, Any]) -> tuple[bool, bool, str | None]:
    return found["requires_grad"], found["is_leaf"], found["grad_fn"]


LEAF, CONSTANT = (True, True, None), (False, True, None)


def tracked(grad_fn: str) -> tuple[bool, bool, str]:
    return True, False, grad_fn


def test_nodes_are_told_as_pytorch_would_tell_them(client: httpx.Client) -> None:
    found = nodes_of(
        client,
        expression="p = x**2; s = log_softmax(p); c = k * 2; d = detach(p); b = p > 1; loss = sum(s * c * d)",
        inputs={"x": [1, 2], "k": {"data": [3, 4], "requires_grad": False}},
    )
    assert {name: said(each) for name, each in found.items() if name in "xkpscdb" or name == "loss"} == {
        "x": LEAF,
        "k": CONSTANT,
        "p": tracked("PowBackward0"),
        "s": tracked("LogSoftmaxBackward0"),
        "c": CONSTANT,
        "d": CONSTANT,
        "b": CONSTANT,
        "loss": tracked("SumBackward0"),
    }


def test_forward_only_tracks_nothing(client: httpx.Client) -> None:
    found = nodes_of(client, "/grad/value", expression="y = x * 2", inputs={"x": [5]})
    assert said(found["y"]) == CONSTANT


def test_integers_are_never_tracked(client: httpx.Client) -> None:
    found = nodes_of(client, expression="y = i + 1; z = x * y", inputs={"i": {"data": 1, "dtype": "int32"}, "x": 2})
    assert said(found["i"]) == said(found["y"]) == CONSTANT
    assert said(found["z"]) == tracked("MulBackward0")


def test_nodes_have_all_that_was_posted_and_inferred(client: httpx.Client) -> None:
    found = nodes_of(client, graph=graph(node("y", "sum", "x", axis=-1, keepdims=True)), inputs={"x": [[1, 2, 3]]})
    assert found["x"] == {
        "id": "x",
        "op": "input",
        "inputs": [],
        "attrs": {},
        "dtype": "float64",
        "shape": [1, 3],
        "requires_grad": True,
        "is_leaf": True,
        "grad_fn": None,
    }
    assert found["y"] == {
        "id": "y",
        "op": "sum",
        "inputs": ["x"],
        "attrs": {"axis": -1, "keepdims": True},
        "dtype": "float64",
        "shape": [1, 1],
        "requires_grad": True,
        "is_leaf": False,
        "grad_fn": "SumBackward0",
    }


def test_nodes_are_in_topological_order(client: httpx.Client) -> None:
    nodes = [node("c", "add", "b", "x"), node("b", "sin", "a"), node("a", "cos", "x")]
    assert list(nodes_of(client, graph=graph(*nodes), inputs={"x": 1})) == ["x", "a", "b", "c"]


# Metadata


def test_metadata_of_a_graph(client: httpx.Client) -> None:
    body = {"expression": "h = tanh(x @ W); loss = sum(h * h)", "inputs": {"x": [[1, 2]], "W": [[1], [2]]}}
    found = ask(client, "/grad", body)["graph"]
    counted = {name: found[name] for name in ("node_count", "edge_count", "depth", "ops")}
    assert counted == {
        "node_count": 6,
        "edge_count": 6,
        "depth": 4,
        "ops": {"matmul": 1, "multiply": 1, "sum": 1, "tanh": 1},
    }
    assert found["inputs"] == {
        "x": {"dtype": "float64", "shape": [1, 2]},
        "W": {"dtype": "float64", "shape": [2, 1]},
    }
    assert found["outputs"] == {"loss": {"dtype": "float64", "shape": []}}
    assert found["flops"] > 0 and found["peak_bytes"] > 0


def test_equal_graphs_have_equal_ids_whatever_the_order(client: httpx.Client) -> None:
    nodes = [node("a", "sin", "x"), node("b", "cos", "x"), node("y", "add", "a", "b")]
    ids = [
        ask(client, "/graphs/inspect", {"graph": graph(*order, outputs=["y"])})["id"]
        for order in (nodes, nodes[::-1], [nodes[1], nodes[2], nodes[0]])
    ]
    assert len(set(ids)) == 1


@pytest.mark.parametrize(
    "other",
    [
        graph(node("y", "cos", "x")),
        graph(node("y", "sin", "z")),
        graph(node("z", "sin", "x")),
        graph(node("y", "sin", "x") | {"no_grad": True}),
        graph(node("y", "sin", "x"), outputs=["x"]),
        graph(node("y", "sin", [1.0])),
    ],
)
def test_other_graphs_have_other_ids(client: httpx.Client, other: dict[str, Any]) -> None:
    mine = ask(client, "/graphs/inspect", {"graph": graph(node("y", "sin", "x"))})["id"]
    assert ask(client, "/graphs/inspect", {"graph": other})["id"] != mine


def test_of_two_equal_nodes_the_id_tells_which_one_is_used(client: httpx.Client) -> None:
    """Gradients by their names differ, so the graphs do."""
    nodes = [node("a", "sin", "x"), node("b", "sin", "x")]
    forms = [{"graph": graph(*nodes, node("y", "exp", used))} for used in ("a", "b")]
    answers = [ask(client, "/grad", form | {"inputs": {"x": 1}, "wrt": ["a"]}) for form in forms]
    assert answers[0]["gradients"] != answers[1]["gradients"]
    assert answers[0]["graph"]["id"] != answers[1]["graph"]["id"]


def test_the_id_does_not_depend_on_the_call_or_on_the_numbers(client: httpx.Client) -> None:
    form = {"graph": graph(node("y", "sin", "x"))}
    ids = {
        ask(client, "/grad", form | {"inputs": {"x": 1}})["graph"]["id"],
        ask(client, "/grad/value", form | {"inputs": {"x": [2, 3]}})["graph"]["id"],
        ask(client, "/grad/nth", form | {"inputs": {"x": 1}, "order": 3})["graph"]["id"],
        ask(client, "/graphs/inspect", form)["id"],
    }
    assert len(ids) == 1


def test_inspection_without_inputs_knows_no_shapes(client: httpx.Client) -> None:
    found = ask(client, "/graphs/inspect", {"expression": "sum(x @ x)"})
    assert found["inputs"] == {"x": None}
    assert found["outputs"] == {"out": None}
    assert (found["flops"], found["peak_bytes"]) == (None, None)
    assert (found["node_count"], found["ops"]) == (3, {"matmul": 1, "sum": 1})


def test_inspection_with_shapes_infers_the_rest_and_holds_no_memory(client: httpx.Client) -> None:
    spec = {"dtype": "float32", "shape": [5000, 5000]}
    found = ask(client, "/graphs/inspect", {"expression": "y = x @ x", "inputs": {"x": spec}, "include": ["nodes"]})
    assert found["inputs"] == {"x": spec}
    assert found["outputs"] == {"y": spec}
    assert found["flops"] >= 2 * 5000**3
    assert found["peak_bytes"] >= 2 * 4 * 5000**2
    assert found["nodes"][1]["shape"] == [5000, 5000]


def test_inspection_says_what_a_run_says(client: httpx.Client) -> None:
    form = {"expression": "y = exp(x) * x", "inputs": {"x": [1, 2, 3]}}
    assert ask(client, "/graphs/inspect", form) == ask(client, "/grad/value", form)["graph"]


def test_inspection_of_a_graph_of_constants_needs_no_inputs(client: httpx.Client) -> None:
    found = ask(client, "/graphs/inspect", {"expression": "ones([2, 3]) * 2"})
    assert found["outputs"] == {"out": {"dtype": "float64", "shape": [2, 3]}}


def test_inspection_refuses_what_a_run_would(client: httpx.Client) -> None:
    shapes = {"x": {"shape": [2, 3]}, "y": {"shape": [2]}}
    found = refused(
        client, "/graphs/inspect", {"graph": graph(node("z", "add", "x", "y")), "inputs": shapes}, "shape_mismatch"
    )
    assert (found["node"], found["pointer"]) == ("z", "/graph/nodes/0")
    refused(client, "/graphs/inspect", {"expression": "x + y", "inputs": {"x": 1}}, "missing_input")


@pytest.mark.parametrize("path", ["/graphs/inspect", "/grad"])
@pytest.mark.parametrize("more", [{}, {"outputs": ["a"]}])
def test_a_circle_is_pointed_at_wherever_it_is_found(client: httpx.Client, path: str, more: dict[str, Any]) -> None:
    body = {"graph": graph(node("a", "sin", "b"), node("b", "sin", "a")), "inputs": {}} | more
    if path == "/graphs/inspect":
        body.pop("outputs", None)
    assert refused(client, path, body, "graph_cycle")["pointer"] == "/graph/nodes/0/inputs"
