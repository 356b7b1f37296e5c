"""Running a group of large elementwise steps, a cacheful at a time, over a few threads.

How a shape falls into blocks depends on the shape alone, every block is computed by itself, and what reductions make of
each is put together in the blocks' order: so the bits are the same for any number of threads, and on every run. Sums
over blocks are as accurate as sums of the whole: NumPy's are pairwise within a block, and over the blocks' again.

NumPy lets go of the interpreter's lock inside a call, so threads share the arithmetic. They are started for the run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np

from engine.core import Node
from engine.groups import BLOCK, OUTSIDE, cut_of
from engine.plan import MOST_THREADS, Blocks, Step
from engine.types import Array, Dtype, Shape, drop_axes

Index: TypeAlias = tuple[slice, ...]
Tick: TypeAlias = Callable[[], None]
EVERYTHING = slice(None)


class Team:
    """The threads of one run, started when they are first needed."""

    def __init__(self, threads: int, tick: Tick | None) -> None:
        self.threads = min(threads, MOST_THREADS)
        self.tick = tick
        self._pool: ThreadPoolExecutor | None = None

    def together(self, work: Callable[[Tick | None], None]) -> None:
        """Do `work` in every thread. This one takes part, and it alone looks at the clock. Raises what any raises."""
        if self.threads > 1 and self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads - 1)
        others = [self._pool.submit(work, None) for _ in range(self.threads - 1)] if self._pool is not None else []
        try:
            work(self.tick)
        finally:
            for other in others:
                other.exception()
        for other in others:
            other.result()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


class Fault(Exception):
    """A step that failed, and what it raised."""

    def __init__(self, step: Step, error: Exception) -> None:
        super().__init__(step.node.op.name)
        self.step = step
        self.error = error


def run_blocks(piece: Blocks, values: Sequence[Any], team: Team) -> list[tuple[int, Array]]:
    """The values that are kept, with their places. Raises Fault, and what the clock raises."""
    work = _Work(piece, values)
    team.together(work.run)
    return list(work.results())


def blocks_of(shape: Shape) -> Iterator[Index]:
    """The blocks of a shape, each as a slice of every axis."""
    axis, rows = cut_of(shape)
    after = [slice(0, size) for size in shape[axis + 1 :]]
    for before in itertools.product(*map(range, shape[:axis])):
        for at in range(0, shape[axis], rows):
            yield (*(slice(place, place + 1) for place in before), slice(at, min(at + rows, shape[axis])), *after)


class _Work:
    """A group at work: what all threads share."""

    def __init__(self, piece: Blocks, values: Sequence[Any]) -> None:
        self.steps, self.dtypes = piece.steps, piece.layout.slots
        self.blocks = list(blocks_of(piece.shape))
        own = {step.out for step in self.steps}
        outside = {place for step in self.steps for place in step.args} - own
        self.operands = [(place, _Operand(values[place], piece.shape)) for place in outside]
        self.targets: list[Any] = [
            _Folded(step.node, len(self.blocks))
            if step.node.op.fold is not None
            else np.empty(piece.shape, step.node.dtype)
            if target == OUTSIDE
            else target
            for step, target in zip(self.steps, piece.layout.targets, strict=True)
        ]
        self._next = itertools.count()
        self._failed = False

    def run(self, tick: Tick | None) -> None:
        """Compute blocks as long as there are any left."""
        slots = _Slots(self.dtypes)
        try:
            with np.errstate(all="ignore"):
                while not self._failed and (at := next(self._next)) < len(self.blocks):
                    if tick is not None:
                        tick()
                    self._block(at, slots)
        except BaseException:
            self._failed = True
            raise

    def _block(self, at: int, slots: _Slots) -> None:
        index = self.blocks[at]
        cells = {place: operand.at(index) for place, operand in self.operands}
        own = slots.of(tuple(each.stop - each.start for each in index))
        for step, target in zip(self.steps, self.targets, strict=True):
            operands = [cells[place] for place in step.args]
            try:
                cells[step.out] = _put(step, operands, target, at, index, own)
            except Exception as error:
                raise Fault(step, error) from error

    def results(self) -> Iterator[tuple[int, Array]]:
        """What is kept, with its places."""
        for step, target in zip(self.steps, self.targets, strict=True):
            if isinstance(target, _Folded):
                yield step.out, target.result()
            elif isinstance(target, np.ndarray):
                yield step.out, target


def _put(step: Step, operands: list[Any], target: Any, at: int, index: Index, slots: Sequence[Array]) -> Any:
    """The value of a step for one block, in the memory that it is to be in."""
    if isinstance(target, int):
        return step.kernel(*operands, out=slots[target]) if target >= 0 else step.kernel(*operands)
    if isinstance(target, _Folded):
        return target.put(at, index, operands[0])
    out = target[index]
    if isinstance(step.kernel, np.ufunc):
        return step.kernel(*operands, out=out)
    out[...] = step.kernel(*operands)
    return out


class _Operand:
    """What comes from outside, perhaps to be stretched to the shape of the group."""

    def __init__(self, array: Array, shape: Shape) -> None:
        self.array = array
        self.is_full = array.shape == shape
        lead = len(shape) - array.ndim
        self._along = [None if size == 1 else axis for axis, size in enumerate(array.shape, lead)]
        self._is_constant = not any(axis is not None for axis in self._along)

    def at(self, index: Index) -> Any:
        if self.is_full:
            return self.array[index]
        if self._is_constant:
            return self.array
        return self.array[tuple(EVERYTHING if axis is None else index[axis] for axis in self._along)]


class _Slots:
    """The blocks' memory of one thread, in the shapes that blocks have: few."""

    def __init__(self, dtypes: Sequence[Dtype]) -> None:
        self._buffers = [np.empty(BLOCK, dtype) for dtype in dtypes]
        self._shaped: dict[Shape, list[Array]] = {}

    def of(self, shape: Shape) -> list[Array]:
        if shape not in self._shaped:
            size = math.prod(shape)
            self._shaped[shape] = [buffer[:size].reshape(shape) for buffer in self._buffers]
        return self._shaped[shape]


class _Folded:
    """A reduction: each block gives some of the results, or a part of all of them."""

    def __init__(self, node: Node, blocks: int) -> None:
        assert node.op.fold is not None
        self.node, self.fold = node, node.op.fold
        self.x, self.axes = node.inputs[0], tuple(node.attrs["axis"])
        self._dtype = {"dtype": node.attrs["dtype"]} if node.attrs.get("dtype") else {}
        self.whole: Array | None = None
        if cut_of(self.x.shape).axis < min(self.axes):
            self.whole = np.empty(drop_axes(self.x.shape, self.axes, keepdims=True), node.dtype)
        self.parts: list[Any] = [None] * blocks

    def put(self, at: int, index: Index, block: Any) -> Any:
        if self.whole is None:
            part = self.parts[at] = self.fold.reduce(block, axis=self.axes, keepdims=True, **self._dtype)
            return part
        there = tuple(EVERYTHING if axis in self.axes else each for axis, each in enumerate(index))
        return self.fold.reduce(block, axis=self.axes, keepdims=True, out=self.whole[there], **self._dtype)

    def result(self) -> Array:
        total = self.fold.reduce(np.stack(self.parts), axis=0) if self.whole is None else self.whole
        found = self.fold.finish(total, math.prod(self.x.shape[axis] for axis in self.axes))
        return np.asarray(found, self.node.dtype).reshape(self.node.shape)
