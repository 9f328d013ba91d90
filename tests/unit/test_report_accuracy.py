"""Accuracy against the truth, by figures computed by hand."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from models.rul_held_out import phm_score
from plugin.domain import OutputTag, Prediction, Status
from plugin.report.accuracy import Truth, accuracy, pair

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def predicted(second, value, *, asset="engine-01", lower=None, upper=None):
    tag = OutputTag("rul", asset, "rul", "cycles", 0.0, 125.0, "Remaining useful life")
    at = START + second * SECOND
    status = Status.BAD if value is None else Status.GOOD
    return Prediction(tag, 1, at, at, at + SECOND, value, lower, upper, status, 1.0, 1)


def truth(second, value, asset="engine-01"):
    return Truth(START + second * SECOND, asset, value)


def test_figures_of_three_pairs():
    predictions = [predicted(0, 12.0), predicted(1, 18.0), predicted(2, 33.0)]
    rows = [truth(0, 10.0), truth(1, 20.0), truth(2, 30.0)]

    figures = accuracy(predictions, rows, SECOND / 2)

    # Errors +2, −2, +3; the truth varies by 100 + 0 + 100 around its mean of 20.
    assert figures is not None
    assert figures.n == 3
    assert figures.rmse == pytest.approx(math.sqrt(17 / 3))
    assert figures.mae == pytest.approx(7 / 3)
    assert figures.bias == pytest.approx(1.0)
    assert figures.r2 == pytest.approx(1 - 17 / 200)
    assert figures.phm == pytest.approx((math.exp(0.2) - 1) + (math.exp(2 / 13) - 1) + (math.exp(0.3) - 1))


def test_predicting_the_mean_has_no_merit():
    figures = accuracy([predicted(0, 20.0), predicted(1, 20.0)], [truth(0, 10.0), truth(1, 30.0)], SECOND / 2)

    assert figures is not None
    assert figures.r2 == pytest.approx(0.0)


@pytest.mark.parametrize("rows", [[truth(0, 10.0)], [truth(0, 10.0), truth(1, 10.0)]], ids=["one row", "constant"])
def test_truth_that_does_not_vary_gives_no_r2(rows):
    figures = accuracy([predicted(0, 11.0), predicted(1, 11.0)], rows, SECOND / 2)

    assert figures is not None
    assert figures.r2 is None
    assert figures.rmse == pytest.approx(1.0)


def test_coverage_counts_predictions_with_a_bound_and_takes_a_missing_one_as_open():
    predictions = [
        predicted(0, 10.0, lower=8.0, upper=12.0),  # the truth is the upper bound: inside
        predicted(1, 10.0, lower=8.0, upper=14.0),  # outside
        predicted(2, 10.0, lower=8.0),  # 8 or more: inside
        predicted(3, 10.0, lower=8.0),  # outside
        predicted(4, 10.0),
    ]
    true = [truth(0, 12.0), truth(1, 14.5), truth(2, 99.0), truth(3, 7.0), truth(4, 99.0)]

    figures = accuracy(predictions, true, SECOND / 2)

    assert figures is not None
    assert figures.n == 5
    assert (figures.bounded, figures.coverage, figures.width) == (4, 0.5, 5.0)


def test_without_bounds_there_is_no_coverage():
    figures = accuracy([predicted(0, 10.0)], [truth(0, 12.0)], SECOND / 2)

    assert figures is not None
    assert (figures.bounded, figures.coverage, figures.width) == (0, None, None)


def test_truth_above_the_cap_counts_as_the_cap():
    predictions, rows = [predicted(0, 120.0), predicted(1, 50.0)], [truth(0, 200.0), truth(1, 50.0)]

    capped, whole = (accuracy(predictions, rows, SECOND / 2, cap=cap) for cap in (125.0, None))

    assert capped is not None
    assert whole is not None
    assert capped.mae == pytest.approx(2.5)
    assert whole.mae == pytest.approx(40.0)


def test_nothing_to_compare_gives_nothing():
    assert accuracy([], [truth(0, 1.0)], SECOND) is None
    assert accuracy([predicted(0, 1.0)], [], SECOND) is None


def test_pairs_are_of_one_asset():
    assert not pair([predicted(0, 1.0, asset="engine-02")], [truth(0, 1.0)], SECOND)


@pytest.mark.parametrize(("distance", "pairs"), [(0.5, 1), (0.51, 0), (-0.5, 1), (-0.51, 0)])
def test_pairs_are_no_further_apart_than_the_tolerance(distance, pairs):
    assert len(pair([predicted(10 + distance, 1.0)], [truth(10, 1.0)], SECOND / 2)) == pairs


def test_a_truth_counts_once_with_the_nearest_prediction():
    far, near = predicted(9.7, 1.0), predicted(10.1, 2.0)

    assert [p for p, _ in pair([far, near], [truth(10, 1.0)], SECOND)] == [near]


def test_a_prediction_counts_once_for_the_nearest_truth():
    rows = [truth(9, 1.0), truth(10, 2.0), truth(11, 3.0)]

    assert [t for _, t in pair([predicted(10.4, 1.0)], rows, SECOND)] == [rows[1]]


def test_of_two_equally_near_the_earlier_counts():
    early, late = predicted(9, 1.0), predicted(11, 2.0)

    assert [p for p, _ in pair([late, early], [truth(10, 1.0)], SECOND)] == [early]
    assert [t.value for _, t in pair([predicted(10, 1.0)], [truth(11, 2.0), truth(9, 1.0)], SECOND)] == [1.0]


def test_what_is_no_number_is_left_out():
    predictions = [predicted(0, None), predicted(1, math.nan), predicted(2, 5.0), predicted(3, 6.0)]
    rows = [truth(0, 1.0), truth(1, 1.0), truth(2, math.nan), truth(3, 7.0)]

    assert [(p.value, t.value) for p, t in pair(predictions, rows, SECOND / 2)] == [(6.0, 7.0)]


def test_late_predictions_cost_more_than_early_ones():
    assert phm_score(np.array([0.0])) == 0.0
    assert phm_score(np.array([-13.0])) == pytest.approx(math.e - 1)
    assert phm_score(np.array([10.0])) == pytest.approx(math.e - 1)
    assert phm_score(np.array([13.0, -13.0])) == pytest.approx(math.exp(1.3) + math.e - 2)


def test_an_absurd_error_makes_the_score_infinite():
    assert phm_score(np.array([1e6])) == math.inf
