"""Rows of text to rewrites: what a row means, and how it is matched.

    pattern => replacement  # meaning
        if condition, …

Patterns and replacements are written in the expression language, with names in the place of attributes, too.
A name stands for any node, and twice for the same one; c, c1, c2 stand for constants. A number stands for a constant
of that value, stretched or not. An attribute that is not mentioned has its default. What a condition, or an attribute
of the replacement, is computed from is a function of engine.optimise.conditions.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

import engine.ops  # noqa: F401  (rows name its ops)
from engine.core import CONSTANT, Graph, Node, Op, ops
from engine.limits import Limits
from engine.optimise import conditions
from engine.text.lexer import Source, tokens_of
from engine.text.parser import Call, Literal, Name, Parser, Tree


class Sweep(Protocol):
    """What a rewrite may ask of the sweep that it is part of."""

    def settle(self, node: Node) -> Node:
        """A new node, rewritten until nothing concerns it any more."""

    def is_used_once(self, node: Node) -> bool:
        """Whether a node is needed for one thing only."""


Rewrite: TypeAlias = Callable[[Node, Sweep], "Node | None"]
"""What takes the place of a node; None where nothing does."""
Bound: TypeAlias = dict[str, Any]
"""Nodes and attributes by the names that they have in a row."""

COMMUTATIVE = ("add", "multiply", "logaddexp")
_CONSTANT_NAME = re.compile(r"c[0-9]?\Z")
_ROW = re.compile(r"(.+?)\s+=> (.+?)\s+# (.+?)(?:\n\s+if (.+))?")


@dataclass(frozen=True)
class Some:
    """Any node or attribute; the same one wherever the name stands."""

    name: str

    @property
    def is_constant(self) -> bool:
        return _CONSTANT_NAME.match(self.name) is not None


@dataclass(frozen=True)
class Fixed:
    """A number, or the value of an attribute."""

    value: Any


@dataclass(frozen=True)
class Computed:
    """What a function of engine.optimise.conditions makes of what the names are bound to."""

    function: Callable[..., Any]
    names: tuple[str, ...]

    def of(self, bound: Mapping[str, Any]) -> Any:
        return self.function(*[bound[name] for name in self.names])


@dataclass(frozen=True)
class Made:
    """An op on parts."""

    op: Op
    parts: tuple[Part, ...]
    attrs: tuple[tuple[str, Part], ...]


Part: TypeAlias = "Some | Fixed | Computed | Made"


@dataclass(frozen=True, eq=False)
class Row:
    """One rewrite: `variants` of a pattern, with the operands of what commutes either way, and its replacement."""

    text: str
    meaning: str
    variants: tuple[Made, ...]
    replacement: Part
    conditions: tuple[Computed, ...]
    kinds: str
    """The kinds of dtype of the results that it is right for."""
    is_thrifty: bool
    """Whether it is for saving a node: then not where what is inside the pattern is needed elsewhere as well."""

    def rewrites(self, op: Op, below: Sequence[Op]) -> Iterator[Rewrite]:
        """What to try on a node of `op` whose first operands are of the ops `below`."""
        for variant in self.variants:
            if variant.op is op and all(map(_may_match, variant.parts, below)):
                yield partial(self._rewrite, variant)

    def _rewrite(self, variant: Made, node: Node, sweep: Sweep) -> Node | None:
        bound: Bound = {}
        if node.dtype.kind not in self.kinds or not _matches(variant, node, bound):
            return None
        if not all(condition.of(bound) for condition in self.conditions):
            return None
        if self.is_thrifty and isinstance(self.replacement, Made) and not _goes(variant, node, sweep):
            return None
        found: Node = _built(self.replacement, bound, node.graph, sweep)
        return found


def _goes(part: Made, node: Node, sweep: Sweep) -> bool:
    """Whether nothing else needs the nodes that matched the parts of `part`."""
    inner = [(each, x) for each, x in zip(part.parts, node.inputs, strict=True) if isinstance(each, Made)]
    return all(sweep.is_used_once(x) and _goes(each, x, sweep) for each, x in inner)


def _may_match(part: Part, op: Op) -> bool:
    if isinstance(part, Made):
        return part.op is op
    if isinstance(part, Fixed):
        return op is CONSTANT or op is ops.broadcast_to
    return not (isinstance(part, Some) and part.is_constant) or op is CONSTANT


# Matching


def _matches(part: Part, node: Node, bound: Bound) -> bool:
    """Whether `node` is what `part` says, given what is bound; names that it says are bound then."""
    if isinstance(part, Made):
        if node.op is not part.op or len(node.inputs) != len(part.parts):
            return False
        for name, each in part.attrs:
            if not _agrees(each, node.attrs[name], bound):
                return False
        # Not all(…) of a generator: this runs for every node that a row may concern.
        for each, x in zip(part.parts, node.inputs, strict=True):  # noqa: SIM110
            if not _matches(each, x, bound):
                return False
        return True
    if isinstance(part, Fixed):
        return _is_number(node, part.value)
    assert isinstance(part, Some)
    return bound.setdefault(part.name, node) is node and (not part.is_constant or node.value is not None)


def _agrees(part: Part, value: Any, bound: Bound) -> bool:
    if isinstance(part, Fixed):
        return bool(part.value == value)
    assert isinstance(part, Some)
    return bool(bound.setdefault(part.name, value) == value)


def _is_number(node: Node, number: float) -> bool:
    """Whether a node is this number, to the sign of a zero."""
    known = conditions.number_of(node)
    return known is not None and known == number and math.copysign(1, known.real) == math.copysign(1, number)


# Replacing


def _built(part: Part, bound: Bound, graph: Graph, sweep: Sweep) -> Any:
    """The node, number or attribute that a part of a replacement says."""
    if isinstance(part, Some):
        return bound[part.name]
    if isinstance(part, Fixed):
        return part.value
    if isinstance(part, Computed):
        return part.of(bound)
    operands = [_built(each, bound, graph, sweep) for each in part.parts]
    operands = [sweep.settle(each) if isinstance(each, Node) else each for each in operands]
    attrs = {name: _built(each, bound, graph, sweep) for name, each in part.attrs}
    return part.op.on(graph, *operands, **attrs)


# Reading


def read_rows(table: str, kinds: str, *, is_thrifty: bool = False) -> list[Row]:
    """The rows of a table. Raises ValueError, and what the parser raises, where one is misspelled."""
    return [_read_row(text, kinds, is_thrifty) for text in re.split(r"\n(?!\s)", table.strip())]


def _read_row(text: str, kinds: str, is_thrifty: bool) -> Row:
    found = _ROW.fullmatch(text)
    if found is None:
        raise ValueError(f"no row of rewrites: {text!r}")
    before, after, meaning, conditions = found.groups()
    (pattern,), (replacement,) = _trees(before), _trees(after)
    tests = tuple(_computed(tree) for tree in _trees(conditions)) if conditions else ()
    return Row(
        f"{before} => {after}",
        meaning,
        tuple(_variants(pattern)),
        _replacement(replacement),
        tests,
        kinds,
        is_thrifty,
    )


def _trees(text: str) -> list[Tree]:
    source = Source.of(text)
    _, (line,) = Parser(source, tokens_of(source, Limits())).lines()
    return [item.tree for item in line.items]


def _variants(tree: Tree) -> Iterator[Made]:
    for part in _patterns(tree):
        assert isinstance(part, Made)
        yield part


def _patterns(tree: Tree) -> list[Part]:
    """The parts that a pattern stands for: two where the operands of one of its ops commute."""
    if not isinstance(tree, Call):
        return [_leaf(tree)]
    op = ops.find(tree.name)
    attrs = _default_attrs(op) | {token.text: _leaf(each) for token, each in tree.keywords}
    combined = [list(parts) for parts in itertools.product(*map(_patterns, tree.operands))]
    if op.name in COMMUTATIVE:
        combined += [parts[::-1] for parts in combined if parts[0] != parts[1]]
    return [Made(op, tuple(parts), tuple(attrs.items())) for parts in combined]


def _default_attrs(op: Op) -> dict[str, Part]:
    return {name: Fixed(attr.default) for name, attr in op.attrs.items()}


def _replacement(tree: Tree) -> Part:
    if not isinstance(tree, Call):
        return _leaf(tree)
    if hasattr(conditions, tree.name):
        return _computed(tree)
    attrs = tuple((token.text, _replacement(each)) for token, each in tree.keywords)
    return Made(ops.find(tree.name), tuple(map(_replacement, tree.operands)), attrs)


def _computed(tree: Tree) -> Computed:
    assert isinstance(tree, Call)
    names = tuple(each.text for each in tree.operands if isinstance(each, Name))
    return Computed(getattr(conditions, tree.name), names)


def _leaf(tree: Tree) -> Part:
    if isinstance(tree, Name):
        return Some(tree.text)
    if isinstance(tree, Literal):
        return Fixed(tree.value)
    raise ValueError(f"a row holds names, numbers and calls, not {type(tree).__name__}")
