"""Linear algebra on the last two axes, batched over the others: inverses, linear systems, determinants.

Derivatives are those of Giles (An extended collection of matrix derivative results, NA-08-01, 2008), written
with the op's own result where possible: a series of an inverse costs products only. A matrix that is singular
to the last bit makes NumPy raise LinAlgError, which whoever runs the kernel reports as singular_matrix.

The determinant is smooth everywhere, at singular matrices too. Its gradient is the matrix of cofactors, an op
of its own that never divides by the determinant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine import attrs
from engine.core import RESULT, Node, Op, Refusal, Sample, define, ops
from engine.derivative import Custom, Series, by_slope, conj, plus, times, unbroadcast
from engine.errors import LimitExceeded, ShapeMismatch
from engine.families import ANY, ANYS, aligned, batch_same, batch_stacked, composite, part_dtype
from engine.limits import Limits
from engine.transforms.batch import batch_size
from engine.transforms.forward import forward
from engine.types import INT64, Array, Shape, axis_of, broadcast

MATRIX = (-2, -1)

SQUARES = (
    Sample(((3, 3),)),
    Sample(((1, 1),)),
    Sample(((2, 4, 4),)),
    Sample(((0, 0),)),
    Sample(((0, 2, 2),)),
)
NO_SQUARES = (
    Refusal(((2, 3),), {}, "shape_mismatch"),
    Refusal(((3,),), {}, "shape_mismatch"),
    Refusal(((2049, 2049),), {}, "limit_exceeded"),
)


def order_of(name: str, shape: Shape) -> int:
    """The number of rows of a square matrix, or of a stack of them. Raises ShapeMismatch."""
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ShapeMismatch(f"{name} takes a square matrix or a stack of them, with shape (…, n, n); got {list(shape)}")
    return shape[-1]


def small_enough(limits: Limits, x: Node, *others: Node, **attrs: Any) -> None:
    largest = max(x.shape[-2:], default=0)
    if largest > limits.linalg_dimension:
        raise LimitExceeded("linalg_dimension", limits.linalg_dimension, largest, "rows or columns of a matrix")


def square_bytes(node: Node) -> int:
    """Bytes of one matrix of the stack: LAPACK gets a copy of each in its turn."""
    return node.inputs[0].shape[-1] ** 2 * node.inputs[0].dtype.itemsize


def by_matrix(node: Node) -> float:
    """What LAPACK's own way to each matrix of a stack takes."""
    return 8.0 + 0.15 * math.prod(node.shape[:-2])


def _cubic(times: int) -> Callable[..., int]:
    """A cost of so many operations per n³, for each matrix."""
    return lambda out, x, *others, **attrs: times * math.prod(x) * x[-1]


def _on_squares(name: str, doc: str, kernel: Callable[..., Any], cost: int, **record: Any) -> Op:
    """One square matrix, or a stack of them; `cost` operations per n³."""
    defaults: dict[str, Any] = {
        "operands": ANY,
        "family": "linear algebra",
        "inexact": True,
        "guard": small_enough,
        "batch": batch_same,
        "flops": _cubic(cost),
        "scratch": lambda node: 2 * square_bytes(node),
        "overhead": by_matrix,
        "samples": SQUARES,
        "refusals": NO_SQUARES,
    }
    return define(name, doc, kernel=kernel, **defaults | record)


def _square_shape(name: str) -> Callable[..., Shape]:
    def shape(x: Shape) -> Shape:
        order_of(name, x)
        return x

    return shape


def _number_shape(name: str) -> Callable[..., Shape]:
    def shape(x: Shape) -> Shape:
        order_of(name, x)
        return x[:-2]

    return shape


def _inv_forward(node: Node, t: Node) -> Node:
    return -(node @ t @ node)


def _inv_reverse(node: Node, g: Node) -> Node:
    back = ops.adjoint(node)
    return -(back @ g @ back)


