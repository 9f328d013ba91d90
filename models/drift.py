"""Whether a model still fits: its inputs and residuals against those of its training, and how often its intervals hold.

Neighbouring values of a plant are alike, so a test that takes each for a new one alarms for ever. Here all values count
by the time in which they become independent: :func:`correlation_time`, learnt with the training's distribution. All in
NumPy, no clock and no state but what is handed over.
"""

from dataclasses import dataclass
from math import lgamma, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.adwin import Adwin, Cut

Values = NDArray[np.floating[Any]]

_QUANTILES = 101
_WINDOW = 5.0
"""Sokal's c: correlations count up to so many correlation times."""
_FEWEST = 20
"""Values that a row needs to say something about its correlation."""


def correlation_time(series: Values) -> float:
    """Cells of [n, t] in which a value becomes independent: τ = 1 + 2 Σ r_k, the median of the rows; 1 at least.

    Summed up to the first lag ≥ 5 τ (Sokal 1997, section 3). NaN: not observed. Each row has its own mean: what moves
    slower than a row is long (some 20 τ at least) counts as drift, what moves faster as noise.
    """
    times = [_correlation_time(row) for row in np.asarray(series, np.float64) if np.isfinite(row).sum() >= _FEWEST]
    return float(np.median(times)) if times else 1.0


def _correlation_time(row: NDArray[np.float64]) -> float:
    seen = np.isfinite(row)
    left = np.where(seen, row - row[seen].mean(), 0.0)
    products, pairs = _autocorrelation(left), _autocorrelation(seen.astype(np.float64))
    if products[0] <= 1e-12 * max(float(np.square(row[seen]).sum()), 1e-300):
        return 1.0
    covariance = np.where(pairs > 0.5, products / np.maximum(pairs, 1.0), 0.0)
    times = 1.0 + 2.0 * np.cumsum(covariance[1:] / covariance[0])
    enough = np.flatnonzero(np.arange(1, len(row)) >= _WINDOW * times)
    return max(1.0, float(times[enough[0]] if len(enough) else times[-1]))


