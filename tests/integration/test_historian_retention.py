"""Retention on a real file: what goes, what stays, and what is said of it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plugin.diagnostics import Diagnostics
from plugin.domain import Gap, GapCause, GapState, Level, Micros, Remark, RemarkKind, SampleBatch, Tag, from_micros
from plugin.fields import ByteCount
from plugin.historian.closed import chunks
from plugin.historian.database import Database
from plugin.historian.keeping.dropping import Dropping
from plugin.historian.keeping.retention import KeepConfig, RetentionConfig
from plugin.historian.postgres.store import PostgresStore
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery

HOUR: Micros = 3_600_000_000
DAY = 24 * HOUR
NOW: Micros = 1_700_006_400_000_000  # midnight
SLOW = RetentionConfig(name="slow", samples=timedelta(days=10))
USUAL = RetentionConfig(name="default", samples=timedelta(days=2))
TAGS = [
    Tag("T1", "plant", "i=1"), Tag("T2", "plant", "i=2"), Tag("S1", "other", "i=3", retention="slow"),
]  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "historian.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(f"sqlite+aiosqlite:///{path}", busy_timeout=timedelta(seconds=1)) as store:
        await store.register_tags(TAGS)
        yield store


class Retention:
    """Retention of a store, at a moment."""

    def __init__(self, database: Database) -> None:
        self.diagnostics = Diagnostics()
        self.now = NOW
        self._database = database

    async def __call__(self, *classes: RetentionConfig, keep: KeepConfig | None = None) -> None:
        await Dropping(self._database, classes, keep or KeepConfig(), self.diagnostics, lambda: self.now).run()


@pytest.fixture
def retention(store: SqliteStore) -> Retention:
    return Retention(store._file)


def rows(path: Path, query: str, *parameters: Any) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query, parameters).fetchall()


def execute(path: Path, statement: str, many: Sequence[Sequence[Any]]) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany(statement, many)


def close(path: Path, retention: str, batch: SampleBatch) -> int:
    """A closed partition, its chunks and its roll-ups by minute."""
    batch = batch.take(np.lexsort((batch.source_time, batch.tag)))
    made = chunks.encode(batch, np.zeros(len(batch), np.int16))
    names = ", ".join(chunks.Chunk._fields)
    span = int(batch.source_time.min()), int(batch.source_time.max()) + 1
    with closing(sqlite3.connect(path)) as database, database:
        size = sum(len(chunk.data) for chunk in made)
        partition = database.execute(
            "INSERT INTO sample_partitions (retention, start_time, end_time, samples, left_out, bytes, closed) "
            "VALUES (?, ?, ?, ?, 0, ?, 0) RETURNING id",
            (retention, *span, len(batch), size),
        ).fetchone()[0]
        places = ", ".join("?" * len(chunks.Chunk._fields))
        insert = f"INSERT INTO sample_chunks (partition_id, {names}) VALUES ({partition}, {places})"  # noqa: S608
        database.executemany(insert, made)
    return int(partition)


def samples(tags: Sequence[int], start: Micros, count: int = 700, step: Micros = 1_000_000) -> SampleBatch:
    time = np.repeat(start + step * np.arange(count), len(tags))
    return SampleBatch.of(np.tile(tags, count), time, np.arange(len(time)) / 10, 0, time, time + 5)


async def newest(store: SqliteStore, path: Path, *stamps: Micros) -> None:
    """The plant has spoken."""
    execute(path, "INSERT OR REPLACE INTO latest_samples VALUES (?, ?, 0, 1.0, 0, 0, 0)", [*enumerate(stamps, start=1)])


def partitions(path: Path) -> list[int]:
    return [row[0] for row in rows(path, "SELECT id FROM sample_partitions ORDER BY id")]


async def test_each_class_drops_what_is_older_than_it_says(store, path, retention):
    await newest(store, path, NOW)
    old = close(path, "", samples([1, 2], NOW - 3 * DAY))
    young = close(path, "", samples([1, 2], NOW - DAY))
    slow = close(path, "slow", samples([3], NOW - 3 * DAY))
    unknown = close(path, "of another file", samples([3], NOW - 300 * DAY))
    await retention(SLOW, USUAL)
    assert partitions(path) == [young, slow, unknown]
    assert rows(path, "SELECT DISTINCT partition_id FROM sample_chunks ORDER BY 1") == [(young,), (slow,), (unknown,)]
    assert retention.diagnostics.value("samples_expired_total", **{"class": "default"}) == 1400
    assert retention.diagnostics.value("samples_expired_total", **{"class": "slow"}) == 0
    assert old not in partitions(path)


async def test_without_an_age_nothing_is_dropped(store, path, retention):
    close(path, "", samples([1], NOW - 3650 * DAY))
    await newest(store, path, NOW)
    await retention()
    await retention(RetentionConfig(name="default"))
    assert len(partitions(path)) == 1


async def test_a_drop_is_on_record_and_the_tag_says_how_far_back_it_is_whole(store, path, retention):
    await newest(store, path, NOW)
    batch = samples([1, 2], NOW - 3 * DAY)
    close(path, "", batch)
    close(path, "", samples([2], NOW - 4 * DAY))
    await retention(USUAL)
    last = int(batch.source_time.max())
    assert await store.kept_since([1, 2, 3]) == {1: last + 1, 2: last + 1}
    assert await store.kept_since([3]) == {}
    entries = await store.audit()
    assert [(each.user, each.origin, each.action, each.subject) for each in entries] == [
        ("foretag", "service", "drop", "samples of class default")
    ] * 2
    assert {each.before["samples"] for each in entries} == {1400, 700}
    assert {each.before["start"] for each in entries} == {"2023-11-11T00:00:00+00:00", "2023-11-12T00:00:00+00:00"}


async def test_over_its_size_a_class_loses_its_oldest_partitions(store, path, retention):
    keys = [close(path, "", samples([1], NOW - days * DAY)) for days in (1, 2, 3, 4)]
    each = rows(path, "SELECT sum(bytes) FROM sample_partitions")[0][0] // 4
    execute(path, "UPDATE sample_partitions SET bytes = ?", [(8 * 2**20,)])
    await newest(store, path, NOW)
    await retention(RetentionConfig(name="default", size=ByteCount(17 * 2**20)))
    assert partitions(path) == keys[:2]
    assert each > 0


async def test_what_an_open_gap_overlaps_waits_for_its_end(store, path, retention):
    await newest(store, path, NOW)
    start = NOW - 5 * DAY
    held, later = close(path, "", samples([1, 2], start)), close(path, "", samples([1, 2], start + DAY))
    gap = Gap("g", "plant", None, from_micros(start), None, GapCause.SERVER_DOWN, from_micros(start))
    until = from_micros(start + 1)
    for each in (gap, replace(gap, tag="T2", start=until), replace(gap, start=from_micros(start - HOUR), end=until)):
        assert partitions(path) == [held, later], "a gap that lasts overlaps whatever is newer"
        await store.write([Delivery(SampleBatch.empty(), gaps=(each,))])
        await retention(USUAL)
    assert partitions(path) == [held]
    assert retention.diagnostics.value("partitions_held", **{"class": "default"}) == 1
    before = replace(gap, start=from_micros(start - HOUR), end=from_micros(start))
    harmless = (replace(gap, source="other"), replace(gap, source="other", tag="S1"), before)
    others = tuple(replace(each, id=f"h{n}") for n, each in enumerate(harmless))
    await store.write([Delivery(SampleBatch.empty(), gaps=(replace(gap, state=GapState.UNFILLABLE), *others))])
    await retention(USUAL)
    assert partitions(path) == []
    assert retention.diagnostics.value("partitions_held", **{"class": "default"}) == 0


async def test_a_tag_that_the_server_refuses_for_ever_holds_nothing_of_the_others(store, path, retention):
    await newest(store, path, NOW)
    start = NOW - 5 * DAY
    (before, *_) = [close(path, "", samples(tags, start + n * DAY)) for n, tags in enumerate(([1, 2], [1], [1]))]
    refused = Gap("g", "plant", "T2", from_micros(start), None, GapCause.BAD_ITEM, from_micros(start))
    await store.write([Delivery(SampleBatch.empty(), gaps=(refused,))])
    await retention(USUAL)
    assert partitions(path) == [before]
    assert retention.diagnostics.value("partitions_held", **{"class": "default"}) == 1


async def test_a_gap_of_a_tag_that_has_changed_its_class_holds_what_it_left_behind(store, path, retention):
    await newest(store, path, NOW)
    start = NOW - 5 * DAY
    close(path, "", samples([1, 3], start))  # S1 was of the default class then
    gap = Gap("g", "other", "S1", from_micros(start), None, GapCause.SERVER_DOWN, from_micros(start))
    await store.write([Delivery(SampleBatch.empty(), gaps=(gap,))])
    await retention(USUAL)
    assert len(partitions(path)) == 1


async def test_texts_corrections_and_remarks_go_with_their_samples_and_no_others(store, path, retention):
    await newest(store, path, NOW)
    start, young = NOW - 5 * DAY, NOW - DAY
    close(path, "", samples([1], start))
    close(path, "", samples([1], young))
    close(path, "slow", samples([3], start))
    late = start + 1  # of the dropped stretch, and not closed yet
    hot = SampleBatch.of([1, 3], [late, late], [1.0, 2.0], 0, 5, 5)
    await store.write([Delivery(replace(hot, text=np.array(["hot", "hot too"], np.object_)))])
    keys = [(start, 1), (young, 1), (start, 3)]
    execute(path, "INSERT INTO sample_texts VALUES (?, ?, 0, 'closed')", keys)
    execute(
        path,
        "INSERT INTO modified_samples VALUES (?2, ?1, 0, 7, 1.0, 0, 0, 0, NULL, 'replaced', 'me', 'typo')",
        keys,
    )
    names = {1: "T1", 3: "S1"}
    remarks = [
        Remark(TAGS[tag - 1].source, names[tag], RemarkKind.TIME_WENT_BACK, from_micros(time), "") for time, tag in keys
    ]
    await store.write([Delivery(SampleBatch.empty(), remarks=tuple(remarks))])
    await retention(USUAL)
    texts = rows(path, "SELECT source_time, tag_id, text FROM sample_texts ORDER BY 1, 2")
    assert texts == [(start, 3, "closed"), (late, 1, "hot"), (late, 3, "hot too"), (young, 1, "closed")]
    assert rows(path, "SELECT source_time, tag_id FROM modified_samples ORDER BY 1") == [(start, 3), (young, 1)]
    assert [remark.tag for remark in await store.remarks()] == ["T1", "S1"]


async def test_a_stamp_of_9999_ages_nothing_and_one_of_1601_goes_when_it_is_closed(store, path, retention):
    far, ancient = 253_402_300_799_000_000, -11_644_473_600_000_000
    await newest(store, path, far, NOW)
    kept = [close(path, "", samples([1], NOW - DAY)), close(path, "", samples([1], far, count=2))]
    close(path, "", samples([1], ancient, count=3))
    await store.write([Delivery(SampleBatch.of([2], [ancient + 1], 5.0, 0, 5, 5))])
    await retention(USUAL)
    assert partitions(path) == kept
    assert rows(path, "SELECT source_time FROM samples") == [(ancient + 1,)], "what is hot is not rolled up: it stays"
    (entry,) = await store.audit()
    assert entry.before["start"] == "1601-01-01T00:00:00+00:00"


async def test_a_clock_of_ours_in_the_next_century_drops_nothing(store, path, retention):
    await newest(store, path, NOW)
    close(path, "", samples([1], NOW - DAY))
    for clock in (NOW + 36_500 * DAY, NOW - 36_500 * DAY):
        retention.now = clock
        await retention(USUAL)
    assert len(partitions(path)) == 1


async def test_a_pass_that_was_cut_off_is_ended_by_the_next(store, path, retention, monkeypatch):
    await newest(store, path, NOW)
    close(path, "", samples([1, 2], NOW - 5 * DAY))
    execute(path, "INSERT OR REPLACE INTO bookkeeping VALUES ('samples', ?)", [(1401,)])
    monkeypatch.setattr("plugin.historian.keeping.dropping._CHUNKS", 1)
    cut = Dropping(store._file, [USUAL], KeepConfig(), Diagnostics(), lambda: NOW)
    (partition,) = await cut._expired(USUAL, NOW)
    assert await cut._drop_chunks(partition, 0) == 1
    assert await store.kept_since([1, 2]) == {1: NOW - 5 * DAY + 699_000_001}
    assert rows(path, "SELECT DISTINCT tag_id FROM sample_chunks") == [(2,)]
    assert not await store.audit()
    await retention(USUAL)
    assert partitions(path) == []
    assert rows(path, "SELECT count(*) FROM sample_chunks") == [(0,)]
    assert rows(path, "SELECT value FROM bookkeeping WHERE name = 'samples'") == [(1,)]
    assert len(await store.audit()) == 1


async def test_what_comes_into_a_partition_while_it_is_dropped_goes_too(store, path, retention, monkeypatch):
    """A closing beside it puts a late sample's chunk where all was dropped already."""
    await newest(store, path, NOW)
    close(path, "", samples([1, 2], NOW - 5 * DAY))
    emptied = Dropping._drop_texts

    async def late(dropping: Dropping, after: Micros, end: Micros) -> Micros | None:
        monkeypatch.setattr(Dropping, "_drop_texts", emptied)
        close(path, "", samples([1], NOW - 5 * DAY + 7, count=5))
        execute(path, "UPDATE sample_chunks SET partition_id = 1", [()])
        execute(path, "UPDATE sample_partitions SET samples = 1405 WHERE id = 1", [()])
        execute(path, "DELETE FROM sample_partitions WHERE id > 1", [()])
        return await emptied(dropping, after, end)

    monkeypatch.setattr(Dropping, "_drop_texts", late)
    await retention(USUAL)
    assert rows(path, "SELECT count(*) FROM sample_chunks") == [(0,)]
    assert retention.diagnostics.value("samples_expired_total", **{"class": "default"}) == 1405