inv = _on_squares(
    "inv",
    "Inverse of a square matrix.",
    np.linalg.inv,
    cost=2,
    shape=_square_shape("inv"),
    # Giles, section 2.2.3
    derivative=Custom(_inv_forward, _inv_reverse),
    pace=14.0,
    torch="linalg_inv_ex",
    aliases=("inverse",),
)


# solve: a right-hand side with one axis is a vector; any other is a stack of matrices, whatever the left is.


def _solve_shape(a: Shape, b: Shape) -> Shape:
    order = order_of("solve", a)
    if not b or b[-2:][0] != order:
        raise ShapeMismatch(
            f"solve of {list(a)} takes a vector [{order}] or matrices of shape (…, {order}, k), got {list(b)}"
        )
    return (*broadcast(a[:-2], b[:-2]), *b[-2:])


def _solve(a: Any, b: Any) -> Any:
    if b.ndim <= 2 or a.ndim > 2:
        return np.linalg.solve(a, b)
    # One matrix: factorised once for all the right-hand sides, where NumPy would do it for each.
    columns = np.moveaxis(b, -2, 0)
    solved = np.linalg.solve(a, columns.reshape(len(a), math.prod(columns.shape[1:])))
    return np.moveaxis(solved.reshape(columns.shape), 0, -2)


def as_columns(x: Node, b: Node) -> Node:
    """`x`, right-hand sides or solutions, as a stack of matrices."""
    return x if b.rank > 1 else ops.expand_dims(x, axis=-1)


def _solve_forward(node: Node, ta: Node | None, tb: Node | None) -> Node:
    """A⁻¹ (tb - ta x) (Giles, section 2.3.1)."""
    a, b = node.inputs
    right = plus(tb and as_columns(tb, b), ta and -(ta @ as_columns(node, b)))
    assert right is not None
    return ops.reshape(ops.solve(a, right), shape=node.shape)


def _solve_reverse(node: Node, g: Node) -> tuple[Node | None, Node | None]:
    """w = A⁻ᴴ g for b, -w xᴴ for A (Giles, section 2.3.1)."""
    a, b = node.inputs
    w = ops.solve(ops.adjoint(a), as_columns(g, b))
    to_a = unbroadcast(-(w @ ops.adjoint(as_columns(node, b))), a.shape)
    to_b = unbroadcast(w, as_columns(b, b).shape)
    return to_a, to_b and ops.reshape(to_b, shape=b.shape)


def _solve_taylor(node: Node, order: int) -> Series:
    """Order k of A x = b: A x_k = b_k - Σ A_j x_(k-j) over j from 1."""
    a, b = node.inputs
    right = yield b, order
    total = right and as_columns(right, b)
    for j in range(1, order + 1):
        moved = yield a, j
        before = moved and (yield node, order - j)
        total = plus(total, before and -(moved @ as_columns(before, b)))
    return total and ops.reshape(ops.solve(a, total), shape=node.shape)


