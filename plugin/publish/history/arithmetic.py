"""Aggregates of values over intervals of time (OPC 10000-13): arrays in, numbers out; no store, no clock.

A value counts where it is a number and not Bad; an Uncertain one counts as a Good one does, unless the client wants it
treated as Bad, and what is calculated with it is UncertainDataSubNormal. From the start of a recorded gap until the
next value nothing is known: no value from before it stands, no line crosses it, that time is Bad.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from asyncua import ua
from numpy.typing import NDArray

from plugin.domain import Micros, Quality, SampleBatch, quality
from plugin.publish.history.past import NO_GAPS, Gaps, usable

CALCULATED, INTERPOLATED, PARTIAL = 0x0401, 0x0402, 0x0404
"""InfoType DataValue with a bit of the historian's (OPC 10000-4, 7.39.1)."""
GOOD, NO_DATA = 0, int(ua.StatusCodes.BadNoData)
SUB_NORMAL = int(ua.StatusCodes.UncertainDataSubNormal)
BAD = int(ua.StatusCodes.Bad)


@dataclass(frozen=True, slots=True)
class Terms:
    """AggregateConfiguration (OPC 10000-13, 4.2.1.2)."""

    uncertain: bool = True
    """An Uncertain value counts as a Good one does (TreatUncertainAsBad is false)."""
    bad: int = 100
    """From this share of Bad on a result is Bad [%]."""
    good: int = 100
    """From this share of Good on a result is Good [%]."""
    stepped: bool = False

    def status(self, share: float, *, doubtful: bool) -> int:
        """By the share of what counts, 0..1; ``doubtful``: some of it is Uncertain (5.3)."""
        if 100.0 * (1.0 - share) >= self.bad and share < 1.0:
            return BAD | CALCULATED
        good = 100.0 * share >= self.good and not doubtful
        return (GOOD if good else SUB_NORMAL) | CALCULATED


@dataclass(frozen=True, slots=True)
class Result:
    """Of one interval."""

    value: float | None
    status: int
    time: Micros | None = None
    """None: the beginning of the interval, in the direction of time."""


NOTHING = Result(None, NO_DATA)


def lacks(gaps: Gaps, low: Micros, high: Micros) -> bool:
    """Whether a recorded gap reaches into ``low <= time < high``."""
    return bool(((gaps[:, 0] < high) & (gaps[:, 1] > low)).any())