def roll_ups(path: Path, table: str, tags: Sequence[int], starts: Sequence[Micros]) -> None:
    row = "(?, ?, 1, 1, 1.0, 1.0, 1.0, 1, ?2, 1.0, ?2, 1.0, 0, 1.0, 1, 1)"
    keys = [(tag, start) for tag in tags for start in starts]
    execute(path, f"INSERT INTO {table} VALUES {row}", keys)  # noqa: S608
    execute(path, "INSERT OR REPLACE INTO bookkeeping VALUES ('closed_until', ?)", [(NOW,)])


async def test_roll_ups_have_ages_of_their_own(store, path, retention):
    await newest(store, path, NOW)
    minutes = [NOW - 40 * DAY + 60_000_000 * n for n in range(3000)]
    hours = [NOW - 40 * DAY + HOUR * n for n in range(0, 960, 24)]
    roll_ups(path, "rollup_minutes", [1, 2, 3], minutes)
    roll_ups(path, "rollup_hours", [1, 2], hours)
    roll_ups(path, "rollup_days", [1, 2], hours)
    await retention(RetentionConfig(name="default", minutes=timedelta(days=39), hours=timedelta(days=20, hours=5)))
    left = rows(path, "SELECT tag_id, count(*), min(start_time) FROM rollup_minutes GROUP BY tag_id")
    assert left == [(1, 1560, NOW - 39 * DAY), (2, 1560, NOW - 39 * DAY), (3, 3000, minutes[0])]
    assert rows(path, "SELECT min(start_time) FROM rollup_hours") == [(NOW - 21 * DAY,)], "by whole days"
    assert rows(path, "SELECT count(*) FROM rollup_days") == [(80,)]
    since = rows(path, "SELECT tag_id, what, since FROM kept_since ORDER BY what, tag_id")
    assert since == [
        (1, "hours", NOW - 21 * DAY), (2, "hours", NOW - 21 * DAY),
        (1, "minutes", NOW - 39 * DAY), (2, "minutes", NOW - 39 * DAY),
    ]  # fmt: skip
    subjects = {each.subject: each.before["rows"] for each in await store.audit()}
    assert subjects == {"roll-ups by minute of class default": 2880, "roll-ups by hour of class default": 38}


