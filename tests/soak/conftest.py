"""What takes minutes: `make soak`. SOAK_SECONDS is how long each load lasts."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def soak_seconds() -> float:
    """How long a load lasts."""
    return float(os.environ.get("SOAK_SECONDS", "600"))


@pytest.fixture(scope="session")
def rounds(soak_seconds: float) -> int:
    """How often a fault is brought about: 10 times where a load lasts 10 minutes."""
    return max(2, round(soak_seconds / 60))
