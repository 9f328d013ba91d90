"""Closing: what comes of the rows of one slice of time. They become chunks by tag, roll-ups by minute, hour and day.

A slice lies in one UTC day and ends on a whole minute. It is closed in three steps, of which the first and the last are
a database's own: what is there is read as of one moment; all is computed, here; and it is written, by portions of so
many rows that no commit waits long, each in one transaction, unless what was read has changed meanwhile. So a reader
finds each sample once, in its row or in a chunk. With the first portion the slice's time counts as closed: who dies
before the last one leaves rows that are late then, and are closed like others that are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Level, Micros, RollUps, SampleBatch, Tag
from plugin.historian.closed import door
from plugin.historian.closed.chunks import Chunk, decode, encode
from plugin.historian.closed.keyed import Key, Keyed, merged
from plugin.historian.closed.rolling import MINUTE, Span, by_minute, rows_of
from plugin.historian.closed.rolling import merged as merged_roll_ups
from plugin.historian.closed.rollup import Holes, coarser, concatenated

DAY = Level.DAY.width
ROWS = 1_000_000
"""Of a partition, about: enough for full chunks, few enough to be dropped at once."""
SLICE = 250_000
"""Rows of one stretch of time, about, but a minute's at least."""
_AT_ONCE = 100_000
"""Rows that are closed in one transaction, about: a commit has to wait for them."""
_SMALL = 256
"""A chunk of fewer samples is made anew when its partition grows [samples]."""
_FEW = 20
"""Rows that share a time: from then on it is worth while to go to each time by itself."""
_ROW_BYTES = 110
"""Of a chunk beside its data, with its places in the indices."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows of ``[start, end)`` become part of the partitions of ``[first, last)``, which may be there already."""

    first: Micros
    start: Micros
    end: Micros
    last: Micros
    tags: range | None = None
    """Keys of the tags whose rows these are; None: of all."""


