"""Slopes of a graph along directions in its inputs, from values alone: what a check holds derivatives against.

A graph, or its gradient, is folded into one number φ = Σ Re⟨u, target⟩ with fixed random u, so that one sweep back is
held against as many slopes as there are directions. There are two ways to a slope.

*Complex step* (Squire & Trapp, SIAM Review 40, 1998): Im φ(x + ih·d)/h is the slope with an error of h², and with
h = 1e-200 nothing is lost to rounding either. It takes a φ that is complex-differentiable. So the graph is built once
more with the moved input complex; ops that take no complex numbers refuse that, and every node between is held to the
Cauchy-Riemann equations at the point: a step along i must change it by i times what a step along 1 does.

*Differences*, for everything else: Ridders' (Adv. Eng. Softw. 4, 1982), central differences at shrinking steps,
extrapolated to step zero, and the entry that its neighbours agree with best, measured against its own size. Steps run
from a twentieth of x down to where rounding rules, so that functions with a scale of their own, and points near the
edge of a domain, are met as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from engine.calls import Question, Scene
from engine.core import Graph, Node
from engine.derivative import or_zero
from engine.errors import EngineError, LimitExceeded
from engine.execute import run
from engine.limits import Limits
from engine.plan import Plan, make_plan
from engine.program import Program, build, to_program
from engine.tensors import Tensor
from engine.transforms.batch import batch
from engine.transforms.reverse import reverse
from engine.types import DTYPES, FLOAT64, Array, Spec, Tick, is_inexact

Tensors = Mapping[str, Array]

FIRST_STEP, LAST_STEP, SHRINK = 0.05, 1e-7, 4.0
"""Steps of differences, the first and last in units of x (or of 1, where that is larger, or smaller)."""
ONE_SIDED_STEP, CLOSER = 1e-6, 64.0
"""The step to one side, in units of x, and how much smaller that of a closer look is."""
STEEP = 1e2
"""What the slope to one side is over at least, where it is infinite at the point."""
EPSILONS = 5.0
"""Rounding of φ, in units of the last digit that the least precise of its nodes keeps."""
NOISE = 1e-8
"""Slopes below this part of φ over x are compared as zeros."""

IMAGINARY_STEP = 1e-200
PROBES = (1e-5, 1e-8, 1e-10)
"""Steps of the Cauchy-Riemann equations, relative to an operand between LEAST and MOST; the smaller ones are for what
is steep."""
LEAST, MOST = 1e-3, 1e3
STEPS = 8
"""Of a loop that are looked at."""
RIEMANN = 1e-2
"""How far apart, relatively, the two steps may be: a function that is not holomorphic is off by a whole."""


def in_double(question: Question) -> Question:
    """The same question with all floating and complex inputs in double precision."""
    wide = {"f": FLOAT64, "c": DTYPES["complex128"]}
    inputs = {
        name: Tensor(each.array.astype(wide[each.spec.dtype.kind]), True, each.requires_grad)
        if each.spec.dtype.kind in wide
        else each
        for name, each in question.inputs.items()
    }
    return replace(question, inputs=inputs)


def arrays_of(question: Question) -> dict[str, Array]:
    return {name: tensor.array for name, tensor in question.inputs.items()}


# φ


@dataclass(frozen=True)
class Fold:
    """φ by its parts: targets with their weights, and the leaves that it is differentiated by."""

    targets: Sequence[Node]
    weights: Sequence[Array]
    wrt: Mapping[str, Node]

    def value(self, arrays: Sequence[Array]) -> Any:
        """Σ Re⟨u, target⟩; Σ u·target where that is complex and u is real, which continues φ into the complex plane."""
        total: Any = 0.0
        for u, target in zip(self.weights, arrays, strict=True):
            total = total + (np.conj(u) * target).sum()
        return total

    def gradient(self) -> list[Node]:
        """∇φ by each wrt."""
        wrt = list(self.wrt.values())
        pairs = [(node, _weight(node, u)) for node, u in zip(self.targets, self.weights, strict=True)]
        return [or_zero(g, x) for g, x in zip(reverse(pairs, wrt), wrt, strict=True)]


def _weight(node: Node, u: Array) -> Node:
    return node.graph.constant(u, node.dtype)


def folded(question: Question, limits: Limits, tick: Tick | None) -> Fold:
    """φ of a question: of its outputs for order 1, of its gradients for order 2. Raises LimitExceeded."""
    scene = Scene(question, Graph(limits=limits, tick=tick, masked=question.nan_policy == "mask"))
    wrt = {name: scene.batched.get(x, x) for name, x in scene.wrt.items()}
    if not wrt:
        return Fold([], [], {})
    outputs = list(scene.differentiable.values())
    if scene.batched:
        outputs = batch(scene.batched, outputs)
    fold = Fold(outputs, _weights(outputs, seed=1), wrt)
    if question.order == 2:
        gradient = fold.gradient()
        fold = Fold(gradient, _weights(gradient, seed=2), wrt)
    return fold


def _weights(nodes: Sequence[Node], seed: int) -> list[Array]:
    """Numbers of magnitude ½ to 1½, the same for equal shapes; 1 for a single number, so that φ is what was posted."""
    limit, size = nodes[0].graph.limits.peak_bytes, 2 * sum(node.spec.nbytes for node in nodes)
    if size > limit:
        raise LimitExceeded("peak_bytes", limit, size, "bytes of the outputs and of their weights")
    if [node.size for node in nodes] == [1] and nodes[0].dtype.kind == "f":
        return [np.ones(nodes[0].shape)]
    return [weights_like(node, np.random.default_rng([seed, at])) for at, node in enumerate(nodes)]


def weights_like(node: Node | Spec, rng: np.random.Generator) -> Array:
    """Random numbers of magnitude ½ to 1½ in the shape of `node`, complex ones where it is."""
    u = rng.uniform(0.5, 1.5, node.shape)
    return np.asarray(u * np.exp(2j * np.pi * rng.uniform(size=node.shape)) if node.dtype.kind == "c" else u)


# Differences


class Side(NamedTuple):
    """The slope of φ to one side, over a small step and over one that is smaller by CLOSER."""

    slope: float
    closer: float

    @property
    def jumps(self) -> bool:
        """Whether φ changes by as much over the smaller step as over the larger."""
        return abs(self.closer) > max(1.0, CLOSER / 2 * abs(self.slope))

    @property
    def climbs(self) -> bool:
        """Whether the slope grows without bound, as a root's does at 0, or ends in an infinity."""
        return (abs(self.slope) > STEEP and abs(self.closer) > 1.2 * abs(self.slope)) or abs(self.slope) == np.inf


