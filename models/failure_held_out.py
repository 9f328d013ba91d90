"""What members of a classifier say of groups that they had not seen: calibration, threshold and figures."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models import probability
from models.kind import Params


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Cells of groups that were held out, all [m] but the logits."""

    logit: NDArray[np.float64]
    """[m, 2]: of the network, of the trees."""
    target: NDArray[np.float64]
    """0 or 1, or a share between them."""
    fold: NDArray[np.int32]

    def learnt(self, cost: float) -> Params:
        """``calibration`` and ``threshold``, of all of them."""
        calibration = probability.platt(self.logit, self.target)
        told = probability.calibrated(self.logit, calibration)
        return {
            "calibration": calibration,
            "threshold": np.float32(probability.decision(told, self.target >= 0.5, cost)),
        }

    def metrics(self, cost: float) -> dict[str, float]:
        """Each fold by the calibration and the threshold of the other folds. ``reliability``: see there."""
        told, acted = np.zeros(len(self.logit)), np.zeros(len(self.logit), bool)
        for number in np.unique(self.fold):
            here = self.fold == number
            others = HeldOut(self.logit[~here], self.target[~here], self.fold[~here]) if (~here).any() else self
            found = others.learnt(cost)
            told[here] = probability.calibrated(self.logit[here], found["calibration"])
            acted[here] = told[here] >= found["threshold"]
        came = self.target >= 0.5
        return {
            "pr_auc": probability.average_precision(told, came),
            "f1": probability.f1(acted, came),
            "recall": float(acted[came].mean()) if came.any() else float("nan"),
            "precision": float(came[acted].mean()) if acted.any() else 0.0,
            "brier": float(np.mean((told - self.target) ** 2)),
            "reliability": probability.reliability(told, self.target),
            "prevalence": float(came.mean()),
            "cells": float(len(came)),
        }
