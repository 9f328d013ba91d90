"""The write-ahead log: taken over beside the commits, bounded, and told of where a reader keeps it from that."""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from plugin.diagnostics import Diagnostics
from plugin.domain import SampleBatch, Tag
from plugin.historian.sqlite import checkpoints
from plugin.historian.sqlite.checkpoints import Checkpointer
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery

BLOB = 100_000
LIMIT = 1_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "historian.db"


@pytest.fixture
def writer(path: Path) -> Iterator[sqlite3.Connection]:
    """As the historian's own."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("CREATE TABLE t (x BLOB)")
        yield database


@pytest.fixture
def diagnostics() -> Diagnostics:
    return Diagnostics()


@pytest.fixture
def checkpointer(path: Path, diagnostics: Diagnostics, monkeypatch: pytest.MonkeyPatch) -> Checkpointer:
    """Not started: a test has it do its work step by step."""
    monkeypatch.setattr(checkpoints, "_LIMIT", LIMIT)
    monkeypatch.setattr(checkpoints, "_RETRY", 0.0)
    return Checkpointer(path, "FULL", diagnostics)


def log_of(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


def write(database: sqlite3.Connection, megabytes: int = 1) -> None:
    for _ in range(10 * megabytes):
        database.execute("INSERT INTO t VALUES (zeroblob(?))", (BLOB,))


def test_what_is_in_the_log_is_taken_over_and_the_next_commit_begins_it_anew(path, writer, checkpointer, diagnostics):
    for number in range(1, 6):
        write(writer)
        assert path.stat().st_size < number * LIMIT
        assert checkpointer._attempt() == 0
        assert path.stat().st_size > number * LIMIT
        assert log_of(path) < 1.5 * LIMIT
    assert diagnostics.value("wal_bytes") > LIMIT


def test_a_log_that_never_comes_to_rest_is_begun_anew_while_commits_are_held_off(path, writer, checkpointer):
    """Each time another commit has come before it is through, so that the next one finds something left in it."""
    beside = 20
    ordered, done = threading.Semaphore(0), threading.Semaphore(0)

    def commit_always() -> None:
        while ordered.acquire() and not stop.is_set():
            with checkpointer.commits:
                writer.execute("INSERT INTO t VALUES (zeroblob(?))", (BLOB,))
            done.release()

    stop = threading.Event()
    thread = threading.Thread(target=commit_always)
    thread.start()
    try:
        while path.stat().st_size < 10 * LIMIT:
            ordered.release(beside)
            checkpointer._attempt()
            for _ in range(beside):
                done.acquire()
    finally:
        stop.set()
        ordered.release()
        thread.join()
    assert log_of(path) < 5 * LIMIT


def test_a_reader_of_an_old_state_holds_up_no_commit_and_is_told_of_once(
    path, writer, checkpointer, diagnostics, caplog
):
    caplog.set_level(logging.WARNING)
    write(writer)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        before = reader.execute("SELECT count(*) FROM t").fetchone()
        for _ in range(4):
            write(writer)
            assert checkpointer._attempt() > 0, "to be tried again, though nobody commits"
        assert reader.execute("SELECT count(*) FROM t").fetchone() == before
        assert diagnostics.value("wal_bytes") > 4 * LIMIT
        assert path.stat().st_size < 2 * LIMIT
        reader.execute("COMMIT")
    assert checkpointer._attempt() == 0
    assert path.stat().st_size > 5 * LIMIT
    write(writer)
    assert log_of(path) < 6 * LIMIT, "it has begun anew"
    (line,) = [record.message for record in caplog.records]
    assert "has grown to" in line


def test_what_goes_wrong_is_counted_told_once_and_tried_again(path, writer, checkpointer, diagnostics, caplog):
    caplog.set_level(logging.WARNING)
    write(writer)
    aside = path.with_name("aside")
    path.rename(aside)
    path.mkdir()
    for _ in range(3):
        assert checkpointer._attempt() > 0
    path.rmdir()
    aside.rename(path)
    assert checkpointer._attempt() == 0
    assert diagnostics.value("checkpoints_failed_total") == 3
    assert ["to be tried again" in record.message for record in caplog.records] == [True, False]


async def test_a_commit_takes_nothing_over_and_the_thread_does(path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_ROWS", 1)
    async with SqliteStore(f"sqlite+aiosqlite:///{path}") as store:
        await store.register_tags([Tag("t", "plant", "nsu=u;s=t")])
        store._file._checkpointer.stop()
        before = path.stat().st_size
        for first in range(0, 200_000, 20_000):
            time = list(range(first, first + 20_000))
            await store.write([Delivery(SampleBatch.of([1] * len(time), time, 1.0, 0, time, time))])
        assert path.stat().st_size == before
        assert log_of(path) > 3_000_000
        store._file._checkpointer.start()
        await store.write([Delivery(SampleBatch.of([1], -1, 1.0, 0, 0, 0))])
        while path.stat().st_size < before + 3_000_000:
            await asyncio.sleep(0.01)
    assert (path.stat().st_mode & 0o777) == 0o600
