"""Lives of a unit: stretches of its age that ended with a failure.

A life begins at the youngest age, with the end of a work order, or where the unit failed and went on. It ends with the
first of these::

    failure   somebody said so
    reset     the age starts over: it failed, unless a work order says otherwise
    order     a work order begins: nobody knows how long it would have lasted, so nothing is learnt from it

A failure that is told within two steps after a reset, or during a work order, is what that reset or order was about.
So is one that is told later, within three days and while the unit is no older than a tenth of what it was before the
reset: people write down what happened once the machine runs again. Who overhauls one that has not failed says so by a
work order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Micros, micros
from plugin.infer.told import Told

_NEAR = 2
"""Steps: a life counts as ended by a failure only when its last cell, and what followed, are no further apart."""

LATE = 0.1
"""Of the age that a unit had reached: as long as it is no older again, a failure may be that of the life before,"""
LATEST = micros(timedelta(days=3))
"""unless it has been running for longer [µs]."""

Mark = Literal["failure", "reset", "order"]


@dataclass(frozen=True, slots=True)
class _Ends:
    """Positions among the observed cells."""

    ends: dict[int, tuple[Mark, Micros]]
    """Of the first cell that does not belong to the life any more; and when that was."""
    begins: dict[int, Mark]


def lives(age: NDArray[np.float64], cells: NDArray[np.int64], step: Micros, told: Told) -> list[slice]:
    """The cells of each life, oldest first; ``age`` [cell], NaN where not observed, ``cells``: their starts [µs]."""
    seen = np.flatnonzero(np.isfinite(age))
    if not len(seen):
        return []
    age, cells = age[seen], cells[seen]
    marks = _marks(age, cells, step, told)
    resets = [place for place, (mark, _) in marks.ends.items() if mark == "reset"]
    youngest = age[resets].min() if resets else np.inf
    found = []
    for begin, end in _stretches(marks):
        first, (why, time) = marks.begins.get(begin), marks.ends[end]
        if why == "order" or (first == "failure" and why == "reset"):
            continue
        young = first in {"failure", "order"} or age[begin] <= youngest
        began_anew = why != "reset" or age[end] <= youngest
        if young and began_anew and time - cells[end - 1] <= _NEAR * step:
            found.append(slice(int(seen[begin]), int(seen[end - 1]) + 1))
    return found


def _marks(age: NDArray[np.float64], cells: NDArray[np.int64], step: Micros, told: Told) -> _Ends:
    resets = [int(place) for place in np.flatnonzero(np.diff(age) < 0) + 1]
    ends: dict[int, tuple[Mark, Micros]] = {place: ("reset", int(cells[place])) for place in resets}
    begins: dict[int, Mark] = dict.fromkeys(resets, "reset")
    failures = told.failures.tolist()
    for start, stop in told.stops:
        first, after = (int(np.searchsorted(cells, time)) for time in (start, stop))
        within = [failure for failure in failures if start <= failure <= stop]
        failures = [failure for failure in failures if failure not in within]
        for place in range(first, after + _NEAR + 1):  # what starts over by then does so for the order
            ends.pop(place, None)
            begins.pop(place, None)
        ends[first] = "failure" if within else "order", start
        begins[after] = "order"
    for failure in failures:
        place = int(np.searchsorted(cells, failure, side="right"))
        of_reset = [at for at in resets if at <= place and cells[at] >= failure - _NEAR * step]
        newest = max((at for at in resets if at < place), default=0)
        if newest and failure - cells[newest] <= LATEST and age[place - 1] <= LATE * age[newest - 1]:
            of_reset.append(newest)
        if not any(at in ends for at in of_reset):
            ends[place], begins[place] = ("failure", failure), "failure"
    return _Ends(ends, begins)


def _stretches(marks: _Ends) -> Iterator[tuple[int, int]]:
    """From each begin to the next end; where a life begins twice before an end, the later begin counts."""
    ends = sorted(marks.ends)
    begins = sorted({0, *marks.begins})
    for begin, following in zip(begins, [*begins[1:], None], strict=True):
        end = next((end for end in ends if end > begin), None)
        if end is not None and (following is None or end <= following):
            yield begin, end
