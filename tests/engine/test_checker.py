"""The tests of the tests: faults that are planted on purpose are found, each by the property that is meant for it.

The planted ops are built here and stay out of the catalogue. Every fault has a twin without it, in which every
property holds: a property that cried wolf would be found, too. The same faults are put before engine.check, which
serves POST /grad/check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.calls import Question
from engine.check import check
from engine.core import Node, Op, Operand, Sample, ops
from engine.derivative import Bilinear, Custom, Linear, Partials, unbroadcast
from engine.families import batch_aligned, broadcast_shape, part_dtype, same_shape
from engine.limits import Limits
from tests.support import properties
from tests.support.asking import tensors
from tests.support.cases import Case
from tests.support.numeric import assert_close, assert_same_bits, ridders

Property = Callable[[Case], None]


def planted(kernel: Callable[..., Any], derivative: Any, *operands: tuple[int, ...], **record: Any) -> Case:
    """An op that only this module knows, at one sample."""
    names = tuple(Operand(f"x{at}", "f") for at in range(len(operands)))
    defaults: dict[str, Any] = {"operands": names, "shape": broadcast_shape, "batch": batch_aligned}
    op = Op("planted", "An op with a fault.", kernel=kernel, derivative=derivative, **defaults | record)
    return Case(op, Sample(operands), 0)


def sine(slope: Callable[..., Any], **record: Any) -> Case:
    return planted(np.sin, Partials((slope,)), (2, 3), **record)


def area(first: Callable[..., Any], second: Callable[..., Any]) -> Case:
    """x·y²"""
    return planted(lambda x, y: x * y * y, Partials((first, second)), (3,), (3,))


def turned(back: int, batch_axis: int = 1, rule: Linear | None = None) -> Case:
    """A roll by one along axis 0, whose adjoint rolls `back`; under a batch it rolls along `batch_axis`."""
    rule = rule or Linear(lambda g, x: ops.roll(g, shift=back, axis=0))

    def batched(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
        return ops.roll(args[0], shift=1, axis=batch_axis)

    return planted(lambda x: np.roll(x, 1, axis=0), rule, (3, 2), shape=same_shape, batch=batched)


def product(left: Callable[..., Any], right: Callable[..., Any]) -> Case:
    return planted(np.multiply, Bilinear(left, right), (2, 3), (3,))


def squared(forward: Callable[..., Any], reverse: Callable[..., Any]) -> Case:
    return planted(np.square, Custom(forward, reverse), (5,), shape=same_shape)


def both(first: int, second: int) -> Case:
    """(sin x, x³) as two results; the reverse rule reads its cotangents in the order (first, second)."""

    def slopes(x: Node) -> tuple[Node, Node]:
        return ops.cos(x), 3.0 * x * x

    def forward(node: Node, t: Node) -> tuple[Node, ...]:
        return tuple(slope * t for slope in slopes(node.inputs[0]))

    def reverse(node: Node, g: Sequence[Node | None]) -> list[Node | None]:
        total: Node | None = None
        for slope, each in zip(slopes(node.inputs[0]), (g[first], g[second]), strict=True):
            term = each and slope * each
            total = term if total is None else total if term is None else total + term
        return [total]

    return planted(
        lambda x: (np.sin(x), x**3),
        Custom(forward, reverse),
        (3,),
        results=("sine", "cube"),
        shape=lambda x: (x, x),
        batch=lambda node, args, batched: node.op.several(args[0]),
    )


def cosine(out: Node, x: Node) -> Node:
    return ops.cos(x)


def but_at_the_end(x: Node, right: Node, wrong: Node) -> Node:
    """`right`, but `wrong` at the last element."""
    last = np.zeros(x.shape, bool)
    last[..., -1] = True
    return ops.where(x.graph.constant(last), wrong, right)


def in_float64(out: Node, x: Node) -> Node:
    return ops.astype(ops.cos(ops.astype(x, dtype="float64")), dtype="float64")


def spoilt(x: Any) -> Any:
    """sin x, and x is no more what it was."""
    out = np.sin(x)
    if x.flags.writeable:
        x += 1.0
    return out


class OffSeries(Bilinear):
    """A product, with series that forget to go on."""

    def taylor(self, node: Node, order: int) -> Any:
        return None if order < 2 else _zero()


def _zero() -> Any:
    return None
    yield  # a generator, as series are


MIXING = turned(-1, batch_axis=0)
"""Turned twice, three rows are turned back; a batch of them is not."""

LYING = planted(
    lambda x: np.roll(x, -1, axis=0).astype(np.float32),
    Linear(lambda g, x: ops.roll(g, shift=1, axis=0)),
    (3, 2),
    shape=same_shape,
)
"""Says float64, and computes float32."""

TWINS = {
    "sine": sine(cosine),
    "area": area(lambda out, x, y: y * y, lambda out, x, y: 2.0 * x * y),
    "turned": turned(-1),
    "product": product(
        lambda g, x, y: unbroadcast(g * y, x.shape),
        lambda g, x, y: unbroadcast(g * x, y.shape),
    ),
    "squared": squared(
        lambda node, t: 2.0 * node.inputs[0] * t,
        lambda node, g: 2.0 * node.inputs[0] * g,
    ),
    "both": both(0, 1),
}

FAULTS: dict[str, tuple[Case, Property]] = {
    "a wrong slope": (
        sine(lambda out, x: ops.cos(x) + 0.001 * x),
        properties.forward_agrees_with_differences,
    ),
    "a wrong sign": (sine(lambda out, x: -ops.cos(x)), properties.forward_agrees_with_differences),
    "a missing factor": (
        area(lambda out, x, y: y * y, lambda out, x, y: x * y),
        properties.forward_agrees_with_differences,
    ),
    "slopes in the wrong order": (
        area(lambda out, x, y: 2.0 * x * y, lambda out, x, y: y * y),
        properties.forward_agrees_with_differences,
    ),
    "a slope that is wrong at one element": (
        sine(lambda out, x: but_at_the_end(x, ops.cos(x), 1.01 * ops.cos(x))),
        properties.forward_agrees_with_differences,
    ),
    "a slope that is forgotten": (sine(lambda out, x: None), properties.forward_agrees_with_differences),
    "no linear map": (
        planted(lambda x: x + 1.0, Linear(lambda g, x: g), (3,), shape=same_shape),
        properties.forward_agrees_with_differences,
    ),
    "a wrong adjoint": (turned(1), properties.reverse_agrees_with_forward),
    "adjoints in the wrong order": (
        product(lambda g, x, y: unbroadcast(g * x, x.shape), lambda g, x, y: unbroadcast(g * y, y.shape)),
        properties.reverse_agrees_with_forward,
    ),
    "a cotangent that is not summed back": (
        product(lambda g, x, y: g * y, lambda g, x, y: g * x),
        properties.reverse_agrees_with_forward,
    ),
    "a reverse rule that is wrong at one element": (
        squared(
            lambda node, t: 2.0 * node.inputs[0] * t,
            lambda node, g: but_at_the_end(g, 2.0 * node.inputs[0] * g, node.inputs[0] * g),
        ),
        properties.reverse_agrees_with_forward,
    ),
    "results taken for one another": (both(1, 0), properties.reverse_agrees_with_forward),
    "a slope that is right but detached": (
        sine(lambda out, x: ops.detach(ops.cos(x))),
        properties.second_order_agrees_with_differences,
    ),
    "a slope whose own slope is twice too large": (
        sine(lambda out, x: 2.0 * ops.cos(x) - ops.detach(ops.cos(x))),
        properties.second_order_agrees_with_differences,
    ),
    "a reverse rule that is detached": (
        squared(
            lambda node, t: 2.0 * node.inputs[0] * t,
            lambda node, g: 2.0 * ops.detach(node.inputs[0]) * g,
        ),
        properties.second_orders_agree,
    ),
    "mixed partials that differ": (
        area(lambda out, x, y: ops.detach(y) * y, lambda out, x, y: 2.0 * x * y),
        properties.second_orders_agree,
    ),
    "a series that stops": (
        planted(np.multiply, OffSeries(lambda g, x, y: g * y, lambda g, x, y: g * x), (3,), (3,)),
        properties.taylor_agrees_with_nested_forward,
    ),
    "a batch rule along the wrong axis": (turned(-1, batch_axis=2), properties.batch_agrees_with_a_loop),
    "a batch rule that mixes examples": (turned(-1, batch_axis=0), properties.batch_agrees_with_a_loop),
    "a gradient that a batch mixes up": (
        turned(-1, rule=Linear(lambda g, x: MIXING.op(MIXING.op(g)))),
        properties.batched_gradient_agrees_with_a_loop,
    ),
    "a value that is widened": (
        planted(lambda x: np.sin(x, dtype=np.float64), Partials((cosine,)), (2, 3)),
        properties.single_precision_stays,
    ),
    "a slope in double precision": (sine(in_float64), properties.nothing_is_widened),
    "a cotangent that is not what it says": (
        turned(-1, rule=Linear(lambda g, x: LYING.op(g))),
        properties.derivatives_are_as_declared,
    ),
    "a shape that is not what was declared": (
        planted(lambda x: np.sin(x)[None], Partials((cosine,)), (3,), shape=same_shape),
        properties.value_is_as_declared,
    ),
    "an operand that is written over": (
        planted(spoilt, Partials((cosine,)), (3,)),
        properties.value_is_as_declared,
    ),
}


@pytest.mark.parametrize("law", [properties.value_is_as_declared, *properties.SMOOTH], ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", TWINS)
def test_what_is_right_passes(name: str, law: Property) -> None:
    law(TWINS[name])


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found(name: str) -> None:
    case, law = FAULTS[name]
    with pytest.raises(AssertionError):
        law(case)


def test_every_property_finds_a_fault() -> None:
    """No property is there only for show."""
    assert {law for _, law in FAULTS.values()} == {properties.value_is_as_declared, *properties.SMOOTH}


def of_complex(case: Case) -> Case:
    """The same at complex numbers."""
    operands = tuple(replace(operand, kinds="fc") for operand in case.op.operands)
    return replace(case, op=replace(case.op, operands=operands)).of("complex128")


def magnitude(slope: Callable[..., Any]) -> Case:
    return of_complex(planted(np.abs, Partials((slope,)), (2, 3), returns=part_dtype))


COMPLEX_TWINS = {
    "a real result": magnitude(lambda out, x: ops.conj(ops.sign(x))),
    "a rule by hand": of_complex(squared(lambda node, t: 2 * node.inputs[0] * t, lambda node, g: conj_twice(node) * g)),
    "a conjugate": of_complex(planted(np.conj, Linear(lambda g, x: ops.conj(g)), (3,), shape=same_shape)),
}
COMPLEX_FAULTS = {
    "a slope that is not conjugated": (
        magnitude(lambda out, x: ops.sign(x)),
        properties.forward_agrees_with_differences,
    ),
    "a rule by hand that forgets to conjugate": (
        of_complex(squared(lambda node, t: 2 * node.inputs[0] * t, lambda node, g: 2 * node.inputs[0] * g)),
        properties.reverse_agrees_with_forward,
    ),
    "an adjoint that is not the real one": (
        of_complex(planted(np.conj, Linear(lambda g, x: g), (3,), shape=same_shape)),
        properties.reverse_agrees_with_forward,
    ),
}


def conj_twice(node: Node) -> Node:
    return 2 * ops.conj(node.inputs[0])


@pytest.mark.parametrize("law", properties.SMOOTH, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", COMPLEX_TWINS)
def test_what_is_right_of_complex_numbers_passes(name: str, law: Property) -> None:
    law(COMPLEX_TWINS[name])


@pytest.mark.parametrize("name", COMPLEX_FAULTS)
def test_fault_of_complex_numbers_is_found(name: str) -> None:
    case, law = COMPLEX_FAULTS[name]
    with pytest.raises(AssertionError):
        law(case)


def test_planted_ops_stay_out_of_the_catalogue() -> None:
    assert "planted" not in ops


# engine.check, before the same faults


def checked(case: Case, order: int) -> dict[str, Any]:
    return check(Question("check", case.program, tensors(case.drawn), order=order), Limits())


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", TWINS)
def test_check_passes_what_is_right(name: str, order: int) -> None:
    found = checked(TWINS[name], order)
    assert found["passed"]
    assert found["max_rel_error"] < 1e-7


REVERSED = (
    "a wrong slope",
    "a wrong sign",
    "a missing factor",
    "slopes in the wrong order",
    "a slope that is wrong at one element",
    "a slope that is forgotten",
    "a wrong adjoint",
    "adjoints in the wrong order",
    "a reverse rule that is wrong at one element",
    "results taken for one another",
)


@pytest.mark.parametrize("name", REVERSED)
def test_check_finds_a_wrong_gradient(name: str) -> None:
    assert not checked(FAULTS[name][0], order=1)["passed"]


@pytest.mark.parametrize(
    "name",
    [
        "a slope that is right but detached",
        "a slope whose own slope is twice too large",
        "a reverse rule that is detached",
        "mixed partials that differ",
    ],
)
def test_check_finds_a_wrong_second_order_behind_a_right_first(name: str) -> None:
    assert checked(FAULTS[name][0], order=1)["passed"]
    assert not checked(FAULTS[name][0], order=2)["passed"]


def test_check_names_the_element_at_fault() -> None:
    case, _ = FAULTS["a slope that is wrong at one element"]
    row = checked(planted(case.op.kernel, case.op.derivative, (5,)), order=1)["wrt"]["x0"]
    assert row["worst"]["index"] == [4]
    assert row["worst"]["analytic"] == pytest.approx(1.01 * row["worst"]["numerical"])


# The yardstick itself


@pytest.mark.parametrize(
    ("function", "slope"),
    [(np.sin, 1.0), (np.exp, 1.0), (lambda h: np.sqrt(1 + h), 0.5), (lambda h: 1 / (0.1 + h), -100.0)],
)
def test_differences_are_good_to_nine_digits(function: Callable[[float], Any], slope: float) -> None:
    assert ridders(function) == pytest.approx(slope, rel=1e-9)


def test_differences_step_over_a_distant_kink() -> None:
    """A jump beyond the smallest steps is left alone by those."""
    found = ridders(lambda h: np.array([np.floor(h + 0.005), h * h + 3 * h]))
    assert found == pytest.approx([0.0, 3.0], abs=1e-9)


def test_closeness_is_of_shape_value_and_infinities() -> None:
    assert_close(np.ones(3), np.ones(3) + 1e-9, 1e-8, "near")
    for wrong in (np.ones((1, 3)), np.array([1.0, 1.0, 1.1]), np.array([1.0, 1.0, np.nan]), np.array([1, 1, np.inf])):
        with pytest.raises(AssertionError):
            assert_close(wrong, np.ones(3), 1e-8, "far")


def test_bits_tell_zeros_dtypes_and_shapes_apart() -> None:
    assert_same_bits(np.array([0.0, np.nan]), np.array([0.0, np.nan]), "same")
    for wrong in (np.array([-0.0, np.nan]), np.array([0.0, 1.0]), np.array([0, np.nan], np.float32), np.array([0.0])):
        with pytest.raises(AssertionError):
            assert_same_bits(wrong, np.array([0.0, np.nan]), "other")
