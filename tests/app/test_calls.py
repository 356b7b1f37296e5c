"""The calls, as the contract words them, with numbers that can be checked by hand."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest

from tests.app.mutations import REQUESTS
from tests.app.support import ask, graph, node, refused


def data(tree: Any) -> Any:
    """The same tree with a tensor's data in the place of the tensor."""
    if isinstance(tree, dict) and {"dtype", "shape"} <= tree.keys():
        return tree["data"]
    return {name: data(each) for name, each in tree.items()} if isinstance(tree, dict) else tree


def call(client: httpx.Client, path: str, field: str, **body: Any) -> Any:
    """The data of one field of an answer."""
    return data(ask(client, path, body)[field])


CUBE = graph(node("y", "pow", "x", 3))


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_every_answer_has_values_and_graph_and_nothing_unforeseen(client: httpx.Client, path: str, body: Any) -> None:
    own = {
        "/grad/value": {"values"},
        "/grad": {"values", "gradients"},
        "/grad/jvp": {"values", "tangents"},
        "/grad/jacobian": {"values", "jacobian"},
        "/grad/hessian": {"values", "gradients", "hessian"},
        "/grad/hvp": {"values", "gradients", "hvp"},
        "/grad/nth": {"values", "derivatives"},
        "/grad/taylor": {"values", "coefficients"},
        "/grad/laplacian": {"values", "laplacian", "diagonal"},
        "/grad/tensors": {"values", "derivatives"},
        "/grad/check": {"passed", "max_abs_error", "max_rel_error", "wrt"},
    }
    if path in own:
        assert ask(client, path, body).keys() == own[path] | {"graph"}


# Gradients


def test_a_scalar_output_needs_no_vector(client: httpx.Client) -> None:
    assert call(client, "/grad", "gradients", expression="x**3", inputs={"x": 2}) == {"x": 12.0}
    assert call(client, "/grad", "gradients", expression="x**3", inputs={"x": [2]}) == {"x": [12.0]}


def test_a_vector_output_needs_one(client: httpx.Client) -> None:
    body: dict[str, Any] = {"graph": CUBE, "inputs": {"x": [1, 2, 3]}}
    found = refused(client, "/grad", body, "grad_outputs_required")
    assert all(part in found["detail"] for part in ("output y", "[3]", "grad_outputs", '"ones"', "sum"))
    assert call(client, "/grad", "gradients", **body, grad_outputs={"y": [1, 1, 1]}) == {"x": [3.0, 12.0, 27.0]}
    assert call(client, "/grad", "gradients", **body, grad_outputs="ones") == {"x": [3.0, 12.0, 27.0]}
    assert call(client, "/grad", "gradients", **body, grad_outputs={"y": [0, 1, -1]}) == {"x": [0.0, 12.0, -27.0]}


def test_gradients_sum_over_outputs(client: httpx.Client) -> None:
    body = {"expression": "a = x * y; b = x + y", "outputs": ["a", "b"], "inputs": {"x": 2, "y": 5}}
    assert call(client, "/grad", "gradients", **body) == {"x": 6.0, "y": 3.0}
    assert call(client, "/grad", "gradients", **body, grad_outputs={"b": 10}) == {"x": 15.0, "y": 12.0}


def test_a_stack_of_cotangents_gives_a_stack_of_gradients(client: httpx.Client) -> None:
    body = {"expression": "x**2", "inputs": {"x": [1, 2]}, "grad_outputs": {"out": [[1, 0], [0, 1], [1, 1]]}}
    assert call(client, "/grad", "gradients", **body) == {"x": [[2.0, 0.0], [0.0, 4.0], [2.0, 4.0]]}
    assert call(client, "/grad", "values", **body) == {"out": [1.0, 4.0]}


def test_earlier_gradients_are_accumulated(client: httpx.Client) -> None:
    body = {"expression": "x**2 + y", "inputs": {"x": [3], "y": 1}, "accumulate": {"x": [6]}}
    assert call(client, "/grad", "gradients", **body) == {"x": [12.0], "y": 1.0}