def _autocorrelation(row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Σ_i x_i x_{i+k} for k = 0 … t − 1."""
    spectrum = np.fft.rfft(row, 2 * len(row))
    found: NDArray[np.float64] = np.fft.irfft(spectrum * spectrum.conj(), 2 * len(row))[: len(row)]
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """How a feature, or a model's residual, was distributed in training. Small: it is stored beside the model."""

    quantiles: NDArray[np.float64]
    """[101], at 0, 1, … 100 %."""
    spacing: int
    """Cells in which a value becomes independent."""
    independent: float
    """How many independent values there were."""

    @classmethod
    def of(cls, series: Values) -> "Reference":
        """Of rows [n, t] of consecutive cells; NaN: not observed. ValueError where nothing is."""
        seen = np.asarray(series, np.float64)[np.isfinite(series)]
        if not len(seen):
            raise ValueError("nothing was observed: there is no distribution to compare with")
        time = correlation_time(series)
        return cls(np.quantile(seen, np.linspace(0.0, 1.0, _QUANTILES)), int(np.ceil(time)), max(1.0, len(seen) / time))

    def ranks(self, values: Values) -> NDArray[np.float64]:
        """Share of the training below each value, 0..1; NaN stays NaN. Ties rank in the middle."""
        levels = np.linspace(0.0, 1.0, len(self.quantiles))
        below = np.interp(values, self.quantiles, levels)
        first = np.searchsorted(self.quantiles, values, side="left")
        last = np.searchsorted(self.quantiles, values, side="right") - 1
        tied = last > first
        middle = (levels[np.minimum(first, len(levels) - 1)] + levels[np.maximum(last, 0)]) / 2.0
        return np.where(np.isnan(values), np.nan, np.where(tied, middle, below))


@dataclass(frozen=True, slots=True)
class Distance:
    """How far recent values are from those of the training."""

    statistic: float
    """Largest difference of the two distributions, 0..1."""
    limit: float
    """What equal distributions exceed with the stated probability."""

    @property
    def drifted(self) -> bool:
        """Too far to be chance."""
        return self.statistic > self.limit


def distance(reference: Reference, values: Values, false_alarms: float = 1e-3) -> Distance:
    """Kolmogorov–Smirnov between the training and recent values [t]; only independent ones count for its limit.

    Two-sample, asymptotic: √(−½ ln(p/2)) · √(1/n + 1/m) for the false alarm rate p. With fewer than five independent
    values the limit is 1.
    """
    ranks = np.sort(reference.ranks(values))
    ranks = ranks[np.isfinite(ranks)]
    independent = len(ranks) / reference.spacing
    if independent < 5.0:
        return Distance(0.0, 1.0)
    place = np.arange(len(ranks) + 1) / len(ranks)
    statistic = float(max(np.max(place[1:] - ranks), np.max(ranks - place[:-1])))
    limit = sqrt(-0.5 * log(false_alarms / 2.0)) * sqrt(1.0 / independent + 1.0 / reference.independent)
    return Distance(statistic, min(1.0, limit))


@dataclass(frozen=True, slots=True)
class Shift:
    """A change of level that can't be chance."""

    since: int
    """First cell of the new level, counted from the first of the values given; negative: it lies before them."""
    noticed: int
    """The cell with which it was sure."""
    statistic: float
    """Difference of the mean ranks, after minus before: −1..1."""
    limit: float


@dataclass(frozen=True, slots=True)
class Watch:
    """A residual (or a feature) followed cell by cell: :meth:`follow` gives the next state and leaves this as it was.

    Values are turned into ranks of the training, so that their unit and a few wild ones do not matter, and averaged
    over the time in which they become independent; ADWIN looks at those means (Bifet & Gavaldà 2007).
    """

    reference: Reference
    window: Adwin
    waiting: tuple[float, ...] = ()
    """Ranks since the last mean, NaN where not observed."""

    def follow(self, values: Values) -> tuple["Watch", tuple[Shift, ...]]:
        """After the next cells [t]; NaN: not known, and means are taken over the others."""
        spacing, held = self.reference.spacing, len(self.waiting)
        ranks = np.concatenate([np.array(self.waiting, np.float64), self.reference.ranks(np.asarray(values))])
        window, shifts = self.window, []
        whole = len(ranks) // spacing
        for block in range(whole):
            part = ranks[block * spacing : (block + 1) * spacing]
            if not np.isfinite(part).any():
                continue
            window, cut = window.add(float(np.nanmean(part)))
            if cut is not None:
                shifts.append(self._shift(cut, (block + 1) * spacing - held))
        return Watch(self.reference, window, tuple(ranks[whole * spacing :].tolist())), tuple(shifts)

    def _shift(self, cut: Cut, end: int) -> Shift:
        return Shift(end - cut.newer * self.reference.spacing, end - 1, cut.after - cut.before, cut.limit)


@dataclass(frozen=True, slots=True)
class Coverage:
    """How often intervals held what came, and between which shares that had to be."""

    share: float
    low: float
    high: float
    independent: int

    @property
    def drifted(self) -> bool:
        """Too seldom or too often to be chance."""
        return not self.low <= self.share <= self.high


def coverage(inside: NDArray[np.bool_], level: float, false_alarms: float = 1e-3) -> Coverage:
    """Of outcomes [n] in order of time, of intervals that should hold with probability ``level``.

    The bounds are binomial quantiles for as many outcomes as are independent. ValueError
    where there are none.
    """
    if not len(inside):
        raise ValueError("there is no outcome to judge the intervals by")
    independent = max(1, int(len(inside) / correlation_time(inside[None].astype(np.float64))))
    cumulated = np.cumsum(_binomial(independent, level))
    low = int(np.searchsorted(cumulated, false_alarms / 2.0))
    high = int(np.searchsorted(cumulated, 1.0 - false_alarms / 2.0))
    return Coverage(float(inside.mean()), low / independent, min(high, independent) / independent, independent)


def _binomial(count: int, level: float) -> NDArray[np.float64]:
    """P(k of ``count``), k = 0 … count."""
    factorials = np.array([lgamma(k + 1.0) for k in range(count + 1)])
    k = np.arange(count + 1)
    logs = factorials[-1] - factorials - factorials[::-1] + k * log(level) + k[::-1] * log(1.0 - level)
    shares: NDArray[np.float64] = np.exp(logs)
    return shares
