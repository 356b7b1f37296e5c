"""What is estimated before a run, held against what is measured, over a corpus of graphs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import calibrate
from benchmarks.corpus import WORKS

ROOT = Path(__file__).parents[2]
LARGE_BYTES = 10_000_000
"""Peaks below this are not worth a word."""
OFF = 1.2


@pytest.fixture(scope="module")
def peaks(tmp_path_factory: pytest.TempPathFactory) -> list[calibrate.Found]:
    """All peaks, from a process of its own, whose allocator keeps nothing."""
    path = tmp_path_factory.mktemp("calibrate") / "peaks.json"
    command = [sys.executable, "-m", "benchmarks.calibrate", "--memory", "--json", str(path)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=600)
    return [calibrate.Found(**each) for each in json.loads(path.read_text())]


def test_the_planned_peak_is_within_a_fifth_of_the_measured(peaks: list[calibrate.Found]) -> None:
    large = [each for each in peaks if each.measured > LARGE_BYTES]
    print(calibrate.table(large, 1e6, OFF))
    assert len(large) > len(WORKS) // 2
    assert {each.name: round(each.ratio, 2) for each in large if not 1 / OFF <= each.ratio <= OFF} == {}


def test_a_table_marks_what_is_far_off() -> None:
    found = [calibrate.Found("near", 1.1, 1.0), calibrate.Found("far", 4.0, 1.0)]
    _, near, far = calibrate.table(found, 1.0, 3.0).split("\n")
    assert not near.endswith("!") and far.endswith("!")


def test_times_are_printed_beside_estimates(capsys: pytest.CaptureFixture[str]) -> None:
    """How near they are depends on the machine; that they are positive does not."""
    assert calibrate.main(["-k", "scalars", "-k", "thousand"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert {name for name, *_ in rows} >= {"scalars", "thousand"}
    assert all(float(measured) >= 0 and float(ratio) > 0 for _, _, measured, ratio, *_ in rows)
