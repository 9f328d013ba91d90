"""From the sources into the store: what waits is gathered into one transaction, and confirmed after its commit.

The queue is bounded. While the database is away nothing is confirmed, the queue fills, the sources wait, and the
plant's servers keep what we have not confirmed: what is lost here comes again.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import numpy as np

from plugin.diagnostics import Diagnostics
from plugin.domain import Gap, GapCause, GapState, SampleBatch, from_micros, to_micros
from plugin.errors import StoreError, StoreUnavailable
from plugin.protocols import Delivery, Source, Store, Written

_log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Between two tries of the database [s]."""
_SOURCE_PAUSE = 10.0
"""Before a source that broke down is started again [s]."""
_YEARS = to_micros(datetime.min.replace(tzinfo=UTC)), to_micros(datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class _Taken:
    """A delivery that waits for the database."""

    source: str
    delivery: Delivery


class Ingest:
    """The one writer of samples. ``run`` ends when every source has ended, or is cancelled."""

    def __init__(
        self,
        sources: Sequence[Source],
        store: Store,
        diagnostics: Diagnostics,
        *,
        on_commit: Sequence[Callable[[SampleBatch], None]] = (),
        rows_per_commit: int = 50_000,
        queue: int = 256,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``on_commit`` is told of every batch after its commit; it must be quick and raise nothing."""
        self._sources = tuple(sources)
        self._store = store
        self._diagnostics = diagnostics
        self._on_commit = tuple(on_commit)
        self._rows = rows_per_commit
        self._queue_size = queue
        self._queue: asyncio.Queue[_Taken | None] = asyncio.Queue(queue)
        self._sleep = sleep

    async def run(self) -> None:
        """Take and write until the sources end. Cancelled: what is not committed is not confirmed, so it comes again.

        A transaction that has begun ends by itself, and is waited for when the store is closed. May be run again.
        """
        self._queue = asyncio.Queue(self._queue_size)
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._write(), name="ingest: write")
                async with asyncio.TaskGroup() as takers:
                    for source in self._sources:
                        takers.create_task(self._take(source), name=f"ingest: {source.name}")
                await self._queue.put(None)
                await writer
        finally:
            for source in self._sources:
                self._diagnostics.queue_depth.labels(source.name).set(0)

    # --- taking ---

    async def _take(self, source: Source) -> None:
        """Queue what a source delivers. One that breaks down is counted and started again; the others go on."""
        while True:
            try:
                async with _closed(source.deliveries()) as deliveries:
                    async for delivery in deliveries:
                        self._diagnostics.queue_depth.labels(source.name).inc()
                        await self._queue.put(_Taken(source.name, delivery))
            except Exception:  # noqa: BLE001  the wrapper that supervises a source: logged, counted, started again
                self._diagnostics.task_failures.labels(f"source {source.name}").inc()
                _log.exception("Source %s broke down; it is started again in %g s", source.name, _SOURCE_PAUSE)
                await self._sleep(_SOURCE_PAUSE)
            else:
                return

    # --- writing ---

    async def _write(self) -> None:
        while (first := await self._queue.get()) is not None:
            taken, ended = self._gather(first)
            await self._commit(taken)
            if ended:
                return

    def _gather(self, first: _Taken) -> tuple[list[_Taken], bool]:
        """What waits by now, up to one transaction's rows; and whether the sources have ended."""
        taken, rows = [first], len(first.delivery.samples)
        while rows < self._rows and not self._queue.empty():
            following = self._queue.get_nowait()
            if following is None:
                return taken, True
            taken.append(following)
            rows += len(following.delivery.samples)
        return taken, False

    async def _commit(self, taken: Sequence[_Taken]) -> None:
        """Write deliveries together; if the store refuses them, one by one, so that a bad one stops no other."""
        try:
            written = await self._persist([each.delivery for each in taken])
        except StoreError as error:
            if len(taken) == 1:
                await self._refuse(taken[0], error)
                return
            for each in taken:
                await self._commit([each])
            return
        self._confirm(taken, written)

    async def _refuse(self, taken: _Taken, error: StoreError) -> None:
        """Leave out samples that the store can't take, and record the gap. A store that refuses this too is broken."""
        samples = taken.delivery.samples
        if not len(samples):
            raise error
        _log.error("%d samples of %s are left out: %s", len(samples), taken.source, error)
        gaps = (*taken.delivery.gaps, _gap(taken.source, samples, str(error)))
        rest = replace(taken.delivery, samples=SampleBatch.empty(), gaps=gaps)
        written = await self._persist([rest])
        self._diagnostics.gaps.labels(taken.source, GapCause.DECODE_ERROR).inc()
        self._diagnostics.samples_dropped.labels(taken.source, GapCause.DECODE_ERROR).inc(len(samples))
        self._confirm([_Taken(taken.source, rest)], written)

    async def _persist(self, deliveries: Sequence[Delivery]) -> Written:
        """Write, and try again for as long as the store is unavailable; one line in the log when it goes, one after."""
        pause = _FIRST_PAUSE
        since: float | None = None
        while True:
            try:
                written = await self._store.write(deliveries)
            except StoreUnavailable as error:
                if since is None:
                    since = time.monotonic()
                    _log.warning("The database is unavailable, the sources wait: %s", error)
                await self._sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                if since is not None:
                    _log.warning("The database is back after %.1f s", time.monotonic() - since)
                return written

    def _confirm(self, taken: Sequence[_Taken], written: Written) -> None:
        self._diagnostics.samples_stored.inc(written.stored)
        self._diagnostics.samples_duplicate.inc(written.duplicates)
        now = time.time_ns() // 1000
        for each in taken:
            each.delivery.confirm()
            self._diagnostics.queue_depth.labels(each.source).dec()
            if len(each.delivery.samples):
                # The oldest of the delivery: the histogram never flatters.
                waited = now - int(each.delivery.samples.received_time.min())
                self._diagnostics.arrival_to_row.observe(max(waited, 0) / 1e6)
                for listener in self._on_commit:
                    listener(each.delivery.samples)


def _gap(source: str, samples: SampleBatch, detail: str) -> Gap:
    first, last = samples.source_time.min(), samples.source_time.max() + 1
    start, end = (from_micros(int(np.clip(time, *_YEARS))) for time in (first, last))
    now = datetime.now(UTC)
    return Gap(str(uuid4()), source, None, start, end, GapCause.DECODE_ERROR, now, GapState.UNFILLABLE, detail=detail)


@asynccontextmanager
async def _closed(deliveries: AsyncIterator[Delivery]) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Closes the iterator, and with it the source's session, also where the consumer is cancelled."""
    try:
        yield deliveries
    finally:
        close: Callable[[], Awaitable[Any]] | None = getattr(deliveries, "aclose", None)
        if close is not None:
            await close()
