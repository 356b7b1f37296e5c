"""One contract, every store: what is put comes back, names move, what is used least goes; and what a file promises."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from app.backup import back_up
from app.settings import Settings
from app.stores import STORES, Bounds, Record, Store, StoreFailed, StoreUnusable
from app.stores.sqlite import SqliteStore
from tests.conftest import ROOT

WIDE = Bounds(1000, 1 << 20)
Open = Callable[..., Store]


@pytest.fixture(params=STORES)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens a store of each kind, within bounds."""
    stores: list[Store] = []

    def opener(bounds: Bounds = WIDE) -> Store:
        stores.append(STORES[request.param](tmp_path / "graphs.sqlite3", bounds))
        return stores[-1]

    yield opener
    for each in stores:
        each.close()


@pytest.fixture
def store(opened: Open) -> Store:
    return opened()


def record(id: str, size: int = 10) -> Record:
    """A record of so many bytes in all."""
    return Record(id, id.encode().ljust(size - 1, b"."), b"d")


def ids(store: Store, *among: str) -> set[str]:
    return {each for each in among if store.has(each)}


# The contract


def test_the_setting_offers_every_store() -> None:
    assert Settings.model_json_schema()["properties"]["store"]["enum"] == list(STORES)


def test_what_is_put_comes_back(store: Store) -> None:
    raw = bytes(range(256))
    assert store.put(Record("a", raw, b"about a"))
    assert store.source("a") == raw
    assert store.has("a")
    assert [each.description for each in store.page(10)] == [b"about a"]


def test_what_was_not_put_is_not_there(store: Store) -> None:
    store.put(record("a"))
    assert store.source("b") is None
    assert not store.has("b")
    assert not store.remove("b")
    store.use(["b"])
    assert len(store.page(10)) == 1


def test_the_source_of_a_record_never_changes(store: Store) -> None:
    store.put(Record("a", b"first", b"1"))
    assert not store.put(Record("a", b"second", b"2"))
    assert store.source("a") == b"first"


@pytest.mark.parametrize(("redescribe", "expected"), [(False, b"1"), (True, b"2")])
def test_a_description_changes_when_it_shall(store: Store, redescribe: bool, expected: bytes) -> None:
    store.put(Record("a", b"source", b"1"))
    store.put(Record("a", b"source", b"2"), redescribe=redescribe)
    assert store.page(10)[0].description == expected


def test_what_is_removed_is_gone_and_so_are_its_names(store: Store) -> None:
    store.put(record("a"), "alpha")
    store.put(record("b"), "beta")
    assert store.remove("a")
    assert not store.remove("a")
    assert (store.source("a"), store.has("a"), store.page(10, name="alpha")) == (None, False, [])
    assert [each.names for each in store.page(10)] == [("beta",)]


def test_a_name_leads_to_what_was_put_under_it_last(store: Store) -> None:
    store.put(Record("a", b"s", b"about a"), "model")
    store.put(Record("b", b"s", b"about b"), "model")
    assert [each.description for each in store.page(10, name="model")] == [b"about b"]
    assert [each.names for each in store.page(10)] == [("model",), ()]
    store.put(Record("a", b"s", b""), "model")
    assert [each.description for each in store.page(10, name="model")] == [b"about a"]


def test_several_names_may_lead_to_one_record(store: Store) -> None:
    for name in ("two", "one", "two"):
        store.put(record("a"), name)
    assert [each.names for each in store.page(10)] == [("one", "two")]


def test_no_name_takes_no_name_away(store: Store) -> None:
    store.put(record("a"), "alpha")
    store.put(record("a"))
    assert store.page(10)[0].names == ("alpha",)


def test_pages_list_the_latest_first_and_go_on_where_they_ended(store: Store) -> None:
    for number in range(7):
        store.put(Record(f"r{number}", b"", b"%d" % number))
    found, before = [], None
    while page := store.page(3, before):
        found += [each.description for each in page]
        before = page[-1].number
    assert found == [b"6", b"5", b"4", b"3", b"2", b"1", b"0"]


def test_pages_are_not_disturbed_by_what_comes_and_goes(store: Store) -> None:
    for number in range(6):
        store.put(Record(f"r{number}", b"", b"%d" % number))
    first = store.page(2)
    store.put(Record("late", b"", b"late"))
    store.remove("r3")
    store.put(record("r2"))
    assert [each.description for each in store.page(2, first[-1].number)] == [b"2", b"1"]


