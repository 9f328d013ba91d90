"""The SQL store on a real file: what a disk, another program, a restart and a cancelled caller do to it."""

import asyncio
import contextlib
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from plugin.diagnostics import Diagnostics
from plugin.domain import Run, RunKind, SampleBatch, Tag, to_micros
from plugin.errors import StoreError, StoreUnavailable
from plugin.historian.config import HistorianConfig
from plugin.historian.recent.ring import Ring
from plugin.historian.sqlite.selecting import select_samples
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery, Store, Written

TAGS = [Tag(f"T{n}", "plant", f"nsu=urn:plant;s=T{n}") for n in range(1, 6)]
ALL = [1, 2, 3, 4, 5]
EVER = (-(2**60), 2**60)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "historian.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(f"sqlite+aiosqlite:///{path}", busy_timeout=timedelta(0), ring=Ring()) as store:
        await store.register_tags(TAGS)
        yield store


def with_keys() -> tuple[Tag, ...]:
    return tuple(replace(tag, id=key) for key, tag in enumerate(TAGS, start=1))


def files(folder: Path) -> dict[str, int]:
    """The folder's files and their modes."""
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


def left_running(before: set[threading.Thread]) -> list[threading.Thread]:
    """Threads of databases that don't end (the event loop's own pool stays until the loop ends)."""
    new = [thread for thread in set(threading.enumerate()) - before if not thread.name.startswith("asyncio")]
    for thread in new:
        thread.join(timeout=5)
    return [thread for thread in new if thread.is_alive()]


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 * 60 : 4096 * 200] = b"\xff" * (4096 * 140)
    path.write_bytes(content)


def ticks(first: int, count: int) -> Delivery:
    """Each tag once per tick, in the order of arrival."""
    time = np.repeat(np.arange(first, first + count), len(ALL))
    rng = np.random.default_rng(abs(first))
    value = rng.normal(size=len(time))
    value[rng.random(len(time)) < 0.1] = np.nan
    return Delivery(SampleBatch.of(np.tile(ALL, count), time, value, rng.integers(0, 2**32, len(time)), time, time + 1))


def equal(left: SampleBatch, right: SampleBatch) -> bool:
    columns = zip(left.columns(), right.columns(), strict=True)
    return all(np.array_equal(a, b, equal_nan=a.dtype == np.float64) for a, b in columns)


def on_disk(path: Path) -> SampleBatch:
    with closing(sqlite3.connect(path)) as database:
        return select_samples(database, ALL, *EVER)


def test_the_store_is_a_store(path: Path) -> None:
    store: Store = SqliteStore(f"sqlite+aiosqlite:///{path}")
    assert store


async def test_only_the_owner_can_read_the_files(store: SqliteStore, path: Path) -> None:
    await store.write([ticks(0, 10)])
    assert files(path.parent) == {"historian.db": 0o600, "historian.db-wal": 0o600, "historian.db-shm": 0o600}
    assert files(path.parent.parent) == {"data": 0o700}


async def test_the_settings_reach_the_database(path: Path) -> None:
    for synchronous, number in (("full", 2), ("normal", 1)):
        config = HistorianConfig(synchronous=synchronous)  # type: ignore[arg-type]
        async with SqliteStore.configured(config, path.parent, Diagnostics()) as store:
            asked = ("synchronous", "journal_mode", "foreign_keys")
            got = [await store._file.write(_pragma, name) for name in asked]
            assert got == [number, "wal", 1]
            assert await store._file.read(_pragma, "query_only") == 1


def _pragma(database: sqlite3.Connection, name: str) -> object:
    return database.execute(f"PRAGMA {name}").fetchone()[0]


async def test_closing_ends_every_thread_and_leaves_one_file(path: Path) -> None:
    before = set(threading.enumerate())
    async with SqliteStore(f"sqlite+aiosqlite:///{path}") as store:
        await store.register_tags(TAGS)
        await store.write([ticks(0, 10)])
        await asyncio.gather(*(store.read_samples(ALL, *EVER) for _ in range(8)), store.counts(), store.gaps())
    assert not left_running(before)
    assert [*files(path.parent)] == ["historian.db"]
    with pytest.raises(StoreError, match="is not open"):
        await store.counts()
    with pytest.raises(StoreError, match="is not open"):
        await store.write([ticks(0, 10)])
    await store.close()


async def test_a_store_that_can_not_open_leaves_no_thread(path: Path) -> None:
    async with SqliteStore(f"sqlite+aiosqlite:///{path}") as store:
        await store.register_tags(TAGS)
        await store.write([ticks(0, 5000)])
    damage(path)
    before = set(threading.enumerate())
    with pytest.raises(StoreError, match="malformed"):
        async with SqliteStore(f"sqlite+aiosqlite:///{path}", ring=Ring()):
            pass
    assert not left_running(before)


