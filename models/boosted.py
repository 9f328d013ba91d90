"""Boosted trees as arrays: grown by NumPy, asked inside jit beside a network, and other than it in their errors.

All nodes of one depth ask the same question (oblivious trees: Prokhorenkova et al. 2018, section 4), so the answers are
the digits of the leaf's number. Each tree is fitted to what those before it left (Friedman 2001, algorithm 1 with
squared error), on histograms and on a random part of the inputs.

``input`` and ``above`` [trees · DEPTH] are the questions, ``leaf`` [trees · 2^DEPTH] the answers, ``mean`` what is said
before the first tree. They are rows, not matrices: a threshold is not to be rounded to int8 (:mod:`models.light`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from models.kind import Params, Progress

DEPTH = 4
"""Questions of a tree."""
_RATE = 0.08
"""Share of what is left that a tree may explain."""
_PART = 0.3
"""Share of the inputs that a tree chooses among."""
_PRIOR = 5.0
"""Rows that say nothing, added to each leaf."""


def ungrown(trees: int) -> Params:
    """What :func:`grown` gives before there are data."""
    return {
        "input": np.zeros(trees * DEPTH, np.int32),
        "above": np.zeros(trees * DEPTH, np.float32),
        "leaf": np.zeros(trees << DEPTH, np.float32),
        "mean": np.zeros((), np.float32),
    }


def stacked(forests: Sequence[Params]) -> Params:
    """Forests of as many trees each, on a new first axis."""
    return {name: np.stack([forest[name] for forest in forests]) for name in forests[0]}


def telling(progress: Progress, forest: str) -> Callable[[int], None]:
    """Of every fourth tree; what a progress raises ends the growth."""

    def told(tree: int) -> None:
        if tree % 4 == 0:
            progress(0.0, f"trees of {forest}: {tree}")

    return told


def grown(
    inputs: NDArray[np.float32],
    target: NDArray[np.float32],
    trees: int,
    seed: int,
    told: Callable[[int], None],
    bins: int = 32,
) -> Params:
    """From rows [n, d] and what is to be said of them [n]; ``told`` hears of each tree.

    ``bins``: how many parts of an input can be told apart.
    """
    generator = np.random.default_rng(seed)
    edges = _edges(inputs, bins)
    binned = np.stack([np.searchsorted(edge, column) for edge, column in zip(edges, inputs.T, strict=True)], 1)
    part = max(1, round(_PART * inputs.shape[1]))
    found = ungrown(trees)
    found["mean"] = np.float32(target.mean(dtype=np.float64))
    left = target.astype(np.float64) - found["mean"]
    for tree in range(trees):
        told(tree)
        chosen = generator.choice(inputs.shape[1], part, replace=False)
        node, asked = _tree(binned[:, chosen], left, bins)
        sums, counts = np.bincount(node, left, 1 << DEPTH), np.bincount(node, minlength=1 << DEPTH)
        leaf = _RATE * sums / (counts + _PRIOR)
        left -= leaf[node]
        questions = slice(tree * DEPTH, (tree + 1) * DEPTH)
        found["input"][questions] = [chosen[column] for column, _ in asked]
        found["above"][questions] = [edges[chosen[column], edge] for column, edge in asked]
        found["leaf"][tree << DEPTH : (tree + 1) << DEPTH] = leaf
    return found


def onwards(
    trees: Params, inputs: NDArray[np.float32], target: NDArray[np.float32], told: Callable[[int], None]
) -> Params:
    """The same questions, with answers that these rows move as far as their number allows."""
    leaves = trees["leaf"].reshape(-1, 1 << DEPTH).astype(np.float64)
    nodes = _nodes(trees, inputs).T
    left = target - trees["mean"] - leaves[np.arange(len(leaves))[:, None], nodes].sum(0)
    for tree, node in enumerate(nodes):
        told(tree)
        sums, counts = np.bincount(node, left, 1 << DEPTH), np.bincount(node, minlength=1 << DEPTH)
        moved = _RATE * sums / (counts + _PRIOR)
        leaves[tree] += moved
        left -= moved[node]
    return {**trees, "leaf": leaves.ravel().astype(np.float32)}


def told(trees: Params, inputs: jax.Array) -> jax.Array:
    """What the trees say of rows [n, d]: [n]. Jittable."""
    place = jnp.asarray(_nodes(trees, inputs))
    leaves = jnp.take(jnp.asarray(trees["leaf"]), place + (jnp.arange(place.shape[-1]) << DEPTH))
    said: jax.Array = trees["mean"] + leaves.sum(-1)
    return said


def _nodes(trees: Params, inputs: Any) -> Any:
    """The leaf of each tree that rows [n, d] come to: [n, trees]."""
    above = inputs[..., trees["input"]] > trees["above"]
    digits = 1 << np.arange(DEPTH)[::-1]
    return (above.reshape(*above.shape[:-1], above.shape[-1] // DEPTH, DEPTH) * digits).sum(-1)


def _edges(inputs: NDArray[np.float32], bins: int) -> NDArray[np.float32]:
    """Between bins of about as many rows each [d, bins - 1]; half-way between two values that occurred, so that the
    rounding of a sum does not decide on which side a row is."""
    low = np.quantile(inputs, np.linspace(0, 1, bins + 1)[1:-1], axis=0, method="lower").T
    ordered = np.sort(inputs, 0).T
    after = [np.searchsorted(column, edge, "right") for column, edge in zip(ordered, low, strict=True)]
    high = np.take_along_axis(ordered, np.minimum(after, ordered.shape[1] - 1), 1)
    between: NDArray[np.float32] = ((low.astype(np.float64) + high) / 2).astype(np.float32)
    return between


def _tree(
    binned: NDArray[np.intp], left: NDArray[np.float64], bins: int
) -> tuple[NDArray[np.intp], list[tuple[int, int]]]:
    """Leaf of each row's bins [n, d], and the questions: input and edge that leave the least squares."""
    rows, inputs = binned.shape
    node = np.zeros(rows, np.intp)
    place, spread = binned + bins * np.arange(inputs), np.repeat(left, inputs)
    asked = []
    for depth in range(DEPTH):
        shape, size = (1 << depth, inputs, bins), (inputs * bins) << depth
        key = (node[:, None] * (inputs * bins) + place).ravel()
        sums = np.bincount(key, spread, size).reshape(shape).cumsum(-1)
        counts = np.bincount(key, minlength=size).reshape(shape).cumsum(-1)
        gain = sums**2 / (counts + _PRIOR) + (sums[..., -1:] - sums) ** 2 / (counts[..., -1:] - counts + _PRIOR)
        best = int(gain.sum(0)[:, :-1].argmax())
        column, edge = divmod(best, bins - 1)
        node = 2 * node + (binned[:, column] > edge)
        asked.append((column, edge))
    return node, asked
