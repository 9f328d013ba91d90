"""What every model has to be better than: mean, last value, a line, components, a boosted tree, on the same inputs.

A baseline learns from a table with a row for each labelled instant, ``inputs`` [n, d] and ``target`` [n]. NaN in the
inputs means not observed; rows whose target is NaN are not learnt from. Equal arguments give equal predictions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models import pca_anomaly

Table = NDArray[np.floating[Any]]
Column = NDArray[np.float64]
Predict = Callable[[Table], Column]
"""[m, d] to [m]."""


class Baseline(Protocol):
    """One simple way to predict a target."""

    @property
    def name(self) -> str:
        """How it stands in a table, such as ``boosted tree``."""

    def fit(self, inputs: Table, target: Table) -> Predict:
        """ValueError where no row has a target."""


def baselines(*, last: int | None = None, seed: int = 0, classes: bool = False) -> Sequence[Baseline]:
    """All that can be had here, the simplest first; without scikit-learn the tree is left out (see :func:`has_trees`).

    ``last``: position of the input that is the target's last known value, if there is one. ``classes``: the target is 0
    or 1, and what is predicted is the probability of 1.
    """
    persistence: Sequence[Baseline] = () if last is None else (Persistence(last),)
    trees: Sequence[Baseline] = (BoostedTree(seed=seed, classes=classes),) if has_trees() else ()
    return (Mean(), *persistence, Ridge(classes=classes), *trees)


def has_trees() -> bool:
    """Whether scikit-learn is installed."""
    return find_spec("sklearn") is not None


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of the target; of classes, how often there is a 1."""

    name: str = "mean"

    def fit(self, inputs: Table, target: Table) -> Predict:
        """See :class:`Baseline`."""
        _, known = _labelled(inputs, target)
        mean = float(known.mean())
        return lambda asked: np.full(len(asked), mean)


@dataclass(frozen=True, slots=True)
class Persistence:
    """The target's last known value, which is an input; where that is not observed, the mean of the target."""

    column: int
    name: str = "last value"

    def fit(self, inputs: Table, target: Table) -> Predict:
        """See :class:`Baseline`."""
        _, known = _labelled(inputs, target)
        mean = float(known.mean())

        def predict(asked: Table) -> Column:
            last = np.asarray(asked[:, self.column], np.float64)
            return np.where(np.isnan(last), mean, last)

        return predict


@dataclass(frozen=True, slots=True)
class Ridge:
    """A line through inputs in standard deviations (Hoerl & Kennard 1970); what is not observed is the mean."""

    penalty: float = 1e-3
    """As a share of the rows."""
    classes: bool = False
    name: str = "ridge"

    def fit(self, inputs: Table, target: Table) -> Predict:
        """See :class:`Baseline`."""
        rows, known = _labelled(inputs, target)
        units = _units(rows)
        known_units = units(rows)
        square = known_units.T @ known_units + self.penalty * len(rows) * np.eye(rows.shape[1])
        weights = np.linalg.solve(square, known_units.T @ (known - known.mean()))

        def predict(asked: Table) -> Column:
            value: Column = units(asked) @ weights + known.mean()
            return value.clip(0.0, 1.0) if self.classes else value

        return predict


@dataclass(frozen=True, slots=True)
class Pca:
    """How far a row is from those whose target is 0, healthy: the larger of T² and Q (Jackson & Mudholkar 1979).

    A score and no probability; 1: as far as 1 % of the healthy rows. One row at a time, without smoothing.
    """

    name: str = "PCA"

    def fit(self, inputs: Table, target: Table) -> Predict:
        """See :class:`Baseline`; ValueError where there are fewer healthy rows than inputs, or one input."""
        rows, known = _labelled(inputs, target)
        healthy = rows[known == 0]
        if len(healthy) <= rows.shape[1] or rows.shape[1] < 2:
            raise ValueError(f"{len(healthy)} healthy rows and {rows.shape[1]} inputs are too few for components")
        units = _units(healthy)
        roots = pca_anomaly.Pca().roots(pca_anomaly.Options(), units(healthy))

        def distances(table: Table) -> NDArray[np.float64]:
            found: NDArray[np.float64] = np.square(np.einsum("nd,cde->nce", units(table), roots)).sum(-1)
            return found

        limit = np.maximum(np.quantile(distances(healthy), 0.99, axis=0), 1e-12)
        return lambda asked: np.max(distances(asked) / limit, axis=1)


@dataclass(frozen=True, slots=True)
class BoostedTree:
    """Gradient boosting over histograms (Friedman 2001; Ke et al. 2017) by scikit-learn, the extra ``trees``.

    Not tuned for any data: the same everywhere.
    """

    seed: int = 0
    classes: bool = False
    rounds: int = 300
    name: str = "boosted tree"

    def fit(self, inputs: Table, target: Table) -> Predict:
        """See :class:`Baseline`; ModuleNotFoundError says what to install."""
        if not has_trees():
            raise ModuleNotFoundError('the boosted tree needs scikit-learn: pip install "foretag[trees]"')
        rows, known = _labelled(inputs, target)
        if self.classes and known.min() == known.max():
            return Mean().fit(rows, known)
        from sklearn import ensemble  # noqa: PLC0415  # an extra; and it takes a second

        shape = {"max_iter": self.rounds, "learning_rate": 0.05, "max_leaf_nodes": 31, "l2_regularization": 1.0}
        kind = ensemble.HistGradientBoostingClassifier if self.classes else ensemble.HistGradientBoostingRegressor
        # Stopping early would hold rows out at random, neighbours of those that are learnt from.
        tree = kind(**shape, early_stopping=False, random_state=self.seed).fit(rows, known)
        return partial(_probability if self.classes else _value, tree)


def _value(tree: Any, asked: Table) -> Column:
    return np.asarray(tree.predict(asked), np.float64)


def _probability(tree: Any, asked: Table) -> Column:
    return np.asarray(tree.predict_proba(asked)[:, 1], np.float64)


def _units(rows: NDArray[np.float64]) -> Callable[[Table], NDArray[np.float64]]:
    """Tables in standard deviations of ``rows``; 0 where not observed, and of a constant."""
    seen = ~np.isnan(rows)
    count = np.maximum(seen.sum(0), 1)
    mean = np.where(seen, rows, 0.0).sum(0) / count
    spread = np.sqrt((np.where(seen, rows - mean, 0.0) ** 2).sum(0) / count)
    scale = np.where(spread > 1e-12, spread, 1.0)

    def units(table: Table) -> NDArray[np.float64]:
        found: NDArray[np.float64] = (np.asarray(table, np.float64) - mean) / scale
        return np.nan_to_num(found, nan=0.0)

    return units


def _labelled(inputs: Table, target: Table) -> tuple[NDArray[np.float64], Column]:
    chosen = ~np.isnan(target)
    if not chosen.any():
        raise ValueError("no row has a target to learn from")
    return np.asarray(inputs, np.float64)[chosen], np.asarray(target, np.float64)[chosen]
