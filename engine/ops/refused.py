"""Names that other systems have ops for and this one has not, each with the reason, which is an answer."""

from __future__ import annotations

from engine.core import ops

SHAPE = "the shape of its result depends on values, and here shapes are known before a graph runs"

ops.refuse(f"{SHAPE}; where(condition, x, 0) keeps the shape", "masked_select", "boolean_mask", "compress", "extract")
ops.refuse(f"{SHAPE}; count_nonzero and argsort have fixed shapes", "nonzero", "flatnonzero", "argwhere")
ops.refuse(
    f"{SHAPE}; sort and diff tell equal elements from different ones",
    "unique",
    "unique_all",
    "unique_counts",
    "unique_inverse",
    "unique_values",
    "unique_consecutive",
)
ops.refuse(f"{SHAPE}; isin has a fixed one", "intersect1d", "setdiff1d", "setxor1d", "union1d")
