"""The store that a plant runs on: one SQLite file, its write-ahead log, and a ring of the newest samples in memory."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import numpy as np
from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from plugin.diagnostics import Diagnostics
from plugin.domain import (
    Flag,
    Gap,
    GapCause,
    Micros,
    ModelState,
    ModelVersion,
    Outcome,
    OutputTag,
    Prediction,
    Remark,
    Run,
    SampleBatch,
    Tag,
)
from plugin.errors import StoreError
from plugin.historian import queries, records, samples
from plugin.historian.config import HistorianConfig
from plugin.historian.looks import Looks
from plugin.historian.migrate import prepare
from plugin.historian.ring import Ring
from plugin.historian.sqlite import (
    database_path,
    in_thread,
    reading_engine,
    to_its_end,
    transaction,
    translated,
    writing_engine,
)
from plugin.protocols import Delivery, Written

P = ParamSpec("P")
T = TypeVar("T")

_READERS = 4
_REFILL_ROWS = 1_000_000
"""Newest rows read into the ring at most when the store opens: a second or two."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What ``foretag status`` says of the historian."""

    counts: Mapping[str, int]
    """Rows by table."""
    newest: Micros | None
    """Newest source time of all samples; None: there are none."""
    size: int
    """Database with its write-ahead log [byte]."""
    open_gaps: int


