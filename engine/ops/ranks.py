"""What depends on the rank of a matrix, on the last two axes, batched over the others: pseudo-inverses, least squares.

Singular values of `rtol` times the largest, or less, count as zero. Derivatives are those at constant rank: where the
rank changes the pseudo-inverse jumps, and has none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from engine import attrs
from engine.core import Attrs, Node, Refusal, Sample, ops
from engine.derivative import Custom
from engine.errors import ShapeMismatch
from engine.families import ANY, ANYS, composite, like_operand, span
from engine.ops.factorisations import NO_MATRICES, TALL, WIDE, factorisation, matrix_of, of_finite
from engine.ops.linalg import as_columns, order_of, small_enough
from engine.ops.spreads import MATRIX_ORDER
from engine.types import Array, Shape

RTOL = attrs.real(
    "The part of the largest singular value up to which one counts as zero; by default rounding times rows or columns.",
    None,
)
ATOL = attrs.real(
    "Up to which size, too, a singular value counts as zero; where it is given, rtol is 0 by default.", None
)
HERMITIAN = attrs.boolean("Whether x is known to be Hermitian; nothing depends on it here.", False)
TOLERANCES = {"rtol": RTOL, "atol": ATOL, "hermitian": HERMITIAN}
DEFICIENT = [[1.0, 2.0, 0.5], [2.0, 4.0, 1.0]]
"""Of rank 1."""


def _tolerance(x: Any, rtol: float | None, atol: float | None, shape: Shape) -> float:
    """By default the Array API's: the larger side times the spacing of numbers at 1; beside an absolute one, 0."""
    if rtol is not None:
        return rtol
    return max(shape[-2:]) * float(np.finfo(x.dtype).eps) if atol is None else 0.0


def _whatever_it_is(given: Attrs, *shapes: Shape) -> Attrs:
    """Nothing depends on `hermitian`, which is for systems that would then read one triangle alone."""
    return given | {"hermitian": False}


# The pseudo-inverse: Golub and Pereyra, SIAM J. Numer. Anal. 10, 1973, equation 4.12.


def _pinv_shape(x: Shape, **tolerances: float | None) -> Shape:
    stack, rows, columns = matrix_of("pinv", x)
    return (*stack, columns, rows)


def _pinv(x: Array, *, rtol: float | None, atol: float | None, hermitian: bool) -> Array:
    part = _tolerance(x, rtol, atol, x.shape)
    if not atol or not x.size:
        return np.linalg.pinv(x, rtol=part)
    largest = np.linalg.norm(x, 2, axis=(-2, -1))
    return np.linalg.pinv(x, rtol=np.maximum(part, np.divide(atol, largest)))


def _leaves_rows(x: Node, p: Node, y: Node) -> Node:
    """(1 − P A) y: what of y is no combination of the rows of A."""
    return y - p @ (x @ y)


def _leaves_columns(x: Node, p: Node, y: Node) -> Node:
    """y (1 − A P)."""
    return y - (y @ x) @ p


def _times_gram(y: Node, p: Node) -> Node:
    """y Pᴴ P, in the order that costs least."""
    square = ops.adjoint(p)
    return y @ (square @ p) if p.shape[-1] <= p.shape[-2] else (y @ square) @ p


def _gram_times(p: Node, y: Node) -> Node:
    """P Pᴴ y."""
    square = ops.adjoint(p)
    return (p @ square) @ y if p.shape[-2] <= p.shape[-1] else p @ (square @ y)


def _pinv_forward(node: Node, t: Node) -> Node:
    """−P t P + (1 − P A) tᴴ Pᴴ P + P Pᴴ tᴴ (1 − A P)."""
    (x,), turned = node.inputs, ops.adjoint(t)
    by_rows = _times_gram(_leaves_rows(x, node, turned), node)
    by_columns = _gram_times(node, _leaves_columns(x, node, turned))
    return by_rows + by_columns - node @ t @ node


pinv = factorisation(
    "pinv",
    "Pseudo-inverse (Moore and Penrose); its derivative is that at constant rank.",
    of_finite(_pinv),
    cost=24,
    attrs=TOLERANCES,
    canonical=_whatever_it_is,
    shape=_pinv_shape,
    # The rule is its own adjoint, but for the adjoints of what goes in and comes out.
    derivative=Custom(_pinv_forward, lambda node, g: ops.adjoint(_pinv_forward(node, ops.adjoint(g)))),
    scratch=like_operand(5),
    pace=45.0,
    torch="linalg_pinv",
    samples=(
        Sample((TALL,)),
        Sample((WIDE,), {"rtol": 1e-6}),
        Sample(([[2.0, 0.5, -0.3], [0.5, 1.0, 0.7], [-0.3, 0.4, -0.5]],)),
        Sample(([TALL, [[0.5, 1.0], [1.5, -0.5], [1.0, 0.25]]],)),
        Sample(((4, 2),)),
        Sample(((1, 3),)),
        Sample(((3, 0),)),
        Sample(((0, 3, 2),)),
        Sample(([[2.0, 0.5], [0.5, 1.0]],), {"atol": 0.25, "hermitian": True}),
        Sample(((0, 3, 2),), {"atol": 0.25}),
    ),
    refusals=(*NO_MATRICES, Refusal(((2, 2),), {"rtol": "small"}, "invalid_graph")),
    aliases=("pinverse",),
)


