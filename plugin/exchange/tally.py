"""What an import comes to, by tag."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Micros, Quality, SampleBatch, qualities
from plugin.exchange.sifting import Sifted

_NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Line:
    """One tag; numbers are samples."""

    tag: int
    new: int
    duplicates: int
    conflicts: int
    bad: int
    first: Micros
    last: Micros
    hole: Micros
    """The longest time between two samples that follow one another in the file [µs]."""


class Tally:
    """Counted batch by batch."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        """Cells and rows that could not be taken, by reason."""
        self._place: dict[int, int] = {}
        self._counts = np.zeros((0, 4), np.int64)
        self._spans = np.zeros((0, 3), np.int64)
        """First, last, longest hole."""

    def add(self, batch: SampleBatch, sifted: Sifted) -> None:
        """One batch, in order of time."""
        if not len(batch):
            return
        place = self._places(batch.tag)
        bad = qualities(batch.status) == Quality.BAD
        for column, mask in enumerate((sifted.new, sifted.duplicate, sifted.conflict, bad)):
            self._counts[:, column] += np.bincount(place[mask], minlength=len(self._counts))
        order = np.argsort(place, kind="stable")
        tags, times = place[order], batch.source_time[order]
        begins = np.flatnonzero(np.diff(tags, prepend=-1))
        ends = np.append(begins[1:], len(tags)) - 1
        before = self._spans[tags[begins], 1]
        holes = np.diff(times, prepend=times[:1])
        holes[begins] = np.where(before == _NEVER, 0, np.maximum(times[begins] - before, 0))
        longest = np.maximum.reduceat(holes, begins)
        spans = self._spans[tags[begins]]
        fresh = spans[:, 1] == _NEVER
        spans[:, 0] = np.where(fresh, times[begins], np.minimum(spans[:, 0], times[begins]))
        spans[:, 1] = np.maximum(spans[:, 1], times[ends])
        spans[:, 2] = np.maximum(spans[:, 2], longest)
        self._spans[tags[begins]] = spans

    def _places(self, tags: NDArray[np.int32]) -> NDArray[np.int64]:
        different, where = np.unique(tags, return_inverse=True)
        new = [tag for tag in different.tolist() if tag not in self._place]
        self._place |= {tag: len(self._place) + number for number, tag in enumerate(new)}
        self._counts = np.concatenate([self._counts, np.zeros((len(new), 4), np.int64)])
        self._spans = np.concatenate([self._spans, np.tile([0, _NEVER, 0], (len(new), 1)).astype(np.int64)])
        return np.array([self._place[tag] for tag in different.tolist()], np.int64)[where]

    def lines(self) -> Iterator[Line]:
        """In order of first appearance."""
        for tag, place in self._place.items():
            yield Line(tag, *self._counts[place].tolist(), *self._spans[place].tolist())
