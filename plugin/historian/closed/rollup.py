"""Roll-ups of samples by minute, and of those by hour and day, as if they too were made of the samples.

What a roll-up says is explained at :class:`plugin.domain.RollUps`. Whole columns at once, no Python object per sample.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Gap, GapState, Level, Micros, Quality, RollUps, SampleBatch, Tag, qualities, to_micros
from plugin.historian.closed.codes import Ints, Runs

Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]

_FINER = {Level.HOUR: Level.MINUTE, Level.DAY: Level.HOUR}


@dataclass(frozen=True, slots=True, eq=False)
class Holes:
    """Where samples of tags are missing: per tag apart from one another, ordered by (tag, start)."""

    tag: NDArray[np.int32]
    start: Ints
    end: Ints


NO_HOLES = Holes(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))


def holes(gaps: Iterable[Gap], tags: Sequence[Tag], now: Micros) -> Holes:
    """The gaps that history has not filled, tag by tag; one that lasts ends ``now``."""
    found = []
    for gap in gaps:
        if gap.state is not GapState.FILLED:
            span = to_micros(gap.start), now if gap.end is None else to_micros(gap.end)
            found += [(t.id, *span) for t in tags if gap.source == t.source and gap.tag in {None, t.name}]
    joined: list[tuple[int, Micros, Micros]] = []
    for tag, start, end in sorted(found):
        if joined and joined[-1][0] == tag and start <= joined[-1][2]:
            joined[-1] = (tag, joined[-1][1], max(end, joined[-1][2]))
        elif start < end:
            joined.append((tag, start, end))
    columns = np.array(joined, np.int64).reshape(-1, 3)
    return Holes(columns[:, 0].astype(np.int32), columns[:, 1], columns[:, 2])


def roll_up(
    samples: SampleBatch, held: SampleBatch, start: Micros, end: Micros, level: Level, gaps: Holes = NO_HOLES
) -> RollUps:
    """Of samples in ``[start, end)`` that are sorted by (tag, source time, ordinal); nothing stands outside of it.

    ``held``: of each tag that has one its newest sample before ``start``, sorted by tag.
    """
    if not len(samples):
        return concatenated(())
    of, time = samples, samples.source_time
    value, good = _usable(of.value, of.status)
    with np.errstate(all="ignore"):  # infinities are values too
        stands = _standing(_Steps(of.tag, time, time, value, good), held, (start, end), level, gaps)
        runs, first, last = stands.runs, stands.runs.starts, stands.last
        mean, numbers = _mean([(value, (~np.isnan(value)).astype(np.int64))], runs)
        weighted, observed = _mean([(value, stands.after), (stands.earlier, stands.before)], runs)
        return RollUps(
            tag=of.tag[first],
            start=stands.begin,
            samples=runs.counts,
            good=_sums(qualities(of.status) == Quality.GOOD, runs),
            numbers=numbers,
            minimum=np.fmin.reduceat(value, first),
            maximum=np.fmax.reduceat(value, first),
            mean=mean,
            first_time=time[first],
            first_value=value[first],
            last_time=time[last],
            last_value=value[last],
            last_status=of.status[last],
            weighted_mean=weighted,
            observed=observed,
            good_time=_sums(stands.good_time, runs),
        )


def coarser(
    roll_ups: RollUps, held: SampleBatch, start: Micros, end: Micros, level: Level, gaps: Holes = NO_HOLES
) -> RollUps:
    """Hours of minutes, days of hours: what :func:`roll_up` makes of their samples, but for the last binary digits."""
    if not len(roll_ups):
        return concatenated(())
    of = roll_ups
    value, good = _usable(of.last_value, of.last_status)
    since = np.minimum(of.start + _FINER[level].width, end)
    with np.errstate(all="ignore"):
        stands = _standing(_Steps(of.tag, of.start, since, value, good), held, (start, end), level, gaps)
        runs, first, last = stands.runs, stands.runs.starts, stands.last
        within = of.weighted_mean, of.observed
        mean, numbers = _mean([(of.mean, of.numbers)], runs)
        weighted, observed = _mean([within, (value, stands.after), (stands.earlier, stands.before)], runs)
        return RollUps(
            tag=of.tag[first],
            start=stands.begin,
            samples=_sums(of.samples, runs),
            good=_sums(of.good, runs),
            numbers=numbers,
            minimum=np.fmin.reduceat(of.minimum, first),
            maximum=np.fmax.reduceat(of.maximum, first),
            mean=mean,
            first_time=of.first_time[first],
            first_value=of.first_value[first],
            last_time=of.last_time[last],
            last_value=of.last_value[last],
            last_status=of.last_status[last],
            weighted_mean=weighted,
            observed=observed,
            good_time=_sums(of.good_time + stands.good_time, runs),
        )


def last_samples(roll_ups: RollUps) -> SampleBatch:
    """Of each tag the last sample, as ``held`` of what follows; its server and received time are not known."""
    rows = np.flatnonzero(np.append(roll_ups.tag[1:] != roll_ups.tag[:-1], True)[: len(roll_ups)])
    of, time = roll_ups, roll_ups.last_time[rows]
    return SampleBatch(of.tag[rows], time, of.last_value[rows], of.last_status[rows], time, time)


def concatenated(parts: Sequence[RollUps]) -> RollUps:
    """One after the other."""
    if parts:
        return RollUps(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(RollUps)))
    return RollUps(**{each.name: np.zeros(0, _TYPES.get(each.name, np.int64)) for each in fields(RollUps)})


_TYPES: dict[str, Any] = {
    "tag": np.int32,
    "last_status": np.uint32,
    **dict.fromkeys(("minimum", "maximum", "mean", "first_value", "last_value", "weighted_mean"), np.float64),
}


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """Samples, or intervals that have some, in order."""

    tag: NDArray[np.int32]
    at: Ints
    since: Ints
    """When the last value begins to stand for what follows, until the next step."""
    value: Doubles
    """The last one; NaN where none stands."""
    good: Flags


@dataclass(frozen=True, slots=True, eq=False)
class _Standing:
    """How long values stand [µs], by step but for what is said of the intervals."""

    runs: Runs
    """Steps of each interval."""
    begin: Ints
    """Of each interval."""
    last: Ints
    """Step of each interval."""
    after: Ints
    """The step's last value, after it."""
    earlier: Doubles
    """At the first step of an interval: the value that stands before it."""
    before: Ints
    """How long it does."""
    good_time: Ints
    """Of both, as far as they are Good."""


