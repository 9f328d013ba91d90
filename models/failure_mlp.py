"""Kind ``failure_mlp``: the probability of a failure from the present cell alone, for items and states without a past.

With ``products`` every product of two features is an input too: what kills a machine often is one (a torque times a
speed is a power). Of two features that go together, what the one has and the other does not explain is an input as
well, since what matters may be a small difference (a machine hardly warmer than the air). Each has a standard deviation
of 1.

The network is a few modes of failure with a few conditions each (:class:`models.network.Modes`), or two layers of tanh.
A condition is about few inputs, so its weights are drawn to zero by their sum (``sparsity``; Tibshirani 1996). A
feature that is missing counts as its mean. Boosted trees are asked about the same inputs.
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
_TOGETHER = 0.5
"""Two features whose correlation is at least so large, up or down, go together."""
_APART = 0.03
"""What a feature has that the other does not explain is taken for noise below this [standard deviations]."""

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
    trees: int = number(200, 0, 10_000)
    steps: int = number(6000, 1, 100_000)
    batch: int = number(512, 1, 65_536)
    rate: float = number(0.05, 1e-6, 1.0)
    decay: float = number(0.0, 0.0, 10.0)
    sparsity: float = number(1e-3, 0.0, 10.0)
    """Penalty on the sum of the weights that read inputs, without their signs."""


class MlpClassifier:
    """See :class:`models.failure.Classifier`."""

    def context(self, options: Any) -> int:
        """See :class:`models.failure.Classifier`."""
        return 1

    def unlearnt(self, spec: Spec, options: Options) -> Params:
        """See :class:`models.failure.Classifier`."""
        count = len(process(spec))
        rest = np.zeros((count, count * (count - 1) // 2), np.float32)
        return {"rest": rest, "inputs": cells.unscaled(_width(spec, options))}

    def learnt(self, spec: Spec, options: Options, scale: Params, data: TrainingData) -> Params:
        """See :class:`models.failure.Classifier`."""
        features = process(spec)
        units = jax.jit(self.units)(scale, data.values[:, features], data.observed[:, features])
        seen = np.swapaxes(data.observed[:, features], 1, 2)
        labelled = seen.any(-1) & ~np.isnan(data.target)
        rest = _rest(np.asarray(units)[labelled].astype(np.float64))
        table = np.asarray(jax.jit(partial(_inputs, options))(rest, units, seen))[labelled]
        return {"rest": rest, "inputs": cells.scale(table.T[None], np.ones((1, *table.T.shape), bool))}

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
        inputs = _inputs(options, fixed["rest"], units, seen) - fixed["inputs"]["mean"]
        inputs = jnp.clip(inputs / fixed["inputs"]["scale"], -_LIMIT, _LIMIT)
        found: jax.Array = bound(self.build(spec, options), weights)(inputs)
        return found

    def last_logit(
        self, spec: Spec, options: Options, fixed: Params, weights: Params, units: jax.Array, seen: jax.Array
    ) -> jax.Array:
        """See :class:`models.failure.Classifier`."""
        return self.logit(spec, options, fixed, weights, units[:, -1:], seen[:, -1:])[:, 0]

    def asked(self, options: Options, fixed: Params, units: jax.Array, seen: jax.Array) -> jax.Array:
        """See :class:`models.failure.Classifier`."""
        return _inputs(options, fixed["rest"], units, seen)

    def penalty(self, options: Options, weights: Params) -> jax.Array:
        """See :class:`models.failure.Classifier`."""
        reading = weights["conditions" if options.network == "modes" else "first"]
        return options.sparsity * jnp.sum(jnp.abs(reading["kernel"]))


class FailureMlp(Failure):
    """A classifier of the present cell; see the module."""

    name = "failure_mlp"

    def __init__(self) -> None:
        super().__init__(Options, MlpClassifier())


def _width(spec: Spec, options: Options) -> int:
    count = len(process(spec))
    return count * (count + 1) // 2 * (1 + options.products)


def _inputs(options: Options, rest: jax.Array, units: jax.Array, seen: jax.Array) -> jax.Array:
    """[..., f], what each of two that go together has of its own and, where they are asked for, products [..., d].

    Chosen by products of matrices: in a training, gathering takes longer than all else.
    """
    missing = jnp.matmul((~seen).astype(units.dtype), (rest != 0.0).astype(units.dtype)) > 0.0
    own = jnp.where(missing, 0.0, jnp.matmul(units, rest, precision="highest"))
    if not options.products:
        return jnp.concatenate([units, own], -1)
    every = np.eye(units.shape[-1], dtype=np.float32)
    first, second = (units @ every[:, chosen] for chosen in np.triu_indices(len(every)))
    return jnp.concatenate([units, own, first * second], -1)


def _rest(units: NDArray[np.float64]) -> NDArray[np.float32]:
    """Of rows [m, f]: what makes of units what the first of each pair has of its own, with a deviation of 1 [f, pairs];
    0 for two that do not go together, or so closely that nothing is left."""
    first, second = np.triu_indices(units.shape[1], 1)
    spread = np.maximum(units.std(0), 1e-6)
    shared = np.cov(units.T, ddof=0).reshape(units.shape[1], -1)[first, second]
    together = shared / (spread[first] * spread[second])
    left = np.sqrt(np.maximum(1.0 - together**2, 0.0))
    used = (np.abs(together) >= _TOGETHER) & (left >= _APART)
    scale = np.where(used, 1.0 / (spread[first] * np.maximum(left, _APART)), 0.0)
    rest, pair = np.zeros((units.shape[1], len(first)), np.float32), np.arange(len(first))
    rest[first, pair] = scale
    rest[second, pair] = -scale * shared / spread[second] ** 2
    return rest
