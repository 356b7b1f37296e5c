"""Every fast road gives what the plain one gives: floats, blocks, threads and source against NumPy, call by call."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from engine import blocks, execute, groups, source
from engine import plan as planning
from engine.core import Graph, Node, Op, ops
from engine.errors import EngineError, NonFinite, OutOfMemory
from engine.execute import run
from engine.floats import form_of, function_of
from engine.plan import Blocks, Calls, Floats, Plan, kernel_of, make_plan
from engine.types import Array, Spec
from tests.support import properties
from tests.support.asking import ask, compiled_question, counting_tick
from tests.support.cases import Case, cases, ids
from tests.support.memory import measured
from tests.support.numeric import are_near, assert_same_bits

every_case = pytest.mark.parametrize("case", cases(), ids=ids)
FEW = 8
"""Elements of a block, in tests."""


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is elementwise and has two elements goes in blocks."""
    monkeypatch.setattr(groups, "BLOCKS_FROM", 2)
    monkeypatch.setattr(groups, "COSTLY", 0)
    for module in (groups, blocks):
        monkeypatch.setattr(module, "BLOCK", FEW)


def whole(nodes: Sequence[Node], arrays: dict[str, Array]) -> list[Array]:
    """What NumPy gives, one call a node."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "form_of", lambda node: None)
        patch.setattr(groups, "BLOCKS_FROM", math.inf)
        plan = make_plan(nodes)
    assert all(isinstance(piece, Calls) for piece in plan.pieces)
    return run(plan, arrays)


def pieces(plan: Plan, kind: type) -> list[Any]:
    return [piece for piece in plan.pieces if isinstance(piece, kind)]


# Floats

CORNERS = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, 7.25, -0.3, 1e-3, 20.0, -20.0, 709.0, 710.0, -745.2),
    *(math.inf, -math.inf, math.nan, 1e300, -1e300, 1e-300, -5e-324, 2.0**-1022, 2.0**53 + 2, -(2.0**62)),
)
EXACT = 10
"""Flops of an element up to which an op is arithmetic, comparison or choice: IEEE 754 leaves no bit open there."""

EITHER_ZERO = ("maximum", "minimum", "fmax", "fmin")
"""Which zero is the larger one is open."""


def scalar_nodes() -> Iterator[Any]:
    """Every op that has a form over floats, with each of its attributes."""
    for op in ops:
        if op.scalar:
            for attrs in {repr(sample.attrs): sample.attrs for sample in op.samples}.values():
                for kinds in itertools.product(*[_dtypes(op, at) for at in range(len(op.operands))]):
                    graph = Graph()
                    operands = [graph.input(f"x{at}", Spec((), np.dtype(kind))) for at, kind in enumerate(kinds)]
                    yield from _formed(op, graph, operands, attrs)


def _dtypes(op: Op, at: int) -> list[str]:
    kinds = op.operand(at).kinds
    return [name for name, kind in (("float64", "f"), ("bool", "b")) if kind in kinds]


def _formed(op: Op, graph: Graph, operands: list[Node], attrs: dict[str, Any]) -> Iterator[Any]:
    try:
        (node,) = op.apply(graph, operands, attrs)
    except EngineError:
        return
    if node.op is op and form_of(node) is not None:
        marks = "-".join(x.dtype.name for x in node.inputs)
        yield pytest.param(node, id=f"{op.name}-{marks}-{repr(attrs) if attrs else ''}")


@pytest.mark.parametrize("node", list(scalar_nodes()))
def test_a_form_over_floats_gives_what_the_kernel_gives(node: Node) -> None:
    form = form_of(node)
    assert form is not None
    function, kernel = function_of(form, len(node.inputs)), kernel_of(node)
    ulps = 0 if node.flops < EXACT else 2
    for values in itertools.product(*[CORNERS if x.dtype.kind == "f" else (True, False) for x in node.inputs]):
        with np.errstate(all="ignore"):
            expected = np.asarray(kernel(*map(np.asarray, values)))
        try:
            found = np.asarray(function(*values))
        except execute.OFF_THE_ROAD:
            continue
        what = f"{node.op.name}{values}: {found}, expected {expected}"
        assert found.dtype == expected.dtype and are_near(found, expected, ulps).all(), what
        if ulps == 0 and node.op.name not in EITHER_ZERO:
            assert_same_bits(found, expected, what)


def test_the_road_is_rarely_left() -> None:
    """Where values are finite and not extreme, nearly every form answers by itself."""
    left = set()
    for param in scalar_nodes():
        (node,) = param.values
        try:
            function_of(form_of(node), len(node.inputs))(*[0.5 if x.dtype.kind == "f" else True for x in node.inputs])
        except execute.OFF_THE_ROAD:
            left.add(node.op.name)
    assert left == {"acosh"}


def test_a_graph_of_scalars_runs_over_floats_cold_and_warm_with_the_same_bits() -> None:
    compiled = compiled_question("grad", SCALARS, {"x": 0.7, "y": -1.3})
    assert {type(piece) for piece in compiled.plan.pieces} == {Floats}
    cold, *warm = [leaves(compiled.run(compiled.bind())) for _ in range(4)]
    assert compiled._written is not None
    for each in warm:
        for found, expected in zip(each, cold, strict=True):
            assert_same_bits(found, expected, SCALARS)


SCALARS = "sin(x * y) + exp(y) * x / (y * y + 1.0) - tanh(x * y) + where(x > y, x, y) + ndtr(x)"


def leaves(tree: Any) -> list[Array]:
    if isinstance(tree, dict | list):
        return [each for part in (tree.values() if isinstance(tree, dict) else tree) for each in leaves(part)]
    return [np.asarray(tree)] if isinstance(tree, np.ndarray | float) else []


OFF_ROAD = {
    "x / y + x + x + x": {"x": 1.0, "y": 0.0},
    "log(x) + y * exp(x) + y": {"x": 0.0, "y": 2.0},
    "exp(x) * y - y + x": {"x": 1000.0, "y": -1.0},
    "sqrt(x) + sin(y) + x * y": {"x": -1.0, "y": math.inf},
    "x ** y + sin(x) * y": {"x": 0.0, "y": -2.0},
    "floor(x) + y % x + atanh(y)": {"x": math.inf, "y": 1.0},
}


@pytest.mark.parametrize("text", OFF_ROAD)
def test_where_python_raises_numpy_is_asked(text: str) -> None:
    """Infinities and NaNs come out as IEEE 754 has them, by the loop and by the source."""
    compiled = compiled_question("grad", text, OFF_ROAD[text])
    assert pieces(compiled.plan, Floats)
    plain = whole(compiled.results, compiled.bind())
    for _ in range(3):
        for found, expected in zip(run(compiled.plan, compiled.bind()), plain, strict=True):
            assert found.dtype == expected.dtype and are_near(found, expected).all()


def test_a_long_plan_is_written_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "TICK_FLOATS", 512)
    monkeypatch.setattr(source, "MOST_STEPS", 1024)
    text = "; ".join(f"x{at + 1} = sin(x{at}) + x{at // 2} * 0.5" for at in range(1_500))
    compiled = compiled_question("grad", text, {"x0": 0.3}, outputs=["x1500"])
    assert len(pieces(compiled.plan, Floats)) > 2
    cold, *warm = [run(compiled.plan, compiled.bind()) for _ in range(3)]
    assert compiled.plan.written is None and all(piece.written for piece in pieces(compiled.plan, Floats))
    for each in warm:
        assert_equal(each, cold)
    for found, expected in zip(cold, whole(compiled.results, compiled.bind()), strict=True):
        assert abs(found - expected) <= 1e-12 * abs(expected)


def assert_equal(found: Sequence[Array], expected: Sequence[Array]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert_same_bits(a, b, "another run")


def test_scalars_between_arrays_go_to_floats_and_back() -> None:
    text = "s = sum(x); t = exp(-s * s) + sin(s) / (1 + s); out = x * t + s"
    compiled = compiled_question("grad", text, {"x": np.array([0.1, 0.2, 0.4])}, outputs=["out"], ones=True)
    assert len({type(piece) for piece in compiled.plan.pieces}) == 2
    plain = whole(compiled.results, compiled.bind())
    for _ in range(3):
        for found, expected in zip(run(compiled.plan, compiled.bind()), plain, strict=True):
            assert are_near(found, expected, 4).all()


def test_the_body_of_a_scan_runs_over_floats() -> None:
    text = "f(c) = c * 0.5 + sin(c) * c\nscan(f, x, length=50)"
    compiled = compiled_question("value", text, {"x": 0.3})
    (step,) = [step for step in compiled.plan.steps if step.node.op.steers]
    compiled.run(compiled.bind())
    body = step.node.attrs["body_fn"].plan
    assert {type(piece) for piece in body.pieces} == {Floats} and body.written is not None


def test_a_policy_that_refuses_nan_sees_every_float() -> None:
    with pytest.raises(NonFinite, match="gave a NaN"):
        ask("value", "a = x / y; b = a * x; c = b + x; d = c - y; 1 / d", {"x": 1.0, "y": 0.0}, nan_policy="raise")


# Every op, by every road


@every_case
def test_roads_agree_on_every_op(case: Case, small_blocks: None) -> None:
    """Results, gradients and their tangents: in small blocks, over floats, and then as source, against plain calls."""
    scene = properties.Derived(case)
    nodes = [*scene.results, *(scene.forward(scene.t, scene.gradient()) if case.moving else [])]
    expected = whole(nodes, scene.arrays)
    plan = make_plan(nodes)
    first = run(plan, scene.arrays)
    for found, plain in zip(first, expected, strict=True):
        assert (found.dtype, found.shape) == (plain.dtype, plain.shape)
        assert are_alike(found, plain), f"{case}: {found!r}, expected {plain!r}"
    for threads in (1, 2, 5):
        assert_equal(run(plan, scene.arrays, threads=threads), first)


@every_case
def test_source_agrees_on_every_op(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as one function, which shares variables and writes over what dies: bit for bit what the steps give."""
    monkeypatch.setattr(planning, "REUSE_FROM", 2)
    monkeypatch.setattr(planning, "LEAST_FLOATS", 1)
    monkeypatch.setattr(groups, "BLOCKS_FROM", math.inf)
    scene = properties.Derived(case)
    nodes = [*scene.results, *(scene.forward(scene.t, scene.gradient()) if case.moving else [])]
    plan = make_plan(nodes)
    first = run(plan, scene.arrays)
    for found, plain in zip(first, whole(nodes, scene.arrays), strict=True):
        assert are_alike(found, plain), f"{case}: {found!r}, expected {plain!r}"
    if not source.is_short(plan):
        assert plan.flops > planning.TICK_FLOPS or any(step.node.op.steers for step in plan.steps)
        return
    with np.errstate(all="ignore"):
        for _ in range(2):
            assert_equal(source.written_plan(plan)(scene.arrays), first)
        tree = source.written_answer(plan, [(at,) for at in range(len(nodes))])(scene.arrays)
    assert [isinstance(each, float) for each in tree] == [*plan.floats]
    assert_equal([np.asarray(each) for each in tree], first)


