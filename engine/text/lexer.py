"""Characters to tokens. Positions are offsets; lines and columns are worked out only when a message needs them.

A newline counts where no bracket is open, or none but braces. What a dot means depends on what stands before it: `d.0`
is a result of `d`, `2*.5` holds a number. Nothing here knows more of the grammar than that.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from engine.errors import EngineError, ExpressionError, LimitExceeded
from engine.limits import Limits
from engine.text.grammar import ESCAPES

NAME, QUOTED, NUMBER, STRING, MARK, BREAK, END = "name", "quoted", "number", "string", "mark", "break", "end"

_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?j?"
_TOKEN = re.compile(
    rf"""(?P<space>[ \t\f]+|\#[^\r\n]*)
    |(?P<break>\r\n?|\n|;)
    |(?P<plain>{_NUMBER})(?![A-Za-z0-9_.])
    |(?P<number>{_NUMBER})
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<text>"(?:[^"\\\r\n]|\\[^\r\n])*"|'(?:[^'\\\r\n]|\\[^\r\n])*'|`(?:[^`\\\r\n]|\\[^\r\n])*`)
    |(?P<mark>\.\.\.|\*\*|//|<=|>=|==|!=|:=|[-+*/%@^&|~<>=()\[\]{{}},:.])""",
    re.VERBOSE,
)
_AS_IT_STANDS = {"plain": NUMBER, "name": NAME, "mark": MARK, "break": BREAK}
"""Groups whose words are tokens without further ado, unless a dot is about; most of a text is of these."""
_WORD = re.compile(r"[A-Za-z0-9_.]*")
_DIGITS = re.compile(r"[0-9]{1,9}")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))")
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_SHOWN = 40
LONGEST_INTEGER = 20
"""Digits of the largest uint64; an integer of more is a float."""

E = TypeVar("E", bound=EngineError)


class Token(NamedTuple):
    """One word of the text. `text` is what it says: without quotes, and with escapes undone."""

    kind: str
    text: str
    at: int

    def is_mark(self, *marks: str) -> bool:
        return self.kind == MARK and self.text in marks

    @property
    def is_imaginary(self) -> bool:
        return self.kind == NUMBER and self.text.endswith("j")


@dataclass(frozen=True)
class Source:
    """The text, for messages."""

    text: str
    starts: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> Source:
        return cls(text, (0, *(found.end() for found in re.finditer(r"\r\n?|\n", text))))

    def place(self, at: int) -> tuple[int, int]:
        """Line and column of an offset, both counted from 1."""
        line = bisect_right(self.starts, at)
        return line, at - self.starts[line - 1] + 1

    def where(self, at: int) -> str:
        line, column = self.place(at)
        return f"line {line}, column {column}"

    def error(self, detail: str, at: int) -> ExpressionError:
        return ExpressionError(detail, *self.place(at))

    def located(self, error: E, at: int) -> E:
        """The same error, saying where. What the engine reads here has no JSON pointer."""
        error.detail = f"{self.where(at)}: {error.detail}"
        error.args = (error.detail,)
        error.pointer = None
        error.line, error.column = self.place(at)
        return error


def shown(text: str) -> str:
    """A piece of the text for a message: quoted, and not too long."""
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


def described(token: Token) -> str:
    """What a message calls a token."""
    if token.kind == END:
        return "the end of the text"
    if token.kind == BREAK:
        return "';'" if token.text == ";" else "the end of the line"
    return f"the string {shown(token.text)}" if token.kind == STRING else shown(token.text)


def tokens_of(source: Source, limits: Limits) -> list[Token]:
    """The tokens of a text, with one END at last. Raises ExpressionError, LimitExceeded."""
    text, tokens = source.text, list[Token]()
    opened: list[str] = []
    at, size, before = 0, len(text), ""
    while at < size:
        found = _TOKEN.match(text, at)
        kind = _AS_IT_STANDS.get(found.lastgroup or "") if found is not None else None
        if found is None or kind is None or before == "." or text[at] == ".":
            at, token = _token(source, at, tokens)
            if token is None:
                continue
        else:
            token, at = Token(kind, found[0], at), found.end()
        if token.kind == MARK:
            _follow(opened, token.text, limits)
        elif token.kind == BREAK and opened and token.text != ";" and opened[-1] != "{":
            continue
        before = token.text
        tokens.append(token)
    tokens.append(Token(END, "", size))
    return tokens


