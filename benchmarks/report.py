"""What a run found: a record for a file, and what is printed of such a record, in a terminal and in the README.

Both are made of the record alone, so that what the README says can be held against the file that it came from.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from benchmarks.peers import installed
from benchmarks.timing import EXPONENT, OURS, Figure, Row, exponent, held

Record = Mapping[str, Any]

LEGEND = """\
Figures are medians. In brackets: Gradwire's over that one, so below 1 Gradwire is the smaller.
A mark is the most that this ratio should be (✓ held, ✗ not held); in seconds, the most that Gradwire should take.
"exponent" is p of figure ∝ size^p, fitted over all sizes of the row."""
UNITS: Mapping[str, Sequence[tuple[float, str]]] = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "B": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
}
QUANTITY = {"s": "time", "B": "memory"}
SIGNS = {True: " ✓", False: " ✗", None: ""}
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
"""Between these the README quotes a record."""


@dataclass(frozen=True)
class Found:
    """A row's figures, or why there are none."""

    row: Row
    figures: Mapping[str, Figure]
    fault: str | None = None


# The record


def this_machine() -> dict[str, Any]:
    """What the figures depend on beside the code; the load is that of now."""
    peers = {name: f"{peer.VERSION}{_threads(peer.THREADS)}" for name, peer in installed().items()}
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
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
    """Everything, for a file. Figures are in seconds or bytes, as `unit` of their row says."""
    return {"machine": machine, "rows": [_row_record(each) for each in found]}


def _row_record(found: Found) -> dict[str, Any]:
    row, figures = found.row, found.figures
    entry: dict[str, Any] = {"name": row.name, "title": row.title, "group": row.group, "unit": row.unit}
    entry["figures"] = {name: asdict(figure) for name, figure in figures.items()}
    if row.parameter is not None:
        entry["parameter"] = row.parameter
    if found.fault:
        return entry | {"fault": found.fault}
    if row.parameter is None:
        ours = figures[OURS].median
        entry["ratios"] = {name: ours / figure.median for name, figure in figures.items() if name != OURS}
    else:
        entry["exponent"] = exponent(figures)
    return entry | {"marks": [{**asdict(each), "held": each.held} for each in held(row, figures)]}


# The terminal


def table(found: Record) -> str:
    """The machine, and all groups, each as a table of its own columns."""
    parts = [_machine_lines(found["machine"])]
    for group, rows in _groups(found).items():
        header, lines = _growth_lines(rows) if "parameter" in rows[0] else _lines(rows)
        parts.append(f"{group.upper()}\n{aligned([header, *lines])}")
    return "\n\n".join([*parts, LEGEND, _tally(found)])


def _groups(found: Record) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for row in found["rows"]:
        groups.setdefault(row["group"], []).append(row)
    return groups


def _machine_lines(machine: Record) -> str:
    facts = " · ".join(f"{name} {value}" for name, value in machine.items() if name != "peers")
    return f"{facts}\npeers: {' · '.join(f'{name} {value}' for name, value in machine['peers'].items()) or 'none'}"


def _tally(found: Record) -> str:
    marks = [mark for row in found["rows"] for mark in row.get("marks", ())]
    missed = [row["name"] for row in found["rows"] if any(mark["held"] is False for mark in row.get("marks", ()))]
    tried = [mark for mark in marks if mark["held"] is not None]
    where = f"; not held in {', '.join(missed)}" if missed else ""
    return f"{sum(mark['held'] for mark in tried)} of {len(tried)} marks held{where}"


