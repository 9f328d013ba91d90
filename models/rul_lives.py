"""The lives that a model of remaining useful life learns from, and which of their cells each member may see."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from models import boosted, rul_inputs
from models.kind import Params, Progress, Spec, TrainingData
from models.training import alike

_GROWN_FROM = 12_000
"""Cells that trees grow from, all in all, roughly: more of them cost time and add little."""
_MOST_PER_LIFE = 64


Grow = Callable[[int, NDArray[np.float32], NDArray[np.float32], Callable[[int], None]], Params]
"""Trees of a member from rows and targets; it tells of each tree."""


@dataclass(frozen=True, eq=False)
class Lives:
    """Windows with their scaling."""

    spec: Spec
    params: Params
    """With the scaling."""
    data: TrainingData
    fold: NDArray[np.int32]
    """[n]; a member does not see the one of its own number."""
    cap: float
    """RUL that counts as 1 [cells]."""

    @cached_property
    def target(self) -> NDArray[np.float32]:
        """[n, t] as shares of the cap; NaN where not labelled."""
        share: NDArray[np.float32] = np.clip(self.data.target / self.cap, 0.0, 1.0).astype(np.float32)
        return share

    @cached_property
    def read(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """What the network reads [2, n, t, d] of whole lives and of lives first seen late, and which cells are there
        [2, n, t]."""
        prepare = jax.jit(partial(_read, self.spec, self.params))
        both = [jax.device_get(prepare(self.data.values, seen)) for seen in (self.data.observed, self._late)]
        inputs, there = (np.stack(part) for part in zip(*both, strict=True))
        return inputs, there

    @cached_property
    def labelled(self) -> NDArray[np.bool_]:
        """[n, t]."""
        return np.asarray(self.read[1][0] & ~np.isnan(self.target))

    def seen_by(self, member: int) -> NDArray[np.bool_]:
        """[n] the windows that a member may learn from."""
        return np.asarray(self.fold != member % (self.fold.max() + 1))

    def crops(self, context: int, members: int) -> dict[str, Any]:
        """``shared``: inputs, with room in front for the first crop; ``own`` and ``held``: per member the ends to train
        on and those that it is not to see."""
        front = ((0, 0), (0, 0), (context - 1, 0))
        generator = np.random.default_rng(self.spec.seed)
        own, held = [], []
        for member in range(members):
            mine = self.seen_by(member)[:, None]
            ends = np.argwhere(self.labelled & mine)
            held.append(np.argwhere(self.labelled & ~mine))
            if not len(ends):
                raise ValueError("there is no labelled cell to train on")
            own.append(ends[generator.permutation(np.resize(np.arange(len(ends)), max(self.labelled.sum(), 1)))])
        inputs, there = self.read
        shared = {
            "inputs": np.pad(inputs, (*front, (0, 0))),
            "seen": np.pad(there, front),
            "target": np.pad(self.target, front[1:]),
        }
        return {"shared": shared, "own": np.stack(own), "held": alike(held)}

    def grown(self, grow: Grow, members: int, late_start: float, dropout: float, progress: Progress) -> Params:
        """Trees of each member, from random cells of the lives that it may see; a share ``late_start`` of the cells as
        of a life first seen late, and of a share ``dropout`` of them each feature missing."""
        generator = np.random.default_rng(self.spec.seed + 3)
        rows = np.flatnonzero(self.labelled.any(1))
        ends = self.random_ends(rows, int(np.clip(_GROWN_FROM // max(1, len(rows)), 1, _MOST_PER_LIFE)), generator)
        whole, late = (self._summaries(rows, ends, seen) for seen in (self.data.observed, self._late))
        summary = np.where((generator.random(ends.shape) < late_start)[..., None], late, whole)
        kept = generator.random((*ends.shape, len(self.spec.features))) >= dropout
        summary = summary * np.tile(kept, summary.shape[-1] // kept.shape[-1])
        target = self.target[rows[:, None], ends]

        trees = []
        for member in range(members):
            seen = self.seen_by(member)[rows]
            rows_of = summary[seen].reshape(-1, summary.shape[-1])
            telling = boosted.telling(progress, f"member {member + 1} of {members}")
            trees.append(grow(member, rows_of, target[seen].ravel(), telling))
        return boosted.stacked(trees)

    def summaries(self, rows: NDArray[np.intp], ends: NDArray[np.intp]) -> NDArray[np.float32]:
        """What trees are asked about at cells [m, k] of these windows [m]."""
        return self._summaries(rows, ends, self.data.observed)

    def random_ends(self, rows: NDArray[np.intp], count: int, generator: np.random.Generator) -> NDArray[np.intp]:
        """Labelled cells [m, count] of windows [m] that have any."""
        return np.stack([generator.choice(np.flatnonzero(self.labelled[row]), count) for row in rows])

    def _summaries(
        self, rows: NDArray[np.intp], ends: NDArray[np.intp], seen: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        return rul_inputs.summaries(self.spec, self.params, self.data.values[rows], seen[rows], ends)

    @cached_property
    def _late(self) -> NDArray[np.bool_]:
        """Observed [n, f, t] after a random cut that leaves the last 40 cells of a life, or half of a shorter one."""
        generator = np.random.default_rng(self.spec.seed + 1)
        count = np.cumsum(self.data.observed[:, self.spec.index("age")], -1)
        total = count[:, -1]
        latest = np.maximum(total - 40, total // 2)
        late = count > generator.integers(0, latest + 1)[:, None]
        return np.asarray(self.data.observed & late[:, None])


def _read(spec: Spec, params: Params, values: jax.Array, observed: jax.Array) -> tuple[jax.Array, jax.Array]:
    life = rul_inputs.life(spec, params, values, observed)
    return rul_inputs.sequence(spec, life), life.there