@dataclass(frozen=True, slots=True)
class TagTerms:
    """What closing has to know of a tag."""

    retention: str = ""
    compression: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """What is there of a slice and round it, as of one moment."""

    slice: Slice
    front: Micros
    """Up to where time was closed before; where it never was, the slice's begin."""
    rows: Keyed
    """All that are not closed, ordered by (tag, source time, ordinal)."""
    replaced: Mapping[int, Chunk]
    """Chunks that share minutes with the rows, or are small and just before them; by the keys of their rows."""
    following: Keyed
    """Closed samples of the next minute that has some, of each tag: the rows' last values stand into it."""
    known: RollUps
    """Roll-ups of all these minutes."""
    held: SampleBatch
    """Of each tag its newest sample before the first of these minutes."""
    gaps: Holes
    """Of the days that the slice is part of, and the last ones before these."""
    with_text: frozenset[Key]
    terms: Mapping[int, TagTerms]
    later: Keyed = field(default_factory=Keyed.empty)
    """Rows of the slice that are closed after these."""

    def over(self, level: Level) -> Micros:
        """Up to where hours or days are over when this slice is closed."""
        return max(self.front, self.slice.end) // level.width * level.width

    def touched(self, fresh: RollUps, level: Level, over: Micros) -> list[Span]:
        """Hours or days that were rolled up before, and that hold one of the fresh roll-ups of the level below."""
        width = level.width
        last = min(over, self.front // width * width)
        keys = set(zip(fresh.tag.tolist(), (fresh.start // width * width).tolist(), strict=True))
        return [(tag, start, start + width) for tag, start in keys if start + width <= last]

    def ended(self, level: Level, over: Micros) -> list[Span]:
        """Hours or days of all tags that come to an end: at the front, where none was closed yet.

        But for those that a later portion brings rows to, and makes: who reads finds an hour whole, or not yet.
        """
        front = self.front // level.width * level.width
        if over <= front:
            return []
        awaited = set(np.unique(self.later.between(front, front + level.width).samples.tag).tolist())
        return [(tag, front, over) for tag in self.terms if tag not in awaited]

    def times(self) -> list[Micros] | None:
        """At which the rows of a range of tags are found, past those of others; None: they are too many for that."""
        times = np.unique(self.rows.samples.source_time)
        return times.tolist() if self.slice.tags is not None and len(times) * _FEW < len(self.rows) else None

    def portions(self) -> list["Before"]:
        """By ranges of tags, each to be closed in one transaction; when the first one is, the others are late."""
        tag = self.rows.samples.tag
        cuts = np.unique(tag[_AT_ONCE::_AT_ONCE])
        if not len(cuts) or cuts[-1] == tag[0]:
            return [self]
        bounds = [int(tag[0]), *cuts[cuts > tag[0]].tolist(), int(tag[-1]) + 1]
        ranges = [range(low, high) for low, high in pairwise(bounds)]
        first = replace(self._of(ranges[0]), later=self.rows.take(tag >= ranges[0].stop))
        behind = replace(self, front=max(self.front, self.slice.end))
        return [first, *(behind._of(each) for each in ranges[1:])]

    def _of(self, tags: range) -> "Before":
        def inside(column: NDArray[np.int32]) -> NDArray[np.bool_]:
            return (column >= tags.start) & (column < tags.stop)

        return replace(
            self,
            slice=replace(self.slice, tags=tags),
            rows=self.rows.take(inside(self.rows.samples.tag)),
            replaced={key: chunk for key, chunk in self.replaced.items() if chunk.tag_id in tags},
            following=self.following.take(inside(self.following.samples.tag)),
            known=rows_of(self.known, inside(self.known.tag)),
            held=self.held.take(inside(self.held.tag)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What a partition gets."""

    chunks: Sequence[Chunk]
    samples: int
    left_out: int
    size: int
    """[byte]"""


@dataclass(frozen=True, slots=True, eq=False)
class After:
    """What takes the place of a slice's rows."""

    parts: Mapping[str, Part]
    """By class of retention."""
    minutes: RollUps
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Closed:
    """What was closed."""

    slices: int = 0
    samples: int = 0
    left_out: int = 0
    """Of these samples, by the swinging door."""
    written: int = 0
    """Samples in the chunks that were written: some of them had been in others."""
    size: int = 0
    """Of these chunks [byte]."""

    @classmethod
    def of(cls, before: Before, after: After) -> "Closed":
        """One slice."""
        parts = after.parts.values()
        written = sum(part.samples for part in parts)
        return cls(1, len(before.rows), after.left_out, written, sum(part.size for part in parts))

    def __add__(self, other: "Closed") -> "Closed":
        return Closed(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


class Changed(Exception):
    """What was read of a slice is no longer what is there: it is to be read again."""


def terms_of(rows: Iterable[tuple[int, str, str, str, float]]) -> tuple[list[Tag], dict[int, TagTerms]]:
    """From key, name, source, class of retention and compression of all tags."""
    found = list(rows)
    terms = {key: TagTerms(retention, compression) for key, _, _, retention, compression in found}
    return [Tag(name, source, "", id=key) for key, name, source, _, _ in found], terms


def begins_of(spans: Sequence[Span]) -> list[tuple[int, Micros]]:
    """Where the first span of each tag begins."""
    begins: dict[int, Micros] = {}
    for tag, start, _ in spans:
        begins[tag] = min(start, begins.get(tag, start))
    return list(begins.items())


def coarsened(
    before: Before, known: RollUps, fresh: RollUps, spans: Sequence[Span], held: SampleBatch, level: Level
) -> RollUps:
    """Hours or days of the spans: of those of the level below that are there, and those that were made just now.

    ``held``: of each tag its newest sample before its first span.
    """
    parts = merged_roll_ups([known, _inside(fresh, spans)])
    start, end = min(start for _, start, _ in spans), max(end for _, _, end in spans)
    return coarser(parts, held, start, end, level, before.gaps)


def _inside(roll_ups: RollUps, spans: Sequence[Span]) -> RollUps:
    by_tag: dict[int, list[tuple[Micros, Micros]]] = {}
    for tag, start, end in spans:
        by_tag.setdefault(tag, []).append((start, end))
    keys = zip(roll_ups.tag.tolist(), roll_ups.start.tolist(), strict=True)
    inside = [any(start <= time < end for start, end in by_tag.get(tag, ())) for tag, time in keys]
    return rows_of(roll_ups, np.array(inside, np.bool_))


def belongs(there: Mapping[tuple[Micros, Micros], int], start: Micros, until: Micros) -> tuple[Micros, Micros]:
    """The stretch of the partition for rows from ``start`` on: one that is there, or may be made longer, or a new one.

    ``there``: samples in the partitions of that day, by their stretches.
    """
    for first, last in there:
        if first <= start < last:
            return first, last
    end = min([start // DAY * DAY + DAY, until, *(first for first, _ in there if first > start)])
    before = max(((last, first) for first, last in there if last <= start), default=None)
    if before is not None and there[before[1], before[0]] < ROWS:
        return before[1], end
    return start, end


def stretches(rows: Keyed) -> list[tuple[int, Micros, Micros]]:
    """(tag, start, end): of each tag the whole minutes that its rows touch."""
    tag, time = rows.samples.tag, rows.samples.source_time
    first = np.flatnonzero(np.append(True, tag[1:] != tag[:-1])[: len(tag)])
    last = np.append(first[1:], len(tag))[: len(first)] - 1
    low, high = time[first] // MINUTE * MINUTE, (time[last] // MINUTE + 1) * MINUTE
    return list(zip(tag[first].tolist(), low.tolist(), high.tolist(), strict=True))


def worth_growing(chunk: Chunk) -> bool:
    """Whether a chunk should take up the samples that follow it."""
    return chunk.samples < _SMALL


def size_of(chunks: Sequence[Chunk]) -> int:
    """About what they take in the database [byte]."""
    return sum(len(chunk.data) for chunk in chunks) + _ROW_BYTES * len(chunks)


def decoded(before: Before) -> Keyed:
    """Samples of the chunks that are replaced."""
    return Keyed(*decode(list(before.replaced.values())))


def close(before: Before) -> After:
    """All that is to be computed. Late rows are kept whatever the swinging door would say: it has passed their time."""
    old = decoded(before)
    kept, left_out = _compressed(before)
    everything = merged([old, kept])
    parts = {name: _part(everything, rows, left_out) for name, rows in _by_class(everything, before.terms).items()}
    return After(parts, minutes(before, old), int(sum(left_out.values())))


def _compressed(before: Before) -> tuple[Keyed, Mapping[int, int]]:
    """The rows that are kept, and how many are left out, by tag."""
    rows = before.rows
    bounds = {tag: terms.compression for tag, terms in before.terms.items() if terms.compression > 0}
    bounds = {tag: bound for tag, bound in bounds.items() if tag not in _late(before)}
    if not bounds:
        return rows, {}
    keep = door.kept(rows.samples, bounds, (rows.ordinals > 0) | _with_text(before))
    tags, counts = np.unique(rows.samples.tag[~keep], return_counts=True)
    return rows.take(keep), dict(zip(tags.tolist(), counts.tolist(), strict=True))


def _with_text(before: Before) -> NDArray[np.bool_]:
    if not before.with_text:
        return np.zeros(len(before.rows), np.bool_)
    keys = before.rows.each_key()
    return np.array([key in before.with_text for key in keys], np.bool_)


def _late(before: Before) -> set[int]:
    """Tags of which something later is closed already, in this slice or after it."""
    first = {tag: start for tag, start, _ in stretches(before.rows)}
    later = {chunk.tag_id for chunk in before.replaced.values() if chunk.last_time >= first.get(chunk.tag_id, 0)}
    return later | set(before.following.samples.tag.tolist())


def _by_class(everything: Keyed, terms: Mapping[int, TagTerms]) -> dict[str, NDArray[np.bool_]]:
    tags = np.unique(everything.samples.tag)
    classes: dict[str, list[int]] = {}
    for tag in tags.tolist():
        classes.setdefault(terms.get(tag, TagTerms()).retention, []).append(tag)
    return {name: np.isin(everything.samples.tag, of) for name, of in classes.items()}


def _part(everything: Keyed, rows: NDArray[np.bool_], left_out: Mapping[int, int]) -> Part:
    mine = everything if rows.all() else everything.take(rows)
    chunks = encode(mine.samples, mine.ordinals)
    tags = {chunk.tag_id for chunk in chunks}
    return Part(chunks, len(mine), sum(n for tag, n in left_out.items() if tag in tags), size_of(chunks))


def minutes(before: Before, old: Keyed) -> RollUps:
    """Of all minutes that the rows touch, and of the next one of each tag; ``old``: samples of the replaced chunks."""
    if not len(before.rows):
        return concatenated(())
    touched = merged([_within(old, stretches(before.rows)), before.following])
    everything = merged([touched, before.rows])
    return by_minute(touched.samples, before.rows.samples, everything.samples, before.known, before.held, before.gaps)


def _within(samples: Keyed, spans: Sequence[tuple[int, Micros, Micros]]) -> Keyed:
    """Those in their tag's stretch."""
    if not len(samples):
        return samples
    size = max(int(samples.samples.tag.max()), *(tag for tag, _, _ in spans)) + 1
    low, high = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for tag, start, end in spans:
        low[tag], high[tag] = start, end
    tags, time = samples.samples.tag, samples.samples.source_time
    return samples.take((time >= low[tags]) & (time < high[tags]))
