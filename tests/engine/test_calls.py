"""What the calls mean: cotangents, wrt, stacks, batches, and that one call's answer follows from another's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest

from engine.calls import compile_question
from engine.errors import (
    DtypeMismatch,
    EngineError,
    GradOutputsRequired,
    InvalidGraph,
    MissingInput,
    NotDifferentiable,
    NotScalar,
    ShapeMismatch,
    UnknownName,
)
from engine.program import read_graph, write_graph
from tests.support.asking import LIMITS, answer_of, ask, compiled_question, counting_tick, node, program_of, question
from tests.support.numeric import assert_close, assert_same_bits

X = np.array([0.3, -0.7, 1.1])
Y = np.array([1.5, 0.4, -0.2])
A = np.array([[2.0, 0.3, -0.4], [0.1, 1.5, 0.2], [0.5, -0.3, 1.8]])

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "elementwise": ("sin(x) * y + x / (2 + y)", {"x": X, "y": Y}),
    "matrix": ("tanh(A @ x) * y", {"A": A, "x": X, "y": Y}),
    "reduced": ("logsumexp(A * x, axis=1) - y**2", {"A": A, "x": X, "y": Y}),
    "linear algebra": ("solve(A, x) + inv(A) @ y", {"A": A, "x": X, "y": Y}),
    "structural": ("concat(x[1:], flip(y), [1.0, 2.0]) ** 2", {"x": X, "y": Y}),
    "scalar": ("prod(x) * exp(-y @ y)", {"x": X, "y": Y}),
    "branches": ("where(x > y, x * y, exp(x))", {"x": X, "y": Y}),
}
every_case = pytest.mark.parametrize(("text", "inputs"), CASES.values(), ids=CASES.keys())


def scalar(text: str) -> str:
    """A nonlinear scalar of an expression."""
    return f"v = {text}; s = sum(v * v * v)"


def random_like(inputs: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=np.shape(value)) for name, value in inputs.items()}


def flat(array: Any, last: int) -> Any:
    """An array as a matrix whose columns are its last `last` axes."""
    array = np.asarray(array)
    lead = array.shape[: array.ndim - last]
    return array.reshape(int(np.prod(lead)), -1)


# One call from another


@every_case
def test_jacobians_by_rows_and_by_columns_are_one(text: str, inputs: dict[str, Any]) -> None:
    by_rows, by_columns, chosen = (ask("jacobian", text, inputs, mode=mode) for mode in ("reverse", "forward", "auto"))
    for name, value in inputs.items():
        expected = by_rows["jacobian"]["out"][name]
        assert expected.shape == by_rows["values"]["out"].shape + np.shape(value)
        assert_close(by_columns["jacobian"]["out"][name], expected, 1e-12, f"by {name}")
        assert_close(chosen["jacobian"]["out"][name], expected, 1e-12, f"by {name}")


@every_case
def test_jvp_is_the_jacobian_times_the_tangent(text: str, inputs: dict[str, Any]) -> None:
    tangents = random_like(inputs)
    found = ask("jvp", text, inputs, tangents=tangents)["tangents"]["out"]
    jacobian = ask("jacobian", text, inputs)["jacobian"]["out"]
    expected = sum(flat(jacobian[name], t.ndim) @ t.ravel() for name, t in tangents.items())
    assert_close(found.ravel(), expected, 1e-12, "jvp")


@every_case
def test_gradient_is_the_cotangent_times_the_jacobian(text: str, inputs: dict[str, Any]) -> None:
    value = ask("value", text, inputs)["values"]["out"]
    u = np.random.default_rng(1).normal(size=value.shape)
    found = ask("grad", text, inputs, grad_outputs={"out": u})["gradients"]
    jacobian = ask("jacobian", text, inputs)["jacobian"]["out"]
    for name, given in inputs.items():
        expected = (u.ravel() @ flat(jacobian[name], given.ndim)).reshape(given.shape)
        assert_close(found[name], expected, 1e-12, f"by {name}")


@every_case
def test_hessian_is_symmetric_and_the_jacobian_of_the_gradient(text: str, inputs: dict[str, Any]) -> None:
    found = ask("hessian", scalar(text), inputs)
    gradient = compiled_question("grad", scalar(text), inputs).derivative_program()
    again = ask("jacobian", gradient, inputs)["jacobian"]
    for a, x in inputs.items():
        for b, y in inputs.items():
            block = found["hessian"][a][b]
            assert block.shape == x.shape + y.shape
            mirrored = np.moveaxis(found["hessian"][b][a], range(y.ndim), range(-y.ndim, 0))
            assert_close(block, mirrored, 1e-12, f"{a}, {b} and {b}, {a}")
            assert_close(block, again[f"gradients_{a}"][b], 1e-12, f"Jacobian of the gradient, {a}, {b}")
        assert_same_bits(found["gradients"][a], ask("grad", scalar(text), inputs)["gradients"][a], a)


@every_case
def test_hvp_is_the_hessian_times_the_vectors(text: str, inputs: dict[str, Any]) -> None:
    vectors = random_like(inputs)
    found = ask("hvp", scalar(text), inputs, vectors=vectors)
    hessian = ask("hessian", scalar(text), inputs)["hessian"]
    for a, given in inputs.items():
        expected = sum(flat(hessian[a][b], v.ndim) @ v.ravel() for b, v in vectors.items())
        assert_close(found["hvp"][a].ravel(), expected, 1e-11, a)
        assert found["hvp"][a].shape == given.shape


@every_case
def test_taylor_begins_with_the_value_the_jvp_and_half_the_second_order(text: str, inputs: dict[str, Any]) -> None:
    v = random_like(inputs)
    c = ask("taylor", scalar(text), inputs, direction=v, order=2)["coefficients"]["s"]
    assert c.shape == (3,)
    assert_same_bits(c[0], ask("value", scalar(text), inputs)["values"]["s"], "c₀")
    assert_close(c[1], ask("jvp", scalar(text), inputs, tangents=v)["tangents"]["s"], 1e-12, "c₁")
    products = ask("hvp", scalar(text), inputs, vectors=v)["hvp"]
    assert_close(c[2], sum(np.vdot(v[name], products[name]) for name in v) / 2, 1e-12, "c₂")


@every_case
def test_nth_begins_with_the_gradient_and_goes_on_with_row_sums_of_the_hessian(
    text: str, inputs: dict[str, Any]
) -> None:
    rows = ask("nth", scalar(text), inputs, order=2)["derivatives"]
    assert [(row["order"], row["wrt"]) for row in rows] == [(k, [name] * k) for name in inputs for k in (1, 2)]
    hessian = ask("hessian", scalar(text), inputs)
    for row in rows:
        name = row["wrt"][0]
        expected = hessian["gradients"][name]
        if row["order"] == 2:
            block = hessian["hessian"][name][name]
            expected = block.sum(axis=tuple(range(block.ndim // 2)))
        assert_close(row["value"], expected, 1e-11, f"order {row['order']} by {name}")


@every_case
def test_nth_along_a_path_gives_its_prefixes(text: str, inputs: dict[str, Any]) -> None:
    first, *_, last = inputs
    path = [first, last, first]
    rows = ask("nth", scalar(text), inputs, path=path)["derivatives"]
    assert [(row["order"], row["wrt"]) for row in rows] == [(k, path[:k]) for k in (1, 2, 3)]
    hessian = ask("hessian", scalar(text), inputs)["hessian"]
    assert_close(rows[1]["value"], hessian[first][last].sum(axis=tuple(range(inputs[first].ndim))), 1e-11, "order 2")


# What a gradient is taken of, and by what


def test_outputs_add_up() -> None:
    found = ask("grad", "a = x * y; b = x + y", {"x": 2.0, "y": 5.0}, outputs=["a", "b"])
    assert (found["gradients"]["x"], found["gradients"]["y"]) == (6.0, 3.0)


def test_cotangents_weigh_the_outputs() -> None:
    found = ask(
        "grad", "a = x * y; b = x + y", {"x": 2.0, "y": 5.0}, outputs=["a", "b"], grad_outputs={"a": 10.0, "b": 0.0}
    )
    assert (found["gradients"]["x"], found["gradients"]["y"]) == (50.0, 20.0)


def test_a_scalar_output_without_a_cotangent_has_one() -> None:
    found = ask("grad", "a = x * y; b = x + y", {"x": 2.0, "y": 5.0}, outputs=["a", "b"], grad_outputs={"a": 10.0})
    assert found["gradients"]["x"] == 51.0


@pytest.mark.parametrize("shape", [(1,), (1, 1), ()])
def test_an_output_of_one_element_needs_no_cotangent(shape: tuple[int, ...]) -> None:
    assert ask("grad", "x * x", {"x": np.full(shape, 3.0)})["gradients"]["x"].item() == 6.0


def test_ones_are_a_cotangent_of_every_output() -> None:
    found = ask("grad", "a = x * x; b = sum(x)", {"x": X}, outputs=["a", "b"], ones=True)
    assert_close(found["gradients"]["x"], 2 * X + 1, 1e-15, "gradient")


def test_a_tensor_output_needs_a_cotangent() -> None:
    with pytest.raises(GradOutputsRequired) as caught:
        ask("grad", "y = x * x", {"x": X})
    assert all(part in caught.value.detail for part in ("y", "[3]", "grad_outputs", '"ones"', "sum"))
    assert (caught.value.node, caught.value.pointer) == ("y", "/grad_outputs")


def test_accumulate_is_added() -> None:
    found = ask("grad", "sum(x**2)", {"x": X, "y": Y}, accumulate={"x": [10.0, 20.0, 30.0], "y": [1, 2, 3]})
    assert_close(found["gradients"]["x"], 2 * X + [10, 20, 30], 1e-15, "x")
    assert found["gradients"]["y"].tolist() == [1.0, 2.0, 3.0]


def test_zero_for_what_does_not_depend() -> None:
    inputs = {"x": X, "z": np.ones((2, 2))}
    assert ask("grad", "sum(x)", inputs)["gradients"]["z"].tolist() == [[0, 0], [0, 0]]
    assert ask("hessian", "sum(x**2)", inputs)["hessian"]["x"]["z"].shape == (3, 2, 2)
    assert not ask("jacobian", "x * x", inputs)["jacobian"]["out"]["z"].any()
    assert not ask("hvp", "sum(x**2)", inputs, vectors={"z": np.ones((2, 2))})["hvp"]["x"].any()
    assert not ask("jvp", "x * x", inputs, tangents={"z": np.ones((2, 2))})["tangents"]["out"].any()
    assert [float(np.sum(row["value"])) for row in ask("nth", "sum(x)", {"x": X}, order=3)["derivatives"]] == [3, 0, 0]
    coefficients = ask("taylor", "sum(x)", inputs, direction={"z": np.ones((2, 2))}, order=2)["coefficients"]["out"]
    assert coefficients.tolist() == [float(X.sum()), 0.0, 0.0]
    assert ask("nth", "sum(x)", inputs, path=["x", "z", "x"])["derivatives"][-1]["value"].tolist() == [0, 0, 0]


def test_default_wrt_is_every_float_that_does_not_say_otherwise() -> None:
    inputs = {
        "x": {"data": 2.0},
        "y": {"data": 3.0, "requires_grad": False},
        "n": {"data": 2, "dtype": "int64"},
        "z": {"data": 4.0, "requires_grad": True},
    }
    assert ask("grad", "x * y * n * z", inputs)["gradients"].keys() == {"x", "z"}


def test_wrt_overrides_requires_grad() -> None:
    inputs = {"x": {"data": 2.0, "requires_grad": False}}
    assert ask("grad", "x * x", inputs, wrt=["x"])["gradients"]["x"] == 4.0


@pytest.mark.parametrize("name", ["n", "b", "h"])
def test_no_gradient_by_whole_numbers(name: str) -> None:
    inputs = {"x": 1.5, "n": np.int64(3), "b": np.array(True)}
    with pytest.raises(NotDifferentiable) as caught:
        ask("grad", "h = x > 1\ny = x * n + where(b & h, x, 0)", inputs, wrt=["x", name])
    assert caught.value.pointer == "/wrt/1"


def test_requires_grad_of_whole_numbers_is_refused() -> None:
    with pytest.raises(NotDifferentiable):
        ask("grad", "x * n", {"x": 1.0, "n": {"data": 2, "dtype": "int32", "requires_grad": True}})


def test_a_boolean_output_has_no_gradient() -> None:
    with pytest.raises(NotDifferentiable) as caught:
        ask("grad", "x > 1", {"x": 1.5})
    assert "bool" in caught.value.detail


# Gradients by intermediates


def test_gradient_by_an_intermediate() -> None:
    found = ask("grad", "h = x**2; y = exp(h)", {"x": 1.0}, wrt=["h", "x"])
    assert found["gradients"]["h"] == pytest.approx(np.e)
    assert found["gradients"]["x"] == pytest.approx(2 * np.e)


def test_an_equal_expression_elsewhere_is_another_node() -> None:
    """a and b compute the same; y moves with each of them alone."""
    text = "a = x * x; b = x * x; y = 3 * a + 5 * b + x * x"
    assert ask("grad", text, {"x": 2.0}, wrt=["a"])["gradients"]["a"] == 3.0
    found = ask("grad", text, {"x": 2.0}, wrt=["a", "b", "x"])["gradients"]
    assert (found["a"], found["b"], found["x"]) == (3.0, 5.0, 36.0)


def test_gradient_by_the_output_itself_is_the_cotangent() -> None:
    assert ask("grad", "y = x * x", {"x": 3.0}, wrt=["y"])["gradients"]["y"] == 1.0


def test_gradient_by_a_node_behind_another_wrt_goes_through_it() -> None:
    found = ask("grad", "a = 2 * x; b = 3 * a; y = b * b", {"x": 1.0}, wrt=["a", "b"])["gradients"]
    assert (found["a"], found["b"]) == (36.0, 12.0)


def test_gradient_by_one_of_several_results() -> None:
    found = ask("grad", "d = slogdet(A); y = d.logabsdet * x", {"A": A, "x": 2.0}, wrt=["d.logabsdet", "x"])
    assert found["gradients"]["d.logabsdet"] == 2.0


@pytest.mark.parametrize("call", ["jacobian", "hessian", "nth"])
def test_other_calls_take_intermediates(call: str) -> None:
    more: dict[str, Any] = {"order": 2} if call == "nth" else {}
    found = ask(call, "h = x * x; y = h**3", {"x": 2.0}, wrt=["h"], **more)
    expected = {"jacobian": 48.0, "hessian": 24.0, "nth": 24.0}[call]
    value = {
        "jacobian": lambda: found["jacobian"]["y"]["h"],
        "hessian": lambda: found["hessian"]["h"]["h"],
        "nth": lambda: found["derivatives"][1]["value"],
    }[call]()
    assert value == pytest.approx(expected)


def test_a_path_through_an_intermediate() -> None:
    rows = ask("nth", "h = x * x; y = h**3 * x", {"x": 2.0}, path=["h", "h"])["derivatives"]
    assert [float(row["value"]) for row in rows] == [96.0, 48.0]


# no_grad and detach


@pytest.mark.parametrize("call", ["grad", "jacobian"])
def test_no_grad_hides_a_node(call: str) -> None:
    graph = {
        "nodes": [node("a", "multiply", "x", "x") | {"no_grad": True}, node("y", "multiply", "a", "x")],
    }
    found = ask(call, graph, {"x": 3.0})
    assert found["values"]["y"] == 27.0
    assert (found["gradients"]["x"] if call == "grad" else found["jacobian"]["y"]["x"]) == 9.0


@pytest.mark.parametrize("word", ["detach", "stop_gradient", "no_grad"])
def test_detach_hides_what_is_inside(word: str) -> None:
    assert ask("grad", f"{word}(x * 1) * x", {"x": 5.0})["gradients"]["x"] == 5.0


def test_detach_holds_in_every_mode() -> None:
    text, at = "detach(x * x) * x", {"x": 3.0}
    assert ask("jvp", text, at, tangents={"x": 1.0})["tangents"]["out"] == 9.0
    assert ask("hessian", text, at)["hessian"]["x"]["x"] == 0.0
    assert [float(row["value"]) for row in ask("nth", text, at, order=3)["derivatives"]] == [9.0, 0.0, 0.0]
    assert ask("taylor", text, at, direction={"x": 1.0}, order=2)["coefficients"]["out"].tolist() == [27.0, 9.0, 0.0]


def test_no_grad_of_several_results() -> None:
    graph = {
        "nodes": [
            node("d", "slogdet", "A") | {"no_grad": True},
            node("y", "multiply", "d.logabsdet", "x"),
        ]
    }
    found = ask("grad", graph, {"A": A, "x": 2.0})["gradients"]
    assert not found["A"].any()
    assert found["x"] == pytest.approx(np.linalg.slogdet(A)[1])


def test_gradients_can_be_scaled_reversed_and_clipped() -> None:
    assert ask("grad", "grad_scale(x, scale=-1) * 3", {"x": 1.0})["gradients"]["x"] == -3.0
    assert ask("grad", "grad_clip(x, min=-1, max=1) * 3", {"x": 1.0})["gradients"]["x"] == 1.0
    assert ask("value", "grad_scale(x, scale=-1) * 3", {"x": 1.0})["values"]["out"] == 3.0


# Stacks of seeds


def stack_of(inputs: dict[str, Any], count: int = 4) -> dict[str, Any]:
    return {name: np.stack([random_like(inputs, seed)[name] for seed in range(count)]) for name in inputs}


@every_case
def test_a_stack_of_tangents_is_many_jvps(text: str, inputs: dict[str, Any]) -> None:
    stack = stack_of(inputs)
    found = ask("jvp", text, inputs, tangents=stack)
    assert found["values"]["out"].shape == found["tangents"]["out"].shape[1:]
    for at in range(4):
        one = ask("jvp", text, inputs, tangents={name: each[at] for name, each in stack.items()})
        assert_close(found["tangents"]["out"][at], one["tangents"]["out"], 1e-12, f"tangent {at}")


@every_case
def test_a_stack_of_cotangents_is_many_gradients(text: str, inputs: dict[str, Any]) -> None:
    shape = ask("value", text, inputs)["values"]["out"].shape
    stack = np.random.default_rng(0).normal(size=(4, *shape))
    found = ask("grad", text, inputs, grad_outputs={"out": stack})["gradients"]
    for at in range(4):
        one = ask("grad", text, inputs, grad_outputs={"out": stack[at]})["gradients"]
        for name in inputs:
            assert_close(found[name][at], one[name], 1e-12, f"gradient {at} by {name}")


@every_case
def test_a_stack_of_vectors_is_many_products(text: str, inputs: dict[str, Any]) -> None:
    stack = stack_of(inputs)
    found = ask("hvp", scalar(text), inputs, vectors=stack)
    for at in range(4):
        one = ask("hvp", scalar(text), inputs, vectors={name: each[at] for name, each in stack.items()})
        for name, value in inputs.items():
            assert_close(found["hvp"][name][at], one["hvp"][name], 1e-11, f"product {at} by {name}")
            assert found["gradients"][name].shape == value.shape


def test_a_stack_of_directions_is_many_series() -> None:
    stack = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 1.0]])
    found = ask("taylor", "sum(exp(x))", {"x": X}, direction={"x": stack}, order=3)["coefficients"]["out"]
    assert found.shape == (2, 4)
    for at, v in enumerate(stack):
        one = ask("taylor", "sum(exp(x))", {"x": X}, direction={"x": v}, order=3)["coefficients"]["out"]
        assert_close(found[at], one, 1e-13, f"series {at}")


def test_a_stack_beside_a_plain_seed_is_used_with_each() -> None:
    inputs = {"x": X, "y": Y}
    stack = np.eye(3)
    found = ask("jvp", "x * y", inputs, tangents={"x": stack, "y": np.ones(3)})["tangents"]["out"]
    assert_close(found, stack * Y + X, 1e-15, "tangents")


def test_stacks_of_different_lengths_are_refused() -> None:
    with pytest.raises(ShapeMismatch):
        ask("jvp", "x * y", {"x": X, "y": Y}, tangents={"x": np.ones((2, 3)), "y": np.ones((4, 3))})


def test_an_empty_stack_has_an_empty_answer() -> None:
    assert ask("jvp", "sin(x)", {"x": X}, tangents={"x": np.ones((0, 3))})["tangents"]["out"].shape == (0, 3)


# Batches

BATCHED: dict[str, dict[str, Any]] = {
    "value": {},
    "grad": {},
    "jvp": {"tangents": "x"},
    "jacobian": {},
    "hessian": {},
    "hvp": {"vectors": "x"},
    "nth": {"order": 3},
    "taylor": {"direction": "x", "order": 3},
}
TEXT = "s = sum(tanh(A @ x) * y) + logsumexp(x * y)"


@pytest.mark.parametrize("call", BATCHED)
@pytest.mark.parametrize("chosen", [("x",), ("x", "y"), ("x", "A", "y")], ids="".join)
def test_a_batch_is_a_loop_over_examples(call: str, chosen: tuple[str, ...]) -> None:
    rng = np.random.default_rng(2)
    inputs = {"A": A, "x": X, "y": Y}
    wide = {name: value + 0.1 * rng.normal(size=(4, *value.shape)) for name, value in inputs.items() if name in chosen}
    more = dict(BATCHED[call])
    role = next((name for name in more if name in ("tangents", "vectors", "direction")), None)
    seeds = rng.normal(size=(4, 3))
    together = ask(call, TEXT, inputs | wide, batch=chosen, **more | ({role: {"x": seeds}} if role else {}))
    for at in range(4):
        example = inputs | {name: value[at] for name, value in wide.items()}
        one = ask(call, TEXT, example, **more | ({role: {"x": seeds[at]}} if role else {}))
        for (path, found), (_, expected) in zip(leaves(together), leaves(one), strict=True):
            assert_close(found[at], expected, 1e-11, f"{path} of example {at}")


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The arrays of an answer, with where they stand."""
    if isinstance(tree, np.ndarray | np.generic):
        yield path, tree
    elif isinstance(tree, dict | list):
        for name, each in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(each, f"{path}_{name}".lstrip("_"))


