"""Eigenvalues of general matrices, on the last two axes, batched over the others. Results are complex, always.

LAPACK leaves the phase of a vector to itself. Here its largest element, the first of them in a tie, is real and
positive, so that vectors are functions of the matrix, with derivatives of their own; what does not depend on the phase
has the same ones under any other choice, PyTorch's among them. With the derivative V G of the vectors up to their
lengths and phases, V'= V (G − diag(c)): c keeps the length at 1 (its real part) and that element real.

Two values that are equal leave a plane of vectors to choose from, and a rate of NaN. If there is one vector only, the
values have no derivative either, as roots of a double zero have none: NaN.
"""

from __future__ import annotations

import math

import numpy as np

from engine.core import Node, Sample, ops
from engine.derivative import Custom, plus
from engine.ops.factorisations import factorisation, inverse_gaps, of_finite, results_of, slowed
from engine.ops.linalg import NO_SQUARES, order_of
from engine.types import Array, Dtype, Shape

GENERAL = [[2.0, 0.5, -0.3], [0.4, -1.0, 0.7], [-0.9, 0.4, 0.5]]
TURNING = [[0.5, 2.0, 0.1], [-1.0, 0.3, 0.4], [0.2, -0.3, 1.5]]
"""It has two complex eigenvalues."""

MATRICES = (
    Sample((GENERAL,)),
    Sample((TURNING,)),
    Sample(([TURNING, GENERAL],)),
    Sample(((3, 3),)),
    Sample(((1, 1),)),
    Sample(((0, 0),)),
    Sample(((0, 2, 2),)),
)


def _complex_dtype(dtype: Dtype) -> Dtype:
    return np.result_type(dtype, np.complex64)


NEARLY = 1 - 1e-6
"""Elements of this part of the largest count as equally large, so that rounding does not choose between them."""


def _eig(x: Array) -> tuple[Array, Array]:
    values, found = np.linalg.eig(x)
    values, vectors = (each.astype(_complex_dtype(x.dtype)) for each in (values, found))
    if not x.size:
        return values, vectors
    size = np.abs(vectors)
    first = (size >= NEARLY * size.max(axis=-2, keepdims=True)).argmax(axis=-2, keepdims=True)
    lead, length = (np.take_along_axis(each, first, axis=-2) for each in (vectors, size))
    vectors = vectors * (length / lead)
    np.put_along_axis(vectors, first, length, axis=-2)  # real to the last bit: the rule looks for it
    return values, vectors


def _eig_shape(x: Shape) -> tuple[Shape, Shape]:
    order_of("eig", x)
    return x[:-1], x


def _inverse(vectors: Node) -> Node:
    """V⁻¹, and NaN where no digit of it is right: there are not as many vectors as rows."""
    inverse = ops.inv(vectors)
    if not vectors.size:
        return inverse
    largest = ops.max(ops.abs(inverse), axis=(-2, -1), keepdims=True)
    return ops.where(largest < 0.1 / float(np.finfo(vectors.dtype).eps), inverse, math.nan)


def _lead(vectors: Node) -> tuple[Node, Node]:
    """Which element of each vector is kept real, as a mask; and this element."""
    is_real = ops.equal(ops.imag(vectors), 0.0)
    if not vectors.shape[-1]:
        return is_real, _picked(is_real, vectors)
    place = ops.argmax(ops.where(is_real, ops.abs(vectors), -1.0), axis=-2, keepdims=True)
    rows = ops.expand_dims(ops.arange.on(vectors.graph, start=0, stop=vectors.shape[-2]), axis=-1)
    chosen = ops.equal(rows, place)
    return chosen, _picked(chosen, vectors)


def _picked(chosen: Node, x: Node) -> Node:
    return ops.sum(ops.where(chosen, x, 0.0), axis=-2, keepdims=True)


def _along(vectors: Node, x: Node) -> Node:
    """The product of each vector, conjugated, and a column of x."""
    return ops.sum(ops.conj(vectors) * x, axis=-2, keepdims=True)


def _eig_forward(node: Node, t: Node) -> tuple[Node, Node]:
    """λ' = diag(P) and V' = V (F∘P − diag(c)) with P = V⁻¹ t V, F_ij = 1/(λ_j − λ_i)."""
    values, vectors = results_of(node)
    inside = _inverse(vectors) @ t @ vectors
    turned = vectors @ slowed(inside, inverse_gaps(values))
    chosen, lead = _lead(vectors)
    phase = ops.imag(_picked(chosen, turned) / lead)
    length = ops.real(_along(vectors, turned))
    return ops.diagonal(inside), turned - vectors * ops.complex(length, phase)


def _eig_reverse(node: Node, g: tuple[Node | None, Node | None]) -> Node | None:
    """V⁻ᴴ (diag(g₁) + F̄∘(Vᴴ h)) Vᴴ, where h is g₂ without what length and phase take from it."""
    values, vectors = results_of(node)
    to_values, to_vectors = g
    back = ops.adjoint(_inverse(vectors))
    left = to_values and back * ops.expand_dims(to_values, axis=-2)
    if to_vectors is not None:
        chosen, lead = _lead(vectors)
        along = _along(vectors, to_vectors)
        phase = ops.where(chosen, 1j * ops.imag(along) / lead, 0.0)
        rest = to_vectors - vectors * ops.real(along) - phase
        left = plus(left, back @ slowed(ops.adjoint(vectors) @ rest, ops.conj(inverse_gaps(values))))
    return left and _of_operand(node, left @ ops.adjoint(vectors))


def _of_operand(node: Node, cotangent: Node) -> Node:
    """A real matrix has a real cotangent."""
    return cotangent if node.inputs[0].dtype.kind == "c" else ops.real(cotangent)


eig = factorisation(
    "eig",
    "Eigenvalues of a square matrix, and its eigenvectors as columns of length 1; both are complex.",
    of_finite(_eig),
    cost=25,
    results=("eigenvalues", "eigenvectors"),
    returns=_complex_dtype,
    holomorphic=False,
    shape=_eig_shape,
    derivative=Custom(_eig_forward, _eig_reverse),
    scratch=lambda node: 5 * node.inputs[0].nbytes,
    pace=40.0,
    torch="linalg_eig",
    samples=MATRICES,
    refusals=NO_SQUARES,
)


def _eigvals(x: Array) -> Array:
    return np.linalg.eigvals(x).astype(_complex_dtype(x.dtype), copy=False)


def _eigvals_shape(x: Shape) -> Shape:
    order_of("eigvals", x)
    return x[:-1]


def _eigvals_forward(node: Node, t: Node) -> Node:
    _, vectors = ops.eig.several(node.inputs[0])
    return ops.sum(ops.matrix_transpose(_inverse(vectors)) * (t @ vectors), axis=-2)


def _eigvals_reverse(node: Node, g: Node) -> Node:
    _, vectors = ops.eig.several(node.inputs[0])
    back = ops.adjoint(_inverse(vectors)) * ops.expand_dims(g, axis=-2)
    return _of_operand(node, back @ ops.adjoint(vectors))


eigvals = factorisation(
    "eigvals",
    "Eigenvalues of a square matrix, complex ones always.",
    of_finite(_eigvals),
    cost=10,
    returns=_complex_dtype,
    holomorphic=True,
    shape=_eigvals_shape,
    derivative=Custom(_eigvals_forward, _eigvals_reverse),
    pace=25.0,
    torch="linalg_eig",
    samples=MATRICES,
    refusals=NO_SQUARES,
)
