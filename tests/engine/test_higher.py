"""Laplacians and diagonals without the Hessian, and whole tensors of orders one to four."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from engine.errors import LimitExceeded, NotDifferentiable, NotScalar
from tests.engine.test_random_graphs import graphs, random_graphs, scalar_of
from tests.support.asking import LIMITS, answer_of, ask, compiled_question
from tests.support.numeric import assert_close, assert_same_bits

RNG = np.random.default_rng(3)
X = RNG.uniform(0.5, 1.5, 4)
M = RNG.uniform(0.5, 1.5, (2, 3))

# The Laplacian


def diagonal_of(block: Any) -> Any:
    """The diagonal of a block of a Hessian, in the wrt's shape."""
    half = block.shape[: block.ndim // 2]
    size = int(np.prod(half))
    return block.reshape(size, size).diagonal().reshape(half)


@random_graphs
@given(graphs())
def test_the_diagonal_is_that_of_the_hessian(drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
    graph, inputs = drawn
    hessian = ask("hessian", scalar_of(graph), inputs)["hessian"]
    found = ask("laplacian", scalar_of(graph), inputs)
    for name, x in inputs.items():
        expected = diagonal_of(hessian[name][name])
        size = max(1.0, float(np.abs(expected).max(initial=0)))
        assert found["diagonal"][name].shape == x.shape
        assert found["laplacian"][name].shape == ()
        assert_close(found["diagonal"][name] / size, expected / size, 1e-8, name)
        assert_close(found["laplacian"][name], found["diagonal"][name].sum(), 1e-12, f"sum by {name}")


@pytest.mark.parametrize(
    ("text", "products"),
    [
        ("sum(exp(x))", 1),
        ("sum(x[1:]**2 * exp(x[:-1]))", 2),
        ("sum(sin(x[2:] * x[1:-1] * x[:-2]))", 3),
        ("sum(exp(x * x[0]))", 2),
        ("exp(sum(x * x))", None),  # everything with everything: by Taylor mode along the axes
    ],
)
def test_a_sparse_hessian_gives_its_diagonal_in_few_products(text: str, products: int | None) -> None:
    inputs = {"x": np.linspace(0.1, 0.5, 40)}
    compiled = compiled_question("laplacian", text, inputs)
    seeds = [n.shape[0] for n in compiled.built.graph.live(compiled.results) if n.op.name == "equal"]
    assert seeds == ([] if products is None else [products])
    found = answer_of(compiled)["diagonal"]["x"]
    assert_close(found, diagonal_of(ask("hessian", text, inputs)["hessian"]["x"]["x"]), 1e-11, text)


def test_several_inputs_share_the_products() -> None:
    inputs = {"x": np.linspace(0.1, 1, 30), "m": np.linspace(0.5, 1, 20).reshape(4, 5)}
    text = "sum(exp(x)) * 2 + sum(m**3) + x[0] * m[0, 0]"
    found, hessian = ask("laplacian", text, inputs)["diagonal"], ask("hessian", text, inputs)["hessian"]
    for name in inputs:
        assert_close(found[name], diagonal_of(hessian[name][name]), 1e-12, name)


def test_an_output_with_axes_has_a_laplacian_for_each_element() -> None:
    """u(x, y) = (sin x · y², x³ y): Δu = (−sin x · y² + 2 sin x, 6 x y)."""
    x, y = p = np.array([0.3, 0.7])
    found = ask("laplacian", "stack(sin(p[0]) * p[1]**2, p[0]**3 * p[1])", {"p": p})
    assert_close(found["diagonal"]["p"], [[-np.sin(x) * y * y, 2 * np.sin(x)], [6 * x * y, 0]], 1e-14, "diagonal")
    assert_close(found["laplacian"]["p"], [-np.sin(x) * y * y + 2 * np.sin(x), 6 * x * y], 1e-14, "Laplacian")


def test_elementwise_the_second_derivative_stands_on_the_diagonal() -> None:
    found = ask("laplacian", "sin(x) / 2", {"x": X})
    assert_close(found["diagonal"]["x"], np.diag(-np.sin(X) / 2), 1e-15, "diagonal")
    assert_close(found["laplacian"]["x"], -np.sin(X) / 2, 1e-15, "Laplacian")


def test_a_laplacian_at_many_points() -> None:
    points = RNG.normal(size=(5, 3))
    found = ask("laplacian", "exp(p @ p / 4)", {"p": points}, batch=["p"])["laplacian"]["p"]
    square = (points**2).sum(axis=1)
    assert_close(found, (1.5 + square / 4) * np.exp(square / 4), 1e-13, "Δ exp(|p|²/4)")


def test_a_harmonic_function_has_none() -> None:
    found = ask("laplacian", "p[0]**3 - 3 * p[0] * p[1]**2", {"p": np.array([1.25, 0.5])})
    assert found["laplacian"]["p"] == 0
    assert ask("laplacian", "sum(p) * 2", {"p": np.ones(30)})["diagonal"]["p"].tolist() == [0] * 30


def test_what_reverses_its_gradient_is_no_function() -> None:
    """Then it is the second derivative forward mode sees, whatever the size."""
    for size in (3, 40):
        x = np.linspace(0.5, 1, size)
        found = ask("laplacian", "sum(grad_scale(x, scale=-1)**3)", {"x": x})["diagonal"]["x"]
        assert_close(found, 6 * x, 1e-13, f"{size} elements")


def test_a_large_laplacian_never_forms_the_hessian() -> None:
    n = 20_000
    compiled = compiled_question("laplacian", "sum(exp(x[1:] * x[:-1]))", {"x": np.linspace(0, 1, n)})
    assert compiled.plan.peak_bytes < 100 * 8 * n


def test_a_dense_one_comes_in_chunks() -> None:
    inputs = {"x": RNG.uniform(size=60)}
    text = "exp(sum(cumulative_sum(sin(outer(x, x)), axis=1)) / 1000)"
    whole = compiled_question("laplacian", text, inputs)
    limits = replace(LIMITS, peak_bytes=whole.plan.peak_bytes // 4)
    found = compiled_question("laplacian", text, inputs, limits=limits)
    one, other = (each.run(each.bind())["laplacian"]["x"] for each in (whole, found))
    assert_close(other, one, 1e-12, "in chunks")


@pytest.mark.parametrize(("call", "more"), [("laplacian", {}), ("tensors", {"order": 2})])
def test_one_output_at_a_time(call: str, more: dict[str, Any]) -> None:
    with pytest.raises(NotScalar):
        ask(call, "a = sum(x); b = a * a", {"x": X}, outputs=["a", "b"], **more)


# Tensors


def nested(text: str, inputs: dict[str, Any], path: list[str]) -> Any:
    """The tensor by Jacobians of derivative graphs of Jacobians."""
    graph: Any = text
    for name in path:
        compiled = compiled_question("jacobian", graph, inputs, wrt=[name], mode="forward")
        graph = compiled.derivative_program()
    return ask("value", graph, inputs)["values"].popitem()[1]


TENSORS: list[tuple[str, dict[str, Any]]] = [
    ("sum(x**3 * x[0]) * exp(x[1])", {"x": X[:3]}),
    ("sin(m) * sum(m)", {"m": M[:, :2]}),
    ("prod(x)", {"x": X}),
    ("outer(tanh(x), x)", {"x": X[:2]}),
    ("x * exp(x)", {"x": np.array(0.7)}),
    ("sum(x * x)", {"x": X[:3]}),
]


@pytest.mark.parametrize(("text", "inputs"), TENSORS, ids=[text for text, _ in TENSORS])
def test_every_order_is_the_jacobian_of_the_one_before(text: str, inputs: dict[str, Any]) -> None:
    ((name, x),) = inputs.items()
    value = ask("value", text, inputs)["values"]["out"]
    rows = ask("tensors", text, inputs, order=4)["derivatives"]
    assert [(row["order"], row["wrt"]) for row in rows] == [(k, [name] * k) for k in (1, 2, 3, 4)]
    for row in rows:
        assert row["value"].shape == value.shape + x.shape * row["order"]
        assert_close(row["value"], nested(text, inputs, row["wrt"]), 1e-11, f"order {row['order']}")


@pytest.mark.parametrize("text", ["sum(x**2 * y[0]) * sum(exp(y) * x[0])", "sin(x) * sum(y * y)", "x * 2"])
@pytest.mark.parametrize("path", [["x", "y"], ["y", "x", "x"], ["x", "y", "y", "x"], ["y", "y"]])
def test_a_path_has_the_axes_of_its_inputs_in_order(text: str, path: list[str]) -> None:
    inputs = {"x": X[:3], "y": X[:2]}
    value = ask("value", text, inputs)["values"]["out"]
    rows = ask("tensors", text, inputs, path=path)["derivatives"]
    assert [row["wrt"] for row in rows] == [path[:k] for k in range(1, len(path) + 1)]
    for row in rows:
        assert row["value"].shape == value.shape + tuple(size for name in row["wrt"] for size in inputs[name].shape)
        assert_close(row["value"], nested(text, inputs, row["wrt"]), 1e-12, f"{row['wrt']}")


def test_a_tensor_is_symmetric_to_the_last_bit() -> None:
    value = ask("tensors", "prod(sin(x)) * exp(x @ x)", {"x": X}, order=3)["derivatives"][2]["value"]
    for axes in ((0, 2, 1), (1, 0, 2), (2, 1, 0), (1, 2, 0)):
        assert_same_bits(np.transpose(value, axes).copy(), value, f"{axes}")


def test_the_second_order_is_the_hessian() -> None:
    text, inputs = "logsumexp(m) * sum(m**3)", {"m": M}
    second = ask("tensors", text, inputs, order=2)["derivatives"][1]["value"]
    assert_close(second, ask("hessian", text, inputs)["hessian"]["m"]["m"], 1e-12, "Hessian")


def test_a_batch_of_tensors() -> None:
    wide = RNG.uniform(0.5, 1, size=(3, 2))
    rows = ask("tensors", "prod(x**2)", {"x": wide}, order=3, batch=["x"])["derivatives"]
    for at in range(3):
        for row, one in zip(rows, ask("tensors", "prod(x**2)", {"x": wide[at]}, order=3)["derivatives"], strict=True):
            assert_close(row["value"][at], one["value"], 1e-12, f"order {row['order']}")


def test_a_tensor_by_nothing_is_empty() -> None:
    rows = ask("tensors", "sum(x**3)", {"x": np.zeros(0)}, order=3)["derivatives"]
    assert [row["value"].shape for row in rows] == [(0,), (0, 0), (0, 0, 0)]


def test_the_derivative_graph_gives_the_same_tensor() -> None:
    compiled = compiled_question("tensors", "prod(x)", {"x": X}, order=3)
    answer = answer_of(compiled)["derivatives"]
    found = list(ask("value", compiled.derivative_program(), {"x": X})["values"].values())
    for row, value in zip(answer, found, strict=True):
        assert_same_bits(value, row["value"], f"order {row['order']}")


def test_a_tensor_that_does_not_fit_is_refused_at_once() -> None:
    with pytest.raises(LimitExceeded):
        ask("tensors", "sum(x**4)", {"x": np.ones(300)}, order=4)


def test_the_graph_of_a_tensor_does_not_grow_with_its_size() -> None:
    counts = []
    for size in (3, 6, 9):
        compiled = compiled_question("tensors", "exp(sum(sin(x) * x))", {"x": np.ones(size)}, order=4)
        counts.append(len(compiled.built.graph.live(compiled.results)))
    assert len(set(counts)) == 1


@pytest.mark.parametrize(("call", "more"), [("laplacian", {}), ("tensors", {"order": 2})])
def test_complex_inputs_are_refused(call: str, more: dict[str, Any]) -> None:
    with pytest.raises(NotDifferentiable):
        ask(call, "sum(real(z * z))", {"z": np.array([1 + 2j, 3j])}, **more)
