"""Factorisations of matrices on the last two axes, batched over the others: QR, singular values, eigenvalues, Cholesky.

Derivatives are written with the factors themselves: differentiate the equation that defines them, multiply it by
the factors from both sides until what stands in the middle is small and square, and read off what the structure of
the factors (triangular, orthonormal, diagonal) leaves of it. Every rule consists of ops, so any order follows.

Vectors turn at a rate of one over the gap between their value and the others: the rate is NaN where two values are
equal, since any rotation of the two would do as well. Values themselves never ask for a gap. The sign of a vector is
LAPACK's choice; only what does not depend on it means anything.

A symmetric matrix is taken as the symmetric part of what is given, (A + Aᵀ)/2. For a symmetric matrix that is the
same, and it makes gradients symmetric and equal to differences of values in every direction, asymmetric ones too.

Of complex matrices read the transpose as the adjoint, symmetric as Hermitian, orthonormal as unitary: `_adjoint` is the
conjugate transpose. What is left free is then a phase and not a sign: vectors turn by no more of it than they must.

Where an inverse of a triangular factor is needed it is `inv` of it: a series of an inverse costs products only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from engine import attrs
from engine.core import RESULT, Attrs, Node, Op, Refusal, Sample, define, ops
from engine.derivative import Custom, filled, plus, times
from engine.errors import NotDifferentiable, ShapeMismatch
from engine.families import ANY, batch_same, part_dtype, resized, span
from engine.ops.linalg import NO_SQUARES, order_of, small_enough
from engine.types import Dtype, Shape, Spec

SYMMETRIC = [[2.0, 0.5, -0.3], [0.5, 0.0, 0.7], [-0.3, 0.7, -1.5]]
"""Its eigenvalues are far apart."""

SYMMETRICS = (
    Sample((SYMMETRIC,)),
    Sample(([[3.0, 1.5], [0.5, 0.5]],)),
    Sample(([[[2.0, 1.0], [1.0, -1.0]], [[0.5, -0.25], [-0.25, 3.0]]],)),
    Sample(((1, 1),)),
    Sample(((0, 0),)),
    Sample(((0, 2, 2),)),
)
TALL = [[2.0, 0.5], [-0.4, 1.0], [0.3, -0.6]]
WIDE = [[2.0, -0.4, 0.3], [0.5, 1.0, -0.6]]
NO_MATRICES = (
    Refusal(((3,),), {}, "shape_mismatch"),
    Refusal(((),), {}, "shape_mismatch"),
    Refusal(((2049, 1),), {}, "limit_exceeded"),
    Refusal(((1, 2049),), {}, "limit_exceeded"),
)
EQUAL_VALUES = (
    "values are equal, and any rotation of their vectors would do as well; what goes through the vectors, as "
    "derivatives of the values do from order 2 on, has no derivative here"
)


# What is common


def matrix_of(name: str, shape: Shape) -> tuple[Shape, int, int]:
    """The stack, the rows and the columns of matrices of some shape. Raises ShapeMismatch."""
    if len(shape) < 2:
        raise ShapeMismatch(f"{name} takes a matrix or a stack of them, with shape (…, m, n); got {list(shape)}")
    return shape[:-2], shape[-2], shape[-1]


def matrix_bytes(node: Node) -> int:
    """Bytes of one matrix of the stack that is factorised: LAPACK gets a copy of each in its turn."""
    return math.prod(node.inputs[0].shape[-2:]) * node.inputs[0].dtype.itemsize


def result_matrix_bytes(node: Node, at: int) -> int:
    """Bytes of one matrix among those of a result."""
    spec = node.specs[at]
    return math.prod(spec.shape[-2:]) * spec.dtype.itemsize


def factorisation(name: str, doc: str, kernel: Callable[..., Any], cost: int, **record: Any) -> Op:
    """One matrix, or a stack of them; `cost` operations per m·n·min(m, n)."""
    defaults: dict[str, Any] = {
        "operands": ANY,
        "holomorphic": False,
        "family": "linear algebra",
        "inexact": True,
        "guard": small_enough,
        "batch": batch_same,
        "flops": lambda out, x, **attrs: cost * math.prod(x) * min(x[-2:]),
        "scratch": matrix_bytes,
        "overhead": lambda node: 10.0 + 3.0 * math.prod(node.inputs[0].shape[:-2]),
    }
    return define(name, doc, kernel=kernel, **defaults | record)


def of_finite(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """`kernel` for finite matrices only: what iterates would not converge, or would pass NaN off as a number."""

    def run(x: Any, **attrs: Any) -> Any:
        if not np.isfinite(x).all():
            raise np.linalg.LinAlgError("an element is infinite or not a number")
        return kernel(x, **attrs)

    return run


def results_of(node: Node) -> tuple[Node, ...]:
    """The projections of a node with several results."""
    return tuple(node.graph.intern(RESULT, (node,), {"index": at}) for at in range(len(node.op.results)))


def _adjoint(x: Node) -> Node:
    return ops.adjoint(x)


def _symmetric(x: Node) -> Node:
    return 0.5 * (x + _adjoint(x))


def _skew(x: Node) -> Node:
    return 0.5 * (x - _adjoint(x))


def _as_row(values: Node) -> Node:
    """Values that go with columns: one for all rows."""
    return ops.expand_dims(values, axis=-2)


def _as_column(values: Node) -> Node:
    return ops.expand_dims(values, axis=-1)


def slowed(x: Node, rates: Node) -> Node:
    """x times rates that may be infinite or NaN: under nan_policy "mask" a zero in x wins over them."""
    product = times(x, rates)
    assert product is not None
    return product


def _identity(values: Node) -> Node:
    return ops.eye.on(values.graph, n_rows=values.shape[-1], dtype=values.dtype.name)


def inverse_gaps(values: Node) -> Node:
    """1/(λ_j − λ_i) in row i, column j; 0 on the diagonal, NaN where two values are equal."""
    identity = _identity(values)
    gaps = _as_row(values) - _as_column(values) + identity
    equal = ops.equal(gaps, 0.0)
    values.graph.warn_if(equal, "equal_eigenvalues", EQUAL_VALUES)
    return ops.where(equal, math.nan, 1.0 - identity) / gaps


def _inverse_sums(values: Node, dtype: Dtype) -> Node:
    """1/(σ_i + σ_j), for what is skew; 0 on the diagonal, unless there are imaginary numbers to stand there."""
    sums = _as_row(values) + _as_column(values)
    if dtype.kind == "c":
        return ops.reciprocal(sums)
    identity = _identity(values)
    apart = 1.0 - identity
    return apart / (apart * sums + identity)


def _lower_half(x: Node) -> Node:
    """Murray's Φ: the lower triangle, with half of the diagonal. With its transpose it makes up a symmetric x."""
    return 0.5 * (ops.tril(x) + ops.tril(x, k=-1))


