"""What a forecast is made from: the series as it was a few cells, days and weeks ago, and the calendar to come."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from models import calendar, cells, phases
from models.kind import Spec

_LIMIT = 6.0
_RECENT = (0, 1, 2, 3, 4, 5, 6, 7, 11, 15, 23, 31, 47)
_MEANS = (4, 16)
"""Cells of the short averages; a day's stands beside them."""
_BESIDE = (0, 1, 3)
"""Cells of the other features."""
_AROUND = (-2, -1, 0, 1, 2)
"""Cells around the one a day, or a week, before."""


@dataclass(frozen=True, slots=True)
class Lags:
    """Which cells are looked at."""

    length: int
    """Of the window."""
    ahead: tuple[int, ...]
    day: int
    """Cells in a day."""
    hold: int
    """How long a value stands in for a missing one [cells]."""


def others(spec: Spec) -> NDArray[np.int64]:
    """Positions of the features that are neither the target nor of the calendar."""
    left = [n for n, name in enumerate(spec.features) if n != spec.index("target") and name not in calendar.NAMES]
    return np.array(left, np.int64)


def series(
    spec: Spec, scale: Mapping[str, Any], lags: Lags, values: jax.Array, observed: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Of [n, f, t]: the target, the others and the calendar's features, scaled, [n, t, f]; where the target is seen.

    For a missing value stands the last one, then that of the day before, then that of the week before, then the mean.
    """
    place = np.array([spec.index("target"), *others(spec)])
    own = {name: jnp.asarray(part)[place] for name, part in scale.items()}
    held, fresh = cells.held(values[:, place], observed[:, place], lags.hold)
    units = cells.scaled(own, held, fresh, _LIMIT)
    filled, known = units, fresh
    for back in (lags.day, 7 * lags.day):
        earlier, there = cells.shifted(filled, back, 0.0), cells.shifted(known, back, False)
        filled, known = jnp.where(known, filled, earlier), known | there
    dates = np.array(_dates(spec), np.int64)
    told = jnp.where(observed[:, dates], values[:, dates], 0.0)
    return jnp.swapaxes(jnp.concatenate([filled, told], 1), 1, 2), fresh[:, 0]


def _dates(spec: Spec) -> list[int]:
    return [n for n, name in enumerate(spec.features) if name in calendar.NAMES]


def table(spec: Spec, lags: Lags, rows: jax.Array, last: int) -> jax.Array:
    """What is known of each horizon at the last cells of ``rows`` [n, length + last - 1, f]: [n, last, horizon, d]."""
    past, told = _past(spec, lags, rows, last)
    dates = [phases.coming(told, lags.ahead, lags.day)] if told else []
    return jnp.concatenate([past, *dates], -1)


def plain(spec: Spec, lags: Lags, rows: jax.Array, last: int) -> jax.Array:
    """As :func:`table`, with the instant that is foretold in few columns: what trees are asked about."""
    past, told = _past(spec, lags, rows, last)
    dates = [phases.instants(told, lags.ahead, lags.day)] if told else []
    return jnp.concatenate([past[..., 1:], *dates], -1)


def _past(spec: Spec, lags: Lags, rows: jax.Array, last: int) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The table without the time to come, ones first; and the calendar's features of the present cells [n, last].

    Gathered, not put together from slices: those take the compiler minutes.
    """
    n, t = rows.shape[:2]
    now = t - last + np.arange(last)
    back = np.array([list(_back(lags, ahead)) for ahead in lags.ahead])
    seen = (back >= 0) & (back < lags.length)
    lagged = rows[:, now[:, None, None] - np.where(seen, back, 0), 0] * seen
    total = jnp.pad(jnp.cumsum(rows[..., 0], 1), ((0, 0), (1, 0)))
    spans = np.array([min(count, lags.length) for count in (*_MEANS, lags.day)])
    means = (total[:, now[:, None] + 1] - total[:, now[:, None] + 1 - spans]) / spans
    count = len(others(spec))
    beside = rows[:, np.maximum(now[:, None] - np.array(_BESIDE), 0), 1 : 1 + count].reshape(n, last, -1)
    told = {spec.features[place]: rows[:, now, 1 + count + number] for number, place in enumerate(_dates(spec))}
    common = jnp.concatenate([jnp.ones((n, last, 1)), means, beside], -1)[:, :, None]
    common = jnp.broadcast_to(common, (n, last, len(lags.ahead), common.shape[-1]))
    return jnp.concatenate([common, lagged], -1), told


def _back(lags: Lags, ahead: int) -> Iterator[int]:
    """How many cells before the window's last one; what is to come, or before the window, is not seen."""
    yield from _RECENT
    for days in range(1, 8):
        around: Sequence[int] = _AROUND if days in {1, 7} else (0,)
        yield from (days * lags.day - ahead - shift for shift in around)


def width(spec: Spec, lags: Lags) -> int:
    """The last axis of :func:`table`."""
    rows = np.zeros((1, lags.length, len(spec.features)), np.float32)
    return int(jax.eval_shape(lambda given: table(spec, lags, given, 1), rows).shape[-1])
