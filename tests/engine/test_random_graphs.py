"""Random graphs, built from the registry: whatever is put together, the laws of calculus hold."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from engine.core import Op, ops
from engine.derivative import Refused
from engine.errors import ShapeMismatch
from engine.program import Program, read_graph, write_graph
from engine.text import parse, print_program
from tests.support.asking import LIMITS, ask, node, program_of
from tests.support.numeric import assert_close, assert_same_bits, inner, ridders

SHAPES: list[tuple[int, ...]] = [(), (3,), (2, 3), (3, 1), (1, 3)]
SMOOTH_ONLY = {
    *("abs", "relu", "relu6", "nan_to_num", "maximum", "minimum", "fmax", "fmin", "remainder", "fmod", "copysign"),
    *("max", "min", "median", "vector_norm", "std", "masked_multiply", "floor_divide", "leaky_relu", "elu", "selu"),
    *("hard_sigmoid", "hard_swish", "softsign", "huber_loss", "nanmean", "nansum", "atan2", "hypot", "clip"),
    *("nanmedian", "matrix_norm", "corrcoef"),
}
"""What has kinks, or singular points where a random graph may well stand; other tests look there."""


def takes_floats(op: Op, count: int) -> bool:
    needed = [attr for attr in op.attrs.values() if attr.required]
    return (
        len(op.operands) == count and not needed and not op.results and all("f" in each.kinds for each in op.operands)
    )


def is_smooth(op: Op) -> bool:
    refuses = any(isinstance(slope, Refused) for slope in getattr(op.derivative, "slopes", ()))
    return op.name not in SMOOTH_ONLY and not refuses and not (op.derivative is not None and op.derivative.is_flat)


FAMILIES = ("elementwise", "composite", "reduction", "neural", "special")
UNARY = [op for op in ops if op.family in FAMILIES and takes_floats(op, 1) and is_smooth(op)]
BINARY = [op for op in ops if op.family == "elementwise" and takes_floats(op, 2) and is_smooth(op)]
STRUCTURAL: list[tuple[str, dict[str, Any]]] = [
    ("flatten", {}),
    ("flip", {}),
    ("expand_dims", {"axis": 0}),
    ("broadcast_to", {"shape": [2, 3]}),
    ("roll", {"shift": 1}),
    ("tile", {"repetitions": 2}),
    ("repeat", {"repeats": 2}),
    ("pad", {"pad_width": 1, "constant_values": 0.5}),
    ("permute_dims", {"axes": [1, 0]}),
    ("sum", {"axis": -1}),
    ("mean", {"axis": 0, "keepdims": True}),
    ("logsumexp", {"axis": -1}),
    ("cumulative_sum", {"axis": -1}),
    ("softmax", {"axis": -1}),
    ("slice", {"index": ["...", [None, None, -1]]}),
]


def tamed(name: str, op: Op, at: int, source: str) -> tuple[list[dict[str, Any]], str]:
    """Nodes that bring a value into the op's domain, and the name of the last."""
    low, high = op.domain[min(at, len(op.domain) - 1)]
    names = [f"{name}{step}{at}" for step in "abc"]
    return [
        node(names[0], "tanh", source),
        node(names[1], "multiply", names[0], 0.4 * (high - low)),
        node(names[2], "add", names[1], 0.5 * (high + low)),
    ], names[2]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A graph of a few ops on up to three inputs, and the inputs."""
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    inputs = {f"x{at}": rng.uniform(-1, 1, shape) for at, shape in enumerate(shapes)}
    nodes: list[dict[str, Any]] = []
    known = list(inputs)
    for at in range(draw(st.integers(1, 8))):
        name = f"n{at}"
        kind = draw(st.sampled_from(["unary", "binary", "binary", "structural"]))
        sources = [draw(st.sampled_from(known)) for _ in range(2)]
        if kind == "structural":
            op_name, attrs = draw(st.sampled_from(STRUCTURAL))
            added = [node(name, op_name, sources[0], **attrs)]
        else:
            op = draw(st.sampled_from(UNARY if kind == "unary" else BINARY))
            added, operands = [], []
            for place in range(len(op.operands)):
                before, operand = tamed(name, op, place, sources[place])
                added += before
                operands.append(operand)
            added.append(node(name, op.name, *operands))
        if fits([*nodes, *added], inputs):
            nodes += added
            known.append(name)
    assume(nodes)
    return {"nodes": nodes}, inputs


def fits(nodes: list[dict[str, Any]], inputs: dict[str, Any]) -> bool:
    try:
        value = ask("value", {"nodes": nodes}, inputs)["values"].popitem()[1]
    except ShapeMismatch:
        return False
    return bool(np.isfinite(value).all()) and value.dtype == np.float64 and 0 < value.size < 100


def scalar_of(graph: dict[str, Any]) -> dict[str, Any]:
    """The mean of the tanh of the graph's result, which is bounded and not linear."""
    last = graph["nodes"][-1]["id"]
    return {"nodes": [*graph["nodes"], node("bounded", "tanh", last), node("s", "mean", "bounded")]}


