"""Tokens to lines of trees: syntax alone. What names and ops mean is engine.text.lowering's.

Operator precedence with explicit stacks: every open bracket is a `_Open` with the operands and operators that wait
inside it, so depth costs memory, never the call stack. Literals fold as they are read: a sign into its number, a
list of literals into one literal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from engine.attrs import NON_FINITE
from engine.errors import ExpressionError
from engine.program import ID, ID_MEANING
from engine.text.grammar import COMPARISON, CONSTANTS, IMAGINARY, INDEX, INFIX, POWER, PREFIX, SIGN, WORDS
from engine.text.lexer import (
    BREAK,
    END,
    MARK,
    NAME,
    NUMBER,
    QUOTED,
    STRING,
    Source,
    Token,
    described,
    read_number,
    shown,
)

CLOSING = {"(": ")", "[": "]"}
_BRACES = {"{": 1, "}": -1}
DEEPEST_LITERAL = 64
"""Lists within lists of one literal; NumPy has no more axes."""
_INSTEAD = {"and": "&", "or": "|", "not": "~"}


@dataclass(eq=False, repr=False, slots=True)
class Literal:
    """A number, boolean, string or null, or a list or tuple of literals. `depth` counts the lists."""

    value: Any
    at: int
    depth: int = 0

    @property
    def is_number(self) -> bool:
        return type(self.value) in (int, float)


@dataclass(eq=False, repr=False, slots=True)
class Name:
    """A node or a graph input."""

    text: str
    at: int
    quoted: bool = False


@dataclass(eq=False, repr=False, slots=True)
class Items:
    """A list that holds more than literals."""

    trees: list[Tree]
    at: int


@dataclass(eq=False, repr=False, slots=True)
class Call:
    """An op by name; operators and indices are calls, too. A quoted name takes its operands as they stand."""

    name: str
    at: int
    operands: list[Tree] = field(default_factory=list)
    keywords: list[tuple[Token, Tree]] = field(default_factory=list)
    quoted: bool = False


@dataclass(eq=False, repr=False, slots=True)
class Result:
    """One result of a name or a call."""

    tree: Name | Call
    name: str
    at: int
    quoted: bool = False


Tree: TypeAlias = "Literal | Name | Items | Call | Result"


@dataclass(frozen=True)
class Item:
    """One expression of a line, with the name it is to have among the outputs, where one is given."""

    label: Token | None
    tree: Tree


@dataclass(frozen=True)
class Line:
    """One statement: names to assign, and whether they are to be nodes of their own; and what it says."""

    targets: Sequence[Token]
    named: bool
    items: Sequence[Item]
    at: int


@dataclass(eq=False)
class Scope:
    """The names of a text, or of a function in it: those that it assigns, and where; its parameters; all of them."""

    assigned: dict[str, Token] = field(default_factory=dict)
    parameters: Sequence[str] = ()
    names: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Definition:
    """A function: its name, and its lines, which have a scope of their own."""

    name: Token
    scope: Scope
    lines: Sequence[Line]


class _Pending(NamedTuple):
    """An operator that waits for its right operand."""

    token: Token
    precedence: int
    is_prefix: bool


@dataclass(eq=False)
class _Open:
    """An open bracket, or the line itself: items that are complete, and the stacks of the one that is not."""

    token: Token | None = None
    call: Call | None = None
    items: list[Tree] = field(default_factory=list)
    values: list[Tree] = field(default_factory=list)
    pending: list[_Pending] = field(default_factory=list)
    keyword: Token | None = None
    has_comma: bool = False


class Parser:
    """One text. `outer` is its own scope, `scope` that of the function that is being read, or the same."""

    def __init__(self, source: Source, tokens: Sequence[Token]) -> None:
        self.source = source
        self.tokens = tokens
        self.marks = [token.text if token.kind == MARK else "" for token in tokens]
        """What each token is a mark of, if it is one: nearly every question is after that."""
        self.at = 0
        self.opened: list[_Open] = []
        self.scope = self.outer = self._scope(0, ())

    def _scope(self, start: int, parameters: Sequence[str]) -> Scope:
        """The names that lines from `start` on assign, up to the end of their block."""
        # Known before anything else is read: an assigned name is no constant, wherever it stands.
        assigned: dict[str, Token] = {}
        depth, is_first = 0, True
        for at in range(start, len(self.tokens)):
            mark = self.marks[at]
            if mark in _BRACES:
                depth += _BRACES[mark]
                if depth < 0:
                    break
            if is_first and depth == 0 and not mark:
                for target in self._targets(at):
                    assigned.setdefault(target.text, target)
            is_first = not mark and self.tokens[at].kind == BREAK
        return Scope(assigned, parameters, {*assigned, *parameters})

    def _targets(self, at: int) -> list[Token]:
        """The names before an assignment that starts here; none where there is no assignment."""
        targets = []
        while self.tokens[at].kind in (NAME, QUOTED):
            targets.append(self.tokens[at])
            if self.marks[at + 1] in ("=", ":="):
                return targets
            if self.marks[at + 1] != ",":
                break
            at += 2
        return []

    # Lines

    def lines(self) -> tuple[list[Definition], list[Line]]:
        """Every function, and every statement outside of them. Raises ExpressionError."""
        definitions: list[Definition] = []
        lines: list[Line] = []
        while True:
            self._skip_breaks()
            if self._token.kind == END:
                break
            parameters = self._head()
            if parameters is None:
                lines.append(self._line())
            else:
                definitions.append(self._definition(parameters))
        if not lines:
            found = "functions alone" if definitions else "nothing"
            raise self._error(f"expected an expression, found {found}", self.tokens[-1])
        return definitions, lines

    def _skip_breaks(self) -> None:
        while self._token.kind == BREAK:
            self.at += 1

    # Functions

    def _head(self) -> list[Token] | None:
        """The parameters of a function whose definition starts here: `f(x, y) =`. None where none does."""
        if self._token.kind not in (NAME, QUOTED) or not self._ahead.is_mark("("):
            return None
        at, parameters = self.at + 2, []
        while self.tokens[at].kind in (NAME, QUOTED) and self.tokens[at + 1].is_mark(",", ")"):
            parameters.append(self.tokens[at])
            at += 1 if self.tokens[at + 1].is_mark(")") else 2
        is_head = self.tokens[at].is_mark(")") and self.tokens[at + 1].is_mark("=")
        return parameters if is_head else None

    def _definition(self, parameters: Sequence[Token]) -> Definition:
        name, seen = self._token, set[str]()
        self._check_name(name, "be a function")
        for token in parameters:
            self._check_name(token, "be a parameter")
            if token.text in seen:
                raise self._error(f"two parameters are called {shown(token.text)}", token)
            seen.add(token.text)
        while not self._token.is_mark("="):
            self.at += 1
        self.at += 1
        names = [token.text for token in parameters]
        if self._token.is_mark("{"):
            self.scope = self._scope(self.at + 1, names)
            lines = self._block(name)
        else:
            self.scope = Scope({}, names, set(names))
            lines = [self._line()]
        scope, self.scope = self.scope, self.outer
        return Definition(name, scope, lines)

    def _block(self, name: Token) -> list[Line]:
        opening, lines = self._next(), []
        while True:
            self._skip_breaks()
            if self._token.is_mark("}"):
                break
            if self._token.kind == END:
                where = self.source.where(opening.at)
                raise self._error(f"expected '}}' to close '{{' of {where}", self._token)
            if self._head() is not None:
                raise self._error("a function is defined outside of others", self._token)
            lines.append(self._line())
        if not lines:
            raise self._error(f"the function {shown(name.text)} gives nothing: its last line says what", self._token)
        self.at += 1
        if self._token.kind not in (BREAK, END):
            raise self._unexpected(self._token)
        return lines

    @property
    def _token(self) -> Token:
        return self.tokens[self.at]

    def _next(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def _error(self, detail: str, token: Token) -> ExpressionError:
        return self.source.error(detail, token.at)

    def _line(self) -> Line:
        start, targets, named = self._token.at, self._targets(self.at), True
        if targets:
            self.at += 2 * len(targets)
            named = self.tokens[self.at - 1].text == "="
            for target in targets:
                self._check_name(target, "be assigned")
        items = [self._item()]
        while self._token.is_mark(","):
            self.at += 1
            items.append(self._item())
        if self._token.kind not in (BREAK, END) and not (self._token.is_mark("}") and self.scope is not self.outer):
            raise self._unexpected(self._token)
        if targets and len(items) > 1:
            raise self._error(
                "an assignment takes one expression; write one statement for each", self.tokens[self.at - 1]
            )
        return Line(targets, named, items, start)

    def _item(self) -> Item:
        label = self._token if self._token.kind in (NAME, QUOTED) and self._ahead.is_mark(":") else None
        if label is not None:
            self.scope.names.add(label.text)
            self.at += 2
        return Item(label, self._expression())

    @property
    def _ahead(self) -> Token:
        return self.tokens[min(self.at + 1, len(self.tokens) - 1)]

    def _check_name(self, token: Token, purpose: str) -> None:
        if token.kind == NAME and token.text in WORDS:
            raise self._error(f"{token.text} cannot {purpose}: it is a word of the language", token)
        if not ID.match(token.text) or token.text in NON_FINITE:
            wanted = f"a name is {ID_MEANING} (in backticks)"
            raise self._error(f"{shown(token.text)} cannot {purpose}: {wanted}", token)

    def _unexpected(self, token: Token) -> ExpressionError:
        if token.is_mark(")", "]", "}"):
            return self._error(f"{token.text} closes nothing: no bracket is open", token)
        if token.is_mark("=", ":="):
            return self._error("only a name at the start of a line can be assigned; equality is written ==", token)
        hint = self._hint(token)
        return self._error(f"expected an operator or the end of the line, found {described(token)}{hint}", token)

    def _hint(self, token: Token) -> str:
        """What other languages have words for."""
        known = next((each.text for each in (token, self.tokens[self.at - 1]) if each.text in _INSTEAD), None)
        return "" if known is None else f"; {shown(known)} is written {_INSTEAD[known]}"

    # Expressions

    def _expression(self) -> Tree:
        self.opened = [_Open()]
        while True:
            self._operand()
            if not self._continues():
                break
        self._reduce(0)
        return self.opened[0].values[0]

    def _operand(self) -> None:
        """Read signs and opening brackets, up to and with one operand."""
        while True:
            within = self.opened[-1]
            if within.call is not None and not within.values and not within.pending:
                self._keyword(within)
            mark, token = self.marks[self.at], self._next()
            if mark in PREFIX:
                within.pending.append(_Pending(token, SIGN, True))
            elif mark in CLOSING:
                self.opened.append(_Open(token))
            elif token.kind in (NAME, QUOTED) and self.marks[self.at] == "(":
                self.opened.append(_Open(self._next(), Call(token.text, token.at, quoted=token.kind == QUOTED)))
            elif mark != "+":
                within.values.append(self._leaf(token))
                return
            if self.opened[-1] is not within and self.marks[self.at] == CLOSING[self.marks[self.at - 1]]:
                self._close()
                return

    def _keyword(self, within: _Open) -> None:
        if self._token.kind == NAME and self.marks[self.at + 1] == "=" and within.keyword is None:
            within.keyword = self._next()
            self.at += 1

    def _leaf(self, token: Token) -> Tree:
        if token.kind == NUMBER:
            number = Literal(read_number(self.source, token), token.at)
            return Call(IMAGINARY, token.at, [Literal(0, token.at), number]) if token.is_imaginary else number
        if token.kind == STRING:
            return Literal(token.text, token.at)
        if token.kind == NAME and token.text in WORDS:
            return Literal(WORDS[token.text], token.at)
        if token.kind == NAME and token.text in CONSTANTS and not self._is_bound(token.text):
            return Literal(CONSTANTS[token.text], token.at)
        if token.kind in (NAME, QUOTED):
            self._check_name(token, "stand for a node or an input")
            self.scope.names.add(token.text)
            return Name(token.text, token.at, token.kind == QUOTED)
        raise self._no_operand(token)

    def _is_bound(self, name: str) -> bool:
        scope = self.scope
        return name in scope.assigned or name in scope.parameters or name in self.outer.assigned

    def _no_operand(self, token: Token) -> ExpressionError:
        within = self.opened[-1]
        before = self.tokens[self.at - 2] if self.at > 1 else None
        is_after = before is not None and before.is_mark(*INFIX, *PREFIX, ",", "=", ":=")
        after = f" after {described(before)}" if before is not None and is_after else ""
        if within.token is not None and token.kind in (BREAK, END):
            return self._error(f"expected an expression{after}, and then {self._wanted_close(within)}", token)
        return self._error(f"expected an expression{after}, found {described(token)}", token)

    def _wanted_close(self, within: _Open) -> str:
        assert within.token is not None
        opening = within.token
        return f"'{CLOSING[opening.text]}' to close '{opening.text}' of {self.source.where(opening.at)}"

    def _continues(self) -> bool:
        """Read what follows an operand, up to where the next one is due (True) or the expression ends (False)."""
        while True:
            within, mark = self.opened[-1], self.marks[self.at]
            if mark == "[":
                self._index(within)
            elif mark == ".":
                self._result(within)
            elif mark in INFIX:
                self._infix(within)
                return True
            elif within.token is None:
                return False
            elif mark == ",":
                self._finish_item(within)
                self.at += 1
                within.has_comma = True
                if self.marks[self.at] != CLOSING[within.token.text]:
                    return True
                self._close()
            elif mark == CLOSING[within.token.text]:
                self._finish_item(within)
                self._close()
            else:
                raise self._unclosed(within, self._token)

    def _unclosed(self, within: _Open, token: Token) -> ExpressionError:
        assert within.token is not None
        if token.is_mark("=") and within.call is not None:
            return self._error(
                "a keyword is one name before '=', once for each argument; equality is written ==", token
            )
        hint = self._hint(token)
        wanted = f"an operator, ',' or {self._wanted_close(within)}"
        return self._error(f"expected {wanted}, found {described(token)}{hint}", token)

    def _infix(self, within: _Open) -> None:
        token = self._next()
        precedence = INFIX[token.text].precedence
        self._reduce(precedence + (precedence in (COMPARISON, POWER)))
        if precedence == COMPARISON and within.pending and within.pending[-1].precedence == COMPARISON:
            raise self._error("comparisons do not chain; write (a < b) & (b < c)", token)
        within.pending.append(_Pending(token, precedence, False))

    def _reduce(self, least: int) -> None:
        """Apply the operators that bind at least as tightly."""
        pending, values = self.opened[-1].pending, self.opened[-1].values
        while pending and pending[-1].precedence >= least:
            token, _, is_prefix = pending.pop()
            right = values.pop()
            if is_prefix:
                values.append(_signed(token, right))
            else:
                values[-1] = Call(INFIX[token.text].op, token.at, [values[-1], right])

    def _finish_item(self, within: _Open) -> None:
        self._reduce(0)
        tree = within.values.pop()
        if within.keyword is not None and within.call is not None:
            within.call.keywords.append((within.keyword, tree))
            within.keyword = None
        elif within.call is not None and within.call.keywords:
            raise self.source.error("an argument without a keyword cannot follow one with a keyword", tree.at)
        else:
            within.items.append(tree)

    def _close(self) -> None:
        closed = self.opened.pop()
        self.at += 1
        self.opened[-1].values.append(self._closed(closed))

    def _closed(self, closed: _Open) -> Tree:
        assert closed.token is not None
        if closed.call is not None:
            closed.call.operands = closed.items
            return closed.call
        is_list = closed.token.text == "["
        if not is_list and len(closed.items) == 1 and not closed.has_comma:
            return closed.items[0]
        literals = [tree for tree in closed.items if isinstance(tree, Literal)]
        if len(literals) == len(closed.items):
            return self._literal_list(literals, closed.token)
        if not is_list:
            raise self._error("a tuple takes literals alone; a list in [ ] takes expressions", closed.token)
        return Items(closed.items, closed.token.at)

    def _literal_list(self, literals: Sequence[Literal], token: Token) -> Literal:
        depth = 1 + max((literal.depth for literal in literals), default=0)
        if depth > DEEPEST_LITERAL:
            raise self._error(f"a literal takes at most {DEEPEST_LITERAL} lists within lists", token)
        values = [literal.value for literal in literals]
        return Literal(values if token.text == "[" else tuple(values), token.at, depth)

    def _result(self, within: _Open) -> None:
        dot, token, tree = self._next(), self._next(), within.values[-1]
        if token.kind not in (NAME, NUMBER, QUOTED):
            raise self._error(f"expected the name or number of a result after '.', found {described(token)}", token)
        if not isinstance(tree, Name | Call):
            raise self._error("only an op with several results has results to choose from", dot)
        within.values[-1] = Result(tree, token.text, token.at, token.kind == QUOTED)

    # Indices

    def _index(self, within: _Open) -> None:
        opening = self._next()
        items = [self._index_item()]
        while self._token.is_mark(","):
            self.at += 1
            if self._token.is_mark("]"):
                break
            items.append(self._index_item())
        if not self._token.is_mark("]"):
            raise self._odd_index(self._token, opening)
        self.at += 1
        index = Literal(items, opening.at)
        within.values[-1] = Call(INDEX, opening.at, [within.values[-1]], [(Token(NAME, "index", opening.at), index)])

    def _index_item(self) -> Any:
        if self._token.is_mark("..."):
            return self._next().text
        if self._token.kind == NAME and self._token.text in ("None", "null", "newaxis"):
            self.at += 1
            return None
        parts = [self._index_part()]
        while self._token.is_mark(":") and len(parts) < 3:
            self.at += 1
            parts.append(self._index_part())
        if len(parts) > 1:
            return parts + [None] * (3 - len(parts))
        if parts == [None]:
            raise self._odd_index(self._token, None)
        return parts[0]

    def _index_part(self) -> int | None:
        sign = self._next() if self._token.is_mark("-", "+") else None
        if self._token.kind == NUMBER and not self._token.is_imaginary:
            number = read_number(self.source, self._token)
            if isinstance(number, int):
                self.at += 1
                return -number if sign is not None and sign.text == "-" else number
        if sign is not None:
            raise self._odd_index(self._token, None)
        return None

    def _odd_index(self, token: Token, opening: Token | None) -> ExpressionError:
        if token.kind in (BREAK, END) and opening is not None:
            return self._error(f"expected ']' to close '[' of {self.source.where(opening.at)}", token)
        wanted = "an index is made of whole numbers, ':', '...' and newaxis"
        hint = "to index by a tensor, use take(x, indices, axis=0)"
        return self._error(f"{wanted}, found {described(token)}; {hint}", token)


def _signed(token: Token, tree: Tree) -> Tree:
    if token.text == "-" and isinstance(tree, Literal) and tree.is_number:
        # One NaN for all: equal programs hold the very same one, and its sign says nothing.
        return Literal(tree.value if math.isnan(tree.value) else -tree.value, token.at)
    return Call(PREFIX[token.text], token.at, [tree])
