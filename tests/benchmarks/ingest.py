"""From columnar batches to committed rows: rates, growth, bytes written, and what the event loop feels of it.

10,000 tags arrive interleaved, each once a second, in transactions of 50,000 rows, flushed to disk (``synchronous =
"full"``). The peers are plain ``sqlite3`` with ``executemany``, once keyed by (tag, time) and once by (time, tag), with
the same rows, transactions and flushes, but fewer columns and nobody who looks for duplicates.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from plugin.diagnostics import Diagnostics
from plugin.domain import SampleBatch, Tag
from plugin.historian.ingest import Ingest
from plugin.historian.recent.ring import Ring
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery, Health, HistoryProgress
from plugin.running import tune_interpreter
from tests.benchmarks import _plain, _postgres
from tests.benchmarks._measuring import cpu
from tests.benchmarks.harness import Better, Goal, Peer, Row, Spread
from tests.postgres import NoPostgres

TAGS = 10_000
_BATCH = 50_000
_KEYS = {"sqlite3, keyed (tag, time)": "tag, ts", "sqlite3, keyed (time, tag)": "ts, tag"}
_RATE, _PER_SECOND = 100_000, 10
"""Rows a second for the event loop's lag, and in how many deliveries."""
_LOOK = 0.002
"""Between two looks at the event loop's lag [s]."""


@dataclass
class Taken:
    """What a stretch of writing took, added up."""

    rows: int = 0
    wall: float = 0.0
    """[s]"""
    cpu: float = 0.0
    """[s]"""
    worst: float = 0.0
    """Longest transaction [s]."""


