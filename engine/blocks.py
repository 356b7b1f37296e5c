"""Running a group of large elementwise steps, a cacheful at a time, over a few threads.

How a shape falls into blocks depends on the shape alone, every block is computed by itself, and what reductions make of
each is put together in the blocks' order: so the bits are the same for any number of threads, and on every run. Sums
over blocks are as accurate as sums of the whole: NumPy's are pairwise within a block, and over the blocks' again.

NumPy lets go of the interpreter's lock inside a call, so threads share the arithmetic.
Between two calls a thread needs the lock, so little stands there: a block is one function of source (engine.source).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from typing import Any, TypeAlias

import numpy as np

from engine.core import Node
from engine.groups import BLOCK, cut_of
from engine.plan import MOST_THREADS, Blocks, Step
from engine.types import Array, Dtype, Shape, Tick, drop_axes

Index: TypeAlias = tuple[slice, ...]
EVERYTHING = slice(None)


MOST_HELPERS = 32
"""Threads that help runs, in the whole process."""


@cache
def _helpers() -> ThreadPoolExecutor:
    """Started one by one, as they are needed, and kept: to start a thread takes longer than a small part of a run."""
    return ThreadPoolExecutor(MOST_HELPERS, "helper")


class Team:
    """The threads of one run: the one that it began in, and helpers, as far as there are any free."""

    def __init__(self, threads: int, tick: Tick | None) -> None:
        self.threads = min(threads, MOST_THREADS)
        self.tick = tick

    def each(self, count: int, begin: Callable[[], Callable[[int], None]]) -> None:
        """Do what `begin` gives for every number below `count`. It is called once in each thread.

        The thread that calls takes part, it alone looks at the clock, and it waits for no helper that has not begun.
        Raises what any of them raises.
        """
        task = _Task(count, begin)
        helpers = [_helpers().submit(task.help) for _ in range(min(self.threads, count) - 1)]
        try:
            task.work(self.tick)
        finally:
            task.begin = None
            begun = [each for each in helpers if not each.cancel()]
            wait(begun)
        for each in begun:
            each.result()


class _Task:
    """What the threads of a team share: they take number after number, until none is left or one has failed."""

    def __init__(self, count: int, begin: Callable[[], Callable[[int], None]]) -> None:
        self.count = count
        self.begin: Callable[[], Callable[[int], None]] | None = begin
        """None when all is done: a helper that comes too late must not hold on to arrays."""
        self._next = itertools.count()
        self._failed = False

    def help(self) -> None:
        self.work(None)

    def work(self, tick: Tick | None) -> None:
        begin = self.begin
        if begin is None:
            return
        try:
            do = begin()
            with np.errstate(all="ignore"):
                while not self._failed and (at := next(self._next)) < self.count:
                    if tick is not None:
                        tick()
                    do(at)
        except BaseException:
            self._failed = True
            raise


class Fault(Exception):
    """A step that failed, and what it raised."""

    def __init__(self, step: Step, error: Exception) -> None:
        super().__init__(step.node.op.name)
        self.step = step
        self.error = error


def run_blocks(piece: Blocks, values: Sequence[Any], team: Team) -> list[tuple[int, Array]]:
    """The values that are kept, with their places. Raises Fault, and what the clock raises."""
    work = _Work(piece, values)
    team.each(len(work.blocks), work.begin)
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
        assert piece.written is not None
        self.steps, self.dtypes, self.written = piece.steps, piece.layout.slots, piece.written
        self.blocks = list(blocks_of(piece.shape))
        self.operands = [_Operand(values[place], piece.shape) for place in piece.outside]
        self.kept = {step.out: np.empty(piece.shape, step.node.dtype) for step in piece.kept}
        self.folds = {step.out: _Folded(step.node, len(self.blocks)) for step in piece.folds}

    def begin(self) -> Callable[[int], None]:
        """What computes a block, in memory of its own."""
        return partial(self._block, _Slots(self.dtypes))

    def _block(self, slots: _Slots, at: int) -> None:
        index = self.blocks[at]
        cells = [operand.at(index) for operand in self.operands]
        kept = [array[index] for array in self.kept.values()]
        own = slots.of(tuple([each.stop - each.start for each in index]))
        try:
            self.written(at, index, *cells, *kept, *self.folds.values(), *own)
        except Exception as error:
            raise Fault(self.steps[_line_of(error) - 1], error) from error

    def results(self) -> Iterator[tuple[int, Array]]:
        """What is kept, with its places."""
        yield from self.kept.items()
        yield from ((place, fold.result()) for place, fold in self.folds.items())


def _line_of(error: Exception) -> int:
    """The line at which a function of source raised, counted from its head: a step has a line of its own."""
    trace = error.__traceback__
    assert trace is not None and trace.tb_next is not None
    return trace.tb_next.tb_lineno - 1


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

    def put(self, at: int, index: Index, block: Any) -> None:
        if self.whole is None:
            self.parts[at] = self.fold.reduce(block, axis=self.axes, keepdims=True, **self._dtype)
            return
        there = tuple(EVERYTHING if axis in self.axes else each for axis, each in enumerate(index))
        self.fold.reduce(block, axis=self.axes, keepdims=True, out=self.whole[there], **self._dtype)

    def result(self) -> Array:
        total = self.fold.reduce(np.stack(self.parts), axis=0) if self.whole is None else self.whole
        found = self.fold.finish(total, math.prod(self.x.shape[axis] for axis in self.axes))
        return np.asarray(found, self.node.dtype).reshape(self.node.shape)
