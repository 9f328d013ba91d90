"""What came true of what was predicted, and when we knew: for promotion, for monitoring, for evaluation.

The rules are those of the view ``v_prediction_accuracy``:

``laboratory``  A Good result of the laboratory whose quantity is the output's name, or, of a value, a Good one of the
                tag in the role ``lab``, of the output's unit (the last of a minute). Beside it, of each version, what
                was last predicted of a moment not after that of the specimen, if that was still valid, and a number.
``measured``    The output has the name of a feature that the asset measures: the mean of that tag in the minute of the
                target time, if all its samples are Good.
``failure``     A remaining life and the asset's next failure: in s, min, h and d by the clock, else by how much the tag
                in the role ``age`` grew from the prediction to the failure (:mod:`plugin.infer.ages`). An age that
                starts over proves nothing: an overhaul in good time ends no life, and who predicted a longer one was
                not wrong. Nor does a failure that comes after a work order has ended: it is of the life that began
                then; as is what comes after an age has started over, but for a failure that is told late, when the
                unit is hardly any older again (:data:`plugin.infer.lives.LATE`): that ended where the old age did.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plugin.domain import (
    Asset,
    Flag,
    Label,
    LabelKind,
    Level,
    Meaning,
    Micros,
    OutputTag,
    Prediction,
    Quality,
    Verdict,
    from_micros,
    micros,
    qualities,
    quality,
    to_micros,
)
from plugin.infer.ages import Falls, ages
from plugin.infer.config import ModelConfig
from plugin.infer.lives import LATE, LATEST
from plugin.protocols import Store

_EVER = datetime(1970, 1, 1, tzinfo=UTC)
FOREVER = datetime(9999, 12, 31, tzinfo=UTC)
_MINUTE = Level.MINUTE.width
_SLICE = micros(timedelta(days=30))
"""Of minutes that are read at a time."""
_LONG_AGO = np.iinfo(np.int64).min
_SPANS = {"s": 1e6, "min": 6e7, "h": 3.6e9, "d": 8.64e10}
"""Units of a remaining life that goes by the clock [µs]."""


class Truth(StrEnum):
    """By what it came true."""

    LABORATORY = "laboratory"
    MEASURED = "measured"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Proof:
    """A prediction that has a number, beside what came true of it."""

    prediction: Prediction
    value: float
    """The prediction's number [unit]."""
    truth: Truth
    time: datetime
    """When the specimen was drawn, the minute began, it failed."""
    known: datetime
    """When we had it: whoever walks over the past must not learn it earlier."""
    actual: float
    """[unit]"""

    @property
    def said_at_best(self) -> float:
        """What a prediction without error had said: a remaining life beyond what the output can say is its limit."""
        return min(self.actual, self.prediction.tag.high) if self.truth is Truth.FAILURE else self.actual

    @property
    def error(self) -> float:
        """Predicted less what was to be said [unit]."""
        return self.value - self.said_at_best

    @property
    def inside(self) -> bool | None:
        """What was to be said is within the bounds, of which a missing one is open; None: it has none."""
        lower, upper = self.prediction.lower, self.prediction.upper
        if lower is None and upper is None:
            return None
        return (lower is None or lower <= self.said_at_best) and (upper is None or self.said_at_best <= upper)


@dataclass(frozen=True, slots=True)
class Judged:
    """A flag, raised or not, and what was the case by what people said."""

    flag: Flag
    real: bool
    """Something was wrong."""
    known: datetime


