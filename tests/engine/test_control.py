"""Loops, branches and functions: equal to what they stand for, written out; and refused with reasons.

The registry's samples hold each op's rules against differences; here whole graphs are held against the same graphs
without a loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.core import INPUT, Node
from engine.errors import EngineError
from engine.execute import run
from engine.loops import Loop
from engine.program import read_graph, write_graph
from engine.text import parse, print_program
from engine.types import Array
from tests.support.asking import LIMITS, answer_of, ask, built, compiled_question, counting_tick, node, program_of
from tests.support.numeric import assert_close

STEPS = 5
RECURRENT = """
cell(h, x) = tanh(W @ h + x)
step(h, x) = {
  new = cell(h, x)
  new, new * h
}
last, all = scan(step, h, xs)
loss = sum(last * c) + sum(all**2)
"""
UNROLLED = "\n".join(
    [
        "h0 = h",
        *(f"h{at + 1} = tanh(W @ h{at} + xs[{at}])" for at in range(STEPS)),
        f"loss = sum(h{STEPS} * c) + " + " + ".join(f"sum((h{at + 1} * h{at})**2)" for at in range(STEPS)),
    ]
)


def inputs(seed: int = 0, steps: int = STEPS) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shapes = {"W": (3, 3), "h": (3,), "xs": (steps, 3), "c": (3,)}
    return {name: rng.normal(size=shape) / 2 for name, shape in shapes.items()}


def leaves(tree: Any) -> list[Array]:
    if isinstance(tree, Mapping):
        return [leaf for each in tree.values() for leaf in leaves(each)]
    return [leaf for each in tree for leaf in leaves(each)] if isinstance(tree, list) else [tree]


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("value", {}),
    ("grad", {}),
    ("jvp", {"tangents": inputs(1)}),
    ("hvp", {"vectors": inputs(2)}),
    ("hessian", {}),
    ("jacobian", {"outputs": ["last"]}),
    ("taylor", {"direction": inputs(3), "order": 6}),
    ("nth", {"order": 3}),
    ("nth", {"path": ["h", "W", "h"]}),
    ("grad", {"batch": ["xs"]}),
    ("hessian", {"batch": ["W"], "wrt": ["h"]}),
    ("taylor", {"direction": {"h": np.ones((2, 3))}, "order": 3, "batch": ["h"]}),
]


@pytest.mark.parametrize(("call", "more"), CALLS, ids=lambda each: each if isinstance(each, str) else "-".join(each))
def test_a_loop_is_what_it_stands_for(call: str, more: dict[str, Any]) -> None:
    """Every call on a recurrent network answers as on the same network written out."""
    more = dict(more)
    tensors: dict[str, Array] = inputs()
    for name in more.get("batch", ()):
        tensors[name] = np.stack([tensors[name], 2 * tensors[name]])
    unrolled = UNROLLED if "outputs" not in more else f"{UNROLLED}\nlast = h{STEPS}"
    found = leaves(ask(call, RECURRENT, tensors, **more))
    expected = leaves(ask(call, unrolled, tensors, **more))
    for at, (one, other) in enumerate(zip(found, expected, strict=True)):
        if isinstance(one, np.ndarray):
            assert_close(one, other, 1e-11, f"{call}, part {at}")


@pytest.mark.parametrize("call", ["grad", "hvp", "hessian"])
@pytest.mark.parametrize("is_reverse", ["true", "false"])
@pytest.mark.parametrize("steps", [4, 9, 23])
def test_checkpoints_change_no_derivative(call: str, is_reverse: str, steps: int) -> None:
    """Where the carries do not fit, some are kept and the steps between run again."""
    text = RECURRENT.replace("h, xs)", f"h, xs, reverse={is_reverse})")
    more = {"vectors": inputs(2, steps)} if call == "hvp" else {}
    roomy = leaves(ask(call, text, inputs(steps=steps), **more))
    from_pieces = leaves(pieces(call, text, inputs(steps=steps), **more))
    for one, other in zip(from_pieces, roomy, strict=True):
        assert_close(one, other, 1e-12, call)


def pieces(call: str, text: str, tensors: dict[str, Array], **more: Any) -> Any:
    """An answer with checkpoints throughout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.ops.control.KEPT", 1 << 40)
        return ask(call, text, tensors, **more)