# QR: Walter and Lehmann, Algorithmic differentiation of linear algebra functions, arXiv:1001.1654; Seeger and others,
# arXiv:1710.08717; for wide matrices Roberts and Roberts, arXiv:2009.10071.


def _settled_qr(attrs: Attrs, shape: Shape) -> Attrs:
    """Complete is reduced unless there are more rows than columns."""
    _, rows, columns = matrix_of("qr", shape)
    return attrs if rows > columns else attrs | {"mode": "reduced"}


def _qr_shape(x: Shape, *, mode: str) -> tuple[Shape, Shape]:
    stack, rows, columns = matrix_of("qr", x)
    inner = rows if mode == "complete" else min(rows, columns)
    return (*stack, rows, inner), (*stack, inner, columns)


def _qr_bytes(node: Node) -> int:
    """NumPy's copy of the matrices, and one of them and its Q with LAPACK; there is no R yet."""
    found = node.inputs[0].nbytes + matrix_bytes(node) + result_matrix_bytes(node, 0)
    return max(0, found - node.specs[1].nbytes)


def _smooth_qr(node: Node) -> tuple[Node, Node, Node, bool]:
    """Q, R, the inverse of the square part of R, and whether Q is taller than wide. Raises NotDifferentiable."""
    if node.attrs["mode"] == "complete":
        raise NotDifferentiable(
            "qr with mode complete has no derivative for a matrix with more rows than columns: any orthonormal "
            "completion would do for the last columns of Q; use mode reduced"
        )
    q, r = results_of(node)
    square = ops.slice(r, index=("...", (None, r.shape[-2], None)))
    return q, r, ops.inv(square), q.shape[-2] > q.shape[-1]


