"""Closing on PostgreSQL: equal to what SQLite makes of the same samples, beside writers, by one gateway at a time."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plugin.diagnostics import Diagnostics
from plugin.domain import Gap, GapCause, Micros, SampleBatch, Tag, from_micros
from plugin.errors import StoreError
from plugin.historian.closed.chunks import Chunk
from plugin.historian.config import HistorianConfig
from plugin.historian.keeping.upkeep import Upkeep
from plugin.historian.postgres.partitions import Partitions
from plugin.historian.postgres.store import PostgresStore
from plugin.historian.recent.ring import Ring
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery, Written
from tests.postgres import Database

TAGS = [
    Tag("T1", "plant", "i=1"), Tag("T2", "plant", "i=2", compression=0.5), Tag("T3", "other", "i=3", retention="slow"),
]  # fmt: skip
ALL = [1, 2, 3]
EVER = (-(2**60), 2**60)
SECOND: Micros = 1_000_000
MINUTE = 60 * SECOND
BEGIN = 1_714_521_600 * SECOND
TABLES = {
    "sample_partitions": "retention, start_time, end_time, samples, left_out, bytes",
    "sample_chunks": ", ".join(Chunk._fields),
    "samples": "*",
    "sample_texts": "source_time, tag_id, ordinal, text",
    **{f"rollup_{level}s": "*" for level in ("minute", "hour", "day")},
    "bookkeeping": "name, value",
}


@pytest.fixture
async def store(migrated_postgres: Database) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(migrated_postgres.secret_url, ring=Ring()) as store:
        await store.register_tags(TAGS)
        yield store


def seconds(first: int, count: int) -> Delivery:
    """Each tag once a second."""
    time = BEGIN + SECOND * np.repeat(np.arange(first, first + count), len(ALL))
    value = np.random.default_rng(abs(first)).normal(size=len(time))
    return Delivery(SampleBatch.of(np.tile(ALL, count), time, value, 0, time + 5, time + 9))


def equal(left: SampleBatch, right: SampleBatch) -> bool:
    columns = zip(left.columns(), right.columns(), strict=True)
    return all(np.array_equal(a, b, equal_nan=a.dtype == np.float64) for a, b in columns)


async def rows(store: PostgresStore, table: str) -> list[Any]:
    async with store._server.copying() as connection:
        found = [tuple(row) for row in await connection.fetch(f"SELECT {TABLES[table]} FROM {table}")]  # noqa: S608
    return ordered(found)


def sqlite_rows(path: Path, table: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return ordered(database.execute(f"SELECT {TABLES[table]} FROM {table}").fetchall())  # noqa: S608


def ordered(found: list[Any]) -> list[Any]:
    books = {"latest_since", "late_before", "works_from", "brought", "corrections"}
    return sorted((row for row in found if row[0] not in books), key=repr)


async def beside(database: Database) -> SampleBatch:
    async with PostgresStore(database.secret_url) as other:
        return await other.read_samples(ALL, *EVER)


def strange(rng: np.random.Generator) -> Delivery:
    """Late and early samples, several values of one time, texts, no numbers."""
    count = 300
    time = BEGIN + SECOND * rng.integers(-4000, 4000, count) // 7 * 7
    value = np.where(rng.random(count) < 0.1, np.nan, np.round(rng.normal(size=count), 1))
    status = np.where(rng.random(count) < 0.1, 0x80000000, 0)
    batch = SampleBatch.of(rng.integers(1, 4, count), time, value, status, time + 5, time + 9)
    texts = np.array([f"text {n}" if rng.random() < 0.02 else None for n in range(count)], np.object_)
    start = from_micros(int(time[0]))
    gap = Gap(f"g{count}", "plant", "T1", start, start + timedelta(seconds=90), GapCause.SEQUENCE, start)
    return Delivery(replace(batch, text=texts), (gap,))


@pytest.mark.parametrize(("seed", "at_once"), [(0, 100_000), (1, 100_000), (2, 500)])
async def test_it_makes_of_the_same_samples_what_sqlite_makes(
    store: PostgresStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, at_once: int
) -> None:
    monkeypatch.setattr("plugin.historian.closed.closing._AT_ONCE", at_once)
    rng = np.random.default_rng(seed)
    path = tmp_path / "historian.db"
    async with SqliteStore(f"sqlite+aiosqlite:///{path}") as other:
        await other.register_tags(TAGS)
        for step in range(5):
            for delivery in (seconds(600 * step, 600), strange(rng)):
                assert await store.write([delivery]) == await other.write([delivery])
            until = BEGIN + 600 * (step + 1) * SECOND - int(rng.integers(0, 300)) * SECOND
            assert await store.close_before(until) == await other.close_before(until)
            for table in TABLES:
                assert await rows(store, table) == sqlite_rows(path, table), table
        await store.close_before(EVER[1])
        await other.close_before(EVER[1])
        for table in TABLES:
            assert await rows(store, table) == sqlite_rows(path, table), table
        here, there = await store.read_samples(ALL, *EVER), await other.read_samples(ALL, *EVER)
        assert equal(here, there)
        assert here.text is not None
        assert there.text is not None
        assert here.text.tolist() == there.text.tolist()
        assert equal(await store.latest(ALL), await other.latest(ALL))


async def test_what_is_closed_reads_as_before(store: PostgresStore, migrated_postgres: Database) -> None:
    await store.write([seconds(0, 1000)])
    before = (await beside(migrated_postgres)).take(slice(0, 1000))  # of the tag that is not compressed
    closed = await store.close_before(BEGIN + 900 * SECOND)
    assert closed.samples == 2700
    assert equal((await beside(migrated_postgres)).take(slice(0, 1000)), before)
    assert (await store.write([seconds(0, 1000)])).stored == closed.left_out
    assert (await store.summary()).newest == BEGIN + 999 * SECOND


async def test_a_restart_fills_the_ring_from_chunks_too(store: PostgresStore, migrated_postgres: Database) -> None:
    await store.write([seconds(0, 1000)])
    await store.close_before(BEGIN + 960 * SECOND)
    everything = await beside(migrated_postgres)
    for capacity, since in ((2048, EVER[0]), (300, BEGIN + 800 * SECOND)):
        ring = Ring(samples=capacity)
        async with PostgresStore(migrated_postgres.secret_url, ring=ring) as again:
            held = ring.read([1, 3], since, EVER[1])
            assert held is not None
            known = everything.take((everything.source_time >= since) & (everything.tag != 2))
            assert equal(held, known)
            assert (await again.latest(ALL)).source_time.tolist() == [BEGIN + 999 * SECOND] * 3


async def test_readers_and_a_writer_beside_it_see_each_sample_once(
    store: PostgresStore, migrated_postgres: Database
) -> None:
    await store.write([seconds(0, 600)])
    lengths: list[int] = []
    done = asyncio.Event()

    async def look() -> None:
        async with PostgresStore(migrated_postgres.secret_url) as other:
            while not done.is_set():
                lengths.append(len(await other.read_samples([1, 3], BEGIN, BEGIN + 600 * SECOND)))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(look())
        for until in range(60, 660, 60):
            late = seconds(until - 61, 1).samples.take([0])
            late = SampleBatch.of(late.tag, late.source_time + 7, 1.0, 0, 1, 1)
            async with asyncio.TaskGroup() as both:
                both.create_task(store.close_before(BEGIN + until * SECOND))
                both.create_task(store.write([seconds(600 + until, 60), Delivery(late)]))
        done.set()
    assert set(lengths) <= set(range(1200, 1211))
    assert lengths == sorted(lengths)
    await store.close_before(EVER[1])
    assert await rows(store, "samples") == []
    assert len(await store.read_samples([1, 3], *EVER)) == 1200 + 1200 + 10


async def test_a_writer_that_is_in_the_middle_of_it_is_waited_for(
    store: PostgresStore, migrated_postgres: Database
) -> None:
    await store.write([seconds(0, 120)])
    async with PostgresStore(migrated_postgres.secret_url) as other:
        async with other._server.copying() as connection, connection.transaction():
            await connection.fetch("SELECT value FROM bookkeeping WHERE name = 'closed_until' FOR SHARE")
            closer = asyncio.create_task(store.close_before(BEGIN + 120 * SECOND))
            waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while not await asyncio.to_thread(migrated_postgres.psql, waits):
                await asyncio.sleep(0.01)
            late = "INSERT INTO samples VALUES ($1, 1, 0, 7.5, 0, 0, 0)"
            await connection.execute(late, BEGIN + 7)
        assert (await closer).samples == 361
    assert await rows(store, "samples") == []
    assert np.count_nonzero((await beside(migrated_postgres)).tag == 1) == 121


async def test_a_correction_that_comes_while_its_time_is_closed_counts(
    store: PostgresStore, migrated_postgres: Database
) -> None:
    await store.write([seconds(0, 600)])
    right = SampleBatch.of([1], BEGIN + 7 * SECOND, 99.5, 0, 1, 1)
    waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    async with PostgresStore(migrated_postgres.secret_url) as other:
        for table in ("rollup_minutes", "bookkeeping"):  # closing has written nearly all; it has not begun
            async with store._server.copying() as connection:
                await connection.execute(f"BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE")
                closer = asyncio.create_task(other.close_before(BEGIN + 300 * SECOND))
                while not await asyncio.to_thread(migrated_postgres.psql, waits):
                    await asyncio.sleep(0.01)
                correction = asyncio.create_task(store.correct(right, user="me", reason=table))
                await asyncio.sleep(0.05)
                await connection.execute("COMMIT")
            await closer
            assert (await correction).replaced == 1
            assert float(right.value[0]) in (await beside(migrated_postgres)).value
            right = replace(right, value=right.value + 0.25)
        await other.close_before(EVER[1])
    got = await beside(migrated_postgres)
    assert got.value[(got.tag == 1) & (got.source_time == BEGIN + 7 * SECOND)].tolist() == [99.75]


async def test_two_gateways_close_in_turn_and_nothing_twice(store: PostgresStore, migrated_postgres: Database) -> None:
    await store.write([seconds(0, 1200)])
    async with PostgresStore(migrated_postgres.secret_url) as other:
        closed = await asyncio.gather(*(each.close_before(BEGIN + 1200 * SECOND) for each in (store, other, store)))
    assert sum(each.samples for each in closed) == 3600
    assert len(await store.read_samples([1, 3], *EVER)) == 2400


async def test_a_closing_that_is_cut_off_has_done_nothing(store: PostgresStore, migrated_postgres: Database) -> None:
    await store.write([seconds(0, 600)])
    before = await beside(migrated_postgres)
    async with store._server.copying() as other:
        await other.execute("BEGIN; LOCK TABLE rollup_days")
        closer = asyncio.create_task(store.close_before(BEGIN + 86_400 * SECOND))
        ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while not await asyncio.to_thread(migrated_postgres.psql, ends):
            await asyncio.sleep(0.01)
        with pytest.raises(StoreError):
            await closer
        await other.execute("ROLLBACK")
    assert equal(await beside(migrated_postgres), before)
    assert await rows(store, "sample_chunks") == []
    assert (await store.close_before(BEGIN + 86_400 * SECOND)).samples == 1800
    assert await store.write([seconds(0, 1)]) == Written(0, 3)


async def hold_first_minute(connection: Any, tag: int) -> None:
    """Begin a transaction that whoever rolls up this minute of the tag has to wait for."""
    await connection.execute("BEGIN")
    columns = "samples, good, numbers, first_time, last_time, last_status, observed, good_time"
    minute = f"INSERT INTO rollup_minutes (tag_id, start_time, {columns}) VALUES ($1, $2, 0, 0, 0, 0, 0, 0, 0, 0)"  # noqa: S608
    await connection.execute(minute, tag, BEGIN)


async def test_a_closing_that_is_cut_off_between_two_portions_has_closed_the_first(
    store: PostgresStore, migrated_postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugin.historian.closed.closing._AT_ONCE", 600)
    await store.write([seconds(0, 600)])
    before = await beside(migrated_postgres)
    async with store._server.copying() as other:
        await hold_first_minute(other, tag=2)  # the second portion has to wait for us
        closer = asyncio.create_task(store.close_before(BEGIN + 600 * SECOND))
        ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while not await asyncio.to_thread(migrated_postgres.psql, ends):
            await asyncio.sleep(0.01)
        with pytest.raises(StoreError):
            await closer
        await other.execute("ROLLBACK")
    assert migrated_postgres.psql("SELECT DISTINCT tag_id FROM sample_chunks") == [["1"]]
    assert equal(await beside(migrated_postgres), before)
    assert await store.write([seconds(0, 600)]) == Written(0, 1800)
    closed = await store.close_before(BEGIN + 600 * SECOND)
    assert (closed.slices, closed.samples) == (1, 1200)
    kept = (await beside(migrated_postgres)).take(slice(0, 600))
    assert equal(kept, before.take(slice(0, 600)))
    assert len(await store.read_samples([1, 3], *EVER)) == 1200
    assert migrated_postgres.psql("SELECT sum(samples + left_out) FROM sample_partitions") == [["1800"]]


@pytest.mark.parametrize(("after", "slices"), [(7, 2), (0, 1)], ids=["at another time", "at the time of a row"])
async def test_what_comes_to_a_portion_while_it_is_closed_is_kept(
    migrated_postgres: Database, monkeypatch: pytest.MonkeyPatch, after: Micros, slices: int
) -> None:
    """At another time it is a slice of its own; at the time of a row of the portion, that is read anew."""
    monkeypatch.setattr("plugin.historian.closed.closing._AT_ONCE", 3600)
    tags = np.arange(1, 121)
    time = BEGIN + SECOND * np.repeat(np.arange(60), len(tags))
    url = migrated_postgres.secret_url
    async with PostgresStore(url) as store, PostgresStore(url) as other:
        for each in (store, other):
            await each.register_tags([Tag(f"T{tag}", "plant", f"i={tag}") for tag in tags])
        await store.write([Delivery(SampleBatch.of(np.tile(tags, 60), time, 0.5, 0, time, time))])
        async with store._server.copying() as connection:
            await hold_first_minute(connection, tag=61)  # the second portion has to wait for us
            closer = asyncio.create_task(other.close_before(BEGIN + MINUTE))
            waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while not await asyncio.to_thread(migrated_postgres.psql, waits):
                await asyncio.sleep(0.01)
            late = SampleBatch.of([61], BEGIN + after, 7.5, 0, BEGIN, BEGIN)
            assert (await store.write([Delivery(late)])).stored == 1
            await connection.execute("ROLLBACK")
        closed = await closer
        assert (closed.slices, closed.samples) == (slices, 7201)
        assert migrated_postgres.psql("SELECT count(*) FROM samples") == [["0"]]
        assert len(await other.read_samples(tags.tolist(), *EVER)) == 7201
        assert migrated_postgres.psql("SELECT sum(samples) FROM rollup_minutes") == [["7201"]]


async def test_the_upkeep_closes_and_the_partition_goes(store: PostgresStore, migrated_postgres: Database) -> None:
    await Partitions(store._server.copying, lambda: BEGIN, closing=True).tend()
    await store.write([seconds(0, 1500)])
    assert migrated_postgres.psql("SELECT count(*) FROM samples_default") == [["0"]]
    config = HistorianConfig(close_after=timedelta(minutes=5))
    (chore,) = (each for each in store.chores(config) if each.name == "closing partitions")
    upkeep = asyncio.create_task(Upkeep([chore], Diagnostics()).run())
    while (await store.counts())["samples"] and len(await rows(store, "samples")) > 1080:
        await asyncio.sleep(0.02)
    upkeep.cancel()
    await asyncio.gather(upkeep, return_exceptions=True)
    before = int(migrated_postgres.psql("SELECT count(*) FROM pg_inherits WHERE inhparent = 'samples'::regclass")[0][0])
    await Partitions(store._server.copying, lambda: BEGIN + 1300 * SECOND, closing=True).tend()
    assert (
        int(migrated_postgres.psql("SELECT count(*) FROM pg_inherits WHERE inhparent = 'samples'::regclass")[0][0])
        == before + 3 - 1
    )
    assert len(await store.read_samples([1], *EVER)) == 1500
