"""Beyond the matrix: its diagonal alone, and tensors of order three and four.

The diagonal of a Hessian, and its sum, the Laplacian, come without the Hessian: the second Taylor coefficient along a
unit vector is half an element of it. Where the Hessian is known to be sparse, there is a shorter way: in its product
with the sum of unit vectors that are no neighbours, each element of the diagonal stands in a place of its own.

A tensor of order k is forward mode over forward mode, by as many probes, with a row for every choice of k unit vectors
whatever their order: derivatives commute, so about n^k / k! rows are all there is to it. Where the output has fewer
elements than the wrt, the last of the k is had by reverse mode, and there is one probe less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from engine.basis import Cutting, at_basis, at_unit_vectors
from engine.colouring import vertex_colours
from engine.compressed import images_of, is_symmetric, symmetric_pattern, taken
from engine.core import Node, ops
from engine.derivative import filled, ones, or_zero
from engine.errors import LimitExceeded
from engine.jacobians import Nodes, jacobian, probe
from engine.sparsity import members
from engine.transforms.forward import forward
from engine.transforms.reverse import reverse
from engine.transforms.taylor import taylor
from engine.types import Array, Shape, Spec

FEW = 16
"""Elements up to which no structure is looked for."""
NEIGHBOURS = 64
"""Nonzeros in a row of the Hessian, about, up to which it counts as sparse."""


def second_derivatives(output: Node, wrt: Nodes, cutting: Cutting) -> dict[str, Node]:
    """∂²output/∂x_i² for each element of each x, in shape output + x."""
    short = _by_colours(output, wrt, cutting) if output.size == 1 else None
    return short or {name: _by_axes(output, x, cutting) for name, x in wrt.items()}


def _by_axes(output: Node, x: Node, cutting: Cutting) -> Node:
    """By Taylor mode along every axis of x."""
    t = probe(x)
    ((_, _, second),) = taylor({x: t}, [output], 2)
    if second is None:
        return filled(x.graph, 0, Spec((*output.shape, *x.shape), output.dtype))
    (rows,) = at_unit_vectors(t, [second * 2.0], cutting, linear=False)
    return output_first(rows, [x], output)


def output_first(rows: Node, wrt: Sequence[Node], output: Node) -> Node:
    """Rows for all elements of some wrts in shape output + those wrts (+ what else a row has)."""
    lead = tuple(size for x in wrt for size in x.shape)
    block = ops.reshape(rows, shape=(*lead, *rows.shape[1:]))
    middle = len(lead) + output.rank
    return ops.permute_dims(block, axes=(*range(len(lead), middle), *range(len(lead)), *range(middle, block.rank)))


def _by_colours(output: Node, wrt: Nodes, cutting: Cutting) -> dict[str, Node] | None:
    """By a few products with the Hessian; None where it is not sparse, or not small enough to find out."""
    nodes = list(wrt.values())
    count = sum(x.size for x in nodes)
    if count <= FEW:
        return None
    found = reverse([(output, ones(output))], nodes)
    gradients = [or_zero(g, x) for g, x in zip(found, nodes, strict=True)]
    if not is_symmetric(nodes, gradients):
        return None
    try:
        pattern = symmetric_pattern(nodes, gradients, NEIGHBOURS * count)
        colours = vertex_colours(pattern, nodes[0].graph.tick)
    except LimitExceeded:
        return None
    if 2 * (int(colours.max()) + 1) > count:
        return None
    images = images_of(nodes, colours, lambda moving: forward(moving, gradients), gradients, cutting)
    diagonals = {}
    for (name, x), place in zip(wrt.items(), members(nodes), strict=True):
        own = taken(images, count, colours[place], np.arange(place.start, place.stop))
        diagonals[name] = ops.astype(ops.reshape(own, shape=(*output.shape, *x.shape)), dtype=output.dtype.name)
    return diagonals


def derivative_by(output: Node, path: Sequence[Node], cutting: Cutting) -> Node:
    """The derivative by each of `path` in turn, in shape output + all of their shapes."""
    base, moved = output, list(path)
    if output.size < path[-1].size:
        base, moved = jacobian({"y": output}, {"x": path[-1]}, "auto", cutting)["y"]["x"], moved[:-1]
    probes = [x.graph.input(f"probe/{x.index}/{at}", x.spec) for at, x in enumerate(moved)]
    image = _along(base, moved, probes)
    if image is None or not moved:
        return image or filled(output.graph, 0, Spec(_shape(output, path), output.dtype))
    in_any_order = len(set(path)) == 1
    chosen, numbers = _choices([x.size for x in moved], in_any_order)

    def seeds(rows: range) -> Mapping[Node, Node]:
        return {t: _unit_vectors(t, each[rows.start : rows.stop]) for t, each in zip(probes, chosen, strict=True)}

    (rows,) = at_basis(probes, seeds, len(numbers), [image], cutting)
    if in_any_order:
        return _repeated(rows, numbers, output, path, len(moved))
    return output_first(rows, moved, output)


def _along(node: Node, path: Sequence[Node], probes: Sequence[Node]) -> Node | None:
    """The derivative along one probe of each wrt in turn; None is zero."""
    image: Node | None = node
    for x, t in zip(path, probes, strict=True):
        image = image and forward({x: t}, [image])[0]
    return image


def _shape(output: Node, path: Sequence[Node]) -> Shape:
    return (*output.shape, *(size for x in path for size in x.shape))


def check_size(output: Node, path: Sequence[Node]) -> None:
    """Refuse a derivative by each of `path` in turn that does not fit, with the places of its elements, before anything
    of its size is made."""
    limits, size = output.graph.limits, math.prod(_shape(output, path))
    if size > limits.elements:
        raise LimitExceeded("elements", limits.elements, size, "elements of the answer")
    held = size * max(output.dtype.itemsize, 16 * len(path))
    if held > limits.peak_bytes:
        raise LimitExceeded("peak_bytes", limits.peak_bytes, held, "bytes of the answer and of its places")


def _choices(sizes: Sequence[int], in_any_order: bool) -> tuple[Array, Array]:
    """Choices of an element of each, a column a choice, with their numbers among all; one for all its orders, if so."""
    every = np.indices(tuple(sizes)).reshape(len(sizes), math.prod(sizes))
    kept = (np.diff(every, axis=0) >= 0).all(axis=0) if in_any_order else np.ones(every.shape[1], bool)
    return every[:, kept], np.flatnonzero(kept)


def _unit_vectors(t: Node, chosen: Array) -> Node:
    """A row for each element chosen: the unit vector of that, in the shape of `t`."""
    own = t.graph.constant(chosen.reshape(-1, 1))
    rows = ops.equal(own, ops.arange.on(t.graph, start=t.size))
    return ops.reshape(ops.astype(rows, dtype=t.dtype.name), shape=(len(chosen), *t.shape))


def _repeated(rows: Node, numbers: Array, output: Node, path: Sequence[Node], probes: int) -> Node:
    """The whole tensor by one wrt, from a row for each choice of elements of it, which stands for all its orders."""
    size, order, width = path[0].size, len(path), math.prod(rows.shape[1:])
    every = np.sort(np.indices((size,) * order).reshape(order, size**order), axis=0)
    number = np.zeros(every.shape[1], np.int64)
    for each in every[:probes]:
        number = number * size + each
    own = np.arange(output.size).reshape(-1, 1) * (width // max(output.size, 1))
    within = own + every[-1] if probes < order else own
    at = output.graph.constant(np.searchsorted(numbers, number) * width + within)
    whole = ops.take(ops.reshape(rows, shape=(rows.size,)), at, axis=0)
    return ops.reshape(whole, shape=_shape(output, path))
