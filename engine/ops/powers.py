"""Products of many matrices, powers and the exponential, on the last two axes, batched over the others.

Powers are products: repeated squaring, so that derivatives of every order are sums of products, and inv for negative
ones. The exponential has a kernel of its own, by scaling, a Padé approximant and squaring.

Derivatives of the exponential are values of it: with a number ε whose square is zero, exp(A + εE) = exp(A) + ε L(A, E),
and numbers such as a + εb are matrices [[a, b], [0, a]]. So L(A, E) is a block of an exponential twice as large
(Najfeld and Havel, Adv. Appl. Math. 16, 1995; Mathias, SIAM J. Matrix Anal. Appl. 17, 1996), and higher orders are
blocks of larger ones. `expm_term` is the general case, a coefficient of exp(A + Σ t^pⱼ Eⱼ), where t^p is a product of
powers of several t: all derivatives of it are such coefficients, too. Order k in one direction costs a matrix k + 1
times as large, where nested doubling would cost one 2ᵏ times as large.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine import attrs
from engine.core import Attrs, Node, Operand, Refusal, Sample, define, ops
from engine.derivative import Custom, Series, unbroadcast
from engine.errors import InvalidGraph, LimitExceeded, ShapeMismatch
from engine.families import ANY, NUMERIC, batch_same, batch_stacked, composite, like_operand
from engine.limits import Limits
from engine.ops.linalg import NO_SQUARES, SQUARES, order_of, small_enough
from engine.types import Array, Shape, broadcast

# matrix_power


def _matrix_power(x: Node, *, n: int) -> Node:
    order = order_of("matrix_power", x.shape)
    if n < 0:
        return _matrix_power(ops.inv(x), n=-n)
    power: Node | None = None
    while n:
        if n & 1:
            power = x if power is None else power @ x
        n >>= 1
        x = x @ x if n else x
    if power is not None:
        return power
    return ops.broadcast_to(ops.eye.on(x.graph, n_rows=order, dtype=x.dtype.name), shape=x.shape)


matrix_power = composite(
    "matrix_power",
    "A square matrix times itself, n times; the identity for n = 0, powers of the inverse for negative n.",
    _matrix_power,
    operands=NUMERIC,
    attrs={"n": attrs.integer("The exponent.")},
    guard=small_enough,
    family="linear algebra",
    samples=(
        Sample(((3, 3),), {"n": 3}),
        Sample(((2, 3, 3),), {"n": 1}),
        Sample(((3, 3),), {"n": 6}),
        Sample(((3, 3),), {"n": 0}),
        Sample(([[2.0, 0.5, -0.3], [1.0, -1.5, 0.7], [-0.3, 0.4, 1.0]],), {"n": -3}),
        Sample(([[1, 1], [1, 0]],), {"n": 10}),
        Sample(((0, 0),), {"n": 2}),
        Sample(((0, 2, 2),), {"n": -1}),
    ),
    refusals=(
        Refusal(((2, 3),), {"n": 2}, "shape_mismatch"),
        Refusal(((2, 2),), {}, "invalid_graph"),
        Refusal(((2, 2),), {"n": 0.5}, "invalid_graph"),
        Refusal(([[1.0, 2.0], [2.0, 4.0]],), {"n": -1}, "singular_matrix"),
        Refusal(((2049, 2049),), {"n": -1}, "limit_exceeded"),
    ),
    example="matrix_power(x, n=3)",
)


# multi_dot


def _chain_shape(factors: Sequence[Node]) -> list[int]:
    """The sizes n₀, n₁, …, of factors n₀×n₁, n₁×n₂, …. Raises ShapeMismatch."""
    for at, each in enumerate(factors):
        if each.rank != 2:
            raise ShapeMismatch(
                f"multi_dot takes matrices, the first and the last may be vectors; operand {at} is {list(each.shape)}"
            )
    for at, (a, b) in enumerate(itertools.pairwise(factors)):
        if a.shape[1] != b.shape[0]:
            raise ShapeMismatch(f"multi_dot: operand {at} is {list(a.shape)}, the next one {list(b.shape)}")
    return [factors[0].shape[0], *(each.shape[1] for each in factors)]


def _splits(sizes: Sequence[int]) -> dict[tuple[int, int], int]:
    """Where to split the product of factors i to j so that all products together cost least."""
    count = len(sizes) - 1
    cost = {(at, at): 0 for at in range(count)}
    split: dict[tuple[int, int], int] = {}
    for length in range(1, count):
        for i in range(count - length):
            j = i + length
            cost[i, j], split[i, j] = min(
                (cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j)
            )
    return split


def _multi_dot(*operands: Node) -> Node:
    if len(operands) < 2:
        raise InvalidGraph("multi_dot takes two operands or more", pointer="/inputs")
    first, *_, last = operands
    shape = (*(first.shape[:-1] if first.rank == 1 else first.shape[:1]), *last.shape[1:])
    factors = list(operands)
    if first.rank == 1:
        factors[0] = ops.expand_dims(first, axis=0)
    if last.rank == 1:
        factors[-1] = ops.expand_dims(last, axis=1)
    split = _splits(_chain_shape(factors))
    product = {(at, at): each for at, each in enumerate(factors)}
    for i, j in _needed(split, len(factors)):
        product[i, j] = product[i, split[i, j]] @ product[split[i, j] + 1, j]
    return ops.reshape(product[0, len(factors) - 1], shape=shape)


def _needed(split: dict[tuple[int, int], int], count: int) -> list[tuple[int, int]]:
    """The products that the whole one is made of, the shortest first."""
    found = [(0, count - 1)]
    for i, j in found:
        k = split[i, j]
        found += [each for each in ((i, k), (k + 1, j)) if each[0] < each[1]]
    return found[::-1]


multi_dot = composite(
    "multi_dot",
    "Product of two or more matrices, in the order that costs least; the first and the last may be vectors.",
    _multi_dot,
    operands=(Operand("xs", "iufc", variadic=True),),
    family="products",
    samples=(
        Sample(((2, 3), (3, 4))),
        Sample(((2, 3), (3, 1), (1, 4))),
        Sample(((3,), (3, 4), (4, 2), (2,))),
        Sample(((2, 3), (3, 4), (4,))),
        Sample(((3,), (3,))),
        Sample(((0, 3), (3, 2))),
    ),
    refusals=(
        Refusal(((2, 2),), {}, "invalid_graph"),
        Refusal(((2, 3), (2, 3)), {}, "shape_mismatch"),
        Refusal(((2, 3), (3,), (3, 2)), {}, "shape_mismatch"),
        Refusal(((1, 2, 3), (3, 2)), {}, "shape_mismatch"),
    ),
    example="multi_dot(x1, x2, x3)",
)


# The exponential: Al-Mohy and Higham, A new scaling and squaring algorithm for the matrix exponential, SIAM J. Matrix
# Anal. Appl. 31, 2009. Kernels compute in the algebra of polynomials in some t, cut off at the power `top`, with
# matrices as coefficients: an element is a stack (…, count, n, n) of them, one for each power, in lexical order.

PADE = (
    *(64764752532480000, 32382376266240000, 7771770303897600, 1187353796428800, 129060195264000, 10559470521600),
    *(670442572800, 33522128640, 1323241920, 40840800, 960960, 16380, 182, 1),
)
"""Numerators of the approximant [13/13]; its error, as a change of the matrix, begins with power 27."""
LOG_ERROR = -116.45
"""log₂ of the coefficient of that power, 13!²/(26!·27!)."""
REACH, REACH_OF_DERIVATIVES = 5.37, 1.0
"""How large a scaled matrix may be; derivatives see more of the approximant's error."""
MOST_SQUARINGS = 64
"""Beyond, no digit of the result is right, and NaN says so."""


