"""Intervals that learn from their own misses, and what lies beyond a limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.scipy.stats import norm

from models.intervals import adaptive_misses, quantile, share_below

LATE, FEWEST, RATE = 3, 12, 0.02
program = jax.jit(
    lambda error, judged: adaptive_misses(error, judged, jnp.full((len(error), 1), LATE), 0.1, RATE, FEWEST)
)


def aim(error, judged):
    return np.asarray(program(error, judged))


def plain(error, judged):
    """The same by a loop over the cells of one row, and how many errors missed."""
    aims, missed, counted = [0.1], 0, 0
    for cell in range(len(error)):
        known = error[: max(0, cell - LATE + 1)][judged[: max(0, cell - LATE + 1)]]
        aims.append(aims[-1])
        if not judged[cell] or len(known) < FEWEST:
            continue
        extreme = abs(2 * (np.sum(known < error[cell]) + 0.5) / (len(known) + 1) - 1)
        miss = extreme > 1 - aims[max(0, cell - LATE)]
        aims[-1] = min(max(aims[-1] + RATE * (0.1 - miss), 0.0), 0.5)
        missed, counted = missed + miss, counted + 1
    return aims[-1], missed, counted


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 1.0), st.floats(0.2, 4.0))
def test_the_aim_is_that_of_a_plain_loop_and_its_misses_are_bounded(seed, share, growth):
    generator = np.random.default_rng(seed)
    error = generator.normal(size=120) * np.linspace(1.0, growth, 120)
    judged = generator.random(120) < share
    found = float(aim(error[None].astype(np.float32), judged[None])[0])
    wanted, missed, counted = plain(error.astype(np.float32), judged)
    assert found == pytest.approx(wanted, abs=1e-4)
    # Gibbs & Candès, proposition 4.1; what the clipping at 0 gives away comes on top.
    if counted and 0.0 < found < 0.5 and growth <= 1.0:
        assert abs(missed / counted - 0.1) <= (1.0 + RATE) / (RATE * counted)


def test_after_misses_the_interval_is_wider_and_without_them_narrower():
    calm = np.tile(np.sin(np.arange(120.0)), (2, 1)).astype(np.float32)
    calm[1, 60:] *= np.linspace(1.2, 6.0, 60)
    quiet, rising = aim(calm, np.ones(calm.shape, bool))
    assert rising < 0.05
    assert quiet == pytest.approx(0.1, abs=0.05)


def test_padding_in_front_and_what_is_not_judged_change_nothing():
    error = np.random.default_rng(1).normal(size=(1, 80)).astype(np.float32)
    judged = np.random.default_rng(2).random((1, 80)) < 0.8
    alone = aim(error, judged)
    padded = aim(np.pad(error, ((0, 0), (40, 0)), constant_values=9.0), np.pad(judged, ((0, 0), (40, 0))))
    assert padded == pytest.approx(alone, abs=1e-6)
    assert aim(np.where(judged, error, 1e3), judged) == pytest.approx(alone, abs=1e-6)


def test_few_errors_leave_the_aim_where_it_begins():
    assert aim(np.ones((1, 80), np.float32), np.arange(80)[None] < FEWEST) == pytest.approx(0.1)


def test_the_conformal_quantile_of_the_chosen():
    scores = jnp.arange(1.0, 10.0)[None]
    chosen = jnp.ones((1, 9), bool)
    assert [float(quantile(scores, chosen, level)[0]) for level in (0.1, 0.5, 0.85, 1.0)] == [1, 5, 9, 9]
    assert quantile(scores, scores <= 4, 0.5).tolist() == [3]


@settings(max_examples=20, deadline=None)
@given(st.floats(-50, 50), st.floats(0.01, 100), st.floats(-3, 3))
def test_a_symmetric_interval_is_a_normal_distribution(middle, deviation, limit):
    low, high = (jnp.asarray(middle + side * 1.6449 * deviation) for side in (-1.0, 1.0))
    found = share_below(middle + limit * deviation, low, jnp.asarray(middle), high)
    assert found == pytest.approx(float(norm.cdf(limit)), abs=2e-2)


def test_beyond_no_limit_there_is_nothing_and_a_side_may_have_no_width():
    low, middle, high = (jnp.asarray(value) for value in (1.0, 2.0, 2.0))
    assert share_below(-jnp.inf, low, middle, high) == 0
    assert share_below(jnp.inf, low, middle, high) == 1
    assert share_below(2.1, low, middle, high) == pytest.approx(1.0)
    assert np.isnan(share_below(1.0, low, middle, jnp.asarray(jnp.nan)))