def test_checkpoints_take_less_memory() -> None:
    """Ten thousand carries of a hundred numbers are 8 MB; a hundred and then a hundred of them are 160 kB."""
    text, tensors = "f(h) = tanh(h * w)\nsum(scan(f, h, length=10000))", {"h": np.ones(100), "w": np.ones(100)}
    generous = compiled_question("grad", text, tensors).plan.peak_bytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.ops.control.KEPT", 1 << 10)
        frugal = compiled_question("grad", text, tensors).plan.peak_bytes
    assert generous > 8_000_000
    assert frugal < 200_000


COUNTED = """
far(x, n) = x > 1
halve(x, n) = x / 2 + sin(x) / 10, n + 1
y, n = while_loop(far, halve, x, 0)
y, n
"""


def test_while_loops_go_as_long_as_they_must() -> None:
    """Values, tangents and series of every example follow its own number of steps."""
    starts = np.array([10.0, 3.0, 0.5])
    many = ask("taylor", COUNTED, {"x": starts}, direction={"x": np.ones(3)}, order=4, batch=["x"])
    assert many["values"]["n"].tolist() == [4, 2, 0]
    for at, start in enumerate(starts):
        steps = int(many["values"]["n"][at])
        written = "\n".join(["x0 = x", *(f"x{i + 1} = x{i} / 2 + sin(x{i}) / 10" for i in range(steps)), f"x{steps}"])
        one = ask("taylor", written, {"x": start}, direction={"x": 1.0}, order=4)["coefficients"]
        assert_close(many["coefficients"]["y"][at], *one.values(), 1e-13, f"the series at {start}")


@pytest.mark.parametrize("call", ["grad", "hessian", "nth"])
def test_while_loops_have_no_reverse_mode(call: str) -> None:
    with pytest.raises(EngineError) as caught:
        ask(call, "c(x) = x > 1\nf(x) = x / 2\nwhile_loop(c, f, x)", {"x": 10.0})
    assert caught.value.code == "not_differentiable"
    assert "fori_loop" in caught.value.detail


BRANCHES = "f(x) = sqrt(x) * a\ng(x) = 0 * x\ny = cond(x > 0, f, g, x)"


@pytest.mark.parametrize(("x", "value", "slopes"), [(4.0, 6.0, (0.75, 2.0)), (-4.0, 0.0, (0.0, 0.0))])
def test_only_the_branch_that_is_taken_counts(x: float, value: float, slopes: tuple[float, float]) -> None:
    """The square root of a negative number is not taken, so its slope spoils nothing."""
    found = ask("grad", BRANCHES, {"x": x, "a": 3.0})
    assert found["values"]["y"] == value
    assert (found["gradients"]["x"], found["gradients"]["a"]) == slopes


def test_branches_are_chosen_for_each_example() -> None:
    x = np.array([4.0, 9.0, -4.0])
    found = ask("grad", BRANCHES, {"x": x, "a": 3.0}, batch=["x"], nan_policy="mask")
    assert found["values"]["y"].tolist() == [6.0, 9.0, 0.0]
    assert found["gradients"]["x"].tolist() == [0.75, 0.5, 0.0]
    assert found["gradients"]["a"].tolist() == [2.0, 3.0, 0.0]


def test_map_is_batch_within_a_graph() -> None:
    tensors = {"xs": np.arange(6.0).reshape(3, 2), "w": np.array([0.5, -1.0])}
    inside = ask("hessian", "f(x) = sum(tanh(x * w))\ny = sum(map(f, xs)**2)", tensors)["hessian"]
    outside = ask("hessian", "y = sum(sum(tanh(xs * w), axis=1)**2)", tensors)["hessian"]
    for one, other in zip(leaves(inside), leaves(outside), strict=True):
        assert_close(one, other, 1e-13, "the Hessian")


# Functions


def test_a_function_sees_the_graph_and_its_own_names_only() -> None:
    """A name inside is a parameter, a node of the function, or one of the graph: never one of a function around it."""
    text = "inner(x) = x * h\nouter(h) = inner(h) + h\nh = 2 * a\nouter(3) + h"
    assert ask("value", text, {"a": 5.0})["values"]["out"] == 3 * 10 + 3 + 10


def test_a_call_is_built_in_place() -> None:
    called = compiled_question("grad", "f(x) = tanh(x) * a\nf(f(y))", {"y": 1.0, "a": 2.0})
    written = compiled_question("grad", "tanh(tanh(y) * a) * a", {"y": 1.0, "a": 2.0})
    assert called.plan.flops == written.plan.flops
    assert [node.op.name for node in called.built.graph.nodes] == [node.op.name for node in written.built.graph.nodes]


