"""`python -m benchmarks`: measure the rows, print the table, write the record; or quote a record in the README."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Found, record, table, this_machine, with_block
from benchmarks.rows import ROWS
from benchmarks.timing import Disagreement, Row, measure

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
SECONDS, QUICK_SECONDS = 5.0, 0.4
"""What one row may take, its set-up apart."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for; 1 where a row failed."""
    asked = _parser().parse_args(arguments)
    if asked.readme:
        return _quote(asked.readme)
    rows = [row for row in ROWS.values() if not asked.names or any(part in row.name for part in asked.names)]
    if asked.list or not rows:
        print("\n".join(f"{row.name:20} {row.group:14} {row.title}" for row in ROWS.values()))
        return 0 if asked.list else 2
    seconds = asked.seconds or (QUICK_SECONDS if asked.quick else SECONDS)
    begun, machine = time.perf_counter(), this_machine()
    found = record([_found(row, seconds) for row in rows], machine)
    print(table(found))
    asked.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\n{len(rows)} rows in {time.perf_counter() - begun:.0f} s; everything is in {asked.json}")
    return int(any("fault" in row for row in found["rows"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Measure the engine and the service.")
    parser.add_argument("-k", dest="names", action="append", metavar="NAME", help="only rows with NAME in theirs")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument("--quick", action="store_true", help="rough figures, within two minutes")
    parser.add_argument("--seconds", type=float, help=f"for each row, set-up apart (default {SECONDS:g})")
    parser.add_argument("--json", type=Path, default=HERE / "results.json", metavar="FILE", help="the record to write")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="only quote this record in README.md")
    return parser


def _quote(path: Path) -> int:
    found = json.loads(path.read_text(encoding="utf-8"))
    README.write_text(with_block(README.read_text(encoding="utf-8"), found), encoding="utf-8")
    return 0


def _found(row: Row, seconds: float) -> Found:
    print(f"{row.name} …", file=sys.stderr)
    try:
        return Found(row, measure(row, seconds))
    except Exception as error:  # one row that fails shall not cost the others
        return Found(row, {}, f"{'' if isinstance(error, Disagreement) else type(error).__name__ + ': '}{error}")


if __name__ == "__main__":
    sys.exit(main())