def _solve_batch(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    """As matrices: under a new axis a vector would pass for one."""
    a, b = node.inputs
    size = batch_size(args, batched)
    stacks = aligned((args[0], as_columns(args[1], b)), batched, max(a.rank, b.rank))
    return ops.reshape(ops.solve(*stacks), shape=(size, *node.shape))


def _solve_flops(out: Shape, a: Shape, b: Shape) -> int:
    return _cubic(1)(out, a) + 2 * math.prod(out) * a[-1]


solve = define(
    "solve",
    "The x with x1 x = x2. x2 is a vector if it has one axis, else a stack of matrices; stacks broadcast.",
    operands=ANYS,
    shape=_solve_shape,
    kernel=_solve,
    derivative=Custom(_solve_forward, _solve_reverse, _solve_taylor),
    batch=_solve_batch,
    guard=small_enough,
    flops=_solve_flops,
    scratch=lambda node: square_bytes(node) + node.dtype.itemsize * math.prod(node.shape[-2:]),
    inexact=True,
    pace=30.0,
    overhead=by_matrix,
    family="linear algebra",
    torch="linalg_solve_ex",
    samples=(
        Sample(((3, 3), (3,))),
        Sample(((3, 3), (3, 2))),
        Sample(((2, 3, 3), (3,))),
        Sample(((2, 3, 3), (3, 3))),
        Sample(((3, 3), (2, 3, 1))),
        Sample(((4, 1, 2, 2), (3, 2, 2))),
        Sample(((0, 0), (0,))),
        Sample(((2, 2), (2, 0))),
    ),
    refusals=(
        Refusal(((2, 3), (2,)), {}, "shape_mismatch"),
        Refusal(((2, 2), (3,)), {}, "shape_mismatch"),
        Refusal(((2, 2), ()), {}, "shape_mismatch"),
        Refusal(((5, 3, 3), (5, 3)), {}, "shape_mismatch"),
        Refusal(((2049, 2049), (2049,)), {}, "limit_exceeded"),
    ),
)


# Determinants

MINORS_UP_TO = 6
"""Up to this size cofactors are differentiated through minors: right at any rank, but n² matrices in all."""


def _cofactors(x: Any) -> Any:
    """By products for n up to 3, exact on small whole numbers; else by the inverse, or by singular values."""
    order = x.shape[-1]
    if order < 2 or x.size == 0:
        return np.ones_like(x)
    if order == 2:
        return x[..., ::-1, ::-1] * np.array([[1, -1], [-1, 1]], x.dtype)
    if order == 3:
        # Row i of the cofactors is the cross product of the two rows that follow it.
        return np.cross(np.roll(x, -1, axis=-2), np.roll(x, -2, axis=-2))
    with np.errstate(all="ignore"):
        return _cofactors_by_inverse(x)


def _cofactors_by_inverse(x: Any) -> Any:
    try:
        inverse = np.linalg.inv(x)
    except np.linalg.LinAlgError:
        return _cofactors_by_singular_values(x)
    condition = np.linalg.norm(x, 1, axis=MATRIX) * np.linalg.norm(inverse, 1, axis=MATRIX)
    if not np.all(condition < np.finfo(x.dtype).eps ** -0.5):
        return _cofactors_by_singular_values(x)
    return np.linalg.det(x)[..., None, None] * np.swapaxes(inverse, -1, -2)


def _cofactors_by_singular_values(x: Any) -> Any:
    """det(U V) U diag(∏_{j≠i} s_j) Vᵀ, conjugated: no division, so good at any rank. NaN where x is not finite."""
    finite = np.isfinite(x).all(axis=MATRIX, keepdims=True)
    u, s, vt = np.linalg.svd(np.where(finite, x, 0))
    sign = np.sign(np.linalg.det(u) * np.linalg.det(vt))[..., None, None]
    product = np.conjugate((u * _others(s)[..., None, :]) @ vt)
    return np.where(finite, sign * product, np.nan).astype(x.dtype, copy=False)


def _others(s: Any) -> Any:
    """For each element along the last axis the product of all the others."""
    one = np.ones_like(s[..., :1])
    before = np.cumprod(np.concatenate((one, s[..., :-1]), axis=-1), axis=-1)
    after = np.cumprod(np.concatenate((one, s[..., :0:-1]), axis=-1), axis=-1)[..., ::-1]
    return before * after


def _minors(x: Node) -> Node:
    """What is left of x without row i and column j, for all i and j: shape (…, n, n, n - 1, n - 1)."""
    order, stack = x.shape[-1], x.shape[:-2]
    left = x.graph.constant([at for gone in range(order) for at in range(order) if at != gone], INT64)
    taken = ops.take(ops.take(x, left, axis=-2), left, axis=-1)
    split = ops.reshape(taken, shape=(*stack, order, order - 1, order, order - 1))
    rank = len(stack)
    return ops.permute_dims(split, axes=(*range(rank), rank, rank + 2, rank + 1, rank + 3))


def _cofactor_reverse(node: Node, g: Node) -> list[Node | None]:
    """The cofactors are a gradient, so their Jacobian is symmetric: reverse is forward, but for a conjugate."""
    change = _cofactor_change(node, conj(g))
    return [change and conj(change)]


def _cofactor_change(node: Node, t: Node) -> Node | None:
    """The change of the cofactors as x moves along t. Each is a determinant of n - 1 rows: so on down, by Jacobi."""
    (x,) = node.inputs
    order = x.shape[-1]
    if order < 2:
        return None
    if order > MINORS_UP_TO:
        return ops.cofactor_change(x, t)
    signs = x.graph.constant([[(-1) ** (i + j) for j in range(order)] for i in range(order)], x.dtype)
    change = times(_minors(t), ops.cofactor(_minors(x)))
    return change and signs * ops.sum(change, axis=MATRIX)


def _cofactor_taylor(node: Node, order: int) -> Series | None:
    """Of a large matrix, the series of the block formula: one expression, where changes of changes are many."""
    (x,) = node.inputs
    return _series_of(_cofactors_by_blocks(x), order) if x.shape[-1] > MINORS_UP_TO else None


def _series_of(node: Node, order: int) -> Series:
    return (yield node, order)


cofactor = _on_squares(
    "cofactor",
    "Matrix of cofactors, at any rank: (-1)^(i+j) times det without row i and column j. The gradient of det.",
    _cofactors,
    cost=24,
    shape=_square_shape("cofactor"),
    derivative=Custom(_cofactor_change, _cofactor_reverse, _cofactor_taylor),
    scratch=lambda node: node.nbytes + square_bytes(node),
    pace=80.0,
    samples=(
        *SQUARES,
        Sample(((2, 2),)),
        Sample(([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]],)),
        Sample(((7, 7),)),
    ),
)


