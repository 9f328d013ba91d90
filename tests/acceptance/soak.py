"""A day's trouble in minutes: two servers, cut, stalled and restarted by chance, a database that goes away, and our own
restarts, while numbers are counted. ``python -m tests.acceptance.soak [--minutes 10] [--seed 1]``, or ``make soak``.

Trouble comes in rounds; between them all is left to settle, and memory, tasks, threads and open files are measured.
"""

import argparse
import asyncio
import gc
import logging
import os
import random
import sqlite3
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from plugin.acquire.source import OpcUaSource
from plugin.diagnostics import Diagnostics
from plugin.domain import SampleBatch, Tag
from plugin.fields import ByteCount
from plugin.historian.config import SpillConfig
from plugin.historian.ingest import Ingest
from plugin.historian.spilling.spill import Spill
from plugin.historian.sqlite.store import SqliteStore
from plugin.opening import open_spill
from tests.acceptance.account import Account, account
from tests.acceptance.proxy import Fault, Proxy
from tests.acceptance.scripted import URI, Server
from tests.integration.acquire_plant import config, until

TAGS = 40
PERIOD = 0.05  # [s] between two numbers
ROUND = 8.0  # [s] of trouble before the next rest
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Rest:
    """What was measured while nothing was wrong."""

    minute: float
    memory: float
    """Resident [MiB]."""
    tasks: int
    threads: int
    files: int


