"""The figures of the benchmark on anomalies."""

import numpy as np
import pytest

from tests.benchmarks.anomaly import Told, auc, delay, rates


def told(score, anomalous):
    return Told(np.array(score, float), np.array(anomalous, bool))


def test_the_area_is_the_chance_of_the_right_order_and_ties_count_half():
    anomalous = np.array([0, 0, 1, 1], bool)
    assert auc(np.array([0.1, 0.2, 0.3, 0.4]), anomalous) == 1.0
    assert auc(np.array([0.1, 0.3, 0.2, 0.3]), anomalous) == pytest.approx((0.5 + 0.0 + 1 + 1) / 4)
    assert auc(np.ones(4), anomalous) == 0.5


def test_rates_are_over_the_rows_of_all_files():
    far, mar = rates([told([2, 0, 2], [0, 0, 1]), told([0, 0], [1, 0])])
    assert far == pytest.approx(100 / 3)
    assert mar == pytest.approx(50)


def test_an_anomaly_that_is_never_seen_counts_as_long_as_it_lasts():
    scores = [2, 0, 0, 2, 0, 0, 0, 0, 0, 2]
    assert delay([told(scores, [0, 1, 1, 1, 0, 0, 1, 1, 1, 1])]) == 2.5
    assert delay([told([0, 0, 0], [0, 1, 1])]) == 2
