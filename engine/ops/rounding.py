"""Rounding, comparing and logic: everything whose derivative is zero wherever there is one."""

from __future__ import annotations

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Operand, Refusal, Sample, ops
from engine.errors import DtypeMismatch, InvalidGraph
from engine.families import (
    ANY,
    ANYS,
    MISMATCH,
    PAIRWISE,
    POINTWISE,
    REAL,
    REALS,
    binary,
    comparison,
    composite,
    predicate,
    rounding,
)
from engine.types import Dtype, Shape, is_inexact

BOOLEAN = (Operand("x1", "b"), Operand("x2", "b"))
BITS: Attrs = {
    "operands": (Operand("x1", "biu"), Operand("x2", "biu")),
    "returns": None,
    "samples": (Sample(([5, 3], [6, 3])), Sample(([[True], [False]], [True, False])), Sample(([7], 2))),
    "refusals": (Refusal(([1, 2], [1, 2, 3]), {}, "shape_mismatch"), Refusal(((2,), (2,)), {}, "dtype_mismatch")),
}
MOST_DECIMALS = 300
APART = ((-2.0, -0.5), (0.5, 2.0))


def _few_decimals(shape: Shape, *, decimals: int) -> Shape:
    if abs(decimals) > MOST_DECIMALS:
        raise InvalidGraph(f"round keeps up to {MOST_DECIMALS} decimals, got {decimals}")
    return shape


def _decimal_dtype(x: Dtype, *, decimals: int) -> Dtype:
    if decimals and x.kind != "f":
        raise DtypeMismatch(f"round to {decimals} decimals takes floating x, got {x.name}")
    return x


floor = rounding(
    "floor",
    "The largest whole number that is not above the value.",
    np.floor,
    operands=REAL,
    scalar="math.copysign(math.floor({0}), {0})",
)
ceil = rounding(
    "ceil",
    "The smallest whole number that is not below the value.",
    np.ceil,
    operands=REAL,
    scalar="math.copysign(math.ceil({0}), {0})",
)
round = rounding(
    "round",
    "The nearest whole number, or number of so many decimals; halves go to the even one.",
    lambda x, *, decimals: np.round(x, decimals),
    operands=REAL,
    attrs={
        "decimals": kinds.integer("Digits after the point that stay; of a negative number, so many before it go.", 0)
    },
    shape=_few_decimals,
    returns=_decimal_dtype,
    samples=(*POINTWISE, Sample(((2, 3),), {"decimals": 1}), Sample(([123.0, 188.0],), {"decimals": -1})),
    refusals=(
        Refusal(((3,),), {"decimals": 400}, "invalid_graph"),
        Refusal(([1, 2],), {"decimals": -1}, "dtype_mismatch"),
    ),
    scalar=lambda node: "" if node.attrs["decimals"] else "math.copysign(round({0}), {0})",
    example="round(x)",
)
trunc = rounding(
    "trunc",
    "The whole number next to the value, towards zero.",
    np.trunc,
    operands=REAL,
    scalar="math.copysign(math.trunc({0}), {0})",
    aliases=("fix",),
)

frac = composite(
    "frac",
    "What is left of the value after the point, with its sign.",
    lambda x: x - ops.trunc(x),
    operands=REAL,
    samples=(*POINTWISE, Sample(([1, -2],))),
)

signbit = predicate("signbit", "Whether the sign is a minus, that of -0.0 included.", np.signbit, operands=REAL)
isnan = predicate(
    "isnan",
    "Whether the value is not a number.",
    np.isnan,
    operands=ANY,
    scalar="{0} != {0}",
)
isinf = predicate(
    "isinf",
    "Whether the value is infinite.",
    np.isinf,
    operands=ANY,
    scalar="math.isinf({0})",
)
isfinite = predicate(
    "isfinite",
    "Whether the value is neither infinite nor NaN.",
    np.isfinite,
    operands=ANY,
    scalar="math.isfinite({0})",
)

