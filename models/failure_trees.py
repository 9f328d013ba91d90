"""Boosted trees of a classifier: a forest for each fold of the groups that was held out, asked about single cells.

They are fitted to 0 and 1 by squared error, so that a leaf says how often it happens.
"""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from models import boosted
from models.kind import Params, Progress

_BINS = 128
"""A limit that machines fail at is far narrower than what bins of a thirtieth of the rows tell apart."""
_GROWN_FROM = 20_000
"""Cells, at most."""
_RARE = 0.01
"""Trees that are fitted by squared error do not know a probability better than that."""


def ungrown(forests: int, trees: int) -> Params:
    """What :func:`grown` gives before there are data."""
    return boosted.stacked([boosted.ungrown(trees)] * forests)


def grown(
    asked: NDArray[np.float32],
    target: NDArray[np.float32],
    fold: NDArray[np.int32],
    forests: int,
    trees: int,
    seed: int,
    progress: Progress,
) -> Params:
    """Forests on the first axis, from cells ``asked`` [m, d] with their ``target`` and ``fold`` [m]; forest k without
    fold k."""
    if not trees:
        return ungrown(forests, trees)
    count = int(fold.max()) + 1
    chosen = np.random.default_rng(seed).permutation(len(asked))[:_GROWN_FROM]
    asked, target, fold = asked[chosen], target[chosen], fold[chosen]

    def forest(number: int) -> Params:
        used = fold != number % count
        telling = boosted.telling(progress, f"forest {number + 1} of {forests}")
        return boosted.grown(asked[used], target[used], trees, seed + number, telling, _BINS)

    return boosted.stacked([forest(number) for number in range(forests)])


def logit(trees: Params, asked: jax.Array) -> jax.Array:
    """What each forest says of cells [m, d]: [forests, m]; 0 where no tree stands in it. Jittable."""
    if not trees["input"].shape[-1]:
        return jnp.zeros((len(trees["mean"]), len(asked)))
    said = jax.vmap(boosted.told, (0, None))(trees, asked)
    return jax.scipy.special.logit(jnp.clip(said, _RARE, 1.0 - _RARE))
