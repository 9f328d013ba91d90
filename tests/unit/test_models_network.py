"""The recurrent network, by kind of cell."""

from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.gates import Cell, _tanh, tanh
from models.network import Layer, Recurrent, born, bound

CELLS = get_args(Cell)
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(3, 9, 4)).astype(np.float32)
SEEN = np.ones((3, 9), bool)


def network(cell):
    """A program of inputs and what is seen, with weights that are not small, and the weights."""
    build = lambda rngs: Recurrent(4, 5, 2, cell, rngs=rngs)  # noqa: E731
    weights = jax.tree.map(lambda leaf: 3.0 * leaf[0], born(build, jax.random.split(jax.random.key(1), 1)))
    program = jax.jit(lambda weights, inputs, seen: bound(build, weights)(inputs, seen))
    return lambda inputs, seen: np.asarray(program(weights, inputs, seen)), weights


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_gives_as_many_numbers_as_asked_for(cell):
    run, _ = network(cell)
    found = run(INPUTS, SEEN)
    assert found.shape == (3, 9, 2)
    assert found.dtype == np.float32


@pytest.mark.parametrize("cell", CELLS)
def test_what_comes_later_changes_nothing(cell):
    run, _ = network(cell)
    later = INPUTS.copy()
    later[:, 6:] += 1.0
    found, wanted = run(later, SEEN), run(INPUTS, SEEN)
    assert found[:, :6] == pytest.approx(wanted[:, :6], abs=1e-6)
    assert np.abs(found[:, 6:] - wanted[:, 6:]).max() > 0.01


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_that_is_not_seen_is_as_if_it_were_not_there(cell):
    run, _ = network(cell)
    hidden = SEEN.copy()
    hidden[:, [0, 4, 5]] = False
    holes = np.where(hidden[..., None], INPUTS, 7.0)
    wanted = run(INPUTS[:, hidden[0]], SEEN[:, :6])
    assert run(holes, hidden)[:, hidden[0]] == pytest.approx(wanted, abs=1e-5)


def sigmoid(value):
    return 1.0 / (1.0 + np.exp(-value))


def by_hand(cell, weights):
    """One row of inputs, cell by cell, as the papers have it."""
    kernel, bias = weights["gates"]["kernel"], weights["gates"]["bias"]
    state = memory = np.zeros(5)
    for entered in INPUTS[0] @ kernel + bias:
        if cell == "lstm":
            enter, forget, content, leave = np.split(entered + state @ weights["recurrent"], 4)
            memory = sigmoid(forget + 1) * memory + sigmoid(enter) * np.tanh(content)
            state = sigmoid(leave) * np.tanh(memory)
        elif cell == "gru":
            returned = np.split(state @ weights["recurrent"], 3)
            reset, keep, content = np.split(entered, 3)
            reset, keep = sigmoid(reset + returned[0] + 1), sigmoid(keep + returned[1] + 1)
            state = keep * state + (1 - keep) * np.tanh(content + reset * returned[2])
        else:
            keep, content = np.split(entered, 2)
            state = sigmoid(keep + 1) * state + (1 - sigmoid(keep + 1)) * content
    return state @ weights["head"]["kernel"] + weights["head"]["bias"]


@pytest.mark.parametrize("cell", CELLS)
def test_the_equations_are_those_of_the_papers(cell):
    run, weights = network(cell)
    weights = jax.tree.map(partial(np.asarray, dtype=np.float64), weights)
    assert run(INPUTS, SEEN)[0, -1] == pytest.approx(by_hand(cell, weights), abs=1e-4)


@pytest.mark.parametrize("windows", [1, 3])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_the_last_cell_alone_is_the_same_number(cell, layers, windows):
    build = lambda rngs: Recurrent(4, 5, 2, cell, layers, rngs=rngs)  # noqa: E731
    weights = jax.tree.map(lambda leaf: 3.0 * leaf, born(build, jax.random.split(jax.random.key(1), 2)))
    inputs, seen = jnp.asarray(INPUTS[:windows]), jnp.asarray(RNG.random((windows, 9)) < 0.7)
    wanted = jax.vmap(lambda one: bound(build, one)(inputs, seen)[:, -1])(weights)
    found = jax.vmap(lambda one: bound(build, one).last(inputs, seen))(weights)
    assert found.shape == (2, windows, 2)
    assert np.asarray(found) == pytest.approx(np.asarray(wanted), abs=1e-5)