def test_wrt_is_every_floating_input_that_does_not_say_otherwise(client: httpx.Client) -> None:
    inputs = {
        "x": 2,
        "y": {"data": 3, "requires_grad": False},
        "z": {"data": 4, "requires_grad": True},
        "i": {"data": 5, "dtype": "int64"},
        "b": True,
    }
    body = {"expression": "where(b, x * y * z * i, x)", "inputs": inputs}
    assert call(client, "/grad", "gradients", **body) == {"x": 60.0, "z": 30.0}
    assert call(client, "/grad", "gradients", **body, wrt=["y"]) == {"y": 40.0}
    assert call(client, "/grad", "gradients", **body, wrt=[]) == {}


def test_wrt_names_nodes_too(client: httpx.Client) -> None:
    body = {"expression": "h = x**2; y = exp(h)", "inputs": {"x": 1}, "wrt": ["h", "x"]}
    assert call(client, "/grad", "gradients", **body) == pytest.approx({"h": math.e, "x": 2 * math.e})


def test_what_the_output_does_not_depend_on_has_a_zero_gradient(client: httpx.Client) -> None:
    body = {"expression": "x * 2", "inputs": {"x": 1, "z": {"data": [[1, 2]], "dtype": "float32"}}}
    answer = ask(client, "/grad", body)
    assert answer["gradients"]["z"] == {"dtype": "float32", "shape": [1, 2], "data": [[0.0, 0.0]]}


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64"])
def test_a_wrt_that_is_not_floating_is_refused(client: httpx.Client, dtype: str) -> None:
    x = {"data": True if dtype == "bool" else 1, "dtype": dtype}
    found = refused(client, "/grad", {"expression": "x * 1.5", "inputs": {"x": x}, "wrt": ["x"]}, "not_differentiable")
    assert dtype in found["detail"] and found["pointer"] == "/wrt/0"


def test_gradients_have_the_shape_and_dtype_of_their_wrt(client: httpx.Client) -> None:
    inputs = {"a": {"data": [[1, 2]], "dtype": "float32"}, "b": [[1], [2]]}
    answer = ask(client, "/grad", {"expression": "sum(a * b)", "inputs": inputs})["gradients"]
    assert {name: (each["dtype"], each["shape"]) for name, each in answer.items()} == {
        "a": ("float32", [1, 2]),
        "b": ("float64", [2, 1]),
    }


def test_a_cotangent_that_does_not_fit_is_refused(client: httpx.Client) -> None:
    body: dict[str, Any] = {"graph": CUBE, "inputs": {"x": [1, 2, 3]}}
    for wrong, code in (
        ([1, 1], "shape_mismatch"),
        ([[[1, 1, 1]]], "shape_mismatch"),
        (["NaN", True, 1], "invalid_tensor"),
    ):
        found = refused(client, "/grad", body | {"grad_outputs": {"y": wrong}}, code)
        assert found["pointer"] == "/grad_outputs/y"
    typed = {"data": [1, 1, 1], "dtype": "float32"}
    assert (
        refused(client, "/grad", body | {"grad_outputs": {"y": typed}}, "dtype_mismatch")["pointer"]
        == "/grad_outputs/y"
    )
    refused(client, "/grad", body | {"grad_outputs": {"x": [1, 1, 1]}}, "unknown_name")


# Forward mode


def test_a_tangent_moves_through_the_graph(client: httpx.Client) -> None:
    body = {"expression": "sin(x) * y", "inputs": {"x": 0, "y": 3}}
    assert call(client, "/grad/jvp", "tangents", **body, tangents={"x": 1, "y": 10}) == {"out": 3.0}
    assert call(client, "/grad/jvp", "tangents", **body, tangents={"y": 10}) == {"out": 0.0}


def test_a_stack_of_tangents_gives_a_stack(client: httpx.Client) -> None:
    body = {"expression": "sum(x * x)", "inputs": {"x": [1, 2]}, "tangents": {"x": [[1, 0], [0, 1], [1, 1]]}}
    assert call(client, "/grad/jvp", "tangents", **body) == {"out": [2.0, 4.0, 6.0]}