def _standing(steps: _Steps, held: SampleBatch, span: tuple[Micros, Micros], level: Level, gaps: Holes) -> _Standing:
    start, end = span
    begin = steps.at // level.width * level.width
    first = np.flatnonzero(np.append(True, (steps.tag[1:] != steps.tag[:-1]) | (begin[1:] != begin[:-1])))
    runs = Runs(first, np.diff(np.append(first, len(begin))))
    last = first + runs.counts - 1
    until = np.append(steps.at[1:], 0)
    until[last] = np.minimum(begin[last] + level.width, end)
    after = _known(steps.tag, steps.since, until, steps.value, gaps)
    earlier, earlier_good = _before(steps, first, held)
    since = np.maximum(begin[first], start)
    before = _known(steps.tag[first], since, np.maximum(steps.at[first], since), earlier, gaps)
    good_time = after * steps.good
    good_time[first] += before * earlier_good
    return _Standing(
        runs, begin[first], last, after, _at(first, earlier, np.nan, begin), _at(first, before, 0, begin), good_time
    )


def _at(rows: Ints, values: NDArray[Any], otherwise: float, like: Ints) -> NDArray[Any]:
    column = np.full(like.shape, otherwise, values.dtype)
    column[rows] = values
    return column


def _usable(value: Doubles, status: NDArray[np.uint32]) -> tuple[Doubles, Flags]:
    """Values that are Good or Uncertain, NaN instead of the others; and which of them are Good."""
    severity = qualities(status)
    values = np.where(severity == Quality.BAD, np.nan, value)
    return values, (severity == Quality.GOOD) & ~np.isnan(values)


