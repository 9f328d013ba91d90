"""What a model of remaining useful life reads: each cell for the network, and a row that sums up the past for trees.

Features are in standard deviations of the fleet or, where some are in the roles ``setting_1``, ``setting_2``, …, of the
operating condition of their cell (see :mod:`models.regimes`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

from models import cells, regimes
from models.kind import Params, Spec, TrainingData

_LIMIT = 5.0
_SHORT = 10
"""Cells of the mean that stands for now."""
_LONG = (30, 100)
"""Cells of the means that it is compared with."""


class Life(NamedTuple):
    """Windows as they are seen up to each cell, features apart."""

    units: jax.Array
    """[n, f, t] in standard deviations; 0 where not observed."""
    observed: jax.Array
    """[n, f, t]."""
    start: jax.Array
    """[n, f, t] the unit's own start, as far as it is known by then."""
    there: jax.Array
    """[n, t] which cells are there."""


def life(spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> Life:
    """A cell without an age is not there, nor is one before the last overhaul or of an unknown operating condition."""
    age = spec.index("age")
    there = observed[:, age] & (observed.sum(1) > 1)
    there = there & cells.since_reset(values[:, age], there)
    units, observed = _scaled(spec, params, values, observed & there[:, None])
    return Life(units, observed, cells.own_start(units, observed), there & observed[:, age])


def sequence(spec: Spec, seen: Life) -> jax.Array:
    """What the network reads at each cell, [n, t, 2f + 2].

    All features scaled; those features minus their own start (for ``age``: the age when the unit was first seen); the
    share of the own start that is known; and the share of features observed.
    """
    age, (units, observed, start, there) = spec.index("age"), seen
    left = jnp.where(observed, units - start, 0.0)
    counted = jnp.cumsum(there, -1)
    first = jnp.take_along_axis(units[:, age], jnp.argmax(there, -1)[:, None], -1)
    left = left.at[:, age].set(jnp.where(there, first, 0.0))
    known = jnp.where(there, jnp.minimum(counted, cells.BASELINE_CELLS) / cells.BASELINE_CELLS, 0.0)
    extra = jnp.stack([known, observed.mean(1)], 1)
    return jnp.swapaxes(jnp.concatenate([units, left, extra], 1), 1, 2)


def summary(seen: Life, last: int) -> jax.Array:
    """What the trees are asked about at each of the ``last`` cells, [n, last, 4f].

    The mean of each feature's last cells, and how far it is from the means of more of them and from its own start; 0
    where nothing was observed.
    """
    short, there = cells.moving_mean(seen.units, seen.observed, _SHORT, last)
    means = [cells.moving_mean(seen.units, seen.observed, count, last)[0] for count in _LONG]
    apart = [jnp.where(there, short - mean, 0.0) for mean in (*means, seen.start[..., -last:])]
    return jnp.swapaxes(jnp.concatenate([short, *apart], 1), 1, 2)


def summaries(
    spec: Spec, params: Params, values: ArrayLike, observed: ArrayLike, ends: NDArray[np.intp]
) -> NDArray[np.float32]:
    """:func:`summary` at some cells [n, k] of each window: [n, k, 4f]. One window at a time: they may be many."""

    def one(window: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        values, observed, end = window
        return summary(life(spec, params, values[None], observed[None]), values.shape[-1])[0, end]

    program = jax.jit(lambda *windows: jax.lax.map(one, windows))
    return np.asarray(program(values, observed, ends))


def unlearnt(spec: Spec, conditions: int) -> Params:
    """What :func:`learnt` gives before there are data."""
    if not (settings := regimes.settings(spec)):
        return {"scale": cells.unscaled(len(spec.features))}
    return regimes.unlearnt(conditions, settings, len(spec.features))


def learnt(spec: Spec, conditions: int, data: TrainingData) -> Params:
    """Scales, and with settings at most so many operating conditions."""
    if not (settings := regimes.settings(spec)):
        return {"scale": cells.scale(data.values, data.observed)}
    common = (spec.index("age"),)
    return regimes.learnt(data.values, data.observed, settings, common, conditions, spec.seed)


def _scaled(spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """In standard deviations, and what is observed: nothing in a cell whose condition is not known."""
    if not (settings := regimes.settings(spec)):
        return cells.scaled(params["scale"], values, observed, _LIMIT), observed
    units, known = regimes.scaled(params, values, observed, settings, _LIMIT)
    return units, observed & known[:, None]
