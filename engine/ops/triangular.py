"""Systems with triangular factors, on the last two axes, batched over the others; and LU, which makes such factors.

What stands on the other side of a triangular matrix's diagonal is not read, and has derivative zero; so has the
diagonal itself where it is taken as ones. A zero on the diagonal is a singular matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg

from engine import attrs
from engine.core import Node, Refusal, Sample, define, ops
from engine.derivative import Custom, Series, plus, unbroadcast
from engine.errors import ShapeMismatch
from engine.families import ANY, ANYS, aligned, composite
from engine.ops.factorisations import NO_MATRICES, factorisation, matrix_bytes, matrix_of, results_of
from engine.ops.linalg import as_columns, order_of, small_enough
from engine.transforms.batch import batch_size
from engine.types import Array, Shape, broadcast

LOOP_FROM = 64
"""Rows from which a call of LAPACK for each matrix is faster than NumPy's general solver on the whole stack."""

UPPER = attrs.boolean("Whether the factor is the upper triangular one.", False)


# solve_triangular


def _solved_shape(a: Shape, b: Shape, *, left: bool, **attrs: Any) -> Shape:
    order = order_of("solve_triangular", a)
    meeting = b[-2:][0 if left else -1] if b else None
    if meeting != order:
        expected = f"(…, {order}, k)" if left else f"(…, k, {order})"
        raise ShapeMismatch(
            f"solve_triangular of {list(a)} takes a vector [{order}] or matrices of shape {expected}, got {list(b)}"
        )
    return (*broadcast(a[:-2], b[:-2]), *b[-2:])


def _triangle(a: Array, upper: bool, unitriangular: bool) -> Array:
    """What is read of `a`."""
    part = np.triu(a) if upper else np.tril(a)
    if unitriangular:
        diagonal = np.arange(a.shape[-1])
        part[..., diagonal, diagonal] = 1
    return part


def _solve_stack(a: Array, b: Array, upper: bool) -> Array:
    """By LU of an upper triangular matrix, which pivoting leaves as it is: back-substitution on a whole stack."""
    if upper:
        return np.linalg.solve(a, b)
    return np.linalg.solve(a[..., ::-1, ::-1], b[..., ::-1, :])[..., ::-1, :]


def _solve_each(a: Array, b: Array, upper: bool) -> Array:
    """By one call of LAPACK for each matrix, of order n² only."""
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *b.shape[-2:])
    out = np.empty(shape, b.dtype)
    solve: Any = scipy.linalg.get_lapack_funcs("trtrs", (a, b))
    left, right = (np.broadcast_to(each, shape[:-2] + each.shape[-2:]) for each in (a, b))
    for at in np.ndindex(shape[:-2]):
        out[at], failed = solve(left[at], right[at], lower=not upper)
        if failed:
            raise np.linalg.LinAlgError("Singular matrix")
    return out


def _solve_triangular(a: Array, b: Array, *, upper: bool, left: bool, unitriangular: bool) -> Array:
    if not left:
        a, upper = np.swapaxes(a, -1, -2), not upper
    part = _triangle(a, upper, unitriangular)
    columns = b[:, None] if b.ndim == 1 else b if left else np.swapaxes(b, -1, -2)
    several = part.ndim == 2 < columns.ndim
    if several:
        # One matrix for a stack of right-hand sides: they are all its columns.
        moved = np.moveaxis(columns, -2, 0)
        columns = moved.reshape(len(part), math.prod(moved.shape[1:]))
    solve = _solve_each if a.shape[-1] >= LOOP_FROM and columns.shape[-1] else _solve_stack
    out = solve(part, columns, upper)
    if several:
        out = np.moveaxis(out.reshape(moved.shape), 0, -2)
    return out[..., 0] if b.ndim == 1 else out if left else np.swapaxes(out, -1, -2)


def _as_matrices(x: Node, b: Node, left: bool) -> Node:
    """`x`, right-hand sides or solutions, as matrices: a vector is a column on the right, a row on the left."""
    return as_columns(x, b) if left else x if b.rank > 1 else ops.expand_dims(x, axis=-2)


def _read(x: Node, upper: bool, unitriangular: bool) -> Node:
    """The part of a matrix that is read, zero elsewhere."""
    return ops.triu(x, k=int(unitriangular)) if upper else ops.tril(x, k=-int(unitriangular))


