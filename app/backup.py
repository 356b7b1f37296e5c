"""`python -m app.backup FILE`: a copy of the registered graphs, while the service runs.

SQLite writes it from one moment's view of the file, and holds up nobody. A plain copy of the files is none: what was
put last is in the log beside them.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from app.settings import Settings


def back_up(path: Path, copy: Path) -> None:
    """Write what is in the store's file to a new file, which is whole or not there."""
    unfinished = copy.with_name(f"{copy.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("VACUUM INTO ?", (str(unfinished),))
    os.replace(unfinished, copy)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m app.backup FILE")
    path = Settings().store_path
    try:
        back_up(path, Path(sys.argv[1]))
    except (OSError, sqlite3.Error) as error:
        sys.exit(f"{path} could not be copied to {sys.argv[1]}: {error}")


if __name__ == "__main__":
    main()