# Changes of larger matrices' cofactors. With x = U diag(s) V and t = U m V, they are det(U V) Ū c V̄, where
#     c_ii = Σ_j m_jj ∏_{k≠i,j} s_k   and   c_ij = -m_ji ∏_{k≠i,j} s_k:
# no division, so right at any rank. Their own changes are those of the block formula below.


def _cofactor_change_kernel(x: Array, t: Array) -> Array:
    finite = np.isfinite(x).all(axis=MATRIX, keepdims=True)
    u, s, v = np.linalg.svd(np.where(finite, x, 0))
    sign = np.sign(np.linalg.det(u) * np.linalg.det(v))[..., None, None]
    order = x.shape[-1]
    apart: Any = 1 - np.eye(order, dtype=s.dtype)
    products = _others(np.where(apart, s[..., None, :], 1)) * apart
    inside = np.conjugate(np.swapaxes(u, -1, -2)) @ t @ np.conjugate(np.swapaxes(v, -1, -2))
    change = -products * np.swapaxes(inside, -1, -2)
    diagonal = np.arange(order)
    change[..., diagonal, diagonal] = (products @ np.diagonal(inside, axis1=-2, axis2=-1)[..., None])[..., 0]
    return np.where(finite, sign * (np.conjugate(u) @ change @ np.conjugate(v)), np.nan).astype(x.dtype, copy=False)


