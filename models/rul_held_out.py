"""What the units that a member of the ensemble had not seen say of a remaining useful life: bounds, horizon, errors."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.training import conformal

_SURE = 0.8
"""Share of the cells told to be beyond the horizon that are."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Quantiles [m, 3] at random cells of units that the member had not seen, their truth and fold, as cap's shares."""

    quantiles: NDArray[np.float32]
    truth: NDArray[np.float32]
    fold: NDArray[np.int32]
    unit: NDArray[np.int32]

    def margin(self, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """How much to widen below and above so that each side fails in 5 %, from the chosen cells.

        Of worn units alone, where there are enough: at the cap the interval is never wrong, and would be too bold.
        """
        worn = chosen & (self.truth < 1.0)
        chosen = worn if worn.sum() >= 40 else chosen
        units = len(np.unique(self.unit[chosen]))
        low, _, high = self.quantiles[chosen].T
        truth = self.truth[chosen]
        return np.array([conformal(low - truth, 0.95, units), conformal(truth - high, 0.95, units)])

    def beyond(self) -> float:
        """The least estimate from which on :data:`_SURE` of the cells are at the cap; the cap where there is none."""
        order = np.argsort(-self.quantiles[:, 1], kind="stable")
        right = np.cumsum(self.truth[order] >= 1.0) / np.arange(1, len(order) + 1)
        found = np.flatnonzero(right >= _SURE)
        return min(1.0, float(self.quantiles[order[found[-1]], 1])) if len(found) else 1.0

    def metrics(self, cap: float) -> dict[str, float]:
        """Errors [cells] of single members; coverage with margins from the other folds. ``phm``: mean PHM08 score."""
        low, middle, high = self.quantiles.T.copy()
        for fold in np.unique(self.fold):
            here = self.fold == fold
            below, above = self.margin(~here) if (~here).any() else self.margin(here)
            low[here] -= below
            high[here] += above
        low, middle, high = np.clip((low, middle, high), 0.0, 1.0) * cap
        truth = self.truth * cap
        error = middle - truth
        return {
            "rmse": float(np.sqrt(np.mean(error**2))),
            "mae": float(np.mean(np.abs(error))),
            "phm": phm_score(error) / len(error),
            "coverage": float(np.mean((low <= truth) & (truth <= high))),
            "width": float(np.mean(high - low)),
            "units": float(len(np.unique(self.unit))),
        }


def phm_score(error: NDArray[np.floating[Any]]) -> float:
    """Σ exp(−e/13) − 1 for e < 0, exp(e/10) − 1 for e ≥ 0, with e = predicted − true in cycles; 0 is best.

    The score of the PHM 2008 data challenge (Saxena, Goebel, Simon, Eklund: Damage Propagation Modeling for Aircraft
    Engine Run-to-Failure Simulation): late predictions (e > 0) cost more than early ones. Infinite where one error is
    beyond the exponent of a float.
    """
    with np.errstate(over="ignore"):
        return float(np.sum(np.expm1(np.where(error < 0, -error / 13.0, error / 10.0))))
