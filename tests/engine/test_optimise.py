"""The optimiser: every row has a fixture, keeps values and derivatives, and says what it removed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pytest

from engine.calls import CALLS
from engine.core import CONSTANT, INPUT, Graph, Node, ops
from engine.limits import Limits
from engine.ops import contracting
from engine.optimise import optimised, patterns, rewriting, rules
from engine.optimise.rewriting import STAGES
from engine.optimise.rows import AFTER, BEFORE, read_rows
from engine.program import build, to_program
from engine.text import parse, print_program
from engine.types import Array, Spec
from tests.conftest import ROOT
from tests.support import properties
from tests.support.asking import LIMITS, answer_of, ask, chain, compiled_question, counting_tick, numbers
from tests.support.cases import cases
from tests.support.numeric import are_near, assert_close, assert_same_bits

NAMES = {
    **dict.fromkeys("xyz", ((2, 3), "float64")),
    "L": ((40, 40), "float64"),
    **dict.fromkeys("uv", ((3,), "float64")),
    **dict.fromkeys("st", ((), "float64")),
    **dict.fromkeys("AB", ((3, 3), "float64")),
    **dict.fromkeys("fg", ((2, 3), "float32")),
    **dict.fromkeys("ij", ((2, 3), "int64")),
    **dict.fromkeys("mn", ((2, 3), "bool")),
}
ULPS = 2
DIGITS = 700


class Fixture(NamedTuple):
    stage: str
    before: str
    after: str


def _fixtures() -> Iterator[Fixture]:
    stage = ""
    for line in (ROOT / "tests" / "engine" / "rewrites.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("=="):
            stage = line.strip("= ")
        elif line and not line.startswith("#"):
            before, _, after = line.partition(" => ")
            yield Fixture(stage, before, after)


FIXTURES = list(_fixtures())
every_fixture = pytest.mark.parametrize("fixture", FIXTURES, ids=lambda each: f"{each.stage}: {each.before}")


def node_of(text: str, graph: Graph) -> Node:
    specs = {name: Spec(shape, np.dtype(dtype)) for name, (shape, dtype) in NAMES.items()}
    (node,) = build(parse(text, LIMITS), specs, graph).outputs.values()
    return node


def written(node: Node) -> str:
    return print_program(to_program({"out": node}, {}))


def drawn(seed: int) -> dict[str, Array]:
    """Numbers of all sorts: mostly near 1, some far out, some zeros of both signs, some infinite or NaN."""
    rng = np.random.default_rng(seed)
    odd = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 700.0, -700.0, 1e-9, -1e-9, 1e300]

    def draw(shape: tuple[int, ...], dtype: str) -> Array:
        if dtype == "bool":
            return np.asarray(rng.uniform(size=shape) < 0.5)
        if dtype == "int64":
            return np.asarray(rng.integers(-(2**60), 2**60, shape))
        values = np.asarray(rng.uniform(-3, 3, shape))
        chosen = rng.choice(odd, shape)
        mixed = np.where(rng.uniform(size=shape) < 0.25 * (seed % 2), chosen, values)
        with np.errstate(over="ignore"):
            return mixed.astype(dtype)

    return {name: draw(shape, dtype) for name, (shape, dtype) in NAMES.items()}


# Structure


@every_fixture
def test_becomes_what_it_says(fixture: Fixture) -> None:
    graph = Graph()
    before, after = node_of(fixture.before, graph), node_of(fixture.after, graph)
    (found,) = optimised([before], fixture.stage).nodes
    assert found is after, f"{written(found)}\nexpected\n{written(after)}"
    assert (found.spec, found.weak) == (before.spec, before.weak)


@every_fixture
def test_is_done_after_one_sweep(fixture: Fixture) -> None:
    (once,) = optimised([node_of(fixture.before, Graph())], fixture.stage).nodes
    (twice,) = optimised([once], fixture.stage).nodes
    assert twice is once, f"{written(once)}\nbecomes\n{written(twice)}"


def test_every_row_and_rule_has_a_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    done: set[Any] = set()
    monkeypatch.setattr(patterns.Row, "_rewrite", _noting(patterns.Row._rewrite, done))
    for stage, table in STAGES.items():
        watched = [_watched(each, done) if isinstance(each, rules.Rule) else each for each in table]
        monkeypatch.setitem(STAGES, stage, watched)
        monkeypatch.setattr(rewriting, "_worth_trying", {each: {} for each in STAGES})
    for fixture in FIXTURES:
        optimised([node_of(fixture.before, Graph())], fixture.stage)
    # Posted graphs have no marks: those are what a wrt inside a graph is.
    optimised([_marked(Graph())], "after")
    names = {getattr(each, "text", each.meaning) for table in STAGES.values() for each in table}
    assert names - done == set()


def _noting(rewrite: Any, done: set[Any]) -> Any:
    def noted(row: Any, variant: Any, node: Node, sweep: Any) -> Node | None:
        found: Node | None = rewrite(row, variant, node, sweep)
        if found is not None:
            done.add(row.text)
        return found

    return noted


def _watched(rule: rules.Rule, done: set[Any]) -> rules.Rule:
    def rewrite(node: Node, sweep: Any) -> Node | None:
        found = rule.rewrite(node, sweep)
        if found is not None:
            done.add(rule.meaning)
        return found

    return rules.Rule(rule.meaning, rule.concerns, rewrite)


def _marked(graph: Graph) -> Node:
    specs = {"x": Spec((3,), np.dtype(float))}
    return build(parse("y = sin(x); z = cos(y)", LIMITS), specs, graph, ["y"]).outputs["z"]


def test_what_saves_nothing_is_left_alone() -> None:
    """-y + z is z - y, but not where -y is needed all the same: y would be held for longer."""
    for text, steps in (("z - (-sin(y))", 2), ("n = -sin(y); a = n + z; a * n", 4)):
        compiled = compiled_question("value", text, {"y": np.ones(3), "z": np.ones(3)})
        assert len(list(compiled.plan.steps)) == steps


def test_no_row_is_there_twice() -> None:
    for table in (BEFORE, AFTER):
        rows = [(row.text, row.conditions, kind) for row in table for kind in row.kinds]
        assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("line", ["log(x) => x", "log(x) -> x  # so", "log(x) => x  # so\n    if nonsense(x)"])
def test_a_misspelled_row_is_refused(line: str) -> None:
    with pytest.raises((ValueError, AttributeError)):
        read_rows(line, "f")


# Values


@every_fixture
@pytest.mark.parametrize("seed", range(6))
def test_keeps_the_value(fixture: Fixture, seed: int) -> None:
    """Within 2 ulp; a safe form may be nearer to the truth than what it replaces, never further away."""
    graph = Graph()
    before, after = node_of(fixture.before, graph), node_of(fixture.after, graph)
    arrays = drawn(seed)
    if "inv(" in fixture.before:
        return
    old, new = numbers([before, after], arrays)
    far = ~are_near(new, old)
    if not far.any():
        return
    assert is_safe_form(fixture), f"{old} became {new}"
    truth = exactly(before, arrays)
    for place in zip(*np.nonzero(np.atleast_1d(far)), strict=True):
        a, b = (float(np.atleast_1d(each)[place]) for each in (old, new))
        assert is_improved(a, b, np.atleast_1d(truth)[place], old.dtype), f"{a} became {b}, not {truth}"


def is_safe_form(fixture: Fixture) -> bool:
    return fixture.stage == "before" and FIXTURES.index(fixture) < FIXTURES.index(Fixture("before", "x * 1", "x"))


def is_improved(old: float, new: float, truth: Any, dtype: Any) -> bool:
    """Whether the new number is no further from the truth, to 2 ulp of it or of 1. Where there is none, NaN went."""
    if mpmath.isnan(truth):
        return np.isnan(old) and not np.isnan(new)
    if mpmath.isinf(truth) or abs(truth) > np.finfo(dtype).max:
        return np.isinf(new) and (new > 0) == (truth > 0)
    error = abs(mpmath.mpf(new) - truth)
    slack = ULPS * float(np.spacing(np.asarray(max(abs(float(truth)), 1.0), dtype)))
    return np.isfinite(new) and (np.isnan(old) or np.isinf(old) or error <= abs(mpmath.mpf(old) - truth) + slack)


def exactly(node: Node, arrays: dict[str, Array]) -> Any:
    """The value in hundreds of digits, by NumPy's object arrays and mpmath's functions."""
    with mpmath.workdps(DIGITS):
        values: dict[Node, Any] = {}
        for each in node.graph.live([node]):
            if each.op is INPUT or each.op is CONSTANT:
                array = arrays[each.attrs["name"]] if each.op is INPUT else each.value
                values[each] = np.frompyfunc(lambda v: mpmath.mpf(float(v)), 1, 1)(array)
            else:
                values[each] = _exact_op(each, [values[x] for x in each.inputs])
        return values[node]


EXACT = {
    "exp": mpmath.exp,
    "log": lambda v: mpmath.nan if v < 0 else mpmath.log(v),
    "log1p": lambda v: mpmath.nan if v < -1 else mpmath.log(1 + v),
    "cos": lambda v: mpmath.nan if mpmath.isinf(v) else mpmath.cos(v),
    "sigmoid": lambda v: 1 / (1 + mpmath.exp(-v)),
    "erf": mpmath.erf,
    "erfc": mpmath.erfc,
    "ndtr": lambda v: mpmath.erfc(-v / mpmath.sqrt(2)) / 2,
    "reciprocal": lambda v: mpmath.nan if v == 0 else 1 / v,
    "negative": lambda v: -v,
    "sqrt": mpmath.sqrt,
}


def _exact_op(node: Node, operands: list[Any]) -> Any:
    name, attrs = node.op.name, node.attrs
    if name in EXACT:
        return np.frompyfunc(EXACT[name], 1, 1)(*operands)
    two = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": _exact_quotient}
    if name in two:
        return two[name](*operands)
    (x,) = operands
    axes = {"axis": attrs["axis"], "keepdims": True}
    if name in ("sum", "mean", "max"):
        fold = {"sum": np.sum, "mean": np.mean, "max": np.max}[name]
        return fold(x, axis=attrs["axis"], keepdims=attrs["keepdims"])
    exps = np.frompyfunc(mpmath.exp, 1, 1)(x)
    total = np.sum(exps, **axes)
    if name == "logsumexp":
        return np.frompyfunc(EXACT["log"], 1, 1)(np.sum(exps, axis=attrs["axis"], keepdims=attrs["keepdims"]))
    ratio = _exact_quotient(exps, total)
    assert name in ("softmax", "log_softmax")
    return ratio if name == "softmax" else np.frompyfunc(EXACT["log"], 1, 1)(ratio)


_exact_quotient = np.frompyfunc(lambda a, b: mpmath.nan if b == 0 else a / b, 2, 1)


@pytest.mark.parametrize("row", ["sin(x) => cos(x)  # wrong", "x * y => x  # not for every y"])
def test_a_wrong_row_is_found(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The property that all ops are held to sees a planted fault."""
    case = cases([ops.cos])[1]
    properties.optimised_agrees_with_plain(case)
    monkeypatch.setitem(STAGES, "after", read_rows(row, "f"))
    monkeypatch.setattr(rewriting, "_worth_trying", {each: {} for each in STAGES})
    with pytest.raises(AssertionError):
        properties.optimised_agrees_with_plain(case)


