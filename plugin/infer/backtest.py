"""Walking forward over the past: at each instant what a live run would have said, by the live code.

``Scorer.score`` is called as the schedule calls it, with one more bound: what the plant's server had by that instant. A
laboratory's value that came a day later is not seen on the day, and what is said now of the past is what would have
been said then. Gaps are those that are known today, and no source is away.

Samples are read ahead, which changes what it costs and never what is seen.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta

from plugin.domain import (
    Drift,
    Flag,
    Gap,
    Grid,
    Micros,
    ModelVersion,
    Outcome,
    Run,
    RunKind,
    SampleBatch,
    Window,
    from_micros,
    micros,
    to_micros,
)
from plugin.infer.scoring import Scorer
from plugin.infer.windows import dense
from plugin.protocols import Store

_SAMPLES = 250_000
"""That are read ahead at a time, roughly; a window may need more by itself."""
_AT_FIRST, _GROWTH = 16, 4
"""Instants that are read ahead at first, and by how much more the next time at most."""
_GAPS = 10_000_000

Progress = Callable[[float, str], None]


def _silent(share: float, line: str) -> None:
    pass


async def backtest(
    scorer: Scorer,
    store: Store,
    version: ModelVersion,
    start: datetime,
    end: datetime,
    *,
    every: timedelta | None = None,
    progress: Progress = _silent,
) -> AsyncIterator[Outcome]:
    """What ``version`` says at each tick of ``[start, end)``, oldest first; flags begin anew, nothing is stored.

    Ticks are those of the model's schedule, or lie ``every`` apart; a run's ``scheduled`` is its tick, its key is 0.
    Memory is bounded, however long the stretch. Between two outcomes it can be left off or cancelled. Raises
    ArtifactError where the version can't be loaded.
    """
    cadence = scorer.config.schedule
    step = micros(every or cadence.every)
    walker = scorer.by(version, Past(store, step, to_micros(end)))
    shift = micros(cadence.offset)
    first = -(-(to_micros(start) - shift) // step) * step + shift
    ticks = range(first, to_micros(end), step)
    for done, stamp in enumerate(ticks, 1):
        tick = from_micros(stamp)
        run = Run(0, scorer.config.name, RunKind.SCORE, tick)
        outcome = await walker.score(run, tick - cadence.offset, known_by=stamp)
        progress(done / len(ticks), f"{tick:%Y-%m-%d %H:%M}")
        if outcome is not None:
            yield outcome


class Past:
    """What a scorer sees that walks forward through a store, read ahead in slices; equal to the store's own answers."""

    def __init__(self, store: Store, step: Micros, end: Micros) -> None:
        """``step`` from one window to the next, none of which ends after ``end`` [µs]."""
        self._store = store
        self._step = step
        self._end = end
        self._ahead = _AT_FIRST
        self._tags: tuple[int, ...] = ()
        self._from = self._until = 0
        self._samples: SampleBatch | None = None
        self._gaps: tuple[Gap, ...] | None = None

    async def grid(self, window: Window, *, known_by: Micros | None = None, received_by: Micros | None = None) -> Grid:
        """See :class:`plugin.protocols.Store`."""
        oldest = int(window.reach.min(initial=window.start))
        if window.tags != self._tags or oldest < self._from or window.end > self._until:
            await self._read(window, oldest)
        if self._samples is None:
            return await self._store.grid(window, known_by=known_by, received_by=received_by)
        return await asyncio.to_thread(_cut, self._samples, window, oldest, known_by, received_by)

    async def gaps(self, *, since: datetime | None, known_by: Micros | None, limit: int) -> tuple[Gap, ...]:
        """See :class:`plugin.protocols.Store`; ``since`` never goes back."""
        if self._gaps is None:
            self._gaps = await self._store.gaps(since=since, known_by=known_by, limit=_GAPS)
        self._gaps = tuple(gap for gap in self._gaps if since is None or gap.end is None or gap.end >= since)
        return self._gaps

    async def flags(self, start: datetime, end: datetime, *, shadow: bool = False) -> tuple[Flag, ...]:
        """None: the walk begins where no flag is raised."""
        return ()

    async def drifts(self, *, model: str, since: datetime) -> tuple[Drift, ...]:
        """None: what was found in service was found with what was known there."""
        return ()

    async def _read(self, window: Window, oldest: Micros) -> None:
        """From this window on. What was corrected was something else before, which the store alone can tell."""
        until = max(window.end, min(window.end + self._ahead * self._step, self._end))
        self._samples = await self._store.read_samples(window.tags, oldest, until)
        self._tags, self._from, self._until = window.tags, oldest, until
        more = max(int((self._samples.source_time >= window.end).sum()), 1)
        self._ahead = max(_AT_FIRST, min(self._ahead * _GROWTH, self._ahead * _SAMPLES // more))
        if len((await self._store.modified(window.tags, oldest, until)).samples):
            self._samples = None


def _cut(
    samples: SampleBatch, window: Window, oldest: Micros, known_by: Micros | None, received_by: Micros | None
) -> Grid:
    seen = (samples.source_time >= oldest) & (samples.source_time < window.end)
    return dense(samples.take(seen).known(known_by, received_by), window)
