"""Operating conditions: what a machine is asked for (load, altitude, product) moves its sensors more than wear does.

Cells are grouped by their settings (k-means, Lloyd 1982), as far as the settings do come in groups, and every group has
a mean and a deviation of its own for each feature. How many groups there are is what the data say; the arrays always
have room for the same number, and places that are not used stand at infinity.
"""

import re
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

from models import cells
from models.kind import Params, Spec

_ROLE = re.compile(r"setting_([1-9]\d*)")
_CELLS = 8000
"""A random choice of so many shows the groups as well as all cells do."""
_ROUNDS = 50
_TAIL = 0.001
"""Share of cells at either end of a setting that may be spikes, and found no group."""
_DROP = 10.0
"""One group more leaves a tenth of the variance: they are groups. Where there are none it leaves a quarter at best."""
_LEFT = 0.01
"""Share of the variance that groups leave, at most."""
_FEW = 50
"""Cells that a group needs for a mean and a deviation of its own."""


def settings(spec: Spec) -> tuple[int, ...]:
    """Positions of the features in the roles ``setting_1``, ``setting_2``, …; ValueError: a role that is none."""
    numbered = {}
    for role, feature in spec.roles.items():
        if not role.startswith("setting"):
            continue
        if (match := _ROLE.fullmatch(role)) is None:
            raise ValueError(f"roles: {role!r} is no role of {spec.kind}: settings are setting_1, setting_2, …")
        others = [other for other, name in spec.roles.items() if name == feature and other != role]
        if others:
            raise ValueError(f"roles.{role} = {feature!r}: is in the role {others[0]!r} already")
        numbered[int(match[1])] = spec.features.index(feature)
    return tuple(numbered[number] for number in sorted(numbered))


def unlearnt(count: int, chosen: Sequence[int], features: int) -> Params:
    """What :func:`learnt` gives before there are data."""
    return {"conditions": _nowhere(count, len(chosen)), "scale": _everywhere(cells.unscaled(features), count)}


def _nowhere(count: int, chosen: int) -> dict[str, NDArray[np.float32]]:
    return {**cells.unscaled(chosen), "centres": np.full((count, chosen), np.inf, np.float32)}


def _everywhere(scale: Mapping[str, NDArray[np.float32]], count: int) -> dict[str, NDArray[np.float32]]:
    return {name: np.tile(row, (count, 1)) for name, row in scale.items()}


def learnt(
    values: NDArray[np.float32],
    observed: NDArray[np.bool_],
    chosen: Sequence[int],
    common: Sequence[int],
    count: int,
    seed: int,
) -> Params:
    """Conditions and scales of values [n, f, t].

    ``conditions``: mean and scale of the settings [s] and, in standard deviations, ``centres`` [count, s]; ``scale``:
    mean and scale in each condition [count, f].
    ``chosen`` are the settings. They and the features ``common`` have one scale in all conditions.
    """
    conditions = _conditions(values[:, chosen], observed[:, chosen], count, seed)
    whole = cells.scale(values, observed)
    scales = _everywhere(whole, count)
    own = np.setdiff1d(np.arange(values.shape[1]), [*chosen, *common])
    found, known = jax.device_get(jax.jit(regime)(conditions, values[:, chosen], observed[:, chosen]))
    for place in np.flatnonzero(np.isfinite(conditions["centres"]).all(-1)):
        here = observed & (known & (found == place))[:, None]
        for name, row in _own(values, here, whole).items():
            scales[name][place, own] = row[own]
    return {"conditions": conditions, "scale": scales}