# Derivatives


SAFE_AND_SMOOTH = {
    "log(sum(exp(x)))": "logsumexp(x)",
    "log(1 + exp(x))": "softplus(x)",
    "1 / (1 + exp(-x))": "sigmoid(x)",
    "log(1 / (1 + exp(-x)))": "log_sigmoid(x)",
    "exp(x) / sum(exp(x), axis=-1, keepdims=true)": "softmax(x)",
    "log(exp(x) / sum(exp(x), axis=-1, keepdims=true))": "log_softmax(x)",
    "1 - sigmoid(x)": "sigmoid(-x)",
}


@pytest.mark.parametrize("naive", SAFE_AND_SMOOTH)
def test_gradients_of_safe_forms_are_finite_far_out(naive: str) -> None:
    inputs = {"x": np.array([1000.0, -1000.0, 3.0])}
    found = ask("grad", naive, inputs, ones=True)["gradients"]["x"]
    expected = ask("grad", SAFE_AND_SMOOTH[naive], inputs, ones=True)["gradients"]["x"]
    assert np.isfinite(found).all()
    assert_close(found, expected, 1e-15, naive)


def test_a_kink_keeps_its_slope() -> None:
    """sqrt(square(x)) has the value of abs(x), and another slope at 0: none."""
    found = ask("grad", "sqrt(square(x))", {"x": np.array(0.0)})
    assert found["values"]["out"] == 0.0
    assert np.isnan(found["gradients"]["x"])