def test_calls_that_double_are_counted() -> None:
    """Forty functions that each call the one before it twice stand for a trillion nodes."""
    lines = ["f0(x) = x + 1", *(f"f{at}(x) = f{at - 1}(f{at - 1}(x))" for at in range(1, 31)), "f30(x)"]
    with pytest.raises(EngineError) as caught:
        ask("value", "\n".join(lines), {"x": 1.0}, limits=replace(LIMITS, expanded_nodes=10_000))
    assert caught.value.code == "limit_exceeded"


def test_equal_graphs_with_functions_have_equal_ids() -> None:
    """Neither the order of functions nor their names are content; what they compute is."""
    one = program_of("f(x) = sin(x)\ng(x) = cos(x) * a\ny = f(x) + g(x)")
    other = program_of("second(u) = cos(u) * a\nfirst(v) = sin(v)\ny = first(x) + second(x)")
    third = program_of("f(x) = sin(x)\ng(x) = cos(x) * b\ny = f(x) + g(x)")
    assert one.digest == other.digest != third.digest


STEP = {"inputs": ["h", "x"], "nodes": [node("new", "add", "h", "x")], "outputs": ["new"]}


def posted(functions: Any, *nodes: dict[str, Any]) -> dict[str, Any]:
    return {"functions": functions, "nodes": list(nodes) or [node("y", "scan", "h", "xs", body_fn="step")]}


FAULTS: list[tuple[Any, str, str, str]] = [
    (posted([]), "invalid_graph", "/functions", "an object of functions"),
    (posted({"a b": STEP}), "invalid_graph", "/functions/a b", "a letter or _"),
    (posted({"step": []}), "invalid_graph", "/functions/step", 'an object with "nodes"'),
    (posted({"step": STEP | {"body": 1}}), "invalid_graph", "/functions/step/body", "inputs, nodes, outputs"),
    (posted({"step": STEP | {"inputs": "h"}}), "invalid_graph", "/functions/step/inputs", "a list of names"),
    (posted({"step": STEP | {"inputs": ["h", "h"]}}), "invalid_graph", "/functions/step/inputs", "have one name"),
    (posted({"step": STEP | {"inputs": ["new"]}}), "invalid_graph", "/functions/step/nodes/0/id", "an input of"),
    (posted({"step": STEP | {"outputs": ["odd"]}}), "unknown_name", "/functions/step/outputs", "'odd'"),
    (posted({"step": STEP | {"nodes": []}}), "invalid_graph", "/functions/step/nodes", "at least one node"),
    (posted({"step": STEP | {"nodes": [node("new", "ad", "h")]}}), "unknown_op", "/functions/step/nodes/0/op", "add"),
    (posted({"other": STEP}), "unknown_name", "/nodes/0/attrs/body_fn", "no function is called 'step'"),
    (posted({"step": STEP}, node("y", "step", "h")), "invalid_graph", "/nodes/0", "takes 2 operands (h, x), got 1"),
    (
        posted({"f": {"inputs": ["x"], "nodes": [node("y", "f", "x")]}}, node("y", "f", "h")),
        "graph_cycle",
        "/functions/f",
        "f → f",
    ),
    (
        posted({"step": STEP | {"nodes": [node("new", "matmul", "h", "x")]}}),
        "shape_mismatch",
        "/functions/step/nodes/0",
        "in the function step: matmul",
    ),
    (
        posted({"step": STEP | {"nodes": [node("new", "sum", "h")]}}),
        "shape_mismatch",
        "/nodes/0",
        "carry 0 of step starts with shape [2] and comes back with []",
    ),
]


@pytest.mark.parametrize(
    ("graph", "code", "pointer", "part"), FAULTS, ids=lambda each: each if isinstance(each, str) else ""
)
def test_faults_of_functions_are_pointed_at(graph: Any, code: str, pointer: str, part: str) -> None:
    with pytest.raises(EngineError) as caught:
        ask("value", graph, {"h": [1.0, 2.0], "xs": [[1.0, 2.0, 3.0]]})
    assert (caught.value.code, caught.value.pointer) == (code, pointer)
    assert part in caught.value.detail


# What a loop must not do


def test_a_long_loop_can_be_stopped() -> None:
    compiled = compiled_question("value", "f(x) = sin(x)\nscan(f, x, length=100000)", {"x": 1.0})
    with pytest.raises(TimeoutError):
        run(compiled.plan, compiled.bind(), counting_tick(50))


