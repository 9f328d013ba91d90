"""Chance that never changes: a number in [0, 1) for a seed and a place, the same on every machine and in every release.

NumPy's generators promise no stable streams, and a plant must find its own past again after an upgrade. The mixing
function is splitmix64 (G. L. Steele, D. Lea, C. H. Flood: *Fast Splittable Pseudorandom Number Generators*, 2014).
"""

import zlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniform(seed: int, what: str, place: ArrayLike) -> NDArray[np.float64]:
    """A number in [0, 1) for each integer in ``place``; ``what`` keeps the purposes apart."""
    key = np.uint64(zlib.crc32(what.encode()) << 32 | seed & 0xFFFFFFFF)
    bits = _mix(_mix(np.asarray(place, np.int64).astype(np.uint64)) ^ _mix(key))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def shuffled(seed: int, what: str, count: int) -> NDArray[np.int64]:
    """The numbers 0 to count - 1 in an order of chance."""
    return np.argsort(uniform(seed, what, np.arange(count)), kind="stable").astype(np.int64)


def _mix(bits: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    mixed = np.atleast_1d(bits) + _GOLDEN  # arrays wrap silently, which is meant; scalars would warn
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