def _qr_forward(node: Node, t: Node) -> tuple[Node, Node]:
    """Q' = Q Ω + (1 − QQᵀ) t R⁻¹ and R' = Qᵀt − Ω R, where Ω = QᵀQ' is skew with the lower triangle of Qᵀt R⁻¹.

    On its diagonal Ω has what keeps R's diagonal real.
    """
    q, r, inverse, is_tall = _smooth_qr(node)
    inside = _adjoint(q) @ t
    turned = ops.slice(inside, index=("...", (None, r.shape[-2], None))) @ inverse
    below = _lower_half(turned)
    turn = below - _adjoint(below)
    change = q @ turn
    if is_tall:
        change = change + (t @ inverse - q @ turned)
    return change, ops.triu(inside - turn @ r)


def _qr_reverse(node: Node, g: tuple[Node | None, Node | None]) -> Node | None:
    """The adjoint of the forward rule, line by line from below."""
    q, r, inverse, is_tall = _smooth_qr(node)
    to_q, to_r = g[0], g[1] and ops.triu(g[1])
    along = to_q and _adjoint(q) @ to_q
    to_turn = plus(along, to_r and -(to_r @ _adjoint(r)))
    assert to_turn is not None
    to_turned = q @ _lower_half(to_turn - _adjoint(to_turn))
    if is_tall and to_q is not None and along is not None:
        to_turned = to_turned + (to_q - q @ along)
    to_x = to_turned @ _adjoint(inverse)
    if to_x.shape != node.inputs[0].shape:
        to_x = ops.unslice(to_x, shape=node.inputs[0].shape, index=_leading(to_x.shape))
    return plus(to_r and q @ to_r, to_x)


def _leading(shape: Shape) -> tuple[tuple[int, int, int], ...]:
    """The index of a part of this shape that begins where the whole does."""
    return tuple((0, size, 1) for size in shape)


qr = factorisation(
    "qr",
    "Q with orthonormal columns and upper triangular R with Q R = x; the signs on R's diagonal are LAPACK's.",
    np.linalg.qr,
    cost=4,
    attrs={
        "mode": attrs.choice(
            "reduced: Q has as many columns as the shorter side; complete: Q is square.",
            ("reduced", "complete"),
            "reduced",
        )
    },
    canonical=_settled_qr,
    results=("Q", "R"),
    shape=_qr_shape,
    derivative=Custom(_qr_forward, _qr_reverse),
    scratch=_qr_bytes,
    pace=28.0,
    torch="linalg_qr",
    samples=(
        Sample(([[2.0, 0.5, -0.3], [1.0, -1.5, 0.7], [-0.3, 0.4, 1.0]],)),
        Sample((TALL,)),
        Sample((WIDE,)),
        Sample((WIDE,), {"mode": "complete"}),
        Sample(([TALL, [[0.5, 1.0], [1.5, -0.5], [1.0, 0.25]]],)),
        Sample((TALL,), {"mode": "complete"}),
        Sample(((1, 3),)),
        Sample(((3, 1),)),
        Sample(((3, 0),)),
        Sample(((0, 3),)),
        Sample(((0, 3, 2),)),
        Sample(((3, 0),), {"mode": "complete"}),
    ),
    refusals=(*NO_MATRICES, Refusal(((2, 2),), {"mode": "raw"}, "invalid_graph")),
)