def test_tangents_must_name_inputs(client: httpx.Client) -> None:
    body: dict[str, Any] = {"expression": "y = x * 2", "inputs": {"x": 1}}
    assert refused(client, "/grad/jvp", body | {"tangents": {"y": 1}}, "unknown_name")["pointer"] == "/tangents/y"
    assert (
        refused(client, "/grad/jvp", body | {"tangents": {"x": [1, [2]]}}, "invalid_tensor")["pointer"] == "/tangents/x"
    )
    assert refused(client, "/grad/jvp", body | {"tangents": {}}, "invalid_graph")["pointer"] == "/tangents"
    assert refused(client, "/grad/jvp", body, "invalid_request")["pointer"] == "/tangents"


@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
def test_a_jacobian_has_the_shape_output_and_wrt(client: httpx.Client, mode: str) -> None:
    body = {"expression": "A @ (x * x)", "inputs": {"A": {"data": [[1, 2], [3, 4], [5, 6]]}, "x": [1, 2]}, "mode": mode}
    answer = ask(client, "/grad/jacobian", body)["jacobian"]["out"]
    assert answer["x"] == {"dtype": "float64", "shape": [3, 2], "data": [[2.0, 8.0], [6.0, 16.0], [10.0, 24.0]]}
    assert answer["A"]["shape"] == [3, 3, 2]
    assert answer["A"]["data"][1] == [[0.0, 0.0], [1.0, 4.0], [0.0, 0.0]]


# Second order


def test_a_hessian_comes_in_blocks(client: httpx.Client) -> None:
    body = {"expression": "x**2 * y", "inputs": {"x": 3, "y": 5}}
    assert call(client, "/grad/hessian", "hessian", **body) == {"x": {"x": 10.0, "y": 6.0}, "y": {"x": 6.0, "y": 0.0}}
    assert call(client, "/grad/hessian", "gradients", **body) == {"x": 30.0, "y": 9.0}


def test_a_hessian_vector_product_is_the_hessian_times_the_vector(client: httpx.Client) -> None:
    body: dict[str, Any] = {"expression": "sum(x**3) * y", "inputs": {"x": [1, 2], "y": 3}}
    assert call(client, "/grad/hvp", "hvp", **body, vectors={"x": [1, 10]}) == {"x": [18.0, 360.0], "y": 123.0}
    assert call(client, "/grad/hvp", "gradients", **body, vectors={"y": 1}) == {"x": [9.0, 36.0], "y": 9.0}
    stack = {"x": [[1, 0], [0, 1]]}
    assert call(client, "/grad/hvp", "hvp", **body, vectors=stack)["x"] == [[18.0, 0.0], [0.0, 36.0]]


def test_a_laplacian_is_the_sum_of_the_diagonal(client: httpx.Client) -> None:
    body: dict[str, Any] = {"expression": "sum(x**3) * y**2", "inputs": {"x": [1, 2], "y": 3}}
    answer = ask(client, "/grad/laplacian", body)
    assert data(answer["diagonal"]) == {"x": [54.0, 108.0], "y": 18.0}
    assert data(answer["laplacian"]) == {"x": 162.0, "y": 18.0}


def test_a_laplacian_of_a_vector_is_one_for_each_element(client: httpx.Client) -> None:
    body: dict[str, Any] = {"expression": "stack(x[0]**2 * x[1], x[1]**3)", "inputs": {"x": [1, 2]}}
    answer = ask(client, "/grad/laplacian", body)
    assert data(answer["diagonal"]) == {"x": [[4.0, 0.0], [0.0, 12.0]]}
    assert data(answer["laplacian"]) == {"x": [4.0, 12.0]}
    two = {"expression": "a = x[0]; b = x[1]", "outputs": ["a", "b"], "inputs": {"x": [1, 2]}}
    refused(client, "/grad/laplacian", two, "not_scalar")


@pytest.mark.parametrize("path", ["/grad/hessian", "/grad/hvp"])
def test_second_order_takes_one_scalar(client: httpx.Client, path: str) -> None:
    more = {"vectors": {"x": [1, 1]}} if path == "/grad/hvp" else {}
    vector = {"expression": "x * x", "inputs": {"x": [1, 2]}} | more
    assert "[2]" in refused(client, path, vector, "not_scalar")["detail"]
    two = {"expression": "a = sum(x); b = a", "outputs": ["a", "b"], "inputs": {"x": [1, 2]}} | more
    refused(client, path, two, "not_scalar")


