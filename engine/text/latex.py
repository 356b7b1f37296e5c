"""A program as LaTeX: an `aligned` environment with a line for each statement that is named, or used more than once.

Each statement becomes a formula from those of its operands, in order, so nothing recurses; a formula binds as tightly
as its outermost operator, and parentheses go where that is too loose. What gets long is a line of its own. A name is a
symbol with subscripts at its underscores. Only commands of amsmath are used, which MathJax and KaTeX know as well.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.program import Argument, Program, Ref, Statement, write_attr
from engine.tensors import Tensor
from engine.text.grammar import ATOM, COMPARISON, IDENTIFIER, MADE_UP, POWER, PRODUCT, SIGN, SUM
from engine.types import Array

LONGEST = 160
"""Characters of a formula that still stands within another."""
LOR, LAND = COMPARISON - 2, COMPARISON - 1
"""How tightly ∧ and ∨ bind: more loosely than comparisons, other than in the language of expressions."""
COMMA = r",\, "
MOST_ENTRIES = 4
"""Rows or columns of a constant that is written out."""


class Formula(NamedTuple):
    """LaTeX, and how tightly its outermost operator binds."""

    text: str
    binds: int = ATOM

    def at(self, least: int) -> str:
        """In a place where it must bind at least so tightly."""
        return self.text if self.binds >= least else _parenthesised(self.text)


def _parenthesised(text: str) -> str:
    return rf"\left({text}\right)"


def to_latex(program: Program) -> str:
    """The program in LaTeX."""
    lines = [line for function in program.functions for line in _function_lines(program, function.name)]
    lines += _lines(program)
    return "\n".join([r"\begin{aligned}", " \\\\\n".join(lines), r"\end{aligned}"])


def _function_lines(program: Program, name: str) -> Iterator[str]:
    function = program.by_name[name]
    parameters = ", ".join(map(symbol, function.parameters))
    results = ", ".join(symbol(each) for each, _ in function.body.outputs)
    yield rf"{_named(name)} &\colon \left({parameters}\right) \mapsto \left({results}\right)"
    for line in _lines(program.within(name)):
        yield rf"\quad {line}"


def _lines(program: Program) -> Iterator[str]:
    uses = Counter(ref.name for each in program.statements for ref in program.refs_of(each))
    uses.update(ref.name for _, ref in program.outputs)
    ends = {ref.name: name for name, ref in program.outputs if name != ref.name and ref.result is None}
    inner: dict[str, Formula] = {}
    for statement in program.ordered:
        formula = _formula(statement, inner)
        is_kept = statement.named or any(ref.name == statement.id for _, ref in program.outputs)
        if is_kept or uses[statement.id] != 1 or len(formula.text) > LONGEST or program.results_of(statement):
            name = ends.pop(statement.id, statement.id) if not statement.named else statement.id
            yield f"{symbol(name)} &= {formula.text}"
            formula = Formula(symbol(name))
        inner[statement.id] = formula
    for name, ref in program.outputs:
        said = _leaf(ref, inner).text
        if said != symbol(name):
            yield f"{symbol(name)} &= {said}"


# One statement


def _formula(statement: Statement, inner: Mapping[str, Formula]) -> Formula:
    operands = [_leaf(each, inner) for each in statement.inputs]
    write = FORMS.get(statement.op.name)
    found = write(operands, statement.attrs) if write is not None and _is_regular(statement) else None
    if found is None:
        found = _call(_named(statement.op.name), operands, statement.attrs)
    return _call(_named("no_grad"), [found], {}) if statement.no_grad else found


def _is_regular(statement: Statement) -> bool:
    """Whether there are as many operands as the op takes: a program need not be well-formed to be written."""
    count = len(statement.op.operands)
    return len(statement.inputs) == count or (statement.op.is_variadic and len(statement.inputs) >= count)


def _call(head: str, operands: Sequence[Formula], attrs: Mapping[str, Any]) -> Formula:
    given = [each.text for each in operands] + [rf"{_named(name)}\!=\!{_value(value)}" for name, value in attrs.items()]
    return Formula(rf"{head}\left({COMMA.join(given)}\right)")


def _leaf(argument: Argument, inner: Mapping[str, Formula]) -> Formula:
    if isinstance(argument, Ref):
        known = inner.get(argument.name, Formula(symbol(argument.name)))
        return known if argument.result is None else Formula(rf"{known.at(ATOM)}.{_named(argument.result)}")
    return _tensor(argument.array) if isinstance(argument, Tensor) else number(argument)


def _value(value: Any) -> str:
    """An attribute: numbers, lists of them, words."""
    if isinstance(value, list | tuple):
        return rf"\left[{COMMA.join(map(_value, value))}\right]"
    if isinstance(value, bool | int | float):
        return number(value).text
    return r"\varnothing" if value is None else rf"\text{{{_escaped(str(write_attr(value)))}}}"


def number(value: bool | int | float) -> Formula:
    """A number; large and small ones with a power of ten."""
    if isinstance(value, bool):
        return Formula(_named(str(value).lower()))
    if isinstance(value, float) and not math.isfinite(value):
        return Formula(r"\mathrm{NaN}") if math.isnan(value) else _signed(r"\infty", value < 0)
    if value in NAMED_NUMBERS:
        return Formula(NAMED_NUMBERS[value])
    digits, _, power = repr(abs(value)).partition("e")
    digits = digits.removesuffix(".0")
    if power:
        tens = f"10^{{{int(power)}}}"
        return _signed(tens if digits == "1" else rf"{digits} \cdot {tens}", value < 0, PRODUCT)
    return _signed(digits, math.copysign(1.0, value) < 0)


def _signed(text: str, is_negative: bool, binds: int = ATOM) -> Formula:
    return Formula(f"-{text}", SIGN) if is_negative else Formula(text, binds)


def _tensor(array: Array) -> Formula:
    if array.ndim == 0 and array.dtype.kind != "c":
        return number(array.item())
    if array.ndim in (1, 2) and 0 < max(array.shape) <= MOST_ENTRIES and array.size and array.dtype.kind != "c":
        rows = r" \\ ".join(" & ".join(number(each).text for each in row) for row in np.atleast_2d(array).tolist())
        return Formula(rf"\begin{{bmatrix}}{rows}\end{{bmatrix}}")
    shape = r" \times ".join(map(str, array.shape))
    return Formula(rf"\mathrm{{C}}_{{{shape}}}" if shape else r"\mathrm{C}")


NAMED_NUMBERS = {math.pi: r"\pi", math.e: "e"}


# Names

GREEK = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu"),
    *("xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
    *("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega"),
)
_TRAILING_DIGITS = re.compile(r"([A-Za-z]+)([0-9]+)\Z")
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: f"\\{char}" for char in "{}$&#_%"},
}


def symbol(name: str) -> str:
    """A name: W_1 and W1 have a subscript, theta is a letter, and a word stands in italics; one made up is a t."""
    name = f"t{name}" if MADE_UP.match(name) else name
    head, *rest = [part for part in name.split("_") if part] or [name]
    numbered = _TRAILING_DIGITS.match(head)
    if numbered:
        head, rest = numbered[1], [numbered[2], *rest]
    return _letter(head) + (f"_{{{','.join(map(_letter, rest))}}}" if rest else "")


def _letter(word: str) -> str:
    if word in GREEK:
        return f"\\{word}"
    return word if (len(word) == 1 and word.isalnum() and word.isascii()) or word.isdecimal() else _word(word)


def _word(word: str) -> str:
    return rf"\mathit{{{word}}}" if word.isascii() and word.isalnum() else rf"\text{{{_escaped(word)}}}"


def _named(name: str) -> str:
    """The name of an op, a result or an attribute: upright, as functions are."""
    if name.isascii() and name.isdecimal():
        return name
    return rf"\operatorname{{{_escaped(name)}}}" if IDENTIFIER.match(name) else rf"\text{{{_escaped(name)}}}"


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(char, char if char.isprintable() else "?") for char in text)


# How ops are written

Form = Callable[[Sequence[Formula], Mapping[str, Any]], Formula | None]
"""A formula from those of the operands; None where an attribute asks for the plain call."""


def _infix(symbol: str, binds: int, right: int) -> Form:
    def write(operands: Sequence[Formula], attrs: Mapping[str, Any]) -> Formula | None:
        if attrs or len(operands) != 2:
            return None
        second = operands[1].at(right)
        second = _parenthesised(second) if second.startswith("-") else second
        return Formula(f"{operands[0].at(binds)} {symbol} {second}", binds)

    return write


def _prefix(symbol: str) -> Form:
    return lambda operands, attrs: None if attrs else Formula(f"{symbol}{operands[0].at(POWER)}", SIGN)


def _around(opening: str, closing: str, least: int = COMPARISON) -> Form:
    return lambda operands, attrs: None if attrs else Formula(f"{opening}{operands[0].at(least)}{closing}")


def _raised(exponent: str) -> Form:
    return lambda operands, attrs: None if attrs else Formula(f"{{{operands[0].at(ATOM)}}}^{{{exponent}}}", POWER)


def _function(head: str) -> Form:
    return lambda operands, attrs: _call(head, operands, attrs)


def _folded(head: str) -> Form:
    """A sum or product: the axes stand below."""

    def write(operands: Sequence[Formula], attrs: Mapping[str, Any]) -> Formula | None:
        if set(attrs) - {"axis", "keepdims"}:
            return None
        axis = attrs.get("axis")
        below = "" if axis is None else f"_{{{_axes(axis)}}}"
        return Formula(rf"{head}{below} {operands[0].at(PRODUCT)}", PRODUCT)

    return write


def _axes(axis: Any) -> str:
    return ",".join(map(str, axis)) if isinstance(axis, list | tuple) else str(axis)


def _power(operands: Sequence[Formula], attrs: Mapping[str, Any]) -> Formula:
    base, exponent = operands
    return Formula(f"{{{base.at(ATOM)}}}^{{{exponent.text}}}", POWER)


def _fraction(operands: Sequence[Formula], attrs: Mapping[str, Any]) -> Formula:
    return Formula(rf"\frac{{{operands[0].text}}}{{{operands[1].text}}}", POWER)


def _where(operands: Sequence[Formula], attrs: Mapping[str, Any]) -> Formula:
    condition, x, y = (each.text for each in operands)
    cases = rf"{x} & \text{{if }} {condition} \\ {y} & \text{{else}}"
    return Formula(rf"\begin{{cases}}{cases}\end{{cases}}", COMPARISON)


def _sliced(operands: Sequence[Formula], attrs: Mapping[str, Any]) -> Formula | None:
    index = attrs.get("index")
    if not isinstance(index, list | tuple):
        return None
    return Formula(rf"{{{operands[0].at(ATOM)}}}_{{\left[{COMMA.join(map(_part, index))}\right]}}", POWER)


def _part(part: Any) -> str:
    if isinstance(part, list | tuple) and len(part) == 3:
        start, stop, step = ("" if each is None else str(each) for each in part)
        return f"{start}{{:}}{stop}" + (f"{{:}}{step}" if step else "")
    return r"\ldots" if part == "..." else _value(part)


def _permuted(operands: Sequence[Formula], attrs: Mapping[str, Any]) -> Formula | None:
    return _raised(r"\top")(operands, {}) if list(attrs.get("axes") or ()) == [1, 0] else None


def _stretched(operands: Sequence[Formula], attrs: Mapping[str, Any]) -> Formula:
    """Broadcasting goes without saying."""
    return operands[0]


FORMS: dict[str, Form] = {
    "add": _infix("+", SUM, SUM),
    "subtract": _infix("-", SUM, PRODUCT),
    "multiply": _infix(r"\cdot", PRODUCT, PRODUCT),
    "masked_multiply": _infix(r"\cdot", PRODUCT, PRODUCT),
    "matmul": _infix(r"\,", PRODUCT, POWER),
    "divide": _fraction,
    "remainder": _infix(r"\bmod", PRODUCT, POWER),
    "pow": _power,
    "less": _infix("<", COMPARISON, SUM),
    "less_equal": _infix(r"\le", COMPARISON, SUM),
    "greater": _infix(">", COMPARISON, SUM),
    "greater_equal": _infix(r"\ge", COMPARISON, SUM),
    "equal": _infix("=", COMPARISON, SUM),
    "not_equal": _infix(r"\ne", COMPARISON, SUM),
    "logical_and": _infix(r"\land", LAND, COMPARISON),
    "logical_or": _infix(r"\lor", LOR, LAND),
    "logical_not": _prefix(r"\lnot "),
    "negative": _prefix("-"),
    "positive": _stretched,
    "broadcast_to": _stretched,
    "square": _raised("2"),
    "reciprocal": lambda operands, attrs: _fraction([Formula("1"), *operands], attrs),
    "sqrt": _around(r"\sqrt{", "}"),
    "cbrt": _around(r"\sqrt[3]{", "}"),
    "rsqrt": _around(r"\frac{1}{\sqrt{", "}}"),
    "exp": _around("e^{", "}"),
    "exp2": _around("2^{", "}"),
    "abs": _around(r"\left|", r"\right|"),
    "floor": _around(r"\left\lfloor ", r"\right\rfloor "),
    "ceil": _around(r"\left\lceil ", r"\right\rceil "),
    "conj": _around(r"\overline{", "}"),
    "matrix_transpose": _raised(r"\top"),
    "permute_dims": _permuted,
    "inv": _raised("-1"),
    "vector_norm": _around(r"\left\|", r"\right\|"),
    "sum": _folded(r"\sum"),
    "prod": _folded(r"\prod"),
    "where": _where,
    "slice": _sliced,
    "sigmoid": _function(r"\sigma"),
    "gamma": _function(r"\Gamma"),
    "digamma": _function(r"\psi"),
    "log2": _function(r"\log_{2}"),
    "log10": _function(r"\log_{10}"),
    "asin": _function(r"\arcsin"),
    "acos": _function(r"\arccos"),
    "atan": _function(r"\arctan"),
} | {name: _function(f"\\{name}") for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "log", "det")}
"""By op. Any other is a call under its own name."""