def test_per_example_gradients_of_shared_weights() -> None:
    inputs = {"w": [1.0, 1.0], "x": [[1.0, 2.0], [3.0, 4.0]]}
    found = ask("grad", "sum(w * x)**2", inputs, batch=["x"], wrt=["w"])
    assert found["values"]["out"].tolist() == [9.0, 49.0]
    assert found["gradients"]["w"].tolist() == [[6.0, 12.0], [42.0, 56.0]]


def test_a_batch_of_nothing_has_an_empty_answer() -> None:
    found = ask("grad", "sum(sin(x))", {"x": np.ones((0, 3))}, batch=["x"])
    assert found["values"]["out"].shape == (0,)
    assert found["gradients"]["x"].shape == (0, 3)


def test_outputs_that_do_not_depend_on_the_batch_get_its_axis() -> None:
    found = ask("value", "a = sum(x); b = y * 2", {"x": np.ones((4, 3)), "y": Y}, batch=["x"], outputs=["a", "b"])
    assert found["values"]["b"].shape == (4, 3)


def test_cotangents_of_a_batch_are_per_example() -> None:
    wide = np.stack([X, Y])
    found = ask("grad", "x * x", {"x": wide}, batch=["x"], grad_outputs={"out": np.array([X, X])})
    assert_close(found["gradients"]["x"], 2 * wide * X, 1e-15, "gradient")


