"""Text to programs: pairs of text and JSON form, a table of refusals, and texts that are meant to hurt."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine.ops  # noqa: F401
from engine.core import Op, ops
from engine.errors import EngineError, ExpressionError, InvalidGraph, LimitExceeded, UnknownAttribute, UnknownOp
from engine.limits import Limits
from engine.program import Program, write_graph
from engine.tensors import Tensor
from engine.text import parse, parse_with_positions


def pairs() -> list[Any]:
    """The blocks of programs.txt: a title, a text, nodes as JSON, outputs as JSON."""
    blocks = Path(__file__).with_name("programs.txt").read_text(encoding="utf-8").split("=== ")[1:]
    split = [(block.split("\n", 1)[0], block.split("\n", 1)[1].split("\n---\n")) for block in blocks]
    return [pytest.param(text, form.strip().split("\n"), id=title) for title, (text, form) in split]


def form(program: Program) -> list[str]:
    """Functions, each headed by its name and parameters; then nodes and outputs, a line each."""
    heads = [[f"{each.name}({', '.join(each.parameters)})", *nodes_of(each.body)] for each in program.functions]
    return [*(line for head in heads for line in head), *nodes_of(program)]


def nodes_of(program: Program) -> list[str]:
    nodes = write_graph(replace(program, functions=()))["nodes"]
    lines = [json.dumps(node, default=np.ndarray.tolist) for node in nodes]
    marks = ["" if statement.named else "  (unnamed)" for statement in program.statements]
    outputs = json.dumps({name: str(ref) for name, ref in program.outputs})
    return [*map("".join, zip(lines, marks, strict=True)), outputs]


@pytest.mark.parametrize(("text", "expected"), pairs())
def test_programs(text: str, expected: list[str]) -> None:
    """Every construct of the language, beside the nodes it stands for."""
    assert form(parse(text, Limits())) == expected


@pytest.mark.parametrize("op", [op for op in ops if op.example], ids=repr)
def test_the_catalogue_s_examples_are_read(op: Op) -> None:
    """The example of an op is text of this language, and shows that op."""
    assert op in [statement.op for statement in parse(op.example, Limits()).statements]


REFUSALS = [
    # Functions
    ("f(x) = x", 1, 9, "found functions alone"),
    ("f(x, x) = x\nf(1, 2)", 1, 6, "two parameters are called 'x'"),
    ("f(x) = x\nf(x) = 2\nf(1)", 2, 1, "two functions are called 'f'"),
    ("f(x) = {\n  y = x\nf(1)", 3, 5, "expected '}' to close '{' of line 1, column 8"),
    ("f(x) = {\n}\nf(1)", 2, 1, "the function 'f' gives nothing"),
    ("f(x) = {\n  g(x) = x\n  g(x)\n}\nf(1)", 2, 3, "a function is defined outside of others"),
    ("f(x) = { x } + 1\nf(1)", 1, 14, "expected an operator or the end of the line"),
    ("f(x) = {\n  x = 2\n  x\n}\nf(1)", 2, 3, "'x' is a parameter of the function"),
    ("f(x) = {\n  sin(x)\n  x\n}\nf(1)", 2, 3, "the value of this statement is not used"),
    ("f(pi, true) = pi\nf(1, 2)", 1, 7, "true cannot be a parameter"),
    ("f(x) = x\nf(1, 2)", 2, 1, "f takes x, got 2 operands"),
    ("f(x, y) = x\nf(1)", 2, 1, "f takes x, y: y is missing"),
    ("f(x) = x\nf(z=1)", 2, 3, "f has no parameter 'z'"),
    ("f(x) = x\nf(1, x=1)", 2, 6, "f got 'x' twice"),
    ("y = scan(g, 0, x)", 1, 10, "body_fn of scan is a function that is defined above it; there is: none"),
    ("f(x) = x, x\nf(1) + 2", 2, 1, "has several results"),
    ("f(x) = x, x\na, b, c = f(1)", 2, 11, "2 results (x, x2), but 3 names are given"),
    ("x }", 1, 3, "} closes nothing"),
    # The line as a whole
    ("", 1, 1, "found nothing"),
    ("\n# nothing\n;", 3, 2, "found nothing"),
    ("a = x\nsin(a)\nb = a", 2, 1, "the value of this statement is not used"),
    ("a = 1; a = 2", 1, 8, "'a' was assigned on line 1 already"),
    ("a, a = split(x, 2)", 1, 4, "'a' was assigned on line 1 already"),
    ("y = sin(h)\nh = x", 1, 9, "'h' is used before it is assigned (line 2, column 1)"),
    ("y = e * 2; e = 3", 1, 5, "'e' is used before it is assigned"),
    ("h = h + 1", 1, 5, "in its own assignment"),
    ("a = b, c", 1, 8, "an assignment takes one expression"),
    ("sin(x)[0] = 3", 1, 11, "only a name at the start of a line can be assigned"),
    ("a = b = 3", 1, 7, "only a name at the start of a line can be assigned"),
    ("true = 3", 1, 1, "it is a word of the language"),
    ("`a b` = 3", 1, 1, "a name is a letter or _"),
    ("a" * 65, 1, 1, "a name is a letter or _"),
    ("x, sin(x), x", 1, 12, "two outputs are called 'x'"),
    ("a: x\nb", 1, 1, "only outputs have labels"),
    ("a = b: x", 1, 5, "only outputs have labels"),
    # Unpacking
    ("a, b = sin(x)", 1, 8, "sin has one result"),
    ("a, b = x", 1, 8, "cannot be unpacked into 2 names"),
    ("a, b = svd(A)", 1, 8, "svd has 3 results (U, S, Vh), but 2 names are given"),
    ("_, _ = split(x, 2)", 1, 1, "every result is skipped"),
    # Brackets
    ("sin(x", 1, 6, "')' to close '(' of line 1, column 4, found the end of the text"),
    ("sin(x]", 1, 6, "')' to close '(' of line 1, column 4, found ']'"),
    ("a = (x\nb = y", 2, 1, "')' to close '(' of line 1, column 5, found 'b'"),
    ("f(x; y)", 1, 4, "')' to close '(' of line 1, column 2, found ';'"),
    ("x)", 1, 2, "no bracket is open"),
    ("sin(", 1, 5, "expected an expression, and then ')' to close '(' of line 1, column 4"),
    ("x[1", 1, 4, "expected ']' to close '[' of line 1, column 2"),
    # Operators and operands
    ("1 +", 1, 4, "expected an expression after '+', found the end of the text"),
    ("a *\nb", 1, 4, "expected an expression after '*', found the end of the line"),
    ("a, ", 1, 4, "expected an expression after ','"),
    ("x y", 1, 3, "expected an operator or the end of the line, found 'y'"),
    ("a and b", 1, 3, "'and' is written &"),
    ("not a", 1, 5, "'not' is written ~"),
    ("a < b < c", 1, 7, "write (a < b) & (b < c)"),
    ("a == b + 1 != c", 1, 12, "comparisons do not chain"),
    ("x + 1e400", 1, 5, "too large for float64"),
    ("x + 1e400j", 1, 5, "too large for float64"),
    ("2jx", 1, 1, "'2jx' is not a number; a product is written 2j*x"),
    ("x[2j]", 1, 3, "use take(x, indices"),
    ("sum(x, axis=1j)", 1, 13, "axis of sum is an attribute: it takes a literal"),
    ("null + 1", 1, 1, "null is no operand"),
    ("x + 'a'", 1, 5, "a string is no operand"),
    ("x + (1, 2)", 1, 5, "a tuple is no operand"),
    ("(x, y)", 1, 1, "a tuple takes literals alone"),
    # Lists, tensors, indices
    ("x + [1, [2, 3]]", 1, 5, "ragged"),
    ("[true, 2]", 1, 1, "expected numbers"),
    ("[" * 70 + "1" + "]" * 70, 1, 6, "lists within lists"),
    ("asarray([300], 'uint8')", 1, 1, "does not fit uint8"),
    ("asarray([1], 'float8')", 1, 1, "dtype: expected one of"),
    ("asarray([1], kind='int8')", 1, 14, "asarray has no argument 'kind'"),
    ("asarray(null)", 1, 1, "null is no tensor"),
    ("asarray(x)", 1, 9, "asarray takes literals alone"),
    ("x[y]", 1, 3, "use take(x, indices"),
    ("x[0, 1.5]", 1, 6, "use take(x, indices"),
    ("x[]", 1, 3, "an index is made of whole numbers"),
    ("x[1:2:3:4]", 1, 8, "an index is made of whole numbers"),
    # Results
    ("x.T", 1, 3, "'x' is a graph input"),
    ("sin(x).0", 1, 8, "sin has one result"),
    ("svd(A).V", 1, 8, "svd has no result 'V'; it has: U, S, Vh"),
    ("split(x, 2).a", 1, 13, "its results are numbered from 0"),
    ("svd(A) + 1", 1, 1, "svd has several results (U, S, Vh); take one, as in svd(…).U"),
    ("d = svd(A)\nsin(d)", 2, 5, "'d' has several results (U, S, Vh); take one, as in d.U"),
    ("d = svd(A); b = d", 1, 17, "'d' has several results"),
    ("3 .a", 1, 3, "only an op with several results"),
    # Arguments
    ("sin(x, 2)", 1, 8, "sin takes x, got 2 arguments"),
    ("outer(x)", 1, 1, "x2 is missing"),
    ("clip()", 1, 1, "clip takes x, min, max: x is missing"),
    ("concat([])", 1, 1, "arrays is missing"),
    ("sum(x, 0, axis=1)", 1, 11, "sum got axis twice"),
    ("sum(axis=0, x)", 1, 13, "cannot follow one with a keyword"),
    ("sum(x, axis=y)", 1, 13, "axis of sum is an attribute: it takes a literal"),
    ("sum(x, axis=1 + 1)", 1, 15, "axis of sum is an attribute: it takes a literal"),
    ("reshape(x, shape=[y])", 1, 18, "shape of reshape is an attribute: it takes a literal"),
    ("astype(x, float32)", 1, 11, 'such as "float32"'),
    ("no_grad(x, y)", 1, 1, "no_grad takes one expression"),
]


@pytest.mark.parametrize(("text", "line", "column", "part"), REFUSALS)
def test_refusals(text: str, line: int, column: int, part: str) -> None:
    """A refusal points at the offending token, says what was found, and what would be right."""
    with pytest.raises(ExpressionError) as caught:
        parse(text, Limits())
    assert (caught.value.line, caught.value.column) == (line, column)
    assert caught.value.detail.startswith(f"line {line}, column {column}: ")
    assert part in caught.value.detail
    assert len(caught.value.detail) < 300


@pytest.mark.parametrize(
    ("text", "error", "start", "part"),
    [
        ("y = x\nsine(y)", UnknownOp, "line 2, column 1: ", "no op is called 'sine'"),
        ("sum(x, axs=1)", UnknownAttribute, "line 1, column 8: ", "did you mean axis?"),
        ("sum(x, axis='a')", InvalidGraph, "line 1, column 13: ", "expected an integer, got 'a'"),
        ("x[::0]", InvalidGraph, "line 1, column 2: ", "a step other than 0"),
        ("reshape(x)", InvalidGraph, "line 1, column 1: ", "reshape needs the attribute 'shape'"),
    ],
)
def test_refusals_of_ops_keep_their_kind(text: str, error: type[EngineError], start: str, part: str) -> None:
    """What the catalogue refuses keeps its class and code, and gains a position."""
    with pytest.raises(error) as caught:
        parse(text, Limits())
    assert type(caught.value) is error
    assert caught.value.detail.startswith(start)
    assert str(caught.value) == caught.value.detail
    assert part in caught.value.detail
    assert caught.value.pointer is None


def test_messages_echo_little() -> None:
    with pytest.raises(EngineError) as caught:
        parse("x = " + "a" * 60_000 + "(3)", Limits())
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("asarray([], shape=[0, 3])", Tensor(np.zeros((0, 3)), typed=False)),
        ("asarray(2.5)", Tensor(np.array(2.5), typed=False)),
        ("asarray(2.5, 'float32')", Tensor(np.array(2.5, "float32"), typed=True)),
        ("asarray(nan)", Tensor(np.array(np.nan), typed=False)),
        ("asarray([18446744073709551615], 'uint64')", Tensor(np.array([2**64 - 1], "uint64"), typed=True)),
        ("asarray([1], requires_grad=true)", Tensor(np.ones(1), typed=False, requires_grad=True)),
        ("asarray(b64='AAA=', dtype='bool', shape=[2])", Tensor(np.zeros(2, bool), typed=True)),
        ("[[], []]", Tensor(np.zeros((2, 0)), typed=False)),
        ("[-0.0]", Tensor(np.array([-0.0]), typed=False)),
    ],
)
def test_tensors_fold_into_constants(text: str, expected: Tensor) -> None:
    (statement,) = parse(text, Limits()).statements
    assert statement.inputs == (expected,)


def test_positions_are_those_of_the_operation() -> None:
    """For messages about what an expression computes: the operator, the op's name, the bracket of an index."""
    text = "h = tanh(x @ W)\nq, r = qr(h[0:2])\nr + 2 * q"
    program, positions = parse_with_positions(text, Limits())
    found = {f"{program.by_id[name].op.name} {name}": place for name, place in positions.items()}
    assert found == {
        "matmul _1": (1, 12),
        "tanh h": (1, 5),
        "slice _2": (2, 12),
        "qr _3": (2, 8),
        "positive q": (2, 1),
        "positive r": (2, 4),
        "multiply _4": (3, 7),
        "add _5": (3, 3),
    }


