"""Sparse derivatives are the dense ones without their zeros: of every op at every sample, and of random graphs.

That holds the propagation of dependences to account for every op there is: an entry that a pattern lacks, and that is
not zero, is found here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from engine.basis import Cutting
from engine.colouring import column_colours, star_colours, vertex_colours
from engine.compressed import sparse_hessian, sparse_jacobian
from engine.core import Node
from engine.errors import LimitExceeded
from engine.execute import run
from engine.jacobians import jacobian
from engine.plan import make_plan
from engine.sparsity import pattern_of
from engine.transforms.reverse import reverse
from engine.types import Array, is_inexact
from tests.engine.test_random_graphs import graphs, random_graphs, scalar_of
from tests.support.asking import LIMITS, answer_of, ask, compiled_question
from tests.support.cases import Case, cases, ids
from tests.support.numeric import assert_close, assert_same_bits
from tests.support.properties import Derived, filled

RNG = np.random.default_rng(11)


def full(block: dict[str, Any]) -> Array:
    """A sparse block written out."""
    parts = (block["values"], block["indices"], block["indptr"])
    return np.asarray(sparse.csr_array(parts, shape=tuple(block["shape"])).toarray())


def assert_same_matrix(found: dict[str, Any], expected: Array, what: str, tolerance: float = 1e-10) -> None:
    """A block against its dense twin, whatever the twin's axes are."""
    flat = np.nan_to_num(np.asarray(expected).reshape(found["shape"]))
    size = max(1.0, float(np.abs(flat).max(initial=0)))
    assert_close(np.nan_to_num(full(found)) / size, flat / size, tolerance, what)


def products(compiled: Any) -> int:
    """How many rows of seeds a sparse question takes."""
    nodes = compiled.built.graph.live(compiled.results)
    return sum(node.shape[0] for node in nodes if node.op.name == "astype" and node.inputs[0].op.name == "equal")


# Every op


class Blocks:
    """Dense and sparse derivatives of the nodes of a case."""

    def __init__(self, case: Case) -> None:
        self.scene = Derived(case)
        self.wrt = self.scene.moving
        self.outputs = {str(at): node for at, node in enumerate(self.scene.results) if is_inexact(node.dtype)}

    def numbers(self, table: Any) -> Any:
        flat = [block for row in table.values() for block in row.values()]
        values = run(
            make_plan([each["values"] if isinstance(each, dict) else each for each in flat]), self.scene.arrays
        )
        keys = [(name, by) for name, row in table.items() for by in row]
        return {
            key: each | {"values": value} if isinstance(each, dict) else value
            for key, each, value in zip(keys, flat, values, strict=True)
        }

    def gradient(self) -> dict[str, Node]:
        found = reverse([(node, node) for node in self.outputs.values()], list(self.wrt.values()))
        return dict(zip(self.wrt, filled(found, list(self.wrt.values())), strict=True))


def moving_cases() -> list[Case]:
    return [case for case in cases() if case.moving]


@pytest.mark.parametrize("case", moving_cases(), ids=ids)
def test_the_sparse_jacobian_of_an_op_is_the_dense_one(case: Case) -> None:
    if case.op.name == "grad_clip":
        return  # on the way back it takes a zero for another number: nothing is sparse in that
    blocks = Blocks(case)
    expected = blocks.numbers(jacobian(blocks.outputs, blocks.wrt, "auto", Cutting()))
    for mode in ("forward", "reverse"):
        found = blocks.numbers(sparse_jacobian(blocks.outputs, blocks.wrt, mode, Cutting()))
        for key, block in found.items():
            tolerance = 1e-4 if block["values"].dtype == np.float32 else 1e-10
            assert_same_matrix(block, expected[key], f"{key}, {mode}", tolerance)


