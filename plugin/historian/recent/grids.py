"""A window of many tags: copied from the ring where it can be, else computed of samples from the ring or from SQL."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Grid, Micros, SampleBatch, Window
from plugin.historian.recent.ring import Ring
from plugin.infer.windows import dense

Ask = tuple[list[int], Micros]
"""Tags, and from which source time on their samples are wanted [µs]."""


class Gathering:
    """One window's way: what the ring has is taken at once; SQL is asked for the rest, and then there is a grid.

    Equal to ``dense`` of all samples, whatever comes from where.
    """

    def __init__(
        self, window: Window, ring: Ring | None, known_by: Micros | None = None, received_by: Micros | None = None
    ) -> None:
        self._window = window
        self._steady = np.zeros(len(window.tags), np.bool_)
        self._batches: list[SampleBatch] = []
        if ring is not None and known_by is None:
            self._steady, self._values = ring.read_steady(window, received_by)
        rest = self._rest = window.take(~self._steady)
        tags, first = np.unique(np.asarray(rest.tags, np.intp), return_index=True)
        starts = rest.reach[first]
        if ring is not None and len(tags):
            covered, batch = ring.read_covered(tags, starts, rest.end)
            self._batches.append(batch.known(known_by, received_by))
            tags, starts = tags[~covered], starts[~covered]
        self.asks = list(_asks(tags.tolist(), starts.tolist(), window.start))
        """What SQL has to give, each up to the window's end, with the same bounds."""

    def grid(self, read: Sequence[SampleBatch]) -> Grid:
        """``read``: what SQL gave to each of ``asks``."""
        window, steady = self._window, self._steady
        if steady.all() and len(steady):
            cells = window.start + window.step * np.arange(window.length, dtype=np.int64)
            observed = np.ones(self._values.shape, np.bool_)
            return Grid(window.tags, cells, self._values, observed, observed, self._values)
        found = dense(SampleBatch.concatenate([*self._batches, *read]), self._rest)
        if not steady.any():
            return found
        values, observed, good, held = (
            _both(steady, ours, theirs)
            for ours, theirs in (
                (self._values, found.values), (True, found.observed), (True, found.good), (self._values, found.held),
            )
        )  # fmt: skip
        return Grid(window.tags, found.cells, values, observed, good, held)


def _both(steady: NDArray[np.bool_], ours: Any, theirs: NDArray[Any]) -> NDArray[Any]:
    whole = np.empty((len(steady), theirs.shape[1]), theirs.dtype)
    whole[steady] = ours
    whole[~steady] = theirs
    return whole


def _asks(tags: Sequence[int], starts: Sequence[Micros], start: Micros) -> Iterator[Ask]:
    """Tags of much alike reach together: one that is held for a day does not have a day read of all others."""
    groups: dict[int, list[int]] = {}
    for place, begin in enumerate(starts):
        groups.setdefault((start - begin).bit_length() // 2, []).append(place)
    for places in groups.values():
        yield [tags[place] for place in places], min(starts[place] for place in places)
