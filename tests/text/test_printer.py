"""Programs to text: what it looks like, and that reading it gives the very same program, whatever that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine.ops  # noqa: F401
from engine.core import ops
from engine.errors import EngineError
from engine.limits import Limits
from engine.program import Function, Program, Ref, Statement, read_graph
from engine.tensors import Tensor, from_bytes
from engine.text import parse, print_program
from engine.types import DTYPES

WIDE = Limits(expression_characters=10**7, expression_nesting=10**6)


def exact(value: Any) -> Any:
    """What two equal programs share, to the last bit: == takes 3 for 3.0 and True, and no NaN for another."""
    if isinstance(value, Program):
        functions = {each.name: (each.parameters, exact(each.body)) for each in value.functions}
        return [exact(each) for each in value.statements], value.outputs, functions
    if isinstance(value, Statement):
        attrs = {name: exact(each) for name, each in value.attrs.items()}
        return (value.id, value.op, *map(exact, value.inputs), attrs, value.no_grad, value.named)
    if isinstance(value, Tensor):
        return (value.array.dtype, value.array.shape, value.array.tobytes(), value.typed, value.requires_grad)
    return repr(value)


def round_trip(program: Program) -> str:
    text = print_program(program)
    assert exact(parse(text, WIDE)) == exact(program), text
    return text


def program(*statements: Statement, outputs: Any = None) -> Program:
    last = statements[-1].id
    return Program(statements, outputs or ((last, Ref(last)),))


def texts() -> list[Any]:
    blocks = Path(__file__).with_name("programs.txt").read_text(encoding="utf-8").split("=== ")[1:]
    return [pytest.param(block.split("\n", 1)[1].split("\n---\n")[0], id=block.split("\n")[0]) for block in blocks]


@pytest.mark.parametrize("text", texts())
def test_every_construct_survives(text: str) -> None:
    """Reading, printing and reading again; and printing settles at once."""
    first = round_trip(parse(text, Limits()))
    assert print_program(parse(first, Limits())) == first


SETTLED = """
h = tanh(x @ W1 + b1)
loss = mean((h @ W2 - y)**2)
===
-x**2 + 2**3**2 - 7 // 2
===
(a - (b - c)) * (-d)**-f**g
===
(a < b) == (c < d)
===
~(a & b) | ~c
===
x[1:, ::2, -1, ..., newaxis, :] + (x + y)[0] + (-2)[0]
===
q, r = qr(A)
q @ r
===
_, s, v = svd(A)
===
s = svd(A).S
u, v = split(s, indices_or_sections=2)
===
no_grad(sin(x)) * 2 + no_grad(svd(A)).S
===
b = a
c = 3
d = [[1, 2.5], [-0.0, nan]]
f = asarray([1, 2], dtype="float32")
b * c * d * f
===
negative(2) + positive(x) - -x
===
full([2, 3], 1.5) + einsum("ij,jk->ik", a, b) + sum(x, axis=[0], keepdims=true)
===
`a-b` = x + `pi` - pi
first: sin(`a-b`), `d.0`: x
===
e = x + 1
out = e * 2
e, x, cos(out), sin(e)
===
h := sin(x)
h * h
===
stack(x, stack(1, true), axis=-1)
===
z = 2j
x**-1e-05j + (1 + 2.5j) * -z + complex(1, 2) + complex(0, -2) + complex(0, inf) + complex(0.0, 2)
===
x
""".replace(" - pi\n", " - 3.141592653589793\n")


@pytest.mark.parametrize("text", SETTLED.strip().split("\n===\n"))
def test_text_in_its_settled_form_stays_as_it_is(text: str) -> None:
    """Operators with no more parentheses than needed, attributes as given, a line for each name."""
    assert round_trip(parse(text, Limits())) == text


@pytest.mark.parametrize(
    ("nodes", "outputs", "text"),
    [
        pytest.param(
            [{"id": "y", "op": "sin", "inputs": ["h"]}, {"id": "h", "op": "cos", "inputs": ["x"]}],
            ["y"],
            "y = sin(`h`)\nh = cos(x)\ny",
            id="nodes in any order",
        ),
        pytest.param(
            [{"id": name, "op": "sin", "inputs": ["x"]} for name in ("pi", "true", "_", "_1", "sum", "no_grad", "a-b")],
            None,
            "pi = sin(x)\n`true` = sin(x)\n_ = sin(x)\n_1 = sin(x)\nsum = sin(x)\nno_grad = sin(x)\n`a-b` = sin(x)",
            id="ids that collide with words, constants, ops and made-up names",
        ),
        pytest.param(
            [{"id": "y", "op": "concat", "inputs": ["pi", "true", "_", "nan", "None", "index", "a-b"]}],
            None,
            "y = concat(`pi`, `true`, _, `nan`, `None`, index, `a-b`)",
            id="inputs that do",
        ),
        pytest.param(
            [
                {"id": "inf", "op": "multiply", "inputs": ["Infinity", "-Infinity"]},
                {"id": "y", "op": "sin", "inputs": ["NaN"]},
            ],
            ["inf", "y"],
            "inf = Infinity * -Infinity\ny = sin(nan)\ninf, y",
            id="an infinity beside a node called inf",
        ),
        pytest.param(
            [{"id": "d", "op": "svd", "inputs": ["A"]}, {"id": "y", "op": "sin", "inputs": ["d.1"]}],
            ["d.U", "d.2", "y", "A"],
            "d = svd(A)\ny = sin(d.1)\nd.U, d.2, y, A",
            id="results by name and number",
        ),
        pytest.param([{"id": "d", "op": "svd", "inputs": ["A"]}], None, "d = svd(A)", id="every result is an output"),
        pytest.param(
            [{"id": "d", "op": "svd", "inputs": ["A"]}, {"id": "y", "op": "add", "inputs": ["d", "d.`x\n"]}],
            ["d", "A.0"],
            "d = svd(A)\ny = `d` + d.`\\`x\\n`\n`d`, A.`0`",
            id="results that are refused later",
        ),
        pytest.param(
            [{"id": "y", "op": "sin", "inputs": ["x", "y-y", 3]}, {"id": "z", "op": "clip", "inputs": []}],
            None,
            "y = `sin`(x, `y-y`, 3)\nz = `clip`()",
            id="a wrong number of operands, which is refused later",
        ),
        pytest.param(
            [{"id": "y", "op": "concat", "inputs": [[1, 2]]}, {"id": "z", "op": "concat", "inputs": [[1], [2]]}],
            None,
            "y = `concat`([1, 2])\nz = concat([1], [2])",
            id="one list that is no list of operands",
        ),
        pytest.param(
            [
                {"id": "y", "op": "positive", "inputs": ["x"], "no_grad": True},
                {"id": "z", "op": "detach", "inputs": ["y"]},
            ],
            None,
            "y = no_grad(positive(x))\nz = detach(y)",
            id="a copy that is not tracked",
        ),
        pytest.param(
            [
                {
                    "id": "y",
                    "op": "add",
                    "inputs": [[[True], [False]], {"data": 1, "dtype": "int8", "requires_grad": False}],
                }
            ],
            None,
            'y = [[true], [false]] + asarray(1, dtype="int8", requires_grad=false)',
            id="tensors",
        ),
        pytest.param(
            [{"id": "y", "op": "slice", "inputs": ["x"], "attrs": {"index": [[1], [0, 2], 2.0]}}],
            None,
            "y = slice(x, index=[[1], [0, 2], 2.0])",
            id="an index that brackets do not spell",
        ),
        pytest.param(
            [{"id": "y", "op": "nan_to_num", "inputs": ["x"], "attrs": {"nan": "NaN", "posinf": 1, "neginf": None}}],
            None,
            'y = nan_to_num(x, nan="NaN", posinf=1, neginf=null)',
            id="attributes as they were posted",
        ),
        pytest.param(
            [{"id": "y", "op": "sin", "inputs": ["x"]}], ["x"], "y = sin(x)\nx: x", id="an input is the output"
        ),
    ],
)
def test_graphs_as_posted(nodes: list[Any], outputs: list[str] | None, text: str) -> None:
    """Whatever the JSON form takes, the text says; what JSON takes and refuses only later stands in backticks."""
    posted = read_graph({"nodes": nodes} | ({"outputs": outputs} if outputs else {}), Limits())
    assert round_trip(posted) == text


@pytest.mark.parametrize(
    "value",
    [3, 3.0, -3, -3.0, True, False, 0, -0.0, 0.1, 1e300, 5e-324, math.inf, -math.inf, math.nan, 2**63 - 1, -(2**63)],
    ids=repr,
)
def test_numbers(value: bool | int | float) -> None:
    """Each stays what it is, on both sides of an operator and under signs and powers."""
    for op in ("pow", "subtract", "less", "logical_and"):
        for inputs in ((value, Ref("x")), (Ref("x"), value), (value, value)):
            round_trip(program(Statement("y", getattr(ops, op), inputs)))
    for op in ("negative", "logical_not", "positive", "sin", "slice"):
        attrs = {"index": [0]} if op == "slice" else {}
        round_trip(program(Statement("y", getattr(ops, op), (value,), attrs)))
        inner = Statement("_1", getattr(ops, op), (value,), attrs, named=False)
        round_trip(program(inner, Statement("y", ops.negative, (Ref("_1"),))))


def test_nan_of_text_is_the_one_nan() -> None:
    """Programs with NaN compare equal, since all hold the same object."""
    text = "x + nan - -nan + NaN"
    assert parse(text, Limits()) == parse(text, Limits())


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3)),
        np.zeros((2, 0, 3), "int8"),
        np.zeros((0,), bool),
        np.array(2.5, "float32"),
        np.array([0.1, 1e-45, 3.4028235e38], "float32"),
        np.array([[1e300, -0.0], [math.nan, math.inf]]),
        np.array([2**64 - 1, 0], "uint64"),
        np.array([-(2**63), 2**63 - 1]),
        np.array([True, False]),
        np.array(True),
        np.array([[1 + 2j, complex(math.nan, -0.0)]], "complex64"),
        np.array(1j),
        np.zeros((0, 2), "complex128"),
        from_bytes(bytes.fromhex("010000000000f87f"), DTYPES["float64"], (1,)),
        from_bytes(bytes.fromhex("0000c0ff"), DTYPES["float32"], ()),
        np.arange(24.0).reshape(2, 3, 4).T,
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_tensors(array: Any) -> None:
    """To the last bit: empty axes, shortest float32 decimals, and NaNs that only base64 tells apart."""
    for requires_grad in (None, True):
        tensor = Tensor(array, typed=True, requires_grad=requires_grad)
        round_trip(program(Statement("y", ops.add, (tensor, Ref("x")))))
        round_trip(program(Statement("y", ops.positive, (tensor,))))


def test_wide_tensors_stay_readable() -> None:
    assert print_program(parse("y = [1, 2.0, -3.5] + x", Limits())) == "y = [1, 2, -3.5] + x"


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param([Statement("t", ops.sin, (Ref("x"),), named=False)], id="used twice"),
        pytest.param([Statement("_2", ops.sin, (Ref("x"),), named=False)], id="numbered from two"),
        pytest.param(
            [
                Statement("_1", ops.sin, (Ref("x"),), named=False),
                Statement("_2", ops.slogdet, (Ref("A"),), named=False),
            ],
            id="never used",
        ),
    ],
)
def test_unnamed_statements_from_elsewhere_get_lines(odd: list[Statement]) -> None:
    """Sharing survives, and so does every id that reading would not make up."""
    name = odd[0].id
    round_trip(program(*odd, Statement("y", ops.multiply, (Ref(name), Ref(name)))))
    round_trip(program(*odd, Statement("y", ops.cos, (Ref(name),))))
    round_trip(program(*odd, Statement("y", ops.cos, (Ref("x"),)), Statement("z", ops.cos, (Ref(name),))))


def test_other_outputs_of_a_program_survive() -> None:
    """A request chooses outputs; what is left unused keeps its name and its place."""
    read = parse("h = sin(x * 2); q, r = qr(A + 1); cos(h) * q, r + 1", Limits())
    for names in (["h"], ["r", "h"], ["out2"], ["_1"], ["x"], ["_3.Q", "q", "out"]):
        round_trip(read.with_outputs(names))


def test_a_label_only_where_one_is_needed() -> None:
    read = parse("h = sin(x)\nh + 1", Limits())
    assert print_program(Program(read.statements, (("h", Ref("h")), ("out", Ref("_1"))))) == "h = sin(x)\nh, h + 1"
    assert print_program(Program(read.statements, (("y", Ref("h")), ("out", Ref("_1"))))).endswith("\ny: h, out: h + 1")


@pytest.mark.parametrize("text", ["1" + "+x" * 20_000, "-" * 20_000 + "x", "sin(" * 9_000 + "x" + ")" * 9_000])
def test_depth_costs_no_stack(text: str) -> None:
    round_trip(parse(text, WIDE))


# Random programs

NAMES = st.sampled_from(
    ["x", "y", "h", "W1", "a-b", "pi", "e", "inf", "true", "None", "_", "_1", "_2", "_3", "out", "out2", "sum"]
)
NUMBERS = st.sampled_from(
    [0, 1, -1, 2**63 - 1, -(2**63), 0.5, -0.0, 2.0, 1e22, 1e-7, math.inf, -math.inf, math.nan, True, False]
)
ARRAYS = st.sampled_from(
    [np.array([1.0, -2.5]), np.array([[True]]), np.zeros((0, 2)), np.array(3.0), np.array([math.nan, -math.inf])]
)
TENSORS = st.builds(Tensor, ARRAYS, st.booleans())
RESULTS = st.sampled_from([None] * 6 + ["0", "1", "U", "S", "Q", "R", "odd", "o`d\\d"])
CALLS: st.SearchStrategy[tuple[str, int, dict[str, Any]]] = st.sampled_from(
    [
        (name, 2, {})
        for name in ("add", "subtract", "multiply", "divide", "pow", "matmul", "less", "equal", "logical_and")
    ]
    + [
        (name, 1, {})
        for name in ("negative", "negative", "logical_not", "positive", "positive", "sin", "detach", "svd", "qr")
    ]
    + [(name, 1, {"axis": axis}) for name in ("sum", "softmax") for axis in (0, -1)]
    + [("slice", 1, {"index": [0, [1, None, None], [None, None, -1], "...", None]}), ("slice", 1, {"index": (0,)})]
    + [("split", 1, {"indices_or_sections": 2}), ("concat", 1, {}), ("concat", 3, {"axis": 1}), ("stack", 2, {})]
    + [
        ("einsum", 2, {"equation": "i,j->"}),
        ("full", 1, {"shape": (2, 3)}),
        ("where", 3, {}),
        ("sin", 2, {}),
        ("complex", 2, {}),
    ]
)


@st.composite
def bodies(draw: st.DrawFn, functions: Sequence[str] = (), parameters: Sequence[str] = ()) -> Program:
    """Statements on names of each other and of inputs, in any order; mostly what a graph could be."""
    names = NAMES.filter(lambda name: name not in parameters)
    ids = draw(st.lists(names, min_size=1, max_size=6, unique=True))
    references = st.builds(Ref, st.sampled_from([*ids, *parameters]) | NAMES, RESULTS)
    statements = []
    for name in ids:
        op, count, attrs = draw(CALLS | calling(functions) if functions else CALLS)
        inputs = draw(st.tuples(*[references | references | NUMBERS | TENSORS] * count))
        statements.append(Statement(name, ops.find(op), inputs, attrs, draw(st.booleans()), draw(st.booleans())))
    labels = draw(st.lists(NAMES | st.sampled_from(["d.0", "l`\n", "out3"]), min_size=1, max_size=3, unique=True))
    kept = draw(st.booleans())
    refs = [draw(references) for _ in labels]
    return Program(
        tuple(statements),
        tuple({str(ref) if kept else label: ref for label, ref in zip(labels, refs, strict=True)}.items()),
    )


def calling(functions: Sequence[str]) -> st.SearchStrategy[tuple[str, int, dict[str, Any]]]:
    """Statements that name functions, rightly or not."""
    one = st.sampled_from(functions)
    return (
        st.builds(lambda name, count: ("call", count, {"function": name}), one, st.integers(0, 3))
        | st.builds(lambda name: ("scan", 2, {"body_fn": name, "reverse": True}), one)
        | st.builds(lambda a, b, count: ("cond", count, {"true_fn": a, "false_fn": b}), one, one, st.integers(1, 2))
        | st.builds(lambda name: ("fori_loop", 1, {"lower": 0, "upper": 2, "body_fn": name}), one)
    )


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A program with up to three functions, each of which may call those before it."""
    functions: list[Function] = []
    for name in draw(st.lists(NAMES, max_size=3, unique=True)):
        parameters = tuple(draw(st.lists(NAMES, max_size=3, unique=True)))
        body = draw(bodies([each.name for each in functions], parameters))
        functions.append(Function(name, parameters, body))
    return replace(draw(bodies([each.name for each in functions])), functions=tuple(functions))