def test_a_sparse_block_is_a_matrix_by_rows(client: httpx.Client) -> None:
    body: dict[str, Any] = {"expression": "x[1:] * x[:-1]", "inputs": {"x": [2, 3, 5]}, "sparse": True}
    assert ask(client, "/grad/jacobian", body)["jacobian"]["out"]["x"] == {
        "indptr": {"dtype": "int64", "shape": [3], "data": [0, 2, 4]},
        "indices": {"dtype": "int64", "shape": [4], "data": [0, 1, 1, 2]},
        "values": {"dtype": "float64", "shape": [4], "data": [3.0, 2.0, 5.0, 3.0]},
        "shape": [2, 3],
    }
    binary = ask(client, "/grad/jacobian", body | {"encoding": "base64"})["jacobian"]["out"]["x"]
    assert binary["indices"].keys() == binary["values"].keys() == {"dtype", "shape", "b64"}


def test_a_sparse_hessian_lists_what_is_not_always_zero(client: httpx.Client) -> None:
    body = {"expression": "sum(x[1:] * x[:-1]**2) + y", "inputs": {"x": [2, 3, 5], "y": 1}, "sparse": True}
    blocks = ask(client, "/grad/hessian", body)["hessian"]
    assert blocks["x"]["x"]["indices"]["data"] == [0, 1, 0, 1, 2, 1]
    assert blocks["x"]["x"]["values"]["data"] == [6.0, 4.0, 4.0, 10.0, 6.0, 6.0]
    assert blocks["x"]["y"] | {"indptr": 0} == {
        "indptr": 0,
        "indices": {"dtype": "int64", "shape": [0], "data": []},
        "values": {"dtype": "float64", "shape": [0], "data": []},
        "shape": [3, 1],
    }


# Higher orders


def orders(answer: Any) -> list[tuple[Any, ...]]:
    return [(row["order"], row["wrt"], row["value"]["data"]) for row in answer["derivatives"]]


def test_every_order_of_each_wrt_on_its_own(client: httpx.Client) -> None:
    answer = ask(client, "/grad/nth", {"expression": "x**3 * y**2", "inputs": {"x": 1, "y": 2}, "order": 3})
    assert orders(answer) == [
        (1, ["x"], 12.0),
        (2, ["x", "x"], 24.0),
        (3, ["x", "x", "x"], 24.0),
        (1, ["y"], 4.0),
        (2, ["y", "y"], 2.0),
        (3, ["y", "y", "y"], 0.0),
    ]


def test_each_order_is_the_gradient_of_the_sum_of_the_one_before(client: httpx.Client) -> None:
    body = {"expression": "prod(x) + sum(x**3)", "inputs": {"x": [2, 3]}, "order": 2}
    assert orders(ask(client, "/grad/nth", body)) == [(1, ["x"], [15.0, 29.0]), (2, ["x", "x"], [13.0, 19.0])]


def test_a_path_gives_its_prefixes(client: httpx.Client) -> None:
    body = {"expression": "x**2 * y**3", "inputs": {"x": 1, "y": 2}, "path": ["x", "y", "x"]}
    assert orders(ask(client, "/grad/nth", body)) == [
        (1, ["x"], 16.0),
        (2, ["x", "y"], 24.0),
        (3, ["x", "y", "x"], 24.0),
    ]


def test_a_tensor_has_all_derivatives_of_an_order(client: httpx.Client) -> None:
    answer = ask(client, "/grad/tensors", {"expression": "x[0]**2 * x[1]", "inputs": {"x": [3, 5]}, "order": 3})
    assert orders(answer) == [
        (1, ["x"], [30.0, 9.0]),
        (2, ["x", "x"], [[10.0, 6.0], [6.0, 0.0]]),
        (3, ["x", "x", "x"], [[[0.0, 2.0], [2.0, 0.0]], [[2.0, 0.0], [0.0, 0.0]]]),
    ]


def test_a_tensor_along_a_path(client: httpx.Client) -> None:
    body = {"expression": "x * sum(y * y)", "inputs": {"x": [1, 2], "y": [3, 4]}, "path": ["x", "y"]}
    assert orders(ask(client, "/grad/tensors", body)) == [
        (1, ["x"], [[25.0, 0.0], [0.0, 25.0]]),
        (2, ["x", "y"], [[[6.0, 8.0], [0.0, 0.0]], [[0.0, 0.0], [6.0, 8.0]]]),
    ]


