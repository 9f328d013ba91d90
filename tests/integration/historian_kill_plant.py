"""Run by test_historian_kill: lives that are killed at any moment, and a plant that outlives them.

``python historian_kill_plant.py FOLDER LIVES SEED`` prints an account as JSON. The lives are forks of this process,
which has everything loaded and nothing open. What the plant knows lies in memory that they share.
"""

import asyncio
import contextlib
import json
import logging
import mmap
import os
import random
import signal
import sqlite3
import struct
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from plugin.diagnostics import Diagnostics
from plugin.domain import Gap, GapCause, SampleBatch, Tag
from plugin.errors import StoreUnavailable
from plugin.fields import ByteCount
from plugin.historian.config import SpillConfig
from plugin.historian.ingest import Ingest
from plugin.historian.spilling import journal
from plugin.historian.spilling.segment import remove
from plugin.historian.spilling.spill import POSITION, Spill
from plugin.historian.sqlite.store import SqliteStore
from plugin.protocols import Delivery, Health, HistoryProgress

SOURCES = ("a", "b")
MOST = 100_000
"""Deliveries of one source."""
SPACING = 1000
"""Between the first source times of two deliveries; none has more rows."""
TAGS = [Tag(name, name, f"nsu=urn:plant;s={name}") for name in SOURCES]
SPILL = SpillConfig(after=timedelta(milliseconds=20), reserve=ByteCount(0)).model_copy(
    update={"limit": ByteCount(1_600_000)}
)
NOTES = {"begun": 48, "something in the spill": 49, "less than was confirmed": 50}
WRITE = os.write
NOW = datetime(2024, 5, 1, tzinfo=UTC)


class Ledger:
    """What the plant knows, in memory that survives whoever writes it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 64 + len(SOURCES) * MOST)

    def issued(self, source: int) -> int:
        """Deliveries that were ever given: 0 .. issued-1."""
        return int(struct.unpack_from("<q", self._memory, 8 * source)[0])

    def issue(self, source: int) -> int:
        number = self.issued(source)
        struct.pack_into("<q", self._memory, 8 * source, number + 1)
        return number

    def confirm(self, source: int, number: int) -> None:
        self._memory[64 + source * MOST + number] = 1

    def confirmed(self, source: int) -> list[int]:
        begin = 64 + source * MOST
        return np.flatnonzero(np.frombuffer(self._memory[begin : begin + MOST], np.uint8)).tolist()

    def note(self, what: str) -> None:
        self._memory[NOTES[what]] = 1

    def noted(self, what: str) -> bool:
        """Since it was last asked."""
        noted, self._memory[NOTES[what]] = bool(self._memory[NOTES[what]]), 0
        return noted


class Plant:
    """A source that goes on behind what is stored, as a subscription does that is taken up again."""

    def __init__(self, index: int, ledger: Ledger, reached: int, last: int | None) -> None:
        self.name = SOURCES[index]
        self._index = index
        self._ledger = ledger
        self._reached = reached
        self._last = last
        """How many more to give; None: without end."""

    async def deliveries(self) -> AsyncIterator[Delivery]:
        for number in range(self._reached + 1, self._ledger.issued(self._index)):
            yield self._delivery(number)
        given = 0
        while self._last is None or given < self._last:
            given += 1
            yield self._delivery(self._ledger.issue(self._index))
            await asyncio.sleep(0.0005 if given % 10 else 0.005)

    def _delivery(self, number: int) -> Delivery:
        time, gap = (
            source_times(number),
            Gap(f"{self.name} {number}", self.name, None, NOW, NOW, GapCause.SEQUENCE, NOW),
        )
        return Delivery(
            SampleBatch.of(np.full(len(time), self._index + 1), time, time * 0.5, 0, time, time),
            () if number % 10 else (gap,),
            {f"{self.name}/reached": str(number)},
            confirm=partial(self._ledger.confirm, self._index, number),
            patient=number % 7 == 0,
        )

    def history_progress(self) -> HistoryProgress:
        return HistoryProgress(self.name, 0, 0, 0, True)

    def health(self) -> Health:
        return Health("running", connected=True, away_since=None)


def source_times(number: int) -> Any:
    return np.arange(number * SPACING, number * SPACING + 1 + number * 7919 % 300)


async def live(folder: Path, ledger: Ledger, last: int | None) -> None:
    """One life, as the service lives it."""
    async with AsyncExitStack() as stack:
        store = await opened(stack, SqliteStore(url(folder), busy_timeout=timedelta(milliseconds=10)))
        tags = await registered(store)
        spill = Spill(folder / "spill", SPILL)
        left = await spill.open(int((await store.checkpoints(POSITION)).get(POSITION, "0")))
        spill.know(tags)
        sources = []
        for index, name in enumerate(SOURCES):
            marks = left.checkpoints_after(await store.checkpoints(f"{name}/"), f"{name}/")
            reached = int(marks.get(f"{name}/reached", "-1"))
            if max(ledger.confirmed(index), default=-1) > reached:
                ledger.note("less than was confirmed")
            sources.append(Plant(index, ledger, reached, last))
        if left.checkpoints:
            ledger.note("something in the spill")
        ledger.note("begun")
        await Ingest(sources, store, Diagnostics(), spill=spill, rows_per_commit=1000, queue=20).run()
        spill.close()


async def opened(stack: AsyncExitStack, store: SqliteStore) -> SqliteStore:
    """A database whose making was cut off can't be opened while another program has it."""
    while True:
        with contextlib.suppress(StoreUnavailable):
            return await stack.enter_async_context(store)
        await asyncio.sleep(0.01)


