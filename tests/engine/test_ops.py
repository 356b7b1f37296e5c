"""The catalogue is the test table: every property of tests.support.properties, of every op at every sample."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import numpy as np
import orjson
import pytest

from engine import plan as planning
from engine.attrs import SubGraph
from engine.core import Graph, Node, Op, ops
from engine.describe import describe_op
from engine.errors import EngineError
from engine.execute import run
from engine.plan import make_plan
from engine.program import read_graph, write_attr, write_graph
from engine.text import parse, print_program
from engine.types import Spec, is_inexact
from tests.support import properties
from tests.support.asking import LIMITS, ask
from tests.support.cases import Case, Scene, cases, ids, refusals
from tests.support.numeric import assert_same_bits

CASES = cases()
MOVING = [case for case in CASES if case.moving]
SHAPERS = "gradient"
"""The family of ops whose derivative is on purpose not that of their value."""

every_op = pytest.mark.parametrize("op", list(ops), ids=lambda op: op.name)
every_case = pytest.mark.parametrize("case", CASES, ids=ids)
every_moving_case = pytest.mark.parametrize("case", MOVING, ids=ids)
every_honest_case = pytest.mark.parametrize("case", [each for each in MOVING if each.op.family != SHAPERS], ids=ids)


# Values and derivatives


@every_case
def test_value_is_as_declared(case: Case) -> None:
    properties.value_is_as_declared(case)


@every_honest_case
def test_forward_mode_agrees_with_differences(case: Case) -> None:
    properties.forward_agrees_with_differences(case)


@every_moving_case
def test_reverse_mode_agrees_with_forward_mode(case: Case) -> None:
    properties.reverse_agrees_with_forward(case)


@every_moving_case
def test_second_order_agrees_with_differences(case: Case) -> None:
    properties.second_order_agrees_with_differences(case)


@every_moving_case
def test_second_orders_agree(case: Case) -> None:
    properties.second_orders_agree(case)


@every_moving_case
def test_taylor_mode_agrees_with_nested_forward_mode(case: Case) -> None:
    properties.taylor_agrees_with_nested_forward(case)


@every_case
def test_batch_agrees_with_a_loop(case: Case) -> None:
    properties.batch_agrees_with_a_loop(case)


@every_moving_case
def test_batched_gradient_agrees_with_a_loop(case: Case) -> None:
    properties.batched_gradient_agrees_with_a_loop(case)


@every_moving_case
def test_single_precision_stays(case: Case) -> None:
    properties.single_precision_stays(case)


@every_moving_case
def test_nothing_is_widened(case: Case) -> None:
    properties.nothing_is_widened(case)


@every_moving_case
def test_derivatives_are_as_declared(case: Case) -> None:
    properties.derivatives_are_as_declared(case)


@every_case
def test_optimised_agrees_with_plain(case: Case) -> None:
    properties.optimised_agrees_with_plain(case)


@every_moving_case
def test_optimised_agrees_with_plain_in_single_precision(case: Case) -> None:
    properties.optimised_agrees_with_plain(case.of("float32"))


# Complex operands


def takes_complex(case: Case) -> bool:
    drawn = [at for at, operand in enumerate(case.sample.operands) if isinstance(operand, tuple)]
    if case.sample.functions:
        return False  # it takes what its functions take
    to_real = "dtype" in case.sample.attrs  # those that the samples name have no imaginary part
    return bool(drawn) and not to_real and all("c" in case.op.operand(at).kinds for at in drawn)


PHASES = ("svd", "eigh")
"""Vectors have a free phase: only what does not depend on it can be compared, in tests.engine.test_complex."""

COMPLEX = [case.of("complex128") for case in CASES if takes_complex(case) and case.op.name not in PHASES]
COMPLEX_MOVING = [case for case in COMPLEX if case.moving]
OF_COMPLEX = (
    properties.batch_agrees_with_a_loop,
    properties.value_is_as_declared,
    properties.optimised_agrees_with_plain,
)


def name_of(each: Any) -> str:
    return each.__name__ if callable(each) else str(each)


@pytest.mark.parametrize("holds", OF_COMPLEX, ids=name_of)
@pytest.mark.parametrize("case", COMPLEX, ids=ids)
def test_property_of_complex_operands(case: Case, holds: Callable[[Case], None]) -> None:
    holds(case)


@pytest.mark.parametrize("holds", properties.SMOOTH, ids=name_of)
@pytest.mark.parametrize("case", COMPLEX_MOVING, ids=ids)
def test_property_of_complex_derivatives(case: Case, holds: Callable[[Case], None]) -> None:
    """Directions have random phases, so real and imaginary parts move apart."""
    if not (case.op.family == SHAPERS and holds is properties.forward_agrees_with_differences):
        holds(case)


# Text, JSON, plans


def outcome(program: Any, case: Case) -> dict[str, Any]:
    return ask("value", program, case.drawn)["values"]


def assert_same_outcome(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert_same_bits(found[name], array, name)


@every_case
def test_json_reads_back_as_an_equal_program(case: Case) -> None:
    program = case.program
    written = json.loads(orjson.dumps(write_graph(program), option=orjson.OPT_SERIALIZE_NUMPY))
    again = read_graph(written, LIMITS)
    assert again.digest == program.digest
    assert_same_outcome(outcome(again, case), outcome(program, case))


@every_case
def test_text_reads_back_as_an_equal_program(case: Case) -> None:
    program = case.program
    again = parse(print_program(program), LIMITS)
    assert again.digest == program.digest
    assert_same_outcome(outcome(again, case), outcome(program, case))


@every_case
def test_writing_over_dying_operands_changes_no_bit(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = properties.Derived(case)
    nodes = [*scene.results, *(scene.forward(scene.t, scene.gradient()) if case.moving else [])]
    # A result of one element may be a NumPy scalar, which nothing can be written over.
    monkeypatch.setattr(planning, "REUSE_FROM", 2)
    reused = run(make_plan(nodes), scene.arrays)
    monkeypatch.setattr(planning, "REUSE_FROM", 1 << 60)
    for found, expected in zip(reused, run(make_plan(nodes), scene.arrays), strict=True):
        assert_same_bits(found, expected, str(case))


# Refusals


def attempt(case: Case) -> None:
    """Build, and run if that was not refused. Nothing large is allocated before it is refused."""
    graph = Graph()
    arrays: dict[str, Any] = {}
    operands: list[Any] = []
    for at, operand in enumerate(case.sample.operands):
        if isinstance(operand, tuple):
            arrays[f"x{at}"] = np.broadcast_to(0.5, operand)
            operands.append(graph.input(f"x{at}", Spec(operand, np.dtype(float))))
        elif isinstance(operand, list):
            arrays[f"x{at}"] = case.arrays[f"x{at}"]
            operands.append(graph.input(f"x{at}", Spec(arrays[f"x{at}"].shape, arrays[f"x{at}"].dtype)))
        else:
            operands.append(operand)
    run(make_plan(case.op.apply(graph, operands, case.attrs(graph), posted=True)), arrays)


@pytest.mark.parametrize("case", refusals(), ids=ids)
def test_refusal_has_its_code(case: Case) -> None:
    with pytest.raises(EngineError) as caught:
        attempt(case)
    assert caught.value.code == case.sample.code  # type: ignore[attr-defined]
    assert caught.value.detail


# What is written down of an op


@every_op
def test_doc_is_a_sentence(op: Op) -> None:
    assert op.doc.endswith(".")


@every_op
def test_op_has_samples_and_a_family(op: Op) -> None:
    assert op.samples
    assert op.family


@every_op
def test_refuses_what_it_has_no_attribute_for(op: Op) -> None:
    with pytest.raises(EngineError) as caught:
        op.read_attrs({"no_such_attribute": 1})
    assert caught.value.code == "unknown_attribute"


@pytest.mark.parametrize(
    "op", [op for op in ops if any(not each.may_lack for each in op.operands)], ids=lambda op: op.name
)
def test_refuses_one_operand_too_few(op: Op) -> None:
    needed = sum(operand.default is None and not operand.may_lack for operand in op.operands)
    graph = Graph()
    with pytest.raises(EngineError) as caught:
        op.apply(graph, [1.0] * (needed - 1), Case(op, op.samples[0], 0).attrs(graph))
    assert caught.value.code == "invalid_graph"


@every_op
def test_example_parses_and_calls_the_op(op: Op) -> None:
    program = parse(describe_op(op)["example"], LIMITS)
    assert op in {statement.op for statement in program.statements}


@every_op
def test_grad_fn_is_spelled_as_in_pytorch(op: Op) -> None:
    assert op.grad_fn.endswith("Backward0")
    assert op.grad_fn[0].isupper()


@every_op
def test_description_is_json(op: Op) -> None:
    described = describe_op(op)
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    for attribute in described["attributes"].values():
        jsonschema.Draft202012Validator.check_schema(attribute["schema"])
        if "default" in attribute:
            jsonschema.validate(attribute["default"], attribute["schema"])


@every_op
def test_differentiable_is_described_as_found(op: Op) -> None:
    """An op that is said to have no derivative gives none at any sample."""
    if not describe_op(op)["differentiable"]:
        for case in cases([op]):
            scene = properties.Derived(case)
            assert all(node.op.name == "broadcast_to" or node.value is not None for node in scene.gradient())


@every_case
def test_attributes_fit_their_schema(case: Case) -> None:
    attributes = describe_op(case.op)["attributes"]
    for name, value in case.sample.attrs.items():
        jsonschema.validate(write_attr(value), attributes[name]["schema"])


@every_case
def test_canonical_attributes_read_back_to_themselves(case: Case) -> None:
    """Asking again with the attributes of a node gives the same node."""
    for node in _nodes_of(case):
        plain = {name: value for name, value in node.attrs.items() if not isinstance(value, SubGraph)}
        written = json.loads(json.dumps({name: write_attr(value) for name, value in plain.items()}))
        assert node.op.read_attrs(node.attrs | written) == node.attrs
        again = node.op.apply(node.graph, node.inputs, node.attrs)[0]
        assert (again.inputs[0] if node.op.has_several else again) in (node, *node.inputs)


def _nodes_of(case: Case) -> list[Node]:
    scene = Scene(case)
    return [node for node in scene.graph.live(scene.results) if node.op.name in ops]


def test_every_float_op_with_a_derivative_is_differentiated_somewhere() -> None:
    """No op slips through the table because all its samples are whole numbers."""
    tested = {case.op for case in MOVING}
    for op in ops:
        scenes = [Scene(case) for case in cases([op])]
        gives_floats = any(is_inexact(node.dtype) for scene in scenes for node in scene.results)
        takes_floats = any("f" in operand.kinds for operand in op.operands)
        flat = op.derivative is not None and op.derivative.is_flat
        refuses = not any(scene.has_derivative(name) for scene in scenes for name in scene.leaves)
        assert op in tested or flat or refuses or not (gives_floats and takes_floats), op.name
