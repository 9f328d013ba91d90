"""From scripted sources into a real database: what is confirmed when, and what happens to the rest."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from plugin.diagnostics import Diagnostics
from plugin.domain import Gap, GapCause, GapState, SampleBatch, Tag, to_micros
from plugin.errors import StoreUnavailable
from plugin.historian.ingest import Ingest
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery, Health, HistoryProgress, Written

EVER = (-(2**60), 2**60)


class Script:
    """A source that delivers what it is told to, and remembers what was asked of it."""

    def __init__(self, name: str, deliveries: Iterable[Delivery | Exception], *, endless: bool = False) -> None:
        self.name = name
        self.given = 0
        self.closed = 0
        self._script = iter(deliveries)
        self._endless = endless

    async def deliveries(self) -> AsyncIterator[Delivery]:
        try:
            for step in self._script:
                if isinstance(step, Exception):
                    raise step
                self.given += 1
                yield step
            if self._endless:
                await asyncio.Event().wait()
        finally:
            self.closed += 1

    def history_progress(self) -> HistoryProgress:
        return HistoryProgress(self.name, 0, 0, 0, True)

    def health(self) -> Health:
        return Health("running", connected=True, away_since=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "historian.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(f"sqlite+aiosqlite:///{path}", busy_timeout=timedelta(0)) as store:
        await store.register_tags([Tag(f"T{n}", "plant", f"nsu=urn:plant;s=T{n}") for n in (1, 2)])
        yield store


def delivery(tag: int, first: int, count: int, confirm: Callable[[], None] = lambda: None) -> Delivery:
    time = np.arange(first, first + count)
    batch = SampleBatch.of(np.full(count, tag), time, time * 0.5, 0, time, time)
    return Delivery(batch, checkpoint={f"tag {tag}": str(first + count)}, confirm=confirm)


def rows_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        count: int = database.execute("SELECT count(*) FROM samples").fetchone()[0]
    return count


async def at_once(_seconds: float) -> None:
    await asyncio.sleep(0)


async def test_everything_is_stored_before_it_is_confirmed(store: SqliteStore, path: Path) -> None:
    confirmed: list[tuple[int, int]] = []
    heard: list[SampleBatch] = []
    diagnostics = Diagnostics()

    def confirm(first: int) -> None:
        confirmed.append((first, rows_in(path)))

    sources = [
        Script("a", [delivery(1, n * 10, 10, partial(confirm, n)) for n in range(40)]),
        Script("b", [delivery(2, n * 10, 15) for n in range(40)]),
    ]
    ingest = Ingest(sources, store, diagnostics, on_commit=[heard.append], rows_per_commit=100, queue=8)
    await ingest.run()
    assert [first for first, _ in confirmed] == [*range(40)]
    assert all(stored >= (first + 1) * 10 for first, stored in confirmed)
    assert (await store.counts())["samples"] == 400 + 405
    assert await store.checkpoints("tag") == {"tag 1": "400", "tag 2": "405"}
    assert sum(map(len, heard)) == 400 + 600
    assert diagnostics.value("samples_stored_total") == 805
    assert diagnostics.value("samples_duplicate_total") == 195
    assert diagnostics.value("arrival_to_row_seconds_count") == 80
    assert diagnostics.total("queue_depth") == 0
    assert [source.closed for source in sources] == [1, 1]


async def test_while_the_database_is_away_the_source_waits_and_nothing_is_confirmed(
    store: SqliteStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    confirmed: list[int] = []
    tries = asyncio.Event()
    pauses: list[float] = []
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    source = Script("a", [delivery(1, n, 1, partial(confirmed.append, n)) for n in range(100)])

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            tries.set()
        await asyncio.sleep(0)

    diagnostics = Diagnostics()
    ingest = Ingest([source], store, diagnostics, rows_per_commit=4, queue=5, sleep=pause)
    with caplog.at_level(logging.WARNING):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ingest.run())
            await tries.wait()
            assert not confirmed
            assert source.given <= 4 + 5 + 1
            assert diagnostics.value("queue_depth", source="a") == source.given
            other.execute("ROLLBACK")
            other.close()
    assert confirmed == [*range(100)]
    assert (await store.counts())["samples"] == 100
    assert pauses[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert ["unavailable" in line or "is back" in line for line in caplog.messages] == [True, True]


@pytest.mark.parametrize("at", [0, 3, 10, 40, 70, 99])
async def test_cancelled_it_confirms_nothing_that_is_not_stored(store: SqliteStore, path: Path, at: int) -> None:
    confirmed: list[int] = []
    reached = asyncio.Event()

    def steps() -> Iterator[Delivery]:
        for number in range(100):
            if number == at:
                reached.set()
            yield delivery(1, number, 1, partial(confirmed.append, number))

    source = Script("a", steps(), endless=True)
    task = asyncio.create_task(Ingest([source], store, Diagnostics(), rows_per_commit=3, queue=4).run())
    await reached.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert source.closed == 1
    await store.write([Delivery(SampleBatch.empty(), checkpoint={"after": "what was running"})])
    stored = (await store.read_samples([1], *EVER)).source_time.tolist()
    assert stored == [*range(rows_in(path))]
    assert confirmed == stored[: len(confirmed)]
    assert len(confirmed) <= at


async def test_a_source_that_breaks_down_is_started_again_and_stops_no_other(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Script("a", [delivery(1, 0, 5), ValueError("wire"), delivery(1, 5, 5)])
    diagnostics = Diagnostics()
    with caplog.at_level(logging.ERROR):
        await Ingest([broken, Script("b", [delivery(2, 0, 9)])], store, diagnostics, sleep=at_once).run()
    assert (await store.counts())["samples"] == 19
    assert broken.closed == 2
    assert diagnostics.value("task_failures_total", task="source a") == 1
    assert "Source a broke down" in caplog.text


async def test_samples_that_the_store_refuses_leave_a_gap_and_stop_no_other(store: SqliteStore) -> None:
    confirmed: list[str] = []
    steps = [
        delivery(1, 0, 5, lambda: confirmed.append("good")),
        delivery(77, 10, 3, lambda: confirmed.append("bad")),
        delivery(2, 0, 5, lambda: confirmed.append("good")),
    ]
    diagnostics = Diagnostics()
    await Ingest([Script("a", steps)], store, diagnostics).run()
    assert confirmed == ["good", "bad", "good"]
    assert (await store.counts())["samples"] == 10
    (gap,) = await store.gaps()
    assert (gap.source, gap.cause, gap.state) == ("a", GapCause.DECODE_ERROR, GapState.UNFILLABLE)
    assert "77" in gap.detail
    assert diagnostics.value("samples_dropped_total", source="a", cause="decode_error") == 3
    assert await store.checkpoints("tag 77") == {"tag 77": "13"}


class BrieflyLocked(SqliteStore):
    """Another program has locked the file; it lets go when it has been in the way once."""

    async def write(self, deliveries: Sequence[Delivery]) -> Written:
        try:
            return await super().write(deliveries)
        except StoreUnavailable:
            self.other.execute("ROLLBACK")
            raise

    def lock(self) -> None:
        self.other = sqlite3.connect(self.path, isolation_level=None)
        self.other.execute("BEGIN IMMEDIATE")


async def test_a_lock_in_the_moment_of_a_refusal_costs_neither_the_gap_nor_the_progress(path: Path) -> None:
    async with BrieflyLocked(f"sqlite+aiosqlite:///{path}", busy_timeout=timedelta(0)) as store:
        await store.register_tags([Tag("T1", "plant", "nsu=urn:plant;s=T1")])
        diagnostics = Diagnostics()
        store.lock()
        await Ingest([Script("a", [delivery(77, 10, 3)])], store, diagnostics, sleep=at_once).run()
        store.other.close()
        (gap,) = await store.gaps()
        assert (gap.source, gap.cause) == ("a", GapCause.DECODE_ERROR)
        assert await store.checkpoints("tag 77") == {"tag 77": "13"}
        assert diagnostics.value("samples_dropped_total", source="a", cause="decode_error") == 3
        assert diagnostics.value("gaps_total", source="a", cause="decode_error") == 1


async def test_a_store_that_takes_nothing_is_away_and_nothing_is_left_out(
    store: SqliteStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("ALTER TABLE samples RENAME TO away")
    other.execute("ALTER TABLE gaps RENAME TO gaps_away")
    other.execute("ALTER TABLE checkpoints RENAME TO checkpoints_away")
    confirmed: list[int] = []
    steps = [delivery(1, n, 1, partial(confirmed.append, n)) for n in range(20)]
    diagnostics = Diagnostics()
    tries = 0

    async def pause(_seconds: float) -> None:
        nonlocal tries
        tries += 1
        if tries == 3:
            assert not confirmed
            assert diagnostics.value("queue_depth", source="a") == 6
            for table in ("samples", "gaps", "checkpoints"):
                name = {"samples": "away"}.get(table, f"{table}_away")
                other.execute(f"ALTER TABLE {name} RENAME TO {table}")
        await asyncio.sleep(0)

    await Ingest([Script("a", steps)], store, diagnostics, rows_per_commit=1, queue=4, sleep=pause).run()
    other.close()
    assert confirmed == [*range(20)]
    assert diagnostics.value("queue_depth", source="a") == 0
    assert diagnostics.total("samples_dropped_total") == 0
    assert ["no such table" in line or "is back" in line for line in caplog.messages] == [True, True]


async def test_what_no_store_takes_is_left_out_though_it_has_no_samples(store: SqliteStore) -> None:
    """A gap whose text is no text: SQLite can't take it, nor the gap that would say so."""
    now = datetime.now(UTC)
    bad = Gap("id", "a", None, now, None, GapCause.SEQUENCE, now, detail="\ud800")
    confirmed: list[str] = []
    steps = [
        Delivery(SampleBatch.empty(), (bad,), confirm=lambda: confirmed.append("bad")),
        delivery(1, 0, 5, lambda: confirmed.append("good")),
    ]
    await Ingest([Script("a", steps)], store, Diagnostics()).run()
    assert confirmed == ["bad", "good"]
    assert (await store.counts())["samples"] == 5


