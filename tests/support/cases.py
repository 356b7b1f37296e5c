"""A case: one op at one of its samples, with operands drawn. The registry is the table of cases.

Shapes are drawn from the op's domain, by random numbers that the op's name seeds; lists and numbers are given as they
stand. Floating operands move, that is, the op is differentiated by them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

import engine.ops  # noqa: F401  (fills the catalogue)
from engine.core import Graph, Node, Op, Sample, ops
from engine.errors import EngineError, NotDifferentiable
from engine.limits import Limits
from engine.program import Argument, Built, Closure, Program, Ref, Statement
from engine.tensors import Tensor, read_tensor
from engine.text import parse
from engine.transforms.reverse import reverse
from engine.types import Array, Spec, is_inexact, to_real


@dataclass(frozen=True)
class Case:
    """One op on one sample. `dtype` is that of the operands that are drawn or given as real numbers."""

    op: Op
    sample: Sample
    number: int
    dtype: str = "float64"

    def __str__(self) -> str:
        return f"{self.op.name}-{self.number}"

    def of(self, dtype: str) -> Case:
        return replace(self, dtype=dtype)

    @cached_property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(str(self).encode()))

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """Operands that are tensors, by the names x0, x1, … of their places."""
        found = {}
        for at, operand in enumerate(self.sample.operands):
            if isinstance(operand, tuple):
                found[f"x{at}"] = self._drawn(operand, at)
            elif isinstance(operand, list):
                found[f"x{at}"] = self._given(operand, at)
        return found

    def _drawn(self, shape: tuple[int, ...], at: int) -> Array:
        kinds = self.op.operand(at).kinds
        low, high = self.op.domain[min(at, len(self.op.domain) - 1)]
        values = self.rng.uniform(low, high, shape)
        if "f" in kinds or "c" in kinds:
            is_complex = self.dtype.startswith("complex") or "f" not in kinds
            values = values + 1j * self.rng.uniform(low, high, shape) if is_complex else values
            return np.asarray(values, np.result_type(self.dtype, np.complex64) if is_complex else self.dtype)
        return np.asarray(values > 0 if kinds == "b" else np.trunc(values), "bool" if kinds == "b" else "int64")

    def _given(self, data: list[Any], at: int) -> Array:
        """Whole numbers are int64 where the operand takes them, as they are in Python."""
        if is_whole(data) and "i" in self.op.operand(at).kinds:
            return np.array(data, np.int64)
        array = read_tensor(data).array
        dtype = np.dtype(self.dtype)
        dtype = dtype if dtype.kind in self.op.operand(at).kinds else to_real(dtype)
        return array if array.dtype.kind == "b" else array.astype(dtype)

    @cached_property
    def moving(self) -> tuple[str, ...]:
        """Operands with a derivative; none where no result has one."""
        scene = Scene(self)
        if not any(is_inexact(node.dtype) for node in scene.results):
            return ()
        names = [name for name, array in self.arrays.items() if is_inexact(array.dtype)]
        return tuple(name for name in names if scene.has_derivative(name))

    @property
    def program(self) -> Program:
        """One call, as posted: drawn operands are inputs, given ones are constants."""
        arguments: list[Argument] = []
        for at, operand in enumerate(self.sample.operands):
            name = f"x{at}"
            if isinstance(operand, tuple):
                arguments.append(Ref(name))
            elif isinstance(operand, list):
                typed = not self.op.operand(at).is_integer
                arguments.append(Tensor(self.arrays[name], typed=True) if typed else read_tensor(operand))
            else:
                arguments.append(operand)
        results = Scene(self).results
        names = self.op.results or [str(at) for at in range(len(results))]
        refs = [Ref("y")] if len(results) == 1 and not self.op.results else [Ref("y", name) for name in names]
        statement = Statement("y", self.op, tuple(arguments), dict(self.sample.attrs))
        return Program((statement,), tuple((str(ref), ref) for ref in refs), self.functions.functions)

    @cached_property
    def functions(self) -> Program:
        """A program with the functions that the sample's attributes name."""
        return parse(f"{self.sample.functions}\n0", Limits())

    def attrs(self, graph: Graph) -> dict[str, Any]:
        """The attributes, with functions that are built in `graph`."""
        built = Built(self.functions, graph, {}, {})
        known, declared = self.functions.by_name, self.op.attrs
        return {
            name: Closure(known[value], built)
            if isinstance(value, str) and value in known and declared[name].names_function
            else value
            for name, value in self.sample.attrs.items()
        }

    @property
    def drawn(self) -> dict[str, Array]:
        """The inputs of `program`."""
        shapes = enumerate(self.sample.operands)
        return {f"x{at}": self.arrays[f"x{at}"] for at, operand in shapes if isinstance(operand, tuple)}

    def directions(self, salt: int = 0) -> dict[str, Array]:
        """Random tangents of the moving operands."""
        rng = np.random.default_rng([zlib.crc32(str(self).encode()), salt])
        return {name: like(self.arrays[name], rng) for name in self.moving}


def like(array: Array, rng: np.random.Generator) -> Array:
    """Random numbers of magnitude ½ to 1½ in the shape and dtype of `array`."""
    values = rng.uniform(0.5, 1.5, array.shape) * rng.choice([-1.0, 1.0], array.shape)
    if array.dtype.kind == "c":
        values = values * np.exp(1j * rng.uniform(0, 2 * np.pi, array.shape))
    return np.asarray(values, array.dtype)


def is_whole(data: Any) -> bool:
    level = [data]
    while any(isinstance(each, list) for each in level):
        level = [item for each in level for item in (each if isinstance(each, list) else [each])]
    return all(type(each) is int for each in level) and bool(level)


class Scene:
    """A case as nodes: a leaf for each tensor operand, and the results."""

    def __init__(self, case: Case, graph: Graph | None = None) -> None:
        self.case = case
        self.graph = Graph() if graph is None else graph
        self.leaves = {name: self.leaf(name, array) for name, array in case.arrays.items()}
        operands = [self.leaves.get(f"x{at}", operand) for at, operand in enumerate(case.sample.operands)]
        self.results = case.op.apply(self.graph, operands, case.attrs(self.graph), posted=True)

    def leaf(self, name: str, array: Array) -> Node:
        return self.graph.input(name, Spec(array.shape, array.dtype))

    @property
    def moving(self) -> dict[str, Node]:
        return {name: self.leaves[name] for name in self.case.moving}

    @property
    def differentiable(self) -> list[Node]:
        return [node for node in self.results if is_inexact(node.dtype)]

    def has_derivative(self, name: str) -> bool:
        """Whether the op does not refuse to be differentiated by this operand."""
        try:
            for node in self.differentiable:
                reverse([(node, node)], [self.leaves[name]])
        except NotDifferentiable:
            return False
        except EngineError:
            return True  # a fault, which is for a test to find
        return True


def cases(chosen: Iterator[Op] | Sequence[Op] | None = None) -> list[Case]:
    """Every op at every sample."""
    return [Case(op, sample, at) for op in (chosen or ops) for at, sample in enumerate(op.samples)]


def refusals() -> list[Case]:
    """Every op at what it must refuse. Tensors are float64, whatever the operand takes."""
    return [Case(op, refusal, at) for op in ops for at, refusal in enumerate(op.refusals)]  # type: ignore[arg-type]


def ids(case: Any) -> str:
    return str(case)


def merged(*maps: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array for each in maps for name, array in each.items()}