@pytest.mark.parametrize("call", ["/grad/nth", "/grad/tensors"])
def test_order_or_path_and_not_both(client: httpx.Client, call: str) -> None:
    body: dict[str, Any] = {"expression": "x", "inputs": {"x": 1}}
    refused(client, call, body, "invalid_request")
    refused(client, call, body | {"order": 1, "path": ["x"]}, "invalid_request")
    assert refused(client, call, body | {"path": ["x", "z"]}, "unknown_name")["pointer"] == "/path/1"
    assert refused(client, call, body | {"order": 0}, "invalid_request")["pointer"] == "/order"
    assert refused(client, call, body | {"path": []}, "invalid_request")["pointer"] == "/path"


def test_taylor_coefficients_along_a_direction(client: httpx.Client) -> None:
    body: dict[str, Any] = {"expression": "exp(x) * y", "inputs": {"x": 0, "y": 2}}
    coefficients = call(client, "/grad/taylor", "coefficients", **body, direction={"x": 1}, order=4)["out"]
    assert coefficients == pytest.approx([2, 2, 1, 1 / 3, 1 / 12])
    both = call(client, "/grad/taylor", "coefficients", **body, direction={"x": 1, "y": 1}, order=2)["out"]
    assert both == pytest.approx([2, 3, 2])
    assert call(client, "/grad/taylor", "coefficients", **body, direction={"y": 5}, order=0) == {"out": [2.0]}


def test_the_order_stands_first_in_the_shape_of_coefficients(client: httpx.Client) -> None:
    body = {"expression": "x**2", "inputs": {"x": [1, 2]}, "direction": {"x": [1, 1]}, "order": 3}
    answer = ask(client, "/grad/taylor", body)["coefficients"]["out"]
    assert answer == {"dtype": "float64", "shape": [4, 2], "data": [[1.0, 4.0], [2.0, 4.0], [1.0, 1.0], [0.0, 0.0]]}


# Batches: the graph is written for one example


BATCH: dict[str, Any] = {"inputs": {"x": [[1, 2], [3, 4], [5, 6]], "w": [2, 3]}, "batch": ["x"]}


@pytest.mark.parametrize(
    ("path", "field", "more", "expected"),
    [
        ("/grad/value", "values", {}, {"out": [8.0, 18.0, 28.0]}),
        ("/grad", "gradients", {}, {"x": [[2.0, 3.0]] * 3, "w": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]}),
        (
            "/grad",
            "gradients",
            {"grad_outputs": {"out": [1, 10, 0]}, "wrt": ["x"]},
            {"x": [[2.0, 3.0], [20.0, 30.0], [0.0, 0.0]]},
        ),
        ("/grad/jvp", "tangents", {"tangents": {"x": [[1, 0], [0, 1], [1, 1]]}}, {"out": [2.0, 3.0, 5.0]}),
        ("/grad/jvp", "tangents", {"tangents": {"w": [1, 10]}}, {"out": [21.0, 43.0, 65.0]}),
        ("/grad/jacobian", "jacobian", {"wrt": ["x"]}, {"out": {"x": [[2.0, 3.0]] * 3}}),
        (
            "/grad/hvp",
            "hvp",
            {"vectors": {"x": [[1, 0], [0, 1], [1, 1]]}, "wrt": ["x", "w"]},
            {"x": [[0.0, 0.0]] * 3, "w": [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]},
        ),
        (
            "/grad/taylor",
            "coefficients",
            {"direction": {"x": [[1, 0], [0, 1], [1, 1]]}, "order": 1},
            {"out": [[8.0, 2.0], [18.0, 3.0], [28.0, 5.0]]},
        ),
    ],
)
def test_a_batch_is_each_example_by_itself(
    client: httpx.Client, path: str, field: str, more: dict[str, Any], expected: Any
) -> None:
    assert call(client, path, field, expression="sum(w * x)", **BATCH, **more) == expected


