"""Cleaning of what a model sees, by the same steps in training and live: :mod:`models.cleaning` over tags."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models import cleaning
from models.cleaning import Cleaned, Cleaning, Mask, Values
from models.kind import TrainingData
from plugin.diagnostics import Diagnostics
from plugin.domain import Asset
from plugin.infer.config import ModelConfig

ODD_RUNS = "odd_runs"


class Cleaner:
    """Of one model over some of its assets; arrays are [asset, feature, cell] without the calendar."""

    def __init__(self, config: ModelConfig, assets: Sequence[Asset]) -> None:
        self._config = config
        self.steps = Cleaning.of(config.cleaning_steps)
        self._chosen = self.steps.chosen(config.features, config.roles)
        tags = [[asset.tags[feature] for feature in config.features] for asset in assets]
        ends = [[(tag.low, tag.high) for tag in row] for row in tags]
        self._low, self._high = np.moveaxis(
            np.array(ends, np.float64).reshape(len(tags), len(config.features), 2), 2, 0
        )

    @property
    def on(self) -> bool:
        """Whether there is anything to be done."""
        return bool(self._config.cleaning_steps)

    def clean(self, values: Values, observed: Mask) -> Cleaned:
        """Of every asset."""
        return cleaning.clean(self.steps, values, observed, self._chosen, self._low, self._high)

    def count(self, removed: Mapping[str, Mask], diagnostics: Diagnostics) -> None:
        """What was taken out of the cells that are new since the run before; the others have been counted."""
        new = -(-self._config.schedule.every // self._config.step)
        for step, cells in removed.items():
            diagnostics.cells_cleaned.labels(self._config.name, step).inc(int(cells[..., -new:].sum()))

    def whole_runs(self, data: TrainingData, tally: Counter[str]) -> TrainingData:
        """Without those that are far from the fleet."""
        width = len(self._config.features)
        odd = cleaning.odd_runs(self.steps, data.values[:, :width], data.observed[:, :width], data.group, self._chosen)
        if not odd:
            return data
        tally[ODD_RUNS] += len(odd)
        kept: NDArray[np.bool_] = ~np.isin(data.group, list(odd))
        return TrainingData(data.values[kept], data.observed[kept], data.target[kept], data.group[kept])
