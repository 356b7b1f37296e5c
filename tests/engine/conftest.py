"""What is collected here is a large table; it stays, so the garbage collector need not walk it again and again."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(scope="session", autouse=True)
def _frozen_table() -> None:
    gc.collect()
    gc.freeze()