def test_a_stack_of_cotangents_of_a_batch_has_both_axes() -> None:
    wide = np.stack([X, Y])
    seeds = np.random.default_rng(3).normal(size=(5, 2, 3))
    found = ask("grad", "x * x", {"x": wide}, batch=["x"], grad_outputs={"out": seeds})
    assert_close(found["gradients"]["x"], 2 * wide * seeds, 1e-15, "gradient")


def test_batches_of_different_lengths_are_refused() -> None:
    with pytest.raises(ShapeMismatch):
        ask("value", "x * y", {"x": np.ones((2, 3)), "y": np.ones((3, 3))}, batch=["x", "y"])


def test_a_scalar_cannot_be_a_batch() -> None:
    with pytest.raises(ShapeMismatch):
        ask("value", "x * 2", {"x": 1.0}, batch=["x"])


# The derivative's own graph

POSTED: dict[str, dict[str, Any]] = {
    "grad": {"grad_outputs": {"s": 2.0}, "accumulate": {"x": [1.0, 2.0, 3.0]}},
    "jvp": {"tangents": {"x": [1.0, -1.0, 0.5]}},
    "jacobian": {},
    "hessian": {},
    "hvp": {"vectors": {"x": [1.0, 0.0, 2.0]}},
    "nth": {"order": 4},
    "taylor": {"direction": {"x": [1.0, 0.0, 2.0]}, "order": 4},
}


