"""A program as a picture: SVG, with nothing in it but shapes and text.

Boxes and arrows are those of the other drawings, places are engine.text.layers'. A function stands in a frame of its
own beside the graph, with dashed arrows from what it takes from around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from xml.sax.saxutils import escape

from engine.errors import LimitExceeded
from engine.program import Program
from engine.text.drawing import Box, Drawing, drawn, plain
from engine.text.layers import Place, laid_out

FONT, LINE, CHARACTER = 12, 16.0, 7.3
"""Size of the text, height of a line, width of a character."""
PADDING, MARGIN = 8.0, 16.0
DARK, PALE = "#334", "#889"
FILLS = {"input": "#e8f1fb", "node": "#fff", "output": "#e9f6ea"}

HEAD = f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{{0:.0f}}" height="{{1:.0f}}" viewBox="0 0 {{0:.0f}} {{1:.0f}}" \
font-family="ui-monospace, Menlo, Consolas, monospace" font-size="{FONT}" text-anchor="middle" role="img">
<title>{{2}}</title>
<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0 0 8 4 0 8z" fill="{PALE}"/></marker></defs>"""


def to_svg(program: Program, most: int = 10_000) -> str:
    """The program as an SVG document. Raises LimitExceeded past `most` boxes and arrows."""
    _check(len(program.statements), most)
    whole = drawn(program)
    frames = [_Frame("", whole), *(_Frame(*each) for each in whole.frames)]
    _check(sum(len(each.drawing.boxes) + len(each.drawing.arrows) for each in frames), most)
    places: dict[str, Place] = {}
    left = bottom = 0.0
    for frame in frames:
        frame.lay_out(left, places)
        left, bottom = left + frame.width, max(bottom, frame.height)
    layers = (_Frame.outline, _Frame.arrows, _Frame.crossing, _Frame.boxes)
    parts = [part for layer in layers for each in frames for part in layer(each, places)]
    title = escape(plain(", ".join(name for name, _ in program.outputs)[:200]))
    return "\n".join([HEAD.format(left, bottom, title), *parts, "</svg>\n"])


def _check(parts: int, most: int) -> None:
    if parts > most:
        raise LimitExceeded("svg_parts", most, parts, "boxes and arrows of the picture")


class _Frame:
    """The graph, or one of its functions, which has a title, as a part of the picture."""

    def __init__(self, title: str, drawing: Drawing) -> None:
        self.title = title
        self.drawing = drawing
        self.own = {box.name for box in drawing.boxes}

    def lay_out(self, left: float, places: dict[str, Place]) -> None:
        """Find a place for each box, from `left` on, and add it to `places`."""
        sizes = {box.name: _size(box) for box in self.drawing.boxes}
        self.layout = laid_out(sizes, [each[:2] for each in self.drawing.arrows if each[0] in self.own])
        self.left, above = left, LINE if self.title else 0.0
        self.width = max(self.layout.width, CHARACTER * len(self.title)) + 2 * MARGIN
        self.height = self.layout.height + above + 2 * MARGIN
        self.shift = left + MARGIN, MARGIN + above
        places |= {name: self._moved(place) for name, place in self.layout.boxes.items()}

    def _moved(self, place: Place) -> Place:
        return place._replace(x=place.x + self.shift[0], y=place.y + self.shift[1])

    def outline(self, places: Mapping[str, Place]) -> Iterator[str]:
        if self.title:
            yield (
                f'<rect x="{self.left + MARGIN / 2:.1f}" y="{MARGIN / 2:.1f}" width="{self.width - MARGIN:.1f}" '
                f'height="{self.height - MARGIN:.1f}" rx="6" fill="none" stroke="{PALE}" stroke-dasharray="2 3"/>'
            )
            yield _text(self.title, self.left + self.width / 2, MARGIN + LINE / 2)

    def arrows(self, places: Mapping[str, Place]) -> Iterator[str]:
        """Those between boxes of the frame."""
        own = (label for start, _, label in self.drawing.arrows if start in self.own)
        for label, chain in zip(own, self.layout.arrows, strict=True):
            yield from _arrow([self._moved(each) for each in chain], label)

    def crossing(self, places: Mapping[str, Place]) -> Iterator[str]:
        """Arrows into the frame from outside of it."""
        for start, end, label in self.drawing.arrows:
            if start not in self.own:
                yield from _arrow([places[start], places[end]], label, ' stroke-dasharray="4 3"')

    def boxes(self, places: Mapping[str, Place]) -> Iterator[str]:
        for box in self.drawing.boxes:
            yield from _box(box, places[box.name])


def _size(box: Box) -> tuple[float, float]:
    longest = max(map(len, box.lines), default=0)
    return longest * CHARACTER + 2 * PADDING, len(box.lines) * LINE + PADDING


def _arrow(chain: Sequence[Place], label: str, style: str = "") -> Iterator[str]:
    first, last = chain[0], chain[-1]
    points = [
        (first.x, first.y + first.height / 2),
        *((each.x, each.y) for each in chain[1:-1]),
        (last.x, last.y - last.height / 2),
    ]
    (x, y), path = points[0], [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for next_x, next_y in points[1:]:
        middle = (y + next_y) / 2
        path.append(f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {next_y:.1f}")
        x, y = next_x, next_y
    yield f'<path d="{"".join(path)}" fill="none" stroke="{PALE}"{style} marker-end="url(#tip)"/>'
    if label:
        yield _text(label, (points[0][0] + points[1][0]) / 2, (points[0][1] + points[1][1]) / 2)


def _box(box: Box, place: Place) -> Iterator[str]:
    round = place.height / 2 if box.kind == "input" else 4.0
    stroke = f'stroke="{DARK}" stroke-width="{2 if box.kind == "output" else 1}"'
    yield (
        f'<rect x="{place.x - place.width / 2:.1f}" y="{place.y - place.height / 2:.1f}" width="{place.width:.1f}" '
        f'height="{place.height:.1f}" rx="{round:.1f}" fill="{FILLS[box.kind]}" {stroke}/>'
    )
    top = place.y - (len(box.lines) - 1) * LINE / 2
    for at, line in enumerate(box.lines):
        yield _text(line, place.x, top + at * LINE)


def _text(text: str, x: float, y: float) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" dy=".35em" fill="{DARK}">{escape(plain(text))}</text>'