async def proofs(
    store: Store,
    config: ModelConfig,
    assets: Sequence[Asset],
    predictions: Iterable[Prediction],
    *,
    known_by: datetime | None = None,
) -> list[Proof]:
    """What is known to have come true of one model's predictions, in the order in which it became known.

    Of a laboratory's value the last prediction before it counts: give those of a whole stretch at once, in any order.
    ``known_by``: what became known later, by our clock or the plant's server's, is left out.
    """
    by_tag: defaultdict[OutputTag, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        by_tag[prediction.tag].append(prediction)
    machines = {asset.name: asset for asset in assets}
    found: list[Proof] = []
    for tag, given in by_tag.items():
        asset = machines.get(tag.asset, Asset(tag.asset, {}))
        start = min(each.target_time for each in given)
        end = max(each.target_time + (each.valid_until - each.as_of) for each in given)
        found += _last_before(given, await results(store, config, asset, tag, start, end, known_by=known_by))
        if tag.output in asset.tags:
            found += await _measured(store, asset.tags[tag.output].id, given, known_by)
        if tag.meaning is Meaning.LIFETIME:
            found += await _lives(store, config, asset, given, known_by)
    return sorted(found, key=lambda proof: proof.known)


async def judged(
    store: Store, config: ModelConfig, flags: Sequence[Flag], *, known_by: datetime | None = None
) -> list[Judged]:
    """Those of one model's flags of which people said something, in the order in which it became known.

    The newest verdict on the flag, unless it is unclear; without one, that all was normal at that time, or that the
    asset failed within the model's horizon.
    """
    if not flags:
        return []
    start = min(flag.as_of for flag in flags)
    by = None if known_by is None else to_micros(known_by)
    labels: defaultdict[str, list[Label]] = defaultdict(list)
    for label in await store.labels(None, start, FOREVER, known_by=by):  # a verdict is given later, whenever
        labels[label.asset].append(label)
    found = [_judge(flag, labels[flag.asset], config.horizon) for flag in flags]
    return sorted((each for each in found if each), key=lambda each: each.known)


def _judge(flag: Flag, labels: Sequence[Label], horizon: timedelta) -> Judged | None:
    mine = [label for label in labels if (label.model, label.as_of) == (flag.model, flag.as_of)]
    verdict = max((label for label in mine if label.verdict), key=lambda label: label.created, default=None)
    if verdict is not None:
        unclear = verdict.verdict is Verdict.UNCLEAR
        return None if unclear else Judged(flag, verdict.verdict is Verdict.CONFIRMED, verdict.created)
    for label in labels:
        if label.kind is LabelKind.FAILURE and flag.as_of < label.start <= flag.as_of + horizon:
            return Judged(flag, real=True, known=label.created)
        if label.kind is LabelKind.NORMAL and label.start <= flag.as_of < min(label.end or FOREVER, label.created):
            return Judged(flag, real=False, known=label.created)
    return None


# --- the laboratory ---

Result = tuple[datetime, datetime, float]
"""When the specimen was drawn, when it was known, and its value."""


async def results(
    store: Store,
    config: ModelConfig,
    asset: Asset,
    tag: OutputTag,
    start: datetime,
    end: datetime,
    *,
    known_by: datetime | None = None,
) -> list[Result]:
    """Good ones of an output, of specimens drawn in ``[start, end)``."""
    by = None if known_by is None else to_micros(known_by)
    told = await store.lab_samples(tag.asset, tag.output, start, end, known_by=by)
    good = [each for each in told if each.value is not None and quality(each.status) is Quality.GOOD]
    found = [(each.taken, each.known, each.value) for each in good if each.value is not None]
    lab = asset.tags.get(config.roles.get("lab", ""))
    if lab is None or lab.unit != tag.unit or tag.meaning is not Meaning.VALUE:
        return found
    samples = await store.read_samples([lab.id], to_micros(start), to_micros(end), known_by=by)
    samples = samples.take((qualities(samples.status) == Quality.GOOD) & np.isfinite(samples.value))
    samples = samples.take(np.diff(samples.source_time // _MINUTE, append=-1) != 0)
    columns = (samples.source_time.tolist(), samples.server_time.tolist(), samples.value.tolist())
    return found + [(from_micros(time), from_micros(known), value) for time, known, value in zip(*columns, strict=True)]


def _last_before(given: Iterable[Prediction], results: Sequence[Result]) -> Iterator[Proof]:
    """Each result with what each version last said of a moment that is not after it."""
    said: defaultdict[int, defaultdict[datetime, list[Prediction]]] = defaultdict(lambda: defaultdict(list))
    for prediction in given:
        said[prediction.version][prediction.target_time].append(prediction)
    for by_time in said.values():
        times = sorted(by_time)
        for taken, known, value in results:
            place = bisect_right(times, taken)
            for each in by_time[times[place - 1]] if place else ():
                if taken < each.target_time + (each.valid_until - each.as_of):
                    yield from _proof(each, Truth.LABORATORY, taken, known, value)


def _proof(
    prediction: Prediction, truth: Truth, time: datetime, known: datetime, actual: float | None
) -> Iterator[Proof]:
    """None where there is no number on one side."""
    if prediction.value is not None and actual is not None and np.isfinite(actual):
        yield Proof(prediction, prediction.value, truth, time, known, float(actual))


# --- what the plant measures ---


async def _measured(store: Store, tag: int, given: Sequence[Prediction], known_by: datetime | None) -> list[Proof]:
    """A minute is known when it is over."""
    wanted = {to_micros(each.target_time) // _MINUTE * _MINUTE for each in given}
    if known_by is not None:
        wanted = {minute for minute in wanted if minute + _MINUTE <= to_micros(known_by)}
    means = await _means(store, tag, sorted(wanted))
    found: list[Proof] = []
    for each in given:
        minute = to_micros(each.target_time) // _MINUTE * _MINUTE
        if minute in means:
            time = from_micros(minute)
            found += _proof(each, Truth.MEASURED, time, time + timedelta(minutes=1), means[minute])
    return found


async def _means(store: Store, tag: int, minutes: Sequence[Micros]) -> Mapping[Micros, float]:
    """Of those of the minutes that are wholly Good."""
    found: dict[Micros, float] = {}
    place = 0
    while place < len(minutes):
        start = minutes[place]
        rows = await store.roll_ups([tag], start, start + _SLICE, level=Level.MINUTE)
        good = rows.good == rows.samples
        found |= dict(zip(rows.start[good].tolist(), rows.mean[good].tolist(), strict=True))
        place = bisect_right(minutes, start + _SLICE - 1)
    return {minute: found[minute] for minute in minutes if minute in found}


# --- failures ---


async def _lives(
    store: Store, config: ModelConfig, asset: Asset, given: Sequence[Prediction], known_by: datetime | None
) -> list[Proof]:
    by = None if known_by is None else to_micros(known_by)
    start = min(each.as_of for each in given)
    failures = [
        label
        for label in await store.labels(asset.name, start, FOREVER, kind=LabelKind.FAILURE, known_by=by)
        if label.start > start
    ]
    if not failures:
        return []
    orders = await store.labels(asset.name, _EVER, FOREVER, kind=LabelKind.WORK_ORDER, known_by=by)
    known = [*_own_failures(given, failures, sorted(label.end for label in orders if label.end is not None))]
    if not known:
        return []
    found: list[Proof] = []
    for (each, label), left in zip(known, await _left(store, config, asset, known, orders), strict=True):
        if left >= 0:
            found += _proof(each, Truth.FAILURE, label.start, label.created, left)
    return found


async def _left(
    store: Store,
    config: ModelConfig,
    asset: Asset,
    known: Sequence[tuple[Prediction, Label]],
    orders: Sequence[Label],
) -> NDArray[np.float64]:
    """What was left until each failure [unit of the predictions]; NaN: nobody knows, or it was another life."""
    said = np.array([to_micros(each.as_of) for each, _ in known])
    failed, which = np.unique([to_micros(label.start) for _, label in known], return_inverse=True)
    span = _SPANS.get(known[0][0].tag.unit)
    tag = asset.tags.get(config.roles.get("age", ""))
    if tag is None:
        return np.full(len(known), np.nan) if span is None else (failed[which] - said) / span
    at, falls = await ages(store, tag.id, np.concatenate([said, failed]))
    before, after = np.split(at, [len(said)])
    ends = _ends(failed, after, falls, orders)
    left = ends.age[which] - before if span is None else (ends.time[which] - said) / span
    return np.where((ends.begun[which] <= said) & (said <= ends.time[which]), left, np.nan)


class _Ends(NamedTuple):
    """Of the lives that failures ended [n]."""

    begun: NDArray[np.int64]
    """[µs]"""
    time: NDArray[np.int64]
    """[µs]"""
    age: NDArray[np.float64]


def _ends(failed: NDArray[np.int64], age: NDArray[np.float64], falls: Falls, orders: Sequence[Label]) -> _Ends:
    """By failures told at ``failed`` [n], when the unit was so old; a work order says why an age started over."""
    ends = _Ends(np.full(len(failed), _LONG_AGO), failed.copy(), age.copy())
    for row, (time, old) in enumerate(zip(failed.tolist(), age.tolist(), strict=True)):
        over = (falls.after <= time) | ((falls.before < time) & (old < falls.reached))
        places = np.flatnonzero(over)
        if not len(places):
            continue
        newest = int(places[-1])
        old_life_ended = from_micros(falls.before[newest])
        explained = any(
            order.start <= from_micros(time) and (order.end or FOREVER) >= old_life_ended for order in orders
        )
        soon = time - falls.after[newest] <= LATEST and old <= LATE * falls.reached[newest]
        if soon and not explained:
            ends.time[row], ends.age[row] = falls.before[newest], falls.reached[newest]
            newest -= 1
        if newest >= 0:
            ends.begun[row] = falls.after[newest]
    return ends


def _own_failures(
    given: Iterable[Prediction], failures: Sequence[Label], overhauled: Sequence[datetime]
) -> Iterator[tuple[Prediction, Label]]:
    """Each with the failure of the life that it speaks of, where that one came. All in order of time."""
    starts = [label.start for label in failures]
    for each in given:
        place = bisect_right(starts, each.as_of)
        if place < len(starts) and bisect_right(overhauled, each.as_of) == bisect_left(overhauled, starts[place]):
            yield each, failures[place]
