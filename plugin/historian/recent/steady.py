"""Which tags tick like a clock: one Good sample in each cell, and nothing to decide about any of them."""

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Micros, Quality, SampleBatch, qualities
from plugin.infer.windows import LARGEST


class Steady:
    """For one width of cells: of each row of a ring, where its newest run of such samples begins.

    Samples are numbered by row in order of time. Each is looked at once, when somebody asks for the run.
    """

    def __init__(self, step: Micros, rows: int) -> None:
        self._step = step
        self._begin = np.zeros(rows, np.int64)
        self._seen = np.zeros(rows, np.int64)

    def forget(self, row: int, number: int) -> None:
        """From this sample on the row has changed."""
        self._seen[row] = min(self._seen[row], number)
        self._begin[row] = min(self._begin[row], number)

    def look_from(self, rows: NDArray[np.intp], ends: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """The first sample to be looked at; a run may begin ``2 * length`` samples before ``ends``."""
        seen = np.maximum(self._seen[rows], ends - 2 * length)
        self._begin[rows] = np.maximum(self._begin[rows], np.where(seen > self._seen[rows], seen, 0))
        self._seen[rows] = seen
        return seen

    def look(
        self, rows: NDArray[np.intp], first: NDArray[np.int64], counts: NDArray[np.intp], samples: SampleBatch
    ) -> NDArray[np.int64]:
        """Look at samples of rows, ``counts`` of each from the number ``first`` on (one before the first new one, where
        there is one); gives where the runs begin."""
        new = np.flatnonzero(counts)
        if len(new):
            begins = (np.cumsum(counts) - counts)[new]
            number = np.arange(len(samples)) - np.repeat(begins - first[new], counts[new])
            breaks = np.where(self._goes_on(samples, begins), 0, number)
            breaks = np.where(_usable(samples), breaks, number + 1)
            # The one before the first new sample is there to be compared with; where its run begins is known.
            breaks[begins] = np.where(number[begins] < self._seen[rows[new]], 0, breaks[begins])
            self._begin[rows[new]] = np.maximum(self._begin[rows[new]], np.maximum.reduceat(breaks, begins))
            self._seen[rows[new]] = (first + counts)[new]
        return self._begin[rows]

    def _goes_on(self, samples: SampleBatch, begins: NDArray[np.intp]) -> NDArray[np.bool_]:
        """In the cell after that of the sample before it in its row, and not received earlier."""
        goes_on = np.zeros(len(samples), np.bool_)
        goes_on[1:] = np.diff(samples.source_time // self._step) == 1
        goes_on[1:] &= np.diff(samples.received_time) >= 0
        goes_on[begins] = False
        return goes_on


def _usable(samples: SampleBatch) -> NDArray[np.bool_]:
    usable: NDArray[np.bool_] = (qualities(samples.status) == Quality.GOOD) & (np.abs(samples.value) <= LARGEST)
    return usable
