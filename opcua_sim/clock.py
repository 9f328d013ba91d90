"""The plant's clock: steps and the instants they happen at.

Step 0 is the first instant at which the plant ever ran; steps before it are its past, one period apart. Afterwards a
step passes with each period in which the plant runs and none while it is off::

    wall time   . . . . | a b c d        e f g h i          a period lies between neighbours on the grid
    step          -2 -1   0 1 2 3        4 5 6 7 8          the plant was off between d and e

All instants lie on whole multiples of the period since 1970-01-01 UTC: the grid.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Micros = int
"""Microseconds since 1970-01-01 UTC."""


class Clock:
    """Steps to instants and back. The last interval is the present one and has no end."""

    def __init__(self, period: Micros, intervals: Sequence[tuple[int, int]]) -> None:
        """``intervals``: first grid index and the one after the last, of each time that the plant ran, in order."""
        if period <= 0 or not intervals:
            raise ValueError("a plant's clock needs a period above 0 and at least one interval")
        self.period = period
        self._start = np.array([start for start, _ in intervals], np.int64)
        lengths = [end - start for start, end in intervals]
        self._step = np.concatenate([[0], np.cumsum(lengths[:-1])]).astype(np.int64)

    @property
    def present(self) -> int:
        """First step of the present interval."""
        return int(self._step[-1])

    def times(self, steps: ArrayLike) -> NDArray[np.int64]:
        """The instants of steps [µs]."""
        steps = np.asarray(steps, np.int64)
        interval = np.maximum(np.searchsorted(self._step, steps, side="right") - 1, 0)
        times: NDArray[np.int64] = (self._start[interval] + steps - self._step[interval]) * self.period
        return times

    def time(self, step: int) -> Micros:
        """The instant of one step."""
        return int(self.times(step))

    def first_step(self, time: Micros) -> int:
        """The first step at or after an instant."""
        grid = -(-time // self.period)
        interval = int(np.searchsorted(self._start, grid, side="right")) - 1
        if interval < 0:
            return grid - int(self._start[0])
        step = int(self._step[interval]) + grid - int(self._start[interval])
        if interval + 1 < len(self._step):
            step = min(step, int(self._step[interval + 1]))
        return step
