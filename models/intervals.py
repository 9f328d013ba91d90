"""How wide an interval has to be, from errors that are known by now; and how much of it lies beyond a limit.

Jittable. Time is the last axis, oldest first; what is not judged changes no result.
"""

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jax.typing import ArrayLike

_DEVIATIONS = 1.6449
"""From the middle of a normal distribution to its 95 % quantile."""


def adaptive_misses(
    error: jax.Array, judged: jax.Array, late: jax.Array, misses: float, rate: float, fewest: int
) -> jax.Array:
    """The share of misses [n] to aim at now, so that in the long run ``misses`` of the errors [n, t] lie outside.

    Adaptive conformal inference (Gibbs & Candès 2021, equation 2): each error is compared with the interval that would
    have stood then; after a miss the next ones are wider by ``rate``, after a hit a little narrower. An error is known
    ``late`` [n, 1] cells after its own, both to the quantiles and to the aim. It begins at ``misses``, and moves once
    ``fewest`` errors are known. 0 means as wide as the largest error.
    """
    cells = jnp.arange(error.shape[-1])
    known = cells[None, None, :] <= (cells[None, :] - jnp.maximum(late, 1))[..., None]
    known = known & judged[:, None, :]
    count = known.sum(-1)
    smaller = (known & (error[:, None, :] < error[:, :, None])).sum(-1)
    # 0 in the middle of the errors known then, 1 at either end: outside wherever it exceeds 1 − misses.
    extreme = jnp.abs(2.0 * (smaller + 0.5) / (count + 1.0) - 1.0)
    counted = judged & (count >= fewest)

    def step(aims: jax.Array, cell: jax.Array) -> tuple[jax.Array, None]:
        then = jnp.take_along_axis(aims, jnp.maximum(cell - late, 0), axis=-1)[:, 0]
        before = jax.lax.dynamic_index_in_dim(aims, cell, 1, keepdims=False)
        here, missed = (jax.lax.dynamic_index_in_dim(each, cell, 1, keepdims=False) for each in (counted, extreme))
        moved = jnp.clip(before + rate * (misses - (missed > 1.0 - then)), 0.0, 0.5)
        return jax.lax.dynamic_update_index_in_dim(aims, jnp.where(here, moved, before), cell + 1, 1), None

    aims = jnp.full((error.shape[0], error.shape[1] + 1), misses)
    aims, _ = jax.lax.scan(step, aims, cells)
    return aims[:, -1]


def quantile(scores: jax.Array, chosen: jax.Array, level: ArrayLike) -> jax.Array:
    """Conformal quantile over the chosen of the last axis: the ⌈(k+1)·level⌉-th smallest of k, or the largest."""
    ordered = jnp.sort(jnp.where(chosen, scores, jnp.inf), axis=-1)
    count = chosen.sum(-1)
    rank = jnp.clip(jnp.ceil((count + 1) * jnp.asarray(level)).astype(jnp.int32), 1, jnp.maximum(count, 1)) - 1
    found: jax.Array = jnp.take_along_axis(ordered, rank[..., None], axis=-1)[..., 0]
    return found


def share_below(limit: ArrayLike, low: jax.Array, middle: jax.Array, high: jax.Array) -> jax.Array:
    """P(x ≤ limit) of the split normal (Wallis 2014) with these quantiles of 5, 50 and 95 %."""
    spread = jnp.where(limit < middle, middle - low, high - middle) / _DEVIATIONS
    # A side without any width, as where no error lay there, still is a slope.
    share: jax.Array = norm.cdf((limit - middle) / (jnp.maximum(spread, 1e-3 * (high - low)) + 1e-30))
    return share
