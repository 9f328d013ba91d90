"""Samples to grids: the one way from the historian to a model, for training, live scoring and backtest alike.

A grid has cells ``[start + i * step, start + (i + 1) * step)`` on whole steps since 1970. A cell that has samples shows
the last one, if usable: a number that a float32 holds, Good, or Uncertain where the tag's policy takes that. A cell
without one repeats the sample before it for as long as ``hold`` allows, never across a Bad sample or a gap. With a step
of 1 and a ``hold`` of 3, ``.`` being *not observed*::

    samples   2 at 0.5            5 at 6.0    Bad at 8.2
    cell      0   1   2   3   4   5   6   7   8   9
    hold      2   2   2   2   .   .   5   5   .   .

Where a tag asks for it, a cell between two samples shows the line between them at the cell's start. Both have to be
usable, no further apart than ``hold``, without a gap between them; where they are not, and as long as the later one
is not there yet, the earlier one is held as above. So a line changes what is seen in a cell, never whether::

    samples   2 at 0.0      5 at 3.0            9 at 8.0
    cell      0   1   2   3   4   5   6   7   8
    hold      2   2   2   5   5   5   5   .   9
    linear    2   3   4   5   5   5   5   .   9      of the last two samples the distance, 5, is more than 3

Samples come as a store gives them, a tag's in order of time. All in NumPy over whole columns: no Python object per
sample, and no sorting.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from plugin.domain import (
    Asset,
    Fill,
    Gap,
    GapState,
    Grid,
    Micros,
    Policies,
    Quality,
    SampleBatch,
    Stretch,
    Window,
    from_micros,
    micros,
    qualities,
    to_micros,
)
from plugin.infer.config import ModelConfig

LARGEST = float(np.finfo(np.float32).max)
"""Beyond it a value is no number to a model."""
_ROOM = 50_000_000
"""Cells of all tags of a history that are filled with what is held there, at most."""


def whole_steps(config: ModelConfig, time: datetime) -> datetime:
    """The last whole step since 1970 that is not after ``time``."""
    at = to_micros(time)
    return from_micros(at - at % micros(config.step))


def policies(config: ModelConfig, assets: Iterable[Asset]) -> Policies:
    """Of all features of all assets: the tag's own word, or the model's. A late role stands for its own cell alone."""
    tags = [(asset.tags[feature], late) for asset in assets for feature, late in _features(config)]
    return Policies.of(
        len(tags),
        [0 if late else micros(config.hold if tag.max_age is None else tag.max_age) for tag, late in tags],
        [tag.fill is Fill.LINEAR for tag, _ in tags],
        [tag.uncertain for tag, _ in tags],
    )


def _features(config: ModelConfig) -> Iterator[tuple[str, bool]]:
    return zip(config.features, config.late, strict=True)


def stretches(gaps: Iterable[Gap], assets: Iterable[Asset], now: Micros) -> Iterator[Stretch]:
    """The gaps that began before ``now`` and that history has not filled, tag by tag; a lasting one ends ``now``."""
    holes = [gap for gap in gaps if gap.state is not GapState.FILLED and to_micros(gap.start) < now]
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


def dense(samples: SampleBatch, window: Window) -> Grid:
    """Every cell of a window; of each tag the samples from its ``window.reach`` to ``window.end`` are needed."""
    start, step = window.start, window.step
    behind = _behind(samples, window.tags, window.policies, window.end)
    first = np.maximum((behind.time - start) // step, 0)
    last = (behind.stands_until - start) // step
    cells = start + step * np.arange(window.length, dtype=np.int64)
    return _grid(behind, (first, last), window.tags, cells, window.policies, window.gaps)


def occupied(
    samples: SampleBatch, tags: Sequence[int], step: Micros, policies: Policies, gaps: Iterable[Stretch] = ()
) -> Grid:
    """The cells that hold a sample, and those between two of them throughout which a value is held, as a window shows
    it too: years with long stops stay small. Cells lie on whole steps."""
    behind = _behind(samples, tags, policies)
    cells = step * _bridged(behind, step, _ROOM // max(1, len(tags)))
    first = np.searchsorted(cells, behind.time, side="right") - 1
    last = np.searchsorted(cells, behind.stands_until, side="right") - 1
    return _grid(behind, (first, last), tags, cells, policies, gaps)


def thinned(samples: SampleBatch, step: Micros, both_ends: Collection[int]) -> SampleBatch:
    """Those that cells may show, of samples sorted by tag and time: the last of each cell, and the last that is usable.

    ``both_ends``: tags of which the first of a cell counts too, which a line leads to, and what is of the very moment
    that it begins.
    """
    cell, severity = samples.source_time // step, qualities(samples.status)
    kept = np.isin(samples.tag, list(both_ends))
    kept[kept] = (samples.source_time[kept] % step == 0) | _differs(samples.tag[kept], cell[kept])[:-1]
    for worst in Quality:
        rows = np.flatnonzero(severity <= worst)
        kept[rows[_differs(samples.tag[rows], cell[rows])[1:]]] = True
    return samples if kept.all() else samples.take(kept)


def _differs(tag: NDArray[np.int32], cell: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[n + 1] whether a sample is of another tag or cell than the one before it; the ends are."""
    inner = (tag[1:] != tag[:-1]) | (cell[1:] != cell[:-1])
    return np.concatenate([[True], inner, [True]])[: len(tag) + 1]