def _forward(node: Node, ta: Node | None, tb: Node | None) -> Node:
    """T⁻¹ (tb − tT x), and the same from the other side."""
    (a, b), left = node.inputs, node.attrs["left"]
    x = _as_matrices(node, b, left)
    moved = ta and _read(ta, node.attrs["upper"], node.attrs["unitriangular"])
    right = plus(tb and _as_matrices(tb, b, left), moved and -(moved @ x if left else x @ moved))
    assert right is not None
    return ops.reshape(ops.solve_triangular(a, right, **node.attrs), shape=node.shape)


def _reverse(node: Node, g: Node) -> tuple[Node | None, Node | None]:
    """w = T⁻ᴴ g for b, −w xᴴ for T, and the same from the other side."""
    (a, b), left, upper = node.inputs, node.attrs["left"], node.attrs["upper"]
    w = ops.solve_triangular(ops.adjoint(a), _as_matrices(g, b, left), **node.attrs | {"upper": not upper})
    x = ops.adjoint(_as_matrices(node, b, left))
    to_a = unbroadcast(-_read(w @ x if left else x @ w, upper, node.attrs["unitriangular"]), a.shape)
    to_b = unbroadcast(w, _as_matrices(b, b, left).shape)
    return to_a, to_b and ops.reshape(to_b, shape=b.shape)


def _taylor(node: Node, order: int) -> Series:
    """Order k of T x = b: T x_k = b_k − Σ T_j x_(k−j) over j from 1."""
    (a, b), left = node.inputs, node.attrs["left"]
    right = yield b, order
    total = right and _as_matrices(right, b, left)
    for j in range(1, order + 1):
        moved = yield a, j
        before = moved and (yield node, order - j)
        if before is not None:
            part, x = _read(moved, node.attrs["upper"], node.attrs["unitriangular"]), _as_matrices(before, b, left)
            total = plus(total, -(part @ x if left else x @ part))
    return total and ops.reshape(ops.solve_triangular(a, total, **node.attrs), shape=node.shape)


