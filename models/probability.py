"""Probabilities that can be acted on: calibrated where nothing was learnt, with a threshold and figures to judge by."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.floating[Any]]

_BINS = 10
_ITERATIONS = 50
_SPREAD = 1e-6
"""A logit that varies less says nothing."""


def platt(logit: Column, target: Column) -> NDArray[np.float32]:
    """Slopes and, last, a shift [k + 1] that make a probability of logits [n, k] which say the same in other ways:
    monotone in each, by the largest likelihood (of one: Platt 1999; of several: stacking, Wolpert 1992).

    Targets are drawn in a little from 0 and 1, as Platt has it, so that no finite number of rows is certain. They may
    be shares. A slope that would be negative is 0: what knows nothing says how often it happens.
    """
    ones = float(target.sum())
    low, high = 1.0 / (len(target) - ones + 2.0), (ones + 1.0) / (ones + 2.0)
    wanted = low + (high - low) * target.astype(np.float64)
    found = np.zeros(logit.shape[1] + 1)
    used = np.flatnonzero(logit.std(0) > _SPREAD)
    while len(used):
        found[:] = 0.0
        found[[*used, -1]] = _likeliest(logit[:, used].astype(np.float64), wanted)
        if found[used].min() > 0.0:
            return found.astype(np.float32)
        used = np.delete(used, found[used].argmin())
    mean = float(wanted.mean())
    return np.array([*np.zeros(logit.shape[1]), np.log(mean / (1.0 - mean))], np.float32)


def calibrated(logit: Column, calibration: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities [n] of logits [n, k] by what :func:`platt` gave."""
    return sigmoid(logit @ calibration[:-1] + calibration[-1])


def _likeliest(logit: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slopes and shift of a logistic regression, by Newton's steps of bounded length."""
    spread = np.append(logit.std(0), 1.0)
    rows = np.concatenate([logit, np.ones((len(logit), 1))], 1) / spread
    weights = np.append(np.ones(logit.shape[1]) / logit.shape[1], 0.0)
    for _ in range(_ITERATIONS):
        told = sigmoid(rows @ weights)
        bent = rows * np.maximum(told * (1.0 - told), 1e-9)[:, None]
        step = np.linalg.solve(rows.T @ bent + 1e-6 * np.eye(len(weights)), rows.T @ (told - wanted))
        weights = weights - step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
    found: NDArray[np.float64] = weights / spread
    return found


def sigmoid(logit: Column) -> NDArray[np.float64]:
    """Without overflow."""
    found: NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * np.asarray(logit, np.float64)))
    return found


def average_precision(score: Column, came: NDArray[np.bool_]) -> float:
    """Area under precision over recall, without interpolation; rows of one score count together. NaN without a 1."""
    if not came.any():
        return float("nan")
    recall, precision = recalls(score, came)
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def recalls(score: Column, came: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall, ascending, and precision at each score from which on one may act."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)
    hits = np.cumsum(came[order])[last]
    return hits / max(int(came.sum()), 1), hits / (np.flatnonzero(last) + 1)


def f1(told: NDArray[np.bool_], came: NDArray[np.bool_]) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is found."""
    hits = float((told & came).sum())
    return 2.0 * hits / max(float(told.sum() + came.sum()), 1.0)


def decision(probability: Column, came: NDArray[np.bool_], cost: float) -> float:
    """The probability from which on to act, by rows that were not learnt from.

    ``cost``: what a missed 1 costs, in false alarms: the least total is sought; 0: not known, the largest F1 is. Half
    way to the next lower probability, so that it does not hang on one row.
    """
    order = np.argsort(-probability, kind="stable")
    ranked = np.asarray(probability, np.float64)[order]
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    hits = np.cumsum(came[order])[last]
    false, missed = last + 1 - hits, came.sum() - hits
    worth = 2.0 * hits / (last + 1 + came.sum()) if cost == 0.0 else -(cost * missed + false)
    best = int(np.argmax(worth))
    below = ranked[last[best] + 1] if last[best] + 1 < len(ranked) else 0.0
    return float((ranked[last[best]] + below) / 2.0)


class Bin(NamedTuple):
    """Of probabilities that are alike."""

    told: float
    """Their mean, 0..1."""
    came: float
    """How often it came, 0..1."""
    outcomes: int


def bins(probability: Column, came: Column) -> tuple[Bin, ...]:
    """Ten parts of equal size, from low to high."""
    parts = np.array_split(np.argsort(probability, kind="stable"), min(_BINS, len(probability)))
    return tuple(Bin(float(probability[part].mean()), float(came[part].mean()), len(part)) for part in parts)


def reliability(probability: Column, came: Column) -> float:
    """How far what is told lies from how often it comes: mean over ten parts of equal size (Naeini et al. 2015)."""
    found = bins(probability, came)
    return float(sum(each.outcomes * abs(each.told - each.came) for each in found) / len(probability))