async def test_the_ring_holds_the_tags_that_are_wanted_and_all_others_are_read_from_sql(path: Path) -> None:
    async with SqliteStore(f"sqlite+aiosqlite:///{path}", ring=Ring(samples=60, tags=())) as store:
        await store.register_tags(TAGS[:3])
        first = ticks(0, 10).samples
        await store.write([Delivery(first.take(first.tag <= 3))])
        await store.keep_recent([2, 4])
        await store.register_tags(TAGS)
        await store.write([ticks(10, 10)])
        everything = await store.read_samples(ALL, *EVER)
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("DELETE FROM samples WHERE source_time < 15")  # the memory does not see it
        held = await store.read_samples([2, 4], *EVER)
        assert equal(held, everything.take(np.isin(everything.tag, [2, 4])))
        assert len(await store.read_samples([1, 2], *EVER)) == 10, "one of them is not held"
        await store.keep_recent([4, 2])
        assert equal(await store.read_samples([2, 4], *EVER), held), "the same again: nothing to do"
        await store.keep_recent([1, 2])
        await store.write([ticks(20, 1)])
        assert len(await store.read_samples([1, 2], *EVER)) == 12
        assert len(await store.read_samples(ALL, *EVER)) == 30


async def test_the_newest_samples_are_a_table_and_what_came_since(path: Path) -> None:
    async with SqliteStore(f"sqlite+aiosqlite:///{path}") as store:
        await store.register_tags(TAGS)
        await store.write([ticks(0, 10)])  # the first write keeps them
        await store.write([ticks(10, 1), Delivery(ticks(5, 1).samples.take([0]))])
        with closing(sqlite3.connect(path)) as database, database:
            assert database.execute("SELECT DISTINCT source_time FROM latest_samples").fetchall() == [(9,)]
            database.execute("DELETE FROM samples WHERE source_time < 9")
        assert (await store.latest(ALL)).source_time.tolist() == [10] * 5
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("DELETE FROM samples")
        assert (await store.latest(ALL)).source_time.tolist() == [9] * 5


async def test_what_the_last_run_could_not_see_is_known_after_a_restart(store: SqliteStore, path: Path) -> None:
    now = datetime.now(UTC)
    run = await store.write_run(Run(0, "rul", RunKind.SCORE, now, started=now))
    await store.close()
    async with SqliteStore(f"sqlite+aiosqlite:///{path}", ring=Ring()) as again:
        await again.register_tags(TAGS)
        await again.write([ticks(0, 5)])
        assert not len(await again.read_samples(ALL, *EVER, received_by=to_micros(now)))
        assert len(await again.read_samples(ALL, *EVER)) == 25
        assert await again.runs("rul") == (run,)


async def test_a_restart_finds_everything_and_fills_the_ring(store: SqliteStore, path: Path) -> None:
    deliveries = [ticks(0, 100), ticks(50, 100), ticks(400, 30), ticks(300, 10)]
    for delivery in deliveries:
        await store.write([delivery])
    expected = await store.read_samples(ALL, *EVER)
    await store.close()
    async with SqliteStore(f"sqlite+aiosqlite:///{path}", ring=(ring := Ring(samples=60))) as again:
        assert await again.register_tags(TAGS) == with_keys()
        assert equal(await again.read_samples(ALL, *EVER), expected)
        newest = ring.read(ALL, 400, 500)
        assert newest is not None
        assert len(newest) == 150
        assert ring.read(ALL, 100, 500) is None
        assert equal(await again.latest(ALL), expected.take(expected.source_time == 429))
        assert await again.write(deliveries) == Written(0, 240 * 5)


async def test_what_the_ring_gives_is_what_the_file_holds(store: SqliteStore, path: Path) -> None:
    for delivery in (ticks(0, 200), ticks(190, 30), ticks(-20, 10), ticks(205, 2)):
        await store.write([delivery])
    assert equal(await store.read_samples(ALL, *EVER), on_disk(path))


async def test_beside_the_process_that_writes_all_is_read_from_the_file(store: SqliteStore, path: Path) -> None:
    beside = SqliteStore.configured(HistorianConfig(), path.parent, Diagnostics(), with_ring=False)
    async with beside:
        for first in (0, 10):
            await store.write([ticks(first, 10)])
            assert equal(await beside.read_samples(ALL, *EVER), on_disk(path))
            assert equal(await beside.latest(ALL), await store.latest(ALL))


