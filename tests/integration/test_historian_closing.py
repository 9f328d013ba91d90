"""Closing on a real file, beside a writer and readers, and through a real kill."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from plugin.diagnostics import Diagnostics
from plugin.domain import SampleBatch, Tag
from plugin.historian.config import HistorianConfig
from plugin.historian.keeping.upkeep import Upkeep
from plugin.historian.recent.ring import Ring
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery, Written

TAGS = [Tag(f"T{n}", "plant", f"nsu=urn:plant;s=T{n}") for n in range(1, 6)]
ALL = [1, 2, 3, 4, 5]
EVER = (-(2**60), 2**60)
SECOND = 1_000_000
BEGIN = 1_714_521_600 * SECOND
MINUTE = 60 * SECOND


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "historian.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(f"sqlite+aiosqlite:///{path}", ring=Ring()) as store:
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


def counted(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


async def read(path: Path) -> SampleBatch:
    async with SqliteStore(f"sqlite+aiosqlite:///{path}") as beside:
        return await beside.read_samples(ALL, *EVER)


async def test_what_is_closed_reads_as_before(store: SqliteStore, path: Path) -> None:
    await store.write([seconds(0, 1000)])
    before = await read(path)
    closed = await store.close_before(BEGIN + 900 * SECOND)
    assert (closed.samples, closed.written) == (4500, 4500)
    assert counted(path, "samples") == 500
    assert counted(path, "sample_chunks") == 10
    assert counted(path, "rollup_minutes") == 15 * 5
    assert equal(await read(path), before)
    assert await store.write([seconds(0, 1000)]) == Written(0, 5000)
    assert (await store.counts())["samples"] == 5000
    assert (await store.summary()).newest == BEGIN + 999 * SECOND


async def test_a_restart_fills_the_ring_from_chunks_too(store: SqliteStore, path: Path) -> None:
    await store.write([seconds(0, 1000)])
    everything = await store.read_samples(ALL, *EVER)
    await store.close_before(BEGIN + 960 * SECOND)
    await store.close()
    for capacity, since in ((2048, EVER[0]), (300, BEGIN + 700 * SECOND)):
        ring = Ring(samples=capacity)
        async with SqliteStore(f"sqlite+aiosqlite:///{path}", ring=ring) as again:
            held = ring.read(ALL, since, EVER[1])
            assert held is not None
            assert equal(held, everything.take(everything.source_time >= since))
            assert equal(await again.latest(ALL), everything.take(everything.source_time == BEGIN + 999 * SECOND))


async def test_readers_and_a_writer_beside_it_see_each_sample_once(store: SqliteStore, path: Path) -> None:
    await store.write([seconds(0, 600)])
    lengths: list[int] = []
    done = asyncio.Event()

    async def look() -> None:
        async with SqliteStore(f"sqlite+aiosqlite:///{path}") as beside:
            while not done.is_set():
                lengths.append(len(await beside.read_samples(ALL, BEGIN, BEGIN + 600 * SECOND)))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(look())
        for until in range(60, 660, 60):
            late = seconds(until - 61, 1).samples.take([0])
            late = SampleBatch.of(late.tag, late.source_time + 7, 1.0, 0, 1, 1)
            async with asyncio.TaskGroup() as both:
                both.create_task(store.close_before(BEGIN + until * SECOND))
                both.create_task(store.write([seconds(600 + until, 60), Delivery(late)]))
        done.set()
    assert set(lengths) <= set(range(3000, 3011))
    assert lengths == sorted(lengths)
    await store.close_before(EVER[1])
    assert counted(path, "samples") == 0
    assert len(await read(path)) == 3000 + 3000 + 10


async def test_the_chore_closes_what_is_old_by_the_plants_own_time(store: SqliteStore, path: Path) -> None:
    diagnostics = Diagnostics()
    store._diagnostics = diagnostics
    await store.write([seconds(0, 7300), Delivery(SampleBatch.of([1], 2**57, 1.0, 0, 1, 1))])
    done = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        done.set()
        await asyncio.Event().wait()

    chore = store.chores(HistorianConfig(close_after=timedelta(hours=1)))[0]
    task = asyncio.create_task(Upkeep([chore], diagnostics, sleep).run())
    await done.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert diagnostics.value("samples_closed_total") == 61 * 60 * 5
    assert diagnostics.value("partitions_closed_total") == 1
    assert 0 < diagnostics.value("sample_bytes") < 16
    assert counted(path, "rollup_hours") == 5
    assert store.chores(HistorianConfig(close_after=timedelta(0)))[0].name != chore.name


async def test_a_kill_in_the_middle_loses_nothing_and_doubles_nothing(store: SqliteStore, path: Path) -> None:
    await store.write([seconds(0, 1000)])
    before = await store.read_samples(ALL, *EVER)
    await store.close()
    command = [sys.executable, __file__, str(path)]
    # It forks, which is sound with one thread alone; and on a busy machine it may be slow.
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=600, env=alone)
    assert not done.returncode, done.stderr
    kills, counts = json.loads(done.stdout)
    assert kills > 3
    assert set(counts) == {len(before)}
    assert counted(path, "samples") == 0
    assert equal(await read(path), before)


# --- the process that is killed, and the one that kills it: python test_historian_closing.py DATABASE ---


def killed_while_closing(path: Path, steps: int) -> bool:
    """Whether a process that closes all was killed after so many statements of its writer; what it did is on disk."""
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) or not status
        return os.WIFSIGNALED(status)
    asyncio.run(close_all(path, steps))
    os._exit(0)


async def close_all(path: Path, steps: int) -> None:
    async with SqliteStore(f"sqlite+aiosqlite:///{path}") as store:

        def die(_statement: str) -> None:
            nonlocal steps
            steps -= 1
            if steps == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        await store._file.write(lambda database: database.set_trace_callback(die))
        for until in range(0, 1201, 300):
            await store.close_before(BEGIN + until * SECOND)


def held(path: Path) -> int:
    """Samples in rows and chunks of a database that is sound."""
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)
        rows = database.execute("SELECT count(*) FROM samples").fetchone()[0]
        return int(rows + database.execute("SELECT coalesce(sum(samples), 0) FROM sample_chunks").fetchone()[0])


def main(path: Path) -> None:
    kills, counts, steps = 0, [], 1
    while killed_while_closing(path, steps):
        kills, steps = kills + 1, steps + 7
        counts.append(held(path))
    print(json.dumps((kills, counts)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