class Differences:
    """Slopes of φ by differences of its values, in double precision whatever the question's dtypes."""

    method = "differences"

    def __init__(self, question: Question, limits: Limits, tick: Tick | None) -> None:
        self.fold = folded(question, limits, tick)
        self.plan: Plan = make_plan(self.fold.targets)
        self.tensors = arrays_of(question)
        self.tick = tick
        live = self.fold.targets[0].graph.live(self.fold.targets) if self.fold.targets else []
        self.epsilon = max((float(np.finfo(x.dtype).eps) for x in live if is_inexact(x.dtype)), default=0.0)
        """That of the least precise node: a graph may round to single precision on the way."""

    def slope(self, name: str, direction: Array) -> float:
        """dφ/dh at x + h·direction, by Ridders' extrapolation; NaN where no step gives a number."""
        size = self._size(name, direction)
        h, end = FIRST_STEP * max(1.0, size), LAST_STEP * min(1.0, size or 1.0)
        floor = NOISE * self._height(name, direction)
        best, least = np.nan, np.inf
        row: list[float] = []
        while h > end:
            above, below = self._phi(name, h * direction), self._phi(name, -h * direction)
            previous, row = row, [(above - below) / (2 * h)]
            h /= SHRINK
            if not np.isfinite(row[0]):
                row = []  # a step out of the domain: start again from smaller ones
                continue
            for k, before in enumerate(previous):
                factor = SHRINK ** (2 * (k + 1))
                row.append((factor * row[k] - before) / (factor - 1))
                error = max(abs(row[k + 1] - row[k]), abs(row[k + 1] - before)) / max(abs(row[k + 1]), floor, 1e-300)
                error += EPSILONS * self.epsilon * size / h  # entries that agree by chance, where x hardly moves
                if error <= least:
                    best, least = row[k + 1], error
        return best

    def sides(self, name: str, direction: Array) -> tuple[Side, Side]:
        """Slopes to the left and to the right."""
        size = self._size(name, direction) or 1.0
        here = self._phi(name, 0.0 * direction)
        slopes = {
            sign * h: (self._phi(name, sign * h * size * direction) - here) / (sign * h * size)
            for sign in (-1, 1)
            for h in (ONE_SIDED_STEP, ONE_SIDED_STEP / CLOSER)
        }
        left, closer_left, right, closer_right = slopes.values()
        return Side(left, closer_left), Side(right, closer_right)

    def noise(self, name: str, direction: Array) -> float:
        """What rounding of φ alone may add to a slope, at the largest step."""
        return EPSILONS * self.epsilon * self._height(name, direction) / FIRST_STEP

    def _height(self, name: str, direction: Array) -> float:
        return abs(self._phi(name, 0.0 * direction)) / max(1.0, self._size(name, direction))

    def _size(self, name: str, direction: Array) -> float:
        return size_along(self.tensors[name], direction)

    def _phi(self, name: str, shift: Array) -> float:
        moved = {**self.tensors, name: self.tensors[name] + shift}
        return float(self.fold.value(run(self.plan, moved, self.tick)).real)


