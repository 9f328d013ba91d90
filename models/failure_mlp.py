"""Kind ``failure_mlp``: the probability of a failure from the present cell alone, for items and states without a past.

With ``products`` the network also reads every product of two inputs in standard deviations: what kills a machine often
is one (a torque times a speed is a power), and a small network learns it from many examples only.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from models import cells, failure
from models.failure import Failure, process
from models.kind import Params, Spec
from models.network import Mlp, bound
from models.options import number

_LIMIT = 6.0


@dataclass(frozen=True, slots=True)
class Options(failure.Options):
    """The defaults were chosen by cross-validation within the training parts of AI4I 2020."""

    products: int = number(1, 0, 1)
    """1: products of two inputs are inputs too."""


class FailureMlp(Failure):
    """A classifier of the present cell; see the module."""

    name = "failure_mlp"
    options = Options

    def context(self, options: Any) -> int:
        """See :class:`models.failure.Failure`."""
        return 1

    def units(self, params: Params, values: jax.Array, observed: jax.Array) -> jax.Array:
        """See :class:`models.failure.Failure`."""
        return jnp.swapaxes(cells.scaled(params["scale"], values, observed, _LIMIT), 1, 2)

    def build(self, spec: Spec, options: Options) -> Any:
        """See :class:`models.failure.Failure`."""
        count = len(process(spec))
        width = 2 * count + options.products * count * (count + 1) // 2

        def build(rngs: nnx.Rngs) -> Mlp:
            return Mlp(width, options.hidden, rngs=rngs)

        return build

    def logit(self, spec: Spec, options: Options, weights: Params, units: jax.Array, seen: jax.Array) -> jax.Array:
        """See :class:`models.failure.Failure`; inputs, whether they are missing, and their products."""
        inputs = [units, 1.0 - seen]
        if options.products:
            first, second = np.triu_indices(units.shape[-1])
            inputs.append(units[..., first] * units[..., second])
        found: jax.Array = bound(self.build(spec, options), weights)(jnp.concatenate(inputs, -1))
        return found
