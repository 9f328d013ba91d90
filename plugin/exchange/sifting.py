"""What of the samples of a file is new, what is in the store already, and what contradicts it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Micros, SampleBatch
from plugin.protocols import Store
from plugin.slices import slices

_AT_ONCE = 200_000
"""Samples of the store."""


@dataclass(frozen=True, slots=True, eq=False)
class Sifted:
    """Masks of rows; each is in one of them."""

    new: NDArray[np.bool_]
    duplicate: NDArray[np.bool_]
    """Equal in tag, source time, value, status and text; or a row before it is."""
    conflict: NDArray[np.bool_]
    """Another value was there at that tag and time."""


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """What the store had when an import was begun: what it took in since is the import's own."""

    received: Micros | None
    """Received until then; None: all that there is."""
    tags: NDArray[np.int32]
    """With samples."""
    oldest: Micros
    newest: Micros
    """Source times: what lies outside can contradict nothing, so nothing is read for it."""


async def sift(store: Store, batch: SampleBatch, before: Before) -> Sifted:
    """Rows beside what was stored before. Those of one stamp that differ from each other alone are all new."""
    rows = np.isin(batch.tag, before.tags)
    rows &= (batch.source_time >= before.oldest) & (batch.source_time <= before.newest)
    asked = batch.take(rows)
    if not len(asked):
        return compared(batch, asked)
    tags, first, last = np.unique(asked.tag), int(asked.source_time.min()), int(asked.source_time.max())
    found = slices(store, tags.tolist(), first, last + 1, size=_AT_ONCE, received_by=before.received)
    return compared(batch, SampleBatch.concatenate([_with_stamps_of(asked, part) async for part, _ in found]))


def _with_stamps_of(batch: SampleBatch, stored: SampleBatch) -> SampleBatch:
    """Samples that have tag and time of one of the batch: a file that is in no order spans more than memory holds."""
    times, tags = np.unique(batch.source_time), np.unique(batch.tag)
    stored = stored.take(np.isin(stored.source_time, times))
    stamps, asked = (
        np.searchsorted(times, each.source_time) * len(tags) + np.searchsorted(tags, each.tag)
        for each in (stored, batch)
    )
    return stored.take(np.isin(stamps, asked))


def compared(batch: SampleBatch, stored: SampleBatch) -> Sifted:
    """Rows of a batch beside samples of the same tags."""
    both = SampleBatch.concatenate([stored, batch])
    stamps = _groups(both.tag, both.source_time)
    values = _groups(stamps, (both.value + 0.0).view(np.int64), both.status, _numbered(both))
    old = np.zeros(len(both), np.bool_)
    old[: len(stored)] = True
    stamp_taken = np.bincount(stamps[old], minlength=int(stamps.max(initial=-1)) + 1) > 0
    first = np.full(int(values.max(initial=-1)) + 1, len(both))
    np.minimum.at(first, values, np.arange(len(both)))
    duplicate = (first[values] < np.arange(len(both)))[len(stored) :]
    conflict = stamp_taken[stamps][len(stored) :] & ~duplicate
    return Sifted(~duplicate & ~conflict, duplicate, conflict)


def _groups(*columns: NDArray[np.generic]) -> NDArray[np.int64]:
    """Rows that are equal in all columns have one number."""
    order = np.lexsort(columns)
    differs = np.zeros(len(order), np.bool_)
    for column in columns:
        sorted_column = column[order]
        differs[1:] |= sorted_column[1:] != sorted_column[:-1]
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.cumsum(differs)
    return numbers


def _numbered(batch: SampleBatch) -> NDArray[np.int64]:
    """Texts as numbers: equal ones have one; none is 0."""
    if batch.text is None:
        return np.zeros(len(batch), np.int64)
    numbers: dict[str | None, int] = {None: 0}
    return np.array([numbers.setdefault(text, len(numbers)) for text in batch.text.tolist()], np.int64)
