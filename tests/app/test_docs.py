"""The reference names everything there is: each setting, error code, route and metric."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from app.main import create_app
from app.problems import CODES
from app.services.figures import BY_NAME
from app.settings import Settings
from docs.generate import PAGES
from engine.limits import Limits
from engine.warnings import CODES as WARNINGS
from tests.conftest import ROOT

REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")

SETTINGS = [f"GRADWIRE_{name.upper()}" for name in Settings.model_fields if name != "limits"]
LIMITS = [f"GRADWIRE_LIMITS__{each.name.upper()}" for each in fields(Limits)]
ROUTES = [
    f"{method.upper()} {path}" for path, item in create_app(Settings()).openapi()["paths"].items() for method in item
]


@pytest.mark.parametrize("name", [*SETTINGS, *LIMITS, *CODES, *WARNINGS, *ROUTES, *BY_NAME])
def test_is_in_the_reference(name: str) -> None:
    assert f"`{name}`" in REFERENCE


def test_the_operators_page_names_only_what_there_is() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert set(re.findall(r"GRADWIRE_\w+", page)) <= {*SETTINGS, *LIMITS}
    told = re.findall(r"^\| `(\w+)` \|", page.partition("## When something goes wrong")[2], re.MULTILINE)
    assert {code for code, row in CODES.items() if row.status >= 500} <= set(told) <= CODES.keys()


@pytest.mark.parametrize("page", PAGES)
def test_a_generated_page_says_nothing_that_the_code_does_not(page: str) -> None:
    """A new op may wait for `make docs`, so that adding one is one edit; a line that is no longer true may not."""
    said = set((ROOT / "docs" / page).read_text(encoding="utf-8").splitlines())
    assert said <= set(PAGES[page]().splitlines())
