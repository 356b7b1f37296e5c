"""Jacobians and their kin: chosen modes, structure that is used, chunks within the limits, graphs that do not grow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from engine.calls import Compiled
from engine.errors import LimitExceeded
from tests.engine.test_random_graphs import graphs, random_graphs, scalar_of
from tests.support.asking import LIMITS, ask, compiled_question
from tests.support.numeric import assert_close

RNG = np.random.default_rng(5)
A = RNG.normal(size=(6, 4))
X = RNG.normal(size=4)
Y = RNG.normal(size=6)


def columns(text: str, inputs: dict[str, Any], by: str) -> Any:
    """A Jacobian, one jvp for each element of an input."""
    x = np.asarray(inputs[by])
    found = [
        ask("jvp", text, inputs, tangents={by: unit.reshape(x.shape)})["tangents"]["out"] for unit in np.eye(x.size)
    ]
    return np.stack(found, axis=-1).reshape((*found[0].shape, *x.shape))


STRUCTURED: dict[str, tuple[str, dict[str, Any]]] = {
    "diagonal": ("exp(x) * sin(x) - x / 3", {"x": X}),
    "matrix times vector": ("tanh(A @ x) * y", {"A": A, "x": X, "y": Y}),
    "vector times matrix": ("(y * y) @ sin(A) + x", {"A": A, "x": X, "y": Y}),
    "vector times vector": ("(x @ x) * x", {"x": X}),
    "stacks": ("B @ (x * x)", {"B": RNG.normal(size=(3, 2, 4)), "x": X}),
    "selected": ("where(x > 0, A @ x, 0 * y)[:3] + relu(x)[:3]".replace("x > 0", "y > 0"), {"A": A, "x": X, "y": Y}),
    "two ways": ("A @ x + cumulative_sum(y * y) - (A @ sin(x)) * y", {"A": A, "x": X, "y": Y}),
    "reshaped": ("reshape(sin(x), [2, 2]) @ reshape(x * x, [2, 2])", {"x": X}),
    "clipped on the way back": ("grad_clip(sin(x), min=0.25, max=0.5) * x", {"x": X}),
    "scalar": ("exp(x) * x", {"x": np.array(0.3)}),
    "empty": ("sin(x)", {"x": np.zeros((0, 2))}),
}


@pytest.mark.parametrize("mode", ["forward", "reverse", "auto"])
@pytest.mark.parametrize(("text", "inputs"), STRUCTURED.values(), ids=STRUCTURED.keys())
def test_a_jacobian_is_its_columns(text: str, inputs: dict[str, Any], mode: str) -> None:
    if "grad_clip" in text and mode != "forward":
        text = text.replace("grad_clip(sin(x), min=0.25, max=0.5)", "sin(x)")  # it is another function on the way back
    found = ask("jacobian", text, inputs, mode=mode)["jacobian"]["out"]
    for name, value in inputs.items():
        if value.size:
            assert_close(found[name], columns(text, inputs, name), 1e-13, f"by {name}")


def test_what_is_not_linear_on_the_way_back_meets_every_row() -> None:
    """grad_clip takes a cotangent of 0 to 0.25: that is no diagonal."""
    found = ask("jacobian", "grad_clip(x, min=0.25, max=0.5)", {"x": X[:2]}, mode="reverse")["jacobian"]["out"]["x"]
    assert found.tolist() == [[0.5, 0.25], [0.25, 0.5]]


def test_an_infinite_slope_stays_in_its_place() -> None:
    """Zeros of the basis are no factors: 0·∞ does not come up."""
    found = ask("jacobian", "sqrt(x)", {"x": np.array([0.0, 1.0])})["jacobian"]["out"]["x"]
    assert found.tolist() == [[np.inf, 0.0], [0.0, 0.5]]


def test_mask_holds_under_a_basis() -> None:
    """A tangent of 0 wins over an infinite slope."""
    inputs = {"A": np.array([[0.0, 1.0], [1.0, 0.0]]), "x": np.array([0.0, 4.0])}
    found = ask("jacobian", "sqrt(A @ x)", inputs, wrt=["x"], mode="forward", nan_policy="mask")["jacobian"]["out"]["x"]
    assert found.tolist() == [[0.0, 0.25], [np.inf, 0.0]]


# The mode


def swept(compiled: Compiled) -> int:
    return compiled.plan.flops


@pytest.mark.parametrize(
    ("text", "inputs", "by_name"),
    [
        ("sum(sin(A @ x))", {"A": A, "x": X}, "reverse"),
        ("cos(arange(100)) * (x @ x)", {"x": X}, "forward"),
        ("s = sum(x); s * y", {"x": RNG.normal(size=50), "y": np.ones(2)}, "reverse"),
        # As many rows as columns: what a row and what a column take decides.
        ("h = cumulative_sum(x); sum(sin(outer(h, h)), axis=0)", {"x": RNG.normal(size=9)}, "reverse"),
        ("prod(outer(x, x), axis=0)", {"x": RNG.normal(size=9)}, "forward"),
    ],
)
def test_auto_takes_the_cheaper_mode(text: str, inputs: dict[str, Any], by_name: str) -> None:
    costs = {mode: swept(compiled_question("jacobian", text, inputs, mode=mode)) for mode in ("forward", "reverse")}
    assert min(costs, key=costs.__getitem__) == by_name
    assert swept(compiled_question("jacobian", text, inputs)) == costs[by_name]


def test_what_hangs_together_is_swept_once() -> None:
    """Ten inputs, one output: one reverse sweep, and no forward sweep for each."""
    inputs = {f"x{at}": np.ones(3) for at in range(10)}
    compiled = compiled_question("jacobian", "sin(" + " + ".join(inputs) + ")", inputs)
    probes = [node for node in compiled.built.graph.nodes if str(node.attrs.get("name", "")).startswith("probe/")]
    assert len(probes) == 1


def test_what_does_not_hang_together_is_chosen_for_by_itself() -> None:
    inputs = {"x": np.ones(100), "y": np.ones(2)}
    text = "a = sum(x * x); b = broadcast_to(y[0] * y[1], [100])"
    both = compiled_question("jacobian", text, inputs, outputs=["a", "b"])
    assert swept(both) < 2_000
    assert_close(both.run(both.bind())["jacobian"]["b"]["y"], np.ones((100, 2)), 0, "b by y")
    assert not both.run(both.bind())["jacobian"]["a"]["y"].any()


# Structure


def test_no_product_with_the_identity() -> None:
    inputs = {"A": np.ones((50, 50)), "x": np.ones(50)}
    compiled = compiled_question("jacobian", "tanh(A @ x)", inputs, wrt=["x"])
    assert swept(compiled) < 15_000  # one product with x, one scaling of A; with the identity it would be 250,000


def test_a_hessian_of_a_loss_has_one_product() -> None:
    inputs = {"X": np.ones((40, 10)), "w": np.ones(10)}
    compiled = compiled_question("hessian", "sum(log1p(exp(X @ w)))", inputs, wrt=["w"])
    products = [
        node for node in compiled.built.graph.live(compiled.results) if node.op.name == "matmul" and node.size > 40
    ]
    assert [node.size for node in products] == [100]


# Chunks

WIDE = "h = cumulative_sum(sin(outer(x, x)), axis=1)"
"""What is held on the way has as many elements as the answer for each element of x."""


def cut(call: str, text: str, inputs: dict[str, Any], peak: float, **more: Any) -> Compiled:
    """The same question with a part of the memory that it would take in one piece."""
    whole = compiled_question(call, text, inputs, **more).plan.peak_bytes
    limits = replace(LIMITS, peak_bytes=int(whole * peak))
    return compiled_question(call, text, inputs, limits=limits, **more)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_a_jacobian_larger_than_memory_comes_in_chunks(mode: str) -> None:
    inputs = {"x": RNG.normal(size=60)}
    text = f"{WIDE}; y = sum(sin(h), axis=0)"
    found = cut("jacobian", text, inputs, 0.2, mode=mode)
    assert any(node.op.name == "concat" for node in found.built.graph.live(found.results))
    whole = ask("jacobian", text, inputs, mode=mode)["jacobian"]["y"]["x"]
    assert_close(found.run(found.bind())["jacobian"]["y"]["x"], whole, 1e-13, "in chunks")
    again = ask("value", found.derivative_program(), inputs)["values"]["jacobian_y_x"]
    assert_close(again, whole, 1e-13, "the derivative graph")


@pytest.mark.parametrize("batch", [(), ("x",)])
def test_a_hessian_larger_than_memory_comes_in_chunks(batch: tuple[str, ...]) -> None:
    inputs = {"x": RNG.normal(size=(3, 40) if batch else 40)}
    text = f"{WIDE}; y = sum(h * h)"
    found = cut("hessian", text, inputs, 0.2, batch=batch)
    whole = ask("hessian", text, inputs, batch=batch)["hessian"]["x"]["x"]
    assert_close(found.run(found.bind())["hessian"]["x"]["x"], whole, 1e-12, "in chunks")


@random_graphs
@given(graphs())
def test_chunks_change_nothing(drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
    graph, inputs = drawn
    whole = {call: ask(call, scalar_of(graph), inputs)[call] for call in ("hessian", "jacobian")}
    for call in whole:
        try:
            found = cut(call, scalar_of(graph), inputs, 0.7)
        except LimitExceeded:
            continue
        for name, blocks in found.run(found.bind())[call].items():
            for by, block in blocks.items():
                assert_close(block, whole[call][name][by], 1e-9, f"{call} {name}, {by}")


@random_graphs
@given(graphs())
def test_modes_agree(drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
    graph, inputs = drawn
    last = graph["nodes"][-1]["id"]
    one, other = (ask("jacobian", graph, inputs, mode=mode)["jacobian"][last] for mode in ("forward", "reverse"))
    for name in inputs:
        size = max(1.0, float(np.abs(one[name]).max(initial=0)))
        assert_close(one[name] / size, other[name] / size, 1e-9, name)


def test_an_answer_that_does_not_fit_is_refused_at_once() -> None:
    with pytest.raises(LimitExceeded):
        compiled_question("jacobian", "cumulative_sum(sin(x))", {"x": np.zeros(1_000_000)})


def test_a_chunk_is_as_large_as_memory_allows() -> None:
    """Twice the memory, about half the chunks."""
    counts = []
    for peak in (0.15, 0.3, 0.6):
        found = cut("hessian", f"{WIDE}; y = sum(h * h)", {"x": RNG.normal(size=60)}, peak)
        (joint,) = (node for node in found.built.graph.live(found.results) if node.op.name == "concat")
        counts.append(len(joint.inputs))
    assert counts[2] == 2 and counts[2] <= counts[1] <= counts[0] <= 16


def test_parts_of_a_view_do_not_keep_the_whole() -> None:
    """Of a large array only its last row is answered: what a chunk leaves behind is that row."""
    text = "cumulative_sum(sin(outer(x, x)), axis=0)[-1]"
    inputs = {"x": RNG.normal(size=60)}
    found = cut("jacobian", text, inputs, 0.2)
    assert_close(found.run(found.bind())["jacobian"]["out"]["x"], columns(text, inputs, "x"), 1e-12, "in chunks")


def test_an_answer_too_large_for_chunks_is_refused_where_it_has_no_images() -> None:
    with pytest.raises(LimitExceeded, match="elements"):
        compiled_question("jacobian", "x**0", {"x": np.ones(200)}, limits=replace(LIMITS, elements=10_000))


def test_what_all_chunks_share_counts_once() -> None:
    """Else a graph that is within the limit would be refused for what its chunks together seem to take."""
    text, inputs = "prod(x) * sum(M @ M)", {"x": RNG.normal(size=1500), "M": RNG.normal(size=(800, 800))}
    found = cut("laplacian", text, inputs, 0.2, wrt=["x"])
    limits = replace(LIMITS, peak_bytes=found.plan.peak_bytes, cost_seconds=1.2 * found.plan.seconds)
    compiled_question("laplacian", text, inputs, limits=limits, wrt=["x"])


# Growth


@pytest.mark.parametrize("call", ["jacobian", "hessian"])
def test_the_graph_does_not_grow_with_the_basis(call: str) -> None:
    counts = []
    for size in (3, 30, 300):
        text = "h = tanh(A @ x) * cumulative_sum(x); y = sum(h * h * x)" if call == "hessian" else "sin(A @ x) * x[0]"
        inputs = {"A": np.ones((size, size)), "x": np.ones(size)}
        compiled = compiled_question(call, text, inputs, wrt=["x"])
        counts.append(len(compiled.built.graph.live(compiled.results)))
    assert len(set(counts)) == 1