@pytest.mark.parametrize("expression", ["x * 2", "sum(x)", "W @ x", "x[0] * sin(x)", "sum(exp(x))**2"])
def test_stacks_of_seeds_stand_before_the_batch(client: httpx.Client, expression: str) -> None:
    """A stack of two in a batch of three is the two calls one after the other."""
    body = {"expression": expression, "inputs": {"x": [[1, 2], [3, 4], [5, 6]], "W": [[1, 2], [3, 4]]}, "batch": ["x"]}
    seeds = [[[1, 0], [0, 1], [1, 1]], [[2, 5], [7, 1], [0, 3]]]
    together = call(client, "/grad/jvp", "tangents", **body, tangents={"x": seeds})["out"]
    assert together == [call(client, "/grad/jvp", "tangents", **body, tangents={"x": each})["out"] for each in seeds]


def test_a_batch_must_fit(client: httpx.Client) -> None:
    body: dict[str, Any] = {"expression": "x * y", "inputs": {"x": [1, 2], "y": [1, 2, 3]}}
    assert refused(client, "/grad", body | {"batch": ["x", "y"]}, "shape_mismatch")["pointer"] == "/inputs/y"
    assert refused(client, "/grad", body | {"batch": ["z"]}, "unknown_name")["pointer"] == "/batch/0"
    scalar = {"expression": "x", "inputs": {"x": 1}, "batch": ["x"]}
    assert refused(client, "/grad", scalar, "shape_mismatch")["pointer"] == "/inputs/x"


# Checking


def test_a_check_passes_and_says_how_well(client: httpx.Client) -> None:
    for order in (1, 2):
        answer = ask(
            client, "/grad/check", {"expression": "sum(sin(x) * x)", "inputs": {"x": [0.3, 1.7]}, "order": order}
        )
        assert answer["passed"] is True
        assert 0 <= answer["max_abs_error"] < 1e-6 and 0 <= answer["max_rel_error"] < 1e-6
        assert answer["wrt"]["x"]["passed"] is True


def test_a_check_finds_a_gradient_that_is_not_that_of_the_function(client: httpx.Client) -> None:
    """detach hides a factor from the analytic gradient, and nothing from differences."""
    answer = ask(client, "/grad/check", {"expression": "sum(detach(x) * x)", "inputs": {"x": [2.0, 3.0]}})
    assert answer["passed"] is False
    assert answer["max_abs_error"] > 1
    assert [each["code"] for each in answer["warnings"]] == ["untracked"]


def test_a_check_that_fails_says_what_to_look_at(client: httpx.Client) -> None:
    nodes = node("h", "sin", "x"), node("d", "detach", "h"), node("y", "multiply", "d", "x"), node("s", "sum", "y")
    answer = ask(client, "/grad/check", {"graph": graph(*nodes), "inputs": {"x": [0.3, 1.7]}})
    row = answer["wrt"]["x"]
    assert row["method"] in ("complex_step", "differences")
    assert [each["index"] for each in row["failed"]] == [[0], [1]]
    assert row["detail"].startswith("x[0]: analytic 0.29552") and row["detail"].endswith("; look at d (untracked)")
    assert [(each["code"], each["node"]) for each in answer["warnings"]] == [("untracked", "d")]


def test_a_check_at_a_kink_passes_and_says_so(client: httpx.Client) -> None:
    answer = ask(client, "/grad/check", {"expression": "y = relu(x) + 1", "inputs": {"x": 0}})
    assert answer["passed"] is True
    (found,) = answer["warnings"]
    assert (found["code"], found["node"]) == ("kink", None) and found["detail"].startswith("line 1, column 5: relu")


@pytest.mark.parametrize("order", [1, 2])
def test_a_check_of_nothing_is_an_answer_or_a_refusal(client: httpx.Client, order: int) -> None:
    for body in (
        {"expression": "x * 2", "inputs": {"x": 1}, "wrt": []},
        {"expression": "x * 2.5", "inputs": {"x": {"data": 1, "dtype": "int64"}}},
        {"expression": "ones([2]) * 2.5"},
    ):
        response = client.post("/grad/check", json=body | {"order": order})
        assert response.status_code in (200, 422), response.text


# nan_policy


def test_under_ieee_zero_times_infinity_is_nan(client: httpx.Client) -> None:
    body = {"expression": "where(x > 0, log(x), 0 * x)", "inputs": {"x": 0}}
    assert call(client, "/grad", "gradients", **body) == {"x": "NaN"}


