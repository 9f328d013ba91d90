"""Kinds ``lstm_autoencoder`` and ``conv_autoencoder``: what can't be told again from a summary.

A network squeezes the last ``context`` cells of all features into ``latent`` numbers and rebuilds the cells from them
(LSTM: Malhotra et al. 2016; convolutions: Masci et al. 2011). Trained on healthy cells, it can rebuild these alone. It
is trained to take noise away, as with many features the summary could otherwise be a copy. Cells that are not observed
are neither read nor judged.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from models import residuals
from models.kind import Params, Progress
from models.network import born, bound
from models.options import number
from models.residuals import Smoothed
from models.scored import Scored
from models.training import Budget, descend

_READ = 6.0
"""Standard deviations that the network reads at most; what it rebuilds is compared with what was there."""


@dataclass(frozen=True)
class Options(residuals.Options):
    """Hyperparameters."""

    context: int = number(32, 4, 1024)
    """Cells that are rebuilt; at least ``smooth``."""
    hidden: int = number(32, 2, 512)
    latent: int = number(4, 1, 128)
    """Numbers that stand for all cells of all features."""
    steps: int = number(400, 1, 100_000)
    batch: int = number(48, 1, 4096)
    rate: float = number(5e-3, 1e-6, 1.0)
    decay: float = number(0.01, 0.0, 1.0)
    noise: float = number(0.3, 0.0, 2.0)
    """Added to inputs while training [standard deviations]."""


class LstmAutoencoder(nnx.Module):
    """Reads the cells, oldest first, and tells them again, newest first (Srivastava et al. 2015)."""

    def __init__(self, options: Options, features: int, *, rngs: nnx.Rngs) -> None:
        self.reader = nnx.LSTMCell(2 * features, options.hidden, rngs=rngs)
        self.summary = nnx.Linear(options.hidden, options.latent, rngs=rngs)
        self.teller = nnx.LSTMCell(options.latent, options.hidden, rngs=rngs)
        self.out = nnx.Linear(options.hidden, features, rngs=rngs)

    def __call__(self, inputs: jax.Array, observed: jax.Array) -> jax.Array:
        """[b, t, d] from inputs and what is observed of them, both [b, t, d]; an empty cell leaves the state alone."""
        read = jnp.concatenate([inputs, observed.astype(inputs.dtype)], -1)
        nothing = jnp.zeros((len(inputs), self.reader.hidden_features), inputs.dtype)

        def reading(carry: Any, cell: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
            after, _ = self.reader(carry, cell[0])
            there = cell[1][:, None]
            return jax.tree.map(partial(jnp.where, there), after, carry), None

        cells = jnp.swapaxes(read, 0, 1), jnp.swapaxes(observed.any(-1), 0, 1)
        (_, state), _ = jax.lax.scan(reading, (nothing, nothing), cells)
        summary = self.summary(state)

        def telling(carry: Any, _: None) -> tuple[Any, jax.Array]:
            return self.teller(carry, summary)

        _, states = jax.lax.scan(telling, (nothing, nothing), None, length=inputs.shape[1], reverse=True)
        return self.out(jnp.swapaxes(states, 0, 1))


class ConvAutoencoder(nnx.Module):
    """Two convolutions of width and step 4 and 2 to a summary, and back; cells are counted from the newest."""

    def __init__(self, options: Options, features: int, *, rngs: nnx.Rngs) -> None:
        self._blocks = -(-options.context // 8)
        self.narrow = nnx.Linear(8 * features, options.hidden, rngs=rngs)
        self.narrower = nnx.Linear(2 * options.hidden, options.hidden, rngs=rngs)
        self.summary = nnx.Linear(self._blocks * options.hidden, options.latent, rngs=rngs)
        self.unfold = nnx.Linear(options.latent, self._blocks * options.hidden, rngs=rngs)
        self.wider = nnx.Linear(options.hidden, 2 * options.hidden, rngs=rngs)
        self.wide = nnx.Linear(options.hidden, 4 * features, rngs=rngs)

    def __call__(self, inputs: jax.Array, observed: jax.Array) -> jax.Array:
        """As :class:`LstmAutoencoder`. A step as long as the filter is wide makes a convolution a product of matrices,
        which is several times as fast on a processor as XLA's grouped convolution of an ensemble."""
        b, t, d = inputs.shape
        blocks = self._blocks
        read = jnp.concatenate([inputs, observed.astype(inputs.dtype)], -1)
        read = jnp.pad(read, ((0, 0), (8 * blocks - t, 0), (0, 0)))
        x = jax.nn.silu(self.narrow(read.reshape(b, 2 * blocks, 8 * d)))
        x = jax.nn.silu(self.narrower(x.reshape(b, blocks, -1)))
        x = self.unfold(self.summary(x.reshape(b, -1))).reshape(b, blocks, -1)
        x = jax.nn.silu(self.wider(jax.nn.silu(x))).reshape(b, 2 * blocks, -1)
        return self.wide(x).reshape(b, 8 * blocks, d)[:, 8 * blocks - t :]


