"""The derivative of an op is one of a closed set of kinds. The author writes mathematics once; every mode follows.

    kind        the author writes                       forward             reverse
    Partials    slopes s_i(out, *inputs), elementwise   Σ s_i·t_i           s_i·g, summed back to the input's shape
    Linear      the adjoint                             the op itself on t  the adjoint
    Bilinear    two adjoints                            product rule        both
    Flat        nothing                                 zero                zero
    Custom      both rules by hand

Rules emit nodes; they never see arrays. None stands for a zero that nobody needs to compute. A tangent has the shape
and dtype of its primal, and so has a cotangent.

A slope may be a node, a number (a complex one, too), or a *boolean* node, which selects: the cotangent where it holds,
zero elsewhere (so that relu and clip never multiply a zero by an infinity). Only Partials fold and stretch: no
elementwise rule mentions a shape.

Complex numbers follow PyTorch: a rule is written once, for real numbers, and read as the complex-linear map it is;
reverse mode is its adjoint under the real inner product Re⟨u, v⟩, so slopes and factors are conjugated here, on the way
back. Where a result is real, what its slopes give loses its imaginary part, and so does a cotangent where an operand is
real: a slope s of a real result by a complex x stands for t ↦ Re(s·t), as conj(sign(x)) does for abs and 1 for real.
What turns numbers into complex ones that are not holomorphic (conj, sign) has rules of its own, and its op says so.

Taylor coefficients need one thing more, and only where the op is linear or bilinear: how it acts on series. Everything
else follows from its forward rule (engine.transforms.taylor), so `taylor` returns None there, but for the few Custom
ops with a shorter way.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, overload

from engine.core import Graph, Node, cast, ops
from engine.errors import NotDifferentiable
from engine.types import Shape, Spec, broadcast

Slope: TypeAlias = "Node | complex | None"
Series: TypeAlias = Generator[tuple[Node, int], Any, Any]
"""Yields (node, order) to ask for a Taylor coefficient, is sent it (None for zero), returns its own."""


def times(g: Node | None, slope: Slope) -> Node | None:
    """Cotangent (or tangent) times slope; under nan_policy "mask" a zero `g` wins over any slope."""
    if g is None or slope is None:
        return None
    if isinstance(slope, int | float | complex):
        return _scaled(g, slope)
    if slope.dtype.kind == "b":
        return ops.where(slope, g, 0.0)
    if is_one(g) and (g.dtype.kind == "c" or slope.dtype.kind != "c"):
        return ops.broadcast_to(cast(slope, g.dtype), shape=broadcast(g.shape, slope.shape))
    if g.graph.masked:
        return ops.masked_multiply(g, slope)
    return g * slope


def _scaled(g: Node, factor: complex) -> Node | None:
    if factor == 0:
        return None
    return g if factor == 1 else -g if factor == -1 else g * factor


def is_one(node: Node) -> bool:
    """Whether a node is the constant one, perhaps stretched: the cotangent that most sweeps start from."""
    return is_constant(node, 1)


def is_constant(node: Node, number: float) -> bool:
    """Whether a node is one constant number, perhaps stretched."""
    if node.op is ops.broadcast_to:
        node = node.inputs[0]
    return node.value is not None and node.size == 1 and bool(node.value == number)


@overload
def conj(x: Node) -> Node: ...


@overload
def conj(x: Slope) -> Slope: ...


def conj(x: Slope) -> Slope:
    """The conjugate of what is complex; anything else as it is."""
    if isinstance(x, complex):
        return x.conjugate()
    return ops.conj(x) if isinstance(x, Node) and x.dtype.kind == "c" else x


def plus(a: Node | None, b: Node | None) -> Node | None:
    """A sum in which None is zero."""
    return b if a is None else a if b is None else a + b


def filled(graph: Graph, value: Any, spec: Spec) -> Node:
    """One number everywhere, which takes no memory."""
    return ops.broadcast_to(graph.constant(value, spec.dtype), shape=spec.shape)


def ones(like: Node) -> Node:
    """Ones in the spec of a node."""
    return filled(like.graph, 1, like.spec)


def or_zero(value: Node | None, like: Node) -> Node:
    """A node for what may be None, which is a zero in the spec of another."""
    return filled(like.graph, 0, like.spec) if value is None else value


def unbroadcast(g: Node | None, shape: Shape) -> Node | None:
    """The adjoint of broadcasting: `g` summed over the axes along which `shape` was stretched."""
    if g is None or g.shape == shape:
        return g
    lead = len(g.shape) - len(shape)
    stretched = [at + lead for at, size in enumerate(shape) if size == 1 and g.shape[at + lead] != 1]
    return ops.reshape(ops.sum(g, axis=(*range(lead), *stretched)), shape=shape)


@dataclass(frozen=True)
class Refused:
    """In the place of a slope that has no formula: who asks for it is told the reason."""

    reason: str

    def __call__(self, out: Node, *inputs: Node, **attrs: Any) -> Slope:
        raise NotDifferentiable(self.reason, node=out.origin)


@dataclass(frozen=True)
class Partials:
    """Elementwise: one slope for each operand, as a function of the result and the operands."""

    slopes: tuple[Callable[..., Slope] | None, ...]
    kind: ClassVar[str] = "elementwise"
    is_flat: ClassVar[bool] = False

    def slope(self, node: Node, at: int) -> Slope:
        """The partial of `node` by its operand number `at`, emitted once per graph, and only when it is asked for."""
        known = node.graph.slopes
        if (node, at) not in known:
            slope = self.slopes[at]
            known[node, at] = slope and slope(node, *node.inputs, **node.attrs)
        found: Slope = known[node, at]
        return found

    def forward(self, node: Node, tangents: Sequence[Node | None]) -> Node | None:
        total: Node | None = None
        for at, t in enumerate(tangents):
            if t is not None:
                total = plus(total, times(t, self.slope(node, at)))
        return None if total is None else ops.broadcast_to(cast(total, node.dtype), shape=node.shape)

    def reverse(self, node: Node, g: Node, wanted: Sequence[bool]) -> list[Node | None]:
        return [
            unbroadcast(times(g, conj(self.slope(node, at))), x.shape) if wanted[at] else None
            for at, x in enumerate(node.inputs)
        ]

    def taylor(self, node: Node, order: int) -> Series | None:
        if any(isinstance(slope, Refused) for slope in self.slopes):
            return None
        slopes = [self.slope(node, at) for at in range(len(node.inputs))]
        moving = any(isinstance(slope, Node) and slope.dtype.kind != "b" for slope in slopes)
        return None if moving else _as_linear(self, node, order)


def _as_linear(rule: Partials, node: Node, order: int) -> Series:
    """Where all slopes are numbers or select (sums, relu), a coefficient follows from those of its own order."""
    coefficients = []
    for x in node.inputs:
        coefficients.append((yield x, order))
    return rule.forward(node, coefficients)


@dataclass(frozen=True)
class Linear:
    """Linear in all operands together, but for those at `fixed`, which are conditions, indices and the like.

    `adjoint(g, *inputs, **attrs)` gives one cotangent, or a sequence of them aligned with the operands.
    """

    adjoint: Callable[..., Any]
    fixed: tuple[int, ...] = ()
    kind: ClassVar[str] = "linear"
    is_flat: ClassVar[bool] = False

    def forward(self, node: Node, tangents: Sequence[Node | None]) -> Node | None:
        if all(t is None for at, t in enumerate(tangents) if at not in self.fixed):
            return None
        return node.op(
            *[
                x if at in self.fixed else or_zero(t, x)
                for at, (x, t) in enumerate(zip(node.inputs, tangents, strict=True))
            ],
            **node.attrs,
        )

    def reverse(self, node: Node, g: Node, wanted: Sequence[bool]) -> Sequence[Node | None]:
        adjoint = self.adjoint(g, *node.inputs, **node.attrs)
        if isinstance(adjoint, Node):
            return [adjoint, *[None] * (len(node.inputs) - 1)]
        return tuple(adjoint)

    def taylor(self, node: Node, order: int) -> Series:
        coefficients: list[Node | None] = []
        for at, x in enumerate(node.inputs):
            coefficients.append(None if at in self.fixed else (yield x, order))
        return self.forward(node, coefficients)


@dataclass(frozen=True)
class Bilinear:
    """Linear in each of two operands. `left(g, a, b, **attrs)` is the cotangent of `a`, `right` that of `b`.

    Both get `a` and `b` conjugated where they are complex.
    """

    left: Callable[..., Node | None]
    right: Callable[..., Node | None]
    kind: ClassVar[str] = "bilinear"
    is_flat: ClassVar[bool] = False

    def forward(self, node: Node, tangents: Sequence[Node | None]) -> Node | None:
        (a, b), (ta, tb) = node.inputs, tangents
        return plus(ta and node.op(ta, b, **node.attrs), tb and node.op(a, tb, **node.attrs))

    def reverse(self, node: Node, g: Node, wanted: Sequence[bool]) -> list[Node | None]:
        rules = zip((self.left, self.right), wanted, strict=True)
        factors = [conj(x) for x in node.inputs]
        return [rule(g, *factors, **node.attrs) if want else None for rule, want in rules]

    def taylor(self, node: Node, order: int) -> Series:
        a, b = node.inputs
        total: Node | None = None
        for j in range(order + 1):
            left = yield a, j
            right = None if left is None else (yield b, order - j)
            if left is not None and right is not None:
                total = plus(total, node.op(left, right, **node.attrs))
        return total


@dataclass(frozen=True)
class Flat:
    """Constant wherever it is differentiable at all: comparisons, rounding, argmax, detach.

    `cuts` marks what is not even tracked, as PyTorch has it: its result does not require grad.
    """

    cuts: bool = False
    kind: ClassVar[str] = "zero"
    is_flat: ClassVar[bool] = True

    def forward(self, node: Node, tangents: Sequence[Node | None]) -> None:
        return None

    def reverse(self, node: Node, g: Node, wanted: Sequence[bool]) -> list[Node | None]:
        return [None for _ in node.inputs]

    def taylor(self, node: Node, order: int) -> Series | None:
        return None


@dataclass(frozen=True)
class Custom:
    """Rules by hand.

    `forward(node, *tangents)` gives the tangent (a tuple of them for an op with several results);
    `reverse(node, g)` gives a cotangent, or a sequence of them aligned with the operands. For an op with several
    results `g` is a tuple, in which None is a zero. `taylor(node, order)` is written only where a series from the
    tangent's own would grow.
    """

    forward_rule: Callable[..., Any]
    reverse_rule: Callable[..., Any]
    taylor_rule: Callable[[Node, int], Series | None] | None = None
    kind: ClassVar[str] = "custom"
    is_flat: ClassVar[bool] = False

    def forward(self, node: Node, tangents: Sequence[Node | None]) -> Any:
        return None if all(t is None for t in tangents) else self.forward_rule(node, *tangents)

    def reverse(self, node: Node, g: Any, wanted: Sequence[bool]) -> Sequence[Node | None]:
        cotangents = self.reverse_rule(node, g)
        return [cotangents] if isinstance(cotangents, Node) else cotangents

    def taylor(self, node: Node, order: int) -> Series | None:
        return None if self.taylor_rule is None else self.taylor_rule(node, order)


def by_slope(slope: Callable[..., Node], axes: Callable[..., tuple[int, ...]]) -> Custom:
    """A reduction of one operand over `axes(node)`, from the partial of its result by each element.

    `slope(out, x, **attrs)` has the shape of `x`; `out` comes with its reduced axes kept, as ones.
    """

    def kept(node: Node, value: Node) -> Node:
        gone = set(axes(node))
        x = node.inputs[0]
        return ops.reshape(value, shape=tuple(1 if at in gone else size for at, size in enumerate(x.shape)))

    def slope_of(node: Node) -> Node:
        x = node.inputs[0]
        known = node.graph.slopes
        if (node, 0) not in known:
            known[node, 0] = slope(kept(node, node), x, **node.attrs)
        return known[node, 0]  # type: ignore[no-any-return]

    def forward(node: Node, t: Node) -> Node:
        product = times(t, slope_of(node))
        assert product is not None
        return ops.reshape(ops.sum(product, axis=axes(node)), shape=node.shape)

    def reverse(node: Node, g: Node) -> Node | None:
        cotangent = times(kept(node, g), conj(slope_of(node)))
        return cotangent and ops.broadcast_to(cotangent, shape=node.inputs[0].shape)

    return Custom(forward, reverse)
