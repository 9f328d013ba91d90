"""Roll-ups of samples by minute, and of those by hour and day, as if they too were made of the samples.

What a roll-up says is explained at :class:`plugin.domain.RollUps`. Whole columns at once, no Python object per sample.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin.domain import Level, Micros, Quality, RollUps, SampleBatch, Tag, qualities
from plugin.historian.closed.codes import Ints, Runs

Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]

_FINER = {Level.HOUR: Level.MINUTE, Level.DAY: Level.HOUR}


@dataclass(frozen=True, slots=True, eq=False)
class Holes:
    """From when on samples of tags are missing: a value from before then stands no longer. Ordered by (tag, start)."""

    tag: NDArray[np.int32]
    start: Ints


NO_HOLES = Holes(np.zeros(0, np.int32), np.zeros(0, np.int64))


def holes(gaps: Iterable[tuple[str, str | None, Micros]], tags: Sequence[Tag]) -> Holes:
    """Of source, tag and start of the gaps that history has not filled; tag None: all of its source."""
    of_source: dict[str, list[int]] = {}
    for tag in tags:
        of_source.setdefault(tag.source, []).append(tag.id)
    of_name = {(tag.source, tag.name): [tag.id] for tag in tags}
    found = {
        (tag, start)
        for source, name, start in gaps
        for tag in (of_source.get(source, ()) if name is None else of_name.get((source, name), ()))
    }
    columns = np.array(sorted(found), np.int64).reshape(-1, 2)
    return Holes(columns[:, 0].astype(np.int32), columns[:, 1])


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
        stands = _standing(_Steps(of.tag, time, time, time, value, good), held, (start, end), level, gaps)
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
        stands = _standing(_Steps(of.tag, of.start, of.last_time, since, value, good), held, (start, end), level, gaps)
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
    taken: Ints
    """Source time of the last value."""
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
    after = _known(steps.since, np.minimum(until, _next_hole(gaps, steps.tag, steps.taken)), steps.value)
    earlier, earlier_good, taken = _before(steps, first, held)
    since = np.maximum(begin[first], start)
    before = _known(since, np.minimum(steps.at[first], _next_hole(gaps, steps.tag[first], taken)), earlier)
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


def _before(steps: _Steps, first: Ints, held: SampleBatch) -> tuple[Doubles, Flags, Ints]:
    """What stands when an interval begins: of the step before it, or what is held from before the first one.

    Value, whether it is Good, and its source time.
    """
    value, good, taken = np.full(len(first), np.nan), np.zeros(len(first), np.bool_), steps.at[first]
    tag = steps.tag[first]
    inner = np.append(False, tag[1:] == tag[:-1])
    last = first[inner] - 1
    value[inner], good[inner], taken[inner] = steps.value[last], steps.good[last], steps.taken[last]
    if len(held):
        row = np.searchsorted(held.tag, tag, side="right") - 1
        outer = ~inner & (row >= 0) & (held.tag[row] == tag)
        values, goods = _usable(held.value, held.status)
        row = row[outer]
        value[outer], good[outer], taken[outer] = values[row], goods[row], held.source_time[row]
    return value, good, taken


def _known(start: Ints, end: Ints, value: Doubles) -> Ints:
    """How long a value stands from start to end; 0 where there is none."""
    return np.where(np.isnan(value) | (end < start), 0, end - start)


def _next_hole(gaps: Holes, tag: NDArray[np.int32], time: Ints) -> Ints:
    """Of each tag and time the first hole that begins then or later; the end of time where there is none."""
    found = np.full(len(tag), np.iinfo(np.int64).max)
    rows = np.flatnonzero(np.isin(tag, gaps.tag))
    if len(rows):
        tags, times = np.append(tag[rows], gaps.tag), np.append(time[rows], gaps.start)
        order = np.lexsort((times, tags))  # stable: of equal times the holes come last
        place = np.where(order < len(rows), len(order), np.arange(len(order)))
        place = np.minimum.accumulate(place[::-1])[::-1]  # of the next hole, whosever it is
        hole = np.append(order, order[-1])[place]
        mine = (order < len(rows)) & (place < len(order)) & (tags[hole] == tags[order])
        found[rows[order[mine]]] = times[hole[mine]]
    return found


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