class _Algebra:
    """Products and inverses of polynomials in t₁, t₂, …, cut off at t^top."""

    def __init__(self, top: Sequence[int]) -> None:
        self.count, self.degree = math.prod(most + 1 for most in top), sum(top)
        powers = np.array([*itertools.product(*(range(most + 1) for most in top))], int).reshape(self.count, len(top))
        places = np.cumprod([1, *(most + 1 for most in top[:0:-1])], dtype=int)[::-1][: len(top)]
        apart = powers[None, :] - powers[:, None]
        self._table = np.where((apart >= 0).all(axis=-1), apart @ places, self.count)

    def matrix(self, x: Array) -> Array:
        """What multiplies a row of coefficients by `x`: a block Toeplitz matrix."""
        *stack, count, n, _ = x.shape
        nothing = np.zeros((*stack, 1, n, n), x.dtype)
        blocks = np.concatenate((x, nothing), axis=-3)[..., self._table, :, :]
        return np.swapaxes(blocks, -3, -2).reshape(*stack, count * n, count * n)

    def multiply(self, x: Array, y: Array) -> Array:
        if self.count == 1:
            return x @ y
        *stack, count, n, _ = x.shape
        row = np.swapaxes(x, -3, -2).reshape(*stack, n, count * n) @ self.matrix(y)
        return np.ascontiguousarray(np.swapaxes(row.reshape(*stack, n, count, n), -3, -2))

    def invert(self, x: Array) -> Array:
        """By Newton's iteration from the inverse at t = 0: every step doubles the powers that are right."""
        found = np.zeros_like(x)
        found[..., 0, :, :] = np.linalg.inv(x[..., 0, :, :])
        for _ in range(self.degree.bit_length()):
            found = 2 * found - self.multiply(self.multiply(found, x), found)
        return found

    def plus_one(self, x: Array, factor: float) -> Array:
        x = x.copy()
        diagonal = np.arange(x.shape[-1])
        x[..., 0, diagonal, diagonal] += factor
        return x


