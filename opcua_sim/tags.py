"""What a tag is, before it has a value: its feature (shared by all machines of a kind) and its machine."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Feature:
    """What is measured."""

    name: str
    unit: str
    """A key of :data:`opcua_sim.units.UNITS`."""
    low: float
    high: float
    """Range in normal operation [unit]."""
    description: str
    counter: bool = False
    """True: a whole number, UInt32; else Double."""
    delay: int = 0
    """Steps from the instant of a sample until its value is known."""

    @property
    def span(self) -> float:
        """Width of the range [unit]."""
        return self.high - self.low


@dataclass(frozen=True, slots=True)
class Tag:
    """A feature of one machine."""

    machine: str
    feature: Feature

    @property
    def name(self) -> str:
        """Unique in the plant, such as ``engine-01.T24``; its node's string identifier."""
        return f"{self.machine}.{self.feature.name}"


class Machine(Protocol):
    """Values of some features as a pure function of the step, without faults."""

    @property
    def name(self) -> str:
        """Such as ``engine-01``."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """In the order of :meth:`row`."""

    @property
    def first_step(self) -> int:
        """Where its past begins."""

    def row(self, step: int) -> NDArray[np.float64]:
        """All features at one step at or after :attr:`first_step`, delays left out of account [features]."""

    def values(self, feature: str, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """One feature at steps at or after :attr:`first_step` [steps]."""


def normal_range(values: NDArray[np.float64], places: int = 3) -> tuple[float, float]:
    """A range for bar graphs that all values fit into with a tenth of their spread to spare, on round numbers.

    A constant gets half a percent to either side, so that no range is empty.
    """
    low, high = float(values.min()), float(values.max())
    margin = max((high - low) / 10, abs(high) / 200, 1e-3)
    grain = 10.0 ** (np.floor(np.log10(high - low + 2 * margin)) - places + 1)
    floor, ceiling = np.floor((low - margin) / grain), np.ceil((high + margin) / grain)
    digits = max(0, int(-np.log10(grain) + 0.5))
    return max(0.0, round(floor * grain, digits)) if low >= 0 else round(floor * grain, digits), round(
        ceiling * grain, digits
    )
