"""Networks: convolutions and pools against their definition, and what has to hold of losses and attention."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from engine.core import Graph, ops
from engine.errors import EngineError
from engine.transforms.batch import batch
from engine.transforms.taylor import taylor
from engine.types import Spec
from tests.support.asking import ask, built, numbers
from tests.support.numeric import assert_close

RNG = np.random.default_rng(5)
FLOAT = np.dtype(float)


def convolved(x: Any, w: Any, *, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """The sum over taps and channels, place by place."""
    x = np.pad(x, ((0, 0), (0, 0), *padding))
    filters, channels = w.shape[0] // groups, w.shape[1]
    axes = zip(x.shape[2:], w.shape[2:], stride, dilation, strict=True)
    places = [(n - gap * (k - 1) - 1) // step + 1 for n, k, step, gap in axes]
    out = np.zeros((x.shape[0], w.shape[0], *places))
    for n, o, *place in itertools.product(*map(range, out.shape)):
        for i, *tap in itertools.product(*map(range, w.shape[1:])):
            at = [p * step + k * gap for p, step, k, gap in zip(place, stride, tap, dilation, strict=True)]
            out[(n, o, *place)] += x[(n, o // filters * channels + i, *at)] * w[(o, i, *tap)]
    return out


def geometry(stride: Any, padding: Any, dilation: Any, groups: int) -> dict[str, Any]:
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


GEOMETRIES = [
    ((2, 3, 6), (4, 3, 3), geometry((1,), ((0, 0),), (1,), 1)),
    ((2, 2, 3), (2, 2, 1), geometry((2,), ((1, 1),), (1,), 1)),
    ((2, 4, 5, 6), (6, 2, 3, 2), geometry((2, 1), ((1, 2), (0, 1)), (1, 2), 2)),
    ((1, 4, 4, 4), (4, 1, 2, 3), geometry((1, 1), ((1, 0), (1, 1)), (2, 1), 4)),
    ((1, 2, 3, 3, 2), (3, 2, 2, 2, 2), geometry((1, 1, 1), ((0, 0),) * 3, (1, 1, 1), 1)),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "attrs"), GEOMETRIES)
@pytest.mark.parametrize("block", [1, 50, 1 << 20])
def test_convolution_is_the_sum_that_defines_it(
    x_shape: Any, w_shape: Any, attrs: Any, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the size of the blocks it is computed in; and so are both of its adjoints."""
    monkeypatch.setattr("engine.ops.convolving.BLOCK", block)
    x, w = RNG.normal(size=x_shape), RNG.normal(size=w_shape)
    expected = convolved(x, w, **attrs)
    arrays, graph = {"x": x, "w": w, "y": RNG.normal(size=expected.shape)}, Graph()
    nodes = {name: graph.input(name, Spec(each.shape, FLOAT)) for name, each in arrays.items()}
    out = ops.convolution(nodes["x"], nodes["w"], **attrs)
    back = ops.convolution_input(nodes["y"], nodes["w"], size=x_shape[2:], **attrs)
    weight = ops.convolution_weight(nodes["x"], nodes["y"], size=w_shape[2:], **attrs)
    values = numbers([out, back, weight], arrays)
    assert_close(values[0], expected, 1e-13, "convolution")
    product = float((arrays["y"] * expected).sum())
    assert float((values[1] * x).sum()) == pytest.approx(product)
    assert float((values[2] * w).sum()) == pytest.approx(product)


@pytest.mark.parametrize("moving", [["x"], ["w"], ["x", "w"]])
def test_a_batch_of_convolutions_is_one_convolution(moving: list[str]) -> None:
    (out,), inputs = built("convolution(x, w, groups=2)", {"x": (2, 4, 5), "w": (6, 2, 3)})
    stand_ins = {inputs[n]: out.graph.input(f"many.{n}", Spec((3, *inputs[n].shape), FLOAT)) for n in moving}
    live = out.graph.live(batch(stand_ins, [out]))
    assert sum(node.op is ops.convolution for node in live) == 1


def test_the_series_of_a_convolution_ends_with_its_degree() -> None:
    """x² along a line is of degree 2 and w of degree 1: coefficients 0 to 3 are all there is."""
    (out,), inputs = built("convolution(x * x, w)", {"x": (1, 1, 5), "w": (1, 1, 2)})
    direction = {node: out.graph.input(f"t.{name}", node.spec) for name, node in inputs.items()}
    values = {name: RNG.normal(size=node.shape) for name, node in inputs.items()}
    tangents = {f"t.{name}": RNG.normal(size=node.shape) for name, node in inputs.items()}
    series = [each for each in taylor(direction, [out], 5)[0] if each is not None]
    coefficients = numbers(series, values | tangents)
    moved = {name: value + 0.5 * tangents[f"t.{name}"] for name, value in values.items()}
    total = sum(c * 0.5**k for k, c in enumerate(coefficients[:4]))
    assert_close(total, numbers([out], moved)[0], 1e-12, "the series, summed")
    assert not any(c.any() for c in coefficients[4:])


