"""Samples to grids: the one way from the historian to a model, for training, live scoring and backtest alike.

A grid has cells ``[start + i * step, start + (i + 1) * step)``. A cell's value is its last sample, if usable; a cell
without one repeats the sample before it for as long as its tag's ``hold`` allows, never across a Bad sample or a gap.
Usable means Good or Uncertain with a number. Samples come as a store gives them, ordered by tag and source time. All in
NumPy over whole columns: no Python object per sample, and no sorting.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Asset, Gap, GapState, Micros, Quality, SampleBatch, qualities, to_micros
from plugin.infer.config import ModelConfig

Hold = Micros | NDArray[np.int64]
"""How long a value stands for itself [µs], one for all tags or one per tag."""

Stretch = tuple[int, Micros, Micros]
"""A gap as (tag id, start, end) [µs]."""


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Rows are tags in the order asked for, columns are cells in order of time."""

    tags: tuple[int, ...]
    """Tag id of each row."""
    cells: NDArray[np.int64]
    """Start of each cell [µs]."""
    values: NDArray[np.float32]
    """[tag, cell]; 0 where not observed."""
    observed: NDArray[np.bool_]
    """[tag, cell]."""
    good: NDArray[np.bool_]
    """[tag, cell]: observed, and the sample behind it is Good."""


def micros(duration: timedelta) -> Micros:
    """A duration in whole microseconds."""
    return duration // timedelta(microseconds=1)


def holds(config: ModelConfig) -> NDArray[np.int64]:
    """How long each feature's value stands [µs]."""
    return np.where(config.late, 0, micros(config.hold)).astype(np.int64)


def stretches(gaps: Iterable[Gap], assets: Iterable[Asset], now: Micros) -> Iterator[Stretch]:
    """The gaps that history has not filled, tag by tag; a lasting one ends ``now``."""
    holes = [gap for gap in gaps if gap.state is not GapState.FILLED]
    for tag in (tag for asset in assets for tag in asset.tags.values()):
        for gap in holes:
            if gap.source == tag.source and gap.tag in {None, tag.name}:
                yield tag.id, to_micros(gap.start), now if gap.end is None else to_micros(gap.end)


def unheard(away: Mapping[str, Micros], assets: Iterable[Asset], now: Micros) -> Iterator[Stretch]:
    """What can't be known of tags whose source is away: all from its last word on, which is not a gap yet.

    ``away``: last word by source [µs]. Whatever the source sends again later is observed again.
    """
    for tag in (tag for asset in assets for tag in asset.tags.values()):
        since = away.get(tag.source)
        if since is not None and since < now:
            yield tag.id, since, now


def dense(
    samples: SampleBatch,
    tags: Sequence[int],
    start: Micros,
    step: Micros,
    length: int,
    hold: Hold,
    gaps: Iterable[Stretch] = (),
) -> Grid:
    """Every cell of ``[start, start + length * step)``; ``samples`` should begin ``hold`` earlier."""
    cells = start + step * np.arange(length, dtype=np.int64)
    return _grid(samples, tags, cells, step, hold, gaps)


def occupied(samples: SampleBatch, tags: Sequence[int], step: Micros, hold: Hold, gaps: Iterable[Stretch] = ()) -> Grid:
    """Only the cells that hold a sample: years with long stops stay small. Cells lie on whole steps."""
    cells = np.unique(samples.source_time // step) * step
    return _grid(samples, tags, cells, step, hold, gaps)


def _grid(
    samples: SampleBatch,
    tags: Sequence[int],
    cells: NDArray[np.int64],
    step: Micros,
    hold: Hold,
    gaps: Iterable[Stretch],
) -> Grid:
    rows, samples = _rows(samples, tags)
    shape = (len(tags), len(cells))
    if not len(samples) or not len(cells):
        return Grid(tuple(tags), cells, np.zeros(shape, np.float32), np.zeros(shape, bool), np.zeros(shape, bool))
    last = _last_before(rows, samples.source_time, cells + step, shape[0])
    newest = np.maximum(last, 0)
    severity = qualities(samples.status)[newest]
    value = samples.value[newest]
    age = cells[None, :] - samples.source_time[newest]
    observed = (last >= 0) & (severity != Quality.BAD) & np.isfinite(value) & (age <= np.reshape(hold, (-1, 1)))
    _forget_across_gaps(observed, samples.source_time[newest], cells, tags, gaps)
    values = np.where(observed, value, 0.0).astype(np.float32)
    return Grid(tuple(tags), cells, values, observed, observed & (severity == Quality.GOOD))


def _rows(samples: SampleBatch, tags: Sequence[int]) -> tuple[NDArray[np.int64], SampleBatch]:
    """Row of each sample in ``tags``, strangers left out; the samples keep their order."""
    if not tags:
        return np.zeros(0, np.int64), samples.take(slice(0))
    order = np.argsort(np.asarray(tags))
    known = np.asarray(tags, np.int64)[order]
    place = np.minimum(np.searchsorted(known, samples.tag), len(known) - 1)
    mine = known[place] == samples.tag
    return (order[place], samples) if mine.all() else (order[place[mine]], samples.take(mine))


def _last_before(
    rows: NDArray[np.int64], times: NDArray[np.int64], ends: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """[row, cell]: index of the row's last sample before the cell's end, or -1."""
    cell = np.searchsorted(ends, times, side="right")
    inside = cell < len(ends)
    last = np.full((count, len(ends)), -1, np.int64)
    # Of several samples in one cell the assignment keeps the last: a tag's samples are in order of time.
    last[rows[inside], cell[inside]] = np.flatnonzero(inside)
    return np.maximum.accumulate(last, axis=1)


def _forget_across_gaps(
    observed: NDArray[np.bool_],
    taken: NDArray[np.int64],
    cells: NDArray[np.int64],
    tags: Sequence[int],
    gaps: Iterable[Stretch],
) -> None:
    """Inside a gap, and after it until a new sample, the value from before it says nothing."""
    place = {tag: row for row, tag in enumerate(tags)}
    for tag, start, end in gaps:
        row = place.get(tag)
        if row is not None:
            held = taken[row] < cells
            observed[row] &= ~(held & (taken[row] <= start) & (cells >= start)) | (taken[row] >= end)
