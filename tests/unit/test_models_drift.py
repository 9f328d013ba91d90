"""Drift of values that are alike from cell to cell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.adwin import Adwin
from models.drift import Reference, Watch, correlation_time, coverage, distance

MEMORY = 0.9
TIME = (1 + MEMORY) / (1 - MEMORY)
"""Of an autoregression with this memory."""


def wandering(cells, seed, memory=MEMORY):
    """A stationary autoregression of order 1 with deviation 1."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=cells) * np.sqrt(1 - memory**2)
    values = np.empty(cells)
    last = generator.normal()
    for cell in range(cells):
        last = values[cell] = memory * last + noise[cell]
    return values


@pytest.fixture(scope="module")
def reference():
    return Reference.of(wandering(20_000, 1)[None])


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 100), st.sampled_from([0.0, 0.5, 0.9]))
def test_the_correlation_time_of_an_autoregression(seed, memory):
    found = correlation_time(wandering(20_000, seed, memory)[None])
    assert found == pytest.approx((1 + memory) / (1 - memory), rel=0.35)


def test_holes_do_not_change_the_correlation_time_nor_does_a_level_of_each_row():
    rows = np.stack([wandering(4000, seed) + 100 * seed for seed in range(4)])
    whole = correlation_time(rows)
    rows[np.random.default_rng(1).random(rows.shape) < 0.3] = np.nan
    assert correlation_time(rows) == pytest.approx(whole, rel=0.15)
    assert correlation_time(rows[:, :10]) == 1.0
    assert correlation_time(np.full((2, 50), 3.0)) == 1.0


@settings(max_examples=6, deadline=None)
@given(st.integers(2, 10_000))
def test_a_stationary_plant_raises_no_alarm(seed):
    reference = Reference.of(wandering(8000, seed)[None])
    # 400 means of a correlation time each: at 0.002, less than one is to be expected.
    _, shifts = Watch(reference, Adwin()).follow(wandering(8000, seed + 20_000))
    assert len(shifts) <= 1


def test_taken_for_independent_the_same_values_alarm_for_ever(reference):
    hasty = Reference(reference.quantiles, 1, reference.independent)
    found = [len(Watch(hasty, Adwin()).follow(wandering(4000, seed))[1]) for seed in range(3)]
    assert min(found) > 3


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([-2.0, 2.0]))
def test_a_step_of_two_deviations_is_noticed_within_fifty_independent_values(reference, seed, step):
    values = wandering(5000, seed)
    values[3000:] += step
    _, shifts = Watch(reference, Adwin()).follow(values)
    first = next(shift for shift in shifts if shift.noticed >= 3000)
    assert first.noticed < 3000 + 50 * reference.spacing
    assert abs(first.since - 3000) <= 50 * reference.spacing  # of 500: 38 at most, 99 % within 22
    assert np.sign(first.statistic) == np.sign(step)


def test_following_in_pieces_is_following_at_once(reference):
    values = wandering(3000, 5)
    values[1500:] += 3
    values[::7] = np.nan
    whole, shifts = Watch(reference, Adwin()).follow(values)
    watch, found = Watch(reference, Adwin()), []
    for start in range(0, 3000, 130):
        watch, some = watch.follow(values[start : start + 130])
        found += [(shift.since + start, shift.noticed + start) for shift in some]
    assert found == [(shift.since, shift.noticed) for shift in shifts]
    assert watch.window == whole.window
    assert watch.waiting == pytest.approx(whole.waiting, nan_ok=True)


def test_cells_without_any_value_do_not_count(reference):
    watch, shifts = Watch(reference, Adwin()).follow(np.full(10 * reference.spacing, np.nan))
    assert (watch.window.count, shifts) == (0, ())


def test_ranks_are_shares_of_the_training_and_ties_are_in_the_middle():
    known = Reference.of(np.array([[0.0] * 50 + list(np.arange(1.0, 51.0))]))
    assert known.ranks(np.array([-5.0, 0.0, 25.0, 99.0])) == pytest.approx([0.0, 0.25, 0.75, 1.0], abs=0.02)
    assert np.isnan(known.ranks(np.array([np.nan]))).all()
    with pytest.raises(ValueError, match="nothing was observed"):
        Reference.of(np.full((1, 3), np.nan))


def test_inputs_as_in_training_are_not_far_and_others_are(reference):
    far = [distance(reference, wandering(1000, seed)) for seed in range(100, 160)]
    assert sum(each.drifted for each in far) == 0
    assert distance(reference, wandering(1000, 7) + 1.5).drifted
    assert distance(reference, 3.0 * wandering(2000, 8)).drifted
    few = distance(reference, np.full(2 * reference.spacing, 9.0))
    assert (few.drifted, few.limit) == (False, 1.0)


def test_an_interval_that_holds_as_often_as_it_says_is_not_told_of():
    generator = np.random.default_rng(9)
    found = [coverage(generator.random(300) < 0.9, 0.9) for _ in range(100)]
    assert sum(each.drifted for each in found) <= 1
    assert coverage(generator.random(300) < 0.75, 0.9).drifted
    assert coverage(np.ones(300, bool), 0.9).drifted
    assert not coverage(np.ones(20, bool), 0.9).drifted


def test_misses_that_come_together_count_as_fewer():
    runs = np.repeat(np.random.default_rng(10).random(30) < 0.8, 20)
    alone = np.random.default_rng(11).permutation(runs)
    together, apart = coverage(runs, 0.9), coverage(alone, 0.9)
    assert together.share == apart.share
    assert together.independent < 0.3 * apart.independent
    assert together.low < apart.low


def test_binomial_bounds_are_those_of_the_distribution():
    found = coverage(np.arange(100) % 10 > 0, 0.9, false_alarms=0.05)
    assert (found.independent, found.low, found.high) == (100, 0.84, 0.95)  # P(k < 84) and P(k > 95) are below 2.5 %
    with pytest.raises(ValueError, match="no outcome"):
        coverage(np.zeros(0, bool), 0.9)