async def registered(store: SqliteStore) -> tuple[Tag, ...]:
    while True:
        with contextlib.suppress(StoreUnavailable):
            return await store.register_tags(TAGS)
        await asyncio.sleep(0.01)


def url(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder}/historian.db"


# --- killing ---


def die_in(steps: int) -> None:
    """Be killed at one of the next steps that the spill takes on its disk; in the middle of it, if it is a write."""
    left = steps

    def step(real: Callable[..., Any], *args: Any, **more: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            if real is WRITE:
                real(args[0], args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **more)

    for name in ("write", "fdatasync", "fsync", "ftruncate"):
        setattr(os, name, partial(step, getattr(os, name)))
    vars(journal)["remove"] = partial(step, remove)


def forked(work: Callable[[], None]) -> int:
    """The process that does it."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:  # noqa: BLE001  told, and the process ends
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def lock_and_unlock(folder: Path, chance: random.Random) -> None:
    """Another program that writes now and then, and takes its time."""
    path = folder / "historian.db"
    while True:
        time.sleep(chance.uniform(0.02, 0.2))
        with contextlib.suppress(sqlite3.Error), closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(chance.uniform(0.02, 0.3))


def kill_some(folder: Path, ledger: Ledger, lives: int, chance: random.Random) -> tuple[int, int, list[str]]:
    """How many were killed, how many of them had found something in the spill, and what was wrong."""
    killed, spilled, faults = 0, 0, []
    for number in range(lives):
        steps = chance.randrange(1, 40) if chance.random() < 0.4 else 0

        def work(steps: int = steps) -> None:
            if steps:
                die_in(steps)
            asyncio.run(live(folder, ledger, None))

        child = forked(work)
        end = time.monotonic() + 5
        while chance.random() > 0.01 and not ledger.noted("begun") and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        killed += os.WIFSIGNALED(status)
        if not os.WIFSIGNALED(status):
            faults.append(f"life {number} ended by itself")
        if ledger.noted("less than was confirmed"):
            faults.append(f"life {number} found less than was confirmed")
        spilled += ledger.noted("something in the spill")
    return killed, spilled, faults


def checked(folder: Path, ledger: Ledger) -> list[str]:
    """What is wrong with the database."""
    faults = []
    with closing(sqlite3.connect(folder / "historian.db")) as database:
        if database.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            faults.append("the database is not sound")
        for index, name in enumerate(SOURCES):
            rows = database.execute(
                "SELECT source_time FROM samples WHERE tag_id = ? ORDER BY source_time", (index + 1,)
            )
            expected = np.concatenate([source_times(number) for number in range(ledger.issued(index))])
            if [time for (time,) in rows] != expected.tolist():
                faults.append(f"{name}: not what was given")
            gaps = database.execute("SELECT count(*) FROM gaps WHERE source = ?", (name,)).fetchone()[0]
            if gaps != -(-ledger.issued(index) // 10):
                faults.append(f"{name}: {gaps} gaps")
            if len(ledger.confirmed(index)) < ledger.issued(index) * 0.5:
                faults.append(f"{name}: {len(ledger.confirmed(index))} confirmed of {ledger.issued(index)}")
    if list((folder / "spill").iterdir()):
        faults.append("the spill is not empty")
    return faults


def main(folder: Path, lives: int, seed: str) -> None:
    chance, ledger = random.Random(seed), Ledger()
    began = time.monotonic()
    other = forked(partial(lock_and_unlock, folder, random.Random(seed)))
    try:
        killed, spilled, faults = kill_some(folder, ledger, lives, chance)
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    child = forked(lambda: asyncio.run(live(folder, ledger, 5)))
    if os.waitpid(child, 0)[1]:
        faults.append("the last life did not end well")
    faults += checked(folder, ledger)
    issued = [ledger.issued(index) for index in range(len(SOURCES))]
    took = time.monotonic() - began
    account = {"killed": killed, "found in the spill": spilled, "deliveries": issued, "seconds": round(took, 1)}
    print(json.dumps(account | {"faults": faults}))


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
