"""Trees to statements: what names stand for, and which argument is which operand or attribute.

Statements come in the order in which they are computed: operands from the left, each before what uses it, line by
line. Parts of an expression get made-up names in that same order; since the order depends on the tree alone, not on
how it was spelled, printing and reading again gives the same names.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from engine.attrs import INT64_MAX, INT64_MIN
from engine.core import Op, ops
from engine.errors import EngineError, ExpressionError, LimitExceeded, UnknownAttribute
from engine.limits import Limits
from engine.program import CALL, Argument, Function, Program, Ref, Statement, results_of
from engine.tensors import Tensor, read_tensor
from engine.text.grammar import (
    COPY,
    DETACH,
    LIST,
    NO_GRAD,
    TENSOR,
    has_result,
    has_several,
    kept_name,
    made_up,
    numbered,
    output_names,
    signature,
)
from engine.text.lexer import QUOTED, Source, Token, shown, tokens_of
from engine.text.parser import Call, Item, Items, Line, Literal, Name, Parser, Result, Scope, Tree

Positions: TypeAlias = "dict[str, tuple[int, int]]"
TENSOR_FIELDS = ("data", "dtype", "shape", "b64", "requires_grad")
_MOST_ATTR_LISTS = 8
"""Lists within lists of an attribute; no op takes half as many."""
_LONGEST_USAGE = 150
"""Characters of the names of arguments that a message lists."""


def parse(text: str, limits: Limits) -> Program:
    """The program that a text spells.

    Raises ExpressionError, UnknownOp, UnknownAttribute and InvalidGraph, all with line and column in the detail; and
    LimitExceeded for a text that is too long, too deep, or of too many nodes.
    """
    return _parsed(text, limits)[0]


def parse_with_positions(text: str, limits: Limits) -> tuple[Program, Positions]:
    """The same, and by statement's id the line and column of what it computes, for errors that come later."""
    program, source, positions = _parsed(text, limits)
    return program, {name: source.place(at) for name, at in positions.items()}


def _parsed(text: str, limits: Limits) -> tuple[Program, Source, dict[str, int]]:
    """The program, and by statement's id where in the source it stands."""
    if len(text) > limits.expression_characters:
        length, most = len(text), limits.expression_characters
        raise LimitExceeded("expression_characters", most, length, "characters of the expression")
    source = Source.of(text)
    parser = Parser(source, tokens_of(source, limits))
    definitions, lines = parser.lines()
    if len(definitions) > limits.functions:
        raise LimitExceeded("functions", limits.functions, len(definitions), "functions of the graph")
    functions: dict[str, Function] = {}
    positions: dict[str, int] = {}
    for each in definitions:
        lowering = _Lowering(source, each.lines, each.scope, limits, functions, parser.outer)
        if each.name.text in functions:
            raise source.error(f"two functions are called {shown(each.name.text)}", each.name.at)
        functions[each.name.text] = Function(each.name.text, tuple(each.scope.parameters), lowering.program())
        positions |= {f"{each.name.text}/{name}": at for name, at in lowering.positions.items()}
    lowering = _Lowering(source, lines, parser.outer, limits, functions, parser.outer)
    program = replace(lowering.program(), functions=tuple(functions.values()))
    return program, source, positions | lowering.positions


@dataclass(eq=False, slots=True)
class _Bound:
    """A call whose arguments found their places. It is emitted once its operands are."""

    op: Op
    operands: Sequence[Tree]
    attrs: dict[str, Any]
    at: int
    no_grad: bool = False
    target: Token | None = None
    named: bool = False


@dataclass(eq=False, slots=True)
class _Choice:
    """One result of the call that was emitted last."""

    result: Result


_Step: TypeAlias = "Tree | _Bound | _Choice"