def _follow(opened: list[str], mark: str, limits: Limits) -> None:
    """Keep account of the brackets that are open."""
    if mark in _OPENING:
        opened.append(mark)
        _bound_nesting(len(opened), limits)
    elif mark in _CLOSING and opened:
        opened.pop()


def _bound_nesting(depth: int, limits: Limits) -> None:
    if depth > limits.expression_nesting:
        raise LimitExceeded("expression_nesting", limits.expression_nesting, depth, "brackets within brackets")


def _token(source: Source, at: int, before: list[Token]) -> tuple[int, Token | None]:
    """Where the token at an offset ends, and the token; None for what is skipped."""
    text = source.text
    if text[at] == "." and before and _ends_operand(before[-1]):
        return at + 1, Token(MARK, ".", at)
    digits = _DIGITS.match(text, at) if before and before[-1].is_mark(".") else None
    if digits is not None:
        return _whole_word(source, at, digits.end()), Token(NUMBER, digits[0], at)
    found = _TOKEN.match(text, at)
    if found is None:
        raise _stray(source, at)
    kind, word = str(found.lastgroup), found[0]
    if kind in ("plain", "number"):
        kind = NUMBER
        _whole_word(source, at, found.end())
    if kind == "text":
        return found.end(), Token(QUOTED if word[0] == "`" else STRING, _unescaped(source, at, word), at)
    return found.end(), None if kind == "space" else Token(kind, word, at)


def _ends_operand(token: Token) -> bool:
    return token.kind in (NAME, QUOTED) or token.is_mark(")", "]")


def _whole_word(source: Source, at: int, end: int) -> int:
    """`end`, unless letters or digits follow: 2x, 1_000 and 1.2.3 are no numbers."""
    found = _WORD.match(source.text, end)
    if found is None or not found[0]:
        return end
    number, rest = source.text[at:end], found[0]
    is_product = rest[0].isalpha() and len(number + rest) < _SHOWN
    hint = f"; a product is written {number}*{rest}" if is_product else ""
    raise source.error(f"{shown(number + rest)} is not a number{hint}", at)


def _stray(source: Source, at: int) -> ExpressionError:
    char = source.text[at]
    if char in "\"'`":
        return source.error(f"expected {char} to close what {char} opens, before the end of the line", at)
    hint = "; 'not' is written ~, and 'not equal' !=" if char == "!" else ""
    return source.error(f"unexpected character {char!r} (U+{ord(char):04X}){hint}", at)


def _unescaped(source: Source, at: int, word: str) -> str:
    if "\\" not in word:
        return word[1:-1]

    def undo(found: re.Match[str]) -> str:
        short, long, letter = found.groups()
        code = int(short or long or "0", 16)
        if (letter is not None and letter not in ESCAPES) or code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise source.error(
                f"{shown(found[0])} is not an escape; a backslash is written \\\\", at + 1 + found.start()
            )
        return ESCAPES[letter] if letter is not None else chr(code)

    return _ESCAPE.sub(undo, word[1:-1])


def read_number(source: Source, token: Token) -> int | float:
    """The number that a token spells, without a j. Raises ExpressionError where float64 has none so large.

    Integers stay exact as far as any dtype does; longer ones are floats, so that nobody can ask for big integers.
    """
    text = token.text.removesuffix("j")
    digits = text.lstrip("0")
    if text.isdecimal() and len(digits) <= LONGEST_INTEGER:
        return int(digits or "0")
    value = float(text)
    if math.isinf(value):
        raise source.error(f"{shown(token.text)} is too large for float64; infinity is written inf", token.at)
    return value