def _size(x: Array) -> Array:
    """A norm of polynomials: the 1-norms of all coefficients together."""
    return np.asarray(np.abs(x).sum(axis=-2).max(axis=-1, initial=0.0).sum(axis=-1))


def _doubled(x: Array, times: Array) -> Array:
    """x·2^times, matrix by matrix; 0·∞ does not occur."""
    times = times[..., None, None, None]
    if x.dtype.kind == "c":
        return np.asarray(np.ldexp(x.real, times) + 1j * np.ldexp(x.imag, times), x.dtype)
    return np.asarray(np.ldexp(x, times))


def _log(x: Array) -> Array:
    return np.asarray(np.log2(np.asarray(x, float)))


def _halvings(x: Array, fourth: Array, sixth: Array, algebra: _Algebra) -> Array:
    """How often to halve each `x`, of size 1 at most, for the approximant to be exact to rounding; may be negative."""
    reach = REACH_OF_DERIVATIVES if algebra.degree else REACH
    halvings = np.ceil(np.maximum(_log(_size(fourth)) / 4, _log(_size(sixth)) / 6) - np.log2(reach))
    steep, row = np.abs(algebra.matrix(x)), np.ones((*x.shape[:-3], 1, x.shape[-3] * x.shape[-1]), x.real.dtype)
    for _ in range(2 * len(PADE) - 1):
        row = row @ steep
    largest = row.max(axis=(-2, -1), initial=0.0)
    wanted = LOG_ERROR + _log(largest) - _log(_size(x)) - np.log2(np.finfo(x.dtype).eps / 2)
    return np.asarray(np.maximum(halvings, np.ceil(wanted / (2 * len(PADE) - 2))))


def _exponential(x: Array, top: Sequence[int]) -> Array:
    """exp of a polynomial, its coefficients all at once. NaN where it is not finite, or too large for any digit."""
    algebra = _Algebra(top)
    size = _size(x)
    usable = np.isfinite(size) & (size > 0)
    exponent = np.where(usable, np.frexp(np.where(usable, size, 1))[1], 0)
    x = _doubled(x, -exponent)
    second = algebra.multiply(x, x)
    fourth = algebra.multiply(second, second)
    sixth = algebra.multiply(second, fourth)
    # The approximant's own coefficients cancel beyond power 13: of high ones, squaring has to make the most.
    least = math.ceil(math.log2(algebra.degree / 2)) if algebra.degree > 4 else 0
    wanted = np.where(usable, _halvings(x, fourth, sixth, algebra) + exponent, 0)
    squarings = np.clip(wanted, least, MOST_SQUARINGS + 1).astype(int)
    scale = exponent - squarings
    powers = ((1, x), (2, second), (4, fourth), (6, sixth))
    out = _approximant([_doubled(each, power * scale) for power, each in powers], algebra)
    for done in range(min(int(squarings.max(initial=0)), MOST_SQUARINGS)):
        more = (done < squarings)[..., None, None, None]
        out = np.where(more, algebra.multiply(out, out), out)
    return np.where((squarings > MOST_SQUARINGS)[..., None, None, None], np.nan, out).astype(x.dtype, copy=False)


