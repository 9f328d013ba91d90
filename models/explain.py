"""What made an estimate what it is: how it would change if some features were as they are while all is well.

How they would be is the unit's own start, under the same settings, where the window holds more than that start;
else the mean of the training data. Two ways from there, both over groups of features:

* occlusion: by how much the estimate moves when one group alone is put back to its start, and when it alone has left
  it; the mean of both, as features that say the same stand in for each other (the two ends of Shapley's sum, 1953);
* integrated gradients along the line from the start to the window (Sundararajan et al. 2017, equation 1).

A kind that can say it exactly (:class:`models.kind.Contributing`) is asked instead. Whether an explanation is worth
anything is told by its deletion curve (Samek et al. 2017): putting back what it names first should undo the most.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from models import light, regimes
from models.cells import BASELINE_CELLS, since_reset
from models.kind import Contributing, ModelKind, Params, Spec

Read = Callable[[jax.Array, jax.Array], jax.Array]
"""One output [n] of windows, values and observed [n, f, t]."""
Way = Callable[[Read, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""Effects [n, g] of values, observed, baseline [n, f, t] and masks [g, f]."""

_ALIKE = 1e-3
"""Square of a difference between settings, as a share of their range, from which on they count as others."""
_STEPS = 16
"""Of the integral."""
_AT_ONCE = 8
"""Groups in one batch: what bounds the memory."""


def masks(spec: Spec, groups: Mapping[str, Sequence[str]]) -> dict[str, NDArray[np.bool_]]:
    """[f] of each group by its name; a feature that is in none is a group of its own."""
    grouped = {feature for features in groups.values() for feature in features}
    alone = {feature: (feature,) for feature in spec.features if feature not in grouped}
    return {name: np.isin(spec.features, list(own)) for name, own in {**groups, **alone}.items()}


def healthy(spec: Spec, means: jax.Array, values: jax.Array, observed: jax.Array) -> jax.Array:
    """[n, f, t] what each cell would show while all is well; ``means`` [f] of the training data.

    A unit's own start are its first :data:`models.cells.BASELINE_CELLS` cells since its overhaul that have an age.
    """
    usual = jnp.broadcast_to(jnp.nan_to_num(means)[:, None], values.shape)
    if "age" not in spec.roles or values.shape[2] <= BASELINE_CELLS:
        return usual
    age = spec.index("age")
    there = observed[:, age] & since_reset(values[:, age], observed[:, age])
    first = jnp.argsort(~there, axis=-1, stable=True)[:, None, :BASELINE_CELLS]
    start = jnp.take_along_axis(values, first, axis=2)
    known = jnp.take_along_axis(observed & there[:, None], first, axis=2).astype(jnp.float32)
    weight = _alike(spec, values, observed, first)
    total = jnp.einsum("nts,nfs->nft", weight, known)
    mean = jnp.einsum("nts,nfs->nft", weight, start * known, precision="highest") / jnp.maximum(total, 1e-12)
    enough = (there.sum(-1) > BASELINE_CELLS)[:, None, None]
    return jnp.where(enough & (total > 0), mean, usual)


def _alike(spec: Spec, values: jax.Array, observed: jax.Array, first: jax.Array) -> jax.Array:
    """[n, t, start]: weights of the cells of the start for each cell, those under the same settings alone."""
    settings = list(regimes.settings(spec))
    if not settings:  # what follows would be constants, which the compiler computes for seconds, and says so on stderr
        return jnp.full((values.shape[0], values.shape[2], first.shape[2]), 1.0 / first.shape[2])
    asked = jnp.where(observed, values, 0.0)[:, settings]
    there = jnp.take_along_axis(asked, first, axis=2)
    spread = jnp.maximum(jnp.ptp(asked, axis=2, keepdims=True), 1e-6)
    away = jnp.square((asked[..., None] - there[:, :, None]) / spread[..., None]).sum(1)
    return jax.nn.softmax(-away / _ALIKE, axis=-1)


def occlusion(read: Read, values: jax.Array, observed: jax.Array, base: jax.Array, groups: jax.Array) -> jax.Array:
    """See :data:`Way` and the module; in the output's unit."""
    nothing, everything = jnp.zeros_like(groups[:1]), jnp.ones_like(groups[:1])
    put_back = jnp.concatenate([nothing, everything, groups, ~groups])
    room = -len(put_back) % _AT_ONCE  # whole batches alone: what is left over would be compiled a second time
    put_back = jnp.pad(put_back, ((0, room), (0, 0)))

    def changed(group: jax.Array) -> jax.Array:
        return read(jnp.where(group[:, None], base, values), observed)

    found = jax.lax.map(changed, put_back, batch_size=_AT_ONCE)
    whole, none, without, alone = found[0], found[1], found[2 : 2 + len(groups)], found[2 + len(groups) :]
    effect: jax.Array = ((whole - without) + (alone[: len(groups)] - none)).T / 2
    return effect


def integrated_gradients(
    read: Read, values: jax.Array, observed: jax.Array, base: jax.Array, groups: jax.Array
) -> jax.Array:
    """See :data:`Way` and the module; over all groups it sums to the estimate minus that of the baseline."""
    gradient = jax.grad(lambda x: jnp.nan_to_num(read(x, observed)).sum())

    def step(total: jax.Array, share: jax.Array) -> tuple[jax.Array, None]:
        return total + jnp.nan_to_num(gradient(base + share * (values - base))), None

    shares = (jnp.arange(_STEPS) + 0.5) / _STEPS
    total, _ = jax.lax.scan(step, jnp.zeros_like(values), shares)
    by_feature = jnp.where(observed, (values - base) * total / _STEPS, 0.0).sum(-1)
    return by_feature @ groups.T.astype(by_feature.dtype)


