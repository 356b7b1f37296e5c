"""`python -m benchmarks`: time the rows, print the table, write the record."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Found, record, table, this_machine
from benchmarks.rows import ROWS
from benchmarks.timing import Disagreement, Row, time_row

SECONDS, QUICK_SECONDS = 5.0, 0.4
"""What one row may take, its set-up apart."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for; 1 where a row failed."""
    asked = _parser().parse_args(arguments)
    rows = [row for row in ROWS.values() if not asked.names or any(part in row.name for part in asked.names)]
    if asked.list or not rows:
        print("\n".join(f"{row.name:16} {row.group:14} {row.title}" for row in ROWS.values()))
        return 0 if asked.list else 2
    seconds = asked.seconds or (QUICK_SECONDS if asked.quick else SECONDS)
    begun, machine = time.perf_counter(), this_machine()
    found = [_found(row, seconds) for row in rows]
    print(table(found, machine))
    asked.json.write_text(json.dumps(record(found, machine), indent=1, ensure_ascii=False) + "\n")
    print(f"\n{len(found)} rows in {time.perf_counter() - begun:.0f} s; everything is in {asked.json}")
    return int(any(each.fault for each in found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Time the engine and the service.")
    parser.add_argument("-k", dest="names", action="append", metavar="NAME", help="only rows with NAME in theirs")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument("--quick", action="store_true", help="rough figures, within half a minute")
    parser.add_argument("--seconds", type=float, help=f"for each row, set-up apart (default {SECONDS:g})")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("results.json"), metavar="FILE")
    return parser


def _found(row: Row, seconds: float) -> Found:
    print(f"{row.name} …", file=sys.stderr)
    try:
        return Found(row, time_row(row, seconds))
    except Exception as error:  # one row that fails shall not cost the others
        return Found(row, {}, f"{'' if isinstance(error, Disagreement) else type(error).__name__ + ': '}{error}")


if __name__ == "__main__":
    sys.exit(main())
