"""The catalogue: importing this package defines every op. A module is a family of functions, not of forms."""

from engine.ops import (
    arithmetic,
    circular,
    creating,
    exponential,
    factorisations,
    gradients,
    indexing,
    linalg,
    neural,
    products,
    reducing,
    rounding,
    selecting,
    shaping,
    special,
)

__all__ = [
    "arithmetic",
    "circular",
    "creating",
    "exponential",
    "factorisations",
    "gradients",
    "indexing",
    "linalg",
    "neural",
    "products",
    "reducing",
    "rounding",
    "selecting",
    "shaping",
    "special",
]