def _cofactors_by_blocks(x: Node) -> Node:
    """The cofactors of x in a form that can be differentiated again and again while the rank is n - 6 or more.

    In the basis of x's own singular vectors, which stay as they are while x moves, y = [[m, r], [b, e]] is diagonal,
    the six least singular values last. NaN where the rank is less. With s = e - b m⁻¹ r the adjugate of y is
    det m · ([-m⁻¹r; 1] adj(s) [-b m⁻¹, 1] + det s · [m⁻¹, 0; 0, 0]): m is regular, and of s there are minors.
    """
    u, values, v = ops.svd.several(ops.detach(x))
    y = ops.adjoint(u) @ x @ ops.adjoint(v)
    first, last = (None, -MINORS_UP_TO, None), (-MINORS_UP_TO, None, None)
    m, r, b, e = (ops.slice(y, index=("...", rows, columns)) for rows in (first, last) for columns in (first, last))
    lost = _lost(values, x.shape[-1] - MINORS_UP_TO)
    m = m + ops.expand_dims(lost, axis=-1) * ops.eye.on(x.graph, n_rows=m.shape[-1], dtype=m.dtype.name)
    inverse = ops.inv(m)
    s = e - b @ inverse @ r
    one = ops.broadcast_to(ops.eye.on(x.graph, n_rows=MINORS_UP_TO, dtype=x.dtype.name), shape=s.shape)
    left, right = ops.concat(-(inverse @ r), one, axis=-2), ops.concat(-(b @ inverse), one, axis=-1)
    corner = ops.unslice(inverse, shape=x.shape, index=tuple((0, size, 1) for size in inverse.shape))
    adjugate = left @ ops.matrix_transpose(ops.cofactor(s)) @ right + _scalar(ops.det(s)) * corner
    sign, size = ops.slogdet.several(m)
    scale = ops.det(u) * ops.det(v) * sign * ops.exp(size) * ops.where(ops.any(lost > 0.0, axis=-1), math.nan, 1.0)
    return conj(u) @ (_scalar(scale) * ops.matrix_transpose(adjugate)) @ conj(v)


def _lost(values: Node, count: int) -> Node:
    """1 for those of the first `count` singular values that count as zero, 0 for the others."""
    values = ops.slice(values, index=("...", (None, count, None)))
    largest = ops.slice(values, index=("...", (None, 1, None)))
    is_lost = values <= float(values.shape[-1] * np.finfo(values.dtype).eps) * largest
    return ops.astype(is_lost, dtype=values.dtype.name)


def _scalar(x: Node) -> Node:
    """A number for each matrix, so that it multiplies matrices."""
    return ops.expand_dims(x, axis=MATRIX)


def _second_change(x: Node, t: Node, s: Node) -> Node | None:
    """The third derivative of the determinant along t and s, which is symmetric, as a matrix."""
    # A node of its own for t, which stays where it is while x moves, even if t is x or depends on it.
    (still,) = ops.reshape.apply(x.graph, (t,), {"shape": t.shape}, tag="still")
    (once,) = forward({x: still}, [_cofactors_by_blocks(x)])
    assert once is not None
    return forward({x: s, still: None}, [once])[0]


def _cofactor_change_forward(node: Node, tx: Node | None, tt: Node | None) -> Node | None:
    x, t = node.inputs
    return plus(tx and _second_change(x, t, tx), tt and ops.cofactor_change(x, tt))


def _cofactor_change_reverse(node: Node, g: Node) -> tuple[Node | None, Node | None]:
    x, t = node.inputs
    to_x, to_t = _second_change(x, t, conj(g)), ops.cofactor_change(x, conj(g))
    return unbroadcast(to_x and conj(to_x), x.shape), unbroadcast(conj(to_t), t.shape)


def _pair_shape(x: Shape, t: Shape) -> Shape:
    if order_of("cofactor_change", x) != order_of("cofactor_change", t) or x[-1] <= MINORS_UP_TO:
        raise ShapeMismatch(
            f"cofactor_change takes two square matrices of one size above {MINORS_UP_TO}, got {list(x)} and {list(t)}"
        )
    return (*broadcast(x[:-2], t[:-2]), *x[-2:])


cofactor_change = define(
    "cofactor_change",
    "Change of the cofactors of x1 along x2, for matrices of more than six rows: right at any rank.",
    operands=ANYS,
    kernel=_cofactor_change_kernel,
    shape=_pair_shape,
    derivative=Custom(_cofactor_change_forward, _cofactor_change_reverse),
    batch=batch_stacked,
    guard=small_enough,
    flops=lambda out, x, t: 24 * math.prod(x) * x[-1] + 8 * math.prod(out) * x[-1],
    scratch=lambda node: 5 * node.inputs[0].nbytes + 2 * node.nbytes,
    inexact=True,
    pace=40.0,
    family="linear algebra",
    torch="linalg_det_differential",
    samples=(
        Sample(((7, 7), (7, 7))),
        Sample(((2, 7, 7), (7, 7))),
        Sample(((0, 7, 7), (7, 7))),
    ),
    refusals=(
        Refusal(((3, 3), (3, 3)), {}, "shape_mismatch"),
        Refusal(((7, 7), (8, 8)), {}, "shape_mismatch"),
        Refusal(((7, 6), (7, 6)), {}, "shape_mismatch"),
        Refusal(((2049, 2049), (2049, 2049)), {}, "limit_exceeded"),
    ),
)


