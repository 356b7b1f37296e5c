"""Taylor mode: coefficients c_k of f(x + t·v) = Σ c_k t^k, in polynomial work, with no rule of its own per op.

Two facts carry it.

- Ops that are linear or bilinear act on series at once: coefficient by coefficient, and by the Cauchy product.
- For every other op z, the coefficient z_1 is the op's tangent, an ordinary node of the graph; as x moves along t that
  node *is* dz/dt, so its own series gives all the others: z_k = (z_1)_(k−1) / k. The partials in it may use z itself
  (tanh: 1 − z·z): order k of z asks only for lower orders. (Griewank & Walther, Evaluating Derivatives, chapter 13.)

Interning makes the nodes few, and a chain of partials (lgamma, digamma, polygamma) is asked for one order less at
each link, so it ends. Coefficients are true ones (no factorials). Each is computed by a generator on an explicit
stack, so that depth is no matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.core import RESULT, Node
from engine.derivative import Series
from engine.transforms.forward import tangent_of
from engine.transforms.paths import passes

Coefficient = Any
"""A node, None for zero, or a tuple of these for a node with several results."""


def taylor(
    direction: Mapping[Node, Node], outputs: Sequence[Node], order: int | Sequence[int]
) -> list[list[Node | None]]:
    """c_0 to c_order of each output along `direction` (node → tangent); `order` may be one for each. None is a zero."""
    found = series_along({node: [t] for node, t in direction.items()}, outputs, order)
    return [[node, *series] for node, series in zip(outputs, found, strict=True)]


def series_along(
    curve: Mapping[Node, Sequence[Node]], outputs: Sequence[Node], order: int | Sequence[int]
) -> list[list[Node | None]]:
    """c_1 to c_order of each output where nodes move along a curve: node → its own c_1, c_2, …; the rest are zero."""
    jet = _Jet(curve)
    orders = [order] * len(outputs) if isinstance(order, int) else order
    for k in range(1, max(orders, default=0) + 1):
        for node, most in zip(outputs, orders, strict=True):
            if k <= most:
                jet.settle(node, k)
    pairs = zip(outputs, orders, strict=True)
    return [[jet.known[node, k] for k in range(1, most + 1)] for node, most in pairs]


class _Jet:
    """The series of the nodes of one graph along one curve, as far as they were asked for."""

    def __init__(self, curve: Mapping[Node, Sequence[Node]]) -> None:
        self.curve = curve
        self.known: dict[tuple[Node, int], Coefficient] = {}
        self._moving = bytearray()
        # The tangent of what moves along a curve moves as well: its series is that of the velocity.
        self._velocity_of = {series[0]: node for node, series in curve.items() if len(series) > 1}

    def settle(self, node: Node, order: int) -> None:
        """Compute one coefficient, and on the way all that it asks for."""
        stack: list[tuple[Node, int, Series]] = []
        if (node, order) not in self.known:
            stack.append((node, order, self._series(node, order)))
        answer: Coefficient = None
        while stack:
            top, k, series = stack[-1]
            top.graph.origin = top.origin
            try:
                asked, j = series.send(answer)
            except StopIteration as done:
                self.known[top, k] = answer = done.value
                stack.pop()
                continue
            answer = None
            if j == 0:
                answer = asked
            elif (asked, j) in self.known:
                answer = self.known[asked, j]
            elif self._moves(asked):
                stack.append((asked, j, self._series(asked, j)))

    def _moves(self, node: Node) -> bool:
        """Whether `node` depends on t; settled for all nodes up to it, since inputs stand before."""
        for index in range(len(self._moving), node.index + 1):
            each = node.graph.nodes[index]
            depends = passes(each) and any(self._moving[x.index] for x in each.inputs)
            self._moving.append(depends or each in self.curve or each in self._velocity_of)
        return bool(self._moving[node.index])

    def _series(self, node: Node, k: int) -> Series:
        """Asks for what coefficient k of `node` needs, and returns it."""
        if node in self.curve:
            given = self.curve[node]
            return given[k - 1] if k <= len(given) else None
        if not self._moves(node):
            return None
        primal = self._velocity_of.get(node)
        if primal is not None:
            following = yield primal, k + 1
            return following and following * (k + 1)
        if k == 1:
            return (yield from self._first(node))
        if node.op is RESULT:
            several = yield node.inputs[0], k
            return several and several[node.attrs["index"]]
        assert node.op.derivative is not None
        direct = node.op.derivative.taylor(node, k)
        if direct is not None:
            return (yield from direct)
        return (yield from self._by_velocity(node, k))

    def _first(self, node: Node) -> Series:
        """z_1, the op's tangent."""
        tangents = []
        for x in node.inputs:
            tangents.append((yield x, 1))
        before = len(node.graph)
        first = tangent_of(node, tangents)
        # A linear or bilinear node has its series at hand: that of its velocity, a node of its own, follows from it.
        if isinstance(first, Node) and first.index >= before and _is_direct(node):
            self._velocity_of[first] = node
        return first

    def _by_velocity(self, node: Node, k: int) -> Series:
        """z_k = (z_1)_(k−1) / k."""
        first = yield node, 1
        if not isinstance(first, tuple):
            slope = first and (yield first, k - 1)
            return slope and slope / k
        parts = []
        for each in first:
            slope = each and (yield each, k - 1)
            parts.append(slope and slope / k)
        return tuple(parts)


def _is_direct(node: Node) -> bool:
    return node.op.derivative is not None and node.op.derivative.taylor(node, 1) is not None
