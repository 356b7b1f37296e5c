"""Rounding, comparing and logic: everything whose derivative is zero wherever there is one."""

from __future__ import annotations

import numpy as np

from engine import attrs as kinds
from engine.core import Operand, Refusal, Sample, ops
from engine.errors import DtypeMismatch, InvalidGraph
from engine.families import ANY, ANYS, MISMATCH, POINTWISE, REAL, binary, comparison, predicate, rounding
from engine.types import Dtype, Shape

BOOLEAN = (Operand("x1", "b"), Operand("x2", "b"))
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
)

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
)
not_equal = comparison(
    "not_equal",
    "Whether x1 != x2.",
    np.not_equal,
    operands=ANYS,
    scalar="{0} != {1}",
)
less = comparison(
    "less",
    "Whether x1 < x2.",
    np.less,
    at=APART,
    scalar="{0} < {1}",
)
less_equal = comparison(
    "less_equal",
    "Whether x1 <= x2.",
    np.less_equal,
    at=APART,
    scalar="{0} <= {1}",
)
greater = comparison(
    "greater",
    "Whether x1 > x2.",
    np.greater,
    at=APART,
    scalar="{0} > {1}",
)
greater_equal = comparison(
    "greater_equal",
    "Whether x1 >= x2.",
    np.greater_equal,
    at=APART,
    scalar="{0} >= {1}",
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

copysign = binary(
    "copysign",
    "The magnitude of x1 with the sign of x2; the slope by x1 at 0 is 0.",
    np.copysign,
    (lambda out, x, y: ops.sign(x) * ops.copysign(1.0, y), lambda out, x, y: 0.0),
    at=((0.5, 2.0), (-2.0, -0.5)),
    inexact=True,
    scalar="math.copysign({0}, {1})",
)
