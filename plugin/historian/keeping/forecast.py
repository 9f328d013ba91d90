"""When the disk is full, if all goes on as in the last days: arithmetic alone.

Closed samples grow by class, up to what their retention allows; all else (roll-ups, results, texts, samples that are
not closed yet) grows as it was seen to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import inf, nan

import numpy as np
from numpy.typing import NDArray

_DAY = 86_400.0
_SHORTEST = 6 * 3_600.0
"""That has to be seen before anything is said [s]."""
HOT_SAMPLE = 32
"""Size of a sample that is not closed, in its table [byte]."""


@dataclass(frozen=True, slots=True)
class Stock:
    """The closed samples of one class."""

    size: int
    """[byte]"""
    rate: float
    """By which they would grow without retention [byte/s]."""
    age: timedelta | None = None
    """Of the class."""
    most: int | None = None
    """Size of the class at most [byte]."""

    @property
    def room(self) -> float:
        """By how much they can still grow [byte]."""
        by_age = inf if self.age is None else self.rate * self.age.total_seconds() - self.size
        by_size = inf if self.most is None else self.most - self.size
        return max(0.0, min(by_age, by_size))


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """What the database held at several moments, in the order of time; columns of one length."""

    time: NDArray[np.float64]
    """[s]"""
    rest: NDArray[np.float64]
    """All but closed samples and those on their way to be closed [byte]."""

    def rate(self) -> float:
        """How fast the rest grows [byte/s]; NaN: that is not known yet.

        The median of what a day added, so that neither an import nor the nightly drop of old rows counts for more than
        it is; within the first day what was added since its beginning.
        """
        if not len(self.time) or (span := self.time[-1] - self.time[0]) < _SHORTEST:
            return nan
        if span < _DAY:
            return float(self.rest[-1] - self.rest[0]) / float(span)
        whole = self.time >= self.time[0] + _DAY
        before = np.interp(self.time[whole] - _DAY, self.time, self.rest)
        return float(np.median(self.rest[whole] - before)) / _DAY


def full_in(free: int, stocks: Sequence[Stock], rest: float) -> float:
    """When so many free bytes are used up [s]; infinity: never, NaN: not known.

    ``rest`` [byte/s]: see :meth:`Marks.rate`; what shrinks does not count.
    """
    if np.isnan(rest):
        return nan
    growing = sorted((stock.room / stock.rate, stock.rate) for stock in stocks if stock.rate > 0 and stock.room > 0)
    rate = max(rest, 0.0) + sum(each for _, each in growing)
    passed, left = 0.0, float(free)
    for until, each in growing:
        if left < rate * (until - passed):
            break
        left -= rate * (until - passed)
        passed, rate = until, rate - each
    else:
        rate = max(rest, 0.0)  # what rounding left of the others is no growth
    return passed + left / rate if rate > 0 else inf