async def test_a_full_disk_is_told_and_nothing_is_half_written(path: Path) -> None:
    url = f"sqlite+aiosqlite:///{path}"
    committed: list[int] = []

    async def fill(store: SqliteStore) -> None:
        for number in range(100):
            await store.write([ticks(number * 100, 100)])
            committed.append(number)

    async with SqliteStore(url, pragmas={"max_page_count": 160}, ring=Ring()) as store:
        await store.register_tags(TAGS)
        with pytest.raises(StoreUnavailable, match="full"):
            await fill(store)
        assert len(committed) > 1
        assert equal(await store.read_samples(ALL, *EVER), on_disk(path))
        assert (await store.counts())["samples"] == len(committed) * 500
    async with SqliteStore(url) as store:
        assert await store.write([ticks(len(committed) * 100, 100)]) == Written(500, 0)
        assert (await store.counts())["samples"] == (len(committed) + 1) * 500


async def test_a_lock_of_another_program_may_pass(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.write([ticks(0, 1)])
        assert await store.register_tags(TAGS) == with_keys()
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.register_tags([replace(TAGS[0], unit="K")])
        assert not len(await store.read_samples(ALL, *EVER))
        other.execute("ROLLBACK")
    assert await store.write([ticks(0, 1)]) == Written(5, 0)


async def test_a_store_opens_while_another_program_writes(store: SqliteStore, path: Path) -> None:
    await store.write([ticks(0, 2)])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        async with SqliteStore(f"sqlite+aiosqlite:///{path}", busy_timeout=timedelta(0), ring=Ring()) as second:
            assert await second.register_tags(TAGS) == with_keys()
            assert len(await second.latest(ALL)) == 5
        other.execute("ROLLBACK")


async def test_a_file_that_went_bad_is_no_passing_trouble(path: Path) -> None:
    async with SqliteStore(f"sqlite+aiosqlite:///{path}") as store:
        await store.register_tags(TAGS)
        await store.write([ticks(0, 5000)])
    damage(path)
    with pytest.raises(StoreError) as caught:
        async with SqliteStore(f"sqlite+aiosqlite:///{path}") as store:
            await store.read_samples(ALL, *EVER)
    assert not isinstance(caught.value, StoreUnavailable)
    assert "malformed" in str(caught.value)


async def test_a_cancelled_write_is_whole_or_absent_in_file_and_ring_alike(store: SqliteStore, path: Path) -> None:
    for number in range(12):
        write = asyncio.create_task(store.write([ticks(number * 100, 100)]))
        for _ in range(number):
            await asyncio.sleep(0)
        write.cancel()
        await asyncio.wait([write])
    await store.write([ticks(5000, 1)])
    disk = on_disk(path)
    assert all(count in {0, 500} for count in np.bincount(disk.source_time // 100, minlength=50)[:50])
    assert equal(await store.read_samples(ALL, *EVER), disk)


async def test_writers_and_readers_at_once(store: SqliteStore) -> None:
    async with asyncio.TaskGroup() as tasks:
        writes = [tasks.create_task(store.write([ticks(n * 10, 10)])) for n in range(20)]
        reads = [tasks.create_task(store.read_samples(ALL, *EVER)) for _ in range(20)]
        keeps = [tasks.create_task(store.register_tags(TAGS)) for _ in range(5)]
    assert sum(write.result().stored for write in writes) == 1000
    assert all(len(read.result()) % 50 == 0 for read in reads)
    assert {keep.result() for keep in keeps} == {with_keys()}


async def test_the_time_of_the_database_thread_is_counted(path: Path) -> None:
    diagnostics = Diagnostics()
    async with SqliteStore(f"sqlite+aiosqlite:///{path}", diagnostics) as store:
        await store.register_tags(TAGS)
        await store.write([ticks(0, 1000)])
    assert diagnostics.value("stage_cpu_seconds_total", stage="store") > 0


async def test_the_summary_for_an_operator(store: SqliteStore, path: Path) -> None:
    empty = await store.summary()
    assert (empty.newest, empty.open_gaps, empty.counts["samples"]) == (None, 0, 0)
    await store.write([ticks(0, 10)])
    summary = await store.summary()
    assert (summary.newest, summary.counts["samples"]) == (9, 50)
    assert summary.size > 100_000


async def test_a_cancelled_write_leaves_no_lock_behind(tmp_path):
    """A run's deadline may cancel a write at any of its awaits; the next writer must not find the database locked."""
    run = Run(0, "m", RunKind.SCORE, datetime.now(UTC))
    async with SqliteStore(f"sqlite+aiosqlite:///{tmp_path}/h.db", busy_timeout=timedelta(seconds=1)) as store:
        for awaits in range(60):
            task = asyncio.create_task(store.write_run(run))
            for _ in range(awaits % 20):
                await asyncio.sleep(0)
            await asyncio.sleep((awaits % 7) * 0.0002)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await store.write_run(run)
