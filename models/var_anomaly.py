"""Kind ``var_anomaly``: what a feature does that neither its own past nor the others' foretells.

A vector autoregression (Lütkepohl 2005, chapter 2) tells each cell from the ``order`` cells before it, of all features
together, by ridge regression. What is slow and healthy, such as a motor that warms up, is foretold and weighs little; a
feature that moves away from what the others do, little by little in one direction, adds up in the mean residual.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from models import cells, residuals
from models.kind import Params, Progress
from models.options import number
from models.residuals import Smoothed
from models.scored import Scored

_MOST = 100_000
"""Cells to learn from, at most."""


@dataclass(frozen=True)
class Options(residuals.Options):
    """Hyperparameters."""

    order: int = number(5, 1, 100)
    """Cells before one that tell what it will be."""
    ridge: float = number(30.0, 1e-3, 1e6)
    """Penalty, in cells: as if so many of them had shown that no feature tells of another."""


class Var:
    """Residuals of a vector autoregression; see the module."""

    name = "var"
    forms = 1

    def reach(self, options: Options) -> int:
        """See :class:`models.residuals.Detector`."""
        return options.smooth + options.order

    def init(self, options: Options, features: int, key: jax.Array) -> Params:
        """It expects the mean."""
        return {
            "weights": np.zeros((options.order * features, features), np.float32),
            "offset": np.zeros(features, np.float32),
        }

    def learn(
        self,
        options: Options,
        units: NDArray[np.float32],
        observed: NDArray[np.bool_],
        sets: NDArray[np.bool_],
        seed: int,
        progress: Progress,
    ) -> Params:
        """See :class:`models.residuals.Detector`; closed form."""
        past, foretold = (np.asarray(part) for part in _past(options, units, observed))
        usable = foretold & observed.all(-1)
        fits = [_ridge(past, units, usable & chosen, options.ridge, seed) for chosen in sets]
        return {name: np.stack([fit[name] for fit in fits]) for name in fits[0]}

    def residuals(
        self, options: Options, params: Params, units: jax.Array, observed: jax.Array, *, last: bool
    ) -> Smoothed:
        """What was not foretold."""
        past, foretold = _past(options, units, observed)
        expected = jnp.matmul(past, params["weights"], precision="highest") + params["offset"]
        found = residuals.smoothed(units - expected, observed & foretold[..., None], options.smooth)
        return Smoothed(found.mean[:, -1:], found.known[:, -1:]) if last else found

    def roots(self, options: Options, residuals_: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the Mahalanobis distance."""
        return residuals.mahalanobis(residuals_, options.smooth)


def _past(
    options: Options, units: jax.Array | NDArray[np.float32], observed: jax.Array | NDArray[np.bool_]
) -> tuple[jax.Array, jax.Array]:
    """The ``order`` cells before each, [n, t, order·d], and where all of them are there [n, t].

    A short hole, of no more than ``smooth`` cells, is bridged with the last value.
    """
    held, fresh = cells.held(jnp.swapaxes(units, 1, 2), jnp.swapaxes(observed, 1, 2), options.smooth)
    lags = np.arange(1, options.order + 1)[:, None, None, None]
    past = cells.shifted(jnp.broadcast_to(held, (options.order, *held.shape)), lags, 0.0)
    there = cells.shifted(jnp.broadcast_to(fresh, (options.order, *fresh.shape)), lags, False)
    order, n, d, t = past.shape
    return jnp.transpose(past, (1, 3, 0, 2)).reshape(n, t, order * d), there.all((0, 2))


def _ridge(
    past: NDArray[np.float32], units: NDArray[np.float32], chosen: NDArray[np.bool_], penalty: float, seed: int
) -> Params:
    row, cell = np.nonzero(chosen)
    if not len(row):
        raise ValueError("no healthy cell has its whole past before it: runs are shorter than the order")
    if len(row) > _MOST:
        few = np.sort(np.random.default_rng(seed).choice(len(row), _MOST, replace=False))
        row, cell = row[few], cell[few]
    inputs, target = past[row, cell].astype(np.float64), units[row, cell].astype(np.float64)
    means = inputs.mean(0), target.mean(0)
    inputs, target = inputs - means[0], target - means[1]
    weights = np.linalg.solve(inputs.T @ inputs + penalty * np.eye(inputs.shape[1]), inputs.T @ target)
    return {"weights": weights.astype(np.float32), "offset": (means[1] - means[0] @ weights).astype(np.float32)}


class VarAnomaly(Scored):
    """Residuals of a vector autoregression; see the module."""

    name = "var_anomaly"

    def __init__(self) -> None:
        super().__init__(Options, Var())
