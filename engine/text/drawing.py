"""A program as a drawing: Graphviz's DOT, or Mermaid.

Both are written from one list of boxes and arrows. Boxes are numbered, so that no name, however odd, is ever more than
a label; numbers and small constants stand within the box that uses them; a function is a frame around its own boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.program import Argument, Function, Program, Ref, Statement, write_attr
from engine.tensors import Tensor

LONGEST = 60
"""Characters of a line in a box."""
HOLE = "·"
"""What stands for an operand that comes by an arrow."""


@dataclass(frozen=True)
class Box:
    """A node of the drawing. `kind` is input, node or output."""

    name: str
    kind: str
    lines: tuple[str, ...]


@dataclass
class Drawing:
    """Boxes, and arrows between them (from, to, label); frames by the function that they are of."""

    boxes: list[Box] = field(default_factory=list)
    arrows: list[tuple[str, str, str]] = field(default_factory=list)
    frames: list[tuple[str, Drawing]] = field(default_factory=list)

    @property
    def all_arrows(self) -> Iterator[tuple[str, str, str]]:
        yield from self.arrows
        for _, each in self.frames:
            yield from each.all_arrows


def to_dot(program: Program) -> str:
    """The program in Graphviz's DOT language."""
    drawing = drawn(program)
    lines = ["digraph {", "  node [shape=box, style=rounded];"]
    lines += [f"  {line}" for line in _dot_boxes(drawing)]
    for number, (title, frame) in enumerate(drawing.frames):
        inner = [f"    {line}" for line in _dot_boxes(frame)]
        lines += [f"  subgraph cluster_{number} {{", f"    label={_dot_text([title])};", *inner, "  }"]
    for start, end, label in drawing.all_arrows:
        lines.append(f"  {start} -> {end}{f' [label={_dot_text([label])}]' if label else ''};")
    return "\n".join([*lines, "}"])


_SHAPES = {"input": ", shape=ellipse", "node": "", "output": ", peripheries=2"}


def _dot_boxes(drawing: Drawing) -> Iterator[str]:
    for box in drawing.boxes:
        yield f"{box.name} [label={_dot_text(box.lines)}{_SHAPES[box.kind]}];"


def _dot_text(lines: Sequence[str]) -> str:
    """A quoted string: only the quote and the backslash mean something within one."""
    return '"' + "\\n".join(plain(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"'


def to_mermaid(program: Program) -> str:
    """The program as a Mermaid flowchart."""
    drawing = drawn(program)
    lines = ["flowchart TD", *(f"  {line}" for line in _mermaid_boxes(drawing))]
    for number, (title, frame) in enumerate(drawing.frames):
        inner = [f"    {line}" for line in _mermaid_boxes(frame)]
        lines += [f'  subgraph f{number}["{_mermaid_text([title])}"]', *inner, "  end"]
    for start, end, label in drawing.all_arrows:
        middle = f'-- "{_mermaid_text([label])}" -->' if label else "-->"
        lines.append(f"  {start} {middle} {end}")
    return "\n".join(lines)


_BRACKETS = {"input": ("([", "])"), "node": ("[", "]"), "output": ("[[", "]]")}


def _mermaid_boxes(drawing: Drawing) -> Iterator[str]:
    for box in drawing.boxes:
        opening, closing = _BRACKETS[box.kind]
        yield f'{box.name}{opening}"{_mermaid_text(box.lines)}"{closing}'


def _mermaid_text(lines: Sequence[str]) -> str:
    """A label: what Mermaid or HTML would read as more than a character goes by its number."""
    return "<br>".join("".join(_entity(char) for char in plain(line)) for line in lines)


def _entity(char: str) -> str:
    return f"#{ord(char)};" if char in '"#&;<>`\\' else char


def plain(text: str) -> str:
    """A line that is one line, of characters that can be seen."""
    return "".join(char if char.isprintable() else "�" for char in text)


# Boxes and arrows


def drawn(program: Program) -> Drawing:
    """The boxes and arrows of a program and of its functions."""
    return _Artist(program).drawing()


class _Artist:
    """Numbers boxes over a program and all its functions."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.count = 0

    def drawing(self) -> Drawing:
        names: dict[str, str] = {}
        drawing = self._draw(self.program, self.program.inputs, self.program.ordered, names)
        for function in self.program.functions:
            drawing.frames.append((self._title(function), self._framed(function, names)))
        return drawing

    def _title(self, function: Function) -> str:
        return _short(f"{function.name}({', '.join(function.parameters)})")

    def _framed(self, function: Function, around: Mapping[str, str]) -> Drawing:
        own = {name: box for name, box in around.items() if name not in function.parameters}
        ordered = self.program.within(function.name).ordered
        return self._draw(function.body, function.parameters, ordered, own)

    def _draw(
        self, program: Program, inputs: Sequence[str], ordered: Sequence[Statement], names: dict[str, str]
    ) -> Drawing:
        """A program's boxes; `names` says what box a name is, and is added to."""
        drawing = Drawing()
        for name in inputs:
            names[name] = self._box(drawing, "input", [name])
        ends = {name for name, ref in program.outputs if ref == Ref(name)}
        for statement in ordered:
            kind = "output" if statement.id in ends else "node"
            names[statement.id] = self._box(drawing, kind, _lines(statement))
            self._link(drawing, names, statement.inputs, statement.id)
        for name, ref in program.outputs:
            if ref.name in names and (name not in ends or name in inputs):
                drawing.arrows.append((names[ref.name], self._box(drawing, "output", [name]), ref.result or ""))
        return drawing

    def _link(self, drawing: Drawing, names: Mapping[str, str], inputs: Sequence[Argument], end: str) -> None:
        refs = [each for each in inputs if isinstance(each, Ref) and each.name in names]
        drawing.arrows += [(names[ref.name], names[end], ref.result or "") for ref in refs]

    def _box(self, drawing: Drawing, kind: str, lines: Sequence[str]) -> str:
        self.count += 1
        drawing.boxes.append(Box(f"n{self.count}", kind, tuple(map(_short, lines))))
        return f"n{self.count}"


def _lines(statement: Statement) -> list[str]:
    """What a box says: the id, unless it was made up, and the call."""
    arguments = [_argument(each) for each in statement.inputs]
    arguments += [f"{name}={_value(value)}" for name, value in statement.attrs.items()]
    call = f"{statement.op.name}({', '.join(arguments)})"
    call = f"no_grad({call})" if statement.no_grad else call
    return [statement.id, call] if statement.named else [call]


def _argument(argument: Argument) -> str:
    if isinstance(argument, Ref):
        return HOLE
    if isinstance(argument, Tensor):
        return f"{argument.spec}" if argument.spec.size != 1 else _value(argument.array.item())
    return _value(argument)


def _value(value: Any) -> str:
    return str(write_attr(value)) if not isinstance(value, str) else value


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
