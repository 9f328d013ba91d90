"""What the historian makes of samples: roll-ups, and what was there before a correction."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from plugin.domain.samples import SampleBatch
from plugin.domain.times import Micros


class Level(StrEnum):
    """Width of a roll-up's intervals; they begin on whole ones in UTC."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def width(self) -> Micros:
        """[µs]"""
        return {"minute": 60, "hour": 3_600, "day": 86_400}[self] * 1_000_000

    @classmethod
    def finest(cls, span: Micros, points: int) -> "Level":
        """The finest that has at most so many intervals in a span [µs]; days, where none has."""
        return next((level for level in cls if span <= points * level.width), cls.DAY)


@dataclass(frozen=True, slots=True, eq=False)
class RollUps:
    """Summaries of intervals as columns of one length, ordered by (tag, start); an interval without samples has none.

    Values count where they are Good or Uncertain and numbers. A value stands until the next sample of its tag, whatever
    that is, or until a gap begins, for as long as the interval lasts; one from before the interval stands into it.
    After a gap a value from before it does not stand again; so it is in the windows of models too.
    """

    tag: NDArray[np.int32]
    start: NDArray[np.int64]
    """[µs]"""
    samples: NDArray[np.int64]
    good: NDArray[np.int64]
    """Samples that are Good."""
    numbers: NDArray[np.int64]
    """Values that ``minimum``, ``maximum`` and ``mean`` are of."""
    minimum: NDArray[np.float64]
    """[unit]; NaN, here and below: there is none."""
    maximum: NDArray[np.float64]
    mean: NDArray[np.float64]
    """Of the values, each counting once."""
    first_time: NDArray[np.int64]
    first_value: NDArray[np.float64]
    last_time: NDArray[np.int64]
    last_value: NDArray[np.float64]
    last_status: NDArray[np.uint32]
    weighted_mean: NDArray[np.float64]
    """Weighted by how long each value stood (OPC 10000-13, TimeAverage2 with stepped interpolation)."""
    observed: NDArray[np.int64]
    """How long there was a value [µs]."""
    good_time: NDArray[np.int64]
    """How long it was Good [µs]."""

    def __len__(self) -> int:
        return len(self.tag)


class UpdateType(StrEnum):
    """What was done to a sample (OPC 10000-11, HistoryUpdateType)."""

    REPLACED = "replaced"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, eq=False)
class Modified:
    """Samples as they were before somebody corrected them, ordered by (tag, source time, when)."""

    samples: SampleBatch
    modified: NDArray[np.int64]
    """When, by our clock [µs]."""
    update: tuple[UpdateType, ...]
    user: tuple[str, ...]
    reason: tuple[str, ...]
