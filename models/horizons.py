"""How good a forecaster is at each of its horizons, and what follows from that: whom to believe, and how wide to be."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.blend import shares
from models.kind import Params
from models.training import conformal

LOW, HIGH = 0.1, 0.9
"""Quantiles at the ends of the range."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """At instants that neither the member nor its ridge or trees had seen, all [m, horizon], in standard deviations."""

    days: int
    """Errors of one day are alike: so many count as independent."""
    truth: NDArray[np.float32]
    """NaN: not known."""
    line: NDArray[np.float32]
    network: NDArray[np.float32]
    trees: NDArray[np.float32]
    below: NDArray[np.float32]
    above: NDArray[np.float32]
    last: NDArray[np.float32]
    """[m, 1] the target's last value."""

    def calibration(self) -> Mapping[str, NDArray[np.float32]]:
        """Shares of the network and the trees, and what is added to the range on either side; of the ridge alone, the
        whole range."""
        found = [self._of(horizon) for horizon in range(self.truth.shape[1])]
        return {name: np.stack([each[name] for each in found], -1).astype(np.float32) for name in found[0]}

    def _of(self, horizon: int) -> dict[str, NDArray[np.float64]]:
        known = np.isfinite(self.truth[:, horizon])
        truth, line, network, trees, below, above = (
            part[known, horizon] for part in (self.truth, self.line, self.network, self.trees, self.below, self.above)
        )
        share = shares((line, network, trees), truth)[1:]
        error = truth - mixed(share, line, network, trees)

        def margin(*sides: NDArray[np.float32]) -> NDArray[np.float64]:
            return np.array([conformal(side, HIGH, self.days) for side in sides])

        alone = truth - line
        return {
            "share": share,
            "margin": margin(-error - below, error - above),
            "ridge_margin": np.maximum(margin(-alone, alone), 0.0),
        }

    def metrics(self, params: Params, ahead: tuple[int, ...], unit: float) -> dict[str, float]:
        """By horizon: errors [the target's unit] of what is used, of the ridge and of the last value; the shares of
        network and trees; how much the range covers, and its width."""
        found: dict[str, float] = {"days": float(self.days)}
        for place, cells_ahead in enumerate(ahead):
            known = np.isfinite(self.truth[:, place])
            truth, *parts = (part[known, place] for part in (self.truth, self.line, self.network, self.trees))
            used = mixed(params["share"][:, place], *parts)
            low = np.minimum(used - self.below[known, place] - params["margin"][0, place], used)
            high = np.maximum(used + self.above[known, place] + params["margin"][1, place], used)
            figures = {
                "rmse": unit * _root(truth - used),
                "rmse_ridge": unit * _root(truth - parts[0]),
                "rmse_last_value": unit * _root(truth - self.last[known, 0]),
                "network_share": float(params["share"][0, place]),
                "trees_share": float(params["share"][1, place]),
                "coverage": float(np.mean((low <= truth) & (truth <= high))),
                "width": unit * float(np.mean(high - low)),
            }
            found |= {f"{name}_{cells_ahead}": figure for name, figure in figures.items()}
        return found


def mixed(share: Any, line: Any, network: Any, trees: Any) -> Any:
    """Of shares [2, ...] of network and trees; what is left of 1 is the ridge's."""
    return line + share[0] * (network - line) + share[1] * (trees - line)


def _root(error: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(error.astype(np.float64) ** 2)))
