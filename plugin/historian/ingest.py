"""From the sources into the store: what waits is gathered into one transaction, and confirmed after its commit.

    sources ──> Waiting ──> write ─────────────────────> Store
                   └──────> spool ──> Spill ──> drain ─────┘      while the database is away or slow

The queue is bounded. When a live sample has waited for too long, all goes through the spill: it is confirmed there, and
drained in order of arrival until nothing is left. Where the spill takes nothing either, or there is none, nothing is
confirmed, the queue fills, the sources wait, and the plant's servers keep what we have not confirmed.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from plugin.diagnostics import STATES, Diagnostics
from plugin.domain import GapCause, SampleBatch
from plugin.errors import StoreUnavailable
from plugin.historian.spilling.frames import Kept
from plugin.historian.spilling.spill import Chunk, Spill
from plugin.historian.waiting import Taken, Waiting
from plugin.historian.writer import FIRST_PAUSE, Sleep, Writer, pauses
from plugin.protocols import Delivery, Source, Store

_log = logging.getLogger(__name__)

_SOURCE_PAUSE = 10.0
"""Before a source that broke down is started again [s]."""
_COMMITS = 4
"""Transactions' worth of samples that may wait in memory."""
_SHORTEST_LOOK = 0.01
"""Between two looks at how long samples have waited [s]."""


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
        spill: Spill | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """``on_commit`` is told of every batch after its commit; it must be quick and raise nothing.

        ``spill``: open; None: while the database is away the sources wait.
        """
        self._sources = tuple(sources)
        self._store = store
        self._diagnostics = diagnostics
        self._rows = rows_per_commit
        self._sleep = sleep
        self._waiting = Waiting(queue, _COMMITS * rows_per_commit)
        self._writer = Writer(store, diagnostics, on_commit, sleep)
        self._spill = spill
        self._spilling = False  # True: all goes through the spill
        self._current: list[Taken] = []  # goes into the store directly, now
        self._copied: tuple[int, list[Taken]] | None = None
        """A frame, and what was going into the store directly when a copy of it went into that frame."""
        self._in_hand: list[Taken] = []  # goes into the spill, now
        self._appending = False
        self._door = asyncio.Lock()
        """Nothing is read of the spill before what was appended is noted here."""
        self._blocked = False
        """The spill takes nothing."""
        self._dropping = False
        """The spill has left out samples, and is not yet empty again."""
        self._promised: dict[int, list[Taken]] = {}
        """By frame, deliveries in the spill that are confirmed only when they are committed."""
        self._ending = False
        """Whoever is cancelled from now on is not to begin anew, whatever error came in the same moment."""

    async def run(self) -> None:
        """Take and write until the sources end. Cancelled: what is not on disk is not confirmed, so it comes again.

        A transaction that has begun ends by itself, and is waited for when the store is closed. May be run again.
        """
        self._ending = False
        try:
            async with asyncio.TaskGroup() as tasks:
                spooler = tasks.create_task(self._spool(self._spill), name="ingest: spool") if self._spill else None
                writer = tasks.create_task(self._write(), name="ingest: write")
                takers = [tasks.create_task(self._take(each), name=f"ingest: {each.name}") for each in self._sources]
                try:
                    await _all(takers)
                finally:
                    self._ending = True  # before they are told
                self._waiting.end()
                await writer
                if spooler is not None:
                    spooler.cancel()
        finally:
            self._forget()

    def _forget(self) -> None:
        """What is not on disk comes again with the next run."""
        for taken in (*self._current, *self._in_hand, *self._waiting.empty()):
            self._writer.leaves_memory(taken)
        self._current, self._in_hand, self._copied = [], [], None
        self._promised.clear()
        self._spilling = self._blocked = False

    # --- taking ---

    async def _take(self, source: Source) -> None:
        """Queue what a source delivers. One that breaks down is counted and started again; the others go on."""
        while True:
            try:
                async with _closed(source.deliveries()) as deliveries:
                    async for delivery in deliveries:
                        self._diagnostics.queue_depth.labels(source.name).inc()
                        await self._waiting.put(Taken(source.name, delivery))
            except Exception:  # noqa: BLE001  the wrapper that supervises a source: logged, counted, started again
                self._diagnostics.task_failures.labels(f"source {source.name}").inc()
                if self._ending:
                    _log.exception("Source %s broke down while it was ended", source.name)
                    return
                _log.exception("Source %s broke down; it is started again in %g s", source.name, _SOURCE_PAUSE)
                await self._sleep(_SOURCE_PAUSE)
            else:
                return

    # --- writing ---

    async def _write(self) -> None:
        if self._spill is not None:
            self._spill.rewind()
            self._spilling = not self._spill.empty
        self._mark()
        while True:
            if self._spill is not None:
                await self._drain(self._spill)
            self._current = batch = self._current or self._waiting.gather(self._rows)
            if batch:
                await self._writer.commit(batch, given_up=partial(self._is_copied, batch))
                self._current = []
            elif self._waiting.ended:
                return
            else:
                await self._waiting.something()

    def _is_copied(self, batch: list[Taken]) -> bool:
        self._mark()
        return self._copied is not None and self._copied[1] is batch

    async def _drain(self, spill: Spill) -> None:
        """What is in the spill into the store, oldest first, until nothing is in it or on its way into it."""
        while self._spilling:
            chunk = await self._read(spill)
            if chunk is not None:
                await self._commit_chunk(spill, chunk)
            elif not spill.all_read:
                continue
            elif self._appending or (self._in_hand and not self._blocked):
                await self._waiting.something()
            else:
                # What the spill does not take though it is empty goes the short way; nothing is older.
                self._current, self._in_hand = self._in_hand, []
                self._spilling = self._blocked = self._dropping = False
                self._mark()

    async def _read(self, spill: Spill) -> Chunk | None:
        if strangers := spill.strangers():
            spill.know(await self._writer.until_available(partial(self._store.register_tags, strangers)) or ())
        for pause in pauses():
            try:
                async with self._door:
                    return await spill.read(self._rows)
            except StoreUnavailable as error:
                if pause == FIRST_PAUSE:
                    _log.error("The spill can't be read, tried again: %s", error)
                await self._sleep(pause)
        return None

    async def _commit_chunk(self, spill: Spill, chunk: Chunk) -> None:
        taken = [Taken(kept.source, kept.delivery, counted=False) for kept in chunk.kept]
        if self._copied is not None:
            for before, copy in zip(self._copied[1], taken, strict=False):
                if before.stored:
                    copy.delivery = replace(copy.delivery, samples=SampleBatch.empty())
            self._copied = None
        await self._writer.commit(taken, spill.position(chunk.number))
        await spill.release(chunk.number, chunk.rows)
        for number in [number for number in self._promised if number <= chunk.number]:
            for patient in self._promised.pop(number):
                patient.confirm()
        self._mark()

    # --- spilling ---

    async def _spool(self, spill: Spill) -> None:
        """For ever: see to it that no live sample waits for too long."""
        while True:
            if not self._spilling:
                await self._late(spill.after)
                self._spilling = True
                # What is on its way into the store comes first: nothing is durable before what arrived before it.
                batch = self._current
                self._in_hand = list(batch)
                if number := await self._keep(spill):
                    self._copied = number, batch
            elif taken := self._waiting.gather(self._rows):
                self._in_hand = taken
                await self._keep(spill)
            else:
                await self._waiting.something()

    async def _late(self, patience: float) -> None:
        """Until a live sample has waited so long [s]."""
        while True:
            held = (taken.since for taken in self._current if not (taken.stored or taken.delivery.patient))
            since = min(held, default=self._waiting.oldest())
            left = patience if since is None else since + patience - time.monotonic()
            if left <= 0 and since is not None:
                return
            await asyncio.sleep(max(left / 2, _SHORTEST_LOOK))

    async def _keep(self, spill: Spill) -> int:
        """Make durable what is in hand, and confirm it; 0: there was nothing, or it went into the store instead."""
        for pause in pauses():
            if not self._in_hand:
                break
            self._appending = True
            try:
                async with self._door:
                    number = await spill.append([Kept(taken.source, taken.delivery) for taken in self._in_hand])
                    self._is_kept(spill, number)
                    return number
            except StoreUnavailable as error:
                self._is_blocked(error)
            finally:
                self._appending = False
                self._waiting.tell()
            await self._sleep(pause)
        return 0

    def _is_blocked(self, error: StoreUnavailable) -> None:
        if not self._blocked:
            self._blocked = True
            _log.error("The spill takes no more, the sources wait: %s", error)
        self._mark()

    def _is_kept(self, spill: Spill, number: int) -> None:
        taken, self._in_hand = self._in_hand, []
        if self._blocked:
            self._blocked = False
            _log.warning("The spill takes samples again")
        for each in taken:
            self._writer.leaves_memory(each)
            if each.delivery.patient:
                self._promised.setdefault(number, []).append(each)
            else:
                each.confirm()
        self._diagnostics.spilled.inc(sum(len(each.delivery.samples) for each in taken))
        if dropped := spill.take_dropped():
            self._has_dropped(dropped)
        self._mark()

    def _has_dropped(self, dropped: Mapping[str, int]) -> None:
        if not self._dropping:  # once; the counter tells how many
            self._dropping = True
            _log.error("The spill is full: its oldest samples are left out, their gaps say which")
        for source, samples in dropped.items():
            self._diagnostics.gaps.labels(source, GapCause.SPILL_OVERFLOW).inc()
            self._diagnostics.samples_dropped.labels(source, GapCause.SPILL_OVERFLOW).inc(samples)

    def _mark(self) -> None:
        """Say where samples go."""
        waiting = self._blocked or (self._spill is None and self._writer.away_since is not None)
        state = "waiting" if waiting else "spilling" if self._spilling else "writing"
        for each in STATES:
            self._diagnostics.historian.labels(each).set(each == state)
        if self._spill is not None:
            self._diagnostics.spill_bytes.set(self._spill.size)
            self._diagnostics.spill_samples.set(self._spill.rows)


async def _all(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Until these have ended."""
    if tasks:
        await asyncio.wait(tasks)


@asynccontextmanager
async def _closed(deliveries: AsyncIterator[Delivery]) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Closes the iterator, and with it the source's session, also where the consumer is cancelled."""
    try:
        yield deliveries
    finally:
        close: Callable[[], Awaitable[Any]] | None = getattr(deliveries, "aclose", None)
        if close is not None:
            await close()