@pytest.mark.parametrize("windows", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_a_long_memory_strays_no_further(cell, windows):
    build = lambda rngs: Recurrent(4, 8, 1, cell, 2, rngs=rngs)  # noqa: E731
    weights = jax.tree.map(lambda leaf: 2.0 * leaf[0], born(build, jax.random.split(jax.random.key(1), 1)))
    values = RNG.normal(size=(windows, 500, 4)).astype(np.float32)
    values[:, 0] *= 1e4  # gates that are wide open, and shut
    inputs = jnp.asarray(values)
    seen = jnp.asarray(RNG.random((windows, 500)) < 0.9)
    wanted = jax.jit(lambda weights: bound(build, weights)(inputs, seen)[:, -1])(weights)
    found = jax.jit(lambda weights: bound(build, weights).last(inputs, seen))(weights)
    assert np.asarray(found) == pytest.approx(np.asarray(wanted), abs=1e-5)


def test_the_fraction_is_tanh():
    bent = np.concatenate([np.linspace(-12, 12, 200_001), np.geomspace(1e-6, 1, 1_000), [0, -np.inf, np.inf]])
    over, under = jax.jit(_tanh)(bent.astype(np.float32))
    assert np.asarray(over / under, np.float64) == pytest.approx(
        np.tanh(bent.astype(np.float32).astype(float)), abs=1e-6
    )
    assert np.abs(over / under).max() <= 1.0
    assert np.isnan(jnp.divide(*_tanh(jnp.asarray(np.nan))))


def test_the_fraction_has_the_slope_of_tanh():
    bent = np.array([-np.inf, -8.0, -3.0, -0.1, 0.0, 1e-6, 0.5, 2.0, 7.75, 40.0], np.float32)
    slope = jax.vmap(jax.grad(tanh))(bent)
    assert np.asarray(slope) == pytest.approx(1.0 - np.tanh(bent.astype(float)) ** 2, abs=1e-6)
    assert np.isnan(jax.grad(tanh)(jnp.nan))


@pytest.mark.parametrize("cell", CELLS)
def test_every_layer_reads_the_one_below(cell):
    build = lambda rngs: Recurrent(4, 5, 2, cell, 2, rngs=rngs)  # noqa: E731
    weights = jax.tree.map(lambda leaf: 3.0 * leaf[0], born(build, jax.random.split(jax.random.key(1), 1)))
    inputs, seen = jnp.asarray(INPUTS), jnp.asarray(SEEN)
    below = {name: weights[name] for name in weights if name in {"gates", "recurrent"}}
    states = bound(lambda rngs: Layer(4, 5, cell, rngs=rngs), below).states(inputs, seen)
    above = bound(lambda rngs: Layer(5, 5, cell, rngs=rngs), weights["above"]["layer_2"]).states(states, seen)
    wanted = above @ weights["head"]["kernel"] + weights["head"]["bias"]
    assert np.asarray(bound(build, weights)(inputs, seen)) == pytest.approx(np.asarray(wanted), abs=1e-5)


def test_members_are_born_without_a_batch_of_lapack_calls():
    """Two such batches side by side, as two layers are, wait for ever on a machine with two processors."""
    build = lambda rngs: Recurrent(4, 64, 2, layers=2, rngs=rngs)  # noqa: E731
    program = jax.jit(partial(born, build)).lower(jax.random.split(jax.random.key(1), 5)).as_text()
    calls = [line for line in program.splitlines() if "@lapack_" in line]
    assert calls
    assert not [line for line in calls if "tensor<5x" in line]


def test_the_first_member_is_what_it_would_be_alone():
    build = lambda rngs: Recurrent(4, 16, 2, layers=2, rngs=rngs)  # noqa: E731
    keys = jax.random.split(jax.random.key(1), 3)
    one, three = born(build, keys[:1]), born(build, keys)
    jax.tree.map(lambda alone, among: np.testing.assert_array_equal(alone[0], among[0]), one, three)
