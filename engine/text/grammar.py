"""What reading and printing must agree on: operators, words, made-up names, names of outputs.

The language in brief:

    line        [names ("=" | ":=")] expression ("," expression)*      lines end at a newline or ";"
    function    name "(" names ")" "=" line                            or "{", lines and "}", of which the last is
                                                                       what it gives
    expression  comparison  <  "|"  <  "&"  <  + -  <  * / // % @  <  unary - + ~  <  ** ^  <  x[…]  x.result  f(…)

That is Python's precedence, but that "^" is a power. `name := …` is an assignment of a name that is not listed as a
node. A name in backticks is taken to the letter, and checked only when the graph is built: it is never a constant
or a word, it may be assigned further down, and `op`(…) takes its operands as they stand. People need that for names
such as `a-b`; the printer needs it so that every program, however odd, has a text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from engine.core import Op
from engine.program import Ref

COMPARISON, OR, AND, SUM, PRODUCT, SIGN, POWER, ATOM = range(1, 9)
"""Precedences, the loosest first. All associate to the left but POWER, to the right, and COMPARISON, to neither."""


class Infix(NamedTuple):
    """An operator between two operands."""

    op: str
    precedence: int


INFIX = {
    "<": Infix("less", COMPARISON),
    "<=": Infix("less_equal", COMPARISON),
    ">": Infix("greater", COMPARISON),
    ">=": Infix("greater_equal", COMPARISON),
    "==": Infix("equal", COMPARISON),
    "!=": Infix("not_equal", COMPARISON),
    "|": Infix("logical_or", OR),
    "&": Infix("logical_and", AND),
    "+": Infix("add", SUM),
    "-": Infix("subtract", SUM),
    "*": Infix("multiply", PRODUCT),
    "/": Infix("divide", PRODUCT),
    "//": Infix("floor_divide", PRODUCT),
    "%": Infix("remainder", PRODUCT),
    "@": Infix("matmul", PRODUCT),
    "^": Infix("pow", POWER),
    "**": Infix("pow", POWER),
}
PREFIX = {"-": "negative", "~": "logical_not"}

COPY = "positive"
"""The op behind a line that computes nothing: `b = a`, `b = 3`."""
INDEX, LIST, DETACH = "slice", "stack", "detach"
"""The ops behind `x[…]`, behind a list that is no constant, and behind `no_grad` of a bare name."""
IMAGINARY = "complex"
"""The op behind `2j`, which is `complex(0, 2)`."""
TENSOR, NO_GRAD = "asarray", "no_grad"
"""Calls that are no ops: a constant with a dtype, and the mark `no_grad` on the operation inside."""

CONSTANTS = {"pi": math.pi, "e": math.e, "inf": math.inf, "nan": math.nan}
"""Numbers with a name, unless the text assigns the name."""
WORDS = {
    "true": True,
    "false": False,
    "True": True,
    "False": False,
    "null": None,
    "None": None,
    "NaN": math.nan,
    "Infinity": math.inf,
}
"""Names that are never free. The last two are the numbers that JSON cannot say; no node can be called so there."""

MADE_UP = re.compile(r"_[1-9][0-9]*\Z")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "`": "`"}


def made_up(taken: Collection[str]) -> Iterator[str]:
    """Names for parts of an expression, in the order in which they are computed: _1, _2, … but for those taken."""
    number = 0
    while True:
        number += 1
        if f"_{number}" not in taken:
            yield f"_{number}"


def kept_name(ref: Ref, is_alone: bool, assigned: Collection[str]) -> str | None:
    """The name of the output that a bare reference is: its own, but for a graph input that is the only output."""
    return None if is_alone and ref.name not in assigned else str(ref)


def output_names(names: Sequence[str | None], taken: Collection[str]) -> list[str]:
    """Names of outputs: those without one are out, out2, out3, …, passing over what is taken."""
    known = {*taken, *names}
    free = (name for name in numbered("out") if name not in known)
    return [next(free) if name is None else name for name in names]


def numbered(stem: str) -> Iterator[str]:
    """stem, stem2, stem3, …"""
    yield stem
    number = 1
    while True:
        number += 1
        yield f"{stem}{number}"


def has_several(op: Op) -> bool:
    """Whether the op has several results, or may have: how many a composite returns shows when it is built."""
    return op.has_several or op.expand is not None


def has_result(op: Op, result: str) -> bool:
    """Whether `result`, a name or a number, may be one of the op's."""
    if op.results:
        return result in op.results or result in map(str, range(len(op.results)))
    return has_several(op) and result.isdecimal()


@cache
def signature(op: Op) -> tuple[str, ...]:
    """Operands and attributes as positional arguments stand in a call."""
    natural = (*(operand.name for operand in op.operands), *op.attrs)
    return (*op.order, *(name for name in natural if name not in op.order))


def quoted(text: str, mark: str) -> str:
    """`text` between two marks, with escapes for what cannot stand there."""
    escape = {ord(char): f"\\{letter}" for letter, char in ESCAPES.items() if char not in "\"'`" or char == mark}
    written = text.translate(escape)
    return mark + "".join(char if char.isprintable() else _code_point(char) for char in written) + mark


def _code_point(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