# Singular values: Townsend, Differentiating the singular value decomposition, 2016; Wan and Zhang, arXiv:1909.02659;
# for values alone Giles, section 3.1. With P = Uᵀ t V split in a symmetric part M and a skew part K, vectors turn by
#     UᵀU' = M/(σ_j − σ_i) + K/(σ_i + σ_j)   and   VᵀV' = M/(σ_j − σ_i) − K/(σ_i + σ_j),
# which is Townsend's with σ_j² − σ_i² taken apart: no square is lost to rounding.


def _settled_svd(attrs: Attrs, shape: Shape) -> Attrs:
    """Full is reduced for a square matrix."""
    _, rows, columns = matrix_of("svd", shape)
    return attrs | {"full_matrices": attrs["full_matrices"] and rows != columns}


def _svd_bytes(node: Node) -> int:
    """One matrix and its vectors, with LAPACK, and what it divides and conquers in: three squares."""
    (x,) = node.inputs
    squares = 3 * min(x.shape[-2:]) ** 2 * x.dtype.itemsize
    return matrix_bytes(node) + result_matrix_bytes(node, 0) + result_matrix_bytes(node, 2) + squares


def _svd_shape(x: Shape, *, full_matrices: bool) -> tuple[Shape, Shape, Shape]:
    stack, rows, columns = matrix_of("svd", x)
    least = min(rows, columns)
    left, right = (rows, columns) if full_matrices else (least, least)
    return (*stack, rows, left), (*stack, least), (*stack, right, columns)


def _svdvals_shape(x: Shape) -> Shape:
    stack, rows, columns = matrix_of("svdvals", x)
    return (*stack, min(rows, columns))


def _reduced(x: Node) -> tuple[Node, ...]:
    return ops.svd.several(x, full_matrices=False)


def _leading_vectors(node: Node) -> tuple[Node, Node, Node]:
    """U, S and Vh without the vectors that go with no value."""
    u, s, vh = results_of(node)
    return _first(u, s.shape[-1], -1), s, _first(vh, s.shape[-1], -2)


def _first(x: Node, count: int, axis: int) -> Node:
    return span(x, x.rank + axis, 0, count) if x.shape[axis] > count else x


def _completed(tangent: Node, vectors: Node, axis: int) -> Node:
    """The tangent of all vectors from that of the leading ones. The others may turn among themselves: NaN."""
    missing = vectors.shape[axis] - tangent.shape[axis]
    if not missing:
        return tangent
    shape = resized(tangent.shape, tangent.rank + axis, missing)
    # A matrix without elements cannot move, so that nothing turns.
    unknown = filled(tangent.graph, math.nan if tangent.size else 0.0, Spec(shape, tangent.dtype))
    return ops.concat(tangent, unknown, axis=axis)


def _undetermined(g: Node | None, count: int, axis: int) -> Node | None:
    """NaN for each matrix where the vectors that go with no value have a cotangent other than zero."""
    if g is None or g.shape[axis] == count:
        return None
    rest = ops.masked_multiply(span(g, g.rank + axis, count, None), math.nan)
    return ops.sum(rest, axis=(-2, -1), keepdims=True)


def _svdvals_forward(node: Node, t: Node) -> Node:
    u, _, vh = _reduced(node.inputs[0])
    return ops.real(ops.sum(ops.conj(u) * (t @ _adjoint(vh)), axis=-2))


def _svdvals_reverse(node: Node, g: Node) -> Node:
    u, _, vh = _reduced(node.inputs[0])
    return (u * _as_row(g)) @ vh


