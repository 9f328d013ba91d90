"""Swinging door compression: of a line of samples only its ends are kept (Bristol 1990, US patent 4,669,097).

From the sample that was kept last two doors swing shut: the flattest and the steepest line that pass all samples since
within the bound. When they meet, the last sample that lay between them is kept, and is the next to hang doors on. Lines
end at samples as they are, not at the doors' posts a bound away: so the bound holds for the line that a reader draws
between neighbours, where the textbook's form may be off by twice as much.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Quality, SampleBatch, qualities
from plugin.historian.closed.codes import Ints

Doubles = NDArray[np.float64]

_LONGEST = 512
"""Samples that one line passes at most: lines are drawn side by side, and one of a constant tag need not last years."""
_PATIENCE = 32
"""Samples outside of the doors before they count as shut: what lies behind the last one between them is seen again."""
_LARGEST = 1e300
"""Value that a line passes: differences of larger ones may be infinite."""
_ROUNDING = 16 * np.finfo(np.float64).eps
"""What slopes may be wrong by, of the size of the values; the bound is narrowed by it."""


def kept(samples: SampleBatch, bounds: Mapping[int, float], fixed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mask of samples to keep: the straight line between neighbours of them is within the bound of all left out.

    ``samples``: sorted by (tag, source time). ``bounds``: by tag [unit]; a tag without one, or with 0, keeps all.
    ``fixed``: rows that are kept whatever they say, such as one with a text, with an ordinal above 0, or that was kept
    before (a second pass over what a first one left would add its own error). Always kept are the first and last sample
    of a tag, each that is not Good or no number below 1e300, and the samples on both sides of one of all these.
    """
    mask = np.ones(len(samples), np.bool_)
    bound = _by_row(samples.tag, bounds)
    with np.errstate(invalid="ignore"):
        number = np.abs(samples.value) < _LARGEST
    drawn = (bound > 0) & ~fixed & number & (qualities(samples.status) == Quality.GOOD)
    if drawn.any():
        starts, ends = _lines(samples, drawn)
        mask[drawn] = False
        mask[starts] = mask[ends] = True
        _swing(samples.source_time, np.where(drawn, samples.value, 0.0), bound, starts, ends, mask)
    return mask


def _by_row(tag: NDArray[np.int32], bounds: Mapping[int, float]) -> Doubles:
    first = np.flatnonzero(np.append(True, tag[1:] != tag[:-1])[: len(tag)])
    of_tags = [bounds.get(each, 0.0) for each in tag[first].tolist()]
    return np.repeat(np.array(of_tags, np.float64), np.diff(np.append(first, len(tag))))


def _lines(samples: SampleBatch, drawn: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """First and last rows of stretches of one tag and status whose times rise; they share ends where one is cut."""
    tag, time, status = samples.tag, samples.source_time, samples.status
    on = drawn[1:] & drawn[:-1] & (tag[1:] == tag[:-1]) & (status[1:] == status[:-1]) & (time[1:] > time[:-1])
    starts = np.flatnonzero(drawn & ~np.append(False, on))
    ends = np.flatnonzero(drawn & ~np.append(on, False))
    cuts = np.maximum(ends - starts - 1, 0) // _LONGEST
    within = np.arange(cuts.sum() + len(cuts)) - np.repeat(np.cumsum(cuts + 1) - cuts - 1, cuts + 1)
    starts = np.repeat(starts, cuts + 1) + within * _LONGEST
    return starts, np.minimum(starts + _LONGEST, np.repeat(ends, cuts + 1))


def _swing(time: Ints, value: Doubles, bound: Doubles, starts: Ints, ends: Ints, mask: NDArray[np.bool_]) -> None:
    """Mark what is kept between the ends of each line; all lines go on by a sample at once."""
    room = _room(value, bound, starts, ends)
    post, here, last, ends = starts.copy(), starts.copy(), starts.copy(), ends.copy()
    flattest, steepest = np.full(len(post), -np.inf), np.full(len(post), np.inf)
    while len(post):
        going = here < ends
        if not going.all():
            post, here, last, ends, room = post[going], here[going], last[going], ends[going], room[going]
            flattest, steepest = flattest[going], steepest[going]
        here += 1
        rise, run = value[here] - value[post], time[here] - time[post]
        slope = rise / run
        between = (flattest <= slope) & (slope <= steepest)
        last[between] = here[between]
        flattest = np.maximum(flattest, (rise - room) / run)
        steepest = np.minimum(steepest, (rise + room) / run)
        shut = (flattest > steepest) | (here - last > _PATIENCE) | ((here == ends) & ~between)
        if shut.any():
            mask[last[shut]] = True
            post[shut] = here[shut] = last[shut]
            flattest[shut], steepest[shut] = -np.inf, np.inf


def _room(value: Doubles, bound: Doubles, starts: Ints, ends: Ints) -> Doubles:
    """The bound of each line, less what slopes may be wrong by; below 0, no line passes anything."""
    size = np.maximum(np.maximum.reduceat(np.abs(value), starts), np.abs(value[ends]))
    room: Doubles = bound[starts] - _ROUNDING * (size + bound[starts])
    return room
