"""What an answer may come with: true, no error, and worth knowing.

A notice has a code out of the table below, a sentence, and the id of the posted node that it is about. The table is
what the reference page lists.
"""

from __future__ import annotations

from typing import NamedTuple

CODES: dict[str, str] = {
    "non_finite_gradient": "A derivative has a NaN or an infinity; the node is where it began",
    "equal_eigenvalues": "Eigenvalues or singular values are equal: derivatives through their vectors do not exist",
    "untracked": "No gradient passes this node; differences see what passes through it",
    "kink": "The point lies where the slopes of the node's two sides differ; any slope between them passes the check",
    "discontinuity": "The point lies where the value of the node jumps",
    "edge_of_domain": "On one side of the point the node has no value",
    "derivative_differs": "The derivative that the node passes on is not that of its values",
}


class Notice(NamedTuple):
    """One of an answer's `warnings`."""

    code: str
    detail: str
    node: str | None