def test_a_branch_that_was_not_taken_keeps_its_slope() -> None:
    """What is chosen by a constant is cut away once there is nothing left to differentiate, and not before."""
    text = "sum(where([true, false], 0, sqrt(x)))"
    found = ask("grad", text, {"x": np.array([0.0, 4.0])})["gradients"]["x"]
    assert_same_bits(found, ask("grad", text, {"x": np.array([0.0, 4.0])}, optimise=False)["gradients"]["x"], text)


def test_what_is_differentiated_by_stays() -> None:
    """A wrt inside the graph is not rewritten away, and counts what flows through it alone."""
    text = "e = exp(x); s = sum(e); y = log(s)"
    inputs = {"x": np.array([0.5, 1.5])}
    for wrt in ("e", "s"):
        plain, lean = (
            ask("grad", text, inputs, outputs=["y"], wrt=[wrt], optimise=each)["gradients"][wrt]
            for each in (False, True)
        )
        assert_close(lean, plain, 1e-15, wrt)
    second = ask("nth", "e = x * 1; y = e * e * e", {"x": np.array(2.0)}, path=["e", "e"])["derivatives"]
    assert [float(row["value"]) for row in second] == [12.0, 12.0]


def test_a_derivative_graph_is_one_that_can_be_differentiated() -> None:
    """It holds what shapes gradients, though the run needs it no more."""
    compiled = compiled_question("grad", "sum(x * detach(x) * sqrt(square(x)))", {"x": np.array([2.0])})
    ops_run = {step.node.op.name for step in compiled.plan.steps}
    kept = {statement.op.name for statement in compiled.derivative_program().statements}
    assert {"detach", "sqrt"}.isdisjoint(ops_run)
    assert {"detach", "sqrt"} <= kept