@pytest.mark.parametrize("call", POSTED)
@pytest.mark.parametrize("encoding", ["json", "base64"])
def test_the_derivative_graph_posted_back_gives_the_same_numbers(call: str, encoding: str) -> None:
    inputs = {"A": A, "x": X, "y": Y}
    compiled = compiled_question(call, TEXT, inputs, **POSTED[call])
    answer = dict(leaves(answer_of(compiled)))
    written = write_graph(compiled.derivative_program(), encoding)
    again = read_graph(json.loads(orjson.dumps(written, option=orjson.OPT_SERIALIZE_NUMPY)), LIMITS)
    found = ask("value", again, inputs)["values"]
    assert found.keys() == compiled.derivative.keys()
    for name, value in found.items():
        assert_same_bits(value, answer[name], name)


def test_the_derivative_graph_of_a_batch_gives_the_same_numbers() -> None:
    inputs = {"A": A, "x": np.stack([X, Y]), "y": Y}
    compiled = compiled_question("grad", TEXT, inputs, batch=["x"])
    answer = answer_of(compiled)["gradients"]
    found = ask("value", compiled.derivative_program(), inputs)["values"]
    for name in ("A", "x", "y"):
        assert_same_bits(found[f"gradients_{name}"], answer[name], name)


def test_the_derivative_graph_can_be_differentiated() -> None:
    first = compiled_question("grad", "x**3", {"x": 2.0}).derivative_program()
    second = compiled_question("grad", first, {"x": 2.0}).derivative_program()
    assert ask("value", second, {"x": 2.0})["values"].popitem()[1] == 12.0