def _batch(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    """As matrices: under a new axis a vector would pass for one."""
    a, b = node.inputs
    size = batch_size(args, batched)
    stacks = aligned((args[0], _as_matrices(args[1], b, node.attrs["left"])), batched, max(a.rank, b.rank, 2))
    return ops.reshape(ops.solve_triangular(*stacks, **node.attrs), shape=(size, *node.shape))


TRIANGLE = [[2.0, 0.3, -0.4], [0.5, -1.5, 0.6], [-0.7, 0.8, 1.0]]
TRIANGLES = [TRIANGLE, [[1.0, 0.0, 0.5], [0.5, 2.0, -0.6], [0.7, 0.1, -1.0]]]


def _triangle_and_columns(node: Node) -> int:
    """What is read of the matrices, and right-hand sides as columns."""
    return node.inputs[0].nbytes + matrix_bytes(node) + node.nbytes


solve_triangular = define(
    "solve_triangular",
    "The x with x1 x = x2, or x x1 = x2, for a triangular x1: as PyTorch's, and x2 may be a vector.",
    operands=ANYS,
    attrs={
        "upper": attrs.boolean("Whether x1 is upper triangular; else lower. The other triangle is not read."),
        "left": attrs.boolean("Whether x1 stands left of x; else right of it.", True),
        "unitriangular": attrs.boolean("Whether the diagonal is taken as ones, and not read.", False),
    },
    shape=_solved_shape,
    kernel=_solve_triangular,
    derivative=Custom(_forward, _reverse, _taylor),
    batch=_batch,
    guard=small_enough,
    flops=lambda out, a, b, **attrs: math.prod(out) * a[-1],
    scratch=_triangle_and_columns,
    inexact=True,
    pace=16.0,
    family="linear algebra",
    torch="linalg_solve_triangular",
    samples=(
        Sample((TRIANGLE, (3,)), {"upper": True}),
        Sample((TRIANGLE, (3, 2)), {"upper": False}),
        Sample((TRIANGLE, (2, 3)), {"upper": True, "left": False}),
        Sample((TRIANGLE, (3,)), {"upper": False, "left": False}),
        Sample((TRIANGLE, (3, 2)), {"upper": True, "unitriangular": True}),
        Sample((TRIANGLES, (3,)), {"upper": False, "unitriangular": True}),
        Sample((TRIANGLES, (2, 3, 2)), {"upper": False}),
        Sample((TRIANGLES, (2, 1, 4, 3)), {"upper": True, "left": False}),
        Sample((TRIANGLE, (2, 3, 2)), {"upper": True}),
        Sample(((3, 3), (2, 3)), {"upper": False, "left": False, "unitriangular": True}),
        Sample(((0, 0), (0, 2)), {"upper": True}),
        Sample(((2, 2), (2, 0)), {"upper": False}),
        Sample(((0, 2, 2), (2, 1)), {"upper": False}),
    ),
    refusals=(
        Refusal(((2, 3), (2,)), {"upper": True}, "shape_mismatch"),
        Refusal(((2, 2), (3,)), {"upper": True}, "shape_mismatch"),
        Refusal(((2, 2), (2, 3)), {"upper": True, "left": False}, "shape_mismatch"),
        Refusal(((2, 2), ()), {"upper": True}, "shape_mismatch"),
        Refusal(((2, 2), (2,)), {}, "invalid_graph"),
        Refusal(([[1.0, 2.0], [0.0, 0.0]], (2,)), {"upper": True}, "singular_matrix"),
        Refusal(((2049, 2049), (2049,)), {"upper": True}, "limit_exceeded"),
    ),
    example="solve_triangular(x1, x2, upper=true)",
)


# Systems with a Cholesky factor


def _cholesky_solve(b: Node, factor: Node, *, upper: bool) -> Node:
    order = order_of("cholesky_solve", factor.shape)
    if b.rank < 1 or b.shape[-2:][0] != order:
        raise ShapeMismatch(f"cholesky_solve with a factor of {order} rows, got a right-hand side {list(b.shape)}")
    other = ops.adjoint(factor)
    first, second = (other, factor) if upper else (factor, other)
    return ops.solve_triangular(second, ops.solve_triangular(first, b, upper=False), upper=True)


cholesky_solve = composite(
    "cholesky_solve",
    "The x with A x = x1, from the Cholesky factor x2 of A; x1 is a vector if it has one axis.",
    _cholesky_solve,
    operands=ANYS,
    attrs={"upper": UPPER},
    guard=lambda limits, b, factor, **attrs: small_enough(limits, factor),
    family="linear algebra",
    samples=(
        Sample(((3,), TRIANGLE)),
        Sample(((3, 2), TRIANGLE), {"upper": True}),
        Sample(((2, 3, 2), TRIANGLES)),
        Sample(((0, 2), (0, 0))),
    ),
    refusals=(
        Refusal(((3,), (2, 3)), {}, "shape_mismatch"),
        Refusal(((2,), (3, 3)), {}, "shape_mismatch"),
        Refusal(((), (3, 3)), {}, "shape_mismatch"),
        Refusal(((2049,), (2049, 2049)), {}, "limit_exceeded"),
    ),
)


def _cholesky_inverse(factor: Node, *, upper: bool) -> Node:
    order = order_of("cholesky_inverse", factor.shape)
    identity = ops.eye.on(factor.graph, n_rows=order, dtype=factor.dtype.name)
    inverse = ops.solve_triangular(factor, identity, upper=upper)
    return inverse @ ops.adjoint(inverse) if upper else ops.adjoint(inverse) @ inverse


cholesky_inverse = composite(
    "cholesky_inverse",
    "The inverse of a matrix from its Cholesky factor.",
    _cholesky_inverse,
    operands=ANY,
    attrs={"upper": UPPER},
    inexact=True,
    guard=small_enough,
    family="linear algebra",
    samples=(Sample((TRIANGLE,)), Sample((TRIANGLES,), {"upper": True}), Sample(((0, 0),)), Sample(((0, 2, 2),))),
    refusals=(Refusal(((2, 3),), {}, "shape_mismatch"), Refusal(((2049, 2049),), {}, "limit_exceeded")),
)


# LU. With F = L⁻¹ Pᵀ t U⁻¹ in the leading square, L moves by L·tril(F, −1) and U by triu(F)·U there; the rows of L
# below, and the columns of U to the right, follow from L U = Pᵀ A.


def _lu_shape(x: Shape) -> tuple[Shape, Shape, Shape]:
    stack, rows, columns = matrix_of("lu", x)
    least = min(rows, columns)
    return (*stack, rows, rows), (*stack, rows, least), (*stack, least, columns)


def _lu(x: Array) -> tuple[Array, ...]:
    if x.size == 0:
        square, lower, upper = _lu_shape(x.shape)
        identity = np.broadcast_to(np.eye(square[-1], dtype=x.dtype), square)
        return identity, np.zeros(lower, x.dtype), np.zeros(upper, x.dtype)
    found: Any = scipy.linalg.lu(x, check_finite=False)
    return tuple(each.astype(x.dtype, copy=False) for each in found)


def _rows(x: Node, start: int | None, stop: int | None) -> Node:
    return ops.slice(x, index=("...", (start, stop, None), (None, None, None)))


def _columns(x: Node, start: int | None, stop: int | None) -> Node:
    return ops.slice(x, index=("...", (start, stop, None)))


def _lu_forward(node: Node, t: Node) -> tuple[None, Node, Node]:
    p, lower, upper = results_of(node)
    least = lower.shape[-1]
    square, wide = _rows(lower, None, least), _columns(upper, None, least)
    moved = ops.adjoint(p) @ t
    inside = _divided(_solved(square, _rows(_columns(moved, None, least), None, least)), wide)
    to_lower, to_upper = square @ ops.tril(inside, k=-1), ops.triu(inside) @ wide
    if lower.shape[-2] > least:
        below = _rows(moved, least, None) - _rows(lower, least, None) @ to_upper
        to_lower = ops.concat(to_lower, _divided(below, wide), axis=-2)
    if upper.shape[-1] > least:
        right = _columns(moved, least, None) - to_lower @ _columns(upper, least, None)
        to_upper = ops.concat(to_upper, _solved(square, right), axis=-1)
    return None, to_lower, to_upper


def _solved(lower: Node, x: Node) -> Node:
    """L⁻¹ x."""
    return ops.solve_triangular(lower, x, upper=False, unitriangular=True)


def _divided(x: Node, upper: Node) -> Node:
    """x U⁻¹."""
    return ops.solve_triangular(upper, x, upper=True, left=False)


def _lu_reverse(node: Node, g: tuple[Node | None, Node | None, Node | None]) -> list[Node | None]:
    """The adjoint of the forward rule, line by line from below."""
    p, lower, upper = results_of(node)
    least = lower.shape[-1]
    square, wide = _rows(lower, None, least), _columns(upper, None, least)
    to_lower, to_upper = g[1] and _rows(g[1], None, least), g[2] and _columns(g[2], None, least)
    rest: Node | None = None
    if lower.shape[-2] > least and g[1] is not None:
        rest = ops.solve_triangular(ops.adjoint(wide), _rows(g[1], least, None), upper=False, left=False)
        to_upper = plus(to_upper, -(ops.adjoint(_rows(lower, least, None)) @ rest))
    if upper.shape[-1] > least and g[2] is not None:
        rest = ops.solve_triangular(ops.adjoint(square), _columns(g[2], least, None), upper=True, unitriangular=True)
        to_lower = plus(to_lower, -(rest @ ops.adjoint(_columns(upper, least, None))))
    inside = plus(
        to_lower and ops.tril(ops.adjoint(square) @ to_lower, k=-1), to_upper and ops.triu(to_upper @ ops.adjoint(wide))
    )
    if inside is None:
        return [None]
    back = ops.solve_triangular(ops.adjoint(square), inside, upper=True, unitriangular=True)
    back = ops.solve_triangular(ops.adjoint(wide), back, upper=False, left=False)
    return [p @ _beside(back, rest, node.inputs[0])]


def _beside(square: Node, rest: Node | None, x: Node) -> Node:
    """The leading square of a cotangent, and what is below it or right of it, in the shape of `x`."""
    rows, columns = x.shape[-2:]
    if rows == columns:
        return square
    missing = (*x.shape[:-2], abs(rows - columns), columns) if rows > columns else (*x.shape[:-1], columns - rows)
    if rest is None:
        rest = ops.zeros.on(x.graph, shape=missing, dtype=x.dtype.name)
    return ops.concat(square, rest, axis=-2 if rows > columns else -1)


lu = factorisation(
    "lu",
    "P, L and U with P L U = x: a permutation, a lower triangle with ones on its diagonal, an upper triangle.",
    _lu,
    cost=1,
    results=("P", "L", "U"),
    shape=_lu_shape,
    holomorphic=True,
    derivative=Custom(_lu_forward, _lu_reverse),
    pace=30.0,
    torch="linalg_lu",
    scratch=None,
    samples=(
        Sample(([[0.5, 2.0, -0.3], [2.0, -1.5, 0.7], [-0.3, 0.4, 1.0]],)),
        Sample(([[0.3, 0.5], [-2.0, 1.0], [0.4, -1.6]],)),
        Sample(([[0.3, -2.0, 0.4], [1.5, 1.0, -0.6]],)),
        Sample(([TRIANGLE, [[0.5, 1.0, 2.0], [1.5, -0.5, 0.1], [1.0, 0.25, 3.0]]],)),
        Sample(((2, 3, 3),)),
        Sample(((1, 3),)),
        Sample(((3, 1),)),
        Sample(((3, 0),)),
        Sample(((0, 3),)),
        Sample(((0, 3, 2),)),
    ),
    refusals=NO_MATRICES,
)