def test_under_raise_the_posted_graph_runs() -> None:
    """The first node that gave an infinity is named, though a safe form would have given none."""
    with pytest.raises(Exception, match="exp gave") as caught:
        ask("value", "e = exp(x); y = log(sum(e))", {"x": np.array([1000.0])}, outputs=["y"], nan_policy="raise")
    assert caught.value.node == "e"  # type: ignore[attr-defined]


LOOP = "step(h) = h + 0 * 1 + x * log(1 / (1 + exp(-h * 1)))\nlast = scan(step, h, length=5)\nsum(last)"


def test_bodies_of_loops_are_optimised() -> None:
    """Safe forms hold within a loop as without, for values and gradients, and are counted."""
    inputs = {"x": np.array([1.0, 1.0]), "h": np.array([-2000.0, 0.5])}
    plain, lean = (compiled_question("grad", LOOP, inputs, optimise=each) for each in (False, True))
    assert lean.nodes_removed > 4
    found, expected = lean.run(lean.bind()), plain.run(plain.bind())
    for name in inputs:
        assert np.isfinite(found["gradients"][name]).all()
        assert not np.isfinite(expected["gradients"][name][0])
        assert_close(found["gradients"][name][1], expected["gradients"][name][1], 1e-14, name)


def test_masked_products_stay_masked() -> None:
    text = "sum(where(x > 0, sqrt(x), 0))"
    for call in ("grad", "hvp"):
        more = {"vectors": {"x": np.ones(2)}} if call == "hvp" else {}
        found = ask(call, text, {"x": np.array([0.0, 4.0])}, nan_policy="mask", **more)
        assert np.isfinite(found["gradients"]["x"]).all()


# Size


def test_says_how_many_nodes_it_removed() -> None:
    compiled = compiled_question("value", "log(sum(exp(x)))", {"x": np.ones(3)})
    assert compiled.nodes_removed == 2
    assert len(list(compiled.plan.steps)) == 1
    assert compiled_question("value", "log(sum(exp(x)))", {"x": np.ones(3)}, optimise=False).nodes_removed == 0
    assert compiled_question("value", "sin(x)", {"x": np.ones(3)}).nodes_removed == 0


