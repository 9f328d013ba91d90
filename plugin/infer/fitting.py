"""Whether a version still fits, from what was lately seen: verdicts, each on one feature or output of one asset."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from models import drift
from models.adwin import Adwin
from models.drift import Reference, Watch
from models.references import References, outside
from plugin.domain import DriftKind, Micros, OutputTag

INDEPENDENT = 60
"""Independent values of an input, or of a residual, that are compared with its training."""
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
_FALSE_REMARKS = 1e-3
"""Of one look at the residuals of all assets together."""
_FEWEST_OUTCOMES = 20
"""Independent ones that say something about intervals and errors."""
_FEWEST_RESIDUALS = 5
"""Independent ones that say something about a bias."""
_WORSE = 2.5
"""Times the error on held-out data that is too much: of a gas turbine's two years of training no fortnight had more."""
_CARRIES, _CARRIES_LESS, _CARRIES_TOO_MUCH = 0.5, 0.35, 2.0
"""Shares of the residuals' spread (5 % to 95 %) in training: a bias that is remarked upon, that is no more, and that
puts what is published in doubt. In the training's own years it stayed below a third in any 40 days; at 1.3 what was
published was still as good as ever."""

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


def worst(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """One on each: where several tests speak of it, one that found a drift."""
    found: dict[Key, Verdict] = {}
    for verdict in verdicts:
        if verdict.drifted or verdict.key not in found:
            found[verdict.key] = verdict
    return [*found.values()]


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

    Beyond all that the training held in the last cells, so many as ``recently``; or, within that, distributed
    otherwise. ``ages``: wear moves inputs through their training's range, so that only the first test says something.
    Nothing is said of what is hardly observed.
    """
    tests = max(1, len(assets) * len(references))
    for (row, asset), (place, reference) in product(enumerate(assets), references.items()):
        values = recent[row, place]
        verdict = _beyond(asset, features[place], reference, values[-recently:], times[-recently:])
        if verdict is None:
            continue
        yield verdict
        if not verdict.drifted and not ages:
            count = min(len(values), INDEPENDENT * reference.spacing)
            yield from _otherwise(verdict, reference, values[-count:], times[-count], _FALSE_ALARMS / tests)


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
) -> Iterator[Verdict]:
    """Of an input that is within its training's range."""
    seen = np.isfinite(values).sum()
    if reference.independent < _RESOLVED or seen < INDEPENDENT * reference.spacing // 2:
        return
    found = drift.distance(reference, values, false_alarms)
    text = (
        f"{within.subject} is distributed otherwise than in training: its middle is {np.nanmedian(values):.6g}, "
        f"there {reference.quantiles[len(reference.quantiles) // 2]:.6g} (Kolmogorov-Smirnov)"
    )
    key = DriftKind.DISTRIBUTION, within.asset, within.subject
    yield Verdict(*key, found.drifted, since, found.statistic, found.limit, text)


Residual = tuple[NDArray[np.float64], Sequence[Micros]]
"""What the model left unexplained before its bias [t], NaN where there is no truth, and the times of the cells."""


def bias_verdicts(
    asset: str,
    output: OutputTag,
    references: References,
    residual: Residual,
    newest: int,
    *,
    lasts: bool,
    of: int,
) -> list[Verdict]:
    """Of the residuals of one of ``of`` assets, against the training: how much the ``newest`` are, and whether all of
    them are distributed otherwise. ``lasts``: a remark was made, and ends at a smaller bias."""
    found: list[Verdict] = []
    if references.seasonal is not None:
        found += _as_never_before(asset, output, references.seasonal, residual, _FALSE_REMARKS / of)
    if references.residual is not None:
        values, times = residual
        found += _carried(asset, output, references.residual, (values[-newest:], times[-newest:]), lasts=lasts)
    return found


def _as_never_before(
    asset: str, output: OutputTag, seasonal: Reference, residual: Residual, false_alarms: float
) -> Iterator[Verdict]:
    """A remark on what a bias carries with ease, and what lasts. Nothing is said of few truths."""
    values, times = residual
    count = min(len(values), INDEPENDENT * seasonal.spacing)
    found = drift.distance(seasonal, values[-count:], false_alarms)
    if found.limit >= 1.0:
        return
    text = (
        f"what the model leaves to its bias is distributed otherwise than in training: its middle is "
        f"{np.nanmedian(values[-count:]):.4g} {output.unit}, there {seasonal.quantiles[50]:.4g} (Kolmogorov-Smirnov)"
    )
    key = DriftKind.BIAS, asset, output.output
    yield Verdict(*key, found.drifted, times[-count], found.statistic, found.limit, text)


def _carried(
    asset: str, output: OutputTag, reference: Reference, residual: Residual, *, lasts: bool
) -> Iterator[Verdict]:
    """A bias is there to be carried: it is a remark when it is large against the spread of the residuals in training,
    and a doubt when it is larger than any bias that was ever good. ADWIN tells since when. Nothing is said of few
    truths.
    """
    values, times = residual
    if np.isfinite(values).sum() < _FEWEST_RESIDUALS * reference.spacing:
        return
    low, middle, high = reference.quantiles[[5, 50, 95]]
    carried, spread = float(np.nanmedian(values) - middle), float(high - low)
    _, shifts = Watch(reference, Adwin()).follow(values)
    since = times[max(0, shifts[0].since) if shifts else 0]
    part = abs(carried) / max(spread, 1e-12)
    text = f"the bias carries {carried:.4g} {output.unit}, {part:.0%} of the residuals' spread in training"
    limits = {DriftKind.BIAS: _CARRIES_LESS if lasts else _CARRIES, DriftKind.RESIDUAL: _CARRIES_TOO_MUCH}
    for kind, share in limits.items():
        yield Verdict(kind, asset, output.output, part > share, since, carried, share * spread, text)


def error_verdict(
    asset: str, output: OutputTag, errors: NDArray[np.float64], times: Sequence[Micros], usual: float
) -> Verdict | None:
    """Of errors of what was published [n] in order of time, against their ``usual`` root mean square on held-out data.

    None: they are too few to say anything.
    """
    if len(errors) / drift.correlation_time(np.abs(errors)[None]) < _FEWEST_OUTCOMES:
        return None
    found, limit = float(np.sqrt(np.mean(errors**2))), _WORSE * usual
    text = (
        f"the error of what was published is {found:.4g} {output.unit} (root mean square of {len(errors)} truths), "
        f"on held-out data it was {usual:.4g}"
    )
    return Verdict(DriftKind.RESIDUAL, asset, output.output, found > limit, times[0], found, limit, text)


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