async def measure(quick: bool) -> Sequence[Row]:
    """Peers in turn, then growth, then the event loop."""
    rounds, rows = (1, 500_000) if quick else (3, 2_000_000)
    ours: list[Taken] = []
    again: list[Taken] = []
    written: list[float] = []
    peers: dict[str, list[Taken]] = {name: [] for name in _KEYS}
    for _ in range(rounds):
        with _folder() as folder:
            first, second, each = await _stored(folder, rows)
            ours.append(first)
            again.append(second)
            written.append(each)
        for name, key in _KEYS.items():
            with _folder() as folder:
                peers[name].append(await asyncio.to_thread(_plainly, folder, key, rows))
    found = [*_rates(ours, peers), *_beside(again, written)]
    found += await _growth(5_000_000 if quick else 100_000_000)
    found += await _lag(3 if quick else 10)
    return [*found, *await _on_postgres(rounds, rows // 2)]


# --- rates -------------------------------------------------------------------------------------------------------


def _rates(ours: Sequence[Taken], peers: dict[str, list[Taken]]) -> list[Row]:
    rows = []
    for what, rate in (("rows per second", _at_once), ("rows per second of CPU", _per_core)):
        value = Spread.of(map(rate, ours))
        rows.append(Row(f"10,000 tags interleaved: {what}", value, "1/s", Better.MORE, goal=Goal(800_000)))
        for name, results in peers.items():
            peer = Peer(name, Spread.of(map(rate, results)))
            rows.append(Row(f"10,000 tags interleaved: {what}", value, "1/s", Better.MORE, peer=peer))
    return rows


def _at_once(taken: Taken) -> float:
    return taken.rows / taken.wall


def _per_core(taken: Taken) -> float:
    return taken.rows / taken.cpu


def _beside(again: Sequence[Taken], written: Sequence[float]) -> list[Row]:
    rate = Spread.of(map(_at_once, again))
    return [
        Row("the same rows again, none of them new: rows per second", rate, "1/s", Better.MORE),
        Row("written to disk, log and checkpoints included", Spread.of(written), "B/row", goal=Goal(100)),
    ]


async def _stored(folder: Path, rows: int) -> tuple[Taken, Taken, float]:
    """Written once, written again, and bytes written per row."""
    async with _store(folder) as store:
        before = _written()
        first = await _write(store, _batches(0, rows))
    each = (_written() - before) / rows  # closed: all is in the database itself
    async with _store(folder) as store:
        again = await _write(store, _batches(0, rows), fresh=False)
    return first, again, each


async def _write(store: SqliteStore, batches: Iterator[SampleBatch], *, fresh: bool = True) -> Taken:
    taken = Taken()
    for batch in batches:
        used, begin = cpu(), time.perf_counter()
        written = await store.write([Delivery(batch)])
        took = time.perf_counter() - begin
        assert (written.duplicates if fresh else written.stored) == 0
        taken.rows, taken.wall, taken.cpu = taken.rows + len(batch), taken.wall + took, taken.cpu + cpu() - used
        taken.worst = max(taken.worst, took)
    return taken


def _plainly(folder: Path, key: str, rows: int) -> Taken:
    taken = Taken()
    with _plain.table(folder / "plain.db", key) as database:
        for batch in _batches(0, rows):
            used, begin = cpu(), time.perf_counter()
            _plain.insert(database, batch)
            taken.wall += time.perf_counter() - begin
            taken.cpu += cpu() - used
            taken.rows += len(batch)
    return taken


# --- growth ------------------------------------------------------------------------------------------------------


async def _growth(rows: int) -> list[Row]:
    """The last million beside the first."""
    million = 1_000_000
    with _folder() as folder:
        async with _store(folder) as store:
            first = await _write(store, _batches(0, million))
            between = await _write(store, _batches(million, rows - million))
            last = await _write(store, _batches(rows - million, rows))
    figure = f"after {rows // million} million rows, all of them hot: rows per second of CPU"
    peer = Peer("the first million", Spread.of([_per_core(first)]))
    worst = Spread.of([1000 * max(each.worst for each in (first, between, last))])
    return [
        Row(figure, Spread.of([_per_core(last)]), "1/s", Better.MORE, peer=peer, goal=Goal(0.9, of_ratio=True)),
        Row(f"longest transaction of {_BATCH:,} rows on the way there", worst, "ms"),
    ]


# --- the event loop ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Steady:
    """A source that delivers so many rows a second."""

    batches: Sequence[SampleBatch]
    name: str = "plant"

    async def deliveries(self) -> AsyncIterator[Delivery]:
        begin = time.perf_counter()
        for number, batch in enumerate(self.batches):
            await asyncio.sleep(max(0.0, begin + number / _PER_SECOND - time.perf_counter()))
            yield Delivery(batch)

    def history_progress(self) -> HistoryProgress:
        return HistoryProgress(self.name, 0, 0, 0, True)

    def health(self) -> Health:
        return Health("running", connected=True, away_since=None)


async def _lag(seconds: int) -> list[Row]:
    """Alone, and while a million rows of two hours before are closed; beside a loop that has nothing to do.

    The interpreter is tuned as the service has it, for this and what follows.
    """
    tune_interpreter()
    each, before = _RATE // _PER_SECOND, 7200 * _PER_SECOND
    batches = [_plain.ticks(each, before + number, 1) for number in range(_PER_SECOND * seconds)]
    idle = Peer("an idle loop", _p99(await _watched(asyncio.sleep(seconds))))
    rows = []
    for beside, old in (("", 0), (", while a million is closed", 1_000_000)):
        with _folder() as folder:
            async with _store(folder, Ring()) as store:
                await _write(store, _batches(0, old))
                ingest = Ingest([_Steady(batches)], store, Diagnostics())
                closing = store.close_before(_plain.BEGIN + 3600 * _plain.SECOND)
                late = _p99(await _watched(asyncio.gather(ingest.run(), closing)))
        figure = f"{_RATE:,} rows a second through Ingest{beside}: how late the event loop is, 99th percentile"
        rows.append(Row(figure, late, "ms", peer=idle, goal=Goal(5)))
    return rows


async def _watched(work: Awaitable[object]) -> list[float]:
    """How late the loop was while that was done [s]."""
    lags: list[float] = []
    watching = asyncio.create_task(_watch(lags))
    await work
    watching.cancel()
    await asyncio.wait({watching})
    return lags


def _p99(lags: Sequence[float]) -> Spread:
    """[ms]"""
    return Spread.of([1000 * sorted(lags)[len(lags) * 99 // 100]])


async def _watch(lags: list[float]) -> None:
    while True:
        due = time.perf_counter() + _LOOK
        await asyncio.sleep(_LOOK)
        lags.append(max(0.0, time.perf_counter() - due))


# --- PostgreSQL --------------------------------------------------------------------------------------------------


async def _on_postgres(rounds: int, rows: int) -> list[Row]:
    """Each into a database of its own."""
    try:
        with _postgres.server() as server:
            found = [await _postgres.rates(server, TAGS, list(_batches(0, rows))) for _ in range(rounds)]
    except NoPostgres as error:
        print(f"PostgreSQL is left out: {error}")
        return []
    ours, theirs = zip(*found, strict=True)
    figure, peer = "PostgreSQL, 10,000 tags interleaved: rows per second", Peer("raw binary COPY", Spread.of(theirs))
    return [Row(figure, Spread.of(ours), "1/s", Better.MORE, peer=peer, goal=Goal(0.9, of_ratio=True))]


# --- what they share ---------------------------------------------------------------------------------------------


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="foretag-benchmark-") as folder:
        yield Path(folder)


@asynccontextmanager
async def _store(folder: Path, ring: Ring | None = None) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(f"sqlite+aiosqlite:///{folder / 'historian.db'}", ring=ring) as store:
        await store.register_tags([Tag(f"t{n}", "plant", f"nsu=urn:plant;s=t{n}") for n in range(1, TAGS + 1)])
        yield store


def _batches(first: int, end: int) -> Iterator[SampleBatch]:
    """The rows ``first`` to ``end`` of all that ever arrive, by transaction."""
    seconds = _BATCH // TAGS
    return (_plain.ticks(TAGS, row // TAGS, seconds) for row in range(first, end, _BATCH))


def _written() -> int:
    """Bytes that this process has given to files, whatever file system they are on."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])
