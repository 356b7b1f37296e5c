"""Derivatives with an axis more: Jacobians, in blocks of shape output + wrt, and what is made of them.

A block is had by columns (forward mode over a basis of the wrt) or by rows (reverse mode over a basis of the output).
One sweep over the basis of a wrt gives the blocks of all outputs, and one over an output those of all wrts; so outputs
and wrts that hang together are differentiated in one mode, the one that costs less: by the number of vectors where that
is clear, else by the operations that the emitted sweeps would take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from engine.basis import Cutting, at_unit_vectors
from engine.core import Node, ops
from engine.derivative import conj, filled
from engine.transforms.forward import forward
from engine.transforms.paths import between
from engine.transforms.reverse import reverse
from engine.types import Spec

Nodes: TypeAlias = Mapping[str, Node]
Blocks: TypeAlias = dict[tuple[str, str], Node]
"""∂output/∂wrt by the names of both."""

CLEAR = 4
"""So many times fewer vectors decide for a mode; one vector costs about as much in both."""


def jacobian(outputs: Nodes, wrt: Nodes, mode: str, cutting: Cutting) -> dict[str, dict[str, Node]]:
    """∂output/∂x in shape output + x. `mode` is forward (columns), reverse (rows) or auto."""
    blocks: Blocks = {}
    for those_outputs, those_wrt, way in by_kind(outputs, wrt, mode):
        for some_outputs, some_wrt in _connected(those_outputs, those_wrt):
            blocks |= _cheapest(some_outputs, some_wrt, way, cutting)
    return {
        name: {by: blocks[name, by] if (name, by) in blocks else _zero(node, x) for by, x in wrt.items()}
        for name, node in outputs.items()
    }


def by_kind(outputs: Nodes, wrt: Nodes, mode: str) -> Iterator[tuple[Nodes, Nodes, str]]:
    """Real and complex outputs with real and complex wrts, each with the mode that it can be had in.

    Of a real output by a complex wrt it is the gradient, which rows give; of a complex output by a real wrt columns
    give both parts.
    """
    for some_outputs in _split(outputs):
        for some_wrt in _split(wrt):
            kinds = [next(iter(nodes.values())).dtype.kind == "c" for nodes in (some_outputs, some_wrt)]
            yield some_outputs, some_wrt, mode if kinds[0] == kinds[1] else "forward" if kinds[0] else "reverse"


def _split(nodes: Nodes) -> list[Nodes]:
    """Real nodes and complex ones, where there are any."""
    kinds = [
        {name: node for name, node in nodes.items() if (node.dtype.kind == "c") is wanted} for wanted in (False, True)
    ]
    return [kind for kind in kinds if kind]


def _zero(output: Node, x: Node) -> Node:
    dtype = x.dtype if x.dtype.kind == "c" else output.dtype
    return filled(x.graph, 0, Spec((*output.shape, *x.shape), dtype))


def _connected(outputs: Nodes, wrt: Nodes) -> Iterator[tuple[Nodes, Nodes]]:
    """Outputs and wrts in groups that do not depend on one another; what depends on nothing is left out."""
    groups: list[tuple[set[str], set[str]]] = []
    for by, x in wrt.items():
        reached = set(between([x], list(outputs.values())))
        names, wrts = {name for name, node in outputs.items() if node in reached}, {by}
        for group in [each for each in groups if each[0] & names]:
            groups.remove(group)
            names, wrts = names | group[0], wrts | group[1]
        if names:
            groups.append((names, wrts))
    for names, wrts in groups:
        yield _chosen(outputs, names), _chosen(wrt, wrts)


def _chosen(nodes: Nodes, names: set[str]) -> dict[str, Node]:
    return {name: node for name, node in nodes.items() if name in names}


def _cheapest(outputs: Nodes, wrt: Nodes, mode: str, cutting: Cutting) -> Blocks:
    """The blocks in one mode; at a tie by rows, which lie in memory as they are answered."""
    columns, rows = (sum(node.size for node in each.values()) for each in (wrt, outputs))
    if mode == "forward" or (mode == "auto" and CLEAR * columns <= rows):
        return by_columns(outputs, wrt, cutting)
    if mode == "reverse" or CLEAR * rows <= columns:
        return by_rows(outputs, wrt, cutting)
    found = [by_rows(outputs, wrt, cutting), by_columns(outputs, wrt, cutting)]
    return min(found, key=lambda blocks: cost_of(list(blocks.values())))


def cost_of(nodes: Sequence[Node]) -> int:
    """Floating-point operations of a plan of these nodes."""
    return sum(node.flops for node in nodes[0].graph.live(nodes) if node.inputs)


def by_columns(outputs: Nodes, wrt: Nodes, cutting: Cutting) -> Blocks:
    """Every block, by a forward sweep over a basis of each wrt."""
    return {
        (name, by): block
        for by, x in wrt.items()
        for name, block in zip(outputs, _columns(list(outputs.values()), x, cutting), strict=True)
    }


def _columns(outputs: Sequence[Node], x: Node, cutting: Cutting) -> list[Node]:
    t = probe(x)
    found = _over_basis(t, forward({x: t}, outputs), outputs, cutting)
    return [ops.permute_dims(block, axes=(*range(x.rank, block.rank), *range(x.rank))) for block in found]


def by_rows(outputs: Nodes, wrt: Nodes, cutting: Cutting) -> Blocks:
    """Every block, by a reverse sweep over a basis of each output."""
    return {
        (name, by): block
        for name, output in outputs.items()
        for by, block in zip(wrt, _rows(output, list(wrt.values()), cutting), strict=True)
    }


def _rows(output: Node, wrt: Sequence[Node], cutting: Cutting) -> list[Node]:
    g = probe(output)
    return _over_basis(g, pulled_back({output: g}, wrt), wrt, cutting)


def pulled_back(cotangents: Mapping[Node, Node], wrt: Sequence[Node]) -> list[Node | None]:
    """Rows of Jacobians: as reverse mode has them, but for complex outputs, of which that gives the conjugates."""
    images = reverse(cotangents.items(), wrt)
    is_complex = any(output.dtype.kind == "c" for output in cotangents)
    return [image and conj(image) for image in images] if is_complex else images


def probe(node: Node) -> Node:
    """A leaf in the spec of `node` that a basis takes the place of; it never gets a tensor."""
    return node.graph.input(f"probe/{node.index}", node.spec)


def _over_basis(leaf: Node, images: Sequence[Node | None], partners: Sequence[Node], cutting: Cutting) -> list[Node]:
    """Images in the specs of `partners` at every unit vector of a probe, in shape probe + partner; None is zero."""
    there = [image for image in images if image is not None]
    rows = iter(at_unit_vectors(leaf, there, cutting))
    shapes = [(*leaf.shape, *node.shape) for node in partners]
    return [
        filled(leaf.graph, 0, Spec(shape, node.dtype)) if image is None else ops.reshape(next(rows), shape=shape)
        for image, node, shape in zip(images, partners, shapes, strict=True)
    ]
