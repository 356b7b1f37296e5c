"""What must hold of every op at every sample: each property is a function of a case that raises AssertionError.

The tests of the catalogue point them at the registry; the tests of the tests point them at planted faults. None knows
an op, and none trusts the rule that it checks: forward mode is held against differences of values, reverse mode
against forward mode, second orders against differences and against each other, series against nested forward mode,
a batch against a loop, float32 against float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.core import Graph, Node
from engine.derivative import or_zero
from engine.execute import run
from engine.optimise import optimised
from engine.plan import make_plan
from engine.transforms.batch import batch
from engine.transforms.forward import forward
from engine.transforms.reverse import reverse
from engine.transforms.taylor import taylor
from engine.types import Array, Spec
from tests.support.cases import Case, Scene, like, merged
from tests.support.numeric import are_near, assert_close, assert_same_bits, inner, ridders

TAYLOR_ORDER = 4
BATCH = 3
COARSE = 1e-2
"""Tolerance of differences of what is rounded to single precision on the way."""


# What is common


class Derived(Scene):
    """A case as nodes, with leaves for tangents t.x, s.x and for cotangents u.0, u.1, … of its results."""

    def __init__(self, case: Case, graph: Graph | None = None) -> None:
        super().__init__(case, graph)
        rng = np.random.default_rng(7)
        self.arrays = dict(case.arrays)
        self.t = self._directions("t", 1)
        self.s = self._directions("s", 2)
        self.u = [self.seed(f"u.{at}", node.spec, rng) for at, node in enumerate(self.differentiable)]

    def _directions(self, role: str, salt: int) -> dict[Node, Node]:
        found = {}
        for name, array in self.case.directions(salt).items():
            self.arrays[f"{role}.{name}"] = array
            found[self.leaves[name]] = self.leaf(f"{role}.{name}", array)
        return found

    def seed(self, name: str, spec: Spec, rng: np.random.Generator) -> Node:
        self.arrays[name] = like(np.empty(spec.shape, spec.dtype), rng)
        return self.graph.input(name, spec)

    def forward(self, tangents: Mapping[Node, Node], nodes: Sequence[Node]) -> list[Node]:
        return filled(forward(tangents, nodes), nodes)

    def reverse(self, nodes: Sequence[Node], cotangents: Sequence[Node]) -> list[Node]:
        wrt = list(self.moving.values())
        return filled(reverse(zip(nodes, cotangents, strict=True), wrt), wrt)

    def gradient(self) -> list[Node]:
        """The gradient of Σ⟨u, result⟩ by each moving operand."""
        return self.reverse(self.differentiable, self.u)

    def numbers(self, nodes: Sequence[Node], arrays: Mapping[str, Array] | None = None) -> list[Array]:
        return run(make_plan(nodes), self.arrays if arrays is None else arrays)

    def along(self, nodes: Sequence[Node]) -> list[Array]:
        """The derivatives of nodes along t, by differences."""
        plan = make_plan(nodes)
        sizes = [node.size for node in nodes]

        def moved(h: float) -> Array:
            shifted = {name: self.arrays[name] + h * self.arrays[f"t.{name}"] for name in self.moving}
            values = run(plan, merged(self.arrays, as_before(shifted, self.arrays)))
            wide = np.concatenate([*(each.astype(np.result_type(each, float)).ravel() for each in values), []])
            return np.where(np.isinf(wide), 0.0, wide)  # an infinity that stays is as good as any constant

        slopes = np.split(ridders(moved, self.step(nodes)), np.cumsum(sizes)[:-1])
        return [each.reshape(node.shape) for each, node in zip(slopes, nodes, strict=True)]

    def step(self, nodes: Sequence[Node]) -> float:
        return 0.2 if is_coarse(nodes) else 0.02


def as_before(arrays: Mapping[str, Array], before: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array.astype(before[name].dtype, copy=False) for name, array in arrays.items()}


def filled(found: Sequence[Node | None], partners: Sequence[Node]) -> list[Node]:
    return [or_zero(each, x) for each, x in zip(found, partners, strict=True)]


def is_coarse(nodes: Sequence[Node]) -> bool:
    live = nodes[0].graph.live(nodes) if nodes else []
    return any(node.dtype.name in ("float32", "complex64") for node in live)


def assert_specs(nodes: Sequence[Node], partners: Sequence[Node], what: str) -> None:
    for node, partner in zip(nodes, partners, strict=True):
        assert node.spec == partner.spec, f"{what} is {node.spec}, expected {partner.spec}"


def assert_declared(nodes: Sequence[Node], arrays: Mapping[str, Array]) -> None:
    """Every node on the way computes what its spec declares."""
    live = [node for node in nodes[0].graph.live(nodes) if not node.op.has_several] if nodes else []
    for node, array in zip(live, run(make_plan(live), arrays), strict=True):
        found = Spec(array.shape, array.dtype)
        assert found == node.spec, f"{node.op.name} computed {found}, declared {node.spec}"


# The properties


def value_is_as_declared(case: Case) -> None:
    """The value has the shape and dtype that were inferred, and so has everything on the way to it."""
    scene = Scene(case)
    before = {name: array.copy() for name, array in case.arrays.items()}
    assert_declared(scene.results, case.arrays)
    for name, array in case.arrays.items():
        assert_same_bits(array, before[name], f"operand {name} after the run")


def forward_agrees_with_differences(case: Case) -> None:
    scene = Derived(case)
    tangents = scene.forward(scene.t, scene.differentiable)
    assert_specs(tangents, scene.differentiable, "the tangent of a result")
    expected = scene.along(scene.differentiable)
    for found, slope in zip(scene.numbers(tangents), expected, strict=True):
        assert_close(found, slope, COARSE if is_coarse(scene.results) else 1e-6, "forward mode against differences")


def reverse_agrees_with_forward(case: Case) -> None:
    """⟨u, J t⟩ = ⟨Jᵀ u, t⟩, for each result by itself, and for each operand by itself."""
    scene = Derived(case)
    for node, u in zip(scene.differentiable, scene.u, strict=True):
        cotangents = scene.reverse([node], [u])
        assert_specs(cotangents, list(scene.moving.values()), "the cotangent of an operand")
        for (name, x), cotangent in zip(scene.moving.items(), cotangents, strict=True):
            (tangent,) = scene.forward({x: scene.t[x]}, [node])
            jt, jtu = scene.numbers([tangent, cotangent])
            u_value, t_value = scene.arrays[str(u.attrs["name"])], scene.arrays[f"t.{name}"]
            _assert_equal(inner(u_value, jt), inner(jtu, t_value), u_value, jt, f"⟨u, J t⟩ and ⟨Jᵀ u, t⟩ by {name}")


def _assert_equal(one: float, other: float, u: Array, v: Array, what: str, tolerance: float = 1e-9) -> None:
    """Two sums of products u·v, up to rounding at the size of their terms."""
    if math.isnan(one) and math.isnan(other):
        return
    scale = max(1.0, float(np.abs(u).ravel() @ np.abs(v).ravel()))
    coarse = any(each.dtype.name in ("float32", "complex64") for each in (u, v))
    error = abs(one - other)
    assert error <= (1e-4 if coarse else tolerance) * scale, f"{what} differ: {one} and {other}"


def second_order_agrees_with_differences(case: Case) -> None:
    """Forward over reverse against differences of the gradient."""
    scene = Derived(case)
    gradient = scene.gradient()
    products = scene.forward(scene.t, gradient)
    assert_specs(products, gradient, "the product of a Hessian and a vector")
    expected = scene.along(gradient)
    for found, slope in zip(scene.numbers(products), expected, strict=True):
        assert_close(found, slope, COARSE if is_coarse(gradient) else 1e-5, "second order against differences")


def second_orders_agree(case: Case) -> None:
    """⟨s, H t⟩ = ⟨t, H s⟩, by forward over reverse, reverse over reverse, and forward over forward."""
    scene = Derived(case)
    gradient = scene.gradient()
    by_t, by_s = scene.forward(scene.t, gradient), scene.forward(scene.s, gradient)
    over = scene.reverse(gradient, list(scene.s.values()))
    twice = scene.forward(scene.s, scene.forward(scene.t, scene.differentiable))
    values = iter(scene.numbers([*by_t, *by_s, *over, *twice]))
    ht, hs, sh = ([next(values) for _ in scene.moving] for _ in range(3))
    t, s = ([scene.arrays[f"{role}.{name}"] for name in scene.moving] for role in "ts")
    u = [scene.arrays[str(each.attrs["name"])] for each in scene.u]
    expected = _total(s, ht)
    size, like_s = np.concatenate([*map(np.ravel, ht), []]), np.concatenate([*map(np.ravel, s), []])
    _assert_equal(_total(t, hs), expected, size, like_s, "⟨t, H s⟩ and ⟨s, H t⟩")
    _assert_equal(_total(t, sh), expected, size, like_s, "reverse and forward over reverse")
    _assert_equal(_total(u, list(values)), expected, size, like_s, "forward over forward and forward over reverse")


def _total(u: Sequence[Array], v: Sequence[Array]) -> float:
    return sum(inner(a, b) for a, b in zip(u, v, strict=True))


def taylor_agrees_with_nested_forward(case: Case) -> None:
    """k!·c_k is the k-th derivative along t, as forward mode nested k times gives it."""
    scene = Derived(case)
    nodes = scene.differentiable
    series = taylor(scene.t, nodes, TAYLOR_ORDER)
    nested = list(nodes)
    for k in range(1, TAYLOR_ORDER + 1):
        nested = scene.forward(scene.t, nested)
        coefficients = filled([each[k] for each in series], nodes)
        assert_specs(coefficients, nodes, f"Taylor coefficient {k}")
        found = scene.numbers([*coefficients, *nested])
        for c, derivative in zip(found[: len(nodes)], found[len(nodes) :], strict=True):
            tolerance = COARSE if is_coarse(coefficients) else 1e-8
            assert_close(c * math.factorial(k), derivative, tolerance, f"Taylor coefficient {k} times {k}!")


def batch_agrees_with_a_loop(case: Case) -> None:
    """Under one more axis, of all operands together and of each alone, the value is that of every example."""
    for chosen in _subsets(list(case.arrays)):
        scene = Scene(case)
        _assert_batch(scene, scene.results, case.arrays, chosen, "value")


def batched_gradient_agrees_with_a_loop(case: Case) -> None:
    for chosen in _subsets(list(case.arrays)):
        scene = Derived(case)
        _assert_batch(scene, scene.gradient(), scene.arrays, [*chosen, "u.0"], "gradient")


def _subsets(names: list[str]) -> list[list[str]]:
    if not names:
        return []
    return [names] if len(names) == 1 else [names, *([name] for name in names)]


def _assert_batch(
    scene: Scene, nodes: Sequence[Node], arrays: Mapping[str, Array], chosen: Sequence[str], what: str
) -> None:
    stacks = {name: _examples(arrays[name]) for name in chosen}
    leaves = {node: node.attrs["name"] for node in scene.graph.nodes if not node.inputs and "name" in node.attrs}
    stand_ins = {node: scene.leaf(f"batch.{name}", stacks[name]) for node, name in leaves.items() if name in stacks}
    batched = batch(stand_ins, nodes)
    for node, wide in zip(nodes, batched, strict=True):
        assert wide.spec == Spec((BATCH, *node.shape), node.dtype), f"batched {what} is {wide.spec} for {node.spec}"
    together = run(make_plan(batched), merged(arrays, {f"batch.{name}": stack for name, stack in stacks.items()}))
    plan = make_plan(nodes)
    for at in range(BATCH):
        one = run(plan, merged(arrays, {name: stack[at] for name, stack in stacks.items()}))
        for found, expected in zip(together, one, strict=True):
            assert_close(found[at], expected, 1e-10, f"example {at} of the batched {what} over {', '.join(chosen)}")


def _examples(array: Array) -> Array:
    """Some examples that an op takes where it takes `array`: turned around, or moved a little within its domain."""
    if array.dtype.kind in "fc":
        shift = 1 + 0.05 * np.arange(BATCH).reshape(-1, *(1,) * array.ndim)
        return np.asarray(array / shift, array.dtype)
    return np.stack([array, np.flip(array), array][:BATCH])


NARROW = {"float64": "float32", "complex128": "complex64"}


def single_precision_stays(case: Case) -> None:
    """Of float32 operands, value, tangent, gradient and second order are float32, near those of float64."""
    narrow, wide = _outcomes(case.of(NARROW[case.dtype])), _outcomes(case)
    for what, found in narrow.items():
        for a, b in zip(found, wide[what], strict=True):
            is_given = what in ("the value", "the tangent") and case.sample.attrs.get("dtype")
            expected = b.dtype if is_given else NARROW.get(b.dtype.name, b.dtype)
            assert a.dtype == expected, f"{what} of {NARROW[case.dtype]} is {a.dtype}"
            assert_close(a, _within(b, a.dtype), 5e-3, f"{what} in {a.dtype}")


def _within(array: Array, dtype: Any) -> Array:
    """`array` in another dtype; what is finite stays finite."""
    if array.dtype == np.float64 and dtype == np.float32:
        extreme = np.finfo(np.float32)
        array = np.where(np.isfinite(array), np.clip(array, extreme.min, extreme.max), array)
    return array.astype(dtype)


def _outcomes(case: Case) -> dict[str, list[Array]]:
    scene = Derived(case)
    wide = next((name for name, narrow in NARROW.items() if narrow == case.dtype), case.dtype)
    arrays = as_before(Derived(case.of(wide)).arrays, scene.arrays)
    gradient = scene.gradient()
    groups = {
        "the value": list(scene.results),
        "the tangent": scene.forward(scene.t, scene.differentiable),
        "the gradient": gradient,
        "the second order": scene.forward(scene.t, gradient),
    }
    return {what: scene.numbers(nodes, arrays) for what, nodes in groups.items()}


def nothing_is_widened(case: Case) -> None:
    """Of float32 operands, no tensor on the way to a gradient is computed in float64."""
    scene = Derived(case.of(NARROW[case.dtype]))
    if case.sample.attrs.get("dtype"):
        return
    nodes = [*scene.results, *scene.gradient()]
    small = max((array.size for array in scene.case.arrays.values()), default=0)
    for node in scene.graph.live(nodes):
        is_wide = node.dtype.name in NARROW and node.inputs
        assert not is_wide or node.size < max(small, 2), f"{node} is computed in {node.dtype}"


def derivatives_are_as_declared(case: Case) -> None:
    """Every node on the way to a tangent, a gradient or a second order computes what its spec declares."""
    scene = Derived(case)
    gradient = scene.gradient()
    tangents = scene.forward(scene.t, scene.differentiable)
    assert_declared([*gradient, *tangents, *scene.forward(scene.t, gradient)], scene.arrays)


def optimised_agrees_with_plain(case: Case) -> None:
    """Value, tangent, gradient and second order move by 2 ulp at most, optimised afterwards or before as well.

    In single precision, where truth is known, they may be nearer to it, or further from it by 2 ulp of the largest.
    """
    plain, safe = Derived(case), Derived(case)
    safe.results = tuple(optimised(safe.results, "before").nodes)
    expected = plain.numbers(_everything(plain))
    for scene in (plain, safe):
        nodes = _everything(scene)
        lean = optimised(nodes, "after").nodes
        assert_specs(lean, nodes, "what is optimised")
        for at, (a, b) in enumerate(zip(scene.numbers(lean), expected, strict=True)):
            if not are_near(a, b).all():
                assert case.dtype == "float32", f"{nodes[at]}: {a}, expected {b}"
                truth = _in_double_precision(case, scene)[at]
                slack = 2 * np.spacing(np.abs(b).max())
                assert (np.abs(a - truth) <= np.abs(b - truth) + slack).all(), f"{a}, not {b}, for {truth}"


def _in_double_precision(case: Case, scene: Derived) -> list[Array]:
    wide = Derived(case.of("float64"))
    return wide.numbers(_everything(wide), as_before(scene.arrays, wide.arrays))


def _everything(scene: Derived) -> list[Node]:
    if not scene.case.moving:
        return list(scene.results)
    gradient = scene.gradient()
    tangents = scene.forward(scene.t, scene.differentiable)
    return [*scene.results, *tangents, *gradient, *scene.forward(scene.t, gradient)]


SMOOTH = (
    forward_agrees_with_differences,
    reverse_agrees_with_forward,
    second_order_agrees_with_differences,
    second_orders_agree,
    taylor_agrees_with_nested_forward,
    batch_agrees_with_a_loop,
    batched_gradient_agrees_with_a_loop,
    single_precision_stays,
    nothing_is_widened,
    derivatives_are_as_declared,
)
"""Properties of an op that is differentiable at the sample."""