def _own(
    values: NDArray[np.float32], here: NDArray[np.bool_], whole: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """Mean and deviation of the cells ``here``; of too few, both of the whole; of a constant, the whole's deviation."""
    mean, scale = cells.scale(values, here).values()
    enough = here.sum((0, 2)) >= _FEW
    return {
        "mean": np.where(enough, mean, whole["mean"]),
        # A constant has scale 1 (see cells.scale): here it says that this condition leaves the feature no room.
        "scale": np.where(enough & (scale != 1.0), scale, whole["scale"]),
    }


def regime(conditions: Mapping[str, ArrayLike], values: jax.Array, observed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Nearest centre [n, t] by settings [n, s, t], and whether it is known.

    Where a setting is missing, it is known if the others tell it from the next one. With one condition it always is.
    """
    mean, scale, centres = (jnp.asarray(conditions[name]) for name in ("mean", "scale", "centres"))
    used = jnp.isfinite(centres).all(-1)
    units = (values - mean[:, None]) / scale[:, None]
    apart = units[:, None] - jnp.where(used[:, None], centres, 0.0)[None, :, :, None]
    distance = jnp.sum(jnp.where(observed[:, None], apart**2, 0.0), 2)
    distance = jnp.where(used[:, None], distance, jnp.inf)
    nearest = jnp.argmin(distance, 1)
    first = jnp.min(distance, 1)
    others = jnp.arange(len(centres))[:, None] != nearest[:, None]
    second = jnp.min(jnp.where(others, distance, jnp.inf), 1)
    # A tenth of a standard deviation apart, and twice as near.
    return nearest, observed.all(1) | (4.0 * first + 0.01 < second)


def scaled(
    learnt: Params, values: jax.Array, observed: jax.Array, chosen: Sequence[int], limit: float
) -> tuple[jax.Array, jax.Array]:
    """As :func:`models.cells.scaled`, by condition; and where the condition is known [n, t]."""
    place = np.array(chosen)
    found, known = regime(learnt["conditions"], values[:, place], observed[:, place])
    mean, scale = (jnp.swapaxes(jnp.asarray(learnt["scale"][name])[found], 1, 2) for name in ("mean", "scale"))
    return jnp.where(observed & known[:, None], jnp.clip((values - mean) / scale, -limit, limit), 0.0), known


def _conditions(
    values: NDArray[np.float32], observed: NDArray[np.bool_], count: int, seed: int
) -> dict[str, NDArray[np.float32]]:
    """Of settings [n, s, t]; one condition where the settings come in no groups, or there are no cells to tell."""
    conditions = _nowhere(count, values.shape[1])
    complete = np.moveaxis(values, 1, -1)[observed.all(1)].astype(np.float64)
    if len(complete) > _CELLS:
        complete = complete[np.random.default_rng(seed).choice(len(complete), _CELLS, replace=False)]
    conditions["centres"][0] = 0.0
    if len(complete) < 2 * _FEW:
        return conditions
    complete = np.clip(complete, *np.quantile(complete, [_TAIL, 1.0 - _TAIL], axis=0, method="nearest"))
    conditions |= cells.scale(complete.T[None].astype(np.float32), np.ones((1, *complete.T.shape), bool))
    units = (complete - conditions["mean"]) / conditions["scale"]
    centres = _groups(units, count)
    conditions["centres"][: len(centres)] = centres
    return conditions


def _groups(units: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Centres of the groups that points [n, s] come in, at most ``most``; of no groups, the one of all points."""
    tried = [_kmeans(units, count) for count in range(1, most + 1)]
    left = np.array([_nearest(units, centres)[1].mean() for centres in tried])
    if left[0] <= 0.0:
        return tried[0]
    left = np.maximum(left / left[0], 1e-9)
    drop = np.where(left[1:] <= _LEFT, left[:-1] / left[1:], 0.0)
    return tried[1 + int(drop.argmax())] if drop.max(initial=0.0) >= _DROP else tried[0]


def _kmeans(points: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Centres [count, s], from the points that are farthest from those before (Gonzalez 1985)."""
    centres: NDArray[np.float64] = points[_nearest(points, points.mean(0, keepdims=True))[1].argmax()][None]
    while len(centres) < count:
        centres = np.vstack([centres, points[_nearest(points, centres)[1].argmax()]])
    for _ in range(_ROUNDS):
        nearest, _ = _nearest(points, centres)
        # A centre that nothing is nearest to stays where it is.
        moved = np.stack([points[nearest == k].mean(0) if (nearest == k).any() else centres[k] for k in range(count)])
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def _nearest(points: NDArray[np.float64], centres: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Which centre is nearest, and its squared distance."""
    distance = ((points[:, None] - centres) ** 2).sum(-1)
    return distance.argmin(1), distance.min(1)