def size_along(x: Array, direction: Array) -> float:
    """The largest element of `x` that the direction moves."""
    return float(np.abs(x[direction != 0]).max(initial=0.0))


# The complex step


class ComplexStep:
    """Slopes of φ by one real input, from its continuation into the complex plane."""

    method = "complex_step"

    def __init__(self, fold: Fold, plan: Plan, name: str, tensors: Tensors, tick: Tick | None) -> None:
        self.fold, self.plan, self.name, self.tensors, self.tick = fold, plan, name, tensors, tick

    def slope(self, direction: Array) -> float:
        """dφ/dh at x + h·direction."""
        return self._slope(self.tensors[self.name], direction)

    def wobble(self, direction: Array) -> float:
        """How far the slope moves as x does in its last digits: what no computation of it could do better than."""
        x = self.tensors[self.name]
        shaken = x * (1.0 + 4.0 * np.finfo(x.dtype).eps * np.random.default_rng(4).choice([-1.0, 1.0], x.shape))
        return abs(self._slope(shaken, direction) - self._slope(x, direction))

    def is_at_home(self, height: float) -> bool:
        """Whether φ is there what it is for real numbers, and has slopes."""
        x = self.tensors[self.name]
        phi = self._phi(x, np.ones(x.shape))
        return bool(np.isfinite(phi)) and abs(phi.real - height) <= 1e-8 * (1.0 + abs(height))

    def _slope(self, x: Array, direction: Array) -> float:
        return float(self._phi(x, direction).imag / IMAGINARY_STEP)

    def _phi(self, x: Array, direction: Array) -> complex:
        moved = {**self.tensors, self.name: x + 1j * IMAGINARY_STEP * direction}
        return complex(self.fold.value(run(self.plan, moved, self.tick)))


def complex_step(differences: Differences, name: str, limits: Limits) -> ComplexStep | None:
    """The complex step by one input, where it applies: None where an op between takes no complex numbers, or is not
    complex-differentiable at the point."""
    fold, tensors, tick = differences.fold, differences.tensors, differences.tick
    if tensors[name].dtype.kind != "f" or any(node.dtype.kind == "c" for node in fold.targets):
        return None
    try:
        continued = _continued(fold, name, tensors, limits, tick)
        if not all(map(_stays_complex, continued.targets[0].graph.live(continued.targets))):
            return None
        found = ComplexStep(continued, make_plan(continued.targets), name, tensors, tick)
        height = fold.value(run(differences.plan, tensors, tick))
        is_fit = found.is_at_home(height) and _is_holomorphic(found)
    except (EngineError, ArithmeticError, ValueError):
        return None
    return found if is_fit else None


