"""Rewrites that no row can say: they concern many ops at once, or any number of operands."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.core import CONSTANT, RESULT, Node, Op, ops
from engine.errors import EngineError
from engine.families import batch_aligned, broadcast_shape
from engine.optimise.patterns import Rewrite, Sweep
from engine.types import Array, drop_axes

FOLDED_ELEMENTS = 1 << 12
FOLDED_FLOPS = 1 << 16
"""What folding a constant may take: some ten microseconds, and no more memory than a page or two."""


@dataclass(frozen=True, eq=False)
class Rule:
    """A rewrite by hand: which ops it concerns, by an op and those of its first operands, and what it does."""

    meaning: str
    concerns: Callable[[Op, Sequence[Op]], bool]
    rewrite: Rewrite

    def rewrites(self, op: Op, below: Sequence[Op]) -> Iterator[Rewrite]:
        if self.concerns(op, below):
            yield self.rewrite


# Constants


def _is_foldable(op: Op, below: Sequence[Op]) -> bool:
    """Not what is several results, a loop, a mark, or a stretched number, which takes no memory as it is."""
    kept = op.has_several or op.steers or op in (RESULT, ops.positive, ops.broadcast_to)
    return bool(below) and not kept and all(each is CONSTANT for each in below)


def _fold(node: Node, sweep: Sweep) -> Node | None:
    if node.size > FOLDED_ELEMENTS or any(x.value is None for x in node.inputs) or node.flops > FOLDED_FLOPS:
        return None
    value = _computed(node)
    return None if value is None else node.graph.constant(value, weak=node.weak)


def _computed(node: Node) -> Array | None:
    """The value of a node of constants; None where its kernel refuses them, which is for the run to say."""
    assert node.op.kernel is not None
    try:
        with np.errstate(all="ignore"):
            value = np.asarray(node.op.kernel(*[x.value for x in node.inputs], **node.attrs))
    except (EngineError, ValueError, ArithmeticError, MemoryError):
        return None
    return value if (value.shape, value.dtype) == (node.shape, node.dtype) else None


# Stretched operands


def _is_elementwise(op: Op, below: Sequence[Op]) -> bool:
    return op.batch is batch_aligned and any(each in (ops.broadcast_to, ops.reshape) for each in below)


def _on_fewer(node: Node, sweep: Sweep) -> Node | None:
    """An elementwise op stretches its operands itself; what it makes of stretched ones alone is stretched, too."""
    several = len(node.inputs) > 1
    if several and node.op.shape is not broadcast_shape:
        return None
    bare = tuple(_unstretched(x, several) for x in node.inputs)
    return None if bare == node.inputs else sweep.settle(node.graph.intern(node.op, bare, node.attrs, weak=node.weak))


def _unstretched(node: Node, several: bool) -> Node:
    """What `node` is stretched from; among several operands, leading ones need not be said either."""
    if node.op is ops.broadcast_to:
        return node.inputs[0]
    if several and node.op is ops.reshape:
        x = node.inputs[0]
        lead = node.rank - x.rank
        if lead > 0 and node.shape == (1,) * lead + x.shape:
            return x
    return node


def _is_reduced_stretch(op: Op, below: Sequence[Op]) -> bool:
    return op in (ops.sum, ops.mean) and below[0] is ops.broadcast_to


def _reduce_stretch(node: Node, sweep: Sweep) -> Node | None:
    """The sum of equal terms is a product with their number; their mean is any of them."""
    stretched = node.inputs[0]
    x, axis, keepdims = stretched.inputs[0], node.attrs["axis"], node.attrs["keepdims"]
    lead = stretched.rank - x.rank
    sizes = (1,) * lead + x.shape
    equal = [at for at in axis if sizes[at] == 1 and stretched.shape[at] > 1]
    if not equal or node.dtype != x.dtype or x.dtype.kind != "f":
        return None
    rest = tuple(at - lead for at in axis if at >= lead and at not in equal)
    folded = sweep.settle(node.op(x, **node.attrs | {"axis": rest, "keepdims": True})) if rest else x
    kept = drop_axes(folded.shape, [at - lead for at in axis if at >= lead], keepdims=keepdims)
    folded = sweep.settle(ops.reshape(folded, shape=kept))
    count = math.prod(stretched.shape[at] for at in equal)
    return sweep.settle(folded * float(count)) if node.op is ops.sum else folded


# Parts of what was joined


def _is_part_of_joined(op: Op, below: Sequence[Op]) -> bool:
    return op is ops.slice and below[0] is ops.concat


def _from_one_piece(node: Node, sweep: Sweep) -> Node | None:
    """A part of arrays that were joined, where it lies in one of them."""
    joined = node.inputs[0]
    axis = joined.attrs["axis"]
    if axis is None:
        return None
    index = list(node.attrs["index"])
    place = [at for at, item in enumerate(index) if item is not None][axis]
    first, last = _span(index[place], joined.shape[axis])
    start = 0
    for x in joined.inputs:
        if start <= first <= last < start + x.shape[axis]:
            index[place] = _moved(index[place], start)
            return ops.slice(x, index=index)
        start += x.shape[axis]
    return None


def _span(item: Any, size: int) -> tuple[int, int]:
    """The first and the last position that an item of an index takes, or an impossible span where it takes none."""
    if isinstance(item, int):
        return item, item
    kept = range(size)[slice(*item)]
    return (min(kept[0], kept[-1]), max(kept[0], kept[-1])) if kept else (0, -1)


def _moved(item: Any, by: int) -> Any:
    """The same positions, counted from further on."""
    if isinstance(item, int):
        return item - by
    start, stop, step = item
    past = -1 if stop is None else stop
    return (start - by, past - by if past >= by else None, step)


FOLD = Rule("what is made of constants alone is computed once", _is_foldable, _fold)
STRETCH = Rule("elementwise ops stretch their operands themselves", _is_elementwise, _on_fewer)
REDUCE = Rule("a sum of equal terms is a product by their number", _is_reduced_stretch, _reduce_stretch)
PIECE = Rule("a part of joined arrays that lies in one is a part of that one", _is_part_of_joined, _from_one_piece)

BEFORE = [FOLD, REDUCE, PIECE]
AFTER = [*BEFORE, STRETCH]
