"""From residuals to a score: what all kinds that look for anomalies have in common.

A :class:`Detector` says by how much each feature is not as it would be while all is well: its residual. Here the
residuals are averaged over the last ``smooth`` cells and measured by one or more quadratic forms, such as the
Mahalanobis distance; each is divided by the 99 % quantile that it has on healthy cells which the detector has not
learnt from, and the largest is the ``score``. Whether that is too much is decided outside, against the metric
``threshold``, see :mod:`models.thresholds`.

Nothing healthy is wasted: the detector learns once from all healthy cells, to be used, and as often without one fold
of the groups, to be judged there (cross-conformal: Vovk 2015).

The feature in the role ``age`` is optional and no input: cells before the last overhaul (it falls) are left out, and
with ``own_start`` = 1 the features are taken as differences from the unit's own first cells, for which the window has
to reach back to them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from models import cells
from models.kind import Params, Progress, Spec
from models.options import choice, number
from models.thresholds import LAWS

_LIMIT = 1000.0
"""Standard deviations that a feature is clipped to: far beyond what healthy data hold, as a far state is what is looked
for, and near enough for float32."""
_FLOOR = 1e-4
"""Least variance of a residual: what hardly moved while it was healthy is no reason for infinite scores."""


@dataclass(frozen=True)
class Options:
    """Hyperparameters that all of these kinds have."""

    smooth: int = number(8, 1, 10_000)
    """Cells in the mean."""
    own_start: int = number(0, 0, 1)
    """1: features are differences from the unit's own first 20 cells in the window."""
    false_alarms_per_week: float = number(1.0, 1e-6, 1e6)
    """Budget of one asset."""
    cells_per_week: float = number(604_800.0, 1.0, 1e9)
    """604800: a cell is a second; 168: an hour."""
    threshold: str = choice("pareto", LAWS)
    """How the threshold follows from healthy scores: by one of two laws of extreme values, or by what was seen alone;
    ``gumbel`` for hours of healthy data, ``pareto`` for weeks."""


class Smoothed(NamedTuple):
    """Mean residuals over the last ``smooth`` cells before each end."""

    mean: jax.Array
    """[n, e, d]; 0 where it is not known."""
    known: jax.Array
    """[n, e] whether every feature has a residual there."""


class Detector(Protocol):
    """One way to tell how healthy features should be; stateless. Features are in standard deviations, [n, t, d]."""

    @property
    def name(self) -> str:
        """Names its parameters and metrics."""

    @property
    def forms(self) -> int:
        """Quadratic forms that :meth:`roots` gives."""

    def reach(self, options: Any) -> int:
        """Cells that the last residual is computed from, at most."""

    def init(self, options: Any, features: int, key: jax.Array) -> Params:
        """Untrained parameters."""

    def learn(
        self,
        options: Any,
        units: NDArray[np.float32],
        observed: NDArray[np.bool_],
        sets: NDArray[np.bool_],
        seed: int,
        progress: Progress,
    ) -> Params:
        """Parameters for each set of cells to learn from, ``sets`` [m, n, t]: leaves have ``m`` as first axis."""

    def residuals(self, options: Any, params: Params, units: jax.Array, observed: jax.Array, *, last: bool) -> Smoothed:
        """At every cell of the windows, or with ``last`` at the last alone."""

    def roots(self, options: Any, residuals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Square roots [forms, d, d] of the quadratic forms, from centred healthy residuals [k, d]."""


def process(spec: Spec) -> NDArray[np.int64]:
    """Positions of all features but the age."""
    every = np.arange(len(spec.features))
    return np.delete(every, spec.index("age")) if "age" in spec.roles else every


def units(
    spec: Spec, options: Options, scale: Mapping[str, Any], values: jax.Array, observed: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Process features in standard deviations [n, t, d], and what is observed of them [n, t, d]."""
    if "age" in spec.roles:
        age = spec.index("age")
        observed = observed & cells.since_reset(values[:, age], observed[:, age])[:, None]
    values, observed = values[:, process(spec)], observed[:, process(spec)]
    found = cells.scaled(scale, values, observed, _LIMIT)
    if options.own_start:
        found = jnp.where(observed, found - cells.own_start(found, observed), 0.0)
    return jnp.swapaxes(found, 1, 2), jnp.swapaxes(observed, 1, 2)


def smoothed(residual: jax.Array, known: jax.Array, count: int) -> Smoothed:
    """Of residuals [n, t, d] at every cell, where they are known [n, t, d]."""
    mean, there = cells.moving_mean(jnp.swapaxes(residual, 1, 2), jnp.swapaxes(known, 1, 2), count)
    return Smoothed(jnp.swapaxes(mean, 1, 2), there.all(1))


def tail(window: jax.Array, count: int) -> jax.Array:
    """The last ``count`` cells of [n, t, d]."""
    return window[:, max(0, window.shape[1] - count) :]


def distances(params: Params, mean: jax.Array) -> jax.Array:
    """Of mean residuals [..., d]: each form over its limit [..., forms]."""
    every: jax.Array = parts(params, mean).sum(-1) / params["limit"]
    return every


def parts(params: Params, mean: jax.Array) -> jax.Array:
    """What each feature adds to each form, [..., forms, d]: complete decomposition (Alcala & Qin 2009).

    With M the matrix of the form, feature i contributes (M^½ x)_i².
    """
    centred = mean - params["centre"]
    return jnp.square(jnp.einsum("...d,cde->...ce", centred, params["roots"], precision="highest"))


def mahalanobis(residuals: NDArray[np.float64], spacing: int) -> NDArray[np.float64]:
    """M^½ of the inverse covariance, [1, d, d]; of ``spacing`` means that overlap one counts.

    Few independent residuals make some directions look smaller than they are, and every fresh one far away. The
    covariance is drawn to its mean variance by as much as that takes (oracle approximating shrinkage: Chen et al. 2010,
    equation 23).
    """
    covariance, d = residuals.T @ residuals / len(residuals), residuals.shape[1]
    size, squares = float(np.trace(covariance)), float(np.sum(covariance**2))
    independent = len(residuals) / spacing
    uneven = (independent + 1.0 - 2.0 / d) * (squares - size**2 / d)
    share = min(1.0, ((1.0 - 2.0 / d) * squares + size**2) / max(uneven, 1e-12))
    values, vectors = np.linalg.eigh((1.0 - share) * covariance + share * size / d * np.eye(d))
    root: NDArray[np.float64] = (vectors / np.sqrt(np.maximum(values, _FLOOR))) @ vectors.T
    return root[None]


def unlearnt(forms: int, features: int) -> Params:
    """Centre, forms and limits before there are data."""
    return {
        "centre": np.zeros(features, np.float32),
        "roots": np.broadcast_to(np.eye(features, dtype=np.float32), (forms, features, features)).copy(),
        "limit": np.ones(forms, np.float32),
    }