async def test_results_and_events_go_by_their_own_ages(store, path, retention, monkeypatch):
    monkeypatch.setattr("plugin.historian.keeping.dropping._ROWS", 3)
    await newest(store, path, NOW)
    days = range(1, 21)
    execute(path, "INSERT INTO runs VALUES (1, 'm', 'score', 1, 1, 1, 'done', 1, 1, '', '{}', '{}')", [()])
    execute(path, "INSERT INTO output_tags VALUES (1, 'm', 'a', 'rul', 'h', 0, 1, '', 'lifetime', '[]')", [()])
    stamps = [(NOW - day * DAY,) for day in days for _ in range(1)]
    execute(path, "INSERT INTO predictions VALUES (?1, 1, ?1, 1, ?1, 1.0, NULL, NULL, 0, 1.0, 1)", stamps)
    execute(path, "INSERT INTO flags VALUES (?, 'm', 'a', 1, 1, 0, NULL, NULL, 0)", stamps)
    await retention(keep=KeepConfig(predictions=timedelta(days=10), flags=timedelta(days=15)))
    assert rows(path, "SELECT count(*) FROM predictions") == [(10,)]
    assert rows(path, "SELECT count(*) FROM flags") == [(15,)]
    assert rows(path, "SELECT count(*) FROM runs") == [(1,)]
    assert retention.diagnostics.value("rows_expired_total", table="predictions") == 10
    assert {each.subject: each.before["rows"] for each in await store.audit()} == {"predictions": 10, "flags": 5}