@dataclass(slots=True)
class Report:
    """All that a soak has to say."""

    accounts: dict[str, Account] = field(default_factory=dict)
    rests: list[Rest] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    gaps: Counter[str] = field(default_factory=Counter)
    failures: float = 0.0
    disorder: list[str] = field(default_factory=list)

    def growth(self) -> float:
        """Of memory, by a straight line through the second half of the rests [MiB per hour]."""
        half = self.rests[len(self.rests) // 2 :]
        if len(half) < 3:
            return 0.0
        slope = np.polyfit([rest.minute for rest in half], [rest.memory for rest in half], 1)[0]
        return float(slope) * 60

    def faults(self, *, memory: bool) -> list[str]:
        """What is wrong; empty: nothing."""
        found = [f"{name}: {fault}" for name, each in self.accounts.items() for fault in each.faults[:10]]
        found += self.disorder[:10]
        if self.failures:
            found.append(f"{self.failures:g} unexpected errors")
        half = self.rests[len(self.rests) // 2 :]
        for what in ("tasks", "threads", "files"):
            seen = [getattr(rest, what) for rest in half]
            middle = len(seen) // 2
            if max(seen) - min(seen) > 4 or (len(seen) > 6 and min(seen[middle:]) > max(seen[:middle])):
                found.append(f"the number of {what} is not constant: {seen}")
        minutes = half[-1].minute - half[0].minute
        if memory and self.growth() * minutes / 60 > max(2.0, 0.01 * half[0].memory):
            found.append(f"memory grows by {self.growth():.1f} MiB per hour")
        return found


class Order:
    """What is committed, in order of commit: a number that is new comes behind all that came before it."""

    def __init__(self, tags: int) -> None:
        self._newest = [0] * (tags + 1)
        self._seen = [bytearray(1 << 17) for _ in range(tags + 1)]
        self.again = 0
        self.disorder: list[str] = []

    def take(self, batch: SampleBatch) -> None:
        for tag, value in zip(batch.tag.tolist(), batch.value.tolist(), strict=True):
            number = int(value) if value > 0 else 0
            if self._seen[tag][number]:
                self.again += bool(number)
                continue
            self._seen[tag][number] = 1
            if number < self._newest[tag]:
                self.disorder.append(f"tag {tag}: {number} was committed after {self._newest[tag]}")
            self._newest[tag] = max(self._newest[tag], number)


@dataclass(slots=True)
class Plant:
    """One of the two."""

    name: str
    server: Server
    proxy: Proxy
    dice: random.Random

    async def write(self) -> None:
        """Numbers for ever."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + PERIOD, loop.time())
            await asyncio.sleep(due - loop.time())
            self.server.write()

    async def trouble(self, events: Counter[str], seconds: float) -> None:
        """One misfortune after the other."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0:
            await asyncio.sleep(min(left, self.dice.uniform(0.2, 2.0)))
            what = self.dice.choice((self._cut, self._cut, self._cut, self._stall, self._restart, self._forget))
            events[f"{self.name} {what.__name__[1:]}"] += 1
            await what()

    async def _cut(self) -> None:
        await self.proxy.outage(self.dice.choice(list(Fault)), self.dice.uniform(0.05, 3.0))

    async def _stall(self) -> None:
        await self.server.stall(self.dice.uniform(0.1, 3.0))

    async def _restart(self) -> None:
        await self.server.stop()
        await asyncio.sleep(self.dice.uniform(0.0, 1.0))
        await self.server.start()

    async def _forget(self) -> None:
        self.server.drop_sessions(subscriptions=self.dice.random() < 0.5)


class Soak:
    """The parts of one run."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.dice = random.Random(seed)
        self.report = Report()
        self.diagnostics = Diagnostics()
        self.order = Order(2 * TAGS)
        self.database = folder / "soak.db"
        self.sources: list[OpcUaSource] = []
        self.plants: list[Plant] = []
        self.store: SqliteStore
        self.tags: tuple[Tag, ...] = ()

    async def run(self, minutes: float) -> Report:
        """Rounds of trouble and rest, then the account."""
        async with AsyncExitStack() as stack:
            for name in ("north", "south"):
                server = await stack.enter_async_context(Server(TAGS))
                proxy = await stack.enter_async_context(Proxy(server.port))
                self.plants.append(Plant(name, server, proxy, random.Random(self.dice.random())))
            url, wait = f"sqlite+aiosqlite:///{self.database}", timedelta(milliseconds=100)
            self.store = await stack.enter_async_context(SqliteStore(url, self.diagnostics, busy_timeout=wait))
            names = [(plant.name, number) for plant in self.plants for number in range(TAGS)]
            tags = [Tag(f"{plant}.t{number}", plant, f"nsu={URI};s=t{number}") for plant, number in names]
            self.tags = await self.store.register_tags(tags)
            await self._rounds(minutes)
            await self._account()
        return self.report

    async def _rounds(self, minutes: float) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        async with self._acquiring():  # what is written before the first connection was never ours
            await until(lambda: all(source.connected() for source in self.sources), 60)
        writing = [asyncio.create_task(plant.write()) for plant in self.plants]
        try:
            while (spent := (loop.time() - begin) / 60) < minutes:
                async with self._acquiring():
                    for _ in range(self.dice.randrange(1, 4)):  # rounds in one life of ours
                        await self._settled()
                        self._measure(spent)
                        await self._trouble(ROUND if minutes > 1 else ROUND / 4)
                        spent = (loop.time() - begin) / 60
                        if spent > minutes:
                            break
                    if spent > minutes:
                        await self._settled()
                self.report.events["restart of ours"] += 1
        finally:
            for task in writing:
                task.cancel()
            await asyncio.wait(writing)
        async with self._acquiring():
            await self._settled()
            self._measure(spent)

    @asynccontextmanager
    async def _acquiring(self) -> AsyncIterator[None]:
        """Our service, as far as acquisition goes."""
        spill = Spill(self.folder / "spill", SpillConfig(after=timedelta(milliseconds=500), reserve=ByteCount(0)))
        left = await open_spill(spill, self.store, self.tags, self.diagnostics)
        newest = await self.store.latest([tag.id for tag in self.tags])
        known = dict(zip(newest.tag.tolist(), newest.source_time.tolist(), strict=True))
        for tag in self.tags:
            if tag.name in left.known:
                known[tag.id] = max(known.get(tag.id, 0), left.known[tag.name])
        self.sources = []
        for plant in self.plants:
            own = [tag for tag in self.tags if tag.source == plant.name]
            marks = left.checkpoints_after(await self.store.checkpoints(f"{plant.name}/"), f"{plant.name}/")
            settings = config(plant.proxy.port, name=plant.name, subscription_size=10, bridge="60s")
            sessions = self.folder / "sessions"
            self.sources.append(
                OpcUaSource(settings, own, self.diagnostics, self.folder / "pki", known, marks, session_folder=sessions)
            )
        ingest = Ingest(self.sources, self.store, self.diagnostics, on_commit=[self.order.take], spill=spill)
        running = asyncio.create_task(ingest.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])
            spill.close()

    async def _trouble(self, seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            for plant in self.plants:
                group.create_task(plant.trouble(self.report.events, seconds))
            if self.dice.random() < 0.5:
                group.create_task(self._database_away(self.dice.uniform(0.3, seconds / 2)))

    async def _database_away(self, seconds: float) -> None:
        self.report.events["database away"] += 1
        with closing(sqlite3.connect(self.database, isolation_level=None, timeout=30)) as other:
            other.execute("BEGIN EXCLUSIVE")
            await asyncio.sleep(seconds)
            other.execute("ROLLBACK")

    async def _settled(self) -> None:
        """Both sources run, and the newest number of each is in the database, though no newer one may ever follow."""
        await until(lambda: all(source.connected() for source in self.sources), 60)
        await asyncio.sleep(1.0)
        wanted = {plant.name: plant.server.last for plant in self.plants}
        async with asyncio.timeout(60):
            while not await self._stored(wanted):
                await asyncio.sleep(0.1)

    async def _stored(self, wanted: Mapping[str, int]) -> bool:
        """The database is asked: a commit that our end overtook is told to nobody, and is there all the same."""
        newest = await self.store.latest([tag.id for tag in self.tags])
        numbers = dict(zip(newest.tag.tolist(), newest.value.tolist(), strict=True))
        return all(numbers.get(tag.id, 0.0) >= wanted[tag.source] for tag in self.tags)

    def _measure(self, minute: float) -> None:
        gc.collect()
        memory = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20
        files = sum(1 for _ in Path("/proc/self/fd").iterdir())
        tasks = sum(not _of_the_tests(task) for task in asyncio.all_tasks())
        self.report.rests.append(Rest(minute, memory, tasks, threading.active_count(), files))

    async def _account(self) -> None:
        gaps = await self.store.gaps(limit=1_000_000)
        self.report.gaps = Counter(f"{gap.source} {gap.cause}" for gap in gaps)
        self.report.failures = self.diagnostics.total("task_failures_total")
        self.report.disorder = self.order.disorder
        for plant in self.plants:
            own = {tag.id: tag.name for tag in self.tags if tag.source == plant.name}
            rows = await self.store.read_samples(list(own), 0, 1 << 60)
            mine = [gap for gap in gaps if gap.source == plant.name]
            self.report.accounts[plant.name] = account(plant.server.times, own, [rows], mine)


def _of_the_tests(task: asyncio.Task[Any]) -> bool:
    coroutine: Any = task.get_coro()
    return Path(coroutine.cr_code.co_filename).is_relative_to(Path(__file__).parents[1])


def show(report: Report, *, memory: bool) -> str:
    """A table and a verdict."""
    lines = ["plant     written    stored   in gaps"]
    lines += [f"{name:8}{a.written:9}{a.stored:10}{a.in_gaps:10}" for name, a in report.accounts.items()]
    lines.append("events:  " + ", ".join(f"{count} × {name}" for name, count in sorted(report.events.items())))
    lines.append(
        "gaps:    " + (", ".join(f"{count} × {name}" for name, count in sorted(report.gaps.items())) or "none")
    )
    first, last = report.rests[len(report.rests) // 2], report.rests[-1]
    lines.append(
        f"at rest: {first.memory:.1f} MiB at {first.minute:.1f} min, {last.memory:.1f} MiB at {last.minute:.1f} min "
        f"({report.growth():+.1f} MiB per hour); tasks {last.tasks}, threads {last.threads}, open files {last.files}"
    )
    faults = report.faults(memory=memory)
    lines += [f"FAULT: {fault}" for fault in faults]
    lines.append("PASSED: stored and in gaps is all that was written" if not faults else "FAILED")
    return "\n".join(lines)


def main() -> int:
    """The exit status: 0 where it passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(Soak(Path(folder), arguments.seed).run(arguments.minutes))
    print(show(report, memory=True))
    return bool(report.faults(memory=True))


if __name__ == "__main__":
    sys.exit(main())
