"""The benchmarks run, and compare like with like. No test here looks at a time."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.report import amount
from benchmarks.rows import ROWS, memory, probes
from benchmarks.servers import Connection, Crowd, get, running
from benchmarks.timing import (
    BY_HAND,
    EXPONENT,
    OURS,
    Contender,
    Disagreement,
    Figure,
    Row,
    Sampler,
    check_agreement,
    exponent,
    held,
    in_turns,
    measure,
)

COMPARING = [row for row in ROWS.values() if row.parameter is None and row.gauge is None]
GAUGING = [row for row in ROWS.values() if row.parameter is None and row.gauge is not None]
GROWING = [row for row in ROWS.values() if row.parameter is not None]
PEERS = {"torch", "jax", "autograd"}


@pytest.mark.parametrize("row", COMPARING, ids=lambda row: row.name)
def test_contenders_of_a_row_give_the_same_numbers(row):
    """Whatever is timed side by side does the same work: by hand, in the engine, over HTTP, in installed peers."""
    with ExitStack() as stack:
        contenders = row.contenders(stack)
        assert check_agreement(row, contenders) >= 1
        assert set(row.marks) <= {*contenders, *PEERS}


@pytest.mark.parametrize("row", GAUGING, ids=lambda row: row.name)
def test_gauges_read_something(row, monkeypatch):
    """Rows that tell their figures give finite ones, of smaller work here."""
    monkeypatch.setattr(memory, "ELEMENTS", 1_000_000)
    monkeypatch.setattr(probes, "SCALE", 0.02)
    with ExitStack() as stack:
        contenders = row.contenders(stack)
        figures = {name: each.run() for name, each in contenders.items()}
    assert all(np.isfinite(figure) and figure > 0 for figure in figures.values())
    assert set(row.marks) <= set(contenders)


@pytest.mark.parametrize("row", GROWING, ids=lambda row: row.name)
def test_growth_rows_grow(row, monkeypatch):
    """Sizes ascend, as the fit assumes, and the smallest runs."""
    monkeypatch.setattr("benchmarks.rows.growth._allocated", lambda run: run)
    with ExitStack() as stack:
        contenders = row.contenders(stack)
        sizes = list(map(int, contenders))
        assert sizes == sorted(set(sizes)) and len(sizes) >= 3
        contenders[str(sizes[0])].run()


def test_memory_is_weighed():
    """What a growing row tells of memory is what the run allocates at once, and nothing of the run before it."""
    (row,) = (row for row in GROWING if row.name == "grow-elements-memory")
    with ExitStack() as stack:
        contenders = row.contenders(stack)
        small, large = (contenders[size].run() for size in ("1000", "100000"))
    assert 8 * 1_000 < small < 100 * 8 * 1_000 and 8 * 100_000 < large < 100 * 8 * 100_000


def test_a_run_prints_a_table_and_writes_a_record(tmp_path, capsys):
    """The command does what it says, for a comparing row and a growing one."""
    path = tmp_path / "results.json"
    assert main(["-k", "rosenbrock", "-k", "grow-batch", "--seconds", "0.05", "--json", str(path)]) == 0
    printed, written = capsys.readouterr().out, json.loads(path.read_text())
    compared, grown, weighed = written["rows"]
    ours, by_hand = (compared["figures"][name]["median"] for name in (OURS, BY_HAND))
    assert compared["ratios"][BY_HAND] == ours / by_hand > 0
    assert {mark["beside"] for mark in compared["marks"]} == {BY_HAND, "jax"}
    assert np.isfinite(grown["exponent"]) and grown["parameter"] == "batch" and grown["unit"] == "s"
    assert weighed["unit"] == "B"
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


def _planted(wrong=2.0, **more):
    contenders = {OURS: Contender(lambda: 1.0), "wrong": Contender(lambda: np.array(wrong))}
    return Row("planted", "a wrong contender", "engine, warm", lambda stack: contenders, **more)


def test_contenders_take_turns():
    """Samples are interleaved, so that a slow moment of the machine falls on all."""
    called = []
    slow = {name: Sampler(1, lambda calls, name=name: called.append(name) or 0.1) for name in "ab"}
    figures = in_turns(slow, 0.05)
    assert figures["a"].samples == figures["b"].samples > 1
    pairs = zip(called[::2], called[1::2], strict=True)
    assert {frozenset(pair) for pair in pairs} == {frozenset("ab")}


def test_many_calls_of_one_run_count_as_many():
    """The figure is that of the work done once, where a run does it many times."""
    row = Row("planted", "", "", lambda stack: {"100": Contender(lambda: time.sleep(0.01), calls=100)}, parameter="n")
    assert 1e-4 <= measure(row, 0.05)["100"].median < 1e-2


def _figures(**medians):
    return {name: Figure(median, median, median, 1, 1) for name, median in medians.items()}


@pytest.mark.parametrize(
    ("bounds", "found", "is_held"),
    [
        ({"jax": 1.2}, 1.0, True),
        ({"jax": 0.9}, 1.0, False),
        ({"jax": (0.8, 1.25)}, 1.0, True),
        ({"jax": (1.1, 1.25)}, 1.0, False),
        ({"absent": 1.0}, None, None),
        ({OURS: 2.0}, 2.0, True),
        ({OURS: 1.9}, 2.0, False),
    ],
)
def test_marks(bounds, found, is_held):
    """A mark is a ratio of ours to another, or bounds our own figure; without the other there is nothing to say."""
    (mark,) = held(_planted(marks=bounds), _figures(gradwire=2.0, jax=2.0))
    assert (mark.found, mark.held) == (found, is_held)


def test_the_exponent_is_that_of_a_power_law():
    """t ∝ n² is fitted as 2, and can have a mark."""
    figures = _figures(**{str(n): 1e-6 * n**2 for n in (10, 100, 1000)})
    assert exponent(figures) == pytest.approx(2.0)
    (mark,) = held(_planted(parameter="n", marks={EXPONENT: 1.5}), figures)
    assert mark.found == pytest.approx(2.0) and mark.held is False


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.5e-6, "s", "1.5 µs"),
        (0.0123, "s", "12.3 ms"),
        (2e-10, "s", "0.2 ns"),
        (3 << 20, "B", "3 MiB"),
        (0, "B", "0 B"),
    ],
)
def test_amounts_have_units(value, unit, text):
    """Three digits, in the unit that fits."""
    assert amount(value, unit) == text


def test_the_crowd_asks_as_often_as_it_is_told():
    """Its answers arrive, over more connections than there are requests, too; and what is no answer is told."""
    ports = running()
    with Crowd(ports.service, get("/healthz"), 8) as crowd:
        crowd.rush(3)
        crowd.rush(50)
    with Crowd(ports.service, get("/nowhere"), 2) as crowd, pytest.raises(RuntimeError, match="its answers"):
        crowd.rush(1)


def test_a_failed_computation_is_not_taken_for_a_fast_one():
    """Waiting times beside something that failed are no figure."""
    port = running().service
    with Connection(port) as probe, Connection(port) as other, pytest.raises(RuntimeError, match="404"):
        probes.waits_while(probe, other.asking(get("/nowhere")))
