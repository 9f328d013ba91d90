"""The peer of the historian's benchmarks: sqlite3 as it comes, a table of four columns and ``executemany``."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from plugin.domain import SampleBatch

SECOND = 1_000_000
BEGIN = 1_700_000_000 * SECOND


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection, closed afterwards."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        yield database


@contextmanager
def table(path: Path, key: str) -> Iterator[sqlite3.Connection]:
    """A table with this primary key, in a log and with flushes as the historian has them."""
    with opened(path) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        columns = "ts INTEGER, tag INTEGER, value REAL, status INTEGER"
        database.execute(f"CREATE TABLE plain ({columns}, PRIMARY KEY ({key})) WITHOUT ROWID")
        yield database


def insert(database: sqlite3.Connection, batch: SampleBatch) -> None:
    """One transaction."""
    columns = (batch.source_time, batch.tag, batch.value, batch.status)
    database.execute("BEGIN IMMEDIATE")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    database.executemany("INSERT OR IGNORE INTO plain VALUES (?, ?, ?, ?)", rows)
    database.execute("COMMIT")


def ticks(tags: int, first: int, count: int, seed: int = 0) -> SampleBatch:
    """Each of the tags once a second, in the order of arrival: a random walk to two digits, sent and received later."""
    time = np.repeat(BEGIN + SECOND * np.arange(first, first + count, dtype=np.int64), tags)
    walk = np.random.default_rng(seed + first).normal(0, 0.2, (count, tags)).cumsum(axis=0).ravel()
    tag = np.tile(np.arange(1, tags + 1, dtype=np.int32), count)
    return SampleBatch.of(tag, time, np.round(50 + walk, 2), 0, time + 1_500, time + 40_000)
