"""Early stopping: of each member the weights that were best on what it does not learn from, and an end once none gets
better (Prechelt 1998).

The rate falls to nothing at the last step, and with it the loss: most of the time the last weights are the best ones,
and a patience of a few steps ends a training that had only come to its slow part. It is for trainings with far more
steps than their data can feed. What is looked at here is looked at again when intervals are calibrated: with few units
held out they come out a little too narrow.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models.kind import Params

_EVERY = 20
"""Steps between two looks."""
_DRAWS = 8
"""Random draws of the loss that a look takes the mean of, the same ones at each: so that looks can be compared."""


class Best(NamedTuple):
    """So far, by member."""

    weights: Params
    loss: jax.Array
    """[members]"""
    waited: jax.Array
    """[members] steps since then."""


class Watch:
    """Over one descent."""

    def __init__(self, loss: Any, patience: int, key: jax.Array, shared: Any, held: Any) -> None:
        """``loss`` as of a descent; ``held``: what each member does not learn from, in the form of what it does."""
        self._patience = patience
        self._draws = jax.random.split(jax.random.fold_in(key, patience), _DRAWS)
        self._look = jax.jit(partial(_looked, loss))
        self._data = jax.device_put((shared, held))

    def begin(self, weights: Params) -> Best:
        """Nothing was seen yet."""
        members = jax.tree.leaves(weights)[0].shape[0]
        return Best(weights, jnp.full(members, jnp.inf), jnp.zeros(members, jnp.int32))

    def look(self, best: Best, weights: Params, step: int, *, last: bool) -> Best:
        """At the weights after ``step``, when it is time to."""
        if step % _EVERY and not last:
            return best
        found: Best = self._look(best, weights, self._draws, *self._data)
        return found

    def over(self, best: Best) -> bool:
        """No member got better for as long as one is patient."""
        return bool(np.asarray(best.waited).min() >= self._patience)


def _looked(loss: Any, best: Best, weights: Params, draws: jax.Array, shared: Any, held: Any) -> Best:
    def member(weights: Params, held: Any) -> jax.Array:
        every: jax.Array = jax.lax.map(lambda key: loss(weights, key, shared, held), draws)
        return every.mean()

    now = jax.vmap(member)(weights, held)
    better = now < best.loss

    def chosen(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    kept = jax.tree.map(chosen, weights, best.weights)
    return Best(kept, jnp.minimum(now, best.loss), jnp.where(better, 0, best.waited + _EVERY))
