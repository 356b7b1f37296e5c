"""A program that a transform wrote, for readers: what is used once goes unnamed, into the expression that uses it.

Such a program names every node, because JSON has to. In text only outputs, and what is used more than once, need a
line. What is left is put in the order in which a reader meets it: before each line what the line's expression computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from engine.program import Argument, Program, Ref, Statement
from engine.text.grammar import made_up

DEEPEST = 12
"""Operators within one another in one expression."""


def folded(program: Program) -> Program:
    """The same graph with made-up names for what is used once. Functions stay as they are."""
    lines = _lines(program)
    order = [each for root in lines.values() for each in _expression(root, lines, program)]
    taken = {*lines, *program.inputs, *(name for name, _ in program.outputs)}
    names = made_up(taken)
    renamed = {each.id: each.id if each.id in lines else next(names) for each in order}
    return replace(program, statements=tuple(_renamed(each, renamed) for each in order))


def _lines(program: Program) -> dict[str, Statement]:
    """The statements that keep a line of their own, in order."""
    refs = [ref for each in program.statements for ref in program.refs_of(each)] + [ref for _, ref in program.outputs]
    uses = Counter(ref.name for ref in refs)
    kept = {ref.name for _, ref in program.outputs} | {ref.name for ref in refs if ref.result is not None}
    kept |= {ref.name for each in program.functions for ref in program.captures.get(each.name, ())}
    depths: dict[str, int] = {}
    lines: dict[str, Statement] = {}
    for each in program.ordered:
        below = (depths.get(ref.name, 0) for ref in each.inputs if isinstance(ref, Ref))
        depths[each.id] = 1 + max(below, default=0)
        if uses[each.id] != 1 or each.id in kept or depths[each.id] > DEEPEST:
            lines[each.id] = each
            depths[each.id] = 0
    return lines


def _expression(root: Statement, lines: Mapping[str, Statement], program: Program) -> Iterator[Statement]:
    """What stands within the line of `root`, each after its operands, and then the line itself."""
    found, stack = [], [root]
    while stack:
        each = stack.pop()
        found.append(each)
        inner = (ref.name for ref in each.inputs if isinstance(ref, Ref) and ref.name in program.by_id)
        stack += [program.by_id[name] for name in inner if name not in lines]
    return reversed(found)


def _renamed(statement: Statement, names: Mapping[str, str]) -> Statement:
    def renamed(argument: Argument) -> Argument:
        if isinstance(argument, Ref):
            return argument._replace(name=names.get(argument.name, argument.name))
        return argument

    name = names[statement.id]
    is_named = statement.named and name == statement.id
    return replace(statement, id=name, inputs=tuple(map(renamed, statement.inputs)), named=is_named)
