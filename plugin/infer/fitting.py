"""Whether a version still fits, from what was lately seen: verdicts, each on one feature or output of one asset."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from models import drift
from models.adwin import Adwin
from models.drift import Reference, Watch
from models.references import outside
from plugin.domain import DriftKind, Micros

INDEPENDENT = 60
"""Independent values of an input that are compared with its training."""
RECENT = 30
"""Cells that have to lie beyond the training, at least, for the most part."""
_RESOLVED = 200.0
"""Independent values that a training must have held to tell how an input is distributed."""
_MARGIN = 0.1
"""How far beyond all of its training an input may be, as a share of the training's range."""
_SHARE = 0.5
"""Of the recent values of an input that may be farther."""
_FALSE_ALARMS = 1e-4
"""Of one look at all inputs of a model together."""
_FEWEST_OUTCOMES = 20
"""Independent ones that say something about intervals."""

Key = tuple[DriftKind, str, str]
"""Kind, asset and subject."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one feature or output of one asset."""

    kind: DriftKind
    asset: str
    subject: str
    drifted: bool
    since: Micros
    """Of the first value that is unlike those before [µs]."""
    statistic: float
    limit: float
    detail: str

    @property
    def key(self) -> Key:
        """What it is about."""
        return self.kind, self.asset, self.subject


def input_verdicts(
    assets: Sequence[str],
    features: Mapping[int, str],
    references: Mapping[int, Reference],
    recent: NDArray[np.float64],
    times: Sequence[Micros],
    *,
    ages: bool,
    recently: int,
) -> Iterator[Verdict]:
    """Of recent values [asset, feature, t], NaN where not observed, and the times of their cells [t].

    Beyond all that the training held in the last cells, so many as ``recently``; or distributed otherwise. ``ages``:
    wear moves inputs through their training's range, so that only the first test says something. Nothing is said of
    what is hardly observed.
    """
    tests = max(1, len(assets) * len(references))
    for (row, asset), (place, reference) in product(enumerate(assets), references.items()):
        values = recent[row, place]
        verdict = _beyond(asset, features[place], reference, values[-recently:], times[-recently:])
        if verdict is not None and not verdict.drifted and not ages:
            count = min(len(values), INDEPENDENT * reference.spacing)
            verdict = _otherwise(verdict, reference, values[-count:], times[-count], _FALSE_ALARMS / tests)
        if verdict is not None:
            yield verdict


def _beyond(
    asset: str, feature: str, reference: Reference, values: NDArray[np.float64], times: Sequence[Micros]
) -> Verdict | None:
    seen = int(np.isfinite(values).sum())
    if seen < max(1, len(values) // 2):
        return None
    beyond = outside(reference, values, _MARGIN)
    share = float(beyond.sum() / seen)
    low, high = reference.quantiles[0], reference.quantiles[-1]
    middle = float(np.median(values[beyond])) if beyond.any() else 0.0
    text = f"{feature} is at {middle:.6g}; in training it was from {low:.6g} to {high:.6g}"
    since = times[int(np.argmax(beyond))]
    return Verdict(DriftKind.INPUT, asset, feature, share > _SHARE, since, share, _SHARE, text)


def _otherwise(
    within: Verdict, reference: Reference, values: NDArray[np.float64], since: Micros, false_alarms: float
) -> Verdict:
    """Of an input that is within its training's range."""
    seen = np.isfinite(values).sum()
    if reference.independent < _RESOLVED or seen < INDEPENDENT * reference.spacing // 2:
        return within
    found = drift.distance(reference, values, false_alarms)
    text = (
        f"{within.subject} is distributed otherwise than in training: its middle is {np.nanmedian(values):.6g}, "
        f"there {reference.quantiles[len(reference.quantiles) // 2]:.6g} (Kolmogorov-Smirnov)"
    )
    key = DriftKind.INPUT, within.asset, within.subject
    return Verdict(*key, found.drifted, since, found.statistic, found.limit, text)


def residual_verdict(
    asset: str,
    output: str,
    reference: Reference,
    residual: tuple[NDArray[np.float64], Sequence[Micros]],
    *,
    before: float | None = None,
) -> Verdict | None:
    """Of what the model left unexplained [t], NaN where there is no truth, by ADWIN over its ranks in training.

    ``before``: by how much the level had shifted (of ranks) when these begin, if that was noticed. None: nothing new.
    """
    values, times = residual
    _, shifts = Watch(reference, Adwin()).follow(values)
    if not shifts:
        return None
    level = (before or 0.0) + sum(shift.statistic for shift in shifts)
    limit = max(shift.limit for shift in shifts)
    since = times[max(0, shifts[0].since)]
    way = "higher" if level > 0 else "lower"
    text = f"truths are {way} than the model without its bias says, by {abs(level):.0%} of their ranks (ADWIN)"
    return Verdict(DriftKind.RESIDUAL, asset, output, abs(level) > limit, since, level, limit, text)


def coverage_verdict(
    asset: str, output: str, inside: Sequence[bool], level: float, times: Sequence[Micros]
) -> tuple[Verdict | None, float]:
    """Of outcomes in order of time, and the share of them that was inside; None: they are too few to say anything."""
    found = drift.coverage(np.array(inside, bool), level)
    if found.independent < _FEWEST_OUTCOMES:
        return None, found.share
    text = f"{found.share:.1%} of {len(inside)} truths lay within the bounds that are to hold {level:.0%}"
    limit = found.low if found.share < level else found.high
    verdict = Verdict(DriftKind.COVERAGE, asset, output, found.drifted, times[0], found.share, limit, text)
    return verdict, found.share
