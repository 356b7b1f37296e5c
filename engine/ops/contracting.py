"""einsum, and the algebra that it and the named products are written in: products of labelled tensors.

Labels say which axes meet. `contracted` lowers such a product to diagonals, sums and pairwise products, each of
them an elementwise product or a matmul.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

from engine import attrs
from engine.core import Node, Operand, Refusal, Sample, cast, ops
from engine.errors import InvalidGraph, LimitExceeded, ShapeMismatch
from engine.families import composite
from engine.limits import Limits

Labels = tuple[Hashable, ...]


class Term(NamedTuple):
    """A tensor with a label for each of its axes; axes with one label meet."""

    x: Node
    labels: Labels

    def with_axes(self, labels: Iterable[Hashable]) -> Term:
        """The same with its axes in this order."""
        order = tuple(labels)
        return Term(ops.permute_dims(self.x, axes=tuple(self.labels.index(each) for each in order)), order)


def contracted(terms: Sequence[Term], out: Labels) -> Node:
    """Σ over all labels not in `out` of the product of `terms`, with the axes of `out`, all different.

    An axis of size 1 stretches to the size of its namesakes. Raises ShapeMismatch where sizes differ else.
    """
    sizes = _sizes(terms)
    kept = tuple(label for label in out if sizes[label] != 1)
    rest = [_without_ones(_on_diagonals(term)) for term in terms]
    rest = [_summed(term, kept, rest[:at] + rest[at + 1 :]) for at, term in enumerate(rest)]
    for one, other in _order(rest, kept):
        a, b = rest[one], rest[other]
        others = _others(rest, (a, b))
        rest = [*others, _paired(a, b, _union(others, kept), kept)]
    return ops.reshape(rest[0].with_axes(kept).x, shape=tuple(sizes[label] for label in out))


def _sizes(terms: Sequence[Term]) -> dict[Hashable, int]:
    """The size of each label."""
    sizes: dict[Hashable, int] = {}
    for at, term in enumerate(terms):
        own: dict[Hashable, int] = {}
        for label, size in zip(term.labels, term.x.shape, strict=True):
            known = own.setdefault(label, size)
            if size != known:
                raise ShapeMismatch(f"axis {label!r} is both {known} and {size} long in operand {at}")
        for label, size in own.items():
            known = sizes.get(label, 1)
            if 1 not in (known, size) and known != size:
                raise ShapeMismatch(f"axis {label!r} is {size} long in operand {at}, but {known} before")
            sizes[label] = size if known == 1 else known
    return sizes


def _on_diagonals(term: Term) -> Term:
    """`term` with each label once: axes with one label become their diagonal."""
    for label, count in Counter(term.labels).items():
        for _ in range(count - 1):
            one, two = [at for at, each in enumerate(term.labels) if each == label][:2]
            rest = [at for at in range(term.x.rank) if at not in (one, two)]
            x = ops.diagonal(ops.permute_dims(term.x, axes=(*rest, one, two)))
            term = Term(x, (*(term.labels[at] for at in rest), label))
    return term


def _without_ones(term: Term) -> Term:
    """`term` without axes of size one: they change no product, and broadcast of themselves."""
    long = tuple(label for label, size in zip(term.labels, term.x.shape, strict=True) if size != 1)
    return Term(ops.reshape(term.x, shape=tuple(size for size in term.x.shape if size != 1)), long)


def _summed(term: Term, kept: Labels, others: Sequence[Term]) -> Term:
    """`term` summed over the labels that nothing else asks for."""
    needed = _union(others, kept)
    gone = tuple(at for at, label in enumerate(term.labels) if label not in needed)
    if not gone:
        return term
    # sum widens small integers, which a product of tensors does not.
    total = cast(ops.sum(term.x, axis=gone), term.x.dtype)
    return Term(total, tuple(label for label in term.labels if label in needed))


def _union(terms: Iterable[Term], kept: Labels) -> set[Hashable]:
    return set(kept).union(*(term.labels for term in terms))


def _others(terms: Sequence[Term], pair: Sequence[Term]) -> list[Term]:
    return [term for term in terms if all(term is not each for each in pair)]


# In which order: groups of terms are sets of bits, and so are labels.

MOST_EXACTLY = 8
"""Terms up to which the cheapest order is found; 3ⁿ pairs of groups are looked at for it."""


def _order(terms: Sequence[Term], kept: Labels) -> Iterator[tuple[int, int]]:
    """Which two of the terms that are left to contract, each time; what that makes comes last among them."""
    if len(terms) <= 2:
        yield from [(0, 1)] * (len(terms) - 1)
        return
    costs = _Costs(terms, kept)
    splits = _best_splits(costs) if len(terms) <= MOST_EXACTLY else _greedy_splits(costs)
    left = [1 << at for at in range(len(terms))]
    for whole in sorted(splits, key=int.bit_count):
        pair = splits[whole]
        yield left.index(pair[0]), left.index(pair[1])
        left = [each for each in left if each not in pair] + [whole]


class _Costs:
    """What contracting two groups of terms costs, once each is one term."""

    def __init__(self, terms: Sequence[Term], kept: Labels) -> None:
        sizes = {label: size for term in terms for label, size in zip(term.labels, term.x.shape, strict=True)}
        bits = {label: 1 << at for at, label in enumerate(sizes)}
        self.count = len(terms)
        self._sizes = list(sizes.values())
        self._known: dict[int, int] = {}
        self._inside = [0]
        for term in terms:
            own = sum(bits[label] for label in set(term.labels))
            self._inside += [each | own for each in self._inside]
        self._kept = sum(bits[label] for label in kept)

    def left(self, group: int) -> int:
        """The labels of a group that the result or another term asks for."""
        others = self._inside[len(self._inside) - 1 ^ group]
        return self._inside[group] & (self._kept | others)

    def of(self, one: int, other: int) -> int:
        """Multiplications."""
        return self.elements(self.left(one) | self.left(other))

    def elements(self, labels: int) -> int:
        if labels not in self._known:
            self._known[labels] = math.prod(size for at, size in enumerate(self._sizes) if labels >> at & 1)
        return self._known[labels]


def _best_splits(costs: _Costs) -> dict[int, tuple[int, int]]:
    """For each group on the way to all terms, the two that it is made of: the cheapest, of all ways to part it."""
    least: dict[int, int] = {1 << at: 0 for at in range(costs.count)}
    parted: dict[int, tuple[int, int]] = {}
    whole = (1 << costs.count) - 1
    for group in range(1, whole + 1):
        for one, other in _partings(group):
            cost = least[one] + least[other] + costs.of(one, other)
            if group not in least or cost < least[group]:
                least[group], parted[group] = cost, (one, other)
    return _reached(whole, parted)


def _partings(group: int) -> Iterator[tuple[int, int]]:
    """Every way to part a group in two, the one with the first term first."""
    first = group & -group
    rest = group ^ first
    others = rest
    while others:
        yield group ^ others, others
        others = (others - 1) & rest


def _reached(whole: int, parted: dict[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """Of all partings, those that the whole is made by."""
    used: dict[int, tuple[int, int]] = {}
    waiting = [whole]
    while waiting:
        group = waiting.pop()
        if group in parted:
            used[group] = parted[group]
            waiting += parted[group]
    return used


def _greedy_splits(costs: _Costs) -> dict[int, tuple[int, int]]:
    """The same by always taking the pair that adds least to the elements held (Smith and Gray, opt_einsum, 2018)."""
    left = [1 << at for at in range(costs.count)]
    used: dict[int, tuple[int, int]] = {}

    def growth(pair: tuple[int, int]) -> tuple[int, int]:
        one, other = pair
        held = costs.elements(costs.left(one)) + costs.elements(costs.left(other))
        return costs.elements(costs.left(one | other)) - held, costs.of(one, other)

    while len(left) > 1:
        pair = min(itertools.combinations(left, 2), key=growth)
        left = [each for each in left if each not in pair] + [pair[0] | pair[1]]
        used[pair[0] | pair[1]] = pair
    return used


# Pairs


def _paired(a: Term, b: Term, needed: set[Hashable], kept: Labels) -> Term:
    """The product of two terms, summed over the labels they share that nothing else asks for."""
    shared = [label for label in a.labels if label in b.labels]
    inner = [label for label in shared if label not in needed]
    if not inner:
        return _stretched(a, b, kept)
    both = [label for label in shared if label in needed]
    left, right = ([label for label in term.labels if label not in shared] for term in (a, b))
    if left and right and left[0] in kept and right[0] in kept and kept.index(right[0]) < kept.index(left[0]):
        a, b, left, right = b, a, right, left
    rows, columns = _as_stack(a, both, left, inner), _as_stack(b, both, inner, right)
    sizes = dict(zip(a.labels + b.labels, a.x.shape + b.x.shape, strict=True))
    labels = (*both, *left, *right)
    return Term(ops.reshape(ops.matmul(rows, columns), shape=tuple(sizes[each] for each in labels)), labels)


def _as_stack(term: Term, stacked: list[Hashable], *groups: list[Hashable]) -> Node:
    """The tensor as matrices whose axes are two groups of labels; a vector, where one would be empty."""
    x, labels = term.with_axes((*stacked, *groups[0], *groups[1]))
    sizes = dict(zip(labels, x.shape, strict=True))
    flat = [math.prod(sizes[each] for each in group) for group in groups if group or stacked]
    return ops.reshape(x, shape=(*(sizes[each] for each in stacked), *flat))


def _stretched(a: Term, b: Term, kept: Labels) -> Term:
    """The product of two terms that share no label to sum over, in the order of `kept` as far as it goes."""
    labels = tuple(dict.fromkeys((*kept, *a.labels, *b.labels)))
    labels = tuple(label for label in labels if label in a.labels or label in b.labels)
    return Term(_aligned(a, labels) * _aligned(b, labels), labels)


def _aligned(term: Term, labels: Labels) -> Node:
    """The tensor with an axis for each of `labels`, of size 1 where it has none."""
    x, own = term.with_axes(label for label in labels if label in term.labels)
    sizes = dict(zip(own, x.shape, strict=True))
    first = next((at for at, label in enumerate(labels) if label in sizes), len(labels))
    return ops.reshape(x, shape=tuple(sizes.get(label, 1) for label in labels[first:]))


# einsum

_PART = re.compile(r"[A-Za-z]*(\.\.\.[A-Za-z]*)?")


def _read_equation(equation: str) -> tuple[list[str], str | None]:
    """The terms of the operands, and that of the result where it is given. Raises InvalidGraph."""
    inputs, arrow, output = "".join(equation.split()).partition("->")
    terms = inputs.split(",")
    for term in (*terms, output):
        if not _PART.fullmatch(term):
            stray = re.sub(r"[A-Za-z]", "", term.replace("...", "", 1))
            raise _malformed(
                equation,
                f"{stray[:10]!r} is in the way in {term[:30]!r}; a term is letters and at most one '...'",
            )
    if not arrow:
        return terms, None
    letters = output.replace("...", "")
    twice = next((letter for letter in letters if letters.count(letter) > 1), None)
    if twice:
        raise _malformed(equation, f"the result names {twice!r} twice")
    alien = next((letter for letter in letters if letter not in inputs), None)
    if alien:
        raise _malformed(equation, f"the result names {alien!r}, which no operand does")
    return terms, output


def _malformed(equation: str, reason: str) -> InvalidGraph:
    return InvalidGraph(f"einsum equation {equation[:60]!r}: {reason}", pointer="/attrs/equation")


def _labels(term: str, unnamed: int) -> Labels:
    """A label for each axis; the `unnamed` ones under the ellipsis are labelled by distance from its end."""
    head, _, tail = term.partition("...")
    return (*head, *(f"...{distance}" for distance in range(unnamed, 0, -1)), *tail)


def _unnamed(term: str, rank: int, at: int) -> int:
    """How many axes the ellipsis of a term stands for. Raises ShapeMismatch."""
    named = len(term.replace("...", ""))
    if named > rank or (named < rank and "..." not in term):
        raise ShapeMismatch(f"operand {at} of einsum has {rank} axes, but {term[:60]!r} names {named}")
    return rank - named


def _einsum(*operands: Node, equation: str) -> Node:
    terms, output = _read_equation(equation)
    if len(terms) != len(operands):
        raise _malformed(equation, f"it has {len(terms)} terms for {len(operands)} operands")
    unnamed = [_unnamed(term, x.rank, at) for at, (term, x) in enumerate(zip(terms, operands, strict=True))]
    if output is None:
        count = Counter("".join(terms).replace(".", ""))
        output = "..." + "".join(sorted(letter for letter in count if count[letter] == 1))
    stretch = max(unnamed) if "..." in output else 0
    named = map(_labels, terms, unnamed)
    labelled = [Term(x, labels) for x, labels in zip(operands, named, strict=True)]
    return contracted(labelled, _labels(output, stretch))


def _few_operands(limits: Limits, *operands: Node, equation: str) -> None:
    if len(operands) > limits.einsum_operands:
        raise LimitExceeded("einsum_operands", limits.einsum_operands, len(operands), "operands of einsum")


einsum = composite(
    "einsum",
    "Product of tensors whose axes are named by letters, summed over letters that the result does not name. "
    "A letter twice in a term is a diagonal; '...' stands for axes that broadcast. "
    "Without '->' the result has the letters that occur once, in alphabetical order.",
    _einsum,
    operands=(Operand("operands", "iufc", variadic=True),),
    attrs={"equation": attrs.text("A term of letters for each operand, and for the result: 'ij,jk->ik'.")},
    order=("equation", "operands"),
    guard=_few_operands,
    family="products",
    samples=(
        Sample(((2, 3), (3, 4)), {"equation": "ij,jk->ik"}),
        Sample(((2, 3), (3, 4)), {"equation": "ij, jk"}),
        Sample(((3, 3),), {"equation": "ii"}),
        Sample(((3, 3, 2, 3),), {"equation": "iiki->ki"}),
        Sample(((2, 3),), {"equation": "ij->ji"}),
        Sample(((2, 3),), {"equation": "ij->j"}),
        Sample(((3,), (4,)), {"equation": "i,j->ji"}),
        Sample(((5, 2, 3), (5, 3, 4)), {"equation": "bij,bjk->bki"}),
        Sample(((5, 1, 2, 3), (4, 3, 2)), {"equation": "...ij,...jk->...ik"}),
        Sample(((5, 2, 3), (3,)), {"equation": "...j,j->"}),
        Sample(((2, 3), (3, 4), (4, 2), (2,)), {"equation": "ij,jk,ki,i->"}),
        Sample(((3,), (3,), (3,)), {"equation": "i,i,i->i"}),
        Sample(((2, 1), (3, 4)), {"equation": "ij,jk->ik"}),
        Sample(((2, 0), (0, 3)), {"equation": "ij,jk->ik"}),
    ),
    refusals=(
        Refusal(((2, 3),), {"equation": "i$->i"}, "invalid_graph"),
        Refusal(((2, 3),), {"equation": "ij->i->j"}, "invalid_graph"),
        Refusal(((2, 3),), {"equation": "ij->ii"}, "invalid_graph"),
        Refusal(((2, 3),), {"equation": "ij->k"}, "invalid_graph"),
        Refusal(((2, 3),), {"equation": "...i...->i"}, "invalid_graph"),
        Refusal(((2, 3),), {"equation": "ij,jk->ik"}, "invalid_graph"),
        Refusal(((2, 3),), {"equation": "ijk->i"}, "shape_mismatch"),
        Refusal(((2, 3),), {"equation": "ii->i"}, "shape_mismatch"),
        Refusal(((2, 3), (2, 4)), {"equation": "ij,jk->ik"}, "shape_mismatch"),
        Refusal(((2,),) * 9, {"equation": "a,b,c,d,e,f,g,h,i->"}, "limit_exceeded"),
    ),
    example='einsum("ij,jk->ik", x, y)',
)
