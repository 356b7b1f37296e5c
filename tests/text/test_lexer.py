"""Characters to tokens: what a dot, a newline, a quote and a digit mean."""

from __future__ import annotations

import pytest

from engine.errors import ExpressionError, LimitExceeded
from engine.limits import Limits
from engine.text.lexer import Source, read_number, tokens_of


def words(text: str) -> list[str]:
    return [token.text for token in tokens_of(Source.of(text), Limits())[:-1]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a**b*c//d/e", "a ** b * c // d / e"),
        ("a<=b<c==d!=e:=f", "a <= b < c == d != e := f"),
        ("x[..., 1:]", "x [ ... , 1 : ]"),
        ("2*.5 + 3. - 1e-3", "2 * .5 + 3. - 1e-3"),
        ("d.0+f(x).1+x[0].2+`a-b`.3", "d . 0 + f ( x ) . 1 + x [ 0 ] . 2 + a-b . 3"),
        ("a # b; c\n# d\ne", "a \n \n e"),
        ("f(a,\n b)\nc", "f ( a , b ) \n c"),
        ("a\r\nb\rc;d", "a \r\n b \r c ; d"),
    ],
)
def test_words(text: str, expected: str) -> None:
    """Longest operators first; a dot belongs to a number unless an operand stands before it."""
    assert words(text) == expected.split(" ")


def test_escapes_are_undone_in_all_quotes() -> None:
    assert words(r""""a\n\"'" 'b\'\\' `c\u0069\U0001F600` """) == ["a\n\"'", "b'\\", "ci😀"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3.0", 3.0),
        ("1e2", 100.0),
        ("007", 7),
        ("2j", 2),
        ("2.5e1j", 25.0),
        ("18446744073709551615", 2**64 - 1),
        ("1" * 5000 + "e-4990", 1.1111111111e9),
        ("100000000000000000000000", 1e23),
    ],
)
def test_numbers(text: str, value: int | float) -> None:
    """Whole numbers stay whole as far as a dtype goes, and only so far."""
    source = Source.of(text)
    read = read_number(source, tokens_of(source, Limits())[0])
    assert type(read) is type(value)
    assert read == pytest.approx(value)


def test_lines_and_columns_count_from_one_in_characters() -> None:
    source = Source.of("é\r\n\rab\nc")
    assert [source.place(at) for at in (0, 1, 3, 4, 5, 7, 8)] == [
        (1, 1),
        (1, 2),
        (2, 1),
        (3, 1),
        (3, 2),
        (4, 1),
        (4, 2),
    ]


@pytest.mark.parametrize(
    ("text", "column", "part"),
    [
        ("2x", 1, "a product is written 2*x"),
        ("a + 1_000", 5, "'1_000' is not a number"),
        ("1.2.3", 1, "is not a number"),
        ("1e5.x", 1, "is not a number"),
        ("d.0.5", 3, "is not a number"),
        ("a ? b", 3, "unexpected character '?' (U+003F)"),
        ("θ", 1, "unexpected character 'θ'"),
        ("a\x00", 2, "unexpected character '\\x00'"),
        ("a = '\n'", 5, "expected ' to close"),
        ('"\\q"', 2, "is not an escape"),
        ('"\\ud800"', 2, "is not an escape"),
        ('"\\U00110000"', 2, "is not an escape"),
    ],
)
def test_refusals(text: str, column: int, part: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        words(text)
    assert (caught.value.line, caught.value.column) == (1, column)
    assert part in caught.value.detail


def test_nesting_is_bounded_before_anything_is_parsed() -> None:
    deep = Limits(expression_nesting=3)
    tokens_of(Source.of("([(1)] + (2))"), deep)
    with pytest.raises(LimitExceeded) as caught:
        tokens_of(Source.of("f(g(h(x[0])))"), deep)
    assert caught.value.name == "expression_nesting"
