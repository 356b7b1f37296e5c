"""A program to text that reads back as an equal one.

A statement that was named is a line. One that was not stands within the expression that uses it, if reading it there
would give it the same made-up name in the same place: `_Layout` decides that for the program as a whole. Where it
would not, it gets a line of its own, with ":=". Nothing recurses: an expression is written from a stack of pieces.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from engine.attrs import INT64_MAX, INT64_MIN
from engine.core import Op
from engine.program import CALL, Argument, Function, Program, Ref, Statement
from engine.tensors import Tensor, write_tensor
from engine.text.grammar import (
    ATOM,
    COMPARISON,
    CONSTANTS,
    COPY,
    IDENTIFIER,
    IMAGINARY,
    INDEX,
    INFIX,
    MADE_UP,
    NO_GRAD,
    POWER,
    PREFIX,
    SIGN,
    TENSOR,
    WORDS,
    has_result,
    has_several,
    kept_name,
    made_up,
    output_names,
    quoted,
    signature,
)

_INFIX = {infix.op: (symbol, infix.precedence) for symbol, infix in INFIX.items()}
_PREFIX = {op: symbol for symbol, op in PREFIX.items()}
_LONGEST_NUMBER = 9
"""Digits of the number of a result."""
_SHORT = 80
"""Characters of a function that is written on one line."""
_LARGEST_WHOLE = 1e15
"""Below it, a whole float within a tensor is written as an integer."""


def print_program(program: Program) -> str:
    """The text of a program: `parse` reads it back as an equal one, with the same ids in the same order.

    Integers beyond int64, which no graph takes, become floats.
    """
    # A text names functions only after they are defined, and so does this table.
    functions = [_function(program.by_name[name], program) for name in program.captures]
    return "\n".join([*functions, _printed(program, ())])


def _printed(program: Program, parameters: Sequence[str], around: Program | None = None) -> str:
    layout = _Layout(program, parameters)
    faithful = layout if layout.is_faithful else _Layout(program, parameters, plain=True)
    return _Printer(program, faithful, parameters, around or program).text()


def _function(function: Function, program: Program) -> str:
    """`name(parameters) = {`, its lines, `}`; what fits one line stands on one."""
    text = _printed(program.within(function.name), function.parameters, program)
    head = f"{_plainly(function.name)}({', '.join(map(_plainly, function.parameters))}) = "
    if len(text) <= _SHORT and "\n" not in text and not any(each.named for each in function.body.statements):
        return head + text
    return head + "{\n" + "\n".join(f"  {line}" for line in text.split("\n")) + "\n}"


def _plainly(name: str) -> str:
    return name if IDENTIFIER.match(name) and name not in WORDS else quoted(name, "`")


class _Layout:
    """Which statements stand within expressions, and which lines unpack an op with several results."""

    def __init__(self, program: Program, parameters: Sequence[str] = (), plain: bool = False) -> None:
        self.program = program
        self.parameters = parameters
        refs = [ref for each in program.statements for ref in each.inputs if isinstance(ref, Ref)]
        self.refs = [*refs, *(ref for _, ref in program.outputs)]
        self.inner: set[str] = set()
        self.unpacked: dict[str, Sequence[Statement]] = {}
        if not plain:
            self._find_unpacked()
            self._find_inner()

    def _find_unpacked(self) -> None:
        uses = Counter(ref.name for ref in self.refs)
        statements = self.program.statements
        for at, statement in enumerate(statements):
            copies = statements[at + 1 : at + 1 + uses[statement.id]]
            results = self.program.results_of(statement)
            if _is_made_up(statement) and len(copies) > 1 and _is_unpacked(statement, copies, results):
                self.unpacked[statement.id] = copies

    def _find_inner(self) -> None:
        used: dict[str, list[Ref]] = {}
        for ref in self.refs:
            used.setdefault(ref.name, []).append(ref)
        for each in self.program.statements:
            uses = used.get(each.id, [])
            if _is_made_up(each) and len(uses) == 1 and self._is_value(each, uses[0].result):
                self.inner.add(each.id)

    def _is_value(self, statement: Statement, result: str | None) -> bool:
        """Whether an expression can be written for this result: checked when it is read, unlike what is quoted."""
        names = self.program.results_of(statement)
        if result is None:
            return not names
        return _is_plain_result(result) and (has_result(statement.op, result) or result in names)

    @property
    def is_faithful(self) -> bool:
        """Whether reading gives every unnamed statement its name and place again."""
        unnamed = [each.id for each in self.program.statements if each.id in self.inner or each.id in self.unpacked]
        taken = {each.id for each in self.program.statements} - set(unnamed)
        taken |= {ref.name for ref in self.refs} - set(unnamed)
        taken |= {name for name, _ in self.program.outputs} | set(self.parameters)
        names = made_up(taken)
        return all(name == next(names) for name in unnamed) and self._keeps_order()

    def _keeps_order(self) -> bool:
        """Whether the statements stand in the order in which a reader meets their operators."""
        copies = {copy.id for group in self.unpacked.values() for copy in group}
        waiting: list[str] = []
        for each in self.program.statements:
            if each.id in copies:
                continue
            if not self._take(waiting, each.inputs):
                return False
            if each.id in self.inner:
                waiting.append(each.id)
            elif waiting:
                return False
        return self._take(waiting, [ref for _, ref in self.program.outputs]) and not waiting

    def _take(self, waiting: list[str], arguments: Sequence[Argument]) -> bool:
        wanted = [each.name for each in arguments if isinstance(each, Ref) and each.name in self.inner]
        rest = len(waiting) - len(wanted)
        if rest < 0 or waiting[rest:] != wanted:
            return False
        del waiting[rest:]
        return True


def _is_callable(name: str) -> bool:
    """Whether a function can be called by its bare name."""
    return bool(IDENTIFIER.match(name)) and name not in (*WORDS, TENSOR, NO_GRAD)


def _is_made_up(statement: Statement) -> bool:
    return not statement.named and MADE_UP.match(statement.id) is not None


def _is_plain_result(result: str) -> bool:
    return bool(IDENTIFIER.match(result)) or (_is_number(result) and len(result) <= _LONGEST_NUMBER)


def _is_number(result: str) -> bool:
    return result.isascii() and result.isdecimal()


def _is_unpacked(statement: Statement, copies: Sequence[Statement], names: Sequence[str]) -> bool:
    """Whether `copies` are what `a, b = …` makes of the results of `statement`."""
    if not has_several(statement.op) or not all(_is_copy(copy) and copy.named for copy in copies):
        return False
    refs = [copy.inputs[0] for copy in copies]
    chosen = [str(ref.result) for ref in refs if isinstance(ref, Ref) and ref.name == statement.id]
    results = names or tuple(map(str, range(len(copies))))
    return len(chosen) == len(copies) and [name for name in results if name in chosen] == chosen


def _is_copy(statement: Statement) -> bool:
    plain = not statement.attrs and not statement.no_grad and len(statement.inputs) == 1
    return plain and statement.op.name == COPY


class _Piece(NamedTuple):
    """An operand that is yet to be written, and how tightly it must bind to need no parentheses."""

    argument: Argument
    least: int


class _Written(NamedTuple):
    """An expression: how tightly it binds, and its pieces."""

    precedence: int
    pieces: Sequence[str | _Piece]


@dataclass
class _Printer:
    """One program on its way to a text. `seen` holds the names that the text has assigned so far."""

    program: Program
    layout: _Layout
    parameters: Sequence[str]
    around: Program
    seen: set[str] = field(default_factory=set)
    last: Sequence[str] = ()

    def text(self) -> str:
        lines = list(self._lines())
        outputs = self._outputs()
        return "\n".join([*lines, outputs] if outputs else lines)

    def _lines(self) -> Iterator[str]:
        written = {copy.id for group in self.layout.unpacked.values() for copy in group} | self.layout.inner
        for statement in self.program.statements:
            if statement.id in written:
                continue
            group = self.layout.unpacked.get(statement.id)
            value = self._flat((self._operation(statement) if group else self._value(statement)).pieces)
            yield f"{self._unpacked(statement, group)} = {value}" if group else self._line(statement, value)

    def _line(self, statement: Statement, value: str) -> str:
        self.seen.add(statement.id)
        results = self.program.results_of(statement)
        self.last = tuple(f"{statement.id}.{result}" for result in results) or (statement.id,)
        return f"{self._name(statement.id)} {'=' if statement.named else ':='} {value}"

    def _unpacked(self, statement: Statement, copies: Sequence[Statement]) -> str:
        by_result = {str(ref.result): copy.id for copy in copies for ref in copy.inputs if isinstance(ref, Ref)}
        results = self.program.results_of(statement) or tuple(by_result)
        self.last = tuple(copy.id for copy in copies)
        self.seen.update(self.last)
        targets = [self._target(by_result[result]) if result in by_result else "_" for result in results]
        return ", ".join(targets)

    def _target(self, name: str) -> str:
        return "`_`" if name == "_" else self._name(name)

    # Outputs

    def _outputs(self) -> str:
        outputs = self.program.outputs
        if [(name, str(ref)) for name, ref in outputs] == [(name, name) for name in self.last]:
            return ""
        inner, assigned = self.layout.inner, self.program.by_id
        is_alone = len(outputs) == 1
        kept = [None if ref.name in inner else kept_name(ref, is_alone, assigned) for _, ref in outputs]
        taken = (set(assigned) | {ref.name for ref in self.layout.refs}) - inner - set(self.layout.unpacked)
        taken |= set(self.parameters)
        named = output_names(kept, taken) == [name for name, _ in outputs]
        items = [self._flat([_Piece(ref, COMPARISON)]) for _, ref in outputs]
        if not named:
            items = [f"{self._label(name)}: {item}" for (name, _), item in zip(outputs, items, strict=True)]
        return ", ".join(items)

    def _label(self, name: str) -> str:
        return name if IDENTIFIER.match(name) else quoted(name, "`")

    # Expressions

    def _flat(self, pieces: Sequence[str | _Piece]) -> str:
        """The text of pieces, with that of the operands inside."""
        done: list[str] = []
        todo = list(reversed(pieces))
        while todo:
            piece = todo.pop()
            if isinstance(piece, str):
                done.append(piece)
            else:
                todo.extend(reversed(self._operand(*piece)))
        return "".join(done)

    def _operand(self, argument: Argument, least: int) -> Sequence[str | _Piece]:
        if not isinstance(argument, Ref) or argument.name not in self.layout.inner:
            text = self._leaf(argument)
            return [f"({text})"] if text.startswith("-") and least > SIGN else [text]
        precedence, pieces = self._operation(self.program.by_id[argument.name])
        suffix = [] if argument.result is None else [f".{argument.result}"]
        is_bare = precedence >= (ATOM if suffix else least)
        return [*pieces, *suffix] if is_bare else ["(", *pieces, ")", *suffix]

    def _value(self, statement: Statement) -> _Written:
        """What stands right of an assignment: a copy of something named needs no op."""
        if _is_copy(statement):
            source = statement.inputs[0]
            if not isinstance(source, Ref) or source.name not in self.layout.inner or source.result is not None:
                return _Written(ATOM, [_Piece(source, COMPARISON)])
        return self._operation(statement)

    def _operation(self, statement: Statement) -> _Written:
        """The precedence of a statement's expression, and its pieces."""
        if statement.no_grad:
            return _Written(ATOM, [f"{NO_GRAD}(", *self._tracked(statement).pieces, ")"])
        return self._tracked(statement)

    def _tracked(self, statement: Statement) -> _Written:
        name, inputs = statement.op.name, statement.inputs
        if not statement.attrs and len(inputs) == 2 and name in _INFIX:
            symbol, precedence = _INFIX[name]
            left, right = _around(precedence)
            spaced = symbol if precedence == POWER else f" {symbol} "
            return _Written(precedence, [_Piece(inputs[0], left), spaced, _Piece(inputs[1], right)])
        if not statement.attrs and len(inputs) == 1 and name in _PREFIX and not _is_plain_number(inputs[0]):
            return _Written(SIGN, [_PREFIX[name], _Piece(inputs[0], SIGN)])
        if name == IMAGINARY and not statement.attrs and _is_imaginary(inputs):
            return _Written(ATOM, [f"{self._leaf(inputs[1])}j"])
        if name == INDEX and len(inputs) == 1 and _is_index(statement.attrs):
            return _Written(ATOM, [_Piece(inputs[0], ATOM), f"[{_index(statement.attrs['index'])}]"])
        return _Written(ATOM, self._call(statement))

    def _call(self, statement: Statement) -> list[str | _Piece]:
        arguments = self._arguments(statement)
        head = statement.op.name
        function = self.program.by_name.get(statement.attrs.get("function", "")) if head == CALL else None
        if function is not None and len(statement.inputs) == len(function.parameters) and _is_callable(function.name):
            head, arguments = function.name, [[_Piece(each, COMPARISON)] for each in statement.inputs]
        elif head in self.program.by_name:
            arguments = None
        if arguments is None:
            head = quoted(head, "`")
            arguments = [[_Piece(each, COMPARISON)] for each in statement.inputs]
            arguments += [[self._keyword(statement.op, name, value)] for name, value in statement.attrs.items()]
        pieces: list[str | _Piece] = [f"{head}("]
        for argument in arguments:
            pieces += [*([", "] if len(pieces) > 1 else []), *argument]
        return [*pieces, ")"]

    def _arguments(self, statement: Statement) -> list[list[str | _Piece]] | None:
        """Arguments as they are usually written; None where that would be misread."""
        op, inputs = statement.op, statement.inputs
        count = len(op.operands)
        least = count - any(each.may_lack for each in op.operands)
        if len(inputs) < least or (len(inputs) > count and not op.is_variadic):
            return None
        given = dict(zip((operand.name for operand in op.operands), inputs, strict=False))
        arguments: list[list[str | _Piece]] = []
        rest = dict(statement.attrs)
        for name in _up_to_operands(op):
            if name in rest:
                arguments.append([self._attribute(op, name, rest.pop(name))])
            elif name in given:
                several = inputs[count - 1 :] if op.is_variadic and name == op.operands[-1].name else [given[name]]
                arguments += [[_Piece(each, COMPARISON)] for each in several]
            else:
                return None
        if op.is_variadic and len(inputs) == 1 and len(arguments) == 1 and isinstance(inputs[0], Tensor):
            return None
        return arguments + [[self._keyword(op, name, value)] for name, value in rest.items()]

    def _keyword(self, op: Op, name: str, value: Any) -> str:
        return f"{name}={self._attribute(op, name, value)}"

    def _attribute(self, op: Op, name: str, value: Any) -> str:
        if name in op.attrs and op.attrs[name].names_function and isinstance(value, str):
            return quoted(value, "`") if value in CONSTANTS else _plainly(value)
        return self._literal(value)

    # Leaves

    def _leaf(self, argument: Argument) -> str:
        if isinstance(argument, Ref):
            return self._reference(argument)
        return self._tensor(argument) if isinstance(argument, Tensor) else self._weak(argument)

    def _weak(self, value: bool | int | float) -> str:
        if type(value) is int and not INT64_MIN <= value <= INT64_MAX:
            try:
                value = float(value)
            except OverflowError:
                value = math.copysign(math.inf, value)
        return self._scalar(value)

    def _scalar(self, value: Any) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float) and not math.isfinite(value):
            return self._non_finite(value)
        return repr(value)

    def _non_finite(self, value: float) -> str:
        word, name = ("NaN", "nan") if math.isnan(value) else ("Infinity", "inf")
        return ("-" if value < 0 else "") + (word if self._is_bound(name) else name)

    def _literal(self, value: Any) -> str:
        """An attribute's value. These were checked by their op, and none of them is deep."""
        if isinstance(value, list | tuple):
            items = ", ".join(map(self._literal, value))
            return f"[{items}]" if isinstance(value, list) else f"({items}{',' * (len(value) == 1)})"
        if isinstance(value, str):
            return quoted(value, '"')
        return "null" if value is None else self._scalar(value)

    def _reference(self, ref: Ref) -> str:
        statement = self.program.by_id.get(ref.name)
        op = statement.op if statement is not None and ref.name in self.seen else None
        later = statement is not None and op is None
        if ref.result is None:
            several = statement is not None and self.program.results_of(statement)
            return quoted(ref.name, "`") if later or several else self._name(ref.name)
        plain = op is not None and _is_plain_result(ref.result) and self._has_result(statement, ref.result)
        name = quoted(ref.name, "`") if later else self._name(ref.name)
        return f"{name}.{ref.result if plain else quoted(ref.result, '`')}"

    def _has_result(self, statement: Statement | None, result: str) -> bool:
        assert statement is not None
        return has_result(statement.op, result) or result in self.program.results_of(statement)

    def _name(self, name: str) -> str:
        is_plain = IDENTIFIER.match(name) and name not in WORDS
        return name if is_plain and (name not in CONSTANTS or self._is_bound(name)) else quoted(name, "`")

    def _is_bound(self, name: str) -> bool:
        return name in self.program.by_id or name in self.parameters or name in self.around.by_id

    # Tensors

    def _tensor(self, tensor: Tensor) -> str:
        array, shape = tensor.array, f"shape={self._literal(list(tensor.array.shape))}"
        parts = _parts(array)
        elements = _elements(parts)
        is_exact = np.array(elements, parts.dtype).tobytes() == parts.tobytes()
        # No elements, no lists: an axis of length 0 hides those after it, and pairs of nothing are no complex numbers.
        if not is_exact or (array.dtype.kind == "c" and not array.size):
            fields = [f'b64="{write_tensor(array, "base64")["b64"]}"', shape]
        else:
            fields = [self._nested(elements, parts.shape), *([] if array.size or array.shape == (0,) else [shape])]
        if tensor.typed:
            fields.insert(1, f'dtype="{array.dtype.name}"')
        if tensor.requires_grad is not None:
            fields.append(f"requires_grad={self._scalar(tensor.requires_grad)}")
        is_list = len(fields) == 1 and array.ndim > 0
        return fields[0] if is_list else f"{TENSOR}({', '.join(fields)})"

    def _nested(self, elements: Sequence[Any], shape: Sequence[int]) -> str:
        if not elements:
            return "[]"
        items = [self._element(value) for value in elements]
        for size in reversed(shape):
            items = [f"[{', '.join(items[at : at + size])}]" for at in range(0, len(items), size)]
        return items[0]

    def _element(self, value: Any) -> str:
        is_whole = isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_WHOLE
        return str(int(value)) if is_whole and repr(value) != "-0.0" else self._scalar(value)