def test_under_mask_a_zero_cotangent_wins(client: httpx.Client) -> None:
    body = {"expression": "where(x > 0, log(x), 0 * x)", "inputs": {"x": 0}, "nan_policy": "mask"}
    assert call(client, "/grad", "gradients", **body) == {"x": 0.0}


def test_under_raise_the_first_node_is_named(client: httpx.Client) -> None:
    nodes = node("a", "subtract", "x", 1), node("b", "log", "a"), node("y", "sin", "b")
    body = {"graph": graph(*nodes), "inputs": {"x": 1}}
    assert call(client, "/grad/value", "values", **body) == {"y": "NaN"}
    found = refused(client, "/grad/value", body | {"nan_policy": "raise"}, "non_finite")
    assert found["node"] == "b"


def test_under_raise_what_came_in_is_nobodys_fault(client: httpx.Client) -> None:
    """A NaN from a NaN is no news; one from finite numbers is."""
    body = {"expression": "sin(x) + 1", "inputs": {"x": ["NaN", 1]}, "nan_policy": "raise"}
    assert call(client, "/grad/value", "values", **body)["out"][0] == "NaN"


# Warnings


def test_a_gradient_that_is_not_finite_comes_with_the_node_to_blame(client: httpx.Client) -> None:
    nodes = node("r", "sqrt", "x"), node("c", "greater", "x", 0), node("y", "where", "c", "r", 0)
    body = {"graph": graph(*nodes), "inputs": {"x": 0}}
    (found,) = ask(client, "/grad", body)["warnings"]
    assert (found["code"], found["node"]) == ("non_finite_gradient", "r")
    assert "sqrt" in found["detail"] and '"mask"' in found["detail"]
    assert "warnings" not in ask(client, "/grad", body | {"nan_policy": "mask"})


def test_a_warning_says_where_in_an_expression(client: httpx.Client) -> None:
    body = {"expression": "a = x\ny = where(a > 0, sqrt(a), 0)", "inputs": {"x": 0}}
    (found,) = ask(client, "/grad", body)["warnings"]
    assert found["detail"].startswith("line 2, column 18: ") and found["node"] is None
    named = body | {"expression": "a = x; h = sqrt(a); y = where(a > 0, h, 0)"}
    assert ask(client, "/grad", named)["warnings"][0]["node"] == "h"


# The derivative graph


