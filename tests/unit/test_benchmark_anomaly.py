"""The figures of the benchmark on anomalies."""

import numpy as np
import pytest

from tests.benchmarks.anomaly import Told, auc, delay, flagged, rates, read


def told(flags, anomalous):
    return Told(np.zeros(len(flags)), np.array(flags, bool), np.array(anomalous, bool))


def test_the_area_is_the_chance_of_the_right_order_and_ties_count_half():
    anomalous = np.array([0, 0, 1, 1], bool)
    assert auc(np.array([0.1, 0.2, 0.3, 0.4]), anomalous) == 1.0
    assert auc(np.array([0.1, 0.3, 0.2, 0.3]), anomalous) == pytest.approx((0.5 + 0.0 + 1 + 1) / 4)
    assert auc(np.ones(4), anomalous) == 0.5


def test_rates_are_over_the_rows_of_all_files():
    far, mar = rates([told([1, 0, 1], [0, 0, 1]), told([0, 0], [1, 0])])
    assert far == pytest.approx(100 / 3)
    assert mar == pytest.approx(50)


def test_an_anomaly_that_is_never_seen_counts_as_long_as_it_lasts():
    flags = [1, 0, 0, 1, 0, 0, 0, 0, 0, 1]
    assert delay([told(flags, [0, 1, 1, 1, 0, 0, 1, 1, 1, 1])]) == 2.5
    assert delay([told([0, 0, 0], [0, 1, 1])]) == 2


def test_rows_are_flagged_by_the_rule_that_runs_live():
    over, between, under = 5 * [1.1], 9 * [0.7], 5 * [0.5]
    assert not flagged(np.array(4 * [1.1] + [1.0] + 4 * [1.1])).any(), "four seconds are not enough"
    assert [*flagged(np.array(over + between + under))] == 4 * [False] + 14 * [True] + [False]


def test_files_come_in_the_order_in_which_they_were_divided_into_thirds(tmp_path):
    line = "2020-03-09 10:14:33;" + ";".join(["1.0"] * 8) + ";0.0;0.0\n"
    for name in ("valve1/0", "other/2", "other/10", "anomaly-free/anomaly-free"):
        path = tmp_path / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("header\n" + 2 * line)
    assert [trial.name for trial in read(tmp_path)] == ["other/10", "other/2", "valve1/0"]