@settings(deadline=None)
@given(programs())
def test_random_programs_survive(drawn: Program) -> None:
    round_trip(drawn)


LEAVES = st.sampled_from(
    ["x", "h", "`a-b`", "_1", "2", "2j", "-3", "0.5", "pi", "true", "[1, 2]", "[x, 1]", "svd(A).S", "d.1", "_2"]
)
INFIX = st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "^", "@", "&", "|", " < ", " == "])


def wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return (
        st.builds(lambda left, op, right: f"({left}){op}{right}", inner, INFIX, inner)
        | st.builds(lambda left, op, right: f"{left}{op}({right})", inner, INFIX, inner)
        | st.builds(lambda sign, operand: f"{sign}{operand}", st.sampled_from("-+~"), inner)
        | st.builds(
            lambda name, operand: f"{name}({operand})",
            st.sampled_from(["sin", "no_grad", "positive", "negative"]),
            inner,
        )
        | st.builds(lambda operand: f"({operand})[1:, ..., 0]", inner)
        | st.builds(lambda one, two, three: f"where(x2={one}, condition={two}, x1={three})", inner, inner, inner)
        | st.builds(lambda one, two: f"concat([{one}, [{two}, 1]], axis=-1)", inner, inner)
        | st.builds(lambda operand: f"split({operand}, 2).0", inner)
    )


EXPRESSIONS = st.recursive(LEAVES, wider, max_leaves=12)
LINES = st.sampled_from(["{} = {}", "{} := {}", "{}, r{} = qr({})", "_, s{} = split({}, 2)"])


@st.composite
def written(draw: st.DrawFn) -> str:
    lines = ["d = svd(A)", "`a-b` = x"] if draw(st.booleans()) else ["d := svd(x)"]
    for number, shape in enumerate(draw(st.lists(LINES, max_size=3))):
        names = [f"t{number}", str(number)][: shape.count("{}") - 1] if shape[0] == "{" else [str(number)]
        lines.append(shape.format(*names, draw(EXPRESSIONS)))
    last = draw(st.lists(EXPRESSIONS, min_size=1, max_size=3))
    return "\n".join(
        [*lines, ", ".join(f"o{at}: {each}" if draw(st.booleans()) else each for at, each in enumerate(last))]
    )


@settings(deadline=None)
@given(written())
def test_random_texts_survive(text: str) -> None:
    """Whatever is read prints as a text that reads the same, and prints the same."""
    try:
        read = parse(text, WIDE)
    except EngineError:
        return
    printed = round_trip(read)
    assert print_program(parse(printed, WIDE)) == printed