def _svd_forward(node: Node, t: Node) -> tuple[Any, ...]:
    u, s, vh = _leading_vectors(node)
    left, right = t @ _adjoint(vh), _adjoint(u) @ t
    inside = _adjoint(u) @ left
    together = slowed(_symmetric(inside), inverse_gaps(s))
    apart = slowed(_skew(inside), _inverse_sums(s, u.dtype))
    to_u, to_vh = u @ (together + apart), (apart - together) @ vh
    # What leaves the spans of U and V, where they are not all there is.
    if u.shape[-2] > u.shape[-1]:
        to_u = to_u + slowed(left - u @ inside, _as_row(ops.reciprocal(s)))
    if vh.shape[-1] > vh.shape[-2]:
        to_vh = to_vh + slowed(right - inside @ vh, _as_column(ops.reciprocal(s)))
    all_u, _, all_vh = results_of(node)
    return _completed(to_u, all_u, -1), ops.real(ops.sum(ops.conj(u) * left, axis=-2)), _completed(to_vh, all_vh, -2)


def _svd_reverse(node: Node, g: tuple[Node | None, Node | None, Node | None]) -> Node | None:
    """The adjoint of the forward rule; of values alone, without a gap."""
    to_u, to_s, to_vh = g
    if to_u is None and to_vh is None:
        return to_s and _svdvals_reverse(node, to_s)
    u, s, vh = _leading_vectors(node)
    unknown = plus(_undetermined(to_u, s.shape[-1], -1), _undetermined(to_vh, s.shape[-1], -2))
    to_u, to_vh = to_u and _first(to_u, s.shape[-1], -1), to_vh and _first(to_vh, s.shape[-1], -2)
    by_u = to_u and _adjoint(u) @ to_u
    by_v = to_vh and vh @ _adjoint(to_vh)
    together, apart = plus(by_u, by_v), plus(by_u, by_v and -by_v)
    assert together is not None and apart is not None
    turn = _symmetric(slowed(together, inverse_gaps(s))) + _skew(slowed(apart, _inverse_sums(s, u.dtype)))
    left = plus(u @ turn, to_s and u * _as_row(to_s))
    if u.shape[-2] > u.shape[-1] and to_u is not None and by_u is not None:
        left = plus(left, slowed(to_u - u @ by_u, _as_row(ops.reciprocal(s))))
    total = left and left @ vh
    if vh.shape[-1] > vh.shape[-2] and to_vh is not None and by_v is not None:
        total = plus(total, u @ slowed(to_vh - _adjoint(by_v) @ vh, _as_column(ops.reciprocal(s))))
    return plus(total, unknown)


def _svd(x: Any, *, full_matrices: bool) -> Any:
    return np.linalg.svd(x, full_matrices=full_matrices)


svd = factorisation(
    "svd",
    "U, S and Vh with U diag(S) Vh = x: orthonormal vectors, and singular values in descending order.",
    of_finite(_svd),
    cost=20,
    attrs={
        "full_matrices": attrs.boolean(
            "Whether U and Vh are square; else they have as many vectors as there are values.", True
        )
    },
    canonical=_settled_svd,
    results=("U", "S", "Vh"),
    returns=lambda x, **attrs: (x, part_dtype(x), x),
    shape=_svd_shape,
    derivative=Custom(_svd_forward, _svd_reverse),
    scratch=_svd_bytes,
    pace=45.0,
    torch="linalg_svd",
    samples=(
        Sample(([[2.0, 0.5, -0.3], [0.5, 1.0, 0.7], [-0.3, 0.4, -0.5]],)),
        Sample((TALL,), {"full_matrices": False}),
        Sample((WIDE,), {"full_matrices": False}),
        Sample(([TALL, [[0.5, 1.0], [1.5, -0.5], [1.0, 0.25]]],), {"full_matrices": False}),
        Sample(((1, 3),), {"full_matrices": False}),
        Sample(((3, 0),), {"full_matrices": False}),
        Sample(((0, 3),)),
        Sample(((0, 3, 2),), {"full_matrices": False}),
    ),
    refusals=(*NO_MATRICES, Refusal(((2, 2),), {"full_matrices": 0}, "invalid_graph")),
)


