"""`python -m benchmarks.calibrate`: what the engine estimates of time and memory beside what is measured.

Times are of warm runs on one thread, the median of some. With `--memory`, the peak of a run: of what NumPy reports to
tracemalloc, and of what the system says, whichever is more, because LAPACK and the FFT ask the system themselves. For
that the allocator is told to give everything back at once, which is why times are not taken then.

The figures in engine/costs.py, and the paces and workspaces of ops, were set by these tables.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.corpus import WORKS, Work
from benchmarks.timing import traced
from engine.plan import MOST_THREADS

SAMPLES, SECONDS = 15, 0.6
"""How many runs a median is of, and how long they may take together."""


class Found(NamedTuple):
    """An estimate and what was measured, in one unit."""

    name: str
    estimated: float
    measured: float

    @property
    def ratio(self) -> float:
        return self.estimated / self.measured


def timed(work: Work) -> Found:
    """Seconds of a warm run."""
    compiled = work.compiled()
    tensors = compiled.bind()
    run = partial(compiled.run, tensors)
    run()
    return Found(work.name, compiled.plan.seconds, _median(run))


def _median(run: Callable[[], Any]) -> float:
    spent: list[float] = []
    while len(spent) < 3 or (len(spent) < SAMPLES and sum(spent) < SECONDS):
        begun = time.thread_time()
        run()
        spent.append(time.thread_time() - begun)
    return statistics.median(spent)


def peaked(work: Work) -> Found:
    """Bytes at the peak of a run, inputs and constants included."""
    compiled = work.compiled()
    tensors = compiled.bind()
    constants = sum(each.nbytes for each in compiled.plan.template if isinstance(each, np.ndarray))
    there = compiled.plan.peak_bytes - compiled.plan.own_bytes + constants
    run = partial(compiled.run, tensors, threads=MOST_THREADS)
    run()  # libraries make room for themselves once
    return Found(work.name, compiled.plan.peak_bytes, there + max(resident(run), traced(run)))


def resident(run: Callable[[], Any]) -> int:
    """How much more memory the process has at the peak of a run, as Linux says; 0 elsewhere."""
    if not Path("/proc/self/clear_refs").exists():
        return 0
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _status("VmRSS")
    kept = run()
    peak = _status("VmHWM") - before
    del kept
    return peak


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) * 1024 if found else 0


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def give_back_at_once() -> None:
    """Have the C library return what is freed, so that what a process has is what it uses. Only glibc knows how."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 16)
        mallopt(M_TRIM_THRESHOLD, 1 << 16)


def table(found: Iterable[Found], unit: float, allowed: float) -> str:
    """A line for each work, marked where the estimate is further off than the factor that is allowed."""
    rows = [
        f"{each.name:18} {each.estimated / unit:10.3f} {each.measured / unit:10.3f} {each.ratio:7.2f}"
        f"{'  !' if abs(math.log(each.ratio)) > math.log(allowed) else ''}"
        for each in found
    ]
    return "\n".join([f"{'':18} {'estimated':>10} {'measured':>10} {'ratio':>7}", *rows])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.calibrate", description="Estimates beside what is measured.")
    parser.add_argument("-k", dest="names", action="append", default=[], help="only works with this in their names")
    parser.add_argument("--memory", action="store_true", help="peaks instead of times")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    asked = parser.parse_args(arguments)
    works = [each for each in WORKS.values() if not asked.names or any(name in each.name for name in asked.names)]
    if asked.memory:
        give_back_at_once()
    found = [(peaked if asked.memory else timed)(each) for each in works]
    print(table(found, 1e6, 1.2) if asked.memory else table(found, 1e-3, 3.0))
    if asked.json:
        asked.json.write_text(json.dumps([each._asdict() for each in found]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