def test_a_sum_of_equal_terms_holds_no_terms() -> None:
    peak = compiled_question("value", "sum(broadcast_to(x, [1000, 1000]))", {"x": np.ones(())}).plan.peak_bytes
    assert peak < 100


def test_a_graph_near_its_limit_is_left_alone() -> None:
    graph, inputs = chain(60, "square"), {"x": np.array(0.5)}
    plain = compiled_question("grad", graph, inputs, optimise=False)
    least = len(plain.built.graph)
    compiled = compiled_question("grad", graph, inputs, limits=Limits(expanded_nodes=least))
    assert compiled.nodes_removed == 0


def test_the_clock_is_looked_at() -> None:
    graph = Graph()
    node = node_of("sin(" * 150 + "x" + ")" * 150, graph)
    graph.tick = counting_tick(0)
    with pytest.raises(TimeoutError):
        optimised([node], "after")


def test_constants_too_large_are_left_to_the_run() -> None:
    for text in ("x + sum(eye(100) @ eye(100))", "sum(x * exp(arange(100000)))"):
        compiled = compiled_question("value", text, {"x": np.ones(())})
        assert all(node.size <= 1 << 12 for node in compiled.built.graph.nodes if node.op is CONSTANT)


@pytest.mark.parametrize("call", CALLS)
def test_the_option_is_for_all_calls(call: str) -> None:
    more: dict[str, Any] = {}
    x = np.array([0.3, 0.7])
    if call in ("jvp", "taylor", "hvp"):
        more[{"jvp": "tangents", "taylor": "direction", "hvp": "vectors"}[call]] = {"x": np.ones(2)}
    if call in ("nth", "taylor"):
        more["order"] = 3
    text = "log(sum(exp(x * x * 3 / 2)))"
    plain, lean = (compiled_question(call, text, {"x": x}, optimise=each, **more) for each in (False, True))
    assert len(lean.plan.template) < len(plain.plan.template)
    for (_, found), (_, expected) in zip(_arrays(lean.run(lean.bind())), _arrays(plain.run(plain.bind())), strict=True):
        assert_close(found, expected, 1e-13, call)


def _arrays(tree: Any) -> Iterator[tuple[str, Any]]:
    for name, each in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(each, dict | list):
            yield from _arrays(each)
        elif isinstance(each, np.ndarray):
            yield str(name), each


# The order of a contraction


def chained(sizes: list[int], most_exactly: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The product of a chain of matrices, as one einsum."""
    monkeypatch.setattr(contracting, "MOST_EXACTLY", most_exactly)
    letters = "abcdefghi"[: len(sizes)]
    terms = ",".join(map("".join, itertools.pairwise(letters)))
    rng = np.random.default_rng(0)
    inputs = {f"x{at}": rng.normal(size=shape) for at, shape in enumerate(itertools.pairwise(sizes))}
    compiled = compiled_question("value", f'einsum("{terms}->{letters[0]}{letters[-1]}", {", ".join(inputs)})', inputs)
    found = answer_of(compiled)["values"]["out"]
    assert_close(found, np.linalg.multi_dot(list(inputs.values())), 1e-12, terms)
    return compiled.plan


def test_a_chain_of_matrices_is_contracted_in_the_cheapest_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """15,125 multiplications: Cormen, Leiserson, Rivest and Stein, Introduction to Algorithms, section 15.2."""
    assert chained([30, 35, 15, 5, 10, 20, 25], 8, monkeypatch).flops == 2 * 15_125


def test_of_many_factors_a_good_order_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    best, greedy = (chained([5, 40, 3, 30, 2, 50, 7, 20, 9], most, monkeypatch).flops for most in (8, 2))
    assert best <= greedy <= 2 * best


def test_an_order_is_found_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight factors, the most that an einsum takes, each way to part a group is looked at once."""
    looked_at = 0
    plain = contracting._Costs.of

    def counted(costs: Any, one: int, other: int) -> int:
        nonlocal looked_at
        looked_at += 1
        return plain(costs, one, other)

    monkeypatch.setattr(contracting._Costs, "of", counted)
    chained([2] * 9, 8, monkeypatch)
    assert looked_at == (3**8 - 2**9 + 1) // 2
