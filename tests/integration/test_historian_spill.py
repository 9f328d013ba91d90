"""The database away, slow or full: samples wait on disk, are confirmed there, and follow in order."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plugin.diagnostics import Diagnostics
from plugin.domain import SampleBatch, Tag
from plugin.fields import ByteCount
from plugin.historian.config import SpillConfig
from plugin.historian.ingest import Ingest
from plugin.historian.spill import Spill
from plugin.historian.sql import SqlStore
from plugin.protocols import Delivery, Health, HistoryProgress

EVER = (-(2**60), 2**60)
TAGS = [Tag(f"T{n}", "plant", f"nsu=urn:plant;s=T{n}") for n in (1, 2)]
ROWS = 100
"""In a delivery."""


class Plant:
    """A source that delivers as fast as it may, numbered, and remembers what was confirmed."""

    def __init__(self, name: str = "plant", *, tag: int = 1, patient: Callable[[int], bool] = lambda _: False) -> None:
        self.name = name
        self.tag = tag
        self.patient = patient
        self.given = 0
        self.confirmed: list[int] = []
        self.last = 0
        """The deliveries up to this number are given."""
        self.more = asyncio.Event()
        self.ends = False

    def give(self, count: int, *, end: bool = False) -> None:
        self.last += count
        self.ends = end
        self.more.set()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        while True:
            while self.given < self.last:
                self.given += 1
                yield self.delivery(self.given)
            if self.ends:
                return
            self.more.clear()
            await self.more.wait()

    def delivery(self, number: int) -> Delivery:
        return replace(
            numbered(number, self.tag, self.name),
            confirm=partial(self.confirmed.append, number),
            patient=self.patient(number),
        )

    def history_progress(self) -> HistoryProgress:
        return HistoryProgress(self.name, 0, 0, 0, True)

    def health(self) -> Health:
        return Health("running", connected=True, away_since=None)


def numbered(number: int, tag: int = 1, source: str = "plant") -> Delivery:
    time = np.arange(number * ROWS, (number + 1) * ROWS)
    samples = SampleBatch.of(np.full(ROWS, tag), time, time * 0.5, 0, time, time)
    return Delivery(samples, checkpoint={f"{source}/next": str(number)})


async def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "historian.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqlStore]:
    async with SqlStore(f"sqlite+aiosqlite:///{path}", busy_timeout=timedelta(0)) as store:
        await store.register_tags(TAGS)
        yield store


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program writes, and takes its time."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def settings(**more: Any) -> SpillConfig:
    """Small and quick; the bound of the configuration is for people."""
    quick = SpillConfig(after=timedelta(milliseconds=50), reserve=ByteCount(0))
    return quick.model_copy(update={name: ByteCount(v) if name == "limit" else v for name, v in more.items()})


@asynccontextmanager
async def opened(folder: Path, position: int = 0, **more: Any) -> AsyncIterator[Spill]:
    spill = Spill(folder, settings(**more))
    await spill.open(position)
    spill.know([replace(tag, id=key) for key, tag in enumerate(TAGS, start=1)])
    try:
        yield spill
    finally:
        spill.close()


@asynccontextmanager
async def running(ingest: Ingest) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(ingest.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def stored(store: SqlStore, tag: int = 1) -> list[int]:
    found: list[int] = (await store.read_samples([tag], *EVER)).source_time.tolist()
    return found


def times(first: int, last: int) -> list[int]:
    """Of the deliveries from ``first`` to ``last``."""
    return [*range(first * ROWS, (last + 1) * ROWS)]


async def test_while_the_database_is_away_samples_go_to_the_spill_and_follow_in_order(
    store: SqlStore, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plant, diagnostics, heard = Plant(), Diagnostics(), list[int]()
    async with opened(tmp_path / "spill") as spill:
        ingest = Ingest(
            [plant], store, diagnostics, spill=spill, rows_per_commit=5 * ROWS, queue=10,
            on_commit=[lambda batch: heard.extend(batch.source_time.tolist())],
        )  # fmt: skip
        async with running(ingest) as task:
            plant.give(10)
            await until(lambda: len(plant.confirmed) == 10)
            with locked(path):
                plant.give(400)
                await until(lambda: len(plant.confirmed) == 410)
                assert await stored(store) == times(1, 10)
                assert diagnostics.value("historian", state="spilling") == 1
                assert diagnostics.value("spill_samples") == 400 * ROWS
                assert diagnostics.value("queue_depth", source="plant") == 0
                assert spill.size >= 400 * ROWS * 36
            await until(lambda: spill.empty)
            plant.give(10, end=True)
            await task
    assert plant.confirmed == [*range(1, 421)]
    assert await stored(store) == times(1, 420)
    assert heard == times(1, 420)
    assert await store.checkpoints("plant/") == {"plant/next": "420"}
    assert diagnostics.value("samples_stored_total") == 420 * ROWS
    assert diagnostics.value("samples_duplicate_total") == 0
    assert diagnostics.value("samples_spilled_total") >= 400 * ROWS
    assert diagnostics.value("historian", state="writing") == 1
    assert not list((tmp_path / "spill").iterdir())
    assert ["unavailable" in line or "is back" in line for line in caplog.messages] == [True, True]
