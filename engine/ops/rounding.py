"""Rounding, comparing and logic: everything whose derivative is zero wherever there is one."""

from __future__ import annotations

import numpy as np

from engine.core import Operand, ops
from engine.families import ANY, ANYS, MISMATCH, REAL, binary, comparison, predicate, rounding

BOOLEAN = (Operand("x1", "b"), Operand("x2", "b"))
APART = ((-2.0, -0.5), (0.5, 2.0))

floor = rounding("floor", "The largest whole number that is not above the value.", np.floor, operands=REAL)
ceil = rounding("ceil", "The smallest whole number that is not below the value.", np.ceil, operands=REAL)
round = rounding("round", "The nearest whole number; halves go to the even one.", np.round, operands=REAL)
trunc = rounding("trunc", "The whole number next to the value, towards zero.", np.trunc, operands=REAL)

isnan = predicate("isnan", "Whether the value is not a number.", np.isnan, operands=ANY)
isinf = predicate("isinf", "Whether the value is infinite.", np.isinf, operands=ANY)
isfinite = predicate("isfinite", "Whether the value is neither infinite nor NaN.", np.isfinite, operands=ANY)

equal = comparison("equal", "Whether x1 == x2.", np.equal, operands=ANYS, refusals=MISMATCH)
not_equal = comparison("not_equal", "Whether x1 != x2.", np.not_equal, operands=ANYS)
less = comparison("less", "Whether x1 < x2.", np.less, at=APART)
less_equal = comparison("less_equal", "Whether x1 <= x2.", np.less_equal, at=APART)
greater = comparison("greater", "Whether x1 > x2.", np.greater, at=APART)
greater_equal = comparison("greater_equal", "Whether x1 >= x2.", np.greater_equal, at=APART)

logical_and = comparison("logical_and", "Whether both are true.", np.logical_and, operands=BOOLEAN)
logical_or = comparison("logical_or", "Whether at least one is true.", np.logical_or, operands=BOOLEAN)
logical_xor = comparison("logical_xor", "Whether exactly one is true.", np.logical_xor, operands=BOOLEAN)
logical_not = predicate("logical_not", "Whether it is false.", np.logical_not, operands=(Operand("x", "b"),))

copysign = binary(
    "copysign",
    "The magnitude of x1 with the sign of x2; the slope by x1 at 0 is 0.",
    np.copysign,
    (lambda out, x, y: ops.sign(x) * ops.copysign(1.0, y), lambda out, x, y: 0.0),
    at=((0.5, 2.0), (-2.0, -0.5)),
    inexact=True,
)
