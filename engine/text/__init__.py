"""The expression language: text to a program, and a program to text that reads back as an equal one."""

from engine.text.grammar import CONSTANTS
from engine.text.lowering import parse, parse_with_positions
from engine.text.printer import print_program

__all__ = ["CONSTANTS", "parse", "parse_with_positions", "print_program"]
