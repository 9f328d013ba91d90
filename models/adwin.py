"""ADWIN (Bifet & Gavaldà 2007): a window that grows while its values have one mean, and else forgets the older ones.

The state is a value: :meth:`Adwin.add` gives the next one. Memory and time grow with the logarithm of the window.
"""

from dataclasses import dataclass, replace
from math import log

import numpy as np

_PER_SIZE = 5
"""Buckets of one size (M in the paper): cuts are sought between buckets."""
_FEWEST = 5
"""Values that either side of a cut needs."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """So many values, their sum and the sum of their squares."""

    count: int
    total: float
    squares: float

    def __add__(self, other: "Bucket") -> "Bucket":
        return Bucket(self.count + other.count, self.total + other.total, self.squares + other.squares)


@dataclass(frozen=True, slots=True)
class Cut:
    """Older values were forgotten: their mean differed by more than chance allows."""

    older: int
    newer: int
    """How many values were forgotten, and are left."""
    before: float
    after: float
    limit: float
    """Of the difference between the means."""


@dataclass(frozen=True, slots=True)
class Adwin:
    """The window. Values lie in 0..1 and are independent: see :class:`models.drift.Watch`."""

    false_alarms: float = 0.002
    """δ: no more than this share of the values gives a cut where there is no change (theorem 3.1)."""
    buckets: tuple[Bucket, ...] = ()
    """Oldest first; sizes are powers of two."""

    @property
    def count(self) -> int:
        """Values in the window."""
        return sum(bucket.count for bucket in self.buckets)

    def add(self, value: float) -> tuple["Adwin", Cut | None]:
        """The window with one more value, and what was cut off; ValueError outside of 0..1."""
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"value = {value}: ADWIN takes numbers from 0 to 1")
        buckets = _merged((*self.buckets, Bucket(1, value, value * value)))
        found: Cut | None = None
        while (cut := _cut(buckets, self.false_alarms)) is not None:
            place, here = cut
            buckets = buckets[place:]
            found = here if found is None else replace(here, older=found.older + here.older, before=found.before)
        return replace(self, buckets=buckets), found


def _merged(buckets: tuple[Bucket, ...]) -> tuple[Bucket, ...]:
    """Where there are too many of one size, the two oldest become one of the next."""
    size = 1
    while sum(bucket.count == size for bucket in buckets) > _PER_SIZE:
        first = next(place for place, bucket in enumerate(buckets) if bucket.count == size)
        buckets = (*buckets[:first], buckets[first] + buckets[first + 1], *buckets[first + 2 :])
        size *= 2
    return buckets


def _cut(buckets: tuple[Bucket, ...], false_alarms: float) -> tuple[int, Cut] | None:
    """The boundary whose sides differ most beyond the limit ε_cut of section 3 (with the variance of the window)."""
    columns = np.array([(bucket.count, bucket.total, bucket.squares) for bucket in buckets])
    count, total, squares = columns.sum(0)
    if count < 2 * _FEWEST:
        return None
    older, below = np.cumsum(columns[:-1, 0]), np.cumsum(columns[:-1, 1])
    newer = count - older
    before, after = below / older, (total - below) / newer
    variance = max(squares / count - (total / count) ** 2, 0.0)
    harmonic = 1.0 / (1.0 / older + 1.0 / newer)
    sure = log(2.0 * log(count) / false_alarms)
    limit = np.sqrt(2.0 * variance * sure / harmonic) + 2.0 * sure / (3.0 * harmonic)
    beyond = np.where((older >= _FEWEST) & (newer >= _FEWEST), np.abs(after - before) - limit, -1.0)
    place = int(np.argmax(beyond))
    if beyond[place] <= 0.0:
        return None
    return place + 1, Cut(
        int(older[place]), int(newer[place]), float(before[place]), float(after[place]), float(limit[place])
    )