def test_a_number_is_not_given_twice(store: Store) -> None:
    """Else a page that begins after one might begin somewhere else."""
    store.put(record("a"))
    first = store.page(1)[0].number
    store.remove("a")
    store.put(record("b"))
    assert store.page(1)[0].number > first


def test_at_the_bound_all_stay_and_past_it_the_least_recently_used_goes(opened: Open) -> None:
    store = opened(Bounds(3, 1000))
    for name in "abc":
        store.put(record(name))
    assert ids(store, *"abc") == set("abc")
    store.use(["a", "nothing"])
    store.put(record("b"))
    store.put(record("d"), "delta")
    assert ids(store, *"abcd") == set("abd")


def test_bytes_are_bounded_too(opened: Open) -> None:
    store = opened(Bounds(100, 100))
    for name in "abcd":
        store.put(record(name, 25))
    assert ids(store, *"abcd") == set("abcd")
    store.put(record("e", 26))
    assert ids(store, *"abcde") == set("cde")


def test_a_longer_description_counts(opened: Open) -> None:
    store = opened(Bounds(100, 100))
    for name in "ab":
        store.put(record(name, 50))
    store.put(Record("b", b"", b"d" * 60), redescribe=True)
    assert ids(store, *"ab") == {"b"}
    store.put(Record("b", b"", b"d"), redescribe=True)
    store.put(record("c", 49))
    assert ids(store, *"bc") == {"b", "c"}


def test_the_one_just_put_stays_whatever_its_size(opened: Open) -> None:
    store = opened(Bounds(100, 100))
    store.put(record("a"))
    store.put(record("b", 500))
    assert ids(store, *"ab") == {"b"}


@pytest.mark.parametrize("loss", ["removed", "evicted"])
def test_the_version_tells_that_something_has_gone(opened: Open, loss: str) -> None:
    store = opened(Bounds(2, 1000))
    for name in "ab":
        store.put(record(name))
    before = store.version()
    assert store.version() == before
    if loss == "removed":
        store.remove("a")
    else:
        store.put(record("c"))
    assert store.version() != before


def test_threads_do_not_disturb_each_other(store: Store) -> None:
    def work(worker: int) -> None:
        for number in range(20):
            store.put(record(f"{worker}-{number}"), f"n{number}")
            assert store.source(f"{worker}-{number}")
            if number % 2:
                assert store.remove(f"{worker}-{number}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(store.page(1000)) == 60


# A file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "below" / "graphs.sqlite3"


def test_a_file_is_read_again(path: Path) -> None:
    first = SqliteStore(path, WIDE)
    first.put(Record("a", b"source", b"about"), "alpha")
    first.close()
    second = SqliteStore(path, WIDE)
    assert second.source("a") == b"source"
    assert [each.names for each in second.page(10)] == [("alpha",)]
    second.close()


def test_two_openings_see_one_anothers_changes(path: Path) -> None:
    one, other = SqliteStore(path, WIDE), SqliteStore(path, WIDE)
    one.put(record("a"))
    assert other.has("a")
    before = one.version()
    other.remove("a")
    assert one.version() != before
    assert not one.has("a")
    one.close()
    other.close()


WORK = """
import os, signal, sys
from pathlib import Path
from app.stores.contract import Bounds, Record
from app.stores.sqlite import SqliteStore
path, worker, end = sys.argv[1:]
store = SqliteStore(Path(path), Bounds(1000, 1 << 20))
for number in range(25):
    store.put(Record(f"{worker}-{number}", b"source", b""), worker)
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def working(path: Path, worker: str, end: str) -> subprocess.Popen[bytes]:
    """A process that puts 25 records into a file."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", WORK, str(path), worker, end], env=environment)


def test_processes_share_a_file(path: Path) -> None:
    """All open it at once, too, where it does not exist."""
    workers = [working(path, f"w{number}", "in order") for number in range(4)]
    assert [each.wait(60) for each in workers] == [0] * 4
    store = SqliteStore(path, WIDE)
    assert len(store.page(1000)) == 100
    assert len(store.page(1000, name="w2")) == 1
    store.close()