def test_the_derivative_graph_of_a_derivative_by_an_intermediate() -> None:
    compiled = compiled_question("grad", "h = x * x; y = h * h + x * x", {"x": 3.0}, wrt=["h"])
    found = ask("value", compiled.derivative_program(), {"x": 3.0})["values"]
    assert found["gradients_h"] == 18.0


# The order of nodes

NODES = [
    node("h", "tanh", "x"),
    node("p", "multiply", "h", "y"),
    node("q", "add", "p", "h"),
    node("s", "sum", "q", axis=0),
]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_the_order_of_nodes_does_not_matter(order: tuple[int, ...]) -> None:
    straight = {"nodes": NODES, "outputs": ["s"]}
    turned = {"nodes": [NODES[at] for at in order], "outputs": ["s"]}
    assert program_of(turned).digest == program_of(straight).digest
    inputs = {"x": X, "y": Y}
    for (_, found), (path, expected) in zip(
        leaves(ask("grad", turned, inputs)), leaves(ask("grad", straight, inputs)), strict=True
    ):
        assert_same_bits(found, expected, path)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_nodes_changes_no_bit_of_a_long_sum(seed: int) -> None:
    """Seven cotangents meet at x; they are added up in the graph's order, not in that of the request."""
    names = ("sin", "cos", "exp", "tanh", "sinh", "atan", "erf")
    nodes = [node(f"n{at}", name, "x") for at, name in enumerate(names)]
    nodes.append(node("all", "stack", *(each["id"] for each in nodes)))
    nodes.append(node("s", "sum", "all"))
    turned = [nodes[at] for at in np.random.default_rng(seed).permutation(len(nodes))]
    x = np.linspace(-1.0, 1.0, 101)
    found, expected = (ask("grad", {"nodes": each, "outputs": ["s"]}, {"x": x}) for each in (turned, nodes))
    assert_same_bits(found["gradients"]["x"], expected["gradients"]["x"], "gradient")


