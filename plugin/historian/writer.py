"""Deliveries into the store, tried again for as long as it takes; and what a store refuses, on record."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar
from uuid import uuid4

import numpy as np

from plugin.diagnostics import Diagnostics
from plugin.domain import Gap, GapCause, GapState, SampleBatch, from_micros, to_micros
from plugin.errors import StoreDamaged, StoreError, StoreUnavailable
from plugin.historian.waiting import Taken
from plugin.protocols import Delivery, Store, Written

_log = logging.getLogger(__name__)

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Between two tries [s]."""
_PROBE = Delivery(SampleBatch.empty(), checkpoint={"/probe": "taken"})
"""Tells a store that takes nothing from a delivery that none would take; no source has a name that begins so."""
_YEARS = to_micros(datetime.min.replace(tzinfo=UTC)), to_micros(datetime.max.replace(tzinfo=UTC))


def pauses() -> Iterator[float]:
    """Longer and longer, for ever [s]."""
    pause = FIRST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE)


def _no() -> bool:
    return False


class Writer:
    """The way into the store."""

    def __init__(
        self,
        store: Store,
        diagnostics: Diagnostics,
        on_commit: Sequence[Callable[[SampleBatch], None]] = (),
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.away_since: float | None = None
        """Since when the store takes nothing [s, monotonic]."""
        self.store = store
        self._diagnostics = diagnostics
        self._on_commit = tuple(on_commit)
        self._sleep = sleep

    async def commit(
        self, taken: Sequence[Taken], mark: Delivery | None = None, given_up: Callable[[], bool] = _no
    ) -> bool:
        """Write deliveries together, with ``mark``, and confirm them; False: it was given up, and some are not stored.

        A store that refuses them gets them one by one, so that a bad one stops no other.
        """
        return await self.until_available(lambda: self._attempt(taken, mark), given_up) is not None

    async def until_available(self, call: Callable[[], Awaitable[T]], given_up: Callable[[], bool] = _no) -> T | None:
        """What the call gives as soon as the store is available; one line in the log when it goes, one after."""
        for pause in pauses():
            try:
                result = await call()
            except (StoreUnavailable, StoreDamaged) as error:
                self._is_away(error)
            else:
                self._is_back()
                return result
            if given_up():
                break
            await self._sleep(pause)
            if given_up():
                break
        return None

    def _is_away(self, error: StoreError) -> None:
        if self.away_since is None:
            self.away_since = time.monotonic()
            level = logging.ERROR if isinstance(error, StoreDamaged) else logging.WARNING
            _log.log(level, "The database is unavailable: %s", error)

    def _is_back(self) -> None:
        if self.away_since is not None:
            _log.warning("The database is back after %.1f s", time.monotonic() - self.away_since)
            self.away_since = None

    async def _attempt(self, taken: Sequence[Taken], mark: Delivery | None) -> bool:
        left = [each for each in taken if not each.stored]
        marks = [] if mark is None else [mark]
        if not (left or marks):
            return True
        try:
            written = await self.store.write([*(each.delivery for each in left), *marks])
        except (StoreUnavailable, StoreDamaged):
            raise
        except StoreError as error:
            if len(left) <= 1:
                await self._refuse(left, marks, error)
            else:
                for each in left[:-1]:
                    await self._attempt([each], None)
                return await self._attempt(left[-1:], mark)
        else:
            self._settle(left, written)
        return True

    async def _refuse(self, left: Sequence[Taken], marks: Sequence[Delivery], error: StoreError) -> None:
        """Leave out samples that the store can't take, and record the gap. One that takes nothing at all is away."""
        for each in left:
            samples, source = each.delivery.samples, each.source
            gaps = (_gap(source, samples, str(error)),) if len(samples) else ()
            rest = replace(each.delivery, samples=SampleBatch.empty(), gaps=(*each.delivery.gaps, *gaps))
            try:
                written = await self.store.write([rest, *marks])
            except (StoreUnavailable, StoreDamaged):  # it says nothing of what it was given: all is tried again
                raise
            except StoreError:
                written = await self._probe(gaps, marks)
            _log.error("%d samples of %s are left out: %s", len(samples), source, error)
            self._diagnostics.gaps.labels(source, GapCause.DECODE_ERROR).inc(len(gaps))
            self._diagnostics.samples_dropped.labels(source, GapCause.DECODE_ERROR).inc(len(samples))
            each.delivery = rest
            self._settle([each], written)
        if not left:
            raise StoreUnavailable(str(error)) from error

    async def _probe(self, gaps: Sequence[Gap], marks: Sequence[Delivery]) -> Written:
        """StoreUnavailable where the store does not even take what every store can."""
        try:
            return await self.store.write([replace(_PROBE, gaps=tuple(gaps)), *marks])
        except StoreError as error:
            raise StoreUnavailable(str(error)) from error

    def _settle(self, taken: Sequence[Taken], written: Written) -> None:
        self._diagnostics.samples_stored.inc(written.stored)
        self._diagnostics.samples_duplicate.inc(written.duplicates)
        now = time.time_ns() // 1000
        for each in taken:
            each.stored = True
            each.confirm()
            self.leaves_memory(each)
            if len(each.delivery.samples):
                # The oldest of the delivery: the histogram never flatters.
                waited = now - int(each.delivery.samples.received_time.min())
                self._diagnostics.arrival_to_row.observe(max(waited, 0) / 1e6)
                for listener in self._on_commit:
                    listener(each.delivery.samples)

    def leaves_memory(self, taken: Taken) -> None:
        """It is in the database or in the spill."""
        if taken.counted:
            taken.counted = False
            self._diagnostics.queue_depth.labels(taken.source).dec()


def _gap(source: str, samples: SampleBatch, detail: str) -> Gap:
    first, last = samples.source_time.min(), samples.source_time.max() + 1
    start, end = (from_micros(int(np.clip(time, *_YEARS))) for time in (first, last))
    now = datetime.now(UTC)
    detail = "".join(each if each.isprintable() else "�" for each in detail)  # this one is to be taken by any store
    return Gap(str(uuid4()), source, None, start, end, GapCause.DECODE_ERROR, now, GapState.UNFILLABLE, detail=detail)
