"""The networks, as ``flax.nnx`` modules; they are defined and born here, and run from pure dicts of arrays."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from models.kind import Params

M = TypeVar("M", bound=nnx.Module)


def born(build: Callable[[nnx.Rngs], nnx.Module], keys: jax.Array) -> Params:
    """Weights of an ensemble, one member per key, each leaf with the members as its first axis."""

    def member(key: jax.Array) -> Params:
        return nnx.to_pure_dict(nnx.state(build(nnx.Rngs(params=key))))

    weights: Params = jax.jit(jax.vmap(member))(keys)
    return weights


def bound(build: Callable[[nnx.Rngs], M], weights: Params) -> M:
    """The module with one member's weights; only the trace pays for this, the compiled program holds arrays alone."""
    graph, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
    nnx.replace_by_pure_dict(state, weights)
    return nnx.merge(graph, state)


class CausalLstm(nnx.Module):
    """LSTM (Hochreiter & Schmidhuber 1997, forget gate: Gers et al. 2000) with three numbers at every cell.

    Gates in the order input, forget, cell, output. The input's share of the gates is one matrix product over all
    cells, so the scan holds only the recurrent one.
    """

    def __init__(self, inputs: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.gates = nnx.Linear(inputs, 4 * hidden, kernel_init=nnx.initializers.lecun_normal(), rngs=rngs)
        self.recurrent = nnx.Param(nnx.initializers.orthogonal()(rngs.params(), (hidden, 4 * hidden)))
        self.head = nnx.Linear(hidden, 3, kernel_init=nnx.initializers.normal(0.1 / hidden**0.5), rngs=rngs)

    def __call__(self, inputs: jax.Array, seen: jax.Array) -> jax.Array:
        """[b, t, d] and [b, t] to [b, t, 3]; a cell that is not seen leaves the state as it was."""
        gates = jnp.swapaxes(self.gates(inputs), 0, 1)
        weights = self.recurrent[...]
        # A forget bias of 1, so that the memory is long before anything is learnt (Jozefowicz et al. 2015).
        gates = gates + jnp.repeat(jnp.array([0.0, 1.0, 0.0, 0.0]), weights.shape[0])

        def step(
            carry: tuple[jax.Array, jax.Array], cell: tuple[jax.Array, jax.Array]
        ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            hidden, memory = carry
            enter, forget, content, leave = jnp.split(cell[0] + hidden @ weights, 4, axis=-1)
            kept = jax.nn.sigmoid(forget) * memory + jax.nn.sigmoid(enter) * jnp.tanh(content)
            shown = jax.nn.sigmoid(leave) * jnp.tanh(kept)
            there = cell[1][:, None]
            carry = jnp.where(there, shown, hidden), jnp.where(there, kept, memory)
            return carry, carry[0]

        start = jnp.zeros((inputs.shape[0], weights.shape[0]), inputs.dtype)
        _, states = jax.lax.scan(step, (start, start), (gates, seen.T))
        return self.head(jnp.swapaxes(states, 0, 1))


class Mlp(nnx.Module):
    """Two tanh layers beside a linear path, which carries what is linear out to where there were no data."""

    def __init__(self, inputs: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        normal = nnx.initializers.lecun_normal()
        self.first = nnx.Linear(inputs, hidden, kernel_init=normal, rngs=rngs)
        self.second = nnx.Linear(hidden, hidden, kernel_init=normal, rngs=rngs)
        self.head = nnx.Linear(hidden, 1, kernel_init=nnx.initializers.normal(0.1 / hidden**0.5), rngs=rngs)
        self.straight = nnx.Linear(inputs, 1, use_bias=False, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """[..., d] to [...]."""
        bent = self.head(jnp.tanh(self.second(jnp.tanh(self.first(inputs)))))
        return (bent + self.straight(inputs))[..., 0]
