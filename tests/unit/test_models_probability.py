"""Calibration, thresholds and figures of probabilities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import probability
from models.failure_held_out import HeldOut


def drawn(slope: float = 1.0, shift: float = 0.0, n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and what came: 1 with the probability sigmoid(slope · logit + shift)."""
    generator = np.random.default_rng(5)
    logit = generator.normal(-1, 2, n)
    return logit, (generator.random(n) < probability.sigmoid(slope * logit + shift)).astype(float)


def test_a_distorted_logit_is_put_right():
    logit, came = drawn(slope=0.5, shift=-1.0)
    slope, shift = probability.platt(logit[:, None], came)
    assert (slope, shift) == (pytest.approx(0.5, abs=0.05), pytest.approx(-1.0, abs=0.05))
    told = probability.sigmoid(slope * logit + shift)
    assert probability.reliability(told, came) < 0.01
    assert probability.reliability(probability.sigmoid(logit), came) > 0.1


def test_what_knows_nothing_or_the_opposite_tells_how_often_it_happens():
    logit, came = drawn(slope=-1.0)
    slope, shift = probability.platt(logit[:, None], came)
    assert slope == 0.0
    assert probability.sigmoid(np.array([shift]))[0] == pytest.approx(came.mean(), abs=0.001)


def test_what_is_parted_perfectly_is_not_certain():
    logit = np.concatenate([np.full(50, -3.0), np.full(5, 3.0)])
    slope, shift = probability.platt(logit[:, None], (logit > 0).astype(float))
    assert 0.5 < probability.sigmoid(np.array([slope * 3.0 + shift]))[0] < 0.95


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-50, 50), st.booleans()), min_size=2, max_size=40))
def test_a_calibration_is_monotone_and_finite(rows):
    logit, came = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], float)
    slope, shift = probability.platt(logit[:, None], came)
    assert slope >= 0.0
    assert np.isfinite([slope, shift]).all()


def test_two_logits_have_a_slope_each_and_what_knows_nothing_or_the_opposite_has_none():
    generator = np.random.default_rng(6)
    first, second, third = generator.normal(size=(3, 20_000))
    chance = probability.sigmoid(0.5 * first + 1.5 * second - 0.3 * third - 1.0)
    came = (generator.random(20_000) < chance).astype(float)
    logits = np.stack([first, second, third, np.ones(20_000)], 1)
    found = probability.platt(logits, came)
    assert found == pytest.approx([0.5, 1.5, 0.0, 0.0, -1.0], abs=0.1)
    told = probability.calibrated(logits, found)
    assert probability.reliability(told, came) < 0.01
    assert probability.average_precision(told, came > 0) > probability.average_precision(second, came > 0)


def test_average_precision_against_a_case_by_hand():
    score, came = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    assert probability.average_precision(score, came) == pytest.approx((1 + 2 / 3) / 2)
    assert probability.average_precision(np.ones(4), came) == pytest.approx(0.5)  # how often it comes
    assert np.isnan(probability.average_precision(score, np.zeros(4, bool)))


def test_the_dearer_a_missed_failure_the_lower_the_threshold():
    logit, came = drawn()
    told = probability.sigmoid(logit)
    at = [probability.decision(told, came > 0, cost) for cost in (1.0, 4.0, 19.0)]
    assert at == pytest.approx([0.5, 0.2, 0.05], abs=0.06)  # Elkan 2001: 1 / (1 + cost)


def test_without_a_cost_the_threshold_has_the_largest_f1():
    logit, came = drawn(n=500)
    told = probability.sigmoid(logit)
    best = probability.f1(told >= probability.decision(told, came > 0, 0.0), came > 0)
    assert best == pytest.approx(max(probability.f1(told >= limit, came > 0) for limit in told))


def test_figures_of_a_fold_come_from_the_other_folds():
    """Folds whose logits lie in different places: a calibration of their own would make each look right."""
    logit, came = drawn(n=4000)
    fold = np.repeat([0, 1], 2000).astype(np.int32)
    shifted = np.where(fold == 1, logit + 4.0, logit)
    assert HeldOut(logit[:, None], came, fold).metrics(0.0)["reliability"] < 0.03
    assert HeldOut(shifted[:, None], came, fold).metrics(0.0)["reliability"] > 0.1