def test_the_largest_of_a_window_is_followed_to_every_order() -> None:
    """The third derivative of the largest x⁴ is that of the element which is the largest."""
    found = ask("nth", "sum(max_pool1d(x**4, 2))", {"x": [[1.0, 3.0, -2.0, 0.5]]}, order=3)["derivatives"][-1]["value"]
    assert found.tolist() == [[0.0, 72.0, -48.0, 0.0]]


def test_indices_of_a_pool_are_those_of_its_plane() -> None:
    x = RNG.normal(size=(2, 3, 4, 6))
    text = "v, i = max_pool2d(x, 2, return_indices=true)"
    found = ask("value", text, {"x": x}, outputs=["v", "i"])["values"]
    values, at = (found[name].reshape(2, 3, 6) for name in ("v", "i"))
    assert np.array_equal(np.take_along_axis(x.reshape(2, 3, 24), at, axis=2), values)


@pytest.mark.parametrize(
    ("text", "fold"),
    [
        ("max_pool1d(x, 9)", lambda x: x.max(1)),
        ("avg_pool1d(x, 9)", lambda x: x.mean(1)),
        ("max_pool1d(x, 5, 4)[:, 1]", lambda x: x[:, 4:].max(1)),
        ("max_pool1d(x, 2, 1, dilation=8)", lambda x: np.maximum(x[:, 0], x[:, 8])),
    ],
)
def test_windows_wider_than_they_are_many(text: str, fold: Any) -> None:
    """Where there are fewer windows than taps, the kernels go by window."""
    x = RNG.normal(size=(2, 9))
    found = ask("grad", f"sum({text})", {"x": x})
    assert found["values"]["out"] == pytest.approx(fold(x).sum())
    assert found["gradients"]["x"].sum() == pytest.approx(2)


def test_cross_entropy_of_extreme_scores_is_exact() -> None:
    found = ask("grad", "cross_entropy(x, [1], reduction='sum')", {"x": [[1000.0, 0.0, -1000.0]]})
    assert found["values"]["out"] == 1000
    assert found["gradients"]["x"].tolist() == [[1.0, -1.0, 0.0]]


def test_classes_may_be_posted_as_plain_numbers() -> None:
    x = {"x": [[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]}
    typed = ask("value", "cross_entropy(x, t)", x | {"t": np.array([2, 1])})["values"]["out"]
    assert ask("value", "cross_entropy(x, t)", x | {"t": [2, 1]})["values"]["out"] == typed
    with pytest.raises(EngineError, match="out of range"):
        ask("value", "cross_entropy(x, t)", x | {"t": [2, 0.5]})


def test_what_is_ignored_counts_for_nothing() -> None:
    x = np.array([[1.0, 2.0, 3.0], [9.0, 9.0, 9.0]])
    alone = ask("grad", "cross_entropy(x, [2])", {"x": x[:1]})
    both = ask("grad", "cross_entropy(x, [2, -100])", {"x": x})
    assert both["values"]["out"] == alone["values"]["out"]
    assert both["gradients"]["x"].tolist() == [*alone["gradients"]["x"].tolist(), [0.0, 0.0, 0.0]]


def test_a_causal_query_does_not_see_what_follows() -> None:
    x = RNG.normal(size=(4, 3))
    answer = ask("jacobian", "attention(x, k, v, is_causal=true)", {"x": x, "k": x, "v": x}, wrt=["v"])
    by_value = answer["jacobian"]["out"]["v"]
    for query, key in itertools.product(range(4), range(4)):
        assert bool(by_value[query, :, key, :].any()) == (key <= query)


def test_a_mask_that_leaves_nothing_gives_no_nan_at_second_order() -> None:
    text = "sum(attention(x, x, x, [[True, False], [False, False]])**2)"
    hessian = ask("hessian", text, {"x": RNG.normal(size=(2, 3))})["hessian"]["x"]["x"]
    assert np.isfinite(hessian).all()
    assert hessian.any()


def test_padding_and_frequency_change_gradients_only() -> None:
    weight = RNG.normal(size=(3, 2))
    text = "sum(embedding([0, 1, 1, 2], w, padding_idx=2, scale_grad_by_freq=true))"
    found = ask("grad", text, {"w": weight})
    assert found["values"]["out"] == pytest.approx(weight[[0, 1, 1, 2]].sum())
    assert found["gradients"]["w"].tolist() == [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
