"""What the swinging door leaves out lies within the bound of what it keeps."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from plugin.domain import SampleBatch, Status
from plugin.historian.closed.door import kept

NOON = 1_714_564_800_000_000
SECOND = 1_000_000
UNCERTAIN, BAD, OVERFLOW = int(Status.UNCERTAIN), int(Status.BAD), 0x480

STEPS = st.one_of(st.just(SECOND), st.integers(0, 3 * SECOND), st.integers(1, 10**14))
MOVES = st.one_of(st.sampled_from([0.0, 0.1, 1.0, -1.0, 5.0]), st.floats(-3, 3), st.floats(allow_nan=True))
STATUSES = st.sampled_from([0] * 12 + [OVERFLOW, UNCERTAIN, BAD])
ROWS = st.lists(st.tuples(STEPS, MOVES, STATUSES, st.integers(0, 19)), min_size=1, max_size=60)
BOUNDS = st.sampled_from([0.0, 1e-9, 0.1, 0.5, 2.0, 1e300])


def none(count: int) -> NDArray[np.bool_]:
    return np.zeros(count, np.bool_)


def of_tag(value: object, bound: float = 0.5, step: int = SECOND) -> tuple[SampleBatch, dict[int, float]]:
    column = np.asarray(value, np.float64)
    return SampleBatch.of(np.ones(len(column)), NOON + step * np.arange(len(column)), column, 0, 0, 0), {1: bound}


@settings(max_examples=200, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=3), st.lists(BOUNDS, min_size=3, max_size=3))
def test_what_is_left_out_is_within_the_bound(
    tags: list[list[tuple[int, float, int, int]]], by_tag: list[float]
) -> None:
    tag = np.concatenate([np.full(len(rows), place + 1) for place, rows in enumerate(tags)])
    time = np.concatenate([NOON + np.cumsum([row[0] for row in rows]) for rows in tags])
    with np.errstate(all="ignore"):
        value = np.concatenate([np.cumsum([row[1] for row in rows]) for rows in tags])
    status = np.concatenate([[row[2] for row in rows] for rows in tags])
    fixed = np.concatenate([[row[3] == 0 for row in rows] for rows in tags])
    batch = SampleBatch.of(tag, time, value, status, 0, 0)
    mask = kept(batch, {place + 1: bound for place, bound in enumerate(by_tag)}, fixed)
    assert mask[fixed].all()
    for number, bound in enumerate(by_tag, 1):
        mine = batch.tag == number
        assert_within(batch.take(mine), mask[mine], Fraction(bound))


def assert_within(batch: SampleBatch, mask: NDArray[np.bool_], bound: Fraction) -> None:
    rows = list(zip(batch.source_time.tolist(), batch.value.tolist(), batch.status.tolist(), strict=True))
    stay = np.flatnonzero(mask).tolist()
    if not rows:
        return
    assert stay[0] == 0
    assert stay[-1] == len(rows) - 1
    for left, right in pairwise(stay):
        (start, low, _), (end, high, _) = rows[left], rows[right]
        for time, value, status in rows[left + 1 : right]:
            assert (
                status == rows[left][2] == rows[right][2] == 0 or status == rows[left][2] == rows[right][2] == OVERFLOW
            )
            line = Fraction(low) + (Fraction(high) - Fraction(low)) * (time - start) / (end - start)
            assert abs(line - Fraction(value)) <= bound  # raises for a NaN or an infinity


def test_of_a_straight_line_the_ends_are_kept() -> None:
    mask = kept(*of_tag(np.arange(400) * 0.25), none(400))
    assert np.flatnonzero(mask).tolist() == [0, 399]


def test_a_line_ends_after_so_many_samples() -> None:
    mask = kept(*of_tag(np.zeros(1100)), none(1100))
    assert np.flatnonzero(mask).tolist() == [0, 512, 1024, 1099]


def test_a_corner_is_kept() -> None:
    value = np.append(np.arange(100), 99 - np.arange(1, 100))
    mask = kept(*of_tag(value, 0.01), none(199))
    assert np.flatnonzero(mask).tolist() == [0, 99, 198]


def test_without_a_bound_all_is_kept() -> None:
    batch, _ = of_tag(np.zeros(9))
    assert kept(batch, {}, none(9)).all()
    assert kept(batch, {1: 0.0, 2: 5.0}, none(9)).all()
    assert len(kept(SampleBatch.empty(), {1: 1.0}, none(0))) == 0


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_is_no_number_is_kept_with_its_neighbours(odd: float) -> None:
    value = np.zeros(20)
    value[10] = odd
    assert np.flatnonzero(kept(*of_tag(value), none(20))).tolist() == [0, 9, 10, 11, 19]


def test_numbers_that_differ_by_less_than_their_last_digit_are_kept() -> None:
    assert kept(*of_tag(1e16 + np.arange(20) % 2 * 2, 1e-3), none(20)).all()


@pytest.mark.parametrize(("lowest", "bound"), [(0, 1 / 3), (0, 2 / 3), (10**9, 1 / 3), (10**14, 2 / 3)])
def test_the_bound_holds_to_the_last_digit(lowest: int, bound: float) -> None:
    """Lines between whole numbers pass others by exact thirds, and the double next to a third is less than it."""
    value = lowest + np.random.default_rng(7).integers(0, 3, 4000)
    batch, bounds = of_tag(value, bound)
    mask = kept(batch, bounds, none(4000))
    assert mask.mean() < 0.9
    assert_within(batch, mask, Fraction(bound))


def test_random_numbers_are_within_the_bound() -> None:
    batch, bounds = of_tag(np.random.default_rng(8).normal(size=4000), 1.0)
    mask = kept(batch, bounds, none(4000))
    assert mask.mean() < 0.6
    assert_within(batch, mask, Fraction(1))


def test_a_line_has_one_status() -> None:
    batch, bounds = of_tag(np.zeros(30))
    batch = replace(batch, status=np.where(np.arange(30) < 11, np.uint32(0), np.uint32(OVERFLOW)))
    assert np.flatnonzero(kept(batch, bounds, none(30))).tolist() == [0, 10, 11, 29]


def test_the_bound_is_used_up() -> None:
    value = np.tile([0.0, 0.999, 0.0, -0.999], 100)
    assert kept(*of_tag(value, 1.0), none(400)).sum() == 3, "the last one is no 0"
    assert kept(*of_tag(value, 0.998), none(400)).sum() == 201


def test_steps_that_no_double_can_hold_are_kept() -> None:
    assert kept(*of_tag([-1.7e308, 1.7e308, 1.7e308, 1.7e308], 1e300), none(4)).all()


def test_noise_within_the_bound_shrinks_to_little() -> None:
    random = np.random.default_rng(1)
    batch, bounds = of_tag(50 + np.sin(np.arange(20_000) / 500) * 20 + random.normal(0, 0.05, 20_000))
    assert kept(batch, bounds, none(20_000)).mean() < 0.03
