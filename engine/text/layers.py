"""Boxes and arrows on a plane: layer by layer, arrows pointing down (Sugiyama, Tagawa and Toda, 1981).

A box stands a layer below the lowest of what it needs. An arrow over several layers gets a point in each, unless it is
very long. Within a layer, boxes and points are put in the order of the means of their neighbours, which leaves few
crossings; then each goes as near to its neighbours as the others let it: of all places in that order, those with the
least squares of distances (by pooling neighbours that would overlap: Ayer et al., 1955).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

GAP_X, GAP_Y = 24.0, 40.0
MOST_LAYERS = 30
"""Layers that an arrow goes through with a point in each."""
MOST_POINTS = 10_000
"""Points in all; the longer arrows go without."""
SWEEPS = 6


class Place(NamedTuple):
    """The middle of a box or point, and its size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """Where boxes are, and which points each arrow goes through, ends included; the whole begins at (0, 0)."""

    boxes: Mapping[str, Place]
    arrows: Sequence[Sequence[Place]]
    width: float
    height: float


def laid_out(sizes: Mapping[str, tuple[float, float]], arrows: Sequence[tuple[str, str]]) -> Layout:
    """Places for boxes of these sizes. Arrows lead from boxes to later ones."""
    layers = _layers(list(sizes), arrows)
    items, chains = _threaded(layers, arrows)
    graph = _Graph(items, chains, {name: width for name, (width, _) in sizes.items()})
    graph.sort()
    across = graph.placed()
    left = min((across[each] - graph.width(each) / 2 for each in across), default=0.0)
    places: dict[Item, Place] = {}
    top = 0.0
    for row in graph.rows:
        height = max((sizes[each][1] for each in row if isinstance(each, str)), default=0.0)
        for each in row:
            own = sizes[each][1] if isinstance(each, str) else 0.0
            places[each] = Place(across[each] - left, top + height / 2, graph.width(each), own)
        top += height + GAP_Y
    return Layout(
        boxes={name: places[name] for name in sizes},
        arrows=[[places[each] for each in chain] for chain in chains],
        width=max((each.x + each.width / 2 for each in places.values()), default=0.0),
        height=max(top - GAP_Y, 0.0),
    )


Item = str | tuple[int, int]
"""A box by its name, or a point of an arrow, by the arrow's number and the layer."""


def _layers(names: Sequence[str], arrows: Sequence[tuple[str, str]]) -> dict[Item, int]:
    """The layer of each box. What needs nothing stands just above what needs it first."""
    into, out = defaultdict(list), defaultdict(list)
    for start, end in arrows:
        into[end].append(start)
        out[start].append(end)
    layers: dict[Item, int] = {}
    for name in names:
        layers[name] = 1 + max((layers[each] for each in into[name]), default=-1)
    for name in names:
        if not into[name] and out[name]:
            layers[name] = min(layers[each] for each in out[name]) - 1
    return layers


def _threaded(
    layers: Mapping[Item, int], arrows: Sequence[tuple[str, str]]
) -> tuple[dict[Item, int], list[list[Item]]]:
    """All items with their layers, and for each arrow the items that it goes through."""
    items = {**layers}
    spans = [layers[end] - layers[start] for start, end in arrows]
    room, has_points = MOST_POINTS, set()
    for number in sorted(range(len(arrows)), key=spans.__getitem__):
        room -= spans[number] - 1
        if spans[number] > MOST_LAYERS or room < 0:
            break
        has_points.add(number)
    chains: list[list[Item]] = []
    for number, (start, end) in enumerate(arrows):
        between = range(layers[start] + 1, layers[end]) if number in has_points else ()
        points: list[Item] = [(number, layer) for layer in between]
        items |= zip(points, between, strict=True)
        chains.append([start, *points, end])
    return items, chains


class _Graph:
    """Items in rows, and their neighbours in the rows above and below."""

    def __init__(
        self, items: Mapping[Item, int], chains: Sequence[Sequence[Item]], widths: Mapping[str, float]
    ) -> None:
        self.widths = widths
        self.rows: list[list[Item]] = [[] for _ in range(1 + max(items.values(), default=-1))]
        for item, layer in items.items():
            self.rows[layer].append(item)
        self.above: dict[Item, list[Item]] = defaultdict(list)
        self.below: dict[Item, list[Item]] = defaultdict(list)
        for chain in chains:
            for upper, lower in pairwise(chain):
                self.above[lower].append(upper)
                self.below[upper].append(lower)

    def width(self, item: Item) -> float:
        return self.widths[item] if isinstance(item, str) else 0.0

    def sweeps(self) -> Iterator[tuple[list[Item], Mapping[Item, Sequence[Item]]]]:
        """Rows from the top with what is above, then from the bottom with what is below, some times over."""
        for _ in range(SWEEPS):
            yield from ((row, self.above) for row in self.rows)
            yield from ((row, self.below) for row in reversed(self.rows))

    def sort(self) -> None:
        """Bring every row into the order of the means of its items' neighbours."""
        places = {item: at / len(row) for row in self.rows for at, item in enumerate(row)}
        for row, neighbours in self.sweeps():
            row.sort(key=lambda item: _mean([places[each] for each in neighbours[item]], places[item]))
            places |= {item: at / len(row) for at, item in enumerate(row)}

    def placed(self) -> dict[Item, float]:
        """The middle of every item, across."""
        across: dict[Item, float] = {}
        for row in self.rows:
            across |= zip(row, self._offsets(row), strict=True)
        for row, neighbours in self.sweeps():
            offsets = self._offsets(row)
            wanted = [_mean([across[each] for each in neighbours[item]], across[item]) for item in row]
            moved = _ascending([want - offset for want, offset in zip(wanted, offsets, strict=True)])
            across |= zip(row, (move + offset for move, offset in zip(moved, offsets, strict=True)), strict=True)
        return across

    def _offsets(self, row: Sequence[Item]) -> list[float]:
        """Middles of a row that stands as closely as it may."""
        found, edge = [], 0.0
        for item in row:
            found.append(edge + self.width(item) / 2)
            edge += self.width(item) + GAP_X
        return found


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _ascending(values: Sequence[float]) -> list[float]:
    """The ascending numbers that are nearest to `values` in the least squares."""
    pools: list[tuple[float, int]] = []
    for value in values:
        total, count = value, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            total, count = total + pools[-1][0], count + pools.pop()[1]
        pools.append((total, count))
    return [total / count for total, count in pools for _ in range(count)]