async def test_what_is_left_out_with_what_no_store_takes_is_a_gap_too(store: SqliteStore) -> None:
    now = datetime.now(UTC)
    impossible = Gap("g", "a", None, now, now, GapCause.SEQUENCE, now, detail="\ud800")
    steps = [replace(delivery(1, 10, 3), gaps=(impossible,)), delivery(1, 20, 3)]
    diagnostics = Diagnostics()
    await Ingest([Script("a", steps)], store, diagnostics).run()
    (gap,) = await store.gaps()
    assert (gap.cause, to_micros(gap.start), gap.end and to_micros(gap.end)) == (GapCause.DECODE_ERROR, 10, 13)
    assert diagnostics.value("samples_dropped_total", source="a", cause="decode_error") == 3
    assert (await store.counts())["samples"] == 3


class Unlucky(Script):
    """Breaks down in the very moment that it is told to end."""

    async def deliveries(self) -> AsyncIterator[Delivery]:
        try:
            async for step in super().deliveries():
                yield step
        finally:
            raise RuntimeError("the line was cut")


async def test_a_source_that_breaks_down_while_it_is_ended_is_not_started_again(store: SqliteStore) -> None:
    diagnostics, source = Diagnostics(), Unlucky("a", [delivery(1, 0, 10)], endless=True)
    task = asyncio.create_task(Ingest([source], store, diagnostics, sleep=at_once).run())
    while not diagnostics.value("samples_stored_total"):
        await asyncio.sleep(0)
    task.cancel()
    ended, _ = await asyncio.wait({task}, timeout=10)
    for _ in range(3):  # where it did not
        task.cancel()
        await asyncio.wait({task}, timeout=1)
    assert ended
    assert task.cancelled()
    assert diagnostics.value("task_failures_total", task="source a") == 1
