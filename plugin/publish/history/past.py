"""What one node's values were: read from the store in bounded pieces, as columns."""

from typing import Protocol

import numpy as np
from asyncua import ua
from asyncua.common.utils import ServiceError
from numpy.typing import NDArray

from plugin.domain import (
    GapState,
    Level,
    Meaning,
    Micros,
    Modified,
    OutputTag,
    Part,
    RollUps,
    SampleBatch,
    Tag,
    from_micros,
    to_micros,
)
from plugin.protocols import Store
from plugin.publish.nodes import in_percent

Gaps = NDArray[np.int64]
"""A row for each gap in the order of their starts: start, end [µs]."""
NO_GAPS: Gaps = np.empty((0, 2), np.int64)
_MOST_GAPS = 10_000
EARLIEST, LATEST = -(2**62), 2**62
"""Before and after all times [µs]."""
YEAR_1, YEAR_9999 = -62_135_596_800_000_000, 253_402_214_400_000_000
"""What a datetime holds [µs]."""
_POINTS = 1000
_SLICE = Level.MINUTE.width


class Past(Protocol):
    """A node's values, ordered by source time; equal times in the order of arrival."""

    @property
    def stepped(self) -> bool:
        """A value stands until the next one; else there is a line between them (OPC 10000-11, 5.2.3)."""

    @property
    def kind(self) -> ua.VariantType:
        """Encoding of its numbers."""

    async def read(self, start: Micros, end: Micros, limit: int, *, newest_first: bool = False) -> SampleBatch:
        """At most so many with ``start <= time < end``; StoreError where the store can't be read."""

    async def roll_ups(self, start: Micros, end: Micros, level: Level) -> RollUps | None:
        """None: there are none of this node."""

    async def modified(self, start: Micros, end: Micros) -> Modified | None:
        """None: its values are never corrected."""

    async def gaps(self, start: Micros, end: Micros) -> Gaps:
        """Where values are, or may be, missing: gaps on record that reach into this time, and were not filled."""


class OutputPast:
    """Of an output, or of what stands beside its value."""

    def __init__(self, store: Store, tag: OutputTag, part: Part) -> None:
        self._store = store
        self._tag = tag
        self._part = part
        self._factor = 100.0 if in_percent(tag) else 1.0
        self.stepped = self.stands(tag, part)
        self.kind = _KINDS[tag.meaning] if self.stepped else ua.VariantType.Double

    @staticmethod
    def stands(tag: OutputTag, part: Part) -> bool:
        """A value stands until the next one."""
        return part is Part.VALUE and tag.meaning in _KINDS

    async def read(self, start: Micros, end: Micros, limit: int, *, newest_first: bool = False) -> SampleBatch:
        """See the protocol."""
        said = await self._store.told(self._tag, self._part, start, end, limit=limit, newest_first=newest_first)
        if self._factor != 1.0:
            said.value[:] *= self._factor
        return said

    async def roll_ups(self, start: Micros, end: Micros, level: Level) -> RollUps | None:
        """See the protocol."""
        return None

    async def modified(self, start: Micros, end: Micros) -> Modified | None:
        """See the protocol."""
        return None

    async def gaps(self, start: Micros, end: Micros) -> Gaps:
        """See the protocol: what a model did not say is not missing."""
        return NO_GAPS


_KINDS = {Meaning.FLAG: ua.VariantType.Boolean, Meaning.STATE: ua.VariantType.Int32}


class TagPast:
    """Of a tag of the plant."""

    stepped = False
    kind = ua.VariantType.Double

    def __init__(self, store: Store, tag: Tag) -> None:
        self._store = store
        self._tag = tag
        self._tags = [tag.id]

    async def read(self, start: Micros, end: Micros, limit: int, *, newest_first: bool = False) -> SampleBatch:
        """See the protocol. Roll-ups tell how far to read for so many, so that no more is ever read."""
        newest = await self._store.latest(self._tags)
        start, end = max(start, 0), min(end, int(newest.source_time.max(initial=-1)) + 1)
        pieces: list[SampleBatch] = []
        while limit > 0 and start < end:
            low, high = await self._next_piece(start, end, limit, newest_first)
            found = await self._store.read_samples(self._tags, low, high)
            found = found.take(slice(None, None, -1) if newest_first else slice(None))
            pieces.append(found.take(slice(0, limit)))
            limit -= len(pieces[-1])
            start, end = (start, low) if newest_first else (high, end)
        return SampleBatch.concatenate(pieces)

    async def _next_piece(self, start: Micros, end: Micros, limit: int, backwards: bool) -> tuple[Micros, Micros]:
        """The first part of the range that has as many as are wanted, or nearly, and not many times as many."""
        while end - start > _SLICE:
            level = Level.finest(end - start, _POINTS)
            counts = await self._store.roll_ups(self._tags, start, end, level=level)
            order = slice(None, None, -1) if backwards else slice(None)
            until = np.cumsum(counts.samples[order])
            over = int(np.searchsorted(until, limit))
            if over == len(until):
                return start, end
            low = int(counts.start[order][over])
            high = low + level.width
            fewer = over > 0
            if backwards:
                start = max(start, high if fewer else low)
                end = end if fewer else min(end, high)
            else:
                end = min(end, low if fewer else high)
                start = start if fewer else max(start, low)
            if fewer:
                return start, end
            if level is Level.MINUTE:
                break
        return start, end

    async def roll_ups(self, start: Micros, end: Micros, level: Level) -> RollUps | None:
        """See the protocol."""
        return await self._store.roll_ups(self._tags, start, end, level=level)

    async def modified(self, start: Micros, end: Micros) -> Modified | None:
        """See the protocol."""
        return await self._store.modified(self._tags, start, end)

    async def gaps(self, start: Micros, end: Micros) -> Gaps:
        """See the protocol. ServiceError BadResourceUnavailable: there are too many."""
        since, until = from_micros(max(start, 0)), from_micros(min(max(end, 0), YEAR_9999))
        tag = self._tag
        found = await self._store.gaps(
            since=since, until=until, source=tag.source, tag=tag.name, limit=_MOST_GAPS
        )  # fmt: skip
        if len(found) == _MOST_GAPS:
            raise ServiceError(ua.StatusCodes.BadResourceUnavailable)
        spans = [
            (to_micros(gap.start), LATEST if gap.end is None else to_micros(gap.end))
            for gap in found
            if gap.state is not GapState.FILLED
        ]
        return np.array(sorted(spans), np.int64).reshape(-1, 2)


def usable(batch: SampleBatch, *, uncertain: bool = True) -> NDArray[np.bool_]:
    """Mask of the rows that are numbers and not Bad; ``uncertain``: those that are Uncertain too."""
    worst = 0x8000_0000 if uncertain else 0x4000_0000
    usable: NDArray[np.bool_] = (batch.status < worst) & ~np.isnan(batch.value)
    return usable