def test_what_was_put_survives_a_kill(path: Path) -> None:
    assert working(path, "w", "killed").wait(60) == -signal.SIGKILL
    store = SqliteStore(path, WIDE)
    assert len(store.page(1000)) == 25
    store.close()


def _scribble(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[4096:8192] = b"\xa5" * 4096
    path.write_bytes(raw)


def _misspell(path: Path) -> None:
    """What SQLite says of this is no text, as it quotes the byte."""
    raw = path.read_bytes()
    assert b"CREATE TABLE names" in raw
    path.write_bytes(raw.replace(b"CREATE TABLE names", b"CREATE TABL\xe9 names"))


NAMED = re.compile(r"graphs\.sqlite3\.damaged-\d{8}T\d{6}Z(-\d+)?")
"""How a file is called that was put aside."""
DAMAGE: dict[str, Callable[[Path], object]] = {
    "not a database": lambda path: path.write_bytes(b"no database at all, though it is long enough" * 100),
    "cut short": lambda path: os.truncate(path, 5000),
    "a page overwritten": _scribble,
    "a byte that is no text": _misspell,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_put_aside_with_a_message(
    path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object]
) -> None:
    asides: set[Path] = set()
    for _ in range(2):
        store = SqliteStore(path, WIDE)
        for number in range(200):
            store.put(record(f"r{number}", 100))
        store.close()
        damage(path)
        damaged = path.read_bytes()
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            store = SqliteStore(path, WIDE)
        (aside,) = {each for each in path.parent.glob("*.damaged-*") if NAMED.fullmatch(each.name)} - asides
        asides.add(aside)
        assert aside.read_bytes() == damaged
        assert str(path) in caplog.text and str(aside) in caplog.text
        assert store.page(10) == []
        assert store.put(record("new"))
        store.close()


def test_what_belongs_to_a_damaged_file_goes_with_it(path: Path) -> None:
    """A log of the old file beside the new one would be read as its own."""
    path.parent.mkdir()
    for name in ("", "-wal", "-shm"):
        path.with_name(path.name + name).write_bytes(b"no database at all" * 1000)
    store = SqliteStore(path, WIDE)
    assert store.put(record("a"))
    store.close()
    asides = {each.name.rpartition("Z")[2] for each in path.parent.glob("*.damaged-*")}
    assert asides == {"", "-wal", "-shm"}


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    store = SqliteStore(path, WIDE)
    assert store.put(record("a"))
    store.close()


@pytest.mark.parametrize(
    ("statement", "is_new"),
    [
        ("CREATE TABLE theirs (x)", True),
        ("PRAGMA application_id = 77", True),
        ("PRAGMA user_version = 1", True),
        ("PRAGMA user_version = 99", False),
    ],
)
def test_a_file_that_is_not_ours_is_left_alone(path: Path, statement: str, is_new: bool) -> None:
    SqliteStore(path, WIDE).close()
    if is_new:
        path.unlink()
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match="another program"):
        SqliteStore(path, WIDE)
    assert path.read_bytes() == before


def test_a_place_where_no_file_can_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnusable, match=r"GRADWIRE_STORE_PATH.*GRADWIRE_STORE=memory"):
        SqliteStore(tmp_path / "file" / "graphs.sqlite3", WIDE)


def test_a_full_disk_is_of_the_moment(path: Path) -> None:
    store = SqliteStore(path, WIDE)
    store.put(record("a"))
    with store._connection() as connection:
        connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StoreFailed, match="full"):
        store.put(record("b", 100_000))
    assert store.source("a")
    with store._connection() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    assert store.put(record("b", 100_000))
    store.close()