class SqlStore:
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
        self.path: Path = database_path(url)
        self._url = url
        self._diagnostics = diagnostics or Diagnostics()
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout.total_seconds()
        self._pragmas = dict(pragmas or {})
        self._ring = ring
        self._last_tag = 0
        self._blank: set[int] = set()
        """Tags that are new since it is open, and have no sample: no need to read the whole table for one."""
        self._looks = Looks()
        self._outputs: dict[OutputTag, int] = {}
        self._writer: AsyncEngine | None = None
        self._reader: AsyncEngine | None = None

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
        timeout = self._busy_timeout
        self._writer = writing_engine(
            self._url, synchronous=self._synchronous, busy_timeout=timeout, pragmas=self._pragmas
        )
        self._reader = reading_engine(self._url, busy_timeout=timeout, size=_READERS)
        try:
            # The writer first: it makes the write-ahead log, without which a reader can't open.
            await self._in_thread(self._writer, self._refill)
            for run in await self._rows(queries.last_look()):
                self._looks.begun(records.run_of(run))
        except BaseException:
            await self.close()
            raise

    def _refill(self, database: sqlite3.Connection) -> None:
        self._last_tag = database.execute("SELECT coalesce(max(id), 0) FROM tags").fetchone()[0]
        if self._ring is not None:
            self._fill(database, self._ring)

    def _fill(self, database: sqlite3.Connection, ring: Ring) -> None:
        ring.reserve(self._last_tag)
        if ring.tags == ():
            return
        batch, missing = samples.newest_samples(database, _REFILL_ROWS, ring.tags)
        ring.leave_out(samples.tags_with_text(database, missing))
        ring.append(batch)
        if missing is not None:
            ring.cover_from(missing + 1)

    async def keep_recent(self, tags: Collection[int]) -> None:
        """Have the ring, where there is one, hold these tags and no others: those that are read again and again."""
        if self._ring is not None and not self._ring.holds(tags):
            await self._in_thread(self._writer, self._exchange, self._ring.for_tags(tags))

    def _exchange(self, database: sqlite3.Connection, ring: Ring) -> None:
        """In the thread of the commits: none falls between the filling and the exchange."""
        self._fill(database, ring)
        self._ring = ring

    async def close(self) -> None:
        """Wait for what the database's threads are doing, and end them."""
        engines, self._writer, self._reader = (self._reader, self._writer), None, None
        for engine in engines:
            if engine is not None:
                await engine.dispose()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    @asynccontextmanager
    async def _begin(self, engine: AsyncEngine | None) -> AsyncIterator[AsyncConnection]:
        """A transaction; the writer's connection is one, so its transactions come one after another."""
        if engine is None:
            raise StoreError(f"{self.path} is not open")
        with translated(self.path):
            async with engine.begin() as connection:
                yield connection

    async def _in_thread(
        self,
        engine: AsyncEngine | None,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        if engine is None:
            raise StoreError(f"{self.path} is not open")
        with translated(self.path):
            async with engine.connect() as connection:
                return await in_thread(connection, function, *args, **kwargs)

    @to_its_end
    async def _rows(self, query: Select[Any]) -> Sequence[Any]:
        async with self._begin(self._reader) as connection:
            rows: Sequence[Any] = (await connection.execute(query)).all()
            return rows

    # --- what arrives ---

    @to_its_end
    async def register_tags(self, tags: Sequence[Tag]) -> tuple[Tag, ...]:
        """See the protocol. Where nothing changes nothing is written, so a database that is locked does not matter."""
        async with self._begin(self._reader) as connection:
            found = await queries.same_tags(connection, tags)
        if found is None:
            async with self._begin(self._writer) as connection:
                found = await queries.put_tags(connection, tags)
        keys, last = found
        if self._ring is not None:
            await asyncio.to_thread(self._ring.reserve, last)  # it may have to move 256 MB
        self._blank.update(range(self._last_tag + 1, last + 1))
        self._last_tag = last
        return tuple(replace(tag, id=keys[tag.name]) for tag in tags)

    async def write(self, deliveries: Sequence[Delivery]) -> Written:
        """See the protocol. A sample of a tag that was never registered refuses the whole write (StoreError)."""
        batch = SampleBatch.concatenate([delivery.samples for delivery in deliveries])
        gaps = [gap for delivery in deliveries for gap in delivery.gaps]
        remarks = [remark for delivery in deliveries for remark in delivery.remarks]
        checkpoints = {key: text for delivery in deliveries for key, text in delivery.checkpoint.items()}
        if len(batch) and (batch.tag.min() < 1 or batch.tag.max() > self._last_tag):
            unknown = sorted({int(tag) for tag in batch.tag if not 1 <= tag <= self._last_tag})
            raise StoreError(f"{self.path}: samples of tags that are not registered: {unknown[:10]}")
        if not (len(batch) or gaps or checkpoints or remarks):
            return Written(0, 0)
        return await self._in_thread(self._writer, self._commit, batch, gaps, checkpoints, remarks)

    def _commit(
        self,
        database: sqlite3.Connection,
        batch: SampleBatch,
        gaps: Sequence[Gap],
        checkpoints: Mapping[str, str],
        remarks: Sequence[Remark],
    ) -> Written:
        with self._diagnostics.stage("store"):
            if self._blank:
                self._blank.difference_update(np.unique(batch.tag).tolist())
            with transaction(database):
                # The clock is read with the lock held: a run that is begun later has a later time, and sees all this.
                now = time.time_ns() // 1000
                batch = self._looks.arrive(batch, now)
                written = samples.insert_samples(database, batch)
                samples.upsert_gaps(database, gaps, now)
                samples.upsert_checkpoints(database, checkpoints)
                samples.upsert_remarks(database, remarks)
            if self._ring is not None:
                # In the thread of the commit: a caller that is cancelled can't part the ring from the database.
                self._ring.reserve(self._last_tag)
                self._ring.append(batch)
        return written

    async def checkpoints(self, prefix: str) -> Mapping[str, str]:
        """See the protocol."""
        return {row.key: row.value for row in await self._rows(queries.checkpoints(prefix))}

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
        return await self._in_thread(self._reader, self._select, tags, start, end, known_by, received_by)

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
            return samples.select_samples(database, tags, start, end, known_by, received_by)
        if known_by is not None:
            batch = batch.take(batch.server_time <= known_by)
        if received_by is not None:
            batch = batch.take(batch.received_time <= received_by)
        return batch

    async def latest(self, tags: Sequence[int]) -> SampleBatch:
        """See the protocol; ordered by tag."""
        return await self._in_thread(self._reader, self._latest, tags)

    def _latest(self, database: sqlite3.Connection, tags: Sequence[int]) -> SampleBatch:
        wanted = [tag for tag in tags if tag not in self._blank]
        if self._ring is None:
            return samples.latest_samples(database, wanted)
        batch, unknown = self._ring.latest(wanted)
        if unknown:
            batch = SampleBatch.concatenate([batch, samples.latest_samples(database, unknown)])
            batch = batch.take(batch.tag.argsort(kind="stable"))
        return batch

    async def gaps(
        self,
        *,
        open_only: bool = False,
        since: datetime | None = None,
        source: str | None = None,
        tag: str | None = None,
        cause: GapCause | None = None,
        known_by: Micros | None = None,
        limit: int = 1000,
    ) -> tuple[Gap, ...]:
        """See the protocol."""
        query = queries.gaps(open_only, since, source, tag, cause, known_by, limit)
        return tuple(records.gap_of(row) for row in await self._rows(query))

    @to_its_end
    async def open_gaps(self) -> int:
        """See the protocol."""
        async with self._begin(self._reader) as connection:
            return await queries.open_gaps(connection)

    async def remarks(
        self, *, tag: str | None = None, since: datetime | None = None, limit: int = 1000
    ) -> tuple[Remark, ...]:
        """See the protocol."""
        return tuple(records.remark_of(row) for row in await self._rows(queries.remarks(tag, since, limit)))

    # --- what models give ---

    @to_its_end
    async def write_run(self, run: Run) -> Run:
        """See the protocol; StoreError where there is no run with its key."""
        async with self._begin(self._writer) as connection:
            if not run.id:
                self._looks.begun(run)
            return await queries.put_run(connection, run)

    @to_its_end
    async def write_outcome(self, outcome: Outcome) -> None:
        """See the protocol. A prediction or flag that its run has written already stays as it is."""
        new = [tag for tag in dict.fromkeys(each.tag for each in outcome.predictions) if tag not in self._outputs]
        async with self._begin(self._writer) as connection:
            keys = self._outputs | (await queries.put_outputs(connection, new) if new else {})
            await queries.put_outcome(connection, outcome, keys)
        self._outputs = keys

    async def predictions(
        self, model: str, start: datetime, end: datetime, *, asset: str | None = None, output: str | None = None
    ) -> tuple[Prediction, ...]:
        """See the protocol."""
        query = queries.predictions(model, start, end, asset, output)
        return tuple(records.prediction_of(row) for row in await self._rows(query))

    async def flags(self, start: datetime, end: datetime, *, asset: str | None = None) -> tuple[Flag, ...]:
        """See the protocol."""
        return tuple(records.flag_of(row) for row in await self._rows(queries.flags(start, end, asset)))

    async def runs(self, model: str, limit: int = 100) -> tuple[Run, ...]:
        """See the protocol."""
        return tuple(records.run_of(row) for row in await self._rows(queries.runs(model, limit)))

    @to_its_end
    async def add_version(self, version: ModelVersion) -> ModelVersion:
        """See the protocol; a champion retires the one before it."""
        async with self._begin(self._writer) as connection:
            return await queries.add_version(connection, version)

    async def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """See the protocol."""
        return tuple(records.version_of(row) for row in await self._rows(queries.versions(model)))

    @to_its_end
    async def set_state(self, model: str, version: int, state: ModelState) -> None:
        """See the protocol; StoreError where there is no such version."""
        async with self._begin(self._writer) as connection:
            await queries.set_state(connection, model, version, state)

    # --- for an operator ---

    @to_its_end
    async def counts(self) -> Mapping[str, int]:
        """See the protocol."""
        async with self._begin(self._reader) as connection:
            return await queries.counts(connection)

    @to_its_end
    async def summary(self) -> Summary:
        """Rows, newest sample, size on disk and open gaps, all of one moment but the size."""
        async with self._begin(self._reader) as connection:
            counts = await queries.counts(connection)
            newest, open_gaps = await queries.newest(connection), await queries.open_gaps(connection)
        files = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        return Summary(counts, newest, sum(file.stat().st_size for file in files if file.exists()), open_gaps)