def are_alike(found: Array, expected: Array) -> bool:
    """A few units in the last place apart, or as many of the largest number where terms cancelled."""
    if expected.dtype.kind not in "fc":
        return bool((found == expected).all())
    finite = np.isfinite(expected)
    scale = np.abs(expected[finite]).max(initial=0)
    return are_near(np.where(finite, scale + found, found), np.where(finite, scale + expected, expected), 16).all()


# Blocks

SHAPES = ([(13,)], [(5, 7)], [(3, 1, 4)], [(5, 7), (7,)], [(5, 1), (1, 7)], [(2, 3, 5), (3, 1)], [(9, 2), ()])


def pointwise_nodes() -> Iterator[Any]:
    """Every op that may stand in blocks, on shapes that no block divides, stretched and not."""
    for op in ops:
        if op.pointwise and not op.view and op.name not in ("conj", "real"):  # which real numbers have no need of
            for given in SHAPES:
                shapes = [given[at % len(given)] for at in range(len(op.operands))]
                yield pytest.param(op, shapes, id=f"{op.name}-{shapes}".replace(" ", ""))


@pytest.mark.parametrize(("op", "shapes"), list(pointwise_nodes()))
def test_blocks_are_parts_of_the_whole(op: Op, shapes: list[tuple[int, ...]], small_blocks: None) -> None:
    sample = next(sample for sample in op.samples if len(sample.operands) == len(op.operands))
    case = Case(op, type(sample)(tuple(shapes), sample.attrs), 0)
    scene = properties.Scene(case)
    plan = make_plan(scene.results)
    assert [type(piece) for piece in plan.pieces][-1] is Blocks
    assert_equal(run(plan, case.arrays, threads=2), whole(scene.results, case.arrays))