class Series:
    """Values by time, of equal times the last, with as many before and after the intervals as they need."""

    def __init__(self, batch: SampleBatch, terms: Terms, gaps: Gaps = NO_GAPS) -> None:
        self.terms = terms
        self._gaps = gaps
        self.batch = batch
        self.time = batch.source_time
        self.counts = usable(batch, uncertain=terms.uncertain)
        last = np.append(self.time[1:] != self.time[:-1], True)[: len(batch)]
        self._points = np.flatnonzero(self.counts & last)
        """What lines are drawn between."""
        self._steps = np.flatnonzero(last)

    def within(self, low: Micros, high: Micros) -> slice:
        """Rows with ``low <= time < high``."""
        first, end = np.searchsorted(self.time, (low, high))
        return slice(int(first), int(end))

    def at(self, time: Micros, *, simple: bool = False) -> Result:
        """Interpolated (3.1.8); ``simple``: between raw values whatever they are (3.1.10)."""
        points = self._steps if simple else self._points
        place = int(np.searchsorted(self.time[points], time, "right"))
        if not place or (simple and not self.counts[points[place - 1]]):
            return NOTHING
        early = int(points[place - 1])
        if self.time[early] == time:
            return Result(float(self.batch.value[early]), int(self.batch.status[early]))
        if self._gap(self.time[early], time + 1) is not None:
            return NOTHING
        late = int(points[place]) if place < len(points) else None
        if late is not None and (not self.counts[late] or self._gap(time, self.time[late]) is not None):
            late = None
        value = float(self.batch.value[early])
        if not self.terms.stepped and late is not None:
            share = (time - self.time[early]) / (self.time[late] - self.time[early])
            value += share * (float(self.batch.value[late]) - value)
        return Result(value, self._doubt(early, late, time) | INTERPOLATED)

    def _gap(self, low: Micros, high: Micros) -> Micros | None:
        """Where the first gap begins with ``low <= start < high``."""
        starts = self._gaps[:, 0]
        place = int(np.searchsorted(starts, low))
        return int(starts[place]) if place < len(starts) and starts[place] < high else None

    def lacks(self, low: Micros, high: Micros) -> bool:
        """See :func:`lacks`."""
        return lacks(self._gaps, low, high)

    def _doubt(self, early: int, late: int | None, time: Micros) -> int:
        """Good where nothing between or beside is in doubt, and nothing is extrapolated."""
        beside = [early] if self.terms.stepped else [early] if late is None else [early, late]
        over = time > self.time[-1] if self.terms.stepped else late is None
        upto = int(np.searchsorted(self.time, time, "right")) if self.terms.stepped else (late or len(self.time))
        skipped = not self.counts[early:upto].all()
        unsure = any(quality(int(self.batch.status[row])) is not Quality.GOOD for row in beside)
        return SUB_NORMAL if over or skipped or unsure else GOOD

    def corners(self, low: Micros, high: Micros) -> Iterator[tuple[Micros, Micros, float, float]]:
        """Stretches of time with the values at both ends, between points that count, within the interval (TimeAverage:
        what is Bad in between is passed over)."""
        points = self._points
        first = max(int(np.searchsorted(self.time[points], low, "right")) - 1, 0)
        end = int(np.searchsorted(self.time[points], high)) + 1
        chosen = points[first:end]
        times, values = self.time[chosen].tolist(), self.batch.value[chosen].tolist()
        if times and times[-1] < high:  # what was last stands
            times, values = [*times, high], [*values, values[-1]]
        for (since, value), (until, after) in pairwise(zip(times, values, strict=True)):
            end_value = value if self.terms.stepped else after
            slope = (end_value - value) / (until - since)
            broken = self._gap(since, until)
            if broken is not None:
                slope = 0.0
            begin, stop = max(since, low), min(until if broken is None else broken, high)
            if begin < stop:
                yield begin, stop, value + slope * (begin - since), value + slope * (stop - since)

    def regions(self, low: Micros, high: Micros) -> Iterator[tuple[Micros, Micros, int]]:
        """Stretches of time between raw values within the interval, and the row that each begins with; -1: none."""
        steps = self._steps
        first = int(np.searchsorted(self.time[steps], low, "right")) - 1
        end = int(np.searchsorted(self.time[steps], high))
        rows = [-1, *steps.tolist()][first + 1 : end + 1] if first < 0 else steps[first:end].tolist()
        times = [low, *(int(self.time[row]) for row in rows[1:]), high]
        for (since, until), row in zip(pairwise(times), rows, strict=True):
            broken = self._gap(since if row < 0 else int(self.time[row]), until)
            if since < (until if broken is None else broken):
                yield since, until if broken is None else broken, row
            if broken is not None and max(since, broken) < until:
                yield max(since, broken), until, -1


Aggregate = Callable[[Series, Micros, Micros], Result]
"""Of an interval ``low <= time < high``."""


def _counted(of: Callable[[NDArray[np.float64]], float]) -> Aggregate:
    """Of the values of an interval, each counting once."""

    def aggregate(series: Series, low: Micros, high: Micros) -> Result:
        rows = series.within(low, high)
        counts, total = series.counts[rows], rows.stop - rows.start
        values = series.batch.value[rows][counts]
        lacking = series.lacks(low, high)
        good = _good(series.batch.status[rows])
        return counted(total, len(values), good, lambda: of(values), series.terms, lacking=lacking)

    return aggregate


def counted(
    total: int, number: int, good: int, value: Callable[[], float], terms: Terms, *, lacking: bool = False
) -> Result:
    """Of so many samples, of which ``number`` count and ``good`` are Good; ``lacking``: there may have been more."""
    if not number:
        return NOTHING
    return Result(float(value()), terms.status(number / total, doubtful=lacking or good < number))


def _good(status: NDArray[np.uint32]) -> int:
    return int((status >> np.uint32(30) == 0).sum())


def _count(series: Series, low: Micros, high: Micros) -> Result:
    rows = series.within(low, high)
    number, total = int(series.counts[rows].sum()), rows.stop - rows.start
    good = _good(series.batch.status[rows])
    return tallied(total, number, good, series.terms, lacking=series.lacks(low, high))


def tallied(total: int, number: int, good: int, terms: Terms, *, lacking: bool = False) -> Result:
    """Count (5.4.3.22): zero where there are samples, and none that count; ``lacking``: as above."""
    if not total:
        return NOTHING
    status = terms.status(number / total, doubtful=lacking or good < number) if number else SUB_NORMAL | CALCULATED
    return Result(float(number), status)