def test_a_disk_that_is_full_when_the_store_opens_is_of_the_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No crash loop: what needs no store can be served."""
    path.parent.mkdir()
    path.mkdir()  # so that SQLite cannot open it
    with pytest.raises(StoreUnusable):
        SqliteStore(path, WIDE)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 30, 1 << 30, 0))
    with pytest.raises(StoreFailed, match="now"):
        SqliteStore(path, WIDE)


def test_a_backup_is_a_store(path: Path, tmp_path: Path) -> None:
    """Taken while others read and write; read again, it is in write-ahead mode as the first was."""
    copy = tmp_path / "copy.sqlite3"
    store = SqliteStore(path, WIDE)
    store.put(record("a"), "alpha")
    back_up(path, copy)
    store.put(record("b"))
    back_up(path, copy)  # over the one before
    store.put(record("c"))
    other = SqliteStore(copy, WIDE)
    assert ids(other, *"abc") == {"a", "b"}
    assert [each.names for each in other.page(10, name="alpha")] == [("alpha",)]
    with other._connection() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    for each in (store, other):
        each.close()


def test_a_backup_of_nothing_is_none(tmp_path: Path) -> None:
    """And makes no file that looks like one."""
    done = subprocess.run(
        [sys.executable, "-m", "app.backup", str(tmp_path / "copy")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "GRADWIRE_STORE_PATH": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "could not be copied" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


# What a check finds


@pytest.fixture
def checked(path: Path) -> Iterator[SqliteStore]:
    """A store that is well."""
    store = SqliteStore(path, WIDE)
    store.put(record("a"))
    store.check()
    yield store
    store.close()


def test_a_check_changes_nothing(checked: SqliteStore) -> None:
    before = checked.page(10)
    checked.check()
    assert checked.page(10) == before


def test_a_check_finds_a_lock_that_is_not_given_back(checked: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        start = time.perf_counter()
        with pytest.raises(StoreFailed, match="locked"):
            checked.check()
        assert time.perf_counter() - start < 30
        other.rollback()
    checked.check()


@pytest.mark.parametrize("way", ["removed", "replaced", "its folder removed"])
def test_a_check_finds_that_the_file_is_gone(checked: SqliteStore, path: Path, way: str) -> None:
    if way == "its folder removed":
        shutil.rmtree(path.parent)
    else:
        path.rename(path.with_name("elsewhere"))
    if way == "replaced":
        path.write_bytes(b"")
    for ask in (checked.check, lambda: checked.put(record("b")), lambda: checked.remove("b")):
        with pytest.raises(StoreFailed, match="removed or replaced"):
            ask()


def test_where_the_file_is_gone_no_empty_one_takes_its_place(checked: SqliteStore, path: Path) -> None:
    path.unlink()
    checked._idle.clear()
    with pytest.raises(StoreFailed):
        checked.put(record("b"))
    assert not path.exists()


def test_a_check_finds_that_the_disk_is_full(checked: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 30, 1 << 30, 1000))
    with pytest.raises(StoreFailed, match="full"):
        checked.check()


def test_clocks_that_jump_do_not_change_what_goes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of use is counted, not timed: of a process whose clock is a day behind, the last one used stays."""
    store = SqliteStore(path, Bounds(3, 1 << 20))
    for name, at in (("a", 2e9), ("b", 1e9), ("c", 3e9)):
        monkeypatch.setattr(time, "time", lambda at=at: at)
        store.put(record(name))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    store.use(["a"])
    store.put(record("d"))
    assert ids(store, *"abcd") == {"a", "c", "d"}
    store.close()


# Disks that are really small: a child with a limit on the size of files, and a file system of its own


SMALL_FILES = """
import resource, sys
from pathlib import Path
from app.stores.contract import Bounds, Record, StoreFailed
from app.stores.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]), Bounds(1000, 1 << 30))
assert store.put(Record("before", b"x", b""))
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
failed = 0
for number in range(20):
    try:
        store.put(Record(f"large-{number}", bytes(100_000), b""))
    except StoreFailed:
        failed += 1
assert 0 < failed < 20, failed
assert store.source("before") == b"x"
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert store.put(Record("after", bytes(1_000_000), b""))
store.check()
"""


def test_what_the_system_does_not_let_grow_is_of_the_moment(path: Path) -> None:
    """Where a write fails half-way, in the log or in the file, what was kept is whole, and it goes on later."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SMALL_FILES, str(path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    store = SqliteStore(path, WIDE)
    assert store.has("before") and store.has("after")
    store.close()


def test_who_keeps_the_file_locked_does_not_hold_up_readers(path: Path) -> None:
    store = SqliteStore(path, WIDE)
    store.put(record("a"))
    other = sqlite3.connect(path)
    other.execute("BEGIN IMMEDIATE")
    done = threading.Event()

    def read() -> None:
        assert store.source("a") and store.has("a") and store.page(1)
        store.version()
        done.set()

    threading.Thread(target=read, daemon=True).start()
    assert done.wait(2)
    other.rollback()
    other.close()
    store.close()
