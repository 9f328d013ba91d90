"""Samples with their whole keys, as rows and chunks hold them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Micros, SampleBatch

Key = tuple[int, Micros, int]
"""Tag, source time, ordinal."""


@dataclass(frozen=True, slots=True, eq=False)
class Keyed:
    """Samples and their ordinals: 0, 1, … for different values that carry one source time, in order of arrival."""

    samples: SampleBatch
    ordinals: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.samples)

    @classmethod
    def empty(cls) -> "Keyed":
        """None at all."""
        return cls(SampleBatch.empty(), np.zeros(0, np.int32))

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp] | slice) -> "Keyed":
        """The rows of an index array, a mask or a slice."""
        return Keyed(self.samples.take(rows), self.ordinals[rows])

    def between(self, start: Micros, end: Micros) -> "Keyed":
        """Those with ``start <= source_time < end``."""
        time = self.samples.source_time
        inside = (time >= start) & (time < end)
        return self if inside.all() else self.take(inside)

    def each_key(self) -> Iterable[Key]:
        """In their order."""
        columns = self.samples.tag, self.samples.source_time, self.ordinals
        return zip(*(column.tolist() for column in columns), strict=True)

    def with_texts(self, texts: Mapping[Key, str]) -> SampleBatch:
        """The samples, and their texts where there are any."""
        if not texts:
            return self.samples
        column = np.full(len(self), None, np.object_)
        tags = np.unique(np.array([tag for tag, _, _ in texts], np.int32))
        with_text = np.flatnonzero(np.isin(self.samples.tag, tags))
        for row, key in zip(with_text.tolist(), self.take(with_text).each_key(), strict=True):
            column[row] = texts.get(key)
        return replace(self.samples, text=column) if any(text is not None for text in column) else self.samples


def merged(parts: Sequence[Keyed]) -> Keyed:
    """All of them, ordered by (tag, source time, ordinal)."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return Keyed.empty()
    samples = SampleBatch.concatenate([part.samples for part in parts])
    ordinals = np.concatenate([part.ordinals for part in parts])
    order = _order(samples, ordinals)
    return Keyed(samples, ordinals) if order is None else Keyed(samples.take(order), ordinals[order])


def newest(kept: Keyed, newer: Keyed) -> Keyed:
    """The newest of each tag, by tag; of one key that of ``newer``: a correction changes the row, and leaves the key.

    ``kept``: of each tag one at most.
    """
    found = merged([kept, newer])  # stable
    return found.take(np.append(np.diff(found.samples.tag) > 0, True)[: len(found)])


def _order(samples: SampleBatch, ordinals: NDArray[np.int32]) -> NDArray[np.intp] | None:
    """None: they are in order already. Usually they are, or in order but for the tag: older parts came first."""
    tag, time = samples.tag, samples.source_time
    same = tag[1:] == tag[:-1]
    in_order = (time[1:] > time[:-1]) | ((time[1:] == time[:-1]) & (ordinals[1:] > ordinals[:-1]))
    if ((tag[1:] > tag[:-1]) | (same & in_order)).all():
        return None
    by_tag = np.argsort(tag, kind="stable")
    tag, time, ordinals = tag[by_tag], time[by_tag], ordinals[by_tag]
    in_order = (time[1:] > time[:-1]) | ((time[1:] == time[:-1]) & (ordinals[1:] > ordinals[:-1]))
    if (in_order | (tag[1:] != tag[:-1])).all():
        return by_tag
    order: NDArray[np.intp] = by_tag[np.lexsort((ordinals, time, tag))]
    return order