def directions(inputs: dict[str, Any], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=value.shape) for name, value in inputs.items()}


random_graphs = settings(
    max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@random_graphs
@given(graphs())
def test_forward_reverse_and_differences_agree(drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
    graph, inputs = drawn
    graph = scalar_of(graph)
    t = directions(inputs, 1)
    gradient = ask("grad", graph, inputs)["gradients"]
    tangent = float(ask("jvp", graph, inputs, tangents=t)["tangents"]["s"])
    back = sum(inner(gradient[name], t[name]) for name in inputs)
    assert_close(back, tangent, 1e-10, "reverse against forward")

    def moved(h: float) -> Any:
        return ask("value", graph, {name: x + h * t[name] for name, x in inputs.items()})["values"]["s"]

    assert_close(tangent, ridders(moved, 0.01), 1e-5, "forward against differences")


@random_graphs
@given(graphs())
def test_second_orders_agree(drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
    graph, inputs = drawn
    graph = scalar_of(graph)
    t, s = directions(inputs, 1), directions(inputs, 2)
    by_t = ask("hvp", graph, inputs, vectors=t)["hvp"]
    by_s = ask("hvp", graph, inputs, vectors=s)["hvp"]
    one, other = (sum(inner(h[name], v[name]) for name in inputs) for h, v in ((by_t, s), (by_s, t)))
    size = max(1.0, *(float(np.abs(each).max(initial=0)) for h in (by_t, by_s) for each in h.values()))
    assert_close(one / size, other / size, 1e-8, "⟨s, H t⟩ and ⟨t, H s⟩")
    second = ask("taylor", graph, inputs, direction=t, order=2)["coefficients"]["s"][2]
    expected = sum(inner(by_t[name], t[name]) for name in inputs) / 2
    assert_close(second / size, expected / size, 1e-8, "c₂ and tᵀHt / 2")


@random_graphs
@given(graphs())
def test_optimised_graphs_agree_with_plain_ones(drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
    graph, inputs = drawn
    graph = scalar_of(graph)
    t = directions(inputs, 1)
    for call, seeds in (("grad", {}), ("jvp", {"tangents": t}), ("hvp", {"vectors": t}), ("taylor", {"direction": t})):
        more: dict[str, Any] = {"order": 4} if call == "taylor" else {}
        found, expected = (ask(call, graph, inputs, optimise=each, **seeds, **more) for each in (True, False))
        assert_close_trees(found, expected, call)


def assert_close_trees(found: Any, expected: Any, what: str) -> None:
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name, each in expected.items():
            assert_close_trees(found[name], each, f"{what} {name}")
    else:
        assert_close(found, expected, 1e-12, what)


@random_graphs
@given(graphs(), st.randoms(use_true_random=False))
def test_the_order_of_nodes_does_not_matter(drawn: tuple[dict[str, Any], dict[str, Any]], random: Any) -> None:
    graph, inputs = drawn
    graph = scalar_of(graph) | {"outputs": ["s"]}
    shuffled = graph | {"nodes": random.sample(graph["nodes"], len(graph["nodes"]))}
    assert program_of(shuffled).digest == program_of(graph).digest
    found, expected = (ask("grad", each, inputs) for each in (shuffled, graph))
    assert_same_bits(found["values"]["s"], expected["values"]["s"], "value")
    for name in inputs:
        assert_same_bits(found["gradients"][name], expected["gradients"][name], name)


@random_graphs
@given(graphs())
def test_json_and_text_read_back(drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
    graph, inputs = drawn
    program = program_of(graph)
    value = ask("value", program, inputs)["values"].popitem()[1]
    for again in (from_json(program), parse(print_program(program), LIMITS)):
        assert again.digest == program.digest
        assert_same_bits(ask("value", again, inputs)["values"].popitem()[1], value, "value")


def from_json(program: Program) -> Program:
    return read_graph(json.loads(orjson.dumps(write_graph(program), option=orjson.OPT_SERIALIZE_NUMPY)), LIMITS)


@random_graphs
@given(graphs())
def test_a_batch_is_a_loop(drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
    graph, inputs = drawn
    graph = scalar_of(graph)
    wide = {name: np.stack([x, 0.5 * x, -x]) for name, x in inputs.items()}
    together = ask("grad", graph, wide, batch=list(wide))
    for at in range(3):
        one = ask("grad", graph, {name: x[at] for name, x in wide.items()})
        assert_close(together["values"]["s"][at], one["values"]["s"], 1e-10, "value")
        for name in inputs:
            assert_close(together["gradients"][name][at], one["gradients"][name], 1e-9, name)


def test_the_pieces_are_many() -> None:
    """Random graphs draw from most of the catalogue."""
    assert len(UNARY) > 40
    assert len(BINARY) > 6