def _around(precedence: int) -> tuple[int, int]:
    """How tightly the operands left and right of an operator must bind."""
    if precedence == POWER:
        return ATOM, SIGN
    return precedence + (precedence == COMPARISON), precedence + 1


def _is_plain_number(argument: Argument) -> bool:
    # The sign of a number is read as part of it.
    return type(argument) in (int, float)


def _is_imaginary(inputs: Sequence[Argument]) -> bool:
    """Whether parts of a complex number are those of `2j`: a bare 0, and a finite number without a sign."""
    if len(inputs) != 2 or repr(inputs[0]) != "0":
        return False
    imag = inputs[1]
    if isinstance(imag, Ref | Tensor | bool):
        return False
    return repr(imag)[0].isdecimal() and imag <= INT64_MAX


def _is_index(attrs: dict[str, Any]) -> bool:
    """Whether an index is one that brackets spell: three parts to a slice, and lists throughout."""
    index = attrs.get("index")
    return set(attrs) == {"index"} and type(index) is list and bool(index) and all(map(_is_index_item, index))


def _is_index_item(item: Any) -> bool:
    if type(item) is list:
        return len(item) == 3 and all(part is None or type(part) is int for part in item)
    return item is None or item == "..." or type(item) is int


def _index(index: Sequence[Any]) -> str:
    return ", ".join(_index_item(item) for item in index)


def _index_item(item: Any) -> str:
    if isinstance(item, list):
        start, stop, step = ("" if part is None else str(part) for part in item)
        return f"{start}:{stop}" + (f":{step}" if step else "")
    return "newaxis" if item is None else str(item)


def _up_to_operands(op: Op) -> Sequence[str]:
    """The part of a signature that holds the operands; what follows is written with its keyword."""
    names = signature(op)
    last = max((at for at, name in enumerate(names) if name not in op.attrs), default=-1)
    return names[: last + 1]


def _parts(array: Any) -> Any:
    """Real numbers: a complex one is a pair of them, along one more axis."""
    if array.dtype.kind != "c":
        return array
    real = np.float32 if array.dtype == np.complex64 else np.float64
    return np.ascontiguousarray(array).reshape(*array.shape, 1).view(real)


def _elements(array: Any) -> list[Any]:
    """Python numbers, as decimals give them. A float32 has shorter ones than the float64 that equals it."""
    flat = array.ravel()
    if flat.dtype == np.float32:
        return [float(str(each)) for each in flat]
    return [math.nan if value != value else value for value in flat.tolist()]
