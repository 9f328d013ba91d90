"""Values at given times, and aggregates of intervals, page by page (OPC 10000-11, 6.5.4 and 6.5.5).

Of a tag, intervals that begin on whole minutes come from its roll-ups where these give exactly what its values would.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from asyncua import ua
from asyncua.common.utils import ServiceError

from plugin.domain import Level, Micros, RollUps, SampleBatch
from plugin.publish.history.arithmetic import (
    AGGREGATES,
    KEEPS_TYPE,
    NO_DATA,
    PARTIAL,
    Result,
    Series,
    Terms,
    counted,
    lacks,
    tallied,
)
from plugin.publish.history.past import EARLIEST, LATEST, Gaps, Past
from plugin.publish.history.raw import Page
from plugin.publish.history.values import data_values, history_data
from plugin.publish.stamps import Stamps

_ROWS = 100_000
"""Values that are read for a part of a page; one interval may have :data:`_MOST`."""
_MOST = 1_000_000
_BESIDE = 100
"""Values before and after that are looked at for one that counts."""
_ID = ua.ObjectIds
_LEVELS = (Level.DAY, Level.HOUR, Level.MINUTE)


@dataclass(frozen=True, slots=True)
class AtTimeReading:
    """Interpolated values at given times."""

    past: Past
    stamps: Stamps
    terms: Terms
    times: tuple[Micros, ...]
    simple: bool

    async def page(self, most: int) -> Page:
        """See the protocol."""
        now, rest = self.times[:most], self.times[most:]
        found: dict[Micros, Result] = {}
        await self._find(sorted(set(now)), found)
        content = _content(self.past, self.stamps, [found[time] for time in now], now, self.past.kind)
        return Page(content, len(now), replace(self, times=rest) if rest else None, len(rest))

    async def _find(self, times: Sequence[Micros], found: dict[Micros, Result]) -> None:
        around = await _around(self.past, times[0], times[-1] + 1, _ROWS)
        if around is None and len(times) > 1:
            half = len(times) // 2
            await self._find(times[:half], found)
            await self._find(times[half:], found)
            return
        around = around or SampleBatch.empty()
        series = Series(around, self.terms, await _gaps(self.past, around, times[0], times[-1] + 1))
        found.update({time: series.at(time, simple=self.simple) for time in times})


@dataclass(frozen=True, slots=True)
class ProcessedReading:
    """An aggregate of intervals."""

    past: Past
    stamps: Stamps
    terms: Terms
    aggregate: int
    begin: Micros
    end: Micros
    width: Micros
    done: int = 0
    """Intervals that were given already."""

    async def page(self, most: int) -> Page:
        """See the protocol."""
        total = -(-abs(self.end - self.begin) // self.width)
        until = min(total, self.done + most)
        results: list[Result] = []
        while self.done + len(results) < until:
            results += await self._some(self.done + len(results), until)
        times = [self._beginning(number) for number in range(self.done, until)]
        kind = self.past.kind if self.aggregate in KEEPS_TYPE else ua.VariantType.Double
        kind = ua.VariantType.Int32 if self.aggregate == _ID.AggregateFunction_Count else kind
        content = _content(self.past, self.stamps, results, times, kind)
        return Page(content, len(results), replace(self, done=until) if until < total else None)

    def _beginning(self, number: int) -> Micros:
        return self.begin + (number if self.end > self.begin else -number) * self.width

    def _interval(self, number: int) -> tuple[Micros, Micros]:
        """``low <= time < high``; backwards the later end belongs to it, not the earlier one."""
        first, back = self._beginning(number), self.end < self.begin
        other = max(first - self.width, self.end) if back else min(first + self.width, self.end)
        return (other + 1, first + 1) if back else (first, other)

    async def _some(self, start: int, until: int) -> list[Result]:
        """The next intervals, as many as their values fit into memory."""
        level = self._level()
        if level is not None:
            until = min(until, start + max(1, _ROWS * level.width // self.width))
            low, high = self._interval(start)[0], self._interval(until - 1)[1]
            found, gaps = await self.past.roll_ups(low, high, level), await self.past.gaps(low, high)
            if found is not None:
                return [self._marked(number, self._of_roll_ups(found, gaps, number)) for number in range(start, until)]
        while True:
            ends = [end for number in (start, until - 1) for end in self._interval(number)]
            around = await _around(self.past, min(ends), max(ends), _ROWS if until - start > 1 else _MOST)
            if around is not None:
                gaps = await _gaps(self.past, around, min(ends), max(ends))
                return await asyncio.to_thread(self._of_values, around, gaps, range(start, until))
            if until - start == 1:
                raise ServiceError(ua.StatusCodes.BadResourceUnavailable)
            until = start + (until - start) // 2

    def _of_values(self, around: SampleBatch, gaps: Gaps, numbers: Sequence[int]) -> list[Result]:
        series, aggregate = Series(around, self.terms, gaps), AGGREGATES[self.aggregate]
        back = self.end < self.begin
        results = []
        for number in numbers:
            low, high = self._interval(number)
            if self.aggregate == _ID.AggregateFunction_Interpolative:
                low = high - 1 if back else low
            results.append(self._marked(number, aggregate(series, low, high)))
        return results

    def _marked(self, number: int, result: Result) -> Result:
        """An interval that is cut short by the end of the request is Partial."""
        low, high = self._interval(number)
        whole = high - low == self.width or result.status >= 0x8000_0000
        return result if whole else replace(result, status=result.status | PARTIAL)

    def _level(self) -> Level | None:
        """The coarsest roll-ups that the intervals are made of."""
        if self.aggregate not in _ROLLED or self.end < self.begin or not self.terms.uncertain:
            return None
        sizes = self.begin, self.end, self.width
        return next((level for level in _LEVELS if not any(size % level.width for size in sizes)), None)

    def _of_roll_ups(self, found: RollUps, gaps: Gaps, number: int) -> Result:
        low, high = self._interval(number)
        lacking = lacks(gaps, low, high)
        first, end = np.searchsorted(found.start, (low, high))
        rows = slice(int(first), int(end))
        total, count, good = (int(column[rows].sum()) for column in (found.samples, found.numbers, found.good))
        if self.aggregate == _ID.AggregateFunction_Count:
            return tallied(total, count, good, self.terms, lacking=lacking)
        value = _ROLLED[self.aggregate]
        return counted(total, count, good, lambda: value(found, rows), self.terms, lacking=lacking)


def _mean(found: RollUps, rows: slice) -> float:
    numbers = found.numbers[rows]
    return float((np.where(numbers > 0, found.mean[rows], 0.0) * numbers).sum() / numbers.sum())


_ROLLED: dict[int, Callable[[RollUps, slice], float]] = {
    _ID.AggregateFunction_Average: _mean,
    _ID.AggregateFunction_Minimum: lambda found, rows: float(np.nanmin(found.minimum[rows])),
    _ID.AggregateFunction_Maximum: lambda found, rows: float(np.nanmax(found.maximum[rows])),
    _ID.AggregateFunction_Range: lambda found, rows: float(
        np.nanmax(found.maximum[rows]) - np.nanmin(found.minimum[rows])
    ),
    _ID.AggregateFunction_Count: lambda found, rows: float(found.numbers[rows].sum()),
}
"""What needs no more than roll-ups keep."""


async def _around(past: Past, low: Micros, high: Micros, most: int) -> SampleBatch | None:
    """Values of ``low <= time < high`` and those beside them; None: there are more than so many."""
    within = await past.read(low, high, most + 1)
    if len(within) > most:
        return None
    before = await past.read(EARLIEST, low, _BESIDE, newest_first=True)
    after = await past.read(high, LATEST, _BESIDE)
    return SampleBatch.concatenate([before.take(slice(None, None, -1)), within, after])


async def _gaps(past: Past, around: SampleBatch, low: Micros, high: Micros) -> Gaps:
    """Also those since the last values before: what was before them does not stand into the range."""
    first = int(around.source_time[0]) if len(around) else low
    return await past.gaps(min(first, low), high)


def _content(
    past: Past, stamps: Stamps, results: Sequence[Result], times: Sequence[Micros], kind: ua.VariantType
) -> Any:
    own = [time if result.time is None else result.time for result, time in zip(results, times, strict=True)]
    values = [np.nan if result.value is None else result.value for result in results]
    status = np.array([result.status for result in results], np.uint32)
    status[np.isnan(values) & (status < 0x8000_0000)] = NO_DATA
    batch = SampleBatch.of([0] * len(results), own, values, status, own, own)
    return history_data(data_values(batch, kind, stamps), len(results))
