"""Roll-ups joined, replaced and made coarser: what becomes of those that are there when more samples come."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Level, Micros, RollUps, SampleBatch
from plugin.historian.closed.rollup import Holes, concatenated, roll_up

MINUTE = Level.MINUTE.width
Span = tuple[int, Micros, Micros]
"""Of a tag, from a time on up to another, exclusive."""
TABLES = {Level.MINUTE: "rollup_minutes", Level.HOUR: "rollup_hours", Level.DAY: "rollup_days"}
_RENAMED = {"tag": "tag_id", "start": "start_time"}
COLUMNS = tuple(_RENAMED.get(each.name, each.name) for each in fields(RollUps))
"""Of the tables, in the order of the noun's fields."""


def merged(parts: Sequence[RollUps]) -> RollUps:
    """All of them, ordered by (tag, start); of two with one key the later one."""
    both = concatenated(parts)
    order = np.lexsort((np.arange(len(both)), both.start, both.tag))
    tag, start = both.tag[order], both.start[order]
    last = np.append((tag[1:] != tag[:-1]) | (start[1:] != start[:-1]), True)[: len(both)]
    return rows_of(both, order[last])


def rows_of(roll_ups: RollUps, rows: Any) -> RollUps:
    """The rows of an index array or a mask."""
    return RollUps(*(column[rows] for column in columns_of(roll_ups)))


def columns_of(roll_ups: RollUps) -> list[NDArray[Any]]:
    """In the order of the fields."""
    return [getattr(roll_ups, each.name) for each in fields(RollUps)]


def of_rows(rows: Sequence[tuple[Any, ...]]) -> RollUps:
    """From rows of a table's :data:`COLUMNS`; NULL becomes NaN."""
    if not rows:
        return concatenated(())
    types = [column.dtype for column in columns_of(concatenated(()))]
    return RollUps(*(np.array(column, dtype) for column, dtype in zip(zip(*rows, strict=True), types, strict=True)))


def same_keys(roll_ups: RollUps, among: RollUps) -> NDArray[np.bool_]:
    """Mask of the roll-ups whose tag and start are among others."""
    others = set(_keys(among))
    return np.array([key in others for key in _keys(roll_ups)], np.bool_)


def by_minute(
    old: SampleBatch, new: SampleBatch, everything: SampleBatch, known: RollUps, held: SampleBatch, gaps: Holes
) -> RollUps:
    """Minutes of ``everything``, sorted by tag and time, which is the ``old`` samples and the ``new`` ones.

    ``known``: the roll-ups that there are of these minutes. Where one is of more samples than ``old`` has, because the
    swinging door or retention took some away, the new ones are added to it; what is weighted by time stays as it was.
    ``held``: of each tag its newest sample from before.
    """
    whole = (int(everything.source_time.min(initial=0)), int(everything.source_time.max(initial=0)) + MINUTE)
    fresh = roll_up(everything, held, *whole, Level.MINUTE, gaps)
    counts = roll_up(old, SampleBatch.empty(), *whole, Level.MINUTE)
    there = merged([counts, known])  # the later of two with one key: what is known
    lost = rows_of(there, _more(there, counts))
    if not len(lost):
        return fresh
    added = roll_up(new, SampleBatch.empty(), *whole, Level.MINUTE)
    touched = rows_of(lost, same_keys(lost, added))
    return merged([rows_of(fresh, ~same_keys(fresh, lost)), _sum(touched, rows_of(added, same_keys(added, lost)))])


def _more(there: RollUps, counts: RollUps) -> NDArray[np.bool_]:
    """Which are of more samples than were counted."""
    counted = dict(zip(_keys(counts), counts.samples.tolist(), strict=True))
    return there.samples > np.array([counted.get(key, 0) for key in _keys(there)], np.int64)


def _keys(roll_ups: RollUps) -> list[tuple[int, Micros]]:
    return list(zip(roll_ups.tag.tolist(), roll_ups.start.tolist(), strict=True))


def _sum(known: RollUps, added: RollUps) -> RollUps:
    """Of the same intervals, in the same order."""
    later, earlier = added.last_time >= known.last_time, added.first_time < known.first_time
    numbers = known.numbers + added.numbers
    with np.errstate(all="ignore"):
        total = np.nan_to_num(known.mean) * known.numbers + np.nan_to_num(added.mean) * added.numbers
        mean = np.where(numbers > 0, total / numbers, np.nan)
    return RollUps(
        tag=known.tag,
        start=known.start,
        samples=known.samples + added.samples,
        good=known.good + added.good,
        numbers=numbers,
        minimum=np.fmin(known.minimum, added.minimum),
        maximum=np.fmax(known.maximum, added.maximum),
        mean=mean,
        first_time=np.where(earlier, added.first_time, known.first_time),
        first_value=np.where(earlier, added.first_value, known.first_value),
        last_time=np.where(later, added.last_time, known.last_time),
        last_value=np.where(later, added.last_value, known.last_value),
        last_status=np.where(later, added.last_status, known.last_status),
        weighted_mean=known.weighted_mean,
        observed=known.observed,
        good_time=known.good_time,
    )