equal = comparison(
    "equal",
    "Whether x1 == x2.",
    np.equal,
    operands=ANYS,
    refusals=MISMATCH,
    scalar="{0} == {1}",
    aliases=("eq",),
)
not_equal = comparison(
    "not_equal",
    "Whether x1 != x2.",
    np.not_equal,
    operands=ANYS,
    scalar="{0} != {1}",
    aliases=("ne",),
)
less = comparison(
    "less",
    "Whether x1 < x2.",
    np.less,
    at=APART,
    scalar="{0} < {1}",
    aliases=("lt",),
)
less_equal = comparison(
    "less_equal",
    "Whether x1 <= x2.",
    np.less_equal,
    at=APART,
    scalar="{0} <= {1}",
    aliases=("le",),
)
greater = comparison(
    "greater",
    "Whether x1 > x2.",
    np.greater,
    at=APART,
    scalar="{0} > {1}",
    aliases=("gt",),
)
greater_equal = comparison(
    "greater_equal",
    "Whether x1 >= x2.",
    np.greater_equal,
    at=APART,
    scalar="{0} >= {1}",
    aliases=("ge",),
)


def _isclose(x: Node, y: Node, *, rtol: float, atol: float, equal_nan: bool) -> Node:
    x, y = (each if is_inexact(each.dtype) else ops.astype(each, dtype="float64") for each in (x, y))
    near = ops.isfinite(y) & (ops.abs(x - y) <= rtol * ops.abs(y) + atol)
    close = near | ops.equal(x, y)
    return close | (ops.isnan(x) & ops.isnan(y)) if equal_nan else close


isclose = composite(
    "isclose",
    "Whether abs(x1 - x2) <= atol + rtol·abs(x2), or both are the same infinity.",
    _isclose,
    operands=ANYS,
    attrs={
        "rtol": kinds.real("What part of x2 they may differ by.", 1e-5),
        "atol": kinds.real("What they may differ by beside that.", 1e-8),
        "equal_nan": kinds.boolean("Whether NaN is close to NaN.", False),
    },
    samples=(
        *PAIRWISE,
        Sample(([1.0, "NaN", "Infinity"], [1.000001, "NaN", "Infinity"]), {"equal_nan": True}),
        Sample(([1, 2], [1, 3]), {"rtol": 0.5}),
    ),
    refusals=MISMATCH,
    example="isclose(x1, x2)",
)

logical_and = comparison(
    "logical_and",
    "Whether both are true.",
    np.logical_and,
    operands=BOOLEAN,
    scalar="{0} and {1}",
)
logical_or = comparison(
    "logical_or",
    "Whether at least one is true.",
    np.logical_or,
    operands=BOOLEAN,
    scalar="{0} or {1}",
)
logical_xor = comparison(
    "logical_xor",
    "Whether exactly one is true.",
    np.logical_xor,
    operands=BOOLEAN,
    scalar="{0} != {1}",
)
logical_not = predicate(
    "logical_not",
    "Whether it is false.",
    np.logical_not,
    operands=(Operand("x", "b"),),
    scalar="not {0}",
)

bitwise_and = comparison("bitwise_and", "Bits that both have.", np.bitwise_and, **BITS)
bitwise_or = comparison("bitwise_or", "Bits that at least one has.", np.bitwise_or, **BITS)
bitwise_xor = comparison("bitwise_xor", "Bits that exactly one has.", np.bitwise_xor, **BITS)
bitwise_invert = predicate(
    "bitwise_invert",
    "Bits that it has not.",
    np.bitwise_invert,
    operands=(Operand("x", "biu"),),
    returns=None,
    samples=(Sample(([5, 3],)), Sample(([True, False],))),
    aliases=("bitwise_not",),
)

heaviside = composite(
    "heaviside",
    "0 below 0, 1 above it, and x2 at 0.",
    lambda x, y: ops.where(ops.equal(x, 0), y, ops.where(ops.isnan(x), x, ops.astype(x > 0, dtype=x.dtype.name))),
    operands=REALS,
    samples=PAIRWISE,
    refusals=MISMATCH,
    domain=APART,
)

copysign = binary(
    "copysign",
    "The magnitude of x1 with the sign of x2; the slope by x1 at 0 is 0.",
    np.copysign,
    (lambda out, x, y: ops.sign(x) * ops.copysign(1.0, y), lambda out, x, y: 0.0),
    at=((0.5, 2.0), (-2.0, -0.5)),
    inexact=True,
    scalar="math.copysign({0}, {1})",
)
