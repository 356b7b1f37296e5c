"""The graph that computed a derivative, posted back with the same inputs, gives the same numbers: every op, every call.

Mostly to the bit; but the optimiser sees it before any differentiation, and may find more to merge in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from engine.calls import Compiled, Tree
from engine.core import ops
from engine.errors import NotDifferentiable
from engine.program import Program, Ref, Statement, read_graph, write_graph
from engine.text import parse, print_program
from engine.types import Array, is_inexact
from tests.support.asking import LIMITS, answer_of, ask, compiled_question
from tests.support.cases import Case, Scene, cases, ids, like
from tests.support.numeric import assert_close

CASES = [case for case in cases() if case.drawn and set(case.moving) & set(case.drawn)]
OF_SCALARS = ("hessian", "hvp")
OF_ALL, OF_FIRST = ("grad", "jvp", "hvp", "taylor"), ("jacobian", "hessian", "nth", "path")
"""Calls that are made of every sample, and of the first of each op only."""
ASKED = [(case, call) for case in CASES for call in (*OF_ALL, *(OF_FIRST if case.number == 0 else ()))]


def scalar(case: Case) -> Program:
    """The sum of squares, or its real part, of the first result that has a derivative."""
    results = zip(case.program.outputs, Scene(case).results, strict=True)
    ref, node = next((ref, node) for (_, ref), node in results if is_inexact(node.dtype))
    square, total = Statement("square_", ops.multiply, (ref, ref)), Statement("total_", ops.sum, (Ref("square_"),))
    last = Statement("last_", ops.real if node.dtype.kind == "c" else ops.positive, (Ref("total_"),))
    statements = (*case.program.statements, square, total, last)
    return replace(case.program, statements=statements, outputs=(("s", Ref("last_")),))


def moving(case: Case) -> list[str]:
    return [name for name in case.moving if name in case.drawn]


def how(call: str, case: Case) -> dict[str, Any]:
    """What more a question of this call has."""
    wrt = moving(case)
    directions = {name: case.directions()[name] for name in wrt}
    return {
        "grad": {"wrt": wrt, "ones": True},
        "jvp": {"tangents": directions},
        "jacobian": {"wrt": wrt},
        "hessian": {"wrt": wrt},
        "hvp": {"wrt": wrt, "vectors": directions},
        "nth": {"wrt": wrt, "order": 3},
        "path": {"path": [*wrt, *wrt[::-1]][:4]},
        "taylor": {"direction": directions, "order": 3},
    }[call]


def hold(compiled: Compiled, inputs: dict[str, Array]) -> None:
    """Hold the derivative graph against the answer that it computed, by way of JSON and of text."""
    expected = list(leaves({name: each for name, each in answer_of(compiled).items() if name in derived(compiled)}))
    program = compiled.derivative_program()
    posted = read_graph(orjson.loads(orjson.dumps(write_graph(program, "base64"))), LIMITS)
    found = list(ask("value", posted, inputs)["values"].values())
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert_close(a, b, 1e-6 if is_coarse(b) else 1e-14, str(posted.outputs))
    roomy = replace(LIMITS, expression_characters=10**8)
    assert parse(print_program(program), roomy).digest == program.digest


def is_coarse(array: Array) -> bool:
    return array.dtype.name in ("float32", "complex64")


def derived(compiled: Compiled) -> set[str]:
    """The field of the answer that is the call's own."""
    own = {"grad": "gradients", "jvp": "tangents", "nth": "derivatives", "taylor": "coefficients"}
    return {own.get(compiled.question.call, compiled.question.call)}


def leaves(tree: Tree) -> Iterator[Array]:
    if isinstance(tree, dict | list):
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(each)
    elif isinstance(tree, np.ndarray):
        yield tree


@pytest.mark.parametrize(("case", "call"), ASKED, ids=ids)
def test_posted_back_it_gives_the_same_numbers(case: Case, call: str) -> None:
    program = scalar(case) if call in OF_SCALARS else case.program
    try:
        compiled = compiled_question("nth" if call == "path" else call, program, case.drawn, **how(call, case))
    except NotDifferentiable:
        return
    hold(compiled, case.drawn)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_under_a_batch_too(case: Case) -> None:
    """Two examples at once, and two cotangents for each."""
    rng = np.random.default_rng(0)
    inputs = {name: np.stack([x, x]) for name, x in case.drawn.items()}
    outputs = ask("value", case.program, inputs, batch=list(inputs))["values"]
    seeds = {name: like(np.stack([y, y]), rng) for name, y in outputs.items() if is_inexact(y.dtype)}
    try:
        compiled = compiled_question(
            "grad", case.program, inputs, batch=list(inputs), wrt=moving(case), grad_outputs=seeds
        )
    except NotDifferentiable:
        return
    hold(compiled, inputs)
