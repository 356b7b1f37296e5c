"""The expression language: text to a program, and a program to text that reads back as an equal one, or is for eyes."""

from engine.text.drawing import to_dot, to_mermaid
from engine.text.folding import folded
from engine.text.grammar import CONSTANTS
from engine.text.latex import to_latex
from engine.text.lowering import parse, parse_with_positions
from engine.text.printer import print_program
from engine.text.svg import to_svg

FORMS = {"expression": print_program, "dot": to_dot, "mermaid": to_mermaid, "latex": to_latex}
"""What a program can be written as, beside JSON."""

__all__ = [
    "CONSTANTS",
    "FORMS",
    "folded",
    "parse",
    "parse_with_positions",
    "print_program",
    "to_dot",
    "to_latex",
    "to_mermaid",
    "to_svg",
]