def _svdvals(x: Any) -> Any:
    return np.linalg.svd(x, compute_uv=False)


svdvals = factorisation(
    "svdvals",
    "Singular values in descending order.",
    of_finite(_svdvals),
    cost=3,
    shape=_svdvals_shape,
    returns=part_dtype,
    derivative=Custom(_svdvals_forward, _svdvals_reverse),
    pace=11.0,
    torch="linalg_svd",
    samples=(
        Sample((TALL,)),
        Sample((WIDE,)),
        Sample(([[2.0, 0.5, -0.3], [0.5, 1.0, 0.7], [-0.3, 0.4, -0.5]],)),
        Sample(([WIDE, [[0.5, 1.5, 1.0], [1.0, -0.5, 0.25]]],)),
        Sample(((1, 3),)),
        Sample(((3, 0),)),
        Sample(((0, 3, 2),)),
    ),
    refusals=NO_MATRICES,
)


# Eigenvalues of symmetric matrices: Giles, section 3.1; Walter and Lehmann, arXiv:1009.6112, for higher orders.


def _symmetric_part(x: Any) -> Any:
    """(x + xᵀ)/2: of a symmetric matrix the matrix itself, to the last bit."""
    return (x + np.conjugate(np.swapaxes(x, -1, -2))) * 0.5


def _eigh(x: Any, **triangle: str) -> Any:
    return np.linalg.eigh(_symmetric_part(x))


def _eigh_shape(x: Shape, **triangle: str) -> tuple[Shape, Shape]:
    order_of("eigh", x)
    return x[:-1], x


def _eigvalsh_shape(x: Shape, **triangle: str) -> Shape:
    order_of("eigvalsh", x)
    return x[:-1]


def _eigh_forward(node: Node, t: Node) -> tuple[Node, Node]:
    """λ' = diag(Vᵀ t V) and V' = V (F∘sym(Vᵀ t V)) with F_ij = 1/(λ_j − λ_i)."""
    values, vectors = results_of(node)
    moved = t @ vectors
    turn = slowed(_symmetric(_adjoint(vectors) @ moved), inverse_gaps(values))
    return ops.real(ops.sum(ops.conj(vectors) * moved, axis=-2)), vectors @ turn


def _eigh_reverse(node: Node, g: tuple[Node | None, Node | None]) -> Node | None:
    """sym(V (diag(g₁) + F∘(Vᵀ g₂)) Vᵀ); of values alone, without F."""
    values, vectors = results_of(node)
    to_values, to_vectors = g
    turn = to_vectors and slowed(_adjoint(vectors) @ to_vectors, inverse_gaps(values))
    left = plus(to_values and vectors * _as_row(to_values), turn and vectors @ turn)
    return left and _symmetric(left @ _adjoint(vectors))


def _without_triangle(given: Attrs, *shapes: Shape) -> Attrs:
    """Nothing depends on UPLO: of a symmetric matrix both triangles say the same, and here their mean is read."""
    return given | {"UPLO": "L"}


UPLO = {
    "UPLO": attrs.choice(
        "Which triangle others read; here it changes nothing, since the mean of both is read.", ("L", "U"), "L"
    )
}
READ_EITHER_WAY = (*SYMMETRICS, Sample(([[2.0, 0.5], [0.5, 1.0]],), {"UPLO": "U"}))

eigh = factorisation(
    "eigh",
    "Eigenvalues of a symmetric matrix, ascending, and its eigenvectors as columns.",
    of_finite(_eigh),
    cost=9,
    results=("eigenvalues", "eigenvectors"),
    returns=lambda x, **triangle: (part_dtype(x), x),
    shape=_eigh_shape,
    derivative=Custom(_eigh_forward, _eigh_reverse),
    scratch=lambda node: node.inputs[0].nbytes + 3 * matrix_bytes(node),
    pace=45.0,
    torch="linalg_eigh",
    attrs=UPLO,
    canonical=_without_triangle,
    samples=READ_EITHER_WAY,
    refusals=NO_SQUARES,
)


