"""Samples that arrive when others of their time are closed: which are new, and what is there beside them."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Micros, SampleBatch
from plugin.historian.closed.keyed import Keyed

_APART: Micros = 600_000_000
"""Times of one tag that lie further apart are looked up apart [µs]."""

Stamp = tuple[int, Micros]
"""Tag and source time."""

_OPEN = """
SELECT o.tag_id, o.source_time, o.ordinal, o.value, o.status FROM json_each(?) AS k CROSS JOIN samples AS o
ON o.source_time = json_extract(k.value, '$[1]') AND o.tag_id = json_extract(k.value, '$[0]')
"""
_TEXTS = """
SELECT o.tag_id, o.source_time, o.ordinal, o.text FROM json_each(?) AS k CROSS JOIN sample_texts AS o
ON o.source_time = json_extract(k.value, '$[1]') AND o.tag_id = json_extract(k.value, '$[0]')
"""


@dataclass(slots=True)
class Stamped:
    """What one tag has of one time."""

    next: int = 0
    """The ordinal that is free."""
    values: set[tuple[float | None, int, str | None]] = field(default_factory=set)
    """Value, status and text."""

    def add(self, value: float | None, status: int, text: str | None) -> int | None:
        """Its ordinal; None: it is there."""
        if (value, status, text) in self.values:
            return None
        self.values.add((value, status, text))
        self.next += 1
        return self.next - 1


def clusters(batch: SampleBatch) -> list[tuple[int, Micros, Micros]]:
    """Stretches (tag, first, last) that hold all times of a batch, and not much of what lies between them."""
    order = np.lexsort((batch.source_time, batch.tag))
    tag, time = batch.tag[order], batch.source_time[order]
    # As floats: the difference of two int64 may be more than one holds.
    breaks = np.flatnonzero((tag[1:] != tag[:-1]) | (time[1:].astype(float) - time[:-1] > _APART)) + 1
    first, last = np.append(0, breaks), np.append(breaks, len(tag)) - 1
    return list(zip(tag[first].tolist(), time[first].tolist(), time[last].tolist(), strict=True))


def places(known: Keyed, batch: SampleBatch) -> NDArray[np.intp]:
    """Where ``known``, which is sorted, has the first sample of each one's tag and time; -1: it has none."""
    order = np.lexsort((batch.source_time, batch.tag))
    tag, time = batch.tag[order], batch.source_time[order]
    found = np.full(len(batch), -1, np.intp)
    tags = np.unique(tag)
    mine = np.searchsorted(tag, tags), np.searchsorted(tag, tags, side="right")
    theirs = (np.searchsorted(known.samples.tag, tags, side=side) for side in ("left", "right"))
    for begin, end, low, high in zip(*(bounds.tolist() for bounds in (*mine, *theirs)), strict=True):
        if low < high:
            there = known.samples.source_time[low:high]
            place = np.minimum(np.searchsorted(there, time[begin:end]), high - low - 1)
            found[order[begin:end]] = np.where(there[place] == time[begin:end], low + place, -1)
    return found


def stamped(database: sqlite3.Connection, closed: Keyed, batch: SampleBatch) -> Mapping[Stamp, Stamped]:
    """What is there at each stamp of the batch, among the chunks that were decoded and among the rows."""
    stamps = sorted(set(zip(batch.tag.tolist(), batch.source_time.tolist(), strict=True)))
    asked = json.dumps(stamps)
    texts = {(tag, time, ordinal): text for tag, time, ordinal, text in database.execute(_TEXTS, (asked,))}
    found = {stamp: Stamped() for stamp in stamps}
    for tag, time, ordinal, value, status in (*_of_stamps(closed, batch), *database.execute(_OPEN, (asked,))):
        there = found[tag, time]
        there.values.add((value, status, texts.get((tag, time, ordinal))))
        there.next = max(there.next, ordinal + 1)
    return found


def _of_stamps(closed: Keyed, batch: SampleBatch) -> list[tuple[int, Micros, int, float | None, int]]:
    rows = np.flatnonzero(places(_sorted(batch), closed.samples) >= 0)
    part, ordinals = closed.samples.take(rows), closed.ordinals[rows]
    value = [None if each != each else each for each in part.value.tolist()]  # noqa: PLR0124  NaN is NULL
    columns = part.tag.tolist(), part.source_time.tolist(), ordinals.tolist(), value, part.status.tolist()
    return list(zip(*columns, strict=True))


def _sorted(batch: SampleBatch) -> Keyed:
    order = np.lexsort((batch.source_time, batch.tag))
    return Keyed(batch.take(order), np.zeros(len(batch), np.int32))