def _approximant(powers: Sequence[Array], algebra: _Algebra) -> Array:
    """The quotient of 13th degree, from the powers 1, 2, 4 and 6."""
    first, second, fourth, sixth = powers

    def half(b: Sequence[int]) -> Array:
        high = algebra.multiply(sixth, b[6] * sixth + b[5] * fourth + b[4] * second) if b[6] else 0.0
        return algebra.plus_one(high + b[3] * sixth + b[2] * fourth + b[1] * second, b[0])

    odd, even = algebra.multiply(first, half(PADE[1::2])), half(PADE[0::2])
    return algebra.plus_one(2 * algebra.multiply(algebra.invert(even - odd), odd), 1)


def _expm(x: Array) -> Array:
    return _exponential(x[..., None, :, :], ())[..., 0, :, :]


def _expm_shape(x: Shape) -> Shape:
    order_of("expm", x)
    return x


Part = tuple[Node, tuple[int, ...]]
"""E and p of a summand t^p E."""


def _term(x: Node, parts: Sequence[Part], top: tuple[int, ...]) -> Node | None:
    """The coefficient of t^top in exp(x + Σ t^p E); None is a zero."""
    parts = [(e, p) for e, p in parts if all(a <= most for a, most in zip(p, top, strict=True))]
    parts = [(e, tuple(a for a, most in zip(p, top, strict=True) if most)) for e, p in parts]
    top = tuple(most for most in top if most)
    if not top:
        return ops.expm(x)
    if not all(any(p[at] for _, p in parts) for at in range(len(top))):
        return None
    parts = sorted(parts, key=lambda part: (part[1], part[0].index))
    return ops.expm_term(x, *(e for e, _ in parts), powers=tuple(p for _, p in parts), top=top)


def _parts(node: Node) -> list[Part]:
    return [*zip(node.inputs[1:], node.attrs.get("powers", ()), strict=True)]


def _top(node: Node) -> tuple[int, ...]:
    top: tuple[int, ...] = node.attrs.get("top", ())
    return top


def _with(parts: Sequence[Part], power: int) -> list[Part]:
    """Every part times a power of one more t."""
    return [(e, (*p, power)) for e, p in parts]


def _moved(node: Node, moves: Sequence[Sequence[Node | None]]) -> Node | None:
    """The last coefficient of the series in s that a term is when its operands move by Σ sⁱ·moves[i − 1]."""
    parts, top = _parts(node), _top(node)
    found = _with(parts, 0)
    powers = ((0,) * len(top), *(p for _, p in parts))
    for i, operands in enumerate(moves, 1):
        found += [(each, (*p, i)) for each, p in zip(operands, powers, strict=True) if each is not None]
    return _term(node.inputs[0], found, (*top, len(moves)))


def _term_forward(node: Node, *tangents: Node | None) -> Node | None:
    parts, top = _parts(node), _top(node)
    again = _again(tangents, parts, top)
    if again is not None:
        raised = tuple(most + (at == again) for at, most in enumerate(top))
        term = _term(node.inputs[0], parts, raised)
        return term and term * raised[again]
    return _moved(node, [tangents])


