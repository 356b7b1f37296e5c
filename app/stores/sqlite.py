"""Graphs in a file, by SQLite: they outlive the process, and several processes may share them.

The file is in write-ahead mode, so that readers wait for nobody, and each change is on the disk before its call
returns: what was put survives a kill, and a power cut as well. It is looked over when it is opened. One that is damaged
is put aside under another name, with a line in the log, and a new one begun: no graph is worth a service that does not
start. One that is not ours is left alone.

Connections are lent out of a pool, as threads come and go; one more is for the two calls that an event loop makes.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path

from app.stores.contract import Bounds, Entry, Record, StoreFailed, StoreUnusable

APPLICATION = 0x47726477
"""Written into the head of the file, to know it again."""
LAYOUT = 1
"""The version of the tables; a file of another one is not touched."""
FAULTS = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite's module raises: a message that quotes a damaged file may be no text, and then that is the error."""
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
PASSING = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
"""Faults that go away by themselves, or with somebody else's files."""
COMPANIONS = ("", "-wal", "-shm")
"""The ends of the names of the files that are a database."""
PATIENCE, CHECK_PATIENCE, SHORT_PATIENCE = 2.0, 0.5, 0.05
"""Seconds to wait for other writers: in a thread, in a check, in an event loop."""
OPENING_PATIENCE = 30.0
"""Seconds to wait for another process that opens the file for the first time."""
LEAST_FREE = 1 << 20
"""Bytes of the disk below which it counts as full. Small writes find room in the log when large ones no longer do."""

TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE graphs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    used INTEGER NOT NULL,
    size INTEGER NOT NULL,
    source BLOB NOT NULL,
    description BLOB NOT NULL
);
CREATE INDEX graphs_by_use ON graphs (used, size);
CREATE TABLE names (
    name TEXT PRIMARY KEY,
    id TEXT NOT NULL REFERENCES graphs (id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX names_by_id ON names (id);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {LAYOUT};
COMMIT;
"""
NEXT_USE = "(SELECT coalesce(max(used), 0) + 1 FROM graphs)"
"""A counter rather than a clock, as clocks are set back."""
USE = f"UPDATE graphs SET used = {NEXT_USE} WHERE id = ?"
PAGE = """
SELECT number, description, (SELECT group_concat(name, ' ') FROM names WHERE names.id = graphs.id)
FROM graphs
WHERE (?1 IS NULL OR number < ?1) AND (?2 IS NULL OR id = (SELECT id FROM names WHERE name = ?2))
ORDER BY number DESC LIMIT ?3
"""

logger = logging.getLogger("gradwire")


class SqliteStore:
    """Keeps a store's contract in a file."""

    def __init__(self, path: Path, bounds: Bounds) -> None:
        self._path = path
        self._bounds = bounds
        self._idle: list[sqlite3.Connection] = []
        self._watching = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(path):
                _prepare(path)
            self._watch = _connect(path, SHORT_PATIENCE)
            self._file = _identity(path)
        except (OSError, sqlite3.Error) as error:
            if _passes(error, path):
                raise StoreFailed(f"graphs cannot be kept in {path} now: {error}") from error
            raise StoreUnusable(
                f"graphs cannot be kept in {path}: {error}. GRADWIRE_STORE_PATH names another file, and "
                "GRADWIRE_STORE=memory keeps them in memory"
            ) from error

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with _failing():
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = _connect(self._path, PATIENCE)
            try:
                yield connection
            finally:
                if connection.in_transaction:  # which could not even be rolled back
                    connection.close()
                else:
                    self._idle.append(connection)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self._find()
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has rolled it back already
                    connection.execute("ROLLBACK")
                raise

    def put(self, record: Record, name: str | None = None, *, redescribe: bool = False) -> bool:
        with self._writing() as connection:
            added = connection.execute(
                f"INSERT INTO graphs (id, used, size, source, description) VALUES (?, {NEXT_USE}, ?, ?, ?)"
                " ON CONFLICT (id) DO NOTHING",
                (record.id, record.size, record.source, record.description),
            )
            is_new = added.rowcount > 0
            if not is_new:
                self._renew(connection, record, redescribe)
            if name is not None:
                connection.execute("INSERT OR REPLACE INTO names (name, id) VALUES (?, ?)", (name, record.id))
            self._evict(connection)
            return is_new

    def _renew(self, connection: sqlite3.Connection, record: Record, redescribe: bool) -> None:
        connection.execute(USE, (record.id,))
        if redescribe:
            connection.execute(
                "UPDATE graphs SET description = ?, size = length(source) + ? WHERE id = ?",
                (record.description, len(record.description), record.id),
            )

    def _evict(self, connection: sqlite3.Connection) -> None:
        records, size = connection.execute("SELECT count(*), sum(size) FROM graphs").fetchone()
        going: list[tuple[int]] = []
        oldest = connection.execute("SELECT number, size FROM graphs ORDER BY used")
        while records - len(going) > 1 and (records - len(going) > self._bounds.records or size > self._bounds.size):
            number, freed = oldest.fetchone()
            going.append((number,))
            size -= freed
        oldest.close()
        connection.executemany("DELETE FROM graphs WHERE number = ?", going)

    def source(self, id: str) -> bytes | None:
        with self._connection() as connection:
            found = connection.execute("SELECT source FROM graphs WHERE id = ?", (id,)).fetchone()
            return None if found is None else bytes(found[0])

    def use(self, ids: Sequence[str]) -> None:
        if ids:
            with self._writing() as connection:
                connection.executemany(USE, [(id,) for id in ids])

    def has(self, id: str) -> bool:
        with _failing(), self._watching:
            return self._watch.execute("SELECT 1 FROM graphs WHERE id = ?", (id,)).fetchone() is not None

    def version(self) -> int:
        # SQLite's own counter of what other connections have written, and this one never writes.
        with _failing(), self._watching:
            return int(self._watch.execute("PRAGMA data_version").fetchone()[0])

    def remove(self, id: str) -> bool:
        with self._writing() as connection:
            return connection.execute("DELETE FROM graphs WHERE id = ?", (id,)).rowcount > 0

    def page(self, most: int, before: int | None = None, name: str | None = None) -> list[Entry]:
        with self._connection() as connection:
            rows = connection.execute(PAGE, (before, name, most)).fetchall()
        return [Entry(number, bytes(about), tuple(sorted((names or "").split()))) for number, about, names in rows]

    def _find(self) -> None:
        """Raise StoreFailed where what is written would be lost, as into a file that has no name any more."""
        if _identity(self._path) != self._file:
            raise StoreFailed(f"{self._path} was removed or replaced: the service must be started again")

    def check(self) -> None:
        self._find()
        if _free(self._path) < LEAST_FREE:
            raise StoreFailed(f"the disk of {self._path} is full")
        # Only a write tells of a file system that has become read-only, a quota, or a lock that is not given back.
        with _failing(), closing(_connect(self._path, CHECK_PATIENCE)) as connection:
            connection.execute(f"PRAGMA application_id = {APPLICATION}")

    def close(self) -> None:
        self._watch.close()
        while self._idle:
            self._idle.pop().close()


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except FAULTS as error:
        raise StoreFailed(str(error)) from error


def _connect(path: Path, patience: float, mode: str = "rw") -> sqlite3.Connection:
    """A connection to the file. Only mode rwc makes one: where ours was removed, an empty one would hide that."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=patience,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one that has its name."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _free(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError as error:
        raise StoreFailed(str(error)) from error


def _code(error: Exception) -> int:
    """SQLite's own code of a fault; 0 where it has none, as where Python found it."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _passes(error: Exception, path: Path) -> bool:
    """Whether a fault is one of the moment. On a full disk SQLite speaks of a faulty one at times."""
    if _code(error) in PASSING:
        return True
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return path.parent.is_dir() and _free(path) < LEAST_FREE


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """With no other process between looking a file over and putting it aside: else two might, the second a good one."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _prepare(path: Path) -> None:
    """Make sure that the file is whole, and has our tables."""
    fault = _fault(path)
    if fault is not None:
        aside = _put_aside(path)
        logger.error("the graphs in %s are damaged (%s); it is now %s, and a new one is begun", path, fault, aside)
    with closing(_connect(path, OPENING_PATIENCE, "rwc")) as connection:
        if _head(connection) == [0, 0] and not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            connection.executescript(TABLES)
        if _head(connection) != [APPLICATION, LAYOUT]:
            raise sqlite3.DatabaseError("it belongs to another program, or to another version of this one")
        connection.execute("PRAGMA journal_mode = WAL")  # which the file remembers, but a backup's copy does not


def _head(connection: sqlite3.Connection) -> list[int]:
    """Whose file it is, and of which version; zeros where nobody said so."""
    return [connection.execute(f"PRAGMA {each}").fetchone()[0] for each in ("application_id", "user_version")]


def _fault(path: Path) -> str | None:
    """What is wrong with the file, if anything is."""
    try:
        with closing(_connect(path, OPENING_PATIENCE, "rwc")) as connection:
            found = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
            return None if found == "ok" else found
    except FAULTS as error:
        if isinstance(error, UnicodeDecodeError) or _code(error) in DAMAGED:
            return str(error)
        raise


def _put_aside(path: Path) -> Path:
    stem = f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    names = (path.with_name(stem if n == 0 else f"{stem}-{n}") for n in count())
    aside = next(each for each in names if not each.exists())
    for companion in COMPANIONS:
        with suppress(FileNotFoundError):
            path.with_name(path.name + companion).rename(aside.with_name(aside.name + companion))
    return aside
