"""Small faults put into healthy data: which detector sees most of them, without a single label.

Step, drift, a value that is stuck, and a spike, each in one feature, in sizes near what its noise hides. All detectors
are shown the same ones, in cells that they have not learnt from, and judged at the same rate of false alarms: a score
over 1, which 1 % of the healthy cells reach.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from models import residuals
from models.calibration import Calibrated, HeldOut
from models.residuals import Detector, Options

_SIZES = (0.5, 1.0, 2.0)
"""Of a step, and of what a drift comes to [standard deviations of the healthy feature]."""
_SPIKE = 8.0
"""Times the size: one cell alone is averaged away."""
_CROPS = 64
"""Of each fold."""

Crops = NDArray[np.float32]


def seen(detector: Detector, found: Calibrated, healthy: HeldOut, options: Options, seed: int) -> float:
    """Share of the faults that ``detector`` sees."""
    reach = detector.reach(options)
    program = jax.jit(partial(_over, detector, options))
    shares = []
    for number, params in zip(healthy.folds, found.by_fold, strict=True):
        units, observed = _crops(healthy, number, reach, np.random.default_rng(seed))
        feature = np.arange(len(units)) % units.shape[2]
        shares += [float(program(params, crops, observed).mean()) for crops in faulty(units, feature, options.smooth)]
    return float(np.mean(shares))


def _over(detector: Detector, options: Options, params: Any, units: jax.Array, observed: jax.Array) -> jax.Array:
    mean, known = detector.residuals(options, params, units, observed, last=True)
    return known[:, 0] & (residuals.distances(params, mean[:, 0]).max(-1) > 1.0)


def faulty(units: Crops, feature: NDArray[np.intp], lasting: int) -> Iterator[Crops]:
    """Healthy crops [n, t, d] with each fault in ``feature`` [n], begun ``lasting`` cells before their end."""
    row, cells = np.arange(len(units))[:, None], units.shape[1]
    onset = max(0, cells - lasting)
    late = np.arange(onset, cells)
    here = (row, late[None], feature[:, None])
    stuck = units.copy()
    stuck[here] = units[row, max(0, onset - 1), feature[:, None]]
    yield stuck
    for size in _SIZES:
        for shape in (
            np.ones(len(late)),
            (late - onset + 1) / len(late),
            _SPIKE * (late == cells - 1 - len(late) // 2),
        ):
            crops = units.copy()
            crops[here] += np.float32(size) * shape.astype(np.float32)
            yield crops


def _crops(
    healthy: HeldOut, number: int, reach: int, generator: np.random.Generator
) -> tuple[Crops, NDArray[np.bool_]]:
    """Windows of ``reach`` cells that end in healthy cells of a fold, the same instants whatever the reach; where there
    are few, some more than once."""
    ends = np.argwhere(healthy.clean & (healthy.fold == number)[:, None])
    row, end = generator.permutation(ends)[np.resize(np.arange(len(ends)), _CROPS)].T
    source = end[:, None] - reach + 1 + np.arange(reach)
    units = healthy.units[row[:, None], np.maximum(source, 0)]
    return units, healthy.observed[row[:, None], np.maximum(source, 0)] & (source >= 0)[..., None]
