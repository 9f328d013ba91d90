"""The store of a bigger plant, or of several gateways: a PostgreSQL database, and a ring of the newest samples."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Self

from plugin.diagnostics import Diagnostics
from plugin.domain import Grid, Micros, SampleBatch, Tag, Window
from plugin.ending import to_its_end
from plugin.historian.arrived import Arrived, refuse_strangers
from plugin.historian.config import HistorianConfig
from plugin.historian.keeping.disk import watch
from plugin.historian.keeping.dropping import retention
from plugin.historian.keeping.upkeep import Chore
from plugin.historian.migrate import prepare
from plugin.historian.postgres import samples, selecting
from plugin.historian.postgres.archive import PostgresArchive, clock
from plugin.historian.postgres.connections import Place, PostgresServer
from plugin.historian.postgres.fence import Fence, refuse_tags_of_others
from plugin.historian.recent.grids import Gathering
from plugin.historian.recent.ring import Ring
from plugin.protocols import Delivery, Written

_log = logging.getLogger(__name__)

_LOOK, _LOOKS = timedelta(seconds=2), 30
_REFILL_ROWS = 1_000_000
"""Newest rows read into the ring at most when the store opens: a second or two."""


class PostgresStore(PostgresArchive):
    """See :class:`plugin.protocols.Store`; an async context manager, open while the context lasts.

    A process that has a ring has to be the only one that writes samples of the tags in it: it does not see what others
    add.
    """

    def __init__(
        self,
        url: str,
        diagnostics: Diagnostics | None = None,
        *,
        synchronous: str = "full",
        busy_timeout: timedelta = timedelta(seconds=5),
        ring: Ring | None = None,
        fence: Fence | None = None,
    ) -> None:
        """``url``: with the password. ``ring``: serves the newest samples; None: SQL serves all.

        ``fence``: of a gateway that shares the database with others; one that was replaced writes nothing.
        """
        place = Place.of(url)
        server = PostgresServer(place, synchronous=synchronous, busy_timeout=busy_timeout, fence=fence)
        super().__init__(server, diagnostics or Diagnostics())
        self._fence = fence
        self._url = url
        self._ring = ring
        self._overlapping = False
        """The last batch held samples that were there already; the next one is likely to."""
        self._brought = 0
        """Samples that others had brought when the ring was filled."""
        self._last_brought = 0
        self._looked = 0
        """How often there were more of them since."""

    @classmethod
    def configured(
        cls,
        config: HistorianConfig,
        data: Path,
        diagnostics: Diagnostics,
        *,
        with_ring: bool = True,
        fence: Fence | None = None,
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
            fence=fence,
        )

    # --- opening and closing ---

    async def open(self) -> None:
        """Fill an empty database with tables or check those that are there, and fill the ring."""
        await asyncio.to_thread(prepare, self._url)
        self._server.open()
        try:
            async with self._server.copying() as connection:
                self._last_tag = await connection.fetchval("SELECT coalesce(max(id), 0) FROM tags")
                if self._ring is not None:
                    await self._fill(connection, self._ring)
            if extension := await self._server.timescale():
                _log.info("%s: %s", self._server.place, extension)
            await self._recall()
        except BaseException:
            await self.close()
            raise

    async def _fill(self, connection: samples.Connection, ring: Ring) -> None:
        ring.reserve(self._last_tag)
        if ring.tags == ():
            return
        self._brought = await samples.brought(connection)
        rows, missing = await selecting.newest_open(connection, _REFILL_ROWS, ring.tags)
        ring.leave_out(await selecting.tags_with_text(connection, missing))
        ring.cover_each_from(await selecting.corrected_until(connection))
        if missing is None:
            held = range(1, self._last_tag + 1) if ring.tags is None else ring.tags
            closed, since = await selecting.newest_closed(connection, _REFILL_ROWS, held, ring.capacity)
            ring.cover_each_from(since)
            rows = selecting.both(rows, closed)
        await asyncio.to_thread(ring.append, rows.samples)
        if missing is not None:
            ring.cover_from(missing + 1)

    @to_its_end
    async def keep_recent(self, tags: Collection[int]) -> None:
        """Have the ring, where there is one, hold these tags and no others: those that are read again and again."""
        if self._ring is None or self._ring.holds(tags):
            return
        ring = self._ring.for_tags(tags)
        async with self._server.turn, self._server.copying() as connection:
            await self._fill(connection, ring)  # in our turn: no commit falls between the filling and the exchange
            self._ring = ring

    @to_its_end
    async def _take_what_was_brought(self) -> None:
        """The ring does not see what comes beside this gateway: an import, a correction, the spill of another one.

        It is filled anew when nothing more came between two looks, or has come for a minute.
        """
        ring = self._ring
        if ring is None or not ring.tags:
            return
        async with self._server.turn, self._server.copying() as connection:
            brought, before = await samples.brought(connection), self._last_brought
            self._last_brought = brought
            self._looked += brought != self._brought
            if brought != self._brought and (brought == before or self._looked >= _LOOKS):
                again = ring.for_tags(ring.tags)
                await self._fill(connection, again)
                self._ring, self._looked = again, 0

    async def close(self) -> None:
        """End the connections, once nobody writes any more."""
        async with self._server.turn:
            await self._server.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    def chores(self, config: HistorianConfig) -> tuple[Chore, ...]:
        """What is to be done beside the writing, for as long as the service runs.

        What changes the database is done by one gateway at a time.
        """
        tidying = *self._tidying(config), retention(self._server, config, self._diagnostics)
        looking = Chore("looking for samples from elsewhere", _LOOK, self._take_what_was_brought)
        return (*map(self._alone, tidying), watch(self._server, config, self._diagnostics), looking)

    def _alone(self, chore: Chore) -> Chore:
        async def do() -> None:
            async with self._server.alone(chore.name) as free:
                if free:
                    await chore.do()

        return replace(chore, do=do)

    # --- what arrives ---

    async def register_tags(self, tags: Sequence[Tag]) -> tuple[Tag, ...]:
        """See the protocol. StoreError where a tag belongs to another shard."""
        if self._fence is not None:
            async with self._server.copying() as connection:
                await refuse_tags_of_others(connection, self._fence.shard, tags)
        registered, last = await self._put_tags(tags)
        if self._ring is not None:
            await asyncio.to_thread(self._ring.reserve, last)  # it may have to move 256 MB
        self._last_tag = last
        return registered

    async def write(self, deliveries: Sequence[Delivery]) -> Written:
        """See the protocol. A sample of a tag that was never registered refuses the whole write (StoreError)."""
        arrived = Arrived.of(deliveries)
        refuse_strangers(arrived.batch, self._last_tag, f"{self._server.place}: samples")
        return Written(0, 0) if arrived.empty else await self._write(arrived)

    @to_its_end
    async def _write(self, arrived: Arrived) -> Written:
        with self._diagnostics.stage("store"):
            async with self._server.turn:
                if not (self._overlapping or arrived.batch.text is not None):
                    with suppress(samples.Overlap):
                        return await self._commit(arrived, merging=False)
                written = await self._commit(arrived, merging=True)
                self._overlapping = arrived.batch.text is None and written.duplicates > 0
                return written

    async def _commit(self, arrived: Arrived, *, merging: bool) -> Written:
        async with self._server.copying() as connection, connection.transaction():
            await self._server.check(connection)
            # The clock is read in our turn: a run that is begun later has a later time, and sees all this.
            now = clock()
            batch = self._looks.arrive(arrived.batch, now)
            books = await samples.books(connection)
            written = await self._insert(connection, batch, books, merging=merging)
            await samples.put_late(connection, batch, books.late_before)
            await samples.upsert_gaps(connection, arrived.gaps, now)
            await samples.upsert_checkpoints(connection, arrived.checkpoints)
            await samples.upsert_remarks(connection, arrived.remarks)
            await self._count(connection, written.stored)
        if self._ring is not None:
            self._ring.reserve(self._last_tag)
            await asyncio.to_thread(self._ring.append, batch)
        return written

    async def _insert(
        self, connection: samples.Connection, batch: SampleBatch, books: samples.Books, *, merging: bool
    ) -> Written:
        late = batch.source_time < books.closed_until
        prompt, behind = batch.take(~late), batch.take(late)
        written = Written(0, 0)
        if len(prompt):
            written = await (samples.merge if merging else samples.append)(connection, prompt)
        if len(behind):
            more = await samples.merge(connection, behind, await selecting.closed_at(connection, behind))
            written = Written(written.stored + more.stored, written.duplicates + more.duplicates)
        return written

    async def _count(self, connection: samples.Connection, more: int, replaced: int = 0) -> None:
        await samples.count(connection, more, self._fence.shard if self._fence is not None else None, replaced)

    def _corrected(self, batch: SampleBatch) -> None:
        if self._ring is not None:
            self._ring.correct(batch)

    # --- what is read ---

    @to_its_end
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
        batch = await asyncio.to_thread(self._ring.read, tags, start, end) if self._ring is not None else None
        if batch is None:
            async with self._server.copying() as connection, connection.transaction(readonly=True):
                return await selecting.select_samples(connection, tags, start, end, known_by, received_by)
        return batch.known(known_by, received_by)

    async def grid(self, window: Window, *, known_by: Micros | None = None, received_by: Micros | None = None) -> Grid:
        """See the protocol. Tags that tick like a clock are copied from the ring as they are."""
        gathering = await asyncio.to_thread(self._gather, window, known_by, received_by)
        read = []
        if gathering.asks:
            async with self._server.copying() as connection, connection.transaction(readonly=True):
                for tags, start in gathering.asks:
                    read.append(
                        await selecting.select_samples(connection, tags, start, window.end, known_by, received_by)
                    )
        return await asyncio.to_thread(self._computed, gathering, read)

    def _gather(self, window: Window, known_by: Micros | None, received_by: Micros | None) -> Gathering:
        with self._diagnostics.stage("window"):
            return Gathering(window, self._ring, known_by, received_by)

    def _computed(self, gathering: Gathering, read: Sequence[SampleBatch]) -> Grid:
        with self._diagnostics.stage("window"):
            return gathering.grid(read)

    @to_its_end
    async def latest(self, tags: Sequence[int]) -> SampleBatch:
        """See the protocol; ordered by tag."""
        batch, unknown = self._ring.latest(tags) if self._ring is not None else (SampleBatch.empty(), tags)
        if unknown:
            async with self._server.copying() as connection, connection.transaction(readonly=True):
                rest = await selecting.latest_samples(connection, unknown)
            batch = SampleBatch.concatenate([batch, rest])
            batch = batch.take(batch.tag.argsort(kind="stable"))
        return batch
