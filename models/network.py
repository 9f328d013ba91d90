"""The networks, as ``flax.nnx`` modules; they are defined and born here, and run from pure dicts of arrays."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from models.gates import CELLS, Carry, Cell, Step, mingru, scale_and_shift, tanh, where_seen
from models.kind import Params

M = TypeVar("M", bound=nnx.Module)


def born(build: Callable[[nnx.Rngs], nnx.Module], keys: jax.Array) -> Params:
    """Weights of an ensemble, one member per key, each leaf with the members as its first axis.

    One member after the other: jaxlib deals a batch of LAPACK calls (orthogonal weights are a QR) out to XLA's threads
    and waits for them inside one, so that two such batches side by side wait for ever where there are two threads, and
    every prediction behind them.
    """

    def member(key: jax.Array) -> Params:
        return nnx.to_pure_dict(nnx.state(build(nnx.Rngs(params=key))))

    weights: Params = jax.jit(lambda keys: jax.lax.map(member, keys))(keys)
    return weights


def bound(build: Callable[[nnx.Rngs], M], weights: Params) -> M:
    """The module with one member's weights; only the trace pays for this, the compiled program holds arrays alone."""
    graph, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
    nnx.replace_by_pure_dict(state, weights)
    return nnx.merge(graph, state)


class Layer(nnx.Module):
    """One recurrent layer.

    Over whole windows the input's share of the gates is one matrix product over all cells, so a scan holds only the
    recurrent one: what training wants.
    """

    def __init__(self, inputs: int, hidden: int, cell: Cell = "lstm", *, rngs: nnx.Rngs) -> None:
        shape = CELLS[cell]
        self.cell = cell
        self.hidden = hidden
        self.gates = nnx.Linear(inputs, shape.gates * hidden, kernel_init=nnx.initializers.lecun_normal(), rngs=rngs)
        if shape.step is not None:
            self.recurrent = nnx.Param(nnx.initializers.orthogonal()(rngs.params(), (hidden, shape.gates * hidden)))

    def states(self, inputs: jax.Array, seen: jax.Array) -> jax.Array:
        """[b, t, d] and [b, t] to [b, t, hidden] after each cell."""
        gates, advance = self.gates(inputs), CELLS[self.cell].step
        if advance is None:
            return mingru(gates, seen)
        weights = self.recurrent[...]

        def step(carry: Carry, now: tuple[jax.Array, jax.Array]) -> tuple[Carry, jax.Array]:
            kept = where_seen(now[1], advance(carry, now[0], _product(carry[0], weights)), carry)
            return kept, kept[0]

        _, states = jax.lax.scan(step, self.start(inputs[:, 0]), (jnp.swapaxes(gates, 0, 1), seen.T))
        return jnp.swapaxes(states, 0, 1)

    def start(self, entered: jax.Array) -> Carry:
        """What is carried into the first cell, whose input is [..., d]."""
        nothing = jnp.zeros((*entered.shape[:-1], self.hidden), entered.dtype)
        return (nothing,) * CELLS[self.cell].carried

    def stepper(self, advance: Step) -> Callable[[Carry, jax.Array, jax.Array], Carry]:
        """What is carried, one cell's input [b, d] and whether it is seen [b] to what is carried on.

        The weights are made ready once.
        """
        gates: Any = self.gates
        kernel, bias, recurrent = gates.kernel[...], gates.bias[...], self.recurrent[...]
        joined = CELLS[self.cell].joined

        def step(carry: Carry, entered: jax.Array, seen: jax.Array) -> Carry:
            given, returned = _product(entered, kernel) + bias, _product(carry[0], recurrent)
            return where_seen(seen, advance(carry, given, returned), carry)

        if joined is None:
            return step
        scale, shift = scale_and_shift(self.hidden)
        weights, bias = jnp.concatenate([kernel, recurrent]), scale * (bias + shift)
        weights = scale.astype(weights.dtype) * weights

        def joined_step(carry: Carry, entered: jax.Array, seen: jax.Array) -> Carry:
            # The barrier keeps the compiler from making two products of the one.
            both = jax.lax.optimization_barrier(jnp.concatenate([entered, carry[0]], -1))  # type: ignore[no-untyped-call]
            return joined(carry, _product(both, weights) + bias, seen)

        return joined_step

    def alone(self, advance: Step, entered: jax.Array, seen: jax.Array) -> tuple[Carry, jax.Array]:
        """Of one window's cells [t, d] and [t]: what is carried after the last, and each state [t, hidden].

        A state is no row of a matrix: the compiler copies a row before it multiplies it.
        """
        gates, recurrent, alone = self.gates(entered), self.recurrent[...], CELLS[self.cell].alone
        if alone is not None:
            scale, shift = scale_and_shift(self.hidden)
            gates, recurrent = scale * (gates + shift), scale.astype(recurrent.dtype) * recurrent

        def step(carry: Carry, now: tuple[jax.Array, jax.Array]) -> tuple[Carry, jax.Array]:
            returned = _product(carry[0], recurrent)
            fresh = advance(carry, now[0], returned) if alone is None else alone(carry, now[0] + returned)
            kept = where_seen(now[1], fresh, carry)
            return kept, kept[0]

        return jax.lax.scan(step, self.start(entered[0]), (gates, seen))


