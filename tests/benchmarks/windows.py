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
from pathlib import Path

import numpy as np

from plugin.domain import Policies, SampleBatch, Tag, Window
from plugin.historian.chunks import decode, encode
from plugin.historian.ring import Ring
from plugin.historian.sqlite_store import SqliteStore
from plugin.protocols import Delivery
from tests.benchmarks import _plain
from tests.benchmarks.harness import Goal, Peer, Row, Spread, repeat

TAGS, CELLS = 1_000, 3_600
_MANY = 10_000
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
        rows += await _newest(folder, times)
    return [*rows, *_closed(times)]


# --- windows -----------------------------------------------------------------------------------------------------


async def _windows(store: SqliteStore, folder: Path, times: int) -> list[Row]:
    window = Window(
        tuple(range(1, TAGS + 1)), _plain.BEGIN, _plain.SECOND, CELLS, Policies.of(TAGS, 60 * _plain.SECOND)
    )

    async def read(reader: SqliteStore) -> None:
        grid = await reader.grid(window, received_by=_plain.BEGIN + 2 * CELLS * _plain.SECOND)
        assert grid.good.all()

    await read(store)  # the first time each sample is looked at
    copied = await _milliseconds(lambda: read(store), times)
    plainly = await _milliseconds(lambda: asyncio.to_thread(_fetched, folder / "plain.db"), times)
    middle = _plain.BEGIN + CELLS // 2 * _plain.SECOND
    await store.write([Delivery(SampleBatch.of(window.tags, middle + 1, 1.0, 0, middle, middle))])
    computed = await _milliseconds(lambda: read(store), times)
    async with SqliteStore(_url(folder, "historian.db")) as beside:
        hot = await _milliseconds(lambda: read(beside), times)
    what, peer = "1,000 tags × 3,600 cells", Peer("sqlite3", plainly)
    return [
        Row(f"{what} from the ring, a sample in each cell", copied, "ms", peer=peer, goal=Goal(10)),
        Row(f"{what} from the ring, every tag computed", computed, "ms", peer=peer),
        Row(f"{what} from SQL, not closed yet", hot, "ms", peer=peer, goal=Goal(400)),
    ]


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
    async with SqliteStore(_url(folder, "many.db")) as store:

        async def read() -> None:
            assert len(await store.latest(wanted)) == _MANY

        found = await _milliseconds(read, times)
    return [Row("newest sample of 10,000 tags from SQL", found, "ms", goal=Goal(50))]


# --- closed ------------------------------------------------------------------------------------------------------


def _closed(times: int) -> list[Row]:
    """The code alone: an hour of 100 tags."""
    batch = _plain.ticks(100, 0, CELLS)
    batch = batch.take(np.argsort(batch.tag, kind="stable"))
    ordinals = np.zeros(len(batch), np.int16)
    rates = []
    for _ in range(times):
        begin = time.perf_counter()
        chunks = encode(batch, ordinals)
        middle = time.perf_counter()
        decode(chunks, clocks=False)
        rates.append((1e9 * (middle - begin) / len(batch), 1e9 * (time.perf_counter() - middle) / len(batch)))
    size = sum(len(chunk.data) for chunk in chunks) / len(batch)
    return [
        Row("a sample closed: codes alone", Spread.of([size]), "B", goal=Goal(12)),
        Row("a sample encoded", Spread.of(each for each, _ in rates), "ns"),
        Row("a sample decoded, for a window", Spread.of(each for _, each in rates), "ns"),
    ]
