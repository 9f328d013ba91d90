"""Kind ``failure_mlp``: the probability of a failure from the present cell alone, for items and states without a past.

With ``products`` every product of two inputs is an input too: what kills a machine often is one (a torque times a speed
is a power). Inputs are made independent of each other, each with a standard deviation of 1 (whitening: LeCun et al.
1998, section 4.3), since what matters may be a small difference of two that go together.

The network is a few modes of failure with a few conditions each (:class:`models.network.Modes`), or two layers of tanh.
A feature that is missing counts as its mean.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from models import cells, failure
from models.failure import Failure, process
from models.kind import Params, Spec, TrainingData
from models.network import CONDITIONS, Mlp, Modes, bound
from models.options import choice, number

_LIMIT = 6.0
_FLOOR = 1e-3
"""Variance that a direction is taken to have at least: one that does not vary must not become loud."""

Network = Literal["modes", "tanh"]


@dataclass(frozen=True, slots=True)
class Options(failure.Options):
    """The defaults were chosen by cross-validation within the first training part of AI4I 2020."""

    products: int = number(1, 0, 1)
    """1: products of two inputs are inputs too."""
    network: Network = choice("modes", get_args(Network))
    balance: float = number(0.0, 0.0, 1.0)
    hidden: int = number(24, 3, 512)
    """Of ``modes``: conditions, three to a mode."""
    members: int = number(15, 1, 40)
    steps: int = number(1500, 1, 100_000)
    batch: int = number(512, 1, 65_536)
    rate: float = number(0.05, 1e-6, 1.0)
    decay: float = number(1.0, 0.0, 10.0)


class MlpClassifier:
    """See :class:`models.failure.Classifier`."""

    def context(self, options: Any) -> int:
        """See :class:`models.failure.Classifier`."""
        return 1

    def unlearnt(self, spec: Spec, options: Options) -> Params:
        """See :class:`models.failure.Classifier`."""
        width = _width(spec, options)
        white = {"mean": np.zeros(width, np.float32), "matrix": np.eye(width, dtype=np.float32)}
        return {"white": white}

    def learnt(self, spec: Spec, options: Options, scale: Params, data: TrainingData) -> Params:
        """See :class:`models.failure.Classifier`."""
        inputs = process(spec)
        units = jax.jit(self.units)(scale, data.values[:, inputs], data.observed[:, inputs])
        labelled = data.observed[:, inputs].any(1) & ~np.isnan(data.target)
        table = np.asarray(jax.jit(partial(_inputs, options))(units))[labelled]
        return {"white": _white(table.astype(np.float64))}

    def units(self, scale: Params, values: jax.Array, observed: jax.Array) -> jax.Array:
        """See :class:`models.failure.Classifier`."""
        return jnp.swapaxes(cells.scaled(scale, values, observed, _LIMIT), 1, 2)

    def build(self, spec: Spec, options: Options) -> Any:
        """See :class:`models.failure.Classifier`."""
        width = _width(spec, options)

        def build(rngs: nnx.Rngs) -> Modes | Mlp:
            if options.network == "modes":
                return Modes(width, options.hidden // CONDITIONS, rngs=rngs)
            return Mlp(width, options.hidden, rngs=rngs)

        return build

    def logit(
        self, spec: Spec, options: Options, fixed: Params, weights: Params, units: jax.Array, seen: jax.Array
    ) -> jax.Array:
        """See :class:`models.failure.Classifier`."""
        white = fixed["white"]
        inputs = jnp.clip((_inputs(options, units) - white["mean"]) @ white["matrix"], -_LIMIT, _LIMIT)
        found: jax.Array = bound(self.build(spec, options), weights)(inputs)
        return found


class FailureMlp(Failure):
    """A classifier of the present cell; see the module."""

    name = "failure_mlp"

    def __init__(self) -> None:
        super().__init__(Options, MlpClassifier())


def _width(spec: Spec, options: Options) -> int:
    count = len(process(spec))
    return count + options.products * count * (count + 1) // 2


def _inputs(options: Options, units: jax.Array) -> jax.Array:
    """[..., f] and, where they are asked for, their products."""
    if not options.products:
        return units
    first, second = np.triu_indices(units.shape[-1])
    return jnp.concatenate([units, units[..., first] * units[..., second]], -1)


def _white(table: NDArray[np.float64]) -> Params:
    """Of rows [m, d]: their mean, and the matrix that makes their covariance the identity."""
    variance, directions = np.linalg.eigh(np.cov(table.T).reshape(table.shape[1], -1))
    matrix = directions / np.sqrt(np.maximum(variance, 0.0) + _FLOOR)
    return {"mean": table.mean(0).astype(np.float32), "matrix": matrix.astype(np.float32)}
