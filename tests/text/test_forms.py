"""Programs for eyes: LaTeX, DOT and Mermaid, and the folding of what transforms write."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.core import ops
from engine.program import Program, Ref, Statement
from engine.text import FORMS, folded, parse, print_program, to_dot, to_latex, to_mermaid
from engine.text.latex import symbol
from tests.support.asking import LIMITS, ask, compiled_question, program_of
from tests.support.cases import Case, cases, ids
from tests.support.numeric import assert_same_bits

CASES = [case for case in cases() if case.drawn and set(case.moving) & set(case.drawn)]
ROOMY = replace(LIMITS, expression_characters=10**8)

# LaTeX

LINES: dict[str, str] = {
    "y = a + b * c": r"y &= a + b \cdot c",
    "y = (a + b) * c": r"y &= \left(a + b\right) \cdot c",
    "y = a - (b - c)": r"y &= a - \left(b - c\right)",
    "y = a - b - c": r"y &= a - b - c",
    "y = -(a + b) * -3": r"y &= -\left(a + b\right) \cdot \left(-3\right)",
    "y = a / b / c": r"y &= \frac{\frac{a}{b}}{c}",
    "y = x**2": r"y &= {x}^{2}",
    "y = -x**2": r"y &= -{x}^{2}",
    "y = (-x)**(a + b)": r"y &= {\left(-x\right)}^{a + b}",
    "y = (a / b)**2": r"y &= {\left(\frac{a}{b}\right)}^{2}",
    "y = (x**2)**3": r"y &= {\left({x}^{2}\right)}^{3}",
    "y = exp(-x**2 / 2) / sqrt(2 * pi)": r"y &= \frac{e^{\frac{-{x}^{2}}{2}}}{\sqrt{2 \cdot \pi}}",
    "y = A @ (B + C) @ x": r"y &= A \, \left(B + C\right) \, x",
    "y = matrix_transpose(A) @ inv(B)": r"y &= {A}^{\top} \, {B}^{-1}",
    "y = sum(x * x, axis=0)": r"y &= \sum_{0} x \cdot x",
    "y = sum(x + 1)**2": r"y &= {\left(\sum \left(x + 1\right)\right)}^{2}",
    "y = mean(x, axis=[0, 1])": (
        r"y &= \operatorname{mean}\left(x,\, \operatorname{axis}\!=\!\left[0,\, 1\right]\right)"
    ),
    "y = where(x > 0, sqrt(x), -1e-12)": (
        r"y &= \begin{cases}\sqrt{x} & \text{if } x > 0 \\ -10^{-12} & \text{else}\end{cases}"
    ),
    "y = (a < b) & (c >= 2.5e20)": r"y &= a < b \land c \ge 2.5 \cdot 10^{20}",
    "y = ((a < b) | (b < c)) & p": r"y &= \left(a < b \lor b < c\right) \land p",
    "y = tanh(x) * sigmoid(z)": r"y &= \tanh\left(x\right) \cdot \sigma\left(z\right)",
    "y = abs(x) + vector_norm(z)": r"y &= \left|x\right| + \left\|z\right\|",
    "y = x[1:, ::2, -1]": r"y &= {x}_{\left[1{:},\, {:}{:}2,\, -1\right]}",
    "y = log_softmax(x, axis=-1)": (r"y &= \operatorname{log\_softmax}\left(x,\, \operatorname{axis}\!=\!-1\right)"),
    "y = no_grad(x * x)": r"y &= \operatorname{no\_grad}\left(x \cdot x\right)",
    "y = x + [[1, 2], [3, 4]]": r"y &= x + \begin{bmatrix}1 & 2 \\ 3 & 4\end{bmatrix}",
    "y = x + inf": r"y &= x + \infty",
    "a = x; y = 2 * x": r"y &= 2 \cdot x",
}


@pytest.mark.parametrize("text", LINES)
def test_a_line_of_latex(text: str) -> None:
    *_, last = body(to_latex(program_of(text)))
    assert last == LINES[text]


def body(latex: str) -> list[str]:
    opening, *lines, closing = latex.split("\n")
    assert (opening, closing) == (r"\begin{aligned}", r"\end{aligned}")
    return [line.removesuffix(r" \\") for line in lines]


def test_what_is_named_or_used_twice_has_a_line() -> None:
    text = "h = tanh(x @ W_1 + b1)\nloss = mean((h @ W2 - y)**2)"
    assert body(to_latex(program_of(text))) == [
        r"h &= \tanh\left(x \, W_{1} + b_{1}\right)",
        r"\mathit{loss} &= \operatorname{mean}\left({\left(h \, W_{2} - y\right)}^{2}\right)",
    ]


def test_a_function_has_its_lines_before_the_graph() -> None:
    text = "step(h, x) = { new = tanh(h + x); new }\ny = step(a, 2)"
    head, inner, line = body(to_latex(program_of(text)))
    assert head == r"\operatorname{step} &\colon \left(h, x\right) \mapsto \left(\mathit{new}\right)"
    assert inner == r"\quad \mathit{new} &= \tanh\left(h + x\right)"
    assert line.startswith("y &= ")


SYMBOLS = {
    "x": "x",
    "W1": "W_{1}",
    "W_1": "W_{1}",
    "theta": r"\theta",
    "sigma_x": r"\sigma_{x}",
    "loss": r"\mathit{loss}",
    "x_hat_2": r"x_{\mathit{hat},2}",
    "_": r"\text{\_}",
    "_3": "t_{3}",
    "a-b": r"\text{a-b}",
}


@pytest.mark.parametrize("name", SYMBOLS)
def test_names_are_symbols(name: str) -> None:
    assert symbol(name) == SYMBOLS[name]


def is_balanced(latex: str) -> bool:
    """Whether braces, \\left and \\right, and environments close in the order in which they open."""
    open_ones: list[str] = []
    for token in re.findall(r"\\begin\{\w+\}|\\end\{\w+\}|\\left(?![a-z])|\\right(?![a-z])|\\.|[{}]", latex, re.S):
        if token == "{" or token == r"\left" or token.startswith(r"\begin"):
            open_ones.append(token)
        elif token == "}" or token == r"\right" or token.startswith(r"\end"):
            opening = {"}": "{", r"\right": r"\left"}.get(token, token.replace("end", "begin"))
            if not open_ones or open_ones.pop() != opening:
                return False
    return not open_ones


def test_balance_is_told() -> None:
    assert is_balanced(r"\left({a}\right) \begin{cases}\{\end{cases}")
    for wrong in ("{", "}", r"\left(a", r"{\left(}\right)", r"\begin{cases}"):
        assert not is_balanced(wrong)


# Drawings

QUOTED = r'"(?:[^"\\]|\\.)*"'
ATTRIBUTES = rf"\[\w+=(?:{QUOTED}|\w+)(?:, \w+=(?:{QUOTED}|\w+))*\]"
DOT_LINES = [
    r"digraph \{",
    r"\}",
    rf"node {ATTRIBUTES};",
    r"subgraph cluster_\d+ \{",
    rf"label={QUOTED};",
    rf"n\d+ {ATTRIBUTES};",
    rf"n\d+ -> n\d+(?: {ATTRIBUTES})?;",
]
LABEL = r'"[^"\n]*"'
MERMAID_LINES = [
    "flowchart TD",
    rf"n\d+(?:\(\[{LABEL}\]\)|\[{LABEL}\]|\[\[{LABEL}\]\])",
    rf"subgraph f\d+\[{LABEL}\]",
    "end",
    rf"n\d+ (?:-- {LABEL} )?--> n\d+",
]


def holds_to(text: str, grammar: list[str]) -> bool:
    lines = [line.strip() for line in text.split("\n")]
    return all(any(re.fullmatch(rule, line) for rule in grammar) for line in lines)


def test_a_drawing_has_a_box_for_each_node_and_an_arrow_for_each_use() -> None:
    dot = to_dot(program_of("h = x * w + 1; y = h * h"))
    assert dot.split("\n") == [
        "digraph {",
        "  node [shape=box, style=rounded];",
        '  n1 [label="x", shape=ellipse];',
        '  n2 [label="w", shape=ellipse];',
        '  n3 [label="multiply(·, ·)"];',
        '  n4 [label="h\\nadd(·, 1)"];',
        '  n5 [label="y\\nmultiply(·, ·)", peripheries=2];',
        "  n1 -> n3;",
        "  n2 -> n3;",
        "  n3 -> n4;",
        "  n4 -> n5;",
        "  n4 -> n5;",
        "}",
    ]


def test_mermaid_draws_the_same() -> None:
    text = to_mermaid(program_of("q, r = qr(A); y = q @ r"))
    assert text.split("\n") == [
        "flowchart TD",
        '  n1(["A"])',
        '  n2["qr(·)"]',
        '  n3["q<br>positive(·)"]',
        '  n4["r<br>positive(·)"]',
        '  n5[["y<br>matmul(·, ·)"]]',
        "  n1 --> n2",
        '  n2 -- "Q" --> n3',
        '  n2 -- "R" --> n4',
        "  n3 --> n5",
        "  n4 --> n5",
    ]


HOSTILE = [
    '"];x[label="',
    "a\\",
    "a\nb",
    "}",
    "\\end{aligned}",
    "<script>",
    "a&b#;",
    "%",
    "\x00\u202e",
    "end",
    "é" * 99,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_gets_out_of_its_label(name: str) -> None:
    """Whatever a program is called together from; the service takes no such names."""
    statement = Statement(name, ops.einsum, (Ref("in" + name), Ref(name + "in", name)), {"equation": name})
    program = Program((statement,), ((name, Ref(name)), ("out", Ref(name, name))))
    assert holds_to(to_dot(program), DOT_LINES)
    assert holds_to(to_mermaid(program), MERMAID_LINES)
    assert is_balanced(to_latex(program))
    assert len(to_latex(program).split("\n")) == 4


# All there is


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_every_op_and_its_derivative_has_every_form(case: Case) -> None:
    hold(case.program)
    hold(folded(gradient(case).derivative_program()))


LOOPS = "step(h, x) = { new = tanh(h * w + x); new }\ns = scan(step, h0, xs)\nz = s * 2"


def test_loops_have_every_form_and_so_have_their_gradients() -> None:
    inputs: dict[str, Any] = {"h0": 2.0, "w": 0.5, "xs": np.ones(3)}
    hold(program_of(LOOPS))
    hold(folded(compiled_question("grad", LOOPS, inputs).derivative_program()))


def hold(program: Program) -> None:
    assert holds_to(to_dot(program), DOT_LINES)
    assert holds_to(to_mermaid(program), MERMAID_LINES)
    assert is_balanced(to_latex(program))
    assert parse(FORMS["expression"](program), ROOMY).digest == program.digest


def gradient(case: Case) -> Any:
    wrt = [name for name in case.moving if name in case.drawn]
    return compiled_question("grad", case.program, case.drawn, wrt=wrt, ones=True)


# Folding


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_what_is_folded_computes_the_same_bits(case: Case) -> None:
    program = gradient(case).derivative_program()
    expected = ask("value", program, case.drawn)["values"]
    text = print_program(folded(program))
    found = ask("value", parse(text, ROOMY), case.drawn)["values"]
    assert list(found) == list(expected)
    for name, value in found.items():
        assert_same_bits(value, expected[name], name)


def test_what_is_used_once_has_no_name() -> None:
    compiled = compiled_question("grad", "y = sin(x * x)", {"x": 2.0})
    assert print_program(folded(compiled.derivative_program())).split("\n") == [
        "t5 = cos(x * x) * x",
        "gradients_x = t5 + t5",
    ]


def test_what_is_deep_is_cut_into_lines() -> None:
    text = "y = " + "sin(" * 40 + "x" + ")" * 40
    lines = print_program(folded(compiled_question("grad", text, {"x": 2.0}).derivative_program())).split("\n")
    assert max(line.count("(") for line in lines) <= 13
