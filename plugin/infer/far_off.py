"""Values that can't be: far beyond all that a version's training held, so in another unit, or of a broken instrument.

The model sees them as they are, for nobody knows what they should have been; but nothing that it says then is Good.
What lies less far is for :mod:`plugin.infer.monitoring`, which waits until most of the recent values do so.
"""

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.references import Ranges, References
from plugin.complaints import Complaints
from plugin.domain import Asset
from plugin.infer.config import ModelConfig

log = logging.getLogger(__name__)

_FAR = 0.5
"""Of the range that an input had in training."""
_STILL = 0.05
"""Of its largest value there: one that hardly moved may move a little."""

Far = NDArray[np.bool_]
"""[asset, input, cell] whether it holds such a value."""


def believable(config: ModelConfig, known: References | None) -> Ranges:
    """From where to where each input may be; anywhere where a model is not watched, or kept no references."""
    references = known if known is not None and config.monitor else References({}, None)
    return references.ranges(len(config.inputs), _FAR, _STILL)


class FarOff:
    """What the log hears of them, for one model: when they begin, and hourly while they last."""

    def __init__(self, config: ModelConfig, assets: Sequence[Asset]) -> None:
        self._config = config
        self._assets = assets
        self._complaints = Complaints()
        self._lasting: set[str] = set()

    def tell(self, label: str, ranges: Ranges, far: Far) -> None:
        """``label``: of the version."""
        lasting = set()
        for row, place in np.argwhere(far[..., -1]).tolist():
            asset, feature = self._assets[row].name, self._config.inputs[place]
            lasting.add(f"{asset}.{feature}")
            if told := self._complaints.about(
                f"{asset}.{feature}",
                f"model {label}: {feature} of {asset} is not within {ranges.low[place, 0]:.6g} to "
                f"{ranges.high[place, 0]:.6g}, and so far from its training: what is said of {asset} is Uncertain; "
                "look at the instrument and its unit",
            ):
                log.warning("%s", told)
        for each in self._lasting - lasting:
            self._complaints.over(each)
        self._lasting = lasting
