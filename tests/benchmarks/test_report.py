"""What is quoted of a run is what it found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.peers import MODULES
from benchmarks.report import BEGIN, END, block_of, quoted, table, with_block
from benchmarks.rows import ROWS
from benchmarks.timing import OURS

ROOT = Path(__file__).parents[2]
MEASURED = json.loads((ROOT / "benchmarks" / "measured.json").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_quotes_the_record_and_nothing_else():
    """Every figure of the block comes from benchmarks/measured.json: `python -m benchmarks --readme` writes it."""
    assert block_of(README) == quoted(MEASURED)


def test_what_is_quoted_can_be_measured_again():
    """Every row of the record is still a row, of the same work; all of them ran, with all peers there."""
    titles = {row.name: row.title for row in ROWS.values()}
    assert all(titles.get(row["name"]) == row["title"] for row in MEASURED["rows"])
    assert not [row["fault"] for row in MEASURED["rows"] if "fault" in row]
    assert set(MEASURED["machine"]["peers"]) == set(MODULES)


def test_marks_of_the_record_are_those_of_the_rows():
    """A bound that was changed needs a new run."""
    for row in MEASURED["rows"]:
        found = {mark["beside"]: mark["most"] for mark in row["marks"]}
        declared = {
            beside: bounds[1] if isinstance(bounds, tuple) else bounds
            for beside, bounds in ROWS[row["name"]].marks.items()
        }
        assert found == declared, row["name"]


@pytest.mark.parametrize("row", MEASURED["rows"], ids=lambda row: row["name"])
def test_what_is_said_of_marks_is_true(row):
    """Whether a mark was held follows from the figures of the record."""
    medians = {name: figure["median"] for name, figure in row["figures"].items()}
    for mark in row["marks"]:
        if mark["beside"] == "exponent":
            assert mark["found"] == row["exponent"]
        elif mark["beside"] == OURS:
            assert mark["found"] == medians[OURS]
        else:
            assert mark["found"] == medians[OURS] / medians[mark["beside"]]
        assert mark["held"] is (mark["least"] <= mark["found"] <= mark["most"])


def test_marks_that_are_not_held_are_shown():
    """In the table, in the README's block, and by name below the table."""
    missed = _record(0.5)
    assert "≤ 0.5 × jax ✗" in table(missed) and "jax ×1.00 (≤ 0.5 ✗)" in quoted(missed)
    assert "0 of 1 marks held; not held in planted" in table(missed)
    assert "≤ 2 × jax ✓" in table(_record(2.0)) and "1 of 1 marks held" in table(_record(2.0))


def test_a_row_that_failed_says_why():
    """Its fault stands where its figures would be, for growing rows, too."""
    row = {"name": "planted", "title": "planted", "group": "engine", "unit": "s", "figures": {}, "fault": "it broke"}
    for rows in ([row], [row | {"group": "growth", "parameter": "n"}]):
        found = {"machine": MEASURED["machine"], "rows": rows}
        assert "it broke" in table(found) and "it broke" in quoted(found)


def _record(most):
    figure = {"median": 1e-3, "lower": 1e-3, "upper": 1e-3, "samples": 1, "calls": 1}
    mark = {"beside": "jax", "least": 0.0, "most": most, "found": 1.0, "held": most >= 1.0}
    row = {"name": "planted", "title": "planted", "group": "engine", "unit": "s", "ratios": {"jax": 1.0}}
    return {
        "machine": MEASURED["machine"],
        "rows": [row | {"figures": {OURS: figure, "jax": figure}, "marks": [mark]}],
    }


def test_the_block_is_replaced_and_the_rest_stays(tmp_path, monkeypatch):
    """The command writes between the comments only, as often as one likes."""
    readme, record = tmp_path / "README.md", tmp_path / "record.json"
    readme.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n", encoding="utf-8")
    record.write_text(json.dumps(_record(2.0)), encoding="utf-8")
    monkeypatch.setattr(command, "README", readme)
    for _ in range(2):
        assert command.main(["--readme", str(record)]) == 0
    text = readme.read_text(encoding="utf-8")
    assert block_of(text) == quoted(_record(2.0))
    assert text.startswith(f"before\n\n{BEGIN}\n") and text.endswith(f"{END}\n\nafter\n")


def test_a_readme_without_the_comments_is_refused():
    """Nothing is written to where nothing was asked for."""
    with pytest.raises(ValueError, match="benchmarks: begin"):
        with_block("no comments", _record(2.0))


def test_the_page_of_benchmarks_explains_all_groups():
    """Whoever reads the table finds its headings in docs/benchmarks.md."""
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert not [group for group in dict.fromkeys(row.group for row in ROWS.values()) if group not in page]