FOLDED = [
    ("sum", [0], [1], [0, 1], [0, 1, 2], [2], [1, 2]),
    ("mean", [0, 1, 2], [2], [0]),
    ("prod", [0, 1, 2], [2]),
    ("max", [0, 1, 2], [1, 2]),
    ("min", [0, 1, 2], [2]),
]


@pytest.mark.parametrize("shape", [(7, 5, 3), (2, 40, 1), (30, 1, 1), (1, 1, 50)], ids=str)
@pytest.mark.parametrize(("name", "axes"), [(name, axes) for name, *all_axes in FOLDED for axes in all_axes])
def test_reductions_end_a_group(name: str, axes: list[int], shape: tuple[int, ...], small_blocks: None) -> None:
    x = np.random.default_rng(3).normal(size=shape)
    compiled = compiled_question("value", f"{name}(sin(x) * x, axis={axes})", {"x": x})
    expected = whole(compiled.results, compiled.bind())
    for threads in (1, 2, 4):
        (found,) = run(compiled.plan, compiled.bind(), threads=threads)
        assert found.shape == expected[0].shape and np.allclose(found, expected[0], rtol=1e-14, atol=1e-15)


def test_a_sum_over_blocks_is_as_exact_as_a_whole_one_and_never_differs() -> None:
    x = np.random.default_rng(5).normal(size=1_000_003) * 1e6 + 1.0
    compiled = compiled_question("value", "sum(x * 1.5)", {"x": x})
    (group,) = pieces(compiled.plan, Blocks)
    assert [step.node.op.name for step in group.steps] == ["multiply", "sum"]
    sums = [compiled.run(compiled.bind(), threads=threads)["values"]["out"] for threads in (1, 2, 3, 2, 1)]
    assert len({float(each) for each in sums}) == 1
    exact = math.fsum(x * 1.5)
    assert abs(sums[0] - exact) <= 4 * abs(np.sum(x * 1.5) - exact) + np.spacing(np.abs(x).sum()) * 8


