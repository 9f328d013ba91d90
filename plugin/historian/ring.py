"""The newest samples of the tags that models read in memory: what a scoring run reads instead of SQL, and equal to it.

One row per tag and one column per sample, circular. A row is sorted by source time (equal ones in order of arrival), so
a window is two binary searches, done for all tags at once. For each tag the ring knows from which source time on it
holds everything that SQL holds; a window that begins earlier is *not covered*, and SQL answers. Texts are not held:
models read numbers, and a tag that has a text is never covered.
"""

import threading
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Micros, SampleBatch

_EVER = np.iinfo(np.int64).min
_NEVER = np.iinfo(np.int64).max
_SAMPLE_BYTES = 36
_TIME_BITS = 42
"""Of a key of tag and time: 50 days in µs, and 2 million tags."""
Indices = NDArray[np.intp]


class Ring:
    """Takes and gives batches from any thread.

    The newest ``samples`` of each of ``tags`` (None: of every tag), fewer where so many would need more than ``memory``
    bytes. Of other tags it takes nothing, and covers nothing.
    """

    def __init__(self, samples: int = 2048, memory: int = 256 * 2**20, tags: Collection[int] | None = None) -> None:
        self.tags = None if tags is None else tuple(sorted({int(tag) for tag in tags}))
        """Those that it holds, in order; None: every one."""
        self._samples = samples
        self._memory = memory
        self._lock = threading.Lock()
        self._allocate(tags=1)

    def holds(self, tags: Collection[int]) -> bool:
        """Whether these are its tags."""
        return self.tags is not None and set(self.tags) == set(tags)

    def for_tags(self, tags: Collection[int]) -> "Ring":
        """An empty one with the same bounds, for these tags."""
        return Ring(self._samples, self._memory, tags)

    def _allocate(self, tags: int) -> None:
        """Empty rows for those of the tags 0 .. tags-1 that are held, covered for ever: nothing is stored of them yet.

        Zeros cost no memory until they are written.
        """
        every = np.arange(tags, dtype=np.int32)
        self._tag = every if self.tags is None else np.array([tag for tag in self.tags if tag < tags], np.int32)
        self._row = np.full(tags, -1, np.intp)
        self._row[self._tag] = np.arange(len(self._tag))
        rows = len(self._tag)
        self._capacity = capacity = max(1, min(self._samples, self._memory // (_SAMPLE_BYTES * max(rows, 1))))
        self._time = np.zeros((rows, capacity), np.int64)
        self._value = np.zeros((rows, capacity), np.float64)
        self._status = np.zeros((rows, capacity), np.uint32)
        self._server = np.zeros((rows, capacity), np.int64)
        self._received = np.zeros((rows, capacity), np.int64)
        self._start = np.zeros(rows, np.intp)
        self._size = np.zeros(rows, np.intp)
        self._covered = np.full(rows, _EVER, np.int64)

    def reserve(self, last: int) -> None:
        """Make room for the tags up to ``last``, new ones having no samples yet; what fits of the others is kept."""
        with self._lock:
            if last < len(self._row):
                return
            held = self._gather(np.arange(len(self._tag)), np.zeros_like(self._size), self._size)
            covered = self._covered
            self._allocate(tags=last + 1)
            self._covered[: len(covered)] = covered  # the new tags have higher keys, and so the rows behind
            self._append(held)

    def cover_from(self, time: Micros) -> None:
        """Of what lies before ``time`` the ring may lack some, for all tags that it knows now."""
        with self._lock:
            np.maximum(self._covered, time, out=self._covered)

    def leave_out(self, tags: NDArray[np.int32]) -> None:
        """Never hold these: SQL answers for them. A tag whose samples have a text is one of them by itself."""
        with self._lock:
            self._leave_out(tags)

    def append(self, batch: SampleBatch) -> None:
        """Take what SQL took, in the same order of batches; what SQL finds to be a duplicate is one here too."""
        with self._lock:
            self._append(batch)

    def read(self, tags: Sequence[int], start: Micros, end: Micros) -> SampleBatch | None:
        """Samples with ``start <= source_time < end`` ordered by (tag, source time, arrival); None: not covered."""
        with self._lock:
            asked = np.unique(np.asarray(tags, np.intp))
            rows = self._rows(asked)
            if len(rows) < len(asked) or (self._covered[rows] > start).any():
                return None
            return self._gather(rows, self._search(rows, start), self._search(rows, max(start, end)))

    def latest(self, tags: Sequence[int]) -> tuple[SampleBatch, list[int]]:
        """The newest samples by tag, and the tags of which SQL may hold some though the ring has none."""
        with self._lock:
            asked = np.unique(np.asarray(tags, np.intp))
            rows = self._rows(asked)
            unknown = np.setdiff1d(asked, self._tag[rows], assume_unique=True)
            newest = np.maximum(self._size[rows] - 1, 0)
            found = (self._size[rows] > 0) & (self._time.ravel()[self._cells(rows, newest)] >= self._covered[rows])
            unknown = np.concatenate([unknown, self._tag[rows[~found & (self._covered[rows] > _EVER)]]])
            return self._gather(rows[found], newest[found], newest[found] + 1), unknown.tolist()

    # --- the rest is called with the lock held ---

    def _rows(self, tags: NDArray[Any]) -> Indices:
        """Of those of the tags that are held, in the order of the tags."""
        rows: Indices = self._row[tags[(tags >= 0) & (tags < len(self._row))]]
        held: Indices = rows[rows >= 0]
        return held

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return self._time, self._value, self._status, self._server, self._received

    def _gather(self, rows: Indices, low: Indices, high: Indices) -> SampleBatch:
        """The samples ``low <= place < high`` of each row, place 0 being the oldest."""
        counts = high - low
        row = np.repeat(rows, counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        place = np.arange(len(row)) - first + np.repeat(low, counts)
        cell = self._cells(row, place)
        return SampleBatch(self._tag[row], *(column.ravel().take(cell) for column in self._columns()))

    def _cells(self, rows: Indices, places: Indices) -> Indices:
        """Flat indices of places in rows."""
        column = self._start[rows] + places
        column -= np.where(column >= self._capacity, self._capacity, 0)
        cells: Indices = rows * self._capacity + column
        return cells

    def _search(self, rows: Indices, time: Micros) -> Indices:
        """Per row the first place whose source time is not before ``time``, by bisection of all rows together."""
        low, high = np.zeros_like(rows), self._size[rows]
        while (open_ := low < high).any():
            middle = (low + high) // 2
            before = open_ & (self._time.ravel()[self._cells(rows, np.minimum(middle, self._capacity - 1))] < time)
            low = np.where(before, middle + 1, low)
            high = np.where(open_ & ~before, middle, high)
        return low

    def _leave_out(self, tags: NDArray[np.int32]) -> None:
        rows = self._rows(tags)
        self._covered[rows] = _NEVER
        self._size[rows] = 0

    def _append(self, batch: SampleBatch) -> None:
        if batch.text is not None:
            self._leave_out(np.unique(batch.tag[batch.with_text()]))
        if self.tags is not None:
            batch = batch.take(self._row[batch.tag] >= 0)
        keep = batch.source_time >= self._covered[self._row[batch.tag]]
        order = _order(batch.tag, batch.source_time)
        order = order[keep[order]]
        if not len(order):
            return
        batch = batch.take(order)
        # Adding 0.0 makes -0.0 the 0.0 that SQLite gives back.
        tag, time, value, *rest = batch.columns()
        batch = SampleBatch(tag, time, value + 0.0, *rest)
        new_tag = np.diff(tag, prepend=-1) != 0
        first = np.flatnonzero(new_tag)
        group = np.cumsum(new_tag) - 1
        rows, counts = self._row[tag[first]], np.diff(first, append=len(tag))
        newest = self._time.ravel()[self._cells(rows, np.maximum(self._size[rows] - 1, 0))]
        late = (self._size[rows] > 0) & (time[first] <= newest)
        late[group[1:][(np.diff(time) == 0) & ~new_tag[1:]]] = True
        for index in np.flatnonzero(late):
            self._merge(int(rows[index]), batch.take(slice(first[index], first[index] + counts[index])))
        if not late.all():
            in_order = ~late[group]
            place = np.arange(len(tag)) - first[group] + self._size[rows][group]
            self._extend(rows[~late], counts[~late], batch.take(in_order), place[in_order])

    def _extend(self, rows: Indices, counts: Indices, batch: SampleBatch, places: Indices) -> None:
        """Put samples that are newer than all of their row behind it; ``places`` count on from the row's size."""
        lost = np.maximum(self._size[rows] + counts - self._capacity, 0)
        full = np.flatnonzero(lost)
        if len(full):
            last = np.cumsum(counts)[full] - counts[full] + lost[full] - 1 - self._size[rows[full]]
            held = lost[full] <= self._size[rows[full]]
            old = self._time.ravel()[self._cells(rows[full], np.where(held, lost[full] - 1, 0))]
            self._covered[rows[full]] = np.where(held, old, batch.source_time[np.where(held, 0, last)]) + 1
        kept = places >= np.repeat(lost, counts)
        batch, places = batch.take(kept), places[kept]
        row = self._row[batch.tag]
        self._put(row * self._capacity + (self._start[row] + places) % self._capacity, batch)
        self._start[rows] = (self._start[rows] + lost) % self._capacity
        self._size[rows] = np.minimum(self._size[rows] + counts, self._capacity)

    def _merge(self, row: int, batch: SampleBatch) -> None:
        """Put samples of one tag where they belong: late ones, and several with one source time."""
        rows = np.array([row])
        from_ = self._search(rows, int(batch.source_time[0]))
        merged = SampleBatch.concatenate([self._gather(rows, from_, self._size[rows]), batch])
        merged = merged.take(np.argsort(merged.source_time, kind="stable"))
        merged = merged.take(_first_of_equals(merged))
        kept = int(from_[0])
        lost = max(0, kept + len(merged) - self._capacity)
        if lost:
            evicted = self._time.ravel()[self._cells(rows, np.array([lost - 1]))[0]] if lost <= kept else None
            self._covered[row] = (merged.source_time[lost - 1 - kept] if evicted is None else evicted) + 1
        places = np.arange(max(kept, lost), kept + len(merged))
        self._put(row * self._capacity + (self._start[row] + places) % self._capacity, merged.take(places - kept))
        self._start[row] = (self._start[row] + lost) % self._capacity
        self._size[row] = min(kept + len(merged), self._capacity)

    def _put(self, cells: Indices, batch: SampleBatch) -> None:
        for column, values in zip(self._columns(), batch.columns()[1:], strict=True):
            column.ravel()[cells] = values


def _order(tag: NDArray[np.int32], time: NDArray[np.int64]) -> Indices:
    """By tag, then time, then arrival.

    In one key where both fit: a batch is a few runs in order of their tags, which the sort finds and merges. By time
    first, as lexsort goes about it, there is no order to be found.
    """
    since = time - time.min(initial=_NEVER)
    if since.max(initial=0) < 1 << _TIME_BITS and tag.max(initial=0) < 1 << (63 - _TIME_BITS):
        return np.argsort((tag.astype(np.int64) << _TIME_BITS) | since, kind="stable")
    return np.lexsort((time, tag))


def _first_of_equals(batch: SampleBatch) -> NDArray[np.bool_]:
    """Of samples of one tag, sorted by source time, those that no earlier one equals in time, value and status."""
    time = batch.source_time
    keep = np.ones(len(time), np.bool_)
    if not (np.diff(time) == 0).any():
        return keep
    values = np.where(np.isnan(batch.value), np.nan, batch.value).view(np.int64)
    seen: set[tuple[int, int, int]] = set()
    for index, key in enumerate(zip(time.tolist(), values.tolist(), batch.status.tolist(), strict=True)):
        keep[index] = key not in seen
        seen.add(key)
    return keep