def test_what_is_not_needed_is_not_refused_but_not_run() -> None:
    """A dead branch that would divide by a singular matrix costs nothing."""
    assert ask("value", "d = inv(A); y = x * 2", {"A": np.zeros((2, 2)), "x": 1.0}, outputs=["y"])["values"]["y"] == 2.0


# Dtypes

PROMOTED = [
    ("int8", "int16", "int16"),
    ("uint8", "int8", "int16"),
    ("uint16", "int16", "int32"),
    ("uint32", "int32", "int64"),
    ("uint8", "uint64", "uint64"),
    ("bool", "int8", "int8"),
    ("bool", "bool", "bool"),
    ("float32", "float64", "float64"),
    ("int8", "float32", "float32"),
    ("int16", "float32", "float32"),
    ("int32", "float32", "float64"),
    ("int64", "float32", "float64"),
    ("bool", "float32", "float32"),
    ("int64", "int64", "int64"),
]


@pytest.mark.parametrize(("a", "b", "expected"), PROMOTED)
def test_tensors_promote_as_in_numpy(a: str, b: str, expected: str) -> None:
    for x, y in ((a, b), (b, a)):
        found = ask("value", "x + y", {"x": np.ones(2, x), "y": np.ones((), y)})["values"]["out"]
        assert found.dtype == expected


