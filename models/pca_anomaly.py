"""Kind ``pca_anomaly``: how far an asset is from the ways in which its fleet moved while it was healthy.

The features themselves are the residuals, split by principal components into the part that the healthy data explain and
the rest (Jackson & Mudholkar 1979). Hotelling's T² measures the first part, the squared prediction error Q the second.
The rest is as in :mod:`models.residuals`.
"""

from dataclasses import dataclass

import jax
import numpy as np
from numpy.typing import NDArray

from models import residuals
from models.kind import Params, Progress
from models.options import number
from models.residuals import Smoothed
from models.scored import Scored


@dataclass(frozen=True)
class Options(residuals.Options):
    """Hyperparameters."""

    variance: float = number(0.9, 0.01, 1.0)
    """Share of the healthy variance that the kept components explain."""


class Pca:
    """T² and Q of principal components; see the module."""

    name = "pca"
    forms = 2

    def reach(self, options: Options) -> int:
        """See :class:`models.residuals.Detector`."""
        return options.smooth

    def init(self, options: Options, features: int, key: jax.Array) -> Params:
        """Nothing but what all detectors have."""
        return {}

    def learn(
        self,
        options: Options,
        units: NDArray[np.float32],
        observed: NDArray[np.bool_],
        sets: NDArray[np.bool_],
        seed: int,
        progress: Progress,
    ) -> Params:
        """Nothing: all is in the forms."""
        return {}

    def residuals(
        self, options: Options, params: Params, units: jax.Array, observed: jax.Array, *, last: bool
    ) -> Smoothed:
        """The features as they are."""
        found = residuals.smoothed(units, observed, options.smooth)
        return Smoothed(found.mean[:, -1:], found.known[:, -1:]) if last else found

    def roots(self, options: Options, residuals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of T² and Q; the components kept for T² come largest first, and at least one is left for Q."""
        values, vectors = np.linalg.eigh(residuals.T @ residuals / len(residuals))
        values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
        explained = np.cumsum(values) / max(values.sum(), 1e-12)
        kept = np.arange(len(values)) < min(int(np.searchsorted(explained, options.variance)) + 1, len(values) - 1)
        inverse = np.where(kept & (values > 1e-9), 1.0 / np.sqrt(np.maximum(values, 1e-9)), 0.0)
        return np.stack([(vectors * weight) @ vectors.T for weight in (inverse, (~kept).astype(np.float64))])


class PcaAnomaly(Scored):
    """T² and Q of principal components; see the module."""

    name = "pca_anomaly"

    def __init__(self) -> None:
        super().__init__(Options, Pca())
