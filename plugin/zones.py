"""Local times of a zone as UTC and back, a column at a time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Self
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from plugin.domain import from_micros, micros, to_micros
from plugin.errors import ConfigError, Fault

_DAY = timedelta(days=1)
_FIRST, _LAST = 1900, 2100
"""Years within which a zone's changes are looked up; outside, the nearest offset goes on."""


@dataclass(frozen=True, slots=True)
class Zone:
    """The changes of a zone's offset."""

    name: str
    changes: NDArray[np.int64]
    """When [µs UTC], ascending [n]."""
    offsets: NDArray[np.int64]
    """East of UTC [µs], before the first change and after each [n + 1]."""

    @classmethod
    def named(cls, name: str) -> "Zone":
        """By its IANA name; ConfigError where there is none."""
        return _zone(name, _FIRST, _LAST)

    @classmethod
    def around(cls, name: str, times: NDArray[np.int64]) -> "Zone":
        """As good at these times [µs UTC], and found in a millisecond for each of their years."""
        return _zone(name, from_micros(int(times.min())).year, from_micros(int(times.max())).year + 1)

    @classmethod
    def of(cls, name: str, first: int, last: int) -> Self:
        """From the year ``first`` until ``last`` begins, found by looking at every day, and then for the microsecond
        between two days that differ."""
        zone = named_zone(name)
        day = datetime(first, 1, 1, tzinfo=UTC)
        changes, offsets = [], [_offset(zone, day)]
        while day.year < last:
            following = day + _DAY
            if _offset(zone, following) != offsets[-1]:
                moment = _change(zone, to_micros(day), to_micros(following))
                changes.append(moment)
                offsets.append(_offset(zone, from_micros(moment)))
            day = following
        return cls(name, np.array(changes, np.int64), np.array(offsets, np.int64))

    def to_utc(self, local: NDArray[np.int64], *, later: bool = False) -> NDArray[np.int64]:
        """UTC [µs] of local times [µs since 1970-01-01 00:00 local].

        ``later``: of a time that the clock showed twice the second one (``fold`` of PEP 495, also for a time that it
        never showed).
        """
        before, after = self.changes + self.offsets[:-1], self.changes + self.offsets[1:]
        walls = np.minimum(before, after) if later else np.maximum(before, after)
        return local - self.offsets[np.searchsorted(walls, local, side="right")]

    def doubtful(self, local: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Masks of local times that the clock showed twice, and of those that it never showed."""
        earlier, later = self.to_utc(local), self.to_utc(local, later=True)
        return earlier < later, earlier > later

    def to_local(self, utc: NDArray[np.int64]) -> NDArray[np.int64]:
        """Local times [µs since 1970-01-01 00:00 local] of UTC [µs]."""
        return utc + self.offset(utc)

    def offset(self, utc: NDArray[np.int64]) -> NDArray[np.int64]:
        """East of UTC [µs]."""
        found: NDArray[np.int64] = self.offsets[np.searchsorted(self.changes, utc, side="right")]
        return found


def named_zone(name: str) -> ZoneInfo:
    """By its IANA name; ConfigError where there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        remedy = 'Write its IANA name, such as "Europe/Berlin", or UTC'
        raise ConfigError("the command", [Fault("--zone", name, "is no time zone", remedy)]) from error


@lru_cache(maxsize=64)
def _zone(name: str, first: int, last: int) -> Zone:
    return Zone.of(name, first, last)


def _offset(zone: ZoneInfo, moment: datetime) -> int:
    offset = moment.astimezone(zone).utcoffset() or timedelta(0)
    return micros(offset)


def _change(zone: ZoneInfo, low: int, high: int) -> int:
    """The first microsecond with the offset that there is at ``high``."""
    wanted = _offset(zone, from_micros(high))
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, from_micros(middle)) == wanted:
            high = middle
        else:
            low = middle
    return high
