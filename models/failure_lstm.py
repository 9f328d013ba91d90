"""Kind ``failure_lstm``: the probability of a failure within a horizon, from the last cells and how they left a start.

A recurrent layer reads the last ``context`` cells: each feature in standard deviations, how far it left its own first
cells of the window, and the share of features observed.
"""

from dataclasses import dataclass
from typing import Any, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from models import cells, failure
from models.failure import Failure, process
from models.gates import Cell
from models.kind import Params, Spec, TrainingData
from models.network import Recurrent, bound
from models.options import choice, number

_LIMIT = 5.0


@dataclass(frozen=True, slots=True)
class Options(failure.Options):
    """See :class:`models.failure.Options`."""

    context: int = number(32, 2, 1024)
    """Cells that the network reads."""
    cell: Cell = choice("lstm", get_args(Cell))
    """``gru`` and ``mingru`` have fewer weights."""
    noise: float = number(0.1, 0.0, 2.0)
    dropout: float = number(0.02, 0.0, 0.9)


class LstmClassifier:
    """See :class:`models.failure.Classifier`."""

    def context(self, options: Options) -> int:
        """See :class:`models.failure.Classifier`."""
        return options.context

    def unlearnt(self, spec: Spec, options: Options) -> Params:
        """See :class:`models.failure.Classifier`."""
        return {}

    def learnt(self, spec: Spec, options: Options, scale: Params, data: TrainingData) -> Params:
        """See :class:`models.failure.Classifier`."""
        return {}

    def units(self, scale: Params, values: jax.Array, observed: jax.Array) -> jax.Array:
        """See :class:`models.failure.Classifier`."""
        units = cells.scaled(scale, values, observed, _LIMIT)
        left = jnp.where(observed, units - cells.own_start(units, observed), 0.0)
        return jnp.swapaxes(jnp.concatenate([units, left], 1), 1, 2)

    def build(self, spec: Spec, options: Options) -> Any:
        """See :class:`models.failure.Classifier`."""
        width = 2 * len(process(spec)) + 1

        def build(rngs: nnx.Rngs) -> Recurrent:
            return Recurrent(width, options.hidden, 1, options.cell, rngs=rngs)

        return build

    def logit(
        self, spec: Spec, options: Options, fixed: Params, weights: Params, units: jax.Array, seen: jax.Array
    ) -> jax.Array:
        """See :class:`models.failure.Classifier`."""
        network, inputs, there = self._read(spec, options, weights, units, seen)
        found: jax.Array = network(inputs, there)[..., 0]
        return found

    def last_logit(
        self, spec: Spec, options: Options, fixed: Params, weights: Params, units: jax.Array, seen: jax.Array
    ) -> jax.Array:
        """See :class:`models.failure.Classifier`."""
        network, inputs, there = self._read(spec, options, weights, units, seen)
        return network.last(inputs, there)[..., 0]

    def asked(self, options: Options, fixed: Params, units: jax.Array, seen: jax.Array) -> jax.Array:
        """See :class:`models.failure.Classifier`."""
        return units

    def _read(
        self, spec: Spec, options: Options, weights: Params, units: jax.Array, seen: jax.Array
    ) -> tuple[Recurrent, jax.Array, jax.Array]:
        """The network, what it reads, and which cells are there."""
        share = jnp.mean(seen, -1, keepdims=True, dtype=units.dtype)
        network: Recurrent = bound(self.build(spec, options), weights)
        return network, jnp.concatenate([units, share], -1), seen.any(-1)

    def penalty(self, options: Options, weights: Params) -> jax.Array:
        """See :class:`models.failure.Classifier`."""
        return jnp.zeros(())


class FailureLstm(Failure):
    """A classifier of a window; see the module."""

    name = "failure_lstm"

    def __init__(self) -> None:
        super().__init__(Options, LstmClassifier())
