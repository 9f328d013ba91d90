"""How much worse a model gets with noise, without one feature, and with inputs made to mislead it.

Pure arithmetic over a kind, its parameters, windows and the truth at their ends. Features with a role (an age, a
setting, a laboratory's answer) are left as they are: what is asked here is what a poor sensor does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from models import cells, light
from models.kind import ModelKind, Params, Spec

_STEPS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """What is put to the test."""

    kind: ModelKind
    spec: Spec
    params: Params
    output: str
    values: NDArray[np.float32]
    """[n, f, t]."""
    observed: NDArray[np.bool_]
    truth: NDArray[np.float32]
    """[n] of the output; NaN: not known."""

    @property
    def deviation(self) -> NDArray[np.float32]:
        """Of each feature [f] over the windows; 0 for one with a role, which nothing is done to."""
        roles = np.isin(self.spec.features, [*self.spec.roles.values()])
        return np.where(roles, 0.0, cells.scale(self.values, self.observed)["scale"]).astype(np.float32)


def error(case: Case) -> float:
    """Root of the mean square error, where there are truth and number; NaN where there are none."""
    return _error(case, case.values, case.observed)


def with_noise(case: Case, sigma: float, seed: int = 0) -> float:
    """The error with normal noise in every cell, of ``sigma`` standard deviations of the feature."""
    noise = np.random.default_rng(seed).normal(0.0, sigma, case.values.shape) * case.deviation[:, None]
    return _error(case, case.values + np.where(case.observed, noise, 0.0).astype(np.float32), case.observed)


def without(case: Case) -> Mapping[str, float]:
    """The error without each feature that has no role, as when its tag is dead."""
    found = {}
    for place in np.flatnonzero(case.deviation > 0):
        observed = case.observed.copy()
        observed[:, place] = False
        values = np.where(observed, case.values, np.float32(0))
        found[case.spec.features[place]] = _error(case, values, observed)
    return found


def under_attack(case: Case, epsilon: float, steps: int = _STEPS, seed: int = 0) -> float:
    """The error with the worst inputs that are found within ``epsilon`` standard deviations of each true one.

    Projected gradient ascent from a random start (Madry et al. 2018, section 2.1), in every observed cell. What it
    finds is a lower bound of the harm that can be done.
    """
    attack = jax.jit(partial(_attacked, case.kind, case.spec, case.output, steps))
    params = light.widened(light.unpacked(case.params))
    width = epsilon * case.deviation[:, None] * case.observed
    worst = attack(params, case.values, case.observed, case.truth, width, jax.random.key(seed))
    return _error(case, np.asarray(worst), case.observed)


def _attacked(
    kind: ModelKind,
    spec: Spec,
    output: str,
    steps: int,
    params: Params,
    values: jax.Array,
    observed: jax.Array,
    truth: jax.Array,
    width: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """Worst values found; the shift is sought as a share of ``width``, from -1 to 1."""

    def harm(shift: jax.Array) -> jax.Array:
        told = kind.predict(spec, params, values + width * shift, observed)[output].value
        off = jnp.where(jnp.isnan(told) | jnp.isnan(truth), 0.0, told - truth)
        return jnp.sum(off**2)

    def step(shift: jax.Array, _: None) -> tuple[jax.Array, None]:
        uphill = jnp.sign(jnp.nan_to_num(jax.grad(harm)(shift)))
        return jnp.clip(shift + 2.5 / steps * uphill, -1.0, 1.0), None

    start = jax.random.uniform(key, values.shape, minval=-1.0, maxval=1.0)
    shift, _ = jax.lax.scan(step, start, length=steps)
    return values + width * shift


def _error(case: Case, values: NDArray[np.float32], observed: NDArray[np.bool_]) -> float:
    told = light.outputs_of(case.kind, case.spec, case.params, values, observed)[case.output]
    known = ~np.isnan(told) & ~np.isnan(case.truth)
    return float(np.sqrt(np.mean((told - case.truth)[known] ** 2))) if known.any() else float("nan")
