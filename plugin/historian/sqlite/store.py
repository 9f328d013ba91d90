"""The store that a plant runs on: one SQLite file, its write-ahead log, and a ring of the newest samples in memory."""

import asyncio
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Self

from plugin.diagnostics import Diagnostics
from plugin.domain import Grid, Micros, SampleBatch, Tag, Window
from plugin.historian.arrived import Arrived, refuse_strangers
from plugin.historian.config import HistorianConfig
from plugin.historian.keeping.disk import watch
from plugin.historian.keeping.dropping import retention
from plugin.historian.keeping.upkeep import Chore
from plugin.historian.migrate import prepare
from plugin.historian.recent.grids import Gathering
from plugin.historian.recent.ring import Ring
from plugin.historian.sqlite import samples
from plugin.historian.sqlite.archive import SqliteArchive
from plugin.historian.sqlite.connections import SqliteFile
from plugin.historian.sqlite.refill import refill
from plugin.historian.sqlite.seen import select_seen
from plugin.historian.sqlite.selecting import latest_samples, select_samples
from plugin.protocols import Delivery, Written

_REFILL_ROWS = 1_000_000
"""Newest rows read into the ring at most when the store opens: a second or two."""


class SqliteStore(SqliteArchive):
    """See :class:`plugin.protocols.Store`; an async context manager, open while the context lasts.

    One process writes samples, and it alone may have a ring, which does not see what others add.
    """

    def __init__(
        self,
        url: str,
        diagnostics: Diagnostics | None = None,
        *,
        synchronous: str = "full",
        busy_timeout: timedelta = timedelta(seconds=5),
        ring: Ring | None = None,
        pragmas: Mapping[str, str | int] | None = None,
    ) -> None:
        """``ring``: serves the newest samples; None: SQL serves all, as it must beside the process that writes them.

        ``pragmas``: further SQLite settings of the connection that writes, such as ``max_page_count``.
        """
        diagnostics = diagnostics or Diagnostics()
        file = SqliteFile(
            url,
            synchronous=synchronous,
            busy_timeout=busy_timeout,
            pragmas=pragmas or {},
            diagnostics=diagnostics,
        )
        super().__init__(file, diagnostics)
        self.path: Path = self._file.path
        self._url = url
        self._ring = ring

    @classmethod
    def configured(
        cls, config: HistorianConfig, data: Path, diagnostics: Diagnostics, *, with_ring: bool = True
    ) -> Self:
        """The store of a configuration whose relative files lie in ``data``.

        ``with_ring``: one that holds nothing until :meth:`keep_recent`; False for a command beside the running service.
        """
        return cls(
            config.located(data),
            diagnostics,
            synchronous=config.synchronous,
            busy_timeout=config.busy_timeout,
            ring=Ring(config.ring_samples, config.ring_memory * 2**20, ()) if with_ring else None,
        )

    # --- opening and closing ---

    async def open(self) -> None:
        """Make a new database or check the one that is there, and fill the ring from it."""
        await asyncio.to_thread(prepare, self._url)
        self._file.open()
        try:
            # The writer first: it makes the write-ahead log, without which a reader can't open.
            await self._file.write(self._refill)
            await self._recall()
        except BaseException:
            await self.close()
            raise

    def _refill(self, database: sqlite3.Connection) -> None:
        self._last_tag = database.execute("SELECT coalesce(max(id), 0) FROM tags").fetchone()[0]
        if self._ring is not None:
            refill(database, self._ring, self._last_tag, _REFILL_ROWS)

    async def keep_recent(self, tags: Collection[int]) -> None:
        """Have the ring, where there is one, hold these tags and no others: those that are read again and again."""
        if self._ring is not None and not self._ring.holds(tags):
            await self._file.write(self._exchange, self._ring.for_tags(tags))

    def _exchange(self, database: sqlite3.Connection, ring: Ring) -> None:
        """In the thread of the commits: none falls between the filling and the exchange."""
        refill(database, ring, self._last_tag, _REFILL_ROWS)
        self._ring = ring

    async def close(self) -> None:
        """Wait for what the database's threads are doing, and end them."""
        await self._file.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    def chores(self, config: HistorianConfig) -> tuple[Chore, ...]:
        """What is to be done beside the writing, for as long as the service runs."""
        return (
            *self._closing(config),
            retention(self._file, config, self._diagnostics),
            watch(self._file, config, self._diagnostics),
        )

    # --- what arrives ---

    async def register_tags(self, tags: Sequence[Tag]) -> tuple[Tag, ...]:
        """See the protocol."""
        registered, last = await self._put_tags(tags)
        if self._ring is not None:
            await asyncio.to_thread(self._ring.reserve, last)  # it may have to move 256 MB
        self._last_tag = last
        return registered

    async def write(self, deliveries: Sequence[Delivery]) -> Written:
        """See the protocol. A sample of a tag that was never registered refuses the whole write (StoreError)."""
        arrived = Arrived.of(deliveries)
        refuse_strangers(arrived.batch, self._last_tag, f"{self.path}: samples")
        return Written(0, 0) if arrived.empty else await self._file.write(self._commit, arrived)

    def _commit(self, database: sqlite3.Connection, arrived: Arrived) -> Written:
        with self._diagnostics.stage("store"):
            with self._known(database) as newest:
                # The clock is read with the lock held: a run that is begun later has a later time, and sees all this.
                now = time.time_ns() // 1000
                batch = self._looks.arrive(arrived.batch, now)
                written = samples.insert_samples(database, batch, self._closed_until)
                newest.stored(database, batch)
                samples.count(database, written.stored)
                samples.upsert_gaps(database, arrived.gaps, now)
                samples.upsert_checkpoints(database, arrived.checkpoints)
                samples.upsert_remarks(database, arrived.remarks)
            if self._ring is not None:
                # In the thread of the commit: a caller that is cancelled can't part the ring from the database.
                self._ring.reserve(self._last_tag)
                self._ring.append(batch)
        return written

    def _corrected(self, batch: SampleBatch) -> None:
        if self._ring is not None:
            self._ring.correct(batch)

    async def read_samples(
        self,
        tags: Sequence[int],
        start: Micros,
        end: Micros,
        *,
        known_by: Micros | None = None,
        received_by: Micros | None = None,
    ) -> SampleBatch:
        """See the protocol. From the ring where it covers the window of every tag, else from SQL."""
        return await self._file.read(self._select, tags, start, end, known_by, received_by)

    def _select(
        self,
        database: sqlite3.Connection,
        tags: Sequence[int],
        start: Micros,
        end: Micros,
        known_by: Micros | None,
        received_by: Micros | None,
    ) -> SampleBatch:
        batch = self._ring.read(tags, start, end) if self._ring is not None else None
        if batch is None:
            return select_samples(database, tags, start, end, known_by, received_by)
        return batch.known(known_by, received_by)

    async def grid(self, window: Window, *, known_by: Micros | None = None, received_by: Micros | None = None) -> Grid:
        """See the protocol. Tags that tick like a clock are copied from the ring as they are."""
        return await self._file.read(self._grid, window, known_by, received_by)

    def _grid(
        self, database: sqlite3.Connection, window: Window, known_by: Micros | None, received_by: Micros | None
    ) -> Grid:
        with self._diagnostics.stage("window"):
            gathering = Gathering(window, self._ring, known_by, received_by)
            return gathering.grid(
                [
                    select_seen(database, tags, start, window.end, known_by, received_by)
                    for tags, start in gathering.asks
                ]
            )

    async def latest(self, tags: Sequence[int]) -> SampleBatch:
        """See the protocol; ordered by tag."""
        return await self._file.read(self._latest, tags)

    def _latest(self, database: sqlite3.Connection, tags: Sequence[int]) -> SampleBatch:
        if self._ring is None:
            return latest_samples(database, tags)
        batch, unknown = self._ring.latest(tags)
        if unknown:
            batch = SampleBatch.concatenate([batch, latest_samples(database, unknown)])
            batch = batch.take(batch.tag.argsort(kind="stable"))
        return batch