def _bridged(behind: "_Behind", step: Micros, room: int) -> NDArray[np.int64]:
    """Numbers of cells, ascending; the newest holes first, as far as there is ``room`` for their cells."""
    number = behind.time // step
    if not len(number):
        return number
    order = np.argsort(number, kind="stable")  # tag by tag they are in order already, which it makes use of
    begins = np.flatnonzero(np.diff(number[order], prepend=number.min() - 1))
    cells = number[order[begins]]
    shown = np.where(behind.usable, behind.stands_until // step, number)
    last = np.maximum.reduceat(shown[order], begins)
    missing = np.diff(cells) - 1
    filled = np.where(np.maximum.accumulate(last)[:-1] >= cells[1:] - 1, missing, 0)
    filled[filled[::-1].cumsum()[::-1] > room] = 0
    found: NDArray[np.int64] = np.repeat(cells, np.append(filled, 0) + 1)
    found += np.arange(len(found)) - np.repeat(np.cumsum(np.append(0, filled + 1)), np.append(filled, 0) + 1)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Behind:
    """The samples behind a grid; columns of one length, a row's in order of time."""

    row: NDArray[np.int64]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    usable: NDArray[np.bool_]
    good: NDArray[np.bool_]
    stands_until: NDArray[np.int64]
    """The last beginning of a cell that may show it [µs]."""


def _behind(samples: SampleBatch, tags: Sequence[int], policies: Policies, end: Micros | None = None) -> _Behind:
    """Those of the tags, and before the end."""
    row = np.full(max(tags, default=0) + 2, -1, np.int64)  # the last one is for strangers
    row[list(tags)] = np.arange(len(tags))
    rows = row[np.minimum(samples.tag, len(row) - 1)]
    mine = rows >= 0 if end is None else (rows >= 0) & (samples.source_time < end)
    time, value, status = samples.source_time, samples.value, samples.status
    if not mine.all():
        rows, time, value, status = rows[mine], time[mine], value[mine], status[mine]
    severity = qualities(status)
    worst = np.where(policies.uncertain, Quality.UNCERTAIN, Quality.GOOD).astype(np.uint8)
    usable = (severity <= worst[rows]) & (np.abs(value) <= LARGEST)
    return _Behind(rows, time, value, usable, severity == Quality.GOOD, time + policies.hold[rows])


def _grid(
    behind: _Behind,
    shown: tuple[NDArray[np.int64], NDArray[np.int64]],
    tags: Sequence[int],
    cells: NDArray[np.int64],
    policies: Policies,
    gaps: Iterable[Stretch],
) -> Grid:
    """``shown``: of each sample the first and the last cell that may show it."""
    shape = (len(tags), len(cells))
    if not len(behind.row) or not len(cells):
        empty = np.zeros(shape, np.float32)
        return Grid(tuple(tags), cells, empty, np.zeros(shape, bool), np.zeros(shape, bool), empty)
    newest = _newest(behind.row, shown[0], shape)
    # In 32 bits, and nothing of all cells in 64: what costs here is memory to be gone through.
    last = np.where(behind.usable, np.clip(shown[1], -1, len(cells)), -1).astype(np.int32)
    observed = last[newest] >= np.arange(len(cells), dtype=np.int32)
    observed &= newest >= 0
    row_of = {tag: row for row, tag in enumerate(tags)}
    holes = [(row_of[tag], start, end) for tag, start, end in gaps if tag in row_of]
    for row, start, end in holes:
        observed[row] &= _not_across(behind.time[newest[row]], cells, start, end)
    good = observed if behind.good.all() else observed & behind.good[newest]
    with np.errstate(over="ignore"):  # those are not usable
        held = values = np.where(observed, behind.value.astype(np.float32)[newest], np.float32(0))
    if policies.linear.any():
        values, good = held.copy(), good.copy()
        _draw_lines(values, good, behind, newest, observed, cells, policies, holes)
    return Grid(tuple(tags), cells, values, observed, good, held)


def _newest(rows: NDArray[np.int64], place: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int32]:
    """[row, cell]: index of the row's last sample before the cell's end, or -1."""
    newest = np.full(shape, -1, np.int32)
    # Of several samples in one cell the assignment keeps the last: a tag's samples are in order of time.
    newest.ravel()[rows * shape[1] + place] = np.arange(len(rows), dtype=np.int32)
    return np.maximum.accumulate(newest, axis=1)


def _not_across(taken: NDArray[np.int64], cells: NDArray[np.int64], start: Micros, end: Micros) -> NDArray[np.bool_]:
    """Inside a gap, and after it until a new sample, the value from before it says nothing."""
    held = taken < cells
    across: NDArray[np.bool_] = held & (taken <= start) & (cells >= start) & (taken < end)
    return ~across


def _draw_lines(
    values: NDArray[np.float32],
    good: NDArray[np.bool_],
    behind: _Behind,
    newest: NDArray[np.int32],
    observed: NDArray[np.bool_],
    cells: NDArray[np.int64],
    policies: Policies,
    holes: Iterable[Stretch],
) -> None:
    """Put what lies on a line into ``values``; ``good`` remains where both its samples are."""
    linear = np.flatnonzero(policies.linear)
    left = np.maximum(newest[linear], 0)
    right = np.minimum(left + 1, len(behind.row) - 1)
    begin, end = behind.time[left], behind.time[right]
    drawn = observed[linear] & (begin < cells) & (right > left) & (behind.row[right] == linear[:, None])
    drawn &= behind.usable[right] & (end - begin <= policies.hold[linear][:, None])
    place = {row: index for index, row in enumerate(linear.tolist())}
    for row, start, stop in holes:
        if (index := place.get(row)) is not None:
            drawn[index] &= (start >= end[index]) | (stop <= begin[index])
    which, cell = np.nonzero(drawn)
    share = (cells[cell] - begin[drawn]) / (end[drawn] - begin[drawn])
    before, after = behind.value[left[drawn]], behind.value[right[drawn]]
    values[linear[which], cell] = before + share * (after - before)
    good[linear[which], cell] &= behind.good[right[drawn]]