def _again(tangents: Sequence[Node | None], parts: Sequence[Part], top: tuple[int, ...]) -> int | None:
    """The t along which x has moved before, alone and in this very direction, if there is one.

    One order more along it is the next power of this t, where a t of its own would double the matrix.
    """
    if any(each is not None for each in tangents[1:]):
        return None
    for at in range(len(top)):
        users = [(e, p) for e, p in parts if p[at]]
        if len(users) == 1 and users[0][0] is tangents[0] and sum(users[0][1]) == 1:
            return at
    return None


def _term_reverse(node: Node, g: Node) -> list[Node | None]:
    """⟨g, a word of A and Es around E⟩ = ⟨the word reversed, of adjoints, around g, E⟩."""
    parts, top = _parts(node), _top(node)
    zero = (0,) * len(top)
    x = ops.adjoint(node.inputs[0])
    turned = [*_with([(ops.adjoint(e), p) for e, p in parts], 0), (g, (*zero, 1))]
    found = []
    for operand, p in zip(node.inputs, (zero, *(p for _, p in parts)), strict=True):
        term = _term(x, turned, (*(most - a for most, a in zip(top, p, strict=True)), 1))
        found.append(unbroadcast(term, operand.shape))
    return found


def _term_taylor(node: Node, order: int) -> Series:
    """Coefficient `order` of a curve of matrices is one more term."""
    moves = []
    for at in range(1, order + 1):
        operands = []
        for each in node.inputs:
            operands.append((yield each, at))
        moves.append(operands)
    return _moved(node, moves)


expm = define(
    "expm",
    "Exponential of a square matrix; NaN where it is too large for any digit to be right.",
    operands=ANY,
    kernel=_expm,
    shape=_expm_shape,
    derivative=Custom(_term_forward, _term_reverse, _term_taylor),
    batch=batch_same,
    guard=small_enough,
    flops=lambda out, x: 24 * math.prod(x) * x[-1],
    scratch=like_operand(13),
    inexact=True,
    pace=30.0,
    family="linear algebra",
    aliases=("matrix_exp",),
    torch="linalg_matrix_exp",
    samples=SQUARES,
    refusals=NO_SQUARES,
)


# Terms of the exponential's series


def _term_shape(x: Shape, *ys: Shape, powers: Any, top: tuple[int, ...]) -> Shape:
    for each in (x, *ys):
        if order_of("expm_term", each) != x[-1]:
            raise ShapeMismatch(f"expm_term of matrices of different sizes: {list(x)} and {list(each)}")
    if not 0 < len(top) <= MOST_VARIABLES or not all(0 < most <= MOST_POWER for most in top):
        raise InvalidGraph(f"top of expm_term lists powers from 1 to {MOST_POWER}", pointer="/attrs/top")
    if len(powers) != len(ys) or not all(isinstance(p, tuple) and _is_below(p, top) for p in powers):
        raise InvalidGraph(
            f"powers of expm_term lists, for each of the {len(ys)} matrices after the first, "
            f"{len(top)} powers up to {list(top)}, not all zero",
            pointer="/attrs/powers",
        )
    return (*broadcast(x[:-2], *(each[:-2] for each in ys)), *x[-2:])


def _settled_term(attrs: Attrs, *shapes: Shape) -> Attrs:
    """Checked before anything is counted from them."""
    _term_shape(*shapes, **attrs)
    return attrs


MOST_VARIABLES, MOST_POWER = 64, 1024


def _is_below(p: Sequence[int], top: Sequence[int]) -> bool:
    return len(p) == len(top) and any(p) and all(0 <= a <= most for a, most in zip(p, top, strict=True))


def _term_kernel(x: Array, *ys: Array, powers: Any, top: tuple[int, ...]) -> Array:
    """Large summands are made smaller by taking another t, so that they do not call for more squarings."""
    stack = np.broadcast_shapes(x.shape[:-2], *(y.shape[:-2] for y in ys))
    halvings = _even(x, ys, powers, stack)
    series = np.zeros((*stack, _Algebra(top).count, *x.shape[-2:]), x.dtype)
    series[..., 0, :, :] = x
    for y, p in zip(ys, powers, strict=True):
        place = np.ravel_multi_index(p, [most + 1 for most in top])
        wide = np.broadcast_to(y, (*stack, *y.shape[-2:]))
        series[..., place, :, :] += _doubled(wide[..., None, :, :], -sum(p) * halvings)[..., 0, :, :]
    return _doubled(_exponential(series, top)[..., -1:, :, :], sum(top) * halvings)[..., 0, :, :]


