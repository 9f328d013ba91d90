"""When the disk is full."""

from datetime import timedelta
from math import inf, isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.historian.keeping.forecast import Marks, Stock, full_in

HOUR, DAY = 3600.0, 86_400.0
GIB = 2**30
RATES = st.just(0.0) | st.floats(1e-3, 1e8)


def marks(rest, step=HOUR) -> Marks:
    return Marks(np.arange(len(rest)) * step, np.array(rest, np.float64))


def test_what_grows_evenly_fills_the_disk_when_division_says_so():
    assert full_in(100, [Stock(50, 2.0)], 3.0) == 20.0
    assert full_in(100, [], 0.0) == inf
    assert full_in(100, [], -5.0) == inf
    assert full_in(0, [], 1.0) == 0.0


def test_a_class_in_its_steady_state_does_not_grow():
    steady = Stock(10 * GIB, 10 * GIB / (10 * DAY), timedelta(days=10))
    assert full_in(GIB, [steady], 0.0) == inf
    full = Stock(10 * GIB, 1e6, most=10 * GIB)
    assert full_in(GIB, [full], 0.0) == inf
    assert full_in(GIB, [full, steady], GIB / DAY) == pytest.approx(DAY)


def test_a_class_grows_until_its_retention_begins_and_the_rest_goes_on():
    """100 bytes/s for 10 s more, then the rest alone: 1,000 + 10 × 10 are gone then, and 900 are left for 90 s."""
    young = Stock(1000, 100.0, timedelta(seconds=20))
    assert full_in(2000, [young], 10.0) == pytest.approx(100.0)
    assert full_in(1099, [young], 10.0) == pytest.approx(1099 / 110)
    assert full_in(2000, [young], 0.0) == inf


def test_nothing_is_said_before_anything_is_seen():
    assert isnan(marks([]).rate())
    assert isnan(marks([5.0, 6.0, 7.0]).rate())
    assert isnan(full_in(100, [Stock(1, 1.0)], marks([1.0]).rate()))
    assert marks([0.0, 360.0, 720.0, 1080.0, 1440.0, 1800.0, 2160.0]).rate() == pytest.approx(0.1)


def test_an_import_of_years_is_no_growth_that_goes_on():
    rest = np.arange(24 * 7) * 3600.0
    rest[100:] += 50 * GIB
    assert marks(rest).rate() == pytest.approx(1.0)


def test_rows_that_come_all_day_and_go_at_night_are_no_growth():
    rest = 1e6 * (np.arange(24 * 7) % 24)
    assert marks(rest).rate() == pytest.approx(0.0)


@given(
    st.integers(0, 10**13),
    st.lists(
        st.tuples(
            st.integers(0, 10**12),
            RATES,
            st.none() | st.integers(1, 5000),
            st.none() | st.integers(0, 10**12),
        ),
        max_size=5,
    ),
    RATES | st.floats(-1e6, -1e-3),
)
def test_at_that_moment_the_growth_is_what_was_free(free, classes, rest):
    stocks = [Stock(size, rate, age and timedelta(days=age), most) for size, rate, age, most in classes]
    seconds = full_in(free, stocks, rest)
    assert seconds >= 0

    def growth(passed: float) -> float:
        limited = sum(min(stock.rate * passed, stock.room) for stock in stocks)
        return float(max(rest, 0.0) * passed + limited)

    if seconds == inf:
        assert rest <= 0
        assert sum(stock.room for stock in stocks if stock.rate > 0) <= free * (1 + 1e-9) + 1
    else:
        assert growth(seconds) == pytest.approx(free, rel=1e-6, abs=1)
