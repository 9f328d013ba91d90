"""Lives of a unit, by its age and by what people said; the tables show ages cell by cell."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from plugin.domain import Label, LabelKind, Verdict, to_micros
from plugin.infer.lives import lives
from plugin.infer.told import Told, gathered, within

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def found(ages, failures=(), orders=()):
    """(first cell, first cell after) of each life; a cell is 10 long and begins at 10 times its number."""
    told = Told(10**9, np.array(sorted(failures), np.int64), tuple(orders))
    every = lives(np.array(ages, np.float64), 10 * np.arange(len(ages)), 10, told)
    return [(life.start, life.stop) for life in every]


LONG = [1, 2, 3, 4, 1, 2, 3, 4, 5, 1, 2]


@pytest.mark.parametrize(
    ("ages", "failures", "orders", "expected"),
    [
        (LONG, [], [], [(0, 4), (4, 9)]),
        (LONG, [39], [], [(0, 4), (4, 9)]),  # the reset's own
        (LONG, [55], [], [(0, 4), (4, 9)]),  # told a little after it
        ([*range(1, 31), 1, 2, 3, 4, 5], [325], [], [(0, 30)]),  # told late, while it is young again
        ([*range(1, 31), 1, 2, 3, 4, 5], [335], [], [(0, 30), (30, 34)]),  # it is not: it failed young
        ([*range(1, 31), 1, 2, 1, 2, 3], [345], [], [(0, 30), (30, 32), (32, 35)]),  # what started over last was young
        ([*range(1, 31), 1, 2, 3, 4, 5], [325], [(290, 300)], [(30, 33)]),  # an order says why it started over
        (LONG, [70], [], [(0, 4), (4, 8)]),  # before it: the cells up to the reset are nobody's life
        (range(1, 10), [55], [], [(0, 6)]),  # an age that never starts over
        (range(1, 10), [35, 75], [], [(0, 4), (4, 8)]),  # it failed, and went on
        (LONG, [], [(40, 41)], [(5, 9)]),  # the first reset was an order's: nobody knows when it would have failed
        (LONG, [], [(25, 38)], [(4, 9)]),
        (LONG, [30], [(25, 38)], [(0, 3), (4, 9)]),  # the failure that the order was about
        (range(1, 10), [75], [(30, 45)], [(5, 8)]),  # a life begins with the end of an order
        (range(1, 10), [], [(30, 45)], []),
        (range(1, 10), [500], [], []),  # its end was not seen
        ([3, 4, 1, 2, 3, 1], [], [], [(2, 5)]),  # its beginning was not seen
        ([1, np.nan, 3, 1], [], [], [(0, 3)]),
        ([np.nan], [5], [(0, 10)], []),
    ],
)
def test_lives_end_with_failures(ages, failures, orders, expected):
    assert found(list(ages), failures, orders) == expected


def test_a_unit_that_has_run_for_days_again_fails_by_itself():
    """However old it was before: an infant of a turbine that had run for years."""
    day, ages = 86_400_000_000, np.array([*range(100), 0, 1, 2, 3, 4, 5], np.float64)
    cells = day * np.arange(len(ages))

    def ended(failure: float) -> list[int]:
        told = Told(10**17, np.array([int(failure * day)]))
        return [life.stop for life in lives(ages, cells, day, told)]

    assert ended(102.9) == [100]
    assert ended(105.5) == [100, 106]


def label(kind, start, end=None, verdict=None, told=timedelta(seconds=60)):
    at = NOW + timedelta(seconds=start)
    return Label(
        f"{kind}-{start}", kind, "a", at, NOW + told, None if end is None else NOW + timedelta(seconds=end), verdict,
        as_of=at if verdict else None,
    )  # fmt: skip


def test_that_all_is_well_is_said_of_what_had_been_and_not_of_what_comes():
    """Also where it lasts: whoever said so had seen no more."""
    at_once = timedelta(0)
    lasts, long = label(LabelKind.NORMAL, -50, told=at_once), label(LabelKind.NORMAL, -40, 90, told=at_once)
    told = gathered([lasts, long], timedelta(seconds=4), NOW + timedelta(days=400))
    assert told.well == tuple((to_micros(NOW) - back * 1_000_000, to_micros(NOW)) for back in (50, 40))


def test_a_verdict_speaks_of_the_window_before_its_flag_and_a_failure_told_twice_is_one():
    labels = [
        label(LabelKind.FAILURE, 5), label(LabelKind.FAILURE, 5), label(LabelKind.WORK_ORDER, 50),
        label(LabelKind.NORMAL, 10, 20), label(LabelKind.VERDICT, 40, verdict=Verdict.FALSE_ALARM),
        label(LabelKind.VERDICT, 45, verdict=Verdict.CONFIRMED), label(LabelKind.VERDICT, 48, verdict=Verdict.UNCLEAR),
    ]  # fmt: skip
    told = gathered(labels, timedelta(seconds=4), NOW + timedelta(seconds=100))

    def seconds(spans):
        return [tuple((time - to_micros(NOW)) // 1_000_000 for time in span) for span in spans]

    assert seconds([told.failures.tolist()]) == [(5,)]
    assert seconds(told.stops) == [(50, 100)], "an order that lasts"
    assert seconds(told.well) == [(10, 20), (36, 40)]
    assert seconds(told.ill) == [(41, 45)]
    assert within(np.array([9, 10, 19, 20]), [(10, 20)]).tolist() == [False, True, True, False]