def _even(x: Array, ys: Sequence[Array], powers: Any, stack: Shape) -> Array:
    """How often to halve t, so that no t^p y is larger than x, or than 1."""
    least = np.zeros(stack, int)
    reference = np.maximum(_size(x[..., None, :, :]), 1)
    for y, p in zip(ys, powers, strict=True):
        ratio = _size(y[..., None, :, :]) / reference
        ratio = np.where(np.isfinite(ratio) & (ratio > 1), ratio, 1)
        least = np.maximum(least, np.ceil(np.log2(ratio) / sum(p)).astype(int))
    return least


def _term_guard(limits: Limits, x: Node, *ys: Node, powers: Any, top: tuple[int, ...]) -> None:
    rows = math.prod(most + 1 for most in top) * x.shape[-1]
    if rows > limits.linalg_dimension:
        raise LimitExceeded("linalg_dimension", limits.linalg_dimension, rows, "rows of the block matrix of expm_term")


def _term_flops(out: Shape, *shapes: Shape, powers: Any, top: tuple[int, ...]) -> int:
    return 32 * math.prod(most + 1 for most in top) ** 2 * math.prod(out) * out[-1]


def _term_scratch(node: Node) -> int:
    count = math.prod(most + 1 for most in _top(node))
    return (2 * count**2 + 16 * count) * node.nbytes


expm_term = define(
    "expm_term",
    "Coefficient of t^top in exp(x + Σ t^p y), for one t or several: a derivative of expm along the matrices y.",
    operands=(Operand("x", "biufc"), Operand("ys", "biufc", variadic=True)),
    attrs={
        "powers": attrs.nested_integers("For each y, the power p of each variable."),
        "top": attrs.integers("The power of each variable in the coefficient."),
    },
    kernel=_term_kernel,
    shape=_term_shape,
    derivative=Custom(_term_forward, _term_reverse, _term_taylor),
    canonical=_settled_term,
    batch=batch_stacked,
    guard=_term_guard,
    flops=_term_flops,
    scratch=_term_scratch,
    inexact=True,
    pace=38.0,
    family="linear algebra",
    torch="linalg_matrix_exp_differential",
    samples=(
        Sample(((2, 2), (2, 2)), {"powers": [[1]], "top": [1]}),
        Sample(((2, 2), (2, 2), (2, 2)), {"powers": [[1, 0], [0, 1]], "top": [1, 1]}),
        Sample(((2, 2), (2, 2), (2, 2)), {"powers": [[1], [2]], "top": [3]}),
        Sample(((3, 2, 2), (2, 2)), {"powers": [[1]], "top": [2]}),
        Sample(((0, 0), (0, 0)), {"powers": [[1]], "top": [1]}),
        Sample(((0, 2, 2), (2, 2)), {"powers": [[1]], "top": [1]}),
    ),
    refusals=(
        Refusal(((2, 3), (2, 3)), {"powers": [[1]], "top": [1]}, "shape_mismatch"),
        Refusal(((2, 2), (3, 3)), {"powers": [[1]], "top": [1]}, "shape_mismatch"),
        Refusal(((2, 2), (2, 2)), {"powers": [[1], [1]], "top": [1]}, "invalid_graph"),
        Refusal(((2, 2), (2, 2)), {"powers": [1], "top": [1]}, "invalid_graph"),
        Refusal(((2, 2), (2, 2)), {"powers": [[0]], "top": [1]}, "invalid_graph"),
        Refusal(((2, 2), (2, 2)), {"powers": [[2]], "top": [1]}, "invalid_graph"),
        Refusal(((2, 2), (2, 2)), {"powers": [[1]], "top": [2000]}, "invalid_graph"),
        Refusal(((2, 2), (2, 2)), {"powers": [[1]], "top": [1024]}, "limit_exceeded"),
    ),
    example="expm_term(x, y, powers=[[1]], top=[1])",
)
