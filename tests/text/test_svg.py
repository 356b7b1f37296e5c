"""Pictures: well formed whatever a graph is called, with a place for every box, and arrows that point down."""

from __future__ import annotations

import random
from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.optimize import isotonic_regression

import engine.ops  # noqa: F401 - fills the catalogue
from engine.errors import LimitExceeded
from engine.limits import Limits
from engine.program import Program, read_graph
from engine.text import drawing, parse, to_svg
from engine.text.layers import GAP_X, MOST_LAYERS, Layout, _ascending, laid_out

SVG = "{http://www.w3.org/2000/svg}"
PROGRAMS = {
    "one input": "x",
    "no input": "ones([2])",
    "a loss": "h = tanh(x @ W + b); loss = mean((h - y)**2)",
    "several results": "q, r = qr(A); q @ r",
    "several outputs": "a = sin(x); b = cos(x); a, b, a * b",
    "functions": "f(u) = u * scale\nscale = exp(s)\nf(x) + scan(f, x, length=3)",
}


def read(name: str) -> Program:
    return parse(PROGRAMS[name], Limits())


def texts(svg: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_box_and_arrow_is_in_the_picture(name: str) -> None:
    program = read(name)
    whole = drawing.drawn(program)
    frames = [whole, *(each for _, each in whole.frames)]
    svg = to_svg(program)
    root = ElementTree.fromstring(svg)
    boxes = [each for each in root.iter(f"{SVG}rect") if each.get("fill") != "none"]
    arrows = [each for each in root.iter(f"{SVG}path") if each.get("marker-end")]
    assert len(boxes) == sum(len(each.boxes) for each in frames)
    assert len(arrows) == sum(len(each.arrows) for each in frames)
    said = texts(svg)
    assert all(line in said for each in frames for box in each.boxes for line in box.lines)
    assert all(title in said for title, _ in whole.frames)
    assert to_svg(read(name)) == svg


@pytest.mark.parametrize("name", PROGRAMS)
def test_boxes_lie_within_the_picture_and_apart(name: str) -> None:
    root = ElementTree.fromstring(to_svg(read(name)))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    edges = []
    for each in root.iter(f"{SVG}rect"):
        x, y, w, h = (float(each.attrib[name]) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width and 0 <= y <= y + h <= height
        edges += [(x, y, x + w, y + h)] * (each.get("fill") != "none")
    for one, other in combinations(edges, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


HOSTILE = ["</text><script>alert(1)</script>", '"><a href="x">', "&amp;&#0;", "]]>", "\x00\x1b\ud800\uffff", "<!--"]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_a_graph_says_becomes_more_than_text(text: str) -> None:
    node = {"id": "y", "op": "einsum", "inputs": ["x"], "attrs": {"equation": text}}
    svg = to_svg(read_graph({"nodes": [node]}, Limits()))
    svg.encode()
    root = ElementTree.fromstring(svg)
    names = {each.tag.removeprefix(SVG) for each in root.iter()}
    assert names <= {"svg", "title", "defs", "marker", "path", "rect", "text"}
    shown = "".join(char if char.isprintable() else "�" for char in text)
    assert f"einsum(·, equation={shown})" in texts(svg)


def test_at_the_limit_it_is_drawn_and_above_it_is_not() -> None:
    program = read("a loss")
    whole = drawing.drawn(program)
    parts = len(whole.boxes) + len(whole.arrows)
    to_svg(program, parts)
    with pytest.raises(LimitExceeded) as caught:
        to_svg(program, parts - 1)
    assert (caught.value.name, caught.value.maximum, caught.value.actual) == ("svg_parts", parts - 1, parts)


# Layers


def acyclic(seed: int, count: int, most: int) -> list[tuple[str, str]]:
    """Arrows between numbered boxes, from lower to higher."""
    chosen = random.Random(seed)
    return [(f"{chosen.randrange(end)}", f"{end}") for end in range(1, count) for _ in range(chosen.randrange(most))]


def placed(count: int, arrows: list[tuple[str, str]]) -> Layout:
    return laid_out({f"{number}": (20.0 + number % 7 * 10, 20.0 + number % 3 * 10) for number in range(count)}, arrows)


@pytest.mark.parametrize("seed", range(10))
def test_arrows_point_down_and_boxes_stand_apart(seed: int) -> None:
    arrows = acyclic(seed, 60, 4)
    layout = placed(60, arrows)
    for (start, end), chain in zip(arrows, layout.arrows, strict=True):
        assert (chain[0], chain[-1]) == (layout.boxes[start], layout.boxes[end])
        assert all(upper.y < lower.y for upper, lower in pairwise(chain))
    rows: dict[float, list[tuple[float, float]]] = {}
    for each in layout.boxes.values():
        rows.setdefault(each.y, []).append((each.x - each.width / 2, each.x + each.width / 2))
    for row in rows.values():
        assert all(one[1] + GAP_X <= other[0] + 1e-6 for one, other in pairwise(sorted(row)))


def crossings(layout: Layout) -> int:
    """How many pairs of pieces of arrows, each from one row to the next, cross."""
    pieces = [(upper.y, upper.x, lower.x) for chain in layout.arrows for upper, lower in pairwise(chain)]
    pairs = combinations(pieces, 2)
    return sum(one[0] == other[0] and (one[1] - other[1]) * (one[2] - other[2]) < -1e-6 for one, other in pairs)


def test_a_tree_is_drawn_without_crossings() -> None:
    leaves = [f"{number}" for number in range(16)]
    arrows, count = [], 16
    while len(leaves) > 1:
        half = len(leaves) // 2
        for at in range(half):
            arrows += [(leaves[at], f"{count}"), (leaves[at + half], f"{count}")]
            count += 1
        leaves = [f"{number}" for number in range(count - half, count)]
    assert crossings(placed(count, arrows)) == 0


def test_a_chain_stands_straight() -> None:
    layout = placed(9, [(f"{number}", f"{number + 1}") for number in range(8)])
    assert len({round(each.x, 6) for each in layout.boxes.values()}) == 1
    assert layout.width == max(each.width for each in layout.boxes.values())


def test_an_arrow_goes_round_the_boxes_that_it_passes() -> None:
    chain = [(f"{number}", f"{number + 1}") for number in range(6)]
    layout = placed(7, [*chain, ("0", "6")])
    passing = layout.arrows[-1][1:-1]
    assert len(passing) == 5
    for point in passing:
        (box,) = [each for each in layout.boxes.values() if each.y == point.y]
        assert abs(point.x - box.x) >= box.width / 2 + GAP_X - 1e-6


def test_very_long_arrows_cost_nothing() -> None:
    length = MOST_LAYERS + 2
    chain = [(f"{number}", f"{number + 1}") for number in range(length)]
    layout = placed(length + 1, [*chain, ("0", f"{length}"), ("0", f"{MOST_LAYERS}")])
    assert len(layout.arrows[-2]) == 2
    assert len(layout.arrows[-1]) == MOST_LAYERS + 1


@pytest.mark.parametrize("seed", range(5))
def test_places_are_the_least_squares_in_their_order(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=50)
    np.testing.assert_allclose(_ascending(values.tolist()), isotonic_regression(values).x, rtol=1e-12)
