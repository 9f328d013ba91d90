"""The newest samples of the tags that models read in memory: what a scoring run reads instead of SQL, and equal to it.

One row per tag and one column per sample, circular. A row is sorted by source time (equal ones in order of arrival), so
a window is two binary searches, done for all tags at once. For each tag the ring knows from which source time on it
holds everything that SQL holds; a window that begins earlier is *not covered*, and SQL answers. Texts are not held:
models read numbers, and a tag that has a text is never covered.

Values are held a second time as a model wants them, in float32 and twice in a row: wherever the circle stands, a window
is one stretch of memory. Of a tag that is *steady*, one Good sample to a cell, it is copied as it is.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from plugin.domain import Micros, SampleBatch, Window
from plugin.historian.recent.steady import Steady

_EVER = np.iinfo(np.int64).min
_NEVER = np.iinfo(np.int64).max
_SAMPLE_BYTES = 44
_STEPS = 8
"""Widths of cells that are kept an eye on at most, for models rarely have more."""
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
        self._single = np.zeros((rows, 2 * capacity), np.float32)
        self._lost = np.zeros(rows, np.int64)
        """Samples that a row no longer holds: place p of a row is the sample number lost + p that it was given."""
        self._covered = np.full(rows, _EVER, np.int64)
        self._steady: dict[Micros, Steady] = {}

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

    @property
    def capacity(self) -> int:
        """Samples that it holds of one tag."""
        return self._capacity

    def cover_from(self, time: Micros) -> None:
        """Of what lies before ``time`` the ring may lack some, for all tags that it knows now."""
        with self._lock:
            np.maximum(self._covered, time, out=self._covered)

    def cover_each_from(self, times: Mapping[int, Micros]) -> None:
        """The same, by tag."""
        with self._lock:
            for tag, time in times.items():
                rows = self._rows(np.array([tag]))
                self._covered[rows] = np.maximum(self._covered[rows], time)

    def correct(self, batch: SampleBatch) -> None:
        """What a corrected sample was before, only SQL can say: no longer cover what is not newer than these."""
        newest = {int(tag): int(batch.source_time[batch.tag == tag].max()) for tag in np.unique(batch.tag)}
        self.cover_each_from({tag: time + 1 for tag, time in newest.items()})

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
        asked = np.unique(np.asarray(tags, np.intp))
        covered, batch = self.read_covered(asked, np.full(len(asked), start, np.int64), end)
        return batch if covered.all() else None

    def read_covered(
        self, tags: NDArray[np.intp], starts: NDArray[np.int64], end: Micros
    ) -> tuple[NDArray[np.bool_], SampleBatch]:
        """Which of the tags are covered from their start on, and the samples of those up to ``end``.

        ``tags``: each once; the samples are in their order, then in that of source time and arrival.
        """
        with self._lock:
            rows, covered = self._covers(tags, starts)
            starts = starts[covered]
            return covered, self._gather(rows, self._search(rows, starts), self._search(rows, np.maximum(starts, end)))

    def read_steady(self, window: Window, received_by: Micros | None) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Which of the window's tags have one Good sample in each cell, received by then, and the values of those.

        [tag], [steady tag, cell]. Policies and gaps do not matter for them.
        """
        step, length = window.step, window.length
        steady = np.zeros(len(window.tags), np.bool_)
        with self._lock:
            if window.start % step or not length:
                return steady, np.zeros((0, length), np.float32)
            rows, steady = self._covers(np.asarray(window.tags, np.intp), window.start)
            (rows,) = _narrow(steady, (rows,), self._size[rows] >= length)
            # One to a cell: how many cells the newest sample is past the first is how many samples.
            newest = self._size[rows] - 1
            first = newest - (self._time.ravel()[self._cells(rows, newest)] - window.start) // step
            begin = self._steady_from(rows, step, length) - self._lost[rows]
            rows, first = _narrow(steady, (rows, first), (begin <= first) & (first <= newest - length + 1))
            if received_by is not None:
                seen = self._received.ravel()[self._cells(rows, first + length - 1)] <= received_by
                rows, first = _narrow(steady, (rows, first), seen)
            if not len(rows):
                return steady, np.zeros((0, length), np.float32)
            cells = 2 * self._capacity * rows + (self._start[rows] + first) % self._capacity
            return steady, sliding_window_view(self._single.ravel(), length)[cells]

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

    def _covers(self, tags: NDArray[np.intp], starts: NDArray[np.int64] | Micros) -> tuple[Indices, NDArray[np.bool_]]:
        """The rows of the tags that are there from their start on, and which of the tags those are."""
        known = (tags >= 0) & (tags < len(self._row))
        rows = np.where(known, self._row[np.where(known, tags, 0)], -1)
        covered = rows >= 0
        covered[covered] = self._covered[rows[covered]] <= np.broadcast_to(starts, len(tags))[covered]
        return rows[covered], covered

    def _steady_from(self, rows: Indices, step: Micros, length: int) -> NDArray[np.int64]:
        """Of each row the first of the newest samples that are one to a cell; few more than ``length`` are found."""
        steady = self._steady.pop(step, None) or Steady(step, len(self._tag))
        self._steady[step] = steady
        if len(self._steady) > _STEPS:
            del self._steady[next(iter(self._steady))]
        lost, size = self._lost[rows], self._size[rows]
        from_ = steady.look_from(rows, lost + size, length)
        low = np.maximum(from_ - lost - 1, 0)
        counts = size - low
        batch = self._gather(rows, low, size)
        return steady.look(rows, lost + low, counts, batch)

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

    def _search(self, rows: Indices, time: Micros | NDArray[np.int64]) -> Indices:
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
        self._lost[rows] += lost

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
        for steady in self._steady.values():
            steady.forget(row, int(self._lost[row]) + kept)
        self._lost[row] += lost

    def _put(self, cells: Indices, batch: SampleBatch) -> None:
        for column, values in zip(self._columns(), batch.columns()[1:], strict=True):
            column.ravel()[cells] = values
        with np.errstate(over="ignore"):  # what a float32 can't hold is never steady
            single = batch.value.astype(np.float32)
        cells = cells + cells // self._capacity * self._capacity
        self._single.ravel()[cells] = single
        self._single.ravel()[cells + self._capacity] = single


def _narrow(mask: NDArray[np.bool_], columns: tuple[Indices, ...], keep: NDArray[np.bool_]) -> tuple[Indices, ...]:
    """Keep some of the elements that a mask is true of, in the mask and in columns of those."""
    mask[mask] = keep
    return tuple(column[keep] for column in columns)


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