def shares(effects: jax.Array, worse: float) -> jax.Array:
    """Effects [n, g] as shares that sum to 1, of those that made it worse; NaN where nothing has any effect.

    ``worse``: -1 where a small value is bad, 1 where a large one is.
    """
    part = jnp.maximum(worse * effects, 0.0)
    part = jnp.where(part.sum(-1, keepdims=True) > 0, part, jnp.abs(effects))
    total = part.sum(-1, keepdims=True)
    return jnp.where(total > 0, part / total, jnp.nan)


def deletion(
    read: Read, values: jax.Array, observed: jax.Array, base: jax.Array, groups: jax.Array, order: jax.Array
) -> jax.Array:
    """[n, g + 1] what is left of the difference to the baseline as groups are put back, ``order`` [n, g] first first.

    From 1 to 0; the mean over its points is the area under the curve, the smaller the better the order.
    """
    whole, none = read(values, observed), read(base, observed)
    taken = jnp.zeros((len(values), groups.shape[1]), bool)

    def step(taken: jax.Array, group: jax.Array) -> tuple[jax.Array, jax.Array]:
        taken = taken | jnp.asarray(groups)[group]
        return taken, read(jnp.where(taken[..., None], base, values), observed)

    _, left = jax.lax.scan(step, taken, order.T)
    return jnp.concatenate([whole[None], left]).T / (whole - none)[:, None] - (none / (whole - none))[:, None]


def importance(effects: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """[g] of a model as a whole: shares of the mean absolute effect over many windows [n, g]; NaN rows left out."""
    size = np.nanmean(np.abs(effects), axis=0)
    found: NDArray[np.floating[Any]] = size / max(size.sum(), 1e-12)
    return found


class Explainer:
    """One output of one model version, on one device. Not thread-safe: it belongs to the device's thread."""

    def __init__(
        self,
        kind: ModelKind,
        spec: Spec,
        params: Params,
        output: str,
        *,
        groups: Mapping[str, Sequence[str]],
        means: Sequence[float],
        way: Way = occlusion,
        device: jax.Device | None = None,
    ) -> None:
        """``groups``: features by the name of their group; ``means`` [f] of the training data."""
        by_name = masks(spec, groups)
        self.groups = tuple(by_name)
        """The group axis."""
        self.spec = spec
        self._params, self._masks, self._means = jax.device_put(
            (light.unpacked(params), np.stack(list(by_name.values())), np.asarray(means, np.float32)), device
        )
        self._effects = jax.jit(partial(effects, kind, spec, output, way))
        self._rows = 0

    def warm(self, rows: int) -> None:
        """Compile for so many windows, which are then taken at a time, whether there are as many or not."""
        self._rows = rows
        shape = (rows, len(self.spec.features), self.spec.length)
        self.effects(np.zeros(shape, np.float32), np.ones(shape, bool))

    def effects(self, values: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
        """[n, g] in the output's unit (of a score: shares of it) for windows [n, f, t]."""
        rows = self._rows or len(values)
        parts = [
            self._program(values[first : first + rows], observed[first : first + rows], rows)
            for first in range(0, len(values), rows)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.groups)), np.float32)

    def _program(self, values: NDArray[np.float32], observed: NDArray[np.bool_], rows: int) -> NDArray[np.float32]:
        n, _, t = values.shape
        room = ((0, rows - n), (0, 0), (self.spec.length - t, 0))
        found = self._effects(self._params, self._masks, self._means, np.pad(values, room), np.pad(observed, room))
        return np.asarray(found)[:n]

    def shares(self, values: NDArray[np.float32], observed: NDArray[np.bool_], worse: float) -> list[dict[str, float]]:
        """Per window the groups and their shares, largest first; empty where nothing has any effect."""
        found = np.asarray(shares(jnp.asarray(self.effects(values, observed)), worse), np.float64)
        return [
            {} if np.isnan(row).any() else {self.groups[g]: float(row[g]) for g in np.argsort(-row, kind="stable")}
            for row in found
        ]

    def importance(self, values: NDArray[np.float32], observed: NDArray[np.bool_]) -> dict[str, float]:
        """The groups and their shares over many windows, largest first; empty where nothing has any effect."""
        found = self.effects(values, observed)
        found = found[np.isfinite(found).all(1)]
        shares = importance(found) if len(found) else np.zeros(len(self.groups))
        return {self.groups[g]: float(shares[g]) for g in np.argsort(-shares, kind="stable")} if shares.any() else {}


def effects(
    kind: ModelKind,
    spec: Spec,
    output: str,
    way: Way,
    params: Params,
    groups: jax.Array,
    means: jax.Array,
    values: jax.Array,
    observed: jax.Array,
) -> jax.Array:
    """[n, g] of one output of a kind; a score's come from the kind itself where it can say."""
    params = light.widened(params)
    if output == "score" and isinstance(kind, Contributing):
        own = kind.contributions(spec, params, values, observed)
        return own @ groups.T.astype(own.dtype)

    def read(values: jax.Array, observed: jax.Array) -> jax.Array:
        return kind.predict(spec, params, values, observed)[output].value

    return way(read, values, observed, healthy(spec, means, values, observed), groups)