def _continued(fold: Fold, name: str, tensors: Tensors, limits: Limits, tick: Tick | None) -> Fold:
    """φ with one of its inputs complex."""
    program = _program(fold.targets)
    specs = {each: Spec(array.shape, array.dtype) for each, array in tensors.items()}
    specs[name] = Spec(specs[name].shape, DTYPES["complex128"])
    built = build(program, specs, Graph(limits=limits, tick=tick))
    return replace(fold, targets=list(built.outputs.values()))


def _program(targets: Sequence[Node]) -> Program:
    leaves = set(targets[0].graph.leaves)
    stem = next(stem for n in range(len(leaves) + 1) if not any(each.startswith(stem := f"phi{n}_") for each in leaves))
    return to_program({f"{stem}{at}": node for at, node in enumerate(targets)}, {})


def _stays_complex(node: Node) -> bool:
    """Whether what goes in complex comes out so: no conjugate, no magnitude, no comparison, no cast."""
    is_complex = any(spec.dtype.kind == "c" for x in node.inputs for spec in x.specs)
    return not is_complex or (node.op.holomorphic and all(spec.dtype == DTYPES["complex128"] for spec in node.specs))


class _NotHolomorphicError(ValueError):
    """Ends a run at the first node that is not complex-differentiable."""


def _is_holomorphic(step: ComplexStep) -> bool:
    """Whether every node meets the Cauchy-Riemann equations at the point, along one random direction."""
    rng = np.random.default_rng(5)
    seen: Counter[Node] = Counter()

    def watch(node: Node, operands: Sequence[Any], value: Any) -> None:
        if any(isinstance(each, tuple) for each in operands) or not any(each.dtype.kind == "c" for each in operands):
            return
        seen[node] += 1
        # Of a loop the nodes within are looked at, in its first steps.
        if node.op.steers or seen[node] > STEPS:
            return
        if not _stays_complex(node) or not _meets_riemann(node, operands, value, rng):
            raise _NotHolomorphicError

    x = step.tensors[step.name]
    try:
        run(step.plan, {**step.tensors, step.name: x.astype(complex)}, step.tick, watch=watch)
    except _NotHolomorphicError:
        return False
    return True


def _meets_riemann(node: Node, operands: Sequence[Array], value: Any, rng: np.random.Generator) -> bool:
    """Whether a node, real at the point, has one slope: along 1, along i, and by the smallest step itself.

    A part that is imaginary already would swallow the smallest step, and so do kernels that are no better than rounding
    in what they make of it.
    """
    here = value if isinstance(value, tuple) else (value,)
    if any(np.imag(each).any() for each in here):
        return False
    shifts = [_shift(x, rng) if x.dtype.kind == "c" else np.zeros((), x.dtype) for x in operands]

    def moved(step: complex) -> list[Array]:
        at = [x + step * d if x.dtype.kind == "c" else x for x, d in zip(operands, shifts, strict=True)]
        with np.errstate(all="ignore"):
            found = node.op.kernel(*at, **node.attrs)  # type: ignore[misc]
        return list(found) if isinstance(found, tuple) else [found]

    smallest = [each.imag / IMAGINARY_STEP for each in moved(1j * IMAGINARY_STEP)]
    rounding = [1e-12 * np.abs(each).max(initial=0.0) for each in here]
    return any(_is_one_slope(moved, step, smallest, rounding) for step in PROBES)


def _is_one_slope(
    moved: Callable[[complex], list[Array]], step: float, smallest: Sequence[Array], rounding: Sequence[float]
) -> bool:
    shifts = zip(moved(step), moved(-step), moved(1j * step), moved(-1j * step), smallest, rounding, strict=True)
    for right, left, up, down, least_step, noise in shifts:
        along, across = (right - left) / (2 * step), (up - down) / (2j * step)
        apart = np.maximum(np.abs(along - across), np.abs(along - least_step))
        size = np.abs(along) + np.abs(across) + np.abs(least_step)
        if not (apart <= RIEMANN * size + noise / step).all():
            return False
    return True


def _shift(x: Array, rng: np.random.Generator) -> Array:
    return np.asarray(np.clip(np.abs(x), LEAST, MOST) * rng.choice([-1.0, 1.0], x.shape))
