"""What a step of a plan takes, in seconds: the arithmetic of its kernel, the memory that goes through it, and the call.

A kernel gets `Op.pace` operations done in a nanosecond, of the `Node.flops` that it has to do. What it reads and writes
goes through the caches or through memory. A call has its price whatever the sizes. These three are added up.

The figures here and the paces of the ops were measured by `python -m benchmarks.calibrate`, which prints what is
estimated beside what is measured: on one core of a server of 2023 (AVX-512), NumPy 2, one thread for BLAS, the
allocator as the service sets it. Another machine is another factor for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.core import RESULT, Node
from engine.groups import BLOCK, count_of

NANO, MICRO = 1e-9, 1e-6

CACHED_BYTES = 8 << 20
"""What goes through a kernel without leaving the cache."""
CACHED_PACE, MEMORY_PACE = 30.0, 10.0
"""Bytes in a nanosecond, in the cache and beyond it; what is written there has its pages made as well."""

UFUNC, KERNEL, VIEW, FLOAT, RUN = 0.5, 2.0, 0.6, 0.06, 1.5
"""Microseconds: a call of a ufunc, of another kernel, of one that gives a view; a step over floats; a run of a plan."""

BLOCK_CALL = 0.9
"""Microseconds of one step on one block, its operands being cut out, too."""

UNLOCKED_FROM = 20e-6
"""Seconds from which a kernel is counted as one that lets other threads run; what is shorter lets go of the
interpreter's lock and is in the queue for it again at once."""

PACES = {"f4": 2.0, "c8": 0.5, "c16": 0.25} | dict.fromkeys(("i1", "i2", "i4", "i8"), 3.0)
"""What the pace is times, by dtype; 1 for others."""
SINGLE = 6.0
"""The same for ufuncs in float32, whose sine and the like need half the terms."""


class Cost(NamedTuple):
    """Estimated seconds on one thread."""

    seconds: float
    """All of it."""
    longest: float
    """Of the longest call that nothing can interrupt."""
    held: float
    """With the interpreter's lock held; of a loop whose steps are not known before, at the worst."""


FREE = Cost(0.0, 0.0, 0.0)


def total(costs: Sequence[Cost]) -> Cost:
    """What some steps take one after the other."""
    return Cost(
        math.fsum(each.seconds for each in costs),
        max((each.longest for each in costs), default=0.0),
        math.fsum(each.held for each in costs),
    )


def step_cost(node: Node) -> Cost:
    """A single call of a kernel."""
    if node.op.trips is not None:
        return _loop_cost(node)
    call, work = MICRO * _overhead(node), _work(node)
    return Cost(call + work, call + work, call + work if work < UNLOCKED_FROM else call)


def _overhead(node: Node) -> float:
    op = node.op
    if op.overhead is not None:
        return op.overhead(node)
    return UFUNC if isinstance(op.kernel, np.ufunc) else VIEW if _is_free(node) else KERNEL


def _is_free(node: Node) -> bool:
    """Whether it looks at what is there already."""
    return node.op is RESULT or (node.op.view and not (node.op.packs and node.inputs[0].op.view))


def _work(node: Node) -> float:
    if _is_free(node) or not node.size:
        return 0.0
    return arithmetic_seconds(node) + _traffic(node.nbytes + sum([x.nbytes for x in node.inputs]))


def arithmetic_seconds(node: Node) -> float:
    """Seconds of a kernel's operations alone, which grouping does not lessen."""
    dtype = node.inputs[0].dtype if node.inputs else node.dtype
    is_single = dtype.char == "f" and isinstance(node.op.kernel, np.ufunc)
    return NANO * node.flops / (node.op.pace * (SINGLE if is_single else PACES.get(dtype.str[1:], 1.0)))


def _traffic(nbytes: int) -> float:
    beyond = max(0, nbytes - CACHED_BYTES)
    return NANO * ((nbytes - beyond) / CACHED_PACE + beyond / MEMORY_PACE)


def _loop_cost(node: Node) -> Cost:
    """A kernel that runs plans, between any two of which it can be stopped."""
    assert node.op.trips is not None
    trips = node.op.trips(node)
    own = MICRO * KERNEL + _traffic(node.nbytes)
    return Cost(
        own + math.fsum(times * plan.seconds for plan, times, _ in trips),
        max((plan.longest_seconds for plan, *_ in trips), default=0.0),
        own + math.fsum(most * plan.held_seconds for plan, _, most in trips),
    )


def float_cost(count: int) -> Cost:
    """So many steps over Python floats."""
    seconds = MICRO * FLOAT * count
    return Cost(seconds, seconds, seconds)


def block_cost(nodes: Sequence[Node], kept: Sequence[Node]) -> Cost:
    """A group that goes block by block, on one thread: only what it is given, and what is kept of it, goes far."""
    shape = next(node.shape for node in nodes if node.op.fold is None)
    count = count_of(shape)
    own = set(nodes)
    outside = {x for node in nodes for x in node.inputs} - own
    calls = MICRO * BLOCK_CALL * count * len(nodes)
    far = sum(x.nbytes for x in outside) + sum(node.nbytes for node in kept)
    near = 3 * BLOCK * count * sum(node.dtype.itemsize for node in nodes)
    work = math.fsum(map(arithmetic_seconds, nodes)) + NANO * (far / MEMORY_PACE + near / CACHED_PACE)
    return Cost(calls + work, (calls + work) / max(1, count), calls)
