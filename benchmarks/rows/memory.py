"""The memory row: what a process needs for one large gradient, beside what was planned.

Each sample is a process of its own, because memory that an earlier run has left behind would be used again, and not be
seen. Measured is how much the most that the process ever held in memory grew, from before there were inputs: code that
is first run then counts, too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rows.engine import LIMITS, THREADS, question, random
from benchmarks.timing import OURS, Contender, Row, enter
from engine.calls import compile_question

ROOT = Path(__file__).parents[2]
ELEMENTS = 10_000_000
CHAIN = ("sin", "tanh", "exp", "square")
LENGTH = 20
SPARE = 64 << 20
PLANNED, ROOM = "peak_bytes", "inputs + outputs + 64 MiB"


def expression() -> str:
    """Elementwise ops, one after the other: those of CHAIN, each followed by a product, so that numbers stay small."""
    steps = [f"h{at + 1} = {CHAIN[at % len(CHAIN)]}(h{at}) * 0.5" for at in range(LENGTH // 2)]
    return "; ".join(["h0 = x", *steps])


def weighed(elements: int) -> dict[str, int]:
    """Bytes: planned, measured, and of inputs and outputs, of the gradient of the chain. To be asked once a process."""
    hollow = {"x": np.broadcast_to(np.zeros(()), (elements,))}
    last = question("grad", expression(), hollow)
    compiled = compile_question(last, LIMITS)
    before = _most_resident()
    tensors = {"x": random().uniform(-1, 1, elements)}
    answer = compiled.run(tensors, threads=THREADS)
    grown = _most_resident() - before
    arrays = [*tensors.values(), *answer["values"].values(), *answer["gradients"].values()]
    return {OURS: grown, PLANNED: compiled.plan.peak_bytes, ROOM: sum(each.nbytes for each in arrays) + SPARE}


def _most_resident() -> int:
    """The most memory that this process ever had, in bytes, as Linux counts it."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) << 10


def _contenders(stack: ExitStack) -> dict[str, Contender]:
    last: dict[str, int] = {}

    def measured() -> int:
        last.update(_in_a_process())
        return last[OURS]

    def beside(name: str) -> Callable[[], int]:
        """What else the last process had to say."""
        return lambda: last[name] if last else measured() and last[name]

    return {OURS: Contender(measured), **{name: Contender(beside(name)) for name in (PLANNED, ROOM)}}


def _in_a_process() -> dict[str, Any]:
    program = f"import json; from {__name__} import weighed; print(json.dumps(weighed({ELEMENTS})))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    written = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, env=environment)
    return dict(json.loads(written))


enter(
    Row(
        "peak",
        "peak memory of a gradient: chain of 20 elementwise ops, 10⁷ elements",
        "memory",
        _contenders,
        gauge="B",
        # Planned within 20 % of measured, which is ours.
        marks={ROOM: 1, PLANNED: (1 / 1.2, 1 / 0.8)},
    )
)