def test_a_bad_number_inside_a_loop_is_found() -> None:
    with pytest.raises(EngineError) as caught:
        ask("value", "f(x) = log(x - 1)\ny = scan(f, x, length=3)", {"x": 2.0}, nan_policy="raise")
    assert (caught.value.code, caught.value.node) == ("non_finite", "y")


@pytest.mark.parametrize(
    ("call", "more"), CALLS[1:-3], ids=lambda each: each if isinstance(each, str) else "-".join(each)
)
def test_the_graph_of_a_derivative_has_loops_and_gives_the_same_numbers(call: str, more: dict[str, Any]) -> None:
    """Posted back, as JSON and as text."""
    compiled = compiled_question(call, RECURRENT, inputs(), **more)
    answer = answer_of(compiled)
    expected = leaves({name: each for name, each in answer.items() if name != "values"})
    program = compiled.derivative_program()
    assert any(each.op.name == "scan" for each in program.statements)
    graph = write_graph(program, "base64")
    for again in (
        read_graph(graph, LIMITS),
        parse(print_program(program), replace(LIMITS, expression_characters=10**7)),
    ):
        found = ask("value", again, inputs())["values"]
        numbers = [each for each in expected if isinstance(each, np.ndarray)][-len(found) :]
        assert [each.tobytes() for each in found.values()] == [np.asarray(each).tobytes() for each in numbers]


def test_series_of_a_loop_grow_as_a_power_of_the_order() -> None:
    """Nodes inside and outside of the loop, at doubled orders, grow by less than a cube."""
    counts = []
    for order in (4, 8, 16):
        compiled = compiled_question("taylor", RECURRENT, inputs(), direction={"h": np.ones(3)}, order=order)
        counts.append(compiled.built.graph.emitted[0])
    growth = np.log2(np.array(counts[1:]) / counts[:-1])
    assert growth.max() < 3, counts


@pytest.mark.parametrize(("call", "loops"), [("value", 1), ("grad", 2), ("jvp", 1), ("hvp", 2), ("taylor", 1)])
def test_loops_over_the_same_rows_run_as_one(call: str, loops: int) -> None:
    """Values, kept carries and tangents come from one loop forward; adjoints and their tangents from one backward."""
    more = next(more for name, more in CALLS if name == call)
    compiled = compiled_question(call, RECURRENT, inputs(), **more)
    steps = [step.node.op.name for step in compiled.plan.steps]
    assert steps.count("scan") == loops


def test_loops_that_wait_for_each_other_stay_apart() -> None:
    """The second of two loops of the same step begins where the first ended."""
    text = "f(h, x) = tanh(h * x), h\na, b = scan(f, h, xs)\nc, d = scan(f, a, xs)\ny = c + sum(b) + sum(d)"
    tensors = {"h": 0.5, "xs": np.array([0.5, -1.0, 2.0])}
    joined, apart = (leaves(ask("grad", text, tensors, optimise=which)) for which in (True, False))
    for one, other in zip(joined, apart, strict=True):
        assert_close(one, other, 1e-14, "an answer")


def a_scan(text: str, tensors: dict[str, Array]) -> Node:
    outputs, _ = built(text, {name: array.shape for name, array in tensors.items()})
    return next(node for node in outputs[0].graph.live(outputs) if node.op.name == "scan")


def test_a_loop_takes_only_what_its_steps_need() -> None:
    """What is made of a loop is given what it uses, and what it would stack twice is stacked once."""
    node = a_scan("f(h, x) = h * w, x + c\nscan(f, 1.0, xs)", {"w": np.ones(()), "c": np.ones(()), "xs": np.ones(4)})
    loop = Loop.of(node)
    (kept,) = loop.carries.values()
    found = replace(loop, stacked=[kept.becomes, kept.becomes]).emit(node, reverse=True)
    (again,) = {each.inputs[0] for each in (*found.carries.values(), *found.stacked.values())}
    assert [x.attrs["name"] for x in again.inputs if x.op is INPUT] == ["w"]
    assert (len(loop.operands), len(again.inputs), len(again.specs)) == (4, 2, 2)
    assert again.attrs["reverse"]


def test_a_loop_that_does_nothing_is_none() -> None:
    node = a_scan("f(x) = x * 2\nscan(f, xs, carry=0)", {"xs": np.ones(4)})
    size = len(node.graph)
    assert replace(Loop.of(node), stacked=[]).emit(node) == ({}, {})
    assert len(node.graph) == size
