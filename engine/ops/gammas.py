"""Gamma and what is made of it: its logarithm and that one's derivatives, zeta, beta, and their incomplete forms.

Kernels are SciPy's where those are accurate. Derivatives by a shape parameter that no formula gives are refused with
the reason, and only when they are asked for.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from scipy import special

from engine import attrs
from engine.core import Node, Operand, Refusal, Sample, define, ops
from engine.derivative import Partials, Refused
from engine.errors import InvalidGraph
from engine.families import (
    LARGEST_ORDER,
    MISMATCH,
    ORDERS,
    PAIRWISE,
    batch_aligned,
    binary,
    broadcast_shape,
    composite,
    costly,
    like_result,
    order_shape,
    unary,
)

gamma = costly(
    "gamma",
    "The gamma function: (x - 1)! for whole numbers.",
    special.gamma,
    lambda out, x: out * ops.digamma(x),
    at=(0.5, 4.0),
)

# Its logarithm and that one's derivatives


@functools.cache
def _cotangent_derivative(n: int) -> tuple[float, ...]:
    """The n-th derivative of cot as a polynomial in cot, over n!, highest power first.

    From c' = -(1 + c²). All its terms have one sign, so that evaluating it cancels nothing.
    """
    coefficients = [0, 1]
    for _ in range(n):
        slope = [power * each for power, each in enumerate(coefficients)][1:]
        coefficients = [-(a + b) for a, b in zip([*slope, 0, 0], [0, 0, *slope], strict=True)]
    return tuple(each / math.factorial(n) for each in reversed(coefficients))


def _reflection(x: Any, n: int) -> Any:
    """What reflects polygamma from x to 1 - x, over n!: -π·dⁿ/dxⁿ cot(πx) (DLMF 5.15.6)."""
    # Distances to the next pole and to the next root are exact: rounding π·x costs nothing there.
    pole = x - np.round(x)
    root = np.tan(math.pi * (0.5 - np.abs(pole)))
    cotangent = np.where(np.abs(pole) < 0.25, np.reciprocal(np.tan(math.pi * pole)), np.copysign(root, pole))
    turned = -(math.pi ** (n + 1)) * np.polyval(_cotangent_derivative(n), cotangent)
    return np.where(pole == 0, np.inf if n % 2 else np.nan, turned)


def _digamma(x: Any) -> Any:
    # SciPy's keeps its accuracy at the root near -0.504, but loses it towards the poles.
    left = (x < 0) & (np.abs(x + 0.5) > 0.25)
    out = special.psi(np.where(left, 1.0 - x, x))
    return np.asarray(np.where(left, out + _reflection(x, 0), out), x.dtype) if np.any(left) else out


def _polygamma(x: Any, *, n: int) -> Any:
    if n == 0:
        return _digamma(x)
    z = np.asarray(x, np.float64)
    left = z < 0
    # ψₙ(z) = (-1)ⁿ⁺¹·n!·ζ(n + 1, z) (DLMF 5.15.2 and 25.11.12), from the right half where z is not in it.
    out = special.zeta(n + 1.0, np.where(left, 1.0 - z, z))
    out = np.where(left, _reflection(z, n) - out, (-1.0) ** (n + 1) * out) if np.any(left) else (-1.0) ** (n + 1) * out
    return np.asarray(out * float(math.factorial(n)), x.dtype)


def _lgamma(x: Any) -> Any:
    # SciPy's loses digits next to its roots at 1 and 2; its complex one has series there.
    near = (np.abs(x - 1.0) < 0.2) | (np.abs(x - 2.0) < 0.2)
    if not np.any(near):
        return special.gammaln(x)
    series = special.loggamma(np.where(near, x, 1.0).astype(np.complex128)).real
    return np.asarray(np.where(near, series, special.gammaln(x)), x.dtype)


lgamma = costly(
    "lgamma",
    "The logarithm of the magnitude of gamma.",
    _lgamma,
    lambda out, x: ops.digamma(x),
    at=(0.5, 4.0),
    scratch=like_result(3),
    flops=480,
    aliases=("gammaln",),
)

digamma = costly(
    "digamma",
    "The derivative of lgamma.",
    _digamma,
    lambda out, x: ops.polygamma(x, n=1),
    at=(0.5, 4.0),
    scratch=like_result(1),
    flops=80,
    aliases=("psi",),
)

polygamma = unary(
    "polygamma",
    "The n-th derivative of digamma.",
    _polygamma,
    lambda out, x, *, n: ops.polygamma(x, n=n + 1),
    at=(0.5, 4.0),
    flops=600,
    scratch=like_result(1),
    shape=order_shape,
    attrs={"n": attrs.integer(f"The order, from 0 to {LARGEST_ORDER}.")},
    order=("n", "x"),
    samples=(
        *[Sample(((3,),), {"n": n}) for n in range(4)],
        Sample(([-1.3, -0.4, -2.6],), {"n": 2}),
        Sample(((0,),), {"n": 1}),
        Sample(((),), {"n": 1}),
    ),
    refusals=ORDERS,
    example="polygamma(1, x)",
)


def _multigammaln(x: Node, *, p: int) -> Node:
    if p < 1:
        raise InvalidGraph(f"the dimension p should be at least 1, got {p}", pointer="/attrs/p")
    steps = -0.5 * ops.arange.on(x.graph, start=p, dtype=x.dtype.name)
    return ops.sum(ops.lgamma(ops.expand_dims(x, axis=-1) + steps), axis=-1) + 0.25 * p * (p - 1) * math.log(math.pi)


multigammaln = composite(
    "multigammaln",
    "The logarithm of the gamma function of dimension p: Σ lgamma(x - j/2) for j from 0 to p - 1, + p(p - 1)/4·log(π).",
    _multigammaln,
    attrs={"p": attrs.integer("The dimension, from 1.")},
    inexact=True,
    domain=((1.5, 4.0),),
    aliases=("mvlgamma",),
    torch="mvlgamma",
    samples=(
        Sample(((3,),), {"p": 1}),
        Sample(((2, 3),), {"p": 3}),
        Sample(((),), {"p": 2}),
        Sample(((0,),), {"p": 2}),
    ),
    refusals=(Refusal(((3,),), {"p": 0}, "invalid_graph"), Refusal(((3,),), {"p": 10**15}, "limit_exceeded")),
    example="multigammaln(x + 3, p=2)",
)


def _zeta(x: Any, q: Any) -> Any:
    # SciPy knows the values below 1 of Riemann's only.
    return np.where(q == 1, special.zeta(x), special.zeta(x, q))


zeta = binary(
    "zeta",
    "Hurwitz' zeta function, Σ (q + k)⁻ˣ over k from 0; Riemann's where q is 1, as when it is left out. "
    "The derivative by x is refused.",
    _zeta,
    (
        Refused("zeta has no closed derivative by its first operand x, the exponent; by q it has one"),
        lambda out, x, q: -x * ops.zeta(x + 1.0, q),
    ),
    at=((1.5, 4.0), (0.5, 3.0)),
    operands=(Operand("x"), Operand("q", default=1.0)),
    inexact=True,
    flops=800,
    scratch=like_result(2),
    samples=(*PAIRWISE, Sample(((3,), ())), Sample(([2.0, 4.0, 3.0, -2.5],))),
    torch="special_zeta",
    refusals=MISMATCH,
)


# Beta

STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400)
"""Coefficients of 1/a, 1/a³, … in lgamma(a) - (a - ½)·log a + a - ½·log 2π (DLMF 5.11.1)."""
LARGE = 10.0


def _stirling(a: Any) -> Any:
    return np.polyval(STIRLING[::-1], 1.0 / (a * a)) / a


def _log_ratio(large: Any, small: Any) -> Any:
    """lgamma(large) - lgamma(large + small), without subtracting the two (DiDonato & Morris, TOMS 708)."""
    total = large + small
    bent = (total - 0.5) * np.log1p(small / large) + small * (np.log(large) - 1.0)
    return _stirling(large) - _stirling(total) - bent


def _log_beta(large: Any, small: Any) -> Any:
    """The logarithm of beta, both of whose operands are large."""
    total = large + small
    main = (large - 0.5) * np.log1p(-small / total) + small * np.log(small / total)
    corrections = _stirling(large) + _stirling(small) - _stirling(total)
    return main - 0.5 * np.log(small) + 0.5 * math.log(2.0 * math.pi) + corrections


def _beta_kernel(a: Any, b: Any, both: Any, one: Any, none: Any) -> Any:
    """`both`, `one` or `none` of (larger, smaller), by how many of the two are large."""
    large, small = np.maximum(a, b).astype(np.float64), np.minimum(a, b).astype(np.float64)
    choices = [small >= LARGE, (large >= LARGE) & (small > 0)]
    held = np.maximum(large, LARGE), np.where(choices[0], small, LARGE)
    found = np.select(choices, [both(*held), one(held[0], np.where(choices[1], small, 1.0))], none(a, b))
    return np.asarray(found, np.result_type(a, b))


def _beta(a: Any, b: Any) -> Any:
    return _beta_kernel(
        *(a, b),
        both=lambda large, small: np.exp(_log_beta(large, small)),
        one=lambda large, small: special.gamma(small) * np.exp(_log_ratio(large, small)),
        none=special.beta,
    )


def _betaln(a: Any, b: Any) -> Any:
    return _beta_kernel(
        *(a, b),
        both=_log_beta,
        one=lambda large, small: special.gammaln(small) + _log_ratio(large, small),
        none=special.betaln,
    )


def _log_beta_slope(a: Node, b: Node) -> Node:
    """Of log B(a, b), by a."""
    return ops.digamma(a) - ops.digamma(a + b)


A_AND_B: dict[str, Any] = {
    "at": ((0.5, 4.0),),
    "operands": (Operand("a"), Operand("b")),
    "inexact": True,
    "flops": 700,
    "scratch": like_result(12),
    "samples": (*PAIRWISE, Sample(([12.0, 0.5, 30.0], [14.0, 20.0, 2.5]))),
    "refusals": MISMATCH,
}

beta = binary(
    "beta",
    "gamma(a)·gamma(b) / gamma(a + b).",
    _beta,
    (
        lambda out, a, b: out * _log_beta_slope(a, b),
        lambda out, a, b: out * _log_beta_slope(b, a),
    ),
    **A_AND_B,
)

betaln = binary(
    "betaln",
    "The logarithm of the magnitude of beta, without overflow.",
    _betaln,
    (
        lambda out, a, b: _log_beta_slope(a, b),
        lambda out, a, b: _log_beta_slope(b, a),
    ),
    **A_AND_B,
)


# Incomplete


def _gamma_density(a: Node, x: Node) -> Node:
    """xᵃ⁻¹·exp(-x) / gamma(a), by its logarithm: the factors overflow before it does (DLMF 8.8.13)."""
    return ops.exp(ops.xlogy(a - 1.0, x) - x - ops.lgamma(a))


NO_SHAPE = (
    "{name} has no closed derivative by its {which} operand {operand}, a shape parameter: "
    "that is a hypergeometric function; by x it has one"
)

A_AND_X: dict[str, Any] = {
    "at": ((0.5, 3.0), (0.5, 4.0)),
    "operands": (Operand("a"), Operand("x")),
    "inexact": True,
    "flops": 600,
    "refusals": MISMATCH,
}

gammainc = binary(
    "gammainc",
    "The regularised incomplete gamma function: ∫ tᵃ⁻¹·exp(-t) from 0 to x, over gamma(a). "
    "The derivative by a is refused.",
    special.gammainc,
    (
        Refused(NO_SHAPE.format(name="gammainc", which="first", operand="a")),
        lambda out, a, x: _gamma_density(a, x),
    ),
    **A_AND_X,
    torch="igamma",
    aliases=("igamma",),
)

gammaincc = binary(
    "gammaincc",
    "1 - gammainc(a, x), exact where that is next to 0. The derivative by a is refused.",
    special.gammaincc,
    (
        Refused(NO_SHAPE.format(name="gammaincc", which="first", operand="a")),
        lambda out, a, x: -_gamma_density(a, x),
    ),
    **A_AND_X,
    torch="igammac",
    aliases=("igammac",),
)


def _beta_density(a: Node, b: Node, x: Node) -> Node:
    """xᵃ⁻¹·(1 - x)ᵇ⁻¹ / beta(a, b), by its logarithm."""
    return ops.exp(ops.xlogy(a - 1.0, x) + ops.xlog1py(b - 1.0, -x) - ops.betaln(a, b))


betainc = define(
    "betainc",
    "The regularised incomplete beta function: ∫ tᵃ⁻¹·(1 - t)ᵇ⁻¹ from 0 to x, over beta(a, b). "
    "The derivatives by a and b are refused.",
    operands=(Operand("a"), Operand("b"), Operand("x")),
    shape=broadcast_shape,
    kernel=special.betainc,
    derivative=Partials(
        (
            Refused(NO_SHAPE.format(name="betainc", which="first", operand="a")),
            Refused(NO_SHAPE.format(name="betainc", which="second", operand="b")),
            lambda out, a, b, x: _beta_density(a, b, x),
        )
    ),
    batch=batch_aligned,
    inexact=True,
    family="elementwise",
    domain=((0.5, 3.0), (0.5, 3.0), (0.1, 0.9)),
    flops=lambda out, *shapes: 200 * math.prod(out),
    samples=(
        Sample(((), (), ())),
        Sample(((3,), (3,), (3,))),
        Sample(((2, 1), (3,), 0.5)),
        Sample((2.0, 3.0, (2, 3))),
        Sample(((0, 3), (3,), ())),
    ),
    refusals=(Refusal(((2,), (3,), 0.5), {}, "shape_mismatch"),),
    example="betainc(2, 3, x)",
    pointwise=True,
)
