"""What each of several forecasters is worth, by their errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.blend import shares
from models.horizons import mixed


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 3))
def test_no_other_shares_have_a_smaller_error(seed, count):
    generator = np.random.default_rng(seed)
    parts, truth = generator.normal(size=(count, 12)), generator.normal(size=12)
    found = shares(tuple(parts), truth)
    assert found.min() >= 0.0
    assert found.sum() == pytest.approx(1.0)
    others = generator.dirichlet(np.full(count, 0.5), 300)
    least = np.mean((others @ parts - truth) ** 2, 1).min()
    assert np.mean((found @ parts - truth) ** 2) <= least + 1e-9


def test_who_is_right_has_all_and_who_misleads_nothing():
    truth = np.linspace(-1.0, 1.0, 20)
    wave = np.cos(5.0 * truth)
    assert shares((truth + wave, truth, -truth), truth) == pytest.approx([0.0, 1.0, 0.0])
    assert shares((truth + wave, truth - wave, -truth), truth) == pytest.approx([0.5, 0.5, 0.0])


def test_parts_that_say_the_same_are_worth_what_one_of_them_is():
    truth = np.linspace(-1.0, 1.0, 20).astype(np.float32)
    same = shares((truth, truth, truth), truth)
    assert same.sum() == pytest.approx(1.0)
    wrong = truth + 1.0
    found = shares((wrong, wrong, truth), truth)
    assert found @ np.stack([wrong, wrong, truth]) == pytest.approx(truth)


def test_what_the_network_and_the_trees_leave_is_the_ridges():
    share = np.array([[0.5, 0.0], [0.25, 0.0]])
    assert mixed(share, np.array([4.0, 7.0]), 8.0, 0.0).tolist() == [5.0, 7.0]
