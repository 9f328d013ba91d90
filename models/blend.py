"""How much to believe each of several estimates of the same."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray


def shares(parts: Sequence[NDArray[np.floating[Any]]], truth: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Shares of the parts [m], none below 0 and 1 together, whose sum has the least squared error.

    Exact: by least squares for each choice of parts, among those choices that leave no share below 0.
    """
    left = np.stack(parts).astype(np.float64) - truth
    square = left @ left.T
    return min(_feasible(square), key=lambda share: float(share @ square @ share))


def _feasible(square: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Of each choice of parts, with the products of their errors: the shares where the error has its least, if all are
    at least 0. One part alone always has them."""
    for count in range(1, len(square) + 1):
        for chosen in combinations(range(len(square)), count):
            share = np.zeros(len(square))
            found = np.linalg.pinv(square[np.ix_(chosen, chosen)], hermitian=True).sum(1)
            share[list(chosen)] = found / found.sum() if count > 1 and found.sum() else 1.0 / count
            if (share >= 0.0).all():
                yield share