WEAK = [
    ("float32", "x * 3", "float32"),
    ("float32", "x * 2.5", "float32"),
    ("float64", "x * 3", "float64"),
    ("int8", "x * 3", "int8"),
    ("int64", "x * 3", "int64"),
    ("int32", "x * 2.5", "float64"),
    ("uint8", "x + 200", "uint8"),
    ("bool", "x + 1", "int64"),
    ("bool", "x + 1.5", "float64"),
    ("float32", "x + pi", "float32"),
    ("float32", "2 ** x", "float32"),
    ("float32", "(1 + 1.5) * x", "float32"),
    ("float32", "where(x > 0, x, 0)", "float32"),
    ("float32", "maximum(x, 0)", "float32"),
    ("float32", "x / 3", "float32"),
    ("int64", "x / 3", "float64"),
    ("int64", "sin(x)", "float64"),
    ("int64", "sqrt(x)", "float64"),
    ("float32", "mean(x)", "float32"),
    ("int8", "sum(x)", "int64"),
    ("uint8", "sum(x)", "uint64"),
]


@pytest.mark.parametrize(("dtype", "text", "expected"), WEAK)
def test_bare_numbers_are_weak(dtype: str, text: str, expected: str) -> None:
    assert ask("value", text, {"x": np.ones(2, dtype)})["values"]["out"].dtype == expected


def test_numbers_alone_are_float64() -> None:
    assert ask("value", "1 + 2 + 0 * x", {"x": np.float32(1)})["values"]["out"].dtype == np.float32
    assert ask("value", "1 + 2", {})["values"]["out"].dtype == np.float64


@pytest.mark.parametrize("text", ["x + 300", "x * -1", "x + 1000000"])
def test_a_number_that_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(DtypeMismatch):
        ask("value", text, {"x": np.ones(2, np.uint8)})


def test_untyped_tensors_are_float64_and_whole_where_whole_numbers_are_due() -> None:
    assert ask("value", "x + 1", {"x": [1, 2]})["values"]["out"].dtype == np.float64
    assert ask("value", "take(x, [1, 0])", {"x": [1, 2]})["values"]["out"].tolist() == [2.0, 1.0]
    with pytest.raises(DtypeMismatch):
        ask("value", "take(x, [0.5])", {"x": [1, 2]})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_seeds_and_gradients_have_their_primals_dtype(dtype: str) -> None:
    x = X.astype(dtype)
    found = ask("grad", "x * x", {"x": x}, grad_outputs={"out": [1, 2, 3]}, accumulate={"x": [1, 1, 1]})
    assert found["gradients"]["x"].dtype == dtype
    assert ask("hvp", "sum(x**3)", {"x": x}, vectors={"x": [1, 2, 3]})["hvp"]["x"].dtype == dtype


def test_a_typed_seed_of_another_dtype_is_refused() -> None:
    with pytest.raises(DtypeMismatch) as caught:
        ask("grad", "x * x", {"x": X}, grad_outputs={"out": np.ones(3, np.float32)})
    assert caught.value.pointer == "/grad_outputs/out"


# Refusals and their pointers