@pytest.mark.parametrize("case", moving_cases(), ids=ids)
def test_the_sparse_hessian_of_an_op_is_the_dense_one(case: Case) -> None:
    """Of half the square of its results, so that the rules of second order are in it."""
    if case.op.family == "gradient":
        return
    blocks = Blocks(case)
    gradient = blocks.gradient()
    expected = blocks.numbers(jacobian(gradient, blocks.wrt, "forward", Cutting()))
    found = blocks.numbers(sparse_hessian(gradient, blocks.wrt, Cutting()))
    for key, block in found.items():
        assert_same_matrix(block, expected[key], f"{key}", 1e-4 if block["values"].dtype == np.float32 else 1e-8)


# Random graphs


@random_graphs
@given(graphs(), st.sampled_from(["forward", "reverse", "auto"]))
def test_sparse_jacobians_of_random_graphs(drawn: tuple[dict[str, Any], dict[str, Any]], mode: str) -> None:
    graph, inputs = drawn
    last = graph["nodes"][-1]["id"]
    expected = ask("jacobian", graph, inputs)["jacobian"][last]
    found = ask("jacobian", graph, inputs, sparse=True, mode=mode)["jacobian"][last]
    for name in inputs:
        assert_same_matrix(found[name], expected[name], name, 1e-9)