class Recurrent(Layer):
    """Recurrent layers with ``outputs`` numbers at every cell of a window, each from the cells up to it alone."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, cell: Cell = "lstm", layers: int = 1, *, rngs: nnx.Rngs
    ) -> None:
        super().__init__(inputs, hidden, cell, rngs=rngs)
        if layers > 1:
            above = range(2, layers + 1)
            self.above = nnx.Dict({f"layer_{number}": Layer(hidden, hidden, cell, rngs=rngs) for number in above})
        self.head = nnx.Linear(hidden, outputs, kernel_init=nnx.initializers.normal(0.1 / hidden**0.5), rngs=rngs)

    def __call__(self, inputs: jax.Array, seen: jax.Array) -> jax.Array:
        """[b, t, d] and [b, t] to [b, t, outputs]; a cell that is not seen leaves the state as it was."""
        return self.head(self._all_states(inputs, seen))

    def last(self, inputs: jax.Array, seen: jax.Array) -> jax.Array:
        """[b, outputs] of the last cell alone: two to three times as fast, and what a trained network is run by.

        All layers take a step in one scan that stores nothing, so that a block of windows stays in the processor's
        cache; a gate's input and state stand side by side before one matrix. One window goes through layer after layer.
        """
        if (advance := CELLS[self.cell].step) is None:
            return self.head(self._all_states(inputs, seen)[:, -1])
        if len(inputs) == 1:
            return self.head(self._of_one(advance, inputs[0], seen[0]))[None]
        layers = self._layers()
        steppers = [layer.stepper(advance) for layer in layers]

        def step(carried: list[Carry], now: tuple[jax.Array, jax.Array]) -> tuple[list[Carry], None]:
            entered, after = now[0], []
            for stepper, carry in zip(steppers, carried, strict=True):
                after.append(stepper(carry, entered, now[1]))
                entered = after[-1][0]
            return after, None

        start = [layer.start(inputs[:, 0]) for layer in layers]
        carried, _ = jax.lax.scan(step, start, (jnp.swapaxes(inputs, 0, 1), seen.T))
        return self.head(carried[-1][0])

    def _of_one(self, advance: Step, entered: jax.Array, seen: jax.Array) -> jax.Array:
        """The last state [hidden] of one window's cells [t, d] and [t].

        What it costs is to fetch the weights at each cell: those of a layer's input are fetched once, for all cells.
        """
        carried: Carry = ()
        for layer in self._layers():
            carried, entered = layer.alone(advance, entered, seen)
        return carried[0]

    def _layers(self) -> list[Layer]:
        return [self, *(self.above.values() if hasattr(self, "above") else ())]

    def _all_states(self, inputs: jax.Array, seen: jax.Array) -> jax.Array:
        for layer in self._layers():
            inputs = layer.states(inputs, seen)
        return inputs


def _product(inputs: jax.Array, weights: jax.Array) -> jax.Array:
    """Of numbers as wide as the weights (float32 or bfloat16), summed in float32."""
    return jnp.matmul(inputs.astype(weights.dtype), weights, preferred_element_type=jnp.float32)


class Ahead(nnx.Module):
    """Three numbers for each horizon, from what a recurrent layer remembers and from a table of the horizon's own."""

    def __init__(
        self, inputs: int, columns: int, horizons: int, hidden: int, cell: Cell = "lstm", *, rngs: nnx.Rngs
    ) -> None:
        self.memory = Recurrent(inputs, hidden, hidden, cell, rngs=rngs)
        spread = (1.0 / (columns + hidden)) ** 0.5
        self.first = nnx.Param(spread * jax.random.normal(rngs.params(), (horizons, columns + hidden, hidden)))
        self.bias = nnx.Param(jnp.zeros((horizons, hidden)))
        self.last = nnx.Param(0.1 / hidden**0.5 * jax.random.normal(rngs.params(), (horizons, hidden, 3)))

    def __call__(self, inputs: jax.Array, seen: jax.Array, table: jax.Array) -> jax.Array:
        """[b, t, d], [b, t] and, of the last cells, [b, last, horizons, columns] to [b, last, horizons, 3]."""
        asked = table.shape[1]
        known = (self.memory.last(inputs, seen)[:, None] if asked == 1 else self.memory(inputs, seen)[:, -asked:])[
            :, :, None
        ]
        known = jnp.broadcast_to(known, (*table.shape[:3], known.shape[-1]))
        both = jnp.concatenate([table, known], -1)
        bent = jnp.tanh(jnp.einsum("blhd,hdw->blhw", both, self.first[...]) + self.bias[...])
        return jnp.einsum("blhw,hwq->blhq", bent, self.last[...])


class Modes(nnx.Module):
    """A failure comes when one of several modes does, a mode when all its conditions hold: a smooth OR (log-sum-exp) of
    smooth ANDs of half-spaces, as in a fault tree. Max of min of linear functions is any piecewise linear one
    (Ovchinnikov 2002), and it is sharp where a layer of tanh takes many examples to be.
    """

    def __init__(self, inputs: int, modes: int, *, rngs: nnx.Rngs) -> None:
        born = nnx.initializers.lecun_normal()
        self.conditions = nnx.Linear(inputs, modes * CONDITIONS, kernel_init=born, rngs=rngs)
        self.rarely = nnx.Param(jnp.full((), -4.0))

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """[..., d] to the logit [...]."""
        held = _SHARPNESS * self.conditions(inputs)
        held = held.reshape(*held.shape[:-1], -1, CONDITIONS)
        mode = -jax.nn.logsumexp(-held, -1)
        return jax.nn.logsumexp(mode, -1) + self.rarely[...]


CONDITIONS = 3
"""Of a mode; those that it does not need learn to hold always."""
_SHARPNESS = 8.0
"""A price on weights keeps them small, and a limit that machines fail at is far narrower than a standard deviation."""


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
        bent = self.head(tanh(self.second(tanh(self.first(inputs)))))
        return (bent + self.straight(inputs))[..., 0]