def _before(steps: _Steps, first: Ints, held: SampleBatch) -> tuple[Doubles, Flags]:
    """What stands when an interval begins: of the step before it, or what is held from before the first one."""
    value, good = np.full(len(first), np.nan), np.zeros(len(first), np.bool_)
    tag = steps.tag[first]
    inner = np.append(False, tag[1:] == tag[:-1])
    value[inner], good[inner] = steps.value[first[inner] - 1], steps.good[first[inner] - 1]
    if len(held):
        row = np.searchsorted(held.tag, tag, side="right") - 1
        outer = ~inner & (row >= 0) & (held.tag[row] == tag)
        usable = _usable(held.value, held.status)
        value[outer], good[outer] = usable[0][row[outer]], usable[1][row[outer]]
    return value, good


def _known(tag: NDArray[np.int32], start: Ints, end: Ints, value: Doubles, gaps: Holes) -> Ints:
    """How long a value stands from start to end; 0 where there is none."""
    known = np.where(np.isnan(value), 0, end - start)
    if len(gaps.tag) and known.any():
        _take_away(known, tag, start, end, gaps, np.unique(gaps.tag))
    return known


def _take_away(
    known: Ints, tag: NDArray[np.int32], start: Ints, end: Ints, gaps: Holes, tags: NDArray[np.int32]
) -> None:
    """What of the gaps of ``tags`` lies between start and end, where anything is known."""
    rows = np.flatnonzero((known > 0) & np.isin(tag, tags))
    if not len(rows):
        return
    low, high = int(start[rows].min()), int(end[rows].max())
    if (high - low + 1) * len(tags) >= 2**62 and len(tags) > 1:
        for half in (tags[: len(tags) // 2], tags[len(tags) // 2 :]):
            _take_away(known, tag, start, end, gaps, half)
        return

    def line(tag: NDArray[np.int32], time: Ints) -> Ints:
        """The tags' times one behind the other, so that one search finds those of all."""
        return np.searchsorted(tags, tag) * (high - low + 1) + np.clip(time, low, high) - low

    of = np.isin(gaps.tag, tags)
    spans = line(gaps.tag[of], gaps.start[of]), line(gaps.tag[of], gaps.end[of])
    known[rows] -= _covered(line(tag[rows], end[rows]), *spans) - _covered(line(tag[rows], start[rows]), *spans)


def _covered(time: Ints, start: Ints, end: Ints) -> Ints:
    """How much of what lies before a time is inside of spans that are apart and in order."""
    sums = np.append(0, np.cumsum(end - start))
    begun = np.searchsorted(start, time, side="right")
    covered: Ints = sums[begun] - np.maximum(end[begun - 1] - time, 0) * (begun > 0)
    return covered


def _sums(column: NDArray[Any], runs: Runs) -> Ints:
    sums: Ints = np.add.reduceat(column, runs.starts, dtype=np.int64)
    return sums


def _mean(parts: Sequence[tuple[Doubles, Ints]], runs: Runs) -> tuple[Doubles, Ints]:
    """Mean of each run of values with their weights, NaN where these are 0; and the sum of the weights.

    Summed as differences from the least of them: what is constant has itself as mean, and large numbers cancel nothing.
    """
    weight = sum((_sums(weights, runs) for _, weights in parts), np.zeros(len(runs), np.int64))
    counting = [np.where(weights > 0, values, np.nan) for values, weights in parts]
    least = np.fmin.reduce([np.fmin.reduceat(values, runs.starts) for values in counting])
    greatest = np.fmax.reduce([np.fmax.reduceat(values, runs.starts) for values in counting])
    base, total = runs.spread(least), np.zeros(len(runs))
    for values, (_, weights) in zip(counting, parts, strict=True):
        total += np.add.reduceat(np.where(weights > 0, (values - base) * weights, 0.0), runs.starts)
    return np.clip(least + total / weight, least, greatest), weight