@pytest.mark.parametrize(
    ("path", "field", "body"),
    [
        (
            "/grad",
            "gradients",
            {"expression": "y = x**3 * w", "inputs": {"x": [1, 2], "w": 3}, "grad_outputs": {"y": [1, 10]}},
        ),
        ("/grad", "gradients", {"expression": "x**2", "inputs": {"x": 3}, "accumulate": {"x": 100}}),
        (
            "/grad",
            "gradients",
            {"expression": "sum(w * x)**2", "inputs": {"w": [1, 1], "x": [[1, 2], [3, 4]]}, "batch": ["x"]},
        ),
        (
            "/grad",
            "gradients",
            {"expression": "x**2", "inputs": {"x": [1, 2]}, "grad_outputs": {"out": [[1, 0], [0, 1]]}},
        ),
        (
            "/grad",
            "gradients",
            {"expression": "sum(x)", "inputs": {"x": {"data": [1, 2], "dtype": "float32"}, "z": [1, 2]}},
        ),
        ("/grad", "gradients", {"expression": "q, r = qr(A); sum(q * r)", "inputs": {"A": [[1, 2], [3, 5]]}}),
        (
            "/grad/hessian",
            "hessian",
            {"expression": "sum(x[1:] * exp(x[:-1]))", "inputs": {"x": [1, 2, 3]}, "sparse": True},
        ),
        (
            "/grad/jvp",
            "tangents",
            {
                "expression": "a = sin(x); b = x * y",
                "outputs": ["a", "b"],
                "inputs": {"x": 1, "y": 2},
                "tangents": {"x": 1},
            },
        ),
        ("/grad/jacobian", "jacobian", {"expression": "y = A @ x", "inputs": {"A": [[1, 2], [3, 4]], "x": [5, 6]}}),
        ("/grad/hessian", "hessian", {"expression": "sum(x**3) * w", "inputs": {"x": [1, 2], "w": 3}}),
        (
            "/grad/hvp",
            "hvp",
            {"expression": "sum(x**3) * w", "inputs": {"x": [1, 2], "w": 3}, "vectors": {"x": [1, 2]}},
        ),
        (
            "/grad/taylor",
            "coefficients",
            {"expression": "y = exp(x)", "inputs": {"x": [0, 1]}, "direction": {"x": [1, 2]}, "order": 3},
        ),
        ("/grad/nth", "derivatives", {"expression": "sin(x) * y", "inputs": {"x": 1, "y": 2}, "order": 3}),
        ("/grad/nth", "derivatives", {"expression": "sin(x) * y", "inputs": {"x": 1, "y": 2}, "path": ["x", "y"]}),
        ("/grad/tensors", "derivatives", {"expression": "sum(x**3) * x", "inputs": {"x": [1, 2]}, "order": 3}),
        ("/grad/laplacian", "diagonal", {"expression": "sum(exp(x) * x[0])", "inputs": {"x": [1, 2]}}),
    ],
)
@pytest.mark.parametrize("encoding", ["json", "base64"])
def test_the_derivative_graph_posted_back_gives_the_same_numbers(
    client: httpx.Client, path: str, field: str, body: dict[str, Any], encoding: str
) -> None:
    answer = ask(client, path, body | {"include": ["derivative_graph"], "encoding": encoding})
    again = {"graph": answer["derivative_graph"], "inputs": body["inputs"], "encoding": encoding}
    values = ask(client, "/grad/value", again)["values"]
    own = [value for name, value in values.items() if name.startswith(field)]
    assert own == [each for each in leaves(answer[field]) if each["dtype"] != "int64"]


def leaves(tree: Any) -> Any:
    """The tensors of an answer, in order."""
    if isinstance(tree, dict) and {"dtype", "shape"} <= tree.keys():
        yield tree
    elif isinstance(tree, dict | list):
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(each)


def test_graphs_can_be_had_as_text(client: httpx.Client) -> None:
    """The posted graph within `graph`, that of the derivative beside it: only what was asked for."""
    body: dict[str, Any] = {"expression": "y = sin(x) * w_1", "inputs": {"x": 2, "w_1": 3}}
    forms = ["expression", "dot", "mermaid", "latex"]
    derived = [f"derivative_{form}" for form in forms]
    answer = ask(client, "/grad", body | {"include": [*forms, *derived, "derivative_graph", "nodes"]})
    assert answer["graph"]["expression"] == body["expression"]
    assert r"\sin\left(x\right) \cdot w_{1}" in answer["graph"]["latex"]
    assert answer["graph"]["dot"].startswith("digraph {") and answer["graph"]["mermaid"].startswith("flowchart")
    assert answer["derivative_expression"].startswith("gradients_x = w_1 * cos(x)")
    assert r"\cos\left(x\right)" in answer["derivative_latex"]
    again = ask(client, "/grad/value", {"expression": answer["derivative_expression"], "inputs": body["inputs"]})
    assert list(data(again["values"]).values()) == list(data(answer["gradients"]).values())
    assert not {*forms, *derived} & ask(client, "/grad", body).keys()
    plain = ask(client, "/grad/value", body | {"include": derived})
    assert plain.keys() == {"values", "graph"}


def test_inspection_prints_a_graph(client: httpx.Client) -> None:
    for inputs in ({}, {"inputs": {"x": {"shape": [3], "dtype": "float64"}}}):
        found = ask(client, "/graphs/inspect", {"expression": "y = x**2", "include": ["latex"], **inputs})
        assert "{x}^{2}" in found["latex"] and "dot" not in found


def test_the_derivative_graph_of_a_derivative_graph(client: httpx.Client) -> None:
    """Posting it to /grad differentiates once more."""
    first = ask(client, "/grad", {"expression": "x**4", "inputs": {"x": 2}, "include": ["derivative_graph"]})
    second = ask(client, "/grad", {"graph": first["derivative_graph"], "inputs": {"x": 2}})
    assert data(second["gradients"]) == {"x": 48.0}
