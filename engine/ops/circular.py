"""Circular and hyperbolic functions and their inverses. Angles are in radians, but for sinc's, in half turns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import special

from engine import attrs
from engine.core import Node, Refusal, Sample, ops
from engine.derivative import Slope
from engine.errors import InvalidGraph
from engine.families import ANY, LARGEST_ORDER, POINTWISE, binary, composite, costly, like_result, over, unary
from engine.limits import Limits

sin = costly(
    "sin",
    "Sine of an angle in radians.",
    np.sin,
    lambda out, x: ops.cos(x),
    operands=ANY,
    scalar="math.sin({0})",
)

cos = costly(
    "cos",
    "Cosine of an angle in radians.",
    np.cos,
    lambda out, x: -ops.sin(x),
    operands=ANY,
    scalar="math.cos({0})",
)

tan = costly(
    "tan",
    "Tangent of an angle in radians.",
    np.tan,
    lambda out, x: out * out + 1.0,
    at=(-1.0, 1.0),
    operands=ANY,
    scalar="math.tan({0})",
    pace=16.0,
)

asin = costly(
    "asin",
    "Inverse sine, in radians from -π/2 to π/2.",
    np.arcsin,
    lambda out, x: ops.rsqrt((1.0 - x) * (1.0 + x)),
    at=(-0.8, 0.8),
    operands=ANY,
    scalar="math.asin({0})",
    pace=16.0,
    aliases=("arcsin",),
)

acos = costly(
    "acos",
    "Inverse cosine, in radians from 0 to π.",
    np.arccos,
    lambda out, x: -ops.rsqrt((1.0 - x) * (1.0 + x)),
    at=(-0.8, 0.8),
    operands=ANY,
    scalar="math.acos({0})",
    pace=16.0,
    aliases=("arccos",),
)

atan = costly(
    "atan",
    "Inverse tangent, in radians.",
    np.arctan,
    lambda out, x: ops.reciprocal(x * x + 1.0),
    operands=ANY,
    scalar="math.atan({0})",
    pace=16.0,
    aliases=("arctan",),
)

sinh = costly(
    "sinh",
    "Hyperbolic sine.",
    np.sinh,
    lambda out, x: ops.cosh(x),
    operands=ANY,
    scalar="math.sinh({0})",
    pace=16.0,
)

cosh = costly(
    "cosh",
    "Hyperbolic cosine.",
    np.cosh,
    lambda out, x: ops.sinh(x),
    operands=ANY,
    scalar="math.cosh({0})",
    pace=16.0,
)

tanh = costly(
    "tanh",
    "Hyperbolic tangent.",
    np.tanh,
    lambda out, x: 1.0 - out * out,
    operands=ANY,
    scalar="math.tanh({0})",
    pace=16.0,
)

asinh = costly(
    "asinh",
    "Inverse hyperbolic sine.",
    np.arcsinh,
    lambda out, x: ops.rsqrt(x * x + 1.0),
    operands=ANY,
    scalar="math.asinh({0})",
    pace=8.0,
    aliases=("arcsinh",),
)

acosh = costly(
    "acosh",
    "Inverse hyperbolic cosine, of values from 1.",
    np.arccosh,
    # Two roots: that of the product has the wrong sign left of the imaginary axis.
    lambda out, x: ops.rsqrt(x - 1.0) * ops.rsqrt(x + 1.0),
    at=(1.5, 3.0),
    operands=ANY,
    scalar="math.acosh({0})",
    pace=8.0,
    aliases=("arccosh",),
)

atanh = costly(
    "atanh",
    "Inverse hyperbolic tangent, of values between -1 and 1.",
    np.arctanh,
    lambda out, x: ops.reciprocal((1.0 - x) * (1.0 + x)),
    at=(-0.8, 0.8),
    operands=ANY,
    scalar="math.atanh({0})",
    pace=8.0,
    aliases=("arctanh",),
)


deg2rad = unary(
    "deg2rad",
    "Degrees as radians.",
    np.deg2rad,
    lambda out, x: math.pi / 180.0,
    aliases=("radians",),
    torch="deg2_rad",
)

rad2deg = unary(
    "rad2deg",
    "Radians as degrees.",
    np.rad2deg,
    lambda out, x: 180.0 / math.pi,
    aliases=("degrees",),
    torch="rad2_deg",
)


def _over_squared_radius(numerator: Node, x: Node, y: Node) -> Node:
    """numerator / (x² + y²), and 0 at the origin, where no direction is distinguished."""
    return over(numerator, x * x + y * y)


atan2 = binary(
    "atan2",
    "The angle of the point (x2, x1), in radians from -π to π; both slopes are 0 at the origin.",
    np.arctan2,
    (
        lambda out, y, x: _over_squared_radius(x, x, y),
        lambda out, y, x: -_over_squared_radius(y, x, y),
    ),
    at=((0.5, 2.0),),
    inexact=True,
    flops=40,
    scalar="math.atan2({0}, {1})",
    pace=15.0,
    aliases=("arctan2",),
)

hypot = binary(
    "hypot",
    "Length of the hypotenuse, without overflow; both slopes are 0 at the origin.",
    np.hypot,
    (lambda out, x, y: over(x, out), lambda out, x, y: over(y, out)),
    at=((0.5, 2.0),),
    inexact=True,
    flops=60,
    scalar="math.hypot({0}, {1})",
)


def _spherical_bessel(x: Any, *, n: int) -> Any:
    # SciPy's runs in double precision only, and is odd or even in x by the order alone.
    if x.dtype.kind == "c":
        return np.asarray(special.spherical_jn(n, x), x.dtype)
    return np.asarray(special.spherical_jn(n, np.abs(x)) * np.where(x < 0, (-1.0) ** n, 1.0), x.dtype)


def _bounded_order(limits: Limits, x: Node, *, n: int) -> None:
    # SciPy counts up to the order in a loop that nothing can stop. Slopes go on to n + 1, and are not posted.
    if not 0 <= n <= LARGEST_ORDER:
        raise InvalidGraph(f"n should be from 0 to {LARGEST_ORDER}, got {n}", pointer="/attrs/n")


def _spherical_slope(out: Node, x: Node, *, n: int) -> Slope:
    # DLMF 10.51.2 without its division by x: regular at 0, and closed under further derivatives.
    if n == 0:
        return -ops.spherical_jn(x, n=1)
    below, above = ops.spherical_jn(x, n=n - 1), ops.spherical_jn(x, n=n + 1)
    return (n * below - (n + 1) * above) / (2 * n + 1)


spherical_jn = costly(
    "spherical_jn",
    "Spherical Bessel function of the first kind, of order n.",
    _spherical_bessel,
    _spherical_slope,
    operands=ANY,
    attrs={"n": attrs.integer(f"The order, from 0 to {LARGEST_ORDER}.")},
    guard=_bounded_order,
    scratch=like_result(3),
    flops=300,
    samples=(Sample(((3,),), {"n": 0}), Sample(((3,),), {"n": 3})),
    refusals=(Refusal(((3,),), {"n": -1}, "invalid_graph"), Refusal(((3,),), {"n": 10**9}, "invalid_graph")),
)

sinc = costly(
    "sinc",
    "sin(πx) / (πx), and 1 at 0.",
    np.sinc,
    lambda out, x: -math.pi * ops.spherical_jn(math.pi * x, n=1),
    operands=ANY,
    scalar="math.sin(math.pi * {0}) / (math.pi * {0}) if {0} else 1.0",
    scratch=like_result(2),
    flops=80,
)

spherical_bessel_j0 = composite(
    "spherical_bessel_j0",
    "sin(x)/x, and 1 at 0: spherical_jn of order 0.",
    lambda x: ops.spherical_jn(x, n=0),
    inexact=True,
    samples=POINTWISE,
)