def _last_two(node: Node) -> tuple[int, ...]:
    return node.rank, node.rank + 1


det = _on_squares(
    "det",
    "Determinant of a square matrix; its gradient, the cofactors, and its Hessian are right at any rank.",
    np.linalg.det,
    cost=1,
    shape=_number_shape("det"),
    # Jacobi's formula; Giles, section 2.2.4, has it for regular matrices.
    derivative=by_slope(lambda out, x: ops.cofactor(x), _last_two),
    scratch=square_bytes,
    pace=30.0,
    torch="linalg_det",
    samples=(*SQUARES, Sample(([[1.0, 2.0], [2.0, 4.0]],))),
)


def _slogdet_shape(x: Shape) -> tuple[Shape, Shape]:
    order_of("slogdet", x)
    return x[:-2], x[:-2]


def _slogdet_slope(node: Node) -> Node:
    return ops.matrix_transpose(ops.inv(node.inputs[0]))


def _slogdet_forward(node: Node, t: Node) -> tuple[Node | None, Node]:
    """log(det) moves by w = tr(x⁻¹ t): that of the magnitude by the real part, the sign by i·Im(w) times itself."""
    change = times(t, _slogdet_slope(node))
    assert change is not None
    total = ops.sum(change, axis=MATRIX)
    if total.dtype.kind != "c":
        return None, total
    return _sign_of(node) * (1j * ops.imag(total)), ops.real(total)


def _sign_of(node: Node) -> Node:
    return node.graph.intern(RESULT, (node,), {"index": 0})


def _slogdet_reverse(node: Node, g: tuple[Node | None, Node | None]) -> list[Node | None]:
    to_sign, to_log = g
    if to_sign is not None and to_sign.dtype.kind == "c":
        turn = 1j * ops.imag(ops.conj(_sign_of(node)) * to_sign)
        to_log = plus(to_log, turn)
    if to_log is None:
        return [None]
    return [times(ops.reshape(to_log, shape=(*to_log.shape, 1, 1)), conj(_slogdet_slope(node)))]


slogdet = _on_squares(
    "slogdet",
    "Sign, and logarithm of the magnitude, of the determinant; the sign of a real one has derivative zero.",
    np.linalg.slogdet,
    cost=1,
    results=("sign", "logabsdet"),
    returns=lambda x: (x, part_dtype(x)),
    holomorphic=False,
    shape=_slogdet_shape,
    # Giles, section 2.2.4
    derivative=Custom(_slogdet_forward, _slogdet_reverse),
    scratch=square_bytes,
    pace=30.0,
    torch="linalg_slogdet",
)


def _logdet(x: Array) -> Array:
    sign, size = np.linalg.slogdet(x)
    return np.asarray(np.log(sign) + size if x.dtype.kind == "c" else np.where(sign < 0, np.nan, size), x.dtype)


def _logdet_slope(out: Node, x: Node) -> Node:
    """The inverse, transposed; NaN where the value is."""
    slope = ops.matrix_transpose(ops.inv(x))
    return slope if x.dtype.kind == "c" else ops.where(ops.isnan(out), math.nan, slope)


logdet = _on_squares(
    "logdet",
    "Logarithm of the determinant; NaN where a real one is negative.",
    _logdet,
    cost=1,
    shape=_number_shape("logdet"),
    derivative=by_slope(_logdet_slope, _last_two),
    scratch=square_bytes,
    pace=30.0,
    torch="logdet",
    samples=(
        Sample(([[2.0, 0.5, -0.3], [0.5, 1.0, 0.4], [-0.3, 0.7, 1.5]],)),
        Sample(([[[1.0, 2.0], [-3.0, 0.5]], [[-1.0, 0.5], [0.25, -2.0]]],)),
        Sample(((0, 0),)),
        Sample(((0, 2, 2),)),
    ),
)


