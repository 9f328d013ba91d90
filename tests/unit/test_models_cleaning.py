"""Cleaning: what each step takes, that it never looks ahead, and which runs are odd."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.cleaning import Cleaning, clean, odd_runs

NOWHERE = np.full((1, 1), np.nan)


def cleaned(steps, series, low=np.nan, high=np.nan, observed=None):
    """Which cells of one series each step takes."""
    values = np.array(series, np.float32)[None, None]
    seen = np.ones(values.shape, bool) if observed is None else np.array(observed, bool)[None, None]
    found = clean(steps, values, seen, np.array([True]), np.full((1, 1), low), np.full((1, 1), high))
    assert (found.values[~found.observed] == 0).all()
    return {name: np.flatnonzero(cells[0, 0]).tolist() for name, cells in found.removed.items()}


def test_what_the_instrument_can_not_show_is_taken():
    assert cleaned(Cleaning(range=True), [-1, 0, 5, 10, 11], 0, 10) == {"range": [0, 4]}
    assert cleaned(Cleaning(range=True), [-1, 0, 5, 10, 11]) == {"range": []}, "no range is known"


def test_a_spike_is_taken_and_a_step_is_believed_when_half_have_followed():
    noise = np.tile([0.0, 0.1, -0.1], 7)
    spiked = noise.copy()
    spiked[12] = 5.0
    assert cleaned(Cleaning(spike=4.0, spike_cells=7), spiked) == {"spike": [12]}
    stepped = noise.copy()
    stepped[12:] += 5.0
    assert cleaned(Cleaning(spike=4.0, spike_cells=7), stepped) == {"spike": [12, 13, 14]}


def test_a_tag_that_stood_still_may_move_a_little_and_its_spikes_are_still_seen():
    series = [1.0] * 10 + [1.4] + [1.0] * 3 + [9.0] + [1.0] * 3
    steps = Cleaning(spike=5.0, spike_cells=7)
    assert cleaned(steps, series, 0, 100) == {"spike": [14]}, "less than 1 % of the range is no spike"
    assert cleaned(steps, series) == {"spike": []}, "no range and no noise: nothing to measure it by"


def test_a_value_that_does_not_move_is_taken_until_it_moves():
    observed = [1, 1, 1, 0, 1, 1, 1, 1]
    found = cleaned(Cleaning(stuck=3), [5, 5, 5, 0, 5, 5, 6, 6], observed=observed)
    assert found == {"stuck": [4, 5]}, "a cell without a sample ends nothing, and is not taken"


def test_a_step_does_not_see_what_the_one_before_it_took():
    found = cleaned(Cleaning(range=True, stuck=3), [99, 5, 5, 5, 5, 5], 0, 10)
    assert found == {"range": [0], "stuck": [5]}


def test_only_the_chosen_features_are_cleaned():
    values, seen = np.full((1, 2, 3), 99.0, np.float32), np.ones((1, 2, 3), bool)
    steps = Cleaning(range=True)
    chosen = steps.chosen(("age", "a"), {"age": "age"})
    found = clean(steps, values, seen, chosen, np.zeros((1, 2)), np.ones((1, 2)))
    assert found.observed[0, 0].all()
    assert not found.observed[0, 1].any()
    assert Cleaning(features=("age",)).chosen(("age", "a"), {"age": "age"}).tolist() == [True, False]


def test_without_steps_nothing_is_touched():
    values = np.ones((2, 1, 4), np.float32)
    found = clean(Cleaning(), values, np.ones(values.shape, bool), np.array([True]), NOWHERE, NOWHERE)
    assert found.values is values
    assert found.removed == {}
    assert Cleaning().as_spec() == {}
    assert Cleaning.of(Cleaning(range=True, features=("a",)).as_spec()) == Cleaning(range=True, features=("a",))


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float32, (2, 2, 20), elements=st.integers(-3, 9).map(float)),
    arrays(np.bool_, (2, 2, 20)),
    st.integers(1, 19),
)
def test_no_step_looks_ahead(values, observed, end):
    steps = Cleaning(range=True, spike=2.0, spike_cells=5, stuck=2)
    ends = np.zeros((2, 2)), np.full((2, 2), 8.0)
    whole = clean(steps, values, observed, np.array([True, True]), *ends)
    cut = clean(steps, values[..., :end], observed[..., :end], np.array([True, True]), *ends)
    assert np.array_equal(whole.observed[..., :end], cut.observed)
    assert not (whole.observed & ~observed).any()


def test_more_rows_than_are_cleaned_at_a_time_are_cleaned_alike():
    generator = np.random.default_rng(1)
    values = generator.normal(size=(130, 1, 30)).astype(np.float32)
    values[:, 0, 20] = 50.0
    found = clean(
        Cleaning(spike=6.0), values, np.ones(values.shape, bool), np.array([True]),
        np.full((130, 1), np.nan), np.full((130, 1), np.nan),
    )  # fmt: skip
    assert found.removed["spike"][:, 0, 20].all()


def test_a_run_far_from_the_fleet_is_odd_and_of_a_few_none_is():
    generator = np.random.default_rng(2)
    values = generator.normal(size=(8, 2, 30)).astype(np.float32)
    values[5, 1] += 100.0
    group, seen = np.arange(8, dtype=np.int32), np.ones(values.shape, bool)
    both = np.array([True, True])
    assert odd_runs(Cleaning(odd=8.0), values, seen, group, both) == {5: [1]}
    assert odd_runs(Cleaning(odd=8.0), values, seen, group, np.array([True, False])) == {}
    assert odd_runs(Cleaning(odd=0.0), values, seen, group, both) == {}
    assert odd_runs(Cleaning(odd=8.0), values[4:], seen[4:], group[4:], both) == {}


@pytest.mark.filterwarnings("error")
def test_what_was_never_observed_disturbs_nothing():
    values = np.zeros((6, 1, 10), np.float32)
    seen = np.zeros(values.shape, bool)
    seen[0] = True
    steps = Cleaning(range=True, spike=3.0, stuck=2, odd=3.0)
    found = clean(steps, values, seen, np.array([True]), np.zeros((6, 1)), np.ones((6, 1)))
    assert not found.observed[1:].any()
    assert odd_runs(steps, values, seen, np.arange(6, dtype=np.int32), np.array([True])) == {}
