"""When samples are old enough to be closed."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

import numpy as np

from plugin.diagnostics import Diagnostics
from plugin.domain import Micros, SampleBatch, micros
from plugin.historian.closed.closing import ROWS, Closed

_ALIVE: Micros = 3_600_000_000
"""A tag of which nothing was received for so much longer than of the others says nothing of the present [µs]."""
_LONGEST_WAIT = timedelta(hours=1)
"""Between two times of closing, however few samples have become old enough."""


class Closes(Protocol):
    """A store whose samples can be closed."""

    async def present(self) -> Micros | None:
        """What time it is in the plant, by its newest samples; None: there is none."""

    async def rows_before(self, until: Micros, most: int) -> tuple[int, Micros]:
        """How many samples of before then are not closed, counted up to ``most``, and the time of the oldest."""

    async def close_before(self, until: Micros) -> Closed:
        """Close all of them."""


class Aged:
    """Closes what is far enough behind the newest samples: a million of them at once, or what an hour has brought."""

    def __init__(
        self, store: Closes, after: timedelta, diagnostics: Diagnostics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._after = after
        self._diagnostics = diagnostics
        self._clock = clock
        self._next = clock()

    async def close(self) -> None:
        """Look whether there is enough to close, and close it."""
        present = await self._store.present()
        if present is None:
            return
        until = present - micros(self._after)
        rows, oldest = await self._store.rows_before(until, ROWS)
        self._diagnostics.open_age.set(max(0.0, (present - oldest) / 1e6) if rows else self._after.total_seconds())
        if rows >= ROWS or (rows and self._clock() >= self._next):
            self._tell(await self._store.close_before(until))
            self._next = self._clock() + min(self._after, _LONGEST_WAIT).total_seconds()

    def _tell(self, closed: Closed) -> None:
        self._diagnostics.partitions_closed.inc(closed.slices)
        self._diagnostics.samples_closed.inc(closed.samples)
        self._diagnostics.samples_left_out.inc(closed.left_out)
        if closed.written:
            self._diagnostics.sample_bytes.set(closed.size / closed.written)


def present_of(newest: SampleBatch) -> Micros | None:
    """What time it is in the plant, from each tag's newest: half of the tags that are alive have come so far.

    Not our clock: history that is imported, a replay and a plant that is simulated faster than time have their own. And
    not the newest stamp, which may be of the year 9999. None: no sample.
    """
    if not len(newest):
        return None
    alive = newest.source_time[newest.received_time >= newest.received_time.max() - _ALIVE]
    return int(np.sort(alive)[(len(alive) - 1) // 2])