# Tensors as matrices


def _tensorinv(x: Node, *, ind: int) -> Node:
    if not 0 < ind < x.rank or math.prod(x.shape[:ind]) != math.prod(x.shape[ind:]):
        raise ShapeMismatch(
            f"tensorinv takes a tensor whose first {ind} axes hold as many elements as the others; got {list(x.shape)}"
        )
    order = math.prod(x.shape[:ind])
    return ops.reshape(ops.inv(ops.reshape(x, shape=(order, order))), shape=(*x.shape[ind:], *x.shape[:ind]))


def _few_elements(limits: Limits, x: Node, *others: Node, **attrs: Any) -> None:
    """The square matrix that a tensor is has as many rows as the root of its elements."""
    order = math.isqrt(x.size)
    if order > limits.linalg_dimension:
        raise LimitExceeded("linalg_dimension", limits.linalg_dimension, order, "rows or columns of a matrix")


tensorinv = composite(
    "tensorinv",
    "Inverse of a tensor under tensordot: as a matrix, its first axes are rows, the others columns.",
    _tensorinv,
    operands=ANY,
    attrs={"ind": attrs.integer("How many axes are the rows.", 2)},
    guard=_few_elements,
    family="linear algebra",
    samples=(
        Sample(((2, 3, 3, 2),)),
        Sample(((4, 2, 2),), {"ind": 1}),
        Sample(((0, 2, 0, 3),)),
    ),
    refusals=(
        Refusal(((2, 3, 2),), {}, "shape_mismatch"),
        Refusal(((2, 2),), {}, "shape_mismatch"),
        Refusal(((2, 2),), {"ind": 0}, "shape_mismatch"),
        Refusal(((2049, 2049),), {"ind": 1}, "limit_exceeded"),
    ),
)


def _tensorsolve(a: Node, b: Node, *, axes: tuple[int, ...] | None) -> Node:
    last = () if axes is None else tuple(axis_of(axis, a.rank) for axis in axes)
    if len(set(last)) < len(last):
        raise ShapeMismatch(f"axes {list(last)} of tensorsolve name an axis twice")
    moved = ops.permute_dims(a, axes=(*(at for at in range(a.rank) if at not in last), *last))
    shape = moved.shape[b.rank :]
    if b.size != math.prod(shape) or a.size != b.size**2:
        raise ShapeMismatch(
            f"tensorsolve takes a tensor of {b.size}² elements, {b.size} of them in the axes after the first {b.rank}; "
            f"got {list(moved.shape)}"
        )
    solved = ops.solve(ops.reshape(moved, shape=(b.size, b.size)), ops.reshape(b, shape=(b.size,)))
    return ops.reshape(solved, shape=shape)


tensorsolve = composite(
    "tensorsolve",
    "The x with tensordot(x1, x, x.ndim) = x2.",
    _tensorsolve,
    operands=ANYS,
    attrs={"axes": attrs.integers("Axes of x1 that are moved to its end first.", None)},
    guard=_few_elements,
    family="linear algebra",
    samples=(
        Sample(((2, 3, 6), (2, 3))),
        Sample(((2, 2, 4), (4,)), {"axes": [0, 1]}),
        Sample(((4, 2, 2), (2, 2)), {"axes": [0]}),
    ),
    refusals=(
        Refusal(((2, 3, 5), (2, 3)), {}, "shape_mismatch"),
        Refusal(((2, 2), (2,)), {"axes": [2]}, "shape_mismatch"),
        Refusal(((2, 2), (2,)), {"axes": [0, 0]}, "shape_mismatch"),
        Refusal(((2049, 2049), (2049,)), {}, "limit_exceeded"),
    ),
)
