"""How old a unit was at moments of its past: as its tag in the role ``age`` told it last before each of them.

Where it started over is told by the minutes alone: one that ends with less than the one before it did.

Of a minute that was over by then the roll-up says it, which outlives the samples; where it does not, as the minute goes
on or ends with no number, its samples do as long as they are kept. The view ``v_prediction_accuracy`` does the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Level, Micros, Quality, qualities
from plugin.protocols import Store

_MINUTE = Level.MINUTE.width
_DAY = Level.DAY.width
_SLICE = 30 * _DAY
"""Of minutes that are read at a time; and how long ago an age may have been told."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Falls:
    """Where an age started over, in order of time."""

    before: Ints
    """[k] when it was last told that was surely of the old life [µs]."""
    after: Ints
    """[k] when it was first told that was surely of the new one [µs]."""
    reached: NDArray[np.float64]
    """[k] how old the unit had become."""


async def ages(store: Store, tag: int, moments: Ints) -> tuple[NDArray[np.float64], Falls]:
    """[n] at each of ``moments`` [n, µs], of which there is one; NaN: none was told before it. And where it started
    over, from a month before the first of them on."""
    minute, last, value, most = await _minutes(store, tag, int(moments.min()) - _SLICE, int(moments.max()))
    place = np.searchsorted(minute, moments) - 1
    newest, asked = place[place >= 0], moments[place >= 0]
    unsaid = (last[newest] >= asked) | np.isnan(value[newest])
    times, values = [last], [value]
    for start, end in _days(np.unique(minute[newest[unsaid]])):
        samples = await store.read_samples([tag], start, end)
        times.append(samples.source_time)
        values.append(np.where(qualities(samples.status) == Quality.BAD, np.nan, samples.value))
    return _before(np.concatenate(times), np.concatenate(values), moments), _falls(last, value, most)


async def _minutes(
    store: Store, tag: int, start: Micros, end: Micros
) -> tuple[Ints, Ints, NDArray[np.float64], NDArray[np.float64]]:
    """Each that has samples, in order: its start, the time of the last sample, what that told, and the most told."""
    parts = [
        await store.roll_ups([tag], begin, min(begin + _SLICE, end), level=Level.MINUTE)
        for begin in range(start // _MINUTE * _MINUTE, end, _SLICE)
    ]
    minute, last = (np.concatenate([getattr(part, name) for part in parts]) for name in ("start", "last_time"))
    value, most = (np.concatenate([getattr(part, name) for part in parts]) for name in ("last_value", "maximum"))
    return minute, last, value, most


def _falls(last: Ints, value: NDArray[np.float64], most: NDArray[np.float64]) -> Falls:
    """By the minutes that end with a number."""
    told = np.isfinite(value)
    last, value, most = last[told], value[told], most[told]
    fell = np.flatnonzero(np.diff(value) < 0)
    return Falls(last[fell], last[fell + 1], np.maximum(value[fell], most[fell + 1]))


def _days(minutes: Ints) -> Iterator[tuple[Micros, Micros]]:
    """Spans that hold these minutes, of which none is longer than a day."""
    for part in np.split(minutes, np.flatnonzero(np.diff(minutes // _DAY)) + 1):
        if len(part):
            yield int(part[0]), int(part[-1]) + _MINUTE


def _before(times: Ints, values: NDArray[np.float64], moments: Ints) -> NDArray[np.float64]:
    """[n] the last number before each moment; of samples with one time, which are in their order, the last."""
    told = np.isfinite(values)
    times, values = times[told], values[told]
    order = np.argsort(times, kind="stable")
    place = np.searchsorted(times[order], moments) - 1
    return np.append(values[order], np.nan)[place]
