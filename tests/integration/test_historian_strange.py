"""What plants send that nobody expects, through Ingest into SQLite: stored, closed, rolled up, dropped by retention."""

import asyncio
import logging
import math
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plugin.diagnostics import Diagnostics
from plugin.domain import SampleBatch, Tag
from plugin.errors import StoreUnavailable
from plugin.historian.config import HistorianConfig
from plugin.historian.ingest import Ingest
from plugin.historian.keeping.dropping import Dropping
from plugin.historian.keeping.retention import KeepConfig, RetentionConfig
from plugin.historian.keeping.upkeep import Upkeep
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery, Health, HistoryProgress

SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
NOW = 1_700_006_400 * SECOND  # midnight
ANCIENT, FAR = -11_644_473_600 * SECOND, 253_402_300_799 * SECOND
EVER = (-(2**63), 2**63 - 1)
TAGS = [Tag(f"T{n}", "plant", f"i={n}") for n in range(1, 8)]
ALL = range(1, 8)


class Plant:
    """Delivers what it is given, and ends."""

    name = "plant"

    def __init__(self, *batches: SampleBatch) -> None:
        self._batches = batches

    async def deliveries(self) -> AsyncIterator[Delivery]:
        for batch in self._batches:
            yield Delivery(batch)

    def history_progress(self) -> HistoryProgress:
        return HistoryProgress("plant", 0, 0, 0, True)

    def health(self) -> Health:
        return Health("running", connected=True, away_since=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "historian.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(f"sqlite+aiosqlite:///{path}") as store:
        await store.register_tags(TAGS)
        yield store


async def ingest(store: SqliteStore, *batches: SampleBatch) -> Diagnostics:
    diagnostics = Diagnostics()
    async with asyncio.timeout(30):
        await Ingest([Plant(*batches)], store, diagnostics).run()
    return diagnostics


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def batch(tag: int, times: Any, values: Any, status: Any = 0) -> SampleBatch:
    times = np.asarray(times, np.int64)
    return SampleBatch.of(np.full(len(times), tag), times, values, status, times, NOW)


def strange() -> list[SampleBatch]:
    """By tag: 1 numbers that are none, 2 stamps of either end, 3 a clock that jumps, 4 all at one stamp, 5 extremes."""
    steady = NOW - 5 * DAY + SECOND * np.arange(2_000)
    rng = np.random.default_rng(7)
    odd = np.array([math.nan, math.inf, -math.inf, 5e-324, -1.8e308 * 0.999, 1.797e308, 0.1, 2.0**53 + 2])
    jumps = steady + rng.choice([0, -HOUR, HOUR, 10 * DAY], len(steady)) * (rng.random(len(steady)) < 0.1)
    ends = [ANCIENT, ANCIENT + 1, NOW - 5 * DAY, NOW - 1, FAR, FAR + SECOND - 1]
    return [
        batch(1, steady, odd[rng.integers(0, len(odd), len(steady))], rng.choice([0, 0x80000000, 0x40920000], 2_000)),
        batch(2, ends, np.arange(6.0)),
        batch(3, jumps, np.arange(2_000.0)),
        batch(4, np.full(300, NOW - 5 * DAY), np.arange(300.0)),
        batch(5, [NOW - 5 * DAY + n for n in range(4)], [-(2.0**63), 2.0**63, 2.0**64, -0.0], 0xFFFFFFFF),
        batch(6, steady, np.ones(2_000)),
        batch(7, NOW - DAY + SECOND * np.arange(100), np.ones(100)),  # tells what time it is
    ]


def same(left: SampleBatch, right: SampleBatch) -> bool:
    columns = zip(left.columns(), right.columns(), strict=True)
    return all(np.array_equal(a, b, equal_nan=a.dtype == np.float64) for a, b in columns)


async def test_all_of_it_is_stored_once_and_comes_back_exactly(store, path):
    sent = strange()
    diagnostics = await ingest(store, *sent, *sent)
    whole = SampleBatch.concatenate(sent)
    stored = await store.read_samples(ALL, *EVER)
    assert diagnostics.total("samples_dropped_total") == 0
    assert diagnostics.value("samples_stored_total") == len(stored)
    assert diagnostics.value("samples_duplicate_total") == 2 * len(whole) - len(stored)
    keys = {(int(t), int(s)) for t, s in zip(whole.tag, whole.source_time, strict=True)}
    assert {(int(t), int(s)) for t, s in zip(stored.tag, stored.source_time, strict=True)} == keys
    assert int((stored.tag == 4).sum()) == 300, "different values with one stamp"

    closed = await store.close_before(NOW - 2 * DAY)
    assert closed.samples > 6_000
    assert same(await store.read_samples(ALL, *EVER), stored)
    await store.close_before(FAR + DAY)
    assert rows(path, "SELECT count(*) FROM samples") == [(0,)]
    assert same(await store.read_samples(ALL, *EVER), stored)
    again = await ingest(store, *sent)
    assert again.value("samples_stored_total") == 0
    assert (await store.counts())["samples"] == len(stored)
    counted = rows(path, "SELECT tag_id, sum(samples) FROM rollup_minutes GROUP BY tag_id")
    assert counted == [(tag, int((stored.tag == tag).sum())) for tag in ALL]


async def test_retention_drops_what_is_old_and_not_the_wrong_thing(store, path):
    await ingest(store, *strange())
    retention = Dropping(
        store._file,
        [RetentionConfig(name="default", samples=timedelta(days=3))],
        KeepConfig(),
        Diagnostics(),
        lambda: NOW,
    )
    before = await store.read_samples(ALL, *EVER)
    await retention.run()
    assert same(await store.read_samples(ALL, *EVER), before), "nothing is rolled up yet"
    await store.close_before(NOW - 2 * DAY)
    counted = rows(path, "SELECT tag_id, start_time, samples FROM rollup_minutes")
    await retention.run()
    left = await store.read_samples(ALL, *EVER)
    assert same(left, before.take(before.source_time >= NOW - 3 * DAY))
    assert {ANCIENT, NOW - 1, FAR} & set(left.source_time.tolist()) == {NOW - 1, FAR}
    assert rows(path, "SELECT tag_id, start_time, samples FROM rollup_minutes") == counted, "the roll-ups stay"
    assert (await store.counts())["samples"] == len(left)
    told = [entry.before["start"] for entry in await store.audit()]
    assert min(told).startswith("1601-01-01")
    since = await store.kept_since(ALL)
    assert since[6] == NOW - 5 * DAY + 1_999 * SECOND + 1
    assert 7 not in since


async def test_late_samples_of_a_time_that_was_dropped_change_no_roll_up_that_is_of_more(store, path):
    """Samples are gone after 3 days, minutes after 4, hours never: a late one does not make an hour of one sample."""
    hour = NOW - 5 * DAY
    await ingest(store, batch(6, hour + SECOND * np.arange(3_600), np.ones(3_600)), batch(7, [NOW], [1.0]))
    await store.close_before(NOW - 2 * DAY)
    classes = [RetentionConfig(name="default", samples=timedelta(days=3), minutes=timedelta(days=4))]
    retention = Dropping(store._file, classes, KeepConfig(), Diagnostics(), lambda: NOW)
    await retention.run()
    query = "SELECT samples, mean FROM rollup_hours WHERE tag_id = 6"
    assert rows(path, query) == [(3_600, 1.0)]
    assert rows(path, "SELECT count(*) FROM rollup_minutes WHERE tag_id = 6") == [(0,)]
    await ingest(store, batch(6, [hour + 7, hour + DAY], [5.0, 5.0]))
    await store.close_before(NOW - 2 * DAY)
    assert rows(path, f"{query} ORDER BY start_time") == [(3_600, 1.0), (1, 5.0)], "what was never there is rolled up"
    days = rows(path, "SELECT samples FROM rollup_days WHERE tag_id = 6 ORDER BY start_time")
    assert days == [(3_600,), (1,)]
    await retention.run()
    assert not len(await store.read_samples([6], *EVER))


async def test_a_tag_is_in_another_class_with_what_is_closed_from_then_on(store, path):
    await ingest(store, batch(6, [NOW - 6 * DAY], [1.0]), batch(7, [NOW], [1.0]))
    await store.close_before(NOW - DAY)
    await store.register_tags([*TAGS[:5], replace(TAGS[5], retention="slow"), TAGS[6]])
    await ingest(store, batch(6, [NOW - 5 * DAY], [1.0]))
    await store.close_before(NOW - DAY)
    assert rows(path, "SELECT retention FROM sample_partitions ORDER BY start_time") == [("",), ("slow",)]
    config = HistorianConfig(retention=(RetentionConfig(name="default", samples=timedelta(days=3)),))
    (chore,) = [chore for chore in store.chores(config) if chore.name == "retention"]
    before = await store.read_samples([6], *EVER)
    await chore.do()  # by our own clock, which is later: the plant's newest stamp counts
    assert same(await store.read_samples([6], *EVER), before.take(slice(1, None)))


async def test_closing_without_room_loses_nothing_and_goes_on_when_there_is(path, caplog):
    """Roll-ups of slow tags take more room than their samples did."""
    url, config = f"sqlite+aiosqlite:///{path}", HistorianConfig()
    slow = [batch(tag, NOW - 5 * DAY + 60 * SECOND * np.arange(2_000), np.arange(2_000.0)) for tag in ALL]
    async with SqliteStore(url) as store:
        await store.register_tags(TAGS)
        await ingest(store, *slow, batch(7, [NOW], [1.0]))
        before = await store.read_samples(ALL, *EVER)
    pages = rows(path, "PRAGMA page_count")[0][0]
    diagnostics = Diagnostics()
    async with SqliteStore(url, diagnostics, pragmas={"max_page_count": pages + 5}) as store:
        with pytest.raises(StoreUnavailable, match="full"):
            await store.close_before(NOW - DAY)
        assert same(await store.read_samples(ALL, *EVER), before)
        with caplog.at_level(logging.INFO), suppress(asyncio.CancelledError):
            upkeep = asyncio.create_task(Upkeep(store.chores(config), diagnostics).run())
            async with asyncio.timeout(20):
                while not diagnostics.total("chores_failed_total"):
                    await asyncio.sleep(0.01)
            upkeep.cancel()
            await upkeep
        assert "closing partitions failed, to be tried again" in caplog.text
        assert same(await store.read_samples(ALL, *EVER), before)
    async with SqliteStore(url) as store:
        await store.close_before(NOW - DAY)
        assert same(await store.read_samples(ALL, *EVER), before)
        assert (await store.counts())["samples"] == len(before)


MANY = 33_000
"""Values of one stamp: more than 16 bits can number."""


async def test_a_clock_that_stands_still_for_hours_stops_nobody(store, path):
    """Its values all carry one stamp, and each is another."""
    stamp = NOW - 5 * DAY
    with closing(sqlite3.connect(path)) as database, database:
        numbered = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        database.execute(f"INSERT INTO samples {numbered} SELECT ?, 4, i, i, 0, 0, 0 FROM n", (MANY - 1, stamp))  # noqa: S608
    diagnostics = await ingest(store, batch(4, np.full(3, stamp), [0.5, 1.5, 2.5]), batch(7, [NOW], [1.0]))
    assert diagnostics.total("samples_dropped_total") == 0
    stored = await store.read_samples([4], *EVER)
    assert stored.value.tolist() == [*map(float, range(MANY)), 0.5, 1.5, 2.5]
    await store.close_before(NOW - DAY)
    assert rows(path, "SELECT count(*) FROM samples WHERE tag_id = 4") == [(0,)]
    assert same(await store.read_samples([4], *EVER), stored)
    assert rows(path, "SELECT max(ordinal), count(DISTINCT ordinal) FROM v_samples WHERE tag = 'T4'") == [
        (MANY + 2, MANY + 3)
    ]
    await ingest(store, batch(4, np.full(2, stamp), [0.5, 3.5]))
    assert (await store.latest([4])).value.tolist() == [3.5]
    assert len(await store.read_samples([4], *EVER)) == MANY + 4


async def test_a_stamp_of_the_far_future_makes_nothing_late(store, path):
    """What is late is put into the table of the newest with its commit, and not every few seconds."""
    await ingest(store, batch(2, [FAR], [1.0]))
    await ingest(store, batch(1, [NOW], [1.0]))
    ((since,),) = rows(path, "SELECT value FROM bookkeeping WHERE name = 'latest_since'")
    assert since <= time.time_ns() // 1000
    await ingest(store, batch(1, [NOW + SECOND], [2.0]), batch(2, [FAR], [3.0]))
    assert (await store.latest([1, 2])).value.tolist() == [2.0, 3.0]