def _end_of(place: int) -> Aggregate:
    """Start and End (5.4.3.26, 5.4.3.27): a raw value, with its own time."""

    def aggregate(series: Series, low: Micros, high: Micros) -> Result:
        rows = range(*series.within(low, high).indices(len(series.time)))
        if not rows:
            return NOTHING
        row, batch = rows[place], series.batch
        value = None if np.isnan(batch.value[row]) else float(batch.value[row])
        return Result(value, int(batch.status[row]), int(batch.source_time[row]))

    return aggregate


def _time_average(series: Series, low: Micros, high: Micros) -> Result:
    """5.4.3.6: interpolated bounds."""
    pieces = [(stop - begin, (first + last) / 2.0) for begin, stop, first, last in series.corners(low, high)]
    known = sum(length for length, _ in pieces)
    if not known:
        return NOTHING
    rows = series.within(low, high)
    ends = [series.at(low).status, series.at(high).status]
    all_good = _good(series.batch.status[rows]) == rows.stop - rows.start and bool(series.counts[rows].all())
    sure = known == high - low and all_good and all(quality(status) is Quality.GOOD for status in ends)
    mean = sum(length * value for length, value in pieces) / known
    return Result(mean, (GOOD if sure else SUB_NORMAL) | CALCULATED)


def _time_average_2(series: Series, low: Micros, high: Micros) -> Result:
    """5.4.3.7: simple bounds; what is Bad is left out."""
    area, known, doubtful = 0.0, 0, False
    for since, until, row in series.regions(low, high):
        first = series.at(since, simple=True)
        if row < 0 or not series.counts[row] or first.value is None:
            continue
        last = _before(series, until)
        area += (until - since) * (first.value + (first.value if last is None else last)) / 2.0
        known += until - since
        doubtful |= quality(int(series.batch.status[row])) is not Quality.GOOD
    if not known:
        return NOTHING
    return Result(area / known, series.terms.status(known / (high - low), doubtful=doubtful))


def _before(series: Series, time: Micros) -> float | None:
    """Where a line that ends at a time arrives; None: there is no line, the value before stands."""
    return None if series.terms.stepped else series.at(time, simple=True).value


def _share(wanted: Quality, *, percent: bool) -> Aggregate:
    """How long, or which share of the time, the value was of a quality (5.4.3.29 to 5.4.3.32)."""

    def aggregate(series: Series, low: Micros, high: Micros) -> Result:
        if not len(series.time) or series.time[0] >= high:
            return NOTHING
        found = sum(
            until - since
            for since, until, row in series.regions(low, high)
            if (quality(int(series.batch.status[row])) if row >= 0 else Quality.BAD) is wanted
        )
        return Result(100.0 * found / (high - low) if percent else found / 1000.0, CALCULATED)

    return aggregate


def _interpolative(series: Series, low: Micros, high: Micros) -> Result:
    return series.at(low)


_ID = ua.ObjectIds
AGGREGATES: Mapping[int, Aggregate] = {
    _ID.AggregateFunction_Interpolative: _interpolative,
    _ID.AggregateFunction_Average: _counted(np.mean),
    _ID.AggregateFunction_TimeAverage: _time_average,
    _ID.AggregateFunction_TimeAverage2: _time_average_2,
    _ID.AggregateFunction_Minimum: _counted(np.min),
    _ID.AggregateFunction_Maximum: _counted(np.max),
    _ID.AggregateFunction_Range: _counted(np.ptp),
    _ID.AggregateFunction_Count: _count,
    _ID.AggregateFunction_Start: _end_of(0),
    _ID.AggregateFunction_End: _end_of(-1),
    _ID.AggregateFunction_DurationGood: _share(Quality.GOOD, percent=False),
    _ID.AggregateFunction_DurationBad: _share(Quality.BAD, percent=False),
    _ID.AggregateFunction_PercentGood: _share(Quality.GOOD, percent=True),
    _ID.AggregateFunction_PercentBad: _share(Quality.BAD, percent=True),
}
"""By NodeId in the standard's namespace."""
KEEPS_TYPE = frozenset(
    (_ID.AggregateFunction_Interpolative, _ID.AggregateFunction_Start, _ID.AggregateFunction_End,
     _ID.AggregateFunction_Minimum, _ID.AggregateFunction_Maximum)
)  # fmt: skip
"""The result is of the node's own data type."""
