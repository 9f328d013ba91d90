"""What a store must do that keeps roll-ups and corrections, whether its samples are closed or not."""

from collections.abc import AsyncIterator
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plugin.domain import (
    Gap,
    GapCause,
    GapState,
    Level,
    RollUps,
    Run,
    RunKind,
    SampleBatch,
    Tag,
    UpdateType,
    from_micros,
    to_micros,
)
from plugin.errors import StoreError
from plugin.historian.memory import MemoryStore
from plugin.historian.postgres.store import PostgresStore
from plugin.historian.recent.ring import Ring
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Corrected, Delivery, Store
from tests.postgres import Database

TAGS = [Tag(f"T{n}", "plant", f"nsu=urn:plant;s=T{n}") for n in range(1, 4)]
SECOND = 1_000_000
MINUTE = 60 * SECOND
BEGIN = 1_714_521_600 * SECOND
EVER = (-(2**60), 2**60)


_SQLITE = ("sqlite", "sqlite without a ring", "sqlite, closed", "sqlite, closed without a ring")
_POSTGRES = ("postgres", "postgres, closed without a ring")


@pytest.fixture(params=[*_SQLITE, *_POSTGRES, "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        memory = MemoryStore()
        await memory.register_tags(TAGS)
        yield memory
        return
    ring = None if "without" in request.param else Ring()
    closed = "closed" in request.param
    store: SqliteStore | PostgresStore
    if request.param.startswith("postgres"):
        database: Database = request.getfixturevalue("migrated_postgres")
        store = (ClosingPostgres if closed else PostgresStore)(database.secret_url, ring=ring)
    else:
        store = (ClosingSqlite if closed else SqliteStore)(f"sqlite+aiosqlite:///{tmp_path}/historian.db", ring=ring)
    async with store as opened:
        await opened.register_tags(TAGS)
        yield opened


class Closing:
    """A store that closes what it has before it is asked or corrected, but for the last two minutes."""

    async def roll_ups(self, *args: Any, **kwargs: Any) -> Any:
        await close_most(self)
        return await super().roll_ups(*args, **kwargs)  # type: ignore[misc]

    async def correct(self, *args: Any, **kwargs: Any) -> Any:
        await close_most(self)
        return await super().correct(*args, **kwargs)  # type: ignore[misc]


async def close_most(store: Any) -> None:
    newest = (await store.summary()).newest
    if newest is not None:
        await store.close_before(newest - 2 * MINUTE)


class ClosingSqlite(Closing, SqliteStore):
    pass


class ClosingPostgres(Closing, PostgresStore):
    pass


def plant(seconds: int, every: int = 1) -> SampleBatch:
    time = BEGIN + SECOND * np.arange(0, seconds, every)
    tag = np.tile([1, 2], len(time))
    time = np.repeat(time, 2)
    value = np.random.default_rng(7).normal(size=len(time)).round(3)
    status = np.where(np.arange(len(time)) % 50 == 7, 0x80000000, 0)
    return SampleBatch.of(tag, time, value, status, time, time)


def same(left: RollUps, right: RollUps) -> None:
    for each in fields(RollUps):
        a, b = getattr(left, each.name), getattr(right, each.name)
        assert len(a) == len(b)
        assert np.allclose(a, b, rtol=1e-9, atol=1e-9, equal_nan=True), each.name


async def reference(*deliveries: Delivery) -> MemoryStore:
    memory = MemoryStore()
    await memory.register_tags(TAGS)
    await memory.write(deliveries)
    return memory


async def test_roll_ups_are_of_all_samples_late_ones_included(store: Store) -> None:
    hole = from_micros(BEGIN + 1000 * SECOND), from_micros(BEGIN + 1100 * SECOND)
    gap = Gap("g", "plant", "T1", *hole, GapCause.SEQUENCE, hole[1])
    first = plant(9000, 7)
    late = SampleBatch.of([1, 2, 3, 1], BEGIN + SECOND * np.array([3, 5001, 4000, 8999]), 9.0, 0, 1, 1)
    await store.write([Delivery(first, (gap,))])
    expected = await reference(Delivery(first, (gap,)), Delivery(late))
    await store.roll_ups([1], *EVER, level=Level.DAY)
    await store.write([Delivery(late)])
    for level in Level:
        for span in ((BEGIN, BEGIN + 9000 * SECOND), (BEGIN + 3599 * SECOND, BEGIN + 8000 * SECOND)):
            got = await store.roll_ups([3, 1, 2], *span, level=level)
            same(got, await expected.roll_ups([1, 2, 3], *span, level=level))
    assert not len(await store.roll_ups([], *EVER))


async def test_a_value_does_not_stand_again_after_a_gap_however_long_nothing_came(store: Store) -> None:
    hour, minutes = 3600 * SECOND, MINUTE * np.arange(5)
    back = BEGIN + 9 * hour + 30 * SECOND
    batches = (
        SampleBatch.of([1, 2], BEGIN + 2 * hour - 90 * SECOND, 4.0, 0, 1, 1),
        SampleBatch.of(np.repeat([1, 2, 3], 5), np.tile(back + minutes, 3), 6.0, 0, 1, 1),
    )
    hole = from_micros(BEGIN + 3 * hour), from_micros(BEGIN + 6 * hour)
    gaps = (
        Gap("g", "plant", "T1", *hole, GapCause.SEQUENCE, hole[1]),
        Gap("filled", "plant", "T2", *hole, GapCause.SEQUENCE, hole[1], GapState.FILLED),
        Gap("of no time", "plant", "T2", hole[0], hole[0], GapCause.SEQUENCE, hole[1]),
        Gap("of others", "mill", None, *hole, GapCause.SEQUENCE, hole[1]),
    )
    for batch in batches:
        await store.write([Delivery(batch, gaps)])
        await store.roll_ups([1, 2], BEGIN, back + hour, level=Level.DAY)
    for level in (Level.MINUTE, Level.HOUR):
        found = await store.roll_ups([1, 2], back, back + 1, level=level)
        width = level.width
        assert found.observed.tolist() == [width - 30 * SECOND, width]
        assert found.weighted_mean.tolist() == pytest.approx([6.0, (6 * width - 2 * 30 * SECOND) / width])


async def test_the_level_follows_from_how_many_points_are_wanted(store: Store) -> None:
    await store.write([Delivery(plant(9000, 7))])
    span = BEGIN, BEGIN + 2 * 3600 * SECOND
    assert len(await store.roll_ups([1], *span, points=120)) == 120
    assert len(await store.roll_ups([1], *span, points=119)) == 2
    assert len(await store.roll_ups([1], *span, points=1)) == 1


async def test_a_correction_takes_the_place_of_a_value_which_is_kept(store: Store) -> None:
    await store.write([Delivery(plant(600))])
    stamp = BEGIN + 100 * SECOND
    before = await store.read_samples([1], stamp, stamp + 1)
    better = SampleBatch.of([1], stamp, 77.5, 0x40000000, stamp + 1, 0)
    assert await store.correct(better, user="ada", reason="probe was dirty") == Corrected(1, 0, 0)
    now = await store.read_samples([1], stamp, stamp + 1)
    assert (now.value.tolist(), now.status.tolist()) == ([77.5], [0x40000000])
    assert now.received_time[0] > before.received_time[0]
    kept = await store.modified([1, 2], *EVER)
    assert (kept.samples.value.tolist(), kept.user, kept.reason) == (
        before.value.tolist(),
        ("ada",),
        ("probe was dirty",),
    )
    assert (kept.update, kept.modified.tolist()) == ((UpdateType.REPLACED,), now.received_time.tolist())
    assert kept.samples.received_time.tolist() == before.received_time.tolist()
    assert await store.correct(better, user="ada", reason="again") == Corrected(0, 0, 1)
    assert len((await store.modified([1], *EVER)).user) == 1
    assert (await store.counts())["samples"] == 1200
    assert not len((await store.modified([1], stamp + 1, EVER[1])).user)


async def test_who_asks_for_what_was_known_before_a_correction_gets_that(store: Store) -> None:
    await store.write([Delivery(plant(600))])
    stamp, span = BEGIN + 100 * SECOND, (BEGIN + 60 * SECOND, BEGIN + 180 * SECOND)
    before = await store.read_samples([1], *span)
    begun = await store.write_run(Run(0, "rul", RunKind.SCORE, from_micros(BEGIN), started=from_micros(BEGIN + 2**50)))
    assert begun.started is not None
    for value in (1.0, 2.0):
        await store.correct(SampleBatch.of([1], stamp, value, 0, stamp + 9, 0), user="ada", reason="")
    then = int(before.received_time.max())
    for bounds in ({"received_by": then}, {"known_by": stamp}, {"known_by": stamp, "received_by": 2**60}):
        got = await store.read_samples([1], stamp, stamp + 1, **bounds)
        assert got.value.tolist() == before.value[before.source_time == stamp].tolist()
    first = int((await store.modified([1], *EVER)).modified[0])
    assert (await store.read_samples([1], stamp, stamp + 1, received_by=first)).value.tolist() == [1.0]
    assert (await store.read_samples([1], stamp, stamp + 1)).value.tolist() == [2.0]
    assert len(await store.read_samples([1], *span)) == len(before)


async def test_a_correction_of_what_is_not_there_is_an_insertion_and_says_so(store: Store) -> None:
    await store.write([Delivery(plant(600))])
    stamps = BEGIN + SECOND * np.array([50, 50, 51]) + np.array([0, 7, 0])
    fresh = SampleBatch.of([1, 1, 3], stamps, [5.0, 6.0, 7.0], 0, stamps, 0)
    assert await store.correct(fresh, user="ada", reason="missing") == Corrected(1, 2, 0)
    assert (await store.read_samples([3], *EVER)).value.tolist() == [7.0]
    assert (await store.counts())["samples"] == 1202
    with pytest.raises(StoreError, match="9"):
        await store.correct(replace(fresh, tag=np.array([1, 1, 9], np.int32)), user="ada", reason="")


async def test_a_correction_is_in_the_audit_log_with_who_why_and_what(store: Store) -> None:
    await store.write([Delivery(plant(600))])
    stamps = BEGIN + SECOND * np.array([50, 70, 60])
    known = await store.read_samples([2], BEGIN + 60 * SECOND, BEGIN + 61 * SECOND)
    right = SampleBatch.of([1, 3, 2], stamps, [5.0, 7.0, known.value[0]], [0, 0, known.status[0]], stamps, 0)
    assert await store.correct(right, user="ada", reason="probe was dirty", origin="page") == Corrected(1, 1, 1)
    assert await store.correct(right, user="ada", reason="again") == Corrected(0, 0, 3)
    with pytest.raises(StoreError):
        await store.correct(replace(right, tag=np.array([1, 3, 9], np.int32)), user="ada", reason="")
    (entry,) = await store.audit(action="correct")
    assert (entry.user, entry.origin, entry.subject, entry.before) == ("ada", "page", "samples of 2 tags", {})
    assert entry.after == {
        "replaced": 1, "inserted": 1, "first": "2024-05-01T00:00:50+00:00", "last": "2024-05-01T00:01:10+00:00",
        "reason": "probe was dirty", "tags": ["T1", "T3"],
    }  # fmt: skip
    assert to_micros(entry.time) == (await store.modified([1], *EVER)).modified[0]
    await store.correct(SampleBatch.of([1], 2**61, 1.0, 0, 0, 0), user="ben", reason="no calendar knows it")
    (newest, _) = await store.audit()
    assert (newest.subject, newest.origin, newest.after["first"][:4]) == ("samples of T1", "command", "9999")


async def test_texts_are_corrected_too(store: Store) -> None:
    await store.register_tags(TAGS)
    words = SampleBatch.of([3, 3], [BEGIN, BEGIN + 600 * SECOND], np.nan, 0, 1, 1)
    await store.write([Delivery(replace(words, text=np.array(["off", "on"], np.object_)))])
    right = SampleBatch.of([3], BEGIN, np.nan, 0, 1, 1)
    done = await store.correct(replace(right, text=np.array(["idle"], np.object_)), user="ada", reason="")
    assert done == Corrected(1, 0, 0)
    text = (await store.read_samples([3], *EVER)).text
    assert text is not None
    assert text.tolist() == ["idle", "on"]
    before = (await store.modified([3], *EVER)).samples.text
    assert before is not None
    assert before.tolist() == ["off"]
    assert await store.correct(right, user="ada", reason="") == Corrected(1, 0, 0)
    text = (await store.read_samples([3], *EVER)).text
    assert text is not None
    assert text.tolist() == [None, "on"]


async def test_the_newest_sample_is_corrected_too(store: Store) -> None:
    await store.write([Delivery(plant(600))])
    (stamp,) = (await store.latest([1])).source_time.tolist()
    await store.correct(SampleBatch.of([1], stamp, -4.0, 0, stamp, 0), user="ada", reason="")
    assert (await store.latest([1])).value.tolist() == [-4.0]


async def test_roll_ups_follow_a_correction(store: Store) -> None:
    samples = plant(3 * 3600, 30)
    await store.write([Delivery(samples)])
    stamps = BEGIN + SECOND * np.array([90, 3600, 10_000 // 30 * 30])
    better = SampleBatch.of([1, 1, 2], stamps, 500.0, 0, stamps, 0)
    await store.correct(better, user="ada", reason="")
    row = {(tag, time) for tag, time in zip(better.tag.tolist(), stamps.tolist(), strict=True)}
    hit = [key in row for key in zip(samples.tag.tolist(), samples.source_time.tolist(), strict=True)]
    value, status = np.where(hit, 500.0, samples.value), np.where(hit, 0, samples.status)
    expected = await reference(
        Delivery(SampleBatch.of(samples.tag, samples.source_time, value, status, samples.server_time, 1))
    )
    for level in Level:
        for _ in range(2):
            got = await store.roll_ups([1, 2], BEGIN, BEGIN + 3 * 3600 * SECOND, level=level)
            same(got, await expected.roll_ups([1, 2], BEGIN, BEGIN + 3 * 3600 * SECOND, level=level))


def test_the_finest_level() -> None:
    day = timedelta(days=1) // timedelta(microseconds=1)
    assert [Level.finest(day, points) for points in (1440, 1439, 24, 23, 1)] == [
        Level.MINUTE,
        Level.HOUR,
        Level.HOUR,
        Level.DAY,
        Level.DAY,
    ]
    assert Level.finest(400 * day, 10) is Level.DAY
