"""Arithmetic over the cells of windows where some are not observed; all of it causal and jittable.

Time is the last axis, oldest first. Cells that are not observed, padding in front among them, change no result.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

BASELINE_CELLS = 20
"""A unit's own start: this many observed cells (Saxena's C-MAPSS units show no wear in their first 20 cycles)."""


_SUMMED = 16
"""Cells of a block of a running sum."""


def last_seen(seen: jax.Array) -> jax.Array:
    """Index of the newest observed cell at or before each cell; -1 where there is none."""
    return jax.lax.cummax(jnp.where(seen, jnp.arange(seen.shape[-1]), -1), axis=seen.ndim - 1)


def since_reset(age: jax.Array, seen: jax.Array) -> jax.Array:
    """True from the newest overhaul on: the last observed cell of [n, t] whose ``age`` is below the one before it."""
    before = jnp.pad(last_seen(seen)[..., :-1], [(0, 0)] * (seen.ndim - 1) + [(1, 0)], constant_values=-1)
    previous = jnp.take_along_axis(age, jnp.maximum(before, 0), axis=-1)
    reset = seen & (before >= 0) & (age < previous)
    cells = jnp.arange(seen.shape[-1])
    return cells >= jnp.max(jnp.where(reset, cells, 0), axis=-1, keepdims=True)


def own_start(values: jax.Array, observed: jax.Array) -> jax.Array:
    """Mean over the first :data:`BASELINE_CELLS` observed cells of each series, as far as they are known by then."""
    count = _running_sum(observed)
    weight = observed & (count <= BASELINE_CELLS)
    return _running_sum(jnp.where(weight, values, 0.0)) / jnp.clip(count, 1.0, BASELINE_CELLS)


def _running_sum(series: jax.Array) -> jax.Array:
    """``cumsum`` in float32, within blocks by one matrix product: twice as fast on a processor."""
    blocks = -(-series.shape[-1] // _SUMMED)
    padding = [(0, 0)] * (series.ndim - 1) + [(0, blocks * _SUMMED - series.shape[-1])]
    split = jnp.pad(series.astype(jnp.float32), padding).reshape(*series.shape[:-1], blocks, _SUMMED)
    within = jnp.matmul(split, np.triu(np.ones((_SUMMED, _SUMMED), np.float32)), precision="highest")
    before = jnp.cumsum(within[..., -1], -1) - within[..., -1]
    sums: jax.Array = (within + before[..., None]).reshape(*series.shape[:-1], -1)
    return sums[..., : series.shape[-1]]


def moving_mean(
    values: jax.Array, observed: jax.Array, cells: int, last: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Mean over the observed among the last ``cells`` cells, and whether there was any; ``last``: at so many alone."""
    place = np.arange(values.shape[-1])
    lag = place[slice(0 if last is None else -last, None), None] - place
    band = jnp.asarray((lag >= 0) & (lag < cells), jnp.float32).T
    count = observed.astype(jnp.float32) @ band
    total = jnp.matmul(jnp.where(observed, values, 0.0), band, precision="highest")
    return total / jnp.maximum(count, 1.0), count > 0


def held(values: jax.Array, observed: jax.Array, cells: int) -> tuple[jax.Array, jax.Array]:
    """Last observed value, no older than ``cells`` cells, and whether there is one."""
    index = last_seen(observed)
    fresh = (index >= 0) & (jnp.arange(values.shape[-1]) - index <= cells)
    return jnp.where(fresh, jnp.take_along_axis(values, jnp.maximum(index, 0), axis=-1), 0.0), fresh


def running_bias(residual: jax.Array, known: jax.Array, alpha: float) -> jax.Array:
    """EWMA of the known residuals after each cell, first residual with full weight; 0 before it. Shapes [..., t].

    b_k = Σ_{i≤k} (1-a)^(k-i) r_i / Σ_{i≤k} (1-a)^(k-i) over the known cells i, a = ``alpha``: decay is per label, not
    per cell. Prefix sums of a linear recurrence: log2(t) parallel steps, and no overflow however many labels there are.
    """
    decay = jnp.where(known, 1.0 - alpha, 1.0)
    pairs = jnp.stack([jnp.where(known, residual, 0.0), known.astype(jnp.float32)])
    sums = recurrence(jnp.broadcast_to(decay, pairs.shape), pairs)
    return jnp.where(sums[1] > 0, sums[0] / jnp.maximum(sums[1], 1e-6), 0.0)


def recurrence(decay: jax.Array, inputs: jax.Array, axis: int = -1) -> jax.Array:
    """s_k = decay_k · s_{k-1} + inputs_k along an axis, from s_0 = 0 (Blelloch 1990, section 1.4)."""

    def combine(left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return left[0] * right[0], right[0] * left[1] + right[1]

    sums: jax.Array = jax.lax.associative_scan(combine, (decay, inputs), axis=axis % inputs.ndim)[1]
    return sums


def shifted(series: jax.Array, cells: ArrayLike, fill: float) -> jax.Array:
    """The series as it was ``cells`` (broadcast over all but the last axis) earlier; ``fill`` before its start."""
    source = jnp.arange(series.shape[-1]) - jnp.asarray(cells)
    moved = jnp.take_along_axis(series, jnp.broadcast_to(jnp.maximum(source, 0), series.shape), axis=-1)
    return jnp.where(source >= 0, moved, fill)


def scale(values: NDArray[np.float32], observed: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
    """Mean and standard deviation [f] over the observed cells of [n, f, t]; a constant feature has scale 1."""
    count = np.maximum(observed.sum((0, 2)), 1)
    mean = np.where(observed, values, 0.0).sum((0, 2), dtype=np.float64) / count
    spread = np.where(observed, values - mean[:, None], 0.0)
    deviation = np.sqrt((spread**2).sum((0, 2)) / count)
    constant = deviation <= 1e-5 * np.maximum(np.abs(mean), 1e-3)
    return {"mean": mean.astype(np.float32), "scale": np.where(constant, 1.0, deviation).astype(np.float32)}


def unscaled(features: int) -> dict[str, NDArray[np.float32]]:
    """What :func:`scale` gives before there are data."""
    return {"mean": np.zeros(features, np.float32), "scale": np.ones(features, np.float32)}


def scaled(scale: Mapping[str, ArrayLike], values: jax.Array, observed: jax.Array, limit: float) -> jax.Array:
    """Values [n, f, t] in standard deviations, clipped to ``limit`` (a spike is a fault, not a far state); else 0."""
    mean, deviation = jnp.asarray(scale["mean"])[:, None], jnp.asarray(scale["scale"])[:, None]
    return jnp.where(observed, jnp.clip((values - mean) / deviation, -limit, limit), 0.0)
