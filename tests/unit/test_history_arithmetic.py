"""Aggregates of OPC 10000-13, against what one works out by hand."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from asyncua import ua
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.domain import SampleBatch, Status
from plugin.publish.history.arithmetic import (
    AGGREGATES,
    CALCULATED,
    INTERPOLATED,
    NO_DATA,
    SUB_NORMAL,
    Result,
    Series,
    Terms,
)
from plugin.publish.history.past import NO_GAPS, Gaps

_NAN, _GOOD, _BAD, _UNSURE = math.nan, Status.GOOD, Status.BAD, Status.UNCERTAIN_SUB_NORMAL


def _series(rows: Sequence[tuple[int, float, int]], gaps: Gaps = NO_GAPS, **terms: bool | int) -> Series:
    time, value, status = zip(*rows, strict=True) if rows else ((), (), ())
    batch = SampleBatch.of([0] * len(rows), time, np.array(value, np.float64), np.array(status, np.uint32), 0, 0)
    return Series(batch, Terms(**terms), gaps)  # type: ignore[arg-type]


def _asked(name: str, rows: Sequence[tuple[int, float, int]], low: int, high: int, **terms: bool | int) -> Result:
    aggregate = AGGREGATES[getattr(ua.ObjectIds, f"AggregateFunction_{name}")]
    return aggregate(_series(rows, NO_GAPS, **terms), low, high)


_ROWS = [(0, 10.0, _GOOD), (10, 20.0, _GOOD), (20, _NAN, _BAD), (30, 40.0, _GOOD), (40, 50.0, _UNSURE)]


@pytest.mark.parametrize(
    ("name", "low", "high", "value", "status"),
    [
        ("Average", 0, 20, 15.0, CALCULATED),
        ("Average", 0, 30, 15.0, SUB_NORMAL | CALCULATED),
        ("Average", 30, 50, 45.0, SUB_NORMAL | CALCULATED),
        ("Average", 20, 30, None, NO_DATA),
        ("Average", 50, 60, None, NO_DATA),
        ("Minimum", 0, 50, 10.0, SUB_NORMAL | CALCULATED),
        ("Maximum", 0, 20, 20.0, CALCULATED),
        ("Range", 0, 20, 10.0, CALCULATED),
        ("Count", 0, 20, 2.0, CALCULATED),
        ("Count", 20, 30, 0.0, SUB_NORMAL | CALCULATED),
        ("Count", 50, 60, None, NO_DATA),
        ("Interpolative", 5, 10, 15.0, INTERPOLATED),
        ("Interpolative", 10, 20, 20.0, _GOOD),
        ("Interpolative", 25, 30, 35.0, SUB_NORMAL | INTERPOLATED),
        ("Interpolative", 45, 50, 50.0, SUB_NORMAL | INTERPOLATED),
        ("Interpolative", -5, 0, None, NO_DATA),
        ("TimeAverage", 0, 10, 15.0, CALCULATED),
        ("TimeAverage", 5, 15, 20.0, SUB_NORMAL | CALCULATED),
        ("TimeAverage", 10, 30, 30.0, SUB_NORMAL | CALCULATED),
        ("TimeAverage", -10, 0, None, NO_DATA),
        ("TimeAverage2", 0, 10, 15.0, CALCULATED),
        ("TimeAverage2", 10, 30, 20.0, SUB_NORMAL | CALCULATED),
        ("TimeAverage2", 20, 30, None, NO_DATA),
        ("PercentGood", 0, 40, 75.0, CALCULATED),
        ("PercentBad", 0, 40, 25.0, CALCULATED),
        ("PercentBad", -10, 10, 50.0, CALCULATED),
        ("PercentGood", 40, 80, 0.0, CALCULATED),
        ("DurationGood", 0, 40, 0.03, CALCULATED),
        ("PercentGood", -20, -10, None, NO_DATA),
    ],
)
def test_an_aggregate_of_an_interval(name, low, high, value, status):
    found = _asked(name, _ROWS, low, high)
    assert found.value == (value if value is None else pytest.approx(value))
    assert hex(found.status) == hex(status)


@pytest.mark.parametrize(
    ("name", "low", "high", "value", "status"),
    [
        ("PercentGood", 0, 20, 60.0, CALCULATED),  # known until 12, and nothing until the next value
        ("PercentBad", 0, 20, 40.0, CALCULATED),
        ("PercentGood", 12, 18, 0.0, CALCULATED),
        ("DurationBad", 0, 40, 0.008, CALCULATED),
        ("PercentGood", 20, 40, 100.0, CALCULATED),
        ("Average", 0, 20, 15.0, SUB_NORMAL | CALCULATED),
        ("Average", 12, 18, None, NO_DATA),
        ("Count", 0, 20, 2.0, SUB_NORMAL | CALCULATED),
        ("Count", 20, 40, 2.0, CALCULATED),
        ("Interpolative", 10, 20, 20.0, _GOOD),
        ("Interpolative", 11, 20, 20.0, SUB_NORMAL | INTERPOLATED),
        ("Interpolative", 12, 20, None, NO_DATA),
        ("Interpolative", 19, 20, None, NO_DATA),
        ("Interpolative", 25, 30, 35.0, INTERPOLATED),
        ("TimeAverage", 0, 20, (10 * 15.0 + 2 * 20.0) / 12, SUB_NORMAL | CALCULATED),
        ("TimeAverage", 13, 18, None, NO_DATA),
        ("TimeAverage2", 0, 20, (10 * 15.0 + 2 * 20.0) / 12, SUB_NORMAL | CALCULATED),
        ("TimeAverage2", 20, 30, 35.0, CALCULATED),
    ],
)
def test_in_a_recorded_gap_nothing_is_known(name, low, high, value, status):
    rows = [(0, 10.0, _GOOD), (10, 20.0, _GOOD), (20, 30.0, _GOOD), (30, 40.0, _GOOD), (40, 50.0, _GOOD)]
    series = _series(rows, gaps=np.array([[12, 18]], np.int64))
    result = AGGREGATES[getattr(ua.ObjectIds, f"AggregateFunction_{name}")](series, low, high)
    assert result.status == status
    assert result.value == (None if value is None else pytest.approx(value))


def test_start_and_end_are_raw_values_with_their_own_times():
    assert _asked("Start", _ROWS, 5, 50) == Result(20.0, _GOOD, 10)
    assert _asked("End", _ROWS, 5, 30) == Result(None, _BAD, 20)
    assert _asked("End", _ROWS, 41, 50).status == NO_DATA


def test_what_stands_is_not_drawn_as_a_line():
    assert _asked("Interpolative", _ROWS, 5, 10, stepped=True) == Result(10.0, INTERPOLATED)
    assert _asked("TimeAverage", _ROWS, 0, 20, stepped=True).value == 15.0
    assert _asked("TimeAverage2", _ROWS, 5, 15, stepped=True) == Result(15.0, CALCULATED)


def test_uncertain_values_are_bad_where_a_client_wants_it():
    assert _asked("Average", _ROWS, 30, 50, uncertain=False) == Result(40.0, SUB_NORMAL | CALCULATED)
    assert _asked("Average", _ROWS, 40, 50, uncertain=False).status == NO_DATA


def test_a_result_is_good_or_bad_by_the_shares_that_a_client_wants():
    assert _asked("Average", _ROWS, 0, 30, good=60).status == CALCULATED
    assert _asked("Average", _ROWS, 0, 30, bad=30).status == Status.BAD | CALCULATED


def test_of_equal_times_the_last_value_is_drawn_and_all_are_counted():
    rows = [(0, 1.0, _GOOD), (10, 5.0, _GOOD), (10, 3.0, _GOOD)]
    assert _asked("Interpolative", rows, 5, 10).value == 2.0
    assert _asked("Count", rows, 0, 20).value == 3.0


def test_simple_bounds_look_at_bad_neighbours():
    series = _series(_ROWS)
    assert series.at(25, simple=True).status == NO_DATA
    assert series.at(15, simple=True) == Result(20.0, SUB_NORMAL | INTERPOLATED)


_VALUES = st.lists(st.tuples(st.integers(0, 50), st.floats(-100, 100), st.sampled_from([_GOOD, _BAD])), max_size=12)


@settings(max_examples=60, deadline=None)
@given(_VALUES, st.booleans())
def test_time_averages_are_what_a_fine_sum_gives(rows, stepped):
    rows = sorted({time: (time, _NAN if status else value, status) for time, value, status in rows}.values())
    low, high = 10, 40
    series = _series(rows, stepped=stepped)
    found = _asked("TimeAverage", rows, low, high, stepped=stepped)
    # every corner lies on a whole time: between them the middle is the mean
    middles = [_middle(series, time) for time in range(low, high)]
    known = [value for value in middles if value is not None]
    if not known:
        assert found.value is None
    else:
        assert found.value == pytest.approx(sum(known) / len(known), abs=1e-9)


def _middle(series: Series, time: int) -> float | None:
    first, last = series.at(time), series.at(time + 1)
    if first.value is None:
        return None
    return first.value if series.terms.stepped or last.value is None else (first.value + last.value) / 2


@settings(max_examples=60, deadline=None)
@given(_VALUES)
def test_shares_of_time_are_whole(rows):
    rows = sorted((time, _NAN if status else value, status) for time, value, status in rows)
    good, bad = (_asked(name, rows, 10, 40).value for name in ("PercentGood", "PercentBad"))
    assert (good is None) == (bad is None) == (not rows or rows[0][0] >= 40)
    assert good is None or bad is None or good + bad == pytest.approx(100.0)
