"""What healthy data say of a detector: its quadratic forms, their limits, and the threshold, none of it in-sample."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from models import cells, residuals
from models.kind import Params, Progress, Spec, TrainingData
from models.residuals import Detector, Options
from models.thresholds import threshold
from models.training import folds

_FEWEST_FOLDS, _FOLDS = 3, 5
_QUANTILE = 0.99
_CELLS = 50_000
"""Cells of one fold that are judged, at most: a network reads a whole context for each."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Healthy cells by fold, in standard deviations."""

    units: NDArray[np.float32]
    """[n, t, d]."""
    observed: NDArray[np.bool_]
    """[n, t, d]."""
    clean: NDArray[np.bool_]
    """[n, t] cells that are labelled healthy, with cells enough before them for a whole mean."""
    fold: NDArray[np.int32]
    """[n]."""

    def rows(self, number: int, most: int) -> NDArray[np.intp]:
        """Rows of a fold that hold clean cells, ``most`` cells of them, spread over the time."""
        found = np.flatnonzero((self.fold == number) & self.clean.any(1))
        step = max(1, -(-len(found) * self.clean.shape[1] // most))
        return found[::step]

    @property
    def folds(self) -> range:
        """Their numbers."""
        return range(int(self.fold.max()) + 1)


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """A detector that is ready to be used."""

    params: Params
    by_fold: tuple[Params, ...]
    """As it would be without each fold."""
    score: NDArray[np.float32]
    """[n, t] of each cell, by the detector that has not learnt from its fold; NaN where there is none."""


class _Residuals(NamedTuple):
    """On the host: means over the last ``smooth`` cells [n, t, d], and where they are known [n, t]."""

    mean: NDArray[np.float32]
    known: NDArray[np.bool_]


class Healthy:
    """The cells to learn from, cut into folds by group; ValueError with fewer groups than three."""

    def __init__(self, spec: Spec, options: Options, data: TrainingData) -> None:
        self._options, self._seed = options, spec.seed
        count = min(_FOLDS, max(_FEWEST_FOLDS, len(np.unique(data.group))))
        fold = folds(data.group, count, spec.seed)
        clean, process = data.target == 0, residuals.process(spec)
        self.scale = cells.scale(data.values[:, process], data.observed[:, process] & clean[:, None])
        read = jax.jit(partial(residuals.units, spec, options))
        units, observed = jax.device_get(read(self.scale, data.values, data.observed))
        self._labelled = clean & observed.any(-1)
        whole = self._labelled & (np.cumsum(observed.any(-1), 1) >= options.smooth)
        self.held_out = HeldOut(units, observed, whole if whole.any() else self._labelled, fold)

    def calibrated(self, detector: Detector, progress: Progress) -> Calibrated:
        """Learn from all folds and from all but each; judge each fold by what has not learnt from it."""
        here, options = self.held_out, self._options
        without = [self._labelled & (here.fold != number)[:, None] for number in here.folds]
        progress(0.0, detector.name)
        sets = np.stack([self._labelled, *without])
        learnt = detector.learn(options, here.units, here.observed, sets, self._seed, progress)
        found = self._residuals(detector, learnt)
        judged = here.clean & found.known
        if judged.sum() <= found.mean.shape[-1] or not all(judged[here.fold == k].any() for k in here.folds):
            raise ValueError(f"{judged.sum()} healthy cells are too few for {found.mean.shape[-1]} features")
        formed = [
            _formed(detector, options, found, judged & (here.fold != number)[:, None]) for number in (-1, *here.folds)
        ]
        distance = np.full((*judged.shape, detector.forms), np.nan, np.float32)
        for number in here.folds:
            own = here.fold == number
            distance[own] = residuals.distances(formed[number + 1], found.mean[own])
        limit = np.maximum(np.quantile(distance[judged], _QUANTILE, axis=0), 1e-6).astype(np.float32)
        score = np.where(judged, (distance / limit).max(-1), np.nan)
        ready = [
            {**jax.tree.map(lambda leaf, place=place: leaf[place], learnt), **form, "limit": limit}
            for place, form in enumerate(formed)
        ]
        return Calibrated(ready[0], tuple(ready[1:]), score)

    def _residuals(self, detector: Detector, learnt: Params) -> _Residuals:
        """Of every row, by the detector that has not learnt from it."""
        here = self.held_out
        mean, known = np.zeros(here.units.shape, np.float32), np.zeros(here.clean.shape, np.bool_)
        program = jax.jit(partial(detector.residuals, self._options, last=False))
        chosen = [here.rows(number, _CELLS) for number in here.folds]
        most = max(map(len, chosen))
        for number, found in zip(here.folds, chosen, strict=True):
            rows = np.resize(found, most)  # one shape, one compilation
            params = jax.tree.map(lambda leaf, number=number: leaf[number + 1], learnt)
            mean[rows], known[rows] = program(params, here.units[rows], here.observed[rows])
        return _Residuals(mean, known)

    def threshold(self, found: Calibrated) -> float:
        """As the options want it, see :mod:`models.thresholds`."""
        o = self._options
        return threshold([*_runs(found.score)], o.smooth, o.false_alarms_per_week / o.cells_per_week, o.threshold)

    def metrics(self, detector: Detector, found: Calibrated, bad: NDArray[np.bool_]) -> dict[str, float]:
        """``false`` on healthy cells held out, ``detected`` on known anomalous ones."""
        limit, there = self.threshold(found), np.isfinite(found.score)
        metrics = {
            "threshold": limit,
            "false": float(np.mean(found.score[there] > limit)),
            "cells": float(there.sum()),
        }
        if not bad.any():
            return metrics
        here = self.held_out
        rows = np.flatnonzero(bad.any(1))
        program = jax.jit(partial(detector.residuals, self._options, last=False))
        mean, known = jax.device_get(program(found.params, here.units[rows], here.observed[rows]))
        score = np.asarray(residuals.distances(found.params, mean)).max(-1)[known & bad[rows]]
        return {**metrics, "detected": float(np.mean(score > limit))} if len(score) else metrics


def _formed(detector: Detector, options: Options, found: _Residuals, chosen: NDArray[np.bool_]) -> Params:
    healthy = found.mean[chosen].astype(np.float64)
    if not len(healthy):
        raise ValueError("there is no healthy cell to learn from")
    centre = healthy.mean(0)
    roots = detector.roots(options, healthy - centre).astype(np.float32)
    return {"centre": centre.astype(np.float32), "roots": roots, "limit": np.ones(len(roots), np.float32)}


def _runs(score: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The scores of each row that has any."""
    for row in score:
        if len(known := row[np.isfinite(row)]):
            yield known
