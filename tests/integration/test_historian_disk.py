"""The forecast of when the disk is full, on a real file."""

import logging
import math
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from plugin.diagnostics import Diagnostics
from plugin.fields import ByteCount
from plugin.historian.config import HistorianConfig
from plugin.historian.database import Database, Room
from plugin.historian.keeping.disk import Disk
from plugin.historian.keeping.retention import RetentionConfig
from plugin.historian.sqlite.store import SqliteStore

HOUR = 3_600_000_000
DAY = 24 * HOUR
NOW = 1_700_006_400_000_000
GIB = 2**30


class Narrow:
    """A real database on a disk of a size that the test says."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.reading, self.writing, self.size = database.reading, database.writing, database.size
        self.given = Room(10 * GIB, 10 * GIB)

    async def room(self) -> Room:
        return self.given


class Looked:
    def __init__(self, database: Database, config: HistorianConfig) -> None:
        self.diagnostics = Diagnostics()
        self.now = NOW
        self.disk = Disk(database, config, self.diagnostics, lambda: self.now)

    async def __call__(self) -> float:
        await self.disk.run()
        return self.diagnostics.value("disk_full_seconds")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "historian.db"


@pytest.fixture
async def store(path: Path):
    async with SqliteStore(f"sqlite+aiosqlite:///{path}") as store:
        yield store


def execute(path: Path, statement: str, *parameters: object) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement, parameters)


def closed(path: Path, retention: str, days_ago: float, size: int, hours: float = 24) -> None:
    end = NOW - int(days_ago * DAY)
    execute(
        path,
        "INSERT INTO sample_partitions (retention, start_time, end_time, samples, left_out, bytes, closed) "
        "VALUES (?, ?, ?, 1000, 0, ?, 0)",
        retention, end - int(hours * HOUR), end, size,
    )  # fmt: skip


async def test_the_room_of_a_file_counts_its_free_pages(store, path):
    before = await store._file.room()
    execute(path, "CREATE TABLE ballast (content BLOB)")
    execute(path, "INSERT INTO ballast VALUES (zeroblob(4000000))")
    full = await store._file.room()
    assert full.used - before.used >= 4_000_000
    execute(path, "DROP TABLE ballast")
    after = await store._file.room()
    assert after.used == before.used
    assert after.free is not None
    assert after.free > 4_000_000
    assert (await store._file.size()) >= 4_000_000


async def test_at_first_nothing_is_known_then_growth_is(store, path):
    database = Narrow(store._file)
    look = Looked(database, HistorianConfig())
    assert math.isnan(await look())
    for hour in range(1, 8):
        look.now = NOW + hour * HOUR
        database.given = Room(10 * GIB + hour * GIB // 10, 10 * GIB)
        seconds = await look()
    assert seconds == pytest.approx(100 * 3600.0)
    with closing(sqlite3.connect(path)) as opened:
        assert opened.execute("SELECT count(*) FROM growth").fetchone() == (8,)
    assert look.diagnostics.value("disk_free_bytes") == 10 * GIB


async def test_a_class_that_retention_keeps_in_bounds_does_not_fill_the_disk(store, path):
    database = Narrow(store._file)
    for day in range(10):
        closed(path, "", day, GIB)
    execute(path, "INSERT INTO bookkeeping VALUES ('samples', 10000) ON CONFLICT (name) DO UPDATE SET value = 10000")
    for hour in range(30):
        execute(path, "INSERT INTO growth VALUES (?, ?, ?, 0)", NOW - hour * HOUR, 10 * GIB, 10 * GIB)
    for classes, days in (
        ((), 10.0),
        ((RetentionConfig(name="default", samples=timedelta(days=10)),), math.inf),
        ((RetentionConfig(name="default", samples=timedelta(days=15)),), math.inf),
        ((RetentionConfig(name="default", samples=timedelta(days=30)),), 10.0),
        ((RetentionConfig(name="others", samples=timedelta(days=10)),), 10.0),
    ):
        look = Looked(database, HistorianConfig(retention=classes))
        assert await look() == pytest.approx(days * 86_400, rel=0.02), classes


async def test_the_size_of_postgresqls_disk_is_told(store):
    database = Narrow(store._file)
    database.given = replace(database.given, free=None)
    look = Looked(database, HistorianConfig())
    await look()
    assert look.diagnostics.value("disk_free_bytes") == 0
    look = Looked(database, HistorianConfig(disk=ByteCount(30 * GIB)))
    await look()
    assert look.diagnostics.value("disk_free_bytes") == 20 * GIB


async def test_the_log_tells_of_each_state_once(store, path, caplog):
    database = Narrow(store._file)
    for hour in range(30):
        execute(path, "INSERT INTO growth VALUES (?, ?, 0, 0)", NOW - hour * HOUR, 10 * GIB - hour * GIB // 24)
    look = Looked(database, HistorianConfig())
    said = []
    for days in (40, 29, 31, 28, 2, 3.2, 20, 35, 50):
        database.given = Room(10 * GIB, int(days * GIB))
        caplog.clear()
        with caplog.at_level(logging.INFO, "plugin.historian.keeping.disk"):
            await look()
            await look()
        said.append([record.levelname for record in caplog.records])
    assert said == [[], ["WARNING"], [], [], ["ERROR"], [], ["WARNING"], [], ["WARNING"]]
    assert "room again" in caplog.text
