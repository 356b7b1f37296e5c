"""What rows of rewrites ask of nodes and attributes, and what they compute from them. Tables name these functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from engine.core import Node, ops
from engine.families import count_along
from engine.types import DTYPES, Shape, drop_axes

LONG = 1 << 10
"""Elements from which the arithmetic of a node counts more than the call."""

# Constants


def number_of(node: Node) -> int | float | complex | None:
    """The one number that a constant holds, stretched or not; None for anything else."""
    if node.op is ops.broadcast_to:
        node = node.inputs[0]
    return None if node.value is None or node.size != 1 else node.value.item()


def is_power_of_two(c: Node) -> bool:
    """Whether it is ±2^k with a k that is far from the dtype's bounds: multiplying by it, or by 1/c, is exact."""
    number = number_of(c)
    if not isinstance(number, float) or not math.isfinite(number):
        return False
    mantissa, exponent = math.frexp(number)
    return abs(mantissa) == 0.5 and abs(exponent) < np.finfo(c.dtype).maxexp - 2


def is_exact_product(c1: Node, c2: Node) -> bool:
    """Whether two numbers have a product that their dtype holds: then grouping them rounds once less."""
    a, b = number_of(c1), number_of(c2)
    if not isinstance(a, float) or not isinstance(b, float) or not (math.isfinite(a) and math.isfinite(b)):
        return False
    with np.errstate(all="ignore"):
        product = float(c1.dtype.type(a) * c2.dtype.type(b))
    is_normal = float(np.finfo(c1.dtype).tiny) <= abs(product) < math.inf
    return is_normal and Fraction(a) * Fraction(b) == Fraction(product)


def may_be_zero(x: Node) -> bool:
    """Whether a factor may be 0; only of constants it is known that they are not."""
    number = number_of(x)
    if number is not None:
        return number == 0
    return x.value is None or bool((x.value == 0).any())


def is_true(c: Node) -> bool:
    return c.value is not None and bool(c.value.all())


def is_false(c: Node) -> bool:
    return c.value is not None and not c.value.any()


# Dtypes


def keeps_values(x: Node, d: str) -> bool:
    """Whether the dtype called `d` holds all values of the dtype of `x`."""
    wide = DTYPES[d]
    digits = {"f": np.finfo, "c": np.finfo}.get(wide.kind)
    if x.dtype.kind in "iu" and digits is not None:
        return np.iinfo(x.dtype).bits <= digits(wide).nmant + 1
    return bool(np.can_cast(x.dtype, wide, "safe"))


# Shapes


def has_size(x: Node, s: Shape) -> bool:
    """Whether a stretch to `s` only adds axes of size one."""
    return x.size == math.prod(s) and x.size > 0


def adds_leading_ones(x: Node, s: Shape) -> bool:
    return len(s) >= x.rank and s == (1,) * (len(s) - x.rank) + x.shape


def differ_by_ones(s: Shape, t: Shape) -> bool:
    """Whether two shapes are the same but for axes of size one."""
    return _long(s) == _long(t)


def _long(shape: Shape) -> list[int]:
    return [size for size in shape if size != 1]


def placed(x: Node, s: Shape, t: Shape) -> Shape:
    """The shape of `x`, which stretches to `s`, with its axes where those of `t` are; they differ by ones."""
    sizes = (1,) * (len(s) - x.rank) + x.shape
    own = iter([size for size, whole in zip(sizes, s, strict=True) if whole != 1])
    return tuple(1 if whole == 1 else next(own) for whole in t)


def moves_only_ones(x: Node, p: Sequence[int]) -> bool:
    """Whether a permutation keeps the axes that are longer than one in order."""
    long = [axis for axis in p if x.shape[axis] != 1]
    return long == sorted(long)


def permuted(x: Node, p: Sequence[int]) -> Shape:
    return tuple(x.shape[axis] for axis in p)


def after(p: Sequence[int], q: Sequence[int]) -> tuple[int, ...]:
    """One permutation for `q` after `p`."""
    return tuple(p[axis] for axis in q)


def takes_all(x: Node, i: Sequence[Any]) -> bool:
    """Whether an index keeps every element in its place, and only adds or drops axes of size one."""
    items = [item for item in i if item is not None]
    return all(size == 1 or item == (0, size, 1) for item, size in zip(items, x.shape, strict=True)) and x.size > 0


def indexed(x: Node, i: Sequence[Any]) -> Shape:
    """The shape of what an index takes that takes everything."""
    sizes = iter(x.shape)
    kept = [(1, True) if item is None else (next(sizes), not isinstance(item, int)) for item in i]
    return tuple(size for size, stays in kept if stays)


def exchanges_last_two(p: Sequence[int]) -> bool:
    rank = len(p)
    return rank > 1 and tuple(p) == (*range(rank - 2), rank - 1, rank - 2)


def is_long(x: Node) -> bool:
    """Whether running a node on it takes longer than rewriting what comes after."""
    return x.size >= LONG


# Reductions


def is_one_long(x: Node, a: Sequence[int]) -> bool:
    """Whether a reduction over these axes folds single elements."""
    return all(x.shape[at] == 1 for at in a)


def is_kept_shape(x: Node, a: Sequence[int], s: Shape) -> bool:
    return s == drop_axes(x.shape, a, keepdims=True)


def is_dropped_shape(x: Node, a: Sequence[int], s: Shape) -> bool:
    return s == drop_axes(x.shape, a)


def reduced(x: Node, a: Sequence[int], k: bool) -> Shape:
    return drop_axes(x.shape, a, keepdims=k)


def is_filled(x: Node, a: Sequence[int]) -> bool:
    return count_along(x.shape, a) > 0


def log_count(x: Node, a: Sequence[int]) -> float:
    return math.log(count_along(x.shape, a))
