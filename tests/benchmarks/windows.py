"""What is read of the historian: windows for models, newest values, and what a closed sample costs.

1,000 tags with a sample a second, for an hour: the window is 1,000 tags by 3,600 cells in float32, from the ring that
scoring reads, and from SQL as a restart or a backtest reads it. The peer is plain ``sqlite3``: the same rows, keyed by
(time, tag), fetched and put into an array.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import numpy as np

from plugin.domain import Level, Policies, RollUps, SampleBatch, Tag, Window
from plugin.historian.config import HistorianConfig
from plugin.historian.keeping.retention import RetentionConfig
from plugin.historian.recent.ring import Ring
from plugin.historian.sqlite.rollups import select_roll_ups, upsert_roll_ups
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery
from tests.benchmarks import _plain
from tests.benchmarks.harness import Better, Goal, Peer, Row, Spread, repeat

TAGS, CELLS = 1_000, 3_600
WINDOW = Window(tuple(range(1, TAGS + 1)), _plain.BEGIN, _plain.SECOND, CELLS, Policies.of(TAGS, 60 * _plain.SECOND))
_END = WINDOW.end
_MANY = 10_000
_HOUR = Level.HOUR.width
_PART = 50
"""Seconds of all tags in one transaction."""


async def measure(quick: bool) -> Sequence[Row]:
    """Each figure several times, on one database."""
    times = 3 if quick else 7
    rows = []
    with tempfile.TemporaryDirectory(prefix="foretag-benchmark-") as name:
        folder = Path(name)
        async with _filled(folder) as store:
            rows += await _windows(store, folder, times)
            rows += await _closed(store, folder, times)
        rows += await _newest(folder, times)
        rows += await _year(folder, times)
    return rows


# --- windows -----------------------------------------------------------------------------------------------------


async def _windows(store: SqliteStore, folder: Path, times: int) -> list[Row]:
    await _read(store)  # the first time each sample is looked at
    copied = await _milliseconds(lambda: _read(store), times)
    plainly = await _milliseconds(lambda: asyncio.to_thread(_fetched, folder / "plain.db"), times)
    middle = _plain.BEGIN + CELLS // 2 * _plain.SECOND
    await store.write([Delivery(SampleBatch.of(WINDOW.tags, middle + 1, 1.0, 0, middle, middle))])
    computed = await _milliseconds(lambda: _read(store), times)
    async with SqliteStore(_url(folder, "historian.db")) as beside:
        hot = await _milliseconds(lambda: _read(beside), times)
    what, peer = "1,000 tags × 3,600 cells", Peer("sqlite3", plainly)
    return [
        Row(f"{what} from the ring, a sample in each cell", copied, "ms", peer=peer, goal=Goal(10)),
        Row(f"{what} from the ring, every tag computed", computed, "ms", peer=peer),
        Row(f"{what} from SQL, not closed yet", hot, "ms", peer=peer, goal=Goal(400)),
    ]


async def _read(store: SqliteStore) -> None:
    grid = await store.grid(WINDOW, received_by=_END + CELLS * _plain.SECOND)
    assert grid.good.all()


def _fetched(path: Path) -> None:
    with _plain.opened(path) as database:
        query = "SELECT tag, ts, value FROM plain WHERE ts >= ? AND ts < ? AND status = 0"
        end = _plain.BEGIN + CELLS * _plain.SECOND
        found = np.array(database.execute(query, (_plain.BEGIN, end)).fetchall())
    values = np.full((TAGS, CELLS), np.nan, np.float32)
    values[found[:, 0].astype(int) - 1, ((found[:, 1] - _plain.BEGIN) // _plain.SECOND).astype(int)] = found[:, 2]
    assert np.isfinite(values).all()


async def _milliseconds(work: Callable[[], Awaitable[None]], times: int) -> Spread:
    async def once() -> float:
        begin = time.perf_counter()
        await work()
        return 1000 * (time.perf_counter() - begin)

    return await repeat(once, times)


@asynccontextmanager
async def _filled(folder: Path) -> AsyncIterator[SqliteStore]:
    """Both databases, and the ring."""
    with _plain.table(folder / "plain.db", "ts, tag") as plain:
        async with SqliteStore(_url(folder, "historian.db"), ring=Ring(2 * CELLS)) as store:
            await store.register_tags(_tags(TAGS))
            for first in range(0, CELLS, _PART):
                batch = _plain.ticks(TAGS, first, _PART)
                await store.write([Delivery(batch)])
                _plain.insert(plain, batch)
            yield store


def _url(folder: Path, name: str) -> str:
    return f"sqlite+aiosqlite:///{folder / name}"


def _tags(count: int) -> list[Tag]:
    return [Tag(f"t{n}", "plant", f"nsu=urn:plant;s=t{n}") for n in range(1, count + 1)]


# --- newest ------------------------------------------------------------------------------------------------------


async def _newest(folder: Path, times: int) -> list[Row]:
    """From SQL, as a command beside the service reads them."""
    wanted = list(range(1, _MANY + 1))
    async with SqliteStore(_url(folder, "many.db")) as store:
        await store.register_tags(_tags(_MANY))
        for first in range(0, 100, 5):
            await store.write([Delivery(_plain.ticks(_MANY, first, 5))])
        await asyncio.sleep(2.1)  # the table of the newest is written every two seconds
        for first in (100, 101):
            await store.write([Delivery(_plain.ticks(_MANY, first, 1))])
    async with SqliteStore(_url(folder, "many.db")) as store:

        async def read() -> None:
            assert len(await store.latest(wanted)) == _MANY

        found = await _milliseconds(read, times)
    return [Row("newest sample of 10,000 tags from SQL", found, "ms", goal=Goal(50))]


# --- closed ------------------------------------------------------------------------------------------------------


async def _closed(store: SqliteStore, folder: Path, times: int) -> list[Row]:
    """The same hour, closed: how long that takes, what is read of it then, and how it goes."""
    begin = time.perf_counter()
    closed = await store.close_before(_END)
    rate = closed.samples / (time.perf_counter() - begin)
    rows = [Row("samples closed and rolled up per second", Spread.of([rate]), "1/s", Better.MORE)]
    with _plain.opened(store.path) as database:
        pages = "SELECT sum(pgsize) FROM dbstat WHERE name LIKE '%sample_chunks%'"
        size = database.execute(pages).fetchone()[0] / closed.samples
        rows.append(Row("a closed sample on disk, with its index", Spread.of([size]), "B", goal=Goal(12)))
    async with SqliteStore(_url(folder, "historian.db")) as beside:
        from_chunks = await _milliseconds(lambda: _read(beside), times)
        view = await repeat(lambda: asyncio.to_thread(_through_view, store.path), times)
    rows.append(Row("1,000 tags × 3,600 cells from SQL, closed", from_chunks, "ms", goal=Goal(400)))
    rows.append(Row("a closed sample in plain SQL, through v_samples", view, "µs"))
    later = _END + 7200 * _plain.SECOND
    await store.write([Delivery(SampleBatch.of([1], later, 1.0, 0, later, later))])
    with _plain.opened(store.path) as database:
        partitions = database.execute("SELECT count(*) FROM sample_partitions").fetchone()[0]
    config = HistorianConfig(retention=(RetentionConfig(name="default", samples=timedelta(hours=1)),))
    (drop,) = [chore for chore in store.chores(config) if "retention" in chore.name]
    begin = time.perf_counter()
    await drop.do()
    took = 1000 * (time.perf_counter() - begin) / partitions
    with _plain.opened(store.path) as database:
        assert not database.execute("SELECT count(*) FROM sample_chunks").fetchone()[0]
    return [*rows, Row("drop a partition of about a million samples", Spread.of([took]), "ms")]


def _through_view(path: Path) -> float:
    """Of one tag's hour, per sample [µs]."""
    with _plain.opened(path) as database:
        begin = time.perf_counter()
        query = "SELECT count(value), sum(value) FROM v_samples WHERE tag = 't7'"
        (count, _) = database.execute(query).fetchone()
        assert count >= CELLS
        return 1e6 * (time.perf_counter() - begin) / int(count)


async def _year(folder: Path, times: int) -> list[Row]:
    """Of a tag at 1 Hz: 31.5 million samples, as 8,760 hours among those of ten tags."""
    hours = 8_760
    starts = _plain.BEGIN // _HOUR * _HOUR + _HOUR * np.arange(hours)
    with _plain.opened(folder / "many.db") as database:
        for tag in range(1, 11):
            columns = {field.name: np.ones(hours, np.int64) for field in fields(RollUps)}
            same = RollUps(**columns | {"tag": np.full(hours, tag, np.int32), "start": starts})  # type: ignore[arg-type]
            upsert_roll_ups(database, Level.HOUR, same)

    def drawn() -> None:
        with _plain.opened(folder / "many.db") as database:
            found = select_roll_ups(database, Level.HOUR, [(5, int(starts[0]), int(starts[-1]) + _HOUR)])
            assert len(found) == hours

    year = await _milliseconds(lambda: asyncio.to_thread(drawn), times)
    return [Row("a year of one tag at 1 Hz, drawn from its hours", year, "ms", goal=Goal(100))]
