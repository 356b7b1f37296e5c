"""What a run found: a table for the terminal, and a record for a file."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from benchmarks.peers import installed
from benchmarks.timing import BY_HAND, OURS, Row, Timing, exponent

LEGEND = f"""\
Times are medians of one call. In brackets: that time over Gradwire's, so above 1 Gradwire is the faster one.
The column "ours/hand" is the other way round: Gradwire's time over that of "{BY_HAND}".
"exponent" is p of time ∝ size^p, fitted over all sizes of the row."""
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (0.0, "ns"))


@dataclass(frozen=True)
class Found:
    """A row's timings, or why there are none."""

    row: Row
    timings: Mapping[str, Timing]
    fault: str | None = None


def this_machine() -> dict[str, Any]:
    """What the times depend on beside the code; the load is that of now."""
    peers = {name: f"{peer.VERSION}{_threads(peer.THREADS)}" for name, peer in installed().items()}
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "load": round(os.getloadavg()[0], 2),
        "BLAS threads": os.environ.get("OPENBLAS_NUM_THREADS", "not set"),
        "peers": peers,
    }


def _threads(count: int | None) -> str:
    return "" if count is None else f" ({count} threads)"


def _processor() -> str:
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def record(found: Sequence[Found], machine: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for a file. Times are in seconds."""
    return {"machine": machine, "unit": "seconds", "rows": [_row_record(each) for each in found]}


def _row_record(found: Found) -> dict[str, Any]:
    row, timings = found.row, found.timings
    entry: dict[str, Any] = {"name": row.name, "title": row.title, "group": row.group}
    entry["times"] = {name: asdict(timing) for name, timing in timings.items()}
    if row.parameter is None:
        entry["ratios_to_gradwire"] = {name: timing.median / timings[OURS].median for name, timing in timings.items()}
    else:
        entry |= {"parameter": row.parameter, "exponent": exponent(timings)}
    return entry | ({"fault": found.fault} if found.fault else {})


def table(found: Iterable[Found], machine: Mapping[str, Any]) -> str:
    """The machine, and all groups, each as a table of its own columns."""
    groups: dict[str, list[Found]] = {}
    for each in found:
        groups.setdefault(each.row.group, []).append(each)
    parts = [_machine_lines(machine)]
    for group, members in groups.items():
        growing = members[0].row.parameter is not None
        header, lines = _growth_lines(members) if growing else _lines(members)
        parts.append(f"{group.upper()}\n{aligned([header, *lines])}")
    return "\n\n".join([*parts, LEGEND])


def _machine_lines(machine: Mapping[str, Any]) -> str:
    facts = " · ".join(f"{name} {value}" for name, value in machine.items() if name != "peers")
    return f"{facts}\npeers: {' · '.join(f'{name} {value}' for name, value in machine['peers'].items()) or 'none'}"


def _lines(members: Sequence[Found]) -> tuple[list[str], list[list[str]]]:
    columns = list(dict.fromkeys(name for each in members for name in each.timings))
    others = [name for name in columns if name != OURS]
    by_hand = BY_HAND in columns
    header = ["", OURS, *(["ours/hand"] if by_hand else []), *others]
    return header, [_line(each, others, by_hand) for each in members]


def _line(found: Found, others: Sequence[str], by_hand: bool) -> list[str]:
    label = f"{found.row.name}: {found.row.title}"
    if found.fault:
        return [label, found.fault]
    ours = found.timings[OURS].median
    cells = [label, duration(ours)]
    if by_hand:
        cells.append(_ratio(ours / found.timings[BY_HAND].median) if BY_HAND in found.timings else "")
    for name in others:
        timing = found.timings.get(name)
        cells.append("–" if timing is None else f"{duration(timing.median)} ({_ratio(timing.median / ours)})")
    return cells


def _growth_lines(members: Sequence[Found]) -> tuple[list[str], list[list[str]]]:
    return ["", "exponent", "times"], [_growth_line(each) for each in members]


def _growth_line(found: Found) -> list[str]:
    label = f"{found.row.name}: {found.row.title}"
    if found.fault:
        return [label, found.fault]
    times = ", ".join(f"{int(name):,}: {duration(timing.median)}" for name, timing in found.timings.items())
    return [label, f"{exponent(found.timings):.2f}", f"{found.row.parameter} {times}"]


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    unit, name = next((unit, name) for unit, name in UNITS if seconds >= unit)
    return f"{seconds / (unit or 1e-9):.3g} {name}" if seconds < 1000 * (unit or 1e-9) else f"{seconds:.0f} s"


def _ratio(value: float) -> str:
    return f"×{value:,.0f}" if value >= 10 else f"×{value:.2f}" if value >= 0.1 else f"×{value:.1g}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be; the first and the last to the left."""
    widths = [max((len(row[at]) for row in rows if at < len(row) > 2), default=0) for at in range(max(map(len, rows)))]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(widths[at]) if at == 0 or (at == last and last < 3) else cell.rjust(widths[at])
            for at, cell in enumerate(row)
        ).rstrip()
        for row in rows
    )
