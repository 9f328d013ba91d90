"""Grids: what a model sees of the samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.domain import SampleBatch, Status
from plugin.infer.windows import dense, occupied

STEP = 1_000_000


def batch(*rows: tuple[int, float, float, int]) -> SampleBatch:
    """Rows of (tag, source time [s], value, status), ordered as a store orders them."""
    rows = tuple(sorted(rows, key=lambda row: row[:2]))
    tags, times, values, status = zip(*rows, strict=True) if rows else ((), (), (), ())
    micros = (np.array(times, np.float64) * STEP).astype(np.int64)
    return SampleBatch.of(tags, micros, values, status, micros, 0)


def test_a_cell_takes_its_last_sample_and_holds_it_no_longer_than_allowed():
    samples = batch((7, 0.2, 1.0, 0), (7, 0.9, 2.0, 0), (7, 4.0, 3.0, 0))
    grid = dense(samples, [7], 0, STEP, 6, 2 * STEP)
    assert grid.values[0].tolist() == [2, 2, 2, 0, 3, 3]
    assert grid.observed[0].tolist() == [True, True, True, False, True, True]


def test_the_end_is_exclusive():
    grid = dense(batch((1, 2.0, 5.0, 0)), [1], 0, STEP, 2, 10 * STEP)
    assert not grid.observed.any()


def test_a_sample_before_the_window_is_held_into_it():
    grid = dense(batch((1, -1.5, 5.0, 0)), [1], 0, STEP, 3, 2 * STEP)
    assert grid.observed[0].tolist() == [True, False, False]


def test_bad_ends_the_hold_and_uncertain_is_observed_but_not_good():
    samples = batch((1, 0.0, 1.0, Status.GOOD), (1, 1.0, np.nan, Status.BAD), (1, 3.0, 4.0, Status.UNCERTAIN))
    grid = dense(samples, [1], 0, STEP, 4, 100 * STEP)
    assert grid.observed[0].tolist() == [True, False, False, True]
    assert grid.good[0].tolist() == [True, False, False, False]


def test_info_bits_do_not_lower_good():
    grid = dense(batch((1, 0.0, 1.0, 0x480)), [1], 0, STEP, 1, 0)
    assert grid.good.all()


def test_nothing_is_held_into_or_across_a_gap():
    samples = batch((1, 0.0, 1.0, 0), (1, 6.0, 2.0, 0))
    grid = dense(samples, [1], 0, STEP, 8, 100 * STEP, [(1, 2 * STEP, 5 * STEP)])
    assert grid.observed[0].tolist() == [True, True, False, False, False, False, True, True]


def test_the_last_sample_before_a_gap_stands_in_its_own_cell():
    grid = dense(batch((1, 2.0, 1.0, 0)), [1], 0, STEP, 5, 100 * STEP, [(1, 2 * STEP, 9 * STEP)])
    assert grid.observed[0].tolist() == [False, False, True, False, False]


def test_a_gap_of_another_tag_changes_nothing():
    samples = batch((1, 0.0, 1.0, 0))
    grid = dense(samples, [1], 0, STEP, 4, 100 * STEP, [(2, 0, 3 * STEP)])
    assert grid.observed.all()


def test_hold_is_per_tag():
    samples = batch((1, 0.0, 1.0, 0), (2, 0.0, 1.0, 0))
    grid = dense(samples, [1, 2], 0, STEP, 3, np.array([0, 100 * STEP]))
    assert grid.observed.tolist() == [[True, False, False], [True, True, True]]


def test_rows_follow_the_tags_asked_for_and_may_repeat():
    samples = batch((1, 0.0, 1.0, 0), (2, 0.0, 2.0, 0), (3, 0.0, 3.0, 0))
    assert dense(samples, [3, 1], 0, STEP, 1, 0).values[:, 0].tolist() == [3, 1]


def test_occupied_leaves_out_cells_without_any_sample():
    samples = batch((1, 0.0, 1.0, 0), (2, 1.0, 2.0, 0), (1, 1000.5, 3.0, 0))
    grid = occupied(samples, [1, 2], STEP, 10 * STEP)
    assert (grid.cells // STEP).tolist() == [0, 1, 1000]
    assert grid.observed.tolist() == [[True, True, True], [False, True, False]]


@pytest.mark.parametrize("tags", [[1], [1, 2]])
def test_no_samples_give_an_empty_grid(tags):
    assert not dense(batch(), tags, 0, STEP, 3, STEP).observed.any()
    assert occupied(batch(), tags, STEP, STEP).cells.size == 0


ROWS = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.integers(-5, 15),
        st.floats(-100, 100, width=32) | st.just(float("nan")),
        st.sampled_from([int(Status.GOOD), int(Status.UNCERTAIN), int(Status.BAD), 0x480]),
    ),
    max_size=40,
)


@given(rows=ROWS, hold=st.integers(0, 12))
def test_the_grid_equals_a_plain_loop(rows, hold):
    samples = batch(*((tag, time / 2, value, status) for tag, time, value, status in rows))
    grid = dense(samples, [2, 1], 0, STEP, 6, hold * STEP)
    for row, tag in enumerate([2, 1]):
        mine = sorted((r for r in rows if r[0] == tag), key=lambda r: r[1])
        for cell in range(6):
            seen = [r for r in mine if r[1] / 2 < cell + 1]
            last = seen[-1] if seen else None
            usable = last is not None and last[3] >> 30 < 2 and not np.isnan(last[2]) and cell - last[1] / 2 <= hold
            assert grid.observed[row, cell] == usable
            assert grid.values[row, cell] == (np.float32(last[2]) if usable and last else 0)