def test_groups_hold_no_more_than_was_planned() -> None:
    """A chain of twenty, and its gradient: the peak is what goes in, what comes out, and some blocks."""
    x = np.random.default_rng(0).normal(size=1_000_000)
    text = "; ".join(f"h{at + 1} = tanh(h{at}) * 1.01" for at in range(10))
    compiled = compiled_question("grad", f"h0 = x; {text}", {"x": x}, outputs=["h10"], ones=True)
    given = compiled.bind()
    with measured() as peak:
        compiled.run(given, threads=2)
    assert peak() + x.nbytes <= compiled.plan.peak_bytes <= 3 * x.nbytes + (64 << 20)


def test_what_fails_in_a_block_stops_all_threads_and_is_named(small_blocks: None) -> None:
    def broken(*operands: Any, out: Any) -> Any:
        raise ValueError("no")

    compiled = compiled_question("value", "a = sin(x); b = a * x", {"x": np.ones(100)}, outputs=["b"])
    (group,) = pieces(compiled.plan, Blocks)
    step = group.steps[1]
    object.__setattr__(group, "steps", (group.steps[0], step._replace(kernel=broken)))
    with pytest.raises(EngineError, match="multiply cannot take these values: no") as caught:
        compiled.run(compiled.bind(), threads=4)
    assert caught.value.node == "b"


def test_the_clock_is_looked_at_between_blocks(small_blocks: None) -> None:
    compiled = compiled_question("value", "sin(x) * x", {"x": np.ones(100)})
    with pytest.raises(TimeoutError):
        compiled.run(compiled.bind(), counting_tick(3))


def test_a_policy_that_refuses_nan_looks_into_blocks(small_blocks: None) -> None:
    x = np.ones(40)
    x[33] = 0.0
    with pytest.raises(NonFinite, match="gave a NaN"):
        ask("value", "a = x * 2; b = 1 / a; c = 1 / b", {"x": x}, nan_policy="raise", outputs=["c"])


FAILING = {
    "inv(a)": (np.eye(2), np.zeros((2, 2)), "singular_matrix"),
    "take(a, astype(x, 'int64'), axis=0)": (np.zeros(2), np.full(2, 7.0), "invalid_tensor"),
}


@pytest.mark.parametrize("call", FAILING)
def test_a_step_that_fails_is_named_however_warm_the_plan(call: str) -> None:
    good, bad, code = FAILING[call]
    compiled = compiled_question("value", f"a = sin(x) * 1; b = {call}", {"x": good}, outputs=["b"])
    cold, warm = [], []
    for found in (cold, warm):
        with pytest.raises(EngineError) as caught:
            compiled.run({"x": bad})
        found.append(caught.value)
        compiled.run({"x": good})
    assert compiled._written is not None
    assert {(each.code, each.node, each.detail) for each in (*cold, *warm)} == {(code, "b", cold[0].detail)}


def test_what_finds_no_memory_for_a_group_is_told(small_blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> Any:
        raise MemoryError

    compiled = compiled_question("value", "a = sin(x); b = a * x", {"x": np.ones(100)}, outputs=["b"])
    monkeypatch.setattr(blocks.np, "empty", full)
    with pytest.raises(OutOfMemory):
        compiled.run(compiled.bind())
