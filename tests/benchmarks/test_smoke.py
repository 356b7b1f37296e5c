"""The benchmarks run, and compare like with like. No test here looks at a time."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.rows import ROWS
from benchmarks.timing import OURS, Contender, Disagreement, Row, Timing, check_agreement, exponent, time_contenders

COMPARING = [row for row in ROWS.values() if row.parameter is None]
GROWING = [row for row in ROWS.values() if row.parameter is not None]


@pytest.mark.parametrize("row", COMPARING, ids=lambda row: row.name)
def test_contenders_of_a_row_give_the_same_numbers(row):
    """Whatever is timed side by side does the same work: by hand, in the engine, over HTTP, in installed peers."""
    with ExitStack() as stack:
        assert check_agreement(row, row.contenders(stack)) >= 1


@pytest.mark.parametrize("row", GROWING, ids=lambda row: row.name)
def test_growth_rows_grow(row):
    """Sizes ascend, as the fit assumes, and the smallest runs."""
    with ExitStack() as stack:
        contenders = row.contenders(stack)
        sizes = list(map(int, contenders))
        assert sizes == sorted(set(sizes)) and len(sizes) >= 3
        contenders[str(sizes[0])].run()


def test_a_run_prints_a_table_and_writes_a_record(tmp_path, capsys):
    """The command does what it says, for a comparing row and a growing one."""
    path = tmp_path / "results.json"
    assert main(["-k", "rosenbrock", "-k", "grow-batch", "--seconds", "0.05", "--json", str(path)]) == 0
    printed, written = capsys.readouterr().out, json.loads(path.read_text())
    compared, grown = written["rows"]
    assert compared["ratios_to_gradwire"][OURS] == 1.0 and compared["times"]["by hand"]["median"] > 0
    assert np.isfinite(grown["exponent"]) and grown["parameter"] == "batch"
    assert written["machine"]["numpy"] == np.__version__
    assert all(row["name"] in printed for row in written["rows"])


def test_a_failing_row_is_told_and_does_not_stop_the_others(tmp_path, capsys, monkeypatch):
    """A contender that computes something else is found before anything is timed."""
    monkeypatch.setitem(ROWS, "planted", _planted())
    path = tmp_path / "results.json"
    assert main(["-k", "planted", "-k", "rosenbrock", "--seconds", "0.05", "--json", str(path)]) == 1
    by_name = {row["name"]: row for row in json.loads(path.read_text())["rows"]}
    assert "wrong is" in by_name["planted"]["fault"] and "fault" not in by_name["rosenbrock"]
    assert "wrong is" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [2.0, np.nan, [1.0, 1.0]], ids=["another value", "NaN", "another shape"])
def test_disagreement_is_found(wrong):
    """The comparison sees other values, NaN and other shapes."""
    row = _planted(wrong)
    with ExitStack() as stack, pytest.raises(Disagreement):
        check_agreement(row, row.contenders(stack))


def _planted(wrong=2.0):
    contenders = {OURS: Contender(lambda: 1.0), "wrong": Contender(lambda: np.array(wrong))}
    return Row("planted", "a wrong contender", "engine, warm", lambda stack: contenders)


def test_contenders_take_turns():
    """Samples are interleaved, so that a slow moment of the machine falls on all."""
    called = []
    slow = {name: lambda name=name: (called.append(name), time.sleep(0.003)) for name in "ab"}
    timings = time_contenders(slow, 0.05)
    assert timings["a"].samples == timings["b"].samples > 1
    pairs = zip(called[::2], called[1::2], strict=True)
    assert {frozenset(pair) for pair in pairs} == {frozenset("ab")}


def test_the_exponent_is_that_of_a_power_law():
    """t ∝ n² is fitted as 2."""
    timings = {str(n): Timing(1e-6 * n**2, 0, 0, 1, 1) for n in (10, 100, 1000)}
    assert exponent(timings) == pytest.approx(2.0)
