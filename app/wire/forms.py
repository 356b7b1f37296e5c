"""What the forms of a body have in common."""

from __future__ import annotations

import re

NEGATIVE_ZERO = re.compile(rb"-0(?![0-9.eE])")
"""How Go and some others write -0.0 in JSON; to most readers, as to Python, it is the integer 0."""


class Malformed(ValueError):
    """Bytes that are not of their form; the message says where."""
