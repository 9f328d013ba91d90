"""What a model looks at, and what it sees: samples of many tags in the cells of one regular grid."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from plugin.domain.times import Micros

Stretch = tuple[int, Micros, Micros]
"""A gap as (tag id, start, end) [µs]."""


@dataclass(frozen=True, slots=True, eq=False)
class Policies:
    """What stands in a cell that has no sample, tag by tag; columns in the order of the tags."""

    hold: NDArray[np.int64]
    """How long a value stands for itself [µs]; for a line, how far apart its two samples may be."""
    linear: NDArray[np.bool_]
    """Between two samples a line is drawn (:attr:`plugin.domain.Fill.LINEAR`)."""
    uncertain: NDArray[np.bool_]
    """Uncertain values are used; else they count as Bad ones do."""

    @classmethod
    def of(cls, tags: int, hold: Any, linear: Any = False, uncertain: Any = True) -> Self:
        """Of so many tags; a scalar is repeated for each."""
        return cls(
            np.broadcast_to(np.asarray(hold, np.int64), tags),
            np.broadcast_to(np.asarray(linear, np.bool_), tags),
            np.broadcast_to(np.asarray(uncertain, np.bool_), tags),
        )

    def take(self, rows: Any) -> "Policies":
        """Those of an index array or a mask."""
        return Policies(self.hold[rows], self.linear[rows], self.uncertain[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Of each tag the ``length`` cells ``[start + i * step, start + (i + 1) * step)``."""

    tags: tuple[int, ...]
    """:attr:`plugin.domain.Tag.id` of each row, none twice."""
    start: Micros
    step: Micros
    length: int
    policies: Policies
    gaps: tuple[Stretch, ...] = ()
    """Nothing is held into or across them."""

    @property
    def end(self) -> Micros:
        """Of the last cell, exclusive."""
        return self.start + self.length * self.step

    @property
    def reach(self) -> NDArray[np.int64]:
        """[tag] the oldest source time that may still stand in a cell [µs]."""
        return self.start - self.policies.hold

    def take(self, rows: NDArray[np.bool_]) -> "Window":
        """The same of some of the tags."""
        tags = tuple(tag for tag, taken in zip(self.tags, rows.tolist(), strict=True) if taken)
        return replace(self, tags=tags, policies=self.policies.take(rows))


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Rows are tags in the order asked for, columns are cells in order of time."""

    tags: tuple[int, ...]
    """Tag id of each row."""
    cells: NDArray[np.int64]
    """Start of each cell [µs]."""
    values: NDArray[np.float32]
    """[tag, cell]; 0 where not observed."""
    observed: NDArray[np.bool_]
    """[tag, cell]."""
    good: NDArray[np.bool_]
    """[tag, cell]: observed, and all samples behind it are Good."""
    held: NDArray[np.float32]
    """[tag, cell]: ``values`` as they would be without a line; the same array where there is none."""
