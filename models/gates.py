"""Recurrent cells: what one makes of its gates and of what it is handed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from models.cells import recurrence

Cell = Literal["lstm", "gru", "mingru"]
"""Kinds of recurrent cell."""

Carry = tuple[jax.Array, ...]
"""What one cell hands to the next, the state [b, hidden] first."""

Step = Callable[[Carry, jax.Array, jax.Array], Carry]
"""What is carried, the input's share of the gates and the state's, to what is carried on."""

_LONG = 1.0
"""Bias of a gate that keeps what is known, as the forget bias of the LSTM."""
_HALVES = np.array([0.5, 0.5, 1.0, 0.5], np.float32)
"""Of the LSTM's gates, in their order."""
_FORGET = np.array([0.0, _LONG, 0.0, 0.0], np.float32)
_BENDS = 7.75
"""Beyond it tanh is 1."""
_OVER = (1.0939387e-5, 2.9039215e-3, 1.2880847e-1, 9.9999909e-1)
"""Of powers of the square, the highest first."""
_UNDER = (2.3065383e-7, 2.3213282e-4, 2.3620203e-2, 4.6213856e-1, 1.0)


def where_seen(seen: jax.Array, fresh: Carry, before: Carry) -> Carry:
    """A cell that is not seen hands on what it was handed."""
    return tuple(jnp.where(seen[..., None], new, old) for new, old in zip(fresh, before, strict=True))


def _lstm(carry: Carry, entered: jax.Array, returned: jax.Array) -> Carry:
    """Hochreiter & Schmidhuber 1997, forget gate: Gers et al. 2000. Gates: input, forget, content, output."""
    enter, forget, content, leave = jnp.split(entered + returned, 4, axis=-1)
    # A forget bias of 1, so that the memory is long before anything is learnt (Jozefowicz et al. 2015).
    memory = jax.nn.sigmoid(forget + 1.0) * carry[1] + jax.nn.sigmoid(enter) * jnp.tanh(content)
    return jax.nn.sigmoid(leave) * jnp.tanh(memory), memory


def scale_and_shift(hidden: int) -> tuple[jax.Array, jax.Array]:
    """Of an LSTM's sums of gates, the shift first; repeated by NumPy, so that they are constants of the program."""
    return jnp.asarray(np.repeat(_HALVES, hidden)), jnp.asarray(np.repeat(_FORGET, hidden))


def _lstm_joined(carry: Carry, gates: jax.Array, seen: jax.Array) -> Carry:
    """As :func:`_lstm` where a cell is seen, of gates that :func:`scale_and_shift` was applied to: a sigmoid is half
    of 1 + tanh of its half.

    Memory and state are a division each, and the compiler makes a program of each: what comes before a division
    is cheap enough to be computed in both, so that no gate is written to the processor's cache and read again.
    """
    over, under = _tanh(gates)
    enter, forget, content, leave = jnp.split(over, 4, axis=-1)
    enter_by, forget_by, content_by, leave_by = jnp.split(under, 4, axis=-1)
    added_by, there = enter_by * content_by, seen[..., None]
    summed = (forget_by + forget) * added_by * carry[1] + (enter_by + enter) * content * forget_by
    memory = jnp.where(there, summed, carry[1]) / jnp.where(there, 2.0 * forget_by * added_by, 1.0)
    told, told_by = _tanh(memory)
    state = (leave_by + leave) * told / (2.0 * leave_by * told_by)
    return jnp.where(there, state, carry[0]), memory


def _lstm_alone(carry: Carry, gates: jax.Array) -> Carry:
    """As :func:`_lstm_joined`, of one window and a cell that is seen: it stores the gates, for to add up their two
    shares in both programs would take longer."""
    enter, forget, content, leave = jnp.split(jnp.divide(*_tanh(gates)), 4, axis=-1)
    memory = 0.5 * ((1.0 + forget) * carry[1] + (1.0 + enter) * content)
    return 0.5 * (1.0 + leave) * jnp.divide(*_tanh(memory)), memory


def _tanh(bent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Numerator and denominator of a fraction that is within 2e-7 of tanh, rounding apart: the minimax one, by
    differential correction (Barrodale, Powell & Roberts 1972)."""
    bent = jnp.clip(bent, -_BENDS, _BENDS)
    square = bent * bent
    return bent * _polynomial(_OVER, square), _polynomial(_UNDER, square)


@jax.custom_jvp
def tanh(bent: jax.Array) -> jax.Array:
    """Within 2e-7 of ``jnp.tanh`` and never beyond 1; on processors a network of two such layers takes a fifth less."""
    return jnp.divide(*_tanh(bent))


tanh.defjvps(lambda moved, told, _: moved * (1.0 - told * told))


def _polynomial(parts: tuple[float, ...], square: jax.Array) -> jax.Array:
    """By Horner's rule; ``jnp.polyval`` takes one product more."""
    summed = parts[0] * square + parts[1]
    for part in parts[2:]:
        summed = summed * square + part
    return summed


def _gru(carry: Carry, entered: jax.Array, returned: jax.Array) -> Carry:
    """Cho et al. 2014, eq. 5 to 8, the reset after the product: one product a cell. Gates: reset, update, content."""
    width = carry[0].shape[-1]
    gates = jax.nn.sigmoid(entered[..., : 2 * width] + returned[..., : 2 * width] + _LONG)
    reset, keep = jnp.split(gates, 2, axis=-1)
    content = jnp.tanh(entered[..., 2 * width :] + reset * returned[..., 2 * width :])
    return (keep * carry[0] + (1.0 - keep) * content,)


def mingru(gates: jax.Array, seen: jax.Array) -> jax.Array:
    """Feng et al. 2024, algorithm 5, in log2(t) parallel steps. Gates: keep (one less their update), content."""
    keep, content = jnp.split(gates, 2, axis=-1)
    there = seen[..., None]
    keep = jnp.where(there, jax.nn.sigmoid(keep + _LONG), 1.0)
    return recurrence(keep, jnp.where(there, (1.0 - keep) * content, 0.0), axis=1)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a kind of cell consists of."""

    gates: int
    carried: int
    """Arrays that one cell hands to the next, the state first."""
    step: Step | None
    """None: no gate sees the state, and all cells are computed at once."""
    joined: Callable[[Carry, jax.Array, jax.Array], Carry] | None = None
    """The same of the sum of the two shares where that is enough, and of no cell that is not seen."""
    alone: Callable[[Carry, jax.Array], Carry] | None = None
    """The same for one window."""


CELLS = {
    "lstm": Shape(4, 2, _lstm, _lstm_joined, _lstm_alone),
    "gru": Shape(3, 1, _gru),
    "mingru": Shape(2, 1, None),
}
