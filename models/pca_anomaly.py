"""Kind ``pca_anomaly``: how far an asset is from the ways in which its fleet moved while it was healthy.

The features are averaged over the last ``smooth`` cells, scaled, and split by principal components into the part that
the healthy data explain and the rest (Jackson & Mudholkar 1979). Hotelling's T² measures the first part, the squared
prediction error Q the second; each is divided by its 99 % quantile on held-out healthy cells, and the larger is the
``score``. Whether that is too much is decided outside, against the metric ``threshold``: the score that held-out
healthy data pass as often as ``false_alarms_per_week`` allows, taken from peaks over a high quantile (Coles 2001,
chapter 4) because a week of cells is seldom at hand.

The feature in the role ``age`` is optional and no input: cells before the last overhaul (it falls) are left out, and
with ``own_start`` = 1 the features are taken as differences from the unit's own first cells, for which the window has
to reach back to them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from models import cells
from models.kind import Estimate, Fitted, OutputSpec, Params, Progress, Spec, TrainingData
from models.meaning import Meaning
from models.options import check_axes, number, read
from models.training import folds

_LIMIT = 20.0
_FOLDS = 3
_QUANTILE = 0.99
_PEAKS = 0.95
_FEWEST_PEAKS = 10


@dataclass(frozen=True, slots=True)
class Options:
    """Hyperparameters."""

    smooth: int = number(8, 1, 10_000)
    """Cells in the mean."""
    variance: float = number(0.9, 0.01, 1.0)
    """Share of the healthy variance that the kept components explain."""
    own_start: int = number(0, 0, 1)
    """1: features are differences from the unit's own first 20 cells in the window."""
    false_alarms_per_week: float = number(1.0, 1e-6, 1e6)
    """Budget of one asset."""
    cells_per_week: float = number(604_800.0, 1.0, 1e9)
    """604800: a cell is a second; 168: an hour."""


