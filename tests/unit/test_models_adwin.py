"""The adaptive window: quiet where nothing changes, quick where something does."""

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.adwin import Adwin


def follow(values, false_alarms=0.002):
    window, cuts = Adwin(false_alarms), []
    for place, value in enumerate(values):
        window, cut = window.add(float(value))
        if cut is not None:
            cuts.append((place, cut))
    return window, cuts


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["uniform", "coin", "constant"]))
def test_where_nothing_changes_nothing_is_forgotten(seed, kind):
    generator = np.random.default_rng(seed)
    values = {
        "uniform": generator.random(600),
        "coin": generator.integers(0, 2, 600).astype(float),
        "constant": np.full(600, 0.3),
    }[kind]
    window, cuts = follow(values)
    assert len(cuts) <= 1  # 0.002 of 600 values at the most: and the bound is far from sharp
    assert window.count == 600 if not cuts else window.count < 600


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.floats(0.35, 0.6), st.booleans())
def test_a_step_is_noticed_and_what_was_before_it_forgotten(seed, step, down):
    generator = np.random.default_rng(seed)
    values = np.concatenate([0.4 * generator.random(200), step + 0.4 * generator.random(60)])
    window, cuts = follow(1.0 - values if down else values)
    place, cut = cuts[0]
    assert 200 <= place < 240
    assert (cut.after < cut.before) == down
    assert abs(cut.after - cut.before) > cut.limit
    assert window.count <= 60 + 32  # the boundary of a bucket may lie before the step


def test_buckets_add_up_and_stay_few():
    values = np.random.default_rng(3).random(3000)
    window, _ = follow(values, false_alarms=1e-12)
    assert window.count == 3000
    assert sum(bucket.total for bucket in window.buckets) == pytest.approx(values.sum())
    assert sum(bucket.squares for bucket in window.buckets) == pytest.approx((values**2).sum())
    sizes = [bucket.count for bucket in window.buckets]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) <= 5 * 12


def test_the_state_is_a_value_and_following_can_go_on_from_it():
    values = np.random.default_rng(4).random(80)
    whole, _ = follow(values)
    steps = list(accumulate(values, lambda window, value: window.add(float(value))[0], initial=Adwin()))
    assert steps[-1] == whole
    assert steps[40].count == 40
    assert Adwin(buckets=steps[40].buckets).add(float(values[40]))[0] == steps[41]


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_what_is_no_share_is_refused(value):
    with pytest.raises(ValueError, match="from 0 to 1"):
        Adwin().add(value)
