"""Colours for compression: what has one colour comes in one product, so there are as many products as colours.

`column_colours` is for a matrix of which products with vectors are had: columns that meet in a row get different
colours, so in the sum of the columns of one colour every nonzero has a place of its own (Curtis, Powell & Reid 1974).
`star_colours` is for a symmetric matrix, which needs fewer: an entry may stand alone in one of its two places only
(Gebremedhin, Manne & Pothen, SIAM Review 47, 2005, section 4). `vertex_colours` tells only the diagonal apart.

All are greedy: each in turn gets the least colour that is free. A set of colours is an integer with a bit for each, so
that a union is one operation, whatever it holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from engine.types import Array, Tick

Pattern: TypeAlias = Any
"""A scipy.sparse.csr_array of booleans, all of them true; its indices are sorted."""

TICK_ENTRIES = 1 << 16
"""Entries of a pattern between two looks at the clock."""


def column_colours(pattern: Pattern, tick: Tick | None = None) -> Array:
    """A colour for each column, none twice in a row; -1 for an empty column."""
    columns = pattern.T.tocsr()
    used = np.diff(columns.indptr) > 0
    least = int(np.diff(pattern.indptr).max(initial=0))
    if least == np.count_nonzero(used):  # they all meet in one row
        return np.where(used, np.cumsum(used) - 1, -1)
    rows_of = _lists(columns)
    found = _columns_in(_paced(range(len(rows_of)), rows_of, tick), rows_of, pattern.shape[0])
    if found.max(initial=-1) + 1 > least:
        other = _columns_in(_paced(_largest_first(rows_of), rows_of, tick), rows_of, pattern.shape[0])
        found = min(found, other, key=lambda colours: int(colours.max(initial=-1)))
    return found


def _columns_in(order: Iterable[int], rows_of: Sequence[list[int]], rows: int) -> Array:
    """The greedy colours of columns in this order: of each row it is known which colours it has."""
    taken = [0] * rows
    colours = np.full(len(rows_of), -1)
    for column in order:
        if not rows_of[column]:
            continue
        forbidden = 0
        for row in rows_of[column]:
            forbidden |= taken[row]
        bit = _free(forbidden)
        for row in rows_of[column]:
            taken[row] |= bit
        colours[column] = bit.bit_length() - 1
    return colours


def vertex_colours(pattern: Pattern, tick: Tick | None = None) -> Array:
    """A colour for each vertex of a symmetric pattern, other than those of its neighbours."""
    near = _neighbours(pattern)
    own = [0] * len(near)
    for vertex in _paced(_largest_first(near), near, tick):
        own[vertex] = _free(_union(own, near[vertex]))
    return _numbers(own)


def star_colours(pattern: Pattern, tick: Tick | None = None) -> Array:
    """A colour for each vertex of a symmetric pattern: neighbours differ, and so do the ends of no path v-w-x-y of two.

    Largest degree first: a hub that comes late would force all around it apart.
    """
    near = _neighbours(pattern)
    own = [0] * len(near)  # its colour, as a bit
    seen = [0] * len(near)  # colours of its neighbours
    twice = [0] * len(near)  # those which two of its neighbours have
    closed = [0] * len(near)  # colours of neighbours that have another neighbour of this vertex's colour
    for v in _paced(_largest_first(near), near, tick):
        forbidden = 0
        for w in near[v]:
            # Through a neighbour without a colour, none may be repeated: which it will get is not known.
            forbidden |= own[w] | closed[w] if own[w] else seen[w]
        bit = own[v] = _free(forbidden)
        for w in near[v]:
            if seen[w] & bit and own[w]:
                closed[v] |= own[w]
                if not twice[w] & bit:
                    twice[w] |= bit
                    first = next(u for u in near[w] if u != v and own[u] == bit)
                    closed[first] |= own[w]
            seen[w] |= bit
    return _numbers(own)


def _neighbours(pattern: Pattern) -> list[list[int]]:
    return [[at for at in row if at != vertex] for vertex, row in enumerate(_lists(pattern))]


def _lists(pattern: Pattern) -> list[list[int]]:
    starts, indices = pattern.indptr.tolist(), pattern.indices.tolist()
    return [indices[start:stop] for start, stop in itertools.pairwise(starts)]


def _largest_first(near: Sequence[list[int]]) -> list[int]:
    return sorted(range(len(near)), key=lambda vertex: -len(near[vertex]))


def _paced(order: Iterable[int], near: Sequence[list[int]], tick: Tick | None) -> Iterator[int]:
    """The same, with a look at the clock now and then."""
    passed = 0
    for each in order:
        passed += len(near[each])
        if tick is not None and passed >= TICK_ENTRIES:
            tick()
            passed = 0
        yield each


def _union(colours: Sequence[int], members: Iterable[int]) -> int:
    found = 0
    for member in members:
        found |= colours[member]
    return found


def _free(taken: int) -> int:
    """The least bit that is not taken."""
    return ~taken & (taken + 1)


def _numbers(bits: Sequence[int]) -> Array:
    return np.array([bit.bit_length() - 1 for bit in bits], dtype=np.int64)