async def test_the_log_has_a_line_a_day_at_most(store, path, caplog):
    await newest(store, path, NOW)
    moment = [NOW]
    dropping = Dropping(store._file, [USUAL], KeepConfig(), Diagnostics(), lambda: moment[0])
    with caplog.at_level("INFO", "plugin.historian.keeping.dropping"):
        for hour in range(30):
            moment[0] = NOW + hour * HOUR
            await newest(store, path, moment[0])
            close(path, "", samples([1], NOW - 3 * DAY + hour * HOUR, count=10))
            await dropping.run()
    assert [record.getMessage().split(" of class")[0] for record in caplog.records] == [
        "retention: 10 samples (0.0 MiB)", "retention: 240 samples (0.0 MiB)",
    ]  # fmt: skip


async def test_commits_go_on_while_a_big_partition_is_dropped(store, path, retention):
    await newest(store, path, NOW)
    close(path, "", samples([1, 2], NOW - 5 * DAY, count=20_000))
    written = 0
    task = asyncio.create_task(retention(USUAL))
    while not task.done():
        await store.write([Delivery(SampleBatch.of([1], [NOW + written], 5.0, 0, 5, 5))])
        written += 1
    await task
    assert written > 1
    assert partitions(path) == []


async def test_the_same_on_postgresql(migrated_postgres):
    """The statements are of either database: chunks, texts, corrections, remarks, roll-ups and results go there too."""
    store = PostgresStore(migrated_postgres.secret_url)
    async with store:
        await store.register_tags(TAGS)
        start = NOW - 5 * DAY
        async with store._server.copying() as connection:
            await connection.execute("INSERT INTO latest_samples VALUES (1, $1, 0, 1.0, 0, 0, 0)", NOW)
            await connection.execute("UPDATE bookkeeping SET value = $1 WHERE name = 'closed_until'", NOW)
            for tag, at in ((1, start), (1, NOW - DAY)):
                (chunk,) = chunks.encode(samples([tag], at, count=100), np.zeros(100, np.int16))
                partition = await connection.fetchval(
                    "INSERT INTO sample_partitions (retention, start_time, end_time, samples, left_out, bytes, closed) "
                    "VALUES ('', $1, $2, 100, 0, 999, 0) RETURNING id",
                    at, chunk.last_time + 1,
                )  # fmt: skip
                fields = ("partition_id", *chunk._fields)
                places = ", ".join(f"${n}" for n in range(1, len(fields) + 1))
                insert = f"INSERT INTO sample_chunks ({', '.join(fields)}) VALUES ({places})"  # noqa: S608
                await connection.execute(insert, partition, *chunk)
                await connection.execute("INSERT INTO sample_texts VALUES ($1, 1, 0, 'closed')", at)
                await connection.execute(
                    "INSERT INTO modified_samples VALUES (1, $1, 0, 7, 1.0, 0, 0, 0, NULL, 'replaced', 'me', '')", at
                )
                row = "(1, $1, 1, 1, 1.0, 1.0, 1.0, 1, $1, 1.0, $1, 1.0, 0, 1.0, 1, 1)"
                await connection.execute(f"INSERT INTO rollup_minutes VALUES {row}", at)  # noqa: S608
            remark = Remark("plant", "T1", RemarkKind.TIME_WENT_BACK, from_micros(start), "")
            gap = Gap("g", "plant", None, from_micros(start), None, GapCause.SERVER_DOWN, from_micros(start))
            await store.write([Delivery(SampleBatch.empty(), gaps=(gap,), remarks=(remark,))])
            retention = Retention(store._server)
            config = USUAL.model_copy(update={"minutes": timedelta(days=3)})
            await retention(config)
            assert await connection.fetchval("SELECT count(*) FROM sample_chunks") == 2, "a gap is open"
            await store.write([Delivery(SampleBatch.empty(), gaps=(replace(gap, state=GapState.FILLED),))])
            await retention(config, keep=KeepConfig(predictions=timedelta(days=1)))
            for table in ("sample_chunks", "sample_partitions", "sample_texts", "modified_samples", "rollup_minutes"):
                assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 1, table  # noqa: S608
        assert not await store.remarks()
        assert await store.kept_since([1]) == {1: start + 99_000_001}
        assert len(await store.audit()) == 2


async def test_roll_ups_wait_until_the_coarser_ones_are_made_of_them(store, path, retention):
    """Samples are closed so late here that their minutes are old when they are made."""
    batch = samples([1], NOW - 3 * DAY, 24 * 60, 60_000_000)
    await store.write([Delivery(batch)])
    short = RetentionConfig(name="default", minutes=timedelta(hours=1), hours=timedelta(hours=1))
    await newest(store, path, NOW)
    await store.close_before(NOW - 3 * DAY + 90 * 60_000_000)  # in the middle of an hour
    await retention(short)
    await store.close_before(NOW - 3 * DAY + 20 * HOUR)  # in the middle of a day
    await retention(short)
    await store.close_before(NOW - 2 * DAY)
    await retention(short)
    days = await store.roll_ups([1], NOW - 3 * DAY, NOW - 2 * DAY, level=Level.DAY)
    assert days.samples.tolist() == [24 * 60]
    assert rows(path, "SELECT count(*) FROM rollup_minutes") == [(0,)]
    assert rows(path, "SELECT count(*) FROM rollup_hours") == [(0,)]