class PcaAnomaly:
    """T² and Q of principal components; see the module."""

    name = "pca_anomaly"
    roles = ()

    def check(self, spec: Spec) -> None:
        """See :class:`models.kind.ModelKind`."""
        read(Options, spec)
        unknown = sorted(set(spec.roles) - {"age"})
        if unknown:
            raise ValueError(f"roles.{unknown[0]}: {spec.kind} knows the role 'age' alone")
        check_axes(spec, self.roles, inputs=2)

    def outputs(self, spec: Spec) -> tuple[OutputSpec, ...]:
        """``flag`` is decided outside, see :class:`models.kind.OutputSpec`."""
        return (
            OutputSpec(
                "score", "1", 0.0, 100.0, "Distance from healthy; 1: as far as 1 % of the healthy cells", Meaning.SCORE
            ),
            OutputSpec("flag", "", 0.0, 1.0, "Anomaly", Meaning.FLAG),
        )

    def init(self, spec: Spec, key: jax.Array) -> Params:
        """Nothing is random here: ``key`` is not used."""
        count = len(_process(spec))
        return {
            "scale": cells.unscaled(count),
            "components": np.eye(count, dtype=np.float32),
            "inverse_variance": np.ones(count, np.float32),
            "residual": np.zeros(count, np.float32),
            "limit": np.ones(2, np.float32),
        }

    def fit(self, spec: Spec, data: TrainingData, progress: Progress) -> Fitted:
        """Learns from cells whose target is 0 (healthy); needs three groups, of which one third is held out.

        Known anomalous cells (target 1) only judge: metrics ``detected`` and ``false``, shares over the threshold.
        """
        self.check(spec)
        options = read(Options, spec)
        fold = folds(data.group, _FOLDS, spec.seed)
        progress(0.0, "principal components")
        process = _process(spec)
        params: Params = {}
        params["scale"] = cells.scale(
            data.values[:, process], data.observed[:, process] & (data.target == 0)[:, None] & (fold > 0)[:, None, None]
        )
        units, there = jax.device_get(jax.jit(partial(_units, spec, params))(data.values, data.observed))
        healthy = there & (data.target == 0)
        learn, held_out = healthy & (fold > 0)[:, None], healthy & (fold == 0)[:, None]
        if learn.sum() <= len(process) or not held_out.any():
            raise ValueError(f"{healthy.sum()} healthy cells are too few for {len(process)} features")
        params.update(_components(units[learn], options.variance))
        distances = np.asarray(jax.jit(partial(_distances, params))(units))
        params["limit"] = jnp.asarray(
            np.maximum(np.quantile(distances[held_out], _QUANTILE, axis=0), 1e-6), jnp.float32
        )
        score = np.max(distances / np.asarray(params["limit"]), axis=-1)
        threshold = _threshold([score[row][held_out[row]] for row in np.flatnonzero(fold == 0)], options)
        progress(1.0, f"threshold {threshold:.2f}")
        return Fitted(params, _metrics(params, score, threshold, held_out, there & (data.target == 1)))

    def predict(self, spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> dict[str, Estimate]:
        """``score`` of the window's last ``smooth`` cells; NaN where a feature is observed in none of them."""
        units, there = _units(spec, params, values, observed)
        score = jnp.max(_distances(params, units[:, -1]) / params["limit"], axis=-1)
        score = jnp.where(there[:, -1], score, jnp.nan)
        unknown = jnp.full_like(score, jnp.nan)
        return {"score": Estimate(score, unknown, unknown)}


def contributions(spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> jax.Array:
    """Share of each feature in the score, [n, f], summing to 1 (0 for ``age``): complete decomposition of T² or Q.

    Alcala & Qin 2009: with M the matrix of the index, feature i contributes (M^½ x)_i².
    """
    units, there = _units(spec, params, values, observed)
    scores = units[:, -1] @ params["components"]
    weights = jnp.stack([jnp.sqrt(params["inverse_variance"]), params["residual"]])
    parts = jnp.square((scores * weights[:, None]) @ params["components"].T)
    larger = jnp.argmax(_distances(params, units[:, -1]) / params["limit"], axis=-1)
    chosen = jnp.take_along_axis(parts, larger[None, :, None], axis=0)[0]
    share = chosen / jnp.maximum(chosen.sum(-1, keepdims=True), 1e-12)
    share = jnp.where(there[:, -1:], share, jnp.nan)
    return jnp.zeros(values.shape[:2]).at[:, _process(spec)].set(share)


def _process(spec: Spec) -> NDArray[np.int64]:
    """Positions of all features but the age."""
    every = np.arange(len(spec.features))
    return np.delete(every, spec.index("age")) if "age" in spec.roles else every


def _units(
    spec: Spec, params: Mapping[str, Any], values: jax.Array, observed: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Smoothed features in standard deviations [n, t, d], and where all of them are there [n, t]."""
    options, process = read(Options, spec), _process(spec)
    if "age" in spec.roles:
        age = spec.index("age")
        observed = observed & cells.since_reset(values[:, age], observed[:, age])[:, None]
    values, observed = values[:, process], observed[:, process]
    units = cells.scaled(params["scale"], values, observed, _LIMIT)
    if options.own_start:
        units = jnp.where(observed, units - cells.own_start(units, observed), 0.0)
    mean, there = cells.moving_mean(units, observed, options.smooth)
    return jnp.swapaxes(mean, 1, 2), there.all(1)


def _components(healthy: NDArray[np.float32], variance: float) -> Params:
    """Eigenvectors [d, d] as columns, largest first; those kept for T², the rest, at least one, for Q."""
    centred = healthy.astype(np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    # A sign of its own would make equal fits on two machines differ.
    vectors = vectors * np.where(vectors[np.abs(vectors).argmax(0), np.arange(len(values))] < 0, -1.0, 1.0)
    explained = np.cumsum(values) / max(values.sum(), 1e-12)
    kept = np.arange(len(values)) < min(int(np.searchsorted(explained, variance)) + 1, len(values) - 1)
    inverse = np.where(kept & (values > 1e-9), 1.0 / np.maximum(values, 1e-9), 0.0)
    return {
        "components": vectors.astype(np.float32),
        "inverse_variance": inverse.astype(np.float32),
        "residual": (~kept).astype(np.float32),
    }


def _distances(params: Params, units: jax.Array) -> jax.Array:
    """T² and Q of [..., d]: [..., 2]."""
    squares = jnp.square(jnp.matmul(units, params["components"], precision="highest"))
    return jnp.stack([squares @ params["inverse_variance"], squares @ params["residual"]], -1)


def _threshold(runs: list[NDArray[np.float32]], options: Options) -> float:
    """The score that healthy cells pass in as many clusters a week as the budget allows.

    Peaks over the 95 % quantile u, one per ``smooth`` cells as neighbours share their mean, follow a generalised Pareto
    law, fitted by probability-weighted moments (Hosking & Wallis 1987). With too few peaks: the largest score seen.
    """
    every = np.concatenate(runs).astype(np.float64)
    high = float(np.quantile(every, _PEAKS))
    blocks = [run[at : at + options.smooth].max() for run in runs for at in range(0, len(run), options.smooth)]
    excess = np.sort(np.array([peak - high for peak in blocks if peak > high]))
    if len(excess) < _FEWEST_PEAKS:
        return float(every.max())
    rank = (np.arange(len(excess)) + 0.65) / len(excess)
    mean, weighted = excess.mean(), float(np.mean((1.0 - rank) * excess))
    shape = float(np.clip(mean / max(mean - 2.0 * weighted, 1e-12) - 2.0, -0.5, 0.5))
    scale = mean * (1.0 + shape)
    # Hosking's k; its Pareto quantile is u + s/k·(1 - p^k) with p the share of peaks that may pass.
    share = min(1.0, options.false_alarms_per_week / options.cells_per_week * len(every) / len(excess))
    reach = -np.log(share) if abs(shape) < 1e-3 else (1.0 - share**shape) / shape
    return high + float(scale * reach)


def _metrics(
    params: Params, score: NDArray[np.float32], threshold: float, held_out: NDArray[np.bool_], bad: NDArray[np.bool_]
) -> dict[str, float]:
    metrics = {
        "threshold": threshold,
        "false": float(np.mean(score[held_out] > threshold)),
        "components": float(np.sum(params["residual"] == 0)),
        "cells": float(held_out.sum()),
    }
    return {**metrics, "detected": float(np.mean(score[bad] > threshold))} if bad.any() else metrics