class _Lowering:
    """One text, or one function of it, on its way to a program. `functions` are those that are defined above."""

    def __init__(
        self,
        source: Source,
        lines: Sequence[Line],
        scope: Scope,
        limits: Limits,
        functions: Mapping[str, Function],
        outer: Scope,
    ) -> None:
        self.source = source
        self.lines = lines
        self.line = lines[0]
        self.assigned = scope.assigned
        self.parameters = scope.parameters
        self.names = scope.names
        self.is_function = scope is not outer
        self.limits = limits
        self.functions = functions
        self.made_up = made_up(self.names)
        self.statements: dict[str, Statement] = {}
        self.positions: dict[str, int] = {}
        self.room = limits.nodes - sum(len(each.body.statements) for each in functions.values())

    def _error(self, detail: str, at: int) -> ExpressionError:
        return self.source.error(detail, at)

    # Lines

    def program(self) -> Program:
        outputs: tuple[tuple[str, Ref], ...] = ()
        for number, line in enumerate(self.lines, 1):
            self.line, is_last = line, number == len(self.lines)
            self._check_line(line, is_last)
            if line.targets:
                assigned = self._assignment(line)
                outputs = self._every_result(assigned) if is_last else ()
            else:
                outputs = self._outputs(line.items)
        return Program(tuple(self.statements.values()), outputs)

    def _check_line(self, line: Line, is_last: bool) -> None:
        label = next((item.label for item in line.items if item.label is not None), None)
        if label is not None and (line.targets or not is_last):
            raise self._error("only outputs have labels: 'name: expression' on the last line", label.at)
        if not line.targets and not is_last:
            detail = "the value of this statement is not used; assign it to a name, or make it the last statement"
            raise self._error(detail, line.at)

    def _assignment(self, line: Line) -> list[str]:
        tree = line.items[0].tree
        if len(line.targets) > 1:
            return self._unpack(line, tree)
        target = line.targets[0]
        self._evaluate(tree, target, line.named)
        return [target.text]

    def _unpack(self, line: Line, tree: Tree) -> list[str]:
        """`q, r = qr(A)`: a copy of each result."""
        source = self._evaluate(tree)
        results = self._results(source, len(line.targets), tree.at)
        assert isinstance(source, Ref)
        kept = []
        for target, result in zip(line.targets, results, strict=False):
            if target.text != "_" or target.kind == QUOTED:
                copy = _Bound(ops.find(COPY), (), {}, target.at, target=target, named=line.named)
                self._emit(copy, (source._replace(result=result),))
                kept.append(target.text)
        if not kept:
            raise self._error("every result is skipped; name one", line.at)
        return kept

    def _results(self, source: Argument, count: int, at: int) -> tuple[str, ...]:
        statement = self.statements.get(source.name) if isinstance(source, Ref) and source.result is None else None
        if statement is None or not has_several(statement.op):
            what = f"{statement.op.name} has one result" if statement is not None else "this is one value"
            raise self._error(f"{what}; it cannot be unpacked into {count} names", at)
        op, names = statement.op, self._names_of(statement)
        if names and len(names) != count:
            several = f"{len(names)} results ({', '.join(names)})"
            raise self._error(f"{op.name} has {several}, but {count} names are given; _ skips a result", at)
        return names or tuple(map(str, range(count)))

    def _names_of(self, statement: Statement) -> tuple[str, ...]:
        """Names of the results of a statement that has several."""
        return results_of(statement, self.functions)

    def _every_result(self, names: Sequence[str]) -> tuple[tuple[str, Ref], ...]:
        refs = [ref for name in names for ref in self._spread(Ref(name))]
        return tuple((str(ref), ref) for ref in refs)

    def _spread(self, ref: Ref) -> list[Ref]:
        """The results of a statement that has several; else the reference itself."""
        statement = self.statements.get(ref.name) if ref.result is None else None
        if statement is None or not has_several(statement.op):
            return [ref]
        return [ref._replace(result=result) for result in self._names_of(statement)] or [ref]

    # Outputs

    def _outputs(self, items: Sequence[Item]) -> tuple[tuple[str, Ref], ...]:
        is_alone = len(items) == 1
        refs, names = [], []
        for item in items:
            refs.append(self._output(item.tree))
            kept = kept_name(refs[-1], is_alone, self.statements) if _is_reference(item.tree) else None
            names.append(item.label.text if item.label is not None else kept)
        outputs: dict[str, Ref] = {}
        for item, ref, name in zip(items, refs, output_names(names, self.names), strict=True):
            spread = [ref] if _is_quoted(item.tree) else self._spread(ref)
            for each in spread:
                self._add_output(outputs, name if each == ref else f"{name}.{each.result}", each, item)
        return tuple(outputs.items())

    def _add_output(self, outputs: dict[str, Ref], name: str, ref: Ref, item: Item) -> None:
        if name in outputs and self.is_function and item.label is None:
            name = next(each for each in numbered(name) if each not in outputs)
        if name in outputs:
            raise self._error(f"two outputs are called {shown(name)}", (item.label or item.tree).at)
        outputs[name] = ref

    def _output(self, tree: Tree) -> Ref:
        value = self._evaluate(tree)
        return value if isinstance(value, Ref) else self._emit(_Bound(ops.find(COPY), (), {}, tree.at), (value,))

    # Expressions

    def _evaluate(self, root: Tree, target: Token | None = None, named: bool = False) -> Argument:
        """Emit what an expression needs; what stands for its value. The last statement bears the target's name."""
        todo: list[_Step] = [root]
        done: list[Argument] = []
        while todo:
            step = todo.pop()
            if isinstance(step, _Bound):
                count = len(step.operands)
                arguments = tuple(done[len(done) - count :])
                del done[len(done) - count :]
                self._check_operands(step.operands, arguments)
                done.append(self._emit(step, arguments))
            elif isinstance(step, _Choice):
                done[-1] = self._choose(done[-1], step.result)
            else:
                opened = self._open(step)
                if not isinstance(opened, list):
                    done.append(opened)
                    continue
                if step is root and target is not None and isinstance(opened[-1], _Bound):
                    opened[-1].target, opened[-1].named, target = target, named, None
                todo.extend(reversed(opened))
        if target is not None:
            self._check_operands([root], done)
            return self._emit(_Bound(ops.find(COPY), (), {}, root.at, target=target, named=named), (done[0],))
        return done[0]

    def _open(self, tree: Tree) -> Argument | list[_Step]:
        """What a tree stands for; or, where that is yet to be computed, the steps that do."""
        if isinstance(tree, Literal):
            return self._constant(tree)
        if isinstance(tree, Name):
            return self._reference(tree)
        if isinstance(tree, Result):
            if isinstance(tree.tree, Name):
                return self._choose(self._reference(tree.tree), tree)
            return [tree.tree, _Choice(tree)]
        if isinstance(tree, Items):
            return self._steps(_Bound(ops.find(LIST), [_as_items(each) for each in tree.trees], {}, tree.at))
        if tree.name == TENSOR and not tree.quoted:
            return self._tensor_call(tree)
        if tree.name == NO_GRAD and not tree.quoted:
            return self._no_grad(tree)
        return self._steps(self._bound(tree))

    def _steps(self, bound: _Bound) -> list[_Step]:
        count, most = len(bound.operands), self.limits.arity
        if count > most:
            raise self.source.located(LimitExceeded("arity", most, count, f"operands of {bound.op.name}"), bound.at)
        return [*bound.operands, bound]

    def _no_grad(self, call: Call) -> Argument | list[_Step]:
        inner: Tree = call
        while isinstance(inner, Call) and inner.name == NO_GRAD and not inner.quoted:
            if len(inner.operands) != 1 or inner.keywords:
                raise self._error("no_grad takes one expression", inner.at)
            inner = inner.operands[0]
        if isinstance(inner, Result) and isinstance(inner.tree, Call):
            return [Call(NO_GRAD, call.at, [inner.tree]), _Choice(inner)]
        opened = self._open(inner)
        if not isinstance(opened, list):
            return self._steps(_Bound(ops.find(DETACH), [inner], {}, call.at))
        assert isinstance(opened[-1], _Bound)
        opened[-1].no_grad = True
        return opened

    def _emit(self, bound: _Bound, inputs: tuple[Argument, ...]) -> Ref:
        target = bound.target
        if target is not None and target.text in self.parameters:
            raise self._error(f"{shown(target.text)} is a parameter of the function; choose another name", target.at)
        if target is not None and target.text in self.statements:
            line, _ = self.source.place(self.assigned[target.text].at)
            detail = f"{shown(target.text)} was assigned on line {line} already; choose another name"
            raise self._error(detail, target.at)
        if len(self.statements) >= self.room:
            raise LimitExceeded("nodes", self.limits.nodes, self.limits.nodes + 1, "nodes of the graph")
        name = target.text if target is not None else next(self.made_up)
        statement = Statement(name, bound.op, inputs, bound.attrs, bound.no_grad, bound.named)
        self.statements[name] = statement
        self.positions[name] = bound.at
        return Ref(name)

    def _check_operands(self, trees: Sequence[Tree], arguments: Sequence[Argument]) -> None:
        """Refuse several results where one value is due. What is quoted is checked when the graph is built."""
        for tree, argument in zip(trees, arguments, strict=True):
            several = self._spread(argument) if isinstance(argument, Ref) and not _is_quoted(tree) else []
            if len(several) > 1:
                what = shown(tree.text) if isinstance(tree, Name) else self.statements[several[0].name].op.name
                names = ", ".join(str(ref.result) for ref in several)
                one = f"{tree.text if isinstance(tree, Name) else what + '(…)'}.{several[0].result}"
                raise self._error(f"{what} has several results ({names}); take one, as in {one}", tree.at)

    # Leaves

    def _reference(self, name: Name) -> Ref:
        if name.text in self.assigned and name.text not in self.statements and not name.quoted:
            at = self.assigned[name.text].at
            if self.line.at <= at < name.at:
                where = "in its own assignment; give the new value another name"
            else:
                where = f"before it is assigned ({self.source.where(at)})"
            raise self._error(f"{shown(name.text)} is used {where}", name.at)
        return Ref(name.text)

    def _choose(self, source: Argument, result: Result) -> Ref:
        if not isinstance(source, Ref) or source.result is not None:
            raise self._error("this is one value: it has no results to choose from", result.at)
        statement = self.statements.get(source.name)
        if not result.quoted and (statement is None or not self._has_result(statement, result.name)):
            raise self._error(self._no_result(source, statement, result), result.at)
        return source._replace(result=result.name)

    def _has_result(self, statement: Statement, name: str) -> bool:
        return has_result(statement.op, name) or name in self._names_of(statement)

    def _no_result(self, source: Ref, statement: Statement | None, result: Result) -> str:
        if statement is None:
            return f"{shown(source.name)} is a graph input: it has no results to choose from"
        results = ", ".join(self._names_of(statement))
        if results:
            return f"{statement.op.name} has no result {shown(result.name)}; it has: {results}"
        if statement.op.expand is not None:
            return f"{statement.op.name} has no result {shown(result.name)}; its results are numbered from 0"
        return f"{statement.op.name} has one result: nothing to choose from"

    def _constant(self, literal: Literal) -> Argument:
        value = literal.value
        if isinstance(value, list):
            return self._tensor(value, literal.at)
        if isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return value if INT64_MIN <= value <= INT64_MAX else float(value)
        what = "null" if value is None else "a string" if isinstance(value, str) else "a tuple"
        raise self._error(f"{what} is no operand; only attributes take it", literal.at)

    def _tensor(self, value: Any, at: int) -> Tensor:
        try:
            return read_tensor(value)
        except EngineError as error:
            raise self._error(error.detail, at) from error

    def _tensor_call(self, call: Call) -> Tensor:
        """`asarray(data, dtype, shape)`: the fields of a tensor's JSON form."""
        fields: dict[str, Any] = {}
        named = [(name, None, tree) for name, tree in zip(TENSOR_FIELDS, call.operands, strict=False)]
        for name, token, tree in [*named, *((token.text, token, tree) for token, tree in call.keywords)]:
            if name not in TENSOR_FIELDS or name in fields:
                wrong = f"has no argument {shown(name)}" if name not in fields else f"got {name} twice"
                raise self._error(f"{TENSOR} {wrong}; it has: {', '.join(TENSOR_FIELDS)}", (token or tree).at)
            if not isinstance(tree, Literal):
                raise self._error(f"{TENSOR} takes literals alone; astype gives an expression a dtype", tree.at)
            fields[name] = tree.value
        if len(call.operands) > len(TENSOR_FIELDS):
            raise self._error(f"{TENSOR} takes at most {len(TENSOR_FIELDS)} arguments", call.operands[-1].at)
        if fields.get("data", 0) is None:
            raise self._error("null is no tensor", call.at)
        self._bound_shape(fields.get("shape"))
        return self._tensor(fields, call.at)

    def _bound_shape(self, shape: Any) -> None:
        """Refuse what no array can have, not even one without elements. Other shapes have as many as the text."""
        listed = shape if isinstance(shape, list | tuple) else []
        if len(listed) > self.limits.rank:
            raise LimitExceeded("rank", self.limits.rank, len(listed), "axes of a tensor")
        sizes = [size for size in listed if type(size) is int and size > 0]
        if math.prod(sizes) > self.limits.elements:
            raise LimitExceeded("elements", self.limits.elements, math.prod(sizes), "elements of a tensor")

    # Arguments

    def _bound(self, call: Call) -> _Bound:
        if call.name in self.functions and not call.quoted:
            return self._called(call, self.functions[call.name])
        try:
            op = ops.find(call.name)
        except EngineError as error:
            raise self.source.located(error, call.at) from None
        given = self._by_keyword(op, call) if call.quoted else self._by_name(op, call)
        literals = {name: trees[0] for name, trees in given.items() if name in op.attrs}
        attrs = {name: self._attribute(op, name, tree) for name, tree in literals.items()}
        try:
            op.read_attrs(attrs)
        except EngineError as error:
            blamed = literals.get((error.pointer or "").removeprefix("/attrs/"), call)
            raise self.source.located(error, blamed.at) from None
        operands = call.operands if call.quoted else [tree for each in op.operands for tree in given.get(each.name, ())]
        return _Bound(op, operands, attrs, call.at)

    def _called(self, call: Call, function: Function) -> _Bound:
        """A function by its own name, with operands in their order or by name."""
        names = function.parameters
        given: dict[str, Tree] = {}
        if len(call.operands) > len(names):
            raise self._error(f"{call.name} takes {_usage(names)}, got {len(call.operands)} operands", call.at)
        given.update(zip(names, call.operands, strict=False))
        for token, tree in call.keywords:
            if token.text not in names or token.text in given:
                wrong = "got {} twice" if token.text in given else "has no parameter {}"
                detail = f"{call.name} {wrong.format(shown(token.text))}; it takes {_usage(names)}"
                raise self._error(detail, token.at)
            given[token.text] = tree
        missing = [name for name in names if name not in given]
        if missing:
            raise self._error(f"{call.name} takes {_usage(names)}: {', '.join(missing)} is missing", call.at)
        return _Bound(ops.find(CALL), [given[name] for name in names], {"function": call.name}, call.at)

    def _function_name(self, op: Op, name: str, tree: Tree) -> str:
        text = tree.text if isinstance(tree, Name) else tree.value if isinstance(tree, Literal) else None
        if isinstance(text, str) and text in self.functions:
            return text
        known = ", ".join(self.functions)[:150] or "none"
        raise self._error(f"{name} of {op.name} is a function that is defined above it; there is: {known}", tree.at)

    def _attribute(self, op: Op, name: str, tree: Tree) -> Any:
        if op.attrs[name].names_function:
            return self._function_name(op, name, tree)
        if not isinstance(tree, Literal):
            hint = f', such as "{tree.text[:40]}"' if isinstance(tree, Name) else ""
            raise self._error(f"{name} of {op.name} is an attribute: it takes a literal{hint}", tree.at)
        if tree.depth > _MOST_ATTR_LISTS:
            raise self._error(f"{name} of {op.name} takes no lists as deep as this", tree.at)
        return tree.value

    def _by_name(self, op: Op, call: Call) -> dict[str, Sequence[Tree]]:
        """Arguments by the name of the operand or attribute that they are. A variadic operand has several."""
        names = signature(op)
        variadic = op.operands[-1].name if op.is_variadic else None
        alone = len(names) if variadic is None else names.index(variadic)
        bound: dict[str, Sequence[Tree]] = {
            name: [tree] for name, tree in zip(names[:alone], call.operands, strict=False)
        }
        if len(call.operands) > alone:
            if variadic is None:
                detail = f"{op.name} takes {_usage(names)}, got {len(call.operands)} arguments"
                raise self._error(detail, call.operands[alone].at)
            bound[variadic] = call.operands[alone:]
        if variadic == names[0] and len(call.operands) == 1:
            bound[variadic] = _parts(call.operands[0])
        for token, tree in call.keywords:
            self._check_keyword(op, token, names, bound)
            bound[token.text] = _parts(tree) if token.text == variadic else [tree]
        for operand in op.operands:
            if operand.default is not None and _is_left_out(bound.get(operand.name)):
                bound[operand.name] = [Literal(operand.default, call.at)]
        missing = [each.name for each in op.operands if not bound.get(each.name) and not each.may_lack]
        if missing:
            raise self._error(f"{op.name} takes {_usage(names)}: {', '.join(missing)} is missing", call.at)
        return bound

    def _by_keyword(self, op: Op, call: Call) -> dict[str, Sequence[Tree]]:
        """The attributes of a quoted call, whose operands are all that has no keyword."""
        bound: dict[str, Sequence[Tree]] = {}
        for token, tree in call.keywords:
            self._check_keyword(op, token, tuple(op.attrs), bound)
            bound[token.text] = [tree]
        return bound

    def _check_keyword(self, op: Op, token: Token, names: Sequence[str], given: dict[str, Sequence[Tree]]) -> None:
        if token.text not in names:
            near = difflib.get_close_matches(token.text[:64], names, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            detail = f"{op.name} has no argument {shown(token.text)}{hint}; it takes {_usage(names)}"
            raise self.source.located(UnknownAttribute(detail), token.at)
        if token.text in given:
            raise self._error(f"{op.name} got {token.text} twice", token.at)


def _is_left_out(trees: Sequence[Tree] | None) -> bool:
    """Whether an operand is not there, or null."""
    return trees is None or (len(trees) == 1 and isinstance(trees[0], Literal) and trees[0].value is None)


def _usage(names: Sequence[str]) -> str:
    return ", ".join(names)[:_LONGEST_USAGE] or "no arguments"


def _parts(tree: Tree) -> Sequence[Tree]:
    """The operands of a variadic op that came as one list."""
    if isinstance(tree, Items):
        return tree.trees
    if isinstance(tree, Literal) and isinstance(tree.value, list):
        return [Literal(value, tree.at) for value in tree.value]
    return [tree]


def _as_items(tree: Tree) -> Tree:
    """A list within a list that is no constant: stacked like it, so that its numbers stay weak."""
    if isinstance(tree, Literal) and isinstance(tree.value, list) and tree.value:
        return Items([Literal(value, tree.at) for value in tree.value], tree.at)
    return tree


def _is_reference(tree: Tree) -> bool:
    return isinstance(tree, Name) or (isinstance(tree, Result) and isinstance(tree.tree, Name))


def _is_quoted(tree: Tree) -> bool:
    return isinstance(tree, Name) and tree.quoted
