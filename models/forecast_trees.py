"""Boosted trees of a forecaster: one forest for each member and horizon, grown on the cells that the member may see.

In the parameters a member's forests lie behind each other in one row, by horizon.
"""

from functools import partial
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from models import boosted
from models.kind import Params, Progress, Spec
from models.lagged import Lags, plain

_GROWN_FROM = 40_000
"""Cells, at most: a year of minutes says little that these don't."""


def grown(
    spec: Spec,
    lags: Lags,
    rows: NDArray[np.float32],
    truth: NDArray[np.float32],
    fold: NDArray[np.int32],
    members: int,
    trees: int,
    progress: Progress,
) -> Params:
    """From blocks ``rows`` [n, length + t - 1, f] and what came true after each of the last t cells [n, t, horizon];
    each member without the blocks of its fold."""
    asked, came, of_fold = _cells(spec, lags, rows, truth, fold)

    def forest(member: int, horizon: int) -> Params:
        used = (of_fold != member) & np.isfinite(came[:, horizon])
        if not used.any():
            return boosted.ungrown(trees)
        telling = boosted.telling(progress, f"member {member + 1} of {members}")
        return boosted.grown(asked[used, horizon], came[used, horizon], trees, spec.seed + member, telling)

    every = [[forest(member, horizon) for horizon in range(came.shape[-1])] for member in range(members)]
    rows_of = [{name: np.hstack([each[name] for each in own]) for name in own[0]} for own in every]
    return boosted.stacked(rows_of)


def told_ahead(forests: Params, asked: jax.Array) -> jax.Array:
    """What one member's trees say of rows [n, horizon, d]: [n, horizon], in standard deviations. Jittable."""
    horizons = asked.shape[1]
    apart = {name: leaf.reshape(horizons, -1) for name, leaf in forests.items()}
    said: jax.Array = jax.vmap(boosted.told, (0, 1), 1)({**apart, "mean": forests["mean"]}, asked)
    return said


def _cells(
    spec: Spec, lags: Lags, rows: NDArray[np.float32], truth: NDArray[np.float32], fold: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """What trees are asked about at labelled cells [m, horizon, d], what came true [m, horizon], and their fold [m]."""
    every = jax.jit(partial(plain, spec, lags, last=truth.shape[1]))
    labelled = np.isfinite(truth).any(-1)
    share = min(1.0, _GROWN_FROM / max(1, int(labelled.sum())))
    chosen = labelled & (np.random.default_rng(spec.seed).random(labelled.shape) < share)
    parts: list[Any] = [np.asarray(every(row[None]))[0, used] for row, used in zip(rows, chosen, strict=True)]
    return np.concatenate(parts), truth[chosen], np.repeat(fold, chosen.sum(1))