def _rank(x: Node, *, rtol: float | None, atol: float | None, hermitian: bool) -> Node:
    matrix_of("matrix_rank", x.shape)
    values = ops.svdvals(x)
    limit = _tolerance(values, rtol, atol, x.shape) * span(values, values.rank - 1, 0, 1)
    limit = ops.maximum(limit, atol) if atol else limit
    return ops.sum(ops.astype(values > limit, dtype="int64"), axis=-1)


matrix_rank = composite(
    "matrix_rank",
    "How many singular values count as more than zero.",
    _rank,
    operands=ANY,
    attrs=TOLERANCES,
    canonical=_whatever_it_is,
    guard=small_enough,
    family="linear algebra",
    samples=(
        Sample((TALL,)),
        Sample((DEFICIENT,)),
        Sample((TALL,), {"atol": 1.5}),
        Sample(([[2.0, 0.5], [0.5, 1.0]],), {"hermitian": True}),
        Sample(([WIDE, DEFICIENT],), {"rtol": 0.01}),
        Sample(((3, 0),)),
        Sample(((0, 3, 2),)),
    ),
    refusals=NO_MATRICES,
)


def _condition_number(x: Node, *, p: str | float) -> Node:
    _, rows, columns = matrix_of("condition_number", x.shape)
    if not rows or not columns:
        raise ShapeMismatch(f"condition_number of a matrix without elements: {list(x.shape)}")
    if p in (2, -2):
        return ops.matrix_norm(x, ord=p) / ops.matrix_norm(x, ord=-float(p))
    order_of("condition_number", x.shape)
    return ops.matrix_norm(x, ord=p) * ops.matrix_norm(ops.inv(x), ord=p)


condition_number = composite(
    "condition_number",
    "A norm of a matrix times that of its inverse; for p = 2 the largest singular value over the least, of any matrix.",
    _condition_number,
    operands=ANY,
    attrs={"p": replace(MATRIX_ORDER, default=2.0)},
    guard=small_enough,
    inexact=True,
    family="linear algebra",
    torch="linalg_cond",
    samples=(
        Sample((TALL,)),
        Sample((WIDE,), {"p": -2}),
        Sample(([TALL, [[0.5, 1.0], [1.5, -0.5], [1.0, 0.25]]],)),
        *[Sample(([[2.0, 0.5], [-0.4, 1.0]],), {"p": p}) for p in ("fro", "nuc", 1, -1, "Infinity", "-Infinity")],
    ),
    refusals=(
        *NO_MATRICES,
        Refusal(((0, 3),), {}, "shape_mismatch"),
        Refusal(((2, 3),), {"p": "fro"}, "shape_mismatch"),
        Refusal(([[1.0, 2.0], [2.0, 4.0]],), {"p": 1}, "singular_matrix"),
        Refusal(((2, 2),), {"p": 3}, "invalid_graph"),
    ),
)


def _lstsq(a: Node, b: Node, *, rtol: float | None) -> tuple[Node, ...]:
    _, rows, _ = matrix_of("lstsq", a.shape)
    if b.rank < 1 or b.shape[-2:][0] != rows:
        raise ShapeMismatch(
            f"lstsq of {list(a.shape)} takes a vector [{rows}] or matrices of shape (…, {rows}, k), got {list(b.shape)}"
        )
    x = ops.pinv(a, rtol=rtol) @ as_columns(b, b)
    residuals = ops.sum(ops.square(ops.abs(a @ x - as_columns(b, b))), axis=-2)
    lacking = (-1,) if b.rank == 1 else ()
    solution, residuals = (ops.squeeze(each, axis=lacking) if lacking else each for each in (x, residuals))
    return solution, residuals, ops.matrix_rank(a, rtol=rtol), ops.svdvals(a)


lstsq = composite(
    "lstsq",
    "The shortest x for which x1 x is nearest x2, the squared distances, and the rank and singular values of x1.",
    _lstsq,
    operands=ANYS,
    attrs={"rtol": RTOL},
    results=("solution", "residuals", "rank", "singular_values"),
    inexact=True,
    guard=small_enough,
    family="linear algebra",
    samples=(
        Sample((TALL, (3,))),
        Sample((TALL, (3, 2)), {"rtol": 1e-6}),
        Sample((WIDE, (2,))),
        Sample(((4, 2), (4,))),
        Sample(([TALL, [[0.5, 1.0], [1.5, -0.5], [1.0, 0.25]]], (3,))),
        Sample(([TALL, [[0.5, 1.0], [1.5, -0.5], [1.0, 0.25]]], (2, 3, 2))),
        Sample(((3, 0), (3,))),
        Sample(((0, 3, 2), (3, 1))),
    ),
    refusals=(
        Refusal(((3, 2), (2,)), {}, "shape_mismatch"),
        Refusal(((3,), (3,)), {}, "shape_mismatch"),
        Refusal(((3, 2), ()), {}, "shape_mismatch"),
        Refusal(((2049, 1), (2049,)), {}, "limit_exceeded"),
    ),
)