def _eigvalsh(x: Any, **triangle: str) -> Any:
    return np.linalg.eigvalsh(_symmetric_part(x))


def _eigvalsh_forward(node: Node, t: Node) -> Node:
    _, vectors = ops.eigh.several(node.inputs[0])
    return ops.real(ops.sum(ops.conj(vectors) * (t @ vectors), axis=-2))


def _eigvalsh_reverse(node: Node, g: Node) -> Node:
    _, vectors = ops.eigh.several(node.inputs[0])
    return _symmetric((vectors * _as_row(g)) @ _adjoint(vectors))


eigvalsh = factorisation(
    "eigvalsh",
    "Eigenvalues of a symmetric matrix, ascending.",
    of_finite(_eigvalsh),
    cost=2,
    shape=_eigvalsh_shape,
    returns=part_dtype,
    derivative=Custom(_eigvalsh_forward, _eigvalsh_reverse),
    scratch=lambda node: node.inputs[0].nbytes + matrix_bytes(node),
    pace=20.0,
    torch="linalg_eigh",
    attrs=UPLO,
    canonical=_without_triangle,
    samples=READ_EITHER_WAY,
    refusals=NO_SQUARES,
)


# Cholesky: Murray, Differentiation of the Cholesky decomposition, arXiv:1602.07527, equations 8 and 10.


def _cholesky_shape(x: Shape, *, upper: bool) -> Shape:
    order_of("cholesky", x)
    return x


def _cholesky(x: Any, *, upper: bool) -> Any:
    return np.linalg.cholesky(_symmetric_part(x), upper=upper)


def _turned(x: Node, upper: bool) -> Node:
    """Between a factor and the lower one."""
    return _adjoint(x) if upper else x


def _cholesky_forward(node: Node, t: Node) -> Node:
    """L' = L Φ(L⁻¹ t L⁻ᵀ)."""
    lower = _turned(node, node.attrs["upper"])
    inverse = ops.inv(lower)
    change = lower @ _lower_half(inverse @ _symmetric(t) @ _adjoint(inverse))
    return _turned(change, node.attrs["upper"])


def _cholesky_reverse(node: Node, g: Node) -> Node:
    """sym(L⁻ᵀ Φ(Lᵀ g) L⁻¹)."""
    lower = _turned(node, node.attrs["upper"])
    inverse = ops.inv(lower)
    inside = _lower_half(_adjoint(lower) @ _turned(g, node.attrs["upper"]))
    return _symmetric(_adjoint(inverse) @ inside @ inverse)


POSITIVE = [[2.0, 0.5, -0.3], [0.5, 1.0, 0.4], [-0.3, 0.4, 1.5]]

cholesky = factorisation(
    "cholesky",
    "The lower triangular L with L Lᵀ = x, for a symmetric positive definite matrix; or the upper one, Lᵀ.",
    of_finite(_cholesky),
    cost=1,
    attrs={"upper": attrs.boolean("Whether the factor is the upper triangular one.", False)},
    shape=_cholesky_shape,
    derivative=Custom(_cholesky_forward, _cholesky_reverse),
    pace=36.0,
    torch="linalg_cholesky_ex",
    domain=((0.5, 2.0),),
    samples=(
        Sample((POSITIVE,)),
        Sample((POSITIVE,), {"upper": True}),
        Sample(([[1.0, 0.5], [-0.25, 2.0]],)),
        Sample(([[[2.0, 1.0], [1.0, 1.0]], [[0.5, -0.25], [-0.25, 3.0]]],)),
        Sample(((1, 1),)),
        Sample(((0, 0),)),
        Sample(((0, 2, 2),)),
    ),
    refusals=(*NO_SQUARES, Refusal(([[1.0, 2.0], [2.0, 1.0]],), {}, "singular_matrix")),
)
