"""Raw and modified values, page by page (OPC 10000-11, 6.5.3).

Time flows from ``begin``, which belongs to the range, to ``end``, which does not; backwards where the end is earlier.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
from asyncua import ua
from asyncua.common.utils import ServiceError

from plugin.domain import Micros, SampleBatch
from plugin.publish.history.past import EARLIEST, LATEST, Past
from plugin.publish.history.values import data_values, history_data, modified_data
from plugin.publish.stamps import Stamps


@dataclass(frozen=True, slots=True)
class Page:
    """A part of an answer."""

    content: ua.ExtensionObject
    count: int
    rest: "Reading | None"
    """What is left to read."""
    weight: int = 1
    """Numbers that it remembers."""


class Reading(Protocol):
    """What is left to read of one node."""

    async def page(self, most: int) -> Page:
        """The next values, at most so many. StoreError; ServiceError where it can't be answered."""


@dataclass(frozen=True, slots=True)
class RawReading:
    """Values as they were stored."""

    past: Past
    stamps: Stamps
    begin: Micros
    end: Micros | None
    """None: it ends with the ``left`` values."""
    backwards: bool
    bounds: bool
    per_page: int
    """0: as many as the server likes."""
    left: int | None = None
    skip: int = 0
    """Values of ``begin``, in the order of reading, that were given already."""
    first: bool = True

    async def page(self, most: int) -> Page:
        """See the protocol."""
        room = min(most, self.per_page or most, most if self.left is None else self.left)
        found = await self._read(room + self.skip + 1)
        found = found.take(slice(self._given(found), None))
        at_begin = len(found) > 0 and int(found.source_time[0]) == self.begin
        opening = [await self._opening()] if self.first and self.bounds and not at_begin else []
        kept = found.take(slice(0, room - len(opening)))
        parts = [*opening, kept]
        rest = self._after(kept) if len(kept) < len(found) else None
        exact = self.end == self.begin and (at_begin or self.skip > 0)
        if rest is None and self.bounds and self.end is not None and not exact:
            if len(kept) + len(opening) < room:
                parts.append(await self._closing(self.end))
            else:
                rest = self._after(kept)
        values = SampleBatch.concatenate(parts)
        if rest is not None and rest.left is not None:
            rest = replace(rest, left=rest.left - len(values)) if rest.left > len(values) else None
        content = history_data(data_values(values, self.past.kind, self.stamps), len(values))
        return Page(content, len(values), rest)

    async def _read(self, limit: int) -> SampleBatch:
        if self.backwards:
            start = EARLIEST if self.end is None else self.end + 1
            return await self.past.read(start, self.begin + 1, limit, newest_first=True)
        end = LATEST if self.end is None else max(self.end, self.begin + (self.end == self.begin))
        return await self.past.read(self.begin, end, limit)

    def _given(self, found: SampleBatch) -> int:
        return min(self.skip, int((found.source_time == self.begin).sum()))

    def _after(self, kept: SampleBatch) -> Self:
        if not len(kept):
            return replace(self, first=False)
        last = int(kept.source_time[-1])
        same = int((kept.source_time == last).sum()) + (self.skip if last == self.begin else 0)
        return replace(self, begin=last, skip=same, first=False)

    async def _opening(self) -> SampleBatch:
        if self.backwards:
            return _or_none(await self.past.read(self.begin + 1, LATEST, 1), self.begin)
        return _or_none(await self.past.read(EARLIEST, self.begin, 1, newest_first=True), self.begin)

    async def _closing(self, end: Micros) -> SampleBatch:
        if self.backwards:
            return _or_none(await self.past.read(EARLIEST, end + 1, 1, newest_first=True), end)
        return _or_none(await self.past.read(end, LATEST, 1), end)


def _or_none(bound: SampleBatch, time: Micros) -> SampleBatch:
    if len(bound):
        return bound
    return SampleBatch.of([0], time, np.nan, ua.StatusCodes.BadBoundNotFound, time, time)


@dataclass(frozen=True, slots=True)
class ModifiedReading:
    """What values were before somebody corrected them, each with who did it and when."""

    past: Past
    stamps: Stamps
    start: Micros
    end: Micros
    backwards: bool
    per_page: int
    given: int = 0

    async def page(self, most: int) -> Page:
        """See the protocol. Corrections are few: all of the range are read for each page."""
        found = await self.past.modified(self.start, self.end)
        if found is None:
            raise ServiceError(ua.StatusCodes.BadHistoryOperationUnsupported)
        rows = list(_ordered(len(found.samples), self.backwards))
        chosen = rows[self.given : self.given + min(most, self.per_page or most)]
        given = self.given + len(chosen)
        values = data_values(found.samples.take(chosen), self.past.kind, self.stamps)
        content = modified_data(
            values, found.modified[chosen].tolist(), [found.update[row] for row in chosen],
            [found.user[row] for row in chosen],
        )  # fmt: skip
        return Page(content, len(chosen), replace(self, given=given) if given < len(rows) else None)


def _ordered(count: int, backwards: bool) -> Iterator[int]:
    return iter(range(count - 1, -1, -1) if backwards else range(count))
