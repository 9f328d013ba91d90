"""Arithmetic over cells, against plain loops."""

import jax
import numpy as np
import pytest

from models import cells

since_reset, own_start, shifted = jax.jit(cells.since_reset), jax.jit(cells.own_start), jax.jit(cells.shifted)
bias = jax.jit(cells.running_bias, static_argnums=2)
held = jax.jit(cells.held, static_argnums=2)
moving_mean = jax.jit(cells.moving_mean, static_argnums=2)
scaled = jax.jit(cells.scaled, static_argnums=3)


def random_cells(n=3, t=40, share=0.6, seed=1):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, t)).astype(np.float32), generator.random((n, t)) < share


def test_running_bias_is_the_loop_over_the_known_residuals():
    residual, known = random_cells()
    found = np.asarray(bias(residual, known, 0.05))
    for row in range(len(residual)):
        total = weight = 0.0
        for cell in range(residual.shape[1]):
            if known[row, cell]:
                total, weight = 0.95 * total + residual[row, cell], 0.95 * weight + 1.0
            assert found[row, cell] == pytest.approx(total / weight if weight else 0.0, abs=1e-5)


def test_running_bias_stays_exact_over_thousands_of_labels():
    residual = np.ones((1, 5000), np.float32)
    assert np.asarray(bias(residual, residual > 0, 0.3)) == pytest.approx(1.0, abs=1e-4)


def test_a_reset_hides_what_lies_before_it():
    age = np.array([[5, 6, 7, 1, 2, 3], [1, 2, 3, 4, 5, 6], [8, 9, 1, 2, 1, 2]], np.float32)
    found = np.asarray(since_reset(age, np.ones_like(age, bool)))
    assert found.tolist() == [[False] * 3 + [True] * 3, [True] * 6, [False] * 4 + [True] * 2]


def test_a_reset_is_seen_across_cells_that_are_not_observed():
    age = np.array([[5, 6, 0, 0, 2, 3]], np.float32)
    found = np.asarray(since_reset(age, np.array([[True, True, False, False, True, True]])))
    assert found.tolist() == [[False] * 4 + [True] * 2]


def test_own_start_is_the_mean_of_the_first_observed_cells_known_by_then():
    values, observed = random_cells(t=80)
    found = np.asarray(own_start(values, observed))
    for row in range(len(values)):
        for cell in range(values.shape[1]):
            first = values[row, : cell + 1][observed[row, : cell + 1]][: cells.BASELINE_CELLS]
            assert found[row, cell] == pytest.approx(first.mean() if len(first) else 0.0, abs=1e-5)


def test_moving_mean_takes_what_is_observed_in_the_last_cells():
    values, observed = random_cells()
    mean, there = moving_mean(values, observed, 4)
    for row in range(len(values)):
        for cell in range(values.shape[1]):
            span = slice(max(0, cell - 3), cell + 1)
            seen = values[row, span][observed[row, span]]
            assert bool(there[row, cell]) == (len(seen) > 0)
            if len(seen):
                assert float(mean[row, cell]) == pytest.approx(seen.mean(), abs=1e-5)
    last = jax.jit(cells.moving_mean, static_argnums=(2, 3))(values, observed, 4, 5)
    assert np.asarray(last[0]) == pytest.approx(np.asarray(mean)[:, -5:], abs=1e-6)
    assert np.array_equal(last[1], there[:, -5:])


def test_a_value_is_held_for_so_many_cells_and_no_longer():
    values = np.array([[3.0, 0.0, 0.0, 0.0, 5.0]], np.float32)
    filled, fresh = held(values, values > 0, 2)
    assert np.asarray(filled).tolist() == [[3.0, 3.0, 3.0, 0.0, 5.0]]
    assert np.asarray(fresh).tolist() == [[True, True, True, False, True]]


def test_shifted_by_a_number_of_its_own_per_row():
    series = np.arange(8, dtype=np.float32).reshape(2, 4)
    found = np.asarray(shifted(series, np.array([[1], [3]]), -1.0))
    assert found.tolist() == [[-1, 0, 1, 2], [-1, -1, -1, 4]]


def test_scale_of_a_constant_feature_is_one_and_of_no_cell_at_all_too():
    values = np.stack([np.full((2, 9), 518.67), np.zeros((2, 9)), np.arange(18.0).reshape(2, 9)], 1).astype(np.float32)
    observed = np.ones_like(values, bool)
    observed[:, 1] = False
    found = cells.scale(values, observed)
    assert found["scale"][:2].tolist() == [1.0, 1.0]
    assert found["scale"][2] == pytest.approx(np.arange(18).std(), rel=1e-5)
    assert found["mean"] == pytest.approx([518.67, 0.0, 8.5])


def test_a_spike_is_clipped_and_what_is_not_observed_is_the_mean():
    scale = {"mean": np.array([10.0], np.float32), "scale": np.array([2.0], np.float32)}
    values = np.array([[[1e9, -1e9, 12.0, 1e9]]], np.float32)
    found = scaled(scale, values, np.array([[[True, True, True, False]]]), 5.0)
    assert np.asarray(found).tolist() == [[[5.0, -5.0, 1.0, 0.0]]]


@pytest.mark.parametrize("length", [1, 15, 16, 17, 50])
def test_the_own_start_is_the_mean_of_what_was_seen_of_it_by_then(length):
    generator = np.random.default_rng(length)
    values = generator.normal(100.0, 1.0, (2, 3, length)).astype(np.float32)
    observed = generator.random(values.shape) < 0.7
    found = np.asarray(own_start(values, observed))
    for place in np.ndindex(values.shape):
        until = (*place[:2], slice(0, place[2] + 1))
        first = values[until][observed[until]][: cells.BASELINE_CELLS]
        assert found[place] == pytest.approx(first.mean() if len(first) else 0.0, abs=1e-3)