@random_graphs
@given(graphs())
def test_sparse_hessians_of_random_graphs(drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
    graph, inputs = drawn
    expected = ask("hessian", scalar_of(graph), inputs)["hessian"]
    found = ask("hessian", scalar_of(graph), inputs, sparse=True)["hessian"]
    for name in inputs:
        for by in inputs:
            assert_same_matrix(found[name][by], expected[name][by], f"{name}, {by}", 1e-8)


# Patterns that are as sparse as they can be

X = RNG.uniform(0.5, 1.5, 7)
M = RNG.uniform(0.5, 1.5, (3, 4))
EXACT: list[tuple[str, dict[str, Any]]] = [
    ("sin(x)", {"x": X}),
    ("x[1:] - x[:-1]**2", {"x": X}),
    ("roll(x, 2) * flip(x)", {"x": X}),
    ("concat(x[::2], [1.0], x[1:3] * x[2:4])", {"x": X}),
    ("cumulative_sum(x)", {"x": X}),
    ("diff(x, n=2)", {"x": X}),
    ("pad(x, 2) + repeat(x[:1], 11)", {"x": X}),
    ("take(x, [0, 0, 6, -1])", {"x": X}),
    ("take_along_axis(m, [[0, 3], [1, 1], [2, 0]], axis=1)", {"m": M}),
    ("where([true, false, true, false, true, false, true], x, 0)", {"x": X}),
    ("x * [0, 1, 0, 1, 0, 2, 0]", {"x": X}),
    ("sum(m, axis=0)", {"m": M}),
    ("mean(m, axis=1, keepdims=True)", {"m": M}),
    ("m - mean(m, axis=1, keepdims=True)", {"m": M}),
    ("softmax(m, axis=0)", {"m": M}),
    ("logsumexp(m, axis=1)", {"m": M}),
    ("prod(m, axis=0)", {"m": M}),
    ("max(m, axis=1) - min(m, axis=1)", {"m": M * [1, 2, 3, 4]}),
    ("matrix_transpose(m) * 2", {"m": M}),
    ("outer(x, x)", {"x": X}),
    ("m @ [[1, 0], [0, 2], [3, 0], [0, 4]]", {"m": M}),
    ("m @ n", {"m": M, "n": RNG.uniform(0.5, 1.5, (4, 2))}),
    ("s @ v", {"s": RNG.uniform(0.5, 1.5, (2, 3, 4)), "v": RNG.uniform(0.5, 1.5, 4)}),
    ("v @ s", {"s": RNG.uniform(0.5, 1.5, (2, 3, 4)), "v": RNG.uniform(0.5, 1.5, 3)}),
    ("inv(s)", {"s": RNG.uniform(0.5, 1.5, (2, 3, 3))}),
    ("diagonal(m) * trace(m)", {"m": M}),
    ("triu(m)", {"m": M}),
    ("detach(x) * x", {"x": X}),
    ("untake(x, [4, 0, 1, 1, 0, 3, 2], size=9)", {"x": X}),  # rows that nothing comes to, at the end
]


@pytest.mark.parametrize(("text", "inputs"), EXACT, ids=[text for text, _ in EXACT])
def test_a_pattern_has_no_entry_that_is_always_zero(text: str, inputs: dict[str, Any]) -> None:
    found = ask("jacobian", text, inputs, sparse=True)["jacobian"]["out"]
    dense = ask("jacobian", text, inputs)["jacobian"]["out"]
    for name, block in found.items():
        if "max" not in text:  # which element is the largest is not known before the run
            assert block["indices"].size == np.count_nonzero(dense[name])
        assert_same_matrix(block, dense[name], name, 1e-12)


def test_a_block_is_csr_in_order() -> None:
    block = ask("jacobian", "concat(x[1:] * x[:-1], x[:1])", {"x": [2.0, 3.0, 5.0]}, sparse=True)["jacobian"]["out"][
        "x"
    ]
    assert block["indptr"].tolist() == [0, 2, 4, 5]
    assert block["indices"].tolist() == [0, 1, 1, 2, 0]
    assert block["values"].tolist() == [3.0, 2.0, 5.0, 3.0, 1.0]
    assert block["shape"] == [3, 3]
    assert (block["indptr"].dtype, block["indices"].dtype) == (np.int64, np.int64)


def test_nothing_depends_on_nothing() -> None:
    block = ask("jacobian", "y * 1", {"x": X, "y": M}, sparse=True)["jacobian"]["out"]["x"]
    assert block["indptr"].tolist() == [0] * 13
    assert (block["indices"].size, block["values"].size, block["shape"]) == (0, 0, [12, 7])
    assert ask("hessian", "sum(x)", {"x": X}, sparse=True)["hessian"]["x"]["x"]["values"].size == 0
    assert ask("jacobian", "sin(x)", {"x": np.zeros(0)}, sparse=True)["jacobian"]["out"]["x"]["shape"] == [0, 0]


# Few products


@pytest.mark.parametrize(
    ("call", "text", "expected"),
    [
        ("jacobian", "exp(x)", 1),
        ("jacobian", "x[1:] * x[:-1]", 2),
        ("jacobian", "concat(x[2:] - 2 * x[1:-1] + x[:-2], x[:1]**2)", 3),
        ("jacobian", "concat(reshape(sum(x), [1]), x * x)", 2),  # one dense row: by rows
        ("jacobian", "x * x[0]", 2),  # one dense column: by columns
        ("hessian", "sum(exp(x))", 1),
        ("hessian", "sum(100 * (x[1:] - x[:-1]**2)**2 + (1 - x[:-1])**2)", 3),
        ("hessian", "sum(exp(x * x[0]))", 2),  # an arrow: one hub
    ],
)
def test_there_are_few_products(call: str, text: str, expected: int) -> None:
    compiled = compiled_question(call, text, {"x": np.linspace(0.5, 1.5, 40)}, sparse=True)
    assert products(compiled) == expected
    table = answer_of(compiled)[call]
    dense = ask(call, text, {"x": np.linspace(0.5, 1.5, 40)})[call]
    ((name, row),) = table.items()
    assert_same_matrix(row["x"], dense[name]["x"], text)


def test_inputs_share_their_products() -> None:
    inputs = {f"x{at}": np.linspace(1, 2, 30) for at in range(4)}
    compiled = compiled_question("jacobian", "concat(x0**2, x1**2, x2**2, x3**2)", inputs, sparse=True)
    assert {node.shape[0] for node in compiled.built.graph.live(compiled.results) if node.op.name == "equal"} == {1}


@pytest.mark.parametrize("call", ["jacobian", "hessian"])
def test_a_hundred_thousand_unknowns(call: str) -> None:
    n = 100_000
    text = "sum(100 * (x[1:] - x[:-1]**2)**2 + (1 - x[:-1])**2)" if call == "hessian" else "x * roll(x, 1) - x[0] * 0"
    x = np.linspace(0.5, 1.5, n)
    compiled = compiled_question(call, text, {"x": x}, sparse=True)
    assert products(compiled) <= 4
    assert compiled.plan.peak_bytes < 100 * x.nbytes
    ((_, row),) = answer_of(compiled)[call].items()
    block = row["x"]
    t = np.cos(np.arange(n))
    along = {"tangents": {"x": t}} if call == "jacobian" else {"vectors": {"x": t}}
    expected = ask("jvp" if call == "jacobian" else "hvp", text, {"x": x}, **along)
    expected = expected["tangents"]["out"] if call == "jacobian" else expected["hvp"]["x"]
    matrix = sparse.csr_array((block["values"], block["indices"], block["indptr"]), shape=tuple(block["shape"]))
    assert_close(matrix @ t, expected, 1e-10, "the matrix times a vector")


# With what else a request may say


def test_blocks_of_several_inputs_and_outputs() -> None:
    text, inputs = "a = x[1:] * sum(m); b = m * x[:4]", {"x": X, "m": M}
    dense = ask("jacobian", text, inputs, outputs=["a", "b"])["jacobian"]
    for mode in ("forward", "reverse", "auto"):
        found = ask("jacobian", text, inputs, outputs=["a", "b"], mode=mode, sparse=True)["jacobian"]
        for name in ("a", "b"):
            for by in ("x", "m"):
                assert_same_matrix(found[name][by], dense[name][by], f"{name} by {by}, {mode}")


@pytest.mark.parametrize("call", ["jacobian", "hessian"])
@pytest.mark.parametrize("wrt", [["h"], ["x", "h"], ["h", "x"]])
def test_a_wrt_behind_another(call: str, wrt: list[str]) -> None:
    text = "h = tanh(x[1:]) * x[:-1]; y = h**3 * x[1:]" + ("; s = sum(y)" if call == "hessian" else "")
    dense = ask(call, text, {"x": X}, wrt=wrt)[call]
    found = ask(call, text, {"x": X}, wrt=wrt, sparse=True)[call]
    for name, row in dense.items():
        for by, block in row.items():
            assert_same_matrix(found[name][by], block, f"{name} by {by}")


def test_a_hessian_that_is_not_symmetric() -> None:
    """grad_scale makes the gradient that of no function."""
    text, inputs = "grad_scale(x, scale=2) @ y", {"x": X, "y": X + 1}
    dense = ask("hessian", text, inputs)["hessian"]
    found = ask("hessian", text, inputs, sparse=True)["hessian"]
    assert_same_matrix(found["x"]["y"], dense["x"]["y"], "x, y")
    assert_same_matrix(found["y"]["x"], dense["y"]["x"], "y, x")


@pytest.mark.parametrize("call", ["jacobian", "hessian"])
def test_a_batch_has_a_row_of_values_for_each_example(call: str) -> None:
    inputs = {"x": RNG.normal(size=(3, 5)), "w": np.arange(1.0, 5)}
    text = "x[1:] * x[:-1]**2 * w" if call == "jacobian" else "sum(x[1:] * x[:-1]**2 * w)"
    found = ask(call, text, inputs, batch=["x"], sparse=True)[call]
    for at in range(3):
        dense = ask(call, text, inputs | {"x": inputs["x"][at]})[call]
        for name, row in found.items():
            for by, block in row.items():
                assert block["indptr"].ndim == 1
                assert_same_matrix(block | {"values": block["values"][at]}, dense[name][by], f"{name}, {by}")


def test_the_derivative_graph_gives_the_values() -> None:
    compiled = compiled_question("hessian", "sum(x[1:] * x[:-1]**3)", {"x": X}, sparse=True)
    answer = answer_of(compiled)["hessian"]["x"]["x"]["values"]
    again = ask("value", compiled.derivative_program(), {"x": X})["values"]
    assert_same_bits(again["hessian_x_x_values"], answer, "values")


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_products_come_in_chunks_where_memory_is_short(mode: str) -> None:
    text = "m + sum(outer(sin(m), ones([50])), axis=1) + roll(m, 1) * roll(m, 7) * roll(m, 3) * roll(m, 11)"
    inputs = {"m": RNG.normal(size=40)}
    whole = compiled_question("jacobian", text, inputs, sparse=True, mode=mode)
    limits = replace(LIMITS, peak_bytes=whole.plan.peak_bytes * 2 // 3)
    found = compiled_question("jacobian", text, inputs, sparse=True, mode=mode, limits=limits)
    assert any(node.op.name == "concat" for node in found.built.graph.live(found.results))
    one, other = (each.run(each.bind())["jacobian"]["out"]["m"]["values"] for each in (whole, found))
    assert_close(other, one, 1e-13, "values")


def test_what_is_not_sparse_is_refused() -> None:
    with pytest.raises(LimitExceeded) as caught:
        ask("jacobian", "x * sum(x)", {"x": X}, sparse=True, limits=replace(LIMITS, nonzeros=40))
    assert caught.value.name == "nonzeros"


def test_mask_holds_in_a_sparse_jacobian() -> None:
    text = "where(x > 0, log(x), 0 * x)"
    found = ask("jacobian", text, {"x": np.array([0.0, 2.0])}, sparse=True, nan_policy="mask")["jacobian"]["out"]["x"]
    assert found["values"].tolist() == [0.0, 0.5]


# Colours


@st.composite
def matrices(draw: st.DrawFn) -> Any:
    rows, columns = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return rng.uniform(size=(rows, columns)) < draw(st.sampled_from([0.05, 0.2, 0.5]))


many = settings(max_examples=200, deadline=None, derandomize=True, database=None)


@many
@given(matrices())
def test_no_row_has_two_columns_of_a_colour(matrix: Array) -> None:
    colours = column_colours(sparse.csr_array(matrix))
    assert ((colours < 0) == ~matrix.any(axis=0)).all()
    for row in matrix:
        assert len(set(colours[row])) == row.sum()


@many
@given(matrices())
def test_star_colours_leave_every_entry_alone_in_one_of_its_rows(matrix: Array) -> None:
    size = min(matrix.shape)
    square = matrix[:size, :size] | matrix[:size, :size].T | np.eye(size, dtype=bool)
    colours = star_colours(sparse.csr_array(square))
    for i, j in zip(*np.nonzero(square), strict=True):
        alone = [sum(colours[square[row]] == colours[column]) == 1 for row, column in ((i, j), (j, i))]
        assert any(alone)


@many
@given(matrices())
def test_neighbours_differ_in_colour(matrix: Array) -> None:
    size = min(matrix.shape)
    square = matrix[:size, :size] | matrix[:size, :size].T
    colours = vertex_colours(sparse.csr_array(square))
    for i, j in zip(*np.nonzero(square), strict=True):
        assert i == j or colours[i] != colours[j]


def test_the_pattern_of_nothing() -> None:
    assert pattern_of([], []).shape == (0, 0)


@pytest.mark.parametrize("call", ["jacobian", "hessian"])
def test_no_wrt_has_no_blocks(call: str) -> None:
    dense = ask(call, "y = sum(x * 0.5)", {"x": np.arange(3)})[call]  # of integers there are no derivatives
    assert ask(call, "y = sum(x * 0.5)", {"x": np.arange(3)}, sparse=True)[call] == dense


# Complex numbers


@pytest.mark.parametrize(
    ("text", "outputs"),
    [
        ("a = z[1:] * z[:-1]**2", ["a"]),
        ("a = real(z[1:] * conj(z[:-1]))", ["a"]),
        ("a = exp(z * x)[1:]; b = abs(z) * x; c = x * x", ["c", "b"]),
        ("a = complex(x[1:], x[:-1] * 2)", ["a"]),
    ],
)
def test_complex_blocks_are_the_dense_ones(text: str, outputs: list[str]) -> None:
    inputs = {"z": RNG.normal(size=5) + 1j * RNG.normal(size=5), "x": RNG.uniform(0.5, 1, size=5)}
    dense = ask("jacobian", text, inputs, outputs=outputs)["jacobian"]
    found = ask("jacobian", text, inputs, outputs=outputs, sparse=True)["jacobian"]
    for name, row in dense.items():
        for by, block in row.items():
            expected = block.reshape(found[name][by]["shape"])
            assert_close(full(found[name][by]), expected, 1e-12, f"{name} by {by}")
