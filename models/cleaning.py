"""Cleaning before the model: what can't be true counts as not observed. NumPy over [n, f, t], training and live alike.

Steps, in this order; each judges a cell by itself and the cells before it alone, as far back as the window goes:

* ``range``: a value outside of the instrument's range;
* ``spike``: one far from the median of the cells before it (Hampel's identifier; Pearson et al. 2016, section 2, here
  with the newest cell in the place of the middle one). A step is believed when half of the cells have followed it;
* ``stuck``: one that has been the very same for longer than it should.

What holds between cells (gaps) is decided where the grid is made. Whole runs that are far from the fleet
(:func:`odd_runs`) are left out of the training alone.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
Mask = NDArray[np.bool_]
Ends = NDArray[np.float64]
"""[n, f] of the instruments' ranges; NaN: not known."""
Step = Callable[[Values, Mask, Ends, Ends], Mask]
"""The cells that it takes, of values and observed [n, f, t], by the lower and upper ends."""

_FEWEST = 3
"""Cells that a median is taken of, at least."""
_SIGMA = 1.4826
"""Standard deviations in a median absolute deviation of a normal distribution."""
_FLOOR = 0.01
"""Share of the instrument's range: what is nearer than that is no spike, however still it was before."""
_FEWEST_RUNS = 5
_ROWS = 64
"""Rows that are cleaned at a time: what bounds the memory."""


@dataclass(frozen=True, slots=True)
class Cleaning:
    """Which steps there are; as a spec has it, JSON-able."""

    range: bool = False
    spike: float = 0.0
    """How many standard deviations make a spike; 0: none does."""
    spike_cells: int = 9
    """Cells that the median is taken of, the newest among them."""
    stuck: int = 0
    """Cells after which a value that does not move is not believed; 0: never."""
    odd: float = 0.0
    """How many standard deviations from the fleet's median make a run odd; 0: none is."""
    features: tuple[str, ...] = ()
    """That are cleaned; empty: all that have no role."""

    def as_spec(self) -> dict[str, Any]:
        """The steps that do something, by name; empty: there is none."""
        if not (self.range or self.spike or self.stuck or self.odd):
            return {}
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**plain, "features": list(self.features)}

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> "Cleaning":
        """Back from :meth:`as_spec`."""
        return cls(**{**spec, "features": tuple(spec.get("features", ()))})

    def chosen(self, features: tuple[str, ...], roles: Mapping[str, str]) -> Mask:
        """[f] of the features that are cleaned."""
        own = self.features or tuple(name for name in features if name not in roles.values())
        return np.isin(features, own)


@dataclass(frozen=True, slots=True, eq=False)
class Cleaned:
    """What is left of it, and why the rest is not."""

    values: Values
    """[n, f, t]; 0 where not observed."""
    observed: Mask
    """[n, f, t]."""
    removed: Mapping[str, Mask]
    """[n, f, t] of the cells that each step took."""


def clean(steps: Cleaning, values: Values, observed: Mask, chosen: Mask, low: Ends, high: Ends) -> Cleaned:
    """``chosen`` [f]: the features that are cleaned."""
    left = observed
    removed: dict[str, Mask] = {}
    for name, found in _steps(steps):
        removed[name] = left & found(values, left, low, high) & chosen[:, None]
        left = left & ~removed[name]
    return Cleaned(np.where(left, values, np.float32(0)) if removed else values, left, removed)


def _steps(steps: Cleaning) -> Iterator[tuple[str, Step]]:
    if steps.range:
        yield "range", _outside
    if steps.spike:
        yield "spike", partial(_spikes, steps)
    if steps.stuck:
        yield "stuck", partial(_still, steps.stuck)


def _outside(values: Values, observed: Mask, low: Ends, high: Ends) -> Mask:
    found: Mask = (values < low[..., None]) | (values > high[..., None])
    return found


def _spikes(steps: Cleaning, values: Values, observed: Mask, low: Ends, high: Ends) -> Mask:
    found = np.zeros(values.shape, np.bool_)
    floor = _FLOOR * np.nan_to_num(high - low)
    for first in range(0, len(values), _ROWS):
        part = slice(first, first + _ROWS)
        found[part] = _far(steps, np.where(observed[part], values[part], np.float32(np.nan)), floor[part])
    return found


def _far(steps: Cleaning, seen: Values, floor: Ends) -> Mask:
    front = ((0, 0), (0, 0), (steps.spike_cells - 1, 0))
    room = np.pad(seen, front, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(room, steps.spike_cells, axis=-1)
    middle, count = _median(windows)
    deviation, _ = _median(np.abs(windows - middle[..., None]))
    limit = np.maximum(steps.spike * _SIGMA * deviation, floor[..., None])
    found: Mask = (np.abs(seen - middle) > limit) & (limit > 0) & (count >= _FEWEST)
    return found


def _median(windows: Values) -> tuple[Values, NDArray[np.int64]]:
    """Over the last axis without NaN, and of how many; NaN of none."""
    ordered = np.sort(windows, axis=-1)  # NaN last
    count = np.isfinite(ordered).sum(-1)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, windows.shape[-1] - 1)
    first, second = (np.take_along_axis(ordered, place[..., None], -1)[..., 0] for place in (low, high))
    return np.where(count > 0, (first + second) / 2, np.float32(np.nan)), count


def _still(most: int, values: Values, observed: Mask, low: Ends, high: Ends) -> Mask:
    """More than ``most`` cells after the value was first seen as it is; cells that are not observed end nothing."""
    cells = np.arange(values.shape[-1])
    last = np.maximum.accumulate(np.where(observed, cells, -1), axis=-1)
    before = np.concatenate([np.full((*last.shape[:2], 1), -1), last[..., :-1]], axis=-1)
    previous = np.take_along_axis(values, np.maximum(before, 0), axis=-1)
    moved = observed & ((before < 0) | (values != previous))
    since = np.maximum.accumulate(np.where(moved, cells, 0), axis=-1)
    found: Mask = observed & (cells - since > most)
    return found


def odd_runs(
    steps: Cleaning, values: Values, observed: Mask, group: NDArray[np.int32], chosen: Mask
) -> dict[int, list[int]]:
    """Groups one of whose features has a median far from that of all groups, and which features [f] those are.

    Compared in the fleet's own median absolute deviation; fewer than five groups are no fleet, and show nothing.
    """
    names = np.unique(group)
    if not steps.odd or len(names) < _FEWEST_RUNS:
        return {}
    seen = np.where(observed, values, np.float32(np.nan))
    level = np.stack([_median(np.swapaxes(seen[group == name], 0, 1).reshape(seen.shape[1], -1))[0] for name in names])
    middle, _ = _median(level.T)
    deviation, _ = _median(np.abs(level - middle).T)
    far = (np.abs(level - middle) > steps.odd * _SIGMA * deviation) & (deviation > 0) & chosen
    return {int(name): np.flatnonzero(row).tolist() for name, row in zip(names, far, strict=True) if row.any()}