@pytest.mark.parametrize(
    ("text", "limits", "name"),
    [
        ("x" + " " * 20, Limits(expression_characters=20), "expression_characters"),
        ("((((x))))", Limits(expression_nesting=3), "expression_nesting"),
        ("a = x + 1; b = a * 2 - 3", Limits(nodes=2), "nodes"),
        ("asarray([], shape=[0, 1, 1])", Limits(rank=2), "rank"),
        ("asarray([], shape=[0, 100, 100])", Limits(elements=9_999), "elements"),
    ],
)
def test_limits(text: str, limits: Limits, name: str) -> None:
    parse(text, Limits())
    with pytest.raises(LimitExceeded) as caught:
        parse(text, limits)
    assert caught.value.name == name


LONG = 60_000
DEEP = Limits(expression_nesting=LONG)
HURTFUL = {
    "sums": "1" + "+x" * (LONG // 2),
    "signs": "-" * LONG + "x",
    "powers": "x" + "**x" * (LONG // 3),
    "calls": "sin(" * (LONG // 5) + "x" + ")" * (LONG // 5),
    "parentheses": "(" * (LONG // 2) + "x" + ")" * (LONG // 2),
    "lists": "[" * (LONG // 2) + "x" + "]" * (LONG // 2),
    "literals": "[" * (LONG // 2) + "1" + "]" * (LONG // 2),
    "indices": "x" + "[0]" * (LONG // 3),
    "results": "x" + ".a" * (LONG // 2),
    "items": "[" + "1," * (LONG // 2) + "]",
    "outputs": "a," * (LONG // 2) + "a",
    "assignments": "a=" * (LONG // 2),
    "no_grad": "no_grad(" * (LONG // 9) + "x" + ")" * (LONG // 9),
    "lines": ";".join(f"a{number}=x" for number in range(LONG // 9)),
    "a tower of powers": "9**" * (LONG // 3) + "9",
    "digits": "1" * LONG,
    "a name": "a" * LONG,
    "newlines": "\n" * LONG,
    "a comment": "#" * LONG,
    "open calls": "sin(" * (LONG // 4),
    "open strings": "'" * (LONG - 1),
    "an attribute": "sum(x, axis=" + "[" * 60 + "]" * 60 + ")",
    "a wide tensor of nothing": f"asarray([], shape=[0{', 2147483647' * 9}])",
}


@pytest.mark.parametrize("text", HURTFUL.values(), ids=HURTFUL)
def test_long_texts_neither_overflow_nor_take_long(text: str) -> None:
    """Depth costs memory, never the call stack; the time is linear, and the bound here a generous one."""
    start = time.perf_counter()
    try:
        parse(text, DEEP)
    except EngineError as error:
        assert len(error.detail) < 300
    assert time.perf_counter() - start < 10


WORDS = st.sampled_from(
    [
        *"abx_+-*/%@^&|~<>=()[],:.;#'\"`\n\\ 013e",
        *("**", "//", "...", ":=", "sum", "svd", "split", "concat", "einsum", "no_grad", "asarray", "axis="),
        *("true", "null", "pi", "nan", "x.", "1e9", "'a'", "`a-b`", "(x)", "[1, 2]", "d = "),
    ]
)


@settings(deadline=None)
@given(st.lists(WORDS, max_size=30).map("".join) | st.text(max_size=30))
def test_whatever_is_sent_is_read_or_refused(text: str) -> None:
    """No text raises anything but an EngineError, whose detail says where."""
    try:
        parse(text, Limits())
    except EngineError as error:
        assert error.detail.startswith("line ") or isinstance(error, LimitExceeded)