REFUSED: list[tuple[str, str, dict[str, Any], type[EngineError], str | None]] = [
    ("grad", "x * z", {}, MissingInput, None),
    ("grad", "sum(x)", {"wrt": ["nope"]}, UnknownName, "/wrt/0"),
    ("grad", "sum(x)", {"grad_outputs": {"nope": 1.0}}, UnknownName, "/grad_outputs/nope"),
    ("grad", "x * 1", {"grad_outputs": {"out": [1.0, 2.0]}}, ShapeMismatch, "/grad_outputs/out"),
    ("grad", "sum(x)", {"accumulate": {"nope": 1.0}}, UnknownName, "/accumulate/nope"),
    ("grad", "sum(x)", {"accumulate": {"x": [1.0]}}, ShapeMismatch, "/accumulate/x"),
    ("jvp", "x * 1", {}, InvalidGraph, "/tangents"),
    ("jvp", "x * 1", {"tangents": {"nope": 1.0}}, UnknownName, "/tangents/nope"),
    ("jvp", "x * 1", {"tangents": {"x": 1.0}}, ShapeMismatch, "/tangents/x"),
    ("hvp", "sum(x)", {}, InvalidGraph, "/vectors"),
    ("hvp", "sum(x)", {"vectors": {"nope": 1.0}}, UnknownName, "/vectors/nope"),
    ("hvp", "x * 1", {"vectors": {"x": [1.0, 1.0, 1.0]}}, NotScalar, None),
    ("hessian", "x * 1", {}, NotScalar, None),
    ("taylor", "x * 1", {"order": 2}, InvalidGraph, "/direction"),
    ("nth", "sum(x)", {"path": ["x", "nope"]}, UnknownName, "/path/1"),
    ("value", "sum(x)", {"batch": ["nope"]}, UnknownName, "/batch/0"),
]


@pytest.mark.parametrize(("call", "text", "more", "error", "pointer"), REFUSED)
def test_refusal(call: str, text: str, more: dict[str, Any], error: type[EngineError], pointer: str | None) -> None:
    with pytest.raises(error) as caught:
        ask(call, text, {"x": X}, **more)
    assert caught.value.pointer == pointer or pointer is None
    assert caught.value.code == error.code


def test_a_hessian_of_two_outputs_is_refused() -> None:
    with pytest.raises(NotScalar):
        ask("hessian", "a = sum(x); b = sum(x * x)", {"x": X}, outputs=["a", "b"])


def test_a_mismatch_names_the_node_and_the_shapes() -> None:
    with pytest.raises(ShapeMismatch) as caught:
        ask("value", {"nodes": [node("y", "add", "a", "b")]}, {"a": [1, 2], "b": [1, 2, 3]})
    assert caught.value.node == "y"
    assert "[2]" in caught.value.detail
    assert "[3]" in caught.value.detail


# Stopping


def test_a_tick_stops_a_build() -> None:
    with pytest.raises(TimeoutError):
        compile_with(counting_tick(3))


def test_a_tick_that_does_not_raise_changes_nothing() -> None:
    compile_with(counting_tick(10**9))


def compile_with(tick: Any) -> None:
    asked = question("nth", "exp(sin(x) * tanh(x))", {"x": 0.5}, order=40)
    compile_question(asked, LIMITS, tick)


def test_a_tick_stops_a_run() -> None:
    compiled = compiled_question("value", "x @ x @ x @ x @ x @ x", {"x": np.ones((300, 300))})
    with pytest.raises(TimeoutError):
        compiled.run(compiled.bind(), counting_tick(1))


# Compiled once, run often


def test_a_compiled_question_answers_all_of_its_signature() -> None:
    """What was compiled for one question, and kept without its numbers, runs on those of another."""
    first = question("grad", "y = sin(x) * w", {"x": [1.0, 2.0], "w": 3.0}, grad_outputs={"y": [1.0, 1.0]})
    second = question("grad", first.program, {"x": [0.5, -4.0], "w": -1.5}, grad_outputs={"y": [2.0, 3.0]})
    assert first.signature == second.signature
    kept = compile_question(first, LIMITS).lasting()
    assert all(each.array.strides == (0,) * each.array.ndim for each in kept.question.inputs.values())
    own = compile_question(second, LIMITS)
    for name, found in leaves(kept.run(kept.bind(second))):
        assert_same_bits(found, dict(leaves(own.run(own.bind())))[name], str(name))
    assert write_graph(kept.derivative_program(second), "base64") == write_graph(own.derivative_program(), "base64")


@pytest.mark.parametrize(
    "other",
    [
        {"inputs": {"x": [1.0, 2.0, 3.0]}},
        {"inputs": {"x": np.float32([1, 2])}},
        {"inputs": {"x": {"data": [1.0, 2.0], "requires_grad": False}}},
        {"inputs": {"x": [1.0, 2.0], "z": 1.0}},
        {"wrt": []},
        {"ones": False},
        {"nan_policy": "mask"},
        {"batch": ["x"]},
        {"call": "value"},
    ],
    ids=str,
)
def test_questions_that_compile_differently_have_different_signatures(other: dict[str, Any]) -> None:
    program = program_of("y = sin(x)")
    plain: dict[str, Any] = {"call": "grad", "inputs": {"x": [1.0, 2.0]}, "ones": True}
    asked = [question(each.pop("call"), program, each.pop("inputs"), **each) for each in (dict(plain), plain | other)]
    assert asked[0].signature != asked[1].signature