class Autoencoder:
    """What one of the two networks can't rebuild; see the module."""

    forms = 1

    def __init__(self, name: str, network: Any) -> None:
        self.name = name
        self._network = network

    def reach(self, options: Options) -> int:
        """See :class:`models.residuals.Detector`."""
        return max(options.context, options.smooth)

    def init(self, options: Options, features: int, key: jax.Array) -> Params:
        """See :class:`models.residuals.Detector`."""
        one: Params = jax.tree.map(lambda leaf: leaf[0], born(self._builder(options, features), key[None]))
        return {"network": one}

    def learn(
        self,
        options: Options,
        units: NDArray[np.float32],
        observed: NDArray[np.bool_],
        sets: NDArray[np.bool_],
        seed: int,
        progress: Progress,
    ) -> Params:
        """See :class:`models.residuals.Detector`; all sets at once. A crop ends in a cell of its set."""
        key = jax.random.key(seed)
        build = self._builder(options, units.shape[2])
        known = observed & sets[0][..., None]
        front = ((0, 0), (options.context - 1, 0), (0, 0))
        shared = {"units": np.pad(units, front), "known": np.pad(known, front)}
        own = _ends(sets, np.random.default_rng(seed))
        budget = Budget(options.steps, options.rate, options.decay)
        first = born(build, jnp.broadcast_to(key, (len(sets),)))
        trained = descend(partial(_loss, build, options), first, shared, own, budget, key, progress)
        return {"network": jax.device_get(trained)}

    def residuals(
        self, options: Options, params: Params, units: jax.Array, observed: jax.Array, *, last: bool
    ) -> Smoothed:
        """Of each end, by the crop that ends there."""
        cells, context = units.shape[1], options.context
        front = ((0, 0), (context - 1, 0), (0, 0))
        units, observed = jnp.pad(units, front), jnp.pad(observed, front)
        network = bound(self._builder(options, units.shape[2]), params["network"])
        span = jnp.arange(cells - 1 if last else 0, cells)[:, None] + jnp.arange(context)

        def of_row(row: tuple[jax.Array, jax.Array]) -> Smoothed:
            crops, known = row[0][span], row[1][span]
            error = jnp.where(known, crops - network(jnp.clip(crops, -_READ, _READ), known), 0.0)
            count = known[:, -options.smooth :].sum(1)
            return Smoothed(error[:, -options.smooth :].sum(1) / jnp.maximum(count, 1), (count > 0).all(-1))

        if last:
            mean, there = jax.vmap(of_row)((units, observed))
            return Smoothed(mean, there)
        found: Smoothed = jax.lax.map(of_row, (units, observed))
        return found

    def roots(self, options: Options, residuals_: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the Mahalanobis distance."""
        return residuals.mahalanobis(residuals_, options.smooth)

    def _builder(self, options: Options, features: int) -> Any:
        def build(rngs: nnx.Rngs) -> nnx.Module:
            module: nnx.Module = self._network(options, features, rngs=rngs)
            return module

        return build


def _loss(build: Any, options: Options, weights: Params, key: jax.Array, shared: Any, own: Any) -> jax.Array:
    picked, shaken = jax.random.split(key)
    row, end = own[jax.random.randint(picked, (options.batch,), 0, own.shape[0])].T
    span = end[:, None] + jnp.arange(options.context)
    crops, known = (shared[name][row[:, None], span] for name in ("units", "known"))
    crops = jnp.clip(crops, -_READ, _READ)
    noise = options.noise * jax.random.normal(shaken, crops.shape)
    told = bound(build, weights)(jnp.where(known, crops + noise, 0.0), known)
    return jnp.sum(jnp.where(known, told - crops, 0.0) ** 2) / jnp.maximum(known.sum(), 1)


def _ends(sets: NDArray[np.bool_], generator: np.random.Generator) -> NDArray[np.int32]:
    """Row and cell of crops' ends [m, k, 2], as many of each set: a small one has them more than once."""
    every = [generator.permutation(np.argwhere(chosen)).astype(np.int32) for chosen in sets]
    if not all(len(ends) for ends in every):
        raise ValueError("there is no healthy cell to learn from")
    most = max(len(ends) for ends in every)
    return np.stack([ends[np.resize(np.arange(len(ends)), most)] for ends in every])


class LstmAutoencoderKind(Scored):
    """What an LSTM can't tell again; see the module."""

    name = "lstm_autoencoder"

    def __init__(self) -> None:
        super().__init__(Options, Autoencoder("lstm", LstmAutoencoder))


class ConvAutoencoderKind(Scored):
    """What a convolutional network can't tell again; see the module."""

    name = "conv_autoencoder"

    def __init__(self) -> None:
        super().__init__(Options, Autoencoder("conv", ConvAutoencoder))