def _lines(rows: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    others = [name for name in dict.fromkeys(name for row in rows for name in row["figures"]) if name != OURS]
    return ["", OURS, *others, "marks"], [_line(row, others) for row in rows]


def _line(row: Record, others: Sequence[str]) -> list[str]:
    label = f"{row['name']}: {row['title']}"
    if "fault" in row:
        return [label, row["fault"]]
    cells = [_compared(row, name) if name in row["figures"] else "–" for name in others]
    return [label, _figure(row, OURS), *cells, ", ".join(_mark(row, each) for each in row["marks"])]


def _figure(row: Record, name: str) -> str:
    return amount(row["figures"][name]["median"], row["unit"])


def _compared(row: Record, name: str) -> str:
    return f"{_figure(row, name)} ({_ratio(row['ratios'][name])})"


def _mark(row: Record, mark: Record) -> str:
    """A bound, what it is for, and whether it was kept: `≤ 1.2 × jax ✓`, `≤ 1 s ✗`."""
    beside = "" if mark["beside"] in (OURS, EXPONENT) else f" × {mark['beside']}"
    return f"{_bound(row, mark)}{beside}{SIGNS[mark['held']]}"


def _bound(row: Record, mark: Record) -> str:
    if mark["beside"] == OURS:
        return f"≤ {amount(mark['most'], row['unit'])}"
    return f"{mark['least']:.3g} to {mark['most']:.3g}" if mark["least"] else f"≤ {mark['most']:.3g}"


def _growth_lines(rows: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    return ["", "exponent", "marks", "figures"], [_growth_line(row) for row in rows]


def _growth_line(row: Record) -> list[str]:
    label = f"{row['name']}: {row['title']}"
    if "fault" in row:
        return [label, row["fault"]]
    figures = ", ".join(f"{int(size):,}: {_figure(row, size)}" for size in row["figures"])
    marks = ", ".join(_mark(row, each) for each in row["marks"])
    return [label, f"{row['exponent']:.2f}", marks, f"{row['parameter']} {figures}"]


def amount(value: float, unit: str) -> str:
    """Three digits and a unit."""
    scale, name = next(((scale, name) for scale, name in UNITS[unit] if value >= scale), UNITS[unit][-1])
    return f"{value / scale:.3g} {name}" if value < 1000 * scale else f"{value / scale:.0f} {name}"


def _ratio(value: float) -> str:
    return f"×{value:,.0f}" if value >= 10 else f"×{value:.2f}" if value >= 0.1 else f"×{value:.1g}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be; the first and the last to the left."""
    widths = [max((len(row[at]) for row in rows if at < len(row) > 2), default=0) for at in range(max(map(len, rows)))]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(widths[at]) if at == 0 or at == last else cell.rjust(widths[at]) for at, cell in enumerate(row)
        ).rstrip()
        for row in rows
    )


# The README


def quoted(found: Record) -> str:
    """The block of the README: every row, with what it is beside, and beside whom it has a mark."""
    compared = [_quoted_row(row) for row in found["rows"] if "parameter" not in row]
    grown = [_quoted_growth(row) for row in found["rows"] if "parameter" in row]
    return "\n".join(
        [
            f"Of one `make bench` on {_facts(found['machine'])}: medians, and ×, Gradwire's figure over the other's.",
            "In brackets: what is to be reached, and whether it was.",
            "",
            *_markdown(("work", "Gradwire", "beside it"), compared),
            "",
            *_markdown(("how it grows", "with", "exponent"), grown),
        ]
    )


def _facts(machine: Record) -> str:
    versions = {"Python": machine["python"], "NumPy": machine["numpy"], **machine["peers"], "load": machine["load"]}
    parts = [machine["processor"], f"{machine['cores']} cores", *(f"{name} {each}" for name, each in versions.items())]
    return ", ".join(parts)


def _quoted_row(row: Record) -> list[str]:
    if "fault" in row:
        return [row["title"], "", row["fault"]]
    others = [f"{name} {_ratio(ratio)}{_in_brackets(row, name)}" for name, ratio in row["ratios"].items()]
    return [row["title"], f"{_figure(row, OURS)}{_in_brackets(row, OURS)}", ", ".join(others)]


def _quoted_growth(row: Record) -> list[str]:
    what = f"{QUANTITY[row['unit']]}: {row['title']}"
    fitted = row.get("fault") or f"{row['exponent']:.2f}{_in_brackets(row, EXPONENT)}"
    return [what, row["parameter"], fitted]


def _in_brackets(row: Record, name: str) -> str:
    """The mark that a row has beside a contender, where it has one."""
    marks = [f"{_bound(row, mark)}{SIGNS[mark['held']]}" for mark in row["marks"] if mark["beside"] == name]
    return f" ({marks[0]})" if marks else ""


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def block_of(text: str) -> str:
    """What stands between the two comments of the README. Raises ValueError where they are not there."""
    return _parts(text)[1].strip()


def with_block(text: str, found: Record) -> str:
    """The README's text, with the block of this record."""
    before, _, after = _parts(text)
    return f"{before}\n{quoted(found)}\n{after}"


def _parts(text: str) -> tuple[str, str, str]:
    match = re.fullmatch(f"(.*{re.escape(BEGIN)})(.*)({re.escape(END)}.*)", text, re.DOTALL)
    if match is None:
        raise ValueError(f"expected {BEGIN} and {END} around the block")
    return match[1], match[2], match[3]
