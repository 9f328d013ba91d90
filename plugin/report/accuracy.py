"""How right predictions were, once the truth is known. Pure: predictions and truth in, figures out."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from models.rul_held_out import phm_score
from plugin.domain import Prediction


@dataclass(frozen=True, slots=True)
class Truth:
    """What was really so for an asset at an instant [unit of the prediction]."""

    time: datetime
    asset: str
    value: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Figures over pairs of prediction and truth. ``error`` is predicted − true, in the unit of the prediction."""

    n: int
    rmse: float
    mae: float
    bias: float
    """Mean error; positive: predicted too high, which for a remaining life is the dangerous side."""
    r2: float | None
    """1 − Σ error² / Σ (true − mean true)², over these very rows; None where the truth does not vary."""
    phm: float
    """See :func:`models.rul_held_out.phm_score`."""
    bounded: int
    """Pairs whose prediction has a bound; of two, one that is not there is open."""
    coverage: float | None
    """Share of them with ``lower <= true <= upper``; None where there are none."""
    width: float | None
    """Mean of ``upper − lower`` over them."""


def accuracy(
    predictions: Iterable[Prediction], truth: Iterable[Truth], tolerance: timedelta, *, cap: float | None = None
) -> Accuracy | None:
    """Figures over all pairs of :func:`pair`; None where there is no pair.

    ``cap``: truth above it counts as the cap, for a model that was trained on capped labels (say so beside the figure).
    """
    pairs = pair(predictions, truth, tolerance)
    if not pairs:
        return None
    true = np.array([t.value for _, t in pairs])
    if cap is not None:
        true = np.minimum(true, cap)
    predicted = np.array([p.value for p, _ in pairs], np.float64)
    error = predicted - true
    inside, width = _bounds([p for p, _ in pairs], true)
    return Accuracy(
        n=len(pairs),
        rmse=float(np.sqrt(np.mean(error**2))),
        mae=float(np.mean(np.abs(error))),
        bias=float(np.mean(error)),
        r2=_r2(error, true),
        phm=phm_score(error),
        bounded=len(inside),
        coverage=float(np.mean(inside)) if len(inside) else None,
        width=float(np.mean(width)) if len(width) else None,
    )


def pair(
    predictions: Iterable[Prediction], truth: Iterable[Truth], tolerance: timedelta
) -> Sequence[tuple[Prediction, Truth]]:
    """Each truth with the prediction of its asset whose ``as_of`` is nearest, at most ``tolerance`` away.

    A prediction counts once, for the truth nearest to it (the earlier of two equally near), and a truth once, with the
    earlier of two equally near predictions: neither a fast schedule nor a dense truth weighs twice. Predictions without
    a number and truth that is not finite are left out.
    """
    known = _by_asset(truth)
    best: dict[tuple[str, datetime], tuple[timedelta, Prediction, Truth]] = {}
    for prediction in sorted(predictions, key=lambda p: p.as_of):
        if prediction.value is None or not np.isfinite(prediction.value):
            continue
        nearest = _nearest(known.get(prediction.tag.asset, ()), prediction.as_of)
        if nearest is None or (distance := abs(nearest.time - prediction.as_of)) > tolerance:
            continue
        key = nearest.asset, nearest.time
        if key not in best or distance < best[key][0]:
            best[key] = distance, prediction, nearest
    return [(prediction, nearest) for _, prediction, nearest in best.values()]


def _r2(error: NDArray[np.float64], true: NDArray[np.float64]) -> float | None:
    if np.ptp(true) == 0:
        return None
    return float(1 - np.sum(error**2) / np.sum((true - true.mean()) ** 2))


def _bounds(
    predictions: Sequence[Prediction], true: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Of those with a bound: whether the truth is inside, a missing one being open; of those with both: the width."""
    lower = np.array([-np.inf if p.lower is None else p.lower for p in predictions], np.float64)
    upper = np.array([np.inf if p.upper is None else p.upper for p in predictions], np.float64)
    width = upper - lower
    some, both = np.isfinite(lower) | np.isfinite(upper), np.isfinite(width)
    return ((lower <= true) & (true <= upper))[some], width[both]


def _by_asset(truth: Iterable[Truth]) -> Mapping[str, Sequence[Truth]]:
    known: dict[str, list[Truth]] = {}
    for row in sorted(truth, key=lambda t: t.time):
        if np.isfinite(row.value):
            known.setdefault(row.asset, []).append(row)
    return known


def _nearest(rows: Sequence[Truth], time: datetime) -> Truth | None:
    place = bisect_left(rows, time, key=lambda row: row.time)
    return min(rows[max(place - 1, 0) : place + 1], key=lambda row: abs(row.time - time), default=None)
